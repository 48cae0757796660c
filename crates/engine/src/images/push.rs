//! Images to registries.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use silo_docker::stream::StreamMessage;
use silo_oci::image::Descriptor;
use silo_oci::platform::Platform;
use silo_oci::reference::Reference;
use silo_registry::{Action, Credentials, Known, Place, Progress, PushOptions, Repository};
use silo_store::{Image, ImageIndex, IndexEntry};
use silo_types::{Digest, Error};

use crate::container::now;
use crate::db::Db;
use crate::engine::Engine;
use crate::images::Entry;

/// Places of one layer that are remembered.
const MAX_PLACES: usize = 16;

/// What the keys of rows begin with; the digest of the layer's tar follows.
const KEYS: &str = "layer-places/";
/// Where uploads are that have not ended.
const UPLOADS: &str = "uploads";
/// Uploads that are remembered.
const MAX_UPLOADS: usize = 64;
/// After this time registries have forgotten them, in nanoseconds: a week, as for Docker's.
const UPLOADS_LAST: i64 = 7 * 24 * 60 * 60 * 1_000_000_000;

/// Where layers are known to be, in the database.
#[derive(Debug)]
pub(crate) struct Places(pub(crate) Arc<Db>);

#[derive(Serialize, Deserialize)]
struct Row {
    blob: Descriptor,
    domain: String,
    path: String,
}

/// An upload that a registry has in part.
#[derive(Serialize, Deserialize)]
struct Upload {
    what: String,
    location: String,
    /// Nanoseconds since 1970.
    began: i64,
}

impl Places {
    /// Changes what is remembered of uploads. It is only a memory: without it, they begin anew.
    fn change_uploads(&self, change: impl FnOnce(&mut Vec<Upload>)) {
        let changed = self.0.change(UPLOADS, |text| {
            let mut uploads: Vec<Upload> =
                serde_json::from_str(&text.unwrap_or_default()).unwrap_or_default();
            let now = now();
            uploads.retain(|upload| (0..UPLOADS_LAST).contains(&(now - upload.began)));
            change(&mut uploads);
            uploads.truncate(MAX_UPLOADS);
            serde_json::to_string(&uploads).unwrap_or_default()
        });
        if let Err(error) = changed {
            tracing::warn!(%error, "remember an upload");
        }
    }
}

fn key(diff_id: &Digest) -> String {
    format!("{KEYS}{diff_id}")
}

impl Places {
    /// Forgets the places of all layers but those that `there` gives.
    pub(crate) fn retain(
        &self,
        there: impl FnOnce() -> HashSet<Digest>,
    ) -> Result<(), crate::db::DbError> {
        // Asked for before the layers: what is remembered meanwhile is not among them.
        let keys = self.0.keys(KEYS)?;
        if keys.is_empty() {
            return Ok(());
        }
        let there = there();
        let is_gone = |key: &&String| {
            let digest = key.strip_prefix(KEYS).and_then(|digest| digest.parse().ok());
            digest.is_none_or(|digest: Digest| !there.contains(&digest))
        };
        keys.iter().filter(is_gone).try_for_each(|key| self.0.forget(key))
    }
}

impl Known for Places {
    fn places(&self, diff_id: &Digest) -> Vec<Place> {
        // It is only a memory: without it, layers are sent again.
        let text = self.0.get(&key(diff_id)).unwrap_or_default().unwrap_or_default();
        let rows: Vec<Row> = serde_json::from_str(&text).unwrap_or_default();
        rows.into_iter()
            .map(|row| Place { blob: row.blob, domain: row.domain, path: row.path })
            .collect()
    }

    fn remember(&self, diff_id: &Digest, place: &Place) {
        let mut places = self.places(diff_id);
        if places.first() == Some(place) {
            return;
        }
        places.retain(|known| known != place);
        places.insert(0, place.clone());
        places.truncate(MAX_PLACES);
        let rows: Vec<Row> = places
            .into_iter()
            .map(|place| Row { blob: place.blob, domain: place.domain, path: place.path })
            .collect();
        let text = serde_json::to_string(&rows).unwrap_or_default();
        if let Err(error) = self.0.set(&key(diff_id), &text) {
            tracing::warn!(%error, "remember where a layer is");
        }
    }

    fn upload(&self, what: &str) -> Option<String> {
        let text = self.0.get(UPLOADS).unwrap_or_default()?;
        let uploads: Vec<Upload> = serde_json::from_str(&text).unwrap_or_default();
        let found = uploads.into_iter().find(|upload| upload.what == what)?;
        (now() - found.began < UPLOADS_LAST).then_some(found.location)
    }

    fn uploading(&self, what: &str, location: &str) {
        let (what, location) = (what.to_owned(), location.to_owned());
        self.change_uploads(|uploads| {
            uploads.retain(|upload| upload.what != what);
            uploads.insert(0, Upload { what, location, began: now() });
        });
    }

    fn uploaded(&self, what: &str) {
        self.change_uploads(|uploads| uploads.retain(|upload| upload.what != what));
    }
}

