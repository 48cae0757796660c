//! `GET /containers/{id}/json`.

use std::collections::BTreeMap;
use std::sync::{Arc, PoisonError};

use silo_docker::List;
use silo_docker::containers::{ContainerInspect, NetworkSettings};
use silo_docker::host_config::HostConfig;
use silo_docker::images::GraphDriver;
use silo_types::Error;

use super::sandbox::file_path;
use crate::container::{Container, Record, State, api_time};
use crate::engine::Engine;
use crate::networks;

/// The name of Silo's storage, which is the kernel's overlay file system.
const STORAGE_DRIVER: &str = "overlay2";

impl Engine {
    /// Everything about a container.
    pub async fn container_inspect(
        &self,
        name: &str,
        size: bool,
    ) -> Result<ContainerInspect, Error> {
        let container = self.container(name)?;
        let record = container.record();
        let state = container.state().clone();
        let mut command = record.command().into_iter();
        let path = command.next().unwrap_or_default();
        let once_started = |name: &str| {
            let started = state.started_at != 0 || state.running;
            if started { file_path(&container, name).display().to_string() } else { String::new() }
        };
        let exec_ids = {
            let execs = container.execs.lock().unwrap_or_else(PoisonError::into_inner);
            if execs.is_empty() { List::null() } else { List::from(execs.clone()) }
        };
        let (size_rw, size_root_fs) = if size {
            let (own, all) = self.container_sizes(&container).await?;
            (Some(own), Some(all))
        } else {
            (None, None)
        };
        let log_path = super::start::log_config(&container, &record)
            .ok()
            .and_then(|log| log.path)
            .filter(|_| {
                record.host_config.log_config.driver == "json-file" && state.started_at != 0
            })
            .map(|path| path.display().to_string())
            .unwrap_or_default();
        Ok(ContainerInspect {
            id: container.id.to_string(),
            created: api_time(record.created),
            path,
            args: command.collect(),
            state: state.to_api(),
            image: record.image.map(|image| image.to_string()).unwrap_or_default(),
            resolv_conf_path: once_started("resolv.conf"),
            hostname_path: once_started("hostname"),
            hosts_path: once_started("hosts"),
            log_path,
            name: format!("/{}", record.name),
            restart_count: i64::try_from(state.restart_count).unwrap_or(i64::MAX),
            driver: STORAGE_DRIVER.into(),
            platform: record.os.clone(),
            mount_label: String::new(),
            process_label: String::new(),
            app_armor_profile: record.security().apparmor.unwrap_or_default(),
            exec_ids,
            host_config: HostConfig {
                links: super::links::shown(&record),
                ..record.host_config.clone()
            },
            graph_driver: Some(self.graph_driver(&container)),
            size_rw,
            size_root_fs,
            mounts: record.mount_points(),
            config: record.config.clone(),
            network_settings: self.network_settings(&record, &state),
        })
    }

    fn graph_driver(&self, container: &Arc<Container>) -> GraphDriver {
        let mut data = BTreeMap::new();
        if let Ok(snapshot) = self.snapshot(container) {
            let lowers: Vec<String> =
                snapshot.lowers.iter().map(|lower| lower.display().to_string()).collect();
            data.insert("LowerDir".to_owned(), lowers.join(":"));
            data.insert("UpperDir".to_owned(), snapshot.upper.display().to_string());
            data.insert("WorkDir".to_owned(), snapshot.work.display().to_string());
        }
        GraphDriver { name: STORAGE_DRIVER.into(), data }
    }

    fn network_settings(&self, record: &Record, state: &State) -> NetworkSettings {
        let networks = networks::endpoints(&self.networks, record, state);
        let mut settings = NetworkSettings {
            ports: networks::port_map(record, state),
            ..NetworkSettings::default()
        };
        if let Some(attachment) = &state.network {
            settings.sandbox_id.clone_from(&attachment.sandbox_id);
            settings.sandbox_key = match attachment.network.as_str() {
                "host" => "/var/run/docker/netns/default".into(),
                _ => format!("/proc/{}/ns/net", state.pid),
            };
        }
        if let Some(end) = networks.get("bridge") {
            settings.endpoint_id.clone_from(&end.endpoint_id);
            settings.gateway.clone_from(&end.gateway);
            settings.ip_address.clone_from(&end.ip_address);
            settings.ip_prefix_len = end.ip_prefix_len;
            settings.mac_address.clone_from(&end.mac_address);
        }
        settings.networks = networks;
        settings
    }
}
