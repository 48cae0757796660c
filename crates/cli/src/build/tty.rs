//! A build on a terminal: a block of lines that is drawn again and again in its place.

use jiff::Timestamp;

use super::trace::{Step, Trace, part_words, seconds_between};
use crate::table::{ellipsis, width};

/// Lines of output of a running step that are shown.
const TAIL: usize = 6;
const BLUE: &str = "\u{1b}[34m";
const RED: &str = "\u{1b}[31m";
const YELLOW: &str = "\u{1b}[33m";
const FAINT: &str = "\u{1b}[2m";
const PLAIN: &str = "\u{1b}[0m";
const CLEAR_LINE: &str = "\u{1b}[K";

/// How far a build is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stage {
    /// It goes on.
    Running,
    /// It has succeeded.
    Done,
    /// It has failed, or was ended by the user.
    Failed,
}

/// What is drawn.
#[derive(Debug)]
pub(super) struct Tty {
    began: Timestamp,
    /// The widths of the lines that stand on the screen from the last time.
    drawn: Vec<usize>,
    colours: bool,
}

impl Tty {
    pub(super) fn new(began: Timestamp, colours: bool) -> Self {
        Self { began, drawn: Vec::new(), colours }
    }

    /// What to write so that the screen shows the build as it is. At the end everything is
    /// shown; before, as much as fits.
    pub(super) fn draw(
        &mut self,
        trace: &Trace,
        now: Timestamp,
        (rows, columns): (usize, usize),
        stage: Stage,
    ) -> String {
        let (real, columns) = (columns.max(1), columns.max(20));
        let mut lines = vec![self.head(trace, now, columns, stage)];
        for step in trace.steps.iter().filter(|step| step.number != 0) {
            step_lines(step, now, columns, stage, &mut lines);
        }
        let most = rows.saturating_sub(2).max(3);
        if stage == Stage::Running && lines.len() > most {
            let surplus = lines.len() - most;
            lines.drain(1..=surplus);
        }
        let mut text = String::new();
        // A terminal that has become narrower has broken the lines that stand there.
        let rows = |widths: &[usize]| -> usize {
            widths.iter().map(|width| width.div_ceil(real).max(1)).sum()
        };
        let above = rows(&self.drawn);
        if above > 0 {
            text.push_str(&format!("\u{1b}[{above}A\r"));
        }
        for (line, colour) in &lines {
            text.push_str(&self.paint(colour, line));
            text.push_str(CLEAR_LINE);
            text.push('\n');
        }
        self.drawn = lines.iter().map(|(line, _)| width(line)).collect();
        if rows(&self.drawn) < above {
            text.push_str("\u{1b}[J");
        }
        text
    }

    fn head(&self, trace: &Trace, now: Timestamp, columns: usize, stage: Stage) -> Line {
        let (ended, all) = trace.count();
        let failed = trace.steps.iter().any(|step| !step.error.is_empty() && !is_cancelled(step));
        let (state, colour) = match stage {
            Stage::Running => ("", ""),
            Stage::Done => (" FINISHED", BLUE),
            Stage::Failed if failed => (" ERROR", RED),
            Stage::Failed => (" CANCELED", YELLOW),
        };
        let seconds = seconds_between(Some(self.began), now);
        let text = format!("[+] Building {seconds:.1}s ({ended}/{all}){state}");
        (ellipsis(&text, columns - 1), colour)
    }

    fn paint(&self, colour: &str, text: &str) -> String {
        if self.colours && !colour.is_empty() {
            format!("{colour}{text}{PLAIN}")
        } else {
            text.to_owned()
        }
    }
}

