//! Paths and queries of requests.

use silo_types::query;

use crate::error::Refusal;

/// The parameters of a query, in order.
#[derive(Debug, Default)]
pub(crate) struct Query(Vec<(String, String)>);

impl Query {
    pub(crate) fn parse(text: &str) -> Result<Self, Refusal> {
        let pairs = text.split('&').filter(|part| !part.is_empty()).map(|part| {
            let (name, value) = part.split_once('=').unwrap_or((part, ""));
            Ok((query::unescape(name).map_err(wrong)?, query::unescape(value).map_err(wrong)?))
        });
        pairs.collect::<Result<_, _>>().map(Self)
    }

    /// The first value of a parameter.
    pub(crate) fn get(&self, name: &str) -> Option<&str> {
        self.0.iter().find(|(found, _)| found == name).map(|(_, value)| value.as_str())
    }

    /// All values of a parameter.
    pub(crate) fn all<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a str> {
        let of_name = self.0.iter().filter(move |(found, _)| found == name);
        of_name.map(|(_, value)| value.as_str())
    }

    /// How many entries of a list are asked for; `None` if that is not said.
    pub(crate) fn count(&self) -> Result<Option<u32>, Refusal> {
        let Some(text) = self.get("n") else { return Ok(None) };
        // More than anybody has is as good as all.
        let plain = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
        if !plain {
            let status = hyper::StatusCode::BAD_REQUEST;
            return Err(Refusal::new(status, "UNSUPPORTED", "n is not a number"));
        }
        Ok(Some(text.parse().unwrap_or(u32::MAX)))
    }
}

fn wrong(error: silo_types::Error) -> Refusal {
    Refusal::new(hyper::StatusCode::BAD_REQUEST, "NAME_INVALID", error.to_string())
}

/// One element of a path, without its escapes.
pub(crate) fn decode(text: &str) -> Result<String, Refusal> {
    query::unescape_path(text).map_err(wrong)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn queries() {
        let query = Query::parse("a=1&b=%2F+x&a=2&c&n=10").unwrap();
        assert_eq!(query.all("a").collect::<Vec<_>>(), ["1", "2"]);
        assert_eq!((query.get("b"), query.get("c"), query.get("d")), (Some("/ x"), Some(""), None));
        assert_eq!(query.count().unwrap(), Some(10));
        for bad in ["a=%", "a=%1", "a=%zz", "a=%ff", "%é"] {
            assert_eq!(Query::parse(bad).unwrap_err().code, "NAME_INVALID", "{bad}");
        }
        for bad in ["n=", "n=x", "n=-1", "n=+1"] {
            assert!(Query::parse(bad).unwrap().count().is_err(), "{bad}");
        }
        let many = Query::parse("n=99999999999999999999").unwrap();
        assert_eq!(many.count().unwrap(), Some(u32::MAX));
    }
}
