//! `POST /containers/{id}/start`: from a record to a running process.

use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use silo_shim::config::{ConsoleSize, LogConfig, LogDriver, RootConfig, ShimConfig};
use silo_shim::logs::AttributeSource;
use silo_shim::protocol::ProcessRef;
use silo_shim::{Given, Shim, ShimError};
use silo_types::{Error, ErrorKind, Kind};

use super::sandbox::Prepared;
use super::{rootfs, validate};
use crate::container::{Container, Live, Record, WaitingClient};
use crate::engine::Engine;
use crate::mountpoints::{MountKind, MountRecord};
use crate::spec::mounts::{Extra, Source};
use crate::spec::{self, Join, user};

/// Exit codes of a container that could not be started.
const CANNOT_EXECUTE: i64 = 126;
const NOT_FOUND: i64 = 127;
const FAILED: i64 = 128;

/// What is mounted at /dev/shm: a source, and a mount in its place.
#[derive(Debug, Default)]
struct SharedMemory {
    source: Option<PathBuf>,
    mount: Option<OwnedFd>,
}

/// Why a container starts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Cause {
    /// A client asked for it.
    Client,
    /// Its restart policy, or the daemon's start.
    Policy,
}

impl Engine {
    /// Starts a container for a client.
    pub async fn container_start(self: &Arc<Self>, name: &str) -> Result<(), Error> {
        let container = self.container(name)?;
        // docker wording
        {
            let state = container.state();
            if state.paused {
                return Err(Error::conflict(
                    "cannot start a paused container, try unpause instead",
                ));
            }
            if state.running && !state.restarting {
                return Err(Error::new(ErrorKind::NotModified, "container is already running"));
            }
        }
        self.start(&container, Cause::Client).await
    }

    /// Starts a container that is not running.
    pub(crate) async fn start(
        self: &Arc<Self>,
        container: &Arc<Container>,
        cause: Cause,
    ) -> Result<(), Error> {
        let mut live = container.live.lock().await;
        {
            let state = container.state();
            if state.removing || state.dead || state.removed {
                return Err(Error::conflict(
                    "container is marked for removal and cannot be started", // docker wording
                ));
            }
            if state.running && !state.restarting {
                return Ok(());
            }
            if cause == Cause::Policy && state.stopped_by_client && state.restarting {
                return Err(Error::new(ErrorKind::Cancelled, "stopped while waiting to restart"));
            }
        }
        if cause == Cause::Client {
            live.backoff.reset();
            if let Some(wait) = live.restart.take() {
                wait.abort();
            }
        }
        let outcome = self.start_locked(container, &mut live, cause).await;
        if let Err(error) = &outcome {
            self.start_failed(container, &mut live, error);
            drop(live);
            if container.record().host_config.auto_remove {
                self.auto_remove(container).await;
            }
        }
        outcome.map_err(|failure| failure.error)
    }

    async fn start_locked(
        self: &Arc<Self>,
        container: &Arc<Container>,
        live: &mut Live,
        cause: Cause,
    ) -> Result<(), Failure> {
        let record = container.record();
        container.wait_released().await;
        let mut network = self.prepare_network(container, &record)?;
        let result = self.run(container, &record, &mut network).await;
        let (shim, started_at) = match result {
            Ok(started) => started,
            Err(failure) => {
                self.release_network(network.sandbox.take());
                self.release_volumes(container);
                return Err(failure);
            }
        };
        live.sandbox = network.sandbox.take();
        live.run += 1;
        live.restarting_by_client = false;
        let pid = shim.pid();
        let events = shim.events();
        container.set_shim(Some(shim));
        container.set_released(false);
        container.change(|state| {
            state.running = true;
            state.restarting = false;
            state.paused = false;
            state.oom_killed = false;
            state.pid = pid;
            state.exit_code = 0;
            state.error.clear();
            state.started_at = started_at;
            state.network = network.attachment.take();
            if cause == Cause::Client {
                state.stopped_by_client = false;
                state.restart_count = 0;
            }
        });
        self.begin_health_checks(container, live);
        self.save_state(container);
        if let Some(attachment) = &container.state().network
            && !record.hidden
        {
            self.network_event("connect", attachment, container.id.as_str());
        }
        self.container_event(container, "start", &[]);
        self.follow(container, live.run, events);
        Ok(())
    }

