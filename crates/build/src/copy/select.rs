//! Which files a source names.

use std::ffi::{OsStr, OsString};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

use rustix::fs::Stat;
use silo_dockerfile::glob::{Glob, has_wildcards};

use super::CopyError;
use super::resolve::{self, Names};

/// A file or directory that a source names.
#[derive(Debug, Clone)]
pub(crate) struct Found {
    /// Its path below the root, without links.
    pub(crate) path: PathBuf,
    /// The name under which it goes into a directory: that of the source, not of what a link
    /// leads to.
    pub(crate) name: OsString,
    /// What it is.
    pub(crate) stat: Stat,
}

/// Which files below a source are meant, by patterns as in `.dockerignore`.
#[derive(Debug, Clone, Default)]
pub(crate) struct Filter {
    /// Only these, with the directories above them.
    pub(crate) include: Option<silo_dockerfile::ignore::Patterns>,
    /// Not these.
    pub(crate) exclude: Option<silo_dockerfile::ignore::Patterns>,
}

/// What a filter says of a path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Verdict {
    /// It is meant itself.
    pub(crate) included: bool,
    /// Something below it may be meant.
    pub(crate) descend: bool,
}

impl Filter {
    /// What of a path relative to the source.
    pub(crate) fn verdict(&self, path: &str) -> Verdict {
        if path.is_empty() {
            let included = self.include.is_none();
            return Verdict { included, descend: true };
        }
        let mut included = self.include.as_ref().is_none_or(|patterns| patterns.matches(path));
        let mut descend = true;
        if let Some(exclude) = &self.exclude
            && exclude.matches(path)
        {
            included = false;
            descend = exclude.has_exceptions();
        }
        Verdict { included, descend }
    }
}

/// The files that a source names, in order. A path without wildcards that is not there is an
/// error; one with wildcards may name nothing.
pub(crate) fn select(
    root: BorrowedFd<'_>,
    source: &str,
    names: Names,
) -> Result<Vec<Found>, CopyError> {
    let parts: Vec<&str> = source.split('/').filter(|part| !matches!(*part, "" | ".")).collect();
    let plain = parts.iter().take_while(|part| !has_wildcards(part)).count();
    let start: PathBuf = parts[..plain].iter().map(|part| unescape(part)).collect();
    let start = silo_sys::path::clean(start);
    if plain == parts.len() {
        let shown = format!("/{}", start.display());
        let found = find(root, &start, names)?.ok_or(CopyError::NotFound(shown))?;
        return Ok(vec![found]);
    }
    let Some(base) = find(root, &start, names)? else { return Ok(Vec::new()) };
    let mut level = vec![base.path];
    for pattern in &parts[plain..] {
        let pattern =
            if names == Names::AnyCase { pattern.to_lowercase() } else { (*pattern).to_owned() };
        // As in Go, a pattern that is broken matches nothing.
        let Ok(glob) = Glob::new(&pattern) else { return Ok(Vec::new()) };
        let mut next = Vec::new();
        for directory in level {
            let Ok(opened) = resolve::directory(root, &directory) else { continue };
            let failed = || CopyError::io::<rustix::io::Errno>("list", &directory);
            let mut entries = rustix::fs::Dir::read_from(&opened).map_err(failed())?;
            while let Some(entry) = entries.read() {
                let entry = entry.map_err(failed())?;
                let name = OsStr::from_bytes(entry.file_name().to_bytes());
                let text = name.to_string_lossy();
                let is_match = match names {
                    Names::Exact => glob.matches(&text),
                    Names::AnyCase => glob.matches(&text.to_lowercase()),
                };
                if is_match && name != "." && name != ".." {
                    next.push(directory.join(name));
                }
            }
        }
        next.sort();
        level = next;
    }
    level.iter().filter_map(|path| find(root, path, names).transpose()).collect()
}

/// A path whose wildcards are none, with what `\` stands before.
fn unescape(path: &str) -> String {
    let mut out = String::new();
    let mut characters = path.chars();
    while let Some(character) = characters.next() {
        out.extend(if character == '\\' { characters.next() } else { Some(character) });
    }
    out
}

fn find(root: BorrowedFd<'_>, path: &Path, names: Names) -> Result<Option<Found>, CopyError> {
    let resolved = resolve::resolve(root, path, names).map_err(CopyError::io("resolve", path))?;
    let stat = resolve::stat(root.as_fd(), &resolved).map_err(CopyError::io("look at", path))?;
    let name = path.file_name().unwrap_or_default().to_owned();
    Ok(stat.map(|stat| Found { path: resolved, name, stat }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wildcards_and_links() {
        let temporary = tempfile::tempdir().unwrap();
        let at = |name: &str| temporary.path().join(name);
        fs_err::create_dir_all(at("a/x")).unwrap();
        fs_err::create_dir_all(at("b")).unwrap();
        for name in ["a/1.txt", "a/2.txt", "a/x/3.txt", "b/1.txt", "star*"] {
            fs_err::write(at(name), name).unwrap();
        }
        std::os::unix::fs::symlink("/a", at("link")).unwrap();
        std::os::unix::fs::symlink("/../../../../etc/passwd", at("out")).unwrap();
        let root = silo_sys::path::open_root(temporary.path()).unwrap();
        let paths = |source: &str| -> Vec<String> {
            let found = select(root.as_fd(), source, Names::Exact).unwrap();
            found.iter().map(|found| found.path.display().to_string()).collect()
        };
        assert_eq!(paths("a/*.txt"), ["a/1.txt", "a/2.txt"]);
        assert_eq!(
            paths("*/1.txt"),
            ["a/1.txt", "b/1.txt"],
            "links to directories are not searched"
        );
        assert_eq!(paths("link/1.txt"), ["a/1.txt"]);
        assert_eq!(paths("lin?"), ["a"]);
        assert_eq!(paths("star\\*"), ["star*"]);
        assert_eq!(paths("/../a/./x"), ["a/x"]);
        assert_eq!(paths("nothing*"), [""; 0]);
        assert_eq!(paths("."), [""]);
        for missing in ["nothing", "out"] {
            let error = select(root.as_fd(), missing, Names::Exact).unwrap_err();
            assert_eq!(error.to_string(), format!("\"/{missing}\": not found"));
        }
    }
}
