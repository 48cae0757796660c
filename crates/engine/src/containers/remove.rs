//! `DELETE /containers/{id}`, and the removal of containers that go by themselves.

use std::io;
use std::path::Path;
use std::sync::{Arc, PoisonError};

use silo_docker::query::ContainerRemoveQuery;
use silo_types::Error;

use crate::container::Container;
use crate::engine::Engine;
use crate::mountpoints::MountKind;

impl Engine {
    /// Removes a container.
    pub async fn container_remove(
        self: &Arc<Self>,
        name: &str,
        query: ContainerRemoveQuery,
    ) -> Result<(), Error> {
        // docker wording, throughout
        if query.link {
            return self.remove_link(name);
        }
        let container = self.container(name)?;
        if container.state().removing {
            return Err(Error::conflict(format!(
                "removal of container {name} is already in progress"
            )));
        }
        let failed = |error: Error| {
            Error::new(
                error.kind(),
                format!("cannot remove container {name:?}: {}", error.message()),
            )
        };
        let refused = {
            let state = container.state();
            (state.running && !query.force).then(|| {
                if state.paused {
                    "container is paused and must be unpaused first".to_owned()
                } else {
                    format!(
                        "container is {}: stop the container before removing or force remove",
                        state.status()
                    )
                }
            })
        };
        if let Some(reason) = refused {
            return Err(failed(Error::conflict(reason)));
        }
        if container.is_running() {
            self.kill(&container).await.map_err(|error| {
                failed(Error::internal(format!("could not kill container: {error}")))
            })?;
        }
        if !self.begin_removal(&container).await {
            // Its own end removes it at this moment.
            let mut watch = container.watch();
            drop(watch.wait_for(|state| state.removed).await);
            return Ok(());
        }
        self.finish_removal(&container, query.volumes).await;
        Ok(())
    }

    /// Removes a container that goes by itself.
    pub(crate) async fn auto_remove(self: &Arc<Self>, container: &Arc<Container>) {
        if self.begin_removal(container).await {
            self.finish_removal(container, true).await;
        }
    }

    /// Marks a container as being removed; false when somebody else does it.
    async fn begin_removal(&self, container: &Container) -> bool {
        let mut live = container.live.lock().await;
        let mut ours = false;
        self.cancel_restart(container, &mut live);
        container.change(|state| {
            ours = !state.removing && !state.removed && !state.running;
            state.removing |= ours;
        });
        ours
    }

    /// Removes what belongs to a container: first its record, so that its name is free and it
    /// cannot come back, then its files in the background.
    pub(crate) async fn finish_removal(
        self: &Arc<Self>,
        container: &Arc<Container>,
        volumes: bool,
    ) {
        // The engine's end waits for those that it knows, and then for this.
        let _removal = self.removals.token();
        let record = container.record();
        let id = container.id.as_str();
        let anonymous: Vec<String> = record
            .mounts
            .iter()
            .filter(|mount| mount.kind == MountKind::Volume && mount.anonymous)
            .map(|mount| mount.name.clone())
            .collect();
        if !volumes && let Err(error) = self.volumes.disown(anonymous.iter().map(String::as_str)) {
            tracing::warn!(container = id, error = error.chain(), "could not keep volumes");
        }
        if let Err(error) = self.db.container_remove_with(id, !record.is_ephemeral()) {
            tracing::warn!(container = id, %error, "could not remove the record");
        }
        self.containers.remove(container);
        self.containers.exec_retain(|exec| exec.container.id != container.id);
        container.waiting.lock().unwrap_or_else(PoisonError::into_inner).clear();
        self.drop_snapshot(id);
        if volumes && !anonymous.is_empty() {
            let engine = Arc::clone(self);
            let remove = move || anonymous.iter().for_each(|name| engine.volume_remove_owned(name));
            if tokio::task::spawn_blocking(remove).await.is_err() {
                tracing::error!(container = id, "the task that removes volumes failed");
            }
        }
        let directories = [container.dir.clone(), self.shim_dir(id)];
        let last_run = Arc::clone(container);
        self.removals.spawn(async move {
            last_run.wait_released().await;
            if let Err(error) = silo_shim::gone(&last_run.dir).await {
                tracing::warn!(container = %last_run.id, %error, "cannot get rid of a shim");
            }
            let remove = move || directories.iter().for_each(|path| remove_directory(path));
            drop(tokio::task::spawn_blocking(remove).await);
        });
        self.container_event(container, "destroy", &[]);
        container.change(|state| {
            state.removed = true;
            state.removing = false;
            state.exits += 1;
        });
    }
}

/// Removes a directory of the engine's own with all in it.
pub(crate) fn remove_directory(path: &Path) {
    let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else { return };
    // It is held open while it is unlinked, so that its blocks are freed (on ext4 with `discard`
    // a matter of milliseconds) when the directory above, where the next container is being
    // made, is no longer locked.
    let removed = fs_err::File::open(parent)
        .and_then(|parent| silo_sys::path::remove_all_at(parent.file(), name));
    match removed {
        Ok(()) => {}
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => tracing::warn!(path = %path.display(), %error, "could not clean up"),
    }
}
