//! The beginning of a daemon: what an earlier one left behind is found again or cleaned up.
//!
//! Containers whose shims live are taken up where they are. Those whose shims are gone ended
//! meanwhile: the shim's record says how, or they are killed. Then everything on disk that no
//! record tells of is removed, and containers start again as their policies say.

use std::collections::HashSet;
use std::path::Path;
use std::sync::Arc;

use silo_shim::protocol::Status;
use silo_shim::{Shim, ShimError};
use silo_types::{ContainerId, Error};

use crate::container::{Container, Record, State};
use crate::containers::Cause;
use crate::db::ContainerRow;
use crate::engine::Engine;

/// Shims that are connected to at once.
const AT_ONCE: usize = 16;

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
        let restarts = self.reconnect().await;
        self.clean_up(&known);
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
        for container in self.containers.all() {
            while pending.len() >= AT_ONCE {
                found.extend(pending.join_next().await.and_then(Result::ok));
            }
            let directory = self.shim_dir(container.id.as_str());
            pending.spawn(async move {
                let connected = Shim::connect(&directory, container.id.as_str()).await;
                (container, connected)
            });
        }
        found.extend(pending.join_all().await);
        let mut living = Vec::new();
        let mut ended = Vec::new();
        for (container, connected) in found {
            match connected {
                Ok((shim, state)) => living.push((container, shim, state)),
                Err(error) => {
                    if !matches!(error, ShimError::Connect { .. }) {
                        tracing::warn!(container = %container.id, %error, "lost shim");
                    }
                    ended.push(container);
                }
            }
        }
        self.adopt(&living);
        let mut restarts = Vec::new();
        for (container, shim, state) in living {
            self.take_up(&container, shim, &state).await;
        }
        for container in ended {
            if self.settle(&container).await {
                restarts.push(container);
            }
        }
        restarts
    }

    /// Tells the network of the containers that live, before anything else uses it.
    fn adopt(&self, living: &[(Arc<Container>, Shim, silo_shim::protocol::State)]) {
        let Ok(bridge) = self.networks.bridge() else { return };
        let mut endpoints = Vec::new();
        let mut owners = Vec::new();
        for (container, shim, state) in living {
            if matches!(state.status, Status::Exited(_)) {
                continue;
            }
            let network = container.state().network.clone();
            let Some((bridge_end, bindings)) =
                network.and_then(|n| n.bridge.map(|bridge| (bridge, n.bindings)))
            else {
                continue;
            };
            let opened = fs_err::File::open(format!("/proc/{}/ns/net", shim.pid()));
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
    async fn take_up(
        self: &Arc<Self>,
        container: &Arc<Container>,
        shim: Shim,
        found: &silo_shim::protocol::State,
    ) {
        let mut live = container.live.lock().await;
        let pid = shim.pid();
        let events = shim.events();
        if found.status == Status::Created {
            // The last daemon ended between making and starting it.
            drop(shim.shutdown().await);
            self.release_network(live.sandbox.take());
            container.change(|state| {
                state.running = false;
                state.restarting = false;
                state.pid = 0;
                state.network = None;
            });
            self.save_state(container);
            return;
        }
        live.run += 1;
        container.set_released(false);
        container.set_shim(Some(shim));
        container.change(|state| {
            state.running = true;
            state.restarting = false;
            state.pid = pid;
            if found.started_at != 0 {
                state.started_at = found.started_at;
            }
        });
        if !container.state().paused {
            self.continue_health_checks(container, &mut live);
        }
        let run = live.run;
        drop(live);
        self.save_state(container);
        match &found.status {
            Status::Exited(exit) => {
                self.ended(container, run, exit.clone()).await;
                container.set_released(true);
            }
            _ => self.follow(container, run, events),
        }
    }

    /// Settles a container without a shim. True when it is to be started.
    async fn settle(self: &Arc<Self>, container: &Arc<Container>) -> bool {
        let was_running = container.is_running();
        let record = container.record();
        if was_running {
            let exit = self.end_without_shim(container);
            container.change(|state| {
                state.running = false;
                state.restarting = false;
                state.paused = false;
                state.pid = 0;
                state.exit_code = exit.code;
                state.oom_killed |= exit.oom_killed;
                state.finished_at = exit.finished_at;
                state.network = None;
            });
            self.save_state(container);
        }
        self.release_volumes(container);
        if record.host_config.auto_remove {
            // One that was never started waits for its client no longer.
            self.auto_remove(container).await;
            return false;
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
    fn clean_up(&self, known: &HashSet<String>) {
        let unknown = |path: &Path| {
            let Ok(entries) = fs_err::read_dir(path) else { return Vec::new() };
            let names = entries.flatten().map(|entry| entry.file_name().display().to_string());
            names.filter(|name| !known.contains(name)).collect::<Vec<_>>()
        };
        let data = &self.config.data_root;
        let run = &self.config.run_root;
        for id in unknown(&run.join("shims")) {
            self.end_stray(&id);
        }
        for parent in [data.join("containers"), run.join("shims"), run.join("shm")] {
            for name in unknown(&parent) {
                tracing::info!(name, "removing leftovers of a container");
                crate::containers::remove_directory(&parent.join(name));
            }
        }
        self.clean_up_cgroups();
        for name in self.store.snapshots().unwrap_or_default() {
            if !known.contains(&name) {
                self.drop_snapshot(&name);
            }
        }
    }

    /// Removes the cgroups of containers that do not run.
    fn clean_up_cgroups(&self) {
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
            self.kill_cgroup(&Path::new("/").join(parent).join(name));
        }
    }

    /// Ends a container that lives without a record.
    fn end_stray(&self, id: &str) {
        let Ok(id) = id.parse::<ContainerId>() else { return };
        let parent = Path::new(self.config.cgroup_parent.trim_start_matches('/'));
        self.kill_cgroup(&Path::new("/").join(parent).join(id.as_str()));
        let pid = fs_err::read_to_string(self.shim_dir(id.as_str()).join("pid"))
            .ok()
            .and_then(|text| rustix::process::Pid::from_raw(text.trim().parse().ok()?));
        let Some(pid) = pid else { return };
        // The id may have been given to somebody else.
        let Ok(pidfd) = rustix::process::pidfd_open(pid, rustix::process::PidfdFlags::empty())
        else {
            return;
        };
        let command = fs_err::read(format!("/proc/{}/cmdline", pid.as_raw_nonzero()));
        let is_shim =
            command.is_ok_and(|line| String::from_utf8_lossy(&line).contains(id.as_str()));
        if is_shim {
            let kill = rustix::process::Signal::KILL;
            if let Err(error) = rustix::process::pidfd_send_signal(pidfd, kill) {
                tracing::warn!(container = %id, %error, "could not end a shim");
            }
        }
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
