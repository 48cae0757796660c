//! Pushing: from an image in the store to a tag of a repository.
//!
//! A layer that came compressed goes out as it came. One that the store has only unpacked (it was
//! built or committed here) is packed and compressed while it goes out; where it went, and with
//! which digest, is remembered ([`Known`]), so that it does not go there again. A manifest all of
//! whose layers go out as it names them is pushed byte for byte, so that its digest stays.

use std::collections::BTreeMap;
use std::fmt;
use std::io::{self, Read, Seek as _, SeekFrom, Write};
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use sha2::{Digest as _, Sha256};
use silo_archive::compress::{Compression, Encoder, Packing};
use silo_oci::image::{Descriptor, MAX_DOCUMENT, Manifest, media, to_bytes};
use silo_oci::reference::Reference;
use silo_store::{Image, Store};
use silo_types::Digest;
use tokio::sync::{Semaphore, mpsc};
use tokio::task::JoinSet;

use crate::attest::put_bytes;
use crate::progress::{Meter, Progress, short};
use crate::resume::{Course, Kept};
use crate::types;
use crate::upload::{self, Moved};
use crate::{Action, Credentials, Error, Repository};

/// Bytes that go out at once of what is made.
const PIECE: usize = 256 << 10;
/// Repositories of which a registry is asked to take a layer.
const MOUNTS: usize = 4;

/// Where a layer is known to be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// The blob there: type, digest and size.
    pub blob: Descriptor,
    /// The registry, `docker.io`.
    pub domain: String,
    /// The repository in it, `library/busybox`.
    pub path: String,
}

/// Remembers where layers are, by the digest of their uncompressed tar.
pub trait Known: Send + Sync + fmt::Debug {
    /// Where a layer is, latest first.
    fn places(&self, diff_id: &Digest) -> Vec<Place>;
    /// A layer is there.
    fn remember(&self, diff_id: &Digest, place: &Place);
    /// Where an upload is that an earlier push has begun, and not ended. `what` says of what, and
    /// to where.
    fn upload(&self, what: &str) -> Option<String>;
    /// An upload is at this location.
    fn uploading(&self, what: &str, location: &str);
    /// An upload has ended.
    fn uploaded(&self, what: &str);
}

/// How an image goes out.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PushOptions {
    /// The tag that it gets; without one it is found by its digest only.
    pub tag: Option<String>,
    /// How layers are packed that the store has only unpacked.
    pub packing: Packing,
    /// Layers that came in another compression are packed anew.
    pub force: bool,
    /// Whether documents have OCI's types, or Docker's; `None` for those that the image has.
    pub oci_types: Option<bool>,
    /// Credentials for other registries, from which base layers may have to be copied, by the
    /// registries as clients name them.
    pub sources: BTreeMap<String, Credentials>,
}

/// The result of a push.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pushed {
    /// The manifest: type, digest and size.
    pub manifest: Descriptor,
}

/// Where a layer's bytes come from.
#[derive(Debug, Clone)]
enum Source {
    /// A blob of the store.
    Blob(Descriptor),
    /// The tar of the layer with this chain id.
    Tar(Digest, u64),
    /// It is elsewhere, and stays there.
    Foreign(Descriptor),
    /// It never was here: the registry has it, or gets it from where the image came from.
    Elsewhere(Descriptor),
}

/// One layer to go out.
#[derive(Debug, Clone)]
struct Layer {
    diff_id: Digest,
    source: Source,
}

#[derive(Debug, Clone)]
struct Context {
    store: Store,
    repository: Arc<Repository>,
    known: Arc<dyn Known>,
    progress: Progress,
    packing: Packing,
    sources: Arc<BTreeMap<String, Credentials>>,
}

