//! The account files of containers, read with bounds and never through a link out of the root.

use std::collections::HashMap;
use std::io;
use std::os::fd::AsFd;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use rustix::fs::{FileType, Mode, OFlags};
use silo_types::{Digest, Error};

use crate::spec::user::Accounts;

/// The longest account file that is read, in bytes.
const LONGEST: u64 = 4 << 20;
/// More images than this are not remembered.
const REMEMBERED: usize = 256;

/// Account files of images, which never change.
#[derive(Debug, Default)]
pub(crate) struct Cache {
    of_images: Mutex<HashMap<Digest, Arc<Accounts>>>,
}

impl Cache {
    /// What is remembered of an image.
    pub(crate) fn get(&self, image: Digest) -> Option<Arc<Accounts>> {
        self.of_images.lock().unwrap_or_else(PoisonError::into_inner).get(&image).cloned()
    }

    /// Remembers an image's files, if they are of ordinary size.
    pub(crate) fn put(&self, image: Digest, accounts: &Arc<Accounts>) {
        const ORDINARY: usize = 64 << 10;
        if accounts.passwd.len() + accounts.group.len() > ORDINARY {
            return;
        }
        let mut known = self.of_images.lock().unwrap_or_else(PoisonError::into_inner);
        if known.len() >= REMEMBERED {
            known.clear();
        }
        known.insert(image, Arc::clone(accounts));
    }
}

/// Reads the account files of a root. Files that do not exist are empty.
pub(crate) fn read(root: impl AsFd) -> Result<Accounts, Error> {
    Ok(Accounts {
        passwd: file(root.as_fd(), "etc/passwd")?,
        group: file(root.as_fd(), "etc/group")?,
    })
}

/// Reads the account files of a root that is not mounted, from its layers, the topmost first.
///
/// This is what an overlay of the layers shows, but for links that lead from one layer to
/// another; it needs no mount, and works where a process with threads cannot make one.
pub(crate) fn read_layers(layers: &[&Path]) -> Result<Accounts, Error> {
    Ok(Accounts { passwd: layered(layers, "passwd")?, group: layered(layers, "group")? })
}

fn layered(layers: &[&Path], name: &str) -> Result<Vec<u8>, Error> {
    for layer in layers {
        let root = silo_sys::path::open_root(layer)
            .map_err(|error| Error::internal(format!("open {}: {error}", layer.display())))?;
        match look(&root, "etc") {
            Some(Seen::Whiteout) => return Ok(Vec::new()),
            None => continue,
            Some(Seen::Other) => {}
        }
        let path = format!("etc/{name}");
        match look(&root, &path) {
            Some(Seen::Whiteout) => return Ok(Vec::new()),
            Some(Seen::Other) => return file(&root, &path),
            None => {}
        }
        let mut opaque = [0; 1];
        let is_opaque =
            rustix::fs::getxattr(layer.join("etc"), "trusted.overlay.opaque", &mut opaque);
        if is_opaque == Ok(1) && opaque == *b"y" {
            return Ok(Vec::new());
        }
    }
    Ok(Vec::new())
}

enum Seen {
    /// What hides the layers beneath.
    Whiteout,
    Other,
}

fn look(root: impl AsFd, path: &str) -> Option<Seen> {
    let flags = OFlags::PATH | OFlags::NOFOLLOW;
    let found = silo_sys::path::open_in_root(root, path, flags, Mode::empty()).ok()?;
    let stat = rustix::fs::fstat(&found).ok()?;
    let device = FileType::from_raw_mode(stat.st_mode) == FileType::CharacterDevice;
    Some(if device && stat.st_rdev == 0 { Seen::Whiteout } else { Seen::Other })
}

fn file(root: impl AsFd, path: &str) -> Result<Vec<u8>, Error> {
    match silo_sys::path::read_regular_file_in_root(root, path, LONGEST) {
        Ok(Some(bytes)) => Ok(bytes),
        Ok(None) => Err(Error::invalid(format!("/{path} in the container is too large"))),
        Err(error)
            if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) =>
        {
            Ok(Vec::new())
        }
        Err(error) => Err(Error::invalid(format!("cannot read /{path} in the container: {error}"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_regular_files_of_the_root() {
        let dir = tempfile::tempdir().unwrap();
        let etc = dir.path().join("etc");
        fs_err::create_dir(&etc).unwrap();
        let open = || silo_sys::path::open_root(dir.path()).unwrap();
        assert!(read(open()).unwrap().passwd.is_empty());
        fs_err::write(etc.join("passwd"), "root:x:0:0::/:\n").unwrap();
        assert_eq!(read(open()).unwrap().passwd, b"root:x:0:0::/:\n");
        // A FIFO would block, a device is not a file, a link must not lead out.
        fs_err::remove_file(etc.join("passwd")).unwrap();
        rustix::fs::mknodat(rustix::fs::CWD, etc.join("passwd"), FileType::Fifo, 0o600.into(), 0)
            .unwrap();
        assert!(read(open()).is_err());
        fs_err::remove_file(etc.join("passwd")).unwrap();
        std::os::unix::fs::symlink("/etc/hostname", etc.join("passwd")).unwrap();
        assert!(read(open()).unwrap().passwd.is_empty());
        fs_err::remove_file(etc.join("passwd")).unwrap();
        fs_err::write(etc.join("passwd"), "").unwrap();
        fs_err::File::create(etc.join("group")).unwrap().set_len(LONGEST + 1).unwrap();
        assert!(read(open()).is_err());
    }

    #[test]
    fn layers_hide_those_beneath() {
        let dir = tempfile::tempdir().unwrap();
        let (upper, lower) = (dir.path().join("upper"), dir.path().join("lower"));
        for layer in [&upper, &lower] {
            fs_err::create_dir_all(layer.join("etc")).unwrap();
        }
        fs_err::write(lower.join("etc/passwd"), "lower\n").unwrap();
        fs_err::write(lower.join("etc/group"), "lower\n").unwrap();
        let read = || read_layers(&[&upper, &lower]).unwrap();
        assert_eq!(read().passwd, b"lower\n");
        fs_err::write(upper.join("etc/passwd"), "upper\n").unwrap();
        assert_eq!((read().passwd, read().group), (b"upper\n".to_vec(), b"lower\n".to_vec()));
        rustix::fs::mknodat(
            rustix::fs::CWD,
            upper.join("etc/group"),
            FileType::CharacterDevice,
            0o600.into(),
            0,
        )
        .unwrap();
        assert!(read().group.is_empty());
        // A link must not lead out of its layer.
        fs_err::remove_file(upper.join("etc/passwd")).unwrap();
        std::os::unix::fs::symlink("/etc/hostname", upper.join("etc/passwd")).unwrap();
        assert!(read().passwd.is_empty());
    }
}
