//! What a builder needs of the engine beyond what clients have: roots on top of layers that belong
//! to no container, containers that no client sees, and images of layers.
//!
//! Everything here goes when its value is dropped, and what a killed daemon leaves of it is removed
//! at the next start: directories because no record tells of them, containers because their record
//! says that they are a build's.

use std::any::Any;
use std::io;
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use rustix::fs::{AtFlags, FileType, Mode, OFlags};
use rustix::io::Errno;
use silo_docker::containers::Config;
use silo_docker::host_config::HostConfig;
use silo_oci::image::ImageConfig;
use silo_oci::reference::Reference;
use silo_shim::protocol::AttachOptions;
use silo_store::{ImageIndex, Layer, Lease, Snapshot, Store};
use silo_types::{ContainerId, Digest, Error};
use tokio::io::AsyncReadExt;
use tokio::sync::oneshot;

use crate::container::{Container, Record, State, WaitingClient};
use crate::containers::archive::blocking;
use crate::containers::{Cause, create, validate};
use crate::engine::Engine;
use crate::images::{Entry, ImageRecord};
use crate::mountpoints::{MountKind, MountRecord};
use crate::windows;

/// A layer and what keeps it.
pub type HeldLayer = (Arc<Layer>, Lease);

/// A root on top of layers, to be written to and made a layer. Without a container: nothing is
/// mounted in it, and it has only what the layers have.
#[derive(Debug)]
pub struct Workspace {
    engine: Arc<Engine>,
    snapshot: Snapshot,
    is_windows: bool,
}

impl Drop for Workspace {
    fn drop(&mut self) {
        self.engine.drop_snapshot(&self.snapshot.id);
    }
}

impl Workspace {
    /// The root, as a mount that nobody else sees. One at a time.
    pub fn mount(&self) -> Result<OwnedFd, Error> {
        let lowers: Vec<&Path> = self.snapshot.lowers.iter().map(PathBuf::as_path).collect();
        let mut options = crate::containers::rootfs::options_of(self.is_windows).to_vec();
        options.push(("volatile", None));
        let failed = |error| Error::internal(format!("mount a build's root: {error}"));
        silo_sys::mount::forget_volatile(&self.snapshot.work).map_err(failed)?;
        let upper = Some((self.snapshot.upper.as_path(), self.snapshot.work.as_path()));
        silo_sys::mount::overlay(&lowers, upper, &options).map_err(failed)
    }

    /// Where what is written goes: whoever writes there while nothing is mounted must know that
    /// the layers beneath have nothing at these paths.
    pub fn upper(&self) -> &Path {
        &self.snapshot.upper
    }

    /// Makes a layer of what was written; `None` if that is nothing. Nothing may have the root
    /// mounted. Times later than `latest`, seconds since 1970, are set to it.
    pub fn commit(self, latest: Option<i64>) -> Result<Option<HeldLayer>, Error> {
        let store = &self.engine.store;
        if self.is_windows {
            let changes = silo_store::WindowsChanges::default();
            let layer = store.commit_windows_layer(&self.snapshot.id, &changes, latest);
            return layer.map(Some).map_err(Error::from_kind);
        }
        store.commit_layer(&self.snapshot.id, latest).map_err(Error::from_kind)
    }
}

/// What a step mounts.
#[derive(Debug)]
pub struct StepMount {
    /// The absolute path in the container, for Windows as `/c/data`.
    pub destination: String,
    /// What is mounted there.
    pub source: StepSource,
    /// Not writable.
    pub readonly: bool,
}

/// See [`StepMount`].
#[derive(Debug)]
pub enum StepSource {
    /// A detached mount.
    Tree(OwnedFd),
    /// Memory, with mount options.
    Tmpfs(String),
}

/// How a step is carried out.
#[derive(Debug)]
pub struct StepOptions {
    /// The layers beneath.
    pub chain: Option<Digest>,
    /// They are a Windows image's.
    pub is_windows: bool,
    /// The program, in `cmd`, its environment, directory and user.
    pub config: Config,
    /// Limits and network.
    pub host_config: HostConfig,
    /// What is mounted.
    pub mounts: Vec<StepMount>,
    /// Whatever the program needs: it is dropped when the program has ended, however it does.
    pub keep: Box<dyn Any + Send>,
}

