//! Maps of sparse files: which stretches of a file a stream holds.

use crate::{Segment, number};

/// The largest number of stretches of one file.
pub(crate) const MAX_SEGMENTS: usize = 1 << 20;

/// Checks that a map is ascending without overlap, lies within a file of `size` bytes, and
/// stands for exactly `stored` bytes. Empty stretches (end marks) are dropped.
pub(crate) fn check(
    map: Vec<Segment>,
    size: u64,
    stored: u64,
) -> Result<Vec<Segment>, &'static str> {
    let (mut end, mut total) = (0_u64, 0_u64);
    for segment in &map {
        if segment.offset < end {
            return Err("a sparse map that goes backwards");
        }
        end = segment
            .offset
            .checked_add(segment.length)
            .filter(|end| *end <= size)
            .ok_or("a sparse map beyond the end of its file")?;
        total += segment.length;
    }
    if total != stored {
        return Err("a sparse map that does not account for the stored bytes");
    }
    Ok(map.into_iter().filter(|segment| segment.length != 0).collect())
}

/// Entries of the old GNU form: pairs of 12-byte numbers, ended by an empty one.
/// Returns whether the table was full, so that more may follow.
pub(crate) fn old_gnu(table: &[u8], map: &mut Vec<Segment>) -> Result<bool, &'static str> {
    for pair in table.chunks_exact(24) {
        if pair[0] == 0 {
            return Ok(false);
        }
        let number = |field: &[u8]| {
            number::parse(field)
                .and_then(|value| u64::try_from(value).ok())
                .ok_or("a sparse map with an invalid number")
        };
        map.push(Segment { offset: number(&pair[..12])?, length: number(&pair[12..])? });
        if map.len() > MAX_SEGMENTS {
            return Err("a sparse map with too many stretches");
        }
    }
    Ok(true)
}

/// Form 0.1: `offset,length,offset,length...`; form 0.0 is brought into it by the caller.
pub(crate) fn comma_list(text: &[u8]) -> Result<Vec<Segment>, &'static str> {
    if text.is_empty() {
        return Ok(Vec::new());
    }
    let mut numbers = text
        .split(|byte| *byte == b',')
        .map(|digits| number::decimal(digits).ok_or("a sparse map with an invalid number"));
    let mut map = Vec::new();
    while let Some(offset) = numbers.next() {
        let length = numbers.next().ok_or("a sparse map with an odd number of numbers")?;
        map.push(Segment { offset: offset?, length: length? });
        if map.len() > MAX_SEGMENTS {
            return Err("a sparse map with too many stretches");
        }
    }
    Ok(map)
}

/// Form 1.0: a map at the start of the data, numbers on lines of their own, count first.
#[derive(Default)]
pub(crate) struct Lines {
    numbers: Vec<u64>,
    digits: Vec<u8>,
    wanted: Option<usize>,
}

impl Lines {
    /// Takes the next block; `true` when the map is complete (the rest of the block is
    /// padding).
    pub(crate) fn push(&mut self, block: &[u8]) -> Result<bool, &'static str> {
        for byte in block {
            if *byte != b'\n' {
                self.digits.push(*byte);
                if self.digits.len() > 20 {
                    return Err("a sparse map with an invalid number");
                }
                continue;
            }
            let number =
                number::decimal(&self.digits).ok_or("a sparse map with an invalid number")?;
            self.digits.clear();
            match self.wanted {
                None => {
                    let count = usize::try_from(number)
                        .ok()
                        .filter(|count| *count <= MAX_SEGMENTS)
                        .ok_or("a sparse map with too many stretches")?;
                    self.wanted = Some(count * 2);
                }
                Some(_) => self.numbers.push(number),
            }
            if self.wanted == Some(self.numbers.len()) {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// The map, once complete.
    pub(crate) fn finish(self) -> Vec<Segment> {
        self.numbers
            .chunks_exact(2)
            .map(|pair| Segment { offset: pair[0], length: pair[1] })
            .collect()
    }
}
