//! Answers and their bodies.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use futures_util::Stream;
use hyper::body::{Frame, SizeHint};
use hyper::header::{
    CONTENT_LENGTH, CONTENT_TYPE, HeaderName, HeaderValue, LOCATION, RANGE, RETRY_AFTER,
};
use hyper::{Response, StatusCode};
use serde_json::json;

use crate::Error;
use crate::error::Refusal;
use crate::http::socket::Underway;

/// The digest of what is answered, or was stored.
pub(crate) const DIGEST: HeaderName = HeaderName::from_static("docker-content-digest");
/// An upload's id, which Docker's clients know beside its location.
pub(crate) const UPLOAD: HeaderName = HeaderName::from_static("docker-upload-uuid");

/// An answer, or why there is none.
pub(crate) type Answer = Result<Response<Body>, Error>;

/// The body of an answer.
pub(crate) enum Body {
    Full(Bytes),
    Stream(Pin<Box<dyn Stream<Item = io::Result<Bytes>> + Send>>),
}

impl Body {
    pub(crate) fn empty() -> Self {
        Self::Full(Bytes::new())
    }

    pub(crate) fn full(bytes: impl Into<Bytes>) -> Self {
        Self::Full(bytes.into())
    }

    pub(crate) fn stream(stream: impl Stream<Item = io::Result<Bytes>> + Send + 'static) -> Self {
        Self::Stream(Box::pin(stream))
    }
}

/// A body that says when it has gone out.
pub(crate) struct Sent {
    body: Body,
    _underway: Underway,
}

impl Body {
    /// A body whose request is under way until it is dropped.
    pub(crate) fn until_sent(self, underway: Underway) -> Sent {
        Sent { body: self, _underway: underway }
    }
}

impl hyper::body::Body for Sent {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        Pin::new(&mut self.body).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

impl hyper::body::Body for Body {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        let item = match &mut *self {
            Self::Full(bytes) if bytes.is_empty() => None,
            Self::Full(bytes) => Some(Ok(std::mem::take(bytes))),
            Self::Stream(stream) => ready!(stream.as_mut().poll_next(cx)),
        };
        Poll::Ready(item.map(|item| item.map(Frame::data)))
    }

    fn is_end_stream(&self) -> bool {
        matches!(self, Self::Full(bytes) if bytes.is_empty())
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Full(bytes) => SizeHint::with_exact(bytes.len() as u64),
            Self::Stream(_) => SizeHint::default(),
        }
    }
}

/// Sets a header to text that is known to be one line.
pub(crate) fn set(response: &mut Response<Body>, name: HeaderName, value: &str) {
    match HeaderValue::from_str(value) {
        Ok(value) => drop(response.headers_mut().insert(name, value)),
        Err(error) => tracing::error!(%error, %name, "a header is left out"),
    }
}

/// A status and nothing else.
pub(crate) fn status(status: StatusCode) -> Response<Body> {
    let mut response = Response::new(Body::empty());
    *response.status_mut() = status;
    response
}

/// A status with a location.
pub(crate) fn located(code: StatusCode, location: &str) -> Response<Body> {
    let mut response = status(code);
    set(&mut response, LOCATION, location);
    response
}

/// A document.
pub(crate) fn json(content_type: &str, bytes: Vec<u8>) -> Response<Body> {
    let mut response = Response::new(Body::full(bytes));
    set(&mut response, CONTENT_TYPE, content_type);
    response
}

/// What a client whose request is refused gets.
pub(crate) fn refused(refusal: &Refusal) -> Response<Body> {
    let error = json!({ "code": refusal.code, "message": refusal.message, "detail": null });
    let body = json!({ "errors": [error] }).to_string().into_bytes();
    let mut response = json("application/json", body);
    *response.status_mut() = refusal.status;
    if refusal.status == StatusCode::TOO_MANY_REQUESTS {
        set(&mut response, RETRY_AFTER, "10");
    }
    if let Some((id, size)) = &refusal.upload {
        set(&mut response, UPLOAD, id);
        set(&mut response, RANGE, &received(*size));
    }
    response
}

/// What of an upload is there, as a `Range`. That nothing is there cannot be said.
pub(crate) fn received(size: u64) -> String {
    format!("0-{}", size.saturating_sub(1))
}

/// For an answer to HEAD: nothing but the length of what GET would give.
pub(crate) fn without_body(mut response: Response<Body>, size: u64) -> Response<Body> {
    *response.body_mut() = Body::empty();
    set(&mut response, CONTENT_LENGTH, &size.to_string());
    response
}
