//! `GET /images/{name}/json` and `/history`.

use std::collections::BTreeMap;

use silo_docker::List;
use silo_docker::images::{GraphDriver, HistoryItem, ImageInspect, ImageMetadata, RootFs};
use silo_types::{Digest, Error};

use super::list::{bytes, split_names};
use super::{Entry, config};
use crate::container::api_time;
use crate::engine::Engine;

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

    /// `GET /images/{name}/json`.
    pub fn image_inspect(&self, name: &str) -> Result<ImageInspect, Error> {
        let entry = self.images.find(name)?;
        Ok(self.inspect_entry(&entry))
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
            metadata: ImageMetadata { last_tag_time: api_time(entry.record.tagged) },
        }
    }

    /// `GET /images/{name}/history`, newest first.
    pub fn image_history(&self, name: &str) -> Result<Vec<HistoryItem>, Error> {
        let entry = self.images.find(name)?;
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