/// A line and its colour.
type Line = (String, &'static str);

/// Whether a step has ended because another has failed, or its client is gone.
fn is_cancelled(step: &Step) -> bool {
    step.error.contains("context canceled")
}

/// The lines of a step.
fn step_lines(step: &Step, now: Timestamp, columns: usize, stage: Stage, lines: &mut Vec<Line>) {
    let is_running = step.completed.is_none();
    let (mark, colour) = match () {
        () if is_cancelled(step) || (stage == Stage::Failed && is_running) => ("CANCELED ", YELLOW),
        () if !step.error.is_empty() => ("ERROR ", RED),
        () if step.cached => ("CACHED ", BLUE),
        () if !is_running => ("", BLUE),
        () => ("", ""),
    };
    let time = format!("{:.1}s", step.seconds(now));
    lines.push((line(&format!(" => {mark}{}", step.name), &time, columns), colour));
    // Parts of what went well are of interest while they happen.
    if is_running || (stage != Stage::Running && step.name.starts_with("exporting")) {
        for status in &step.parts {
            let to = status.completed.unwrap_or(now);
            let time = format!("{:.1}s", seconds_between(status.started, to));
            let words = part_words(status);
            let colour = if status.completed.is_some() { BLUE } else { "" };
            lines.push((line(&format!(" => => {words}"), &time, columns), colour));
        }
    }
    if is_running && stage == Stage::Running {
        for line in step.tail(TAIL) {
            let line: String = line.chars().map(printable).collect();
            lines.push((ellipsis(&format!(" => => # {line}"), columns - 1), FAINT));
        }
    }
}

/// Words on the left, a time at the right edge.
fn line(left: &str, right: &str, columns: usize) -> String {
    let left: String = left.chars().map(printable).collect();
    let room = columns.saturating_sub(right.len() + 2);
    let left = ellipsis(&left, room);
    let gap = room.saturating_sub(width(&left)) + 1;
    format!("{left}{}{right}", " ".repeat(gap))
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
        let first = tty.draw(&trace, at(3), (24, 40), Stage::Running);
        let lines: Vec<&str> =
            first.lines().map(|line| line.trim_end_matches(CLEAR_LINE)).collect();
        assert_eq!(lines[0], "[+] Building 3.0s (1/2)");
        assert_eq!(lines[1], " => [1/2] FROM x                   1.0s");
        assert_eq!(lines[2], " => [2/2] RUN y                    2.0s");
        assert_eq!(lines[3], " => => # hello\u{fffd}[2J");
        trace.update(vertex("[2/2] RUN y", Some(1), Some(4)));
        let last = tty.draw(&trace, at(4), (24, 40), Stage::Done);
        assert!(last.starts_with("\u{1b}[4A\r[+] Building 4.0s (2/2) FINISHED"), "{last:?}");
        assert!(last.ends_with("\u{1b}[J"), "{last:?}");
    }

    #[test]
    fn lines_stay_in_their_columns() {
        let mut trace = Trace::default();
        let mut tty = Tty::new(at(0), false);
        trace.update(vertex("[1/1] RUN echo 日本語の長い行日本語の長い行", Some(0), None));
        trace.update(log("[1/1] RUN echo 日本語の長い行日本語の長い行", "10%\r20%", 1));
        let frame = tty.draw(&trace, at(3), (24, 40), Stage::Running);
        let lines: Vec<&str> =
            frame.lines().map(|line| line.trim_end_matches(CLEAR_LINE)).collect();
        assert!(lines.iter().all(|line| width(line) < 40), "{lines:?}");
        assert!(lines[1].ends_with("… 3.0s"), "{lines:?}");
        assert_eq!(lines[2], " => => # 20%");
        // Narrower, the head and the other short line stay, and the long one is broken.
        let narrow = tty.draw(&trace, at(3), (24, 34), Stage::Failed);
        assert!(narrow.starts_with("\u{1b}[4A\r[+] Building 3.0s (0/1) CANCELED"), "{narrow:?}");
        assert!(narrow.contains(" => CANCELED [1/1] RUN"), "{narrow:?}");
        assert!(narrow.ends_with("\u{1b}[J"), "{narrow:?}");
    }

    #[test]
    fn a_low_terminal_shows_the_latest() {
        let mut trace = Trace::default();
        for step in 0..30 {
            trace.update(vertex(&format!("step {step}"), Some(step), None));
        }
        let mut tty = Tty::new(at(0), true);
        let frame = tty.draw(&trace, at(40), (10, 10), Stage::Running);
        assert_eq!(frame.lines().count(), 8);
        assert!(frame.contains("step 29") && !frame.contains("step 3 "), "{frame}");
    }
}
