//! Caches in registries: a manifest like that of a layout, under a tag.

use std::collections::HashMap;
use std::io::{self, BufWriter, Read, Seek as _, SeekFrom, Write as _};
use std::sync::Arc;

use bytes::{Buf as _, Bytes};
use silo_oci::image::{Descriptor, Document, Manifest, media};
use silo_oci::reference::Reference;
use silo_registry::{Action, Repository};
use silo_types::{Digest, Error};
use tokio::runtime::Handle;
use tokio::sync::mpsc;

use super::imported::images_of;
use super::{BlobSink, BlobSource, CacheForm, CacheImport, WriteBlob, config};
use crate::builder::Builder;
use crate::outcome::Outcome;
use crate::scratch::Scratch;
use crate::secret::RegistryKeys;

/// Pieces of a blob that wait to be read.
const PIECES: usize = 4;

/// The tag of a name without one.
const LATEST: &str = "latest";

impl Builder {
    /// Gives the cache of builds to a registry, as [`Self::export_cache`] does to a directory.
    /// With `insecure`, the registry may be without TLS.
    pub async fn export_cache_to_registry(
        self: &Arc<Self>,
        outcomes: Vec<Outcome>,
        (max, form): (bool, CacheForm),
        (name, insecure): (&Reference, bool),
        keys: &dyn RegistryKeys,
    ) -> Result<Option<Descriptor>, Error> {
        let repository = self.repository(name, Action::Push, keys, insecure).await?;
        let tag = name.tag().unwrap_or(LATEST).to_owned();
        let scratch = self.scratch()?;
        let mut sink = RemoteSink { repository, tag, scratch, runtime: Handle::current() };
        let builder = Arc::clone(self);
        tokio::task::spawn_blocking(move || builder.export_cache(&outcomes, max, &form, &mut sink))
            .await
            .map_err(|error| Error::internal(error.to_string()))?
    }

    /// Finds what a registry has under a name: a cache, or images that may have one.
    pub(crate) async fn cache_in_registry(
        &self,
        name: &Reference,
        keys: &dyn RegistryKeys,
        insecure: bool,
    ) -> Result<CacheImport, Error> {
        let name = match (name.tag(), name.digest()) {
            (None, None) => name.with_tag(LATEST).map_err(Error::from_kind)?,
            _ => name.clone(),
        };
        let repository = self.repository(&name, Action::Pull, keys, insecure).await?;
        let found = repository.manifest(&name).await.map_err(Error::from_kind)?;
        let manifest = found.descriptor.digest;
        let mut documents = HashMap::from([(manifest, found.bytes.clone())]);
        let mut blobs = HashMap::new();
        match (&found.document, config::manifest(&found.bytes)) {
            (_, Ok((config, named))) => {
                blobs.extend(named);
                blobs.insert(config.digest, config);
            }
            (Document::Manifest(manifest), _) => add_blobs(&mut blobs, manifest),
            (Document::Index(index), _) => {
                for image in images_of(index) {
                    let one = name.with_digest(image.digest);
                    let found = repository.manifest(&one).await.map_err(Error::from_kind)?;
                    if let Document::Manifest(manifest) = &found.document {
                        add_blobs(&mut blobs, manifest);
                    }
                    documents.insert(image.digest, found.bytes);
                }
            }
        }
        let source = RemoteBlobs { repository, documents, blobs, runtime: Handle::current() };
        Ok(CacheImport { name: name.familiar(), source: Arc::new(source), manifest })
    }

    /// A repository with the client's credentials; with `insecure`, one that may be without TLS.
    pub(crate) async fn repository(
        &self,
        name: &Reference,
        action: Action,
        keys: &dyn RegistryKeys,
        insecure: bool,
    ) -> Result<Arc<Repository>, Error> {
        let credentials = keys.credentials(name.domain()).await;
        let repository = if insecure {
            self.engine.insecure_repository(name, action, &credentials)
        } else {
            self.engine.repository(name, action, &credentials)
        };
        repository.map(Arc::new)
    }
}

