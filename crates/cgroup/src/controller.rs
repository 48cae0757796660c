//! The controllers, under the names that both versions share.

use std::fmt;

/// A kind of resource that a hierarchy accounts and limits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u8)]
pub enum Controller {
    /// Processor shares and quotas.
    Cpu,
    /// Processor accounting; part of the core in version 2.
    Cpuacct,
    /// Processors and memory nodes.
    Cpuset,
    /// Memory.
    Memory,
    /// Access to devices; a BPF program in version 2.
    Devices,
    /// Stopping all processes; part of the core in version 2.
    Freezer,
    /// Block devices: `blkio` in version 1, `io` in version 2.
    Blkio,
    /// Number of processes.
    Pids,
    /// Huge pages.
    Hugetlb,
    /// Classes of network packets; version 1 only.
    NetCls,
    /// Priorities of network packets; version 1 only.
    NetPrio,
    /// Remote direct memory access.
    Rdma,
}

impl Controller {
    /// All of them.
    pub const ALL: [Self; 12] = [
        Self::Cpu,
        Self::Cpuacct,
        Self::Cpuset,
        Self::Memory,
        Self::Devices,
        Self::Freezer,
        Self::Blkio,
        Self::Pids,
        Self::Hugetlb,
        Self::NetCls,
        Self::NetPrio,
        Self::Rdma,
    ];

    /// The name in mount options and in /proc/self/cgroup of version 1.
    pub const fn v1_name(self) -> &'static str {
        match self {
            Self::Cpu => "cpu",
            Self::Cpuacct => "cpuacct",
            Self::Cpuset => "cpuset",
            Self::Memory => "memory",
            Self::Devices => "devices",
            Self::Freezer => "freezer",
            Self::Blkio => "blkio",
            Self::Pids => "pids",
            Self::Hugetlb => "hugetlb",
            Self::NetCls => "net_cls",
            Self::NetPrio => "net_prio",
            Self::Rdma => "rdma",
        }
    }

    /// The name in `cgroup.controllers`; `None` for what version 2 has built in or not at all.
    pub const fn v2_name(self) -> Option<&'static str> {
        match self {
            Self::Cpu => Some("cpu"),
            Self::Cpuset => Some("cpuset"),
            Self::Memory => Some("memory"),
            Self::Blkio => Some("io"),
            Self::Pids => Some("pids"),
            Self::Hugetlb => Some("hugetlb"),
            Self::Rdma => Some("rdma"),
            Self::Cpuacct | Self::Devices | Self::Freezer | Self::NetCls | Self::NetPrio => None,
        }
    }
}

impl fmt::Display for Controller {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.v1_name())
    }
}

/// A set of controllers.
#[derive(Clone, Copy, PartialEq, Eq, Default)]
pub struct Controllers(u16);

impl Controllers {
    /// The set of these.
    pub const fn of(list: &[Controller]) -> Self {
        let mut bits = 0;
        let mut at = 0;
        while at < list.len() {
            bits |= 1 << list[at] as u16;
            at += 1;
        }
        Self(bits)
    }

    /// Whether it is a member.
    pub const fn contains(self, controller: Controller) -> bool {
        self.0 & (1 << controller as u16) != 0
    }

    /// Adds a member.
    pub const fn insert(&mut self, controller: Controller) {
        self.0 |= 1 << controller as u16;
    }

    /// Members of either.
    pub const fn union(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// Whether some are members of both.
    pub const fn meets(self, other: Self) -> bool {
        self.0 & other.0 != 0
    }

    /// Whether there are none.
    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// The members.
    pub fn iter(self) -> impl Iterator<Item = Controller> {
        Controller::ALL.into_iter().filter(move |&controller| self.contains(controller))
    }
}

impl fmt::Debug for Controllers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.iter()).finish()
    }
}
