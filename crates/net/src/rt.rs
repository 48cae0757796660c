//! Links, addresses and routes by rtnetlink (`linux/if_link.h`, `linux/if_addr.h`,
//! `linux/rtnetlink.h`).

use std::io;
use std::net::Ipv4Addr;
use std::os::fd::{AsRawFd, BorrowedFd};

use ipnet::Ipv4Net;

use crate::config::{Mac, NetworkConfig, NetworkStats};
use crate::nl::{
    CREATE, DUMP, EXCL, Messages, REPLACE, REQUEST, Received, Socket, attribute, read_string,
    read_u32,
};

const NEWLINK: u16 = 16;
pub(crate) const DELLINK: u16 = 17;
const GETLINK: u16 = 18;
const SETLINK: u16 = 19;
const NEWADDR: u16 = 20;
const DELADDR: u16 = 21;
const GETADDR: u16 = 22;
const NEWROUTE: u16 = 24;
const GETROUTE: u16 = 26;
const GETSTATS: u16 = 94;

const IFLA_ADDRESS: u16 = 1;
const IFLA_IFNAME: u16 = 3;
const IFLA_MTU: u16 = 4;
const IFLA_MASTER: u16 = 10;
const IFLA_PROTINFO: u16 = 12;
const IFLA_LINKINFO: u16 = 18;
const IFLA_NET_NS_FD: u16 = 28;
const IFLA_NUM_TX_QUEUES: u16 = 31;
const IFLA_NUM_RX_QUEUES: u16 = 32;
const IFLA_EXT_MASK: u16 = 29;
const IFLA_AF_SPEC: u16 = 26;
const AF_INET6: u16 = 10;
const INET6_ADDR_GEN_MODE: u16 = 8;
const ADDR_GEN_NONE: u8 = 1;
const INFO_KIND: u16 = 1;
const INFO_DATA: u16 = 2;
const VETH_INFO_PEER: u16 = 1;
const BR_FORWARD_DELAY: u16 = 1;
const BR_STP_STATE: u16 = 5;
const BRPORT_HAIRPIN: u16 = 4;
const BRPORT_ISOLATED: u16 = 33;
const IFA_ADDRESS: u16 = 1;
const IFA_LOCAL: u16 = 2;
const IFA_BROADCAST: u16 = 4;
const RTA_DST: u16 = 1;
const RTA_OIF: u16 = 4;
const RTA_GATEWAY: u16 = 5;

const AF_INET: u8 = 2;
const AF_BRIDGE: u8 = 7;
const IFF_UP: u32 = 1;
/// `RTEXT_FILTER_SKIP_STATS`: a dump of links without their counters.
const SKIP_STATS: u32 = 1 << 3;

/// An interface.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Link {
    pub(crate) index: u32,
    pub(crate) name: String,
    pub(crate) kind: String,
    pub(crate) master: Option<u32>,
    pub(crate) mtu: u32,
    pub(crate) mac: Option<Mac>,
}

/// A prefix that is routed to, or configured on, an interface.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Used {
    pub(crate) net: Ipv4Net,
    /// The local address, of an address.
    pub(crate) local: Ipv4Addr,
    pub(crate) interface: u32,
}

/// The fixed part of a link message.
fn ifinfo(family: u8, index: u32, flags: u32, change: u32) -> [u8; 16] {
    let mut bytes = [0; 16];
    bytes[0] = family;
    bytes[4..8].copy_from_slice(&index.to_ne_bytes());
    bytes[8..12].copy_from_slice(&flags.to_ne_bytes());
    bytes[12..16].copy_from_slice(&change.to_ne_bytes());
    bytes
}

/// The interface that a link notification is about.
pub(crate) fn link_index(message: Received<'_>) -> Option<u32> {
    read_u32(message.payload.get(4..)?)
}

pub(crate) fn parse_link(payload: &[u8]) -> Option<Link> {
    let attributes = payload.get(16..)?;
    let get = |kind| attribute(attributes, kind);
    Some(Link {
        index: read_u32(payload.get(4..)?)?,
        name: read_string(get(IFLA_IFNAME)?),
        kind: get(IFLA_LINKINFO)
            .and_then(|info| attribute(info, INFO_KIND))
            .map(read_string)
            .unwrap_or_default(),
        master: get(IFLA_MASTER).and_then(read_u32),
        mtu: get(IFLA_MTU).and_then(read_u32).unwrap_or_default(),
        mac: get(IFLA_ADDRESS).and_then(|b| b.try_into().ok()).map(Mac),
    })
}

