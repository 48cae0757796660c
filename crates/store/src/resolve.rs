//! From the members of an archive to images: manifests are read, layers get their places.

use std::collections::{BTreeMap, HashMap, HashSet};

use serde::Deserialize;
use silo_oci::attest::attests;
use silo_oci::image::{
    Descriptor, Document, ImageConfig, ImageError, Index, Manifest, digest, media,
};
use silo_oci::platform::Platform;
use silo_types::Digest;

use crate::image::NewImage;
use crate::layer::NewLayer;
use crate::load::{Links, join};
use crate::store::StagedBlob;
use crate::{Error, Lease, Loaded, LoadedImage, LoadedIndex, Store};

/// How deep indexes may lie in each other.
const MAX_DEPTH: usize = 8;
/// How many manifests of an archive are looked at.
const MAX_MANIFESTS: usize = 4096;

/// What an archive holds.
#[derive(Default)]
pub(crate) struct Found {
    pub(crate) parts: HashMap<Vec<u8>, Part>,
    pub(crate) links: Links,
    /// Unpacked layers by the digest of their tar.
    pub(crate) layers: HashMap<Digest, NewLayer>,
    /// Compressed layers that are to be kept.
    pub(crate) blobs: Vec<StagedBlob>,
}

/// One member.
pub(crate) enum Part {
    /// JSON, presumably.
    Document(Vec<u8>),
    /// An unpacked layer, by the digest of its tar.
    Layer(Digest),
    /// A layer, compressed or not, that the store has already.
    Known,
    /// A layer, or something else, that could not be unpacked.
    Failed(Error),
}

/// An image of `manifest.json`.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Item {
    config: String,
    #[serde(default)]
    repo_tags: Option<Vec<String>>,
    #[serde(default)]
    layers: Option<Vec<String>>,
}

/// An image to be made: configuration, manifest, names.
struct Wanted {
    config_bytes: Vec<u8>,
    config: ImageConfig,
    manifest: Option<(Vec<u8>, String)>,
    names: Vec<String>,
}

/// An index to be recorded.
struct WantedIndex {
    bytes: Vec<u8>,
    media_type: String,
    documents: Vec<Vec<u8>>,
    names: Vec<String>,
}

pub(crate) fn resolve(store: &Store, found: Found, lease: Lease) -> Result<Loaded, Error> {
    let (mut parts, links) = (found.parts, found.links);
    let mut wanted: Vec<Wanted> = Vec::new();
    let mut indexes: Vec<WantedIndex> = Vec::new();
    let docker = document(&parts, &links, b"manifest.json").map(<[u8]>::to_vec);
    let oci = document(&parts, &links, b"index.json").map(<[u8]>::to_vec);
    if docker.is_none() && oci.is_none() {
        let text = "it has neither manifest.json nor index.json".to_owned();
        return Err(Error::InvalidArchive(text));
    }
    if let Some(bytes) = docker {
        let items: Vec<Item> = serde_json::from_slice(&bytes)
            .map_err(|source| Error::Json { what: "manifest.json".into(), source })?;
        if items.len() > MAX_MANIFESTS {
            return Err(Error::InvalidArchive("manifest.json lists too many images".into()));
        }
        for item in items {
            wanted.push(docker_image(item, &mut parts, &links)?);
        }
    }
    if let Some(bytes) = oci {
        let index = Index::parse(&bytes).map_err(refused("index.json"))?;
        let mut walk =
            Walk { parts: &mut parts, wanted: &mut wanted, seen: 0, documents: Vec::new() };
        for descriptor in &index.manifests {
            walk.documents.clear();
            let images = walk.descriptor(descriptor, 0)?;
            let names = walk.name(&images, descriptor);
            let own = document(walk.parts, &links, &blob_path(&descriptor.digest));
            if let Some(bytes) = own.filter(|bytes| !images.is_empty() && is_index(bytes)) {
                indexes.push(WantedIndex {
                    bytes: bytes.to_vec(),
                    media_type: descriptor.media_type.clone(),
                    documents: std::mem::take(&mut walk.documents),
                    names,
                });
            }
        }
    }
    if wanted.is_empty() {
        return Err(Error::InvalidArchive("it has no image".into()));
    }
    let mut loaded = place(store, wanted, found.layers, found.blobs, lease)?;
    for wanted in indexes {
        let WantedIndex { bytes, media_type, documents, names } = wanted;
        let index = store.record_index(&bytes, &media_type, &documents, &loaded.lease)?;
        loaded.indexes.push(LoadedIndex { index, names });
    }
    Ok(loaded)
}

fn is_index(bytes: &[u8]) -> bool {
    matches!(Document::parse(bytes, ""), Ok(Document::Index(_)))
}

