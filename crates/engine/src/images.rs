//! Images: names, records and every verb on them.
//!
//! The store has an image's content under its id; here is what Docker knows beyond that: the
//! names that point to it, the image it was committed from, and when it was last named. Names are
//! full references, `docker.io/library/busybox:latest` or `...@sha256:...`.
//!
//! A name may point to an index of images for several platforms. It then stands for the best of
//! those that are here for this host, and for the others where a platform is asked for; see
//! `indexed`.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use silo_docker::containers::Config;
use silo_oci::reference::{Reference, is_identifier};
use silo_store::{ImageIndex, Store};
use silo_types::{Digest, Error, ErrorKind};

use crate::db::Db;
use crate::engine::Engine;

mod change;
mod commit;
pub(crate) mod config;
mod glob;
mod indexed;
mod inspect;
mod list;
mod pull;
mod push;
mod remote;
mod remove;
mod search;
mod transfer;

pub use pull::{DistributionInspect, ImagePull, WhichBase};
pub(crate) use push::Places;
pub use remote::RemoteArchive;

/// What the engine records about an image.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct ImageRecord {
    /// The image that it was committed from.
    pub parent: Option<Digest>,
    /// The container that it was committed from.
    pub container: String,
    /// That container's configuration.
    pub container_config: Option<Config>,
    /// When it last got a name, nanoseconds since 1970; zero for never.
    pub tagged: i64,
}

/// An image: its content and its record.
#[derive(Debug, Clone)]
pub struct Entry {
    /// What the store says.
    pub image: silo_store::Image,
    /// What the engine says.
    pub record: ImageRecord,
}

impl Entry {
    /// The id.
    pub fn id(&self) -> Digest {
        self.image.id
    }

    /// When the image was made, if it says so.
    pub fn created(&self) -> Option<Timestamp> {
        self.image.config.created.as_deref().and_then(silo_types::time::parse)
    }
}

#[derive(Debug, Default)]
struct Inner {
    images: BTreeMap<Digest, Arc<Entry>>,
    names: BTreeMap<Reference, Digest>,
    /// Names that point to an index, whose best image is in `names`.
    lists: BTreeMap<Reference, Digest>,
    /// The indexes that names point to.
    indexes: BTreeMap<Digest, ImageIndex>,
    /// Which Windows images come first.
    windows_build: u32,
}

impl Inner {
    /// The names that lead to an image, be it by an index.
    fn names_of(&self, id: &Digest) -> Vec<Reference> {
        let leads = |name: &Reference, image: &Digest| {
            image == id || self.index_of(name).is_some_and(|index| indexed::has(index, id))
        };
        let names = self.names.iter().filter(|(name, image)| leads(name, image));
        names.map(|(name, _)| name.clone()).collect()
    }

    fn has_children(&self, id: &Digest) -> bool {
        self.images.values().any(|entry| entry.record.parent.as_ref() == Some(id))
    }
}

/// All images.
#[derive(Debug)]
pub struct Images {
    db: Arc<Db>,
    store: Arc<Store>,
    inner: Arc<RwLock<Inner>>,
    /// Held by the operations that remove something, one at a time.
    removing: tokio::sync::Mutex<()>,
}

fn read(inner: &RwLock<Inner>) -> RwLockReadGuard<'_, Inner> {
    inner.read().unwrap_or_else(PoisonError::into_inner)
}

/// The error for a name that leads to no image.
fn no_such_image(name: &str) -> Error {
    Error::not_found(format!("No such image: {name}"))
}

/// The twelve digits of an id that people see.
pub(crate) fn short(id: &Digest) -> String {
    let mut hex = id.hex();
    hex.truncate(12);
    hex
}

impl Images {
    /// Reads all records. One whose content is gone is dropped.
    pub fn open(db: &Arc<Db>, store: &Arc<Store>, windows_build: u32) -> Result<Self, Error> {
        let mut inner = Inner { windows_build, ..Inner::default() };
        for (id, record) in db.images()? {
            let read = || -> Result<Entry, String> {
                let digest: Digest = id.parse().map_err(|error| format!("{error}"))?;
                let image = store.image(&digest).map_err(|error| error.to_string())?;
                let record = serde_json::from_str(&record).map_err(|error| error.to_string())?;
                Ok(Entry { image, record })
            };
            match read() {
                Ok(entry) => drop(inner.images.insert(entry.id(), Arc::new(entry))),
                Err(error) => {
                    tracing::warn!(image = id, error, "image is dropped");
                    db.image_remove(&id)?;
                }
            }
        }
        for (name, id) in db.tags()? {
            match (Reference::parse(&name), id.parse()) {
                (Ok(reference), Ok(id)) if inner.images.contains_key(&id) => {
                    inner.names.insert(reference, id);
                }
                _ => {
                    tracing::warn!(name, image = id, "name of an image is dropped");
                    db.tag_remove(&name)?;
                }
            }
        }
        inner.read_lists(db, store)?;
        Ok(Self {
            db: Arc::clone(db),
            store: Arc::clone(store),
            inner: Arc::new(RwLock::new(inner)),
            removing: tokio::sync::Mutex::default(),
        })
    }

