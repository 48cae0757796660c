//! Docker's archives, of `docker save`: a tar with `manifest.json`.
//!
//! ```text
//! manifest.json   [{"Config": FILE, "RepoTags": [NAME:TAG...], "Layers": [FILE...]}...]
//! ```
//!
//! Newer engines (and this one) make a layout beside it, which is what is read then: it has the
//! digests that the image came with, and all its platforms. Of an archive without one, a layout
//! is made: layers are in it what they are in the archive, for the most part plain tars, which
//! have the digests that the configuration tells.

use std::collections::{HashMap, HashSet};
use std::io::Read;
use std::path::Path;

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use silo_archive::compress::Compression;
use silo_oci::image::{
    Descriptor, Document, ImageConfig, MAX_DOCUMENT, MAX_MANIFESTS, Manifest, digest, media,
    to_bytes,
};
use silo_oci::reference::Reference;
use silo_types::Digest;

use super::archive::{Archive, Place};
use super::layout::{self, blob_name};
use super::naming::{self, EntryName};
use super::{Content, CopyError};
use crate::{Error, platform, types};

/// The file that tells what is in an archive.
pub(super) const MANIFEST: &str = "manifest.json";
/// Bytes that are read at once.
const PIECE: u64 = 256 << 10;

#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Item {
    config: String,
    #[serde(default)]
    repo_tags: Option<Vec<String>>,
    #[serde(default)]
    layers: Option<Vec<String>>,
}

/// Makes a layout of an archive that has none.
pub(super) fn adopt(archive: &mut Archive) -> Result<(), CopyError> {
    let path = archive.path().to_owned();
    let wrong = |reason: String| CopyError::Layout { path: path.clone(), reason };
    let bytes = layout::small(&path, MANIFEST, archive.reader(MANIFEST, 0), MAX_DOCUMENT)?;
    let bytes = bytes.ok_or_else(|| wrong(format!("it is no Docker archive: no {MANIFEST}")))?;
    let items: Vec<Item> =
        serde_json::from_slice(&bytes).map_err(|error| wrong(format!("{MANIFEST}: {error}")))?;
    if items.len() > MAX_MANIFESTS {
        return Err(CopyError::TooMany);
    }
    let mut index = naming::new_index();
    let mut known = HashMap::new();
    let (mut documents, mut names) = (0, 0);
    for item in items {
        let image = image(archive, &item, &mut known)?;
        let manifest = to_bytes(&image);
        let size = manifest.len() as u64;
        documents += size + image.config.size;
        names += item.repo_tags.as_ref().map_or(0, Vec::len);
        if documents > super::MAX_DOCUMENTS as u64 || names > MAX_MANIFESTS {
            return Err(CopyError::TooMany);
        }
        let descriptor = Descriptor::new(media::OCI_MANIFEST, digest(&manifest), size);
        archive.add(&blob_name(&descriptor.digest), Place::Made(manifest.into()));
        let names = item.repo_tags.unwrap_or_default();
        if names.is_empty() {
            naming::put_entry(&mut index, &descriptor, None);
        }
        for name in names {
            let reference = Reference::parse_normalized(&name)
                .map_err(|error| wrong(format!("{MANIFEST}: {name:?}: {error}")))?;
            naming::put_entry(&mut index, &descriptor, EntryName::of(&reference).as_ref());
        }
    }
    archive.add(layout::INDEX, Place::Made(index.to_string().into()));
    archive.add(layout::LAYOUT, Place::Made(layout::LAYOUT_TEXT.into()));
    Ok(())
}

