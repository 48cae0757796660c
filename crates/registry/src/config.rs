//! What the caller decides, and how hosts are asked by it.

use std::collections::HashMap;
use std::error::Error as StdError;
use std::io::Read as _;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use ipnet::IpNet;
use silo_http::{Client, Identity, Options, Proxies};
use tokio::sync::Semaphore;

use crate::Error;
use crate::endpoint::Endpoint;
use crate::resume::Running;

/// Certificates and keys larger than this are not read, in bytes.
const MAX_PEM: u64 = 1 << 20;
/// Files of a directory of certificates whose changes are seen.
const MAX_FILES: usize = 256;
/// Clients that are kept for the next operation.
const MAX_CLIENTS: usize = 64;

/// When what failed is tried again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Retry {
    /// How often at most, the first time included.
    pub attempts: u32,
    /// The wait before the second attempt, which doubles each time.
    pub first: Duration,
    /// The longest wait; a server that asks for more is not asked again.
    pub longest: Duration,
}

impl Default for Retry {
    fn default() -> Self {
        Self { attempts: 6, first: Duration::from_millis(500), longest: Duration::from_mins(1) }
    }
}

/// How a big blob comes by several connections.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ranges {
    /// How many connections one blob has at most; 1 for no parts.
    pub at_once: usize,
    /// The length of a part, in bytes. A blob of less than two comes by one connection.
    pub length: u64,
    /// Bytes that may be kept of what came before its turn, of all blobs together. It bounds also
    /// how many further connections there are at all.
    pub ahead: u64,
    /// How long one connection is watched before it is called slow.
    pub patience: Duration,
}

impl Default for Ranges {
    fn default() -> Self {
        let patience = Duration::from_millis(250);
        Self { at_once: 4, length: 4 << 20, ahead: 16 << 20, patience }
    }
}

/// How registries are asked.
#[derive(Debug, Clone)]
pub struct Config {
    /// URLs that are asked before Docker Hub (dockerd's `registry-mirrors`).
    pub mirrors: Vec<String>,
    /// `host[:port]` or networks whose registries may have no certificate, or no TLS at all
    /// (dockerd's `insecure-registries`). Loopback addresses always are among them. A name that
    /// leads to such a network counts, if it is not enough to check its certificate; it is
    /// connected to there only.
    pub insecure: Vec<String>,
    /// Directories with certificates, a directory a registry (dockerd's `/etc/docker/certs.d`).
    /// The first that has one for a registry counts.
    pub certificates: Vec<PathBuf>,
    /// Proxies.
    pub proxies: Proxies,
    /// What requests say in `User-Agent`.
    pub user_agent: String,
    /// When what failed is tried again.
    pub retry: Retry,
    /// How long a server may be silent.
    pub stall: Duration,
    /// How many layers go at once.
    pub at_once: usize,
    /// How many layers come at once: [`MAX_AT_ONCE`](crate::MAX_AT_ONCE) at most.
    pub downloads: usize,
    /// How a big blob comes by several connections.
    pub ranges: Ranges,
}

impl Default for Config {
    fn default() -> Self {
        let defaults = Options::default();
        let processors = std::thread::available_parallelism().map_or(3, usize::from);
        Self {
            mirrors: Vec::new(),
            insecure: Vec::new(),
            certificates: vec![PathBuf::from("/etc/docker/certs.d")],
            proxies: Proxies::default(),
            user_agent: defaults.user_agent,
            retry: Retry::default(),
            stall: defaults.stall_timeout,
            at_once: processors.clamp(3, 8),
            downloads: processors.clamp(3, crate::MAX_AT_ONCE),
            ranges: Ranges::default(),
        }
    }
}

fn unusable(path: &Path, source: impl Into<Box<dyn StdError + Send + Sync>>) -> Error {
    Error::Certificates { path: path.to_owned(), source: source.into() }
}

/// Reads a file of certificates or keys.
fn read(path: &Path) -> Result<Vec<u8>, Error> {
    let mut bytes = Vec::new();
    let file = fs_err::File::open(path).map_err(|error| unusable(path, error))?;
    file.take(MAX_PEM).read_to_end(&mut bytes).map_err(|error| unusable(path, error))?;
    Ok(bytes)
}

/// The host of `host[:port]`, without brackets.
fn host_of(authority: &str) -> &str {
    if let Some(rest) = authority.strip_prefix('[') {
        return rest.split(']').next().unwrap_or_default();
    }
    authority.rsplit_once(':').map_or(authority, |(host, _)| host)
}

