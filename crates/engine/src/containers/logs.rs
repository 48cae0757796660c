//! `GET /containers/{id}/logs`.

use std::sync::Arc;

use bytes::Bytes;
use silo_docker::query::LogsQuery;
use silo_shim::logs::{self, LogError, LogLine, ReadOptions, Stream};
use silo_types::query::escape;
use silo_types::{Error, Kind, time};
use tokio::sync::mpsc;

use super::attach::frame;
use crate::container::{Container, timestamp};
use crate::engine::Engine;
use crate::events::unix_time;

/// A container's log, in the form that the API sends.
#[derive(Debug)]
pub struct LogStream {
    /// The container has a terminal: lines go out as they are. Otherwise each is a frame.
    pub tty: bool,
    lines: mpsc::Receiver<Result<LogLine, LogError>>,
    query: LogsQuery,
    /// Kept so that the log is not removed from under the reader's feet unnoticed.
    _container: Arc<Container>,
}

/// Docker's number of a stream.
pub(crate) fn stream_number(stream: Stream) -> u8 {
    match stream {
        Stream::Stdout => 1,
        Stream::Stderr => 2,
    }
}

impl Engine {
    /// Reads a container's log.
    #[expect(clippy::unused_async, reason = "verbs are async, whatever they do today")]
    pub async fn container_logs(&self, name: &str, query: LogsQuery) -> Result<LogStream, Error> {
        // docker wording, throughout
        if !query.stdout && !query.stderr {
            return Err(Error::invalid("Bad parameters: you must choose at least one stream"));
        }
        let container = self.container(name)?;
        let (running, gone) = {
            let state = container.state();
            (state.running, state.removing || state.dead)
        };
        if gone {
            return Err(Error::conflict(
                "can not get logs from container which is dead or marked for removal",
            ));
        }
        let bound = |name: &str, text: &str| {
            let text = text.strip_prefix('-').map_or(text, |_| "");
            unix_time(text)
                .map(|time| time.and_then(timestamp))
                .ok_or_else(|| Error::invalid(format!("invalid value for \"{name}\": {text:?}")))
        };
        let options = ReadOptions {
            tail: query.tail.parse().ok(),
            since: bound("since", &query.since)?,
            until: bound("until", &query.until)?,
            follow: query.follow && running,
            before: None,
        };
        let record = container.record();
        let config = super::start::log_config(&container, &record)?;
        if config.path.is_none() {
            return Err(Error::from_kind(LogError::Unreadable));
        }
        let mut watch = container.watch();
        let exits = watch.borrow_and_update().exits;
        let ended = async move {
            drop(watch.wait_for(|state| state.exits != exits || !state.running).await);
        };
        Ok(LogStream {
            tty: record.config.tty,
            lines: logs::read(&config, options, ended),
            query,
            _container: container,
        })
    }
}

impl LogStream {
    /// The next piece; `None` at the end. An error ends the stream.
    pub async fn next(&mut self) -> Option<Result<Bytes, Error>> {
        loop {
            let line = match self.lines.recv().await? {
                Ok(line) => line,
                Err(error) => {
                    let error = Error::new(error.kind(), silo_types::error::chain(&error));
                    return Some(Err(error));
                }
            };
            let stream = stream_number(line.stream);
            if (stream == 1 && self.query.stdout) || (stream == 2 && self.query.stderr) {
                let bytes = format_line(&line, self.query.timestamps, self.query.details);
                let bytes = if self.tty { bytes } else { frame(stream, &bytes) };
                return Some(Ok(bytes.into()));
            }
        }
    }
}

/// A line with what was asked for before it.
fn format_line(line: &LogLine, timestamps: bool, details: bool) -> Vec<u8> {
    let mut text = Vec::with_capacity(line.bytes.len() + 40);
    if timestamps {
        text.extend_from_slice(time::rfc3339_nano_fixed(line.time).as_bytes());
        text.push(b' ');
    }
    if details {
        let attributes: Vec<String> = line
            .attrs
            .iter()
            .map(|(name, value)| format!("{}={}", escape(name), escape(value)))
            .collect();
        text.extend_from_slice(attributes.join(",").as_bytes());
        text.push(b' ');
    }
    text.extend_from_slice(&line.bytes);
    text
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    #[test]
    fn lines_with_time_and_details() {
        let line = LogLine {
            time: timestamp(1_700_000_000_120_000_000).unwrap(),
            stream: Stream::Stdout,
            bytes: b"hi\n".to_vec(),
            attrs: BTreeMap::from([
                ("b".to_owned(), "x y".to_owned()),
                ("a".to_owned(), "1/2".to_owned()),
            ]),
            partial: false,
        };
        let text = |timestamps, details| {
            String::from_utf8(format_line(&line, timestamps, details)).unwrap()
        };
        assert_eq!(text(false, false), "hi\n");
        assert_eq!(text(true, false), "2023-11-14T22:13:20.120000000Z hi\n");
        assert_eq!(text(false, true), "a=1%2F2,b=x+y hi\n");
        assert_eq!(text(true, true), "2023-11-14T22:13:20.120000000Z a=1%2F2,b=x+y hi\n");
    }
}
