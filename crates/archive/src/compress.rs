//! Compression of streams, found out by their first bytes.

use std::fmt;
use std::io::{self, BufRead, BufReader, Read, Write};

use lzma_rust2::XzReader;

use crate::Error;
use crate::gzip::GzipWriter;
use crate::pipe::{self, PipeReader};

/// How many bytes [`Compression::sniff`] wants to see.
pub const SNIFF: usize = 6;
/// Size of the pieces in which streams move between threads.
const PIECE: usize = 128 << 10;
/// Memory that an xz stream may ask for, in KiB: a dictionary of 128 MiB, as much as zstd streams
/// may ask for, and what the decoder itself needs. `xz -9` asks for 64 MiB.
const MAX_XZ_KIB: u32 = (128 << 10) + 256;

/// A compression format.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Compression {
    /// None.
    None,
    /// Gzip (RFC 1952), of one or several members.
    Gzip,
    /// Zstandard (RFC 8878), of one or several frames.
    Zstd,
    /// Bzip2, of one or several streams.
    Bzip2,
    /// Xz, of one or several streams.
    Xz,
}

impl Compression {
    /// The format that the media type of an image's layer names (OCI image specification,
    /// "layer"), which ends as `+gzip`, `.gzip` or `+zstd`.
    pub fn of_media_type(media_type: &str) -> Self {
        if media_type.ends_with("gzip") {
            Self::Gzip
        } else if media_type.ends_with("zstd") {
            Self::Zstd
        } else {
            Self::None
        }
    }

    /// Tells the format from the first bytes of a stream.
    pub fn sniff(start: &[u8]) -> Self {
        match start {
            [0x1f, 0x8b, ..] => Self::Gzip,
            [0x28, 0xb5, 0x2f, 0xfd, ..] => Self::Zstd,
            // A skippable frame, as seekable zstd files may begin with.
            [0x50..=0x5f, 0x2a, 0x4d, 0x18, ..] => Self::Zstd,
            [b'B', b'Z', b'h', ..] => Self::Bzip2,
            [0xfd, b'7', b'z', b'X', b'Z', 0, ..] => Self::Xz,
            _ => Self::None,
        }
    }
}

/// Reads what `input` holds uncompressed, in the calling thread.
pub fn decoder<'a>(
    compression: Compression,
    input: impl BufRead + Send + 'a,
) -> Result<Box<dyn Read + Send + 'a>, Error> {
    match compression {
        Compression::None => Ok(Box::new(input)),
        Compression::Gzip => Ok(Box::new(flate2::bufread::MultiGzDecoder::new(input))),
        Compression::Zstd => {
            let decoder = zstd::stream::read::Decoder::with_buffer(input).map_err(Error::Read)?;
            Ok(Box::new(decoder))
        }
        Compression::Bzip2 => Ok(Box::new(bzip2::bufread::MultiBzDecoder::new(input))),
        Compression::Xz => Ok(Box::new(Xz(XzReader::new_mem_limit(input, true, MAX_XZ_KIB)))),
    }
}

/// An xz decoder that says in plain words when it would need too much memory.
struct Xz<R: Read>(XzReader<R>);

impl<R: Read> Read for Xz<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.0.read(buffer).map_err(|error| match error.kind() {
            io::ErrorKind::OutOfMemory => {
                io::Error::other("the xz stream's dictionary is larger than 128 MiB")
            }
            _ => error,
        })
    }
}

/// A stream with its first bytes put back.
pub type Detected<R> = io::Chain<io::Cursor<Vec<u8>>, R>;

