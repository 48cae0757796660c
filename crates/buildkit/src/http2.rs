//! HTTP/2 over one connection that was taken over: served to a client, or spoken to one.
//!
//! The other side is a stranger. What it can make this one keep is bounded: calls at a time,
//! bytes of headers, bytes that were not read yet. h2 itself bounds resets and empty frames.

use std::convert::Infallible;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};

use hyper::body::Incoming;
use hyper::client::conn::http2::SendRequest;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::io::{AsyncRead, AsyncWrite};
use tonic::body::Body;
use tower_service::Service;

/// Calls that a client may have open at a time.
const MAX_STREAMS: u32 = 256;
/// Bytes of a request's or answer's headers.
const MAX_HEADERS: u32 = 256 * 1024;
/// Bytes of one call that may be on their way.
const STREAM_WINDOW: u32 = 1024 * 1024;
/// Bytes of all calls that may be on their way.
const CONNECTION_WINDOW: u32 = 4 * 1024 * 1024;
/// Bytes of a piece of a call.
const MAX_FRAME: u32 = 256 * 1024;
/// Bytes that may wait for the other side to take them.
const SEND_BUFFER: usize = 512 * 1024;

/// Answers calls until the client goes.
pub(crate) async fn serve<S, H, F>(stream: S, handler: H) -> Result<(), hyper::Error>
where
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    H: Fn(Request<Incoming>) -> F + Send + 'static,
    F: Future<Output = Response<Body>> + Send + 'static,
{
    hyper::server::conn::http2::Builder::new(TokioExecutor::new())
        .max_concurrent_streams(MAX_STREAMS)
        .max_header_list_size(MAX_HEADERS)
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_frame_size(MAX_FRAME)
        .max_send_buf_size(SEND_BUFFER)
        .serve_connection(
            TokioIo::new(stream),
            service_fn(move |request| {
                let answer = handler(request);
                async move { Ok::<_, Infallible>(answer.await) }
            }),
        )
        .await
}

/// The calling end of a connection; clones share it.
#[derive(Debug, Clone)]
pub(crate) struct Channel {
    send: SendRequest<Body>,
}

impl Channel {
    /// Starts to speak, and returns what must be driven for as long as the connection lives.
    pub(crate) async fn connect<S>(
        stream: S,
    ) -> Result<(Self, impl Future<Output = Result<(), hyper::Error>>), hyper::Error>
    where
        S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    {
        let (send, connection) = hyper::client::conn::http2::Builder::new(TokioExecutor::new())
            .max_header_list_size(MAX_HEADERS)
            .initial_stream_window_size(STREAM_WINDOW)
            .initial_connection_window_size(CONNECTION_WINDOW)
            .max_frame_size(MAX_FRAME)
            .max_send_buf_size(SEND_BUFFER)
            .handshake(TokioIo::new(stream))
            .await?;
        Ok((Self { send }, connection))
    }
}

impl Service<Request<Body>> for Channel {
    type Response = Response<Incoming>;
    type Error = hyper::Error;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Self::Error>> + Send>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.send.poll_ready(cx)
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        Box::pin(self.send.send_request(request))
    }
}
