//! The engine as a whole: what it holds, how it begins and how it ends.

use std::path::PathBuf;
use std::sync::Arc;

use silo_cgroup::CgroupPath;
use silo_types::Error;

use crate::config::EngineConfig;
use crate::containers::Containers;
use crate::db::Db;
use crate::events::Events;
use crate::host::Host;
use crate::images::Images;
use crate::networks::Networks;
use crate::seccomp::Filters;
use crate::volumes::Volumes;

/// Containers, images, volumes, networks and events of one data root.
#[derive(Debug)]
pub struct Engine {
    pub(crate) config: EngineConfig,
    pub(crate) db: Arc<Db>,
    pub(crate) events: Arc<Events>,
    pub(crate) store: Arc<silo_store::Store>,
    pub(crate) images: Images,
    pub(crate) volumes: Volumes,
    pub(crate) containers: Containers,
    pub(crate) networks: Networks,
    pub(crate) host: Host,
    pub(crate) cgroups: silo_cgroup::Cgroups,
    /// See the function of this name.
    owns_cgroup_parent: bool,
    /// What still goes on of containers that were removed.
    pub(crate) removals: tokio_util::task::TaskTracker,
    pub(crate) filters: Filters,
    pub(crate) accounts: crate::accounts::Cache,
    pub(crate) windows: crate::windows::RegistryCache,
    pub(crate) windows_known: crate::windows::KnownCommands,
    pub(crate) http: silo_http::Client,
    pub(crate) registries: Arc<silo_registry::Registries>,
    pub(crate) puller: silo_registry::Puller,
}

/// An error of making a directory, with what it is for.
fn prepare(path: &std::path::Path, mode: u32) -> Result<(), Error> {
    use std::os::unix::fs::DirBuilderExt;
    std::fs::DirBuilder::new().recursive(true).mode(mode).create(path).map_err(|source| {
        Error::with_source(
            silo_types::ErrorKind::Internal,
            format!("create {}: {source}", path.display()),
            source,
        )
    })
}

/// Whether the parent of containers' cgroups is the engine's own: it has the engine's name, or was
/// not there when an engine of this run root first came. That is noted in the run root, which
/// like cgroups does not outlive a reboot.
fn owns_cgroup_parent(
    config: &EngineConfig,
    cgroups: &silo_cgroup::Cgroups,
) -> Result<bool, Error> {
    let name = config.cgroup_parent.as_str();
    if name == crate::config::CGROUP_PARENT {
        return Ok(true);
    }
    let note = config.run_root.join("cgroup-parent");
    let parent = CgroupPath::from_oci(name, "").map_err(Error::from_kind)?;
    if matches!(cgroups.open(&parent), Err(silo_cgroup::Error::NotFound(_))) {
        fs_err::write(&note, name).map_err(|error| Error::internal(error.to_string()))?;
        return Ok(true);
    }
    Ok(fs_err::read_to_string(&note).is_ok_and(|noted| noted == name))
}

impl Engine {
    /// Opens the data root, finds the containers that run, and cleans up what an earlier engine
    /// left behind.
    pub async fn open(config: EngineConfig) -> Result<Arc<Self>, Error> {
        // Only root may look into the state; what containers must reach is handed to them.
        prepare(&config.data_root, 0o711)?;
        prepare(&config.run_root, 0o711)?;
        for name in ["containers", "volumes"] {
            let directory = config.data_root.join(name);
            prepare(&directory, 0o711)?;
            silo_sys::path::spread(&directory);
        }
        prepare(&config.run_root.join("shims"), 0o700)?;
        let db = Arc::new(Db::open(&config.data_root.join("silo.db"))?);
        let store = Arc::new(silo_store::Store::open(&config.data_root).map_err(Error::from_kind)?);
        let images = Images::open(&db, &store, config.windows_build)?;
        let volumes = Volumes::open(&config.data_root.join("volumes"), &db)?;
        let networks = Networks::open(&db, config.network()?)?;
        let cgroups = silo_cgroup::Cgroups::detect().map_err(Error::from_kind)?;
        let owns_cgroup_parent = owns_cgroup_parent(&config, &cgroups)?;
        let registries =
            silo_registry::Config { proxies: config.proxies.clone(), ..config.registries.clone() };
        let puller = silo_registry::Puller::new(
            (*store).clone(),
            registries.downloads,
            config.windows_build,
        );
        let engine = Arc::new(Self {
            registries: Arc::new(silo_registry::Registries::new(registries)),
            puller,
            db,
            events: Arc::new(Events::new()),
            store,
            images,
            volumes,
            containers: Containers::default(),
            networks,
            host: Host::detect(),
            cgroups,
            owns_cgroup_parent,
            removals: tokio_util::task::TaskTracker::new(),
            filters: Filters::detect(),
            accounts: crate::accounts::Cache::default(),
            windows: crate::windows::RegistryCache::default(),
            windows_known: crate::windows::KnownCommands::default(),
            http: silo_http::Client::new(silo_http::Options {
                proxies: config.proxies.clone(),
                ..silo_http::Options::default()
            }),
            config,
        });
        engine.recover().await?;
        engine.collect_registries();
        Ok(engine)
    }

    /// Ends what cannot go on without the engine: the steps of builds. Containers run on. Then the
    /// parent of their cgroups goes if it is empty, unless somebody else made it.
    pub async fn close(self: &Arc<Self>) {
        self.end_steps().await;
        // A step that ended by itself may not be quite gone.
        self.removals.close();
        self.removals.wait().await;
        if self.owns_cgroup_parent
            && let Ok(parent) = CgroupPath::from_oci(&self.config.cgroup_parent, "")
            && let Err(error) = self.cgroups.remove_empty(&parent)
        {
            tracing::warn!(error = silo_types::error::chain(&error), "could not clean up");
        }
    }

    /// The configuration that it was opened with.
    pub fn config(&self) -> &EngineConfig {
        &self.config
    }

    /// What the host can do.
    pub fn host(&self) -> &Host {
        &self.host
    }

    /// The event bus.
    pub fn events(&self) -> &Arc<Events> {
        &self.events
    }

    /// The directory of a container.
    pub(crate) fn container_dir(&self, id: &str) -> PathBuf {
        self.config.data_root.join("containers").join(id)
    }

    /// The run directory of a container's shim.
    pub(crate) fn shim_dir(&self, id: &str) -> PathBuf {
        self.config.run_root.join("shims").join(id)
    }
}
