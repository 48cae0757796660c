//! Control groups: version 1, version 2, and both at once, behind one interface.
//!
//! [`Cgroups::detect`] finds the mounted hierarchies by mountinfo(5), never by fixed paths, and
//! keeps a descriptor of each. A [`Cgroup`] is one path in all of them and keeps a descriptor of
//! each of its directories; files are opened relative to these. A hierarchy that is not writable
//! (a rootless engine) is passed over until a limit needs it.
//!
//! A process that starts in a group enters it by [`Cgroup::fd_for_clone_into`] where version 2
//! is alone, else by [`Cgroup::entrance`]; [`Cgroup::add`] is for processes that run already.
//!
//! Nothing here is kept on disk: the kernel's directories are the state, and [`Cgroups::open`]
//! finds a group again after a restart.
#![warn(missing_docs)]

mod controller;
mod devices;
mod error;
mod files;
mod freeze;
mod group;
mod hierarchy;
mod limits;
mod oom;
mod path;
mod remove;
mod stats;
#[cfg(test)]
mod tests;
mod wait;

pub use controller::{Controller, Controllers};
pub use error::Error;
pub use group::{Cgroup, Cgroups, Entrance, Mode};
pub use oom::OomEvents;
pub use path::{CgroupPath, DEFAULT_PARENT};
pub use stats::{BlkioEntry, BlkioStats, CpuStats, HugetlbStats, MemoryStats, PidsStats, Stats};
