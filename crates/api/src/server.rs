//! Listeners, connections, and the frame around every handler.

use std::convert::Infallible;
use std::future::Future;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use hyper::body::{Body as _, Incoming};
use hyper::header::{CONNECTION, EXPECT, HeaderName, HeaderValue, SERVER};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use silo_build::Builder;
use silo_buildkit::BuildKit;
use silo_docker::{API_VERSION, ApiVersion, MIN_API_VERSION};
use silo_engine::Engine;
use silo_types::Error;
use silo_types::query::unescape_path;
use tokio::net::{TcpListener, UnixListener};
use tokio::task::JoinSet;

use crate::body::Body;
use crate::conn::{Conn, ConnState, Socket};
use crate::query::Query;
use crate::request::Request;
use crate::request_body::{RequestBody, Unread};
use crate::respond::{self, Answer};
use crate::route::route;

const SERVER_NAME: HeaderValue =
    HeaderValue::from_static(concat!("Silo/", env!("CARGO_PKG_VERSION"), " (linux)"));

/// Where clients connect.
#[derive(Debug)]
pub enum Listener {
    /// A socket in the file system.
    Unix(UnixListener),
    /// A port. Whoever can connect has all power over the host.
    Tcp(TcpListener),
}

impl Listener {
    /// Listens at a path. The socket's mode is the caller's to set.
    pub fn unix(path: &Path) -> io::Result<Self> {
        UnixListener::bind(path).map(Self::Unix)
    }

    /// Listens at `address`, as `127.0.0.1:2375`.
    pub async fn tcp(address: &str) -> io::Result<Self> {
        TcpListener::bind(address).await.map(Self::Tcp)
    }

    async fn accept(&self) -> io::Result<Socket> {
        match self {
            Self::Unix(listener) => Ok(Socket::Unix(listener.accept().await?.0)),
            Self::Tcp(listener) => {
                let (socket, _) = listener.accept().await?;
                // Small frames of a terminal must not wait for more.
                if let Err(error) = socket.set_nodelay(true) {
                    tracing::debug!(%error, "set TCP_NODELAY");
                }
                Ok(Socket::Tcp(socket))
            }
        }
    }
}

/// What answers requests.
#[derive(Debug, Clone)]
pub struct Backend {
    /// Containers, images, volumes and networks.
    pub engine: Arc<Engine>,
    /// Images from Dockerfiles.
    pub builder: Arc<Builder>,
    /// The same for clients that speak BuildKit's protocol.
    pub buildkit: BuildKit,
}

/// Serves the API on every listener until `stop` is ready; then no more connections are taken,
/// and those that are open are dropped.
pub async fn serve(backend: Backend, listeners: Vec<Listener>, stop: impl Future<Output = ()>) {
    let mut accepting = JoinSet::new();
    for listener in listeners {
        let backend = backend.clone();
        accepting.spawn(async move {
            let mut connections = JoinSet::new();
            loop {
                let accepted = tokio::select! {
                    accepted = listener.accept() => accepted,
                    Some(_) = connections.join_next() => continue,
                };
                match accepted {
                    Ok(socket) => {
                        connections.spawn(connection(backend.clone(), socket));
                    }
                    Err(error) => {
                        // Out of descriptors: connections that end will free some.
                        tracing::error!(%error, "accept connection");
                        if connections.join_next().await.is_none() {
                            tokio::time::sleep(Duration::from_millis(100)).await;
                        }
                    }
                }
            }
        });
    }
    stop.await;
    accepting.shutdown().await;
}

async fn connection(backend: Backend, socket: Socket) {
    let state = Arc::new(ConnState::default());
    let io = TokioIo::new(Conn::new(socket, Arc::clone(&state)));
    let service = service_fn(move |request| {
        let (backend, state) = (backend.clone(), Arc::clone(&state));
        async move { Ok::<_, Infallible>(answer(backend, state, request).await) }
    });
    let served = http1::Builder::new()
        .timer(TokioTimer::new())
        .max_buf_size(256 * 1024)
        .serve_connection(io, service)
        .with_upgrades()
        .await;
    if let Err(error) = served {
        tracing::debug!(%error, "connection");
    }
}

