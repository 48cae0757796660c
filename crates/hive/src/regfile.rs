//! Files of the registry editor (`.reg`): changes to a registry, as text.
//!
//! ```text
//! Windows Registry Editor Version 5.00
//!
//! [HKEY_LOCAL_MACHINE\SOFTWARE\Vendor]
//! @="the default value"
//! "name"=dword:00000001
//! "gone"=-
//! "bytes"=hex:00,01
//! "any type"=hex(2):25,00,41,00,25,00,00,00
//!
//! [-HKEY_LOCAL_MACHINE\SOFTWARE\Old]
//! ```
//!
//! Version 5 is UTF-16 with a byte order mark; UTF-8 is read too. Version 4 (`REGEDIT4`) is in
//! the code page of Windows 1252, also in the bytes of `hex(2)` and `hex(7)`. In quotes a
//! backslash stands before a backslash or a quote.

mod apply;
mod parse;
mod render;

pub use apply::apply;
pub use parse::parse;
pub use render::render;

use crate::name::Name;
use crate::value::Value;

/// The version of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Version {
    /// `REGEDIT4`. What the code page lacks becomes `?`.
    Four,
    /// `Windows Registry Editor Version 5.00`
    #[default]
    Five,
}

/// A change of one value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    /// The value becomes this.
    Set(Value),
    /// The value goes.
    Delete(Name),
}

/// Changes of one key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Edit {
    /// The names down to it, from `HKEY_LOCAL_MACHINE` or its like.
    pub path: Vec<Name>,
    /// Whether it goes, with all below it. If not it is made where it is missing.
    pub delete: bool,
    /// What happens to its values.
    pub changes: Vec<Change>,
}

/// Why a text is no file of the registry editor, or cannot be applied.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// Something else.
    #[error(
        "not a registry editor file: its first line is neither \"Windows Registry Editor \
         Version 5.00\" nor \"REGEDIT4\""
    )]
    NotRegFile,
    /// A line that cannot be understood.
    #[error("line {line} of the registry file: {reason}")]
    Line {
        /// Its number, from 1.
        line: usize,
        /// What is wrong.
        reason: &'static str,
    },
    /// A key of another hive.
    #[error("registry key {key:?} is not below {prefix:?}")]
    Outside {
        /// The key.
        key: String,
        /// Where the hive is.
        prefix: String,
    },
    /// A key that cannot be.
    #[error("registry key {key:?}: {reason}")]
    Key {
        /// The key.
        key: String,
        /// What is wrong.
        reason: &'static str,
    },
}

/// The path with the long name of its first part: `HKLM` is `HKEY_LOCAL_MACHINE`.
fn long_root(mut path: Vec<Name>) -> Vec<Name> {
    const SHORT: [(&str, &str); 5] = [
        ("HKLM", "HKEY_LOCAL_MACHINE"),
        ("HKCU", "HKEY_CURRENT_USER"),
        ("HKCR", "HKEY_CLASSES_ROOT"),
        ("HKU", "HKEY_USERS"),
        ("HKCC", "HKEY_CURRENT_CONFIG"),
    ];
    if let Some(first) = path.first_mut()
        && let Some((_, long)) = SHORT.iter().find(|(short, _)| first.is(&Name::from(*short)))
    {
        *first = Name::from(*long);
    }
    path
}

#[cfg(test)]
mod tests;
