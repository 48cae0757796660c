//! Hooks: programs that the configuration wants run at points of the container's life.
//!
//! A hook has the container's state on its standard input and its own environment only; its
//! output goes where the runtime's goes.

use std::os::fd::{AsRawFd as _, IntoRawFd as _, OwnedFd};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use silo_oci::runtime::{Hook, State};
use silo_sys::process::{self, Ended};

use crate::error::{Context as _, Error};
use crate::program::c_strings;

/// Runs the hooks of one list in order; the first that fails ends it.
pub fn run(stage: &str, hooks: &[Hook], state: &State) -> Result<(), Error> {
    for (index, hook) in hooks.iter().enumerate() {
        run_one(hook, state).map_err(|error| Error::Hook {
            stage: stage.to_owned(),
            index,
            cause: error.to_string(),
        })?;
    }
    Ok(())
}

fn run_one(hook: &Hook, state: &State) -> Result<(), Error> {
    let path = hook.path.to_str().filter(|path| path.starts_with('/')).ok_or_else(|| {
        Error::invalid(format!("the path {} is not absolute", hook.path.display()))
    })?;
    let state = serde_json::to_vec(state).map_err(|error| Error::invalid(error.to_string()))?;
    let program = c_strings(&[path.to_owned()], "hook")?.remove(0);
    let arguments =
        if hook.args.is_empty() { vec![program.clone()] } else { c_strings(&hook.args, "hook")? };
    let environment = c_strings(&hook.env, "hook")?;
    let (read, write) =
        rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC).step(|| "make pipe".into())?;
    let deadline = match hook.timeout {
        None => None,
        Some(seconds) => Some(
            u64::try_from(seconds)
                .ok()
                .filter(|seconds| *seconds > 0)
                .and_then(|seconds| Instant::now().checked_add(Duration::from_secs(seconds)))
                .ok_or_else(|| Error::invalid("the timeout is not positive"))?,
        ),
    };
    let child = process::fork(0, None, || {
        let prepare = || -> std::io::Result<()> {
            process::duplicate_to(&read, 0)?;
            process::close_on_exec_from(3)?;
            process::reset_signals()?;
            Ok(())
        };
        if prepare().is_ok() {
            let error = process::execute(&program, &arguments, &environment);
            return if error.kind() == std::io::ErrorKind::NotFound { 127 } else { 126 };
        }
        125
    })
    .step(|| format!("run {path}"))?;
    drop(read);
    feed(&write, &state, &child.pidfd, deadline)?;
    drop(write);
    if !ended_by(&child.pidfd, deadline)? {
        process::send_signal(&child.pidfd, libc::SIGKILL).step(|| format!("end {path}"))?;
        process::wait(&child.pidfd).step(|| format!("wait for {path}"))?;
        return Err(Error::invalid("timed out"));
    }
    match process::wait(&child.pidfd).step(|| format!("wait for {path}"))? {
        Ended::Exited(0) => Ok(()),
        Ended::Exited(code) => Err(Error::invalid(format!("exit status {code}"))),
        Ended::Killed(signal) => Err(Error::invalid(format!("signal {signal}"))),
    }
}

/// Writes the state, as long as the hook lives and reads.
fn feed(
    pipe: &OwnedFd,
    state: &[u8],
    pidfd: &OwnedFd,
    deadline: Option<Instant>,
) -> Result<(), Error> {
    let step = || "write state to hook".to_owned();
    rustix::io::ioctl_fionbio(pipe, true).step(step)?;
    let mut rest = state;
    while !rest.is_empty() {
        match rustix::io::write(pipe, rest) {
            Ok(written) => rest = &rest[written..],
            // It does not want its state; that is no failure.
            Err(Errno::PIPE) => return Ok(()),
            Err(Errno::INTR) => {}
            Err(Errno::AGAIN) => {
                let mut fds =
                    [PollFd::new(pipe, PollFlags::OUT), PollFd::new(pidfd, PollFlags::IN)];
                if !poll(&mut fds, deadline)? || !fds[1].revents().is_empty() {
                    return Ok(());
                }
            }
            Err(error) => return Err(Error::step(step(), error)),
        }
    }
    Ok(())
}

fn ended_by(pidfd: &OwnedFd, deadline: Option<Instant>) -> Result<bool, Error> {
    poll(&mut [PollFd::new(pidfd, PollFlags::IN)], deadline)
}

/// Waits for one of the events; false when the deadline passed first.
fn poll(fds: &mut [PollFd<'_>], deadline: Option<Instant>) -> Result<bool, Error> {
    loop {
        let left = match deadline {
            None => None,
            Some(deadline) => {
                let left = deadline.saturating_duration_since(Instant::now());
                if left.is_zero() {
                    return Ok(false);
                }
                Some(Timespec {
                    tv_sec: i64::try_from(left.as_secs()).unwrap_or(i64::MAX),
                    tv_nsec: left.subsec_nanos().into(),
                })
            }
        };
        match rustix::event::poll(fds, left.as_ref()) {
            Ok(0) | Err(Errno::INTR) => {}
            Ok(_) => return Ok(true),
            Err(error) => return Err(Error::step("wait for hook", error)),
        }
    }
}

/// Opens `/dev/null` for each standard stream that is closed, so that no descriptor of ours
/// takes its number.
pub(crate) fn ensure_standard_streams() -> Result<(), Error> {
    loop {
        // Opening gives the lowest free number.
        let null = rustix::fs::open(c"/dev/null", OFlags::RDWR | OFlags::NOCTTY, Mode::empty())
            .step(|| "open /dev/null".into())?;
        if null.as_raw_fd() > 2 {
            return Ok(());
        }
        let _stays_open = null.into_raw_fd();
    }
}
