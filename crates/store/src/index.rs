//! Indexes: documents that name the images of one thing for several platforms.
//!
//! The document is kept as it came, with the manifests of those of its images that are in the
//! store. Which these are is not written down: an image is there if its manifest's blob is, and
//! an image with the configuration that the manifest names.

use std::collections::HashSet;

use silo_oci::attest::{self, Attached};
use silo_oci::image::{Descriptor, Index, MAX_DOCUMENT, Manifest, digest, media, to_bytes};
use silo_types::Digest;

use crate::lease::lock;
use crate::store::State;
use crate::{Error, Image, ImageIndex, IndexEntry, Lease, Store};

/// Annotation of an index in the store's own: that it is one, and where it comes from.
const KIND: &str = "io.silo.index";
/// It came from elsewhere.
const CAME: &str = "1";
/// It was made here, and what it says of its images with it.
const MADE: &str = "made";
/// How deep indexes may lie in each other.
const MAX_DEPTH: usize = 4;
/// How many entries of indexes within each other are looked at.
const MAX_ENTRIES: usize = 4096;
/// How many blobs one attestation may have.
const MAX_PARTS: usize = 256;

/// Gives what is said of an image of an index that is made, by its place and its manifest.
pub type Attach<'a> = dyn Fn(usize, &Descriptor) -> Option<Attached> + 'a;

/// Adds entries for what is said of images behind these.
pub(crate) fn attached(manifests: &mut Vec<Descriptor>, attach: &Attach<'_>) -> Vec<Attached> {
    let places = manifests.iter().enumerate();
    let said: Vec<Attached> = places.filter_map(|(at, image)| attach(at, image)).collect();
    manifests.extend(said.iter().map(|said| said.descriptor.clone()));
    said
}

/// Is this descriptor of `content/index.json` one of an index?
pub(crate) fn is_index(descriptor: &Descriptor) -> bool {
    descriptor.annotations.contains_key(KIND)
}

impl Store {
    /// Records an index. `documents` are manifests of its images, indexes within it, and what it
    /// says of its images, as far as the store may not have them yet; what the index does not lead
    /// to is not kept.
    pub fn record_index(
        &self,
        bytes: &[u8],
        media_type: &str,
        documents: &[Vec<u8>],
        lease: &Lease,
    ) -> Result<ImageIndex, Error> {
        self.record(bytes, media_type, documents, CAME, lease)
    }

    fn record(
        &self,
        bytes: &[u8],
        media_type: &str,
        documents: &[Vec<u8>],
        origin: &str,
        lease: &Lease,
    ) -> Result<ImageIndex, Error> {
        let parsed = Index::parse(bytes).map_err(|source| Error::Document {
            what: format!("index {}", digest(bytes)),
            source,
        })?;
        for bytes in documents.iter().map(Vec::as_slice).chain([bytes]) {
            lease.hold(digest(bytes));
            self.put_blob(bytes)?;
        }
        // Only types that are known: it is a header of requests later.
        let said = [parsed.media_type.as_str(), media_type];
        let media_type =
            said.into_iter().find(|said| media::is_index(said)).unwrap_or(media::OCI_INDEX);
        let mut descriptor = Descriptor::new(media_type, digest(bytes), bytes.len() as u64);
        descriptor.annotations.insert(KIND.to_owned(), origin.to_owned());
        let index = self.look_into(descriptor, &parsed);
        for document in &index.documents {
            lease.hold(*document);
        }
        let mut state = lock(&self.inner.state);
        let known = state.indexes.insert(index.descriptor.digest, index.clone());
        if known.is_none()
            && let Err(error) = self.write_index(&mut state)
        {
            state.indexes.remove(&index.descriptor.digest);
            return Err(error);
        }
        Ok(index)
    }

    /// Makes an index of images of several platforms, with the manifests that they have, and
    /// records it. `attach` gives what is said of an image, by its place and its manifest.
    pub fn make_index(
        &self,
        ids: &[Digest],
        attach: &Attach<'_>,
        lease: &Lease,
    ) -> Result<ImageIndex, Error> {
        let images = ids.iter().map(|id| self.image(id)).collect::<Result<Vec<_>, _>>()?;
        let mut manifests: Vec<Descriptor> = images.iter().map(plain_descriptor).collect();
        let mut documents = Vec::new();
        for said in attached(&mut manifests, attach) {
            documents.extend(said.documents());
        }
        let bytes = to_bytes(&list(manifests));
        self.record(&bytes, media::OCI_INDEX, &documents, MADE, lease)
    }

