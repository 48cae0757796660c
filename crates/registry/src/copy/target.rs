//! Where images go.

use std::fs::TryLockError;
use std::io::{self, Read, Seek as _, SeekFrom, Write as _};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use bytes::{Buf as _, Bytes};
use serde_json::Value;
use sha2::{Digest as _, Sha256};
use silo_oci::image::{Descriptor, Document, Index, media, to_bytes};
use silo_oci::reference::Reference;
use silo_types::Digest;
use tokio::sync::OnceCell;

use super::archive::Outgoing;
use super::location::{Location, Selector};
use super::source::{Feed, Source};
use super::{Content, CopyError, Name, layout, referrers};
use crate::progress::Meter;
use crate::{Action, Credentials, Error, Registries, Repository};

/// Where what has come in part lies in a layout.
const PARTIAL: &str = ".partial";
/// Bytes that are read at once.
const PIECE: usize = 256 << 10;

/// Where an image goes.
#[derive(Debug)]
pub struct Target(Kind);

#[derive(Debug)]
enum Kind {
    Registry {
        repository: Box<Repository>,
        reference: Reference,
        /// Whether the registry knows of referrers.
        refers: OnceCell<bool>,
    },
    Directory {
        path: PathBuf,
        selector: Selector,
        index: Mutex<Value>,
        /// Held until the end.
        _lock: fs_err::File,
    },
    Archive {
        selector: Selector,
        aside: PathBuf,
        state: Arc<Mutex<(Outgoing, Value, Vec<Digest>)>>,
    },
}

