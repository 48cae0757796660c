//! Data of any shape, as templates see it: JSON with the order of its fields kept.
//!
//! Go's templates work on Go's types; the few differences that show (the fields of a record
//! against the keys of a map, methods that take arguments) are kept here as well.

use std::fmt;
use std::fmt::Write as _;

use serde::de::{Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};
use serde::ser::{Serialize, SerializeMap, Serializer};

/// A value.
#[derive(Debug, Clone, PartialEq, Default)]
pub(crate) enum Value {
    /// Nothing: JSON's `null`, Go's `nil`.
    #[default]
    Nil,
    Bool(bool),
    Int(i64),
    Uint(u64),
    Float(f64),
    Text(String),
    List(Vec<Value>),
    /// Names and values in their order.
    Map(Vec<(String, Value)>),
    /// A row of a table: what the fields mean is in the command's own words, and its type has
    /// the Go name that errors show.
    Row(Row),
}

/// A row of a table.
#[derive(Debug, Clone, PartialEq, Default)]
pub(crate) struct Row {
    /// The Go type that Docker's errors name.
    pub(crate) type_name: &'static str,
    /// Fields by name, each with the text that a table shows.
    pub(crate) fields: Vec<(&'static str, Value)>,
    /// What the method `Label` looks in.
    pub(crate) labels: Vec<(String, String)>,
}

const NIL: Value = Value::Nil;

impl Value {
    /// Reads JSON.
    pub(crate) fn parse(json: &[u8]) -> Result<Self, serde_json::Error> {
        serde_json::from_slice(json)
    }

    /// A value made of text.
    pub(crate) fn text(text: impl Into<String>) -> Self {
        Self::Text(text.into())
    }

    /// The field or key of exactly this name, or [`Value::Nil`].
    pub(crate) fn get(&self, name: &str) -> &Self {
        self.find(name).unwrap_or(&NIL)
    }

    /// The field or key of exactly this name.
    pub(crate) fn find(&self, name: &str) -> Option<&Self> {
        match self {
            Self::Map(entries) => {
                entries.iter().find(|(key, _)| key == name).map(|(_, value)| value)
            }
            Self::Row(row) => {
                row.fields.iter().find(|(key, _)| *key == name).map(|(_, value)| value)
            }
            _ => None,
        }
    }

    /// The value some steps further down, or [`Value::Nil`].
    pub(crate) fn path(&self, names: &[&str]) -> &Self {
        names.iter().fold(self, |value, name| value.get(name))
    }

    /// The text, or nothing where this is none.
    pub(crate) fn str(&self) -> &str {
        if let Self::Text(text) = self { text } else { "" }
    }

    /// The number as an integer, or zero where this is none.
    pub(crate) fn int(&self) -> i64 {
        match self {
            Self::Int(number) => *number,
            Self::Uint(number) => i64::try_from(*number).unwrap_or(i64::MAX),
            #[expect(clippy::cast_possible_truncation, reason = "a float saturates")]
            Self::Float(number) => *number as i64,
            _ => 0,
        }
    }

    /// The number, or zero where this is none.
    #[expect(clippy::cast_precision_loss, reason = "sizes and percentages for people")]
    pub(crate) fn float(&self) -> f64 {
        match self {
            Self::Int(number) => *number as f64,
            Self::Uint(number) => *number as f64,
            Self::Float(number) => *number,
            _ => 0.0,
        }
    }

    /// Whether this is `true`.
    pub(crate) fn bool(&self) -> bool {
        matches!(self, Self::Bool(true))
    }

    /// The elements, or none where this is no list.
    pub(crate) fn list(&self) -> &[Self] {
        if let Self::List(items) = self { items } else { &[] }
    }

    /// The entries in their order, or none where this is no map.
    pub(crate) fn entries(&self) -> &[(String, Self)] {
        if let Self::Map(entries) = self { entries } else { &[] }
    }

    /// The entries as `key=value` texts in alphabetical order, as tables show labels.
    pub(crate) fn pairs(&self) -> Vec<(String, String)> {
        let mut pairs: Vec<(String, String)> =
            self.entries().iter().map(|(key, value)| (key.clone(), value.to_string())).collect();
        pairs.sort();
        pairs
    }

