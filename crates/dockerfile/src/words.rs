//! One logical line: instruction, flags and arguments.

use crate::error::ParseError;

/// The line's first word, its flags, and the rest.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Split<'a> {
    pub(crate) keyword: &'a str,
    pub(crate) flags: Vec<String>,
    pub(crate) rest: &'a str,
}

/// What separates words: no line ends, which a logical line has none of.
pub(crate) fn is_blank(character: char) -> bool {
    matches!(character, '\t' | '\x0b' | '\x0c' | '\r' | ' ')
}

/// Splits at the first run of blanks.
pub(crate) fn split_blank(text: &str) -> Option<(&str, &str)> {
    let (first, rest) = text.split_once(is_blank)?;
    Some((first, rest.trim_start_matches(is_blank)))
}

/// Splits a line into its parts.
pub(crate) fn split_line(line: &str, escape: char) -> Split<'_> {
    let line = line.trim();
    match split_blank(line) {
        Some((keyword, rest)) => {
            let (flags, rest) = flags(rest, escape);
            Split { keyword, flags, rest: rest.trim() }
        }
        None => Split { keyword: line, flags: Vec::new(), rest: "" },
    }
}

/// Takes the words that begin with `--`, without their quotes and escapes, up to a word that does
/// not, or to a `--`.
fn flags(line: &str, escape: char) -> (Vec<String>, &str) {
    let mut flags = Vec::new();
    let mut rest = line.trim_start();
    while rest.starts_with("--") {
        let mut word = String::new();
        let mut quote = None;
        let mut quoted = false;
        let mut characters = rest.char_indices();
        let mut end = rest.len();
        while let Some((at, character)) = characters.next() {
            match quote {
                None if character.is_whitespace() => {
                    end = at;
                    break;
                }
                None if character == '\'' || character == '"' => {
                    quote = Some(character);
                    quoted = true;
                }
                Some(open) if character == open => quote = None,
                _ if character == escape => {
                    // An escape at the very end is dropped.
                    if let Some((_, next)) = characters.next() {
                        word.push(next);
                    }
                }
                _ => word.push(character),
            }
        }
        rest = rest[end..].trim_start();
        if word == "--" {
            return (flags, rest);
        }
        if quoted || !word.is_empty() {
            flags.push(word);
        }
    }
    (flags, rest)
}

/// Splits at spaces outside of quotes. Quotes and escapes stay in the words.
pub(crate) fn quoted_words(text: &str, escape: char) -> Vec<String> {
    let mut words = Vec::new();
    let mut word = String::new();
    let mut quote = None;
    let mut blank_ok = false;
    let mut characters = text.chars().peekable();
    while let Some(character) = characters.next() {
        match quote {
            None if character.is_whitespace() => {
                if blank_ok || !word.is_empty() {
                    words.push(std::mem::take(&mut word));
                }
                blank_ok = false;
                continue;
            }
            None if character == '\'' || character == '"' => {
                quote = Some(character);
                blank_ok = true;
            }
            Some(open) if character == open => quote = None,
            _ => {}
        }
        // Between single quotes nothing is special.
        if character == escape && quote != Some('\'') {
            match characters.next() {
                Some(next) => word.extend([character, next]),
                None => quote = None,
            }
            continue;
        }
        word.push(character);
    }
    if blank_ok || !word.is_empty() {
        words.push(word);
    }
    words
}

/// The strings of a JSON array; `Ok(None)` when the text is no JSON array at all, which makes it
/// a shell command or a list of words.
pub(crate) fn json(text: &str) -> Result<Option<Vec<String>>, ParseError> {
    let text = text.trim_start();
    if !text.starts_with('[') {
        return Ok(None);
    }
    let Ok(values) = serde_json::from_str::<Vec<serde_json::Value>>(text) else {
        return Ok(None);
    };
    let strings: Option<Vec<String>> = values
        .into_iter()
        .map(|value| match value {
            serde_json::Value::String(string) => Some(string),
            _ => None,
        })
        .collect();
    match strings {
        Some(strings) => Ok(Some(strings)),
        None => Err(ParseError::about(
            "when using JSON array syntax, arrays must be comprised of strings only",
            text,
        )),
    }
}

