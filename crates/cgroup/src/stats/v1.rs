//! The files of version 1.

use super::{BlkioEntry, HugetlbStats, Source, page_sizes};
use crate::error::Error;
use crate::files;

pub(super) fn cpu_time(source: &mut Source<'_>) -> Result<(), Error> {
    source.stats.cpu.usage = source.number("cpuacct.usage")?;
    source.stats.cpu.user = source.number("cpuacct.usage_user")?;
    source.stats.cpu.system = source.number("cpuacct.usage_sys")?;
    source.stats.cpu.per_cpu = source
        .text("cpuacct.usage_percpu")?
        .split_whitespace()
        .filter_map(|word| word.parse().ok())
        .collect();
    Ok(())
}

pub(super) fn throttling(source: &mut Source<'_>) -> Result<(), Error> {
    let text = source.optional_text("cpu.stat")?;
    source.stats.cpu.periods = files::pair(&text, "nr_periods");
    source.stats.cpu.throttled_periods = files::pair(&text, "nr_throttled");
    source.stats.cpu.throttled = files::pair(&text, "throttled_time");
    Ok(())
}

pub(super) fn memory(source: &mut Source<'_>) -> Result<(), Error> {
    let text = source.text("memory.stat")?;
    let control = source.optional_text("memory.oom_control")?;
    let memory = &mut source.stats.memory;
    memory.details = files::pairs(&text).map(|(key, value)| (key.to_owned(), value)).collect();
    memory.cache = files::pair(&text, "total_cache");
    memory.inactive_file = files::pair(&text, "total_inactive_file");
    memory.oom_kills = files::pair(&control, "oom_kill");
    source.stats.memory.usage = source.number("memory.usage_in_bytes")?;
    source.stats.memory.max_usage = source.number("memory.max_usage_in_bytes")?;
    source.stats.memory.limit = source.number("memory.limit_in_bytes")?;
    source.stats.memory.failures = source.number("memory.failcnt")?;
    source.stats.memory.swap_usage = source.optional_number("memory.memsw.usage_in_bytes")?;
    source.stats.memory.swap_limit = source.optional_number("memory.memsw.limit_in_bytes")?;
    Ok(())
}

/// The same files in both versions.
pub(super) fn pids(source: &mut Source<'_>) -> Result<(), Error> {
    source.stats.pids.current = source.number("pids.current")?;
    let limit = source.number("pids.max")?;
    source.stats.pids.limit = if limit == u64::MAX { 0 } else { limit };
    Ok(())
}

pub(super) fn blkio(source: &mut Source<'_>) -> Result<(), Error> {
    source.stats.blkio.service_bytes = counts(source, "io_service_bytes")?;
    source.stats.blkio.serviced = counts(source, "io_serviced")?;
    Ok(())
}

/// The counts of the scheduler if it has any, else those of the throttling layer, which sees
/// every operation.
fn counts(source: &Source<'_>, what: &str) -> Result<Vec<BlkioEntry>, Error> {
    for family in ["blkio.bfq", "blkio.throttle"] {
        let text = source.optional_text(&format!("{family}.{what}_recursive"))?;
        let entries: Vec<_> = text.lines().filter_map(entry).collect();
        if !entries.is_empty() {
            return Ok(entries);
        }
    }
    Ok(Vec::new())
}

/// A line `8:0 Read 4096`. The total over all devices, `Total 4096`, is left out.
fn entry(line: &str) -> Option<BlkioEntry> {
    let mut words = line.split_whitespace();
    let (major, minor) = words.next()?.split_once(':')?;
    Some(BlkioEntry {
        major: major.parse().ok()?,
        minor: minor.parse().ok()?,
        operation: words.next()?.to_owned(),
        value: words.next()?.parse().ok()?,
    })
}

pub(super) fn hugetlb(source: &mut Source<'_>) -> Result<(), Error> {
    for size in page_sizes(source, "usage_in_bytes")? {
        let stats = HugetlbStats {
            usage: source.number(&format!("hugetlb.{size}.usage_in_bytes"))?,
            max_usage: source.number(&format!("hugetlb.{size}.max_usage_in_bytes"))?,
            failures: source.number(&format!("hugetlb.{size}.failcnt"))?,
        };
        source.stats.hugetlb.insert(size, stats);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_block_devices() {
        let good = entry("254:0 Read 1024").unwrap();
        assert_eq!((good.major, good.minor, &*good.operation, good.value), (254, 0, "Read", 1024));
        for bad in ["", "Total 0", "254:0 Read", "254:x Read 1", "254 Read 1"] {
            assert_eq!(entry(bad), None, "{bad}");
        }
    }
}
