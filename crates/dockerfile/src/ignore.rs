//! `.dockerignore`: which files of a context are left out.
//!
//! One pattern a line, `#` at its start makes a comment, `!` an exception. The last pattern that
//! matches a path or a directory above it decides. `*` and `?` as in [`crate::glob`], and `**`
//! for any number of directories: the rules of Go's `patternmatcher`, with one difference: a
//! letter behind `\` is that letter and nothing else.
//!
//! A build reads `<Dockerfile>.dockerignore` beside the Dockerfile when there is one, and else
//! `.dockerignore` at the root of the context.

use crate::glob::{BadPattern, Class, Glob, Token};

/// Why a list of patterns cannot be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// A line that is nothing but `!`.
    #[error("illegal exclusion pattern: \"!\"")]
    BareException,
    /// A class without its bracket, or a `\` at the end.
    #[error("{pattern:?}: {source}")]
    Pattern {
        /// The pattern.
        pattern: String,
        /// What is wrong with it.
        source: BadPattern,
    },
    /// A line is too long.
    #[error("line {0} is longer than {max} bytes", max = crate::syntax::MAX_LINE)]
    Line(usize),
    /// The list is too long.
    #[error("more than {MAX_PATTERNS} patterns")]
    TooMany,
}

/// The most patterns that a list may have.
pub const MAX_PATTERNS: usize = 10_000;

/// A list of patterns.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Patterns {
    patterns: Vec<Pattern>,
}

/// Which patterns match a directory: what is in it starts from there.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Parent {
    matched: Vec<bool>,
}

/// The patterns of a `.dockerignore`, one a line, cleaned as Docker does before it looks at them.
pub fn lines(text: &[u8]) -> Result<Vec<String>, Error> {
    let text = String::from_utf8_lossy(text);
    let text = text.strip_prefix('\u{feff}').unwrap_or(&text);
    let mut patterns = Vec::new();
    for (number, line) in (1..).zip(text.lines()) {
        if line.len() > crate::syntax::MAX_LINE {
            return Err(Error::Line(number));
        }
        if line.starts_with('#') {
            continue;
        }
        let line = line.trim();
        let (mark, pattern) = match line.strip_prefix('!') {
            Some(pattern) => ("!", pattern.trim()),
            None => ("", line),
        };
        if pattern.is_empty() {
            if !mark.is_empty() {
                patterns.push(mark.to_owned());
            }
            continue;
        }
        let pattern = clean(pattern);
        // What begins at the root begins at the context's.
        let pattern = match pattern.strip_prefix('/') {
            Some(relative) if !relative.is_empty() => relative,
            _ => &pattern,
        };
        patterns.push(format!("{mark}{pattern}"));
    }
    Ok(patterns)
}

/// Go's `filepath.Clean`: no empty, `.` or resolvable `..` elements.
pub fn clean(path: &str) -> String {
    let rooted = path.starts_with('/');
    let mut elements: Vec<&str> = Vec::new();
    for element in path.split('/') {
        match element {
            "" | "." => {}
            ".." => match elements.last() {
                Some(&last) if last != ".." => {
                    elements.pop();
                }
                _ if rooted => {}
                _ => elements.push(".."),
            },
            _ => elements.push(element),
        }
    }
    let joined = elements.join("/");
    match (rooted, joined.is_empty()) {
        (true, _) => format!("/{joined}"),
        (false, true) => ".".to_owned(),
        (false, false) => joined,
    }
}

impl Patterns {
    /// Reads the text of a `.dockerignore`.
    pub fn parse(text: &[u8]) -> Result<Self, Error> {
        Self::new(lines(text)?)
    }

    /// Reads patterns, as of [`lines`] or of `--exclude`. Empty ones are passed over.
    pub fn new(patterns: impl IntoIterator<Item = impl AsRef<str>>) -> Result<Self, Error> {
        let mut list = Self::default();
        for pattern in patterns {
            let pattern = pattern.as_ref().trim();
            if pattern.is_empty() {
                continue;
            }
            if list.patterns.len() == MAX_PATTERNS {
                return Err(Error::TooMany);
            }
            list.patterns.push(Pattern::new(&clean(pattern))?);
        }
        Ok(list)
    }

    /// Whether there is no pattern at all.
    pub fn is_empty(&self) -> bool {
        self.patterns.is_empty()
    }

    /// Whether there are exceptions.
    pub fn has_exceptions(&self) -> bool {
        self.patterns.iter().any(|pattern| pattern.exception)
    }

