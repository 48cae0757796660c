//! From a container's configuration to the OCI runtime specification that its shim carries out.
//!
//! Nothing here looks at the container's files: who the process runs as, which paths are mounted
//! and which namespaces are joined has been found out before and comes in as [`Input`].

use std::path::{Path, PathBuf};

use silo_docker::containers::Config;
use silo_docker::host_config::HostConfig;
use silo_oci::runtime::{
    Linux, LinuxCapabilities, LinuxNamespace, LinuxSeccomp, NamespaceKind, Process, Root, Spec,
    User, VERSION,
};
use silo_types::Error;

use crate::host::Host;

pub mod caps;
pub mod devices;
pub mod mounts;
pub mod process;
pub mod resources;
pub mod security;
pub mod sysctl;
pub mod user;

/// Where the init program of `--init` is bound in a container.
const INIT_PATH: &str = "/sbin/docker-init";

/// A namespace of a container.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Join {
    /// Its own.
    #[default]
    New,
    /// The host's.
    Host,
    /// That of another container's process.
    Path(PathBuf),
}

/// The namespaces that a container can share.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Namespaces {
    /// Network; `New` also stands for one that the shim is given as a descriptor.
    pub network: Join,
    /// IPC.
    pub ipc: Join,
    /// Process ids.
    pub pid: Join,
}

/// Everything that a specification is made of.
#[derive(Debug)]
pub struct Input<'a> {
    /// The host's abilities.
    pub host: &'a Host,
    /// The portable part.
    pub config: &'a Config,
    /// The host's part.
    pub host_config: &'a HostConfig,
    /// The security options, read.
    pub security: &'a security::Security,
    /// Program and arguments.
    pub args: Vec<String>,
    /// Variables that tell of linked containers.
    pub linked: Vec<String>,
    /// Who it runs as.
    pub user: &'a user::Resolved,
    /// The mounts that the user and the engine add, with their sources found.
    pub mounts: Vec<mounts::Extra>,
    /// What is mounted at /dev/shm in place of a file system of its own.
    pub shm: Option<PathBuf>,
    /// The shared namespaces.
    pub namespaces: Namespaces,
    /// The cgroup, from the roots of the hierarchies.
    pub cgroup: String,
}

/// The paths that a container cannot read.
pub fn masked_paths() -> Vec<String> {
    [
        "/proc/asound",
        "/proc/acpi",
        "/proc/interrupts",
        "/proc/kcore",
        "/proc/keys",
        "/proc/latency_stats",
        "/proc/timer_list",
        "/proc/timer_stats",
        "/proc/sched_debug",
        "/proc/scsi",
        "/sys/firmware",
        "/sys/devices/virtual/powercap",
    ]
    .map(str::to_owned)
    .to_vec()
}

/// The paths that a container cannot write.
pub fn readonly_paths() -> Vec<String> {
    ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"]
        .map(str::to_owned)
        .to_vec()
}

/// The capability sets of a process: nothing is ever inheritable or ambient.
pub fn capability_sets(names: Vec<String>) -> LinuxCapabilities {
    LinuxCapabilities {
        bounding: names.clone(),
        effective: names.clone(),
        permitted: names,
        ..LinuxCapabilities::default()
    }
}

