//! The client: single exchanges, and fetching with redirects.

use std::fmt;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Empty, Full, Limited};
use hyper::body::{Body as _, Incoming};
use hyper::header::{self, HeaderValue};
use hyper::{Method, Request, Response, StatusCode, Uri};
use hyper_util::client::legacy;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use ipnet::IpNet;
use tokio::sync::OnceCell;

use crate::connect::Connector;
use crate::download::Download;
use crate::error::is_unsent;
use crate::proxy::Table;
use crate::resolve::Resolver;
use crate::{Cause, Error, Identity, Proxies, tls};

/// How many redirects [`Client::get`] follows, as Go does.
pub const MAX_REDIRECTS: usize = 10;
/// How much of the body of an error is told, in bytes.
pub const MAX_ERROR_BODY: usize = 4096;
/// How long a URL may be, in bytes.
const MAX_URL: usize = 8192;
/// How often a request is given to another connection when it did not go out on one.
const UNSENT: usize = 3;
/// How long an unused connection is kept.
const IDLE: Duration = Duration::from_secs(30);

/// The body of a request.
pub type Body = UnsyncBoxBody<Bytes, io::Error>;

/// No body.
pub fn empty() -> Body {
    Empty::new().map_err(|never| match never {}).boxed_unsync()
}

/// A body of these bytes.
pub fn full(bytes: impl Into<Bytes>) -> Body {
    Full::new(bytes.into()).map_err(|never| match never {}).boxed_unsync()
}

/// What a client is to do and when it is to give up.
#[derive(Debug, Clone)]
pub struct Options {
    /// What requests say in `User-Agent`.
    pub user_agent: String,
    /// Proxies.
    pub proxies: Proxies,
    /// Certificate authorities besides those of the host, in DER.
    pub extra_roots: Vec<Vec<u8>>,
    /// Who the client is to servers that ask for a certificate.
    pub identity: Option<Identity>,
    /// Whether any certificate of a server is taken: for servers that are known to have none that
    /// can be checked.
    pub trust_anyone: bool,
    /// Whether link-local addresses are refused: for hosts that a stranger has named.
    pub guarded: bool,
    /// The only networks that are connected to, by whatever name, and without a proxy; empty for
    /// all.
    pub only: Vec<IpNet>,
    /// How long a connection may take to be made, TLS included.
    pub connect_timeout: Duration,
    /// How long the head of an answer may take.
    pub head_timeout: Duration,
    /// How long a body may be silent.
    pub stall_timeout: Duration,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            user_agent: concat!("silo/", env!("CARGO_PKG_VERSION")).to_owned(),
            proxies: Proxies::default(),
            extra_roots: Vec::new(),
            identity: None,
            trust_anyone: false,
            guarded: false,
            only: Vec::new(),
            connect_timeout: Duration::from_secs(30),
            head_timeout: Duration::from_mins(2),
            stall_timeout: Duration::from_mins(2),
        }
    }
}

/// See the [crate].
pub struct Client {
    options: Options,
    proxies: Arc<Table>,
    /// Made when it is first needed: reading the host's certificates takes milliseconds.
    pool: OnceCell<legacy::Client<Connector, Body>>,
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Client").field("options", &self.options).finish_non_exhaustive()
    }
}

/// Reads a URL; one without a scheme is `http`, as dockerd takes it.
pub fn parse_url(text: &str) -> Result<Uri, Error> {
    let whole = if text.contains("://") { text.to_owned() } else { format!("http://{text}") };
    // What is behind it is not for the server.
    let whole = whole.split('#').next().unwrap_or_default();
    let wrong = |reason: String| Error::Url { url: text.to_owned(), reason };
    if whole.len() > MAX_URL {
        return Err(wrong("URL is too long".into()));
    }
    // First of all, since a URL of another scheme need not have a host.
    let scheme = whole.split("://").next().unwrap_or_default();
    if !scheme.eq_ignore_ascii_case("http") && !scheme.eq_ignore_ascii_case("https") {
        return Err(Error::Scheme { url: whole.to_owned(), scheme: scheme.to_lowercase() });
    }
    let uri: Uri =
        whole.parse().map_err(|error: hyper::http::uri::InvalidUri| wrong(error.to_string()))?;
    if uri.host().is_none_or(str::is_empty) {
        return Err(wrong("no Host in request URL".into()));
    }
    Ok(uri)
}

impl Client {
    /// A client. Nothing is read or connected yet.
    pub fn new(options: Options) -> Self {
        let proxies = Arc::new(Table::new(&options.proxies));
        Self { options, proxies, pool: OnceCell::new() }
    }

