//! A server of HTTP that does as a test tells it, wrong things among them.

use std::collections::BTreeMap;
use std::io::{self, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};

/// A request as it came.
#[derive(Debug, Clone)]
pub struct Asked {
    /// The method, in capital letters.
    pub method: String,
    /// Path and query, or what else a proxy is asked for.
    pub target: String,
    /// Headers by names in small letters.
    pub headers: BTreeMap<String, String>,
    /// The body, or as much of it as was read.
    pub body: Vec<u8>,
}

impl Asked {
    /// A header; empty if it is absent.
    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", String::as_str)
    }

    /// The path without the query.
    pub fn path(&self) -> &str {
        self.target.split('?').next().unwrap_or_default()
    }

    /// A field of the query.
    pub fn field(&self, name: &str) -> Option<String> {
        let (_, query) = self.target.split_once('?')?;
        let value = query.split('&').find_map(|pair| pair.strip_prefix(&format!("{name}=")))?;
        Some(value.replace("%3A", ":").replace("%2F", "/"))
    }
}

/// How a body ends.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum End {
    /// As it should.
    #[default]
    Whole,
    /// The connection is closed.
    Cut,
    /// Nothing more comes, until the client closes the connection.
    Silence,
    /// It is sent again and again, until the client closes the connection.
    Endless,
}

/// An answer.
#[derive(Debug, Clone, Default)]
pub struct Reply {
    /// The status; 0 for no answer.
    pub status: u16,
    /// Headers besides that of the length.
    pub headers: Vec<(String, String)>,
    /// The body, as far as it is sent.
    pub body: Vec<u8>,
    /// What is said of the body's length, if that is not the truth.
    pub length: Option<String>,
    /// How the body ends.
    pub end: End,
}

impl Reply {
    /// An answer with a body.
    pub fn new(status: u16, body: impl Into<Vec<u8>>) -> Self {
        Self { status, body: body.into(), ..Self::default() }
    }

