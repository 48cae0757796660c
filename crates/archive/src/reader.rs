//! Reading tar streams.

use std::io::{self, BufRead, Read};

use crate::number;
use crate::pax;
use crate::sparse;
use crate::{BLOCK, Entry, EntryKind, Error, Segment, Time};

/// The largest PAX header or GNU long name, in bytes (as in Go).
pub const MAX_SPECIAL: u64 = 1 << 20;

/// Sees every byte of a stream that is not handed out as data of an entry, in order. With
/// these and the data, the stream can be made again bit for bit.
pub trait RawTap {
    /// The next such bytes.
    fn raw(&mut self, bytes: &[u8]) -> io::Result<()>;
}

/// No tap.
impl RawTap for () {
    fn raw(&mut self, _: &[u8]) -> io::Result<()> {
        Ok(())
    }
}

/// Reads entries off a stream of uncompressed tar.
///
/// Call [`next_entry`](Self::next_entry), read the entry's bytes from the reader itself
/// (it is a [`BufRead`] that ends with the entry), and so on until `None`. Data that is not
/// read is skipped, and shown to the tap.
#[derive(Debug)]
pub struct Reader<R, T = ()> {
    input: R,
    tap: T,
    /// Bytes of the stream consumed so far.
    position: u64,
    /// Data of the current entry that is not consumed yet.
    left: u64,
    /// Padding after the current entry's data.
    padding: u64,
    done: bool,
}

/// What extension headers say about the next entry.
#[derive(Default)]
struct Extensions {
    long_name: Option<Vec<u8>>,
    long_link: Option<Vec<u8>>,
    pax: Option<Vec<u8>>,
}

impl<R: BufRead> Reader<R> {
    /// A reader without a tap.
    pub fn new(input: R) -> Self {
        Self::with_tap(input, ())
    }
}

impl<R: BufRead, T: RawTap> Reader<R, T> {
    /// A reader whose `tap` sees all bytes that are not data.
    pub fn with_tap(input: R, tap: T) -> Self {
        Self { input, tap, position: 0, left: 0, padding: 0, done: false }
    }

    /// How many bytes of the stream are consumed.
    pub fn position(&self) -> u64 {
        self.position
    }

    /// The tap.
    pub fn tap_mut(&mut self) -> &mut T {
        &mut self.tap
    }

    /// How many stored bytes of the current entry are not read yet.
    pub fn remaining(&self) -> u64 {
        self.left
    }

    /// The next entry, or `None` at the end of the archive.
    pub fn next_entry(&mut self) -> Result<Option<Entry>, Error> {
        self.skip_rest()?;
        let mut extensions = Extensions::default();
        let mut first = None;
        loop {
            let start = self.position;
            let header_at = *first.get_or_insert(start);
            let Some(block) = self.block()? else {
                return self.end(header_at, start != header_at);
            };
            if block.iter().all(|byte| *byte == 0) {
                if start != header_at {
                    return Err(malformed(header_at, "an extension header without an entry"));
                }
                return match self.block()? {
                    Some(second) if second.iter().any(|byte| *byte != 0) => {
                        Err(malformed(start, "a lone block of zeros within the archive"))
                    }
                    _ => self.end(header_at, false),
                };
            }
            let header = Header::new(&block, start)?;
            header.check_unused()?;
            match header.kind() {
                b'x' => {
                    if extensions.pax.is_some() {
                        return Err(ambiguous(start, "two PAX headers for one entry"));
                    }
                    extensions.pax = Some(self.special(&header)?);
                }
                b'g' => {
                    if start != header_at {
                        let reason = "a global PAX header between an extension and its entry";
                        return Err(ambiguous(start, reason));
                    }
                    let bytes = self.special(&header)?;
                    let records = pax::parse(&bytes).map_err(|why| malformed(start, why))?;
                    if let Some((key, _)) = records.iter().find(|(key, _)| changes_entry(key)) {
                        let key = String::from_utf8_lossy(key);
                        return Err(ambiguous(start, format!("a global PAX record {key:?}")));
                    }
                    // An archive may end after this one.
                    first = None;
                }
                b'L' => {
                    if extensions.long_name.is_some() {
                        return Err(ambiguous(start, "two long names for one entry"));
                    }
                    extensions.long_name = Some(self.long_name(&header)?);
                }
                b'K' => {
                    if extensions.long_link.is_some() {
                        return Err(ambiguous(start, "two long link names for one entry"));
                    }
                    extensions.long_link = Some(self.long_name(&header)?);
                }
                _ => return self.entry(&header, extensions).map(Some),
            }
        }
    }