fn held<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Keeps others from writing to a layout; refused while somebody else does.
fn lock(path: &Path) -> Result<fs_err::File, CopyError> {
    let directory = fs_err::File::open(path).map_err(CopyError::io("open", path))?;
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
            Location::Registry(reference) => Kind::Registry {
                repository: Box::new(registries.repository(
                    reference,
                    Action::Push,
                    credentials,
                )?),
                reference: reference.clone(),
                refers: OnceCell::new(),
            },
            Location::Layout(path, selector) => {
                layout::create(path)?;
                let lock = lock(path)?;
                let index = Mutex::new(layout::read_index(path)?);
                let (path, selector) = (path.clone(), selector.clone());
                Kind::Directory { path, selector, index, _lock: lock }
            }
            Location::Archive(path, selector) => {
                let outgoing = Outgoing::create(path)?;
                let (aside, selector) = (outgoing.aside().to_owned(), selector.clone());
                let state = Arc::new(Mutex::new((outgoing, layout::new_index(), Vec::new())));
                Kind::Archive { selector, aside, state }
            }
        }))
    }

    /// Whether one blob has to come after the other.
    pub(super) fn is_sequence(&self) -> bool {
        matches!(self.0, Kind::Archive { .. })
    }

    /// Whether an image of this digest may have the target's name.
    pub(super) fn check_name(&self, actual: &Digest) -> Result<(), CopyError> {
        let wanted = match &self.0 {
            Kind::Registry { reference, .. } => reference.digest(),
            Kind::Directory { selector: Selector::Digest(digest), .. }
            | Kind::Archive { selector: Selector::Digest(digest), .. } => Some(digest),
            _ => None,
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
        let Kind::Registry { repository, reference, .. } = &self.0 else { return Ok(false) };
        let found = repository.manifest_head(&reference.with_digest(wanted.digest)).await?;
        Ok(found.is_some_and(|found| found.digest == wanted.digest))
    }

    pub(super) async fn has_blob(&self, blob: &Descriptor) -> Result<bool, CopyError> {
        match &self.0 {
            Kind::Registry { repository, .. } => Ok(repository.has_blob(&blob.digest).await?),
            Kind::Directory { path, .. } => {
                let path = path.join(layout::blob_name(&blob.digest));
                Ok(fs_err::metadata(path).is_ok_and(|found| found.len() == blob.size))
            }
            Kind::Archive { state, .. } => Ok(held(state).2.contains(&blob.digest)),
        }
    }

    /// Takes a blob from the repository that it is in on the same registry; gives its name.
    pub(super) async fn mount(
        &self,
        blob: &Descriptor,
        source: &Source,
    ) -> Result<Option<String>, CopyError> {
        let Kind::Registry { repository, .. } = &self.0 else { return Ok(None) };
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
            Kind::Registry { repository, .. } => upload(repository, source, blob, meter).await,
            Kind::Directory { path, .. } => {
                let partial = Partial::open(path, blob)?;
                let feed = source.feed(blob, partial.have);
                let (path, blob) = (path.clone(), blob.clone());
                blocking(move || partial.fill(&path, Checked::new(feed, &blob, meter))).await
            }
            Kind::Archive { state, .. } => {
                let (state, blob) = (Arc::clone(state), blob.clone());
                let feed = source.feed(&blob, 0);
                blocking(move || {
                    let mut state = held(&state);
                    let mut reader = Checked::new(feed, &blob, meter);
                    let name = layout::blob_name(&blob.digest);
                    let added = state.0.add(&name, blob.size, &mut reader);
                    let ended = added.and_then(|()| reader.end());
                    if let Some(failure) = reader.failure.take() {
                        return Err(failure);
                    }
                    state.2.push(blob.digest);
                    ended
                })
                .await
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
            Kind::Registry { repository, reference, .. } => {
                let tag = match name {
                    Name::Given if reference.digest().is_none() => {
                        Some(reference.tag().unwrap_or(silo_oci::reference::DEFAULT_TAG))
                    }
                    Name::Tag(tag) => Some(tag),
                    _ => None,
                };
                let kind = &content.descriptor.media_type;
                repository.put_manifest(tag, kind, &content.bytes).await?;
                if let Name::About(subject) = name {
                    self.refer(&subject, &content.descriptor).await?;
                }
                return Ok(());
            }
            Kind::Directory { path, index, selector, .. } => {
                layout::write(
                    path,
                    &layout::blob_name(&content.descriptor.digest),
                    &content.bytes,
                )?;
                enter(&mut held(index), &content.descriptor, selector, name);
            }
            Kind::Archive { state, selector, .. } => {
                let mut state = held(state);
                let digest = content.descriptor.digest;
                if !state.2.contains(&digest) {
                    let size = content.bytes.len() as u64;
                    let name = layout::blob_name(&digest);
                    state.0.add(&name, size, &mut &content.bytes[..])?;
                    state.2.push(digest);
                }
                enter(&mut state.1, &content.descriptor, selector, name);
            }
        }
        Ok(())
    }

    /// Lists what is about a document where the registry does not do it itself.
    async fn refer(&self, subject: &Digest, descriptor: &Descriptor) -> Result<(), CopyError> {
        let Kind::Registry { repository, reference, refers } = &self.0 else { return Ok(()) };
        let knows = refers
            .get_or_try_init(|| async {
                referrers::of(repository, subject).await.map(|found| found.is_some())
            })
            .await?;
        if *knows {
            return Ok(());
        }
        let tag = referrers::fallback_tag(subject);
        let tagged = reference.without_suffix().with_tag(&tag).map_err(|_| Error::NoHost)?;
        let mut index = match repository.manifest(&tagged).await {
            Ok(found) => match found.document {
                Document::Index(index) => index,
                Document::Manifest(_) => return Ok(()),
            },
            Err(error) if error.is_absent() => Index {
                schema_version: 2,
                media_type: media::OCI_INDEX.to_owned(),
                manifests: Vec::new(),
                annotations: std::collections::BTreeMap::new(),
            },
            Err(error) => return Err(error.into()),
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
        if let Kind::Archive { aside, .. } = &self.0 {
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
            Kind::Archive { state, .. } => {
                let state = Arc::clone(state);
                blocking(move || {
                    let mut state = held(&state);
                    let index = state.1.to_string().into_bytes();
                    let text = layout::LAYOUT_TEXT.as_bytes();
                    state.0.add("index.json", index.len() as u64, &mut &index[..])?;
                    state.0.add("oci-layout", text.len() as u64, &mut &text[..])?;
                    state.0.finish()
                })
                .await
            }
        }
    }
}

/// Adds a document to a layout's index, if it has a name or is about another.
fn enter(index: &mut Value, descriptor: &Descriptor, selector: &Selector, name: Name<'_>) {
    match (name, selector) {
        (Name::Digest, _) => {}
        (Name::Tag(tag), _) => layout::put_entry(index, descriptor, Some(tag)),
        (Name::Given, Selector::Tag(tag)) => layout::put_entry(index, descriptor, Some(tag)),
        (Name::Given | Name::About(_), _) => layout::put_entry(index, descriptor, None),
    }
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, CopyError> + Send + 'static,
) -> Result<T, CopyError> {
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result,
        Err(_) => Err(Error::Broken("a panic while copying").into()),
    }
}

/// Sends a blob to a registry while it comes.
async fn upload(
    repository: &Repository,
    source: &Arc<Source>,
    blob: &Descriptor,
    meter: Meter,
) -> Result<(), CopyError> {
    let meter = Arc::new(Mutex::new(meter));
    // Why the source failed: the upload knows only that it did.
    let failure: Arc<Mutex<Option<CopyError>>> = Arc::default();
    let open = |offset: u64| -> io::Result<Box<dyn Read + Send>> {
        if held(&failure).is_some() {
            return Err(io::Error::other("the source failed"));
        }
        let checked = Checked::at(source.feed(blob, offset), blob, offset);
        Ok(Box::new(Shared {
            inner: checked,
            meter: Arc::clone(&meter),
            failure: Arc::clone(&failure),
        }))
    };
    let result = repository.put_blob(blob, &open).await;
    match (held(&failure).take(), result) {
        (Some(failure), Err(_)) => Err(failure),
        (_, result) => Ok(result?),
    }
}

/// Reads a feed, and checks what comes.
struct Checked {
    feed: Feed,
    piece: Bytes,
    at: u64,
    wanted: Descriptor,
    /// Of everything, if it was seen from the beginning.
    hash: Option<Sha256>,
    meter: Option<Meter>,
    failure: Option<CopyError>,
}

