//! A whole cache on its way in.

use std::collections::HashMap;
use std::io::Read;
use std::sync::Arc;

use silo_store::Lease;
use silo_types::{Digest, Error};

use super::archive::{self, Staged};
use super::config::{self, CacheConfig, CacheRecord};
use super::{BlobSource as _, document};
use crate::builder::Builder;
use crate::cache::{Alias, Record};

/// What came with a cache.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct CacheSummary {
    /// Steps that were not known before.
    pub steps: u64,
    /// Layers that were not there before.
    pub layers: u64,
    /// Cache mounts.
    pub mounts: u64,
}

/// A layer in the store: its chain id, that of what is beneath, and what keeps it.
type Taken = (Digest, Option<Digest>, Arc<Lease>);

/// A record as the cache keeps it, with its other keys.
pub(crate) fn record_of(
    record: &CacheRecord,
    layers: &[(Digest, Option<Digest>)],
) -> Option<(Record, Vec<Alias>)> {
    let notes = record.silo.as_ref()?;
    let top = record.results.first().and_then(|result| usize::try_from(result.layer).ok());
    let top = match top {
        None => None,
        Some(index) => Some(layers.get(index)?),
    };
    let chain = top.map(|(chain, _)| *chain);
    let key = config::key_of(&record.digest);
    let aliases = notes.aliases.iter();
    let aliases = aliases.map(|alias| Alias { key: config::key_of(alias), record: key.clone() });
    let aliases = aliases.collect();
    let record = Record {
        parent: if notes.changed { top.and_then(|(_, parent)| *parent) } else { chain },
        key,
        chain,
        kind: notes.kind.clone(),
        description: notes.description.clone(),
        created: notes.created,
        last_used: crate::cache::now(),
        uses: 0,
        size: notes.size,
    };
    Some((record, aliases))
}

impl Builder {
    /// Takes in what [`super::WholeCache`] wrote, compressed or not: steps that are not
    /// known, and cache mounts in place of those that are there. All of it is checked before the
    /// first of it counts. Blocks.
    pub fn import_whole_cache(&self, input: impl Read + Send) -> Result<CacheSummary, Error> {
        let scratch = self.scratch()?;
        let staged = archive::stage(&scratch, input)?;
        let (config, blobs) = config::manifest(&document(&staged, &staged.manifest)?)?;
        let config = CacheConfig::parse(&document(&staged, &config.digest)?)?;
        let extra = config.silo.clone().unwrap_or_default();
        if let Some(missing) = extra.mounts.iter().find(|mount| !blobs.contains_key(&mount.blob)) {
            return Err(Error::invalid(format!(
                "invalid build cache: the files of cache mount {:?} are missing",
                missing.id
            )));
        }
        let mut idle = Vec::new();
        for mount in &extra.mounts {
            let held = self.idle_mount(&mount.id, mount.number)?;
            let files = staged.open(&mount.blob)?;
            let aside = held.unpack(&scratch, files, (mount.uid, mount.gid, mount.mode))?;
            idle.push((held, aside));
        }
        let mut summary = CacheSummary { mounts: idle.len() as u64, ..CacheSummary::default() };
        let layers = self.take_layers(&staged, &config, &mut summary)?;
        let places: Vec<(Digest, Option<Digest>)> =
            layers.iter().map(|(chain, parent, _)| (*chain, *parent)).collect();
        let leases: HashMap<Digest, Arc<Lease>> =
            layers.into_iter().map(|(chain, _, lease)| (chain, lease)).collect();
        let mut records = Vec::new();
        let mut aliases = Vec::new();
        for record in &config.records {
            let Some((record, others)) = record_of(record, &places) else { continue };
            let lease = record.chain.and_then(|chain| leases.get(&chain).map(Arc::clone));
            records.push((record, lease));
            aliases.extend(others);
        }
        let known = extra.known.into_iter();
        aliases.extend(known.map(|key| Alias { key, record: String::new() }));
        for (held, aside) in &idle {
            held.replace(aside)?;
        }
        summary.steps = self.cache.put_new(records, &aliases)?;
        Ok(summary)
    }

    /// Puts all layers into the store: chain id, what is beneath, and what keeps it.
    fn take_layers(
        &self,
        staged: &Staged,
        config: &CacheConfig,
        summary: &mut CacheSummary,
    ) -> Result<Vec<Taken>, Error> {
        let store = self.engine.store();
        let mut layers: Vec<Taken> = Vec::new();
        for (layer, chain) in config.layers.iter().zip(config.chains()) {
            let (Some(diff_id), Some(chain)) = (layer.annotations.diff_id, chain) else {
                let text = format!("invalid build cache: blob {} has no diffID", layer.blob);
                return Err(Error::invalid(text));
            };
            let below = usize::try_from(layer.parent).ok().and_then(|index| layers.get(index));
            let below = below.map(|(chain, ..)| *chain);
            let lease = match store.hold_layer(&chain) {
                Some((_, lease)) => lease,
                None => {
                    summary.layers += 1;
                    let blob = staged.open(&layer.blob)?;
                    let added = store.add_layer_tar(blob, below.as_ref(), &diff_id);
                    added.map_err(Error::from_kind)?.1
                }
            };
            layers.push((chain, below, Arc::new(lease)));
        }
        Ok(layers)
    }
}