impl Engine {
    /// `POST /images/{name}/push`: sends an image, or all tags of a reference without one, and
    /// tells `sink` how it goes. `sources` are credentials for other registries, from which base
    /// layers may have to be copied. A name of an index sends it with all its images; only the one for
    /// `platform`, if that is given, or for this host, if not all are here.
    pub async fn image_push(
        self: &Arc<Self>,
        reference: &Reference,
        platform: Option<&Platform>,
        credentials: &Credentials,
        sources: BTreeMap<String, Credentials>,
        sink: impl Fn(StreamMessage) + Send + Sync + 'static,
    ) -> Result<(), Error> {
        let name = reference.without_suffix();
        // docker wording
        sink(StreamMessage::status(format!("The push refers to repository [{}]", name.name())));
        if reference.digest().is_some() {
            return Err(Error::invalid("cannot push a digest reference"));
        }
        let images = self.images.tags_of(reference);
        if images.is_empty() {
            return Err(Error::not_found(format!(
                "An image does not exist locally with the tag: {}",
                reference.familiar_name()
            )));
        }
        let failed = |error: silo_registry::Error| Error::from_kind(error);
        let repository =
            self.registries.repository(&name, Action::Push, credentials).map_err(failed)?;
        let repository = Arc::new(repository);
        let progress = Progress::new(sink);
        let known: Arc<dyn Known> = Arc::new(Places(Arc::clone(&self.db)));
        for (tagged, id) in images {
            let tag = tagged.tag().map(str::to_owned);
            let options = PushOptions { tag, sources: sources.clone(), ..PushOptions::default() };
            let index = self.images.index_by_name(&tagged);
            if let Some(index) = index.as_ref().filter(|_| platform.is_none()) {
                let here = |entry: &IndexEntry| {
                    !entry.parts.is_empty()
                        || entry.image.is_some_and(|id| self.images.get(&id).is_some())
                };
                let missing = silo_registry::missing(&repository, &name, index, here);
                if missing.await.map_err(failed)?.is_empty() {
                    let pushed = silo_registry::push_index(
                        &self.store,
                        &repository,
                        index,
                        &options,
                        &known,
                        &progress,
                    );
                    let pushed = pushed.await.map_err(failed)?;
                    self.pushed(&tagged, &id, Some(index), &pushed.manifest.digest)?;
                    continue;
                }
            }
            let (entry, image) = self.one_to_push(&tagged, index.as_ref(), platform)?;
            if let Some(note) = self.windows_push_note(&tagged.familiar(), &entry) {
                progress.note(note);
            }
            let pushed =
                silo_registry::push(&self.store, &repository, &image, &options, &known, &progress);
            let pushed = pushed.await.map_err(failed)?;
            if let Some(index) = index.as_ref().filter(|_| platform.is_none()) {
                progress.aux(serde_json::json!({
                    "manifestPushedInsteadOfIndex": true,
                    "originalIndex": super::inspect::target(&entry, Some(index)),
                    "selectedManifest": pushed.manifest,
                }));
            }
            self.pushed(&tagged, &entry.id(), None, &pushed.manifest.digest)?;
        }
        Ok(())
    }

    /// The repositories that layers come from which a push of an image may have to copy.
    pub fn push_sources(&self, image: &Image) -> Vec<String> {
        let places = Places(Arc::clone(&self.db));
        let mut found = Vec::new();
        for layer in image.stand_in.iter().flat_map(|stand_in| &stand_in.replaced) {
            let of = places.places(&layer.diff_id).into_iter();
            let of = of.filter(|place| place.blob.digest == layer.blob.digest);
            for name in of.map(|place| format!("{}/{}", place.domain, place.path)) {
                if layer.blob.urls.is_empty() && !found.contains(&name) {
                    found.push(name);
                }
            }
        }
        found
    }

    /// Sends an image that the caller keeps in the store, whatever its names.
    pub async fn push_stored(
        &self,
        image: &Image,
        name: &Reference,
        repository: &Arc<Repository>,
        options: &PushOptions,
    ) -> Result<Descriptor, Error> {
        let known: Arc<dyn Known> = Arc::new(Places(Arc::clone(&self.db)));
        let progress = Progress::new(|_| {});
        let pushed =
            silo_registry::push(&self.store, repository, image, options, &known, &progress);
        let pushed = pushed.await.map_err(Error::from_kind)?;
        let tagged = options.tag.as_deref().map(|tag| name.without_suffix().with_tag(tag));
        if let Some(Ok(tagged)) = tagged
            && self.images.by_name(&tagged) == Some(image.id)
        {
            self.pushed(&tagged, &image.id, None, &pushed.manifest.digest)?;
        }
        Ok(pushed.manifest)
    }

