//! How a pull or push goes, for clients.

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use silo_docker::stream::{ProgressDetail, StreamMessage};
use silo_types::Digest;

/// The least time between two lines about the bytes of one layer.
const PAUSE: Duration = Duration::from_millis(100);

/// Takes messages for a client.
#[derive(Clone)]
pub struct Progress(Arc<dyn Fn(StreamMessage) + Send + Sync>);

impl fmt::Debug for Progress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Progress")
    }
}

/// The twelve digits of a digest that people see.
pub(crate) fn short(digest: &Digest) -> String {
    let mut hex = digest.hex();
    hex.truncate(12);
    hex
}

fn number(count: u64) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}

impl Progress {
    /// Gives all messages to `sink`.
    pub fn new(sink: impl Fn(StreamMessage) + Send + Sync + 'static) -> Self {
        Self(Arc::new(sink))
    }

    /// A line of text from whoever pulls or pushes.
    pub fn note(&self, text: impl Into<String>) {
        self.line(text);
    }

    /// A line of text.
    pub(crate) fn line(&self, text: impl Into<String>) {
        (self.0)(StreamMessage::status(text));
    }

    /// The state of a layer, with `progressDetail` empty as dockerd has it.
    pub(crate) fn state(&self, id: &str, text: &str) {
        (self.0)(StreamMessage {
            id: id.to_owned(),
            progress_detail: Some(ProgressDetail::default()),
            ..StreamMessage::status(text)
        });
    }

    /// A result.
    pub fn aux(&self, value: serde_json::Value) {
        (self.0)(StreamMessage {
            progress_detail: Some(ProgressDetail::default()),
            aux: Some(value),
            ..StreamMessage::default()
        });
    }

    /// Counts the bytes of a layer.
    pub(crate) fn meter(&self, id: &str, status: &'static str, total: u64) -> Meter {
        Meter { progress: self.clone(), id: id.to_owned(), status, total, told: None }
    }
}

/// Tells how many bytes of a layer have moved, not too often.
#[derive(Debug)]
pub(crate) struct Meter {
    progress: Progress,
    id: String,
    status: &'static str,
    total: u64,
    told: Option<Instant>,
}

impl Meter {
    /// So many bytes have moved.
    pub(crate) fn at(&mut self, current: u64) {
        let now = Instant::now();
        let is_end = current >= self.total;
        if !is_end && self.told.is_some_and(|told| now - told < PAUSE) {
            return;
        }
        self.told = Some(now);
        let (current, total) = (number(current), number(self.total));
        (self.progress.0)(StreamMessage::progress(&self.id, self.status, current, total));
    }
}
