//! What images are called: on registries, in layouts and archives.

use std::fmt;
use std::path::PathBuf;

use silo_oci::reference::Reference;
use silo_types::Digest;

use super::CopyError;

/// Where an image is, or is to be.
///
/// ```text
/// NAME[:TAG|@DIGEST], docker://NAME[:TAG|@DIGEST]    a registry
/// oci:DIRECTORY[:TAG|@DIGEST]                        an OCI image layout
/// oci-archive:FILE[:TAG|@DIGEST]                     a tar of one
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Location {
    /// A registry.
    Registry(Reference),
    /// A layout.
    Layout(PathBuf, Selector),
    /// A tar of a layout.
    Archive(PathBuf, Selector),
}

/// Which image of a layout.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Selector {
    /// The only one.
    Only,
    /// The one of this name.
    Tag(String),
    /// The one with this digest.
    Digest(Digest),
}

/// Names that other programs know, and this one does not.
const OTHERS: [&str; 6] =
    ["containers-storage", "dir", "docker-archive", "docker-daemon", "sif", "ostree"];

impl Location {
    /// Reads a name.
    pub fn parse(text: &str) -> Result<Self, CopyError> {
        let wrong =
            |reason: &str| CopyError::Location { text: text.to_owned(), reason: reason.to_owned() };
        let (transport, rest) = text.split_once(':').unwrap_or(("", text));
        match transport {
            "docker" if rest.starts_with("//") => Self::registry(text, &rest[2..]),
            "oci" | "oci-archive" if !rest.is_empty() => {
                let (path, selector) = split(rest).ok_or_else(|| wrong("it has no path"))?;
                let path = PathBuf::from(path);
                Ok(if transport == "oci" {
                    Self::Layout(path, selector)
                } else {
                    Self::Archive(path, selector)
                })
            }
            "oci" | "oci-archive" => Err(wrong("it has no path")),
            other if OTHERS.contains(&other) => Err(wrong(
                "registries (NAME or docker://NAME), oci:DIRECTORY[:TAG] and \
                 oci-archive:FILE[:TAG] can be copied",
            )),
            _ => Self::registry(text, text),
        }
    }

    fn registry(text: &str, name: &str) -> Result<Self, CopyError> {
        let reference = Reference::parse_normalized(name).map_err(|error| CopyError::Location {
            text: text.to_owned(),
            reason: error.to_string(),
        })?;
        Ok(Self::Registry(reference))
    }
}

/// The path and what follows it.
fn split(text: &str) -> Option<(&str, Selector)> {
    let (path, selector) = match text.rsplit_once('@') {
        Some((path, digest)) if digest.parse::<Digest>().is_ok() => {
            (path, Selector::Digest(digest.parse().ok()?))
        }
        _ => match text.split_once(':') {
            Some((path, "")) => (path, Selector::Only),
            Some((path, tag)) => (path, Selector::Tag(tag.to_owned())),
            None => (text, Selector::Only),
        },
    };
    (!path.is_empty()).then_some((path, selector))
}

impl fmt::Display for Location {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Registry(reference) => write!(f, "{}", reference.familiar()),
            Self::Layout(path, selector) => write!(f, "oci:{}{selector}", path.display()),
            Self::Archive(path, selector) => write!(f, "oci-archive:{}{selector}", path.display()),
        }
    }
}

impl fmt::Display for Selector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Only => Ok(()),
            Self::Tag(tag) => write!(f, ":{tag}"),
            Self::Digest(digest) => write!(f, "@{digest}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names() {
        let digest = silo_oci::image::digest(b"");
        let by_digest = format!("oci:d@{digest}");
        for (text, shown) in [
            ("busybox", "busybox:latest"),
            ("docker://busybox:1", "busybox:1"),
            ("r.example:5000/a/b", "r.example:5000/a/b:latest"),
            ("docker:5000/a", "docker:5000/a:latest"),
            ("oci:/a/b", "oci:/a/b"),
            ("oci:a:", "oci:a"),
            ("oci:a:1.0", "oci:a:1.0"),
            ("oci:a:r.example:5000/a:1", "oci:a:r.example:5000/a:1"),
            ("oci-archive:a.tar:x", "oci-archive:a.tar:x"),
            (by_digest.as_str(), by_digest.as_str()),
        ] {
            assert_eq!(Location::parse(text).unwrap().to_string(), shown, "{text}");
        }
        for wrong in ["", "oci:", "oci::x", "oci-archive:", "dir:/x", "docker-archive:x", "A", "a:"]
        {
            assert!(Location::parse(wrong).is_err(), "{wrong}");
        }
    }
}
