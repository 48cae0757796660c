//! The compute layer as Silo has it.

use std::os::fd::{BorrowedFd, OwnedFd};

use rustix::event::PollFlags;
use rustix::process::Pid;
use silo_oci::runtime::{Process, Spec};
use silo_runtime::{CreateRequest, ExecRequest, Gate, Root, Stdio};
use silo_types::{ErrorKind, Kind};

use super::compute::{Compute, Launched};
use super::supervisor::internal;
use crate::config::{RootConfig, ShimConfig};
use crate::protocol::Failure;

/// A container made by `silo_runtime` in a control group of its own.
pub(super) struct OciCompute {
    config: ShimConfig,
    netns: Option<OwnedFd>,
    gate: Option<Gate>,
}

impl OciCompute {
    pub(super) fn new(config: &ShimConfig, netns: Option<OwnedFd>) -> Result<Self, Failure> {
        Ok(Self { config: config.clone(), netns, gate: None })
    }

    /// Read anew when it is needed: a filter for system calls makes it large.
    fn spec(&self) -> Result<Spec, Failure> {
        let path = self.config.spec_path();
        let bytes = fs_err::read(&path).map_err(internal("shim"))?;
        serde_json::from_slice(&bytes).map_err(|error| {
            Failure::new(ErrorKind::Internal, format!("{} is damaged: {error}", path.display()))
        })
    }
}

fn refused(error: silo_runtime::Error) -> Failure {
    let exit_code = error.exit_status().map(i32::from);
    let kind = error.kind();
    Failure { status: kind.http_status(), message: silo_types::error::chain(&error), exit_code }
}

impl Compute for OciCompute {
    fn create(&mut self, stdio: Stdio) -> Result<Launched, Failure> {
        let spec = self.spec()?;
        let root = match &self.config.root {
            RootConfig::Path(path) => Root::Path(path.clone()),
            RootConfig::Overlay { lowers, upper, work } => {
                Root::Overlay { lowers: lowers.clone(), upper: upper.clone(), work: work.clone() }
            }
        };
        let id = self.config.id.to_string();
        let mut request = CreateRequest::new(&id, &self.config.container_dir, &spec, root);
        request.stdio = stdio;
        request.netns = self.netns.take();
        if let Some(path) = &self.config.init_binary {
            let file = fs_err::File::open(path).map_err(internal("init program"))?;
            request.init_binary = Some(file.into_file().into());
        }
        let created = silo_runtime::create(request).map_err(refused)?;
        self.gate = Some(created.gate);
        Ok(Launched { pid: created.pid, pidfd: created.pidfd, console: created.console })
    }

    fn start(&mut self) -> Result<(), Failure> {
        let gate = self
            .gate
            .take()
            .ok_or_else(|| Failure::new(ErrorKind::Conflict, "the container was started before"))?;
        gate.start().map_err(refused)
    }

    fn exec(
        &mut self,
        init: (Pid, BorrowedFd<'_>),
        process: &Process,
        stdio: Stdio,
    ) -> Result<Launched, Failure> {
        let spec = self.spec()?;
        let mut request = ExecRequest::new(init.0, init.1, process);
        request.stdio = stdio;
        request.seccomp = spec.linux.as_ref().and_then(|linux| linux.seccomp.as_ref());
        let started = silo_runtime::exec(request).map_err(refused)?;
        Ok(Launched { pid: started.pid, pidfd: started.pidfd, console: started.console })
    }

    fn signal_all(&mut self, signal: i32) -> Result<(), Failure> {
        let _ = signal;
        Ok(())
    }

    fn kill_rest(&mut self) {}

    fn oom(&self) -> Option<(BorrowedFd<'_>, PollFlags)> {
        None
    }

    fn take_oom(&mut self) -> bool {
        false
    }

    fn destroy(&mut self) {}
}