/// Makes the specification; the system call filter is left to the caller, who may have it at
/// hand.
pub fn generate(input: Input<'_>, seccomp: Option<LinuxSeccomp>) -> Result<Spec, Error> {
    let Input { config, host_config, security, user, .. } = input;
    let capabilities = caps::effective(
        &host_config.cap_add,
        &host_config.cap_drop,
        host_config.privileged,
        &input.host.capabilities,
    )?;
    let uts_host = host_config.uts_mode == "host";
    let mut env = process::environment(&config.hostname, config.tty, &input.linked, &config.env);
    process::add_home(&mut env, &user.home);
    let mut args = input.args;
    if host_config.init == Some(true) && input.namespaces.pid == Join::New {
        args.splice(0..0, [INIT_PATH.to_owned(), "--".to_owned()]);
    }
    let process = Process {
        terminal: config.tty,
        console_size: console_size(host_config.console_size),
        user: User {
            uid: user.uid,
            gid: user.gid,
            additional_gids: user.groups.clone(),
            ..User::default()
        },
        args,
        env,
        cwd: working_directory(config).into(),
        capabilities: Some(capability_sets(capabilities)),
        rlimits: rlimits(host_config)?,
        no_new_privileges: security.no_new_privileges,
        apparmor_profile: apparmor(security, input.host),
        oom_score_adj: i32::try_from(host_config.oom_score_adj).ok(),
        ..Process::default()
    };
    let mounts = mounts::generate(&mounts::Wanted {
        extra: &input.mounts,
        tmpfs: &host_config.tmpfs,
        shm_size: host_config.shm_size,
        shm: input.shm.as_deref(),
        no_shm: host_config.ipc_mode == "none",
        privileged: host_config.privileged,
        writable_cgroups: security.writable_cgroups.unwrap_or(host_config.privileged),
    })?;
    let hide = !host_config.privileged && !security.system_paths_unconfined;
    let mut linux = Linux {
        cgroups_path: Some(input.cgroup),
        namespaces: namespaces(&input.namespaces, host_config, uts_host),
        rootfs_propagation: mounts.root_propagation.to_owned(),
        masked_paths: if hide { host_config.masked_paths.to_vec() } else { Vec::new() },
        readonly_paths: if hide { host_config.readonly_paths.to_vec() } else { Vec::new() },
        seccomp,
        ..Linux::default()
    };
    let mut limits = resources::limits(&host_config.resources)?;
    (linux.devices, limits.devices) = all_devices(host_config)?;
    linux.resources = Some(limits);
    linux.sysctl = sysctls(host_config, &input.namespaces, uts_host)?;
    Ok(Spec {
        oci_version: VERSION.into(),
        process: Some(process),
        root: Some(Root { path: "rootfs".into(), readonly: host_config.readonly_rootfs }),
        hostname: if uts_host { String::new() } else { config.hostname.clone() },
        domainname: if uts_host { String::new() } else { config.domainname.clone() },
        mounts: mounts.list,
        annotations: host_config.annotations.iter().map(|(k, v)| (k.clone(), v.clone())).collect(),
        linux: Some(linux),
        ..Spec::default()
    })
}

/// The directory in which a container's processes start.
pub fn working_directory(config: &Config) -> &str {
    if config.working_dir.is_empty() { "/" } else { &config.working_dir }
}

/// A terminal's height and width, when both are given.
fn console_size([height, width]: [u32; 2]) -> Option<silo_oci::runtime::ConsoleSize> {
    let height = u16::try_from(height).ok().filter(|&rows| rows > 0)?;
    let width = u16::try_from(width).ok().filter(|&columns| columns > 0)?;
    Some(silo_oci::runtime::ConsoleSize { height, width })
}

/// The resource limits of a container's processes.
pub fn rlimits(host_config: &HostConfig) -> Result<Vec<silo_oci::runtime::PosixRlimit>, Error> {
    host_config.resources.ulimits.iter().map(process::rlimit).collect()
}

/// The AppArmor profile: a named one where the host has AppArmor.
pub fn apparmor(security: &security::Security, host: &Host) -> String {
    match security.apparmor.as_deref() {
        Some(profile) if host.apparmor && !matches!(profile, "docker-default" | "unconfined") => {
            profile.to_owned()
        }
        _ => String::new(),
    }
}

fn namespaces(
    shared: &Namespaces,
    host_config: &HostConfig,
    uts_host: bool,
) -> Vec<LinuxNamespace> {
    let mut list = vec![LinuxNamespace { kind: NamespaceKind::Mount, path: None }];
    for (kind, join) in [
        (NamespaceKind::Network, &shared.network),
        (NamespaceKind::Ipc, &shared.ipc),
        (NamespaceKind::Pid, &shared.pid),
    ] {
        match join {
            Join::New => list.push(LinuxNamespace { kind, path: None }),
            Join::Host => {}
            Join::Path(path) => list.push(LinuxNamespace { kind, path: Some(path.clone()) }),
        }
    }
    if !uts_host {
        list.push(LinuxNamespace { kind: NamespaceKind::Uts, path: None });
    }
    if host_config.cgroupns_mode == "private" {
        list.push(LinuxNamespace { kind: NamespaceKind::Cgroup, path: None });
    }
    list
}

