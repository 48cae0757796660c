//! File contents kept in one temporary file without a name, so that hundreds of megabytes are
//! neither in memory nor left behind.

use std::io::{self, Read, Write};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Mutex;

/// Contents, written once and read by place.
#[derive(Debug)]
pub struct Spool {
    file: std::fs::File,
    end: Mutex<u64>,
}

/// Where a content lies in its spool.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Content {
    offset: u64,
    /// Its size in bytes.
    pub size: u64,
}

impl Spool {
    /// A spool on the file system of `directory`.
    pub fn new(directory: &Path) -> io::Result<Self> {
        Ok(Self { file: tempfile::tempfile_in(directory)?, end: Mutex::new(0) })
    }

    /// Keeps a content.
    pub fn add(&self, bytes: &[u8]) -> io::Result<Content> {
        let size = bytes.len() as u64;
        let offset = {
            let mut end = self.end.lock().map_err(|_| io::Error::other("a writer panicked"))?;
            let offset = *end;
            *end += size;
            offset
        };
        self.file.write_all_at(bytes, offset)?;
        Ok(Content { offset, size })
    }

    /// Keeps what a reader has.
    pub fn copy(&self, reader: &mut dyn Read, size: u64) -> io::Result<Content> {
        let offset = {
            let mut end = self.end.lock().map_err(|_| io::Error::other("a writer panicked"))?;
            let offset = *end;
            *end += size;
            offset
        };
        let mut at = offset;
        let mut buffer = vec![0; 128 << 10];
        let mut reader = reader.take(size);
        loop {
            match reader.read(&mut buffer) {
                Ok(0) if at == offset + size => return Ok(Content { offset, size }),
                Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(count) => {
                    self.file.write_all_at(&buffer[..count], at)?;
                    at += count as u64;
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
    }

    /// A whole content.
    pub fn get(&self, content: Content) -> io::Result<Vec<u8>> {
        let size = usize::try_from(content.size).map_err(io::Error::other)?;
        let mut bytes = vec![0; size];
        self.file.read_exact_at(&mut bytes, content.offset)?;
        Ok(bytes)
    }

    /// A content as a stream.
    pub fn reader(&self, content: Content) -> impl Read + '_ {
        Reader { spool: self, at: content.offset, left: content.size }
    }

    /// Writes a content out.
    pub fn write(&self, content: Content, out: &mut dyn Write) -> io::Result<()> {
        io::copy(&mut self.reader(content), out).map(drop)
    }
}

struct Reader<'a> {
    spool: &'a Spool,
    at: u64,
    left: u64,
}

impl Read for Reader<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let length = usize::try_from(self.left).unwrap_or(usize::MAX).min(buffer.len());
        let count = self.spool.file.read_at(&mut buffer[..length], self.at)?;
        self.at += count as u64;
        self.left -= count as u64;
        Ok(count)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn contents_come_back() {
        let directory = tempfile::tempdir().unwrap();
        let spool = Spool::new(directory.path()).unwrap();
        let first = spool.add(b"one").unwrap();
        let second = spool.copy(&mut &b"second and more"[..], 6).unwrap();
        assert_eq!(spool.get(first).unwrap(), b"one");
        let mut out = Vec::new();
        spool.write(second, &mut out).unwrap();
        assert_eq!(out, b"second");
        assert!(spool.copy(&mut &b"short"[..], 6).is_err());
        assert_eq!(fs_err::read_dir(directory.path()).unwrap().count(), 0, "it has no name");
    }
}
