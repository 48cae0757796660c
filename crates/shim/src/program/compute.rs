//! What the supervisor needs of the compute layer, and that layer.

use std::os::fd::{BorrowedFd, OwnedFd};

use rustix::event::PollFlags;
use rustix::process::Pid;
use silo_oci::runtime::Process;
use silo_runtime::Stdio;

use crate::protocol::Failure;

/// A process that was made.
#[derive(Debug)]
pub(super) struct Launched {
    pub(super) pid: Pid,
    pub(super) pidfd: OwnedFd,
    pub(super) console: Option<OwnedFd>,
}

/// One container, as the supervisor drives it.
pub(super) trait Compute {
    /// Makes the container up to the moment before its program. Leaves nothing when it fails.
    fn create(&mut self, stdio: Stdio) -> Result<Launched, Failure>;

    /// Runs the program.
    fn start(&mut self) -> Result<(), Failure>;

    /// Starts a process beside `init`.
    fn exec(
        &mut self,
        init: (Pid, BorrowedFd<'_>),
        process: &Process,
        stdio: Stdio,
    ) -> Result<Launched, Failure>;

    /// Sends a signal to every process.
    fn signal_all(&mut self, signal: i32) -> Result<(), Failure>;

    /// Kills every process.
    fn kill_all(&mut self);

    /// Kills whatever is left after the first process.
    fn kill_rest(&mut self);

    /// What to wait for to learn of an OOM kill.
    fn oom(&self) -> Option<(BorrowedFd<'_>, PollFlags)>;

    /// Whether there was an OOM kill since this was asked before.
    fn take_oom(&mut self) -> bool;

    /// Takes back everything but the processes' files.
    fn destroy(&mut self);
}
