//! Results that go to the client: one file's bytes, or a tree.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::io::{self, Read as _};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use futures_util::stream;
use hyper::http::uri::PathAndQuery;
use rustix::fs::{AtFlags, FileType, Mode, OFlags};
use tokio::sync::mpsc;
use tonic::Request;
use tonic::metadata::{AsciiMetadataKey, AsciiMetadataValue};
use tonic_prost::ProstCodec;

use super::select::{Choice, State};
use super::{Select, SyncError, mode};
use crate::pb::fsutil::types::{Packet, Stat, packet::PacketType};
use crate::pb::moby::filesync::v1::BytesMessage;
use crate::pb::moby::filesync::v1::file_send_client::FileSendClient;
use crate::session::{MAX_MESSAGE, Session};

const METHOD: &str = "/moby.filesync.v1.FileSend/DiffCopy";
const EXPORTER: &str = "buildkit-attachable-exporter-id";
const MULTI_PLATFORM: &str = "buildkit-exporter-multi-platform";
/// Messages that wait for the client.
const QUEUE: usize = 16;
/// Bytes of a piece of a file.
const PIECE: usize = 128 * 1024;
/// Bytes of a piece of an archive.
const CHUNK: usize = 256 * 1024;
/// The deepest tree that is sent.
const MAX_DEPTH: usize = 1000;

fn said(status: tonic::Status) -> SyncError {
    SyncError::Client(status.message().to_owned())
}

/// Sends what `make` writes to the client's output `number`.
pub(crate) async fn send_bytes<F>(
    session: &Session,
    number: usize,
    make: F,
) -> Result<(), SyncError>
where
    F: FnOnce(&mut dyn io::Write) -> Result<(), silo_types::Error> + Send + 'static,
{
    if !session.answers(METHOD) {
        return Err(SyncError::Client(format!("method {METHOD} not supported by the client")));
    }
    let (queue, mut messages) = mpsc::channel(QUEUE);
    let maker = tokio::task::spawn_blocking(move || {
        let mut pipe = Pipe { queue, buffer: Vec::with_capacity(CHUNK) };
        make(&mut pipe)?;
        io::Write::flush(&mut pipe).map_err(|error| silo_types::Error::internal(error.to_string()))
    });
    let mut request = Request::new(stream::poll_fn(move |cx| messages.poll_recv(cx)));
    exporter(&mut request, number)?;
    let mut client = FileSendClient::with_origin(session.channel(), Session::origin())
        .max_decoding_message_size(MAX_MESSAGE);
    let answered = async {
        let mut answers = client.diff_copy(request).await.map_err(said)?.into_inner();
        while answers.message().await.map_err(said)?.is_some() {}
        Ok(())
    };
    let answered: Result<(), SyncError> = tokio::select! {
        answered = answered => answered,
        () = session.closed() => Err(SyncError::Client("session closed".into())),
    };
    let made = maker.await.map_err(|error| SyncError::Client(error.to_string()))?;
    answered?;
    made.map_err(|error| SyncError::Client(error.chain()))
}

fn exporter<T>(request: &mut Request<T>, number: usize) -> Result<(), SyncError> {
    let value: AsciiMetadataValue = number
        .to_string()
        .parse()
        .map_err(|_| SyncError::protocol("the number of an output cannot be sent"))?;
    request.metadata_mut().insert(AsciiMetadataKey::from_static(EXPORTER), value);
    Ok(())
}

/// What an archive is written to: messages to the client.
struct Pipe {
    queue: mpsc::Sender<BytesMessage>,
    buffer: Vec<u8>,
}

impl io::Write for Pipe {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let count = bytes.len().min(CHUNK - self.buffer.len());
        self.buffer.extend_from_slice(&bytes[..count]);
        if self.buffer.len() == CHUNK {
            self.flush()?;
        }
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        if self.buffer.is_empty() {
            return Ok(());
        }
        let data = std::mem::replace(&mut self.buffer, Vec::with_capacity(CHUNK)).into();
        self.queue
            .blocking_send(BytesMessage { data })
            .map_err(|_| io::Error::new(io::ErrorKind::BrokenPipe, "the client is gone"))
    }
}

