//! Silo's own table, and the two rules in Docker's chain.

use std::io;
use std::net::{IpAddr, Ipv4Addr};

use ipnet::Ipv4Net;

use crate::config::NetworkConfig;
use crate::nft::{
    CT_ESTABLISHED_RELATED, CT_STATUS_DNAT, Ct, Hook, Nft, TYPE_IFNAME, TYPE_IPV4, TYPE_PORT,
    TYPE_PROTO, Transaction, Verdict, concat,
};
use crate::port::PortBinding;

/// Bridges of Docker.
const FOREIGN: &str = "foreign";
const PORTS: &str = "ports";
const ADDRESS_PORTS: &str = "addrports";
/// Docker's table and chain for the administrator's rules, as iptables-nft names them.
pub(crate) const FILTER: &str = "filter";
pub(crate) const DOCKER_USER: &str = "DOCKER-USER";

const PREROUTING: u32 = 0;
const FORWARD: u32 = 2;
const OUTPUT: u32 = 3;
const POSTROUTING: u32 = 4;

/// A host port that leads to a container.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Published {
    pub(crate) binding: PortBinding,
    pub(crate) container: Ipv4Addr,
}

impl Published {
    /// Map, key and value of the element; `None` for an IPv6 host address.
    fn element(&self) -> Option<(&'static str, Vec<u8>, [u8; 8])> {
        let IpAddr::V4(host) = self.binding.host_ip else { return None };
        let mut key = Vec::with_capacity(12);
        let map = if host.is_unspecified() {
            PORTS
        } else {
            key.extend_from_slice(&host.octets());
            ADDRESS_PORTS
        };
        let [high, low] = self.binding.host_port.to_be_bytes();
        key.extend_from_slice(&[self.binding.protocol.number(), 0, 0, 0, high, low, 0, 0]);
        let [a, b, c, d] = self.container.octets();
        let [high, low] = self.binding.container_port.to_be_bytes();
        Some((map, key, [a, b, c, d, high, low, 0, 0]))
    }
}

fn loopback() -> Ipv4Net {
    Ipv4Net::new_assert(Ipv4Addr::new(127, 0, 0, 0), 8)
}

/// The transaction that replaces the whole table.
pub(crate) fn rewrite(
    config: &NetworkConfig,
    subnet: Ipv4Net,
    foreign: &[String],
    published: impl IntoIterator<Item = Published>,
) -> Transaction {
    let (table, bridge) = (config.table.as_str(), config.bridge.as_str());
    let mut t = Transaction::new();
    // Adding first makes the deletion right whether or not the table exists.
    t.add_table(table);
    t.delete_table(table);
    t.add_table(table);

    t.add_set(table, FOREIGN, 3, (TYPE_IFNAME, 16), None);
    let target = (concat(&[TYPE_IPV4, TYPE_PORT]), 8);
    t.add_set(table, PORTS, 1, (concat(&[TYPE_PROTO, TYPE_PORT]), 8), Some(target));
    let key = (concat(&[TYPE_IPV4, TYPE_PROTO, TYPE_PORT]), 12);
    t.add_set(table, ADDRESS_PORTS, 2, key, Some(target));

    let nat = |number, priority| Hook { kind: "nat", number, priority };
    let filter = |number, priority| Hook { kind: "filter", number, priority };
    t.add_chain(table, "raw", filter(PREROUTING, -300));
    t.add_chain(table, "prerouting", nat(PREROUTING, -100));
    t.add_chain(table, "output", nat(OUTPUT, -100));
    t.add_chain(table, "postrouting", nat(POSTROUTING, 100));
    t.add_chain(table, "forward", filter(FORWARD, 0));

    // The bridge routes 127/8 so that the host can use published ports by 127.0.0.1; what comes
    // from a container must never get there.
    t.add_rule(table, "raw", |r| {
        r.from(bridge).destination(loopback()).verdict(Verdict::Drop);
    });
    // The host's own packets to 127/8 were translated in `output`. Others, which some foreign
    // setting lets in, must not reach ports that are published on 127.0.0.1 only.
    t.add_rule(table, "prerouting", |r| {
        r.destination(loopback()).verdict(Verdict::Return);
    });
    for chain in ["prerouting", "output"] {
        t.add_rule(table, chain, |r| {
            r.load_target(true).map(ADDRESS_PORTS).dnat();
        });
        t.add_rule(table, chain, |r| {
            r.local_target().load_target(false).map(PORTS).dnat();
        });
    }

    // The container can answer neither 127.0.0.1 nor, past the bridge, a neighbour who thinks
    // that it talks to the host.
    for source in [loopback(), subnet] {
        t.add_rule(table, "postrouting", |r| {
            r.source(source).to(bridge).connection(Ct::Status, CT_STATUS_DNAT).masquerade();
        });
    }
    if config.ip_masq {
        t.add_rule(table, "postrouting", |r| {
            r.source(subnet).not_to(bridge).masquerade();
        });
    }

    t.add_rule(table, "forward", |r| {
        r.to(bridge).connection(Ct::State, CT_ESTABLISHED_RELATED).verdict(Verdict::Accept);
    });
    t.add_rule(table, "forward", |r| {
        r.to(bridge).connection(Ct::Status, CT_STATUS_DNAT).verdict(Verdict::Accept);
    });
    if config.icc {
        t.add_rule(table, "forward", |r| {
            r.from(bridge).to(bridge).verdict(Verdict::Accept);
        });
    }
    t.add_rule(table, "forward", |r| {
        r.to(bridge).verdict(Verdict::Drop);
    });
    // Where Docker drops what it does not know we ask it to let our packets through (see
    // `allow_in_docker_user`); its own containers stay as private as they were.
    t.add_rule(table, "forward", |r| {
        r.from(bridge)
            .out_of(FOREIGN)
            .connection(Ct::State, CT_ESTABLISHED_RELATED)
            .verdict(Verdict::Accept);
    });
    t.add_rule(table, "forward", |r| {
        r.from(bridge)
            .out_of(FOREIGN)
            .connection(Ct::Status, CT_STATUS_DNAT)
            .verdict(Verdict::Accept);
    });
    t.add_rule(table, "forward", |r| {
        r.from(bridge).out_of(FOREIGN).verdict(Verdict::Drop);
    });
    for name in foreign {
        add_foreign(&mut t, table, name);
    }
    add_elements(&mut t, table, published);
    t
}

