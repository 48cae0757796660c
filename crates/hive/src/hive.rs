//! A hive: a tree and what its file says about itself.

use crate::key::Key;
use crate::time::FileTime;

/// How a hive was read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Recovery {
    /// It was complete.
    #[default]
    Clean,
    /// It was in use, and logs completed it.
    Replayed,
    /// It was in use, and no log could complete it: the last changes are missing.
    Dirty,
}

/// A part of the registry that is a file of its own.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hive {
    /// The root. Its name has no meaning, and is not a part of paths.
    pub root: Key,
    /// Whether this is a differencing hive, which is nothing without the hives below.
    pub layered: bool,
    /// The version that was read, 3 to 6. What is written has 5, or 6 for a differencing hive.
    pub minor: u32,
    /// The end of the path under which the file was last used.
    pub name: String,
    /// When the file was last written.
    pub last_written: FileTime,
    /// How it was read.
    pub recovery: Recovery,
}

impl Hive {
    /// An ordinary hive with this tree.
    pub fn new(root: Key) -> Self {
        Self {
            root,
            layered: false,
            minor: 5,
            name: String::new(),
            last_written: FileTime(0),
            recovery: Recovery::Clean,
        }
    }

    /// A differencing hive with this tree.
    pub fn layered(root: Key) -> Self {
        Self { layered: true, minor: 6, ..Self::new(root) }
    }

    /// The key of a path below the root.
    pub fn get(&self, path: &str) -> Option<&Key> {
        self.root.get(path)
    }
}

impl Default for Hive {
    /// An empty ordinary hive.
    fn default() -> Self {
        Self::new(Key::new("ROOT"))
    }
}
