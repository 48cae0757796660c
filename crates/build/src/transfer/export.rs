//! A cache on its way out.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::io::Write;
use std::path::Path;
use std::sync::Arc;

use silo_oci::image::{Descriptor, media};
use silo_store::Lease;
use silo_types::{Digest, Error};

use super::archive::ArchiveSink;
use super::config::{
    self, CacheConfig, CacheLayer, CacheRecord, CacheResult, Extra, LayerNotes, StepNotes,
};
use super::mounts::IdleMount;
use super::{BlobSink, CacheForm, WriteBlob, sending};
use crate::builder::Builder;
use crate::cache::Record;
use crate::outcome::Outcome;
use crate::state::rfc3339;

/// Steps, their layers, and what keeps these.
#[derive(Debug)]
struct Bundle {
    config: CacheConfig,
    /// The layers of `config` by their chain ids, in its order.
    chains: Vec<Digest>,
    indexes: HashMap<Digest, usize>,
    lease: Lease,
}

impl Bundle {
    /// The index of a layer; those beneath it go before.
    fn layer(&mut self, builder: &Builder, chain: &Digest) -> Result<usize, Error> {
        let store = builder.engine.store();
        let mut missing = Vec::new();
        let mut next = Some(*chain);
        let mut parent = None;
        while let Some(chain) = next {
            if let Some(index) = self.indexes.get(&chain) {
                parent = Some(*index);
                break;
            }
            self.lease.hold(chain);
            let layer = store.layer(&chain).map_err(Error::from_kind)?;
            if layer.stand_in.is_some() {
                return Err(Error::invalid("what stands in for a base cannot be given away"));
            }
            next = layer.parent;
            missing.push(layer);
        }
        for layer in missing.into_iter().rev() {
            let blob = store.layer_blob(&layer.chain_id).map_err(Error::from_kind)?;
            let index = self.chains.len();
            self.config.layers.push(CacheLayer {
                blob: blob.digest,
                parent: parent.and_then(|index| i64::try_from(index).ok()).unwrap_or(-1),
                annotations: LayerNotes {
                    media_type: blob.media_type,
                    diff_id: Some(layer.diff_id),
                    size: blob.size,
                    created_at: rfc3339(0).unwrap_or_default(),
                },
            });
            self.chains.push(layer.chain_id);
            self.indexes.insert(layer.chain_id, index);
            parent = Some(index);
        }
        parent.ok_or_else(|| Error::internal("a layer without a place"))
    }

    fn add(&mut self, builder: &Builder, record: &Record) -> Result<(), Error> {
        let top = match &record.chain {
            None => None,
            // What is pruned just now is no part of it.
            Some(chain) => match self.layer(builder, chain) {
                Ok(index) => Some(index),
                Err(_) => return Ok(()),
            },
        };
        let aliases = builder.cache.aliases(&record.key)?;
        self.config.records.extend(shown(record, top, &aliases));
        Ok(())
    }
}

/// A whole cache, ready to be written.
#[derive(Debug)]
pub struct WholeCache {
    builder: Arc<Builder>,
    bundle: Bundle,
    mounts: Vec<IdleMount>,
}

/// A record as documents have it.
fn shown(record: &Record, layer: Option<usize>, aliases: &[String]) -> Option<CacheRecord> {
    let created_at = rfc3339(record.created).unwrap_or_default();
    let layer = layer.and_then(|index| i64::try_from(index).ok());
    Some(CacheRecord {
        digest: config::digest_of(&record.key)?,
        results: layer
            .into_iter()
            .map(|layer| CacheResult { layer, created_at: created_at.clone() })
            .collect(),
        silo: Some(StepNotes {
            kind: record.kind.clone(),
            description: record.description.clone(),
            created: record.created,
            changed: record.chain != record.parent,
            size: record.size,
            aliases: aliases.iter().filter_map(|key| config::digest_of(key)).collect(),
        }),
    })
}

impl Builder {
    fn bundle(&self) -> Bundle {
        Bundle {
            config: CacheConfig::default(),
            chains: Vec::new(),
            indexes: HashMap::new(),
            lease: self.engine.store().lease(),
        }
    }

    /// Gives the cache of builds away: of all their steps (`max`), or of those whose layers the
    /// images have. Returns the manifest; `None` where there is nothing. Blocks.
    pub fn export_cache(
        &self,
        outcomes: &[Outcome],
        max: bool,
        form: &CacheForm,
        sink: &mut dyn BlobSink,
    ) -> Result<Option<Descriptor>, Error> {
        let mut layers = HashSet::new();
        for outcome in outcomes {
            layers.extend(self.stack(outcome.chain)?);
        }
        let keys: HashSet<&String> = outcomes.iter().flat_map(|outcome| &outcome.steps).collect();
        let mut bundle = self.bundle();
        for record in self.cache.records()? {
            let is_wanted = max || record.chain.is_none_or(|chain| layers.contains(&chain));
            if keys.contains(&record.key) && is_wanted {
                bundle.add(self, &record)?;
            }
        }
        if bundle.config.records.is_empty() {
            return Ok(None);
        }
        self.write(bundle, Vec::new(), form, sink).map(Some)
    }

