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
//! <container dir>/shim.panic    text of a panic of the shim        written by the shim
//! <container dir>               locked by flock(2) as long as a shim exists, see below
//! <run dir>/shim.sock           the control socket, mode 0600
//! <run dir>/pid                 decimal process id of the shim, newline
//! ```
//!
//! `exit.json` is removed when a shim starts and appears, by a rename, when the container has
//! ended: after its last output is in the log, before anybody is told.
//!
//! # One shim for a container
//!
//! The daemon locks the container's directory and gives the lock to the shim that it starts. The
//! shim keeps it until it has given back everything of the container, after which it may stay
//! for clients that are slow to take output. Whoever wants to start the container again, to
//! remove it, or to judge how it ended takes the lock first ([`gone`] and [`Shim::spawn`] do).
//!
//! The daemon may be killed at any moment, and then the next one finds:
//!
//! | the daemon is killed | the shim | the next daemon |
//! | --- | --- | --- |
//! | before it has the lock | does not exist | settles by the last exit record |
//! | with the lock, before the shim is executed | begins, sees the end of its connection, makes nothing and leaves | waits for the lock |
//! | while the container is made | makes it, then sees the end of its connection; kills it, removes the cgroup, leaves | waits for the lock; if it connects to the socket before, it asks for the same |
//! | after the shim said *created*, before it was told to start | the same | the same |
//! | with the request to start on its way | starts the program and serves on: what was asked for is done | connects and takes the container up, with [`config::ShimConfig::note`] |
//! | after the start, before or after the answer was read | serves on | the same |
//! | while the container runs | serves on | the same |
//! | after that, and the container ends | writes the exit record, removes socket and cgroup, leaves | waits for the lock, reads the record |
//!
//! A container that was not started before its daemon was lost leaves no exit record.
//!
//! When the shim is killed, the kernel kills the container's first process and with it all in
//! its PID namespace. What lives on (a program that changed its user is let off by the kernel,
//! one that shares the PIDs of others is not in such a namespace) is in the cgroup, which the
//! daemon, at once or when it begins, kills and removes. Other signals do nothing to a shim, so
//! that a service manager that ends a whole group of processes does not end containers by them.
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

mod claim;
pub mod config;
pub mod exit;
mod handle;
pub mod logs;
mod program;
pub mod protocol;

pub use claim::{Living, gone, kill, living};
pub use handle::{AttachStream, Attached, Given, Shim, ShimError};
pub use program::main;
