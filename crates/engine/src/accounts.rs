//! The account files of containers, read with bounds and never through a link out of the root.

use std::collections::HashMap;
use std::io;
use std::os::fd::AsFd;
use std::sync::{Arc, Mutex, PoisonError};

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
        rustix::fs::mknodat(
            rustix::fs::CWD,
            etc.join("passwd"),
            rustix::fs::FileType::Fifo,
            0o600.into(),
            0,
        )
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
}
