//! Parts of a big blob that come side by side, ahead of where its reader is.
//!
//! Many servers give each connection so many bytes a second, however fast the line is. So when a
//! reader mostly waits for its one connection, others fetch the next parts of the blob. What they
//! fetch is kept in memory until its turn comes, so that its amount is bounded over all blobs
//! ([`Ranges::ahead`]): nobody waits for room, who finds none leaves it.
//!
//! Parts are only ever a help. A server that does not know ranges, or that wants to be asked less,
//! is asked for no more of them; whatever has not come by its turn comes by the one connection,
//! which alone says what is wrong.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use silo_oci::image::Descriptor;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio::task::JoinSet;

use crate::answer::Answer;
use crate::blob::{Part, WORKED};
use crate::{Error, Ranges, Repository};

/// Bytes that are handed over at once. What comes in smaller pieces is put together, since each
/// of those may keep much larger a buffer.
const PIECE: usize = 128 << 10;

/// A permit for each of so many bytes.
const UNIT: u64 = 1 << 10;

/// Memory for what comes ahead, for all blobs together.
pub(crate) fn memory(ranges: &Ranges) -> Arc<Semaphore> {
    let permits = usize::try_from(ranges.ahead / UNIT).unwrap_or(usize::MAX);
    Arc::new(Semaphore::new(permits.min(Semaphore::MAX_PERMITS)))
}

fn units(bytes: u64) -> u32 {
    u32::try_from(bytes.div_ceil(UNIT)).unwrap_or(u32::MAX)
}

/// How fast a blob comes, and who waits for whom.
#[derive(Debug)]
pub(crate) struct Pace {
    since: Option<Instant>,
    waited: Duration,
    bytes: u64,
}

impl Pace {
    pub(crate) fn new() -> Self {
        Self { since: None, waited: Duration::ZERO, bytes: 0 }
    }

    /// A piece has come that was waited for. `true` if, by what has come since the last time that
    /// this was asked, the reader waits most of the time, and parts would come at least half as
    /// fast again, though each has to be asked for, which takes `latency`.
    pub(crate) fn is_slow(
        &mut self,
        waited: Duration,
        bytes: usize,
        latency: Duration,
        ranges: &Ranges,
    ) -> bool {
        let now = Instant::now();
        // The wait for the first piece is the server's time to think.
        let Some(since) = self.since else {
            self.since = Some(now);
            return false;
        };
        self.waited += waited;
        self.bytes += bytes as u64;
        let elapsed = now - since;
        if elapsed < ranges.patience {
            return false;
        }
        let found = self.is_worth(elapsed, latency, ranges);
        *self = Self { since: Some(now), ..Self::new() };
        found
    }

    /// With one connection, `length` bytes take `length / rate`; with `n`, that and the latency,
    /// but `n` times as many come.
    fn is_worth(&self, elapsed: Duration, latency: Duration, ranges: &Ranges) -> bool {
        let waits = self.waited.as_micros() * 4 >= elapsed.as_micros() * 3;
        let during = u128::from(self.bytes) * latency.as_micros() / elapsed.as_micros().max(1);
        let length = u128::from(ranges.length);
        waits && 3 * (length + during) < 2 * length * ranges.at_once as u128
    }
}

/// A part on its way.
#[derive(Debug)]
struct Range {
    start: u64,
    end: u64,
    pieces: mpsc::UnboundedReceiver<(Bytes, OwnedSemaphorePermit)>,
}

/// The parts of one blob that are on their way, in their order and without gaps.
#[derive(Debug)]
pub(crate) struct Ahead {
    repository: Arc<Repository>,
    wanted: Descriptor,
    parts: VecDeque<Range>,
    tasks: JoinSet<()>,
    has_begun: bool,
    /// The server is not to be asked for parts any more.
    is_over: Arc<AtomicBool>,
}

impl Ahead {
    pub(crate) fn new(repository: Arc<Repository>, wanted: &Descriptor) -> Self {
        Self {
            repository,
            wanted: wanted.clone(),
            parts: VecDeque::new(),
            tasks: JoinSet::new(),
            has_begun: false,
            is_over: Arc::default(),
        }
    }

    /// No parts from here on.
    pub(crate) fn give_up(&self) {
        self.is_over.store(true, Ordering::Relaxed);
    }

    /// Where the next part begins, if there is one.
    pub(crate) fn start(&self) -> Option<u64> {
        self.parts.front().map(|part| part.start)
    }

    /// The one connection is known to be slow.
    pub(crate) fn begin(&mut self) {
        self.has_begun = true;
    }