/// Which output of a step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StepStream {
    /// Standard output.
    Stdout,
    /// Standard error.
    Stderr,
}

/// A container that carries out a step of a build. No client sees it; it ends and goes when the
/// value is dropped.
#[derive(Debug)]
pub struct StepContainer {
    engine: Arc<Engine>,
    container: Arc<Container>,
    runtime: tokio::runtime::Handle,
    keep: Mutex<Option<Box<dyn Any + Send>>>,
}

impl Drop for StepContainer {
    fn drop(&mut self) {
        let (engine, container) = (Arc::clone(&self.engine), Arc::clone(&self.container));
        let keep = self.keep.get_mut().unwrap_or_else(PoisonError::into_inner).take();
        self.runtime.spawn(async move {
            engine.end_step(&container).await;
            drop(keep);
        });
    }
}

impl StepContainer {
    /// Its id.
    pub fn id(&self) -> &ContainerId {
        &self.container.id
    }

    /// Runs the program to its end and returns its exit code. The program is held up while what
    /// `output` gives back is not ready.
    pub async fn run<'a>(
        &self,
        output: impl Fn(StepStream, Bytes) -> Pin<Box<dyn Future<Output = ()> + Send + 'a>> + Send,
    ) -> Result<i64, Error> {
        let (sender, receiver) = oneshot::channel();
        let options = AttachOptions { stdout: true, stderr: true, ..AttachOptions::default() };
        let waiting = WaitingClient { options, streams: sender };
        let clients = &self.container.waiting;
        clients.lock().unwrap_or_else(PoisonError::into_inner).push(waiting);
        let mut watch = self.container.watch();
        let begun = watch.borrow_and_update().exits;
        self.engine.start(&self.container, Cause::Client).await?;
        if let Ok(attached) = receiver.await {
            let (mut stream, _) = attached.stream.into_split();
            let mut header = [0; 8];
            while stream.read_exact(&mut header).await.is_ok() {
                let [number, _, _, _, length @ ..] = header;
                let length = usize::try_from(u32::from_be_bytes(length)).unwrap_or(0);
                let mut bytes = vec![0; length];
                if stream.read_exact(&mut bytes).await.is_err() {
                    break;
                }
                let which = if number == 2 { StepStream::Stderr } else { StepStream::Stdout };
                output(which, bytes.into()).await;
            }
        }
        let ended = watch.wait_for(|state| !state.running || state.exits != begun).await;
        let ended = ended.map_err(|_| Error::internal("a build's step was lost"))?;
        drop(self.keep.lock().unwrap_or_else(PoisonError::into_inner).take());
        Ok(ended.exit_code)
    }

    /// Removes the places of mounts, which the engine made where the root had none. It has ended.
    pub async fn forget_places(&self, places: &[String]) -> Result<(), Error> {
        self.container.wait_released().await;
        let snapshot = self.engine.whole_snapshot(&self.container)?;
        let is_windows = windows::is(&self.container.record());
        let mut places: Vec<PathBuf> = places
            .iter()
            .map(|place| {
                let below = if is_windows { place.strip_prefix(windows::DRIVE) } else { None };
                silo_sys::path::clean(below.unwrap_or(place))
            })
            .collect();
        places.sort_by_key(|place| std::cmp::Reverse(place.components().count()));
        blocking(move || {
            places.iter().try_for_each(|place| forget_place(&snapshot, place)).map_err(|error| {
                Error::internal(format!("clean up after the mounts of a build: {error}"))
            })
        })
        .await
    }

    /// Makes a layer of what it changed; `None` if that is nothing. It has ended. Times later than
    /// `latest`, seconds since 1970, are set to it.
    pub async fn commit(&self, latest: Option<i64>) -> Result<Option<HeldLayer>, Error> {
        let engine = Arc::clone(&self.engine);
        let snapshot = self.container.id.to_string();
        self.container.wait_released().await;
        if windows::is(&self.container.record()) {
            let changes = self.engine.windows_changes(&self.container, latest).await?;
            return blocking(move || {
                let layer = engine.store.commit_windows_layer(&snapshot, &changes, latest);
                layer.map(Some).map_err(Error::from_kind)
            })
            .await;
        }
        blocking(move || engine.store.commit_layer(&snapshot, latest).map_err(Error::from_kind))
            .await
    }
}

