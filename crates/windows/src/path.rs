//! Paths of a Windows container as clients write them, and what they are in its files.

use std::collections::HashMap;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{Dir, FileType, Mode, OFlags};
use rustix::io::Errno;
use silo_winlayer::fold::fold;
pub use silo_winlayer::name::check as check_name;
use silo_winlayer::name::{self, NameProblem};

/// A path on one of a container's drives, without `.` and `..`.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct WindowsPath {
    /// `A` to `Z`.
    pub drive: char,
    /// The names below the drive's root.
    pub names: Vec<String>,
}

/// Why a path cannot be one of a container.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// It does not begin with a drive.
    #[error("{0:?} is not an absolute Windows path: write it as C:\\folder")]
    NotAbsolute(String),
    /// A name that Windows does not permit.
    #[error("{path:?} is not a Windows path: {name:?} is {reason}")]
    Name {
        /// The whole.
        path: String,
        /// What is wrong in it.
        name: String,
        /// Why.
        reason: NameProblem,
    },
}

impl WindowsPath {
    /// Reads an absolute path with either slash: `C:\data`, `d:/x`. `\data` and `/data` are on C:.
    pub fn parse(path: &str) -> Result<Self, Error> {
        let mut characters = path.chars();
        let (drive, rest) = match (characters.next(), characters.next()) {
            (Some(letter), Some(':')) if letter.is_ascii_alphabetic() => {
                (letter.to_ascii_uppercase(), &path[2..])
            }
            (Some('\\' | '/'), second) if !matches!(second, Some('\\' | '/')) => ('C', path),
            _ => return Err(Error::NotAbsolute(path.to_owned())),
        };
        if !rest.is_empty() && !rest.starts_with(['\\', '/']) {
            return Err(Error::NotAbsolute(path.to_owned()));
        }
        let mut names: Vec<String> = Vec::new();
        for name in rest.split(['\\', '/']) {
            match name {
                "" | "." => {}
                ".." => drop(names.pop()),
                name => {
                    name::check(name).map_err(|reason| Error::Name {
                        path: path.to_owned(),
                        name: name.to_owned(),
                        reason,
                    })?;
                    names.push(name.to_owned());
                }
            }
        }
        Ok(Self { drive, names })
    }

    /// A path that may be relative to a folder.
    pub fn join(&self, path: &str) -> Result<Self, Error> {
        if path.starts_with(['\\', '/']) || path.chars().nth(1) == Some(':') {
            return Self::parse(path);
        }
        Self::parse(&format!("{self}\\{path}"))
    }

    /// Whether it is the root of its drive.
    pub fn is_root(&self) -> bool {
        self.names.is_empty()
    }

    /// Whether both mean the same place.
    pub fn is(&self, other: &Self) -> bool {
        self.drive == other.drive
            && self.names.len() == other.names.len()
            && self.names.iter().zip(&other.names).all(|(a, b)| same(a, b))
    }
}

impl std::fmt::Display for WindowsPath {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "{}:\\{}", self.drive, self.names.join("\\"))
    }
}

/// Whether two names are the same to Windows.
pub fn same(a: &str, b: &str) -> bool {
    a == b || fold(a) == fold(b)
}

/// Finds how a path is spelled in the trees `layers`, the topmost first, which lie over each
/// other. What is not there keeps the spelling that was asked for. Links are not followed: what
/// is below one counts as not there.
pub fn spelling(layers: &[BorrowedFd<'_>], names: &[String]) -> io::Result<PathBuf> {
    let mut held: Vec<OwnedFd> = Vec::new();
    for layer in layers {
        held.push(rustix::io::fcntl_dupfd_cloexec(layer, 3)?);
    }
    let mut path = PathBuf::new();
    for name in names {
        let mut found: Option<String> = None;
        for folder in &held {
            match entry(folder.as_fd(), name)? {
                Some(exact) if exact == *name => {
                    found = Some(exact);
                    break;
                }
                other => found = found.or(other),
            }
        }
        let spelled = found.unwrap_or_else(|| name.clone());
        let flags = OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::RDONLY;
        held = held
            .iter()
            .filter_map(|folder| match rustix::fs::openat(folder, &spelled, flags, Mode::empty()) {
                Ok(next) => Some(Ok(next)),
                Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP | Errno::NXIO) => None,
                Err(error) => Some(Err(error)),
            })
            .collect::<Result<_, _>>()?;
        path.push(spelled);
    }
    Ok(path)
}