    /// Reads to the end of the input, which may be longer than the archive, and gives back
    /// the input and the tap.
    pub fn finish(mut self) -> Result<(R, T), Error> {
        while self.next_entry()?.is_some() {}
        loop {
            let bytes = self.input.fill_buf().map_err(Error::Read)?;
            if bytes.is_empty() {
                return Ok((self.input, self.tap));
            }
            self.tap.raw(bytes).map_err(Error::Write)?;
            let count = bytes.len();
            self.input.consume(count);
            self.position += count as u64;
        }
    }

    fn end(&mut self, offset: u64, dangling: bool) -> Result<Option<Entry>, Error> {
        if dangling {
            return Err(Error::Truncated { offset });
        }
        self.done = true;
        Ok(None)
    }

    /// Reads a block; `None` at the end of the input.
    fn block(&mut self) -> Result<Option<[u8; BLOCK]>, Error> {
        let mut block = [0; BLOCK];
        if self.done {
            return Ok(None);
        }
        let mut filled = 0;
        while filled < BLOCK {
            match self.input.read(&mut block[filled..]) {
                Ok(0) if filled == 0 => return Ok(None),
                Ok(0) => return Err(Error::Truncated { offset: self.position }),
                Ok(count) => filled += count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(Error::Read(error)),
            }
        }
        self.tap.raw(&block).map_err(Error::Write)?;
        self.position += BLOCK as u64;
        Ok(Some(block))
    }

    fn need_block(&mut self) -> Result<[u8; BLOCK], Error> {
        self.block()?.ok_or(Error::Truncated { offset: self.position })
    }

    fn skip_rest(&mut self) -> Result<(), Error> {
        let mut left = self.left + self.padding;
        (self.left, self.padding) = (0, 0);
        while left > 0 {
            let bytes = self.input.fill_buf().map_err(Error::Read)?;
            if bytes.is_empty() {
                return Err(Error::Truncated { offset: self.position });
            }
            let count = usize::try_from(left).unwrap_or(usize::MAX).min(bytes.len());
            self.tap.raw(&bytes[..count]).map_err(Error::Write)?;
            self.input.consume(count);
            self.position += count as u64;
            left -= count as u64;
        }
        Ok(())
    }

    /// The data of an extension header.
    fn special(&mut self, header: &Header<'_>) -> Result<Vec<u8>, Error> {
        let size = header.size()?;
        if size > MAX_SPECIAL {
            let reason = format!("an extension header of {size} bytes");
            return Err(Error::Limit { offset: header.offset, reason });
        }
        let mut bytes = Vec::new();
        let mut left = usize::try_from(size).unwrap_or(usize::MAX);
        while left > 0 {
            let block = self.need_block()?;
            bytes.extend_from_slice(&block[..left.min(BLOCK)]);
            left = left.saturating_sub(BLOCK);
        }
        Ok(bytes)
    }

    fn long_name(&mut self, header: &Header<'_>) -> Result<Vec<u8>, Error> {
        let mut name = self.special(header)?;
        let end = name.iter().position(|byte| *byte == 0).unwrap_or(name.len());
        name.truncate(end);
        if name.is_empty() {
            return Err(malformed(header.offset, "an empty long name"));
        }
        Ok(name)
    }

