//! Linux system calls that need `unsafe`, made safe. No other crate of Silo has `unsafe`.
//!
//! A module has one subject and wraps calls that rustix does not have, or combinations of
//! calls whose order is the point. Every block names the invariant that makes it sound.
//! Functions return [`std::io::Result`]; the caller adds which operation on what it was.
#![warn(missing_docs)]

pub mod bpf;
pub mod fdpass;
pub mod lock;
pub mod mount;
pub mod namespace;
pub mod netns;
pub mod path;
pub mod process;
pub mod pty;
pub mod seccomp;
pub mod signal;
pub mod socket;
pub mod spawn;
