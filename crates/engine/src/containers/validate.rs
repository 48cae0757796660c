//! The checks that a configuration passes before a container is made or changed of it, and the
//! warnings about what this host cannot do.
//!
//! All wording is dockerd's, since clients and tests match on it.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::Path;

use silo_docker::containers::{Config, HealthConfig};
use silo_docker::host_config::{HostConfig, Resources};
use silo_docker::networks::NetworkingConfig;
use silo_types::Error;

use crate::host::{Host, parse_list};
use crate::mountpoints;
use crate::restart::Policy;
use crate::signal;
use crate::spec::caps;

const MINIMUM_MEMORY: i64 = 6 * 1024 * 1024;
const LONGEST_HOSTNAME: usize = 64;
/// The name that clients know of the runtime that every engine has.
const DEFAULT_RUNTIME: &str = "runc";
/// The shortest time that a health check may be given: one millisecond, in nanoseconds.
const SHORTEST_TIME: i64 = 1_000_000;

fn invalid(message: impl Into<String>) -> Error {
    Error::invalid(message)
}

/// Checks and cleans the working directory of a Linux container.
pub(crate) fn working_directory(config: &mut Config) -> Result<(), Error> {
    if !config.working_dir.is_empty() {
        if !config.working_dir.starts_with('/') {
            return Err(invalid(format!(
                "the working directory '{}' is invalid, it needs to be an absolute path",
                config.working_dir
            )));
        }
        config.working_dir = mountpoints::clean(&config.working_dir);
    }
    Ok(())
}

/// Checks the portable part but for its working directory.
pub(crate) fn config(config: &mut Config) -> Result<(), Error> {
    if !config.stop_signal.is_empty() {
        signal::parse(&config.stop_signal)?;
    }
    for variable in &config.env {
        if variable.is_empty() || variable.starts_with('=') {
            return Err(invalid(format!("invalid environment variable: {variable}")));
        }
        if variable.contains('\0') {
            return Err(invalid("invalid environment variable: it contains a zero byte"));
        }
    }
    if config.hostname.len() > LONGEST_HOSTNAME {
        return Err(invalid(format!(
            "hostname {:?} is too long (maximum {LONGEST_HOSTNAME} bytes)",
            config.hostname
        )));
    }
    config.healthcheck.as_ref().map_or(Ok(()), health)
}

fn health(check: &HealthConfig) -> Result<(), Error> {
    let times = [
        ("Interval", check.interval),
        ("Timeout", check.timeout),
        ("StartPeriod", check.start_period),
        ("StartInterval", check.start_interval),
    ];
    for (name, time) in times {
        if time != 0 && time < SHORTEST_TIME {
            return Err(invalid(format!("{name} in Healthcheck cannot be less than 1ms")));
        }
        if name == "Timeout" && check.retries < 0 {
            return Err(invalid("Retries in Healthcheck cannot be negative"));
        }
    }
    Ok(())
}

