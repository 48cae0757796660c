//! Removing names and images, and pruning.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;
use silo_docker::Filters;
use silo_docker::images::{DeleteItem, ImagesPruneReport};
use silo_docker::query::ImageRemoveQuery;
use silo_oci::platform::Platform;
use silo_oci::reference::Reference;
use silo_types::{Digest, Error};

use super::short;
use crate::container::Container;
use crate::engine::Engine;
use crate::mountpoints::MountKind;
use crate::system::parse_moment;

fn untagged(name: &Reference) -> DeleteItem {
    DeleteItem { untagged: name.familiar(), ..DeleteItem::default() }
}

fn deleted(id: &Digest) -> DeleteItem {
    DeleteItem { deleted: id.to_string(), ..DeleteItem::default() }
}

/// Is it one tag, perhaps with digests of the same repository?
fn is_single(names: &[Reference]) -> bool {
    if names.len() <= 1 {
        return names.len() == 1;
    }
    let (digests, tags): (Vec<&Reference>, Vec<&Reference>) =
        names.iter().partition(|name| name.digest().is_some());
    if tags.len() > 1 {
        return false;
    }
    let single = tags.first().copied().unwrap_or(&names[0]).name();
    let repositories: BTreeSet<String> = digests.iter().map(|name| name.name()).collect();
    repositories.len() == 1 && repositories.contains(&single)
}

/// Why an image cannot go.
struct Obstacle {
    message: String,
    /// Because a container uses it.
    used: bool,
    /// Even force does not help.
    hard: bool,
}

impl Obstacle {
    fn error(self, id: &Digest) -> Error {
        let force = if self.hard { "cannot be forced" } else { "must be forced" };
        let message = self.message;
        Error::conflict(format!("conflict: unable to delete {} ({force}) - {message}", short(id)))
    }
}

impl Engine {
    fn image_user(&self, uses: impl Fn(&Container) -> bool) -> Option<String> {
        let containers = self.containers.all();
        let user = containers.iter().find(|container| uses(container))?;
        Some(user.id.short().to_owned())
    }

    /// What keeps an image: children and running containers always, names and stopped containers
    /// unless they are to be ignored.
    fn image_obstacle(&self, id: &Digest, names: bool, stopped: bool) -> Option<Obstacle> {
        if self.images.read().has_children(id) {
            let message = "image has dependent child images".to_owned();
            return Some(Obstacle { message, used: false, hard: true });
        }
        let made_of = |container: &Container| container.record().image == Some(*id);
        if let Some(user) = self.image_user(|c| made_of(c) && c.is_running()) {
            let message = format!("image is being used by running container {user}");
            return Some(Obstacle { message, used: true, hard: true });
        }
        if names && !self.images.names(id).is_empty() {
            let message = "image is referenced in multiple repositories".to_owned();
            return Some(Obstacle { message, used: false, hard: false });
        }
        if stopped && let Some(user) = self.image_user(|c| made_of(c) && !c.is_running()) {
            let message = format!("image is being used by stopped container {user}");
            return Some(Obstacle { message, used: true, hard: false });
        }
        None
    }

    fn image_untag(&self, name: &Reference, id: &Digest) -> Result<DeleteItem, Error> {
        self.images.untag(name)?;
        self.image_event("untag", id, &id.to_string());
        Ok(untagged(name))
    }

    /// Removes an image without regard to how it was named, then its unnamed parents.
    /// With `quiet`, an image that is still of use stays without an error.
    fn image_delete(
        &self,
        mut id: Digest,
        items: &mut Vec<DeleteItem>,
        mut query: ImageRemoveQuery,
        mut quiet: bool,
    ) -> Result<(), Error> {
        loop {
            if let Some(obstacle) = self.image_obstacle(&id, !query.force, !query.force) {
                let dangling = {
                    let inner = self.images.read();
                    inner.names_of(&id).is_empty() && !inner.has_children(&id)
                };
                if quiet && (!dangling || obstacle.used) {
                    return Ok(());
                }
                return Err(obstacle.error(&id));
            }
            let Some(entry) = self.images.get(&id) else { return Ok(()) };
            for name in self.images.names(&id) {
                items.push(self.image_untag(&name, &id)?);
            }
            self.images.forget(&id)?;
            self.image_event("delete", &id, &id.to_string());
            items.push(deleted(&id));
            match entry.record.parent {
                Some(parent) if !query.no_prune => id = parent,
                _ => return Ok(()),
            }
            (query.force, quiet) = (false, true);
        }
    }

    /// The other images of the indexes that lead to an image.
    fn image_siblings(&self, names: &[Reference], id: &Digest) -> Vec<Digest> {
        let inner = self.images.read();
        let indexes = names.iter().filter_map(|name| inner.index_of(name));
        let images = indexes.flat_map(|index| inner.available(index));
        let mut siblings: Vec<Digest> = images.map(|(_, entry)| entry.id()).collect();
        siblings.retain(|sibling| sibling != id);
        siblings.sort();
        siblings.dedup();
        siblings
    }

