//! The registry behind this one.
//!
//! A blob is given to clients while it arrives: all of it but its last byte, which nobody gets
//! before the whole was checked. So nobody ever has all of a blob that is not what its digest
//! says, and one download serves everybody who asks meanwhile. It goes on when they leave.

use std::collections::HashMap;
use std::fs::File;
use std::io::Write as _;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use silo_oci::image::Descriptor;
use silo_oci::reference::Reference as Full;
use silo_registry::{Action, Credentials, Registries, Repository, Retry};
use tokio::sync::watch;

use crate::config::Proxy;
use crate::error::{Error, Refusal};
use crate::name::{Algorithm, Digest, Hasher, Name, Reference};
use crate::store::files::Staged;

/// How long another registry may be silent where an older answer will do.
const HASTE: Duration = Duration::from_secs(5);
/// Bytes that are hashed and written at once.
const BATCH: usize = 256 << 10;

/// How another registry is asked.
#[derive(Debug)]
pub(crate) struct Upstream {
    registries: Arc<Registries>,
    /// For what can be had without, if it takes too long.
    hasty: Arc<Registries>,
    domain: String,
    credentials: Credentials,
    /// Blobs that are arriving.
    fetches: Mutex<HashMap<Digest, Arc<Fetch>>>,
}

/// A blob that is arriving.
#[derive(Debug)]
pub(crate) struct Fetch {
    pub(crate) size: u64,
    staged: Staged,
    /// The file, whatever becomes of its name.
    pub(crate) file: Arc<File>,
    state: watch::Sender<State>,
}

/// How far it is.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct State {
    written: u64,
    /// Whether it was right, once it has ended.
    ended: Option<bool>,
}

impl State {
    /// How many bytes may be given out; `None` if there will be none.
    pub(crate) fn ready(self, size: u64) -> Option<u64> {
        match self.ended {
            Some(true) => Some(size),
            Some(false) => None,
            None => Some(self.written.min(size.saturating_sub(1))),
        }
    }
}

impl Fetch {
    pub(crate) fn new(size: u64, staged: Staged) -> Result<Self, Error> {
        let path = &staged.path;
        let mut options = fs_err::OpenOptions::new();
        let file = options.create_new(true).read(true).append(true).open(path);
        let file = file.map_err(Error::io("create", path))?;
        let file = Arc::new(file.into_file());
        Ok(Self { size, staged, file, state: watch::Sender::new(State::default()) })
    }

    pub(crate) fn path(&self) -> &std::path::Path {
        &self.staged.path
    }

    /// Removes the file's name: what arrived is of no use.
    pub(crate) fn discard(&self) {
        drop(fs_err::remove_file(&self.staged.path));
    }

    pub(crate) fn watch(&self) -> watch::Receiver<State> {
        self.state.subscribe()
    }

    /// Tells everybody who waits.
    pub(crate) fn end(&self, right: bool) {
        self.state.send_modify(|state| state.ended = Some(right));
    }
}

impl Upstream {
    /// Nothing is asked yet.
    pub(crate) fn new(proxy: &Proxy) -> Result<Self, Error> {
        let wrong = |reason: &str| Error::Proxy { url: proxy.url.clone(), reason: reason.into() };
        let (scheme, rest) =
            proxy.url.split_once("://").ok_or_else(|| wrong("expected https://HOST[:PORT]"))?;
        let host = rest.trim_end_matches('/');
        if host.is_empty() || host.contains(['/', '@', '?', '#']) {
            return Err(wrong("expected https://HOST[:PORT] and nothing else"));
        }
        let mut config = silo_registry::Config {
            user_agent: concat!("silo-registry/", env!("CARGO_PKG_VERSION")).into(),
            proxies: silo_http_proxies(),
            ..silo_registry::Config::default()
        };
        match scheme {
            "https" => {}
            "http" => config.insecure.push(host.to_owned()),
            _ => return Err(wrong("expected http or https")),
        }
        let domain = match host {
            "registry-1.docker.io" | "index.docker.io" => "docker.io",
            host => host,
        };
        let (username, password) = proxy.user.clone().unwrap_or_default();
        let credentials = Credentials { username, password, ..Credentials::default() };
        let retry = Retry { attempts: 1, ..Retry::default() };
        let hasty = silo_registry::Config { retry, stall: HASTE, ..config.clone() };
        let upstream = Self {
            hasty: Arc::new(Registries::new(hasty)),
            registries: Arc::new(Registries::new(config)),
            domain: domain.to_owned(),
            credentials,
            fetches: Mutex::default(),
        };
        let probe = "a".parse().map(|name| upstream.repository(&name));
        if !matches!(probe, Ok(Ok(_))) {
            return Err(wrong("it is no host name"));
        }
        Ok(upstream)
    }

    /// A repository there, for what is here as well, though perhaps not as it is there now.
    pub(crate) fn hasty(&self, name: &Name) -> Result<(Repository, Full), Error> {
        self.of(&self.hasty, name)
    }

