//! Paths of a layer's tar: which part of the layer, and which file of it.

use std::fmt;

use crate::fold::fold;
use crate::name::{self, NameProblem};

/// The deepest path.
pub const MAX_DEPTH: usize = 256;
/// The longest path in bytes.
pub const MAX_PATH: usize = 4096;

/// A part of a layer: what its top-level name says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Part {
    /// `Files/`: the root of `C:`.
    Files,
    /// `Hives/`: registry deltas.
    Hives,
    /// `UtilityVM`: what surrounds the next.
    Utility,
    /// `UtilityVM/Files/`: the boot volume of a utility VM.
    UtilityFiles,
}

impl Part {
    /// Its name in a layer's tar.
    pub fn name(self) -> &'static str {
        match self {
            Self::Files => "Files",
            Self::Hives => "Hives",
            Self::Utility => "UtilityVM",
            Self::UtilityFiles => "UtilityVM/Files",
        }
    }

    /// Whether whiteouts, links and streams have a place there.
    pub fn is_tree(self) -> bool {
        matches!(self, Self::Files | Self::UtilityFiles)
    }
}

/// The path of a file in a layer, spelled as in its tar, its names checked.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LayerPath {
    part: Part,
    /// Names with `/` between them; empty for the part itself.
    inner: String,
}

/// Why a name of a tar entry is no path of a layer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum PathProblem {
    /// A name within it is bad.
    Name(NameProblem),
    /// Absolute.
    Absolute,
    /// Not below one of the parts of a layer.
    Elsewhere,
    /// Too long or too deep.
    Length,
}

impl PathProblem {
    /// Whether it could lead to a place outside of the layer.
    pub fn is_escape(self) -> bool {
        match self {
            Self::Name(problem) => problem.is_escape(),
            Self::Absolute => true,
            Self::Elsewhere | Self::Length => false,
        }
    }
}

impl fmt::Display for PathProblem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Name(problem) => problem.fmt(f),
            Self::Absolute => f.write_str("an absolute path"),
            Self::Elsewhere => f.write_str("a path outside of Files, Hives and UtilityVM"),
            Self::Length => f.write_str("a path that is too long or too deep"),
        }
    }
}

impl LayerPath {
    /// The path of a part itself.
    pub fn root(part: Part) -> Self {
        Self { part, inner: String::new() }
    }

    /// Checks a path below a part, names with `/` between them.
    pub fn new(part: Part, inner: &str) -> Result<Self, PathProblem> {
        let names = if inner.is_empty() { Vec::new() } else { inner.split('/').collect() };
        for name in &names {
            name::check(name).map_err(PathProblem::Name)?;
        }
        if names.len() > MAX_DEPTH || inner.len() > MAX_PATH {
            return Err(PathProblem::Length);
        }
        Ok(Self { part, inner: inner.to_owned() })
    }

    /// A path of names that were checked.
    pub(crate) fn of_checked(part: Part, names: &[&str]) -> Self {
        Self { part, inner: names.join("/") }
    }

    /// Reads the name of a tar entry. A slash at the end, empty names and `.` in between are
    /// left off, as importers do; the first names must be spelled exactly. What follows a
    /// colon in the last name is given apart: the name of a stream.
    pub fn parse(name: &[u8]) -> Result<(Self, Option<String>), PathProblem> {
        if name.starts_with(b"/") {
            return Err(PathProblem::Absolute);
        }
        let text = std::str::from_utf8(name).map_err(|_| Self::escape_of(name))?;
        let mut names: Vec<&str> =
            text.split('/').filter(|name| !matches!(*name, "" | ".")).collect();
        // Checked before anything else: a bad name must not hide behind a lesser problem.
        let dangerous = |name: &&str| *name == ".." || name.contains(['\\', '\0']);
        if names.iter().any(dangerous) {
            let dots = names.contains(&"..");
            let problem = if dots { NameProblem::Dots } else { NameProblem::Separator };
            return Err(PathProblem::Name(problem));
        }
        let mut stream = None;
        if let Some((last, holders)) = names.split_last_mut() {
            if holders.iter().any(|name| name.contains(':')) {
                return Err(PathProblem::Name(NameProblem::Colon));
            }
            if let Some((owner, rest)) = last.split_once(':') {
                stream = Some(rest.to_owned());
                *last = owner;
            }
        }
        let (part, below) = match names.as_slice() {
            ["Files", below @ ..] => (Part::Files, below),
            ["Hives", below @ ..] => (Part::Hives, below),
            ["UtilityVM", "Files", below @ ..] => (Part::UtilityFiles, below),
            ["UtilityVM"] => (Part::Utility, &[][..]),
            _ => return Err(PathProblem::Elsewhere),
        };
        if let Some(stream) = &mut stream {
            // Some writers add the type of the stream.
            if let Some(plain) = stream.strip_suffix(":$DATA") {
                *stream = plain.to_owned();
            }
            name::check_stream(stream).map_err(PathProblem::Name)?;
        }
        Ok((Self::new(part, &below.join("/"))?, stream))
    }

