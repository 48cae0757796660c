//! A registry that does as it is told, wrong things among them.
#![allow(dead_code, clippy::unwrap_used, reason = "tests, of which none needs all")]

use std::collections::BTreeMap;
use std::io::{self, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};

use flate2::write::GzEncoder;
use silo_archive::{Entry, EntryKind, Writer};
use silo_oci::image::{Descriptor, ImageConfig, Manifest, RootFs, digest, media, to_bytes};
use silo_oci::platform::Platform;
use silo_types::Digest;

/// A request as it came.
#[derive(Debug, Clone)]
pub(crate) struct Asked {
    pub(crate) method: String,
    /// Path and query.
    pub(crate) path: String,
    /// Headers by names in small letters.
    pub(crate) headers: BTreeMap<String, String>,
    pub(crate) body: Vec<u8>,
}

impl Asked {
    pub(crate) fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", String::as_str)
    }

    /// Where the bytes begin that are asked for, and where they end if that is said.
    pub(crate) fn range(&self) -> Option<(usize, Option<usize>)> {
        let (start, last) = self.header("range").strip_prefix("bytes=")?.split_once('-')?;
        Some((start.parse().ok()?, last.parse::<usize>().ok().map(|last| last + 1)))
    }
}

/// Called before each piece of a body.
type Gate = Arc<dyn Fn() + Send + Sync>;

/// Bytes of a body that a gate lets through.
pub(crate) const GATED: usize = 4 << 10;

/// An answer.
#[derive(Clone, Default)]
pub(crate) struct Reply {
    pub(crate) status: u16,
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: Vec<u8>,
    /// The connection ends after so many bytes of the body.
    pub(crate) cut: Option<usize>,
    /// What it says of the body's length, if that is not the truth.
    pub(crate) length: Option<usize>,
    pub(crate) gate: Option<Gate>,
}

impl Reply {
    pub(crate) fn new(status: u16, body: impl Into<Vec<u8>>) -> Self {
        Self { status, body: body.into(), ..Self::default() }
    }

    pub(crate) fn header(mut self, name: &str, value: impl Into<String>) -> Self {
        self.headers.push((name.to_owned(), value.into()));
        self
    }

    pub(crate) fn gated(mut self, gate: impl Fn() + Send + Sync + 'static) -> Self {
        self.gate = Some(Arc::new(gate));
        self
    }

    pub(crate) fn cut(mut self, after: usize) -> Self {
        self.cut = Some(after);
        self
    }
}

