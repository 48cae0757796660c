//! Settings of a network, and the small value types of its interface.

use std::fmt;
use std::net::Ipv4Addr;
use std::os::fd::OwnedFd;
use std::str::FromStr;

use ipnet::Ipv4Net;
use serde::{Deserialize, Serialize};

use crate::NetError;
use crate::port::PortBinding;

/// Settings of the default bridge network.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct NetworkConfig {
    /// Name of the bridge interface, at most 15 bytes.
    pub bridge: String,
    /// Name of the nftables table of family `ip`; nothing else is ever written.
    pub table: String,
    /// Address range. `None` keeps that of an existing bridge, else takes the first of Docker's
    /// default pools that nothing on the host uses.
    pub subnet: Option<Ipv4Net>,
    /// Address of the bridge; `None` is the first of the subnet.
    pub gateway: Option<Ipv4Addr>,
    /// MTU of the bridge and of the containers' interfaces, in bytes.
    pub mtu: u32,
    /// Whether containers of the network may talk to each other directly.
    pub icc: bool,
    /// Whether packets that leave the bridge get the host's address.
    pub ip_masq: bool,
    /// Whether to switch on forwarding of IPv4 on the host.
    pub ip_forward: bool,
    /// Whether ports published on all addresses, or on an IPv6 one, are carried from IPv6 to the
    /// container's IPv4 address by a relay of this process.
    pub ipv6_relay: bool,
    /// Whether to add accept rules for this bridge to the `DOCKER-USER` chain where Docker made
    /// one: Docker sets the policy of forwarding to drop, and no other table can overrule that.
    pub docker_user: bool,
    /// How many sandboxes are kept ready at rest.
    pub pool_min: usize,
    /// How far the pool may grow under bursts.
    pub pool_max: usize,
}

impl Default for NetworkConfig {
    fn default() -> Self {
        Self {
            bridge: "silo0".into(),
            table: "silo".into(),
            subnet: None,
            gateway: None,
            mtu: 1500,
            icc: true,
            ip_masq: true,
            ip_forward: true,
            ipv6_relay: true,
            docker_user: true,
            pool_min: 4,
            pool_max: 16,
        }
    }
}

impl NetworkConfig {
    pub(crate) fn check(&self) -> Result<(), NetError> {
        let bad = |text: String| Err(NetError::Config(text));
        let name_ok = |name: &str, max: usize| {
            !name.is_empty()
                && name.len() <= max
                && name.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(&b))
                && name != "."
                && name != ".."
        };
        if !name_ok(&self.bridge, 15) {
            return bad(format!("bridge name {:?}", self.bridge));
        }
        if !name_ok(&self.table, 32) {
            return bad(format!("table name {:?}", self.table));
        }
        if let Some(subnet) = self.subnet {
            if !(8..=30).contains(&subnet.prefix_len()) {
                return bad(format!("subnet {subnet}"));
            }
            if let Some(gateway) = self.gateway
                && !subnet.contains(&gateway)
            {
                return bad(format!("gateway {gateway} is outside of {subnet}"));
            }
        } else if self.gateway.is_some() {
            return bad("a gateway needs a subnet".into());
        }
        if !(68..=65535).contains(&self.mtu) {
            return bad(format!("mtu {}", self.mtu));
        }
        Ok(())
    }
}

/// An Ethernet address.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Mac(pub [u8; 6]);

impl Mac {
    /// The address Docker gives to an interface with this IPv4 address: `02:42` and its bytes.
    pub const fn from_ipv4(ip: Ipv4Addr) -> Self {
        let [a, b, c, d] = ip.octets();
        Self([0x02, 0x42, a, b, c, d])
    }
}

impl fmt::Display for Mac {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [first, rest @ ..] = self.0;
        write!(f, "{first:02x}")?;
        rest.iter().try_for_each(|byte| write!(f, ":{byte:02x}"))
    }
}

impl fmt::Debug for Mac {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Mac({self})")
    }
}

impl FromStr for Mac {
    type Err = NetError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let bad = || NetError::BadMapping(format!("{text} is not a valid mac address")); // docker wording
        let separator = if text.contains('-') { '-' } else { ':' };
        let mut bytes = [0; 6];
        let mut parts = text.split(separator);
        for byte in &mut bytes {
            let part = parts
                .next()
                .filter(|part| part.len() == 2 && !part.starts_with('+'))
                .ok_or_else(bad)?;
            *byte = u8::from_str_radix(part, 16).map_err(|_| bad())?;
        }
        if parts.next().is_some() { Err(bad()) } else { Ok(Self(bytes)) }
    }
}

impl Serialize for Mac {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Mac {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

/// What a container wants of its sandbox beyond the default.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct SandboxRequest {
    /// A certain address, which must be free.
    pub ip: Option<Ipv4Addr>,
    /// A certain Ethernet address.
    pub mac: Option<Mac>,
}

/// A living container's network as the engine recorded it, given to [`crate::Network::adopt`].
#[derive(Debug)]
pub struct Endpoint {
    /// The container's id; only for messages.
    pub id: String,
    /// Its network namespace, for instance `/proc/<pid>/ns/net` opened.
    pub netns: OwnedFd,
    /// Its address.
    pub ip: Ipv4Addr,
    /// Its Ethernet address.
    pub mac: Mac,
    /// Name of its interface on the host.
    pub host_interface: String,
    /// Its published ports.
    pub bindings: Vec<PortBinding>,
}

/// Traffic of a container's `eth0`, seen from inside the container.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[expect(missing_docs, reason = "the names say it: received and sent, since creation")]
pub struct NetworkStats {
    pub rx_bytes: u64,
    pub rx_packets: u64,
    pub rx_errors: u64,
    pub rx_dropped: u64,
    pub tx_bytes: u64,
    pub tx_packets: u64,
    pub tx_errors: u64,
    pub tx_dropped: u64,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn macs_parse_and_print() {
        assert_eq!(Mac::from_ipv4([172, 17, 0, 2].into()).to_string(), "02:42:ac:11:00:02");
        assert_eq!("92:d0:c6:0a:29:33".parse::<Mac>().unwrap().0[0], 0x92);
        assert!("92-d0-C6-0a-29-33".parse::<Mac>().is_ok());
        for bad in ["", "92:d0", "92:d0:c6:0a:29:33:00", "92:d0:c6:0a:29:+3", "zz:d0:c6:0a:29:33"] {
            assert!(bad.parse::<Mac>().is_err(), "{bad}");
        }
    }

    #[test]
    fn nonsense_is_refused() {
        let good = NetworkConfig::default();
        good.check().unwrap();
        for bad in [
            NetworkConfig { bridge: "a/b".into(), ..good.clone() },
            NetworkConfig { bridge: "a123456789012345".into(), ..good.clone() },
            NetworkConfig { table: String::new(), ..good.clone() },
            NetworkConfig { mtu: 10, ..good.clone() },
            NetworkConfig { subnet: Some("10.0.0.0/31".parse().unwrap()), ..good.clone() },
            NetworkConfig { gateway: Some([10, 0, 0, 1].into()), ..good.clone() },
        ] {
            assert!(bad.check().is_err(), "{bad:?}");
        }
    }
}
