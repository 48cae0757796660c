//! A server of files for what builds and containers fetch.

use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;

/// What a path gives.
#[derive(Debug, Clone)]
pub enum Page {
    /// A file.
    File(Vec<u8>),
    /// A file of a media type.
    Typed(&'static str, Vec<u8>),
    /// Another address.
    Moved(String),
}

/// A server of HTTP on every address of the host; it ends when it is dropped.
#[derive(Debug)]
pub struct FileServer {
    port: u16,
    asked: Arc<Mutex<Vec<String>>>,
    ends: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl FileServer {
    /// Serves these paths, which begin with a slash; any other is not found.
    pub fn start(pages: BTreeMap<String, Page>) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::UNSPECIFIED, 0)).expect("a listener");
        let port = listener.local_addr().expect("an address").port();
        let (asked, ends) = (Arc::new(Mutex::new(Vec::new())), Arc::new(AtomicBool::new(false)));
        let shared = (Arc::clone(&asked), Arc::clone(&ends));
        let pages = Arc::new(pages);
        let thread = std::thread::spawn(move || {
            for stream in listener.incoming() {
                if shared.1.load(Ordering::Acquire) {
                    break;
                }
                let (pages, asked) = (Arc::clone(&pages), Arc::clone(&shared.0));
                let answer = move |stream| answer(stream, &pages, &asked);
                // A client that goes away early is its own affair.
                stream.map(|stream| std::thread::spawn(move || answer(stream).ok())).ok();
            }
        });
        Self { port, asked, ends, thread: Some(thread) }
    }

    /// The port.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// The paths that clients have asked for.
    pub fn asked(&self) -> Vec<String> {
        self.asked.lock().expect("the paths").clone()
    }
}

impl Drop for FileServer {
    fn drop(&mut self) {
        self.ends.store(true, Ordering::Release);
        TcpStream::connect(SocketAddr::from((Ipv4Addr::LOCALHOST, self.port))).ok();
        if let Some(thread) = self.thread.take() {
            thread.join().ok();
        }
    }
}

fn answer(
    mut stream: TcpStream,
    pages: &BTreeMap<String, Page>,
    asked: &Mutex<Vec<String>>,
) -> std::io::Result<()> {
    let mut lines = BufReader::new(stream.try_clone()?).lines();
    let request = lines.next().transpose()?.unwrap_or_default();
    for line in lines {
        if line?.is_empty() {
            break;
        }
    }
    let path = request.split(' ').nth(1).unwrap_or_default().to_owned();
    let page = pages.get(&path).cloned();
    asked.lock().expect("the paths").push(path);
    let (head, body) = match page {
        Some(Page::File(bytes)) => ("200 OK\r\n".to_owned(), bytes),
        Some(Page::Typed(kind, bytes)) => (format!("200 OK\r\nContent-Type: {kind}\r\n"), bytes),
        Some(Page::Moved(to)) => (format!("302 Found\r\nLocation: {to}\r\n"), Vec::new()),
        None => ("404 Not Found\r\n".to_owned(), b"there is no such file\n".to_vec()),
    };
    let size = body.len();
    write!(stream, "HTTP/1.1 {head}Content-Length: {size}\r\nConnection: close\r\n\r\n")?;
    if !request.starts_with("HEAD ") {
        stream.write_all(&body)?;
    }
    stream.flush()
}
