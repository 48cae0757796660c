//! All containers by id and name, and every verb on them.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use silo_types::{ContainerId, Error};

use crate::container::Container;
use crate::engine::Engine;

pub(crate) mod archive;
mod attach;
mod changes;
pub(crate) mod create;
mod exec;
mod exit;
mod filters;
mod image_config;
mod inspect;
mod links;
mod list;
mod logs;
mod names;
mod prune;
pub(crate) mod remove;
pub(crate) mod rootfs;
pub(crate) mod sandbox;
pub(crate) mod start;
mod stats;
mod stop;
pub(crate) mod top;
mod update;
pub(crate) mod validate;
mod volumes;
mod wait;

pub use archive::ArchiveStream;
pub use attach::Attachment;
pub use exec::{Exec, ExecStarted};
pub use logs::LogStream;
pub(crate) use remove::remove_directory;
pub(crate) use start::Cause;
pub use stats::StatsStream;

#[derive(Debug, Default)]
struct Index {
    by_id: BTreeMap<String, Arc<Container>>,
    /// Names without slash, those of containers that are being made included.
    names: HashMap<String, String>,
    /// Those of builds, which clients do not see.
    hidden: BTreeMap<String, Arc<Container>>,
}

/// The containers of the engine, and the processes that were started in them later.
#[derive(Debug, Default)]
pub struct Containers {
    index: RwLock<Index>,
    execs: RwLock<HashMap<String, Arc<Exec>>>,
}

impl Containers {
    fn read(&self) -> RwLockReadGuard<'_, Index> {
        self.index.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, Index> {
        self.index.write().unwrap_or_else(PoisonError::into_inner)
    }

    /// Every container, in no order that means anything.
    pub fn all(&self) -> Vec<Arc<Container>> {
        self.read().by_id.values().cloned().collect()
    }

    /// Those of builds, which no other method finds.
    pub(crate) fn hidden(&self) -> Vec<Arc<Container>> {
        self.read().hidden.values().cloned().collect()
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.read().by_id.len()
    }

    /// Is there none?
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The container of a full id.
    pub fn by_id(&self, id: &str) -> Option<Arc<Container>> {
        self.read().by_id.get(id).cloned()
    }

    /// Finds a container by its id, its name, or the beginning of its id, in this order.
    pub fn find(&self, text: &str) -> Result<Arc<Container>, Error> {
        // docker wording, throughout
        if text.is_empty() {
            return Err(Error::invalid(format!("invalid name or ID supplied: {text:?}")));
        }
        let index = self.read();
        if let Some(container) = index.by_id.get(text) {
            return Ok(Arc::clone(container));
        }
        let name = text.strip_prefix('/').unwrap_or(text);
        if let Some(container) = index.names.get(name).and_then(|id| index.by_id.get(id)) {
            return Ok(Arc::clone(container));
        }
        let mut matches = index
            .by_id
            .range(text.to_owned()..)
            .take_while(|(id, _)| id.starts_with(text))
            .map(|(_, container)| container);
        match (matches.next(), matches.next()) {
            (Some(container), None) => Ok(Arc::clone(container)),
            (Some(_), Some(_)) => {
                Err(Error::invalid(format!("multiple IDs found with provided prefix: {text}")))
            }
            _ => Err(Error::not_found(format!("No such container: {text}"))),
        }
    }

    /// Takes a name for a container that is about to be made or renamed.
    pub(crate) fn reserve(&self, name: &str, id: &ContainerId) -> Result<(), Error> {
        let mut index = self.write();
        if let Some(owner) = index.names.get(name) {
            // docker wording
            return Err(Error::conflict(format!(
                "Conflict. The container name \"/{name}\" is already in use by container {owner:?}. You have to remove (or rename) that container to be able to reuse that name."
            )));
        }
        index.names.insert(name.to_owned(), id.to_string());
        Ok(())
    }

    /// Takes a generated name.
    pub(crate) fn reserve_generated(&self, id: &ContainerId) -> Result<String, Error> {
        const ATTEMPTS: u32 = 6;
        for attempt in 0..ATTEMPTS {
            let name = names::generate(attempt);
            if self.reserve(&name, id).is_ok() {
                return Ok(name);
            }
        }
        let name = id.short().to_owned();
        self.reserve(&name, id).map(|()| name)
    }

    /// Gives a name back.
    pub(crate) fn release(&self, name: &str) {
        self.write().names.remove(name);
    }

