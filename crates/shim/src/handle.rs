//! The daemon's side of a shim: spawning it, finding it again, and calling it.

use std::collections::HashMap;
use std::ffi::CString;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::UnixStream as StdUnixStream;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use silo_types::{ErrorKind, Kind};
use tokio::io::unix::AsyncFd;
use tokio::io::{AsyncBufReadExt, BufReader, Interest};
use tokio::net::UnixStream;
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::sync::{mpsc, oneshot};

use crate::claim::Claim;
use crate::config::{ConsoleSize, LogConfig, ShimConfig};
use crate::protocol::{
    AttachOptions, Call, Event, ExecSpec, Failure, LogMark, Message, ProcessRef, Reply, Request,
    State,
};

/// Descriptor on which a shim finds its first control connection.
pub(crate) const CONTROL_FD: i32 = 3;
/// Descriptor on which a shim finds the network namespace to join, if it was given one.
pub(crate) const NETNS_FD: i32 = 4;
/// Descriptor by which a shim holds the lock on its container's directory.
pub(crate) const CLAIM_FD: i32 = 5;
/// Descriptor on which a shim finds what is mounted at /dev/shm, if it was given that.
pub(crate) const SHM_FD: i32 = 6;
/// The first of the descriptors of `ShimConfig::trees`.
pub(crate) const TREES_FD: i32 = 7;

/// What a container gets of the daemon beside its configuration.
#[derive(Debug, Default)]
pub struct Given {
    /// Joined in place of a new network namespace.
    pub netns: Option<OwnedFd>,
    /// A detached mount in place of the source of the configuration's bind mount at /dev/shm.
    pub shm: Option<OwnedFd>,
    /// The same for other bind mounts, by destination.
    pub trees: Vec<(String, OwnedFd)>,
}

/// A call to a shim that failed.
#[derive(Debug, thiserror::Error)]
pub enum ShimError {
    /// The shim's configuration could not be written.
    #[error("write {path}")]
    Config {
        /// The file.
        path: PathBuf,
        /// The cause.
        #[source]
        source: io::Error,
    },
    /// The shim's program could not be started.
    #[error("start shim of container {id}")]
    Spawn {
        /// The container.
        id: String,
        /// The cause.
        #[source]
        source: io::Error,
    },
    /// No shim listens there.
    #[error("connect to shim {path}")]
    Connect {
        /// The socket.
        path: PathBuf,
        /// The cause.
        #[source]
        source: io::Error,
    },
    /// The shim understood and could not do it.
    #[error("{}", .0.message)]
    Refused(Failure),
    /// The shim went away before it answered.
    #[error("shim of container {id} ended without an answer")]
    Lost {
        /// The container.
        id: String,
    },
    /// The shim answered with something else than what was asked.
    #[error("shim of container {id} gave a wrong answer to {call}")]
    Answer {
        /// The container.
        id: String,
        /// The request.
        call: &'static str,
    },
}

impl ShimError {
    /// The exit code of a container whose program could not be run: 126 or 127.
    pub fn exit_code(&self) -> Option<i32> {
        match self {
            Self::Refused(failure) => failure.exit_code,
            _ => None,
        }
    }
}

impl Kind for ShimError {
    fn kind(&self) -> ErrorKind {
        match self {
            Self::Refused(failure) => failure.kind(),
            Self::Lost { .. } => ErrorKind::Unavailable,
            _ => ErrorKind::Internal,
        }
    }
}

/// A client's side of attached streams: frames of output to read (see the crate's description),
/// raw input to write, `shutdown` of the write side as the end of input. The end of output is
/// the end of the stream, or `ConnectionReset` if there was input that nobody will read.
pub type AttachStream = UnixStream;

/// An attached client.
#[derive(Debug)]
pub struct Attached {
    /// The streams.
    pub stream: AttachStream,
    /// Where the log ended when the streams began; `None` if there is no log to read.
    pub mark: Option<LogMark>,
}

