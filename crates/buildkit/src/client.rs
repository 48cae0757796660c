//! The other side: what `silo build` speaks to an engine.
//!
//! A build has two connections, both upgraded to HTTP/2. On one, [`share`] answers what the
//! builder asks for: files of directories, secrets, SSH agents, and where results go. On the
//! other, [`solve`] asks for the build and follows it.

mod content;
mod services;
mod session;
mod solve;

use std::collections::HashMap;
use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;

pub use content::{name_in_layout, resolve_layout};
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
    /// Credentials for registries.
    pub keys: Keys,
    /// Directories with content, by their names: `local:DIRECTORY` for a cache, `oci:NAME` for a
    /// layout that is a context.
    pub stores: HashMap<String, PathBuf>,
    /// Where results go, in the order of the build's exporters; `None` for those that stay.
    pub outputs: Vec<Option<Output>>,
    /// An archive to be read from standard input, by its id.
    pub archive: Option<(String, Vec<u8>)>,
}

/// Gives a name and a password for a registry, `docker.io`; a refresh token where the name is
/// empty.
type Lookup = dyn Fn(&str) -> Option<(String, String)> + Send + Sync;

/// Where the client's credentials for registries are.
#[derive(Clone, Default)]
pub struct Keys(Option<Arc<Lookup>>);

impl Keys {
    /// Asks `lookup`.
    pub fn new(lookup: impl Fn(&str) -> Option<(String, String)> + Send + Sync + 'static) -> Self {
        Self(Some(Arc::new(lookup)))
    }

    pub(crate) fn get(&self, registry: &str) -> (String, String) {
        self.0.as_ref().and_then(|lookup| lookup(registry)).unwrap_or_default()
    }
}

impl fmt::Debug for Keys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Keys")
    }
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
    /// Kinds of caches that are written, with their attributes.
    pub cache_to: Vec<(String, HashMap<String, String>)>,
}
