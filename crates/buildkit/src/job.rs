//! Builds that clients have asked for, and what is known of them.
//!
//! A client makes three calls for one build, in any order: `Solve`, which lasts as long as the
//! build; `Status`, which follows it; and, when it is its own frontend, those of the gateway.
//! They meet by the build's reference, which the client chose.

use std::collections::{HashMap, VecDeque};
use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures_util::{Stream, stream};
use silo_build::progress::{Event, Progress};
use silo_types::Error;
use tokio::sync::watch;

use crate::gateway::Bridge;
use crate::pb::moby::buildkit::v1::{StatusResponse, Vertex, VertexLog};
use crate::status;

/// How long a call waits for the build that it is about.
const PATIENCE: Duration = Duration::from_secs(6);
/// Ended builds whose events can still be read.
const REMEMBERED: usize = 16;
/// Bytes of output that are kept of one vertex. BuildKit's default.
const MAX_LOG: usize = 2 * 1024 * 1024;
/// Bytes of output that are kept of one build, and of all that have ended but the last.
const MAX_LOGS: usize = 64 * 1024 * 1024;
/// Bytes that an entry of output takes besides its own.
const OVERHEAD: usize = 256;
/// Events that are kept of one build.
const MAX_EVENTS: usize = 200_000;
/// Events in one message.
const BATCH: usize = 256;
/// Bytes of a reference.
const MAX_REFERENCE: usize = 256;

/// One build.
#[derive(Debug)]
pub(crate) struct Job {
    reference: String,
    session: String,
    log: Mutex<Log>,
    changed: watch::Sender<()>,
    bridge: Bridge,
}

#[derive(Default)]
struct Log {
    events: Vec<StatusResponse>,
    written: HashMap<String, usize>,
    total: usize,
    ended: bool,
    steps: Steps,
}

impl fmt::Debug for Log {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Log").field("events", &self.events.len()).finish_non_exhaustive()
    }
}

/// How many vertices a build has, by their state.
#[derive(Debug, Clone, Default)]
pub(crate) struct Steps {
    latest: HashMap<String, (bool, bool)>,
    warnings: i32,
}

impl Steps {
    fn take(&mut self, vertex: &Vertex) {
        let state = (vertex.completed.is_some(), vertex.cached);
        self.latest.insert(vertex.digest.clone(), state);
    }

    /// All, those that ended, those that were cached, and warnings.
    pub(crate) fn counts(&self) -> (i32, i32, i32, i32) {
        let count = |wanted: fn(&(bool, bool)) -> bool| {
            i32::try_from(self.latest.values().filter(|state| wanted(state)).count())
                .unwrap_or(i32::MAX)
        };
        (count(|_| true), count(|state| state.0), count(|state| state.1), self.warnings)
    }
}

impl Job {
    /// The client's session.
    pub(crate) fn session(&self) -> &str {
        &self.session
    }

    /// The reference that the client chose.
    pub(crate) fn reference(&self) -> &str {
        &self.reference
    }

    /// What the gateway knows of it.
    pub(crate) fn bridge(&self) -> &Bridge {
        &self.bridge
    }

    /// What its vertices have come to.
    pub(crate) fn steps(&self) -> Steps {
        self.log.lock().unwrap_or_else(PoisonError::into_inner).steps.clone()
    }

    /// Adds a message to what those who follow see.
    pub(crate) fn tell(&self, mut response: StatusResponse) {
        {
            let mut log = self.log.lock().unwrap_or_else(PoisonError::into_inner);
            let log = &mut *log;
            response.logs.retain_mut(|entry| keep_log(&mut log.written, &mut log.total, entry));
            for vertex in &response.vertexes {
                log.steps.take(vertex);
            }
            log.steps.warnings = log
                .steps
                .warnings
                .saturating_add(i32::try_from(response.warnings.len()).unwrap_or(i32::MAX));
            let ends = response.vertexes.iter().any(|vertex| vertex.completed.is_some());
            if response == StatusResponse::default() || (log.events.len() >= MAX_EVENTS && !ends) {
                return;
            }
            log.events.push(response);
        }
        self.changed.send_replace(());
    }

    /// No more events come.
    fn end(&self) {
        self.log.lock().unwrap_or_else(PoisonError::into_inner).ended = true;
        self.changed.send_replace(());
    }

    /// Returns when the build has ended.
    pub(crate) async fn ended(&self) {
        let mut changed = self.changed.subscribe();
        loop {
            changed.mark_unchanged();
            if self.log.lock().unwrap_or_else(PoisonError::into_inner).ended {
                return;
            }
            // The sender lives as long as the job.
            drop(changed.changed().await);
        }
    }

