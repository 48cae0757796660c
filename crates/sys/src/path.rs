//! Paths inside a root that somebody else controls.
//!
//! Every function resolves with `openat2` and `RESOLVE_IN_ROOT | RESOLVE_NO_MAGICLINKS`
//! against a descriptor of the root, so neither `..`, nor an absolute or magic link, nor a
//! link that is swapped during the call, can name anything outside.

use std::ffi::{OsStr, OsString};
use std::io;
use std::io::Read as _;
use std::os::fd::{AsFd, AsRawFd as _, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Component, Path, PathBuf};

use rustix::fs::{AtFlags, FileType, IFlags, Mode, OFlags, ResolveFlags};
use rustix::io::Errno;

/// How often a resolution that the kernel could not prove safe, because something was
/// renamed at the same moment, is tried again.
const ATTEMPTS: usize = 128;

fn resolve(
    root: BorrowedFd<'_>,
    path: &Path,
    flags: OFlags,
    mode: Mode,
    resolve: ResolveFlags,
) -> io::Result<OwnedFd> {
    let path = if path.as_os_str().is_empty() { Path::new(".") } else { path };
    let mut attempt = 0;
    loop {
        let how = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS | resolve;
        match rustix::fs::openat2(root, path, flags | OFlags::CLOEXEC, mode, how) {
            Err(Errno::AGAIN | Errno::INTR) if attempt < ATTEMPTS => attempt += 1,
            result => return result.map_err(io::Error::from),
        }
    }
}

/// Opens `path` as seen from `root`. Links inside the root are followed, unless `flags` has
/// `NOFOLLOW` for the last component. The descriptor is close-on-exec.
pub fn open_in_root(
    root: impl AsFd,
    path: impl AsRef<Path>,
    flags: OFlags,
    mode: Mode,
) -> io::Result<OwnedFd> {
    resolve(root.as_fd(), path.as_ref(), flags, mode, ResolveFlags::empty())
}

/// As [`open_in_root`], but a link anywhere in the path is an error (`ELOOP`).
pub fn open_in_root_no_links(
    root: impl AsFd,
    path: impl AsRef<Path>,
    flags: OFlags,
    mode: Mode,
) -> io::Result<OwnedFd> {
    resolve(root.as_fd(), path.as_ref(), flags, mode, ResolveFlags::NO_SYMLINKS)
}

/// Opens a root: a directory of the host, by a path that the engine itself chose.
pub fn open_root(path: impl AsRef<Path>) -> io::Result<OwnedFd> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    rustix::fs::open(path.as_ref(), flags, Mode::empty()).map_err(io::Error::from)
}

/// Opens again, with other flags, what a descriptor (as one of `O_PATH`) stands for.
pub fn reopen(fd: impl AsFd, flags: OFlags) -> io::Result<OwnedFd> {
    let name = format!("/proc/self/fd/{}", fd.as_fd().as_raw_fd());
    rustix::fs::open(name, flags | OFlags::CLOEXEC, Mode::empty()).map_err(io::Error::from)
}

/// The names in a directory that is open to be read, sorted by their bytes.
pub fn names(directory: impl AsFd) -> io::Result<Vec<OsString>> {
    let mut names = Vec::new();
    let mut entries = rustix::fs::Dir::read_from(directory)?;
    while let Some(entry) = entries.read() {
        let entry = entry?;
        let name = entry.file_name().to_bytes();
        if name != b"." && name != b".." {
            names.push(OsStr::from_bytes(name).to_owned());
        }
    }
    names.sort_unstable();
    Ok(names)
}

/// Asks the file system to put the directories that are made in this one apart from each other,
/// each with the files in it, where it knows how to (`chattr +T` of ext4).
///
/// Otherwise ext4 puts them beside each other, among inodes that were deleted in the last minutes:
/// it keeps from these, but looks at each of them again for every new file, which may take ten
/// times as long as making the file.
pub fn spread(directory: impl AsRef<Path>) {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let opened = rustix::fs::open(directory.as_ref(), flags, Mode::empty());
    let Ok(directory) = opened else { return };
    let Ok(flags) = rustix::fs::ioctl_getflags(&directory) else { return };
    if !flags.contains(IFlags::TOPDIR) {
        // Without it is only slower.
        rustix::fs::ioctl_setflags(&directory, flags | IFlags::TOPDIR).unwrap_or(());
    }
}

