//! What a build tells while it works, in the terms of BuildKit: vertices, logs, statuses and
//! warnings. What only the classic output of `POST /build` shows comes as notes.

use std::fmt;
use std::sync::Arc;

use bytes::Bytes;
use jiff::Timestamp;
use silo_types::Digest;

use crate::Boxed;

/// Where a build's events go. Called from several tasks; must not block.
pub trait Progress: fmt::Debug + Send + Sync {
    /// Takes an event.
    fn event(&self, event: Event);

    /// Waits until more output can be taken: a program that writes without end is held up by a
    /// client that reads slowly.
    fn ready(&self) -> Boxed<'_, ()> {
        Box::pin(std::future::ready(()))
    }
}

/// Something that happened.
#[derive(Debug, Clone)]
pub enum Event {
    /// A vertex is known, began or ended; it is whole each time.
    Vertex(Vertex),
    /// A vertex wrote something.
    Log(Log),
    /// Part of a vertex' work has come so far.
    Status(Status),
    /// Something in the Dockerfile is dubious.
    Warning(Warning),
    /// Something that the classic output shows.
    Note(Note),
}

/// A piece of work.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Vertex {
    /// Its identity in this build.
    pub digest: Digest,
    /// What a person sees: `[build 2/3] RUN make`.
    pub name: String,
    /// The vertices that it needs.
    pub inputs: Vec<Digest>,
    /// When it began.
    pub started: Option<Timestamp>,
    /// When it ended, well or not.
    pub completed: Option<Timestamp>,
    /// Its result was there already.
    pub cached: bool,
    /// Why it failed; empty while it has not.
    pub error: String,
    /// The instruction that it carries out, of those vertices that do.
    pub step: Option<Arc<Step>>,
}

impl Vertex {
    /// A vertex that has not begun.
    pub fn new(digest: Digest, name: impl Into<String>) -> Self {
        Self {
            digest,
            name: name.into(),
            inputs: Vec::new(),
            started: None,
            completed: None,
            cached: false,
            error: String::new(),
            step: None,
        }
    }
}

/// An instruction of a Dockerfile as part of a build.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Step {
    /// Its place among all instructions that are carried out, from 1.
    pub number: usize,
    /// How many these are.
    pub total: usize,
    /// The instruction as it is carried out: `COPY --from=build /a /b`.
    pub text: String,
    /// First line in the Dockerfile, from 1; 0 for one that the base image triggered.
    pub line: u32,
}

/// Which output a log comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stream {
    /// Standard output.
    Stdout,
    /// Standard error.
    Stderr,
}

/// Output of a vertex.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Log {
    /// Whose.
    pub vertex: Digest,
    /// Which.
    pub stream: Stream,
    /// Bytes as they came.
    pub data: Bytes,
    /// When.
    pub at: Timestamp,
}

/// How far a part of a vertex' work is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Status {
    /// Whose.
    pub vertex: Digest,
    /// Identity of the part within the vertex, shown where `name` is empty.
    pub id: String,
    /// What a person sees: `transferring context:`.
    pub name: String,
    /// Bytes, or other units, done.
    pub current: u64,
    /// All of them; 0 for unknown.
    pub total: u64,
    /// When this was so.
    pub at: Timestamp,
    /// When it began.
    pub started: Option<Timestamp>,
    /// When it ended.
    pub completed: Option<Timestamp>,
}

/// Something dubious in a Dockerfile, as the linter words it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Warning {
    /// The vertex that shows it.
    pub vertex: Digest,
    /// The short text: `JSONArgsRecommended: ... (line 3)`.
    pub short: String,
    /// More lines.
    pub detail: Vec<String>,
    /// Where it is explained.
    pub url: String,
    /// Where it is.
    pub location: Option<Location>,
}

/// Lines of a Dockerfile.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Location {
    /// The Dockerfile's name.
    pub file: String,
    /// The whole Dockerfile.
    pub source: Arc<[u8]>,
    /// First line, from 1.
    pub start_line: u32,
    /// Last line.
    pub end_line: u32,
}

/// What the classic output shows beyond vertices.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Note {
    /// The vertex of the step.
    pub vertex: Digest,
    /// What.
    pub kind: NoteKind,
}

/// See [`Note`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NoteKind {
    /// The step runs in a container of this id.
    Running(String),
    /// That container is gone.
    Removed(String),
    /// The step made this image; its configuration has this digest.
    Image(Digest),
    /// Words for a person, without a line end.
    Text(String),
    /// The same, as a warning.
    Warning(String),
}

/// Takes events and does nothing.
#[derive(Debug, Clone, Copy, Default)]
pub struct Silent;

impl Progress for Silent {
    fn event(&self, _event: Event) {}
}
