//! Targets of links: what place they name, and how to name it on a Linux file system.
//!
//! A link of a layer becomes a relative symbolic link that climbs no further than to the root
//! of its part, and then only descends: `..` as often as the link is deep, at most, then
//! names without `.` or `..`. Whatever else it passes on its way down is a link of the same
//! kind or a directory, so it stays inside. Targets that name anything but a file of `C:` are
//! refused: on the host, or to Wine, they could name something else.

use std::fmt;

use crate::fold::fold;
use crate::name::{self, NameProblem};
use crate::path::{LayerPath, MAX_DEPTH};

/// The longest target of a symbolic link of Linux.
const MAX_POSIX: usize = 4095;

/// Why a target cannot be linked to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum TargetProblem {
    /// Empty.
    Empty,
    /// On another drive.
    Drive(char),
    /// Relative to the current directory of a drive.
    DriveRelative,
    /// On another machine.
    Network,
    /// A path of the host by way of Wine's `\\?\unix`.
    Unix,
    /// A device or another place in the kernel's namespace.
    Device,
    /// A volume by its id.
    Volume,
    /// Above the root.
    Above,
    /// Through a name that is not allowed.
    Name(NameProblem),
    /// Too long or too deep.
    Length,
}

impl fmt::Display for TargetProblem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Empty => f.write_str("empty"),
            Self::Drive(letter) => write!(f, "on drive {letter}:"),
            Self::DriveRelative => f.write_str("relative to a drive's current directory"),
            Self::Network => f.write_str("on a network share"),
            Self::Unix => f.write_str("a path of the host"),
            Self::Device => f.write_str("a device"),
            Self::Volume => f.write_str("a volume"),
            Self::Above => f.write_str("above the root"),
            Self::Name(problem) => problem.fmt(f),
            Self::Length => f.write_str("too long or too deep"),
        }
    }
}