/// Checks the host's part. Limits that this host lacks are taken out, with a warning each.
pub(crate) fn host_config(
    config: &mut HostConfig,
    host: &Host,
    update: bool,
) -> Result<Vec<String>, Error> {
    let policy =
        Policy::parse(&config.restart_policy.name, config.restart_policy.maximum_retry_count)?;
    if config.auto_remove && policy != Policy::No {
        return Err(invalid("can't create 'AutoRemove' container with restart policy"));
    }
    for mount in &config.mounts {
        mountpoints::validate(mount)?;
    }
    for extra in &config.extra_hosts {
        extra_host(extra)?;
    }
    for (port, bindings) in &config.port_bindings {
        parse_port(port).ok_or_else(|| invalid(format!("invalid port specification: {port:?}")))?;
        for binding in bindings {
            if !binding.host_port.is_empty() && parse_port_range(&binding.host_port).is_none() {
                return Err(invalid(format!(
                    "invalid port specification: {:?}",
                    binding.host_port
                )));
            }
        }
    }
    for (what, names) in [("CapAdd", &config.cap_add), ("CapDrop", &config.cap_drop)] {
        caps::normalize(names, &host.capabilities)
            .map_err(|error| invalid(format!("invalid {what}: {error}")))?;
    }
    match config.isolation.to_ascii_lowercase().as_str() {
        "" | "default" | "process" => {}
        "hyperv" => {
            return Err(invalid(
                "invalid isolation 'hyperv' on linux: hypervisor isolation is not available in this build",
            ));
        }
        _ => return Err(invalid(format!("invalid isolation '{}' on linux", config.isolation))),
    }
    if config.annotations.contains_key("") {
        return Err(invalid(
            "invalid Annotations: the empty string is not permitted as an annotation key",
        ));
    }
    let mut warnings = Vec::new();
    resources(&mut config.resources, host, update, &mut warnings)?;
    modes(config)?;
    if !(-1000..=1000).contains(&config.oom_score_adj) {
        return Err(invalid(format!(
            "Invalid value {}, range for oom score adj is [-1000, 1000]",
            config.oom_score_adj
        )));
    }
    if config.shm_size < 0 {
        return Err(invalid("SHM size can not be less than 0"));
    }
    if host.ipv4_forwarding_disabled && !matches!(config.network_mode.as_str(), "host" | "none") {
        warnings.push("IPv4 forwarding is disabled. Networking will not work.".into());
    }
    if config.network_mode == "host" && !config.port_bindings.is_empty() {
        warnings.push("Published ports are discarded when using host network mode".into());
    }
    if !matches!(config.runtime.as_str(), "" | "silo" | "runc" | "io.containerd.runc.v2") {
        return Err(invalid(format!("unknown or invalid runtime name: {}", config.runtime)));
    }
    for destination in config.tmpfs.keys() {
        mountpoints::not_root(destination)?;
        mountpoints::absolute(destination)?;
    }
    if !config.storage_opt.is_empty() {
        return Err(invalid(
            "--storage-opt is supported only for overlay over xfs with 'pquota' mount option",
        ));
    }
    for option in &config.dns {
        if option.parse::<IpAddr>().is_err() {
            return Err(invalid(format!("bad parameter: invalid DNS address {option:?}")));
        }
    }
    Ok(warnings)
}

/// `container:<name or id>`.
pub(crate) fn container_of(mode: &str) -> Option<&str> {
    mode.strip_prefix("container:")
}

fn modes(config: &HostConfig) -> Result<(), Error> {
    let names_container = |mode: &str| container_of(mode).is_some_and(|name| !name.is_empty());
    let ipc = config.ipc_mode.as_str();
    if !matches!(ipc, "" | "none" | "private" | "shareable" | "host") && !names_container(ipc) {
        return Err(invalid(format!("invalid IPC mode: {ipc}")));
    }
    let pid = config.pid_mode.as_str();
    if !matches!(pid, "" | "private" | "host") && !names_container(pid) {
        return Err(invalid(format!("invalid PID mode: {pid}")));
    }
    if !matches!(config.uts_mode.as_str(), "" | "host") {
        return Err(invalid(format!("invalid UTS mode: {}", config.uts_mode)));
    }
    if !matches!(config.userns_mode.as_str(), "" | "host") {
        return Err(invalid(format!("invalid userns mode: {}", config.userns_mode)));
    }
    if !matches!(config.cgroupns_mode.as_str(), "" | "private" | "host") {
        return Err(invalid(format!("invalid cgroup namespace mode: {}", config.cgroupns_mode)));
    }
    network(config)
}

