//! Names of fields without regard to case, as Go's decoder reads them.
//!
//! [`AnyCase`] stands between serde and a format. Where a struct is read, a key that equals the
//! name of one of its fields but for case is passed on under that name; keys of maps, such as
//! labels, stay as they are. Of several spellings of one name the first counts. What is nested
//! in a flattened part of a struct is read as it is.

use std::borrow::Cow;
use std::fmt::{self, Write as _};
use std::sync::LazyLock;

use serde::de::{
    self, DeserializeSeed, Deserializer, EnumAccess, Error as _, Expected, MapAccess, SeqAccess,
    Visitor,
};
use serde::{Deserialize, forward_to_deserialize_any};

use crate::containers::{Config, ContainerCreateRequest, UpdateRequest};
use crate::host_config::{HostConfig, Resources};

/// A value whose fields may be written in any case. See the module.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct AnyCase<T>(pub T);

impl<'de, T: Deserialize<'de>> Deserialize<'de> for AnyCase<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        T::deserialize(Fold(deserializer)).map(Self)
    }
}

type Names = &'static [&'static str];

/// The fields of the structs that have flattened parts: serde reads those as maps.
static FLATTENED: LazyLock<Vec<&'static str>> = LazyLock::new(|| {
    [
        fields::<Config>(),
        fields::<Resources>(),
        ContainerCreateRequest::own_fields(),
        HostConfig::own_fields(),
        UpdateRequest::own_fields(),
    ]
    .concat()
});

/// The names under which serde reads the fields of a struct.
pub(crate) fn fields<T: for<'de> Deserialize<'de>>() -> Names {
    let mut names: Names = &[];
    drop(T::deserialize(Probe(&mut names)));
    names
}

/// Takes down the fields that a struct wants and gives it nothing.
struct Probe<'a>(&'a mut Names);

impl<'de> Deserializer<'de> for Probe<'_> {
    type Error = de::value::Error;

    fn deserialize_any<V: Visitor<'de>>(self, _: V) -> Result<V::Value, Self::Error> {
        Err(Self::Error::custom("not a struct"))
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        names: Names,
        visitor: V,
    ) -> Result<V::Value, Self::Error> {
        *self.0 = names;
        self.deserialize_any(visitor)
    }

    forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf option
        unit unit_struct newtype_struct seq tuple tuple_struct map enum identifier ignored_any
    }
}

/// Does a visitor build a struct? Those with flattened parts come as visitors of maps.
fn builds_struct(visitor: &dyn Expected) -> bool {
    struct Prefix(&'static str);
    impl fmt::Write for Prefix {
        fn write_str(&mut self, text: &str) -> fmt::Result {
            let length = text.len().min(self.0.len());
            let (now, rest) = self.0.split_at(length);
            self.0 = rest;
            if text.as_bytes().starts_with(now.as_bytes()) { Ok(()) } else { Err(fmt::Error) }
        }
    }
    let mut prefix = Prefix("struct ");
    // Anything else ends in an error of the comparison.
    write!(prefix, "{visitor}").is_ok() && prefix.0.is_empty()
}

/// A deserializer, a visitor, a seed or an access that folds.
struct Fold<T>(T);

macro_rules! pass_on {
    ($($method:ident)*) => { $(
        fn $method<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, D::Error> {
            self.0.$method(Fold(visitor))
        }
    )* };
}

impl<'de, D: Deserializer<'de>> Deserializer<'de> for Fold<D> {
    type Error = D::Error;

    pass_on! {
        deserialize_any deserialize_bool deserialize_i8 deserialize_i16 deserialize_i32
        deserialize_i64 deserialize_i128 deserialize_u8 deserialize_u16 deserialize_u32
        deserialize_u64 deserialize_u128 deserialize_f32 deserialize_f64 deserialize_char
        deserialize_str deserialize_string deserialize_bytes deserialize_byte_buf
        deserialize_option deserialize_unit deserialize_seq deserialize_identifier
    }

    fn deserialize_ignored_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, D::Error> {
        self.0.deserialize_ignored_any(visitor)
    }

    fn deserialize_map<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, D::Error> {
        let names: &'static [&'static str] = if builds_struct(&visitor) { &FLATTENED } else { &[] };
        self.0.deserialize_map(FoldStruct { visitor, names })
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        name: &'static str,
        names: Names,
        visitor: V,
    ) -> Result<V::Value, D::Error> {
        self.0.deserialize_struct(name, names, FoldStruct { visitor, names })
    }

    fn deserialize_unit_struct<V: Visitor<'de>>(
        self,
        name: &'static str,
        visitor: V,
    ) -> Result<V::Value, D::Error> {
        self.0.deserialize_unit_struct(name, Fold(visitor))
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        name: &'static str,
        visitor: V,
    ) -> Result<V::Value, D::Error> {
        self.0.deserialize_newtype_struct(name, Fold(visitor))
    }

    fn deserialize_tuple<V: Visitor<'de>>(
        self,
        length: usize,
        visitor: V,
    ) -> Result<V::Value, D::Error> {
        self.0.deserialize_tuple(length, Fold(visitor))
    }

    fn deserialize_tuple_struct<V: Visitor<'de>>(
        self,
        name: &'static str,
        length: usize,
        visitor: V,
    ) -> Result<V::Value, D::Error> {
        self.0.deserialize_tuple_struct(name, length, Fold(visitor))
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        name: &'static str,
        variants: Names,
        visitor: V,
    ) -> Result<V::Value, D::Error> {
        self.0.deserialize_enum(name, variants, Fold(visitor))
    }

    fn is_human_readable(&self) -> bool {
        self.0.is_human_readable()
    }
}

