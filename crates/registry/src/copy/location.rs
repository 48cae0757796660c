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
/// docker-archive:FILE[:NAME[:TAG]|@DIGEST]           a tar of `docker save`
/// docker-daemon:NAME[:TAG]                           an engine
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Location {
    /// A registry.
    Registry(Reference),
    /// A layout.
    Layout(PathBuf, Selector),
    /// A tar of a layout.
    Archive(PathBuf, Selector),
    /// A tar of `docker save`.
    Docker(PathBuf, Selector),
    /// An engine. Only who has one can open it.
    Engine(Reference),
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
const OTHERS: [&str; 4] = ["containers-storage", "dir", "sif", "ostree"];

impl Location {
    /// Reads a name.
    pub fn parse(text: &str) -> Result<Self, CopyError> {
        let wrong =
            |reason: &str| CopyError::Location { text: text.to_owned(), reason: reason.to_owned() };
        let (transport, rest) = text.split_once(':').unwrap_or(("", text));
        match transport {
            "docker" if rest.starts_with("//") => Self::registry(text, &rest[2..]),
            "docker-daemon" => Ok(Self::Engine(reference(text, rest)?)),
            "oci" | "oci-archive" | "docker-archive" => {
                let (path, selector) = split(rest).ok_or_else(|| wrong("it has no path"))?;
                let path = PathBuf::from(path);
                Ok(match transport {
                    "oci" => Self::Layout(path, selector),
                    "oci-archive" => Self::Archive(path, selector),
                    _ => Self::Docker(path, selector),
                })
            }
            other if OTHERS.contains(&other) => Err(wrong(
                "registries (NAME or docker://NAME), oci:DIRECTORY[:TAG], \
                 oci-archive:FILE[:TAG], docker-archive:FILE[:NAME] and docker-daemon:NAME can be \
                 copied",
            )),
            _ => Self::registry(text, text),
        }
    }

    /// Reads the name of what has images of several tags, and so has no tag itself.
    pub fn parse_repository(text: &str) -> Result<Self, CopyError> {
        let location = Self::parse(text)?;
        let name = text.strip_prefix("docker://").unwrap_or(text);
        let reason = match &location {
            Self::Registry(_) if Reference::parse(name).is_ok_and(|name| !name.is_name_only()) => {
                "all tags are copied, it cannot have one"
            }
            Self::Layout(_, Selector::Tag(_) | Selector::Digest(_))
            | Self::Archive(_, Selector::Tag(_) | Selector::Digest(_)) => {
                "all tags are copied, it cannot have one"
            }
            Self::Engine(_) => "all tags of an engine cannot be copied",
            _ => return Ok(location),
        };
        Err(CopyError::Location { text: text.to_owned(), reason: reason.to_owned() })
    }

    fn registry(text: &str, name: &str) -> Result<Self, CopyError> {
        Ok(Self::Registry(reference(text, name)?))
    }
}

fn reference(text: &str, name: &str) -> Result<Reference, CopyError> {
    Reference::parse_normalized(name)
        .map_err(|error| CopyError::Location { text: text.to_owned(), reason: error.to_string() })
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
            Self::Docker(path, selector) => {
                write!(f, "docker-archive:{}{selector}", path.display())
            }
            Self::Engine(reference) => write!(f, "docker-daemon:{}", reference.familiar()),
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
            ("docker-archive:a.tar:x:1", "docker-archive:a.tar:x:1"),
            ("docker-daemon:x", "docker-daemon:x:latest"),
            (by_digest.as_str(), by_digest.as_str()),
        ] {
            assert_eq!(Location::parse(text).unwrap().to_string(), shown, "{text}");
        }
        for wrong in [
            "",
            "oci:",
            "oci::x",
            "oci-archive:",
            "dir:/x",
            "docker-archive:",
            "docker-daemon:",
            "A",
            "a:",
        ] {
            assert!(Location::parse(wrong).is_err(), "{wrong}");
        }
        for (text, is_right) in [
            ("r.example:5000/a", true),
            ("docker://a", true),
            ("oci:a", true),
            ("docker-archive:a.tar:name", true),
            ("a:latest", false),
            (by_digest.as_str(), false),
            ("oci-archive:a:1", false),
            ("docker-daemon:a", false),
        ] {
            assert_eq!(Location::parse_repository(text).is_ok(), is_right, "{text}");
        }
    }
}
