//! Which way a build is shown, and the way there.

use std::io::Write;
use std::time::Instant;

use jiff::Timestamp;
use silo_buildkit::client::Update;

use super::plain::Plain;
use super::rawjson;
use super::trace::Trace;
use super::tty::{Stage, Tty};
use crate::failure::{Failure, Outcome};
use crate::terminal;

/// How a build is shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Style {
    /// Drawn on a terminal.
    Tty,
    /// Line by line.
    Plain,
    /// A JSON object a line.
    RawJson,
    /// Not at all.
    Quiet,
}

impl Style {
    /// From the flag, else `BUILDKIT_PROGRESS`, else by what stderr is.
    pub(crate) fn choose(flag: &str, quiet: bool) -> Outcome<Self> {
        let variable = std::env::var("BUILDKIT_PROGRESS").unwrap_or_default();
        let wanted = if flag.is_empty() { variable.as_str() } else { flag };
        if quiet {
            if !matches!(wanted, "" | "auto" | "quiet") {
                let message = format!("progress={wanted} and quiet cannot be used together");
                return Err(Failure::new(format!("ERROR: {message}")));
            }
            return Ok(Self::Quiet);
        }
        match wanted {
            "" | "auto" if terminal::stderr_is_terminal() => Ok(Self::Tty),
            "tty" if terminal::stderr_is_terminal() => Ok(Self::Tty),
            "tty" => {
                Err(Failure::new("ERROR: failed to get console: provided file is not a console"))
            }
            "" | "auto" | "plain" => Ok(Self::Plain),
            "rawjson" => Ok(Self::RawJson),
            "quiet" | "none" => Ok(Self::Quiet),
            other => Err(Failure::new(format!("ERROR: invalid progress mode {other}"))),
        }
    }
}

/// Shows a build on stderr.
#[derive(Debug)]
pub(crate) struct Display {
    style: Style,
    trace: Trace,
    plain: Plain,
    tty: Tty,
    begun: Instant,
}

impl Display {
    pub(crate) fn new(style: Style) -> Self {
        let colours = std::env::var_os("NO_COLOR").is_none();
        let tty = Tty::new(Timestamp::now(), colours);
        Self { style, trace: Trace::default(), plain: Plain::default(), tty, begun: Instant::now() }
    }

    /// Whether it changes with time alone.
    pub(crate) fn is_live(&self) -> bool {
        matches!(self.style, Style::Tty | Style::Plain)
    }

    /// Takes news.
    pub(crate) fn update(&mut self, update: Update) {
        match self.style {
            Style::Plain => {
                let text = self.plain.update(&mut self.trace, update, self.begun.elapsed());
                write(&text);
            }
            Style::RawJson => {
                write(&rawjson::line(&update));
                self.trace.update(update);
            }
            Style::Tty | Style::Quiet => {
                self.trace.update(update);
            }
        }
    }

    /// Shows what time changes.
    pub(crate) fn tick(&mut self) {
        if self.style == Style::Plain {
            write(&self.plain.tick(&self.trace, self.begun.elapsed()));
        }
        self.draw(Stage::Running);
    }

    fn draw(&mut self, stage: Stage) {
        if self.style != Style::Tty {
            return;
        }
        let (rows, columns) = match terminal::stderr_size() {
            (0, _) | (_, 0) => (24, 80),
            (rows, columns) => (usize::from(rows), usize::from(columns)),
        };
        let text = self.tty.draw(&self.trace, Timestamp::now(), (rows, columns), stage);
        write(&text);
    }

    /// Shows the end, and what there is to say of it.
    pub(crate) fn end(&mut self, excerpt: Option<&str>) {
        if self.style == Style::Plain {
            write(&self.plain.end(&self.trace));
        }
        self.draw(if excerpt.is_some() { Stage::Failed } else { Stage::Done });
        let mut text = String::new();
        if self.style != Style::RawJson {
            if excerpt.is_some() {
                text.push_str(&self.trace.failure());
            }
            if self.style != Style::Quiet && !self.trace.warnings.is_empty() {
                let count = self.trace.warnings.len();
                let noun = if count == 1 { "warning" } else { "warnings" };
                text.push_str(&format!("\n {count} {noun} found:\n"));
                for warning in &self.trace.warnings {
                    let first = warning.lines().next().unwrap_or_default();
                    text.push_str(&format!(" - {first}\n"));
                }
            }
            text.push_str(excerpt.unwrap_or_default());
        }
        write(&text);
    }
}

/// Writes to stderr. Nothing can be done when that fails.
fn write(text: &str) {
    let mut stderr = std::io::stderr().lock();
    stderr.write_all(text.as_bytes()).ok();
    stderr.flush().ok();
}
