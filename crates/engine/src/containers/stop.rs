//! Stop, kill, restart, pause and unpause.

use std::sync::Arc;
use std::time::Duration;

use silo_docker::query::StopQuery;
use silo_shim::protocol::ProcessRef;
use silo_types::{Error, ErrorKind, Kind};

use super::start::Cause;
use crate::container::Container;
use crate::engine::Engine;
use crate::{signal, windows};

/// How long a killed container may take to be gone.
const KILL_TIMEOUT: Duration = Duration::from_secs(10);
/// When a Windows container that may take any time to end is told that it is shut down: what
/// Windows gives programs.
const SHUTDOWN_AFTER: Duration = Duration::from_secs(5);

impl Engine {
    /// Asks a container to end, and kills it when it does not.
    pub async fn container_stop(
        self: &Arc<Self>,
        name: &str,
        query: &StopQuery,
    ) -> Result<(), Error> {
        let container = self.container(name)?;
        if !container.is_running() {
            return Err(Error::new(ErrorKind::NotModified, "container is already stopped"));
        }
        if !query.signal.is_empty() {
            signal::parse(&query.signal)?;
        }
        self.stop(&container, query)
            .await
            .map_err(|error| Error::internal(format!("cannot stop container: {name}: {error}")))
    }

    /// See [`Engine::container_stop`].
    pub(crate) async fn stop(
        self: &Arc<Self>,
        container: &Arc<Container>,
        query: &StopQuery,
    ) -> Result<(), Error> {
        if !container.is_running() {
            return Ok(());
        }
        let record = container.record();
        let signal = match query.signal.as_str() {
            "" => record.stop_signal(),
            text => signal::parse(text)?,
        };
        let timeout = query.timeout.unwrap_or_else(|| record.stop_timeout());
        let mut watch = container.watch();
        let exits = watch.borrow_and_update().exits;
        if windows::is(&record) && signal != signal::KILL {
            Self::windows_stop_services(container);
        }
        self.signal(container, signal, true).await?;
        let gone = watch.wait_for(|state| state.exits != exits || !state.running);
        let mut gone = std::pin::pin!(gone);
        let mut limit = u64::try_from(timeout).ok().map(Duration::from_secs);
        let mut in_time = false;
        if windows::is(&record) {
            let first = limit.map_or(SHUTDOWN_AFTER, |limit| limit / 2);
            in_time = tokio::time::timeout(first, gone.as_mut()).await.is_ok();
            limit = limit.map(|limit| limit.saturating_sub(first));
            if !in_time {
                Self::windows_shutdown(container);
            }
        }
        in_time = in_time
            || match limit {
                Some(limit) => tokio::time::timeout(limit, gone).await.is_ok(),
                None => {
                    // Nobody else can end the wait: the container outlives it.
                    drop(gone.await);
                    true
                }
            };
        if !in_time {
            self.kill(container).await?;
        }
        self.container_event(container, "stop", &[]);
        Ok(())
    }

    /// Sends a signal; SIGKILL also waits for the end.
    pub async fn container_kill(self: &Arc<Self>, name: &str, signal: &str) -> Result<(), Error> {
        let signal = if signal.is_empty() { signal::KILL } else { signal::parse(signal)? };
        let container = self.container(name)?;
        // docker wording
        let failed = |error: Error| {
            Error::new(error.kind(), format!("cannot kill container: {name}: {}", error.message()))
        };
        if !container.is_running() {
            return Err(failed(container.not_running()));
        }
        if signal == signal::KILL {
            return self.kill(&container).await.map_err(failed);
        }
        let stops = signal == container.record().stop_signal();
        self.signal(&container, signal, stops).await.map_err(failed)
    }

    /// Kills a container and waits until it is gone.
    pub(crate) async fn kill(self: &Arc<Self>, container: &Arc<Container>) -> Result<(), Error> {
        let mut watch = container.watch();
        let exits = watch.borrow_and_update().exits;
        if !container.is_running() {
            return Ok(());
        }
        self.signal(container, signal::KILL, true).await?;
        let mut gone = async |patience| {
            let gone = watch.wait_for(|state| state.exits != exits || !state.running);
            tokio::time::timeout(patience, gone).await.is_ok()
        };
        if gone(KILL_TIMEOUT).await {
            return Ok(());
        }
        if let Some(shim) = container.shim() {
            drop(shim.shutdown().await);
        }
        let record = container.record();
        self.kill_cgroup(self.cgroup_path(container.id.as_str(), &record)).await;
        if gone(Duration::from_secs(2)).await {
            return Ok(());
        }
        Err(Error::internal("tried to kill container, but did not receive an exit event"))
    }

