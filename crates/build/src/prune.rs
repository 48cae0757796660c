//! What the cache holds, and its removal.

use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError};

use jiff::Timestamp;
use silo_types::{Digest, Error};

use crate::builder::{Builder, CacheRecord, PruneOptions, Pruned};
use crate::cache::Record;
use crate::gc;

/// The kind of a cache mount.
const MOUNT: &str = "exec.cachemount";

/// Something that can be removed.
#[derive(Debug)]
enum Held {
    /// A record with its layer.
    Step(String),
    /// The directory of a cache mount.
    Mount(PathBuf),
    /// What somebody else keeps.
    Other,
}

fn time(nanoseconds: i64) -> Timestamp {
    Timestamp::from_nanosecond(nanoseconds.into()).unwrap_or_default()
}

impl Builder {
    /// What the cache holds, what was not used for longest first.
    pub async fn disk_usage(self: &Arc<Self>) -> Result<Vec<CacheRecord>, Error> {
        let builder = Arc::clone(self);
        let held = tokio::task::spawn_blocking(move || builder.held());
        let held = held.await.map_err(|error| Error::internal(error.to_string()))??;
        Ok(held.into_iter().map(|(record, _)| record).collect())
    }

    fn held(&self) -> Result<Vec<(CacheRecord, Held)>, Error> {
        let records = self.cache.records()?;
        let images = self.engine.store().images().map_err(Error::from_kind)?;
        let of_images: HashSet<Digest> =
            images.iter().flat_map(|image| image.chain.iter().copied()).collect();
        let mut held: Vec<(CacheRecord, Held)> = records
            .iter()
            .map(|record| {
                let shown = self.step_record(record, &records, &of_images);
                (shown, Held::Step(record.key.clone()))
            })
            .collect();
        let mounts = self.directory.join("mounts");
        for entry in fs_err::read_dir(&mounts).into_iter().flatten().flatten() {
            let path = entry.path();
            held.extend(self.mount_record(&path).map(|record| (record, Held::Mount(path))));
        }
        held.sort_by_key(|(record, _)| record.last_used);
        Ok(held)
    }

    fn step_record(
        &self,
        record: &Record,
        all: &[Record],
        of_images: &HashSet<Digest>,
    ) -> CacheRecord {
        let parents = record.parent.iter().filter_map(|parent| {
            all.iter().find(|other| other.chain.as_ref() == Some(parent)).map(|o| o.key.clone())
        });
        CacheRecord {
            id: record.key.clone(),
            kind: record.kind.clone(),
            description: record.description.clone(),
            parents: parents.filter(|parent| *parent != record.key).collect(),
            in_use: self.cache.is_running(&record.key),
            shared: record.chain.is_some_and(|chain| of_images.contains(&chain)),
            size: record.size,
            created: time(record.created),
            last_used: Some(time(record.last_used)),
            usage_count: record.uses,
        }
    }

    fn mount_record(&self, path: &Path) -> Option<CacheRecord> {
        let name = path.file_name()?.to_str()?.to_owned();
        let id = fs_err::read_to_string(path.join("id")).ok()?;
        let metadata = fs_err::metadata(path.join("id")).ok()?;
        let used = metadata.modified().ok().and_then(|time| Timestamp::try_from(time).ok());
        let created = fs_err::metadata(path.join("files")).ok()?.created().ok();
        let locks = self.mounts.lock().unwrap_or_else(PoisonError::into_inner);
        let in_use = locks.get(&name).is_some_and(|lock| Arc::strong_count(lock) > 1);
        drop(locks);
        Some(CacheRecord {
            id: name,
            kind: MOUNT.into(),
            description: format!("cached mount {id}"),
            parents: Vec::new(),
            in_use,
            shared: false,
            size: silo_sys::path::open_root(path.join("files"))
                .and_then(silo_store::tree::usage)
                .unwrap_or(0),
            created: created.and_then(|t| Timestamp::try_from(t).ok()).or(used).unwrap_or_default(),
            last_used: used,
            usage_count: 1,
        })
    }