pub(crate) fn unknown(code: &str) -> Reply {
    let words = code.to_ascii_lowercase().replace('_', " ");
    Reply::new(404, format!(r#"{{"errors":[{{"code":"{code}","message":"{words}"}}]}}"#))
}

/// A server on a port of its own, until the test's process ends.
#[derive(Clone)]
pub(crate) struct Server {
    pub(crate) address: String,
    log: Arc<Mutex<Vec<Asked>>>,
}

impl Server {
    pub(crate) fn start(answer: impl Fn(&Asked) -> Reply + Send + Sync + 'static) -> Self {
        Self::start_with(|_| None, answer)
    }

    /// One that reads no more of some bodies than `stop` says, and then is gone.
    pub(crate) fn start_with(
        stop: impl Fn(&Asked) -> Option<u64> + Send + Sync + 'static,
        answer: impl Fn(&Asked) -> Reply + Send + Sync + 'static,
    ) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let log = Arc::new(Mutex::new(Vec::new()));
        let server = Self { address, log: Arc::clone(&log) };
        let answer = Arc::new(answer);
        let stop = Arc::new(stop);
        std::thread::spawn(move || {
            for connection in listener.incoming() {
                let stop = Arc::clone(&stop);
                let (answer, log) = (Arc::clone(&answer), Arc::clone(&log));
                let mut stream = connection.unwrap();
                std::thread::spawn(move || {
                    // Clients that go away are part of the tests.
                    while let Ok(Some((asked, broken))) = read(&mut stream, &*stop) {
                        log.lock().unwrap().push(asked.clone());
                        let reply = answer(&asked);
                        if broken || write(&mut stream, &asked, reply).is_err() {
                            return;
                        }
                    }
                });
            }
        });
        server
    }

    /// The requests so far.
    pub(crate) fn asked(&self) -> Vec<Asked> {
        self.log.lock().unwrap().clone()
    }

    /// The requests for a part of a path.
    pub(crate) fn asked_for(&self, part: &str) -> Vec<Asked> {
        self.asked().into_iter().filter(|asked| asked.path.contains(part)).collect()
    }
}

/// A request, and whether its body was not read to the end; `None` for what is no HTTP, such as
/// TLS.
fn read(
    stream: &mut TcpStream,
    stop: &dyn Fn(&Asked) -> Option<u64>,
) -> io::Result<Option<(Asked, bool)>> {
    let (mut head, mut byte) = (Vec::new(), [0]);
    while !head.ends_with(b"\r\n\r\n") {
        stream.read_exact(&mut byte)?;
        if head.is_empty() && !byte[0].is_ascii_uppercase() {
            return Ok(None);
        }
        head.push(byte[0]);
    }
    let head = String::from_utf8(head).map_err(io::Error::other)?;
    let mut lines = head.lines();
    let mut words = lines.next().unwrap_or_default().split(' ');
    let (method, path) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
    let headers: BTreeMap<String, String> = lines
        .filter_map(|line| line.split_once(": "))
        .map(|(name, value)| (name.to_ascii_lowercase(), value.to_owned()))
        .collect();
    let (method, path) = (method.to_owned(), path.to_owned());
    let mut asked = Asked { method, path, headers: headers.clone(), body: Vec::new() };
    let limit = stop(&asked);
    let body = &mut asked.body;
    if let Some(length) = headers.get("content-length").and_then(|text| text.parse().ok()) {
        stream.take(limit.unwrap_or(length).min(length)).read_to_end(body)?;
    } else if headers.get("transfer-encoding").is_some_and(|encoding| encoding == "chunked") {
        loop {
            let mut line = Vec::new();
            while !line.ends_with(b"\r\n") {
                stream.read_exact(&mut byte)?;
                line.push(byte[0]);
            }
            let text = String::from_utf8_lossy(&line);
            let size = u64::from_str_radix(text.trim(), 16).map_err(io::Error::other)?;
            let left = limit.map_or(size, |limit| size.min(limit - body.len() as u64));
            stream.take(left).read_to_end(body)?;
            if limit.is_some_and(|limit| body.len() as u64 == limit) {
                break;
            }
            stream.read_exact(&mut [0; 2])?;
            if size == 0 {
                break;
            }
        }
    }
    Ok(Some((asked, limit.is_some())))
}

fn write(stream: &mut TcpStream, asked: &Asked, reply: Reply) -> io::Result<()> {
    let length = reply.length.unwrap_or(reply.body.len());
    let mut head = format!("HTTP/1.1 {} Status\r\nContent-Length: {length}\r\n", reply.status);
    for (name, value) in &reply.headers {
        head.push_str(&format!("{name}: {value}\r\n"));
    }
    head.push_str("\r\n");
    stream.write_all(head.as_bytes())?;
    if asked.method == "HEAD" {
        return Ok(());
    }
    let end = reply.cut.unwrap_or(reply.body.len()).min(reply.body.len());
    match &reply.gate {
        None => stream.write_all(&reply.body[..end])?,
        Some(gate) => {
            for piece in reply.body[..end].chunks(GATED) {
                gate();
                stream.write_all(piece)?;
            }
        }
    }
    if reply.cut.is_some() || reply.length.is_some() {
        stream.shutdown(std::net::Shutdown::Both)?;
        return Err(io::ErrorKind::ConnectionAborted.into());
    }
    Ok(())
}

/// What a registry has.
#[derive(Debug, Clone, Default)]
pub(crate) struct Content {
    /// By tag or digest.
    pub(crate) manifests: BTreeMap<String, (String, Vec<u8>)>,
    pub(crate) blobs: BTreeMap<String, Vec<u8>>,
}

impl Content {
    pub(crate) fn add_blob(&mut self, media_type: &str, bytes: Vec<u8>) -> Descriptor {
        let found = Descriptor::new(media_type, digest(&bytes), bytes.len() as u64);
        self.blobs.insert(found.digest.to_string(), bytes);
        found
    }

    pub(crate) fn add_manifest(&mut self, tag: &str, media_type: &str, bytes: Vec<u8>) -> Digest {
        let found = digest(&bytes);
        self.manifests.insert(found.to_string(), (media_type.to_owned(), bytes.clone()));
        self.manifests.insert(tag.to_owned(), (media_type.to_owned(), bytes));
        found
    }

    /// Answers as a good registry, ranges included.
    pub(crate) fn answer(&self, asked: &Asked) -> Reply {
        let path = asked.path.split('?').next().unwrap_or_default();
        if let Some((_, selector)) = path.split_once("/manifests/") {
            return match self.manifests.get(selector) {
                None => unknown("MANIFEST_UNKNOWN"),
                Some((media_type, bytes)) => Reply::new(200, bytes.clone())
                    .header("Content-Type", media_type)
                    .header("Docker-Content-Digest", digest(bytes).to_string()),
            };
        }
        if let Some((_, blob)) = path.split_once("/blobs/") {
            let Some(bytes) = self.blobs.get(blob) else { return unknown("BLOB_UNKNOWN") };
            let Some((start, end)) = asked.range() else { return Reply::new(200, bytes.clone()) };
            let end = end.unwrap_or(bytes.len());
            return Reply::new(206, &bytes[start..end])
                .header("Content-Range", format!("bytes {start}-{}/{}", end - 1, bytes.len()));
        }
        if path == "/v2/" { Reply::new(200, "{}") } else { unknown("NAME_UNKNOWN") }
    }
}

/// A tar with a file of `size` bytes that do not compress.
pub(crate) fn tar(name: &str, size: usize) -> Vec<u8> {
    let mut seed = 0x9e37_79b9_7f4a_7c15_u64 ^ size as u64;
    let data: Vec<u8> = (0..size)
        .map(|_| {
            seed ^= seed << 13;
            seed ^= seed >> 7;
            seed ^= seed << 17;
            seed.to_le_bytes()[0]
        })
        .collect();
    let mut entry = Entry::new(EntryKind::Regular, name, 0o644);
    entry.size = data.len() as u64;
    entry.stored = entry.size;
    let mut writer = Writer::new(Vec::new());
    writer.append(&entry, &mut &data[..]).unwrap();
    writer.finish().unwrap()
}

pub(crate) fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

/// An image `latest` of layers with a file each; gives its manifest.
pub(crate) fn image(content: &mut Content, platform: &str, tars: &[Vec<u8>]) -> Manifest {
    let layers =
        tars.iter().map(|tar| content.add_blob(media::OCI_LAYER_GZIP, gzip(tar))).collect();
    let platform: Platform = platform.parse().unwrap();
    let config = ImageConfig {
        os: platform.os,
        architecture: platform.architecture,
        rootfs: RootFs {
            diff_ids: tars.iter().map(|tar| digest(tar)).collect(),
            ..RootFs::default()
        },
        ..ImageConfig::default()
    };
    let config = content.add_blob(media::OCI_CONFIG, to_bytes(&config));
    let manifest = Manifest {
        schema_version: 2,
        media_type: media::OCI_MANIFEST.to_owned(),
        artifact_type: String::new(),
        config,
        layers,
        subject: None,
        annotations: BTreeMap::new(),
    };
    content.add_manifest("latest", media::OCI_MANIFEST, to_bytes(&manifest));
    manifest
}
