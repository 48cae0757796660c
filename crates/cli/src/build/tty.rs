//! A build on a terminal: a block of lines that is drawn again and again in its place.

use jiff::Timestamp;

use super::trace::{Step, Trace, part, seconds_between};
use crate::table::ellipsis;

/// Lines of output of a running step that are shown.
const TAIL: usize = 6;
const BLUE: &str = "\u{1b}[34m";
const RED: &str = "\u{1b}[31m";
const YELLOW: &str = "\u{1b}[33m";
const FAINT: &str = "\u{1b}[2m";
const PLAIN: &str = "\u{1b}[0m";
const CLEAR_LINE: &str = "\u{1b}[K";

/// What is drawn.
#[derive(Debug)]
pub(super) struct Tty {
    began: Timestamp,
    /// Lines that stand on the screen from the last time.
    drawn: usize,
    colours: bool,
}

impl Tty {
    pub(super) fn new(began: Timestamp, colours: bool) -> Self {
        Self { began, drawn: 0, colours }
    }

    /// What to write so that the screen shows the build as it is. At the end everything is
    /// shown; before, as much as fits.
    pub(super) fn draw(
        &mut self,
        trace: &Trace,
        now: Timestamp,
        (rows, columns): (usize, usize),
        is_end: bool,
    ) -> String {
        let columns = columns.max(20);
        let mut lines = vec![self.head(trace, now, columns, is_end)];
        for step in trace.steps.iter().filter(|step| step.number != 0) {
            self.step(step, now, columns, is_end, &mut lines);
        }
        let most = rows.saturating_sub(2).max(3);
        if !is_end && lines.len() > most {
            let surplus = lines.len() - most;
            lines.drain(1..=surplus);
        }
        let mut text = String::new();
        if self.drawn > 0 {
            text.push_str(&format!("\u{1b}[{}A\r", self.drawn));
        }
        for line in &lines {
            text.push_str(line);
            text.push_str(CLEAR_LINE);
            text.push('\n');
        }
        if lines.len() < self.drawn {
            text.push_str("\u{1b}[J");
        }
        self.drawn = lines.len();
        text
    }

    fn head(&self, trace: &Trace, now: Timestamp, columns: usize, is_end: bool) -> String {
        let (ended, all) = trace.count();
        let failed = trace.steps.iter().any(|step| !step.error.is_empty());
        let state = match (is_end, failed) {
            (true, false) => " FINISHED",
            (true, true) => " ERROR",
            (false, _) => "",
        };
        let seconds = seconds_between(Some(self.began), now);
        let text = format!("[+] Building {seconds:.1}s ({ended}/{all}){state}");
        let colour = match (is_end, failed) {
            (true, false) => BLUE,
            (true, true) => RED,
            (false, _) => "",
        };
        self.paint(colour, &ellipsis(&text, columns - 1))
    }

    fn step(
        &self,
        step: &Step,
        now: Timestamp,
        columns: usize,
        is_end: bool,
        lines: &mut Vec<String>,
    ) {
        let is_cancelled = step.error.contains("context canceled");
        let (mark, colour) = match () {
            () if is_cancelled => ("CANCELED ", YELLOW),
            () if !step.error.is_empty() => ("ERROR ", RED),
            () if step.cached => ("CACHED ", BLUE),
            () if step.completed.is_some() => ("", BLUE),
            () => ("", ""),
        };
        let time = format!("{:.1}s", step.seconds(now));
        lines.push(self.line(&format!(" => {mark}{}", step.name), &time, columns, colour));
        let is_running = step.completed.is_none();
        // Parts of what went well are of interest while they happen.
        if is_running || (is_end && step.name.starts_with("exporting")) {
            for status in &step.parts {
                let to = status.completed.unwrap_or(now);
                let time = format!("{:.1}s", seconds_between(status.started, to));
                let words = part(status);
                let words = words.trim_end_matches(" done");
                let colour = if status.completed.is_some() { BLUE } else { "" };
                lines.push(self.line(&format!(" => => {words}"), &time, columns, colour));
            }
        }
        if is_running && !is_end {
            let skip = step.lines.len().saturating_sub(TAIL);
            for line in step.lines.iter().skip(skip) {
                let line: String = line.chars().map(printable).collect();
                lines.push(self.paint(FAINT, &ellipsis(&format!(" => => # {line}"), columns - 1)));
            }
        }
    }

    fn line(&self, left: &str, right: &str, columns: usize, colour: &str) -> String {
        let left: String = left.chars().map(printable).collect();
        let room = columns.saturating_sub(right.len() + 2);
        let left = ellipsis(&left, room);
        let gap = room.saturating_sub(left.chars().count()) + 1;
        self.paint(colour, &format!("{left}{}{right}", " ".repeat(gap)))
    }

    fn paint(&self, colour: &str, text: &str) -> String {
        if self.colours && !colour.is_empty() {
            format!("{colour}{text}{PLAIN}")
        } else {
            text.to_owned()
        }
    }
}

/// What a build writes must not move the cursor.
fn printable(character: char) -> char {
    match character {
        '\t' => ' ',
        character if character.is_control() => '\u{fffd}',
        character => character,
    }
}

#[cfg(test)]
mod tests {
    use super::super::trace::tests::{at, log, vertex};
    use super::*;

    #[test]
    fn frames_take_the_place_of_the_last() {
        let mut trace = Trace::default();
        let mut tty = Tty::new(at(0), false);
        trace.update(vertex("[1/2] FROM x", Some(0), Some(1)));
        trace.update(vertex("[2/2] RUN y", Some(1), None));
        trace.update(log("[2/2] RUN y", "hello\u{1b}[2J\n", 2));
        let first = tty.draw(&trace, at(3), (24, 40), false);
        let lines: Vec<&str> =
            first.lines().map(|line| line.trim_end_matches(CLEAR_LINE)).collect();
        assert_eq!(lines[0], "[+] Building 3.0s (1/2)");
        assert_eq!(lines[1], " => [1/2] FROM x                   1.0s");
        assert_eq!(lines[2], " => [2/2] RUN y                    2.0s");
        assert_eq!(lines[3], " => => # hello\u{fffd}[2J");
        trace.update(vertex("[2/2] RUN y", Some(1), Some(4)));
        let last = tty.draw(&trace, at(4), (24, 40), true);
        assert!(last.starts_with("\u{1b}[4A\r[+] Building 4.0s (2/2) FINISHED"), "{last:?}");
        assert!(last.ends_with("\u{1b}[J"), "{last:?}");
    }

    #[test]
    fn a_low_terminal_shows_the_latest() {
        let mut trace = Trace::default();
        for step in 0..30 {
            trace.update(vertex(&format!("step {step}"), Some(step), None));
        }
        let mut tty = Tty::new(at(0), true);
        let frame = tty.draw(&trace, at(40), (10, 10), false);
        assert_eq!(frame.lines().count(), 8);
        assert!(frame.contains("step 29") && !frame.contains("step 3 "), "{frame}");
    }
}
