//! Escapes of URLs, as Go's `net/url` writes and reads them: which bytes are escaped, and that a
//! broken escape is an error, is part of what Docker's clients see.

use crate::Error;

/// `url.QueryEscape`: everything but letters, digits and `-_.~` as `%XX`, a blank as `+`.
pub fn escape(text: &str) -> String {
    use std::fmt::Write as _;
    let mut escaped = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' => {
                escaped.push(char::from(byte));
            }
            b' ' => escaped.push('+'),
            other => {
                // Writing to a string does not fail.
                let _written = write!(escaped, "%{other:02X}");
            }
        }
    }
    escaped
}

/// `url.QueryUnescape`: `%XX` is a byte and `+` a blank.
///
/// # Errors
///
/// If an escape is broken, or the bytes are no UTF-8.
pub fn unescape(text: &str) -> Result<String, Error> {
    decode(text, true)
}

/// `url.PathUnescape`: as [`unescape`], but `+` is itself.
///
/// # Errors
///
/// As [`unescape`].
pub fn unescape_path(text: &str) -> Result<String, Error> {
    decode(text, false)
}

fn decode(text: &str, plus: bool) -> Result<String, Error> {
    if !text.contains(['%', '+']) {
        return Ok(text.to_owned());
    }
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&first, tail)) = rest.split_first() {
        rest = tail;
        match first {
            b'+' if plus => bytes.push(b' '),
            b'%' => {
                let digits = rest.get(..2).and_then(|pair| std::str::from_utf8(pair).ok());
                let value = digits
                    .filter(|pair| pair.bytes().all(|b| b.is_ascii_hexdigit()))
                    .and_then(|pair| u8::from_str_radix(pair, 16).ok());
                let Some(value) = value else {
                    let shown = String::from_utf8_lossy(&rest[..rest.len().min(2)]).into_owned();
                    return Err(Error::invalid(format!("invalid URL escape \"%{shown}\"")));
                };
                bytes.push(value);
                rest = &rest[2..];
            }
            other => bytes.push(other),
        }
    }
    String::from_utf8(bytes).map_err(|_| Error::invalid("invalid UTF-8 in URL"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn escapes_come_back() {
        for (text, escaped) in
            [("a-b_c.d~", "a-b_c.d~"), ("x y/z*", "x+y%2Fz%2A"), ("ä=&+%", "%C3%A4%3D%26%2B%25")]
        {
            assert_eq!(escape(text), escaped);
            assert_eq!(unescape(escaped).unwrap(), text);
        }
        assert_eq!(unescape_path("a+b%20c").unwrap(), "a+b c");
        for bad in ["%", "%zz", "%f", "%ff", "%+1"] {
            assert!(unescape(bad).is_err(), "{bad}");
        }
    }
}
