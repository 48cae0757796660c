//! `POST /containers/create`.

use std::path::PathBuf;
use std::sync::Arc;

use silo_docker::containers::{Config, ContainerCreateRequest, ContainerCreateResponse};
use silo_docker::host_config::{HostConfig, LogConfig};
use silo_docker::networks::NetworkingConfig;
use silo_oci::image::ImageConfig;
use silo_oci::platform::{Platform, PlatformError};
use silo_shim::config::LogDriver;
use silo_types::{ContainerId, Digest, Error};

use super::{image_config, validate};
use crate::container::{Container, Record, State};
use crate::db::ContainerRow;
use crate::engine::Engine;
use crate::images::Entry;
use crate::spec::security;
use crate::windows;

/// What has been made for a container, to be taken back unless it is finished.
struct Unfinished<'a> {
    engine: &'a Engine,
    id: ContainerId,
    name: String,
    /// Volumes that were made for it.
    volumes: Vec<String>,
    finished: bool,
}

impl Drop for Unfinished<'_> {
    fn drop(&mut self) {
        if self.finished {
            return;
        }
        let id = self.id.as_str();
        self.engine.containers.release(&self.name);
        self.engine.drop_snapshot(id);
        for volume in &self.volumes {
            // It may not have been made.
            drop(self.engine.volumes.remove(volume, &[]));
        }
        if let Err(error) = fs_err::remove_dir_all(self.engine.container_dir(id))
            && error.kind() != std::io::ErrorKind::NotFound
        {
            tracing::warn!(container = id, %error, "could not clean up");
        }
    }
}

impl Engine {
    /// Makes the directory and the snapshots of a container.
    pub(crate) fn make_files(
        &self,
        id: &ContainerId,
        chain: Option<Digest>,
        is_windows: bool,
    ) -> Result<PathBuf, Error> {
        let id = id.as_str();
        let dir = self.container_dir(id);
        std::os::unix::fs::DirBuilderExt::mode(&mut std::fs::DirBuilder::new(), 0o710)
            .create(&dir)
            .map_err(|error| Error::internal(format!("create {}: {error}", dir.display())))?;
        self.store.snapshot_create(id, chain).map_err(Error::from_kind)?;
        if is_windows {
            let runtime = self.windows_runtime()?;
            self.store
                .snapshot_create(&windows::runtime_snapshot(id), Some(runtime))
                .map_err(Error::from_kind)?;
        }
        Ok(dir)
    }