    fn entry(&mut self, header: &Header<'_>, extensions: Extensions) -> Result<Entry, Error> {
        let offset = header.offset;
        let pax_bytes = extensions.pax.unwrap_or_default();
        let gnu_names = extensions.long_name.is_some() || extensions.long_link.is_some();
        if !pax_bytes.is_empty() && gnu_names {
            return Err(ambiguous(offset, "a GNU long name and a PAX header for one entry"));
        }
        let records = pax::parse(&pax_bytes).map_err(|why| malformed(offset, why))?;
        let overrides = Overrides::new(&records).map_err(|why| ambiguous(offset, why))?;

        let mut path = match (extensions.long_name, overrides.path) {
            (Some(name), _) => name,
            (None, Some(name)) => name.to_vec(),
            (None, None) => header.path()?,
        };
        let link = match (extensions.long_link, overrides.link) {
            (Some(name), _) => name,
            (None, Some(name)) => name.to_vec(),
            (None, None) => header.text(157..257).to_vec(),
        };
        // The header's own size must be sound even where it does not count.
        let own_size = header.size()?;
        let size = overrides.size.unwrap_or(own_size);
        let old_sparse = header.kind() == b'S';
        let kind = match header.kind() {
            b'0' | b'7' | b'S' => EntryKind::Regular,
            0 if path.ends_with(b"/") => EntryKind::Directory,
            0 => EntryKind::Regular,
            b'1' => EntryKind::HardLink,
            b'2' => EntryKind::Symlink,
            b'3' => EntryKind::CharDevice,
            b'4' => EntryKind::BlockDevice,
            b'5' => EntryKind::Directory,
            b'6' => EntryKind::Fifo,
            other => {
                let reason = format!("entry type {:?}", char::from(other));
                return Err(ambiguous(offset, reason));
            }
        };
        if let Some(name) = overrides.sparse_name {
            path = name.to_vec();
        }
        if kind == EntryKind::Regular && path.ends_with(b"/") {
            // GNU tar makes it a directory, Go a file.
            return Err(ambiguous(offset, "a file whose name ends in a slash"));
        }
        // Go and GNU tar both take a hard link's own size field for none.
        let linked = kind == EntryKind::HardLink && overrides.size.is_none_or(|size| size == 0);
        let stored = if linked { 0 } else { size };
        if kind != EntryKind::Regular {
            if stored != 0 {
                return Err(ambiguous(offset, "a size on an entry without data"));
            }
            if overrides.is_sparse() {
                return Err(ambiguous(offset, "a sparse map on an entry without data"));
            }
        }
        if path.is_empty() {
            return Err(malformed(offset, "an empty name"));
        }
        if link.is_empty() && matches!(kind, EntryKind::HardLink | EntryKind::Symlink) {
            return Err(malformed(offset, "a link without a target"));
        }
        if i64::try_from(stored).is_err() {
            let reason = format!("a size of {stored} bytes");
            return Err(Error::Limit { offset, reason });
        }
        self.left = stored;
        self.padding = stored.wrapping_neg() % BLOCK as u64;

        let device = matches!(kind, EntryKind::CharDevice | EntryKind::BlockDevice);
        let mut entry = Entry {
            kind,
            path,
            link: if matches!(kind, EntryKind::HardLink | EntryKind::Symlink) {
                link
            } else {
                Vec::new()
            },
            size: stored,
            stored,
            mode: header.number(100..108, "mode")? & 0o7777,
            uid: match overrides.uid {
                Some(uid) => uid,
                None => header.id(108..116, "owner")?,
            },
            gid: match overrides.gid {
                Some(gid) => gid,
                None => header.id(116..124, "group")?,
            },
            uname: overrides.uname.unwrap_or(header.modern_text(265..297)).to_vec(),
            gname: overrides.gname.unwrap_or(header.modern_text(297..329)).to_vec(),
            mtime: match overrides.mtime {
                Some(time) => time,
                None => Time { seconds: header.time(136..148)?, nanos: 0 },
            },
            major: if device { header.number(329..337, "device number")? } else { 0 },
            minor: if device { header.number(337..345, "device number")? } else { 0 },
            xattrs: overrides.xattrs,
            sparse: None,
            pax: overrides.others,
        };
        if old_sparse {
            self.old_sparse(header, &mut entry)?;
        } else if let Some(form) = overrides.sparse {
            let size = overrides
                .real_size
                .ok_or_else(|| malformed(offset, "a sparse file without its size"))?;
            let map = match form {
                SparseForm::Listed(map) => map,
                SparseForm::InData => self.data_map(offset)?,
            };
            entry.stored = self.left;
            set_sparse(&mut entry, map, size, offset)?;
        }
        Ok(entry)
    }

    fn old_sparse(&mut self, header: &Header<'_>, entry: &mut Entry) -> Result<(), Error> {
        let offset = header.offset;
        if header.form != Form::Gnu {
            return Err(ambiguous(offset, "a sparse file in an archive that is not GNU's"));
        }
        let mut map = Vec::new();
        let size = number::parse(&header.block[483..495])
            .and_then(|size| u64::try_from(size).ok())
            .ok_or_else(|| malformed(offset, "an invalid size of a sparse file"))?;
        let bad = |why: &'static str| malformed(offset, why);
        let mut full = sparse::old_gnu(&header.block[386..482], &mut map).map_err(bad)?;
        let mut extended = header.block[482] != 0;
        while extended {
            if !full {
                return Err(ambiguous(offset, "a sparse map that goes on after its end"));
            }
            let block = self.need_block()?;
            full = sparse::old_gnu(&block[..504], &mut map).map_err(bad)?;
            extended = block[504] != 0;
        }
        set_sparse(entry, map, size, offset)
    }