impl Engine {
    /// The store, for what a builder reads and holds.
    pub fn store(&self) -> &Arc<Store> {
        &self.store
    }

    /// The client for what a builder fetches.
    pub fn http(&self) -> &silo_http::Client {
        &self.http
    }

    /// Removes layers and blobs that nothing needs any more, and tells how many bytes they had.
    pub async fn collect_garbage(&self) -> Result<u64, Error> {
        Ok(self.images.collect().await?.bytes)
    }

    /// A directory for a builder's own state.
    pub fn build_directory(&self) -> PathBuf {
        self.config.data_root.join("build")
    }

    /// Where nothing outlives a reboot.
    pub fn run_directory(&self) -> &Path {
        &self.config.run_root
    }

    /// The image that stands for one of Microsoft's which is not in the store, and what the
    /// client is told then.
    pub fn substitute(&self, name: &str) -> Option<(Arc<Entry>, String)> {
        self.windows_substitute(name).map(|found| (found.entry, found.notice))
    }

    /// Refuses an image whose programs cannot run here: one with Microsoft's own base.
    pub fn may_run(&self, name: &str, entry: &Entry) -> Result<(), Error> {
        if entry.image.config.os != windows::OS {
            return Ok(());
        }
        self.windows_is_runnable(name, entry)
    }

    /// What the client is told of an image that stands on one of Silo's bases.
    pub fn stands_on(&self, name: &str, entry: &Entry) -> Option<String> {
        Self::windows_stands_on(name, entry)
    }

    /// The files of layers without anything of a container, as a read-only mount.
    pub fn layers_root(&self, chain: Option<Digest>, is_windows: bool) -> Result<OwnedFd, Error> {
        let lowers = self.directories_of(chain, is_windows)?;
        let lowers: Vec<&Path> = lowers.iter().map(PathBuf::as_path).collect();
        let mounted = match lowers[..] {
            [only] => silo_sys::mount::bind_clone(only, false),
            _ => {
                let options = crate::containers::rootfs::options_of(is_windows);
                silo_sys::mount::overlay(&lowers, None, options)
            }
        };
        mounted.map_err(|error| Error::internal(format!("mount layers: {error}")))
    }

    fn directories_of(
        &self,
        chain: Option<Digest>,
        is_windows: bool,
    ) -> Result<Vec<PathBuf>, Error> {
        let mut lowers = self.store.layer_directories(chain).map_err(Error::from_kind)?;
        if is_windows && let Some(chain) = &chain {
            let empty = lowers.pop();
            lowers = self.windows_layers(chain)?.into_iter().map(|layer| layer.files).collect();
            lowers.extend(empty);
        }
        Ok(lowers)
    }

    /// A root on top of layers that is written to. A `blank` one shows nothing of them: what is
    /// written does not depend on what they have.
    pub fn workspace(
        self: &Arc<Self>,
        chain: Option<Digest>,
        is_windows: bool,
        blank: bool,
    ) -> Result<Workspace, Error> {
        let name = format!("build-{}", silo_types::id::random_hex(16));
        let lowers = self.directories_of(if blank { None } else { chain }, is_windows)?;
        let mut snapshot = self.store.snapshot_create(&name, chain).map_err(Error::from_kind)?;
        snapshot.lowers = lowers;
        Ok(Workspace { engine: Arc::clone(self), snapshot, is_windows })
    }

