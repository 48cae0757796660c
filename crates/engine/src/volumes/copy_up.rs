//! Copying what the image has at a volume's place.
//!
//! The source may hold anything that a stranger made. So every step works on descriptors, follows
//! no symbolic link of either tree, and takes names one component at a time.

use std::collections::HashMap;
use std::ffi::{CStr, CString};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use rustix::fs::{AtFlags, Dir, FileType, Mode, OFlags, Stat, Timespec, Timestamps, XattrFlags};
use rustix::path::Arg;

const DIR: OFlags = OFlags::DIRECTORY.union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);
/// A deeper tree than anybody needs. Each level costs stack and two descriptors.
const MAX_DEPTH: usize = 128;
/// More files with hard links than this are copied without, to save descriptors.
const MAX_LINKS: usize = 256;

/// Opens the directory `path`, resolved inside `root`. `None` when it is no directory.
pub(super) fn open_source(root: BorrowedFd<'_>, path: &Path) -> io::Result<Option<OwnedFd>> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    match silo_sys::path::open_in_root(root, path, flags, Mode::empty()) {
        Ok(source) => Ok(Some(source)),
        Err(error)
            if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) =>
        {
            Ok(None)
        }
        Err(error) => Err(error),
    }
}

/// Opens a directory, which must not be a link.
pub(super) fn open_dir(parent: BorrowedFd<'_>, path: impl Arg) -> rustix::io::Result<OwnedFd> {
    rustix::fs::openat(parent, path, OFlags::RDONLY | DIR, Mode::empty())
}

/// Copies everything in the directory `source`, and what the directory itself is, to the empty
/// directory `target`. Content, owners, modes, times, links and extended attributes are kept.
pub(super) fn copy_tree(source: BorrowedFd<'_>, target: BorrowedFd<'_>) -> io::Result<()> {
    copy_dir(source, target, &mut HashMap::new(), 0)
}

fn too_deep() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidInput, "directories nested too deeply")
}

/// Hard links that were made already, by the source's device and inode: a descriptor of the
/// first copy.
type Links = HashMap<(u64, u64), OwnedFd>;

pub(super) fn names(dir: BorrowedFd<'_>) -> io::Result<impl Iterator<Item = CString>> {
    let mut names = Vec::new();
    for entry in Dir::read_from(dir)? {
        let entry = entry?;
        if entry.file_name() != c"." && entry.file_name() != c".." {
            names.push(entry.file_name().to_owned());
        }
    }
    Ok(names.into_iter())
}

fn copy_dir(
    source: BorrowedFd<'_>,
    target: BorrowedFd<'_>,
    links: &mut Links,
    depth: usize,
) -> io::Result<()> {
    if depth > MAX_DEPTH {
        return Err(too_deep());
    }
    for name in names(source)? {
        let stat = rustix::fs::statat(source, &name, AtFlags::SYMLINK_NOFOLLOW)?;
        match FileType::from_raw_mode(stat.st_mode) {
            FileType::Directory => {
                let from = open_dir(source, &name)?;
                rustix::fs::mkdirat(target, &name, Mode::RWXU)?;
                let to = open_dir(target, &name)?;
                copy_dir(from.as_fd(), to.as_fd(), links, depth + 1)?;
            }
            FileType::RegularFile => copy_file(source, target, &name, &stat, links)?,
            FileType::Symlink => {
                let link = rustix::fs::readlinkat(source, &name, Vec::new())?;
                rustix::fs::symlinkat(&link, target, &name)?;
                own_at(target, &name, &stat)?;
            }
            kind @ (FileType::CharacterDevice | FileType::BlockDevice | FileType::Fifo) => {
                let mode = Mode::from_raw_mode(stat.st_mode);
                rustix::fs::mknodat(target, &name, kind, mode, stat.st_rdev)?;
                own_at(target, &name, &stat)?;
                rustix::fs::chmodat(target, &name, mode, AtFlags::empty())?;
            }
            // A socket without its owner is of no use.
            _ => {}
        }
    }
    // Last, since the entries above changed the times.
    let stat = rustix::fs::fstat(source)?;
    finish(source, target, &stat)
}

