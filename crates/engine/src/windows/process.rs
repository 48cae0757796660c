//! Processes of a Windows container as the engine follows them: what it tells the start program,
//! and what that tells of start and end.

use std::io::{self, Read, Write};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::inotify;
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags};
use silo_sys::path;
use silo_types::{Error, ErrorKind};
use silo_windows::control::{self, Failure, Request, Start};

use super::PREFIX;
use crate::container::{Container, Record};

/// How long Wine may take to start a program. A cold start takes a tenth of a second.
const START_LIMIT: Duration = Duration::from_mins(2);
/// Windows' error numbers.
mod error {
    pub(super) const FILE_NOT_FOUND: u32 = 2;
    pub(super) const PATH_NOT_FOUND: u32 = 3;
    pub(super) const ACCESS_DENIED: u32 = 5;
    pub(super) const BAD_EXE_FORMAT: u32 = 193;
    pub(super) const EXE_MACHINE_TYPE_MISMATCH: u32 = 216;
    pub(super) const DIRECTORY: u32 = 267;

    pub(super) const INVALID_DIRECTORY: &str = "The directory name is invalid.";

    /// What Windows says of an error, where clients may look for its words; Wine has others.
    pub(super) fn words(code: u32) -> Option<&'static str> {
        Some(match code {
            FILE_NOT_FOUND => "The system cannot find the file specified.",
            PATH_NOT_FOUND => "The system cannot find the path specified.",
            ACCESS_DENIED => "Access is denied.",
            BAD_EXE_FORMAT => "It is not a valid Win32 application.",
            EXE_MACHINE_TYPE_MISMATCH => {
                "It is not compatible with the version of Windows that runs."
            }
            DIRECTORY => INVALID_DIRECTORY,
            _ => return None,
        })
    }
}

/// Where the files of a process are, in its container's prefix. Programs of the container can
/// put anything there, links too, so it is reached from a descriptor of the prefix and without
/// following a link, and files are made anew.
#[derive(Debug, Clone)]
pub(super) struct Folder {
    prefix: PathBuf,
    name: String,
}

impl Folder {
    fn path(&self) -> PathBuf {
        Path::new(control::FOLDER).join(&self.name)
    }

    fn open(&self) -> io::Result<OwnedFd> {
        let prefix = path::open_root(&self.prefix)?;
        let flags = OFlags::RDONLY | OFlags::DIRECTORY;
        path::open_in_root_no_links(prefix, self.path(), flags, Mode::empty())
    }

    fn make(&self) -> io::Result<OwnedFd> {
        let prefix = path::open_root(&self.prefix)?;
        path::mkdir_all_in_root(prefix, self.path(), Mode::from_raw_mode(0o755))?;
        self.open()
    }

    fn remove(&self) -> io::Result<()> {
        let prefix = path::open_root(&self.prefix)?;
        let flags = OFlags::PATH | OFlags::DIRECTORY;
        let parent = path::open_in_root_no_links(prefix, control::FOLDER, flags, Mode::empty())?;
        path::remove_all_at(parent, &self.name)
    }

    /// Asks something of the program that follows the process.
    pub(super) fn request(&self, request: Request) -> io::Result<()> {
        let folder = self.open()?;
        write(folder.as_fd(), request.file(), &request.to_bytes())?;
        wake(folder.as_fd())
    }
}

/// The files of a process of a container.
pub(super) fn folder(container: &Container, name: &str) -> Folder {
    Folder { prefix: container.path(PREFIX), name: name.to_owned() }
}

/// Writes a whole file: aside, and renamed.
fn write(folder: BorrowedFd<'_>, name: &str, bytes: &[u8]) -> io::Result<()> {
    let new = format!("{name}.new");
    path::remove_all_at(folder, &new)?;
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let file = rustix::fs::openat(folder, &new, flags, Mode::from_raw_mode(0o644))?;
    std::fs::File::from(file).write_all(bytes)?;
    Ok(rustix::fs::renameat(folder, &new, folder, name)?)
}