impl Config {
    /// Whether this registry may be without a certificate that can be checked.
    pub(crate) fn is_insecure(&self, authority: &str) -> bool {
        let host = host_of(authority);
        let address: Option<IpAddr> =
            if host.eq_ignore_ascii_case("localhost") { None } else { host.parse().ok() };
        if host.eq_ignore_ascii_case("localhost") || address.is_some_and(|ip| ip.is_loopback()) {
            return true;
        }
        self.insecure.iter().any(|entry| match entry.parse::<IpNet>() {
            Ok(network) => address.is_some_and(|ip| network.contains(&ip)),
            Err(_) => {
                let entry = entry.split_once("://").map_or(entry.as_str(), |(_, rest)| rest);
                let entry = entry.trim_end_matches('/');
                entry.eq_ignore_ascii_case(authority)
            }
        })
    }

    /// The networks among those that [`Self::insecure`] has.
    fn networks(&self) -> Vec<IpNet> {
        self.insecure.iter().filter_map(|entry| entry.parse().ok()).collect()
    }

    /// Whether a registry has a name that may lead to one of these networks.
    pub(crate) fn may_be_near(&self, authority: &str) -> bool {
        host_of(authority).parse::<IpAddr>().is_err() && !self.networks().is_empty()
    }

    /// The files of a registry's directory with the times of their last changes.
    fn stamps(&self, authority: &str) -> Vec<(PathBuf, Option<SystemTime>)> {
        if authority.contains(['/', '\0']) || authority.starts_with('.') {
            return Vec::new();
        }
        let directories = self.certificates.iter().map(|directory| directory.join(authority));
        let entries = directories.filter_map(|directory| fs_err::read_dir(directory).ok());
        let mut stamps: Vec<_> = entries
            .flat_map(|entries| entries.flatten().take(MAX_FILES))
            .map(|entry| {
                // A link's target is what counts.
                let changed = fs_err::metadata(entry.path()).and_then(|found| found.modified());
                (entry.path(), changed.ok())
            })
            .collect();
        stamps.sort();
        stamps
    }

    /// The options of a client for one host.
    fn options(&self, authority: &str, trust_anyone: bool) -> Result<Options, Error> {
        let mut options = Options {
            user_agent: self.user_agent.clone(),
            proxies: self.proxies.clone(),
            stall_timeout: self.stall,
            trust_anyone,
            ..Options::default()
        };
        // Names of hosts come from the grammar of references, but for mirrors and realms.
        if authority.contains(['/', '\0']) || authority.starts_with('.') {
            return Ok(options);
        }
        for directory in &self.certificates {
            let directory = directory.join(authority);
            if read_certificates(&directory, &mut options)? {
                break;
            }
        }
        Ok(options)
    }
}

fn add_authority(path: &Path, options: &mut Options) -> Result<(), Error> {
    let found = silo_http::certificates(&read(path)?).map_err(|error| unusable(path, error))?;
    options.extra_roots.extend(found);
    Ok(())
}

fn set_identity(certificate: &Path, key: &Path, options: &mut Options) -> Result<(), Error> {
    let identity = Identity::from_pem(&read(certificate)?, &read(key)?);
    options.identity = Some(identity.map_err(|error| unusable(certificate, error))?);
    Ok(())
}

/// Reads a registry's directory; `false` if there is none.
fn read_certificates(directory: &Path, options: &mut Options) -> Result<bool, Error> {
    let entries = match fs_err::read_dir(directory) {
        Ok(entries) => entries,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(false),
        Err(error) => return Err(unusable(directory, error)),
    };
    let mut paths: Vec<PathBuf> = entries.flatten().map(|entry| entry.path()).collect();
    paths.sort();
    for path in &paths {
        match path.extension().and_then(|extension| extension.to_str()) {
            Some("crt") => {
                add_authority(path, options)?;
            }
            Some("cert") => {
                let key = path.with_extension("key");
                if !paths.contains(&key) {
                    return Err(Error::MissingKey { certificate: path.clone(), key });
                }
                set_identity(path, &key, options)?;
            }
            Some("key") => {
                let certificate = path.with_extension("cert");
                if !paths.contains(&certificate) {
                    return Err(Error::MissingCertificate { certificate, key: path.clone() });
                }
            }
            _ => {}
        }
    }
    Ok(true)
}

/// Which client: host and port, whether any certificate is good, whether a stranger named the
/// host, whether only some networks are meant, and the state of its directory of certificates,
/// which may change at any time.
type Key = (String, bool, bool, bool, Vec<(PathBuf, Option<SystemTime>)>);

/// All registries, with connections that are kept for a while.
#[derive(Debug)]
pub struct Registries {
    config: Config,
    clients: Mutex<HashMap<Key, Arc<Client>>>,
    running: Arc<Running>,
    ahead: Arc<Semaphore>,
}

impl Registries {
    /// Nothing is read or connected yet.
    pub fn new(config: Config) -> Self {
        let ahead = crate::ranges::memory(&config.ranges);
        Self { config, clients: Mutex::default(), running: Arc::default(), ahead }
    }

