//! Processes of a Windows container as the engine follows them: what it tells the start program,
//! and what that tells of start and end.

use std::io::{self, Read};
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::inotify;
use rustix::fs::{Mode, OFlags};
use rustix::process::{Pid, PidfdFlags};
use silo_types::{Error, ErrorKind};
use silo_windows::control::{self, Failure, Start};

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
}

/// Where the files of a process are.
pub(super) fn folder(container: &Container, name: &str) -> PathBuf {
    container.path(PREFIX).join(control::FOLDER).join(name)
}

/// Writes what a process is to be, and removes what an earlier one of the name left.
pub(super) fn prepare(folder: &Path, start: &Start) -> Result<(), Error> {
    let bytes = start.to_bytes().map_err(|error| Error::invalid(error.to_string()))?;
    let write = || -> io::Result<()> {
        fs_err::create_dir_all(folder)?;
        for name in ["started", "exit", "error", "request"] {
            match fs_err::remove_file(folder.join(name)) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
        }
        super::write_whole(&folder.join("start"), &bytes)
    };
    write().map_err(|error| Error::internal(error.to_string()))
}

/// Reads a small file that the container wrote: never through a link, never something special.
fn read(folder: &Path, name: &str) -> Option<Vec<u8>> {
    let folder = silo_sys::path::open_root(folder).ok()?;
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let file = rustix::fs::openat(&folder, name, flags, Mode::empty()).ok()?;
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
fn exit_code_in(folder: &Path) -> Option<i64> {
    control::parse_exit(&read(folder, "exit")?).map(i64::from)
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
    crate::containers::remove::remove_directory(&folder);
    code
}

/// Waits until the start program has started its program, or tells why it could not. `pid` is
/// that of our process in the container. To be called where blocking is fine.
pub(super) fn wait_started(folder: &Path, pid: i32) -> io::Result<Result<(), Option<Failure>>> {
    let watch = inotify::init(inotify::CreateFlags::CLOEXEC | inotify::CreateFlags::NONBLOCK)?;
    let events = inotify::WatchFlags::MOVED_TO | inotify::WatchFlags::CLOSE_WRITE;
    inotify::add_watch(&watch, folder, events)?;
    let process = Pid::from_raw(pid).ok_or(io::ErrorKind::InvalidInput)?;
    let process = rustix::process::pidfd_open(process, PidfdFlags::empty());
    let end = Instant::now() + START_LIMIT;
    loop {
        // What was there before the watch is seen here, and what comes later wakes us.
        if read(folder, "started").is_some() || read(folder, "exit").is_some() {
            return Ok(Ok(()));
        }
        if let Some(bytes) = read(folder, "error") {
            return Ok(Err(control::parse_failure(&bytes)));
        }
        let Ok(process) = &process else { return Ok(Err(None)) };
        let left = end.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(io::ErrorKind::TimedOut.into());
        }
        let limit = Timespec {
            tv_sec: i64::try_from(left.as_secs()).unwrap_or(i64::MAX),
            tv_nsec: left.subsec_nanos().into(),
        };
        let mut fds = [
            PollFd::new(&watch, PollFlags::IN),
            PollFd::from_borrowed_fd(process.as_fd(), PollFlags::IN),
        ];
        poll(&mut fds, Some(&limit))?;
        let ended = !fds[1].revents().is_empty();
        let mut buffer = [std::mem::MaybeUninit::uninit(); 4096];
        let mut reader = inotify::Reader::new(&watch, &mut buffer);
        while reader.next().is_ok() {}
        if ended && read(folder, "error").is_none() && read(folder, "started").is_none() {
            return Ok(Err(None));
        }
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
    let cause = format!("{} ({:#x})", failure.message, failure.code);
    match (failure.step.as_str(), failure.code) {
        ("directory", _) | (_, error::DIRECTORY) => {
            (invalid(format!("the working directory {directory:?} is not there: {cause}")), 126)
        }
        // Clients tell by these words what happened.
        ("program", error::FILE_NOT_FOUND | error::PATH_NOT_FOUND) => (
            invalid(format!("exec: {program:?}: executable file not found in %PATH%: {cause}")),
            127,
        ),
        ("program", error::ACCESS_DENIED) => {
            (invalid(format!("exec: {program:?}: permission denied: {cause}")), 126)
        }
        ("program", error::BAD_EXE_FORMAT | error::EXE_MACHINE_TYPE_MISMATCH) => (
            invalid(format!(
                "exec: {program:?}: permission denied: not a program for Windows on this processor: {cause}"
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

    #[test]
    fn the_start_is_waited_for() {
        let folder = tempfile::tempdir().unwrap();
        prepare(folder.path(), &Start { command: "cmd".into(), ..Start::default() }).unwrap();
        assert!(folder.path().join("start").exists());
        let own = i32::try_from(std::process::id()).unwrap();
        let path = folder.path().to_owned();
        let waiting = std::thread::spawn(move || wait_started(&path, own));
        super::super::write_whole(
            &folder.path().join("error"),
            b"step=program\0code=2\0message=gone\0",
        )
        .unwrap();
        let failure = waiting.join().unwrap().unwrap().unwrap_err().unwrap();
        let (error, code) = explain(Some(&failure), "x.exe", "C:\\");
        assert_eq!(code, 127);
        assert!(error.message().contains("executable file not found"), "{error}");
    }

    #[test]
    fn links_of_a_container_are_not_followed() {
        let folder = tempfile::tempdir().unwrap();
        let secret = folder.path().join("secret");
        fs_err::write(&secret, "code=7\0").unwrap();
        std::os::unix::fs::symlink(&secret, folder.path().join("exit")).unwrap();
        assert_eq!(read(folder.path(), "exit"), None);
        assert!(read(folder.path(), "secret").is_some());
    }

    #[test]
    fn an_end_without_a_word_is_seen() {
        let folder = tempfile::tempdir().unwrap();
        let mut child = std::process::Command::new("true").spawn().unwrap();
        let pid = i32::try_from(child.id()).unwrap();
        assert_eq!(wait_started(folder.path(), pid).unwrap(), Err(None));
        child.wait().unwrap();
    }
}
