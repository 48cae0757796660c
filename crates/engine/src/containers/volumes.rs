//! The mounts of a new container: collected from its options, volumes made and filled.

use std::collections::BTreeMap;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::sync::Arc;

use rustix::fs::{Mode, OFlags};
use silo_docker::containers::Config;
use silo_docker::host_config::HostConfig;
use silo_docker::volumes::VolumeCreateRequest;
use silo_types::{ContainerId, Error};

use crate::container::Container;
use crate::engine::Engine;
use crate::mountpoints::{self, MountKind, MountRecord};
use crate::volumes::Hold;

/// Directories over which nothing may be mounted by an image's VOLUME (CVE-2019-16884).
const NEVER: &[&str] = &["/", "/proc", "/sys", "/dev"];

impl Engine {
    /// What is to be mounted, by destination: volumes of other containers, then `-v` and
    /// `--mount`, then the volumes that the image asks for.
    pub(crate) fn collect_mounts(
        &self,
        config: &Config,
        host_config: &HostConfig,
    ) -> Result<Vec<MountRecord>, Error> {
        let mut mounts: BTreeMap<String, MountRecord> = BTreeMap::new();
        for spec in &host_config.volumes_from {
            let (name, may_write) = mountpoints::parse_volumes_from(spec)?;
            let other = self
                .containers
                .find(name)
                .map_err(|error| Error::invalid(error.message().to_owned()))?;
            for mount in &other.record().mounts {
                let mount = MountRecord {
                    rw: mount.rw && may_write,
                    copy: false,
                    anonymous: false,
                    ..mount.clone()
                };
                mounts.insert(mount.destination.clone(), mount);
            }
        }
        let mut asked: Vec<String> = Vec::new();
        // docker wording
        let twice = |destination: &str| {
            Err(Error::invalid(format!("Duplicate mount point: {destination}")))
        };
        for bind in &host_config.binds {
            let mount = mountpoints::parse_bind(bind, &host_config.volume_driver)?;
            if asked.contains(&mount.destination)
                || host_config.tmpfs.contains_key(&mount.destination)
            {
                return twice(&mount.destination);
            }
            asked.push(mount.destination.clone());
            mounts.insert(mount.destination.clone(), mount);
        }
        for mount in &host_config.mounts {
            let mount = mountpoints::parse_mount(mount)?;
            if asked.contains(&mount.destination) {
                return twice(&mount.destination);
            }
            asked.push(mount.destination.clone());
            mounts.insert(mount.destination.clone(), mount);
        }
        for path in config.volumes.keys() {
            let destination = mountpoints::clean(path);
            let refused = NEVER.contains(&destination.as_str())
                || NEVER[1..].iter().any(|root| destination.starts_with(&format!("{root}/")));
            if !destination.starts_with('/') || refused {
                return Err(Error::invalid(format!(
                    "invalid volume specification: '{path}': invalid mount path"
                )));
            }
            if mounts.contains_key(&destination) || host_config.tmpfs.contains_key(&destination) {
                continue;
            }
            let mount = MountRecord {
                kind: MountKind::Volume,
                destination: destination.clone(),
                driver: host_config.volume_driver.clone(),
                rw: true,
                copy: true,
                anonymous: true,
                ..MountRecord::default()
            };
            mounts.insert(destination, mount);
        }
        Ok(mounts.into_values().collect())
    }

    /// Makes the volumes that do not exist yet and fills in names and paths. The holds keep them
    /// until the container's record says that it uses them.
    pub(crate) fn make_volumes(
        &self,
        id: &ContainerId,
        mounts: &mut [MountRecord],
        anonymous: &mut Vec<String>,
    ) -> Result<Vec<Hold<'_>>, Error> {
        let mut holds = Vec::new();
        for mount in mounts.iter_mut().filter(|mount| mount.kind == MountKind::Volume) {
            let request = VolumeCreateRequest {
                name: mount.name.clone(),
                driver: mount.driver.clone(),
                driver_opts: mount.driver_options.clone().into(),
                labels: mount.labels.clone().into(),
                ..VolumeCreateRequest::default()
            };
            let (volume, hold) = self.volume_make(request, id.as_str())?;
            holds.push(hold);
            if mount.anonymous {
                anonymous.push(volume.name.clone());
            }
            if mount.mode.is_empty() && !mount.anonymous {
                mount.mode = "z".into();
            }
            mount.name.clone_from(&volume.name);
            mount.driver = mountpoints::LOCAL_DRIVER.into();
            mount.source = self.volumes.data_dir(&volume.name).display().to_string();
        }
        Ok(holds)
    }

    /// Makes the working directory of a new container and fills its empty volumes with what the
    /// image has at their places.
    pub(crate) async fn prepare_root(
        self: &Arc<Self>,
        container: &Arc<Container>,
    ) -> Result<(), Error> {
        let record = container.record();
        let directory = crate::spec::working_directory(&record.config).to_owned();
        let mut to_fill = Vec::new();
        for mount in &record.mounts {
            if mount.kind == MountKind::Volume && mount.copy && mount.subpath.is_empty() {
                let volume = self.volumes.acquire(&mount.name, container.id.as_str())?;
                to_fill.push((mount.clone(), volume));
            }
        }
        if directory == "/" && to_fill.is_empty() {
            return Ok(());
        }
        let root = self.mount_snapshot(container)?;
        let (engine, auto_remove) = (Arc::clone(self), record.host_config.auto_remove);
        let work = move || -> Result<(), Error> {
            make_working_directory(&root, &directory)?;
            for (mount, volume) in &to_fill {
                refuse_to_cover_file(&root, mount)?;
                // What goes with its container would not outlive a power cut anyway.
                let durable = !(mount.anonymous && auto_remove);
                let path = Path::new(&mount.destination);
                engine.volumes.fill(&mount.name, volume, root.as_fd(), path, durable).map_err(
                    |error| Error::internal(format!("failed to populate volume: {error}")),
                )?;
            }
            Ok(())
        };
        let outcome = tokio::task::spawn_blocking(work)
            .await
            .map_err(|error| Error::internal(format!("prepare root: {error}")))?;
        self.release_volumes(container);
        outcome
    }

    /// Ends the use of a container's volumes.
    pub(crate) fn release_volumes(&self, container: &Container) {
        for mount in &container.record().mounts {
            if mount.kind == MountKind::Volume {
                self.volumes.release(&mount.name, container.id.as_str());
            }
        }
    }
}

fn make_working_directory(root: &OwnedFd, directory: &str) -> Result<(), Error> {
    match silo_sys::path::mkdir_all_in_root(root, directory, Mode::from(0o755)) {
        Ok(_) => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::NotADirectory => Err(Error::invalid(format!(
            "Cannot mkdir: {directory} is not a directory" // docker wording
        ))),
        Err(error) => {
            Err(Error::internal(format!("create working directory {directory}: {error}")))
        }
    }
}

/// An image's volume may not take the place of a file.
fn refuse_to_cover_file(root: &OwnedFd, mount: &MountRecord) -> Result<(), Error> {
    let path = Path::new(&mount.destination);
    if mount.anonymous
        && let Ok(found) = silo_sys::path::open_in_root(root, path, OFlags::PATH, Mode::empty())
        && let Ok(stat) = rustix::fs::fstat(&found)
        && !rustix::fs::FileType::from_raw_mode(stat.st_mode).is_dir()
    {
        // docker wording
        return Err(Error::invalid(format!(
            "cannot mount volume over existing file, file exists {}",
            mount.destination
        )));
    }
    Ok(())
}
