//! Whether two trees are the same but for times: names, kinds, modes, owners, attributes, contents.

use std::ffi::{OsStr, OsString};
use std::io::{self, Read as _};
use std::os::fd::{AsFd, AsRawFd as _, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;

use rustix::fs::{AtFlags, FileType, Mode, OFlags};
use silo_store::tree::xattrs;

/// Directories in each other.
const MAX_DEPTH: usize = 1024;

/// Compares what is in two directories; they themselves do not count.
pub(crate) fn is_same(one: BorrowedFd<'_>, two: BorrowedFd<'_>) -> io::Result<bool> {
    let open = |directory| silo_sys::path::reopen(directory, OFlags::RDONLY | OFlags::DIRECTORY);
    children(&open(one)?, &open(two)?, 0)
}

fn names(directory: &OwnedFd) -> io::Result<Vec<OsString>> {
    let mut names = Vec::new();
    let mut entries = rustix::fs::Dir::read_from(directory)?;
    while let Some(entry) = entries.read() {
        let entry = entry?;
        let name = OsStr::from_bytes(entry.file_name().to_bytes());
        if name != "." && name != ".." {
            names.push(name.to_owned());
        }
    }
    names.sort();
    Ok(names)
}

fn children(one: &OwnedFd, two: &OwnedFd, depth: usize) -> io::Result<bool> {
    let list = names(one)?;
    if depth > MAX_DEPTH || list != names(two)? {
        return Ok(false);
    }
    for name in list {
        if !node(one, two, &name, depth)? {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Whether a directory hides what the layers beneath have in it.
fn is_opaque(directory: &OwnedFd) -> bool {
    let route = format!("/proc/self/fd/{}", directory.as_raw_fd());
    let mut value = [0_u8; 1];
    ["trusted.overlay.opaque", "user.overlay.opaque"]
        .iter()
        .any(|name| rustix::fs::getxattr(&*route, *name, &mut value[..]).is_ok())
}

fn node(one: &OwnedFd, two: &OwnedFd, name: &OsStr, depth: usize) -> io::Result<bool> {
    let stat = |directory| rustix::fs::statat(directory, name, AtFlags::SYMLINK_NOFOLLOW);
    let (a, b) = (stat(one)?, stat(two)?);
    if (a.st_mode, a.st_uid, a.st_gid) != (b.st_mode, b.st_uid, b.st_gid) {
        return Ok(false);
    }
    let open = |directory: &OwnedFd, flags: OFlags| {
        let flags = flags | OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        rustix::fs::openat(directory, name, flags, Mode::empty())
    };
    match FileType::from_raw_mode(a.st_mode) {
        FileType::Symlink => {
            let target = |directory| rustix::fs::readlinkat(directory, name, Vec::new());
            Ok(target(one)? == target(two)?)
        }
        FileType::RegularFile => {
            if a.st_size != b.st_size {
                return Ok(false);
            }
            let (a, b) = (open(one, OFlags::NONBLOCK)?, open(two, OFlags::NONBLOCK)?);
            Ok(xattrs(a.as_fd())? == xattrs(b.as_fd())? && content(a, b)?)
        }
        FileType::Directory => {
            let (a, b) = (open(one, OFlags::DIRECTORY)?, open(two, OFlags::DIRECTORY)?);
            Ok(xattrs(a.as_fd())? == xattrs(b.as_fd())?
                && is_opaque(&a) == is_opaque(&b)
                && children(&a, &b, depth + 1)?)
        }
        _ => Ok(a.st_rdev == b.st_rdev),
    }
}

/// Compares two files of one size.
fn content(one: OwnedFd, two: OwnedFd) -> io::Result<bool> {
    let (mut one, mut two) = (std::fs::File::from(one), std::fs::File::from(two));
    let mut buffers = (vec![0; 128 << 10], vec![0; 128 << 10]);
    loop {
        let count = one.read(&mut buffers.0)?;
        if count == 0 {
            return Ok(two.read(&mut buffers.1)? == 0);
        }
        match two.read_exact(&mut buffers.1[..count]) {
            Ok(()) if buffers.0[..count] == buffers.1[..count] => {}
            Ok(()) => return Ok(false),
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(false),
            Err(error) => return Err(error),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt as _, symlink};
    use std::path::Path;

    use super::*;

    fn tree(root: &Path) {
        fs_err::create_dir_all(root.join("a/b")).unwrap();
        fs_err::write(root.join("a/file"), "content").unwrap();
        symlink("target", root.join("a/link")).unwrap();
    }

    #[test]
    fn all_but_times_counts() {
        type Case = (&'static str, fn(&Path), bool);
        let cases: [Case; 8] = [
            ("nothing", |_| {}, true),
            (
                "a time",
                |root| {
                    let time = rustix::fs::Timespec { tv_sec: 5, tv_nsec: 0 };
                    let times =
                        rustix::fs::Timestamps { last_access: time, last_modification: time };
                    let file = fs_err::File::open(root.join("a/file")).unwrap();
                    rustix::fs::futimens(file.file(), &times).unwrap();
                },
                true,
            ),
            ("content", |root| fs_err::write(root.join("a/file"), "CONTENT").unwrap(), false),
            ("size", |root| fs_err::write(root.join("a/file"), "more content").unwrap(), false),
            (
                "mode",
                |root| {
                    let mode = std::fs::Permissions::from_mode(0o600);
                    fs_err::set_permissions(root.join("a/file"), mode).unwrap();
                },
                false,
            ),
            ("another file", |root| fs_err::write(root.join("a/b/x"), "").unwrap(), false),
            ("no file", |root| fs_err::remove_dir(root.join("a/b")).unwrap(), false),
            (
                "another target",
                |root| {
                    fs_err::remove_file(root.join("a/link")).unwrap();
                    symlink("other", root.join("a/link")).unwrap();
                },
                false,
            ),
        ];
        for (name, change, expected) in cases {
            let temporary = tempfile::tempdir().unwrap();
            let (one, two) = (temporary.path().join("one"), temporary.path().join("two"));
            tree(&one);
            tree(&two);
            change(&two);
            let open = |path: &Path| silo_sys::path::open_root(path).unwrap();
            let same = is_same(open(&one).as_fd(), open(&two).as_fd()).unwrap();
            assert_eq!(same, expected, "{name}");
        }
    }
}
