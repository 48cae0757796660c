//! Names that point to an index of images for several platforms.

use std::collections::BTreeMap;
use std::sync::Arc;

use silo_oci::image::{Descriptor, Index};
use silo_oci::platform::Platform;
use silo_oci::reference::Reference;
use silo_store::{ImageIndex, IndexEntry, Store};
use silo_types::{Digest, Error};

use super::{Entry, Images, Inner};
use crate::db::Db;

/// Does an index lead to an image?
pub(super) fn has(index: &ImageIndex, id: &Digest) -> bool {
    index.entries.iter().any(|entry| entry.image.as_ref() == Some(id))
}

/// The error for an image that is there, but not for this platform.
fn other_platform(name: &str, wanted: &Platform, there: &Index) -> Error {
    // moby wording, with what there is
    Error::not_found(format!(
        "image with reference {name} was found but does not provide the specified platform \
         ({wanted}): there is {}",
        silo_registry::platforms(there)
    ))
}

/// Is an image made for this platform, and not for another that it could stand in for?
pub(super) fn is_for(wanted: &Platform, image: &silo_store::Image) -> bool {
    let (mut wanted, mut own) = (wanted.clone(), image.config.platform());
    wanted.normalize();
    own.normalize();
    wanted.architecture == own.architecture && wanted.matches(&own)
}

/// Images as the entries of an index, with the platforms that they say themselves.
fn document(images: &[Arc<Entry>]) -> Index {
    let describe = |entry: &Arc<Entry>| Descriptor {
        platform: Some(entry.image.config.platform()),
        ..Descriptor::new("", entry.id(), 0)
    };
    Index {
        schema_version: 2,
        media_type: String::new(),
        manifests: images.iter().map(describe).collect(),
        annotations: BTreeMap::new(),
    }
}

impl Inner {
    /// The index that a name points to.
    pub(super) fn index_of(&self, name: &Reference) -> Option<&ImageIndex> {
        self.lists.get(name).and_then(|digest| self.indexes.get(digest))
    }

    /// The images of an index that are here, each once, with their entries.
    pub(super) fn available<'a>(&self, index: &'a ImageIndex) -> Vec<(&'a IndexEntry, Arc<Entry>)> {
        let mut found: Vec<(&IndexEntry, Arc<Entry>)> = Vec::new();
        for entry in &index.entries {
            let Some(image) = entry.image.and_then(|id| self.images.get(&id)) else { continue };
            if !found.iter().any(|(_, known)| known.id() == image.id()) {
                found.push((entry, Arc::clone(image)));
            }
        }
        found
    }

    /// The image of an index for a platform: without one, the best for this host, or the first.
    pub(super) fn choose(
        &self,
        index: &ImageIndex,
        wanted: Option<&Platform>,
    ) -> Option<Arc<Entry>> {
        let images: Vec<_> = self.available(index).into_iter().map(|(_, entry)| entry).collect();
        let best = silo_registry::choose(&document(&images), wanted, self.windows_build)
            .ok()
            .map(|descriptor| descriptor.digest);
        match best {
            Some(id) => self.images.get(&id).cloned(),
            None if wanted.is_none() => images.into_iter().next(),
            None => None,
        }
    }

    /// The image that a manifest or an index is of.
    pub(super) fn by_manifest(&self, digest: &Digest) -> Option<&Arc<Entry>> {
        if let Some(index) = self.indexes.get(digest) {
            let id = self.choose(index, None)?.id();
            return self.images.get(&id);
        }
        let named = self.indexes.values().flat_map(|index| &index.entries);
        let named = named.filter(|entry| entry.descriptor.digest == *digest);
        let mut named = named.filter_map(|entry| self.images.get(&entry.image?));
        named
            .next()
            .or_else(|| self.images.values().find(|entry| entry.image.manifest.digest == *digest))
    }

    /// Reads which names point to indexes. One that is gone leaves the name with its image.
    pub(super) fn read_lists(&mut self, db: &Db, store: &Store) -> Result<(), Error> {
        for (name, digest) in db.indexed_tags()? {
            let (Ok(reference), Ok(digest)) = (Reference::parse(&name), digest.parse::<Digest>())
            else {
                continue;
            };
            match store.index(&digest) {
                Ok(index) if self.names.contains_key(&reference) => {
                    self.lists.insert(reference, digest);
                    self.indexes.insert(digest, index);
                }
                Ok(_) => {}
                Err(error) => {
                    let error = Error::from_kind(error);
                    tracing::warn!(name, index = %digest, error = error.chain(), "an index is dropped");
                }
            }
        }
        let moved = self.moved();
        self.names.extend(moved);
        Ok(())
    }

    /// Names whose index has a better image than the one that they stand for.
    fn moved(&self) -> Vec<(Reference, Digest)> {
        let best = |(name, digest): (&Reference, &Digest)| {
            let best = self.choose(self.indexes.get(digest)?, None)?.id();
            (self.names.get(name) != Some(&best)).then(|| (name.clone(), best))
        };
        self.lists.iter().filter_map(best).collect()
    }
}

