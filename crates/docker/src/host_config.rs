//! `HostConfig`: what a container gets of this host.

use crate::mounts::Mount;
use crate::networks::PortBinding;
use crate::{List, Map, empty};

model! {
    /// The host's part of a container's configuration.
    pub struct HostConfig {
        flatten
        /// Limits and devices.
        pub resources: Resources,
        /// `source:target[:options]`.
        pub binds: List<String>,
        /// Where the client wrote the id.
        #[serde(rename = "ContainerIDFile")]
        pub container_id_file: String,
        /// Log driver.
        pub log_config: LogConfig,
        /// `default`, `bridge`, `host`, `none`, `container:id` or a network.
        pub network_mode: String,
        /// `port/protocol` to host addresses.
        pub port_bindings: Map<List<PortBinding>>,
        /// When to start it again.
        pub restart_policy: RestartPolicy,
        /// Remove it when it exits.
        pub auto_remove: bool,
        /// Volume driver of `binds` by name.
        pub volume_driver: String,
        /// `container[:ro|rw]`.
        pub volumes_from: List<String>,
        /// Height and width of the terminal at start.
        pub console_size: [u32; 2],
        /// OCI annotations.
        #[serde(skip_serializing_if = "empty")]
        pub annotations: Map<String>,
        /// Capabilities beyond the default.
        pub cap_add: List<String>,
        /// Capabilities to take away.
        pub cap_drop: List<String>,
        /// `private` or `host`.
        pub cgroupns_mode: String,
        /// Name servers.
        pub dns: List<String>,
        /// resolv.conf options.
        pub dns_options: List<String>,
        /// resolv.conf search domains.
        pub dns_search: List<String>,
        /// `name:address` for /etc/hosts.
        pub extra_hosts: List<String>,
        /// Supplementary groups.
        pub group_add: List<String>,
        /// `none`, `private`, `shareable`, `host` or `container:id`.
        pub ipc_mode: String,
        /// Unused.
        pub cgroup: String,
        /// `container:alias`.
        pub links: List<String>,
        /// -1000 to 1000.
        pub oom_score_adj: i64,
        /// Empty, `host` or `container:id`.
        pub pid_mode: String,
        /// Everything allowed.
        pub privileged: bool,
        /// Publish each exposed port at a free one.
        pub publish_all_ports: bool,
        /// The root file system is read-only.
        pub readonly_rootfs: bool,
        /// `seccomp=...`, `apparmor=...`, `no-new-privileges`, `label=...`, `systempaths=...`.
        pub security_opt: List<String>,
        /// `size=...`.
        #[serde(skip_serializing_if = "empty")]
        pub storage_opt: Map<String>,
        /// Path to tmpfs options.
        #[serde(skip_serializing_if = "empty")]
        pub tmpfs: Map<String>,
        /// Empty or `host`.
        #[serde(rename = "UTSMode")]
        pub uts_mode: String,
        /// Empty or `host`.
        pub userns_mode: String,
        /// Bytes of /dev/shm.
        pub shm_size: i64,
        /// Namespaced kernel parameters.
        #[serde(skip_serializing_if = "empty")]
        pub sysctls: Map<String>,
        /// Name of the OCI runtime.
        #[serde(skip_serializing_if = "empty")]
        pub runtime: String,
        /// Empty, `default`, `process` or `hyperv`.
        pub isolation: String,
        /// Mounts in the long form.
        #[serde(skip_serializing_if = "empty")]
        pub mounts: List<Mount>,
        /// Paths that are hidden; `null` takes the default set.
        pub masked_paths: List<String>,
        /// Paths that are read-only; `null` takes the default set.
        pub readonly_paths: List<String>,
        /// Run a small init as process 1.
        #[serde(skip_serializing_if = "empty")]
        pub init: Option<bool>,
    }
}

