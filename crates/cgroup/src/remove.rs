//! Removing groups.

use std::os::fd::{AsFd, BorrowedFd};
use std::time::Duration;

use rustix::fs::{AtFlags, Mode, OFlags};
use rustix::io::Errno;

use crate::error::Error;
use crate::group::{Cgroup, Cgroups, children};
use crate::hierarchy::Version;
use crate::path::CgroupPath;
use crate::wait;

/// How long the last processes may take to go.
const LIMIT: Duration = Duration::from_secs(5);

impl Cgroup {
    /// Removes the group and those below it from every hierarchy. Waits for processes that are
    /// ending; does not kill any. A hierarchy that fails does not keep others from being tried.
    ///
    /// # Errors
    ///
    /// The first one that occurred.
    pub fn remove(&self) -> Result<(), Error> {
        let mut result = Ok(());
        for (at, directory) in self.present() {
            let removed = self.remove_in(at, directory);
            if result.is_ok() {
                result = removed;
            }
        }
        result
    }

    fn remove_in(&self, at: usize, directory: BorrowedFd<'_>) -> Result<(), Error> {
        let (hierarchy, path) = self.parent(at);
        // `false` while something is in the way.
        let try_remove = || match rustix::fs::unlinkat(hierarchy.root(), &*path, AtFlags::REMOVEDIR)
        {
            Ok(()) | Err(Errno::NOENT) => Ok(true),
            Err(Errno::BUSY | Errno::NOTEMPTY) => Ok(false),
            Err(error) => Err(error),
        };
        let failed =
            |error: Errno| Error::Remove { path: self.directory_path(at), source: error.into() };
        if try_remove().map_err(failed)? {
            return Ok(());
        }
        self.wait_empty(at, directory)?;
        // The list of processes is empty a moment before the kernel lets the group go.
        let removed = wait::until(LIMIT, || {
            remove_below(directory, 0)?;
            try_remove()
        });
        if removed.map_err(failed)? { Ok(()) } else { Err(failed(Errno::BUSY)) }
    }

    /// Waits until no process is left in one hierarchy.
    pub(crate) fn wait_empty(&self, at: usize, directory: BorrowedFd<'_>) -> Result<(), Error> {
        let timeout = || Error::Timeout {
            path: self.directory_path(at),
            state: "empty",
            seconds: LIMIT.as_secs(),
        };
        if self.version(at) == Version::V2 {
            let empty = wait::event(directory, "populated", 0, LIMIT)
                .map_err(|source| self.read_error(at, "cgroup.events", source))?;
            return if empty { Ok(()) } else { Err(timeout()) };
        }
        let start = std::time::Instant::now();
        loop {
            let mut pids = Vec::new();
            self.pids_in(at, directory, &mut pids)?;
            let Some(&pid) = pids.first() else { return Ok(()) };
            let left = LIMIT.checked_sub(start.elapsed()).ok_or_else(timeout)?;
            wait::exit(pid, left).map_err(|source| Error::Signal {
                path: self.directory_path(at),
                pid,
                source,
            })?;
            // A process whose first thread is dead but not the others counts as alive here.
            rustix::thread::sched_yield();
        }
    }
}

impl Cgroups {
    /// Removes a group from every hierarchy where nothing is in it. One that is not there, or in
    /// use, is no error.
    ///
    /// # Errors
    ///
    /// The first one that occurred.
    pub fn remove_empty(&self, path: &CgroupPath) -> Result<(), Error> {
        let group = match self.open(path) {
            Err(Error::NotFound(_)) => return Ok(()),
            group => group?,
        };
        let mut result = Ok(());
        for (at, _) in group.present() {
            let (hierarchy, path) = group.parent(at);
            match rustix::fs::unlinkat(hierarchy.root(), &*path, AtFlags::REMOVEDIR) {
                Ok(()) | Err(Errno::NOENT | Errno::BUSY | Errno::NOTEMPTY) => {}
                Err(error) if result.is_ok() => {
                    let path = group.directory_path(at);
                    result = Err(Error::Remove { path, source: error.into() });
                }
                Err(_) => {}
            }
        }
        result
    }
}

/// How deep groups are looked for.
const DEPTH: usize = 64;

/// Removes all groups below one, the deepest first.
fn remove_below(directory: BorrowedFd<'_>, depth: usize) -> Result<(), Errno> {
    if depth == DEPTH {
        return Ok(());
    }
    let names = children(directory)
        .map_err(|error| error.raw_os_error().map_or(Errno::IO, Errno::from_raw_os_error))?;
    for name in names {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC | OFlags::NOFOLLOW;
        match rustix::fs::openat(directory, &*name, flags, Mode::empty()) {
            Ok(child) => remove_below(child.as_fd(), depth + 1)?,
            Err(Errno::NOENT) => continue,
            Err(error) => return Err(error),
        }
        match rustix::fs::unlinkat(directory, &*name, AtFlags::REMOVEDIR) {
            Ok(()) | Err(Errno::NOENT | Errno::BUSY | Errno::NOTEMPTY) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}
