//! What a group uses: one picture for both versions, with the details of each.

mod v1;
mod v2;

use std::collections::BTreeMap;

use crate::controller::Controller;
use crate::error::Error;
use crate::group::Cgroup;
use crate::hierarchy::Version;

/// The use of resources by a group and those below it. Parts whose controllers the group does
/// not have are at their defaults.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Stats {
    /// Processor time.
    pub cpu: CpuStats,
    /// Memory.
    pub memory: MemoryStats,
    /// Processes.
    pub pids: PidsStats,
    /// Block devices.
    pub blkio: BlkioStats,
    /// Huge pages, by size (`2MB`).
    pub hugetlb: BTreeMap<String, HugetlbStats>,
}

/// Processor time, in nanoseconds.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct CpuStats {
    /// All.
    pub usage: u64,
    /// In programs.
    pub user: u64,
    /// In the kernel.
    pub system: u64,
    /// By processor; only version 1 knows.
    pub per_cpu: Vec<u64>,
    /// Periods in which a quota was in force.
    pub periods: u64,
    /// Those in which it was used up.
    pub throttled_periods: u64,
    /// The time that processes waited for then.
    pub throttled: u64,
}

/// Memory, in bytes.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct MemoryStats {
    /// All, the page cache included.
    pub usage: u64,
    /// The most that it ever was; 0 if unknown.
    pub max_usage: u64,
    /// The limit; a number close to the largest possible if there is none.
    pub limit: u64,
    /// How often the limit was reached; only version 1 knows.
    pub failures: u64,
    /// The page cache.
    pub cache: u64,
    /// The part of the page cache that can be given back first: what `docker stats` subtracts.
    pub inactive_file: u64,
    /// Swap; with version 1 this is memory and swap together.
    pub swap_usage: u64,
    /// The limit on that.
    pub swap_limit: u64,
    /// Processes that were killed for memory.
    pub oom_kills: u64,
    /// Every line of the kernel's `memory.stat`.
    pub details: BTreeMap<String, u64>,
}

/// Processes and threads.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct PidsStats {
    /// How many there are.
    pub current: u64,
    /// The limit; 0 if there is none.
    pub limit: u64,
}

/// Block devices, with an entry for each device and operation.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct BlkioStats {
    /// Bytes.
    pub service_bytes: Vec<BlkioEntry>,
    /// Operations.
    pub serviced: Vec<BlkioEntry>,
}

/// A count of one kind of operation on one device.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BlkioEntry {
    /// The device's major number.
    pub major: u64,
    /// The device's minor number.
    pub minor: u64,
    /// `Read`, `Write`, `Discard` and so on; in small letters from version 2, as Docker has it.
    pub operation: String,
    /// The count.
    pub value: u64,
}

/// Huge pages of one size, in bytes.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct HugetlbStats {
    /// Present use.
    pub usage: u64,
    /// The most that it ever was; only version 1 knows.
    pub max_usage: u64,
    /// How often the limit was reached.
    pub failures: u64,
}

impl Cgroup {
    /// What the group uses now.
    ///
    /// # Errors
    ///
    /// If a file cannot be read that must be there; so also when the group is removed meanwhile.
    pub fn stats(&self) -> Result<Stats, Error> {
        let mut stats = Stats::default();
        let parts: [(Controller, Reader, Reader); 6] = [
            (Controller::Cpuacct, v1::cpu_time, v2::cpu),
            (Controller::Cpu, v1::throttling, |_| Ok(())),
            (Controller::Memory, v1::memory, v2::memory),
            (Controller::Pids, v1::pids, v1::pids),
            (Controller::Blkio, v1::blkio, v2::blkio),
            (Controller::Hugetlb, v1::hugetlb, v2::hugetlb),
        ];
        for (controller, v1, v2) in parts {
            let Some((at, directory)) = self.find(controller) else { continue };
            let mut source = Source { cgroup: self, at, directory, stats: &mut stats };
            match self.version(at) {
                Version::V1 => v1(&mut source)?,
                Version::V2 => v2(&mut source)?,
            }
        }
        Ok(stats)
    }
}

type Reader = fn(&mut Source<'_>) -> Result<(), Error>;

/// Where a part is read from, and where it goes.
struct Source<'a> {
    cgroup: &'a Cgroup,
    at: usize,
    directory: std::os::fd::BorrowedFd<'a>,
    stats: &'a mut Stats,
}

impl Source<'_> {
    fn text(&self, name: &str) -> Result<String, Error> {
        self.cgroup.read_in(self.at, self.directory, name)
    }

    fn number(&self, name: &str) -> Result<u64, Error> {
        crate::files::read_number(self.directory, name)
            .map_err(|source| self.cgroup.read_error(self.at, name, source))
    }

    /// As [`Self::text`], empty if the kernel does not have the file.
    fn optional_text(&self, name: &str) -> Result<String, Error> {
        absent(self.text(name))
    }

    /// As [`Self::number`], 0 if the kernel does not have the file.
    fn optional_number(&self, name: &str) -> Result<u64, Error> {
        absent(self.number(name))
    }
}

/// Takes a file that is not there, or not in use, as empty.
fn absent<T: Default>(result: Result<T, Error>) -> Result<T, Error> {
    match result {
        Err(Error::Read { source, .. })
            if matches!(source.raw_os_error(), Some(libc::ENOENT | libc::EOPNOTSUPP)) =>
        {
            Ok(T::default())
        }
        result => result,
    }
}

/// The sizes of huge pages that a group has files for: `2MB` of `hugetlb.2MB.<file>`.
fn page_sizes(source: &Source<'_>, file: &str) -> Result<Vec<String>, Error> {
    let failed = |error: rustix::io::Errno| source.cgroup.read_error(source.at, "", error.into());
    let mut sizes = Vec::new();
    for entry in rustix::fs::Dir::read_from(source.directory).map_err(failed)? {
        let entry = entry.map_err(failed)?;
        let name = entry.file_name().to_string_lossy();
        let size = name.strip_prefix("hugetlb.").and_then(|rest| rest.strip_suffix(file));
        sizes.extend(size.and_then(|size| size.strip_suffix('.')).map(str::to_owned));
    }
    // `hugetlb.2MB.rsvd.usage_in_bytes` is another count.
    sizes.retain(|size| !size.contains('.'));
    Ok(sizes)
}
