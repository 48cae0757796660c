//! A directory that becomes like a client's, from what the client says of it.
//!
//! The client names its files in order: a directory before what is in it, names ascending. Each
//! is compared with what is here, and only files that differ are asked for; whatever the client
//! did not name is removed when its directory is done. Files are compared by type, mode, owner,
//! size and time of change, as BuildKit does.
//!
//! The directory belongs to the engine alone, but its links were made by a stranger: every path
//! is opened from its root without following any.

use std::collections::{HashMap, HashSet};
use std::ffi::OsStr;
use std::io::Write;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;

use rustix::fs::{
    AtFlags, FileType, Gid, Mode, OFlags, RawMode, Timespec, Timestamps, Uid, XattrFlags,
};
use rustix::io::Errno;
use sha2::{Digest as _, Sha256};
use silo_build::context::{Digests, Version};
use silo_sys::path::open_in_root_no_links;

use super::SyncError;
use super::mode;
use crate::pb::fsutil::types::Stat;

/// Bytes of a path.
const MAX_PATH: usize = 4096;
/// Directories within each other.
const MAX_DEPTH: usize = 255;
/// Files of a context.
const MAX_FILES: u32 = 10_000_000;
/// Files whose content arrives at the same time; clients send four.
const MAX_OPEN: usize = 64;

/// The receiving end of a transfer.
pub(super) struct Receiver {
    root: OwnedFd,
    /// The directories that lead to the latest file, the root first.
    open: Vec<Directory>,
    /// How many files the client has named.
    count: u32,
    /// Files that were asked for and have not begun to arrive.
    wanted: HashMap<u32, Wanted>,
    /// Files that arrive.
    arriving: HashMap<u32, Arriving>,
    before: Arc<Digests>,
    after: Arc<Digests>,
    /// Whose everything becomes; what was there before then stays.
    owner: Option<(u32, u32)>,
}

/// A directory whose files are being named.
struct Directory {
    path: PathBuf,
    fd: OwnedFd,
    names: HashSet<Vec<u8>>,
    last: Vec<u8>,
    stat: Option<Stat>,
}

struct Wanted {
    path: PathBuf,
    stat: Stat,
}

struct Arriving {
    file: std::fs::File,
    stat: Stat,
    path: PathBuf,
    left: u64,
    hash: Sha256,
}