    fn read(&self) -> RwLockReadGuard<'_, Inner> {
        read(&self.inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, Inner> {
        self.inner.write().unwrap_or_else(PoisonError::into_inner)
    }

    /// How many images there are.
    pub fn len(&self) -> usize {
        self.read().images.len()
    }

    /// Is there none?
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// An image by its whole id.
    pub fn get(&self, id: &Digest) -> Option<Arc<Entry>> {
        self.read().images.get(id).cloned()
    }

    /// Finds an image by name, id or the beginning of its id, in dockerd's order.
    pub fn find(&self, text: &str) -> Result<Arc<Entry>, Error> {
        let inner = self.read();
        let whole =
            if is_identifier(text) { format!("sha256:{text}").parse() } else { text.parse() };
        if let Ok(id) = whole {
            let entry = inner.images.get(&id).or_else(|| inner.by_manifest(&id));
            return entry.cloned().ok_or_else(|| no_such_image(text));
        }
        let reference = Reference::parse_normalized(text).map_err(Error::from_kind)?;
        let named = match reference.digest() {
            Some(digest) => inner.names.get(&reference.with_digest(*digest)),
            None => inner.names.get(&reference),
        };
        if let Some(entry) = named.and_then(|id| inner.images.get(id)) {
            return Ok(Arc::clone(entry));
        }
        let prefix = text.strip_prefix("sha256:").unwrap_or(text);
        if prefix.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b)) {
            let mut matches = inner.images.values().filter(|e| e.id().hex().starts_with(prefix));
            if let (Some(entry), None) = (matches.next(), matches.next()) {
                return Ok(Arc::clone(entry));
            }
        }
        Err(no_such_image(&reference.familiar()))
    }

    /// The names of an image, in order.
    pub fn names(&self, id: &Digest) -> Vec<Reference> {
        self.read().names_of(id)
    }

    /// The image that a full name points to.
    pub fn by_name(&self, name: &Reference) -> Option<Digest> {
        self.read().names.get(name).copied()
    }

    /// Records an image with names; an image that is there already keeps its record.
    pub(crate) fn put(
        &self,
        image: silo_store::Image,
        record: Option<ImageRecord>,
        names: &[Reference],
    ) -> Result<(), Error> {
        self.put_indexed(image, record, names, None)
    }

    /// [`Images::put`] with names that point to an index, which leads to the image.
    pub(crate) fn put_indexed(
        &self,
        image: silo_store::Image,
        record: Option<ImageRecord>,
        names: &[Reference],
        index: Option<&ImageIndex>,
    ) -> Result<(), Error> {
        let mut inner = self.write();
        let known = inner.images.get(&image.id).map(|entry| entry.record.clone());
        let mut record = record.or(known).unwrap_or_default();
        if !names.is_empty() {
            record.tagged = i64::try_from(Timestamp::now().as_nanosecond()).unwrap_or(i64::MAX);
        }
        let json = serde_json::to_string(&record)
            .map_err(|error| Error::with_source(ErrorKind::Internal, "write image", error))?;
        let texts: Vec<String> = names.iter().map(ToString::to_string).collect();
        let list = index.map(|index| index.descriptor.digest.to_string());
        self.db.image_put(&image.id.to_string(), &json, &texts, list.as_deref())?;
        for name in names {
            inner.names.insert(name.clone(), image.id);
            match index {
                Some(index) => inner.lists.insert(name.clone(), index.descriptor.digest),
                None => inner.lists.remove(name),
            };
        }
        if let Some(index) = index {
            inner.indexes.insert(index.descriptor.digest, index.clone());
        }
        inner.images.insert(image.id, Arc::new(Entry { image, record }));
        self.settle(&mut inner)
    }

    /// Points a name at an image, or at the index that leads to it. False if the image is gone: its
    /// content may be as well.
    fn tag(
        &self,
        id: &Digest,
        index: Option<&ImageIndex>,
        name: &Reference,
    ) -> Result<bool, Error> {
        self.point(id, index, name, |record| {
            record.tagged = i64::try_from(Timestamp::now().as_nanosecond()).unwrap_or(i64::MAX);
        })
    }

    /// Gives an image, or the index that leads to it, one more name, without that it counts as
    /// named anew. False if it is gone.
    fn name_too(
        &self,
        id: &Digest,
        index: Option<&ImageIndex>,
        name: &Reference,
    ) -> Result<bool, Error> {
        self.point(id, index, name, |_| ())
    }

    fn point(
        &self,
        id: &Digest,
        index: Option<&ImageIndex>,
        name: &Reference,
        change: impl FnOnce(&mut ImageRecord),
    ) -> Result<bool, Error> {
        let mut inner = self.write();
        let Some(entry) = inner.images.get(id) else { return Ok(false) };
        let mut record = entry.record.clone();
        change(&mut record);
        let json = serde_json::to_string(&record)
            .map_err(|error| Error::with_source(ErrorKind::Internal, "write image", error))?;
        // An index without names may be gone as well.
        let list = index.map(|index| index.descriptor.digest);
        let list = list.filter(|digest| inner.indexes.contains_key(digest));
        let text = list.map(|digest| digest.to_string());
        self.db.image_put(&id.to_string(), &json, &[name.to_string()], text.as_deref())?;
        let entry = Arc::new(Entry { image: entry.image.clone(), record });
        inner.images.insert(*id, entry);
        inner.names.insert(name.clone(), *id);
        match list {
            Some(digest) => inner.lists.insert(name.clone(), digest),
            None => inner.lists.remove(name),
        };
        self.settle(&mut inner)?;
        Ok(true)
    }

    /// The tag that a reference names, or all tags of its repository, with their images.
    fn tags_of(&self, reference: &Reference) -> Vec<(Reference, Digest)> {
        let inner = self.read();
        let name = reference.name();
        let wanted = |tagged: &Reference| match reference.tag() {
            Some(_) => tagged == reference,
            None => tagged.tag().is_some() && tagged.name() == name,
        };
        let found = inner.names.iter().filter(|(tagged, _)| wanted(tagged));
        found.map(|(tagged, id)| (tagged.clone(), *id)).collect()
    }

    /// Takes a name away.
    fn untag(&self, name: &Reference) -> Result<(), Error> {
        let mut inner = self.write();
        self.db.tag_remove(&name.to_string())?;
        inner.names.remove(name);
        inner.lists.remove(name);
        self.settle(&mut inner)
    }

    /// Forgets an image without names; content goes with [`Images::collect`].
    fn forget(&self, id: &Digest) -> Result<(), Error> {
        let mut inner = self.write();
        let entry = inner.images.remove(id);
        // Names that lead to others, too, go on to these.
        if let Err(error) = self.settle(&mut inner) {
            inner.images.extend(entry.map(|entry| (*id, entry)));
            return Err(error);
        }
        self.db.image_remove(&id.to_string())?;
        let Inner { names, lists, .. } = &mut *inner;
        names.retain(|_, image| image != id);
        lists.retain(|name, _| names.contains_key(name));
        self.settle(&mut inner)
    }

    /// Removes content that nothing needs, and returns what it was.
    pub(crate) async fn collect(&self) -> Result<silo_store::Collected, Error> {
        let (store, inner) = (Arc::clone(&self.store), Arc::clone(&self.inner));
        let places = Places(Arc::clone(&self.db));
        // What is recorded while this waits for the store is kept.
        let work = move || {
            store.retain_indexes(|| read(&inner).indexes.keys().copied().collect())?;
            let collected = store.collect(|| read(&inner).images.keys().copied().collect())?;
            if let Err(error) = places.retain(|| store.layer_tars()) {
                tracing::warn!(%error, "forget where layers are that are gone");
            }
            Ok(collected)
        };
        tokio::task::spawn_blocking(work)
            .await
            .map_err(|error| Error::with_source(ErrorKind::Internal, "collect garbage", error))?
            .map_err(|error: silo_store::Error| Error::from_kind(error))
    }
}

