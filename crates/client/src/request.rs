//! Requests, answers, and connections that become raw streams.

use std::sync::{Arc, Mutex, PoisonError};

use bytes::{Bytes, BytesMut};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use hyper::client::conn::http1::{self, SendRequest};
use hyper::header::{CONNECTION, CONTENT_TYPE, HOST, HeaderMap, UPGRADE};
use hyper::{Method, StatusCode};
use hyper_util::rt::TokioIo;
use serde::de::DeserializeOwned;

use crate::{Body, ClientError, Endpoint, FALLBACK_API_VERSION, Stream};

/// Errors longer than this are cut: no engine writes so much.
const MAX_ERROR: usize = 64 * 1024;

/// Percent-encodes a query's value.
pub fn encode_query(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.' | b'~') {
            out.push(char::from(byte));
        } else {
            out.push_str(&format!("%{byte:02X}"));
        }
    }
    out
}

/// A client of one engine.
#[derive(Debug, Clone)]
pub struct Client {
    endpoint: Endpoint,
    version: String,
    idle: Arc<Mutex<Option<SendRequest<Body>>>>,
}

impl Client {
    /// A client that speaks the given version of the API, `1.41`.
    pub fn new(endpoint: Endpoint, version: impl Into<String>) -> Self {
        Self { endpoint, version: version.into(), idle: Arc::default() }
    }

    /// The version that is spoken.
    pub fn version(&self) -> &str {
        &self.version
    }

    /// Where the engine is.
    pub fn endpoint(&self) -> &Endpoint {
        &self.endpoint
    }

    /// Connects, so that a missing engine is known before anything is sent. The connection
    /// serves the first request.
    pub async fn connect(&self) -> Result<(), ClientError> {
        let sender = self.open().await?;
        self.keep(sender);
        Ok(())
    }

    /// Asks for the engine's version and speaks the older of the two from then on. Returns the
    /// ping's headers.
    pub async fn negotiate(&mut self) -> Result<HeaderMap, ClientError> {
        let response = self.request(Method::HEAD, "/_ping").unversioned().send().await?;
        let headers = response.headers().clone();
        response.bytes().await?;
        let theirs = headers
            .get("api-version")
            .and_then(|value| value.to_str().ok())
            .filter(|version| !version.is_empty())
            .unwrap_or(FALLBACK_API_VERSION);
        if version_key(theirs) < version_key(&self.version) {
            theirs.clone_into(&mut self.version);
        }
        Ok(headers)
    }

    /// A request for `path`, which begins with a slash and has no version.
    pub fn request(&self, method: Method, path: impl Into<String>) -> Request<'_> {
        Request {
            client: self,
            method,
            path: path.into(),
            query: String::new(),
            headers: HeaderMap::new(),
            body: Body::empty(),
            versioned: true,
        }
    }

    /// `GET path`.
    pub fn get(&self, path: impl Into<String>) -> Request<'_> {
        self.request(Method::GET, path)
    }

    /// `POST path`.
    pub fn post(&self, path: impl Into<String>) -> Request<'_> {
        self.request(Method::POST, path)
    }

    /// `DELETE path`.
    pub fn delete(&self, path: impl Into<String>) -> Request<'_> {
        self.request(Method::DELETE, path)
    }

    /// `PUT path`.
    pub fn put(&self, path: impl Into<String>) -> Request<'_> {
        self.request(Method::PUT, path)
    }

    async fn open(&self) -> Result<SendRequest<Body>, ClientError> {
        let stream = self.endpoint.connect().await.map_err(|source| {
            let endpoint = self.endpoint.clone();
            if source.kind() == std::io::ErrorKind::PermissionDenied {
                ClientError::Permission { endpoint }
            } else {
                ClientError::Connect { endpoint, source }
            }
        })?;
        let (sender, connection) =
            http1::handshake(TokioIo::new(stream)).await.map_err(|source| ClientError::Http {
                operation: "CONNECT".into(),
                path: self.endpoint.to_string(),
                source,
            })?;
        tokio::spawn(async move {
            // Its failure is seen by the request that it serves.
            connection.with_upgrades().await.ok();
        });
        Ok(sender)
    }

    /// A connection that is ready for a request: the kept one if it still is.
    async fn sender(&self) -> Result<SendRequest<Body>, ClientError> {
        let kept = self.idle.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(mut sender) = kept
            && sender.ready().await.is_ok()
        {
            return Ok(sender);
        }
        self.open().await
    }

    fn keep(&self, sender: SendRequest<Body>) {
        *self.idle.lock().unwrap_or_else(PoisonError::into_inner) = Some(sender);
    }
}

