//! Times as Docker writes them: RFC 3339 with nanoseconds, in UTC.

use jiff::Timestamp;

/// Go's zero time, which Docker writes where a moment has not come yet.
pub const GO_ZERO: &str = "0001-01-01T00:00:00Z";

/// The current time.
pub fn now() -> Timestamp {
    Timestamp::now()
}

/// Go's `RFC3339Nano`: trailing zeros of the fraction are dropped.
pub fn rfc3339_nano(time: Timestamp) -> String {
    time.to_string()
}

/// Nine digits of fraction always, as the json-file log driver writes.
pub fn rfc3339_nano_fixed(time: Timestamp) -> String {
    format!("{time:.9}")
}

/// [`rfc3339_nano`] of a moment, or [`GO_ZERO`] when it has not come.
pub fn or_zero(time: Option<Timestamp>) -> String {
    time.map_or_else(|| GO_ZERO.to_owned(), rfc3339_nano)
}

/// Reads RFC 3339 text; Go's zero time is `None`.
pub fn parse(text: &str) -> Option<Timestamp> {
    if text == GO_ZERO { None } else { text.parse().ok() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fractions() {
        let time = Timestamp::new(1_700_000_000, 120_000_000).unwrap();
        assert_eq!(rfc3339_nano(time), "2023-11-14T22:13:20.12Z");
        assert_eq!(rfc3339_nano_fixed(time), "2023-11-14T22:13:20.120000000Z");
        assert_eq!(parse("2023-11-14T22:13:20.12Z"), Some(time));
        assert_eq!(parse(GO_ZERO), None);
    }
}
