//! Connections of clients, plain or with TLS, that must go on.

use std::io;
use std::path::Path;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use futures_util::task::AtomicWaker;
use rustls::ServerConfig;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::{Instant, Sleep};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use crate::{Error, Limits};

/// Reads certificates and key.
pub(crate) fn acceptor(certificate: &Path, key: &Path) -> Result<TlsAcceptor, Error> {
    let wrong = |reason: String| Error::Tls {
        certificate: certificate.to_owned(),
        key: key.to_owned(),
        reason,
    };
    let read = |path: &Path| fs_err::read(path).map_err(|error| wrong(error.to_string()));
    let certificates = CertificateDer::pem_slice_iter(&read(certificate)?)
        .collect::<Result<Vec<_>, _>>()
        .map_err(|error| wrong(error.to_string()))?;
    if certificates.is_empty() {
        return Err(wrong("there is no certificate in PEM".into()));
    }
    let key = PrivateKeyDer::from_pem_slice(&read(key)?)
        .map_err(|error| wrong(format!("the key: {error}")))?;
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| wrong(error.to_string()))?
        .with_no_client_auth()
        .with_single_cert(certificates, key)
        .map_err(|error| wrong(error.to_string()))?;
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(TlsAcceptor::from(Arc::new(config)))
}

/// A client's connection.
#[derive(Debug)]
pub(crate) enum Socket {
    Plain(TcpStream),
    Tls(Box<TlsStream<TcpStream>>),
}

impl AsyncRead for Socket {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(socket) => Pin::new(socket).poll_read(cx, buffer),
            Self::Tls(socket) => Pin::new(socket).poll_read(cx, buffer),
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
            Self::Plain(socket) => Pin::new(socket).poll_write(cx, bytes),
            Self::Tls(socket) => Pin::new(socket).poll_write(cx, bytes),
        }
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Plain(socket) => Pin::new(socket).poll_write_vectored(cx, slices),
            Self::Tls(socket) => Pin::new(socket).poll_write_vectored(cx, slices),
        }
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(socket) => Pin::new(socket).poll_flush(cx),
            Self::Tls(socket) => Pin::new(socket).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(socket) => Pin::new(socket).poll_shutdown(cx),
            Self::Tls(socket) => Pin::new(socket).poll_shutdown(cx),
        }
    }
}

/// The requests of a connection, as far as its socket has to know of them.
#[derive(Debug, Default)]
pub(crate) struct Requests {
    begun: AtomicU64,
    ended: AtomicU64,
    /// Who listens for the next one, and has to look at the clock when the last one ends.
    listener: AtomicWaker,
}

impl Requests {
    /// Another one has begun; it ends when what this gives is dropped.
    pub(crate) fn begin(self: &Arc<Self>) -> Underway {
        self.begun.fetch_add(1, Ordering::AcqRel);
        Underway(Arc::clone(self))
    }
}

/// A request that is being answered.
#[derive(Debug)]
pub(crate) struct Underway(Arc<Requests>);

impl Drop for Underway {
    fn drop(&mut self) {
        self.0.ended.fetch_add(1, Ordering::AcqRel);
        self.0.listener.wake();
    }
}

/// A connection that fails when its client takes too long: for the head of a request, for the next
/// request, or for what it has asked for. What it sends after a head is limited elsewhere.
#[derive(Debug)]
pub(crate) struct Patient<S> {
    inner: S,
    limits: Limits,
    requests: Arc<Requests>,
    /// The requests that had begun when the client was last listened to.
    begun: u64,
    /// Whether anything of the next request has come.
    heard: bool,
    /// Runs while there is no request.
    quiet: Option<Pin<Box<Sleep>>>,
    /// Runs while the client takes nothing.
    waiting: Option<(Instant, Pin<Box<Sleep>>)>,
    /// How long the client was waited for, and the bytes that it took.
    taking: (Duration, u64),
}

fn timed_out() -> io::Error {
    io::ErrorKind::TimedOut.into()
}

