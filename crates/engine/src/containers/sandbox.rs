//! The network of a container that starts: its namespace, address, ports, and the three files in
//! /etc that tell of them.

use std::net::IpAddr;
use std::os::fd::OwnedFd;
use std::path::PathBuf;

use silo_net::files::{self, DnsOptions, ResolverReach};
use silo_net::{PortMapping, Protocol, Sandbox};
use silo_types::Error;
use silo_types::id::random_hex;

use super::validate;
use crate::container::{Container, Record};
use crate::engine::Engine;
use crate::networks::{Attachment, BridgeEnd};
use crate::spec::Join;
use crate::spec::mounts::Extra;

/// The network of one run of a container.
#[derive(Debug)]
pub(crate) struct Prepared {
    /// What the specification says about the network namespace.
    pub(crate) join: Join,
    /// The namespace that the shim joins.
    pub(crate) netns: Option<OwnedFd>,
    /// The sandbox, to be released at the end.
    pub(crate) sandbox: Option<Sandbox>,
    /// What the state shows.
    pub(crate) attachment: Option<Attachment>,
    /// The files of /etc.
    pub(crate) files: Vec<Extra>,
    /// Variables that tell of linked containers.
    pub(crate) env: Vec<String>,
}

fn networking(error: &impl std::fmt::Display) -> Error {
    // docker wording
    Error::internal(format!("failed to set up container networking: {error}"))
}

impl Engine {
    /// Makes the network of a container that starts.
    pub(crate) fn prepare_network(
        &self,
        container: &Container,
        record: &Record,
    ) -> Result<Prepared, Error> {
        let mode = record.host_config.network_mode.as_str();
        if let Some(other) = validate::container_of(mode) {
            return self.join_network(container, other);
        }
        let mode = if record.config.network_disabled {
            "none"
        } else {
            crate::networks::name_of_mode(mode)
        };
        let Some(known) = self.networks.find(mode) else {
            return Err(Error::not_found(format!("network {mode} not found")));
        };
        let links = self.links(record)?;
        let mut attachment = Attachment {
            network: known.to_owned(),
            network_id: self.networks.id(known).unwrap_or_default().to_owned(),
            endpoint_id: random_hex(32),
            sandbox_id: random_hex(32),
            bridge: None,
            bindings: Vec::new(),
        };
        let writable = !record.host_config.readonly_rootfs;
        let (mut join, mut netns, mut sandbox) = (Join::New, None, None);
        let mut own: Vec<(IpAddr, String)> = Vec::new();
        let mut reach = ResolverReach::Host;
        match known {
            "host" => join = Join::Host,
            "none" => match self.networks.bridge() {
                Ok(bridge) => {
                    let isolated = bridge.take_isolated().map_err(|e| networking(&e))?;
                    netns = Some(isolated.into_netns());
                }
                // The runtime makes a namespace of its own then.
                Err(_) => netns = None,
            },
            _ => {
                reach = ResolverReach::OwnNetwork { ipv6: false };
                let bridge = self.networks.bridge()?;
                let taken =
                    bridge.take_with(wanted_addresses(record)?).map_err(|e| networking(&e))?;
                let mappings = port_mappings(record)?;
                if !mappings.is_empty() {
                    attachment.bindings = match bridge.publish(&taken, &mappings) {
                        Ok(bindings) => bindings,
                        Err(error) => {
                            release(bridge, taken);
                            return Err(networking(&format!(
                                "driver failed programming external connectivity on endpoint {} ({}): {}",
                                record.name,
                                attachment.endpoint_id,
                                explain(&error)
                            )));
                        }
                    };
                }
                own.push((taken.ip().into(), host_names(record)));
                attachment.bridge = Some(BridgeEnd {
                    ip: taken.ip(),
                    prefix: taken.prefix(),
                    gateway: taken.gateway(),
                    mac: taken.mac().to_string(),
                    host_interface: taken.host_interface().to_owned(),
                });
                match taken.netns().try_clone_to_owned() {
                    Ok(fd) => netns = Some(fd),
                    Err(error) => {
                        release(bridge, taken);
                        return Err(networking(&error));
                    }
                }
                sandbox = Some(taken);
            }
        }
        let written =
            self.write_network_files(container, record, known == "host", &own, links.hosts, reach);
        if let Err(error) = written {
            if let (Some(taken), Ok(bridge)) = (sandbox, self.networks.bridge()) {
                release(bridge, taken);
            }
            return Err(networking(&error));
        }
        let files = FILES
            .iter()
            .map(|(file, place)| Extra::file(container.path(file), place, writable))
            .collect();
        Ok(Prepared { join, netns, sandbox, attachment: Some(attachment), files, env: links.env })
    }

