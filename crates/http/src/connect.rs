//! Connections: plain, by TLS, and through proxies.

use std::error::Error as StdError;
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use hyper::Uri;
use hyper::rt::{Read, ReadBuf, ReadBufCursor, Write};
use hyper_rustls::{HttpsConnector, MaybeHttpsStream};
use hyper_util::client::legacy::connect::proxy::Tunnel;
use hyper_util::client::legacy::connect::{Connected, Connection, HttpConnector};
use hyper_util::rt::TokioIo;
use rustls::ClientConfig;
use tokio::net::TcpStream;
use tower_service::Service;

use crate::error::Cause;
use crate::proxy::Table;
use crate::resolve::Resolver;

type BoxError = Box<dyn StdError + Send + Sync>;
type Connecting<T> = Pin<Box<dyn Future<Output = Result<T, BoxError>> + Send>>;
type Plain = TokioIo<TcpStream>;

/// How often the kernel asks whether an idle peer is still there.
const KEEPALIVE: Duration = Duration::from_secs(30);
/// How long a preferred address family has the field for itself.
const HAPPY_EYEBALLS: Duration = Duration::from_millis(300);

/// Makes connections, whole ones within a time.
#[derive(Clone)]
pub(crate) struct Connector {
    inner: HttpsConnector<Route>,
    timeout: Duration,
}

impl Connector {
    pub(crate) fn new(
        tls: ClientConfig,
        proxies: Arc<Table>,
        timeout: Duration,
        resolver: Resolver,
    ) -> Self {
        let mut tcp = HttpConnector::new_with_resolver(resolver.clone());
        tcp.enforce_http(false);
        tcp.set_nodelay(true);
        tcp.set_keepalive(Some(KEEPALIVE));
        tcp.set_happy_eyeballs_timeout(Some(HAPPY_EYEBALLS));
        tcp.set_connect_timeout(Some(timeout));
        let tls = Arc::new(tls);
        let names = || Arc::new(hyper_rustls::DefaultServerNameResolver::default());
        let mut proxy_tcp = HttpConnector::new_with_resolver(Resolver::default());
        proxy_tcp.enforce_http(false);
        proxy_tcp.set_nodelay(true);
        proxy_tcp.set_keepalive(Some(KEEPALIVE));
        proxy_tcp.set_connect_timeout(Some(timeout));
        let to_proxy = HttpsConnector::new(proxy_tcp, Arc::clone(&tls), false, names());
        let route = Route { tcp, to_proxy, proxies, resolver };
        Self { inner: HttpsConnector::new(route, tls, false, names()), timeout }
    }
}

impl Service<Uri> for Connector {
    type Response = MaybeHttpsStream<Stream>;
    type Error = BoxError;
    type Future = Connecting<Self::Response>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, url: Uri) -> Self::Future {
        let connecting = tokio::time::timeout(self.timeout, self.inner.call(url));
        Box::pin(async move { connecting.await? })
    }
}

/// The way to a host: straight, or through a proxy.
#[derive(Clone)]
struct Route {
    tcp: HttpConnector<Resolver>,
    to_proxy: HttpsConnector<HttpConnector<Resolver>>,
    proxies: Arc<Table>,
    resolver: Resolver,
}

