//! The `filters` query value: a JSON object of filter names to sets of values.

use std::collections::{BTreeMap, BTreeSet};

use regex_lite::Regex;
use silo_types::Error;

/// Filter names with their values. A name without values is present but matches everything.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Filters(BTreeMap<String, BTreeSet<String>>);

impl Filters {
    /// Reads `{"name":{"value":true}}`, or `{"name":["value"]}` of clients before API 1.22 and of
    /// docker-py. Empty text is no filter.
    pub fn parse(text: &str) -> Result<Self, Error> {
        if text.is_empty() {
            return Ok(Self::default());
        }
        // Go takes every key of the inner object as set, whatever its boolean says.
        if let Ok(map) =
            serde_json::from_str::<BTreeMap<String, Option<BTreeMap<String, bool>>>>(text)
        {
            let values = |set: Option<BTreeMap<String, bool>>| {
                set.unwrap_or_default().into_iter().filter(|(_, on)| *on).map(|(v, _)| v).collect()
            };
            return Ok(Self(map.into_iter().map(|(name, set)| (name, values(set))).collect()));
        }
        match serde_json::from_str::<BTreeMap<String, Option<BTreeSet<String>>>>(text) {
            Ok(map) => {
                Ok(Self(map.into_iter().map(|(n, set)| (n, set.unwrap_or_default())).collect()))
            }
            Err(_) => Err(Error::invalid("invalid filter")),
        }
    }

    /// The JSON that [`Filters::parse`] reads; empty text for no filter.
    pub fn to_json(&self) -> String {
        if self.0.is_empty() {
            return String::new();
        }
        let map: BTreeMap<&str, BTreeMap<&str, bool>> = self
            .0
            .iter()
            .map(|(name, set)| (name.as_str(), set.iter().map(|v| (v.as_str(), true)).collect()))
            .collect();
        serde_json::to_string(&map).unwrap_or_default()
    }

    /// Adds one value.
    pub fn add(&mut self, name: &str, value: &str) {
        self.0.entry(name.to_owned()).or_default().insert(value.to_owned());
    }

    /// Takes a filter out and returns its values.
    pub fn remove(&mut self, name: &str) -> Option<BTreeSet<String>> {
        self.0.remove(name)
    }

    /// No filter at all?
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Is the name present?
    pub fn contains(&self, name: &str) -> bool {
        self.0.contains_key(name)
    }

    /// The values of a name.
    pub fn get(&self, name: &str) -> impl Iterator<Item = &str> {
        self.0.get(name).into_iter().flatten().map(String::as_str)
    }

    /// Fails on a name that is not accepted.
    pub fn validate(&self, accepted: &[&str]) -> Result<(), Error> {
        match self.0.keys().find(|name| !accepted.contains(&name.as_str())) {
            Some(name) => Err(Error::invalid(format!("invalid filter '{name}'"))),
            None => Ok(()),
        }
    }

    /// A filter that says yes or no; `default` when it is absent.
    pub fn boolean(&self, name: &str, default: bool) -> Result<bool, Error> {
        let Some(values) = self.0.get(name) else { return Ok(default) };
        let no = values.contains("0") || values.contains("false");
        let yes = values.contains("1") || values.contains("true");
        if no == yes {
            let list: Vec<&str> = values.iter().map(String::as_str).collect();
            let list = list.join(" ");
            return Err(Error::invalid(format!("invalid filter '{name}=[{list}]'")));
        }
        Ok(yes)
    }

    /// True when the text is one of the values, or no value is given.
    pub fn exact(&self, name: &str, text: &str) -> bool {
        self.0.get(name).is_none_or(|values| values.is_empty() || values.contains(text))
    }

    /// [`Filters::exact`], or a value is a prefix of the text.
    pub fn prefix(&self, name: &str, text: &str) -> bool {
        self.exact(name, text) || self.get(name).any(|value| text.starts_with(value))
    }

    /// [`Filters::exact`], or a value is a regular expression found in the text.
    pub fn pattern(&self, name: &str, text: &str) -> bool {
        self.exact(name, text)
            || self.get(name).any(|value| {
                // Plain names are the common case and need no expression.
                let plain = !value.bytes().any(|b| b"\\.+*?()|[]{}^$".contains(&b));
                if plain {
                    return text.contains(value);
                }
                Regex::new(value).is_ok_and(|pattern| pattern.is_match(text))
            })
    }

    /// True when each `key` or `key=value` of the filter is in `labels`.
    pub fn labels<'a>(&self, name: &str, label: impl Fn(&str) -> Option<&'a str>) -> bool {
        self.get(name).all(|wanted| {
            let (key, value) = wanted.split_once('=').map_or((wanted, None), |(k, v)| (k, Some(v)));
            label(key).is_some_and(|found| value.is_none_or(|value| value == found))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_forms_parse() {
        let new = Filters::parse(r#"{"label":{"a=b":true},"dangling":{"true":true}}"#).unwrap();
        let old = Filters::parse(r#"{"label":["a=b"],"dangling":["true"]}"#).unwrap();
        assert_eq!(new, old);
        assert_eq!(Filters::parse(&new.to_json()).unwrap(), new);
        assert!(Filters::parse("").unwrap().is_empty());
        for bad in ["x", "[]", r#"{"a":1}"#, r#"{"a":"b"}"#, r#"{"a":{"b":"c"}}"#] {
            assert_eq!(Filters::parse(bad).unwrap_err().message(), "invalid filter", "{bad}");
        }
    }

    #[test]
    fn matching() {
        let mut filters = Filters::default();
        filters.add("name", "^/web[0-9]$");
        filters.add("name", "db");
        for (text, expected) in [("/web1", true), ("/web12", false), ("/mydb", true), ("/x", false)]
        {
            assert_eq!(filters.pattern("name", text), expected, "{text}");
        }
        filters.add("id", "abc");
        assert!(filters.prefix("id", "abcdef") && !filters.prefix("id", "xabc"));
        assert!(filters.prefix("other", "anything"));
        filters.add("label", "a");
        filters.add("label", "b=1");
        let labels = BTreeMap::from([("a", "x"), ("b", "1")]);
        assert!(filters.labels("label", |key| labels.get(key).copied()));
        assert!(!filters.labels("label", |key| (key == "a").then_some("x")));
    }

    #[test]
    fn booleans() {
        let parse = |text: &str| Filters::parse(text).unwrap().boolean("d", false);
        assert!(parse(r#"{"d":["1"]}"#).unwrap());
        assert!(!parse(r#"{"d":["false"]}"#).unwrap());
        assert!(!parse("{}").unwrap());
        assert_eq!(
            parse(r#"{"d":["maybe"]}"#).unwrap_err().message(),
            "invalid filter 'd=[maybe]'"
        );
        assert!(parse(r#"{"d":["0","1"]}"#).is_err());
    }
}
