//! Trees that are to lie in one directory.

use std::collections::{BTreeMap, HashMap};
use std::ffi::OsStr;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, Dir, FileType, Mode, OFlags};

/// The deepest tree that is looked at.
const MAX_DEPTH: usize = 1000;

/// A path that is no directory in two trees, or in one that is there in another; and their names.
pub(crate) fn overlap(
    trees: &BTreeMap<String, OwnedFd>,
) -> io::Result<Option<(PathBuf, String, String)>> {
    let mut seen: HashMap<PathBuf, &String> = HashMap::new();
    for (name, root) in trees {
        let mut found = Vec::new();
        files(root, Path::new(""), 0, &mut found)?;
        for path in found {
            if let Some(other) = seen.get(&path) {
                return Ok(Some((path, (*other).clone(), name.clone())));
            }
            seen.insert(path, name);
        }
    }
    Ok(None)
}

/// Adds the paths below a directory that are no directories.
fn files(at: &OwnedFd, path: &Path, depth: usize, found: &mut Vec<PathBuf>) -> io::Result<()> {
    if depth > MAX_DEPTH {
        return Err(io::Error::other(format!("{}: too deep", path.display())));
    }
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    // The top may be open for its path only.
    let at = &rustix::fs::openat(at, ".", flags, Mode::empty())?;
    for entry in Dir::read_from(at)? {
        let entry = entry?;
        let name = entry.file_name();
        if matches!(name.to_bytes(), b"." | b"..") {
            continue;
        }
        let below = path.join(OsStr::from_bytes(name.to_bytes()));
        let kind = rustix::fs::statat(at, name, AtFlags::SYMLINK_NOFOLLOW)?.st_mode;
        if FileType::from_raw_mode(kind) == FileType::Directory {
            let directory = rustix::fs::openat(at, name, flags, Mode::empty())?;
            files(&directory, &below, depth + 1, found)?;
        } else {
            found.push(below);
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_of_two_trees() {
        let place = tempfile::tempdir().unwrap();
        let mut trees = BTreeMap::new();
        for (tree, file) in [("a", "d/one"), ("b", "d/two"), ("c", "d/one")] {
            let at = place.path().join(tree);
            fs_err::create_dir_all(at.join("d")).unwrap();
            fs_err::write(at.join(file), tree).unwrap();
            trees.insert(tree.to_owned(), silo_sys::path::open_root(&at).unwrap());
        }
        let both = overlap(&trees).unwrap();
        assert_eq!(both, Some(("d/one".into(), "a".to_owned(), "c".to_owned())));
        trees.remove("c");
        assert_eq!(overlap(&trees).unwrap(), None);
    }
}
