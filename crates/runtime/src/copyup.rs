//! Filling a new tmpfs with what it is going to cover.

use std::io;
use std::os::fd::OwnedFd;

use rustix::fs::{AtFlags, FileType, Gid, Mode, OFlags, Uid};
use silo_sys::path::reopen;

/// The deepest tree that is copied.
const DEPTH_MAX: usize = 128;

/// Copies everything in the directory `from` into the directory `to`, with owners and modes.
/// Links are copied as links.
pub(crate) fn copy(from: &OwnedFd, to: &OwnedFd) -> io::Result<()> {
    let from = reopen(from, OFlags::RDONLY | OFlags::DIRECTORY)?;
    let to = reopen(to, OFlags::RDONLY | OFlags::DIRECTORY)?;
    copy_directory(&from, &to, 0)
}

fn copy_directory(from: &OwnedFd, to: &OwnedFd, depth: usize) -> io::Result<()> {
    if depth > DEPTH_MAX {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "directories nested too deeply"));
    }
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let mut entries = rustix::fs::Dir::read_from(from)?;
    while let Some(entry) = entries.read() {
        let entry = entry?;
        let name = entry.file_name();
        if matches!(name.to_bytes(), b"." | b"..") {
            continue;
        }
        let stat = rustix::fs::statat(from, name, AtFlags::SYMLINK_NOFOLLOW)?;
        let mode = Mode::from_raw_mode(stat.st_mode & 0o7777);
        let kind = FileType::from_raw_mode(stat.st_mode);
        match kind {
            FileType::Directory => {
                rustix::fs::mkdirat(to, name, Mode::RWXU)?;
                let below = flags | OFlags::DIRECTORY;
                let inner_from = rustix::fs::openat(from, name, below, Mode::empty())?;
                let inner_to = rustix::fs::openat(to, name, below, Mode::empty())?;
                copy_directory(&inner_from, &inner_to, depth + 1)?;
            }
            FileType::RegularFile => {
                let source =
                    rustix::fs::openat(from, name, flags | OFlags::NONBLOCK, Mode::empty())?;
                let create = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
                let target = rustix::fs::openat(to, name, create, Mode::RWXU)?;
                io::copy(&mut std::fs::File::from(source), &mut std::fs::File::from(target))?;
            }
            FileType::Symlink => {
                let text = rustix::fs::readlinkat(from, name, Vec::new())?;
                rustix::fs::symlinkat(text.as_c_str(), to, name)?;
            }
            other => rustix::fs::mknodat(to, name, other, mode, stat.st_rdev)?,
        }
        let owner = (Some(Uid::from_raw(stat.st_uid)), Some(Gid::from_raw(stat.st_gid)));
        rustix::fs::chownat(to, name, owner.0, owner.1, AtFlags::SYMLINK_NOFOLLOW)?;
        if kind != FileType::Symlink {
            rustix::fs::chmodat(to, name, mode, AtFlags::empty())?;
        }
    }
    Ok(())
}
