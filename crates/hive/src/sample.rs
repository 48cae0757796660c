//! Random registries for tests.

use std::collections::BTreeMap;
use std::sync::Arc;

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::select;

use crate::key::{Key, KeyFlags, Layer, Semantics};
use crate::name::Name;
use crate::time::FileTime;
use crate::upcase::upcase;
use crate::value::{Value, ValueType};

/// Few names, so that edits meet, some of which differ in case only.
pub(crate) const NAMES: &[&str] = &["a", "A", "b", "key", "KEY", "é", "É", "_", "[x]", "名", "ß"];

pub(crate) fn name() -> impl Strategy<Value = Name> {
    prop_oneof![
        9 => select(NAMES).prop_map(Name::from),
        1 => vec(prop_oneof![0x20..0x5B_u16, 0x5D..0x250_u16, 0xD800..0xDC00_u16, Just(0)], 1..6)
            .prop_map(Name::from),
    ]
}

pub(crate) fn value() -> impl Strategy<Value = Value> {
    let name = prop_oneof![1 => Just(Name::default()), 6 => name()];
    let kind = prop_oneof![4 => 0..12_u32, 1 => any::<u32>()].prop_map(ValueType);
    let data = prop_oneof![
        4 => vec(any::<u8>(), 0..12),
        2 => vec(select(&['a', 'é', '\\', '"', '\0', '\n', '1', '€'][..]), 0..8)
            .prop_map(|text| crate::value::utf16(&String::from_iter(text), true)),
        1 => vec(any::<u8>(), 100..140),
    ];
    (name, kind, data).prop_map(|(name, kind, data)| Value::new(name, kind, data))
}

fn class() -> impl Strategy<Value = Name> {
    prop_oneof![5 => Just(Name::default()), 1 => select(&["class", "other \"class\""][..]).prop_map(Name::from)]
}

fn flags() -> impl Strategy<Value = KeyFlags> {
    prop_oneof![5 => Just(KeyFlags::NONE), 1 => Just(KeyFlags::SYMLINK), 1 => Just(KeyFlags::VIRTUAL_STORE)]
}

fn security() -> impl Strategy<Value = Arc<[u8]>> {
    vec(0..2_u8, 20..22).prop_map(Arc::from)
}

fn time() -> impl Strategy<Value = FileTime> {
    (0..1000_u64).prop_map(|time| FileTime(time * 10_000_000 + 130_000_000_000_000_000))
}

/// A key without layers, and all below it.
pub(crate) fn tree() -> impl Strategy<Value = Key> {
    let one = (name(), class(), time(), security(), flags(), vec(value(), 0..4)).prop_map(
        |(name, class, time, security, flags, values)| {
            let mut key = Key::new(name);
            (key.class, key.last_write, key.flags) = (class, time, flags);
            key.security = Some(security);
            key.set_values(values);
            key
        },
    );
    one.prop_recursive(4, 24, 4, |below| {
        (below.clone(), vec(below, 0..4)).prop_map(|(mut key, subkeys)| {
            key.set_subkeys(subkeys);
            key
        })
    })
}

/// A tree with any layers and tombstones.
pub(crate) fn layered_tree() -> impl Strategy<Value = Key> {
    (tree(), vec(any::<u8>(), 1..32)).prop_map(|(mut root, choices)| {
        layer(&mut root, &mut choices.iter().copied().cycle());
        root.layer.semantics = Semantics::Merge;
        root
    })
}

fn layer(key: &mut Key, choices: &mut dyn Iterator<Item = u8>) {
    let choice = choices.next().unwrap_or_default();
    let semantics = match choice % 8 {
        0..4 => Semantics::Merge,
        4 => Semantics::Tombstone,
        5 => Semantics::SupersedeLocal,
        _ => Semantics::SupersedeTree,
    };
    key.layer = Layer { semantics, inherit_class: choice & 0x80 != 0 };
    if semantics == Semantics::Tombstone {
        key.take_values();
        key.take_subkeys();
        key.class = Name::default();
        key.layer.inherit_class = false;
        key.flags = KeyFlags::NONE;
    }
    let values = key.take_values().into_iter().map(|value| {
        if choices.next().unwrap_or_default().is_multiple_of(4) {
            Value::tombstone(value.name)
        } else {
            value
        }
    });
    key.set_values(values.collect());
    key.subkeys_mut().for_each(|key| layer(key, choices));
}

/// One change of a registry.
#[derive(Debug, Clone)]
pub(crate) enum Edit {
    SetValue(Vec<Name>, Value),
    DeleteValue(Vec<Name>, Name),
    Create(Vec<Name>, Arc<[u8]>),
    DeleteKey(Vec<Name>),
    SetClass(Vec<Name>, Name),
    SetSecurity(Vec<Name>, Arc<[u8]>),
    SetFlags(Vec<Name>, KeyFlags),
    SetTime(Vec<Name>, FileTime),
}