/// A path made relative, without `.` and with `..` applied to the text (as Docker does
/// before it looks at a file system); never leaves the root. Empty for the root itself.
pub fn clean(path: impl AsRef<Path>) -> PathBuf {
    let mut clean = PathBuf::new();
    for component in path.as_ref().components() {
        match component {
            Component::Normal(name) => clean.push(name),
            Component::ParentDir => {
                clean.pop();
            }
            Component::CurDir | Component::RootDir | Component::Prefix(_) => {}
        }
    }
    clean
}

/// The directory that holds the last component of `path`, and that component. The parent's
/// links are followed inside the root, the last component is not looked at.
///
/// Fails with `InvalidInput` for the root itself.
pub fn parent_in_root(root: impl AsFd, path: impl AsRef<Path>) -> io::Result<(OwnedFd, OsString)> {
    let path = clean(path);
    let Some(name) = path.file_name() else {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "the root has no parent"));
    };
    let parent = path.parent().unwrap_or(Path::new(""));
    let flags = OFlags::PATH | OFlags::DIRECTORY;
    Ok((open_in_root(root, parent, flags, Mode::empty())?, name.to_owned()))
}

/// Makes the directories of `path` that are missing, with `mode`, and opens the last one
/// (`O_PATH`). Links to directories inside the root are followed; a dangling link is
/// `NotFound`, anything else that is not a directory `NotADirectory`.
pub fn mkdir_all_in_root(
    root: impl AsFd,
    path: impl AsRef<Path>,
    mode: Mode,
) -> io::Result<OwnedFd> {
    let (root, path) = (root.as_fd(), path.as_ref());
    let flags = OFlags::PATH | OFlags::DIRECTORY;
    match open_in_root(root, path, flags, Mode::empty()) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        result => return result,
    }
    let mut done = PathBuf::new();
    let mut current = open_in_root(root, "", flags, Mode::empty())?;
    for component in path.components() {
        match component {
            Component::Normal(name) => {
                done.push(name);
                current = match open_in_root(root, &done, flags, Mode::empty()) {
                    Err(error) if error.kind() == io::ErrorKind::NotFound => {
                        match rustix::fs::mkdirat(&current, name, mode) {
                            Ok(()) | Err(Errno::EXIST) => {}
                            Err(error) => return Err(error.into()),
                        }
                        open_in_root(root, &done, flags, Mode::empty())?
                    }
                    result => result?,
                };
            }
            Component::ParentDir => {
                done.push("..");
                current = open_in_root(root, &done, flags, Mode::empty())?;
            }
            Component::CurDir | Component::RootDir | Component::Prefix(_) => {}
        }
    }
    Ok(current)
}

/// Reads a file of a root that a stranger made, such as `/etc/passwd`.
///
/// Links are followed inside the root. What is found must be a regular file: it is looked at
/// before it is opened, so a FIFO does not block and a device is not touched. `None` if it
/// is larger than `limit` bytes, by its size or by what it turns out to hold.
pub fn read_regular_file_in_root(
    root: impl AsFd,
    path: impl AsRef<Path>,
    limit: u64,
) -> io::Result<Option<Vec<u8>>> {
    let found = open_in_root(root, path, OFlags::PATH, Mode::empty())?;
    let stat = rustix::fs::fstat(&found)?;
    if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "not a regular file"));
    }
    if u64::try_from(stat.st_size).is_ok_and(|size| size > limit) {
        return Ok(None);
    }
    let file = reopen(&found, OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY)?;
    let mut bytes = Vec::new();
    std::fs::File::from(file).take(limit.saturating_add(1)).read_to_end(&mut bytes)?;
    let fits = u64::try_from(bytes.len()).is_ok_and(|size| size <= limit);
    Ok(fits.then_some(bytes))
}

