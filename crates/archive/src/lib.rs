//! Tar streams, whiteouts and compression. Bytes in, data out: nothing here knows a path of
//! the host.
//!
//! # What a tar stream is here
//!
//! [`Reader`] takes V7, ustar, PAX and GNU archives: long names, base-256 numbers, extended
//! attributes (`SCHILY.xattr.`), and sparse files of the old GNU form and of PAX forms 0.0,
//! 0.1 and 1.0. Two readers that see different entries in one stream are an attack
//! (CVE-2025-62518): where GNU tar and Go's `archive/tar`, which all of Docker is made with,
//! would disagree, the stream is refused with [`Error::Ambiguous`]. That is the case for
//!
//! * a size on an entry that has no data (links, devices, directories);
//! * GNU long names and a PAX header for one entry, or two PAX headers for one entry;
//! * a global PAX header that changes a name, size, owner or attribute (Go ignores it), or
//!   that stands between an extension header and its entry (Go forgets the extension);
//! * a file whose name ends in a slash (V7 directories have a type of their own);
//! * a name prefix where GNU tar has times;
//! * numbers, PAX records or sparse maps with anything but their canonical characters;
//! * entry types that one of them skips (volume labels, multi-volume, incremental dumps).
//!
//! All sizes that a stream can ask for are bounded by constants of [`reader`].
//!
//! # Compression
//!
//! [`compress`] tells gzip, zstd, bzip2 and xz by their first bytes and decodes them in bounded
//! memory, while they are read; see there for the bounds. A stream that ends early, or that
//! something else follows, is an error.
//!
//! # Whiteouts
//!
//! In a layer, `.wh.NAME` removes `NAME` of the layers beneath and `.wh..wh..opq` hides all
//! that they have in its directory (OCI image specification, "Whiteouts"); see [`whiteout`].
#![warn(missing_docs)]

pub mod compress;
pub mod entry;
pub mod gzip;
mod number;
pub mod pax;
pub mod pipe;
pub mod reader;
mod sparse;
pub mod whiteout;
pub mod writer;

pub use compress::Compression;
pub use entry::{Entry, EntryKind, Segment, Time};
pub use reader::{RawTap, Reader};
pub use writer::Writer;

use silo_types::{ErrorKind, Kind};

/// Why a stream could not be read or written.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The source failed.
    #[error("cannot read the archive")]
    Read(#[source] std::io::Error),
    /// The destination failed.
    #[error("cannot write the archive")]
    Write(#[source] std::io::Error),
    /// The stream ends within an entry.
    #[error("the archive is truncated at byte {offset}")]
    Truncated {
        /// Where, in bytes of the uncompressed stream.
        offset: u64,
    },
    /// Not a tar stream, or a damaged one.
    #[error("invalid tar header at byte {offset}: {reason}")]
    Malformed {
        /// Where the entry's header begins.
        offset: u64,
        /// What is wrong.
        reason: String,
    },
    /// A stream that different readers take differently.
    #[error("ambiguous tar header at byte {offset}: {reason}")]
    Ambiguous {
        /// Where the entry's header begins.
        offset: u64,
        /// What they would disagree about.
        reason: String,
    },
    /// More than a bound allows.
    #[error("the entry at byte {offset} is beyond a limit: {reason}")]
    Limit {
        /// Where the entry's header begins.
        offset: u64,
        /// Which limit.
        reason: String,
    },
    /// An entry that the tar format cannot hold.
    #[error("cannot be written as a tar entry: {0}")]
    Unwritable(&'static str),
}

impl Kind for Error {
    fn kind(&self) -> ErrorKind {
        match self {
            Self::Write(_) => ErrorKind::Internal,
            _ => ErrorKind::InvalidParameter,
        }
    }
}

/// A tar stream is a sequence of blocks of this many bytes.
pub const BLOCK: usize = 512;
