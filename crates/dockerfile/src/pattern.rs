//! The patterns of `${x#p}`, `${x%p}` and `${x/p/w}`: `*`, `?` and characters.
//!
//! Stars divide a pattern into parts of fixed length. Taking each part at its first place, and
//! the last one at its last where the longest match is wanted, finds what a backtracking matcher
//! would, in one pass: a star covers everything but line ends, so whatever can follow a later
//! place can follow an earlier one on the same line.

/// How many comparisons the substitutions of one text may take together: behind that nothing
/// matches.
const MAX_COMPARISONS: usize = 1 << 24;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Token {
    /// `?`: any character but a line end.
    Any,
    Char(char),
}

/// A pattern, ready to match.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Pattern {
    /// What stands between the stars; at least one, maybe empty.
    parts: Vec<Vec<Token>>,
}

/// The comparisons that are left.
#[derive(Debug)]
pub(crate) struct Fuel(usize);

impl Fuel {
    pub(crate) fn new() -> Self {
        Self(MAX_COMPARISONS)
    }

    fn burn(&mut self) -> Option<()> {
        self.0 = self.0.checked_sub(1)?;
        Some(())
    }
}

impl Pattern {
    /// Reads a pattern. `\` takes the meaning from `*`, `?` and itself, and stands before `}` and
    /// `/` for them to be in the pattern at all.
    pub(crate) fn new(text: &str) -> Result<Self, String> {
        let mut parts = vec![Vec::new()];
        let mut characters = text.chars().peekable();
        while let Some(character) = characters.next() {
            let token = match character {
                '*' => {
                    parts.push(Vec::new());
                    continue;
                }
                '?' => Token::Any,
                '\\' => match characters.peek() {
                    Some('}' | '/') => continue,
                    Some(&escaped @ ('*' | '?' | '\\')) => {
                        characters.next();
                        Token::Char(escaped)
                    }
                    other => {
                        return Err(format!("invalid escape '\\{}'", other.unwrap_or(&'\u{fffd}')));
                    }
                },
                _ => Token::Char(character),
            };
            if let Some(part) = parts.last_mut() {
                part.push(token);
            }
        }
        Ok(Self { parts })
    }

    /// The text without the start that the pattern matches.
    pub(crate) fn without_prefix(&self, text: &str, longest: bool, fuel: &mut Fuel) -> String {
        let characters: Vec<char> = text.chars().collect();
        match self.prefix(&characters, 0, longest, fuel) {
            Some(end) => characters[end..].iter().collect(),
            None => text.to_owned(),
        }
    }

    /// The text without the end that the pattern matches.
    pub(crate) fn without_suffix(&self, text: &str, longest: bool, fuel: &mut Fuel) -> String {
        let mut backwards = self.clone();
        backwards.parts.reverse();
        backwards.parts.iter_mut().for_each(|part| part.reverse());
        let characters: Vec<char> = text.chars().rev().collect();
        match backwards.prefix(&characters, 0, longest, fuel) {
            Some(end) => characters[end..].iter().rev().collect(),
            None => text.to_owned(),
        }
    }

    /// The text with the first, or every, longest match replaced. `None` when the result would
    /// have more than `limit` bytes.
    pub(crate) fn replace(
        &self,
        text: &str,
        replacement: &str,
        all: bool,
        limit: usize,
        fuel: &mut Fuel,
    ) -> Option<String> {
        let characters: Vec<char> = text.chars().collect();
        let mut out = String::new();
        let mut done = 0;
        let mut from = 0;
        while from <= characters.len() {
            let Some((start, end)) = self.find(&characters, from, fuel) else { break };
            out.extend(&characters[done..start]);
            // An empty match directly behind another match is none.
            if end > done || start == 0 {
                let matched = &characters[start..end];
                if all {
                    template(replacement, matched, &mut out);
                } else {
                    out.push_str(replacement);
                }
            }
            if out.len() > limit {
                return None;
            }
            done = end;
            if !all {
                break;
            }
            from = end.max(from + 1);
        }
        out.extend(&characters[done..]);
        (out.len() <= limit).then_some(out)
    }

    /// The first match at or behind `from`, as long as it can be.
    fn find(&self, text: &[char], from: usize, fuel: &mut Fuel) -> Option<(usize, usize)> {
        let first = self.parts.first()?;
        let mut start = from;
        while start + first.len() <= text.len() {
            if part_at(first, text, start, fuel)? {
                let behind = start + first.len();
                if let Some(end) = self.rest(text, behind, true, fuel) {
                    return Some((start, end));
                }
                // What does not follow here follows nowhere on this line.
                start = (start + 1).max((line_end(text, behind) + 1).saturating_sub(first.len()));
            } else {
                start += 1;
            }
        }
        None
    }

    /// The end of the match that begins at `start`.
    fn prefix(&self, text: &[char], start: usize, longest: bool, fuel: &mut Fuel) -> Option<usize> {
        let first = self.parts.first()?;
        if !part_at(first, text, start, fuel)? {
            return None;
        }
        self.rest(text, start + first.len(), longest, fuel)
    }

    /// The end of what the parts behind the first star match from `position` on.
    fn rest(
        &self,
        text: &[char],
        mut position: usize,
        longest: bool,
        fuel: &mut Fuel,
    ) -> Option<usize> {
        for (index, part) in self.parts.iter().enumerate().skip(1) {
            let last = line_end(text, position);
            let place = if longest && index + 1 == self.parts.len() {
                search((position..=last).rev(), part, text, fuel)
            } else {
                search(position..=last, part, text, fuel)
            };
            position = place? + part.len();
        }
        Some(position)
    }
}