impl<S> Patient<S> {
    /// For a client from which the first request is expected.
    pub(crate) fn new(inner: S, limits: &Limits, requests: Arc<Requests>) -> Self {
        let first = Box::pin(tokio::time::sleep(limits.head));
        Self {
            inner,
            limits: limits.clone(),
            requests,
            begun: 0,
            heard: true,
            quiet: Some(first),
            waiting: None,
            taking: (Duration::ZERO, 0),
        }
    }

    /// Whether what is read now was waited for too long. `got` says whether something has come.
    fn is_late(&mut self, cx: &mut Context<'_>, got: bool, pending: bool) -> bool {
        self.requests.listener.register(cx.waker());
        let ended = self.requests.ended.load(Ordering::Acquire);
        let begun = self.requests.begun.load(Ordering::Acquire);
        if begun != self.begun || begun != ended {
            self.begun = begun;
            self.heard = false;
            self.quiet = None;
        }
        if begun != ended {
            return false;
        }
        if got && !self.heard {
            self.heard = true;
            self.quiet = Some(Box::pin(tokio::time::sleep(self.limits.head)));
        }
        let idle = self.limits.idle;
        let quiet = self.quiet.get_or_insert_with(|| Box::pin(tokio::time::sleep(idle)));
        pending && quiet.as_mut().poll(cx).is_ready()
    }

    /// Passes the result of a write on; one that is pending for too long becomes a failure, and so
    /// does one of many that take little.
    fn limit<T>(
        &mut self,
        cx: &mut Context<'_>,
        poll: Poll<io::Result<T>>,
        taken: impl FnOnce(&T) -> usize,
    ) -> Poll<io::Result<T>> {
        let silence = self.limits.silence;
        let Poll::Ready(result) = poll else {
            let start = || (Instant::now(), Box::pin(tokio::time::sleep(silence)));
            let (_, waiting) = self.waiting.get_or_insert_with(start);
            return match waiting.as_mut().poll(cx) {
                Poll::Ready(()) => Poll::Ready(Err(timed_out())),
                Poll::Pending => Poll::Pending,
            };
        };
        let (waited, bytes) = &mut self.taking;
        *bytes += result.as_ref().map_or(0, |result| taken(result) as u64);
        if let Some((since, _)) = self.waiting.take() {
            *waited += since.elapsed();
        }
        if *waited >= silence {
            let enough = u128::from(self.limits.rate) * waited.as_millis() / 1000;
            if u128::from(*bytes) < enough {
                return Poll::Ready(Err(timed_out()));
            }
            self.taking = (Duration::ZERO, 0);
        }
        Poll::Ready(result)
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Patient<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let poll = Pin::new(&mut self.inner).poll_read(cx, buffer);
        let got = buffer.filled().len() > before;
        if self.is_late(cx, got, poll.is_pending()) {
            return Poll::Ready(Err(timed_out()));
        }
        poll
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Patient<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let poll = Pin::new(&mut self.inner).poll_write(cx, bytes);
        self.limit(cx, poll, |count| *count)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let poll = Pin::new(&mut self.inner).poll_write_vectored(cx, slices);
        self.limit(cx, poll, |count| *count)
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let poll = Pin::new(&mut self.inner).poll_flush(cx);
        self.limit(cx, poll, |()| 0)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let poll = Pin::new(&mut self.inner).poll_shutdown(cx);
        self.limit(cx, poll, |()| 0)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream, duplex};
    use tokio::time::sleep;

    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    /// A client, and its connection of which few bytes are under way.
    fn connection() -> (DuplexStream, Patient<DuplexStream>, Arc<Requests>, Instant) {
        let limits = Limits {
            head: 30 * SECOND,
            idle: 90 * SECOND,
            silence: 60 * SECOND,
            rate: 512,
            ..Limits::default()
        };
        let (client, server) = duplex(4);
        let requests = Arc::<Requests>::default();
        (client, Patient::new(server, &limits, Arc::clone(&requests)), requests, Instant::now())
    }

