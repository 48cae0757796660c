//! The output of the classic builder: steps one after the other, whatever order they are carried
//! out in.

use std::collections::hash_map::Entry;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use serde_json::json;
use silo_build::progress::{Event, NoteKind, Progress, Stream};
use silo_build::{Boxed, BuildError, Outcome};
use silo_docker::stream::{StreamError, StreamMessage};
use silo_oci::reference::Reference;
use silo_types::{Digest, ErrorKind};
use tokio::sync::Notify;
use tokio::sync::mpsc::UnboundedSender;

/// One line, or an error before there was any.
#[derive(Debug)]
pub(crate) struct Line {
    pub(crate) message: StreamMessage,
    /// Nothing was said before: the answer can still be an error of this kind.
    pub(crate) refusal: Option<ErrorKind>,
}

/// Bytes that may wait for a client.
const MAX_QUEUED: usize = 1 << 20;
/// Bytes that may wait for their step's turn.
const MAX_WAITING: usize = 16 << 20;

/// What a client has not taken yet.
#[derive(Debug, Default)]
pub(crate) struct Queue {
    bytes: AtomicUsize,
    taken: Notify,
}

impl Queue {
    /// Notes that a line has gone to the client.
    pub(crate) fn take(&self, line: &Line) {
        self.bytes.fetch_sub(line.message.stream.len(), Ordering::Relaxed);
        self.taken.notify_waiters();
    }
}

/// Turns events into lines.
#[derive(Debug)]
pub(crate) struct Classic {
    sender: UnboundedSender<Line>,
    queue: Arc<Queue>,
    quiet: bool,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    /// The step that is shown as it goes; what others say waits.
    current: usize,
    waiting: BTreeMap<usize, Vec<String>>,
    ended: BTreeSet<usize>,
    steps: HashMap<Digest, Shown>,
    /// Bytes that waited so far.
    held: usize,
    /// Something was sent.
    said: bool,
}

/// A step that began.
#[derive(Debug)]
struct Shown {
    number: usize,
    is_from: bool,
    image: Option<Digest>,
}

fn short(text: &str) -> &str {
    let text = text.strip_prefix("sha256:").unwrap_or(text);
    text.get(..12).unwrap_or(text)
}

impl Classic {
    pub(crate) fn new(sender: UnboundedSender<Line>, quiet: bool) -> Self {
        let state = State {
            current: 1,
            waiting: BTreeMap::new(),
            ended: BTreeSet::new(),
            steps: HashMap::new(),
            held: 0,
            said: false,
        };
        Self { sender, queue: Arc::default(), quiet, state: Mutex::new(state) }
    }

    /// What waits for the client.
    pub(crate) fn queue(&self) -> Arc<Queue> {
        Arc::clone(&self.queue)
    }

    fn send(&self, message: StreamMessage) {
        self.queue.bytes.fetch_add(message.stream.len(), Ordering::Relaxed);
        // A client that has gone ends the build.
        drop(self.sender.send(Line { message, refusal: None }));
    }

    /// Says something of a step, now or when its turn comes.
    fn say(&self, state: &mut State, number: usize, text: String) {
        if self.quiet {
            return;
        }
        if number <= state.current {
            state.said = true;
            self.send(StreamMessage::stream(text));
        } else {
            state.held += text.len();
            if state.held <= MAX_WAITING {
                state.waiting.entry(number).or_default().push(text);
            }
        }
    }

    /// Goes on to the first step that has not ended.
    fn advance(&self, state: &mut State) {
        while state.ended.remove(&state.current) {
            state.current += 1;
            for text in state.waiting.remove(&state.current).unwrap_or_default() {
                self.say(state, state.current, text);
            }
        }
    }

    /// Says what is left, in order.
    fn flush(&self, state: &mut State) {
        for (_, texts) in std::mem::take(&mut state.waiting) {
            for text in texts {
                state.said = true;
                self.send(StreamMessage::stream(text));
            }
        }
    }

    /// Ends the output of a build that went well.
    pub(crate) fn succeeded(&self, outcome: &Outcome, names: &[Reference]) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        self.flush(&mut state);
        let id = outcome.image.to_string();
        let aux = Some(json!({ "ID": id }));
        self.send(StreamMessage { aux, ..StreamMessage::default() });
        if self.quiet {
            self.send(StreamMessage::stream(format!("{id}\n")));
            return;
        }
        self.send(StreamMessage::stream(format!("Successfully built {}\n", short(&id))));
        for name in names {
            let text = format!("Successfully tagged {}\n", name.familiar());
            self.send(StreamMessage::stream(text));
        }
    }

    /// Ends the output of a build that failed.
    pub(crate) fn failed(&self, error: &BuildError) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        self.flush(&mut state);
        let text = error.classic.clone().unwrap_or_else(|| error.message.clone());
        let code = error.exit_code.unwrap_or(0);
        let message = StreamMessage {
            error_detail: Some(StreamError { code, message: text.clone() }),
            error: text,
            ..StreamMessage::default()
        };
        let refusal = (!state.said).then_some(error.kind);
        drop(self.sender.send(Line { message, refusal }));
    }
}

