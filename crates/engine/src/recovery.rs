//! The beginning of a daemon: what an earlier one left behind is found again or cleaned up.
//!
//! Containers whose shims live are taken up where they are. Those whose shims are gone ended
//! meanwhile: the shim's record says how, or they are killed. Then everything on disk that no
//! record tells of is removed, and containers start again as their policies say.

use std::collections::HashSet;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use silo_shim::config::ShimConfig;
use silo_shim::protocol::Status;
use silo_shim::{Shim, ShimError};
use silo_types::{ContainerId, Error};

use crate::container::{Container, Record, State};
use crate::containers::Cause;
use crate::db::ContainerRow;
use crate::engine::Engine;
use crate::networks::Attachment;

/// Shims that are connected to at once.
const AT_ONCE: usize = 16;
/// How long a shim may take to tell its state.
const PATIENCE: Duration = Duration::from_secs(10);

impl Engine {
    /// Brings the engine to where the last one was.
    pub(crate) async fn recover(self: &Arc<Self>) -> Result<(), Error> {
        let mut known = HashSet::new();
        for row in self.db.containers()? {
            known.insert(row.id.clone());
            match self.load(&row) {
                Some(container) => self.containers.insert(Arc::new(container)),
                None => tracing::error!(container = row.id, "unreadable record of a container"),
            }
        }
        self.volumes_without_owner(&known);
        let restarts = self.reconnect().await;
        self.clean_up(&known).await;
        for container in restarts {
            let engine = Arc::clone(self);
            tokio::spawn(async move {
                if let Err(error) = engine.start(&container, Cause::Policy).await {
                    tracing::warn!(container = %container.id, %error, "could not start again");
                }
            });
        }
        Ok(())
    }

    fn load(&self, row: &ContainerRow) -> Option<Container> {
        let id: ContainerId = row.id.parse().ok()?;
        let mut record: Record = serde_json::from_str(&row.config).ok()?;
        record.name.clone_from(&row.name);
        // A state that a power cut has cut short says nothing; the record is whole.
        let state: State = serde_json::from_str(&row.state).unwrap_or_default();
        let container = Container::new(id, self.container_dir(&row.id), record, state);
        container.note_written();
        Some(container)
    }

    /// Finds the shims again. Returns the containers that are to be started.
    async fn reconnect(self: &Arc<Self>) -> Vec<Arc<Container>> {
        let mut pending = tokio::task::JoinSet::new();
        let mut found = Vec::new();
        let known = self.containers.all().into_iter().chain(self.containers.hidden());
        for container in known {
            while pending.len() >= AT_ONCE {
                found.extend(pending.join_next().await.and_then(Result::ok));
            }
            let run_dir = self.shim_dir(container.id.as_str());
            pending.spawn(async move {
                let living = find_shim(&container, &run_dir).await;
                (container, living)
            });
        }
        found.extend(pending.join_all().await);
        let mut living = Vec::new();
        let mut ended = Vec::new();
        for (container, run) in found {
            match run {
                Some(run) => living.push((container, run)),
                None => ended.push(container),
            }
        }
        self.adopt(&living);
        let mut restarts = Vec::new();
        for (container, run) in living {
            self.take_up(&container, run).await;
            if container.record().hidden {
                // Its build ended with the last daemon.
                self.end_step(&container).await;
            }
        }
        for container in ended {
            if self.settle(&container).await {
                restarts.push(container);
            }
        }
        restarts
    }