/// Most folders and names that a [`Speller`] keeps in mind.
const KEPT_FOLDERS: usize = 256;
const KEPT_NAMES: usize = 1 << 18;

/// Finds how many paths below one folder are spelled, and reads each folder on the way once.
/// Names that were asked for count as there from then on.
#[derive(Debug)]
pub struct Speller {
    root: OwnedFd,
    /// Spellings by folder and folded name.
    known: HashMap<PathBuf, HashMap<String, String>>,
    names: usize,
}

impl Speller {
    /// One for the paths below `root`.
    pub fn new(root: OwnedFd) -> Self {
        Self { root, known: HashMap::new(), names: 0 }
    }

    /// The folder below which it looks.
    pub fn root(&self) -> BorrowedFd<'_> {
        self.root.as_fd()
    }

    /// How a path is spelled; what is not there, or is below a link, as it was asked for.
    pub fn spell(&mut self, names: &[String]) -> io::Result<PathBuf> {
        let mut path = PathBuf::new();
        for name in names {
            let spelled = self.name(&path, name)?;
            path.push(spelled);
        }
        Ok(path)
    }

    fn name(&mut self, folder: &Path, name: &str) -> io::Result<String> {
        if !self.known.contains_key(folder) {
            let place = folder.join(name);
            let flags = OFlags::PATH | OFlags::NOFOLLOW;
            if silo_sys::path::open_in_root(&self.root, place, flags, Mode::empty()).is_ok() {
                return Ok(name.to_owned());
            }
            if self.known.len() >= KEPT_FOLDERS || self.names >= KEPT_NAMES {
                self.known.clear();
                self.names = 0;
            }
            let list = self.list(folder)?;
            self.names += list.len();
            self.known.insert(folder.to_owned(), list);
        }
        let Some(list) = self.known.get_mut(folder) else { return Ok(name.to_owned()) };
        self.names += 1;
        Ok(list.entry(fold(name)).or_insert_with(|| name.to_owned()).clone())
    }

    fn list(&self, folder: &Path) -> io::Result<HashMap<String, String>> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY;
        let opened =
            silo_sys::path::open_in_root_no_links(&self.root, folder, flags, Mode::empty());
        let Ok(opened) = opened else { return Ok(HashMap::new()) };
        let mut list = HashMap::new();
        let mut entries = Dir::read_from(opened)?;
        while let Some(entry) = entries.read() {
            if let Ok(name) = entry?.file_name().to_str() {
                list.insert(fold(name), name.to_owned());
            }
        }
        Ok(list)
    }
}

