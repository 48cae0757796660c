//! Keys: the tree in memory.

use std::cmp::Ordering;
use std::fmt;
use std::ops::{BitAnd, BitOr};
use std::sync::Arc;

use crate::error::Error;
use crate::name::{Name, compare};
use crate::time::FileTime;
use crate::value::Value;

/// Deepest nesting of keys, as in Windows.
pub const MAX_DEPTH: usize = 512;

/// Longest name of a key, in UTF-16 units.
pub const MAX_KEY_NAME: usize = 255;

/// Properties of a key that are bits.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct KeyFlags(pub u16);

impl KeyFlags {
    /// Nothing.
    pub const NONE: Self = Self(0);
    /// Lives until the system stops, and is never in a file: writers leave such keys out.
    pub const VOLATILE: Self = Self(0x01);
    /// Another hive is mounted here.
    pub const HIVE_EXIT: Self = Self(0x02);
    /// Cannot be deleted.
    pub const NO_DELETE: Self = Self(0x08);
    /// A symbolic link, whose target is the value `SymbolicLinkValue`.
    pub const SYMLINK: Self = Self(0x10);
    /// Source of registry virtualisation.
    pub const VIRTUAL_SOURCE: Self = Self(0x80);
    /// Target of registry virtualisation.
    pub const VIRTUAL_TARGET: Self = Self(0x100);
    /// Store of registry virtualisation.
    pub const VIRTUAL_STORE: Self = Self(0x200);
    /// What a file keeps of these. The rest says how the key is stored, and is the writer's.
    pub(crate) const STORED: Self = Self(0x139A);

    /// Whether all bits of the other are set.
    pub fn contains(self, other: Self) -> bool {
        self & other == other
    }
}

impl BitOr for KeyFlags {
    type Output = Self;
    fn bitor(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }
}

impl BitAnd for KeyFlags {
    type Output = Self;
    fn bitand(self, other: Self) -> Self {
        Self(self.0 & other.0)
    }
}

impl fmt::Debug for KeyFlags {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{:#x}", self.0)
    }
}

/// What a key of a differencing hive does to the key of the same path below.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Semantics {
    /// Lies over it: values and subkeys of both are there.
    #[default]
    Merge,
    /// Hides it: the key does not exist.
    Tombstone,
    /// Replaces its values, class and security; the subkeys of both are there.
    SupersedeLocal,
    /// Replaces it with all that is under it.
    SupersedeTree,
}

/// A key's part in a differencing hive. The default is that of keys in ordinary hives.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Layer {
    /// What happens to the key below.
    pub semantics: Semantics,
    /// Whether the class is that of the key below.
    pub inherit_class: bool,
}

/// A key: a node of the registry. Its subkeys are in Windows' order of their names, and so are
/// its values, whose order in a file has no meaning.
#[derive(Clone, PartialEq, Eq, Default)]
pub struct Key {
    name: Name,
    /// The class, a text that hardly any key has.
    pub class: Name,
    /// When the key was last changed.
    pub last_write: FileTime,
    /// The self-relative security descriptor. None: the key's parent's.
    pub security: Option<Arc<[u8]>>,
    /// Properties.
    pub flags: KeyFlags,
    /// The flags of virtualisation (high four bits) and of 32-bit programs (low ones).
    pub user_flags: u8,
    /// The part in a differencing hive.
    pub layer: Layer,
    values: Vec<Value>,
    subkeys: Vec<Key>,
}

impl Key {
    /// An empty key.
    pub fn new(name: impl Into<Name>) -> Self {
        Self { name: name.into(), ..Self::default() }
    }

    /// The name, in the case in which it was given.
    pub fn name(&self) -> &Name {
        &self.name
    }

    /// The values, in the order of their names.
    pub fn values(&self) -> &[Value] {
        &self.values
    }

    /// The value of a name; the empty name is the default value.
    pub fn value(&self, name: &str) -> Option<&Value> {
        let at = self.values.binary_search_by(|v| compare(&v.name, name.encode_utf16())).ok()?;
        Some(&self.values[at])
    }

    /// The value of a name.
    pub fn value_named(&self, name: &Name) -> Option<&Value> {
        let at = self.values.binary_search_by(|value| value.name.order(name)).ok()?;
        Some(&self.values[at])
    }

    /// Adds a value, or replaces the one of its name, which is returned.
    pub fn set_value(&mut self, value: Value) -> Option<Value> {
        match place(&self.values, |old| old.name.order(&value.name)) {
            Ok(at) => Some(std::mem::replace(&mut self.values[at], value)),
            Err(at) => {
                self.values.insert(at, value);
                None
            }
        }
    }

    /// Takes a value out.
    pub fn remove_value(&mut self, name: &Name) -> Option<Value> {
        let at = self.values.binary_search_by(|value| value.name.order(name)).ok()?;
        Some(self.values.remove(at))
    }

