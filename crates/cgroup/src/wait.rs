//! Waiting for what the kernel does on its own time.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags};

use crate::files;

/// How often a state that has no event is looked at without a pause; most changes are done by
/// then.
const EAGER: u32 = 100;
/// The first pause after that, and the longest.
const PAUSES: (Duration, Duration) = (Duration::from_micros(50), Duration::from_millis(5));

/// Looks at a state that the kernel does not announce, yielding the processor between looks and
/// then pausing for longer and longer, until it is there (`true`) or the time is over.
pub(crate) fn until<E>(
    limit: Duration,
    mut done: impl FnMut() -> Result<bool, E>,
) -> Result<bool, E> {
    let start = Instant::now();
    let mut looks = 0;
    let mut pause = PAUSES.0;
    while !done()? {
        if start.elapsed() >= limit {
            return Ok(false);
        }
        looks += 1;
        if looks < EAGER {
            rustix::thread::sched_yield();
        } else {
            // An interrupted pause only means an earlier look.
            drop(poll(&mut [], pause));
            pause = PAUSES.1.min(pause * 2);
        }
    }
    Ok(true)
}

/// Waits until a key of `cgroup.events` of a group of version 2 has a value. A group that is
/// gone has every value.
pub(crate) fn event(
    directory: BorrowedFd<'_>,
    key: &str,
    wanted: u64,
    limit: Duration,
) -> io::Result<bool> {
    let start = Instant::now();
    let flags = OFlags::RDONLY | OFlags::CLOEXEC;
    let file = match rustix::fs::openat(directory, "cgroup.events", flags, Mode::empty()) {
        Err(Errno::NOENT | Errno::NODEV) => return Ok(true),
        file => file?,
    };
    loop {
        let mut bytes = [0; 256];
        let count = match rustix::io::pread(&file, &mut bytes, 0) {
            Err(Errno::NODEV) => return Ok(true),
            count => count?,
        };
        if files::pair(&String::from_utf8_lossy(&bytes[..count]), key) == wanted {
            return Ok(true);
        }
        let Some(left) = limit.checked_sub(start.elapsed()) else { return Ok(false) };
        poll(&mut [PollFd::new(&file, PollFlags::PRI)], left)?;
    }
}

/// Waits until a process is dead. One that does not exist is.
pub(crate) fn exit(pid: i32, limit: Duration) -> io::Result<()> {
    let Some(pid) = Pid::from_raw(pid) else { return Ok(()) };
    match rustix::process::pidfd_open(pid, PidfdFlags::empty()) {
        Ok(pidfd) => poll(&mut [PollFd::new(&pidfd.as_fd(), PollFlags::IN)], limit),
        Err(Errno::SRCH | Errno::INVAL) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

fn poll(fds: &mut [PollFd<'_>], limit: Duration) -> io::Result<()> {
    let limit = Timespec {
        tv_sec: i64::try_from(limit.as_secs()).unwrap_or(i64::MAX),
        tv_nsec: i64::from(limit.subsec_nanos()),
    };
    match rustix::event::poll(fds, Some(&limit)) {
        Ok(_) | Err(Errno::INTR) => Ok(()),
        Err(error) => Err(error.into()),
    }
}
