//! The root file system of a container as the engine sees it: through the container's own
//! namespace while it runs, as an overlay that is mounted nowhere while it does not.
//!
//! The engine never walks a container's files by path. What it holds is a descriptor of the
//! root, and everything is resolved beneath it (`RESOLVE_IN_ROOT`), whatever links, mounts or
//! renames the container makes meanwhile.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::OFlags;
use rustix::mount::MountAttrFlags;
use rustix::process::{Pid, PidfdFlags};
use silo_store::Snapshot;
use silo_sys::mount::{Composed, MountAttr};
use silo_types::Error;

use crate::container::{Container, Record};
use crate::engine::Engine;
use crate::mountpoints::{MountKind, MountRecord, clean};
use crate::windows::drive;

/// A held root of a container, with what is mounted in it.
#[derive(Debug)]
pub(crate) struct RootView {
    root: Held,
    /// The container's root is read-only.
    readonly: bool,
    /// Keeps others from writing meanwhile.
    _writing: Option<tokio::sync::OwnedMutexGuard<()>>,
    /// It is the drive C: of a Windows container.
    is_drive: bool,
}

#[derive(Debug)]
enum Held {
    /// Of a container that runs, or has nothing mounted in it.
    Root(OwnedFd),
    /// Of a container that does not run.
    Composed(Composed),
}

impl RootView {
    /// The root itself.
    pub(crate) fn fd(&self) -> BorrowedFd<'_> {
        match &self.root {
            Held::Root(root) => root.as_fd(),
            Held::Composed(tree) => tree.root.as_fd(),
        }
    }

    /// A path as it is below this root: the client's, or that which a Windows path means.
    pub(crate) fn path(&self, path: &str) -> Result<String, Error> {
        if self.is_drive { drive::locate(self.fd(), path) } else { Ok(path.to_owned()) }
    }

    /// The last name of a client's path, as the client spells it.
    pub(crate) fn last_name(&self, path: &str) -> Option<String> {
        if self.is_drive {
            drive::last_name(path)
        } else {
            let clean = clean(&format!("/{path}"));
            clean.rsplit('/').next().filter(|name| !name.is_empty()).map(str::to_owned)
        }
    }

    /// Where the entries of an archive go that is unpacked into `folder`, if that is not where
    /// their names say.
    pub(crate) fn names(
        &self,
        folder: BorrowedFd<'_>,
        path: &str,
    ) -> Result<Option<drive::Names>, Error> {
        self.is_drive.then(|| drive::Names::new(folder, path == "/")).transpose()
    }

    /// Fails when a path below this root is not to be written to.
    pub(crate) fn check_writable(&self, path: &str, record: &Record) -> Result<(), Error> {
        let root = if self.is_drive { crate::windows::DRIVE } else { "" };
        let path = clean(&format!("{root}/{path}"));
        let covering = record
            .mounts
            .iter()
            .filter(|mount| {
                path.strip_prefix(&mount.destination)
                    .is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
            })
            .max_by_key(|mount| mount.destination.len());
        // docker wording
        match covering {
            Some(mount) if mount.rw => Ok(()),
            Some(_) => Err(Error::invalid("mounted volume is marked read-only")),
            None if self.readonly => Err(Error::invalid("container rootfs is marked read-only")),
            None => Ok(()),
        }
    }
}
/// Runs `open` on something of the container's first process, and makes sure that it was that
/// process all along: its id could have been given to another one.
pub(crate) fn verified<T>(
    container: &Container,
    pid: i32,
    open: impl FnOnce() -> io::Result<T>,
) -> Result<T, Error> {
    let failed = |error: io::Error| {
        Error::internal(format!("open process of container {}: {error}", container.id))
    };
    let shim = container.running_shim()?;
    let process = Pid::from_raw(pid).ok_or_else(|| container.not_running())?;
    let pidfd = rustix::process::pidfd_open(process, PidfdFlags::empty())
        .map_err(|_| container.not_running())?;
    let opened = open().map_err(failed)?;
    let alive = || -> io::Result<bool> {
        let mut fds = [PollFd::new(&pidfd, PollFlags::IN)];
        let now = Timespec { tv_sec: 0, tv_nsec: 0 };
        Ok(poll(&mut fds, Some(&now))? == 0)
    };
    let parent = fs_err::read_to_string(format!("/proc/{pid}/stat"))
        .ok()
        .and_then(|stat| stat.rsplit_once(") ")?.1.split(' ').nth(1)?.parse::<i32>().ok());
    // The parent is the shim, or the process that took the shim's children over.
    let is_ours =
        parent.is_some_and(|parent| parent == shim.shim_pid() || parent <= 1) || shim.pid() == pid;
    if is_ours && alive().map_err(failed)? {
        return Ok(opened);
    }
    Err(container.not_running())
}