/// Tells the program of a folder that there is something new. Programs of a container that an
/// earlier version started watch the folder, and have no FIFO.
fn wake(folder: BorrowedFd<'_>) -> io::Result<()> {
    let flags = OFlags::WRONLY | OFlags::NONBLOCK | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let fifo = match rustix::fs::openat(folder, control::WAKE, flags, Mode::empty()) {
        Err(Errno::NOENT) => return Ok(()),
        other => other?,
    };
    let stat = rustix::fs::fstat(&fifo)?;
    if rustix::fs::FileType::from_raw_mode(stat.st_mode) != rustix::fs::FileType::Fifo {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "not a FIFO"));
    }
    match rustix::io::write(&fifo, &[1]) {
        // One that is full has not been read yet.
        Ok(_) | Err(Errno::AGAIN) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

/// Writes what a process is to be, and removes what an earlier one of the name left.
pub(super) fn prepare(folder: &Folder, start: &Start) -> Result<(), Error> {
    let bytes = start.to_bytes().map_err(|error| Error::invalid(error.to_string()))?;
    let prepare = || -> io::Result<()> {
        let folder = folder.make()?;
        for name in ["started", "exit", "error", "request", "size", "services", "taken", "start"] {
            path::remove_all_at(&folder, name)?;
        }
        write(folder.as_fd(), "start", &bytes)
    };
    prepare().map_err(|error| {
        let path = folder.prefix.join(folder.path());
        Error::internal(format!("prepare a program in {}: {error}", path.display()))
    })
}

/// Reads a small file that the container wrote: never through a link, never something special.
fn read(folder: BorrowedFd<'_>, name: &str) -> Option<Vec<u8>> {
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let file = rustix::fs::openat(folder, name, flags, Mode::empty()).ok()?;
    let stat = rustix::fs::fstat(&file).ok()?;
    if !rustix::fs::FileType::from_raw_mode(stat.st_mode).is_file() {
        return None;
    }
    let mut bytes = Vec::new();
    let mut limited = std::fs::File::from(file).take(control::LIMIT);
    limited.read_to_end(&mut bytes).ok()?;
    Some(bytes)
}

/// The 32-bit exit code of a process that has ended. None if the start program did not tell it,
/// as when everything was killed.
fn exit_code_in(folder: &Folder) -> Option<i64> {
    control::parse_exit(&read(folder.open().ok()?.as_fd(), "exit")?).map(i64::from)
}

/// The exit code of a container's own program.
pub(crate) fn exit_code(container: &Container) -> Option<i64> {
    exit_code_in(&folder(container, control::INIT))
}

/// The name under which the program of an exec is followed.
pub(super) fn exec_name(id: &str) -> String {
    id.chars().filter(char::is_ascii_alphanumeric).take(16).collect()
}

/// The exit code of an exec's program; what was needed to follow it goes.
pub(crate) fn exec_exit_code(container: &Container, id: &str) -> Option<i64> {
    let folder = folder(container, &exec_name(id));
    let code = exit_code_in(&folder);
    if let Err(error) = folder.remove() {
        tracing::warn!(container = %container.id, %error, "files of a program stay");
    }
    code
}

/// What watches a folder. The kernel takes up to fifteen milliseconds to let go of it, for which
/// nobody has to wait.
struct Watch(Option<OwnedFd>);

impl Watch {
    fn new(folder: BorrowedFd<'_>) -> io::Result<Self> {
        let watch = inotify::init(inotify::CreateFlags::CLOEXEC | inotify::CreateFlags::NONBLOCK)?;
        let events = inotify::WatchFlags::MOVED_TO | inotify::WatchFlags::CLOSE_WRITE;
        inotify::add_watch(&watch, format!("/proc/self/fd/{}", folder.as_raw_fd()), events)?;
        Ok(Self(Some(watch)))
    }

    fn fd(&self) -> io::Result<BorrowedFd<'_>> {
        self.0.as_ref().map(AsFd::as_fd).ok_or_else(|| io::ErrorKind::InvalidInput.into())
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        let watch = self.0.take();
        // Where there can be no thread, it is closed here.
        std::thread::Builder::new().spawn(move || drop(watch)).ok();
    }
}

/// Waits until the start program has started its program, or tells why it could not. `pid` is
/// that of our process in the container. To be called where blocking is fine.
pub(super) fn wait_started(folder: &Folder, pid: i32) -> io::Result<Result<(), Option<Failure>>> {
    let folder = folder.open()?;
    let watching = Watch::new(folder.as_fd())?;
    let (folder, watch) = (folder.as_fd(), watching.fd()?);
    let process = Pid::from_raw(pid).ok_or(io::ErrorKind::InvalidInput)?;
    let process = rustix::process::pidfd_open(process, PidfdFlags::empty());
    let end = Instant::now() + START_LIMIT;
    let mut ended = false;
    loop {
        // What was there before the watch is seen here, and what comes later wakes us.
        if read(folder, "started").is_some() || read(folder, "exit").is_some() {
            return Ok(Ok(()));
        }
        if let Some(bytes) = read(folder, "error") {
            return Ok(Err(control::parse_failure(&bytes)));
        }
        let Some(process) = process.as_ref().ok().filter(|_| !ended) else {
            return Ok(Err(None));
        };
        let left = end.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(io::ErrorKind::TimedOut.into());
        }
        let limit = Timespec {
            tv_sec: i64::try_from(left.as_secs()).unwrap_or(i64::MAX),
            tv_nsec: left.subsec_nanos().into(),
        };
        let mut fds = [
            PollFd::from_borrowed_fd(watch, PollFlags::IN),
            PollFd::from_borrowed_fd(process.as_fd(), PollFlags::IN),
        ];
        poll(&mut fds, Some(&limit))?;
        ended = !fds[1].revents().is_empty();
        let mut buffer = [std::mem::MaybeUninit::uninit(); 4096];
        let mut reader = inotify::Reader::new(watch, &mut buffer);
        while reader.next().is_ok() {}
    }
}

