//! The query part of a request's address, read as dockerd reads forms.

use silo_docker::Filters;
use silo_types::Error;
use silo_types::query::unescape;

/// Decoded names and values, in order.
#[derive(Debug, Clone, Default)]
pub(crate) struct Query(Vec<(String, String)>);

impl Query {
    /// Reads `a=1&b=2`. Broken escapes are an error, as in Go's `ParseQuery`.
    pub(crate) fn parse(text: &str) -> Result<Self, Error> {
        let mut pairs = Vec::new();
        for part in text.split('&').filter(|part| !part.is_empty()) {
            if part.contains(';') {
                return Err(Error::invalid("invalid semicolon separator in query"));
            }
            let (name, value) = part.split_once('=').unwrap_or((part, ""));
            pairs.push((unescape(name)?, unescape(value)?));
        }
        Ok(Self(pairs))
    }

    /// The first value, or empty.
    pub(crate) fn get(&self, name: &str) -> &str {
        let found = self.0.iter().find(|(found, _)| found == name);
        found.map_or("", |(_, value)| value.as_str())
    }

    /// Every value of a name.
    pub(crate) fn all<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a str> {
        self.0.iter().filter(move |(found, _)| found == name).map(|(_, value)| value.as_str())
    }

    /// Is the name there, with whatever value?
    pub(crate) fn has(&self, name: &str) -> bool {
        self.0.iter().any(|(found, _)| found == name)
    }

    /// Anything but empty, `0`, `no`, `false` and `none` is true.
    pub(crate) fn flag(&self, name: &str) -> bool {
        let value = self.get(name).trim().to_ascii_lowercase();
        !matches!(value.as_str(), "" | "0" | "no" | "false" | "none")
    }

    /// [`Query::flag`], or a default when the name is absent.
    pub(crate) fn flag_or(&self, name: &str, default: bool) -> bool {
        if self.has(name) { self.flag(name) } else { default }
    }

    /// A whole number; `None` when absent or empty.
    pub(crate) fn number(&self, name: &str) -> Result<Option<i64>, Error> {
        match self.get(name) {
            "" => Ok(None),
            text => text.parse().map(Some).map_err(|_| {
                Error::invalid(format!("strconv.Atoi: parsing {text:?}: invalid syntax"))
            }),
        }
    }

    /// The `filters` value.
    pub(crate) fn filters(&self) -> Result<Filters, Error> {
        Filters::parse(self.get("filters"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn forms() {
        let query = Query::parse("a=1&b=x+y%2Fz&a=2&c&d=False&e=no&f=yes").unwrap();
        assert_eq!(query.get("a"), "1");
        assert_eq!(query.all("a").collect::<Vec<_>>(), ["1", "2"]);
        assert_eq!(query.get("b"), "x y/z");
        assert!(query.has("c") && !query.flag("c") && !query.flag_or("c", true));
        assert!(
            !query.flag("d") && !query.flag("e") && query.flag("f") && query.flag_or("z", true)
        );
        assert_eq!(query.number("a").unwrap(), Some(1));
        assert_eq!(query.number("z").unwrap(), None);
        assert!(query.number("f").is_err());
        for bad in ["a=%", "a=%zz", "a=%f", "a=%ff", "a;b=1", "%+1=2"] {
            assert!(Query::parse(bad).is_err(), "{bad}");
        }
    }
}
