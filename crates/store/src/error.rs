//! What can go wrong in the store.

use std::io;
use std::path::PathBuf;

use silo_types::{Digest, ErrorKind, Kind};

/// Why an operation of the store failed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A file operation of the store's own.
    #[error("{operation} {}", path.display())]
    Io {
        /// What was tried, as `rename`.
        operation: &'static str,
        /// On which path.
        path: PathBuf,
        /// Why it failed.
        #[source]
        source: io::Error,
    },
    /// Another process has the store open.
    #[error("the store {} is in use by another process", .0.display())]
    Busy(PathBuf),
    /// No such image.
    #[error("no such image: {0}")]
    NoImage(Digest),
    /// No such blob.
    #[error("no such blob: {0}")]
    NoBlob(Digest),
    /// No such layer.
    #[error("no such layer: {0}")]
    NoLayer(Digest),
    /// No such snapshot.
    #[error("no such snapshot: {0}")]
    NoSnapshot(String),
    /// A snapshot of that name exists.
    #[error("snapshot {0} exists already")]
    SnapshotExists(String),
    /// Not a name for a snapshot.
    #[error("invalid snapshot name {0:?}")]
    InvalidName(String),
    /// Content is not what its digest says.
    #[error("{what} has digest {actual}, expected {expected}")]
    DigestMismatch {
        /// What was checked.
        what: String,
        /// What it should be.
        expected: Digest,
        /// What it is.
        actual: Digest,
    },
    /// The archive cannot be read as tar.
    #[error("cannot read {what}")]
    Archive {
        /// Which stream.
        what: String,
        /// Why.
        #[source]
        source: silo_archive::Error,
    },
    /// A document of the archive was refused.
    #[error("cannot use {what}")]
    Document {
        /// Which document.
        what: String,
        /// Why.
        #[source]
        source: silo_oci::image::ImageError,
    },
    /// JSON of the store or of an archive that does not parse.
    #[error("cannot parse {what}")]
    Json {
        /// Which document.
        what: String,
        /// Why.
        #[source]
        source: serde_json::Error,
    },
    /// The archive lacks something, or contradicts itself.
    #[error("invalid archive: {0}")]
    InvalidArchive(String),
    /// An entry of a tar cannot be extracted.
    #[error("cannot extract {path:?}: {reason}")]
    Entry {
        /// The entry's path, as far as it is text.
        path: String,
        /// Why not.
        reason: String,
    },
    /// A layer of a Windows image that cannot be a part of drive C:.
    #[error(
        "layer {number} of {count} of the image is damaged or was not made for Windows; pull or \
         build the image again"
    )]
    WindowsLayer {
        /// Which, from 1, the lowest.
        number: usize,
        /// Of how many.
        count: usize,
        /// Why.
        #[source]
        source: Box<Error>,
    },
    /// An image is to be given out whole of which layers are not here.
    #[error(
        "the base layers of image {id} are not here, for {name} stands in for them; \
         pull it with --base=exact to have them"
    )]
    NotHere {
        /// The image.
        id: Digest,
        /// What stands in.
        name: String,
    },
    /// The host refused to make an entry of a tar.
    #[error("cannot extract {path:?}: {operation}")]
    Extract {
        /// The entry's path, as far as it is text.
        path: String,
        /// What was tried.
        operation: &'static str,
        /// Why it failed.
        #[source]
        source: io::Error,
    },
    /// A tree cannot be read into a tar.
    #[error("cannot read {path:?}: {operation}")]
    Pack {
        /// The path within the tree.
        path: String,
        /// What was tried.
        operation: &'static str,
        /// Why it failed.
        #[source]
        source: io::Error,
    },
    /// The stream to the client, or from it, failed.
    #[error("{0}")]
    Stream(&'static str, #[source] io::Error),
}

impl Error {
    /// For `map_err` on an operation of a path.
    pub(crate) fn io(
        operation: &'static str,
        path: impl Into<PathBuf>,
    ) -> impl FnOnce(io::Error) -> Self {
        let path = path.into();
        move |source| {
            // fs_err names the path, too; once is enough.
            let plain = source
                .get_ref()
                .and_then(|error| error.source())
                .and_then(|error| error.downcast_ref::<io::Error>())
                .and_then(io::Error::raw_os_error);
            let source = plain.map_or(source, io::Error::from_raw_os_error);
            Self::Io { operation, path, source }
        }
    }

    /// What could not be written because the disk is full; `None` for any other failure.
    pub fn lacks_room(&self) -> Option<String> {
        let full = |error: &io::Error| {
            matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
        };
        match self {
            Self::Io { path, source, .. } if full(source) => Some(path.display().to_string()),
            Self::Extract { path, source, .. } if full(source) => Some(format!("/{path}")),
            _ => None,
        }
    }

    /// For `map_err` on a tar operation.
    pub(crate) fn archive(what: impl Into<String>) -> impl FnOnce(silo_archive::Error) -> Self {
        let what = what.into();
        move |source| Self::Archive { what, source }
    }
}

impl Kind for Error {
    fn kind(&self) -> ErrorKind {
        match self {
            Self::NoImage(_) | Self::NoBlob(_) | Self::NoLayer(_) | Self::NoSnapshot(_) => {
                ErrorKind::NotFound
            }
            Self::SnapshotExists(_) | Self::NotHere { .. } => ErrorKind::Conflict,
            Self::Busy(_) => ErrorKind::Unavailable,
            Self::InvalidName(_)
            | Self::DigestMismatch { .. }
            | Self::Document { .. }
            | Self::InvalidArchive(_)
            | Self::Entry { .. } => ErrorKind::InvalidParameter,
            Self::Archive { source, .. } => source.kind(),
            Self::WindowsLayer { source, .. } => source.kind(),
            Self::Io { .. }
            | Self::Json { .. }
            | Self::Extract { .. }
            | Self::Pack { .. }
            | Self::Stream(..) => ErrorKind::Internal,
        }
    }
}
