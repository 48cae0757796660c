//! Paths to places that need not exist yet.

use std::ffi::{OsStr, OsString};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Component, Path, PathBuf};

use rustix::fs::{AtFlags, FileType, Mode, OFlags, Stat};
use rustix::io::Errno;
use silo_sys::path;

/// How many links a path may go through, as the kernel's limit.
const MAX_LINKS: usize = 40;

/// How names are compared in a root.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Names {
    /// Byte by byte.
    Exact,
    /// As on Windows.
    AnyCase,
}

/// A name as an entry of a directory has it, which on Windows may be spelled otherwise.
pub(crate) fn spelled(
    directory: BorrowedFd<'_>,
    name: &OsStr,
    names: Names,
) -> io::Result<OsString> {
    if names == Names::Exact
        || rustix::fs::statat(directory, name, AtFlags::SYMLINK_NOFOLLOW).is_ok()
    {
        return Ok(name.to_owned());
    }
    let Some(text) = name.to_str() else { return Ok(name.to_owned()) };
    let opened = path::reopen(directory, OFlags::RDONLY | OFlags::DIRECTORY)?;
    let found = silo_windows::path::spelling(&[opened.as_fd()], &[text.to_owned()])?;
    Ok(found.into_os_string())
}

/// A path below a root with all links resolved inside the root, as far as it exists; the rest as
/// it is written. The last component's link is followed too.
pub(crate) fn resolve(root: BorrowedFd<'_>, path: &Path, names: Names) -> io::Result<PathBuf> {
    let mut done = PathBuf::new();
    let mut pending: Vec<OsString> = parts(path);
    let mut links = 0;
    while let Some(part) = pending.pop() {
        if part == ".." {
            done.pop();
            continue;
        }
        let flags = OFlags::PATH | OFlags::DIRECTORY;
        let part = match path::open_in_root_no_links(root, &done, flags, Mode::empty()) {
            Ok(directory) => spelled(directory.as_fd(), &part, names)?,
            Err(error) => match Errno::from_io_error(&error) {
                Some(Errno::NOENT | Errno::NOTDIR) => part,
                _ => return Err(error),
            },
        };
        done.push(&part);
        let link = path::open_in_root_no_links(
            root,
            &done,
            OFlags::PATH | OFlags::NOFOLLOW,
            Mode::empty(),
        );
        let Ok(link) = link else { continue };
        let stat = rustix::fs::fstat(&link)?;
        if FileType::from_raw_mode(stat.st_mode) != FileType::Symlink {
            continue;
        }
        links += 1;
        if links > MAX_LINKS {
            return Err(Errno::LOOP.into());
        }
        let target = rustix::fs::readlinkat(&link, "", Vec::new())?;
        let target = PathBuf::from(OsStr::from_bytes(target.as_bytes()));
        done.pop();
        if target.is_absolute() {
            done = PathBuf::new();
        }
        pending.extend(parts(&target));
    }
    Ok(done)
}

/// The components, last one first.
fn parts(path: &Path) -> Vec<OsString> {
    let mut parts: Vec<OsString> = path
        .components()
        .filter_map(|component| match component {
            Component::Normal(name) => Some(name.to_owned()),
            Component::ParentDir => Some("..".into()),
            _ => None,
        })
        .collect();
    parts.reverse();
    parts
}

/// What is at a path that [`resolve`] gave; `None` for nothing.
pub(crate) fn stat(root: BorrowedFd<'_>, path: &Path) -> io::Result<Option<Stat>> {
    let flags = OFlags::PATH | OFlags::NOFOLLOW;
    match path::open_in_root_no_links(root, path, flags, Mode::empty()) {
        Ok(found) => Ok(Some(rustix::fs::fstat(&found)?)),
        Err(error) => match Errno::from_io_error(&error) {
            Some(Errno::NOENT | Errno::NOTDIR) => Ok(None),
            _ => Err(error),
        },
    }
}

pub(crate) fn is_directory(stat: &Stat) -> bool {
    FileType::from_raw_mode(stat.st_mode) == FileType::Directory
}

/// Opens a directory that [`resolve`] gave.
pub(crate) fn directory(root: BorrowedFd<'_>, path: &Path) -> io::Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW;
    path::open_in_root_no_links(root, path, flags, Mode::empty())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn links_stay_inside() {
        let temporary = tempfile::tempdir().unwrap();
        let at = |name: &str| temporary.path().join(name);
        fs_err::create_dir_all(at("root/a/b")).unwrap();
        fs_err::create_dir_all(at("root/etc")).unwrap();
        for (target, link) in [
            ("/a", "root/abs"),
            ("../../../etc", "root/a/up"),
            ("missing/x", "root/dangling"),
            ("loop", "root/loop"),
            ("b", "root/a/c"),
        ] {
            symlink(target, at(link)).unwrap();
        }
        let root = path::open_root(at("root")).unwrap();
        for (path, expected) in [
            ("/a/b", "a/b"),
            ("abs/b/new/deep", "a/b/new/deep"),
            ("a/up/passwd", "etc/passwd"),
            ("dangling", "missing/x"),
            ("../../x", "x"),
            ("a/c", "a/b"),
            ("", ""),
        ] {
            let found = resolve(root.as_fd(), Path::new(path), Names::Exact).unwrap();
            assert_eq!(found, Path::new(expected), "{path}");
        }
        assert!(resolve(root.as_fd(), Path::new("loop"), Names::Exact).is_err());
        let found = resolve(root.as_fd(), Path::new("A/B/New"), Names::AnyCase).unwrap();
        assert_eq!(found, Path::new("a/b/New"));
    }
}