/// How a name is spelled in a folder: exactly so, or but for the case.
fn entry(folder: BorrowedFd<'_>, name: &str) -> io::Result<Option<String>> {
    match rustix::fs::statat(folder, name, rustix::fs::AtFlags::SYMLINK_NOFOLLOW) {
        // A whiteout of overlayfs.
        Ok(stat)
            if FileType::from_raw_mode(stat.st_mode) == FileType::CharacterDevice
                && stat.st_rdev == 0 => {}
        Ok(_) => return Ok(Some(name.to_owned())),
        Err(Errno::NOENT) => {}
        Err(error) => return Err(error.into()),
    }
    let mut list = Dir::read_from(folder)?;
    while let Some(entry) = list.read() {
        let entry = entry?;
        if entry.file_type() == FileType::CharacterDevice {
            continue;
        }
        if let Ok(spelled) = entry.file_name().to_str()
            && same(spelled, name)
        {
            return Ok(Some(spelled.to_owned()));
        }
    }
    Ok(None)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths() {
        for (text, shown) in [
            ("C:\\data", "C:\\data"),
            ("c:/data//x/", "C:\\data\\x"),
            ("D:", "D:\\"),
            ("\\app\\..\\b", "C:\\b"),
            ("C:\\..\\..\\x", "C:\\x"),
            ("/srv", "C:\\srv"),
        ] {
            assert_eq!(WindowsPath::parse(text).unwrap().to_string(), shown, "{text}");
        }
        for bad in [
            "",
            "data",
            "C:data",
            "\\\\server\\share",
            "//x",
            "C:\\con",
            "C:\\a\\NUL.txt",
            "C:\\a:b",
            "C:\\x.",
            "C:\\x ",
            "C:\\a*",
            "\\\\?\\unix\\etc",
            "\\\\.\\pipe\\x",
            "C:\\COM1",
            "C:\\a\u{1}",
        ] {
            assert!(WindowsPath::parse(bad).is_err(), "{bad}");
        }
        let work = WindowsPath::parse("C:\\app").unwrap();
        assert_eq!(work.join("src\\x").unwrap().to_string(), "C:\\app\\src\\x");
        assert_eq!(work.join("D:\\y").unwrap().to_string(), "D:\\y");
        assert!(work.is(&WindowsPath::parse("c:\\APP").unwrap()));
    }

    #[test]
    fn spelling_is_that_of_the_files() {
        let (top, low) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        fs_err::create_dir_all(top.path().join("Users/New")).unwrap();
        fs_err::create_dir_all(low.path().join("Users/Public/Desktop")).unwrap();
        fs_err::create_dir_all(low.path().join("Windows")).unwrap();
        std::os::unix::fs::symlink("/etc", low.path().join("Link")).unwrap();
        let open = |dir: &tempfile::TempDir| {
            rustix::fs::open(dir.path(), OFlags::RDONLY | OFlags::DIRECTORY, Mode::empty()).unwrap()
        };
        let (a, b) = (open(&top), open(&low));
        for (asked, found) in [
            ("users\\new\\x", "Users/New/x"),
            ("USERS\\PUBLIC\\desktop", "Users/Public/Desktop"),
            ("windows\\System32", "Windows/System32"),
            ("link\\passwd", "Link/passwd"),
            ("none", "none"),
        ] {
            let path = WindowsPath::parse(&format!("C:\\{asked}")).unwrap();
            let spelled = spelling(&[a.as_fd(), b.as_fd()], &path.names).unwrap();
            assert_eq!(spelled, PathBuf::from(found), "{asked}");
        }
    }

    #[test]
    fn many_paths_are_spelled_alike() {
        let top = tempfile::tempdir().unwrap();
        fs_err::create_dir_all(top.path().join("Users/Public")).unwrap();
        std::os::unix::fs::symlink("Users", top.path().join("Link")).unwrap();
        let flags = OFlags::RDONLY | OFlags::DIRECTORY;
        let root = rustix::fs::open(top.path(), flags, Mode::empty()).unwrap();
        let mut speller = Speller::new(root);
        for (asked, found) in [
            ("Users", "Users"),
            ("USERS\\public\\a", "Users/Public/a"),
            ("users\\Public\\A\\B", "Users/Public/a/B"),
            ("users\\Public\\A\\b", "Users/Public/a/B"),
            ("link\\x", "Link/x"),
            ("New", "New"),
            ("new", "New"),
        ] {
            let path = WindowsPath::parse(&format!("C:\\{asked}")).unwrap();
            assert_eq!(speller.spell(&path.names).unwrap(), PathBuf::from(found), "{asked}");
        }
    }
}
