//! What callers ask for, and what they get.

use std::os::fd::{BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::process::Pid;
use silo_cgroup::Cgroup;
use silo_oci::runtime::{LinuxPersonality, LinuxSeccomp, Process, Spec};
use silo_seccomp::Program;
use silo_sys::pty::Size;

use crate::gate::Gate;

/// The root file system of a container.
#[derive(Debug)]
pub enum Root {
    /// A directory.
    Path(PathBuf),
    /// An overlay that is mounted in the container's mount namespace only.
    Overlay {
        /// The read-only layers, the topmost first.
        lowers: Vec<PathBuf>,
        /// The writable layer.
        upper: PathBuf,
        /// Its work directory.
        work: PathBuf,
        /// Nothing of it has to outlive a power cut: `fsync` in the container and the end of the
        /// mount write nothing back (overlayfs `volatile`).
        volatile: bool,
    },
    /// A detached mount, as [`silo_sys::mount::overlay`] makes.
    Mount(OwnedFd),
}

/// What a process has as descriptors 0, 1 and 2.
#[derive(Debug)]
pub enum Stdio {
    /// The caller's own.
    Inherit,
    /// These; one that is absent is `/dev/null`.
    Fds {
        /// Standard input.
        stdin: Option<OwnedFd>,
        /// Standard output.
        stdout: Option<OwnedFd>,
        /// Standard error.
        stderr: Option<OwnedFd>,
    },
    /// A new terminal of the container's.
    Terminal {
        /// Its size, left at nothing when absent.
        size: Option<Size>,
    },
}

/// Where the container's process waits for the order to run its program.
#[derive(Debug)]
pub enum GateKind {
    /// At the [`Gate`] that the caller gets, for a caller that stays.
    Held,
    /// At a listening Unix socket of packets, for whoever connects with [`Gate::connect`].
    Listener(OwnedFd),
}

/// A container to make.
#[derive(Debug)]
pub struct CreateRequest<'a> {
    /// Its id, for hooks, the keyring and errors.
    pub id: &'a str,
    /// The directory that relative paths of the configuration start from.
    pub bundle: &'a Path,
    /// The configuration.
    pub spec: &'a Spec,
    /// The root, in place of the configuration's.
    pub root: Root,
    /// The program's standard streams.
    pub stdio: Stdio,
    /// A network namespace to join in place of the configuration's.
    pub netns: Option<OwnedFd>,
    /// A program that is bound read-only at `/sbin/docker-init`.
    pub init_binary: Option<OwnedFd>,
    /// Detached mounts that are bound in place of the sources of the configuration's bind mounts
    /// with these destinations.
    pub trees: Vec<(PathBuf, OwnedFd)>,
    /// How many descriptors from 3 on the program inherits, where they are open and not
    /// close-on-exec.
    pub preserve_fds: u32,
    /// Its cgroup; the caller's own without.
    pub cgroup: Option<&'a Cgroup>,
    /// The system call filter, already compiled; the configuration's is compiled when absent.
    pub filter: Option<Program>,
    /// Where it waits for its start.
    pub gate: GateKind,
    /// Whether the program keeps the caller's session keyring.
    pub keep_keyring: bool,
    /// Whether the root is moved rather than pivoted to, for hosts that run from a RAM disk.
    pub no_pivot: bool,
    /// Whether the kernel kills the container when the caller ends, for a caller that stays.
    pub dies_with_caller: bool,
}

impl<'a> CreateRequest<'a> {
    /// A request with the usual answers for everything else.
    pub fn new(id: &'a str, bundle: &'a Path, spec: &'a Spec, root: Root) -> Self {
        Self {
            id,
            bundle,
            spec,
            root,
            stdio: Stdio::Inherit,
            netns: None,
            init_binary: None,
            trees: Vec::new(),
            preserve_fds: 0,
            cgroup: None,
            filter: None,
            gate: GateKind::Held,
            keep_keyring: false,
            no_pivot: false,
            dies_with_caller: false,
        }
    }
}

/// A container that was made; its program does not run yet.
#[derive(Debug)]
pub struct Created {
    /// The process id of its first process, as the caller sees it.
    pub pid: Pid,
    /// Readable when that process has ended.
    pub pidfd: OwnedFd,
    /// The master of its terminal.
    pub console: Option<OwnedFd>,
    /// Starts the program.
    pub gate: Gate,
}

/// A process to start in a running container.
#[derive(Debug)]
pub struct ExecRequest<'a> {
    /// The container's first process.
    pub pidfd: BorrowedFd<'a>,
    /// The same as a number.
    pub pid: Pid,
    /// The process.
    pub process: &'a Process,
    /// The container's execution domain.
    pub personality: Option<&'a LinuxPersonality>,
    /// The container's system call filter.
    pub seccomp: Option<&'a LinuxSeccomp>,
    /// The filter already compiled, in place of `seccomp`.
    pub filter: Option<Program>,
    /// The process's standard streams.
    pub stdio: Stdio,
    /// How many descriptors from 3 on the process inherits, where they are open and not
    /// close-on-exec.
    pub preserve_fds: u32,
    /// The container's cgroup.
    pub cgroup: Option<&'a Cgroup>,
    /// The container's state, for a listener of the filter.
    pub state: Option<&'a silo_oci::runtime::State>,
    /// Whether the process keeps the caller's session keyring.
    pub keep_keyring: bool,
}

impl<'a> ExecRequest<'a> {
    /// A request with the usual answers for everything else.
    pub fn new(pid: Pid, pidfd: BorrowedFd<'a>, process: &'a Process) -> Self {
        Self {
            pidfd,
            pid,
            process,
            personality: None,
            seccomp: None,
            filter: None,
            stdio: Stdio::Inherit,
            preserve_fds: 0,
            cgroup: None,
            state: None,
            keep_keyring: false,
        }
    }
}

/// A process that runs.
#[derive(Debug)]
pub struct Started {
    /// Its process id as the caller sees it.
    pub pid: Pid,
    /// Readable when it has ended.
    pub pidfd: OwnedFd,
    /// The master of its terminal.
    pub console: Option<OwnedFd>,
}
