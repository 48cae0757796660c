//! Uploads that go on over several requests.
//!
//! One request at a time adds to an upload. A client whose connection broke comes back before the
//! server has noticed, so the request that comes last has the upload, and the one before it ends.
//! What arrived is kept, whatever ends a request; what the next one may begin with is what
//! [`Uploads::status`] says.

use std::collections::HashMap;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use fs_err::{File, OpenOptions};
use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::Instant;

use crate::config::Limits;
use crate::error::{Error, Refusal};
use crate::name::{Algorithm, Digest, Hasher, Name};
use crate::store::files::{self, Files};

/// Bytes that are hashed and written at once.
const BATCH: usize = 1 << 20;

/// All uploads of a server.
#[derive(Debug)]
pub(crate) struct Uploads {
    files: Files,
    limits: Limits,
    known: Mutex<HashMap<String, Arc<Upload>>>,
}

/// One upload.
#[derive(Debug)]
pub(crate) struct Upload {
    pub(crate) id: String,
    pub(crate) repository: Name,
    directory: PathBuf,
    /// Bytes that have arrived.
    size: AtomicU64,
    /// Which request has the upload.
    turn: watch::Sender<u64>,
    /// The hash of what has arrived; `None` if that has to be read for it.
    hash: Arc<tokio::sync::Mutex<Option<Hasher>>>,
}

/// A complete upload, which nothing can be added to as long as this is there.
#[derive(Debug)]
pub(crate) struct Finished {
    pub(crate) path: PathBuf,
    _held: tokio::sync::OwnedMutexGuard<Option<Hasher>>,
}

/// Which bytes a request brings, both ends included.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Range {
    pub(crate) first: u64,
    pub(crate) last: u64,
}

impl Upload {
    fn data(&self) -> PathBuf {
        self.directory.join("data")
    }

    pub(crate) fn size(&self) -> u64 {
        self.size.load(Ordering::Acquire)
    }

    /// Ends the request that has the upload; the next one to take a turn ends this one.
    fn take_turn(&self) -> (watch::Receiver<u64>, u64) {
        let mut mine = 0;
        self.turn.send_modify(|turn| {
            *turn += 1;
            mine = *turn;
        });
        (self.turn.subscribe(), mine)
    }
}

impl Uploads {
    /// With those of an earlier server, which count as well. Blocks; nobody else serves these
    /// files.
    pub(crate) fn open(files: Files, limits: Limits) -> Result<Self, Error> {
        let uploads = Self { files, limits, known: Mutex::default() };
        for id in files::names(&uploads.files.uploads())? {
            match uploads.recover(&id)? {
                Some(upload) => drop(uploads.known().insert(id, Arc::new(upload))),
                // It was never told to a client.
                None => remove(&uploads.files.uploads().join(id)),
            }
        }
        Ok(uploads)
    }

    fn known(&self) -> MutexGuard<'_, HashMap<String, Arc<Upload>>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Begins an upload. Blocks.
    pub(crate) fn begin(
        &self,
        repository: &Name,
        algorithm: Algorithm,
    ) -> Result<Arc<Upload>, Error> {
        let id = files::random_name()?;
        let directory = self.files.uploads().join(&id);
        let upload = Arc::new(Upload {
            id: id.clone(),
            repository: repository.clone(),
            directory: directory.clone(),
            size: AtomicU64::new(0),
            turn: watch::Sender::new(0),
            hash: Arc::new(tokio::sync::Mutex::new(Some(Hasher::new(algorithm)))),
        });
        {
            let mut known = self.known();
            if known.len() >= self.limits.uploads {
                known.retain(|_, upload| upload.data().exists());
            }
            if known.len() >= self.limits.uploads {
                return Err(Refusal::busy("too many uploads are unfinished").into());
            }
            known.insert(id.clone(), Arc::clone(&upload));
        }
        let make = || {
            files::make_directory(&directory)?;
            let data = upload.data();
            File::create_new(&data).map_err(Error::io("create", &data))?;
            let name = directory.join("repository");
            fs_err::write(&name, repository.as_str()).map_err(Error::io("write", &name))
        };
        match make() {
            Ok(()) => Ok(upload),
            Err(error) => {
                self.remove(&upload);
                Err(error)
            }
        }
    }

    /// Finds an upload. Blocks.
    pub(crate) fn find(&self, repository: &Name, id: &str) -> Result<Arc<Upload>, Error> {
        let found = self.known().get(id).cloned();
        let upload = found.filter(|upload| upload.repository == *repository);
        upload.filter(|upload| upload.data().exists()).ok_or_else(|| Refusal::no_upload().into())
    }

