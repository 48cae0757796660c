//! A context that lies with the client.

use std::collections::HashMap;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::stream;
use jiff::Timestamp;
use prost::Message as _;
use silo_build::Boxed;
use silo_build::context::{Context, Digests, Filter, Transfer, Tree};
use silo_build::progress::{Event, Status};
use silo_types::Error;
use tokio::sync::mpsc;
use tonic::Request;
use tonic::metadata::{AsciiMetadataKey, AsciiMetadataValue, MetadataMap};

use super::SyncError;
use super::slots::{Slot, Slots};
use super::tree::Receiver;
use crate::pb::fsutil::types::{Packet, packet::PacketType};
use crate::pb::moby::filesync::v1::file_sync_client::FileSyncClient;
use crate::session::{MAX_MESSAGE, Session};

const METHOD: &str = "/moby.filesync.v1.FileSync/DiffCopy";
/// Packets that wait for the disk.
const QUEUE: usize = 64;
/// How often progress is told.
const TICK: Duration = Duration::from_millis(100);

/// A directory of the client, by the name that it gave it.
#[derive(Debug)]
pub(crate) struct ClientFiles {
    session: Arc<Session>,
    slots: Arc<Slots>,
    name: String,
    /// What tells directories of one name apart.
    hint: String,
    trees: tokio::sync::Mutex<HashMap<FilterKey, Arc<Tree>>>,
}

type FilterKey = (Vec<String>, Vec<String>);

impl ClientFiles {
    /// The client's directory `name`. `hint` and what the session shares say which earlier
    /// transfers it is like.
    pub(crate) fn new(session: Arc<Session>, slots: Arc<Slots>, name: &str, hint: &str) -> Self {
        let trees = tokio::sync::Mutex::default();
        Self { session, slots, name: name.to_owned(), hint: hint.to_owned(), trees }
    }

    async fn transfer(&self, filter: &Filter, to: &Transfer<'_>) -> Result<Tree, Error> {
        let mut key = format!("{}:{}:{}", self.name, self.hint, self.session.shared_key());
        if let [only] = &filter.follow[..]
            && filter.exclude.is_empty()
        {
            // A look at one file leaves what was sent of the rest alone.
            key = format!("{key}:{only}");
        }
        let slot = Arc::new(self.slots.take(&key)?);
        let digests = match self.sync(filter, to, &slot).await {
            Ok(digests) => digests,
            Err(error) => {
                // What has come so far is of use to the next build, unless it is what fills the disk.
                if error.is_for_want_of_room() {
                    slot.discard();
                }
                return Err(error.into());
            }
        };
        slot.keep(Arc::clone(&digests));
        let path = slot.path().to_path_buf();
        Tree::open(&path, digests, Some(Box::new(slot)))
    }

    async fn sync(
        &self,
        filter: &Filter,
        to: &Transfer<'_>,
        slot: &Arc<Slot>,
    ) -> Result<Arc<Digests>, SyncError> {
        if !self.session.answers(METHOD) {
            return Err(SyncError::Unsupported);
        }
        let (send, mut outgoing) = mpsc::unbounded_channel::<Packet>();
        let outgoing = stream::poll_fn(move |cx| outgoing.poll_recv(cx));
        let mut request = Request::new(outgoing);
        let metadata = request.metadata_mut();
        put(metadata, "dir-name", std::slice::from_ref(&self.name))?;
        put(metadata, "followpaths", &filter.follow)?;
        put(metadata, "exclude-patterns", &filter.exclude)?;
        let mut client = FileSyncClient::with_origin(self.session.channel(), Session::origin())
            .max_decoding_message_size(MAX_MESSAGE);
        let called = client.diff_copy(request);
        let response = tokio::select! {
            response = called => response.map_err(said)?,
            () = self.session.closed() => return Err(SyncError::Client("session closed".into())),
        };
        let mut incoming = response.into_inner();

        let root = silo_sys::path::open_root(slot.path())
            .map_err(|error| SyncError::file("open", slot.path(), error))?;
        let receiver = Receiver::new(root, slot.digests())?;
        let (queue, packets) = mpsc::channel(QUEUE);
        let answers = send.clone();
        let held = Arc::clone(slot);
        let disk = tokio::task::spawn_blocking(move || {
            let written = write(receiver, packets, &answers);
            // Until now nobody else gets the directory, also when the build has been cancelled.
            drop(held);
            written
        });
        let mut meter = Meter::new(to, format!("transferring {}:", self.name));
        let ended = loop {
            let packet = match incoming.message().await {
                Ok(Some(packet)) => packet,
                Ok(None) => break Ok(()),
                Err(status) => break Err(said(status)),
            };
            meter.add(packet.encoded_len());
            if packet.r#type() == PacketType::PacketErr {
                let words = String::from_utf8_lossy(&packet.data).into_owned();
                break Err(SyncError::Client(format!("error from sender: {words}")));
            }
            if queue.send(packet).await.is_err() {
                // The disk side has failed, and says why.
                break Ok(());
            }
        };
        drop(queue);
        let done = disk.await.map_err(|error| SyncError::Client(error.to_string()))?;
        meter.end();
        match (ended, done) {
            (_, Err(error @ (SyncError::File { .. } | SyncError::Path { .. }))) => {
                let _gone = send.send(failure(&error));
                Err(error)
            }
            (Err(error), _) => Err(error),
            (Ok(()), done) => done,
        }
    }
}