    /// Reads the map of form 1.0, which counts as data of the entry.
    fn data_map(&mut self, offset: u64) -> Result<Vec<Segment>, Error> {
        let mut lines = sparse::Lines::default();
        loop {
            if self.left < BLOCK as u64 {
                return Err(malformed(offset, "a sparse map longer than its entry"));
            }
            let block = self.need_block()?;
            self.left -= BLOCK as u64;
            if lines.push(&block).map_err(|why| malformed(offset, why))? {
                return Ok(lines.finish());
            }
        }
    }
}

fn set_sparse(entry: &mut Entry, map: Vec<Segment>, size: u64, offset: u64) -> Result<(), Error> {
    if i64::try_from(size).is_err() {
        return Err(Error::Limit { offset, reason: format!("a size of {size} bytes") });
    }
    entry.size = size;
    entry.sparse =
        Some(sparse::check(map, size, entry.stored).map_err(|why| malformed(offset, why))?);
    Ok(())
}

impl<R: BufRead, T> Read for Reader<R, T> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let limit = usize::try_from(self.left).unwrap_or(usize::MAX).min(buffer.len());
        if limit == 0 {
            return Ok(0);
        }
        let count = self.input.read(&mut buffer[..limit])?;
        self.account(count)?;
        Ok(count)
    }
}

impl<R: BufRead, T> BufRead for Reader<R, T> {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        if self.left == 0 {
            return Ok(&[]);
        }
        let bytes = self.input.fill_buf()?;
        if bytes.is_empty() {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let limit = usize::try_from(self.left).unwrap_or(usize::MAX).min(bytes.len());
        Ok(&bytes[..limit])
    }

    fn consume(&mut self, count: usize) {
        self.input.consume(count);
        self.left = self.left.saturating_sub(count as u64);
        self.position += count as u64;
    }
}

impl<R, T> Reader<R, T> {
    fn account(&mut self, count: usize) -> io::Result<()> {
        if count == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        self.left -= count as u64;
        self.position += count as u64;
        Ok(())
    }
}

fn malformed(offset: u64, reason: impl Into<String>) -> Error {
    Error::Malformed { offset, reason: reason.into() }
}

fn ambiguous(offset: u64, reason: impl Into<String>) -> Error {
    Error::Ambiguous { offset, reason: reason.into() }
}

/// Whether a PAX record changes what an entry is, as GNU tar reads it.
fn changes_entry(key: &[u8]) -> bool {
    matches!(key, b"path" | b"linkpath" | b"size" | b"uid" | b"gid" | b"uname" | b"gname")
        || key.starts_with(b"GNU.sparse.")
        || key.starts_with(b"SCHILY.")
}

/// Where the map of a PAX sparse file is.
enum SparseForm {
    Listed(Vec<Segment>),
    InData,
}

/// The records of a PAX header that change an entry.
#[derive(Default)]
struct Overrides<'a> {
    path: Option<&'a [u8]>,
    link: Option<&'a [u8]>,
    size: Option<u64>,
    uid: Option<u32>,
    gid: Option<u32>,
    uname: Option<&'a [u8]>,
    gname: Option<&'a [u8]>,
    mtime: Option<Time>,
    xattrs: Vec<(Vec<u8>, Vec<u8>)>,
    others: Vec<(Vec<u8>, Vec<u8>)>,
    sparse: Option<SparseForm>,
    sparse_name: Option<&'a [u8]>,
    real_size: Option<u64>,
}

impl<'a> Overrides<'a> {
    fn is_sparse(&self) -> bool {
        self.sparse.is_some() || self.real_size.is_some() || self.sparse_name.is_some()
    }