/// Reads the `repo` and `tag` of a request as a full name; `None` for an empty repository.
fn repository_and_tag(repo: &str, tag: &str) -> Result<Option<Reference>, Error> {
    if repo.is_empty() {
        return Ok(None);
    }
    let reference = Reference::parse(repo).map_err(Error::from_kind)?;
    if reference.digest().is_some() {
        return Err(Error::invalid("cannot import digest reference"));
    }
    if !tag.is_empty() {
        return reference.with_tag(tag).map(Some).map_err(Error::from_kind);
    }
    Reference::parse_normalized(repo).map(Some).map_err(Error::from_kind)
}

impl Engine {
    /// The image that a client names.
    pub fn image(&self, text: &str) -> Result<Arc<Entry>, Error> {
        self.images.find(text)
    }

    /// Does `name`, as a client wrote it at some time, still lead to this image?
    pub fn image_name_is(&self, name: &str, id: Digest) -> bool {
        self.images.find(name).is_ok_and(|entry| entry.id() == id)
            || self.images.index_named(name).is_some_and(|index| indexed::has(&index, &id))
    }

    /// The ids of an image and of all that were committed from it; none if there is no such
    /// image.
    pub fn image_descendants(&self, name: &str) -> BTreeSet<String> {
        let Ok(entry) = self.images.find(name) else { return BTreeSet::new() };
        let index = self.images.index_named(name);
        let inner = self.images.read();
        let mut found = BTreeSet::from([entry.id()]);
        if let Some(index) = index {
            found.extend(inner.available(&index).iter().map(|(_, entry)| entry.id()));
        }
        let mut open: Vec<Digest> = found.iter().copied().collect();
        while let Some(parent) = open.pop() {
            for child in inner.images.values().filter(|e| e.record.parent == Some(parent)) {
                if found.insert(child.id()) {
                    open.push(child.id());
                }
            }
        }
        found.iter().map(ToString::to_string).collect()
    }

