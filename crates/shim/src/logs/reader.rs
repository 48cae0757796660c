//! Reading a log, and following it while it grows and its files are replaced.

use std::collections::VecDeque;
use std::future::Future;
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::path::PathBuf;

use jiff::Timestamp;
use rustix::fs::inotify;
use tokio::io::unix::AsyncFd;
use tokio::sync::mpsc;

use super::files::{self, Part, Records};
use super::{LogError, LogLine, ReadOptions};
use crate::config::{LogConfig, LogDriver};

type Sender = mpsc::Sender<Result<LogLine, LogError>>;

/// Records that may be read ahead of the receiver.
const AHEAD: usize = 64;

/// Reads a log in a task of its own. The channel holds records as they are read and closes at
/// the end: that of the files, or, when following, that of the files after `ended` is complete
/// (the container has exited). Dropping the receiver stops the task.
///
/// Records that cannot be understood, as a power cut leaves them, are left out.
pub fn read(
    log: &LogConfig,
    options: ReadOptions,
    ended: impl Future<Output = ()> + Send + 'static,
) -> mpsc::Receiver<Result<LogLine, LogError>> {
    let (sender, receiver) = mpsc::channel(AHEAD);
    let Some(path) = log.path.clone().filter(|_| log.driver != LogDriver::None) else {
        // There is room for the only message.
        drop(sender.try_send(Err(LogError::Unreadable)));
        return receiver;
    };
    let driver = log.driver;
    tokio::spawn(async move {
        let failed = |source| LogError::Read { path: path.clone(), source };
        if let Err(source) = run(path.clone(), driver, options, ended, &sender).await {
            // Nobody may be left to hear it.
            drop(sender.send(Err(failed(source))).await);
        }
    });
    receiver
}

