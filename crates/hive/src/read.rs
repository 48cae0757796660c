//! Reading hive files.

mod base;
mod bytes;
mod tree;

pub(crate) use base::{BASE, Base, checksum};
pub(crate) use bytes::{u32_at, u64_at};

use crate::error::Error;
use crate::hive::{Hive, Recovery};
use crate::log;

/// Reads a hive file. A hive that was in use is read as it stands, and says so
/// ([`Recovery::Dirty`]).
pub fn read(bytes: &[u8]) -> Result<Hive, Error> {
    read_with_logs(bytes, &[])
}

/// Reads a hive file and, if it was in use, completes it from the logs beside it (`.LOG1` and
/// `.LOG2`, or `.LOG`), which may be given in any order. Logs of a complete hive, and what is no
/// log of this hive, are left aside, as Windows does.
pub fn read_with_logs(bytes: &[u8], logs: &[&[u8]]) -> Result<Hive, Error> {
    let base = Base::parse(bytes)?;
    if base.is_clean() {
        return tree::read(bytes, &base, Recovery::Clean);
    }
    if let Some(recovered) = log::recover(bytes, &base, logs) {
        let base = Base::parse(&recovered)?;
        return tree::read(&recovered, &base, Recovery::Replayed);
    }
    if !base.checksum_fits {
        return Err(Error::BaseBlock);
    }
    tree::read(bytes, &base, Recovery::Dirty)
}
