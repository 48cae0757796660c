//! The end of a container: what its shim reports, and what follows from it.

use std::path::PathBuf;
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use silo_shim::Living;
use silo_shim::exit::{self, ExitRecord};
use silo_shim::protocol::{Event, ProcessRef};
use tokio::sync::mpsc::UnboundedReceiver;

use super::start::Cause;
use crate::container::{Container, Live, now};
use crate::engine::Engine;

/// What a container that was killed together with its shim has as its exit code.
const KILLED: i32 = 137;

impl Engine {
    /// Follows one run of a container to its end, in a task of its own.
    pub(crate) fn follow(
        self: &Arc<Self>,
        container: &Arc<Container>,
        run: u64,
        events: UnboundedReceiver<Event>,
    ) {
        let (engine, container) = (Arc::clone(self), Arc::clone(container));
        tokio::spawn(async move { engine.follow_events(&container, run, events).await });
    }

    async fn follow_events(
        self: &Arc<Self>,
        container: &Arc<Container>,
        run: u64,
        mut events: UnboundedReceiver<Event>,
    ) {
        let mut over = false;
        while let Some(event) = events.recv().await {
            match event {
                Event::Exited { process: ProcessRef::Exec(id), exit } => {
                    self.exec_ended(id.as_str(), &exit).await;
                }
                Event::Exited { process: ProcessRef::Init, exit } => {
                    over = true;
                    self.ended(container, run, exit).await;
                }
                Event::Oom => {
                    container.change(|state| state.oom_killed = true);
                    self.container_event(container, "oom", &[]);
                }
                Event::Warning(text) => {
                    tracing::warn!(container = %container.id, text, "warning of a shim");
                }
                Event::Released | Event::Lost => break,
            }
        }
        if !over {
            // The shim went away without a word: what it wrote last decides, or it was killed.
            let exit = self.end_without_shim(container).await;
            self.ended(container, run, exit).await;
        }
        container.set_released(true);
    }

    /// How a container ended whose shim is gone; whatever is left of it is killed.
    pub(crate) async fn end_without_shim(&self, container: &Container) -> ExitRecord {
        let record = container.record();
        self.kill_cgroup(self.cgroup_path(container.id.as_str(), &record)).await;
        if let Err(error) = silo_shim::gone(&container.dir).await {
            tracing::error!(container = %container.id, %error, "cannot get rid of a shim");
        }
        if let Some(panic) = exit::panicked(&container.dir) {
            tracing::error!(container = %container.id, panic, "a shim failed");
        }
        let started_at = container.state().started_at;
        exit::read(&container.dir)
            .filter(|exit| started_at == 0 || exit.finished_at >= started_at)
            .unwrap_or_else(|| ExitRecord {
                code: KILLED,
                signal: Some(crate::signal::KILL),
                oom_killed: false,
                started_at,
                finished_at: now(),
                error: None,
            })
    }

    /// Kills every process of a container's cgroup, waits until they are dead, and removes it.
    /// That of another engine's container, which a copy of its data root can lead to, is spared.
    pub(crate) async fn kill_cgroup(&self, path: PathBuf) {
        let cgroups = self.cgroups.clone();
        let id = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let dir = self.container_dir(&id);
        let kill = move || {
            let killed = silo_cgroup::CgroupPath::from_oci(&path.to_string_lossy(), "")
                .and_then(|path| cgroups.open(&path))
                .and_then(|group| {
                    let others = |shim: &Living| shim.id == id && shim.container_dir != dir;
                    if silo_shim::living().iter().any(others) {
                        tracing::warn!(container = id, "the cgroup is that of another engine");
                        return Ok(());
                    }
                    let killed = group.kill_all();
                    // What cannot be told to end may end all the same.
                    group.remove().and(killed)
                });
            match killed {
                Ok(()) | Err(silo_cgroup::Error::NotFound { .. }) => {}
                Err(error) => {
                    let error = silo_types::error::chain(&error);
                    tracing::warn!(cgroup = %path.display(), error, "could not clean up a cgroup");
                }
            }
        };
        if tokio::task::spawn_blocking(kill).await.is_err() {
            tracing::error!("the task that cleans up a cgroup failed");
        }
    }

