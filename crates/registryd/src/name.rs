//! What requests name: repositories, tags, digests.

use std::fmt;
use std::str::FromStr;

use sha2::{Digest as _, Sha256, Sha512};
use silo_oci::reference::{is_path, is_tag};
use silo_types::digest::hex;

use crate::error::Refusal;

/// The longest name of a repository in bytes, as in Docker's registry.
pub(crate) const MAX_NAME: usize = 255;

/// How content is hashed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Algorithm {
    /// What everybody uses.
    Sha256,
    /// The other one that the OCI specification registers.
    Sha512,
}

impl Algorithm {
    pub(crate) const ALL: [Self; 2] = [Self::Sha256, Self::Sha512];

    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Sha256 => "sha256",
            Self::Sha512 => "sha512",
        }
    }

    fn digits(self) -> usize {
        match self {
            Self::Sha256 => 64,
            Self::Sha512 => 128,
        }
    }
}

impl FromStr for Algorithm {
    type Err = Refusal;

    fn from_str(text: &str) -> Result<Self, Refusal> {
        let known = Self::ALL.into_iter().find(|algorithm| algorithm.as_str() == text);
        known.ok_or_else(|| Refusal::digest("the digest's algorithm is not sha256 or sha512"))
    }
}

/// The digest of content: `sha256:` or `sha512:` and as many lower-case hex digits as it takes.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Digest {
    pub(crate) algorithm: Algorithm,
    hex: String,
}

impl Digest {
    pub(crate) fn of(algorithm: Algorithm, bytes: &[u8]) -> Self {
        let mut hasher = Hasher::new(algorithm);
        hasher.update(bytes);
        hasher.finish()
    }

    /// The digits: nothing else ever is in a file name that content gets.
    pub(crate) fn hex(&self) -> &str {
        &self.hex
    }
}

impl FromStr for Digest {
    type Err = Refusal;

    fn from_str(text: &str) -> Result<Self, Refusal> {
        let (algorithm, hex) = text
            .split_once(':')
            .ok_or_else(|| Refusal::digest("a digest is an algorithm, a colon and hex digits"))?;
        let algorithm: Algorithm = algorithm.parse()?;
        let digit = |digit: u8| matches!(digit, b'0'..=b'9' | b'a'..=b'f');
        if hex.len() != algorithm.digits() || !hex.bytes().all(digit) {
            return Err(Refusal::digest(format!(
                "a {} digest has {} lower-case hex digits",
                algorithm.as_str(),
                algorithm.digits()
            )));
        }
        Ok(Self { algorithm, hex: hex.to_owned() })
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.algorithm.as_str(), self.hex)
    }
}

/// Computes a digest.
#[derive(Debug, Clone)]
pub(crate) enum Hasher {
    Sha256(Sha256),
    Sha512(Sha512),
}

impl Hasher {
    pub(crate) fn new(algorithm: Algorithm) -> Self {
        match algorithm {
            Algorithm::Sha256 => Self::Sha256(Sha256::new()),
            Algorithm::Sha512 => Self::Sha512(Sha512::new()),
        }
    }

    pub(crate) fn algorithm(&self) -> Algorithm {
        match self {
            Self::Sha256(_) => Algorithm::Sha256,
            Self::Sha512(_) => Algorithm::Sha512,
        }
    }

    pub(crate) fn update(&mut self, bytes: &[u8]) {
        match self {
            Self::Sha256(hash) => hash.update(bytes),
            Self::Sha512(hash) => hash.update(bytes),
        }
    }

    pub(crate) fn finish(self) -> Digest {
        let algorithm = self.algorithm();
        let hex = match self {
            Self::Sha256(hash) => hex(&hash.finalize()),
            Self::Sha512(hash) => hex(&hash.finalize()),
        };
        Digest { algorithm, hex }
    }
}

/// The name of a repository: elements of lower-case letters and digits with separators between
/// them. No element is empty or begins with a dot.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Name(String);

impl Name {
    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for Name {
    type Err = Refusal;

    fn from_str(text: &str) -> Result<Self, Refusal> {
        if text.len() > MAX_NAME {
            return Err(Refusal::name(format!(
                "a repository name has at most {MAX_NAME} characters"
            )));
        }
        if !is_path(text) {
            return Err(Refusal::name("invalid repository name"));
        }
        Ok(Self(text.to_owned()))
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Which manifest of a repository.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Reference {
    Tag(String),
    Digest(Digest),
}

impl FromStr for Reference {
    type Err = Refusal;

    fn from_str(text: &str) -> Result<Self, Refusal> {
        if text.contains(':') {
            return text.parse().map(Self::Digest);
        }
        tag(text).map(Self::Tag)
    }
}

impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tag(tag) => f.write_str(tag),
            Self::Digest(digest) => digest.fmt(f),
        }
    }
}

/// A checked tag.
pub(crate) fn tag(text: &str) -> Result<String, Refusal> {
    if is_tag(text) { Ok(text.to_owned()) } else { Err(Refusal::manifest("invalid tag")) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn digests() {
        let empty = Digest::of(Algorithm::Sha256, b"");
        let text = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
        assert_eq!(empty.to_string(), text);
        assert_eq!(text.parse::<Digest>().unwrap(), empty);
        let long = Digest::of(Algorithm::Sha512, b"a");
        assert_eq!(long.to_string().parse::<Digest>().unwrap(), long);
        let hex = "a".repeat(64);
        for bad in [
            "",
            "sha256",
            "sha256:",
            &format!("sha256:{}", "A".repeat(64)),
            &format!("sha256:{hex}a"),
            &format!("sha512:{hex}"),
            &format!("md5:{hex}"),
            &format!("sha256:../{}", "a".repeat(61)),
            "sha256:baddigeststring",
        ] {
            assert!(bad.parse::<Digest>().is_err(), "{bad}");
        }
    }

    #[test]
    fn names() {
        for good in ["a", "a/b", "library/busybox", "a.b_c__d---e/f", &"a".repeat(255)] {
            assert!(good.parse::<Name>().is_ok(), "{good}");
        }
        for bad in [
            "",
            "/",
            "a/",
            "/a",
            "a//b",
            "..",
            "a/../b",
            "../a",
            "A",
            "a b",
            "a\0",
            "_a",
            "a%2fb",
            "é",
            &"a".repeat(256),
        ] {
            assert!(bad.parse::<Name>().is_err(), "{bad}");
        }
    }

    #[test]
    fn references() {
        assert_eq!("v1.0".parse::<Reference>().unwrap(), Reference::Tag("v1.0".into()));
        for bad in ["", "..", ".a", "-a", "a/b", "sha256:x", &"a".repeat(129)] {
            assert!(bad.parse::<Reference>().is_err(), "{bad}");
        }
    }
}
