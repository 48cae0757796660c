//! The conversation between the caller and the process that it makes, over a pair of sockets
//! that keep the bounds of messages. A message is a letter and, after it, its content.

use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, SocketFlags, SocketType,
};

use crate::error::{Error, Report};

/// The longest message in bytes; errors are cut to fit.
const MESSAGE_MAX: usize = 32 * 1024;

/// What is said.
#[derive(Debug)]
pub(crate) enum Message {
    /// To the caller: the process id of the process made by a process in between.
    Pid(i32),
    /// To the process: its ids are mapped and it is in its cgroup.
    Go,
    /// To the caller: run the hooks that belong to it. From the caller: they have run.
    Hooks,
    /// To the caller: the master of the terminal.
    Console(OwnedFd),
    /// To the caller: the listener of the filter.
    Listener(OwnedFd),
    /// To the caller: everything is made.
    Ready,
    /// To the process: run the program.
    Start,
    /// To the caller: it failed.
    Failed(Error),
}

/// One end of the conversation.
#[derive(Debug)]
pub(crate) struct Channel {
    socket: OwnedFd,
}

impl Channel {
    pub(crate) fn pair() -> io::Result<(Self, Self)> {
        let (a, b) = rustix::net::socketpair(
            AddressFamily::UNIX,
            SocketType::SEQPACKET,
            SocketFlags::CLOEXEC,
            None,
        )?;
        Ok((Self { socket: a }, Self { socket: b }))
    }

    pub(crate) fn new(socket: OwnedFd) -> Self {
        Self { socket }
    }

    fn send_raw(&self, kind: u8, content: &[u8], fd: Option<BorrowedFd<'_>>) -> io::Result<()> {
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut control = SendAncillaryBuffer::new(&mut space);
        let fds: &[BorrowedFd<'_>] = fd.as_slice();
        if !fds.is_empty() && !control.push(SendAncillaryMessage::ScmRights(fds)) {
            return Err(io::Error::from(io::ErrorKind::InvalidInput));
        }
        let parts = [IoSlice::new(std::slice::from_ref(&kind)), IoSlice::new(content)];
        rustix::net::sendmsg(&self.socket, &parts, &mut control, SendFlags::NOSIGNAL)?;
        Ok(())
    }

    pub(crate) fn send(&self, message: &Message) -> io::Result<()> {
        match message {
            Message::Pid(pid) => self.send_raw(b'P', &pid.to_ne_bytes(), None),
            Message::Go => self.send_raw(b'G', b"", None),
            Message::Hooks => self.send_raw(b'H', b"", None),
            Message::Console(fd) => self.send_raw(b'C', b"", Some(fd.as_fd())),
            Message::Listener(fd) => self.send_raw(b'L', b"", Some(fd.as_fd())),
            Message::Ready => self.send_raw(b'R', b"", None),
            Message::Start => self.send_raw(b'S', b"", None),
            Message::Failed(error) => {
                let report = serde_json::to_vec(&Report::from(error))?;
                self.send_raw(b'E', &report, None)
            }
        }
    }

    /// As [`Self::send`], but it is no error if the other side is gone: what it said last is
    /// still to be received.
    pub(crate) fn send_if_heard(&self, message: &Message) -> io::Result<()> {
        match self.send(message) {
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
            Err(error) if error.kind() == io::ErrorKind::ConnectionReset => Ok(()),
            result => result,
        }
    }

    /// The next message; `None` when the other side is gone.
    pub(crate) fn receive(&self) -> io::Result<Option<Message>> {
        let mut buffer = vec![0; MESSAGE_MAX];
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut control = RecvAncillaryBuffer::new(&mut space);
        let received = loop {
            match rustix::net::recvmsg(
                &self.socket,
                &mut [IoSliceMut::new(&mut buffer)],
                &mut control,
                RecvFlags::CMSG_CLOEXEC,
            ) {
                // The other side went away without reading everything: that is told once,
                // before what it has said.
                Err(rustix::io::Errno::INTR | rustix::io::Errno::CONNRESET) => {}
                result => break result?,
            }
        };
        let mut fd = None;
        for part in control.drain() {
            if let RecvAncillaryMessage::ScmRights(mut rights) = part {
                fd = rights.next();
            }
        }
        let Some((kind, content)) = buffer[..received.bytes].split_first() else {
            return Ok(None);
        };
        let wrong = || io::Error::new(io::ErrorKind::InvalidData, "unexpected message");
        Ok(Some(match kind {
            b'P' => Message::Pid(i32::from_ne_bytes(content.try_into().map_err(|_| wrong())?)),
            b'G' => Message::Go,
            b'H' => Message::Hooks,
            b'C' => Message::Console(fd.ok_or_else(wrong)?),
            b'L' => Message::Listener(fd.ok_or_else(wrong)?),
            b'R' => Message::Ready,
            b'S' => Message::Start,
            b'E' => Message::Failed(
                serde_json::from_slice::<Report>(content).map_err(|_| wrong())?.into(),
            ),
            _ => return Err(wrong()),
        }))
    }
}

impl AsFd for Channel {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}
