//! The client against servers and proxies of the test's own, on this host.
#![allow(clippy::unwrap_used, reason = "a test")]

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

use silo_http::{Client, Download, Identity, Options, Proxies, Uri, parse_url};
use silo_types::{ErrorKind, Kind};

/// Serves connections until the test's process ends; tells the heads of the requests.
fn serve(
    answer: impl Fn(&str, &mut TcpStream) -> io::Result<()> + Send + Sync + 'static,
) -> (SocketAddr, Receiver<String>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let (sender, heads) = channel();
    let answer = Arc::new(answer);
    std::thread::spawn(move || {
        for connection in listener.incoming() {
            let (mut stream, sender) = (connection.unwrap(), sender.clone());
            let answer = Arc::clone(&answer);
            std::thread::spawn(move || {
                if let Ok(head) = read_head(&mut stream) {
                    drop(sender.send(head.clone()));
                    // Clients that go away are part of the tests.
                    drop(answer(&head, &mut stream));
                }
            });
        }
    });
    (address, heads)
}

fn read_head(stream: &mut impl Read) -> io::Result<String> {
    let (mut head, mut byte) = (Vec::new(), [0]);
    while !head.ends_with(b"\r\n\r\n") {
        stream.read_exact(&mut byte)?;
        head.push(byte[0]);
    }
    Ok(String::from_utf8_lossy(&head).into_owned())
}

fn respond(stream: &mut impl Write, status: &str, extra: &str, body: &str) -> io::Result<()> {
    let length = body.len();
    write!(
        stream,
        "HTTP/1.1 {status}\r\nConnection: close\r\n{extra}Content-Length: {length}\r\n\r\n{body}"
    )
}

/// For servers that are to be waited for.
fn patient() -> Options {
    let limit = Duration::from_secs(30);
    Options {
        connect_timeout: limit,
        head_timeout: limit,
        stall_timeout: limit,
        ..Options::default()
    }
}

/// For servers that say nothing.
fn impatient() -> Options {
    let limit = Duration::from_millis(300);
    Options { head_timeout: limit, stall_timeout: limit, ..patient() }
}

fn url(address: SocketAddr, path: &str) -> Uri {
    parse_url(&format!("http://{address}{path}")).unwrap()
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap()
}

/// The whole body, as an import reads it.
fn fetch(client: &Client, url: &Uri) -> Result<io::Result<Vec<u8>>, silo_http::Error> {
    let runtime = runtime();
    let mut reader =
        runtime.block_on(async { client.get(url).await.map(Download::into_reader) })?;
    let mut body = Vec::new();
    Ok(reader.read_to_end(&mut body).map(|_| body))
}

