//! `/info`, `/version`, `/system/df`, `/auth`.

use std::collections::BTreeMap;

use crate::containers::ContainerSummary;
use crate::images::ImageSummary;
use crate::volumes::Volume;
use crate::{List, empty};

model! {
    /// `GET /info`.
    pub struct Info {
        /// A lasting random id of this engine.
        #[serde(rename = "ID")]
        pub id: String,
        /// All containers.
        pub containers: i64,
        /// Running ones.
        pub containers_running: i64,
        /// Paused ones.
        pub containers_paused: i64,
        /// All others.
        pub containers_stopped: i64,
        /// Images.
        pub images: i64,
        /// Storage driver.
        pub driver: String,
        /// About the storage driver.
        pub driver_status: Vec<[String; 2]>,
        /// Drivers by kind.
        pub plugins: PluginsInfo,
        /// Memory can be limited.
        pub memory_limit: bool,
        /// Swap can be limited.
        pub swap_limit: bool,
        /// CPU periods work.
        pub cpu_cfs_period: bool,
        /// CPU quotas work.
        pub cpu_cfs_quota: bool,
        /// CPU shares work.
        #[serde(rename = "CPUShares")]
        pub cpu_shares: bool,
        /// CPU sets work.
        #[serde(rename = "CPUSet")]
        pub cpu_set: bool,
        /// Process counts can be limited.
        pub pids_limit: bool,
        /// The host forwards packets.
        #[serde(rename = "IPv4Forwarding")]
        pub ipv4_forwarding: bool,
        /// Debug mode.
        pub debug: bool,
        /// Open files of the daemon.
        #[serde(rename = "NFd")]
        pub n_fd: i64,
        /// The OOM killer can be switched off by cgroup.
        pub oom_kill_disable: bool,
        /// Tasks of the daemon.
        #[serde(rename = "NGoroutines")]
        pub n_goroutines: i64,
        /// RFC 3339.
        pub system_time: String,
        /// Default log driver.
        pub logging_driver: String,
        /// `cgroupfs`.
        pub cgroup_driver: String,
        /// `1` or `2`.
        #[serde(skip_serializing_if = "empty")]
        pub cgroup_version: String,
        /// Listeners of events.
        #[serde(rename = "NEventsListener")]
        pub n_events_listener: i64,
        /// `uname -r`.
        pub kernel_version: String,
        /// Name of the distribution.
        pub operating_system: String,
        /// Its version.
        #[serde(rename = "OSVersion")]
        pub os_version: String,
        /// `linux`.
        #[serde(rename = "OSType")]
        pub os_type: String,
        /// `uname -m`.
        pub architecture: String,
        /// Default registry.
        pub index_server_address: String,
        /// Registries.
        pub registry_config: RegistryConfig,
        /// CPUs.
        #[serde(rename = "NCPU")]
        pub n_cpu: i64,
        /// Bytes.
        pub mem_total: i64,
        /// Of swarm.
        pub generic_resources: List<serde_json::Value>,
        /// Data root.
        pub docker_root_dir: String,
        /// Proxy.
        pub http_proxy: String,
        /// Proxy.
        pub https_proxy: String,
        /// Proxy.
        pub no_proxy: String,
        /// Host name.
        pub name: String,
        /// Labels of the engine.
        pub labels: Vec<String>,
        /// Experimental features are on.
        pub experimental_build: bool,
        /// Version of the engine.
        pub server_version: String,
        /// OCI runtimes by name.
        pub runtimes: BTreeMap<String, Runtime>,
        /// The one used by default.
        pub default_runtime: String,
        /// Swarm, always off.
        pub swarm: SwarmInfo,
        /// Containers outlive the daemon.
        pub live_restore_enabled: bool,
        /// Default isolation (Windows).
        pub isolation: String,
        /// The program of `--init`.
        pub init_binary: String,
        /// Commit of containerd.
        pub containerd_commit: Commit,
        /// Commit of the runtime.
        pub runc_commit: Commit,
        /// Commit of init.
        pub init_commit: Commit,
        /// `name=seccomp,profile=builtin`, ...
        pub security_options: Vec<String>,
        /// Licence line.
        #[serde(skip_serializing_if = "empty")]
        pub product_license: String,
        /// Address pools of new networks.
        #[serde(skip_serializing_if = "empty")]
        pub default_address_pools: List<AddressPool>,
        /// Since 1.49.
        #[serde(skip_serializing_if = "empty")]
        pub firewall_backend: Option<FirewallInfo>,
        /// Since 1.46.
        #[serde(rename = "CDISpecDirs")]
        pub cdi_spec_dirs: Vec<String>,
        /// What does not work on this host.
        pub warnings: List<String>,
    }
}

model! {
    /// Drivers by kind.
    pub struct PluginsInfo {
        /// Volume drivers.
        pub volume: Vec<String>,
        /// Network drivers.
        pub network: Vec<String>,
        /// Authorisation plugins.
        pub authorization: List<String>,
        /// Log drivers.
        pub log: Vec<String>,
    }
}

