//! From bytes as they come out of pipes to records in a file.

use std::io;
use std::os::unix::fs::FileExt;

use rustix::time::{ClockId, clock_gettime};

use super::options::Rotation;
use super::rotate::RotatingFile;
use super::{Stream, json, local};
use crate::config::{LogConfig, LogDriver};
use crate::protocol::LogMark;

/// Bytes of a line after which dockerd starts another record.
const MAX_LINE: usize = 16 << 10;
/// Bytes of records that are gathered for one write.
const BATCH: usize = 64 << 10;

/// Writes the log of one container.
#[derive(Debug)]
pub(crate) struct LogWriter {
    sink: Option<Sink>,
    lines: [Line; 2],
    /// The last failure, until somebody takes it.
    failure: Option<io::Error>,
}

#[derive(Debug)]
struct Sink {
    file: RotatingFile,
    format: Format,
    batch: Vec<u8>,
}

#[derive(Debug)]
enum Format {
    Json(json::Encoder),
    Local,
}

/// What has come of a line that has not ended.
#[derive(Debug, Default)]
struct Line {
    bytes: Vec<u8>,
    /// When its first record was made, if it already has one: the others get the same time.
    since: Option<i64>,
}

impl LogWriter {
    /// Opens the log. A record that a power cut left half-written at its end is ended or cut
    /// off.
    pub(crate) fn open(config: &LogConfig) -> io::Result<Self> {
        Ok(Self {
            sink: Sink::open(config)?,
            lines: [Line::default(), Line::default()],
            failure: None,
        })
    }

    /// Goes on with another configuration; held parts of lines stay.
    pub(crate) fn update(&mut self, config: &LogConfig) -> io::Result<()> {
        self.sink = Sink::open(config)?;
        Ok(())
    }

    /// Opens the same file anew.
    pub(crate) fn reopen(&mut self) -> io::Result<()> {
        self.sink.as_mut().map_or(Ok(()), |sink| sink.file.reopen())
    }

    /// Where the log ends.
    pub(crate) fn mark(&self) -> Option<LogMark> {
        self.sink.as_ref().map(|sink| sink.file.mark())
    }

    /// What has come of a line of `stream` and is not in the log yet.
    pub(crate) fn held(&self, stream: Stream) -> &[u8] {
        &self.lines[index(stream)].bytes
    }

    /// Takes bytes of a stream. A failure to write costs the records of this call, never the
    /// container's progress; see [`Self::take_failure`].
    pub(crate) fn write(&mut self, stream: Stream, mut bytes: &[u8]) {
        let Some(sink) = &mut self.sink else { return };
        let line = &mut self.lines[index(stream)];
        let mut result = Ok(());
        while !bytes.is_empty() {
            let room = MAX_LINE - line.bytes.len();
            let window = &bytes[..bytes.len().min(room)];
            if let Some(end) = window.iter().position(|&b| b == b'\n') {
                let time = line.since.take().unwrap_or_else(now);
                let parts = [line.bytes.as_slice(), &window[..end]];
                result = result.and(sink.record(stream, time, parts, true));
                line.bytes.clear();
                bytes = &bytes[end + 1..];
            } else if window.len() == room {
                let time = *line.since.get_or_insert_with(now);
                let parts = [line.bytes.as_slice(), window];
                result = result.and(sink.record(stream, time, parts, false));
                line.bytes.clear();
                bytes = &bytes[room..];
            } else {
                line.bytes.extend(window);
                break;
            }
        }
        if line.bytes.is_empty() {
            // Most streams end their lines; they need not pay for those that do not.
            line.bytes = Vec::new();
        }
        if let Err(error) = result.and(sink.flush()) {
            self.failure = Some(error);
        }
    }

    /// A stream has ended: what has come of its last line is a record too.
    pub(crate) fn end(&mut self, stream: Stream) {
        let line = std::mem::take(&mut self.lines[index(stream)]);
        let Some(sink) = &mut self.sink else { return };
        if !line.bytes.is_empty() {
            let time = line.since.unwrap_or_else(now);
            let recorded = sink.record(stream, time, [&line.bytes, &[]], false);
            if let Err(error) = recorded.and(sink.flush()) {
                self.failure = Some(error);
            }
        }
    }

