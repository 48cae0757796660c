//! Copying trees, with the rules of BuildKit:
//!
//! - A file goes into a directory that is there, under the source's name; otherwise it gets the
//!   destination's name. Of a directory, the content is copied.
//! - Directories are merged. What is there keeps its owner and mode at the top, and gets those of
//!   the source below. A file replaces anything but a directory; a directory replaces nothing.
//! - Directories that are made on the way belong to the new owner and have mode 0755.
//! - Owners, modes, times, extended attributes and hard links are kept, but for what `--chown` and
//!   `--chmod` say.

use std::collections::HashMap;
use std::ffi::{OsStr, OsString};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{
    AtFlags, FileType, Gid, Mode, OFlags, Stat, Timespec, Timestamps, Uid, XattrFlags,
};
use rustix::io::Errno;

use super::CopyError;
use super::chmod::Chmod;
use super::resolve::{self, Names, is_directory};
use super::select::{Filter, Found};

/// The deepest tree that is copied or read.
pub(super) const MAX_DEPTH: usize = 1000;

/// How files are copied.
#[derive(Debug, Clone)]
pub(crate) struct Options {
    /// Everything belongs to these.
    pub(crate) owner: Option<(u32, u32)>,
    /// Everything gets this mode.
    pub(crate) chmod: Option<Chmod>,
    /// How names are compared at the destination.
    pub(crate) names: Names,
}

/// Copies into one root.
pub(crate) struct Copier<'a> {
    root: BorrowedFd<'a>,
    options: Options,
    /// Where a file with several names was written first.
    links: HashMap<(u64, u64), PathBuf>,
    buffer: Vec<u8>,
}

/// A directory on the way down.
struct Level {
    source: OwnedFd,
    stat: Stat,
    /// Its name at the destination.
    name: OsString,
    /// It, once it is certain that something goes into it.
    target: Option<OwnedFd>,
    /// Its path relative to the source.
    path: String,
    /// That at the destination.
    shown: PathBuf,
    /// What is in it and was not copied yet.
    names: std::vec::IntoIter<OsString>,
}

impl Level {
    /// Looks what is in it.
    fn list(&mut self) -> Result<(), CopyError> {
        let names = silo_sys::path::names(&self.source);
        self.names = names.map_err(CopyError::io("list", &self.shown))?.into_iter();
        Ok(())
    }
}

/// The error for a tree that is deeper than any should be.
pub(super) fn too_deep() -> io::Error {
    io::Error::other(format!("more than {MAX_DEPTH} directories within each other"))
}

fn none() -> std::vec::IntoIter<OsString> {
    Vec::new().into_iter()
}

impl<'a> Copier<'a> {
    /// A copier into `root`.
    pub(crate) fn new(root: BorrowedFd<'a>, options: Options) -> Self {
        Self { root, options, links: HashMap::new(), buffer: Vec::new() }
    }