/// What `container:` and `host` networks exclude, as Docker's own clients check it.
fn network(config: &HostConfig) -> Result<(), Error> {
    let mode = config.network_mode.as_str();
    let Some(name) = container_of(mode) else { return Ok(()) };
    if name.is_empty() {
        return Err(invalid("Link is not allowed to an empty container name"));
    }
    let conflicts = [
        (
            !config.links.is_empty(),
            "conflicting options: container type network can't be used with links. This would result in undefined behavior",
        ),
        (config.uts_mode == "host", "conflicting options: hostname and the network mode"),
        (!config.dns.is_empty(), "conflicting options: dns and the network mode"),
        (
            !config.extra_hosts.is_empty(),
            "conflicting options: custom host-to-IP mapping and the network mode",
        ),
        (
            !config.port_bindings.is_empty() || config.publish_all_ports,
            "conflicting options: port publishing and the container type network mode",
        ),
    ];
    match conflicts.iter().find(|(conflict, _)| *conflict) {
        Some((_, message)) => Err(invalid(*message)),
        None => Ok(()),
    }
}

/// The addresses that a container asks for.
pub(crate) fn networking(networking: &NetworkingConfig) -> Result<(), Error> {
    for end in networking.endpoints_config.values().flatten() {
        if let Some(wanted) = &end.ipam_config {
            let (v4, v6) = (&wanted.ipv4_address, &wanted.ipv6_address);
            if !v4.is_empty() && v4.parse::<Ipv4Addr>().is_err() {
                return Err(invalid(format!("invalid IPv4 address: {v4}")));
            }
            if !v6.is_empty() && v6.parse::<Ipv6Addr>().is_err() {
                return Err(invalid(format!("invalid IPv6 address: {v6}")));
            }
            for ip in &wanted.link_local_ips {
                if ip.parse::<IpAddr>().is_err() {
                    return Err(invalid(format!("invalid link-local IP address: {ip}")));
                }
            }
        }
        let mac = &end.mac_address;
        if !mac.is_empty() && mac.parse::<silo_net::Mac>().is_err() {
            return Err(invalid(format!("invalid MAC address: {mac}")));
        }
    }
    Ok(())
}

/// What a network mode excludes of the portable part.
pub(crate) fn network_and_config(config: &Config, host_config: &HostConfig) -> Result<(), Error> {
    if container_of(&host_config.network_mode).is_none() {
        return Ok(());
    }
    if !config.hostname.is_empty() {
        return Err(invalid("conflicting options: hostname and the network mode"));
    }
    if !config.mac_address.is_empty() {
        return Err(invalid("conflicting options: mac-address and the network mode"));
    }
    if !config.exposed_ports.is_empty() {
        return Err(invalid(
            "conflicting options: port exposing and the container type network mode",
        ));
    }
    Ok(())
}

fn extra_host(text: &str) -> Result<(), Error> {
    let (name, address) = text.split_once(':').unwrap_or(("", ""));
    if name.is_empty() {
        return Err(invalid(format!("bad format for add-host: {text:?}")));
    }
    let plain = address.trim_start_matches('[').trim_end_matches(']');
    if address != "host-gateway" && plain.parse::<IpAddr>().is_err() {
        return Err(invalid(format!("invalid IP address in add-host: {address:?}")));
    }
    if text.contains(['\n', '\r', '\0']) {
        return Err(invalid(format!("bad format for add-host: {text:?}")));
    }
    Ok(())
}

/// Reads `80/tcp`, `53/udp`, `80`.
pub(crate) fn parse_port(text: &str) -> Option<(u16, String)> {
    let (number, protocol) = text.split_once('/').unwrap_or((text, "tcp"));
    let number = number.parse::<u16>().ok().filter(|&port| port != 0)?;
    let protocol = protocol.to_ascii_lowercase();
    matches!(protocol.as_str(), "tcp" | "udp" | "sctp").then_some((number, protocol))
}

/// Reads `8080` or `8000-8010`.
pub(crate) fn parse_port_range(text: &str) -> Option<(u16, u16)> {
    let (first, last) = text.split_once('-').unwrap_or((text, text));
    let (first, last): (u16, u16) = (first.parse().ok()?, last.parse().ok()?);
    (first <= last).then_some((first, last))
}

