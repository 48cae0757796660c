//! Image records: `content/index.json` lists the manifests.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;

use silo_oci::image::{
    Descriptor, ImageConfig, Index, MAX_DOCUMENT, Manifest, digest, media, to_bytes,
};
use silo_types::Digest;

use crate::durable::{INDEX, SYNCED};
use crate::index::{documents, is_index, list, settle};
use crate::lease::lock;
use crate::store::{State, names};
use crate::{Error, Image, Layer, Lease, Store, stand_in};

/// Annotation of a manifest in the index: the image's id.
pub(crate) const ID: &str = "io.silo.image.id";
/// Annotation of a manifest in the index: the chain id of what stands in for its lowest layers.
pub(crate) const STAND_IN: &str = "io.silo.image.stand-in";

/// An image whose layers are in place, to be recorded.
#[derive(Debug)]
pub(crate) struct NewImage {
    pub(crate) config_bytes: Vec<u8>,
    pub(crate) config: ImageConfig,
    /// The manifest that arrived, if what it names can be given out again.
    pub(crate) manifest: Option<(Vec<u8>, String)>,
    /// The chain id of what stands in for its lowest layers.
    pub(crate) stand_in: Option<Digest>,
}

impl Store {
    /// Reads the images. Those that lost something are logged and forgotten.
    pub(crate) fn recover_images(&self) -> Result<(), Error> {
        let (index, is_newest) = self.read_index()?;
        let synced = rustix::fs::access(self.path(SYNCED), rustix::fs::Access::EXISTS).is_err();
        let mut lost = false;
        let mut state = lock(&self.inner.state);
        state.index_is_durable = synced && is_newest;
        let (indexes, manifests): (Vec<_>, Vec<_>) =
            index.manifests.into_iter().partition(is_index);
        for descriptor in indexes {
            let digest = descriptor.digest;
            match self.recover_index(descriptor) {
                Ok(index) => drop(state.indexes.insert(digest, index)),
                Err(error) => {
                    lost = true;
                    let error = silo_types::Error::from_kind(error);
                    tracing::warn!(index = %digest, %error, "an index is dropped");
                }
            }
        }
        for manifest in manifests {
            let Some(id) = manifest.annotations.get(ID).and_then(|id| id.parse().ok()) else {
                continue;
            };
            let read = || {
                self.read_checked(&manifest.digest)?;
                let bytes = self.read_checked(&id)?;
                let what = || format!("image {id}");
                let config = ImageConfig::parse(&bytes)
                    .map_err(|source| Error::Document { what: what(), source })?;
                image(id, manifest.clone(), config, &state)
            };
            match read() {
                Ok(image) => drop(state.images.insert(id, image)),
                Err(error) => {
                    lost = true;
                    let error = silo_types::Error::from_kind(error);
                    tracing::warn!(image = %id, %error, "an image is dropped");
                }
            }
        }
        settle(&mut state);
        if lost || !is_newest {
            self.write_index(&mut state)?;
        }
        Ok(())
    }

    /// The index, and whether it is the one that was written last.
    fn read_index(&self) -> Result<(Index, bool), Error> {
        let read = |name| {
            let path = self.path(name);
            let bytes = fs_err::read(&path).map_err(Error::io("read", &path))?;
            // Our own file: bounded by our disk, not by what strangers may send.
            serde_json::from_slice(&bytes)
                .map_err(|source| Error::Json { what: path.display().to_string(), source })
        };
        let error = match read(INDEX) {
            Ok(index) => return Ok((index, true)),
            Err(error) => error,
        };
        match read(SYNCED) {
            Ok(index) => {
                tracing::warn!(%error, "the newest images are lost");
                Ok((index, false))
            }
            Err(_) => Err(error),
        }
    }

    /// Reads a document, which must be what its digest says.
    pub(crate) fn read_checked(&self, wanted: &Digest) -> Result<Vec<u8>, Error> {
        let bytes = self.read_blob(wanted, MAX_DOCUMENT as u64)?;
        let actual = digest(&bytes);
        if actual != *wanted {
            return Err(Error::DigestMismatch { what: "a blob".into(), expected: *wanted, actual });
        }
        Ok(bytes)
    }

    /// Removes blobs that nothing needs: those of an operation that did not end.
    pub(crate) fn remove_orphans(&self) -> Result<(), Error> {
        let state = lock(&self.inner.state);
        let mut live: HashSet<String> = HashSet::new();
        for image in state.images.values() {
            live.extend([image.id.hex(), image.manifest.digest.hex()]);
            live.extend(self.manifest_layers(&image.manifest.digest)?.iter().map(Digest::hex));
        }
        live.extend(documents(&state).map(|digest| digest.hex()));
        let kept = state.layers.values().filter_map(|layer| layer.blob.as_ref());
        live.extend(kept.map(|blob| blob.digest.hex()));
        for name in names(&self.path("content/blobs/sha256"))? {
            if !live.contains(&name) {
                let path = self.path("content/blobs/sha256").join(name);
                fs_err::remove_file(&path).map_err(Error::io("remove", &path))?;
            }
        }
        Ok(())
    }

    /// Writes the index. It is durable after the next flush; until then, the last durable one
    /// is kept.
    pub(crate) fn write_index(&self, state: &mut State) -> Result<(), Error> {
        let images = state.images.values().map(|image| image.manifest.clone());
        let indexes = state.indexes.values().map(|index| index.descriptor.clone());
        let index = list(images.chain(indexes).collect());
        let (path, synced) = (self.path(INDEX), self.path(SYNCED));
        if state.index_is_durable {
            fs_err::hard_link(&path, &synced).map_err(Error::io("keep", &path))?;
            state.index_is_durable = false;
        }
        let aside = path.with_extension("new");
        fs_err::write(&aside, to_bytes(&index)).map_err(Error::io("write", &aside))?;
        fs_err::rename(&aside, &path).map_err(Error::io("rename", &aside))?;
        state.index_generation += 1;
        self.inner.flusher.request()
    }

