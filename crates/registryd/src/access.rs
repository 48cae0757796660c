//! What each user may do with which repositories: a file of rules.
//!
//! ```text
//! # who      what    repositories
//! ann        delete  team/** tools
//! bob,eve    push    team/app
//! *          pull    team/**
//! -          pull    public/**
//! ```
//!
//! Who: names of users, `*` for every user whose password was right, `-` for those who give
//! none. What: `pull`; `push`, which has pull in it; `delete`, which has both. Repositories:
//! names in which `*` stands for any characters but slashes, and `**` for any characters. What no
//! line allows is refused. The file is read again when it changes.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use crate::Error;
use crate::auth::{Stamp, stamp};
use crate::name::{MAX_NAME, Name};

/// What somebody may do with a repository; each has those before it in it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Right {
    Pull,
    Push,
    Delete,
}

/// The rules of a file.
#[derive(Debug)]
pub(crate) struct Access {
    path: PathBuf,
    state: Mutex<(Stamp, Arc<Rules>)>,
}

/// Rules by who they are for.
#[derive(Debug, Default)]
struct Rules {
    users: HashMap<String, Vec<Rule>>,
    everybody: Vec<Rule>,
    nameless: Vec<Rule>,
}

#[derive(Debug, Clone)]
struct Rule {
    right: Right,
    pattern: String,
}

/// What one client may do, as the rules were when its request came.
#[derive(Debug, Clone)]
pub(crate) struct Caller {
    user: Option<String>,
    /// Without rules, everything is allowed.
    rules: Option<Arc<Rules>>,
}

impl Access {
    /// Reads a file of rules.
    pub(crate) fn open(path: &Path) -> Result<Self, Error> {
        let stamp = stamp(path);
        let text = fs_err::read_to_string(path).map_err(Error::io("read", path))?;
        let rules = Rules::parse(&text, path)?;
        Ok(Self { path: path.to_owned(), state: Mutex::new((stamp, Arc::new(rules))) })
    }

    /// The rules as they are now.
    fn rules(&self) -> Arc<Rules> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let found = stamp(&self.path);
        if found != state.0 {
            state.0 = found;
            let read = || {
                let text =
                    fs_err::read_to_string(&self.path).map_err(Error::io("read", &self.path))?;
                Rules::parse(&text, &self.path)
            };
            match read() {
                Ok(rules) => {
                    tracing::info!("read the rights again");
                    state.1 = Arc::new(rules);
                }
                Err(error) => {
                    tracing::error!(error = error.chain(), "the rights stay as they were");
                }
            }
        }
        Arc::clone(&state.1)
    }
}

impl Caller {
    /// A client that has shown to be `user`, or has given no name.
    pub(crate) fn new(user: Option<String>, access: Option<&Access>) -> Self {
        Self { user, rules: access.map(Access::rules) }
    }

    /// Whether the client has given a name, and the right password.
    pub(crate) fn is_known(&self) -> bool {
        self.user.is_some()
    }

    /// Whether everything is allowed.
    pub(crate) fn is_free(&self) -> bool {
        self.rules.is_none()
    }

    /// Whether a repository may be used.
    pub(crate) fn may(&self, right: Right, repository: &Name) -> bool {
        self.rules.as_ref().is_none_or(|rules| {
            let allows =
                |rule: &Rule| rule.right >= right && matches(&rule.pattern, repository.as_str());
            rules.of(self.user.as_deref()).any(allows)
        })
    }
}

impl Rules {
    fn of(&self, user: Option<&str>) -> impl Iterator<Item = &Rule> {
        let (own, shared) = match user {
            None => (None, &self.nameless),
            Some(user) => (self.users.get(user), &self.everybody),
        };
        own.into_iter().flatten().chain(shared)
    }

    fn parse(text: &str, path: &Path) -> Result<Self, Error> {
        let mut rules = Self::default();
        for (number, line) in text.lines().enumerate() {
            let wrong = |reason| Error::Users { path: path.to_owned(), line: number + 1, reason };
            let mut words = line.split_whitespace();
            let Some(names) = words.next().filter(|word| !word.starts_with('#')) else { continue };
            let right = match words.next() {
                Some("pull") => Right::Pull,
                Some("push") => Right::Push,
                Some("delete") => Right::Delete,
                _ => return Err(wrong("expected USER pull|push|delete REPOSITORY...")),
            };
            let mut own = Vec::new();
            for pattern in words {
                if pattern.len() > MAX_NAME || !pattern.chars().all(is_of_pattern) {
                    return Err(wrong("a repository's name has a-z, 0-9, and -_./ in it, or *"));
                }
                own.push(Rule { right, pattern: pattern.to_owned() });
            }
            if own.is_empty() {
                return Err(wrong("expected the names of repositories, or ** for all"));
            }
            for name in names.split(',') {
                match name {
                    "" => return Err(wrong("expected the name of a user")),
                    "*" => rules.everybody.extend_from_slice(&own),
                    "-" => rules.nameless.extend_from_slice(&own),
                    name => rules.users.entry(name.to_owned()).or_default().extend_from_slice(&own),
                }
            }
        }
        Ok(rules)
    }
}