/// `1.41` as numbers that compare.
fn version_key(version: &str) -> (u32, u32) {
    let (major, minor) = version.split_once('.').unwrap_or((version, "0"));
    (major.parse().unwrap_or(0), minor.parse().unwrap_or(0))
}

/// A request being put together.
#[derive(Debug)]
#[must_use = "a request does nothing until it is sent"]
pub struct Request<'a> {
    client: &'a Client,
    method: Method,
    path: String,
    query: String,
    headers: HeaderMap,
    body: Body,
    versioned: bool,
}

impl Request<'_> {
    /// Adds a query parameter.
    pub fn query(mut self, name: &str, value: impl AsRef<str>) -> Self {
        self.query.push(if self.query.is_empty() { '?' } else { '&' });
        self.query.push_str(name);
        self.query.push('=');
        self.query.push_str(&encode_query(value.as_ref()));
        self
    }

    /// Adds a query parameter if there is a value.
    pub fn query_some(self, name: &str, value: Option<impl AsRef<str>>) -> Self {
        match value {
            Some(value) => self.query(name, value),
            None => self,
        }
    }

    /// Adds `name=1` if `value` holds.
    pub fn query_if(self, name: &str, value: bool) -> Self {
        if value { self.query(name, "1") } else { self }
    }

    /// Adds a header; a value that cannot be one is left out.
    pub fn header(mut self, name: &'static str, value: &str) -> Self {
        if let Ok(value) = value.parse() {
            self.headers.insert(name, value);
        }
        self
    }

    /// Sends JSON.
    pub fn json(mut self, value: &impl serde::Serialize) -> Self {
        // Serialising to memory only fails for maps with odd keys, which no request has.
        self.body = Body::bytes(serde_json::to_vec(value).unwrap_or_default());
        self.header("content-type", "application/json")
    }

    /// Sends a body of another type.
    pub fn body(mut self, content_type: &str, body: Body) -> Self {
        self.body = body;
        self.header("content-type", content_type)
    }

    /// Adds a header beside those of the same name.
    pub fn header_also(mut self, name: &'static str, value: &str) -> Self {
        if let Ok(value) = value.parse() {
            self.headers.append(name, value);
        }
        self
    }

    /// Leaves the version out of the path.
    pub fn unversioned(mut self) -> Self {
        self.versioned = false;
        self
    }

    async fn exchange(
        self,
    ) -> Result<(hyper::Response<Incoming>, SendRequest<Body>, String), ClientError> {
        let prefix =
            if self.versioned { format!("/v{}", self.client.version) } else { String::new() };
        let uri = format!("{prefix}{}{}", self.path, self.query);
        let mut builder = hyper::Request::builder()
            .method(self.method.clone())
            .uri(&uri)
            .header(HOST, self.client.endpoint.host())
            .header("user-agent", concat!("Silo-Client/", env!("CARGO_PKG_VERSION"), " (linux)"));
        if let Some(headers) = builder.headers_mut() {
            headers.extend(self.headers);
        }
        let request = builder
            .body(self.body)
            .map_err(|source| ClientError::Request { path: self.path.clone(), source })?;
        let mut sender = self.client.sender().await?;
        let response = sender.send_request(request).await.map_err(|source| ClientError::Http {
            operation: self.method.to_string(),
            path: self.path.clone(),
            source,
        })?;
        Ok((response, sender, self.path))
    }

    /// Sends the request. An answer of 400 and above is an error with the engine's message; so
    /// is no answer. 304 is an answer.
    pub async fn send(self) -> Result<Response, ClientError> {
        let client = self.client.clone();
        let method = self.method.clone();
        let (response, sender, path) = self.exchange().await?;
        let (head, body) = response.into_parts();
        let mut response = Response {
            status: head.status.as_u16(),
            headers: head.headers,
            body,
            connection: Some((client, sender)),
            path,
        };
        if head.status.is_client_error() || head.status.is_server_error() {
            let bytes =
                if method == Method::HEAD { Bytes::new() } else { response.limited().await };
            return Err(engine_error(head.status, &bytes));
        }
        Ok(response)
    }

    /// Sends the request and waits for the end of the answer, which is dropped.
    pub async fn done(self) -> Result<(), ClientError> {
        self.send().await?.bytes().await.map(drop)
    }

    /// Sends the request and reads the answer as JSON.
    pub async fn receive<T: DeserializeOwned>(self) -> Result<T, ClientError> {
        self.send().await?.json().await
    }

    /// Sends the request and takes the connection over as a raw stream.
    pub async fn hijack(self) -> Result<Hijacked, ClientError> {
        self.upgrade("tcp").await
    }

    /// Sends the request and takes the connection over for another protocol.
    pub async fn upgrade(mut self, protocol: &'static str) -> Result<Hijacked, ClientError> {
        self.headers.insert(CONNECTION, hyper::header::HeaderValue::from_static("Upgrade"));
        self.headers.insert(UPGRADE, hyper::header::HeaderValue::from_static(protocol));
        let (operation, path) = (self.method.to_string(), self.path.clone());
        let (response, _, _) = self.exchange().await?;
        let status = response.status();
        if status != StatusCode::SWITCHING_PROTOCOLS {
            let mut body = response.into_body();
            return Err(engine_error(status, &read_limited(&mut body).await));
        }
        let multiplexed = response
            .headers()
            .get(CONTENT_TYPE)
            .and_then(|value| value.to_str().ok())
            .map(|value| value == "application/vnd.docker.multiplexed-stream");
        let fault = |source| ClientError::Http { operation, path, source };
        let upgraded = hyper::upgrade::on(response).await.map_err(fault)?;
        match upgraded.downcast::<TokioIo<Stream>>() {
            Ok(parts) => {
                Ok(Hijacked { stream: parts.io.into_inner(), early: parts.read_buf, multiplexed })
            }
            // The client itself made the connection, so its type is known.
            Err(_) => Err(ClientError::Body(std::io::Error::other("foreign connection"))),
        }
    }
}

