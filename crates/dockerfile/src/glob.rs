//! Go's `filepath.Match`: the wildcards of `COPY` sources.
//!
//! `*` is any text without `/`, `?` any character but `/`, `[a-z]` and `[^a-z]` are classes, `\`
//! takes the meaning from the next character. A pattern matches whole paths only.

/// A pattern that cannot be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("syntax error in pattern")]
pub struct BadPattern;

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Token {
    Char(char),
    /// `?`
    Any,
    /// `*`
    Star,
    Class(Class),
}

impl Token {
    /// Whether the token, not a star, takes the character.
    pub(crate) fn takes(&self, character: char) -> bool {
        match self {
            Self::Char(wanted) => *wanted == character,
            Self::Any => character != '/',
            Self::Star => false,
            Self::Class(class) => class.takes(character),
        }
    }
}

/// `[...]`
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Class {
    negated: bool,
    ranges: Vec<(char, char)>,
}

impl Class {
    fn takes(&self, character: char) -> bool {
        let inside = self.ranges.iter().any(|&(low, high)| (low..=high).contains(&character));
        inside != self.negated
    }

    /// Reads what stands behind the `[`, up to and with the `]`.
    pub(crate) fn read(characters: &mut Characters<'_>) -> Result<Self, BadPattern> {
        let negated = characters.next_if_eq(&'^').is_some();
        let mut ranges = Vec::new();
        loop {
            if !ranges.is_empty() && characters.next_if_eq(&']').is_some() {
                return Ok(Self { negated, ranges });
            }
            let low = Self::end(characters)?;
            let high = match characters.next_if_eq(&'-') {
                Some(_) => Self::end(characters)?,
                None => low,
            };
            ranges.push((low, high));
        }
    }

    /// One end of a range.
    fn end(characters: &mut Characters<'_>) -> Result<char, BadPattern> {
        let end = match characters.next() {
            None | Some('-' | ']') => return Err(BadPattern),
            Some('\\') => characters.next().ok_or(BadPattern)?,
            Some(character) => character,
        };
        // Something has to follow, if only the bracket.
        characters.peek().map(|_| end).ok_or(BadPattern)
    }
}

pub(crate) type Characters<'a> = std::iter::Peekable<std::str::Chars<'a>>;

/// A pattern, ready to match.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Glob {
    tokens: Vec<Token>,
}

impl Glob {
    /// Reads a pattern.
    pub fn new(pattern: &str) -> Result<Self, BadPattern> {
        let mut tokens = Vec::new();
        let mut characters = pattern.chars().peekable();
        while let Some(character) = characters.next() {
            tokens.push(match character {
                // Two stars are one.
                '*' if tokens.last() == Some(&Token::Star) => continue,
                '*' => Token::Star,
                '?' => Token::Any,
                '[' => Token::Class(Class::read(&mut characters)?),
                '\\' => Token::Char(characters.next().ok_or(BadPattern)?),
                _ => Token::Char(character),
            });
        }
        Ok(Self { tokens })
    }

    /// Whether the pattern matches the whole path.
    pub fn matches(&self, path: &str) -> bool {
        let path: Vec<char> = path.chars().collect();
        let (mut token, mut at) = (0, 0);
        // The last star and the place up to which it has taken.
        let mut star: Option<(usize, usize)> = None;
        loop {
            match self.tokens.get(token) {
                Some(Token::Star) => {
                    star = Some((token, at));
                    token += 1;
                    continue;
                }
                None if at == path.len() => return true,
                Some(wanted) if path.get(at).is_some_and(|&character| wanted.takes(character)) => {
                    token += 1;
                    at += 1;
                    continue;
                }
                _ => {}
            }
            // An earlier star has nothing to offer that the last one has not, or where it has,
            // between classes that take a `/`, Go does not look either.
            match star {
                Some((place, taken)) if path.get(taken).is_some_and(|&next| next != '/') => {
                    star = Some((place, taken + 1));
                    token = place + 1;
                    at = taken + 1;
                }
                _ => return false,
            }
        }
    }
}

/// Whether a text has characters that [`Glob`] does not take for themselves.
pub fn has_wildcards(text: &str) -> bool {
    text.contains(['*', '?', '[', '\\'])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn matching() {
        for (pattern, path, matched) in [
            ("abc", "abc", true),
            ("*", "abc", true),
            ("*c", "abc", true),
            ("a*", "a", true),
            ("a*", "ab/c", false),
            ("a*/b", "abc/b", true),
            ("a*/b", "a/c/b", false),
            ("a*b*c*d*e*/f", "axbxcxdxe/f", true),
            ("a*b*c*d*e*/f", "axbxcxdxexxx/fff", false),
            ("a*b?c*x", "abxbbxdbxebxczzx", true),
            ("a*b?c*x", "abxbbxdbxebxczzy", false),
            ("ab[c]", "abc", true),
            ("ab[^e-g]", "abc", true),
            ("ab[^b-d]", "abc", false),
            ("a\\*b", "a*b", true),
            ("a\\*b", "ab", false),
            ("a?b", "a☺b", true),
            ("a[^a]b", "a☺b", true),
            ("a?b", "a/b", false),
            ("[\\]a]", "]", true),
            ("[x\\-]", "-", true),
            ("*x", "xxx", true),
            ("", "", true),
            ("", "a", false),
        ] {
            assert_eq!(Glob::new(pattern).unwrap().matches(path), matched, "{pattern} {path}");
        }
        for pattern in ["[]a]", "[-]", "[x-]", "[-x]", "\\", "[", "[^", "[^bc", "a[", "[\\"] {
            assert_eq!(Glob::new(pattern), Err(BadPattern), "{pattern}");
        }
    }
}