impl Progress for Classic {
    fn ready(&self) -> Boxed<'_, ()> {
        Box::pin(async {
            loop {
                let taken = self.queue.taken.notified();
                tokio::pin!(taken);
                // From here on it is told of everything that is taken.
                taken.as_mut().enable();
                if self.queue.bytes.load(Ordering::Relaxed) <= MAX_QUEUED {
                    return;
                }
                taken.await;
            }
        })
    }

    fn event(&self, event: Event) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let state = &mut *state;
        match event {
            Event::Vertex(vertex) => {
                let Some(step) = &vertex.step else { return };
                if let Entry::Vacant(place) = state.steps.entry(vertex.digest) {
                    let word = step.text.get(..4).unwrap_or_default();
                    let is_from = word.eq_ignore_ascii_case("FROM");
                    place.insert(Shown { number: step.number, is_from, image: None });
                    let text = format!("Step {}/{} : {}\n", step.number, step.total, step.text);
                    self.say(state, step.number, text);
                }
                if vertex.completed.is_none() {
                    return;
                }
                let Some(shown) = state.steps.get_mut(&vertex.digest) else { return };
                let (number, is_from, image) = (shown.number, shown.is_from, shown.image.take());
                if !vertex.error.is_empty() {
                    return;
                }
                if vertex.cached && !is_from {
                    self.say(state, number, " ---> Using cache\n".into());
                }
                if let Some(image) = image {
                    self.say(state, number, format!(" ---> {}\n", short(&image.to_string())));
                }
                state.ended.insert(number);
                self.advance(state);
            }
            Event::Note(note) => {
                let number = state.steps.get(&note.vertex).map_or(state.current, |s| s.number);
                let text = match note.kind {
                    NoteKind::Image(image) => {
                        if let Some(shown) = state.steps.get_mut(&note.vertex) {
                            shown.image = Some(image);
                        }
                        return;
                    }
                    NoteKind::Running(id) => format!(" ---> Running in {}\n", short(&id)),
                    NoteKind::Removed(id) => {
                        format!("Removing intermediate container {}\n", short(&id))
                    }
                    NoteKind::Text(text) => format!("{text}\n"),
                    NoteKind::Warning(text) => format!("[Warning] {text}\n"),
                };
                self.say(state, number, text);
            }
            Event::Log(log) => {
                let number = state.steps.get(&log.vertex).map_or(state.current, |s| s.number);
                let text = String::from_utf8_lossy(&log.data);
                let text = match log.stream {
                    Stream::Stdout => text.into_owned(),
                    // Red, as dockerd has it.
                    Stream::Stderr => format!("\u{1b}[91m{text}\u{1b}[0m"),
                };
                self.say(state, number, text);
            }
            Event::Status(_) | Event::Warning(_) => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use silo_build::progress::{Log, Note, Step, Vertex};

    use super::*;

    fn vertex(number: usize, text: &str) -> Vertex {
        let byte = u8::try_from(number).unwrap();
        let mut vertex = Vertex::new(Digest::from_sha256([byte; 32]), text);
        vertex.started = Some(jiff::Timestamp::UNIX_EPOCH);
        let text = text.to_owned();
        vertex.step = Some(Arc::new(Step { number, total: 3, text, line: 1 }));
        vertex
    }

    #[test]
    fn steps_are_shown_in_order() {
        let (sender, mut receiver) = tokio::sync::mpsc::unbounded_channel();
        let classic = Classic::new(sender, false);
        let log = |number: u8, text: &'static str, stream| {
            let (vertex, at) = (Digest::from_sha256([number; 32]), jiff::Timestamp::UNIX_EPOCH);
            classic.event(Event::Log(Log { vertex, stream, data: text.into(), at }));
        };
        let end = |mut vertex: Vertex, cached| {
            let image = Digest::from_sha256([0xab; 32]);
            let note = Note { vertex: vertex.digest, kind: NoteKind::Image(image) };
            classic.event(Event::Note(note));
            vertex.completed = vertex.started;
            vertex.cached = cached;
            classic.event(Event::Vertex(vertex));
        };
        let (from, second, third) = (vertex(1, "FROM a"), vertex(2, "RUN b"), vertex(3, "RUN c"));
        classic.event(Event::Vertex(from.clone()));
        classic.event(Event::Vertex(third.clone()));
        log(3, "three\n", Stream::Stdout);
        end(from, true);
        classic.event(Event::Vertex(second.clone()));
        log(2, "two\n", Stream::Stderr);
        end(third, true);
        end(second, false);
        classic.failed(&BuildError::new(ErrorKind::Internal, "broken"));
        let mut lines = Vec::new();
        while let Ok(line) = receiver.try_recv() {
            assert!(line.refusal.is_none());
            lines.push(line.message.stream + &line.message.error);
        }
        assert_eq!(
            lines,
            [
                "Step 1/3 : FROM a\n",
                " ---> abababababab\n",
                "Step 2/3 : RUN b\n",
                "\u{1b}[91mtwo\n\u{1b}[0m",
                " ---> abababababab\n",
                "Step 3/3 : RUN c\n",
                "three\n",
                " ---> Using cache\n",
                " ---> abababababab\n",
                "broken",
            ]
        );
    }

    #[test]
    fn what_fails_at_once_is_a_refusal() {
        let (sender, mut receiver) = tokio::sync::mpsc::unbounded_channel();
        let classic = Classic::new(sender, false);
        classic.failed(&BuildError::new(ErrorKind::InvalidParameter, "no"));
        let line = receiver.try_recv().unwrap();
        assert_eq!(line.refusal, Some(ErrorKind::InvalidParameter));
    }
}
