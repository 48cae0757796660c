//! Tar records of a layer: read with what is needed to make the same bytes again.

use std::io::{self, BufRead, Read};

use silo_archive::{BLOCK, Entry as TarEntry, EntryKind as TarKind, RawTap, Reader, pax};

use crate::Error;
use crate::entry::{Entry, Meaning, shown};
use crate::header::{self, Header, Records};
use crate::report::Refusal;

/// The most records of a layer.
pub const MAX_RECORDS: u64 = 1 << 24;
/// The most bytes that may stand before the data of one record: its headers.
pub const MAX_LEAD: usize = 4 << 20;

/// One record of a layer's tar: a header with its extensions. The data are the caller's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    /// What the headers say.
    header: Header,
    /// All bytes since the end of the data before, if they are not as [`header`] has it.
    raw: Option<Box<[u8]>>,
}

/// What follows the data of the last record.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Trailer {
    /// So many zeros, those that fill up the last block included.
    pub zeros: u64,
    /// Then these bytes, of which the first is not zero.
    pub rest: Vec<u8>,
}

impl Record {
    /// A record that is written by the rules of [`header`].
    pub fn new(header: Header) -> Result<Self, Error> {
        let mut out = Vec::new();
        header.encode(&mut out).map_err(|reason| unwritable(&header, reason))?;
        Ok(Self { header, raw: None })
    }

    /// A record of bytes: `padding` of them after the data of the record before, and then its
    /// headers.
    pub fn parse(bytes: &[u8], padding: usize) -> Result<Self, Error> {
        let lead = bytes.get(padding..).ok_or(Error::Limit("a record without its header"))?;
        let mut reader = Reader::new(lead);
        let entry = reader.next_entry()?.ok_or(Error::Limit("a record without its header"))?;
        if reader.position() != lead.len() as u64 {
            return Err(Error::Limit("a record with more than its header"));
        }
        Self::of(&entry, bytes, padding)
    }

    fn of(entry: &TarEntry, bytes: &[u8], padding: usize) -> Result<Self, Error> {
        let (start, lead) = bytes.split_at(padding.min(bytes.len()));
        let header = read_header(entry, lead);
        if entry.sparse.is_some() {
            let reason = Refusal::Kind("a sparse file");
            return Err(refused(&header, reason));
        }
        let mut again = Vec::with_capacity(lead.len());
        let same = header.encode(&mut again).is_ok()
            && again == lead
            && start.iter().all(|byte| *byte == 0);
        let raw = (!same).then(|| bytes.into());
        Ok(Self { header, raw })
    }

    /// What the headers say.
    pub fn header(&self) -> &Header {
        &self.header
    }

    /// The bytes since the end of the data before, if they are not as [`header`] has it.
    pub fn raw(&self) -> Option<&[u8]> {
        self.raw.as_deref()
    }

    /// Size of the data that follow.
    pub fn size(&self) -> u64 {
        if self.header.kind == header::REGULAR { self.header.size } else { 0 }
    }

    /// What it means.
    pub fn meaning(&self) -> Result<Meaning, Error> {
        Entry::read(&self.header).map_err(|reason| refused(&self.header, reason))
    }

    /// Appends all bytes from the end of the data before, of which there were `before`, to
    /// the start of its own.
    pub fn write(&self, before: u64, out: &mut Vec<u8>) -> Result<(), Error> {
        if let Some(raw) = &self.raw {
            out.extend_from_slice(raw);
            return Ok(());
        }
        out.resize(out.len() + padding(before), 0);
        self.header.encode(out).map_err(|reason| unwritable(&self.header, reason))
    }
}

/// Bytes that fill up the last block of data.
pub fn padding(size: u64) -> usize {
    usize::try_from(size.wrapping_neg() % BLOCK as u64).unwrap_or(0)
}

impl Trailer {
    /// As every writer ends an archive, after data of so many bytes.
    pub fn standard(before: u64) -> Self {
        Self { zeros: (padding(before) + 2 * BLOCK) as u64, rest: Vec::new() }
    }
}

fn refused(header: &Header, reason: Refusal) -> Error {
    Error::Refused { entry: shown(&header.name), reason }
}

fn unwritable(header: &Header, reason: header::Unwritable) -> Error {
    Error::Unwritable { entry: shown(&header.name), reason }
}

fn read_header(entry: &TarEntry, lead: &[u8]) -> Header {
    let kind = match entry.kind {
        TarKind::Regular => header::REGULAR,
        TarKind::HardLink => header::HARD_LINK,
        TarKind::Symlink => header::SYMLINK,
        TarKind::CharDevice => b'3',
        TarKind::BlockDevice => b'4',
        TarKind::Directory => header::DIRECTORY,
        TarKind::Fifo => b'6',
    };
    let mut header = Header::new(kind, entry.path.clone());
    header.link.clone_from(&entry.link);
    header.mode =
        lead.len().checked_sub(BLOCK).and_then(|at| mode(&lead[at..])).unwrap_or(entry.mode);
    (header.uid, header.gid) = (entry.uid, entry.gid);
    header.uname.clone_from(&entry.uname);
    header.gname.clone_from(&entry.gname);
    header.size = entry.stored;
    header.mtime = entry.mtime;
    header.records = match extension(lead) {
        Some(records) => {
            let derived = header.derived();
            let own = |key: &Vec<u8>, value: &Vec<u8>| derived.get(&key[..]) != Some(value);
            records.into_iter().filter(|(key, value)| own(key, value)).collect()
        }
        None => {
            let named = |name: &[u8]| [b"SCHILY.xattr.", name].concat();
            let attributes = entry.xattrs.iter().map(|(name, value)| (named(name), value.clone()));
            entry.pax.iter().cloned().chain(attributes).collect()
        }
    };
    header
}

