//! `GET /images/{name}/json` and `/history`.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::Serialize;
use silo_docker::List;
use silo_docker::images::{
    GraphDriver, HistoryItem, ImageInspect, ImageMetadata, ManifestAttestation, ManifestImage,
    ManifestImageSize, ManifestSize, ManifestSummary, ReplacedLayer, RootFs, StandIn,
};
use silo_oci::image::{Descriptor, MAX_DOCUMENT, Manifest};
use silo_oci::platform::Platform;
use silo_store::{ImageIndex, IndexEntry};
use silo_types::{Digest, Error};

use super::list::{bytes, split_names};
use super::{Entry, Inner, config};
use crate::container::api_time;
use crate::engine::Engine;

fn value(document: &impl Serialize) -> serde_json::Value {
    serde_json::to_value(document).unwrap_or_default()
}

/// A descriptor without what only the store means.
fn plain(descriptor: &Descriptor) -> Descriptor {
    Descriptor { annotations: BTreeMap::new(), ..descriptor.clone() }
}

/// What a name of an image points to: the image's manifest, or an index.
pub(super) fn target(entry: &Entry, index: Option<&ImageIndex>) -> serde_json::Value {
    value(&plain(index.map_or(&entry.image.manifest, |index| &index.descriptor)))
}

impl Engine {
    /// Where the layers of an image lie, in the words of Docker's overlay driver.
    pub(crate) fn image_graph_driver(&self, chain: &[Digest]) -> GraphDriver {
        let mut data = BTreeMap::new();
        let path = |layer: &Digest| self.store.layer_files(layer).to_string_lossy().into_owned();
        let top = chain.last().copied();
        // With what stands in, where something does.
        let stack = self.store.stack(top).unwrap_or_else(|_| chain.to_vec());
        if let Some((top, below)) = stack.split_last() {
            data.insert("UpperDir".to_owned(), path(top));
            if !below.is_empty() {
                let lower: Vec<String> = below.iter().rev().map(path).collect();
                data.insert("LowerDir".to_owned(), lower.join(":"));
            }
        }
        GraphDriver { data, name: crate::system::STORAGE_DRIVER.to_owned() }
    }

    /// `GET /images/{name}/json`, perhaps for a platform, perhaps with all images behind a name.
    pub fn image_inspect(
        &self,
        name: &str,
        platform: Option<&Platform>,
        manifests: bool,
    ) -> Result<ImageInspect, Error> {
        let entry = self.images.find_for(name, platform)?;
        let mut inspect = self.inspect_entry(&entry);
        let index = self.images.index_named(name);
        let inner = self.images.read();
        inspect.descriptor = Some(match platform {
            // Of the image itself.
            Some(_) => {
                let named = index.as_ref().map(|index| inner.available(index));
                let mut named = named.into_iter().flatten();
                match named.find(|(_, other)| other.id() == entry.id()) {
                    Some((named, _)) => value(&named.descriptor),
                    None => target(&entry, None),
                }
            }
            None => target(&entry, index.as_ref()),
        });
        if manifests {
            inspect.manifests = self.manifests_of(&inner, &entry, index.as_ref()).into();
        }
        Ok(inspect)
    }

    /// The images of an index, or the one that there is.
    pub(super) fn manifests_of(
        &self,
        inner: &Inner,
        entry: &Arc<Entry>,
        index: Option<&ImageIndex>,
    ) -> Vec<ManifestSummary> {
        let Some(index) = index else {
            let descriptor = plain(&entry.image.manifest);
            return vec![self.manifest_of(&descriptor, Some(entry), None)];
        };
        let summaries = index.entries.iter().map(|named| {
            let image = named.image.and_then(|id| inner.images.get(&id));
            self.manifest_of(&named.descriptor, image, Some(named))
        });
        summaries.collect()
    }