    /// Makes the container and runs its program.
    async fn run(
        self: &Arc<Self>,
        container: &Arc<Container>,
        record: &Record,
        network: &mut Prepared,
    ) -> Result<(Shim, i64), Failure> {
        if crate::windows::is(record) {
            return self.run_windows(container, record, network).await;
        }
        let snapshot = self.snapshot(container)?;
        let resolved = self.resolve_user(container, record, &record.config.user).await?;
        let mut mounts = self.mount_sources(container, record)?;
        network.files.retain(|file| !mounts.iter().any(|m| m.destination == file.destination));
        mounts.append(&mut network.files);
        let namespaces = spec::Namespaces {
            network: std::mem::take(&mut network.join),
            ipc: self.join_of(container, &record.host_config.ipc_mode, "ipc")?,
            pid: self.join_of(container, &record.host_config.pid_mode, "pid")?,
        };
        let shm = self.shared_memory(record).await?;
        let security = record.security();
        let cgroup = self.cgroup_path(container.id.as_str(), record);
        let capabilities = spec::caps::effective(
            &record.host_config.cap_add,
            &record.host_config.cap_drop,
            record.host_config.privileged,
            &self.host.capabilities,
        )?;
        let filter = self.filters.of(&security, record.host_config.privileged, &capabilities)?;
        let generated = spec::generate(
            spec::Input {
                host: &self.host,
                config: &record.config,
                host_config: &record.host_config,
                security: &security,
                args: record.command(),
                linked: std::mem::take(&mut network.env),
                user: &resolved,
                mounts,
                shm: shm.source,
                namespaces,
                cgroup: cgroup.display().to_string(),
            },
            filter,
        )
        .map_err(|error| Failure::from(Error::internal(error.message().to_owned())))?;
        Self::write_spec(container, generated)?;
        let config = ShimConfig {
            root: RootConfig::Overlay {
                lowers: snapshot.lowers.clone(),
                upper: snapshot.upper.clone(),
                work: snapshot.work.clone(),
                // Unmounting it would write the whole file system back, for files that are
                // removed in the next moment.
                volatile: record.is_ephemeral(),
            },
            ..self.shim_config(container, record, cgroup, network)?
        };
        let trees = container.take_trees();
        let given = Given { netns: network.netns.take(), shm: shm.mount, trees };
        self.launch(container, &config, given).await
    }

    /// Puts the specification where the shim reads it, and keeps the process for later ones.
    pub(crate) fn write_spec(
        container: &Container,
        mut generated: silo_oci::runtime::Spec,
    ) -> Result<(), Error> {
        let json = serde_json::to_vec(&generated)
            .map_err(|error| Error::internal(format!("write specification: {error}")))?;
        fs_err::write(container.path("config.json"), json)
            .map_err(|error| Error::internal(error.to_string()))?;
        container.set_process(generated.process.take().map(Arc::new));
        Ok(())
    }

    /// What the shim is told, but for the root.
    pub(crate) fn shim_config(
        &self,
        container: &Container,
        record: &Record,
        cgroup: PathBuf,
        network: &Prepared,
    ) -> Result<ShimConfig, Error> {
        Ok(ShimConfig {
            id: container.id.clone(),
            container_dir: container.dir.clone(),
            run_dir: self.shim_dir(container.id.as_str()),
            cgroup,
            root: RootConfig::Path(PathBuf::new()),
            tty: record.config.tty,
            console_size: console_size(record.host_config.console_size),
            open_stdin: record.config.open_stdin,
            stdin_once: record.config.stdin_once,
            log: log_config(container, record)?,
            init_binary: (record.host_config.init == Some(true))
                .then(|| self.config.init_binary.clone()),
            trees: Vec::new(),
            // A daemon that takes over before the state is saved finds the network by it.
            note: serde_json::to_string(&network.attachment).unwrap_or_default(),
        })
    }

