//! Netlink: messages built in one buffer, exchanged on a socket that stays open.
//!
//! Layouts are those of `linux/netlink.h`: a message is a 16-byte header, a fixed part, and
//! attributes of (length, type, value) padded to four bytes; integers of the framing are in host
//! order.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::Duration;

use rustix::io::Errno;
use rustix::net::netlink::SocketAddrNetlink;
use rustix::net::{AddressFamily, Protocol, RecvFlags, SendFlags, SocketFlags, SocketType};

pub(crate) const REQUEST: u16 = 0x1;
pub(crate) const ACK: u16 = 0x4;
pub(crate) const DUMP: u16 = 0x300;
pub(crate) const REPLACE: u16 = 0x100;
pub(crate) const EXCL: u16 = 0x200;
pub(crate) const CREATE: u16 = 0x400;
pub(crate) const APPEND: u16 = 0x800;

const NLMSG_ERROR: u16 = 2;
const NLMSG_DONE: u16 = 3;
const HEADER: usize = 16;
const NESTED: u16 = 0x8000;
const TYPE_MASK: u16 = 0x3fff;

/// Several messages, one after the other.
#[derive(Debug, Default)]
pub(crate) struct Messages {
    bytes: Vec<u8>,
    /// Where each message begins.
    starts: Vec<usize>,
}

impl Messages {
    pub(crate) fn new() -> Self {
        Self::default()
    }

    pub(crate) fn len(&self) -> usize {
        self.starts.len()
    }

    /// Appends a message; `body` adds its attributes.
    pub(crate) fn add(
        &mut self,
        kind: u16,
        flags: u16,
        fixed: &[u8],
        body: impl FnOnce(&mut Attributes<'_>),
    ) {
        let start = self.bytes.len();
        self.starts.push(start);
        self.bytes.extend_from_slice(&[0; HEADER]);
        self.bytes[start + 4..start + 6].copy_from_slice(&kind.to_ne_bytes());
        self.bytes[start + 6..start + 8].copy_from_slice(&flags.to_ne_bytes());
        self.bytes.extend_from_slice(fixed);
        pad(&mut self.bytes);
        body(&mut Attributes { bytes: &mut self.bytes });
        let length = u32::try_from(self.bytes.len() - start).unwrap_or(u32::MAX);
        self.bytes[start..start + 4].copy_from_slice(&length.to_ne_bytes());
    }

    fn number(&mut self, first: u32) {
        for (seq, &start) in (first..).zip(&self.starts) {
            self.bytes[start + 8..start + 12].copy_from_slice(&seq.to_ne_bytes());
        }
    }

    /// Adds a flag to message `index`.
    pub(crate) fn flag(&mut self, index: usize, flag: u16) {
        let at = self.starts[index] + 6;
        let flags = u16::from_ne_bytes([self.bytes[at], self.bytes[at + 1]]) | flag;
        self.bytes[at..at + 2].copy_from_slice(&flags.to_ne_bytes());
    }
}

/// Writes the attributes of a message.
#[derive(Debug)]
pub(crate) struct Attributes<'a> {
    bytes: &'a mut Vec<u8>,
}

impl Attributes<'_> {
    pub(crate) fn bytes(&mut self, kind: u16, value: &[u8]) -> &mut Self {
        let length = u16::try_from(value.len() + 4).unwrap_or(u16::MAX);
        self.bytes.extend_from_slice(&length.to_ne_bytes());
        self.bytes.extend_from_slice(&kind.to_ne_bytes());
        self.bytes.extend_from_slice(value);
        pad(self.bytes);
        self
    }

    /// A string with its terminating zero.
    pub(crate) fn string(&mut self, kind: u16, value: &str) -> &mut Self {
        let mut bytes = Vec::with_capacity(value.len() + 1);
        bytes.extend_from_slice(value.as_bytes());
        bytes.push(0);
        self.bytes(kind, &bytes)
    }

    pub(crate) fn u8(&mut self, kind: u16, value: u8) -> &mut Self {
        self.bytes(kind, &[value])
    }

    pub(crate) fn u32(&mut self, kind: u16, value: u32) -> &mut Self {
        self.bytes(kind, &value.to_ne_bytes())
    }

    /// A number in network order, as nfnetlink has it.
    pub(crate) fn be32(&mut self, kind: u16, value: u32) -> &mut Self {
        self.bytes(kind, &value.to_be_bytes())
    }

    pub(crate) fn nest(&mut self, kind: u16, body: impl FnOnce(&mut Attributes<'_>)) -> &mut Self {
        let start = self.bytes.len();
        self.bytes.extend_from_slice(&[0; 4]);
        self.bytes[start + 2..start + 4].copy_from_slice(&(kind | NESTED).to_ne_bytes());
        body(&mut Attributes { bytes: self.bytes });
        let length = u16::try_from(self.bytes.len() - start).unwrap_or(u16::MAX);
        self.bytes[start..start + 2].copy_from_slice(&length.to_ne_bytes());
        self
    }

    /// Raw bytes inside a nest, for instance the peer's header in a veth request.
    pub(crate) fn raw(&mut self, value: &[u8]) -> &mut Self {
        self.bytes.extend_from_slice(value);
        pad(self.bytes);
        self
    }
}