    /// Removes from the cache what nobody uses.
    pub async fn prune(self: &Arc<Self>, options: PruneOptions) -> Result<Pruned, Error> {
        let builder = Arc::clone(self);
        let removed = tokio::task::spawn_blocking(move || builder.remove(&options));
        let removed = removed.await.map_err(|error| Error::internal(error.to_string()))?;
        let (mut pruned, steps) = removed?;
        if steps {
            pruned.bytes += self.engine.collect_garbage().await?;
        }
        Ok(pruned)
    }

    /// Removes cache mounts and forgets steps; whether any of these.
    fn remove(&self, options: &PruneOptions) -> Result<(Pruned, bool), Error> {
        let wanted = Wanted::new(options)?;
        let mut pruned = Pruned::default();
        let mut held = self.held()?;
        let others = self.others.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let kept = others.iter().flat_map(|others| others.records());
        held.extend(kept.map(|record| (record, Held::Other)));
        held.sort_by_key(|(record, _)| record.last_used);
        // What images have as well takes no room of its own.
        let counts = |record: &CacheRecord| options.all || !record.shared;
        let own = held.iter().filter(|(record, _)| counts(record));
        let mut total: u64 = own.map(|(record, _)| record.size).sum();
        let (_, free) = gc::disk(&self.directory)?;
        let kept = gc::kept(total, free, options);
        let mut keys = Vec::new();
        for (record, what) in held {
            if kept.is_some_and(|kept| total <= kept) {
                break;
            }
            if record.in_use || (record.shared && !options.all) || !wanted.is(&record) {
                continue;
            }
            match what {
                Held::Step(key) => keys.push(key),
                Held::Mount(path) => {
                    // A build may have come for it meanwhile.
                    let Some(_held) = self.hold_idle(&record.id) else { continue };
                    pruned.bytes += record.size;
                    crate::scratch::remove(&path);
                }
                Held::Other => {
                    if !others.as_ref().is_some_and(|others| others.remove(&record.id)) {
                        continue;
                    }
                    pruned.bytes += record.size;
                }
            }
            total = total.saturating_sub(record.size);
            pruned.records.push(record);
        }
        self.cache.forget(&keys)?;
        Ok((pruned, !keys.is_empty()))
    }
}

/// The filters of a prune.
#[derive(Debug, Default)]
struct Wanted {
    filters: Vec<(String, String)>,
    /// Only what was not used since.
    before: Option<Timestamp>,
}

impl Wanted {
    fn new(options: &PruneOptions) -> Result<Self, Error> {
        let mut wanted = Self::default();
        let mut age = Some(options.keep_duration).filter(|age| !age.is_zero());
        for (key, value) in &options.filters {
            match key.as_str() {
                "until" | "unused-for" => {
                    let text = value.trim();
                    let Some(parsed) = silo_types::duration::parse_go(text) else {
                        // docker wording
                        return Err(Error::invalid(format!(
                            "{key:?} filter expects a duration (e.g., '24h') or a timestamp"
                        )));
                    };
                    age = Some(parsed);
                }
                "id" | "parent" | "parents" | "type" | "description" | "description~" | "inuse"
                | "shared" | "private" => wanted.filters.push((key.clone(), value.clone())),
                _ => return Err(Error::invalid(format!("invalid filter '{key}'"))), // docker wording
            }
        }
        wanted.before = age.and_then(|age| Timestamp::now().checked_sub(age).ok());
        Ok(wanted)
    }

    fn is(&self, record: &CacheRecord) -> bool {
        let flag = |value: &str, is: bool| matches!(value, "" | "true" | "1") == is;
        self.before.is_none_or(|before| record.last_used.unwrap_or(record.created) < before)
            && self.filters.iter().all(|(key, value)| match key.as_str() {
                "id" => record.id.starts_with(value.trim_start_matches('~')),
                "parent" | "parents" => record.parents.contains(value),
                "type" => record.kind == *value,
                "description" | "description~" => {
                    record.description.contains(value.trim_start_matches('~'))
                }
                "inuse" => flag(value, record.in_use),
                "shared" => flag(value, record.shared),
                "private" => flag(value, !record.shared),
                _ => true,
            })
    }
}
