//! Silo's engine: containers, images, volumes, networks and events, and all policy about them.
//!
//! [`Engine`] is the one object that a face (the HTTP API, later CRI) talks to. Its methods take
//! and return the models of `silo_docker` and fail with [`silo_types::Error`], whose message is
//! worded as dockerd words it.
//!
//! # What lies where
//!
//! ```text
//! <data>/silo.db                     records (SQLite, module `db`)
//! <data>/content, layers, snapshots  silo_store
//! <data>/containers/<id>/            config.json (OCI spec), shim.json, hosts, hostname,
//!                                    resolv.conf, <id>-json.log, exit.json
//! <data>/volumes/<name>/_data        named and anonymous volumes
//! <run>/shims/<id>/                  socket and pid of the container's shim
//! ```
//!
//! A container's record is written with full synchronisation when it is created and removed;
//! changes of its state are cheap writes, since the shim's own exit record tells the truth about
//! an end that the database has not seen. A container that goes by itself (`--rm`) is never
//! synchronised: a power cut would end it anyway.
//!
//! # Locks
//!
//! A container's state changes only under its `live` lock. Everybody else reads the state from a
//! watch channel and the record from behind an `Arc`, so that lists never wait for a start.

mod accounts;
pub mod builds;
mod config;
pub mod container;
pub mod containers;
pub mod db;
mod detach;
mod engine;
pub mod events;
mod health;
pub mod host;
pub mod images;
pub mod mountpoints;
pub mod networks;
mod recovery;
mod restart;
mod seccomp;
mod signal;
pub mod spec;
pub mod system;
pub mod volumes;
mod windows;

pub use config::{DEFAULT_WINDOWS_BUILD, EngineConfig};
pub use engine::Engine;
pub use silo_http::Proxies;
pub use silo_registry::Credentials;
