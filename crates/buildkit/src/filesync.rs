//! Files between a client's session and directories here.
//!
//! Both ways a transfer is a stream of packets (`fsutil`): the sender names every file in order
//! (`STAT`, an empty one at the end), the receiver asks for the content of some (`REQ`, by the
//! file's number), content comes in pieces (`DATA`, an empty one at the end of each file), and
//! the receiver ends it (`FIN`), which the sender answers. `ERR` carries words from either side.

mod mode;
mod overlap;
mod receive;
mod select;
mod send;
mod slots;
#[cfg(test)]
mod tests;
mod tree;

use std::io;
use std::path::{Path, PathBuf};

use silo_types::ErrorKind;

pub(crate) use overlap::overlap;
pub(crate) use receive::receive_into;
pub(crate) use receive::{ClientFiles, Meter};
pub(crate) use select::Select;
pub(crate) use send::{Sender, send_bytes, send_tree, send_trees};
pub(crate) use slots::Slots;

/// A transfer that failed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SyncError {
    /// The client's session does not do this.
    #[error("no local sources enabled")]
    Unsupported,
    /// A call failed, or the client said why it cannot go on.
    #[error("{0}")]
    Client(String),
    /// The client named a file that cannot be one.
    #[error("invalid path {path:?}")]
    Path {
        /// What it named.
        path: String,
    },
    /// The client named files in another order than it must.
    #[error("changes out of order: {path:?}")]
    Order {
        /// The file, or the directory that it should be in.
        path: PathBuf,
    },
    /// The client does not follow the protocol.
    #[error("{0}")]
    Protocol(&'static str),
    /// A file here.
    #[error("{operation} {}", path.display())]
    File {
        /// What was done.
        operation: &'static str,
        /// With what, below the directory.
        path: PathBuf,
        /// Why it failed.
        #[source]
        source: io::Error,
    },
}

impl SyncError {
    fn file(operation: &'static str, path: &Path, source: io::Error) -> Self {
        Self::File { operation, path: path.to_path_buf(), source }
    }

    /// Whether the disk has no room left.
    fn is_for_want_of_room(&self) -> bool {
        use io::ErrorKind::{QuotaExceeded, StorageFull};
        matches!(self, Self::File { source, .. }
            if matches!(source.kind(), StorageFull | QuotaExceeded))
    }

    fn protocol(what: &'static str) -> Self {
        Self::Protocol(what)
    }
}

impl silo_types::Kind for SyncError {
    fn kind(&self) -> ErrorKind {
        match self {
            Self::File { .. } => ErrorKind::Internal,
            _ => ErrorKind::InvalidParameter,
        }
    }
}

impl From<SyncError> for silo_types::Error {
    fn from(error: SyncError) -> Self {
        Self::from_kind(error)
    }
}