/// Removes `name` in `parent` with everything beneath it. Links are removed, not followed;
/// depth costs memory, not stack. What does not exist is no error.
pub fn remove_all_at(parent: impl AsFd, name: impl AsRef<OsStr>) -> io::Result<()> {
    let (parent, name) = (parent.as_fd(), name.as_ref());
    if name.is_empty() || name == "." || name == ".." || name.as_bytes().contains(&b'/') {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "not the name of an entry"));
    }
    match rustix::fs::unlinkat(parent, name, AtFlags::empty()) {
        Ok(()) | Err(Errno::NOENT) => return Ok(()),
        Err(Errno::ISDIR | Errno::PERM) => {}
        Err(error) => return Err(error.into()),
    }
    // A stack of open directories would run out of descriptors in a deep tree, so only names
    // are kept and `..` is never used: each level is reached anew from the top of a window.
    let mut pending: Vec<Vec<OsString>> = vec![vec![name.to_owned()]];
    while let Some(route) = pending.last().cloned() {
        let (directory, holder) = match descend(parent, &route) {
            Ok(found) => found,
            Err(Errno::NOENT) => {
                pending.pop();
                continue;
            }
            Err(error) => return Err(error.into()),
        };
        let mut deeper = Vec::new();
        let mut entries = rustix::fs::Dir::read_from(&directory)?;
        while let Some(entry) = entries.read() {
            let entry = entry?;
            let bytes = entry.file_name().to_bytes();
            if bytes == b"." || bytes == b".." {
                continue;
            }
            let child = OsStr::from_bytes(bytes);
            if entry.file_type() != FileType::Directory {
                match rustix::fs::unlinkat(&directory, child, AtFlags::empty()) {
                    Ok(()) | Err(Errno::NOENT) => continue,
                    Err(Errno::ISDIR | Errno::PERM) => {}
                    Err(error) => return Err(error.into()),
                }
            }
            match rustix::fs::unlinkat(&directory, child, AtFlags::REMOVEDIR) {
                Ok(()) | Err(Errno::NOENT) => {}
                Err(Errno::NOTEMPTY | Errno::EXIST) => {
                    let mut below = route.clone();
                    below.push(child.to_owned());
                    deeper.push(below);
                }
                Err(error) => return Err(error.into()),
            }
        }
        if deeper.is_empty() {
            // `directory` stays open over this: what the last reference frees, it frees outside
            // of the lock on the directory above.
            let last = route.last().map_or(name, OsString::as_os_str);
            match rustix::fs::unlinkat(&holder, last, AtFlags::REMOVEDIR) {
                Ok(()) | Err(Errno::NOENT) => {
                    pending.pop();
                }
                // Something was put in meanwhile: look again.
                Err(Errno::NOTEMPTY | Errno::EXIST) => {}
                Err(error) => return Err(error.into()),
            }
        } else {
            pending.append(&mut deeper);
        }
    }
    Ok(())
}

