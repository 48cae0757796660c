//! The text in which Wine keeps the registry: `system.reg` (`HKEY_LOCAL_MACHINE`), `user.reg`
//! (`HKEY_CURRENT_USER`), `userdef.reg` (`HKEY_USERS\.Default`).
//!
//! ```text
//! WINE REGISTRY Version 2
//! ;; All keys relative to REGISTRY\\Machine
//!
//! #arch=win64
//!
//! [System\\CurrentControlSet] 1700000000
//! #time=1da1747c66d0000
//! #class="a class"
//! #link
//! "SymbolicLinkValue"=hex(6):5c,00,...
//! ```
//!
//! The number after a key is its time in seconds since 1970, `#time` the same as a FILETIME in
//! hexadecimal. Keys that have subkeys and nothing else are not written; they have the time of
//! the first key below that is. Values are `"text"` (`REG_SZ`), `str(2):"text"` and
//! `str(7):"texts"`, `dword:`, `hex:` and, for any type, `hex(N):`; long ones continue after a
//! backslash. In names and texts a backslash escapes: `\x20ac` a UTF-16 unit in one to four
//! hexadecimal digits, `\0` to `\777` one in octal, `\n` and its like; characters above 0x7f
//! stand for themselves as in Latin-1.
//!
//! What Wine wrote is written again byte by byte. Security descriptors and layers have no place
//! in this text.

mod parse;
mod render;
mod system;

pub use parse::{parse, parse_keys};
pub use render::render;
pub use system::{attach, detach};

use crate::hive::Hive;

/// The programs for which a prefix was made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Arch {
    /// 32-bit ones only.
    Win32,
    /// 64-bit ones, perhaps 32-bit ones too.
    Win64,
}

/// One of Wine's registry files.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Registry {
    /// Where in the registry its root is, `REGISTRY\Machine`.
    pub base: String,
    /// The prefix's kind, if the file says so.
    pub arch: Option<Arch>,
    /// The keys.
    pub hive: Hive,
}

/// Why a text is no registry file of Wine's.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// Something else.
    #[error("not a registry file of Wine: it does not start with \"WINE REGISTRY Version 2\"")]
    NotWine,
    /// A line that cannot be understood.
    #[error("line {line} of Wine's registry file: {reason}")]
    Line {
        /// Its number, from 1.
        line: usize,
        /// What is wrong.
        reason: &'static str,
    },
}

#[cfg(test)]
mod tests;