#[test]
fn bodies_statuses_and_redirects() {
    let (address, heads) = serve(|head, stream| match head.split(' ').nth(1).unwrap() {
        "/plain" => respond(stream, "200 OK", "", "content"),
        "/chunks" => write!(
            stream,
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n"
        ),
        "/unsized" => write!(stream, "HTTP/1.0 200 OK\r\n\r\nuntil the end"),
        "/moved" => respond(stream, "302 Found", "Location: sub/../plain\r\n", ""),
        "/loop" => respond(stream, "301 Moved", "Location: /loop\r\n", ""),
        "/nowhere" => respond(stream, "302 Found", "", ""),
        "/file" => respond(stream, "302 Found", "Location: file:///etc/passwd\r\n", ""),
        "/missing" => respond(stream, "404 Not Found", "", "  no such thing\n"),
        "/secret" => respond(stream, "403 Forbidden", "", ""),
        "/broken" => respond(stream, "500 Internal Server Error", "", "x"),
        "/flood" => {
            write!(stream, "HTTP/1.1 500 No\r\nConnection: close\r\n\r\n")?;
            (0..1 << 20).try_for_each(|_| stream.write_all(&[b'x'; 1024]))
        }
        "/short" => write!(stream, "HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nonly this"),
        "/cut" => {
            write!(stream, "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n9\r\nabc")
        }
        "/stall" => {
            write!(stream, "HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nonly this")?;
            // Until the client goes.
            stream.read(&mut [0]).map(drop)
        }
        "/silent" => {
            // Until the client goes.
            stream.read(&mut [0]).map(drop)
        }
        "/garbage" => stream.write_all(b"SSH-2.0-OpenSSH_9.2\r\n"),
        "/header" => {
            write!(stream, "HTTP/1.1 200 OK\r\n")?;
            (0..1 << 16).try_for_each(|n| write!(stream, "X-Header-{n}: {n}\r\n"))
        }
        other => respond(stream, "400 Bad Request", "", other),
    });
    let client = Client::new(patient());
    let get = |path: &str| fetch(&client, &url(address, path));
    for (path, body) in [
        ("/plain", "content"),
        ("/chunks", "abcde"),
        ("/unsized", "until the end"),
        ("/moved", "content"),
    ] {
        assert_eq!(get(path).unwrap().unwrap(), body.as_bytes(), "{path}");
    }
    let head = heads.recv().unwrap();
    assert!(head.starts_with("GET /plain HTTP/1.1\r\n"), "{head}");
    assert!(head.contains(&format!("host: {address}\r\n")), "{head}");
    assert!(head.contains("user-agent: silo/"), "{head}");
    for (path, kind, message) in [
        (
            "/missing",
            ErrorKind::NotFound,
            "failed to GET URL with status 404 Not Found: no such thing",
        ),
        ("/secret", ErrorKind::Forbidden, "failed to GET URL with status 403 Forbidden: "),
        (
            "/other",
            ErrorKind::InvalidParameter,
            "failed to GET URL with status 400 Bad Request: /other",
        ),
        (
            "/broken",
            ErrorKind::Internal,
            "failed to GET URL with status 500 Internal Server Error: x",
        ),
        ("/loop", ErrorKind::Internal, "Get \"URL\": stopped after 10 redirects"),
        ("/nowhere", ErrorKind::Internal, "Get \"URL\": 302 response missing Location header"),
        (
            "/file",
            ErrorKind::Internal,
            "Get \"URL\": failed to parse Location header \"file:///etc/passwd\"",
        ),
        (
            "/flood",
            ErrorKind::Internal,
            "failed to GET URL with status 500 Internal Server Error: error reading body",
        ),
    ] {
        let error = get(path).unwrap_err();
        let message = message.replace("URL", &url(address, path).to_string());
        assert_eq!((error.to_string(), error.kind()), (message, kind), "{path}");
    }
    for path in ["/garbage", "/header"] {
        let error = get(path).unwrap_err().to_string();
        assert!(error.starts_with(&format!("Get \"{}\": ", url(address, path))), "{error}");
    }
    for (path, reason) in [("/short", "unexpected EOF"), ("/cut", "unexpected EOF")] {
        let error = get(path).unwrap().unwrap_err();
        assert_eq!(error.to_string(), reason, "{path}");
    }
    let client = Client::new(impatient());
    let error = fetch(&client, &url(address, "/silent")).unwrap_err();
    let message = format!("Get \"{}\": timeout awaiting response headers", url(address, "/silent"));
    assert_eq!((error.to_string(), error.kind()), (message, ErrorKind::Internal));
    let patient_with_heads = Options { stall_timeout: impatient().stall_timeout, ..patient() };
    let client = Client::new(patient_with_heads);
    let error = fetch(&client, &url(address, "/stall")).unwrap().unwrap_err();
    assert_eq!(error.to_string(), "timeout awaiting response body");
}

#[test]
fn hosts_that_cannot_be_reached() {
    // A port that nobody is given by chance.
    let closed = SocketAddr::from(([127, 0, 0, 1], 1));
    let client = Client::new(patient());
    let error = fetch(&client, &url(closed, "/x")).unwrap_err();
    assert_eq!(
        error.to_string(),
        format!("Get \"http://{closed}/x\": dial tcp {closed}: connect: connection refused")
    );
    assert_eq!(error.kind(), ErrorKind::Internal);
    let error = fetch(&client, &parse_url("http://no-such-host.invalid/").unwrap()).unwrap_err();
    let text = error.to_string();
    let prefix = "Get \"http://no-such-host.invalid/\": dial tcp";
    assert!(text.starts_with(prefix) && text.contains("lookup no-such-host.invalid: "), "{text}");
}

