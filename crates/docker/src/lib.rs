//! Docker Engine API models: requests, responses and query values, field for field as the
//! Engine API (<https://docs.docker.com/reference/api/engine/>) writes them.
//!
//! Reading is lenient: an absent or `null` field takes its default and unknown fields are
//! ignored, as Go's decoder does. Writing follows dockerd: a Go slice or map that was never set
//! is `null` ([`List`], [`Map`]), one that is always made is `[]` (`Vec`), and `omitempty`
//! fields vanish when empty. The structs hold the union of all supported versions; fields that
//! only some versions have are added or taken away by the server.
#![warn(missing_docs)]

#[macro_use]
mod value;

mod any_case;
pub mod containers;
pub mod events;
pub mod exec;
pub mod filters;
pub mod host_config;
pub mod images;
pub mod mounts;
pub mod networks;
pub mod query;
pub mod stats;
pub mod stream;
pub mod system;
pub mod volumes;

pub use any_case::AnyCase;
pub use filters::Filters;
pub use value::{List, Map, empty};

/// The newest Engine API version that these models describe.
pub const API_VERSION: ApiVersion = ApiVersion { major: 1, minor: 55 };

/// The oldest Engine API version that Silo serves.
pub const MIN_API_VERSION: ApiVersion = ApiVersion { major: 1, minor: 24 };

/// An Engine API version such as `1.41`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ApiVersion {
    /// Always 1 so far.
    pub major: u32,
    /// What counts.
    pub minor: u32,
}

impl ApiVersion {
    /// Version `1.minor`.
    pub const fn v1(minor: u32) -> Self {
        Self { major: 1, minor }
    }

    /// Reads `1.41`; `None` for anything else.
    pub fn parse(text: &str) -> Option<Self> {
        let (major, minor) = text.split_once('.')?;
        let number = |part: &str| {
            let digits = !part.is_empty() && part.bytes().all(|b| b.is_ascii_digit());
            digits.then(|| part.parse().ok()).flatten()
        };
        Some(Self { major: number(major)?, minor: number(minor)? })
    }
}

impl std::fmt::Display for ApiVersion {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}.{}", self.major, self.minor)
    }
}

model! {
    /// The body of every error answer.
    pub struct ErrorResponse {
        /// What went wrong, for people.
        #[serde(rename = "message")]
        pub message: String,
    }
}

model! {
    /// The answer of verbs that make a thing and name only its id.
    pub struct IdResponse {
        /// The new id.
        pub id: String,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions() {
        assert_eq!(ApiVersion::parse("1.41"), Some(ApiVersion::v1(41)));
        assert!(ApiVersion::v1(9) < ApiVersion::v1(24));
        for bad in ["", "1", "1.", ".1", "1.x", "1.-1", "1.+1", "1.99999999999"] {
            assert_eq!(ApiVersion::parse(bad), None, "{bad}");
        }
    }
}
