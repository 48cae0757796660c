//! One client connection, between the socket and hyper.
//!
//! Two habits of Docker's clients do not fit an ordinary HTTP server:
//!
//! * **Hijack without `Upgrade`.** A client may `POST .../attach` or `POST /exec/.../start`
//!   without asking for an upgrade and still expects the connection to become a raw stream after
//!   `HTTP/1.1 200 OK`. hyper gives a connection away only after an upgrade, so the head of such
//!   a request gets an `Upgrade` header on its way in, and the `101` head that hyper answers is
//!   turned into a `200` on its way out. Only the first request of a connection is looked at:
//!   clients never reuse one for a hijack.
//! * **Half-close.** A client may close its sending side and still read the answer, whereas a
//!   long stream (events, stats, followed logs) must end when its client goes. So the end of
//!   input is kept from hyper while an answer is being made, and told to streams that ask
//!   ([`ConnState::gone`]).

use std::io;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, Waker, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpStream, UnixStream};
use tokio::sync::watch;

/// A request head longer than this is not looked at; hyper has its own limit.
const MAX_HEAD: usize = 16 * 1024;

/// A client's socket.
#[derive(Debug)]
pub(crate) enum Socket {
    /// From this host.
    Unix(UnixStream),
    /// From anywhere.
    Tcp(TcpStream),
}

impl Socket {
    /// How much the client has not read yet; `None` where nobody can tell.
    pub(crate) fn unread(&self) -> Option<usize> {
        match self {
            Self::Unix(socket) => silo_sys::socket::unread_by_peer(socket).ok(),
            Self::Tcp(_) => None,
        }
    }
}

impl AsyncRead for Socket {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Unix(socket) => Pin::new(socket).poll_read(cx, buffer),
            Self::Tcp(socket) => Pin::new(socket).poll_read(cx, buffer),
        }
    }
}

impl AsyncWrite for Socket {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Unix(socket) => Pin::new(socket).poll_write(cx, bytes),
            Self::Tcp(socket) => Pin::new(socket).poll_write(cx, bytes),
        }
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Unix(socket) => Pin::new(socket).poll_write_vectored(cx, slices),
            Self::Tcp(socket) => Pin::new(socket).poll_write_vectored(cx, slices),
        }
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        // Sockets have no buffer of ours.
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Unix(socket) => Pin::new(socket).poll_shutdown(cx),
            Self::Tcp(socket) => Pin::new(socket).poll_shutdown(cx),
        }
    }
}

/// What the adapter and the request handlers tell each other.
#[derive(Debug, Default)]
pub(crate) struct ConnState {
    /// The first request was a hijack without `Upgrade`.
    raw: AtomicBool,
    /// The end of input is to be kept from hyper.
    hold: AtomicBool,
    waker: Mutex<Option<Waker>>,
    gone: watch::Sender<bool>,
}

impl ConnState {
    /// Is the running request a hijack that did not ask for an upgrade?
    pub(crate) fn is_raw(&self) -> bool {
        self.raw.load(Ordering::Acquire)
    }

    /// From now on the end of input does not end the request.
    pub(crate) fn hold(&self) {
        self.hold.store(true, Ordering::Release);
    }

    /// The request is answered, or the connection is a raw stream now.
    pub(crate) fn release(&self) {
        self.hold.store(false, Ordering::Release);
        let waker = self.waker.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(waker) = waker {
            waker.wake();
        }
    }

    /// Waits until the client has closed its sending side.
    pub(crate) async fn gone(&self) {
        let mut gone = self.gone.subscribe();
        // The sender lives as long as `self`.
        drop(gone.wait_for(|gone| *gone).await);
    }
}

#[derive(Debug)]
enum Input {
    /// Collecting the first head.
    Sniff(Vec<u8>),
    /// Handing on what was collected, from this position.
    Drain(Vec<u8>, usize),
    Pass,
}

#[derive(Debug)]
enum Output {
    Pass,
    /// Collecting the first answer's head.
    Hold(Vec<u8>),
    /// Writing what was collected, from this position.
    Drain(Vec<u8>, usize),
}