fn is_of_pattern(c: char) -> bool {
    c.is_ascii_lowercase() || c.is_ascii_digit() || "-_./*".contains(c)
}

/// Whether a pattern stands for a name. It takes the product of their lengths at most.
fn matches(pattern: &str, name: &str) -> bool {
    let name = name.as_bytes();
    // Beginnings of the name that the pattern so far stands for, by their lengths.
    let mut ends = vec![false; name.len() + 1];
    ends[0] = true;
    let mut rest = pattern.as_bytes();
    while let Some(first) = rest.first() {
        let deep = rest.starts_with(b"**");
        if *first == b'*' {
            rest = &rest[if deep { 2 } else { 1 }..];
            for length in 1..ends.len() {
                ends[length] |= ends[length - 1] && (deep || name[length - 1] != b'/');
            }
        } else {
            rest = &rest[1..];
            for length in (1..ends.len()).rev() {
                ends[length] = ends[length - 1] && name[length - 1] == *first;
            }
            ends[0] = false;
        }
    }
    ends[name.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns() {
        for (pattern, name, expected) in [
            ("a", "a", true),
            ("a", "ab", false),
            ("ab", "a", false),
            ("*", "app", true),
            ("*", "team/app", false),
            ("**", "team/app", true),
            ("team/*", "team/app", true),
            ("team/*", "team/app/x", false),
            ("team/**", "team/app/x", true),
            ("team/**", "team", false),
            ("team**", "team", true),
            ("team/**", "teams/app", false),
            ("*/app", "team/app", true),
            ("*/app", "a/b/app", false),
            ("**/app", "a/b/app", true),
            ("a*b*c", "aXbYbZc", true),
            ("a*b*c", "aXbYbZ", false),
            ("t-*", "t-1", true),
            ("", "a", false),
        ] {
            assert_eq!(matches(pattern, name), expected, "{pattern} {name}");
        }
        // Many stars take no longer than their number says.
        let pattern = "*a".repeat(100);
        assert!(!matches(&pattern, &"a".repeat(99)));
        assert!(matches(&pattern, &"a".repeat(100)));
    }

    #[test]
    fn rights() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("access");
        let text = "# rights\n\nann delete team/** tools\nbob,eve push team/app\n\
                    * pull team/**\n- pull public/*\n";
        fs_err::write(&path, text).unwrap();
        let access = Access::open(&path).unwrap();
        let may = |user: &str, right, name: &str| {
            let user = (!user.is_empty()).then(|| user.to_owned());
            Caller::new(user, Some(&access)).may(right, &name.parse().unwrap())
        };
        use Right::{Delete, Pull, Push};
        for (user, right, name, expected) in [
            ("ann", Delete, "team/x/y", true),
            ("ann", Pull, "tools", true),
            ("ann", Pull, "public/a", false),
            ("bob", Push, "team/app", true),
            ("eve", Pull, "team/app", true),
            ("bob", Delete, "team/app", false),
            ("bob", Push, "team/other", false),
            ("bob", Pull, "team/other", true),
            ("dan", Pull, "team/other", true),
            ("dan", Push, "team/app", false),
            ("dan", Pull, "public/a", false),
            // Names that mean somebody else in the file.
            ("*", Push, "team/app", false),
            ("-", Pull, "public/a", false),
            ("", Pull, "public/a", true),
            ("", Push, "public/a", false),
            ("", Pull, "team/app", false),
        ] {
            assert_eq!(may(user, right, name), expected, "{user} {right:?} {name}");
        }
        assert!(Caller::new(None, None).may(Delete, &"a".parse().unwrap()));
        // Other rules count at once; a file that cannot be read changes nothing.
        fs_err::write(&path, "dan push **\n").unwrap();
        assert!(may("dan", Push, "team/app"));
        assert!(!may("ann", Pull, "tools"));
        fs_err::write(&path, "dan everything **\n").unwrap();
        assert!(may("dan", Push, "team/app"));
    }

    #[test]
    fn files_that_are_refused() {
        let path = Path::new("access");
        for (text, line) in [
            ("ann", 1),
            ("\nann pull", 2),
            ("ann write **", 1),
            ("ann pull Team/*", 1),
            ("ann pull team app$", 1),
            (",ann pull **", 1),
        ] {
            let error = Rules::parse(text, path).unwrap_err();
            assert!(matches!(error, Error::Users { line: found, .. } if found == line), "{text}");
        }
    }
}
