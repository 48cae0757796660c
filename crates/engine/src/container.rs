//! One container: what it was made of, where it stands, and what belongs to it while it runs.

use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use silo_docker::containers::{Config, ContainerState, Health, HealthcheckResult};
use silo_docker::host_config::HostConfig;
use silo_docker::networks::NetworkingConfig;
use silo_types::{ContainerId, Digest, Error, duration, time};
use tokio::sync::watch;

use crate::mountpoints::MountRecord;
use crate::networks::Attachment;
use crate::restart::{Backoff, Policy};
use crate::spec::security::{self, Security};

/// What a container was made of; replaced as a whole when it changes.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Record {
    /// Name without slash.
    #[serde(skip)]
    pub name: String,
    /// When it was made, in nanoseconds since 1970.
    pub created: i64,
    /// The image that it was made of; `None` for none.
    pub image: Option<Digest>,
    /// Operating system of the image.
    pub os: String,
    /// The portable part, with the image's merged into it.
    pub config: Config,
    /// The host's part, with defaults filled in.
    pub host_config: HostConfig,
    /// What is mounted, by destination.
    pub mounts: Vec<MountRecord>,
    /// The networks that were asked for.
    #[serde(default)]
    pub networking: Option<NetworkingConfig>,
    /// It carries out a step of a build: no client sees it, and it ends with the daemon.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub hidden: bool,
}

impl Record {
    /// Whether a power cut would end it anyway, so that nothing of it needs to be durable.
    pub(crate) fn is_ephemeral(&self) -> bool {
        self.host_config.auto_remove || self.hidden
    }

    /// The program and its arguments.
    pub fn command(&self) -> Vec<String> {
        let mut command = self.config.entrypoint.to_vec();
        command.extend(self.config.cmd.iter().cloned());
        command
    }

    /// The mounts as clients see them: a Windows container's with Windows paths.
    pub fn mount_points(&self) -> Vec<silo_docker::mounts::MountPoint> {
        let windows = crate::windows::is(self);
        let show = |mount: &MountRecord| {
            let mut shown = mount.to_api();
            if windows {
                if crate::windows::paths::pipe_of(&shown.destination).is_some() {
                    shown.kind = "npipe".into();
                }
                shown.destination = crate::windows::paths::external(&shown.destination);
            }
            shown
        };
        self.mounts.iter().map(show).collect()
    }

    /// The command as lists show it.
    pub fn command_line(&self) -> String {
        let command = self.command();
        let mut words = command.iter();
        let mut line = words.next().cloned().unwrap_or_default();
        for word in words {
            line.push(' ');
            if word.contains(' ') {
                line.push_str(&format!("'{word}'"));
            } else {
                line.push_str(word);
            }
        }
        line
    }

    /// The security options. They were checked when the container was made.
    pub fn security(&self) -> Security {
        security::parse(&self.host_config.security_opt).unwrap_or_default()
    }

    /// When the container starts again by itself.
    pub fn restart_policy(&self) -> Policy {
        let policy = &self.host_config.restart_policy;
        Policy::parse(&policy.name, policy.maximum_retry_count).unwrap_or(Policy::No)
    }

    /// The signal that asks the container to stop.
    pub fn stop_signal(&self) -> i32 {
        crate::signal::parse(&self.config.stop_signal).unwrap_or(crate::signal::TERM)
    }

    /// Seconds between the stop signal and the kill; negative for ever.
    pub fn stop_timeout(&self) -> i64 {
        const DEFAULT: i64 = 10;
        self.config.stop_timeout.unwrap_or(DEFAULT)
    }
}