impl Checked {
    fn at(feed: Feed, blob: &Descriptor, at: u64) -> Self {
        Self {
            feed,
            piece: Bytes::new(),
            at,
            wanted: blob.clone(),
            hash: (at == 0).then(Sha256::new),
            meter: None,
            failure: None,
        }
    }

    fn new(feed: Feed, blob: &Descriptor, meter: Meter) -> Self {
        Self { meter: Some(meter), ..Self::at(feed, blob, 0) }
    }

    fn next(&mut self) -> Result<Bytes, CopyError> {
        match self.feed.blocking_recv() {
            Some(Ok(piece)) => {
                self.at += piece.len() as u64;
                if let Some(hash) = &mut self.hash {
                    hash.update(&piece);
                }
                if let Some(meter) = &mut self.meter {
                    meter.at(self.at);
                }
                // The last piece is not given before all is known to be right.
                if self.at >= self.wanted.size {
                    self.end()?;
                }
                Ok(piece)
            }
            Some(Err(error)) => Err(error),
            None => self.end().map(|()| Bytes::new()),
        }
    }

    /// Whether all has come, and is right.
    fn end(&mut self) -> Result<(), CopyError> {
        let expected = self.wanted.digest;
        if self.at != self.wanted.size {
            let reason = format!("it ends after {} of {} bytes", self.at, self.wanted.size);
            return Err(CopyError::Content { expected, reason });
        }
        let Some(hash) = self.hash.take() else { return Ok(()) };
        let actual = Digest::from_sha256(hash.finalize().into());
        if actual != expected {
            let reason = format!("its digest is {actual}");
            return Err(CopyError::Content { expected, reason });
        }
        Ok(())
    }
}

impl Read for Checked {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.piece.is_empty() && !buffer.is_empty() {
            match self.next() {
                Ok(piece) => self.piece = piece,
                Err(error) => {
                    self.failure = Some(error);
                    return Err(io::Error::other("the source failed"));
                }
            }
        }
        let count = buffer.len().min(self.piece.len());
        self.piece.copy_to_slice(&mut buffer[..count]);
        Ok(count)
    }
}

/// The same where others want to know how it goes.
struct Shared {
    inner: Checked,
    meter: Arc<Mutex<Meter>>,
    failure: Arc<Mutex<Option<CopyError>>>,
}

impl Read for Shared {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let result = self.inner.read(buffer);
        if let Some(failure) = self.inner.failure.take() {
            *held(&self.failure) = Some(failure);
        }
        held(&self.meter).at(self.inner.at);
        result
    }
}

/// A blob of a layout that has come in part.
struct Partial {
    file: fs_err::File,
    path: PathBuf,
    have: u64,
}

impl Partial {
    fn open(layout: &Path, blob: &Descriptor) -> Result<Self, CopyError> {
        let directory = layout.join(PARTIAL);
        fs_err::create_dir_all(&directory).map_err(CopyError::io("create", &directory))?;
        let path = directory.join(blob.digest.hex());
        let mut options = fs_err::OpenOptions::new();
        let file = options.read(true).write(true).create(true).truncate(false).open(&path);
        let file = file.map_err(CopyError::io("open", &path))?;
        let have = file.metadata().map_err(CopyError::io("read", &path))?.len();
        // One that is all there was not right, or it would be a blob.
        let have = if have < blob.size { have } else { 0 };
        Ok(Self { file, path, have })
    }

    /// Adds the rest, and makes a blob of it.
    fn fill(mut self, layout: &Path, mut rest: Checked) -> Result<(), CopyError> {
        let failed = || CopyError::io("write", &self.path);
        self.file.set_len(self.have).map_err(failed())?;
        self.file.seek(SeekFrom::Start(0)).map_err(failed())?;
        let mut hash = Sha256::new();
        let mut left = (&mut self.file).take(self.have);
        let mut piece = vec![0; PIECE];
        loop {
            let count = left.read(&mut piece).map_err(failed())?;
            if count == 0 {
                break;
            }
            hash.update(&piece[..count]);
        }
        (rest.at, rest.hash) = (self.have - left.limit(), Some(hash));
        let mut ended = rest.wanted.size == 0;
        while !ended {
            let piece = match rest.next() {
                Ok(piece) => piece,
                Err(error) => {
                    if rest.at >= rest.wanted.size {
                        // All of it is there, and wrong: there is nothing to go on with.
                        fs_err::remove_file(&self.path).ok();
                    }
                    return Err(error);
                }
            };
            self.file.write_all(&piece).map_err(failed())?;
            ended = piece.is_empty() || rest.at >= rest.wanted.size;
        }
        if rest.hash.is_some() {
            rest.end()?;
        }
        self.file.sync_data().map_err(failed())?;
        let path = layout.join(layout::blob_name(&rest.wanted.digest));
        fs_err::rename(&self.path, &path).map_err(CopyError::io("rename", &self.path))
    }
}
