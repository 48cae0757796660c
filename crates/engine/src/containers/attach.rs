//! A client's streams: attach, and the attached form of exec.

use std::sync::{Arc, PoisonError};
use std::time::Duration;

use silo_docker::query::AttachQuery;
use silo_shim::AttachStream;
use silo_shim::logs::{LogLine, ReadOptions};
use silo_shim::protocol::{AtEof, AttachOptions, ProcessRef};
use silo_types::{Error, Kind};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::sync::{mpsc, oneshot};

use super::exec::{Exec, Unstarted};
use super::logs;
use crate::container::{Container, WaitingClient};
use crate::detach::{self, Watch};
use crate::engine::Engine;

/// Bytes that are passed on at once.
const PIECE: usize = 32 << 10;
/// How long the end of a process may come after the end of its streams.
const END_PATIENCE: Duration = Duration::from_secs(2);

/// Streams of a process for a client that is connected by a raw connection.
#[derive(Debug)]
pub struct Attachment {
    /// The process has a terminal: bytes go out as they are. Otherwise they go out in Docker's
    /// frames.
    pub tty: bool,
    engine: Arc<Engine>,
    container: Arc<Container>,
    exec: Option<Arc<Exec>>,
    /// Output of the past.
    log: Option<mpsc::Receiver<Result<LogLine, silo_shim::logs::LogError>>>,
    streams: Streams,
    stdin: bool,
    stdout: bool,
    stderr: bool,
    keys: Vec<u8>,
}

#[derive(Debug)]
enum Streams {
    /// Nothing but what is in the log.
    None,
    /// Those of an exec that is started when the client has been answered: some clients lose what
    /// comes together with the answer.
    Exec(Unstarted),
    /// Connected.
    Ready(AttachStream),
    /// The container is not running yet.
    Waiting(oneshot::Receiver<silo_shim::Attached>),
}

/// Takes Docker's frames apart: eight bytes of header with the length last, then the bytes.
#[derive(Debug, Default)]
pub(crate) struct Deframer {
    header: [u8; 8],
    have: usize,
    left: usize,
}

impl Deframer {
    /// Appends the bytes without headers to `out`.
    pub(crate) fn feed(&mut self, mut input: &[u8], out: &mut Vec<u8>) {
        while !input.is_empty() {
            if self.left == 0 {
                let wanted = (self.header.len() - self.have).min(input.len());
                self.header[self.have..self.have + wanted].copy_from_slice(&input[..wanted]);
                self.have += wanted;
                input = &input[wanted..];
                if self.have == self.header.len() {
                    let [_, _, _, _, length @ ..] = self.header;
                    self.left = usize::try_from(u32::from_be_bytes(length)).unwrap_or(0);
                    self.have = 0;
                }
                continue;
            }
            let (now, rest) = input.split_at(self.left.min(input.len()));
            out.extend_from_slice(now);
            self.left -= now.len();
            input = rest;
        }
    }
}

/// A frame around `bytes`; stream 1 is standard output, 2 standard error.
pub(crate) fn frame(stream: u8, bytes: &[u8]) -> Vec<u8> {
    let length = u32::try_from(bytes.len()).unwrap_or(u32::MAX);
    let mut framed = vec![stream, 0, 0, 0];
    framed.extend_from_slice(&length.to_be_bytes());
    framed.extend_from_slice(bytes);
    framed
}

