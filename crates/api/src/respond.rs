//! Answers: JSON, errors, streams and the headers that all of them carry.

use bytes::Bytes;
use hyper::header::{CONTENT_TYPE, HeaderValue};
use hyper::{Response, StatusCode};
use serde::Serialize;
use silo_docker::ErrorResponse;
use silo_types::{Error, ErrorKind};

use crate::body::Body;

pub(crate) type Answer = Result<Response<Body>, Error>;

const JSON: HeaderValue = HeaderValue::from_static("application/json");

/// A value as one line of JSON.
pub(crate) fn line(value: &impl Serialize) -> Result<Bytes, Error> {
    let mut bytes = serde_json::to_vec(value)
        .map_err(|source| Error::with_source(ErrorKind::Internal, "write JSON", source))?;
    bytes.push(b'\n');
    Ok(bytes.into())
}

/// An answer with a JSON body.
pub(crate) fn json_with(status: StatusCode, value: &impl Serialize) -> Answer {
    let mut response = Response::new(Body::full(line(value)?));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, JSON);
    Ok(response)
}

/// `200` with a JSON body.
pub(crate) fn json(value: &impl Serialize) -> Answer {
    json_with(StatusCode::OK, value)
}

/// `201` with a JSON body.
pub(crate) fn created(value: &impl Serialize) -> Answer {
    json_with(StatusCode::CREATED, value)
}

/// An answer without a body.
#[expect(clippy::unnecessary_wraps, reason = "the form of all handlers")]
pub(crate) fn status(status: StatusCode) -> Answer {
    let mut response = Response::new(Body::empty());
    *response.status_mut() = status;
    Ok(response)
}

/// `204`.
pub(crate) fn no_content() -> Answer {
    status(StatusCode::NO_CONTENT)
}

/// `200` with a body of a type.
pub(crate) fn content(kind: &'static str, body: Body) -> Response<Body> {
    let mut response = Response::new(body);
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    response
}

/// The answer to a failed request.
pub(crate) fn failure(error: &Error) -> Response<Body> {
    let code = StatusCode::from_u16(error.kind().http_status())
        .unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    if code == StatusCode::NOT_MODIFIED {
        let mut response = Response::new(Body::empty());
        *response.status_mut() = code;
        return response;
    }
    let body = ErrorResponse { message: error.message().to_owned() };
    match json_with(code, &body) {
        Ok(response) => response,
        Err(_) => {
            let mut response = Response::new(Body::empty());
            *response.status_mut() = StatusCode::INTERNAL_SERVER_ERROR;
            response
        }
    }
}
