//! The sessions of clients: connections on which the client answers and the builder asks.
//!
//! A client opens one with `POST /session`, upgraded to HTTP/2 (`h2c`), or with the call
//! `Control/Session`, whose messages carry the same bytes. Headers name it
//! (`X-Docker-Expose-Session-Uuid`), what it shares with earlier ones (`-Sharedkey`), and the
//! calls that it answers (`-Grpc-Method`, once for each). A build names the session of its
//! client, which may come a moment later than the build.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use hyper::HeaderMap;
use hyper::http::Uri;
use silo_types::Error;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::http2::Channel;

/// How long a build waits for its client's session.
const PATIENCE: Duration = Duration::from_secs(5);
/// Bytes of a session's id, name or shared key.
const MAX_NAME: usize = 1024;
/// Calls that a session may say it answers.
const MAX_METHODS: usize = 128;
/// Bytes of one message of a session: pieces of files are 32 KiB, secrets up to 500 KiB.
pub(crate) const MAX_MESSAGE: usize = 16 * 1024 * 1024;

const ID: &str = "x-docker-expose-session-uuid";
const SHARED_KEY: &str = "x-docker-expose-session-sharedkey";
const METHOD: &str = "x-docker-expose-session-grpc-method";

/// A client that answers.
#[derive(Debug)]
pub(crate) struct Session {
    id: String,
    shared_key: String,
    methods: HashSet<String>,
    channel: Channel,
    closed: CancellationToken,
}

impl Session {
    /// What sessions of one client have in common.
    pub(crate) fn shared_key(&self) -> &str {
        &self.shared_key
    }

    /// Does the client answer this call? `/moby.filesync.v1.FileSync/DiffCopy`, in any case.
    pub(crate) fn answers(&self, method: &str) -> bool {
        self.methods.contains(&method.to_ascii_lowercase())
    }

    /// Where calls go.
    pub(crate) fn channel(&self) -> Channel {
        self.channel.clone()
    }

    /// The authority of calls; nobody resolves it.
    pub(crate) fn origin() -> Uri {
        Uri::from_static("http://localhost")
    }

    /// Waits until the client is gone.
    pub(crate) async fn closed(&self) {
        self.closed.cancelled().await;
    }
}

/// All sessions.
#[derive(Debug, Default)]
pub(crate) struct Sessions {
    open: Mutex<HashMap<String, Arc<Session>>>,
    changed: watch::Sender<()>,
}

impl Sessions {
    /// Checks the headers of a request that opens a session.
    pub(crate) fn describe(headers: &HeaderMap) -> Result<Description, Error> {
        let one = |name: &str| -> Result<String, Error> {
            let value = headers.get(name).map_or("", |value| value.to_str().unwrap_or_default());
            if value.len() > MAX_NAME {
                return Err(Error::invalid(format!("{name} is too long")));
            }
            Ok(value.to_owned())
        };
        let id = one(ID)?;
        if id.is_empty() {
            return Err(Error::invalid("session has no id"));
        }
        let mut methods = HashSet::new();
        for value in headers.get_all(METHOD) {
            if methods.len() == MAX_METHODS {
                return Err(Error::invalid("session names too many methods"));
            }
            methods.insert(value.to_str().unwrap_or_default().to_ascii_lowercase());
        }
        Ok(Description { id, shared_key: one(SHARED_KEY)?, methods })
    }

    /// Keeps a session open until its client goes.
    pub(crate) async fn run<S>(&self, description: Description, stream: S)
    where
        S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    {
        let (channel, connection) = match Channel::connect(stream).await {
            Ok(connected) => connected,
            Err(error) => {
                tracing::debug!(%error, "a session did not begin");
                return;
            }
        };
        let Description { id, shared_key, methods } = description;
        let closed = CancellationToken::new();
        let _ended = closed.clone().drop_guard();
        let session = Arc::new(Session { id: id.clone(), shared_key, methods, channel, closed });
        let listed = Listed { sessions: self, session: Arc::clone(&session) };
        self.open.lock().unwrap_or_else(PoisonError::into_inner).insert(id, Arc::clone(&session));
        self.changed.send_replace(());
        drop(session);
        if let Err(error) = connection.await {
            tracing::debug!(%error, "a session broke");
        }
        drop(listed);
    }

    /// The session of an id, waiting a moment for it.
    pub(crate) async fn get(&self, id: &str) -> Result<Arc<Session>, Error> {
        let mut changed = self.changed.subscribe();
        let found = async {
            loop {
                changed.mark_unchanged();
                let open =
                    self.open.lock().unwrap_or_else(PoisonError::into_inner).get(id).cloned();
                if let Some(session) = open {
                    return session;
                }
                // The sender lives as long as `self`.
                drop(changed.changed().await);
            }
        };
        tokio::time::timeout(PATIENCE, found).await.map_err(|_| {
            // BuildKit's wording.
            Error::not_found(format!("no active session for {id}: context deadline exceeded"))
        })
    }
}

/// What a client says of its session.
#[derive(Debug)]
pub(crate) struct Description {
    id: String,
    shared_key: String,
    methods: HashSet<String>,
}

/// Takes a session off the list when it ends, unless another took its place.
#[derive(Debug)]
struct Listed<'a> {
    sessions: &'a Sessions,
    session: Arc<Session>,
}

impl Drop for Listed<'_> {
    fn drop(&mut self) {
        let mut open = self.sessions.open.lock().unwrap_or_else(PoisonError::into_inner);
        if open.get(&self.session.id).is_some_and(|now| Arc::ptr_eq(now, &self.session)) {
            open.remove(&self.session.id);
        }
    }
}