type Devices = (Vec<silo_oci::runtime::LinuxDevice>, Vec<silo_oci::runtime::LinuxDeviceCgroup>);

fn all_devices(host_config: &HostConfig) -> Result<Devices, Error> {
    let resources = &host_config.resources;
    if let Some(request) = resources.device_requests.first() {
        // docker wording
        let sets: Vec<String> =
            request.capabilities.iter().map(|set| format!("[{}]", set.join(" "))).collect();
        return Err(Error::invalid(format!(
            "could not select device driver {:?} with capabilities: [{}]",
            request.driver,
            sets.join(" ")
        )));
    }
    if host_config.privileged {
        let mut list = devices::of_host();
        for device in &resources.devices {
            if device.path_on_host != device.path_in_container {
                list.extend(
                    devices::mapping(&device.path_on_host, &device.path_in_container, "rwm")?.0,
                );
            }
        }
        return Ok((list, devices::allow_all()));
    }
    let (mut list, mut rules) = (Vec::new(), devices::default_rules());
    for device in &resources.devices {
        let (more, more_rules) = devices::mapping(
            &device.path_on_host,
            &device.path_in_container,
            &device.cgroup_permissions,
        )?;
        list.extend(more);
        rules.extend(more_rules);
    }
    for rule in &resources.device_cgroup_rules {
        rules.push(devices::parse_rule(rule)?);
    }
    Ok((list, rules))
}

fn sysctls(
    host_config: &HostConfig,
    shared: &Namespaces,
    uts_host: bool,
) -> Result<std::collections::BTreeMap<String, String>, Error> {
    let mut all = std::collections::BTreeMap::new();
    if shared.network == Join::New {
        // Echo sockets for all groups and low ports for all users: neither needs a capability
        // inside a network of the container's own.
        for (name, value) in [
            ("net.ipv4.ip_unprivileged_port_start", "0"),
            ("net.ipv4.ping_group_range", "0 2147483647"),
        ] {
            if Path::new("/proc/sys").join(name.replace('.', "/")).exists() {
                all.insert(name.to_owned(), value.to_owned());
            }
        }
    }
    let own = sysctl::Own {
        ipc: shared.ipc == Join::New,
        network: shared.network == Join::New,
        uts: !uts_host,
    };
    for (name, value) in &host_config.sysctls {
        sysctl::check(name, value, own)?;
        all.insert(name.clone(), value.clone());
    }
    Ok(all)
}

#[cfg(test)]
mod tests {
    use silo_docker::host_config::{DeviceRequest, Ulimit};

    use super::*;

    fn make(change: impl FnOnce(&mut Config, &mut HostConfig)) -> Result<Spec, Error> {
        let host = Host { capabilities: caps::ALL.to_vec(), ..Host::default() };
        let mut config = Config { hostname: "box".into(), ..Config::default() };
        let mut host_config = HostConfig { shm_size: 64 << 20, ..HostConfig::default() };
        change(&mut config, &mut host_config);
        crate::containers::validate::adapt(&mut host_config, &host);
        let security = security::parse(&host_config.security_opt)?;
        let input = Input {
            host: &host,
            config: &config,
            host_config: &host_config,
            security: &security,
            args: vec!["sh".into()],
            linked: Vec::new(),
            user: &user::Resolved { home: "/root".into(), groups: vec![0], ..Default::default() },
            mounts: Vec::new(),
            shm: None,
            namespaces: Namespaces::default(),
            cgroup: "silo/x".into(),
        };
        generate(input, None)
    }

    fn linux(spec: &Spec) -> &Linux {
        spec.linux.as_ref().unwrap()
    }

    fn process_of(spec: &Spec) -> &Process {
        spec.process.as_ref().unwrap()
    }

