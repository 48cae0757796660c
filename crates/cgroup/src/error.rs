//! What can go wrong with a control group.

use std::io;
use std::path::PathBuf;

use silo_types::{ErrorKind, Kind};

use crate::controller::Controller;

/// A failed operation on control groups.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A file of procfs cannot be read.
    #[error("read {}", path.display())]
    Proc {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// No hierarchy of control groups is mounted.
    #[error("no cgroup hierarchy is mounted")]
    NotMounted,
    /// A path that cannot name a control group.
    #[error("cgroup path {path:?} is not valid: {reason}")]
    Path {
        /// The path as given.
        path: String,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// There is no such control group in any hierarchy.
    #[error("no cgroup {0}")]
    NotFound(String),
    /// The control group has processes already.
    #[error("cgroup {} exists and has processes or children", .0.display())]
    InUse(PathBuf),
    /// No hierarchy lets us make a group.
    #[error("no cgroup hierarchy is writable")]
    NotWritable,
    /// A directory cannot be opened.
    #[error("open cgroup {}", path.display())]
    Open {
        /// The directory.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A directory cannot be made.
    #[error("create cgroup {}", path.display())]
    Create {
        /// The directory.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A directory cannot be removed.
    #[error("remove cgroup {}", path.display())]
    Remove {
        /// The directory.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A file cannot be read, or not understood.
    #[error("read {}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A file does not take a value.
    #[error("write {value:?} to {}", path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// The value.
        value: String,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A limit was asked for whose controller this machine does not offer, or not to us.
    #[error("cannot set {setting}: the {controller} cgroup controller is not available")]
    NoController {
        /// The limit.
        setting: String,
        /// What it needs.
        controller: Controller,
    },
    /// A limit that makes no sense, alone or with another.
    #[error("invalid {setting} {value}: {reason}")]
    Invalid {
        /// The limit.
        setting: &'static str,
        /// Its value.
        value: String,
        /// What is wrong.
        reason: String,
    },
    /// The group did not freeze, or not empty itself, in the time given.
    #[error("cgroup {} is not {state} after {seconds} seconds", path.display())]
    Timeout {
        /// The directory.
        path: PathBuf,
        /// The state that was waited for.
        state: &'static str,
        /// How long it was waited for.
        seconds: u64,
    },
    /// The program that decides on devices cannot be put in place.
    #[error("{operation} the device filter of cgroup {}", path.display())]
    DeviceFilter {
        /// The directory.
        path: PathBuf,
        /// What was tried.
        operation: &'static str,
        /// Why it failed.
        #[source]
        source: io::Error,
    },
    /// Changes of memory use cannot be watched.
    #[error("watch {}", path.display())]
    Watch {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A process cannot be signalled.
    #[error("signal process {pid} of cgroup {}", path.display())]
    Signal {
        /// The directory.
        path: PathBuf,
        /// The process.
        pid: i32,
        /// Why.
        #[source]
        source: io::Error,
    },
}

impl Kind for Error {
    fn kind(&self) -> ErrorKind {
        match self {
            Self::Path { .. } | Self::Invalid { .. } => ErrorKind::InvalidParameter,
            Self::NotFound(_) => ErrorKind::NotFound,
            Self::InUse(_) => ErrorKind::Conflict,
            Self::NoController { .. } => ErrorKind::InvalidParameter,
            Self::NotMounted | Self::NotWritable => ErrorKind::Unavailable,
            Self::Write { source, .. } => match source.raw_os_error() {
                Some(libc::EINVAL | libc::ERANGE | libc::ENODEV) => ErrorKind::InvalidParameter,
                _ => ErrorKind::Internal,
            },
            _ => ErrorKind::Internal,
        }
    }
}
