//! Logs: what was on its way into a hive when it was last used.
//!
//! Both formats start with a copy of the base block's first sector. The old one (`DIRT`) has a
//! bitmap of the sectors of the bins that follow. The new one (`HvLE`) has numbered entries of
//! pages with two Marvin32 checksums; it alternates between two files.

use crate::read::{BASE, Base, checksum, u32_at, u64_at};

/// A sector, in which logs are counted.
const SECTOR: usize = 512;
/// Where the references to pages start in an entry.
const REFERENCES: usize = 40;

/// The file as it would be with all that the logs hold, or nothing if they hold nothing for it.
pub(crate) fn recover(bytes: &[u8], base: &Base, logs: &[&[u8]]) -> Option<Vec<u8>> {
    let logs: Vec<Log<'_>> = logs.iter().filter_map(|log| Log::parse(log)).collect();
    recover_new(bytes, base, &logs).or_else(|| recover_old(bytes, base, &logs))
}

/// A log with a good first sector.
struct Log<'a> {
    bytes: &'a [u8],
    base: Base,
}

impl<'a> Log<'a> {
    fn parse(bytes: &'a [u8]) -> Option<Self> {
        let base = Base::parse(bytes).ok()?;
        base.checksum_fits.then_some(Self { bytes, base })
    }

    /// The good entries of the new format, in order, from the one that the first sector names.
    fn entries(&self) -> Vec<Entry<'a>> {
        let mut entries = Vec::new();
        let mut at = SECTOR;
        let mut sequence = self.base.primary;
        while let Some(entry) = self.bytes.get(at..).and_then(Entry::parse) {
            if entry.sequence != sequence {
                break;
            }
            at += entry.bytes.len();
            sequence = sequence.wrapping_add(1);
            entries.push(entry);
        }
        entries
    }
}

/// One entry of the new format.
struct Entry<'a> {
    bytes: &'a [u8],
    flags: u32,
    sequence: u32,
    /// Size of the bins after it.
    size: usize,
    pages: usize,
}

impl<'a> Entry<'a> {
    fn parse(bytes: &'a [u8]) -> Option<Self> {
        if !bytes.starts_with(b"HvLE") {
            return None;
        }
        let length = usize::try_from(u32_at(bytes, 4)).ok()?;
        if length < SECTOR || length % SECTOR != 0 {
            return None;
        }
        let bytes = bytes.get(..length)?;
        let size = usize::try_from(u32_at(bytes, 16)).ok()?;
        let pages = usize::try_from(u32_at(bytes, 20)).ok()?;
        let fits = size % 4096 == 0
            && pages <= (length - REFERENCES) / 8
            && marvin32(&bytes[REFERENCES..]) == u64_at(bytes, 24)
            && marvin32(&bytes[..32]) == u64_at(bytes, 32);
        let (flags, sequence) = (u32_at(bytes, 8), u32_at(bytes, 12));
        fits.then_some(Self { bytes, flags, sequence, size, pages })
    }

    /// Writes the pages into the bins, or tells that it cannot and leaves them as they are.
    fn apply(&self, file: &mut Vec<u8>, largest: usize) -> bool {
        if self.size > largest {
            return false;
        }
        let references = self.bytes[REFERENCES..].chunks_exact(8).take(self.pages);
        let mut from = REFERENCES + 8 * self.pages;
        let mut moves = Vec::with_capacity(self.pages);
        for reference in references {
            let (Ok(to), Ok(length)) =
                (usize::try_from(u32_at(reference, 0)), usize::try_from(u32_at(reference, 4)))
            else {
                return false;
            };
            let inside = to.checked_add(length).is_some_and(|end| end <= self.size);
            let Some(page) = self.bytes.get(from..).and_then(|rest| rest.get(..length)) else {
                return false;
            };
            if !inside {
                return false;
            }
            moves.push((to, page));
            from += length;
        }
        file.resize(BASE + self.size, 0);
        for (to, page) in moves {
            file[BASE + to..BASE + to + page.len()].copy_from_slice(page);
        }
        true
    }
}

