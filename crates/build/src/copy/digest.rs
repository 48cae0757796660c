//! What files come to: a digest over names, kinds, modes, owners, attributes and contents, but not
//! times, by which a step of a build is found in the cache.

use std::ffi::OsStr;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;

use rustix::fs::{AtFlags, FileType, Mode, OFlags, Stat};
use rustix::io::Errno;
use sha2::{Digest as _, Sha256};
use silo_store::tree::{Attributes, xattrs};

use super::CopyError;
use super::copier::{MAX_DEPTH, too_deep};
use super::resolve::{self, is_directory};
use super::select::{Filter, Found};
use crate::context::{Digests, Version};

/// Feeds what was found into a hash.
pub(crate) struct Hasher<'a> {
    hash: Sha256,
    digests: &'a Digests,
    buffer: Vec<u8>,
}

impl<'a> Hasher<'a> {
    /// A hash of nothing.
    pub(crate) fn new(digests: &'a Digests) -> Self {
        Self { hash: Sha256::new(), digests, buffer: Vec::new() }
    }

    /// The digest of everything that was added.
    pub(crate) fn finish(self) -> [u8; 32] {
        self.hash.finalize().into()
    }

    fn field(&mut self, bytes: &[u8]) {
        self.hash.update((bytes.len() as u64).to_le_bytes());
        self.hash.update(bytes);
    }

    /// Adds something with all below it.
    pub(crate) fn add(
        &mut self,
        root: BorrowedFd<'_>,
        found: &Found,
        filter: &Filter,
    ) -> Result<(), CopyError> {
        let failed = || CopyError::io("read", &found.path);
        if is_directory(&found.stat) {
            let directory = resolve::directory(root, &found.path).map_err(failed())?;
            self.field(b"directory");
            return self.children(directory, filter).map_err(failed());
        }
        self.field(found.name.as_bytes());
        let parent = found.path.parent().unwrap_or(std::path::Path::new(""));
        let parent = resolve::directory(root, parent).map_err(failed())?;
        let name = found.path.file_name().unwrap_or_default();
        self.node(parent.as_fd(), name, &found.stat).map_err(failed())
    }

    /// Adds what is in a directory, and below: without recursion, as strangers say how deep that
    /// is.
    fn children(&mut self, directory: OwnedFd, filter: &Filter) -> io::Result<()> {
        let names = silo_sys::path::names(&directory)?.into_iter();
        let mut levels = vec![(directory, String::new(), names)];
        while let Some((directory, path, names)) = levels.last_mut() {
            let Some(name) = names.next() else {
                levels.pop();
                continue;
            };
            let text = name.to_string_lossy();
            let below = if path.is_empty() { text.into_owned() } else { format!("{path}/{text}") };
            let verdict = filter.verdict(&below);
            if !verdict.included && !verdict.descend {
                continue;
            }
            let stat = rustix::fs::statat(&*directory, &name, AtFlags::SYMLINK_NOFOLLOW)?;
            if verdict.included {
                self.field(below.as_bytes());
                self.node(directory.as_fd(), &name, &stat)?;
            }
            if is_directory(&stat) && verdict.descend {
                let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
                let opened = rustix::fs::openat(&*directory, &name, flags, Mode::empty())?;
                if levels.len() == MAX_DEPTH {
                    return Err(too_deep());
                }
                let names = silo_sys::path::names(&opened)?.into_iter();
                levels.push((opened, below, names));
            }
        }
        Ok(())
    }

    fn node(&mut self, parent: BorrowedFd<'_>, name: &OsStr, stat: &Stat) -> io::Result<()> {
        let kind = FileType::from_raw_mode(stat.st_mode);
        self.hash.update(stat.st_mode.to_le_bytes());
        self.hash.update(stat.st_uid.to_le_bytes());
        self.hash.update(stat.st_gid.to_le_bytes());
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        match kind {
            FileType::Symlink => {
                let target = rustix::fs::readlinkat(parent, name, Vec::new())?;
                self.field(target.as_bytes());
            }
            FileType::RegularFile => {
                let version = version(stat);
                let digest = match self.digests.get(&version) {
                    Some(digest) => digest,
                    None => {
                        let file = rustix::fs::openat(parent, name, flags, Mode::empty())?;
                        let digest = content(&file, &mut self.buffer)?;
                        let digest = with_attributes(digest, &xattrs(&file)?);
                        self.digests.put(version, digest);
                        digest
                    }
                };
                self.hash.update(digest);
            }
            FileType::CharacterDevice | FileType::BlockDevice => {
                self.hash.update(stat.st_rdev.to_le_bytes());
            }
            FileType::Directory => {
                let node = rustix::fs::openat(parent, name, flags, Mode::empty())?;
                for (name, value) in xattrs(&node)? {
                    self.field(&name);
                    self.field(&value);
                }
            }
            _ => {}
        }
        Ok(())
    }
}

/// The digest of a file: that of its content, if it has no attributes that count.
fn with_attributes(content: [u8; 32], attributes: &Attributes) -> [u8; 32] {
    if attributes.is_empty() {
        return content;
    }
    let mut hash = Sha256::new_with_prefix(content);
    for part in attributes.iter().flat_map(|(name, value)| [name, value]) {
        hash.update((part.len() as u64).to_le_bytes());
        hash.update(part);
    }
    hash.finalize().into()
}

/// What identifies a file's content.
pub(crate) fn version(stat: &Stat) -> Version {
    Version {
        device: stat.st_dev,
        inode: stat.st_ino,
        size: u64::try_from(stat.st_size).unwrap_or(0),
        changed: (stat.st_ctime, stat.st_ctime_nsec),
    }
}

/// The SHA-256 of a file.
fn content(file: &OwnedFd, buffer: &mut Vec<u8>) -> io::Result<[u8; 32]> {
    buffer.resize(256 << 10, 0);
    let mut hash = Sha256::new();
    loop {
        match rustix::io::read(file, &mut buffer[..]) {
            Ok(0) => return Ok(hash.finalize().into()),
            Ok(count) => hash.update(&buffer[..count]),
            Err(Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
}
