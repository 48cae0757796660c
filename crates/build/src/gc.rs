//! What of the cache stays without anybody pruning it.
//!
//! A build is followed by a collection, at most one in [`PAUSE`]. What was not used for
//! [`AGE`] goes while the cache has more than its reserve; then what was not used for longest
//! goes, until the cache is within its bounds. Steps whose layers images have are not touched:
//! nothing would be freed. Keys of steps are bounded by their number.

use std::path::Path;
use std::sync::{Arc, PoisonError};
use std::time::{Duration, Instant};

use silo_types::Error;

use crate::builder::{Builder, PruneOptions};

/// The least time between two collections.
const PAUSE: Duration = Duration::from_mins(10);
/// What was not used for so long need not stay.
const AGE: Duration = Duration::from_hours(60 * 24);
/// Hundredths of the disk, as BuildKit has them: what the cache may always have, what it may have
/// at most, and what it leaves free.
const RESERVED: u64 = 10;
const MAX_USED: u64 = 75;
const MIN_FREE: u64 = 20;
/// Keys that lead to steps, and those that only say that something was built. A key has some
/// hundred bytes.
const MAX_KEYS: u64 = 200_000;

/// Bytes of a disk: all, and those that are free.
pub(crate) fn disk(path: &Path) -> Result<(u64, u64), Error> {
    let disk = rustix::fs::statvfs(path)
        .map_err(|error| Error::internal(format!("statvfs {}: {error}", path.display())))?;
    Ok((disk.f_blocks * disk.f_frsize, disk.f_bavail * disk.f_frsize))
}

/// What a prune leaves: `None` where it is to take all that it may.
pub(crate) fn kept(used: u64, free: u64, options: &PruneOptions) -> Option<u64> {
    let PruneOptions { keep_storage: reserved, max_used_space, min_free_space, .. } = options;
    if [reserved, max_used_space, min_free_space].iter().all(|bound| **bound == 0) {
        return None;
    }
    let mut kept = if *max_used_space > 0 { *max_used_space } else { u64::MAX };
    if *max_used_space == 0 && *min_free_space == 0 {
        kept = 0;
    }
    let missing = min_free_space.saturating_sub(free);
    if missing > 0 {
        kept = kept.min(used.saturating_sub(missing));
    }
    Some(kept.max(*reserved))
}

impl Builder {
    /// Collects in the background, unless that was done just now.
    pub(crate) fn collect(self: &Arc<Self>) {
        {
            let mut last = self.collected.lock().unwrap_or_else(PoisonError::into_inner);
            if last.is_some_and(|last| last.elapsed() < PAUSE) {
                return;
            }
            *last = Some(Instant::now());
        }
        let builder = Arc::clone(self);
        self.tasks.spawn(async move {
            if let Err(error) = builder.collect_now().await {
                tracing::warn!(%error, "collect the build cache");
            }
        });
    }

    async fn collect_now(self: &Arc<Self>) -> Result<(), Error> {
        self.cache.bound(MAX_KEYS)?;
        let (size, _) = disk(&self.directory)?;
        let part = |hundredths: u64| size / 100 * hundredths;
        let reserve = PruneOptions { keep_storage: part(RESERVED), ..PruneOptions::default() };
        let old = PruneOptions { keep_duration: AGE, ..reserve.clone() };
        let bounds = PruneOptions {
            max_used_space: part(MAX_USED),
            min_free_space: part(MIN_FREE),
            ..reserve
        };
        for rule in [old, bounds] {
            let pruned = self.prune(rule).await?;
            if !pruned.records.is_empty() {
                let (records, bytes) = (pruned.records.len(), pruned.bytes);
                tracing::info!(records, bytes, "removed from the build cache");
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_prune_leaves() {
        for (used, free, reserved, max_used, min_free, expected) in [
            (100, 50, 0, 0, 0, None),
            // docker's --keep-storage
            (100, 50, 30, 0, 0, Some(30)),
            (100, 50, 0, 60, 0, Some(60)),
            (100, 50, 0, 0, 40, Some(u64::MAX)),
            (100, 50, 0, 0, 70, Some(80)),
            (100, 50, 0, 60, 70, Some(60)),
            (100, 50, 0, 90, 70, Some(80)),
            (100, 50, 90, 60, 70, Some(90)),
            (100, 0, 0, 0, 500, Some(0)),
            (100, 0, 20, 0, 500, Some(20)),
        ] {
            let options = PruneOptions {
                keep_storage: reserved,
                max_used_space: max_used,
                min_free_space: min_free,
                ..PruneOptions::default()
            };
            assert_eq!(kept(used, free, &options), expected, "{options:?}");
        }
    }
}
