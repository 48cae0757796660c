//! Recipes: how to make a layer's tar again, bit for bit, from its extracted files.
//!
//! A recipe is a zstd stream of records. Each begins with a tag byte; numbers are
//! little-endian.
//!
//! ```text
//! 0  length u32, bytes                           these bytes
//! 1  size u64, path length u32, path             the first size bytes of the file
//! 2  stretches u32, (offset u64, length u64)..., path length u32, path
//!                                                these stretches of the file
//! ```

use std::ffi::{OsStr, OsString};
use std::io::{self, BufReader, Read, Write};
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

use rustix::fs::{Mode, OFlags};
use silo_archive::{Entry, RawTap, Segment};

use crate::Error;
use crate::extract::Journal;
use crate::types::Kept;

/// File name of a layer's recipe.
pub(crate) const RECIPE: &str = "recipe.zst";
/// Directory of files that later entries of the same tar replaced.
pub(crate) const KEPT: &str = "kept";
/// Bytes that are gathered into one record.
const GATHER: usize = 64 << 10;
/// The longest path in a recipe.
const MAX_PATH: u32 = 4096;

/// Writes a recipe while a layer is extracted.
pub(crate) struct Recorder {
    /// `None` where the compressed blob is kept and no recipe is needed.
    output: Option<zstd::stream::write::Encoder<'static, fs_err::File>>,
    raw: Vec<u8>,
    payloads: u64,
    layer: OwnedFd,
    keeping: Option<OwnedFd>,
    kept: Vec<Kept>,
}

impl Recorder {
    /// A recorder for the layer whose directory is `layer`, open as `fd`.
    pub(crate) fn new(layer: &Path, fd: OwnedFd, wanted: bool) -> Result<Self, Error> {
        let path = layer.join(RECIPE);
        let output = if wanted {
            let file = fs_err::File::create(&path).map_err(Error::io("create", &path))?;
            Some(zstd::stream::write::Encoder::new(file, 1).map_err(Error::io("write", &path))?)
        } else {
            None
        };
        let (raw, kept) = (Vec::new(), Vec::new());
        Ok(Self { output, raw, payloads: 0, layer: fd, keeping: None, kept })
    }

    fn flush_raw(&mut self) -> io::Result<()> {
        if let Some(output) = &mut self.output
            && !self.raw.is_empty()
        {
            output.write_all(&[0])?;
            output.write_all(&length(self.raw.len())?)?;
            output.write_all(&self.raw)?;
        }
        self.raw.clear();
        Ok(())
    }

    /// Ends the recipe; gives what was moved away.
    pub(crate) fn finish(mut self) -> io::Result<Vec<Kept>> {
        self.flush_raw()?;
        if let Some(output) = self.output {
            output.finish()?;
        }
        Ok(self.kept)
    }
}

fn length(length: usize) -> io::Result<[u8; 4]> {
    Ok(u32::try_from(length).map_err(|_| io::ErrorKind::InvalidInput)?.to_le_bytes())
}

impl RawTap for Recorder {
    fn raw(&mut self, bytes: &[u8]) -> io::Result<()> {
        if self.output.is_none() {
            return Ok(());
        }
        if self.raw.len() + bytes.len() > GATHER {
            self.flush_raw()?;
        }
        if bytes.len() > GATHER {
            for piece in bytes.chunks(GATHER) {
                self.raw.extend_from_slice(piece);
                self.flush_raw()?;
            }
            return Ok(());
        }
        self.raw.extend_from_slice(bytes);
        Ok(())
    }
}

impl Journal for Recorder {
    fn payload(&mut self, path: &[u8], entry: &Entry) -> io::Result<()> {
        if entry.stored == 0 {
            return Ok(());
        }
        self.payloads += 1;
        self.flush_raw()?;
        let Some(output) = &mut self.output else {
            return Ok(());
        };
        match &entry.sparse {
            None => {
                output.write_all(&[1])?;
                output.write_all(&entry.stored.to_le_bytes())?;
            }
            Some(map) => {
                output.write_all(&[2])?;
                output.write_all(&length(map.len())?)?;
                for segment in map {
                    output.write_all(&segment.offset.to_le_bytes())?;
                    output.write_all(&segment.length.to_le_bytes())?;
                }
            }
        }
        output.write_all(&length(path.len())?)?;
        output.write_all(path)
    }