fn pad(bytes: &mut Vec<u8>) {
    bytes.resize(bytes.len().next_multiple_of(4), 0);
}

/// A received message.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Received<'a> {
    pub(crate) kind: u16,
    pub(crate) port: u32,
    pub(crate) payload: &'a [u8],
}

/// Splits a datagram into messages: (message, its sequence number).
fn split(mut data: &[u8]) -> impl Iterator<Item = (Received<'_>, u32)> {
    std::iter::from_fn(move || {
        let length = usize::try_from(read_u32(data)?).ok()?;
        if length < HEADER || length > data.len() {
            return None;
        }
        let message = Received {
            kind: read_u16(&data[4..])?,
            port: read_u32(&data[12..])?,
            payload: &data[HEADER..length],
        };
        let seq = read_u32(&data[8..])?;
        data = data.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some((message, seq))
    })
}

/// The attributes in `data`: (type, value). Stops at malformed data.
pub(crate) fn attributes(mut data: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    std::iter::from_fn(move || {
        let length = usize::from(read_u16(data)?);
        if length < 4 || length > data.len() {
            return None;
        }
        let kind = read_u16(&data[2..])? & TYPE_MASK;
        let value = &data[4..length];
        data = data.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some((kind, value))
    })
}

/// The first attribute of a type.
pub(crate) fn attribute(data: &[u8], kind: u16) -> Option<&[u8]> {
    attributes(data).find_map(|(k, value)| (k == kind).then_some(value))
}

pub(crate) fn read_u16(data: &[u8]) -> Option<u16> {
    Some(u16::from_ne_bytes(*data.first_chunk()?))
}

pub(crate) fn read_u32(data: &[u8]) -> Option<u32> {
    Some(u32::from_ne_bytes(*data.first_chunk()?))
}

/// A string attribute's value up to its terminating zero.
pub(crate) fn read_string(data: &[u8]) -> String {
    let end = data.iter().position(|&b| b == 0).unwrap_or(data.len());
    String::from_utf8_lossy(&data[..end]).into_owned()
}

/// An open netlink socket of the namespace in which it was opened.
#[derive(Debug)]
pub(crate) struct Socket {
    fd: OwnedFd,
    seq: u32,
    buffer: Vec<u8>,
}

impl Socket {
    pub(crate) fn route() -> io::Result<Self> {
        // Protocol 0.
        Self::open(None)
    }

    pub(crate) fn netfilter() -> io::Result<Self> {
        Self::open(Some(rustix::net::netlink::NETFILTER))
    }

    fn open(protocol: Option<Protocol>) -> io::Result<Self> {
        let fd = rustix::net::socket_with(
            AddressFamily::NETLINK,
            SocketType::RAW,
            SocketFlags::CLOEXEC,
            protocol,
        )?;
        rustix::net::bind(&fd, &SocketAddrNetlink::new(0, 0))?;
        // The kernel answers at once; a limit keeps a lost answer from hanging the engine.
        let limit = Some(Duration::from_secs(20));
        rustix::net::sockopt::set_socket_timeout(&fd, rustix::net::sockopt::Timeout::Recv, limit)?;
        Ok(Self { fd, seq: 1, buffer: vec![0; 64 << 10] })
    }

    /// The socket's own address, by which its changes are known in notifications.
    pub(crate) fn port(&self) -> io::Result<u32> {
        let address = rustix::net::getsockname(&self.fd)?;
        Ok(SocketAddrNetlink::try_from(address)?.pid())
    }

    pub(crate) fn join(&self, group: u32) -> io::Result<()> {
        silo_sys::netns::join_netlink_group(&self.fd, group)
    }