    /// Starts a container's shim and its program.
    pub(crate) async fn launch(
        self: &Arc<Self>,
        container: &Arc<Container>,
        config: &ShimConfig,
        given: Given,
    ) -> Result<(Shim, i64), Failure> {
        let started = async {
            let shim = Shim::spawn(self.config.exe.as_fd(), config, given).await?;
            attach_waiting(container, &shim).await;
            match shim.start().await {
                Ok(at) => Ok((shim, at)),
                Err(error) => {
                    // The shim records the end by itself; nothing is left to be stopped.
                    drop(shim.shutdown().await);
                    Err(error)
                }
            }
        };
        let started: Result<_, ShimError> = started.await;
        if let Err(ShimError::Lost { .. }) = started {
            // Somebody killed the shim, which then could not take anything back.
            self.end_without_shim(container).await;
        }
        Ok(started?)
    }

    /// Records a start that failed.
    fn start_failed(&self, container: &Arc<Container>, live: &mut Live, failure: &Failure) {
        live.restart = None;
        container.set_shim(None);
        container.set_process(None);
        // Who waits to be attached sees the end of the streams.
        container.waiting.lock().unwrap_or_else(std::sync::PoisonError::into_inner).clear();
        let message = failure.error.message().to_owned();
        container.change(|state| {
            state.running = false;
            state.restarting = false;
            state.pid = 0;
            state.error = message;
            state.exit_code = failure.exit_code;
            state.network = None;
        });
        self.save_state(container);
    }

    /// The account files of a container: of its root while it runs, of its layers otherwise.
    fn read_accounts(&self, container: &Arc<Container>) -> Result<user::Accounts, Error> {
        if container.running_shim().is_ok()
            && let Some(view) = Self::running_root(container)?
        {
            return crate::accounts::read(view.fd());
        }
        let snapshot = self.snapshot(container)?;
        let mut layers: Vec<&Path> = vec![&snapshot.upper];
        layers.extend(snapshot.lowers.iter().map(PathBuf::as_path));
        crate::accounts::read_layers(&layers)
    }

    /// Who a process of the container runs as.
    pub(crate) async fn resolve_user(
        self: &Arc<Self>,
        container: &Arc<Container>,
        record: &Record,
        user: &str,
    ) -> Result<user::Resolved, Error> {
        let accounts = match self.pristine_accounts(container, record) {
            Some(accounts) => accounts,
            None => {
                let engine = Arc::clone(self);
                let owner = Arc::clone(container);
                let accounts =
                    super::archive::blocking(move || engine.read_accounts(&owner)).await?;
                let accounts = Arc::new(accounts);
                if let Some(image) = record.image
                    && rootfs::is_pristine(container)
                {
                    self.accounts.put(image, &accounts);
                }
                accounts
            }
        };
        user::resolve(user, &record.host_config.group_add, &accounts)
    }

    /// The image's account files, while the container cannot have changed its own.
    fn pristine_accounts(
        &self,
        container: &Container,
        record: &Record,
    ) -> Option<Arc<user::Accounts>> {
        let accounts = self.accounts.get(record.image?)?;
        rootfs::is_pristine(container).then_some(accounts)
    }

    /// Finds what is to be mounted and makes missing sources of `-v`.
    pub(crate) fn mount_sources(
        &self,
        container: &Container,
        record: &Record,
    ) -> Result<Vec<Extra>, Error> {
        let mut list = Vec::with_capacity(record.mounts.len() + 3);
        for mount in &record.mounts {
            let source = match mount.kind {
                MountKind::Tmpfs => Source::Tmpfs(mount.tmpfs.clone()),
                MountKind::Bind => {
                    let path = PathBuf::from(&mount.source);
                    if mount.create_source && rustix::fs::stat(&path).is_err() {
                        fs_err::create_dir_all(&path).map_err(|error| {
                            // docker wording
                            Error::internal(format!(
                                "error while creating mount source path '{}': {error}",
                                mount.source
                            ))
                        })?;
                    }
                    Source::Path(path)
                }
                MountKind::Volume => {
                    let root = self.volumes.acquire(&mount.name, container.id.as_str())?;
                    Source::Path(volume_source(mount, root)?)
                }
                MountKind::Image => Source::Path(self.image_mount_source(mount)?),
            };
            list.push(Extra {
                destination: mount.destination.clone(),
                source,
                rw: mount.rw,
                propagation: mount.propagation.clone(),
                non_recursive: mount.non_recursive,
                read_only_non_recursive: mount.read_only_non_recursive,
            });
        }
        Ok(list)
    }