/// Sends a tree to the client's output `number`.
pub(crate) async fn send_tree(
    session: &Session,
    number: usize,
    root: OwnedFd,
) -> Result<(), SyncError> {
    send(session, number, |queue| Sender::new(root, queue)).await
}

/// Sends trees as directories of these names to the client's output `number`.
pub(crate) async fn send_trees(
    session: &Session,
    number: usize,
    trees: BTreeMap<String, OwnedFd>,
) -> Result<(), SyncError> {
    send(session, number, |queue| Sender::of_several(trees, queue)).await
}

async fn send(
    session: &Session,
    number: usize,
    sender: impl FnOnce(mpsc::Sender<Packet>) -> Sender,
) -> Result<(), SyncError> {
    if !session.answers(METHOD) {
        return Err(SyncError::Client(format!("method {METHOD} not supported by the client")));
    }
    let (queue, mut messages) = mpsc::channel(QUEUE);
    let (asked, requests) = mpsc::unbounded_channel();
    let sender = sender(queue);
    let reader = tokio::task::spawn_blocking(move || sender.run(requests));
    let mut request = Request::new(stream::poll_fn(move |cx| messages.poll_recv(cx)));
    exporter(&mut request, number)?;
    request.metadata_mut().insert(
        AsciiMetadataKey::from_static(MULTI_PLATFORM),
        AsciiMetadataValue::from_static("1"),
    );
    let mut grpc = tonic::client::Grpc::with_origin(session.channel(), Session::origin())
        .max_decoding_message_size(MAX_MESSAGE);
    let transfer = async {
        grpc.ready().await.map_err(|error| SyncError::Client(error.to_string()))?;
        let codec: ProstCodec<Packet, Packet> = ProstCodec::default();
        let path = PathAndQuery::from_static(METHOD);
        let mut answers = grpc.streaming(request, path, codec).await.map_err(said)?.into_inner();
        while let Some(packet) = answers.message().await.map_err(said)? {
            match packet.r#type() {
                PacketType::PacketErr => {
                    let words = String::from_utf8_lossy(&packet.data).into_owned();
                    return Err(SyncError::Client(format!("error from receiver: {words}")));
                }
                kind @ (PacketType::PacketReq | PacketType::PacketFin) => {
                    // The reader has ended when it failed, and says why.
                    let _ended = asked.send((kind, packet.id));
                }
                _ => return Err(SyncError::protocol("an unexpected packet")),
            }
        }
        Ok(())
    };
    let transferred = tokio::select! {
        transferred = transfer => transferred,
        () = session.closed() => Err(SyncError::Client("session closed".into())),
    };
    drop(asked);
    let read = reader.await.map_err(|error| SyncError::Client(error.to_string()))?;
    transferred?;
    read
}

/// A directory on the way down.
struct Level {
    path: PathBuf,
    fd: OwnedFd,
    /// What is in it and was not named yet.
    names: std::vec::IntoIter<OsString>,
    /// What patterns have come to.
    state: State,
    /// How many directories were passed before it, if it was passed itself.
    passed: Option<usize>,
}

/// Reads a tree.
pub(crate) struct Sender {
    /// Trees by the directory that each is to be; one that is to be none has no name.
    trees: BTreeMap<String, OwnedFd>,
    queue: mpsc::Sender<Packet>,
    select: Select,
    is_owner_kept: bool,
    /// Directories that are named when something in them is.
    passed: Vec<Stat>,
}

impl Sender {
    /// Sends all of a tree as it is.
    pub(crate) fn new(root: OwnedFd, queue: mpsc::Sender<Packet>) -> Self {
        Self::of_several(BTreeMap::from([(String::new(), root)]), queue)
    }