/// What the client is told when a program was not started, and the exit code that it then has.
pub(super) fn explain(failure: Option<&Failure>, program: &str, directory: &str) -> (Error, i64) {
    let invalid = |text: String| Error::new(ErrorKind::InvalidParameter, text);
    let Some(failure) = failure else {
        return (
            Error::internal(
                "Wine ended before it started the program; `silo windows info` says whether the runtime is whole",
            ),
            128,
        );
    };
    let code = failure.code;
    let message = error::words(code).unwrap_or(&failure.message);
    let cause = format!("{message} ({code:#x})");
    match (failure.step.as_str(), code) {
        ("directory", _) | (_, error::DIRECTORY) => {
            let (message, code) = (error::INVALID_DIRECTORY, error::DIRECTORY);
            let text = format!("the working directory {directory:?} is not there: {message}");
            // As dockerd on Windows.
            (Error::internal(format!("{text} ({code:#x})")), 128)
        }
        // Clients tell by these words what happened.
        ("program", error::FILE_NOT_FOUND | error::PATH_NOT_FOUND) => (
            invalid(format!("exec: {program:?}: executable file not found in %PATH%: {cause}")),
            127,
        ),
        ("program", error::ACCESS_DENIED) => {
            (invalid(format!("exec: {program:?}: permission denied: {cause}")), 126)
        }
        ("program", error::BAD_EXE_FORMAT) => (
            invalid(format!(
                "exec: {program:?}: permission denied: not a program for Windows on this processor, or damaged: {cause}"
            )),
            126,
        ),
        ("program", error::EXE_MACHINE_TYPE_MISMATCH) => (
            invalid(format!(
                "exec: {program:?}: permission denied: a 16-bit program, for DOS or old Windows, which 64-bit Windows does not run either: {cause}"
            )),
            126,
        ),
        (step, _) => (Error::internal(format!("start {program:?}: {step}: {cause}")), 126),
    }
}

/// The program's name in the words of a command.
pub(super) fn program_of(record: &Record) -> String {
    record.command().first().cloned().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn folder(prefix: &Path) -> Folder {
        Folder { prefix: prefix.to_owned(), name: "0".into() }
    }

    fn command() -> Start {
        Start { command: "cmd".into(), ..Start::default() }
    }

    #[test]
    fn the_start_is_waited_for() {
        let prefix = tempfile::tempdir().unwrap();
        let folder = folder(prefix.path());
        prepare(&folder, &command()).unwrap();
        assert!(prefix.path().join(".silo/0/start").exists());
        let own = i32::try_from(std::process::id()).unwrap();
        let waiting = {
            let folder = folder.clone();
            std::thread::spawn(move || wait_started(&folder, own))
        };
        let failure = b"step=program\0code=2\0message=gone\0";
        write(folder.open().unwrap().as_fd(), "error", failure).unwrap();
        let failure = waiting.join().unwrap().unwrap().unwrap_err().unwrap();
        let (error, code) = explain(Some(&failure), "x.exe", "C:\\");
        assert_eq!(code, 127);
        assert!(error.message().contains("executable file not found"), "{error}");
        folder.remove().unwrap();
        assert!(!prefix.path().join(".silo/0").exists());
    }

    #[test]
    fn links_of_a_container_are_not_followed() {
        let outside = tempfile::tempdir().unwrap();
        let secret = outside.path().join("secret");
        fs_err::write(&secret, "code=7\0").unwrap();
        let prefix = tempfile::tempdir().unwrap();
        let folder = folder(prefix.path());
        prepare(&folder, &command()).unwrap();
        let own = prefix.path().join(".silo/0");
        for name in ["exit", "request.new", "start.new"] {
            std::os::unix::fs::symlink(&secret, own.join(name)).unwrap();
        }
        assert_eq!(exit_code_in(&folder), None);
        folder.request(Request::CtrlC).unwrap();
        std::os::unix::fs::symlink(&secret, own.join(control::WAKE)).unwrap();
        folder.request(Request::CtrlC).unwrap_err();
        prepare(&folder, &command()).unwrap();
        assert_eq!(fs_err::read(&secret).unwrap(), b"code=7\0");

        fs_err::remove_dir_all(&own).unwrap();
        std::os::unix::fs::symlink(outside.path(), &own).unwrap();
        prepare(&folder, &command()).unwrap_err();
        folder.request(Request::CtrlC).unwrap_err();
        folder.remove().unwrap();
        fs_err::remove_dir_all(prefix.path().join(".silo")).unwrap();
        std::os::unix::fs::symlink(outside.path(), prefix.path().join(".silo")).unwrap();
        prepare(&folder, &command()).unwrap_err();
        folder.remove().unwrap_err();
        let left: Vec<_> = fs_err::read_dir(outside.path()).unwrap().collect();
        assert_eq!(left.len(), 1);
    }

    #[test]
    fn an_end_without_a_word_is_seen() {
        let prefix = tempfile::tempdir().unwrap();
        let folder = folder(prefix.path());
        folder.make().unwrap();
        let mut child = std::process::Command::new("true").spawn().unwrap();
        let pid = i32::try_from(child.id()).unwrap();
        assert_eq!(wait_started(&folder, pid).unwrap(), Err(None));
        child.wait().unwrap();
    }
}