    async fn pool(&self) -> Result<&legacy::Client<Connector, Body>, Error> {
        self.pool
            .get_or_try_init(|| async {
                let options = self.options.clone();
                let tls =
                    tokio::task::spawn_blocking(move || tls::config(&options)).await.map_err(
                        |_| Error::Certificate(Box::new(rustls::Error::General("a panic".into()))),
                    )??;
                let proxies = Arc::clone(&self.proxies);
                let connector = Connector::new(
                    tls,
                    proxies,
                    self.options.connect_timeout,
                    Resolver {
                        guarded: self.options.guarded,
                        only: self.options.only.clone().into(),
                    },
                );
                Ok(legacy::Client::builder(TokioExecutor::new())
                    .pool_idle_timeout(IDLE)
                    .pool_timer(TokioTimer::new())
                    .build(connector))
            })
            .await
    }

    /// Makes one exchange. Answers of every status are answers; redirects are not followed. The
    /// time that the head takes is the caller's to bound, since it depends on the body.
    pub async fn send(&self, mut request: Request<Body>) -> Result<Response<Incoming>, Error> {
        let url = request.uri().clone();
        let method = go_method(request.method());
        let headers = request.headers_mut();
        if !headers.contains_key(header::USER_AGENT)
            && let Ok(value) = HeaderValue::from_str(&self.options.user_agent)
        {
            headers.insert(header::USER_AGENT, value);
        }
        // A tunnel has told its proxy already.
        if url.scheme_str() == Some("http")
            && let Some(proxy) = self.proxies.find(&url)
            && let Some(credentials) = proxy.basic_auth()
        {
            headers.insert(header::PROXY_AUTHORIZATION, credentials.clone());
        }
        let pool = self.pool().await?;
        let again = head_of(&request);
        let mut result = pool.request(request).await;
        for _ in 0..UNSENT {
            // A connection that ends before the request is on it, as with an alert of TLS, does not
            // always say why; another one may.
            match &again {
                Some(again) if result.as_ref().is_err_and(|error| is_unsent(error)) => {
                    result = pool.request(copy(again)).await;
                }
                _ => break,
            }
        }
        result.map_err(|error| {
            let cause = Cause::of(&error, &url);
            Error::Exchange { method, url: url.to_string(), cause }
        })
    }

    /// Fetches a URL: follows redirects, and turns statuses from 400 up into errors.
    pub async fn get(&self, url: &Uri) -> Result<Download, Error> {
        let failed = |url: &Uri, cause| Error::Exchange {
            method: "Get".to_owned(),
            url: url.to_string(),
            cause,
        };
        let mut current = url.clone();
        for _ in 0..=MAX_REDIRECTS {
            let mut request = Request::new(empty());
            *request.uri_mut() = current.clone();
            let response = tokio::time::timeout(self.options.head_timeout, self.send(request))
                .await
                .map_err(|_| failed(&current, Cause::Timeout("response headers")))??;
            let status = response.status();
            match redirect(&response, &current) {
                Some(Ok(next)) => current = next,
                Some(Err(cause)) => return Err(failed(&current, cause)),
                None if status.is_client_error() || status.is_server_error() => {
                    return Err(self.refused(url, response).await);
                }
                None => {
                    return Ok(Download::new(current, response, self.options.stall_timeout));
                }
            }
        }
        Err(failed(&current, Cause::Redirects(MAX_REDIRECTS)))
    }

    async fn refused(&self, url: &Uri, response: Response<Incoming>) -> Error {
        let status = response.status();
        let body = Limited::new(response.into_body(), MAX_ERROR_BODY).collect();
        let body = match tokio::time::timeout(self.options.stall_timeout, body).await {
            Ok(Ok(body)) => String::from_utf8_lossy(&body.to_bytes()).trim().to_owned(),
            // docker wording
            _ => "error reading body".to_owned(),
        };
        Error::Status { url: url.to_string(), status, body }
    }
}

/// The head of a request that has no body.
fn head_of(request: &Request<Body>) -> Option<Request<()>> {
    request.body().is_end_stream().then(|| {
        let mut head = Request::new(());
        *head.method_mut() = request.method().clone();
        *head.uri_mut() = request.uri().clone();
        *head.headers_mut() = request.headers().clone();
        head
    })
}

fn copy(head: &Request<()>) -> Request<Body> {
    head.clone().map(|()| empty())
}

/// Where a redirect leads; `None` for any other answer.
pub fn redirect<B>(response: &Response<B>, from: &Uri) -> Option<Result<Uri, Cause>> {
    let status = response.status();
    let is_redirect = matches!(
        status,
        StatusCode::MOVED_PERMANENTLY
            | StatusCode::FOUND
            | StatusCode::SEE_OTHER
            | StatusCode::TEMPORARY_REDIRECT
            | StatusCode::PERMANENT_REDIRECT
    );
    if !is_redirect {
        return None;
    }
    let Some(location) = response.headers().get(header::LOCATION) else {
        let text = format!("{} response missing Location header", status.as_u16());
        return Some(Err(Cause::Location(text)));
    };
    let target = location.to_str().ok().and_then(|location| join(from, location));
    Some(target.ok_or_else(|| {
        let text = String::from_utf8_lossy(location.as_bytes());
        Cause::Location(format!("failed to parse Location header {text:?}"))
    }))
}

