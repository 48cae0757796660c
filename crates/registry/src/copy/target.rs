//! Where images go.

use std::collections::BTreeMap;
use std::fs::TryLockError;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use fs_err::File;
use serde_json::Value;
use silo_oci::image::{Descriptor, Document, Index, media, to_bytes};
use silo_oci::reference::Reference;
use silo_types::Digest;
use tokio::sync::OnceCell;

use super::archive::Outgoing;
use super::check::Checked;
use super::location::{Location, Selector};
use super::naming::Naming;
use super::partial::{PARTIAL, Partial};
use super::remote::Remote;
use super::source::Source;
use super::tar::Tar;
use super::upload::upload;
use super::{Content, CopyError, Name, held, layout, referrers};
use crate::progress::Meter;
use crate::{Action, Credentials, Error, Registries};

/// Where an image goes.
#[derive(Debug)]
pub struct Target(Kind);

#[derive(Debug)]
enum Kind {
    Registry {
        remote: Remote,
        /// Whether the registry knows of referrers.
        refers: OnceCell<bool>,
    },
    Directory {
        path: PathBuf,
        naming: Naming,
        index: Mutex<Value>,
        /// Held until the end.
        _lock: File,
    },
    Archive {
        aside: Option<PathBuf>,
        wanted: Option<Digest>,
        tar: Arc<Mutex<Tar>>,
    },
}

/// Keeps others from writing to a layout; refused while somebody else does.
fn lock(path: &Path) -> Result<File, CopyError> {
    let directory = File::open(path).map_err(CopyError::io("open", path))?;
    match directory.file().try_lock() {
        Ok(()) => Ok(directory),
        Err(TryLockError::WouldBlock) => {
            let reason = "another copy writes to it".to_owned();
            Err(CopyError::Layout { path: path.to_owned(), reason })
        }
        Err(TryLockError::Error(error)) => Err(CopyError::io("lock", path)(error)),
    }
}

impl Target {
    /// Opens a target. Registries are asked when there is something to ask.
    pub fn open(
        location: &Location,
        registries: &Arc<Registries>,
        credentials: &Credentials,
    ) -> Result<Self, CopyError> {
        Ok(Self(match location {
            Location::Registry(reference) => {
                let remote = Remote::open(reference, Action::Push, registries, credentials)?;
                Kind::Registry { remote, refers: OnceCell::new() }
            }
            Location::Layout(path, selector) => {
                layout::create(path)?;
                let lock = lock(path)?;
                let index = Mutex::new(layout::read_index(path)?);
                let (path, naming) = (path.clone(), Naming::plain(selector));
                Kind::Directory { path, naming, index, _lock: lock }
            }
            Location::Archive(path, selector) => {
                archive(Tar::plain(Outgoing::create(path)?, Naming::plain(selector)))
            }
            Location::Docker(path, selector) => {
                let naming = Naming::docker(selector)?;
                archive(Tar::docker(Outgoing::create(path)?, naming))
            }
            Location::Engine(_) => return Err(CopyError::engine(location)),
        }))
    }

    /// An archive for `docker load`, of one image of this name.
    pub fn docker_archive(file: File, name: &Reference) -> Result<Self, CopyError> {
        let naming = Naming::docker(&Selector::Tag(name.familiar()))?;
        Ok(Self(archive(Tar::docker_in(file, naming))))
    }

    /// Whether one blob has to come after the other.
    pub(super) fn is_sequence(&self) -> bool {
        matches!(self.0, Kind::Archive { .. })
    }

    /// Whether an image of this digest may have the target's name.
    pub(super) fn check_name(&self, actual: &Digest) -> Result<(), CopyError> {
        let wanted = match &self.0 {
            Kind::Registry { remote, .. } => remote.reference.digest(),
            Kind::Directory { naming, .. } => naming.digest(),
            Kind::Archive { wanted, .. } => wanted.as_ref(),
        };
        match wanted {
            Some(wanted) if wanted != actual => {
                Err(CopyError::OtherDigest { wanted: *wanted, actual: *actual })
            }
            _ => Ok(()),
        }
    }

    /// Whether a manifest is there, with all that it names.
    pub(super) async fn has(&self, wanted: &Descriptor) -> Result<bool, CopyError> {
        let Kind::Registry { remote, .. } = &self.0 else { return Ok(false) };
        let Remote { repository, reference } = remote;
        let found = repository.manifest_head(&reference.with_digest(wanted.digest)).await?;
        Ok(found.is_some_and(|found| found.digest == wanted.digest))
    }

    pub(super) async fn has_blob(&self, blob: &Descriptor) -> Result<bool, CopyError> {
        match &self.0 {
            Kind::Registry { remote, .. } => Ok(remote.repository.has_blob(&blob.digest).await?),
            Kind::Directory { path, .. } => {
                let path = path.join(layout::blob_name(&blob.digest));
                Ok(fs_err::metadata(path).is_ok_and(|found| found.len() == blob.size))
            }
            Kind::Archive { tar, .. } => Ok(held(tar).has(&blob.digest)),
        }
    }

