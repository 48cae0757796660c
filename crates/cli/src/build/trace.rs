//! The steps of a build as its news tell of them.

use std::collections::{HashMap, VecDeque};

use jiff::Timestamp;
use silo_buildkit::client::{Status, Update};
use silo_types::Digest;

/// Lines of output that are kept of a step, for when it fails.
const KEPT_LINES: usize = 200;

/// A step.
#[derive(Debug, Default)]
pub(super) struct Step {
    /// Its place among those that are shown, from 1; 0 before it is shown.
    pub(super) number: usize,
    pub(super) name: String,
    pub(super) started: Option<Timestamp>,
    pub(super) completed: Option<Timestamp>,
    pub(super) cached: bool,
    pub(super) error: String,
    pub(super) parts: Vec<Status>,
    /// The latest lines of its output.
    pub(super) lines: VecDeque<String>,
    /// The beginning of a line that has not ended.
    partial: Vec<u8>,
}

impl Step {
    /// Seconds since the step began, or that it took.
    pub(super) fn seconds(&self, now: Timestamp) -> f64 {
        seconds_between(self.started, self.completed.unwrap_or(now))
    }

    /// The latest lines of its output, at most `most`; the last may not have ended yet.
    pub(super) fn tail(&self, most: usize) -> Vec<String> {
        let partial = shown(&self.partial);
        let partial = (!partial.is_empty()).then_some(partial);
        let skip = (self.lines.len() + usize::from(partial.is_some())).saturating_sub(most);
        self.lines.iter().skip(skip).cloned().chain(partial).collect()
    }

    /// Takes output, and returns the lines that are whole now.
    fn output(&mut self, bytes: &[u8]) -> Vec<String> {
        let mut whole = Vec::new();
        for &byte in bytes {
            if byte == b'\n' {
                whole.push(self.end_line());
            } else {
                self.partial.push(byte);
            }
        }
        whole
    }

    fn end_line(&mut self) -> String {
        let line = shown(&std::mem::take(&mut self.partial));
        if self.lines.len() == KEPT_LINES {
            self.lines.pop_front();
        }
        self.lines.push_back(line.clone());
        line
    }
}

/// A line as it is shown: of one that overwrites itself the last state counts.
fn shown(bytes: &[u8]) -> String {
    let text = String::from_utf8_lossy(bytes);
    text.trim_end_matches('\r').rsplit('\r').next().unwrap_or_default().to_owned()
}

/// Seconds from one time to another; 0 without the first.
pub(super) fn seconds_between(from: Option<Timestamp>, to: Timestamp) -> f64 {
    from.map_or(0.0, |from| to.duration_since(from).as_secs_f64().max(0.0))
}

/// What an update changed: for printers that tell everything once.
#[derive(Debug, PartialEq)]
pub(super) enum Change {
    Started(usize),
    Part(usize, usize),
    Line(usize, String, Option<Timestamp>),
    Ended(usize),
}

/// All steps, in the order in which they were heard of.
#[derive(Debug, Default)]
pub(super) struct Trace {
    pub(super) steps: Vec<Step>,
    pub(super) warnings: Vec<String>,
    index: HashMap<Digest, usize>,
    shown: usize,
}

impl Trace {
    fn step(&mut self, digest: Digest) -> usize {
        if let Some(&at) = self.index.get(&digest) {
            return at;
        }
        self.steps.push(Step::default());
        self.index.insert(digest, self.steps.len() - 1);
        self.steps.len() - 1
    }

    fn number(&mut self, at: usize) {
        if self.steps[at].number == 0 {
            self.shown += 1;
            self.steps[at].number = self.shown;
        }
    }

    /// Takes news.
    pub(super) fn update(&mut self, update: Update) -> Vec<Change> {
        let mut changes = Vec::new();
        let mut ended = Vec::new();
        for vertex in update.vertices {
            let at = self.step(vertex.digest);
            let step = &mut self.steps[at];
            step.name = vertex.name;
            let began = step.started.is_none() && vertex.started.is_some();
            let has_ended = step.completed.is_none() && vertex.completed.is_some();
            step.started = vertex.started.or(step.started);
            step.completed = vertex.completed.or(step.completed);
            step.cached |= vertex.cached;
            if !vertex.error.is_empty() {
                step.error = vertex.error;
            }
            if began || has_ended {
                self.number(at);
            }
            if began {
                changes.push(Change::Started(at));
            }
            if has_ended {
                ended.push(at);
            }
        }
        for part in update.statuses {
            let at = self.step(part.vertex);
            self.number(at);
            let parts = &mut self.steps[at].parts;
            let place = parts.iter().position(|known| known.id == part.id);
            let place = if let Some(place) = place {
                parts[place] = part;
                place
            } else {
                parts.push(part);
                parts.len() - 1
            };
            changes.push(Change::Part(at, place));
        }
        for log in update.logs {
            let at = self.step(log.vertex);
            self.number(at);
            let lines = self.steps[at].output(&log.data);
            changes.extend(lines.into_iter().map(|line| Change::Line(at, line, Some(log.at))));
        }
        for at in ended {
            let step = &mut self.steps[at];
            if !step.partial.is_empty() {
                let line = step.end_line();
                changes.push(Change::Line(at, line, step.completed));
            }
            changes.push(Change::Ended(at));
        }
        self.warnings.extend(update.warnings);
        changes
    }

