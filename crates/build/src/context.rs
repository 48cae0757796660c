//! Where the files of a build come from.

use std::collections::HashMap;
use std::fmt;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use silo_types::{Digest, Error};

use crate::Boxed;
use crate::progress::Progress;
use crate::transfer::BlobSource;

/// A context as a client names it.
#[derive(Debug, Clone)]
pub enum ContextRef {
    /// Files that are here or that the client sends.
    Files(Arc<dyn Context>),
    /// A git repository, `https://host/a.git#ref:subdirectory`; the builder fetches it.
    Git(String),
    /// An archive or, where it is the main context, a Dockerfile at a URL; the builder fetches it.
    Http(String),
    /// An image: `docker-image://name`. Not for the main context.
    Image(String),
    /// An image, or a list of them for several platforms, in an OCI layout. Not for the main
    /// context.
    Layout {
        /// Where its blobs are.
        source: Arc<dyn BlobSource>,
        /// The manifest or index.
        digest: Digest,
    },
    /// No files at all.
    Empty,
}

/// A source of files.
pub trait Context: fmt::Debug + Send + Sync {
    /// Makes the files that `filter` wants be there. May be called often, with different
    /// filters; the tree may have more than is asked for.
    fn tree<'a>(
        &'a self,
        filter: &'a Filter,
        transfer: &'a Transfer<'a>,
    ) -> Boxed<'a, Result<Arc<Tree>, Error>>;
}

/// Where a context tells how its transfer goes.
#[derive(Debug, Clone, Copy)]
pub struct Transfer<'a> {
    /// Where to.
    pub progress: &'a dyn Progress,
    /// The vertex that waits.
    pub vertex: Digest,
}

/// Which files of a context are wanted.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Filter {
    /// Paths from the context's root, wildcards included, whose links are followed; empty for
    /// everything.
    pub follow: Vec<String>,
    /// Patterns of `.dockerignore`, in its order and syntax, one each.
    pub exclude: Vec<String>,
}

/// A directory of this host that holds a context's files.
///
/// Its files were written by a stranger: paths in it are opened with `openat2` in its root only.
#[derive(Debug)]
pub struct Tree {
    root: OwnedFd,
    digests: Arc<Digests>,
    /// Its files may become those of layers, for one copy at a time.
    giving: Option<Mutex<()>>,
    /// Whatever keeps the directory, as a guard that removes it.
    _keep: Option<Box<dyn Keep>>,
}

/// Something that keeps a tree's directory until it is dropped.
pub trait Keep: fmt::Debug + Send + Sync {}

impl<T: fmt::Debug + Send + Sync> Keep for T {}

impl Tree {
    /// A tree in a directory that the engine chose. `keep` lives as long as the tree.
    pub fn open(
        path: &Path,
        digests: Arc<Digests>,
        keep: Option<Box<dyn Keep>>,
    ) -> Result<Self, Error> {
        let root = silo_sys::path::open_root(path)
            .map_err(|error| Error::internal(format!("open {}: {error}", path.display())))?;
        Ok(Self::of(root, digests, keep))
    }

    /// A tree whose root is open, as a detached mount.
    pub fn of(root: OwnedFd, digests: Arc<Digests>, keep: Option<Box<dyn Keep>>) -> Self {
        Self { root, digests, giving: None, _keep: keep }
    }

    /// Allows that files of the tree become files of layers too, under another name: the directory
    /// belongs to one build, which changes none of its files, and goes with the build.
    #[must_use]
    pub(crate) fn giving_files(self) -> Self {
        Self { giving: Some(Mutex::default()), ..self }
    }

    /// What is known of the files that may be taken as they are, for as long as the guard is held;
    /// `None` where they may not, or somebody else does.
    pub(crate) fn take(&self) -> Option<(MutexGuard<'_, ()>, &Arc<Digests>)> {
        let guard = self.giving.as_ref()?.try_lock().ok()?;
        Some((guard, &self.digests))
    }

    /// Its root.
    pub fn root(&self) -> BorrowedFd<'_> {
        self.root.as_fd()
    }

    /// What is known of its files' contents.
    pub fn digests(&self) -> &Arc<Digests> {
        &self.digests
    }
}

/// What identifies a version of a file's content without reading it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Version {
    /// Device.
    pub device: u64,
    /// Inode.
    pub inode: u64,
    /// Bytes.
    pub size: u64,
    /// Time of the last change of the inode, in seconds and nanoseconds.
    pub changed: (i64, u64),
}

/// Digests of files, which are computed once for each version of a file: the SHA-256 of the
/// content where the file has no extended attributes that belong into an image, else one of them
/// too. A context that hashes while it writes puts them in; one that keeps its directory for later
/// builds keeps this with it.
#[derive(Debug, Default)]
pub struct Digests {
    known: Mutex<HashMap<Version, [u8; 32]>>,
}

impl Digests {
    /// The digest of a version.
    pub fn get(&self, version: &Version) -> Option<[u8; 32]> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner).get(version).copied()
    }

    /// Records the digest of a version.
    pub fn put(&self, version: Version, digest: [u8; 32]) {
        self.known.lock().unwrap_or_else(PoisonError::into_inner).insert(version, digest);
    }
}

impl silo_store::tree::Observer for Digests {
    fn file(&self, stat: &rustix::fs::Stat, sha256: [u8; 32]) {
        self.put(crate::copy::digest::version(stat), sha256);
    }
}
