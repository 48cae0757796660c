//! The builder: one for an engine, with its cache and the builds that run.

use std::sync::Arc;

use jiff::Timestamp;
use silo_engine::Engine;
use silo_types::Error;

/// Builds images on an engine.
#[derive(Debug)]
pub struct Builder {
    pub(crate) engine: Arc<Engine>,
}

/// What the cache holds of one step, or a cache mount.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CacheRecord {
    /// Its id.
    pub id: String,
    /// `regular`, `exec.cachemount`, `source.local`, ...
    pub kind: String,
    /// What made it: `mount / from exec /bin/sh -c make`.
    pub description: String,
    /// Records that it stands on.
    pub parents: Vec<String>,
    /// A build works with it.
    pub in_use: bool,
    /// An image has it too.
    pub shared: bool,
    /// Bytes of its files.
    pub size: u64,
    /// When it was made.
    pub created: Timestamp,
    /// When it was last used.
    pub last_used: Option<Timestamp>,
    /// How often.
    pub usage_count: u64,
}

/// What is to be removed from the cache.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PruneOptions {
    /// What images share, too.
    pub all: bool,
    /// Only these ids, kinds, parents...: `id=`, `type=`, `description~=`, `inuse`, `shared`,
    /// `private`, `until=`, as `docker builder prune --filter` has them.
    pub filters: Vec<(String, String)>,
    /// Bytes that may stay, the newest first.
    pub keep_storage: u64,
    /// Only what was not used for so long.
    pub keep_duration: std::time::Duration,
}

/// What was removed from the cache.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Pruned {
    /// The records.
    pub records: Vec<CacheRecord>,
    /// Bytes.
    pub bytes: u64,
}

impl Builder {
    /// The builder of an engine, with the cache in the engine's data root.
    pub fn open(engine: &Arc<Engine>) -> Result<Arc<Self>, Error> {
        Ok(Arc::new(Self { engine: Arc::clone(engine) }))
    }

    /// The engine.
    pub fn engine(&self) -> &Arc<Engine> {
        &self.engine
    }
}
