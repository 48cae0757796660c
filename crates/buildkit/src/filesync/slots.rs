//! Directories that keep what clients have sent, so that the next build of the same context gets
//! only what changed: `<root>/build/contexts/<key>/<n>`. The key is a digest of the context's
//! name and of what the client's sessions share; builds at the same time have one each. Those
//! that were not used for longest go when there are many, and all with the rest of the cache.

use std::collections::{HashMap, HashSet};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::SystemTime;

use jiff::Timestamp;
use rustix::fs::{AtFlags, CWD, Timespec, Timestamps, UTIME_NOW};
use sha2::{Digest as _, Sha256};
use silo_build::CacheRecord;
use silo_build::context::Digests;
use silo_types::Error;

/// Directories that are kept.
const MAX_KEPT: usize = 64;

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
    is_spoiled: AtomicBool,
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
        make(&folder)?;
        silo_sys::path::spread(&folder);
        make(&path)?;
        state.used.insert(path.clone());
        drop(state);
        // The time says when it was last used.
        let now = Timespec { tv_sec: 0, tv_nsec: UTIME_NOW };
        let times = Timestamps { last_access: now, last_modification: now };
        if let Err(error) = rustix::fs::utimensat(CWD, &path, &times, AtFlags::empty()) {
            tracing::debug!(path = %path.display(), %error, "note the use of a context");
        }
        self.trim();
        Ok(Slot { slots: Arc::clone(self), path, is_spoiled: AtomicBool::new(false) })
    }

    /// Everything that is kept, what was not used for longest first.
    fn kept(&self) -> Vec<Kept> {
        let mut kept = Vec::new();
        for key in fs_err::read_dir(&self.root).into_iter().flatten().flatten() {
            for entry in fs_err::read_dir(key.path()).into_iter().flatten().flatten() {
                let Ok(used) = entry.metadata().and_then(|metadata| metadata.modified()) else {
                    continue;
                };
                kept.push(Kept { path: entry.path(), used });
            }
        }
        kept.sort_by_key(|one| one.used);
        kept
    }

    /// Removes what was not used for longest, where there is too much.
    fn trim(&self) {
        let kept = self.kept();
        for old in kept.iter().take(kept.len().saturating_sub(MAX_KEPT)) {
            self.remove(&old.path);
        }
    }

    /// Removes a directory that nobody uses; false for one that somebody does.
    fn remove(&self, path: &Path) -> bool {
        {
            let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
            if !state.used.insert(path.to_path_buf()) {
                return false;
            }
            state.digests.remove(path);
        }
        if let (Some(folder), Some(name)) = (path.parent(), path.file_name()) {
            let removed = silo_sys::path::open_root(folder)
                .and_then(|folder| silo_sys::path::remove_all_at(folder, name));
            if let Err(error) = removed {
                tracing::warn!(path = %path.display(), %error, "remove a context");
            }
            // It may have others.
            drop(fs_err::remove_dir(folder));
        }
        self.state.lock().unwrap_or_else(PoisonError::into_inner).used.remove(path);
        true
    }

    /// What is kept, as records of the cache. Looks at every file.
    pub(crate) fn records(&self) -> Vec<CacheRecord> {
        self.kept().iter().map(|kept| self.record(kept)).collect()
    }

    fn id(&self, kept: &Kept) -> String {
        let path = kept.path.strip_prefix(&self.root).unwrap_or(&kept.path);
        path.display().to_string().replace('/', "-")
    }

    fn record(&self, kept: &Kept) -> CacheRecord {
        let state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let in_use = state.used.contains(&kept.path);
        drop(state);
        let used = Timestamp::try_from(kept.used).unwrap_or_default();
        CacheRecord {
            id: self.id(kept),
            kind: "source.local".to_owned(),
            description: "local source for a build context".to_owned(),
            parents: Vec::new(),
            in_use,
            shared: false,
            size: size(&kept.path),
            created: used,
            last_used: Some(used),
            usage_count: 1,
        }
    }
}

impl silo_build::Kept for Slots {
    fn records(&self) -> Vec<CacheRecord> {
        Self::records(self)
    }

    fn remove(&self, id: &str) -> bool {
        let all = self.kept();
        let named = all.iter().find(|kept| self.id(kept) == id);
        named.is_some_and(|kept| Self::remove(self, &kept.path))
    }
}

/// A directory that is kept.
#[derive(Debug)]
struct Kept {
    path: PathBuf,
    used: SystemTime,
}

/// Bytes on disk below a directory.
fn size(directory: &Path) -> u64 {
    let mut total = 0;
    let mut open = vec![directory.to_path_buf()];
    while let Some(directory) = open.pop() {
        for entry in fs_err::read_dir(directory).into_iter().flatten().flatten() {
            // Of a link this is the link itself.
            let Ok(metadata) = entry.metadata() else { continue };
            total += metadata.blocks() * 512;
            if metadata.is_dir() {
                open.push(entry.path());
            }
        }
    }
    total
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

    /// Has the directory removed, with all that is in it, when nobody uses it any more.
    pub(crate) fn discard(&self) {
        self.is_spoiled.store(true, Ordering::Release);
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
        drop(state);
        if self.is_spoiled.load(Ordering::Acquire) {
            self.slots.remove(&self.path);
        }
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
