//! The record of a container's end, `exit.json` in its directory.
//!
//! It is written beside its place and renamed there, so that a reader sees all of it or none.
//! It is not synchronised to the disk, since that costs more than a whole container: after a
//! power cut it can be empty or missing, and [`read`] then says so.

use std::io;
use std::path::Path;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

/// File name of the record within the container's directory.
pub const FILE: &str = "exit.json";

/// File name of the text of a panic within the container's directory.
const PANIC: &str = "shim.panic";

/// How a process ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExitRecord {
    /// Exit code as shells see it: 128 plus the signal's number when a signal ended it.
    pub code: i32,
    /// The signal that ended it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub signal: Option<i32>,
    /// Whether the kernel killed something of the container for want of memory.
    #[serde(default)]
    pub oom_killed: bool,
    /// When it was started, in nanoseconds since 1970; 0 if it never was.
    #[serde(default)]
    pub started_at: i64,
    /// When it ended, in nanoseconds since 1970.
    pub finished_at: i64,
    /// What went wrong, if it did not end by itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

impl ExitRecord {
    /// When it ended.
    pub fn finished(&self) -> Timestamp {
        timestamp(self.finished_at)
    }

    /// When it was started.
    pub fn started(&self) -> Option<Timestamp> {
        (self.started_at != 0).then(|| timestamp(self.started_at))
    }

    /// The record for a container whose end nobody saw: code 255, as Docker has it.
    pub fn unknown(now: Timestamp) -> Self {
        Self {
            code: 255,
            signal: None,
            oom_killed: false,
            started_at: 0,
            finished_at: nanoseconds(now),
            error: Some("the end of the container was not recorded".into()),
        }
    }
}

/// Nanoseconds since 1970 as a time.
pub(crate) fn timestamp(nanoseconds: i64) -> Timestamp {
    Timestamp::from_nanosecond(i128::from(nanoseconds)).unwrap_or(Timestamp::UNIX_EPOCH)
}

/// A time as nanoseconds since 1970, good until the year 2262.
pub(crate) fn nanoseconds(time: Timestamp) -> i64 {
    i64::try_from(time.as_nanosecond()).unwrap_or(i64::MAX)
}

/// The record in `container_dir`. `None` when there is none or it cannot be read as one; the
/// latter is what a power cut can leave.
pub fn read(container_dir: &Path) -> Option<ExitRecord> {
    let bytes = fs_err::read(container_dir.join(FILE)).ok()?;
    serde_json::from_slice(&bytes).ok()
}

/// Puts `record` in its place.
pub(crate) fn write(container_dir: &Path, record: &ExitRecord) -> io::Result<()> {
    let temporary = container_dir.join("exit.json.tmp");
    fs_err::write(&temporary, serde_json::to_vec(record)?)?;
    fs_err::rename(&temporary, container_dir.join(FILE))
}

/// Takes an earlier run's record away.
pub(crate) fn clear(container_dir: &Path) -> io::Result<()> {
    match fs_err::remove_file(container_dir.join(FILE)) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// Why the shim of a run ended, if that was a fault of its own.
pub fn panicked(container_dir: &Path) -> Option<String> {
    fs_err::read_to_string(container_dir.join(PANIC)).ok()
}

/// Has panics of this process written to the container's directory, since a shim has no
/// standard error.
pub(crate) fn note_panics(container_dir: &Path) {
    let path = container_dir.join(PANIC);
    // One of an earlier run says nothing of this one. Usually there is none.
    drop(fs_err::remove_file(&path));
    let own = rustix::process::getpid();
    std::panic::set_hook(Box::new(move |panic| {
        // A copy of this process may have another root, in which the path is not ours to write.
        if rustix::process::getpid() == own {
            let trace = std::backtrace::Backtrace::force_capture();
            // There is nobody to tell that it failed.
            drop(fs_err::write(&path, format!("{panic}\n{trace}")));
        }
    }));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_is_whole_or_absent() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(read(dir.path()), None);
        clear(dir.path()).unwrap();
        let record = ExitRecord {
            code: 137,
            signal: Some(9),
            oom_killed: true,
            started_at: 1,
            finished_at: 1_700_000_000_123_456_789,
            error: None,
        };
        write(dir.path(), &record).unwrap();
        assert_eq!(read(dir.path()), Some(record));
        for damage in ["", "{", "\0\0\0", "[]"] {
            fs_err::write(dir.path().join(FILE), damage).unwrap();
            assert_eq!(read(dir.path()), None, "{damage:?}");
        }
        clear(dir.path()).unwrap();
        assert!(fs_err::read_dir(dir.path()).unwrap().next().is_none());
    }
}
