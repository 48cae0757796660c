//! Pulling: from a tag or digest to an image in the store.
//!
//! Layers come in parallel. Each is hashed, kept as it came and unpacked at once, by threads of
//! the store's, while it comes; it gets its place when all beneath it have theirs. So a pull that
//! is broken off leaves whole layers, which the next finds, and parts of others, with which the
//! next goes on; the image itself appears at the end, or not at all.

mod layer;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError, Weak};

use bytes::Bytes;
use silo_oci::image::{Descriptor, Document, ImageConfig, MAX_DOCUMENT, Manifest, media};
use silo_oci::platform::Platform;
use silo_oci::reference::Reference;
use silo_store::{Image, ImageIndex, Lease, Store};
use silo_types::Digest;
use tokio::sync::{Semaphore, mpsc, watch};
use tokio::task::JoinSet;

use crate::progress::{Progress, short};
use crate::{Base, Bases, Candidate, Error, Repository, Resolved, platform};
use layer::LayerWork;

/// How deep indexes may lie in each other.
const MAX_DEPTH: usize = 4;
/// How many layers come at once at most: each takes memory.
pub const MAX_AT_ONCE: usize = 5;

/// Pulls into one store. Clones are the same.
#[derive(Debug, Clone)]
pub struct Puller {
    store: Store,
    /// Layers that come in now: whoever needs one of them too waits for it.
    coming: Arc<Mutex<HashMap<Digest, Weak<tokio::sync::Mutex<()>>>>>,
    /// How many come at once.
    permits: Arc<Semaphore>,
    windows_build: u32,
}

/// A pull whose manifest has come.
#[derive(Debug)]
pub struct Pulling {
    puller: Puller,
    repository: Arc<Repository>,
    reference: Reference,
    /// What the tag or digest leads to, perhaps an index.
    top: Descriptor,
    manifest: Manifest,
    resolved: Resolved,
    /// The indexes that led to the manifest, the first first.
    indexes: Vec<Bytes>,
    wanted: Option<Platform>,
    bases: Option<Arc<dyn Bases>>,
}

/// A pulled image.
#[derive(Debug)]
pub struct Pulled {
    /// The image.
    pub image: Image,
    /// What the tag or digest led to.
    pub digest: Digest,
    /// The same, if it was an index.
    pub index: Option<ImageIndex>,
    /// Keeps the image until it is recorded.
    pub lease: Lease,
}

/// What is known of one layer before it comes.
#[derive(Debug, Clone)]
struct Layer {
    descriptor: Descriptor,
    diff_id: Digest,
    chain: Digest,
    parent: Option<Digest>,
}

/// The layers that are to come, and the chain id of what stands in for those beneath.
type Layers = (Vec<Layer>, Option<Digest>);

impl Puller {
    /// Pulls into `store`, `at_once` layers at a time, but no more than [`MAX_AT_ONCE`]. Windows
    /// images are chosen as a Windows of `windows_build` would.
    pub fn new(store: Store, at_once: usize, windows_build: u32) -> Self {
        let permits = Arc::new(Semaphore::new(at_once.clamp(1, MAX_AT_ONCE)));
        Self { store, coming: Arc::default(), permits, windows_build }
    }

    /// Fetches the manifest of an image.
    pub async fn begin(
        &self,
        repository: Arc<Repository>,
        reference: &Reference,
        wanted: Option<&Platform>,
    ) -> Result<Pulling, Error> {
        let begun = self.resolve(&repository, reference, wanted).await;
        let (top, resolved, manifest, indexes) = begun.map_err(|error| error.of_pull(reference))?;
        Ok(Pulling {
            puller: self.clone(),
            repository,
            reference: reference.clone(),
            top,
            manifest,
            resolved,
            indexes,
            wanted: wanted.cloned(),
            bases: None,
        })
    }

    async fn resolve(
        &self,
        repository: &Repository,
        reference: &Reference,
        wanted: Option<&Platform>,
    ) -> Result<(Descriptor, Resolved, Manifest, Vec<Bytes>), Error> {
        let mut resolved = repository.manifest(reference).await?;
        let top = resolved.descriptor.clone();
        let mut indexes = Vec::new();
        for _ in 0..MAX_DEPTH {
            let index = match resolved.document.clone() {
                Document::Manifest(manifest) => {
                    check_is_image(&manifest)?;
                    return Ok((top, resolved, manifest, indexes));
                }
                Document::Index(index) => index,
            };
            let chosen = platform::choose(&index, wanted, self.windows_build)?;
            indexes.push(resolved.bytes.clone());
            resolved = repository.manifest_of(reference, chosen).await?;
        }
        Err(Error::Broken("the image's indexes are too deep"))
    }

