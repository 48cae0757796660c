//! The connections that BuildKit's protocol takes over.

use std::future::Future;

use hyper::header::{CONNECTION, HeaderValue, UPGRADE};
use hyper::{HeaderMap, Response, StatusCode};
use silo_buildkit::BuildKit;
use silo_types::Error;

use super::attach::take_connection;
use super::containers::broken;
use crate::body::Body;
use crate::conn::{Conn, Socket};
use crate::request::Request;
use crate::respond::Answer;

const PROTOCOL: &str = "h2c";

/// `POST /session`: the client answers, the builder calls.
pub(crate) fn session(request: Request) -> Answer {
    BuildKit::check_session(&request.headers)?;
    upgrade(request, |buildkit, headers, conn| async move {
        buildkit.session(&headers, conn).await;
    })
}

/// `POST /grpc`: the client calls, the builder answers.
pub(crate) fn grpc(request: Request) -> Answer {
    upgrade(request, |buildkit, _, conn| async move { buildkit.serve(conn).await })
}

/// Answers that the connection is HTTP/2 from here on, and hands it over.
fn upgrade<F: Future<Output = ()> + Send + 'static>(
    mut request: Request,
    run: impl FnOnce(BuildKit, HeaderMap, Conn<Socket>) -> F + Send + 'static,
) -> Answer {
    let wanted = request.headers.get(UPGRADE).map(|value| value.to_str().unwrap_or_default());
    match wanted {
        Some(wanted) if wanted.eq_ignore_ascii_case(PROTOCOL) => {}
        None | Some("") => return Err(Error::invalid("no upgrade proto in request")),
        Some(other) => return Err(Error::invalid(format!("protocol {other} not supported"))),
    }
    let upgrade = request.upgrade.take().ok_or_else(|| broken("connection is not available"))?;
    let (buildkit, headers) = (request.buildkit, request.headers);
    take_connection(upgrade, |conn| run(buildkit, headers, conn));
    let mut response = Response::new(Body::empty());
    *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    response.headers_mut().insert(CONNECTION, HeaderValue::from_static("Upgrade"));
    response.headers_mut().insert(UPGRADE, HeaderValue::from_static(PROTOCOL));
    Ok(response)
}
