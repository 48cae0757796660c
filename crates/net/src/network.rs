//! The network: bridge, addresses, published ports, and what survives a restart.

use std::collections::HashMap;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::os::fd::{AsFd, OwnedFd};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use ipnet::Ipv4Net;
use rustix::event::EventfdFlags;
use silo_sys::netns;

use crate::config::{Endpoint, Mac, NetworkConfig, NetworkStats, SandboxRequest};
use crate::ipam::{self, Ipam};
use crate::nft::Nft;
use crate::pool::{self, Pool};
use crate::port::{PortBinding, PortMapping, Protocol};
use crate::ports::{Held, Ports};
use crate::relay::Relay;
use crate::rt::{Link, Route};
use crate::rules::{self, Published};
use crate::sandbox::{Isolated, Sandbox};
use crate::{NetError, conntrack, diagnose, relay, sysctl, watch};

/// How long the engines of a namespace let each other choose subnets. One that is stopped in the
/// middle does not keep the others from starting.
const TURN: Duration = Duration::from_secs(10);

/// Something about the host that keeps containers from being reached, for `silo doctor`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// What is the case.
    pub problem: String,
    /// What to do about it.
    pub remedy: String,
}

/// The default bridge network. All methods take `&self`; share it in an `Arc`.
///
/// Dropping it stops its threads and lets go of the pool; bridge, table and living containers
/// stay as they are.
#[derive(Debug)]
pub struct Network {
    pub(crate) inner: Arc<Inner>,
    threads: Vec<JoinHandle<()>>,
}

/// What the threads share. Locks are taken in the order of the fields, most briefly.
#[derive(Debug)]
pub(crate) struct Inner {
    pub(crate) config: NetworkConfig,
    pub(crate) subnet: Ipv4Net,
    pub(crate) gateway: Ipv4Addr,
    pub(crate) bridge: u32,
    pub(crate) home: OwnedFd,
    /// Wakes the thread that watches the kernel's notifications, to end it.
    pub(crate) stop: OwnedFd,
    /// Held while the network starts: interfaces that nobody knows may be swept only as long as
    /// the pool makes none.
    starting: Mutex<()>,
    pub(crate) pool: Mutex<Pool>,
    pub(crate) pool_changed: Condvar,
    ports: Mutex<Ports>,
    relay: Mutex<Option<Relay>>,
    pub(crate) addresses: Mutex<Addresses>,
    pub(crate) route: Mutex<Route>,
    pub(crate) nft: Mutex<Nft>,
}

/// Addresses and the host interfaces that hold them.
#[derive(Debug)]
pub(crate) struct Addresses {
    pub(crate) ipam: Ipam,
    pub(crate) by_link: HashMap<u32, Ipv4Addr>,
}