    #[test]
    fn defaults() {
        let spec = make(|_, _| {}).unwrap();
        let process = process_of(&spec);
        assert_eq!(process.args, ["sh"]);
        assert_eq!(process.cwd, Path::new("/"));
        assert!(process.env.contains(&"HOSTNAME=box".to_owned()));
        assert!(process.env.contains(&"HOME=/root".to_owned()));
        let capabilities = process.capabilities.as_ref().unwrap();
        assert_eq!(capabilities.bounding, caps::DEFAULT);
        assert!(capabilities.inheritable.is_empty() && capabilities.ambient.is_empty());
        assert!(!process.no_new_privileges);
        let kinds: Vec<_> = linux(&spec).namespaces.iter().map(|n| n.kind).collect();
        assert_eq!(
            kinds,
            [
                NamespaceKind::Mount,
                NamespaceKind::Network,
                NamespaceKind::Ipc,
                NamespaceKind::Pid,
                NamespaceKind::Uts
            ]
        );
        assert_eq!(linux(&spec).masked_paths, masked_paths());
        assert_eq!(linux(&spec).resources.as_ref().unwrap().devices, devices::default_rules());
        let destinations: Vec<_> =
            spec.mounts.iter().map(|m| m.destination.display().to_string()).collect();
        assert_eq!(
            destinations,
            ["/proc", "/dev", "/dev/pts", "/sys", "/sys/fs/cgroup", "/dev/mqueue", "/dev/shm"]
        );
    }

    #[test]
    fn privileged_has_everything() {
        let spec = make(|_, host| host.privileged = true).unwrap();
        assert_eq!(process_of(&spec).capabilities.as_ref().unwrap().bounding, caps::ALL);
        assert!(linux(&spec).masked_paths.is_empty() && linux(&spec).readonly_paths.is_empty());
        assert_eq!(linux(&spec).resources.as_ref().unwrap().devices, devices::allow_all());
        assert!(!linux(&spec).devices.is_empty());
        for destination in ["/sys", "/sys/fs/cgroup"] {
            let mount = spec.mounts.iter().find(|m| m.destination == Path::new(destination));
            assert!(!mount.unwrap().options.contains(&"ro".to_owned()), "{destination}");
        }
    }

    #[test]
    fn options_are_carried_over() {
        let spec = make(|config, host| {
            config.tty = true;
            config.working_dir = "/w".into();
            host.init = Some(true);
            host.uts_mode = "host".into();
            host.cgroupns_mode = "private".into();
            host.security_opt = vec!["no-new-privileges".to_owned()].into();
            host.oom_score_adj = 7;
            host.readonly_rootfs = true;
            host.console_size = [24, 80];
            host.sysctls.make().insert("net.ipv4.ip_forward".into(), "1".into());
            host.annotations.make().insert("a".into(), "b".into());
            host.masked_paths = Vec::new().into();
            host.resources.ulimits =
                vec![Ulimit { name: "nofile".into(), soft: 5, hard: 6 }].into();
        })
        .unwrap();
        let process = process_of(&spec);
        assert_eq!(process.args, ["/sbin/docker-init", "--", "sh"]);
        assert!(process.terminal && process.no_new_privileges);
        assert_eq!(process.console_size.as_ref().unwrap().width, 80);
        assert_eq!(process.oom_score_adj, Some(7));
        assert_eq!(process.rlimits[0].soft, 5);
        assert_eq!(process.cwd, Path::new("/w"));
        assert!(spec.hostname.is_empty() && spec.namespace(NamespaceKind::Uts).is_none());
        assert!(spec.namespace(NamespaceKind::Cgroup).is_some());
        assert!(spec.root.as_ref().unwrap().readonly);
        assert!(linux(&spec).masked_paths.is_empty());
        assert_eq!(linux(&spec).sysctl["net.ipv4.ip_forward"], "1");
        assert_eq!(spec.annotations["a"], "b");
    }

    #[test]
    fn what_cannot_be_is_refused() {
        let gpu = make(|_, host| {
            host.resources.device_requests = vec![DeviceRequest {
                capabilities: vec![vec!["gpu".to_owned()]].into(),
                ..Default::default()
            }]
            .into();
        });
        assert_eq!(
            gpu.unwrap_err().message(),
            "could not select device driver \"\" with capabilities: [[gpu]]"
        );
        assert!(
            make(|_, h| {
                h.sysctls.make().insert("kernel.x".into(), "1".into());
            })
            .is_err()
        );
        assert!(make(|_, h| h.cap_add = vec!["x".to_owned()].into()).is_err());
    }
}