/// A connection to the shim of one container. Clones share it; it closes with the last one,
/// which the shim and the container do not mind.
#[derive(Debug, Clone)]
pub struct Shim {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    id: String,
    pid: i32,
    shim_pid: i32,
    next: AtomicU64,
    /// Writing a request must not interleave with another's.
    writer: Arc<tokio::sync::Mutex<OwnedWriteHalf>>,
    shared: Arc<Mutex<Shared>>,
}

#[derive(Debug, Default)]
struct Shared {
    waiting: HashMap<u64, oneshot::Sender<Result<Reply, Failure>>>,
    subscribers: Vec<mpsc::UnboundedSender<Event>>,
    /// Events that came before anybody subscribed.
    backlog: Vec<Event>,
    released: bool,
    lost: bool,
}

impl Shim {
    /// Starts a shim from `exe` and has it create the container. Writes `shim.json`; the OCI
    /// configuration must be in place and the run directory is made.
    ///
    /// A shim of an earlier run that is about to leave is waited for. When this fails the shim is gone and has taken back what it
    /// did, unless the error is `Lost`: then somebody killed it.
    pub async fn spawn(
        exe: BorrowedFd<'_>,
        config: &ShimConfig,
        given: Given,
    ) -> Result<Self, ShimError> {
        let id = config.id.to_string();
        let failed = |source| ShimError::Spawn { id: id.clone(), source };
        let claim = Claim::take(&config.container_dir).await.map_err(failed)?;
        let trees = given.trees.iter().map(|(place, _)| place.clone()).collect();
        let config = &ShimConfig { trees, ..config.clone() };
        let path = config.container_dir.join(ShimConfig::FILE);
        let write = || {
            fs_err::create_dir_all(&config.run_dir)?;
            fs_err::write(&path, serde_json::to_vec(config)?)
        };
        write().map_err(|source| ShimError::Config { path: path.clone(), source })?;

        let (ours, theirs) = StdUnixStream::pair().map_err(failed)?;
        ours.set_nonblocking(true).map_err(failed)?;
        let argv = [
            c"silo-shim".to_owned(),
            c_string(id.as_bytes()).map_err(failed)?,
            c_string(config.container_dir.as_os_str().as_bytes()).map_err(failed)?,
        ];
        let mut fds = vec![(theirs.as_fd(), CONTROL_FD), (claim.as_fd(), CLAIM_FD)];
        for (fd, number) in [(&given.netns, NETNS_FD), (&given.shm, SHM_FD)] {
            fds.extend(fd.as_ref().map(|fd| (fd.as_fd(), number)));
        }
        fds.extend(given.trees.iter().map(|(_, tree)| tree.as_fd()).zip(TREES_FD..));
        let child = silo_sys::spawn::spawn(exe, &argv, &[], &fds).map_err(failed)?;
        drop((theirs, claim));
        // Whatever becomes of this call: a child of ours stays a zombie until it is waited for.
        let reaped = tokio::spawn(reap(child.pidfd));
        let stream = UnixStream::from_std(ours).map_err(failed)?;
        let mut lines = BufReader::new(stream);
        match first_reply(&mut lines, &id).await {
            Ok(state) => Ok(Self::new(id, &state, lines)),
            Err(error) => {
                if reaped.await.is_err() {
                    tracing::warn!(container = %id, "the task that waits for a shim failed");
                }
                Err(error)
            }
        }
    }

    /// Connects to the shim that an earlier daemon left in `run_dir` and subscribes to its
    /// events; an exit in between is one of them. Fails with `Connect` when there is none:
    /// then [`crate::exit::read`] tells how the container ended.
    pub async fn connect(run_dir: &Path, id: &str) -> Result<(Self, State), ShimError> {
        let path = run_dir.join("shim.sock");
        let failed = |source| ShimError::Connect { path: path.clone(), source };
        let stream = connect_at(run_dir).map_err(failed)?;
        let stream = UnixStream::from_std(stream).map_err(failed)?;
        let mut lines = BufReader::new(stream);
        let request = Request { id: 0, call: Call::State { subscribe: true } };
        let line = encode(&request).map_err(failed)?;
        send_all(lines.get_ref(), &line, None).await.map_err(failed)?;
        let state = first_reply(&mut lines, id).await?;
        Ok((Self::new(id.to_owned(), &state, lines), state))
    }

