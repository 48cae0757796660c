//! Flags into the request that creates a container.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Map as JsonMap, Value as Json, json};

use crate::flags::GoDuration;
use crate::options::mount::{Volume, volume};
use crate::options::{RunFlags, network, port};

/// Which streams a client attaches to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Attach {
    pub(crate) stdin: bool,
    pub(crate) stdout: bool,
    pub(crate) stderr: bool,
}

impl Attach {
    /// What the flags ask for.
    pub(crate) fn of(flags: &RunFlags) -> Self {
        let has = |name: &str| flags.attach.0.iter().any(|stream| stream == name);
        let none = flags.attach.0.is_empty();
        Self {
            stdin: has("stdin") || flags.interactive,
            stdout: has("stdout") || none,
            stderr: has("stderr") || none,
        }
    }

    /// Whether there is any.
    pub(crate) fn any(self) -> bool {
        self.stdin || self.stdout || self.stderr
    }
}

/// The body of `POST /containers/create`. The fields are those that Docker's command line sends,
/// set or not, so that an engine cannot tell the two apart.
pub(crate) fn request(
    flags: &RunFlags,
    image: &str,
    args: &[String],
    attach: Attach,
    console: (u16, u16),
) -> Result<Json, String> {
    let swappiness = flags.memory_swappiness.unwrap_or(-1);
    if swappiness != -1 && !(0..=100).contains(&swappiness) {
        return Err(format!("invalid value: {swappiness}. Valid memory swappiness range is 0-100"));
    }
    let (binds, anonymous) = volumes(&flags.volume)?;
    let (network_mode, endpoints) = network::endpoints(flags)?;
    let mut bindings = port::Bindings::new();
    for spec in &flags.publish {
        port::publish(spec, &mut bindings)?;
    }
    let mut exposed: BTreeSet<String> = bindings.keys().cloned().collect();
    for spec in &flags.expose {
        exposed.extend(port::expose(spec)?);
    }
    check_namespaces(flags)?;
    let restart = restart_policy(flags.restart.as_deref().unwrap_or("no"))?;
    let restarts = !matches!(restart["Name"].as_str(), Some("no" | ""));
    if flags.rm && restarts {
        return Err("conflicting options: cannot specify both --restart and --rm".into());
    }
    if flags.log_driver == "none" && !flags.log_opt.is_empty() {
        return Err("invalid logging opts for driver none".into());
    }
    let (security, unconfined_paths) = security_options(&flags.security_opt)?;
    let paths = if unconfined_paths { json!([]) } else { Json::Null };
    let env = key_values(&flags.env_file, &flags.env.0, "--env-file", true)?;
    let labels = key_values(&flags.label_file, &flags.label.0, "--label-file", false)?;
    let health = health(flags)?;
    let (devices, mut requests) = devices(&flags.device)?;
    if !flags.gpus.0.is_empty() {
        requests = flags.gpus.0.iter().cloned().chain(requests).collect();
    }
    let (cap_add, cap_drop) = capabilities(&flags.cap_add, &flags.cap_drop);
    let tmpfs: JsonMap<String, Json> = flags
        .tmpfs
        .iter()
        .map(|spec| spec.split_once(':').unwrap_or((spec, "")))
        .map(|(path, options)| (path.to_owned(), json!(options)))
        .collect();
    let mut storage = JsonMap::new();
    for option in &flags.storage_opt {
        let (key, value) = option.split_once('=').ok_or("invalid storage option")?;
        storage.insert(key.to_owned(), json!(value));
    }

    let list = |items: &[String]| if items.is_empty() { Json::Null } else { json!(items) };
    let entrypoint = match flags.entrypoint.as_deref() {
        None => Json::Null,
        Some(program) => json!([program]),
    };
    let mut config = json!({
        "Hostname": flags.hostname,
        "Domainname": flags.domainname,
        "User": flags.user,
        "AttachStdin": attach.stdin,
        "AttachStdout": attach.stdout,
        "AttachStderr": attach.stderr,
        "Tty": flags.tty,
        "OpenStdin": flags.interactive,
        "StdinOnce": flags.interactive && attach.stdin,
        "Env": list(&env),
        "Cmd": list(args),
        "Image": image,
        "Volumes": keys(&anonymous),
        "WorkingDir": flags.workdir,
        "Entrypoint": entrypoint,
        "OnBuild": null,
        "Labels": pairs(&labels),
    });
    let mut host = json!({
        "Binds": list(&binds),
        "ContainerIDFile": flags.cidfile,
        "LogConfig": {"Type": flags.log_driver, "Config": pairs(&flags.log_opt)},
        "NetworkMode": network_mode,
        "PortBindings": port_bindings(&bindings),
        "RestartPolicy": restart,
        "AutoRemove": flags.rm,
        "VolumeDriver": flags.volume_driver,
        "VolumesFrom": list(&flags.volumes_from),
        "ConsoleSize": [console.0, console.1],
        "CapAdd": list(&cap_add),
        "CapDrop": list(&cap_drop),
        "CgroupnsMode": flags.cgroupns,
        "Dns": flags.dns.0,
        "DnsOptions": flags.dns_option,
        "DnsSearch": flags.dns_search.0,
        "ExtraHosts": list(&flags.add_host.0),
        "GroupAdd": list(&flags.group_add),
        "IpcMode": flags.ipc,
        "Cgroup": "",
        "Links": list(&flags.link.0),
        "OomScoreAdj": flags.oom_score_adj,
        "PidMode": flags.pid,
        "Privileged": flags.privileged,
        "PublishAllPorts": flags.publish_all,
        "ReadonlyRootfs": flags.read_only,
        "SecurityOpt": list(&security),
        "UTSMode": flags.uts,
        "UsernsMode": flags.userns,
        "ShmSize": flags.shm_size.0,
        "Isolation": flags.isolation,
        "MaskedPaths": paths,
        "ReadonlyPaths": paths,
    });
    merge(&mut host, resources(flags, swappiness, devices, requests));
    let optional = [
        ("Annotations", flags.annotation.json()),
        ("Mounts", Json::Array(flags.mount.0.clone())),
        ("StorageOpt", Json::Object(storage)),
        ("Sysctls", flags.sysctl.0.json()),
        ("Tmpfs", Json::Object(tmpfs)),
        ("Runtime", json!(flags.runtime)),
        ("Init", json!(flags.init)),
    ];
    insert_set(&mut host, optional);
    insert_set(
        &mut config,
        [
            ("ExposedPorts", keys(&exposed.into_iter().collect::<Vec<_>>())),
            ("Healthcheck", health),
            ("StopSignal", json!(flags.stop_signal)),
            ("StopTimeout", json!(flags.stop_timeout)),
        ],
    );
    config["HostConfig"] = host;
    config["NetworkingConfig"] = json!({"EndpointsConfig": endpoints});
    Ok(config)
}

