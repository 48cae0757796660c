//! The body of an answer for code that blocks.

use std::io;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::BodyExt;
use hyper::body::{Body as _, Incoming};
use hyper::{HeaderMap, Response, Uri};
use tokio::sync::mpsc;

use crate::Cause;

/// Pieces that may wait for a slow reader.
const PIECES: usize = 8;

/// An answer whose body is still to be read.
#[derive(Debug)]
pub struct Download {
    url: Uri,
    headers: HeaderMap,
    body: Incoming,
    stall: Duration,
}

impl Download {
    pub(crate) fn new(url: Uri, response: Response<Incoming>, stall: Duration) -> Self {
        let (parts, body) = response.into_parts();
        Self { url, headers: parts.headers, body, stall }
    }

    /// Where it came from, after all redirects.
    pub fn url(&self) -> &Uri {
        &self.url
    }

    /// The answer's headers.
    pub fn headers(&self) -> &HeaderMap {
        &self.headers
    }

    /// The length of the body in bytes, if the server says it.
    pub fn length(&self) -> Option<u64> {
        self.body.size_hint().exact()
    }

    /// A reader for a thread that may block. Must be called within the runtime, which fetches
    /// ahead; dropping the reader ends the download.
    pub fn into_reader(self) -> Reader {
        let (sender, pieces) = mpsc::channel(PIECES);
        tokio::spawn(self.pump(sender));
        Reader { pieces, current: Bytes::new(), ended: false }
    }

    async fn pump(mut self, sender: mpsc::Sender<io::Result<Bytes>>) {
        loop {
            let frame = tokio::select! {
                frame = tokio::time::timeout(self.stall, self.body.frame()) => frame,
                () = sender.closed() => return,
            };
            let piece = match frame {
                // The empty piece is the end: a channel that is only closed is a broken one.
                Ok(None) => Ok(Bytes::new()),
                Ok(Some(Ok(frame))) => match frame.into_data() {
                    Ok(data) if !data.is_empty() => Ok(data),
                    _ => continue,
                },
                Ok(Some(Err(error))) => {
                    Err(io::Error::other(Cause::of(&error, &self.url).to_string()))
                }
                Err(_) => Err(io::Error::new(
                    io::ErrorKind::TimedOut,
                    Cause::Timeout("response body").to_string(),
                )),
            };
            let last = piece.as_ref().map_or(true, Bytes::is_empty);
            if sender.send(piece).await.is_err() || last {
                return;
            }
        }
    }
}

/// Reads a download. Ends early with an error, never with a short stream.
#[derive(Debug)]
pub struct Reader {
    pieces: mpsc::Receiver<io::Result<Bytes>>,
    current: Bytes,
    ended: bool,
}

impl io::Read for Reader {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.current.is_empty() && !self.ended {
            match self.pieces.blocking_recv() {
                Some(piece) => {
                    self.current = piece?;
                    self.ended = self.current.is_empty();
                }
                None => return Err(io::ErrorKind::UnexpectedEof.into()),
            }
        }
        let count = buffer.len().min(self.current.len());
        buffer[..count].copy_from_slice(&self.current.split_to(count));
        Ok(count)
    }
}
