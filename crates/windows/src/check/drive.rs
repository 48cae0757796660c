//! Files of a drive C:, or of a directory, as Windows finds them: without regard to case, and
//! never beyond the root.

use std::collections::{BTreeMap, HashMap};
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{Dir, FileType, Mode, OFlags};
use silo_sys::path;
use silo_winlayer::fold::fold;

/// Most entries of a directory that are looked at.
const MAX_ENTRIES: usize = 100_000;
/// Most directories above each other.
const MAX_DEPTH: usize = 64;
/// Most entries that a walk looks at.
const MAX_WALK: usize = 400_000;

/// A tree of files whose root is held.
#[derive(Debug)]
pub struct Drive {
    root: OwnedFd,
    /// Spellings of the names in a directory, by their folded form.
    listings: HashMap<PathBuf, HashMap<String, String>>,
}

impl Drive {
    /// The tree below a directory.
    pub fn new(root: OwnedFd) -> Self {
        Self { root, listings: HashMap::new() }
    }

    /// How the path of `names` is spelled, if it is there. Links are followed within the tree.
    pub fn find<S: AsRef<str>>(&mut self, names: &[S]) -> io::Result<Option<PathBuf>> {
        let mut spelled = PathBuf::new();
        for name in names {
            let name = name.as_ref();
            if name.is_empty() || name == "." || name == ".." || name.contains(['/', '\0']) {
                return Ok(None);
            }
            let exact = spelled.join(name);
            if self.exists(&exact)? {
                spelled = exact;
                continue;
            }
            let Some(other) = self.listing(&spelled)?.get(&fold(name)) else { return Ok(None) };
            spelled = spelled.join(other);
        }
        Ok(Some(spelled))
    }

    fn exists(&self, path: &Path) -> io::Result<bool> {
        absent_is_none(path::open_in_root(&self.root, path, OFlags::PATH, Mode::empty()))
            .map(|found| found.is_some())
    }

    /// Opens a regular file. Pipes, devices and what is gone are none.
    pub fn open(&self, path: &Path) -> io::Result<Option<File>> {
        let flags = OFlags::RDONLY | OFlags::NONBLOCK;
        let opened = path::open_in_root(&self.root, path, flags, Mode::empty());
        let Some(file) = absent_is_none(opened)? else { return Ok(None) };
        let stat = rustix::fs::fstat(&file)?;
        let is_file = FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile;
        Ok(is_file.then(|| File::from(file)))
    }

    /// Finds and opens a file.
    pub fn open_names<S: AsRef<str>>(&mut self, names: &[S]) -> io::Result<Option<File>> {
        match self.find(names)? {
            Some(path) => self.open(&path),
            None => Ok(None),
        }
    }

    fn directory(&self, path: &Path) -> io::Result<Option<OwnedFd>> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY;
        let path = if path.as_os_str().is_empty() { Path::new(".") } else { path };
        absent_is_none(path::open_in_root(&self.root, path, flags, Mode::empty()))
    }

    fn listing(&mut self, path: &Path) -> io::Result<&HashMap<String, String>> {
        if !self.listings.contains_key(path) {
            let mut names = HashMap::new();
            if let Some(directory) = self.directory(path)? {
                for (name, _) in entries(&directory)? {
                    names.entry(fold(&name)).or_insert(name);
                }
            }
            self.listings.insert(path.to_owned(), names);
        }
        self.listings.get(path).ok_or_else(|| io::Error::from(io::ErrorKind::NotFound))
    }

    /// Calls `visit` for each file below `start`, sorted by name in each directory; links are not
    /// followed. `enter` says whether to go into a directory. False if there was more than is
    /// looked at.
    pub fn walk(
        &self,
        start: &Path,
        enter: &mut dyn FnMut(&Path) -> bool,
        visit: &mut dyn FnMut(&Path),
    ) -> io::Result<bool> {
        let mut left = MAX_WALK;
        let mut whole = true;
        let mut open = vec![(start.to_owned(), 0)];
        while let Some((path, depth)) = open.pop() {
            let Some(directory) = self.directory(&path)? else { continue };
            let found: BTreeMap<String, FileType> = entries(&directory)?.into_iter().collect();
            let mut below = Vec::new();
            for (name, kind) in found {
                let Some(rest) = left.checked_sub(1) else { return Ok(false) };
                left = rest;
                let path = path.join(&name);
                match kind {
                    FileType::Directory if depth >= MAX_DEPTH => whole = false,
                    FileType::Directory if enter(&path) => below.push((path, depth + 1)),
                    FileType::RegularFile => visit(&path),
                    _ => {}
                }
            }
            below.reverse();
            open.extend(below);
        }
        Ok(whole)
    }
}