/// Checks limits; those that this host lacks are taken out, with a warning each.
fn resources(
    limits: &mut Resources,
    host: &Host,
    update: bool,
    warnings: &mut Vec<String>,
) -> Result<(), Error> {
    memory(limits, host, update, warnings)?;
    cpu(limits, host, warnings)?;
    block_io(limits, host, warnings)?;
    if let Some(limit) = limits.pids_limit
        && !host.pids_limit
    {
        if limit > 0 {
            warnings.push("Your kernel does not support PIDs limit capabilities or the cgroup is not mounted. PIDs limit discarded.".into());
        }
        limits.pids_limit = None;
    }
    for ulimit in &limits.ulimits {
        crate::spec::process::rlimit(ulimit)?;
    }
    Ok(())
}

fn memory(
    limits: &mut Resources,
    host: &Host,
    update: bool,
    warnings: &mut Vec<String>,
) -> Result<(), Error> {
    if limits.memory_swappiness == Some(-1) {
        limits.memory_swappiness = None;
    }
    if limits.memory != 0 && limits.memory < MINIMUM_MEMORY {
        return Err(invalid("Minimum memory limit allowed is 6MB"));
    }
    if limits.memory > 0 && !host.memory_limit {
        warnings.push("Your kernel does not support memory limit capabilities or the cgroup is not mounted. Limitation discarded.".into());
        limits.memory = 0;
        limits.memory_swap = -1;
    }
    if limits.memory > 0 && limits.memory_swap != -1 && !host.swap_limit {
        warnings.push("Your kernel does not support swap limit capabilities or the cgroup is not mounted. Memory limited without swap.".into());
        limits.memory_swap = -1;
    }
    if limits.memory > 0 && limits.memory_swap > 0 && limits.memory_swap < limits.memory {
        return Err(invalid(
            "Minimum memoryswap limit should be larger than memory limit, see usage",
        ));
    }
    if limits.memory == 0 && limits.memory_swap > 0 && !update {
        return Err(invalid(
            "You should always set the Memory limit when using Memoryswap limit, see usage",
        ));
    }
    if let Some(swappiness) = limits.memory_swappiness {
        if !host.memory_swappiness {
            warnings.push("Your kernel does not support memory swappiness capabilities or the cgroup is not mounted. Memory swappiness discarded.".into());
            limits.memory_swappiness = None;
        } else if !(0..=100).contains(&swappiness) {
            return Err(invalid(format!(
                "Invalid value: {swappiness}, valid memory swappiness range is 0-100"
            )));
        }
    }
    if limits.memory_reservation > 0 && !host.memory_reservation {
        warnings.push("Your kernel does not support memory soft limit capabilities or the cgroup is not mounted. Limitation discarded.".into());
        limits.memory_reservation = 0;
    }
    if limits.memory_reservation > 0 && limits.memory_reservation < MINIMUM_MEMORY {
        return Err(invalid("Minimum memory reservation allowed is 6MB"));
    }
    if limits.memory > 0
        && limits.memory_reservation > 0
        && limits.memory < limits.memory_reservation
    {
        return Err(invalid(
            "Minimum memory limit can not be less than memory reservation limit, see usage",
        ));
    }
    if let Some(disable) = limits.oom_kill_disable {
        if !host.oom_kill_disable {
            if disable {
                warnings.push(
                    "Your kernel does not support OomKillDisable. OomKillDisable discarded.".into(),
                );
            }
            limits.oom_kill_disable = None;
        } else if disable && limits.memory == 0 {
            warnings.push("OOM killer is disabled for the container, but no memory limit is set, this can result in the system running out of resources.".into());
        }
    }
    Ok(())
}

