//! System call filters: profiles in, classic BPF out. No input or output of its own.
//!
//! - [`default_profile`] is Docker's default profile, [`docker_profile_json`] reads Docker's
//!   JSON; both resolve conditions (capabilities, architecture, kernel) to the filter of the
//!   OCI runtime specification.
//! - [`compile`] turns that into a [`Program`] for seccomp(2): several architectures in one
//!   filter, comparisons of 64-bit arguments, a balanced tree over the calls' numbers.
//!
//! Where the specification is silent, libseccomp as used by runc is followed: see [`compile`].
#![warn(missing_docs)]

mod arch;
mod assemble;
mod compile;
mod default;
mod error;
mod multiplex;
mod policy;
mod profile;
mod program;
mod table;
#[cfg(test)]
mod tests;

pub use arch::Arch;
pub use compile::{compile, compile_for};
pub use error::Error;
pub use profile::{Host, default_profile, docker_profile_json};
pub use program::{
    FLAG_LOG, FLAG_NEW_LISTENER, FLAG_SPEC_ALLOW, FLAG_TSYNC, FLAG_WAIT_KILLABLE_RECV,
    MAX_INSTRUCTIONS, Program,
};
