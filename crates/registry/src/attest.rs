//! What is said about images, on its way to a registry.

use std::io::{self, Read};

use bytes::Bytes;
use silo_oci::attest::Attached;
use silo_oci::image::{Descriptor, media};

use crate::{Error, Repository};

/// Sends an attestation manifest with its blobs. The index that names it, and the image that it is
/// about, are the caller's to send.
pub async fn push_attached(repository: &Repository, attached: &Attached) -> Result<(), Error> {
    for (blob, bytes) in &attached.blobs {
        put_bytes(repository, blob, Bytes::copy_from_slice(bytes)).await?;
    }
    let media_type = match attached.descriptor.media_type.as_str() {
        "" => media::OCI_MANIFEST,
        own => own,
    };
    repository.put_manifest(None, media_type, &attached.manifest).await?;
    Ok(())
}

/// Sends a small blob, unless it is there.
pub(crate) async fn put_bytes(
    repository: &Repository,
    blob: &Descriptor,
    bytes: Bytes,
) -> Result<(), Error> {
    if repository.has_blob(&blob.digest).await? {
        return Ok(());
    }
    let blob = Descriptor::new(&blob.media_type, blob.digest, bytes.len() as u64);
    let open = |offset: u64| -> io::Result<Box<dyn Read + Send>> {
        let start = usize::try_from(offset).unwrap_or(usize::MAX).min(bytes.len());
        Ok(Box::new(io::Cursor::new(bytes.slice(start..))))
    };
    repository.put_blob(&blob, &open).await
}
