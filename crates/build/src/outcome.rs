//! What a build comes to.

use std::sync::Arc;

use silo_oci::image::{Descriptor, ImageConfig};
use silo_types::{Digest, ErrorKind};

use crate::attest::Said;
use crate::progress::{Location, Warning};

/// A build that went well.
#[derive(Debug, Clone)]
pub struct Outcome {
    /// Id of the image: the digest of its configuration.
    pub image: Digest,
    /// Its manifest; `None` where it was not stored.
    pub manifest: Option<Descriptor>,
    /// Its configuration.
    pub config: Arc<ImageConfig>,
    /// Chain id of its top layer; `None` for no layers.
    pub chain: Option<Digest>,
    /// What is dubious in the Dockerfile.
    pub warnings: Vec<Warning>,
    /// What is said about it.
    pub said: Arc<Said>,
    /// Keys of its steps in the cache.
    pub(crate) steps: Vec<String>,
    /// Keeps its layers until they are exported or stored.
    pub lease: Arc<silo_store::Lease>,
}

/// A build that failed.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{message}")]
pub struct BuildError {
    /// Its kind.
    pub kind: ErrorKind,
    /// What went wrong, in BuildKit's words.
    pub message: String,
    /// The exit code of the `RUN` that failed.
    pub exit_code: Option<i64>,
    /// The same in the words of the classic builder, where they differ.
    pub classic: Option<String>,
    /// The instruction that failed.
    pub location: Option<Location>,
}

impl BuildError {
    /// An error without a place.
    pub fn new(kind: ErrorKind, message: impl Into<String>) -> Self {
        Self { kind, message: message.into(), exit_code: None, classic: None, location: None }
    }
}

impl From<silo_types::Error> for BuildError {
    fn from(error: silo_types::Error) -> Self {
        Self::new(error.kind(), error.message())
    }
}

impl silo_types::Kind for BuildError {
    fn kind(&self) -> ErrorKind {
        self.kind
    }
}