    /// Copies what a source names to `destination`, whose last slash counts. Of directories, only
    /// what the filter wants.
    pub(crate) fn copy(
        &mut self,
        from: BorrowedFd<'_>,
        found: &Found,
        filter: &Filter,
        destination: &str,
    ) -> Result<(), CopyError> {
        let (mut target, there) = self.target(destination)?;
        let (from_directory, into) =
            (is_directory(&found.stat), there.as_ref().is_some_and(is_directory));
        if !from_directory && into {
            target.push(&found.name);
        } else if from_directory && there.is_none() {
            self.make_directories(&target)?;
        } else if let Some(parent) = target.parent() {
            self.make_directories(parent)?;
        }
        let opened =
            |path: &Path| resolve::directory(self.root, path).map_err(CopyError::io("open", path));
        if from_directory {
            if !into && there.is_some() {
                // buildkit wording
                let text = format!("cannot copy to non-directory: /{}", target.display());
                return Err(CopyError::Refused(text));
            }
            let source = resolve::directory(from, &found.path)
                .map_err(CopyError::io("open", &found.path))?;
            let mut top = Level {
                source,
                stat: found.stat,
                name: OsString::new(),
                target: Some(opened(&target)?),
                path: String::new(),
                shown: target.clone(),
                names: none(),
            };
            top.list()?;
            let mut levels = vec![top];
            self.children(&mut levels, filter)?;
            let directory = levels.pop().and_then(|level| level.target);
            if let Some(directory) = directory {
                times(directory.as_fd(), OsStr::new(""), &found.stat, AtFlags::EMPTY_PATH)
                    .map_err(CopyError::io("set the time of", &target))?;
            }
            return Ok(());
        }
        let (parent, name) = split(&target)?;
        let directory = opened(parent)?;
        let (holder, source_name) = split(&found.path)?;
        let holder = resolve::directory(from, holder).map_err(CopyError::io("open", holder))?;
        let name = self.spelled(&directory, name)?;
        self.node(holder.as_fd(), source_name, directory.as_fd(), &name, &target, &found.stat)
    }

