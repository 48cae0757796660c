//! API sets: names of libraries, such as `api-ms-win-crt-heap-l1-1-0.dll`, that stand for others.

use std::collections::HashMap;

use crate::Error;

/// Most sets.
const MAX_SETS: u32 = 16 << 10;

/// The table of `apisetschema.dll`, version 6: a header (version, size, flags, number of sets,
/// offsets of sets and hashes), 24 bytes for each set (flags, offset and length of the name, length
/// without the last number, offset and number of libraries), 20 bytes for each library (flags,
/// whom it is for, its name).
#[derive(Debug, Clone, Default)]
pub struct ApiSets {
    /// The library behind the name without its last number; empty where there is none.
    libraries: HashMap<String, String>,
}

impl ApiSets {
    /// Reads the table.
    pub fn parse(bytes: &[u8]) -> Result<Self, Error> {
        const BAD: Error = Error::Damaged("its table of API sets");
        let u32_at = |at: usize| -> Result<u32, Error> {
            let bytes = bytes.get(at..).and_then(|rest| rest.first_chunk()).ok_or(BAD)?;
            Ok(u32::from_le_bytes(*bytes))
        };
        let place = |number: u32| usize::try_from(number).map_err(|_| BAD);
        let name = |offset: u32, length: u32| -> Result<String, Error> {
            let (offset, length) = (place(offset)?, place(length)?);
            let text = bytes.get(offset..).and_then(|rest| rest.get(..length)).ok_or(BAD)?;
            let units: Vec<u16> =
                text.as_chunks().0.iter().take(260).map(|unit| u16::from_le_bytes(*unit)).collect();
            Ok(String::from_utf16_lossy(&units).to_ascii_lowercase())
        };
        let count = u32_at(12)?;
        if u32_at(0)? != 6 || count > MAX_SETS {
            return Err(BAD);
        }
        let sets = place(u32_at(16)?)?;
        let mut libraries = HashMap::new();
        for number in 0..place(count)? {
            let at = sets.checked_add(24 * number).ok_or(BAD)?;
            let key = name(u32_at(at + 4)?, u32_at(at + 12)?)?;
            let library = if u32_at(at + 20)? == 0 {
                String::new()
            } else {
                let value = place(u32_at(at + 16)?)?;
                let value = value.checked_add(12).ok_or(BAD)?;
                name(u32_at(value)?, u32_at(value + 4)?)?
            };
            libraries.insert(key, library);
        }
        Ok(Self { libraries })
    }

    /// Whether a library's name is one of a set at all.
    pub fn is_set(library: &str) -> bool {
        let start = library.get(..4).unwrap_or_default();
        start.eq_ignore_ascii_case("api-") || start.eq_ignore_ascii_case("ext-")
    }

    /// The library that a set stands for.
    pub fn library(&self, set: &str) -> Option<&str> {
        let set = set.to_ascii_lowercase();
        let stem = set.strip_suffix(".dll").unwrap_or(&set);
        let key = stem.rsplit_once('-')?.0;
        self.libraries.get(key).map(String::as_str).filter(|library| !library.is_empty())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table(sets: &[(&str, &str)]) -> Vec<u8> {
        let mut file = Vec::new();
        let header = 28;
        let mut tail = Vec::new();
        let mut entries = Vec::new();
        let tail_at = header + 24 * sets.len();
        let text = |tail: &mut Vec<u8>, text: &str| {
            let at = tail_at + tail.len();
            tail.extend(text.encode_utf16().flat_map(u16::to_le_bytes));
            (u32::try_from(at).unwrap(), u32::try_from(2 * text.len()).unwrap())
        };
        for (set, library) in sets {
            let (at, length) = text(&mut tail, set);
            let hashed = u32::try_from(2 * set.rfind('-').unwrap()).unwrap();
            let (name, name_length) = text(&mut tail, library);
            let value = u32::try_from(tail_at + tail.len()).unwrap();
            for number in [0, 0, 0, name, name_length] {
                tail.extend(number.to_le_bytes());
            }
            let values = u32::from(!library.is_empty());
            for number in [0, at, length, hashed, value, values] {
                entries.extend(number.to_le_bytes());
            }
        }
        let count = u32::try_from(sets.len()).unwrap();
        for number in [6, 0, 0, count, 28, 0, 31] {
            file.extend(u32::to_le_bytes(number));
        }
        file.extend(entries);
        file.extend(tail);
        file
    }

    #[test]
    fn sets_stand_for_libraries() {
        let sets = [("api-ms-win-crt-heap-l1-1-0", "ucrtbase.dll"), ("ext-ms-win-none-l1-1-2", "")];
        let sets = ApiSets::parse(&table(&sets)).unwrap();
        for (name, library) in [
            ("API-MS-WIN-CRT-HEAP-L1-1-0.dll", Some("ucrtbase.dll")),
            ("api-ms-win-crt-heap-l1-1-9.dll", Some("ucrtbase.dll")),
            ("api-ms-win-crt-heap-l1-2-0.dll", None),
            ("ext-ms-win-none-l1-1-0", None),
            ("kernel32.dll", None),
        ] {
            assert_eq!(sets.library(name), library, "{name}");
        }
        assert!(ApiSets::is_set("Api-x") && !ApiSets::is_set("apisetschema.dll"));
    }

    #[test]
    fn cut_tables_are_refused() {
        let whole = table(&[("api-ms-x-l1-1-0", "a.dll")]);
        for length in 0..whole.len() - 20 {
            assert!(ApiSets::parse(&whole[..length]).is_err(), "{length}");
        }
    }
}