    /// An index of just these images is in a registry. If that is what the name has here, it is
    /// known by the digest there as well.
    pub fn pushed_index(
        &self,
        name: &Reference,
        tag: &str,
        ids: &[Digest],
        digest: &Digest,
    ) -> Result<(), Error> {
        let tagged = name.without_suffix().with_tag(tag).map_err(Error::from_kind)?;
        let Some(index) = self.images.index_by_name(&tagged) else { return Ok(()) };
        let here = index.entries.iter().filter_map(|entry| entry.image.as_ref());
        match self.images.by_name(&tagged) {
            Some(id) if here.eq(ids) => self.pushed(&tagged, &id, Some(&index), digest),
            _ => Ok(()),
        }
    }

    /// An image of the store, or an index that leads to it, is in a registry.
    fn pushed(
        &self,
        tagged: &Reference,
        id: &Digest,
        index: Option<&ImageIndex>,
        digest: &Digest,
    ) -> Result<(), Error> {
        let by_digest = tagged.with_digest(*digest);
        let known = match index {
            Some(_) => self.images.index_by_name(&by_digest).is_some(),
            None => self.images.by_name(&by_digest) == Some(*id),
        };
        if !known {
            // An image that was removed meanwhile is pushed, and stays removed.
            self.images.name_too(id, index, &by_digest)?;
        }
        self.remote_event("push", tagged, id);
        Ok(())
    }

    /// The one image to be pushed of a name, and the same with the manifest that an index has for
    /// it.
    fn one_to_push(
        &self,
        name: &Reference,
        index: Option<&ImageIndex>,
        platform: Option<&Platform>,
    ) -> Result<(Arc<Entry>, Image), Error> {
        let entry = self.images.find_for(&name.familiar(), platform)?;
        let inner = self.images.read();
        let Some(index) = index else { return Ok((Arc::clone(&entry), entry.image.clone())) };
        let available = inner.available(index);
        let runs = Platform::host().matches(&entry.image.config.platform());
        if platform.is_none() && available.len() > 1 && !runs {
            // moby wording, with what there is
            return Err(Error::conflict(format!(
                "multiple matching manifests found but no specific platform requested: {} has \
                 images for several platforms here, but not all that its index names",
                name.familiar()
            )));
        }
        let named = available.into_iter().find(|(_, other)| other.id() == entry.id());
        let image = match named {
            Some((named, _)) => self.store.image_of_entry(named).map_err(Error::from_kind)?,
            None => entry.image.clone(),
        };
        Ok((entry, image))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn uploads_that_have_not_ended() {
        let places = Places(Arc::new(Db::in_memory().unwrap()));
        assert_eq!(places.upload("a"), None);
        places.uploading("a", "http://r/1");
        places.uploading("b", "http://r/2");
        places.uploading("a", "http://r/3");
        assert_eq!(places.upload("a").as_deref(), Some("http://r/3"));
        places.uploaded("a");
        assert_eq!(places.upload("a"), None);
        for number in 0..MAX_UPLOADS {
            places.uploading(&format!("n{number}"), "http://r/n");
        }
        assert_eq!(places.upload("b"), None, "the oldest is forgotten");
        assert!(places.upload("n0").is_some());
        // What is too old, or of a time to come, is as if it were not there.
        places.change_uploads(|uploads| {
            uploads[0].began -= UPLOADS_LAST;
            uploads[1].began += UPLOADS_LAST;
        });
        assert_eq!(places.upload(&format!("n{}", MAX_UPLOADS - 1)), None);
        places.uploaded("nothing");
        assert_eq!(places.upload(&format!("n{}", MAX_UPLOADS - 2)), None);
        assert!(places.upload("n0").is_some());
    }

    #[test]
    fn places_of_layers() {
        let directory = tempfile::tempdir().unwrap();
        let places = Places(Arc::new(Db::open(&directory.path().join("silo.db")).unwrap()));
        let digest = |text: &str| silo_oci::image::digest(text.as_bytes());
        let place = |path: &str| Place {
            blob: Descriptor::new("application/x", digest(path), 3),
            domain: "r:5000".to_owned(),
            path: path.to_owned(),
        };
        let layer = digest("layer");
        assert!(places.places(&layer).is_empty());
        for number in 0..20 {
            places.remember(&layer, &place(&format!("p{number}")));
        }
        places.remember(&layer, &place("p15"));
        let found = places.places(&layer);
        assert_eq!(found.len(), MAX_PLACES);
        assert_eq!((found[0].path.as_str(), found[1].path.as_str()), ("p15", "p19"));
        assert!(places.places(&digest("other")).is_empty());
        // They go with the layer, and nothing else does.
        places.remember(&digest("gone"), &place("p"));
        places.0.set("layer-places/what is this?", "[]").unwrap();
        for neighbour in ["layer-place", "layer-places", "layer-places0", "zone"] {
            places.0.set(neighbour, "kept").unwrap();
        }
        places.retain(|| HashSet::from([layer, digest("without places")])).unwrap();
        assert!(places.places(&digest("gone")).is_empty());
        assert_eq!(places.places(&layer).len(), MAX_PLACES);
        assert_eq!(places.0.keys("layer-places/").unwrap(), [key(&layer)]);
        assert_eq!(places.0.keys("").unwrap().len(), 5);
    }
}