pub(crate) fn edits() -> impl Strategy<Value = Vec<Edit>> {
    fn path() -> impl Strategy<Value = Vec<Name>> {
        vec(select(NAMES).prop_map(Name::from), 0..4)
    }
    let value_name = prop_oneof![1 => Just(Name::default()), 6 => name()];
    let edit = prop_oneof![
        4 => (path(), value()).prop_map(|(path, value)| Edit::SetValue(path, value)),
        2 => (path(), value_name).prop_map(|(path, name)| Edit::DeleteValue(path, name)),
        4 => (path(), security()).prop_map(|(path, security)| Edit::Create(path, security)),
        3 => path().prop_map(Edit::DeleteKey),
        1 => (path(), class()).prop_map(|(path, class)| Edit::SetClass(path, class)),
        1 => (path(), security()).prop_map(|(path, bytes)| Edit::SetSecurity(path, bytes)),
        1 => (path(), flags()).prop_map(|(path, flags)| Edit::SetFlags(path, flags)),
        1 => (path(), time()).prop_map(|(path, time)| Edit::SetTime(path, time)),
    ];
    vec(edit, 1..16)
}

/// A registry as two flat tables, to compare with: nothing in it is a tree, and names are
/// compared by a second spelling in upper case.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Naive {
    pub(crate) keys: BTreeMap<Vec<Vec<u16>>, NaiveKey>,
}

#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct NaiveKey {
    pub(crate) name: Vec<u16>,
    class: Vec<u16>,
    time: u64,
    security: Vec<u8>,
    flags: u16,
    values: BTreeMap<Vec<u16>, (Vec<u16>, u32, Vec<u8>)>,
}

/// The spelling by which names are the same.
fn fold(name: &Name) -> Vec<u16> {
    name.units().iter().copied().map(upcase).collect()
}

fn fold_path(path: &[Name]) -> Vec<Vec<u16>> {
    path.iter().map(fold).collect()
}

impl Naive {
    pub(crate) fn of(root: &Key) -> Self {
        let mut naive = Self::default();
        naive.add(root, &mut Vec::new());
        naive
    }

    fn add(&mut self, key: &Key, path: &mut Vec<Vec<u16>>) {
        let value = |value: &Value| {
            (fold(&value.name), (value.name.units().to_vec(), value.kind.0, value.data.clone()))
        };
        let naive = NaiveKey {
            name: key.name().units().to_vec(),
            class: key.class.units().to_vec(),
            time: key.last_write.0,
            security: key.security.as_deref().unwrap_or_default().to_vec(),
            flags: key.flags.0,
            values: key.values().iter().map(value).collect(),
        };
        assert!(self.keys.insert(path.clone(), naive).is_none(), "a key twice: {path:?}");
        for subkey in key.subkeys() {
            path.push(fold(subkey.name()));
            self.add(subkey, path);
            path.pop();
        }
    }

    pub(crate) fn apply(&mut self, edit: &Edit) {
        match edit {
            Edit::SetValue(path, value) => self.change(path, |key| {
                let naive = (value.name.units().to_vec(), value.kind.0, value.data.clone());
                key.values.insert(fold(&value.name), naive);
            }),
            Edit::DeleteValue(path, name) => self.change(path, |key| {
                key.values.remove(&fold(name));
            }),
            Edit::SetClass(path, class) => {
                self.change(path, |key| key.class = class.units().to_vec());
            }
            Edit::SetSecurity(path, bytes) => {
                self.change(path, |key| key.security = bytes.to_vec());
            }
            Edit::SetFlags(path, flags) => self.change(path, |key| key.flags = flags.0),
            Edit::SetTime(path, time) => self.change(path, |key| key.time = time.0),
            Edit::Create(path, security) => {
                for length in 1..=path.len() {
                    let made = NaiveKey {
                        name: path[length - 1].units().to_vec(),
                        security: security.to_vec(),
                        ..NaiveKey::default()
                    };
                    self.keys.entry(fold_path(&path[..length])).or_insert(made);
                }
            }
            Edit::DeleteKey(path) => {
                let path = fold_path(path);
                self.keys.retain(|key, _| path.is_empty() || !key.starts_with(&path));
            }
        }
    }

    fn change(&mut self, path: &[Name], change: impl FnOnce(&mut NaiveKey)) {
        if let Some(key) = self.keys.get_mut(&fold_path(path)) {
            change(key);
        }
    }
}

/// Makes the change in a tree.
pub(crate) fn apply(root: &mut Key, edit: &Edit) {
    fn at<'a>(root: &'a mut Key, path: &[Name]) -> Option<&'a mut Key> {
        path.iter().try_fold(root, |key, name| key.subkey_mut(name))
    }
    match edit {
        Edit::SetValue(path, value) => {
            at(root, path).map(|key| key.set_value(value.clone()));
        }
        Edit::DeleteValue(path, name) => {
            at(root, path).map(|key| key.remove_value(name));
        }
        Edit::SetClass(path, class) => {
            if let Some(key) = at(root, path) {
                key.class.clone_from(class);
            }
        }
        Edit::SetSecurity(path, bytes) => {
            if let Some(key) = at(root, path) {
                key.security = Some(Arc::clone(bytes));
            }
        }
        Edit::SetFlags(path, flags) => {
            if let Some(key) = at(root, path) {
                key.flags = *flags;
            }
        }
        Edit::SetTime(path, time) => {
            if let Some(key) = at(root, path) {
                key.last_write = *time;
            }
        }
        Edit::Create(path, security) => {
            let mut key = root;
            for name in path {
                if key.subkey(name).is_none() {
                    let mut made = Key::new(name.clone());
                    made.security = Some(Arc::clone(security));
                    key.insert_subkey(made);
                }
                key = key.subkey_mut(name).unwrap();
            }
        }
        Edit::DeleteKey(path) => {
            if let Some((last, above)) = path.split_last() {
                at(root, above).map(|key| key.remove_subkey(last));
            }
        }
    }
}