impl Receiver {
    /// Starts with what an earlier transfer left in a directory.
    pub(super) fn new(root: OwnedFd, before: Arc<Digests>) -> Result<Self, SyncError> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY;
        let fd = open_in_root_no_links(&root, ".", flags, Mode::empty())
            .map_err(|error| SyncError::file("open", Path::new("."), error))?;
        let top = Directory {
            path: PathBuf::new(),
            fd,
            names: HashSet::new(),
            last: Vec::new(),
            stat: None,
        };
        Ok(Self {
            root,
            open: vec![top],
            count: 0,
            wanted: HashMap::new(),
            arriving: HashMap::new(),
            before,
            after: Arc::default(),
            owner: None,
        })
    }

    /// Puts files beside what is in a directory already, and gives them to an owner.
    pub(super) fn beside(root: OwnedFd, owner: (u32, u32)) -> Result<Self, SyncError> {
        Ok(Self { owner: Some(owner), ..Self::new(root, Arc::default())? })
    }

    /// Takes the next file. Returns its number when its content is needed.
    pub(super) fn stat(&mut self, mut stat: Stat) -> Result<Option<u32>, SyncError> {
        if let Some((uid, gid)) = self.owner {
            (stat.uid, stat.gid) = (uid, gid);
        }
        let number = self.count;
        if number == MAX_FILES {
            return Err(SyncError::protocol("too many files"));
        }
        self.count += 1;
        let path = checked(&stat.path)?;
        self.leave(path.parent().unwrap_or(Path::new("")))?;
        let name = path.file_name().unwrap_or_default().as_bytes().to_vec();
        let Some(parent) = self.open.last_mut() else {
            return Err(SyncError::protocol("no directory is open"));
        };
        if !parent.last.is_empty() && name <= parent.last {
            return Err(SyncError::Order { path });
        }
        parent.last.clone_from(&name);
        let Some(kind) = mode::file_type(stat.mode) else {
            return Err(SyncError::protocol("a file has no type"));
        };
        if matches!(kind, FileType::BlockDevice | FileType::CharacterDevice | FileType::Socket) {
            // Left out: nothing but a container's root may have them.
            return Ok(None);
        }
        parent.names.insert(name.clone());
        let fail = |operation| {
            let path = path.clone();
            move |error: Errno| SyncError::file(operation, &path, error.into())
        };
        let at = OsStr::from_bytes(&name);
        let here = match rustix::fs::statat(&parent.fd, at, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(here) => Some(here),
            Err(Errno::NOENT) => None,
            Err(error) => return Err(fail("look at")(error)),
        };
        if let Some(here) = &here
            && FileType::from_raw_mode(here.st_mode) != kind
        {
            silo_sys::path::remove_all_at(&parent.fd, at)
                .map_err(|error| SyncError::file("remove", &path, error))?;
        }
        let here = here.filter(|here| FileType::from_raw_mode(here.st_mode) == kind);
        match kind {
            FileType::Directory => {
                if here.is_none() {
                    rustix::fs::mkdirat(&parent.fd, at, Mode::from_raw_mode(0o700))
                        .map_err(fail("make"))?;
                }
                if self.open.len() > MAX_DEPTH {
                    return Err(SyncError::protocol("directories are too deep"));
                }
                let flags = OFlags::RDONLY | OFlags::DIRECTORY;
                let fd = open_in_root_no_links(&self.root, &path, flags, Mode::empty())
                    .map_err(|error| SyncError::file("open", &path, error))?;
                let (names, last) = (HashSet::new(), Vec::new());
                self.open.push(Directory { path, fd, names, last, stat: Some(stat) });
                Ok(None)
            }
            FileType::Symlink => {
                let same = here.is_some_and(|here| {
                    same_owner(&here, &stat)
                        && rustix::fs::readlinkat(&parent.fd, at, Vec::new())
                            .is_ok_and(|target| target.as_bytes() == stat.linkname.as_bytes())
                });
                if !same {
                    if stat.linkname.len() > MAX_PATH {
                        return Err(SyncError::protocol("the target of a link is too long"));
                    }
                    remove_file(&parent.fd, at).map_err(fail("remove"))?;
                    rustix::fs::symlinkat(stat.linkname.as_str(), &parent.fd, at)
                        .map_err(fail("make"))?;
                    own(&parent.fd, at, &stat).map_err(fail("own"))?;
                }
                rustix::fs::utimensat(&parent.fd, at, &times(&stat), AtFlags::SYMLINK_NOFOLLOW)
                    .map_err(fail("set times of"))?;
                Ok(None)
            }
            FileType::Fifo => {
                if here.is_none() {
                    rustix::fs::mknodat(&parent.fd, at, kind, Mode::from_raw_mode(0o600), 0)
                        .map_err(fail("make"))?;
                }
                own(&parent.fd, at, &stat).map_err(fail("own"))?;
                rustix::fs::chmodat(&parent.fd, at, permissions(&stat), AtFlags::empty())
                    .map_err(fail("set mode of"))?;
                rustix::fs::utimensat(&parent.fd, at, &times(&stat), AtFlags::SYMLINK_NOFOLLOW)
                    .map_err(fail("set times of"))?;
                Ok(None)
            }
            _ if !stat.linkname.is_empty() => {
                let target = checked(&stat.linkname)?;
                let (directory, target_name) = silo_sys::path::parent_in_root(&self.root, &target)
                    .map_err(|error| SyncError::file("open", &target, error))?;
                let first = rustix::fs::statat(
                    &directory,
                    target_name.as_os_str(),
                    AtFlags::SYMLINK_NOFOLLOW,
                )
                .map_err(fail("look at the target of"))?;
                if FileType::from_raw_mode(first.st_mode) != FileType::RegularFile {
                    return Err(SyncError::protocol("a hard link to something else than a file"));
                }
                if here.is_some_and(|here| here.st_ino == first.st_ino) {
                    return Ok(None);
                }
                remove_file(&parent.fd, at).map_err(fail("remove"))?;
                rustix::fs::linkat(&directory, target_name, &parent.fd, at, AtFlags::empty())
                    .map_err(fail("link"))?;
                Ok(None)
            }
            _ => {
                if let Some(here) = &here
                    && same_file(here, &stat)
                {
                    let version = version(here);
                    if let Some(digest) = self.before.get(&version) {
                        self.after.put(version, digest);
                    }
                    return Ok(None);
                }
                if here.is_some() {
                    remove_file(&parent.fd, at).map_err(fail("remove"))?;
                }
                let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW;
                let flags = flags | OFlags::CLOEXEC;
                let mode = Mode::from_raw_mode(permissions(&stat).as_raw_mode() & 0o777);
                rustix::fs::openat(&parent.fd, at, flags, mode).map_err(fail("make"))?;
                self.wanted.insert(number, Wanted { path, stat });
                Ok(Some(number))
            }
        }
    }

    /// All files are named: what is left over goes.
    pub(super) fn end_of_stats(&mut self) -> Result<(), SyncError> {
        self.leave(Path::new(""))?;
        if let Some(top) = self.open.pop() {
            self.finish(&top)?;
        }
        Ok(())
    }

    /// A piece of a file; an empty one ends it.
    pub(super) fn data(&mut self, number: u32, bytes: &[u8]) -> Result<(), SyncError> {
        if let Some(Wanted { path, stat }) = self.wanted.remove(&number) {
            if self.arriving.len() == MAX_OPEN {
                return Err(SyncError::protocol("too many files at a time"));
            }
            let flags = OFlags::WRONLY | OFlags::NOFOLLOW;
            let fd = open_in_root_no_links(&self.root, &path, flags, Mode::empty())
                .map_err(|error| SyncError::file("open", &path, error))?;
            // A file that grows while it is read may be longer than it was; it must not be endless.
            let left = u64::try_from(stat.size).unwrap_or_default().saturating_mul(2) + (64 << 20);
            let file = std::fs::File::from(fd);
            self.arriving.insert(number, Arriving { file, stat, path, left, hash: Sha256::new() });
        }
        let Some(arriving) = self.arriving.get_mut(&number) else {
            return Err(SyncError::protocol("content that was not asked for"));
        };
        if !bytes.is_empty() {
            let length = u64::try_from(bytes.len()).unwrap_or(u64::MAX);
            arriving.left = arriving
                .left
                .checked_sub(length)
                .ok_or_else(|| SyncError::protocol("a file is longer than its size"))?;
            arriving.hash.update(bytes);
            return arriving
                .file
                .write_all(bytes)
                .map_err(|error| SyncError::file("write", &arriving.path, error));
        }
        let Some(Arriving { file, stat, path, hash, .. }) = self.arriving.remove(&number) else {
            return Ok(());
        };
        let fail = |operation| {
            let path = path.clone();
            move |error: Errno| SyncError::file(operation, &path, error.into())
        };
        let made = rustix::fs::fstat(&file).map_err(fail("look at"))?;
        let (owner, group) = (uid(&stat), gid(&stat));
        if (made.st_uid, made.st_gid) != (owner.as_raw(), group.as_raw()) {
            rustix::fs::fchown(&file, Some(owner), Some(group)).map_err(fail("own"))?;
        }
        let mut is_plain = true;
        for (name, value) in stat.xattrs.iter().filter(|(name, _)| carried(name)) {
            rustix::fs::fsetxattr(&file, name.as_str(), value, XattrFlags::empty())
                .map_err(fail("set attributes of"))?;
            is_plain = false;
        }
        let mode = permissions(&stat);
        if made.st_mode & 0o7777 != mode.as_raw_mode() {
            rustix::fs::fchmod(&file, mode).map_err(fail("set mode of"))?;
        }
        // Last: a file with its time is whole.
        rustix::fs::futimens(&file, &times(&stat)).map_err(fail("set times of"))?;
        let now = rustix::fs::fstat(&file).map_err(fail("look at"))?;
        if is_plain {
            self.after.put(version(&now), hash.finalize().into());
        }
        Ok(())
    }

    /// Have all files arrived that were asked for?
    pub(super) fn is_complete(&self) -> bool {
        self.open.is_empty() && self.wanted.is_empty() && self.arriving.is_empty()
    }

    /// The digests of files that are known.
    pub(super) fn digests(&self) -> Arc<Digests> {
        Arc::clone(&self.after)
    }

    /// Removes what a directory has and the client's has not, and gives it its attributes.
    fn finish(&self, directory: &Directory) -> Result<(), SyncError> {
        let fail = |operation| {
            move |error: Errno| SyncError::file(operation, &directory.path, error.into())
        };
        let is_mirror = self.owner.is_none();
        let entries = if is_mirror {
            Some(rustix::fs::Dir::read_from(&directory.fd).map_err(fail("list"))?)
        } else {
            None
        };
        for entry in entries.into_iter().flatten() {
            let entry = entry.map_err(fail("list"))?;
            let name = entry.file_name().to_bytes();
            if name != b"." && name != b".." && !directory.names.contains(name) {
                silo_sys::path::remove_all_at(&directory.fd, OsStr::from_bytes(name))
                    .map_err(|error| SyncError::file("remove in", &directory.path, error))?;
            }
        }
        let Some(stat) = &directory.stat else { return Ok(()) };
        rustix::fs::fchown(&directory.fd, Some(uid(stat)), Some(gid(stat))).map_err(fail("own"))?;
        rustix::fs::fchmod(&directory.fd, permissions(stat)).map_err(fail("set mode of"))?;
        rustix::fs::futimens(&directory.fd, &times(stat)).map_err(fail("set times of"))
    }

    /// Closes directories until `parent` is the innermost.
    fn leave(&mut self, parent: &Path) -> Result<(), SyncError> {
        while self.open.last().is_some_and(|directory| directory.path != parent) {
            if self.open.len() == 1 {
                return Err(SyncError::Order { path: parent.to_path_buf() });
            }
            if let Some(directory) = self.open.pop() {
                self.finish(&directory)?;
            }
        }
        Ok(())
    }
}