    fn new(id: String, state: &State, lines: BufReader<UnixStream>) -> Self {
        let shared = Arc::new(Mutex::new(Shared::default()));
        let rest = lines.buffer().to_vec();
        let (read, write) = lines.into_inner().into_split();
        tokio::spawn(read_messages(rest, read, Arc::clone(&shared), id.clone()));
        Self {
            inner: Arc::new(Inner {
                id,
                pid: state.pid,
                shim_pid: state.shim_pid,
                next: AtomicU64::new(1),
                writer: Arc::new(tokio::sync::Mutex::new(write)),
                shared,
            }),
        }
    }

    /// The container's first process as the host sees it.
    pub fn pid(&self) -> i32 {
        self.inner.pid
    }

    /// The shim's own process.
    pub fn shim_pid(&self) -> i32 {
        self.inner.shim_pid
    }

    /// Events of the container from now on; the first caller also gets those since the
    /// connection was made. The last event is [`Event::Lost`].
    pub fn events(&self) -> mpsc::UnboundedReceiver<Event> {
        let (sender, receiver) = mpsc::unbounded_channel();
        let mut shared = lock(&self.inner.shared);
        for event in shared.backlog.drain(..) {
            // The receiver is in our hands, so this cannot fail.
            drop(sender.send(event));
        }
        if shared.lost {
            drop(sender.send(Event::Lost));
        }
        shared.subscribers.push(sender);
        receiver
    }

    /// What the shim is doing.
    pub async fn state(&self) -> Result<State, ShimError> {
        match self.call(Call::State { subscribe: true }, None).await? {
            Reply::State(state) => Ok(state),
            _ => Err(self.wrong("state")),
        }
    }

    /// Runs the first process's program and returns when it was started, in nanoseconds since
    /// 1970. A program that cannot be run is `Refused` with an exit code, and the container
    /// then ends with that code.
    pub async fn start(&self) -> Result<i64, ShimError> {
        match self.call(Call::Start, None).await? {
            Reply::Started { at, .. } => Ok(at),
            _ => Err(self.wrong("start")),
        }
    }

    /// Sends `signal` to one process. `NotFound` when it has ended.
    pub async fn signal(&self, process: ProcessRef, signal: i32) -> Result<(), ShimError> {
        self.done(Call::Signal { process, signal, all: false }, "signal").await
    }

    /// Sends `signal` to every process of the container.
    pub async fn signal_all(&self, signal: i32) -> Result<(), ShimError> {
        self.done(Call::Signal { process: ProcessRef::Init, signal, all: true }, "signal").await
    }

    /// Starts a process and returns its process id as the host sees it.
    pub async fn exec(&self, spec: ExecSpec) -> Result<i32, ShimError> {
        match self.call(Call::Exec { spec: Box::new(spec), client: false }, None).await? {
            Reply::Started { pid, .. } => Ok(pid),
            _ => Err(self.wrong("exec")),
        }
    }

    /// Starts a process with a client attached from its first byte, as `spec.attach` says.
    pub async fn exec_attached(&self, spec: ExecSpec) -> Result<(i32, AttachStream), ShimError> {
        let (ours, theirs) = self.pair()?;
        let call = Call::Exec { spec: Box::new(spec), client: true };
        match self.call(call, Some(theirs)).await? {
            Reply::Started { pid, .. } => Ok((pid, ours)),
            _ => Err(self.wrong("exec")),
        }
    }

    /// Sets the size of a process's terminal.
    pub async fn resize(&self, process: ProcessRef, size: ConsoleSize) -> Result<(), ShimError> {
        self.done(Call::Resize { process, size }, "resize").await
    }

    /// Connects a new client to the streams of a process.
    pub async fn attach(
        &self,
        process: ProcessRef,
        options: AttachOptions,
    ) -> Result<Attached, ShimError> {
        let (stream, theirs) = self.pair()?;
        match self.call(Call::Attach { process, options }, Some(theirs)).await? {
            Reply::Attached { mark } => Ok(Attached { stream, mark }),
            _ => Err(self.wrong("attach")),
        }
    }

