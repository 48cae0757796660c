//! What can go wrong between client and engine.

use silo_types::{ErrorKind, Kind};

use crate::Endpoint;

/// A failed request.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// Nothing answers at the endpoint.
    #[error("Cannot connect to the daemon at {endpoint}. Is the daemon running?")]
    Connect {
        /// Where the client tried.
        endpoint: Endpoint,
        /// What the system said.
        #[source]
        source: std::io::Error,
    },
    /// The endpoint may not be used by this user.
    #[error("permission denied while trying to connect to the docker API at {endpoint}")]
    Permission {
        /// Where the client tried.
        endpoint: Endpoint,
    },
    /// The engine refused or failed; the message is its own.
    #[error("Error response from daemon: {message}")]
    Engine {
        /// The HTTP status.
        status: u16,
        /// The engine's words.
        message: String,
    },
    /// The connection broke, or what came is no HTTP.
    #[error("error during connect: {operation} {path}")]
    Http {
        /// The request's method.
        operation: String,
        /// The request's path.
        path: String,
        /// What HTTP said.
        #[source]
        source: hyper::Error,
    },
    /// The request could not be written down.
    #[error("invalid request {path:?}")]
    Request {
        /// The request's path.
        path: String,
        /// Which part is wrong.
        #[source]
        source: hyper::http::Error,
    },
    /// The engine's answer is no JSON of the wanted shape.
    #[error("invalid answer to {path}")]
    Answer {
        /// The request's path.
        path: String,
        /// What is wrong with it.
        #[source]
        source: serde_json::Error,
    },
    /// A body that was sent could not be read.
    #[error("request body")]
    Body(#[source] std::io::Error),
}

impl ClientError {
    /// The engine's HTTP status, if the engine answered.
    pub fn status(&self) -> Option<u16> {
        if let Self::Engine { status, .. } = self { Some(*status) } else { None }
    }
}

impl Kind for ClientError {
    fn kind(&self) -> ErrorKind {
        match self {
            Self::Connect { .. } => ErrorKind::Unavailable,
            Self::Permission { .. } => ErrorKind::Forbidden,
            Self::Engine { status, .. } => ErrorKind::from_http_status(*status),
            Self::Request { .. } => ErrorKind::InvalidParameter,
            Self::Http { .. } | Self::Answer { .. } | Self::Body(_) => ErrorKind::Internal,
        }
    }
}
