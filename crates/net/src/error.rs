//! What can go wrong in the network, and how each failure looks to a client.

use std::io;
use std::net::IpAddr;

use silo_types::{ErrorKind, Kind};

use crate::port::Protocol;

/// A failed network operation. `Display` does not repeat the source.
#[derive(Debug, thiserror::Error)]
pub enum NetError {
    /// A netlink socket could not be opened or used.
    #[error("netlink: {operation}")]
    Netlink {
        /// What was being done, for instance `create bridge silo0`.
        operation: String,
        /// The kernel's answer.
        #[source]
        source: io::Error,
    },
    /// A namespace could not be made or entered.
    #[error("network namespace: {operation}")]
    Namespace {
        /// What was being done.
        operation: &'static str,
        /// The kernel's answer.
        #[source]
        source: io::Error,
    },
    /// A kernel parameter could not be read or set.
    #[error("kernel parameter net/{name}")]
    Sysctl {
        /// The parameter, below `/proc/sys/net`.
        name: String,
        /// The kernel's answer.
        #[source]
        source: io::Error,
    },
    /// Every default address range is already routed somewhere.
    #[error(
        "could not find an available, non-overlapping IPv4 address pool among the defaults to assign to the network"
    )]
    NoFreeSubnet,
    /// The configured bridge name belongs to an interface of another kind.
    #[error("interface {0} exists and is not a bridge")]
    NotABridge(String),
    /// The configuration contradicts itself.
    #[error("invalid network configuration: {0}")]
    Config(String),
    /// Every address of the network is in use.
    #[error("no available IPv4 addresses on this network's address pools: {0}")]
    // docker wording
    NoFreeAddress(String),
    /// The wanted address is in use.
    #[error("Address already in use")] // docker wording
    AddressInUse,
    /// The wanted address is not one of the network's host addresses.
    #[error("invalid address {0}: It does not belong to any of this network's subnets")]
    // docker wording
    AddressOutside(IpAddr),
    /// Another container of this engine has the port.
    #[error("Bind for {address}:{port} failed: port is already allocated")] // docker wording
    PortAllocated {
        /// Host address of the mapping.
        address: IpAddr,
        /// Host port of the mapping.
        port: u16,
    },
    /// Every port of the asked range is taken by containers of this engine.
    #[error("all ports are allocated")] // docker wording
    AllPortsAllocated,
    /// The host refuses the port, usually because a process listens on it.
    #[error("failed to bind host port {}/{protocol}: {}", socket_address(*address, *port), errno_text(*source))]
    // docker wording
    Bind {
        /// Host address of the mapping.
        address: IpAddr,
        /// Host port of the mapping.
        port: u16,
        /// Transport protocol.
        protocol: Protocol,
        /// The kernel's answer; part of the message, as Docker writes it.
        source: rustix::io::Errno,
    },
    /// The port mapping cannot be meant as written.
    #[error("{0}")]
    BadMapping(String),
    /// The interface of a sandbox is no more.
    #[error("interface {0} is gone")]
    LinkGone(String),
    /// What kept the pool from making a sandbox; everyone who waited for one gets it.
    #[error(transparent)]
    Shared(std::sync::Arc<NetError>),
    /// The network was shut down.
    #[error("the network is shut down")]
    Closed,
}

impl NetError {
    /// Shorthand for a failed netlink exchange.
    pub(crate) fn netlink(operation: impl Into<String>) -> impl FnOnce(io::Error) -> Self {
        let operation = operation.into();
        move |source| Self::Netlink { operation, source }
    }

    pub(crate) fn namespace(operation: &'static str) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::Namespace { operation, source }
    }
}

impl Kind for NetError {
    fn kind(&self) -> ErrorKind {
        match self {
            Self::Config(_) | Self::BadMapping(_) | Self::AddressOutside(_) => {
                ErrorKind::InvalidParameter
            }
            Self::AddressInUse => ErrorKind::Forbidden,
            Self::LinkGone(_) => ErrorKind::NotFound,
            Self::Closed => ErrorKind::Unavailable,
            Self::Shared(error) => error.kind(),
            // dockerd answers 500 to every failure of a port or an address pool.
            _ => ErrorKind::Internal,
        }
    }
}

fn socket_address(address: IpAddr, port: u16) -> std::net::SocketAddr {
    std::net::SocketAddr::new(address, port)
}

/// The text Go programs print for an error number: no capital, no "(os error N)".
fn errno_text(errno: rustix::io::Errno) -> String {
    match errno {
        rustix::io::Errno::ADDRINUSE => "address already in use".into(),
        rustix::io::Errno::ADDRNOTAVAIL => "cannot assign requested address".into(),
        rustix::io::Errno::ACCESS => "permission denied".into(),
        rustix::io::Errno::PERM => "operation not permitted".into(),
        rustix::io::Errno::PROTONOSUPPORT => "protocol not supported".into(),
        other => {
            let text = io::Error::from(other).to_string();
            let text = text.split(" (os error").next().unwrap_or_default();
            let mut chars = text.chars();
            chars.next().map(|c| c.to_lowercase().chain(chars).collect()).unwrap_or_default()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wording_is_dockers() {
        let address = IpAddr::from([0, 0, 0, 0]);
        assert_eq!(
            NetError::PortAllocated { address, port: 80 }.to_string(),
            "Bind for 0.0.0.0:80 failed: port is already allocated"
        );
        let bind = |address, source| {
            NetError::Bind { address, port: 80, protocol: Protocol::Tcp, source }.to_string()
        };
        assert_eq!(
            bind(address, rustix::io::Errno::ADDRINUSE),
            "failed to bind host port 0.0.0.0:80/tcp: address already in use"
        );
        assert_eq!(
            bind("::1".parse().unwrap(), rustix::io::Errno::NODEV),
            "failed to bind host port [::1]:80/tcp: no such device"
        );
    }
}
