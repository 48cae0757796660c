//! One record of comma-separated values, as flags of Docker's commands and attributes of BuildKit
//! have them: RFC 4180 as Go's `encoding/csv` reads it.

/// Why a record cannot be read, in Go's words.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum CsvError {
    /// A quote that is never closed, or with something other than a comma behind it.
    #[error("parse error on line 1, column 1: extraneous or missing \" in quoted-field")]
    Quoted,
    /// A quote in the middle of a field.
    #[error("parse error on line 1, column 1: bare \" in non-quoted-field")]
    Bare,
}

/// The fields of a record. Empty text is one empty field.
///
/// # Errors
///
/// [`CsvError`] where quotes are out of place.
pub fn fields(text: &str) -> Result<Vec<String>, CsvError> {
    let mut fields = Vec::new();
    let mut rest = text;
    loop {
        let (field, after) = match rest.strip_prefix('"') {
            Some(quoted) => unquote(quoted)?,
            None => {
                let (field, after) = rest
                    .split_once(',')
                    .map_or((rest, None), |(field, after)| (field, Some(after)));
                if field.contains('"') {
                    return Err(CsvError::Bare);
                }
                (field.to_owned(), after)
            }
        };
        fields.push(field);
        match after {
            Some(after) => rest = after,
            None => return Ok(fields),
        }
    }
}

/// A field behind its first quote, and what comes after the comma behind its last.
fn unquote(text: &str) -> Result<(String, Option<&str>), CsvError> {
    let mut field = String::new();
    let mut rest = text;
    loop {
        let (part, after) = rest.split_once('"').ok_or(CsvError::Quoted)?;
        field.push_str(part);
        if after.is_empty() {
            return Ok((field, None));
        }
        if let Some(after) = after.strip_prefix(',') {
            return Ok((field, Some(after)));
        }
        // Two quotes stand for one.
        rest = after.strip_prefix('"').ok_or(CsvError::Quoted)?;
        field.push('"');
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records() {
        for (text, expected) in [
            ("", vec![""]),
            ("a", vec!["a"]),
            ("a,,b", vec!["a", "", "b"]),
            ("a,\"b,\"\"c\",d", vec!["a", "b,\"c", "d"]),
            ("\"\",\"\"\"\"", vec!["", "\""]),
            ("src=x,\"dst=/a,b\"", vec!["src=x", "dst=/a,b"]),
            ("a,", vec!["a", ""]),
        ] {
            assert_eq!(fields(text).unwrap(), expected, "{text}");
        }
        for (text, error) in [
            ("a\"b", CsvError::Bare),
            ("a=\"b\"", CsvError::Bare),
            ("\"a", CsvError::Quoted),
            ("\"a\"b", CsvError::Quoted),
            ("x,\"a\"\"", CsvError::Quoted),
        ] {
            assert_eq!(fields(text), Err(error), "{text}");
        }
    }
}
