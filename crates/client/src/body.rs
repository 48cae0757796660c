//! What a request carries: nothing, bytes, or a stream that is made while it is sent.

use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use hyper::body::{Frame, SizeHint};
use tokio::sync::mpsc;

/// A request's body.
#[derive(Debug)]
pub struct Body(Inner);

#[derive(Debug)]
enum Inner {
    Bytes(Option<Bytes>),
    Stream(mpsc::Receiver<std::io::Result<Bytes>>),
}

/// The writing end of a streamed body; the body ends when it is dropped.
#[derive(Debug, Clone)]
pub struct BodySender(mpsc::Sender<std::io::Result<Bytes>>);

impl Body {
    /// No body.
    pub fn empty() -> Self {
        Self(Inner::Bytes(None))
    }

    /// These bytes.
    pub fn bytes(bytes: impl Into<Bytes>) -> Self {
        Self(Inner::Bytes(Some(bytes.into())))
    }

    /// A stream, sent in chunks of the sizes in which it is written.
    pub fn stream() -> (BodySender, Self) {
        let (sender, receiver) = mpsc::channel(4);
        (BodySender(sender), Self(Inner::Stream(receiver)))
    }
}

impl BodySender {
    /// Sends one chunk. Returns false when the engine does not read on.
    pub async fn send(&self, bytes: impl Into<Bytes>) -> bool {
        self.0.send(Ok(bytes.into())).await.is_ok()
    }

    /// [`Self::send`] for a thread outside of the runtime.
    pub fn send_blocking(&self, bytes: impl Into<Bytes>) -> bool {
        self.0.blocking_send(Ok(bytes.into())).is_ok()
    }

    /// Breaks the request off: the engine sees an incomplete body.
    pub fn fail_blocking(&self, error: std::io::Error) {
        self.0.blocking_send(Err(error)).ok();
    }
}

impl hyper::body::Body for Body {
    type Data = Bytes;
    type Error = std::io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, std::io::Error>>> {
        match &mut self.0 {
            Inner::Bytes(bytes) => Poll::Ready(bytes.take().map(|bytes| Ok(Frame::data(bytes)))),
            Inner::Stream(receiver) => {
                receiver.poll_recv(cx).map(|next| next.map(|bytes| bytes.map(Frame::data)))
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        matches!(self.0, Inner::Bytes(None))
    }

    fn size_hint(&self) -> SizeHint {
        match &self.0 {
            Inner::Bytes(bytes) => {
                SizeHint::with_exact(bytes.as_ref().map_or(0, |bytes| bytes.len() as u64))
            }
            Inner::Stream(_) => SizeHint::default(),
        }
    }
}
