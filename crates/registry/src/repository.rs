//! One repository, on the servers that may have it.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use silo_http::{Method, Uri};
use silo_oci::reference::{Reference, is_tag};
use silo_types::Digest;

use crate::answer::Answer;
use crate::endpoint;
use crate::session::{Ask, Session};
use crate::{Credentials, Error, Registries};

/// What is to be done with a repository.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    /// Read.
    Pull,
    /// Read and write.
    Push,
}

/// No server has answered yet.
const UNKNOWN: usize = usize::MAX;

/// A repository with the credentials of one client.
#[derive(Debug)]
pub struct Repository {
    registries: Arc<Registries>,
    domain: String,
    path: String,
    credentials: Credentials,
    sessions: Vec<Session>,
    /// The server that answered.
    settled: AtomicUsize,
    scopes: Vec<String>,
}

/// A request to whichever server answers.
#[derive(Debug, Clone)]
pub(crate) struct Inquiry<'a> {
    pub(crate) method: Method,
    /// Below `/v2/<name>/`.
    pub(crate) path: &'a str,
    pub(crate) headers: Vec<(&'static str, String)>,
    /// Leave for something else than usual.
    pub(crate) scopes: Option<&'a [String]>,
    pub(crate) is_checked: bool,
    /// The statuses of good answers.
    pub(crate) good: &'static [u16],
}

impl<'a> Inquiry<'a> {
    pub(crate) fn get(path: &'a str) -> Self {
        Self {
            method: Method::GET,
            path,
            headers: Vec::new(),
            scopes: None,
            is_checked: false,
            good: &[200],
        }
    }
}

impl Registries {
    /// A repository by its name; tag and digest do not matter.
    pub fn repository(
        self: &Arc<Self>,
        name: &Reference,
        action: Action,
        credentials: &Credentials,
    ) -> Result<Repository, Error> {
        let endpoints = endpoint::endpoints(self.config(), name.domain(), action == Action::Push)?;
        let session = |endpoint| Session::new(self, endpoint, credentials);
        let sessions = endpoints.into_iter().map(session).collect::<Result<_, _>>()?;
        let path = name.path().to_owned();
        let scopes = vec![match action {
            Action::Pull => format!("repository:{path}:pull"),
            Action::Push => format!("repository:{path}:pull,push"),
        }];
        Ok(Repository {
            registries: Arc::clone(self),
            domain: name.domain().to_owned(),
            path,
            credentials: credentials.clone(),
            sessions,
            settled: AtomicUsize::new(UNKNOWN),
            scopes,
        })
    }

    /// Finds out whether credentials are good, and what stands for the password from now on, if
    /// the registry says so.
    pub async fn login(self: &Arc<Self>, credentials: &Credentials) -> Result<String, Error> {
        let domain = endpoint::domain_of_address(&credentials.server_address);
        let mut last = Error::NoHost;
        for endpoint in endpoint::endpoints(self.config(), &domain, true)? {
            let session = Session::new(self, endpoint, credentials)?;
            let ask = Ask {
                method: Method::GET,
                url: session.endpoint.url("")?,
                headers: Vec::new(),
                scopes: &[],
                is_checked: false,
            };
            match session.ask(&ask).await {
                Ok(answer) => {
                    answer.expect(&[200]).await?;
                    return Ok(session.refresh_token().await);
                }
                Err(error) if error.is_outside() => {}
                Err(error) if error.is_of_tls() && session.endpoint.trust_anyone => {
                    return Err(error.advised(&domain));
                }
                Err(error) if error.is_unanswered() => last = error,
                Err(error) => return Err(error),
            }
        }
        Err(last.advised(&domain))
    }
}

impl Repository {
    /// The registry, `docker.io`.
    pub fn domain(&self) -> &str {
        &self.domain
    }

    /// The name within the registry, `library/busybox`.
    pub fn path(&self) -> &str {
        &self.path
    }

    pub(crate) fn credentials(&self) -> &Credentials {
        &self.credentials
    }

    pub(crate) fn registries(&self) -> &Arc<Registries> {
        &self.registries
    }

    pub(crate) fn scopes(&self) -> &[String] {
        &self.scopes
    }

    /// Whether any server has ever answered. Nobody waits for one that never has.
    pub(crate) fn has_answered(&self) -> bool {
        self.settled.load(Ordering::Relaxed) != UNKNOWN
    }

    /// The server that answered last, or the first to ask.
    pub(crate) fn session(&self) -> Result<&Session, Error> {
        let settled = self.settled.load(Ordering::Relaxed);
        let index = if settled == UNKNOWN { 0 } else { settled };
        self.sessions.get(index).ok_or(Error::NoHost)
    }

