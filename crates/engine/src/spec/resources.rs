//! Limits of the container's cgroup.

use rustix::fs::{major, minor};
use silo_docker::host_config::{Resources, ThrottleDevice};
use silo_oci::runtime::{
    LinuxBlockIo, LinuxCpu, LinuxMemory, LinuxPids, LinuxResources, LinuxThrottleDevice,
    LinuxWeightDevice,
};
use silo_types::Error;

/// The period to which `--cpus` is put, in microseconds.
const CPU_PERIOD: u64 = 100_000;

fn positive(value: i64) -> Option<i64> {
    (value > 0).then_some(value)
}

fn unsigned(value: i64) -> Option<u64> {
    u64::try_from(value).ok().filter(|&value| value != 0)
}

/// Everything but the device rules.
pub fn limits(from: &Resources) -> Result<LinuxResources, Error> {
    Ok(LinuxResources {
        memory: memory(from),
        cpu: cpu(from),
        pids: from
            .pids_limit
            .map(|limit| LinuxPids { limit: Some(if limit <= 0 { -1 } else { limit }) }),
        block_io: block_io(from)?,
        ..LinuxResources::default()
    })
}

fn memory(from: &Resources) -> Option<LinuxMemory> {
    let memory = LinuxMemory {
        limit: positive(from.memory),
        reservation: positive(from.memory_reservation),
        swap: positive(from.memory_swap)
            .or_else(|| (from.memory > 0 && from.memory_swap == -1).then_some(-1)),
        swappiness: from.memory_swappiness.and_then(|value| u64::try_from(value).ok()),
        disable_oom_killer: from.oom_kill_disable.filter(|&disable| disable),
        ..LinuxMemory::default()
    };
    (memory != LinuxMemory::default()).then_some(memory)
}

fn cpu(from: &Resources) -> Option<LinuxCpu> {
    let mut cpu = LinuxCpu {
        shares: unsigned(from.cpu_shares),
        cpus: from.cpuset_cpus.clone(),
        mems: from.cpuset_mems.clone(),
        period: unsigned(from.cpu_period),
        quota: (from.cpu_quota != 0).then_some(from.cpu_quota),
        realtime_period: unsigned(from.cpu_realtime_period),
        realtime_runtime: (from.cpu_realtime_runtime != 0).then_some(from.cpu_realtime_runtime),
        ..LinuxCpu::default()
    };
    if from.nano_cpus > 0 {
        cpu.period = Some(CPU_PERIOD);
        cpu.quota = Some(from.nano_cpus / 10_000);
    }
    (cpu != LinuxCpu::default()).then_some(cpu)
}

fn device(path: &str) -> Result<(i64, i64), Error> {
    let stat =
        rustix::fs::stat(path).map_err(|errno| Error::internal(format!("stat {path}: {errno}")))?;
    Ok((i64::from(major(stat.st_rdev)), i64::from(minor(stat.st_rdev))))
}

fn throttles(list: &[ThrottleDevice]) -> Result<Vec<LinuxThrottleDevice>, Error> {
    list.iter()
        .map(|limit| {
            let (major, minor) = device(&limit.path)?;
            Ok(LinuxThrottleDevice { major, minor, rate: limit.rate })
        })
        .collect()
}

fn block_io(from: &Resources) -> Result<Option<LinuxBlockIo>, Error> {
    let weights = from
        .blkio_weight_device
        .iter()
        .map(|limit| {
            let (major, minor) = device(&limit.path)?;
            Ok(LinuxWeightDevice { major, minor, weight: Some(limit.weight), leaf_weight: None })
        })
        .collect::<Result<_, Error>>()?;
    let block_io = LinuxBlockIo {
        weight: (from.blkio_weight != 0).then_some(from.blkio_weight),
        weight_device: weights,
        throttle_read_bps_device: throttles(&from.blkio_device_read_bps)?,
        throttle_write_bps_device: throttles(&from.blkio_device_write_bps)?,
        throttle_read_iops_device: throttles(&from.blkio_device_read_iops)?,
        throttle_write_iops_device: throttles(&from.blkio_device_write_iops)?,
        ..LinuxBlockIo::default()
    };
    Ok((block_io != LinuxBlockIo::default()).then_some(block_io))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_asked_is_nothing_set() {
        assert_eq!(limits(&Resources::default()).unwrap(), LinuxResources::default());
    }

    #[test]
    fn values_are_carried_over() {
        let limits = limits(&Resources {
            memory: 64 << 20,
            memory_swap: 128 << 20,
            nano_cpus: 1_500_000_000,
            cpu_shares: 512,
            cpuset_cpus: "0".into(),
            pids_limit: Some(0),
            oom_kill_disable: Some(true),
            ..Resources::default()
        })
        .unwrap();
        let memory = limits.memory.unwrap();
        assert_eq!((memory.limit, memory.swap), (Some(64 << 20), Some(128 << 20)));
        assert_eq!(memory.disable_oom_killer, Some(true));
        let cpu = limits.cpu.unwrap();
        assert_eq!((cpu.period, cpu.quota), (Some(100_000), Some(150_000)));
        assert_eq!((cpu.shares, cpu.cpus.as_str()), (Some(512), "0"));
        assert_eq!(limits.pids.unwrap().limit, Some(-1));
        let missing = Resources {
            blkio_device_read_bps: vec![ThrottleDevice { path: "/dev/none".into(), rate: 1 }]
                .into(),
            ..Resources::default()
        };
        assert!(super::limits(&missing).is_err());
    }
}
