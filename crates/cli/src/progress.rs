//! The engine's JSON messages of pull, push, load and import, as text for people.

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
    let mut messages = Messages::new(sink);
    while let Some(chunk) = response.chunk().await? {
        pending.extend_from_slice(&chunk);
        while let Some(end) = pending.iter().position(|byte| *byte == b'\n') {
            let line: Vec<u8> = pending.drain(..=end).collect();
            messages.message(&line)?;
        }
    }
    messages.message(&pending)
}

/// Messages one by one.
#[derive(Debug)]
pub(crate) struct Messages {
    /// Bars are only for eyes.
    screen: Option<Screen>,
    sink: Sink,
}

impl Messages {
    /// None has come yet.
    pub(crate) fn new(sink: Sink) -> Self {
        let is_terminal = match sink {
            Sink::Stdout => terminal::stdout_is_terminal(),
            Sink::Stderr => terminal::stderr_is_terminal(),
            Sink::Nothing => false,
        };
        Self { screen: is_terminal.then(Screen::default), sink }
    }

    /// Shows a message. One of a failure is the command's.
    pub(crate) fn message(&mut self, line: &[u8]) -> Outcome {
        if line.iter().all(u8::is_ascii_whitespace) {
            return Ok(());
        }
        let message = Value::parse(line)
            .map_err(|error| Failure::new(format!("invalid progress message: {error}")))?;
        let error = message.path(&["errorDetail", "message"]).str();
        let error = if error.is_empty() { message.get("error").str() } else { error };
        if !error.is_empty() {
            return Err(Failure::new(error));
        }
        let aux = message.get("aux");
        if aux.get("manifestPushedInsteadOfIndex").bool() {
            if let Some(screen) = &mut self.screen {
                *screen = Screen::default();
            }
            let digest = |name| aux.path(&[name, "digest"]).str();
            // Docker's words.
            warn(&format!(
                "Not all multiplatform-content is present and only the available single-platform \
                 image was pushed\n{} -> {}",
                digest("originalIndex"),
                digest("selectedManifest")
            ));
        }
        if self.sink == Sink::Nothing {
            return Ok(());
        }
        let stream = message.get("stream").str();
        if !stream.is_empty() {
            return self.say(stream.trim_end_matches('\n'));
        }
        let (id, status) = (message.get("id").str(), message.get("status").str());
        if status.is_empty() {
            return Ok(());
        }
        let text = if id.is_empty() { status.to_owned() } else { format!("{id}: {status}") };
        let detail = message.get("progressDetail");
        let (current, total) = (detail.get("current").float(), detail.get("total").float());
        // A tag that is pulled has an id as well, but no progress.
        let changes = !id.is_empty() && message.find("progressDetail").is_some();
        match &mut self.screen {
            Some(screen) if changes => {
                let (rows, columns) = match self.sink {
                    Sink::Stdout => terminal::size(),
                    _ => terminal::stderr_size(),
                };
                let text = with_bar(&text, current, total, columns.into());
                let drawn = screen.draw(id, &text, rows.into(), columns.into());
                self.write(&drawn)
            }
            _ if current > 0.0 => Ok(()),
            _ => self.say(&text),
        }
    }

    fn write(&self, text: &str) -> Outcome {
        use std::io::Write;
        let mut to: Box<dyn Write> = match self.sink {
            Sink::Stdout => Box::new(std::io::stdout().lock()),
            _ => Box::new(std::io::stderr().lock()),
        };
        to.write_all(text.as_bytes())
            .and_then(|()| to.flush())
            .map_err(|error| Failure::io("terminal", &error))
    }