/// Pushes an image to a tag of a repository.
pub async fn push(
    store: &Store,
    repository: &Arc<Repository>,
    image: &Image,
    options: &PushOptions,
    known: &Arc<dyn Known>,
    progress: &Progress,
) -> Result<Pushed, Error> {
    let lease = store.lease();
    for held in image.chain.iter().chain([&image.id, &image.manifest.digest]) {
        lease.hold(*held);
    }
    let bytes = store.read_blob(&image.manifest.digest, MAX_DOCUMENT as u64)?;
    let mut manifest = Manifest::parse(&bytes).map_err(|source| Error::Document {
        what: format!("manifest {}", image.manifest.digest),
        source,
    })?;
    let layers = sources(store, image, &manifest, options)?;
    let context = Context {
        store: store.clone(),
        repository: Arc::clone(repository),
        known: Arc::clone(known),
        progress: progress.clone(),
        packing: options.packing,
        sources: Arc::new(options.sources.clone()),
    };
    let pushed = context.layers(&layers).await?;
    let before = manifest.clone();
    for (descriptor, blob) in manifest.layers.iter_mut().zip(pushed) {
        if descriptor.digest != blob.digest {
            let annotations = std::mem::take(&mut descriptor.annotations);
            *descriptor = Descriptor { annotations, ..blob };
        }
    }
    if let Some(oci) = options.oci_types {
        types::change(&mut manifest, oci)?;
    }
    let config = store.read_blob(&image.id, MAX_DOCUMENT as u64)?;
    put_bytes(repository, &manifest.config, Bytes::from(config)).await?;
    let (bytes, media_type) = if manifest == before {
        (bytes, image.manifest.media_type.clone())
    } else {
        (to_bytes(&manifest), manifest.media_type.clone())
    };
    let media_type = if media_type.is_empty() { media::OCI_MANIFEST } else { &media_type };
    let digest = repository.put_manifest(options.tag.as_deref(), media_type, &bytes).await?;
    let size = bytes.len();
    if let Some(tag) = &options.tag {
        progress.line(format!("{tag}: digest: {digest} size: {size}"));
        progress.aux(serde_json::json!({"Tag": tag, "Digest": digest.to_string(), "Size": size}));
    }
    Ok(Pushed { manifest: Descriptor::new(media_type, digest, size as u64) })
}

/// Where the bytes of an image's layers come from, lowest first.
fn sources(
    store: &Store,
    image: &Image,
    manifest: &Manifest,
    options: &PushOptions,
) -> Result<Vec<Layer>, Error> {
    let mut layers = Vec::new();
    let stays = |blob: &Descriptor| {
        !options.force
            || Compression::of_media_type(&blob.media_type) == options.packing.compression
    };
    for (at, (descriptor, chain)) in manifest.layers.iter().zip(&image.chain).enumerate() {
        let layer = store.layer(chain)?;
        let is_foreign = !descriptor.urls.is_empty();
        let replaced = image.stand_in.as_ref().and_then(|stand_in| stand_in.replaced.get(at));
        if let Some(replaced) = replaced {
            let descriptor = descriptor.clone();
            let source = if is_foreign {
                Source::Foreign(descriptor)
            } else {
                Source::Elsewhere(descriptor)
            };
            layers.push(Layer { diff_id: replaced.diff_id, source });
            continue;
        }
        let source = if is_foreign {
            Source::Foreign(descriptor.clone())
        } else if descriptor.digest != layer.diff_id
            && store.has_blob(&descriptor.digest)
            && stays(descriptor)
        {
            Source::Blob(descriptor.clone())
        } else {
            match &layer.blob {
                Some(blob) if store.has_blob(&blob.digest) && stays(blob) => {
                    Source::Blob(blob.clone())
                }
                _ => Source::Tar(*chain, layer.tar_size),
            }
        };
        layers.push(Layer { diff_id: layer.diff_id, source });
    }
    Ok(layers)
}

