//! What the operator of a registry decides.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

/// How a registry is served.
#[derive(Debug, Clone)]
pub struct Config {
    /// Where clients connect.
    pub listen: Vec<SocketAddr>,
    /// The engine's data root, which the registry's content lies in.
    pub root: PathBuf,
    /// Files of the certificates and of the key, in PEM; without them, plain HTTP.
    pub tls: Option<(PathBuf, PathBuf)>,
    /// File of users and their bcrypt hashes, as htpasswd writes it; without it, everybody may
    /// do everything.
    pub users: Option<PathBuf>,
    /// File of rules for who may do what with which repositories; without it, everybody who is
    /// let in may do everything.
    pub access: Option<PathBuf>,
    /// The repository below which the engine's own images are, to be pulled; without it, they
    /// are not.
    pub engine_images: Option<String>,
    /// Nothing can be pushed or deleted.
    pub read_only: bool,
    /// Nothing can be deleted.
    pub no_delete: bool,
    /// Manifests may name what their repository does not have.
    pub sparse: bool,
    /// The registry whose content is kept here. Nothing can be pushed or deleted then.
    pub proxy: Option<Proxy>,
    /// What clients may use up.
    pub limits: Limits,
    /// What is collected, and when.
    pub collect: Collect,
}

impl Config {
    /// Plain HTTP to everybody on `listen`.
    pub fn new(listen: Vec<SocketAddr>, root: PathBuf) -> Self {
        Self {
            listen,
            root,
            tls: None,
            users: None,
            access: None,
            engine_images: None,
            read_only: false,
            no_delete: false,
            sparse: false,
            proxy: None,
            limits: Limits::default(),
            collect: Collect::default(),
        }
    }
}

/// A registry behind this one.
#[derive(Clone)]
pub struct Proxy {
    /// Its address, as `https://registry.example:5000`.
    pub url: String,
    /// Name and password there.
    pub user: Option<(String, String)>,
}

impl std::fmt::Debug for Proxy {
    // Only what is no secret.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Proxy").field("url", &self.url).finish_non_exhaustive()
    }
}

/// What clients may use up.
#[derive(Debug, Clone)]
pub struct Limits {
    /// Connections at once; further ones wait.
    pub connections: usize,
    /// Requests at once that bring content.
    pub transfers: usize,
    /// Uploads that were begun and not finished.
    pub uploads: usize,
    /// Bytes of a blob.
    pub blob: u64,
    /// Bytes of a manifest. The specification asks for 4 MiB at least.
    pub manifest: usize,
    /// How long a client may take for the TLS handshake and for a request's head; also, how long
    /// it may wait with the first one.
    pub head: Duration,
    /// How long a client may keep a connection that it has used and does not use.
    pub idle: Duration,
    /// How long a client may neither send nor take anything.
    pub silence: Duration,
    /// Bytes per second that a body has on average, from the first [`Self::silence`] on, and that
    /// a client takes while it is waited for; 0: any.
    pub rate: u64,
    /// How long requests have to end when the server stops; then they are cut off.
    pub goodbye: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections: 512,
            transfers: 64,
            uploads: 4096,
            blob: 128 << 30,
            manifest: 4 << 20,
            head: Duration::from_secs(30),
            idle: Duration::from_mins(1),
            silence: Duration::from_mins(1),
            rate: 512,
            goodbye: Duration::from_secs(10),
        }
    }
}

/// What is collected, and when.
#[derive(Debug, Clone)]
pub struct Collect {
    /// How often; `None`: only when asked for.
    pub every: Option<Duration>,
    /// How long what nothing needs is kept: a push brings blobs before the manifest that names
    /// them.
    pub grace: Duration,
    /// How long an upload is kept that nothing is added to.
    pub uploads: Duration,
    /// Manifests go as well that neither a tag nor another manifest leads to.
    pub untagged: bool,
    /// Manifests go as well that nobody has asked for in this time: those of a proxy come again.
    pub unused: Option<Duration>,
}

impl Default for Collect {
    fn default() -> Self {
        Self {
            every: Some(Duration::from_hours(1)),
            grace: Duration::from_hours(24),
            uploads: Duration::from_hours(24),
            untagged: false,
            unused: None,
        }
    }
}