    /// The patterns, cleaned, without `!`, and whether they are exceptions.
    pub fn iter(&self) -> impl Iterator<Item = (&str, bool)> {
        self.patterns.iter().map(|pattern| (pattern.text.as_str(), pattern.exception))
    }

    /// Whether a path with `/` between its elements is matched, itself or by a directory above.
    pub fn matches(&self, path: &str) -> bool {
        let mut matched = false;
        for pattern in &self.patterns {
            if pattern.exception == matched && pattern.matches_or_parent(path) {
                matched = !pattern.exception;
            }
        }
        matched
    }

    /// The same for walks: `parent` is what came of the directory that the path is in, `None` at
    /// the root. What comes back with the answer is for what is in the path.
    pub fn matches_in(&self, path: &str, parent: Option<&Parent>) -> (bool, Parent) {
        let mut matched = false;
        let mut own = Vec::with_capacity(self.patterns.len());
        for (index, pattern) in self.patterns.iter().enumerate() {
            let above = parent.and_then(|parent| parent.matched.get(index)).copied();
            // A pattern that would change nothing is not asked.
            let matches = above.unwrap_or(false)
                || (pattern.exception == matched
                    && match parent {
                        Some(_) => pattern.matches(path),
                        None => pattern.matches_or_parent(path),
                    });
            own.push(matches);
            if matches {
                matched = !pattern.exception;
            }
        }
        (matched, Parent { matched: own })
    }

    /// Whether an exception could match something in this directory: if not, and the directory
    /// is matched, nothing in it has to be looked at.
    pub fn may_except_in(&self, directory: &str) -> bool {
        let directory = format!("{}/", directory.trim_end_matches('/'));
        self.patterns.iter().filter(|pattern| pattern.exception).any(|pattern| {
            let fixed = pattern.fixed_start();
            let whole = fixed.len() == pattern.text.len();
            // Below the directory, or with wildcards that could get there. An exception for a
            // directory above is one for all that is in it.
            fixed.starts_with(&directory)
                || directory.starts_with(fixed) && !whole
                || directory.starts_with(&format!("{fixed}/"))
        })
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Pattern {
    text: String,
    exception: bool,
    shape: Shape,
}

/// Most patterns need no wildcards to be matched.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Shape {
    /// The text itself.
    Exact,
    /// Everything that begins so.
    Prefix(String),
    /// Everything that ends so; with a `/` at its start also what is the rest.
    Suffix(String),
    Steps(Steps),
}

impl Pattern {
    fn new(pattern: &str) -> Result<Self, Error> {
        let (exception, text) = match pattern.strip_prefix('!') {
            Some("") => return Err(Error::BareException),
            Some(rest) => (true, rest),
            None => (false, pattern),
        };
        let bad = |source| Error::Pattern { pattern: text.to_owned(), source };
        Glob::new(text).map_err(bad)?;
        let shape = Shape::new(text).map_err(bad)?;
        Ok(Self { text: text.to_owned(), exception, shape })
    }

    fn matches(&self, path: &str) -> bool {
        match &self.shape {
            Shape::Exact => path == self.text,
            Shape::Prefix(prefix) => path.starts_with(prefix),
            Shape::Suffix(suffix) => {
                path.ends_with(suffix) || suffix.strip_prefix('/').is_some_and(|rest| path == rest)
            }
            Shape::Steps(steps) => steps.matches(path),
        }
    }

    /// Whether the path or one of the directories above it is matched.
    fn matches_or_parent(&self, path: &str) -> bool {
        self.matches(path)
            || path
                .match_indices('/')
                .map(|(at, _)| if at == 0 { "/" } else { &path[..at] })
                .any(|parent| self.matches(parent))
    }