    /// Announces that something happened to an image, with the labels it has.
    pub(crate) fn image_event(&self, action: &str, id: &Digest, name: &str) {
        let mut attributes = BTreeMap::new();
        if let Some(entry) = self.images.get(id) {
            attributes.clone_from(&entry.image.config.config.labels);
        }
        attributes.insert("name".into(), name.to_owned());
        self.events.publish("image", action, &id.to_string(), attributes);
    }

    /// `POST /images/{name}/tag`.
    pub fn image_tag(&self, name: &str, repo: &str, tag: &str) -> Result<(), Error> {
        let Some(reference) = repository_and_tag(repo, tag)? else {
            return Err(Error::invalid("invalid reference format"));
        };
        if reference.familiar_name() == "sha256" {
            return Err(Error::invalid(
                "refusing to create an ambiguous tag using digest algorithm as name",
            ));
        }
        let entry = self.images.find(name)?;
        let index = self.images.index_named(name);
        if !self.images.tag(&entry.id(), index.as_ref(), &reference)? {
            return Err(no_such_image(name));
        }
        self.image_event("tag", &entry.id(), &reference.familiar());
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use silo_oci::image::ImageConfig;

    use super::*;

    #[tokio::test]
    async fn names_come_too_late_for_an_image_that_is_gone() {
        let directory = tempfile::tempdir().unwrap();
        let db = Arc::new(Db::open(&directory.path().join("silo.db")).unwrap());
        let store = Arc::new(Store::open(directory.path()).unwrap());
        let images = Images::open(&db, &store, 0).unwrap();
        let name = |text: &str| Reference::parse_normalized(text).unwrap();
        let (image, lease) = store.derive(None, ImageConfig::default()).unwrap();
        let id = image.id;
        images.put(image, None, &[name("a")]).unwrap();
        drop(lease);
        images.collect().await.unwrap();
        assert!(store.image(&id).is_ok(), "a recorded image is kept");
        assert!(images.tag(&id, None, &name("b")).unwrap());
        assert!(images.name_too(&id, None, &name("c")).unwrap());
        assert_eq!(images.names(&id).len(), 3);
        images.forget(&id).unwrap();
        images.collect().await.unwrap();
        assert!(!images.tag(&id, None, &name("b")).unwrap());
        assert!(!images.name_too(&id, None, &name("c")).unwrap());
        assert_eq!(images.len(), 0);
        // Nor does it come back with the next start.
        let images = Images::open(&db, &store, 0).unwrap();
        assert!(images.is_empty() && images.by_name(&name("b")).is_none());
        assert!(db.images().unwrap().is_empty() && db.tags().unwrap().is_empty());
    }

    #[tokio::test]
    async fn where_layers_are_is_forgotten_with_them() {
        use silo_registry::{Known as _, Place};

        let directory = tempfile::tempdir().unwrap();
        let db = Arc::new(Db::open(&directory.path().join("silo.db")).unwrap());
        let store = Arc::new(Store::open(directory.path()).unwrap());
        let images = Images::open(&db, &store, 0).unwrap();
        let places = Places(Arc::clone(&db));
        let (image, lease) = store.import(&[0; 1024][..], ImageConfig::default()).unwrap();
        let (id, diff_id) = (image.id, image.config.rootfs.diff_ids[0]);
        let blob = image.manifest.clone();
        let place = Place { blob, domain: "r:5000".to_owned(), path: "a".to_owned() };
        images.put(image, None, &[Reference::parse_normalized("a").unwrap()]).unwrap();
        drop(lease);
        places.remember(&diff_id, &place);
        images.collect().await.unwrap();
        assert_eq!(places.places(&diff_id).len(), 1);
        images.forget(&id).unwrap();
        images.collect().await.unwrap();
        assert!(db.keys("").unwrap().is_empty());
    }
}
