//! Variables in words: `$x`, `${x}` and the modifiers of a shell, with a shell's quotes.
//!
//! | written | becomes |
//! | --- | --- |
//! | `${x:-w}` `${x-w}` | `w` when x is unset (with `:`, or empty) |
//! | `${x:+w}` `${x+w}` | `w` when x is set (with `:`, and not empty), or nothing |
//! | `${x:?w}` `${x?w}` | an error with `w` when x is unset (with `:`, or empty) |
//! | `${x#p}` `${x##p}` | x without the shortest (longest) start that is like `p` |
//! | `${x%p}` `${x%%p}` | x without the shortest (longest) end that is like `p` |
//! | `${x/p/w}` `${x//p/w}` | x with the first (every) part that is like `p` replaced |
//!
//! In `p`, `*` stands for any text and `?` for one character; neither for a line end.

use std::collections::BTreeSet;

use crate::directive::Escape;
use crate::error::ExpandError;
use crate::pattern::{Fuel, Pattern};
use crate::quote;

/// Where values come from. On Windows the caller compares names without regard to case.
pub type Lookup<'a> = &'a dyn Fn(&str) -> Option<String>;

/// How much a text may grow by expansion, in bytes: a bound for files whose variables double each
/// other. [`crate::Instruction::expand`] holds all words of an instruction to it together.
pub const MAX_EXPANSION: usize = 4 << 20;

/// The longest value that a variable may have, in bytes: Linux takes no longer one into a
/// program's environment.
pub const MAX_VALUE: usize = 128 << 10;

/// How deep `${a:-${b:-...}}` may go.
const MAX_DEPTH: usize = 64;

/// How to treat quotes and escapes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Expander {
    /// The escape character.
    pub escape: char,
    /// Quotes stay in the result.
    pub raw_quotes: bool,
    /// Escape characters outside of quotes stay in the result.
    pub raw_escapes: bool,
    /// Quotes are characters as any other: for the text of here-documents.
    pub ignore_quotes: bool,
    /// Variables without a value stay as they are written.
    pub keep_unset: bool,
}

/// What came of a text.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Expansion {
    /// The text.
    pub text: String,
    /// The text split at spaces that are neither quoted nor escaped, after expansion.
    pub words: Vec<String>,
    /// Names that had a value.
    pub matched: BTreeSet<String>,
    /// Names that had none.
    pub unmatched: BTreeSet<String>,
}

impl Expander {
    /// One that removes quotes and escapes.
    pub fn new(escape: Escape) -> Self {
        Self::with_char(escape.char())
    }

    /// The same, with a character.
    pub fn with_char(escape: char) -> Self {
        Self {
            escape,
            raw_quotes: false,
            raw_escapes: false,
            ignore_quotes: false,
            keep_unset: false,
        }
    }

    /// For the text of here-documents that `COPY` writes: only variables are special.
    pub fn heredoc() -> Self {
        Self { ignore_quotes: true, ..Self::with_char('\\') }
    }

    /// The text with its variables replaced and its quotes removed.
    pub fn word(&self, text: &str, lookup: Lookup<'_>) -> Result<String, ExpandError> {
        self.expand(text, lookup).map(|expansion| expansion.text)
    }

    /// The same, split into words at spaces that are not quoted.
    pub fn words(&self, text: &str, lookup: Lookup<'_>) -> Result<Vec<String>, ExpandError> {
        self.expand(text, lookup).map(|expansion| expansion.words)
    }

    /// Both, with the names that were looked up.
    pub fn expand(&self, text: &str, lookup: Lookup<'_>) -> Result<Expansion, ExpandError> {
        let mut state = State {
            expander: *self,
            characters: text.chars().collect(),
            position: 0,
            raw_escapes: self.raw_escapes,
            lookup,
            depth: 0,
            budget: MAX_EXPANSION + text.len(),
            fuel: Fuel::new(),
            matched: BTreeSet::new(),
            unmatched: BTreeSet::new(),
        };
        // The original's scanner passes over a byte order mark.
        if state.peek() == Some('\u{feff}') {
            state.position = 1;
        }
        match state.until(None, self.raw_escapes) {
            Ok((text, words)) => {
                let State { matched, unmatched, .. } = state;
                Ok(Expansion { text, words, matched, unmatched })
            }
            Err(error) => {
                let shown = shorten(text);
                Err(ExpandError::new(format!(
                    "failed to process {}: {}",
                    quote::go(shown),
                    error.message
                )))
            }
        }
    }
}

