//! Files of one group, read and written relative to its directory.

use std::io;
use std::os::fd::BorrowedFd;

use rustix::fs::{Mode, OFlags};

/// Most that is read of one file. The largest, statistics by device, have a few kilobytes.
const MOST: usize = 1 << 20;

/// The whole text of a file.
pub(crate) fn read(dir: BorrowedFd<'_>, name: &str) -> io::Result<String> {
    let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NOFOLLOW;
    let file = rustix::fs::openat(dir, name, flags, Mode::empty())?;
    let mut bytes = vec![0; 4096];
    let mut filled = 0;
    loop {
        let count = rustix::io::retry_on_intr(|| rustix::io::read(&file, &mut bytes[filled..]))?;
        if count == 0 {
            break;
        }
        filled += count;
        if filled == bytes.len() {
            if filled >= MOST {
                return Err(io::Error::from(io::ErrorKind::FileTooLarge));
            }
            bytes.resize(filled * 2, 0);
        }
    }
    bytes.truncate(filled);
    String::from_utf8(bytes).map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))
}

/// Writes a value in one call, which is what the kernel wants.
pub(crate) fn write(dir: BorrowedFd<'_>, name: &str, value: &str) -> io::Result<()> {
    let flags = OFlags::WRONLY | OFlags::CLOEXEC | OFlags::NOFOLLOW | OFlags::TRUNC;
    let file = rustix::fs::openat(dir, name, flags, Mode::empty())?;
    rustix::io::retry_on_intr(|| rustix::io::write(&file, value.as_bytes()))?;
    Ok(())
}

/// The number that a file consists of; `max` is the largest.
pub(crate) fn read_number(dir: BorrowedFd<'_>, name: &str) -> io::Result<u64> {
    number(&read(dir, name)?)
}

/// A number as the kernel writes it.
pub(crate) fn number(text: &str) -> io::Result<u64> {
    let text = text.trim();
    if text == "max" {
        return Ok(u64::MAX);
    }
    text.parse().map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))
}

/// The lines `key value` of a flat file, those that are not of this form left out.
pub(crate) fn pairs(text: &str) -> impl Iterator<Item = (&str, u64)> {
    text.lines().filter_map(|line| {
        let (key, value) = line.split_once(' ')?;
        Some((key, value.trim().parse().ok()?))
    })
}

/// The value of one key of a flat file, 0 if it is not there.
pub(crate) fn pair(text: &str, wanted: &str) -> u64 {
    pairs(text).find(|(key, _)| *key == wanted).map_or(0, |(_, value)| value)
}
