//! `GET /containers/{id}/stats`.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use silo_docker::stats::{
    BlkioEntry, BlkioStats, CpuStats, CpuUsage, MemoryStats, NetworkStats, PidsStats, Stats,
    ThrottlingData,
};
use silo_types::{Error, time};
use tokio::time::Instant;

use crate::container::Container;
use crate::engine::Engine;

/// Time between two samples.
const INTERVAL: Duration = Duration::from_secs(1);

/// Samples of a container, one a second.
#[derive(Debug)]
pub struct StatsStream {
    engine: Arc<Engine>,
    container: Arc<Container>,
    stream: bool,
    one_shot: bool,
    previous: Option<(String, CpuStats)>,
    next: Instant,
    done: bool,
}

impl Engine {
    /// Begins to take samples of a container: one with `one_shot`, otherwise one with the sample
    /// before it, and one a second with `stream`.
    #[expect(clippy::unused_async, reason = "verbs are async, whatever they do today")]
    pub async fn container_stats(
        self: &Arc<Self>,
        name: &str,
        stream: bool,
        one_shot: bool,
    ) -> Result<StatsStream, Error> {
        if stream && one_shot {
            // docker wording
            return Err(Error::invalid("cannot have stream=true and one-shot=true"));
        }
        Ok(StatsStream {
            engine: Arc::clone(self),
            container: self.container(name)?,
            stream,
            one_shot,
            previous: None,
            next: Instant::now(),
            done: false,
        })
    }

    /// One sample; an empty one of a container that does not run.
    async fn sample(&self, container: &Arc<Container>) -> Stats {
        let mut stats = Stats {
            name: format!("/{}", container.name()),
            id: container.id.to_string(),
            read: time::GO_ZERO.into(),
            preread: time::GO_ZERO.into(),
            ..Stats::default()
        };
        let Ok(group) = self.running_group(container) else { return stats };
        let Ok(usage) = group.stats() else { return stats };
        stats.read = time::rfc3339_nano(time::now());
        let cpu = &usage.cpu;
        stats.cpu_stats = CpuStats {
            cpu_usage: CpuUsage {
                total_usage: cpu.usage,
                percpu_usage: cpu.per_cpu.iter().copied().collect(),
                usage_in_kernelmode: cpu.system,
                usage_in_usermode: cpu.user,
            },
            system_cpu_usage: system_cpu_usage(),
            online_cpus: self.host.cpu_count,
            throttling_data: ThrottlingData {
                periods: cpu.periods,
                throttled_periods: cpu.throttled_periods,
                throttled_time: cpu.throttled,
            },
        };
        let memory = &usage.memory;
        let total = total_memory();
        stats.memory_stats = MemoryStats {
            usage: memory.usage,
            max_usage: memory.max_usage,
            stats: memory.details.clone(),
            failcnt: memory.failures,
            limit: if memory.limit == 0 { total } else { memory.limit.min(total) },
        };
        stats.pids_stats = PidsStats { current: usage.pids.current, limit: usage.pids.limit };
        let entries = |list: &[silo_cgroup::BlkioEntry]| {
            list.iter()
                .map(|entry| BlkioEntry {
                    major: entry.major,
                    minor: entry.minor,
                    op: entry.operation.clone(),
                    value: entry.value,
                })
                .collect()
        };
        stats.blkio_stats = BlkioStats {
            io_service_bytes_recursive: entries(&usage.blkio.service_bytes),
            io_serviced_recursive: entries(&usage.blkio.serviced),
            ..BlkioStats::default()
        };
        stats.networks = self.network_stats(container).await;
        stats
    }

    async fn network_stats(&self, container: &Arc<Container>) -> BTreeMap<String, NetworkStats> {
        let mut networks = BTreeMap::new();
        let live = container.live.lock().await;
        if let (Some(sandbox), Ok(bridge)) = (&live.sandbox, self.networks.bridge())
            && let Ok(traffic) = bridge.stats(sandbox)
        {
            let stats = NetworkStats {
                rx_bytes: traffic.rx_bytes,
                rx_packets: traffic.rx_packets,
                rx_errors: traffic.rx_errors,
                rx_dropped: traffic.rx_dropped,
                tx_bytes: traffic.tx_bytes,
                tx_packets: traffic.tx_packets,
                tx_errors: traffic.tx_errors,
                tx_dropped: traffic.tx_dropped,
            };
            networks.insert("eth0".to_owned(), stats);
        }
        networks
    }
}

impl StatsStream {
    /// The next sample; `None` when there are no more.
    pub async fn next(&mut self) -> Option<Stats> {
        if self.done || self.container.state().removed {
            return None;
        }
        if self.one_shot {
            self.done = true;
            return Some(self.engine.sample(&self.container).await);
        }
        if self.previous.is_none() {
            let first = self.engine.sample(&self.container).await;
            if !self.stream && !self.container.is_running() {
                self.done = true;
                return Some(first);
            }
            if self.stream {
                self.previous = Some((first.read.clone(), first.cpu_stats.clone()));
                self.next += INTERVAL;
                return Some(first);
            }
            self.previous = Some((first.read, first.cpu_stats));
            self.next += INTERVAL;
        }
        tokio::time::sleep_until(self.next).await;
        self.next = Instant::now() + INTERVAL;
        let mut stats = self.engine.sample(&self.container).await;
        let before = (stats.read.clone(), stats.cpu_stats.clone());
        if let Some((read, cpu)) = self.previous.replace(before) {
            stats.preread = read;
            stats.precpu_stats = cpu;
        }
        self.done = !self.stream;
        Some(stats)
    }
}

/// Nanoseconds of processor time of the whole host.
fn system_cpu_usage() -> u64 {
    /// Clock ticks of the first line of /proc/stat are hundredths of a second everywhere.
    const TICK: u64 = 10_000_000;
    let text = fs_err::read_to_string("/proc/stat").unwrap_or_default();
    parse_system_cpu(&text).saturating_mul(TICK)
}

/// The ticks of the first seven columns of the line of all processors.
fn parse_system_cpu(text: &str) -> u64 {
    text.lines().find_map(|line| line.strip_prefix("cpu ")).map_or(0, |line| {
        line.split_whitespace().take(7).filter_map(|n| n.parse::<u64>().ok()).sum()
    })
}

/// Bytes of memory of the host.
fn total_memory() -> u64 {
    let info = rustix::system::sysinfo();
    info.totalram.saturating_mul(u64::from(info.mem_unit))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn processor_time_of_the_host() {
        assert_eq!(parse_system_cpu("cpu  1 2 3 4 5 6 7 800 9 10\ncpu0 1 1 1\n"), 28);
        assert_eq!(parse_system_cpu("nonsense"), 0);
        assert!(system_cpu_usage() > 0 && total_memory() > 0);
    }
}
