//! Pushing an index, with its images.

use std::collections::BTreeMap;
use std::sync::Arc;

use silo_oci::image::{Descriptor, Index, MAX_DOCUMENT, media, to_bytes};
use silo_oci::reference::Reference;
use silo_store::{ImageIndex, IndexEntry, Store};

use crate::attest::push_attached;
use crate::{Error, Known, Progress, PushOptions, Pushed, Repository, push};

/// Pushes an index to a tag of a repository, with all its images and what is said of them, which
/// are in the store but for those that the repository has: see [`missing`]. An image that does not
/// go out as the index names it is named as it goes out, by another index; of what is said of it,
/// only what was made here comes along.
pub async fn push_index(
    store: &Store,
    repository: &Arc<Repository>,
    index: &ImageIndex,
    options: &PushOptions,
    known: &Arc<dyn Known>,
    progress: &Progress,
) -> Result<Pushed, Error> {
    let lease = store.lease();
    lease.hold(index.descriptor.digest);
    // The images are found by the index.
    let own = PushOptions { tag: None, ..options.clone() };
    let mut entries = Vec::new();
    let mut changed = Vec::new();
    for entry in &index.entries {
        let mut descriptor = entry.descriptor.clone();
        if let Ok(image) = store.image_of_entry(entry) {
            let sent = push(store, repository, &image, &own, known, progress).await?.manifest;
            if sent.digest != descriptor.digest {
                changed.push((descriptor.digest, sent.clone()));
                let Descriptor { media_type, digest, size, .. } = sent;
                descriptor = Descriptor { media_type, digest, size, ..descriptor };
                descriptor.platform.get_or_insert_with(|| image.config.platform());
            }
        }
        entries.push((entry, descriptor));
    }
    let mut kept = Vec::new();
    for (entry, descriptor) in entries {
        let sent = entry.attests().and_then(|about| changed.iter().find(|(old, _)| *old == about));
        let said = match sent {
            // What others said about a manifest is not said about the one in its place.
            Some((_, sent)) => match store.move_attestation(index, entry, sent) {
                Some(moved) => Some(moved),
                None => continue,
            },
            None => store.attestation(entry)?,
        };
        match said {
            Some(said) => {
                push_attached(repository, &said).await?;
                kept.push(said.descriptor);
            }
            None => kept.push(descriptor),
        }
    }
    let (bytes, media_type) = if changed.is_empty() {
        for inner in index.inner.iter().rev() {
            let bytes = store.read_blob(&inner.digest, MAX_DOCUMENT as u64)?;
            repository.put_manifest(None, &inner.media_type, &bytes).await?;
        }
        let bytes = store.read_blob(&index.descriptor.digest, MAX_DOCUMENT as u64)?;
        (bytes, index.descriptor.media_type.clone())
    } else {
        let list = Index {
            schema_version: 2,
            media_type: media::OCI_INDEX.to_owned(),
            manifests: kept,
            annotations: BTreeMap::new(),
        };
        (to_bytes(&list), media::OCI_INDEX.to_owned())
    };
    let digest = repository.put_manifest(options.tag.as_deref(), &media_type, &bytes).await?;
    let manifest = Descriptor::new(&media_type, digest, bytes.len() as u64);
    if let Some(tag) = &options.tag {
        progress.line(format!("{tag}: digest: {digest} size: {}", manifest.size));
        progress.aux(serde_json::json!({
            "Tag": tag, "Digest": digest.to_string(), "Size": manifest.size
        }));
    }
    Ok(Pushed { manifest })
}

/// The entries of an index that neither `here` nor the repository has.
pub async fn missing<'a>(
    repository: &Repository,
    name: &Reference,
    index: &'a ImageIndex,
    here: impl Fn(&IndexEntry) -> bool,
) -> Result<Vec<&'a IndexEntry>, Error> {
    let mut missing = Vec::new();
    for entry in index.entries.iter().filter(|entry| !here(entry)) {
        match repository.manifest_head(&name.with_digest(entry.descriptor.digest)).await {
            Ok(Some(_)) => {}
            Ok(None) => missing.push(entry),
            Err(error) => {
                // Who may push need not be allowed to pull.
                tracing::debug!(%error, digest = %entry.descriptor.digest, "look for a manifest");
                missing.push(entry);
            }
        }
    }
    Ok(missing)
}
