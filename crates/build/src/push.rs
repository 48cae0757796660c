//! What was built, to registries.

use std::collections::BTreeMap;
use std::sync::Arc;

use silo_oci::image::{Descriptor, Index, media, to_bytes};
use silo_oci::reference::{DEFAULT_TAG, Reference};
use silo_registry::{Action, PushOptions};
use silo_types::Error;

use crate::attest::export::{AttachOptions, attach};
use crate::builder::Builder;
use crate::outcome::Outcome;
use crate::secret::RegistryKeys;

/// Where an image goes, and how.
#[derive(Debug, Clone)]
pub struct PushTo {
    /// Its name; without a tag, `latest`.
    pub name: Reference,
    /// It gets no tag, and `name` has none.
    pub by_digest: bool,
    /// The registry may be without TLS.
    pub insecure: bool,
    /// How it is packed; the tag is that of the name.
    pub options: PushOptions,
    /// How what is said of it goes with it.
    pub attach: AttachOptions,
}

impl Builder {
    /// Sends an image, or (`is_list`) an index of several and of what is said of them, to a
    /// registry. Gives back the manifest or index there.
    pub async fn push(
        self: &Arc<Self>,
        outcomes: &[Outcome],
        is_list: bool,
        to: &PushTo,
        keys: &dyn RegistryKeys,
    ) -> Result<Descriptor, Error> {
        let name = &to.name;
        if to.by_digest && (name.tag().is_some() || name.digest().is_some()) {
            // buildkit wording
            return Err(Error::invalid(format!("can't push tagged ref {name} by digest")));
        }
        if name.digest().is_some() {
            return Err(Error::invalid("cannot push a digest reference"));
        }
        let tag = (!to.by_digest).then(|| name.tag().unwrap_or(DEFAULT_TAG).to_owned());
        let repository = self.repository(name, Action::Push, keys, to.insecure).await?;
        let is_said = outcomes.iter().any(|outcome| !outcome.said.attestations.is_empty());
        if is_said && is_list && to.options.oci_types == Some(false) {
            // buildkit wording
            let text = "cannot export attestations with \"oci-mediatypes=false\"";
            return Err(Error::invalid(text));
        }
        let usual = PushOptions {
            // The images of a list are found by the list.
            tag: tag.clone().filter(|_| !is_list),
            oci_types: to.options.oci_types.or_else(|| (is_said && is_list).then_some(true)),
            ..to.options.clone()
        };
        let mut manifests = Vec::new();
        for outcome in outcomes {
            let (builder, outcome) = (Arc::clone(self), outcome.clone());
            let stored = tokio::task::spawn_blocking(move || builder.stored(&outcome)).await;
            let stored = stored.map_err(|error| Error::internal(error.to_string()))??;
            let mut own = usual.clone();
            for source in self.engine.push_sources(&stored.image) {
                let domain = source.split('/').next().unwrap_or_default().to_owned();
                if domain != name.domain() && !own.sources.contains_key(&domain) {
                    own.sources.insert(domain.clone(), keys.credentials(&domain).await);
                }
            }
            let pushed = self.engine.push_stored(&stored.image, name, &repository, &own);
            let mut manifest = pushed.await?;
            manifest.platform = Some(stored.image.config.platform());
            manifests.push(manifest);
        }
        if !is_list {
            let manifest = manifests.pop();
            return manifest.ok_or_else(|| Error::internal("a push of nothing"));
        }
        let names = [if to.by_digest { name.clone() } else { tagged(name)? }];
        let attach = attach(outcomes, &names, to.attach);
        let places = manifests.iter().enumerate();
        let said: Vec<_> = places.filter_map(|(at, image)| attach(at, image)).collect();
        for said in said {
            silo_registry::push_attached(&repository, &said).await.map_err(Error::from_kind)?;
            manifests.push(said.descriptor);
        }
        let media_type = match to.options.oci_types {
            Some(false) => media::DOCKER_LIST,
            _ => media::OCI_INDEX,
        };
        let list = Index {
            schema_version: 2,
            media_type: media_type.to_owned(),
            manifests,
            annotations: BTreeMap::new(),
        };
        let bytes = to_bytes(&list);
        let put = repository.put_manifest(tag.as_deref(), media_type, &bytes);
        let digest = put.await.map_err(Error::from_kind)?;
        if let Some(tag) = &tag {
            let ids: Vec<_> = outcomes.iter().map(|outcome| outcome.image).collect();
            self.engine.pushed_index(name, tag, &ids, &digest)?;
        }
        Ok(Descriptor::new(media_type, digest, bytes.len() as u64))
    }
}

/// A name with the tag that it gets.
fn tagged(name: &Reference) -> Result<Reference, Error> {
    match name.tag() {
        Some(_) => Ok(name.clone()),
        None => name.with_tag(DEFAULT_TAG).map_err(Error::from_kind),
    }
}
