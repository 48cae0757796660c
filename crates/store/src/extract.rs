//! Extraction of a tar stream into a directory that its author must not get out of.
//!
//! Every path is resolved inside the root on the kernel's word (`openat2`), and what is made
//! is made by a single name in a directory that is held open. What exists is removed before
//! something else takes its name; a link is never followed by the last component. This is
//! as Docker's, so images that rely on the order of entries come out the same.

use std::collections::{HashMap, HashSet};
use std::ffi::{OsStr, OsString};
use std::hash::{BuildHasher as _, RandomState};
use std::io::{self, BufRead};
use std::os::fd::{AsFd as _, AsRawFd as _, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;
use std::sync::Arc;

use rustix::fs::{AtFlags, FileType, Gid, Mode, OFlags, Uid, XattrFlags};
use rustix::io::Errno;
use sha2::{Digest as _, Sha256};
use silo_archive::whiteout::{self, Whiteout};
use silo_archive::{Entry, EntryKind, RawTap, Reader, Time};

use crate::Error;
use crate::tree::{EntryNames, Observer};
use crate::writers::{
    Directory, Metadata, Us, Writers, create_file, extract, finish_file, finish_node, step, tell,
    times, write_all, xattr_result,
};

/// Files up to this size are written by other threads.
const SMALL: u64 = 256 << 10;
/// The same, where they hash what they write.
const HASHED: u64 = 2 << 20;
/// Directories that are held open.
const OPEN_DIRECTORIES: usize = 128;
/// The longest path of an entry, as the kernel's.
const MAX_PATH: usize = 4096;
/// Names that are kept in mind.
const MAX_NOTED: usize = 1 << 20;
/// The largest number of entries of one archive.
const MAX_ENTRIES: u64 = 1 << 24;
/// The largest number of bytes of attributes of one entry: what ext4 and xfs could hold.
const MAX_XATTRS: usize = 64 << 10;

/// How to extract.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Rules<'a> {
    /// `.wh.` names are whiteouts, which become overlay's.
    pub(crate) whiteouts: bool,
    /// A directory does not replace something else, nor the other way round.
    pub(crate) no_overwrite_dir_non_dir: bool,
    /// Everything belongs to these, whatever the archive says.
    pub(crate) owner: Option<(u32, u32)>,
    /// Stop before the disk has no room left.
    pub(crate) leave_room: bool,
    /// Threads that write small files.
    pub(crate) threads: usize,
    /// The root is empty.
    pub(crate) is_new: bool,
    /// Where the entries' names lead, if they are not paths.
    pub(crate) names: Option<&'a dyn EntryNames>,
    /// Who hears of the files.
    pub(crate) observer: Option<&'a Arc<dyn Observer>>,
}

/// Hears of payloads that went into files, and of files that were moved away.
pub(crate) trait Journal: RawTap {
    /// The entry's data are now the content of `path` below the root.
    fn payload(&mut self, path: &[u8], entry: &Entry) -> io::Result<()>;
    /// Where to move what a later entry replaces, if it must be kept: a directory and a name.
    fn keep(&mut self, path: &[u8]) -> io::Result<Option<(BorrowedFd<'_>, OsString)>>;
}

impl Journal for () {
    fn payload(&mut self, _: &[u8], _: &Entry) -> io::Result<()> {
        Ok(())
    }
    fn keep(&mut self, _: &[u8]) -> io::Result<Option<(BorrowedFd<'_>, OsString)>> {
        Ok(None)
    }
}

/// What was extracted.
#[derive(Debug, Default)]
pub(crate) struct Extracted {
    pub(crate) entries: u64,
    /// Bytes that were written to files.
    written: u64,
    /// Bytes of files and links, as Docker counts the size of a layer.
    pub(crate) bytes: u64,
    /// The archive has an entry for the root itself.
    pub(crate) has_root: bool,
}

/// The state of one extraction.
struct Extractor<'a> {
    root: BorrowedFd<'a>,
    base: Directory,
    rules: Rules<'a>,
    us: Us,
    writers: Writers,
    open: HashMap<Vec<u8>, Arc<Directory>>,
    /// Names that a writer may not have made yet.
    pending: HashSet<u64>,
    hasher: RandomState,
    /// Names that exist in a root that was empty at first; `None` where that is not known.
    made: Option<HashSet<u64>>,
    directories: Vec<(Vec<u8>, Time)>,
    done: Extracted,
    room: u64,
}

