//! Gzip by all processors.
//!
//! As pigz does: blocks of a fixed size are compressed side by side, each with the end of the one
//! before as its dictionary, and put together to one member (RFC 1952). What comes out depends on
//! what goes in alone, not on the number of processors.

use std::collections::VecDeque;
use std::io::{self, Write};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};

use flate2::{Compress, Compression, Crc, FlushCompress, Status};

/// Bytes that are compressed at once.
const BLOCK: usize = 128 << 10;
/// How far back deflate looks.
const WINDOW: usize = 32 << 10;
/// A member with neither name nor time, of an unknown system.
const HEADER: [u8; 10] = [0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 0xff];

/// One block on its way.
#[derive(Debug)]
struct Job {
    dictionary: Vec<u8>,
    block: Vec<u8>,
    is_last: bool,
    done: SyncSender<io::Result<Vec<u8>>>,
}

/// Compresses what is written, at the level that Docker uses. Without [`finish`](Self::finish),
/// the stream is not whole.
#[derive(Debug)]
pub struct GzipWriter<W: Write> {
    output: W,
    crc: Crc,
    begun: bool,
    block: Vec<u8>,
    dictionary: Vec<u8>,
    jobs: Option<SyncSender<Job>>,
    /// Blocks in their order.
    waiting: VecDeque<Receiver<io::Result<Vec<u8>>>>,
    threads: usize,
}

impl<W: Write> GzipWriter<W> {
    /// Compresses to `output`.
    pub fn new(output: W) -> Self {
        let threads = std::thread::available_parallelism().map_or(1, usize::from);
        Self::with_threads(output, threads)
    }

    /// The same by so many threads; one is the caller's own.
    pub fn with_threads(output: W, threads: usize) -> Self {
        Self {
            output,
            crc: Crc::new(),
            begun: false,
            block: Vec::with_capacity(BLOCK),
            dictionary: Vec::new(),
            jobs: None,
            waiting: VecDeque::new(),
            threads,
        }
    }

    /// Threads that live as long as there is something to do.
    fn start(&mut self) {
        let (sender, receiver) = sync_channel::<Job>(self.threads);
        let receiver = Arc::new(Mutex::new(receiver));
        for _ in 0..self.threads {
            let jobs = Arc::clone(&receiver);
            let work = move || {
                loop {
                    let job = jobs.lock().unwrap_or_else(PoisonError::into_inner).recv();
                    let Ok(job) = job else { return };
                    let made = deflate(&job.dictionary, &job.block, job.is_last);
                    // One that fails has nobody who waits for the rest.
                    drop(job.done.send(made));
                }
            };
            // With no thread at all, the first job has nobody to take it, which is an error.
            drop(std::thread::Builder::new().name("gzip".into()).spawn(work));
        }
        self.jobs = Some(sender);
    }

    fn submit(&mut self, is_last: bool) -> io::Result<()> {
        if !self.begun {
            self.begun = true;
            self.output.write_all(&HEADER)?;
        }
        let block = std::mem::replace(&mut self.block, Vec::with_capacity(BLOCK));
        self.crc.update(&block);
        let tail = block[block.len().saturating_sub(WINDOW)..].to_vec();
        let dictionary = std::mem::replace(&mut self.dictionary, tail);
        // What fits into one block is not worth a thread.
        if self.threads > 1 && self.jobs.is_none() && !is_last {
            self.start();
        }
        let Some(jobs) = &self.jobs else {
            let made = deflate(&dictionary, &block, is_last)?;
            return self.output.write_all(&made);
        };
        let (done, made) = sync_channel(1);
        jobs.send(Job { dictionary, block, is_last, done }).map_err(|_| ended())?;
        self.waiting.push_back(made);
        while self.waiting.len() > self.threads + 2 {
            self.take()?;
        }
        Ok(())
    }

    /// Writes the next block.
    fn take(&mut self) -> io::Result<()> {
        let Some(made) = self.waiting.pop_front() else { return Ok(()) };
        let made = made.recv().map_err(|_| ended())??;
        self.output.write_all(&made)
    }

