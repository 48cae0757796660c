//! Copying trees, with the rules of BuildKit:
//!
//! - A file goes into a directory that is there, under the source's name; otherwise it gets the
//!   destination's name. Of a directory, the content is copied.
//! - Directories are merged. What is there keeps its owner and mode at the top, and gets those of
//!   the source below. A file replaces anything but a directory; a directory replaces nothing.
//! - Directories that are made on the way belong to the new owner and have mode 0755.
//! - Owners, modes, times, extended attributes and hard links are kept, but for what `--chown` and
//!   `--chmod` say.
//!
//! What is copied goes through the overlay of the layers beneath, except below directories that
//! the copier itself has made: there nothing of those layers can be, so files are made in the
//! overlay's upper directory, at half the cost. The overlay has not looked into these directories
//! before, and so sees what is in them.

use std::collections::HashMap;
use std::ffi::{OsStr, OsString};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustix::fs::{AtFlags, FileType, Gid, Mode, OFlags, Stat, Timespec, Timestamps, Uid};
use rustix::io::Errno;

use super::CopyError;
use super::chmod::Chmod;
use super::file::{self, At, Attribution, clear, copy_xattrs, create, stamps};
use super::pool::{FileJob, Pool};
use super::resolve::{self, Names, is_directory};
use super::select::{Filter, Found};
use crate::context::Digests;

/// The deepest tree that is copied or read.
pub(super) const MAX_DEPTH: usize = 1000;
/// Directories that are held open until their files are there.
const MAX_HELD: usize = 64;

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
    /// The overlay's upper directory, if the root is an overlay that nobody else uses.
    upper: Option<BorrowedFd<'a>>,
    names: Names,
    attribution: Attribution,
    /// Where a file with several names was written first.
    links: HashMap<(u64, u64), PathBuf>,
    pool: Pool,
    /// The files of a source that gives them away.
    giving: Option<Arc<Digests>>,
    /// Directories, with their paths, that get the times of these when their files are there.
    held: Vec<(Arc<OwnedFd>, Stat, PathBuf)>,
    buffer: Vec<u8>,
}

