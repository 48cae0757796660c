//! Host ports: who has which, and the sockets that keep other processes off them.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::os::fd::OwnedFd;

use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketFlags, SocketType, ipproto, sockopt};

use crate::NetError;
use crate::port::{PortBinding, PortMapping, Protocol};
use crate::sysctl;

/// Docker's range for chosen ports where the kernel does not say its own.
const EPHEMERAL: (u16, u16) = (49153, 65535);

/// One published port with what holds it.
#[derive(Debug)]
pub(crate) struct Held {
    pub(crate) binding: PortBinding,
    /// Bound to the host port. IPv4: packets never arrive, they are translated. IPv6: the relay's.
    /// Without one the kernel does not know the protocol, or another process took the port while
    /// no engine ran.
    pub(crate) socket: Option<OwnedFd>,
}

/// All published ports by container address.
#[derive(Debug, Default)]
pub(crate) struct Ports {
    held: HashMap<Ipv4Addr, Vec<Held>>,
    taken: HashMap<(Protocol, u16), Vec<IpAddr>>,
    /// Where the search for a free ephemeral port goes on.
    next: HashMap<Protocol, u16>,
}

fn conflict(a: IpAddr, b: IpAddr) -> bool {
    a.is_ipv4() == b.is_ipv4() && (a == b || a.is_unspecified() || b.is_unspecified())
}

impl Ports {
    fn is_taken(&self, protocol: Protocol, port: u16, address: IpAddr) -> bool {
        self.taken
            .get(&(protocol, port))
            .is_some_and(|all| all.iter().any(|&other| conflict(other, address)))
    }

    /// Reserves the ports of all mappings, or none.
    pub(crate) fn reserve(
        &mut self,
        mappings: &[PortMapping],
        ipv6: bool,
    ) -> Result<Vec<Held>, NetError> {
        let mut all = Vec::with_capacity(mappings.len());
        for mapping in mappings {
            match self.reserve_one(mapping, ipv6) {
                Ok(held) => all.extend(held),
                Err(error) => {
                    self.forget(&all);
                    return Err(error);
                }
            }
        }
        Ok(all)
    }

    fn reserve_one(&mut self, mapping: &PortMapping, ipv6: bool) -> Result<Vec<Held>, NetError> {
        let (start, end) = (mapping.host_port_start, mapping.host_port_end);
        if mapping.container_port == 0 {
            return Err(NetError::BadMapping("container port 0".into()));
        }
        if end < start || (start == 0 && end != 0) {
            return Err(NetError::BadMapping(format!("invalid range of host ports {start}-{end}")));
        }
        let addresses: &[IpAddr] = match mapping.host_ip {
            Some(address) => &[address],
            None if ipv6 => &[IpAddr::V4([0; 4].into()), IpAddr::V6([0; 16].into())],
            None => &[IpAddr::V4([0; 4].into())],
        };
        if start != 0 && start == end {
            let held = self.bind_all(mapping, addresses, start)?;
            return Ok(self.record(held));
        }
        let (low, high, begin) = if start == 0 {
            let (low, high) = ephemeral_range();
            let next = self.next.get(&mapping.protocol).copied().unwrap_or(low);
            (low, high, if (low..=high).contains(&next) { next } else { low })
        } else {
            (start, end, start)
        };
        let mut failure = NetError::AllPortsAllocated;
        for port in (begin..=high).chain(low..begin) {
            match self.bind_all(mapping, addresses, port) {
                Ok(held) => {
                    if start == 0 {
                        self.next.insert(mapping.protocol, port.checked_add(1).unwrap_or(low));
                    }
                    return Ok(self.record(held));
                }
                Err(NetError::PortAllocated { .. }) => {}
                // The next port fails likewise if not the port is the trouble.
                Err(error @ NetError::Bind { source: Errno::ADDRINUSE, .. }) => failure = error,
                Err(error) => return Err(error),
            }
        }
        Err(failure)
    }