    fn after<T: std::fmt::Debug>(result: io::Result<T>, since: Instant) -> Duration {
        assert_eq!(result.unwrap_err().kind(), io::ErrorKind::TimedOut);
        since.elapsed()
    }

    #[tokio::test(start_paused = true)]
    async fn a_client_that_takes_nothing() {
        let (client, mut server, ..) = connection();
        server.write_all(b"1234").await.unwrap();
        let since = Instant::now();
        let waited = after(server.write_all(b"5").await, since);
        assert!((60 * SECOND..61 * SECOND).contains(&waited), "{waited:?}");
        drop(client);
    }

    #[tokio::test(start_paused = true)]
    async fn a_client_that_takes_little() {
        for (pause, every) in [(20 * SECOND, false), (SECOND / 1000, true)] {
            let (mut client, mut server, _, since) = connection();
            let taking = tokio::spawn(async move {
                let mut bytes = [0; 2];
                while client.read_exact(&mut bytes).await.is_ok() {
                    sleep(pause).await;
                }
            });
            // 2 bytes in 20 seconds are too little, 2000 in one are not.
            let written = server.write_all(&vec![7; 300_000]).await;
            if every {
                written.unwrap();
                assert!(since.elapsed() > 120 * SECOND);
            } else {
                let waited = after(written, since);
                assert!((60 * SECOND..101 * SECOND).contains(&waited), "{waited:?}");
            }
            drop(server);
            taking.await.unwrap();
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_head_that_comes_slowly_and_a_connection_that_is_not_used() {
        let mut bytes = [0; 100];
        // Nothing, from the beginning.
        let (_client, mut server, _, since) = connection();
        let waited = after(server.read(&mut bytes).await, since);
        assert!((30 * SECOND..31 * SECOND).contains(&waited), "{waited:?}");
        // A byte from time to time.
        let (mut client, mut server, requests, since) = connection();
        let sending = tokio::spawn(async move {
            while client.write_all(b"x").await.is_ok() {
                sleep(7 * SECOND).await;
            }
        });
        let read = async |server: &mut Patient<DuplexStream>| {
            let mut bytes = [0; 100];
            loop {
                let count = server.read(&mut bytes).await?;
                if count == 0 {
                    return io::Result::Ok(());
                }
            }
        };
        let waited = after(read(&mut server).await, since);
        assert!((30 * SECOND..31 * SECOND).contains(&waited), "{waited:?}");
        // A request may go on for longer; from its end on, the next is waited for longer than for
        // its head.
        let request = requests.begin();
        let reading = tokio::time::timeout(1000 * SECOND, read(&mut server)).await;
        assert!(reading.is_err());
        sending.abort();
        assert!(sending.await.is_err());
        drop(request);
        let (_client, mut server, requests, _) = connection();
        let request = requests.begin();
        let reading = tokio::spawn(async move { server.read(&mut [0; 100]).await });
        sleep(1000 * SECOND).await;
        drop(request);
        let since = Instant::now();
        let waited = after(reading.await.unwrap(), since);
        assert!((90 * SECOND..91 * SECOND).contains(&waited), "{waited:?}");
    }

    #[test]
    fn certificates_that_cannot_be_used() {
        let dir = tempfile::tempdir().unwrap();
        let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
        let other = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
        let (cert, key, empty) =
            (dir.path().join("cert"), dir.path().join("key"), dir.path().join("empty"));
        let wrong = dir.path().join("wrong");
        fs_err::write(&cert, made.cert.pem()).unwrap();
        fs_err::write(&key, made.signing_key.serialize_pem()).unwrap();
        fs_err::write(&wrong, other.signing_key.serialize_pem()).unwrap();
        fs_err::write(&empty, "").unwrap();
        assert!(acceptor(&cert, &key).is_ok());
        for (cert, key) in
            [(&empty, &key), (&cert, &empty), (&key, &key), (&cert, &wrong), (&wrong, &wrong)]
        {
            assert!(matches!(acceptor(cert, key), Err(Error::Tls { .. })));
        }
        assert!(acceptor(&dir.path().join("none"), &key).is_err());
    }
}
