//! Who may use the registry: a file as htpasswd writes it, with bcrypt hashes.
//!
//! The file is read again when it changes. A password that was right is remembered as a keyed
//! hash, since bcrypt is slow on purpose and clients send their password with every request.

use std::collections::{HashMap, HashSet};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;

use base64::Engine as _;
use hyper::HeaderMap;
use hyper::header::AUTHORIZATION;
use sha2::{Digest as _, Sha256};
use tokio::sync::Semaphore;

use crate::Error;

/// The longest credentials that are looked at.
const MAX_CREDENTIALS: usize = 4096;
/// The highest cost that is accepted: beyond it, one request would take minutes.
const MAX_COST: u32 = 16;
/// Passwords that are checked at once: each takes a core for a while.
const CHECKS: usize = 2;
/// How many right passwords are remembered.
const REMEMBERED: usize = 4096;

/// The users of a file.
#[derive(Debug)]
pub(crate) struct Users {
    path: PathBuf,
    state: Mutex<State>,
    checks: Semaphore,
    /// Of this process only.
    key: [u8; 32],
}

#[derive(Debug)]
struct State {
    /// Of the file that was read.
    stamp: Stamp,
    hashes: Arc<HashMap<String, String>>,
    /// What was right, as [`Users::remember`] makes it.
    right: HashSet<[u8; 32]>,
    /// A hash to check passwords of nobody against, so that it takes as long as for others.
    decoy: Option<String>,
}

/// By which a file that has changed is known.
pub(crate) type Stamp = Option<(SystemTime, u64)>;

