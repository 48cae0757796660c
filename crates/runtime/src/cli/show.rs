//! State, lists, and a configuration to begin with.

use serde_json::{Value, json};
use silo_oci::runtime::Status;

use super::args::{List, ListFormat, Ps, SpecArguments};
use super::state::{Container, Store, cgroup_error};
use super::{print, print_json};
use crate::error::{Context as _, Error};

fn describe(container: &Container) -> Value {
    let status = container.status();
    let state = container.state(status);
    let record = &container.record;
    let mut value = json!({
        "ociVersion": state.oci_version,
        "id": state.id,
        "pid": state.pid,
        "status": status,
        "bundle": record.bundle,
        "rootfs": record.rootfs,
        "created": record.created,
        "owner": record.owner,
    });
    if !record.annotations.is_empty() {
        value["annotations"] = json!(record.annotations);
    }
    value
}

pub(super) fn state(store: &Store, id: &str) -> Result<(), Error> {
    print_json(&describe(&store.open(id)?))
}

pub(super) fn list(store: &Store, arguments: &List) -> Result<(), Error> {
    let containers = store.all()?;
    if arguments.quiet {
        let ids: String =
            containers.iter().map(|container| container.record.id.clone() + "\n").collect();
        return print(&ids);
    }
    if arguments.format == ListFormat::Json {
        return print_json(&containers.iter().map(describe).collect::<Vec<_>>());
    }
    let mut rows = vec![["ID", "PID", "STATUS", "BUNDLE", "CREATED", "OWNER"].map(String::from)];
    for container in &containers {
        let (status, record) = (container.status(), &container.record);
        rows.push([
            record.id.clone(),
            container.state(status).pid.to_string(),
            status.to_string(),
            record.bundle.display().to_string(),
            record.created.clone(),
            record.owner.clone(),
        ]);
    }
    let width = |column: usize| rows.iter().map(|row| row[column].len()).max().unwrap_or(0);
    let widths: Vec<usize> = (0..6).map(width).collect();
    let mut text = String::new();
    for row in &rows {
        for (cell, width) in row.iter().zip(&widths).take(5) {
            text.push_str(&format!("{cell:<0$}", width + 4));
        }
        text.push_str(&row[5]);
        text.push('\n');
    }
    print(&text)
}

pub(super) fn ps(store: &Store, arguments: &Ps) -> Result<(), Error> {
    let container = store.open(&arguments.id)?;
    if container.status() == Status::Stopped {
        return Err(Error::State("the container is not running".into()));
    }
    let mut pids = match container.cgroup()? {
        Some(cgroup) => cgroup.pids().map_err(cgroup_error)?,
        None => vec![container.record.pid],
    };
    pids.sort_unstable();
    if arguments.format == ListFormat::Json {
        let text = serde_json::to_string(&pids).map_err(|e| Error::invalid(e.to_string()))?;
        return print(&format!("{text}\n"));
    }
    let default = ["-ef".to_owned()];
    let options = if arguments.options.is_empty() { &default[..] } else { &arguments.options };
    let output =
        std::process::Command::new("ps").args(options).output().step(|| "run ps".into())?;
    if !output.status.success() {
        return Err(Error::invalid(String::from_utf8_lossy(&output.stderr).trim().to_owned()));
    }
    let text = String::from_utf8_lossy(&output.stdout);
    let mut lines = text.lines();
    let header = lines.next().unwrap_or("");
    let column = header
        .split_ascii_whitespace()
        .position(|name| name == "PID")
        .ok_or_else(|| Error::invalid("ps shows no column PID"))?;
    let mut shown = format!("{header}\n");
    for line in lines {
        let pid = line.split_ascii_whitespace().nth(column).and_then(|pid| pid.parse().ok());
        if pid.is_some_and(|pid: i32| pids.binary_search(&pid).is_ok()) {
            shown.push_str(line);
            shown.push('\n');
        }
    }
    print(&shown)
}