fn refused(what: impl Into<String>) -> impl FnOnce(ImageError) -> Error {
    let what = what.into();
    move |source| Error::Document { what, source }
}

/// A member by its path, links followed.
fn follow<'a>(links: &'a Links, path: &'a [u8]) -> &'a [u8] {
    let mut path = path;
    for _ in 0..8 {
        match links.get(path) {
            Some(target) => path = target,
            None => break,
        }
    }
    path
}

fn document<'a>(parts: &'a HashMap<Vec<u8>, Part>, links: &Links, path: &[u8]) -> Option<&'a [u8]> {
    match parts.get(follow(links, path)) {
        Some(Part::Document(bytes)) => Some(bytes),
        _ => None,
    }
}

fn blob_path(digest: &Digest) -> Vec<u8> {
    format!("blobs/sha256/{}", digest.hex()).into_bytes()
}

/// An image of `manifest.json`, whose layers must be those that its configuration names.
fn docker_image(
    item: Item,
    parts: &mut HashMap<Vec<u8>, Part>,
    links: &Links,
) -> Result<Wanted, Error> {
    let lookup = |path: &str| crate::extract::clean(path.as_bytes()).unwrap_or_default();
    let Some(bytes) = document(parts, links, &lookup(&item.config)) else {
        let text = format!("image configuration {:?} is missing", item.config);
        return Err(Error::InvalidArchive(text));
    };
    let config_bytes = bytes.to_vec();
    let config = ImageConfig::parse(&config_bytes).map_err(refused(item.config.as_str()))?;
    let layers = item.layers.unwrap_or_default();
    let diff_ids = &config.rootfs.diff_ids;
    if layers.len() != diff_ids.len() {
        // docker wording
        let text = format!(
            "invalid manifest, layers length mismatch: expected {}, got {}",
            layers.len(),
            diff_ids.len()
        );
        return Err(Error::InvalidArchive(text));
    }
    for (path, diff_id) in layers.iter().zip(diff_ids) {
        let cleaned = lookup(path);
        let key = follow(links, &cleaned);
        match parts.get(key) {
            Some(Part::Layer(found)) if found == diff_id => {}
            Some(Part::Layer(found)) => {
                let what = format!("layer {path:?}");
                return Err(Error::DigestMismatch { what, expected: *diff_id, actual: *found });
            }
            // That its tar has the right digest is checked when the layer is placed.
            Some(Part::Known) => {}
            Some(Part::Failed(_)) => {
                if let Some(Part::Failed(error)) = parts.remove(key) {
                    return Err(error);
                }
            }
            Some(Part::Document(_)) | None => {
                return Err(Error::InvalidArchive(format!("layer {path:?} is missing")));
            }
        }
    }
    let mut names = item.repo_tags.unwrap_or_default();
    let mut seen = HashSet::new();
    names.retain(|name| seen.insert(name.clone()));
    Ok(Wanted { config_bytes, config, manifest: None, names })
}

/// Reads the index of an OCI layout.
struct Walk<'a> {
    parts: &'a mut HashMap<Vec<u8>, Part>,
    wanted: &'a mut Vec<Wanted>,
    seen: usize,
    /// Indexes and manifests of images that the present descriptor leads to.
    documents: Vec<Vec<u8>>,
}

