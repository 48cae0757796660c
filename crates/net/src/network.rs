//! The network itself.

use std::net::Ipv4Addr;

use ipnet::Ipv4Net;

use crate::NetError;
use crate::config::{Endpoint, NetworkConfig, NetworkStats, SandboxRequest};
use crate::port::{PortBinding, PortMapping};
use crate::sandbox::{Isolated, Sandbox};

/// Something about the host that keeps containers from being reached, for `silo doctor`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// What is the case.
    pub problem: String,
    /// What to do about it.
    pub remedy: String,
}

/// The default bridge network. Cheap to share in an `Arc`; all methods take `&self`.
#[derive(Debug)]
pub struct Network {
    config: NetworkConfig,
    subnet: Ipv4Net,
    gateway: Ipv4Addr,
}

impl Network {
    /// Creates or takes over the bridge and opens the sockets. Containers that survived an
    /// earlier engine are made known by [`Network::adopt`], which has to come before the first
    /// [`Network::take`].
    pub fn open(config: NetworkConfig) -> Result<Self, NetError> {
        config.check()?;
        Err(NetError::Closed)
    }

    /// Registers the addresses and ports of living containers, writes the table in one
    /// transaction, removes every other port of the bridge, and starts to fill the pool.
    /// The sandboxes come back in the order given; an endpoint whose interface is gone gives an error.
    pub fn adopt(&self, living: Vec<Endpoint>) -> Result<Vec<Result<Sandbox, NetError>>, NetError> {
        drop(living);
        Err(NetError::Closed)
    }

    /// A fresh sandbox, usually from the pool (microseconds); waits for the pool if it is empty.
    pub fn take(&self) -> Result<Sandbox, NetError> {
        self.take_with(SandboxRequest::default())
    }

    /// A fresh sandbox with a certain address or Ethernet address.
    pub fn take_with(&self, request: SandboxRequest) -> Result<Sandbox, NetError> {
        let _ = request;
        Err(NetError::Closed)
    }

    /// A fresh namespace without network (`--network none`).
    pub fn take_isolated(&self) -> Result<Isolated, NetError> {
        Err(NetError::Closed)
    }

    /// Publishes ports of a sandbox, all or none.
    pub fn publish(
        &self,
        sandbox: &Sandbox,
        mappings: &[PortMapping],
    ) -> Result<Vec<PortBinding>, NetError> {
        let _ = (sandbox, mappings);
        Err(NetError::Closed)
    }

    /// Takes back all published ports of a sandbox.
    pub fn unpublish(&self, sandbox: &Sandbox) -> Result<(), NetError> {
        let _ = sandbox;
        Err(NetError::Closed)
    }

    /// Takes back a sandbox's ports and lets go of its namespace. The address is free again when
    /// the kernel has removed the interface, that is after the last process has left.
    pub fn release(&self, sandbox: Sandbox) -> Result<(), NetError> {
        self.unpublish(&sandbox)
    }

    /// Traffic of a sandbox's `eth0` as the container sees it.
    pub fn stats(&self, sandbox: &Sandbox) -> Result<NetworkStats, NetError> {
        let _ = sandbox;
        Err(NetError::Closed)
    }

    /// What of the host stands in the way of this network.
    pub fn diagnose(&self) -> Result<Vec<Finding>, NetError> {
        Err(NetError::Closed)
    }

    /// Removes the bridge, its ports and the table.
    pub fn remove_all(self) -> Result<(), NetError> {
        Err(NetError::Closed)
    }

    /// The configuration as given to [`Network::open`].
    pub fn config(&self) -> &NetworkConfig {
        &self.config
    }

    /// The network's address range.
    pub fn subnet(&self) -> Ipv4Net {
        self.subnet
    }

    /// The bridge's address.
    pub fn gateway(&self) -> Ipv4Addr {
        self.gateway
    }
}
