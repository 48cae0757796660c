//! Uploads that go on where they were: after a connection that broke, and after the end of the
//! process.
//!
//! A server tells how much it has of an upload; from there on it gets the rest. Servers that know
//! nothing of it any more, that take no rest, or whose word about it turns out to be wrong (the
//! digest tells in the end) get all of it once more.

use std::collections::HashSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use silo_http::Uri;

use crate::retry::Attempts;
use crate::{Error, Known, Repository, Retry};

/// Bytes after which a connection counts as one that worked.
const WORKED: u64 = 256 << 10;
/// How often a server may lose an upload.
const LOST: u32 = 3;
/// How often a server is asked how much it has, if it fails to tell.
const ASKED: u32 = 4;
/// Uploads of fewer bytes are not remembered: they are sent again as fast.
const WORTH: u64 = 1 << 20;
/// The longest location that is remembered, in bytes.
const MAX_LOCATION: usize = 4096;

/// The remembered uploads that are on their way in this process: of two pushes of the same layer,
/// one goes on with what was remembered.
#[derive(Debug, Default)]
pub(crate) struct Running(Mutex<HashSet<String>>);

impl Running {
    fn lock(&self) -> MutexGuard<'_, HashSet<String>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// An upload that is remembered while it is on its way.
#[derive(Debug)]
pub(crate) struct Kept {
    running: Arc<Running>,
    known: Arc<dyn Known>,
    what: String,
}

impl Kept {
    /// `content` says what is sent; `size`, about how much. `None` if that is not worth it, or
    /// another push has it.
    pub(crate) fn new(
        repository: &Repository,
        known: &Arc<dyn Known>,
        content: &str,
        size: u64,
    ) -> Option<Self> {
        let what = format!("{}/{} {content}", repository.domain(), repository.path());
        let running = repository.registries().running();
        let is_mine = size >= WORTH && running.lock().insert(what.clone());
        is_mine.then(|| Self { running: Arc::clone(running), known: Arc::clone(known), what })
    }

    fn location(&self) -> Option<Uri> {
        let location = self.known.upload(&self.what)?;
        silo_http::parse_url(&location).ok()
    }

    fn is_at(&self, location: &Uri) {
        let location = location.to_string();
        if location.len() <= MAX_LOCATION {
            self.known.uploading(&self.what, &location);
        }
    }
}

impl Drop for Kept {
    fn drop(&mut self) {
        self.running.lock().remove(&self.what);
    }
}

/// The attempts at one upload.
#[derive(Debug)]
pub(crate) struct Course<'a> {
    repository: &'a Repository,
    attempts: Attempts<'a>,
    kept: Option<Kept>,
    /// Where the server has it.
    upload: Option<Uri>,
    /// How much the server has, in bytes.
    offset: u64,
    /// The most that the server ever said to have.
    most: u64,
    refused: bool,
    lost: u32,
    may_go_on: bool,
}

/// Whether a server takes no rest of an upload, or has something else than it said.
fn refuses_the_rest(error: &Error) -> bool {
    matches!(
        error,
        Error::Refused { status: 400 | 405 | 409 | 411 | 412 | 422 | 501, .. }
            | Error::Protocol { .. }
    )
}

impl<'a> Course<'a> {
    /// Before the first attempt: an upload that an earlier push began goes on. `most` is how many
    /// bytes a server can have.
    pub(crate) async fn begin(repository: &'a Repository, kept: Option<Kept>, most: u64) -> Self {
        let attempts = repository.registries().config().retry.begin();
        let upload = kept.as_ref().and_then(Kept::location);
        let mut course = Self {
            repository,
            attempts,
            kept,
            upload,
            offset: 0,
            most: 0,
            refused: false,
            lost: 0,
            may_go_on: true,
        };
        course.look(most).await;
        course
    }

    /// Where the upload is, if it has begun.
    pub(crate) fn upload(&self) -> Option<&Uri> {
        self.upload.as_ref()
    }

    /// How much the server has, in bytes.
    pub(crate) fn offset(&self) -> u64 {
        self.offset
    }

    /// The upload is, or goes on, at a place.
    pub(crate) fn is_at(&mut self, location: &Uri) {
        if self.upload.as_ref() != Some(location) {
            if let Some(kept) = &self.kept {
                kept.is_at(location);
            }
            self.upload = Some(location.clone());
        }
    }

    /// The server has it all.
    pub(crate) fn ended(&self) {
        if let Some(kept) = &self.kept {
            kept.known.uploaded(&kept.what);
        }
    }

    /// An attempt failed: waits for the next one, or gives the error back. `most` is how many
    /// bytes a server can have.
    pub(crate) async fn failed(&mut self, error: Error, most: u64) -> Result<(), Error> {
        let went_on = self.offset > 0;
        match error {
            // The token was too old.
            Error::Refused { status: 401, .. } if !self.refused => self.refused = true,
            error if error.is_unanswered() && !self.repository.has_answered() => {
                return Err(error);
            }
            error if went_on && refuses_the_rest(&error) => {
                tracing::debug!(%error, "an upload that does not go on begins anew");
                self.may_go_on = false;
                if let Some(upload) = self.upload.take() {
                    self.repository.cancel(upload).await;
                }
            }
            // The server knows nothing of the upload any more, or has another part of it. One
            // that goes on to say so is not asked for ever.
            Error::Refused { status: 404 | 416, .. }
                if self.upload.is_some() && self.lost < LOST =>
            {
                self.lost += 1;
                self.may_go_on &= self.lost < LOST;
            }
            error => self.attempts.again(error).await?,
        }
        self.look(most).await;
        Ok(())
    }

    /// Asks the server how much it has.
    async fn look(&mut self, most: u64) {
        let upload = self.upload.take().filter(|_| self.may_go_on);
        self.offset = 0;
        let Some(upload) = upload else { return };
        let retry = &self.repository.registries().config().retry;
        let retry = Retry { attempts: retry.attempts.min(ASKED), ..retry.clone() };
        let mut attempts = retry.begin();
        let found = loop {
            let error = match self.repository.progress_of(&upload).await {
                Ok(found) => break found,
                Err(error) => error,
            };
            if let Err(error) = attempts.again(error).await {
                tracing::debug!(%error, "an upload that broke off is not there any more");
                break None;
            }
        };
        if let Some((next, offset)) = found.filter(|(_, offset)| *offset <= most) {
            self.is_at(&next);
            self.offset = offset;
            if offset >= self.most.saturating_add(WORKED) {
                self.attempts.progressed();
            }
            self.most = self.most.max(offset);
        }
    }
}