    /// One index, with what of it is in the store.
    pub fn index(&self, digest: &Digest) -> Result<ImageIndex, Error> {
        lock(&self.inner.state).indexes.get(digest).cloned().ok_or(Error::NoBlob(*digest))
    }

    /// Forgets all indexes but those that `keep` gives and those that are held. Their blobs stay
    /// until they are collected. `keep` is called as [`Store::collect`] does.
    pub fn retain_indexes(&self, keep: impl FnOnce() -> HashSet<Digest>) -> Result<(), Error> {
        let mut state = lock(&self.inner.state);
        let pins = lock(&self.inner.pins);
        let keep = keep();
        let before = state.indexes.len();
        state.indexes.retain(|digest, _| keep.contains(digest) || pins.contains_key(digest));
        drop(pins);
        if state.indexes.len() == before { Ok(()) } else { self.write_index(&mut state) }
    }

    /// Reads an index when the store is opened.
    pub(crate) fn recover_index(&self, descriptor: Descriptor) -> Result<ImageIndex, Error> {
        let bytes = self.read_checked(&descriptor.digest)?;
        let what = || format!("index {}", descriptor.digest);
        let parsed =
            Index::parse(&bytes).map_err(|source| Error::Document { what: what(), source })?;
        Ok(self.look_into(descriptor, &parsed))
    }

    /// Finds what an index leads to.
    fn look_into(&self, descriptor: Descriptor, parsed: &Index) -> ImageIndex {
        let documents = vec![descriptor.digest];
        let mut found =
            ImageIndex { descriptor, entries: Vec::new(), inner: Vec::new(), documents };
        self.walk(parsed, 1, &mut found);
        found
    }

    fn walk(&self, index: &Index, depth: usize, found: &mut ImageIndex) {
        for descriptor in &index.manifests {
            if found.entries.len() >= MAX_ENTRIES || found.documents.len() >= MAX_ENTRIES {
                return;
            }
            let wanted = descriptor.digest;
            let read = || self.has_blob(&wanted).then(|| self.read_checked(&wanted).ok()).flatten();
            if media::is_index(&descriptor.media_type) {
                let inner = (depth < MAX_DEPTH).then(read).flatten();
                if let Some(inner) = inner.and_then(|bytes| Index::parse(&bytes).ok()) {
                    found.documents.push(wanted);
                    found.inner.push(descriptor.clone());
                    self.walk(&inner, depth + 1, found);
                }
                continue;
            }
            if is_attestation(descriptor) {
                let said = read().and_then(|bytes| attest::parse(&bytes).ok());
                let parts = said.map_or_else(Vec::new, |manifest| self.parts_of(manifest));
                if !parts.is_empty() {
                    found.documents.push(wanted);
                    found.documents.extend(parts.iter().map(|part| part.digest));
                }
                let descriptor = descriptor.clone();
                found.entries.push(IndexEntry { descriptor, image: None, parts });
                continue;
            }
            let manifest = read().and_then(|bytes| Manifest::parse(&bytes).ok());
            let manifest = manifest.filter(Manifest::is_image);
            if manifest.is_some() {
                found.documents.push(wanted);
            }
            let image = manifest.map(|manifest| manifest.config.digest);
            let (descriptor, parts) = (descriptor.clone(), Vec::new());
            found.entries.push(IndexEntry { descriptor, image, parts });
        }
    }

    /// What an attestation manifest names, if all of it is here: its configuration first.
    fn parts_of(&self, manifest: Manifest) -> Vec<Descriptor> {
        let parts: Vec<Descriptor> =
            std::iter::once(manifest.config).chain(manifest.layers).collect();
        let is_whole =
            parts.len() <= MAX_PARTS && parts.iter().all(|part| self.has_blob(&part.digest));
        if is_whole { parts } else { Vec::new() }
    }

    /// What is said of an image of an index, as it came; `None` if not all of it is here.
    pub fn attestation(&self, entry: &IndexEntry) -> Result<Option<Attached>, Error> {
        if entry.parts.is_empty() {
            return Ok(None);
        }
        let manifest = self.read_checked(&entry.descriptor.digest)?;
        let read = |part: &Descriptor| {
            let bytes = self.read_blob(&part.digest, attest::MAX_STATEMENTS)?;
            Ok((part.clone(), bytes))
        };
        let blobs = entry.parts.iter().map(read).collect::<Result<_, Error>>()?;
        Ok(Some(Attached { descriptor: entry.descriptor.clone(), manifest, blobs }))
    }