    /// Writes a file of these bytes as a source that is copied.
    pub(crate) fn inline(
        &mut self,
        name: &str,
        data: &[u8],
        destination: &str,
        time: i64,
    ) -> Result<(), CopyError> {
        let (mut target, there) = self.target(destination)?;
        if there.as_ref().is_some_and(is_directory) {
            target.push(name);
        }
        let (parent, name) = split(&target)?;
        let directory =
            resolve::directory(self.root, parent).map_err(CopyError::io("open", parent))?;
        let name = self.spelled(&directory, name)?;
        let file = create(directory.as_fd(), &name, &target)?;
        let write = || -> io::Result<()> {
            let mut left = data;
            while !left.is_empty() {
                left = &left[rustix::io::write(&file, left)?..];
            }
            let (uid, gid) = self.options.owner.unwrap_or((0, 0));
            rustix::fs::fchown(&file, Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid)))?;
            let mode = self.mode(0o644, false);
            rustix::fs::fchmod(&file, Mode::from_raw_mode(mode))?;
            let time = Timespec { tv_sec: time, tv_nsec: 0 };
            let times = Timestamps { last_access: time, last_modification: time };
            Ok(rustix::fs::futimens(&file, &times)?)
        };
        write().map_err(CopyError::io("write", &target))
    }

    /// Where a destination leads, with the directories on the way, and what is there. With a last
    /// slash it is a directory itself.
    fn target(&self, destination: &str) -> Result<(PathBuf, Option<Stat>), CopyError> {
        let clean = silo_sys::path::clean(destination);
        if destination.ends_with('/') || destination.ends_with("/.") {
            self.make_directories(&clean)?;
        } else if let Some(parent) = clean.parent() {
            self.make_directories(parent)?;
        }
        let failed = || CopyError::io("resolve", &clean);
        let target = resolve::resolve(self.root, &clean, self.options.names).map_err(failed())?;
        let there = resolve::stat(self.root, &target).map_err(failed())?;
        Ok((target, there))
    }

    fn mode(&self, mode: u32, is_directory: bool) -> u32 {
        match &self.options.chmod {
            Some(chmod) => chmod.apply(mode & 0o7777, is_directory),
            None => mode & 0o7777,
        }
    }

    fn spelled(&self, directory: &OwnedFd, name: &OsStr) -> Result<OsString, CopyError> {
        resolve::spelled(directory.as_fd(), name, self.options.names)
            .map_err(CopyError::io("list", name))
    }

    /// Makes the directories of a path that are missing.
    pub(crate) fn make_directories(&self, path: &Path) -> Result<(), CopyError> {
        let path = resolve::resolve(self.root, path, self.options.names)
            .map_err(CopyError::io("resolve", path))?;
        let mut done = PathBuf::new();
        for name in &path {
            let above = done.clone();
            done.push(name);
            match resolve::stat(self.root, &done).map_err(CopyError::io("look at", &done))? {
                Some(stat) if is_directory(&stat) => continue,
                Some(_) => {
                    let error = io::Error::from(Errno::NOTDIR);
                    return Err(CopyError::io("make directory", &done)(error));
                }
                None => {}
            }
            let make = || -> io::Result<()> {
                let parent = resolve::directory(self.root, &above)?;
                let mode = self.options.chmod.as_ref().map_or(0o755, Chmod::of_new_directories);
                rustix::fs::mkdirat(&parent, name, Mode::from_raw_mode(0o700))?;
                let (uid, gid) = self.options.owner.unwrap_or((0, 0));
                let (uid, gid) = (Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid)));
                rustix::fs::chownat(&parent, name, uid, gid, AtFlags::SYMLINK_NOFOLLOW)?;
                let made = resolve::directory(self.root, &done)?;
                Ok(rustix::fs::fchmod(&made, Mode::from_raw_mode(mode))?)
            };
            make().map_err(CopyError::io("make directory", &done))?;
        }
        Ok(())
    }

    /// Copies what is in the only one of `levels`, and below: without recursion, as strangers say
    /// how deep that is.
    fn children(&mut self, levels: &mut Vec<Level>, filter: &Filter) -> Result<(), CopyError> {
        while let Some(level) = levels.last_mut() {
            let Some(name) = level.names.next() else {
                if levels.len() == 1 {
                    break;
                }
                // Last of all, as what was put in changed its time.
                if let Some(Level { target: Some(target), stat, shown, .. }) = levels.pop() {
                    times(target.as_fd(), OsStr::new(""), &stat, AtFlags::EMPTY_PATH)
                        .map_err(CopyError::io("set the time of", &shown))?;
                }
                continue;
            };
            let text = name.to_string_lossy();
            let path = match level.path.as_str() {
                "" => text.into_owned(),
                above => format!("{above}/{text}"),
            };
            let verdict = filter.verdict(&path);
            if !verdict.included && !verdict.descend {
                continue;
            }
            let shown = level.shown.join(&name);
            let stat = rustix::fs::statat(&level.source, &name, AtFlags::SYMLINK_NOFOLLOW)
                .map_err(CopyError::io("look at", &shown))?;
            if !is_directory(&stat) {
                if verdict.included {
                    self.ensure(levels)?;
                    let Some(Level { source, target: Some(target), .. }) = levels.last() else {
                        continue;
                    };
                    let spelled = self.spelled(target, &name)?;
                    let (source, target) = (source.as_fd(), target.as_fd());
                    self.node(source, &name, target, &spelled, &shown, &stat)?;
                }
                continue;
            }
            let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            let source = rustix::fs::openat(&level.source, &name, flags, Mode::empty())
                .map_err(CopyError::io("open", &shown))?;
            if levels.len() == MAX_DEPTH {
                return Err(CopyError::io("list", &shown)(too_deep()));
            }
            let mut level = Level { source, stat, name, target: None, path, shown, names: none() };
            if verdict.descend {
                level.list()?;
            }
            levels.push(level);
            if verdict.included {
                self.ensure(levels)?;
            }
        }
        Ok(())
    }

    /// Makes the directories of all levels be there.
    fn ensure(&mut self, levels: &mut [Level]) -> Result<(), CopyError> {
        for at in 1..levels.len() {
            if levels[at].target.is_some() {
                continue;
            }
            let (above, below) = levels.split_at_mut(at);
            let (Some(Level { target: Some(parent), .. }), Some(level)) =
                (above.last(), below.first_mut())
            else {
                continue;
            };
            let shown = level.shown.as_path();
            let name = self.spelled(parent, &level.name)?;
            match rustix::fs::mkdirat(parent, &name, Mode::from_raw_mode(0o700)) {
                Ok(()) | Err(Errno::EXIST) => {}
                Err(error) => return Err(CopyError::io("make directory", shown)(error)),
            }
            let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            let target = match rustix::fs::openat(parent, &name, flags, Mode::empty()) {
                Ok(target) => target,
                Err(Errno::NOTDIR | Errno::LOOP) => {
                    // buildkit wording
                    let text = format!("cannot copy to non-directory: /{}", shown.display());
                    return Err(CopyError::Refused(text));
                }
                Err(error) => return Err(CopyError::io("open", shown)(error)),
            };
            let finish = || -> io::Result<()> {
                self.chown(target.as_fd(), &level.stat)?;
                let mode = Mode::from_raw_mode(self.mode(level.stat.st_mode, true));
                rustix::fs::fchmod(&target, mode)?;
                copy_xattrs(level.source.as_fd(), target.as_fd())
            };
            finish().map_err(CopyError::io("set the mode of", shown))?;
            level.target = Some(target);
        }
        Ok(())
    }

    fn owner(&self, stat: &Stat) -> (Option<Uid>, Option<Gid>) {
        let (uid, gid) = self.options.owner.unwrap_or((stat.st_uid, stat.st_gid));
        (Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid)))
    }

    fn chown(&self, file: BorrowedFd<'_>, stat: &Stat) -> io::Result<()> {
        let (uid, gid) = self.owner(stat);
        Ok(rustix::fs::fchown(file, uid, gid)?)
    }

    /// Copies anything but a directory.
    fn node(
        &mut self,
        holder: BorrowedFd<'_>,
        source: &OsStr,
        directory: BorrowedFd<'_>,
        name: &OsStr,
        shown: &Path,
        stat: &Stat,
    ) -> Result<(), CopyError> {
        let kind = FileType::from_raw_mode(stat.st_mode);
        if kind == FileType::RegularFile {
            return self.file(holder, source, directory, name, shown, stat);
        }
        clear(directory, name, shown)?;
        let make = || -> io::Result<()> {
            if kind == FileType::Symlink {
                let target = rustix::fs::readlinkat(holder, source, Vec::new())?;
                rustix::fs::symlinkat(target, directory, name)?;
            } else {
                // As BuildKit: a socket becomes a FIFO's like, an empty node.
                let kind = if kind == FileType::Socket { FileType::Fifo } else { kind };
                let mode = Mode::from_raw_mode(stat.st_mode & 0o777);
                if kind == FileType::CharacterDevice && stat.st_rdev == 0 {
                    return Err(io::Error::other(
                        "a device 0:0, which overlay takes for a whiteout",
                    ));
                }
                rustix::fs::mknodat(directory, name, kind, mode, stat.st_rdev)?;
            }
            let (uid, gid) = self.owner(stat);
            rustix::fs::chownat(directory, name, uid, gid, AtFlags::SYMLINK_NOFOLLOW)?;
            if kind != FileType::Symlink {
                let mode = Mode::from_raw_mode(self.mode(stat.st_mode, false));
                rustix::fs::chmodat(directory, name, mode, AtFlags::empty())?;
            }
            Ok(times(directory, name, stat, AtFlags::SYMLINK_NOFOLLOW)?)
        };
        make().map_err(CopyError::io("create", shown))
    }

    fn file(
        &mut self,
        holder: BorrowedFd<'_>,
        source: &OsStr,
        directory: BorrowedFd<'_>,
        name: &OsStr,
        shown: &Path,
        stat: &Stat,
    ) -> Result<(), CopyError> {
        if stat.st_nlink > 1 {
            let key = (stat.st_dev, stat.st_ino);
            if let Some(first) = self.links.get(&key) {
                clear(directory, name, shown)?;
                let (above, last) = split(first)?;
                let linked = resolve::directory(self.root, above).and_then(|above| {
                    Ok(rustix::fs::linkat(above, last, directory, name, AtFlags::empty())?)
                });
                return linked.map_err(CopyError::io("link", shown));
            }
            self.links.insert(key, shown.to_owned());
        }
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let from = rustix::fs::openat(holder, source, flags, Mode::empty())
            .map_err(CopyError::io("open", shown))?;
        let to = create(directory, name, shown)?;
        copy_content(&from, &to, stat, &mut self.buffer).map_err(CopyError::io("copy", shown))?;
        let finish = || -> io::Result<()> {
            self.chown(to.as_fd(), stat)?;
            rustix::fs::fchmod(&to, Mode::from_raw_mode(self.mode(stat.st_mode, false)))?;
            copy_xattrs(from.as_fd(), to.as_fd())?;
            Ok(rustix::fs::futimens(&to, &stamps(stat))?)
        };
        finish().map_err(CopyError::io("copy", shown))
    }
}

