//! Network namespaces of threads, and the two socket options of port reservation that rustix
//! does not have.
#![expect(unsafe_code, reason = "unshare of a thread; socket filters")]

use std::ffi::c_void;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use rustix::fs::{Mode, OFlags};
use rustix::thread::{LinkNameSpaceType, UnshareFlags};

/// The network namespace of the calling thread, as a descriptor that keeps it alive.
pub fn current() -> io::Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::CLOEXEC;
    Ok(rustix::fs::open("/proc/thread-self/ns/net", flags, Mode::empty())?)
}

/// Moves the calling thread into a new, empty network namespace.
///
/// Other threads of the process stay where they are; threads that this one starts follow it.
/// Needs `CAP_SYS_ADMIN`.
pub fn unshare() -> io::Result<()> {
    // SAFETY: CLONE_NEWNET changes only which network namespace this thread's future sockets
    // and /proc/sys/net accesses belong to. It unshares neither the descriptor table nor any
    // memory, so no I/O-safety or aliasing guarantee of other code depends on it.
    unsafe { rustix::thread::unshare_unsafe(UnshareFlags::NEWNET) }?;
    Ok(())
}

/// Moves the calling thread into the network namespace `netns`; fails on any other descriptor.
pub fn enter(netns: BorrowedFd<'_>) -> io::Result<()> {
    rustix::thread::move_into_link_name_space(netns, Some(LinkNameSpaceType::Network))?;
    Ok(())
}

/// Whether two descriptors are the same namespace.
pub fn same(a: BorrowedFd<'_>, b: BorrowedFd<'_>) -> io::Result<bool> {
    let (a, b) = (rustix::fs::fstat(a)?, rustix::fs::fstat(b)?);
    Ok(a.st_dev == b.st_dev && a.st_ino == b.st_ino)
}

/// Runs `work` in the network namespace `netns`, on a thread of its own, and waits for it.
pub fn run_in<T: Send>(
    netns: BorrowedFd<'_>,
    work: impl FnOnce() -> io::Result<T> + Send,
) -> io::Result<T> {
    std::thread::scope(|scope| {
        let thread = std::thread::Builder::new().name("silo-netns".into()).spawn_scoped(
            scope,
            move || {
                enter(netns)?;
                work()
            },
        )?;
        thread.join().unwrap_or_else(|_| Err(io::Error::other("the namespace thread panicked")))
    })
}

/// Makes a socket drop every packet that arrives, so that a socket which only reserves a port
/// neither completes handshakes nor collects datagrams.
pub fn drop_incoming(socket: impl AsFd) -> io::Result<()> {
    // BPF_RET | BPF_K with K = 0: keep nothing of the packet.
    let mut program = [libc::sock_filter { code: 0x06, jt: 0, jf: 0, k: 0 }];
    let filter = libc::sock_fprog { len: 1, filter: program.as_mut_ptr() };
    // SAFETY: `filter` is a sock_fprog whose pointer and length describe `program`; both live
    // until the call returns, and the kernel copies them.
    unsafe { set_option(socket.as_fd(), libc::SOL_SOCKET, libc::SO_ATTACH_FILTER, &filter) }
}

/// Joins a netlink multicast group (`RTNLGRP_*`, `NFNLGRP_*`).
pub fn join_netlink_group(socket: impl AsFd, group: u32) -> io::Result<()> {
    // SAFETY: NETLINK_ADD_MEMBERSHIP takes a 32-bit group number, which the kernel copies.
    unsafe { set_option(socket.as_fd(), libc::SOL_NETLINK, libc::NETLINK_ADD_MEMBERSHIP, &group) }
}

/// # Safety
/// `T` must be the plain C type that the option documents, valid for the length of the call.
unsafe fn set_option<T>(
    socket: BorrowedFd<'_>,
    level: libc::c_int,
    option: libc::c_int,
    value: &T,
) -> io::Result<()> {
    let length = libc::socklen_t::try_from(size_of::<T>())
        .map_err(|_| io::Error::from(io::ErrorKind::InvalidInput))?;
    let pointer = std::ptr::from_ref(value).cast::<c_void>();
    // SAFETY: the pointer is to `length` readable bytes of the type the caller vouches for.
    let result = unsafe { libc::setsockopt(socket.as_raw_fd(), level, option, pointer, length) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_thread_moves_alone() {
        let home = current().unwrap();
        let other = std::thread::spawn(|| {
            unshare().unwrap();
            current().unwrap()
        })
        .join()
        .unwrap();
        assert!(!same(home.as_fd(), other.as_fd()).unwrap());
        assert!(same(home.as_fd(), current().unwrap().as_fd()).unwrap());
        let inside = run_in(other.as_fd(), current).unwrap();
        assert!(same(inside.as_fd(), other.as_fd()).unwrap());
    }

    #[test]
    fn only_network_namespaces_are_entered() {
        let file = rustix::fs::open("/proc/self/ns/uts", OFlags::RDONLY, Mode::empty()).unwrap();
        assert!(run_in(file.as_fd(), || Ok(())).is_err());
    }

    #[test]
    fn filtered_sockets_receive_nothing() {
        let receiver = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
        receiver.set_nonblocking(true).unwrap();
        let sender = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
        let address = receiver.local_addr().unwrap();
        sender.send_to(b"a", address).unwrap();
        assert!(receiver.recv(&mut [0; 8]).is_ok());
        drop_incoming(&receiver).unwrap();
        sender.send_to(b"b", address).unwrap();
        assert!(receiver.recv(&mut [0; 8]).is_err());
    }
}