    /// Asks for further parts, as many as may be, of a blob that is read at `position`, by the one
    /// connection where `is_direct`.
    pub(crate) fn extend(&mut self, position: u64, is_direct: bool) {
        while self.tasks.try_join_next().is_some() {}
        if !self.has_begun || self.is_over.load(Ordering::Relaxed) {
            return;
        }
        let registries = Arc::clone(self.repository.registries());
        let ranges = &registries.config().ranges;
        let length = ranges.length.max(UNIT);
        while self.tasks.len() + usize::from(is_direct) < ranges.at_once {
            // One part is left to the one connection, or there would be none between its end and
            // its reader.
            let start = match self.parts.back() {
                Some(part) => part.end,
                None if is_direct => position.saturating_add(length),
                None => position,
            };
            let end = start.saturating_add(length).min(self.wanted.size);
            if start >= end {
                return;
            }
            let memory = Arc::clone(registries.ahead());
            let Ok(permit) = memory.try_acquire_many_owned(units(end - start)) else { return };
            let (sender, pieces) = mpsc::unbounded_channel();
            let fetch = Fetch {
                repository: Arc::clone(&self.repository),
                wanted: self.wanted.clone(),
                place: self.repository.place(),
                position: start,
                end,
                permit,
                sender,
                gathered: BytesMut::new(),
            };
            let is_over = Arc::clone(&self.is_over);
            self.tasks.spawn(async move {
                if let Err(error) = fetch.run().await {
                    tracing::debug!(%error, "no more parts of a blob");
                    is_over.store(true, Ordering::Relaxed);
                }
            });
            self.parts.push_back(Range { start, end, pieces });
        }
    }

    /// The next piece of the first part; `None` when it has ended, perhaps early.
    pub(crate) async fn next(&mut self) -> Option<Bytes> {
        let part = self.parts.front_mut()?;
        if let Some((piece, _)) = part.pieces.recv().await {
            part.start += piece.len() as u64;
            return Some(piece);
        }
        self.parts.pop_front();
        None
    }
}

/// The task of one part.
struct Fetch {
    repository: Arc<Repository>,
    wanted: Descriptor,
    /// The server that is asked. If it fails, the one connection finds another.
    place: usize,
    position: u64,
    end: u64,
    permit: OwnedSemaphorePermit,
    sender: mpsc::UnboundedSender<(Bytes, OwnedSemaphorePermit)>,
    gathered: BytesMut,
}

impl Fetch {
    async fn run(mut self) -> Result<(), Error> {
        let repository = Arc::clone(&self.repository);
        let mut attempts = repository.registries().config().retry.begin();
        let mut began = self.position;
        while self.position < self.end {
            let result = match self.open().await {
                Ok((answer, end)) => self.read(answer, end).await,
                Err(error) => Err(error),
            };
            self.hand_over();
            if self.position - began >= WORKED {
                attempts.progressed();
            }
            match result {
                // The one connection asks another server at once.
                Err(error) if error.is_unanswered() && self.repository.may_leave(self.place) => {
                    return Err(error);
                }
                Err(error @ Error::Refused { status: 429, .. }) => return Err(error),
                Err(error) => attempts.again(error).await?,
                // A server may send less than was asked for.
                Ok(()) => {}
            }
            began = self.position;
        }
        Ok(())
    }

    /// Asks for what has not come yet; gives also where the answer ends.
    async fn open(&self) -> Result<(Answer, u64), Error> {
        let part = Part { start: self.position, end: Some(self.end) };
        let answer = part.ask(&self.repository, &self.wanted, Some(self.place)).await?;
        if answer.status.as_u16() != 206 {
            return Err(answer.wrong("it does not know ranges"));
        }
        let end = part.check(&answer, self.wanted.size)?;
        Ok((answer, end))
    }

    async fn read(&mut self, mut answer: Answer, end: u64) -> Result<(), Error> {
        let end = end.min(self.end);
        while self.position < end {
            let Some(mut piece) = answer.next().await? else {
                return Err(answer.ended_early());
            };
            piece.truncate(usize::try_from(end - self.position).unwrap_or(usize::MAX));
            self.position += piece.len() as u64;
            while !piece.is_empty() {
                if self.gathered.capacity() == 0 {
                    self.gathered.reserve(PIECE);
                }
                let fits = piece.split_to(piece.len().min(PIECE - self.gathered.len()));
                self.gathered.extend_from_slice(&fits);
                if self.gathered.len() == PIECE {
                    self.hand_over();
                }
            }
        }
        Ok(())
    }

    fn hand_over(&mut self) {
        if self.gathered.is_empty() {
            return;
        }
        let piece = std::mem::take(&mut self.gathered).freeze();
        let count = usize::try_from(piece.len() as u64 / UNIT).unwrap_or(0);
        let count = count.min(self.permit.num_permits());
        if let Some(permit) = self.permit.split(count) {
            // A reader that is gone ends this task.
            drop(self.sender.send((piece, permit)));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn when_parts_are_worth_it() {
        let ranges = Ranges { at_once: 4, length: 4 << 20, ..Ranges::default() };
        let pace = |megabytes: u64, waited: u64| Pace {
            since: None,
            waited: Duration::from_millis(waited),
            bytes: megabytes << 20,
        };
        let second = Duration::from_secs(1);
        for (megabytes, waited, latency, expected) in [
            (10, 1000, 100, true),
            (10, 700, 100, false), // the reader is what takes time
            (60, 1000, 100, true),
            (70, 1000, 100, false), // asking would take longer than it saves
            (70, 1000, 10, true),
            (600, 1000, 1, true),
            (0, 1000, 100, true),
        ] {
            let found =
                pace(megabytes, waited).is_worth(second, Duration::from_millis(latency), &ranges);
            assert_eq!(found, expected, "{megabytes} MB, {waited} ms, {latency} ms");
        }
        let one = Ranges { at_once: 1, ..ranges };
        assert!(!pace(1, 1000).is_worth(second, Duration::ZERO, &one));
    }
}