fn split(path: &Path) -> Result<(&Path, &OsStr), CopyError> {
    match (path.parent(), path.file_name()) {
        (Some(parent), Some(name)) => Ok((parent, name)),
        _ => Err(CopyError::Refused("cannot replace to directory / with file".into())),
    }
}

/// Makes a file of that name; what has it is removed unless it is a directory.
fn create(directory: BorrowedFd<'_>, name: &OsStr, shown: &Path) -> Result<OwnedFd, CopyError> {
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
    let open = || rustix::fs::openat(directory, name, flags, Mode::from_raw_mode(0o600));
    let made = match open() {
        Err(Errno::EXIST) => {
            clear(directory, name, shown)?;
            open()
        }
        made => made,
    };
    made.map_err(CopyError::io("create", shown))
}

/// Removes what has a name, unless it is a directory.
fn clear(directory: BorrowedFd<'_>, name: &OsStr, shown: &Path) -> Result<(), CopyError> {
    match rustix::fs::unlinkat(directory, name, AtFlags::empty()) {
        Ok(()) | Err(Errno::NOENT) => Ok(()),
        // buildkit wording
        Err(Errno::ISDIR | Errno::PERM) => Err(CopyError::Refused(format!(
            "cannot replace to directory /{} with file",
            shown.display()
        ))),
        Err(error) => Err(CopyError::io("remove", shown)(error)),
    }
}

