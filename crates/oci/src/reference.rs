//! Names of images: `[domain/]path[:tag][@digest]`, after the grammar of the distribution
//! project's reference package.
//!
//! ```text
//! reference  = [domain "/"] path [":" tag] ["@" digest]
//! domain     = (component *("." component) | "[" ipv6 "]") [":" digits]
//! component  = alphanumeric, with "-" inside
//! path       = element *("/" element), at most 255 bytes
//! element    = [a-z0-9]+ *(separator [a-z0-9]+);  separator = "." | "_" | "__" | "-"+
//! tag        = [A-Za-z0-9_] *127([A-Za-z0-9_.-])
//! digest     = algorithm ":" 32*hex
//! ```
//!
//! What people type is short for a full name: `busybox` is `docker.io/library/busybox:latest`.
//! [`Reference::parse_normalized`] makes the full name, [`Reference::familiar`] the short one.

use std::fmt;

use silo_types::{Digest, ErrorKind, Kind};

/// The registry that a name without a domain belongs to.
pub const DEFAULT_DOMAIN: &str = "docker.io";
/// The tag that a name without tag and digest gets.
pub const DEFAULT_TAG: &str = "latest";

const LEGACY_DEFAULT_DOMAIN: &str = "index.docker.io";
const OFFICIAL_PREFIX: &str = "library/";
const MAX_PATH: usize = 255;
const MAX_TAG: usize = 128;
/// Longer text than any valid reference: host name, path, tag and digest with some slack.
const MAX_REFERENCE: usize = 2048;

/// Why text is not a reference. The wording is Docker's.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ReferenceError {
    /// The text does not follow the grammar.
    #[error("invalid reference format")]
    Format,
    /// The path, which is named, has capital letters.
    #[error("invalid reference format: repository name ({0}) must be lowercase")]
    PathUppercase(String),
    /// The name as a whole would be valid in lower case.
    #[error("repository name must be lowercase")]
    Uppercase,
    /// The text is empty.
    #[error("repository name must have at least one component")]
    Empty,
    /// The path is too long.
    #[error("repository name must not be more than {MAX_PATH} characters")]
    TooLong,
    /// 64 hex digits can only mean an image id.
    #[error("invalid repository name ({0}), cannot specify 64-byte hexadecimal strings")]
    Identifier(String),
    /// The digest's algorithm is not one that Silo can check.
    #[error("unsupported digest algorithm")]
    DigestAlgorithm,
    /// The digest has not as many digits as its algorithm makes.
    #[error("invalid checksum digest length")]
    DigestLength,
    /// The digest has capital letters.
    #[error("invalid checksum digest format")]
    DigestFormat,
    /// A tag given by itself is not one.
    #[error("invalid tag format")]
    Tag,
}

impl Kind for ReferenceError {
    fn kind(&self) -> ErrorKind {
        ErrorKind::InvalidParameter
    }
}

/// A checked name of an image, or of a repository where tag and digest are absent.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Reference {
    domain: String,
    path: String,
    tag: Option<String>,
    digest: Option<Digest>,
}

impl Reference {
    /// Reads what a person typed, filling in domain and `library/`, but no tag.
    pub fn parse(text: &str) -> Result<Self, ReferenceError> {
        if text.len() > MAX_REFERENCE {
            return Err(if text.contains('/') || text.len() > MAX_REFERENCE * 4 {
                ReferenceError::TooLong
            } else {
                ReferenceError::Format
            });
        }
        if is_identifier(text) {
            return Err(ReferenceError::Identifier(text.to_owned()));
        }
        let (domain, remainder) = split_domain(text);
        let path = remainder.split(':').next().unwrap_or_default();
        if path.chars().any(char::is_uppercase) {
            return Err(ReferenceError::PathUppercase(path.to_owned()));
        }
        if let Some(reference) = parse_parts(&domain, &remainder)? {
            return Ok(reference);
        }
        let lower = parse_parts(&domain.to_lowercase(), &remainder.to_lowercase());
        Err(if matches!(lower, Ok(None)) {
            ReferenceError::Format
        } else {
            ReferenceError::Uppercase
        })
    }

    /// Reads what a person typed; without a tag or digest it means `:latest`.
    pub fn parse_normalized(text: &str) -> Result<Self, ReferenceError> {
        let mut reference = Self::parse(text)?;
        if reference.is_name_only() {
            reference.tag = Some(DEFAULT_TAG.to_owned());
        }
        Ok(reference)
    }

