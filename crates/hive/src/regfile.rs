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

mod parse;
mod render;

pub use parse::parse;
pub use render::render;

use crate::key::{Key, KeyFlags, MAX_DEPTH, MAX_KEY_NAME};
use crate::name::Name;
use crate::text::{TOO_DEEP, TOO_LONG};
use crate::time::FileTime;
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

/// Makes the changes in a hive whose root stands for a path, `HKEY_LOCAL_MACHINE\SOFTWARE`.
/// Keys that are made or changed get the time. Nothing is changed if a key is outside.
pub fn apply(root: &mut Key, prefix: &str, edits: &[Edit], time: FileTime) -> Result<(), Error> {
    let top: Vec<Name> = crate::key::parts(prefix).map(Name::from).collect();
    let top = long_root(top);
    for edit in edits {
        below(edit, &top, prefix)?;
    }
    for edit in edits {
        change(root, below(edit, &top, prefix)?, edit, time);
    }
    Ok(())
}

/// The names of an edit's key below the root.
fn below<'a>(edit: &'a Edit, top: &[Name], prefix: &str) -> Result<&'a [Name], Error> {
    let shown = || edit.path.iter().map(ToString::to_string).collect::<Vec<_>>().join("\\");
    let inside = edit.path.len() >= top.len()
        && top.iter().zip(&edit.path).all(|(one, other)| one.is(other));
    if !inside {
        return Err(Error::Outside { key: shown(), prefix: prefix.to_owned() });
    }
    let path = &edit.path[top.len()..];
    let wrong = |reason| Err(Error::Key { key: shown(), reason });
    if path.len() >= MAX_DEPTH {
        return wrong(TOO_DEEP);
    }
    if path.iter().any(|name| name.units().len() > MAX_KEY_NAME) {
        return wrong(TOO_LONG);
    }
    Ok(path)
}

fn change(root: &mut Key, path: &[Name], edit: &Edit, time: FileTime) {
    if edit.delete {
        let Some((last, above)) = path.split_last() else {
            root.take_values();
            root.take_subkeys();
            root.last_write = time;
            return;
        };
        let parent = above.iter().try_fold(root, |key, name| key.subkey_mut(name));
        if let Some(parent) = parent
            && parent.remove_subkey(last).is_some()
        {
            parent.last_write = time;
        }
        return;
    }
    let mut key = root;
    for name in path {
        if key.subkey(name).is_none() {
            let mut made = Key::new(name.clone());
            made.last_write = time;
            key.last_write = time;
            key.insert_subkey(made);
        }
        let Some(next) = key.subkey_mut(name) else { return };
        key = next;
    }
    for change in &edit.changes {
        key.last_write = time;
        match change {
            Change::Set(value) => {
                if value.kind == crate::ValueType::LINK
                    && value.name.is(&Name::from("SymbolicLinkValue"))
                {
                    key.flags = key.flags | KeyFlags::SYMLINK;
                }
                key.set_value(value.clone());
            }
            Change::Delete(name) => {
                key.remove_value(name);
            }
        }
    }
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