    /// Makes the container of a step.
    pub fn step(self: &Arc<Self>, options: StepOptions) -> Result<StepContainer, Error> {
        let StepOptions { chain, is_windows, mut config, mut host_config, mounts, keep } = options;
        if is_windows {
            self.windows_runtime()?;
            windows::account(&config.user)?;
            windows::paths::finish(&mut config)?;
        } else {
            validate::working_directory(&mut config)?;
        }
        validate::config(&mut config)?;
        validate::host_config(&mut host_config, &self.host, false)?;
        validate::network_and_config(&config, &host_config)?;
        validate::adapt(&mut host_config, &self.host);
        self.name_shared_containers(&mut host_config)?;
        host_config.log_config.driver = "none".into();

        let id = ContainerId::random();
        create::host_name(&id, &mut config, &host_config);
        let made = MadeStep { engine: self, id: &id, finished: false };
        let dir = self.make_files(&id, chain, is_windows)?;
        let (mut records, mut trees) = (Vec::new(), Vec::new());
        for mount in mounts {
            let mut record = MountRecord {
                destination: mount.destination.clone(),
                rw: !mount.readonly,
                propagation: crate::mountpoints::DEFAULT_PROPAGATION.into(),
                ..MountRecord::default()
            };
            match mount.source {
                StepSource::Tree(tree) => {
                    record.source = "/".into();
                    trees.push((mount.destination, tree));
                }
                StepSource::Tmpfs(options) => {
                    (record.kind, record.tmpfs) = (MountKind::Tmpfs, options);
                }
            }
            records.push(record);
        }
        let record = Record {
            name: id.short().to_owned(),
            created: crate::container::now(),
            image: None,
            os: if is_windows { windows::OS } else { "linux" }.into(),
            config,
            host_config,
            mounts: records,
            networking: None,
            hidden: true,
        };
        let container = Arc::new(Container::new(id.clone(), dir, record, State::default()));
        *container.trees.lock().unwrap_or_else(PoisonError::into_inner) = trees;
        self.save_new(&container)?;
        self.containers.insert(Arc::clone(&container));
        made.finish();
        let runtime = tokio::runtime::Handle::current();
        let keep = Mutex::new(Some(keep));
        Ok(StepContainer { engine: Arc::clone(self), container, runtime, keep })
    }

    /// Kills the container of a step and removes it.
    pub(crate) async fn end_step(self: &Arc<Self>, container: &Arc<Container>) {
        if let Err(error) = self.kill(container).await {
            tracing::warn!(container = %container.id, %error, "cannot end a build's step");
        }
        self.auto_remove(container).await;
    }

    /// Ends the containers of all steps, and waits until nothing of them lives.
    pub(crate) async fn end_steps(self: &Arc<Self>) {
        let mut ends = tokio::task::JoinSet::new();
        for container in self.containers.hidden() {
            let engine = Arc::clone(self);
            ends.spawn(async move {
                engine.end_step(&container).await;
                container.wait_released().await;
                if let Err(error) = silo_shim::gone(&container.dir).await {
                    tracing::warn!(container = %container.id, %error, "cannot get rid of a shim");
                }
                // Nobody waits for the removal in the background.
                let directories = [container.dir.clone(), engine.shim_dir(container.id.as_str())];
                let remove = move || {
                    for path in &directories {
                        crate::containers::remove_directory(path);
                    }
                };
                drop(tokio::task::spawn_blocking(remove).await);
            });
        }
        ends.join_all().await;
    }

    /// Puts an image of layers into the store, with names. `config` is complete but for the
    /// layers.
    pub fn put_image(
        &self,
        chain: Option<Digest>,
        config: ImageConfig,
        names: &[Reference],
    ) -> Result<(silo_store::Image, Lease), Error> {
        let (image, lease) = self.store.derive(chain, config).map_err(Error::from_kind)?;
        let id = image.id;
        let record = match self.images.get(&id) {
            Some(known) => known.record.clone(),
            None => ImageRecord::default(),
        };
        let is_new = self.images.get(&id).is_none();
        self.images.put(image.clone(), Some(record), names)?;
        if is_new {
            self.image_event("create", &id, &id.to_string());
        }
        for name in names {
            self.image_event("tag", &id, &name.familiar());
        }
        Ok((image, lease))
    }

