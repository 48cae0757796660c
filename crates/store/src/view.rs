//! What another process may read of a store that somebody has open, or nobody.
//!
//! Everything is read from the disk when it is asked for. What is removed meanwhile is not there,
//! or ends in the middle with an error; it is never something else.

use std::collections::HashMap;
use std::io::{self, Read as _, Write};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use fs_err::File;
use silo_oci::image::{Descriptor, ImageConfig, Index, MAX_DOCUMENT, digest};
use silo_types::Digest;

use crate::durable::INDEX;
use crate::image::{ID, STAND_IN};
use crate::index::is_index;
use crate::layer::{self, RECORD};
use crate::share::CONTENT_BLOBS;
use crate::store::names;
use crate::{Error, Layer};

/// A store as others see it.
#[derive(Debug, Clone)]
pub struct View {
    root: PathBuf,
    opened: Arc<AtomicU64>,
}

/// What a store listed at one moment.
#[derive(Debug, Default)]
pub struct Listing {
    /// Manifests of images, by the images' ids.
    pub images: HashMap<Digest, Descriptor>,
    /// Indexes, by their digests.
    pub indexes: HashMap<Digest, Descriptor>,
    /// A list is replaced by another file, and never changed. As long as this one is open, no
    /// other file has its number.
    file: Option<File>,
}

impl View {
    /// The store in a data root; it need not be there.
    pub fn new(root: &Path) -> Self {
        Self { root: root.to_owned(), opened: Arc::default() }
    }

    /// How many files this and its clones have looked for so far: what is asked for costs that.
    pub fn opened(&self) -> u64 {
        self.opened.load(Ordering::Relaxed)
    }

    fn open(&self, path: &Path) -> io::Result<File> {
        self.opened.fetch_add(1, Ordering::Relaxed);
        File::open(path)
    }

    fn blob_path(&self, digest: &Digest) -> PathBuf {
        self.root.join(CONTENT_BLOBS).join(digest.hex())
    }

    fn layer_path(&self, chain_id: &Digest) -> PathBuf {
        self.root.join("layers").join(chain_id.hex())
    }

