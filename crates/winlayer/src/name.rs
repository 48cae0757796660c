//! Names of files as Windows takes them, and what makes one dangerous.
//!
//! The tree of a layer lies on a Linux file system, and Wine walks it. A name must mean the
//! same to both: one file in that directory and nothing else.

use std::fmt;

use crate::fold::fold;

/// The longest name, in UTF-16 units (NTFS).
pub const MAX_UNITS: usize = 255;
/// The longest name, in bytes of UTF-8 (Linux).
pub const MAX_BYTES: usize = 255;

/// What is wrong with a name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum NameProblem {
    /// Not UTF-8.
    Encoding,
    /// A name of nothing, `.` or `..`.
    Dots,
    /// A slash, a backslash or a NUL within it.
    Separator,
    /// A colon: it would be a stream, or a drive.
    Colon,
    /// A character that Windows does not allow: a control character or one of `"<>|*?`.
    Character,
    /// The name of a device (`CON`, `NUL.txt`, `COM1`), which Windows opens in its place.
    Device,
    /// A dot or blank at the end, which Windows leaves off.
    Trailing,
    /// Longer than a file system holds.
    Length,
}

impl NameProblem {
    /// Whether the name could lead out of its directory. A layer with such a name is refused
    /// as a whole; any other bad name only drops its entry.
    pub fn is_escape(self) -> bool {
        matches!(self, Self::Dots | Self::Separator | Self::Colon)
    }
}

impl fmt::Display for NameProblem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Encoding => "a name that is not UTF-8",
            Self::Dots => "an empty name, `.` or `..`",
            Self::Separator => "a name with a separator",
            Self::Colon => "a name with a colon",
            Self::Character => "a name with a character that Windows does not allow",
            Self::Device => "a name that Windows takes for a device",
            Self::Trailing => "a name that ends in a dot or blank",
            Self::Length => "a name that is too long",
        })
    }
}

/// Checks one name of a path.
pub fn check(name: &str) -> Result<(), NameProblem> {
    if matches!(name, "" | "." | "..") {
        return Err(NameProblem::Dots);
    }
    if name.contains(['/', '\\', '\0']) {
        return Err(NameProblem::Separator);
    }
    if name.contains(':') {
        return Err(NameProblem::Colon);
    }
    if name.bytes().any(|byte| byte < 0x20 || b"\"<>|*?".contains(&byte)) {
        return Err(NameProblem::Character);
    }
    if name.ends_with(['.', ' ']) {
        return Err(NameProblem::Trailing);
    }
    if name.len() > MAX_BYTES || name.encode_utf16().count() > MAX_UNITS {
        return Err(NameProblem::Length);
    }
    if is_device(name) {
        return Err(NameProblem::Device);
    }
    Ok(())
}

/// Whether Windows opens a device in place of a file of this name, in whatever directory and
/// with whatever extension.
pub fn is_device(name: &str) -> bool {
    let base = name.split(['.', ':']).next().unwrap_or(name);
    let base = fold(base.trim_end_matches(' '));
    if matches!(base.as_str(), "CON" | "PRN" | "AUX" | "NUL" | "CONIN$" | "CONOUT$" | "CLOCK$") {
        return true;
    }
    let number = base.strip_prefix("COM").or_else(|| base.strip_prefix("LPT"));
    let mut digits = number.unwrap_or_default().chars();
    matches!((digits.next(), digits.next()), (Some('0'..='9' | '¹' | '²' | '³'), None))
}

/// Whether a name has the form of a generated short one (`PROGRA~1`). It is a name like any
/// other, but on Windows it may already belong to a file with a longer name.
pub fn is_short(name: &str) -> bool {
    let (base, extension) = name.split_once('.').unwrap_or((name, ""));
    let valid = |part: &str| part.is_ascii() && !part.contains([' ', '.']);
    let (Some((start, number)), true) = (base.rsplit_once('~'), base.len() <= 8) else {
        return false;
    };
    let digits = !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit());
    digits && !start.is_empty() && extension.len() <= 3 && valid(base) && valid(extension)
}

/// Checks the name of an alternate data stream.
pub fn check_stream(name: &str) -> Result<(), NameProblem> {
    if name.is_empty() {
        return Err(NameProblem::Dots);
    }
    if name.contains(['/', '\\', '\0']) {
        return Err(NameProblem::Separator);
    }
    if name.contains(':') {
        return Err(NameProblem::Colon);
    }
    if name.len() > MAX_BYTES || name.encode_utf16().count() > MAX_UNITS {
        return Err(NameProblem::Length);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names() {
        let long = "n".repeat(256);
        let wide = "中".repeat(100);
        for (name, want) in [
            ("a", None),
            ("Program Files (x86)", None),
            (".net", None),
            ("a..b", None),
            ("console", None),
            ("COM10", None),
            ("PROGRA~1", None),
            ("größe.txt", None),
            ("", Some(NameProblem::Dots)),
            (".", Some(NameProblem::Dots)),
            ("..", Some(NameProblem::Dots)),
            ("a/b", Some(NameProblem::Separator)),
            ("..\\..\\b", Some(NameProblem::Separator)),
            ("\\", Some(NameProblem::Separator)),
            ("a\0", Some(NameProblem::Separator)),
            ("C:", Some(NameProblem::Colon)),
            ("a:b", Some(NameProblem::Colon)),
            ("a\n", Some(NameProblem::Character)),
            ("a?", Some(NameProblem::Character)),
            ("a*", Some(NameProblem::Character)),
            ("a|b", Some(NameProblem::Character)),
            ("a<", Some(NameProblem::Character)),
            ("a.", Some(NameProblem::Trailing)),
            ("a ", Some(NameProblem::Trailing)),
            ("...", Some(NameProblem::Trailing)),
            (" ", Some(NameProblem::Trailing)),
            ("CON", Some(NameProblem::Device)),
            ("con", Some(NameProblem::Device)),
            ("NUL.txt", Some(NameProblem::Device)),
            ("nul .tar.gz", Some(NameProblem::Device)),
            ("Aux.c", Some(NameProblem::Device)),
            ("COM1", Some(NameProblem::Device)),
            ("lpt9.x", Some(NameProblem::Device)),
            ("COM²", Some(NameProblem::Device)),
            ("conin$", Some(NameProblem::Device)),
            (&long, Some(NameProblem::Length)),
            (&wide, Some(NameProblem::Length)),
        ] {
            assert_eq!(check(name).err(), want, "{name:?}");
        }
    }

    #[test]
    fn short_names() {
        for (name, want) in [
            ("PROGRA~1", true),
            ("progr~12.txt", true),
            ("progra~12.txt", false),
            ("A~1.B", true),
            ("PROGRA~1.html", false),
            ("PROGRAM~1", false),
            ("~1", false),
            ("a~b", false),
            ("a~", false),
            ("x~1.y.z", false),
            ("amd64~~10.0.1", false),
        ] {
            assert_eq!(is_short(name), want, "{name}");
        }
    }

    #[test]
    fn stream_names() {
        for (name, good) in [
            ("Zone.Identifier", true),
            ("s", true),
            ("WofCompressedData", true),
            ("", false),
            ("a:b", false),
            ("a:$DATA", false),
            ("..\\x", false),
            ("a/b", false),
        ] {
            assert_eq!(check_stream(name).is_ok(), good, "{name:?}");
        }
    }
}
