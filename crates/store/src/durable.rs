//! What is complete becomes durable: in the background, many layers with one flush.
//!
//! A layer is in place, and can be used, as soon as it is unpacked. Its record then names the
//! boot of the host in which that was (`unsynced`), because the kernel holds in memory what
//! the disk does not have yet. When the file systems of the store are flushed, the marker is
//! taken out of the record. A process that finds a marker of its own boot has lost nothing,
//! however the last one ended; a marker of another boot is on a layer of which the disk may
//! have anything, and which therefore is dropped.
//!
//! The same flush makes the blobs and the index durable. Before the index is first replaced,
//! the last one that is known to be durable gets a second name ([`SYNCED`]), which is read if
//! the index itself did not survive.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;

use fs_err::File;
use rustix::io::Errno;
use silo_oci::image::to_bytes;

use crate::layer::RECORD;
use crate::lease::lock;
use crate::store::{State, sync_directory, write_durably};
use crate::{Error, Layer};

/// The images.
pub(crate) const INDEX: &str = "content/index.json";
/// The last durable index, while the present one is not known to be.
pub(crate) const SYNCED: &str = "content/index.synced.json";
/// The marker where the kernel does not tell its boot.
const NO_BOOT: &str = "unknown";
/// The marker of layers that could not be flushed: nobody knows what the disk has of them.
const FAILED: &str = "failed";

/// What tells one boot of the host from another.
fn read_boot() -> String {
    let text = fs_err::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
    let text = text.trim();
    if text.is_empty() { NO_BOOT.to_owned() } else { text.to_owned() }
}

/// Flushes in a thread that lives as long as there is something to flush.
#[derive(Debug)]
pub(crate) struct Flusher {
    shared: Arc<Shared>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

#[derive(Debug)]
struct Shared {
    root: PathBuf,
    state: Arc<Mutex<State>>,
    boot: String,
    /// Open since before anything was written, so that every failure to write is reported.
    file_systems: Vec<File>,
    /// Held during a flush.
    round: Mutex<()>,
    /// There is something to flush that no flush has begun with.
    wanted: AtomicBool,
}

impl Flusher {
    pub(crate) fn new(root: &Path, state: Arc<Mutex<State>>) -> Result<Self, Error> {
        let mut file_systems = Vec::new();
        let mut devices = Vec::new();
        for name in ["content", "layers"] {
            let path = root.join(name);
            let file = File::open(&path).map_err(Error::io("open", &path))?;
            let device = rustix::fs::fstat(&file)
                .map_err(io::Error::from)
                .map_err(Error::io("look at", &path))?
                .st_dev;
            if !devices.contains(&device) {
                devices.push(device);
                file_systems.push(file);
            }
        }
        let shared = Shared {
            root: root.to_owned(),
            state,
            boot: read_boot(),
            file_systems,
            round: Mutex::default(),
            wanted: AtomicBool::new(false),
        };
        Ok(Self { shared: Arc::new(shared), thread: Mutex::default() })
    }

    /// The marker of what is written now.
    pub(crate) fn marker(&self) -> String {
        self.shared.boot.clone()
    }

    /// Whether what has this marker is what was written: the host has been up since.
    pub(crate) fn is_current(&self, marker: &str) -> bool {
        marker == self.shared.boot && marker != NO_BOOT
    }

    /// Asks for a flush of everything that has been written so far. It goes on in the
    /// background, unless nobody could tell later whether it took place.
    pub(crate) fn request(&self) -> Result<(), Error> {
        if self.shared.boot == NO_BOOT {
            return self.shared.round();
        }
        let mut thread = lock(&self.thread);
        if self.shared.wanted.swap(true, Ordering::AcqRel)
            && thread.as_ref().is_some_and(|thread| !thread.is_finished())
        {
            return Ok(());
        }
        let shared = Arc::clone(&self.shared);
        let previous = thread.take();
        let work = move || {
            if let Some(previous) = previous {
                // Its failures are in the log.
                drop(previous.join());
            }
            while shared.wanted.swap(false, Ordering::AcqRel) {
                if let Err(error) = shared.round() {
                    tracing::error!(%error, "new layers are not durable");
                }
            }
        };
        match std::thread::Builder::new().name("flush".into()).spawn(work) {
            Ok(handle) => *thread = Some(handle),
            Err(error) => tracing::warn!(%error, "new layers are not durable yet"),
        }
        Ok(())
    }

    /// Flushes, and returns when that is done.
    pub(crate) fn now(&self) -> Result<(), Error> {
        self.shared.round()
    }
}

impl Drop for Flusher {
    fn drop(&mut self) {
        if let Some(thread) = lock(&self.thread).take() {
            // Its failures are in the log.
            drop(thread.join());
        }
    }
}

impl Shared {
    fn round(&self) -> Result<(), Error> {
        let _round = lock(&self.round);
        let (layers, index) = {
            let state = lock(&self.state);
            let pending = |layer: &&Arc<Layer>| layer.unsynced.as_ref() == Some(&self.boot);
            let layers: Vec<Arc<Layer>> = state.layers.values().filter(pending).cloned().collect();
            (layers, (!state.index_is_durable).then_some(state.index_generation))
        };
        if layers.is_empty() && index.is_none() {
            return Ok(());
        }
        if let Err(error) = self.flush() {
            for layer in layers {
                self.mark(&layer, Some(FAILED))?;
            }
            return Err(error);
        }
        for layer in layers {
            self.mark(&layer, None)?;
        }
        if let Some(generation) = index {
            let mut state = lock(&self.state);
            if state.index_generation == generation {
                let path = self.root.join(SYNCED);
                match fs_err::remove_file(&path) {
                    Err(error) if error.kind() != io::ErrorKind::NotFound => {
                        return Err(Error::io("remove", path)(error));
                    }
                    _ => state.index_is_durable = true,
                }
            }
        }
        Ok(())
    }

    fn flush(&self) -> Result<(), Error> {
        for file in &self.file_systems {
            rustix::fs::syncfs(file)
                .map_err(io::Error::from)
                .map_err(Error::io("flush the file system of", file.path()))?;
        }
        Ok(())
    }

    /// Replaces the marker in a record.
    fn mark(&self, layer: &Arc<Layer>, marker: Option<&str>) -> Result<(), Error> {
        let directory = self.root.join("layers").join(layer.chain_id.hex());
        let record = directory.join(RECORD);
        let aside = directory.join("layer.json.new");
        let marked = Layer { unsynced: marker.map(str::to_owned), ..(**layer).clone() };
        // Its directory is not there any more if it is being removed.
        let gone = |error: &io::Error| {
            error.raw_os_error() == Some(Errno::NOENT.raw_os_error())
                || error.kind() == io::ErrorKind::NotFound
        };
        match write_durably(&aside, &to_bytes(&marked)) {
            Err(error) if gone(&error) => return Ok(()),
            result => result.map_err(Error::io("write", &aside))?,
        }
        let mut state = lock(&self.state);
        match state.layers.get_mut(&layer.chain_id) {
            Some(known) if Arc::ptr_eq(known, layer) => {
                fs_err::rename(&aside, &record).map_err(Error::io("rename", &aside))?;
                *known = Arc::new(marked);
            }
            _ => return Ok(()),
        }
        drop(state);
        match sync_directory(&directory) {
            Err(Error::Io { source, .. }) if gone(&source) => Ok(()),
            result => result,
        }
    }
}
