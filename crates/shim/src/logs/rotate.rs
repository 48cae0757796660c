//! A log file that is replaced when it has grown: `x` becomes `x.1`, that `x.2` and so on, and
//! compressed ones have `.gz` at the end.
//!
//! A compressed file is written beside its place and renamed there before the plain one is
//! removed, so a reader that looks for the plain one first always finds one that is whole. The
//! comment in its header is the plain file's inode number, by which readers know it again.

use std::ffi::OsString;
use std::io::{self, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use flate2::write::GzEncoder;
use flate2::{Compression, GzBuilder};
use fs_err::File;
use fs_err::os::unix::fs::OpenOptionsExt as _;

use super::options::Rotation;
use crate::protocol::LogMark;

/// Bytes that one step of compression reads: a few milliseconds of work.
const STEP: usize = 128 << 10;

/// The file that records go to.
#[derive(Debug)]
pub(crate) struct RotatingFile {
    path: PathBuf,
    rotation: Rotation,
    file: File,
    inode: u64,
    size: u64,
    compression: Option<Compressor>,
}

impl RotatingFile {
    /// Opens the file at `path` for appending, making it and its directory when missing.
    pub(crate) fn open(path: &Path, rotation: Rotation) -> io::Result<Self> {
        if let Some(parent) = path.parent()
            && let Err(error) = fs_err::create_dir(parent)
            && error.kind() != io::ErrorKind::AlreadyExists
        {
            return Err(error);
        }
        let file = open_append(path)?;
        let metadata = file.metadata()?;
        let compression = rotation
            .compress
            .then(|| Compressor::start(&numbered(path, 1, false)).ok().flatten())
            .flatten();
        Ok(Self {
            path: path.to_owned(),
            rotation,
            file,
            inode: metadata.ino(),
            size: metadata.len(),
            compression,
        })
    }

    /// Where the file is.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Its length.
    pub(crate) fn size(&self) -> u64 {
        self.size
    }

    /// Where the log ends.
    pub(crate) fn mark(&self) -> LogMark {
        LogMark { inode: self.inode, offset: self.size }
    }

    /// Whether the next record belongs into a new file when `unwritten` bytes go to this first.
    pub(crate) fn is_full(&self, unwritten: usize) -> bool {
        let size = self.size + u64::try_from(unwritten).unwrap_or(u64::MAX);
        self.rotation.max_size.is_some_and(|limit| size >= limit)
    }

    /// Appends whole records. When that fails, nothing of them stays in the file.
    pub(crate) fn append(&mut self, records: &[u8]) -> io::Result<()> {
        match self.file.write_all(records) {
            Ok(()) => {
                self.size += u64::try_from(records.len()).unwrap_or(0);
                Ok(())
            }
            Err(error) => {
                // A part of a record would spoil the one that follows it.
                drop(self.file.set_len(self.size));
                Err(error)
            }
        }
    }

    /// Cuts the file to `size` bytes.
    pub(crate) fn truncate(&mut self, size: u64) -> io::Result<()> {
        self.file.set_len(size)?;
        self.size = size;
        Ok(())
    }

    /// Starts a new file.
    pub(crate) fn rotate(&mut self) -> io::Result<()> {
        self.finish_compression()?;
        let last = self.rotation.max_file - 1;
        if last == 0 {
            remove(&self.path)?;
        } else {
            for gzip in [false, true] {
                remove(&numbered(&self.path, last, gzip))?;
                for number in (1..last).rev() {
                    rename(
                        &numbered(&self.path, number, gzip),
                        &numbered(&self.path, number + 1, gzip),
                    )?;
                }
            }
            rename(&self.path, &numbered(&self.path, 1, false))?;
        }
        self.reopen()?;
        if self.rotation.compress {
            self.compression = Compressor::start(&numbered(&self.path, 1, false))?;
        }
        Ok(())
    }

    /// Opens the file at the same path anew.
    pub(crate) fn reopen(&mut self) -> io::Result<()> {
        self.file = open_append(&self.path)?;
        let metadata = self.file.metadata()?;
        (self.inode, self.size) = (metadata.ino(), metadata.len());
        Ok(())
    }

    /// Whether [`Self::compress_some`] has something to do.
    pub(crate) fn is_compressing(&self) -> bool {
        self.compression.is_some()
    }

    /// Does a few milliseconds of compression.
    pub(crate) fn compress_some(&mut self) -> io::Result<()> {
        if let Some(compression) = self.compression.take() {
            self.compression = compression.step()?;
        }
        Ok(())
    }

    /// Does all the compression that is left.
    pub(crate) fn finish_compression(&mut self) -> io::Result<()> {
        while self.is_compressing() {
            self.compress_some()?;
        }
        Ok(())
    }
}

/// The `number`th file behind `path`.
pub(crate) fn numbered(path: &Path, number: u32, gzip: bool) -> PathBuf {
    let mut name = OsString::from(path);
    name.push(format!(".{number}{}", if gzip { ".gz" } else { "" }));
    name.into()
}

fn open_append(path: &Path) -> io::Result<File> {
    let mut options = fs_err::OpenOptions::new();
    options.create(true).append(true);
    options.options_mut().mode(0o640).custom_flags(libc_nofollow());
    options.open(path)
}

/// A link in a log's place is not ours.
fn libc_nofollow() -> i32 {
    rustix::fs::OFlags::NOFOLLOW.bits().cast_signed()
}

fn remove(path: &Path) -> io::Result<()> {
    ignore_missing(fs_err::remove_file(path))
}

fn rename(from: &Path, to: &Path) -> io::Result<()> {
    ignore_missing(fs_err::rename(from, to))
}

fn ignore_missing(result: io::Result<()>) -> io::Result<()> {
    result
        .or_else(|error| if error.kind() == io::ErrorKind::NotFound { Ok(()) } else { Err(error) })
}

/// A file on its way to its compressed form. It is done in steps between other work, since a
/// thread would cost a process that otherwise has one its simplicity.
struct Compressor {
    plain: PathBuf,
    input: File,
    output: GzEncoder<File>,
}

impl std::fmt::Debug for Compressor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Compressor").field("plain", &self.plain).finish_non_exhaustive()
    }
}

impl Compressor {
    fn start(plain: &Path) -> io::Result<Option<Self>> {
        let input = match File::open(plain) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            other => other?,
        };
        let mut options = fs_err::OpenOptions::new();
        options.create(true).truncate(true).write(true);
        options.mode(0o640);
        let output = options.open(temporary(plain))?;
        let comment = input.metadata()?.ino().to_string();
        let output = GzBuilder::new().comment(comment).write(output, Compression::fast());
        Ok(Some(Self { plain: plain.to_owned(), input, output }))
    }

    fn step(mut self) -> io::Result<Option<Self>> {
        let mut input = io::Read::take(&mut self.input, STEP as u64);
        if io::copy(&mut input, &mut self.output)? > 0 {
            return Ok(Some(self));
        }
        self.output.finish()?;
        let mut compressed = self.plain.clone().into_os_string();
        compressed.push(".gz");
        fs_err::rename(temporary(&self.plain), compressed)?;
        remove(&self.plain)?;
        Ok(None)
    }
}

fn temporary(plain: &Path) -> PathBuf {
    let mut name = OsString::from(plain);
    name.push(".gz.tmp");
    name.into()
}