/// `key value` and `key=value ...` of `ENV` and `LABEL`: key, value, and whether it is the
/// old form.
pub(crate) fn pairs(
    rest: &str,
    keyword: &str,
    escape: char,
) -> Result<Vec<(String, String, bool)>, ParseError> {
    let words = quoted_words(rest, escape);
    let Some(first) = words.first() else { return Ok(Vec::new()) };
    if !first.contains('=') {
        let Some((key, value)) = split_blank(rest) else {
            return Err(ParseError::about(format!("{keyword} must have two arguments"), rest));
        };
        return Ok(vec![(key.to_owned(), value.to_owned(), true)]);
    }
    words
        .into_iter()
        .map(|word| match word.split_once('=') {
            Some((key, value)) => Ok((key.to_owned(), value.to_owned(), false)),
            None => Err(ParseError::about(
                format!(
                    "Syntax error - can't find = in {}. Must be of the form: name=value",
                    crate::quote::go(&word)
                ),
                &word,
            )),
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines() {
        for (line, keyword, expected_flags, rest) in [
            ("RUN echo hi", "RUN", vec![], "echo hi"),
            ("  run\t--a=b  --c   echo --d ", "run", vec!["--a=b", "--c"], "echo --d"),
            ("COPY --a='x y' --b=\"z\" c d", "COPY", vec!["--a=x y", "--b=z"], "c d"),
            ("COPY --a=x\\ y -- --b c", "COPY", vec!["--a=x y"], "--b c"),
            ("COPY - b", "COPY", vec![], "- b"),
            ("COPY --", "COPY", vec![], ""),
            ("COPY --a\\", "COPY", vec!["--a"], ""),
            ("COPY --a='b", "COPY", vec!["--a=b"], ""),
            ("RUN", "RUN", vec![], ""),
        ] {
            let split = split_line(line, '\\');
            let flags: Vec<String> = expected_flags.iter().map(|&flag| flag.to_owned()).collect();
            assert_eq!(split, Split { keyword, flags, rest }, "{line}");
        }
    }

    #[test]
    fn words() {
        for (text, words) in [
            ("a b", vec!["a", "b"]),
            ("a='b c' d", vec!["a='b c'", "d"]),
            ("a=b\\ c", vec!["a=b\\ c"]),
            ("a=\"b\\\" c\" '' ", vec!["a=\"b\\\" c\"", "''"]),
            ("a='b\\' c", vec!["a='b\\'", "c"]),
            ("a\\", vec!["a"]),
            ("\"a\\", vec!["\"a"]),
            ("", vec![]),
        ] {
            assert_eq!(quoted_words(text, '\\'), words, "{text}");
        }
        assert_eq!(quoted_words("a=C:\\x b=y` z", '`'), ["a=C:\\x", "b=y` z"]);
    }

    #[test]
    fn arrays() {
        assert_eq!(json(" [\"a\", \"b\\\\c\"]"), Ok(Some(vec!["a".into(), "b\\c".into()])));
        assert_eq!(json("[]"), Ok(Some(vec![])));
        for text in ["echo", "[a]", "['a']", "[\"a\"] b", "[\"C:\\x\"]", ""] {
            assert_eq!(json(text), Ok(None), "{text}");
        }
        for text in ["[1]", "[\"a\", [\"b\"]]", "[null]"] {
            assert!(json(text).is_err(), "{text}");
        }
    }

    #[test]
    fn key_values() {
        let pair = |key: &str, value: &str, legacy| (key.to_owned(), value.to_owned(), legacy);
        for (text, expected) in [
            ("a b c", vec![pair("a", "b c", true)]),
            ("a\t =b", vec![pair("a", "=b", true)]),
            ("a=b c='d e'", vec![pair("a", "b", false), pair("c", "'d e'", false)]),
            ("a==", vec![pair("a", "=", false)]),
            ("", vec![]),
        ] {
            assert_eq!(pairs(text, "ENV", '\\').unwrap(), expected, "{text}");
        }
        assert_eq!(pairs("a", "ENV", '\\').unwrap_err().message, "ENV must have two arguments");
        assert_eq!(
            pairs("a=b c", "LABEL", '\\').unwrap_err().message,
            "Syntax error - can't find = in \"c\". Must be of the form: name=value"
        );
    }
}
