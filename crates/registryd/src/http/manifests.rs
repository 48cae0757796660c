//! Manifests: given out, pushed, deleted.

use std::sync::Arc;

use hyper::body::Incoming;
use hyper::header::{CONTENT_TYPE, ETAG, HeaderName, HeaderValue, IF_NONE_MATCH};
use hyper::{HeaderMap, Method, StatusCode};

use crate::Error;
use crate::error::Refusal;
use crate::http::answer::{self, Answer, set};
use crate::http::proxy;
use crate::http::query::Query;
use crate::http::server::{Server, blocking};
use crate::name::{Name, Reference, tag};
use crate::store::Push;
use crate::uploads::Paced;

/// What a pushed manifest is about, so that the client need not keep a list of referrers itself.
const SUBJECT: HeaderName = HeaderName::from_static("oci-subject");
/// Tags that a manifest got that was pushed by its digest.
const TAG: HeaderName = HeaderName::from_static("oci-tag");
/// Tags of one push.
const MAX_TAGS: usize = 64;

/// GET and HEAD.
pub(crate) async fn get(
    server: &Arc<Server>,
    method: &Method,
    name: Name,
    reference: Reference,
    headers: &HeaderMap,
) -> Answer {
    let engines = server.engine(&name).is_some();
    if let Some(upstream) = &server.upstream
        && !engines
    {
        proxy::refresh(server, upstream, &name, &reference).await?;
    }
    let whole = method != Method::HEAD;
    let at = Arc::clone(server);
    let (stored, bytes) = blocking(server, move |registry| {
        if let Some(engine) = at.engine(&name) {
            return engine.manifest(&name, &reference, whole);
        }
        let stored = registry.manifest(&name, &reference)?;
        let bytes = if whole { registry.read_manifest(&stored)? } else { Vec::new() };
        Ok((stored, bytes))
    })
    .await?;
    let etag = format!("\"{}\"", stored.digest);
    let known = headers.get(IF_NONE_MATCH).and_then(|value| value.to_str().ok());
    let mut response =
        if known.is_some_and(|known| known.split(',').any(|part| part.trim() == etag)) {
            answer::status(StatusCode::NOT_MODIFIED)
        } else if whole {
            answer::json(&stored.media_type, bytes)
        } else {
            answer::without_body(answer::json(&stored.media_type, Vec::new()), stored.size)
        };
    set(&mut response, ETAG, &etag);
    set(&mut response, answer::DIGEST, &stored.digest.to_string());
    Ok(response)
}

/// PUT.
pub(crate) async fn put(
    server: &Arc<Server>,
    name: Name,
    reference: Reference,
    query: &Query,
    headers: &HeaderMap,
    body: Incoming,
) -> Answer {
    let tags = query.all("tag").map(tag).collect::<Result<Vec<_>, _>>()?;
    if tags.len() > MAX_TAGS {
        let status = StatusCode::URI_TOO_LONG;
        let text = format!("a push has at most {MAX_TAGS} tags");
        return Err(Refusal::new(status, "MANIFEST_INVALID", text).into());
    }
    let bytes = collect(server, headers, body).await?;
    let content_type =
        headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).map(str::to_owned);
    let sparse = server.config.sparse;
    let pushed = {
        let (name, reference, tags) = (name.clone(), reference.clone(), tags.clone());
        blocking(server, move |registry| {
            registry.push(&Push {
                repository: &name,
                reference: &reference,
                tags: &tags,
                content_type: content_type.as_deref(),
                bytes: &bytes,
                sparse,
            })
        })
        .await?
    };
    tracing::info!(%name, %reference, digest = %pushed.digest, "pushed");
    let location = format!("/v2/{name}/manifests/{}", pushed.digest);
    let mut response = answer::located(StatusCode::CREATED, &location);
    set(&mut response, answer::DIGEST, &pushed.digest.to_string());
    if let Some(subject) = &pushed.subject {
        set(&mut response, SUBJECT, &subject.to_string());
    }
    for tag in &tags {
        if let Ok(value) = HeaderValue::from_str(tag) {
            response.headers_mut().append(TAG, value);
        }
    }
    Ok(response)
}

/// Reads a manifest's bytes.
async fn collect(
    server: &Arc<Server>,
    headers: &HeaderMap,
    body: Incoming,
) -> Result<Vec<u8>, Error> {
    let limit = server.config.limits.manifest;
    let refused = || Refusal::too_large(format!("a manifest may have {limit} bytes here"));
    let length = super::uploads::length(headers)?;
    if length.is_some_and(|length| length > limit as u64) {
        return Err(refused().into());
    }
    let _transfer = server.transfer().await?;
    let mut reader = Paced::new(body, &server.config.limits);
    let mut bytes = Vec::new();
    while let Some(part) = reader.frame().await? {
        if bytes.len() + part.len() > limit {
            return Err(refused().into());
        }
        bytes.extend_from_slice(&part);
    }
    Ok(bytes)
}

/// DELETE.
pub(crate) async fn delete(server: &Arc<Server>, name: Name, reference: Reference) -> Answer {
    tracing::info!(%name, %reference, "deleted");
    blocking(server, move |registry| registry.delete_manifest(&name, &reference)).await?;
    Ok(answer::status(StatusCode::ACCEPTED))
}