/// A poisoned lock means a panic elsewhere; the data are changed in single steps only.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Network {
    /// Creates or takes over the bridge and opens the sockets. Containers that survived an
    /// earlier engine are made known by [`Network::adopt`], which has to come before the first
    /// [`Network::take`]; without survivors it need not be called.
    pub fn open(config: NetworkConfig) -> Result<Self, NetError> {
        config.check()?;
        let home = netns::current().map_err(NetError::namespace("open own"))?;
        let mut route = Route::open().map_err(NetError::netlink("open rtnetlink"))?;
        let nft = Nft::open().map_err(NetError::netlink("open nfnetlink"))?;
        let (bridge, subnet, gateway) = set_up_bridge(&mut route, &config)?;
        let flags = EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK;
        let stop = rustix::event::eventfd(0, flags)
            .map_err(|errno| NetError::netlink("create an eventfd")(errno.into()))?;
        let inner = Arc::new(Inner {
            subnet,
            gateway,
            bridge: bridge.index,
            home,
            stop,
            starting: Mutex::new(()),
            pool: Mutex::new(Pool::new(&config)),
            pool_changed: Condvar::new(),
            ports: Mutex::default(),
            relay: Mutex::new(None),
            addresses: Mutex::new(Addresses {
                ipam: Ipam::new(subnet, gateway),
                by_link: HashMap::new(),
            }),
            route: Mutex::new(route),
            nft: Mutex::new(nft),
            config,
        });
        let mut network = Self { inner, threads: Vec::new() };
        // The sockets are opened here, so that nothing between now and the thread's start is missed.
        let watcher = watch::Watcher::open(&network.inner)?;
        network.spawn("silo-net-watch", move |inner| watcher.run(&inner))?;
        network.spawn("silo-net-pool", |inner| pool::fill(&inner))?;
        Ok(network)
    }

    fn spawn(
        &mut self,
        name: &'static str,
        run: impl FnOnce(Arc<Inner>) + Send + 'static,
    ) -> Result<(), NetError> {
        let inner = Arc::clone(&self.inner);
        let thread = std::thread::Builder::new()
            .name(name.into())
            .spawn(move || run(inner))
            .map_err(NetError::namespace("start a thread"))?;
        self.threads.push(thread);
        Ok(())
    }

    /// Registers the addresses and ports of living containers, writes the table in one
    /// transaction, removes every other port of the bridge, and starts to fill the pool.
    ///
    /// The sandboxes come back in the order given; an endpoint whose interface is gone, or whose
    /// address is not the network's, gives an error of its own.
    pub fn adopt(&self, living: Vec<Endpoint>) -> Result<Vec<Result<Sandbox, NetError>>, NetError> {
        let starting = lock(&self.inner.starting);
        self.adopt_locked(living, &starting)
    }

    fn adopt_locked(
        &self,
        living: Vec<Endpoint>,
        _starting: &MutexGuard<'_, ()>,
    ) -> Result<Vec<Result<Sandbox, NetError>>, NetError> {
        let inner = &self.inner;
        let started = lock(&inner.pool).started;
        let links = lock(&inner.route).links().map_err(NetError::netlink("list interfaces"))?;
        let adopted: Vec<_> =
            living.into_iter().map(|endpoint| inner.adopt_one(endpoint, &links)).collect();
        let known: Vec<u32> = lock(&inner.addresses).by_link.keys().copied().collect();
        let leftovers: Vec<u32> = links
            .iter()
            .filter(|link| !started && link.master == Some(inner.bridge) && link.kind == "veth")
            .map(|link| link.index)
            .filter(|index| !known.contains(index))
            .collect();
        lock(&inner.route)
            .delete_links(&leftovers)
            .map_err(NetError::netlink("delete left-over interfaces"))?;
        inner.write_table()?;
        lock(&inner.pool).started = true;
        inner.pool_changed.notify_all();
        Ok(adopted)
    }

    /// Makes up for an [`Network::adopt`] that was not called because nothing survived.
    fn ensure_started(&self) -> Result<(), NetError> {
        if lock(&self.inner.pool).started {
            return Ok(());
        }
        let starting = lock(&self.inner.starting);
        if lock(&self.inner.pool).started {
            return Ok(());
        }
        self.adopt_locked(Vec::new(), &starting).map(drop)
    }

    /// A fresh sandbox, usually from the pool (microseconds); waits for the pool if it is empty.
    pub fn take(&self) -> Result<Sandbox, NetError> {
        self.ensure_started()?;
        pool::take(&self.inner)
    }

    /// A fresh sandbox with a certain address or Ethernet address.
    pub fn take_with(&self, request: SandboxRequest) -> Result<Sandbox, NetError> {
        self.ensure_started()?;
        let Some(ip) = request.ip else {
            let mut sandbox = pool::take(&self.inner)?;
            if let Some(mac) = request.mac {
                sandbox.set_mac(mac)?;
            }
            return Ok(sandbox);
        };
        // It may just lie in the pool.
        let pooled = lock(&self.inner.pool).remove(ip);
        let mut sandbox = if let Some(sandbox) = pooled {
            self.inner.pool_changed.notify_all();
            sandbox
        } else {
            lock(&self.inner.addresses).ipam.reserve(ip)?;
            pool::make_on_own_thread(&self.inner, ip)?
        };
        if let Some(mac) = request.mac {
            sandbox.set_mac(mac)?;
        }
        Ok(sandbox)
    }

    /// A fresh namespace without network (`--network none`).
    pub fn take_isolated(&self) -> Result<Isolated, NetError> {
        pool::take_isolated(&self.inner)
    }

    /// Publishes ports of a sandbox, all or none. More may be published later.
    pub fn publish(
        &self,
        sandbox: &Sandbox,
        mappings: &[PortMapping],
    ) -> Result<Vec<PortBinding>, NetError> {
        if mappings.is_empty() {
            return Ok(Vec::new());
        }
        let inner = &self.inner;
        let mut ports = lock(&inner.ports);
        let held = ports.reserve(mappings, inner.config.ipv6_relay && has_ipv6())?;
        let published = published(sandbox.ip, &held);
        let bindings = held.iter().map(|h| h.binding).collect();
        let mut result = inner.hold(&mut ports, sandbox.ip, held);
        if result.is_ok() {
            result = inner.change(true, &published);
            drop(ports);
            if let Err(error) = &result {
                // Somebody may just have flushed the table, which then is written anew.
                tracing::warn!(%error, "publish ports");
                result = inner.write_table();
            }
        } else {
            drop(ports);
        }
        if let Err(error) = result {
            self.unpublish(sandbox)?;
            return Err(error);
        }
        Ok(bindings)
    }

    /// Takes back all published ports of a sandbox.
    pub fn unpublish(&self, sandbox: &Sandbox) -> Result<(), NetError> {
        let inner = &self.inner;
        let mut ports = lock(&inner.ports);
        let held = ports.take(sandbox.ip);
        if held.is_empty() {
            return Ok(());
        }
        let relayed: Vec<_> =
            held.iter().map(|h| h.binding).filter(|b| b.host_ip.is_ipv6()).collect();
        if !relayed.is_empty()
            && let Some(relay) = &*lock(&inner.relay)
        {
            relay.remove(relayed);
        }
        // The elements go first, then, with `held`, the sockets.
        let result = inner.change(false, &published(sandbox.ip, &held));
        drop(ports);
        result.or_else(|error| {
            tracing::warn!(%error, "unpublish ports");
            inner.write_table()
        })
    }

    /// Takes back a sandbox's ports and lets go of its namespace. The address is free again when
    /// the kernel has removed the interface, that is after the last process has left.
    pub fn release(&self, sandbox: Sandbox) -> Result<(), NetError> {
        self.unpublish(&sandbox)
    }

    /// Traffic of a sandbox's `eth0` as the container sees it.
    pub fn stats(&self, sandbox: &Sandbox) -> Result<NetworkStats, NetError> {
        let stats = lock(&self.inner.route).stats(sandbox.host_index);
        stats.map_err(|error| {
            if error.raw_os_error() == Some(rustix::io::Errno::NODEV.raw_os_error()) {
                NetError::LinkGone(sandbox.host_interface.clone())
            } else {
                NetError::netlink("read counters")(error)
            }
        })
    }

    /// What of the host stands in the way of this network.
    pub fn diagnose(&self) -> Result<Vec<Finding>, NetError> {
        diagnose::diagnose(&self.inner)
    }

    /// Removes the bridge, its ports, and every rule.
    pub fn remove_all(mut self) -> Result<(), NetError> {
        self.stop();
        let (mut route, mut nft) = (lock(&self.inner.route), lock(&self.inner.nft));
        remove(&mut route, &mut nft, &self.inner.config)
    }

    /// The same for a network that nobody has open. It takes no free addresses.
    pub fn remove(config: &NetworkConfig) -> Result<(), NetError> {
        config.check()?;
        let mut route = Route::open().map_err(NetError::netlink("open rtnetlink"))?;
        let mut nft = Nft::open().map_err(NetError::netlink("open nfnetlink"))?;
        remove(&mut route, &mut nft, config)
    }

    /// The configuration as given to [`Network::open`].
    pub fn config(&self) -> &NetworkConfig {
        &self.inner.config
    }

    /// The network's address range.
    pub fn subnet(&self) -> Ipv4Net {
        self.inner.subnet
    }

    /// The bridge's address.
    pub fn gateway(&self) -> Ipv4Addr {
        self.inner.gateway
    }

    fn stop(&mut self) {
        lock(&self.inner.pool).closed = true;
        self.inner.pool_changed.notify_all();
        relay::wake(&self.inner.stop);
        for thread in self.threads.drain(..) {
            if thread.join().is_err() {
                tracing::error!("a thread of the network panicked");
            }
        }
        lock(&self.inner.relay).take();
        lock(&self.inner.pool).clear();
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        self.stop();
    }
}

