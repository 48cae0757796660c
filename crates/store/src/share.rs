//! Files that the engine's content and the registry's have in common.

use std::io::{self, Read};
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use fs_err::File;

/// The engine's blobs, in a data root.
pub const CONTENT_BLOBS: &str = "content/blobs/sha256";
/// The registry's blobs, in the same data root: other names of files of the engine's, or files
/// that the engine's may become other names of.
pub const REGISTRY_BLOBS: &str = "registry/blobs/sha256";

/// Makes `path` another name of the file at `original`, if there is one with the same bytes.
/// Both are names of immutable content; `path` is known to be right, so that damage to the
/// original does not spread. Gives whether they are one file now.
pub fn share(original: &Path, path: &Path) -> io::Result<bool> {
    let mut theirs = match File::open(original) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
        Err(error) => return Err(error),
    };
    let mut ours = File::open(path)?;
    let (their, our) = (theirs.metadata()?, ours.metadata()?);
    if (their.dev(), their.ino()) == (our.dev(), our.ino()) {
        return Ok(true);
    }
    if their.dev() != our.dev() || their.len() != our.len() || !same(&mut theirs, &mut ours)? {
        return Ok(false);
    }
    let aside = path.with_extension("shared");
    match fs_err::hard_link(original, &aside) {
        Ok(()) => {}
        // It was collected meanwhile, or has as many names as a file may have.
        Err(error)
            if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::TooManyLinks) =>
        {
            return Ok(false);
        }
        Err(error) => return Err(error),
    }
    let renamed = fs_err::rename(&aside, path);
    if renamed.is_err() {
        drop(fs_err::remove_file(&aside));
    }
    renamed.map(|()| true)
}

fn same(one: &mut File, other: &mut File) -> io::Result<bool> {
    let (mut a, mut b) = (vec![0; 256 << 10], vec![0; 256 << 10]);
    loop {
        let count = one.read(&mut a)?;
        if count == 0 {
            return Ok(true);
        }
        match other.read_exact(&mut b[..count]) {
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(false),
            result => result?,
        }
        if a[..count] != b[..count] {
            return Ok(false);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_file_or_two() {
        let dir = tempfile::tempdir().unwrap();
        let path = |name: &str| dir.path().join(name);
        let inode = |name: &str| fs_err::metadata(path(name)).unwrap().ino();
        let large = vec![7; 600 << 10];
        fs_err::write(path("a"), &large).unwrap();
        fs_err::write(path("b"), &large).unwrap();
        assert!(share(&path("a"), &path("b")).unwrap());
        assert_eq!(inode("a"), inode("b"));
        // Once more, and the other way round.
        assert!(share(&path("b"), &path("a")).unwrap());
        // Of another content, of another length, not there.
        let mut damaged = large.clone();
        damaged[599 << 10] = 8;
        for (content, case) in [(&damaged[..], "damaged"), (&large[1..], "short"), (b"", "empty")] {
            fs_err::write(path("c"), content).unwrap();
            assert!(!share(&path("c"), &path("b")).unwrap(), "{case}");
            assert_eq!(fs_err::read(path("b")).unwrap(), large, "{case}");
        }
        assert!(!share(&path("none"), &path("b")).unwrap());
        assert!(share(&path("a"), &path("none")).is_err());
        assert_eq!(fs_err::read_dir(dir.path()).unwrap().count(), 3);
    }
}
