//! Differencing hives: what one layer changes of the registry below it.
//!
//! A reader walks from the top layer down, key by key, with [`Semantics`] of each node:
//!
//! | what | is |
//! | --- | --- |
//! | a value | that of the topmost node which has its name; absent if it is a tombstone |
//! | the subkeys | those of all nodes reached, by name; a tombstone hides what is below |
//! | the time | the newest of the nodes reached |
//! | the class | that of the topmost node which does not inherit it |
//! | security, flags, the name's case | those of the topmost node |
//!
//! A node that supersedes ends the walk: for its own data, or for its whole subtree. Kernels
//! stack up to 127 nodes.
//!
//! [`merge`] does one step of this for whole hives, [`flatten`] a chain, and [`diff`] the
//! reverse: `merge(base, diff(base, target))` is `target`.

mod diff;
mod merge;

pub use diff::{DiffOptions, Ignore, diff};
pub use merge::{flatten, merge};

use crate::key::{Key, Layer, Semantics};

/// A copy of a tree that has nothing below: no tombstones, and every key with this layer.
fn standalone(key: &Key, semantics: Semantics) -> Key {
    let mut copy = Key::new(key.name().clone());
    copy.class.clone_from(&key.class);
    copy.last_write = key.last_write;
    copy.security.clone_from(&key.security);
    copy.flags = key.flags;
    copy.user_flags = key.user_flags;
    copy.layer = Layer { semantics, inherit_class: false };
    copy.set_values(key.values().iter().filter(|value| !value.tombstone).cloned().collect());
    copy.set_subkeys(
        key.subkeys()
            .iter()
            .filter(|subkey| subkey.layer.semantics != Semantics::Tombstone)
            .map(|subkey| standalone(subkey, semantics))
            .collect(),
    );
    copy
}

/// What two lists in the order of their names have of one name.
pub(crate) enum Pair<L, R> {
    Left(L),
    Right(R),
    Both(L, R),
}

/// Walks two ordered lists side by side.
pub(crate) fn join<L, R>(
    left: impl IntoIterator<Item = L>,
    right: impl IntoIterator<Item = R>,
    order: impl Fn(&L, &R) -> std::cmp::Ordering,
) -> impl Iterator<Item = Pair<L, R>> {
    let mut left = left.into_iter().peekable();
    let mut right = right.into_iter().peekable();
    std::iter::from_fn(move || {
        let order = match (left.peek(), right.peek()) {
            (Some(one), Some(other)) => order(one, other),
            (Some(_), None) => std::cmp::Ordering::Less,
            (None, Some(_)) => std::cmp::Ordering::Greater,
            (None, None) => return None,
        };
        match order {
            std::cmp::Ordering::Less => left.next().map(Pair::Left),
            std::cmp::Ordering::Greater => right.next().map(Pair::Right),
            std::cmp::Ordering::Equal => {
                left.next().zip(right.next()).map(|(one, other)| Pair::Both(one, other))
            }
        }
    })
}

#[cfg(test)]
mod tests;
