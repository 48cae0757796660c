//! The difference of two states.

use super::{Pair, join, standalone};
use crate::hive::Hive;
use crate::key::{Key, KeyFlags, Layer, Semantics};
use crate::value::Value;

/// Whether a key (with all below it) or one of its values is no part of a difference. The key's
/// path is below the root, `Software\Vendor`; the value's name is empty for the default value.
pub type Ignore<'a> = dyn Fn(&str, Option<&str>) -> bool + 'a;

/// What counts as a difference.
#[derive(Clone, Copy)]
pub struct DiffOptions<'a> {
    /// Whether a key that differs in its time only is different.
    pub times: bool,
    /// What is left as it is in the base, whatever the target says.
    pub ignore: Option<&'a Ignore<'a>>,
}

impl Default for DiffOptions<'_> {
    fn default() -> Self {
        Self { times: true, ignore: None }
    }
}

impl std::fmt::Debug for DiffOptions<'_> {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter
            .debug_struct("DiffOptions")
            .field("times", &self.times)
            .field("ignore", &self.ignore.is_some())
            .finish()
    }
}

/// The differencing hive that makes `target` of `base`; both are ordinary hives. Volatile keys
/// count as absent.
///
/// A key of the target without a security descriptor has the base's, as it is not known.
pub fn diff(base: &Hive, target: &Hive, options: &DiffOptions<'_>) -> Hive {
    let mut differ = Differ { options, path: String::new() };
    let root = differ.key(&base.root, &target.root);
    let mut root = root.unwrap_or_else(|| shell(&base.root, &target.root));
    root.set_name(base.root.name().clone());
    let mut hive = Hive::layered(root);
    hive.last_written = target.last_written;
    hive
}

struct Differ<'a> {
    options: &'a DiffOptions<'a>,
    /// The key that is compared; kept only for the predicate.
    path: String,
}

impl Differ<'_> {
    fn ignores_value(&self, value: &Value) -> bool {
        self.options.ignore.is_some_and(|ignore| ignore(&self.path, Some(&value.name.to_string())))
    }

    /// Does something within a subkey, unless it is to be ignored.
    fn within<T>(&mut self, key: &Key, visit: impl FnOnce(&mut Self) -> Option<T>) -> Option<T> {
        if key.flags.contains(KeyFlags::VOLATILE) {
            return None;
        }
        let Some(ignore) = self.options.ignore else { return visit(self) };
        let length = self.path.len();
        if length > 0 {
            self.path.push('\\');
        }
        self.path.push_str(&key.name().to_string());
        let result = if ignore(&self.path, None) { None } else { visit(self) };
        self.path.truncate(length);
        result
    }

    /// The node that makes one key of another, if they differ.
    fn key(&mut self, base: &Key, target: &Key) -> Option<Key> {
        let is_older = self.options.times && target.last_write < base.last_write;
        let mut differs = base.name() != target.name()
            || base.class != target.class
            || base.flags != target.flags
            || base.user_flags != target.user_flags
            || target.security.is_some() && base.security != target.security
            || self.options.times && base.last_write != target.last_write;

        let values = if is_older {
            self.all_values(base, target)
        } else {
            self.changed_values(base, target)
        };
        differs |= !values.is_empty();
        let subkeys = self.changed_subkeys(base, target);
        differs |= !subkeys.is_empty();
        if !differs {
            return None;
        }

        let mut node = shell(base, target);
        if is_older {
            // The newest time wins, so the base's node must not be reached.
            node.layer = Layer { semantics: Semantics::SupersedeLocal, inherit_class: false };
            node.class.clone_from(&target.class);
        }
        node.set_values(values);
        node.set_subkeys(subkeys);
        Some(node)
    }

    fn changed_values(&self, base: &Key, target: &Key) -> Vec<Value> {
        join(base.values(), target.values(), |one, other| one.name.order(&other.name))
            .filter_map(|pair| match pair {
                Pair::Both(old, new) if old == new => None,
                Pair::Left(old) => {
                    (!self.ignores_value(old)).then(|| Value::tombstone(old.name.clone()))
                }
                Pair::Right(new) | Pair::Both(_, new) => {
                    (!self.ignores_value(new)).then(|| new.clone())
                }
            })
            .collect()
    }

    /// The values that the key is to have, where none of the base will be seen.
    fn all_values(&self, base: &Key, target: &Key) -> Vec<Value> {
        join(base.values(), target.values(), |one, other| one.name.order(&other.name))
            .filter_map(|pair| match pair {
                Pair::Left(old) => self.ignores_value(old).then(|| old.clone()),
                Pair::Right(new) => (!self.ignores_value(new)).then(|| new.clone()),
                Pair::Both(old, new) => {
                    Some(if self.ignores_value(new) { old.clone() } else { new.clone() })
                }
            })
            .collect()
    }

    fn changed_subkeys(&mut self, base: &Key, target: &Key) -> Vec<Key> {
        join(stored(base), stored(target), |one, other| one.name().order(other.name()))
            .filter_map(|pair| match pair {
                Pair::Left(old) => self.within(old, |_| Some(tombstone(old, target))),
                Pair::Right(new) => self.within(new, |differ| Some(differ.new_key(new))),
                Pair::Both(old, new) => self.within(new, |differ| differ.key(old, new)),
            })
            .collect()
    }

    /// A key that the base does not have.
    fn new_key(&mut self, key: &Key) -> Key {
        if self.options.ignore.is_none() && !has_volatile(key) {
            return standalone(key, Semantics::SupersedeTree);
        }
        let mut node = shell(key, key);
        node.layer = Layer { semantics: Semantics::SupersedeTree, inherit_class: false };
        node.class.clone_from(&key.class);
        let values = key.values().iter().filter(|value| !self.ignores_value(value));
        node.set_values(values.cloned().collect());
        let subkeys = key
            .subkeys()
            .iter()
            .filter_map(|subkey| self.within(subkey, |differ| Some(differ.new_key(subkey))))
            .collect();
        node.set_subkeys(subkeys);
        node
    }
}

/// The target's node without values and subkeys, over the base's.
fn shell(base: &Key, target: &Key) -> Key {
    let mut node = Key::new(target.name().clone());
    let inherit_class = base.class == target.class;
    if !inherit_class {
        node.class.clone_from(&target.class);
    }
    node.last_write = target.last_write;
    node.security = target.security.clone().or_else(|| base.security.clone());
    node.flags = target.flags;
    node.user_flags = target.user_flags;
    node.layer = Layer { semantics: Semantics::Merge, inherit_class };
    node
}

/// What hides a key of the base.
fn tombstone(old: &Key, parent: &Key) -> Key {
    let mut node = Key::new(old.name().clone());
    node.last_write = parent.last_write;
    node.security = parent.security.clone().or_else(|| old.security.clone());
    node.layer = Layer { semantics: Semantics::Tombstone, inherit_class: false };
    node
}

/// The subkeys that are in files.
fn stored(key: &Key) -> impl Iterator<Item = &Key> {
    key.subkeys().iter().filter(|key| !key.flags.contains(KeyFlags::VOLATILE))
}

fn has_volatile(key: &Key) -> bool {
    key.subkeys()
        .iter()
        .any(|subkey| subkey.flags.contains(KeyFlags::VOLATILE) || has_volatile(subkey))
}