    /// Makes a container; nothing of it is left when this fails.
    pub async fn container_create(
        self: &Arc<Self>,
        name: &str,
        platform: &str,
        request: ContainerCreateRequest,
    ) -> Result<ContainerCreateResponse, Error> {
        let ContainerCreateRequest { mut config, mut host_config, mut networking_config } = request;
        let mut found = match self.image_of_platform(&config.image, platform) {
            Ok(found) => Some(found),
            // The name is known, and its index has nothing for the platform here.
            Err(error) if self.image(&config.image).is_ok() => return Err(error),
            Err(_) => None,
        };
        let mut notice = None;
        if found.is_none()
            && let Some(other) = self.windows_substitute(&config.image)
        {
            found = Some(other.entry);
            config.image = other.name;
            notice = Some(other.notice);
        }
        if found.is_none()
            && let Some(error) = self.windows_base_is_missing(&config.image)
        {
            return Err(error);
        }
        let is_windows = found.as_ref().is_some_and(|entry| entry.image.config.os == windows::OS);
        let asked = (host_config.binds.clone(), host_config.mounts.clone());
        if is_windows && let Some(entry) = &found {
            self.windows_is_runnable(&config.image, entry)?;
            notice = notice.or_else(|| Self::windows_stands_on(&config.image, entry));
        }
        if is_windows {
            self.windows_runtime()?;
            windows::account(&config.user)?;
            windows::paths::translate(&mut config, &mut host_config)?;
        }
        if let Some(networking) = &mut networking_config {
            self.name_networks(networking);
            validate::networking(networking)?;
        }
        if !is_windows {
            validate::working_directory(&mut config)?;
        }
        validate::config(&mut config)?;
        let mut warnings = validate::host_config(&mut host_config, &self.host, false)?;
        validate::network_and_config(&config, &host_config)?;
        let wanted_name = if name.is_empty() { None } else { Some(validate::name(name)?) };
        let image = if config.image.is_empty() {
            None
        } else {
            let entry = match found {
                Some(entry) => entry,
                // For its error.
                None => self.image(&config.image)?,
            };
            check_platform(&config.image, &entry.image.config, platform)?;
            Some(entry)
        };
        let defaults = image.as_ref().map(|entry| &entry.image.config.config);
        image_config::merge(&mut config, defaults)?;
        if is_windows {
            // Those of the image have to be translated too.
            windows::paths::finish(&mut config)?;
            windows::account(&config.user)?;
        } else {
            validate::working_directory(&mut config)?;
        }
        // The image's part has not been checked before.
        validate::config(&mut config)?;
        validate::adapt(&mut host_config, &self.host);
        self.name_shared_containers(&mut host_config)?;
        self.merge_log_config(&mut host_config.log_config)?;
        security::parse(&host_config.security_opt)?;
        self.check_links(&host_config.links)?;

        let id = ContainerId::random();
        host_name(&id, &mut config, &host_config);
        let name = match wanted_name {
            Some(name) => {
                self.containers.reserve(name, &id)?;
                name.to_owned()
            }
            None => self.containers.reserve_generated(&id)?,
        };
        let mut unfinished = Unfinished {
            engine: self,
            id: id.clone(),
            name: name.clone(),
            volumes: Vec::new(),
            finished: false,
        };
        let mut mounts = self.collect_mounts(&config, &host_config)?;
        let chain = image.as_ref().and_then(|entry| entry.image.top());
        let dir = self.make_files(&id, chain, is_windows)?;
        if is_windows {
            // Windows never fills a volume with what the image has at its place.
            for mount in &mut mounts {
                mount.copy = false;
            }
            (host_config.binds, host_config.mounts) = asked;
        }
        let holds = self.make_volumes(&id, &mut mounts, &mut unfinished.volumes)?;
        let record = Record {
            name,
            created: crate::container::now(),
            image: image.as_ref().map(|entry| entry.id()),
            os: if is_windows { windows::OS } else { "linux" }.into(),
            config,
            host_config,
            mounts,
            networking: networking_config,
            hidden: false,
        };
        let container = Arc::new(Container::new(id.clone(), dir, record, State::default()));
        if !is_windows {
            self.prepare_root(&container).await?;
        }
        self.save_new(&container)?;
        unfinished.finished = true;
        self.containers.insert(Arc::clone(&container));
        drop((unfinished, holds));
        self.container_event(&container, "create", &[]);
        if image.is_none() {
            warnings.push("the container has no image and begins with an empty root".into());
        }
        warnings.extend(notice);
        if is_windows {
            warnings.extend(self.windows_warning(&container.record(), chain).await);
        }
        Ok(ContainerCreateResponse { id: id.to_string(), warnings })
    }

    pub(crate) fn save_new(&self, container: &Container) -> Result<(), Error> {
        let record = container.record();
        let json = |value: Result<String, serde_json::Error>| {
            value.map_err(|error| Error::internal(format!("write record: {error}")))
        };
        let row = ContainerRow {
            id: container.id.to_string(),
            name: record.name.clone(),
            config: json(serde_json::to_string(&*record))?,
            state: json(serde_json::to_string(&*container.state()))?,
        };
        // A container that goes by itself would not outlive a power cut anyway.
        self.db.container_insert_with(&row, !record.is_ephemeral())?;
        Ok(())
    }

