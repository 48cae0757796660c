//! What of the host keeps packets from containers.

use crate::NetError;
use crate::network::{Finding, Inner, lock};
use crate::rules::{DOCKER_USER, FILTER};
use crate::sysctl;

pub(crate) fn diagnose(inner: &Inner) -> Result<Vec<Finding>, NetError> {
    let bridge = inner.config.bridge.as_str();
    let mut findings = Vec::new();
    let mut find = |problem: String, remedy: String| findings.push(Finding { problem, remedy });

    if sysctl::read("ipv4/ip_forward").is_ok_and(|value| value == "0") {
        find(
            "forwarding of IPv4 is off: containers reach nothing outside of the host".into(),
            "sysctl -w net.ipv4.ip_forward=1".into(),
        );
    }
    let mut nft = lock(&inner.nft);
    if !nft.has_table(&inner.config.table).map_err(NetError::netlink("find the table"))? {
        find(
            format!("the nftables table ip {} is missing", inner.config.table),
            "restart the engine; it writes its table when it starts".into(),
        );
    }
    let chains =
        nft.dropping_forward_chains().map_err(NetError::netlink("list the packet filter"))?;
    for (table, chain) in chains.into_iter().filter(|(table, _)| *table != inner.config.table) {
        let helped = table == FILTER
            && nft
                .has_chain(FILTER, DOCKER_USER)
                .and_then(|has| Ok(has && crate::rules::is_allowed(&mut nft, bridge)?))
                .map_err(NetError::netlink("list DOCKER-USER"))?;
        if !helped {
            find(
                format!(
                    "table {table} drops forwarded packets that its chain {chain} does not \
                     accept: published ports and outgoing connections of containers are blocked"
                ),
                format!(
                    "accept packets of the bridge there, for instance: \
                     iptables -I FORWARD -i {bridge} -j ACCEPT; \
                     iptables -I FORWARD -o {bridge} -j ACCEPT"
                ),
            );
        }
    }
    let legacy = fs_err::read_to_string("/proc/thread-self/net/ip_tables_names")
        .is_ok_and(|tables| tables.lines().any(|table| table == FILTER));
    if legacy {
        find(
            "the legacy iptables filter table is in use; if its FORWARD policy is DROP \
             (Docker sets it so), containers are cut off"
                .into(),
            format!(
                "iptables-legacy -I FORWARD -i {bridge} -j ACCEPT; \
                 iptables-legacy -I FORWARD -o {bridge} -j ACCEPT"
            ),
        );
    }
    if nft.has_inet_table("firewalld").map_err(NetError::netlink("find firewalld"))? {
        find(
            "firewalld is active and rejects forwarded packets of interfaces without a zone".into(),
            format!(
                "firewall-cmd --permanent --zone=trusted --add-interface={bridge} && firewall-cmd --reload"
            ),
        );
    }
    Ok(findings)
}