/// The largest size of the bins that a log can make: what it adds is in it.
fn largest(bytes: &[u8], logs: &[Log<'_>]) -> usize {
    bytes.len() + logs.iter().map(|log| log.bytes.len()).sum::<usize>()
}

fn recover_new(bytes: &[u8], base: &Base, logs: &[Log<'_>]) -> Option<Vec<u8>> {
    let mut runs: Vec<(&Log<'_>, Vec<Entry<'_>>)> = logs
        .iter()
        .filter(|log| log.base.kind == 6)
        .map(|log| (log, log.entries()))
        .filter(|(_, entries)| !entries.is_empty())
        .collect();
    runs.sort_by_key(|(_, entries)| entries[0].sequence);
    let mut file = bytes.to_vec();
    file.resize(file.len().max(BASE), 0);
    if base.checksum_fits {
        runs.retain(|(_, entries)| entries[0].sequence >= base.secondary);
    } else {
        // Without a good base block only the latest log can be trusted, and has a copy of it.
        runs = runs.pop().into_iter().collect();
        file[..SECTOR].copy_from_slice(&runs.first()?.0.bytes[..SECTOR]);
        file[28..32].fill(0);
    }
    let largest = largest(bytes, logs);
    let mut last: Option<&Entry<'_>> = None;
    for entry in runs.iter().flat_map(|(_, entries)| entries) {
        let follows = last.is_none_or(|last| entry.sequence == last.sequence.wrapping_add(1));
        if !follows || !entry.apply(&mut file, largest) {
            break;
        }
        last = Some(entry);
    }
    let last = last?;
    let flags = (u32_at(&file, 144) & !1) | (last.flags & 1);
    let size = u32::try_from(last.size).ok()?;
    finish(&mut file, last.sequence.wrapping_add(1), size, flags);
    Some(file)
}

fn recover_old(bytes: &[u8], base: &Base, logs: &[Log<'_>]) -> Option<Vec<u8>> {
    // The time of the write that the log completes. A damaged base block may still tell it; if
    // not, the first bin does.
    let first_bin = if base.checksum_fits { base.written.0 } else { u64_at(bytes, BASE + 20) };
    let written = [base.written.0, first_bin];
    let log = logs.iter().find(|log| {
        matches!(log.base.kind, 1 | 2)
            && log.base.primary == log.base.secondary
            && written.contains(&log.base.written.0)
            && log.bytes.get(SECTOR..).is_some_and(|rest| rest.starts_with(b"DIRT"))
    })?;
    let size = usize::try_from(log.base.size).ok()?;
    if size % 4096 != 0 || size > largest(bytes, logs) {
        return None;
    }
    let bitmap = log.bytes.get(SECTOR + 4..SECTOR + 4 + size / SECTOR / 8)?;
    let mut pages = log.bytes
        [(SECTOR + 4 + bitmap.len()).next_multiple_of(SECTOR).min(log.bytes.len())..]
        .chunks_exact(SECTOR);
    let mut file = bytes.to_vec();
    file.resize(BASE + size, 0);
    for sector in 0..size / SECTOR {
        if bitmap[sector / 8] & (1 << (sector % 8)) != 0 {
            let at = BASE + SECTOR * sector;
            file[at..at + SECTOR].copy_from_slice(pages.next()?);
        }
    }
    if !base.checksum_fits {
        file[..SECTOR].copy_from_slice(&log.bytes[..SECTOR]);
        file[28..32].fill(0);
    }
    let (sequence, flags) = (log.base.primary, u32_at(&file, 144));
    finish(&mut file, sequence, log.base.size, flags);
    Some(file)
}

/// Makes the base block that of a complete hive.
fn finish(file: &mut [u8], sequence: u32, size: u32, flags: u32) {
    for (at, number) in [(4, sequence), (8, sequence), (40, size), (144, flags)] {
        file[at..at + 4].copy_from_slice(&number.to_le_bytes());
    }
    let sum = checksum(file);
    file[508..512].copy_from_slice(&sum.to_le_bytes());
}

/// The checksum of entries: Marvin32 with the registry's own seed.
fn marvin32(bytes: &[u8]) -> u64 {
    let (mut low, mut high) = (0x7A4E_55C5_u32, 0x82EF_4D88_u32);
    let mut mix = |word: u32| {
        low = low.wrapping_add(word);
        high ^= low;
        low = low.rotate_left(20).wrapping_add(high);
        high = high.rotate_left(9) ^ low;
        low = low.rotate_left(27).wrapping_add(high);
        high = high.rotate_left(19);
    };
    let (words, rest) = bytes.as_chunks();
    for &word in words {
        mix(u32::from_le_bytes(word));
    }
    let mut tail = [0; 4];
    tail[..rest.len()].copy_from_slice(rest);
    tail[rest.len()] = 0x80;
    mix(u32::from_le_bytes(tail));
    mix(0);
    u64::from(low) | u64::from(high) << 32
}

#[cfg(test)]
mod tests;
