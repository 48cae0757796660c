//! One control connection.

use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::event::PollFlags;
use silo_sys::fdpass;

use crate::protocol::{Message, Request};

/// A request is not longer: the environment and arguments of a process fit, with room.
const MAX_REQUEST: usize = 16 << 20;
/// A daemon that leaves more than this unread is dropped.
const MAX_UNSENT: usize = 4 << 20;

/// A daemon, or something that speaks like one.
#[derive(Debug)]
pub(super) struct Connection {
    socket: OwnedFd,
    input: Vec<u8>,
    /// Descriptors in the order of the requests that they came with.
    fds: VecDeque<OwnedFd>,
    output: Vec<u8>,
    /// Whether it wants events.
    pub(super) subscribed: bool,
    /// Whether it is the one on which the shim was born.
    pub(super) first: bool,
    /// Whether it has ended.
    pub(super) dead: bool,
}

impl Connection {
    pub(super) fn new(socket: OwnedFd, subscribed: bool) -> Self {
        Self {
            socket,
            input: Vec::new(),
            fds: VecDeque::new(),
            output: Vec::new(),
            subscribed,
            first: false,
            dead: false,
        }
    }

    /// Whether the other side is gone, or has been told to send nothing more.
    pub(super) fn has_ended(&self) -> bool {
        use rustix::event::{PollFd, Timespec};
        let flags = PollFlags::RDHUP;
        let mut fds = [PollFd::new(&self.socket, flags)];
        let at_once = Timespec { tv_sec: 0, tv_nsec: 0 };
        rustix::event::poll(&mut fds, Some(&at_once)).is_ok_and(|ready| ready > 0)
    }

    /// What to wait for.
    pub(super) fn interest(&self) -> (BorrowedFd<'_>, PollFlags) {
        let out = if self.output.is_empty() { PollFlags::empty() } else { PollFlags::OUT };
        (self.socket.as_fd(), PollFlags::IN | out)
    }

    /// Reads what has come and returns the complete requests of it.
    pub(super) fn receive(&mut self) -> Vec<Request> {
        let mut buffer = [0; 8192];
        let mut fds = Vec::new();
        match fdpass::receive(&self.socket, &mut buffer, &mut fds) {
            Ok(0) => self.dead = true,
            Ok(count) => self.input.extend(&buffer[..count]),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(_) => self.dead = true,
        }
        self.fds.extend(fds);
        let mut requests = Vec::new();
        let Some(end) = self.input.iter().rposition(|&byte| byte == b'\n') else {
            self.dead |= self.input.len() > MAX_REQUEST;
            return requests;
        };
        for line in self.input[..end].split(|&byte| byte == b'\n') {
            match serde_json::from_slice(line) {
                Ok(request) => requests.push(request),
                // What it meant, and so what its descriptors belong to, cannot be known.
                Err(_) => self.dead = true,
            }
        }
        self.input.drain(..=end);
        if self.input.is_empty() {
            self.input = Vec::new();
        }
        requests
    }

    /// The descriptor that came with the next request that has one.
    pub(super) fn take_fd(&mut self) -> Option<OwnedFd> {
        self.fds.pop_front()
    }

    /// Sends a message now, or as soon as there is room.
    pub(super) fn send(&mut self, message: &Message) {
        match serde_json::to_vec(message) {
            Ok(line) => self.output.extend(line),
            Err(_) => self.dead = true,
        }
        self.output.push(b'\n');
        self.flush();
    }

    /// Sends what there is room for.
    pub(super) fn flush(&mut self) {
        while !self.output.is_empty() && !self.dead {
            let flags = rustix::net::SendFlags::NOSIGNAL | rustix::net::SendFlags::DONTWAIT;
            match rustix::net::send(&self.socket, &self.output, flags) {
                Ok(count) => drop(self.output.drain(..count)),
                Err(rustix::io::Errno::INTR) => {}
                Err(rustix::io::Errno::AGAIN) => break,
                Err(_) => self.dead = true,
            }
        }
        self.dead |= self.output.len() > MAX_UNSENT;
        if self.output.is_empty() {
            self.output = Vec::new();
        }
    }

    /// Whether everything has been sent that can be.
    pub(super) fn is_flushed(&self) -> bool {
        self.dead || self.output.is_empty()
    }
}