    /// A line that stays; those above it do as well.
    fn say(&mut self, text: &str) -> Outcome {
        if let Some(screen) = &mut self.screen {
            *screen = Screen::default();
        }
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
}

/// The last lines of a terminal, one for each id, which change; the cursor is below them.
#[derive(Debug, Default)]
struct Screen {
    ids: Vec<String>,
}

impl Screen {
    /// What a terminal of this size has to be told so that the line of `id` is `text`.
    fn draw(&mut self, id: &str, text: &str, rows: usize, columns: usize) -> String {
        // A line that fills the last column would move the others on some terminals.
        let most = if columns == 0 { usize::MAX } else { columns.saturating_sub(1).max(1) };
        let text: String = text.chars().take(most).collect();
        let Some(at) = self.ids.iter().position(|known| known == id) else {
            self.ids.push(id.to_owned());
            return format!("{text}\n");
        };
        let up = self.ids.len() - at;
        if rows > 0 && up >= rows {
            // It is above the terminal's first line.
            return String::new();
        }
        format!("\x1b[{up}A\r\x1b[K{text}\r\x1b[{up}B")
    }
}

/// The least width of a bar that tells anything, and the most that it needs.
const BAR: std::ops::RangeInclusive<usize> = 10..=50;

/// A line with how far it is: in numbers, and as a bar where there is room for one.
fn with_bar(text: &str, current: f64, total: f64, columns: usize) -> String {
    if current <= 0.0 {
        return text.to_owned();
    }
    let human = silo_types::size::human;
    if total < current {
        return format!("{text} {}", human(current));
    }
    let numbers = format!("{}/{}", human(current), human(total));
    // Blanks, brackets and the last column.
    let room = columns.saturating_sub(text.chars().count() + numbers.len() + 5);
    if room < *BAR.start() {
        return format!("{text} {numbers}");
    }
    let width = room.min(*BAR.end());
    let count = |cells: usize| u32::try_from(cells).map_or(0.0, f64::from);
    let full = (1..=width).take_while(|at| count(*at) <= current / total * count(width)).count();
    let (done, left) = ("=".repeat(full.saturating_sub(1)), " ".repeat(width - full.max(1)));
    format!("{text} [{done}>{left}] {numbers}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bars() {
        let line = |current, total, columns| with_bar("x: Pulling", current, total, columns);
        for (current, total, columns, expected) in [
            (0.0, 100.0, 80, "x: Pulling"),
            (50.0, 0.0, 80, "x: Pulling 50B"),
            (1.0, 100.0, 35, "x: Pulling [>            ] 1B/100B"),
            (50.0, 100.0, 35, "x: Pulling [=====>      ] 50B/100B"),
            (100.0, 100.0, 35, "x: Pulling [==========>] 100B/100B"),
            (50.0, 100.0, 30, "x: Pulling 50B/100B"),
            (50.0, 100.0, 3, "x: Pulling 50B/100B"),
            (50.0, 100.0, 0, "x: Pulling 50B/100B"),
        ] {
            assert_eq!(line(current, total, columns), expected, "{columns}");
        }
        assert_eq!(line(50.0, 100.0, 200).len(), "x: Pulling [] 50B/100B".len() + 50);
        for columns in 0..200 {
            let line = line(50.0, 100.0, columns);
            assert!(!line.contains('[') || line.len() < columns, "{columns}: {line}");
        }
    }

    #[test]
    fn lines_change_where_they_are() {
        let mut screen = Screen::default();
        assert_eq!(screen.draw("a", "a: waits", 5, 20), "a: waits\n");
        assert_eq!(screen.draw("b", "b: waits", 5, 20), "b: waits\n");
        assert_eq!(screen.draw("a", "a: is done", 5, 20), "\x1b[2A\r\x1b[Ka: is done\r\x1b[2B");
        // Narrow: cut, never wrapped. Low: what is above the first line stays as it is.
        assert_eq!(screen.draw("b", "b: is done", 5, 6), "\x1b[1A\r\x1b[Kb: is\r\x1b[1B");
        assert_eq!(screen.draw("c", "c: is done", 5, 1), "c\n");
        assert_eq!(screen.draw("a", "a: again", 3, 20), "");
        assert_eq!(screen.draw("a", "a: again", 0, 0), "\x1b[3A\r\x1b[Ka: again\r\x1b[3B");
    }
}