    /// An upload of an earlier server; `None` if it is not complete.
    fn recover(&self, id: &str) -> Result<Option<Upload>, Error> {
        if !files::is_random_name(id) {
            return Ok(None);
        }
        let directory = self.files.uploads().join(id);
        let absent = |error: &io::Error| error.kind() == io::ErrorKind::NotFound;
        let name = directory.join("repository");
        // It is written last.
        let repository = match fs_err::read_to_string(&name) {
            Err(error) if absent(&error) => return Ok(None),
            result => result.map_err(Error::io("read", name))?.parse::<Name>(),
        };
        let data = directory.join("data");
        let size = match fs_err::metadata(&data) {
            Err(error) if absent(&error) => return Ok(None),
            result => result.map_err(Error::io("look at", data))?.len(),
        };
        Ok(repository.ok().map(|repository| Upload {
            id: id.to_owned(),
            repository,
            directory,
            size: AtomicU64::new(size),
            turn: watch::Sender::new(0),
            hash: Arc::default(),
        }))
    }

    /// Removes an upload. Blocks.
    pub(crate) fn remove(&self, upload: &Upload) {
        self.known().remove(&upload.id);
        remove(&upload.directory);
    }

    /// Adds a body to an upload. Runs to its end also when nobody waits for it any more, unless
    /// another request takes over.
    pub(crate) async fn append(
        self: &Arc<Self>,
        upload: &Arc<Upload>,
        range: Option<Range>,
        length: Option<u64>,
        body: Incoming,
    ) -> Result<(), Error> {
        let (uploads, upload) = (Arc::clone(self), Arc::clone(upload));
        let work = async move { uploads.receive(&upload, range, length, body).await };
        tokio::spawn(work).await.map_err(Error::Task)?
    }

    async fn receive(
        &self,
        upload: &Arc<Upload>,
        range: Option<Range>,
        length: Option<u64>,
        body: Incoming,
    ) -> Result<(), Error> {
        let (mut turn, mine) = upload.take_turn();
        let mut hash = upload.hash.lock().await;
        let size = upload.size();
        if let Some(range) = range {
            let count = range.last.checked_sub(range.first).and_then(|last| last.checked_add(1));
            if range.first != size || count.is_none() {
                return Err(misplaced(upload));
            }
            if length.is_some() && length != count {
                let text = "Content-Range and Content-Length do not agree";
                return Err(Refusal::upload(text).into());
            }
        }
        let room = self.limits.blob.saturating_sub(size);
        if length.is_some_and(|length| length > room) {
            return Err(self.too_large());
        }
        let path = upload.data();
        let file = OpenOptions::new().append(true).open(&path).map_err(|error| {
            if error.kind() == io::ErrorKind::NotFound {
                return Refusal::no_upload().into();
            }
            Error::io("open", &path)(error)
        })?;
        let sink = Sink { file, hash: hash.take(), upload: Arc::clone(upload) };
        let taken = async move {
            // The sender is the upload's, which outlives this.
            drop(turn.wait_for(|turn| *turn != mine).await);
        };
        let (kept, result) = self.pump(sink, room, body, taken).await;
        *hash = kept;
        if result.as_ref().is_err_and(Error::is_full) {
            // What came of it would keep the disk full, for whoever tries next as well.
            let directory = upload.directory.clone();
            self.known().remove(&upload.id);
            tokio::task::spawn_blocking(move || remove(&directory)).await.map_err(Error::Task)?;
        }
        result
    }

    /// Writes a body as it comes, until it ends or another request has taken over. Gives the hash
    /// of all that is written, if it is known, and returns when nothing is being written any more.
    async fn pump(
        &self,
        sink: Sink,
        room: u64,
        body: Incoming,
        taken: impl Future<Output = ()>,
    ) -> (Option<Hasher>, Result<(), Error>) {
        let mut reader = Paced::new(body, &self.limits);
        let mut taken = std::pin::pin!(taken);
        let mut left = room;
        let mut batch: Vec<Bytes> = Vec::new();
        let mut gathered = 0;
        let mut writing: JoinHandle<Result<Sink, Error>> = tokio::spawn(async { Ok(sink) });
        loop {
            let frame = tokio::select! {
                frame = reader.frame() => frame,
                () = &mut taken => {
                    Err(Refusal::upload("another request has taken over the upload").into())
                }
            };
            let end = match frame {
                Ok(None) => Some(Ok(())),
                Err(error) => Some(Err(error)),
                Ok(Some(bytes)) if bytes.len() as u64 > left => Some(Err(self.too_large())),
                Ok(Some(bytes)) => {
                    left -= bytes.len() as u64;
                    gathered += bytes.len();
                    batch.push(bytes);
                    None
                }
            };
            if gathered < BATCH && end.is_none() {
                continue;
            }
            // While this is written, the next is gathered.
            let mut sink = match writing.await {
                Ok(Ok(sink)) => sink,
                Ok(Err(error)) => return (None, Err(error)),
                Err(error) => return (None, Err(Error::Task(error))),
            };
            let parts = std::mem::take(&mut batch);
            gathered = 0;
            writing = tokio::task::spawn_blocking(move || {
                sink.write(&parts)?;
                Ok(sink)
            });
            if let Some(end) = end {
                return match writing.await {
                    Ok(Ok(sink)) => (sink.hash, end),
                    Ok(Err(error)) => (None, Err(error)),
                    Err(error) => (None, Err(Error::Task(error))),
                };
            }
        }
    }