    /// Waits until nobody else receives this layer, and keeps others from doing so.
    async fn alone(&self, digest: &Digest) -> tokio::sync::OwnedMutexGuard<()> {
        let mutex = {
            let mut coming = self.coming.lock().unwrap_or_else(PoisonError::into_inner);
            coming.retain(|_, mutex| mutex.strong_count() > 0);
            match coming.get(digest).and_then(Weak::upgrade) {
                Some(mutex) => mutex,
                None => {
                    let mutex = Arc::new(tokio::sync::Mutex::new(()));
                    coming.insert(*digest, Arc::downgrade(&mutex));
                    mutex
                }
            }
        };
        mutex.lock_owned().await
    }
}

/// Refuses what is no image, as signatures and charts are.
fn check_is_image(manifest: &Manifest) -> Result<(), Error> {
    if manifest.is_image() {
        return Ok(());
    }
    let layer = manifest.layers.iter().find(|layer| !media::is_layer(&layer.media_type));
    let foreign = match (media::is_config(&manifest.config.media_type), layer) {
        (true, Some(layer)) => &layer.media_type,
        _ => &manifest.config.media_type,
    };
    let class = match foreign.as_str() {
        "application/vnd.docker.plugin.v1+json" => "plugin",
        _ => "unknown",
    };
    let media_type = foreign.chars().filter(|c| !c.is_control()).take(200).collect();
    Err(Error::NotAnImage { media_type, class })
}

impl Pulling {
    /// What the tag or digest leads to: the manifest, or the index that has it.
    pub fn descriptor(&self) -> &Descriptor {
        &self.top
    }

    /// Does not fetch the layers for which others stand in.
    pub fn with_bases(self, bases: Arc<dyn Bases>) -> Self {
        Self { bases: Some(bases), ..self }
    }

    /// Fetches what the store has not yet, and records the image.
    pub async fn run(self, progress: &Progress) -> Result<Pulled, Error> {
        let (puller, repository) = (&self.puller, &self.repository);
        let lease = puller.store.lease();
        lease.hold(self.manifest.config.digest);
        let config_bytes = self.config().await?;
        let (layers, stand_in) = self.layers(&config_bytes, &lease, progress).await?;
        for layer in &layers {
            lease.hold(layer.chain);
            lease.hold(layer.descriptor.digest);
        }
        // dockerd says nothing of the layers of an image that it has.
        let is_known = puller.store.image(&self.manifest.config.digest).is_ok();
        let mut tasks: JoinSet<Result<(), Error>> = JoinSet::new();
        let (busy, mut idle) = mpsc::channel(1);
        let mut below = watch::channel(true).1;
        for layer in layers {
            let id = short(&layer.descriptor.digest);
            if puller.store.layer(&layer.chain).is_ok() {
                if !is_known {
                    progress.state(&id, "Already exists");
                }
                continue;
            }
            progress.state(&id, "Pulling fs layer");
            let (placed, placed_below) = watch::channel(false);
            let beneath = std::mem::replace(&mut below, placed_below);
            let work = LayerWork {
                puller: puller.clone(),
                repository: Arc::clone(repository),
                layer,
                id,
                progress: progress.clone(),
                busy: busy.clone(),
            };
            tasks.spawn(async move {
                work.run(beneath).await?;
                placed.send_replace(true);
                Ok(())
            });
        }
        let mut failure = None;
        while let Some(ended) = tasks.join_next().await {
            let error = match ended {
                Ok(Ok(())) => continue,
                Ok(Err(error)) => error,
                Err(error) if error.is_cancelled() => continue,
                Err(_) => Error::Broken("a panic while pulling a layer"),
            };
            // Those above a layer that failed fail because of it.
            if failure.is_none() || matches!(failure, Some(Error::Cancelled)) {
                failure = Some(error);
            }
            tasks.abort_all();
        }
        if let Some(error) = failure {
            // Threads go on for a moment when their tasks are gone, and clean up behind them.
            drop(busy);
            idle.recv().await;
            return Err(error.of_pull(&self.reference));
        }
        let store = puller.store.clone();
        let (bytes, media_type) =
            (self.resolved.bytes.to_vec(), self.resolved.descriptor.media_type.clone());
        let (indexes, top) = (self.indexes, self.top);
        let digest = top.digest;
        let (image, index, lease) = blocking(move || {
            let mut documents: Vec<Vec<u8>> =
                indexes.iter().skip(1).map(|inner| inner.to_vec()).collect();
            documents.push(bytes.clone());
            let image =
                store.record_received(config_bytes, bytes, &media_type, stand_in, &lease)?;
            let index = match indexes.first() {
                Some(index) => {
                    Some(store.record_index(index, &top.media_type, &documents, &lease)?)
                }
                None => None,
            };
            Ok((image, index, lease))
        })
        .await?;
        Ok(Pulled { image, digest, index, lease })
    }

