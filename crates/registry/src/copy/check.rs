//! Reading blobs, and finding out whether they are what they are called.

use std::io::{self, Read};

use bytes::{Buf as _, Bytes};
use sha2::{Digest as _, Sha256};
use silo_oci::image::Descriptor;
use silo_types::Digest;

use super::CopyError;
use super::source::Feed;
use crate::progress::Meter;

/// Reads a feed, and checks what comes.
pub(super) struct Checked {
    feed: Feed,
    piece: Bytes,
    pub(super) at: u64,
    pub(super) wanted: Descriptor,
    /// Of everything, if it was seen from the beginning.
    pub(super) hash: Option<Sha256>,
    meter: Option<Meter>,
    /// Why it could not be read on.
    pub(super) failure: Option<CopyError>,
}

impl Checked {
    pub(super) fn at(feed: Feed, blob: &Descriptor, at: u64) -> Self {
        Self {
            feed,
            piece: Bytes::new(),
            at,
            wanted: blob.clone(),
            hash: (at == 0).then(Sha256::new),
            meter: None,
            failure: None,
        }
    }

    pub(super) fn new(feed: Feed, blob: &Descriptor, meter: Meter) -> Self {
        Self { meter: Some(meter), ..Self::at(feed, blob, 0) }
    }

    pub(super) fn next(&mut self) -> Result<Bytes, CopyError> {
        match self.feed.blocking_recv() {
            Some(Ok(piece)) => {
                self.at += piece.len() as u64;
                if let Some(hash) = &mut self.hash {
                    hash.update(&piece);
                }
                if let Some(meter) = &mut self.meter {
                    meter.at(self.at);
                }
                // The last piece is not given before all is known to be right.
                if self.at >= self.wanted.size {
                    self.end()?;
                }
                Ok(piece)
            }
            Some(Err(error)) => Err(error),
            None => self.end().map(|()| Bytes::new()),
        }
    }

    /// Whether all has come, and is right.
    pub(super) fn end(&mut self) -> Result<(), CopyError> {
        let expected = self.wanted.digest;
        if self.at != self.wanted.size {
            let reason = format!("it ends after {} of {} bytes", self.at, self.wanted.size);
            return Err(CopyError::Content { expected, reason });
        }
        let Some(hash) = self.hash.take() else { return Ok(()) };
        let actual = Digest::from_sha256(hash.finalize().into());
        if actual != expected {
            let reason = format!("its digest is {actual}");
            return Err(CopyError::Content { expected, reason });
        }
        Ok(())
    }
}

impl Read for Checked {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.piece.is_empty() && !buffer.is_empty() {
            match self.next() {
                Ok(piece) => self.piece = piece,
                Err(error) => {
                    self.failure = Some(error);
                    return Err(io::Error::other("the source failed"));
                }
            }
        }
        let count = buffer.len().min(self.piece.len());
        self.piece.copy_to_slice(&mut buffer[..count]);
        Ok(count)
    }
}
