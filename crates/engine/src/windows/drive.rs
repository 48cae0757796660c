//! Paths on a container's drive C:, as clients write them and as its files are spelled.

use std::cell::RefCell;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::path::PathBuf;

use rustix::fs::{Mode, OFlags};
use silo_store::Snapshot;
use silo_store::tree::{EntryKind, EntryNames};
use silo_types::Error;
use silo_windows::path::{Speller, WindowsPath, check_name};

const FOLDER: OFlags = OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::CLOEXEC);

fn failed(error: impl Into<io::Error>) -> Error {
    Error::internal(format!("read drive C: {}", error.into()))
}

/// How a path of a container is spelled on its drive C:, relative to the root of C:.
pub(super) fn spelled(drive: &Snapshot, names: &[String]) -> Result<PathBuf, Error> {
    let layers = std::iter::once(&drive.upper)
        .chain(&drive.lowers)
        .map(|path| rustix::fs::open(path, FOLDER, Mode::empty()).map_err(failed))
        .collect::<Result<Vec<_>, _>>()?;
    let layers: Vec<_> = layers.iter().map(AsFd::as_fd).collect();
    silo_windows::path::spelling(&layers, names).map_err(failed)
}

/// What a client's path means on a drive C: whose root is held: as it is spelled there, with `/`.
pub(crate) fn locate(root: BorrowedFd<'_>, path: &str) -> Result<String, Error> {
    let parsed = WindowsPath::parse(path)
        .or_else(|error| WindowsPath::parse(&format!("C:\\{path}")).map_err(|_| error))
        .map_err(|error| Error::invalid(error.to_string()))?;
    if parsed.drive != 'C' {
        return Err(Error::invalid(other_drive(path, parsed.drive)));
    }
    let root = silo_sys::path::reopen(root, FOLDER).map_err(failed)?;
    let spelled = silo_windows::path::spelling(&[root.as_fd()], &parsed.names).map_err(failed)?;
    let mut text = format!("/{}", spelled.display());
    // What `docker cp` tells a folder's content by.
    if path.ends_with(['\\', '/']) && !parsed.is_root() {
        text.push('/');
    } else if path.ends_with("\\.") || path.ends_with("/.") {
        text.push_str("/.");
    }
    Ok(text)
}

/// The last name of a path, as the client spells it; none for a drive's root.
pub(crate) fn last_name(path: &str) -> Option<String> {
    let parsed = WindowsPath::parse(path).or_else(|_| WindowsPath::parse(&format!("C:\\{path}")));
    parsed.ok()?.names.pop()
}

fn other_drive(path: &str, drive: char) -> String {
    format!("{path}: only drive C: can be copied from and to; {drive}: is a volume")
}

/// Where the entries of a tar stream go that a client copies into a folder of a drive.
///
/// On Windows a backslash separates names and names have no case, so both is so here: no file
/// could have the name otherwise. A client on Linux takes `C:\\folder\\name` for one name, and
/// sends it as the name of an entry for the root; there, and only there, it is the whole path.
#[derive(Debug)]
pub(crate) struct Names {
    speller: RefCell<Speller>,
    is_root: bool,
    /// The client's last name of this kind, whose folder is there.
    checked: RefCell<String>,
}

impl Names {
    /// Those for entries that go into `folder`, which may be the root of the drive.
    pub(crate) fn new(folder: BorrowedFd<'_>, is_root: bool) -> Result<Self, Error> {
        let folder = silo_sys::path::reopen(folder, FOLDER).map_err(failed)?;
        let speller = RefCell::new(Speller::new(folder));
        Ok(Self { speller, is_root, checked: RefCell::new(String::new()) })
    }

    /// The names of an entry's path.
    fn parse(&self, name: &str) -> Result<Vec<String>, String> {
        let mut below = name;
        if self.is_root && name.as_bytes().get(1) == Some(&b':') {
            let (drive, rest) = name.split_at(2);
            if !drive.eq_ignore_ascii_case("c:") {
                let drive = drive.chars().next().unwrap_or_default();
                return Err(other_drive(name, drive.to_ascii_uppercase()));
            }
            if !rest.starts_with(['\\', '/']) {
                return Err("it is not an absolute Windows path: write it as C:\\folder".into());
            }
            below = rest;
        }
        let mut names: Vec<String> = Vec::new();
        for part in below.split(['\\', '/']) {
            match part {
                "" | "." => {}
                ".." => {
                    names.pop().ok_or("it is outside of the root")?;
                }
                part => {
                    check_name(part).map_err(|problem| format!("{part:?} is {problem}"))?;
                    names.push(part.to_owned());
                }
            }
        }
        Ok(names)
    }