/// The adapter. See the module.
#[derive(Debug)]
pub(crate) struct Conn<S> {
    socket: S,
    state: Arc<ConnState>,
    input: Input,
    output: Output,
}

impl<S> Conn<S> {
    pub(crate) fn new(socket: S, state: Arc<ConnState>) -> Self {
        Self { socket, state, input: Input::Sniff(Vec::new()), output: Output::Pass }
    }
}

impl<S> Conn<S> {
    /// Gives bytes back that were read too far; they come first again.
    pub(crate) fn unread(&mut self, bytes: &[u8]) {
        let mut all = bytes.to_vec();
        match &mut self.input {
            Input::Sniff(rest) => all.append(rest),
            Input::Drain(rest, position) => all.extend_from_slice(&rest[*position..]),
            Input::Pass => {}
        }
        self.input = Input::Drain(all, 0);
    }

    /// The socket itself.
    pub(crate) fn socket(&self) -> &S {
        &self.socket
    }
}

impl<S: AsyncRead + Unpin> Conn<S> {
    /// Collects the first head; afterwards `input` is no longer `Sniff`.
    fn poll_sniff(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while let Input::Sniff(head) = &mut self.input {
            let mut chunk = [0; 4096];
            let mut buffer = ReadBuf::new(&mut chunk);
            ready!(Pin::new(&mut self.socket).poll_read(cx, &mut buffer))?;
            let filled = buffer.filled();
            head.extend_from_slice(filled);
            let post = head.starts_with(&b"POST "[..head.len().min(5)]);
            let end = find_head_end(head);
            if filled.is_empty() || !post || end.is_some() || head.len() > MAX_HEAD {
                let mut head = std::mem::take(head);
                if let Some(rewritten) = end.and_then(|end| ask_for_upgrade(&head, end)) {
                    head = rewritten;
                    self.state.raw.store(true, Ordering::Release);
                    self.output = Output::Hold(Vec::new());
                }
                self.input = Input::Drain(head, 0);
            }
        }
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Conn<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = &mut *self;
        if matches!(this.input, Input::Sniff(_)) {
            ready!(this.poll_sniff(cx))?;
        }
        if let Input::Drain(bytes, position) = &mut this.input {
            if *position < bytes.len() {
                let count = buffer.remaining().min(bytes.len() - *position);
                buffer.put_slice(&bytes[*position..*position + count]);
                *position += count;
                return Poll::Ready(Ok(()));
            }
            this.input = Input::Pass;
        }
        let before = buffer.filled().len();
        ready!(Pin::new(&mut this.socket).poll_read(cx, buffer))?;
        if buffer.filled().len() > before || buffer.remaining() == 0 {
            return Poll::Ready(Ok(()));
        }
        this.state.gone.send_replace(true);
        // The waker goes in first, so that a release in between is not missed.
        *this.state.waker.lock().unwrap_or_else(PoisonError::into_inner) = Some(cx.waker().clone());
        if this.state.hold.load(Ordering::Acquire) { Poll::Pending } else { Poll::Ready(Ok(())) }
    }
}

impl<S: AsyncWrite + Unpin> Conn<S> {
    /// Writes what was held back; ready when nothing is left.
    fn poll_drain(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if let Output::Drain(bytes, position) = &mut self.output {
            while *position < bytes.len() {
                let count = ready!(Pin::new(&mut self.socket).poll_write(cx, &bytes[*position..]))?;
                if count == 0 {
                    return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
                }
                *position += count;
            }
            self.output = Output::Pass;
        }
        Poll::Ready(Ok(()))
    }

