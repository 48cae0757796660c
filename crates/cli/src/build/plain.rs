//! A build line by line, for logs.

use silo_buildkit::client::Update;

use super::trace::{Change, Trace, part, seconds_between};

/// What is printed, and the step whose lines were printed last.
#[derive(Debug, Default)]
pub(super) struct Plain {
    current: Option<usize>,
}

impl Plain {
    /// The text that news add.
    pub(super) fn update(&mut self, trace: &mut Trace, update: Update) -> String {
        let mut text = String::new();
        for change in trace.update(update) {
            match change {
                Change::Started(at) => self.turn_to(trace, at, &mut text),
                Change::Part(at, place) => {
                    let is_told = trace.steps[at].parts[place].completed.is_some();
                    if is_told {
                        self.turn_to(trace, at, &mut text);
                        let (number, words) =
                            (trace.steps[at].number, part(&trace.steps[at].parts[place]));
                        text.push_str(&format!("#{number} {words}\n"));
                    }
                }
                Change::Line(at, line, time) => {
                    self.turn_to(trace, at, &mut text);
                    let step = &trace.steps[at];
                    let seconds = time.map_or(0.0, |time| seconds_between(step.started, time));
                    text.push_str(&format!("#{} {seconds:.3} {line}\n", step.number));
                }
                Change::Ended(at) => {
                    self.turn_to(trace, at, &mut text);
                    let step = &trace.steps[at];
                    let number = step.number;
                    if step.error.contains("context canceled") {
                        text.push_str(&format!("#{number} CANCELED\n"));
                    } else if !step.error.is_empty() {
                        text.push_str(&format!("#{number} ERROR: {}\n", step.error));
                    } else if step.cached {
                        text.push_str(&format!("#{number} CACHED\n"));
                    } else {
                        let seconds =
                            step.completed.map_or(0.0, |end| seconds_between(step.started, end));
                        text.push_str(&format!("#{number} DONE {seconds:.1}s\n"));
                    }
                }
            }
        }
        text
    }

    fn turn_to(&mut self, trace: &Trace, at: usize, text: &mut String) {
        if self.current == Some(at) {
            return;
        }
        if let Some(current) = self.current {
            let step = &trace.steps[current];
            if step.completed.is_none() {
                text.push_str(&format!("#{} ...\n", step.number));
            }
            text.push('\n');
        }
        let step = &trace.steps[at];
        text.push_str(&format!("#{} {}\n", step.number, step.name));
        self.current = Some(at);
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
        for update in [
            vertex("a", Some(0), None),
            log("a", "one\n", 1),
            vertex("b", Some(0), None),
            log("b", "two\n", 2),
            cached,
            vertex("a", Some(0), Some(3)),
            failed,
        ] {
            text.push_str(&plain.update(&mut trace, update));
        }
        let expected = "#1 a\n#1 1.000 one\n#1 ...\n\n#2 b\n#2 2.000 two\n#2 ...\n\n#3 c\n#3 \
                        CACHED\n\n#1 a\n#1 DONE 3.0s\n\n#2 b\n#2 ERROR: no\n";
        assert_eq!(text, expected);
        assert_eq!(trace.failure(), "------\n > b:\ntwo\n------\n");
    }
}