fn stamps(stat: &Stat) -> Timestamps {
    let nanos = |nanos: u64| i64::try_from(nanos).unwrap_or(0);
    let time = Timespec { tv_sec: stat.st_mtime, tv_nsec: nanos(stat.st_mtime_nsec) };
    Timestamps { last_access: time, last_modification: time }
}

fn times(
    directory: BorrowedFd<'_>,
    name: &OsStr,
    stat: &Stat,
    flags: AtFlags,
) -> Result<(), Errno> {
    if flags == AtFlags::EMPTY_PATH {
        return rustix::fs::futimens(directory, &stamps(stat));
    }
    rustix::fs::utimensat(directory, name, &stamps(stat), flags)
}

/// Copies the bytes, by the kernel where it can.
fn copy_content(from: &OwnedFd, to: &OwnedFd, stat: &Stat, buffer: &mut Vec<u8>) -> io::Result<()> {
    const PIECE: usize = 256 << 10;
    let mut left = u64::try_from(stat.st_size).unwrap_or(0);
    let mut by_kernel = left > 64 << 10;
    while left > 0 {
        if by_kernel {
            let wanted = usize::try_from(left).unwrap_or(usize::MAX).min(1 << 30);
            match rustix::fs::copy_file_range(from, None, to, None, wanted) {
                Ok(0) => by_kernel = false,
                Ok(count) => left -= count as u64,
                Err(Errno::INTR) => {}
                Err(Errno::XDEV | Errno::NOSYS | Errno::OPNOTSUPP | Errno::INVAL) => {
                    by_kernel = false;
                }
                Err(error) => return Err(error.into()),
            }
            continue;
        }
        buffer.resize(PIECE, 0);
        let count = match rustix::io::read(from, &mut buffer[..]) {
            Ok(0) => return Ok(()),
            Ok(count) => count,
            Err(Errno::INTR) => continue,
            Err(error) => return Err(error.into()),
        };
        let mut pending = &buffer[..count];
        while !pending.is_empty() {
            pending = &pending[rustix::io::write(to, pending)?..];
        }
        left = left.saturating_sub(count as u64);
    }
    Ok(())
}