#[test]
fn names_come_from_the_hosts_file() {
    let (address, _) = serve(|_, stream| respond(stream, "200 OK", "", "here"));
    let named = parse_url(&format!("http://localhost:{}/", address.port())).unwrap();
    assert_eq!(fetch(&Client::new(patient()), &named).unwrap().unwrap(), b"here");
}

/// A TLS server for `name`, which answers everything with `body`; its certificate in DER.
fn serve_tls(name: &str, body: &'static str) -> (SocketAddr, Vec<u8>) {
    serve_tls_to(name, body, None)
}

/// The same for those alone who show a certificate.
fn serve_tls_to(
    name: &str,
    body: &'static str,
    clients: Option<rustls::RootCertStore>,
) -> (SocketAddr, Vec<u8>) {
    let made = rcgen::generate_simple_self_signed([name.to_owned()]).unwrap();
    let certificate = made.cert.der().clone();
    let key = rustls::pki_types::PrivateKeyDer::try_from(made.signing_key.serialize_der()).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = rustls::ServerConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()
        .unwrap();
    let builder = match clients {
        None => builder.with_no_client_auth(),
        Some(roots) => {
            let roots = Arc::new(roots);
            let verifier =
                rustls::server::WebPkiClientVerifier::builder_with_provider(roots, provider);
            builder.with_client_cert_verifier(verifier.build().unwrap())
        }
    };
    let config = builder.with_single_cert(vec![certificate.clone()], key).unwrap();
    let config = Arc::new(config);
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for connection in listener.incoming() {
            let session = rustls::ServerConnection::new(Arc::clone(&config)).unwrap();
            let mut stream = rustls::StreamOwned::new(session, connection.unwrap());
            if read_head(&mut stream).is_ok() {
                drop(respond(&mut stream, "200 OK", "", body));
                stream.conn.send_close_notify();
                drop(stream.flush());
            }
        }
    });
    (address, certificate.to_vec())
}

#[test]
fn clients_show_who_they_are() {
    let me = rcgen::generate_simple_self_signed(["me".to_owned()]).unwrap();
    let mut roots = rustls::RootCertStore::empty();
    roots.add(me.cert.der().clone()).unwrap();
    let (address, certificate) = serve_tls_to("localhost", "for you", Some(roots));
    let url = parse_url(&format!("https://localhost:{}/", address.port())).unwrap();
    let pem = silo_http::certificates(me.cert.pem().as_bytes()).unwrap();
    assert_eq!(pem, [me.cert.der().to_vec()]);
    let key = me.signing_key.serialize_pem();
    let identity = Identity::from_pem(me.cert.pem().as_bytes(), key.as_bytes()).unwrap();
    assert!(!format!("{identity:?}").contains("key"));
    let options = Options { extra_roots: vec![certificate], ..patient() };
    let known = Client::new(Options { identity: Some(identity), ..options.clone() });
    assert_eq!(fetch(&known, &url).unwrap().unwrap(), b"for you");
    assert!(fetch(&Client::new(options), &url).is_err());
    for (certificate, key) in [("", key.as_str()), (&me.cert.pem(), "x")] {
        let error = Identity::from_pem(certificate.as_bytes(), key.as_bytes()).unwrap_err();
        assert!(error.to_string().starts_with("invalid "), "{error}");
    }
}

#[test]
fn any_certificate_where_that_is_wanted() {
    let (address, _) = serve_tls("elsewhere.example", "whoever");
    let url = parse_url(&format!("https://{address}/")).unwrap();
    let anyone = Client::new(Options { trust_anyone: true, ..patient() });
    assert_eq!(fetch(&anyone, &url).unwrap().unwrap(), b"whoever");
}

