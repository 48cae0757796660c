//! Silo's bases in place of Microsoft's layers, when an image is pulled.

use std::sync::Arc;

use silo_oci::image::{MAX_DOCUMENT, Manifest};
use silo_oci::reference::Reference;
use silo_registry::{Base, Bases, Candidate, Known as _, Place};
use silo_store::{Replaced, StandIn};
use silo_types::{Error, ErrorKind};
use silo_windows::base::{REPOSITORY, build};

use super::not_set_up;
use super::recognise::{Learned, Recognised, recognise};
use crate::engine::Engine;
use crate::images::{Entry, Places};

/// Where the layers of Microsoft's own images are remembered.
const LEARNED: &str = "windows-bases";
/// How many of those images are.
const MAX_LEARNED: usize = 256;

/// The bases of an engine.
#[derive(Debug)]
pub(crate) struct OwnBases(pub(crate) Arc<Engine>);

/// What is said of an image that stands on one of Silo's bases.
pub(crate) fn notice(name: &str, stand_in: &StandIn) -> String {
    let size: u64 = stand_in.replaced.iter().map(|layer| layer.blob.size).sum();
    let size = size.div_ceil(1_000_000);
    format!(
        "{name} stands on {}, Silo's compatible base, which is made of Wine, in place of Microsoft's base layers ({}, {size} MB)",
        stand_in.name,
        stand_in.replaced.len(),
    )
}

impl Bases for OwnBases {
    fn find(&self, candidate: &Candidate<'_>) -> Result<Option<Base>, Error> {
        let Candidate { reference, manifest, config } = candidate;
        let name = reference.familiar();
        let engine = &self.0;
        let learned = engine.learned_bases();
        let found = recognise(Some(reference), manifest, config, &learned);
        let found = found.map_err(|why| {
            Error::invalid(format!(
                "cannot put a base of Silo's beneath {name}: {why}; --base=exact fetches all its layers as they are"
            ))
        })?;
        let Some(found) = found else { return Ok(None) };
        let base = format!("{REPOSITORY}/{}:{}", found.kind.name, found.build.tag);
        let top = engine.image(&base).ok().and_then(|entry| entry.image.top());
        let top = top.ok_or_else(not_set_up)?;
        let pairs = config.rootfs.diff_ids.iter().zip(&manifest.layers).take(found.layers);
        let replaced =
            pairs.map(|(diff_id, blob)| Replaced { diff_id: *diff_id, blob: blob.clone() });
        let stand_in = StandIn { name: base, base: top, replaced: replaced.collect() };
        if found.is_base {
            engine.learn_base(reference, &found, &stand_in);
        }
        engine.remember_source(reference, &stand_in);
        let (number, revision) = found.version;
        let tar = build::version_layer(number, revision).map_err(|error| {
            Error::internal(format!(
                "make the layer that says which Windows it is: {}",
                silo_types::error::chain(&error)
            ))
        })?;
        Ok(Some(Base { notice: notice(&name, &stand_in), stand_in, tar }))
    }
}

impl Engine {
    /// The layers of Microsoft's own images, as far as these were seen.
    fn learned_bases(&self) -> Vec<Learned> {
        let text = self.db.get(LEARNED).unwrap_or_default().unwrap_or_default();
        serde_json::from_str(&text).unwrap_or_default()
    }

    /// Remembers the layers of one of Microsoft's images. It is only a memory: what it has not
    /// is found by other signs.
    fn learn_base(&self, reference: &Reference, found: &Recognised, stand_in: &StandIn) {
        // Whoever can put images there is Microsoft.
        if reference.domain() != "mcr.microsoft.com" {
            return;
        }
        let (number, revision) = found.version;
        let new = Learned {
            diff_ids: stand_in.replaced.iter().map(|layer| layer.diff_id).collect(),
            kind: found.kind.name.to_owned(),
            version: format!("10.0.{number}.{revision}"),
        };
        let mut learned = self.learned_bases();
        if learned.contains(&new) {
            return;
        }
        learned.retain(|known| known.diff_ids != new.diff_ids);
        learned.insert(0, new);
        learned.truncate(MAX_LEARNED);
        let text = serde_json::to_string(&learned).unwrap_or_default();
        if let Err(error) = self.db.set(LEARNED, &text) {
            tracing::warn!(%error, "remember the layers of a base");
        }
    }

    /// Remembers where the layers are that were not fetched, for a push to somewhere else.
    fn remember_source(&self, reference: &Reference, stand_in: &StandIn) {
        let places = Places(Arc::clone(&self.db));
        for layer in stand_in.replaced.iter().filter(|layer| layer.blob.urls.is_empty()) {
            let place = Place {
                blob: layer.blob.clone(),
                domain: reference.domain().to_owned(),
                path: reference.path().to_owned(),
            };
            places.remember(&layer.diff_id, &place);
        }
    }

    /// What the client is told of an image that stands on one of Silo's bases.
    pub(crate) fn windows_stands_on(name: &str, entry: &Entry) -> Option<String> {
        entry.image.stand_in.as_ref().map(|stand_in| notice(name, stand_in))
    }

    /// What is said when an image is pushed that has Silo's base in its manifest.
    pub(crate) fn windows_push_note(&self, name: &str, entry: &Entry) -> Option<String> {
        if entry.image.stand_in.is_some() || entry.image.config.os != super::OS {
            return None;
        }
        let lowest = entry.image.chain.first()?;
        let base = self.silo_bases().find(|base| base.chain.first() == Some(lowest))?;
        Some(format!(
            "{name} has the layers of Silo's own base ({}), not Microsoft's: it runs with Silo, and not on a Windows host. For an image that does, pull Microsoft's base by name, and build again",
            base.name
        ))
    }

    /// Refuses an image with Microsoft's own base: its programs are not made for Wine.
    pub(crate) fn windows_is_runnable(&self, name: &str, entry: &Entry) -> Result<(), Error> {
        if entry.image.stand_in.is_some() {
            return Ok(());
        }
        let read = self.store.read_blob(&entry.image.manifest.digest, MAX_DOCUMENT as u64);
        let Some(manifest) = read.ok().and_then(|bytes| Manifest::parse(&bytes).ok()) else {
            return Ok(());
        };
        let config = &entry.image.config;
        let found = recognise(None, &manifest, config, &self.learned_bases());
        match found {
            Ok(None) => Ok(()),
            Ok(Some(_)) | Err(_) => Err(Error::new(
                ErrorKind::Conflict,
                format!(
                    "{name} has Microsoft's own base layers (it was pulled with --base=exact), which need a Windows host; pull it without --base=exact to run it on Silo's base"
                ),
            )),
        }
    }

    /// Refuses an image for which something stands in, to those who want none of that.
    pub fn windows_is_exact(&self, name: &str) -> Result<(), Error> {
        match &self.image(name)?.image.stand_in {
            None => Ok(()),
            Some(stand_in) => Err(Error::new(
                ErrorKind::Conflict,
                format!(
                    "{name} stands on {}: with --base=exact it cannot run on this host, for Microsoft's own base needs Windows",
                    stand_in.name
                ),
            )),
        }
    }
}
