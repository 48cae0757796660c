//! Package indexes (`Packages`): which packages a suite has, and which are needed.

use std::cmp::Ordering;
use std::collections::{BTreeMap, HashMap};
use std::ops::Range;

use silo_types::Digest;

use super::control::stanzas;
use super::{Error, safe_path, version};

/// Packages that one choice may lead to; what Wine needs is about thirty.
const MAX_CHOSEN: usize = 300;

/// A package as an index describes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Package {
    /// Its name.
    pub name: String,
    /// `amd64`, `i386` or `all`.
    pub architecture: String,
    /// Its version.
    pub version: String,
    /// Where it lies on the mirror, a relative path.
    pub path: String,
    /// Its size in bytes.
    pub size: u64,
    /// Its checksum.
    pub digest: Digest,
    /// For every dependency the alternatives' names.
    pub depends: Vec<Vec<String>>,
    /// Which of the mirror's roots it belongs to, an index into the list of suites.
    pub suite: usize,
}

/// The indexes of one architecture, from all suites.
#[derive(Debug, Default)]
pub struct Index {
    texts: Vec<(usize, String)>,
    /// Name to text and stanza.
    stanzas: HashMap<String, Vec<(usize, Range<usize>)>>,
}

impl Index {
    /// Adds the text of one suite's index.
    pub fn add(&mut self, suite: usize, text: String) {
        let number = self.texts.len();
        let mut at = 0;
        while at < text.len() {
            let end = text[at..].find("\n\n").map_or(text.len(), |length| at + length + 2);
            // The name is nearly always the first field; other stanzas are no packages.
            if let Some(rest) = text[at..end].trim_start_matches('\n').strip_prefix("Package: ") {
                let name = rest.lines().next().unwrap_or("").trim();
                let places = self.stanzas.entry(name.to_owned()).or_default();
                places.push((number, at..end));
            }
            at = end;
        }
        self.texts.push((suite, text));
    }

    /// The newest package of a name.
    pub fn newest(&self, name: &str) -> Result<Option<Package>, Error> {
        let mut best: Option<Package> = None;
        for (number, range) in self.stanzas.get(name).into_iter().flatten() {
            let (suite, text) = &self.texts[*number];
            let package = parse(&text[range.clone()], *suite)
                .map_err(|reason| Error::Malformed { path: format!("package {name}"), reason })?;
            let newer = best.as_ref().is_none_or(|best| {
                version::compare(&package.version, &best.version) == Ordering::Greater
            });
            if newer {
                best = Some(package);
            }
        }
        Ok(best)
    }

    /// Chooses packages: for each wish the first name that there is, and what those depend on
    /// if the wish says so. In order of their names.
    pub fn choose(&self, wishes: &[Wish]) -> Result<Vec<Package>, Error> {
        let mut chosen: BTreeMap<String, Package> = BTreeMap::new();
        let mut queue: Vec<Package> = Vec::new();
        for wish in wishes {
            let found = self.first(wish.names.iter().copied())?;
            let package = found.ok_or_else(|| Error::NoPackage(wish.names.join(" or ")))?;
            if wish.follow {
                queue.push(package);
            } else {
                chosen.insert(package.name.clone(), package);
            }
        }
        while let Some(package) = queue.pop() {
            if chosen.contains_key(&package.name) {
                continue;
            }
            if chosen.len() >= MAX_CHOSEN {
                return Err(Error::Malformed {
                    path: format!("package {}", package.name),
                    reason: format!("more than {MAX_CHOSEN} packages are needed"),
                });
            }
            for alternatives in &package.depends {
                if alternatives.iter().any(|name| chosen.contains_key(name)) {
                    continue;
                }
                // A name that only other packages provide leads to nothing that is shipped;
                // missing libraries are noticed when the tree is checked.
                if let Some(found) = self.first(alternatives.iter().map(String::as_str))? {
                    queue.push(found);
                }
            }
            chosen.insert(package.name.clone(), package);
        }
        Ok(chosen.into_values().collect())
    }