/// A directory on the way down.
struct Level {
    source: Arc<OwnedFd>,
    stat: Stat,
    /// Its name at the destination.
    name: OsString,
    /// Its path there.
    shown: PathBuf,
    /// It, once it is certain that something goes into it.
    target: Option<Arc<OwnedFd>>,
    /// The target is in the upper directory.
    is_direct: bool,
    /// Its path relative to the source.
    path: String,
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
        let Options { owner, chmod, names } = options;
        let attribution = Attribution { owner, chmod };
        let pool = Pool::new(attribution.clone());
        let (links, held, buffer) = (HashMap::new(), Vec::new(), Vec::new());
        let (upper, giving) = (None, None);
        Self { root, upper, names, attribution, links, pool, giving, held, buffer }
    }

    /// Tells that the root is an overlay with this upper directory, that nobody else uses.
    pub(crate) fn with_upper(mut self, upper: BorrowedFd<'a>) -> Self {
        self.upper = (self.names == Names::Exact).then_some(upper);
        self
    }

    /// What is copied from now on comes from a source that gives its files away, or not. One
    /// copier at a time is given a source's files.
    pub(crate) fn give(&mut self, files: Option<Arc<Digests>>) {
        self.giving = files;
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
        let (mut target, there, mut is_made) = self.target(destination)?;
        let (from_directory, into) =
            (is_directory(&found.stat), there.as_ref().is_some_and(is_directory));
        if !from_directory && into {
            target.push(&found.name);
        } else if from_directory && there.is_none() {
            is_made = self.make_directories(&target)?;
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
            let direct = if is_made { self.in_upper(&target)? } else { None };
            let is_direct = direct.is_some();
            let into = match direct {
                Some(directory) => directory,
                None => opened(&target)?,
            };
            let mut top = Level {
                source: Arc::new(source),
                stat: found.stat,
                name: OsString::new(),
                shown: target,
                target: Some(Arc::new(into)),
                is_direct,
                path: String::new(),
                names: none(),
            };
            top.list()?;
            let mut levels = vec![top];
            self.children(&mut levels, filter)?;
            if let Some(level) = levels.pop() {
                self.leave(level)?;
            }
            return self.settle();
        }
        let (parent, name) = split(&target)?;
        let directory = opened(parent)?;
        let (holder, source_name) = split(&found.path)?;
        let holder = resolve::directory(from, holder).map_err(CopyError::io("open", holder))?;
        let name = self.spelled(&directory, name)?;
        let from = At { directory: holder.as_fd(), name: source_name };
        self.node(
            from,
            At { directory: directory.as_fd(), name: &name },
            &target,
            &found.stat,
            false,
        )
    }

    /// A directory that was just made, in the upper directory.
    fn in_upper(&self, path: &Path) -> Result<Option<OwnedFd>, CopyError> {
        let Some(upper) = self.upper else { return Ok(None) };
        let flags = OFlags::RDONLY | OFlags::DIRECTORY;
        silo_sys::path::open_in_root_no_links(upper, path, flags, Mode::empty())
            .map(Some)
            .map_err(CopyError::io("open", path))
    }

    /// Gives a directory its time once everything is in it.
    fn leave(&mut self, level: Level) -> Result<(), CopyError> {
        if let Some(target) = level.target {
            self.held.push((target, level.stat, level.shown));
        }
        if self.held.len() < MAX_HELD { Ok(()) } else { self.settle() }
    }

    /// Waits for all files, and then sets the times of the directories that were left.
    fn settle(&mut self) -> Result<(), CopyError> {
        self.pool.barrier()?;
        for (directory, stat, shown) in self.held.drain(..) {
            rustix::fs::futimens(&directory, &stamps(&stat))
                .map_err(CopyError::io("set the time of", shown))?;
        }
        Ok(())
    }

    /// Writes a file of these bytes as a source that is copied.
    pub(crate) fn inline(
        &mut self,
        name: &str,
        data: &[u8],
        destination: &str,
        time: i64,
    ) -> Result<(), CopyError> {
        let (mut target, there, _) = self.target(destination)?;
        if there.as_ref().is_some_and(is_directory) {
            target.push(name);
        }
        let (parent, name) = split(&target)?;
        let directory =
            resolve::directory(self.root, parent).map_err(CopyError::io("open", parent))?;
        let name = self.spelled(&directory, name)?;
        let file = create(At { directory: directory.as_fd(), name: &name }, 0o600, &target)?;
        let write = || -> io::Result<()> {
            let mut left = data;
            while !left.is_empty() {
                left = &left[rustix::io::write(&file, left)?..];
            }
            let (uid, gid) = self.attribution.owner.unwrap_or((0, 0));
            rustix::fs::fchown(&file, Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid)))?;
            let mode = self.attribution.mode(0o644, false);
            rustix::fs::fchmod(&file, Mode::from_raw_mode(mode))?;
            let time = Timespec { tv_sec: time, tv_nsec: 0 };
            let times = Timestamps { last_access: time, last_modification: time };
            Ok(rustix::fs::futimens(&file, &times)?)
        };
        write().map_err(CopyError::io("write", &target))
    }

    /// Where a destination leads, with the directories on the way, what is there, and whether that
    /// was made. With a last slash it is a directory itself.
    fn target(&self, destination: &str) -> Result<(PathBuf, Option<Stat>, bool), CopyError> {
        let clean = silo_sys::path::clean(destination);
        let mut is_made = false;
        if destination.ends_with('/') || destination.ends_with("/.") {
            is_made = self.make_directories(&clean)?;
        } else if let Some(parent) = clean.parent() {
            self.make_directories(parent)?;
        }
        let failed = || CopyError::io("resolve", &clean);
        let target = resolve::resolve(self.root, &clean, self.names).map_err(failed())?;
        let there = resolve::stat(self.root, &target).map_err(failed())?;
        Ok((target, there, is_made))
    }

    fn spelled(&self, directory: &OwnedFd, name: &OsStr) -> Result<OsString, CopyError> {
        resolve::spelled(directory.as_fd(), name, self.names).map_err(CopyError::io("list", name))
    }

    /// Makes the directories of a path that are missing; whether the last one was.
    pub(crate) fn make_directories(&self, path: &Path) -> Result<bool, CopyError> {
        let path = resolve::resolve(self.root, path, self.names)
            .map_err(CopyError::io("resolve", path))?;
        let mut done = PathBuf::new();
        let mut is_made = false;
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
                let mode = self.attribution.chmod.as_ref().map_or(0o755, Chmod::of_new_directories);
                rustix::fs::mkdirat(&parent, name, Mode::from_raw_mode(0o700))?;
                let (uid, gid) = self.attribution.owner.unwrap_or((0, 0));
                let (uid, gid) = (Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid)));
                rustix::fs::chownat(&parent, name, uid, gid, AtFlags::SYMLINK_NOFOLLOW)?;
                let made = resolve::directory(self.root, &done)?;
                Ok(rustix::fs::fchmod(&made, Mode::from_raw_mode(mode))?)
            };
            make().map_err(CopyError::io("make directory", &done))?;
            is_made = true;
        }
        Ok(is_made)
    }

    /// Copies what is in the only one of `levels`, and below: without recursion, as strangers say
    /// how deep that is.
    fn children(&mut self, levels: &mut Vec<Level>, filter: &Filter) -> Result<(), CopyError> {
        while let Some(level) = levels.last_mut() {
            let Some(name) = level.names.next() else {
                if levels.len() == 1 {
                    break;
                }
                if let Some(level) = levels.pop() {
                    self.leave(level)?;
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
                    if let Some(level) = levels.last() {
                        self.member(level, name, shown, stat)?;
                    }
                }
                continue;
            }
            let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            let source = rustix::fs::openat(&level.source, &name, flags, Mode::empty())
                .map_err(CopyError::io("open", &shown))?;
            if levels.len() == MAX_DEPTH {
                return Err(CopyError::io("list", &shown)(too_deep()));
            }
            let (source, names) = (Arc::new(source), none());
            let (target, is_direct) = (None, false);
            let mut level = Level { source, stat, name, shown, target, is_direct, path, names };
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

    /// Copies something else than a directory of a level whose target is there.
    fn member(
        &mut self,
        level: &Level,
        name: OsString,
        shown: PathBuf,
        stat: Stat,
    ) -> Result<(), CopyError> {
        let Some(target) = &level.target else { return Ok(()) };
        let spelled = self.spelled(target, &name)?;
        let is_file = FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile;
        // The rest depends on what was copied before, or what comes after on it.
        if is_file && stat.st_nlink == 1 && self.names == Names::Exact {
            return self.pool.add(FileJob {
                source: Arc::clone(&level.source),
                source_name: name,
                target: Arc::clone(target),
                name: spelled,
                stat,
                shown,
                giving: self.giving.clone().filter(|_| level.is_direct),
            });
        }
        let from = At { directory: level.source.as_fd(), name: &name };
        let to = At { directory: target.as_fd(), name: &spelled };
        self.node(from, to, &shown, &stat, level.is_direct)
    }

    /// Makes the directories of all levels be there.
    fn ensure(&mut self, levels: &mut [Level]) -> Result<(), CopyError> {
        for at in 1..levels.len() {
            if levels[at].target.is_some() {
                continue;
            }
            let (above, below) = levels.split_at_mut(at);
            let (Some(Level { target: Some(parent), is_direct, .. }), Some(level)) =
                (above.last(), below.first_mut())
            else {
                continue;
            };
            let shown = &level.shown;
            let name = self.spelled(parent, &level.name)?;
            let is_made = match rustix::fs::mkdirat(parent, &name, Mode::from_raw_mode(0o700)) {
                Ok(()) => true,
                Err(Errno::EXIST) => false,
                Err(error) => return Err(CopyError::io("make directory", shown)(error)),
            };
            let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            let mut target = match rustix::fs::openat(parent, &name, flags, Mode::empty()) {
                Ok(target) => target,
                Err(Errno::NOTDIR | Errno::LOOP) => {
                    // buildkit wording
                    let text = format!("cannot copy to non-directory: /{}", shown.display());
                    return Err(CopyError::Refused(text));
                }
                Err(error) => return Err(CopyError::io("open", shown)(error)),
            };
            let finish = || -> io::Result<()> {
                let (uid, gid) = self.attribution.owner(&level.stat);
                rustix::fs::fchown(&target, uid, gid)?;
                let mode = Mode::from_raw_mode(self.attribution.mode(level.stat.st_mode, true));
                rustix::fs::fchmod(&target, mode)?;
                copy_xattrs(level.source.as_fd(), target.as_fd())
            };
            finish().map_err(CopyError::io("set the mode of", shown))?;
            level.is_direct = *is_direct;
            if is_made
                && !level.is_direct
                && let Some(direct) = self.in_upper(shown)?
            {
                target = direct;
                level.is_direct = true;
            }
            level.target = Some(Arc::new(target));
        }
        Ok(())
    }

    /// Copies anything but a directory; `is_direct` says that it goes into the upper directory.
    fn node(
        &mut self,
        from: At<'_>,
        to: At<'_>,
        shown: &Path,
        stat: &Stat,
        is_direct: bool,
    ) -> Result<(), CopyError> {
        let kind = FileType::from_raw_mode(stat.st_mode);
        if kind == FileType::RegularFile {
            return self.file(from, to, shown, stat, is_direct);
        }
        clear(to, shown)?;
        let make = || -> io::Result<()> {
            if kind == FileType::Symlink {
                let target = rustix::fs::readlinkat(from.directory, from.name, Vec::new())?;
                rustix::fs::symlinkat(target, to.directory, to.name)?;
            } else {
                // As BuildKit: a socket becomes a FIFO's like, an empty node.
                let kind = if kind == FileType::Socket { FileType::Fifo } else { kind };
                let mode = Mode::from_raw_mode(stat.st_mode & 0o777);
                if kind == FileType::CharacterDevice && stat.st_rdev == 0 {
                    return Err(io::Error::other(
                        "a device 0:0, which overlay takes for a whiteout",
                    ));
                }
                rustix::fs::mknodat(to.directory, to.name, kind, mode, stat.st_rdev)?;
            }
            let (uid, gid) = self.attribution.owner(stat);
            rustix::fs::chownat(to.directory, to.name, uid, gid, AtFlags::SYMLINK_NOFOLLOW)?;
            if kind != FileType::Symlink {
                let mode = Mode::from_raw_mode(self.attribution.mode(stat.st_mode, false));
                rustix::fs::chmodat(to.directory, to.name, mode, AtFlags::empty())?;
            }
            let flags = AtFlags::SYMLINK_NOFOLLOW;
            Ok(rustix::fs::utimensat(to.directory, to.name, &stamps(stat), flags)?)
        };
        make().map_err(CopyError::io("create", shown))
    }

    fn file(
        &mut self,
        from: At<'_>,
        to: At<'_>,
        shown: &Path,
        stat: &Stat,
        is_direct: bool,
    ) -> Result<(), CopyError> {
        if stat.st_nlink > 1 {
            let key = (stat.st_dev, stat.st_ino);
            if let Some(first) = self.links.get(&key) {
                clear(to, shown)?;
                let (above, last) = split(first)?;
                // All that was copied is in the upper directory, whichever way it came there.
                let root = self.upper.filter(|_| is_direct).unwrap_or(self.root);
                let linked = resolve::directory(root, above).and_then(|above| {
                    let flags = AtFlags::empty();
                    Ok(rustix::fs::linkat(above, last, to.directory, to.name, flags)?)
                });
                return linked.map_err(CopyError::io("link", shown));
            }
            self.links.insert(key, shown.to_owned());
        }
        file::copy(from, to, stat, &self.attribution, None, &mut self.buffer, shown)
    }
}

fn split(path: &Path) -> Result<(&Path, &OsStr), CopyError> {
    match (path.parent(), path.file_name()) {
        (Some(parent), Some(name)) => Ok((parent, name)),
        _ => Err(CopyError::Refused("cannot replace to directory / with file".into())),
    }
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
            let digests = Digests::default();
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
    fn files_are_taken_over_once_and_as_they_are() {
        let trees = Trees::new();
        let names: Vec<String> = (0..200).map(|n| format!("from/d/s{}/f{n}", n % 7)).collect();
        for name in &names {
            trees.write(name, name);
        }
        fs_err::hard_link(trees.at("from/d/s0/f0"), trees.at("from/d/twice")).unwrap();
        let from = silo_sys::path::open_root(trees.at("from")).unwrap();
        let to = silo_sys::path::open_root(trees.at("to")).unwrap();
        let digests = Arc::new(Digests::default());
        let look = |name: &str| rustix::fs::stat(trees.at(name)).unwrap();
        for name in &names {
            digests.put(super::super::digest::version(&look(name)), [7; 32]);
        }
        let copy = |destination: &str, owner| {
            let options = Options { owner, chmod: None, names: Names::Exact };
            let mut copier = Copier::new(to.as_fd(), options).with_upper(to.as_fd());
            copier.give(Some(Arc::clone(&digests)));
            let found = select(from.as_fd(), "d", Names::Exact).unwrap();
            copier.copy(from.as_fd(), &found[0], &Filter::default(), destination).unwrap();
        };
        copy("/owned", Some((1, 2)));
        copy("/first", None);
        copy("/second", None);
        for name in &names {
            let below = name.trim_start_matches("from/d/");
            let [owned, first, second] =
                ["owned", "first", "second"].map(|to| look(&format!("to/{to}/{below}")));
            let source = look(name);
            assert_eq!(trees.read(&format!("second/{below}")), *name);
            assert_eq!((owned.st_uid, owned.st_gid), (1, 2));
            assert_ne!(owned.st_ino, source.st_ino);
            assert_ne!(second.st_ino, first.st_ino);
            // One of several names of a file is copied with the others.
            assert_eq!(first.st_ino == source.st_ino, below != "s0/f0", "{name}");
            if below != "s0/f0" {
                assert_eq!(digests.get(&super::super::digest::version(&first)), Some([7; 32]));
            }
            assert_eq!(first.st_mtime, source.st_mtime);
        }
        let (one, other) = (look("to/first/s0/f0"), look("to/first/twice"));
        assert_eq!((one.st_ino, one.st_nlink), (other.st_ino, 2));
        for directory in ["s0", "s6", "."] {
            let (there, here) =
                (look(&format!("to/first/{directory}")), look(&format!("from/d/{directory}")));
            assert_eq!((there.st_mtime, there.st_mtime_nsec), (here.st_mtime, here.st_mtime_nsec));
        }
    }

    #[test]
    fn a_file_that_cannot_be_copied_is_named() {
        let trees = Trees::new();
        for n in 0..300 {
            trees.write(&format!("from/d/f{n}"), "x");
        }
        trees.write("to/d/f250/inside", "x");
        let error = trees.copy("d", "/d", |_| {}).unwrap_err();
        assert_eq!(error.to_string(), "cannot replace to directory /d/f250 with file");
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