impl Context for ClientFiles {
    fn tree<'a>(
        &'a self,
        filter: &'a Filter,
        transfer: &'a Transfer<'a>,
    ) -> Boxed<'a, Result<Arc<Tree>, Error>> {
        Box::pin(async move {
            let mut trees = self.trees.lock().await;
            let key = (filter.follow.clone(), filter.exclude.clone());
            let had = trees.iter().find(|((follow, exclude), _)| {
                let among = |path: &String| follow.contains(path);
                let part = !key.0.is_empty() && key.0.iter().all(among);
                *exclude == key.1 && (follow.is_empty() || part || *follow == key.0)
            });
            if let Some((_, tree)) = had {
                return Ok(Arc::clone(tree));
            }
            let tree = Arc::new(self.transfer(filter, transfer).await?);
            trees.insert(key, Arc::clone(&tree));
            Ok(tree)
        })
    }
}

/// Takes a tree into a directory of the user's, beside what is there.
pub(crate) fn receive_into(
    root: OwnedFd,
    owner: (u32, u32),
    packets: mpsc::Receiver<Packet>,
    answers: &mpsc::UnboundedSender<Packet>,
) -> Result<(), SyncError> {
    let receiver = Receiver::beside(root, owner)?;
    write(receiver, packets, answers).map(drop)
}

/// Carries packets to the disk until the transfer is whole.
fn write(
    mut receiver: Receiver,
    mut packets: mpsc::Receiver<Packet>,
    answers: &mpsc::UnboundedSender<Packet>,
) -> Result<Arc<Digests>, SyncError> {
    let answer = |kind: PacketType, id: u32| {
        let packet = Packet { r#type: kind.into(), id, ..Packet::default() };
        // A client that is gone shows as the end of its packets.
        let _gone = answers.send(packet);
    };
    let mut finished = false;
    let mut named = false;
    while let Some(packet) = packets.blocking_recv() {
        match packet.r#type() {
            PacketType::PacketStat if named => {
                return Err(SyncError::protocol("a file after the last"));
            }
            PacketType::PacketStat => match packet.stat {
                Some(stat) => {
                    if let Some(number) = receiver.stat(stat)? {
                        answer(PacketType::PacketReq, number);
                    }
                }
                None => {
                    receiver.end_of_stats()?;
                    named = true;
                }
            },
            PacketType::PacketData => receiver.data(packet.id, &packet.data)?,
            PacketType::PacketFin if finished => return Ok(receiver.digests()),
            _ => return Err(SyncError::protocol("an unexpected packet")),
        }
        if !finished && receiver.is_complete() {
            finished = true;
            answer(PacketType::PacketFin, 0);
        }
    }
    if finished {
        return Ok(receiver.digests());
    }
    Err(SyncError::Client("the client's files ended early".into()))
}

fn failure(error: &SyncError) -> Packet {
    Packet {
        r#type: PacketType::PacketErr.into(),
        data: error.to_string().into_bytes().into(),
        ..Packet::default()
    }
}

fn said(status: tonic::Status) -> SyncError {
    SyncError::Client(status.message().to_owned())
}

/// Adds values to the call's headers, encoded where one is not plain text.
fn put(metadata: &mut MetadataMap, name: &str, values: &[String]) -> Result<(), SyncError> {
    let bad = || SyncError::protocol("a pattern cannot be sent");
    let plain = values.iter().all(|value| value.bytes().all(|byte| (b' '..=b'~').contains(&byte)));
    let key: AsciiMetadataKey = name.parse().map_err(|_| bad())?;
    for value in values {
        let text = if plain { value.clone() } else { silo_types::query::escape(value) };
        let value: AsciiMetadataValue = text.parse().map_err(|_| bad())?;
        metadata.append(key.clone(), value);
    }
    if !plain {
        let key: AsciiMetadataKey = format!("{name}-encoded").parse().map_err(|_| bad())?;
        metadata.insert(key, AsciiMetadataValue::from_static("1"));
    }
    Ok(())
}

/// Tells how many bytes have come.
pub(crate) struct Meter<'a> {
    to: &'a Transfer<'a>,
    status: Status,
    told: Option<Instant>,
}

impl<'a> Meter<'a> {
    pub(crate) fn new(to: &'a Transfer<'a>, name: String) -> Self {
        let at = Timestamp::now();
        let status = Status {
            vertex: to.vertex,
            id: name,
            name: String::new(),
            current: 0,
            total: 0,
            at,
            started: Some(at),
            completed: None,
        };
        Self { to, status, told: None }
    }

    pub(crate) fn add(&mut self, bytes: usize) {
        self.status.current += u64::try_from(bytes).unwrap_or_default();
        if self.told.is_none_or(|told| told.elapsed() >= TICK) {
            self.told = Some(Instant::now());
            self.tell();
        }
    }

    pub(crate) fn end(&mut self) {
        self.status.completed = Some(Timestamp::now());
        self.tell();
    }

    fn tell(&mut self) {
        self.status.at = Timestamp::now();
        self.to.progress.event(Event::Status(self.status.clone()));
    }
}