    /// A refusal as the distribution specification has it.
    pub fn refusal(status: u16, code: &str) -> Self {
        let words = code.to_ascii_lowercase().replace('_', " ");
        Self::new(status, format!(r#"{{"errors":[{{"code":"{code}","message":"{words}"}}]}}"#))
    }

    /// None: the connection is closed.
    pub fn none() -> Self {
        Self::default()
    }

    /// With a header in the place of one with the same name.
    #[must_use]
    pub fn header(mut self, name: &str, value: impl Into<String>) -> Self {
        self.headers.retain(|(known, _)| !known.eq_ignore_ascii_case(name));
        self.headers.push((name.to_owned(), value.into()));
        self
    }

    /// Only so many bytes of the body come, and then `end`.
    #[must_use]
    pub fn after(mut self, count: usize, end: End) -> Self {
        self.length.get_or_insert(self.body.len().to_string());
        self.body.truncate(count);
        self.end = end;
        self
    }

    /// With a body that never ends.
    #[must_use]
    pub fn endless(mut self) -> Self {
        self.end = End::Endless;
        self
    }
}

/// A server on a port of its own of the loopback interface, until the test's process ends.
#[derive(Debug, Clone)]
pub struct Scripted {
    address: String,
    log: Arc<Mutex<Vec<Asked>>>,
}

impl Scripted {
    /// Answers every request as `answer` says.
    pub fn start(answer: impl Fn(&Asked) -> Reply + Send + Sync + 'static) -> Self {
        Self::start_with(|_| None, answer)
    }

    /// One that reads no more of some bodies than `stop` says, answers, and then is gone.
    pub fn start_with(
        stop: impl Fn(&Asked) -> Option<u64> + Send + Sync + 'static,
        answer: impl Fn(&Asked) -> Reply + Send + Sync + 'static,
    ) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a listener");
        let address = listener.local_addr().expect("an address").to_string();
        let log = Arc::new(Mutex::new(Vec::new()));
        let server = Self { address, log: Arc::clone(&log) };
        let script = Arc::new((stop, answer));
        std::thread::spawn(move || {
            for mut stream in listener.incoming().flatten() {
                let (script, log) = (Arc::clone(&script), Arc::clone(&log));
                std::thread::spawn(move || {
                    // Clients that go away are part of the tests.
                    while let Ok(Some((asked, broken))) = read(&mut stream, &script.0) {
                        log.lock().expect("the log").push(asked.clone());
                        let reply = script.1(&asked);
                        if write(&mut stream, &asked, &reply).is_err() || broken {
                            return;
                        }
                    }
                });
            }
        });
        server
    }

    /// Host and port.
    pub fn address(&self) -> &str {
        &self.address
    }

    /// The requests so far.
    pub fn asked(&self) -> Vec<Asked> {
        self.log.lock().expect("the log").clone()
    }
}

/// A line without its end.
fn line(stream: &mut TcpStream) -> io::Result<Vec<u8>> {
    let (mut line, mut byte) = (Vec::new(), [0]);
    while !line.ends_with(b"\r\n") {
        stream.read_exact(&mut byte)?;
        if line.is_empty() && !byte[0].is_ascii_graphic() && byte[0] != b'\r' {
            // What is no HTTP, such as TLS.
            return Err(io::ErrorKind::InvalidData.into());
        }
        line.push(byte[0]);
    }
    line.truncate(line.len() - 2);
    Ok(line)
}

/// A request, and whether its body was not read to the end; `None` for no head.
fn read(
    stream: &mut TcpStream,
    stop: &dyn Fn(&Asked) -> Option<u64>,
) -> io::Result<Option<(Asked, bool)>> {
    let first = String::from_utf8(line(stream)?).map_err(io::Error::other)?;
    let mut words = first.split(' ');
    let (Some(method), Some(target)) = (words.next(), words.next()) else { return Ok(None) };
    let mut headers = BTreeMap::new();
    loop {
        let header = String::from_utf8(line(stream)?).map_err(io::Error::other)?;
        if header.is_empty() {
            break;
        }
        if let Some((name, value)) = header.split_once(": ") {
            headers.insert(name.to_ascii_lowercase(), value.to_owned());
        }
    }
    let (method, target) = (method.to_owned(), target.to_owned());
    let mut asked = Asked { method, target, headers, body: Vec::new() };
    if let Some(limit) = stop(&asked) {
        stream.take(limit).read_to_end(&mut asked.body)?;
        return Ok(Some((asked, true)));
    }
    if let Ok(length) = asked.header("content-length").parse() {
        stream.take(length).read_to_end(&mut asked.body)?;
    } else if asked.header("transfer-encoding") == "chunked" {
        loop {
            let size = line(stream)?;
            let size = u64::from_str_radix(&String::from_utf8_lossy(&size), 16);
            let size = size.map_err(io::Error::other)?;
            stream.take(size).read_to_end(&mut asked.body)?;
            stream.read_exact(&mut [0; 2])?;
            if size == 0 {
                break;
            }
        }
    }
    Ok(Some((asked, false)))
}

fn write(stream: &mut TcpStream, asked: &Asked, reply: &Reply) -> io::Result<()> {
    if reply.status == 0 {
        stream.shutdown(Shutdown::Both)?;
        return Err(io::ErrorKind::ConnectionAborted.into());
    }
    let mut head = vec![format!("HTTP/1.1 {} Status\r\n", reply.status)];
    match (&reply.length, reply.end) {
        (None, End::Endless) => head.push("Transfer-Encoding: chunked\r\n".to_owned()),
        (None, _) if reply.status == 204 => {}
        (None, _) => head.push(format!("Content-Length: {}\r\n", reply.body.len())),
        (Some(length), _) => head.push(format!("Content-Length: {length}\r\n")),
    }
    for (name, value) in &reply.headers {
        head.push(format!("{name}: {value}\r\n"));
    }
    head.push("\r\n".to_owned());
    stream.write_all(head.concat().as_bytes())?;
    if asked.method == "HEAD" {
        return Ok(());
    }
    if reply.end == End::Endless {
        let size = format!("{:x}\r\n", reply.body.len());
        let chunk = [size.as_bytes(), &reply.body, b"\r\n"].concat();
        loop {
            stream.write_all(&chunk)?;
        }
    }
    stream.write_all(&reply.body)?;
    match reply.end {
        End::Whole if reply.length.is_none() => Ok(()),
        End::Silence => {
            // The client's end of the connection is what is waited for.
            io::copy(stream, &mut io::sink())?;
            Err(io::ErrorKind::ConnectionAborted.into())
        }
        _ => {
            stream.shutdown(Shutdown::Both)?;
            Err(io::ErrorKind::ConnectionAborted.into())
        }
    }
}
