//! Why a request failed, in the words of Go's `net/http`.

use std::error::Error as StdError;
use std::io;

use hyper::{StatusCode, Uri};
use silo_types::{ErrorKind, Kind};

use crate::connect::{PlainAnswer, ProxyError};
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
    /// The host has no address of the networks that are connected to.
    #[error("dial tcp: {0}")]
    Outside(String),
    /// No connection could be made.
    #[error("dial tcp {address}: {reason}")]
    Connect {
        /// Host and port.
        address: String,
        /// Why, in the words of Go.
        reason: String,
    },
    /// The proxy failed.
    #[error("{0}")]
    Proxy(String),
    /// The server's certificate or its TLS is not acceptable.
    #[error("tls: {0}")]
    Tls(String),
    /// The server's certificate is of an authority that nobody here trusts.
    #[error("tls: failed to verify certificate: x509: certificate signed by unknown authority")]
    UnknownAuthority,
    /// The server's certificate is for other names or for another time.
    #[error("tls: failed to verify certificate: x509: {0}")]
    BadCertificate(String),
    /// The server refused the client's TLS, as one does that wants a certificate.
    #[error("remote error: tls: {0}")]
    Alert(String),
    /// The server does not speak TLS.
    #[error("http: server gave HTTP response to HTTPS client")]
    PlainAnswer,
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
                | Cause::Proxy(_)
                | Cause::Timeout(_)
                | Cause::UnexpectedEof
                | Cause::Other(_) => true,
                Cause::NoSuchHost(_)
                | Cause::Outside(_)
                | Cause::Tls(_)
                | Cause::UnknownAuthority
                | Cause::BadCertificate(_)
                | Cause::Alert(_)
                | Cause::PlainAnswer
                | Cause::Redirects(_)
                | Cause::Location(_) => false,
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
                return if lookup.outside {
                    Self::Outside(text)
                } else if lookup.absent {
                    Self::NoSuchHost(text)
                } else {
                    Self::Connect { address: authority(url), reason: text }
                };
            }
            if let Some(tls) = cause.downcast_ref::<rustls::Error>() {
                return tls_cause(tls, url);
            }
            if let Some(proxy) = cause.downcast_ref::<ProxyError>() {
                return Self::Proxy(proxy.to_string());
            }
            if cause.is::<PlainAnswer>() {
                return Self::PlainAnswer;
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

/// Whether a request did not go out, because its connection ended before.
pub(crate) fn is_unsent(error: &(dyn StdError + 'static)) -> bool {
    let hyper = |cause: &&(dyn StdError + 'static)| {
        cause.downcast_ref::<hyper::Error>().is_some_and(hyper::Error::is_canceled)
    };
    causes(error).iter().any(hyper)
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

/// A time as Go's messages about certificates have it.
fn moment(time: rustls::pki_types::UnixTime) -> String {
    let seconds = i64::try_from(time.as_secs()).unwrap_or(i64::MAX);
    jiff::Timestamp::from_second(seconds).unwrap_or_default().to_string()
}

fn tls_cause(error: &rustls::Error, url: &Uri) -> Cause {
    use rustls::{CertificateError, Error as Tls};
    let expired = "certificate has expired or is not yet valid";
    let reason = match error {
        Tls::AlertReceived(alert) => return Cause::Alert(alert_words(*alert)),
        Tls::InvalidMessage(_) => {
            return Cause::Tls("first record does not look like a TLS handshake".to_owned());
        }
        Tls::InvalidCertificate(reason) => reason,
        other => return Cause::Tls(other.to_string()),
    };
    Cause::BadCertificate(match reason {
        // An authority of the same name has signed it, or nobody that is known.
        CertificateError::UnknownIssuer | CertificateError::BadSignature => {
            return Cause::UnknownAuthority;
        }
        CertificateError::ExpiredContext { time, not_after } => {
            format!("{expired}: current time {} is after {}", moment(*time), moment(*not_after))
        }
        CertificateError::NotValidYetContext { time, not_before } => {
            format!("{expired}: current time {} is before {}", moment(*time), moment(*not_before))
        }
        CertificateError::Expired | CertificateError::NotValidYet => expired.to_owned(),
        CertificateError::NotValidForNameContext { presented, .. } => names(presented, url),
        CertificateError::NotValidForName => names(&[], url),
        other => other.to_string(),
    })
}

/// That a certificate is for other hosts, as Go says it.
fn names(presented: &[String], url: &Uri) -> String {
    let host = url.host().unwrap_or_default().trim_start_matches('[').trim_end_matches(']');
    // `DnsName("a.example")`, `IpAddress(192.0.2.1)`
    let inner = |text: &str| -> String {
        let text = text.split_once('(').map_or(text, |(_, rest)| rest.trim_end_matches(')'));
        text.trim_matches('"').chars().filter(|c| !c.is_control()).take(64).collect()
    };
    let is_address = host.parse::<std::net::IpAddr>().is_ok();
    let found: Vec<String> = presented
        .iter()
        .filter(|name| !is_address || name.starts_with("IpAddress"))
        .take(16)
        .map(|name| inner(name))
        .collect();
    match (found.is_empty(), is_address) {
        (true, true) => {
            format!("cannot validate certificate for {host} because it doesn't contain any IP SANs")
        }
        (true, false) => {
            format!("certificate is not valid for any names, but wanted to match {host}")
        }
        _ => format!("certificate is valid for {}, not {host}", found.join(", ")),
    }
}

/// An alert in the words of Go: `CertificateRequired` is `certificate required`.
fn alert_words(alert: rustls::AlertDescription) -> String {
    let name = match alert {
        rustls::AlertDescription::UnknownCA => return "unknown certificate authority".to_owned(),
        rustls::AlertDescription::ProtocolVersion => {
            return "protocol version not supported".to_owned();
        }
        other => format!("{other:?}"),
    };
    let mut words = String::new();
    for c in name.chars() {
        if c.is_ascii_uppercase() && !words.is_empty() {
            words.push(' ');
        }
        words.push(c.to_ascii_lowercase());
    }
    words
}
