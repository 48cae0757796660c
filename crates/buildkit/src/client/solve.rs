//! The calls that a client makes.

use std::collections::HashMap;
use std::fmt;

use jiff::Timestamp;
use prost::{Message as _, Name as _};
use silo_build::progress::{Log, Status, Stream, Vertex};
use silo_dockerfile::Span;
use tokio::io::{AsyncRead, AsyncWrite};

use super::Build;
use crate::http2::Channel;
use crate::pb::errdefs;
use crate::pb::google::rpc;
use crate::pb::moby::buildkit::v1::control_client::ControlClient;
use crate::pb::moby::buildkit::v1::{
    CacheOptions, CacheOptionsEntry, Exporter, SolveRequest, StatusRequest, StatusResponse,
};
use crate::session::{MAX_MESSAGE, Session};

/// News of a build.
#[derive(Debug, Clone, Default)]
pub struct Update {
    /// Steps that are new, or whose state has changed.
    pub vertices: Vec<Vertex>,
    /// Parts of steps.
    pub statuses: Vec<Status>,
    /// Output of steps.
    pub logs: Vec<Log>,
    /// What is questionable in the Dockerfile, with the lines in question.
    pub warnings: Vec<String>,
}

/// A call that failed.
#[derive(Debug, Clone, Default)]
pub struct Failed {
    /// Why.
    pub message: String,
    /// The lines of the Dockerfile that it is about, ready to be shown; empty when there are none.
    pub excerpt: String,
}

impl fmt::Display for Failed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Failed {}

impl From<tonic::Status> for Failed {
    fn from(status: tonic::Status) -> Self {
        let mut excerpt = String::new();
        if let Ok(details) = rpc::Status::decode(status.details()) {
            for detail in details.details {
                if detail.type_url.ends_with(&errdefs::Source::full_name())
                    && let Ok(source) = errdefs::Source::decode(&detail.value[..])
                    && let Some(info) = source.info
                {
                    let spans = source.ranges.iter().filter_map(span).collect::<Vec<_>>();
                    excerpt =
                        silo_dockerfile::excerpt::render(&info.filename, &info.data, &spans, None);
                }
            }
        }
        Self { message: status.message().to_owned(), excerpt }
    }
}

fn span(range: &crate::pb::pb::Range) -> Option<Span> {
    let line = |position: &crate::pb::pb::Position| u32::try_from(position.line).ok();
    let start_line = line(range.start.as_ref()?)?;
    let end_line = range.end.as_ref().and_then(line).unwrap_or(start_line).max(start_line);
    Some(Span { start_line, end_line })
}

fn time(time: Option<prost_types::Timestamp>) -> Option<Timestamp> {
    let time = time?;
    Timestamp::new(time.seconds, time.nanos).ok()
}

impl From<StatusResponse> for Update {
    fn from(response: StatusResponse) -> Self {
        // What is not told by its digest is nobody's.
        let vertices = response.vertexes.into_iter().filter_map(|vertex| {
            Some(Vertex {
                inputs: vertex.inputs.iter().filter_map(|input| input.parse().ok()).collect(),
                cached: vertex.cached,
                started: time(vertex.started),
                completed: time(vertex.completed),
                error: vertex.error,
                ..Vertex::new(vertex.digest.parse().ok()?, vertex.name)
            })
        });
        let statuses = response.statuses.into_iter().filter_map(|status| {
            Some(Status {
                vertex: status.vertex.parse().ok()?,
                id: status.id,
                name: status.name,
                current: u64::try_from(status.current).unwrap_or_default(),
                total: u64::try_from(status.total).unwrap_or_default(),
                at: time(status.timestamp).unwrap_or_else(Timestamp::now),
                started: time(status.started),
                completed: time(status.completed),
            })
        });
        let logs = response.logs.into_iter().filter_map(|log| {
            Some(Log {
                vertex: log.vertex.parse().ok()?,
                stream: if log.stream == 2 { Stream::Stderr } else { Stream::Stdout },
                data: log.msg,
                at: time(log.timestamp).unwrap_or_else(Timestamp::now),
            })
        });
        let warnings = response.warnings.into_iter().map(|warning| {
            let mut text = format!("{}\n", String::from_utf8_lossy(&warning.short));
            for line in &warning.detail {
                text.push_str(&format!("{}\n", String::from_utf8_lossy(line)));
            }
            if let Some(info) = &warning.info {
                let spans = warning.ranges.iter().filter_map(span).collect::<Vec<_>>();
                text.push_str(&silo_dockerfile::excerpt::render(
                    &info.filename,
                    &info.data,
                    &spans,
                    None,
                ));
            }
            text
        });
        Self {
            vertices: vertices.collect(),
            statuses: statuses.collect(),
            logs: logs.collect(),
            warnings: warnings.collect(),
        }
    }
}

/// Has a build made, and tells `news` of it. Returns what the exporters say. Dropping this ends
/// the build.
pub async fn solve<S>(
    stream: S,
    build: Build,
    mut news: impl FnMut(Update),
) -> Result<HashMap<String, String>, Failed>
where
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let broken = |error: hyper::Error| Failed { message: error.to_string(), ..Failed::default() };
    let (channel, connection) = Channel::connect(stream).await.map_err(broken)?;
    tokio::spawn(async move {
        if let Err(error) = connection.await {
            tracing::debug!(%error, "the connection of a build");
        }
    });
    let mut client = ControlClient::with_origin(channel, Session::origin())
        .max_decoding_message_size(MAX_MESSAGE);
    let mut follower = client.clone();
    let reference = build.reference.clone();
    let request = SolveRequest {
        r#ref: build.reference,
        session: build.session,
        frontend: "dockerfile.v0".to_owned(),
        frontend_attrs: build.attributes,
        exporters: build
            .exporters
            .into_iter()
            .map(|(kind, attrs)| Exporter { r#type: kind, attrs })
            .collect(),
        cache: Some(CacheOptions {
            exports: build
                .cache_to
                .into_iter()
                .map(|(kind, attrs)| CacheOptionsEntry { r#type: kind, attrs })
                .collect(),
            ..CacheOptions::default()
        }),
        ..SolveRequest::default()
    };
    let mut followed = Box::pin(async move {
        let mut stream = follower.status(StatusRequest { r#ref: reference }).await?.into_inner();
        while let Some(response) = stream.message().await? {
            news(response.into());
        }
        Ok::<(), tonic::Status>(())
    });
    let solved = client.solve(request);
    tokio::pin!(solved);
    let solved = tokio::select! {
        solved = &mut solved => {
            // The rest of the news; a build that was refused at once has none.
            let _rest = tokio::time::timeout(REST, followed).await;
            solved
        }
        _news = &mut followed => solved.await,
    };
    Ok(solved?.into_inner().exporter_response)
}

/// How long news may come behind the end of a build.
const REST: std::time::Duration = std::time::Duration::from_secs(2);