/// Extracts all entries of `reader` into `root`.
pub(crate) fn extract_all<R: BufRead, J: Journal>(
    root: BorrowedFd<'_>,
    reader: &mut Reader<R, J>,
    rules: Rules<'_>,
) -> Result<Extracted, Error> {
    let archive = |source| Error::Archive { what: "the tar stream".into(), source };
    let us = Us::new();
    let base = rustix::io::fcntl_dupfd_cloexec(root, 3)
        .map_err(io::Error::from)
        .and_then(Directory::new)
        .map_err(|error| extract(b"/", "look at", error))?;
    let mut extractor = Extractor {
        root,
        base,
        rules,
        us,
        writers: Writers::new(rules.threads, us, rules.observer.cloned()),
        open: HashMap::new(),
        pending: HashSet::new(),
        hasher: RandomState::new(),
        made: rules.is_new.then(HashSet::new),
        directories: Vec::new(),
        done: Extracted::default(),
        room: if rules.leave_room { room(root) } else { u64::MAX },
    };
    while let Some(entry) = reader.next_entry().map_err(archive)? {
        extractor.entry(entry, reader)?;
    }
    extractor.finish()
}

/// Bytes that may be written to the file system of `root` while some stay free.
fn room(root: BorrowedFd<'_>) -> u64 {
    rustix::fs::fstatvfs(root).map_or(u64::MAX, |stat| {
        let reserve = (stat.f_blocks / 100).saturating_mul(stat.f_frsize).min(1 << 30);
        (stat.f_bavail.saturating_mul(stat.f_frsize)).saturating_sub(reserve)
    })
}

/// An entry that is refused.
fn refuse(path: &[u8], reason: impl Into<String>) -> Error {
    Error::Entry { path: String::from_utf8_lossy(path).into_owned(), reason: reason.into() }
}

/// The components of a path joined anew, `..` applied to the text; `None` if that leaves the
/// root. Empty for the root.
pub(crate) fn clean(path: &[u8]) -> Option<Vec<u8>> {
    let mut clean: Vec<u8> = Vec::with_capacity(path.len());
    for component in path.split(|byte| *byte == b'/') {
        match component {
            b"" | b"." => {}
            b".." if clean.is_empty() => return None,
            b".." => {
                let end = clean.iter().rposition(|byte| *byte == b'/').unwrap_or(0);
                clean.truncate(end);
            }
            name => {
                if !clean.is_empty() {
                    clean.push(b'/');
                }
                clean.extend_from_slice(name);
            }
        }
    }
    Some(clean)
}

/// Directory and last component of a clean path.
fn split(path: &[u8]) -> (&[u8], &[u8]) {
    match path.iter().rposition(|byte| *byte == b'/') {
        Some(slash) => (&path[..slash], &path[slash + 1..]),
        None => (b"", path),
    }
}