async fn read_limited(body: &mut Incoming) -> Bytes {
    let mut out = BytesMut::new();
    while let Some(Ok(frame)) = body.frame().await {
        if let Ok(data) = frame.into_data() {
            out.extend_from_slice(&data);
        }
        if out.len() > MAX_ERROR {
            break;
        }
    }
    out.freeze()
}

/// The engine's message, or its text, or the status's name.
fn engine_error(status: StatusCode, body: &[u8]) -> ClientError {
    #[derive(serde::Deserialize)]
    struct Message {
        message: String,
    }
    let message = match serde_json::from_slice::<Message>(body) {
        Ok(parsed) if !parsed.message.is_empty() => parsed.message,
        _ => {
            let text = String::from_utf8_lossy(body).trim().to_owned();
            if text.is_empty() {
                status.canonical_reason().unwrap_or("unknown status").to_owned()
            } else {
                text
            }
        }
    };
    ClientError::Engine { status: status.as_u16(), message: message.trim().to_owned() }
}

/// An engine's answer.
#[derive(Debug)]
pub struct Response {
    status: u16,
    headers: HeaderMap,
    body: Incoming,
    connection: Option<(Client, SendRequest<Body>)>,
    path: String,
}

impl Response {
    /// The HTTP status, below 400.
    pub fn status(&self) -> u16 {
        self.status
    }

    /// The headers.
    pub fn headers(&self) -> &HeaderMap {
        &self.headers
    }

    /// The next piece of the body; `None` at its end.
    pub async fn chunk(&mut self) -> Result<Option<Bytes>, ClientError> {
        loop {
            match self.body.frame().await {
                None => {
                    if let Some((client, sender)) = self.connection.take() {
                        client.keep(sender);
                    }
                    return Ok(None);
                }
                Some(Ok(frame)) => {
                    if let Ok(data) = frame.into_data() {
                        return Ok(Some(data));
                    }
                }
                Some(Err(source)) => {
                    return Err(ClientError::Http {
                        operation: "read".into(),
                        path: self.path.clone(),
                        source,
                    });
                }
            }
        }
    }

    /// The whole body.
    pub async fn bytes(mut self) -> Result<Bytes, ClientError> {
        let Some(first) = self.chunk().await? else { return Ok(Bytes::new()) };
        let Some(second) = self.chunk().await? else { return Ok(first) };
        let mut all = BytesMut::from(first);
        all.extend_from_slice(&second);
        while let Some(chunk) = self.chunk().await? {
            all.extend_from_slice(&chunk);
        }
        Ok(all.freeze())
    }

    /// The whole body as JSON.
    pub async fn json<T: DeserializeOwned>(self) -> Result<T, ClientError> {
        let path = self.path.clone();
        let bytes = self.bytes().await?;
        serde_json::from_slice(&bytes).map_err(|source| ClientError::Answer { path, source })
    }

