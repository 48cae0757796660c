//! A network namespace for one container.

use std::net::Ipv4Addr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use crate::config::Mac;

/// A namespace connected to the bridge, ready for a container.
///
/// Dropping it closes the namespace descriptor and nothing else: published ports stay until
/// [`crate::Network::release`], the interfaces as long as a process lives in the namespace.
#[derive(Debug)]
pub struct Sandbox {
    pub(crate) netns: OwnedFd,
    pub(crate) ip: Ipv4Addr,
    pub(crate) prefix: u8,
    pub(crate) gateway: Ipv4Addr,
    pub(crate) mac: Mac,
    pub(crate) host_interface: String,
    pub(crate) host_index: u32,
}

impl Sandbox {
    /// The namespace. Clone it for the container's supervisor.
    pub fn netns(&self) -> BorrowedFd<'_> {
        self.netns.as_fd()
    }

    /// The container's IPv4 address.
    pub fn ip(&self) -> Ipv4Addr {
        self.ip
    }

    /// Length of the network's prefix.
    pub fn prefix(&self) -> u8 {
        self.prefix
    }

    /// The bridge's address, the container's default gateway.
    pub fn gateway(&self) -> Ipv4Addr {
        self.gateway
    }

    /// Ethernet address of the container's `eth0`.
    pub fn mac(&self) -> Mac {
        self.mac
    }

    /// Name of the interface on the host whose peer is the container's `eth0`.
    pub fn host_interface(&self) -> &str {
        &self.host_interface
    }
}

/// A namespace with nothing but a loopback interface that is up (`--network none`).
#[derive(Debug)]
pub struct Isolated {
    pub(crate) netns: OwnedFd,
}

impl Isolated {
    /// The namespace.
    pub fn netns(&self) -> BorrowedFd<'_> {
        self.netns.as_fd()
    }

    /// The namespace, given away.
    pub fn into_netns(self) -> OwnedFd {
        self.netns
    }
}
