//! One process of the container with its streams and the clients attached to them.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::time::Instant;

use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::io::Errno;
use rustix::pipe::{PipeFlags, pipe_with};
use silo_runtime::Stdio;

use super::client::{Client, Input};
use crate::exit::ExitRecord;
use crate::logs::Stream;
use crate::logs::writer::LogWriter;
use crate::protocol::{AtEof, ProcessRef};

/// Bytes that are read at once, and so the largest frame: the size of a pipe.
pub(super) const CHUNK: usize = 64 << 10;
/// The most that is taken of a terminal whose process has ended.
const TERMINAL_REST: usize = 1 << 20;

/// Our ends of a process's streams.
#[derive(Debug, Default)]
pub(super) struct Streams {
    pub(super) stdin: Option<OwnedFd>,
    pub(super) stdout: Option<OwnedFd>,
    pub(super) stderr: Option<OwnedFd>,
}

impl Streams {
    /// Pipes for the streams that are wanted, as the two sides see them.
    pub(super) fn pipes(stdin: bool, stdout: bool, stderr: bool) -> io::Result<(Self, Stdio)> {
        let output = |wanted: bool| {
            let pair = wanted.then(|| pipe_with(PipeFlags::CLOEXEC)).transpose()?;
            io::Result::Ok(pair.unzip())
        };
        let (stdin_theirs, stdin_ours) = output(stdin)?;
        if let Some(ours) = &stdin_ours {
            nonblocking(ours)?;
        }
        let (stdout_ours, stdout_theirs) = output(stdout)?;
        let (stderr_ours, stderr_theirs) = output(stderr)?;
        let stdio =
            Stdio::Fds { stdin: stdin_theirs, stdout: stdout_theirs, stderr: stderr_theirs };
        Ok((Self { stdin: stdin_ours, stdout: stdout_ours, stderr: stderr_ours }, stdio))
    }

    /// Both directions of a terminal.
    pub(super) fn terminal(master: OwnedFd, stdin: bool) -> io::Result<Self> {
        nonblocking(&master)?;
        let stdin = stdin.then(|| master.try_clone()).transpose()?;
        Ok(Self { stdin, stdout: Some(master), stderr: None })
    }
}

fn nonblocking(fd: &OwnedFd) -> io::Result<()> {
    let flags = rustix::fs::fcntl_getfl(fd)?;
    Ok(rustix::fs::fcntl_setfl(fd, flags | rustix::fs::OFlags::NONBLOCK)?)
}

/// A process of the container.
#[derive(Debug)]
pub(super) struct Process {
    pub(super) id: ProcessRef,
    pub(super) pid: i32,
    pub(super) pidfd: OwnedFd,
    pub(super) terminal: bool,
    streams: Streams,
    /// Input that the process has not taken yet.
    unwritten: Vec<u8>,
    /// Whether its input ends when that is taken.
    closing_stdin: bool,
    pub(super) clients: Vec<Client>,
    /// How it ended, once it has.
    pub(super) exit: Option<ExitRecord>,
    /// Until when its end is kept back, for others may write to its streams.
    pub(super) grace: Option<Instant>,
    /// Whether its end has been told.
    pub(super) announced: bool,
}

/// The parts of a process that can be waited for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Part {
    Exit,
    Stdin,
    Output(Stream),
    Client(usize),
}

impl Process {
    pub(super) fn new(id: ProcessRef, pid: i32, pidfd: OwnedFd, streams: Streams) -> Self {
        Self {
            id,
            pid,
            pidfd,
            terminal: false,
            streams,
            unwritten: Vec::new(),
            closing_stdin: false,
            clients: Vec::new(),
            exit: None,
            grace: None,
            announced: false,
        }
    }

    /// What to wait for.
    pub(super) fn interests<'a>(&'a self, add: &mut dyn FnMut(Part, PollFd<'a>)) {
        let mut poll = |part, fd, flags| add(part, PollFd::from_borrowed_fd(fd, flags));
        if self.exit.is_none() {
            poll(Part::Exit, self.pidfd.as_fd(), PollFlags::IN);
        }
        if let Some(stdin) = self.streams.stdin.as_ref().filter(|_| !self.unwritten.is_empty()) {
            poll(Part::Stdin, stdin.as_fd(), PollFlags::OUT);
        }
        for stream in [Stream::Stdout, Stream::Stderr] {
            // One that is not to be read must not be waited for either: its end would be told
            // again and again.
            if let Some(fd) = self.output(stream)
                && !self.clients.iter().any(|client| client.blocks(stream))
            {
                poll(Part::Output(stream), fd.as_fd(), PollFlags::IN);
            }
        }
        for (index, client) in self.clients.iter().enumerate() {
            if let Some((fd, flags)) = client.interest(self.unwritten.is_empty()) {
                poll(Part::Client(index), fd, flags);
            }
        }
    }

    fn output(&self, stream: Stream) -> Option<&OwnedFd> {
        match stream {
            Stream::Stdout => self.streams.stdout.as_ref(),
            Stream::Stderr => self.streams.stderr.as_ref(),
        }
    }

    /// The terminal's master.
    pub(super) fn master(&self) -> Option<&OwnedFd> {
        self.streams.stdout.as_ref().filter(|_| self.terminal)
    }

    /// Whether nobody can write to its streams any more.
    pub(super) fn is_silent(&self) -> bool {
        self.streams.stdout.is_none() && self.streams.stderr.is_none()
    }