/// Resources in the order and with the defaults that Docker's command line has.
fn resources(flags: &RunFlags, swappiness: i64, devices: Vec<Json>, requests: Vec<Json>) -> Json {
    let list = |items: &[String]| if items.is_empty() { Json::Null } else { json!(items) };
    json!({
        "CpuShares": flags.cpu_shares,
        "Memory": flags.memory.0,
        "NanoCpus": flags.cpus.0,
        "CgroupParent": flags.cgroup_parent,
        "BlkioWeight": flags.blkio_weight,
        "BlkioWeightDevice": flags.blkio_weight_device.0,
        "BlkioDeviceReadBps": flags.device_read_bps.0,
        "BlkioDeviceWriteBps": flags.device_write_bps.0,
        "BlkioDeviceReadIOps": flags.device_read_iops.0,
        "BlkioDeviceWriteIOps": flags.device_write_iops.0,
        "CpuPeriod": flags.cpu_period,
        "CpuQuota": flags.cpu_quota,
        "CpuRealtimePeriod": flags.cpu_rt_period,
        "CpuRealtimeRuntime": flags.cpu_rt_runtime,
        "CpusetCpus": flags.cpuset_cpus,
        "CpusetMems": flags.cpuset_mems,
        "Devices": devices,
        "DeviceCgroupRules": list(&flags.device_cgroup_rule.0),
        "DeviceRequests": if requests.is_empty() { Json::Null } else { Json::Array(requests) },
        "MemoryReservation": flags.memory_reservation.0,
        "MemorySwap": flags.memory_swap.0,
        "MemorySwappiness": swappiness,
        "OomKillDisable": flags.oom_kill_disable,
        "PidsLimit": flags.pids_limit,
        "Ulimits": flags.ulimit.json(),
        "CpuCount": flags.cpu_count,
        "CpuPercent": flags.cpu_percent,
        "IOMaximumIOps": flags.io_maxiops,
        "IOMaximumBandwidth": flags.io_maxbandwidth.0,
    })
}

