//! Running out of memory.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use rustix::event::EventfdFlags;
use rustix::fs::inotify;
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;

use crate::controller::Controller;
use crate::error::Error;
use crate::files;
use crate::group::{Cgroup, vanished};
use crate::hierarchy::Version;

const V1_CONTROL: &str = "memory.oom_control";
const V2_EVENTS: &str = "memory.events";

impl Version {
    /// The file with the count of processes that were killed for memory, under `oom_kill`.
    const fn oom_file(self) -> &'static str {
        match self {
            Self::V1 => V1_CONTROL,
            Self::V2 => V2_EVENTS,
        }
    }
}

/// Tells when a group runs out of memory. Its descriptor is readable ([`AsFd`], `POLLIN`) when
/// [`Self::take`] has something to look at.
#[derive(Debug)]
pub struct OomEvents {
    /// An eventfd (version 1) or an inotify instance (version 2).
    events: OwnedFd,
    version: Version,
    /// The group's directory.
    directory: OwnedFd,
    seen: u64,
}

impl AsFd for OomEvents {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.events.as_fd()
    }
}

impl OomEvents {
    /// How many times the group ran out of memory since the last call. Does not wait.
    ///
    /// The last event of a group of version 1 is its removal; it does not count.
    ///
    /// # Errors
    ///
    /// If the kernel's counters cannot be read.
    pub fn take(&mut self) -> std::io::Result<u64> {
        let mut bytes = [0; 4096];
        let mut notified = false;
        loop {
            match rustix::io::read(&self.events, &mut bytes) {
                Ok(0) | Err(Errno::AGAIN) => break,
                Ok(_) => notified = true,
                Err(Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
        let text = match files::read(self.directory.as_fd(), self.version.oom_file()) {
            Ok(text) => text,
            Err(error) if vanished(&error) => return Ok(0),
            Err(error) => return Err(error),
        };
        let kills = files::pair(&text, "oom_kill");
        let mut count = kills.saturating_sub(self.seen);
        // Version 1 tells before the kernel has chosen a process, and counts after that.
        if self.version == Version::V1 && notified {
            count = count.max(1);
        }
        self.seen = kills.max(self.seen + count);
        Ok(count)
    }
}

impl Cgroup {
    /// Watches for the group running out of memory; `None` if its memory is not controlled.
    ///
    /// # Errors
    ///
    /// If the kernel refuses.
    pub fn oom_events(&self) -> Result<Option<OomEvents>, Error> {
        let Some((at, directory)) = self.find(Controller::Memory) else { return Ok(None) };
        let version = self.version(at);
        let name = version.oom_file();
        let failed = |error: Errno| Error::Watch {
            path: self.directory_path(at).join(name),
            source: error.into(),
        };
        let events = match version {
            Version::V1 => {
                let flags = EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK;
                let events = rustix::event::eventfd(0, flags).map_err(failed)?;
                let flags = OFlags::RDONLY | OFlags::CLOEXEC;
                let control =
                    rustix::fs::openat(directory, name, flags, Mode::empty()).map_err(failed)?;
                let line = format!("{} {}", events.as_raw_fd(), control.as_raw_fd());
                self.write_in(at, directory, "cgroup.event_control", &line)?;
                events
            }
            Version::V2 => {
                let flags = inotify::CreateFlags::CLOEXEC | inotify::CreateFlags::NONBLOCK;
                let events = inotify::init(flags).map_err(failed)?;
                let path = format!("/proc/self/fd/{}/{name}", directory.as_raw_fd());
                inotify::add_watch(&events, path, inotify::WatchFlags::MODIFY).map_err(failed)?;
                events
            }
        };
        let directory = rustix::io::fcntl_dupfd_cloexec(directory, 3).map_err(failed)?;
        let seen = self.oom_kills()?;
        Ok(Some(OomEvents { events, version, directory, seen }))
    }

    /// How many processes of the group were killed because it was out of memory; 0 if its
    /// memory is not controlled.
    ///
    /// # Errors
    ///
    /// If the counter cannot be read.
    pub fn oom_kills(&self) -> Result<u64, Error> {
        let Some((at, directory)) = self.find(Controller::Memory) else { return Ok(0) };
        let text = self.read_in(at, directory, self.version(at).oom_file())?;
        Ok(files::pair(&text, "oom_kill"))
    }
}