    fn image_mount_source(&self, mount: &MountRecord) -> Result<PathBuf, Error> {
        let image = self.image(&mount.name)?;
        let [layer] = &image.image.chain[..] else {
            return Err(Error::invalid(format!(
                "image {:?} has more than one layer and cannot be mounted",
                mount.name
            )));
        };
        let files = self.store.layer_files(layer);
        volume_source(mount, files)
    }

    /// What is mounted at /dev/shm in place of a file system of the container's own: the host's,
    /// or that of the container whose IPC namespace it joins, which no path of the host leads to.
    async fn shared_memory(&self, record: &Record) -> Result<SharedMemory, Error> {
        let mode = record.host_config.ipc_mode.as_str();
        if mode == "host" {
            return Ok(SharedMemory { source: Some("/dev/shm".into()), mount: None });
        }
        let Some(owner) = validate::container_of(mode) else { return Ok(SharedMemory::default()) };
        let owner = self.containers.find(owner)?;
        let namespace = Self::namespace_of(&owner, "mnt")?;
        let mount = super::archive::blocking(move || {
            silo_sys::mount::bind_clone_in(namespace, "/dev/shm".into()).map_err(|error| {
                Error::internal(format!("share /dev/shm of container {}: {error}", owner.id))
            })
        })
        .await?;
        Ok(SharedMemory { source: Some("/dev/shm".into()), mount: Some(mount) })
    }

    /// What an IPC or PID mode means for the namespace.
    fn join_of(&self, container: &Container, mode: &str, kind: &str) -> Result<Join, Error> {
        if mode == "host" {
            return Ok(Join::Host);
        }
        let Some(other) = validate::container_of(mode) else { return Ok(Join::New) };
        let upper = kind.to_ascii_uppercase();
        // docker wording
        let failed =
            |cause: String| Error::internal(format!("failed to join {upper} namespace: {cause}"));
        let other = self.containers.find(other).map_err(|e| failed(e.message().to_owned()))?;
        if other.id == container.id {
            return Err(failed(format!("cannot join own {upper} namespace")));
        }
        let state = other.state().clone();
        if !state.running || state.restarting {
            return Err(failed(format!("container {} is not running", other.id)));
        }
        if kind == "ipc" && !matches!(other.record().host_config.ipc_mode.as_str(), "shareable") {
            return Err(failed(format!(
                "non-shareable IPC (hint: use IpcMode:shareable for the donor container): container {}",
                other.id
            )));
        }
        Ok(Join::Path(format!("/proc/{}/ns/{kind}", state.pid).into()))
    }

    /// A namespace of a running container, held.
    pub(crate) fn namespace_of(container: &Container, kind: &str) -> Result<OwnedFd, Error> {
        let pid = container.state().pid;
        rootfs::verified(container, pid, || {
            Ok(fs_err::File::open(format!("/proc/{pid}/ns/{kind}"))?.into_parts().0.into())
        })
    }

    /// The container's cgroup, from the roots of the hierarchies.
    pub(crate) fn cgroup_path(&self, id: &str, record: &Record) -> PathBuf {
        let parent = match record.host_config.resources.cgroup_parent.as_str() {
            "" => self.config.cgroup_parent.as_str(),
            parent => parent,
        };
        Path::new("/").join(parent.trim_start_matches('/')).join(id)
    }
}

/// The directory of a volume, or a path inside it that does not lead out.
fn volume_source(mount: &MountRecord, root: PathBuf) -> Result<PathBuf, Error> {
    if mount.subpath.is_empty() {
        return Ok(root);
    }
    let opened = silo_sys::path::open_root(&root).and_then(|fd| {
        silo_sys::path::open_in_root_no_links(
            fd,
            &mount.subpath,
            rustix::fs::OFlags::PATH,
            rustix::fs::Mode::empty(),
        )
    });
    opened.map(|_| root.join(&mount.subpath)).map_err(|_| {
        // docker wording
        Error::internal(format!("cannot access path {}: no such file or directory", mount.subpath))
    })
}

fn console_size([height, width]: [u32; 2]) -> Option<ConsoleSize> {
    let rows = u16::try_from(height).ok().filter(|&rows| rows > 0)?;
    let columns = u16::try_from(width).ok().filter(|&columns| columns > 0)?;
    Some(ConsoleSize { rows, columns })
}

