//! A bounded pipe between two threads that hands over whole buffers, and gets them back.

use std::io::{self, BufRead, Read, Write};
use std::sync::mpsc::{Receiver, Sender, SyncSender, channel, sync_channel};

/// How many buffers may wait in a pipe.
const DEPTH: usize = 6;
/// How much [`Write`] gathers before it hands over.
const GATHER: usize = 128 << 10;

type Piece = io::Result<Vec<u8>>;

/// The end that bytes go into. Dropped without [`finish`](Self::finish), the other end sees
/// an error, never a short stream.
#[derive(Debug)]
pub struct PipeWriter {
    sender: Option<SyncSender<Piece>>,
    used: Receiver<Vec<u8>>,
    gathered: Vec<u8>,
}

/// The end that bytes come out of.
#[derive(Debug)]
pub struct PipeReader {
    receiver: Receiver<Piece>,
    used: Sender<Vec<u8>>,
    current: Vec<u8>,
    position: usize,
    ended: bool,
}

/// A pipe.
pub fn pipe() -> (PipeWriter, PipeReader) {
    let (sender, receiver) = sync_channel(DEPTH);
    let (give_back, used) = channel();
    let writer = PipeWriter { sender: Some(sender), used, gathered: Vec::new() };
    let reader =
        PipeReader { receiver, used: give_back, current: Vec::new(), position: 0, ended: false };
    (writer, reader)
}

impl PipeWriter {
    /// A buffer to be filled, used before if there is one; its contents are arbitrary.
    pub fn piece(&self) -> Vec<u8> {
        self.used.try_recv().unwrap_or_default()
    }

    /// Hands a buffer over, waiting while the pipe is full. Fails when the reader is gone.
    pub fn send(&mut self, piece: Vec<u8>) -> io::Result<()> {
        // An empty one would be the end of the stream.
        if piece.is_empty() {
            return Ok(());
        }
        if !self.gathered.is_empty() {
            self.flush()?;
        }
        self.push(piece)
    }

    fn push(&mut self, piece: Vec<u8>) -> io::Result<()> {
        let sender = self.sender.as_ref().ok_or(io::ErrorKind::BrokenPipe)?;
        sender.send(Ok(piece)).map_err(|_| io::ErrorKind::BrokenPipe.into())
    }

    /// Ends the stream well.
    pub fn finish(mut self) {
        if self.flush().is_ok()
            && let Some(sender) = self.sender.take()
        {
            // A reader that is gone does not want to know.
            drop(sender.send(Ok(Vec::new())));
        }
    }

    /// Ends the stream with an error for the reader.
    pub fn fail(mut self, error: io::Error) {
        if let Some(sender) = self.sender.take() {
            drop(sender.send(Err(error)));
        }
    }
}

impl Write for PipeWriter {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.gathered.capacity() == 0 {
            self.gathered = self.piece();
            self.gathered.clear();
            self.gathered.reserve(GATHER);
        }
        let count = bytes.len().min(GATHER - self.gathered.len());
        self.gathered.extend_from_slice(&bytes[..count]);
        if self.gathered.len() == GATHER {
            self.flush()?;
        }
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        if self.gathered.is_empty() {
            return Ok(());
        }
        let piece = std::mem::take(&mut self.gathered);
        self.push(piece)
    }
}

impl Read for PipeReader {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let mut bytes = self.fill_buf()?;
        let count = bytes.read(buffer)?;
        self.consume(count);
        Ok(count)
    }
}

impl BufRead for PipeReader {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        if self.position == self.current.len() && !self.ended {
            let old = std::mem::take(&mut self.current);
            self.position = 0;
            if old.capacity() > 0 {
                drop(self.used.send(old));
            }
            match self.receiver.recv() {
                Ok(Ok(piece)) if piece.is_empty() => self.ended = true,
                Ok(Ok(piece)) => self.current = piece,
                Ok(Err(error)) => return Err(error),
                Err(_) => {
                    return Err(io::Error::new(
                        io::ErrorKind::UnexpectedEof,
                        "the source of a stream ended early",
                    ));
                }
            }
        }
        Ok(&self.current[self.position..])
    }

    fn consume(&mut self, count: usize) {
        self.position = (self.position + count).min(self.current.len());
    }
}
