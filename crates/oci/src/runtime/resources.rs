//! Limits of a container's cgroup.

use std::collections::BTreeMap;

use super::record;

record! {
    /// Everything that the container's cgroup limits.
    LinuxResources {
        ; optional:
        /// Which devices may be used, later rules over earlier ones.
        devices: Vec<LinuxDeviceCgroup>,
        /// Memory.
        memory: Option<LinuxMemory>,
        /// Processor time.
        cpu: Option<LinuxCpu>,
        /// The number of processes.
        pids: Option<LinuxPids>,
        /// Block devices.
        #[serde(rename = "blockIO")]
        block_io: Option<LinuxBlockIo>,
        /// Huge pages.
        hugepage_limits: Vec<LinuxHugepageLimit>,
        /// Network classes and priorities.
        network: Option<LinuxNetwork>,
        /// Remote direct memory access, by device.
        rdma: BTreeMap<String, LinuxRdma>,
        /// Files of cgroup version 2 and the values to write.
        unified: BTreeMap<String, String>,
    }
}

record! {
    /// A rule of device access.
    LinuxDeviceCgroup {
        /// Whether the rule allows or denies.
        allow: bool,
        ; optional:
        /// `a` (all), `c` (character) or `b` (block); all when absent.
        #[serde(rename = "type")]
        kind: Option<String>,
        /// The major number; all when absent or -1.
        major: Option<i64>,
        /// The minor number; all when absent or -1.
        minor: Option<i64>,
        /// Letters of `rwm`: read, write, make a node.
        access: Option<String>,
    }
}

record! {
    /// Memory limits in bytes; -1 stands for none.
    LinuxMemory {
        ; optional:
        /// The hard limit.
        limit: Option<i64>,
        /// The limit that is kept when memory is short.
        reservation: Option<i64>,
        /// The limit of memory and swap together.
        swap: Option<i64>,
        /// The hard limit of kernel memory. Deprecated.
        kernel: Option<i64>,
        /// The hard limit of the network's kernel memory.
        #[serde(rename = "kernelTCP")]
        kernel_tcp: Option<i64>,
        /// How readily pages are swapped, 0 to 100.
        swappiness: Option<u64>,
        /// Whether processes wait rather than be killed when memory is out.
        #[serde(rename = "disableOOMKiller")]
        disable_oom_killer: Option<bool>,
        /// Whether memory of child groups is counted here.
        use_hierarchy: Option<bool>,
        /// Whether a limit below the present use is refused.
        check_before_update: Option<bool>,
    }
}

record! {
    /// Processor limits.
    LinuxCpu {
        ; optional:
        /// The share relative to other groups, as of version 1.
        shares: Option<u64>,
        /// Microseconds of processor time in each period; -1 stands for no limit.
        quota: Option<i64>,
        /// Microseconds that may be saved up for a burst.
        burst: Option<u64>,
        /// The period in microseconds.
        period: Option<u64>,
        /// Microseconds of real-time scheduling in each period.
        realtime_runtime: Option<i64>,
        /// The period of real-time scheduling in microseconds.
        realtime_period: Option<u64>,
        /// The processors as a list like `0-3,7`.
        cpus: String,
        /// The memory nodes as a list like `0-3,7`.
        mems: String,
        /// 1 for a group that runs when nobody else would.
        idle: Option<i64>,
    }
}

record! {
    /// The limit on the number of processes.
    LinuxPids {
        ; optional:
        /// The number; -1 stands for no limit.
        limit: Option<i64>,
    }
}

record! {
    /// Limits on block devices.
    LinuxBlockIo {
        ; optional:
        /// The weight, 10 to 1000.
        weight: Option<u16>,
        /// The weight against child groups.
        leaf_weight: Option<u16>,
        /// Weights by device.
        weight_device: Vec<LinuxWeightDevice>,
        /// Bytes read in a second, by device.
        throttle_read_bps_device: Vec<LinuxThrottleDevice>,
        /// Bytes written in a second, by device.
        throttle_write_bps_device: Vec<LinuxThrottleDevice>,
        /// Reads in a second, by device.
        #[serde(rename = "throttleReadIOPSDevice")]
        throttle_read_iops_device: Vec<LinuxThrottleDevice>,
        /// Writes in a second, by device.
        #[serde(rename = "throttleWriteIOPSDevice")]
        throttle_write_iops_device: Vec<LinuxThrottleDevice>,
    }
}

record! {
    /// A weight for one device.
    LinuxWeightDevice {
        /// The major number.
        major: i64,
        /// The minor number.
        minor: i64,
        ; optional:
        /// The weight, 10 to 1000.
        weight: Option<u16>,
        /// The weight against child groups.
        leaf_weight: Option<u16>,
    }
}

record! {
    /// A rate for one device.
    LinuxThrottleDevice {
        /// The major number.
        major: i64,
        /// The minor number.
        minor: i64,
        /// Bytes or operations in a second.
        rate: u64,
    }
}

record! {
    /// A limit on huge pages.
    LinuxHugepageLimit {
        /// The size of a page, such as `2MB`.
        page_size: String,
        /// Bytes in pages of that size.
        limit: u64,
    }
}

record! {
    /// Network classes of version 1.
    LinuxNetwork {
        ; optional:
        /// The class that packets are tagged with.
        #[serde(rename = "classID")]
        class_id: Option<u32>,
        /// Priorities by interface.
        priorities: Vec<LinuxInterfacePriority>,
    }
}

record! {
    /// The priority of a group's packets on one interface.
    LinuxInterfacePriority {
        /// The interface.
        name: String,
        /// The priority.
        priority: u32,
    }
}

record! {
    /// Limits on one device of remote direct memory access.
    LinuxRdma {
        ; optional:
        /// Handles.
        hca_handles: Option<u32>,
        /// Objects.
        hca_objects: Option<u32>,
    }
}
