//! Bodies of answers.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use futures_util::Stream;
use hyper::body::{Frame, SizeHint};
use tokio::sync::mpsc;

use crate::conn::ConnState;

type BoxStream = Pin<Box<dyn Stream<Item = io::Result<Bytes>> + Send>>;

/// An answer's body; when it is dropped the request is over.
pub(crate) struct Body {
    kind: Kind,
    state: Option<Arc<ConnState>>,
}

enum Kind {
    Full(Bytes),
    Channel(mpsc::Receiver<io::Result<Bytes>>),
    Stream(BoxStream),
}

impl Body {
    pub(crate) fn empty() -> Self {
        Self::full(Bytes::new())
    }

    pub(crate) fn full(bytes: impl Into<Bytes>) -> Self {
        Self { kind: Kind::Full(bytes.into()), state: None }
    }

    pub(crate) fn channel(receiver: mpsc::Receiver<io::Result<Bytes>>) -> Self {
        Self { kind: Kind::Channel(receiver), state: None }
    }

    pub(crate) fn stream(stream: impl Stream<Item = io::Result<Bytes>> + Send + 'static) -> Self {
        Self { kind: Kind::Stream(Box::pin(stream)), state: None }
    }

    /// Releases the connection's end of input when this body is done.
    pub(crate) fn releasing(mut self, state: Arc<ConnState>) -> Self {
        self.state = Some(state);
        self
    }
}

impl Drop for Body {
    fn drop(&mut self) {
        if let Some(state) = &self.state {
            state.release();
        }
    }
}

impl hyper::body::Body for Body {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        let item = match &mut self.kind {
            Kind::Full(bytes) if bytes.is_empty() => None,
            Kind::Full(bytes) => Some(Ok(std::mem::take(bytes))),
            Kind::Channel(receiver) => ready!(receiver.poll_recv(cx)),
            Kind::Stream(stream) => ready!(stream.as_mut().poll_next(cx)),
        };
        Poll::Ready(item.map(|item| item.map(Frame::data)))
    }

    fn is_end_stream(&self) -> bool {
        matches!(&self.kind, Kind::Full(bytes) if bytes.is_empty())
    }

    fn size_hint(&self) -> SizeHint {
        match &self.kind {
            Kind::Full(bytes) => SizeHint::with_exact(bytes.len() as u64),
            _ => SizeHint::default(),
        }
    }
}
