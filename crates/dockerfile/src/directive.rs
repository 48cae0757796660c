//! Parser directives: `# name=value` in the first lines.

use crate::ast::Span;
use crate::error::ParseError;

/// What the directives at the head of a file say.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Directives {
    /// `syntax`: the image of the frontend, as written. Silo reads every Dockerfile itself.
    pub syntax: Option<String>,
    /// `escape`: the character that continues lines and takes the meaning from the next one.
    pub escape: Escape,
    /// `check`: options of the checks, see [`crate::lint::Config`].
    pub check: Option<String>,
}

/// The escape character.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Escape {
    /// `\`
    #[default]
    Backslash,
    /// `` ` ``, for files that write Windows paths.
    Backtick,
}

impl Escape {
    /// The character.
    pub fn char(self) -> char {
        match self {
            Self::Backslash => '\\',
            Self::Backtick => '`',
        }
    }
}

/// One directive.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Directive {
    /// `syntax`, `escape` or `check`.
    pub(crate) name: &'static str,
    /// The value without spaces around it.
    pub(crate) value: String,
}

/// Reads directives line by line until there is a line that is none.
#[derive(Debug)]
pub(crate) struct Reader {
    comment: &'static str,
    seen: Vec<&'static str>,
    done: bool,
}

impl Reader {
    /// A reader of lines that begin with `comment`.
    pub(crate) fn new(comment: &'static str) -> Self {
        Self { comment, seen: Vec::new(), done: false }
    }

    /// The directive of a line, which has no line end and no spaces before it.
    pub(crate) fn line(&mut self, line: &str) -> Result<Option<Directive>, ParseError> {
        if self.done {
            return Ok(None);
        }
        let Some((name, value)) = line.strip_prefix(self.comment).and_then(assignment) else {
            self.done = true;
            return Ok(None);
        };
        let lower = name.to_ascii_lowercase();
        let Some(name) = ["syntax", "escape", "check"].into_iter().find(|known| *known == lower)
        else {
            self.done = true;
            return Ok(None);
        };
        if self.seen.contains(&name) {
            let message = format!("only one {name} parser directive can be used");
            return Err(ParseError::about(message, line));
        }
        self.seen.push(name);
        Ok(Some(Directive { name, value: value.to_owned() }))
    }
}

/// `name = value`: a name of letters and digits, a value of at least one character.
fn assignment(text: &str) -> Option<(&str, &str)> {
    let text = text.trim_start();
    let (name, value) = text.split_once('=')?;
    let name = name.trim_end_matches(is_regex_space);
    let value = value.trim_matches(is_regex_space);
    let mut characters = name.chars();
    let valid = characters.next()?.is_ascii_alphabetic()
        && characters.all(|character| character.is_ascii_alphanumeric())
        && !value.is_empty()
        && !value.contains('\n');
    valid.then_some((name, value))
}

/// What `\s` is in the regular expressions of the original.
fn is_regex_space(character: char) -> bool {
    matches!(character, ' ' | '\t' | '\n' | '\r' | '\x0c')
}

impl Directives {
    /// Takes a directive in; false, when it changes the escape character to something unknown.
    pub(crate) fn set(&mut self, directive: Directive) -> Result<(), ParseError> {
        match directive.name {
            "escape" => {
                self.escape = match directive.value.as_str() {
                    "\\" => Escape::Backslash,
                    "`" => Escape::Backtick,
                    other => {
                        let message =
                            format!("invalid escape token '{other}' does not match ` or \\");
                        return Err(ParseError::about(message, other));
                    }
                }
            }
            "syntax" => self.syntax = Some(directive.value),
            _ => self.check = Some(directive.value),
        }
        Ok(())
    }
}

/// The frontend's image that a text asks for and its line: a `syntax` directive as `#` or `//`
/// comment, or as a member of a JSON object. A first line `#!` is passed over.
pub fn detect_syntax(text: &[u8]) -> Option<(String, Span)> {
    let text = String::from_utf8_lossy(text);
    let text = text.strip_prefix('\u{feff}').unwrap_or(&text);
    let (text, first) = match text.strip_prefix("#!") {
        Some(_) => (text.split_once('\n').map_or("", |(_, rest)| rest), 2),
        None => (text, 1),
    };
    for comment in ["#", "//"] {
        let mut reader = Reader::new(comment);
        for (number, line) in (first..).zip(text.lines()) {
            match reader.line(line) {
                Ok(Some(directive)) if directive.name == "syntax" => {
                    let image = directive.value.split(' ').next().unwrap_or_default().to_owned();
                    return Some((image, Span::new(number, number)));
                }
                Ok(Some(_)) => {}
                Ok(None) | Err(_) => break,
            }
        }
    }
    let object: serde_json::Map<String, serde_json::Value> = serde_json::from_str(text).ok()?;
    Some((object.get("syntax")?.as_str()?.to_owned(), Span::new(first, first)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines() {
        for (line, found) in [
            ("# escape=`", Some(("escape", "`"))),
            ("#escape = `  ", Some(("escape", "`"))),
            ("#\tEsCaPe=\\", Some(("escape", "\\"))),
            ("# syntax=docker/dockerfile:1 # more", Some(("syntax", "docker/dockerfile:1 # more"))),
            ("# check=skip=all;error=true", Some(("check", "skip=all;error=true"))),
            ("# escape=", None),
            ("# =x", None),
            ("# 1escape=x", None),
            ("# es cape=x", None),
            ("# unknown=x", None),
            ("escape=`", None),
            ("", None),
        ] {
            let directive = Reader::new("#").line(line).unwrap();
            let directive = directive.as_ref().map(|d| (d.name, d.value.as_str()));
            assert_eq!(directive, found, "{line}");
        }
    }

    #[test]
    fn once_and_first() {
        let mut reader = Reader::new("#");
        assert!(reader.line("# escape=`").unwrap().is_some());
        let error = reader.line("# escape=`").unwrap_err();
        assert_eq!(error.to_string(), "only one escape parser directive can be used");
        let mut reader = Reader::new("#");
        assert!(reader.line("# a comment").unwrap().is_none());
        assert!(reader.line("# escape=`").unwrap().is_none());
    }

    #[test]
    fn syntax() {
        for (text, found) in [
            ("# syntax=a/b:1 x\nFROM c", Some(("a/b:1", 1))),
            ("#!/usr/bin/build\n#escape=`\n# syntax = a", Some(("a", 3))),
            ("// syntax=a", Some(("a", 1))),
            ("{\"syntax\": \"a\"}", Some(("a", 1))),
            ("\u{feff}# syntax=a", Some(("a", 1))),
            ("\n# syntax=a", None),
            ("FROM a", None),
        ] {
            let detected = detect_syntax(text.as_bytes());
            let detected = detected.as_ref().map(|(image, span)| (image.as_str(), span.start_line));
            assert_eq!(detected, found, "{text}");
        }
    }
}