/// Adds what a manifest names.
fn add_blobs(blobs: &mut HashMap<Digest, Descriptor>, manifest: &Manifest) {
    let named = manifest.layers.iter().chain([&manifest.config]);
    blobs.extend(named.map(|blob| (blob.digest, blob.clone())));
}

/// The blobs of a cache that a registry has.
#[derive(Debug)]
struct RemoteBlobs {
    repository: Arc<Repository>,
    /// Manifests.
    documents: HashMap<Digest, Bytes>,
    /// What the manifests name.
    blobs: HashMap<Digest, Descriptor>,
    runtime: Handle,
}

impl BlobSource for RemoteBlobs {
    fn open(&self, digest: &Digest) -> Result<Box<dyn Read + Send>, Error> {
        if let Some(bytes) = self.documents.get(digest) {
            return Ok(Box::new(io::Cursor::new(bytes.clone())));
        }
        let wanted = self.blobs.get(digest).cloned().ok_or_else(|| {
            Error::not_found(format!("blob {digest} is none of those of the cache's manifest"))
        })?;
        let (send, pieces) = mpsc::channel(PIECES);
        let repository = Arc::clone(&self.repository);
        self.runtime.spawn(async move {
            let mut stream = repository.blob(&wanted, 0);
            loop {
                let piece = match stream.next().await {
                    Ok(Some(piece)) => Ok(piece),
                    Ok(None) => return,
                    Err(error) => Err(io::Error::other(error)),
                };
                let is_last = piece.is_err();
                // Whoever reads may have had enough.
                if send.send(piece).await.is_err() || is_last {
                    return;
                }
            }
        });
        Ok(Box::new(Pieces { pieces, piece: Bytes::new() }))
    }
}

/// A blob on its way.
struct Pieces {
    pieces: mpsc::Receiver<io::Result<Bytes>>,
    piece: Bytes,
}

impl Read for Pieces {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.piece.is_empty() {
            match self.pieces.blocking_recv() {
                Some(piece) => self.piece = piece?,
                None => return Ok(0),
            }
        }
        let count = buffer.len().min(self.piece.len());
        self.piece.copy_to_slice(&mut buffer[..count]);
        Ok(count)
    }
}

/// A tag that takes a cache. A blob lies in a file while it goes out, so that a broken upload
/// goes on where it was.
struct RemoteSink {
    repository: Arc<Repository>,
    tag: String,
    scratch: Scratch,
    runtime: Handle,
}

impl BlobSink for RemoteSink {
    fn put(&mut self, blob: &Descriptor, write: WriteBlob<'_>) -> Result<(), Error> {
        let repository = &self.repository;
        if media::is_manifest(&blob.media_type) || media::is_index(&blob.media_type) {
            let mut bytes = Vec::new();
            write(&mut bytes)?;
            let put = repository.put_manifest(Some(&self.tag), &blob.media_type, &bytes);
            return self.runtime.block_on(put).map(drop).map_err(Error::from_kind);
        }
        if self.runtime.block_on(repository.has_blob(&blob.digest)).map_err(Error::from_kind)? {
            return Ok(());
        }
        let path = self.scratch.path().join(blob.digest.hex());
        let failed = |error: io::Error| Error::internal(format!("write a cache's blob: {error}"));
        let mut file = BufWriter::new(fs_err::File::create(&path).map_err(failed)?);
        write(&mut file)?;
        file.flush().map_err(failed)?;
        let open = |offset: u64| -> io::Result<Box<dyn Read + Send>> {
            let mut file = fs_err::File::open(&path)?;
            file.seek(SeekFrom::Start(offset))?;
            Ok(Box::new(file))
        };
        let put = repository.put_blob(blob, &open);
        self.runtime.block_on(put).map_err(Error::from_kind)?;
        fs_err::remove_file(&path).map_err(failed)
    }
}