fn too_long() -> String {
    format!("the result is longer by more than {MAX_EXPANSION} bytes")
}

/// The start of a text that is too long for a message.
fn shorten(text: &str) -> &str {
    let end = (0..=text.len().min(4096)).rev().find(|&end| text.is_char_boundary(end));
    &text[..end.unwrap_or(0)]
}

struct State<'a> {
    expander: Expander,
    characters: Vec<char>,
    position: usize,
    raw_escapes: bool,
    lookup: Lookup<'a>,
    depth: usize,
    budget: usize,
    fuel: Fuel,
    matched: BTreeSet<String>,
    unmatched: BTreeSet<String>,
}

/// Collects words.
#[derive(Default)]
struct Words {
    words: Vec<String>,
    word: String,
}

impl Words {
    /// A character that separates words if it is a space.
    fn push(&mut self, character: char) {
        if character.is_whitespace() {
            self.end();
        } else {
            self.word.push(character);
        }
    }

    fn end(&mut self) {
        if !self.word.is_empty() {
            self.words.push(std::mem::take(&mut self.word));
        }
    }
}

fn error<T>(message: impl Into<String>) -> Result<T, ExpandError> {
    Err(ExpandError::new(message))
}

impl State<'_> {
    fn peek(&self) -> Option<char> {
        self.characters.get(self.position).copied()
    }

    fn next(&mut self) -> Option<char> {
        let character = self.peek()?;
        self.position += 1;
        Some(character)
    }

    /// Counts what was produced. Values are counted each time they pass through a level of
    /// nesting, so that work is bounded, too.
    fn spend(&mut self, bytes: usize) -> Result<(), ExpandError> {
        match self.budget.checked_sub(bytes) {
            Some(left) => self.budget = left,
            None => return error(too_long()),
        }
        Ok(())
    }

    fn get(&mut self, name: &str) -> Result<Option<String>, ExpandError> {
        let value = (self.lookup)(name);
        match &value {
            Some(value) => {
                if value.len() > MAX_VALUE {
                    let length = value.len();
                    return error(format!(
                        "{name} has {length} bytes, at most {MAX_VALUE} are used"
                    ));
                }
                self.spend(value.len())?;
                self.matched.insert(name.to_owned());
            }
            None => {
                self.unmatched.insert(name.to_owned());
            }
        }
        Ok(value)
    }

    /// Everything up to `stop`, which is consumed, or to the end.
    fn until(
        &mut self,
        stop: Option<char>,
        raw_escapes: bool,
    ) -> Result<(String, Vec<String>), ExpandError> {
        if self.depth == MAX_DEPTH {
            return error(format!("syntax error: substitutions nested more than {MAX_DEPTH} deep"));
        }
        self.depth += 1;
        let outer = std::mem::replace(&mut self.raw_escapes, raw_escapes);
        let result = self.until_inner(stop);
        self.raw_escapes = outer;
        self.depth -= 1;
        let (text, words) = result?;
        self.spend(text.len())?;
        Ok((text, words))
    }

    fn until_inner(&mut self, stop: Option<char>) -> Result<(String, Vec<String>), ExpandError> {
        let mut text = String::new();
        let mut words = Words::default();
        while let Some(character) = self.peek() {
            if Some(character) == stop {
                self.position += 1;
                words.end();
                return Ok((text, words.words));
            }
            match character {
                '$' => {
                    let value = self.dollar()?;
                    value.chars().for_each(|character| words.push(character));
                    text.push_str(&value);
                }
                '<' => {
                    let heredoc = self.heredoc();
                    words.word.push_str(&heredoc);
                    text.push_str(&heredoc);
                }
                '\'' | '"' if !self.expander.ignore_quotes => {
                    let quoted = if character == '"' {
                        self.double_quoted()?
                    } else {
                        self.single_quoted()?
                    };
                    words.word.push_str(&quoted);
                    text.push_str(&quoted);
                }
                _ => {
                    self.position += 1;
                    if character == self.expander.escape {
                        if self.raw_escapes {
                            words.word.push(character);
                            text.push(character);
                        }
                        let Some(escaped) = self.next() else { break };
                        words.word.push(escaped);
                        text.push(escaped);
                    } else {
                        words.push(character);
                        text.push(character);
                    }
                }
            }
        }
        if let Some(stop) = stop {
            return error(format!("unexpected end of statement while looking for matching {stop}"));
        }
        words.end();
        Ok((text, words.words))
    }

    fn single_quoted(&mut self) -> Result<String, ExpandError> {
        let mut text = String::new();
        let quote = self.next();
        if self.expander.raw_quotes {
            text.extend(quote);
        }
        loop {
            match self.next() {
                None => {
                    return error(
                        "unexpected end of statement while looking for matching single-quote",
                    );
                }
                Some('\'') => {
                    if self.expander.raw_quotes {
                        text.push('\'');
                    }
                    return Ok(text);
                }
                Some(character) => text.push(character),
            }
        }
    }

    fn double_quoted(&mut self) -> Result<String, ExpandError> {
        let mut text = String::new();
        let quote = self.next();
        if self.expander.raw_quotes {
            text.extend(quote);
        }
        loop {
            match self.peek() {
                None => {
                    return error(
                        "unexpected end of statement while looking for matching double-quote",
                    );
                }
                Some('"') => {
                    self.position += 1;
                    if self.expander.raw_quotes {
                        text.push('"');
                    }
                    return Ok(text);
                }
                Some('$') => {
                    let value = self.dollar()?;
                    text.push_str(&value);
                }
                Some(character) => {
                    self.position += 1;
                    let mut character = character;
                    if character == self.expander.escape {
                        if self.raw_escapes {
                            text.push(character);
                        }
                        match self.peek() {
                            None => continue,
                            Some(next) if next == '"' || next == '$' || next == character => {
                                self.position += 1;
                                character = next;
                            }
                            Some(_) => {}
                        }
                    }
                    text.push(character);
                }
            }
        }
    }

    /// What a `$` and what belongs to it become.
    fn dollar(&mut self) -> Result<String, ExpandError> {
        self.position += 1;
        if self.peek() != Some('{') {
            let name = self.name();
            if name.is_empty() {
                return Ok("$".to_owned());
            }
            return Ok(match self.get(&name)? {
                None if self.expander.keep_unset => format!("${name}"),
                value => value.unwrap_or_default(),
            });
        }
        self.position += 1;
        match self.peek() {
            None => return error("syntax error: missing '}'"),
            Some('{' | '}' | ':') => return error("syntax error: bad substitution"),
            Some(_) => {}
        }
        let name = self.name();
        match self.next() {
            Some('}') => Ok(match self.get(&name)? {
                None if self.expander.keep_unset => format!("${{{name}}}"),
                value => value.unwrap_or_default(),
            }),
            Some(':') => match self.next() {
                Some(modifier) => self.modified(&name, modifier, true),
                None => error("syntax error: missing '}'"),
            },
            Some('/') => self.replaced(&name),
            Some(modifier @ ('+' | '-' | '?' | '#' | '%')) => self.modified(&name, modifier, false),
            Some(other) => error(format!("unsupported modifier ({other}) in substitution")),
            // The original shows the replacement character for the end of the text.
            None => error("unsupported modifier (\u{fffd}) in substitution"),
        }
    }

    /// `${name-word}` and its like; with `colon` an empty value counts as none.
    fn modified(&mut self, name: &str, modifier: char, colon: bool) -> Result<String, ExpandError> {
        let shown = if colon { format!(":{modifier}") } else { modifier.to_string() };
        let pattern = matches!(modifier, '#' | '%');
        if pattern && colon {
            return error(format!("unsupported modifier ({shown}) in substitution"));
        }
        let word = match self.until(Some('}'), pattern) {
            Ok((word, _)) => word,
            Err(_) if self.peek().is_none() => return error("syntax error: missing '}'"),
            Err(error) => return Err(error),
        };
        let value = self.get(name)?;
        if value.is_none() && self.expander.keep_unset {
            return Ok(format!("${{{name}{shown}{word}}}"));
        }
        let given = value.as_deref().filter(|value| !(colon && value.is_empty()));
        match modifier {
            '-' => Ok(given.map_or(word, str::to_owned)),
            '+' => Ok(if given.is_some() { word } else { String::new() }),
            '?' => match given {
                Some(value) => Ok(value.to_owned()),
                None if !word.is_empty() => error(format!("{name}: {word}")),
                None if value.is_none() => error(format!("{name}: is not allowed to be unset")),
                None => error(format!("{name}: is not allowed to be empty")),
            },
            '#' | '%' => {
                let longest = word.starts_with(modifier);
                let shape = if longest { &word[1..] } else { &word };
                let value = value.unwrap_or_default();
                let pattern = Pattern::new(shape).map_err(|cause| invalid(shape, &cause))?;
                Ok(if modifier == '#' {
                    pattern.without_prefix(&value, longest, &mut self.fuel)
                } else {
                    pattern.without_suffix(&value, longest, &mut self.fuel)
                })
            }
            _ => error(format!("unsupported modifier ({shown}) in substitution")),
        }
    }

    /// `${name/pattern/word}`.
    fn replaced(&mut self, name: &str) -> Result<String, ExpandError> {
        let all = self.peek() == Some('/');
        if all {
            self.position += 1;
        }
        let shape = match self.until(Some('/'), true) {
            Ok((shape, _)) => shape,
            Err(_) if self.peek().is_none() => {
                return error("syntax error: missing '/' in ${}");
            }
            Err(error) => return Err(error),
        };
        let replacement = match self.until(Some('}'), true) {
            Ok((replacement, _)) => replacement,
            Err(_) if self.peek().is_none() => return error("syntax error: missing '}'"),
            Err(error) => return Err(error),
        };
        let value = self.get(name)?;
        if value.is_none() && self.expander.keep_unset {
            return Ok(format!("${{{name}/{shape}/{replacement}}}"));
        }
        let pattern = Pattern::new(&shape).map_err(|cause| invalid(&shape, &cause))?;
        pattern
            .replace(&value.unwrap_or_default(), &replacement, all, self.budget, &mut self.fuel)
            .ok_or_else(|| ExpandError::new(too_long()))
    }

    /// A variable's name: digits, one special parameter, or letters, digits and `_`.
    fn name(&mut self) -> String {
        let mut name = String::new();
        match self.peek() {
            Some(first) if is_digit(first) => {
                while let Some(digit) = self.peek().filter(|&character| is_digit(character)) {
                    name.push(digit);
                    self.position += 1;
                }
                return name;
            }
            Some(special @ ('@' | '*' | '#' | '?' | '-' | '$' | '!')) => {
                self.position += 1;
                return special.to_string();
            }
            _ => {}
        }
        while let Some(character) =
            self.peek().filter(|&c| c.is_alphabetic() || is_digit(c) || c == '_')
        {
            name.push(character);
            self.position += 1;
        }
        name
    }

    /// `<<` and the spaces behind it, which do not end the word of a here-document.
    fn heredoc(&mut self) -> String {
        self.position += 1;
        if self.peek() != Some('<') {
            return "<".to_owned();
        }
        self.position += 1;
        let mut text = "<<".to_owned();
        while let Some(space @ ('\t' | '\r' | ' ')) = self.peek() {
            text.push(space);
            self.position += 1;
        }
        text
    }
}

/// A decimal digit of any script, the Unicode class Nd, as far as it matters here.
fn is_digit(character: char) -> bool {
    character.is_ascii_digit() || (!character.is_ascii() && character.is_numeric())
}

fn invalid(shape: &str, cause: &str) -> ExpandError {
    ExpandError::new(format!("invalid pattern ({shape}) in substitution: {cause}"))
}

#[cfg(test)]
mod tests;