    /// What is said of an image of an index, about the same image as it is packed elsewhere. Only
    /// of an index that was made here: what others have said is not changed.
    pub fn move_attestation(
        &self,
        index: &ImageIndex,
        entry: &IndexEntry,
        target: &Descriptor,
    ) -> Option<Attached> {
        let about = entry.attests().filter(|_| !entry.parts.is_empty())?;
        if index.descriptor.annotations.get(KIND).map(String::as_str) != Some(MADE) {
            return None;
        }
        let bytes = self.read_checked(&entry.descriptor.digest).ok()?;
        let manifest = attest::parse(&bytes).ok()?;
        Attached::moved(&manifest, &about, target, |part| {
            self.read_blob(&part.digest, attest::MAX_STATEMENTS).ok()
        })
    }

    /// The image of an entry, by the manifest that the entry names if the store can give out all
    /// that this names, else by the image's own.
    pub fn image_of_entry(&self, entry: &IndexEntry) -> Result<Image, Error> {
        let id = entry.image.ok_or(Error::NoBlob(entry.descriptor.digest))?;
        let mut image = self.image(&id)?;
        let named = self.read_blob(&entry.descriptor.digest, MAX_DOCUMENT as u64);
        let manifest = named.ok().and_then(|bytes| Manifest::parse(&bytes).ok());
        image.manifest = match manifest.filter(|manifest| self.is_whole(manifest, &image)) {
            Some(manifest) => {
                let mut descriptor = entry.descriptor.clone();
                if !media::is_manifest(&descriptor.media_type) {
                    let own = manifest.media_type;
                    descriptor.media_type =
                        if own.is_empty() { media::OCI_MANIFEST.to_owned() } else { own };
                }
                descriptor
            }
            None => plain_descriptor(&image),
        };
        Ok(image)
    }

    /// Are all layers of a manifest here as it names them?
    fn is_whole(&self, manifest: &Manifest, image: &Image) -> bool {
        let replaced = image.stand_in.as_ref().map_or(&[][..], |stand_in| &stand_in.replaced);
        let mut pairs = manifest.layers.iter().zip(&image.chain).enumerate();
        manifest.layers.len() == image.chain.len()
            && pairs.all(|(at, (descriptor, chain))| {
                // Of a layer that is not here, the manifest's word is all there is.
                if let Some(replaced) = replaced.get(at) {
                    return replaced.blob.digest == descriptor.digest;
                }
                self.layer(chain).is_ok_and(|layer| {
                    let blob = layer.blob.as_ref();
                    let its = blob.is_some_and(|own| own.digest == descriptor.digest);
                    descriptor.digest == layer.diff_id || (its && self.has_blob(&descriptor.digest))
                })
            })
    }
}

/// Forgets the manifests of images that are gone, which say nothing any more.
pub(crate) fn settle(state: &mut State) {
    for index in state.indexes.values_mut() {
        let ImageIndex { entries, documents, .. } = index;
        for entry in entries {
            if entry.image.take_if(|id| !state.images.contains_key(id)).is_some() {
                documents.retain(|digest| *digest != entry.descriptor.digest);
            }
        }
    }
}

/// The blobs that indexes need, but for those of their images.
pub(crate) fn documents(state: &State) -> impl Iterator<Item = Digest> {
    state.indexes.values().flat_map(|index| index.documents.iter().copied())
}

/// An index document.
pub(crate) fn list(manifests: Vec<Descriptor>) -> Index {
    Index {
        schema_version: 2,
        media_type: media::OCI_INDEX.to_owned(),
        manifests,
        annotations: std::collections::BTreeMap::new(),
    }
}

/// An image's own manifest as an entry of an index.
pub(crate) fn plain_descriptor(image: &Image) -> Descriptor {
    let mut descriptor = image.manifest.clone();
    descriptor.annotations.clear();
    descriptor.platform = Some(image.config.platform());
    descriptor
}

/// Is this what is said about an image, and no image?
fn is_attestation(descriptor: &Descriptor) -> bool {
    descriptor.platform.as_ref().is_some_and(|platform| platform.os == "unknown")
}

impl IndexEntry {
    /// Of which image's manifest this is an attestation, if it is one.
    pub fn attests(&self) -> Option<Digest> {
        attest::attests(&self.descriptor)
    }

