//! Images from registries.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::Serialize;
use silo_docker::stream::StreamMessage;
use silo_oci::image::{Descriptor, Document, ImageConfig, MAX_DOCUMENT};
use silo_oci::platform::Platform;
use silo_oci::reference::{Reference, is_identifier};
use silo_registry::{Action, Bases, Credentials, Progress, Pulling, Repository};
use silo_types::{Digest, Error, ErrorKind};

use crate::engine::Engine;
use crate::images::Entry;
use crate::windows::bases::OwnBases;

/// A pull whose first manifest has come: what can still go wrong is told in its stream.
#[derive(Debug)]
pub struct ImagePull {
    engine: Arc<Engine>,
    repository: Arc<Repository>,
    platform: Option<Platform>,
    first: (Reference, Pulling),
    /// Further tags.
    rest: Vec<Reference>,
    bases: Option<Arc<dyn Bases>>,
}

/// What is to be beneath images that have Microsoft's base layers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum WhichBase {
    /// As the engine's settings say.
    #[default]
    Default,
    /// Those layers.
    Exact,
}

impl std::str::FromStr for WhichBase {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        match text {
            "" | "silo" => Ok(Self::Default),
            "exact" => Ok(Self::Exact),
            _ => Err(Error::invalid(format!(
                "invalid value for base: {text:?}: must be \"silo\" or \"exact\""
            ))),
        }
    }
}

/// What `GET /distribution/{name}/json` answers.
#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct DistributionInspect {
    /// The manifest or index.
    pub descriptor: Descriptor,
    /// What it runs on.
    pub platforms: Vec<Platform>,
}

/// Names that mean something else.
fn check_name(reference: &Reference) -> Result<(), Error> {
    if reference.familiar_name() == "scratch" {
        // docker wording
        return Err(Error::new(ErrorKind::Forbidden, "'scratch' is a reserved name"));
    }
    Ok(())
}

impl Engine {
    /// `POST /images/create?fromImage=`: finds the image on its registry. A reference without tag
    /// and digest means all tags.
    pub async fn image_pull(
        self: &Arc<Self>,
        reference: &Reference,
        platform: Option<Platform>,
        base: WhichBase,
        credentials: &Credentials,
    ) -> Result<ImagePull, Error> {
        check_name(reference)?;
        let repository = Arc::new(self.repository(reference, Action::Pull, credentials)?);
        let mut rest = Vec::new();
        if reference.is_name_only() {
            for tag in repository.tags().await.map_err(Error::from_kind)? {
                rest.push(reference.with_tag(&tag).map_err(Error::from_kind)?);
            }
            rest.reverse();
            if rest.is_empty() {
                let text = format!("repository {} has no tags", reference.familiar_name());
                return Err(Error::not_found(text));
            }
        }
        let first = rest.pop().unwrap_or_else(|| reference.clone());
        let begun = self.puller.begin(Arc::clone(&repository), &first, platform.as_ref()).await;
        let pulling = begun.map_err(Error::from_kind)?;
        let stands = self.config.windows_substitutes && base == WhichBase::Default;
        let bases = stands.then(|| Arc::new(OwnBases(Arc::clone(self))) as Arc<dyn Bases>);
        Ok(ImagePull {
            engine: Arc::clone(self),
            repository,
            platform,
            first: (first, pulling),
            rest,
            bases,
        })
    }

    /// Pulls one image that something else than a client's request needs, such as a build.
    pub async fn image_pull_for(
        self: &Arc<Self>,
        name: &str,
        platform: Option<Platform>,
        base: WhichBase,
        credentials: &Credentials,
        sink: impl Fn(StreamMessage) + Send + Sync + 'static,
    ) -> Result<Arc<Entry>, Error> {
        let reference = Reference::parse_normalized(name).map_err(Error::from_kind)?;
        let pull = self.image_pull(&reference, platform.clone(), base, credentials).await?;
        pull.run(sink).await?;
        self.image_best(name, platform.as_ref())
    }

    /// Records what was pulled; `true` if the name did not lead to it before.
    fn record_pulled(
        &self,
        reference: &Reference,
        pulled: silo_registry::Pulled,
    ) -> Result<bool, Error> {
        let id = pulled.image.id;
        let by_digest = reference.with_digest(pulled.digest);
        let name = if reference.digest().is_some() { by_digest.clone() } else { reference.clone() };
        let index = pulled.index.as_ref();
        let is_new = match index {
            Some(index) => {
                !self.images.names(&id).contains(&name)
                    || self
                        .images
                        .index_by_name(&name)
                        .is_none_or(|known| known.descriptor.digest != index.descriptor.digest)
            }
            None => self.images.by_name(&name) != Some(id),
        };
        let mut names = vec![by_digest];
        if !names.contains(&name) {
            names.push(name);
        }
        self.images.put_indexed(pulled.image, None, &names, index)?;
        // The record keeps the content from here on.
        drop(pulled.lease);
        self.remote_event("pull", reference, &id);
        Ok(is_new)
    }

