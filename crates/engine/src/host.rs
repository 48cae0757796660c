//! What this host can do, found out once at the daemon's start.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use crate::spec::caps;

/// The abilities of the kernel and its cgroup controllers that options are checked against.
#[derive(Debug, Clone, Default)]
pub struct Host {
    /// Only cgroup version 2 is mounted.
    pub cgroup_v2: bool,
    /// Memory can be limited.
    pub memory_limit: bool,
    /// Swap can be limited.
    pub swap_limit: bool,
    /// Memory can have a soft limit.
    pub memory_reservation: bool,
    /// Swappiness can be set for a group.
    pub memory_swappiness: bool,
    /// The out-of-memory killer can be turned off for a group.
    pub oom_kill_disable: bool,
    /// The number of processes can be limited.
    pub pids_limit: bool,
    /// Processor shares.
    pub cpu_shares: bool,
    /// Processor periods and quotas.
    pub cpu_cfs: bool,
    /// Groups can be bound to processors and memory nodes.
    pub cpuset: bool,
    /// Weights of block devices.
    pub blkio_weight: bool,
    /// Weights by block device.
    pub blkio_weight_device: bool,
    /// Rates by block device.
    pub blkio_throttle: bool,
    /// The processors, as a list like `0-3`.
    pub cpus: String,
    /// The memory nodes, as a list like `0`.
    pub mems: String,
    /// How many processors there are.
    pub cpu_count: u32,
    /// Capabilities that the kernel knows and this process may give.
    pub capabilities: Vec<&'static str>,
    /// AppArmor is in force.
    pub apparmor: bool,
    /// SELinux is in force.
    pub selinux: bool,
    /// The kernel filters system calls.
    pub seccomp: bool,
    /// IPv4 packets are not forwarded.
    pub ipv4_forwarding_disabled: bool,
}

fn read(path: impl AsRef<Path>) -> String {
    fs_err::read_to_string(path.as_ref()).map(|text| text.trim().to_owned()).unwrap_or_default()
}

/// Where the hierarchy of a version 1 controller is mounted.
fn v1_mount(mountinfo: &str, controller: &str) -> Option<PathBuf> {
    mountinfo.lines().find_map(|line| {
        let (before, after) = line.split_once(" - cgroup ")?;
        let options = after.split(' ').nth(1)?;
        options
            .split(',')
            .any(|option| option == controller)
            .then(|| before.split(' ').nth(4).map(PathBuf::from))?
    })
}

impl Host {
    /// Looks at the host.
    pub fn detect() -> Self {
        let mut host = Self {
            cpus: read("/sys/devices/system/cpu/online"),
            mems: read("/sys/devices/system/node/online"),
            apparmor: read("/sys/module/apparmor/parameters/enabled") == "Y",
            selinux: Path::new("/sys/fs/selinux/enforce").exists(),
            seccomp: Path::new("/proc/sys/kernel/seccomp").exists(),
            ipv4_forwarding_disabled: read("/proc/sys/net/ipv4/ip_forward") == "0",
            ..Self::default()
        };
        if host.mems.is_empty() {
            host.mems = "0".into();
        }
        host.cpu_count = std::thread::available_parallelism()
            .ok()
            .and_then(|count| u32::try_from(count.get()).ok())
            .unwrap_or(1);
        let last: usize = read("/proc/sys/kernel/cap_last_cap").parse().unwrap_or(40);
        let bounding = read("/proc/self/status")
            .lines()
            .find_map(|line| u64::from_str_radix(line.strip_prefix("CapBnd:")?.trim(), 16).ok())
            .unwrap_or(u64::MAX);
        host.capabilities = caps::ALL
            .iter()
            .enumerate()
            .filter(|&(number, _)| number <= last && bounding & (1 << number) != 0)
            .map(|(_, &name)| name)
            .collect();
        let mountinfo = read("/proc/self/mountinfo");
        host.cgroup_v2 = Path::new("/sys/fs/cgroup/cgroup.controllers").exists();
        if host.cgroup_v2 {
            host.detect_v2();
        } else {
            host.detect_v1(&mountinfo);
        }
        host
    }