fn key(stat: &Stat) -> (u64, u64) {
    (stat.st_dev, stat.st_ino)
}

fn copy_file(
    source: BorrowedFd<'_>,
    target: BorrowedFd<'_>,
    name: &CStr,
    stat: &Stat,
    links: &mut Links,
) -> io::Result<()> {
    if let Some(first) = links.get(&key(stat)) {
        rustix::fs::linkat(first, c"", target, name, AtFlags::EMPTY_PATH)?;
        return Ok(());
    }
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let from = rustix::fs::openat(source, name, flags, Mode::empty())?;
    let flags = OFlags::RDWR | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let to = rustix::fs::openat(target, name, flags, Mode::RUSR | Mode::WUSR)?;
    if rustix::fs::ioctl_ficlone(&to, &from).is_err() {
        io::copy(
            &mut std::fs::File::from(from.try_clone()?),
            &mut std::fs::File::from(to.try_clone()?),
        )?;
    }
    finish(from.as_fd(), to.as_fd(), stat)?;
    if stat.st_nlink > 1 && links.len() < MAX_LINKS {
        links.insert(key(stat), to);
    }
    Ok(())
}

pub(super) fn times(stat: &Stat) -> Timestamps {
    let time = |seconds, nanoseconds: u64| Timespec {
        tv_sec: seconds,
        tv_nsec: i64::try_from(nanoseconds).unwrap_or(0),
    };
    Timestamps {
        last_access: time(stat.st_atime, stat.st_atime_nsec),
        last_modification: time(stat.st_mtime, stat.st_mtime_nsec),
    }
}

fn owner(stat: &Stat) -> (rustix::fs::Uid, rustix::fs::Gid) {
    (rustix::fs::Uid::from_raw(stat.st_uid), rustix::fs::Gid::from_raw(stat.st_gid))
}

fn own_at(dir: BorrowedFd<'_>, name: &CStr, stat: &Stat) -> io::Result<()> {
    let (user, group) = owner(stat);
    rustix::fs::chownat(dir, name, Some(user), Some(group), AtFlags::SYMLINK_NOFOLLOW)?;
    rustix::fs::utimensat(dir, name, &times(stat), AtFlags::SYMLINK_NOFOLLOW)?;
    Ok(())
}

/// Owner, then mode (which a change of owner would weaken), attributes, times.
pub(super) fn finish(
    source: BorrowedFd<'_>,
    target: BorrowedFd<'_>,
    stat: &Stat,
) -> io::Result<()> {
    let (user, group) = owner(stat);
    rustix::fs::fchown(target, Some(user), Some(group))?;
    rustix::fs::fchmod(target, Mode::from_raw_mode(stat.st_mode))?;
    copy_attributes(source, target)?;
    rustix::fs::futimens(target, &times(stat))?;
    Ok(())
}

fn copy_attributes(source: BorrowedFd<'_>, target: BorrowedFd<'_>) -> io::Result<()> {
    let mut list = vec![0u8; 64 * 1024];
    let length = match rustix::fs::flistxattr(source, &mut list) {
        Ok(length) => length,
        Err(rustix::io::Errno::NOTSUP | rustix::io::Errno::NOSYS) => return Ok(()),
        Err(error) => return Err(error.into()),
    };
    let mut value = vec![0u8; 64 * 1024];
    for name in list[..length].split_inclusive(|&byte| byte == 0) {
        let Ok(name) = CStr::from_bytes_with_nul(name) else { continue };
        let size = rustix::fs::fgetxattr(source, name, &mut value)?;
        match rustix::fs::fsetxattr(target, name, &value[..size], XattrFlags::empty()) {
            // The volume's file system may not have this kind; labels are the host's business.
            Ok(()) | Err(rustix::io::Errno::NOTSUP | rustix::io::Errno::PERM) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}