    /// Sends a signal to the first process. `stops` says that the container is meant to end.
    async fn signal(
        self: &Arc<Self>,
        container: &Arc<Container>,
        signal: i32,
        stops: bool,
    ) -> Result<(), Error> {
        let mut live = container.live.lock().await;
        if !container.is_running() {
            return Err(container.not_running());
        }
        if stops {
            container.change(|state| state.stopped_by_client = true);
            self.save_state(container);
        }
        if container.state().restarting {
            self.cancel_restart(container, &mut live);
            return Ok(());
        }
        let paused = container.state().paused;
        let shim = container.running_shim()?;
        match shim.signal(ProcessRef::Init, signal).await {
            Ok(()) => {}
            // It ends at this moment; its end is on the way.
            Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::Unavailable) => {}
            Err(error) => {
                return Err(Error::internal(format!(
                    "Cannot kill container {}: {}",
                    container.id,
                    silo_types::error::chain(&error)
                )));
            }
        }
        if paused && stops {
            match self.thaw(container) {
                Ok(()) => {}
                // With version 2 those that are frozen are killed as they are, and it is gone.
                Err(error) if error.kind() == ErrorKind::NotFound => {}
                Err(error) => return Err(error),
            }
            container.change(|state| state.paused = false);
        }
        drop(live);
        let number = signal.to_string();
        self.container_event(container, "kill", &[("signal", &number)]);
        Ok(())
    }

    /// Stops a container if it runs, and starts it.
    pub async fn container_restart(
        self: &Arc<Self>,
        name: &str,
        query: &StopQuery,
    ) -> Result<(), Error> {
        let container = self.container(name)?;
        // docker wording
        let failed = |error: Error| {
            Error::new(
                match error.kind() {
                    ErrorKind::Conflict | ErrorKind::InvalidParameter => error.kind(),
                    _ => ErrorKind::Internal,
                },
                format!("Cannot restart container {name}: {}", error.message()),
            )
        };
        if container.is_running() {
            container.live.lock().await.restarting_by_client = true;
            let stopped = self.stop(&container, query).await;
            if let Err(error) = stopped {
                container.live.lock().await.restarting_by_client = false;
                return Err(failed(error));
            }
        }
        self.start(&container, Cause::Client).await.map_err(failed)?;
        self.container_event(&container, "restart", &[]);
        Ok(())
    }

    fn group(&self, container: &Container) -> Result<silo_cgroup::Cgroup, Error> {
        let record = container.record();
        let path = self.cgroup_path(container.id.as_str(), &record);
        let path = silo_cgroup::CgroupPath::from_oci(&path.display().to_string(), "")
            .map_err(Error::from_kind)?;
        self.cgroups.open(&path).map_err(Error::from_kind)
    }

    /// The cgroup of a running container.
    pub(crate) fn running_group(
        &self,
        container: &Container,
    ) -> Result<silo_cgroup::Cgroup, Error> {
        container.running_shim()?;
        self.group(container)
    }

    fn thaw(&self, container: &Container) -> Result<(), Error> {
        self.group(container)?.thaw().map_err(Error::from_kind)
    }

    /// Freezes all processes of a container.
    pub async fn container_pause(self: &Arc<Self>, name: &str) -> Result<(), Error> {
        let container = self.container(name)?;
        let mut live = container.live.lock().await;
        // docker wording, throughout
        let state = container.state().clone();
        if !state.running {
            return Err(container.not_running());
        }
        if state.paused {
            return Err(Error::conflict(format!("container {} is already paused", container.id)));
        }
        if state.restarting {
            return Err(Error::conflict(format!(
                "Container {} is restarting, wait until the container is running",
                container.id
            )));
        }
        self.group(&container).and_then(|group| group.freeze().map_err(Error::from_kind)).map_err(
            |error| Error::internal(format!("cannot pause container {}: {error}", container.id)),
        )?;
        container.change(|state| state.paused = true);
        if let Some(checks) = live.health.take() {
            checks.abort();
        }
        self.save_state(&container);
        self.container_event(&container, "pause", &[]);
        Ok(())
    }

    /// Lets the processes of a container go on.
    pub async fn container_unpause(self: &Arc<Self>, name: &str) -> Result<(), Error> {
        let container = self.container(name)?;
        let mut live = container.live.lock().await;
        if !container.state().paused {
            // docker wording
            return Err(Error::internal(format!("Container {} is not paused", container.id)));
        }
        self.thaw(&container).map_err(|error| {
            Error::internal(format!("Cannot unpause container {}: {error}", container.id))
        })?;
        container.change(|state| state.paused = false);
        self.continue_health_checks(&container, &mut live);
        self.save_state(&container);
        self.container_event(&container, "unpause", &[]);
        Ok(())
    }
}
