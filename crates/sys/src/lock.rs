//! Locks of flock(2) on open files, waited for.

use std::io;
use std::os::fd::AsFd;
use std::sync::mpsc;
use std::time::Duration;

use rustix::fs::FlockOperation;
use rustix::io::Errno;

/// Takes the exclusive lock on an open file, waiting for at most `patience`; false if somebody
/// still holds it then.
///
/// A lock outlives a process that is killed for as long as a child that it was about to execute
/// something in has not done so, since the child has a copy of every descriptor. That is usually
/// microseconds, so whoever takes over from a process that can be killed has to wait.
pub fn exclusive(file: impl AsFd, patience: Duration) -> io::Result<bool> {
    match rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive) {
        Err(Errno::WOULDBLOCK) => {}
        result => return Ok(result.map(|()| true)?),
    }
    let copy = file.as_fd().try_clone_to_owned()?;
    let (sender, receiver) = mpsc::channel();
    // The thread of a wait that was given up ends with the other's lock, or this process.
    std::thread::Builder::new().name("lock".into()).spawn(move || {
        let locked = loop {
            match rustix::fs::flock(&copy, FlockOperation::LockExclusive) {
                Err(Errno::INTR) => {}
                result => break result,
            }
        };
        sender.send(locked)
    })?;
    match receiver.recv_timeout(patience) {
        Ok(locked) => Ok(locked.map(|()| true)?),
        Err(_) => Ok(false),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_as_long_as_it_is_told() {
        let path = std::env::temp_dir().join(format!("silo-lock-{}", std::process::id()));
        let open = || {
            let flags = rustix::fs::OFlags::CREATE | rustix::fs::OFlags::RDWR;
            rustix::fs::open(&path, flags, rustix::fs::Mode::RUSR).unwrap()
        };
        let (first, second) = (open(), open());
        rustix::fs::unlink(&path).unwrap();
        assert!(exclusive(&first, Duration::ZERO).unwrap());
        assert!(!exclusive(&second, Duration::from_millis(10)).unwrap());
        let waiting = std::thread::spawn(move || exclusive(&second, Duration::from_mins(1)));
        drop(first);
        assert!(waiting.join().unwrap().unwrap());
    }
}
