//! Packages of Debian, fetched and opened without any of Debian's tools, on any distribution.
//!
//! Trust goes from three public keys in this source ([`keys`]) to the signed `InRelease` file of
//! a suite ([`signature`], [`openpgp`], [`release`]), from its checksums to the package index ([`index`]),
//! from that to the packages ([`fetch`]). Nothing is parsed before its signature or checksum was
//! right, and everything is bounded all the same.

pub mod archive;
pub mod control;
pub mod fetch;
pub mod index;
pub mod keys;
pub mod mirror;
pub mod openpgp;
pub mod release;
#[cfg(test)]
mod server;
pub mod signature;
pub mod version;

pub use fetch::{Fetched, Fetcher};
pub use mirror::Mirror;

use std::io;
use std::path::PathBuf;

/// Why packages could not be had.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A file or directory of this host.
    #[error("{0}")]
    File(&'static str, #[source] io::Error),
    /// The mirror does not have a file.
    #[error("the mirror has no {0}")]
    Missing(String),
    /// The mirror could not be asked.
    #[error("cannot fetch {path}")]
    Fetch {
        /// Which file, as a path on the mirror or a URL.
        path: String,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A mirror's address that is none.
    #[error("{0:?} is no mirror: http://, https:// or file:// is needed")]
    Address(String),
    /// A signature that does not hold.
    #[error("the signature of {path} does not hold: {reason}")]
    Signature {
        /// Which file.
        path: String,
        /// Why not.
        reason: String,
    },
    /// Something that is not what it should be.
    #[error("{path}: {reason}")]
    Malformed {
        /// Which file.
        path: String,
        /// What is wrong.
        reason: String,
    },
    /// A file with another checksum or size than the index says.
    #[error(
        "{path} has another {what} than the index says; the mirror may be in the middle of an \
         update: try again later, or use another one with --mirror"
    )]
    Mismatch {
        /// Which file.
        path: String,
        /// `size` or `checksum`.
        what: &'static str,
    },
    /// A package that no suite has.
    #[error("no package {0} in this Debian release")]
    NoPackage(String),
    /// The archive inside a package.
    #[error("cannot read the package {path}")]
    Archive {
        /// Which file.
        path: PathBuf,
        /// Why.
        #[source]
        source: silo_archive::Error,
    },
}

/// Checks that text of a mirror may be used as a relative path there.
pub(crate) fn safe_path(path: &str) -> bool {
    !path.is_empty()
        && path.len() <= 512
        && path.split('/').all(|part| !part.is_empty() && !part.starts_with('.'))
        && path.bytes().all(|b| b.is_ascii_alphanumeric() || b"/._+-~:%".contains(&b))
}