impl Extractor<'_> {
    fn entry<R: BufRead, J: Journal>(
        &mut self,
        mut entry: Entry,
        reader: &mut Reader<R, J>,
    ) -> Result<(), Error> {
        self.done.entries += 1;
        if self.done.entries > MAX_ENTRIES {
            return Err(refuse(&entry.path, format!("more than {MAX_ENTRIES} entries")));
        }
        if entry.path.len() > MAX_PATH || entry.link.len() > MAX_PATH {
            entry.path.truncate(100);
            return Err(refuse(&entry.path, "a path that is too long"));
        }
        if let Some(names) = self.rules.names {
            let place = |name: &[u8]| {
                names.place(name, entry.kind).map_err(|reason| refuse(&entry.path, reason))
            };
            let path = place(&entry.path)?;
            if entry.kind == EntryKind::HardLink {
                entry.link = place(&entry.link)?;
            }
            entry.path = path;
        }
        let Some(path) = clean(&entry.path) else {
            return Err(refuse(&entry.path, "it is outside of the root"));
        };
        filter_xattrs(&mut entry)?;
        if path.is_empty() {
            return self.root_entry(&mut entry);
        }
        let (holder, name) = split(&path);
        if self.rules.whiteouts {
            // Directories of AUFS's bookkeeping hold more of it.
            let meta = |part: &[u8]| matches!(whiteout::parse(part), Whiteout::Metadata);
            if path.split(|byte| *byte == b'/').any(meta) {
                return Ok(());
            }
            match whiteout::parse(name) {
                Whiteout::None => {}
                Whiteout::Metadata => return Ok(()),
                Whiteout::Invalid => return Err(refuse(&path, "an invalid whiteout")),
                Whiteout::Remove(victim) => return self.whiteout(holder, victim, reader),
                Whiteout::Opaque => return self.opaque(holder),
            }
            if holder.split(|byte| *byte == b'/').any(|part| part.starts_with(whiteout::PREFIX)) {
                return Err(refuse(&path, "it is beneath a whiteout"));
            }
        }
        let parent = self.directory(holder)?;
        self.settle(&parent, name)?;
        let is_new = self.note(&parent, name);
        let failed = |(operation, source)| extract(&path, operation, source);
        let metadata = Metadata::of(&mut entry, self.rules.owner);
        self.done.bytes = self.done.bytes.saturating_add(match entry.kind {
            EntryKind::Symlink => entry.link.len() as u64,
            _ => entry.size,
        });
        match entry.kind {
            EntryKind::Regular => self.file(&path, &parent, &entry, metadata, is_new, reader),
            EntryKind::Directory => self.make_directory(&path, &parent, metadata, reader),
            EntryKind::HardLink => self.hard_link(&path, &parent, &entry, metadata, reader),
            EntryKind::Symlink => {
                let name = OsStr::from_bytes(name);
                let target = OsStr::from_bytes(&entry.link);
                self.create(&path, &parent, reader, |parent| {
                    rustix::fs::symlinkat(target, &parent.fd, name)
                })?;
                let (uid, gid) = (Uid::from_raw(metadata.uid), Gid::from_raw(metadata.gid));
                let flags = AtFlags::SYMLINK_NOFOLLOW;
                let chown = rustix::fs::chownat(&parent.fd, name, Some(uid), Some(gid), flags);
                step("chown", chown).map_err(failed)?;
                let route = format!("/proc/self/fd/{}", parent.fd.as_raw_fd());
                for (attribute, value) in &metadata.xattrs {
                    let route = Path::new(&route).join(name);
                    let empty = XattrFlags::empty();
                    let set = rustix::fs::lsetxattr(route, &attribute[..], value, empty);
                    xattr_result(set).map_err(failed)?;
                }
                let time = times(metadata.mtime);
                let set = rustix::fs::utimensat(&parent.fd, name, &time, flags);
                step("set the time of", set).map_err(failed)
            }
            EntryKind::CharDevice | EntryKind::BlockDevice | EntryKind::Fifo => {
                self.node(&path, &parent, &entry, metadata, reader)
            }
        }
    }

    fn root_entry(&mut self, entry: &mut Entry) -> Result<(), Error> {
        if entry.kind != EntryKind::Directory {
            return Err(refuse(&entry.path, "the root is not a directory"));
        }
        // What is copied into an existing root does not change the root itself.
        if self.rules.whiteouts {
            self.done.has_root = true;
            let metadata = Metadata::of(entry, self.rules.owner);
            finish_node(self.base.fd.as_fd(), &metadata)
                .map_err(|(operation, source)| extract(b"/", operation, source))?;
            self.directories.push((Vec::new(), metadata.mtime));
        }
        Ok(())
    }

    /// Makes a directory that has no entry of its own (yet), with what is missing above it.
    fn make_implied(&mut self, path: &[u8]) -> Result<(), Error> {
        let mode = Mode::from_raw_mode(0o755);
        let ends = path.iter().enumerate().filter(|(_, byte)| **byte == b'/').map(|(end, _)| end);
        for end in ends.chain([path.len()]) {
            let (holder, name) = split(&path[..end]);
            let parent = self.directory(holder)?;
            self.settle(&parent, name)?;
            self.note(&parent, name);
            match rustix::fs::mkdirat(&parent.fd, OsStr::from_bytes(name), mode) {
                Ok(()) | Err(Errno::EXIST) => {}
                Err(error) => return Err(extract(&path[..end], "create", error.into())),
            }
        }
        Ok(())
    }

    /// The directory of a clean path, made with what is missing above it.
    fn directory(&mut self, path: &[u8]) -> Result<Arc<Directory>, Error> {
        if let Some(directory) = self.open.get(path) {
            return Ok(Arc::clone(directory));
        }
        let failed = |error| extract(path, "open the directory", error);
        let (route, flags) = (OsStr::from_bytes(path), OFlags::PATH | OFlags::DIRECTORY);
        let open = || silo_sys::path::open_in_root(self.root, route, flags, Mode::empty());
        let fd = match open() {
            Err(error) if error.kind() == io::ErrorKind::NotFound && !path.is_empty() => {
                self.make_implied(path)?;
                let open = silo_sys::path::open_in_root(self.root, route, flags, Mode::empty());
                open.map_err(failed)?
            }
            result => result.map_err(failed)?,
        };
        self.remember(path, fd)
    }

    fn remember(&mut self, path: &[u8], fd: OwnedFd) -> Result<Arc<Directory>, Error> {
        let directory = Directory::new(fd).map_err(|error| extract(path, "look at", error))?;
        let directory = Arc::new(directory);
        if self.open.len() >= OPEN_DIRECTORIES {
            self.open.clear();
        }
        self.open.insert(path.to_vec(), Arc::clone(&directory));
        Ok(directory)
    }

    fn key(&self, parent: &Directory, name: &[u8]) -> u64 {
        self.hasher.hash_one((parent.device, parent.inode, name))
    }

    /// Notes that a name will exist; whether it certainly does not yet.
    fn note(&mut self, parent: &Directory, name: &[u8]) -> bool {
        let key = self.key(parent, name);
        match &mut self.made {
            Some(made) if made.len() < MAX_NOTED => made.insert(key),
            _ => {
                self.made = None;
                false
            }
        }
    }

    /// Waits for the writers if one of them may not have made this name yet.
    fn settle(&mut self, parent: &Directory, name: &[u8]) -> Result<(), Error> {
        if self.pending.contains(&self.key(parent, name)) { self.barrier() } else { Ok(()) }
    }

    fn barrier(&mut self) -> Result<(), Error> {
        self.pending.clear();
        self.writers.barrier()
    }

    /// Makes an entry by `make`; what has its name is removed first.
    fn create<R: BufRead, J: Journal, T>(
        &mut self,
        path: &[u8],
        parent: &Directory,
        reader: &mut Reader<R, J>,
        mut make: impl FnMut(&Directory) -> Result<T, Errno>,
    ) -> Result<T, Error> {
        match make(parent) {
            Err(Errno::EXIST) => {}
            result => return result.map_err(|error| extract(path, "create", error.into())),
        }
        self.replace(path, parent, reader)?;
        make(parent).map_err(|error| extract(path, "create", error.into()))
    }

    /// Removes what stands at `path`, or moves it to where the journal wants it.
    fn replace<R: BufRead, J: Journal>(
        &mut self,
        path: &[u8],
        parent: &Directory,
        reader: &mut Reader<R, J>,
    ) -> Result<(), Error> {
        let name = OsStr::from_bytes(split(path).1);
        if self.rules.no_overwrite_dir_non_dir && is_directory(parent, name) {
            // docker wording
            let text = format!("cannot overwrite directory {:?} with non-directory", lossy(path));
            return Err(refuse(path, text));
        }
        self.barrier()?;
        self.open.clear();
        // Numbers of removed directories may be given to new ones.
        self.made = None;
        let inside = [path, b"/"].concat();
        self.directories.retain(|(known, _)| known != path && !known.starts_with(&inside));
        let fail = |operation| move |error| extract(path, operation, error);
        match reader.tap_mut().keep(path).map_err(fail("keep"))? {
            Some((directory, place)) => {
                let moved = rustix::fs::renameat(&parent.fd, name, directory, place);
                moved.map_err(|error| extract(path, "move away", error.into()))
            }
            None => silo_sys::path::remove_all_at(&parent.fd, name).map_err(fail("replace")),
        }
    }

    fn account(&mut self, path: &[u8], bytes: u64) -> Result<(), Error> {
        self.done.written = self.done.written.saturating_add(bytes);
        if self.done.written > self.room {
            let full = io::Error::from(io::ErrorKind::StorageFull);
            return Err(extract(path, "write", full));
        }
        Ok(())
    }

    fn file<R: BufRead, J: Journal>(
        &mut self,
        path: &[u8],
        parent: &Arc<Directory>,
        entry: &Entry,
        metadata: Metadata,
        is_new: bool,
        reader: &mut Reader<R, J>,
    ) -> Result<(), Error> {
        let name = OsStr::from_bytes(split(path).1);
        self.account(path, entry.stored)?;
        let journal = |error| extract(path, "record", error);
        // Hashing is work for the other threads too.
        let limit = if self.rules.observer.is_some() { HASHED } else { SMALL };
        let small = entry.sparse.is_none() && entry.stored <= limit && self.writers.is_parallel();
        if small {
            let there = if is_new {
                Err(Errno::NOENT)
            } else {
                rustix::fs::statat(&parent.fd, name, AtFlags::SYMLINK_NOFOLLOW)
            };
            match there {
                Ok(_) => self.replace(path, parent, reader)?,
                Err(Errno::NOENT) => {}
                Err(error) => return Err(extract(path, "look at", error.into())),
            }
            reader.tap_mut().payload(path, entry).map_err(journal)?;
            self.pending.insert(self.key(parent, name.as_bytes()));
            let stream = |error| Error::Stream("cannot read the tar stream", error);
            return self
                .writers
                .add(parent, name.to_owned(), metadata, |buffer| copy_to(reader, buffer))?
                .map_err(stream);
        }
        let file = match create_file(parent, &name.to_owned(), &metadata) {
            Err((_, error)) if error.kind() == io::ErrorKind::AlreadyExists => {
                self.replace(path, parent, reader)?;
                create_file(parent, &name.to_owned(), &metadata)
            }
            result => result,
        };
        let failed = |(operation, source)| extract(path, operation, source);
        let file = file.map_err(failed)?;
        reader.tap_mut().payload(path, entry).map_err(journal)?;
        let observer = self.rules.observer.filter(|_| metadata.xattrs.is_empty());
        match &entry.sparse {
            None => {
                let mut hash = observer.map(|_| Sha256::new());
                copy_bytes(reader, &file, entry.stored, path, hash.as_mut())?;
                finish_file(&file, parent, &metadata, self.us).map_err(failed)?;
                return tell(observer, &file, hash).map_err(failed);
            }
            Some(map) => {
                let size = step("extend", rustix::fs::ftruncate(&file, entry.size));
                size.map_err(failed)?;
                for segment in map {
                    let seek = rustix::fs::SeekFrom::Start(segment.offset);
                    step("seek in", rustix::fs::seek(&file, seek)).map_err(failed)?;
                    copy_bytes(reader, &file, segment.length, path, None)?;
                }
            }
        }
        finish_file(&file, parent, &metadata, self.us).map_err(failed)
    }

    fn make_directory<R: BufRead, J: Journal>(
        &mut self,
        path: &[u8],
        parent: &Directory,
        metadata: Metadata,
        reader: &mut Reader<R, J>,
    ) -> Result<(), Error> {
        let name = OsStr::from_bytes(split(path).1);
        let failed = |(operation, source)| extract(path, operation, source);
        let mode = Mode::from_raw_mode(metadata.mode & 0o777);
        let (mut opaque, mut is_new) = (false, true);
        match rustix::fs::mkdirat(&parent.fd, name, mode) {
            Ok(()) => {}
            Err(Errno::EXIST) if is_directory(parent, name) => is_new = false,
            Err(Errno::EXIST) => {
                if self.rules.no_overwrite_dir_non_dir {
                    // docker wording
                    let path = lossy(path);
                    let text = format!("cannot overwrite non-directory {path:?} with directory");
                    return Err(refuse(path.as_bytes(), text));
                }
                // Removed beneath and made anew: nothing from beneath shows through.
                opaque = self.rules.whiteouts && is_whiteout(parent, name);
                self.replace(path, parent, reader)?;
                step("create", rustix::fs::mkdirat(&parent.fd, name, mode)).map_err(failed)?;
            }
            Err(error) => return Err(extract(path, "create", error.into())),
        }
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let fd = step("open", rustix::fs::openat(&parent.fd, name, flags, Mode::empty()))
            .map_err(failed)?;
        if !(is_new && metadata.is_as_created(parent, self.us)) {
            finish_node(fd.as_fd(), &metadata).map_err(failed)?;
        }
        if opaque {
            set_opaque(fd.as_fd()).map_err(failed)?;
        }
        self.directories.push((path.to_vec(), metadata.mtime));
        self.remember(path, fd)?;
        Ok(())
    }

    /// Makes a hard link. What its entry says of owner, mode and time is then so for the file
    /// under all of its names, as Docker and containerd have it.
    fn hard_link<R: BufRead, J: Journal>(
        &mut self,
        path: &[u8],
        parent: &Arc<Directory>,
        entry: &Entry,
        metadata: Metadata,
        reader: &mut Reader<R, J>,
    ) -> Result<(), Error> {
        let Some(target) = clean(&entry.link).filter(|target| !target.is_empty()) else {
            return Err(refuse(path, "a hard link to outside of the root"));
        };
        let (holder, target_name) = split(&target);
        if self.rules.whiteouts && target_name.starts_with(whiteout::PREFIX) {
            return Err(refuse(path, "a hard link to a whiteout"));
        }
        let missing = |target: &[u8]| {
            refuse(path, format!("its hard link target {:?} is not there", lossy(target)))
        };
        let flags = OFlags::PATH | OFlags::DIRECTORY;
        let holder = match self.open.get(holder) {
            Some(directory) => Arc::clone(directory),
            None => {
                let route = OsStr::from_bytes(holder);
                let fd = silo_sys::path::open_in_root(self.root, route, flags, Mode::empty());
                // Windows links to files of layers beneath, which are not known yet.
                if fd.is_err() && self.rules.whiteouts && is_windows(entry) {
                    return Ok(());
                }
                self.remember(holder, fd.map_err(|_| missing(&target))?)?
            }
        };
        self.settle(&holder, target_name)?;
        let name = OsStr::from_bytes(split(path).1);
        let target_name = OsStr::from_bytes(target_name);
        let found = rustix::fs::statat(&holder.fd, target_name, AtFlags::SYMLINK_NOFOLLOW);
        if matches!(found, Err(Errno::NOENT)) && self.rules.whiteouts && is_windows(entry) {
            return Ok(());
        }
        let stat = found.map_err(|_| missing(&target))?;
        if FileType::from_raw_mode(stat.st_mode) == FileType::Directory {
            return Err(refuse(path, "a hard link to a directory"));
        }
        if self.rules.whiteouts && is_whiteout(&holder, target_name) {
            return Err(missing(&target));
        }
        if (holder.device, holder.inode, target_name) == (parent.device, parent.inode, name) {
            return Err(refuse(path, "a hard link to itself"));
        }
        self.create(path, parent, reader, |parent| {
            rustix::fs::linkat(&holder.fd, target_name, &parent.fd, name, AtFlags::empty())
        })
        .map_err(|error| match error {
            Error::Extract { source, .. } if source.kind() == io::ErrorKind::NotFound => {
                missing(&target)
            }
            other => other,
        })?;
        let is_same = (stat.st_uid, stat.st_gid) == (metadata.uid, metadata.gid)
            && stat.st_mode & 0o7777 == metadata.mode & 0o7777
            && stat.st_mtime == metadata.mtime.seconds
            && stat.st_mtime_nsec == u64::from(metadata.mtime.nanos)
            && metadata.xattrs.is_empty();
        if is_same {
            return Ok(());
        }
        let failed = |(operation, source)| extract(path, operation, source);
        let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let fd = step("open", rustix::fs::openat(&parent.fd, name, flags, Mode::empty()))
            .map_err(failed)?;
        let found = step("look at", rustix::fs::fstat(&fd)).map_err(failed)?;
        if (found.st_dev, found.st_ino) != (stat.st_dev, stat.st_ino) {
            return Err(refuse(path, "it was replaced meanwhile"));
        }
        if FileType::from_raw_mode(stat.st_mode) == FileType::Symlink {
            let (uid, gid) = (Uid::from_raw(metadata.uid), Gid::from_raw(metadata.gid));
            let (uid, gid, flags) = (Some(uid), Some(gid), AtFlags::SYMLINK_NOFOLLOW);
            let chown = rustix::fs::chownat(&parent.fd, name, uid, gid, flags);
            step("chown", chown).map_err(failed)?;
        } else {
            finish_node(fd.as_fd(), &metadata).map_err(failed)?;
        }
        let (time, flags) = (times(metadata.mtime), AtFlags::SYMLINK_NOFOLLOW);
        let set = rustix::fs::utimensat(&parent.fd, name, &time, flags);
        step("set the time of", set).map_err(failed)
    }

    fn node<R: BufRead, J: Journal>(
        &mut self,
        path: &[u8],
        parent: &Arc<Directory>,
        entry: &Entry,
        metadata: Metadata,
        reader: &mut Reader<R, J>,
    ) -> Result<(), Error> {
        let name = OsStr::from_bytes(split(path).1);
        let (kind, device) = match entry.kind {
            EntryKind::CharDevice if entry.major == 0 && entry.minor == 0 => {
                return Err(refuse(path, "a device 0:0, which overlay takes for a whiteout"));
            }
            EntryKind::CharDevice => {
                (FileType::CharacterDevice, rustix::fs::makedev(entry.major, entry.minor))
            }
            EntryKind::BlockDevice => {
                (FileType::BlockDevice, rustix::fs::makedev(entry.major, entry.minor))
            }
            _ => (FileType::Fifo, 0),
        };
        let mode = Mode::from_raw_mode(metadata.mode & 0o777);
        self.create(path, parent, reader, |parent| {
            rustix::fs::mknodat(&parent.fd, name, kind, mode, device)
        })?;
        let failed = |(operation, source)| extract(path, operation, source);
        let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let fd = step("open", rustix::fs::openat(&parent.fd, name, flags, Mode::empty()))
            .map_err(failed)?;
        let stat = step("look at", rustix::fs::fstat(&fd)).map_err(failed)?;
        if FileType::from_raw_mode(stat.st_mode) != kind {
            return Err(refuse(path, "it was replaced meanwhile"));
        }
        finish_node(fd.as_fd(), &metadata).map_err(failed)?;
        let set = rustix::fs::utimensat(
            &parent.fd,
            name,
            &times(metadata.mtime),
            AtFlags::SYMLINK_NOFOLLOW,
        );
        step("set the time of", set).map_err(failed)
    }

    fn whiteout<R: BufRead, J: Journal>(
        &mut self,
        holder: &[u8],
        victim: &[u8],
        reader: &mut Reader<R, J>,
    ) -> Result<(), Error> {
        let parent = self.directory(holder)?;
        self.settle(&parent, victim)?;
        self.note(&parent, victim);
        let path =
            if holder.is_empty() { victim.to_vec() } else { [holder, b"/", victim].concat() };
        self.create(&path, &parent, reader, |parent| {
            let name = OsStr::from_bytes(victim);
            rustix::fs::mknodat(&parent.fd, name, FileType::CharacterDevice, Mode::empty(), 0)
        })
    }

    fn opaque(&mut self, holder: &[u8]) -> Result<(), Error> {
        let parent = self.directory(holder)?;
        set_opaque(parent.fd.as_fd())
            .map_err(|(operation, source)| extract(holder, operation, source))
    }

    /// Waits for everything, then sets the times of directories, deepest first.
    fn finish(mut self) -> Result<Extracted, Error> {
        self.barrier()?;
        for (path, time) in std::mem::take(&mut self.directories).into_iter().rev() {
            let failed = |(operation, source)| extract(&path, operation, source);
            let (holder, name) = split(&path);
            let (holder, name, flags) = if path.is_empty() {
                (None, OsStr::new("."), AtFlags::empty())
            } else {
                let flags = AtFlags::SYMLINK_NOFOLLOW;
                (Some(self.directory(holder)?), OsStr::from_bytes(name), flags)
            };
            let fd = holder.as_ref().map_or(self.base.fd.as_fd(), |holder| holder.fd.as_fd());
            let set = rustix::fs::utimensat(fd, name, &times(time), flags);
            step("set the time of", set).map_err(failed)?;
        }
        Ok(self.done)
    }
}