    pub(crate) fn fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }

    fn send(&mut self, messages: &mut Messages) -> io::Result<u32> {
        let first = self.seq;
        let count = u32::try_from(messages.len()).unwrap_or(u32::MAX);
        self.seq = self.seq.wrapping_add(count);
        messages.number(first);
        rustix::net::send(&self.fd, &messages.bytes, SendFlags::empty())?;
        Ok(first)
    }

    fn receive(&mut self) -> io::Result<usize> {
        loop {
            match rustix::net::recv(&self.fd, &mut self.buffer[..], RecvFlags::empty()) {
                Ok((_, length)) => return Ok(length),
                Err(Errno::INTR) => {}
                Err(errno) => return Err(errno.into()),
            }
        }
    }

    /// Sends messages and waits for the acknowledgement of each: the result per message.
    pub(crate) fn each(&mut self, mut messages: Messages) -> io::Result<Vec<io::Result<()>>> {
        for index in 0..messages.len() {
            messages.flag(index, ACK);
        }
        let first = self.send(&mut messages)?;
        let mut results: Vec<Option<io::Result<()>>> = Vec::new();
        results.resize_with(messages.len(), || None);
        let mut open = messages.len();
        while open > 0 {
            let length = self.receive()?;
            for (message, seq) in split(&self.buffer[..length]) {
                let slot = seq.checked_sub(first).and_then(|i| usize::try_from(i).ok());
                if message.kind == NLMSG_ERROR
                    && let Some(slot @ None) = slot.and_then(|i| results.get_mut(i))
                {
                    *slot = Some(outcome(message.payload));
                    open -= 1;
                }
            }
        }
        Ok(results.into_iter().flatten().collect())
    }

    /// Sends messages that are independent of each other; the first failure is the result.
    pub(crate) fn run(&mut self, messages: Messages) -> io::Result<()> {
        self.each(messages)?.into_iter().collect()
    }

    /// Sends a transaction: a batch of which the last message but one carries the only
    /// acknowledgement. The first failure of any message is the result.
    pub(crate) fn transaction(&mut self, mut messages: Messages) -> io::Result<()> {
        let last = messages.len().saturating_sub(2);
        messages.flag(last, ACK);
        let first = self.send(&mut messages)?;
        let last = first.wrapping_add(u32::try_from(last).unwrap_or(u32::MAX));
        let mut failure = None;
        loop {
            let length = self.receive()?;
            for (message, seq) in split(&self.buffer[..length]) {
                if message.kind != NLMSG_ERROR || seq < first || seq > last {
                    continue;
                }
                if let Err(error) = outcome(message.payload) {
                    failure.get_or_insert(error);
                }
                // An error of the batch as a whole bears the number of its first message.
                if seq == last || seq == first {
                    return failure.map_or(Ok(()), Err);
                }
            }
        }
    }

    /// Sends one request and hands every answer to `each`: of a dump all, else the only one.
    pub(crate) fn query(
        &mut self,
        mut request: Messages,
        mut each: impl FnMut(Received<'_>),
    ) -> io::Result<()> {
        let dump = request.bytes.get(6..8).and_then(read_u16).is_some_and(|f| f & DUMP == DUMP);
        let first = self.send(&mut request)?;
        loop {
            let length = self.receive()?;
            let mut done = false;
            for (message, seq) in split(&self.buffer[..length]) {
                if seq != first {
                    continue;
                }
                match message.kind {
                    NLMSG_ERROR => return outcome(message.payload),
                    NLMSG_DONE => return Ok(()),
                    _ => {
                        each(message);
                        done |= !dump;
                    }
                }
            }
            if done {
                return Ok(());
            }
        }
    }

    /// Hands every waiting notification to `each`. `false` if some were lost.
    pub(crate) fn notifications(&mut self, mut each: impl FnMut(Received<'_>)) -> io::Result<bool> {
        loop {
            match rustix::net::recv(&self.fd, &mut self.buffer[..], RecvFlags::DONTWAIT) {
                Ok((_, length)) => {
                    for (message, _) in split(&self.buffer[..length]) {
                        each(message);
                    }
                }
                Err(Errno::AGAIN) => return Ok(true),
                Err(Errno::NOBUFS) => return Ok(false),
                Err(Errno::INTR) => {}
                Err(errno) => return Err(errno.into()),
            }
        }
    }
}

fn outcome(payload: &[u8]) -> io::Result<()> {
    let errno = payload.first_chunk().map_or(-5, |bytes| i32::from_ne_bytes(*bytes));
    if errno == 0 { Ok(()) } else { Err(io::Error::from_raw_os_error(-errno)) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_are_framed() {
        let mut messages = Messages::new();
        messages.add(0x10, REQUEST, &[1, 2, 3], |a| {
            a.string(1, "ab").nest(2, |a| {
                a.u8(3, 9);
            });
        });
        messages.add(0x11, 0, &[], |_| ());
        messages.flag(1, ACK);
        messages.number(7);
        let parts: Vec<_> = split(&messages.bytes).collect();
        assert_eq!(parts.len(), 2);
        assert_eq!((parts[0].0.kind, parts[0].1), (0x10, 7));
        assert_eq!((parts[1].0.kind, parts[1].1), (0x11, 8));
        let attrs: Vec<_> = attributes(&parts[0].0.payload[4..]).collect();
        assert_eq!(attrs[0], (1, &b"ab\0"[..]));
        assert_eq!(attribute(attrs[1].1, 3), Some(&[9][..]));
    }

    #[test]
    fn malformed_input_ends_the_walk() {
        assert_eq!(split(&[1, 0, 0, 0]).count(), 0);
        assert_eq!(attributes(&[3, 0, 1, 0]).count(), 0);
        assert_eq!(attributes(&[200, 0, 1, 0, 5]).count(), 0);
        assert_eq!(attributes(&[]).count(), 0);
    }

    #[test]
    fn the_kernel_answers() {
        let mut socket = Socket::route().unwrap();
        let mut names = Vec::new();
        let mut request = Messages::new();
        request.add(18, REQUEST | DUMP, &[0; 16], |_| ());
        socket
            .query(request, |m| {
                names.extend(attribute(&m.payload[16..], 3).map(read_string));
            })
            .unwrap();
        assert!(names.contains(&"lo".to_owned()));
        let mut request = Messages::new();
        request.add(17, REQUEST, &[0; 16], |a| {
            a.string(3, "no-such-if");
        });
        assert_eq!(socket.run(request).unwrap_err().raw_os_error(), Some(19));
    }
}
