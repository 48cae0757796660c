//! The engine's JSON messages of load, pull and import: text for people on stderr.

use silo_client::Response;

use crate::context::warn;
use crate::failure::{Failure, Outcome};
use crate::terminal;
use crate::value::Value;

/// Where messages go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Sink {
    Stdout,
    Stderr,
    /// Nowhere, but errors still count.
    Nothing,
}

/// Shows the messages of a stream until its end. An error message of the engine's is the
/// command's failure.
pub(crate) async fn show(mut response: Response, sink: Sink) -> Outcome {
    let mut pending = Vec::new();
    let mut bar = Bar { shown: false, sink };
    while let Some(chunk) = response.chunk().await? {
        pending.extend_from_slice(&chunk);
        while let Some(end) = pending.iter().position(|byte| *byte == b'\n') {
            let line: Vec<u8> = pending.drain(..=end).collect();
            bar.message(&line)?;
        }
    }
    bar.message(&pending)?;
    bar.clear();
    Ok(())
}

struct Bar {
    shown: bool,
    sink: Sink,
}

impl Bar {
    fn message(&mut self, line: &[u8]) -> Outcome {
        if line.iter().all(u8::is_ascii_whitespace) {
            return Ok(());
        }
        let message = Value::parse(line)
            .map_err(|error| Failure::new(format!("invalid progress message: {error}")))?;
        let error = message.path(&["errorDetail", "message"]).str();
        let error = if error.is_empty() { message.get("error").str() } else { error };
        if !error.is_empty() {
            self.clear();
            return Err(Failure::new(error));
        }
        if self.sink == Sink::Nothing {
            return Ok(());
        }
        let stream = message.get("stream").str();
        if !stream.is_empty() {
            self.clear();
            return self.say(stream.trim_end_matches('\n'));
        }
        let (id, status) = (message.get("id").str(), message.get("status").str());
        if status.is_empty() {
            return Ok(());
        }
        let text = if id.is_empty() { status.to_owned() } else { format!("{id}: {status}") };
        let detail = message.get("progressDetail");
        if detail.get("current").int() > 0 {
            // A bar is only for eyes.
            if self.sink == Sink::Stderr && terminal::stderr_is_terminal() {
                let size = |name| silo_types::size::human(detail.get(name).float());
                eprint_over(&format!("{text} {}/{}", size("current"), size("total")));
                self.shown = true;
            }
            return Ok(());
        }
        self.clear();
        self.say(&text)
    }

    fn say(&self, text: &str) -> Outcome {
        match self.sink {
            Sink::Stdout => {
                use std::io::Write;
                writeln!(std::io::stdout().lock(), "{text}")
                    .map_err(|error| Failure::io("stdout", &error))
            }
            Sink::Stderr => {
                warn(text);
                Ok(())
            }
            Sink::Nothing => Ok(()),
        }
    }

    fn clear(&mut self) {
        if self.shown {
            eprint_over("");
            self.shown = false;
        }
    }
}

/// Replaces the line that the cursor is on.
fn eprint_over(text: &str) {
    use std::io::Write;
    write!(std::io::stderr().lock(), "\r\x1b[K{text}").ok();
}
