//! Descriptors that travel over Unix sockets beside bytes (`SCM_RIGHTS`, unix(7)).

use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, SocketFlags, SocketType,
};

/// The most descriptors that one message carries here; unix(7) allows 253.
pub const MAX_FDS: usize = 8;

/// A connected pair of stream sockets, both close-on-exec and blocking.
pub fn stream_pair() -> io::Result<(OwnedFd, OwnedFd)> {
    Ok(rustix::net::socketpair(
        AddressFamily::UNIX,
        SocketType::STREAM,
        SocketFlags::CLOEXEC,
        None,
    )?)
}

/// Sends `bytes` and, with their first byte, `fds`. Returns how many bytes went; the descriptors
/// go with any successful call that has at least one byte.
///
/// Never raises `SIGPIPE`. Fails with `InvalidInput` for more than [`MAX_FDS`] descriptors.
pub fn send(socket: impl AsFd, bytes: &[u8], fds: &[BorrowedFd<'_>]) -> io::Result<usize> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_FDS))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    if fds.len() > MAX_FDS || !fds.is_empty() && !control.push(SendAncillaryMessage::ScmRights(fds))
    {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "too many descriptors"));
    }
    Ok(rustix::net::sendmsg(socket, &[IoSlice::new(bytes)], &mut control, SendFlags::NOSIGNAL)?)
}

/// Receives at most `buffer.len()` bytes and appends the descriptors that came with them, made
/// close-on-exec. Zero bytes mean the end of the stream.
///
/// Fails with `InvalidData` when a sender passed more than [`MAX_FDS`]; those that fit are
/// closed then.
pub fn receive(socket: impl AsFd, buffer: &mut [u8], fds: &mut Vec<OwnedFd>) -> io::Result<usize> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_FDS))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let message = rustix::net::recvmsg(
        socket,
        &mut [IoSliceMut::new(buffer)],
        &mut control,
        RecvFlags::CMSG_CLOEXEC,
    )?;
    let truncated = message.flags.contains(rustix::net::ReturnFlags::CTRUNC);
    let mut received = Vec::new();
    for part in control.drain() {
        if let RecvAncillaryMessage::ScmRights(rights) = part {
            received.extend(rights);
        }
    }
    if truncated {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "too many descriptors"));
    }
    fds.append(&mut received);
    Ok(message.bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn descriptors_arrive_with_their_bytes() {
        let (a, b) = stream_pair().unwrap();
        let (read, write) = rustix::pipe::pipe().unwrap();
        assert_eq!(send(&a, b"hello", &[write.as_fd()]).unwrap(), 5);
        drop((write, a));
        let (mut buffer, mut fds) = ([0; 16], Vec::new());
        assert_eq!(receive(&b, &mut buffer, &mut fds).unwrap(), 5);
        assert_eq!(fds.len(), 1);
        let flags = rustix::io::fcntl_getfd(&fds[0]).unwrap();
        assert!(flags.contains(rustix::io::FdFlags::CLOEXEC));
        rustix::io::write(&fds[0], b"x").unwrap();
        assert_eq!(rustix::io::read(&read, &mut buffer).unwrap(), 1);
        assert_eq!(receive(&b, &mut buffer, &mut fds).unwrap(), 0);
    }

    #[test]
    fn too_many_are_refused_by_the_sender() {
        let (a, _b) = stream_pair().unwrap();
        let many = vec![a.as_fd(); MAX_FDS + 1];
        assert_eq!(send(&a, b"x", &many).unwrap_err().kind(), io::ErrorKind::InvalidInput);
    }
}
