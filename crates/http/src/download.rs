//! The body of an answer for code that blocks.

use std::io;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::BodyExt;
use hyper::body::{Body as _, Incoming};
use hyper::{HeaderMap, Response, Uri};
use tokio::sync::mpsc;

use crate::{Cause, Error};

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
    /// The body of the answer that `url` gave; it may be silent for as long as `stall`.
    pub fn new(url: Uri, response: Response<Incoming>, stall: Duration) -> Self {
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

    /// The next piece, which is not empty; `None` at the end.
    pub async fn next(&mut self) -> Result<Option<Bytes>, Error> {
        let failed = |cause| Error::Body { url: self.url.to_string(), cause };
        loop {
            let Ok(frame) = tokio::time::timeout(self.stall, self.body.frame()).await else {
                return Err(failed(Cause::Timeout("response body")));
            };
            match frame {
                None => return Ok(None),
                Some(Ok(frame)) => match frame.into_data() {
                    Ok(data) if !data.is_empty() => return Ok(Some(data)),
                    _ => {}
                },
                Some(Err(error)) => return Err(failed(Cause::of(&error, &self.url))),
            }
        }
    }

    async fn pump(mut self, sender: mpsc::Sender<io::Result<Bytes>>) {
        loop {
            let next = tokio::select! {
                next = self.next() => next,
                () = sender.closed() => return,
            };
            let piece = match next {
                // The empty piece is the end: a channel that is only closed is a broken one.
                Ok(piece) => Ok(piece.unwrap_or_default()),
                Err(Error::Body { cause: cause @ Cause::Timeout(_), .. }) => {
                    Err(io::Error::new(io::ErrorKind::TimedOut, cause.to_string()))
                }
                Err(Error::Body { cause, .. }) => Err(io::Error::other(cause.to_string())),
                Err(error) => Err(io::Error::other(error)),
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