    /// The last failure since this was asked before.
    pub(crate) fn take_failure(&mut self) -> Option<io::Error> {
        self.failure.take()
    }

    /// Whether [`Self::idle`] has something to do.
    pub(crate) fn has_work(&self) -> bool {
        self.sink.as_ref().is_some_and(|sink| sink.file.is_compressing())
    }

    /// Does a little work that can wait.
    pub(crate) fn idle(&mut self) {
        if let Some(sink) = &mut self.sink
            && let Err(error) = sink.file.compress_some()
        {
            self.failure = Some(error);
        }
    }
}

impl Sink {
    fn open(config: &LogConfig) -> io::Result<Option<Self>> {
        let (Some(path), true) = (&config.path, config.driver != LogDriver::None) else {
            return Ok(None);
        };
        let rotation = Rotation::new(config.driver, &config.options).map_err(io::Error::other)?;
        let mut file = RotatingFile::open(path, rotation)?;
        let format = match config.driver {
            LogDriver::Local => {
                mend_local(&mut file)?;
                Format::Local
            }
            _ => {
                mend_json(&mut file)?;
                Format::Json(json::Encoder::new(&config.attrs))
            }
        };
        Ok(Some(Self { file, format, batch: Vec::new() }))
    }

    fn record(
        &mut self,
        stream: Stream,
        time: i64,
        line: [&[u8]; 2],
        newline: bool,
    ) -> io::Result<()> {
        if self.file.is_full(self.batch.len()) {
            self.flush()?;
            self.file.rotate()?;
        }
        match &mut self.format {
            Format::Json(encoder) => encoder.record(&mut self.batch, stream, time, line, newline),
            Format::Local => local::record(&mut self.batch, stream, time, line, newline),
        }
        if self.batch.len() >= BATCH { self.flush() } else { Ok(()) }
    }

    fn flush(&mut self) -> io::Result<()> {
        if self.batch.is_empty() {
            return Ok(());
        }
        let result = self.file.append(&self.batch);
        if self.batch.capacity() > BATCH {
            self.batch = Vec::new();
        }
        self.batch.clear();
        result
    }
}

fn index(stream: Stream) -> usize {
    usize::from(stream == Stream::Stderr)
}

/// Nanoseconds since 1970.
pub(crate) fn now() -> i64 {
    let time = clock_gettime(ClockId::Realtime);
    time.tv_sec.saturating_mul(1_000_000_000).saturating_add(time.tv_nsec)
}

/// Ends a half-written line, so that the next record is not lost with it.
fn mend_json(file: &mut RotatingFile) -> io::Result<()> {
    let Some(last) = file.size().checked_sub(1) else { return Ok(()) };
    let mut byte = [0];
    fs_err::File::open(file.path())?.file().read_exact_at(&mut byte, last)?;
    if byte == *b"\n" { Ok(()) } else { file.append(b"\n") }
}

/// Cuts off everything behind the last sound record. A sound end is believed without a look
/// at what lies before it.
fn mend_local(file: &mut RotatingFile) -> io::Result<()> {
    let size = file.size();
    if size == 0 || record_before(fs_err::File::open(file.path())?.file(), size)?.is_some() {
        return Ok(());
    }
    let bytes = fs_err::read(file.path())?;
    let mut sound = 0;
    while let Some((_, length)) = local::decode(&bytes[sound..]) {
        sound += length;
    }
    file.truncate(sound as u64)
}

/// The start of the `local` record that ends at `end`, if a sound one does.
pub(crate) fn record_before(file: &std::fs::File, end: u64) -> io::Result<Option<u64>> {
    let mut length = [0; 4];
    let Some(trailer) = end.checked_sub(4) else { return Ok(None) };
    file.read_exact_at(&mut length, trailer)?;
    let Some(body) = local::body_length(&length) else { return Ok(None) };
    let Some(start) = end.checked_sub((body + local::AROUND) as u64) else { return Ok(None) };
    let mut head = [0; 4];
    file.read_exact_at(&mut head, start)?;
    Ok((head == length).then_some(start))
}
