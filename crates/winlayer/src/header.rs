//! Tar headers, written exactly as Go's `archive/tar` writes them.
//!
//! All that makes Windows layers (hcsshim with go-winio, BuildKit, containerd) does it with
//! that library, so a layer read into [`Header`]s and written again has the same bytes, and
//! the same diff-id. Its rules, for what occurs in layers:
//!
//! * without records and with names that fit, a plain ustar block; names of more than 100
//!   bytes are split at the last slash that leaves a prefix of at most 155;
//! * otherwise a PAX header before it: records sorted by key; named `PaxHeaders.0` within the
//!   entry's directory, non-ASCII left out, cut at 100 bytes, no slash at the end; all its
//!   numbers zero; and in the main block names without what is not ASCII, cut off, a number
//!   that does not fit as zero;
//! * whole seconds that fit the block have no `mtime` record.

use std::collections::BTreeMap;

use silo_archive::pax;
use silo_archive::{BLOCK, Time};

/// Records of a PAX header, sorted by key.
pub type Records = BTreeMap<Vec<u8>, Vec<u8>>;

/// Type flag of a regular file.
pub const REGULAR: u8 = b'0';
/// Type flag of a hard link.
pub const HARD_LINK: u8 = b'1';
/// Type flag of a symbolic link.
pub const SYMLINK: u8 = b'2';
/// Type flag of a directory.
pub const DIRECTORY: u8 = b'5';

/// One header: the fields of a block, names and numbers in full, and the PAX records that do
/// not follow from them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Header {
    /// Name as written.
    pub name: Vec<u8>,
    /// Type flag.
    pub kind: u8,
    /// Target of a link, as written.
    pub link: Vec<u8>,
    /// Mode with type bits, up to 21 bits.
    pub mode: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Owner by name.
    pub uname: Vec<u8>,
    /// Group by name.
    pub gname: Vec<u8>,
    /// Size of the data that follows.
    pub size: u64,
    /// Time of the last write.
    pub mtime: Time,
    /// All records but those that follow from fields that do not fit the block (`path`,
    /// `linkpath`, `size`, `uid`, `gid`, `uname`, `gname`, `mtime`).
    pub records: Records,
}