/// Whether nothing has been written to the container's files yet.
pub(crate) fn is_pristine(container: &Container) -> bool {
    let state = container.state();
    state.started_at == 0 && !state.running && !container.was_written()
}

impl Engine {
    /// The directories of a container's root.
    pub(crate) fn snapshot(&self, container: &Container) -> Result<Snapshot, Error> {
        self.store.snapshot(container.id.as_str()).map_err(Error::from_kind)
    }

    /// Removes the directories of a container's root; its files go in the background.
    pub(crate) fn drop_snapshot(&self, id: &str) {
        for name in [id, &crate::windows::runtime_snapshot(id)] {
            match self.store.snapshot_remove(name) {
                Ok(()) | Err(silo_store::Error::NoSnapshot(_)) => {}
                Err(error) => {
                    let error = silo_types::error::chain(&error);
                    tracing::warn!(container = id, error, "could not remove files");
                }
            }
        }
    }

    /// The directories of a container's root, or of a Windows container's drive C:.
    pub(crate) fn whole_snapshot(&self, container: &Container) -> Result<Snapshot, Error> {
        if crate::windows::is(&container.record()) {
            self.windows_drive(container)
        } else {
            self.snapshot(container)
        }
    }

    /// The root of a container that does not run, as a mount that nobody else sees. There must be
    /// one at a time.
    pub(crate) fn mount_snapshot(&self, container: &Container) -> Result<OwnedFd, Error> {
        let snapshot = self.whole_snapshot(container)?;
        let lowers: Vec<&Path> = snapshot.lowers.iter().map(PathBuf::as_path).collect();
        let mut options = overlay_options(container).to_vec();
        if container.record().is_ephemeral() {
            // As its own mount is: a client that copies need not wait for the disk.
            options.push(("volatile", None));
            silo_sys::mount::forget_volatile(&snapshot.work).map_err(|error| {
                Error::internal(format!("clean work of container {}: {error}", container.id))
            })?;
        }
        let mounted =
            silo_sys::mount::overlay(&lowers, Some((&snapshot.upper, &snapshot.work)), &options);
        let mount = mounted.map_err(|error| {
            Error::internal(format!("mount root of container {}: {error}", container.id))
        })?;
        container.note_written();
        Ok(mount)
    }

    /// The files of a container without what is mounted in it: its writable layer over those of
    /// the image, read-only. There may be any number of these, and the container may run.
    pub(crate) fn mount_read_only(&self, container: &Container) -> Result<OwnedFd, Error> {
        let snapshot = self.whole_snapshot(container)?;
        let mut lowers: Vec<&Path> = vec![&snapshot.upper];
        lowers.extend(snapshot.lowers.iter().map(PathBuf::as_path));
        silo_sys::mount::overlay(&lowers, None, overlay_options(container)).map_err(|error| {
            Error::internal(format!("mount root of container {}: {error}", container.id))
        })
    }

    /// The root of a container that runs; `None` if it does not.
    pub(crate) fn running_root(container: &Container) -> Result<Option<RootView>, Error> {
        let pid = {
            let state = container.state();
            if !state.running || state.restarting {
                return Ok(None);
            }
            state.pid
        };
        let record = container.record();
        let is_drive = crate::windows::is(&record);
        let root = verified(container, pid, || {
            let root = silo_sys::path::open_root(format!("/proc/{pid}/root"))?;
            if !is_drive {
                return Ok(root);
            }
            let flags = OFlags::PATH | OFlags::DIRECTORY;
            let drive = crate::windows::DRIVE;
            silo_sys::path::open_in_root_no_links(root, drive, flags, rustix::fs::Mode::empty())
        })?;
        let readonly = record.host_config.readonly_rootfs;
        Ok(Some(RootView { root: Held::Root(root), readonly, is_drive, _writing: None }))
    }