/// Where a container stands. Times are nanoseconds since 1970, zero for never.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct State {
    /// Runs, is paused, or waits for its restart.
    pub running: bool,
    /// Frozen.
    pub paused: bool,
    /// Waits for its restart.
    pub restarting: bool,
    /// The removal has begun.
    #[serde(skip)]
    pub removing: bool,
    /// It is gone; the last thing that anybody sees of it.
    #[serde(skip)]
    pub removed: bool,
    /// A removal failed half-way.
    pub dead: bool,
    /// The kernel killed something of it for want of memory.
    pub oom_killed: bool,
    /// Its first process on the host.
    pub pid: i32,
    /// The exit code of the last run.
    pub exit_code: i64,
    /// Why it did not start.
    pub error: String,
    /// When it was last started.
    pub started_at: i64,
    /// When it last ended.
    pub finished_at: i64,
    /// Restarts by policy.
    pub restart_count: u64,
    /// A client stopped it, so that some policies leave it down.
    pub stopped_by_client: bool,
    /// Health, if it is checked.
    pub health: Option<HealthState>,
    /// How often it has ended, as far as this daemon knows.
    #[serde(skip)]
    pub exits: u64,
    /// Its place in networks while it runs.
    pub network: Option<Attachment>,
}

/// Health of a container.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct HealthState {
    /// `starting`, `healthy` or `unhealthy`.
    pub status: String,
    /// Failures in a row.
    pub failing_streak: i64,
    /// The last checks.
    pub log: Vec<HealthcheckResult>,
}

/// A time of [`State`] as the API writes it.
pub fn api_time(nanoseconds: i64) -> String {
    time::or_zero(timestamp(nanoseconds))
}

/// A time of [`State`]; `None` for never.
pub fn timestamp(nanoseconds: i64) -> Option<Timestamp> {
    if nanoseconds == 0 {
        return None;
    }
    Timestamp::from_nanosecond(i128::from(nanoseconds)).ok()
}

/// Now, as [`State`] keeps times.
pub fn now() -> i64 {
    i64::try_from(Timestamp::now().as_nanosecond()).unwrap_or(i64::MAX)
}

fn since(nanoseconds: i64) -> std::time::Duration {
    std::time::Duration::from_nanos(u64::try_from(now() - nanoseconds).unwrap_or(0))
}

impl State {
    /// The API's one word.
    pub fn status(&self) -> &'static str {
        match () {
            () if self.running && self.paused => "paused",
            () if self.running && self.restarting => "restarting",
            () if self.running => "running",
            () if self.removing => "removing",
            () if self.dead => "dead",
            () if self.started_at == 0 => "created",
            () => "exited",
        }
    }

    /// The API's sentence: `Up 3 minutes (healthy)`.
    pub fn describe(&self) -> String {
        let ago = |nanoseconds| duration::human(since(nanoseconds));
        match () {
            () if self.running && self.paused => format!("Up {} (Paused)", ago(self.started_at)),
            () if self.running && self.restarting => {
                format!("Restarting ({}) {} ago", self.exit_code, ago(self.finished_at))
            }
            () if self.running => match self.health.as_ref().map(|health| health.status.as_str()) {
                Some("starting") => format!("Up {} (health: starting)", ago(self.started_at)),
                Some(health) => format!("Up {} ({health})", ago(self.started_at)),
                None => format!("Up {}", ago(self.started_at)),
            },
            () if self.removing => "Removal In Progress".into(),
            () if self.dead => "Dead".into(),
            () if self.started_at == 0 => "Created".into(),
            () if self.finished_at == 0 => String::new(),
            () => format!("Exited ({}) {} ago", self.exit_code, ago(self.finished_at)),
        }
    }

    /// As inspect shows it.
    pub fn to_api(&self) -> ContainerState {
        ContainerState {
            status: self.status().into(),
            running: self.running,
            paused: self.paused,
            restarting: self.restarting,
            oom_killed: self.oom_killed,
            dead: self.dead,
            pid: self.pid,
            exit_code: self.exit_code,
            error: self.error.clone(),
            started_at: api_time(self.started_at),
            finished_at: api_time(self.finished_at),
            health: self.health.as_ref().map(|health| Health {
                status: health.status.clone(),
                failing_streak: health.failing_streak,
                log: health.log.clone().into(),
            }),
        }
    }
}

