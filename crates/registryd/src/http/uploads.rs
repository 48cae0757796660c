//! Uploads of blobs: begun, continued, finished, mounted from elsewhere.

use std::net::SocketAddr;
use std::sync::Arc;

use hyper::body::{Body as _, Incoming};
use hyper::header::{CONTENT_LENGTH, CONTENT_RANGE, RANGE};
use hyper::{HeaderMap, Response, StatusCode};

use crate::Error;
use crate::access::{Caller, Right};
use crate::engine::Content;
use crate::error::Refusal;
use crate::http::answer::{self, Answer, Body, set};
use crate::http::query::Query;
use crate::http::range;
use crate::http::server::{Server, blocking};
use crate::name::{Algorithm, Digest, Name};
use crate::uploads::{Range, Upload};

/// How long a body is, if the request says so.
pub(crate) fn length(headers: &HeaderMap) -> Result<Option<u64>, Refusal> {
    let Some(value) = headers.get(CONTENT_LENGTH) else { return Ok(None) };
    let length = value.to_str().ok().and_then(|value| value.parse().ok());
    length.map(Some).ok_or_else(|| Refusal::upload("Content-Length is not a number"))
}

fn content_range(headers: &HeaderMap) -> Result<Option<Range>, Refusal> {
    let Some(value) = headers.get(CONTENT_RANGE) else { return Ok(None) };
    range::chunk(value.to_str().unwrap_or_default()).map(Some)
}

/// Whether a request came through a proxy on its way: who is behind one may be anywhere.
fn is_forwarded(headers: &HeaderMap) -> bool {
    ["forwarded", "via", "x-forwarded-for", "x-real-ip"]
        .iter()
        .any(|name| headers.contains_key(*name))
}

/// Where an upload goes on.
fn under_way(code: StatusCode, upload: &Upload) -> Response<Body> {
    let location = format!("/v2/{}/blobs/uploads/{}", upload.repository, upload.id);
    let mut response = answer::located(code, &location);
    set(&mut response, answer::UPLOAD, &upload.id);
    set(&mut response, RANGE, &answer::received(upload.size()));
    response
}

/// A blob is there.
fn created(name: &Name, digest: &Digest) -> Response<Body> {
    let location = format!("/v2/{name}/blobs/{digest}");
    let mut response = answer::located(StatusCode::CREATED, &location);
    set(&mut response, answer::DIGEST, &digest.to_string());
    response
}

/// POST: an upload is begun, done at once, or not needed.
pub(crate) async fn post(
    server: &Arc<Server>,
    name: Name,
    query: &Query,
    headers: &HeaderMap,
    (peer, caller): (SocketAddr, &Caller),
    body: Incoming,
) -> Answer {
    // A digest that nobody could mount is no reason to refuse an upload.
    let from = query.get("from").filter(|from| !from.is_empty());
    let wanted = query.get("mount").and_then(|digest| digest.parse::<Digest>().ok());
    let source = from.filter(|_| wanted.is_some()).map(str::parse::<Name>).transpose()?;
    // Who knows a digest gets nothing by it that is in repositories of others: it is sent.
    let may = source.as_ref().map_or(caller.is_free(), |from| caller.may(Right::Pull, from));
    if let Some(digest) = wanted.filter(|_| may) {
        // The engine's own content is for who is on its host.
        let local =
            peer.ip().to_canonical().is_loopback() && !is_forwarded(headers) && source.is_none();
        let (of, wanted) = (name.clone(), digest.clone());
        let at = Arc::clone(server);
        let mounted = blocking(server, move |registry| {
            if let Some(from) = &source
                && let Some(engine) = at.engine(from)
            {
                let found = engine.blob(from, &wanted);
                return Ok(matches!(found, Ok(Content::File(..))) && registry.adopt(&of, &wanted)?);
            }
            Ok(registry.mount(&of, &wanted, source.as_ref())?
                || (local && registry.adopt(&of, &wanted)?))
        });
        if mounted.await? {
            return Ok(created(&name, &digest));
        }
    }
    let digest = query.get("digest").map(str::parse::<Digest>).transpose()?;
    let algorithm = match (query.get("digest-algorithm"), &digest) {
        (Some(algorithm), _) => algorithm.parse()?,
        (None, Some(digest)) => digest.algorithm,
        (None, None) => Algorithm::Sha256,
    };
    let length = length(headers)?;
    let uploads = Arc::clone(&server.uploads);
    let of = name.clone();
    let upload = blocking(server, move |_| uploads.begin(&of, algorithm)).await?;
    let empty = body.is_end_stream();
    let Some(digest) = digest else {
        if !empty {
            discard(server, &upload).await?;
            let text = "a body needs the parameter digest; otherwise the upload goes on with PATCH";
            return Err(Refusal::upload(text).into());
        }
        return Ok(under_way(StatusCode::ACCEPTED, &upload));
    };
    // Clients that ask for less than they could, say.
    if empty && digest != Digest::of(digest.algorithm, b"") {
        return Ok(under_way(StatusCode::ACCEPTED, &upload));
    }
    let _transfer = server.transfer().await?;
    let result = match server.uploads.append(&upload, None, length, body).await {
        Ok(()) => finish(server, &upload, &digest).await,
        Err(error) => Err(error),
    };
    // Nobody was told of the upload.
    discard(server, &upload).await?;
    result
}