impl Walk<'_> {
    /// The images, as places in `wanted`, that a descriptor leads to and the archive has.
    fn descriptor(&mut self, descriptor: &Descriptor, depth: usize) -> Result<Vec<usize>, Error> {
        self.seen += 1;
        if depth > MAX_DEPTH || self.seen > MAX_MANIFESTS {
            return Err(Error::InvalidArchive("its indexes are too deep or too many".into()));
        }
        // An archive need not have what other platforms than its own need.
        let Some(Part::Document(bytes)) = self.parts.get(&blob_path(&descriptor.digest)) else {
            return Ok(Vec::new());
        };
        let bytes = bytes.clone();
        let what = descriptor.digest.to_string();
        match Document::parse(&bytes, &descriptor.media_type).map_err(refused(what))? {
            Document::Index(index) => {
                let mut images = Vec::new();
                for descriptor in &index.manifests {
                    images.append(&mut self.descriptor(descriptor, depth + 1)?);
                }
                self.documents.push(bytes);
                Ok(images)
            }
            Document::Manifest(manifest) => {
                let image = self.manifest(&manifest, bytes.clone(), descriptor)?;
                if image.is_some() {
                    self.documents.push(bytes);
                } else if attests(descriptor).is_some() {
                    for part in std::iter::once(&manifest.config).chain(&manifest.layers) {
                        let part = self.parts.get(&blob_path(&part.digest));
                        if let Some(Part::Document(part)) = part {
                            self.documents.push(part.clone());
                        }
                    }
                    self.documents.push(bytes);
                }
                Ok(image.into_iter().collect())
            }
        }
    }

    fn manifest(
        &mut self,
        manifest: &Manifest,
        bytes: Vec<u8>,
        descriptor: &Descriptor,
    ) -> Result<Option<usize>, Error> {
        let attestation =
            descriptor.platform.as_ref().is_some_and(|platform| platform.os == "unknown");
        if !manifest.is_image() || attestation {
            return Ok(None);
        }
        let media_type = match (manifest.media_type.as_str(), descriptor.media_type.as_str()) {
            ("", "") => media::OCI_MANIFEST,
            ("", said) => said,
            (own, _) => own,
        };
        let manifest_bytes = (bytes, media_type.to_owned());
        let known = |wanted: &Wanted| digest(&wanted.config_bytes) == manifest.config.digest;
        if let Some(index) = self.wanted.iter().position(known) {
            self.wanted[index].manifest.get_or_insert(manifest_bytes);
            return Ok(Some(index));
        }
        let Some(Part::Document(config)) = self.parts.get(&blob_path(&manifest.config.digest))
        else {
            return Ok(None);
        };
        let config_bytes = config.clone();
        let config = ImageConfig::parse(&config_bytes)
            .map_err(refused(manifest.config.digest.to_string()))?;
        if config.rootfs.diff_ids.len() != manifest.layers.len() {
            let text = format!("manifest {} and its configuration disagree", descriptor.digest);
            return Err(Error::InvalidArchive(text));
        }
        for (layer, diff_id) in manifest.layers.iter().zip(&config.rootfs.diff_ids) {
            let key = blob_path(&layer.digest);
            match self.parts.get(&key) {
                Some(Part::Layer(found)) if found != diff_id => {
                    let what = format!("the tar of layer {}", layer.digest);
                    return Err(Error::DigestMismatch { what, expected: *diff_id, actual: *found });
                }
                Some(Part::Layer(_) | Part::Known) => {}
                Some(Part::Failed(_)) => {
                    if let Some(Part::Failed(error)) = self.parts.remove(&key) {
                        return Err(error);
                    }
                }
                // The layers of another platform, or foreign ones.
                Some(Part::Document(_)) | None => return Ok(None),
            }
        }
        let names = Vec::new();
        let manifest = Some(manifest_bytes);
        self.wanted.push(Wanted { config_bytes, config, manifest, names });
        Ok(Some(self.wanted.len() - 1))
    }

    /// Gives the best of several images for this host the name that a descriptor has, and tells
    /// it.
    fn name(&mut self, images: &[usize], descriptor: &Descriptor) -> Vec<String> {
        let annotation = |key: &str| descriptor.annotations.get(key).cloned();
        let name = annotation("io.containerd.image.name").or_else(|| {
            annotation("org.opencontainers.image.ref.name")
                .filter(|name| name.contains([':', '/', '@']))
        });
        let platforms: Vec<Platform> =
            images.iter().map(|index| self.wanted[*index].config.platform()).collect();
        let best = Platform::host().best(platforms.iter().map(Some)).unwrap_or(0);
        if let (Some(name), Some(index)) = (name, images.get(best)) {
            let names = &mut self.wanted[*index].names;
            let familiar = name.strip_prefix("docker.io/").unwrap_or(&name);
            let familiar = familiar.strip_prefix("library/").unwrap_or(familiar);
            if !names.iter().any(|known| *known == name || known == familiar) {
                names.push(name.clone());
            }
            return vec![name];
        }
        Vec::new()
    }
}

