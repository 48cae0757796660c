//! The state of containers on disk.

use std::collections::BTreeMap;
use std::io::Write as _;
use std::os::fd::OwnedFd;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};

use rustix::fs::{Mode, OFlags};
use rustix::process::{Pid, PidfdFlags};
use serde::{Deserialize, Serialize};
use silo_cgroup::{Cgroup, CgroupPath, Cgroups};
use silo_oci::runtime::{Spec, State, Status};

use crate::error::{Context as _, Error};

/// The socket at which a container waits for its start.
pub(super) const START: &str = "start";
const STATE: &str = "state.json";

/// The directory with one directory for each container.
#[derive(Debug)]
pub(super) struct Store {
    root: PathBuf,
}

/// What is kept of a container.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Record {
    pub(super) id: String,
    /// The process id, and when it began, in ticks since the host did: together they name one
    /// process for ever.
    pub(super) pid: i32,
    pub(super) start_time: u64,
    pub(super) bundle: PathBuf,
    pub(super) rootfs: PathBuf,
    pub(super) created: String,
    pub(super) owner: String,
    pub(super) annotations: BTreeMap<String, String>,
    /// The cgroup as the configuration has it; nothing if there is none.
    pub(super) cgroup: Option<String>,
    /// The configuration at the time of creation.
    pub(super) spec: Spec,
}

/// A container's directory and record.
#[derive(Debug)]
pub(super) struct Container {
    pub(super) directory: PathBuf,
    pub(super) record: Record,
}

/// Refuses ids that are not the name of a file.
pub(super) fn check_id(id: &str) -> Result<(), Error> {
    let allowed = |c: char| c.is_ascii_alphanumeric() || "_+-.".contains(c);
    if id.is_empty() || id.len() > 255 || !id.chars().all(allowed) || id == "." || id == ".." {
        return Err(Error::invalid(format!("invalid container id: {id:?}")));
    }
    Ok(())
}

impl Store {
    pub(super) fn new(root: Option<&Path>) -> Result<Self, Error> {
        let root = match root {
            Some(root) => std::path::absolute(root).step(|| "find state directory".into())?,
            None if rustix::process::geteuid().is_root() => "/run/silo/runtime".into(),
            None => std::env::var_os("XDG_RUNTIME_DIR")
                .map(|directory| PathBuf::from(directory).join("silo/runtime"))
                .ok_or_else(|| Error::invalid("XDG_RUNTIME_DIR is not set; give --root"))?,
        };
        Ok(Self { root })
    }

    /// Makes the directory of a new container.
    pub(super) fn reserve(&self, id: &str) -> Result<PathBuf, Error> {
        check_id(id)?;
        let step = || format!("make state directory in {}", self.root.display());
        fs_err::create_dir_all(&self.root).step(step)?;
        let directory = self.root.join(id);
        match std::fs::DirBuilder::new().mode(0o700).create(&directory) {
            Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {
                Err(Error::State("container with given ID already exists".into()))
            }
            Err(error) => Err(Error::step(step(), error)),
            Ok(()) => Ok(directory),
        }
    }

    pub(super) fn open(&self, id: &str) -> Result<Container, Error> {
        check_id(id)?;
        let directory = self.root.join(id);
        let bytes = match fs_err::read(directory.join(STATE)) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                return Err(Error::NoContainer(id.to_owned()));
            }
            result => result.step(|| format!("read state of {id}"))?,
        };
        let record = serde_json::from_slice(&bytes)
            .map_err(|error| Error::invalid(format!("state of {id}: {error}")))?;
        Ok(Container { directory, record })
    }

    /// The directory of a container that may have no record, left by a failed creation.
    pub(super) fn leftover(&self, id: &str) -> Option<PathBuf> {
        let directory = self.root.join(id);
        fs_err::metadata(&directory).ok().filter(std::fs::Metadata::is_dir).map(|_| directory)
    }

    /// All containers, by their ids. One that vanishes meanwhile is left out.
    pub(super) fn all(&self) -> Result<Vec<Container>, Error> {
        let entries = match fs_err::read_dir(&self.root) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(vec![]),
            result => result.step(|| "list containers".into())?,
        };
        let mut containers = Vec::new();
        for entry in entries {
            let entry = entry.step(|| "list containers".into())?;
            let name = entry.file_name();
            match name.to_str().map(|id| self.open(id)) {
                Some(Ok(container)) => containers.push(container),
                None | Some(Err(Error::NoContainer(_) | Error::Invalid { .. })) => {}
                Some(Err(error)) => return Err(error),
            }
        }
        containers.sort_by(|a, b| a.record.id.cmp(&b.record.id));
        Ok(containers)
    }
}

