//! Container networks: the default bridge, its addresses, sandboxes, and published ports.
//!
//! # Contract
//!
//! A [`Network`] belongs to the network namespace of the thread that opened it; all its methods
//! must be called from threads of that namespace. It changes only what is its own: one bridge,
//! the `veth` ports of that bridge, one nftables table of family `ip`, and kernel parameters of
//! that bridge (besides `ip_forward`). The one exception is asked for by
//! [`NetworkConfig::docker_user`]. Everything is done by netlink and by writes below
//! `/proc/sys/net` that are checked to reach procfs; no program is run.
//!
//! A [`Sandbox`] is a network namespace made beforehand: `lo` up, `eth0` with address, Ethernet
//! address and default route, its other end a port of the bridge. It is never used twice. It is
//! held by file descriptor only: when the last descriptor and the last process are gone, the
//! kernel removes it with its interfaces, so that a dying daemon leaves nothing behind but what
//! living containers use. An address is free again when its interface is gone, not before.
//!
//! # The table
//!
//! ```text
//! table ip silo {
//!   set foreign   { type ifname; }                                     # Docker's bridges
//!   map ports     { type inet_proto . inet_service : ipv4_addr . inet_service }
//!   map addrports { type ipv4_addr . inet_proto . inet_service : ipv4_addr . inet_service }
//!   chain raw         { type filter hook prerouting priority raw; }    # 127/8 from the bridge: drop
//!   chain prerouting  { type nat hook prerouting priority dstnat; }    # both maps, 127/8 apart
//!   chain output      { type nat hook output priority dstnat; }        # both maps
//!   chain postrouting { type nat hook postrouting priority srcnat; }   # masquerade
//!   chain forward     { type filter hook forward priority filter; }    # to the bridge: established, dnat, else drop;
//! }                                                                    # to foreign bridges likewise
//! ```
//!
//! A port published on all addresses is an element of `ports`, one published on a certain address
//! an element of `addrports`; publishing never adds a rule. If somebody flushes the table it is
//! written anew at once.
//!
//! # Other packet filters
//!
//! A packet passes only if every table lets it; an accept in ours does not overrule a drop
//! elsewhere. Docker sets the policy of `FORWARD` to drop, for which it provides the chain
//! `DOCKER-USER`: where that exists, now or later, two rules in it accept the bridge's packets,
//! which the chain `forward` above judges in its place. Drops that an administrator or firewalld
//! made are obeyed, and named by [`Network::diagnose`].
//!
//! # Limits
//!
//! IPv6 clients reach published ports by a relay in this process, which ends with the engine and
//! starts again with the next. With `icc` off on a host where bridged packets pass the packet
//! filter (`bridge-nf-call-iptables`), containers do not reach each other's published ports
//! either. SCTP ports are translated, but not kept from other processes by a kernel that has no
//! SCTP sockets.
#![warn(missing_docs)]

mod config;
mod conntrack;
mod diagnose;
mod error;
pub mod files;
mod ipam;
mod network;
mod nft;
mod nl;
mod pool;
mod port;
mod ports;
mod relay;
mod rt;
mod rules;
mod sandbox;
mod sysctl;
mod watch;

pub use config::{Endpoint, Mac, NetworkConfig, NetworkStats, SandboxRequest};
pub use error::NetError;
pub use network::{Finding, Network};
pub use port::{PortBinding, PortMapping, Protocol};
pub use sandbox::{Isolated, Sandbox};