/// A header that tar cannot hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("cannot be written as a tar header: {0}")]
pub struct Unwritable(pub &'static str);

impl Header {
    /// A header of the given type with nothing set.
    pub fn new(kind: u8, name: impl Into<Vec<u8>>) -> Self {
        Self {
            name: name.into(),
            kind,
            link: Vec::new(),
            mode: 0,
            uid: 0,
            gid: 0,
            uname: Vec::new(),
            gname: Vec::new(),
            size: 0,
            mtime: Time::default(),
            records: Records::new(),
        }
    }

    /// The value of a record.
    pub fn record(&self, key: &str) -> Option<&[u8]> {
        self.records.get(key.as_bytes()).map(Vec::as_slice)
    }

    /// Sets a record.
    pub fn set(&mut self, key: &str, value: impl Into<Vec<u8>>) {
        self.records.insert(key.as_bytes().to_vec(), value.into());
    }

    /// The time for the block; `None` if it does not fit.
    fn seconds(&self) -> Option<u64> {
        u64::try_from(self.mtime.seconds).ok().filter(|time| fits_octal(*time, 11))
    }

    /// The records of fields that do not fit the block.
    pub(crate) fn derived(&self) -> BTreeMap<&[u8], Vec<u8>> {
        let mut records: BTreeMap<&[u8], Vec<u8>> = BTreeMap::new();
        for (key, text, size) in [
            (&b"path"[..], &self.name, 100),
            (b"linkpath", &self.link, 100),
            (b"uname", &self.uname, 32),
            (b"gname", &self.gname, 32),
        ] {
            if !fits(text, size) {
                records.insert(key, text.clone());
            }
        }
        for (key, number, digits) in [
            (&b"uid"[..], u64::from(self.uid), 7),
            (b"gid", u64::from(self.gid), 7),
            (b"size", self.size, 11),
        ] {
            if !fits_octal(number, digits) {
                records.insert(key, number.to_string().into_bytes());
            }
        }
        if self.seconds().is_none() || self.mtime.nanos != 0 {
            records.insert(b"mtime", pax::format_time(self.mtime).into_bytes());
        }
        records
    }

    /// Appends the blocks of this header.
    pub fn encode(&self, out: &mut Vec<u8>) -> Result<(), Unwritable> {
        if self.name.is_empty() {
            return Err(Unwritable("an empty name"));
        }
        if [&self.name, &self.link, &self.uname, &self.gname].iter().any(|text| text.contains(&0)) {
            return Err(Unwritable("a name with a NUL"));
        }
        if self.records.keys().any(|key| key.is_empty() || key.contains(&b'=') || key.contains(&0))
        {
            return Err(Unwritable("a record with such a key"));
        }
        if !fits_octal(u64::from(self.mode), 7) {
            return Err(Unwritable("a mode of more than 21 bits"));
        }
        let mut records = self.derived();
        let split = split(&self.name);
        let seconds = self.seconds();
        // A long name alone needs no record if it can be split.
        let others = records.keys().any(|key| *key != b"path") || !self.records.is_empty();
        let plain = !others && (records.is_empty() || split.is_some());
        let mut block = [0_u8; BLOCK];
        if plain {
            let (prefix, name) = split.unwrap_or((&[], &self.name));
            copy(&mut block[0..100], name);
            copy(&mut block[345..500], prefix);
        } else {
            for (key, value) in &self.records {
                records.entry(key).or_insert_with(|| value.clone());
            }
            extension(&self.name, &records, out);
            copy(&mut block[0..100], &self.name);
        }
        copy(&mut block[157..257], &self.link);
        copy(&mut block[265..297], &self.uname);
        copy(&mut block[297..329], &self.gname);
        octal(&mut block[100..108], u64::from(self.mode));
        octal(&mut block[108..116], u64::from(self.uid));
        octal(&mut block[116..124], u64::from(self.gid));
        octal(&mut block[124..136], self.size);
        octal(&mut block[136..148], seconds.unwrap_or(0));
        octal(&mut block[329..337], 0);
        octal(&mut block[337..345], 0);
        block[156] = self.kind;
        seal(&mut block);
        out.extend_from_slice(&block);
        Ok(())
    }
}

/// Appends a PAX header.
fn extension(name: &[u8], records: &BTreeMap<&[u8], Vec<u8>>, out: &mut Vec<u8>) {
    let mut body = Vec::new();
    for (key, value) in records {
        pax::write(&mut body, key, value);
    }
    let mut block = [0_u8; BLOCK];
    let name: Vec<u8> = extension_name(name).into_iter().filter(u8::is_ascii).take(100).collect();
    let end = name.iter().rposition(|byte| *byte != b'/').map_or(0, |last| last + 1);
    block[..end].copy_from_slice(&name[..end]);
    for range in [100..108, 108..116, 116..124, 136..148] {
        octal(&mut block[range], 0);
    }
    octal(&mut block[124..136], body.len() as u64);
    block[156] = b'x';
    seal(&mut block);
    out.extend_from_slice(&block);
    body.resize(body.len().next_multiple_of(BLOCK), 0);
    out.extend_from_slice(&body);
}

/// `PaxHeaders.0` between directory and name, cleaned as Go's `path.Join` does.
fn extension_name(name: &[u8]) -> Vec<u8> {
    let slash = name.iter().rposition(|byte| *byte == b'/').map_or(0, |at| at + 1);
    let (directory, file) = name.split_at(slash);
    let rooted = directory.starts_with(b"/");
    let mut parts: Vec<&[u8]> = Vec::new();
    for part in directory.split(|byte| *byte == b'/').chain([&b"PaxHeaders.0"[..], file]) {
        match part {
            b"" | b"." => {}
            b".." if parts.last().is_some_and(|last| *last != b"..") => drop(parts.pop()),
            b".." if rooted => {}
            part => parts.push(part),
        }
    }
    let joined = parts.join(&b'/');
    match (rooted, joined.is_empty()) {
        (true, _) => [b"/", &joined[..]].concat(),
        (false, true) => b".".to_vec(),
        (false, false) => joined,
    }
}

/// Whether a text can stand in a block's field.
fn fits(text: &[u8], size: usize) -> bool {
    text.len() <= size && text.is_ascii()
}

fn fits_octal(number: u64, digits: u32) -> bool {
    number >> (digits * 3) == 0
}

/// Copies the ASCII of a text into a field, cut off; never with a slash at the end of a cut.
fn copy(field: &mut [u8], text: &[u8]) {
    let ascii: Vec<u8> = text.iter().copied().filter(u8::is_ascii).collect();
    let length = ascii.len().min(field.len());
    field[..length].copy_from_slice(&ascii[..length]);
    if ascii.len() > field.len() && field.ends_with(b"/") {
        let end = field.iter().rposition(|byte| *byte != b'/').map_or(0, |last| last + 1);
        field[end] = 0;
    }
}

/// Writes a number with leading zeros and a NUL; zero if it does not fit.
fn octal(field: &mut [u8], number: u64) {
    let digits = field.len() - 1;
    let fits = digits >= 21 || number >> (digits * 3) == 0;
    let text = format!("{:0digits$o}", if fits { number } else { 0 });
    field[..digits].copy_from_slice(text.as_bytes());
    field[digits] = 0;
}

/// Writes magic and checksum.
fn seal(block: &mut [u8; BLOCK]) {
    block[257..265].copy_from_slice(b"ustar\x0000");
    block[148..156].fill(b' ');
    let sum: u64 = block.iter().map(|byte| u64::from(*byte)).sum();
    octal(&mut block[148..155], sum);
}

/// Splits a long name into ustar's prefix and name, as Go does.
fn split(name: &[u8]) -> Option<(&[u8], &[u8])> {
    if name.len() <= 100 || !name.is_ascii() {
        return None;
    }
    let mut length = name.len();
    if length > 156 {
        length = 156;
    } else if name.ends_with(b"/") {
        length -= 1;
    }
    let slash = name[..length].iter().rposition(|byte| *byte == b'/')?;
    let (prefix, rest) = (&name[..slash], &name[slash + 1..]);
    let fits = !prefix.is_empty() && !rest.is_empty() && rest.len() <= 100 && prefix.len() <= 155;
    fits.then_some((prefix, rest))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn encoded(header: &Header) -> Vec<u8> {
        let mut out = Vec::new();
        header.encode(&mut out).unwrap();
        out
    }

    #[test]
    fn plain_block() {
        let bytes = encoded(&Header::new(REGULAR, "Files/.wh.a"));
        assert_eq!(bytes.len(), BLOCK);
        assert_eq!(&bytes[..12], b"Files/.wh.a\0");
        assert_eq!(
            &bytes[100..156],
            b"0000000\x000000000\x000000000\x0000000000000\x0000000000000\x00011055\x00 "
        );
        assert_eq!(&bytes[257..265], b"ustar\x0000");
        assert_eq!(&bytes[329..345], b"0000000\x000000000\x00");
    }

    #[test]
    fn pax_names() {
        for (name, want) in [
            ("a", "PaxHeaders.0/a"),
            ("Files/a", "Files/PaxHeaders.0/a"),
            ("Files/a/", "Files/a/PaxHeaders.0"),
            ("Files//x/../b", "Files/PaxHeaders.0/b"),
            ("/x", "/PaxHeaders.0/x"),
            ("../x", "../PaxHeaders.0/x"),
        ] {
            assert_eq!(extension_name(name.as_bytes()), want.as_bytes(), "{name}");
        }
    }

    #[test]
    fn long_names_are_split() {
        let deep = ["d"; 60].join("/");
        let name = format!("Files/{deep}/{}", "f".repeat(20));
        let bytes = encoded(&Header::new(REGULAR, name.as_bytes()));
        assert_eq!(bytes.len(), BLOCK);
        let mut with = Header::new(REGULAR, name.as_bytes());
        with.set("MSWINDOWS.fileattr", "32");
        let bytes = encoded(&with);
        assert_eq!(bytes.len(), 3 * BLOCK);
        assert!(bytes.windows(10).any(|window| window == b" path=File"));
    }

    #[test]
    fn refusals() {
        let mut header = Header::new(REGULAR, "a");
        header.set("a=b", "x");
        assert!(header.encode(&mut Vec::new()).is_err());
        assert!(Header::new(REGULAR, "").encode(&mut Vec::new()).is_err());
        assert!(Header::new(REGULAR, "a\0").encode(&mut Vec::new()).is_err());
    }
}