    /// Takes every value out.
    pub fn take_values(&mut self) -> Vec<Value> {
        std::mem::take(&mut self.values)
    }

    /// Keeps the values that a predicate likes.
    pub fn retain_values(&mut self, keep: impl FnMut(&Value) -> bool) {
        self.values.retain(keep);
    }

    /// Replaces all values. Of several with one name the first stays.
    pub fn set_values(&mut self, mut values: Vec<Value>) {
        sort(&mut values, |left, right| left.name.order(&right.name));
        self.values = values;
    }

    /// The subkeys, in the order of their names.
    pub fn subkeys(&self) -> &[Self] {
        &self.subkeys
    }

    /// The subkeys, to be changed; their names cannot be.
    pub fn subkeys_mut(&mut self) -> impl Iterator<Item = &mut Self> {
        self.subkeys.iter_mut()
    }

    /// The subkey of a name, which is no path.
    pub fn subkey(&self, name: &Name) -> Option<&Self> {
        let at = self.subkeys.binary_search_by(|key| key.name.order(name)).ok()?;
        Some(&self.subkeys[at])
    }

    /// The subkey of a name, which is no path.
    pub fn subkey_mut(&mut self, name: &Name) -> Option<&mut Self> {
        let at = self.subkeys.binary_search_by(|key| key.name.order(name)).ok()?;
        Some(&mut self.subkeys[at])
    }

    /// Adds a subkey, or replaces the one of its name, which is returned.
    pub fn insert_subkey(&mut self, key: Self) -> Option<Self> {
        match place(&self.subkeys, |old| old.name.order(&key.name)) {
            Ok(at) => Some(std::mem::replace(&mut self.subkeys[at], key)),
            Err(at) => {
                self.subkeys.insert(at, key);
                None
            }
        }
    }

    /// Takes a subkey out.
    pub fn remove_subkey(&mut self, name: &Name) -> Option<Self> {
        let at = self.subkeys.binary_search_by(|key| key.name.order(name)).ok()?;
        Some(self.subkeys.remove(at))
    }

    /// Takes every subkey out.
    pub fn take_subkeys(&mut self) -> Vec<Self> {
        std::mem::take(&mut self.subkeys)
    }

    /// Keeps the subkeys that a predicate likes.
    pub fn retain_subkeys(&mut self, keep: impl FnMut(&Self) -> bool) {
        self.subkeys.retain(keep);
    }

    /// Replaces all subkeys. Of several with one name the first stays.
    pub fn set_subkeys(&mut self, mut subkeys: Vec<Self>) {
        sort(&mut subkeys, |left, right| left.name.order(&right.name));
        self.subkeys = subkeys;
    }

    /// The key of a path below this one, `Software\Vendor`. The empty path is this key; empty
    /// parts are skipped.
    pub fn get(&self, path: &str) -> Option<&Self> {
        parts(path).try_fold(self, |key, part| {
            let found = key.subkeys.binary_search_by(|k| compare(&k.name, part.encode_utf16()));
            Some(&key.subkeys[found.ok()?])
        })
    }

    /// The key of a path below this one.
    pub fn get_mut(&mut self, path: &str) -> Option<&mut Self> {
        parts(path).try_fold(self, |key, part| {
            let found = key.subkeys.binary_search_by(|k| compare(&k.name, part.encode_utf16()));
            Some(&mut key.subkeys[found.ok()?])
        })
    }

    /// The key of a path below this one, which is made with all above it where it is missing. New
    /// keys have the time, and no security of their own.
    pub fn create(&mut self, path: &str, time: FileTime) -> Result<&mut Self, Error> {
        let bad = |reason| Error::Path { path: path.to_owned(), reason };
        if parts(path).count() >= MAX_DEPTH {
            return Err(bad("keys nest too deep"));
        }
        if parts(path).any(|part| part.encode_utf16().count() > MAX_KEY_NAME) {
            return Err(bad("a name is longer than 255 characters"));
        }
        let mut key = self;
        for part in parts(path) {
            let name = Name::from(part);
            let at = match place(&key.subkeys, |old| old.name.order(&name)) {
                Ok(at) => at,
                Err(at) => {
                    key.subkeys.insert(at, Self { last_write: time, ..Self::new(name) });
                    at
                }
            };
            key = &mut key.subkeys[at];
        }
        Ok(key)
    }

    /// Takes the key of a path out, with all below it. The empty path is nothing.
    pub fn remove(&mut self, path: &str) -> Option<Self> {
        let path = path.trim_end_matches('\\');
        let (parent, name) = path.rsplit_once('\\').unwrap_or(("", path));
        self.get_mut(parent)?.remove_subkey(&Name::from(name))
    }