    /// The root of a container to read from, whether it runs or not.
    pub(crate) async fn open_root(&self, container: &Arc<Container>) -> Result<RootView, Error> {
        if let Some(view) = Self::running_root(container)? {
            return Ok(view);
        }
        let record = container.record();
        let mounts = stopped_mounts(&record);
        let mut root = self.mount_read_only(container)?;
        let has_place = |(place, _): &(PathBuf, OwnedFd)| {
            silo_sys::path::open_in_root(&root, place, OFlags::PATH, rustix::fs::Mode::empty())
                .is_ok()
        };
        if !mounts.iter().all(has_place) {
            // To write makes the places.
            drop(self.open_root_to_write(container).await?);
            root = self.mount_read_only(container)?;
        }
        let root = with_mounts(container, root, mounts)?;
        let is_drive = crate::windows::is(&record);
        Ok(RootView { root, readonly: true, is_drive, _writing: None })
    }

    /// The root of a container to write to, whether it runs or not. While it does not, others
    /// that want to write wait until this view is dropped.
    pub(crate) async fn open_root_to_write(
        &self,
        container: &Arc<Container>,
    ) -> Result<RootView, Error> {
        let writing = Arc::clone(&container.writing).lock_owned().await;
        if let Some(view) = Self::running_root(container)? {
            return Ok(view);
        }
        let record = container.record();
        let root = self.mount_snapshot(container)?;
        let root = with_mounts(container, root, stopped_mounts(&record))?;
        let readonly = record.host_config.readonly_rootfs;
        let is_drive = crate::windows::is(&record);
        Ok(RootView { root, readonly, is_drive, _writing: Some(writing) })
    }
}

/// How a container's files lie over its image's.
pub(crate) fn overlay_options(
    container: &Container,
) -> &'static [(&'static str, Option<&'static str>)] {
    options_of(crate::windows::is(&container.record()))
}

/// The same for layers of an image.
pub(crate) fn options_of(is_windows: bool) -> &'static [(&'static str, Option<&'static str>)] {
    if is_windows { crate::windows::OVERLAY_OPTIONS } else { &[("index", Some("off"))] }
}

/// The root of a container that does not run with what is mounted in it.
fn with_mounts(
    container: &Container,
    root: OwnedFd,
    mounts: Vec<(PathBuf, OwnedFd)>,
) -> Result<Held, Error> {
    if mounts.is_empty() {
        return Ok(Held::Root(root));
    }
    let composed = silo_sys::mount::compose(root, mounts).map_err(|error| {
        Error::internal(format!("mount volumes of container {}: {error}", container.id))
    })?;
    Ok(Held::Composed(composed))
}

/// Volumes and binds of a container that does not run, those at the directories above first.
fn stopped_mounts(record: &Record) -> Vec<(PathBuf, OwnedFd)> {
    let mut mounts = Vec::new();
    for mount in &record.mounts {
        if !matches!(mount.kind, MountKind::Bind | MountKind::Volume) {
            continue;
        }
        // A source that is gone shows what the image has at its place, as an unmounted one does.
        let destination = if crate::windows::is(record) {
            // Other drives are not below this one.
            let Some(below) = mount.destination.strip_prefix(crate::windows::DRIVE) else {
                continue;
            };
            below
        } else {
            &mount.destination
        };
        if let Ok(tree) = mount_tree(mount) {
            mounts.push((PathBuf::from(destination), tree));
        }
    }
    mounts.sort_by_key(|(destination, _)| destination.components().count());
    mounts
}

/// The source of a mount, as a detached mount.
fn mount_tree(mount: &MountRecord) -> io::Result<OwnedFd> {
    let mut source = rustix::fs::open(
        mount.source.as_str(),
        OFlags::PATH | OFlags::CLOEXEC,
        rustix::fs::Mode::empty(),
    )?;
    if !mount.subpath.is_empty() {
        source = silo_sys::path::open_in_root_no_links(
            source,
            &mount.subpath,
            OFlags::PATH,
            rustix::fs::Mode::empty(),
        )?;
    }
    let tree = silo_sys::mount::bind_clone_fd(&source, !mount.non_recursive)?;
    if !mount.rw {
        let set = MountAttr { set: MountAttrFlags::MOUNT_ATTR_RDONLY, ..MountAttr::default() };
        silo_sys::mount::set_attr(&tree, set, true)?;
    }
    Ok(tree)
}