    /// Writes what is left; gives the output.
    pub fn finish(mut self) -> io::Result<W> {
        self.submit(true)?;
        while !self.waiting.is_empty() {
            self.take()?;
        }
        self.output.write_all(&self.crc.sum().to_le_bytes())?;
        self.output.write_all(&self.crc.amount().to_le_bytes())?;
        Ok(self.output)
    }
}

fn ended() -> io::Error {
    io::Error::other("the threads that compress have ended")
}

impl<W: Write> Write for GzipWriter<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        // One that is full waits, for it may be the last.
        if self.block.len() == BLOCK {
            self.submit(false)?;
        }
        let count = bytes.len().min(BLOCK - self.block.len());
        self.block.extend_from_slice(&bytes[..count]);
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// One block as deflate has it (RFC 1951), up to the end of a byte, or of the stream.
fn deflate(dictionary: &[u8], block: &[u8], is_last: bool) -> io::Result<Vec<u8>> {
    let mut compress = Compress::new(Compression::default(), false);
    if !dictionary.is_empty() {
        compress.set_dictionary(dictionary).map_err(io::Error::other)?;
    }
    let flush = if is_last { FlushCompress::Finish } else { FlushCompress::Sync };
    let mut made = Vec::with_capacity(block.len() / 2 + 1024);
    loop {
        let taken = usize::try_from(compress.total_in()).map_err(io::Error::other)?;
        let status = compress.compress_vec(&block[taken..], &mut made, flush);
        let status = status.map_err(io::Error::other)?;
        let is_done = if is_last {
            status == Status::StreamEnd
        } else {
            // Room that is left shows that nothing waits for more of it.
            compress.total_in() == block.len() as u64 && made.len() < made.capacity()
        };
        if is_done {
            return Ok(made);
        }
        made.reserve(block.len() / 2 + 1024);
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read as _;

    use super::*;

    fn made(bytes: &[u8], threads: usize) -> Vec<u8> {
        let mut writer = GzipWriter::with_threads(Vec::new(), threads);
        for piece in bytes.chunks(70_001) {
            writer.write_all(piece).unwrap();
        }
        writer.finish().unwrap()
    }

    #[test]
    fn what_goes_in_comes_out_whatever_the_number_of_threads() {
        let mut state = 1_u32;
        let noise: Vec<u8> = std::iter::repeat_with(|| {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            state.to_le_bytes()[3]
        })
        .take(700_000)
        .collect();
        let text: Vec<u8> =
            (0..900_000_u32).flat_map(|number| number.to_string().into_bytes()).collect();
        for bytes in [
            &b""[..],
            b"short",
            &text[..BLOCK - 1],
            &text[..BLOCK],
            &text[..=BLOCK],
            &text[..2 * BLOCK],
            &noise,
            &text,
        ] {
            let one = made(bytes, 1);
            for threads in [2, 5] {
                assert!(made(bytes, threads) == one, "{} bytes, {threads}", bytes.len());
            }
            let mut back = Vec::new();
            // One member, and nothing behind it.
            let mut decoder = flate2::bufread::GzDecoder::new(&one[..]);
            decoder.read_to_end(&mut back).unwrap();
            assert!(back == bytes, "{} bytes", bytes.len());
            assert!(decoder.into_inner().is_empty());
        }
        // Blocks know what came before them.
        let repeated: Vec<u8> = noise[..20_000].repeat(40);
        assert!(made(&repeated, 3).len() < 60_000);
    }

    #[test]
    fn an_output_that_fails_ends_it() {
        struct Full;
        impl Write for Full {
            fn write(&mut self, _: &[u8]) -> io::Result<usize> {
                Err(io::ErrorKind::StorageFull.into())
            }
            fn flush(&mut self) -> io::Result<()> {
                Ok(())
            }
        }
        let mut writer = GzipWriter::with_threads(Full, 2);
        let failed = writer.write_all(&vec![7; 3 << 20]);
        assert_eq!(failed.unwrap_err().kind(), io::ErrorKind::StorageFull);
    }
}
