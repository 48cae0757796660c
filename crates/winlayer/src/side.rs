//! The side record of a layer: a file beside its unpacked tree with all that a Linux file
//! system has no place for, in the order of the layer's tar.
//!
//! It holds every [`Record`] of the tar, so attributes, descriptors, times, links as they
//! were written and whatever was left out of the tree are there; with the contents of the
//! files, [`replay`] makes the tar again, bit for bit. The same layer gives the same bytes.
//!
//! # Format
//!
//! ```text
//! "SWLR", version u8 = 1
//! records, each with a tag:
//!   1  as `header` writes it: name, type u8, mode, flags u8, then by flags:
//!        1 link   2 uid, gid   4 uname, gname   8 size   16 mtime: seconds, nanoseconds
//!      number of PAX records; for each: key, value
//!   2  bytes: all from the end of the data before to the start of its own
//! 0  number of zeros, bytes: what follows the last data; the end
//! ```
//!
//! Numbers are LEB128, signed ones in zigzag. Bytes have their number before them. A name is
//! how many bytes it shares with the name in the last record of tag 1, and its other bytes. A
//! key is 0 and bytes, or the number of a known one. A value is a byte for its form:
//!
//! ```text
//! 0 bytes   1 bytes of which it is the base64, and which get the next number
//! 2 the number of earlier such bytes   3 a decimal number   4 a PAX time
//! ```

use std::collections::HashMap;
use std::io::{self, Read, Write};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use silo_archive::{Time, pax};

use crate::entry::key;
use crate::header::{self, Header};
use crate::record::{MAX_LEAD, MAX_RECORDS, Record, Trailer};

const MAGIC: &[u8; 5] = b"SWLR\x01";
/// Keys with a number, from 1. Only ever added to at the end.
const KEYS: [&str; 7] = [
    key::ATTRIBUTES,
    key::DESCRIPTOR,
    key::CREATED,
    key::ACCESSED,
    key::CHANGED,
    key::MOUNT_POINT,
    key::SDDL,
];
/// Base64 that is shorter than this is written as it is.
const MIN_SHARED: usize = 24;
/// Values that get numbers, and their bytes together.
const MAX_SHARED: usize = 1 << 20;
const MAX_SHARED_BYTES: usize = 64 << 20;
/// The most bytes of a name or value: of PAX headers.
const MAX_BYTES: u64 = 1 << 20;

const HAS_LINK: u8 = 1;
const HAS_OWNER: u8 = 2;
const HAS_NAMES: u8 = 4;
const HAS_SIZE: u8 = 8;
const HAS_TIME: u8 = 16;

