//! Changes made in a tree, in time that is linear in their number: they are collected in a tree
//! of their own, which is laid over the other once.

use std::collections::HashMap;

use super::{Change, Edit, Error, long_root};
use crate::delta::{Pair, join};
use crate::key::{Key, KeyFlags, MAX_DEPTH, MAX_KEY_NAME, parts};
use crate::name::Name;
use crate::text::{TOO_DEEP, TOO_LONG};
use crate::time::FileTime;
use crate::upcase::upcase;
use crate::value::{Value, ValueType};

/// Makes the changes in a hive whose root stands for a path, `HKEY_LOCAL_MACHINE\SOFTWARE`.
/// Keys that are made or changed get the time. Nothing is changed if a key is outside.
pub fn apply(root: &mut Key, prefix: &str, edits: &[Edit], time: FileTime) -> Result<(), Error> {
    let top = long_root(parts(prefix).map(Name::from).collect());
    let mut changes = Changes { nodes: vec![Node::default()], index: HashMap::new() };
    for edit in edits {
        changes.add(below(edit, &top, prefix)?, edit);
    }
    changes.finish().lay_over(root, 0, time);
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

/// What happens to one key.
#[derive(Debug, Default)]
struct Node {
    name: Name,
    /// What was there goes, with all below it.
    deleted: bool,
    /// It is there afterwards, even if it was not.
    made: bool,
    /// Values that are set, or deleted (tombstones); the last of a name counts.
    values: Vec<Value>,
    below: Vec<usize>,
}

#[derive(Debug)]
struct Changes {
    nodes: Vec<Node>,
    /// The node of a name in upper case below another.
    index: HashMap<(usize, Box<[u16]>), usize>,
}

impl Changes {
    fn add(&mut self, path: &[Name], edit: &Edit) {
        if edit.delete {
            self.delete(path);
            return;
        }
        let mut at = 0;
        for name in path {
            at = self.child(at, name, false);
            self.nodes[at].made = true;
        }
        self.nodes[at].values.extend(edit.changes.iter().map(|change| match change {
            Change::Set(value) => value.clone(),
            Change::Delete(name) => Value::tombstone(name.clone()),
        }));
    }

    /// What was to happen below the key so far is forgotten, as it gets a new node.
    fn delete(&mut self, path: &[Name]) {
        let Some((last, above)) = path.split_last() else {
            // The root cannot go, but all that is in it.
            self.nodes.clear();
            self.nodes.push(Node { deleted: true, ..Node::default() });
            self.index.clear();
            return;
        };
        let parent = above.iter().fold(0, |at, name| self.child(at, name, false));
        let node = self.child(parent, last, true);
        self.nodes[node].deleted = true;
    }

    fn child(&mut self, parent: usize, name: &Name, anew: bool) -> usize {
        let folded: Box<[u16]> = name.units().iter().copied().map(upcase).collect();
        let next = self.nodes.len();
        let at = self.index.entry((parent, folded)).or_insert(next);
        if anew {
            *at = next;
        }
        let at = *at;
        if at == next {
            self.nodes.push(Node { name: name.clone(), ..Node::default() });
        }
        at
    }

    /// Puts everything in order.
    fn finish(mut self) -> Self {
        for ((parent, _), node) in std::mem::take(&mut self.index) {
            self.nodes[parent].below.push(node);
        }
        for at in 0..self.nodes.len() {
            let mut below = std::mem::take(&mut self.nodes[at].below);
            below.sort_by(|&one, &other| self.nodes[one].name.order(&self.nodes[other].name));
            self.nodes[at].below = below;
            // Sorting is stable: the last of a name is the first of the reverse.
            let values = &mut self.nodes[at].values;
            values.reverse();
            values.sort_by(|one, other| one.name.order(&other.name));
            values.dedup_by(|next, kept| next.name.is(&kept.name));
        }
        self
    }

    fn lay_over(&mut self, key: &mut Key, at: usize, time: FileTime) {
        if at == 0 && self.nodes[0].deleted {
            key.take_values();
            key.take_subkeys();
            key.last_write = time;
        }
        self.values(key, at, time);
        let below = std::mem::take(&mut self.nodes[at].below);
        if below.is_empty() {
            return;
        }
        let mut subkeys = Vec::with_capacity(key.subkeys().len());
        let mut changed = false;
        let old = key.take_subkeys();
        let pairs: Vec<Pair<Key, usize>> =
            join(old, below, |key, &node| key.name().order(&self.nodes[node].name)).collect();
        for pair in pairs {
            let (old, node) = match pair {
                Pair::Left(key) => {
                    subkeys.push(key);
                    continue;
                }
                Pair::Right(node) => (None, node),
                Pair::Both(key, node) => (Some(key), node),
            };
            let Node { deleted, made, .. } = self.nodes[node];
            let was_there = old.is_some();
            let kept = old.filter(|_| !deleted);
            changed |= kept.is_some() != was_there || kept.is_none() && made;
            let subkey = kept.or_else(|| {
                let mut key = Key::new(self.nodes[node].name.clone());
                key.last_write = time;
                made.then_some(key)
            });
            if let Some(mut subkey) = subkey {
                self.lay_over(&mut subkey, node, time);
                subkeys.push(subkey);
            }
        }
        key.set_subkeys(subkeys);
        if changed {
            key.last_write = time;
        }
    }

    fn values(&mut self, key: &mut Key, at: usize, time: FileTime) {
        let changes = std::mem::take(&mut self.nodes[at].values);
        if changes.is_empty() {
            return;
        }
        key.last_write = time;
        let link = Name::from("SymbolicLinkValue");
        if changes.iter().any(|value| value.kind == ValueType::LINK && value.name.is(&link)) {
            key.flags = key.flags | KeyFlags::SYMLINK;
        }
        let values = join(key.take_values(), changes, |one, other| one.name.order(&other.name))
            .filter_map(|pair| match pair {
                Pair::Left(value) => Some(value),
                Pair::Right(value) | Pair::Both(_, value) => (!value.tombstone).then_some(value),
            })
            .collect();
        key.set_values(values);
    }
}