/// Writes a file as a whole: under another name first.
pub(super) fn replace(path: &Path, content: &[u8]) -> Result<(), Error> {
    let step = || format!("write {}", path.display());
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(format!(".{}", std::process::id()));
    let other = path.with_file_name(name);
    let write = || -> std::io::Result<()> {
        let mut file = fs_err::File::create(&other)?;
        file.write_all(content)?;
        fs_err::rename(&other, path)
    };
    write().step(step)
}

/// When the process began, unless it has ended.
pub(super) fn start_time(pid: i32) -> Option<u64> {
    let stat = fs_err::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name in parentheses may contain anything.
    let mut fields = stat.rsplit_once(')')?.1.split_ascii_whitespace();
    let state = fields.next()?;
    if matches!(state, "Z" | "X") {
        return None;
    }
    fields.nth(18)?.parse().ok()
}

impl Container {
    pub(super) fn save(&self) -> Result<(), Error> {
        let json =
            serde_json::to_vec(&self.record).map_err(|error| Error::invalid(error.to_string()))?;
        replace(&self.directory.join(STATE), &json)
    }

    /// A descriptor of the container's process, unless that has ended.
    pub(super) fn process(&self) -> Option<(Pid, OwnedFd)> {
        let pid = Pid::from_raw(self.record.pid)?;
        let pidfd = rustix::process::pidfd_open(pid, PidfdFlags::empty()).ok()?;
        // Looked at after opening, so the descriptor is of the process that is looked at.
        (start_time(self.record.pid)? == self.record.start_time).then_some((pid, pidfd))
    }

    pub(super) fn status(&self) -> Status {
        if self.process().is_none() {
            return Status::Stopped;
        }
        if self.waits() {
            return Status::Created;
        }
        match self.cgroup().ok().flatten().map(|cgroup| cgroup.is_frozen()) {
            Some(Ok(true)) => Status::Paused,
            _ => Status::Running,
        }
    }

    /// Whether the start has not begun.
    fn waits(&self) -> bool {
        rustix::fs::lstat(self.directory.join(START)).is_ok()
    }

    pub(super) fn open_directory(&self) -> Result<OwnedFd, Error> {
        open_directory(&self.directory)
    }

    pub(super) fn cgroup(&self) -> Result<Option<Cgroup>, Error> {
        let Some(path) = &self.record.cgroup else { return Ok(None) };
        let path = CgroupPath::from_oci(path, &self.record.id).map_err(cgroup_error)?;
        let cgroups = Cgroups::detect().map_err(cgroup_error)?;
        match cgroups.open(&path) {
            Ok(cgroup) => Ok(Some(cgroup)),
            Err(silo_cgroup::Error::NotFound(_)) => Ok(None),
            Err(error) => Err(cgroup_error(error)),
        }
    }

    /// The state as hooks and callers read it.
    pub(super) fn state(&self, status: Status) -> State {
        let pid = if status == Status::Stopped { 0 } else { self.record.pid };
        State {
            oci_version: silo_oci::runtime::VERSION.into(),
            id: self.record.id.clone(),
            status,
            pid,
            bundle: self.record.bundle.clone(),
            annotations: self.record.annotations.clone(),
        }
    }
}

pub(super) fn open_directory(path: &Path) -> Result<OwnedFd, Error> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    rustix::fs::open(path, flags, Mode::empty()).step(|| format!("open {}", path.display()))
}

pub(super) fn cgroup_error(error: silo_cgroup::Error) -> Error {
    Error::Step { step: "cgroup".into(), cause: silo_types::error::chain(&error), errno: None }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_names() {
        for id in ["a", "a.b-c_d+1", "0"] {
            assert!(check_id(id).is_ok());
        }
        for id in ["", ".", "..", "a/b", "a b", "ä", &"x".repeat(256)] {
            assert!(check_id(id).is_err(), "{id}");
        }
    }

    #[test]
    fn own_process_has_a_beginning() {
        let own = i32::try_from(std::process::id()).unwrap();
        assert!(start_time(own).unwrap() > 0);
        assert_eq!(start_time(i32::MAX), None);
    }
}
