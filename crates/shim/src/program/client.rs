//! A client that is attached to the streams of a process.

use std::io::IoSlice;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::event::PollFlags;
use rustix::io::Errno;
use rustix::net::{RecvFlags, SendAncillaryBuffer, SendFlags, Shutdown};

use crate::logs::Stream;
use crate::protocol::AttachOptions;

/// An attached client.
#[derive(Debug)]
pub(super) struct Client {
    socket: OwnedFd,
    pub(super) options: AttachOptions,
    /// Frames, or their rest, for which the socket had no room.
    unsent: Vec<u8>,
    sent: usize,
    /// Whether more input can come.
    pub(super) input: bool,
    /// Whether it takes output.
    pub(super) output: bool,
    /// Whether its output is complete, and ends when all is sent.
    ending: bool,
}

/// What came from a client.
pub(super) enum Input {
    /// So many bytes.
    Bytes(usize),
    /// Nothing at the moment.
    Nothing,
    /// The end.
    End,
}

impl Client {
    pub(super) fn new(socket: OwnedFd, options: AttachOptions) -> Self {
        Self {
            socket,
            options,
            unsent: Vec::new(),
            sent: 0,
            input: options.stdin,
            output: true,
            ending: false,
        }
    }

    /// What to wait for; `input_room` says whether the process's input can take something.
    pub(super) fn interest(&self, input_room: bool) -> Option<(BorrowedFd<'_>, PollFlags)> {
        let mut flags = PollFlags::empty();
        if self.input && input_room {
            flags |= PollFlags::IN;
        }
        if self.output && !self.unsent.is_empty() {
            flags |= PollFlags::OUT;
        }
        // Without any flag a hang-up is still told; one that is known would be told forever.
        (self.output || !flags.is_empty()).then(|| (self.socket.as_fd(), flags))
    }

    /// Whether it holds up `stream`.
    pub(super) fn blocks(&self, stream: Stream) -> bool {
        self.output && !self.unsent.is_empty() && self.wants(stream)
    }

    fn wants(&self, stream: Stream) -> bool {
        match stream {
            Stream::Stdout => self.options.stdout,
            Stream::Stderr => self.options.stderr,
        }
    }

    /// Sends output of a stream, keeping what the socket does not take.
    pub(super) fn send(&mut self, stream: Stream, bytes: &[u8]) {
        if !self.output || self.ending || !self.wants(stream) || bytes.is_empty() {
            return;
        }
        let Ok(length) = u32::try_from(bytes.len()) else { return };
        let mut header = [0; 8];
        header[0] = if stream == Stream::Stderr { 2 } else { 1 };
        header[4..].copy_from_slice(&length.to_be_bytes());
        let mut sent = 0;
        if self.unsent.is_empty() {
            let parts = [IoSlice::new(&header), IoSlice::new(bytes)];
            let flags = SendFlags::NOSIGNAL | SendFlags::DONTWAIT;
            match rustix::net::sendmsg(
                &self.socket,
                &parts,
                &mut SendAncillaryBuffer::default(),
                flags,
            ) {
                Ok(count) => sent = count,
                Err(Errno::AGAIN | Errno::INTR) => {}
                Err(_) => return self.hang_up(),
            }
        }
        self.unsent.extend(header.iter().skip(sent));
        self.unsent.extend(bytes.iter().skip(sent.saturating_sub(header.len())));
    }

    /// Sends what there is room for of what was kept.
    pub(super) fn flush(&mut self) {
        while self.output && self.sent < self.unsent.len() {
            let flags = SendFlags::NOSIGNAL | SendFlags::DONTWAIT;
            match rustix::net::send(&self.socket, &self.unsent[self.sent..], flags) {
                Ok(count) => self.sent += count,
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => return,
                Err(_) => self.hang_up(),
            }
        }
        self.unsent = Vec::new();
        self.sent = 0;
        if self.ending {
            self.shut();
        }
    }

    /// Reads input.
    pub(super) fn receive(&mut self, buffer: &mut [u8]) -> Input {
        match rustix::net::recv(&self.socket, &mut *buffer, RecvFlags::DONTWAIT) {
            Ok((0, _)) => {
                self.input = false;
                Input::End
            }
            Ok((count, _)) => Input::Bytes(count),
            Err(Errno::INTR | Errno::AGAIN) => Input::Nothing,
            Err(_) => {
                self.input = false;
                Input::End
            }
        }
    }

    /// The client has gone: it takes no more output. Input that it sent before can be read.
    pub(super) fn hang_up(&mut self) {
        self.output = false;
        self.unsent = Vec::new();
        self.sent = 0;
    }

    /// There will be no more output.
    pub(super) fn end(&mut self) {
        self.ending = true;
        self.input = false;
        if self.unsent.is_empty() {
            self.shut();
        }
    }

    fn shut(&mut self) {
        if self.output {
            // A client that is gone already needs no end.
            rustix::net::shutdown(&self.socket, Shutdown::Write).unwrap_or_default();
            self.output = false;
        }
    }

    /// Whether nothing can happen with it any more.
    pub(super) fn is_done(&self) -> bool {
        !self.input && !self.output
    }
}
