//! The store as a whole: its directories, its blobs, and what is known of its layers.

use std::collections::{BTreeMap, HashMap};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::Sender;
use std::sync::{Arc, Mutex};

use fs_err::File;
use rustix::fs::Mode;
use sha2::{Digest as _, Sha256};
use silo_types::Digest;

use crate::durable::{Flusher, INDEX};
use crate::layer::{self, NewLayer, RECORD, remove_tree};
use crate::lease::{Pins, lock};
use crate::receive::PARTIAL;
use crate::{Error, Image, ImageIndex, Layer, Lease, snapshot};

/// How long a process that was killed may hold the lock.
const PATIENCE: std::time::Duration = std::time::Duration::from_secs(2);
/// An index of no images.
const EMPTY_INDEX: &[u8] = br#"{"schemaVersion":2,"manifests":[]}"#;

/// A store. Clones are the same store; all methods block.
#[derive(Debug, Clone)]
pub struct Store {
    pub(crate) inner: Arc<Inner>,
}

#[derive(Debug)]
pub(crate) struct Inner {
    pub(crate) root: PathBuf,
    /// Held while the store is open.
    _lock: File,
    pub(crate) pins: Arc<Mutex<Pins>>,
    /// Also orders everything that adds or removes layers, images and snapshots.
    pub(crate) state: Arc<Mutex<State>>,
    pub(crate) flusher: Flusher,
    counter: AtomicU64,
    reaper: Mutex<Option<Sender<PathBuf>>>,
}

/// What is in the store, as last written to disk.
#[derive(Debug, Default)]
pub(crate) struct State {
    pub(crate) layers: HashMap<Digest, Arc<Layer>>,
    pub(crate) images: BTreeMap<Digest, Image>,
    pub(crate) indexes: BTreeMap<Digest, ImageIndex>,
    /// How often the index was written.
    pub(crate) index_generation: u64,
    /// The disk has the index as it is.
    pub(crate) index_is_durable: bool,
}

/// A blob under a temporary name; removed when dropped without having been placed.
#[derive(Debug)]
pub(crate) struct StagedBlob {
    pub(crate) path: PathBuf,
    pub(crate) digest: Digest,
    pub(crate) size: u64,
    placed: bool,
}

impl StagedBlob {
    /// A blob that is in a file which is its own.
    pub(crate) fn at(path: PathBuf, digest: Digest, size: u64) -> Self {
        Self { path, digest, size, placed: false }
    }
}

impl Drop for StagedBlob {
    fn drop(&mut self) {
        if !self.placed {
            // What remains is removed when the store is opened next.
            drop(fs_err::remove_file(&self.path));
        }
    }
}

impl Store {
    /// Opens the store in `root`, which is made if it does not exist, and removes what was
    /// being written when the last process that had it open ended, and what the disk may not
    /// have whole after the host went down. Images of which something is missing then are
    /// logged, and are not in the store any more.
    pub fn open(root: impl AsRef<Path>) -> Result<Self, Error> {
        let root = root.as_ref();
        fs_err::create_dir_all(root).map_err(Error::io("create", root))?;
        let root = fs_err::canonicalize(root).map_err(Error::io("resolve", root))?;
        for (name, mode) in [
            ("content", 0o700),
            ("content/blobs", 0o700),
            ("content/blobs/sha256", 0o700),
            ("content/ingest", 0o700),
            (PARTIAL, 0o700),
            ("layers", 0o700),
            ("snapshots", 0o700),
            ("trash", 0o700),
        ] {
            let path = root.join(name);
            match rustix::fs::mkdir(&path, Mode::from_raw_mode(mode)) {
                Ok(()) | Err(rustix::io::Errno::EXIST) => {}
                Err(error) => return Err(Error::io("create", path)(error.into())),
            }
            if matches!(name, "layers" | "snapshots") {
                silo_sys::path::spread(&path);
            }
        }
        let path = root.join("content/ingest");
        let held = File::open(&path).map_err(Error::io("open", &path))?;
        if !silo_sys::lock::exclusive(&held, PATIENCE).map_err(Error::io("lock", &path))? {
            return Err(Error::Busy(root));
        }
        let layout = root.join("content/oci-layout");
        let text = br#"{"imageLayoutVersion":"1.0.0"}"#;
        if fs_err::read(&layout).map_or(true, |found| found != text) {
            write_atomically(&layout, text)?;
        }
        let index = root.join(INDEX);
        if rustix::fs::access(&index, rustix::fs::Access::EXISTS).is_err() {
            write_atomically(&index, EMPTY_INDEX)?;
        }
        let state = Arc::new(Mutex::new(State::default()));
        let flusher = Flusher::new(&root, Arc::clone(&state))?;
        let inner = Inner {
            root,
            _lock: held,
            pins: Arc::default(),
            state,
            flusher,
            counter: AtomicU64::new(0),
            reaper: Mutex::default(),
        };
        let store = Self { inner: Arc::new(inner) };
        store.clear_leftovers()?;
        let layers = store.read_layers()?;
        lock(&store.inner.state).layers = layers;
        store.recover_images()?;
        store.remove_orphans()?;
        store.remove_finished()?;
        snapshot::prepare(&store)?;
        // What an earlier process of this boot could not wait for.
        store.inner.flusher.request()?;
        Ok(store)
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.inner.root.join(name)
    }