    /// The number of keys in this tree, this one included.
    pub fn count(&self) -> usize {
        1 + self.subkeys.iter().map(Self::count).sum::<usize>()
    }

    /// This key under another name.
    pub fn renamed(mut self, name: impl Into<Name>) -> Self {
        self.name = name.into();
        self
    }

    /// Whether nothing in this tree belongs to a differencing hive.
    pub fn is_plain(&self) -> bool {
        self.layer.semantics == Semantics::Merge
            && !self.values.iter().any(|value| value.tombstone)
            && self.subkeys.iter().all(Self::is_plain)
    }

    /// Changes the name of a key that is in no parent's list.
    pub(crate) fn set_name(&mut self, name: Name) {
        self.name = name;
    }
}

/// The names of a path.
pub(crate) fn parts(path: &str) -> impl Iterator<Item = &str> {
    path.split('\\').filter(|part| !part.is_empty())
}

/// Where an item is, or belongs. Most lists are made in order, so the end is tried first.
fn place<T>(list: &[T], order: impl Fn(&T) -> Ordering) -> Result<usize, usize> {
    match list.last() {
        Some(last) if order(last).is_lt() => Err(list.len()),
        None => Err(0),
        Some(_) => list.binary_search_by(order),
    }
}

/// Sorts what may be in order already; the first of equals stays.
fn sort<T>(list: &mut Vec<T>, order: impl Fn(&T, &T) -> Ordering) {
    if list.windows(2).all(|pair| order(&pair[0], &pair[1]).is_lt()) {
        return;
    }
    list.sort_by(&order);
    list.dedup_by(|next, kept| order(kept, next).is_eq());
}

impl fmt::Debug for Key {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut shown = formatter.debug_struct("Key");
        shown.field("name", &self.name).field("last_write", &self.last_write.0);
        if !self.class.is_empty() {
            shown.field("class", &self.class);
        }
        if let Some(security) = &self.security {
            shown.field("security", &security.len());
        }
        if self.flags != KeyFlags::NONE {
            shown.field("flags", &self.flags);
        }
        if self.layer != Layer::default() {
            shown.field("layer", &self.layer);
        }
        shown.field("values", &self.values).field("subkeys", &self.subkeys).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tree() -> Key {
        let mut root = Key::new("");
        for path in ["b\\x", "A", "c", "B\\_", "b\\y\\z"] {
            root.create(path, FileTime(1)).unwrap();
        }
        root
    }

    fn names(keys: &[Key]) -> Vec<String> {
        keys.iter().map(|key| key.name().to_string()).collect()
    }

    #[test]
    fn paths() {
        let mut root = tree();
        assert_eq!(names(root.subkeys()), ["A", "b", "c"]);
        assert_eq!(names(root.get("B").unwrap().subkeys()), ["x", "y", "_"]);
        assert!(root.get("b\\Y\\Z").is_some());
        assert!(root.get("\\b\\\\y\\").is_some());
        assert!(root.get("b\\nothing").is_none());
        assert_eq!(root.count(), 8);
        assert_eq!(names(root.remove("b\\Y").unwrap().subkeys()), ["z"]);
        assert!(root.remove("b\\y").is_none());
        assert!(root.remove("").is_none());
        assert_eq!(root.count(), 6);
    }

    #[test]
    fn impossible_paths() {
        let mut root = Key::new("");
        assert!(root.create(&"a\\".repeat(MAX_DEPTH - 1), FileTime(0)).is_ok());
        assert!(root.create(&"a\\".repeat(MAX_DEPTH), FileTime(0)).is_err());
        assert!(root.create(&"a".repeat(255), FileTime(0)).is_ok());
        assert!(root.create(&"a".repeat(256), FileTime(0)).is_err());
    }

    #[test]
    fn values() {
        let mut key = Key::new("k");
        assert_eq!(key.set_value(Value::dword("b", 1)), None);
        key.set_value(Value::dword("a", 2));
        key.set_value(Value::dword("", 3));
        assert_eq!(key.set_value(Value::dword("B", 4)), Some(Value::dword("b", 1)));
        let all: Vec<String> = key.values().iter().map(|value| value.name.to_string()).collect();
        assert_eq!(all, ["", "a", "B"]);
        assert_eq!(key.value("").and_then(Value::number), Some(3));
        assert_eq!(key.value("A").and_then(Value::number), Some(2));
        assert!(key.remove_value(&"A".into()).is_some());
        assert!(key.value("a").is_none());
    }

    #[test]
    fn the_first_of_equals_stays() {
        let mut key = Key::new("k");
        key.set_values(vec![Value::dword("b", 1), Value::dword("a", 2), Value::dword("B", 3)]);
        assert_eq!(key.values(), [Value::dword("a", 2), Value::dword("b", 1)]);
    }
}
