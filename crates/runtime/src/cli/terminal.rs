//! Staying with a program until it ends: its terminal is connected with ours, and signals that
//! we get go to it.

use std::os::fd::{AsFd as _, OwnedFd};

use rustix::event::{PollFd, PollFlags};
use rustix::io::Errno;
use rustix::termios::{OptionalActions, Termios};
use silo_sys::{process, pty};

use crate::error::{Context as _, Error};

/// Our terminal's settings, put back at the end.
struct Raw {
    saved: Option<Termios>,
}

impl Raw {
    fn new() -> Self {
        let stdin = rustix::stdio::stdin();
        let Ok(saved) = rustix::termios::tcgetattr(stdin) else { return Self { saved: None } };
        let mut raw = saved.clone();
        raw.make_raw();
        let set = rustix::termios::tcsetattr(stdin, OptionalActions::Now, &raw);
        Self { saved: set.is_ok().then_some(saved) }
    }
}

impl Drop for Raw {
    fn drop(&mut self) {
        if let Some(saved) = &self.saved {
            // Nothing can be done about a terminal that went away.
            let _restored =
                rustix::termios::tcsetattr(rustix::stdio::stdin(), OptionalActions::Now, saved);
        }
    }
}

/// Waits for the end of a program, and returns its exit code as a shell would have it.
pub(super) fn accompany(pidfd: &OwnedFd, console: Option<&OwnedFd>) -> Result<u8, Error> {
    if let Some(console) = console {
        copy(pidfd, console)?;
    }
    let ended = process::wait(pidfd).step(|| "wait for program".into())?;
    Ok(u8::try_from(ended.code() & 0xff).unwrap_or(u8::MAX))
}

/// Copies between our streams and the terminal until the program has ended and everything
/// that it wrote has been copied.
fn copy(pidfd: &OwnedFd, console: &OwnedFd) -> Result<(), Error> {
    let step = || "copy terminal".to_owned();
    let (stdin, stdout) = (rustix::stdio::stdin(), rustix::stdio::stdout());
    if let Ok(size) = pty::size(stdin) {
        pty::set_size(console, size).step(step)?;
    }
    let _raw = Raw::new();
    let mut buffer = vec![0; 16 * 1024];
    let mut reading = true;
    loop {
        let nothing = PollFlags::empty();
        let mut fds = [
            PollFd::new(console, PollFlags::IN),
            PollFd::from_borrowed_fd(stdin, if reading { PollFlags::IN } else { nothing }),
            PollFd::new(pidfd, PollFlags::IN),
        ];
        match rustix::event::poll(&mut fds, None) {
            Err(Errno::INTR) => continue,
            result => result.step(step)?,
        };
        let (from_console, from_stdin, ended) = (
            !fds[0].revents().is_empty(),
            !fds[1].revents().is_empty(),
            !fds[2].revents().is_empty(),
        );
        if from_console {
            match rustix::io::read(console, &mut buffer) {
                // The last process has closed the terminal.
                Ok(0) | Err(Errno::IO) => return Ok(()),
                Ok(length) => write_all(stdout.as_fd(), &buffer[..length]).step(step)?,
                Err(Errno::INTR) => {}
                Err(error) => return Err(Error::step(step(), error)),
            }
        } else if ended {
            return Ok(());
        }
        if from_stdin && reading {
            match rustix::io::read(stdin, &mut buffer) {
                Ok(0) | Err(Errno::IO) => reading = false,
                Ok(length) => write_all(console.as_fd(), &buffer[..length]).step(step)?,
                Err(Errno::INTR) => {}
                Err(error) => return Err(Error::step(step(), error)),
            }
        }
    }
}

fn write_all(fd: std::os::fd::BorrowedFd<'_>, mut bytes: &[u8]) -> Result<(), Errno> {
    while !bytes.is_empty() {
        match rustix::io::write(fd, bytes) {
            Ok(written) => bytes = &bytes[written..],
            Err(Errno::INTR) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}
