//! Archives that are fetched from a URL.

use std::io::{self, Read};
use std::time::{Duration, Instant};

use silo_docker::query::ImportQuery;
use silo_docker::stream::{ProgressDetail, StreamMessage};
use silo_http::Download;
use silo_types::Error;

use super::{repository_and_tag, transfer};
use crate::engine::Engine;

/// The most bytes between two lines of progress.
const REPORT: u64 = 512 << 10;
/// The least time between two lines of progress.
const PAUSE: Duration = Duration::from_millis(100);

/// An archive at a URL whose server has begun to answer.
#[derive(Debug)]
pub struct RemoteArchive {
    url: String,
    download: Download,
}

impl RemoteArchive {
    /// The URL, whole.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// The archive, for a thread that may block. `sink` is told how far it is; when it answers
    /// that nobody listens any more, reading fails.
    pub fn into_reader(
        self,
        sink: impl FnMut(StreamMessage) -> bool + Send + 'static,
    ) -> impl Read + Send + 'static {
        let total = self.download.length();
        Reported {
            step: total.map_or(REPORT, |total| (total / 100).min(REPORT)),
            total: total.unwrap_or(0),
            input: self.download.into_reader(),
            sink,
            current: 0,
            told: 0,
            last: None,
            ended: false,
        }
    }
}

impl Engine {
    /// Asks for the archive that [`Engine::image_import`] is to read, after a look at the rest of
    /// the request. The words are dockerd's.
    pub async fn image_import_fetch(
        &self,
        query: &ImportQuery,
        source: &str,
    ) -> Result<RemoteArchive, Error> {
        repository_and_tag(&query.repo, &query.tag)?;
        transfer::platform(&query.platform)?;
        let url = silo_http::parse_url(source).map_err(Error::from_kind)?;
        let download = self.http.get(&url).await.map_err(Error::from_kind)?;
        Ok(RemoteArchive { url: url.to_string(), download })
    }
}

/// A reader that tells how far it is.
struct Reported<R, S> {
    input: R,
    sink: S,
    total: u64,
    /// Bytes between two lines.
    step: u64,
    current: u64,
    told: u64,
    last: Option<Instant>,
    ended: bool,
}

impl<R: Read, S: FnMut(StreamMessage) -> bool> Reported<R, S> {
    fn tell(&mut self) -> io::Result<()> {
        let number = |count: u64| i64::try_from(count).unwrap_or(i64::MAX);
        (self.told, self.last) = (self.current, Some(Instant::now()));
        let message = StreamMessage {
            status: "Importing".to_owned(),
            progress_detail: Some(ProgressDetail {
                current: number(self.current),
                total: number(self.total),
            }),
            ..StreamMessage::default()
        };
        if (self.sink)(message) { Ok(()) } else { Err(io::Error::other("the client went away")) }
    }
}

impl<R: Read, S: FnMut(StreamMessage) -> bool> Read for Reported<R, S> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.input.read(buffer)?;
        self.current += count as u64;
        if count == 0 && !self.ended && !buffer.is_empty() {
            self.ended = true;
            self.tell()?;
            // Ends the line of a client that draws a bar.
            (self.sink)(StreamMessage::default());
        } else if self.current - self.told > self.step
            && self.last.is_none_or(|last| last.elapsed() >= PAUSE)
        {
            self.tell()?;
        }
        Ok(count)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use super::*;

    fn reported(
        bytes: &'static [u8],
        listen: usize,
    ) -> (Arc<Mutex<Vec<StreamMessage>>>, impl Read) {
        let lines = Arc::new(Mutex::new(Vec::new()));
        let told = Arc::clone(&lines);
        let reader = Reported {
            input: bytes,
            sink: move |message| {
                let mut told = told.lock().unwrap();
                told.push(message);
                told.len() < listen
            },
            total: bytes.len() as u64,
            step: 1,
            current: 0,
            told: 0,
            last: None,
            ended: false,
        };
        (lines, reader)
    }

    #[test]
    fn progress_ends_with_all_of_it() {
        let (lines, mut reader) = reported(b"hello world", usize::MAX);
        assert_eq!(io::read_to_string(&mut reader).unwrap(), "hello world");
        assert_eq!(reader.read(&mut [0]).unwrap(), 0);
        let lines = lines.lock().unwrap();
        let detail =
            |line: &StreamMessage| line.progress_detail.clone().map(|d| (d.current, d.total));
        assert_eq!(detail(&lines[lines.len() - 2]), Some((11, 11)));
        assert_eq!(lines[0].status, "Importing");
        assert_eq!(*lines.last().unwrap(), StreamMessage::default());
    }

    #[test]
    fn a_client_that_goes_ends_the_reading() {
        let (_, mut reader) = reported(b"hello world", 1);
        let error = io::read_to_string(&mut reader).unwrap_err();
        assert_eq!(error.to_string(), "the client went away");
    }
}