    fn new(records: &[pax::Record<'a>]) -> Result<Self, &'static str> {
        let mut this = Self::default();
        let (mut major, mut minor, mut count) = (None, None, None);
        let mut listed: Option<Vec<Segment>> = None;
        let mut pending_offset = None;
        let mut pairs: Vec<Segment> = Vec::new();
        let number = |value: &[u8]| number::decimal(value).ok_or("a PAX number that is none");
        let id = |value: &[u8]| {
            number::decimal(value)
                .and_then(|id| u32::try_from(id).ok())
                .filter(|id| *id != u32::MAX)
                .ok_or("an owner or group out of range")
        };
        fn once<T>(place: &mut Option<T>, value: T) -> Result<(), &'static str> {
            if place.replace(value).is_some() {
                return Err("a PAX record given twice");
            }
            Ok(())
        }
        let name = |value: &'a [u8]| {
            if value.is_empty() { Err("an empty PAX name") } else { Ok(value) }
        };
        for &(key, value) in records {
            match key {
                b"path" => once(&mut this.path, name(value)?)?,
                b"linkpath" => once(&mut this.link, name(value)?)?,
                b"size" => once(&mut this.size, number(value)?)?,
                b"uid" => once(&mut this.uid, id(value)?)?,
                b"gid" => once(&mut this.gid, id(value)?)?,
                // An empty one takes an earlier one back.
                b"uname" => this.uname = Some(value).filter(|value| !value.is_empty()),
                b"gname" => this.gname = Some(value).filter(|value| !value.is_empty()),
                b"mtime" => {
                    let time = pax::parse_time(value).ok_or("a PAX time that is none")?;
                    once(&mut this.mtime, time)?;
                }
                b"atime" | b"ctime" => {
                    pax::parse_time(value).ok_or("a PAX time that is none")?;
                    this.others.push((key.to_vec(), value.to_vec()));
                }
                b"GNU.sparse.major" => once(&mut major, number(value)?)?,
                b"GNU.sparse.minor" => once(&mut minor, number(value)?)?,
                b"GNU.sparse.name" => once(&mut this.sparse_name, name(value)?)?,
                b"GNU.sparse.size" | b"GNU.sparse.realsize" => {
                    once(&mut this.real_size, number(value)?)?;
                }
                b"GNU.sparse.numblocks" => once(&mut count, number(value)?)?,
                b"GNU.sparse.map" => once(&mut listed, sparse::comma_list(value)?)?,
                b"GNU.sparse.offset" => once(&mut pending_offset, number(value)?)?,
                b"GNU.sparse.numbytes" => {
                    let offset = pending_offset.take().ok_or("a sparse length without offset")?;
                    pairs.push(Segment { offset, length: number(value)? });
                }
                _ if key.starts_with(b"GNU.sparse.") => return Err("an unknown sparse record"),
                _ => match key.strip_prefix(b"SCHILY.xattr.") {
                    Some(b"") => return Err("an extended attribute without a name"),
                    Some(attribute) => {
                        this.xattrs.retain(|(known, _)| known != attribute);
                        this.xattrs.push((attribute.to_vec(), value.to_vec()));
                    }
                    None => this.others.push((key.to_vec(), value.to_vec())),
                },
            }
        }
        if pending_offset.is_some() {
            return Err("a sparse offset without length");
        }
        this.sparse = match (major, minor, listed) {
            (Some(1), Some(0), None) if pairs.is_empty() && count.is_none() => {
                Some(SparseForm::InData)
            }
            (None, None, listed) | (Some(0), Some(0 | 1), listed) => {
                let map = match (listed, pairs.is_empty()) {
                    (Some(map), true) => Some(map),
                    (None, false) => Some(pairs),
                    (None, true) if count == Some(0) && major.is_some() => Some(Vec::new()),
                    (None, true) => None,
                    (Some(_), false) => return Err("two sparse maps"),
                };
                if let Some(map) = &map
                    && count != Some(map.len() as u64)
                {
                    return Err("a sparse map of another length than it says, or of none");
                }
                if map.is_none() && (major.is_some() || minor.is_some() || count.is_some()) {
                    return Err("a sparse file without its map");
                }
                map.map(SparseForm::Listed)
            }
            _ => return Err("an unknown form of sparse files"),
        };
        if this.sparse.is_none() && (this.real_size.is_some() || this.sparse_name.is_some()) {
            return Err("a sparse file without its map");
        }
        Ok(this)
    }
}

/// Which family of tar a header is of.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Form {
    V7,
    Ustar,
    /// Ustar with the trailer of Schily's star, whose prefix is shorter.
    Star,
    Gnu,
}

