//! Why an image was not copied.

use std::path::{Path, PathBuf};

use silo_types::Digest;

use super::Location;
use crate::Error;

/// Why an image was not copied.
#[derive(Debug, thiserror::Error)]
pub enum CopyError {
    /// A registry, or a document.
    #[error(transparent)]
    Registry(#[from] Error),
    /// A name that leads nowhere.
    #[error("invalid image name {text:?}: {reason}")]
    Location {
        /// As it was given.
        text: String,
        /// What is wrong.
        reason: String,
    },
    /// A file of a layout or an archive.
    #[error("{operation} {}", path.display())]
    Io {
        /// What was done.
        operation: &'static str,
        /// With which file.
        path: PathBuf,
        /// Why it failed.
        #[source]
        source: std::io::Error,
    },
    /// The same, where the error tells it.
    #[error(transparent)]
    File(std::io::Error),
    /// A directory or an archive that is no layout.
    #[error("{}: {reason}", path.display())]
    Layout {
        /// Which.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// A tar archive.
    #[error("{}", path.display())]
    Tar {
        /// Which.
        path: PathBuf,
        /// What is wrong.
        #[source]
        source: silo_archive::Error,
    },
    /// Content that a layout or an archive does not have.
    #[error("{}: it has no blob {digest}", path.display())]
    Missing {
        /// The layout or archive.
        path: PathBuf,
        /// What is missing.
        digest: Digest,
    },
    /// Content that is not what it should be.
    #[error("the source has something else as {expected}: {reason}")]
    Content {
        /// What it should be.
        expected: Digest,
        /// What it is.
        reason: String,
    },
    /// The target's name has another digest than the image.
    #[error("the target is named {wanted}, but the image is {actual}")]
    OtherDigest {
        /// In the name.
        wanted: Digest,
        /// Of the image.
        actual: Digest,
    },
    /// A source that has nothing with a name.
    #[error("{source_name}: it has no tags")]
    NoTags {
        /// The source.
        source_name: String,
    },
    /// An image whose documents are too many, too large, or too deep in each other.
    #[error("the image has too many manifests")]
    TooMany,
}

impl CopyError {
    /// Only who knows how to reach an engine can open one.
    pub(super) fn engine(location: &Location) -> Self {
        Self::Location { text: location.to_string(), reason: "no engine can be asked here".into() }
    }

    pub(super) fn io(operation: &'static str, path: &Path) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.to_owned();
        move |source| match source.get_ref() {
            Some(_) => Self::File(source),
            None => Self::Io { operation, path, source },
        }
    }
}