impl Users {
    /// Reads a file of users.
    pub(crate) fn open(path: &Path) -> Result<Self, Error> {
        let stamp = stamp(path);
        let text = fs_err::read_to_string(path).map_err(Error::io("read", path))?;
        let hashes = parse(&text, path)?;
        let mut key = [0; 32];
        rustix::rand::getrandom(&mut key, rustix::rand::GetRandomFlags::empty())
            .map_err(|error| Error::io("read", "/dev/urandom")(error.into()))?;
        let decoy = hashes.values().next().cloned();
        let hashes = Arc::new(hashes);
        let state = Mutex::new(State { stamp, hashes, right: HashSet::new(), decoy });
        Ok(Self { path: path.to_owned(), state, checks: Semaphore::new(CHECKS), key })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether a request's head says who it is from, true or not.
    pub(crate) fn is_named(headers: &HeaderMap) -> bool {
        // Some clients without a name send an empty one.
        let is_empty = |(name, password): &(String, String)| name.is_empty() && password.is_empty();
        headers.contains_key(AUTHORIZATION) && !credentials(headers).as_ref().is_some_and(is_empty)
    }

    /// The user whose right password is in a request's head.
    pub(crate) async fn user(&self, headers: &HeaderMap) -> Result<Option<String>, Error> {
        let Some((name, password)) = credentials(headers) else { return Ok(None) };
        let (hash, known) = {
            let mut state = self.state();
            self.refresh(&mut state);
            let found = state.hashes.get(&name).cloned();
            let known = found.is_some();
            (found.or_else(|| state.decoy.clone()), known)
        };
        let Some(hash) = hash else { return Ok(None) };
        let memory = self.remember(&hash, &name, &password);
        if known && self.state().right.contains(&memory) {
            return Ok(Some(name));
        }
        // It is never closed.
        let Ok(_permit) = self.checks.acquire().await else { return Ok(None) };
        let check = move || bcrypt::verify(password.as_bytes(), &hash).unwrap_or(false);
        let right = tokio::task::spawn_blocking(check).await.map_err(Error::Task)?;
        if !(right && known) {
            return Ok(None);
        }
        let mut state = self.state();
        if state.right.len() >= REMEMBERED {
            state.right.clear();
        }
        state.right.insert(memory);
        Ok(Some(name))
    }

    /// What a right password is remembered as. It names the hash that it was right for.
    fn remember(&self, hash: &str, name: &str, password: &str) -> [u8; 32] {
        let mut digest = Sha256::new();
        digest.update(self.key);
        for part in [hash, name, password] {
            digest.update((part.len() as u64).to_be_bytes());
            digest.update(part);
        }
        digest.update(self.key);
        digest.finalize().into()
    }

    fn refresh(&self, state: &mut State) {
        let found = stamp(&self.path);
        if found == state.stamp {
            return;
        }
        let read = || {
            let text = fs_err::read_to_string(&self.path).map_err(Error::io("read", &self.path))?;
            parse(&text, &self.path)
        };
        match read() {
            Ok(hashes) => {
                state.decoy = hashes.values().next().cloned();
                state.hashes = Arc::new(hashes);
                state.right.clear();
                tracing::info!(users = state.hashes.len(), "read the users again");
            }
            // Those that were let in stay, rather than nobody.
            Err(error) => tracing::error!(error = error.chain(), "the users stay as they were"),
        }
        state.stamp = found;
    }
}

pub(crate) fn stamp(path: &Path) -> Stamp {
    let metadata = fs_err::metadata(path).ok()?;
    Some((metadata.modified().ok()?, metadata.len()))
}

/// Name and password of a head with basic authentication.
fn credentials(headers: &HeaderMap) -> Option<(String, String)> {
    let value = headers.get(AUTHORIZATION)?.to_str().ok()?;
    let (scheme, value) = value.split_once(' ')?;
    if !scheme.eq_ignore_ascii_case("basic") || value.len() > MAX_CREDENTIALS {
        return None;
    }
    let bytes = base64::engine::general_purpose::STANDARD.decode(value.trim()).ok()?;
    let text = String::from_utf8(bytes).ok()?;
    let (name, password) = text.split_once(':')?;
    Some((name.to_owned(), password.to_owned()))
}

/// Names and hashes. What is not bcrypt is refused, so that nobody believes to be let in.
fn parse(text: &str, path: &Path) -> Result<HashMap<String, String>, Error> {
    let mut hashes = HashMap::new();
    for (number, line) in text.lines().enumerate() {
        let wrong = |reason| Error::Users { path: path.to_owned(), line: number + 1, reason };
        let line = line.trim();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let (name, hash) = line.split_once(':').ok_or_else(|| wrong("expected NAME:HASH"))?;
        let mut parts = hash.split('$').skip(1);
        let version = parts.next().unwrap_or_default();
        let cost: u32 = parts.next().and_then(|cost| cost.parse().ok()).unwrap_or_default();
        if !matches!(version, "2" | "2a" | "2b" | "2x" | "2y") || hash.len() != 60 {
            return Err(wrong("the password is not hashed with bcrypt; use htpasswd -B"));
        }
        if !(4..=MAX_COST).contains(&cost) {
            return Err(wrong("the cost of the hash is not between 4 and 16"));
        }
        hashes.insert(name.to_owned(), hash.to_owned());
    }
    Ok(hashes)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn head(value: &str) -> HeaderMap {
        let mut headers = HeaderMap::new();
        headers.insert(AUTHORIZATION, value.parse().unwrap());
        headers
    }

    fn basic(text: &str) -> HeaderMap {
        head(&format!("Basic {}", base64::engine::general_purpose::STANDARD.encode(text)))
    }

    #[tokio::test]
    async fn right_and_wrong() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("users");
        let hash = |password: &str| bcrypt::hash(password, 4).unwrap();
        fs_err::write(&path, format!("# people\n\nann:{}\n", hash("a:b"))).unwrap();
        let users = Users::open(&path).unwrap();
        // The second time it is remembered.
        for _ in 0..2 {
            let user = users.user(&basic("ann:a:b")).await.unwrap();
            assert_eq!(user.as_deref(), Some("ann"));
        }
        for wrong in ["ann:x", "ann:", "bob:a:b", ":", "ann", ""] {
            assert_eq!(users.user(&basic(wrong)).await.unwrap(), None, "{wrong}");
        }
        for wrong in ["Bearer x", "Basic", "Basic !", "x"] {
            assert_eq!(users.user(&head(wrong)).await.unwrap(), None, "{wrong}");
        }
        assert_eq!(users.user(&HeaderMap::new()).await.unwrap(), None);
        // Another password, and another user: the old ones are not remembered.
        fs_err::write(&path, format!("ann:{}\nbob:{}\n", hash("new"), hash("b"))).unwrap();
        assert_eq!(users.user(&basic("ann:a:b")).await.unwrap(), None);
        assert!(users.user(&basic("ann:new")).await.unwrap().is_some());
        assert!(users.user(&basic("bob:b")).await.unwrap().is_some());
        // A file that cannot be used changes nothing.
        fs_err::write(&path, "bob:plain\n").unwrap();
        assert!(users.user(&basic("bob:b")).await.unwrap().is_some());
    }

    #[test]
    fn files_that_are_refused() {
        let path = Path::new("users");
        let costly = format!("a:$2y$31${}", "a".repeat(53));
        for (text, line) in [
            ("a", 1),
            ("\na:b", 2),
            ("a:$apr1$x$y", 1),
            ("a:{SHA}x", 1),
            ("a:$2y$10$short", 1),
            (&costly, 1),
        ] {
            let error = parse(text, path).unwrap_err();
            assert!(matches!(error, Error::Users { line: found, .. } if found == line), "{text}");
        }
    }
}
