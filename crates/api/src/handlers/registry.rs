//! What has to do with registries: pull, push, `/auth` and `/distribution`.

use std::collections::BTreeMap;
use std::future::Future;
use std::sync::Arc;

use serde_json::json;
use silo_docker::query::SearchQuery;
use silo_docker::stream::StreamMessage;
use silo_engine::Credentials;
use silo_oci::platform::{Platform, PlatformError};
use silo_oci::reference::Reference;
use silo_types::Error;
use tokio::sync::mpsc::UnboundedSender;

use super::images::progress_channel;
use crate::conn::ConnState;
use crate::request::Request;
use crate::respond::{self, Answer};

/// The credentials by registries that came with a request, as for builds. Those that cannot be
/// read are none, as dockerd has it.
pub(super) fn all_credentials(request: &Request) -> BTreeMap<String, Credentials> {
    let header = request.headers.get("x-registry-config").and_then(|value| value.to_str().ok());
    Credentials::all_from_header(header.unwrap_or_default()).unwrap_or_default()
}

/// The credentials that came with a request. Those that cannot be read are none, as dockerd has
/// it.
fn credentials(request: &Request) -> Credentials {
    let header = request.headers.get("x-registry-auth").and_then(|value| value.to_str().ok());
    Credentials::from_header(header.unwrap_or_default()).unwrap_or_else(|error| {
        tracing::debug!(%error, "credentials of a request");
        Credentials::default()
    })
}

/// Adds the `tag` of a request, which may be a digest.
fn reference(name: &str, tag: &str) -> Result<Reference, Error> {
    let reference = Reference::parse(name).map_err(Error::from_kind)?;
    if tag.is_empty() {
        return Ok(reference);
    }
    match tag.parse() {
        Ok(digest) => Ok(reference.with_digest(digest)),
        Err(_) => reference.with_tag(tag).map_err(Error::from_kind),
    }
}

/// Does the work in the background and tells of its failure, until it ends or the client is gone.
fn spawn(
    conn: Arc<ConnState>,
    sender: UnboundedSender<StreamMessage>,
    work: impl Future<Output = Result<(), Error>> + Send + 'static,
) {
    tokio::spawn(async move {
        let result = tokio::select! {
            result = work => result,
            () = sender.closed() => return,
            // A registry may be silent: nothing is written then that would show it.
            () = conn.gone() => return,
        };
        if let Err(error) = result {
            tracing::info!(error = error.chain(), "a transfer failed");
            drop(sender.send(StreamMessage::failure(error.message())));
        }
    });
}

pub(crate) async fn pull(request: Request, from: &str) -> Answer {
    // "pull -a" may send a trailing colon.
    let name = from.strip_suffix(':').unwrap_or(from);
    let reference = reference(name, request.query.get("tag"))?;
    let platform = match request.query.get("platform") {
        text if !text.is_empty() && request.at_least(32) => {
            let parsed: Result<Platform, PlatformError> = text.parse();
            Some(parsed.map_err(|error| Error::invalid(error.to_string()))?)
        }
        _ => None,
    };
    let credentials = credentials(&request);
    let base = request.query.get("base").parse()?;
    let pull = request.engine.image_pull(&reference, platform, base, &credentials).await?;
    let (sender, body) = progress_channel();
    let lines = sender.clone();
    spawn(request.conn, sender, pull.run(move |message| drop(lines.send(message))));
    Ok(respond::content("application/json", body))
}

pub(crate) fn push(request: Request, name: &str) -> Answer {
    let reference = reference(name, request.query.get("tag"))?;
    let platform = super::images::platform(&request, 46)?;
    let credentials = credentials(&request);
    let sources = all_credentials(&request);
    let (sender, body) = progress_channel();
    let lines = sender.clone();
    let engine = request.engine;
    spawn(request.conn, sender, async move {
        let sink = move |message| drop(lines.send(message));
        engine.image_push(&reference, platform.as_ref(), &credentials, sources, sink).await
    });
    Ok(respond::content("application/json", body))
}

pub(crate) async fn distribution(request: Request, name: &str) -> Answer {
    let credentials = credentials(&request);
    respond::json(&request.engine.distribution_inspect(name, &credentials).await?)
}

pub(crate) async fn search(request: Request) -> Answer {
    let limit = match request.query.number("limit")? {
        Some(limit) if limit < 0 => return Err(Error::invalid("invalid limit specified")),
        limit => limit.unwrap_or(0),
    };
    let query = SearchQuery {
        term: request.query.get("term").to_owned(),
        limit,
        filters: request.query.filters()?,
    };
    let credentials = credentials(&request);
    respond::json(&request.engine.image_search(&query, &credentials).await?)
}

pub(crate) async fn auth(mut request: Request) -> Answer {
    let credentials: Credentials = request.json().await?;
    let token = request.engine.registry_login(&credentials.normalized()).await?;
    respond::json(&json!({"Status": "Login Succeeded", "IdentityToken": token}))
}
