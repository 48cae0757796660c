//! Why a request failed, in the words of Go's `net/http`.

use std::error::Error as StdError;
use std::io;

use hyper::{StatusCode, Uri};
use silo_types::{ErrorKind, Kind};

use crate::resolve::LookupError;

/// Why a request failed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Not a URL that this client can ask for.
    #[error("parse {url:?}: {reason}")]
    Url {
        /// The text.
        url: String,
        /// What is wrong with it.
        reason: String,
    },
    /// A scheme other than `http` and `https`.
    #[error("Get {url:?}: unsupported protocol scheme {scheme:?}")]
    Scheme {
        /// The URL.
        url: String,
        /// Its scheme.
        scheme: String,
    },
    /// No answer came.
    #[error("{method} \"{url}\": {cause}")]
    Exchange {
        /// The method as Go writes it: `Get`.
        method: String,
        /// The URL.
        url: String,
        /// Why.
        cause: Cause,
    },
    /// The server refused.
    #[error("failed to GET {url} with status {status}: {body}")]
    Status {
        /// The URL that was asked for.
        url: String,
        /// The answer's status.
        status: StatusCode,
        /// The beginning of the answer's body, without blanks around it.
        body: String,
    },
    /// The answer broke off.
    #[error("reading the answer of \"{url}\": {cause}")]
    Body {
        /// The URL.
        url: String,
        /// Why.
        cause: Cause,
    },
    /// A file of certificates or keys cannot be read.
    #[error("invalid {what}: {reason}")]
    Pem {
        /// What it should be.
        what: &'static str,
        /// What is wrong with it.
        reason: String,
    },
    /// A certificate authority, or the client's own certificate, cannot be used.
    #[error("certificate authorities")]
    Certificate(#[source] Box<rustls::Error>),
}