    /// The registry, `docker.io`. Empty for the rare name with a dotted first element that is no
    /// host name, such as `my_host.example/app`.
    pub fn domain(&self) -> &str {
        &self.domain
    }

    /// The repository within the registry, `library/busybox`.
    pub fn path(&self) -> &str {
        &self.path
    }

    /// The tag, if there is one.
    pub fn tag(&self) -> Option<&str> {
        self.tag.as_deref()
    }

    /// The digest, if there is one.
    pub fn digest(&self) -> Option<&Digest> {
        self.digest.as_ref()
    }

    /// Whether there is neither a tag nor a digest.
    pub fn is_name_only(&self) -> bool {
        self.tag.is_none() && self.digest.is_none()
    }

    /// The full name without tag and digest, `docker.io/library/busybox`.
    pub fn name(&self) -> String {
        if self.domain.is_empty() {
            self.path.clone()
        } else {
            format!("{}/{}", self.domain, self.path)
        }
    }

    /// The name as people write it, without tag and digest: `busybox`.
    pub fn familiar_name(&self) -> String {
        if self.domain != DEFAULT_DOMAIN {
            return self.name();
        }
        match self.path.strip_prefix(OFFICIAL_PREFIX) {
            Some(rest) if !rest.contains('/') => rest.to_owned(),
            _ => self.path.clone(),
        }
    }

    /// The reference as people write it, `busybox:latest`.
    pub fn familiar(&self) -> String {
        self.with_suffix(self.familiar_name())
    }

    /// The same name with another tag and without a digest.
    pub fn with_tag(&self, tag: &str) -> Result<Self, ReferenceError> {
        if !is_tag(tag) {
            return Err(ReferenceError::Tag);
        }
        Ok(Self { tag: Some(tag.to_owned()), digest: None, ..self.clone() })
    }

    /// The same name with a digest and without a tag.
    pub fn with_digest(&self, digest: Digest) -> Self {
        Self { tag: None, digest: Some(digest), ..self.clone() }
    }

    /// The same name without tag and digest.
    pub fn without_suffix(&self) -> Self {
        Self { tag: None, digest: None, ..self.clone() }
    }

    fn with_suffix(&self, mut name: String) -> String {
        if let Some(tag) = &self.tag {
            name.push(':');
            name.push_str(tag);
        }
        if let Some(digest) = &self.digest {
            name.push('@');
            name.push_str(&digest.to_string());
        }
        name
    }
}

/// The full form, which [`Reference::parse`] reads back as the same reference.
impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.with_suffix(self.name()))
    }
}

/// Whether `text` is 64 lower-case hex digits: an image id, not a name.
pub fn is_identifier(text: &str) -> bool {
    text.len() == 64 && text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))
}

/// Whether `text` is a tag.
pub fn is_tag(text: &str) -> bool {
    let word = |b: u8| b.is_ascii_alphanumeric() || b == b'_';
    let mut bytes = text.bytes();
    text.len() <= MAX_TAG
        && bytes.next().is_some_and(word)
        && bytes.all(|b| word(b) || matches!(b, b'.' | b'-'))
}

/// The domain that is written or meant, and the rest with `library/` where that is meant.
fn split_domain(text: &str) -> (String, String) {
    let Some((first, rest)) = text.split_once('/') else {
        return (DEFAULT_DOMAIN.to_owned(), format!("{OFFICIAL_PREFIX}{text}"));
    };
    let (domain, remainder) = match first {
        "localhost" => (first, rest),
        LEGACY_DEFAULT_DOMAIN => (DEFAULT_DOMAIN, rest),
        _ if first.contains(['.', ':']) || first.chars().any(char::is_uppercase) => (first, rest),
        _ => (DEFAULT_DOMAIN, text),
    };
    if domain == DEFAULT_DOMAIN && !remainder.contains('/') {
        (domain.to_owned(), format!("{OFFICIAL_PREFIX}{remainder}"))
    } else {
        (domain.to_owned(), remainder.to_owned())
    }
}