fn search(
    mut places: impl Iterator<Item = usize>,
    part: &[Token],
    text: &[char],
    fuel: &mut Fuel,
) -> Option<usize> {
    places.find_map(|place| match part_at(part, text, place, fuel) {
        Some(true) => Some(Some(place)),
        Some(false) => None,
        None => Some(None),
    })?
}

/// Whether a part is at this place; `None` when there were too many comparisons.
fn part_at(part: &[Token], text: &[char], place: usize, fuel: &mut Fuel) -> Option<bool> {
    let Some(text) = text.get(place..place + part.len()) else { return Some(false) };
    for (token, &character) in part.iter().zip(text) {
        fuel.burn()?;
        let same = match token {
            Token::Any => character != '\n',
            Token::Char(wanted) => *wanted == character,
        };
        if !same {
            return Some(false);
        }
    }
    Some(true)
}

/// The place of the next line end, or the end.
fn line_end(text: &[char], from: usize) -> usize {
    text[from..].iter().position(|&character| character == '\n').map_or(text.len(), |at| from + at)
}

/// Appends a replacement of `//`, in which the original takes `$name` for a group of its regular
/// expression: there is none but `$0`, the match.
fn template(replacement: &str, matched: &[char], out: &mut String) {
    let mut rest = replacement;
    while let Some((before, after)) = rest.split_once('$') {
        out.push_str(before);
        if let Some(after) = after.strip_prefix('$') {
            out.push('$');
            rest = after;
            continue;
        }
        let inner = after.strip_prefix('{').unwrap_or(after);
        let end = inner
            .find(|character: char| !character.is_alphanumeric() && character != '_')
            .unwrap_or(inner.len());
        let (name, mut behind) = inner.split_at(end);
        if after.starts_with('{') {
            match behind.strip_prefix('}') {
                Some(closed) if !name.is_empty() => behind = closed,
                _ => {
                    out.push('$');
                    rest = after;
                    continue;
                }
            }
        } else if name.is_empty() {
            out.push('$');
            rest = after;
            continue;
        }
        if !name.is_empty() && name.bytes().all(|digit| digit == b'0') {
            out.extend(matched);
        }
        rest = behind;
    }
    out.push_str(rest);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ends() {
        for (pattern, text, prefix, longest_prefix, suffix, longest_suffix) in [
            ("a", "abca", "bca", "bca", "abc", "abc"),
            ("*", "abc", "abc", "", "abc", ""),
            ("a*b", "aXbYbZ", "YbZ", "Z", "aXbYbZ", "aXbYbZ"),
            ("b*", "abab", "abab", "abab", "aba", "a"),
            ("*/", "/a/b/", "a/b/", "", "/a/b", ""),
            ("?", "é", "", "", "", ""),
            ("\\*", "*a*", "a*", "a*", "*a", "*a"),
            ("*b", "a\nb", "a\nb", "a\nb", "a\n", "a\n"),
            ("", "ab", "ab", "ab", "ab", "ab"),
            (".", "ab", "ab", "ab", "ab", "ab"),
        ] {
            let compiled = Pattern::new(pattern).unwrap();
            assert_eq!(
                compiled.without_prefix(text, false, &mut Fuel::new()),
                prefix,
                "{pattern} {text}"
            );
            assert_eq!(
                compiled.without_prefix(text, true, &mut Fuel::new()),
                longest_prefix,
                "{pattern} {text}"
            );
            assert_eq!(
                compiled.without_suffix(text, false, &mut Fuel::new()),
                suffix,
                "{pattern} {text}"
            );
            assert_eq!(
                compiled.without_suffix(text, true, &mut Fuel::new()),
                longest_suffix,
                "{pattern} {text}"
            );
        }
    }

    #[test]
    fn replacing() {
        for (pattern, text, replacement, first, every) in [
            ("a", "banana", "o", "bonana", "bonono"),
            ("a*n", "banana", "o", "boa", "boa"),
            ("", "ab", "-", "-ab", "-a-b-"),
            ("*", "ab\ncd", "x", "x\ncd", "x\nx"),
            ("b", "abc", "[$0]", "a[$0]c", "a[b]c"),
            ("b", "abc", "$$${1}$-$", "a$$${1}$-$c", "a$$-$c"),
            ("z", "abc", "x", "abc", "abc"),
            ("a*b", "a\nab", "x", "a\nx", "a\nx"),
            ("\n*b", "a\nab\nb", "x", "ax\nb", "axx"),
        ] {
            let compiled = Pattern::new(pattern).unwrap();
            let replaced =
                |all| compiled.replace(text, replacement, all, 100, &mut Fuel::new()).unwrap();
            assert_eq!(replaced(false), first, "{pattern} {text}");
            assert_eq!(replaced(true), every, "{pattern} {text}");
        }
        let bounded = Pattern::new("").unwrap();
        assert_eq!(bounded.replace("aaaa", "bbbb", true, 10, &mut Fuel::new()), None);
    }

    #[test]
    fn bad_escapes() {
        assert_eq!(Pattern::new("a\\x"), Err("invalid escape '\\x'".to_owned()));
        assert!(Pattern::new("a\\").is_err());
        assert!(Pattern::new("\\}\\/\\\\").is_ok());
    }
}