    /// A name that is not UTF-8 drops its entry, but not if it is dangerous besides.
    fn escape_of(name: &[u8]) -> PathProblem {
        let dots = name.split(|byte| *byte == b'/').any(|name| name == b"..");
        PathProblem::Name(if dots {
            NameProblem::Dots
        } else if name.contains(&b'\\') {
            NameProblem::Separator
        } else {
            NameProblem::Encoding
        })
    }

    /// The part that it is in.
    pub fn part(&self) -> Part {
        self.part
    }

    /// The path below the part, names with `/` between them.
    pub fn inner(&self) -> &str {
        &self.inner
    }

    /// Its names below the part.
    pub fn names(&self) -> impl DoubleEndedIterator<Item = &str> + Clone {
        self.inner.split('/').filter(|name| !name.is_empty())
    }

    /// Its last name; `None` for the part itself.
    pub fn file_name(&self) -> Option<&str> {
        self.names().next_back()
    }

    /// The directory that holds it; `None` for the part itself.
    pub fn parent(&self) -> Option<Self> {
        if self.inner.is_empty() {
            return None;
        }
        let end = self.inner.rfind('/').unwrap_or(0);
        Some(Self { part: self.part, inner: self.inner[..end].to_owned() })
    }

    /// A file in this directory.
    pub fn join(&self, name: &str) -> Result<Self, PathProblem> {
        name::check(name).map_err(PathProblem::Name)?;
        let slash = if self.inner.is_empty() { "" } else { "/" };
        Self::new(self.part, &format!("{}{slash}{name}", self.inner))
    }

    /// The same for all spellings of a path.
    pub fn folded(&self) -> Self {
        Self { part: self.part, inner: fold(&self.inner) }
    }

    /// The name of its tar entry, without a slash at the end.
    pub fn to_tar(&self) -> String {
        self.to_string()
    }
}

impl fmt::Display for LayerPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.part.name())?;
        if self.inner.is_empty() { Ok(()) } else { write!(f, "/{}", self.inner) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn good_paths() {
        for (name, want, stream) in [
            ("Files", "Files", None),
            ("Files/", "Files", None),
            ("./Files//a/./b/", "Files/a/b", None),
            ("Files/Windows/System32", "Files/Windows/System32", None),
            ("Files/a:s", "Files/a", Some("s")),
            ("Files/a:s:$DATA", "Files/a", Some("s")),
            ("Files:s", "Files", Some("s")),
            ("Hives/System_Delta", "Hives/System_Delta", None),
            ("UtilityVM", "UtilityVM", None),
            ("UtilityVM/Files/EFI", "UtilityVM/Files/EFI", None),
        ] {
            let (path, found) = LayerPath::parse(name.as_bytes()).unwrap();
            assert_eq!((path.to_tar().as_str(), found.as_deref()), (want, stream), "{name}");
        }
    }

    #[test]
    fn bad_paths() {
        use NameProblem as N;
        use PathProblem as P;
        for (name, want) in [
            (&b"/Files/a"[..], P::Absolute),
            (b"Files/../a", P::Name(N::Dots)),
            (b"../Files", P::Name(N::Dots)),
            (b"other/..", P::Name(N::Dots)),
            (b"Files/a\\..\\..\\..\\etc", P::Name(N::Separator)),
            (b"\\\\?\\unix\\etc", P::Name(N::Separator)),
            (b"Z:\\etc", P::Name(N::Separator)),
            (b"Files/Z:/etc", P::Name(N::Colon)),
            (b"Files/a:b:c", P::Name(N::Colon)),
            (b"Files/a:", P::Name(N::Dots)),
            (b"Files/CON", P::Name(N::Device)),
            (b"Files/NUL/x", P::Name(N::Device)),
            (b"Files/CON:s", P::Name(N::Device)),
            (b"Files/a./b", P::Name(N::Trailing)),
            (b"Files/a /b", P::Name(N::Trailing)),
            (b"Files/.. /b", P::Name(N::Trailing)),
            (b"Files/\xff", P::Name(N::Encoding)),
            (b"\xff/../x", P::Name(N::Dots)),
            (b"files/a", P::Elsewhere),
            (b"etc/passwd", P::Elsewhere),
            (b"UtilityVM/x", P::Elsewhere),
            (b".", P::Elsewhere),
            (b"", P::Elsewhere),
        ] {
            let shown = String::from_utf8_lossy(name);
            assert_eq!(LayerPath::parse(name), Err(want), "{shown}");
        }
        let deep = format!("Files{}", "/d".repeat(MAX_DEPTH + 1));
        assert_eq!(LayerPath::parse(deep.as_bytes()), Err(PathProblem::Length));
    }

    #[test]
    fn relations() {
        let path = LayerPath::new(Part::Files, "a/B").unwrap();
        assert_eq!(path.parent().unwrap().to_tar(), "Files/a");
        assert_eq!(path.parent().unwrap().parent(), Some(LayerPath::root(Part::Files)));
        assert_eq!(LayerPath::root(Part::Files).parent(), None);
        assert_eq!(path.file_name(), Some("B"));
        assert_eq!(path.folded().to_tar(), "Files/A/B");
        assert_eq!(LayerPath::root(Part::Hives).join("x").unwrap().to_tar(), "Hives/x");
        assert!(path.join("..").is_err());
    }
}
