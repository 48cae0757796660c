//! A build line by line, for logs.

use std::collections::BTreeMap;
use std::time::Duration;

use silo_buildkit::client::Update;

use super::trace::{Change, Step, Trace, part, seconds_between};

/// How long a step that says nothing keeps others waiting.
const SILENT: Duration = Duration::from_secs(1);
/// How long a step that goes on talking keeps others waiting.
const PATIENCE: Duration = Duration::from_secs(5);

/// What is printed, and the step whose lines were printed last. Steps that run at the same time
/// take turns: one has the word until it ends, or until others have waited for long.
#[derive(Debug, Default)]
pub(super) struct Plain {
    current: Option<usize>,
    /// When the current one's last lines came.
    spoken: Duration,
    /// What other steps have said meanwhile, since when, and whether they have ended.
    waiting: BTreeMap<usize, Waiting>,
    /// Steps that have begun and not ended, in the order in which they began.
    open: Vec<usize>,
}

#[derive(Debug)]
struct Waiting {
    text: String,
    since: Duration,
    has_ended: bool,
}

impl Plain {
    /// The text that news add. `now` counts from any time.
    pub(super) fn update(&mut self, trace: &mut Trace, update: Update, now: Duration) -> String {
        let mut text = String::new();
        for change in trace.update(update) {
            let (at, words, has_ended) = match change {
                Change::Started(at) => {
                    self.open.push(at);
                    continue;
                }
                Change::Part(at, place) if trace.steps[at].parts[place].completed.is_some() => (
                    at,
                    format!(
                        "#{} {}\n",
                        trace.steps[at].number,
                        part(&trace.steps[at].parts[place])
                    ),
                    false,
                ),
                Change::Part(..) => continue,
                Change::Line(at, line, time) => {
                    let step = &trace.steps[at];
                    let seconds = time.map_or(0.0, |time| seconds_between(step.started, time));
                    (at, format!("#{} {seconds:.3} {line}\n", step.number), false)
                }
                Change::Ended(at) => {
                    self.open.retain(|open| *open != at);
                    (at, ended(&trace.steps[at]), true)
                }
            };
            let waiting = self.waiting.entry(at).or_insert_with(|| Waiting {
                text: String::new(),
                since: now,
                has_ended: false,
            });
            waiting.text.push_str(&words);
            waiting.has_ended |= has_ended;
        }
        self.speak(trace, now, &mut text);
        text
    }

    /// The text that time adds.
    pub(super) fn tick(&mut self, trace: &Trace, now: Duration) -> String {
        let mut text = String::new();
        self.speak(trace, now, &mut text);
        text
    }

    /// The text of what still waits at the end.
    pub(super) fn end(&mut self, trace: &Trace) -> String {
        let mut text = String::new();
        for at in self.waiting.keys().copied().collect::<Vec<_>>() {
            self.print(trace, at, Duration::ZERO, &mut text);
        }
        text
    }

    fn speak(&mut self, trace: &Trace, now: Duration, text: &mut String) {
        if let Some(current) = self.current
            && self.waiting.contains_key(&current)
        {
            self.print(trace, current, now, text);
        }
        loop {
            let is_open = self.current.is_some_and(|current| self.open.contains(&current));
            let ended = self.waiting.iter().find(|(_, waiting)| waiting.has_ended);
            let first = self.waiting.iter().min_by_key(|(_, waiting)| waiting.since);
            let next = match (ended, first) {
                // What has ended is told whole, and takes the word from nobody for long.
                (Some((at, _)), _) if !is_open => *at,
                (_, Some((at, _))) if !is_open => *at,
                (_, Some((at, waiting)))
                    if now.saturating_sub(waiting.since) >= PATIENCE
                        || now.saturating_sub(self.spoken.max(waiting.since)) >= SILENT =>
                {
                    *at
                }
                _ => break,
            };
            self.print(trace, next, now, text);
        }
        let is_open = self.current.is_some_and(|current| self.open.contains(&current));
        if let (false, Some(first)) = (is_open, self.open.first()) {
            self.print(trace, *first, now, text);
        }
    }