/// Leaves out attributes that would change how the overlay is put together.
fn filter_xattrs(entry: &mut Entry) -> Result<(), Error> {
    let size: usize = entry.xattrs.iter().map(|(name, value)| name.len() + value.len()).sum();
    if size > MAX_XATTRS {
        return Err(refuse(&entry.path, format!("{size} bytes of extended attributes")));
    }
    entry.xattrs.retain(|(name, _)| {
        !name.starts_with(b"trusted.overlay.") && !name.starts_with(b"user.overlay.")
    });
    Ok(())
}

/// Whether an entry was written on Windows.
fn is_windows(entry: &Entry) -> bool {
    entry.pax.iter().any(|(key, _)| key.starts_with(b"MSWINDOWS."))
}

fn lossy(path: &[u8]) -> String {
    String::from_utf8_lossy(path).into_owned()
}

fn is_directory(parent: &Directory, name: &OsStr) -> bool {
    rustix::fs::statat(&parent.fd, name, AtFlags::SYMLINK_NOFOLLOW)
        .is_ok_and(|stat| FileType::from_raw_mode(stat.st_mode) == FileType::Directory)
}

fn is_whiteout(parent: &Directory, name: &OsStr) -> bool {
    rustix::fs::statat(&parent.fd, name, AtFlags::SYMLINK_NOFOLLOW).is_ok_and(|stat| {
        FileType::from_raw_mode(stat.st_mode) == FileType::CharacterDevice && stat.st_rdev == 0
    })
}