    /// Whether the folder is there of what a client took for one name.
    fn check_folder(&self, head: &str) -> Result<(), String> {
        if *self.checked.borrow() == head {
            return Ok(());
        }
        let mut names = self.parse(head)?;
        names.pop();
        let mut speller = self.speller.borrow_mut();
        let spelled = speller.spell(&names).map_err(|error| error.to_string())?;
        let flags = OFlags::PATH | OFlags::DIRECTORY;
        silo_sys::path::open_in_root(speller.root(), spelled, flags, Mode::empty())
            .map_err(|_| format!("there is no folder C:\\{}", names.join("\\")))?;
        head.clone_into(&mut self.checked.borrow_mut());
        Ok(())
    }
}

impl EntryNames for Names {
    fn place(&self, name: &[u8], kind: EntryKind) -> Result<Vec<u8>, String> {
        let name = std::str::from_utf8(name).map_err(|_| "its name is not UTF-8")?;
        let (head, rest) = name.split_once('/').unwrap_or((name, ""));
        if self.is_root && head.contains('\\') {
            if head.ends_with('\\') && rest.is_empty() && kind != EntryKind::Directory {
                return Err("no such directory".into()); // docker wording
            }
            self.check_folder(head)?;
        }
        let names = self.parse(name)?;
        let spelled = self.speller.borrow_mut().spell(&names).map_err(|error| error.to_string())?;
        Ok(spelled.into_os_string().into_encoded_bytes())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_have_windows_names() {
        let drive = tempfile::tempdir().unwrap();
        fs_err::create_dir_all(drive.path().join("Users/Public")).unwrap();
        let open = |path: &str| silo_sys::path::open_root(drive.path().join(path)).unwrap();
        let names = |path: &str| Names::new(open(path).as_fd(), path.is_empty()).unwrap();
        let (root, below) = (names(""), names("Users"));
        let place = |names: &Names, name: &str| {
            let kind = if name.ends_with('/') { EntryKind::Directory } else { EntryKind::Regular };
            names.place(name.as_bytes(), kind).map(|path| String::from_utf8(path).unwrap())
        };
        for (name, want) in [
            ("c:\\users\\PUBLIC\\new.txt", "Users/Public/new.txt"),
            ("C:\\Users\\new/", "Users/new"),
            ("C:\\Users\\new/deep/a", "Users/new/deep/a"),
            ("C:\\Users\\new\\/x", "Users/new/x"),
            ("\\users\\a", "Users/a"),
            ("users\\A", "Users/a"),
            ("new/B\\c", "new/B/c"),
            ("./USERS", "Users"),
        ] {
            assert_eq!(place(&root, name).as_deref(), Ok(want), "{name}");
        }
        for (name, why) in [
            ("C:\\none\\x", "no folder C:\\none"),
            ("C:\\none\\/x", ""),
            ("C:\\x\\", "no such directory"),
            ("D:\\x", "only drive C:"),
            ("C:x", "not an absolute"),
            ("..\\x", "outside"),
            ("a:b", "only drive C:"),
            ("nul", "device"),
            ("x.", "dot"),
        ] {
            let outcome = place(&root, name);
            match why {
                "" => assert_eq!(outcome.as_deref(), Ok("none/x"), "{name}"),
                why => assert!(outcome.clone().unwrap_err().contains(why), "{name}: {outcome:?}"),
            }
        }
        for (name, want) in [("public\\x", "Public/x"), ("a/../b", "b"), ("/c", "c")] {
            assert_eq!(place(&below, name).as_deref(), Ok(want), "{name}");
        }
        for name in ["C:\\Users\\x", "..\\x", "a\\..\\..\\x", "../x"] {
            assert!(place(&below, name).is_err(), "{name}");
        }
        assert!(root.place(b"\xff", EntryKind::Regular).is_err());
    }

    #[test]
    fn clients_paths_lead_to_places() {
        let drive = tempfile::tempdir().unwrap();
        fs_err::create_dir_all(drive.path().join("Users/Public")).unwrap();
        let root = silo_sys::path::open_root(drive.path()).unwrap();
        for (path, place, last) in [
            ("C:\\users\\PUBLIC", "/Users/Public", Some("PUBLIC")),
            ("users/public/", "/Users/Public/", Some("public")),
            ("c:/Users\\.", "/Users/.", Some("Users")),
            ("C:\\", "/", None),
            (".", "/", None),
            ("/none", "/none", Some("none")),
        ] {
            assert_eq!(locate(root.as_fd(), path).unwrap(), place, "{path}");
            assert_eq!(last_name(path).as_deref(), last, "{path}");
        }
        assert!(locate(root.as_fd(), "D:\\x").unwrap_err().message().contains("drive C:"));
    }
}