/// A configuration that runs a shell in `rootfs`.
fn template(rootless: bool) -> Value {
    let capabilities = ["CAP_AUDIT_WRITE", "CAP_KILL", "CAP_NET_BIND_SERVICE"];
    let mut mounts = vec![
        json!({"destination": "/proc", "type": "proc", "source": "proc"}),
        json!({"destination": "/dev", "type": "tmpfs", "source": "tmpfs",
            "options": ["nosuid", "strictatime", "mode=755", "size=65536k"]}),
        json!({"destination": "/dev/pts", "type": "devpts", "source": "devpts",
            "options": ["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"]}),
        json!({"destination": "/dev/shm", "type": "tmpfs", "source": "shm",
            "options": ["nosuid", "noexec", "nodev", "mode=1777", "size=65536k"]}),
        json!({"destination": "/dev/mqueue", "type": "mqueue", "source": "mqueue",
            "options": ["nosuid", "noexec", "nodev"]}),
        json!({"destination": "/sys", "type": "sysfs", "source": "sysfs",
            "options": ["nosuid", "noexec", "nodev", "ro"]}),
        json!({"destination": "/sys/fs/cgroup", "type": "cgroup", "source": "cgroup",
            "options": ["nosuid", "noexec", "nodev", "relatime", "ro"]}),
    ];
    let mut namespaces = vec!["pid", "network", "ipc", "uts", "mount", "cgroup"];
    let mut linux = json!({
        "resources": {"devices": [{"allow": false, "access": "rwm"}]},
        "maskedPaths": ["/proc/acpi", "/proc/asound", "/proc/kcore", "/proc/keys",
            "/proc/latency_stats", "/proc/timer_list", "/proc/timer_stats", "/proc/sched_debug",
            "/sys/firmware", "/proc/scsi"],
        "readonlyPaths": ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys",
            "/proc/sysrq-trigger"],
    });
    if rootless {
        namespaces.retain(|kind| *kind != "network");
        namespaces.push("user");
        let id = |host: u32| json!([{"containerID": 0, "hostID": host, "size": 1}]);
        linux["uidMappings"] = id(rustix::process::geteuid().as_raw());
        linux["gidMappings"] = id(rustix::process::getegid().as_raw());
        linux.as_object_mut().map(|linux| linux.remove("resources"));
        mounts[2]["options"].as_array_mut().map(Vec::pop);
        mounts[5] = json!({"destination": "/sys", "type": "none", "source": "/sys",
            "options": ["rbind", "nosuid", "noexec", "nodev", "ro"]});
        mounts.pop();
    }
    linux["namespaces"] = namespaces.iter().map(|kind| json!({"type": kind})).collect();
    json!({
        "ociVersion": silo_oci::runtime::VERSION,
        "process": {
            "terminal": true,
            "user": {"uid": 0, "gid": 0},
            "args": ["sh"],
            "env": ["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
                "TERM=xterm"],
            "cwd": "/",
            "capabilities": {"bounding": capabilities, "effective": capabilities,
                "permitted": capabilities},
            "rlimits": [{"type": "RLIMIT_NOFILE", "hard": 1024, "soft": 1024}],
            "noNewPrivileges": true,
        },
        "root": {"path": "rootfs", "readonly": true},
        "hostname": "silo",
        "mounts": mounts,
        "linux": linux,
    })
}

pub(super) fn spec(arguments: &SpecArguments) -> Result<(), Error> {
    let path = arguments.bundle.join("config.json");
    let text = serde_json::to_string_pretty(&template(arguments.rootless))
        .map_err(|error| Error::invalid(error.to_string()))?;
    let mut file = fs_err::OpenOptions::new()
        .write(true)
        .create_new(true)
        .open(&path)
        .step(|| format!("make {}", path.display()))?;
    std::io::Write::write_all(&mut file, format!("{text}\n").as_bytes())
        .step(|| format!("write {}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn templates_are_configurations() {
        for rootless in [false, true] {
            let text = template(rootless).to_string();
            let spec = silo_oci::runtime::Spec::from_json(text.as_bytes()).unwrap();
            assert_eq!(spec.process.unwrap().args, ["sh"]);
        }
    }
}
