//! The ground every Silo crate stands on: typed ids, digests, error kinds with their HTTP
//! statuses and exit codes, sizes, durations and times as Docker writes them, escapes of URLs and
//! comma-separated values as it reads them.
//!
//! Nothing here does I/O except [`id`], which asks the kernel for random bytes.
#![warn(missing_docs)]

pub mod csv;
pub mod digest;
pub mod duration;
pub mod error;
pub mod id;
pub mod query;
pub mod size;
pub mod time;

pub use digest::{Digest, DigestError};
pub use error::{Error, ErrorKind, Kind};
pub use id::{ContainerId, ExecId, IdError, NetworkId, VolumeName};
