//! Windows registry hives: bytes in, data out. No input or output of its own.
//!
//! - [`Hive`] and [`Key`] are the registry in memory: a tree of keys with class, time, security
//!   descriptor and flags, and values of any type. Names are UTF-16, keep their case, and are
//!   found without regard to it by Windows' rules.
//! - [`read()`] and [`write()`] are the binary format of hive files (`regf`), versions 1.3 to
//!   1.6; [`read_with_logs`] recovers a hive that was in use, from the logs beside it.
//! - [`delta`] handles differencing hives, as `Hives/*_Delta` in the layers of Windows images:
//!   merge a chain, or make the difference of two states.
//! - [`wine`] is the text in which Wine keeps the registry (`system.reg`), [`regfile`] the one
//!   that the registry editor exports.
//!
//! # The format
//!
//! A hive file is a base block of 4096 bytes and then bins, whose size is a multiple of 4096.
//! All numbers are little-endian; all offsets count from the first bin; `0xFFFF_FFFF` is none.
//!
//! | bytes of the base block | |
//! | --- | --- |
//! | 0 | `regf`, two sequence numbers (equal when clean), time of the last write |
//! | 20 | version 1.3 to 1.6, type, format, root key, size of the bins, cluster |
//! | 48 | 31 characters of the file's path |
//! | 144 | flags: 1 pending transactions, 2 layered keys (a differencing hive) |
//! | 508 | XOR of all numbers before |
//!
//! A bin starts with 32 bytes (`hbin`, its offset, its size) and is filled with cells. A cell is
//! a size, negative when the cell is in use, and one of: a key (`nk`), a value (`vk`), a list of
//! subkeys (`lf` `lh` `li`, or `ri` over several), a security descriptor (`sk`) that keys share,
//! data in pieces of 16344 bytes (`db`), or plain bytes.
//!
//! In a **differencing hive** (1.6) each key says what it does to the key below of the same
//! path: merge with it, hide it (tombstone), replace its own data, or replace its whole tree
//! ([`Semantics`]); a value can be a tombstone too. See [`delta`].
//!
//! **Logs** hold what was not yet written into the hive: pages by a bitmap (`DIRT`, up to
//! Windows 8) or numbered entries of pages with Marvin32 checksums (`HvLE`, since 8.1). They are
//! applied in memory only.
//!
//! # Hostile input
//!
//! No input makes these functions panic. Depth is limited to [`MAX_DEPTH`], each key cell is
//! read once, and everything that is read for a hive together is at most a few times the file's
//! length, even if cells share or overlap their contents.
#![forbid(unsafe_code)]
#![warn(missing_docs)]

pub mod delta;
mod error;
mod hive;
mod key;
mod log;
mod name;
mod read;
pub mod regfile;
#[cfg(test)]
mod sample;
mod text;
mod time;
mod upcase;
mod value;
pub mod wine;
mod write;

pub use error::Error;
pub use hive::{Hive, Recovery};
pub use key::{Key, KeyFlags, Layer, MAX_DEPTH, MAX_KEY_NAME, Semantics};
pub use name::Name;
pub use read::{read, read_with_logs};
pub use time::FileTime;
pub use upcase::upcase;
pub use value::{MAX_VALUE_NAME, Value, ValueType};
pub use write::{WriteOptions, write};