impl Service<Uri> for Route {
    type Response = Stream;
    type Error = BoxError;
    type Future = Connecting<Stream>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        self.tcp.poll_ready(cx).map_err(Into::into)
    }

    fn call(&mut self, url: Uri) -> Self::Future {
        let for_tls = url.scheme_str() == Some("https");
        let proxy = self.proxies.find(&url);
        if let Some(refused) = self.resolver.refusal(&url, proxy.is_some()) {
            return Box::pin(async move { Err(refused.into()) });
        }
        let Some(proxy) = proxy else {
            let connecting = self.tcp.call(url);
            return Box::pin(async move {
                let inner = MaybeHttpsStream::Http(connecting.await?);
                Ok(Stream { inner, forwarded: false, unseen: for_tls })
            });
        };
        let address = proxy.uri().clone();
        if !matches!(address.scheme_str(), Some("http" | "https")) {
            let text = format!("proxyconnect tcp: unsupported proxy {address}");
            return Box::pin(async move { Err(io::Error::other(text).into()) });
        }
        if for_tls {
            let mut tunnel = Tunnel::new(address, self.to_proxy.clone());
            if let Some(credentials) = proxy.basic_auth() {
                tunnel = tunnel.with_auth(credentials.clone());
            }
            let place = proxy.uri().clone();
            let connecting = tunnel.call(url);
            return Box::pin(async move {
                let inner = connecting.await.map_err(|error| ProxyError::of(&error, &place))?;
                Ok(Stream { inner, forwarded: false, unseen: true })
            });
        }
        let connecting = self.to_proxy.call(address.clone());
        Box::pin(async move {
            let inner =
                connecting.await.map_err(|error| ProxyError::of(error.as_ref(), &address))?;
            Ok(Stream { inner, forwarded: true, unseen: false })
        })
    }
}

/// A proxy is not there, or does not do what it is asked for.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(crate) struct ProxyError(String);

impl ProxyError {
    fn of(error: &(dyn StdError + 'static), proxy: &Uri) -> Self {
        let text = error.to_string();
        if text.contains("proxy authorization required") {
            return Self("Proxy Authentication Required".to_owned()); // as Go has it
        }
        Self(match Cause::of(error, proxy) {
            cause @ (Cause::Connect { .. } | Cause::NoSuchHost(_)) => {
                format!("proxyconnect tcp: {cause}")
            }
            cause => match error_number(error) {
                Some(reason) => format!(
                    "proxyconnect tcp: dial tcp {}: connect: {reason}",
                    proxy.authority().map_or("", |authority| authority.as_str())
                ),
                None => format!("proxyconnect tcp: {cause}"),
            },
        })
    }
}

/// What the system said, in small letters.
fn error_number(error: &(dyn StdError + 'static)) -> Option<String> {
    let mut next = Some(error);
    while let Some(error) = next {
        let io = error.downcast_ref::<io::Error>();
        if let Some(io) = io.filter(|io| io.raw_os_error().is_some()) {
            let text = io.to_string();
            return Some(text.split(" (os error").next().unwrap_or_default().to_lowercase());
        }
        next = match io.and_then(io::Error::get_ref) {
            Some(hidden) => Some(hidden as &(dyn StdError + 'static)),
            None => error.source(),
        };
    }
    None
}

/// A connection on which a request, or TLS, can begin.
pub(crate) struct Stream {
    inner: MaybeHttpsStream<Plain>,
    /// It ends at a proxy that wants whole URLs.
    forwarded: bool,
    /// TLS is to begin, and nothing has come yet.
    unseen: bool,
}

/// Where TLS should begin, the server speaks HTTP.
#[derive(Debug, thiserror::Error)]
#[error("http: server gave HTTP response to HTTPS client")] // docker wording
pub(crate) struct PlainAnswer;

impl Connection for Stream {
    fn connected(&self) -> Connected {
        self.inner.connected().proxy(self.forwarded)
    }
}

impl Read for Stream {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        mut buffer: ReadBufCursor<'_>,
    ) -> Poll<io::Result<()>> {
        let stream = self.get_mut();
        if !stream.unseen || buffer.remaining() == 0 {
            return Pin::new(&mut stream.inner).poll_read(cx, buffer);
        }
        let mut bytes = [0; 1024];
        let room = buffer.remaining().min(bytes.len());
        let mut first = ReadBuf::new(&mut bytes[..room]);
        std::task::ready!(Pin::new(&mut stream.inner).poll_read(cx, first.unfilled()))?;
        stream.unseen = false;
        if first.filled().starts_with(b"HTTP/") {
            return Poll::Ready(Err(io::Error::other(PlainAnswer)));
        }
        buffer.put_slice(first.filled());
        Poll::Ready(Ok(()))
    }
}

impl Write for Stream {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().inner).poll_write(cx, bytes)
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().inner).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().inner).poll_shutdown(cx)
    }
}
