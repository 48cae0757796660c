//! `docker cp` and `docker export`.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use futures_util::{StreamExt, TryStreamExt, stream};
use http_body_util::BodyStream;
use hyper::header::{HeaderName, HeaderValue};
use hyper::{HeaderMap, Response, StatusCode};
use silo_docker::containers::PathStat;
use silo_engine::containers::ArchiveStream;
use silo_types::Error;
use tokio_util::io::StreamReader;

use super::containers::broken;
use crate::body::Body;
use crate::request::Request;
use crate::respond::{self, Answer};

const STAT: HeaderName = HeaderName::from_static("x-docker-container-path-stat");

fn path(request: &Request) -> Result<String, Error> {
    match request.query.get("path") {
        "" => Err(Error::invalid("bad parameter: path cannot be empty")),
        path => Ok(path.to_owned()),
    }
}

fn set_stat(headers: &mut HeaderMap, stat: &PathStat) -> Result<(), Error> {
    let json = serde_json::to_vec(stat).map_err(broken)?;
    let value = HeaderValue::from_str(&STANDARD.encode(json)).map_err(broken)?;
    headers.insert(STAT, value);
    Ok(())
}

fn tar(archive: ArchiveStream) -> Body {
    Body::stream(stream::unfold(archive, |mut archive| async move {
        archive.next().await.map(|piece| (piece, archive))
    }))
}

pub(crate) async fn head(request: Request, id: &str) -> Answer {
    let stat = request.engine.container_archive_head(id, &path(&request)?).await?;
    let mut response = Response::new(Body::empty());
    set_stat(response.headers_mut(), &stat)?;
    Ok(response)
}

pub(crate) async fn get(request: Request, id: &str) -> Answer {
    let (stat, archive) = request.engine.container_archive_get(id, &path(&request)?).await?;
    let mut response = respond::content("application/x-tar", tar(archive));
    set_stat(response.headers_mut(), &stat)?;
    Ok(response)
}

pub(crate) async fn put(request: Request, id: &str) -> Answer {
    let path = path(&request)?;
    let keep_kind = request.query.flag("noOverwriteDirNonDir");
    let copy_owner = request.query.flag("copyUIDGID");
    let frames = BodyStream::new(request.body)
        .try_filter_map(|frame| async move { Ok(frame.into_data().ok()) })
        .map_err(std::io::Error::other);
    let input = StreamReader::new(frames.boxed());
    request.engine.container_archive_put(id, &path, keep_kind, copy_owner, input).await?;
    respond::status(StatusCode::OK)
}

pub(crate) async fn export(request: Request, id: &str) -> Answer {
    let archive = request.engine.container_export(id).await?;
    Ok(respond::content("application/octet-stream", tar(archive)))
}