    /// Gives a step the word.
    fn print(&mut self, trace: &Trace, at: usize, now: Duration, text: &mut String) {
        self.turn_to(trace, at, text);
        self.spoken = now;
        if let Some(waiting) = self.waiting.remove(&at) {
            text.push_str(&waiting.text);
        }
    }

    fn turn_to(&mut self, trace: &Trace, at: usize, text: &mut String) {
        if self.current == Some(at) {
            return;
        }
        if let Some(current) = self.current {
            let step = &trace.steps[current];
            if self.open.contains(&current) {
                text.push_str(&format!("#{} ...\n", step.number));
            }
            text.push('\n');
        }
        let step = &trace.steps[at];
        text.push_str(&format!("#{} {}\n", step.number, step.name));
        self.current = Some(at);
    }
}

/// How a step has ended.
fn ended(step: &Step) -> String {
    let number = step.number;
    if step.error.contains("context canceled") {
        format!("#{number} CANCELED\n")
    } else if !step.error.is_empty() {
        format!("#{number} ERROR: {}\n", step.error)
    } else if step.cached {
        format!("#{number} CACHED\n")
    } else {
        let seconds = step.completed.map_or(0.0, |end| seconds_between(step.started, end));
        format!("#{number} DONE {seconds:.1}s\n")
    }
}

#[cfg(test)]
mod tests {
    use super::super::trace::tests::{log, vertex};
    use super::*;

    #[test]
    fn steps_take_turns() {
        let (mut trace, mut plain) = (Trace::default(), Plain::default());
        let mut text = String::new();
        let mut cached = vertex("c", Some(2), Some(2));
        cached.vertices[0].cached = true;
        let mut failed = vertex("b", Some(0), Some(4));
        failed.vertices[0].error = "no".into();
        for (update, seconds, expected) in [
            (vertex("a", Some(0), None), 0, "#1 a\n"),
            (log("a", "one\n", 1), 0, "#1 1.000 one\n"),
            (vertex("b", Some(0), None), 0, ""),
            (log("b", "two\n", 2), 0, ""),
            (cached, 0, ""),
            // It ends, and the others are told whole: first the one that has ended.
            (
                vertex("a", Some(0), Some(3)),
                0,
                "#1 DONE 3.0s\n\n#3 c\n#3 CACHED\n\n#2 b\n#2 2.000 two\n",
            ),
            (failed, 0, "#2 ERROR: no\n"),
            // Who says nothing does not keep the word, and who goes on talking not for ever.
            (vertex("d", Some(5), None), 10, "\n#4 d\n"),
            (vertex("e", Some(5), None), 10, ""),
            (log("e", "three\n", 6), 10, ""),
            (log("e", "four\n", 6), 11, "#4 ...\n\n#5 e\n#5 1.000 three\n#5 1.000 four\n"),
            (log("d", "five\n", 6), 11, ""),
            (log("e", "six\n", 6), 15, "#5 1.000 six\n"),
            (log("e", "seven\n", 6), 16, "#5 1.000 seven\n#5 ...\n\n#4 d\n#4 1.000 five\n"),
        ] {
            let new = plain.update(&mut trace, update, Duration::from_secs(seconds));
            assert_eq!(new, expected, "after {text}");
            text.push_str(&new);
        }
        assert_eq!(plain.update(&mut trace, log("e", "last\n", 7), Duration::from_secs(16)), "");
        assert_eq!(plain.tick(&trace, Duration::from_secs(16)), "");
        assert_eq!(plain.tick(&trace, Duration::from_secs(17)), "#4 ...\n\n#5 e\n#5 2.000 last\n");
        assert_eq!(plain.update(&mut trace, log("d", "end\n", 7), Duration::from_secs(17)), "");
        assert_eq!(plain.end(&trace), "#5 ...\n\n#4 d\n#4 2.000 end\n");
        assert_eq!(trace.failure(), "------\n > b:\ntwo\n------\n");
    }
}