    /// The text up to the first wildcard.
    fn fixed_start(&self) -> &str {
        let end = self.text.find(['*', '?', '[', '\\']).unwrap_or(self.text.len());
        &self.text[..end]
    }
}

impl Shape {
    fn new(text: &str) -> Result<Self, BadPattern> {
        let plain = |text: &str| !text.contains(['*', '?', '[', ']', '\\']);
        if plain(text) {
            return Ok(Self::Exact);
        }
        if let Some(suffix) = text.strip_prefix("**")
            && plain(suffix)
        {
            return Ok(Self::Suffix(suffix.to_owned()));
        }
        if let Some(prefix) = text.strip_suffix("**")
            && plain(prefix)
        {
            return Ok(Self::Prefix(prefix.to_owned()));
        }
        Steps::new(text).map(Self::Steps)
    }
}

/// A pattern with wildcards, matched by following all ways through it at once.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Steps {
    steps: Vec<Step>,
    /// What every match begins with: most paths are told apart by that.
    start: String,
    /// What every match ends with.
    end: String,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Step {
    /// One character, or for a star any number.
    One(Token),
    /// `**` in the middle: nothing, or anything up to a `/`. Always before a [`Step::Within`].
    Deep,
    /// Inside of it.
    Within,
    /// `**` at the end.
    Rest,
}

impl Steps {
    fn new(text: &str) -> Result<Self, BadPattern> {
        let mut steps = Vec::new();
        let mut characters = text.chars().peekable();
        while let Some(character) = characters.next() {
            steps.push(Step::One(match character {
                '*' if characters.next_if_eq(&'*').is_some() => {
                    characters.next_if_eq(&'/');
                    if characters.peek().is_none() {
                        steps.push(Step::Rest);
                    } else {
                        steps.extend([Step::Deep, Step::Within]);
                    }
                    continue;
                }
                '*' => Token::Star,
                '?' => Token::Any,
                '[' => Token::Class(Class::read(&mut characters)?),
                '\\' => Token::Char(characters.next().ok_or(BadPattern)?),
                _ => Token::Char(character),
            }));
        }
        let fixed = |step: &Step| match step {
            Step::One(Token::Char(character)) => Some(*character),
            _ => None,
        };
        let start = steps.iter().map_while(fixed).collect();
        let mut end: Vec<char> = steps.iter().rev().map_while(fixed).collect();
        end.reverse();
        Ok(Self { start, end: end.into_iter().collect(), steps })
    }

    fn matches(&self, path: &str) -> bool {
        if !path.starts_with(&self.start) || !path.ends_with(&self.end) {
            return false;
        }
        let mut now = Places::new(self.steps.len() + 1);
        let mut then = now.clone();
        self.enter(0, &mut now);
        for character in path.chars() {
            then.clear();
            for place in now.iter() {
                match &self.steps.get(place) {
                    Some(Step::One(Token::Star)) if character != '/' => {
                        self.enter(place, &mut then);
                    }
                    Some(Step::One(token)) if token.takes(character) => {
                        self.enter(place + 1, &mut then);
                    }
                    Some(Step::Within | Step::Rest) if character != '\n' => {
                        self.enter(place, &mut then);
                        if character == '/' && self.steps[place] == Step::Within {
                            self.enter(place + 1, &mut then);
                        }
                    }
                    _ => {}
                }
            }
            std::mem::swap(&mut now, &mut then);
            if now.is_empty() {
                return false;
            }
        }
        now.has(self.steps.len())
    }

    /// Adds a place and those that are reached from it without a character.
    fn enter(&self, mut place: usize, places: &mut Places) {
        while places.add(place) {
            match self.steps.get(place) {
                Some(Step::One(Token::Star) | Step::Rest) => place += 1,
                Some(Step::Deep) => {
                    places.add(place + 1);
                    place += 2;
                }
                _ => return,
            }
        }
    }
}

/// A set of small numbers.
#[derive(Debug, Clone)]
struct Places {
    bits: Vec<u64>,
}

impl Places {
    fn new(count: usize) -> Self {
        Self { bits: vec![0; count.div_ceil(64)] }
    }

    fn clear(&mut self) {
        self.bits.fill(0);
    }

    /// False, when it was there.
    fn add(&mut self, place: usize) -> bool {
        let Some(word) = self.bits.get_mut(place / 64) else { return false };
        let bit = 1 << (place % 64);
        let new = *word & bit == 0;
        *word |= bit;
        new
    }

    fn has(&self, place: usize) -> bool {
        self.bits.get(place / 64).is_some_and(|word| word & (1 << (place % 64)) != 0)
    }

    fn is_empty(&self) -> bool {
        self.bits.iter().all(|&word| word == 0)
    }

    fn iter(&self) -> impl Iterator<Item = usize> {
        self.bits.iter().enumerate().flat_map(|(index, &word)| {
            let mut left = word;
            std::iter::from_fn(move || {
                let bit = left.checked_ilog2()?;
                left &= !(1 << bit);
                Some(index * 64 + bit as usize)
            })
        })
    }
}

#[cfg(test)]
mod tests;