impl Inner {
    fn adopt_one(&self, endpoint: Endpoint, links: &[Link]) -> Result<Sandbox, NetError> {
        let link = links
            .iter()
            .find(|link| link.name == endpoint.host_interface && link.master == Some(self.bridge))
            .ok_or_else(|| NetError::LinkGone(endpoint.host_interface.clone()))?;
        let mut addresses = lock(&self.addresses);
        addresses.ipam.reserve(endpoint.ip)?;
        addresses.by_link.insert(link.index, endpoint.ip);
        drop(addresses);
        let mut ports = lock(&self.ports);
        let held = endpoint.bindings.iter().map(|&binding| ports.restore(binding)).collect();
        self.hold(&mut ports, endpoint.ip, held)?;
        tracing::debug!(id = endpoint.id, ip = %endpoint.ip, "adopted");
        Ok(Sandbox {
            netns: endpoint.netns,
            ip: endpoint.ip,
            prefix: self.subnet.prefix_len(),
            gateway: self.gateway,
            mac: endpoint.mac,
            host_interface: endpoint.host_interface,
            host_index: link.index,
        })
    }

    /// Keeps reserved ports, IPv6 ones with the relay.
    fn hold(
        &self,
        ports: &mut Ports,
        container: Ipv4Addr,
        mut held: Vec<Held>,
    ) -> Result<(), NetError> {
        let mut relay = lock(&self.relay);
        let mut result = Ok(());
        for Held { binding, socket } in held.iter_mut().filter(|h| h.binding.host_ip.is_ipv6()) {
            let Some(socket) = socket.take() else { continue };
            if relay.is_none() {
                match Relay::start() {
                    Ok(new) => *relay = Some(new),
                    Err(error) => result = Err(NetError::namespace("start the relay")(error)),
                }
            }
            if let Some(relay) = &*relay {
                relay.add(*binding, SocketAddrV4::new(container, binding.container_port), socket);
            }
        }
        ports.hold(container, held);
        result
    }