    async fn limited(&mut self) -> Bytes {
        let bytes = read_limited(&mut self.body).await;
        if let Some((client, sender)) = self.connection.take() {
            client.keep(sender);
        }
        bytes
    }
}

/// A connection taken over from HTTP.
#[derive(Debug)]
pub struct Hijacked {
    /// The raw stream. Shutting its writing side down tells the engine that input has ended.
    pub stream: Stream,
    /// Output that came together with the answer's head; it is before what the stream has.
    pub early: Bytes,
    /// Whether the output is in frames, as far as the engine says.
    pub multiplexed: Option<bool>,
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;

    #[test]
    fn versions_compare_as_numbers() {
        assert!(version_key("1.9") < version_key("1.24"));
        assert!(version_key("1.52") > version_key("1.41"));
    }

    #[test]
    fn queries_are_encoded() {
        assert_eq!(encode_query("a b/{\"x\":é}"), "a%20b%2F%7B%22x%22%3A%C3%A9%7D");
    }

    #[test]
    fn messages_of_errors() {
        for (body, message) in [
            (&br#"{"message":"No such container: x\n"}"#[..], "No such container: x"),
            (b"plain\n", "plain"),
            (b"", "Not Found"),
        ] {
            let error = engine_error(StatusCode::NOT_FOUND, body);
            assert_eq!(error.to_string(), format!("Error response from daemon: {message}"));
        }
    }

    /// Answers each request on one connection with the next text of `answers`.
    async fn serve(
        answers: &'static [&'static str],
    ) -> (Endpoint, tokio::task::JoinHandle<String>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let task = tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut seen = String::new();
            for answer in answers {
                let mut head = Vec::new();
                while !head.ends_with(b"\r\n\r\n") {
                    head.push(stream.read_u8().await.unwrap());
                }
                seen.push_str(String::from_utf8(head).unwrap().lines().next().unwrap());
                seen.push(';');
                stream.write_all(answer.as_bytes()).await.unwrap();
            }
            let mut rest = String::new();
            stream.read_to_string(&mut rest).await.unwrap();
            seen + &rest
        });
        (Endpoint::Tcp(address.to_string()), task)
    }

    fn block_on<F: Future>(future: F) -> F::Output {
        tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(future)
    }

    #[test]
    fn one_connection_for_several_requests() {
        block_on(async {
            let (endpoint, server) = serve(&[
                "HTTP/1.1 200 OK\r\nApi-Version: 1.41\r\nContent-Length: 0\r\n\r\n",
                "HTTP/1.1 404 Not Found\r\nContent-Length: 15\r\n\r\n{\"message\":\"x\"}",
                "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n[1\r\n1\r\n]\r\n0\r\n\r\n",
            ])
            .await;
            let mut client = Client::new(endpoint, "1.52");
            client.negotiate().await.unwrap();
            assert_eq!(client.version(), "1.41");
            let error = client.get("/a").query("q", "x y").done().await.unwrap_err();
            assert_eq!(error.status(), Some(404));
            let list: Vec<u8> = client.get("/b").receive().await.unwrap();
            assert_eq!(list, [1]);
            drop(client);
            assert_eq!(
                server.await.unwrap(),
                "HEAD /_ping HTTP/1.1;GET /v1.41/a?q=x%20y HTTP/1.1;GET /v1.41/b HTTP/1.1;"
            );
        });
    }

    #[test]
    fn hijacked_stream_ends_in_halves() {
        block_on(async {
            let (endpoint, server) = serve(&[
                "HTTP/1.1 101 UPGRADED\r\nContent-Type: application/vnd.docker.raw-stream\r\n\
                 Connection: Upgrade\r\nUpgrade: tcp\r\n\r\nearly",
            ])
            .await;
            let client = Client::new(endpoint, "1.52");
            let mut hijacked = client.post("/attach").hijack().await.unwrap();
            assert_eq!(hijacked.multiplexed, Some(false));
            hijacked.stream.write_all(b"input").await.unwrap();
            hijacked.stream.shutdown().await.unwrap();
            let mut output = hijacked.early.to_vec();
            hijacked.stream.read_to_end(&mut output).await.unwrap();
            assert_eq!(output, b"early");
            assert_eq!(server.await.unwrap(), "POST /v1.52/attach HTTP/1.1;input");
        });
    }

    #[test]
    fn no_engine() {
        block_on(async {
            let client = Client::new("unix:///nonexistent/x.sock".parse().unwrap(), "1.52");
            let error = client.connect().await.unwrap_err();
            assert!(matches!(error, ClientError::Connect { .. }), "{error}");
        });
    }
}