/// An rtnetlink socket.
#[derive(Debug)]
pub(crate) struct Route(pub(crate) Socket);

impl Route {
    pub(crate) fn open() -> io::Result<Self> {
        Socket::route().map(Self)
    }

    pub(crate) fn links(&mut self) -> io::Result<Vec<Link>> {
        let mut links = Vec::new();
        let mut request = Messages::new();
        request.add(GETLINK, REQUEST | DUMP, &ifinfo(0, 0, 0, 0), |a| {
            a.u32(IFLA_EXT_MASK, SKIP_STATS);
        });
        self.0.query(request, |message| links.extend(parse_link(message.payload)))?;
        Ok(links)
    }

    pub(crate) fn link(&mut self, name: &str) -> io::Result<Option<Link>> {
        let mut link = None;
        let mut request = Messages::new();
        request.add(GETLINK, REQUEST, &ifinfo(0, 0, 0, 0), |a| {
            a.string(IFLA_IFNAME, name).u32(IFLA_EXT_MASK, SKIP_STATS);
        });
        match self.0.query(request, |message| link = parse_link(message.payload)) {
            Err(error) if error.raw_os_error() == Some(rustix::io::Errno::NODEV.raw_os_error()) => {
                Ok(None)
            }
            result => result.map(|()| link),
        }
    }

    /// All IPv4 addresses of the namespace.
    pub(crate) fn addresses(&mut self) -> io::Result<Vec<Used>> {
        let mut used = Vec::new();
        let mut request = Messages::new();
        request.add(GETADDR, REQUEST | DUMP, &[AF_INET, 0, 0, 0, 0, 0, 0, 0], |_| ());
        self.0.query(request, |message| {
            used.extend((|| {
                let (&prefix, attributes) = (message.payload.get(1)?, message.payload.get(8..)?);
                let interface = read_u32(message.payload.get(4..)?)?;
                let octets = |kind| attribute(attributes, kind)?.first_chunk::<4>().copied();
                let address = Ipv4Addr::from(octets(IFA_ADDRESS)?);
                let local = octets(IFA_LOCAL).map_or(address, Ipv4Addr::from);
                Some(Used { net: Ipv4Net::new(address, prefix).ok()?.trunc(), local, interface })
            })());
        })?;
        Ok(used)
    }

    /// All IPv4 destinations that are routed, but for the default route.
    pub(crate) fn routes(&mut self) -> io::Result<Vec<Used>> {
        let mut used = Vec::new();
        let mut request = Messages::new();
        let mut fixed = [0; 12];
        fixed[0] = AF_INET;
        request.add(GETROUTE, REQUEST | DUMP, &fixed, |_| ());
        self.0.query(request, |message| {
            used.extend((|| {
                let (&prefix, attributes) = (message.payload.get(1)?, message.payload.get(12..)?);
                let local = Ipv4Addr::from(*attribute(attributes, RTA_DST)?.first_chunk::<4>()?);
                let interface = attribute(attributes, RTA_OIF).and_then(read_u32).unwrap_or(0);
                let net = Ipv4Net::new(local, prefix).ok()?;
                (prefix > 0).then_some(Used { net: net.trunc(), local, interface })
            })());
        })?;
        Ok(used)
    }

    /// Creates a bridge that is up and forwards at once.
    pub(crate) fn create_bridge(&mut self, name: &str, mac: Mac, mtu: u32) -> io::Result<()> {
        let mut request = Messages::new();
        let fixed = ifinfo(0, 0, IFF_UP, IFF_UP);
        request.add(NEWLINK, REQUEST | CREATE | EXCL, &fixed, |a| {
            a.string(IFLA_IFNAME, name).bytes(IFLA_ADDRESS, &mac.0).u32(IFLA_MTU, mtu);
            a.nest(IFLA_LINKINFO, |a| {
                a.string(INFO_KIND, "bridge").nest(INFO_DATA, |a| {
                    a.u32(BR_FORWARD_DELAY, 0).u32(BR_STP_STATE, 0);
                });
            });
        });
        self.0.run(request)
    }

