//! `GET /containers/{id}/stats`.

use std::collections::BTreeMap;

use crate::{List, empty};

macro_rules! snake_model {
    (
        $(#[$meta:meta])*
        pub struct $name:ident {
            $( $(#[$field_meta:meta])* pub $field:ident: $type:ty, )*
        }
    ) => {
        $(#[$meta])*
        #[derive(Debug, Clone, Default, PartialEq, serde::Serialize, serde::Deserialize)]
        pub struct $name {
            $(
                #[serde(default, deserialize_with = "crate::value::nullable")]
                $(#[$field_meta])*
                pub $field: $type,
            )*
        }
    };
}

snake_model! {
    /// One sample.
    pub struct Stats {
        /// Name with its leading slash.
        #[serde(skip_serializing_if = "empty")]
        pub name: String,
        /// Container id.
        #[serde(skip_serializing_if = "empty")]
        pub id: String,
        /// `linux`, since 1.52.
        #[serde(skip_serializing_if = "empty")]
        pub os_type: String,
        /// When, RFC 3339 or Go's zero time.
        pub read: String,
        /// When the sample before was taken.
        pub preread: String,
        /// Processes and threads.
        pub pids_stats: PidsStats,
        /// Block devices.
        pub blkio_stats: BlkioStats,
        /// Windows only.
        pub num_procs: u32,
        /// Windows only.
        pub storage_stats: StorageStats,
        /// CPU now.
        pub cpu_stats: CpuStats,
        /// CPU at the sample before.
        pub precpu_stats: CpuStats,
        /// Memory.
        pub memory_stats: MemoryStats,
        /// By interface.
        #[serde(skip_serializing_if = "empty")]
        pub networks: BTreeMap<String, NetworkStats>,
    }
}

snake_model! {
    /// CPU time, in nanoseconds.
    pub struct CpuStats {
        /// Of the container.
        pub cpu_usage: CpuUsage,
        /// Of the host.
        #[serde(skip_serializing_if = "empty")]
        pub system_cpu_usage: u64,
        /// CPUs of the host.
        #[serde(skip_serializing_if = "empty")]
        pub online_cpus: u32,
        /// Time lost by quota.
        pub throttling_data: ThrottlingData,
    }
}

snake_model! {
    /// CPU time of the container, in nanoseconds.
    pub struct CpuUsage {
        /// All.
        pub total_usage: u64,
        /// By CPU, on cgroup v1.
        #[serde(skip_serializing_if = "empty")]
        pub percpu_usage: List<u64>,
        /// In the kernel.
        pub usage_in_kernelmode: u64,
        /// In programs.
        pub usage_in_usermode: u64,
    }
}

snake_model! {
    /// Time lost by quota.
    pub struct ThrottlingData {
        /// Periods.
        pub periods: u64,
        /// Periods in which it was stopped.
        pub throttled_periods: u64,
        /// Nanoseconds.
        pub throttled_time: u64,
    }
}

snake_model! {
    /// Memory, in bytes.
    pub struct MemoryStats {
        /// Now.
        #[serde(skip_serializing_if = "empty")]
        pub usage: u64,
        /// At most so far, on cgroup v1.
        #[serde(skip_serializing_if = "empty")]
        pub max_usage: u64,
        /// memory.stat.
        #[serde(skip_serializing_if = "empty")]
        pub stats: BTreeMap<String, u64>,
        /// Times the limit was hit.
        #[serde(skip_serializing_if = "empty")]
        pub failcnt: u64,
        /// Limit.
        #[serde(skip_serializing_if = "empty")]
        pub limit: u64,
    }
}

snake_model! {
    /// Processes and threads.
    pub struct PidsStats {
        /// Now.
        #[serde(skip_serializing_if = "empty")]
        pub current: u64,
        /// At most.
        #[serde(skip_serializing_if = "empty")]
        pub limit: u64,
    }
}

snake_model! {
    /// Windows only.
    pub struct StorageStats {
        /// Reads.
        #[serde(skip_serializing_if = "empty")]
        pub read_count_normalized: u64,
        /// Bytes read.
        #[serde(skip_serializing_if = "empty")]
        pub read_size_bytes: u64,
        /// Writes.
        #[serde(skip_serializing_if = "empty")]
        pub write_count_normalized: u64,
        /// Bytes written.
        #[serde(skip_serializing_if = "empty")]
        pub write_size_bytes: u64,
    }
}

snake_model! {
    /// Block devices.
    pub struct BlkioStats {
        /// Bytes.
        pub io_service_bytes_recursive: List<BlkioEntry>,
        /// Operations.
        pub io_serviced_recursive: List<BlkioEntry>,
        /// Waiting operations.
        pub io_queue_recursive: List<BlkioEntry>,
        /// Nanoseconds in service.
        pub io_service_time_recursive: List<BlkioEntry>,
        /// Nanoseconds in wait.
        pub io_wait_time_recursive: List<BlkioEntry>,
        /// Merged operations.
        pub io_merged_recursive: List<BlkioEntry>,
        /// Milliseconds of disk time.
        pub io_time_recursive: List<BlkioEntry>,
        /// Sectors.
        pub sectors_recursive: List<BlkioEntry>,
    }
}

snake_model! {
    /// One device and kind of operation.
    pub struct BlkioEntry {
        /// Device.
        pub major: u64,
        /// Device.
        pub minor: u64,
        /// `read`, `write`, ...
        pub op: String,
        /// Count.
        pub value: u64,
    }
}

snake_model! {
    /// One interface.
    pub struct NetworkStats {
        /// Received bytes.
        pub rx_bytes: u64,
        /// Received packets.
        pub rx_packets: u64,
        /// Receive errors.
        pub rx_errors: u64,
        /// Received and dropped.
        pub rx_dropped: u64,
        /// Sent bytes.
        pub tx_bytes: u64,
        /// Sent packets.
        pub tx_packets: u64,
        /// Send errors.
        pub tx_errors: u64,
        /// Dropped before sending.
        pub tx_dropped: u64,
    }
}