    /// Tells the network of the containers that live, before anything else uses it.
    fn adopt(&self, living: &[(Arc<Container>, Living)]) {
        let Ok(bridge) = self.networks.bridge() else { return };
        let mut endpoints = Vec::new();
        let mut owners = Vec::new();
        for (container, run) in living {
            if matches!(run.state.status, Status::Exited(_)) {
                continue;
            }
            let Some((bridge_end, bindings)) = run
                .network
                .clone()
                .and_then(|network| network.bridge.map(|bridge| (bridge, network.bindings)))
            else {
                continue;
            };
            let opened = fs_err::File::open(format!("/proc/{}/ns/net", run.shim.pid()));
            let (Ok(netns), Ok(mac)) = (opened, bridge_end.mac.parse()) else { continue };
            endpoints.push(silo_net::Endpoint {
                id: container.id.to_string(),
                netns: netns.into_parts().0.into(),
                ip: bridge_end.ip,
                mac,
                host_interface: bridge_end.host_interface,
                bindings,
            });
            owners.push(Arc::clone(container));
        }
        match bridge.adopt(endpoints) {
            Ok(sandboxes) => {
                for (container, sandbox) in owners.iter().zip(sandboxes) {
                    match sandbox {
                        Ok(sandbox) => {
                            if let Ok(mut live) = container.live.try_lock() {
                                live.sandbox = Some(sandbox);
                            }
                        }
                        Err(error) => {
                            let error = silo_types::error::chain(&error);
                            tracing::warn!(container = %container.id, error, "lost network");
                        }
                    }
                }
            }
            Err(error) => {
                let error = silo_types::error::chain(&error);
                tracing::error!(error, "could not take over the bridge network");
            }
        }
    }

    /// Goes on with a container whose shim lives.
    async fn take_up(self: &Arc<Self>, container: &Arc<Container>, run: Living) {
        let Living { shim, state: found, network } = run;
        let mut live = container.live.lock().await;
        let pid = shim.pid();
        let events = shim.events();
        live.run += 1;
        container.set_released(false);
        container.set_shim(Some(shim));
        container.change(|state| {
            if found.started_at > state.started_at {
                // The last daemon ended before it could write down that it had started it.
                state.oom_killed = false;
                state.exit_code = 0;
                state.error.clear();
                state.started_at = found.started_at;
                state.stopped_by_client = false;
            }
            state.running = true;
            state.restarting = false;
            state.pid = pid;
            state.network = network;
        });
        if !container.state().paused {
            self.continue_health_checks(container, &mut live);
        }
        let run = live.run;
        drop(live);
        self.save_state(container);
        match found.status {
            Status::Exited(exit) => {
                self.ended(container, run, exit).await;
                container.set_released(true);
            }
            _ => self.follow(container, run, events),
        }
    }

    /// Settles a container without a shim. True when it is to be started.
    async fn settle(self: &Arc<Self>, container: &Arc<Container>) -> bool {
        let before = container.state().clone();
        let record = container.record();
        let exit = if before.running && !before.restarting {
            Some(self.end_without_shim(container).await)
        } else {
            // A run that the last daemon could not write down any more.
            silo_shim::exit::read(&container.dir).filter(|exit| exit.started_at > before.started_at)
        };
        if before.running || exit.is_some() {
            container.change(|state| {
                state.running = false;
                state.restarting = false;
                state.paused = false;
                state.pid = 0;
                state.network = None;
                if let Some(exit) = exit {
                    state.started_at = state.started_at.max(exit.started_at);
                    state.exit_code = Self::exit_code(container, &exit);
                    state.oom_killed |= exit.oom_killed;
                    state.finished_at = exit.finished_at;
                }
            });
            self.save_state(container);
        }
        self.release_volumes(container);
        if record.is_ephemeral() {
            // One that was never started waits for its client no longer.
            self.auto_remove(container).await;
            return false;
        }
        if !record.host_config.resources.cgroup_parent.is_empty() {
            // Where nobody looks for leftovers.
            self.kill_cgroup(self.cgroup_path(container.id.as_str(), &record)).await;
        }
        let state = container.state();
        let started_before = state.started_at != 0;
        let again = record.restart_policy().at_daemon_start(
            state.stopped_by_client,
            state.exit_code,
            state.restart_count,
        );
        drop(state);
        started_before && again
    }

    /// Removes what no record tells of.
    async fn clean_up(&self, known: &HashSet<String>) {
        let unknown = |path: &Path| {
            let Ok(entries) = fs_err::read_dir(path) else { return Vec::new() };
            let names = entries.flatten().map(|entry| entry.file_name().display().to_string());
            names.filter(|name| !known.contains(name)).collect::<Vec<_>>()
        };
        let run = &self.config.run_root;
        let parents = [self.config.data_root.join("containers"), run.join("shims")];
        let strays: HashSet<String> = parents.iter().flat_map(|parent| unknown(parent)).collect();
        for name in strays {
            tracing::info!(name, "removing leftovers of a container");
            self.end_stray(&name).await;
            for parent in &parents {
                crate::containers::remove_directory(&parent.join(&name));
            }
        }
        self.clean_up_cgroups().await;
        for name in self.store.snapshots().unwrap_or_default() {
            if !known.contains(crate::windows::snapshot_owner(&name)) {
                self.drop_snapshot(&name);
            }
        }
    }

