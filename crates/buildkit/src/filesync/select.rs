//! Which files of a directory a sender names.

use std::collections::BTreeSet;
use std::path::{Component, Path};

use silo_dockerfile::ignore::{Error, Parent, Patterns};

/// Links that lead from one wanted path to the next.
const MAX_LINKS: usize = 255;

/// Paths and patterns that say which files are named.
#[derive(Debug, Default)]
pub(crate) struct Select {
    exclude: Patterns,
    /// Everything but what is wanted, where not all is: `*`, then an exception for each.
    others: Option<Patterns>,
}

/// What the patterns say of a directory; its files start from there.
#[derive(Debug, Default)]
pub(super) struct State {
    exclude: Option<Parent>,
    others: Option<Parent>,
}

/// What is to be done with a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Choice {
    /// It is named.
    Take,
    /// It is named only as a directory of one that is.
    Pass,
    /// Neither it nor what is in it is named.
    Skip,
}

impl Select {
    /// All files but those that `exclude` matches; and when `follow` names any, only these, what
    /// is in them, and what links at them lead to below `root`.
    pub(crate) fn new(root: &Path, follow: &[String], exclude: &[String]) -> Result<Self, Error> {
        let exclude = Patterns::new(exclude)?;
        if follow.is_empty() {
            return Ok(Self { exclude, others: None });
        }
        let mut wanted = BTreeSet::new();
        for path in follow {
            resolve(root, path, &mut wanted);
        }
        if wanted.contains("") {
            return Ok(Self { exclude, others: None });
        }
        let patterns =
            std::iter::once("*".to_owned()).chain(wanted.iter().map(|path| format!("!{path}")));
        Ok(Self { exclude, others: Some(Patterns::new(patterns)?) })
    }

    pub(super) fn choose(&self, path: &str, is_directory: bool, above: &State) -> (Choice, State) {
        let (mut choice, mut state) = (Choice::Take, State::default());
        for (patterns, above, here) in [
            (Some(&self.exclude), &above.exclude, &mut state.exclude),
            (self.others.as_ref(), &above.others, &mut state.others),
        ] {
            let Some(patterns) = patterns.filter(|patterns| !patterns.is_empty()) else { continue };
            let (matched, found) = patterns.matches_in(path, above.as_ref());
            *here = Some(found);
            if matched {
                let may_hold = is_directory && patterns.may_except_in(path);
                choice = match choice {
                    Choice::Skip => Choice::Skip,
                    _ if may_hold => Choice::Pass,
                    _ => Choice::Skip,
                };
            }
        }
        (choice, state)
    }
}

/// Adds a wanted path, and what links on the way to it lead to. The part behind a wildcard is
/// left as it is.
fn resolve(root: &Path, path: &str, wanted: &mut BTreeSet<String>) {
    let mut rest: Vec<String> = parts(Path::new(path)).into_iter().rev().collect();
    let mut at: Vec<String> = Vec::new();
    let mut links = 0;
    while let Some(part) = rest.pop() {
        if part == ".." {
            at.pop();
            continue;
        }
        if part.contains(['*', '?', '[', '\\']) {
            at.push(part);
            at.extend(rest.into_iter().rev());
            break;
        }
        at.push(part);
        let here = at.join("/");
        let target = std::fs::read_link(root.join(&here));
        if let Ok(target) = target
            && links < MAX_LINKS
        {
            links += 1;
            wanted.insert(here);
            at.pop();
            if target.is_absolute() {
                at.clear();
            }
            rest.extend(parts(&target).into_iter().rev());
        }
    }
    wanted.insert(at.join("/"));
}

fn parts(path: &Path) -> Vec<String> {
    let mut parts = Vec::new();
    for part in path.components() {
        match part {
            Component::Normal(name) => parts.push(name.to_string_lossy().into_owned()),
            Component::ParentDir => parts.push("..".to_owned()),
            _ => {}
        }
    }
    parts
}

#[cfg(test)]
mod tests {
    use super::*;

    fn choose(select: &Select, path: &str) -> Choice {
        let mut state = State::default();
        let mut choice = Choice::Take;
        let parts: Vec<&str> = path.split('/').collect();
        for end in 1..=parts.len() {
            (choice, state) = select.choose(&parts[..end].join("/"), end < parts.len(), &state);
            if choice == Choice::Skip {
                break;
            }
        }
        choice
    }

    #[test]
    fn wanted_files_and_what_links_lead_to() {
        let root = tempfile::tempdir().unwrap();
        let at = root.path();
        fs_err::create_dir_all(at.join("real/deep")).unwrap();
        fs_err::write(at.join("real/file"), "x").unwrap();
        std::os::unix::fs::symlink("real", at.join("link")).unwrap();
        std::os::unix::fs::symlink("/../../etc", at.join("out")).unwrap();
        std::os::unix::fs::symlink("loop", at.join("loop")).unwrap();
        let follow = ["link/file", "src/*.c", "out/passwd", "loop", "../up"];
        let follow: Vec<String> = follow.iter().map(ToString::to_string).collect();
        let exclude = ["src/b.c".to_owned()];
        let select = Select::new(at, &follow, &exclude).unwrap();
        for (path, expected) in [
            ("link", Choice::Take),
            ("real/file", Choice::Take),
            ("real/other", Choice::Skip),
            ("src/a.c", Choice::Take),
            ("src/b.c", Choice::Skip),
            ("src/a.h", Choice::Skip),
            ("etc/passwd", Choice::Take),
            ("up", Choice::Take),
            ("else", Choice::Skip),
        ] {
            assert_eq!(choose(&select, path), expected, "{path}");
        }
        let all = Select::new(at, &[".".to_owned()], &["*".into(), "!keep/this".into()]).unwrap();
        assert_eq!(choose(&all, "keep/this"), Choice::Take);
        assert_eq!(choose(&all, "keep/that"), Choice::Skip);
        assert_eq!(choose(&all, "gone/this"), Choice::Skip);
    }
}
