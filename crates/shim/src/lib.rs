//! The supervisor of one container: a small single-threaded process between the daemon, which
//! may stop, crash or be replaced at any time, and the container, which must not notice.
//!
//! The shim creates the container through `silo_runtime` and is the parent of its processes. It
//! holds the other ends of their pipes or terminals, writes the container's log, records the
//! exit on disk and serves a socket. [`Shim`] is the daemon's side of that socket.
//!
//! # Files
//!
//! ```text
//! <container dir>/config.json   OCI runtime configuration          written by the engine
//! <container dir>/shim.json     config::ShimConfig                 written by Shim::spawn
//! <container dir>/exit.json     exit::ExitRecord                   written by the shim
//! <container dir>/<id>-json.log, local-logs/container.log          written by the shim, see logs
//! <run dir>/shim.sock           the control socket, mode 0600
//! <run dir>/pid                 decimal process id of the shim, newline
//! ```
//!
//! `exit.json` is removed when a shim starts and appears, by a rename, when the container has
//! ended: after its last output is in the log, before anybody is told.
//!
//! # Protocol
//!
//! Both directions of the control socket carry one JSON object a line; see [`protocol`]. The
//! socket on which the shim was born (an inherited descriptor) is the first such connection.
//! Output and input of processes travel on sockets of their own, handed over as descriptors
//! with the request to attach: output in Docker's frames (one byte of stream number, three
//! zeros, the length as a big-endian 32-bit number, the bytes), input raw, end of input as a
//! half-close.
//!
//! # Flow control
//!
//! The shim reads a stream of a process only while every client that is attached to it has
//! taken what came before, so a slow client holds the process as in Docker, one that went away
//! does not, and no buffer outgrows one read of each stream.
#![warn(missing_docs)]

pub mod config;
pub mod exit;
mod handle;
pub mod logs;
mod program;
pub mod protocol;

pub use handle::{AttachStream, Attached, Shim, ShimError};
pub use program::main;