    /// Removes the cgroups of containers that do not run.
    async fn clean_up_cgroups(&self) {
        let parent = Path::new(self.config.cgroup_parent.trim_start_matches('/'));
        let mountinfo = fs_err::read_to_string("/proc/self/mountinfo").unwrap_or_default();
        let mut strays = HashSet::new();
        for root in cgroup_mounts(&mountinfo) {
            let Ok(groups) = fs_err::read_dir(Path::new(root).join(parent)) else { continue };
            for group in groups.flatten() {
                let name = group.file_name().display().to_string();
                if let Ok(id) = name.parse::<ContainerId>()
                    && !self.containers.by_id(id.as_str()).is_some_and(|c| c.is_running())
                {
                    strays.insert(name);
                }
            }
        }
        for name in strays {
            self.kill_cgroup(Path::new("/").join(parent).join(name)).await;
        }
    }

    /// Ends a container that lives without a record.
    async fn end_stray(&self, id: &str) {
        let Ok(id) = id.parse::<ContainerId>() else { return };
        let dir = self.container_dir(id.as_str());
        silo_shim::kill(&dir);
        let parent = Path::new("/").join(self.config.cgroup_parent.trim_start_matches('/'));
        let told = ShimConfig::read(&dir).filter(|config| config.container_dir == dir);
        let told = told.map(|config| config.cgroup);
        self.kill_cgroup(told.unwrap_or_else(|| parent.join(id.as_str()))).await;
        wait_gone(&id, &dir).await;
    }
}

/// A run that goes on.
struct Living {
    shim: Shim,
    state: silo_shim::protocol::State,
    /// Where it was put in networks.
    network: Option<Attachment>,
}

/// The shim of a container that was started. If there is none, then nothing is left that could
/// become one.
async fn find_shim(container: &Container, run_dir: &Path) -> Option<Living> {
    let id = &container.id;
    match tokio::time::timeout(PATIENCE, Shim::connect(run_dir, id.as_str())).await {
        Ok(Ok((shim, state))) => {
            if state.status != Status::Created {
                let note = ShimConfig::read(&container.dir).map(|config| config.note);
                let network = note.and_then(|note| serde_json::from_str(&note).ok());
                let network = network.unwrap_or_else(|| container.state().network.clone());
                return Some(Living { shim, state, network });
            }
            // The last daemon ended between making and starting it. It goes by itself, unless it
            // has not noticed yet; then this is as good.
            drop(shim.shutdown().await);
        }
        Ok(Err(ShimError::Connect { .. })) => {}
        Ok(Err(error)) => tracing::warn!(container = %id, %error, "lost shim"),
        Err(_) => tracing::warn!(container = %id, "a shim does not answer"),
    }
    wait_gone(id, &container.dir).await;
    None
}

/// Waits for the end of whatever works on a container.
async fn wait_gone(id: &ContainerId, dir: &Path) {
    if let Err(error) = silo_shim::gone(dir).await {
        tracing::error!(container = %id, %error, "cannot get rid of a shim");
    }
}

/// Where hierarchies of cgroups are mounted.
fn cgroup_mounts(mountinfo: &str) -> impl Iterator<Item = &str> {
    mountinfo.lines().filter_map(|line| {
        let (before, after) = line.split_once(" - ")?;
        after.starts_with("cgroup").then(|| before.split(' ').nth(4))?
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hierarchies_of_both_versions() {
        let mountinfo = "1 0 8:1 / / rw - ext4 /dev/sda rw\n\
            2 1 0:26 / /sys/fs/cgroup/cpu rw shared:1 - cgroup cgroup rw,cpu\n\
            3 1 0:27 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw\n";
        let found: Vec<_> = cgroup_mounts(mountinfo).collect();
        assert_eq!(found, ["/sys/fs/cgroup/cpu", "/sys/fs/cgroup/unified"]);
    }
}
