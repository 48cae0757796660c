//! Values that tell Go's `nil` from an empty list or map, and the macro that declares models.

use std::collections::BTreeMap;
use std::ops::Deref;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// A Go slice: `null` in JSON until it is set. Derefs to a Rust slice, empty for `null`.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct List<T>(pub Option<Vec<T>>);

impl<T> List<T> {
    /// `null`.
    pub const fn null() -> Self {
        Self(None)
    }

    /// Is there nothing to iterate over? True for `null` and for `[]`.
    pub fn is_empty(&self) -> bool {
        self.0.as_ref().is_none_or(Vec::is_empty)
    }

    /// Is it `null`, in contrast to `[]`?
    pub const fn is_null(&self) -> bool {
        self.0.is_none()
    }

    /// The list to change; `null` becomes `[]`.
    pub fn make(&mut self) -> &mut Vec<T> {
        self.0.get_or_insert_default()
    }

    /// The elements, none for `null`.
    pub fn into_vec(self) -> Vec<T> {
        self.0.unwrap_or_default()
    }
}

impl<T> Default for List<T> {
    fn default() -> Self {
        Self(None)
    }
}

impl<T> Deref for List<T> {
    type Target = [T];
    fn deref(&self) -> &[T] {
        self.0.as_deref().unwrap_or_default()
    }
}

impl<T> From<Vec<T>> for List<T> {
    fn from(list: Vec<T>) -> Self {
        Self(Some(list))
    }
}

impl<T> FromIterator<T> for List<T> {
    fn from_iter<I: IntoIterator<Item = T>>(items: I) -> Self {
        Self(Some(items.into_iter().collect()))
    }
}

impl<T> IntoIterator for List<T> {
    type Item = T;
    type IntoIter = std::vec::IntoIter<T>;
    fn into_iter(self) -> Self::IntoIter {
        self.into_vec().into_iter()
    }
}

impl<'a, T> IntoIterator for &'a List<T> {
    type Item = &'a T;
    type IntoIter = std::slice::Iter<'a, T>;
    fn into_iter(self) -> Self::IntoIter {
        self.iter()
    }
}

impl<T: Serialize> Serialize for List<T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.0.serialize(serializer)
    }
}

impl<'de, T: Deserialize<'de>> Deserialize<'de> for List<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Option::deserialize(deserializer).map(Self)
    }
}

/// A Go map with string keys: `null` in JSON until it is set. Derefs to a map, empty for `null`.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Map<V>(pub Option<BTreeMap<String, V>>);

impl<V: 'static> Map<V> {
    const EMPTY: &'static BTreeMap<String, V> = &BTreeMap::new();

    /// `null`.
    pub const fn null() -> Self {
        Self(None)
    }

    /// `{}`.
    pub const fn new() -> Self {
        Self(Some(BTreeMap::new()))
    }

    /// Is it `null`, in contrast to `{}`?
    pub const fn is_null(&self) -> bool {
        self.0.is_none()
    }

    /// The map to change; `null` becomes `{}`.
    pub fn make(&mut self) -> &mut BTreeMap<String, V> {
        self.0.get_or_insert_default()
    }

    /// The entries, none for `null`.
    pub fn into_map(self) -> BTreeMap<String, V> {
        self.0.unwrap_or_default()
    }
}

impl<V> Default for Map<V> {
    fn default() -> Self {
        Self(None)
    }
}

impl<V: 'static> Deref for Map<V> {
    type Target = BTreeMap<String, V>;
    fn deref(&self) -> &BTreeMap<String, V> {
        self.0.as_ref().unwrap_or(Self::EMPTY)
    }
}

impl<V> From<BTreeMap<String, V>> for Map<V> {
    fn from(map: BTreeMap<String, V>) -> Self {
        Self(Some(map))
    }
}

impl<V> FromIterator<(String, V)> for Map<V> {
    fn from_iter<I: IntoIterator<Item = (String, V)>>(items: I) -> Self {
        Self(Some(items.into_iter().collect()))
    }
}

impl<V: 'static> IntoIterator for Map<V> {
    type Item = (String, V);
    type IntoIter = std::collections::btree_map::IntoIter<String, V>;
    fn into_iter(self) -> Self::IntoIter {
        self.into_map().into_iter()
    }
}