    pub(crate) fn set_up(&mut self, index: u32, mtu: Option<u32>) -> io::Result<()> {
        let mut request = Messages::new();
        request.add(NEWLINK, REQUEST, &ifinfo(0, index, IFF_UP, IFF_UP), |a| {
            if let Some(mtu) = mtu {
                a.u32(IFLA_MTU, mtu);
            }
        });
        self.0.run(request)
    }

    pub(crate) fn set_mac(&mut self, index: u32, mac: Mac) -> io::Result<()> {
        let mut request = Messages::new();
        request.add(SETLINK, REQUEST, &ifinfo(0, index, 0, 0), |a| {
            a.bytes(IFLA_ADDRESS, &mac.0);
        });
        self.0.run(request)
    }

    fn address_message(
        messages: &mut Messages,
        kind: u16,
        flags: u16,
        index: u32,
        address: Ipv4Addr,
        prefix: u8,
    ) {
        let mut fixed = [AF_INET, prefix, 0, 0, 0, 0, 0, 0];
        fixed[4..].copy_from_slice(&index.to_ne_bytes());
        messages.add(kind, REQUEST | flags, &fixed, |a| {
            a.bytes(IFA_LOCAL, &address.octets()).bytes(IFA_ADDRESS, &address.octets());
            if let Ok(net) = Ipv4Net::new(address, prefix) {
                a.bytes(IFA_BROADCAST, &net.broadcast().octets());
            }
        });
    }

    pub(crate) fn add_address(&mut self, index: u32, ip: Ipv4Addr, prefix: u8) -> io::Result<()> {
        let mut request = Messages::new();
        Self::address_message(&mut request, NEWADDR, CREATE | REPLACE, index, ip, prefix);
        self.0.run(request)
    }

    pub(crate) fn delete_address(
        &mut self,
        index: u32,
        ip: Ipv4Addr,
        prefix: u8,
    ) -> io::Result<()> {
        let mut request = Messages::new();
        Self::address_message(&mut request, DELADDR, 0, index, ip, prefix);
        self.0.run(request)
    }

    /// Deletes interfaces; one that is already gone is fine.
    pub(crate) fn delete_links(&mut self, indexes: &[u32]) -> io::Result<()> {
        if indexes.is_empty() {
            return Ok(());
        }
        let mut request = Messages::new();
        for &index in indexes {
            request.add(DELLINK, REQUEST, &ifinfo(0, index, 0, 0), |_| ());
        }
        let gone = Some(rustix::io::Errno::NODEV.raw_os_error());
        self.0
            .each(request)?
            .into_iter()
            .find(|result| result.as_ref().is_err_and(|error| error.raw_os_error() != gone))
            .unwrap_or(Ok(()))
    }

