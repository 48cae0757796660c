//! The compute layer: the OCI runtime specification in, isolated processes out.
//!
//! [`create`] makes a container from a configuration (`silo_oci::runtime::Spec`) and a root: its
//! namespaces, its mounts, its first process, which then waits at a [`Gate`] for the order to
//! run the container's program. [`exec`] starts a further process in a running container.
//! Both must be called by a process with a single thread, since they copy it.
//!
//! # How it keeps the container's tricks out
//!
//! - The host's share of a container is opened before the container's process exists, as
//!   descriptors of detached mounts. The container's own names are resolved beneath a descriptor
//!   of its root by openat2(2) only, and mounted on by descriptor.
//! - What is written to procfs is written through a descriptor that was seen to be procfs.
//! - `/proc`, `/sys` and `/dev` of the root may not be links.
//! - The null device that covers masked files is the host's; the terminal is found by ioctl.
//! - Every descriptor above 2 is close-on-exec when a program is executed, those that the
//!   caller wants preserved aside, and the working directory is opened without magic links.
//! - Waiting is done on descriptors of processes, errors cross as messages, and the process that
//!   joins a container's namespaces cannot be traced from there.
#![warn(missing_docs)]

mod cgroupfs;
pub mod cli;
mod copyup;
mod create;
mod devices;
mod error;
mod exec;
mod finish;
mod gate;
pub mod hooks;
mod identity;
mod init;
mod namespaces;
mod netdev;
mod notify;
mod options;
mod program;
mod request;
mod resctrl;
mod rootfs;
mod sources;
mod sync;
mod sysctl;

pub use create::{create, resources, root_of};
pub use error::Error;
pub use exec::exec;
pub use gate::Gate;
pub use request::{CreateRequest, Created, ExecRequest, GateKind, Root, Started, Stdio};
