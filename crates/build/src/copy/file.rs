//! One file: its content, owner, mode, attributes and time.

use std::ffi::OsStr;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use rustix::fs::{AtFlags, Gid, Mode, OFlags, Stat, Timespec, Timestamps, Uid, XattrFlags};
use rustix::io::Errno;

use super::CopyError;
use super::chmod::Chmod;
use super::digest::version;
use crate::context::Digests;

/// Bytes that are copied at once.
const PIECE: usize = 256 << 10;

/// Whose copies are, and with which modes.
#[derive(Debug, Clone, Default)]
pub(crate) struct Attribution {
    /// Everything belongs to these.
    pub(crate) owner: Option<(u32, u32)>,
    /// Everything gets this mode.
    pub(crate) chmod: Option<Chmod>,
}

impl Attribution {
    /// Owner and group of a copy.
    pub(crate) fn owner(&self, stat: &Stat) -> (Option<Uid>, Option<Gid>) {
        let (uid, gid) = self.owner.unwrap_or((stat.st_uid, stat.st_gid));
        (Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid)))
    }

    /// The mode of a copy.
    pub(crate) fn mode(&self, mode: u32, is_directory: bool) -> u32 {
        match &self.chmod {
            Some(chmod) => chmod.apply(mode & 0o7777, is_directory),
            None => mode & 0o7777,
        }
    }

    /// Whether a copy of a file looks as the file itself.
    fn changes_nothing(&self, stat: &Stat) -> bool {
        self.owner.is_none_or(|owner| owner == (stat.st_uid, stat.st_gid))
            && self.mode(stat.st_mode, false) == stat.st_mode & 0o7777
    }
}

/// A name in a directory that is open.
#[derive(Debug, Clone, Copy)]
pub(crate) struct At<'a> {
    pub(crate) directory: BorrowedFd<'a>,
    pub(crate) name: &'a OsStr,
}

/// Copies a regular file; what has the name is replaced, unless it is a directory. `giving` knows
/// the files of a source that gives its files away: then the copy is another name of the same file,
/// where nobody else has been given it.
pub(crate) fn copy(
    from: At<'_>,
    to: At<'_>,
    stat: &Stat,
    attribution: &Attribution,
    giving: Option<&Digests>,
    buffer: &mut Vec<u8>,
    shown: &Path,
) -> Result<(), CopyError> {
    if let Some(known) = giving
        && stat.st_nlink == 1
        && attribution.changes_nothing(stat)
        && give(from, to, stat, known, shown)?
    {
        return Ok(());
    }
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let source = rustix::fs::openat(from.directory, from.name, flags, Mode::empty())
        .map_err(CopyError::io("open", shown))?;
    let mode = attribution.mode(stat.st_mode, false);
    let target = create(to, mode & 0o777, shown)?;
    let mut finish = || -> io::Result<()> {
        copy_content(&source, &target, stat, buffer)?;
        let made = rustix::fs::fstat(&target)?;
        let (uid, gid) = attribution.owner(stat);
        let is_owned =
            uid == Some(Uid::from_raw(made.st_uid)) && gid == Some(Gid::from_raw(made.st_gid));
        if !is_owned {
            rustix::fs::fchown(&target, uid, gid)?;
        }
        if made.st_mode & 0o7777 != mode {
            rustix::fs::fchmod(&target, Mode::from_raw_mode(mode))?;
        }
        copy_xattrs(source.as_fd(), target.as_fd())?;
        Ok(rustix::fs::futimens(&target, &stamps(stat))?)
    };
    finish().map_err(CopyError::io("copy", shown))
}

/// Makes another name of a file without attributes; false if that is not possible.
fn give(
    from: At<'_>,
    to: At<'_>,
    stat: &Stat,
    known: &Digests,
    shown: &Path,
) -> Result<bool, CopyError> {
    let Some(digest) = known.get(&version(stat)) else { return Ok(false) };
    let link =
        || rustix::fs::linkat(from.directory, from.name, to.directory, to.name, AtFlags::empty());
    let made = match link() {
        Err(Errno::EXIST) => {
            clear(to, shown)?;
            link()
        }
        made => made,
    };
    if made.is_err() {
        return Ok(false);
    }
    // The second name is a change of the file, whose content is known.
    let now = rustix::fs::statat(to.directory, to.name, AtFlags::SYMLINK_NOFOLLOW)
        .map_err(CopyError::io("look at", shown))?;
    known.put(version(&now), digest);
    Ok(true)
}

/// Makes a file of that name; what has it is removed unless it is a directory.
pub(crate) fn create(at: At<'_>, mode: u32, shown: &Path) -> Result<OwnedFd, CopyError> {
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
    let open = || rustix::fs::openat(at.directory, at.name, flags, Mode::from_raw_mode(mode));
    let made = match open() {
        Err(Errno::EXIST) => {
            clear(at, shown)?;
            open()
        }
        made => made,
    };
    made.map_err(CopyError::io("create", shown))
}

/// Removes what has a name, unless it is a directory.
pub(crate) fn clear(at: At<'_>, shown: &Path) -> Result<(), CopyError> {
    match rustix::fs::unlinkat(at.directory, at.name, AtFlags::empty()) {
        Ok(()) | Err(Errno::NOENT) => Ok(()),
        // buildkit wording
        Err(Errno::ISDIR | Errno::PERM) => Err(CopyError::Refused(format!(
            "cannot replace to directory /{} with file",
            shown.display()
        ))),
        Err(error) => Err(CopyError::io("remove", shown)(error)),
    }
}

/// The times of a copy.
pub(crate) fn stamps(stat: &Stat) -> Timestamps {
    let nanos = |nanos: u64| i64::try_from(nanos).unwrap_or(0);
    let time = Timespec { tv_sec: stat.st_mtime, tv_nsec: nanos(stat.st_mtime_nsec) };
    Timestamps { last_access: time, last_modification: time }
}

/// Copies the bytes, by the kernel where it can.
fn copy_content(from: &OwnedFd, to: &OwnedFd, stat: &Stat, buffer: &mut Vec<u8>) -> io::Result<()> {
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
pub(crate) fn copy_xattrs(from: BorrowedFd<'_>, to: BorrowedFd<'_>) -> io::Result<()> {
    for (name, value) in silo_store::tree::xattrs(from)? {
        match rustix::fs::fsetxattr(to, &name[..], &value, XattrFlags::empty()) {
            Ok(()) | Err(Errno::OPNOTSUPP) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}