    fn keep(&mut self, path: &[u8]) -> io::Result<Option<(BorrowedFd<'_>, OsString)>> {
        if self.output.is_none() {
            return Ok(None);
        }
        if self.keeping.is_none() {
            rustix::fs::mkdirat(&self.layer, KEPT, Mode::from_raw_mode(0o700))?;
            let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW;
            let fd = rustix::fs::openat(&self.layer, KEPT, flags | OFlags::CLOEXEC, Mode::empty())?;
            self.keeping = Some(fd);
        }
        let name = OsString::from(self.kept.len().to_string());
        let path = silo_types::digest::hex(path);
        self.kept.push(Kept { path, before: self.payloads });
        Ok(self.keeping.as_ref().map(|fd| (fd.as_fd(), name)))
    }
}

/// Writes the tar that `layer`'s recipe describes.
pub(crate) fn replay(layer: &Path, kept: &[Kept], output: &mut impl Write) -> Result<(), Error> {
    let path = layer.join(RECIPE);
    let file = fs_err::File::open(&path).map_err(Error::io("open", &path))?;
    let mut input = BufReader::with_capacity(
        256 << 10,
        zstd::stream::read::Decoder::new(file).map_err(Error::io("read", &path))?,
    );
    let mut replay = Replay {
        layer: silo_sys::path::open_root(layer).map_err(Error::io("open", layer))?,
        kept: kept.iter().map(|kept| (unhex(&kept.path), kept.before)).collect(),
        ordinal: 0,
        directory: None,
        buffer: vec![0; 256 << 10],
    };
    loop {
        let mut tag = [0];
        match input.read(&mut tag).map_err(Error::io("read", &path))? {
            0 => return Ok(()),
            _ => replay
                .record(tag[0], &mut input, output)
                .map_err(Error::io("make the tar again by", &path))?,
        }
    }
}

/// The tar that a recipe describes, with zeros for the contents of files: its headers are
/// there without a look at the files.
pub(crate) struct Skeleton {
    input: BufReader<zstd::stream::read::Decoder<'static, BufReader<fs_err::File>>>,
    /// Bytes of the recipe that come next, and zeros that come then.
    raw: u64,
    zeros: u64,
}

impl Skeleton {
    /// Opens the recipe of `layer`.
    pub(crate) fn open(layer: &Path) -> Result<Self, Error> {
        let path = layer.join(RECIPE);
        let file = fs_err::File::open(&path).map_err(Error::io("open", &path))?;
        let input = zstd::stream::read::Decoder::new(file).map_err(Error::io("read", &path))?;
        Ok(Self { input: BufReader::with_capacity(256 << 10, input), raw: 0, zeros: 0 })
    }

    /// Goes to the next record; whether there is one.
    fn advance(&mut self) -> io::Result<bool> {
        let mut tag = [0];
        if self.input.read(&mut tag)? == 0 {
            return Ok(false);
        }
        let long = |input: &mut dyn Read| -> io::Result<u64> {
            let mut bytes = [0; 8];
            input.read_exact(&mut bytes)?;
            Ok(u64::from_le_bytes(bytes))
        };
        match tag[0] {
            0 => {
                self.raw = u64::from(number(&mut self.input)?);
                return Ok(true);
            }
            1 => self.zeros = long(&mut self.input)?,
            2 => {
                for _ in 0..number(&mut self.input)? {
                    long(&mut self.input)?;
                    let length = long(&mut self.input)?;
                    self.zeros = self.zeros.checked_add(length).ok_or(invalid("a length"))?;
                }
            }
            _ => return Err(invalid("an unknown record")),
        }
        let path = u64::from(number(&mut self.input)?);
        if path > u64::from(MAX_PATH) {
            return Err(invalid("a path that is too long"));
        }
        io::copy(&mut (&mut self.input).take(path), &mut io::sink())?;
        Ok(true)
    }
}

impl Read for Skeleton {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.raw == 0 && self.zeros == 0 {
            if !self.advance()? {
                return Ok(0);
            }
        }
        let left = if self.raw > 0 { self.raw } else { self.zeros };
        let count = usize::try_from(left).unwrap_or(usize::MAX).min(buffer.len());
        if self.raw == 0 {
            buffer[..count].fill(0);
            self.zeros -= count as u64;
            return Ok(count);
        }
        let count = self.input.read(&mut buffer[..count])?;
        if count == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        self.raw -= count as u64;
        Ok(count)
    }
}

fn invalid(what: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what)
}

/// The state of making one tar again.
struct Replay {
    layer: OwnedFd,
    kept: Vec<(Vec<u8>, u64)>,
    /// Payloads so far.
    ordinal: u64,
    /// The directory of the last payload, by its path below the layer's.
    directory: Option<(Vec<u8>, OwnedFd)>,
    buffer: Vec<u8>,
}

