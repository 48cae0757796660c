//! `GET /images/json`, and the numbers of `docker system df`.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use jiff::Timestamp;
use silo_docker::images::ImageSummary;
use silo_docker::query::ImageListQuery;
use silo_docker::{List, Map};
use silo_oci::reference::Reference;
use silo_types::{Digest, Error};

use super::{Entry, glob};
use crate::engine::Engine;
use crate::system::parse_moment;

pub(super) fn bytes(count: u64) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}

/// Splits names into `name:tag` and `name@digest` as people write them.
pub(super) fn split_names(names: &[Reference]) -> (Vec<String>, Vec<String>) {
    let (digests, tags): (Vec<&Reference>, Vec<&Reference>) =
        names.iter().partition(|name| name.digest().is_some());
    let familiar = |names: Vec<&Reference>| names.into_iter().map(Reference::familiar).collect();
    (familiar(tags), familiar(digests))
}

/// Does one of the patterns match one of the ways to write the name?
fn matches_reference(query: &ImageListQuery, name: &Reference) -> Result<bool, Error> {
    let targets = [name.familiar(), name.familiar_name(), name.to_string(), name.name()];
    for pattern in query.filters.get("reference") {
        for target in &targets {
            match glob::matches(pattern, target) {
                Some(true) => return Ok(true),
                Some(false) => {}
                None => return Err(Error::invalid("syntax error in pattern")),
            }
        }
    }
    Ok(false)
}

impl Engine {
    /// How many containers use each image.
    pub(super) fn image_containers(&self) -> HashMap<Digest, i64> {
        let mut counts = HashMap::new();
        for image in self.containers.all().iter().filter_map(|c| c.record().image) {
            *counts.entry(image).or_default() += 1;
        }
        counts
    }

    /// How many images have each layer.
    pub(crate) fn layer_counts(&self) -> HashMap<Digest, usize> {
        let mut counts = HashMap::new();
        for entry in self.images.read().images.values() {
            // What stands in for several layers is one.
            let layers: HashSet<&Digest> = entry.image.chain.iter().collect();
            for chain in layers {
                *counts.entry(*chain).or_default() += 1;
            }
        }
        counts
    }

    /// `GET /images/json`.
    pub fn image_list(&self, query: &ImageListQuery) -> Result<Vec<ImageSummary>, Error> {
        let filters = &query.filters;
        filters.validate(&["dangling", "label", "before", "since", "reference", "until"])?;
        let dangling = filters.boolean("dangling", false)?;
        let mut before: Option<Timestamp> = None;
        let earlier = |limit: &mut Option<Timestamp>, time: Timestamp| {
            *limit = Some(limit.map_or(time, |limit| limit.min(time)));
        };
        for name in filters.get("before") {
            if let Some(created) = self.images.find(name)?.created() {
                earlier(&mut before, created);
            }
        }
        for value in filters.get("until") {
            let moment = parse_moment(value, Timestamp::now()).ok_or_else(|| {
                Error::invalid(format!(
                    "invalid value for 'until' filter: failed to parse value as time or \
                     duration: {value:?}"
                ))
            })?;
            earlier(&mut before, moment);
        }
        let mut since: Option<Timestamp> = None;
        for name in filters.get("since") {
            since = since.max(self.images.find(name)?.created());
        }

        let containers = self.image_containers();
        let shared = if query.shared_size { self.layer_counts() } else { HashMap::new() };
        let inner = self.images.read();
        let mut names: HashMap<Digest, Vec<Reference>> = HashMap::new();
        for (name, id) in &inner.names {
            names.entry(*id).or_default().push(name.clone());
        }
        let mut summaries = Vec::new();
        for (id, entry) in &inner.images {
            let created = entry.created();
            if before.is_some_and(|before| created.is_none_or(|created| created >= before))
                || since.is_some_and(|since| created.is_none_or(|created| created <= since))
            {
                continue;
            }
            let labels = &entry.image.config.config.labels;
            if !filters.labels("label", |key| labels.get(key).map(String::as_str)) {
                continue;
            }
            let all_names = names.remove(id).unwrap_or_default();
            // What an index leads to is a part of the line of the image that its name stands for.
            if all_names.is_empty() && !inner.lists.is_empty() && !inner.names_of(id).is_empty() {
                continue;
            }
            let index = all_names.iter().find_map(|name| inner.index_of(name)).cloned();
            let mut shown = Vec::new();
            for name in all_names {
                if !filters.contains("reference") || matches_reference(query, &name)? {
                    shown.push(name);
                }
            }
            let (tags, digests) = split_names(&shown);
            let has_children = inner.has_children(id);
            if shown.is_empty() {
                let hidden = (filters.contains("dangling") && !dangling)
                    || filters.contains("reference")
                    || (has_children && !query.all);
                if hidden {
                    continue;
                }
            }
            if dangling && (!tags.is_empty() || has_children) {
                continue;
            }
            let mut summary = summarise(entry, tags, digests);
            summary.containers = containers.get(id).copied().unwrap_or(0);
            if query.shared_size {
                summary.shared_size = shared_size(entry, &shared);
            }
            if query.manifests {
                summary.manifests = self.manifests_of(&inner, entry, index.as_ref()).into();
            }
            summary.descriptor = Some(super::inspect::target(entry, index.as_ref()));
            if let Some(index) = &index {
                let others = inner.available(index).into_iter().map(|(_, other)| other);
                for other in others.filter(|other| other.id() != *id) {
                    summary.size += bytes(other.image.size());
                    summary.containers += containers.get(&other.id()).copied().unwrap_or(0);
                }
            }
            summaries.push((created, summary));
        }
        // Newest first; the map's order keeps the rest stable.
        summaries.sort_by_key(|(created, _)| std::cmp::Reverse(*created));
        Ok(summaries.into_iter().map(|(_, summary)| summary).collect())
    }
}

/// Bytes in layers that other images have, too.
pub(super) fn shared_size(entry: &Entry, counts: &HashMap<Digest, usize>) -> i64 {
    let layers = entry.image.chain.iter().zip(&entry.image.layer_sizes);
    let shared = layers.filter(|(chain, _)| counts.get(*chain).is_some_and(|count| *count > 1));
    bytes(shared.map(|(_, size)| size).sum())
}

fn summarise(
    entry: &Arc<Entry>,
    repo_tags: Vec<String>,
    repo_digests: Vec<String>,
) -> ImageSummary {
    let labels = &entry.image.config.config.labels;
    ImageSummary {
        containers: -1,
        created: entry.created().map_or(0, Timestamp::as_second),
        id: entry.id().to_string(),
        labels: if labels.is_empty() { Map::null() } else { labels.clone().into() },
        parent_id: entry.record.parent.map(|id| id.to_string()).unwrap_or_default(),
        repo_digests,
        repo_tags,
        shared_size: -1,
        size: bytes(entry.image.size()),
        descriptor: None,
        manifests: List::null(),
    }
}