    /// The exit code of a run. That of a Windows program has 32 bits, of which Linux shows eight.
    pub(crate) fn exit_code(container: &Container, exit: &ExitRecord) -> i64 {
        let told = crate::windows::is(&container.record())
            .then(|| crate::windows::exit_code(container))
            .flatten();
        told.unwrap_or_else(|| exit.code.into())
    }

    /// Records the end of a run, and starts or removes the container as its policy says.
    pub(crate) async fn ended(
        self: &Arc<Self>,
        container: &Arc<Container>,
        run: u64,
        exit: ExitRecord,
    ) {
        let code = Self::exit_code(container, &exit);
        let mut live = container.live.lock().await;
        if live.run != run || !container.is_running() {
            return;
        }
        if let Some(checks) = live.health.take() {
            checks.abort();
        }
        let record = container.record();
        let (started_at, by_client) = {
            let state = container.state();
            (state.started_at, state.stopped_by_client)
        };
        let ran = Duration::from_nanos(
            u64::try_from(exit.finished_at.saturating_sub(started_at)).unwrap_or(0),
        );
        self.release_network(live.sandbox.take());
        self.release_volumes(container);
        container.set_shim(None);
        container.set_process(None);
        self.execs_ended(container);
        let attachment = container.state().network.clone();
        let delay = if live.restarting_by_client {
            None
        } else {
            live.backoff.next(record.restart_policy(), code, by_client, ran)
        };
        let removes = record.host_config.auto_remove && !live.restarting_by_client;
        container.change(|state| {
            state.running = delay.is_some();
            state.restarting = delay.is_some();
            state.paused = false;
            state.pid = 0;
            state.exit_code = code;
            state.oom_killed |= exit.oom_killed;
            state.finished_at = exit.finished_at;
            state.network = None;
            if let Some(error) = &exit.error {
                state.error.clone_from(error);
            }
            if let Some(health) = &mut state.health {
                health.status = "unhealthy".into();
            }
            if delay.is_some() {
                state.restart_count += 1;
            }
            // A container that is about to be removed is removed before anybody hears of its end.
            state.removing = removes;
            state.exits += 1;
        });
        if !removes {
            self.save_state(container);
        }
        let (code, seconds) = (code.to_string(), ran.as_secs().to_string());
        self.container_event(container, "die", &[("execDuration", &seconds), ("exitCode", &code)]);
        if let Some(attachment) = attachment.filter(|_| !record.hidden) {
            self.network_event("disconnect", &attachment, container.id.as_str());
        }
        if let Some(delay) = delay {
            self.restart_after(container, &mut live, delay);
        }
        drop(live);
        if removes {
            self.finish_removal(container, true).await;
        }
    }

    /// Starts the container after its delay, unless somebody stops it before.
    fn restart_after(
        self: &Arc<Self>,
        container: &Arc<Container>,
        live: &mut Live,
        delay: Duration,
    ) {
        let (engine, container) = (Arc::clone(self), Arc::clone(container));
        let task = tokio::spawn(async move {
            tokio::time::sleep(delay).await;
            // From here on it must not be torn down half-way.
            tokio::spawn(async move {
                if let Err(error) = engine.start(&container, Cause::Policy).await {
                    tracing::warn!(container = %container.id, %error, "could not restart");
                }
            });
        });
        live.restart = Some(task.abort_handle());
    }

    /// Ends the wait of a container for its restart.
    pub(crate) fn cancel_restart(&self, container: &Container, live: &mut Live) {
        if let Some(wait) = live.restart.take() {
            wait.abort();
        }
        if container.state().restarting {
            container.change(|state| {
                state.running = false;
                state.restarting = false;
                state.exits += 1;
            });
            self.save_state(container);
        }
    }

    /// Marks the processes that were started in a container later as ended with it.
    fn execs_ended(&self, container: &Container) {
        let ids =
            std::mem::take(&mut *container.execs.lock().unwrap_or_else(PoisonError::into_inner));
        for id in ids {
            if let Some(exec) = self.containers.exec(&id) {
                exec.end(KILLED.into());
            }
        }
    }
}
