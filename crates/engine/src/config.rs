//! What the daemon's options decide for the engine.

use std::collections::BTreeMap;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::sync::Arc;

use silo_http::Proxies;
use silo_types::Error;

/// The parent cgroup of containers, where nothing else is said.
pub(crate) const CGROUP_PARENT: &str = "/silo";
/// The build of Windows Server 2025.
pub const DEFAULT_WINDOWS_BUILD: u32 = 26100;

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
    /// Subnet of the default bridge with the gateway's address, as `172.20.0.1/16`; empty takes
    /// one that is free.
    pub subnet: String,
    /// The engine's own binary, opened so that no container can write to it.
    pub exe: Arc<OwnedFd>,
    /// The static program that `--init` runs as the first process.
    pub init_binary: PathBuf,
    /// Parent of the containers' cgroups, from the root of the hierarchies.
    pub cgroup_parent: String,
    /// Log driver of containers that name none.
    pub log_driver: String,
    /// Options of the log driver of containers that name none.
    pub log_options: BTreeMap<String, String>,
    /// Name servers of containers that name none; empty means those of the host.
    pub dns: Vec<String>,
    /// How many ready network sandboxes to keep.
    pub sandbox_pool: usize,
    /// Daemon labels, as `docker info` shows them.
    pub labels: Vec<String>,
    /// Proxies for what the engine itself fetches.
    pub proxies: Proxies,
    /// Registries: mirrors, certificates, and those without TLS. Proxies are those above.
    pub registries: silo_registry::Config,
    /// The build of Windows as which images for several of them are chosen.
    pub windows_build: u32,
    /// Whether names of Microsoft's base images mean Silo's own where the real ones are not in
    /// the store.
    pub windows_substitutes: bool,
}

impl EngineConfig {
    /// The defaults for the given roots and binary.
    pub fn new(data_root: PathBuf, run_root: PathBuf, exe: OwnedFd) -> Self {
        Self {
            data_root,
            run_root,
            bridge: "silo0".into(),
            table: "silo".into(),
            subnet: String::new(),
            exe: Arc::new(exe),
            init_binary: fs_err::read_link("/proc/self/exe")
                .unwrap_or_else(|_| PathBuf::from("/proc/self/exe")),
            cgroup_parent: CGROUP_PARENT.into(),
            log_driver: "json-file".into(),
            log_options: BTreeMap::new(),
            dns: Vec::new(),
            sandbox_pool: 4,
            labels: Vec::new(),
            proxies: Proxies::default(),
            registries: silo_registry::Config::default(),
            windows_build: DEFAULT_WINDOWS_BUILD,
            windows_substitutes: true,
        }
    }

    /// The settings of the default bridge.
    pub(crate) fn network(&self) -> Result<silo_net::NetworkConfig, Error> {
        let mut network = silo_net::NetworkConfig {
            bridge: self.bridge.clone(),
            table: self.table.clone(),
            pool_min: self.sandbox_pool,
            ..silo_net::NetworkConfig::default()
        };
        network.pool_max = network.pool_max.max(network.pool_min);
        if !self.subnet.is_empty() {
            let subnet = self.subnet.parse::<ipnet::Ipv4Net>().map_err(|_| {
                Error::invalid(format!("invalid subnet {:?} of the bridge", self.subnet))
            })?;
            network.subnet = Some(subnet.trunc());
            network.gateway = (subnet.addr() != subnet.network()).then(|| subnet.addr());
        }
        Ok(network)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn subnets_name_their_gateway() {
        let exe: OwnedFd = fs_err::File::open("/proc/self/exe").unwrap().into_parts().0.into();
        let mut config = EngineConfig::new("/a".into(), "/b".into(), exe);
        assert_eq!(config.network().unwrap().subnet, None);
        config.subnet = "172.30.0.1/16".into();
        let network = config.network().unwrap();
        assert_eq!(network.subnet.unwrap().to_string(), "172.30.0.0/16");
        assert_eq!(network.gateway.unwrap().to_string(), "172.30.0.1");
        config.subnet = "172.30.0.0/16".into();
        assert_eq!(config.network().unwrap().gateway, None);
        config.subnet = "x".into();
        assert!(config.network().is_err());
    }
}
