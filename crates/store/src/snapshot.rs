//! Snapshots: the writable directories of containers, and what is beneath them.

use std::io;
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, Mode};
use rustix::io::Errno;
use silo_types::Digest;

use crate::layer::copy_root;
use crate::lease::lock;
use crate::store::{State, names};
use crate::{Error, Snapshot, Store};

/// A link in a snapshot's directory whose text is the chain id of what is beneath.
const CHAIN: &str = "chain";
/// The text of that link where nothing is.
const NOTHING: &str = "none";
/// The directory, beside the snapshots, that is the lowest of every root: what a container
/// has mounted over, so that mounting does not count as a change of the container's.
const BASE: &str = "snapshots/.base";
/// One that is empty.
const EMPTY: &str = "snapshots/.base/proc";

/// Makes the base directory, and removes snapshots that were being made.
pub(crate) fn prepare(store: &Store) -> Result<(), Error> {
    let base = store.path(BASE);
    make_base(&base).map_err(Error::io("create", base))?;
    for name in names(&store.path("snapshots"))? {
        let path = store.path("snapshots").join(&name);
        let whole = read_chain(&path).is_ok()
            && rustix::fs::access(path.join("work"), rustix::fs::Access::EXISTS).is_ok();
        if !name.starts_with('.') && !whole {
            store.discard(&path)?;
        }
    }
    Ok(())
}

fn make_base(base: &Path) -> io::Result<()> {
    let exists = |result: Result<(), Errno>| match result {
        Err(Errno::EXIST) => Ok(()),
        other => other.map_err(io::Error::from),
    };
    for name in ["", "dev", "dev/pts", "dev/shm", "etc", "proc", "sys"] {
        let path = base.join(name);
        let result = rustix::fs::mkdir(&path, Mode::from_raw_mode(0o755));
        let new = result.is_ok();
        exists(result)?;
        if new {
            rustix::fs::chmod(&path, Mode::from_raw_mode(0o755))?;
        }
    }
    for name in [".dockerenv", "dev/console", "etc/hostname", "etc/hosts", "etc/resolv.conf"] {
        let mode = Mode::from_raw_mode(0o755);
        let flags = rustix::fs::OFlags::CREATE | rustix::fs::OFlags::CLOEXEC;
        let file = rustix::fs::open(base.join(name), flags, mode)?;
        rustix::fs::fchmod(file, mode)?;
    }
    exists(rustix::fs::symlink("/proc/mounts", base.join("etc/mtab")))
}

fn read_chain(snapshot: &Path) -> Result<Option<Digest>, io::Error> {
    let text = fs_err::read_link(snapshot.join(CHAIN))?;
    match text.to_str() {
        Some(NOTHING) => Ok(None),
        Some(text) => text.parse().map(Some).map_err(io::Error::other),
        None => Err(io::ErrorKind::InvalidData.into()),
    }
}

/// Whether this may be the name of a snapshot: one component, letters, digits, `_-.`.
fn check_name(name: &str) -> Result<(), Error> {
    let good = |byte: u8| byte.is_ascii_alphanumeric() || b"_-.".contains(&byte);
    if name.is_empty() || name.len() > 128 || name.starts_with('.') || !name.bytes().all(good) {
        return Err(Error::InvalidName(name.to_owned()));
    }
    Ok(())
}

impl Store {
    pub(crate) fn snapshot_path(&self, name: &str) -> Result<PathBuf, Error> {
        check_name(name)?;
        Ok(self.path("snapshots").join(name))
    }