impl Engine {
    /// Attaches a client to a container's first process. A container that does not run is waited
    /// for, so that a client that starts it next misses nothing.
    pub async fn container_attach(
        self: &Arc<Self>,
        name: &str,
        query: AttachQuery,
    ) -> Result<Attachment, Error> {
        let keys = detach::parse(&query.detach_keys)?;
        let container = self.container(name)?;
        // docker wording
        let (up, conflict) = {
            let state = container.state();
            let reason = if state.paused {
                Some("paused, unpause the container before attach")
            } else if state.restarting {
                Some("restarting, wait until the container is running")
            } else {
                None
            };
            (state.running, reason)
        };
        if let Some(reason) = conflict {
            return Err(Error::conflict(format!("container {name} is {reason}")));
        }
        let record = container.record();
        let tty = record.config.tty;
        let options = AttachOptions {
            stdin: query.stdin && record.config.open_stdin,
            stdout: query.stdout,
            stderr: query.stderr && !tty,
            at_eof: if record.config.stdin_once && !tty {
                AtEof::CloseStdin
            } else {
                AtEof::Ignore
            },
            unlogged: query.logs,
        };
        let mut mark = None;
        let streams = if !query.stream {
            Streams::None
        } else if up && let Some(shim) = container.shim() {
            let attached =
                shim.attach(ProcessRef::Init, options).await.map_err(Error::from_kind)?;
            mark = attached.mark;
            Streams::Ready(attached.stream)
        } else {
            let (sender, receiver) = oneshot::channel();
            let waiting = WaitingClient { options, streams: sender };
            container.waiting.lock().unwrap_or_else(PoisonError::into_inner).push(waiting);
            Streams::Waiting(receiver)
        };
        let log = if query.logs {
            let config = super::start::log_config(&container, &record)?;
            let options = ReadOptions { before: mark, ..ReadOptions::default() };
            Some(silo_shim::logs::read(&config, options, std::future::ready(())))
        } else {
            None
        };
        self.container_event(&container, "attach", &[]);
        Ok(Attachment {
            tty,
            engine: Arc::clone(self),
            container,
            exec: None,
            log,
            streams,
            stdin: options.stdin,
            stdout: query.stdout,
            stderr: query.stderr,
            keys: if tty { keys } else { Vec::new() },
        })
    }

    /// Streams of an exec that is about to run.
    pub(crate) fn attachment_of_exec(
        self: &Arc<Self>,
        exec: &Arc<Exec>,
        size: Option<[u32; 2]>,
    ) -> Attachment {
        let request = &exec.request;
        Attachment {
            tty: request.tty,
            engine: Arc::clone(self),
            container: Arc::clone(&exec.container),
            exec: Some(Arc::clone(exec)),
            log: None,
            streams: Streams::Exec(Unstarted::new(exec, size)),
            stdin: request.attach_stdin,
            stdout: request.attach_stdout,
            stderr: request.attach_stderr,
            keys: if request.tty { exec.keys.clone() } else { Vec::new() },
        }
    }

    /// Sets the size of a container's terminal.
    pub async fn container_resize(&self, name: &str, height: u16, width: u16) -> Result<(), Error> {
        let container = self.container(name)?;
        let shim = container.running_shim()?;
        let size = silo_shim::config::ConsoleSize { rows: height, columns: width };
        Self::windows_resize(&container, &ProcessRef::Init, height, width);
        shim.resize(ProcessRef::Init, size).await.map_err(|error| match error.kind() {
            silo_types::ErrorKind::NotFound => container.not_running(),
            _ => Error::from_kind(error),
        })?;
        let (height, width) = (height.to_string(), width.to_string());
        self.container_event(&container, "resize", &[("height", &height), ("width", &width)]);
        Ok(())
    }
}