    /// Go's notion of a true value: not zero, not empty.
    pub(crate) fn is_true(&self) -> bool {
        match self {
            Self::Nil => false,
            Self::Bool(value) => *value,
            Self::Int(number) => *number != 0,
            Self::Uint(number) => *number != 0,
            Self::Float(number) => *number != 0.0,
            Self::Text(text) => !text.is_empty(),
            Self::List(items) => !items.is_empty(),
            Self::Map(entries) => !entries.is_empty(),
            Self::Row(_) => true,
        }
    }

    /// Compact JSON as Go's encoder writes it without HTML escapes; a row's fields are sorted.
    pub(crate) fn json(&self) -> String {
        let text = serde_json::to_string(self).unwrap_or_default();
        if !matches!(self, Self::Row(_)) {
            return text;
        }
        // Docker's rows go through an encoder that escapes for HTML; these bytes only occur
        // inside strings.
        text.replace('<', "\\u003c").replace('>', "\\u003e").replace('&', "\\u0026")
    }
}

/// `key=value` joined with commas.
pub(crate) fn join_pairs(pairs: &[(String, String)]) -> String {
    pairs.iter().map(|(key, value)| format!("{key}={value}")).collect::<Vec<_>>().join(",")
}

/// What Go's `print` writes.
impl fmt::Display for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Nil => f.write_str("<no value>"),
            Self::Bool(value) => write!(f, "{value}"),
            Self::Int(number) => write!(f, "{number}"),
            Self::Uint(number) => write!(f, "{number}"),
            Self::Float(number) => f.write_str(&go_float(*number)),
            Self::Text(text) => f.write_str(text),
            Self::List(items) => {
                f.write_char('[')?;
                for (index, item) in items.iter().enumerate() {
                    if index > 0 {
                        f.write_char(' ')?;
                    }
                    write_nested(item, f)?;
                }
                f.write_char(']')
            }
            Self::Map(entries) => {
                let mut sorted: Vec<_> = entries.iter().collect();
                sorted.sort_by(|a, b| a.0.cmp(&b.0));
                f.write_str("map[")?;
                for (index, (key, value)) in sorted.into_iter().enumerate() {
                    if index > 0 {
                        f.write_char(' ')?;
                    }
                    write!(f, "{key}:")?;
                    write_nested(value, f)?;
                }
                f.write_char(']')
            }
            Self::Row(row) => {
                f.write_char('{')?;
                for (index, (_, value)) in row.fields.iter().enumerate() {
                    if index > 0 {
                        f.write_char(' ')?;
                    }
                    write_nested(value, f)?;
                }
                f.write_char('}')
            }
        }
    }
}

fn write_nested(value: &Value, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    if *value == Value::Nil { f.write_str("<nil>") } else { write!(f, "{value}") }
}

/// Go's `%v` of a float: the shortest digits, with an exponent from 1e21.
fn go_float(number: f64) -> String {
    if number != 0.0 && (number.abs() >= 1e21 || number.abs() < 1e-4) {
        let text = format!("{number:e}");
        let (mantissa, exponent) = text.split_once('e').unwrap_or((&text, "0"));
        let (sign, digits) = match exponent.strip_prefix('-') {
            Some(digits) => ('-', digits),
            None => ('+', exponent),
        };
        format!("{mantissa}e{sign}{digits:0>2}")
    } else {
        format!("{number}")
    }
}

impl Serialize for Value {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Nil => serializer.serialize_unit(),
            Self::Bool(value) => serializer.serialize_bool(*value),
            Self::Int(number) => serializer.serialize_i64(*number),
            Self::Uint(number) => serializer.serialize_u64(*number),
            Self::Float(number) => serializer.serialize_f64(*number),
            Self::Text(text) => serializer.serialize_str(text),
            Self::List(items) => serializer.collect_seq(items),
            Self::Map(entries) => {
                let mut map = serializer.serialize_map(Some(entries.len()))?;
                for (key, value) in entries {
                    map.serialize_entry(key, value)?;
                }
                map.end()
            }
            Self::Row(row) => {
                let mut fields: Vec<_> = row.fields.iter().collect();
                fields.sort_by_key(|(name, _)| *name);
                let mut map = serializer.serialize_map(Some(fields.len()))?;
                for (name, value) in fields {
                    map.serialize_entry(name, value)?;
                }
                map.end()
            }
        }
    }
}

