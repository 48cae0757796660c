//! The flags of one instruction.

use crate::error::ParseError;
use crate::suggest;

/// What a flag takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Takes {
    Bool,
    String,
    Strings,
}

/// The flags that were given.
#[derive(Debug, Default)]
pub(crate) struct Flags {
    given: Vec<(&'static str, String)>,
}

impl Flags {
    /// Reads flags, each `--name` or `--name=value`, against those that the instruction knows.
    pub(crate) fn parse(
        flags: &[String],
        known: &[(&'static str, Takes)],
    ) -> Result<Self, ParseError> {
        let mut given: Vec<(&'static str, String)> = Vec::new();
        for flag in flags {
            if flag == "--" {
                break;
            }
            let (written, value) = match flag.split_once('=') {
                Some((written, value)) => (written, Some(value)),
                None => (flag.as_str(), None),
            };
            let Some(name) = written.strip_prefix("--") else {
                let message = format!("arg should start with -- : {flag}");
                return Err(ParseError::about(message, flag));
            };
            let Some(&(name, takes)) = known.iter().find(|(known, _)| *known == name) else {
                let message = suggest::message(
                    format!("unknown flag: {written}"),
                    name,
                    known.iter().map(|&(known, _)| known),
                    true,
                );
                return Err(ParseError::about(message, written));
            };
            if takes != Takes::Strings && given.iter().any(|&(used, _)| used == name) {
                let message = format!("duplicate flag specified: {written}");
                return Err(ParseError::about(message, written));
            }
            let missing =
                || ParseError::about(format!("missing a value on flag: {written}"), written);
            let value = match (takes, value) {
                (Takes::Bool, None) => "true".to_owned(),
                (Takes::Bool, Some("")) => return Err(missing()),
                (Takes::Bool, Some(value)) => match value.to_lowercase().as_str() {
                    "true" => "true".to_owned(),
                    "false" => "false".to_owned(),
                    _ => {
                        let message =
                            format!("expecting boolean value for flag {written}, not: {value}");
                        return Err(ParseError::about(message, flag));
                    }
                },
                (Takes::String | Takes::Strings, Some(value)) => value.to_owned(),
                (Takes::String | Takes::Strings, None) => return Err(missing()),
            };
            given.push((name, value));
        }
        Ok(Self { given })
    }

    /// The value of a flag that takes one.
    pub(crate) fn string(&self, name: &str) -> Option<String> {
        self.given.iter().find(|(given, _)| *given == name).map(|(_, value)| value.clone())
    }

    /// All values of a flag that may be repeated.
    pub(crate) fn strings(&self, name: &str) -> Vec<String> {
        let given = self.given.iter().filter(|(given, _)| *given == name);
        given.map(|(_, value)| value.clone()).collect()
    }

    /// Whether a flag was given, and as what.
    pub(crate) fn bool(&self, name: &str) -> Option<bool> {
        self.string(name).map(|value| value == "true")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KNOWN: &[(&str, Takes)] =
        &[("link", Takes::Bool), ("from", Takes::String), ("exclude", Takes::Strings)];

    fn parse(flags: &[&str]) -> Result<Flags, ParseError> {
        let flags: Vec<String> = flags.iter().map(|&flag| flag.to_owned()).collect();
        Flags::parse(&flags, KNOWN)
    }

    #[test]
    fn values() {
        let flags =
            parse(&["--link", "--exclude=a", "--from=x=y", "--exclude=", "--", "--z"]).unwrap();
        assert_eq!(flags.bool("link"), Some(true));
        assert_eq!(flags.string("from").as_deref(), Some("x=y"));
        assert_eq!(flags.strings("exclude"), ["a", ""]);
        assert_eq!(parse(&["--link=FALSE"]).unwrap().bool("link"), Some(false));
        assert_eq!(parse(&[]).unwrap().bool("link"), None);
        assert_eq!(parse(&["--from="]).unwrap().string("from").as_deref(), Some(""));
    }

    #[test]
    fn refused() {
        for (flags, message) in [
            (vec!["--frm=x"], "unknown flag: --frm (did you mean from?)"),
            (vec!["--bogus"], "unknown flag: --bogus"),
            (vec!["--link=maybe"], "expecting boolean value for flag --link, not: maybe"),
            (vec!["--link="], "missing a value on flag: --link"),
            (vec!["--from"], "missing a value on flag: --from"),
            (vec!["--from=a", "--from=b"], "duplicate flag specified: --from"),
            (vec!["from"], "arg should start with -- : from"),
        ] {
            assert_eq!(parse(&flags).unwrap_err().message, message);
        }
    }
}
