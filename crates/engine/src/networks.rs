//! The networks that every engine has (`bridge`, `host`, `none`), and a container's place in them.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use silo_docker::networks::{
    EndpointResource, EndpointSettings, Ipam, IpamConfig, Network, NetworkConnectRequest,
    NetworkCreateRequest, NetworkCreateResponse, NetworkDisconnectRequest, NetworksPruneReport,
    PortBinding,
};
use silo_docker::{Filters, List, Map};
use silo_types::{Error, ErrorKind, NetworkId};

use crate::container::{Record, State};
use crate::db::Db;
use crate::engine::Engine;

/// A container's place in a network while it runs.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Attachment {
    /// The network's name.
    pub network: String,
    /// The network's id.
    pub network_id: String,
    /// The endpoint's id.
    pub endpoint_id: String,
    /// The sandbox's id.
    pub sandbox_id: String,
    /// What only a bridge has.
    pub bridge: Option<BridgeEnd>,
    /// Published ports.
    pub bindings: Vec<silo_net::PortBinding>,
}

/// A container's end of the bridge.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct BridgeEnd {
    /// Address.
    pub ip: Ipv4Addr,
    /// Length of the network's prefix.
    pub prefix: u8,
    /// The bridge's address.
    pub gateway: Ipv4Addr,
    /// Ethernet address.
    pub mac: String,
    /// Interface on the host.
    pub host_interface: String,
}

/// One of the networks that are always there.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Predefined {
    /// Id.
    pub id: String,
    /// Nanoseconds since 1970.
    pub created: i64,
}

/// The networks.
#[derive(Debug)]
pub struct Networks {
    known: BTreeMap<&'static str, Predefined>,
    bridge: Result<Arc<silo_net::Network>, String>,
}

const NAMES: [(&str, &str); 3] = [("bridge", "bridge"), ("host", "host"), ("none", "null")];

/// The network that a container's network mode stands for.
pub fn name_of_mode(mode: &str) -> &str {
    match mode {
        "" | "default" | "bridge" => "bridge",
        other => other,
    }
}

impl Networks {
    /// Reads the ids of the networks, or makes them, and opens the bridge. An engine whose bridge
    /// cannot be made still runs containers on other networks.
    pub fn open(db: &Db, config: silo_net::NetworkConfig) -> Result<Self, Error> {
        let mut known = BTreeMap::new();
        for (name, _) in NAMES {
            let key = format!("network-{name}");
            let stored = db.get(&key)?.and_then(|json| serde_json::from_str(&json).ok());
            let network: Predefined = match stored {
                Some(network) => network,
                None => {
                    let network = Predefined {
                        id: NetworkId::random().to_string(),
                        created: crate::container::now(),
                    };
                    db.set(&key, &serde_json::to_string(&network).unwrap_or_default())?;
                    network
                }
            };
            known.insert(name, network);
        }
        let bridge = silo_net::Network::open(config).map(Arc::new).map_err(|error| {
            let chain = silo_types::error::chain(&error);
            tracing::warn!(error = %chain, "no bridge network");
            chain
        });
        Ok(Self { known, bridge })
    }

    /// The bridge.
    pub fn bridge(&self) -> Result<&Arc<silo_net::Network>, Error> {
        self.bridge.as_ref().map_err(|cause| {
            Error::internal(format!("failed to set up container networking: {cause}"))
        })
    }

    /// The id of a network that is always there.
    pub fn id(&self, name: &str) -> Option<&str> {
        self.known.get(name).map(|network| network.id.as_str())
    }

    /// Finds one of the networks by name, id, or beginning of the id.
    pub fn find(&self, text: &str) -> Option<&'static str> {
        if let Some((name, _)) = NAMES.iter().find(|(name, _)| *name == text) {
            return Some(name);
        }
        let mut matches = self
            .known
            .iter()
            .filter(|(_, network)| !text.is_empty() && network.id.starts_with(text));
        match (matches.next(), matches.next()) {
            (Some((name, _)), None) => Some(name),
            _ => None,
        }
    }
}