    /// All images, in the order of their ids.
    pub fn images(&self) -> Result<Vec<Image>, Error> {
        Ok(lock(&self.inner.state).images.values().cloned().collect())
    }

    /// One image.
    pub fn image(&self, id: &Digest) -> Result<Image, Error> {
        lock(&self.inner.state).images.get(id).cloned().ok_or(Error::NoImage(*id))
    }

    /// Forgets an image. Its blobs and layers stay until they are collected.
    pub fn remove_image(&self, id: &Digest) -> Result<(), Error> {
        let mut state = lock(&self.inner.state);
        let image = state.images.remove(id).ok_or(Error::NoImage(*id))?;
        if let Err(error) = self.write_index(&mut state) {
            state.images.insert(*id, image);
            return Err(error);
        }
        Ok(())
    }

    /// Forgets several images at once.
    pub(crate) fn forget(&self, state: &mut State, ids: &[Digest]) -> Result<(), Error> {
        if ids.is_empty() {
            return Ok(());
        }
        for id in ids {
            state.images.remove(id);
        }
        self.write_index(state)
    }

    /// Records images whose layers are in place.
    pub(crate) fn record_images(
        &self,
        images: Vec<NewImage>,
        lease: &Lease,
    ) -> Result<Vec<Image>, Error> {
        let mut descriptors = Vec::new();
        for new in images {
            let id = digest(&new.config_bytes);
            lease.hold(id);
            self.put_blob(&new.config_bytes)?;
            let (chain, _) = self.chain_of(&new.config, new.stand_in.as_ref())?;
            let layers = chain.iter().map(|chain| self.layer(chain));
            let layers = layers.collect::<Result<Vec<_>, _>>()?;
            let (bytes, media_type) = new.manifest.unwrap_or_else(|| {
                let manifest = synthesize(id, new.config_bytes.len() as u64, &layers);
                (to_bytes(&manifest), media::OCI_MANIFEST.to_owned())
            });
            lease.hold(digest(&bytes));
            let manifest = self.put_blob(&bytes)?;
            let mut descriptor = Descriptor::new(&media_type, manifest, bytes.len() as u64);
            descriptor.platform = Some(new.config.platform());
            descriptor.annotations.insert(ID.to_owned(), id.to_string());
            if let Some(stand_in) = new.stand_in {
                lease.hold(stand_in);
                descriptor.annotations.insert(STAND_IN.to_owned(), stand_in.to_string());
            }
            descriptors.push((id, descriptor, new.config));
        }
        let mut state = lock(&self.inner.state);
        let mut recorded = Vec::new();
        let mut changed = false;
        for (id, descriptor, config) in descriptors {
            let image = image(id, descriptor, config, &state)?;
            // The first manifest of an image stays: others may have been told its digest. Where
            // other layers stand in now, what it stands on is the newer.
            let known = state.images.get(&id).filter(|known| known.stand_in == image.stand_in);
            recorded.push(match known {
                Some(known) => known.clone(),
                None => {
                    changed = true;
                    state.images.insert(id, image.clone());
                    image
                }
            });
        }
        if changed {
            self.write_index(&mut state)?;
        }
        Ok(recorded)
    }
}

/// The record of an image all of whose layers are known.
fn image(
    id: Digest,
    manifest: Descriptor,
    config: ImageConfig,
    state: &State,
) -> Result<Image, Error> {
    let stand_in = manifest.annotations.get(STAND_IN).map(|chain| chain.parse());
    let stand_in = stand_in.transpose().map_err(|_| Error::NoImage(id))?;
    let (chain, replaced) = stand_in::chain_of(&config, stand_in.as_ref(), state)?;
    let size =
        |chain| state.layers.get(chain).map(|layer| layer.size).ok_or(Error::NoLayer(*chain));
    let mut layer_sizes = chain.iter().map(size).collect::<Result<Vec<_>, _>>()?;
    let mut stands = None;
    if let Some(layer) = stand_in.and_then(|chain| state.layers.get(&chain)) {
        layer_sizes[..replaced].fill(0);
        layer_sizes[0] = stand_in::size(layer, state);
        stands = layer.stand_in.clone().map(Arc::new);
    }
    Ok(Image { id, manifest, config: Arc::new(config), chain, layer_sizes, stand_in: stands })
}

/// The manifest of an image that came without one: its layers as they can be made again.
fn synthesize(id: Digest, size: u64, layers: &[Arc<Layer>]) -> Manifest {
    Manifest {
        schema_version: 2,
        media_type: media::OCI_MANIFEST.to_owned(),
        artifact_type: String::new(),
        config: Descriptor::new(media::OCI_CONFIG, id, size),
        layers: layers
            .iter()
            .enumerate()
            .map(|(at, layer)| match (&layer.stand_in, &layer.blob) {
                // There are as many of this layer as it replaces.
                (Some(stand_in), _) if at < stand_in.replaced.len() => {
                    stand_in.replaced[at].blob.clone()
                }
                (_, Some(blob)) => blob.clone(),
                (_, None) => Descriptor::new(media::OCI_LAYER, layer.diff_id, layer.tar_size),
            })
            .collect(),
        subject: None,
        annotations: BTreeMap::new(),
    }
}
