//! What a container uses, as a stream of JSON lines.

use std::os::fd::AsFd as _;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec};
use serde_json::{Value, json};
use silo_cgroup::{Cgroup, Stats};
use silo_oci::runtime::Status;

use super::args::Events;
use super::print;
use super::state::{Store, cgroup_error};
use crate::error::{Context as _, Error};

/// A time like `5s`, `1m30s`, `200ms`; at least a millisecond.
fn interval(text: &str) -> Result<Duration, Error> {
    let wrong = || Error::invalid(format!("no interval: {text:?}"));
    let (mut total, mut rest) = (Duration::ZERO, text);
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit()).ok_or_else(wrong)?;
        let number: u64 = rest[..digits].parse().map_err(|_| wrong())?;
        rest = &rest[digits..];
        let unit = rest.find(|c: char| c.is_ascii_digit()).unwrap_or(rest.len());
        let milliseconds = match &rest[..unit] {
            "ms" => 1,
            "s" => 1000,
            "m" => 60_000,
            "h" => 3_600_000,
            _ => return Err(wrong()),
        };
        rest = &rest[unit..];
        let part = number.checked_mul(milliseconds).ok_or_else(wrong)?;
        total = total.checked_add(Duration::from_millis(part)).ok_or_else(wrong)?;
    }
    if total.is_zero() { Err(wrong()) } else { Ok(total) }
}

fn describe(stats: &Stats) -> Value {
    let blkio = |entries: &[silo_cgroup::BlkioEntry]| -> Vec<Value> {
        entries
            .iter()
            .map(|entry| {
                json!({"major": entry.major, "minor": entry.minor, "op": entry.operation,
                    "value": entry.value})
            })
            .collect()
    };
    let hugetlb: serde_json::Map<String, Value> = stats
        .hugetlb
        .iter()
        .map(|(size, used)| {
            let value =
                json!({"usage": used.usage, "max": used.max_usage, "failcnt": used.failures});
            (size.clone(), value)
        })
        .collect();
    json!({
        "cpu": {
            "usage": {"total": stats.cpu.usage, "percpu": stats.cpu.per_cpu,
                "kernel": stats.cpu.system, "user": stats.cpu.user},
            "throttling": {"periods": stats.cpu.periods,
                "throttledPeriods": stats.cpu.throttled_periods,
                "throttledTime": stats.cpu.throttled},
        },
        "memory": {
            "usage": {"limit": stats.memory.limit, "usage": stats.memory.usage,
                "max": stats.memory.max_usage, "failcnt": stats.memory.failures},
            "raw": stats.memory.details,
        },
        "pids": {"current": stats.pids.current, "limit": stats.pids.limit},
        "blkio": {
            "ioServiceBytesRecursive": blkio(&stats.blkio.service_bytes),
            "ioServicedRecursive": blkio(&stats.blkio.serviced),
        },
        "hugetlb": hugetlb,
    })
}

fn show(id: &str, cgroup: &Cgroup) -> Result<(), Error> {
    let data = describe(&cgroup.stats().map_err(cgroup_error)?);
    print(&format!("{}\n", json!({"type": "stats", "id": id, "data": data})))
}

pub(super) fn events(store: &Store, arguments: &Events) -> Result<(), Error> {
    let container = store.open(&arguments.id)?;
    let interval = interval(&arguments.interval)?;
    let stopped = || Error::State(format!("container {} is not running", arguments.id));
    if container.status() == Status::Stopped {
        return Err(stopped());
    }
    let cgroup =
        container.cgroup()?.ok_or_else(|| Error::State("the container has no cgroup".into()))?;
    if arguments.stats {
        return show(&arguments.id, &cgroup);
    }
    let (_, pidfd) = container.process().ok_or_else(stopped)?;
    let mut out_of_memory = cgroup.oom_events().map_err(cgroup_error)?;
    let time = Timespec {
        tv_sec: i64::try_from(interval.as_secs()).unwrap_or(i64::MAX),
        tv_nsec: interval.subsec_nanos().into(),
    };
    loop {
        let (ended, memory) = {
            let mut fds = vec![PollFd::new(&pidfd, PollFlags::IN)];
            if let Some(events) = &out_of_memory {
                fds.push(PollFd::from_borrowed_fd(events.as_fd(), PollFlags::IN));
            }
            match rustix::event::poll(&mut fds, Some(&time)) {
                Err(rustix::io::Errno::INTR) => continue,
                result => result.step(|| "wait for events".into())?,
            };
            (!fds[0].revents().is_empty(), fds.get(1).is_some_and(|fd| !fd.revents().is_empty()))
        };
        if ended {
            return Ok(());
        }
        if memory {
            let count = match &mut out_of_memory {
                Some(events) => events.take().step(|| "read memory events".into())?,
                None => 0,
            };
            for _ in 0..count {
                print(&format!("{}\n", json!({"type": "oom", "id": arguments.id})))?;
            }
        } else {
            show(&arguments.id, &cgroup)?;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn intervals() {
        for (text, milliseconds) in [("5s", 5000), ("1m30s", 90_000), ("200ms", 200)] {
            assert_eq!(interval(text).unwrap(), Duration::from_millis(milliseconds));
        }
        for wrong in ["", "5", "0s", "s", "5x", "99999999999999999999s"] {
            assert!(interval(wrong).is_err(), "{wrong}");
        }
    }
}