    fn detect_v2(&mut self) {
        let controllers = read("/sys/fs/cgroup/cgroup.controllers");
        let has = |name: &str| controllers.split(' ').any(|controller| controller == name);
        self.memory_limit = has("memory");
        self.memory_reservation = has("memory");
        self.swap_limit = has("memory") && Path::new("/proc/swaps").exists();
        self.pids_limit = has("pids");
        self.cpu_shares = has("cpu");
        self.cpu_cfs = has("cpu");
        self.cpuset = has("cpuset");
        self.blkio_weight = has("io");
        self.blkio_weight_device = has("io");
        self.blkio_throttle = has("io");
    }

    fn detect_v1(&mut self, mountinfo: &str) {
        let has = |controller: &str, file: &str| {
            v1_mount(mountinfo, controller).is_some_and(|mount| mount.join(file).exists())
        };
        self.memory_limit = has("memory", "memory.limit_in_bytes");
        self.swap_limit = has("memory", "memory.memsw.limit_in_bytes");
        self.memory_reservation = has("memory", "memory.soft_limit_in_bytes");
        self.memory_swappiness = has("memory", "memory.swappiness");
        self.oom_kill_disable = has("memory", "memory.oom_control");
        self.pids_limit = v1_mount(mountinfo, "pids").is_some();
        self.cpu_shares = has("cpu", "cpu.shares");
        self.cpu_cfs = has("cpu", "cpu.cfs_quota_us");
        self.cpuset = has("cpuset", "cpuset.cpus");
        self.blkio_weight = has("blkio", "blkio.weight") || has("blkio", "blkio.bfq.weight");
        self.blkio_weight_device =
            has("blkio", "blkio.weight_device") || has("blkio", "blkio.bfq.weight_device");
        self.blkio_throttle = has("blkio", "blkio.throttle.read_bps_device");
        if let Some(mount) = v1_mount(mountinfo, "cpuset") {
            for (file, value) in [("cpuset.cpus", &mut self.cpus), ("cpuset.mems", &mut self.mems)]
            {
                let text = read(mount.join(file));
                if !text.is_empty() {
                    *value = text;
                }
            }
        }
    }
}

/// Reads a list of numbers like `0-3,7`; `None` when it is malformed or names more than 8192.
pub fn parse_list(text: &str) -> Option<BTreeSet<u32>> {
    const GREATEST: u32 = 8191;
    let mut set = BTreeSet::new();
    for part in text.split(',').map(str::trim) {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let (first, last): (u32, u32) = (first.parse().ok()?, last.parse().ok()?);
        if first > last || last > GREATEST {
            return None;
        }
        set.extend(first..=last);
    }
    Some(set)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists() {
        let set = |text: &str| parse_list(text).map(|set| set.into_iter().collect::<Vec<_>>());
        assert_eq!(set("0-2,5"), Some(vec![0, 1, 2, 5]));
        assert_eq!(set("3"), Some(vec![3]));
        for bad in ["", "a", "3-1", "0-", "0-99999999", "-1"] {
            assert_eq!(set(bad), None, "{bad}");
        }
    }

    #[test]
    fn mounts_of_version_1() {
        let mountinfo = "30 20 0:26 / /sys/fs/cgroup/cpu,cpuacct rw - cgroup cgroup rw,cpu,cpuacct\n\
            31 20 0:27 / /sys/fs/cgroup/memory rw,nosuid shared:9 - cgroup cgroup rw,memory\n";
        assert_eq!(v1_mount(mountinfo, "memory"), Some("/sys/fs/cgroup/memory".into()));
        assert_eq!(v1_mount(mountinfo, "cpu"), Some("/sys/fs/cgroup/cpu,cpuacct".into()));
        assert_eq!(v1_mount(mountinfo, "pids"), None);
    }

    #[test]
    fn this_host() {
        let host = Host::detect();
        assert!(host.cpu_count > 0 && parse_list(&host.cpus).is_some());
        assert!(host.capabilities.contains(&"CAP_CHOWN"));
    }
}
