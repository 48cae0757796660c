//! Bridges between bodies, which are asynchronous, and the blocking readers and writers of tar.

use std::io::{self, Read, Write};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http_body_util::BodyExt;
use silo_types::Error;
use tokio::sync::mpsc;

use crate::request_body::RequestBody;

/// Bytes that are written to a client at a time.
const CHUNK: usize = 128 * 1024;

/// How long the rest of a body is waited for that nobody reads.
const REST: Duration = Duration::from_secs(30);

/// A request's body for a blocking reader. What comes after the reader is dropped is thrown away
/// for a while: many clients look at an answer only when they have sent everything, and never see
/// it if the connection ends before.
pub(crate) struct BodyReader {
    frames: mpsc::Receiver<io::Result<Bytes>>,
    current: Bytes,
}

impl BodyReader {
    pub(crate) fn new(mut body: RequestBody) -> Self {
        let (sender, frames) = mpsc::channel(8);
        tokio::spawn(async move {
            while let Some(frame) = body.frame().await {
                let item = match frame {
                    Ok(frame) => match frame.into_data() {
                        Ok(data) => Ok(data),
                        Err(_) => continue,
                    },
                    Err(error) => Err(io::Error::other(error)),
                };
                if item.is_err() {
                    drop(sender.send(item).await);
                    return;
                }
                if sender.send(item).await.is_err() {
                    let rest = async { while let Some(Ok(_)) = body.frame().await {} };
                    drop(tokio::time::timeout(REST, rest).await);
                    return;
                }
            }
        });
        Self { frames, current: Bytes::new() }
    }
}

impl Read for BodyReader {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.current.is_empty() {
            match self.frames.blocking_recv() {
                Some(frame) => self.current = frame?,
                None => return Ok(0),
            }
        }
        let count = buffer.len().min(self.current.len());
        buffer[..count].copy_from_slice(&self.current.split_to(count));
        Ok(count)
    }
}

/// A blocking writer into an answer's body.
pub(crate) struct ChannelWriter {
    sender: mpsc::Sender<io::Result<Bytes>>,
    buffer: BytesMut,
}

impl ChannelWriter {
    pub(crate) fn new(sender: mpsc::Sender<io::Result<Bytes>>) -> Self {
        Self { sender, buffer: BytesMut::with_capacity(CHUNK) }
    }

    fn send(&mut self) -> io::Result<()> {
        if self.buffer.is_empty() {
            return Ok(());
        }
        let chunk = self.buffer.split().freeze();
        self.buffer.reserve(CHUNK);
        self.sender.blocking_send(Ok(chunk)).map_err(|_| io::ErrorKind::BrokenPipe.into())
    }

    /// Sends what is left.
    pub(crate) fn finish(mut self) {
        if let Err(error) = self.send() {
            tracing::debug!(%error, "client went away");
        }
    }

    /// Breaks the body off, so that the client sees that it is not whole.
    pub(crate) fn fail(mut self, error: &Error) {
        drop(self.send());
        drop(self.sender.blocking_send(Err(io::Error::other(error.chain()))));
    }
}

impl Write for ChannelWriter {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let count = bytes.len().min(CHUNK - self.buffer.len());
        self.buffer.extend_from_slice(&bytes[..count]);
        if self.buffer.len() == CHUNK {
            self.send()?;
        }
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.send()
    }
}