    /// Puts ids in place of the names of containers whose namespaces are shared, so that a
    /// renaming does not matter.
    ///
    /// As in Docker, the container whose network is shared may come later; those whose IPC or
    /// PID namespace is shared must be there.
    pub(crate) fn name_shared_containers(&self, host_config: &mut HostConfig) -> Result<(), Error> {
        for (mode, may_come_later) in [
            (&mut host_config.network_mode, true),
            (&mut host_config.ipc_mode, false),
            (&mut host_config.pid_mode, false),
        ] {
            let Some(name) = validate::container_of(mode) else { continue };
            match self.containers.find(name) {
                Ok(container) => *mode = format!("container:{}", container.id),
                Err(_) if may_come_later => {}
                // Not `NotFound`: clients would take the image for the missing thing and pull it.
                Err(error) => return Err(Error::invalid(error.message().to_owned())),
            }
        }
        Ok(())
    }

    /// Puts names of networks in place of `default` and of ids.
    fn name_networks(&self, networking: &mut NetworkingConfig) {
        let Some(endpoints) = networking.endpoints_config.0.take() else { return };
        let named = endpoints.into_iter().map(|(key, endpoint)| {
            let name = crate::networks::name_of_mode(&key);
            (self.networks.find(name).map_or_else(|| name.to_owned(), str::to_owned), endpoint)
        });
        networking.endpoints_config = named.collect();
    }

    pub(crate) fn merge_log_config(&self, log: &mut LogConfig) -> Result<(), Error> {
        if log.driver.is_empty() {
            log.driver.clone_from(&self.config.log_driver);
        }
        let options = log.config.make();
        if log.driver == self.config.log_driver {
            for (name, value) in &self.config.log_options {
                options.entry(name.clone()).or_insert_with(|| value.clone());
            }
        }
        // docker wording
        let driver = LogDriver::from_name(&log.driver).ok_or_else(|| {
            Error::invalid(format!(
                "error looking up logging plugin {0}: plugin {0:?} not found",
                log.driver
            ))
        })?;
        silo_shim::logs::validate(driver, options).map_err(Error::from_kind)
    }
}

impl Engine {
    /// The image for a container: where the name leads to several, the one for the platform.
    fn image_of_platform(&self, name: &str, platform: &str) -> Result<Arc<Entry>, Error> {
        if platform.is_empty() || self.images.index_named(name).is_none() {
            return self.image(name);
        }
        let wanted: Result<Platform, PlatformError> = platform.parse();
        let wanted = wanted.map_err(|error| Error::invalid(error.to_string()))?;
        self.image_for(name, Some(&wanted))
    }
}

/// Refuses an image of another platform than was asked for, or than this host can run.
fn check_platform(name: &str, config: &ImageConfig, wanted: &str) -> Result<(), Error> {
    if !wanted.is_empty() {
        let mut parts = wanted.split('/');
        let (os, architecture) = (parts.next().unwrap_or(""), parts.next().unwrap_or(""));
        let differs = |wanted: &str, actual: &str| {
            !wanted.is_empty() && !actual.is_empty() && !wanted.eq_ignore_ascii_case(actual)
        };
        if differs(os, &config.os) || differs(architecture, &config.architecture) {
            // docker wording
            return Err(Error::not_found(format!(
                "image with reference {name} was found but its platform ({}/{}) does not match the specified platform ({wanted})",
                config.os, config.architecture
            )));
        }
    }
    if !matches!(config.os.as_str(), "" | "linux" | windows::OS) {
        return Err(Error::invalid(format!(
            "image operating system {:?} cannot be used on this platform",
            config.os
        )));
    }
    Ok(())
}

/// Gives the container its id as a host name, or that of the host where it shares the host's
/// network.
pub(crate) fn host_name(id: &ContainerId, config: &mut Config, host_config: &HostConfig) {
    if !config.hostname.is_empty() || validate::container_of(&host_config.network_mode).is_some() {
        return;
    }
    config.hostname = if host_config.network_mode == "host" || host_config.uts_mode == "host" {
        rustix::system::uname().nodename().to_string_lossy().into_owned()
    } else {
        id.short().to_owned()
    };
}
