//! Sandboxes made beforehand.
//!
//! One thread makes them, one after the other: most of the work is done under locks of the kernel
//! that would serialise several. It refills once a container that took one has had the time to
//! start, since it would compete with that start for those locks and for the processor; at once,
//! when half of the stock is gone. It keeps more when a burst has emptied the pool.

use std::collections::VecDeque;
use std::net::Ipv4Addr;
use std::os::fd::AsFd;
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use silo_sys::netns;

use crate::config::{Mac, NetworkConfig};
use crate::network::{Inner, lock};
use crate::rt::Route;
use crate::sandbox::{Isolated, Sandbox};
use crate::{NetError, sysctl};

/// After this long without a take, the pool shrinks to its size at rest.
const CALM: Duration = Duration::from_mins(1);

/// How long after a take the stock is refilled, unless it runs low before.
const REST: Duration = Duration::from_millis(25);

/// Ready sandboxes, and how many of them are wanted.
#[derive(Debug)]
pub(crate) struct Pool {
    ready: VecDeque<Sandbox>,
    isolated: VecDeque<Isolated>,
    min: usize,
    max: usize,
    target: usize,
    isolated_target: usize,
    /// Takers who found nothing.
    waiting: usize,
    isolated_waiting: usize,
    /// Why the last one could not be made, and how many attempts had failed by then.
    failure: Option<Arc<NetError>>,
    failures: u64,
    pub(crate) started: bool,
    pub(crate) closed: bool,
}

impl Pool {
    pub(crate) fn new(config: &NetworkConfig) -> Self {
        Self {
            ready: VecDeque::new(),
            isolated: VecDeque::new(),
            min: config.pool_min,
            max: config.pool_max.max(config.pool_min),
            target: config.pool_min,
            isolated_target: 0,
            waiting: 0,
            isolated_waiting: 0,
            failure: None,
            failures: 0,
            started: false,
            closed: false,
        }
    }

    /// Takes the ready sandbox with a certain address.
    pub(crate) fn remove(&mut self, ip: Ipv4Addr) -> Option<Sandbox> {
        let at = self.ready.iter().position(|sandbox| sandbox.ip == ip)?;
        self.ready.remove(at)
    }

    pub(crate) fn clear(&mut self) {
        self.ready.clear();
        self.isolated.clear();
    }

    fn wants(&self) -> Option<Want> {
        // Those who wait for a sandbox come first; the rest is stock.
        if self.isolated_waiting > self.isolated.len() {
            return Some(Want::Isolated);
        }
        if !self.started {
            return None;
        }
        let broken = self.failure.is_some() && self.waiting == 0;
        if self.ready.len() < self.target.max(self.waiting) && !broken {
            return Some(Want::Sandbox);
        }
        (self.isolated.len() < self.isolated_target).then_some(Want::Isolated)
    }

    /// Whether somebody waits, or will soon have to.
    fn runs_low(&self) -> bool {
        self.waiting > 0
            || self.isolated_waiting > 0
            || self.ready.len() * 2 < self.target
            || self.isolated.len() * 2 < self.isolated_target
    }
}

#[derive(Debug, Clone, Copy)]
enum Want {
    Sandbox,
    Isolated,
}

/// A ready sandbox, or the next one that is made.
pub(crate) fn take(inner: &Inner) -> Result<Sandbox, NetError> {
    let mut pool = lock(&inner.pool);
    if let Some(sandbox) = pool.ready.pop_front() {
        inner.pool_changed.notify_all();
        return Ok(sandbox);
    }
    pool.target = (pool.target * 2).clamp(pool.min.max(1), pool.max.max(1));
    pool.waiting += 1;
    let failures = pool.failures;
    inner.pool_changed.notify_all();
    let result = loop {
        if pool.closed {
            break Err(NetError::Closed);
        }
        if let Some(sandbox) = pool.ready.pop_front() {
            break Ok(sandbox);
        }
        if pool.failures > failures {
            // The others who wait learn of it likewise.
            break Err(pool.failure.clone().map_or(NetError::Closed, NetError::Shared));
        }
        pool = inner.pool_changed.wait(pool).unwrap_or_else(PoisonError::into_inner);
    };
    pool.waiting -= 1;
    result
}

/// A ready namespace without network, or the next one that is made.
pub(crate) fn take_isolated(inner: &Inner) -> Result<Isolated, NetError> {
    let mut pool = lock(&inner.pool);
    // Whoever uses one will use more.
    pool.isolated_target = pool.min;
    pool.isolated_waiting += 1;
    let failures = pool.failures;
    inner.pool_changed.notify_all();
    let result = loop {
        if pool.closed {
            break Err(NetError::Closed);
        }
        if let Some(isolated) = pool.isolated.pop_front() {
            break Ok(isolated);
        }
        if pool.failures > failures {
            break Err(pool.failure.clone().map_or(NetError::Closed, NetError::Shared));
        }
        pool = inner.pool_changed.wait(pool).unwrap_or_else(PoisonError::into_inner);
    };
    pool.isolated_waiting -= 1;
    result
}

