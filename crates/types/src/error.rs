//! What kind of failure an error is, and how each face of the engine shows that kind.
//!
//! A mechanism crate has its own `thiserror` enum; it implements [`Kind`] so that a face can
//! map the failure once, at the edge, without knowing the enum.

use std::fmt;

/// The kinds of failure that clients can tell apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ErrorKind {
    /// The named object does not exist.
    NotFound,
    /// The object's state, or another object, stands in the way.
    Conflict,
    /// The request cannot be meant as written.
    InvalidParameter,
    /// No or wrong credentials.
    Unauthorized,
    /// Understood, and refused.
    Forbidden,
    /// The object already is as asked.
    NotModified,
    /// Silo does not have this.
    NotImplemented,
    /// Something needed is not there at the moment.
    Unavailable,
    /// The caller went away, or a deadline passed.
    Cancelled,
    /// Anything else that went wrong on our side.
    Internal,
}

impl ErrorKind {
    /// The HTTP status that the Docker Engine API uses for this kind.
    pub const fn http_status(self) -> u16 {
        match self {
            Self::NotFound => 404,
            Self::Conflict => 409,
            Self::InvalidParameter => 400,
            Self::Unauthorized => 401,
            Self::Forbidden => 403,
            Self::NotModified => 304,
            Self::NotImplemented => 501,
            Self::Unavailable => 503,
            Self::Cancelled => 499,
            Self::Internal => 500,
        }
    }

    /// The kind that an HTTP status stands for; any unlisted status is [`Self::Internal`].
    pub const fn from_http_status(status: u16) -> Self {
        match status {
            404 => Self::NotFound,
            409 => Self::Conflict,
            400 => Self::InvalidParameter,
            401 => Self::Unauthorized,
            403 => Self::Forbidden,
            304 => Self::NotModified,
            501 => Self::NotImplemented,
            503 => Self::Unavailable,
            499 => Self::Cancelled,
            _ => Self::Internal,
        }
    }
}

/// Implemented by every error that can reach a face.
pub trait Kind: std::error::Error {
    /// What kind of failure this is.
    fn kind(&self) -> ErrorKind;
}

/// An error that is ready to be shown: a kind, a message for the client, and the cause.
///
/// `Display` is the message alone; a face that logs prints the chain with [`Error::chain`].
#[derive(Debug)]
pub struct Error {
    kind: ErrorKind,
    message: String,
    source: Option<Box<dyn std::error::Error + Send + Sync>>,
}

impl Error {
    /// An error without a cause.
    pub fn new(kind: ErrorKind, message: impl Into<String>) -> Self {
        Self { kind, message: message.into(), source: None }
    }

    /// An error whose cause is kept for the log but is not part of the message.
    pub fn with_source(
        kind: ErrorKind,
        message: impl Into<String>,
        source: impl Into<Box<dyn std::error::Error + Send + Sync>>,
    ) -> Self {
        Self { kind, message: message.into(), source: Some(source.into()) }
    }

    /// An error whose message is the whole chain of `source`, with the kind that it reports.
    pub fn from_kind(source: impl Kind + Send + Sync + 'static) -> Self {
        Self { kind: source.kind(), message: chain(&source), source: None }
    }

    /// Shorthand for [`ErrorKind::NotFound`].
    pub fn not_found(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::NotFound, message)
    }

    /// Shorthand for [`ErrorKind::Conflict`].
    pub fn conflict(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::Conflict, message)
    }

    /// Shorthand for [`ErrorKind::InvalidParameter`].
    pub fn invalid(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::InvalidParameter, message)
    }

    /// Shorthand for [`ErrorKind::Internal`].
    pub fn internal(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::Internal, message)
    }

    /// The message for the client.
    pub fn message(&self) -> &str {
        &self.message
    }

    /// What kind of failure this is.
    pub fn kind(&self) -> ErrorKind {
        self.kind
    }

    /// The message with every cause, for a log.
    pub fn chain(&self) -> String {
        chain(self)
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.source.as_deref().map(|source| source as _)
    }
}

impl Kind for Error {
    fn kind(&self) -> ErrorKind {
        self.kind
    }
}

/// `error: cause: cause`, the form in which Docker shows nested failures.
pub fn chain(error: &(dyn std::error::Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        next = cause.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn statuses_map_both_ways() {
        for kind in [
            ErrorKind::NotFound,
            ErrorKind::Conflict,
            ErrorKind::InvalidParameter,
            ErrorKind::Unauthorized,
            ErrorKind::Forbidden,
            ErrorKind::NotModified,
            ErrorKind::NotImplemented,
            ErrorKind::Unavailable,
            ErrorKind::Cancelled,
            ErrorKind::Internal,
        ] {
            assert_eq!(ErrorKind::from_http_status(kind.http_status()), kind);
        }
        assert_eq!(ErrorKind::from_http_status(418), ErrorKind::Internal);
    }

    #[test]
    fn chain_names_every_cause_once() {
        let inner = Error::with_source(ErrorKind::Internal, "open x", Error::not_found("no x"));
        let outer = Error::with_source(ErrorKind::Internal, "start", inner);
        assert_eq!(outer.chain(), "start: open x: no x");
        assert_eq!(outer.to_string(), "start");
    }
}
