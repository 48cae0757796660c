//! The compute layer as Silo has it.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::event::PollFlags;
use rustix::process::Pid;
use silo_cgroup::{Cgroup, CgroupPath, Cgroups, OomEvents};
use silo_oci::runtime::{NamespaceKind, Process, Spec};
use silo_runtime::{CreateRequest, ExecRequest, Gate, Root, Stdio};
use silo_seccomp::Program;
use silo_types::{ErrorKind, Kind};

use super::compute::{Compute, Launched};
use super::supervisor::internal;
use crate::config::{RootConfig, ShimConfig};
use crate::handle::Given;
use crate::protocol::Failure;

/// A container made by `silo_runtime` in a control group of its own.
pub(super) struct OciCompute {
    config: ShimConfig,
    given: Given,
    cgroup: Cgroup,
    oom: Option<OomEvents>,
    gate: Option<Gate>,
    /// The filter that every process of the container gets.
    filter: Option<Program>,
    /// Whether the kernel ends all processes with the first one.
    dies_together: bool,
    /// Keeps the container's mount namespace. Otherwise the kernel would take it apart, which
    /// lasts as long as all the rest of a short container, before it reports the exit.
    mounts: Option<OwnedFd>,
}

impl OciCompute {
    /// Makes the control group.
    pub(super) fn new(config: &ShimConfig, given: Given) -> Result<Self, Failure> {
        let path = config.cgroup.to_string_lossy();
        let cgroup = CgroupPath::from_oci(&path, config.id.as_str())
            .and_then(|path| Cgroups::detect()?.create(&path))
            .map_err(refused)?;
        Ok(Self {
            config: config.clone(),
            given,
            cgroup,
            oom: None,
            gate: None,
            filter: None,
            dies_together: false,
            mounts: None,
        })
    }

    fn spec(&self) -> Result<Spec, Failure> {
        let path = self.config.spec_path();
        let bytes = fs_err::read(&path).map_err(internal("shim"))?;
        serde_json::from_slice(&bytes).map_err(|error| {
            Failure::new(ErrorKind::Internal, format!("{} is damaged: {error}", path.display()))
        })
    }

    fn try_create(&mut self, stdio: Stdio) -> Result<Launched, Failure> {
        let spec = self.spec()?;
        let pids = spec.namespace(NamespaceKind::Pid);
        self.dies_together = pids.is_some_and(|namespace| namespace.path.is_none());
        if let Some(linux) = &spec.linux {
            if let Some(resources) = &linux.resources {
                self.cgroup.apply(resources).map_err(refused)?;
            }
            if let Some(seccomp) = &linux.seccomp {
                self.filter = Some(silo_seccomp::compile(seccomp).map_err(refused)?);
            }
        }
        self.oom = self.cgroup.oom_events().map_err(refused)?;
        let root = match &self.config.root {
            RootConfig::Path(path) => Root::Path(path.clone()),
            RootConfig::Overlay { lowers, upper, work, volatile } => Root::Overlay {
                lowers: lowers.clone(),
                upper: upper.clone(),
                work: work.clone(),
                volatile: *volatile,
            },
        };
        let id = self.config.id.to_string();
        let mut request = CreateRequest::new(&id, &self.config.container_dir, &spec, root);
        request.stdio = stdio;
        request.netns = self.given.netns.take();
        let trees = std::mem::take(&mut self.given.trees).into_iter().map(|(_, tree)| tree);
        request.trees.extend(self.config.trees.iter().map(Into::into).zip(trees));
        request.trees.extend(self.given.shm.take().map(|shm| ("/dev/shm".into(), shm)));
        request.cgroup = Some(&self.cgroup);
        request.dies_with_caller = true;
        request.filter.clone_from(&self.filter);
        if let Some(path) = &self.config.init_binary {
            let file = fs_err::File::open(path).map_err(internal("init program"))?;
            request.init_binary = Some(file.into_file().into());
        }
        let created = silo_runtime::create(request).map_err(compute)?;
        self.gate = Some(created.gate);
        let mounts = format!("/proc/{}/ns/mnt", created.pid.as_raw_nonzero());
        self.mounts = fs_err::File::open(mounts).ok().map(|file| file.into_file().into());
        Ok(Launched { pid: created.pid, pidfd: created.pidfd, console: created.console })
    }
}

fn refused(error: impl Kind + 'static) -> Failure {
    Failure::new(error.kind(), silo_types::error::chain(&error))
}

fn compute(error: silo_runtime::Error) -> Failure {
    let exit_code = error.exit_status().map(i32::from);
    Failure { exit_code, ..refused(error) }
}

impl Compute for OciCompute {
    fn create(&mut self, stdio: Stdio) -> Result<Launched, Failure> {
        let result = self.try_create(stdio);
        if result.is_err() {
            self.destroy();
        }
        result
    }

    fn start(&mut self) -> Result<(), Failure> {
        let gate = self
            .gate
            .take()
            .ok_or_else(|| Failure::new(ErrorKind::Conflict, "the container was started before"))?;
        gate.start().map_err(compute)
    }

    fn exec(
        &mut self,
        init: (Pid, BorrowedFd<'_>),
        process: &Process,
        stdio: Stdio,
    ) -> Result<Launched, Failure> {
        // A filter with a listener needs more of the configuration than the filter.
        let spec = match &self.filter {
            Some(filter) if filter.notifies() => Some(self.spec()?),
            _ => None,
        };
        let mut request = ExecRequest::new(init.0, init.1, process);
        request.stdio = stdio;
        request.cgroup = Some(&self.cgroup);
        request.filter.clone_from(&self.filter);
        request.seccomp = spec.as_ref().and_then(|spec| spec.linux.as_ref()?.seccomp.as_ref());
        let started = silo_runtime::exec(request).map_err(compute)?;
        Ok(Launched { pid: started.pid, pidfd: started.pidfd, console: started.console })
    }

    fn signal_all(&mut self, signal: i32) -> Result<(), Failure> {
        for pid in self.cgroup.pids().map_err(refused)? {
            // One that has ended meanwhile is no failure.
            if let Some(pid) = Pid::from_raw(pid)
                && let Ok(pidfd) =
                    rustix::process::pidfd_open(pid, rustix::process::PidfdFlags::empty())
            {
                silo_sys::process::send_signal(&pidfd, signal).unwrap_or_default();
            }
        }
        Ok(())
    }

    fn kill_all(&mut self) {
        self.cgroup.kill_all().unwrap_or_default();
    }

    fn kill_rest(&mut self) {
        if !self.dies_together && self.cgroup.kill_all().is_ok() {
            // Its processes have let go of their output when it is gone.
            self.destroy();
        }
    }

    fn oom(&self) -> Option<(BorrowedFd<'_>, PollFlags)> {
        self.oom.as_ref().map(|events| (events.as_fd(), PollFlags::IN))
    }

    fn take_oom(&mut self) -> bool {
        self.oom.as_mut().is_some_and(|events| events.take().is_ok_and(|count| count > 0))
    }

    fn destroy(&mut self) {
        self.oom = None;
        self.mounts = None;
        // What is in the way is killed; what even then cannot be removed, the engine's next
        // look at leftovers finds.
        if self.cgroup.remove().is_err() && self.cgroup.kill_all().is_ok() {
            self.cgroup.remove().unwrap_or_default();
        }
    }
}
