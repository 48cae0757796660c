//! Paths and queries of requests.

use crate::error::Refusal;

/// The parameters of a query, in order.
#[derive(Debug, Default)]
pub(crate) struct Query(Vec<(String, String)>);

impl Query {
    pub(crate) fn parse(text: &str) -> Result<Self, Refusal> {
        let pairs = text.split('&').filter(|part| !part.is_empty()).map(|part| {
            let (name, value) = part.split_once('=').unwrap_or((part, ""));
            Ok((decode(&name.replace('+', " "))?, decode(&value.replace('+', " "))?))
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

/// Undoes percent-encoding.
pub(crate) fn decode(text: &str) -> Result<String, Refusal> {
    let wrong = || {
        let status = hyper::StatusCode::BAD_REQUEST;
        Refusal::new(status, "NAME_INVALID", "the request's target is not a valid URL")
    };
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let [first, tail @ ..] = rest {
        rest = tail;
        if *first == b'%' {
            let (digits, tail) = rest.split_at_checked(2).ok_or_else(wrong)?;
            let digit = |byte: u8| char::from(byte).to_digit(16).ok_or_else(wrong);
            let value = digit(digits[0])? * 16 + digit(digits[1])?;
            bytes.push(u8::try_from(value).map_err(|_| wrong())?);
            rest = tail;
        } else {
            bytes.push(*first);
        }
    }
    String::from_utf8(bytes).map_err(|_| wrong())
}

/// Encodes text for a query.
pub(crate) fn encode(text: &str) -> String {
    let mut encoded = String::new();
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~') {
            encoded.push(char::from(byte));
        } else {
            encoded.push_str(&format!("%{byte:02X}"));
        }
    }
    encoded
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
            assert!(Query::parse(bad).is_err(), "{bad}");
        }
        for bad in ["n=", "n=x", "n=-1", "n=+1"] {
            assert!(Query::parse(bad).unwrap().count().is_err(), "{bad}");
        }
        let many = Query::parse("n=99999999999999999999").unwrap();
        assert_eq!(many.count().unwrap(), Some(u32::MAX));
        assert_eq!(decode(&encode("a/b:c é")).unwrap(), "a/b:c é");
    }
}