impl Context {
    /// Gets all layers there; gives what the registry has of each.
    async fn layers(&self, layers: &[Layer]) -> Result<Vec<Descriptor>, Error> {
        let permits = Arc::new(Semaphore::new(self.repository.registries().config().at_once));
        let mut tasks: JoinSet<(Digest, Result<Descriptor, Error>)> = JoinSet::new();
        let mut begun: Vec<Digest> = Vec::new();
        for layer in layers.iter().rev() {
            // The same layer may be there several times.
            if begun.contains(&layer.diff_id) {
                continue;
            }
            begun.push(layer.diff_id);
            self.progress.state(&short(&layer.diff_id), "Preparing");
            let (context, layer, permits) = (self.clone(), layer.clone(), Arc::clone(&permits));
            tasks.spawn(async move {
                let id = short(&layer.diff_id);
                let permit = if let Ok(permit) = Arc::clone(&permits).try_acquire_owned() {
                    Ok(permit)
                } else {
                    context.progress.state(&id, "Waiting");
                    permits.acquire_owned().await
                };
                let result = match permit {
                    Ok(_permit) => context.layer(&layer, &id).await,
                    Err(_) => Err(Error::Cancelled),
                };
                (layer.diff_id, result)
            });
        }
        let mut done: Vec<(Digest, Descriptor)> = Vec::new();
        while let Some(ended) = tasks.join_next().await {
            match ended {
                Ok((diff_id, result)) => done.push((diff_id, result?)),
                Err(_) => return Err(Error::Broken("a panic while pushing a layer")),
            }
        }
        let find = |layer: &Layer| {
            let found = done.iter().find(|(diff_id, _)| *diff_id == layer.diff_id);
            found.map(|(_, blob)| blob.clone()).ok_or(Error::Broken("a layer was not pushed"))
        };
        layers.iter().map(find).collect()
    }

    async fn layer(&self, layer: &Layer, id: &str) -> Result<Descriptor, Error> {
        let own = match &layer.source {
            Source::Foreign(descriptor) => {
                self.progress.state(id, "Skipped foreign layer");
                return Ok(descriptor.clone());
            }
            Source::Blob(blob) | Source::Elsewhere(blob) => Some(blob),
            Source::Tar(..) => None,
        };
        let mut places = self.known.places(&layer.diff_id);
        if own.is_none() {
            // Of what is known nobody remembers the level.
            places.retain(|place| {
                Compression::of_media_type(&place.blob.media_type) == self.packing.compression
                    && self.packing.level.is_none()
            });
        }
        let is_here = |place: &&Place| {
            place.domain == self.repository.domain() && place.path == self.repository.path()
        };
        let fits = |place: &&Place| own.is_none_or(|own| own.digest == place.blob.digest);
        let expected = own.or_else(|| places.iter().find(is_here).map(|place| &place.blob));
        if let Some(blob) = expected
            && self.repository.has_blob(&blob.digest).await?
        {
            self.progress.state(id, "Layer already exists");
            self.remember(&layer.diff_id, blob);
            return Ok(blob.clone());
        }
        let elsewhere = places
            .iter()
            .filter(|place| place.domain == self.repository.domain() && !is_here(place))
            .filter(fits);
        for place in elsewhere.take(MOUNTS) {
            match self.repository.mount(&place.blob.digest, &place.path).await {
                Ok(true) => {
                    self.progress.state(id, &format!("Mounted from {}", place.path));
                    self.remember(&layer.diff_id, &place.blob);
                    return Ok(place.blob.clone());
                }
                Ok(false) => {}
                // A repository that one may not read is no reason not to push.
                Err(error @ (Error::Refused { .. } | Error::NoCredentials)) => {
                    tracing::debug!(%error, from = place.path, "mount a layer");
                }
                Err(error) => return Err(error),
            }
        }
        let blob = match &layer.source {
            Source::Tar(chain, size) => self.pack(*chain, *size, id).await?,
            Source::Elsewhere(blob) => {
                self.copy(blob, &places, id).await?;
                blob.clone()
            }
            Source::Blob(blob) | Source::Foreign(blob) => {
                self.send(blob, id).await?;
                blob.clone()
            }
        };
        self.progress.state(id, "Pushed");
        self.remember(&layer.diff_id, &blob);
        Ok(blob)
    }

    fn remember(&self, diff_id: &Digest, blob: &Descriptor) {
        let place = Place {
            blob: blob.clone(),
            domain: self.repository.domain().to_owned(),
            path: self.repository.path().to_owned(),
        };
        self.known.remember(diff_id, &place);
    }

