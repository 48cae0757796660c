//! `GET /containers/json`.

use std::sync::Arc;

use silo_docker::containers::{
    ContainerSummary, HealthSummary, PortSummary, SummaryHostConfig, SummaryNetworkSettings,
};
use silo_docker::query::ContainerListQuery;
use silo_types::Error;

use super::filters::ListFilter;
use super::validate;
use crate::container::{Container, Record, State};
use crate::engine::Engine;
use crate::networks;

impl Engine {
    /// The containers that a query asks for, the newest first.
    pub async fn container_list(
        &self,
        query: ContainerListQuery,
    ) -> Result<Vec<ContainerSummary>, Error> {
        let filter = ListFilter::new(self, query.filters)?;
        let everything = query.all || filter.all || query.limit.is_some_and(|limit| limit > 0);
        let mut containers = self.containers.all();
        containers.sort_by_key(|container| std::cmp::Reverse(container.record().created));
        let mut list = Vec::with_capacity(containers.len());
        for container in &containers {
            if (!everything && !container.is_running()) || !filter.matches(container) {
                continue;
            }
            let mut summary = self.summary(container);
            if query.size {
                let sizes = self.container_sizes(container).await?;
                (summary.size_rw, summary.size_root_fs) = sizes;
            }
            list.push(summary);
            if query.limit.is_some_and(|limit| limit > 0 && list.len() == limit) {
                break;
            }
        }
        Ok(list)
    }

    fn summary(&self, container: &Arc<Container>) -> ContainerSummary {
        let record = container.record();
        let state = container.state().clone();
        let image_id = record.image.map(|image| image.to_string()).unwrap_or_default();
        let image = match record.image {
            Some(id) if !self.image_name_is(&record.config.image, id) => image_id.clone(),
            _ => record.config.image.clone(),
        };
        ContainerSummary {
            id: container.id.to_string(),
            names: vec![format!("/{}", record.name)],
            image,
            image_id,
            command: record.command_line(),
            created: record.created / 1_000_000_000,
            ports: ports(&record, &state),
            labels: record.config.labels.clone(),
            state: state.status().into(),
            status: state.describe(),
            host_config: SummaryHostConfig {
                network_mode: record.host_config.network_mode.clone(),
                annotations: record.host_config.annotations.clone(),
            },
            health: Some(HealthSummary {
                status: state.health.as_ref().map_or("none", |health| &health.status).into(),
                failing_streak: state.health.as_ref().map_or(0, |health| health.failing_streak),
            }),
            network_settings: Some(SummaryNetworkSettings {
                networks: networks::endpoints(&self.networks, &record, &state),
            }),
            mounts: record.mount_points(),
            ..ContainerSummary::default()
        }
    }
}

/// The ports of a container as lists show them: published ones while it runs, exposed ones.
pub(crate) fn ports(record: &Record, state: &State) -> Vec<PortSummary> {
    let Some(network) = state.network.as_ref().filter(|_| state.running) else {
        return Vec::new();
    };
    let mut list = Vec::new();
    for binding in &network.bindings {
        list.push(PortSummary {
            ip: binding.host_ip.to_string(),
            private_port: binding.container_port,
            public_port: binding.host_port,
            protocol: binding.protocol.as_str().into(),
        });
    }
    for port in record.config.exposed_ports.keys() {
        let Some((private_port, protocol)) = validate::parse_port(port) else { continue };
        let published = network.bindings.iter().any(|binding| {
            binding.container_port == private_port && binding.protocol.as_str() == protocol
        });
        if !published {
            list.push(PortSummary { private_port, protocol, ..PortSummary::default() });
        }
    }
    list
}