    /// Is this no image, but something that is said about one?
    pub fn is_attestation(&self) -> bool {
        is_attestation(&self.descriptor)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::io::Cursor;

    use silo_archive::{Entry, EntryKind, Writer};
    use silo_oci::image::{ImageConfig, Manifest};
    use silo_oci::platform::Platform;

    use super::*;
    use crate::{Loaded, SaveImage};

    fn tar(files: &[(String, Vec<u8>)]) -> Vec<u8> {
        let mut writer = Writer::new(Vec::new());
        for (path, data) in files {
            let mut entry = Entry::new(EntryKind::Regular, path.as_str(), 0o644);
            entry.size = data.len() as u64;
            writer.append(&entry, &mut &data[..]).unwrap();
        }
        writer.finish().unwrap()
    }

    fn descriptor(kind: &str, bytes: &[u8]) -> Descriptor {
        Descriptor::new(kind, digest(bytes), bytes.len() as u64)
    }

    /// Blobs of one image: its layer, configuration and manifest, which is the last.
    fn image(platform: &str) -> (Platform, Vec<Vec<u8>>) {
        let platform: Platform = platform.parse().unwrap();
        let layer = tar(&[("for".to_owned(), platform.to_string().into_bytes())]);
        let mut config = ImageConfig {
            os: platform.os.clone(),
            architecture: platform.architecture.clone(),
            ..ImageConfig::default()
        };
        config.rootfs.diff_ids = vec![digest(&layer)];
        let config = config.to_bytes();
        let manifest = to_bytes(&Manifest {
            schema_version: 2,
            media_type: media::OCI_MANIFEST.into(),
            artifact_type: String::new(),
            config: descriptor(media::OCI_CONFIG, &config),
            layers: vec![descriptor(media::OCI_LAYER, &layer)],
            subject: None,
            annotations: BTreeMap::new(),
        });
        (platform, vec![layer, config, manifest])
    }

    /// An index of images, one within another if `nested`, and an archive with those of `there`.
    fn archive(all: &[&str], there: &[&str], nested: bool) -> (Vec<u8>, Digest) {
        let mut blobs = Vec::new();
        let mut entries = Vec::new();
        for name in all {
            let (platform, parts) = image(name);
            let mut entry = descriptor(media::OCI_MANIFEST, &parts[2]);
            entry.platform = Some(platform);
            entries.push(entry);
            if there.contains(name) {
                blobs.extend(parts);
            }
        }
        // Not as this store would write it.
        let mut index = to_bytes(&list(entries));
        index.push(b'\n');
        if nested {
            let outer = to_bytes(&list(vec![descriptor(media::OCI_INDEX, &index)]));
            blobs.push(std::mem::replace(&mut index, outer));
        }
        let mut top = descriptor(media::OCI_INDEX, &index);
        top.annotations.insert("io.containerd.image.name".into(), "docker.io/library/m:1".into());
        let (outer, found) = (to_bytes(&list(vec![top])), digest(&index));
        blobs.push(index);
        let path = |blob: &Vec<u8>| format!("blobs/sha256/{}", digest(blob).hex());
        let mut files: Vec<_> = blobs.into_iter().map(|blob| (path(&blob), blob)).collect();
        files.push(("index.json".to_owned(), outer));
        (tar(&files), found)
    }

    fn load(store: &Store, bytes: &[u8]) -> Loaded {
        store.load(Cursor::new(bytes.to_vec()), &mut |_| {}).unwrap()
    }

    fn there(store: &Store, index: &Digest) -> Vec<bool> {
        let index = store.index(index).unwrap();
        let images = index.entries.iter().map(|entry| store.image_of_entry(entry).is_ok());
        images.collect()
    }

    #[test]
    fn an_index_stays_as_it_came_and_knows_what_is_there() {
        let root = tempfile::tempdir().unwrap();
        let store = Store::open(root.path()).unwrap();
        let all = ["linux/amd64", "linux/arm64", "linux/s390x"];
        let (first, wanted) = archive(&all, &all[..1], false);
        let loaded = load(&store, &first);
        assert_eq!(loaded.indexes.len(), 1);
        assert_eq!(loaded.indexes[0].names, ["docker.io/library/m:1"]);
        assert_eq!(loaded.indexes[0].index.descriptor.digest, wanted);
        assert_eq!(there(&store, &wanted), [true, false, false]);
        // A second image comes beside the first.
        let second = load(&store, &archive(&all, &all[1..2], false).0);
        assert_eq!(there(&store, &wanted), [true, true, false]);
        let ids: HashSet<Digest> =
            loaded.images.iter().chain(&second.images).map(|image| image.id).collect();
        assert_eq!(ids.len(), 2);
        drop((loaded, second));
        // It is there when the store is opened again, and no garbage.
        drop(store);
        let store = Store::open(root.path()).unwrap();
        store.collect(|| ids.clone()).unwrap();
        assert_eq!(there(&store, &wanted), [true, true, false]);

        // What is saved is what came, without what is not here.
        let id = *ids.iter().next().unwrap();
        let names = vec!["m:2".to_owned()];
        let mut saved = Vec::new();
        store.save(&[SaveImage { id, names, index: Some(wanted) }], &mut saved).unwrap();
        let other = tempfile::tempdir().unwrap();
        let again = Store::open(other.path()).unwrap();
        let loaded = load(&again, &saved);
        assert_eq!(loaded.indexes[0].index.descriptor.digest, wanted);
        assert_eq!(there(&again, &wanted), [true, true, false]);

        // An image that goes leaves the index, and takes its manifest with it.
        let one = HashSet::from([id]);
        store.collect(|| one.clone()).unwrap();
        assert_eq!(there(&store, &wanted).iter().filter(|here| **here).count(), 1);
        let manifests = |store: &Store| {
            let entries = store.index(&wanted).unwrap().entries;
            entries.iter().filter(|entry| store.has_blob(&entry.descriptor.digest)).count()
        };
        assert_eq!(manifests(&store), 1);
        // It may come back.
        let back = load(&store, &archive(&all, &all[..2], false).0);
        assert_eq!((there(&store, &wanted), manifests(&store)), (vec![true, true, false], 2));
        drop(back);
        store.collect(|| one.clone()).unwrap();
        drop(store);
        let store = Store::open(root.path()).unwrap();
        assert_eq!(there(&store, &wanted).iter().filter(|here| **here).count(), 1);
        // Without the index, its document goes.
        store.retain_indexes(HashSet::new).unwrap();
        store.collect(|| one.clone()).unwrap();
        assert!(store.index(&wanted).is_err() && !store.has_blob(&wanted));
        assert!(store.image(&id).is_ok());
    }

    #[test]
    fn indexes_within_indexes_and_damaged_ones() {
        let root = tempfile::tempdir().unwrap();
        let store = Store::open(root.path()).unwrap();
        let all = ["linux/amd64", "linux/arm64"];
        let (bytes, wanted) = archive(&all, &all, true);
        let loaded = load(&store, &bytes);
        assert_eq!(there(&store, &wanted), [true, true]);
        let index = store.index(&wanted).unwrap();
        assert_eq!(index.inner.len(), 1);
        let ids: HashSet<Digest> = loaded.images.iter().map(|image| image.id).collect();
        let mut saved = Vec::new();
        let image = SaveImage { id: loaded.images[0].id, names: vec![], index: Some(wanted) };
        store.save(&[image], &mut saved).unwrap();
        drop((loaded, store));
        let other = tempfile::tempdir().unwrap();
        let again = Store::open(other.path()).unwrap();
        load(&again, &saved);
        assert_eq!(there(&again, &wanted), [true, true]);
        // The images of an index that is damaged stay.
        let store = Store::open(root.path()).unwrap();
        let path = store.blob_path(&wanted);
        drop(store);
        fs_err::write(path, b"{}").unwrap();
        let store = Store::open(root.path()).unwrap();
        assert!(store.index(&wanted).is_err());
        assert!(ids.iter().all(|id| store.image(id).is_ok()));
        assert!(!store.has_blob(&wanted));
        // Made here, of images that are there.
        let lease = store.lease();
        let ids: Vec<Digest> = ids.into_iter().collect();
        let made = store.make_index(&ids, &|_, _| None, &lease).unwrap();
        assert_eq!(there(&store, &made.descriptor.digest), [true, true]);
        // While it is held, it is not forgotten.
        store.retain_indexes(HashSet::new).unwrap();
        assert!(store.index(&made.descriptor.digest).is_ok());
        drop(lease);
        store.retain_indexes(HashSet::new).unwrap();
        assert!(store.index(&made.descriptor.digest).is_err());
    }
}