    fn manifest_of(
        &self,
        descriptor: &Descriptor,
        image: Option<&Arc<Entry>>,
        named: Option<&IndexEntry>,
    ) -> ManifestSummary {
        let unpacked = image.map_or(0, |entry| bytes(entry.image.size()));
        let content = image.map_or(0, |_| self.content_size(descriptor));
        let mut summary = ManifestSummary {
            id: descriptor.digest.to_string(),
            descriptor: value(descriptor),
            available: image.is_some(),
            size: ManifestSize { content, total: content + unpacked },
            kind: "image".to_owned(),
            image_data: None,
            attestation_data: None,
        };
        if named.is_some_and(IndexEntry::is_attestation) {
            let about = named.and_then(IndexEntry::attests);
            let kind = if about.is_some() { "attestation" } else { "unknown" };
            kind.clone_into(&mut summary.kind);
            summary.attestation_data =
                about.map(|about| ManifestAttestation { r#for: about.to_string() });
            let parts = named.map_or(&[][..], |named| &named.parts);
            if !parts.is_empty() {
                summary.available = true;
                let size =
                    parts.iter().map(|part| part.size).fold(descriptor.size, u64::saturating_add);
                summary.size = ManifestSize { content: bytes(size), total: bytes(size) };
            }
            return summary;
        }
        let platform = match image {
            Some(entry) => Some(entry.image.config.platform()),
            None => descriptor.platform.clone(),
        };
        let users = self.containers.all().into_iter().filter(|container| {
            image.is_some_and(|entry| container.record().image == Some(entry.id()))
        });
        summary.image_data = Some(ManifestImage {
            platform: value(&platform.unwrap_or_default()),
            size: ManifestImageSize { unpacked },
            containers: users.map(|container| container.id.to_string()).collect(),
        });
        summary
    }

    /// Bytes of a manifest and of what it names, as far as they are blobs of the store.
    fn content_size(&self, manifest: &Descriptor) -> i64 {
        let Ok(read) = self.store.read_blob(&manifest.digest, MAX_DOCUMENT as u64) else {
            return 0;
        };
        let Ok(parsed) = Manifest::parse(&read) else { return 0 };
        let named = parsed.layers.iter().chain([&parsed.config]);
        let here = named.filter(|blob| self.store.has_blob(&blob.digest));
        bytes(here.map(|blob| blob.size).sum::<u64>().saturating_add(read.len() as u64))
    }

    fn inspect_entry(&self, entry: &Entry) -> ImageInspect {
        let image = &entry.image.config;
        let (repo_tags, repo_digests) = split_names(&self.images.names(&entry.id()));
        let comment = match image.comment.as_str() {
            "" => image.history.last().map(|step| step.comment.clone()).unwrap_or_default(),
            comment => comment.to_owned(),
        };
        ImageInspect {
            id: entry.id().to_string(),
            repo_tags,
            repo_digests,
            parent: entry.record.parent.map(|id| id.to_string()).unwrap_or_default(),
            comment,
            created: entry.created().map(silo_types::time::rfc3339_nano).unwrap_or_default(),
            container: entry.record.container.clone(),
            container_config: entry.record.container_config.clone(),
            docker_version: image.docker_version.clone(),
            author: image.author.clone(),
            config: Some(config::to_api(&image.config)),
            architecture: image.architecture.clone(),
            variant: image.variant.clone(),
            os: if image.os.is_empty() { "linux".to_owned() } else { image.os.clone() },
            os_version: image.os_version.clone(),
            size: bytes(entry.image.size()),
            graph_driver: Some(self.image_graph_driver(&entry.image.chain)),
            root_fs: RootFs {
                kind: "layers".to_owned(),
                layers: image.rootfs.diff_ids.iter().map(ToString::to_string).collect(),
            },
            stand_in: self.stand_in_of(entry),
            metadata: ImageMetadata { last_tag_time: api_time(entry.record.tagged) },
            descriptor: None,
            manifests: List::null(),
        }
    }

    /// What stands in for the lowest layers of an image.
    fn stand_in_of(&self, entry: &Entry) -> Option<StandIn> {
        let stand_in = entry.image.stand_in.as_ref()?;
        let stack = self.store.stack(entry.image.chain.first().copied()).unwrap_or_default();
        let layers = stack.iter().filter_map(|chain| self.store.layer(chain).ok());
        Some(StandIn {
            base: stand_in.name.clone(),
            layers: layers.map(|layer| layer.diff_id.to_string()).collect(),
            in_place_of: stand_in
                .replaced
                .iter()
                .map(|layer| ReplacedLayer {
                    diff_id: layer.diff_id.to_string(),
                    media_type: layer.blob.media_type.clone(),
                    digest: layer.blob.digest.to_string(),
                    size: bytes(layer.blob.size),
                    urls: layer.blob.urls.clone(),
                })
                .collect(),
            found_in: self.push_sources(&entry.image),
        })
    }

    /// `GET /images/{name}/history`, newest first.
    pub fn image_history(
        &self,
        name: &str,
        platform: Option<&Platform>,
    ) -> Result<Vec<HistoryItem>, Error> {
        let entry = self.images.find_for(name, platform)?;
        let mut sizes = entry.image.layer_sizes.iter();
        let mut items = Vec::new();
        for step in &entry.image.config.history {
            let size = if step.empty_layer {
                0
            } else {
                let size = sizes.next().ok_or_else(|| {
                    Error::internal("too many non-empty layers in History section")
                })?;
                bytes(*size)
            };
            let created = step.created.as_deref().and_then(silo_types::time::parse);
            items.push(HistoryItem {
                comment: step.comment.clone(),
                created: created.map_or(0, jiff::Timestamp::as_second),
                created_by: step.created_by.clone(),
                id: "<missing>".to_owned(),
                size,
                tags: List::null(),
            });
        }
        items.reverse();
        // The steps of images that it was committed from have ids, as far as these are known.
        let mut next = Some(entry);
        for item in &mut items {
            let Some(image) = next else { break };
            item.id = image.id().to_string();
            let (tags, _) = split_names(&self.images.names(&image.id()));
            item.tags = if tags.is_empty() { List::null() } else { tags.into() };
            next = image.record.parent.and_then(|id| self.images.get(&id));
        }
        Ok(items)
    }
}