    /// Sends a blob of the store.
    async fn send(&self, blob: &Descriptor, id: &str) -> Result<(), Error> {
        let meter = Arc::new(Mutex::new(self.progress.meter(id, "Pushing", blob.size)));
        let open = |offset: u64| -> io::Result<Box<dyn Read + Send>> {
            let mut file = self.store.open_blob(&blob.digest).map_err(io::Error::other)?;
            file.seek(SeekFrom::Start(offset))?;
            Ok(Box::new(Metered { inner: file, at: offset, meter: Arc::clone(&meter) }))
        };
        self.repository.upload(blob, &open, self.kept(blob)).await
    }

    /// Copies a blob that is not here from another registry, or another repository of this one.
    async fn copy(&self, blob: &Descriptor, places: &[Place], id: &str) -> Result<(), Error> {
        let mut last = None;
        let mut wants = None;
        for place in places.iter().filter(|place| place.blob.digest == blob.digest).take(MOUNTS) {
            match self.copy_from(blob, place, id).await {
                Ok(()) => return Ok(()),
                Err(error) => {
                    tracing::debug!(%error, from = place.domain, "copy a base layer");
                    if matches!(
                        error,
                        Error::NoCredentials | Error::Refused { status: 401 | 403, .. }
                    ) {
                        wants = Some(place.domain.clone());
                    }
                    last = Some(Box::new(error));
                }
            }
        }
        let target = format!("{}/{}", self.repository.domain(), self.repository.path());
        Err(Error::NoSource { digest: blob.digest, target, wants, source: last })
    }

    async fn copy_from(&self, blob: &Descriptor, place: &Place, id: &str) -> Result<(), Error> {
        let name = format!("{}/{}", place.domain, place.path);
        let name = Reference::parse(&name).map_err(|_| Error::NoHost)?;
        let registries = self.repository.registries();
        // Those of a push are for its target.
        let credentials = if place.domain == self.repository.domain() {
            self.repository.credentials().clone()
        } else {
            Credentials::of(&self.sources, &place.domain)
        };
        let from = registries.repository(&name, Action::Pull, &credentials)?;
        if !from.has_blob(&blob.digest).await? {
            return Err(Error::Broken("it is not there any more"));
        }
        self.progress.line(format!("{id}: copied from {}", name.name()));
        let from = Arc::new(from);
        let meter = Arc::new(Mutex::new(self.progress.meter(id, "Pushing", blob.size)));
        let open = |offset: u64| -> io::Result<Box<dyn Read + Send>> {
            let inner = Remote::new(Arc::clone(&from), blob.clone(), offset);
            Ok(Box::new(Metered { inner, at: offset, meter: Arc::clone(&meter) }))
        };
        self.repository.upload(blob, &open, self.kept(blob)).await
    }

    /// The memory of the upload of a blob.
    fn kept(&self, blob: &Descriptor) -> Option<Kept> {
        Kept::new(&self.repository, &self.known, &blob.digest.to_string(), blob.size)
    }

    /// Packs, compresses and sends a layer.
    async fn pack(&self, chain: Digest, size: u64, id: &str) -> Result<Descriptor, Error> {
        let layer = self.store.layer(&chain)?;
        let content = format!("{} {:?}", layer.diff_id, self.packing);
        let kept = Kept::new(&self.repository, &self.known, &content, size);
        let mut course = Course::begin(&self.repository, kept, u64::MAX).await;
        loop {
            let (sender, outlet) = upload::channel(&Moved::default());
            let (store, meter) = (self.store.clone(), self.progress.meter(id, "Pushing", size));
            let (packing, skip) = (self.packing, course.offset());
            let making = tokio::task::spawn_blocking(move || {
                make(&store, &chain, (packing, skip), sender, meter)
            });
            let made =
                async { making.await.map_err(|_| Error::Broken("a panic while packing a layer"))? };
            match self.repository.upload_made(outlet, &mut course, made).await {
                Ok(blob) => {
                    course.ended();
                    return Ok(blob);
                }
                Err(error) => course.failed(error, u64::MAX).await?,
            }
        }
    }
}

/// A blob of another registry, for a thread that may block.
struct Remote {
    pieces: mpsc::Receiver<Result<Bytes, Error>>,
    piece: Bytes,
}