#[test]
fn certificates_are_checked() {
    let (address, certificate) = serve_tls("localhost", "secret");
    let by_name = parse_url(&format!("https://localhost:{}/", address.port())).unwrap();
    let trusting = Client::new(Options { extra_roots: vec![certificate], ..patient() });
    assert_eq!(fetch(&trusting, &by_name).unwrap().unwrap(), b"secret");
    let error = fetch(&Client::new(patient()), &by_name).unwrap_err().to_string();
    assert_eq!(
        error,
        format!(
            "Get \"{by_name}\": tls: failed to verify certificate: x509: certificate signed by \
             unknown authority"
        )
    );
    let by_address = parse_url(&format!("https://{address}/")).unwrap();
    let error = fetch(&trusting, &by_address).unwrap_err().to_string();
    assert!(
        error.ends_with(
            "x509: cannot validate certificate for 127.0.0.1 because it doesn't contain any IP SANs"
        ),
        "{error}"
    );
    // A server that speaks no TLS.
    let wrong = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = wrong.local_addr().unwrap();
    std::thread::spawn(move || {
        let (mut stream, _) = wrong.accept().unwrap();
        let mut hello = [0; 1];
        stream.read_exact(&mut hello).unwrap();
        stream.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n").unwrap();
    });
    let url = parse_url(&format!("https://{address}/")).unwrap();
    let error = fetch(&trusting, &url).unwrap_err().to_string();
    assert!(error.contains(": http: server gave HTTP response to HTTPS client"), "{error}");
}

#[test]
fn proxies_are_asked() {
    // What is not on this host goes to the proxy, which answers itself.
    let (proxy, heads) = serve(|_, stream| respond(stream, "200 OK", "", "from the proxy"));
    let proxies = Proxies { http: format!("http://me:pw@{proxy}"), ..Proxies::default() };
    let client = Client::new(Options { proxies, ..patient() });
    let far = parse_url("http://far.example/file?x=1").unwrap();
    assert_eq!(fetch(&client, &far).unwrap().unwrap(), b"from the proxy");
    let head = heads.recv().unwrap();
    assert!(head.starts_with("GET http://far.example/file?x=1 HTTP/1.1\r\n"), "{head}");
    assert!(head.contains("proxy-authorization: Basic bWU6cHc=\r\n"), "{head}");

    // TLS goes through a tunnel, and is checked against the far end's name.
    let (server, certificate) = serve_tls("far.example", "by the tunnel");
    let (proxy, heads) = serve(move |_, stream| {
        let target = TcpStream::connect(server)?;
        stream.write_all(b"HTTP/1.1 200 Connection established\r\n\r\n")?;
        let (mut up, mut down) = (stream.try_clone()?, target.try_clone()?);
        std::thread::spawn(move || io::copy(&mut up, &mut down));
        io::copy(&mut &target, stream).map(drop)
    });
    let proxies = Proxies { https: format!("me:pw@{proxy}"), ..Proxies::default() };
    let extra_roots = vec![certificate];
    let client = Client::new(Options { proxies, extra_roots, ..patient() });
    let far = parse_url("https://far.example/file").unwrap();
    assert_eq!(fetch(&client, &far).unwrap().unwrap(), b"by the tunnel");
    let head = heads.recv().unwrap();
    assert!(head.starts_with("CONNECT far.example:443 HTTP/1.1\r\n"), "{head}");
    let lower = head.to_lowercase();
    assert!(lower.contains("proxy-authorization: basic bwu6chc="), "{head}");

    // A proxy that refuses.
    let (proxy, _) = serve(|_, stream| respond(stream, "403 Forbidden", "", ""));
    let proxies = Proxies { https: format!("http://{proxy}"), ..Proxies::default() };
    let client = Client::new(Options { proxies, ..patient() });
    let error = fetch(&client, &far).unwrap_err().to_string();
    assert!(error.contains("tunnel"), "{error}");
}

#[test]
fn a_dropped_reader_ends_the_download() {
    let (ended, wait) = channel();
    let (address, _) = serve(move |_, stream| {
        write!(stream, "HTTP/1.1 200 OK\r\n\r\n")?;
        while stream.write_all(&[0; 4096]).is_ok() {}
        ended.send(()).map_err(io::Error::other)
    });
    let runtime = runtime();
    let client = Client::new(patient());
    let endless = url(address, "/");
    let mut reader =
        runtime.block_on(async { client.get(&endless).await.map(Download::into_reader) }).unwrap();
    reader.read_exact(&mut [0; 10_000]).unwrap();
    drop(reader);
    wait.recv_timeout(Duration::from_mins(1)).expect("the server sees its client go");
}
