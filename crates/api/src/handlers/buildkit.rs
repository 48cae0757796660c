//! The connections that BuildKit's protocol takes over.

use std::collections::HashMap;
use std::future::Future;
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use futures_util::StreamExt as _;
use hyper::header::{CONNECTION, HeaderValue, UPGRADE};
use hyper::{HeaderMap, Response, StatusCode};
use serde_json::json;
use silo_build::{BuildRequest, ContextRef};
use silo_buildkit::{BuildKit, ClassicBuild, Piece};
use silo_docker::stream::StreamMessage;
use silo_types::Error;

use super::attach::take_connection;
use super::containers::broken;
use super::stream::BodyReader;
use crate::body::Body;
use crate::conn::{Conn, Socket};
use crate::request::Request;
use crate::respond::{self, Answer};

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

/// `POST /build?version=2`: clients that know of BuildKit and have no `buildx`. What happens comes
/// as BuildKit's messages inside JSON.
pub(crate) async fn build(request: Request, mut options: BuildRequest) -> Answer {
    const UPLOAD: &str = "upload-request";
    let id = request.query.get("buildid").to_owned();
    let buildkit = request.buildkit.clone();
    if let Some(id) = id.strip_prefix(&format!("{UPLOAD}:")) {
        buildkit.upload(id, BodyReader::new(request.body)).await?;
        return respond::status(StatusCode::OK);
    }
    let context = match request.query.get("remote") {
        "client-session" => None,
        UPLOAD => {
            let context = buildkit.uploaded(&id).await?;
            Some(ContextRef::Files(Arc::new(context)))
        }
        "" => return Err(Error::invalid("a build without a session has the classic builder")),
        url => Some(super::build::remote(url)?),
    };
    #[derive(serde::Deserialize)]
    #[serde(rename_all = "PascalCase")]
    struct Output {
        r#type: String,
        #[serde(default)]
        attrs: HashMap<String, String>,
    }
    let outputs: Option<Vec<Output>> = super::build::parameter(&request, "outputs")?;
    if options.network == "default" {
        options.network.clear();
    }
    options.id = id;
    let quiet = request.query.flag("q");
    let build = ClassicBuild {
        request: options,
        session: request.query.get("session").to_owned(),
        dockerfile: match request.query.get("dockerfile") {
            "" => "Dockerfile".to_owned(),
            path => path.to_owned(),
        },
        context,
        outputs: outputs
            .into_iter()
            .flatten()
            .map(|output| (output.r#type, output.attrs))
            .collect(),
    };
    let lines = buildkit.build(build).await?.map(move |piece| {
        let aux = |id: &str, aux: serde_json::Value| StreamMessage {
            id: id.to_owned(),
            aux: Some(aux),
            ..StreamMessage::default()
        };
        let messages = match piece {
            Piece::Trace(bytes) => vec![aux("moby.buildkit.trace", STANDARD.encode(bytes).into())],
            Piece::Image(Some(image)) => {
                let mut messages = vec![aux("moby.image.id", json!({"ID": image}))];
                if quiet {
                    messages.push(StreamMessage::stream(format!("{image}\n")));
                }
                messages
            }
            Piece::Image(None) => Vec::new(),
            Piece::Failed(error) => vec![StreamMessage::failure(error.message)],
        };
        let mut bytes = Vec::new();
        for message in &messages {
            bytes.extend_from_slice(&respond::line(message).map_err(std::io::Error::other)?);
        }
        Ok(bytes.into())
    });
    Ok(respond::content("application/json", Body::stream(lines)))
}