async fn run(
    path: PathBuf,
    driver: LogDriver,
    options: ReadOptions,
    ended: impl Future<Output = ()>,
    sender: &Sender,
) -> io::Result<()> {
    let follow = options.follow;
    let until = options.until;
    let watch = if follow { Some(Watch::new(&path)?) } else { None };
    let mut reader = Reader {
        path,
        driver,
        since: options.since,
        until,
        parts: VecDeque::new(),
        current: None,
        finished: false,
    };
    let to = sender.clone();
    let (wanted, before) = (options.tail, options.before);
    reader = blocking(move || {
        reader.open(wanted, before)?;
        reader.forward(&to)?;
        Ok(reader)
    })
    .await?;
    let Some(mut watch) = watch else { return Ok(()) };
    let deadline = async {
        match until.map(|until| until.duration_since(Timestamp::now())) {
            Some(left) => {
                tokio::time::sleep(left.try_into().unwrap_or(std::time::Duration::ZERO)).await;
            }
            None => std::future::pending().await,
        }
    };
    tokio::pin!(ended, deadline);
    let mut last = false;
    while !reader.finished && !last {
        tokio::select! {
            () = &mut ended => last = true,
            () = &mut deadline => last = true,
            () = sender.closed() => return Ok(()),
            changed = watch.changed() => changed?,
        }
        let to = sender.clone();
        reader = blocking(move || {
            reader.forward(&to)?;
            Ok(reader)
        })
        .await?;
    }
    Ok(())
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> io::Result<T> {
    tokio::task::spawn_blocking(work).await.map_err(io::Error::other)?
}

struct Reader {
    path: PathBuf,
    driver: LogDriver,
    since: Option<Timestamp>,
    until: Option<Timestamp>,
    /// What is to be read before the current file.
    parts: VecDeque<Part>,
    /// The newest file that has been opened.
    current: Option<Records>,
    /// Whether nothing that comes can be wanted.
    finished: bool,
}

impl Reader {
    fn open(
        &mut self,
        wanted: Option<usize>,
        before: Option<crate::protocol::LogMark>,
    ) -> io::Result<()> {
        let mut files = files::open_all(&self.path)?;
        if let Some(mark) = before {
            files::limit(&mut files, mark);
        }
        self.parts = if let Some(wanted) = wanted {
            files::tail(files, self.driver, wanted)?
        } else {
            // A file whose last change is older than all that is wanted need not be read.
            let newest = files.len().saturating_sub(1);
            let since = self.since.map(std::time::SystemTime::from);
            let mut parts = VecDeque::new();
            for (index, file) in files.into_iter().enumerate() {
                let old =
                    file.modified.zip(since).is_some_and(|(modified, since)| modified < since);
                if index == newest || !old {
                    parts.push_back(Part::Records(file.records(self.driver)?));
                }
            }
            parts
        };
        if let Some(Part::Records(current)) = self.parts.pop_back() {
            self.current = Some(current);
        }
        Ok(())
    }

    /// Sends everything that can be read now.
    fn forward(&mut self, to: &Sender) -> io::Result<()> {
        while let Some(part) = self.parts.pop_front() {
            match part {
                Part::Lines(lines) => {
                    for line in lines {
                        self.send(line, to);
                    }
                }
                Part::Records(mut records) => self.drain(&mut records, to)?,
            }
        }
        if let Some(mut current) = self.current.take() {
            self.drain(&mut current, to)?;
            self.current = Some(current);
        }
        self.follow_rotation(to)
    }

    fn follow_rotation(&mut self, to: &Sender) -> io::Result<()> {
        loop {
            let ours = self.current.as_ref().and_then(|current| current.identity);
            let newest = files::inode(&self.path)?;
            if self.finished || newest.is_none() || newest == ours {
                return Ok(());
            }
            // The writer has left our file for good, perhaps after we last read it.
            if let Some(mut current) = self.current.take() {
                self.drain(&mut current, to)?;
            }
            let files = files::open_all(&self.path)?;
            // If ours is gone altogether, all that are left are newer.
            let known = files.iter().rposition(|file| ours.is_some() && file.identity == ours);
            for file in files.into_iter().skip(known.map_or(0, |position| position + 1)) {
                let mut records = file.records(self.driver)?;
                self.drain(&mut records, to)?;
                self.current = Some(records);
            }
            if self.current.is_none() {
                return Ok(());
            }
        }
    }

    fn drain(&mut self, records: &mut Records, to: &Sender) -> io::Result<()> {
        while !self.finished
            && let Some(line) = records.next()?
        {
            self.send(line, to);
        }
        Ok(())
    }

    fn send(&mut self, line: LogLine, to: &Sender) {
        if self.since.is_some_and(|since| line.time < since) {
            return;
        }
        if self.finished || self.until.is_some_and(|until| line.time > until) {
            self.finished = true;
            return;
        }
        if to.blocking_send(Ok(line)).is_err() {
            self.finished = true;
        }
    }
}

/// Tells of changes in a log's directory.
struct Watch {
    inotify: AsyncFd<OwnedFd>,
    name: Vec<u8>,
}

impl Watch {
    fn new(path: &std::path::Path) -> io::Result<Self> {
        use std::os::unix::ffi::OsStrExt;
        let fd = inotify::init(inotify::CreateFlags::CLOEXEC | inotify::CreateFlags::NONBLOCK)?;
        let parent = path.parent().unwrap_or(path);
        // A container that was never started may have none yet.
        match fs_err::create_dir(parent) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
            _ => {}
        }
        inotify::add_watch(
            &fd,
            parent,
            inotify::WatchFlags::MODIFY
                | inotify::WatchFlags::CREATE
                | inotify::WatchFlags::MOVED_TO,
        )?;
        let name = path.file_name().unwrap_or_default().as_bytes().to_vec();
        Ok(Self { inotify: crate::handle::readable(fd)?, name })
    }

    /// Waits for a change of the current file.
    async fn changed(&mut self) -> io::Result<()> {
        loop {
            let mut guard = self.inotify.readable().await?;
            let changed = take_events(self.inotify.get_ref(), &self.name)?;
            guard.clear_ready();
            if changed {
                return Ok(());
            }
        }
    }
}

/// Whether the file of that name changed.
fn take_events(fd: &OwnedFd, name: &[u8]) -> io::Result<bool> {
    let mut space = [MaybeUninit::uninit(); 4096];
    let mut reader = inotify::Reader::new(fd, &mut space);
    let mut changed = false;
    loop {
        match reader.next() {
            Ok(event) => {
                let overflow = event.events().contains(inotify::ReadFlags::QUEUE_OVERFLOW);
                changed |=
                    overflow || event.file_name().is_some_and(|file| file.to_bytes() == name);
            }
            Err(rustix::io::Errno::AGAIN) => return Ok(changed),
            Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
}
