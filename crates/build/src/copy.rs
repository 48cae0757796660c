//! `COPY` and `ADD` of files: which they are, what they come to, and how they get there.
//!
//! Sources and destinations were made by strangers. Every step is by a single name in a directory
//! that is held open, and links are resolved inside the roots only.

pub(crate) mod chmod;
pub(crate) mod copier;
pub(crate) mod digest;
pub(crate) mod file;
pub(crate) mod owner;
pub(crate) mod pool;
pub(crate) mod resolve;
pub(crate) mod same;
pub(crate) mod select;

use std::io;
use std::path::{Path, PathBuf};

use silo_types::{ErrorKind, Kind};

/// What can go wrong with files.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CopyError {
    /// A source is not there.
    #[error("{0:?}: not found")]
    NotFound(String),
    /// A path cannot be worked on.
    #[error("{operation} {path}", path = path.display())]
    Io {
        /// What was tried.
        operation: &'static str,
        /// From the root that it is in.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// Something else is in the way.
    #[error("{0}")]
    Refused(String),
}

impl CopyError {
    pub(crate) fn io<E: Into<io::Error>>(
        operation: &'static str,
        path: impl AsRef<Path>,
    ) -> impl FnOnce(E) -> Self {
        let path = path.as_ref().to_owned();
        move |error| Self::Io { operation, path, source: error.into() }
    }
}

impl Kind for CopyError {
    fn kind(&self) -> ErrorKind {
        match self {
            Self::NotFound(_) => ErrorKind::NotFound,
            Self::Refused(_) => ErrorKind::InvalidParameter,
            Self::Io { .. } => ErrorKind::Internal,
        }
    }
}
