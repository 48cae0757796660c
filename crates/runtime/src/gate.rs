//! The gate at which a made container waits for the order to run its program.

use std::io;
use std::os::fd::{AsRawFd as _, BorrowedFd, OwnedFd};

use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType};

use crate::error::{Context as _, Error};
use crate::sync::{Channel, Message};

/// The order to run the program, not yet given. Dropping it lets the container's process end
/// if the gate was [`GateKind::Held`](crate::GateKind::Held).
#[derive(Debug)]
pub struct Gate {
    channel: Option<Channel>,
}

impl Gate {
    pub(crate) fn held(channel: Channel) -> Self {
        Self { channel: Some(channel) }
    }

    pub(crate) fn elsewhere() -> Self {
        Self { channel: None }
    }

    /// Runs the program. Returns when it has been executed.
    ///
    /// Fails with [`Error::Program`] if it cannot be executed, and with [`Error::State`] if the
    /// container waits at a listener, where [`Gate::connect`] finds it.
    pub fn start(self) -> Result<(), Error> {
        let Some(channel) = self.channel else {
            return Err(Error::State("the container waits at its own socket".into()));
        };
        channel.send(&Message::Start).step(|| "start container process".into())?;
        match channel.receive().step(|| "start container process".into())? {
            // Its end is closed by execve(2).
            None => Ok(()),
            Some(Message::Failed(error)) => Err(error),
            Some(other) => Err(Error::invalid(format!("unexpected answer {other:?}"))),
        }
    }

    /// A listening socket for a container to wait at, named `name` in a directory.
    pub fn listen(directory: BorrowedFd<'_>, name: &str) -> io::Result<OwnedFd> {
        let socket = packet_socket()?;
        rustix::net::bind(&socket, &address(directory, name)?)?;
        rustix::net::listen(&socket, 1)?;
        Ok(socket)
    }

    /// The gate of a container that waits at a listening socket.
    pub fn connect(directory: BorrowedFd<'_>, name: &str) -> io::Result<Self> {
        let socket = packet_socket()?;
        rustix::net::connect(&socket, &address(directory, name)?)?;
        Ok(Self::held(Channel::new(socket)))
    }
}

fn packet_socket() -> io::Result<OwnedFd> {
    Ok(rustix::net::socket_with(
        AddressFamily::UNIX,
        SocketType::SEQPACKET,
        SocketFlags::CLOEXEC,
        None,
    )?)
}

/// An address holds 107 bytes of path, so the directory is named by its descriptor.
fn address(directory: BorrowedFd<'_>, name: &str) -> io::Result<SocketAddrUnix> {
    Ok(SocketAddrUnix::new(format!("/proc/self/fd/{}/{name}", directory.as_raw_fd()))?)
}
