//! Queries about sockets.
#![expect(unsafe_code, reason = "SIOCOUTQ is not in rustix")]

use std::io;
use std::os::fd::{AsFd, AsRawFd};

/// How much of what was written to a Unix socket its peer has not read yet, in bytes of kernel
/// memory; zero when everything was read. For TCP: what the peer's kernel has not acknowledged.
pub fn unread_by_peer(socket: impl AsFd) -> io::Result<usize> {
    let mut count: libc::c_int = 0;
    // SAFETY: the descriptor is open for the whole call, and SIOCOUTQ (which Linux defines as
    // TIOCOUTQ) writes one int to the address, which is that of a live int.
    let status = unsafe { libc::ioctl(socket.as_fd().as_raw_fd(), libc::TIOCOUTQ, &raw mut count) };
    if status < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(usize::try_from(count).unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::os::unix::net::UnixStream;

    use super::*;

    #[test]
    fn reading_empties_the_queue() {
        let (mut ours, mut theirs) = UnixStream::pair().unwrap();
        assert_eq!(unread_by_peer(&ours).unwrap(), 0);
        ours.write_all(b"hello").unwrap();
        assert!(unread_by_peer(&ours).unwrap() > 0);
        theirs.read_exact(&mut [0; 5]).unwrap();
        assert_eq!(unread_by_peer(&ours).unwrap(), 0);
        assert!(unread_by_peer(std::fs::File::open("/dev/null").unwrap()).is_err());
    }
}
