//! Windows layers: what their tar records say, and how to write them. Bytes in, data out;
//! nothing here touches a file system.
//!
//! # A layer
//!
//! A layer's tar has up to three parts: `Files/`, the root of `C:`; `Hives/`, differences of
//! the registry ([`hives`]); and `UtilityVM/`. What tar has no field for is in PAX records
//! ([`entry::key`]): attributes, a security descriptor, times of 100 ns, whether a link is a
//! junction. Alternate data streams are files named `OWNER:STREAM` directly after their
//! owner, whiteouts are files named `.wh.NAME`.
//!
//! # Round trips
//!
//! [`LayerReader`] gives every tar record as a [`Record`], from which [`Record::write`] makes
//! the same bytes again: fields where they were written by the rules of [`header`], the bytes
//! themselves where not. A side record ([`side`]) holds all records of a layer; with the contents of
//! its files it makes the layer's tar, of the same digest.
//!
//! # What an entry means
//!
//! [`Entry::read`] takes a header for what importers on Windows take it for. Layers come from
//! strangers: a name or hard link that could lead out of the layer refuses it as a whole
//! ([`Refusal`]); what is malformed, or would mean something else on Linux or to Wine than to
//! its author, is dropped with a [`Finding`], and still goes out again as it came in.
//!
//! [`Planner`] turns entries into [`Op`]s for whoever unpacks a layer below a root; [`scan`]
//! is the other way: the records of a layer for changes that were found in a tree.
#![forbid(unsafe_code)]
#![warn(missing_docs)]

pub mod attributes;
pub mod descriptor;
pub mod entry;
pub mod fold;
pub mod header;
pub mod hives;
pub mod name;
pub mod path;
pub mod plan;
pub mod record;
pub mod reparse;
pub mod report;
pub mod scan;
pub mod sddl;
pub mod sid;
pub mod side;
pub mod target;
pub mod time;
pub mod tree;

pub use attributes::FileAttributes;
pub use descriptor::SecurityDescriptor;
pub use entry::{Entry, EntryKind, Times};
pub use header::Header;
pub use path::{LayerPath, Part};
pub use plan::{Op, Planner};
pub use record::{LayerReader, Record, Trailer};
pub use report::{Finding, Refusal, Report, Reports};
pub use sid::Sid;
pub use side::{SideReader, SideWriter};
pub use time::FileTime;
pub use tree::Tree;

use silo_types::{ErrorKind, Kind};

/// Why a layer could not be read or written.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The tar stream is not sound.
    #[error("cannot read the layer")]
    Archive(#[from] silo_archive::Error),
    /// An entry makes the layer unacceptable.
    #[error("entry {entry:?} of the layer is refused")]
    Refused {
        /// Its name, made printable.
        entry: String,
        /// Why.
        #[source]
        reason: Refusal,
    },
    /// More than a bound allows.
    #[error("the layer is beyond a limit: {0}")]
    Limit(&'static str),
    /// A record that tar cannot hold.
    #[error("entry {entry:?} cannot be written")]
    Unwritable {
        /// Its name, made printable.
        entry: String,
        /// Why.
        #[source]
        reason: header::Unwritable,
    },
}

impl Kind for Error {
    fn kind(&self) -> ErrorKind {
        match self {
            Self::Archive(error) => error.kind(),
            _ => ErrorKind::InvalidParameter,
        }
    }
}