    fn too_large(&self) -> Error {
        Refusal::too_large(format!("a blob may have {} bytes here", self.limits.blob)).into()
    }

    /// Checks what has arrived against its digest; gives the file, which goes with the upload.
    pub(crate) async fn finish(
        &self,
        upload: &Arc<Upload>,
        digest: &Digest,
    ) -> Result<Finished, Error> {
        upload.take_turn();
        let mut hash = Arc::clone(&upload.hash).lock_owned().await;
        let path = upload.data();
        let found = match hash.take() {
            Some(hasher) if hasher.algorithm() == digest.algorithm => hasher.finish(),
            // It came before a restart, or was cut off, or is hashed otherwise.
            _ => {
                let (path, algorithm) = (path.clone(), digest.algorithm);
                let read = move || {
                    let read = || files::digest_of(File::open(&path)?, algorithm);
                    read().map_err(|error| match error.kind() {
                        // Another request has finished it.
                        io::ErrorKind::NotFound => Refusal::no_upload().into(),
                        _ => Error::io("read", &path)(error),
                    })
                };
                tokio::task::spawn_blocking(read).await.map_err(Error::Task)??.finish()
            }
        };
        if found != *digest {
            let text = format!("the content has digest {found}, not {digest}");
            return Err(Refusal::digest(text).into());
        }
        Ok(Finished { path, _held: hash })
    }
}

/// Removes an upload's directory.
fn remove(directory: &Path) {
    if let Err(error) = fs_err::remove_dir_all(directory)
        && error.kind() != io::ErrorKind::NotFound
    {
        tracing::warn!(%error, "remove an upload");
    }
}

fn misplaced(upload: &Upload) -> Error {
    let size = upload.size();
    let text = format!("the upload has {size} bytes: the next chunk begins there");
    let status = hyper::StatusCode::RANGE_NOT_SATISFIABLE;
    let mut refusal = Refusal::new(status, "BLOB_UPLOAD_INVALID", text);
    refusal.upload = Some((upload.id.clone(), size));
    refusal.into()
}

/// What bytes are written to.
#[derive(Debug)]
struct Sink {
    file: File,
    hash: Option<Hasher>,
    upload: Arc<Upload>,
}

impl Sink {
    fn write(&mut self, parts: &[Bytes]) -> Result<(), Error> {
        for part in parts {
            let written = self.file.write_all(part);
            if let Err(error) = written {
                // Some of it may be there: the file's length is what counts.
                self.hash = None;
                if let Ok(metadata) = self.file.metadata() {
                    self.upload.size.store(metadata.len(), Ordering::Release);
                }
                return Err(Error::io("write", self.upload.data())(error));
            }
            if let Some(hash) = &mut self.hash {
                hash.update(part);
            }
            self.upload.size.fetch_add(part.len() as u64, Ordering::AcqRel);
        }
        Ok(())
    }
}

/// A body that must keep coming.
#[derive(Debug)]
pub(crate) struct Paced {
    body: Incoming,
    silence: Duration,
    rate: u64,
    began: Instant,
    total: u64,
}

impl Paced {
    pub(crate) fn new(body: Incoming, limits: &Limits) -> Self {
        let (silence, rate) = (limits.silence, limits.rate);
        Self { body, silence, rate, began: Instant::now(), total: 0 }
    }

    /// The next bytes; `None` at the end.
    pub(crate) async fn frame(&mut self) -> Result<Option<Bytes>, Error> {
        loop {
            let next = tokio::time::timeout(self.silence, self.body.frame()).await;
            let Ok(next) = next else { return Err(too_slow()) };
            let frame = match next {
                None => return Ok(None),
                Some(Ok(frame)) => frame,
                Some(Err(error)) => {
                    tracing::debug!(%error, "a body ended early");
                    return Err(Refusal::upload("the body ended early").into());
                }
            };
            let Ok(bytes) = frame.into_data() else { continue };
            self.total += bytes.len() as u64;
            let elapsed = self.began.elapsed();
            if elapsed > self.silence && self.total / elapsed.as_secs().max(1) < self.rate {
                return Err(too_slow());
            }
            return Ok(Some(bytes));
        }
    }
}

fn too_slow() -> Error {
    let status = hyper::StatusCode::REQUEST_TIMEOUT;
    Refusal::new(status, "BLOB_UPLOAD_INVALID", "the body comes too slowly").into()
}