    /// Closes a process's input.
    pub async fn close_stdin(&self, process: ProcessRef) -> Result<(), ShimError> {
        self.done(Call::CloseStdin { process }, "close stdin").await
    }

    /// Has the shim open its log file anew.
    pub async fn reopen_log(&self) -> Result<(), ShimError> {
        self.done(Call::ReopenLog, "reopen log").await
    }

    /// Gives the shim another log configuration.
    pub async fn update_log(&self, log: LogConfig) -> Result<(), ShimError> {
        self.done(Call::UpdateLog { log }, "update log").await
    }

    /// Kills the container whatever its state; its end comes as an event.
    pub async fn shutdown(&self) -> Result<(), ShimError> {
        self.done(Call::Shutdown, "shutdown").await
    }

    fn pair(&self) -> Result<(UnixStream, OwnedFd), ShimError> {
        let make = || {
            let (ours, theirs) = StdUnixStream::pair()?;
            ours.set_nonblocking(true)?;
            Ok((UnixStream::from_std(ours)?, OwnedFd::from(theirs)))
        };
        make().map_err(|source| ShimError::Spawn { id: self.inner.id.clone(), source })
    }

    fn wrong(&self, call: &'static str) -> ShimError {
        ShimError::Answer { id: self.inner.id.clone(), call }
    }

    async fn done(&self, call: Call, name: &'static str) -> Result<(), ShimError> {
        match self.call(call, None).await? {
            Reply::Done => Ok(()),
            _ => Err(self.wrong(name)),
        }
    }

    async fn call(&self, call: Call, fd: Option<OwnedFd>) -> Result<Reply, ShimError> {
        let inner = &self.inner;
        let lost = || ShimError::Lost { id: inner.id.clone() };
        let id = inner.next.fetch_add(1, Ordering::Relaxed);
        let line = encode(&Request { id, call }).map_err(|_| lost())?;
        let (sender, receiver) = oneshot::channel();
        {
            let mut shared = lock(&inner.shared);
            if shared.lost {
                return Err(lost());
            }
            shared.waiting.insert(id, sender);
        }
        let writer = Arc::clone(&inner.writer).lock_owned().await;
        // A caller that gives up must not leave half a request behind.
        let sent = match try_send(writer.as_ref(), &line, fd.as_ref().map(AsFd::as_fd)) {
            Ok(count) if count == line.len() => Ok(()),
            Ok(count) => {
                let fd = fd.filter(|_| count == 0);
                let rest = async move {
                    let fd = fd.as_ref().map(AsFd::as_fd);
                    send_all(writer.as_ref(), &line[count..], fd).await
                };
                tokio::spawn(rest).await.map_err(io::Error::other).flatten()
            }
            Err(error) => Err(error),
        };
        if sent.is_err() {
            lock(&inner.shared).waiting.remove(&id);
            return Err(lost());
        }
        receiver.await.map_err(|_| lost())?.map_err(ShimError::Refused)
    }
}

/// Waits for a shim that is our child.
async fn reap(pidfd: OwnedFd) {
    let wait = async {
        let pidfd = readable(pidfd)?;
        drop(pidfd.readable().await?);
        let which = rustix::process::WaitId::PidFd(pidfd.get_ref().as_fd());
        rustix::process::waitid(which, rustix::process::WaitIdOptions::EXITED)?;
        io::Result::Ok(())
    };
    if let Err(error) = wait.await {
        tracing::warn!(%error, "wait for a shim");
    }
}

/// Watches a descriptor for something to read.
#[expect(deprecated, reason = "an owned descriptor keeps its number, as the newer one wants")]
pub(crate) fn readable(fd: OwnedFd) -> io::Result<AsyncFd<OwnedFd>> {
    AsyncFd::with_interest(fd, Interest::READABLE)
}

fn lock(shared: &Mutex<Shared>) -> std::sync::MutexGuard<'_, Shared> {
    shared.lock().unwrap_or_else(PoisonError::into_inner)
}