fn merge(into: &mut Json, from: Json) {
    if let (Json::Object(into), Json::Object(from)) = (into, from) {
        into.extend(from);
    }
}

/// Inserts what is not null or empty.
fn insert_set<const N: usize>(object: &mut Json, fields: [(&str, Json); N]) {
    for (name, value) in fields {
        let empty = match &value {
            Json::Null => true,
            Json::String(text) => text.is_empty(),
            Json::Array(items) => items.is_empty(),
            Json::Object(entries) => entries.is_empty(),
            _ => false,
        };
        if !empty {
            object[name] = value;
        }
    }
}

/// A set, in Go's form: an object of empty objects.
fn keys(names: &[String]) -> Json {
    names.iter().map(|name| (name.clone(), json!({}))).collect()
}

/// `key=value` texts as an object.
pub(crate) fn pairs(texts: &[String]) -> Json {
    let mut object = JsonMap::new();
    for text in texts {
        let (key, value) = text.split_once('=').unwrap_or((text, ""));
        object.insert(key.to_owned(), json!(value));
    }
    Json::Object(object)
}

fn port_bindings(bindings: &port::Bindings) -> Json {
    bindings
        .iter()
        .map(|(port, hosts)| {
            let hosts: Vec<Json> = hosts
                .iter()
                .map(|(address, host)| json!({"HostIp": address, "HostPort": host}))
                .collect();
            (port.clone(), Json::Array(hosts))
        })
        .collect()
}

/// Binds, and volumes without a source.
fn volumes(specs: &[String]) -> Result<(Vec<String>, Vec<String>), String> {
    let (mut binds, mut anonymous) = (Vec::new(), Vec::new());
    for spec in specs {
        match volume(spec)? {
            Volume::Anonymous => anonymous.push(spec.clone()),
            Volume::Bind(bind) if binds.contains(&bind) => {}
            Volume::Bind(bind) => binds.push(bind),
        }
    }
    Ok((binds, anonymous))
}

fn check_namespaces(flags: &RunFlags) -> Result<(), String> {
    let container =
        |mode: &str| mode.strip_prefix("container:").is_some_and(|name| !name.is_empty());
    if !matches!(flags.pid.as_str(), "" | "host" | "private") && !container(&flags.pid) {
        return Err("--pid: invalid PID mode".into());
    }
    if !matches!(flags.uts.as_str(), "" | "host") {
        return Err("--uts: invalid UTS mode".into());
    }
    if !matches!(flags.userns.as_str(), "" | "host") {
        return Err("--userns: invalid USER mode".into());
    }
    if !matches!(flags.cgroupns.as_str(), "" | "host" | "private") {
        return Err("--cgroupns: invalid CGROUP mode".into());
    }
    Ok(())
}

/// `on-failure:3` as the API wants it.
pub(crate) fn restart_policy(text: &str) -> Result<Json, String> {
    if text.is_empty() {
        return Ok(json!({"Name": "", "MaximumRetryCount": 0}));
    }
    let (name, count) = match text.split_once(':') {
        Some(("", _)) => {
            return Err("invalid restart policy format: no policy provided before colon".into());
        }
        Some((name, count)) => (name, count),
        None => (text, ""),
    };
    let count: i64 = if count.is_empty() {
        0
    } else {
        count.parse().map_err(|_| {
            "invalid restart policy format: maximum retry count must be an integer".to_owned()
        })?
    };
    Ok(json!({"Name": name, "MaximumRetryCount": count}))
}

/// The options with profiles read in, and whether `systempaths=unconfined` was among them.
fn security_options(options: &[String]) -> Result<(Vec<String>, bool), String> {
    let mut out = Vec::new();
    let mut unconfined_paths = false;
    for option in options {
        let split = match option.split_once('=') {
            None if option != "no-new-privileges" => option.split_once(':'),
            split => split,
        };
        let key = split.map_or(option.as_str(), |(key, _)| key);
        let value = split.map_or("", |(_, value)| value);
        if value.is_empty() && key != "no-new-privileges" {
            return Err(format!("invalid --security-opt: {option:?}"));
        }
        if option == "systempaths=unconfined" {
            unconfined_paths = true;
        } else if key == "seccomp" && !matches!(value, "builtin" | "unconfined") {
            let text = fs_err::read_to_string(value)
                .map_err(|error| format!("opening seccomp profile ({value}) failed: {error}"))?;
            let profile: Json = serde_json::from_str(&text).map_err(|error| {
                format!("compacting json for seccomp profile ({value}) failed: {error}")
            })?;
            out.push(format!("seccomp={profile}"));
        } else {
            out.push(option.clone());
        }
    }
    Ok((out, unconfined_paths))
}