/// Whether an interface is, by its name, a bridge of Docker's.
pub(crate) fn is_dockers(name: &str) -> bool {
    let user_defined = |id: &str| id.len() == 12 && id.bytes().all(|b| b.is_ascii_hexdigit());
    name == "docker0" || name.strip_prefix("br-").is_some_and(user_defined)
}

/// Makes a bridge of Docker's known to the table.
pub(crate) fn add_foreign(t: &mut Transaction, table: &str, name: &str) {
    let mut key = name.as_bytes().to_vec();
    key.resize(16, 0);
    t.add_element(table, FOREIGN, &key, None);
}

/// Adds the elements of published ports to a transaction.
fn add_elements(t: &mut Transaction, table: &str, published: impl IntoIterator<Item = Published>) {
    for (map, key, data) in published.into_iter().filter_map(|p| p.element()) {
        t.add_element(table, map, &key, Some(&data));
    }
}

/// The transaction that adds or removes published ports; `None` if none of them is IPv4.
pub(crate) fn change(table: &str, add: bool, published: &[Published]) -> Option<Transaction> {
    let elements: Vec<_> = published.iter().filter_map(Published::element).collect();
    if elements.is_empty() {
        return None;
    }
    let mut t = Transaction::new();
    for (map, key, data) in elements {
        if add {
            t.add_element(table, map, &key, Some(&data));
        } else {
            t.delete_element(table, map, &key);
        }
    }
    Some(t)
}

/// Deletes the table, if there is one.
pub(crate) fn remove(nft: &mut Nft, table: &str) -> io::Result<()> {
    let mut t = Transaction::new();
    t.add_table(table);
    t.delete_table(table);
    nft.commit(t)
}

fn comment(bridge: &str) -> String {
    format!("silo {bridge}")
}

/// Lets the bridge's packets pass where Docker set the policy of forwarding to drop: two rules in
/// `DOCKER-USER`, the chain Docker made for others. Whether they were added now.
///
/// They have the form in which iptables reads its own rules, so that Docker's tools still
/// understand the table. They accept all of the bridge's packets because the chain `forward`
/// of our table judges them anyway, and a drop there stands.
pub(crate) fn allow_in_docker_user(nft: &mut Nft, bridge: &str) -> io::Result<bool> {
    if !nft.has_chain(FILTER, DOCKER_USER)? || is_allowed(nft, bridge)? {
        return Ok(false);
    }
    let mut t = Transaction::new();
    t.insert_rule(FILTER, DOCKER_USER, &comment(bridge), |r| {
        r.from(bridge).counter().verdict(Verdict::Accept);
    });
    t.insert_rule(FILTER, DOCKER_USER, &comment(bridge), |r| {
        r.to(bridge).counter().verdict(Verdict::Accept);
    });
    nft.commit(t)?;
    Ok(true)
}

/// Whether `DOCKER-USER` has our rules.
pub(crate) fn is_allowed(nft: &mut Nft, bridge: &str) -> io::Result<bool> {
    Ok(!nft.rules_with_comment(FILTER, DOCKER_USER, &comment(bridge))?.is_empty())
}

/// Removes what [`allow_in_docker_user`] added.
pub(crate) fn withdraw_from_docker_user(nft: &mut Nft, bridge: &str) -> io::Result<()> {
    if !nft.has_chain(FILTER, DOCKER_USER)? {
        return Ok(());
    }
    let handles = nft.rules_with_comment(FILTER, DOCKER_USER, &comment(bridge))?;
    if handles.is_empty() {
        return Ok(());
    }
    let mut t = Transaction::new();
    for handle in handles {
        t.delete_rule(FILTER, DOCKER_USER, handle);
    }
    nft.commit(t)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::port::Protocol;

    #[test]
    fn elements_are_padded_concatenations() {
        let binding = PortBinding {
            container_port: 80,
            protocol: Protocol::Udp,
            host_ip: [0, 0, 0, 0].into(),
            host_port: 0x1f90,
        };
        let container = [10, 0, 0, 2].into();
        let all = Published { binding, container };
        let value = [10, 0, 0, 2, 0, 80, 0, 0];
        assert_eq!(all.element(), Some((PORTS, vec![17, 0, 0, 0, 0x1f, 0x90, 0, 0], value)));
        let one = Published {
            binding: PortBinding { host_ip: [127, 0, 0, 1].into(), ..binding },
            container,
        };
        let key = vec![127, 0, 0, 1, 17, 0, 0, 0, 0x1f, 0x90, 0, 0];
        assert_eq!(one.element(), Some((ADDRESS_PORTS, key, value)));
        let v6 = PortBinding { host_ip: "::".parse().unwrap(), ..binding };
        assert_eq!(Published { binding: v6, container }.element(), None);
    }
}