    fn bind_all(
        &self,
        mapping: &PortMapping,
        addresses: &[IpAddr],
        port: u16,
    ) -> Result<Vec<Held>, NetError> {
        for &address in addresses {
            if self.is_taken(mapping.protocol, port, address) {
                return Err(NetError::PortAllocated { address, port });
            }
        }
        let bind = |&address: &IpAddr| {
            let socket = bind(address, port, mapping.protocol).map_err(|source| {
                NetError::Bind { address, port, protocol: mapping.protocol, source }
            })?;
            let binding = PortBinding {
                container_port: mapping.container_port,
                protocol: mapping.protocol,
                host_ip: address,
                host_port: port,
            };
            Ok(Held { binding, socket })
        };
        addresses.iter().map(bind).collect()
    }

    fn record(&mut self, held: Vec<Held>) -> Vec<Held> {
        for Held { binding, .. } in &held {
            let key = (binding.protocol, binding.host_port);
            self.taken.entry(key).or_default().push(binding.host_ip);
        }
        held
    }

    /// Undoes [`Ports::reserve`].
    pub(crate) fn forget(&mut self, held: &[Held]) {
        for Held { binding, .. } in held {
            let key = (binding.protocol, binding.host_port);
            if let Some(all) = self.taken.get_mut(&key) {
                if let Some(at) = all.iter().position(|&a| a == binding.host_ip) {
                    all.swap_remove(at);
                }
                if all.is_empty() {
                    self.taken.remove(&key);
                }
            }
        }
    }

    /// Takes over a port that a living container has had; another process in the way is not an
    /// error, since packets are translated before that process could get them.
    pub(crate) fn restore(&mut self, binding: PortBinding) -> Held {
        let PortBinding { host_ip, host_port, protocol, .. } = binding;
        let socket = bind(host_ip, host_port, protocol).unwrap_or_else(|error| {
            tracing::warn!(%host_ip, host_port, %protocol, %error, "published port is in use");
            None
        });
        let mut held = self.record(vec![Held { binding, socket }]);
        held.remove(0)
    }

    pub(crate) fn hold(&mut self, container: Ipv4Addr, held: Vec<Held>) {
        self.held.entry(container).or_default().extend(held);
    }

    /// Frees all ports of a container.
    pub(crate) fn take(&mut self, container: Ipv4Addr) -> Vec<Held> {
        let held = self.held.remove(&container).unwrap_or_default();
        self.forget(&held);
        held
    }

    pub(crate) fn bindings(&self) -> impl Iterator<Item = (Ipv4Addr, PortBinding)> {
        self.held.iter().flat_map(|(&ip, all)| all.iter().map(move |held| (ip, held.binding)))
    }
}

fn ephemeral_range() -> (u16, u16) {
    let range = || {
        let text = sysctl::read("ipv4/ip_local_port_range").ok()?;
        let mut numbers = text.split_whitespace().map(str::parse::<u16>);
        let range = (numbers.next()?.ok()?, numbers.next()?.ok()?);
        (range.0 > 0 && range.0 <= range.1).then_some(range)
    };
    range().unwrap_or(EPHEMERAL)
}

/// Binds a host port. TCP listens too: of two sockets that may share a port only a listening one
/// keeps the other off. `None` if the kernel does not have the protocol, so that nobody else can
/// use the port either.
fn bind(address: IpAddr, port: u16, protocol: Protocol) -> Result<Option<OwnedFd>, Errno> {
    let family = if address.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
    let (kind, number) = match protocol {
        Protocol::Tcp => (SocketType::STREAM, ipproto::TCP),
        Protocol::Udp => (SocketType::DGRAM, ipproto::UDP),
        Protocol::Sctp => (SocketType::STREAM, ipproto::SCTP),
    };
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = match rustix::net::socket_with(family, kind, flags, Some(number)) {
        Err(Errno::PROTONOSUPPORT) if protocol == Protocol::Sctp => return Ok(None),
        result => result?,
    };
    if address.is_ipv6() {
        sockopt::set_ipv6_v6only(&socket, true)?;
    } else {
        silo_sys::netns::drop_incoming(&socket)
            .map_err(|error| Errno::from_io_error(&error).unwrap_or(Errno::IO))?;
    }
    if protocol == Protocol::Tcp {
        // Connections of an earlier owner that linger do not make the port used.
        sockopt::set_socket_reuseaddr(&socket, true)?;
    }
    rustix::net::bind(&socket, &SocketAddr::new(address, port))?;
    if protocol != Protocol::Udp {
        rustix::net::listen(&socket, 4096)?;
    }
    Ok(Some(socket))
}