/// The body of the thread that fills the pool.
pub(crate) fn fill(inner: &Arc<Inner>) {
    let mut pool = lock(&inner.pool);
    let mut rested = false;
    loop {
        if pool.closed {
            return;
        }
        let Some(want) = pool.wants() else {
            let (guard, wait) =
                inner.pool_changed.wait_timeout(pool, CALM).unwrap_or_else(PoisonError::into_inner);
            pool = guard;
            if wait.timed_out() && pool.ready.len() > pool.min {
                pool.target = pool.min;
                let keep = pool.min;
                let surplus = pool.ready.split_off(keep);
                drop(pool);
                drop(surplus);
                pool = lock(&inner.pool);
            }
            rested = false;
            continue;
        };
        if !rested && !pool.runs_low() {
            let (guard, wait) =
                inner.pool_changed.wait_timeout(pool, REST).unwrap_or_else(PoisonError::into_inner);
            pool = guard;
            rested = wait.timed_out();
            continue;
        }
        drop(pool);
        let made = match want {
            Want::Sandbox => next(inner).map(|sandbox| (Some(sandbox), None)),
            Want::Isolated => make_isolated(inner).map(|isolated| (None, Some(isolated))),
        };
        pool = lock(&inner.pool);
        match made {
            Ok((sandbox, isolated)) => {
                pool.failure = None;
                pool.ready.extend(sandbox);
                pool.isolated.extend(isolated);
            }
            Err(error) => {
                tracing::warn!(%error, "prepare a sandbox");
                pool.failure = Some(Arc::new(error));
                pool.failures += 1;
            }
        }
        inner.pool_changed.notify_all();
    }
}

fn next(inner: &Inner) -> Result<Sandbox, NetError> {
    let ip = lock(&inner.addresses).ipam.allocate()?;
    make(inner, ip)
}

/// Makes a sandbox for an address that is reserved already, when the caller must not wait for
/// the pool's thread.
pub(crate) fn make_on_own_thread(inner: &Inner, ip: Ipv4Addr) -> Result<Sandbox, NetError> {
    std::thread::scope(|scope| {
        scope.spawn(|| make(inner, ip)).join().unwrap_or(Err(NetError::Closed))
    })
}

fn make_isolated(inner: &Inner) -> Result<Isolated, NetError> {
    let isolated = (|| {
        netns::unshare()?;
        let netns = netns::current()?;
        Route::open()?.set_up(1, None)?;
        Ok(Isolated { netns })
    })()
    .map_err(NetError::namespace("create"));
    netns::enter(inner.home.as_fd()).map_err(NetError::namespace("return"))?;
    isolated
}

/// Makes a sandbox with `ip`, which is given back on failure. Leaves the thread where it was.
fn make(inner: &Inner, ip: Ipv4Addr) -> Result<Sandbox, NetError> {
    let made = make_pair(inner, ip);
    // Back home also because a thread keeps its namespace alive.
    let home = netns::enter(inner.home.as_fd()).map_err(NetError::namespace("return"));
    let sandbox = made.inspect_err(|_| lock(&inner.addresses).ipam.free(ip))?;
    lock(&inner.addresses).by_link.insert(sandbox.host_index, ip);
    home?;
    Ok(sandbox)
}

fn make_pair(inner: &Inner, ip: Ipv4Addr) -> Result<Sandbox, NetError> {
    netns::unshare().map_err(NetError::namespace("create"))?;
    let netns = netns::current().map_err(NetError::namespace("open"))?;
    let mut inside = Route::open().map_err(NetError::netlink("open rtnetlink in a sandbox"))?;
    // Before there is an interface, so that none ever has an IPv6 address.
    sysctl::set_if_present("ipv6/conf/all/disable_ipv6", "1")?;
    // The host may tell a container that it reaches a published port's address by a neighbour
    // on the bridge, where the packet in fact went; there is nobody of that address.
    sysctl::set("ipv4/conf/all/accept_redirects", "0")?;
    sysctl::set("ipv4/conf/default/accept_redirects", "0")?;

    let mac = Mac::from_ipv4(ip);
    let mut outside = lock(&inner.route);
    let (host_interface, host) = loop {
        let mut random = [0; 4];
        rustix::rand::getrandom(&mut random, rustix::rand::GetRandomFlags::empty())
            .map_err(|errno| NetError::netlink("name an interface")(errno.into()))?;
        let name = format!("veth{:07x}", u32::from_ne_bytes(random) >> 4);
        match outside.create_veth(&inner.config, &name, inner.bridge, netns.as_fd(), mac) {
            Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => continue,
            result => result.map_err(NetError::netlink("create a veth pair"))?,
        }
        let link = outside.link(&name).map_err(NetError::netlink("find the new interface"))?;
        let index = link.ok_or_else(|| NetError::LinkGone(name.clone()))?.index;
        break (name, index);
    };
    outside
        .set_port(host, !inner.config.icc)
        .map_err(NetError::netlink("configure a bridge port"))?;
    drop(outside);

    let prefix = inner.subnet.prefix_len();
    let eth0 = inside.link("eth0").map_err(NetError::netlink("find eth0"))?;
    let eth0 = eth0.ok_or_else(|| NetError::LinkGone("eth0".into()))?.index;
    inside
        .configure(eth0, ip, prefix, inner.gateway)
        .map_err(NetError::netlink("configure a sandbox"))?;
    let gateway = inner.gateway;
    Ok(Sandbox { netns, ip, prefix, gateway, mac, host_interface, host_index: host })
}
