//! Ping, info, version, df and events.

use futures_util::stream;
use hyper::header::{CACHE_CONTROL, CONTENT_LENGTH, HeaderName, HeaderValue, PRAGMA};
use silo_docker::query::EventsQuery;
use silo_types::Error;

use crate::body::Body;
use crate::compat;
use crate::request::Request;
use crate::respond::{self, Answer};

/// `GET` and `HEAD /_ping`.
#[expect(clippy::unnecessary_wraps, reason = "the form of all handlers")]
pub(crate) fn ping() -> Answer {
    let mut response = respond::content("text/plain; charset=utf-8", Body::full("OK"));
    let headers = response.headers_mut();
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-cache, no-store, must-revalidate"));
    headers.insert(PRAGMA, HeaderValue::from_static("no-cache"));
    // 1 is the builder behind POST /build alone; 2 is BuildKit behind /session and /grpc.
    headers.insert(HeaderName::from_static("builder-version"), HeaderValue::from_static("2"));
    headers.insert(HeaderName::from_static("swarm"), HeaderValue::from_static("inactive"));
    headers.insert(CONTENT_LENGTH, HeaderValue::from_static("2"));
    Ok(response)
}

pub(crate) fn info(request: Request) -> Answer {
    let info = request.engine.info()?;
    respond::json(&compat::info(&info, request.version)?)
}

pub(crate) fn version(request: Request) -> Answer {
    respond::json(&request.engine.version())
}

pub(crate) async fn disk_usage(request: Request) -> Answer {
    let mut kinds = silo_engine::system::DiskUsageKinds::ALL;
    if request.at_least(42) && request.query.has("type") {
        kinds = silo_engine::system::DiskUsageKinds::NONE;
        for kind in request.query.all("type") {
            match kind {
                "container" => kinds.containers = true,
                "image" => kinds.images = true,
                "volume" => kinds.volumes = true,
                "build-cache" => kinds.build_cache = true,
                other => return Err(Error::invalid(format!("unknown object type: {other}"))),
            }
        }
    }
    let verbose = request.at_least(52) && request.query.flag("verbose");
    let mut usage = request.engine.disk_usage(kinds).await?;
    if kinds.build_cache {
        usage.build_cache_usage = Some(super::build::usage(&request).await?);
    }
    respond::json(&compat::disk_usage(usage, verbose, request.version)?)
}

pub(crate) fn events(request: Request) -> Answer {
    let query = EventsQuery {
        since: request.query.get("since").to_owned(),
        until: request.query.get("until").to_owned(),
        filters: request.query.filters()?,
    };
    let events = request.engine.events().subscribe(query)?;
    let (image_create, legacy) = (request.at_least(46), !request.at_least(52));
    let accepts = |kind: &str| {
        request.headers.get_all(hyper::header::ACCEPT).iter().any(|value| {
            value.to_str().is_ok_and(|value| {
                value.split(',').any(|v| v.split(';').next().unwrap_or_default().trim() == kind)
            })
        })
    };
    let sequence = accepts("application/json-seq");
    let kind = if sequence {
        "application/json-seq"
    } else if accepts("application/x-ndjson") {
        "application/x-ndjson"
    } else if legacy && !accepts("application/jsonl") {
        "application/json"
    } else {
        "application/jsonl"
    };
    let conn = request.conn;
    let lines = stream::unfold((events, conn), move |(mut events, conn)| async move {
        loop {
            let message = tokio::select! {
                message = events.next() => message?,
                () = conn.gone() => return None,
            };
            if !image_create && message.kind == "image" && message.action == "create" {
                continue;
            }
            let mut message = (*message).clone();
            if !legacy {
                message.status.clear();
                message.id.clear();
                message.from.clear();
            }
            let mut bytes = Vec::new();
            if sequence {
                bytes.push(0x1e);
            }
            bytes.extend_from_slice(&respond::line(&message).ok()?);
            return Some((Ok(bytes.into()), (events, conn)));
        }
    });
    Ok(respond::content(kind, Body::stream(lines)))
}