#[cfg(test)]
mod tests {
    use super::*;

    const LOOPBACK: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

    fn in_private_netns(test: impl FnOnce() + Send) {
        std::thread::scope(|scope| {
            scope.spawn(|| {
                silo_sys::netns::unshare().unwrap();
                test();
            });
        });
    }

    #[test]
    fn ports_are_exclusive_per_address_and_protocol() {
        in_private_netns(|| {
            let mut ports = Ports::default();
            let tcp = PortMapping::new(80, Protocol::Tcp, 8080);
            let first = ports.reserve(std::slice::from_ref(&tcp), false).unwrap();
            assert_eq!(
                ports.reserve(&[tcp.clone().on(LOOPBACK)], false).unwrap_err().to_string(),
                "Bind for 127.0.0.1:8080 failed: port is already allocated"
            );
            ports.reserve(&[PortMapping::new(80, Protocol::Udp, 8080)], false).unwrap();
            // All or none: 8081 is free again after the failure.
            let both = [PortMapping::new(80, Protocol::Tcp, 8081), tcp.clone()];
            assert!(ports.reserve(&both, false).is_err());
            ports.reserve(&both[..1], false).unwrap();
            ports.forget(&first);
            drop(first);
            ports.reserve(&[tcp], false).unwrap();
        });
    }

    #[test]
    fn ports_of_other_processes_are_respected() {
        in_private_netns(|| {
            let mut ports = Ports::default();
            let foreign = std::net::TcpListener::bind("0.0.0.0:9000").unwrap();
            let fixed = PortMapping::new(80, Protocol::Tcp, 9000);
            assert_eq!(
                ports.reserve(std::slice::from_ref(&fixed), false).unwrap_err().to_string(),
                "failed to bind host port 0.0.0.0:9000/tcp: address already in use"
            );
            let range = PortMapping { host_port_end: 9001, ..fixed.clone() };
            let held = ports.reserve(std::slice::from_ref(&range), false).unwrap();
            assert_eq!(held[0].binding.host_port, 9001);
            assert!(std::net::TcpListener::bind("0.0.0.0:9001").is_err());
            assert!(ports.reserve(&[range], false).is_err());
            drop(foreign);
            ports.reserve(&[fixed], false).unwrap();
        });
    }

    #[test]
    fn ephemeral_ports_advance() {
        in_private_netns(|| {
            let mut ports = Ports::default();
            let any = [PortMapping::new(80, Protocol::Tcp, 0)];
            let one = ports.reserve(&any, false).unwrap()[0].binding.host_port;
            let two = ports.reserve(&any, false).unwrap()[0].binding.host_port;
            assert_eq!(two, one + 1);
            assert_eq!(one, ephemeral_range().0);
        });
    }

    #[test]
    fn nonsense_is_refused() {
        let mut ports = Ports::default();
        let good = PortMapping::new(80, Protocol::Tcp, 8000);
        for bad in [
            PortMapping { container_port: 0, ..good.clone() },
            PortMapping { host_port_end: 7999, ..good.clone() },
            PortMapping { host_port_start: 0, ..good },
        ] {
            assert!(matches!(ports.reserve(&[bad], false), Err(NetError::BadMapping(_))));
        }
    }
}