impl Images {
    /// Has names of indexes stand for the best images, and forgets indexes without names.
    pub(super) fn settle(&self, inner: &mut Inner) -> Result<(), Error> {
        if inner.indexes.is_empty() {
            return Ok(());
        }
        for (name, image) in inner.moved() {
            self.db.tag_move(&name.to_string(), &image.to_string())?;
            inner.names.insert(name, image);
        }
        let Inner { lists, indexes, .. } = inner;
        indexes.retain(|digest, _| lists.values().any(|named| named == digest));
        Ok(())
    }

    /// The index that a full name points to.
    pub(super) fn index_by_name(&self, name: &Reference) -> Option<ImageIndex> {
        self.read().index_of(name).cloned()
    }

    /// The index that a name or a digest of a client's leads to. An image's own id leads to none.
    pub(crate) fn index_named(&self, text: &str) -> Option<ImageIndex> {
        let inner = self.read();
        if let Ok(digest) = text.parse() {
            return inner.indexes.get(&digest).cloned();
        }
        let reference = Reference::parse_normalized(text).ok()?;
        let reference = match reference.digest() {
            Some(digest) => reference.with_digest(*digest),
            None => reference,
        };
        inner.index_of(&reference).cloned()
    }

    /// What the digest of a manifest or an index stands for: an image, and for an index the names
    /// that point to it, tags first. `None` for any other text.
    pub(super) fn behind_digest(&self, text: &str) -> Option<(Digest, Vec<Reference>)> {
        let digest = text.parse().ok()?;
        let inner = self.read();
        if inner.images.contains_key(&digest) {
            return None;
        }
        let id = inner.by_manifest(&digest)?.id();
        let lists = inner.lists.iter().filter(|(_, index)| **index == digest);
        let mut names: Vec<Reference> = lists.map(|(name, _)| name.clone()).collect();
        names.sort_by_key(|name| name.tag().is_none());
        Some((id, names))
    }

    /// The images that a name leads to: one, or those of an index that are here.
    pub(crate) fn all_named(&self, text: &str) -> Result<Vec<Arc<Entry>>, Error> {
        let entry = self.find(text)?;
        Ok(match self.index_named(text) {
            Some(index) => {
                self.read().available(&index).into_iter().map(|(_, entry)| entry).collect()
            }
            None => vec![entry],
        })
    }

    /// Finds an image as [`Images::find`] does, for a platform if one is given.
    pub fn find_for(&self, text: &str, wanted: Option<&Platform>) -> Result<Arc<Entry>, Error> {
        let Some(wanted) = wanted else { return self.find(text) };
        let images = self.all_named(text)?;
        let fitting: Vec<_> =
            images.iter().filter(|entry| is_for(wanted, &entry.image)).cloned().collect();
        let build = self.read().windows_build;
        let fitting = document(&fitting);
        let chosen = silo_registry::choose(&fitting, Some(wanted), build);
        let id = chosen.map_err(|_| other_platform(text, wanted, &document(&images)))?.digest;
        self.get(&id).ok_or_else(|| super::no_such_image(text))
    }
}

impl crate::engine::Engine {
    /// The image that a client names, for a platform if it names one.
    pub fn image_for(&self, text: &str, platform: Option<&Platform>) -> Result<Arc<Entry>, Error> {
        self.images.find_for(text, platform)
    }

    /// Does a name lead to an index?
    pub fn image_has_index(&self, text: &str) -> bool {
        self.images.index_named(text).is_some()
    }

    /// The image that a name leads to: of an index, the best for a platform, if one is there.
    pub fn image_best(&self, text: &str, platform: Option<&Platform>) -> Result<Arc<Entry>, Error> {
        let entry = self.images.find(text)?;
        let Some(index) = platform.and_then(|_| self.images.index_named(text)) else {
            return Ok(entry);
        };
        Ok(self.images.read().choose(&index, platform).unwrap_or(entry))
    }
}
