//! What is given out of an image or an index.
//!
//! As it came, bit for bit, if all that it names is here (but for layers that are fetched from
//! elsewhere). Of a manifest that names a compressed layer which the engine has only unpacked, one
//! with the uncompressed layer in its place, and of an index some of whose images are not here or
//! go out otherwise, an index of those that are here; each has another digest then, always the
//! same. An index of which one image is here goes out as that image.

use std::collections::BTreeMap;
use std::sync::Arc;

use silo_oci::image::{Descriptor, ImageConfig, Index, Manifest, digest, media, to_bytes};
use silo_store::View;
use silo_types::Digest as Sha256;

use super::{State, lock};
use crate::Error;

/// How deep indexes may lie in each other.
const MAX_DEPTH: usize = 4;
/// How many entries of indexes within each other are looked at.
const MAX_ENTRIES: usize = 4096;

/// A manifest or an index as it is given out.
#[derive(Debug)]
pub(super) struct Given {
    pub(super) digest: Sha256,
    pub(super) media_type: String,
    pub(super) size: u64,
    /// The image that it is of.
    pub(super) image: Option<Sha256>,
    /// Its bytes, if they are not a file of the engine's.
    pub(super) made: Option<Vec<u8>>,
    /// What it names of that which is here; with chain id and digest of the tar of a layer.
    pub(super) blobs: Vec<(Sha256, Option<(Sha256, Sha256)>)>,
    /// Manifests and indexes that it names and that are here.
    pub(super) manifests: Vec<Arc<Given>>,
    /// Whether all that it names is here; of an index, whether all of it goes out as it came.
    complete: bool,
}

impl Given {
    /// Whether it is an image's as it came, with all that it names.
    pub(super) fn is_whole(&self) -> bool {
        self.complete && self.made.is_none()
    }
}

fn unreadable(what: &str, digest: &Sha256) -> impl FnOnce(silo_oci::image::ImageError) -> Error {
    let what = format!("{what} {digest}");
    |source| silo_store::Error::Document { what, source }.into()
}

/// The image with an id, by its own manifest; `None` if it is not here.
pub(super) fn image(view: &View, state: &State, id: &Sha256) -> Result<Option<Arc<Given>>, Error> {
    let Some(descriptor) = state.listing.images.get(id) else { return Ok(None) };
    manifest(view, state, descriptor)
}

/// A manifest that is here; `None` if it is of an image that is not.
fn manifest(
    view: &View,
    state: &State,
    descriptor: &Descriptor,
) -> Result<Option<Arc<Given>>, Error> {
    if let Some(known) = lock(&state.images).get(&descriptor.digest) {
        return Ok(Some(Arc::clone(known)));
    }
    let bytes = view.document(&descriptor.digest)?;
    let parsed = Manifest::parse(&bytes).map_err(unreadable("manifest", &descriptor.digest))?;
    let id = parsed.config.digest;
    let given = match state.listing.images.get(&id) {
        Some(image) => of_image(view, state, image, descriptor, bytes, parsed)?,
        None if parsed.is_image() => return Ok(None),
        None => match of_artifact(view, descriptor, &bytes, &parsed) {
            Some(given) => given,
            None => return Ok(None),
        },
    };
    let given = Arc::new(given);
    lock(&state.images).insert(descriptor.digest, Arc::clone(&given));
    Ok(Some(given))
}

/// What is no image, if all of it is here.
fn of_artifact(
    view: &View,
    descriptor: &Descriptor,
    bytes: &[u8],
    manifest: &Manifest,
) -> Option<Given> {
    let blobs: Vec<_> = std::iter::once(&manifest.config).chain(&manifest.layers).collect();
    blobs.iter().all(|blob| view.has_blob(&blob.digest)).then(|| Given {
        digest: descriptor.digest,
        media_type: kind(&manifest.media_type, descriptor),
        size: bytes.len() as u64,
        image: None,
        made: None,
        blobs: blobs.iter().map(|blob| (blob.digest, None)).collect(),
        manifests: Vec::new(),
        complete: true,
    })
}

/// The type of a document: what it says itself, or what is said of it.
fn kind(own: &str, descriptor: &Descriptor) -> String {
    if own.is_empty() { descriptor.media_type.clone() } else { own.to_owned() }
}

/// A manifest of an image.
fn of_image(
    view: &View,
    state: &State,
    image: &Descriptor,
    descriptor: &Descriptor,
    bytes: Vec<u8>,
    mut manifest: Manifest,
) -> Result<Given, Error> {
    let id = manifest.config.digest;
    let config = ImageConfig::parse(&view.document(&id)?).map_err(unreadable("image", &id))?;
    let mut blobs = vec![(id, None)];
    let (mut complete, mut changed) = (true, false);
    let chain = view.chain(image, &config);
    let pairs = config.rootfs.diff_ids.iter().zip(chain);
    for (layer, (diff_id, chain)) in manifest.layers.iter_mut().zip(pairs) {
        let compressed = layer.digest != *diff_id;
        if compressed && view.has_blob(&layer.digest) {
            blobs.push((layer.digest, None));
            continue;
        }
        let mut found = chain.and_then(|chain| view.layer(&chain, diff_id));
        if found.is_none() && layer.urls.is_empty() {
            // Something stands in for it, or it is going just now: another image may have it.
            found = elsewhere(view, state, diff_id)?.and_then(|chain| view.layer(&chain, diff_id));
        }
        if found.is_none() && !compressed && view.has_blob(&layer.digest) {
            blobs.push((layer.digest, None));
            continue;
        }
        let Some(found) = found.filter(|_| !compressed || layer.urls.is_empty()) else {
            complete = false;
            continue;
        };
        if compressed {
            // Only unpacked; what stands in for it has another digest.
            *layer = Descriptor {
                annotations: std::mem::take(&mut layer.annotations),
                ..Descriptor::new(media::OCI_LAYER, *diff_id, found.tar_size)
            };
            changed = true;
        }
        blobs.push((*diff_id, Some((found.chain_id, *diff_id))));
    }
    let media_type = kind(&manifest.media_type, descriptor);
    let mut given = Given {
        digest: descriptor.digest,
        media_type,
        size: bytes.len() as u64,
        image: Some(id),
        made: None,
        blobs,
        manifests: Vec::new(),
        complete,
    };
    if changed {
        manifest.media_type.clone_from(&given.media_type);
        if manifest.media_type == media::DOCKER_MANIFEST {
            for layer in &mut manifest.layers {
                if layer.media_type == media::OCI_LAYER {
                    media::DOCKER_LAYER.clone_into(&mut layer.media_type);
                }
            }
        }
        given = Given { complete, ..made(&manifest, &given.media_type, given.blobs, Vec::new()) };
    }
    Ok(given)
}

