//! Caches that one build names: looked at when a step is not in the engine's own cache.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use silo_store::{Image, Lease};
use silo_types::{Digest, Error};

use super::config::{self, CacheConfig, CacheRecord};
use super::import::record_of;
use super::{BlobSource, CacheImport, document};
use crate::builder::Builder;
use crate::cache::{Alias, Record};

/// The caches of a build.
#[derive(Debug, Default)]
pub(crate) struct Imports {
    list: Mutex<Vec<Arc<Import>>>,
}

/// One of them.
#[derive(Debug)]
struct Import {
    /// Records by their keys, further ones included.
    records: HashMap<String, usize>,
    content: Content,
}

#[derive(Debug)]
enum Content {
    /// Blobs that are fetched when they are needed.
    Blobs { source: Arc<dyn BlobSource>, config: CacheConfig, chains: Vec<Option<Digest>> },
    /// An image in the store.
    Image { records: Vec<CacheRecord>, chain: Vec<Digest> },
}

/// A step that another engine has carried out.
pub(crate) type Found = (Record, Vec<Alias>, Option<Lease>);

fn by_key(records: &[CacheRecord]) -> HashMap<String, usize> {
    let mut keys = HashMap::new();
    for (index, record) in records.iter().enumerate() {
        let Some(notes) = &record.silo else { continue };
        for digest in std::iter::once(&record.digest).chain(&notes.aliases) {
            keys.insert(config::key_of(digest), index);
        }
    }
    keys
}

impl Imports {
    /// Adds a cache of blobs. Blocks.
    pub(crate) fn add(&self, import: &CacheImport) -> Result<(), Error> {
        let manifest = document(&*import.source, &import.manifest)?;
        let (config, _) = config::manifest(&manifest)?;
        let config = CacheConfig::parse(&document(&*import.source, &config.digest)?)?;
        let (records, chains) = (by_key(&config.records), config.chains());
        let source = Arc::clone(&import.source);
        self.push(Import { records, content: Content::Blobs { source, config, chains } });
        Ok(())
    }

    /// Adds the cache that an image has in its configuration, if there is one.
    pub(crate) fn add_image(&self, image: &Image) -> Result<(), Error> {
        let Some(text) = &image.config.inline_cache else { return Ok(()) };
        let records = config::from_inline(text, image.chain.len())?;
        let chain = image.chain.clone();
        self.push(Import { records: by_key(&records), content: Content::Image { records, chain } });
        Ok(())
    }

    fn push(&self, import: Import) {
        self.list.lock().unwrap_or_else(PoisonError::into_inner).push(Arc::new(import));
    }

    /// Whether there is any.
    pub(crate) fn is_empty(&self) -> bool {
        self.list.lock().unwrap_or_else(PoisonError::into_inner).is_empty()
    }

    /// The result of a step, its layers in the store. A cache that cannot be read has none: the
    /// error is for people to see. Blocks.
    pub(crate) fn find(
        &self,
        builder: &Builder,
        key: &str,
        tell: &mut dyn FnMut(&Error),
    ) -> Option<Found> {
        let list = self.list.lock().unwrap_or_else(PoisonError::into_inner).clone();
        for import in list {
            let Some(index) = import.records.get(key) else { continue };
            match import.take(builder, *index) {
                Ok(Some(found)) => return Some(found),
                Ok(None) => {}
                Err(error) => tell(&error),
            }
        }
        None
    }
}

impl Import {
    fn take(&self, builder: &Builder, index: usize) -> Result<Option<Found>, Error> {
        let store = builder.engine.store();
        match &self.content {
            Content::Image { records, chain } => {
                let below = |at: usize| at.checked_sub(1).and_then(|at| chain.get(at)).copied();
                let places: Vec<_> =
                    chain.iter().enumerate().map(|(at, chain)| (*chain, below(at))).collect();
                let Some((record, aliases)) = record_of(&records[index], &places) else {
                    return Ok(None);
                };
                let lease = match &record.chain {
                    None => None,
                    Some(chain) => match store.hold_layer(chain) {
                        Some((_, lease)) => Some(lease),
                        None => return Ok(None),
                    },
                };
                Ok(Some((record, aliases, lease)))
            }
            Content::Blobs { source, config, chains } => {
                let record = &config.records[index];
                let top = record.results.first();
                let top = top.and_then(|result| usize::try_from(result.layer).ok());
                let lease = match top {
                    None => None,
                    Some(top) => match fetch(builder, &**source, config, chains, top)? {
                        Some(lease) => Some(lease),
                        None => return Ok(None),
                    },
                };
                let nothing = Digest::from_sha256([0; 32]);
                let places: Vec<_> = config
                    .layers
                    .iter()
                    .zip(chains)
                    .map(|(layer, chain)| {
                        let parent = usize::try_from(layer.parent).ok();
                        let parent = parent.and_then(|at| chains.get(at)).copied().flatten();
                        (chain.unwrap_or(nothing), parent)
                    })
                    .collect();
                let found = record_of(record, &places);
                Ok(found.map(|(record, aliases)| (record, aliases, lease)))
            }
        }
    }
}

/// Brings a layer, and what is beneath it, into the store; `None` where the cache does not say
/// what they hold.
fn fetch(
    builder: &Builder,
    source: &dyn BlobSource,
    config: &CacheConfig,
    chains: &[Option<Digest>],
    top: usize,
) -> Result<Option<Lease>, Error> {
    let store = builder.engine.store();
    let lease = store.lease();
    let mut missing = Vec::new();
    let mut next = Some(top);
    while let Some(index) = next {
        let Some(chain) = chains[index] else { return Ok(None) };
        lease.hold(chain);
        if store.layer(&chain).is_ok() {
            break;
        }
        missing.push(index);
        next = usize::try_from(config.layers[index].parent).ok();
    }
    for index in missing.into_iter().rev() {
        let layer = &config.layers[index];
        let Some(diff_id) = layer.annotations.diff_id else { return Ok(None) };
        let parent = usize::try_from(layer.parent).ok();
        let parent = parent.and_then(|at| chains[at]);
        let blob = source.open(&layer.blob)?;
        store.add_layer_tar(blob, parent.as_ref(), &diff_id).map_err(Error::from_kind)?;
    }
    Ok(Some(lease))
}
