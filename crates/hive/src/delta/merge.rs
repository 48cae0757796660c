//! Layers over layers.

use super::{Pair, join, standalone};
use crate::hive::Hive;
use crate::key::{Key, Layer, Semantics};
use crate::value::Value;

/// What lies below the key that is changed.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Below {
    /// Nothing: the hive is an ordinary one.
    Nothing,
    /// Other layers, which the hive hides here.
    Hidden,
    /// Other layers.
    Layers,
}

impl Below {
    /// How a key that needs nothing below is marked.
    fn semantics(self) -> Semantics {
        match self {
            Self::Nothing => Semantics::Merge,
            Self::Hidden | Self::Layers => Semantics::SupersedeTree,
        }
    }
}

/// Lays a differencing hive over another hive. Over an ordinary hive the result is an ordinary
/// hive; over a differencing one it is a differencing one that does what both did.
///
/// An `upper` that is an ordinary hive lies over `lower` as if all its keys said merge.
pub fn merge(lower: Hive, upper: &Hive) -> Hive {
    let below = if lower.layered { Below::Layers } else { Below::Nothing };
    let mut hive = lower;
    let name = hive.root.name().clone();
    if upper.root.layer.semantics != Semantics::Tombstone {
        over(&mut hive.root, &upper.root, below);
    }
    hive.root.set_name(name);
    hive.last_written = hive.last_written.max(upper.last_written);
    if !hive.layered {
        hive.minor = 5;
    }
    hive
}

/// The effective hive of a chain: a base and the layers over it, lowest first. The result is an
/// ordinary hive, also if the base is not.
pub fn flatten<'a>(base: Hive, layers: impl IntoIterator<Item = &'a Hive>) -> Hive {
    let mut hive = layers.into_iter().fold(base, merge);
    if hive.layered || !hive.root.is_plain() {
        hive.root = standalone(&hive.root, Semantics::Merge);
        hive.layered = false;
    }
    hive.minor = 5;
    hive
}

/// Lays a key over one that may be a tombstone itself.
fn over(lower: &mut Key, upper: &Key, below: Below) {
    let replaces = upper.layer.semantics == Semantics::SupersedeTree;
    if replaces || lower.layer.semantics == Semantics::Tombstone {
        *lower = standalone(upper, below.semantics());
        return;
    }
    let below = match lower.layer.semantics {
        Semantics::SupersedeTree if below == Below::Layers => Below::Hidden,
        _ => below,
    };
    own_data(lower, upper, below);
    subkeys(lower, upper, below);
}

/// Name, time, class, security, flags and values.
fn own_data(lower: &mut Key, upper: &Key, below: Below) {
    let replaces = upper.layer.semantics == Semantics::SupersedeLocal;
    let was_replaced = lower.layer.semantics == Semantics::SupersedeLocal;
    lower.set_name(upper.name().clone());
    lower.flags = upper.flags;
    lower.user_flags = upper.user_flags;
    let mut inherits = lower.layer.inherit_class && below == Below::Layers;
    if replaces {
        lower.last_write = upper.last_write;
        lower.security.clone_from(&upper.security);
    } else {
        lower.last_write = lower.last_write.max(upper.last_write);
        if upper.security.is_some() {
            lower.security.clone_from(&upper.security);
        }
    }
    if replaces || !upper.layer.inherit_class {
        lower.class.clone_from(&upper.class);
        inherits = false;
    }
    let semantics = match below {
        Below::Layers if replaces || was_replaced => Semantics::SupersedeLocal,
        Below::Layers => Semantics::Merge,
        Below::Nothing | Below::Hidden => below.semantics(),
    };
    lower.layer = Layer { semantics, inherit_class: inherits };

    if replaces {
        lower.take_values();
    }
    // A tombstone is kept where it may still hide something.
    let keeps = semantics == Semantics::Merge && below == Below::Layers;
    if upper.values().is_empty() {
        return;
    }
    let merged: Vec<Value> =
        join(lower.take_values(), upper.values(), |one, other| one.name.order(&other.name))
            .filter_map(|pair| match pair {
                Pair::Left(value) => Some(value),
                Pair::Right(value) | Pair::Both(_, value) => {
                    (keeps || !value.tombstone).then(|| value.clone())
                }
            })
            .collect();
    lower.set_values(merged);
}

fn subkeys(lower: &mut Key, upper: &Key, below: Below) {
    if upper.subkeys().is_empty() {
        return;
    }
    let hides = |key: &Key| key.layer.semantics == Semantics::Tombstone;
    let merged: Vec<Key> =
        join(lower.take_subkeys(), upper.subkeys(), |one, other| one.name().order(other.name()))
            .filter_map(|pair| match pair {
                Pair::Left(key) => Some(key),
                Pair::Right(key) | Pair::Both(_, key) if hides(key) => {
                    (below == Below::Layers).then(|| tombstone(key))
                }
                Pair::Right(key) if below != Below::Layers => {
                    Some(standalone(key, below.semantics()))
                }
                Pair::Right(key) if key.layer.semantics == Semantics::SupersedeTree => {
                    Some(standalone(key, Semantics::SupersedeTree))
                }
                Pair::Right(key) => Some(key.clone()),
                Pair::Both(mut old, key) => {
                    over(&mut old, key, below);
                    Some(old)
                }
            })
            .collect();
    lower.set_subkeys(merged);
}

/// A tombstone has nothing in it.
fn tombstone(key: &Key) -> Key {
    let mut empty = Key::new(key.name().clone());
    empty.last_write = key.last_write;
    empty.security.clone_from(&key.security);
    empty.layer = Layer { semantics: Semantics::Tombstone, inherit_class: false };
    empty
}
