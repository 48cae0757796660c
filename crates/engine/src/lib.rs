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
//! an end that the database has not seen.

mod config;
pub mod db;
pub mod events;
pub mod images;
pub mod system;
pub mod volumes;

pub use config::EngineConfig;
