//! The files of cache mounts, out and in.

use std::io::{Read, Write};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use rustix::fs::{Gid, Mode, RenameFlags, Uid};
use sha2::{Digest as _, Sha256};
use silo_types::{Digest, Error};

use super::config::CacheMount;
use crate::builder::Builder;
use crate::mounts::{Held, directory_name};
use crate::scratch::Scratch;

/// Numbers that are tried for a directory.
const MAX_NUMBER: u32 = 1024;

/// A cache mount that no step uses, and that none uses until this is dropped.
#[derive(Debug)]
pub(crate) struct IdleMount {
    pub(crate) id: String,
    number: u32,
    /// `mounts/<name>`
    directory: PathBuf,
    _held: Held,
}

fn failed<'a>(operation: &'a str, id: &'a str) -> impl FnOnce(std::io::Error) -> Error + use<'a> {
    move |error| Error::internal(format!("{operation} cache mount {id:?}: {error}"))
}

impl Builder {
    /// A cache mount, whether it is there or not; an error while a build uses it.
    pub(crate) fn idle_mount(&self, id: &str, number: u32) -> Result<IdleMount, Error> {
        let name = directory_name(id, number);
        let held = self
            .hold_idle(&name)
            .ok_or_else(|| Error::conflict(format!("cache mount {id:?} is used by a build")))?;
        let directory = self.directory.join("mounts").join(name);
        Ok(IdleMount { id: id.to_owned(), number, directory, _held: held })
    }

    /// All cache mounts that are there.
    pub(crate) fn idle_mounts(&self) -> Result<Vec<IdleMount>, Error> {
        let mut mounts = Vec::new();
        for entry in fs_err::read_dir(self.directory.join("mounts")).into_iter().flatten().flatten()
        {
            // One that is being made, or removed, has none of these.
            let Ok(id) = fs_err::read_to_string(entry.path().join("id")) else { continue };
            let name = entry.file_name();
            let number = (0..MAX_NUMBER).find(|number| *directory_name(&id, *number) == *name);
            if let Some(number) = number
                && rustix::fs::access(entry.path().join("files"), rustix::fs::Access::EXISTS)
                    .is_ok()
            {
                mounts.push(self.idle_mount(&id, number)?);
            }
        }
        mounts.sort_by(|a, b| (&a.id, a.number).cmp(&(&b.id, b.number)));
        Ok(mounts)
    }
}

impl IdleMount {
    fn files(&self) -> PathBuf {
        self.directory.join("files")
    }

    /// Writes its files as a tar.
    pub(crate) fn pack(&self, output: impl Write) -> Result<(), Error> {
        let root = silo_sys::path::open_root(self.files())
            .map_err(|_| Error::not_found(format!("no cache mount {:?}", self.id)))?;
        silo_store::tree::export(root, output).map_err(Error::from_kind)
    }

    /// Writes its files as a tar into a file, and tells of it, and how many bytes it has.
    pub(crate) fn pack_into(&self, file: &Path) -> Result<(CacheMount, u64), Error> {
        let found = fs_err::metadata(self.files()).map_err(failed("read", &self.id))?;
        let file = fs_err::File::create_new(file).map_err(failed("pack", &self.id))?;
        let mut output = Hashed { output: file, hash: Sha256::new(), count: 0 };
        self.pack(&mut output)?;
        let mount = CacheMount {
            id: self.id.clone(),
            number: self.number,
            blob: Digest::from_sha256(output.hash.finalize().into()),
            uid: found.uid(),
            gid: found.gid(),
            mode: found.mode() & 0o7777,
        };
        Ok((mount, output.count))
    }

    /// Unpacks a tar, compressed or not, into a private directory, ready to be put in place.
    pub(crate) fn unpack(
        &self,
        scratch: &Scratch,
        input: impl Read + Send,
        root: (u32, u32, u32),
    ) -> Result<PathBuf, Error> {
        let aside = scratch.directory(&directory_name(&self.id, self.number))?;
        let directory = silo_sys::path::open_root(&aside).map_err(failed("write", &self.id))?;
        let options = silo_store::tree::UnpackOptions::default();
        silo_store::tree::unpack_into(&directory, Path::new(""), input, options)
            .map_err(Error::from_kind)?;
        let (uid, gid, mode) = root;
        let set = || -> rustix::io::Result<()> {
            rustix::fs::chown(&aside, Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid)))?;
            rustix::fs::chmod(&aside, Mode::from_raw_mode(mode & 0o7777))
        };
        set().map_err(std::io::Error::from).map_err(failed("write", &self.id))?;
        Ok(aside)
    }

    /// Puts files in place of those that are there, at once. The old ones are where the new ones
    /// were.
    pub(crate) fn replace(&self, aside: &Path) -> Result<(), Error> {
        use std::os::unix::fs::DirBuilderExt as _;
        let put = || -> std::io::Result<()> {
            std::fs::DirBuilder::new().recursive(true).mode(0o700).create(&self.directory)?;
            fs_err::write(self.directory.join("id"), &self.id)?;
            let (here, files) = (rustix::fs::CWD, self.files());
            match rustix::fs::renameat_with(here, aside, here, &files, RenameFlags::EXCHANGE) {
                Err(rustix::io::Errno::NOENT) => fs_err::rename(aside, &files),
                exchanged => Ok(exchanged?),
            }
        };
        put().map_err(failed("write", &self.id))
    }
}

/// Takes the digest of what is written.
struct Hashed<W> {
    output: W,
    hash: Sha256,
    count: u64,
}

impl<W: Write> Write for Hashed<W> {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        let count = self.output.write(bytes)?;
        self.hash.update(&bytes[..count]);
        self.count += count as u64;
        Ok(count)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        self.output.flush()
    }
}
