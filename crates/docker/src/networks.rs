//! `/networks`, and a container's side of them.

use crate::{List, Map, empty};

model! {
    /// A host address and port.
    pub struct PortBinding {
        /// Empty is every address.
        pub host_ip: String,
        /// A port, a range, or empty for a free one.
        pub host_port: String,
    }
}

model! {
    /// Networks of a new container.
    pub struct NetworkingConfig {
        /// By network name or id.
        pub endpoints_config: Map<Option<EndpointSettings>>,
    }
}

model! {
    /// A container's end of a network.
    pub struct EndpointSettings {
        /// Wanted addresses.
        #[serde(rename = "IPAMConfig")]
        pub ipam_config: Option<EndpointIpamConfig>,
        /// Links.
        pub links: List<String>,
        /// More names in this network.
        pub aliases: List<String>,
        /// Options.
        pub driver_opts: Map<String>,
        /// The highest gives the default gateway; since 1.48.
        pub gw_priority: i64,
        /// Network id.
        #[serde(rename = "NetworkID")]
        pub network_id: String,
        /// Endpoint id.
        #[serde(rename = "EndpointID")]
        pub endpoint_id: String,
        /// Gateway.
        pub gateway: String,
        /// Address.
        #[serde(rename = "IPAddress")]
        pub ip_address: String,
        /// Hardware address.
        pub mac_address: String,
        /// Prefix length.
        #[serde(rename = "IPPrefixLen")]
        pub ip_prefix_len: i64,
        /// IPv6 gateway.
        #[serde(rename = "IPv6Gateway")]
        pub ipv6_gateway: String,
        /// IPv6 address.
        #[serde(rename = "GlobalIPv6Address")]
        pub global_ipv6_address: String,
        /// Its prefix length.
        #[serde(rename = "GlobalIPv6PrefixLen")]
        pub global_ipv6_prefix_len: i64,
        /// All names by which others find it; since 1.44.
        #[serde(rename = "DNSNames")]
        pub dns_names: List<String>,
    }
}

model! {
    /// Wanted addresses of an endpoint.
    pub struct EndpointIpamConfig {
        /// IPv4.
        #[serde(rename = "IPv4Address", skip_serializing_if = "empty")]
        pub ipv4_address: String,
        /// IPv6.
        #[serde(rename = "IPv6Address", skip_serializing_if = "empty")]
        pub ipv6_address: String,
        /// Link-local.
        #[serde(rename = "LinkLocalIPs", skip_serializing_if = "empty")]
        pub link_local_ips: List<String>,
    }
}

model! {
    /// `GET /networks/{id}`; lists leave out `containers` since 1.28.
    pub struct Network {
        /// Name.
        pub name: String,
        /// Id.
        pub id: String,
        /// RFC 3339.
        pub created: String,
        /// `local`.
        pub scope: String,
        /// `bridge`, `host` or `null`.
        pub driver: String,
        /// Since 1.48.
        #[serde(rename = "EnableIPv4")]
        pub enable_ipv4: bool,
        /// Has IPv6.
        #[serde(rename = "EnableIPv6")]
        pub enable_ipv6: bool,
        /// Address management.
        #[serde(rename = "IPAM")]
        pub ipam: Ipam,
        /// No way out.
        pub internal: bool,
        /// Of swarm.
        pub attachable: bool,
        /// Of swarm.
        pub ingress: bool,
        /// Of configuration-only networks.
        pub config_from: ConfigReference,
        /// Only a template.
        pub config_only: bool,
        /// Joined containers by id.
        pub containers: Map<EndpointResource>,
        /// Driver options.
        pub options: Map<String>,
        /// Labels.
        pub labels: Map<String>,
    }
}

model! {
    /// Names the network whose configuration is used.
    pub struct ConfigReference {
        /// Name.
        pub network: String,
    }
}

model! {
    /// Address management of a network.
    pub struct Ipam {
        /// `default`.
        pub driver: String,
        /// Options.
        pub options: Map<String>,
        /// Subnets.
        pub config: List<IpamConfig>,
    }
}

model! {
    /// One subnet.
    pub struct IpamConfig {
        /// CIDR.
        #[serde(skip_serializing_if = "empty")]
        pub subnet: String,
        /// CIDR inside the subnet.
        #[serde(rename = "IPRange", skip_serializing_if = "empty")]
        pub ip_range: String,
        /// Gateway.
        #[serde(skip_serializing_if = "empty")]
        pub gateway: String,
        /// Reserved addresses by name.
        #[serde(rename = "AuxiliaryAddresses", skip_serializing_if = "empty")]
        pub auxiliary_addresses: Map<String>,
    }
}

model! {
    /// A container in a network's list.
    pub struct EndpointResource {
        /// Container name.
        pub name: String,
        /// Endpoint id.
        #[serde(rename = "EndpointID")]
        pub endpoint_id: String,
        /// Hardware address.
        pub mac_address: String,
        /// CIDR.
        #[serde(rename = "IPv4Address")]
        pub ipv4_address: String,
        /// CIDR.
        #[serde(rename = "IPv6Address")]
        pub ipv6_address: String,
    }
}

model! {
    /// `POST /networks/create`.
    pub struct NetworkCreateRequest {
        /// Name.
        pub name: String,
        /// Refuse a name that exists; always so since 1.44.
        #[serde(skip_serializing_if = "empty")]
        pub check_duplicate: bool,
        /// `bridge` by default.
        pub driver: String,
        /// `local`.
        pub scope: String,
        /// IPv4.
        #[serde(rename = "EnableIPv4", skip_serializing_if = "empty")]
        pub enable_ipv4: Option<bool>,
        /// IPv6.
        #[serde(rename = "EnableIPv6", skip_serializing_if = "empty")]
        pub enable_ipv6: Option<bool>,
        /// Address management.
        #[serde(rename = "IPAM")]
        pub ipam: Option<Ipam>,
        /// No way out.
        pub internal: bool,
        /// Of swarm.
        pub attachable: bool,
        /// Of swarm.
        pub ingress: bool,
        /// Only a template.
        pub config_only: bool,
        /// Template to use.
        pub config_from: Option<ConfigReference>,
        /// Driver options.
        pub options: Map<String>,
        /// Labels.
        pub labels: Map<String>,
    }
}

model! {
    /// Answer of `POST /networks/create`.
    pub struct NetworkCreateResponse {
        /// Id.
        pub id: String,
        /// For people.
        pub warning: String,
    }
}

model! {
    /// `POST /networks/{id}/connect`.
    pub struct NetworkConnectRequest {
        /// Container.
        pub container: String,
        /// Its end.
        #[serde(skip_serializing_if = "empty")]
        pub endpoint_config: Option<EndpointSettings>,
    }
}

model! {
    /// `POST /networks/{id}/disconnect`.
    pub struct NetworkDisconnectRequest {
        /// Container.
        pub container: String,
        /// Even when it does not run.
        pub force: bool,
    }
}

model! {
    /// Answer of `POST /networks/prune`.
    pub struct NetworksPruneReport {
        /// Names.
        pub networks_deleted: List<String>,
    }
}