/// A container's ends as the API shows them, whether it runs or not.
pub fn endpoints(networks: &Networks, record: &Record, state: &State) -> Map<EndpointSettings> {
    let mode = name_of_mode(&record.host_config.network_mode);
    if mode.starts_with("container:") || record.config.network_disabled {
        return Map::new();
    }
    let asked = record
        .networking
        .as_ref()
        .and_then(|networking| networking.endpoints_config.get(mode))
        .and_then(Option::as_ref);
    let mut end = EndpointSettings {
        ipam_config: asked.and_then(|asked| asked.ipam_config.clone()),
        links: asked.map_or_else(List::null, |asked| asked.links.clone()),
        aliases: asked.map_or_else(List::null, |asked| asked.aliases.clone()),
        driver_opts: asked.map_or_else(Map::null, |asked| asked.driver_opts.clone()),
        ..EndpointSettings::default()
    };
    if let Some(attachment) = &state.network {
        end.network_id.clone_from(&attachment.network_id);
        end.endpoint_id.clone_from(&attachment.endpoint_id);
        if let Some(bridge) = &attachment.bridge {
            end.gateway = bridge.gateway.to_string();
            end.ip_address = bridge.ip.to_string();
            end.ip_prefix_len = i64::from(bridge.prefix);
            end.mac_address.clone_from(&bridge.mac);
        }
    } else if state.started_at != 0 {
        networks.id(mode).unwrap_or_default().clone_into(&mut end.network_id);
    }
    Map::from_iter([(mode.to_owned(), end)])
}

/// Published and exposed ports as inspect shows them.
pub fn port_map(record: &Record, state: &State) -> Map<List<PortBinding>> {
    let Some(attachment) = &state.network else { return Map::new() };
    let mut map: BTreeMap<String, List<PortBinding>> = BTreeMap::new();
    if attachment.bridge.is_some() {
        for port in
            record.config.exposed_ports.keys().chain(record.host_config.port_bindings.keys())
        {
            if let Some((number, protocol)) = crate::containers::validate::parse_port(port) {
                map.insert(format!("{number}/{protocol}"), List::null());
            }
        }
    }
    for binding in &attachment.bindings {
        let key = format!("{}/{}", binding.container_port, binding.protocol);
        map.entry(key).or_default().make().push(PortBinding {
            host_ip: binding.host_ip.to_string(),
            host_port: binding.host_port.to_string(),
        });
    }
    map.into()
}

impl Engine {
    /// Announces that a container joined its network or left it.
    pub(crate) fn network_event(&self, action: &str, attachment: &Attachment, container: &str) {
        let driver = NAMES.iter().find(|(name, _)| *name == attachment.network);
        let attributes = BTreeMap::from([
            ("container".to_owned(), container.to_owned()),
            ("name".to_owned(), attachment.network.clone()),
            ("type".to_owned(), driver.map_or("", |(_, driver)| driver).to_owned()),
        ]);
        self.events.publish("network", action, &attachment.network_id, attributes);
    }

    fn network(&self, name: &str, with_containers: bool) -> Network {
        let driver = NAMES.iter().find(|(known, _)| *known == name).map_or("", |(_, d)| d);
        let (id, created) = self
            .networks
            .known
            .get(name)
            .map_or((String::new(), 0), |network| (network.id.clone(), network.created));
        let mut network = Network {
            name: name.into(),
            id,
            created: crate::container::api_time(created),
            scope: "local".into(),
            driver: driver.into(),
            enable_ipv4: true,
            ipam: Ipam { driver: "default".into(), options: Map::null(), config: List::null() },
            containers: Map::new(),
            options: Map::new(),
            labels: Map::new(),
            ..Network::default()
        };
        if name == "bridge"
            && let Ok(bridge) = self.networks.bridge()
        {
            let config = bridge.config();
            network.ipam.config = vec![IpamConfig {
                subnet: bridge.subnet().to_string(),
                gateway: bridge.gateway().to_string(),
                ..IpamConfig::default()
            }]
            .into();
            for (option, value) in [
                ("default_bridge", "true".to_owned()),
                ("enable_icc", config.icc.to_string()),
                ("enable_ip_masquerade", config.ip_masq.to_string()),
                ("host_binding_ipv4", "0.0.0.0".to_owned()),
                ("name", config.bridge.clone()),
            ] {
                let key = format!("com.docker.network.bridge.{option}");
                network.options.make().insert(key, value);
            }
            let mtu = config.mtu.to_string();
            network.options.make().insert("com.docker.network.driver.mtu".into(), mtu);
        }
        if with_containers {
            for container in self.containers.all() {
                let state = container.state();
                let Some(end) = state.network.as_ref().filter(|end| end.network == name) else {
                    continue;
                };
                let bridge = end.bridge.as_ref();
                let resource = EndpointResource {
                    name: container.name(),
                    endpoint_id: end.endpoint_id.clone(),
                    mac_address: bridge.map(|b| b.mac.clone()).unwrap_or_default(),
                    ipv4_address: bridge
                        .map(|b| format!("{}/{}", b.ip, b.prefix))
                        .unwrap_or_default(),
                    ipv6_address: String::new(),
                };
                network.containers.make().insert(container.id.to_string(), resource);
            }
        }
        network
    }