/// Answers one request, whatever happens.
async fn answer(
    backend: Backend,
    conn: Arc<ConnState>,
    request: hyper::Request<Incoming>,
) -> Response<Body> {
    if request.body().is_end_stream() {
        conn.hold();
    }
    let (method, path) = (request.method().clone(), request.uri().path().to_owned());
    let expects = request.headers().contains_key(EXPECT);
    let mut unread = Unread::default();
    let request = request.map(|incoming| {
        let (body, rest) = RequestBody::new(incoming);
        unread = rest;
        body
    });
    let result = dispatch(backend, Arc::clone(&conn), request).await;
    let mut response = result.unwrap_or_else(|error| {
        let code = error.kind().http_status();
        if code == 500 {
            tracing::error!(%method, path, code, error = error.chain(), "request failed");
        } else {
            tracing::debug!(%method, path, code, error = error.chain(), "request refused");
        }
        respond::failure(&error)
    });
    // Who waits for `100 Continue` sends nothing before it.
    let reads_rest = !expects && response.status() != StatusCode::SWITCHING_PROTOCOLS;
    if reads_rest && unread.discard().await {
        conn.hold();
    }
    let headers = response.headers_mut();
    headers.insert(SERVER, SERVER_NAME);
    if let Ok(version) = HeaderValue::from_str(&API_VERSION.to_string()) {
        headers.insert(HeaderName::from_static("api-version"), version);
    }
    headers
        .insert(HeaderName::from_static("docker-experimental"), HeaderValue::from_static("false"));
    headers.insert(HeaderName::from_static("ostype"), HeaderValue::from_static("linux"));
    if response.status() == StatusCode::SWITCHING_PROTOCOLS {
        // From here on the end of input is part of the stream.
        conn.release();
        return response;
    }
    // The client's own word on keeping the connection gave way to our `Upgrade`.
    if conn.is_raw() && response.status() != StatusCode::SWITCHING_PROTOCOLS {
        response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
    }
    response.map(|body| body.releasing(conn))
}

async fn dispatch(
    backend: Backend,
    conn: Arc<ConnState>,
    mut request: hyper::Request<RequestBody>,
) -> Answer {
    let upgrade = Some(hyper::upgrade::on(&mut request));
    let (parts, body) = request.into_parts();
    let path = parts.uri.path();
    let mut segments = path
        .strip_prefix('/')
        .unwrap_or(path)
        .split('/')
        .map(unescape_path)
        .collect::<Result<Vec<_>, _>>()?;
    let mut version = API_VERSION;
    if let Some(text) = segments.first().and_then(|first| version_prefix(first)) {
        version = check_version(text)?;
        segments.remove(0);
    }
    let query = Query::parse(parts.uri.query().unwrap_or_default())?;
    let Backend { engine, builder, buildkit } = backend;
    let headers = parts.headers;
    let request =
        Request { engine, builder, buildkit, version, query, headers, conn, upgrade, body };
    route(&parts.method, &segments, request).await
}

/// The version in a first path segment `v1.41`.
fn version_prefix(segment: &str) -> Option<&str> {
    let text = segment.strip_prefix('v')?;
    let plain = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit() || b == b'.');
    plain.then_some(text)
}

fn check_version(text: &str) -> Result<ApiVersion, Error> {
    let version = match ApiVersion::parse(text) {
        Some(version) => version,
        None => match text.split('.').next().and_then(|major| major.parse().ok()) {
            Some(major) => ApiVersion { major, minor: 0 },
            None => return Err(Error::not_found("page not found")),
        },
    };
    if version < MIN_API_VERSION {
        return Err(Error::invalid(format!(
            "client version {text} is too old. Minimum supported API version is \
             {MIN_API_VERSION}, please upgrade your client to a newer version"
        )));
    }
    if version > API_VERSION {
        return Err(Error::invalid(format!(
            "client version {text} is too new. Maximum supported API version is {API_VERSION}"
        )));
    }
    Ok(version)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_in_paths() {
        assert_eq!(version_prefix("v1.41"), Some("1.41"));
        for none in ["v", "volumes", "version", "v1x", "1.41"] {
            assert_eq!(version_prefix(none), None, "{none}");
        }
        assert_eq!(check_version("1.24").unwrap(), MIN_API_VERSION);
        assert_eq!(
            check_version("1.9").unwrap_err().message(),
            "client version 1.9 is too old. Minimum supported API version is 1.24, please \
             upgrade your client to a newer version"
        );
        assert_eq!(
            check_version("1.99").unwrap_err().message(),
            format!(
                "client version 1.99 is too new. Maximum supported API version is {API_VERSION}"
            )
        );
        assert!(check_version("2").is_err());
        assert!(check_version(".").is_err());
    }
}
