//! Where images come from.

use std::fmt;
use std::io::Read;
use std::sync::Arc;

use bytes::Bytes;
use fs_err::File;
use silo_oci::image::{Descriptor, Document, MAX_DOCUMENT, media};
use silo_types::Digest;
use tokio::sync::mpsc;

use super::layout::{Files, blob_name};
use super::location::{Location, Selector};
use super::remote::Remote;
use super::{Content, CopyError, referrers};
use crate::manifest::Resolved;
use crate::{Action, Credentials, Error, Registries};

/// Bytes that are read at once.
const PIECE: usize = 256 << 10;
/// Pieces that wait for whoever writes them.
const PIECES: usize = 4;

/// A blob as it comes.
pub(super) type Feed = mpsc::Receiver<Result<Bytes, CopyError>>;

/// Where an image comes from.
#[derive(Debug)]
pub struct Source(Kind);

#[derive(Debug)]
enum Kind {
    Registry(Remote),
    Files { files: Files, selector: Selector },
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Kind::Registry(remote) => f.write_str(&remote.reference.familiar()),
            Kind::Files { files, selector } => write!(f, "{}{selector}", files.path().display()),
        }
    }
}

fn content(found: Resolved) -> Content {
    Content { descriptor: found.descriptor, bytes: found.bytes }
}

impl Source {
    /// Opens a source. Registries are asked when there is something to ask.
    pub fn open(
        location: &Location,
        registries: &Arc<Registries>,
        credentials: &Credentials,
    ) -> Result<Self, CopyError> {
        let (files, selector) = match location {
            Location::Registry(reference) => {
                let remote = Remote::open(reference, Action::Pull, registries, credentials)?;
                return Ok(Self(Kind::Registry(remote)));
            }
            Location::Layout(path, selector) => (Files::open(path)?, selector),
            Location::Archive(path, selector) => (Files::open_archive(path)?, selector),
            Location::Docker(path, selector) => {
                let file = File::open(path).map_err(CopyError::io("open", path))?;
                (Files::open_docker(file)?, selector)
            }
            Location::Engine(_) => return Err(CopyError::engine(location)),
        };
        Ok(Self(Kind::Files { files, selector: selector.clone() }))
    }

    /// An archive of `docker save` with one image; the file's path is for messages only.
    pub fn docker_archive(file: File) -> Result<Self, CopyError> {
        Ok(Self(Kind::Files { files: Files::open_docker(file)?, selector: Selector::Only }))
    }

    /// The repository, if it is one: registry and name.
    pub(super) fn repository(&self) -> Option<(&str, &str)> {
        match &self.0 {
            Kind::Registry(remote) => Some((remote.repository.domain(), remote.repository.path())),
            Kind::Files { .. } => None,
        }
    }

    /// What the name leads to.
    pub(super) async fn root(&self) -> Result<Content, CopyError> {
        match &self.0 {
            Kind::Registry(remote) => {
                let Remote { repository, reference } = remote;
                let found = repository.manifest(reference).await;
                Ok(content(found.map_err(|error| error.of_pull(reference))?))
            }
            Kind::Files { files, selector } => self.document(&files.find(selector)?).await,
        }
    }

    /// The names of all that is there.
    pub(super) async fn tags(&self) -> Result<Vec<String>, CopyError> {
        match &self.0 {
            Kind::Registry(Remote { repository, reference }) => {
                let found = repository.tags().await;
                Ok(found.map_err(|error| error.of_pull(&reference.without_suffix()))?)
            }
            Kind::Files { files, .. } => files.tags(),
        }
    }

    /// What one of these names leads to.
    pub(super) async fn named(&self, tag: &str) -> Result<Content, CopyError> {
        match &self.0 {
            Kind::Registry(Remote { repository, reference }) => {
                let reference = reference.with_tag(tag).map_err(|error| CopyError::Location {
                    text: tag.to_owned(),
                    reason: error.to_string(),
                })?;
                let found = repository.manifest(&reference).await;
                Ok(content(found.map_err(|error| error.of_pull(&reference))?))
            }
            Kind::Files { files, .. } => {
                self.document(&files.find(&Selector::Tag(tag.to_owned()))?).await
            }
        }
    }

    /// What another document names.
    pub(super) async fn document(&self, wanted: &Descriptor) -> Result<Content, CopyError> {
        let found = match &self.0 {
            Kind::Registry(Remote { repository, reference }) => {
                content(repository.manifest_of(reference, wanted).await?)
            }
            Kind::Files { files, .. } => {
                let bytes = files.blob(wanted, MAX_DOCUMENT)?;
                let mut descriptor = Descriptor::new(&wanted.media_type, wanted.digest, 0);
                descriptor.size = bytes.len() as u64;
                if descriptor.media_type.is_empty() {
                    let document = Document::parse(&bytes, "").map_err(|source| {
                        Error::Document { what: format!("manifest {}", wanted.digest), source }
                    })?;
                    media_type(&document).clone_into(&mut descriptor.media_type);
                }
                Content { descriptor, bytes: bytes.into() }
            }
        };
        let (is, said) = (found.descriptor.size, wanted.size);
        if said != 0 && said != is {
            let reason = format!("it has {is} bytes where its descriptor says {said}");
            return Err(CopyError::Content { expected: wanted.digest, reason });
        }
        Ok(found)
    }

