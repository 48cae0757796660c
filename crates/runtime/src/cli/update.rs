//! Changing a container's limits.

use std::io::Read as _;

use silo_oci::runtime::{LinuxBlockIo, LinuxCpu, LinuxMemory, LinuxPids, LinuxResources, Status};

use super::args::Update;
use super::state::{Store, cgroup_error};
use crate::error::{Context as _, Error};

/// The largest description of limits that is read, in bytes.
const INPUT_MAX: u64 = 1 << 20;

fn bytes(text: &str) -> Result<i64, Error> {
    if let Ok(number) = text.parse() {
        return Ok(number);
    }
    let wrong = || Error::invalid(format!("no number of bytes: {text:?}"));
    let split = text.find(|c: char| !c.is_ascii_digit()).ok_or_else(wrong)?;
    let factor: i64 = match text[split..].to_ascii_lowercase().as_str() {
        "b" => 1,
        "k" | "kb" => 1 << 10,
        "m" | "mb" => 1 << 20,
        "g" | "gb" => 1 << 30,
        "t" | "tb" => 1 << 40,
        _ => return Err(wrong()),
    };
    text[..split].parse::<i64>().ok().and_then(|n| n.checked_mul(factor)).ok_or_else(wrong)
}

fn resources(arguments: &Update) -> Result<LinuxResources, Error> {
    if let Some(path) = &arguments.resources {
        let mut json = Vec::new();
        let step = || format!("read {}", path.display());
        if path.as_os_str() == "-" {
            std::io::stdin().lock().take(INPUT_MAX).read_to_end(&mut json).step(step)?;
        } else {
            fs_err::File::open(path)
                .and_then(|file| file.take(INPUT_MAX).read_to_end(&mut json))
                .step(step)?;
        }
        return serde_json::from_slice(&json)
            .map_err(|error| Error::invalid(format!("{}: {error}", path.display())));
    }
    let mut resources = LinuxResources::default();
    if let Some(weight) = arguments.blkio_weight {
        resources.block_io = Some(LinuxBlockIo { weight: Some(weight), ..LinuxBlockIo::default() });
    }
    let mut cpu = LinuxCpu {
        shares: arguments.cpu_share,
        quota: arguments.cpu_quota,
        burst: arguments.cpu_burst,
        period: arguments.cpu_period,
        realtime_runtime: arguments.cpu_rt_runtime,
        realtime_period: arguments.cpu_rt_period,
        idle: arguments.cpu_idle,
        ..LinuxCpu::default()
    };
    cpu.cpus = arguments.cpuset_cpus.clone().unwrap_or_default();
    cpu.mems = arguments.cpuset_mems.clone().unwrap_or_default();
    resources.cpu = (cpu != LinuxCpu::default()).then_some(cpu);
    let number = |text: &Option<String>| text.as_deref().map(bytes).transpose();
    let memory = LinuxMemory {
        limit: number(&arguments.memory)?,
        reservation: number(&arguments.memory_reservation)?,
        swap: number(&arguments.memory_swap)?,
        ..LinuxMemory::default()
    };
    resources.memory = (memory != LinuxMemory::default()).then_some(memory);
    if let Some(limit) = arguments.pids_limit {
        resources.pids = Some(LinuxPids { limit: Some(limit) });
    }
    Ok(resources)
}

pub(super) fn update(store: &Store, arguments: &Update) -> Result<(), Error> {
    let mut container = store.open(&arguments.id)?;
    if container.status() == Status::Stopped {
        return Err(Error::State("cannot update a container that has stopped".into()));
    }
    let resources = resources(arguments)?;
    let cgroup =
        container.cgroup()?.ok_or_else(|| Error::State("the container has no cgroup".into()))?;
    cgroup.apply(&resources).map_err(cgroup_error)?;
    let schemas = [&arguments.l3_cache_schema, &arguments.mem_bw_schema];
    if schemas.iter().any(|schema| schema.is_some()) {
        let mut rdt = container
            .record
            .spec
            .linux
            .as_ref()
            .and_then(|linux| linux.intel_rdt.clone())
            .unwrap_or_default();
        if let Some(schema) = &arguments.l3_cache_schema {
            rdt.l3_cache_schema.clone_from(schema);
        }
        if let Some(schema) = &arguments.mem_bw_schema {
            rdt.mem_bw_schema.clone_from(schema);
        }
        let pid = rustix::process::Pid::from_raw(container.record.pid)
            .ok_or_else(|| Error::State("the container is not running".into()))?;
        let root = std::path::Path::new("/sys/fs/resctrl");
        crate::resctrl::apply(root, &container.record.id, &rdt, pid)?;
        if let Some(linux) = &mut container.record.spec.linux {
            linux.intel_rdt = Some(rdt);
        }
        container.save()?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::bytes;

    #[test]
    fn sizes() {
        for (text, number) in [("5", 5), ("-1", -1), ("2k", 2048), ("1G", 1 << 30)] {
            assert_eq!(bytes(text).unwrap(), number);
        }
        for wrong in ["", "k", "1x", "9223372036854775807k"] {
            assert!(bytes(wrong).is_err(), "{wrong}");
        }
    }
}