/// The form of a target.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Target<'a> {
    /// From the link's directory.
    Relative(&'a str),
    /// From the root of the drive that the link is on.
    Rooted(&'a str),
    /// From the root of a drive.
    Drive(char, &'a str),
    /// From the root of a drive, and taken by the letter: `.` and `..` are names.
    Verbatim(char, &'a str),
}

/// Strips a prefix in whatever case.
fn strip<'a>(text: &'a str, prefix: &str) -> Option<&'a str> {
    let start = text.get(..prefix.len())?;
    start.eq_ignore_ascii_case(prefix).then(|| &text[prefix.len()..])
}

impl<'a> Target<'a> {
    /// Tells what form a target has, or what it is besides files of a drive.
    pub fn classify(target: &'a str) -> Result<Self, TargetProblem> {
        if target.is_empty() {
            return Err(TargetProblem::Empty);
        }
        if target.contains(['/', '\0']) {
            return Err(TargetProblem::Name(NameProblem::Separator));
        }
        let verbatim = ["\\\\?\\", "\\??\\"].iter().find_map(|prefix| target.strip_prefix(prefix));
        if let Some(rest) = verbatim {
            return Self::classify_verbatim(rest);
        }
        for prefix in ["\\\\.\\", "\\Device\\", "\\DosDevices\\", "\\GLOBAL??\\", "\\\\?", "\\??"] {
            if strip(target, prefix).is_some() {
                return Err(TargetProblem::Device);
            }
        }
        if target.starts_with("\\\\") {
            return Err(TargetProblem::Network);
        }
        if let Some((letter, rest)) = drive(target) {
            return match rest.strip_prefix('\\') {
                Some(rest) => Ok(Self::Drive(letter, rest)),
                None => Err(TargetProblem::DriveRelative),
            };
        }
        Ok(target.strip_prefix('\\').map_or(Self::Relative(target), Self::Rooted))
    }

    fn classify_verbatim(rest: &'a str) -> Result<Self, TargetProblem> {
        let named = |name: &str| {
            strip(rest, name).is_some_and(|rest| rest.is_empty() || rest.starts_with('\\'))
        };
        if named("unix") {
            return Err(TargetProblem::Unix);
        }
        if named("UNC") {
            return Err(TargetProblem::Network);
        }
        if strip(rest, "Volume{").is_some() {
            return Err(TargetProblem::Volume);
        }
        let (letter, rest) = drive(rest).ok_or(TargetProblem::Device)?;
        match rest.strip_prefix('\\') {
            Some(rest) => Ok(Self::Verbatim(letter, rest)),
            None if rest.is_empty() => Err(TargetProblem::Device),
            None => Err(TargetProblem::DriveRelative),
        }
    }
}

/// The letter of a path's drive, in upper case, and what follows the colon.
fn drive(path: &str) -> Option<(char, &str)> {
    let letter = path.chars().next().filter(char::is_ascii_alphabetic)?;
    path[1..].strip_prefix(':').map(|rest| (letter.to_ascii_uppercase(), rest))
}

/// The names from the root of `C:` to what a link at `link` leads to.
pub fn resolve(link: &LayerPath, target: &str) -> Result<Vec<String>, TargetProblem> {
    let (base, rest, verbatim) = match Target::classify(target)? {
        Target::Relative(rest) => (link.parent(), rest, false),
        Target::Rooted(rest) | Target::Drive('C', rest) => (None, rest, false),
        Target::Verbatim('C', rest) => (None, rest, true),
        Target::Drive(letter, _) | Target::Verbatim(letter, _) => {
            return Err(TargetProblem::Drive(letter));
        }
    };
    let mut names: Vec<String> = match &base {
        Some(base) => base.names().map(str::to_owned).collect(),
        None => Vec::new(),
    };
    for part in rest.split('\\') {
        match part {
            "" => {}
            "." if !verbatim => {}
            ".." if !verbatim => drop(names.pop().ok_or(TargetProblem::Above)?),
            part => {
                name::check(part).map_err(TargetProblem::Name)?;
                names.push(part.to_owned());
            }
        }
    }
    if names.len() > MAX_DEPTH {
        return Err(TargetProblem::Length);
    }
    Ok(names)
}

/// The target of a symbolic link of Linux, placed at `link`, that leads to the file with these
/// names from the root.
pub fn to_posix<S: AsRef<str>>(link: &LayerPath, names: &[S]) -> Result<String, TargetProblem> {
    let holder = link.parent().ok_or(TargetProblem::Above)?;
    let from: Vec<&str> = holder.names().collect();
    let common = from.iter().zip(names).take_while(|(a, b)| fold(a) == fold(b.as_ref())).count();
    let up = std::iter::repeat_n("..", from.len() - common);
    let down = names[common..].iter().map(AsRef::as_ref);
    let parts: Vec<&str> = up.chain(down).collect();
    let text = if parts.is_empty() { ".".to_owned() } else { parts.join("/") };
    if text.len() > MAX_POSIX { Err(TargetProblem::Length) } else { Ok(text) }
}

/// The target of a Windows link for a symbolic link of Linux at `link`: relative, and inside.
pub fn from_posix(link: &LayerPath, target: &str) -> Result<String, TargetProblem> {
    if target.is_empty() {
        return Err(TargetProblem::Empty);
    }
    if target.starts_with('/') {
        return Err(TargetProblem::Unix);
    }
    if target.contains('\\') {
        return Err(TargetProblem::Name(NameProblem::Separator));
    }
    let target = target.replace('/', "\\");
    resolve(link, &target)?;
    Ok(target)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::path::Part;
    use proptest::prelude::*;

    fn at(path: &str) -> LayerPath {
        LayerPath::new(Part::Files, path).unwrap()
    }

    #[test]
    fn good_targets() {
        for (link, target, want) in [
            ("l", "a", "a"),
            ("l", "C:\\", "."),
            ("l", "c:\\Windows\\System32", "Windows/System32"),
            ("a/b/l", "C:\\x\\y", "../../x/y"),
            ("a/b/l", "C:\\a\\y", "../y"),
            ("a/b/l", "C:\\a\\b", "."),
            ("a/b/l", "C:\\A\\B\\c", "c"),
            ("a/b/l", "..\\c", "../c"),
            ("a/b/l", "..\\..", "../.."),
            ("a/b/l", "..\\b\\.\\c\\", "c"),
            ("a/b/l", "\\x", "../../x"),
            ("a/b/l", "\\\\?\\C:\\x", "../../x"),
            ("a/b/l", "\\??\\C:\\x", "../../x"),
            ("Users/l", "C:\\ProgramData", "../ProgramData"),
            ("l", "C:\\a\\..\\b", "b"),
        ] {
            let names = resolve(&at(link), target).unwrap();
            assert_eq!(to_posix(&at(link), &names).unwrap(), want, "{link} -> {target}");
        }
    }

    #[test]
    fn bad_targets() {
        use TargetProblem as T;
        for (target, want) in [
            ("", T::Empty),
            ("/etc/passwd", T::Name(NameProblem::Separator)),
            ("a\0", T::Name(NameProblem::Separator)),
            ("..\\..\\..", T::Above),
            ("..\\..\\..\\a\\b", T::Above),
            ("C:\\..\\..\\etc", T::Above),
            ("\\..\\etc", T::Above),
            ("\\\\?\\C:\\..\\etc", T::Name(NameProblem::Dots)),
            ("\\\\?\\C:\\.\\etc", T::Name(NameProblem::Dots)),
            ("Z:\\etc", T::Drive('Z')),
            ("z:\\", T::Drive('Z')),
            ("\\??\\Z:\\etc", T::Drive('Z')),
            ("\\\\?\\d:\\x", T::Drive('D')),
            ("C:", T::DriveRelative),
            ("C:x", T::DriveRelative),
            ("Z:etc", T::DriveRelative),
            ("\\\\?\\C:x", T::DriveRelative),
            ("\\\\?\\C:", T::Device),
            ("\\\\?\\unix\\etc\\passwd", T::Unix),
            ("\\\\?\\UNIX\\etc", T::Unix),
            ("\\??\\unix\\etc", T::Unix),
            ("\\??\\unix", T::Unix),
            ("\\\\server\\share", T::Network),
            ("\\\\?\\UNC\\server\\share", T::Network),
            ("\\??\\unc\\s\\s", T::Network),
            ("\\\\.\\PhysicalDrive0", T::Device),
            ("\\\\.\\pipe\\x", T::Device),
            ("\\\\?\\GLOBALROOT\\Device\\Mup", T::Device),
            ("\\\\?\\pipe\\x", T::Device),
            ("\\\\?", T::Device),
            ("\\\\?\\", T::Device),
            ("\\??x", T::Device),
            ("\\Device\\HarddiskVolume1\\x", T::Device),
            ("\\device\\x", T::Device),
            ("\\DosDevices\\Z:\\", T::Device),
            ("\\GLOBAL??\\Z:\\", T::Device),
            ("\\\\?\\Volume{01234567-89ab-cdef-0123-456789abcdef}\\", T::Volume),
            ("a:b", T::DriveRelative),
            ("x\\a:b", T::Name(NameProblem::Colon)),
            ("NUL", T::Name(NameProblem::Device)),
            ("C:\\CON\\x", T::Name(NameProblem::Device)),
            ("x.\\y", T::Name(NameProblem::Trailing)),
            (".. \\..\\x", T::Name(NameProblem::Trailing)),
            ("...\\x", T::Name(NameProblem::Trailing)),
        ] {
            assert_eq!(resolve(&at("a/b/l"), target), Err(want), "{target}");
        }
    }

    #[test]
    fn from_linux() {
        for (target, want) in [
            ("../x", Ok("..\\x")),
            ("a/b", Ok("a\\b")),
            ("/etc", Err(TargetProblem::Unix)),
            ("../../../etc", Err(TargetProblem::Above)),
            ("a\\b", Err(TargetProblem::Name(NameProblem::Separator))),
            ("c:", Err(TargetProblem::DriveRelative)),
        ] {
            assert_eq!(from_posix(&at("a/b/l"), target), want.map(str::to_owned), "{target}");
        }
    }

    proptest! {
        #[test]
        fn never_outside(
            link in "[ab]{1,2}(/[ab]{1,2}){0,3}",
            target in "[\\\\.:a-cCZ?/ ux]{0,24}",
        ) {
            let link = at(&link);
            if let Ok(names) = resolve(&link, &target) {
                let posix = to_posix(&link, &names).unwrap();
                let mut depth = link.names().count() - 1;
                let mut down = false;
                for part in posix.split('/') {
                    match part {
                        "." => prop_assert_eq!(&posix, "."),
                        ".." => {
                            prop_assert!(!down && depth > 0, "{} -> {}", target, posix);
                            depth -= 1;
                        }
                        part => {
                            down = true;
                            prop_assert!(name::check(part).is_ok());
                        }
                    }
                }
            }
        }
    }
}
