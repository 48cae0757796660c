//! What another process may read of a store that somebody has open, or nobody.
//!
//! Everything is read from the disk when it is asked for. What is removed meanwhile is not there,
//! or ends in the middle with an error; it is never something else.

use std::io::{self, Read as _, Write};
use std::path::{Path, PathBuf};

use fs_err::File;
use silo_oci::image::{Descriptor, Index, MAX_DOCUMENT, digest};
use silo_types::Digest;

use crate::durable::INDEX;
use crate::image::ID;
use crate::layer::{self, RECORD};
use crate::share::CONTENT_BLOBS;
use crate::store::names;
use crate::{Error, Layer};

/// A store as others see it.
#[derive(Debug, Clone)]
pub struct View {
    root: PathBuf,
}

impl View {
    /// The store in a data root; it need not be there.
    pub fn new(root: &Path) -> Self {
        Self { root: root.to_owned() }
    }

    fn blob_path(&self, digest: &Digest) -> PathBuf {
        self.root.join(CONTENT_BLOBS).join(digest.hex())
    }

    /// The ids of all images with their manifests.
    pub fn images(&self) -> Result<Vec<(Digest, Descriptor)>, Error> {
        let path = self.root.join(INDEX);
        let bytes = match fs_err::read(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            read => read.map_err(Error::io("read", &path))?,
        };
        let index: Index = serde_json::from_slice(&bytes)
            .map_err(|source| Error::Json { what: path.display().to_string(), source })?;
        let named = index.manifests.into_iter().filter_map(|manifest| {
            let id = manifest.annotations.get(ID)?.parse().ok()?;
            Some((id, manifest))
        });
        Ok(named.collect())
    }

    /// A configuration or manifest, checked against its digest.
    pub fn document(&self, wanted: &Digest) -> Result<Vec<u8>, Error> {
        let path = self.blob_path(wanted);
        let file = File::open(&path).map_err(Error::io("open", &path))?;
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

    /// A blob and its size, if it is there.
    pub fn blob(&self, digest: &Digest) -> Result<Option<(std::fs::File, u64)>, Error> {
        let path = self.blob_path(digest);
        let file = match File::open(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            opened => opened.map_err(Error::io("open", &path))?,
        };
        let size = file.metadata().map_err(Error::io("look at", &path))?.len();
        Ok(Some((file.into_file(), size)))
    }

    /// A layer whose uncompressed tar has this digest.
    pub fn layer(&self, diff_id: &Digest) -> Result<Option<Layer>, Error> {
        let directory = self.root.join("layers");
        if !directory.exists() {
            return Ok(None);
        }
        for name in names(&directory)? {
            // Those that are coming or going have no record, or another's.
            let Ok(bytes) = fs_err::read(directory.join(&name).join(RECORD)) else { continue };
            let Ok(layer) = serde_json::from_slice::<Layer>(&bytes) else { continue };
            let is_it = layer.diff_id == *diff_id && layer.stand_in.is_none();
            if is_it && layer.chain_id.hex() == name {
                return Ok(Some(layer));
            }
        }
        Ok(None)
    }

    /// Writes the uncompressed tar of a layer; its digest is checked when all of it is written.
    pub fn write_layer_tar(&self, layer: &Layer, output: impl Write) -> Result<(), Error> {
        let blob = layer.blob.as_ref().map(|blob| self.blob_path(&blob.digest));
        let path = self.root.join("layers").join(layer.chain_id.hex());
        layer::write_tar(&path, layer, blob.as_deref(), output)
    }
}
