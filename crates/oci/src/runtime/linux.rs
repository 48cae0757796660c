//! What only Linux has: namespaces, id maps, devices, paths to hide.

use std::collections::{BTreeMap, HashMap};
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::{LinuxResources, LinuxSeccomp, record};

record! {
    /// The Linux part of a configuration.
    Linux {
        ; optional:
        /// How user ids of the container's user namespace map to the host's.
        uid_mappings: Vec<LinuxIdMapping>,
        /// How group ids of the container's user namespace map to the host's.
        gid_mappings: Vec<LinuxIdMapping>,
        /// Kernel parameters to set in the container's namespaces.
        sysctl: BTreeMap<String, String>,
        /// Limits of the container's cgroup.
        resources: Option<LinuxResources>,
        /// The path of the container's cgroup.
        cgroups_path: Option<String>,
        /// The namespaces that are made or joined.
        namespaces: Vec<LinuxNamespace>,
        /// Devices that are made in the container.
        devices: Vec<LinuxDevice>,
        /// Existing network devices that are moved into the container.
        net_devices: BTreeMap<String, LinuxNetDevice>,
        /// The system call filter.
        seccomp: Option<LinuxSeccomp>,
        /// The propagation of the root mount, such as `rslave`.
        rootfs_propagation: String,
        /// Paths in the container that cannot be read.
        masked_paths: Vec<String>,
        /// Paths in the container that cannot be written.
        readonly_paths: Vec<String>,
        /// The SELinux label of the container's mounts.
        mount_label: String,
        /// Resource control of Intel's Resource Director Technology.
        intel_rdt: Option<LinuxIntelRdt>,
        /// The memory policy of the container's processes.
        memory_policy: Option<LinuxMemoryPolicy>,
        /// The execution domain.
        personality: Option<LinuxPersonality>,
        /// Offsets of the clocks in a new time namespace.
        time_offsets: HashMap<String, LinuxTimeOffset>,
    }
}

/// A kind of namespace.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum NamespaceKind {
    /// Process ids.
    #[default]
    Pid,
    /// Network devices, addresses, rules.
    Network,
    /// Mounts.
    Mount,
    /// System V IPC and POSIX message queues.
    Ipc,
    /// Host and domain name.
    Uts,
    /// User and group ids, capabilities.
    User,
    /// The view of the cgroup tree.
    Cgroup,
    /// Offsets of the monotonic and boot-time clocks.
    Time,
}

record! {
    /// One namespace of the container.
    LinuxNamespace {
        /// Its kind.
        #[serde(rename = "type")]
        kind: NamespaceKind,
        ; optional:
        /// The namespace to join; a new one is made when absent.
        path: Option<PathBuf>,
    }
}

record! {
    /// A range of ids.
    LinuxIdMapping {
        /// The first id in the container.
        #[serde(rename = "containerID")]
        container_id: u32,
        /// The first id on the host.
        #[serde(rename = "hostID")]
        host_id: u32,
        /// The number of ids.
        size: u32,
    }
}

record! {
    /// A device node in the container.
    LinuxDevice {
        /// `c` or `u` (character), `b` (block), `p` (fifo).
        #[serde(rename = "type")]
        kind: String,
        /// Its absolute path in the container.
        path: PathBuf,
        ; optional:
        /// The device's major number.
        major: i64,
        /// The device's minor number.
        minor: i64,
        /// Its permissions.
        file_mode: Option<u32>,
        /// Its owner in the container.
        uid: Option<u32>,
        /// Its group in the container.
        gid: Option<u32>,
    }
}

record! {
    /// A network device that is moved into the container.
    LinuxNetDevice {
        ; optional:
        /// Its name in the container, when it is to change.
        name: String,
    }
}

record! {
    /// Classes of service of cache and memory bandwidth, and their monitoring.
    LinuxIntelRdt {
        ; optional:
        /// The class of service, a directory of resctrl.
        #[serde(rename = "closID")]
        clos_id: String,
        /// Lines for the `schemata` file, written after the two below.
        schemata: Vec<String>,
        /// The schema of the level 3 cache.
        l3_cache_schema: String,
        /// The schema of the memory bandwidth.
        mem_bw_schema: String,
        /// Whether a monitoring group of the container's own is made.
        enable_monitoring: bool,
        /// Whether cache occupancy is monitored. Deprecated.
        #[serde(rename = "enableCMT")]
        enable_cmt: bool,
        /// Whether memory bandwidth is monitored. Deprecated.
        #[serde(rename = "enableMBM")]
        enable_mbm: bool,
    }
}

record! {
    /// The arguments of `set_mempolicy`.
    LinuxMemoryPolicy {
        /// The mode, such as `MPOL_BIND`.
        mode: String,
        /// The nodes as a list like `0-3,7`.
        nodes: String,
        ; optional:
        /// Flags such as `MPOL_F_STATIC_NODES`.
        flags: Vec<String>,
    }
}

/// An execution domain.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub enum PersonalityDomain {
    /// The machine's own.
    #[default]
    #[serde(rename = "LINUX")]
    Linux,
    /// 32 bits.
    #[serde(rename = "LINUX32")]
    Linux32,
}

record! {
    /// The argument of `personality`.
    LinuxPersonality {
        /// The domain.
        domain: PersonalityDomain,
        ; optional:
        /// Flags; the specification defines none yet.
        flags: Vec<String>,
    }
}

record! {
    /// An offset of a clock.
    LinuxTimeOffset {
        ; optional:
        /// Seconds.
        secs: i64,
        /// Nanoseconds.
        nanosecs: u32,
    }
}
