//! Stopping, resuming and killing all processes of a group.

use std::os::fd::BorrowedFd;
use std::time::Duration;

use rustix::io::Errno;
use rustix::process::{Pid, Signal};

use crate::controller::Controller;
use crate::error::Error;
use crate::files;
use crate::group::{Cgroup, vanished};
use crate::hierarchy::Version;
use crate::wait;

/// How long processes may take to stop. One in an uninterruptible call takes as long as the call.
const LIMIT: Duration = Duration::from_secs(10);

/// How often a group without a freezer is looked through for processes that were born while
/// others were killed.
const ROUNDS: u32 = 1000;

const V1_STATE: &str = "freezer.state";
const V2_FREEZE: &str = "cgroup.freeze";

impl Cgroup {
    /// Stops every process of the group and of those below, and returns when all are stopped.
    ///
    /// # Errors
    ///
    /// [`Error::Timeout`] if some do not stop; then all run again.
    pub fn freeze(&self) -> Result<(), Error> {
        let (at, directory) = self.ensure(Controller::Freezer, "pause")?;
        match self.version(at) {
            Version::V1 => self.freeze_v1(at, directory),
            Version::V2 => self.freeze_v2(at, directory),
        }
    }

    /// Lets the processes run again. Does nothing if they do, or if the group has vanished.
    ///
    /// # Errors
    ///
    /// If the kernel refuses.
    pub fn thaw(&self) -> Result<(), Error> {
        match self.find(Controller::Freezer) {
            Some((at, directory)) => match self.thaw_in(at, directory) {
                Err(Error::Write { source, .. }) if vanished(&source) => Ok(()),
                result => result,
            },
            None => Ok(()),
        }
    }

    /// Whether the group was told to freeze.
    ///
    /// # Errors
    ///
    /// If the state cannot be read.
    pub fn is_frozen(&self) -> Result<bool, Error> {
        let Some((at, directory)) = self.find(Controller::Freezer) else { return Ok(false) };
        match self.version(at) {
            Version::V1 => Ok(self.read_in(at, directory, V1_STATE)?.trim() != "THAWED"),
            Version::V2 => Ok(self.read_in(at, directory, V2_FREEZE)?.trim() == "1"),
        }
    }

    fn freeze_v1(&self, at: usize, directory: BorrowedFd<'_>) -> Result<(), Error> {
        self.write_in(at, directory, V1_STATE, "FROZEN")?;
        let frozen = wait::until(LIMIT, || {
            let state = self.read_in(at, directory, V1_STATE)?;
            if state.trim() == "FROZEN" {
                return Ok(true);
            }
            // Processes that were born meanwhile need to be told as well.
            self.write_in(at, directory, V1_STATE, "FROZEN").map(|()| false)
        })?;
        self.frozen_or_thaw(at, directory, frozen)
    }

    pub(crate) fn freeze_v2(&self, at: usize, directory: BorrowedFd<'_>) -> Result<(), Error> {
        self.write_in(at, directory, V2_FREEZE, "1")?;
        let frozen = wait::event(directory, "frozen", 1, LIMIT)
            .map_err(|source| self.read_error(at, "cgroup.events", source))?;
        self.frozen_or_thaw(at, directory, frozen)
    }

    fn frozen_or_thaw(
        &self,
        at: usize,
        directory: BorrowedFd<'_>,
        frozen: bool,
    ) -> Result<(), Error> {
        if frozen {
            return Ok(());
        }
        self.thaw_in(at, directory)?;
        let path = self.directory_path(at);
        Err(Error::Timeout { path, state: "frozen", seconds: LIMIT.as_secs() })
    }

    pub(crate) fn thaw_in(&self, at: usize, directory: BorrowedFd<'_>) -> Result<(), Error> {
        match self.version(at) {
            Version::V1 => self.write_in(at, directory, V1_STATE, "THAWED"),
            Version::V2 => self.write_in(at, directory, V2_FREEZE, "0"),
        }
    }

    /// Kills every process of the group and of those below. Does not wait for their end;
    /// [`Self::remove`] does.
    ///
    /// # Errors
    ///
    /// If the kernel refuses.
    pub fn kill_all(&self) -> Result<(), Error> {
        if let (Some((at, directory)), None) = (self.in_unified(), self.v1_present())
            && self.kill_v2(at, directory)?
        {
            return Ok(());
        }
        // Frozen processes have no children and do not end, so that no id can be of another
        // process. The signal takes effect when they are thawed.
        let frozen = self.find(Controller::Freezer).is_some() && self.freeze().is_ok();
        let killed = if frozen { self.kill_listed().map(|_| ()) } else { self.kill_rounds() };
        killed.and(self.thaw())
    }

    /// The group in the hierarchy of version 2.
    pub(crate) fn in_unified(&self) -> Option<(usize, BorrowedFd<'_>)> {
        self.present().find(|&(at, _)| self.version(at) == Version::V2)
    }

    fn v1_present(&self) -> Option<usize> {
        self.present().find(|&(at, _)| self.version(at) == Version::V1).map(|(at, _)| at)
    }

    /// Kills by `cgroup.kill`; `false` if this kernel does not have it.
    pub(crate) fn kill_v2(&self, at: usize, directory: BorrowedFd<'_>) -> Result<bool, Error> {
        match files::write(directory, "cgroup.kill", "1") {
            Ok(()) => Ok(true),
            Err(error) if error.raw_os_error() == Some(libc::ENODEV) => Ok(true),
            Err(error) if error.raw_os_error() == Some(libc::ENOENT) => Ok(false),
            Err(source) => Err(self.write_error(at, "cgroup.kill", "1", source)),
        }
    }

    /// Kills those that are listed now, and returns how many these are.
    fn kill_listed(&self) -> Result<usize, Error> {
        let pids = self.pids()?;
        for &pid in &pids {
            let Some(process) = Pid::from_raw(pid) else { continue };
            match rustix::process::kill_process(process, Signal::KILL) {
                Ok(()) | Err(Errno::SRCH) => {}
                Err(error) => {
                    let path = self.present().next().map(|(at, _)| self.directory_path(at));
                    let path = path.unwrap_or_default();
                    return Err(Error::Signal { path, pid, source: error.into() });
                }
            }
        }
        Ok(pids.len())
    }

    fn kill_rounds(&self) -> Result<(), Error> {
        for _ in 0..ROUNDS {
            if self.kill_listed()? == 0 {
                break;
            }
            rustix::thread::sched_yield();
        }
        Ok(())
    }
}