    /// Adds or removes elements, and forgets UDP flows that were decided before.
    fn change(&self, add: bool, published: &[Published]) -> Result<(), NetError> {
        let Some(transaction) = rules::change(&self.config.table, add, published) else {
            return Ok(());
        };
        let mut nft = lock(&self.nft);
        nft.commit(transaction).map_err(NetError::netlink("change published ports"))?;
        for Published { binding, .. } in published {
            if binding.protocol == Protocol::Udp && binding.host_ip.is_ipv4() {
                let number = binding.protocol.number();
                if let Err(error) = conntrack::forget(&mut nft.0, number, binding.host_port) {
                    tracing::warn!(%error, port = binding.host_port, "forget UDP flows");
                }
            }
        }
        Ok(())
    }

    /// Writes the whole table anew, in one transaction.
    pub(crate) fn write_table(&self) -> Result<(), NetError> {
        let links = lock(&self.route).links().map_err(NetError::netlink("list interfaces"))?;
        let foreign: Vec<String> =
            links.into_iter().map(|link| link.name).filter(|n| rules::is_dockers(n)).collect();
        let ports = lock(&self.ports);
        let published =
            ports.bindings().map(|(container, binding)| Published { binding, container });
        let transaction = rules::rewrite(&self.config, self.subnet, &foreign, published);
        let mut nft = lock(&self.nft);
        nft.commit(transaction).map_err(NetError::netlink("write the table"))?;
        if self.config.docker_user {
            rules::allow_in_docker_user(&mut nft, &self.config.bridge)
                .map_err(NetError::netlink("add rules to DOCKER-USER"))?;
        }
        Ok(())
    }
}

fn published(container: Ipv4Addr, held: &[Held]) -> Vec<Published> {
    held.iter().map(|h| Published { binding: h.binding, container }).collect()
}

/// Whether the namespace has any IPv6 address, without which `[::]` can not be reached.
fn has_ipv6() -> bool {
    fs_err::read("/proc/thread-self/net/if_inet6").is_ok_and(|text| !text.is_empty())
}

/// Removes the bridge, if it is there, its ports, and every rule.
fn remove(route: &mut Route, nft: &mut Nft, config: &NetworkConfig) -> Result<(), NetError> {
    let links = route.links().map_err(NetError::netlink("list interfaces"))?;
    let bridge = links.iter().find(|link| link.name == config.bridge);
    let removed = match bridge {
        Some(bridge) if bridge.kind != "bridge" => {
            return Err(NetError::NotABridge(config.bridge.clone()));
        }
        Some(bridge) => {
            let ports = links.iter().filter(|link| link.master == Some(bridge.index));
            let indexes: Vec<u32> = ports.chain([bridge]).map(|link| link.index).collect();
            route.delete_links(&indexes).map_err(NetError::netlink("delete the bridge"))
        }
        None => Ok(()),
    };
    let rules = rules::remove(nft, &config.table)
        .and_then(|()| rules::withdraw_from_docker_user(nft, &config.bridge))
        .map_err(NetError::netlink("delete the table"));
    removed.and(rules)
}

