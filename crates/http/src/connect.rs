//! Connections: plain, by TLS, and through proxies.

use std::error::Error as StdError;
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use hyper::Uri;
use hyper::rt::{Read, ReadBufCursor, Write};
use hyper_rustls::{HttpsConnector, MaybeHttpsStream};
use hyper_util::client::legacy::connect::proxy::Tunnel;
use hyper_util::client::legacy::connect::{Connected, Connection, HttpConnector};
use hyper_util::rt::TokioIo;
use rustls::ClientConfig;
use tokio::net::TcpStream;
use tower_service::Service;

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
    pub(crate) fn new(tls: ClientConfig, proxies: Arc<Table>, timeout: Duration) -> Self {
        let mut tcp = HttpConnector::new_with_resolver(Resolver);
        tcp.enforce_http(false);
        tcp.set_nodelay(true);
        tcp.set_keepalive(Some(KEEPALIVE));
        tcp.set_happy_eyeballs_timeout(Some(HAPPY_EYEBALLS));
        tcp.set_connect_timeout(Some(timeout));
        let tls = Arc::new(tls);
        let names = || Arc::new(hyper_rustls::DefaultServerNameResolver::default());
        let to_proxy = HttpsConnector::new(tcp.clone(), Arc::clone(&tls), false, names());
        let route = Route { tcp, to_proxy, proxies };
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
}

impl Service<Uri> for Route {
    type Response = Stream;
    type Error = BoxError;
    type Future = Connecting<Stream>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        self.tcp.poll_ready(cx).map_err(Into::into)
    }

    fn call(&mut self, url: Uri) -> Self::Future {
        let Some(proxy) = self.proxies.find(&url) else {
            let connecting = self.tcp.call(url);
            return Box::pin(async move {
                Ok(Stream { inner: MaybeHttpsStream::Http(connecting.await?), forwarded: false })
            });
        };
        let address = proxy.uri().clone();
        if !matches!(address.scheme_str(), Some("http" | "https")) {
            let text = format!("proxyconnect tcp: unsupported proxy {address}");
            return Box::pin(async move { Err(io::Error::other(text).into()) });
        }
        if url.scheme_str() == Some("https") {
            let mut tunnel = Tunnel::new(address, self.to_proxy.clone());
            if let Some(credentials) = proxy.basic_auth() {
                tunnel = tunnel.with_auth(credentials.clone());
            }
            let connecting = tunnel.call(url);
            return Box::pin(
                async move { Ok(Stream { inner: connecting.await?, forwarded: false }) },
            );
        }
        let connecting = self.to_proxy.call(address);
        Box::pin(async move { Ok(Stream { inner: connecting.await?, forwarded: true }) })
    }
}

/// A connection on which a request, or TLS, can begin.
pub(crate) struct Stream {
    inner: MaybeHttpsStream<Plain>,
    /// It ends at a proxy that wants whole URLs.
    forwarded: bool,
}

impl Connection for Stream {
    fn connected(&self) -> Connected {
        self.inner.connected().proxy(self.forwarded)
    }
}

impl Read for Stream {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: ReadBufCursor<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().inner).poll_read(cx, buffer)
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