    /// Keeps bytes of the first answer until its head is whole.
    fn hold(&mut self, bytes: &[u8]) -> bool {
        let Output::Hold(head) = &mut self.output else { return false };
        head.extend_from_slice(bytes);
        if let Some(end) = find_head_end(head) {
            let head = std::mem::take(head);
            self.output = Output::Drain(plain_ok(&head, end).unwrap_or(head), 0);
        }
        true
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Conn<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        ready!(self.poll_drain(cx))?;
        if self.hold(bytes) {
            return Poll::Ready(Ok(bytes.len()));
        }
        Pin::new(&mut self.socket).poll_write(cx, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        ready!(self.poll_drain(cx))?;
        if matches!(self.output, Output::Hold(_)) {
            // Slices after the one that ends the head belong to the stream, in order.
            let mut count = 0;
            for slice in slices {
                if !self.hold(slice) {
                    break;
                }
                count += slice.len();
            }
            return Poll::Ready(Ok(count));
        }
        Pin::new(&mut self.socket).poll_write_vectored(cx, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.socket.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_drain(cx))?;
        Pin::new(&mut self.socket).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_drain(cx))?;
        Pin::new(&mut self.socket).poll_shutdown(cx)
    }
}

/// The length of the head with its empty line.
fn find_head_end(bytes: &[u8]) -> Option<usize> {
    bytes.windows(4).position(|window| window == b"\r\n\r\n").map(|start| start + 4)
}

/// Is it the path of a verb that hijacks?
fn is_hijack_path(path: &str) -> bool {
    let path = path.split('?').next().unwrap_or_default();
    let mut segments = path.split('/').skip(1).peekable();
    let version = |segment: &&str| {
        segment.strip_prefix('v').is_some_and(|v| v.starts_with(|c: char| c.is_ascii_digit()))
    };
    segments.next_if(version);
    let segments: Vec<&str> = segments.collect();
    matches!(segments[..], ["containers", _, "attach"] | ["exec", _, "start"])
}

/// Adds an `Upgrade` header to a hijacking request that has none. `end` is the head's length.
fn ask_for_upgrade(request: &[u8], end: usize) -> Option<Vec<u8>> {
    let head = std::str::from_utf8(&request[..end]).ok()?;
    let (line, headers) = head.split_once("\r\n")?;
    let path = line.strip_prefix("POST ")?.strip_suffix(" HTTP/1.1")?;
    let named = |line: &str, name: &str| {
        line.split_once(':').is_some_and(|(found, _)| found.trim().eq_ignore_ascii_case(name))
    };
    if !is_hijack_path(path) || headers.split("\r\n").any(|line| named(line, "upgrade")) {
        return None;
    }
    let mut rewritten = format!("{line}\r\nConnection: Upgrade\r\nUpgrade: tcp\r\n");
    for line in headers.split("\r\n").filter(|line| !line.is_empty() && !named(line, "connection"))
    {
        rewritten.push_str(line);
        rewritten.push_str("\r\n");
    }
    rewritten.push_str("\r\n");
    let mut rewritten = rewritten.into_bytes();
    rewritten.extend_from_slice(&request[end..]);
    Some(rewritten)
}

