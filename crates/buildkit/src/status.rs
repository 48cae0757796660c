//! A build's events as clients see them, and errors with the place that they are about.

use jiff::Timestamp;
use prost::{Message as _, Name as _};
use silo_build::BuildError;
use silo_build::progress::{Event, Location, Stream};
use silo_types::{Error, ErrorKind};
use tonic::Code;

use crate::pb::errdefs;
use crate::pb::google::rpc;
use crate::pb::moby::buildkit::v1::{
    StatusResponse, Vertex, VertexLog, VertexStatus, VertexWarning,
};
use crate::pb::pb::{Position, Range, SourceInfo};

/// A time as it travels.
pub(crate) fn timestamp(time: Timestamp) -> prost_types::Timestamp {
    prost_types::Timestamp { seconds: time.as_second(), nanos: time.subsec_nanosecond() }
}

fn number(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

/// An event as a message; `None` for what BuildKit does not show.
pub(crate) fn response(event: Event) -> Option<StatusResponse> {
    let mut response = StatusResponse::default();
    match event {
        Event::Vertex(vertex) => response.vertexes.push(Vertex {
            digest: vertex.digest.to_string(),
            inputs: vertex.inputs.iter().map(ToString::to_string).collect(),
            name: vertex.name,
            cached: vertex.cached,
            started: vertex.started.map(timestamp),
            completed: vertex.completed.map(timestamp),
            error: vertex.error,
        }),
        Event::Log(log) => response.logs.push(VertexLog {
            vertex: log.vertex.to_string(),
            timestamp: Some(timestamp(log.at)),
            stream: match log.stream {
                Stream::Stdout => 1,
                Stream::Stderr => 2,
            },
            msg: log.data,
        }),
        Event::Status(status) => response.statuses.push(VertexStatus {
            id: status.id,
            vertex: status.vertex.to_string(),
            name: status.name,
            current: number(status.current),
            total: number(status.total),
            timestamp: Some(timestamp(status.at)),
            started: status.started.map(timestamp),
            completed: status.completed.map(timestamp),
        }),
        Event::Warning(warning) => response.warnings.push(VertexWarning {
            vertex: warning.vertex.to_string(),
            level: 1,
            short: warning.short.into_bytes().into(),
            detail: warning.detail.into_iter().map(|line| line.into_bytes().into()).collect(),
            url: warning.url,
            info: warning.location.as_ref().map(source_info),
            ranges: warning.location.as_ref().map(range).into_iter().collect(),
        }),
        Event::Note(_) => return None,
    }
    Some(response)
}

fn source_info(location: &Location) -> SourceInfo {
    SourceInfo {
        filename: location.file.clone(),
        data: near(&location.source, location.start_line, location.end_line).into(),
        definition: None,
        language: "Dockerfile".to_owned(),
    }
}

/// Lines of a source that go along with a place in it.
const NEAR: u32 = 8;
/// Bytes of one of these lines, and of all together.
const MAX_LINE: usize = 2000;
const MAX_NEAR: usize = 32 * 1024;
/// Bytes of a message.
const MAX_MESSAGE: usize = 16 * 1024;

/// A source of which only the lines near a place are left, in their places: errors go in headers,
/// which are not to be large. Where even that is much, the whole is empty.
fn near(source: &[u8], start: u32, end: u32) -> Vec<u8> {
    if source.len() <= MAX_LINE {
        return source.to_vec();
    }
    let (first, last) = (start.saturating_sub(NEAR), end.saturating_add(NEAR));
    let mut out = Vec::new();
    for (number, line) in (1_u32..).zip(source.split(|byte| *byte == b'\n')) {
        if number > last {
            break;
        }
        if number >= first {
            out.extend_from_slice(&line[..line.len().min(MAX_LINE)]);
        }
        out.push(b'\n');
        if out.len() > MAX_NEAR {
            return Vec::new();
        }
    }
    out
}

/// A message that fits into a header.
fn short(mut message: String) -> String {
    if message.len() > MAX_MESSAGE {
        message.truncate(message.floor_char_boundary(MAX_MESSAGE));
        message.push_str(" ...");
    }
    message
}

fn range(location: &Location) -> Range {
    let position =
        |line: u32| Some(Position { line: i32::try_from(line).unwrap_or(i32::MAX), character: 0 });
    Range { start: position(location.start_line), end: position(location.end_line) }
}

fn code(kind: ErrorKind) -> Code {
    match kind {
        ErrorKind::NotFound => Code::NotFound,
        ErrorKind::Conflict => Code::AlreadyExists,
        ErrorKind::InvalidParameter => Code::InvalidArgument,
        ErrorKind::Unauthorized => Code::Unauthenticated,
        ErrorKind::Forbidden => Code::PermissionDenied,
        ErrorKind::NotImplemented => Code::Unimplemented,
        ErrorKind::Unavailable => Code::Unavailable,
        _ => Code::Unknown,
    }
}

/// An error as a call's status.
pub(crate) fn error(error: &Error) -> tonic::Status {
    tonic::Status::new(code(error.kind()), short(error.chain()))
}

/// A failed build as a call's status: the details name the lines that it is about.
pub(crate) fn build_error(error: &BuildError) -> rpc::Status {
    let mut details = Vec::new();
    if let Some(location) = &error.location {
        let source =
            errdefs::Source { info: Some(source_info(location)), ranges: vec![range(location)] };
        details.push(prost_types::Any {
            type_url: errdefs::Source::full_name(),
            value: source.encode_to_vec(),
        });
    }
    // Most clients print the code's name unless it is this one.
    rpc::Status { code: Code::Unknown.into(), message: short(error.message.clone()), details }
}

/// A status with its details, as it answers a call.
pub(crate) fn with_details(status: &rpc::Status) -> tonic::Status {
    let details = status.encode_to_vec();
    tonic::Status::with_details(Code::from(status.code), status.message.clone(), details.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_goes_along_is_small() {
        let small = b"FROM a\nRUN b\n";
        assert_eq!(near(small, 2, 2), small);
        let long = "x".repeat(3000);
        let text =
            format!("{}{long}\nRUN b\nRUN c\n{}", "RUN a\n".repeat(1000), "RUN d\n".repeat(1000));
        let left = String::from_utf8(near(text.as_bytes(), 1002, 1002)).unwrap();
        let lines: Vec<&str> = left.split('\n').collect();
        assert_eq!((lines[0], lines[992], lines[993]), ("", "", "RUN a"));
        assert_eq!((lines[1000].len(), lines[1001], lines[1002]), (MAX_LINE, "RUN b", "RUN c"));
        assert_eq!(lines.len(), 1002 + 8 + 1);
        assert!(near("\n".repeat(50_000).as_bytes(), 49_000, 49_000).is_empty());
        assert!(near(format!("{long}\n").repeat(90).as_bytes(), 2, 80).is_empty());
        assert_eq!(short("é".repeat(10_000)).len(), MAX_MESSAGE + 4);
    }
}
