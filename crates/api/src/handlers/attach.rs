//! Attach and logs: the streams of a container.

use std::future::Future;
use std::time::Duration;

use futures_util::stream;
use hyper::ext::ReasonPhrase;
use hyper::header::{CONNECTION, CONTENT_TYPE, HeaderValue, UPGRADE};
use hyper::upgrade::OnUpgrade;
use hyper::{Response, StatusCode};
use hyper_util::rt::TokioIo;
use silo_docker::query::{AttachQuery, LogsQuery};
use silo_types::Error;
use tokio::io::{ReadHalf, WriteHalf};

use super::containers::broken;
use crate::body::Body;
use crate::conn::{Conn, Socket};
use crate::request::Request;
use crate::respond::{self, Answer};
use crate::websocket;

/// Bytes between a container and a WebSocket, each way.
const PIPE: usize = 64 << 10;
const RAW: &str = "application/vnd.docker.raw-stream";
const MULTIPLEXED: &str = "application/vnd.docker.multiplexed-stream";

fn stream_type(request: &Request, tty: bool) -> &'static str {
    if tty || !request.at_least(42) { RAW } else { MULTIPLEXED }
}

/// The halves of a connection that was taken over.
pub(super) type Reader = ReadHalf<Conn<Socket>>;
/// See [`Reader`].
pub(super) type Writer = WriteHalf<Conn<Socket>>;

/// Answers with a head after which the connection belongs to `session`.
///
/// A client that asked for an upgrade gets `101 UPGRADED`; for one that did not, the connection
/// turns it into `200 OK` (see `conn`).
pub(super) fn hijack<F: Future<Output = ()> + Send + 'static>(
    mut request: Request,
    tty: bool,
    session: impl FnOnce(Reader, Writer) -> F + Send + 'static,
) -> Answer {
    let upgrade = request.upgrade.take().ok_or_else(|| broken("connection is not available"))?;
    let kind = if request.asks_upgrade() { stream_type(&request, tty) } else { RAW };
    if !request.asks_upgrade() && !request.conn.is_raw() {
        return Err(Error::invalid(
            "this connection cannot be taken over; use a new one or ask for an upgrade",
        ));
    }
    take_over(upgrade, session);
    let mut response = Response::new(Body::empty());
    *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    response.extensions_mut().insert(ReasonPhrase::from_static(b"UPGRADED"));
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    headers.insert(CONNECTION, HeaderValue::from_static("Upgrade"));
    headers.insert(UPGRADE, HeaderValue::from_static("tcp"));
    Ok(response)
}

/// Runs `session` on the connection once the head has been answered.
fn take_over<F: Future<Output = ()> + Send + 'static>(
    upgrade: OnUpgrade,
    session: impl FnOnce(Reader, Writer) -> F + Send + 'static,
) {
    take_connection(upgrade, |conn| async move {
        head_is_read(conn.socket()).await;
        let (reader, writer) = tokio::io::split(conn);
        session(reader, writer).await;
    });
}

/// Gives the connection to `session` once the head has been written.
pub(super) fn take_connection<F: Future<Output = ()> + Send + 'static>(
    upgrade: OnUpgrade,
    session: impl FnOnce(Conn<Socket>) -> F + Send + 'static,
) {
    tokio::spawn(async move {
        let parts = match upgrade.await {
            Ok(upgraded) => upgraded.downcast::<TokioIo<Conn<Socket>>>(),
            Err(error) => {
                tracing::debug!(%error, "client went away before its stream began");
                return;
            }
        };
        let Ok(parts) = parts else { return };
        let mut conn = parts.io.into_inner();
        conn.unread(&parts.read_buf);
        session(conn).await;
    });
}

/// Waits a moment until the client has read the head.
///
/// docker-py reads heads through a buffer and streams past it, so what arrives together with the
/// head is lost to it. There is no event for this; a Unix socket tells when it is asked.
async fn head_is_read(socket: &Socket) {
    const TRIES: u32 = 8;
    for attempt in 0..TRIES {
        match socket.unread() {
            None | Some(0) => return,
            Some(_) if attempt < 2 => tokio::task::yield_now().await,
            Some(_) => tokio::time::sleep(Duration::from_millis(1)).await,
        }
    }
}

pub(crate) async fn attach(request: Request, id: &str) -> Answer {
    let query = AttachQuery {
        logs: request.query.flag("logs"),
        stream: request.query.flag("stream"),
        stdin: request.query.flag("stdin"),
        stdout: request.query.flag("stdout"),
        stderr: request.query.flag("stderr"),
        detach_keys: request.query.get("detachKeys").to_owned(),
    };
    let attachment = request.engine.container_attach(id, query).await?;
    let tty = attachment.tty;
    hijack(request, tty, move |reader, writer| attachment.run(reader, writer))
}

/// `GET /containers/{id}/attach/ws`: attach for browsers. The streams are never multiplexed, and
/// before API 1.42 all of them are attached.
pub(crate) async fn websocket(mut request: Request, id: &str) -> Answer {
    let flag = |name: &str| !request.at_least(42) || request.query.flag(name);
    let query = AttachQuery {
        logs: request.query.flag("logs"),
        stream: request.query.flag("stream"),
        stdin: flag("stdin"),
        stdout: flag("stdout"),
        stderr: flag("stderr"),
        detach_keys: request.query.get("detachKeys").to_owned(),
    };
    let kind = if request.at_least(28) { websocket::Kind::Binary } else { websocket::Kind::Text };
    let mut attachment = request.engine.container_attach(id, query).await?;
    attachment.tty = true;
    let upgrade = request.upgrade.take().ok_or_else(|| broken("connection is not available"))?;
    let answers = websocket::accept(&request.headers)?;
    take_over(upgrade, move |reader, writer| async move {
        let (plain, session) = tokio::io::duplex(PIPE);
        let (output, input) = tokio::io::split(plain);
        let (from_client, to_client) = tokio::io::split(session);
        let carried = websocket::carry(reader, writer, input, output, kind);
        tokio::pin!(carried);
        tokio::select! {
            () = attachment.run(from_client, to_client) => carried.await,
            // The client is gone.
            () = &mut carried => {}
        }
    });
    let mut response = Response::new(Body::empty());
    *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    response.headers_mut().extend(answers);
    Ok(response)
}

pub(crate) async fn logs(request: Request, id: &str) -> Answer {
    let text = |name: &str| request.query.get(name).to_owned();
    let query = LogsQuery {
        follow: request.query.flag("follow"),
        stdout: request.query.flag("stdout"),
        stderr: request.query.flag("stderr"),
        since: text("since"),
        until: match text("until") {
            until if until == "0" => String::new(),
            until => until,
        },
        timestamps: request.query.flag("timestamps"),
        details: request.query.flag("details"),
        tail: text("tail"),
    };
    if !query.stdout && !query.stderr {
        return Err(Error::invalid("must specify at least one of 'stdout' or 'stderr'"));
    }
    let log = request.engine.container_logs(id, query).await?;
    let kind = stream_type(&request, log.tty);
    let lines = stream::unfold((log, request.conn), |(mut log, conn)| async move {
        let piece = tokio::select! {
            piece = log.next() => piece?,
            () = conn.gone() => return None,
        };
        let piece = piece.map_err(|error| std::io::Error::other(error.chain()));
        Some((piece, (log, conn)))
    });
    Ok(respond::content(kind, Body::stream(lines)))
}