macro_rules! visit_scalar {
    ($($method:ident: $type:ty,)*) => { $(
        fn $method<E: de::Error>(self, value: $type) -> Result<V::Value, E> {
            self.0.$method(value)
        }
    )* };
}

impl<'de, V: Visitor<'de>> Visitor<'de> for Fold<V> {
    type Value = V::Value;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.expecting(formatter)
    }

    visit_scalar! {
        visit_bool: bool, visit_i64: i64, visit_i128: i128, visit_u64: u64, visit_u128: u128,
        visit_f64: f64, visit_char: char, visit_str: &str, visit_borrowed_str: &'de str,
        visit_string: String, visit_bytes: &[u8], visit_borrowed_bytes: &'de [u8],
        visit_byte_buf: Vec<u8>,
    }

    fn visit_none<E: de::Error>(self) -> Result<V::Value, E> {
        self.0.visit_none()
    }

    fn visit_unit<E: de::Error>(self) -> Result<V::Value, E> {
        self.0.visit_unit()
    }

    fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<V::Value, D::Error> {
        self.0.visit_some(Fold(deserializer))
    }

    fn visit_newtype_struct<D: Deserializer<'de>>(
        self,
        deserializer: D,
    ) -> Result<V::Value, D::Error> {
        self.0.visit_newtype_struct(Fold(deserializer))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, items: A) -> Result<V::Value, A::Error> {
        self.0.visit_seq(Fold(items))
    }

    fn visit_map<A: MapAccess<'de>>(self, entries: A) -> Result<V::Value, A::Error> {
        self.0.visit_map(FoldMap { entries, names: &[], seen: Vec::new() })
    }

    fn visit_enum<A: EnumAccess<'de>>(self, choice: A) -> Result<V::Value, A::Error> {
        self.0.visit_enum(choice)
    }
}

impl<'de, S: DeserializeSeed<'de>> DeserializeSeed<'de> for Fold<S> {
    type Value = S::Value;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<S::Value, D::Error> {
        self.0.deserialize(Fold(deserializer))
    }
}

impl<'de, A: SeqAccess<'de>> SeqAccess<'de> for Fold<A> {
    type Error = A::Error;

    fn next_element_seed<S: DeserializeSeed<'de>>(
        &mut self,
        seed: S,
    ) -> Result<Option<S::Value>, A::Error> {
        self.0.next_element_seed(Fold(seed))
    }

    fn size_hint(&self) -> Option<usize> {
        self.0.size_hint()
    }
}

/// A struct's visitor, with the names of its fields.
struct FoldStruct<V> {
    visitor: V,
    names: Names,
}

impl<'de, V: Visitor<'de>> Visitor<'de> for FoldStruct<V> {
    type Value = V::Value;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.visitor.expecting(formatter)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, items: A) -> Result<V::Value, A::Error> {
        self.visitor.visit_seq(Fold(items))
    }

    fn visit_map<A: MapAccess<'de>>(self, entries: A) -> Result<V::Value, A::Error> {
        let seen = vec![false; self.names.len()];
        self.visitor.visit_map(FoldMap { entries, names: self.names, seen })
    }
}

/// Entries of a struct, or of a map when there are no names.
struct FoldMap<A> {
    entries: A,
    names: Names,
    seen: Vec<bool>,
}