fn image(
    archive: &mut Archive,
    item: &Item,
    known: &mut HashMap<Place, Digest>,
) -> Result<Manifest, CopyError> {
    let path = archive.path().to_owned();
    let wrong = |reason: String| CopyError::Layout { path: path.clone(), reason };
    let absent = |name: &str| wrong(format!("it has no {name}, which {MANIFEST} names"));
    let place = archive.place(&item.config).ok_or_else(|| absent(&item.config))?;
    let reader = archive.reader(&item.config, 0);
    let bytes = layout::small(&path, &item.config, reader, MAX_DOCUMENT)?.unwrap_or_default();
    let config = Descriptor::new(media::OCI_CONFIG, digest(&bytes), bytes.len() as u64);
    archive.add(&blob_name(&config.digest), place);
    let parsed = ImageConfig::parse(&bytes).map_err(|source| Error::Document {
        what: format!("configuration {}", item.config),
        source,
    })?;
    let names = item.layers.as_deref().unwrap_or_default();
    let diff_ids = &parsed.rootfs.diff_ids;
    if names.len() != diff_ids.len() {
        let (have, said) = (names.len(), diff_ids.len());
        return Err(wrong(format!("{have} layers, but {} has {said}", item.config)));
    }
    let mut layers = Vec::new();
    for (name, diff_id) in names.iter().zip(diff_ids) {
        let place = archive.place(name).ok_or_else(|| absent(name))?;
        let Some((mut reader, size)) = archive.reader(name, 0) else { return Err(absent(name)) };
        let mut start = Vec::new();
        (&mut reader).take(8).read_to_end(&mut start).map_err(CopyError::io("read", &path))?;
        let compression = Compression::sniff(&start);
        if !matches!(compression, Compression::None | Compression::Gzip | Compression::Zstd) {
            return Err(wrong(format!("{name} is a layer in a compression that images have not")));
        }
        // What is a plain tar has the digest of the configuration, or is refused later.
        let digest = match known.get(&place) {
            _ if compression == Compression::None => *diff_id,
            Some(digest) => *digest,
            None => hash(start, reader).map_err(CopyError::io("read", &path))?,
        };
        archive.add(&blob_name(&digest), place.clone());
        if compression != Compression::None {
            known.insert(place, digest);
        }
        layers.push(Descriptor::new(types::layer_type(compression), digest, size));
    }
    Ok(Manifest {
        schema_version: 2,
        media_type: media::OCI_MANIFEST.to_owned(),
        artifact_type: String::new(),
        config,
        layers,
        subject: None,
        annotations: std::collections::BTreeMap::new(),
    })
}

/// The digest of what begins with `piece`.
fn hash(mut piece: Vec<u8>, mut rest: impl Read) -> std::io::Result<Digest> {
    let mut hash = Sha256::new();
    while !piece.is_empty() {
        hash.update(&piece);
        piece.clear();
        (&mut rest).take(PIECE).read_to_end(&mut piece)?;
    }
    Ok(Digest::from_sha256(hash.finalize().into()))
}

/// What `manifest.json` of an archive that is being written will say.
#[derive(Debug, Default)]
pub(super) struct Items {
    documents: HashMap<Digest, Document>,
    /// What has been given a name, or none.
    roots: Vec<(Digest, Option<String>)>,
}

impl Items {
    /// A document is in the archive.
    pub(super) fn add(&mut self, content: &Content) -> Result<(), CopyError> {
        self.documents.insert(content.descriptor.digest, super::read(content)?);
        Ok(())
    }

    /// A document has a name that `docker load` is to give it.
    pub(super) fn name(&mut self, root: &Digest, reference: Option<&Reference>) {
        self.roots.push((*root, reference.map(Reference::familiar)));
    }

    /// The image that `docker load` takes for a document: of several platforms this host's.
    fn image(&self, root: &Digest) -> Option<&Manifest> {
        let found = match self.documents.get(root)? {
            Document::Manifest(manifest) => Some(manifest),
            Document::Index(index) => {
                let of = |digest: &Digest| match self.documents.get(digest) {
                    Some(Document::Manifest(manifest)) => Some(manifest),
                    _ => None,
                };
                match platform::choose(index, None, u32::MAX) {
                    Ok(entry) => of(&entry.digest),
                    Err(_) => index.manifests.iter().find_map(|entry| of(&entry.digest)),
                }
            }
        };
        found.filter(|manifest| manifest.is_image())
    }

    /// `manifest.json` of an archive that has these blobs.
    pub(super) fn to_json(
        &self,
        have: &HashSet<Digest>,
        path: &Path,
    ) -> Result<Vec<u8>, CopyError> {
        let mut items: Vec<Item> = Vec::new();
        for (root, name) in &self.roots {
            let Some(manifest) = self.image(root) else { continue };
            if let Some(layer) = manifest.layers.iter().find(|layer| !have.contains(&layer.digest))
            {
                let reason = format!(
                    "the layer {} is elsewhere, as in images of Windows, which a Docker archive \
                     has no words for; use oci-archive:",
                    layer.digest
                );
                return Err(CopyError::Layout { path: path.to_owned(), reason });
            }
            let config = blob_name(&manifest.config.digest);
            let name = name.clone();
            if let Some(item) = items.iter_mut().find(|item| item.config == config) {
                item.repo_tags.get_or_insert_default().extend(name);
                continue;
            }
            let layers = manifest.layers.iter().map(|layer| blob_name(&layer.digest)).collect();
            let repo_tags = Some(name.into_iter().collect());
            items.push(Item { config, repo_tags, layers: Some(layers) });
        }
        Ok(to_bytes(&items))
    }
}
