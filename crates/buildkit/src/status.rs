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
        data: location.source.to_vec().into(),
        definition: None,
        language: "Dockerfile".to_owned(),
    }
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
    tonic::Status::new(code(error.kind()), error.chain())
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
    rpc::Status { code: Code::Unknown.into(), message: error.message.clone(), details }
}

/// A status with its details, as it answers a call.
pub(crate) fn with_details(status: &rpc::Status) -> tonic::Status {
    let details = status.encode_to_vec();
    tonic::Status::with_details(Code::from(status.code), status.message.clone(), details.into())
}