impl<'a, V: 'static> IntoIterator for &'a Map<V> {
    type Item = (&'a String, &'a V);
    type IntoIter = std::collections::btree_map::Iter<'a, String, V>;
    fn into_iter(self) -> Self::IntoIter {
        self.iter()
    }
}

impl<V: Serialize> Serialize for Map<V> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.0.serialize(serializer)
    }
}

impl<'de, V: Deserialize<'de>> Deserialize<'de> for Map<V> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Option::deserialize(deserializer).map(Self)
    }
}

/// Go's `omitempty`: is the value its type's zero?
pub trait Empty {
    /// See the trait.
    fn empty(&self) -> bool;
}

macro_rules! empty_when_default {
    ($($type:ty)*) => { $(
        impl Empty for $type {
            fn empty(&self) -> bool {
                *self == <$type>::default()
            }
        }
    )* };
}
empty_when_default!(bool i32 i64 u16 u32 u64 String);

impl<T> Empty for Option<T> {
    fn empty(&self) -> bool {
        self.is_none()
    }
}
impl<T> Empty for Vec<T> {
    fn empty(&self) -> bool {
        self.is_empty()
    }
}
impl<T> Empty for List<T> {
    fn empty(&self) -> bool {
        self.is_empty()
    }
}
impl<V: 'static> Empty for Map<V> {
    fn empty(&self) -> bool {
        self.is_empty()
    }
}
impl<V> Empty for BTreeMap<String, V> {
    fn empty(&self) -> bool {
        self.is_empty()
    }
}

/// `Empty::empty` as the plain function that serde's `skip_serializing_if` wants.
pub fn empty<T: Empty>(value: &T) -> bool {
    value.empty()
}

/// Reads a value, with `null` as the default.
pub(crate) fn nullable<'de, D: Deserializer<'de>, T: Deserialize<'de> + Default>(
    deserializer: D,
) -> Result<T, D::Error> {
    Option::deserialize(deserializer).map(Option::unwrap_or_default)
}

/// Declares a struct of the API: PascalCase names, every field optional and nullable on input.
/// A first field marked `flatten` holds fields of the struct itself.
macro_rules! model {
    (
        $(#[$meta:meta])*
        pub struct $name:ident {
            $( flatten $(#[$flat_meta:meta])* pub $flat:ident: $flat_type:ty, )?
            $( $(#[$field_meta:meta])* pub $field:ident: $type:ty, )*
        }
    ) => {
        $(#[$meta])*
        #[derive(Debug, Clone, Default, PartialEq, serde::Serialize, serde::Deserialize)]
        #[serde(rename_all = "PascalCase")]
        pub struct $name {
            $(
                #[serde(flatten)]
                $(#[$flat_meta])*
                pub $flat: $flat_type,
            )?
            $(
                #[serde(default, deserialize_with = "crate::value::nullable")]
                $(#[$field_meta])*
                pub $field: $type,
            )*
        }

        own_fields! { $name [$($flat)?] $( $(#[$field_meta])* $field: $type, )* }
    };
}

/// Tells the names of a struct's own fields where another is flattened into it.
macro_rules! own_fields {
    ($name:ident [] $($rest:tt)*) => {};
    ($name:ident [$flat:ident] $( $(#[$field_meta:meta])* $field:ident: $type:ty, )*) => {
        impl $name {
            /// The names under which serde reads the fields that are the struct's own.
            pub(crate) fn own_fields() -> &'static [&'static str] {
                #[derive(serde::Deserialize)]
                #[serde(rename_all = "PascalCase")]
                #[allow(dead_code)]
                struct Own {
                    $(
                        #[serde(default, deserialize_with = "crate::value::nullable")]
                        $(#[$field_meta])*
                        $field: $type,
                    )*
                }
                crate::any_case::fields::<Own>()
            }
        }
    };
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn null_and_empty_survive() {
        for text in ["null", "[]", "[\"a\"]"] {
            let list: List<String> = serde_json::from_str(text).unwrap();
            assert_eq!(serde_json::to_string(&list).unwrap(), text);
        }
        for text in ["null", "{}", "{\"a\":1}"] {
            let map: Map<u32> = serde_json::from_str(text).unwrap();
            assert_eq!(serde_json::to_string(&map).unwrap(), text);
        }
        assert!(List::<u8>::null().iter().next().is_none());
        assert!(Map::<u8>::null().get("x").is_none());
    }
}
