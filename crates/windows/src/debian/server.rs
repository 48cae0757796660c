//! A mirror on the loopback address, for tests.

use std::io::{BufRead as _, BufReader, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;

/// What is asked for.
#[derive(Debug, Clone)]
pub(crate) struct Request {
    /// The path, or the whole URL if the server is taken for a proxy.
    pub(crate) path: String,
    /// From where on.
    pub(crate) offset: Option<usize>,
}

impl Request {
    /// What of `bytes` is asked for.
    pub(crate) fn content(&self, bytes: &[u8]) -> Answer {
        let offset = self.offset.unwrap_or(0);
        Answer::Content(offset, bytes.get(offset..).unwrap_or_default().to_vec())
    }
}

/// What is answered.
#[derive(Debug, Clone)]
pub(crate) enum Answer {
    /// A file from an offset on.
    Content(usize, Vec<u8>),
    /// The first of as many bytes as are promised.
    Cut(usize, Vec<u8>, usize),
    /// There is no such file.
    Missing,
}

/// Serves until it is dropped.
#[derive(Debug)]
pub(crate) struct Server {
    address: SocketAddr,
    ended: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Server {
    pub(crate) fn start(mut answer: impl FnMut(&Request) -> Answer + Send + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let ended = Arc::new(AtomicBool::new(false));
        let over = Arc::clone(&ended);
        let thread = std::thread::spawn(move || {
            while let Ok((stream, _)) = listener.accept()
                && !over.load(Ordering::Relaxed)
            {
                exchange(&stream, &mut answer);
            }
        });
        Self { address, ended, thread: Some(thread) }
    }

    /// The URL of a directory.
    pub(crate) fn address(&self, directory: &str) -> String {
        format!("http://{}/{directory}", self.address)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.ended.store(true, Ordering::Relaxed);
        // It waits for somebody.
        drop(TcpStream::connect(self.address));
        if let Some(thread) = self.thread.take() {
            let _result = thread.join();
        }
    }
}

/// Answers one request. A client that is gone is none of the server's business.
fn exchange(mut stream: &TcpStream, answer: &mut impl FnMut(&Request) -> Answer) {
    let mut lines = BufReader::new(stream).lines().map_while(Result::ok);
    let Some(path) = lines.next().and_then(|line| Some(line.split(' ').nth(1)?.to_owned())) else {
        return;
    };
    let mut offset = None;
    for line in lines.take_while(|line| !line.is_empty()) {
        let line = line.to_ascii_lowercase();
        if let Some(range) = line.strip_prefix("range: bytes=") {
            offset = range.trim_end_matches('-').parse().ok();
        }
    }
    let (offset, body, promised) = match answer(&Request { path, offset }) {
        Answer::Content(offset, body) => (offset, body.clone(), body.len()),
        Answer::Cut(offset, body, promised) => (offset, body, promised),
        Answer::Missing => {
            drop(stream.write_all(b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n"));
            return;
        }
    };
    let status = match offset {
        0 => "200 OK".to_owned(),
        _ => format!(
            "206 Partial Content\r\nContent-Range: bytes {offset}-{}/{}",
            offset + promised - 1,
            offset + promised
        ),
    };
    let head = format!("HTTP/1.1 {status}\r\nContent-Length: {promised}\r\nConnection: close\r\n");
    drop(stream.write_all(&[head.as_bytes(), b"\r\n", &body].concat()));
}