/// Hides what the layers beneath have in a directory.
fn set_opaque(directory: BorrowedFd<'_>) -> crate::writers::Step<()> {
    let name = format!("/proc/self/fd/{}", directory.as_raw_fd());
    let set = rustix::fs::setxattr(&*name, "trusted.overlay.opaque", b"y", XattrFlags::empty());
    step("make opaque", set)
}

/// Appends the rest of the current entry to a buffer.
fn copy_to<R: BufRead, T>(reader: &mut Reader<R, T>, buffer: &mut Vec<u8>) -> io::Result<()> {
    loop {
        let bytes = reader.fill_buf()?;
        if bytes.is_empty() {
            return Ok(());
        }
        buffer.extend_from_slice(bytes);
        let count = bytes.len();
        reader.consume(count);
    }
}

/// Writes the next `left` bytes of the current entry to a file.
fn copy_bytes<R: BufRead, T>(
    reader: &mut Reader<R, T>,
    file: &OwnedFd,
    mut left: u64,
    path: &[u8],
    mut hash: Option<&mut Sha256>,
) -> Result<(), Error> {
    while left > 0 {
        let bytes = reader
            .fill_buf()
            .map_err(|error| Error::Stream("cannot read the tar stream", error))?;
        let count = usize::try_from(left).unwrap_or(usize::MAX).min(bytes.len());
        write_all(file.as_fd(), &bytes[..count]).map_err(|error| extract(path, "write", error))?;
        if let Some(hash) = &mut hash {
            hash.update(&bytes[..count]);
        }
        reader.consume(count);
        left -= count as u64;
    }
    Ok(())
}