    /// Names and records of one removal; layers stay until the next collection.
    fn image_remove_records(
        &self,
        text: &str,
        query: ImageRemoveQuery,
    ) -> Result<Vec<DeleteItem>, Error> {
        match self.images.behind_digest(text) {
            None => self.image_remove_by(text, query),
            // A manifest stands for its image.
            Some((id, names)) if names.is_empty() => self.image_remove_by(&id.to_string(), query),
            // An index stands for its names.
            Some((id, names)) => {
                let tags = names.iter().filter(|name| name.tag().is_some()).count();
                if tags > 1 && !query.force {
                    let message = "image is referenced in multiple repositories".to_owned();
                    return Err(Obstacle { message, used: false, hard: false }.error(&id));
                }
                let mut items = Vec::new();
                for name in names {
                    // The digests of a repository went with its last tag.
                    if self.images.by_name(&name).is_some() {
                        items.extend(self.image_remove_by(&name.to_string(), query)?);
                    }
                }
                Ok(items)
            }
        }
    }

    fn image_remove_by(
        &self,
        text: &str,
        query: ImageRemoveQuery,
    ) -> Result<Vec<DeleteItem>, Error> {
        let entry = self.images.find(text)?;
        let id = entry.id();
        let names = self.images.names(&id);
        let siblings = self.image_siblings(&names, &id);
        let mut items = self.image_remove_one(text, id, &names, &siblings, query)?;
        // What only the index led to goes with it.
        for sibling in siblings {
            if self.images.names(&sibling).is_empty() {
                self.image_delete(sibling, &mut items, query, true)?;
            }
        }
        Ok(items)
    }

    /// Removes images for some platforms of an index; the names stay with the others.
    fn image_remove_platforms(
        &self,
        text: &str,
        platforms: &[Platform],
        force: bool,
    ) -> Result<Vec<DeleteItem>, Error> {
        let mut images = BTreeSet::new();
        for platform in platforms {
            images.insert(self.images.find_for(text, Some(platform))?.id());
        }
        let mut items = Vec::new();
        for id in images {
            self.image_delete_of_index(id, &mut items, force)?;
        }
        Ok(items)
    }

    /// Removes an image to which an index leads, which stays for others.
    fn image_delete_of_index(
        &self,
        id: Digest,
        items: &mut Vec<DeleteItem>,
        force: bool,
    ) -> Result<(), Error> {
        if let Some(obstacle) = self.image_obstacle(&id, false, !force) {
            return Err(obstacle.error(&id));
        }
        let before = self.images.names(&id);
        self.image_event("delete", &id, &id.to_string());
        self.images.forget(&id)?;
        let gone = before.iter().filter(|name| self.images.by_name(name).is_none());
        items.extend(gone.map(untagged));
        items.push(deleted(&id));
        Ok(())
    }

    fn image_remove_one(
        &self,
        text: &str,
        id: Digest,
        names: &[Reference],
        siblings: &[Digest],
        query: ImageRemoveQuery,
    ) -> Result<Vec<DeleteItem>, Error> {
        let mut items = Vec::new();
        let by_id = id.to_string().starts_with(text) || id.hex().starts_with(text);
        let mut quiet = false;
        if by_id {
            let is_shown = names.iter().any(|name| self.images.by_name(name) == Some(id));
            if !names.is_empty() && !is_shown {
                // The id is of no image that a name stands for: the others stay.
                self.image_delete_of_index(id, &mut items, query.force)?;
                return Ok(items);
            }
            if is_single(names) {
                if let Some(obstacle) = self.image_obstacle(&id, false, !query.force) {
                    return Err(obstacle.error(&id));
                }
                for name in names {
                    items.push(self.image_untag(name, &id)?);
                }
            }
        } else {
            if !query.force && is_single(names) {
                let is_one = |image: &Digest| *image == id || siblings.contains(image);
                let uses = |container: &Container| {
                    let record = container.record();
                    record.image.as_ref().is_some_and(is_one)
                        || record.mounts.iter().any(|mount| {
                            mount.kind == MountKind::Image
                                && mount.source.parse().is_ok_and(|image| is_one(&image))
                        })
                };
                if let Some(user) = self.image_user(uses) {
                    return Err(Error::conflict(format!(
                        "conflict: unable to remove repository reference {text:?} (must force) - \
                         container {user} is using its referenced image {}",
                        short(&id)
                    )));
                }
            }
            let mut name = Reference::parse_normalized(text).map_err(Error::from_kind)?;
            if let Some(digest) = name.digest() {
                name = name.with_digest(*digest);
            }
            items.push(self.image_untag(&name, &id)?);
            let mut left = self.images.names(&id);
            // Digests of a repository go with its last tag.
            let repository = name.name();
            let last_tag = name.digest().is_none()
                && !left.iter().any(|n| n.digest().is_none() && n.name() == repository);
            if last_tag {
                for digest in left.iter().filter(|n| n.name() == repository) {
                    self.images.untag(digest)?;
                    items.push(untagged(digest));
                }
                left.retain(|n| n.name() != repository);
            }
            if !left.is_empty() {
                return Ok(items);
            }
            quiet = true;
        }
        self.image_delete(id, &mut items, query, quiet)?;
        Ok(items)
    }

