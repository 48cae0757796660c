//! A context that comes as a tar, as with the classic `POST /build`.

use std::io::{self, Read};
use std::sync::Arc;

use silo_archive::{Compression, compress};
use silo_dockerfile::ignore::Patterns;
use silo_types::Error;

use crate::Boxed;
use crate::builder::Builder;
use crate::context::{Context, Filter, Transfer, Tree};
use crate::fetch;

/// A block of a tar.
const BLOCK: u64 = 512;

/// A tar with an end. That of docker's command line, where it adds a Dockerfile of its own, stops
/// after the last byte of the last file, which Go's reader takes for whole; that the connection
/// was not cut is known from its framing.
struct Padded<R> {
    input: R,
    read: u64,
    /// Zeros that are still to come, at the end.
    left: Option<u64>,
}

impl<R: Read> Read for Padded<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.left.is_none() {
            let count = self.input.read(buffer)?;
            self.read += count as u64;
            if count > 0 || buffer.is_empty() {
                return Ok(count);
            }
        }
        let end = self.read.next_multiple_of(BLOCK) - self.read + 2 * BLOCK;
        let left = self.left.get_or_insert(end);
        let count = usize::try_from(*left).unwrap_or(usize::MAX).min(buffer.len());
        buffer[..count].fill(0);
        *left -= count as u64;
        Ok(count)
    }
}

/// A context that was unpacked.
#[derive(Debug)]
pub struct TarContext {
    tree: Arc<Tree>,
}

impl Builder {
    /// Unpacks a context, compressed or not, into a private directory, which goes with the
    /// context. Blocks.
    ///
    /// Clients send the Dockerfile and `.dockerignore` even where the latter leaves them out; as
    /// with dockerd they are then no part of the context, but can be read.
    pub fn unpack(&self, input: impl Read + Send) -> Result<TarContext, Error> {
        let (compression, input) = compress::detect(input)
            .map_err(|error| Error::invalid(format!("cannot read the context: {error}")))?;
        let scratch = self.scratch()?;
        let tree = match compression {
            Compression::None => fetch::unpack(scratch, Padded { input, read: 0, left: None })?,
            _ => fetch::unpack(scratch, input)?,
        };
        Ok(TarContext { tree: Arc::new(tree) })
    }
}

impl TarContext {
    /// Takes files away that `.dockerignore` leaves out, of those that are named.
    pub fn drop_ignored(&self, names: &[&str]) -> Result<(), Error> {
        let limit = 1 << 20;
        let text =
            silo_sys::path::read_regular_file_in_root(self.tree.root(), ".dockerignore", limit);
        let Ok(Some(text)) = text else { return Ok(()) };
        let Ok(patterns) = Patterns::parse(&text) else { return Ok(()) };
        for name in names {
            if patterns.matches(name)
                && let Ok((parent, last)) = silo_sys::path::parent_in_root(self.tree.root(), name)
            {
                silo_sys::path::remove_all_at(parent, last).map_err(|error| {
                    Error::internal(format!("leave {name} out of the context: {error}"))
                })?;
            }
        }
        Ok(())
    }

    /// Reads a file of the context, if it is there.
    pub fn read(&self, path: &str) -> Option<Vec<u8>> {
        let limit = silo_dockerfile::MAX_FILE as u64;
        silo_sys::path::read_regular_file_in_root(self.tree.root(), path, limit).ok().flatten()
    }
}

impl Context for TarContext {
    fn tree<'a>(
        &'a self,
        _filter: &'a Filter,
        _transfer: &'a Transfer<'a>,
    ) -> Boxed<'a, Result<Arc<Tree>, Error>> {
        Box::pin(async { Ok(Arc::clone(&self.tree)) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn archives_get_an_end() {
        for length in [0, 1, 511, 512, 2598] {
            let bytes = vec![7_u8; length];
            let mut all = Vec::new();
            Padded { input: &bytes[..], read: 0, left: None }.read_to_end(&mut all).unwrap();
            assert_eq!(all.len(), length.next_multiple_of(512) + 1024);
            assert!(all.starts_with(&bytes) && all[length..].iter().all(|byte| *byte == 0));
        }
    }
}
