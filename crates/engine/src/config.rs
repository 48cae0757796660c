//! What the daemon's options decide for the engine.

use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::sync::Arc;

/// Everything that an [`Engine`](crate::Engine) must be told; nothing is read from the
/// environment.
#[derive(Debug, Clone)]
pub struct EngineConfig {
    /// Persistent state, `/var/lib/silo` by default.
    pub data_root: PathBuf,
    /// State that a reboot may lose, `/run/silo` by default.
    pub run_root: PathBuf,
    /// Name of the default bridge.
    pub bridge: String,
    /// Name of the nftables table that is Silo's own.
    pub table: String,
    /// Subnet of the default bridge in CIDR form, gateway address included, `172.20.0.1/16`.
    pub subnet: String,
    /// The engine's own binary, opened so that no container can write to it.
    pub exe: Arc<OwnedFd>,
    /// Parent of the containers' cgroups.
    pub cgroup_parent: String,
    /// Log driver of containers that name none.
    pub log_driver: String,
    /// Options of the log driver of containers that name none.
    pub log_options: std::collections::BTreeMap<String, String>,
    /// Name servers of containers that name none; empty means those of the host.
    pub dns: Vec<String>,
    /// How many ready network sandboxes to keep.
    pub sandbox_pool: usize,
    /// Daemon labels, as `docker info` shows them.
    pub labels: Vec<String>,
}

impl EngineConfig {
    /// The defaults for the given roots and binary.
    pub fn new(data_root: PathBuf, run_root: PathBuf, exe: OwnedFd) -> Self {
        Self {
            data_root,
            run_root,
            bridge: "silo0".into(),
            table: "silo".into(),
            subnet: "172.20.0.1/16".into(),
            exe: Arc::new(exe),
            cgroup_parent: "silo".into(),
            log_driver: "json-file".into(),
            log_options: std::collections::BTreeMap::new(),
            dns: Vec::new(),
            sandbox_pool: 4,
            labels: Vec::new(),
        }
    }
}