    /// Where a blob is, or would be.
    pub(crate) fn blob_path(&self, digest: &Digest) -> PathBuf {
        self.inner.root.join("content/blobs/sha256").join(digest.hex())
    }

    /// The directory of a layer.
    pub(crate) fn layer_path(&self, chain: &Digest) -> PathBuf {
        self.inner.root.join("layers").join(chain.hex())
    }

    /// A name in `directory` that nothing else has.
    pub(crate) fn fresh(&self, directory: &str, prefix: &str) -> PathBuf {
        let number = self.inner.counter.fetch_add(1, Ordering::Relaxed);
        let name = format!("{prefix}{}-{number}", std::process::id());
        self.inner.root.join(directory).join(name)
    }

    fn clear_leftovers(&self) -> Result<(), Error> {
        for (directory, prefix) in [("content/ingest", ""), ("layers", ".new-"), ("trash", "")] {
            for name in names(&self.path(directory))? {
                if !name.starts_with(prefix) {
                    continue;
                }
                let path = self.path(directory).join(name);
                if directory == "trash" {
                    self.reap(path);
                } else {
                    remove_tree(&path).map_err(Error::io("remove", &path))?;
                }
            }
        }
        Ok(())
    }

    /// Reads the records of layers, and drops what the disk may not have whole.
    fn read_layers(&self) -> Result<HashMap<Digest, Arc<Layer>>, Error> {
        let mut layers = HashMap::new();
        for name in names(&self.path("layers"))? {
            let path = self.path("layers").join(&name);
            let record = path.join(RECORD);
            let lost = match fs_err::read(&record) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => "it has no record",
                Err(error) => {
                    tracing::warn!(layer = name, %error, "a layer is ignored");
                    continue;
                }
                Ok(bytes) => match serde_json::from_slice::<Layer>(&bytes) {
                    // As it was written, but not by this version.
                    Err(error) if error.is_data() => {
                        tracing::warn!(layer = name, %error, "a layer is ignored");
                        continue;
                    }
                    Err(_) => "its record was not written to the end",
                    Ok(layer) if layer.chain_id.hex() != name => "its record is another's",
                    Ok(layer) => match &layer.unsynced {
                        Some(marker) if !self.inner.flusher.is_current(marker) => {
                            "the host went down before it was on the disk"
                        }
                        _ => {
                            layers.insert(layer.chain_id, Arc::new(layer));
                            continue;
                        }
                    },
                },
            };
            tracing::warn!(layer = name, reason = lost, "a layer is dropped");
            self.discard(&path)?;
        }
        Ok(layers)
    }

    /// A guard that keeps what it holds from being collected.
    pub fn lease(&self) -> Lease {
        Lease::new(Arc::clone(&self.inner.pins))
    }

    /// Whether a blob is in the content store.
    pub fn has_blob(&self, digest: &Digest) -> bool {
        rustix::fs::access(self.blob_path(digest), rustix::fs::Access::EXISTS).is_ok()
    }

    /// Opens a blob.
    pub fn open_blob(&self, digest: &Digest) -> Result<std::fs::File, Error> {
        let path = self.blob_path(digest);
        match File::open(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Err(Error::NoBlob(*digest)),
            result => result.map(File::into_file).map_err(Error::io("open", path)),
        }
    }

    /// Reads a blob of at most `limit` bytes.
    pub fn read_blob(&self, digest: &Digest, limit: u64) -> Result<Vec<u8>, Error> {
        let file = self.open_blob(digest)?;
        let path = self.blob_path(digest);
        let mut bytes = Vec::new();
        file.take(limit.saturating_add(1))
            .read_to_end(&mut bytes)
            .map_err(Error::io("read", &path))?;
        if bytes.len() as u64 > limit {
            let error = io::Error::new(io::ErrorKind::FileTooLarge, "larger than expected");
            return Err(Error::io("read", path)(error));
        }
        Ok(bytes)
    }

    /// Stores a blob. It is durable after the next flush.
    pub(crate) fn put_blob(&self, bytes: &[u8]) -> Result<Digest, Error> {
        let blob = self.stage_blob(bytes)?;
        let digest = blob.digest;
        self.place_blob(blob)?;
        Ok(digest)
    }

    /// Writes a blob under a temporary name.
    pub(crate) fn stage_blob(&self, bytes: &[u8]) -> Result<StagedBlob, Error> {
        let (mut file, mut blob) = self.begin_blob()?;
        file.write_all(bytes).map_err(Error::io("write", &blob.path))?;
        blob.digest = Digest::from_sha256(Sha256::digest(bytes).into());
        blob.size = bytes.len() as u64;
        Ok(blob)
    }

    /// A file for a blob whose digest is not known yet.
    pub(crate) fn begin_blob(&self) -> Result<(File, StagedBlob), Error> {
        let path = self.fresh("content/ingest", "");
        let file = File::create_new(&path).map_err(Error::io("create", &path))?;
        let digest = Digest::from_sha256([0; 32]);
        Ok((file, StagedBlob { path, digest, size: 0, placed: false }))
    }

    /// Gives a blob its place. One that an image or a layer has already stays as it is, for
    /// that one may be durable. One that the registry has becomes another name of its file.
    pub(crate) fn place_blob(&self, mut blob: StagedBlob) -> Result<(), Error> {
        let registry = self.path(crate::REGISTRY_BLOBS).join(blob.digest.hex());
        if let Err(error) = crate::share(&registry, &blob.path) {
            tracing::debug!(%error, blob = %blob.digest, "not shared with the registry");
        }
        let state = lock(&self.inner.state);
        let known = state.images.contains_key(&blob.digest)
            || state.images.values().any(|image| image.manifest.digest == blob.digest)
            || state.indexes.values().any(|index| index.documents.contains(&blob.digest))
            || state
                .layers
                .values()
                .any(|layer| layer.blob.as_ref().is_some_and(|known| known.digest == blob.digest));
        if !known {
            let path = self.blob_path(&blob.digest);
            fs_err::rename(&blob.path, &path).map_err(Error::io("rename", &blob.path))?;
            blob.placed = true;
        }
        Ok(())
    }

    /// Makes everything durable that was stored before, and returns when it is. A store does
    /// so by itself, but after its operations have returned.
    pub fn sync(&self) -> Result<(), Error> {
        self.inner.flusher.now()
    }

    /// A name for a layer that is being unpacked.
    pub(crate) fn new_layer_path(&self) -> PathBuf {
        self.fresh("layers", ".new-")
    }

    /// What is recorded of a layer.
    pub fn layer(&self, chain: &Digest) -> Result<Arc<Layer>, Error> {
        lock(&self.inner.state).layers.get(chain).cloned().ok_or(Error::NoLayer(*chain))
    }

    /// All layers, in no order.
    pub fn layers(&self) -> Vec<Arc<Layer>> {
        lock(&self.inner.state).layers.values().cloned().collect()
    }

    /// The directory of a layer's files.
    pub fn layer_files(&self, chain: &Digest) -> PathBuf {
        self.layer_path(chain).join(layer::FILES)
    }

    /// Gives an unpacked layer its place on top of `parent`, marked as not durable yet; if the
    /// same is there already, the new one is dropped.
    pub(crate) fn place_layer(
        &self,
        new: NewLayer,
        parent: Option<&Digest>,
    ) -> Result<Arc<Layer>, Error> {
        let mut state = lock(&self.inner.state);
        let chain = new.chain_id(parent);
        if let Some(layer) = state.layers.get(&chain) {
            return Ok(Arc::clone(layer));
        }
        let below = parent.map(|chain| (chain, self.layer_path(chain)));
        let below = below.as_ref().map(|(chain, path)| (*chain, path.as_path()));
        let layer = new.seal(below, self.inner.flusher.marker())?;
        let to = self.layer_path(&chain);
        // Only what is not in the table can be in the way: what could not be read.
        self.discard(&to)?;
        new.place(&to)?;
        let layer = Arc::new(layer);
        state.layers.insert(chain, Arc::clone(&layer));
        Ok(layer)
    }

    /// Writes the uncompressed tar of a layer; its digest is checked.
    pub fn write_layer_tar(&self, chain: &Digest, output: impl Write) -> Result<(), Error> {
        let layer = self.layer(chain)?;
        let blob = layer.blob.as_ref().map(|blob| self.blob_path(&blob.digest));
        layer::write_tar(&self.layer_path(chain), &layer, blob.as_deref(), output)
    }

    /// Moves something of the store's out of the way and removes it in the background.
    pub(crate) fn discard(&self, path: &Path) -> Result<(), Error> {
        let trash = self.fresh("trash", "");
        match fs_err::rename(path, &trash) {
            Ok(()) => self.reap(trash),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(Error::io("rename", path)(error)),
        }
        Ok(())
    }

    fn reap(&self, path: PathBuf) {
        let mut reaper = lock(&self.inner.reaper);
        let path = match &*reaper {
            Some(sender) => match sender.send(path) {
                Ok(()) => return,
                Err(unsent) => unsent.0,
            },
            None => path,
        };
        let (sender, receiver) = std::sync::mpsc::channel::<PathBuf>();
        drop(sender.send(path));
        let work = move || {
            for path in receiver {
                if let Err(error) = remove_tree(&path) {
                    tracing::warn!(path = %path.display(), %error, "cannot remove");
                }
            }
        };
        // Without a thread it stays in the trash until the store is opened next.
        if std::thread::Builder::new().name("reaper".into()).spawn(work).is_ok() {
            *reaper = Some(sender);
        }
    }
}

/// The names in a directory, as far as they are text (all of the store's own are).
pub(crate) fn names(directory: &Path) -> Result<Vec<String>, Error> {
    let mut names = Vec::new();
    for entry in fs_err::read_dir(directory).map_err(Error::io("list", directory))? {
        let entry = entry.map_err(Error::io("list", directory))?;
        names.extend(entry.file_name().into_string());
    }
    Ok(names)
}

/// Makes renames in a directory durable.
pub(crate) fn sync_directory(path: &Path) -> Result<(), Error> {
    File::open(path).and_then(|file| file.sync_all()).map_err(Error::io("flush", path))
}

/// Writes a file to the disk.
pub(crate) fn write_durably(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut file = File::create(path)?;
    file.write_all(bytes)?;
    file.sync_all()
}

/// Replaces a file's content, durably and at once.
pub(crate) fn write_atomically(path: &Path, bytes: &[u8]) -> Result<(), Error> {
    let aside = path.with_extension("new");
    write_durably(&aside, bytes).map_err(Error::io("write", &aside))?;
    fs_err::rename(&aside, path).map_err(Error::io("rename", &aside))?;
    path.parent().map_or(Ok(()), sync_directory)
}