    /// Takes a blob from the repository that it is in on the same registry; gives its name.
    pub(super) async fn mount(
        &self,
        blob: &Descriptor,
        source: &Source,
    ) -> Result<Option<String>, CopyError> {
        let Kind::Registry { remote: Remote { repository, .. }, .. } = &self.0 else {
            return Ok(None);
        };
        let Some((domain, path)) = source.repository() else { return Ok(None) };
        if domain != repository.domain() || path == repository.path() {
            return Ok(None);
        }
        match repository.mount(&blob.digest, path).await {
            Ok(mounted) => Ok(mounted.then(|| path.to_owned())),
            // A registry that does not let this client mount may take the blob itself.
            Err(error @ (Error::Refused { .. } | Error::NoCredentials)) => {
                tracing::debug!(%error, from = path, "mount a blob");
                Ok(None)
            }
            Err(error) => Err(error.into()),
        }
    }

    /// Takes a blob from the source.
    pub(super) async fn put_blob(
        &self,
        source: &Arc<Source>,
        blob: &Descriptor,
        meter: Meter,
    ) -> Result<(), CopyError> {
        match &self.0 {
            Kind::Registry { remote, .. } => upload(&remote.repository, source, blob, meter).await,
            Kind::Directory { path, .. } => {
                let partial = Partial::open(path, blob)?;
                let feed = source.feed(blob, partial.have);
                let (path, blob) = (path.clone(), blob.clone());
                blocking(move || partial.fill(&path, Checked::new(feed, &blob, meter))).await
            }
            Kind::Archive { tar, .. } => {
                let (tar, blob) = (Arc::clone(tar), blob.clone());
                let feed = source.feed(&blob, 0);
                blocking(move || held(&tar).add_blob(&blob, Checked::new(feed, &blob, meter))).await
            }
        }
    }

    /// Takes a document whose parts are there.
    pub(super) async fn put_document(
        &self,
        content: &Content,
        name: Name<'_>,
    ) -> Result<(), CopyError> {
        match &self.0 {
            Kind::Registry { remote: Remote { repository, reference }, .. } => {
                let tag = match name {
                    Name::Given if reference.digest().is_none() => {
                        Some(reference.tag().unwrap_or(silo_oci::reference::DEFAULT_TAG))
                    }
                    Name::Tag(tag) | Name::Beside(tag) => Some(tag),
                    _ => None,
                };
                let kind = &content.descriptor.media_type;
                repository.put_manifest(tag, kind, &content.bytes).await?;
                if let Name::About(subject) = name {
                    self.refer(&subject, &content.descriptor).await?;
                }
                return Ok(());
            }
            Kind::Directory { path, index, naming, .. } => {
                let file = layout::blob_name(&content.descriptor.digest);
                layout::write(path, &file, &content.bytes)?;
                naming.enter(&mut held(index), &content.descriptor, name);
            }
            Kind::Archive { tar, .. } => held(tar).add_document(content, name)?,
        }
        Ok(())
    }

    /// Lists what is about a document where the registry does not do it itself.
    async fn refer(&self, subject: &Digest, descriptor: &Descriptor) -> Result<(), CopyError> {
        let Kind::Registry { remote, refers } = &self.0 else { return Ok(()) };
        let repository = &remote.repository;
        let knows = refers
            .get_or_try_init(|| async {
                referrers::of(repository, subject).await.map(|found| found.is_some())
            })
            .await?;
        if *knows {
            return Ok(());
        }
        let tag = referrers::fallback_tag(subject);
        let mut index = match remote.tagged(&tag).await?.map(|found| found.document) {
            Some(Document::Index(index)) => index,
            Some(Document::Manifest(_)) => return Ok(()),
            None => Index {
                schema_version: 2,
                media_type: media::OCI_INDEX.to_owned(),
                manifests: Vec::new(),
                annotations: BTreeMap::new(),
            },
        };
        if index.manifests.iter().any(|entry| entry.digest == descriptor.digest) {
            return Ok(());
        }
        index.manifests.push(descriptor.clone());
        repository.put_manifest(Some(&tag), media::OCI_INDEX, &to_bytes(&index)).await?;
        Ok(())
    }

    /// The copy failed. What another copy goes on with stays.
    pub(super) fn abandon(&self) {
        if let Kind::Archive { aside: Some(aside), .. } = &self.0 {
            // A thread may still write to it, but nobody reads it.
            fs_err::remove_file(aside).ok();
        }
    }

    /// Everything is there.
    pub(super) async fn finish(&self) -> Result<(), CopyError> {
        match &self.0 {
            Kind::Registry { .. } => Ok(()),
            Kind::Directory { path, index, .. } => {
                // Only what nobody wants any more is left.
                fs_err::remove_dir(path.join(PARTIAL)).ok();
                layout::write_index(path, &held(index))
            }
            Kind::Archive { tar, .. } => {
                let tar = Arc::clone(tar);
                blocking(move || held(&tar).finish()).await
            }
        }
    }
}

fn archive(tar: Tar) -> Kind {
    let aside = tar.outgoing().aside().map(Path::to_owned);
    let wanted = tar.naming().digest().copied();
    Kind::Archive { aside, wanted, tar: Arc::new(Mutex::new(tar)) }
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, CopyError> + Send + 'static,
) -> Result<T, CopyError> {
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result,
        Err(_) => Err(Error::Broken("a panic while copying").into()),
    }
}