fn cpu(limits: &mut Resources, host: &Host, warnings: &mut Vec<String>) -> Result<(), Error> {
    if limits.nano_cpus > 0 && limits.cpu_period > 0 {
        return Err(invalid("Conflicting options: Nano CPUs and CPU Period cannot both be set"));
    }
    if limits.nano_cpus > 0 && limits.cpu_quota > 0 {
        return Err(invalid("Conflicting options: Nano CPUs and CPU Quota cannot both be set"));
    }
    if limits.nano_cpus > 0 && !host.cpu_cfs {
        return Err(invalid(
            "NanoCPUs can not be set, as your kernel does not support CPU CFS scheduler or the cgroup is not mounted",
        ));
    }
    let most = i64::from(host.cpu_count) * 1_000_000_000;
    if limits.nano_cpus < 0 || limits.nano_cpus > most {
        return Err(invalid(format!(
            "range of CPUs is from 0.01 to {0}.00, as there are only {0} CPUs available",
            host.cpu_count
        )));
    }
    if limits.cpu_shares < 0 {
        return Err(invalid(format!(
            "invalid CPU shares ({}): value must be a positive integer",
            limits.cpu_shares
        )));
    }
    if limits.cpu_shares > 0 && !host.cpu_shares {
        warnings.push("Your kernel does not support CPU shares or the cgroup is not mounted. Shares discarded.".into());
        limits.cpu_shares = 0;
    }
    if (limits.cpu_period != 0 || limits.cpu_quota != 0) && !host.cpu_cfs {
        warnings.push(
            "Your kernel does not support CPU CFS scheduler. CPU period/quota discarded.".into(),
        );
        limits.cpu_period = 0;
        limits.cpu_quota = 0;
    }
    if limits.cpu_period != 0 && !(1000..=1_000_000).contains(&limits.cpu_period) {
        return Err(invalid(
            "CPU cfs period can not be less than 1ms (i.e. 1000) or larger than 1s (i.e. 1000000)",
        ));
    }
    if limits.cpu_quota > 0 && limits.cpu_quota < 1000 {
        return Err(invalid("CPU cfs quota can not be less than 1ms (i.e. 1000)"));
    }
    if limits.cpu_percent > 0 {
        warnings.push("linux does not support CPU percent. Percent discarded.".into());
        limits.cpu_percent = 0;
    }
    let wants_set = !limits.cpuset_cpus.is_empty() || !limits.cpuset_mems.is_empty();
    if wants_set && !host.cpuset {
        warnings.push(
            "Your kernel does not support cpuset or the cgroup is not mounted. Cpuset discarded."
                .into(),
        );
        limits.cpuset_cpus.clear();
        limits.cpuset_mems.clear();
    }
    for (wanted, available, set, what) in [
        (&limits.cpuset_cpus, &host.cpus, "cpus", "CPUs"),
        (&limits.cpuset_mems, &host.mems, "mems", "memory nodes"),
    ] {
        if wanted.is_empty() {
            continue;
        }
        let numbers = parse_list(wanted)
            .ok_or_else(|| invalid(format!("Invalid value {wanted} for cpuset {set}")))?;
        if parse_list(available).is_some_and(|all| !numbers.is_subset(&all)) {
            return Err(invalid(format!(
                "Requested {what} are not available - requested {wanted}, available: {available}"
            )));
        }
    }
    Ok(())
}