    /// What `host-gateway` stands for: the host as containers of the bridge reach it.
    pub fn host_gateway(&self) -> Option<Ipv4Addr> {
        self.networks.bridge().ok().map(|bridge| bridge.gateway())
    }

    /// `GET /networks`.
    pub fn network_list(&self, filters: &Filters) -> Result<Vec<Network>, Error> {
        filters.validate(&["dangling", "driver", "id", "label", "name", "scope", "type"])?;
        let dangling = filters.boolean("dangling", false)?;
        for kind in filters.get("type") {
            if !matches!(kind, "builtin" | "custom") {
                return Err(Error::invalid(format!("invalid filter: 'type'='{kind}'")));
            }
        }
        let list = NAMES.iter().map(|(name, _)| self.network(name, false)).filter(|network| {
            (!filters.contains("dangling") || !dangling)
                && filters.exact("driver", &network.driver)
                && filters.prefix("id", &network.id)
                && filters.pattern("name", &network.name)
                && filters.exact("scope", &network.scope)
                && filters.labels("label", |_| None)
                && filters.exact("type", "builtin")
        });
        Ok(list.collect())
    }

    /// `GET /networks/{id}`.
    pub fn network_inspect(&self, text: &str, scope: &str) -> Result<Network, Error> {
        match self.networks.find(text).filter(|_| scope.is_empty() || scope == "local") {
            Some(name) => Ok(self.network(name, true)),
            None => Err(no_network(text)),
        }
    }

    /// `POST /networks/create`: only the networks that are always there exist so far.
    pub fn network_create(
        &self,
        request: &NetworkCreateRequest,
    ) -> Result<NetworkCreateResponse, Error> {
        if request.name.is_empty() {
            return Err(Error::invalid("invalid network name: name is empty"));
        }
        if NAMES.iter().any(|(name, _)| *name == request.name) || request.name == "default" {
            return Err(Error::new(
                ErrorKind::Forbidden,
                format!("operation is not permitted on predefined {} network ", request.name),
            ));
        }
        Err(Error::new(
            ErrorKind::NotImplemented,
            "user-defined networks are not available in this version of Silo",
        ))
    }

    /// `DELETE /networks/{id}`.
    pub fn network_remove(&self, text: &str) -> Result<(), Error> {
        match self.networks.find(text) {
            Some(name) => Err(Error::new(
                ErrorKind::Forbidden,
                format!("{name} is a pre-defined network and cannot be removed"),
            )),
            None => Err(no_network(text)),
        }
    }

    /// `POST /networks/{id}/connect`.
    pub fn network_connect(
        &self,
        text: &str,
        request: &NetworkConnectRequest,
    ) -> Result<(), Error> {
        let name = self.networks.find(text).ok_or_else(|| no_network(text))?;
        let container = self.container(&request.container)?;
        let mode = container.record().host_config.network_mode.clone();
        if mode == "host" || name == "host" {
            return Err(Error::new(
                ErrorKind::Forbidden,
                "container cannot be disconnected from host network or connected to host network",
            ));
        }
        if name_of_mode(&mode) == name {
            return Err(Error::new(
                ErrorKind::Forbidden,
                format!("endpoint with name {} already exists in network {name}", container.name()),
            ));
        }
        Err(Error::new(
            ErrorKind::NotImplemented,
            "connecting a container to a further network is not available in this version of Silo",
        ))
    }

    /// `POST /networks/{id}/disconnect`.
    pub fn network_disconnect(
        &self,
        text: &str,
        request: &NetworkDisconnectRequest,
    ) -> Result<(), Error> {
        let name = self.networks.find(text).ok_or_else(|| no_network(text))?;
        let container = self.container(&request.container)?;
        if name_of_mode(&container.record().host_config.network_mode) != name {
            return Err(Error::new(
                ErrorKind::Forbidden,
                format!("container {} is not connected to the network {name}", container.id),
            ));
        }
        Err(Error::new(
            ErrorKind::NotImplemented,
            "disconnecting a container from its network is not available in this version of Silo",
        ))
    }

    /// `POST /networks/prune`: there is never one to remove.
    pub fn network_prune(&self, filters: &Filters) -> Result<NetworksPruneReport, Error> {
        filters.validate(&["label", "label!", "until"])?;
        Ok(NetworksPruneReport::default())
    }
}

fn no_network(text: &str) -> Error {
    // docker wording
    Error::not_found(format!("network {text} not found"))
}