/// The variables of an exec.
pub(crate) fn exec_env(files: &[String], values: &[String]) -> Result<Vec<String>, String> {
    key_values(files, values, "--env-file", true)
}

/// The lines of the files and then the values.
fn key_values(
    files: &[String],
    values: &[String],
    flag: &str,
    from_environment: bool,
) -> Result<Vec<String>, String> {
    let mut out = Vec::new();
    for path in files {
        let bytes = fs_err::read(path).map_err(|error| {
            let reason = match error.kind() {
                std::io::ErrorKind::NotFound => "no such file or directory".to_owned(),
                _ => error.to_string(),
            };
            format!("{flag}: open {path}: {reason}")
        })?;
        read_lines(&bytes, from_environment, &mut out)
            .map_err(|reason| format!("{flag}: invalid env file ({path}): {reason}"))?;
    }
    out.extend(values.iter().cloned());
    Ok(out)
}

fn read_lines(bytes: &[u8], from_environment: bool, out: &mut Vec<String>) -> Result<(), String> {
    let bytes = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes);
    for (index, line) in bytes.split(|byte| *byte == b'\n').enumerate() {
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        let line = std::str::from_utf8(line).map_err(|_| {
            let shown: Vec<String> = line.iter().map(u8::to_string).collect();
            format!("invalid utf8 bytes at line {}: [{}]", index + 1, shown.join(" "))
        })?;
        let line = line.trim_start();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let key = line.split('=').next().unwrap_or_default();
        if key.is_empty() {
            return Err(format!("no variable name on line '{line}'"));
        }
        if key.contains([' ', '\t']) {
            return Err(format!("variable '{key}' contains whitespaces"));
        }
        if line.contains('=') || !from_environment {
            out.push(line.to_owned());
        } else if let Ok(value) = std::env::var(line) {
            out.push(format!("{key}={value}"));
        }
    }
    Ok(())
}

fn health(flags: &RunFlags) -> Result<Json, String> {
    let times: [(&str, &str, GoDuration); 4] = [
        ("Interval", "--health-interval", flags.health_interval),
        ("Timeout", "--health-timeout", flags.health_timeout),
        ("StartPeriod", "--health-start-period", flags.health_start_period),
        ("StartInterval", "--health-start-interval", flags.health_start_interval),
    ];
    let any_time = times.iter().any(|(.., time)| *time != GoDuration::default());
    let any = !flags.health_cmd.is_empty() || any_time || flags.health_retries != 0;
    if flags.no_healthcheck {
        if any {
            return Err("--no-healthcheck conflicts with --health-* options".into());
        }
        return Ok(json!({"Test": ["NONE"]}));
    }
    if !any {
        return Ok(Json::Null);
    }
    let mut check = json!({});
    if !flags.health_cmd.is_empty() {
        check["Test"] = json!(["CMD-SHELL", flags.health_cmd]);
    }
    for (name, flag, time) in times {
        if time.negative {
            return Err(format!("{flag} cannot be negative"));
        }
        if time.nanoseconds() != 0 {
            check[name] = json!(time.nanoseconds());
        }
    }
    if flags.health_retries < 0 {
        return Err("--health-retries cannot be negative".into());
    }
    if flags.health_retries != 0 {
        check["Retries"] = json!(flags.health_retries);
    }
    Ok(check)
}

/// Device mappings, and requests for devices by their CDI names.
fn devices(specs: &[String]) -> Result<(Vec<Json>, Vec<Json>), String> {
    let mut mappings = Vec::new();
    let mut names = Vec::new();
    for spec in specs {
        if is_cdi_name(spec) {
            names.push(spec.clone());
        } else {
            mappings.push(device(spec)?);
        }
    }
    let requests = if names.is_empty() {
        Vec::new()
    } else {
        vec![json!({
            "Driver": "cdi", "Count": 0, "DeviceIDs": names, "Capabilities": null, "Options": null,
        })]
    };
    Ok((mappings, requests))
}