struct Header<'a> {
    block: &'a [u8; BLOCK],
    offset: u64,
    form: Form,
}

impl<'a> Header<'a> {
    fn new(block: &'a [u8; BLOCK], offset: u64) -> Result<Self, Error> {
        let wanted = number::parse(&block[148..156])
            .ok_or_else(|| malformed(offset, "not a tar header (no checksum)"))?;
        let (mut unsigned, mut signed) = (0_i64, 0_i64);
        for (index, byte) in block.iter().enumerate() {
            let byte = if (148..156).contains(&index) { b' ' } else { *byte };
            unsigned += i64::from(byte);
            signed += i64::from(byte.cast_signed());
        }
        if wanted != unsigned && wanted != signed {
            return Err(malformed(offset, "not a tar header (wrong checksum)"));
        }
        let form = match (&block[257..263], &block[263..265], &block[508..512]) {
            (b"ustar ", b" \0", _) => Form::Gnu,
            (b"ustar\0", _, b"tar\0") => Form::Star,
            (b"ustar\0", _, _) => Form::Ustar,
            (b"\0\0\0\0\0\0", b"\0\0", _) => Form::V7,
            _ => return Err(ambiguous(offset, "an unknown kind of tar")),
        };
        Ok(Self { block, offset, form })
    }

    fn kind(&self) -> u8 {
        self.block[156]
    }

    /// A field of text, up to its first NUL.
    fn text(&self, range: std::ops::Range<usize>) -> &'a [u8] {
        let field = &self.block[range];
        let end = field.iter().position(|byte| *byte == 0).unwrap_or(field.len());
        &field[..end]
    }

    /// A field of text that V7 does not have.
    fn modern_text(&self, range: std::ops::Range<usize>) -> &'a [u8] {
        if self.form == Form::V7 { b"" } else { self.text(range) }
    }

    fn path(&self) -> Result<Vec<u8>, Error> {
        let name = self.text(0..100);
        let prefix = match self.form {
            Form::Ustar => self.text(345..500),
            Form::Star if self.block[475] != 0 => {
                return Err(ambiguous(self.offset, "a name prefix of more than star's length"));
            }
            Form::Star => self.text(345..476),
            Form::V7 | Form::Gnu => b"",
        };
        if prefix.is_empty() {
            return Ok(name.to_vec());
        }
        Ok([prefix, b"/", name].concat())
    }

    /// Checks the fields that mean nothing here, because others parse them.
    fn check_unused(&self) -> Result<(), Error> {
        let number = |range: std::ops::Range<usize>| {
            number::parse_or_zero(&self.block[range])
                .ok_or_else(|| malformed(self.offset, "an invalid number"))
        };
        for range in [100..108, 108..116, 116..124, 136..148] {
            number(range)?;
        }
        if self.form != Form::V7 {
            number(329..337)?;
            number(337..345)?;
        }
        if self.form == Form::Star {
            number(476..488)?;
            number(488..500)?;
        }
        // Times of access and change; Go takes them for a name prefix if they are none.
        for range in [345..357, 357..369] {
            if self.form == Form::Gnu && self.block[range.start] != 0 {
                number(range)?;
            }
        }
        Ok(())
    }

    fn size(&self) -> Result<u64, Error> {
        let field = &self.block[124..136];
        let header_only = (b'1'..=b'6').contains(&self.kind());
        let size = if header_only { number::parse_or_zero(field) } else { number::parse(field) };
        size.and_then(|size| u64::try_from(size).ok())
            .ok_or_else(|| malformed(self.offset, "an invalid size"))
    }

    fn number(&self, range: std::ops::Range<usize>, what: &str) -> Result<u32, Error> {
        number::parse_or_zero(&self.block[range])
            .and_then(|value| u32::try_from(value).ok())
            .ok_or_else(|| malformed(self.offset, format!("an invalid {what}")))
    }

    fn id(&self, range: std::ops::Range<usize>, what: &str) -> Result<u32, Error> {
        match self.number(range, what)? {
            // chown takes this value for "leave as it is".
            u32::MAX => Err(malformed(self.offset, format!("an invalid {what}"))),
            id => Ok(id),
        }
    }

    fn time(&self, range: std::ops::Range<usize>) -> Result<i64, Error> {
        number::parse_or_zero(&self.block[range])
            .ok_or_else(|| malformed(self.offset, "an invalid time"))
    }
}
