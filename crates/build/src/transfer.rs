//! Caches that leave an engine and come to another one.
//!
//! # Form
//!
//! An OCI image layout, as a directory, a tar, or the content store of a client; or the same
//! blobs in a repository of a registry, with a tag. Its manifest has
//! the steps' layers (and the tars of cache mounts) as layers, and as configuration the document
//! `application/vnd.buildkit.cacheconfig.v0` in BuildKit's form: `layers` names a blob each, with
//! its digest uncompressed and the index of the layer beneath, and `records` names steps by their
//! keys, and the layer that is on top after each. What BuildKit has no place for is in members
//! `silo`, which it ignores (`config`). Keys are those of [`crate::cache`]: BuildKit reads such
//! a cache and finds nothing in it, and the other way round.
//!
//! Clients may want other documents ([`CacheForm`]): layers compressed, and an index that names the
//! layers and the configuration, as BuildKit wrote before there were artifacts.
//!
//! In an image, `moby.buildkit.cache.v0` of the configuration is the list of records, as JSON in
//! base64; layers are then counted among those of the image. Such an image is a cache wherever it
//! is: in the store, in a registry, in a directory.
//!
//! # Trust
//!
//! Who gives a cache away says what steps come to, as who gives an image away does. All else is
//! checked: documents against their digests, layers against the digests of their tars. Where a
//! layer belongs is computed and not believed. A cache that a build names is looked at only for
//! the steps of that build.

pub(crate) mod archive;
pub(crate) mod config;
mod export;
mod form;
mod import;
mod imported;
pub(crate) mod mounts;
mod registry;

use std::fmt;
use std::io::{Read, Write};

use sha2::{Digest as _, Sha256};
use silo_oci::image::Descriptor;
use silo_types::{Digest, Error};

pub use export::WholeCache;
pub use form::CacheForm;
pub use import::CacheSummary;
pub(crate) use imported::Imports;

/// Bytes of a manifest or a configuration of a cache.
pub(crate) const MAX_DOCUMENT: u64 = 64 << 20;

/// Where blobs can be had by their digests, as from a client's directory.
pub trait BlobSource: fmt::Debug + Send + Sync {
    /// Opens a blob. What it reads may be anything. Blocks.
    fn open(&self, digest: &Digest) -> Result<Box<dyn Read + Send>, Error>;
}

/// Where blobs go.
pub trait BlobSink {
    /// Takes a blob of this descriptor. `write` is not called where it is there already. Blocks.
    fn put(&mut self, blob: &Descriptor, write: WriteBlob<'_>) -> Result<(), Error>;
}

/// Writes a whole blob.
pub type WriteBlob<'a> = &'a mut dyn FnMut(&mut dyn Write) -> Result<(), Error>;

/// A cache that a build may take steps from.
#[derive(Debug, Clone)]
pub struct CacheImport {
    /// What people see: `local:/path`.
    pub name: String,
    /// Where its blobs are.
    pub source: std::sync::Arc<dyn BlobSource>,
    /// Its manifest.
    pub manifest: Digest,
}

/// Reads a document that must have a digest.
pub(crate) fn document(source: &dyn BlobSource, digest: &Digest) -> Result<Vec<u8>, Error> {
    let mut bytes = Vec::new();
    source
        .open(digest)?
        .take(MAX_DOCUMENT + 1)
        .read_to_end(&mut bytes)
        .map_err(|error| Error::invalid(format!("cannot read blob {digest}: {error}")))?;
    if bytes.len() as u64 > MAX_DOCUMENT {
        return Err(Error::invalid(format!("blob {digest} has more than {MAX_DOCUMENT} bytes")));
    }
    let actual = Digest::from_sha256(Sha256::digest(&bytes).into());
    if actual != *digest {
        return Err(Error::invalid(format!("blob {digest} has digest {actual}")));
    }
    Ok(bytes)
}

/// A cache that cannot be written.
fn sending(error: std::io::Error) -> Error {
    Error::internal(format!("write the cache: {error}"))
}