    /// Reads once from a stream and hands the bytes on. Returns how many there were; `None` at
    /// the end, or when there is nothing at the moment.
    pub(super) fn read_output(
        &mut self,
        stream: Stream,
        buffer: &mut [u8],
        log: &mut LogWriter,
    ) -> Option<usize> {
        let fd = self.output(stream)?;
        match rustix::io::read(fd, &mut *buffer) {
            Ok(count) if count > 0 => {
                let bytes = &buffer[..count];
                if self.id == ProcessRef::Init {
                    log.write(stream, bytes);
                }
                for client in &mut self.clients {
                    client.send(stream, bytes);
                }
                Some(count)
            }
            Err(Errno::INTR | Errno::AGAIN) => None,
            // A terminal says EIO when all have closed it.
            Ok(_) | Err(_) => {
                self.close_output(stream, log);
                None
            }
        }
    }

    fn close_output(&mut self, stream: Stream, log: &mut LogWriter) {
        match stream {
            Stream::Stdout => self.streams.stdout = None,
            Stream::Stderr => self.streams.stderr = None,
        }
        if self.id == ProcessRef::Init {
            log.end(stream);
        }
        if self.is_silent() {
            self.end_clients();
        }
    }

    /// Takes everything that lies in the streams, whether clients keep up or not: it is no
    /// more than fits there.
    pub(super) fn drain(&mut self, buffer: &mut [u8], log: &mut LogWriter) {
        for stream in [Stream::Stdout, Stream::Stderr] {
            let Some(fd) = self.output(stream) else { continue };
            let capacity = rustix::pipe::fcntl_getpipe_size(fd).unwrap_or(TERMINAL_REST);
            let mut left = isize::try_from(capacity).unwrap_or(isize::MAX);
            while left >= 0
                && self.output(stream).is_some_and(is_readable)
                && let Some(count) = self.read_output(stream, buffer, log)
            {
                left = left.saturating_sub_unsigned(count);
            }
        }
    }

    /// Gives up the streams.
    pub(super) fn close_outputs(&mut self, log: &mut LogWriter) {
        for stream in [Stream::Stdout, Stream::Stderr] {
            if self.output(stream).is_some() {
                self.close_output(stream, log);
            }
        }
        self.end_clients();
    }

    /// Tells clients that there is no more output.
    pub(super) fn end_clients(&mut self) {
        for client in &mut self.clients {
            client.end();
        }
    }

    /// Something happened on a client's socket.
    pub(super) fn client_ready(
        &mut self,
        index: usize,
        flags: PollFlags,
        buffer: &mut [u8],
        stdin_once: bool,
    ) {
        let Some(client) = self.clients.get_mut(index) else { return };
        if flags.contains(PollFlags::OUT) {
            client.flush();
        }
        if flags.contains(PollFlags::IN) && client.input {
            match client.receive(buffer) {
                Input::Bytes(count) => self.write_stdin(&buffer[..count]),
                Input::Nothing => {}
                Input::End => return self.input_ended(index, stdin_once),
            }
        }
        let client = &mut self.clients[index];
        if flags.intersects(PollFlags::HUP | PollFlags::ERR) {
            client.hang_up();
        }
    }

    fn input_ended(&mut self, index: usize, stdin_once: bool) {
        let client = &mut self.clients[index];
        match client.options.at_eof {
            AtEof::Detach => client.end(),
            AtEof::CloseStdin => self.close_stdin(),
            AtEof::Ignore if stdin_once && self.id == ProcessRef::Init => self.close_stdin(),
            AtEof::Ignore => {}
        }
    }

    fn write_stdin(&mut self, mut bytes: &[u8]) {
        // Input that nobody will read is taken all the same, so that its sender goes on.
        let Some(stdin) = self.streams.stdin.as_ref().filter(|_| !self.closing_stdin) else {
            return;
        };
        if !self.unwritten.is_empty() {
            self.unwritten.extend(bytes);
            return;
        }
        while !bytes.is_empty() {
            match rustix::io::write(stdin, bytes) {
                Ok(count) => bytes = &bytes[count..],
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => {
                    self.unwritten = bytes.to_vec();
                    return;
                }
                Err(_) => {
                    self.streams.stdin = None;
                    return;
                }
            }
        }
    }

    /// The process can take input again.
    pub(super) fn stdin_ready(&mut self) {
        let closing = std::mem::take(&mut self.closing_stdin);
        let bytes = std::mem::take(&mut self.unwritten);
        self.write_stdin(&bytes);
        if closing {
            self.close_stdin();
        }
    }

    /// Ends the input when the process has taken what was sent. A terminal has no such end.
    pub(super) fn close_stdin(&mut self) {
        if self.terminal {
            return;
        }
        self.closing_stdin = true;
        if self.unwritten.is_empty() || self.streams.stdin.is_none() {
            self.streams.stdin = None;
            self.unwritten = Vec::new();
        }
    }

    /// Forgets clients with whom nothing can happen any more.
    pub(super) fn sweep(&mut self) {
        self.clients.retain(|client| !client.is_done());
    }
}

/// Whether a read would not wait.
fn is_readable(fd: &OwnedFd) -> bool {
    let mut fds = [PollFd::new(fd, PollFlags::IN)];
    let at_once = Timespec { tv_sec: 0, tv_nsec: 0 };
    rustix::event::poll(&mut fds, Some(&at_once)).is_ok_and(|ready| ready > 0)
}
