//! `docker update` and `docker rename`.

use std::sync::Arc;

use silo_docker::containers::{UpdateRequest, UpdateResponse};
use silo_docker::host_config::{HostConfig, Resources};
use silo_types::{Error, ErrorKind};

use super::validate;
use crate::container::Record;
use crate::engine::Engine;
use crate::spec::resources;

impl Engine {
    /// Changes limits and restart policy of a container, at once if it runs.
    pub async fn container_update(
        self: &Arc<Self>,
        name: &str,
        request: UpdateRequest,
    ) -> Result<UpdateResponse, Error> {
        let mut wanted = HostConfig {
            resources: request.resources,
            restart_policy: request.restart_policy,
            ..HostConfig::default()
        };
        let mut warnings = validate::host_config(&mut wanted, &self.host, true)?;
        // What is no part of the request cannot be warned about.
        warnings.retain(|warning| !warning.contains("IPv4 forwarding"));
        let container = self.container(name)?;
        // docker wording
        let failed = |error: Error| {
            Error::new(
                error.kind(),
                format!("Cannot update container {}: {}", container.id, error.message()),
            )
        };
        let live = container.live.lock().await;
        {
            let state = container.state();
            if state.removing || state.dead {
                return Err(failed(Error::conflict(
                    "container is marked for removal and cannot be \"update\"",
                )));
            }
        }
        let before = container.record();
        let mut record = Record::clone(&before);
        merge(&mut record.host_config, &wanted).map_err(failed)?;
        let running = {
            let state = container.state();
            state.running && !state.restarting
        };
        if running {
            let limits = resources::limits(&wanted.resources).map_err(failed)?;
            let group = self.running_group(&container)?;
            group
                .apply(&limits)
                .map_err(|error| failed(Error::internal(silo_types::error::chain(&error))))?;
        }
        let json = serde_json::to_string(&record)
            .map_err(|error| Error::internal(format!("write record: {error}")))?;
        self.db.container_set_config(container.id.as_str(), &json)?;
        container.set_record(record);
        drop(live);
        self.container_event(&container, "update", &[]);
        Ok(UpdateResponse { warnings: warnings.into() })
    }

    /// Gives a container another name.
    pub async fn container_rename(self: &Arc<Self>, old: &str, new: &str) -> Result<(), Error> {
        // docker wording, throughout
        let (old, new) = (old.trim(), new.trim());
        if old.trim_start_matches('/').is_empty() || new.trim_start_matches('/').is_empty() {
            return Err(Error::invalid("Neither old nor new names may be empty"));
        }
        let container = self.container(old)?;
        let _live = container.live.lock().await;
        let before = container.name();
        if new.strip_prefix('/').unwrap_or(new) == before {
            return Err(Error::invalid(
                "Renaming a container with the same name as its current name",
            ));
        }
        let failed = |error: Error| {
            Error::new(error.kind(), format!("Error when allocating new name: {}", error.message()))
        };
        let new = validate::name(new).map_err(failed)?;
        self.containers.reserve(new, &container.id).map_err(failed)?;
        if let Err(error) = self.db.container_rename(container.id.as_str(), new) {
            self.containers.release(new);
            return Err(error.into());
        }
        let mut record = Record::clone(&container.record());
        new.clone_into(&mut record.name);
        container.set_record(record);
        self.containers.release(&before);
        self.container_event(&container, "rename", &[("oldName", &format!("/{before}"))]);
        Ok(())
    }
}

/// Puts what was asked for over what is; zero and nothing leave a value as it is.
fn merge(current: &mut HostConfig, wanted: &HostConfig) -> Result<(), Error> {
    let conflict = |message: &str| Err(Error::new(ErrorKind::Conflict, message));
    let (ours, asked): (&mut Resources, &Resources) = (&mut current.resources, &wanted.resources);
    // docker wording, throughout
    if asked.nano_cpus > 0 && (ours.cpu_period > 0 || ours.cpu_quota > 0) {
        let what = if ours.cpu_period > 0 { "CPU Period" } else { "CPU Quota" };
        return conflict(&format!(
            "Conflicting options: Nano CPUs cannot be updated as {what} has already been set"
        ));
    }
    if ours.nano_cpus > 0 && (asked.cpu_period > 0 || asked.cpu_quota > 0) {
        let what = if asked.cpu_period > 0 { "CPU Period" } else { "CPU Quota" };
        return conflict(&format!(
            "Conflicting options: {what} cannot be updated as NanoCPUs has already been set"
        ));
    }
    if asked.memory != 0 && asked.memory_swap == 0 && ours.memory_swap > 0 {
        // The limit of both must follow, or be named.
        if asked.memory > ours.memory_swap {
            return conflict(
                "Memory limit should be smaller than already set memoryswap limit, update the memoryswap at the same time",
            );
        }
    }
    for (ours, asked) in [
        (&mut ours.cpu_shares, asked.cpu_shares),
        (&mut ours.nano_cpus, asked.nano_cpus),
        (&mut ours.cpu_period, asked.cpu_period),
        (&mut ours.cpu_quota, asked.cpu_quota),
        (&mut ours.cpu_realtime_period, asked.cpu_realtime_period),
        (&mut ours.cpu_realtime_runtime, asked.cpu_realtime_runtime),
        (&mut ours.memory, asked.memory),
        (&mut ours.memory_swap, asked.memory_swap),
        (&mut ours.memory_reservation, asked.memory_reservation),
        (&mut ours.kernel_memory, asked.kernel_memory),
    ] {
        if asked != 0 {
            *ours = asked;
        }
    }
    if asked.blkio_weight != 0 {
        ours.blkio_weight = asked.blkio_weight;
    }
    for (ours, asked) in
        [(&mut ours.cpuset_cpus, &asked.cpuset_cpus), (&mut ours.cpuset_mems, &asked.cpuset_mems)]
    {
        if !asked.is_empty() {
            ours.clone_from(asked);
        }
    }
    if asked.pids_limit.is_some() {
        ours.pids_limit = asked.pids_limit;
    }
    if !wanted.restart_policy.name.is_empty() {
        if current.auto_remove && wanted.restart_policy.name != "no" {
            return conflict(
                "Restart policy cannot be updated because AutoRemove is enabled for the container",
            );
        }
        current.restart_policy = wanted.restart_policy.clone();
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(change: impl FnOnce(&mut HostConfig)) -> HostConfig {
        let mut config = HostConfig::default();
        change(&mut config);
        config
    }

    #[test]
    fn zero_leaves_values() {
        let mut current = config(|c| {
            c.resources.memory = 64 << 20;
            c.resources.cpu_shares = 5;
            c.restart_policy.name = "always".into();
        });
        let wanted = config(|c| {
            c.resources.cpu_shares = 7;
            c.resources.pids_limit = Some(9);
        });
        merge(&mut current, &wanted).unwrap();
        assert_eq!(current.resources.memory, 64 << 20);
        assert_eq!(current.resources.cpu_shares, 7);
        assert_eq!(current.resources.pids_limit, Some(9));
        assert_eq!(current.restart_policy.name, "always");
    }

    #[test]
    fn contradictions_are_refused() {
        type Change = fn(&mut HostConfig);
        let cases: [(Change, Change); 3] = [
            (|c| c.resources.cpu_quota = 5000, |c| c.resources.nano_cpus = 1),
            (|c| c.resources.memory_swap = 100, |c| c.resources.memory = 200),
            (|c| c.auto_remove = true, |c| c.restart_policy.name = "always".into()),
        ];
        for (current, wanted) in cases {
            assert!(merge(&mut config(current), &config(wanted)).is_err());
        }
    }
}
