//! Writing tar streams: ustar, with PAX headers where ustar does not hold an entry.

use std::io::{self, Read, Write};

use crate::number;
use crate::pax;
use crate::{BLOCK, Entry, EntryKind, Error};

/// Writes entries to a stream.
#[derive(Debug)]
pub struct Writer<W: Write> {
    output: W,
    buffer: Vec<u8>,
}

impl<W: Write> Writer<W> {
    /// A writer.
    pub fn new(output: W) -> Self {
        Self { output, buffer: Vec::new() }
    }

    /// Writes an entry that has no data (`entry.size` must be 0).
    pub fn append_empty(&mut self, entry: &Entry) -> Result<(), Error> {
        self.append(entry, &mut io::empty())
    }

    /// Writes an entry and exactly `entry.size` bytes of `data`, holes included; an early
    /// end of `data` is an error.
    pub fn append(&mut self, entry: &Entry, data: &mut impl Read) -> Result<(), Error> {
        let size = if entry.kind == EntryKind::Regular { entry.size } else { 0 };
        self.append_header(entry)?;
        let copied = io::copy(&mut data.take(size), &mut self.output).map_err(Error::Write)?;
        if copied != size {
            return Err(Error::Truncated { offset: copied });
        }
        self.pad(size)
    }

    /// Writes only the header of an entry; the caller writes its data to
    /// [`output`](Self::output), then calls [`pad`](Self::pad).
    pub fn append_header(&mut self, entry: &Entry) -> Result<(), Error> {
        self.buffer.clear();
        encode(entry, &mut self.buffer)?;
        self.output.write_all(&self.buffer).map_err(Error::Write)
    }

    /// Fills up the last block of `size` bytes of data.
    pub fn pad(&mut self, size: u64) -> Result<(), Error> {
        let padding = usize::try_from(size.wrapping_neg() % BLOCK as u64).unwrap_or(0);
        self.output.write_all(&[0; BLOCK][..padding]).map_err(Error::Write)
    }

    /// The stream itself.
    pub fn output(&mut self) -> &mut W {
        &mut self.output
    }

    /// Writes the end of the archive and gives back the stream.
    pub fn finish(mut self) -> Result<W, Error> {
        self.output.write_all(&[0; 2 * BLOCK]).map_err(Error::Write)?;
        self.output.flush().map_err(Error::Write)?;
        Ok(self.output)
    }
}

