//! Signals, freezing, and the end of containers.

use std::path::Path;

use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::mount::UnmountFlags;
use silo_oci::runtime::{NamespaceKind, Status};
use silo_sys::process;

use super::args::{Delete, Kill};
use super::signals;
use super::state::{Container, Store, cgroup_error, check_id};
use crate::error::{Context as _, Error};
use crate::{hooks, resctrl};

/// How long a killed container may take to end.
const END_MAX: Timespec = Timespec { tv_sec: 10, tv_nsec: 0 };

/// How long a container that is to be deleted, and may have been killed just before, is given.
const GRACE: Timespec = Timespec { tv_sec: 0, tv_nsec: 100_000_000 };

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
        // One that was just killed is about to end.
        _ if ends_within(&container, &GRACE)? => {}
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
    if ends_within(container, &END_MAX)? {
        Ok(())
    } else {
        Err(Error::State("the container does not end".into()))
    }
}

/// Waits for the end of the container's process, at most so long.
fn ends_within(container: &Container, limit: &Timespec) -> Result<bool, Error> {
    let Some((_, pidfd)) = container.process() else { return Ok(true) };
    let mut fds = [PollFd::new(&pidfd, PollFlags::IN)];
    let ready = rustix::event::poll(&mut fds, Some(limit)).step(|| "wait for container".into())?;
    Ok(ready > 0)
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
    if record.spec.namespace(NamespaceKind::Mount).is_none() {
        // Its mounts are in the host's tree; it is no error if they are gone already.
        let flags = UnmountFlags::DETACH | UnmountFlags::NOFOLLOW;
        match rustix::mount::unmount(&record.rootfs, flags) {
            Ok(()) | Err(rustix::io::Errno::INVAL | rustix::io::Errno::NOENT) => {}
            Err(error) => return Err(Error::step("unmount root", error)),
        }
    }
    fs_err::remove_dir_all(&container.directory).step(|| "remove state".into())?;
    if let Some(spec_hooks) = &record.spec.hooks {
        let state = container.state(Status::Stopped);
        return hooks::run("poststop", &spec_hooks.poststop, &state);
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
