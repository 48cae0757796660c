//! A SHA-256 that, once much has come, is computed in a thread of its own.

use std::io;
use std::sync::mpsc::{Receiver, SyncSender, channel, sync_channel};
use std::thread::JoinHandle;

use sha2::{Digest as _, Sha256};

/// Bytes after which a thread is worth its start.
const START: u64 = 2 << 20;
/// Bytes that are handed over at once.
const PIECE: usize = 128 << 10;
/// Pieces that may wait.
const QUEUE: usize = 4;

/// A hash in the making.
#[derive(Debug, Default)]
pub(crate) struct Lane {
    hash: Sha256,
    seen: u64,
    thread: Option<Thread>,
    /// There is a thread, or can be none.
    is_settled: bool,
}

#[derive(Debug)]
struct Thread {
    full: SyncSender<Vec<u8>>,
    /// Pieces that were hashed, to be filled again.
    spare: Receiver<Vec<u8>>,
    handle: JoinHandle<Sha256>,
    piece: Vec<u8>,
}

impl Lane {
    /// Adds bytes.
    pub(crate) fn update(&mut self, mut bytes: &[u8]) {
        let Some(thread) = &mut self.thread else {
            self.hash.update(bytes);
            self.seen += bytes.len() as u64;
            if self.seen > START && !self.is_settled {
                self.is_settled = true;
                if std::thread::available_parallelism().is_ok_and(|cores| cores.get() > 1) {
                    self.start();
                }
            }
            return;
        };
        while !bytes.is_empty() {
            let (fits, rest) = bytes.split_at(bytes.len().min(PIECE - thread.piece.len()));
            thread.piece.extend_from_slice(fits);
            bytes = rest;
            if thread.piece.len() == PIECE {
                let spare = thread.spare.try_recv();
                let spare = spare.unwrap_or_else(|_| Vec::with_capacity(PIECE));
                // That the thread is gone shows at the end.
                drop(thread.full.send(std::mem::replace(&mut thread.piece, spare)));
            }
        }
    }

    fn start(&mut self) {
        let (full, pieces) = sync_channel::<Vec<u8>>(QUEUE);
        let (done, spare) = channel();
        let mut hash = self.hash.clone();
        let work = move || {
            for mut piece in pieces {
                hash.update(&piece);
                piece.clear();
                // Nobody takes the last ones.
                drop(done.send(piece));
            }
            hash
        };
        let builder = std::thread::Builder::new().name("hash".into());
        if let Ok(handle) = builder.spawn(work) {
            self.thread = Some(Thread { full, spare, handle, piece: Vec::with_capacity(PIECE) });
        }
    }

    /// The digest of all bytes.
    pub(crate) fn finish(self) -> io::Result<[u8; 32]> {
        let Some(Thread { full, spare, handle, piece }) = self.thread else {
            return Ok(self.hash.finalize().into());
        };
        drop(full.send(piece));
        drop((full, spare));
        let hash = handle.join().map_err(|_| io::Error::other("a panic while hashing"))?;
        Ok(hash.finalize().into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_digest_is_the_same_with_and_without_a_thread() {
        for length in [0, 1, 3 << 20, (9 << 20) + 12_345] {
            let bytes: Vec<u8> = (0..length).map(|at| u8::try_from(at % 251).unwrap()).collect();
            let mut lane = Lane::default();
            bytes.chunks(100_003).for_each(|chunk| lane.update(chunk));
            let expected: [u8; 32] = Sha256::digest(&bytes).into();
            assert_eq!(lane.finish().unwrap(), expected, "{length}");
        }
    }
}
