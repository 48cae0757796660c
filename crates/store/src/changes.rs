//! What a snapshot changes of what is beneath it: `docker diff`.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, FileType, Mode, OFlags, Stat};
use rustix::io::Errno;

use crate::tree::is_opaque;
use crate::{Change, ChangeKind, Error, Snapshot, Store, tree};

impl Store {
    /// The changes of a snapshot, by path. A directory in which something changed is itself
    /// changed; of a removed directory only its own path is listed.
    pub fn changes(&self, snapshot: &Snapshot) -> Result<Vec<Change>, Error> {
        let open = |path: &PathBuf| {
            let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
            rustix::fs::open(path, flags, Mode::empty())
                .map_err(io::Error::from)
                .map_err(Error::io("open", path))
        };
        let upper = open(&snapshot.upper)?;
        let lowers = snapshot.lowers.iter().map(open).collect::<Result<Vec<_>, _>>()?;
        let mut walk = Walk { lowers, upper, changes: BTreeMap::new() };
        let all = (0..walk.lowers.len()).collect();
        walk.run(all).map_err(Error::io("compare", &snapshot.upper))?;
        let changes = walk.changes.into_iter();
        Ok(changes.map(|(path, kind)| Change { kind, path: Path::new("/").join(path) }).collect())
    }

    /// Bytes of the files that a snapshot itself holds.
    pub fn snapshot_usage(&self, snapshot: &str) -> Result<u64, Error> {
        // Even where what is beneath is lost.
        self.snapshot_chain(snapshot)?;
        let upper = self.snapshot_path(snapshot)?.join("upper");
        let root = silo_sys::path::open_root(&upper).map_err(Error::io("open", &upper))?;
        tree::usage(&root).map_err(Error::io("measure", upper))
    }
}

struct Walk {
    lowers: Vec<OwnedFd>,
    upper: OwnedFd,
    changes: BTreeMap<PathBuf, ChangeKind>,
}

/// What the layers beneath have under a name.
struct Below {
    /// How the uppermost of them looks.
    stat: Stat,
    /// Which of them have a directory there that shows through.
    directories: Vec<usize>,
}

impl Walk {
    fn run(&mut self, all: Vec<usize>) -> io::Result<()> {
        // Directories of the upper, with the lowers that show through them.
        let mut pending: Vec<(PathBuf, Vec<usize>)> = vec![(PathBuf::new(), all)];
        while let Some((path, lowers)) = pending.pop() {
            let directory = open(&self.upper, &path)?;
            let mut names: Vec<OsString> = Vec::new();
            let mut entries = rustix::fs::Dir::read_from(&directory)?;
            while let Some(entry) = entries.read() {
                let name = OsStr::from_bytes(entry?.file_name().to_bytes()).to_owned();
                if name != "." && name != ".." {
                    names.push(name);
                }
            }
            for name in names {
                let Some(stat) = stat_at(&directory, &name)? else {
                    continue;
                };
                let child = path.join(&name);
                let below = self.below(&child, &lowers)?;
                if let Some(more) = self.compare(&child, &stat, below) {
                    pending.push((child, more));
                }
            }
            self.hidden(&directory, &path, &lowers)?;
        }
        Ok(())
    }

    /// Compares one name; for a directory, gives the lowers that show through it.
    fn compare(&mut self, path: &Path, stat: &Stat, below: Option<Below>) -> Option<Vec<usize>> {
        if is_whiteout(stat) {
            if below.is_some() {
                self.record(path, ChangeKind::Deleted);
            }
            return None;
        }
        let is_directory = FileType::from_raw_mode(stat.st_mode) == FileType::Directory;
        match &below {
            None => self.record(path, ChangeKind::Added),
            Some(below) if is_directory && same_directory(stat, &below.stat) => {}
            Some(_) => self.record(path, ChangeKind::Modified),
        }
        if !is_directory {
            return None;
        }
        Some(below.map_or_else(Vec::new, |below| below.directories))
    }

    /// In an opaque directory, what the lowers have and the upper has not is deleted.
    fn hidden(&mut self, directory: &OwnedFd, path: &Path, lowers: &[usize]) -> io::Result<()> {
        if path.as_os_str().is_empty() || !is_opaque(directory) {
            return Ok(());
        }
        for lower in lowers {
            let Some(beneath) = open_if_there(&self.lowers[*lower], path)? else {
                continue;
            };
            let mut entries = rustix::fs::Dir::read_from(&beneath)?;
            while let Some(entry) = entries.read() {
                let name = OsStr::from_bytes(entry?.file_name().to_bytes()).to_owned();
                let child = path.join(&name);
                if name == "." || name == ".." || stat_at(directory, &name)?.is_some() {
                    continue;
                }
                if self.below(&child, lowers)?.is_some() {
                    self.record(&child, ChangeKind::Deleted);
                }
            }
        }
        Ok(())
    }

    fn record(&mut self, path: &Path, kind: ChangeKind) {
        self.changes.insert(path.to_owned(), kind);
        for parent in path.ancestors().skip(1) {
            if parent.as_os_str().is_empty() || self.changes.contains_key(parent) {
                break;
            }
            self.changes.insert(parent.to_owned(), ChangeKind::Modified);
        }
    }

    /// Looks a path up in those lowers that show through its directory, as overlay does.
    fn below(&self, path: &Path, lowers: &[usize]) -> io::Result<Option<Below>> {
        let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else {
            return Ok(None);
        };
        let mut found: Option<Below> = None;
        for lower in lowers {
            let Some(directory) = open_if_there(&self.lowers[*lower], parent)? else {
                continue;
            };
            let Some(stat) = stat_at(&directory, name)? else {
                continue;
            };
            let is_directory = FileType::from_raw_mode(stat.st_mode) == FileType::Directory;
            if is_whiteout(&stat) || (found.is_some() && !is_directory) {
                break;
            }
            let below = found.get_or_insert(Below { stat, directories: Vec::new() });
            if !is_directory {
                break;
            }
            below.directories.push(*lower);
            let opened = open_if_there(&self.lowers[*lower], path)?;
            if opened.is_some_and(|opened| is_opaque(&opened)) {
                break;
            }
        }
        Ok(found)
    }
}

fn open(root: &OwnedFd, path: &Path) -> io::Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY;
    silo_sys::path::open_in_root_no_links(root, path, flags, Mode::empty())
}

fn open_if_there(root: &OwnedFd, path: &Path) -> io::Result<Option<OwnedFd>> {
    match open(root, path) {
        Ok(directory) => Ok(Some(directory)),
        Err(error) => match error.raw_os_error().map(Errno::from_raw_os_error) {
            Some(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => Ok(None),
            _ => Err(error),
        },
    }
}

fn stat_at(directory: &OwnedFd, name: &OsStr) -> io::Result<Option<Stat>> {
    match rustix::fs::statat(directory, name, AtFlags::SYMLINK_NOFOLLOW) {
        Ok(stat) => Ok(Some(stat)),
        Err(Errno::NOENT) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

fn is_whiteout(stat: &Stat) -> bool {
    FileType::from_raw_mode(stat.st_mode) == FileType::CharacterDevice && stat.st_rdev == 0
}

/// Whether a directory was only copied up because of something in it.
fn same_directory(upper: &Stat, lower: &Stat) -> bool {
    upper.st_mode == lower.st_mode
        && upper.st_uid == lower.st_uid
        && upper.st_gid == lower.st_gid
        && upper.st_mtime == lower.st_mtime
        && upper.st_mtime_nsec == lower.st_mtime_nsec
}