model! {
    /// Registries.
    pub struct RegistryConfig {
        /// Without TLS, by address.
        #[serde(rename = "InsecureRegistryCIDRs")]
        pub insecure_registry_cidrs: Vec<String>,
        /// By host.
        pub index_configs: BTreeMap<String, IndexInfo>,
        /// Mirrors of Docker Hub.
        pub mirrors: List<String>,
    }
}

model! {
    /// One registry.
    pub struct IndexInfo {
        /// Host.
        pub name: String,
        /// Mirrors.
        pub mirrors: Vec<String>,
        /// With TLS.
        pub secure: bool,
        /// Docker Hub.
        pub official: bool,
    }
}

model! {
    /// One OCI runtime.
    pub struct Runtime {
        /// Program.
        #[serde(rename = "path", skip_serializing_if = "empty")]
        pub path: String,
        /// Its arguments.
        #[serde(rename = "runtimeArgs", skip_serializing_if = "empty")]
        pub runtime_args: List<String>,
        /// Facts about it, since 1.44.
        #[serde(rename = "status", skip_serializing_if = "empty")]
        pub status: BTreeMap<String, String>,
    }
}

model! {
    /// Swarm's state.
    pub struct SwarmInfo {
        /// Node.
        #[serde(rename = "NodeID")]
        pub node_id: String,
        /// Address.
        pub node_addr: String,
        /// `inactive`.
        pub local_node_state: String,
        /// Is a manager.
        pub control_available: bool,
        /// Error.
        pub error: String,
        /// Managers.
        pub remote_managers: List<serde_json::Value>,
    }
}

model! {
    /// A component's commit.
    pub struct Commit {
        /// Id.
        #[serde(rename = "ID")]
        pub id: String,
    }
}

model! {
    /// Addresses for new networks.
    pub struct AddressPool {
        /// CIDR.
        pub base: String,
        /// Prefix length of each network.
        pub size: i64,
    }
}

model! {
    /// Firewall.
    pub struct FirewallInfo {
        /// `nftables`.
        pub driver: String,
        /// Facts.
        #[serde(skip_serializing_if = "empty")]
        pub info: List<[String; 2]>,
    }
}

model! {
    /// `GET /version`.
    pub struct Version {
        /// Product.
        pub platform: Platform,
        /// Parts.
        #[serde(skip_serializing_if = "empty")]
        pub components: Vec<Component>,
        /// Engine version.
        pub version: String,
        /// Newest API version.
        pub api_version: String,
        /// Oldest API version.
        #[serde(rename = "MinAPIVersion", skip_serializing_if = "empty")]
        pub min_api_version: String,
        /// Commit.
        #[serde(skip_serializing_if = "empty")]
        pub git_commit: String,
        /// Of dockerd; Silo has none.
        #[serde(skip_serializing_if = "empty")]
        pub go_version: String,
        /// `linux`.
        pub os: String,
        /// `amd64`, ...
        pub arch: String,
        /// `uname -r`.
        #[serde(skip_serializing_if = "empty")]
        pub kernel_version: String,
        /// Experimental features are on.
        #[serde(skip_serializing_if = "empty")]
        pub experimental: bool,
        /// RFC 3339.
        #[serde(skip_serializing_if = "empty")]
        pub build_time: String,
    }
}

model! {
    /// See [`Version`].
    pub struct Platform {
        /// Name.
        pub name: String,
    }
}

model! {
    /// See [`Version`].
    pub struct Component {
        /// Name.
        pub name: String,
        /// Version.
        pub version: String,
        /// Facts.
        #[serde(skip_serializing_if = "empty")]
        pub details: BTreeMap<String, String>,
    }
}

/// Use of the disk by one kind of object.
#[derive(Debug, Clone, PartialEq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct Usage<T> {
    /// Objects in use.
    #[serde(skip_serializing_if = "empty")]
    pub active_count: i64,
    /// The objects.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub items: Vec<T>,
    /// Bytes that pruning would free.
    #[serde(skip_serializing_if = "empty")]
    pub reclaimable: i64,
    /// Objects.
    #[serde(skip_serializing_if = "empty")]
    pub total_count: i64,
    /// Bytes.
    #[serde(skip_serializing_if = "empty")]
    pub total_size: i64,
}

impl<T> Default for Usage<T> {
    fn default() -> Self {
        Self { active_count: 0, items: Vec::new(), reclaimable: 0, total_count: 0, total_size: 0 }
    }
}

model! {
    /// Use of the disk, in the shape of API 1.52; a kind that was not asked for is `None`.
    pub struct DiskUsage {
        /// Images; the total size counts shared layers once.
        #[serde(skip_serializing_if = "empty")]
        pub image_usage: Option<Usage<ImageSummary>>,
        /// Containers.
        #[serde(skip_serializing_if = "empty")]
        pub container_usage: Option<Usage<ContainerSummary>>,
        /// Volumes.
        #[serde(skip_serializing_if = "empty")]
        pub volume_usage: Option<Usage<Volume>>,
        /// Build cache.
        #[serde(skip_serializing_if = "empty")]
        pub build_cache_usage: Option<Usage<serde_json::Value>>,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn usage_leaves_out_zeros() {
        let usage = DiskUsage { image_usage: Some(Usage::default()), ..DiskUsage::default() };
        assert_eq!(serde_json::to_string(&usage).unwrap(), r#"{"ImageUsage":{}}"#);
    }
}