    /// Makes a snapshot on top of the layers of `chain`.
    pub fn snapshot_create(&self, name: &str, chain: Option<Digest>) -> Result<Snapshot, Error> {
        let path = self.snapshot_path(name)?;
        let fail = |operation, path: &Path, error: Errno| Error::Io {
            operation,
            path: path.to_owned(),
            source: error.into(),
        };
        // Layers cannot be collected between the look at them and the link that protects them.
        let state = lock(&self.inner.state);
        let lowers = self.lowers(chain, &state)?;
        match rustix::fs::mkdir(&path, Mode::from_raw_mode(0o700)) {
            Ok(()) => {}
            Err(Errno::EXIST) => return Err(Error::SnapshotExists(name.to_owned())),
            Err(error) => return Err(fail("create", &path, error)),
        }
        let text = chain.map_or_else(|| NOTHING.to_owned(), |chain| chain.to_string());
        let made = rustix::fs::symlinkat(text, CWD, path.join(CHAIN))
            .map_err(|error| fail("create", &path.join(CHAIN), error));
        drop(state);
        let (upper, work) = (path.join("upper"), path.join("work"));
        let made = made.and_then(|()| {
            let mode = Mode::from_raw_mode(0o755);
            rustix::fs::mkdir(&upper, mode).map_err(|error| fail("create", &upper, error))?;
            // The top directory of an overlay looks as its upper does.
            copy_root(&lowers[0], &upper).map_err(Error::io("set the mode of", &upper))?;
            rustix::fs::mkdir(&work, mode).map_err(|error| fail("create", &work, error))
        });
        if let Err(error) = made {
            self.discard(&path)?;
            return Err(error);
        }
        Ok(Snapshot { id: name.to_owned(), chain, lowers, upper, work })
    }

    /// The lower directories above which a snapshot of `chain` stands, topmost first.
    fn lowers(&self, chain: Option<Digest>, state: &State) -> Result<Vec<PathBuf>, Error> {
        let mut lowers = Vec::new();
        let mut next = chain;
        while let Some(chain) = next {
            let layer = state.layers.get(&chain).ok_or(Error::NoLayer(chain))?;
            lowers.push(self.layer_files(&chain));
            next = layer.parent;
        }
        lowers.push(self.path(BASE));
        Ok(lowers)
    }

    /// The directories of the layers of `chain` alone, topmost first, and an empty one beneath, so
    /// that there are two at least if there is a layer: what is in an image, without what a
    /// container has mounted.
    pub fn layer_directories(&self, chain: Option<Digest>) -> Result<Vec<PathBuf>, Error> {
        let mut lowers = self.lowers(chain, &lock(&self.inner.state))?;
        lowers.pop();
        lowers.push(self.path(EMPTY));
        Ok(lowers)
    }

    /// What a snapshot stands on, whether it is there or not.
    pub fn snapshot_chain(&self, name: &str) -> Result<Option<Digest>, Error> {
        let path = self.snapshot_path(name)?;
        match read_chain(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                Err(Error::NoSnapshot(name.to_owned()))
            }
            result => result.map_err(Error::io("read", path.join(CHAIN))),
        }
    }

    /// The directories of a snapshot.
    pub fn snapshot(&self, name: &str) -> Result<Snapshot, Error> {
        let path = self.snapshot_path(name)?;
        let chain = self.snapshot_chain(name)?;
        let lowers = self.lowers(chain, &lock(&self.inner.state))?;
        let (upper, work) = (path.join("upper"), path.join("work"));
        Ok(Snapshot { id: name.to_owned(), chain, lowers, upper, work })
    }

    /// The names of all snapshots.
    pub fn snapshots(&self) -> Result<Vec<String>, Error> {
        let mut names = names(&self.path("snapshots"))?;
        names.retain(|name| !name.starts_with('.'));
        Ok(names)
    }

    /// Removes a snapshot. It is gone at once; its files go in the background.
    pub fn snapshot_remove(&self, name: &str) -> Result<(), Error> {
        let path = self.snapshot_path(name)?;
        if rustix::fs::access(&path, rustix::fs::Access::EXISTS).is_err() {
            return Err(Error::NoSnapshot(name.to_owned()));
        }
        self.discard(&path)
    }

    /// The chains that snapshots stand on.
    pub(crate) fn snapshot_chains(&self) -> Result<Vec<Digest>, Error> {
        let mut chains = Vec::new();
        for name in self.snapshots()? {
            let path = self.path("snapshots").join(name);
            match read_chain(&path) {
                Ok(chain) => chains.extend(chain),
                // Being removed at this moment.
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(Error::io("read", path.join(CHAIN))(error)),
            }
        }
        Ok(chains)
    }
}