/// The bridge with its address, created or taken over.
fn set_up_bridge(
    route: &mut Route,
    config: &NetworkConfig,
) -> Result<(Link, Ipv4Net, Ipv4Addr), NetError> {
    let name = config.bridge.as_str();
    let fail = |what: &str| NetError::netlink(format!("{what} bridge {name}"));
    let existing = route.link(name).map_err(fail("find"))?;
    let bridge = match existing {
        Some(link) if link.kind != "bridge" => return Err(NetError::NotABridge(name.into())),
        Some(link) => link,
        None => {
            let mut mac = [0; 6];
            rustix::rand::getrandom(&mut mac, rustix::rand::GetRandomFlags::empty())
                .map_err(|errno| fail("name")(errno.into()))?;
            mac[..2].copy_from_slice(&[0x02, 0x42]);
            route.create_bridge(name, Mac(mac), config.mtu).map_err(fail("create"))?;
            let link = route.link(name).map_err(fail("find"))?;
            link.ok_or_else(|| NetError::LinkGone(name.into()))?
        }
    };
    route.set_up(bridge.index, Some(config.mtu)).map_err(fail("set up"))?;

    // No IPv6 on the bridge: no address of the host for containers to reach, no router advertised
    // by one of them believed.
    sysctl::set_if_present(&format!("ipv6/conf/{name}/accept_ra"), "0")?;
    sysctl::set_if_present(&format!("ipv6/conf/{name}/disable_ipv6"), "1")?;
    // Replies to packets from 127.0.0.1 to published ports come back by the bridge.
    sysctl::set(&format!("ipv4/conf/{name}/route_localnet"), "1")?;
    if config.ip_forward {
        sysctl::set("ipv4/ip_forward", "1")?;
    }

    // Engines choose one after the other: what one is about to take, another does not see yet.
    let turn = netns::current().map_err(NetError::namespace("open own"))?;
    silo_sys::lock::exclusive(&turn, TURN).map_err(NetError::namespace("lock"))?;
    let (subnet, gateway) = assign_address(route, config, bridge.index)?;
    Ok((bridge, subnet, gateway))
}

fn assign_address(
    route: &mut Route,
    config: &NetworkConfig,
    bridge: u32,
) -> Result<(Ipv4Net, Ipv4Addr), NetError> {
    let mut refused: Vec<Ipv4Net> = Vec::new();
    loop {
        let mut used = route.addresses().map_err(NetError::netlink("list addresses"))?;
        let own: Vec<_> = used.iter().filter(|u| u.interface == bridge).copied().collect();
        used.extend(route.routes().map_err(NetError::netlink("list routes"))?);
        let others: Vec<_> = used.into_iter().filter(|u| u.interface != bridge).collect();
        let clashes = |net: Ipv4Net| others.iter().find(|u| ipam::overlap(u.net, net));

        let kept = own.iter().find(|u| u.net.prefix_len() <= 30).map(|u| u.net);
        let subnet = match (config.subnet, kept) {
            (Some(subnet), _) => subnet.trunc(),
            (None, Some(kept)) if !refused.contains(&kept) => kept,
            (None, _) => ipam::default_pools()
                .find(|&pool| clashes(pool).is_none() && !refused.contains(&pool))
                .ok_or(NetError::NoFreeSubnet)?,
        };
        let first = Ipv4Addr::from(u32::from(subnet.network()) + 1);
        let kept_gateway = own.iter().find(|u| u.net == subnet).map(|u| u.local);
        let gateway = config.gateway.or(kept_gateway).unwrap_or(first);
        for stale in own.iter().filter(|u| u.net != subnet || u.local != gateway) {
            route
                .delete_address(bridge, stale.local, stale.net.prefix_len())
                .map_err(NetError::netlink("delete an address of the bridge"))?;
        }
        if kept_gateway != Some(gateway) {
            route
                .add_address(bridge, gateway, subnet.prefix_len())
                .map_err(NetError::netlink("add the bridge's address"))?;
        } else if config.subnet.is_some() || kept == Some(subnet) {
            return Ok((subnet, gateway));
        }
        if config.subnet.is_some() {
            return Ok((subnet, gateway));
        }
        // An engine that knows of no turns may have chosen the same at the same time; the younger
        // bridge gives way.
        let addresses = route.addresses().map_err(NetError::netlink("list addresses"))?;
        let older = |u: &crate::rt::Used| u.interface < bridge && ipam::overlap(u.net, subnet);
        if !addresses.iter().any(older) {
            return Ok((subnet, gateway));
        }
        refused.push(subnet);
        route
            .delete_address(bridge, gateway, subnet.prefix_len())
            .map_err(NetError::netlink("delete an address of the bridge"))?;
    }
}

impl Sandbox {
    fn set_mac(&mut self, mac: Mac) -> Result<(), NetError> {
        netns::run_in(self.netns.as_fd(), || {
            let mut route = Route::open()?;
            let link = route.link("eth0")?.ok_or(std::io::ErrorKind::NotFound)?;
            route.set_mac(link.index, mac)
        })
        .map_err(NetError::netlink("set the Ethernet address"))?;
        self.mac = mac;
        Ok(())
    }
}