fn block_io(limits: &mut Resources, host: &Host, warnings: &mut Vec<String>) -> Result<(), Error> {
    if limits.blkio_weight > 0 && !host.blkio_weight {
        warnings.push("Your kernel does not support Block I/O weight or the cgroup is not mounted. Weight discarded.".into());
        limits.blkio_weight = 0;
    }
    if limits.blkio_weight > 0 && !(10..=1000).contains(&limits.blkio_weight) {
        return Err(invalid("Range of blkio weight is from 10 to 1000"));
    }
    if limits.io_maximum_bandwidth != 0 || limits.io_maximum_iops != 0 {
        return Err(invalid(
            "Invalid QoS settings: linux does not support Maximum IO Bandwidth or Maximum IO IOps",
        ));
    }
    if !limits.blkio_weight_device.is_empty() && !host.blkio_weight_device {
        warnings.push("Your kernel does not support Block I/O weight_device or the cgroup is not mounted. Weight-device discarded.".into());
        limits.blkio_weight_device = Vec::new().into();
    }
    let throttles = [
        (&mut limits.blkio_device_read_bps, "BPS Block I/O read limit", "Block I/O BPS read limit"),
        (
            &mut limits.blkio_device_write_bps,
            "BPS Block I/O write limit",
            "Block I/O BPS write limit",
        ),
        (&mut limits.blkio_device_read_iops, "IOPS Block read limit", "Block I/O IOPS read limit"),
        (
            &mut limits.blkio_device_write_iops,
            "IOPS Block write limit",
            "Block I/O IOPS write limit",
        ),
    ];
    for (list, ability, what) in throttles {
        if !list.is_empty() && !host.blkio_throttle {
            warnings.push(format!("Your kernel does not support {ability} or the cgroup is not mounted. {what} discarded."));
            *list = Vec::new().into();
        }
    }
    Ok(())
}

/// Fills in what a client left open.
pub(crate) fn adapt(config: &mut HostConfig, host: &Host) {
    const DEFAULT_SHM_SIZE: i64 = 64 << 20;
    if config.restart_policy.name.is_empty() {
        config.restart_policy.name = "no".into();
    }
    if config.resources.memory > 0 && config.resources.memory_swap == 0 {
        config.resources.memory_swap = config.resources.memory.saturating_mul(2);
    }
    if config.shm_size == 0 {
        config.shm_size = DEFAULT_SHM_SIZE;
    }
    if config.ipc_mode.is_empty() {
        config.ipc_mode = "private".into();
    }
    if config.cgroupns_mode.is_empty() {
        let private = host.cgroup_v2;
        config.cgroupns_mode = if private { "private" } else { "host" }.into();
    }
    if config.network_mode.is_empty() {
        config.network_mode = "default".into();
    }
    if config.resources.oom_kill_disable.is_none() && host.oom_kill_disable {
        config.resources.oom_kill_disable = Some(false);
    }
    if config.runtime.is_empty() {
        config.runtime = DEFAULT_RUNTIME.into();
    }
    if config.privileged || config.ipc_mode == "host" || config.pid_mode == "host" {
        let options = config.security_opt.make();
        if !options.iter().any(|option| option.starts_with("label")) {
            options.push("label=disable".into());
        }
    }
    if !config.privileged {
        if config.masked_paths.is_null() {
            config.masked_paths = crate::spec::masked_paths().into();
        }
        if config.readonly_paths.is_null() {
            config.readonly_paths = crate::spec::readonly_paths().into();
        }
    }
}

