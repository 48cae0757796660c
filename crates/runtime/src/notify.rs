//! Handing the listener of a system call filter to whoever serves it.

use std::io;
use std::os::fd::{AsFd as _, OwnedFd};

use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType};
use rustix::process::Pid;
use silo_oci::runtime::{ContainerProcessState, LinuxSeccomp, State};

use crate::create::number;
use crate::error::{Context as _, Error};

/// Sends the listener with the container's state to the socket that the configuration names.
pub(crate) fn hand_over(
    seccomp: Option<&LinuxSeccomp>,
    listener: &OwnedFd,
    pid: Pid,
    state: &State,
) -> Result<(), Error> {
    let Some((seccomp, path)) =
        seccomp.and_then(|seccomp| Some((seccomp, seccomp.listener_path.as_ref()?)))
    else {
        return Err(Error::invalid("linux.seccomp: notification needs a listenerPath"));
    };
    let content = ContainerProcessState {
        oci_version: silo_oci::runtime::VERSION.into(),
        fds: vec!["seccompFd".into()],
        pid: number(pid),
        metadata: seccomp.listener_metadata.clone(),
        state: state.clone(),
    };
    let step = || format!("send seccomp listener to {}", path.display());
    let content = serde_json::to_vec(&content).map_err(io::Error::from).step(step)?;
    let socket = rustix::net::socket_with(
        AddressFamily::UNIX,
        SocketType::STREAM,
        SocketFlags::CLOEXEC,
        None,
    )
    .step(step)?;
    let address = SocketAddrUnix::new(path).step(step)?;
    rustix::net::connect(&socket, &address).step(step)?;
    let sent = silo_sys::fdpass::send(&socket, &content, &[listener.as_fd()]).step(step)?;
    let mut rest = &content[sent..];
    while !rest.is_empty() {
        let sent = silo_sys::fdpass::send(&socket, rest, &[]).step(step)?;
        rest = &rest[sent..];
    }
    Ok(())
}