/// Gives layers and blobs their places, and records the images.
fn place(
    store: &Store,
    wanted: Vec<Wanted>,
    mut layers: HashMap<Digest, NewLayer>,
    blobs: Vec<StagedBlob>,
    lease: Lease,
) -> Result<Loaded, Error> {
    // Which layer goes where; a tar that is needed in two places is unpacked once more.
    let mut places: BTreeMap<(usize, Digest), (Option<Digest>, Digest)> = BTreeMap::new();
    for image in &wanted {
        let mut parent = None;
        let pairs = image.config.chain_ids().into_iter().zip(&image.config.rootfs.diff_ids);
        for (depth, (chain, diff_id)) in pairs.enumerate() {
            lease.hold(chain);
            if store.layer(&chain).is_err() {
                places.insert((depth, chain), (parent, *diff_id));
            }
            parent = Some(chain);
        }
    }
    // Which compressed blobs are known to hold which tar.
    let known = store.layers();
    let pairs = known.iter().map(|layer| (layer.blob.as_ref(), layer.diff_id));
    let pairs = pairs.chain(layers.values().map(|layer| (layer.blob.as_ref(), layer.diff_id)));
    let compressed: HashMap<Digest, Digest> =
        pairs.filter_map(|(blob, diff_id)| Some((blob?.digest, diff_id))).collect();
    let mut needed: HashMap<Digest, usize> = HashMap::new();
    for (_, diff_id) in places.values() {
        *needed.entry(*diff_id).or_default() += 1;
    }
    let mut copies: Vec<NewLayer> = Vec::new();
    for (diff_id, count) in needed {
        let have = usize::from(layers.contains_key(&diff_id));
        for _ in have..count {
            copies.push(copy(store, &diff_id, layers.get(&diff_id), &blobs)?);
        }
    }
    for blob in blobs {
        lease.hold(blob.digest);
        store.place_blob(blob)?;
    }
    for ((_, _), (parent, diff_id)) in places {
        let copied = copies.iter().position(|layer| layer.diff_id == diff_id);
        let layer = match copied {
            Some(index) => Some(copies.swap_remove(index)),
            None => layers.remove(&diff_id),
        };
        let layer = layer.ok_or(Error::NoLayer(diff_id))?;
        store.place_layer(layer, parent.as_ref())?;
    }
    let mut names = Vec::new();
    let mut images = Vec::new();
    for image in wanted {
        let usable =
            image.manifest.filter(|(bytes, _)| usable(store, bytes, &image.config, &compressed));
        names.push(image.names);
        let (config_bytes, config) = (image.config_bytes, image.config);
        images.push(NewImage { config_bytes, config, manifest: usable, stand_in: None });
    }
    let images = store.record_images(images, &lease)?;
    let images = images.into_iter().zip(names);
    let images = images.map(|(image, names)| LoadedImage { id: image.id, names, image }).collect();
    Ok(Loaded { images, indexes: Vec::new(), lease })
}

/// Whether all layers that a manifest names can be given out as it names them.
fn usable(
    store: &Store,
    bytes: &[u8],
    config: &ImageConfig,
    compressed: &HashMap<Digest, Digest>,
) -> bool {
    let holds = |blob: &Digest, diff_id: &Digest| {
        compressed.get(blob) == Some(diff_id) && store.has_blob(blob)
    };
    Manifest::parse(bytes).is_ok_and(|manifest| {
        manifest.layers.len() == config.rootfs.diff_ids.len()
            && manifest
                .layers
                .iter()
                .zip(&config.rootfs.diff_ids)
                .all(|(layer, diff_id)| layer.digest == *diff_id || holds(&layer.digest, diff_id))
    })
}

/// Unpacks a tar once more: that of a layer just unpacked, or of one in the store.
fn copy(
    store: &Store,
    diff_id: &Digest,
    fresh: Option<&NewLayer>,
    blobs: &[StagedBlob],
) -> Result<NewLayer, Error> {
    let compression = silo_archive::Compression::None;
    let failed = |error| Error::Stream("cannot copy a layer", error);
    let known = store.layers().into_iter().find(|layer| layer.diff_id == *diff_id);
    let (path, record, blob) = match (fresh, known) {
        (Some(layer), _) => {
            let record = layer.record(None, None);
            let blob = record.blob.as_ref().and_then(|kept| {
                let staged = blobs.iter().find(|blob| blob.digest == kept.digest);
                staged.map(|blob| blob.path.clone())
            });
            (layer.path.clone(), record, blob)
        }
        (None, Some(layer)) => {
            let blob = layer.blob.as_ref().map(|blob| store.blob_path(&blob.digest));
            (store.layer_path(&layer.chain_id), (*layer).clone(), blob)
        }
        (None, None) => {
            let text = format!("the layer with the tar {diff_id} is missing");
            return Err(Error::InvalidArchive(text));
        }
    };
    let (thread, mut writer) = store.unpack_in_thread(compression, record.blob.is_none())?;
    match crate::layer::write_tar(&path, &record, blob.as_deref(), &mut writer) {
        Ok(()) => writer.finish(),
        Err(error) => {
            writer.fail(std::io::Error::other("the source failed"));
            let copied = join(thread);
            // One fails because of the other: whose failure came first is the reason.
            return match (&error, copied) {
                (Error::Stream(_, stream), Err(reason))
                    if stream.kind() == std::io::ErrorKind::BrokenPipe =>
                {
                    Err(reason)
                }
                _ => Err(error),
            };
        }
    }
    let mut layer = join(thread)?;
    layer.blob = record.blob;
    if layer.diff_id != *diff_id {
        return Err(failed(std::io::Error::other("it is not the same any more")));
    }
    Ok(layer)
}
