//! Who may run a container: the lock on its directory.
//!
//! A lock of flock(2) belongs to an open file, however many descriptors of however many
//! processes lead to it, and ends with the last of them. The daemon takes it before it starts a
//! shim and hands it over as a descriptor, so that there is no moment at which a shim exists, or
//! is about to, without it. The copies of a shim that become processes of the container keep it
//! until they execute their programs.

use std::ffi::OsStr;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::fs::{FlockOperation, Mode, OFlags};
use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags, Signal};

/// How long a shim may take to leave that has nothing to do any more.
const PATIENCE: Duration = Duration::from_secs(5);
/// How long one may take that was killed, and how often that is tried.
const KILLED: (u32, Duration) = (10, Duration::from_secs(1));

/// The right to run the container of a directory.
#[derive(Debug)]
pub(crate) struct Claim(OwnedFd);

impl Claim {
    /// Takes the claim, waiting for a shim that is about to leave; one that does not is killed.
    pub(crate) async fn take(dir: &Path) -> io::Result<Self> {
        let directory = open(dir)?;
        match lock(&directory, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => return Ok(Self(directory)),
            Err(Errno::AGAIN) => {}
            Err(error) => return Err(error.into()),
        }
        let mut waiting = tokio::task::spawn_blocking(move || {
            lock(&directory, FlockOperation::LockExclusive)?;
            io::Result::Ok(directory)
        });
        let mut patience = PATIENCE;
        for _ in 0..=KILLED.0 {
            if let Ok(taken) = tokio::time::timeout(patience, &mut waiting).await {
                return taken.map_err(io::Error::other)?.map(Self);
            }
            patience = KILLED.1;
            let killed = kill(dir);
            tracing::warn!(directory = %dir.display(), killed, "killed a shim that did not leave");
        }
        Err(io::Error::new(io::ErrorKind::TimedOut, "the last shim does not leave"))
    }
}

impl AsFd for Claim {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

fn open(dir: &Path) -> io::Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    Ok(rustix::fs::open(dir, flags, Mode::empty())?)
}

fn lock(directory: &OwnedFd, operation: FlockOperation) -> rustix::io::Result<()> {
    loop {
        match rustix::fs::flock(directory, operation) {
            Err(Errno::INTR) => {}
            result => return result,
        }
    }
}

/// Waits until no shim of the container of this directory is left, nor any process that one was
/// about to make; what takes too long is killed. A directory that does not exist has none.
pub async fn gone(container_dir: &Path) -> io::Result<()> {
    match Claim::take(container_dir).await {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// A shim that lives, or a copy of one that is about to become something else.
#[derive(Debug)]
pub struct Living {
    /// The container's id.
    pub id: String,
    /// The container's directory, which says whose shim it is.
    pub container_dir: PathBuf,
    process: OwnedFd,
}

impl Living {
    /// Kills it; true if it could be.
    pub fn kill(&self) -> bool {
        rustix::process::pidfd_send_signal(&self.process, Signal::KILL).is_ok()
    }
}

/// Every shim of the machine, whichever engine's it is. This looks at every process.
pub fn living() -> Vec<Living> {
    let Ok(processes) = fs_err::read_dir("/proc") else { return Vec::new() };
    let pids = processes.flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    pids.filter_map(|pid: i32| {
        let command = || fs_err::read(format!("/proc/{pid}/cmdline")).ok();
        parse(&command()?)?;
        // A number that was given anew meanwhile is not hit: once more with its process held.
        let process = rustix::process::pidfd_open(Pid::from_raw(pid)?, PidfdFlags::empty()).ok()?;
        let (id, container_dir) = parse(&command()?)?;
        Some(Living { id, container_dir, process })
    })
    .collect()
}

/// Kills every shim of the container of this directory, whether or not the directory exists, and
/// returns how many there were. Their end is not waited for: see [`gone`].
pub fn kill(container_dir: &Path) -> usize {
    let shims = living().into_iter().filter(|shim| shim.container_dir == container_dir);
    shims.filter(Living::kill).count()
}

/// The container and its directory in the command line of a shim.
fn parse(command: &[u8]) -> Option<(String, PathBuf)> {
    let mut words = command.strip_prefix(b"silo-shim\0")?.split(|&byte| byte == 0);
    let (id, dir) = (words.next()?, words.next()?);
    (dir.first() == Some(&b'/'))
        .then(|| (String::from_utf8_lossy(id).into_owned(), OsStr::from_bytes(dir).into()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn command_lines_of_shims() {
        for (command, expected) in [
            (&b"silo-shim\0abc\0/data/abc\0"[..], Some(("abc", "/data/abc"))),
            (b"silo-shim\0abc\0", None),
            (b"silo-shim", None),
            (b"sh\0abc\0/data/abc\0", None),
            (b"", None),
        ] {
            let expected = expected.map(|(id, dir)| (id.to_owned(), PathBuf::from(dir)));
            assert_eq!(parse(command), expected, "{command:?}");
        }
    }

    #[tokio::test]
    async fn a_claim_is_waited_for() {
        let dir = tempfile::tempdir().unwrap();
        let first = Claim::take(dir.path()).await.unwrap();
        // As a shim has it.
        let handed_over = first.as_fd().try_clone_to_owned().unwrap();
        drop(first);
        let mut second = Box::pin(gone(dir.path()));
        let early = tokio::time::timeout(Duration::from_millis(50), &mut second).await;
        assert!(early.is_err(), "the other descriptor holds it");
        drop(handed_over);
        second.await.unwrap();
        gone(&dir.path().join("missing")).await.unwrap();
    }
}