async fn discard(server: &Arc<Server>, upload: &Arc<Upload>) -> Result<(), Error> {
    let (uploads, upload) = (Arc::clone(&server.uploads), Arc::clone(upload));
    blocking(server, move |_| {
        uploads.remove(&upload);
        Ok(())
    })
    .await
}

async fn find(server: &Arc<Server>, name: Name, id: String) -> Result<Arc<Upload>, Error> {
    let uploads = Arc::clone(&server.uploads);
    blocking(server, move |_| uploads.find(&name, &id)).await
}

/// PATCH: a chunk, or all of it.
pub(crate) async fn patch(
    server: &Arc<Server>,
    name: Name,
    id: String,
    headers: &HeaderMap,
    body: Incoming,
) -> Answer {
    let (range, length) = (content_range(headers)?, length(headers)?);
    let upload = find(server, name, id).await?;
    let _transfer = server.transfer().await?;
    server.uploads.append(&upload, range, length, body).await?;
    Ok(under_way(StatusCode::ACCEPTED, &upload))
}

/// PUT: the end, perhaps with the last chunk.
pub(crate) async fn put(
    server: &Arc<Server>,
    name: Name,
    id: String,
    query: &Query,
    headers: &HeaderMap,
    body: Incoming,
) -> Answer {
    let digest = query.get("digest").ok_or_else(|| Refusal::digest("the digest is missing"))?;
    let digest: Digest = digest.parse()?;
    let (range, length) = (content_range(headers)?, length(headers)?);
    let upload = find(server, name, id).await?;
    let _transfer = server.transfer().await?;
    if !body.is_end_stream() {
        server.uploads.append(&upload, range, length, body).await?;
    }
    let result = finish(server, &upload, &digest).await;
    if let Err(Error::Refused(_)) = &result {
        // Content that is not what it should be does not become it.
        discard(server, &upload).await?;
    }
    result
}

/// Makes a blob of an upload. It goes on also when nobody waits for it any more.
async fn finish(server: &Arc<Server>, upload: &Arc<Upload>, digest: &Digest) -> Answer {
    let (server, upload, digest) = (Arc::clone(server), Arc::clone(upload), digest.clone());
    let work = async move {
        let finished = server.uploads.finish(&upload, &digest).await?;
        let uploads = Arc::clone(&server.uploads);
        blocking(&server, move |registry| {
            registry.commit_blob(&upload.repository, &digest, &finished.path)?;
            uploads.remove(&upload);
            Ok(created(&upload.repository, &digest))
        })
        .await
    };
    tokio::spawn(work).await.map_err(Error::Task)?
}

/// GET: how far it is.
pub(crate) async fn status(server: &Arc<Server>, name: Name, id: String) -> Answer {
    let upload = find(server, name, id).await?;
    Ok(under_way(StatusCode::NO_CONTENT, &upload))
}

/// DELETE: it is given up.
pub(crate) async fn cancel(server: &Arc<Server>, name: Name, id: String) -> Answer {
    let upload = find(server, name, id).await?;
    discard(server, &upload).await?;
    Ok(answer::status(StatusCode::NO_CONTENT))
}
