//! What product tests share: an engine of their own to drive through the real `docker` CLI.
//!
//! A test that names no difference passes on Docker too: with `SILO_TEST_ENGINE=docker` and
//! `SILO_TEST_DOCKER_HOST=unix:///...` the same tests drive that engine.

mod certificates;
mod content;
mod debian;
mod dockerd;
mod engine;
mod files;
mod hives;
mod http;
mod packages;
mod podman;
mod proxy;
mod registry;
mod scripted;
mod skip;
mod winapps;
mod windows;

pub use certificates::Authority;
pub use content::{Content, OCI_INDEX, OCI_MANIFEST, gzip, sha256, tar_of};
pub use debian::debian_mirror;
pub use dockerd::Dockerd;
pub use engine::{
    Engine, Kind, Outcome, alone, busybox_tree, feed, process, silo_binary, write_files,
};
pub use files::{FileServer, Page};
pub use hives::{hive_packages, real_hives};
pub use http::Response;
pub use podman::Podman;
pub use proxy::Proxy;
pub use registry::Registry;
pub use scripted::{Asked, End, Reply, Scripted};
pub use skip::skip;
pub use winapps::{windows_program, windows_programs};
pub use windows::{WindowsEngine, compile_windows, windows_data};

/// Whether this process could hand every capability of the kernel to a container.
pub fn host_has_every_capability() -> bool {
    let status = fs_err::read_to_string("/proc/self/status").expect("our status");
    let last =
        fs_err::read_to_string("/proc/sys/kernel/cap_last_cap").expect("the last capability");
    let last: u32 = last.trim().parse().expect("a number");
    let bounding = status.lines().find_map(|line| line.strip_prefix("CapBnd:")).expect("CapBnd");
    let bounding = u64::from_str_radix(bounding.trim(), 16).expect("hex");
    bounding.count_ones() > last
}