/// What belongs to a container between its start and its end, and what its restarts need.
/// Whoever changes the container's state holds the lock around it.
#[derive(Debug, Default)]
pub struct Live {
    /// Delay and count of restarts.
    pub backoff: Backoff,
    /// The sandbox of a container with a network of its own.
    pub sandbox: Option<silo_net::Sandbox>,
    /// Bumped by every start, so that a late exit of an earlier run is told apart.
    pub run: u64,
    /// Ends the wait of a restart.
    pub restart: Option<tokio::task::AbortHandle>,
    /// Ends the health checks.
    pub health: Option<tokio::task::AbortHandle>,
    /// A client restarts it: its end is no reason to remove it.
    pub restarting_by_client: bool,
}

/// A client that wants to be attached as soon as there is something to attach to.
#[derive(Debug)]
pub(crate) struct WaitingClient {
    /// What it wants.
    pub(crate) options: silo_shim::protocol::AttachOptions,
    /// Where its streams go.
    pub(crate) streams: tokio::sync::oneshot::Sender<silo_shim::Attached>,
}

/// A container.
#[derive(Debug)]
pub struct Container {
    /// Its id.
    pub id: ContainerId,
    /// Its directory.
    pub dir: PathBuf,
    record: RwLock<Arc<Record>>,
    state: watch::Sender<State>,
    shim: RwLock<Option<silo_shim::Shim>>,
    /// Held around every change from one state to another.
    pub(crate) live: tokio::sync::Mutex<Live>,
    /// Ids of processes that were started later and run.
    pub(crate) execs: Mutex<Vec<String>>,
    /// Clients that attached before the start.
    pub(crate) waiting: Mutex<Vec<WaitingClient>>,
    /// What its last run held of the host has been given back.
    released: watch::Sender<bool>,
    /// Its files may have been changed although it never ran.
    written: AtomicBool,
    /// Held while somebody writes to its files although it does not run: the kernel takes the
    /// work directory of an overlay away from it when another one is mounted on it.
    pub(crate) writing: Arc<tokio::sync::Mutex<()>>,
    /// The program that runs, from which later ones inherit.
    process: RwLock<Option<Arc<silo_oci::runtime::Process>>>,
    /// Detached mounts in place of the sources of its binds, by destination, for its next start.
    pub(crate) trees: Mutex<Vec<(String, OwnedFd)>>,
}

impl Container {
    /// A container of these parts.
    pub fn new(id: ContainerId, dir: PathBuf, record: Record, state: State) -> Self {
        Self {
            id,
            dir,
            record: RwLock::new(Arc::new(record)),
            state: watch::Sender::new(state),
            shim: RwLock::new(None),
            live: tokio::sync::Mutex::default(),
            execs: Mutex::default(),
            waiting: Mutex::default(),
            released: watch::Sender::new(true),
            written: AtomicBool::new(false),
            writing: Arc::default(),
            process: RwLock::new(None),
            trees: Mutex::default(),
        }
    }

    /// What it was made of.
    pub fn record(&self) -> Arc<Record> {
        Arc::clone(&self.record.read().unwrap_or_else(PoisonError::into_inner))
    }

    pub(crate) fn set_record(&self, record: Record) {
        *self.record.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(record);
    }

    /// Its name without slash.
    pub fn name(&self) -> String {
        self.record().name.clone()
    }