    /// All events from the first, until the build ends.
    pub(crate) fn follow(self: Arc<Self>) -> impl Stream<Item = StatusResponse> + Send {
        let changed = self.changed.subscribe();
        stream::unfold((self, changed, 0), |(job, mut changed, position)| async move {
            loop {
                changed.mark_unchanged();
                let (batch, next, ended) = {
                    let log = job.log.lock().unwrap_or_else(PoisonError::into_inner);
                    let mut batch = StatusResponse::default();
                    let next = log.events.len().min(position + BATCH);
                    for event in &log.events[position..next] {
                        batch.vertexes.extend_from_slice(&event.vertexes);
                        batch.statuses.extend_from_slice(&event.statuses);
                        batch.logs.extend_from_slice(&event.logs);
                        batch.warnings.extend_from_slice(&event.warnings);
                    }
                    (batch, next, log.ended)
                };
                if next > position {
                    return Some((batch, (job, changed, next)));
                }
                if ended {
                    return None;
                }
                // The sender lives as long as the job.
                drop(changed.changed().await);
            }
        })
    }
}

/// Cuts output that is too long, and says so once.
fn keep_log(
    written: &mut HashMap<String, usize>,
    total: &mut usize,
    entry: &mut VertexLog,
) -> bool {
    let written = written.entry(entry.vertex.clone()).or_default();
    if *written > MAX_LOG {
        return false;
    }
    *written += entry.msg.len();
    *total += entry.msg.len() + OVERHEAD;
    if *written > MAX_LOG || *total > MAX_LOGS {
        *written = MAX_LOG + 1;
        // BuildKit's wording.
        entry.msg = "[output clipped, log limit 2MiB reached]\n".into();
    }
    true
}

impl Progress for Job {
    fn event(&self, event: Event) {
        // The builder has vertices without a name for instructions that only change the
        // configuration; BuildKit shows none.
        if let Event::Vertex(vertex) = &event
            && vertex.name.is_empty()
        {
            return;
        }
        if let Some(response) = status::response(event) {
            self.tell(response);
        }
    }
}

/// All builds that run, and the latest that ended.
#[derive(Debug, Default)]
pub(crate) struct Jobs {
    state: Mutex<State>,
    changed: watch::Sender<()>,
    count: AtomicU64,
}

#[derive(Debug, Default)]
struct State {
    running: HashMap<String, Arc<Job>>,
    ended: VecDeque<Arc<Job>>,
}

/// A build that runs until this is dropped.
#[derive(Debug)]
pub(crate) struct Running {
    jobs: Arc<Jobs>,
    job: Arc<Job>,
}

impl Running {
    pub(crate) fn job(&self) -> &Arc<Job> {
        &self.job
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.job.end();
        self.job.bridge.clear();
        let mut state = self.jobs.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.running.remove(&self.job.reference);
        state.ended.push_back(Arc::clone(&self.job));
        let output = |job: &Arc<Job>| job.log.lock().unwrap_or_else(PoisonError::into_inner).total;
        let mut total: usize = state.ended.iter().map(output).sum();
        while state.ended.len() > REMEMBERED || (total > MAX_LOGS && state.ended.len() > 1) {
            let oldest = state.ended.pop_front();
            total -= oldest.as_ref().map_or(0, output);
        }
    }
}

impl Jobs {
    /// A number that no other build has.
    pub(crate) fn number(&self) -> u64 {
        self.count.fetch_add(1, Ordering::Relaxed)
    }

    /// Begins a build.
    pub(crate) fn begin(
        self: &Arc<Self>,
        reference: &str,
        session: &str,
    ) -> Result<Running, Error> {
        if reference.is_empty() || reference.len() > MAX_REFERENCE {
            return Err(Error::invalid("invalid reference of a build"));
        }
        let job = Arc::new(Job {
            reference: reference.to_owned(),
            session: session.to_owned(),
            log: Mutex::default(),
            changed: watch::Sender::new(()),
            bridge: Bridge::default(),
        });
        {
            let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
            if state.running.contains_key(reference) {
                // BuildKit's wording.
                return Err(Error::conflict(format!("job ID {reference} exists")));
            }
            state.ended.retain(|ended| ended.reference != reference);
            state.running.insert(reference.to_owned(), Arc::clone(&job));
        }
        self.changed.send_replace(());
        Ok(Running { jobs: Arc::clone(self), job })
    }

    /// A build, running or ended, waiting a moment for it.
    pub(crate) async fn get(&self, reference: &str) -> Result<Arc<Job>, Error> {
        let mut changed = self.changed.subscribe();
        let found = async {
            loop {
                changed.mark_unchanged();
                let known = {
                    let state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
                    let ended = state.ended.iter().find(|job| job.reference == reference);
                    state.running.get(reference).or(ended).cloned()
                };
                if let Some(job) = known {
                    return job;
                }
                // The sender lives as long as `self`.
                drop(changed.changed().await);
            }
        };
        // BuildKit's wording.
        let unknown = || Error::not_found(format!("no such job {reference}"));
        tokio::time::timeout(PATIENCE, found).await.map_err(|_| unknown())
    }
}