/// Checks that a name may be a container's.
pub(crate) fn name(name: &str) -> Result<&str, Error> {
    let plain = name.strip_prefix('/').unwrap_or(name);
    if silo_types::id::is_restricted_name(plain) && Path::new(plain).components().count() == 1 {
        return Ok(plain);
    }
    Err(invalid(format!(
        "Invalid container name ({name}), only [a-zA-Z0-9][a-zA-Z0-9_.-] are allowed"
    )))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn host() -> Host {
        Host {
            memory_limit: true,
            swap_limit: true,
            memory_reservation: true,
            memory_swappiness: true,
            oom_kill_disable: true,
            pids_limit: true,
            cpu_shares: true,
            cpu_cfs: true,
            cpuset: true,
            blkio_weight: true,
            blkio_weight_device: true,
            blkio_throttle: true,
            cpus: "0-1".into(),
            mems: "0".into(),
            cpu_count: 2,
            capabilities: caps::ALL.to_vec(),
            ..Host::default()
        }
    }

    fn refused(change: impl FnOnce(&mut HostConfig)) -> String {
        let mut config = HostConfig::default();
        change(&mut config);
        host_config(&mut config, &host(), false).unwrap_err().message().to_owned()
    }

    #[test]
    fn limits_have_dockers_words() {
        assert_eq!(refused(|c| c.resources.memory = 1000), "Minimum memory limit allowed is 6MB");
        assert_eq!(
            refused(|c| c.resources.nano_cpus = 3_000_000_000),
            "range of CPUs is from 0.01 to 2.00, as there are only 2 CPUs available"
        );
        assert_eq!(
            refused(|c| {
                c.resources.nano_cpus = 1;
                c.resources.cpu_quota = 5000;
            }),
            "Conflicting options: Nano CPUs and CPU Quota cannot both be set"
        );
        assert_eq!(
            refused(|c| c.resources.cpuset_cpus = "0-7".into()),
            "Requested CPUs are not available - requested 0-7, available: 0-1"
        );
        assert_eq!(
            refused(|c| c.resources.blkio_weight = 5),
            "Range of blkio weight is from 10 to 1000"
        );
        assert_eq!(
            refused(|c| c.oom_score_adj = 2000),
            "Invalid value 2000, range for oom score adj is [-1000, 1000]"
        );
        assert_eq!(
            refused(|c| {
                c.auto_remove = true;
                c.restart_policy.name = "always".into();
            }),
            "can't create 'AutoRemove' container with restart policy"
        );
        assert_eq!(refused(|c| c.pid_mode = "x".into()), "invalid PID mode: x");
        assert_eq!(refused(|c| c.ipc_mode = "container:".into()), "invalid IPC mode: container:");
        assert_eq!(refused(|c| c.isolation = "vm".into()), "invalid isolation 'vm' on linux");
        assert!(refused(|c| c.isolation = "hyperv".into()).contains("hyperv"));
        assert_eq!(refused(|c| c.runtime = "kata".into()), "unknown or invalid runtime name: kata");
        assert_eq!(
            refused(|c| c.cap_add = vec!["nope".to_owned()].into()),
            "invalid CapAdd: unknown capability: \"CAP_NOPE\""
        );
    }

    #[test]
    fn what_the_host_lacks_is_taken_out() {
        let mut config = HostConfig::default();
        config.resources.memory = 64 << 20;
        config.resources.pids_limit = Some(5);
        config.resources.oom_kill_disable = Some(false);
        let warnings = host_config(&mut config, &Host { cpu_count: 2, ..Host::default() }, false);
        assert_eq!(warnings.unwrap().len(), 2);
        assert_eq!(config.resources.memory, 0);
        assert_eq!(config.resources.pids_limit, None);
        assert_eq!(config.resources.oom_kill_disable, None);
    }

    #[test]
    fn portable_part() {
        let check = |change: &dyn Fn(&mut Config)| {
            let mut value = Config::default();
            change(&mut value);
            working_directory(&mut value)?;
            config(&mut value).map(|()| value)
        };
        assert_eq!(check(&|c| c.working_dir = "/a//b/../c/".into()).unwrap().working_dir, "/a/c");
        assert!(check(&|c| c.working_dir = "a".into()).is_err());
        assert!(check(&|c| c.env = vec!["=x".to_owned()].into()).is_err());
        assert!(check(&|c| c.hostname = "x".repeat(65)).is_err());
        assert!(check(&|c| c.stop_signal = "NOPE".into()).is_err());
        assert!(
            check(&|c| c.healthcheck = Some(HealthConfig { interval: 5, ..Default::default() }))
                .is_err()
        );
    }

    #[test]
    fn names_and_ports() {
        assert_eq!(name("/web-1").unwrap(), "web-1");
        for bad in ["", "/", "a", "-a", "a/b", "a b"] {
            assert!(name(bad).is_err(), "{bad}");
        }
        assert_eq!(parse_port("53/UDP"), Some((53, "udp".into())));
        for bad in ["", "0/tcp", "x", "80/icmp", "70000"] {
            assert_eq!(parse_port(bad), None, "{bad}");
        }
        assert_eq!(parse_port_range("8000-8010"), Some((8000, 8010)));
        assert_eq!(parse_port_range("9-1"), None);
    }
}