model! {
    /// Limits and devices of a container.
    pub struct Resources {
        /// Relative weight, 1024 by default.
        pub cpu_shares: i64,
        /// Bytes.
        pub memory: i64,
        /// Billionths of a CPU.
        pub nano_cpus: i64,
        /// Parent cgroup.
        pub cgroup_parent: String,
        /// 10 to 1000.
        pub blkio_weight: u16,
        /// Weights by device.
        pub blkio_weight_device: List<WeightDevice>,
        /// Read bytes a second by device.
        pub blkio_device_read_bps: List<ThrottleDevice>,
        /// Written bytes a second by device.
        pub blkio_device_write_bps: List<ThrottleDevice>,
        /// Reads a second by device.
        #[serde(rename = "BlkioDeviceReadIOps")]
        pub blkio_device_read_iops: List<ThrottleDevice>,
        /// Writes a second by device.
        #[serde(rename = "BlkioDeviceWriteIOps")]
        pub blkio_device_write_iops: List<ThrottleDevice>,
        /// Microseconds.
        pub cpu_period: i64,
        /// Microseconds of each period.
        pub cpu_quota: i64,
        /// Microseconds.
        pub cpu_realtime_period: i64,
        /// Microseconds of each realtime period.
        pub cpu_realtime_runtime: i64,
        /// `0-3,5`.
        pub cpuset_cpus: String,
        /// `0-1`.
        pub cpuset_mems: String,
        /// Devices by path.
        pub devices: List<DeviceMapping>,
        /// `c 42:* rmw`.
        pub device_cgroup_rules: List<String>,
        /// Devices by driver, such as GPUs.
        pub device_requests: List<DeviceRequest>,
        /// Ignored since 1.42.
        pub kernel_memory: i64,
        /// Ignored since 1.52.
        #[serde(rename = "KernelMemoryTCP")]
        pub kernel_memory_tcp: i64,
        /// Bytes, a soft limit.
        pub memory_reservation: i64,
        /// Bytes of memory and swap together, -1 for unlimited swap.
        pub memory_swap: i64,
        /// 0 to 100.
        pub memory_swappiness: Option<i64>,
        /// Stall instead of kill.
        pub oom_kill_disable: Option<bool>,
        /// 0 and -1 are unlimited.
        pub pids_limit: Option<i64>,
        /// Resource limits of the process.
        pub ulimits: List<Ulimit>,
        /// Windows only.
        pub cpu_count: i64,
        /// Windows only.
        pub cpu_percent: i64,
        /// Windows only.
        #[serde(rename = "IOMaximumIOps")]
        pub io_maximum_iops: u64,
        /// Windows only.
        #[serde(rename = "IOMaximumBandwidth")]
        pub io_maximum_bandwidth: u64,
    }
}

model! {
    /// Log driver and its options.
    pub struct LogConfig {
        /// `json-file`, `local`, `none`; empty takes the daemon's.
        #[serde(rename = "Type")]
        pub driver: String,
        /// Options.
        pub config: Map<String>,
    }
}

model! {
    /// When a container is started again.
    pub struct RestartPolicy {
        /// Empty or `no`, `always`, `on-failure`, `unless-stopped`.
        pub name: String,
        /// Of `on-failure`; zero is without end.
        pub maximum_retry_count: i64,
    }
}

model! {
    /// One device by path.
    pub struct DeviceMapping {
        /// Path on the host.
        pub path_on_host: String,
        /// Path in the container.
        pub path_in_container: String,
        /// Some of `rwm`.
        pub cgroup_permissions: String,
    }
}

model! {
    /// Devices by driver.
    pub struct DeviceRequest {
        /// Driver.
        pub driver: String,
        /// How many, -1 for all.
        pub count: i64,
        /// Which.
        #[serde(rename = "DeviceIDs")]
        pub device_ids: List<String>,
        /// An OR list of AND lists.
        pub capabilities: List<Vec<String>>,
        /// For the driver.
        pub options: Map<String>,
    }
}

model! {
    /// A block device and its weight.
    pub struct WeightDevice {
        /// Device path.
        pub path: String,
        /// 10 to 1000.
        pub weight: u16,
    }
}

model! {
    /// A block device and its rate limit.
    pub struct ThrottleDevice {
        /// Device path.
        pub path: String,
        /// Bytes or operations a second.
        pub rate: u64,
    }
}

model! {
    /// One resource limit; -1 is unlimited.
    pub struct Ulimit {
        /// `nofile`, `nproc`, ...
        pub name: String,
        /// Ceiling.
        pub hard: i64,
        /// In force.
        pub soft: i64,
    }
}
