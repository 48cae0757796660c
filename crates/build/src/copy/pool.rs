//! Threads that copy files while the tree is walked on.
//!
//! The one who walks copies too when the threads have enough to do, so that nothing is gathered
//! without bound and no processor waits.

use std::collections::VecDeque;
use std::ffi::OsString;
use std::os::fd::{AsFd as _, OwnedFd};
use std::path::PathBuf;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;

use rustix::fs::Stat;

use super::CopyError;
use super::file::{self, At, Attribution};
use crate::context::Digests;

/// What a batch may come to: bytes, of which each file counts as [`FILE`] more.
const BATCH: u64 = 512 << 10;
/// What opening and closing costs, as bytes.
const FILE: u64 = 8 << 10;
/// Batches that may wait.
const QUEUE: usize = 4;
/// The most threads.
const THREADS: usize = 4;

/// A regular file to be copied.
#[derive(Debug)]
pub(crate) struct FileJob {
    pub(crate) source: Arc<OwnedFd>,
    pub(crate) source_name: OsString,
    pub(crate) target: Arc<OwnedFd>,
    pub(crate) name: OsString,
    pub(crate) stat: Stat,
    /// Its path at the destination.
    pub(crate) shown: PathBuf,
    /// See [`file::copy`].
    pub(crate) giving: Option<Arc<Digests>>,
}

impl FileJob {
    fn run(&self, attribution: &Attribution, buffer: &mut Vec<u8>) -> Result<(), CopyError> {
        let from = At { directory: self.source.as_fd(), name: &self.source_name };
        let to = At { directory: self.target.as_fd(), name: &self.name };
        let giving = self.giving.as_deref();
        file::copy(from, to, &self.stat, attribution, giving, buffer, &self.shown)
    }
}

#[derive(Debug, Default)]
struct Queue {
    batches: VecDeque<Vec<FileJob>>,
    busy: usize,
    closed: bool,
    failure: Option<CopyError>,
}

#[derive(Debug, Default)]
struct Shared {
    queue: Mutex<Queue>,
    /// A batch came, or the end.
    work: Condvar,
    /// A batch is done.
    progress: Condvar,
    attribution: Attribution,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn run(&self, batch: &[FileJob], buffer: &mut Vec<u8>) -> Result<(), CopyError> {
        batch.iter().try_for_each(|job| job.run(&self.attribution, buffer))
    }

    fn serve(&self) {
        let mut buffer = Vec::new();
        let mut queue = self.lock();
        loop {
            let Some(batch) = queue.batches.pop_front() else {
                if queue.closed {
                    return;
                }
                queue = self.work.wait(queue).unwrap_or_else(PoisonError::into_inner);
                continue;
            };
            queue.busy += 1;
            drop(queue);
            let result = self.run(&batch, &mut buffer);
            drop(batch);
            queue = self.lock();
            queue.busy -= 1;
            if let Err(error) = result {
                queue.failure.get_or_insert(error);
                queue.batches.clear();
            }
            self.progress.notify_all();
        }
    }
}

/// The threads, and the batch that is being gathered.
#[derive(Debug)]
pub(crate) struct Pool {
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<()>>,
    wanted: usize,
    batch: Vec<FileJob>,
    weight: u64,
    buffer: Vec<u8>,
}

impl Pool {
    /// One without threads yet: they come with the first full batch.
    pub(crate) fn new(attribution: Attribution) -> Self {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        Self {
            shared: Arc::new(Shared { attribution, ..Shared::default() }),
            threads: Vec::new(),
            wanted: (cores - 1).min(THREADS),
            batch: Vec::new(),
            weight: 0,
            buffer: Vec::new(),
        }
    }

    /// Copies a file, at some time before the next [`Self::barrier`] returns.
    pub(crate) fn add(&mut self, job: FileJob) -> Result<(), CopyError> {
        self.weight += FILE + u64::try_from(job.stat.st_size).unwrap_or(0);
        self.batch.push(job);
        if self.weight < BATCH {
            return Ok(());
        }
        let batch = self.take();
        while self.threads.len() < self.wanted {
            let shared = Arc::clone(&self.shared);
            let builder = std::thread::Builder::new().name("copy".into());
            match builder.spawn(move || shared.serve()) {
                Ok(thread) => self.threads.push(thread),
                Err(_) => self.wanted = self.threads.len(),
            }
        }
        let mut queue = self.shared.lock();
        if let Some(error) = queue.failure.take() {
            return Err(error);
        }
        if queue.batches.len() < QUEUE && !self.threads.is_empty() {
            queue.batches.push_back(batch);
            drop(queue);
            self.shared.work.notify_one();
            return Ok(());
        }
        drop(queue);
        self.shared.run(&batch, &mut self.buffer)
    }

    fn take(&mut self) -> Vec<FileJob> {
        self.weight = 0;
        std::mem::take(&mut self.batch)
    }

    /// Returns when all files are copied that were added.
    pub(crate) fn barrier(&mut self) -> Result<(), CopyError> {
        let batch = self.take();
        self.shared.run(&batch, &mut self.buffer)?;
        loop {
            let mut queue = self.shared.lock();
            if let Some(error) = queue.failure.take() {
                return Err(error);
            }
            if let Some(batch) = queue.batches.pop_front() {
                drop(queue);
                self.shared.run(&batch, &mut self.buffer)?;
                continue;
            }
            if queue.busy == 0 {
                return Ok(());
            }
            drop(self.shared.progress.wait(queue).unwrap_or_else(PoisonError::into_inner));
        }
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        let mut queue = self.shared.lock();
        queue.closed = true;
        queue.batches.clear();
        drop(queue);
        self.shared.work.notify_all();
        for thread in self.threads.drain(..) {
            // A panic of a thread has been printed by itself.
            drop(thread.join());
        }
    }
}