/// Why a side record could not be read or written.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The source failed, or ends early.
    #[error("cannot read the layer's side record")]
    Read(#[source] io::Error),
    /// The destination failed.
    #[error("cannot write the layer's side record")]
    Write(#[source] io::Error),
    /// Not a side record, or one of a newer version.
    #[error("not a side record of version 1")]
    Version,
    /// Damaged.
    #[error("the layer's side record is damaged: {0}")]
    Malformed(&'static str),
    /// A record within it is none.
    #[error("the layer's side record holds a bad record")]
    Record(#[source] crate::Error),
}

/// Writes a side record.
#[derive(Debug)]
pub struct SideWriter<W> {
    output: W,
    buffer: Vec<u8>,
    /// The last name.
    name: Vec<u8>,
    shared: HashMap<Vec<u8>, u64>,
    shared_bytes: usize,
}

impl<W: Write> SideWriter<W> {
    /// Begins a side record.
    pub fn new(mut output: W) -> Result<Self, Error> {
        output.write_all(MAGIC).map_err(Error::Write)?;
        let (buffer, name, shared) = (Vec::new(), Vec::new(), HashMap::new());
        Ok(Self { output, buffer, name, shared, shared_bytes: 0 })
    }

    /// Adds the next record.
    pub fn push(&mut self, record: &Record) -> Result<(), Error> {
        self.buffer.clear();
        match record.raw() {
            Some(raw) => {
                self.buffer.push(2);
                put_bytes(&mut self.buffer, raw);
            }
            None => self.put_header(record.header()),
        }
        self.output.write_all(&self.buffer).map_err(Error::Write)
    }

    /// Ends the side record and gives back the destination.
    pub fn finish(mut self, trailer: &Trailer) -> Result<W, Error> {
        self.buffer.clear();
        self.buffer.push(0);
        put(&mut self.buffer, trailer.zeros);
        put_bytes(&mut self.buffer, &trailer.rest);
        self.output.write_all(&self.buffer).map_err(Error::Write)?;
        self.output.flush().map_err(Error::Write)?;
        Ok(self.output)
    }

    fn put_header(&mut self, header: &Header) {
        let shared = self.name.iter().zip(&header.name).take_while(|(a, b)| a == b).count();
        let out = &mut self.buffer;
        out.push(1);
        put(out, shared as u64);
        put_bytes(out, &header.name[shared..]);
        self.name.clone_from(&header.name);
        out.push(header.kind);
        put(out, u64::from(header.mode));
        let has_names = !header.uname.is_empty() || !header.gname.is_empty();
        let mut flags = 0;
        for (flag, is) in [
            (HAS_LINK, !header.link.is_empty()),
            (HAS_OWNER, (header.uid, header.gid) != (0, 0)),
            (HAS_NAMES, has_names),
            (HAS_SIZE, header.size != 0),
            (HAS_TIME, header.mtime != Time::default()),
        ] {
            flags |= if is { flag } else { 0 };
        }
        out.push(flags);
        if flags & HAS_LINK != 0 {
            put_bytes(out, &header.link);
        }
        if flags & HAS_OWNER != 0 {
            put(out, u64::from(header.uid));
            put(out, u64::from(header.gid));
        }
        if flags & HAS_NAMES != 0 {
            put_bytes(out, &header.uname);
            put_bytes(out, &header.gname);
        }
        if flags & HAS_SIZE != 0 {
            put(out, header.size);
        }
        if flags & HAS_TIME != 0 {
            put_time(out, header.mtime);
        }
        put(out, header.records.len() as u64);
        for (key, value) in &header.records {
            let known = KEYS.iter().position(|known| known.as_bytes() == key);
            match known {
                Some(index) => put(&mut self.buffer, index as u64 + 1),
                None => {
                    put(&mut self.buffer, 0);
                    put_bytes(&mut self.buffer, key);
                }
            }
            self.put_value(value);
        }
    }

    fn put_value(&mut self, value: &[u8]) {
        let out = &mut self.buffer;
        if let Some(number) = decimal(value) {
            out.push(3);
            put(out, number);
            return;
        }
        let time = pax::parse_time(value);
        if let Some(time) = time.filter(|time| pax::format_time(*time).as_bytes() == value) {
            out.push(4);
            put_time(out, time);
            return;
        }
        let plain = (value.len() >= MIN_SHARED).then(|| STANDARD.decode(value).ok()).flatten();
        match plain.filter(|plain| STANDARD.encode(plain).as_bytes() == value) {
            Some(plain) => match self.shared.get(&plain) {
                Some(number) => {
                    out.push(2);
                    put(out, *number);
                }
                None if self.shared.len() < MAX_SHARED
                    && self.shared_bytes + plain.len() <= MAX_SHARED_BYTES =>
                {
                    out.push(1);
                    put_bytes(out, &plain);
                    self.shared_bytes += plain.len();
                    self.shared.insert(plain, self.shared.len() as u64);
                }
                None => {
                    out.push(0);
                    put_bytes(out, value);
                }
            },
            None => {
                out.push(0);
                put_bytes(out, value);
            }
        }
    }
}

/// A number that is written as it would be.
fn decimal(value: &[u8]) -> Option<u64> {
    let text = std::str::from_utf8(value).ok().filter(|text| text.len() <= 20)?;
    let number: u64 = text.parse().ok()?;
    (number.to_string() == text).then_some(number)
}

fn put(out: &mut Vec<u8>, mut number: u64) {
    while number >= 0x80 {
        out.push(u8::try_from(number & 0x7f).unwrap_or(0) | 0x80);
        number >>= 7;
    }
    out.push(u8::try_from(number).unwrap_or(0));
}

fn put_bytes(out: &mut Vec<u8>, bytes: &[u8]) {
    put(out, bytes.len() as u64);
    out.extend_from_slice(bytes);
}

fn put_time(out: &mut Vec<u8>, time: Time) {
    let zigzag = (time.seconds << 1) ^ (time.seconds >> 63);
    put(out, zigzag.cast_unsigned());
    put(out, u64::from(time.nanos));
}

/// Reads a side record.
#[derive(Debug)]
pub struct SideReader<R> {
    input: R,
    name: Vec<u8>,
    shared: Vec<Vec<u8>>,
    shared_bytes: usize,
    /// Data of the record before.
    before: u64,
    count: u64,
    end: Option<Trailer>,
}

impl<R: Read> SideReader<R> {
    /// Begins to read. The source should be buffered.
    pub fn new(mut input: R) -> Result<Self, Error> {
        let mut magic = [0; 5];
        input.read_exact(&mut magic).map_err(Error::Read)?;
        if &magic != MAGIC {
            return Err(Error::Version);
        }
        let (name, shared, shared_bytes) = (Vec::new(), Vec::new(), 0);
        Ok(Self { input, name, shared, shared_bytes, before: 0, count: 0, end: None })
    }

    /// The next record, or `None` at the end.
    pub fn next_record(&mut self) -> Result<Option<Record>, Error> {
        if self.end.is_some() {
            return Ok(None);
        }
        let record = match self.byte()? {
            0 => {
                let zeros = self.number()?;
                let rest = self.bytes(MAX_LEAD as u64)?;
                if rest.first() == Some(&0) {
                    return Err(Error::Malformed("an end that begins with zeros"));
                }
                self.end = Some(Trailer { zeros, rest });
                return Ok(None);
            }
            1 => Record::new(self.header()?).map_err(Error::Record)?,
            2 => {
                let bytes = self.bytes(MAX_LEAD as u64)?;
                let padding = crate::record::padding(self.before);
                let record = Record::parse(&bytes, padding).map_err(Error::Record)?;
                if record.raw().is_none() {
                    return Err(Error::Malformed("a record in the wrong form"));
                }
                record
            }
            _ => return Err(Error::Malformed("an unknown tag")),
        };
        self.count += 1;
        if self.count > MAX_RECORDS {
            return Err(Error::Malformed("too many records"));
        }
        self.before = record.size();
        Ok(Some(record))
    }

    /// Reads to the end: what follows the data of the last record.
    pub fn finish(mut self) -> Result<(R, Trailer), Error> {
        while self.next_record()?.is_some() {}
        Ok((self.input, self.end.unwrap_or_default()))
    }

    fn header(&mut self) -> Result<Header, Error> {
        let shared =
            usize::try_from(self.number()?).ok().filter(|shared| *shared <= self.name.len());
        self.name.truncate(shared.ok_or(Error::Malformed("a name"))?);
        let rest = self.bytes(MAX_BYTES)?;
        self.name.extend_from_slice(&rest);
        if self.name.len() as u64 > MAX_BYTES {
            return Err(Error::Malformed("a name"));
        }
        let kind = self.byte()?;
        if !matches!(kind, b'0'..=b'6') {
            return Err(Error::Malformed("a type"));
        }
        let mut header = Header::new(kind, self.name.clone());
        header.mode = self.small()?;
        let flags = self.byte()?;
        if flags >= HAS_TIME << 1 {
            return Err(Error::Malformed("flags"));
        }
        if flags & HAS_LINK != 0 {
            header.link = self.bytes(MAX_BYTES)?;
        }
        if flags & HAS_OWNER != 0 {
            (header.uid, header.gid) = (self.small()?, self.small()?);
        }
        if flags & HAS_NAMES != 0 {
            (header.uname, header.gname) = (self.bytes(MAX_BYTES)?, self.bytes(MAX_BYTES)?);
        }
        if flags & HAS_SIZE != 0 {
            header.size = self.number()?;
            if kind != header::REGULAR || i64::try_from(header.size).is_err() {
                return Err(Error::Malformed("a size"));
            }
        }
        if flags & HAS_TIME != 0 {
            header.mtime = self.time()?;
        }
        let mut total = 0;
        for _ in 0..self.number()? {
            let key = match self.number()? {
                0 => self.bytes(MAX_BYTES)?,
                known => {
                    let index = usize::try_from(known - 1).ok();
                    let key = index.and_then(|index| KEYS.get(index));
                    key.ok_or(Error::Malformed("a key"))?.as_bytes().to_vec()
                }
            };
            let value = self.value()?;
            total += key.len() + value.len();
            let later = header.records.last_key_value().is_none_or(|(last, _)| *last < key);
            if !later || total > MAX_LEAD {
                return Err(Error::Malformed("records"));
            }
            header.records.insert(key, value);
        }
        Ok(header)
    }

    fn value(&mut self) -> Result<Vec<u8>, Error> {
        match self.byte()? {
            0 => self.bytes(MAX_BYTES),
            1 => {
                let plain = self.bytes(MAX_BYTES)?;
                self.shared_bytes += plain.len();
                if self.shared.len() >= MAX_SHARED || self.shared_bytes > MAX_SHARED_BYTES {
                    return Err(Error::Malformed("too many shared values"));
                }
                let value = STANDARD.encode(&plain).into_bytes();
                self.shared.push(plain);
                Ok(value)
            }
            2 => {
                let index = usize::try_from(self.number()?).ok();
                let plain = index.and_then(|index| self.shared.get(index));
                let plain = plain.ok_or(Error::Malformed("a shared value"))?;
                Ok(STANDARD.encode(plain).into_bytes())
            }
            3 => Ok(self.number()?.to_string().into_bytes()),
            4 => Ok(pax::format_time(self.time()?).into_bytes()),
            _ => Err(Error::Malformed("the form of a value")),
        }
    }

    fn time(&mut self) -> Result<Time, Error> {
        let zigzag = self.number()?;
        let seconds = (zigzag >> 1).cast_signed() ^ -(zigzag & 1).cast_signed();
        let nanos = self.small()?;
        // What cannot be negated has no text.
        if nanos >= 1_000_000_000 || seconds == i64::MIN {
            return Err(Error::Malformed("a time"));
        }
        Ok(Time { seconds, nanos })
    }

    fn byte(&mut self) -> Result<u8, Error> {
        let mut byte = [0];
        self.input.read_exact(&mut byte).map_err(Error::Read)?;
        Ok(byte[0])
    }

    fn number(&mut self) -> Result<u64, Error> {
        let mut number = 0_u64;
        for shift in (0..64).step_by(7) {
            let byte = self.byte()?;
            let bits = u64::from(byte & 0x7f);
            if bits << shift >> shift != bits || (byte == 0 && shift > 0) {
                break;
            }
            number |= bits << shift;
            if byte & 0x80 == 0 {
                return Ok(number);
            }
        }
        Err(Error::Malformed("a number"))
    }

    fn small(&mut self) -> Result<u32, Error> {
        u32::try_from(self.number()?).map_err(|_| Error::Malformed("a number"))
    }

    /// Bytes, of which there are no more than `limit`. Memory is taken as they come.
    fn bytes(&mut self, limit: u64) -> Result<Vec<u8>, Error> {
        let length = self.number()?;
        if length > limit {
            return Err(Error::Malformed("a length"));
        }
        let mut bytes = Vec::new();
        let read = (&mut self.input).take(length).read_to_end(&mut bytes).map_err(Error::Read)?;
        if read as u64 != length {
            return Err(Error::Read(io::ErrorKind::UnexpectedEof.into()));
        }
        Ok(bytes)
    }
}

/// Makes a layer's tar again. `content` writes the data of a record, which it gets with its
/// number from 0; it is asked in order, and for records with data only.
pub fn replay<W: Write>(
    side: &mut SideReader<impl Read>,
    output: &mut W,
    mut content: impl FnMut(u64, &Record, &mut W) -> io::Result<()>,
) -> Result<(), Error> {
    let mut lead = Vec::new();
    let mut before = 0;
    let mut number = 0;
    while let Some(record) = side.next_record()? {
        lead.clear();
        record.write(before, &mut lead).map_err(Error::Record)?;
        output.write_all(&lead).map_err(Error::Write)?;
        before = record.size();
        if before > 0 {
            content(number, &record, output).map_err(Error::Write)?;
        }
        number += 1;
    }
    let trailer = side.end.clone().unwrap_or_default();
    io::copy(&mut io::repeat(0).take(trailer.zeros), output).map_err(Error::Write)?;
    output.write_all(&trailer.rest).map_err(Error::Write)
}