impl Remote {
    fn new(from: Arc<Repository>, blob: Descriptor, offset: u64) -> Self {
        let (sender, pieces) = mpsc::channel(MOUNTS);
        tokio::spawn(async move {
            let mut stream = from.blob(&blob, offset);
            while let Some(piece) = stream.next().await.transpose() {
                let failed = piece.is_err();
                if sender.send(piece).await.is_err() || failed {
                    return;
                }
            }
        });
        Self { pieces, piece: Bytes::new() }
    }
}

impl Read for Remote {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.piece.is_empty() {
            match self.pieces.blocking_recv() {
                Some(piece) => self.piece = piece.map_err(io::Error::other)?,
                None => return Ok(0),
            }
        }
        let count = self.piece.len().min(buffer.len());
        buffer[..count].copy_from_slice(&self.piece.split_to(count));
        Ok(count)
    }
}

/// Makes a layer's tar, compressed, and sends it but for the first `skip` bytes. The same tar is
/// compressed to the same bytes each time.
fn make(
    store: &Store,
    chain: &Digest,
    (packing, skip): (Packing, u64),
    sender: mpsc::Sender<io::Result<Bytes>>,
    meter: Meter,
) -> Result<Descriptor, Error> {
    let out = Outgoing {
        sender: sender.clone(),
        hash: Sha256::new(),
        size: 0,
        skip,
        piece: Vec::with_capacity(PIECE),
    };
    let encoder = Encoder::new(packing, out).map_err(Error::Read)?;
    let mut input = Counted { inner: encoder, count: 0, meter };
    let made = store.write_layer_tar(chain, &mut input).map_err(Error::from).and_then(|()| {
        let out = input.inner.finish().map_err(Error::Read)?;
        out.end(types::layer_type(packing.compression)).map_err(Error::Read)
    });
    if made.is_err() && sender.is_closed() {
        return Err(Error::Cancelled);
    }
    if made.is_err() {
        // The request breaks off; nobody may be there any more to see it.
        drop(sender.blocking_send(Err(io::Error::other("the layer cannot be read"))));
    }
    made
}

/// Hashes and sends what is written.
struct Outgoing {
    sender: mpsc::Sender<io::Result<Bytes>>,
    hash: Sha256,
    size: u64,
    skip: u64,
    piece: Vec<u8>,
}

impl Outgoing {
    fn send(&mut self) -> io::Result<()> {
        if self.piece.is_empty() {
            return Ok(());
        }
        self.hash.update(&self.piece);
        let known = usize::try_from(self.skip.saturating_sub(self.size)).unwrap_or(usize::MAX);
        self.size += self.piece.len() as u64;
        let piece = std::mem::replace(&mut self.piece, Vec::with_capacity(PIECE));
        let mut piece = Bytes::from(piece);
        let new = piece.split_off(known.min(piece.len()));
        if new.is_empty() {
            return Ok(());
        }
        self.sender.blocking_send(Ok(new)).map_err(|_| io::ErrorKind::BrokenPipe.into())
    }

    fn end(mut self, media_type: &str) -> io::Result<Descriptor> {
        self.send()?;
        self.sender
            .blocking_send(Ok(Bytes::new()))
            .map_err(|_| io::Error::from(io::ErrorKind::BrokenPipe))?;
        let digest = Digest::from_sha256(self.hash.finalize().into());
        Ok(Descriptor::new(media_type, digest, self.size))
    }
}

impl Write for Outgoing {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let count = bytes.len().min(PIECE - self.piece.len());
        self.piece.extend_from_slice(&bytes[..count]);
        if self.piece.len() == PIECE {
            self.send()?;
        }
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Tells how much was written.
struct Counted<W> {
    inner: W,
    count: u64,
    meter: Meter,
}

impl<W: Write> Write for Counted<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let count = self.inner.write(bytes)?;
        self.count += count as u64;
        self.meter.at(self.count);
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}

/// Tells how much was read.
struct Metered<R> {
    inner: R,
    at: u64,
    meter: Arc<Mutex<Meter>>,
}

impl<R: Read> Read for Metered<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.inner.read(buffer)?;
        self.at += count as u64;
        self.meter.lock().unwrap_or_else(PoisonError::into_inner).at(self.at);
        Ok(count)
    }
}
