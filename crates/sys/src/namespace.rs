//! Namespaces: joining, making in place, and maps of ids.
#![expect(unsafe_code, reason = "unshare(2) is unsafe in rustix, interface ioctls are not in it")]

use std::fmt::Write as _;
use std::io;
use std::os::fd::{AsFd, AsRawFd as _, OwnedFd};

use rustix::fs::{CWD, Mode, OFlags};
use rustix::process::Pid;
use rustix::thread::{LinkNameSpaceType, ThreadNameSpaceType, UnshareFlags};

use crate::process;

/// A range of ids: inside the namespace, outside, and how many.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct IdRange {
    /// The first id inside.
    pub inside: u32,
    /// The first id outside.
    pub outside: u32,
    /// How many.
    pub count: u32,
}

/// Makes new namespaces for the calling thread; flags are those of [`process::fork`].
pub fn unshare(flags: u64) -> io::Result<()> {
    let flags = u32::try_from(flags).map_err(|_| io::Error::from(io::ErrorKind::InvalidInput))?;
    // SAFETY: the flags are those of namespaces, so descriptors stay shared as they are.
    unsafe { rustix::thread::unshare_unsafe(UnshareFlags::from_bits_retain(flags)) }?;
    Ok(())
}

/// Brings the loopback interface of the calling thread's network namespace up.
pub fn loopback_up() -> io::Result<()> {
    let socket = rustix::net::socket_with(
        rustix::net::AddressFamily::INET,
        rustix::net::SocketType::DGRAM,
        rustix::net::SocketFlags::CLOEXEC,
        None,
    )?;
    // SAFETY: the structure is one of numbers and is valid when zeroed.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    for (to, from) in request.ifr_name.iter_mut().zip(b"lo") {
        *to = libc::c_char::try_from(*from).unwrap_or_default();
    }
    let up = libc::IFF_UP | libc::IFF_RUNNING;
    request.ifr_ifru.ifru_flags =
        libc::c_short::try_from(up).map_err(|_| io::ErrorKind::InvalidInput)?;
    // SAFETY: the request is live, names an interface with an end, and is only read by the call.
    let result = unsafe {
        libc::ioctl(socket.as_raw_fd(), libc::SIOCSIFFLAGS, std::ptr::from_ref(&request))
    };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Joins the namespace behind `fd`, which must be of the kind `kind`.
pub fn join(fd: impl AsFd, kind: LinkNameSpaceType) -> io::Result<()> {
    Ok(rustix::thread::move_into_link_name_space(fd.as_fd(), Some(kind))?)
}

/// Joins the namespaces of the process behind `pidfd`, all in one step.
pub fn join_process(pidfd: impl AsFd, flags: u64) -> io::Result<()> {
    let flags = u32::try_from(flags).map_err(|_| io::Error::from(io::ErrorKind::InvalidInput))?;
    let kinds = ThreadNameSpaceType::from_bits_retain(flags);
    Ok(rustix::thread::move_into_thread_name_spaces(pidfd.as_fd(), kinds)?)
}

/// Writes the maps of the new user namespace that `pid` is in.
///
/// Where the caller has no privilege over the ids, the kernel takes a map of one id, and only
/// with `setgroups` denied.
pub fn write_id_maps(pid: Pid, users: &[IdRange], groups: &[IdRange]) -> io::Result<()> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let name = format!("/proc/{}", pid.as_raw_nonzero());
    let directory = rustix::fs::openat(CWD, name, flags, Mode::empty())?;
    write_all(&directory, "uid_map", &lines(users))?;
    match write_all(&directory, "gid_map", &lines(groups)) {
        Err(error) if error.raw_os_error() == Some(libc::EPERM) => {
            write_all(&directory, "setgroups", "deny")?;
            write_all(&directory, "gid_map", &lines(groups))
        }
        result => result,
    }
}

fn lines(ranges: &[IdRange]) -> String {
    let mut text = String::new();
    for range in ranges {
        // Writing to a string cannot fail.
        let _written = writeln!(text, "{} {} {}", range.inside, range.outside, range.count);
    }
    text
}

fn write_all(directory: &OwnedFd, name: &str, text: &str) -> io::Result<()> {
    let flags = OFlags::WRONLY | OFlags::CLOEXEC;
    let file = rustix::fs::openat(directory, name, flags, Mode::empty())?;
    // These files take their whole text in one write.
    if rustix::io::write(&file, text.as_bytes())? == text.len() {
        Ok(())
    } else {
        Err(io::Error::from(io::ErrorKind::WriteZero))
    }
}

/// A user namespace with these maps, in which no process is.
pub fn user_namespace(users: &[IdRange], groups: &[IdRange]) -> io::Result<OwnedFd> {
    let (release, wait) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC)
        .map(|(read, write)| (write, read))?;
    let holder = process::fork(process::NEW_USER, None, || {
        // Its own copy of the writing end would keep the pipe open for ever.
        let _ended =
            rustix::process::set_parent_process_death_signal(Some(rustix::process::Signal::KILL));
        let mut byte = [0; 1];
        u8::from(rustix::io::read(&wait, &mut byte).is_err())
    })?;
    let made = write_id_maps(holder.pid, users, groups).and_then(|()| {
        let name = format!("/proc/{}/ns/user", holder.pid.as_raw_nonzero());
        let flags = OFlags::RDONLY | OFlags::CLOEXEC;
        Ok(rustix::fs::openat(CWD, name, flags, Mode::empty())?)
    });
    let released = rustix::io::write(&release, b"x");
    process::wait(&holder.pidfd)?;
    released?;
    made
}