/// Why an exchange failed.
#[derive(Debug, thiserror::Error)]
pub enum Cause {
    /// The host has no address.
    #[error("dial tcp: {0}")]
    NoSuchHost(String),
    /// No connection could be made.
    #[error("dial tcp {address}: {reason}")]
    Connect {
        /// Host and port.
        address: String,
        /// Why, in the words of Go.
        reason: String,
    },
    /// The server's certificate or its TLS is not acceptable.
    #[error("tls: {0}")]
    Tls(String),
    /// Nothing came for too long.
    #[error("timeout awaiting {0}")]
    Timeout(&'static str),
    /// The server sends its clients around.
    #[error("stopped after {0} redirects")]
    Redirects(usize),
    /// A redirect without a usable `Location`.
    #[error("{0}")]
    Location(String),
    /// The connection ended in the middle of an answer.
    #[error("unexpected EOF")]
    UnexpectedEof,
    /// Anything else.
    #[error("{0}")]
    Other(String),
}

impl Error {
    /// Whether the same request may succeed a little later: the network failed, not what was
    /// asked or who was asked.
    pub fn is_transient(&self) -> bool {
        match self {
            Self::Exchange { cause, .. } | Self::Body { cause, .. } => match cause {
                Cause::Connect { .. }
                | Cause::Timeout(_)
                | Cause::UnexpectedEof
                | Cause::Other(_) => true,
                Cause::NoSuchHost(_) | Cause::Tls(_) | Cause::Redirects(_) | Cause::Location(_) => {
                    false
                }
            },
            _ => false,
        }
    }
}

impl Kind for Error {
    fn kind(&self) -> ErrorKind {
        match self {
            Self::Url { .. } => ErrorKind::InvalidParameter,
            Self::Exchange { cause: Cause::NoSuchHost(_), .. } => ErrorKind::NotFound,
            Self::Status { status, .. } => match *status {
                StatusCode::NOT_FOUND => ErrorKind::NotFound,
                StatusCode::BAD_REQUEST => ErrorKind::InvalidParameter,
                StatusCode::UNAUTHORIZED => ErrorKind::Unauthorized,
                StatusCode::FORBIDDEN => ErrorKind::Forbidden,
                _ => ErrorKind::Internal,
            },
            _ => ErrorKind::Internal,
        }
    }
}

/// Every error beneath `error`, those that [`io::Error`] hides among them.
fn causes<'a>(error: &'a (dyn StdError + 'static)) -> Vec<&'a (dyn StdError + 'static)> {
    let mut found = Vec::new();
    let mut next = Some(error);
    while let Some(error) = next {
        found.push(error);
        let hidden = error.downcast_ref::<io::Error>().and_then(io::Error::get_ref);
        next = match hidden {
            Some(inner) => Some(inner as &(dyn StdError + 'static)),
            None => error.source(),
        };
    }
    found
}

impl Cause {
    /// What went wrong between here and `url`.
    pub(crate) fn of(error: &(dyn StdError + 'static), url: &Uri) -> Self {
        let causes = causes(error);
        let find = |position: usize| causes.get(position);
        for cause in &causes {
            if let Some(lookup) = cause.downcast_ref::<LookupError>() {
                let text = lookup.to_string();
                return if lookup.absent {
                    Self::NoSuchHost(text)
                } else {
                    Self::Connect { address: authority(url), reason: text }
                };
            }
            if let Some(tls) = cause.downcast_ref::<rustls::Error>() {
                return Self::Tls(tls_reason(tls));
            }
            if cause.is::<tokio::time::error::Elapsed>() {
                return Self::Connect { address: authority(url), reason: "i/o timeout".into() };
            }
            if cause.downcast_ref::<hyper::Error>().is_some_and(hyper::Error::is_incomplete_message)
            {
                return Self::UnexpectedEof;
            }
        }
        let connecting = causes.iter().any(|cause| {
            cause
                .downcast_ref::<hyper_util::client::legacy::Error>()
                .is_some_and(hyper_util::client::legacy::Error::is_connect)
        });
        let io = causes.iter().rev().find_map(|cause| cause.downcast_ref::<io::Error>());
        match io {
            Some(io) if connecting => {
                let reason = match io.raw_os_error() {
                    Some(_) => format!("connect: {}", go_errno(io)),
                    None if io.kind() == io::ErrorKind::TimedOut => "i/o timeout".to_owned(),
                    None => io.to_string(),
                };
                Self::Connect { address: authority(url), reason }
            }
            Some(io) if io.kind() == io::ErrorKind::UnexpectedEof => Self::UnexpectedEof,
            Some(io) => Self::Other(go_errno(io)),
            None => Self::Other(
                find(causes.len().saturating_sub(1))
                    .map_or_else(|| error.to_string(), ToString::to_string),
            ),
        }
    }
}

/// Host and port of a URL.
fn authority(url: &Uri) -> String {
    let port = url.port_u16().unwrap_or(if url.scheme_str() == Some("https") { 443 } else { 80 });
    format!("{}:{port}", url.host().unwrap_or_default())
}

/// A system error without Rust's number behind it, in small letters as Go has it.
fn go_errno(error: &io::Error) -> String {
    let text = error.to_string();
    let text = text.split(" (os error").next().unwrap_or_default();
    if error.raw_os_error().is_some() { text.to_lowercase() } else { text.to_owned() }
}

fn tls_reason(error: &rustls::Error) -> String {
    use rustls::{CertificateError, Error as Tls};
    let verify = "failed to verify certificate: x509:";
    match error {
        Tls::InvalidCertificate(reason) => match reason {
            CertificateError::UnknownIssuer => {
                format!("{verify} certificate signed by unknown authority")
            }
            CertificateError::Expired | CertificateError::ExpiredContext { .. } => {
                format!("{verify} certificate has expired or is not yet valid")
            }
            CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => {
                format!("{verify} certificate is not valid for this host")
            }
            other => format!("{verify} {other}"),
        },
        Tls::InvalidMessage(_) => "first record does not look like a TLS handshake".to_owned(),
        other => other.to_string(),
    }
}