    /// A whole blob, which is small.
    pub(super) async fn small(
        &self,
        wanted: &Descriptor,
        limit: usize,
    ) -> Result<Vec<u8>, CopyError> {
        match &self.0 {
            Kind::Registry(remote) => Ok(remote.repository.blob_bytes(wanted, limit).await?),
            Kind::Files { files, .. } => files.blob(wanted, limit),
        }
    }

    /// What is about a document.
    pub(super) async fn referrers(&self, subject: &Digest) -> Result<Vec<Descriptor>, CopyError> {
        match &self.0 {
            Kind::Registry(remote) => {
                if let Some(found) = referrers::of(&remote.repository, subject).await? {
                    return Ok(found);
                }
                let index = self.tagged(&referrers::fallback_tag(subject)).await?;
                let Some(index) = index else { return Ok(Vec::new()) };
                match super::read(&index)? {
                    Document::Index(index) => Ok(index.manifests),
                    Document::Manifest(_) => Ok(Vec::new()),
                }
            }
            Kind::Files { files, .. } => files.referrers(subject),
        }
    }

    /// What a tag beside the image leads to.
    pub(super) async fn tagged(&self, tag: &str) -> Result<Option<Content>, CopyError> {
        match &self.0 {
            Kind::Registry(remote) => Ok(remote.tagged(tag).await?.map(content)),
            Kind::Files { files, .. } => {
                let selector = Selector::Tag(tag.to_owned());
                let Ok(entry) = files.find(&selector) else { return Ok(None) };
                self.document(&entry).await.map(Some)
            }
        }
    }

    /// A blob from some byte on. It is no longer than its descriptor says; its digest is the
    /// reader's to check.
    pub(super) fn feed(self: &Arc<Self>, blob: &Descriptor, offset: u64) -> Feed {
        let (sender, feed) = mpsc::channel(PIECES);
        let (source, blob) = (Arc::clone(self), blob.clone());
        if matches!(self.0, Kind::Files { .. }) {
            tokio::task::spawn_blocking(move || source.read_file(&blob, offset, &sender));
        } else {
            tokio::spawn(async move { source.read_registry(&blob, offset, &sender).await });
        }
        feed
    }

    async fn read_registry(
        &self,
        blob: &Descriptor,
        offset: u64,
        sender: &mpsc::Sender<Result<Bytes, CopyError>>,
    ) {
        let Kind::Registry(remote) = &self.0 else { return };
        let mut stream = remote.repository.blob(blob, offset);
        loop {
            let piece = match stream.next().await {
                Ok(Some(piece)) => Ok(piece),
                Ok(None) => return,
                Err(error) => Err(error.into()),
            };
            let is_last = piece.is_err();
            if sender.send(piece).await.is_err() || is_last {
                return;
            }
        }
    }

    fn read_file(
        &self,
        blob: &Descriptor,
        offset: u64,
        sender: &mpsc::Sender<Result<Bytes, CopyError>>,
    ) {
        let Kind::Files { files, .. } = &self.0 else { return };
        let send = |piece| sender.blocking_send(piece).is_ok();
        let mut reader = match files.reader(&blob_name(&blob.digest), offset) {
            Ok(Some((reader, size))) if size == blob.size => reader,
            Ok(Some((_, size))) => {
                let said = blob.size;
                let reason = format!("it has {size} bytes where its descriptor says {said}");
                send(Err(CopyError::Content { expected: blob.digest, reason }));
                return;
            }
            Ok(None) => {
                let path = files.path().to_owned();
                send(Err(CopyError::Missing { path, digest: blob.digest }));
                return;
            }
            Err(error) => {
                send(Err(error));
                return;
            }
        };
        loop {
            let mut piece = vec![0; PIECE];
            let piece = match reader.read(&mut piece) {
                Ok(0) => return,
                Ok(count) => {
                    piece.truncate(count);
                    Ok(piece.into())
                }
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => continue,
                Err(error) => Err(CopyError::io("read", files.path())(error)),
            };
            let is_last = piece.is_err();
            if !send(piece) || is_last {
                return;
            }
        }
    }
}

fn media_type(document: &Document) -> &str {
    match document {
        Document::Manifest(manifest) if manifest.media_type.is_empty() => media::OCI_MANIFEST,
        Document::Manifest(manifest) => &manifest.media_type,
        Document::Index(index) if index.media_type.is_empty() => media::OCI_INDEX,
        Document::Index(index) => &index.media_type,
    }
}
