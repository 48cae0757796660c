//! Signals, freezing, and the end of containers.

use std::path::Path;

use rustix::event::{PollFd, PollFlags, Timespec};
use silo_oci::runtime::Status;
use silo_sys::process;

use super::args::{Delete, Kill};
use super::signals;
use super::state::{Container, Store, cgroup_error, check_id};
use crate::error::{Context as _, Error};
use crate::{hooks, resctrl};

/// How long a killed container may take to end, in seconds.
const END_MAX: i64 = 10;

pub(super) fn kill(store: &Store, arguments: &Kill) -> Result<(), Error> {
    let signal = signals::parse(&arguments.signal)?;
    let container = store.open(&arguments.id)?;
    let status = container.status();
    if arguments.all {
        let Some(cgroup) = container.cgroup()? else { return Ok(()) };
        if signal == libc::SIGKILL {
            return cgroup.kill_all().map_err(cgroup_error);
        }
        for pid in cgroup.pids().map_err(cgroup_error)? {
            // One that has ended meanwhile needs no signal.
            match silo_sys::signal::kill(pid, signal) {
                Err(error) if error.raw_os_error() != Some(libc::ESRCH) => {
                    return Err(Error::step("signal process", error));
                }
                _ => {}
            }
        }
        return Ok(());
    }
    let Some((_, pidfd)) = container.process().filter(|_| status != Status::Stopped) else {
        return Err(Error::State("container not running".into()));
    };
    process::send_signal(&pidfd, signal).step(|| "signal container".into())?;
    if status == Status::Paused && signal == libc::SIGKILL {
        // The signal takes effect when the process is thawed.
        if let Some(cgroup) = container.cgroup()? {
            cgroup.thaw().map_err(cgroup_error)?;
        }
    }
    Ok(())
}

pub(super) fn delete(store: &Store, arguments: &Delete) -> Result<(), Error> {
    let container = match store.open(&arguments.id) {
        Err(Error::NoContainer(_)) if arguments.force => {
            check_id(&arguments.id)?;
            if let Some(directory) = store.leftover(&arguments.id) {
                fs_err::remove_dir_all(directory).step(|| "remove state".into())?;
            }
            return Ok(());
        }
        result => result?,
    };
    let status = container.status();
    match status {
        Status::Stopped => {}
        Status::Created => end(&container)?,
        _ if arguments.force => end(&container)?,
        _ => {
            return Err(Error::State(format!(
                "cannot delete container {} that is not stopped: {status}",
                arguments.id
            )));
        }
    }
    remove(&container)
}

/// Kills the container and waits for its end.
fn end(container: &Container) -> Result<(), Error> {
    let Some((_, pidfd)) = container.process() else { return Ok(()) };
    process::send_signal(&pidfd, libc::SIGKILL).step(|| "kill container".into())?;
    if let Some(cgroup) = container.cgroup()? {
        cgroup.kill_all().map_err(cgroup_error)?;
    }
    let limit = Timespec { tv_sec: END_MAX, tv_nsec: 0 };
    let mut fds = [PollFd::new(&pidfd, PollFlags::IN)];
    match rustix::event::poll(&mut fds, Some(&limit)) {
        Ok(0) => Err(Error::State("the container does not end".into())),
        result => result.map(drop).step(|| "wait for container".into()),
    }
}

/// Removes everything of a container that has ended, and runs its last hooks.
pub(super) fn remove(container: &Container) -> Result<(), Error> {
    let record = &container.record;
    if let Some(cgroup) = container.cgroup()? {
        cgroup.kill_all().map_err(cgroup_error)?;
        cgroup.remove().map_err(cgroup_error)?;
    }
    if let Some(rdt) = record.spec.linux.as_ref().and_then(|linux| linux.intel_rdt.as_ref()) {
        resctrl::remove(Path::new("/sys/fs/resctrl"), &record.id, rdt)?;
    }
    fs_err::remove_dir_all(&container.directory).step(|| "remove state".into())?;
    if let Some(spec_hooks) = &record.spec.hooks {
        let state = container.state(Status::Stopped);
        for hook in &spec_hooks.poststop {
            // A failure is told and keeps nothing from being done.
            if let Err(error) = hooks::run("poststop", std::slice::from_ref(hook), &state) {
                super::warn(&error.to_string());
            }
        }
    }
    Ok(())
}

pub(super) fn pause(store: &Store, id: &str) -> Result<(), Error> {
    let container = store.open(id)?;
    match (container.status(), container.cgroup()?) {
        (Status::Running | Status::Created, Some(cgroup)) => cgroup.freeze().map_err(cgroup_error),
        (status, _) => Err(Error::State(format!("cannot pause a container that is {status}"))),
    }
}

pub(super) fn resume(store: &Store, id: &str) -> Result<(), Error> {
    let container = store.open(id)?;
    match (container.status(), container.cgroup()?) {
        (Status::Paused, Some(cgroup)) => cgroup.thaw().map_err(cgroup_error),
        (status, _) => Err(Error::State(format!("cannot resume a container that is {status}"))),
    }
}