/// A path that names something below a root, and names it in one way.
fn checked(path: &str) -> Result<PathBuf, SyncError> {
    let normal = Path::new(path).components().all(|part| matches!(part, Component::Normal(_)));
    let plain = !path.is_empty()
        && path.len() <= MAX_PATH
        && !path.contains('\0')
        && !path.ends_with('/')
        && !path.contains("//")
        && !path.split('/').any(|part| part == ".");
    if normal && plain {
        Ok(PathBuf::from(path))
    } else {
        Err(SyncError::Path { path: path.chars().take(MAX_PATH).collect() })
    }
}

/// Is it an attribute that a context may bring? Those of overlay and of labels are not.
fn carried(name: &str) -> bool {
    name.starts_with("user.") || name == "security.capability"
}

fn same_owner(here: &rustix::fs::Stat, stat: &Stat) -> bool {
    here.st_uid == stat.uid && here.st_gid == stat.gid
}

fn same_file(here: &rustix::fs::Stat, stat: &Stat) -> bool {
    let nanoseconds = i128::from(here.st_mtime) * 1_000_000_000 + i128::from(here.st_mtime_nsec);
    same_owner(here, stat)
        && here.st_mode & 0o7777 == mode::permissions(stat.mode)
        && here.st_size == stat.size
        && nanoseconds == i128::from(stat.mod_time)
}