    /// Puts images for several platforms into the store, each of layers and a configuration as
    /// for [`Engine::put_image`], and an index of them, with what `attach` says of each, that gets
    /// the names.
    pub fn put_index(
        &self,
        parts: Vec<(Option<Digest>, ImageConfig)>,
        names: &[Reference],
        attach: &silo_store::Attach<'_>,
    ) -> Result<(ImageIndex, Lease), Error> {
        let held = self.store.lease();
        let mut images = Vec::new();
        let mut leases = Vec::new();
        for (chain, config) in parts {
            let (image, lease) = self.store.derive(chain, config).map_err(Error::from_kind)?;
            images.push(image);
            leases.push(lease);
        }
        let ids: Vec<Digest> = images.iter().map(|image| image.id).collect();
        let index = self.store.make_index(&ids, attach, &held).map_err(Error::from_kind)?;
        for image in images {
            let is_new = self.images.get(&image.id).is_none();
            let id = image.id;
            // Each has the names, so that none is without them for a moment.
            self.images.put_indexed(image, None, names, Some(&index))?;
            if is_new {
                self.image_event("create", &id, &id.to_string());
            }
        }
        for name in names {
            if let Some(id) = self.images.by_name(name) {
                self.image_event("tag", &id, &name.familiar());
            }
        }
        Ok((index, held))
    }
}

/// Removes what is empty at a path of a snapshot, and not beneath it, then the directories above
/// that only were copied up for it.
fn forget_place(snapshot: &Snapshot, place: &Path) -> io::Result<()> {
    let upper = silo_sys::path::open_root(&snapshot.upper)?;
    for path in place.ancestors().filter(|path| path.file_name().is_some()) {
        let flags = OFlags::PATH | OFlags::NOFOLLOW;
        let open = silo_sys::path::open_in_root_no_links(&upper, path, flags, Mode::empty());
        let Ok(own) = open else { continue };
        let (parent, name) = silo_sys::path::parent_in_root(&upper, path)?;
        let own = rustix::fs::fstat(&own)?;
        let is_directory = FileType::from_raw_mode(own.st_mode) == FileType::Directory;
        let below = snapshot.lowers.iter().find_map(|lower| {
            let lower = silo_sys::path::open_root(lower).ok()?;
            let found = silo_sys::path::open_in_root_no_links(lower, path, flags, Mode::empty());
            rustix::fs::fstat(found.ok()?).ok()
        });
        match below {
            None if is_directory => {
                // What has something in it is the step's own.
                match rustix::fs::unlinkat(&parent, &name, AtFlags::REMOVEDIR) {
                    Ok(()) => {}
                    Err(Errno::NOTEMPTY) => return Ok(()),
                    Err(error) => return Err(error.into()),
                }
            }
            None if own.st_size == 0 => rustix::fs::unlinkat(&parent, &name, AtFlags::empty())?,
            None => return Ok(()),
            Some(below) => {
                let route = format!("/proc/self/fd/{}/{}", parent.as_raw_fd(), name.display());
                let mut value = [0_u8; 1];
                let hides = rustix::fs::getxattr(route, "trusted.overlay.opaque", &mut value[..]);
                let same = is_directory
                    && hides.is_err()
                    && (below.st_mode, below.st_uid, below.st_gid)
                        == (own.st_mode, own.st_uid, own.st_gid);
                if !same {
                    return Ok(());
                }
                match rustix::fs::unlinkat(&parent, &name, AtFlags::REMOVEDIR) {
                    Ok(()) => {}
                    // Something else was changed in it.
                    Err(Errno::NOTEMPTY) => return Ok(()),
                    Err(error) => return Err(error.into()),
                }
            }
        }
    }
    Ok(())
}

/// Fails for a word that is no signal.
pub fn check_signal(signal: &str) -> Result<(), Error> {
    crate::signal::parse(signal).map(drop)
}

/// What was made for a step, to be taken back unless it is finished.
struct MadeStep<'a> {
    engine: &'a Engine,
    id: &'a ContainerId,
    finished: bool,
}

impl MadeStep<'_> {
    fn finish(mut self) {
        self.finished = true;
    }
}

impl Drop for MadeStep<'_> {
    fn drop(&mut self) {
        if !self.finished {
            self.engine.drop_snapshot(self.id.as_str());
            crate::containers::remove_directory(&self.engine.container_dir(self.id.as_str()));
        }
    }
}