/// Turns a `101` head into the `200` that a client without `Upgrade` expects.
fn plain_ok(response: &[u8], end: usize) -> Option<Vec<u8>> {
    let head = std::str::from_utf8(&response[..end]).ok()?;
    let headers = head.strip_prefix("HTTP/1.1 101 ")?.split_once("\r\n")?.1;
    let mut rewritten = String::from("HTTP/1.1 200 OK\r\n");
    for line in headers.split("\r\n").filter(|line| !line.is_empty()) {
        let name = line.split(':').next().unwrap_or_default();
        if !name.eq_ignore_ascii_case("connection") && !name.eq_ignore_ascii_case("upgrade") {
            rewritten.push_str(line);
            rewritten.push_str("\r\n");
        }
    }
    rewritten.push_str("\r\n");
    let mut rewritten = rewritten.into_bytes();
    rewritten.extend_from_slice(&response[end..]);
    Some(rewritten)
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    fn pair() -> (tokio::io::DuplexStream, Conn<tokio::io::DuplexStream>, Arc<ConnState>) {
        let (client, server) = tokio::io::duplex(64 * 1024);
        let state = Arc::new(ConnState::default());
        (client, Conn::new(server, Arc::clone(&state)), state)
    }

    async fn read(conn: &mut Conn<tokio::io::DuplexStream>) -> String {
        let mut bytes = vec![0; 4096];
        let mut text = String::new();
        while !text.contains("\r\n\r\n") {
            let count = conn.read(&mut bytes).await.unwrap();
            assert!(count > 0);
            text.push_str(std::str::from_utf8(&bytes[..count]).unwrap());
        }
        text
    }

    #[tokio::test]
    async fn raw_hijack_is_rewritten_both_ways() {
        let (mut client, mut conn, state) = pair();
        let request = "POST /v1.41/containers/a/attach?stream=1 HTTP/1.1\r\nHost: x\r\n\
                       Connection: keep-alive\r\n\r\ninput";
        // Byte by byte, as a slow client would.
        let writer = async {
            for byte in request.bytes() {
                client.write_all(&[byte]).await.unwrap();
                tokio::task::yield_now().await;
            }
        };
        let ((), seen) = tokio::join!(writer, read(&mut conn));
        let expected = "POST /v1.41/containers/a/attach?stream=1 HTTP/1.1\r\n\
            Connection: Upgrade\r\nUpgrade: tcp\r\nHost: x\r\n\r\n";
        // Some of what follows the head may come with it.
        assert!(seen.starts_with(expected), "{seen}");
        assert!(state.is_raw());
        conn.write_all(b"HTTP/1.1 101 UPGRADED\r\nconnection: Upgrade\r\nupgrade: tcp\r\n")
            .await
            .unwrap();
        conn.write_all(b"content-type: a/b\r\n\r\nout").await.unwrap();
        conn.write_all(b"put").await.unwrap();
        conn.flush().await.unwrap();
        let expected = "HTTP/1.1 200 OK\r\ncontent-type: a/b\r\n\r\noutput";
        let mut bytes = vec![0; expected.len()];
        client.read_exact(&mut bytes).await.unwrap();
        assert_eq!(std::str::from_utf8(&bytes).unwrap(), expected);
    }

    #[tokio::test]
    async fn errors_of_raw_hijacks_stay() {
        let (mut client, mut conn, _) = pair();
        client.write_all(b"POST /exec/a/start HTTP/1.1\r\n\r\n").await.unwrap();
        read(&mut conn).await;
        conn.write_all(b"HTTP/1.1 404 Not Found\r\n\r\nx").await.unwrap();
        conn.flush().await.unwrap();
        let mut bytes = vec![0; 27];
        client.read_exact(&mut bytes).await.unwrap();
        assert_eq!(bytes, b"HTTP/1.1 404 Not Found\r\n\r\nx");
    }

    #[tokio::test]
    async fn other_requests_pass() {
        for request in [
            "GET /containers/a/attach HTTP/1.1\r\n\r\n",
            "POST /containers/a/attach HTTP/1.1\r\nUpgrade: tcp\r\n\r\n",
            "POST /containers/a/attach HTTP/1.0\r\n\r\n",
            "POST /containers/a/start HTTP/1.1\r\nX: /exec/a/start\r\n\r\n",
            "POST /containers/attach HTTP/1.1\r\n\r\n",
            "POST\r\n\r\n",
        ] {
            let (mut client, mut conn, state) = pair();
            client.write_all(request.as_bytes()).await.unwrap();
            assert_eq!(read(&mut conn).await, request);
            assert!(!state.is_raw(), "{request}");
        }
    }

    #[tokio::test]
    async fn end_of_input_waits_for_release() {
        let (mut client, mut conn, state) = pair();
        client.write_all(b"GET / HTTP/1.1\r\n\r\n").await.unwrap();
        read(&mut conn).await;
        state.hold();
        client.shutdown().await.unwrap();
        let mut byte = [0];
        let reading = conn.read(&mut byte);
        tokio::pin!(reading);
        tokio::select! {
            biased;
            _ = &mut reading => panic!("end of input was not held"),
            () = state.gone() => {}
        }
        state.release();
        assert_eq!(reading.await.unwrap(), 0);
    }
}