    /// The same, where this registry may have any certificate, or be without TLS.
    pub fn trusting(&self, domain: &str) -> Self {
        let mut config = self.config.clone();
        config.insecure.push(domain.to_owned());
        let (running, ahead) = (Arc::clone(&self.running), Arc::clone(&self.ahead));
        Self { config, clients: Mutex::default(), running, ahead }
    }

    /// The uploads that are on their way.
    pub(crate) fn running(&self) -> &Arc<Running> {
        &self.running
    }

    /// Memory for what comes before its turn.
    pub(crate) fn ahead(&self) -> &Arc<Semaphore> {
        &self.ahead
    }

    /// The configuration.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// The client for a server, which may have certificates of its own.
    pub(crate) fn client_for(&self, endpoint: &Endpoint) -> Result<Arc<Client>, Error> {
        if endpoint.authorities.is_empty() && endpoint.clients.is_empty() {
            let Endpoint { authority, trust_anyone, is_near, .. } = endpoint;
            return self.client_as(authority, *trust_anyone, (false, *is_near));
        }
        let mut options = self.config.options(&endpoint.authority, endpoint.trust_anyone)?;
        for path in &endpoint.authorities {
            add_authority(path, &mut options)?;
        }
        if let Some((certificate, key)) = endpoint.clients.first() {
            set_identity(certificate, key, &mut options)?;
        }
        Ok(Arc::new(Client::new(options)))
    }

    /// The client for a host that `endpoint` names. Hosts out there do not name addresses of this
    /// host's link, at which clouds tell secrets.
    pub(crate) fn client_of_stranger(
        &self,
        endpoint: &Endpoint,
        authority: &str,
        trust_anyone: bool,
    ) -> Result<Arc<Client>, Error> {
        let guarded = !authority.eq_ignore_ascii_case(&endpoint.authority);
        let is_near = !guarded && endpoint.is_near;
        self.client_as(authority, trust_anyone, (guarded, is_near))
    }

    fn client_as(
        &self,
        authority: &str,
        trust_anyone: bool,
        (guarded, is_near): (bool, bool),
    ) -> Result<Arc<Client>, Error> {
        let stamps = self.config.stamps(authority);
        let key = (authority.to_ascii_lowercase(), trust_anyone, guarded, is_near, stamps);
        let lock = || self.clients.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(client) = lock().get(&key) {
            return Ok(Arc::clone(client));
        }
        let only = if is_near { self.config.networks() } else { Vec::new() };
        let options = Options { guarded, only, ..self.config.options(authority, trust_anyone)? };
        let client = Arc::new(Client::new(options));
        let mut clients = lock();
        if clients.len() >= MAX_CLIENTS {
            clients.clear();
        }
        clients.insert(key, Arc::clone(&client));
        Ok(client)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_may_be_without_certificates() {
        let config = Config {
            insecure: ["reg.example:5000", "10.0.0.0/8", "http://plain.example/", "fd00::/8"]
                .map(str::to_owned)
                .to_vec(),
            ..Config::default()
        };
        for (host, expected) in [
            ("localhost", true),
            ("LocalHost:5000", true),
            ("127.0.0.1:5000", true),
            ("127.8.9.1", true),
            ("[::1]:5000", true),
            ("reg.example:5000", true),
            ("REG.example:5000", true),
            ("reg.example", false),
            ("reg.example:5001", false),
            ("10.1.2.3:5000", true),
            ("11.1.2.3:5000", false),
            ("[fd00::1]:5000", true),
            ("[fe80::1]:5000", false),
            ("plain.example", true),
            ("localhost.example", false),
            ("registry-1.docker.io", false),
        ] {
            assert_eq!(config.is_insecure(host), expected, "{host}");
        }
    }

    #[test]
    fn certificates_of_a_registry() {
        let directory = tempfile::tempdir().unwrap();
        let config =
            Config { certificates: vec![directory.path().to_owned()], ..Config::default() };
        let own = directory.path().join("reg.example:5000");
        assert!(config.options("reg.example:5000", false).unwrap().extra_roots.is_empty());
        fs_err::create_dir(&own).unwrap();
        fs_err::write(own.join("client.cert"), "").unwrap();
        let error = config.options("reg.example:5000", false).unwrap_err().to_string();
        assert!(error.starts_with("missing key "), "{error}");
        fs_err::rename(own.join("client.cert"), own.join("ca.crt")).unwrap();
        let error = config.options("reg.example:5000", false).unwrap_err();
        assert!(matches!(error, Error::Certificates { .. }), "{error}");
        // Nobody's name leads out of the directory.
        assert!(config.options("../x", false).unwrap().extra_roots.is_empty());
    }
}