pub(super) fn version(stat: &rustix::fs::Stat) -> Version {
    Version {
        device: stat.st_dev,
        inode: stat.st_ino,
        size: u64::try_from(stat.st_size).unwrap_or_default(),
        changed: (stat.st_ctime, stat.st_ctime_nsec),
    }
}

fn remove_file(directory: impl AsFd, name: &OsStr) -> Result<(), Errno> {
    match rustix::fs::unlinkat(directory, name, AtFlags::empty()) {
        Err(Errno::NOENT) => Ok(()),
        result => result,
    }
}

fn own(directory: impl AsFd, name: &OsStr, stat: &Stat) -> Result<(), Errno> {
    let flags = AtFlags::SYMLINK_NOFOLLOW;
    rustix::fs::chownat(directory, name, Some(uid(stat)), Some(gid(stat)), flags)
}

fn uid(stat: &Stat) -> Uid {
    // The kernel takes the largest number for "leave it"; nobody has it.
    Uid::from_raw(if stat.uid == u32::MAX { 0 } else { stat.uid })
}

fn gid(stat: &Stat) -> Gid {
    Gid::from_raw(if stat.gid == u32::MAX { 0 } else { stat.gid })
}

fn permissions(stat: &Stat) -> Mode {
    Mode::from_raw_mode(RawMode::from(mode::permissions(stat.mode)))
}

fn times(stat: &Stat) -> Timestamps {
    let time = Timespec {
        tv_sec: stat.mod_time.div_euclid(1_000_000_000),
        tv_nsec: stat.mod_time.rem_euclid(1_000_000_000),
    };
    Timestamps { last_access: time, last_modification: time }
}