impl<'de, A: MapAccess<'de>> MapAccess<'de> for FoldMap<A> {
    type Error = A::Error;

    fn next_key_seed<S: DeserializeSeed<'de>>(
        &mut self,
        seed: S,
    ) -> Result<Option<S::Value>, A::Error> {
        if self.names.is_empty() {
            return self.entries.next_key_seed(seed);
        }
        let Some(key) = self.entries.next_key_seed(Key)? else { return Ok(None) };
        let position = self
            .names
            .iter()
            .position(|name| *name == key)
            .or_else(|| self.names.iter().position(|name| name.eq_ignore_ascii_case(&key)));
        let name = match position {
            // No field has an empty name, so the second spelling is ignored.
            Some(position) if std::mem::replace(&mut self.seen[position], true) => "",
            Some(position) => self.names[position],
            None => &key,
        };
        seed.deserialize(de::value::StrDeserializer::new(name)).map(Some)
    }

    fn next_value_seed<S: DeserializeSeed<'de>>(&mut self, seed: S) -> Result<S::Value, A::Error> {
        self.entries.next_value_seed(Fold(seed))
    }

    fn size_hint(&self) -> Option<usize> {
        self.entries.size_hint()
    }
}

/// Reads a key, without a copy where it has no escapes.
struct Key;

impl<'de> DeserializeSeed<'de> for Key {
    type Value = Cow<'de, str>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_str(self)
    }
}

impl<'de> Visitor<'de> for Key {
    type Value = Cow<'de, str>;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("a string")
    }

    fn visit_borrowed_str<E: de::Error>(self, key: &'de str) -> Result<Self::Value, E> {
        Ok(Cow::Borrowed(key))
    }

    fn visit_str<E: de::Error>(self, key: &str) -> Result<Self::Value, E> {
        Ok(Cow::Owned(key.to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::exec::ExecCreateRequest;
    use crate::networks::NetworkConnectRequest;

    #[test]
    fn names_of_fields_in_any_case() {
        let text = r#"{"detachKeys": "ctrl-p", "TTY": true, "cmd": ["a"], "Cmd": ["b"], "x": {}}"#;
        let AnyCase(exec) = serde_json::from_str::<AnyCase<ExecCreateRequest>>(text).unwrap();
        assert_eq!((exec.detach_keys.as_str(), exec.tty), ("ctrl-p", true));
        assert_eq!(exec.cmd[..], ["a"]);
        let text = r#"{"container": "c", "endpointconfig": {"ipamConfig": {"IPv4address": "i"}}}"#;
        let AnyCase(connect) =
            serde_json::from_str::<AnyCase<NetworkConnectRequest>>(text).unwrap();
        let address = connect.endpoint_config.and_then(|end| end.ipam_config).unwrap().ipv4_address;
        assert_eq!((connect.container.as_str(), address.as_str()), ("c", "i"));
    }

    #[test]
    fn flattened_parts_and_keys_of_maps() {
        let AnyCase(create) = serde_json::from_value::<AnyCase<ContainerCreateRequest>>(json!({
            "image": "i", "labels": {"image": "kept", "Image": "too"}, "env": null,
            "hostconfig": {"CPURealtimePeriod": 5, "networkMode": "host", "tmpfs": {"size": "s"}},
        }))
        .unwrap();
        assert_eq!(create.config.image, "i");
        assert_eq!(create.config.labels.keys().collect::<Vec<_>>(), ["Image", "image"]);
        assert_eq!(create.host_config.resources.cpu_realtime_period, 5);
        assert_eq!(create.host_config.network_mode, "host");
        assert!(create.host_config.tmpfs.contains_key("size"));
    }

    #[test]
    fn nothing_else_changes() {
        let mut request = ContainerCreateRequest::default();
        request.config.image = "i".into();
        request.host_config.resources.memory = 7;
        request.host_config.console_size = [1, 2];
        let text = serde_json::to_string(&request).unwrap();
        let AnyCase(read) = serde_json::from_str(&text).unwrap();
        assert_eq!(request, read);
        let failed = serde_json::from_str::<AnyCase<ExecCreateRequest>>(r#"{"tty": "x"}"#);
        assert!(failed.unwrap_err().to_string().starts_with("invalid type: string \"x\""));
    }

    #[test]
    fn no_two_fields_differ_in_case_only() {
        let mut names: Vec<_> = FLATTENED.iter().map(|name| name.to_ascii_lowercase()).collect();
        assert!(names.len() > 90);
        names.sort_unstable();
        names.dedup();
        let mut exact = FLATTENED.clone();
        exact.sort_unstable();
        exact.dedup();
        assert_eq!(names.len(), exact.len());
    }
}