    /// All images and indexes.
    pub fn list(&self) -> Result<Listing, Error> {
        let path = self.root.join(INDEX);
        let mut file = match self.open(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Listing::default()),
            opened => opened.map_err(Error::io("open", &path))?,
        };
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes).map_err(Error::io("read", &path))?;
        let index: Index = serde_json::from_slice(&bytes)
            .map_err(|source| Error::Json { what: path.display().to_string(), source })?;
        let mut listing = Listing { file: Some(file), ..Listing::default() };
        for descriptor in index.manifests {
            if is_index(&descriptor) {
                listing.indexes.insert(descriptor.digest, descriptor);
            } else if let Some(Ok(id)) = descriptor.annotations.get(ID).map(|id| id.parse()) {
                listing.images.insert(id, descriptor);
            }
        }
        Ok(listing)
    }

    /// Whether the store lists the same still.
    pub fn is_current(&self, listing: &Listing) -> Result<bool, Error> {
        let path = self.root.join(INDEX);
        let now = match fs_err::metadata(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            found => {
                let found = found.map_err(Error::io("look at", &path))?;
                Some((found.dev(), found.ino()))
            }
        };
        let then = listing.file.as_ref().map(File::metadata).transpose();
        let then = then.map_err(Error::io("look at", &path))?;
        Ok(now == then.map(|then| (then.dev(), then.ino())))
    }

    /// A configuration or manifest, checked against its digest.
    pub fn document(&self, wanted: &Digest) -> Result<Vec<u8>, Error> {
        let path = self.blob_path(wanted);
        let file = self.open(&path).map_err(Error::io("open", &path))?;
        let mut bytes = Vec::new();
        let read = file.take(MAX_DOCUMENT as u64 + 1).read_to_end(&mut bytes);
        read.map_err(Error::io("read", &path))?;
        let actual = digest(&bytes);
        if actual == *wanted {
            Ok(bytes)
        } else {
            Err(Error::DigestMismatch { what: "a blob".into(), expected: *wanted, actual })
        }
    }

    /// Whether a blob is there.
    pub fn has_blob(&self, digest: &Digest) -> bool {
        self.opened.fetch_add(1, Ordering::Relaxed);
        self.blob_path(digest).exists()
    }

    /// A blob and its size, if it is there.
    pub fn blob(&self, digest: &Digest) -> Result<Option<(std::fs::File, u64)>, Error> {
        let path = self.blob_path(digest);
        let file = match self.open(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            opened => opened.map_err(Error::io("open", &path))?,
        };
        let size = file.metadata().map_err(Error::io("look at", &path))?.len();
        Ok(Some((file.into_file(), size)))
    }

    /// The chain ids of an image's layers, lowest first; `None` for those that something stands in
    /// for.
    pub fn chain(&self, image: &Descriptor, config: &ImageConfig) -> Vec<Option<Digest>> {
        let Some(top) = image.annotations.get(STAND_IN) else {
            return config.chain_ids().into_iter().map(Some).collect();
        };
        let stands = top.parse().ok().and_then(|top| Some((top, self.record(&top)?.stand_in?)));
        let Some((mut below, stand_in)) = stands else {
            return vec![None; config.rootfs.diff_ids.len()];
        };
        let mut chain = Vec::new();
        for (at, diff_id) in config.rootfs.diff_ids.iter().enumerate() {
            chain.push((at >= stand_in.replaced.len()).then(|| {
                below = silo_oci::image::chain_id(Some(&below), diff_id);
                below
            }));
        }
        chain
    }

    /// What is recorded under a chain id. What is coming or going has no record, or another's.
    fn record(&self, chain_id: &Digest) -> Option<Layer> {
        let mut bytes = Vec::new();
        self.open(&self.layer_path(chain_id).join(RECORD)).ok()?.read_to_end(&mut bytes).ok()?;
        let layer: Layer = serde_json::from_slice(&bytes).ok()?;
        (layer.chain_id == *chain_id).then_some(layer)
    }

    /// The layer with this chain id, if it is there and its uncompressed tar has this digest.
    pub fn layer(&self, chain_id: &Digest, diff_id: &Digest) -> Option<Layer> {
        let layer = self.record(chain_id)?;
        (layer.diff_id == *diff_id && layer.stand_in.is_none()).then_some(layer)
    }

    /// The chain ids of all layers by the digests of their uncompressed tars. Reads all records.
    pub fn layers(&self) -> Result<HashMap<Digest, Digest>, Error> {
        let directory = self.root.join("layers");
        if !directory.exists() {
            return Ok(HashMap::new());
        }
        let ids = names(&directory)?.into_iter().map(|name| format!("sha256:{name}").parse());
        let records = ids.filter_map(|id| self.record(&id.ok()?));
        let own = records.filter(|layer| layer.stand_in.is_none());
        Ok(own.map(|layer| (layer.diff_id, layer.chain_id)).collect())
    }

    /// Writes the uncompressed tar of a layer; its digest is checked when all of it is written.
    pub fn write_layer_tar(&self, layer: &Layer, output: impl Write) -> Result<(), Error> {
        let blob = layer.blob.as_ref().map(|blob| self.blob_path(&blob.digest));
        layer::write_tar(&self.layer_path(&layer.chain_id), layer, blob.as_deref(), output)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Store;

    #[test]
    fn a_listing_knows_that_it_is_of_the_past() {
        let root = tempfile::tempdir().unwrap();
        let view = View::new(root.path());
        let nothing = view.list().unwrap();
        assert!(nothing.images.is_empty() && view.is_current(&nothing).unwrap());
        let store = Store::open(root.path()).unwrap();
        assert!(!view.is_current(&nothing).unwrap());
        let mut listing = view.list().unwrap();
        for _ in 0..20 {
            let (image, lease) = store.import(&[0; 1024][..], ImageConfig::default()).unwrap();
            // Lists of the same lengths, again and again within a tick of the clock.
            assert!(!view.is_current(&listing).unwrap());
            drop(lease);
            listing = view.list().unwrap();
            assert_eq!(listing.images.keys().collect::<Vec<_>>(), [&image.id]);
            store.remove_image(&image.id).unwrap();
            assert!(!view.is_current(&listing).unwrap());
            listing = view.list().unwrap();
        }
    }

    #[test]
    fn one_record_is_read_for_a_layer_of_many() {
        let root = tempfile::tempdir().unwrap();
        let store = Store::open(root.path()).unwrap();
        let mut leases = Vec::new();
        let mut made = Vec::new();
        for number in 0..30_u64 {
            let mut writer = silo_archive::Writer::new(Vec::new());
            let name = format!("file{number}");
            let entry =
                silo_archive::Entry::new(silo_archive::EntryKind::Directory, name.as_str(), 0o755);
            writer.append(&entry, &mut io::empty()).unwrap();
            let tar = writer.finish().unwrap();
            let (image, lease) = store.import(&tar[..], ImageConfig::default()).unwrap();
            leases.push(lease);
            made.push(image);
        }
        let view = View::new(root.path());
        let listing = view.list().unwrap();
        let before = view.opened();
        for image in &made {
            let chain = view.chain(&listing.images[&image.id], &image.config);
            assert_eq!(chain, image.chain.iter().copied().map(Some).collect::<Vec<_>>());
            let diff_id = image.config.rootfs.diff_ids[0];
            let layer = view.layer(&image.chain[0], &diff_id).unwrap();
            assert_eq!((layer.chain_id, layer.diff_id), (image.chain[0], diff_id));
            assert!(view.layer(&image.chain[0], &image.id).is_none());
        }
        assert_eq!(view.opened() - before, 60);
        assert_eq!(view.layers().unwrap().len(), 30);
    }
}