    /// The network of another container, which must be running.
    fn join_network(&self, container: &Container, other: &str) -> Result<Prepared, Error> {
        // docker wording
        let other = self.containers.find(other)?;
        if other.id == container.id {
            return Err(Error::internal("cannot join own network"));
        }
        let state = other.state().clone();
        if !state.running {
            return Err(Error::conflict(format!(
                "cannot join network of a non running container: {}",
                other.id
            )));
        }
        if state.restarting {
            return Err(Error::conflict(format!(
                "Container {} is restarting, wait until the container is running",
                other.id
            )));
        }
        let netns = Self::namespace_of(&other, "net")?;
        let writable = !container.record().host_config.readonly_rootfs;
        let files = FILES
            .iter()
            .map(|(file, place)| Extra::file(other.path(file), place, writable))
            .collect();
        Ok(Prepared {
            join: Join::New,
            netns: Some(netns),
            sandbox: None,
            attachment: None,
            files,
            env: Vec::new(),
        })
    }

    fn write_network_files(
        &self,
        container: &Container,
        record: &Record,
        host: bool,
        own: &[(IpAddr, String)],
        linked: Vec<(String, String)>,
        reach: ResolverReach,
    ) -> std::io::Result<()> {
        let gateway = self.host_gateway().map(IpAddr::from);
        let mut extra: Vec<(String, String)> = record
            .host_config
            .extra_hosts
            .iter()
            .filter_map(|entry| files::parse_extra_host(entry, gateway))
            .collect();
        extra.extend(linked);
        let hosts = if host {
            let mut text = fs_err::read_to_string("/etc/hosts").unwrap_or_default();
            for (address, name) in &extra {
                text.push_str(&format!("{address}\t{name}\n"));
            }
            text
        } else {
            files::hosts(&extra, own)
        };
        let dns = DnsOptions {
            servers: if record.host_config.dns.is_empty() {
                self.config.dns.clone()
            } else {
                record.host_config.dns.to_vec()
            },
            search: record.host_config.dns_search.to_vec(),
            options: record.host_config.dns_options.to_vec(),
        };
        let resolv_conf = files::resolv_conf(&files::host_resolv_conf(reach), &dns, reach);
        fs_err::write(container.path("hosts"), hosts)?;
        fs_err::write(container.path("resolv.conf"), resolv_conf)?;
        fs_err::write(container.path("hostname"), format!("{}\n", record.config.hostname))
    }

    /// Gives back the network of a run that has ended.
    pub(crate) fn release_network(&self, sandbox: Option<Sandbox>) {
        if let (Some(sandbox), Ok(bridge)) = (sandbox, self.networks.bridge()) {
            release(bridge, sandbox);
        }
    }
}

const FILES: [(&str, &str); 3] =
    [("resolv.conf", "/etc/resolv.conf"), ("hostname", "/etc/hostname"), ("hosts", "/etc/hosts")];

/// The error with its cause, unless it says it already.
fn explain(error: &silo_net::NetError) -> String {
    match error {
        silo_net::NetError::Bind { .. } => error.to_string(),
        other => silo_types::error::chain(other),
    }
}

fn release(bridge: &silo_net::Network, sandbox: Sandbox) {
    if let Err(error) = bridge.release(sandbox) {
        tracing::warn!(error = %silo_types::error::chain(&error), "could not release network");
    }
}

/// The container's names for itself, as in /etc/hosts.
fn host_names(record: &Record) -> String {
    let host = &record.config.hostname;
    if record.config.domainname.is_empty() {
        return match host.split_once('.') {
            Some((short, _)) => format!("{host} {short}"),
            None => host.clone(),
        };
    }
    format!("{host}.{} {host}", record.config.domainname)
}