    /// Where it stands. The reference must not be held across anything slow.
    pub fn state(&self) -> watch::Ref<'_, State> {
        self.state.borrow()
    }

    /// Follows its state.
    pub fn watch(&self) -> watch::Receiver<State> {
        self.state.subscribe()
    }

    pub(crate) fn change(&self, change: impl FnOnce(&mut State)) {
        self.state.send_modify(change);
    }

    /// Runs, is paused, or waits for its restart.
    pub fn is_running(&self) -> bool {
        self.state().running
    }

    /// The connection to its shim, while it has one.
    pub fn shim(&self) -> Option<silo_shim::Shim> {
        self.shim.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(crate) fn set_shim(&self, shim: Option<silo_shim::Shim>) {
        *self.shim.write().unwrap_or_else(PoisonError::into_inner) = shim;
    }

    /// Says whether a run holds something of the host: its cgroup, its shim's directory.
    pub(crate) fn set_released(&self, released: bool) {
        self.released.send_replace(released);
    }

    /// Waits until the last run has given back what it held, for a bounded time.
    pub(crate) async fn wait_released(&self) {
        const PATIENCE: std::time::Duration = std::time::Duration::from_secs(10);
        let mut watch = self.released.subscribe();
        let released = watch.wait_for(|released| *released);
        if tokio::time::timeout(PATIENCE, released).await.is_err() {
            tracing::warn!(container = %self.id, "the last run was not cleaned up in time");
        }
    }

    /// Whether somebody may have changed the files of a container that never ran.
    pub(crate) fn was_written(&self) -> bool {
        self.written.load(Ordering::Acquire)
    }

    pub(crate) fn note_written(&self) {
        self.written.store(true, Ordering::Release);
    }

    /// The program that runs; read from the container's directory after a daemon's restart.
    pub(crate) fn process(&self) -> Option<Arc<silo_oci::runtime::Process>> {
        if let Some(process) = self.process.read().unwrap_or_else(PoisonError::into_inner).as_ref()
        {
            return Some(Arc::clone(process));
        }
        let json = fs_err::read(self.path("config.json")).ok()?;
        let process = Arc::new(silo_oci::runtime::Spec::from_json(&json).ok()?.process?);
        self.set_process(Some(Arc::clone(&process)));
        Some(process)
    }

    pub(crate) fn set_process(&self, process: Option<Arc<silo_oci::runtime::Process>>) {
        *self.process.write().unwrap_or_else(PoisonError::into_inner) = process;
    }

    /// The shim of a container that must be running.
    pub(crate) fn running_shim(&self) -> Result<silo_shim::Shim, Error> {
        let up = {
            let state = self.state();
            state.running && !state.restarting
        };
        if up && let Some(shim) = self.shim() {
            return Ok(shim);
        }
        Err(self.not_running())
    }

    /// The error for a verb that needs a running container.
    pub(crate) fn not_running(&self) -> Error {
        // docker wording
        Error::conflict(format!("container {} is not running", self.id))
    }

    pub(crate) fn take_trees(&self) -> Vec<(String, OwnedFd)> {
        std::mem::take(&mut *self.trees.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// A path in its directory.
    pub fn path(&self, name: impl AsRef<Path>) -> PathBuf {
        self.dir.join(name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn states_have_dockers_names() {
        let up = State { running: true, started_at: now(), ..State::default() };
        for (state, status, sentence) in [
            (State::default(), "created", "Created"),
            (up.clone(), "running", "Up Less than a second"),
            (State { paused: true, ..up.clone() }, "paused", "Up Less than a second (Paused)"),
            (
                State { restarting: true, exit_code: 3, finished_at: now(), ..up.clone() },
                "restarting",
                "Restarting (3) Less than a second ago",
            ),
            (
                State { running: false, exit_code: 1, finished_at: now(), ..up.clone() },
                "exited",
                "Exited (1) Less than a second ago",
            ),
            (State { running: false, dead: true, ..up.clone() }, "dead", "Dead"),
            (
                State {
                    health: Some(HealthState { status: "starting".into(), ..Default::default() }),
                    ..up
                },
                "running",
                "Up Less than a second (health: starting)",
            ),
        ] {
            assert_eq!((state.status(), state.describe().as_str()), (status, sentence));
        }
    }
}