/// `vendor.example/class=name`
fn is_cdi_name(text: &str) -> bool {
    text.split_once('=').is_some_and(|(kind, name)| {
        !name.is_empty()
            && !kind.starts_with('/')
            && kind.split_once('/').is_some_and(|(vendor, class)| {
                !vendor.is_empty() && !class.is_empty() && !class.contains('/')
            })
    })
}

fn is_device_mode(text: &str) -> bool {
    let once = |letter: char| text.matches(letter).count() <= 1;
    !text.is_empty()
        && text.chars().all(|c| matches!(c, 'r' | 'w' | 'm'))
        && once('r')
        && once('w')
        && once('m')
}

fn device(spec: &str) -> Result<Json, String> {
    let parts: Vec<&str> = spec.split(':').collect();
    if parts.len() > 3 || parts[0].is_empty() {
        return Err(format!("bad format for path: {spec}"));
    }
    let (source, target, mode) = match parts[..] {
        [path] => (path, path, "rwm"),
        [path, mode] if is_device_mode(mode) => (path, path, mode),
        [source, target] => (source, target, "rwm"),
        [source, target, mode] if is_device_mode(mode) => (source, target, mode),
        _ => return Err(format!("bad mode specified: {}", parts[2])),
    };
    if !target.starts_with('/') {
        return Err(format!("{target} is not an absolute path"));
    }
    Ok(json!({
        "PathOnHost": source,
        "PathInContainer": target,
        "CgroupPermissions": mode,
    }))
}

/// Capabilities in the kernel's names; an added one is not dropped, and `ALL` stands alone.
fn capabilities(add: &[String], drop: &[String]) -> (Vec<String>, Vec<String>) {
    let normal = |names: &[String]| -> BTreeSet<String> {
        let names: BTreeSet<String> = names
            .iter()
            .map(|name| name.trim().to_uppercase())
            .map(|name| match name.as_str() {
                "ALL" => name,
                _ if name.starts_with("CAP_") => name,
                _ => format!("CAP_{name}"),
            })
            .collect();
        if names.contains("ALL") { BTreeSet::from(["ALL".to_owned()]) } else { names }
    };
    let (add, drop) = (normal(add), normal(drop));
    let drop = drop.difference(&add).cloned().collect();
    (add.into_iter().collect(), drop)
}

/// Resources for `update`: what was given, and Docker's defaults for the rest.
pub(crate) fn update_request(flags: &crate::options::UpdateFlags) -> Result<Json, String> {
    let restart = match flags.restart.as_deref() {
        None => json!({"Name": "", "MaximumRetryCount": 0}),
        Some(text) => restart_policy(text)?,
    };
    let nulls = [
        "BlkioWeightDevice",
        "BlkioDeviceReadBps",
        "BlkioDeviceWriteBps",
        "BlkioDeviceReadIOps",
        "BlkioDeviceWriteIOps",
        "Devices",
        "DeviceCgroupRules",
        "DeviceRequests",
        "MemorySwappiness",
        "OomKillDisable",
        "Ulimits",
    ];
    let mut request: BTreeMap<&str, Json> =
        nulls.into_iter().map(|name| (name, Json::Null)).collect();
    request.extend([
        ("CpuShares", json!(flags.cpu_shares)),
        ("Memory", json!(flags.memory.0)),
        ("NanoCpus", json!(flags.cpus.0)),
        ("CgroupParent", json!("")),
        ("BlkioWeight", json!(flags.blkio_weight)),
        ("CpuPeriod", json!(flags.cpu_period)),
        ("CpuQuota", json!(flags.cpu_quota)),
        ("CpuRealtimePeriod", json!(flags.cpu_rt_period)),
        ("CpuRealtimeRuntime", json!(flags.cpu_rt_runtime)),
        ("CpusetCpus", json!(flags.cpuset_cpus)),
        ("CpusetMems", json!(flags.cpuset_mems)),
        ("MemoryReservation", json!(flags.memory_reservation.0)),
        ("MemorySwap", json!(flags.memory_swap.0)),
        ("PidsLimit", json!(flags.pids_limit)),
        ("CpuCount", json!(0)),
        ("CpuPercent", json!(0)),
        ("IOMaximumIOps", json!(0)),
        ("IOMaximumBandwidth", json!(0)),
        ("RestartPolicy", restart),
    ]);
    Ok(json!(request))
}

#[cfg(test)]
mod tests;
