//! Published ports: what is asked for ([`PortMapping`]) and what came of it ([`PortBinding`]).

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// A transport protocol that can be published.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Protocol {
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
    /// SCTP.
    Sctp,
}

impl Protocol {
    /// The protocol number in an IP header.
    pub const fn number(self) -> u8 {
        match self {
            Self::Tcp => 6,
            Self::Udp => 17,
            Self::Sctp => 132,
        }
    }

    /// The lower-case name.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Tcp => "tcp",
            Self::Udp => "udp",
            Self::Sctp => "sctp",
        }
    }
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for Protocol {
    type Err = crate::NetError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text.to_ascii_lowercase().as_str() {
            "tcp" => Ok(Self::Tcp),
            "udp" => Ok(Self::Udp),
            "sctp" => Ok(Self::Sctp),
            _ => Err(crate::NetError::BadMapping(format!("invalid proto: {text}"))), // docker wording
        }
    }
}

/// A wish: make `container_port` reachable under a port of the host.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct PortMapping {
    /// Port inside the container, not 0.
    pub container_port: u16,
    /// Transport protocol.
    pub protocol: Protocol,
    /// Host address; `None` is every address of the host (`0.0.0.0` and, if the host has IPv6, `::`).
    pub host_ip: Option<IpAddr>,
    /// First wanted host port; 0 lets the network choose from the ephemeral range.
    pub host_port_start: u16,
    /// Last wanted host port, inclusive; the first free one of the range is taken.
    pub host_port_end: u16,
}

impl PortMapping {
    /// A mapping of one fixed host port on every host address; `host_port` 0 chooses one.
    pub const fn new(container_port: u16, protocol: Protocol, host_port: u16) -> Self {
        Self {
            container_port,
            protocol,
            host_ip: None,
            host_port_start: host_port,
            host_port_end: host_port,
        }
    }

    /// The same mapping on one host address.
    pub const fn on(mut self, host_ip: IpAddr) -> Self {
        self.host_ip = Some(host_ip);
        self
    }
}

/// A fact: a host port that leads to a container port. Stored by the engine and given back to
/// [`crate::Network::adopt`] after a restart.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct PortBinding {
    /// Port inside the container.
    pub container_port: u16,
    /// Transport protocol.
    pub protocol: Protocol,
    /// Host address; `0.0.0.0` and `::` are all addresses of their family.
    pub host_ip: IpAddr,
    /// Host port.
    pub host_port: u16,
}