impl Replay {
    fn record(
        &mut self,
        tag: u8,
        input: &mut impl Read,
        output: &mut impl Write,
    ) -> io::Result<()> {
        let segments = match tag {
            0 => {
                let size = u64::from(number(input)?);
                return copy(input, size, &mut self.buffer, output);
            }
            1 => {
                let mut size = [0; 8];
                input.read_exact(&mut size)?;
                vec![Segment { offset: 0, length: u64::from_le_bytes(size) }]
            }
            2 => {
                let mut map = Vec::new();
                for _ in 0..number(input)? {
                    let (mut offset, mut length) = ([0; 8], [0; 8]);
                    input.read_exact(&mut offset)?;
                    input.read_exact(&mut length)?;
                    map.push(Segment {
                        offset: u64::from_le_bytes(offset),
                        length: u64::from_le_bytes(length),
                    });
                }
                map
            }
            _ => return Err(invalid("an unknown record")),
        };
        let length = number(input)?;
        if length > MAX_PATH {
            return Err(invalid("a path that is too long"));
        }
        let mut path = vec![0; usize::try_from(length).map_err(|_| invalid("a path"))?];
        input.read_exact(&mut path)?;
        let path = locate(&path, self.ordinal, &self.kept);
        self.ordinal += 1;
        let file = self.open(&path)?;
        for segment in segments {
            let mut offset = segment.offset;
            let mut left = segment.length;
            while left > 0 {
                let limit = self.buffer.len();
                let wanted = usize::try_from(left).unwrap_or(usize::MAX).min(limit);
                let count = rustix::io::pread(&file, &mut self.buffer[..wanted], offset)?;
                if count == 0 {
                    return Err(invalid("a file of the layer is too short"));
                }
                output.write_all(&self.buffer[..count])?;
                offset += count as u64;
                left -= count as u64;
            }
        }
        Ok(())
    }

    /// Opens a file of `fs` or `kept`; links of the layer are resolved within that directory.
    fn open(&mut self, path: &[u8]) -> io::Result<OwnedFd> {
        let slash = path.iter().rposition(|byte| *byte == b'/').unwrap_or(0);
        let (holder, name) = (&path[..slash], &path[slash + 1..]);
        if name.is_empty() || name == b"." || name == b".." {
            return Err(invalid("a path"));
        }
        let fd = match self.directory.take_if(|(known, _)| *known == holder) {
            Some((_, fd)) => fd,
            None => self.open_directory(holder)?,
        };
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let file = rustix::fs::openat(&fd, OsStr::from_bytes(name), flags, Mode::empty());
        self.directory = Some((holder.to_vec(), fd));
        Ok(file?)
    }

    fn open_directory(&self, path: &[u8]) -> io::Result<OwnedFd> {
        let (top, rest) = path
            .iter()
            .position(|byte| *byte == b'/')
            .map_or((path, &b""[..]), |slash| (&path[..slash], &path[slash + 1..]));
        let top = OsStr::from_bytes(top);
        let flags = OFlags::PATH | OFlags::DIRECTORY;
        let own = flags | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let top = rustix::fs::openat(&self.layer, top, own, Mode::empty())?;
        silo_sys::path::open_in_root(top, OsStr::from_bytes(rest), flags, Mode::empty())
    }
}

/// Where the content of payload `ordinal` is now.
fn locate(path: &[u8], ordinal: u64, kept: &[(Vec<u8>, u64)]) -> Vec<u8> {
    for (index, (moved, before)) in kept.iter().enumerate() {
        if *before <= ordinal {
            continue;
        }
        match path.strip_prefix(&moved[..]) {
            Some(rest) if rest.is_empty() || rest[0] == b'/' => {
                return [format!("kept/{index}").as_bytes(), rest].concat();
            }
            _ => {}
        }
    }
    [b"fs/", path].concat()
}

fn number(input: &mut impl Read) -> io::Result<u32> {
    let mut bytes = [0; 4];
    input.read_exact(&mut bytes)?;
    Ok(u32::from_le_bytes(bytes))
}

fn copy(
    input: &mut impl Read,
    mut left: u64,
    buffer: &mut [u8],
    output: &mut impl Write,
) -> io::Result<()> {
    while left > 0 {
        let wanted = usize::try_from(left).unwrap_or(usize::MAX).min(buffer.len());
        input.read_exact(&mut buffer[..wanted])?;
        output.write_all(&buffer[..wanted])?;
        left -= wanted as u64;
    }
    Ok(())
}

fn unhex(text: &str) -> Vec<u8> {
    let digits = text.as_bytes().chunks_exact(2);
    digits.filter_map(|pair| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok()).collect()
}