    /// Which server is asked now.
    pub(crate) fn place(&self) -> usize {
        let settled = self.settled.load(Ordering::Relaxed);
        if settled == UNKNOWN { 0 } else { settled }
    }

    /// Whether there is another server to ask in place of the one at this place.
    pub(crate) fn may_leave(&self, place: usize) -> bool {
        let is_mirror = self.sessions.get(place).is_some_and(|session| session.endpoint.is_mirror);
        is_mirror && place + 1 < self.sessions.len()
    }

    /// Has the server at this place asked no more, since what it sends is wrong. `false` if it is
    /// no mirror, so that there is no other to ask.
    pub(crate) fn distrust(&self, place: usize) -> bool {
        if !self.may_leave(place) {
            return false;
        }
        // Others may have found it out before.
        if self.place() == place {
            self.settled.store(place + 1, Ordering::Relaxed);
        }
        true
    }

    /// Asks the servers in turn, once each, but for those before one that answered.
    pub(crate) async fn once(&self, inquiry: &Inquiry<'_>) -> Result<Answer, Error> {
        self.try_all(inquiry, false).await
    }

    /// Asks one server, once, whatever the others do.
    pub(crate) async fn once_at(
        &self,
        place: usize,
        inquiry: &Inquiry<'_>,
    ) -> Result<Answer, Error> {
        let session = self.sessions.get(place).ok_or(Error::NoHost)?;
        self.exchange(session, inquiry).await
    }

    /// Asks the servers in turn, and again what may answer a little later.
    pub(crate) async fn ask(&self, inquiry: &Inquiry<'_>) -> Result<Answer, Error> {
        self.try_all(inquiry, true).await.map_err(|error| error.advised(&self.domain))
    }

    async fn try_all(&self, inquiry: &Inquiry<'_>, patient: bool) -> Result<Answer, Error> {
        let settled = self.settled.load(Ordering::Relaxed);
        let first = if settled == UNKNOWN { 0 } else { settled };
        let mut last = Error::NoHost;
        // The server that has TLS, though not to our liking: it is not asked without.
        let mut has_tls: Option<&str> = None;
        for (index, session) in self.sessions.iter().enumerate().skip(first) {
            if has_tls == Some(&session.endpoint.authority)
                && session.endpoint.base.starts_with("http://")
            {
                continue;
            }
            // While there is another server to ask, nobody waits for this one, nor for one that
            // has never answered: people want to know at once that they mistyped its name.
            let is_last = self.sessions[index + 1..].iter().all(|other| other.endpoint.is_near);
            let mut attempts = self.registries.config().retry.begin();
            let result = loop {
                match self.exchange(session, inquiry).await {
                    Err(error)
                        if patient && (index == settled || (is_last && !error.is_unanswered())) =>
                    {
                        if let Err(error) = attempts.again(error).await {
                            break Err(error);
                        }
                    }
                    result => break result,
                }
            };
            match result {
                Ok(answer) => {
                    self.settled.store(index, Ordering::Relaxed);
                    return Ok(answer);
                }
                Err(error) if !session.endpoint.is_mirror && !error.is_unanswered() => {
                    self.settled.store(index, Ordering::Relaxed);
                    return Err(error);
                }
                Err(error) => {
                    tracing::debug!(server = session.endpoint.base, %error, "next server");
                    if error.is_of_tls() {
                        has_tls = Some(&session.endpoint.authority);
                    }
                    if !error.is_outside() {
                        last = error;
                    }
                }
            }
        }
        Err(last)
    }

    async fn exchange(&self, session: &Session, inquiry: &Inquiry<'_>) -> Result<Answer, Error> {
        let ask = Ask {
            method: inquiry.method.clone(),
            url: self.url(session, inquiry.path)?,
            headers: inquiry.headers.clone(),
            scopes: inquiry.scopes.unwrap_or(&self.scopes),
            is_checked: inquiry.is_checked,
        };
        session.ask(&ask).await?.expect(inquiry.good).await
    }

    /// The URL of something of the repository on one server.
    pub(crate) fn url(&self, session: &Session, path: &str) -> Result<Uri, Error> {
        session.endpoint.url(&format!("{}/{path}", self.path))
    }
}

/// Which manifest is meant: a tag, or a digest.
pub(crate) fn selector(reference: &Reference) -> (String, Option<Digest>) {
    if let Some(digest) = reference.digest() {
        return (digest.to_string(), Some(*digest));
    }
    let tag = reference.tag().unwrap_or(silo_oci::reference::DEFAULT_TAG);
    debug_assert!(is_tag(tag), "the grammar of references has it");
    (tag.to_owned(), None)
}