/// Opens the directory at the end of `route` and the one that holds it, without links.
fn descend(parent: BorrowedFd<'_>, route: &[OsString]) -> Result<(OwnedFd, OwnedFd), Errno> {
    let flags = OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let mut holder = rustix::io::fcntl_dupfd_cloexec(parent, 3)?;
    let (last, above) = route.split_last().ok_or(Errno::NOENT)?;
    for name in above {
        holder = rustix::fs::openat(&holder, name, flags | OFlags::PATH, Mode::empty())?;
    }
    let directory = rustix::fs::openat(&holder, last, flags | OFlags::RDONLY, Mode::empty())?;
    Ok((directory, holder))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    /// A directory that is removed with the value.
    struct Temporary(PathBuf);

    impl Temporary {
        fn new(name: &str) -> Self {
            let path = std::env::temp_dir().join(format!("silo-{name}-{}", std::process::id()));
            std::fs::create_dir_all(&path).unwrap();
            Self(path)
        }
    }

    impl Drop for Temporary {
        fn drop(&mut self) {
            drop(std::fs::remove_dir_all(&self.0));
        }
    }

    #[test]
    fn nothing_outside_is_reached() {
        let temporary = Temporary::new("path-outside");
        let path = &temporary.0;
        std::fs::create_dir_all(path.join("root/in")).unwrap();
        std::fs::write(path.join("secret"), b"secret").unwrap();
        std::fs::write(path.join("root/in/file"), b"file").unwrap();
        symlink("../../secret", path.join("root/in/up")).unwrap();
        symlink(path.join("secret"), path.join("root/absolute")).unwrap();
        symlink("/in/file", path.join("root/good")).unwrap();
        symlink("/proc/self/root", path.join("root/magic")).unwrap();
        let root = open_root(path.join("root")).unwrap();
        for bad in ["in/up", "absolute", "../secret", "../../secret", "magic/etc"] {
            assert!(read_regular_file_in_root(&root, bad, 100).is_err(), "{bad}");
        }
        for good in ["good", "/good", "../good", "in/../../good", "in/file"] {
            let read = read_regular_file_in_root(&root, good, 100).unwrap();
            assert_eq!(read.as_deref(), Some(&b"file"[..]), "{good}");
        }
        let made = mkdir_all_in_root(&root, "../../x/y", Mode::from_raw_mode(0o755)).unwrap();
        drop(made);
        assert!(path.join("root/x/y").is_dir());
        assert_eq!(clean("/a/../../b/./c/"), Path::new("b/c"));
        assert_eq!(parent_in_root(&root, "/in/up").unwrap().1, "up");
        assert!(parent_in_root(&root, "/..").is_err());
        let flags = OFlags::PATH;
        assert!(open_in_root_no_links(&root, "good", flags, Mode::empty()).is_err());
    }

    #[test]
    fn only_regular_files_are_read_and_only_so_much() {
        let temporary = Temporary::new("path-bounded");
        let path = &temporary.0;
        let root = open_root(path).unwrap();
        std::fs::write(path.join("small"), vec![b'x'; 100]).unwrap();
        assert_eq!(read_regular_file_in_root(&root, "small", 100).unwrap().unwrap().len(), 100);
        assert!(read_regular_file_in_root(&root, "small", 99).unwrap().is_none());
        let huge = std::fs::File::create(path.join("huge")).unwrap();
        huge.set_len(5 << 30).unwrap();
        assert!(read_regular_file_in_root(&root, "huge", 1 << 20).unwrap().is_none());
        let mode = Mode::from_raw_mode(0o666);
        rustix::fs::mknodat(&root, "fifo", FileType::Fifo, mode, 0).unwrap();
        for bad in ["fifo", "/", "missing"] {
            assert!(read_regular_file_in_root(&root, bad, 100).is_err(), "{bad}");
        }
    }

    #[test]
    fn trees_are_removed_without_following_links() {
        let temporary = Temporary::new("path-remove");
        let path = &temporary.0;
        std::fs::create_dir_all(path.join("keep")).unwrap();
        std::fs::write(path.join("keep/file"), b"").unwrap();
        let mut deep = path.join("tree");
        for _ in 0..200 {
            deep.push("d");
        }
        std::fs::create_dir_all(&deep).unwrap();
        for index in 0..300 {
            std::fs::write(path.join(format!("tree/d/f{index}")), b"").unwrap();
        }
        symlink("../keep", path.join("tree/link")).unwrap();
        let root = open_root(path).unwrap();
        remove_all_at(&root, "tree").unwrap();
        assert!(!path.join("tree").exists() && path.join("keep/file").exists());
        remove_all_at(&root, "tree").unwrap();
        for bad in ["", ".", "..", "a/b"] {
            assert!(remove_all_at(&root, bad).is_err());
        }
    }

    #[test]
    fn directories_are_spread_where_the_file_system_can() {
        let temporary = Temporary::new("spread");
        spread(&temporary.0);
        spread(temporary.0.join("missing"));
        let directory = std::fs::File::open(&temporary.0).unwrap();
        let is_ext4 = rustix::fs::fstatfs(&directory).unwrap().f_type == 0xef53;
        let is_spread = rustix::fs::ioctl_getflags(&directory)
            .is_ok_and(|flags| flags.contains(IFlags::TOPDIR));
        assert!(is_spread || !is_ext4);
    }
}