/// A layer of any image, by the digest of its tar.
fn elsewhere(view: &View, state: &State, diff_id: &Sha256) -> Result<Option<Sha256>, Error> {
    if state.layers.get().is_none() {
        state.layers.set(view.layers()?).ok();
    }
    Ok(state.layers.get().and_then(|layers| layers.get(diff_id)).copied())
}

/// A document that the engine does not have.
fn made(
    document: &impl serde::Serialize,
    media_type: &str,
    blobs: Vec<(Sha256, Option<(Sha256, Sha256)>)>,
    manifests: Vec<Arc<Given>>,
) -> Given {
    let bytes = to_bytes(document);
    Given {
        digest: digest(&bytes),
        media_type: media_type.to_owned(),
        size: bytes.len() as u64,
        image: None,
        made: Some(bytes),
        blobs,
        manifests,
        complete: true,
    }
}

/// What an index names, and what of it is here.
struct Walk {
    /// Images and artifacts, also of indexes within, as they are named and as they go out.
    leaves: Vec<(Descriptor, Option<Arc<Given>>)>,
    /// The index as it came, with what of it is here.
    index: Arc<Given>,
}

fn walk(
    view: &View,
    state: &State,
    descriptor: &Descriptor,
    depth: usize,
    left: &mut usize,
) -> Result<Walk, Error> {
    let bytes = view.document(&descriptor.digest)?;
    let parsed = Index::parse(&bytes).map_err(unreadable("index", &descriptor.digest))?;
    let mut leaves = Vec::new();
    let mut manifests = Vec::new();
    let mut complete = true;
    for entry in &parsed.manifests {
        let within = *left > 0;
        *left = left.saturating_sub(1);
        let given = if !within || !view.has_blob(&entry.digest) {
            None
        } else if media::is_index(&entry.media_type) {
            if depth >= MAX_DEPTH {
                None
            } else {
                let inner = walk(view, state, entry, depth + 1, left)?;
                leaves.extend(inner.leaves);
                complete &= inner.index.complete;
                manifests.push(inner.index);
                continue;
            }
        } else {
            manifest(view, state, entry)?
        };
        match &given {
            Some(given) if given.digest == entry.digest => manifests.push(Arc::clone(given)),
            _ => complete = false,
        }
        leaves.push((entry.clone(), given));
    }
    let index = Given {
        digest: descriptor.digest,
        media_type: kind(&parsed.media_type, descriptor),
        size: bytes.len() as u64,
        image: None,
        made: None,
        blobs: Vec::new(),
        manifests,
        complete,
    };
    Ok(Walk { leaves, index: Arc::new(index) })
}

/// What goes out of an index.
#[derive(Debug, Default)]
pub(super) struct Forms {
    /// Under a tag, if not only an image of it does.
    pub(super) tagged: Option<Arc<Given>>,
    /// As it came, if an image that it names is here as it came.
    pub(super) own: Option<Arc<Given>>,
}

/// An index; nothing of one that is not here.
pub(super) fn index(view: &View, state: &State, id: &Sha256) -> Result<Forms, Error> {
    let Some(descriptor) = state.listing.indexes.get(id) else { return Ok(Forms::default()) };
    let mut left = MAX_ENTRIES;
    let Walk { leaves, index } = walk(view, state, descriptor, 1, &mut left)?;
    let here = |(named, given): &(Descriptor, Option<Arc<Given>>)| {
        given.as_ref().is_some_and(|given| given.digest == named.digest)
    };
    let own = leaves.iter().any(here).then(|| Arc::clone(&index));
    if index.complete && left > 0 {
        return Ok(Forms { tagged: own.clone(), own });
    }
    let mut entries = Vec::new();
    let mut manifests = Vec::new();
    for (descriptor, given) in leaves {
        // What is said about an image need not hold for what goes out in its place.
        let is_said = descriptor.platform.as_ref().is_some_and(|it| it.os == "unknown");
        let Some(given) = given.filter(|_| !is_said) else { continue };
        let Descriptor { annotations, platform, artifact_type, .. } = descriptor;
        let named = Descriptor::new(&given.media_type, given.digest, given.size);
        entries.push(Descriptor { annotations, platform, artifact_type, ..named });
        manifests.push(given);
    }
    if entries.len() < 2 {
        return Ok(Forms { tagged: None, own });
    }
    let list = Index {
        schema_version: 2,
        media_type: index.media_type.clone(),
        manifests: entries,
        annotations: BTreeMap::new(),
    };
    let tagged = Some(Arc::new(made(&list, &index.media_type, Vec::new(), manifests)));
    Ok(Forms { tagged, own })
}