    fn first<'a>(&self, names: impl Iterator<Item = &'a str>) -> Result<Option<Package>, Error> {
        for name in names {
            if let Some(package) = self.newest(name)? {
                return Ok(Some(package));
            }
        }
        Ok(None)
    }
}

/// A package that is wanted.
#[derive(Debug, Clone, Copy)]
pub struct Wish {
    /// Its names in different releases, the preferred one first.
    pub names: &'static [&'static str],
    /// Whether its dependencies are wanted too.
    pub follow: bool,
}

fn parse(stanza: &str, suite: usize) -> Result<Package, String> {
    let stanza = stanzas(stanza).next().ok_or("an empty stanza")?;
    let field = |name: &str| stanza.line(name).ok_or_else(|| format!("it has no {name}"));
    let path = field("Filename")?.to_owned();
    if !safe_path(&path) {
        return Err(format!("its file name {path:?} is not one"));
    }
    let depends = [stanza.get("Pre-Depends"), stanza.get("Depends")];
    let depends = depends.into_iter().flatten().flat_map(|list| list.split(',')).map(|one| {
        one.split('|')
            .filter_map(|name| name.split_ascii_whitespace().next())
            .map(|name| name.split(':').next().unwrap_or(name).to_owned())
            .collect()
    });
    Ok(Package {
        name: field("Package")?.to_owned(),
        architecture: field("Architecture")?.to_owned(),
        version: field("Version")?.to_owned(),
        size: field("Size")?.parse().map_err(|_| "its size is no number".to_owned())?,
        digest: format!("sha256:{}", field("SHA256")?)
            .parse()
            .map_err(|_| "its checksum is none".to_owned())?,
        depends: depends.filter(|alternatives: &Vec<String>| !alternatives.is_empty()).collect(),
        path,
        suite,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stanza(name: &str, version: &str, depends: &str) -> String {
        format!(
            "Package: {name}\nVersion: {version}\nArchitecture: amd64\nDepends: {depends}\nFilename: pool/{name}_{version}.deb\nSize: 7\nSHA256: {}\n\n",
            "0".repeat(64)
        )
    }

    fn index() -> Index {
        let mut index = Index::default();
        let main = [
            stanza("wine", "10.0~repack-6", "libx (>= 2), liby:any | libz"),
            stanza("libx", "1-1", "libz"),
            stanza("libz", "1", "libx"),
            stanza("alone", "1", "libmissing"),
        ];
        index.add(0, main.concat());
        index.add(1, stanza("libx", "1-1+deb13u1", ""));
        index
    }

    #[test]
    fn the_newest_of_all_suites_is_taken() {
        let libx = index().newest("libx").unwrap().unwrap();
        assert_eq!((libx.version.as_str(), libx.suite), ("1-1+deb13u1", 1));
        assert_eq!(index().newest("nothing").unwrap(), None);
    }

    #[test]
    fn choices_follow_dependencies_where_asked() {
        const WINE: Wish = Wish { names: &["wine-next", "wine"], follow: true };
        const ALONE: Wish = Wish { names: &["alone"], follow: false };
        let names = |wishes: &[Wish]| -> Vec<String> {
            index().choose(wishes).unwrap().into_iter().map(|package| package.name).collect()
        };
        assert_eq!(names(&[WINE, ALONE]), ["alone", "libx", "libz", "wine"]);
        assert_eq!(names(&[Wish { follow: false, ..WINE }]), ["wine"]);
        let error = index().choose(&[Wish { names: &["a", "b"], follow: true }]).unwrap_err();
        assert_eq!(error.to_string(), "no package a or b in this Debian release");
    }

    #[test]
    fn paths_that_leave_the_mirror_are_refused() {
        for path in ["../x", "/etc/passwd", "a//b", "a/./b", "", "a b", "a\0b", "a/.hidden"] {
            let text = stanza("x", "1", "").replace("pool/x_1.deb", path);
            let mut index = Index::default();
            index.add(0, text);
            assert!(index.newest("x").is_err(), "{path:?}");
        }
    }
}