/// Names that are text, with their kinds.
fn entries(directory: &OwnedFd) -> io::Result<Vec<(String, FileType)>> {
    let mut found = Vec::new();
    let mut list = Dir::read_from(directory.as_fd())?;
    while let Some(entry) = list.read() {
        let entry = entry?;
        let Ok(name) = entry.file_name().to_str() else { continue };
        if matches!(name, "." | "..") {
            continue;
        }
        let kind = match entry.file_type() {
            FileType::Unknown => {
                let flags = rustix::fs::AtFlags::SYMLINK_NOFOLLOW;
                let stat = rustix::fs::statat(directory, name, flags)?;
                FileType::from_raw_mode(stat.st_mode)
            }
            kind => kind,
        };
        // Whiteouts of overlayfs, where a layer is looked at by itself.
        if kind == FileType::CharacterDevice {
            continue;
        }
        found.push((name.to_owned(), kind));
        if found.len() >= MAX_ENTRIES {
            break;
        }
    }
    Ok(found)
}

/// What is not there, or leads nowhere, is none.
fn absent_is_none<T>(result: io::Result<T>) -> io::Result<Option<T>> {
    use rustix::io::Errno;
    match result {
        Ok(value) => Ok(Some(value)),
        Err(error) => match Errno::from_io_error(&error) {
            Some(
                Errno::NOENT
                | Errno::NOTDIR
                | Errno::LOOP
                | Errno::NXIO
                | Errno::ISDIR
                | Errno::XDEV
                | Errno::NAMETOOLONG
                | Errno::ACCESS,
            ) => Ok(None),
            _ => Err(error),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn drive(directory: &tempfile::TempDir) -> Drive {
        Drive::new(path::open_root(directory.path()).unwrap())
    }

    #[test]
    fn names_have_no_case() {
        let directory = tempfile::tempdir().unwrap();
        let system = directory.path().join("Windows/System32");
        fs_err::create_dir_all(&system).unwrap();
        fs_err::write(system.join("kernel32.dll"), "x").unwrap();
        std::os::unix::fs::symlink("Windows", directory.path().join("Link")).unwrap();
        std::os::unix::fs::symlink("/etc", directory.path().join("Out")).unwrap();
        let mut drive = drive(&directory);
        for (names, found) in [
            (&["WINDOWS", "system32", "KERNEL32.DLL"][..], Some("Windows/System32/kernel32.dll")),
            (&["link", "System32"], Some("Link/System32")),
            (&["out", "passwd"], None),
            (&["..", "etc"], None),
            (&["Windows/System32"], None),
            (&[], Some("")),
        ] {
            assert_eq!(drive.find(names).unwrap(), found.map(PathBuf::from), "{names:?}");
        }
        assert!(drive.open_names(&["windows", "system32", "kernel32.dll"]).unwrap().is_some());
        assert!(drive.open_names(&["windows"]).unwrap().is_none(), "a directory");
    }

    #[test]
    fn walks_stay_inside() {
        let directory = tempfile::tempdir().unwrap();
        for path in ["b/x.exe", "a/y.exe", "skip/z.exe"] {
            let path = directory.path().join(path);
            fs_err::create_dir_all(path.parent().unwrap()).unwrap();
            fs_err::write(path, "").unwrap();
        }
        std::os::unix::fs::symlink("/usr", directory.path().join("usr")).unwrap();
        let mut seen = Vec::new();
        let whole = drive(&directory).walk(
            Path::new(""),
            &mut |path| path != Path::new("skip"),
            &mut |path| seen.push(path.display().to_string()),
        );
        assert!(whole.unwrap());
        assert_eq!(seen, ["a/y.exe", "b/x.exe"]);
    }
}
