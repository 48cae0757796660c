//! What can be wrong with a hive.

/// Why a hive cannot be read or written.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// Something else, or only the beginning of a hive.
    #[error("not a registry hive: {0}")]
    NotHive(&'static str),
    /// A version that Windows wrote before 2000, or one of the future.
    #[error("registry hive of version {major}.{minor}: only 1.3 to 1.6 can be read")]
    Version {
        /// The major number.
        major: u32,
        /// The minor number.
        minor: u32,
    },
    /// The base block is damaged, and no log has a good one.
    #[error("damaged registry hive: bad checksum of the base block, and no log to repair it")]
    BaseBlock,
    /// A bin is not where it should be.
    #[error("damaged registry hive: no bin at offset {offset:#x}")]
    Bin {
        /// Where in the file.
        offset: usize,
    },
    /// A cell is not what it should be.
    #[error("damaged registry hive: {reason} at offset {offset:#x}")]
    Cell {
        /// Where in the bins.
        offset: u32,
        /// What is wrong.
        reason: &'static str,
    },
    /// Cells point at each other in ways that no hive needs.
    #[error("damaged registry hive: its cells refer to more data than it has")]
    Amplified,
    /// Keys nest deeper than Windows allows.
    #[error("registry keys nest deeper than {}", crate::MAX_DEPTH)]
    Depth,
    /// A path that cannot be a key.
    #[error("registry key {path:?}: {reason}")]
    Path {
        /// The path.
        path: String,
        /// What is wrong.
        reason: &'static str,
    },
    /// A key that no hive can hold.
    #[error("registry key {path:?} cannot be written: {reason}")]
    Unwritable {
        /// The key's path.
        path: String,
        /// What is wrong.
        reason: &'static str,
    },
    /// More than two gigabytes.
    #[error("registry hive is too large to be written")]
    TooLarge,
}