/// `Ok(None)` where the text is not in the grammar.
fn parse_parts(domain: &str, remainder: &str) -> Result<Option<Reference>, ReferenceError> {
    let (named, digest) = match remainder.split_once('@') {
        Some((named, digest)) => (named, Some(digest)),
        None => (remainder, None),
    };
    let (path, tag) = match named.split_once(':') {
        Some((path, tag)) => (path, Some(tag)),
        None => (named, None),
    };
    if !is_path(path) || tag.is_some_and(|tag| !is_tag(tag)) {
        return Ok(None);
    }
    if digest.is_some_and(|digest| !is_digest_form(digest)) {
        return Ok(None);
    }
    // A first element that is no host name may still be the first element of a path.
    let (domain, path) = if is_domain(domain) {
        (domain.to_owned(), path.to_owned())
    } else if is_path(domain) {
        (String::new(), format!("{domain}/{path}"))
    } else {
        return Ok(None);
    };
    if path.len() > MAX_PATH {
        return Err(ReferenceError::TooLong);
    }
    let digest = digest.map(parse_digest).transpose()?;
    Ok(Some(Reference { domain, path, tag: tag.map(str::to_owned), digest }))
}

/// Whether `text` is the path of a repository: elements with `/` between them, of any length.
pub fn is_path(text: &str) -> bool {
    !text.is_empty() && text.split('/').all(is_path_element)
}

fn is_path_element(text: &str) -> bool {
    let alphanumeric = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    let bytes = text.as_bytes();
    let (Some(first), Some(last)) = (bytes.first(), bytes.last()) else { return false };
    alphanumeric(*first)
        && alphanumeric(*last)
        && bytes.split(|b| alphanumeric(*b)).all(|separator| {
            matches!(separator, b"" | b"." | b"_" | b"__") || separator.iter().all(|b| *b == b'-')
        })
}

fn is_domain(text: &str) -> bool {
    let (host, port) = if let Some(rest) = text.strip_prefix('[') {
        let Some((address, rest)) = rest.split_once(']') else { return false };
        let is_address = |b: u8| b.is_ascii_hexdigit() || b == b':';
        if address.is_empty() || !address.bytes().all(is_address) {
            return false;
        }
        match rest.strip_prefix(':') {
            Some(port) => (None, Some(port)),
            None if rest.is_empty() => (None, None),
            None => return false,
        }
    } else {
        match text.split_once(':') {
            Some((host, port)) => (Some(host), Some(port)),
            None => (Some(text), None),
        }
    };
    let is_component = |component: &str| {
        !component.is_empty()
            && !component.starts_with('-')
            && !component.ends_with('-')
            && component.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
    };
    host.is_none_or(|host| host.split('.').all(is_component))
        && port.is_none_or(|port| !port.is_empty() && port.bytes().all(|b| b.is_ascii_digit()))
}

/// Whether the text looks like a digest of some algorithm.
fn is_digest_form(text: &str) -> bool {
    let Some((algorithm, digits)) = text.split_once(':') else { return false };
    let is_name = |part: &str| {
        part.bytes().next().is_some_and(|b| b.is_ascii_alphabetic())
            && part.bytes().all(|b| b.is_ascii_alphanumeric())
    };
    algorithm.split(['-', '_', '+', '.']).all(is_name)
        && digits.len() >= 32
        && digits.bytes().all(|b| b.is_ascii_hexdigit())
}