/// Finds out a stream's compression by its first bytes without losing them.
pub fn detect<R: Read>(mut input: R) -> io::Result<(Compression, Detected<R>)> {
    let mut start = vec![0; SNIFF];
    let mut filled = 0;
    while filled < start.len() {
        match input.read(&mut start[filled..]) {
            Ok(0) => break,
            Ok(count) => filled += count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    start.truncate(filled);
    Ok((Compression::sniff(&start), io::Cursor::new(start).chain(input)))
}

/// Uncompresses in a thread of its own, so that the consumer works meanwhile. What is not
/// compressed comes through the same way, read ahead.
pub fn decode_in_thread(
    compression: Compression,
    input: impl Read + Send + 'static,
) -> Result<PipeReader, Error> {
    let mut source = decoder(compression, BufReader::with_capacity(PIECE, input))?;
    let (writer, reader) = pipe::pipe();
    let work = move || pump(&mut source, writer);
    std::thread::Builder::new().name("decompress".into()).spawn(work).map_err(Error::Read)?;
    Ok(reader)
}

/// Moves all that `source` has into a pipe; a failure is for the reader of the pipe.
pub fn pump(source: &mut impl Read, mut writer: pipe::PipeWriter) {
    match pump_all(source, &mut writer) {
        Ok(()) => writer.finish(),
        Err(error) => writer.fail(error),
    }
}

fn pump_all(source: &mut impl Read, writer: &mut pipe::PipeWriter) -> io::Result<()> {
    loop {
        let mut piece = writer.piece();
        piece.resize(PIECE, 0);
        let mut filled = 0;
        while filled < PIECE {
            match source.read(&mut piece[filled..]) {
                Ok(0) => break,
                Ok(count) => filled += count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => {
                    piece.truncate(filled);
                    writer.send(piece)?;
                    return Err(error);
                }
            }
        }
        piece.truncate(filled);
        if piece.is_empty() {
            return Ok(());
        }
        writer.send(piece)?;
    }
}

/// How something is to be compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Packing {
    /// The format: none, gzip or zstd.
    pub compression: Compression,
    /// The format's own level; `None` for its usual one. Levels beyond the highest are that.
    pub level: Option<u32>,
}

impl Default for Packing {
    fn default() -> Self {
        Self { compression: Compression::Gzip, level: None }
    }
}

/// The highest levels.
const MAX_GZIP: u32 = 9;
const MAX_ZSTD: u32 = 22;

/// Compresses what is written; [`Encoder::finish`] writes the end.
pub struct Encoder<W: Write>(Encoding<W>);

enum Encoding<W: Write> {
    Plain(W),
    /// At Docker's level.
    Usual(GzipWriter<W>),
    Gzip(flate2::write::GzEncoder<W>),
    Zstd(zstd::stream::write::Encoder<'static, W>),
}

impl<W: Write> fmt::Debug for Encoder<W> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Encoder")
    }
}

impl<W: Write> Encoder<W> {
    /// An encoder of this form. There is none of bzip2 and xz.
    pub fn new(packing: Packing, output: W) -> io::Result<Self> {
        Ok(Self(match packing.compression {
            Compression::None => Encoding::Plain(output),
            Compression::Gzip => match packing.level {
                None => Encoding::Usual(GzipWriter::new(output)),
                Some(level) => {
                    let level = flate2::Compression::new(level.min(MAX_GZIP));
                    Encoding::Gzip(flate2::write::GzEncoder::new(output, level))
                }
            },
            Compression::Zstd => {
                let level = packing.level.map_or(0, |level| level.min(MAX_ZSTD));
                let level = i32::try_from(level).unwrap_or_default();
                Encoding::Zstd(zstd::stream::write::Encoder::new(output, level)?)
            }
            Compression::Bzip2 | Compression::Xz => {
                return Err(io::Error::new(
                    io::ErrorKind::Unsupported,
                    "no encoder of this format",
                ));
            }
        }))
    }

    /// Writes the end, and gives the output back.
    pub fn finish(self) -> io::Result<W> {
        match self.0 {
            Encoding::Plain(output) => Ok(output),
            Encoding::Usual(encoder) => encoder.finish(),
            Encoding::Gzip(encoder) => encoder.finish(),
            Encoding::Zstd(encoder) => encoder.finish(),
        }
    }
}

impl<W: Write> Write for Encoder<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match &mut self.0 {
            Encoding::Plain(output) => output.write(bytes),
            Encoding::Usual(encoder) => encoder.write(bytes),
            Encoding::Gzip(encoder) => encoder.write(bytes),
            Encoding::Zstd(encoder) => encoder.write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match &mut self.0 {
            Encoding::Plain(output) => output.flush(),
            Encoding::Usual(encoder) => encoder.flush(),
            Encoding::Gzip(encoder) => encoder.flush(),
            Encoding::Zstd(encoder) => encoder.flush(),
        }
    }
}

/// A gzip encoder at the level that Docker uses.
pub fn gzip(output: impl Write) -> impl Write {
    flate2::write::GzEncoder::new(output, flate2::Compression::default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_packed_is_read() {
        let text = b"the same again and again ".repeat(100);
        for (compression, level) in [
            (Compression::None, None),
            (Compression::Gzip, None),
            (Compression::Gzip, Some(0)),
            (Compression::Gzip, Some(40)),
            (Compression::Zstd, None),
            (Compression::Zstd, Some(40)),
        ] {
            let mut encoder = Encoder::new(Packing { compression, level }, Vec::new()).unwrap();
            encoder.write_all(&text).unwrap();
            let packed = encoder.finish().unwrap();
            let (found, packed) = detect(&packed[..]).unwrap();
            assert_eq!(found, compression);
            let mut read = Vec::new();
            let mut input = decoder(found, BufReader::new(packed)).unwrap();
            input.read_to_end(&mut read).unwrap();
            assert!(read == text, "{compression:?} {level:?}");
        }
        let xz = Packing { compression: Compression::Xz, level: None };
        assert!(Encoder::new(xz, Vec::new()).is_err());
    }
}