    /// The records of steps as an image of `chain` has them in its configuration; `None` where
    /// there is none.
    pub(crate) fn inline_cache(
        &self,
        chain: Option<Digest>,
        steps: &[String],
    ) -> Result<Option<String>, Error> {
        let stack = self.engine.store().image_chain(chain).map_err(Error::from_kind)?;
        let keys: HashSet<&String> = steps.iter().collect();
        let mut records = Vec::new();
        for record in self.cache.records()? {
            if !keys.contains(&record.key) {
                continue;
            }
            let layer = match &record.chain {
                None => None,
                Some(chain) => match stack.iter().position(|layer| layer == chain) {
                    Some(index) => Some(index),
                    None => continue,
                },
            };
            let aliases = self.cache.aliases(&record.key)?;
            records.extend(shown(&record, layer, &aliases));
        }
        // The same steps are the same bytes.
        records.sort_by_key(|record| record.digest);
        Ok((!records.is_empty()).then(|| config::to_inline(&records)))
    }

    /// Chain ids from the lowest to `chain`.
    fn stack(&self, chain: Option<Digest>) -> Result<Vec<Digest>, Error> {
        self.engine.store().stack(chain).map_err(Error::from_kind)
    }

    /// All steps that the cache has, and all cache mounts, which no build may use now, and none
    /// uses until this is dropped. Blocks.
    pub fn whole_cache(self: &Arc<Self>) -> Result<WholeCache, Error> {
        let mounts = self.idle_mounts()?;
        let mut bundle = self.bundle();
        for record in self.cache.records()? {
            bundle.add(self, &record)?;
        }
        let extra = Extra { known: self.cache.configurations()?, mounts: Vec::new() };
        bundle.config.silo = Some(extra);
        Ok(WholeCache { builder: Arc::clone(self), bundle, mounts })
    }

    fn write(
        &self,
        mut bundle: Bundle,
        mounts: Vec<(Descriptor, std::path::PathBuf)>,
        form: &CacheForm,
        sink: &mut dyn BlobSink,
    ) -> Result<Descriptor, Error> {
        let store = self.engine.store();
        let scratch = self.scratch()?;
        let mut blobs: Vec<Descriptor> = Vec::new();
        let mut seen = HashSet::new();
        // Layers of the same files are packed once.
        let mut packed: HashMap<Digest, Descriptor> = HashMap::new();
        for (chain, noted) in bundle.chains.iter().zip(&mut bundle.config.layers) {
            let own = store.layer_blob(chain).map_err(Error::from_kind)?;
            let file = scratch.path().join("layer");
            let blob = match packed.get(&own.digest) {
                Some(blob) => blob.clone(),
                None if form.packs(&own) => {
                    let blob = form.pack(store, chain, &file)?;
                    put_file(sink, &blob, &file)?;
                    fs_err::remove_file(&file).map_err(sending)?;
                    blob
                }
                None => {
                    let write: WriteBlob<'_> = &mut |output| {
                        store.write_layer_blob(chain, output).map_err(Error::from_kind)
                    };
                    sink.put(&own, write)?;
                    own.clone()
                }
            };
            packed.insert(own.digest, blob.clone());
            noted.blob = blob.digest;
            noted.annotations.size = blob.size;
            noted.annotations.media_type.clone_from(&blob.media_type);
            if seen.insert(blob.digest) {
                blobs.push(blob);
            }
        }
        for (blob, file) in mounts {
            if seen.insert(blob.digest) {
                put_file(sink, &blob, &file)?;
                blobs.push(blob);
            }
        }
        drop(bundle.lease);
        let config = put_document(sink, config::CONFIG, &bundle.config.to_bytes())?;
        let (media_type, bytes) = form.document(&config, &blobs);
        put_document(sink, media_type, &bytes)
    }
}

impl WholeCache {
    /// Writes it as a tar. Blocks.
    pub fn write(self, output: impl Write) -> Result<(), Error> {
        let Self { builder, mut bundle, mounts } = self;
        let scratch = builder.scratch()?;
        let mut packed = Vec::new();
        let mut extra = bundle.config.silo.take().unwrap_or_default();
        for (index, mount) in mounts.iter().enumerate() {
            let file = scratch.path().join(index.to_string());
            let (mount, size) = mount.pack_into(&file)?;
            let mut blob = Descriptor::new(media::OCI_LAYER, mount.blob, size);
            blob.annotations = BTreeMap::from([("io.silo.cache.mount".into(), mount.id.clone())]);
            packed.push((blob, file));
            extra.mounts.push(mount);
        }
        bundle.config.silo = Some(extra);
        let mut sink = ArchiveSink::new(output)?;
        let manifest = builder.write(bundle, packed, &CacheForm::AS_IS, &mut sink)?;
        sink.finish(&manifest)
    }
}

/// Gives a file away.
fn put_file(sink: &mut dyn BlobSink, blob: &Descriptor, path: &Path) -> Result<(), Error> {
    sink.put(blob, &mut |output| {
        let mut file = fs_err::File::open(path).map_err(sending)?;
        std::io::copy(&mut file, output).map(drop).map_err(sending)
    })
}

fn put_document(
    sink: &mut dyn BlobSink,
    media_type: &str,
    bytes: &[u8],
) -> Result<Descriptor, Error> {
    let digest = silo_oci::image::digest(bytes);
    let blob = Descriptor::new(media_type, digest, bytes.len() as u64);
    sink.put(&blob, &mut |output| output.write_all(bytes).map_err(sending))?;
    Ok(blob)
}
