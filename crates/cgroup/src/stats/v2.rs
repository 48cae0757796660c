//! The files of version 2.

use super::{BlkioEntry, HugetlbStats, Source, page_sizes};
use crate::error::Error;
use crate::files;

pub(super) fn cpu(source: &mut Source<'_>) -> Result<(), Error> {
    let text = source.text("cpu.stat")?;
    let nanoseconds = |key| files::pair(&text, key).saturating_mul(1000);
    let cpu = &mut source.stats.cpu;
    cpu.usage = nanoseconds("usage_usec");
    cpu.user = nanoseconds("user_usec");
    cpu.system = nanoseconds("system_usec");
    cpu.periods = files::pair(&text, "nr_periods");
    cpu.throttled_periods = files::pair(&text, "nr_throttled");
    cpu.throttled = nanoseconds("throttled_usec");
    Ok(())
}

pub(super) fn memory(source: &mut Source<'_>) -> Result<(), Error> {
    let text = source.text("memory.stat")?;
    let events = source.optional_text("memory.events")?;
    let memory = &mut source.stats.memory;
    memory.details = files::pairs(&text).map(|(key, value)| (key.to_owned(), value)).collect();
    memory.cache = files::pair(&text, "file");
    memory.inactive_file = files::pair(&text, "inactive_file");
    memory.oom_kills = files::pair(&events, "oom_kill");
    source.stats.memory.usage = source.number("memory.current")?;
    source.stats.memory.max_usage = source.optional_number("memory.peak")?;
    source.stats.memory.limit = source.number("memory.max")?;
    source.stats.memory.swap_usage = source.optional_number("memory.swap.current")?;
    source.stats.memory.swap_limit = source.optional_number("memory.swap.max")?;
    Ok(())
}

pub(super) fn blkio(source: &mut Source<'_>) -> Result<(), Error> {
    let text = source.optional_text("io.stat")?;
    let (bytes, operations) = io_stat(&text);
    source.stats.blkio.service_bytes = bytes;
    source.stats.blkio.serviced = operations;
    Ok(())
}

/// Lines `8:0 rbytes=1 wbytes=2 rios=3 wios=4 dbytes=5 dios=6`: the bytes and the operations.
/// Discards are left out, as Docker does.
fn io_stat(text: &str) -> (Vec<BlkioEntry>, Vec<BlkioEntry>) {
    let mut bytes = Vec::new();
    let mut operations = Vec::new();
    for line in text.lines() {
        let mut words = line.split_whitespace();
        let device = words.next().and_then(|device| {
            let (major, minor) = device.split_once(':')?;
            Some((major.parse().ok()?, minor.parse().ok()?))
        });
        let Some((major, minor)) = device else { continue };
        for (key, value) in words.filter_map(|word| word.split_once('=')) {
            let (list, operation) = match key {
                "rbytes" => (&mut bytes, "read"),
                "wbytes" => (&mut bytes, "write"),
                "rios" => (&mut operations, "read"),
                "wios" => (&mut operations, "write"),
                _ => continue,
            };
            let Ok(value) = value.parse() else { continue };
            list.push(BlkioEntry { major, minor, operation: operation.to_owned(), value });
        }
    }
    (bytes, operations)
}

pub(super) fn hugetlb(source: &mut Source<'_>) -> Result<(), Error> {
    for size in page_sizes(source, "current")? {
        let events = source.optional_text(&format!("hugetlb.{size}.events"))?;
        let stats = HugetlbStats {
            usage: source.number(&format!("hugetlb.{size}.current"))?,
            max_usage: 0,
            failures: files::pair(&events, "max"),
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
        let (bytes, operations) = io_stat(
            "254:0 rbytes=1 wbytes=2 rios=3 wios=4 dbytes=5 dios=6\n8:16 \nnonsense rbytes=1\n",
        );
        let short = |entries: &[BlkioEntry]| -> Vec<(u64, String, u64)> {
            entries.iter().map(|e| (e.major, e.operation.clone(), e.value)).collect()
        };
        assert_eq!(short(&bytes), [(254, "read".into(), 1), (254, "write".into(), 2)]);
        assert_eq!(short(&operations), [(254, "read".into(), 3), (254, "write".into(), 4)]);
    }
}