    /// The image's configuration: from the store, or from the registry.
    async fn config(&self) -> Result<Vec<u8>, Error> {
        let wanted = &self.manifest.config;
        if let Ok(bytes) = self.puller.store.read_blob(&wanted.digest, MAX_DOCUMENT as u64)
            && silo_oci::image::digest(&bytes) == wanted.digest
        {
            return Ok(bytes);
        }
        let bytes = self.repository.blob_bytes(wanted, MAX_DOCUMENT).await;
        bytes.map_err(|error| error.of_pull(&self.reference))
    }

    async fn layers(
        &self,
        config_bytes: &[u8],
        lease: &Lease,
        progress: &Progress,
    ) -> Result<Layers, Error> {
        let document = |source| Error::Document {
            what: format!("configuration {}", self.manifest.config.digest),
            source,
        };
        let config = ImageConfig::parse(config_bytes).map_err(document)?;
        if let Some(wanted) = &self.wanted {
            let found = config.platform();
            if !wanted.matches(&found) {
                return Err(Error::OtherPlatform {
                    reference: self.reference.familiar(),
                    wanted: wanted.to_string(),
                    found: found.to_string(),
                });
            }
        }
        let diff_ids = &config.rootfs.diff_ids;
        if diff_ids.len() != self.manifest.layers.len() {
            return Err(Error::Document {
                what: format!("configuration {}", self.manifest.config.digest),
                source: silo_oci::image::ImageError::Invalid {
                    document: "image configuration",
                    reason: format!(
                        "it has {} layers where the manifest has {}",
                        diff_ids.len(),
                        self.manifest.layers.len()
                    ),
                },
            });
        }
        let (mut parent, mut skipped) = (None, 0);
        if let Some(base) = self.base(&config)? {
            skipped = base.stand_in.replaced.len();
            let replaced = &base.stand_in.replaced;
            for layer in replaced {
                progress.state(&short(&layer.blob.digest), "Not fetched: Silo's base stands in");
            }
            let (store, stand_in, tar) = (self.puller.store.clone(), base.stand_in, base.tar);
            let own = self.puller.store.lease();
            let placed = blocking(move || {
                let placed = store.place_stand_in(stand_in, &tar[..], &own)?;
                Ok((placed, own))
            });
            let (placed, _own) = placed.await?;
            lease.hold(placed.chain_id);
            parent = Some(placed.chain_id);
            progress.line(base.notice);
        }
        let stand_in = parent;
        let layers = self.manifest.layers.iter().zip(diff_ids).skip(skipped);
        let layers = layers
            .map(|(descriptor, diff_id)| {
                let chain = silo_oci::image::chain_id(parent.as_ref(), diff_id);
                Layer {
                    descriptor: descriptor.clone(),
                    diff_id: *diff_id,
                    chain,
                    parent: parent.replace(chain),
                }
            })
            .collect();
        Ok((layers, stand_in))
    }

    /// What stands in for the image's lowest layers.
    fn base(&self, config: &ImageConfig) -> Result<Option<Base>, Error> {
        let Some(bases) = &self.bases else { return Ok(None) };
        let (reference, manifest) = (&self.reference, &self.manifest);
        bases.find(&Candidate { reference, manifest, config }).map_err(Error::Base)
    }
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, silo_store::Error> + Send + 'static,
) -> Result<T, Error> {
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => Ok(result?),
        Err(_) => Err(Error::Broken("a panic in the store")),
    }
}