fn parse_digest(text: &str) -> Result<Digest, ReferenceError> {
    let digits = text.strip_prefix("sha256:").ok_or(ReferenceError::DigestAlgorithm)?;
    if digits.len() != 64 {
        return Err(ReferenceError::DigestLength);
    }
    text.parse().map_err(|_| ReferenceError::DigestFormat)
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEX: &str = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

    #[test]
    fn full_and_familiar_forms() {
        for (text, full, familiar) in [
            ("busybox", "docker.io/library/busybox:latest", "busybox:latest"),
            ("busybox:1.36", "docker.io/library/busybox:1.36", "busybox:1.36"),
            ("docker.io/busybox", "docker.io/library/busybox:latest", "busybox:latest"),
            ("index.docker.io/a/b", "docker.io/a/b:latest", "a/b:latest"),
            ("docker.io/library/x/y", "docker.io/library/x/y:latest", "library/x/y:latest"),
            ("a/b", "docker.io/a/b:latest", "a/b:latest"),
            ("localhost/b", "localhost/b:latest", "localhost/b:latest"),
            ("localhost:5000/b:T_a.g-", "localhost:5000/b:T_a.g-", "localhost:5000/b:T_a.g-"),
            ("[::1]:5000/b", "[::1]:5000/b:latest", "[::1]:5000/b:latest"),
            ("[fe80::1]/b", "[fe80::1]/b:latest", "[fe80::1]/b:latest"),
            ("Upper/b", "Upper/b:latest", "Upper/b:latest"),
            ("a.b-c__d---e/f", "a.b-c__d---e/f:latest", "a.b-c__d---e/f:latest"),
            ("my_host.example/app", "my_host.example/app:latest", "my_host.example/app:latest"),
            ("xn--n3h.com/app", "xn--n3h.com/app:latest", "xn--n3h.com/app:latest"),
        ] {
            let reference = Reference::parse_normalized(text).unwrap();
            assert_eq!(reference.to_string(), full, "{text}");
            assert_eq!(reference.familiar(), familiar, "{text}");
            assert_eq!(Reference::parse(full).as_ref().map(ToString::to_string).unwrap(), full);
        }
    }

    #[test]
    fn digests() {
        let text = format!("busybox:1@sha256:{HEX}");
        let reference = Reference::parse_normalized(&text).unwrap();
        assert_eq!(reference.tag(), Some("1"));
        assert_eq!(reference.digest().unwrap().hex(), HEX);
        assert_eq!(reference.familiar(), text);
        let reference = Reference::parse_normalized(&format!("busybox@sha256:{HEX}")).unwrap();
        assert_eq!(reference.tag(), None);
    }

    #[test]
    fn errors_have_dockers_words() {
        let long = "a/".repeat(128) + "b";
        let identifier =
            format!("invalid repository name ({HEX}), cannot specify 64-byte hexadecimal strings");
        let upper_digest = format!("a@sha256:{}", HEX.to_uppercase());
        let sha512 = format!("a@sha512:{HEX}{HEX}");
        let short = format!("a@sha256:{}", &HEX[..40]);
        let tag = format!("a:{}", "t".repeat(129));
        for (text, message) in [
            ("", "invalid reference format"),
            (":", "invalid reference format"),
            ("a:", "invalid reference format"),
            ("a@", "invalid reference format"),
            ("a@sha256", "invalid reference format"),
            ("-a", "invalid reference format"),
            ("a-", "invalid reference format"),
            ("a___b", "invalid reference format"),
            ("a..b", "invalid reference format"),
            ("a//b", "invalid reference format"),
            ("/a", "invalid reference format"),
            ("a b", "invalid reference format"),
            ("a:b:c", "invalid reference format"),
            ("a/b:c/d", "invalid reference format"),
            ("host:port/a", "invalid reference format"),
            ("[::1/a", "invalid reference format"),
            ("é", "invalid reference format"),
            ("../../etc/passwd", "invalid reference format"),
            ("-host.com/a", "invalid reference format"),
            ("Foo", "invalid reference format: repository name (library/Foo) must be lowercase"),
            ("a/Foo:T", "invalid reference format: repository name (a/Foo) must be lowercase"),
            ("My_host.com/a", "repository name must be lowercase"),
            (&tag, "invalid reference format"),
            (&long, "repository name must not be more than 255 characters"),
            (HEX, &identifier),
            (&upper_digest, "invalid checksum digest format"),
            (&sha512, "unsupported digest algorithm"),
            (&short, "invalid checksum digest length"),
        ] {
            let error = Reference::parse_normalized(text).unwrap_err();
            assert_eq!(error.to_string(), message, "{text}");
        }
    }

    #[test]
    fn huge_input_is_refused_early() {
        assert!(Reference::parse(&"a".repeat(1 << 20)).is_err());
        assert!(Reference::parse(&"a/".repeat(1 << 20)).is_err());
    }

    #[test]
    fn changes_of_tag_and_digest() {
        let reference = Reference::parse_normalized("busybox").unwrap();
        assert_eq!(reference.with_tag("2").unwrap().familiar(), "busybox:2");
        assert_eq!(reference.with_tag("-"), Err(ReferenceError::Tag));
        let digest = format!("sha256:{HEX}").parse().unwrap();
        assert_eq!(reference.with_digest(digest).familiar(), format!("busybox@sha256:{HEX}"));
        assert!(reference.without_suffix().is_name_only());
    }
}