    /// `DELETE /images/{name}`; with platforms, only the images for these.
    pub async fn image_remove(
        &self,
        text: &str,
        query: ImageRemoveQuery,
        platforms: &[Platform],
    ) -> Result<Vec<DeleteItem>, Error> {
        let _one_at_a_time = self.images.removing.lock().await;
        let mut items = if platforms.is_empty() {
            self.image_remove_records(text, query)?
        } else {
            self.image_remove_platforms(text, platforms, query.force)?
        };
        if items.iter().any(|item| !item.deleted.is_empty()) {
            let collected = self.images.collect().await?;
            self.collect_registries();
            items.extend(collected.layers.iter().map(deleted));
        }
        Ok(items)
    }

    /// `POST /images/prune`.
    pub async fn image_prune(&self, filters: &Filters) -> Result<ImagesPruneReport, Error> {
        filters.validate(&["dangling", "label", "label!", "until"])?;
        let Ok(_one_at_a_time) = self.images.removing.try_lock() else {
            return Err(Error::conflict("a prune operation is already running"));
        };
        let dangling = filters.boolean("dangling", true)?;
        let until = prune_until(filters)?;
        let mut items = Vec::new();
        let candidates: Vec<Digest> = {
            let inner = self.images.read();
            let wanted = inner.images.values().filter(|entry| {
                let labels = &entry.image.config.config.labels;
                let label = |key: &str| labels.get(key).map(String::as_str);
                let excluded = filters.contains("label!") && filters.labels("label!", label);
                // What only a child needs stays with the child; what has a name is the user's.
                let kept_by_child =
                    inner.has_children(&entry.id()) && inner.names_of(&entry.id()).is_empty();
                !kept_by_child
                    && until.is_none_or(|until| entry.created().is_some_and(|c| c <= until))
                    && filters.labels("label", label)
                    && !excluded
            });
            let mut wanted: Vec<_> =
                wanted.map(|entry| (std::cmp::Reverse(entry.created()), entry.id())).collect();
            // Children before parents, so that a parent has no child left when its turn comes.
            wanted.sort();
            wanted.into_iter().map(|(_, id)| id).collect()
        };
        for id in candidates {
            let names = self.images.names(&id);
            let targets: Vec<String> = if names.is_empty() {
                vec![id.hex()]
            } else if !dangling || names.iter().all(|name| name.tag().is_none()) {
                names.iter().map(ToString::to_string).collect()
            } else {
                continue;
            };
            for target in targets {
                match self.image_remove_records(&target, ImageRemoveQuery::default()) {
                    Ok(removed) => items.extend(removed),
                    // Images in use stay.
                    Err(error) => tracing::debug!(target, error = error.chain(), "not pruned"),
                }
            }
        }
        let mut report = ImagesPruneReport::default();
        if !items.is_empty() {
            let collected = self.images.collect().await?;
            self.collect_registries();
            items.extend(collected.layers.iter().map(deleted));
            report.space_reclaimed = collected.bytes;
            report.images_deleted = items.into();
        }
        let reclaimed = report.space_reclaimed.to_string();
        let attributes = BTreeMap::from([("reclaimed".to_owned(), reclaimed)]);
        self.events.publish("image", "prune", "", attributes);
        Ok(report)
    }
}

/// The `until` of a prune request.
fn prune_until(filters: &Filters) -> Result<Option<Timestamp>, Error> {
    let values: Vec<&str> = filters.get("until").collect();
    match values[..] {
        [] => Ok(None),
        [value] => match parse_moment(value, Timestamp::now()) {
            Some(moment) => Ok(Some(moment)),
            None => Err(Error::invalid(format!(
                "invalid value for 'until' filter: failed to parse value as time or duration: \
                 {value:?}"
            ))),
        },
        _ => Err(Error::invalid("more than one until filter specified")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn single_references() {
        let digest = format!("@sha256:{}", "0".repeat(64));
        let name = |text: &str| Reference::parse(text).unwrap();
        let with_digest = |repo: &str| name(&format!("{repo}{digest}"));
        for (names, expected) in [
            (vec![], false),
            (vec![name("a:1")], true),
            (vec![name("a:1"), name("a:2")], false),
            (vec![name("a:1"), with_digest("a")], true),
            (vec![name("a:1"), with_digest("b")], false),
            (vec![with_digest("a"), with_digest("b")], false),
        ] {
            assert_eq!(is_single(&names), expected, "{names:?}");
        }
    }
}
