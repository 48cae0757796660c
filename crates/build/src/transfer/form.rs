//! What the documents and blobs of a cache look like.

use std::io::{BufWriter, Write as _};
use std::path::Path;

use serde::Serialize;
use sha2::{Digest as _, Sha256};
use silo_archive::compress::{Compression, Encoder, Packing};
use silo_oci::image::{Descriptor, media, to_bytes};
use silo_store::Store;
use silo_types::{Digest, Error};

use super::sending;

/// The form of a cache that goes out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CacheForm {
    /// How layers are packed that the store has only unpacked.
    pub packing: Packing,
    /// Layers that came in another compression are packed anew.
    pub force: bool,
    /// Types are OCI's, not Docker's.
    pub oci_types: bool,
    /// It is a manifest, not an index. Then its types are OCI's.
    pub is_manifest: bool,
}

impl CacheForm {
    /// Layers as the store has them.
    pub(super) const AS_IS: Self = Self {
        packing: Packing { compression: Compression::None, level: None },
        force: false,
        oci_types: true,
        is_manifest: true,
    };

    /// Is a layer to be packed anew?
    pub(crate) fn packs(&self, blob: &Descriptor) -> bool {
        let own = Compression::of_media_type(&blob.media_type);
        own != self.packing.compression && (self.force || own == Compression::None)
    }

    /// Packs a layer into a file.
    pub(crate) fn pack(
        &self,
        store: &Store,
        chain: &Digest,
        path: &Path,
    ) -> Result<Descriptor, Error> {
        let file = fs_err::File::create(path).map_err(sending)?;
        let out = Hashed { inner: BufWriter::new(file), hash: Sha256::new(), size: 0 };
        let mut encoder = Encoder::new(self.packing, out).map_err(sending)?;
        store.write_layer_tar(chain, &mut encoder).map_err(Error::from_kind)?;
        let mut out = encoder.finish().map_err(sending)?;
        out.inner.flush().map_err(sending)?;
        let media_type = silo_registry::layer_type(self.packing.compression);
        Ok(Descriptor::new(media_type, Digest::from_sha256(out.hash.finalize().into()), out.size))
    }

    /// The document that names everything, and its type.
    pub(super) fn document(
        &self,
        config: &Descriptor,
        layers: &[Descriptor],
    ) -> (&'static str, Vec<u8>) {
        let mut layers = layers.to_vec();
        for layer in &mut layers {
            if let Some(media_type) = silo_registry::same_type(&layer.media_type, self.oci_types) {
                media_type.clone_into(&mut layer.media_type);
            }
        }
        if self.is_manifest {
            let media_type = media::OCI_MANIFEST;
            let manifest = Manifest { schema_version: 2, media_type, config, layers: &layers };
            return (media_type, to_bytes(&manifest));
        }
        let media_type = if self.oci_types { media::OCI_INDEX } else { media::DOCKER_LIST };
        layers.push(config.clone());
        let index = Index { schema_version: 2, media_type, manifests: &layers };
        (media_type, to_bytes(&index))
    }
}

/// The manifest of a cache.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Manifest<'a> {
    schema_version: u32,
    media_type: &'a str,
    config: &'a Descriptor,
    layers: &'a [Descriptor],
}

/// The same as BuildKit had it before.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Index<'a> {
    schema_version: u32,
    media_type: &'a str,
    manifests: &'a [Descriptor],
}

/// Hashes what is written.
struct Hashed<W> {
    inner: W,
    hash: Sha256,
    size: u64,
}

impl<W: std::io::Write> std::io::Write for Hashed<W> {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        let count = self.inner.write(bytes)?;
        self.hash.update(&bytes[..count]);
        self.size += count as u64;
        Ok(count)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        self.inner.flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::transfer::config;

    #[test]
    fn documents_of_every_form_are_read() {
        let digest = |byte| Digest::from_sha256([byte; 32]);
        let cache = Descriptor::new(config::CONFIG, digest(1), 7);
        let layers = [
            Descriptor::new(media::OCI_LAYER_GZIP, digest(2), 8),
            Descriptor::new(media::DOCKER_LAYER, digest(3), 9),
        ];
        for (oci_types, is_manifest, own, first, second) in [
            (true, true, media::OCI_MANIFEST, media::OCI_LAYER_GZIP, media::OCI_LAYER),
            (true, false, media::OCI_INDEX, media::OCI_LAYER_GZIP, media::OCI_LAYER),
            (false, false, media::DOCKER_LIST, media::DOCKER_LAYER_GZIP, media::DOCKER_LAYER),
        ] {
            let form = CacheForm { oci_types, is_manifest, ..CacheForm::AS_IS };
            let (media_type, bytes) = form.document(&cache, &layers);
            assert_eq!(media_type, own);
            let (config, blobs) = config::manifest(&bytes).unwrap();
            assert_eq!(config.digest, cache.digest);
            assert_eq!(blobs[&digest(2)].media_type, first);
            assert_eq!(blobs[&digest(3)].media_type, second);
        }
    }

    #[test]
    fn what_is_packed_anew() {
        let gzip = CacheForm { packing: Packing::default(), ..CacheForm::AS_IS };
        let forced = CacheForm { force: true, ..gzip };
        let forced_out = CacheForm { force: true, ..CacheForm::AS_IS };
        let layer = |media_type| Descriptor::new(media_type, Digest::from_sha256([1; 32]), 1);
        for (form, media_type, expected) in [
            (gzip, media::OCI_LAYER, true),
            (gzip, media::DOCKER_LAYER_GZIP, false),
            (gzip, media::OCI_LAYER_ZSTD, false),
            (forced, media::OCI_LAYER_ZSTD, true),
            (CacheForm::AS_IS, media::OCI_LAYER_GZIP, false),
            (forced_out, media::OCI_LAYER_GZIP, true),
            (forced_out, media::OCI_LAYER, false),
        ] {
            assert_eq!(form.packs(&layer(media_type)), expected, "{form:?} {media_type}");
        }
    }
}
