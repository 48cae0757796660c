//! What can go wrong, and how clients are told.

use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;

use hyper::StatusCode;
use silo_types::{ErrorKind, Kind as _};

/// Why the registry failed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A file operation of the registry's own.
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
    /// The engine's store.
    #[error("read the engine's content")]
    Engine(#[from] silo_store::Error),
    /// An operation of the database.
    #[error("use the registry's database")]
    Database(#[from] rusqlite::Error),
    /// The database is a later version's.
    #[error("the registry's database has version {found}, this program knows {known}")]
    Newer {
        /// Its version.
        found: u32,
        /// The last one that is known here.
        known: u32,
    },
    /// Another process serves the same content.
    #[error("another process serves the registry in {}", .0.display())]
    Busy(PathBuf),
    /// The address cannot be listened on.
    #[error("listen on {address}")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// Certificate or key cannot be used.
    #[error("the TLS certificate {} or its key {}: {reason}", certificate.display(), key.display())]
    Tls {
        /// File of the certificates.
        certificate: PathBuf,
        /// File of the key.
        key: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// The address of the registry behind this one cannot be used.
    #[error("the registry behind this one: {url:?}: {reason}")]
    Proxy {
        /// The address.
        url: String,
        /// What is wrong.
        reason: String,
    },
    /// The file of users, or that of their rights, cannot be used.
    #[error("{}, line {line}: {reason}", path.display())]
    Users {
        /// The file.
        path: PathBuf,
        /// Which line, from 1.
        line: usize,
        /// What is wrong.
        reason: &'static str,
    },
    /// A task of ours panicked.
    #[error("a task of the registry did not end")]
    Task(#[source] tokio::task::JoinError),
    /// What a client asked for is refused.
    #[error(transparent)]
    Refused(#[from] Refusal),
}

impl Error {
    /// For `map_err` on an operation of a path.
    pub(crate) fn io(
        operation: &'static str,
        path: impl Into<PathBuf>,
    ) -> impl FnOnce(io::Error) -> Self {
        let path = path.into();
        move |source| Self::Io { operation, path, source }
    }

    /// Whether there is no room left.
    pub(crate) fn is_full(&self) -> bool {
        match self {
            Self::Io { source, .. } => {
                matches!(source.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
            }
            Self::Database(error) => {
                error.sqlite_error_code() == Some(rusqlite::ErrorCode::DiskFull)
            }
            _ => false,
        }
    }

    /// What the client is told.
    pub(crate) fn refusal(&self) -> Refusal {
        match self {
            Self::Refused(refusal) => refusal.clone(),
            error if error.is_full() => Refusal::new(
                StatusCode::INSUFFICIENT_STORAGE,
                "UNKNOWN",
                "no space left on device: the registry's disk is full; `silo registry gc` on its \
                 host removes what nothing needs",
            ),
            // What went wrong inside is for the log.
            _ => Refusal::new(StatusCode::INTERNAL_SERVER_ERROR, "UNKNOWN", "the registry failed"),
        }
    }

    /// The message with its causes.
    pub fn chain(&self) -> String {
        let mut text = self.to_string();
        let mut source = std::error::Error::source(self);
        while let Some(error) = source {
            text.push_str(": ");
            text.push_str(&error.to_string());
            source = error.source();
        }
        text
    }
}

/// Whether another registry's refusal is its word on what was asked for. Many hide behind a wish
/// for a password what they do not have.
pub(crate) fn is_final(error: &silo_registry::Error) -> bool {
    matches!(error, silo_registry::Error::NoCredentials)
        || matches!(
            error.kind(),
            ErrorKind::NotFound | ErrorKind::Unauthorized | ErrorKind::Forbidden
        )
}

/// Why a request is refused: a status and an error of the distribution specification.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{message}")]
pub struct Refusal {
    pub(crate) status: StatusCode,
    /// One of the specification's codes, and `UNKNOWN` for the registry's own failures.
    pub(crate) code: &'static str,
    pub(crate) message: String,
    /// Where an upload is, for a chunk that does not fit: its session and size.
    pub(crate) upload: Option<(String, u64)>,
}

impl Refusal {
    pub(crate) fn new(status: StatusCode, code: &'static str, message: impl Into<String>) -> Self {
        Self { status, code, message: message.into(), upload: None }
    }

    pub(crate) fn digest(message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "DIGEST_INVALID", message)
    }

    pub(crate) fn name(message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "NAME_INVALID", message)
    }

    pub(crate) fn manifest(message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "MANIFEST_INVALID", message)
    }

    pub(crate) fn upload(message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "BLOB_UPLOAD_INVALID", message)
    }

    pub(crate) fn too_large(message: impl Into<String>) -> Self {
        Self::new(StatusCode::PAYLOAD_TOO_LARGE, "SIZE_INVALID", message)
    }

    pub(crate) fn no_repository() -> Self {
        let message = "repository name not known to registry";
        Self::new(StatusCode::NOT_FOUND, "NAME_UNKNOWN", message)
    }

    pub(crate) fn no_manifest() -> Self {
        Self::new(StatusCode::NOT_FOUND, "MANIFEST_UNKNOWN", "manifest unknown")
    }

    pub(crate) fn no_blob() -> Self {
        Self::new(StatusCode::NOT_FOUND, "BLOB_UNKNOWN", "blob unknown to registry")
    }

    pub(crate) fn no_upload() -> Self {
        let message = "blob upload unknown to registry";
        Self::new(StatusCode::NOT_FOUND, "BLOB_UPLOAD_UNKNOWN", message)
    }

    pub(crate) fn unsupported(message: impl Into<String>) -> Self {
        Self::new(StatusCode::METHOD_NOT_ALLOWED, "UNSUPPORTED", message)
    }

    /// What the registry behind this one says, or that it does not.
    pub(crate) fn upstream(error: &silo_registry::Error) -> Self {
        let text = silo_types::error::chain(error);
        if is_final(error) {
            return Self::new(StatusCode::NOT_FOUND, "MANIFEST_UNKNOWN", text);
        }
        let text = format!("the registry behind this one: {text}");
        Self::new(StatusCode::BAD_GATEWAY, "UNKNOWN", text)
    }

    /// Nobody without a name and the right password may do that.
    pub(crate) fn nameless() -> Self {
        Self::new(StatusCode::UNAUTHORIZED, "UNAUTHORIZED", "authentication required")
    }

    pub(crate) fn denied() -> Self {
        // docker wording
        let message = "requested access to the resource is denied";
        Self::new(StatusCode::FORBIDDEN, "DENIED", message)
    }

    pub(crate) fn busy(message: impl Into<String>) -> Self {
        Self::new(StatusCode::TOO_MANY_REQUESTS, "TOOMANYREQUESTS", message)
    }
}
