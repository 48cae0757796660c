//! Reading a file here and there, with a bound on all of it.

use std::collections::HashMap;
use std::io;

use crate::Error;

/// Bytes that are read at once.
const PAGE: usize = 16 << 10;
/// Most bytes that are read of one file, and most that are handed out of it.
const LIMIT: usize = 16 << 20;

/// A file, read at offsets.
pub trait Source: std::fmt::Debug {
    /// Its length in bytes.
    fn length(&self) -> io::Result<u64>;
    /// Reads from `offset` on; less than the buffer holds only at the end.
    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<usize>;
}

impl Source for &[u8] {
    fn length(&self) -> io::Result<u64> {
        Ok(self.len() as u64)
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<usize> {
        let rest = usize::try_from(offset).ok().and_then(|offset| self.get(offset..));
        let rest = rest.unwrap_or_default();
        let count = rest.len().min(buffer.len());
        buffer[..count].copy_from_slice(&rest[..count]);
        Ok(count)
    }
}

impl Source for std::fs::File {
    fn length(&self) -> io::Result<u64> {
        Ok(self.metadata()?.len())
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<usize> {
        let mut done = 0;
        while done < buffer.len() {
            let at = offset.checked_add(done as u64).ok_or(io::ErrorKind::InvalidInput)?;
            match std::os::unix::fs::FileExt::read_at(self, &mut buffer[done..], at) {
                Ok(0) => break,
                Ok(count) => done += count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(done)
    }
}

/// Reads pages once, and only so many.
#[derive(Debug)]
pub(crate) struct Reader<'a> {
    source: &'a dyn Source,
    length: u64,
    pages: HashMap<u64, Vec<u8>>,
    /// Bytes that may still be read, and handed out.
    left: usize,
}

impl<'a> Reader<'a> {
    pub(crate) fn new(source: &'a dyn Source) -> Result<Self, Error> {
        Ok(Self { source, length: source.length()?, pages: HashMap::new(), left: LIMIT })
    }

    pub(crate) fn len(&self) -> u64 {
        self.length
    }

    fn spend(&mut self, count: usize) -> Result<(), Error> {
        self.left = self.left.checked_sub(count).ok_or(Error::TooMany("parts"))?;
        Ok(())
    }

    fn page(&mut self, number: u64) -> Result<&[u8], Error> {
        if !self.pages.contains_key(&number) {
            self.spend(PAGE)?;
            let mut page = vec![0; PAGE];
            let count = self.source.read_at(number * PAGE as u64, &mut page)?;
            page.truncate(count);
            self.pages.insert(number, page);
        }
        Ok(self.pages.get(&number).map_or(&[], Vec::as_slice))
    }

    /// Exactly `length` bytes from `at` on.
    pub(crate) fn bytes(&mut self, at: u64, length: usize) -> Result<Vec<u8>, Error> {
        const CUT: Error = Error::Damaged("it is cut off");
        let end = at.checked_add(length as u64).filter(|end| *end <= self.length).ok_or(CUT)?;
        self.spend(length)?;
        let mut bytes = Vec::with_capacity(length);
        let mut at = at;
        while at < end {
            let within = usize::try_from(at % PAGE as u64).unwrap_or(0);
            let wanted = usize::try_from(end - at).unwrap_or(usize::MAX).min(PAGE - within);
            let page = self.page(at / PAGE as u64)?;
            // The file may have become shorter meanwhile.
            bytes.extend_from_slice(page.get(within..within + wanted).ok_or(CUT)?);
            at += wanted as u64;
        }
        Ok(bytes)
    }

    fn array<const N: usize>(&mut self, at: u64) -> Result<[u8; N], Error> {
        let bytes = self.bytes(at, N)?;
        bytes.first_chunk().copied().ok_or(Error::Damaged("it is cut off"))
    }

    pub(crate) fn u16(&mut self, at: u64) -> Result<u16, Error> {
        self.array(at).map(u16::from_le_bytes)
    }

    pub(crate) fn u32(&mut self, at: u64) -> Result<u32, Error> {
        self.array(at).map(u32::from_le_bytes)
    }

    pub(crate) fn u64(&mut self, at: u64) -> Result<u64, Error> {
        self.array(at).map(u64::from_le_bytes)
    }

    /// A text that a zero byte ends, of at most `limit` bytes. Anything but printable ASCII is
    /// refused: names of libraries and functions have nothing else.
    pub(crate) fn text(&mut self, at: u64, limit: usize) -> Result<String, Error> {
        const STEP: u64 = 64;
        let mut text = Vec::new();
        while text.len() <= limit {
            let step = STEP.min(self.length.saturating_sub(at.saturating_add(text.len() as u64)));
            let step = usize::try_from(step).unwrap_or(0);
            if step == 0 {
                return Err(Error::Damaged("a name is cut off"));
            }
            let piece = self.bytes(at.saturating_add(text.len() as u64), step)?;
            let end = piece.iter().position(|byte| *byte == 0);
            text.extend_from_slice(&piece[..end.unwrap_or(step)]);
            if end.is_some() {
                if text.len() > limit || !text.iter().all(|byte| matches!(byte, b' '..=b'~')) {
                    break;
                }
                return String::from_utf8(text).map_err(|_| Error::Damaged("a name is no text"));
            }
        }
        Err(Error::Damaged("a name is no text"))
    }
}

/// Where `needle` is.
pub(crate) fn position(bytes: &[u8], needle: &[u8]) -> Option<usize> {
    let (first, rest) = needle.split_first()?;
    let mut from = 0;
    while let Some(found) = bytes.get(from..)?.iter().position(|byte| byte == first) {
        let at = from + found;
        if bytes[at + 1..].starts_with(rest) {
            return Some(at);
        }
        from = at + 1;
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_cross_pages() {
        let mut file = vec![7_u8; PAGE * 2];
        file[PAGE - 2..PAGE + 3].copy_from_slice(b"abcd\0");
        let source = &file[..];
        let mut reader = Reader::new(&source).unwrap();
        let at = (PAGE - 2) as u64;
        assert_eq!(reader.text(at, 9).unwrap(), "abcd");
        assert_eq!(reader.u32(at).unwrap(), u32::from_le_bytes(*b"abcd"));
        assert!(reader.text(at, 3).is_err(), "longer than it may be");
        assert!(reader.text(0, 50).is_err(), "no text");
        assert!(reader.bytes(PAGE as u64, PAGE + 1).is_err());
        assert!(reader.u64(u64::MAX - 1).is_err());
        assert!(reader.text(u64::MAX - 1, 9).is_err());
    }

    #[test]
    fn all_that_is_read_has_a_limit() {
        let file = vec![7_u8; 1 << 20];
        let source = &file[..];
        let mut reader = Reader::new(&source).unwrap();
        let count = (0..100).take_while(|_| reader.bytes(0, 1 << 20).is_ok()).count();
        assert!(count < 17, "{count}");
    }

    #[test]
    fn needles() {
        for (hay, needle, at) in
            [("aab", "ab", Some(1)), ("ab", "abc", None), ("", "a", None), ("a", "", None)]
        {
            assert_eq!(position(hay.as_bytes(), needle.as_bytes()), at, "{hay} {needle}");
        }
    }
}