    pub(crate) fn insert(&self, container: Arc<Container>) {
        let mut index = self.write();
        let id = container.id.to_string();
        if container.record().hidden {
            index.hidden.insert(id, container);
            return;
        }
        index.names.insert(container.name(), id.clone());
        index.by_id.insert(id, container);
    }

    pub(crate) fn remove(&self, container: &Container) {
        let mut index = self.write();
        index.by_id.remove(container.id.as_str());
        index.hidden.remove(container.id.as_str());
        index.names.retain(|_, owner| owner != container.id.as_str());
    }

    pub(crate) fn exec(&self, id: &str) -> Option<Arc<Exec>> {
        self.execs.read().unwrap_or_else(PoisonError::into_inner).get(id).cloned()
    }

    pub(crate) fn exec_insert(&self, exec: Arc<Exec>) {
        let mut execs = self.execs.write().unwrap_or_else(PoisonError::into_inner);
        execs.insert(exec.id.to_string(), exec);
    }

    /// Forgets execs for which `keep` is false.
    pub(crate) fn exec_retain(&self, keep: impl Fn(&Exec) -> bool) {
        let mut execs = self.execs.write().unwrap_or_else(PoisonError::into_inner);
        execs.retain(|_, exec| keep(exec));
    }
}

impl Engine {
    /// The container that a client names by id, name or beginning of the id.
    pub fn container(&self, text: &str) -> Result<Arc<Container>, Error> {
        self.containers.find(text)
    }

    /// Announces that something happened to a container, with its labels and `more`.
    pub(crate) fn container_event(
        &self,
        container: &Container,
        action: &str,
        more: &[(&str, &str)],
    ) {
        let record = container.record();
        if record.hidden {
            return;
        }
        let mut attributes: BTreeMap<String, String> = record.config.labels.clone().into_map();
        for &(name, value) in more {
            attributes.insert(name.to_owned(), value.to_owned());
        }
        if !record.config.image.is_empty() {
            attributes.insert("image".into(), record.config.image.clone());
        }
        attributes.insert("name".into(), record.name.clone());
        self.events.publish("container", action, container.id.as_str(), attributes);
    }

    /// Writes a container's state to the database; a failure is only logged, since the shim's
    /// record tells the same.
    pub(crate) fn save_state(&self, container: &Container) {
        let state = container.state().clone();
        let json = serde_json::to_string(&state).unwrap_or_default();
        if let Err(error) = self.db.container_set_state(container.id.as_str(), &json) {
            tracing::warn!(container = %container.id, %error, "could not save state");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::container::{Record, State};

    fn container(id: &str, name: &str) -> Arc<Container> {
        let record: Record = serde_json::from_str(
            r#"{"created":1,"image":null,"os":"linux","config":{},"host_config":{},"mounts":[]}"#,
        )
        .unwrap();
        let record = Record { name: name.into(), ..record };
        let id = format!("{id:0<64}").parse().unwrap();
        Arc::new(Container::new(id, "/nowhere".into(), record, State::default()))
    }

    #[test]
    fn found_by_id_name_and_prefix() {
        let containers = Containers::default();
        containers.insert(container("abc1", "web"));
        containers.insert(container("abc2", "abc1"));
        let name = |text: &str| containers.find(text).map(|c| c.name());
        assert_eq!(name("web").unwrap(), "web");
        assert_eq!(name("/web").unwrap(), "web");
        assert_eq!(name("abc1").unwrap(), "abc1", "a name goes before a prefix");
        assert_eq!(name("abc2").unwrap(), "abc1");
        assert_eq!(name("abc10").unwrap(), "web");
        assert_eq!(
            name("abc").unwrap_err().message(),
            "multiple IDs found with provided prefix: abc"
        );
        assert_eq!(name("x").unwrap_err().message(), "No such container: x");
        assert!(name("").is_err());
    }

    #[test]
    fn names_are_taken_once() {
        let containers = Containers::default();
        let id = ContainerId::random();
        containers.reserve("web", &id).unwrap();
        let error = containers.reserve("web", &ContainerId::random()).unwrap_err();
        assert_eq!(
            error.message(),
            format!(
                "Conflict. The container name \"/web\" is already in use by container \"{id}\". You have to remove (or rename) that container to be able to reuse that name."
            )
        );
        containers.release("web");
        containers.reserve("web", &id).unwrap();
        assert_ne!(containers.reserve_generated(&id).unwrap(), "web");
    }
}