fn c_string(text: &[u8]) -> io::Result<CString> {
    Ok(CString::new(text)?)
}

fn encode(request: &Request) -> io::Result<Vec<u8>> {
    let mut line = serde_json::to_vec(request)?;
    line.push(b'\n');
    Ok(line)
}

/// Connects to `shim.sock` in `run_dir`, whose path may be longer than a socket's can.
fn connect_at(run_dir: &Path) -> io::Result<StdUnixStream> {
    use std::os::fd::AsRawFd;
    let dir = fs_err::File::open(run_dir)?;
    let stream = StdUnixStream::connect(format!("/proc/self/fd/{}/shim.sock", dir.as_raw_fd()))?;
    stream.set_nonblocking(true)?;
    Ok(stream)
}

/// Sends what there is room for.
fn try_send(stream: &UnixStream, bytes: &[u8], fd: Option<BorrowedFd<'_>>) -> io::Result<usize> {
    let fds: &[BorrowedFd<'_>] = fd.as_slice();
    match stream.try_io(Interest::WRITABLE, || silo_sys::fdpass::send(stream, bytes, fds)) {
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(0),
        sent => sent,
    }
}

async fn send_all(
    stream: &UnixStream,
    mut bytes: &[u8],
    fd: Option<BorrowedFd<'_>>,
) -> io::Result<()> {
    let mut fds: &[BorrowedFd<'_>] = fd.as_slice();
    while !bytes.is_empty() {
        let sent = stream
            .async_io(Interest::WRITABLE, || silo_sys::fdpass::send(stream, bytes, fds))
            .await?;
        bytes = &bytes[sent..];
        fds = &[];
    }
    Ok(())
}

/// The first line that a shim sends on a connection: its state, or why there will be none.
async fn first_reply(lines: &mut BufReader<UnixStream>, id: &str) -> Result<State, ShimError> {
    let lost = || ShimError::Lost { id: id.to_owned() };
    let mut line = Vec::new();
    if lines.read_until(b'\n', &mut line).await.map_err(|_| lost())? == 0 {
        return Err(lost());
    }
    match serde_json::from_slice(&line) {
        Ok(Message::Reply { result: Ok(Reply::State(state)), .. }) => Ok(state),
        Ok(Message::Reply { result: Err(failure), .. }) => Err(ShimError::Refused(failure)),
        _ => Err(ShimError::Answer { id: id.to_owned(), call: "state" }),
    }
}

/// Hands every message of the shim to whom it concerns, until the connection ends.
async fn read_messages(
    rest: Vec<u8>,
    stream: OwnedReadHalf,
    shared: Arc<Mutex<Shared>>,
    id: String,
) {
    use tokio::io::AsyncReadExt;
    let mut lines = BufReader::new(io::Cursor::new(rest).chain(stream));
    let mut line = Vec::new();
    loop {
        line.clear();
        match lines.read_until(b'\n', &mut line).await {
            Ok(n) if n > 0 => {}
            _ => break,
        }
        match serde_json::from_slice(&line) {
            Ok(Message::Reply { id, result }) => {
                let waiting = lock(&shared).waiting.remove(&id);
                if let Some(sender) = waiting {
                    // Whoever asked may have given up.
                    drop(sender.send(result));
                }
            }
            Ok(Message::Event(event)) => publish(&shared, &event),
            Err(error) => tracing::warn!(container = %id, %error, "shim sent an unknown message"),
        }
    }
    if !lock(&shared).released {
        publish(&shared, &Event::Released);
    }
    publish(&shared, &Event::Lost);
    lock(&shared).waiting.clear();
}

fn publish(shared: &Mutex<Shared>, event: &Event) {
    let mut shared = lock(shared);
    shared.released |= *event == Event::Released;
    if *event == Event::Lost {
        shared.lost = true;
    } else if shared.subscribers.is_empty() {
        shared.backlog.push(event.clone());
    }
    shared.subscribers.retain(|subscriber| subscriber.send(event.clone()).is_ok());
}
