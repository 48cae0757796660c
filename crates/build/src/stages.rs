//! The stages of a build, each a task of its own: one waits for another and does not carry it out
//! itself, so that no chain of them, however long a Dockerfile makes it, is deep on a stack.

use std::sync::{Arc, Mutex, PoisonError};

use silo_types::ErrorKind;
use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::job::Job;
use crate::outcome::BuildError;
use crate::state::State;

/// What comes of a stage.
type Built = Result<Arc<State>, BuildError>;

/// The stages of one build.
#[derive(Debug)]
pub(crate) struct Stages {
    results: Vec<watch::Sender<Option<Built>>>,
    tasks: Mutex<Tasks>,
}

#[derive(Debug, Default)]
struct Tasks {
    running: JoinSet<()>,
    begun: Vec<bool>,
    ended: bool,
}

impl Stages {
    /// None of them has begun.
    pub(crate) fn new(count: usize) -> Self {
        let results = (0..count).map(|_| watch::Sender::new(None)).collect();
        let tasks = Tasks { begun: vec![false; count], ..Tasks::default() };
        Self { results, tasks: Mutex::new(tasks) }
    }

    /// Ends those that are under way; no more begin.
    fn end(&self) {
        let mut tasks = self.tasks.lock().unwrap_or_else(PoisonError::into_inner);
        tasks.ended = true;
        tasks.running.abort_all();
    }
}

/// Ends the stages of a build when it is dropped: their tasks hold the build.
#[derive(Debug)]
pub(crate) struct EndStages(pub(crate) Arc<Job>);

impl Drop for EndStages {
    fn drop(&mut self) {
        self.0.stages.end();
    }
}

/// Gives those who wait a result, whatever becomes of the task.
struct Begun<'a>(&'a watch::Sender<Option<Built>>);

impl Drop for Begun<'_> {
    fn drop(&mut self) {
        self.0.send_if_modified(|result| {
            let is_lost = result.is_none();
            result.get_or_insert_with(|| {
                Err(BuildError::new(ErrorKind::Internal, "a stage of the build was lost"))
            });
            is_lost
        });
    }
}

impl Job {
    /// The result of a stage, which is built once whoever asks for it.
    pub(crate) async fn stage(self: &Arc<Self>, index: usize) -> Built {
        let mut result = self.stages.results[index].subscribe();
        self.begin_stage(index);
        let built = result.wait_for(Option::is_some).await.ok().and_then(|built| built.clone());
        built.unwrap_or_else(|| {
            // buildkit wording
            Err(BuildError::new(ErrorKind::Cancelled, "context canceled"))
        })
    }

    fn begin_stage(self: &Arc<Self>, index: usize) {
        let mut tasks = self.stages.tasks.lock().unwrap_or_else(PoisonError::into_inner);
        if tasks.ended || std::mem::replace(&mut tasks.begun[index], true) {
            return;
        }
        let job = Arc::clone(self);
        tasks.running.spawn(async move {
            let result = &job.stages.results[index];
            let begun = Begun(result);
            let built = job.build_stage(index).await.map(Arc::new);
            result.send_replace(Some(built));
            drop(begun);
        });
    }
}
