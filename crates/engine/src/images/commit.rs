//! `POST /commit`: an image of a container's changes.

use std::sync::Arc;

use jiff::Timestamp;
use silo_docker::containers::Config;
use silo_docker::query::CommitQuery;
use silo_oci::image::{History, ImageConfig};
use silo_oci::platform::Platform;
use silo_oci::reference::Reference;
use silo_types::{Error, ErrorKind};

use super::{ImageRecord, change, config, repository_and_tag};
use crate::engine::Engine;

impl Engine {
    /// Makes an image of a container and returns its id. `config` replaces the container's as the
    /// base for the changes.
    pub async fn commit(
        self: &Arc<Self>,
        query: CommitQuery,
        config: Option<Config>,
    ) -> Result<String, Error> {
        let name = repository_and_tag(&query.repo, &query.tag)?;
        let container = self.container(&query.container)?;
        let (dead, removing, freeze) = {
            let state = container.state();
            let freeze = query.pause && state.running && !state.paused && !state.restarting;
            (state.dead, state.removing, freeze)
        };
        let id = &container.id;
        if dead {
            return Err(Error::conflict(format!("You cannot commit container {id} which is Dead")));
        }
        if removing {
            let message = format!("You cannot commit container {id} which is being removed");
            return Err(Error::conflict(message));
        }
        let record = container.record();
        let mut config =
            change::apply(config.unwrap_or_else(|| record.config.clone()), &query.changes)?;
        config::merge(&mut config, &record.config);

        let parent = record.image.and_then(|image| self.images.get(&image));
        let base = parent.as_ref().map(|entry| Arc::clone(&entry.image.config)).unwrap_or_default();
        let host = Platform::host();
        let or = |text: &str, default: String| {
            if text.is_empty() { default } else { text.to_owned() }
        };
        let created = Some(silo_types::time::rfc3339_nano(Timestamp::now()));
        let mut history = base.history.clone();
        history.push(History {
            created: created.clone(),
            created_by: record.config.cmd.join(" "),
            author: query.author.clone(),
            comment: query.comment.clone(),
            empty_layer: false,
        });
        let image = ImageConfig {
            created,
            author: query.author.clone(),
            architecture: or(&base.architecture, host.architecture),
            variant: base.variant.clone(),
            os: or(&record.os, or(&base.os, host.os)),
            os_version: base.os_version.clone(),
            os_features: base.os_features.clone(),
            comment: query.comment.clone(),
            docker_version: env!("CARGO_PKG_VERSION").to_owned(),
            config: config::from_api(&config),
            rootfs: silo_oci::image::RootFs::default(),
            history,
            inline_cache: None,
        };

        let changes = if crate::windows::is(&record) {
            Some(self.windows_changes(&container, None).await?)
        } else {
            None
        };
        let frozen = freeze && self.container_pause(id.as_str()).await.is_ok();
        let store = Arc::clone(&self.store);
        let snapshot = id.to_string();
        let work = move || match changes {
            Some(changes) => store.commit_windows(&snapshot, &changes, image),
            None => store.commit(&snapshot, image),
        };
        let made = tokio::task::spawn_blocking(work).await;
        if frozen && let Err(error) = self.container_unpause(id.as_str()).await {
            tracing::warn!(container = %id, error = error.chain(), "unpause after commit");
        }
        let (image, lease) = made
            .map_err(|error| Error::with_source(ErrorKind::Internal, "commit", error))?
            .map_err(Error::from_kind)?;

        let image_id = image.id;
        let image_record = ImageRecord {
            parent: parent.map(|entry| entry.id()),
            container: id.to_string(),
            container_config: Some(record.config.clone()),
            tagged: 0,
        };
        self.images.put(image, Some(image_record), name.as_slice())?;
        drop(lease);
        self.image_event("create", &image_id, &image_id.to_string());
        let familiar = name.as_ref().map(Reference::familiar).unwrap_or_default();
        if name.is_some() {
            self.image_event("tag", &image_id, &familiar);
        }
        let image_text = image_id.to_string();
        let attributes =
            [("comment", &*query.comment), ("imageID", &*image_text), ("imageRef", &*familiar)];
        self.container_event(&container, "commit", &attributes);
        Ok(image_text)
    }
}