impl<'de> Deserialize<'de> for Value {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Any;
        impl<'de> Visitor<'de> for Any {
            type Value = Value;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("any JSON value")
            }
            fn visit_unit<E>(self) -> Result<Value, E> {
                Ok(Value::Nil)
            }
            fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
                Ok(Value::Bool(value))
            }
            fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
                Ok(Value::Int(value))
            }
            fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
                Ok(i64::try_from(value).map_or(Value::Uint(value), Value::Int))
            }
            fn visit_f64<E>(self, value: f64) -> Result<Value, E> {
                Ok(Value::Float(value))
            }
            fn visit_str<E>(self, value: &str) -> Result<Value, E> {
                Ok(Value::Text(value.to_owned()))
            }
            fn visit_string<E>(self, value: String) -> Result<Value, E> {
                Ok(Value::Text(value))
            }
            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Value, A::Error> {
                let mut items = Vec::new();
                while let Some(item) = seq.next_element()? {
                    items.push(item);
                }
                Ok(Value::List(items))
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Value, A::Error> {
                let mut entries = Vec::new();
                while let Some(entry) = map.next_entry()? {
                    entries.push(entry);
                }
                Ok(Value::Map(entries))
            }
        }
        deserializer.deserialize_any(Any)
    }
}

/// Re-indents JSON text without reading it into values, so that numbers and order stay as sent.
pub(crate) fn indent_json(json: &str, prefix: &str, indent: &str) -> String {
    let mut out = String::with_capacity(json.len() * 2);
    let mut depth = 0usize;
    let newline = |out: &mut String, depth: usize| {
        out.push('\n');
        out.push_str(prefix);
        for _ in 0..depth {
            out.push_str(indent);
        }
    };
    let mut pending_open = false;
    let mut in_text = false;
    let mut escaped = false;
    for c in json.chars() {
        if in_text {
            out.push(c);
            if escaped {
                escaped = false;
            } else if c == '\\' {
                escaped = true;
            } else if c == '"' {
                in_text = false;
            }
            continue;
        }
        if c.is_whitespace() {
            continue;
        }
        if pending_open && c != ']' && c != '}' {
            depth += 1;
            newline(&mut out, depth);
        }
        match c {
            '{' | '[' => {
                pending_open = true;
                out.push(c);
                continue;
            }
            '}' | ']' => {
                if !pending_open {
                    depth = depth.saturating_sub(1);
                    newline(&mut out, depth);
                }
                out.push(c);
            }
            ',' => {
                out.push(c);
                newline(&mut out, depth);
            }
            ':' => out.push_str(": "),
            '"' => {
                in_text = true;
                out.push(c);
            }
            _ => out.push(c),
        }
        pending_open = false;
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn order_and_numbers_survive() {
        let json = r#"{"b":1,"a":[true,null,"x",-2,18446744073709551615,1.5],"e":{}}"#;
        let value = Value::parse(json.as_bytes()).unwrap();
        assert_eq!(value.json(), json);
        assert_eq!(
            value.to_string(),
            "map[a:[true <nil> x -2 18446744073709551615 1.5] b:1 e:map[]]"
        );
        assert_eq!(value.path(&["a"]).list().len(), 6);
        assert_eq!(value.path(&["a", "b"]), &Value::Nil);
    }

    #[test]
    fn indents_as_go() {
        assert_eq!(
            indent_json(r#"{"a": {}, "b":[ ],"c":[1,{"d":"x: {,\" y"}]}"#, "", "    "),
            "{\n    \"a\": {},\n    \"b\": [],\n    \"c\": [\n        1,\n        {\n            \
             \"d\": \"x: {,\\\" y\"\n        }\n    ]\n}"
        );
    }

    #[test]
    fn floats_as_go_prints_them() {
        for (number, text) in [(1.0, "1"), (0.25, "0.25"), (1e21, "1e+21"), (1.5e-7, "1.5e-07")] {
            assert_eq!(go_float(number), text);
        }
    }
}
