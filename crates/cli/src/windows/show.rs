//! Progress of a set-up, on stderr.

use std::io::Write;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use silo_types::size::human;
use silo_windows::debian::fetch::Watch;

use crate::terminal;

/// How often a line that counts is written anew.
const REFRESH: Duration = Duration::from_millis(100);

/// Shows one step after the other.
#[derive(Debug)]
pub(super) struct Show {
    quiet: bool,
    terminal: bool,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    began: Instant,
    step: String,
    drawn: Option<Instant>,
}

impl Show {
    pub(super) fn new(quiet: bool) -> Self {
        let state = State { began: Instant::now(), step: String::new(), drawn: None };
        let terminal = !quiet && terminal::stderr_is_terminal();
        Self { quiet, terminal, state: Mutex::new(state) }
    }

    /// A step begins.
    pub(super) fn step(&self, text: &str) {
        let Ok(mut state) = self.state.lock() else { return };
        *state = State { began: Instant::now(), step: text.to_owned(), drawn: None };
        if self.terminal {
            write!(std::io::stderr().lock(), "{text} ...").ok();
        }
    }

    /// The step has ended.
    pub(super) fn done(&self, result: &str) {
        let Ok(mut state) = self.state.lock() else { return };
        let seconds = state.began.elapsed().as_secs_f64();
        let over = if self.terminal { "\r\x1b[K" } else { "" };
        let result = if result.is_empty() { String::new() } else { format!(" {result}") };
        if !self.quiet {
            let step = &state.step;
            writeln!(std::io::stderr().lock(), "{over}{step}:{result} ({seconds:.1} s)").ok();
        }
        state.step.clear();
    }

    /// The step ends in a failure that is told elsewhere.
    pub(super) fn clear(&self) {
        if self.terminal {
            write!(std::io::stderr().lock(), "\r\x1b[K").ok();
        }
    }
}

impl Watch for Show {
    fn bytes(&self, have: u64, total: u64) {
        if !self.terminal {
            return;
        }
        let Ok(mut state) = self.state.lock() else { return };
        if have < total && state.drawn.is_some_and(|drawn| drawn.elapsed() < REFRESH) {
            return;
        }
        state.drawn = Some(Instant::now());
        #[expect(clippy::cast_precision_loss, reason = "three digits are shown")]
        let (have, total) = (human(have as f64), human(total as f64));
        write!(std::io::stderr().lock(), "\r\x1b[K{} {have}/{total}", state.step).ok();
    }

    fn note(&self, text: &str) {
        self.clear();
        writeln!(std::io::stderr().lock(), "warning: {text}").ok();
    }
}