    /// Creates a veth pair: `host` here, up and a port of `bridge`; `eth0` in `netns`, not up, as
    /// the kernel can not set up an end before it has the other.
    pub(crate) fn create_veth(
        &mut self,
        config: &NetworkConfig,
        host: &str,
        bridge: u32,
        netns: BorrowedFd<'_>,
        mac: Mac,
    ) -> io::Result<()> {
        let mut request = Messages::new();
        let down = ifinfo(0, 0, 0, 0);
        // The kernel makes a queue per processor if not told otherwise; one is enough.
        let one_queue = |a: &mut crate::nl::Attributes<'_>| {
            a.u32(IFLA_NUM_TX_QUEUES, 1).u32(IFLA_NUM_RX_QUEUES, 1);
        };
        request.add(NEWLINK, REQUEST | CREATE | EXCL, &down, |a| {
            a.string(IFLA_IFNAME, host).u32(IFLA_MTU, config.mtu);
            one_queue(a);
            a.nest(IFLA_LINKINFO, |a| {
                a.string(INFO_KIND, "veth").nest(INFO_DATA, |a| {
                    a.nest(VETH_INFO_PEER, |a| {
                        a.raw(&down).string(IFLA_IFNAME, "eth0").u32(IFLA_MTU, config.mtu);
                        a.bytes(IFLA_ADDRESS, &mac.0);
                        a.bytes(IFLA_NET_NS_FD, &netns.as_raw_fd().to_ne_bytes());
                        one_queue(a);
                    });
                });
            });
        });
        self.0.run(request)?;
        let mut request = Messages::new();
        // A bridge port needs no IPv6 address, nor the packets by which the kernel tests it.
        request.add(SETLINK, REQUEST, &down, |a| {
            a.string(IFLA_IFNAME, host).nest(IFLA_AF_SPEC, |a| {
                a.nest(AF_INET6, |a| {
                    a.u8(INET6_ADDR_GEN_MODE, ADDR_GEN_NONE);
                });
            });
        });
        request.add(SETLINK, REQUEST, &ifinfo(0, 0, IFF_UP, IFF_UP), |a| {
            a.string(IFLA_IFNAME, host).u32(IFLA_MASTER, bridge);
        });
        let mut results = self.0.each(request)?;
        // Without IPv6 in the kernel the first fails, and does not matter.
        results.pop().unwrap_or(Ok(()))
    }

    /// Lets a bridge port send frames back where they came from, which the bridge must do when a
    /// container reaches its own published port and bridged packets pass the packet filter
    /// (`bridge-nf-call-iptables`). With `isolated` the port exchanges no frames with other
    /// isolated ports.
    pub(crate) fn set_port(&mut self, index: u32, isolated: bool) -> io::Result<()> {
        let mut request = Messages::new();
        request.add(SETLINK, REQUEST, &ifinfo(AF_BRIDGE, index, 0, 0), |a| {
            a.nest(IFLA_PROTINFO, |a| {
                a.u8(BRPORT_HAIRPIN, 1).u8(BRPORT_ISOLATED, u8::from(isolated));
            });
        });
        self.0.run(request)
    }

    /// Inside a sandbox: `lo` and `eth0` up, address and default route of `eth0`.
    pub(crate) fn configure(
        &mut self,
        index: u32,
        ip: Ipv4Addr,
        prefix: u8,
        gateway: Ipv4Addr,
    ) -> io::Result<()> {
        let mut request = Messages::new();
        for index in [1, index] {
            request.add(NEWLINK, REQUEST, &ifinfo(0, index, IFF_UP, IFF_UP), |_| ());
        }
        Self::address_message(&mut request, NEWADDR, CREATE | EXCL, index, ip, prefix);
        // family, lengths of prefixes, tos, table main, protocol boot, scope universe, unicast
        let route = [AF_INET, 0, 0, 0, 254, 3, 0, 1, 0, 0, 0, 0];
        request.add(NEWROUTE, REQUEST | CREATE | EXCL, &route, |a| {
            a.bytes(RTA_GATEWAY, &gateway.octets()).u32(RTA_OIF, index);
        });
        self.0.run(request)
    }

    /// Counters of the host's end of a pair, turned round to be the container's.
    pub(crate) fn stats(&mut self, index: u32) -> io::Result<NetworkStats> {
        let mut fixed = [0; 12];
        fixed[4..8].copy_from_slice(&index.to_ne_bytes());
        fixed[8..12].copy_from_slice(&1_u32.to_ne_bytes()); // IFLA_STATS_LINK_64
        let mut request = Messages::new();
        request.add(GETSTATS, REQUEST, &fixed, |_| ());
        let mut stats = NetworkStats::default();
        self.0.query(request, |message| {
            let counters = message.payload.get(12..).and_then(|a| attribute(a, 1));
            let at = |slot: usize| {
                let bytes = counters?.get(slot * 8..)?.first_chunk::<8>()?;
                Some(u64::from_ne_bytes(*bytes))
            };
            // struct rtnl_link_stats64: rx_packets, tx_packets, rx_bytes, tx_bytes, rx_errors,
            // tx_errors, rx_dropped, tx_dropped
            let at = |slot| at(slot).unwrap_or_default();
            stats = NetworkStats {
                rx_packets: at(1),
                tx_packets: at(0),
                rx_bytes: at(3),
                tx_bytes: at(2),
                rx_errors: at(5),
                tx_errors: at(4),
                rx_dropped: at(7),
                tx_dropped: at(6),
            };
        })?;
        Ok(stats)
    }
}