/// Copies the attributes that belong into an image.
fn copy_xattrs(from: BorrowedFd<'_>, to: BorrowedFd<'_>) -> io::Result<()> {
    for (name, value) in silo_store::tree::xattrs(from)? {
        match rustix::fs::fsetxattr(to, &name[..], &value, XattrFlags::empty()) {
            Ok(()) | Err(Errno::OPNOTSUPP) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, symlink};

    use super::*;
    use crate::copy::select::select;

    struct Trees {
        temporary: tempfile::TempDir,
    }

    impl Trees {
        fn new() -> Self {
            let temporary = tempfile::tempdir().unwrap();
            for name in ["from", "to"] {
                fs_err::create_dir(temporary.path().join(name)).unwrap();
            }
            Self { temporary }
        }

        fn at(&self, name: &str) -> PathBuf {
            self.temporary.path().join(name)
        }

        fn write(&self, name: &str, text: &str) {
            fs_err::create_dir_all(self.at(name).parent().unwrap()).unwrap();
            fs_err::write(self.at(name), text).unwrap();
        }

        fn copy(
            &self,
            source: &str,
            destination: &str,
            change: impl FnOnce(&mut Options),
        ) -> Result<(), CopyError> {
            let from = silo_sys::path::open_root(self.at("from")).unwrap();
            let to = silo_sys::path::open_root(self.at("to")).unwrap();
            let mut options = Options { owner: None, chmod: None, names: Names::Exact };
            change(&mut options);
            let mut copier = Copier::new(to.as_fd(), options);
            for found in select(from.as_fd(), source, Names::Exact).unwrap() {
                copier.copy(from.as_fd(), &found, &Filter::default(), destination)?;
            }
            Ok(())
        }

        fn read(&self, name: &str) -> String {
            fs_err::read_to_string(self.at("to").join(name)).unwrap_or_default()
        }
    }

    #[test]
    fn where_things_go() {
        for (source, destination, expected) in [
            ("f", "/new", "new"),
            ("f", "/new/", "new/f"),
            ("f", "/there", "there/f"),
            ("f", "/link", "there/f"),
            ("f", "/file", "file"),
            ("f", "/a/b/c", "a/b/c"),
            ("d", "/new", "new/x"),
            ("d", "/there", "there/x"),
            ("d/.", "/", "x"),
            ("f", "/dangling", "missing"),
        ] {
            let trees = Trees::new();
            trees.write("from/f", "copied");
            trees.write("from/d/x", "copied");
            trees.write("to/there/kept", "kept");
            trees.write("to/file", "old");
            symlink("/there", trees.at("to/link")).unwrap();
            symlink("missing", trees.at("to/dangling")).unwrap();
            trees.copy(source, destination, |_| {}).unwrap();
            assert_eq!(trees.read(expected), "copied", "{source} {destination}");
            assert_eq!(trees.read("there/kept"), "kept");
        }
    }

    #[test]
    fn trees_of_strangers_have_a_bottom() {
        use crate::copy::digest::Hasher;
        for (depth, is_fine) in [(MAX_DEPTH - 2, true), (MAX_DEPTH + 1, false)] {
            let trees = Trees::new();
            let mut at = silo_sys::path::open_root(trees.at("from")).unwrap();
            for _ in 0..depth {
                rustix::fs::mkdirat(&at, "d", Mode::RWXU).unwrap();
                at = rustix::fs::openat(&at, "d", OFlags::PATH, Mode::empty()).unwrap();
            }
            assert_eq!(trees.copy("d", "/d", |_| {}).is_ok(), is_fine, "{depth}");
            let from = silo_sys::path::open_root(trees.at("from")).unwrap();
            let found = select(from.as_fd(), "d", Names::Exact).unwrap();
            let digests = crate::context::Digests::default();
            let mut hasher = Hasher::new(&digests);
            let added = hasher.add(from.as_fd(), &found[0], &Filter::default());
            assert_eq!(added.is_ok(), is_fine, "{depth}");
        }
    }

    #[test]
    fn kinds_do_not_replace_directories() {
        let trees = Trees::new();
        trees.write("from/d/x/y", "1");
        trees.write("from/e/x", "2");
        trees.write("to/d", "file");
        let error = trees.copy("d", "/d", |_| {}).unwrap_err();
        assert_eq!(error.to_string(), "cannot copy to non-directory: /d");
        trees.copy("d", "/t", |_| {}).unwrap();
        let error = trees.copy("e", "/t", |_| {}).unwrap_err();
        assert_eq!(error.to_string(), "cannot replace to directory /t/x with file");
        // A link in the way is replaced, not followed.
        trees.write("to/target", "kept");
        symlink("../target", trees.at("to/t/l")).unwrap();
        trees.write("from/g/l", "new");
        trees.copy("g", "/t", |_| {}).unwrap();
        assert_eq!((trees.read("t/l"), trees.read("target")), ("new".into(), "kept".into()));
    }

    #[test]
    fn owners_modes_times_and_links_are_kept() {
        let trees = Trees::new();
        trees.write("from/d/a", "x");
        let file = trees.at("from/d/a");
        fs_err::hard_link(&file, trees.at("from/d/b")).unwrap();
        symlink("a", trees.at("from/d/l")).unwrap();
        fs_err::create_dir(trees.at("from/d/sub")).unwrap();
        let mode = std::fs::Permissions::from_mode;
        fs_err::set_permissions(&file, mode(0o4750)).unwrap();
        fs_err::set_permissions(trees.at("from/d/sub"), mode(0o1777)).unwrap();
        rustix::fs::chown(&file, Some(Uid::from_raw(7)), Some(Gid::from_raw(8))).unwrap();
        fs_err::set_permissions(&file, mode(0o4750)).unwrap();
        trees.copy("d", "/out", |_| {}).unwrap();
        let look = |name: &str| fs_err::symlink_metadata(trees.at("to/out").join(name)).unwrap();
        let (a, b) = (look("a"), look("b"));
        assert_eq!((a.uid(), a.gid(), a.mode() & 0o7777), (7, 8, 0o4750));
        assert_eq!((a.ino(), a.nlink()), (b.ino(), 2));
        assert_eq!(a.mtime(), fs_err::metadata(&file).unwrap().mtime());
        assert!(look("l").is_symlink());
        assert_eq!(look("sub").mode() & 0o7777, 0o1777);
        trees
            .copy("d", "/owned", |options| {
                options.owner = Some((1, 2));
                options.chmod = Some(Chmod::parse("600").unwrap());
            })
            .unwrap();
        let owned = fs_err::symlink_metadata(trees.at("to/owned/a")).unwrap();
        assert_eq!((owned.uid(), owned.gid(), owned.mode() & 0o7777), (1, 2, 0o600));
    }

    #[test]
    fn names_of_windows_meet_in_any_case() {
        let trees = Trees::new();
        trees.write("from/D/FILE.txt", "new");
        trees.write("to/Out/d/file.TXT", "old");
        let root = |options: &mut Options| options.names = Names::AnyCase;
        trees.copy(".", "/OUT/", root).unwrap();
        assert_eq!(trees.read("Out/d/file.TXT"), "new");
    }
}