/// The mode of a block with the bits that tell the type, which tar readers leave off.
fn mode(block: &[u8]) -> Option<u32> {
    let text = std::str::from_utf8(block.get(100..108)?).ok()?;
    let text = text.trim_matches(['\0', ' ']);
    u32::from_str_radix(text, 8).ok().filter(|mode| mode >> 21 == 0 && !text.starts_with('+'))
}

/// The records of a PAX header, if there is one and nothing else before the block.
fn extension(lead: &[u8]) -> Option<Records> {
    if lead.len() < 3 * BLOCK || lead[156] != b'x' {
        return None;
    }
    let text = std::str::from_utf8(&lead[124..136]).ok()?;
    let size = usize::from_str_radix(text.trim_matches(['\0', ' ']), 8).ok()?;
    let body = lead.get(BLOCK..BLOCK + size)?;
    if lead.len() != 2 * BLOCK + size.next_multiple_of(BLOCK) {
        return None;
    }
    let records = pax::parse(body).ok()?;
    Some(records.into_iter().map(|(key, value)| (key.to_vec(), value.to_vec())).collect())
}

/// One record, and what it means.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Item {
    /// The record.
    pub record: Record,
    /// What it means.
    pub meaning: Meaning,
}

/// Gathers the bytes between data.
#[derive(Debug, Default)]
struct Gather {
    /// Zeros at the start.
    zeros: u64,
    bytes: Vec<u8>,
    full: bool,
}

impl RawTap for Gather {
    fn raw(&mut self, bytes: &[u8]) -> io::Result<()> {
        let mut rest = bytes;
        if self.bytes.is_empty() {
            let end = rest.iter().position(|byte| *byte != 0).unwrap_or(rest.len());
            self.zeros += end as u64;
            rest = &rest[end..];
        }
        if self.bytes.len() + rest.len() > MAX_LEAD {
            self.full = true;
            return Err(io::ErrorKind::QuotaExceeded.into());
        }
        self.bytes.extend_from_slice(rest);
        Ok(())
    }
}

/// Reads the records of a layer's uncompressed tar.
///
/// Call [`next_item`](Self::next_item), read the data of the record from the reader itself,
/// and so on until `None`, then [`finish`](Self::finish).
#[derive(Debug)]
pub struct LayerReader<R> {
    inner: Reader<R, Gather>,
    /// Data of the record before.
    before: u64,
    count: u64,
}

impl<R: BufRead> LayerReader<R> {
    /// A reader.
    pub fn new(input: R) -> Self {
        Self { inner: Reader::with_tap(input, Gather::default()), before: 0, count: 0 }
    }

    /// The next record; data of the one before that were not read are skipped.
    pub fn next_item(&mut self) -> Result<Option<Item>, Error> {
        self.skip()?;
        let found = self.inner.next_entry();
        if self.inner.tap_mut().full {
            return Err(Error::Limit("headers of more than 4 MiB"));
        }
        let Some(entry) = found? else {
            return Ok(None);
        };
        self.count += 1;
        if self.count > MAX_RECORDS {
            return Err(Error::Limit("more than 16777216 records"));
        }
        let gather = std::mem::take(self.inner.tap_mut());
        let zeros = usize::try_from(gather.zeros).ok().filter(|zeros| *zeros <= MAX_LEAD);
        let mut bytes = vec![0; zeros.ok_or(Error::Limit("zeros between records"))?];
        bytes.extend_from_slice(&gather.bytes);
        let record = Record::of(&entry, &bytes, padding(self.before))?;
        self.before = entry.stored;
        let meaning = record.meaning()?;
        Ok(Some(Item { record, meaning }))
    }

    /// Reads to the end of the input.
    pub fn finish(mut self) -> Result<(R, Trailer), Error> {
        while self.next_item()?.is_some() {}
        match self.inner.finish() {
            Ok((input, gather)) => Ok((input, Trailer { zeros: gather.zeros, rest: gather.bytes })),
            Err(silo_archive::Error::Write(_)) => {
                Err(Error::Limit("more than 4 MiB after the end of the archive"))
            }
            Err(error) => Err(error.into()),
        }
    }

    /// Skips what was not read, past the tap.
    fn skip(&mut self) -> Result<(), Error> {
        while self.inner.remaining() > 0 {
            let count = self.inner.fill_buf().map_err(silo_archive::Error::Read)?.len();
            self.inner.consume(count);
        }
        Ok(())
    }
}

impl<R: BufRead> Read for LayerReader<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.inner.read(buffer)
    }
}

impl<R: BufRead> BufRead for LayerReader<R> {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        self.inner.fill_buf()
    }

    fn consume(&mut self, count: usize) {
        self.inner.consume(count);
    }
}
