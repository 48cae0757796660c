//! Caches that one build names: looked at when a step is not in the engine's own cache.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use silo_oci::image::{Descriptor, Document, ImageConfig, Index, Manifest, media};
use silo_store::{Image, Lease};
use silo_types::{Digest, Error};

use super::config::{self, CacheConfig, CacheLayer, CacheRecord, LayerNotes};
use super::import::record_of;
use super::{BlobSource, CacheImport, document};
use crate::builder::Builder;
use crate::cache::{Alias, Record};

/// Images of one index that are looked at.
const MAX_IMAGES: usize = 32;

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

/// The images of an index that may have a cache.
pub(super) fn images_of(index: &Index) -> impl Iterator<Item = &Descriptor> {
    let images = index.manifests.iter().filter(|image| {
        // What buildx attests is no image.
        let is_real = image.platform.as_ref().is_none_or(|platform| platform.os != "unknown");
        is_real && (image.media_type.is_empty() || media::is_manifest(&image.media_type))
    });
    images.take(MAX_IMAGES)
}

impl Imports {
    /// Adds a cache of blobs, or images that have one in their configurations; false if all its
    /// steps are another builder's. Blocks.
    pub(crate) fn add(&self, import: &CacheImport) -> Result<bool, Error> {
        let bytes = document(&*import.source, &import.manifest)?;
        let refused = match config::manifest(&bytes) {
            Ok((config, _)) => {
                let config = CacheConfig::parse(&document(&*import.source, &config.digest)?)?;
                return Ok(self.push_blobs(import, config));
            }
            Err(error) => error,
        };
        match Document::parse(&bytes, "") {
            Ok(Document::Manifest(manifest)) if manifest.is_image() => {
                self.add_blobs_of(import, &manifest)
            }
            Ok(Document::Index(index)) => {
                let mut is_known = true;
                for image in images_of(&index) {
                    let bytes = document(&*import.source, &image.digest)?;
                    if let Ok(Document::Manifest(manifest)) = Document::parse(&bytes, "") {
                        is_known &= self.add_blobs_of(import, &manifest)?;
                    }
                }
                Ok(is_known)
            }
            _ => Err(refused),
        }
    }

    /// Adds the cache of an image that is elsewhere, if it has one.
    fn add_blobs_of(&self, import: &CacheImport, manifest: &Manifest) -> Result<bool, Error> {
        let id = manifest.config.digest;
        let image = ImageConfig::parse(&document(&*import.source, &id)?).map_err(|error| {
            Error::invalid(format!("{id}: {}", silo_types::error::chain(&error)))
        })?;
        let Some(text) = &image.inline_cache else { return Ok(true) };
        let diff_ids = &image.rootfs.diff_ids;
        if diff_ids.len() != manifest.layers.len() {
            let text = format!("manifest and configuration of {} disagree", import.name);
            return Err(Error::invalid(text));
        }
        let records = config::from_inline(text, diff_ids.len())?;
        let layers = manifest.layers.iter().zip(diff_ids).enumerate();
        let layers = layers.map(|(index, (blob, diff_id))| CacheLayer {
            blob: blob.digest,
            parent: i64::try_from(index).unwrap_or_default() - 1,
            annotations: LayerNotes {
                media_type: blob.media_type.clone(),
                diff_id: Some(*diff_id),
                size: blob.size,
                created_at: String::new(),
            },
        });
        let config = CacheConfig { layers: layers.collect(), records, silo: None };
        Ok(self.push_blobs(import, config))
    }

    fn push_blobs(&self, import: &CacheImport, config: CacheConfig) -> bool {
        let is_foreign = config::is_foreign(&config.records);
        let (records, chains) = (by_key(&config.records), config.chains());
        let source = Arc::clone(&import.source);
        self.push(Import { records, content: Content::Blobs { source, config, chains } });
        !is_foreign
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