/// The log of a container.
pub(crate) fn log_config(container: &Container, record: &Record) -> Result<LogConfig, Error> {
    let log = &record.host_config.log_config;
    let driver = LogDriver::from_name(&log.driver).unwrap_or(LogDriver::JsonFile);
    let command = record.command();
    let image = record.image.map(|image| image.to_string()).unwrap_or_default();
    let attrs = silo_shim::logs::attributes(
        &log.config,
        AttributeSource {
            id: container.id.as_str(),
            name: &record.name,
            image_id: &image,
            image_name: &record.config.image,
            command: &command,
            env: &record.config.env,
            labels: &record.config.labels,
        },
    )
    .map_err(Error::from_kind)?;
    let options = log.config.clone().into_map();
    Ok(LogConfig::new(driver, options, attrs, &container.dir, &container.id))
}

/// Attaches the clients that came before the start, so that they miss nothing.
async fn attach_waiting(container: &Container, shim: &Shim) {
    let waiting = std::mem::take(
        &mut *container.waiting.lock().unwrap_or_else(std::sync::PoisonError::into_inner),
    );
    for WaitingClient { options, streams } in waiting {
        if streams.is_closed() {
            continue;
        }
        match shim.attach(ProcessRef::Init, options).await {
            // The client may have gone meanwhile.
            Ok(attached) => drop(streams.send(attached)),
            Err(error) => {
                tracing::warn!(container = %container.id, %error, "could not attach a client");
            }
        }
    }
}

/// A start that failed: what the client is told, and the exit code that the container then has.
#[derive(Debug)]
pub(crate) struct Failure {
    pub(crate) error: Error,
    pub(crate) exit_code: i64,
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self { error, exit_code: FAILED }
    }
}

impl From<ShimError> for Failure {
    fn from(error: ShimError) -> Self {
        let cause = silo_types::error::chain(&error);
        // docker wording: clients find out by these words whether to exit with 125, 126 or 127.
        let message = format!(
            "failed to create task for container: failed to create shim task: OCI runtime create failed: {cause}"
        );
        let lower = cause.to_ascii_lowercase();
        let guess = match () {
            () if lower.contains("permission denied") || lower.contains("is a directory") => {
                CANNOT_EXECUTE
            }
            () if lower.contains("executable file not found")
                || lower.contains("no such file or directory")
                || lower.contains("not a directory") =>
            {
                NOT_FOUND
            }
            () => FAILED,
        };
        let exit_code = error.exit_code().map_or(guess, i64::from);
        let kind = match exit_code {
            CANNOT_EXECUTE | NOT_FOUND => ErrorKind::InvalidParameter,
            _ => match error.kind() {
                ErrorKind::InvalidParameter => ErrorKind::InvalidParameter,
                _ => ErrorKind::Internal,
            },
        };
        let mut message = message;
        if lower.contains("is a directory") {
            // The words that clients look for.
            message.push_str(": permission denied");
        }
        if lower.contains("not a directory") {
            message.push_str(": Are you trying to mount a directory onto a file (or vice-versa)? Check if the specified host path exists and is the expected type");
        }
        Self { error: Error::new(kind, message), exit_code }
    }
}

#[cfg(test)]
mod tests {
    use silo_shim::protocol::Failure as ShimFailure;

    use super::*;

    #[test]
    fn exit_codes_tell_why_it_did_not_start() {
        for (message, exit_code, expected, kind) in [
            (
                "exec: \"x\": executable file not found in $PATH",
                Some(127),
                127,
                ErrorKind::InvalidParameter,
            ),
            ("exec: \"/etc\": permission denied", None, 126, ErrorKind::InvalidParameter),
            ("mount: no such file or directory", None, 127, ErrorKind::InvalidParameter),
            ("cgroup broke", None, 128, ErrorKind::Internal),
        ] {
            let failure: Failure =
                ShimError::Refused(ShimFailure { status: 500, message: message.into(), exit_code })
                    .into();
            assert_eq!((failure.exit_code, failure.error.kind()), (expected, kind), "{message}");
            assert!(failure.error.message().contains(message));
        }
    }
}
