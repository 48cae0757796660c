//! What a client sends with a request, and what becomes of it if nobody reads it.
//!
//! Go's `net/http` reads a moderate rest of a request's body before it answers, and Docker's
//! clients count on it: they write a head and a body, and one whose connection is closed between
//! the two tells of a broken pipe in place of the answer. hyper closes.

use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http_body_util::BodyExt;
use hyper::body::{Body, Frame, Incoming, SizeHint};

/// A rest of this many bytes is read before an answer; a longer one ends the connection. It is
/// Go's `maxPostHandlerReadBytes`.
const MAX_REST: u64 = 256 * 1024;

/// A request's body. Dropped before its end, it is kept for [`Unread`].
pub(crate) struct RequestBody {
    incoming: Option<Incoming>,
    unread: Unread,
}

/// The body that a handler has left, if any.
#[derive(Clone, Default)]
pub(crate) struct Unread(Arc<Mutex<Option<Incoming>>>);

impl RequestBody {
    /// The body, and where it lies after the request if it was not read.
    pub(crate) fn new(incoming: Incoming) -> (Self, Unread) {
        let unread = Unread::default();
        (Self { incoming: Some(incoming), unread: unread.clone() }, unread)
    }
}

impl Unread {
    /// Throws the rest of the body away; whether all of it has come.
    pub(crate) async fn discard(&self) -> bool {
        let Some(mut rest) = self.take() else { return false };
        if rest.size_hint().lower() > MAX_REST {
            return false;
        }
        let mut size_bytes = 0;
        while let Some(frame) = rest.frame().await {
            let Ok(frame) = frame else { return false };
            size_bytes += frame.data_ref().map_or(0, |data| data.len() as u64);
            if size_bytes > MAX_REST {
                return false;
            }
        }
        true
    }

    fn take(&self) -> Option<Incoming> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

impl Drop for RequestBody {
    fn drop(&mut self) {
        if let Some(incoming) = self.incoming.take().filter(|incoming| !incoming.is_end_stream()) {
            *self.unread.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(incoming);
        }
    }
}

impl Body for RequestBody {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        let Some(incoming) = &mut self.incoming else { return Poll::Ready(None) };
        let frame = ready!(Pin::new(incoming).poll_frame(cx));
        if frame.is_none() {
            // A body in chunks does not know of its end later: it would pass for one that nobody
            // has read.
            self.incoming = None;
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.incoming.as_ref().is_none_or(Body::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        self.incoming.as_ref().map_or_else(SizeHint::default, Body::size_hint)
    }
}