    /// A repository there. One that Docker Hub has no owner for is Docker's own.
    pub(crate) fn repository(&self, name: &Name) -> Result<(Repository, Full), Error> {
        self.of(&self.registries, name)
    }

    fn of(&self, registries: &Arc<Registries>, name: &Name) -> Result<(Repository, Full), Error> {
        let full: Full = Full::parse(&format!("{}/{name}", self.domain))
            .map_err(|error| Refusal::name(error.to_string()))?;
        let repository = registries
            .repository(&full, Action::Pull, &self.credentials)
            .map_err(|error| Refusal::upstream(&error))?;
        Ok((repository, full))
    }

    /// A manifest's full name.
    pub(crate) fn reference(full: &Full, reference: &Reference) -> Result<Full, Refusal> {
        match reference {
            Reference::Tag(tag) => full.with_tag(tag).map_err(|_| Refusal::no_manifest()),
            Reference::Digest(digest) => {
                let digest = digest.to_string().parse().map_err(|_| Refusal::no_manifest())?;
                Ok(full.with_digest(digest))
            }
        }
    }

    fn fetches(&self) -> MutexGuard<'_, HashMap<Digest, Arc<Fetch>>> {
        self.fetches.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The download of a blob; the second value tells whether it is to be begun.
    pub(crate) fn fetch(
        &self,
        digest: &Digest,
        make: impl FnOnce() -> Result<Fetch, Error>,
    ) -> Result<(Arc<Fetch>, bool), Error> {
        let mut fetches = self.fetches();
        if let Some(fetch) = fetches.get(digest) {
            return Ok((Arc::clone(fetch), false));
        }
        let fetch = Arc::new(make()?);
        fetches.insert(digest.clone(), Arc::clone(&fetch));
        Ok((fetch, true))
    }

    /// A download is over.
    pub(crate) fn forget(&self, digest: &Digest) {
        self.fetches().remove(digest);
    }
}

/// Proxies, as the environment names them.
fn silo_http_proxies() -> silo_http::Proxies {
    silo_http::Proxies::from_variables(|name| std::env::var(name).ok())
}

/// Downloads a blob into the file of `fetch`; whether it is right is not said yet.
pub(crate) async fn download(
    repository: &Repository,
    wanted: &Descriptor,
    digest: &Digest,
    fetch: &Arc<Fetch>,
) -> Result<(), Error> {
    let mut hasher = Hasher::new(Algorithm::Sha256);
    let mut stream = repository.blob(wanted, 0);
    let mut batch: Vec<Bytes> = Vec::new();
    let mut gathered = 0;
    loop {
        let piece = stream.next().await.map_err(|error| Refusal::upstream(&error))?;
        let ended = piece.is_none();
        if let Some(piece) = piece {
            gathered += piece.len();
            batch.push(piece);
        }
        if gathered >= BATCH || ended {
            let parts = std::mem::take(&mut batch);
            gathered = 0;
            let of = Arc::clone(fetch);
            let work = move || {
                for part in &parts {
                    (&*of.file).write_all(part).map_err(Error::io("write", of.path()))?;
                    hasher.update(part);
                    of.state.send_modify(|state| state.written += part.len() as u64);
                }
                Ok::<_, Error>(hasher)
            };
            hasher = tokio::task::spawn_blocking(work).await.map_err(Error::Task)??;
        }
        if ended {
            break;
        }
    }
    let found = hasher.finish();
    if found != *digest {
        let text = format!("the registry behind this one gave {found} for {digest}");
        return Err(Refusal::new(hyper::StatusCode::BAD_GATEWAY, "UNKNOWN", text).into());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses() {
        let proxy = |url: &str| Upstream::new(&Proxy { url: url.into(), user: None });
        for (good, domain) in [
            ("https://registry-1.docker.io", "docker.io"),
            ("https://ghcr.io/", "ghcr.io"),
            ("http://127.0.0.1:5000", "127.0.0.1:5000"),
        ] {
            assert_eq!(proxy(good).unwrap().domain, domain);
        }
        for bad in ["", "ghcr.io", "ftp://x.example", "https://", "https://a/b", "https://u@x.y"] {
            assert!(matches!(proxy(bad), Err(Error::Proxy { .. })), "{bad}");
        }
        let name: Name = "busybox".parse().unwrap();
        let (repository, _) =
            proxy("https://registry-1.docker.io").unwrap().repository(&name).unwrap();
        assert_eq!(repository.path(), "library/busybox");
    }

    #[test]
    fn the_last_byte_waits() {
        let state = |written, ended| State { written, ended };
        assert_eq!(state(5, None).ready(10), Some(5));
        assert_eq!(state(10, None).ready(10), Some(9));
        assert_eq!(state(10, Some(true)).ready(10), Some(10));
        assert_eq!(state(10, Some(false)).ready(10), None);
        assert_eq!(state(0, None).ready(0), Some(0));
    }
}