    /// Sends all of several trees, each as a directory.
    pub(crate) fn of_several(
        trees: BTreeMap<String, OwnedFd>,
        queue: mpsc::Sender<Packet>,
    ) -> Self {
        let (select, passed) = (Select::default(), Vec::new());
        Self { trees, queue, select, is_owner_kept: true, passed }
    }

    /// Sends a part of a user's directory; its files belong to nobody in particular.
    pub(crate) fn of_user(root: OwnedFd, queue: mpsc::Sender<Packet>, select: Select) -> Self {
        let trees = BTreeMap::from([(String::new(), root)]);
        Self { trees, queue, select, is_owner_kept: false, passed: Vec::new() }
    }

    /// Names all files, and sends those that are asked for until it is told to end.
    pub(crate) fn run(
        mut self,
        mut requests: mpsc::UnboundedReceiver<(PacketType, u32)>,
    ) -> Result<(), SyncError> {
        let mut files = Vec::new();
        let names: Vec<String> = self.trees.keys().cloned().collect();
        for name in names {
            if !name.is_empty() {
                files.push(None);
                let mode = mode::from_kernel(FileType::Directory.as_raw_mode() | 0o755);
                self.name(Stat { path: name.clone(), mode, ..Stat::default() })?;
            }
            self.walk(PathBuf::from(name), &mut files)?;
        }
        self.put(Packet { r#type: PacketType::PacketStat.into(), ..Packet::default() })?;
        while let Some((kind, number)) = requests.blocking_recv() {
            if kind == PacketType::PacketFin {
                return self.put(Packet { r#type: kind.into(), ..Packet::default() });
            }
            let path = usize::try_from(number)
                .ok()
                .and_then(|number| files.get_mut(number))
                .and_then(Option::take)
                .ok_or_else(|| SyncError::protocol("invalid file id"))?;
            self.content(number, &path)?;
        }
        Err(SyncError::Client("the client is gone".into()))
    }

    fn put(&self, packet: Packet) -> Result<(), SyncError> {
        self.queue.blocking_send(packet).map_err(|_| SyncError::Client("the client is gone".into()))
    }

    /// Opens what is sent under a path.
    fn open(&self, path: &Path, flags: OFlags) -> io::Result<OwnedFd> {
        let (root, path) = match self.trees.get("") {
            Some(root) => (root, path),
            None => {
                let mut parts = path.components();
                let first = parts.next().and_then(|part| part.as_os_str().to_str());
                let root = first.and_then(|name| self.trees.get(name));
                (root.ok_or(io::ErrorKind::NotFound)?, parts.as_path())
            }
        };
        silo_sys::path::open_in_root_no_links(root, path, flags, Mode::empty())
    }

    fn level(
        &self,
        path: PathBuf,
        state: State,
        passed: Option<usize>,
    ) -> Result<Level, SyncError> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY;
        let fd = self.open(&path, flags).map_err(|error| SyncError::file("open", &path, error))?;
        let names = silo_sys::path::names(&fd);
        let names = names.map_err(|error| SyncError::file("list", &path, error))?.into_iter();
        Ok(Level { path, fd, names, state, passed })
    }

    /// Names all files, in order, and remembers those that have content. Without recursion, as
    /// strangers say how deep the tree is.
    fn walk(&mut self, from: PathBuf, files: &mut Vec<Option<PathBuf>>) -> Result<(), SyncError> {
        let mut levels = vec![self.level(from, State::default(), None)?];
        while let Some(Level { path: above, fd, names, state: so_far, passed }) = levels.last_mut()
        {
            let Some(at) = names.next() else {
                if let Some(depth) = *passed {
                    self.passed.truncate(depth);
                }
                levels.pop();
                continue;
            };
            let path = above.join(&at);
            let here = rustix::fs::statat(&*fd, &at, AtFlags::SYMLINK_NOFOLLOW)
                .map_err(|error| SyncError::file("look at", &path, error.into()))?;
            let kind = FileType::from_raw_mode(here.st_mode);
            if matches!(kind, FileType::Socket) {
                continue;
            }
            let is_directory = kind == FileType::Directory;
            let (choice, state) = self.select.choose(&path.to_string_lossy(), is_directory, so_far);
            if choice == Choice::Skip {
                continue;
            }
            // A message is text: a name that is not cannot travel.
            let Some(text) = path.to_str().map(str::to_owned) else {
                return Err(SyncError::Path { path: path.display().to_string() });
            };
            let (uid, gid) = if self.is_owner_kept { (here.st_uid, here.st_gid) } else { (0, 0) };
            let mut stat = Stat {
                path: text,
                mode: mode::from_kernel(here.st_mode),
                uid,
                gid,
                mod_time: here.st_mtime.saturating_mul(1_000_000_000)
                    + i64::try_from(here.st_mtime_nsec).unwrap_or_default(),
                ..Stat::default()
            };
            match kind {
                FileType::RegularFile => stat.size = here.st_size,
                FileType::Symlink => {
                    let target = rustix::fs::readlinkat(&*fd, &at, Vec::new())
                        .map_err(|error| SyncError::file("read", &path, error.into()))?;
                    stat.linkname = target.to_string_lossy().into_owned();
                }
                FileType::BlockDevice | FileType::CharacterDevice => {
                    stat.devmajor = i64::from(rustix::fs::major(here.st_rdev));
                    stat.devminor = i64::from(rustix::fs::minor(here.st_rdev));
                }
                _ => {}
            }
            if choice == Choice::Pass {
                let depth = self.passed.len();
                self.passed.push(stat);
                self.descend(&mut levels, path, state, Some(depth))?;
                continue;
            }
            for directory in std::mem::take(&mut self.passed) {
                files.push(None);
                self.name(directory)?;
            }
            files.push((kind == FileType::RegularFile).then(|| path.clone()));
            self.name(stat)?;
            if is_directory {
                self.descend(&mut levels, path, state, None)?;
            }
        }
        Ok(())
    }

    fn descend(
        &self,
        levels: &mut Vec<Level>,
        path: PathBuf,
        state: State,
        passed: Option<usize>,
    ) -> Result<(), SyncError> {
        if levels.len() == MAX_DEPTH {
            return Err(SyncError::protocol("directories are too deep"));
        }
        levels.push(self.level(path, state, passed)?);
        Ok(())
    }

    fn name(&self, stat: Stat) -> Result<(), SyncError> {
        let kind = PacketType::PacketStat.into();
        self.put(Packet { r#type: kind, stat: Some(stat), ..Packet::default() })
    }

    fn content(&self, id: u32, path: &Path) -> Result<(), SyncError> {
        let flags = OFlags::RDONLY | OFlags::NONBLOCK;
        let fd = self.open(path, flags).map_err(|error| SyncError::file("open", path, error))?;
        let mut file = std::fs::File::from(fd);
        let fail = |error| SyncError::file("read", path, error);
        let size = file.metadata().map_err(fail)?.len();
        let put =
            |data| self.put(Packet { r#type: PacketType::PacketData.into(), id, data, stat: None });
        // With room for one more byte than is left, so that the end shows.
        let room = usize::try_from(size).unwrap_or(PIECE).saturating_add(1).clamp(512, PIECE);
        let mut sent = 0_u64;
        loop {
            let mut piece = vec![0; room];
            let count = file.read(&mut piece).map_err(fail)?;
            piece.truncate(count);
            if count > 0 {
                put(Bytes::from(piece))?;
            }
            sent += u64::try_from(count).unwrap_or(0);
            if count == 0 || (count < room && sent == size) {
                return put(Bytes::new());
            }
        }
    }
}