impl Attachment {
    /// Passes bytes on in both directions until the process's output ends, the client goes, or it
    /// types the detach keys.
    pub async fn run<R, W>(mut self, reader: R, mut writer: W)
    where
        R: AsyncRead + Unpin,
        W: AsyncWrite + Unpin,
    {
        let streams = std::mem::replace(&mut self.streams, Streams::None);
        if self.replay(&mut writer).await.is_err() {
            return;
        }
        let stream = match streams {
            Streams::None => None,
            Streams::Exec(unstarted) => match unstarted.start(&self.engine).await {
                Ok(stream) => stream,
                Err(error) => {
                    let text = format!("{}\r\n", error.message());
                    let bytes =
                        if self.tty { text.into_bytes() } else { frame(1, text.as_bytes()) };
                    // A client that has gone does not read it.
                    drop(writer.write_all(&bytes).await);
                    None
                }
            },
            Streams::Ready(stream) => Some(stream),
            Streams::Waiting(streams) => streams.await.ok().map(|attached| attached.stream),
        };
        if let Some(stream) = stream {
            let detached = self.pass(stream, reader, &mut writer).await;
            if detached {
                match &self.exec {
                    Some(exec) => {
                        let id = exec.id.as_str();
                        self.engine.container_event(
                            &self.container,
                            "exec_detach",
                            &[("execID", id)],
                        );
                    }
                    None => self.engine.container_event(&self.container, "detach", &[]),
                }
            } else if let Some(exec) = &self.exec {
                // Who sees the end of the streams asks for the exit code next.
                drop(tokio::time::timeout(END_PATIENCE, exec.wait()).await);
            }
        }
        drop(writer.shutdown().await);
    }

    /// Writes the output of the past.
    async fn replay<W: AsyncWrite + Unpin>(&mut self, writer: &mut W) -> std::io::Result<()> {
        let Some(mut log) = self.log.take() else { return Ok(()) };
        while let Some(Ok(line)) = log.recv().await {
            let stream = logs::stream_number(line.stream);
            if (stream == 1 && self.stdout) || (stream == 2 && self.stderr) {
                let bytes = if self.tty { line.bytes } else { frame(stream, &line.bytes) };
                writer.write_all(&bytes).await?;
            }
        }
        Ok(())
    }

    /// True when the client typed the detach keys.
    async fn pass<R, W>(&self, stream: AttachStream, mut reader: R, writer: &mut W) -> bool
    where
        R: AsyncRead + Unpin,
        W: AsyncWrite + Unpin,
    {
        let (mut from_process, mut to_process) = stream.into_split();
        let input = async {
            let mut watch = Watch::new(self.keys.clone());
            let (mut buffer, mut pass_on) = (vec![0; PIECE], Vec::new());
            loop {
                let count = match reader.read(&mut buffer).await {
                    Ok(0) => {
                        // The end of input is passed on; the output goes on.
                        drop(to_process.shutdown().await);
                        return std::future::pending::<bool>().await;
                    }
                    Ok(count) => count,
                    // The client is gone.
                    Err(_) => return false,
                };
                if !self.stdin {
                    continue;
                }
                pass_on.clear();
                let detached = watch.feed(&buffer[..count], &mut pass_on);
                if !pass_on.is_empty() && to_process.write_all(&pass_on).await.is_err() {
                    // The process takes no more input, but may still write.
                    return std::future::pending::<bool>().await;
                }
                if detached {
                    return true;
                }
            }
        };
        let output = async {
            let mut deframer = self.tty.then(Deframer::default);
            let (mut buffer, mut plain) = (vec![0; PIECE], Vec::new());
            loop {
                let count = match from_process.read(&mut buffer).await {
                    Ok(0) | Err(_) => return false,
                    Ok(count) => count,
                };
                let bytes = match &mut deframer {
                    Some(deframer) => {
                        plain.clear();
                        deframer.feed(&buffer[..count], &mut plain);
                        &plain[..]
                    }
                    None => &buffer[..count],
                };
                if writer.write_all(bytes).await.is_err() || writer.flush().await.is_err() {
                    return false;
                }
            }
        };
        tokio::select! {
            detached = input => detached,
            detached = output => detached,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_come_apart_however_they_are_cut() {
        let mut stream = frame(1, b"hello ");
        stream.extend(frame(2, b""));
        stream.extend(frame(2, b"world"));
        for size in 1..stream.len() {
            let (mut deframer, mut out) = (Deframer::default(), Vec::new());
            for piece in stream.chunks(size) {
                deframer.feed(piece, &mut out);
            }
            assert_eq!(out, b"hello world", "pieces of {size}");
        }
    }
}