/// The addresses that the client asked for.
fn wanted_addresses(record: &Record) -> Result<silo_net::SandboxRequest, Error> {
    let mut request = silo_net::SandboxRequest::default();
    let end = record
        .networking
        .as_ref()
        .and_then(|networking| networking.endpoints_config.get("bridge"))
        .and_then(Option::as_ref);
    let mut mac = record.config.mac_address.as_str();
    if let Some(end) = end {
        if !end.mac_address.is_empty() {
            mac = &end.mac_address;
        }
        if let Some(ipam) = &end.ipam_config
            && !ipam.ipv4_address.is_empty()
        {
            // docker wording
            return Err(Error::invalid(
                "invalid endpoint settings:\nuser specified IP address is supported on user defined networks only",
            ));
        }
    }
    if !mac.is_empty() {
        request.mac = Some(mac.parse().map_err(Error::from_kind)?);
    }
    Ok(request)
}

/// The ports that are to be published, in a stable order.
pub(crate) fn port_mappings(record: &Record) -> Result<Vec<PortMapping>, Error> {
    let mut mappings = Vec::new();
    let mapping = |port: &str| -> Result<(u16, Protocol), Error> {
        let invalid = || Error::invalid(format!("invalid port specification: {port:?}"));
        let (number, protocol) = validate::parse_port(port).ok_or_else(invalid)?;
        Ok((number, protocol.parse().map_err(Error::from_kind)?))
    };
    for (port, bindings) in &record.host_config.port_bindings {
        let (number, protocol) = mapping(port)?;
        for binding in bindings {
            let (first, last) = if binding.host_port.is_empty() {
                (0, 0)
            } else {
                validate::parse_port_range(&binding.host_port).ok_or_else(|| {
                    Error::invalid(format!("invalid port specification: {:?}", binding.host_port))
                })?
            };
            let host_ip = match binding.host_ip.as_str() {
                "" => None,
                text => Some(text.parse::<IpAddr>().map_err(|_| {
                    Error::invalid(format!("invalid IP address {text:?} in port binding"))
                })?),
            };
            mappings.push(PortMapping {
                container_port: number,
                protocol,
                host_ip,
                host_port_start: first,
                host_port_end: last,
            });
        }
    }
    if record.host_config.publish_all_ports {
        let empty = |port: &String| {
            record.host_config.port_bindings.get(port).is_none_or(silo_docker::List::is_empty)
        };
        for port in record.config.exposed_ports.keys().filter(|port| empty(port)) {
            let (number, protocol) = mapping(port)?;
            mappings.push(PortMapping::new(number, protocol, 0));
        }
    }
    Ok(mappings)
}

/// Where the files of /etc of a container lie, as inspect shows it.
pub(crate) fn file_path(container: &Container, name: &str) -> PathBuf {
    container.path(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(json: &str) -> Record {
        let (config, host_config) = json.split_once('|').unwrap();
        let json = format!(
            r#"{{"created":1,"image":null,"os":"linux","config":{config},"host_config":{host_config},"mounts":[]}}"#
        );
        serde_json::from_str(&json).unwrap()
    }

    #[test]
    fn ports_asked_for_become_mappings() {
        let record = record(
            r#"{"ExposedPorts":{"53/udp":{},"80/tcp":{}}}|{"PublishAllPorts":true,"PortBindings":
                {"80/tcp":[{"HostIp":"127.0.0.1","HostPort":"8080"},{"HostPort":"9000-9010"}]}}"#,
        );
        let mappings = port_mappings(&record).unwrap();
        assert_eq!(
            mappings,
            [
                PortMapping::new(80, Protocol::Tcp, 8080).on([127, 0, 0, 1].into()),
                PortMapping {
                    host_port_start: 9000,
                    host_port_end: 9010,
                    ..PortMapping::new(80, Protocol::Tcp, 0)
                },
                PortMapping::new(53, Protocol::Udp, 0),
            ]
        );
    }

    #[test]
    fn names_in_hosts() {
        for (json, names) in [
            (r#"{"Hostname":"box"}|{}"#, "box"),
            (r#"{"Hostname":"box","Domainname":"lan"}|{}"#, "box.lan box"),
            (r#"{"Hostname":"box.lan"}|{}"#, "box.lan box"),
        ] {
            assert_eq!(host_names(&record(json)), names);
        }
    }
}