    /// Announces what happened between an image and a registry.
    pub(super) fn remote_event(&self, action: &str, reference: &Reference, id: &Digest) {
        let mut attributes: BTreeMap<String, String> = BTreeMap::new();
        if let Some(entry) = self.images.get(id) {
            attributes.clone_from(&entry.image.config.config.labels);
        }
        attributes.insert("name".into(), reference.familiar_name());
        self.events.publish("image", action, &reference.familiar(), attributes);
    }

    /// `GET /distribution/{name}/json`: what a registry has under a name.
    pub async fn distribution_inspect(
        &self,
        name: &str,
        credentials: &Credentials,
    ) -> Result<DistributionInspect, Error> {
        if is_identifier(name.strip_prefix("sha256:").unwrap_or(name)) {
            // docker wording
            return Err(Error::invalid("no manifest found for full image ID"));
        }
        let reference = Reference::parse_normalized(name).map_err(Error::from_kind)?;
        let failed = |error: silo_registry::Error| Error::from_kind(error);
        let repository = self.repository(&reference, Action::Pull, credentials)?;
        let resolved = repository.manifest(&reference).await.map_err(failed)?;
        let platforms = match &resolved.document {
            Document::Index(index) => {
                index.manifests.iter().filter_map(|entry| entry.platform.clone()).collect()
            }
            Document::Manifest(manifest) => {
                let config = repository.blob_bytes(&manifest.config, MAX_DOCUMENT).await;
                let config = ImageConfig::parse(&config.map_err(failed)?);
                config.map(|config| vec![config.platform()]).unwrap_or_default()
            }
        };
        Ok(DistributionInspect { descriptor: resolved.descriptor, platforms })
    }

    /// A repository of a registry, by the engine's settings.
    pub fn repository(
        &self,
        reference: &Reference,
        action: Action,
        credentials: &Credentials,
    ) -> Result<Repository, Error> {
        self.registries.repository(reference, action, credentials).map_err(Error::from_kind)
    }

    /// The same, whose server may have any certificate, or be without TLS.
    pub fn insecure_repository(
        &self,
        reference: &Reference,
        action: Action,
        credentials: &Credentials,
    ) -> Result<Repository, Error> {
        let registries = Arc::new(self.registries.trusting(reference.domain()));
        registries.repository(reference, action, credentials).map_err(Error::from_kind)
    }

    /// `POST /auth`: whether credentials are good; gives a token that stands for the password, or
    /// nothing.
    pub async fn registry_login(&self, credentials: &Credentials) -> Result<String, Error> {
        self.registries.login(credentials).await.map_err(|error| {
            let error = Error::from_kind(error);
            let kind = match error.kind() {
                // docker wording: wrong credentials are 401 whatever the registry says
                ErrorKind::Forbidden => ErrorKind::Unauthorized,
                kind => kind,
            };
            Error::new(kind, error.message())
        })
    }
}

impl ImagePull {
    /// Fetches everything, and tells `sink` how it goes.
    pub async fn run(
        self,
        sink: impl Fn(StreamMessage) + Send + Sync + 'static,
    ) -> Result<(), Error> {
        let sink = Arc::new(sink);
        let told = Arc::clone(&sink);
        let progress = Progress::new(move |message| told(message));
        let (reference, pulling) = self.first;
        let mut next = Some((reference, pulling));
        let mut rest = self.rest;
        while let Some((reference, pulling)) = next {
            let selector = match reference.digest() {
                Some(digest) => digest.to_string(),
                None => reference.tag().unwrap_or_default().to_owned(),
            };
            let path = self.repository.path();
            sink(StreamMessage {
                id: selector,
                ..StreamMessage::status(format!("Pulling from {path}"))
            });
            let pulling = match &self.bases {
                Some(bases) => pulling.with_bases(Arc::clone(bases)),
                None => pulling,
            };
            let pulled = pulling.run(&progress).await.map_err(Error::from_kind)?;
            sink(StreamMessage::status(format!("Digest: {}", pulled.digest)));
            let is_new = self.engine.record_pulled(&reference, pulled)?;
            let familiar = reference.familiar();
            // docker wording
            sink(StreamMessage::status(if is_new {
                format!("Status: Downloaded newer image for {familiar}")
            } else {
                format!("Status: Image is up to date for {familiar}")
            }));
            next = match rest.pop() {
                None => None,
                Some(reference) => {
                    let repository = Arc::clone(&self.repository);
                    let begun =
                        self.engine.puller.begin(repository, &reference, self.platform.as_ref());
                    let pulling = begun.await.map_err(Error::from_kind)?;
                    Some((reference, pulling))
                }
            };
        }
        Ok(())
    }
}
