//! The other side: what `silo build` speaks to an engine.
//!
//! A build has two connections, both upgraded to HTTP/2. On one, [`share`] answers what the
//! builder asks for: files of directories, secrets, SSH agents, and where results go. On the
//! other, [`solve`] asks for the build and follows it.

mod services;
mod session;
mod solve;

use std::collections::HashMap;
use std::path::PathBuf;

pub use session::{METHODS, share};
pub use silo_build::progress::{Log, Status, Stream, Vertex};
pub use solve::{Failed, Update, solve};

/// Whether a context is fetched by the engine, and no directory of the client's.
pub fn is_remote(context: &str) -> bool {
    crate::attributes::remote(context).is_some()
}

/// What a client lets its build have.
#[derive(Debug, Default)]
pub struct Share {
    /// Directories by the name that the build knows them by.
    pub directories: HashMap<String, PathBuf>,
    /// Secrets by id.
    pub secrets: HashMap<String, Secret>,
    /// Sockets of SSH agents by id.
    pub agents: HashMap<String, PathBuf>,
    /// Where results go, in the order of the build's exporters; `None` for those that stay.
    pub outputs: Vec<Option<Output>>,
    /// An archive to be read from standard input, by its id.
    pub archive: Option<(String, Vec<u8>)>,
}

/// A secret.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Secret {
    /// The content of a file.
    File(PathBuf),
    /// A value.
    Value(Vec<u8>),
}

/// Where a result goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Output {
    /// Files below a directory.
    Directory(PathBuf),
    /// One file.
    File(PathBuf),
    /// Standard output.
    Stdout,
}

/// What is asked for.
#[derive(Debug, Clone, Default)]
pub struct Build {
    /// A name for the build, unlike any other.
    pub reference: String,
    /// The id of the session that [`share`] serves.
    pub session: String,
    /// Attributes of the Dockerfile frontend.
    pub attributes: HashMap<String, String>,
    /// Kinds of results with their attributes.
    pub exporters: Vec<(String, HashMap<String, String>)>,
}