/// The URL that `reference` means in a document at `base` (RFC 3986, section 5.2); `None` if that
/// is none of `http` or `https`.
pub fn join(base: &Uri, reference: &str) -> Option<Uri> {
    let reference = reference.split('#').next().unwrap_or_default();
    let scheme = base.scheme_str()?;
    let absolute = reference
        .split_once(':')
        .is_some_and(|(scheme, _)| !scheme.is_empty() && !scheme.contains(['/', '?']));
    if absolute {
        // Without slashes `parse_url` would take it for a host and a port.
        return reference.contains("://").then(|| parse_url(reference).ok())?;
    }
    if reference.starts_with("//") {
        return parse_url(&format!("{scheme}:{reference}")).ok();
    }
    let root = format!("{scheme}://{}", base.authority()?);
    if reference.is_empty() {
        return Some(base.clone());
    }
    if reference.starts_with('?') {
        return parse_url(&format!("{root}{}{reference}", base.path())).ok();
    }
    let (path, query) = match reference.split_once('?') {
        Some((path, query)) => (path, Some(query)),
        None => (reference, None),
    };
    let folder = &base.path()[..base.path().rfind('/').map_or(0, |at| at + 1)];
    let whole = if path.starts_with('/') { path.to_owned() } else { format!("{folder}{path}") };
    let mut parts: Vec<&str> = Vec::new();
    let segments: Vec<&str> = whole.split('/').skip(1).collect();
    let last = segments.len().saturating_sub(1);
    for (index, segment) in segments.into_iter().enumerate() {
        match segment {
            "." | ".." => {
                if segment == ".." {
                    parts.pop();
                }
                if index == last {
                    parts.push("");
                }
            }
            part => parts.push(part),
        }
    }
    let query = query.map(|query| format!("?{query}")).unwrap_or_default();
    parse_url(&format!("{root}/{}{query}", parts.join("/"))).ok()
}

/// `Get` for `GET`.
fn go_method(method: &Method) -> String {
    let text = method.as_str();
    let (first, rest) = text.split_at(text.len().min(1));
    format!("{first}{}", rest.to_ascii_lowercase())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls() {
        for (text, expected) in [
            ("example.com/x.tar", Ok("http://example.com/x.tar")),
            ("example.com:8080", Ok("http://example.com:8080/")),
            ("https://example.com/a?b=c#d", Ok("https://example.com/a?b=c")),
            ("HTTP://example.com/", Ok("http://example.com/")),
            ("ftp://x/y", Err("Get \"ftp://x/y\": unsupported protocol scheme \"ftp\"")),
            (
                "file:///etc/passwd",
                Err("Get \"file:///etc/passwd\": unsupported protocol scheme \"file\""),
            ),
            ("http://", Err("")),
            ("http:///x", Err("")),
            ("http://a b/", Err("")),
            ("", Err("")),
        ] {
            let result = parse_url(text).map(|uri| uri.to_string());
            match (result, expected) {
                (Ok(uri), Ok(expected)) => assert_eq!(uri, expected),
                (Err(error), Err(expected)) => {
                    assert!(error.to_string().starts_with(expected), "{error}");
                }
                (result, _) => panic!("{text}: {result:?}"),
            }
        }
    }

    #[test]
    fn redirects_as_the_standard_joins_them() {
        let base: Uri = "http://a/b/c/d?q".parse().unwrap();
        for (reference, target) in [
            ("g", Some("http://a/b/c/g")),
            ("./g", Some("http://a/b/c/g")),
            ("g/", Some("http://a/b/c/g/")),
            ("/g", Some("http://a/g")),
            ("//g/h", Some("http://g/h")),
            ("?y", Some("http://a/b/c/d?y")),
            ("g?y/../x", Some("http://a/b/c/g?y/../x")),
            ("", Some("http://a/b/c/d?q")),
            ("..", Some("http://a/b/")),
            ("../g", Some("http://a/b/g")),
            ("../../../g", Some("http://a/g")),
            ("https://other/x#y", Some("https://other/x")),
            ("ftp://other/x", None),
            ("javascript:alert(1)", None),
            ("file:///etc/passwd", None),
        ] {
            let joined = join(&base, reference).map(|uri| uri.to_string());
            assert_eq!(joined.as_deref(), target, "{reference}");
        }
    }

    #[test]
    fn methods_as_go_writes_them() {
        assert_eq!(go_method(&Method::GET), "Get");
        assert_eq!(go_method(&Method::DELETE), "Delete");
    }
}