    /// Steps that have ended, and all.
    pub(super) fn count(&self) -> (usize, usize) {
        let ended = self.steps.iter().filter(|step| step.completed.is_some()).count();
        (ended, self.steps.len())
    }

    /// The output of the step that failed, as it is shown at the end.
    pub(super) fn failure(&self) -> String {
        let failed = self
            .steps
            .iter()
            .find(|step| !step.error.is_empty() && !step.error.contains("context canceled"));
        let Some(step) = failed else { return String::new() };
        let mut text = format!("------\n > {}:\n", step.name);
        for line in &step.lines {
            text.push_str(line);
            text.push('\n');
        }
        text.push_str("------\n");
        text
    }
}

/// A part of a step in words: `transferring context: 2.10kB / 4.00kB 0.1s done`.
pub(super) fn part(part: &Status) -> String {
    let mut text = part_words(part);
    let (Some(started), Some(completed)) = (part.started, part.completed) else { return text };
    let seconds = seconds_between(Some(started), completed);
    if seconds >= 0.05 {
        text.push_str(&format!(" {seconds:.1}s"));
    }
    text.push_str(" done");
    text
}

/// The same without its time.
pub(super) fn part_words(part: &Status) -> String {
    let mut text = part.id.clone();
    if part.total != 0 {
        text.push_str(&format!(" {} / {}", bytes(part.current), bytes(part.total)));
    } else if part.current != 0 {
        text.push_str(&format!(" {}", bytes(part.current)));
    }
    text
}

/// Bytes as BuildKit prints them.
#[expect(clippy::cast_precision_loss, reason = "two digits are shown")]
fn bytes(count: u64) -> String {
    if count < 1000 {
        return format!("{count}B");
    }
    let mut value = count as f64;
    for unit in ["kB", "MB", "GB", "TB"] {
        value /= 1000.0;
        if value < 1000.0 {
            return format!("{value:.2}{unit}");
        }
    }
    format!("{value:.2}TB")
}

#[cfg(test)]
pub(super) mod tests {
    use silo_buildkit::client::{Log, Stream, Vertex};

    use super::*;

    pub(in crate::build) fn at(second: i64) -> Timestamp {
        Timestamp::from_second(1_700_000_000 + second).unwrap()
    }

    fn digest(name: &str) -> Digest {
        silo_oci::image::digest(name.as_bytes())
    }

    pub(in crate::build) fn vertex(name: &str, started: Option<i64>, ended: Option<i64>) -> Update {
        let vertex = Vertex {
            started: started.map(at),
            completed: ended.map(at),
            ..Vertex::new(digest(name), name)
        };
        Update { vertices: vec![vertex], ..Update::default() }
    }

    pub(in crate::build) fn log(name: &str, text: &str, second: i64) -> Update {
        let data = text.as_bytes().to_vec().into();
        let log = Log { vertex: digest(name), stream: Stream::Stdout, data, at: at(second) };
        Update { logs: vec![log], ..Update::default() }
    }

    #[test]
    fn lines_come_whole_and_steps_are_numbered_as_they_begin() {
        let mut trace = Trace::default();
        assert_eq!(trace.update(vertex("b", None, None)), []);
        assert_eq!(trace.update(vertex("a", Some(0), None)), [Change::Started(1)]);
        assert_eq!(trace.update(log("a", "half", 1)), []);
        let whole = trace.update(log("a", " and half\n10%\r20%\rrest", 2));
        assert_eq!(whole, [Change::Line(1, "half and half".into(), Some(at(2)))]);
        let ended = trace.update(vertex("a", Some(0), Some(3)));
        assert_eq!(ended, [Change::Line(1, "rest".into(), Some(at(3))), Change::Ended(1)]);
        assert_eq!(trace.steps[1].number, 1);
        trace.update(vertex("b", Some(3), None));
        assert_eq!(trace.steps[0].number, 2);
        assert_eq!(trace.count(), (1, 2));
    }

    #[test]
    fn parts_in_words() {
        let mut status = Status {
            vertex: digest("a"),
            id: "transferring context:".into(),
            name: String::new(),
            current: 2100,
            total: 0,
            at: at(0),
            started: Some(at(0)),
            completed: None,
        };
        assert_eq!(part(&status), "transferring context: 2.10kB");
        status.completed = Some(at(0));
        assert_eq!(part(&status), "transferring context: 2.10kB done");
        (status.total, status.completed) = (4_000_000, Some(at(2)));
        assert_eq!(part(&status), "transferring context: 2.10kB / 4.00MB 2.0s done");
    }
}