/// Appends the headers of an entry.
pub fn encode(entry: &Entry, out: &mut Vec<u8>) -> Result<(), Error> {
    if entry.path.is_empty() {
        return Err(Error::Unwritable("an empty name"));
    }
    if entry.path.contains(&0) || entry.link.contains(&0) {
        return Err(Error::Unwritable("a name with a NUL"));
    }
    let mut records: Vec<(Vec<u8>, Vec<u8>)> = Vec::new();
    let mut record = |key: &[u8], value: &[u8]| records.push((key.to_vec(), value.to_vec()));
    let size = if entry.kind == EntryKind::Regular { entry.size } else { 0 };
    let mut block = [0_u8; BLOCK];

    match split_path(&entry.path) {
        Some((prefix, name)) => {
            block[..name.len()].copy_from_slice(name);
            block[345..345 + prefix.len()].copy_from_slice(prefix);
        }
        None => {
            let end = entry.path.len().min(100);
            for (to, from) in block[..100].iter_mut().zip(&entry.path[..end]) {
                *to = if from.is_ascii() { *from } else { b'_' };
            }
            record(b"path", &entry.path);
        }
    }
    if entry.link.len() <= 100 && entry.link.is_ascii() {
        block[157..157 + entry.link.len()].copy_from_slice(&entry.link);
    } else {
        record(b"linkpath", &entry.link);
    }
    let mut number = |range: std::ops::Range<usize>, key: &[u8], value: u64| {
        if number::write_octal(&mut block[range.clone()], value) {
            return Ok(());
        }
        if key.is_empty() {
            return Err(Error::Unwritable("a device number beyond 2097151"));
        }
        number::write_octal(&mut block[range], 0);
        record(key, value.to_string().as_bytes());
        Ok(())
    };
    number(100..108, b"", u64::from(entry.mode & 0o7777))?;
    number(108..116, b"uid", u64::from(entry.uid))?;
    number(116..124, b"gid", u64::from(entry.gid))?;
    number(124..136, b"size", size)?;
    let device = matches!(entry.kind, EntryKind::CharDevice | EntryKind::BlockDevice);
    number(329..337, b"", if device { u64::from(entry.major) } else { 0 })?;
    number(337..345, b"", if device { u64::from(entry.minor) } else { 0 })?;
    let seconds = u64::try_from(entry.mtime.seconds).unwrap_or(u64::MAX);
    let fits = number::write_octal(&mut block[136..148], seconds);
    if !fits || entry.mtime.nanos != 0 {
        if !fits {
            number::write_octal(&mut block[136..148], 0);
        }
        record(b"mtime", pax::format_time(entry.mtime).as_bytes());
    }
    for (range, key, name) in
        [(265..297, &b"uname"[..], &entry.uname), (297..329, b"gname", &entry.gname)]
    {
        if name.len() < 32 && name.is_ascii() && !name.contains(&0) {
            block[range][..name.len()].copy_from_slice(name);
        } else {
            record(key, name);
        }
    }
    for (name, value) in &entry.xattrs {
        if name.is_empty() || name.contains(&b'=') || name.contains(&0) {
            return Err(Error::Unwritable("an extended attribute with such a name"));
        }
        record(&[b"SCHILY.xattr.", &name[..]].concat(), value);
    }
    for (key, value) in &entry.pax {
        record(key, value);
    }
    block[156] = match entry.kind {
        EntryKind::Regular => b'0',
        EntryKind::HardLink => b'1',
        EntryKind::Symlink => b'2',
        EntryKind::CharDevice => b'3',
        EntryKind::BlockDevice => b'4',
        EntryKind::Directory => b'5',
        EntryKind::Fifo => b'6',
    };
    if !records.is_empty() {
        records.sort();
        let mut body = Vec::new();
        for (key, value) in &records {
            pax::write(&mut body, key, value);
        }
        let mut header = [0_u8; BLOCK];
        let name = pax_name(&entry.path);
        header[..name.len()].copy_from_slice(&name);
        for range in [100..108, 108..116, 116..124, 136..148] {
            number::write_octal(&mut header[range], 0);
        }
        number::write_octal(&mut header[124..136], body.len() as u64);
        header[156] = b'x';
        seal(&mut header);
        out.extend_from_slice(&header);
        body.resize(body.len().next_multiple_of(BLOCK), 0);
        out.extend_from_slice(&body);
    }
    seal(&mut block);
    out.extend_from_slice(&block);
    Ok(())
}

/// Splits a path into the prefix and name of ustar, if it fits.
fn split_path(path: &[u8]) -> Option<(&[u8], &[u8])> {
    if !path.is_ascii() {
        return None;
    }
    if path.len() <= 100 {
        return Some((b"", path));
    }
    if path.len() > 256 {
        return None;
    }
    let earliest = path.len() - 101;
    let slash = (earliest..path.len() - 1).find(|at| path[*at] == b'/' && *at > 0)?;
    (slash <= 155).then(|| (&path[..slash], &path[slash + 1..]))
}

/// A name for the PAX header's own block: readers that know PAX do not look at it.
fn pax_name(path: &[u8]) -> Vec<u8> {
    let mut name = b"PaxHeaders.0/".to_vec();
    let path = path.strip_suffix(b"/").unwrap_or(path);
    let base = path.rsplit(|byte| *byte == b'/').next().unwrap_or(path);
    let base = base.iter().map(|byte| if byte.is_ascii() { *byte } else { b'_' });
    name.extend(base.take(100 - name.len()));
    name
}

/// Writes magic and checksum.
fn seal(block: &mut [u8; BLOCK]) {
    block[257..265].copy_from_slice(b"ustar\x0000");
    block[148..156].fill(b' ');
    let sum: u64 = block.iter().map(|byte| u64::from(*byte)).sum();
    number::write_octal(&mut block[148..155], sum);
}
