//! Directories that keep what clients have sent, so that the next build of the same context gets
//! only what changed: `<root>/build/contexts/<key>/<n>`. The key is a digest of the context's
//! name and of what the client's sessions share; builds at the same time have one each.

use std::collections::{HashMap, HashSet};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use sha2::{Digest as _, Sha256};
use silo_build::context::Digests;
use silo_types::Error;

/// All directories, and which are in use.
#[derive(Debug)]
pub(crate) struct Slots {
    root: PathBuf,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    used: HashSet<PathBuf>,
    digests: HashMap<PathBuf, Arc<Digests>>,
}

/// A directory that nobody else uses until this is dropped.
#[derive(Debug)]
pub(crate) struct Slot {
    slots: Arc<Slots>,
    path: PathBuf,
}

impl Slots {
    /// Directories below `root`, which is made.
    pub(crate) fn open(root: PathBuf) -> Result<Self, Error> {
        make(&root)?;
        Ok(Self { root, state: Mutex::default() })
    }

    /// The first directory of a key that is free.
    pub(crate) fn take(self: &Arc<Self>, key: &str) -> Result<Slot, Error> {
        use std::fmt::Write as _;
        let mut name = String::new();
        for byte in &Sha256::digest(key.as_bytes())[..16] {
            // Writing to a string does not fail.
            let _written = write!(name, "{byte:02x}");
        }
        let folder = self.root.join(name);
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let free = (0_u32..).map(|number| folder.join(number.to_string()));
        let path = free
            .into_iter()
            .find(|path| !state.used.contains(path))
            .ok_or_else(|| Error::internal("no directory for a context"))?;
        make(&path)?;
        state.used.insert(path.clone());
        Ok(Slot { slots: Arc::clone(self), path })
    }
}

impl Slot {
    /// The directory.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Digests of files that lie in it from earlier.
    pub(crate) fn digests(&self) -> Arc<Digests> {
        let state = self.slots.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.digests.get(&self.path).cloned().unwrap_or_default()
    }

    /// Keeps digests for the next build.
    pub(crate) fn keep(&self, digests: Arc<Digests>) {
        let mut state = self.slots.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.digests.insert(self.path.clone(), digests);
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        let mut state = self.slots.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.used.remove(&self.path);
    }
}

fn make(path: &Path) -> Result<(), Error> {
    use std::os::unix::fs::DirBuilderExt as _;
    std::fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(path)
        .map_err(|error| Error::internal(format!("make {}: {error}", path.display())))
}
