//! Container logs: what drivers write and how it is read back.

use std::collections::BTreeMap;
use std::path::PathBuf;

use jiff::Timestamp;

use crate::protocol::LogMark;

mod files;
mod json;
mod local;
mod options;
mod reader;
mod rotate;
#[cfg(test)]
mod tests;
pub(crate) mod writer;

pub use options::{AttributeSource, OptionError, Options, attributes, initialize, validate};
pub use reader::read;

/// Which stream a line was written to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stream {
    /// Standard output, or a terminal.
    Stdout,
    /// Standard error.
    Stderr,
}

/// One record of a log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogLine {
    /// When the shim read it, or its first part.
    pub time: Timestamp,
    /// Where the process wrote it.
    pub stream: Stream,
    /// The bytes, with the newline if it ended with one.
    pub bytes: Vec<u8>,
    /// Labels and variables that the log's options chose.
    pub attrs: BTreeMap<String, String>,
    /// Whether the line goes on in a later record.
    pub partial: bool,
}

/// A log that cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum LogError {
    /// The container's log driver keeps nothing.
    #[error("configured logging driver does not support reading")] // docker wording
    Unreadable,
    /// A file could not be read.
    #[error("read log {path}")]
    Read {
        /// The file.
        path: PathBuf,
        /// The cause.
        #[source]
        source: std::io::Error,
    },
}

impl silo_types::Kind for LogError {
    fn kind(&self) -> silo_types::ErrorKind {
        match self {
            Self::Unreadable => silo_types::ErrorKind::NotImplemented,
            Self::Read { .. } => silo_types::ErrorKind::Internal,
        }
    }
}

/// Which part of a log to read.
#[derive(Debug, Clone, Default)]
pub struct ReadOptions {
    /// Only this many of the last records.
    pub tail: Option<usize>,
    /// Only records from this time on.
    pub since: Option<Timestamp>,
    /// Only records up to this time.
    pub until: Option<Timestamp>,
    /// Go on with what is written from now on.
    pub follow: bool,
    /// Only records before this place, as an attached client got it.
    pub before: Option<LogMark>,
}
