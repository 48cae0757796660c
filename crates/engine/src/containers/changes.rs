//! `docker diff`, and how much room a container takes.

use std::sync::Arc;

use silo_docker::containers::FilesystemChange;
use silo_types::Error;

use super::archive::blocking;
use crate::container::Container;
use crate::engine::Engine;

impl Engine {
    /// How a container's files differ from its image's.
    pub async fn container_changes(
        self: &Arc<Self>,
        name: &str,
    ) -> Result<Vec<FilesystemChange>, Error> {
        let container = self.container(name)?;
        let engine = Arc::clone(self);
        blocking(move || {
            let windows = crate::windows::is(&container.record());
            let snapshot = engine.whole_snapshot(&container)?;
            let changes = engine.store.changes(&snapshot).map_err(Error::from_kind)?;
            let list = changes.into_iter().map(|change| {
                let path = change.path.to_string_lossy();
                let path = if windows {
                    let drive = crate::windows::DRIVE;
                    crate::windows::paths::external(&format!("{drive}{path}"))
                } else {
                    path.into_owned()
                };
                FilesystemChange { path, kind: change.kind as u32 }
            });
            Ok(list.collect())
        })
        .await
    }

    /// Bytes of a container's own files, and of these with its image's.
    pub(crate) async fn container_sizes(
        &self,
        container: &Arc<Container>,
    ) -> Result<(i64, i64), Error> {
        let store = Arc::clone(&self.store);
        let container = Arc::clone(container);
        blocking(move || {
            let id = container.id.as_str();
            let own = store.snapshot_usage(id).map_err(Error::from_kind)?;
            let mut all = own;
            let mut next = store.snapshot_chain(id).map_err(Error::from_kind)?;
            while let Some(chain) = next {
                let Ok(layer) = store.layer(&chain) else { break };
                all = all.saturating_add(layer.size);
                next = layer.parent;
            }
            let signed = |bytes| i64::try_from(bytes).unwrap_or(i64::MAX);
            Ok((signed(own), signed(all)))
        })
        .await
    }
}
