//! The base block.

use super::bytes::{u16_at, u32_at, u64_at};
use crate::error::Error;
use crate::time::FileTime;

/// Size of the base block; bins follow.
pub(crate) const BASE: usize = 4096;

/// What of the base block matters.
#[derive(Debug, Clone)]
pub(crate) struct Base {
    pub(crate) primary: u32,
    pub(crate) secondary: u32,
    pub(crate) written: FileTime,
    pub(crate) major: u32,
    pub(crate) minor: u32,
    /// 0 for hives, else the format of a log.
    pub(crate) kind: u32,
    /// Offset of the root key.
    pub(crate) root: u32,
    /// Bytes of bins.
    pub(crate) size: u32,
    pub(crate) name: String,
    pub(crate) flags: u32,
    pub(crate) checksum_fits: bool,
}

impl Base {
    /// Reads the base block of a hive file, or the first sector of a log. What it says may be
    /// wrong if the checksum does not fit.
    pub(crate) fn parse(bytes: &[u8]) -> Result<Self, Error> {
        if !bytes.starts_with(b"regf") {
            return Err(Error::NotHive("it does not start with \"regf\""));
        }
        if bytes.len() < 512 {
            return Err(Error::NotHive("it ends within the base block"));
        }
        let name: Vec<u16> = (48..112)
            .step_by(2)
            .map(|at| u16_at(bytes, at))
            .take_while(|&unit| unit != 0)
            .collect();
        Ok(Self {
            primary: u32_at(bytes, 4),
            secondary: u32_at(bytes, 8),
            written: FileTime(u64_at(bytes, 12)),
            major: u32_at(bytes, 20),
            minor: u32_at(bytes, 24),
            kind: u32_at(bytes, 28),
            root: u32_at(bytes, 36),
            size: u32_at(bytes, 40),
            name: String::from_utf16_lossy(&name),
            flags: u32_at(bytes, 144),
            checksum_fits: checksum(bytes) == u32_at(bytes, 508),
        })
    }

    /// Whether the file is complete without logs.
    pub(crate) fn is_clean(&self) -> bool {
        self.checksum_fits && self.primary == self.secondary
    }

    /// Whether keys of the hive have layers.
    pub(crate) fn is_layered(&self) -> bool {
        self.minor >= 6 && self.flags & 2 != 0
    }
}

/// The checksum over the first 508 bytes.
pub(crate) fn checksum(bytes: &[u8]) -> u32 {
    let sum = (0..508).step_by(4).fold(0, |sum, at| sum ^ u32_at(bytes, at));
    match sum {
        u32::MAX => u32::MAX - 1,
        0 => 1,
        sum => sum,
    }
}
