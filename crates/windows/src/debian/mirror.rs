//! Where packages come from: a mirror by HTTP, or a directory with the same layout.

use std::fmt;
use std::io::{self, Read, Seek};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use fs_err as fs;
use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use silo_http::{Client, Options, Proxies, Request, StatusCode, Uri, header};
use tokio::runtime::{Builder, Runtime};

use super::{Error, safe_path};

/// How long a mirror may take for the head of an answer, and be silent within a body.
const PATIENCE: Duration = Duration::from_mins(1);

/// The root of an archive: what has `dists/` and `pool/` beneath it.
///
/// It blocks, and must be dropped where blocking is allowed.
#[derive(Debug, Clone)]
pub struct Mirror {
    address: String,
    source: Source,
}

#[derive(Debug, Clone)]
enum Source {
    Directory(PathBuf),
    Http(Arc<Http>),
}

#[derive(Debug)]
struct Http {
    client: Client,
    runtime: Runtime,
}

impl Mirror {
    /// A mirror by its address: `file://` and an absolute path, `http://` or `https://`.
    /// `variable` gives the environment's proxy variables.
    pub fn new(address: &str, variable: impl Fn(&str) -> Option<String>) -> Result<Self, Error> {
        let address = address.trim_end_matches('/');
        let source = match address.split_once("://") {
            Some(("file", path)) if path.starts_with('/') => Source::Directory(path.into()),
            Some(("http" | "https", rest)) if !rest.is_empty() => {
                let proxies = Proxies::from_variables(variable);
                let client = Client::new(Options { proxies, ..Options::default() });
                let runtime =
                    Builder::new_multi_thread().worker_threads(1).enable_all().build().map_err(
                        |error| Error::File("cannot start a thread for downloads", error),
                    )?;
                Source::Http(Arc::new(Http { client, runtime }))
            }
            _ => return Err(Error::Address(address.to_owned())),
        };
        Ok(Self { address: address.to_owned(), source })
    }

    /// The root of another archive of the same mirror, which has a name that only ends
    /// differently: `debian-security` is beside `debian`.
    pub fn beside(&self, suffix: &str) -> Self {
        let address = format!("{}{suffix}", self.address);
        let source = match &self.source {
            Source::Directory(path) => {
                let mut path = path.clone().into_os_string();
                path.push(suffix);
                Source::Directory(path.into())
            }
            Source::Http(http) => Source::Http(Arc::clone(http)),
        };
        Self { address, source }
    }

    /// A whole small file.
    pub fn small(&self, path: &str, limit: u64) -> Result<Vec<u8>, Error> {
        let (_, body) = self.open(path, 0)?;
        let mut bytes = Vec::new();
        body.take(limit + 1)
            .read_to_end(&mut bytes)
            .map_err(|source| Error::Fetch { path: self.name(path), source })?;
        if bytes.len() as u64 > limit {
            let reason = format!("it is larger than {limit} bytes");
            return Err(Error::Malformed { path: self.name(path), reason });
        }
        Ok(bytes)
    }

    /// Opens a file, from `offset` on if that can be had: gives the offset at which it begins.
    pub fn open(&self, path: &str, offset: u64) -> Result<(u64, Box<dyn Read + Send + '_>), Error> {
        if !safe_path(path) {
            let reason = "it is no path".to_owned();
            return Err(Error::Malformed { path: self.name(path), reason });
        }
        let failed = |source| Error::Fetch { path: self.name(path), source };
        match &self.source {
            Source::Directory(directory) => match fs::File::open(directory.join(path)) {
                Ok(mut file) => {
                    file.seek(io::SeekFrom::Start(offset)).map_err(failed)?;
                    Ok((offset, Box::new(file)))
                }
                Err(error) if error.kind() == io::ErrorKind::NotFound => {
                    Err(Error::Missing(self.name(path)))
                }
                Err(error) => Err(failed(error)),
            },
            Source::Http(http) => http.open(&self.name(path), offset),
        }
    }

    fn name(&self, path: &str) -> String {
        format!("{}/{path}", self.address)
    }
}

impl fmt::Display for Mirror {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.address)
    }
}

impl Http {
    fn open(&self, url: &str, offset: u64) -> Result<(u64, Box<dyn Read + Send + '_>), Error> {
        let failed = |source| Error::Fetch { path: url.to_owned(), source };
        let uri = silo_http::parse_url(url).map_err(|error| failed(io::Error::other(error)))?;
        if offset > 0 {
            let opened = self.runtime.block_on(self.rest(&uri, offset));
            if let Some(body) = opened.map_err(failed)? {
                return Ok((offset, Box::new(body)));
            }
        }
        match self.runtime.block_on(self.client.get(&uri)) {
            Ok(download) => {
                // The reader's task needs the runtime around it.
                let _entered = self.runtime.enter();
                Ok((0, Box::new(download.into_reader())))
            }
            Err(silo_http::Error::Status { status: StatusCode::NOT_FOUND, .. }) => {
                Err(Error::Missing(url.to_owned()))
            }
            Err(error) => Err(failed(io::Error::other(error))),
        }
    }

    /// The rest of a file, if the server can give just that.
    async fn rest(&self, uri: &Uri, offset: u64) -> io::Result<Option<Body<'_>>> {
        let mut request = Request::new(silo_http::empty());
        *request.uri_mut() = uri.clone();
        let range = header::HeaderValue::from_str(&format!("bytes={offset}-"));
        request.headers_mut().insert(header::RANGE, range.map_err(io::Error::other)?);
        let response = tokio::time::timeout(PATIENCE, self.client.send(request)).await?;
        let response = response.map_err(io::Error::other)?;
        let begins = response
            .headers()
            .get(header::CONTENT_RANGE)
            .and_then(|value| value.to_str().ok())
            .is_some_and(|value| value.starts_with(&format!("bytes {offset}-")));
        let partial = response.status() == StatusCode::PARTIAL_CONTENT && begins;
        let body = response.into_body();
        Ok(partial.then(|| Body { http: self, body, current: Bytes::new() }))
    }
}

/// A body for code that blocks.
struct Body<'a> {
    http: &'a Http,
    body: Incoming,
    current: Bytes,
}

impl Read for Body<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.current.is_empty() {
            let frame = async { tokio::time::timeout(PATIENCE, self.body.frame()).await };
            match self.http.runtime.block_on(frame)? {
                None => return Ok(0),
                Some(frame) => {
                    let frame = frame.map_err(io::Error::other)?;
                    self.current = frame.into_data().unwrap_or_default();
                }
            }
        }
        let count = buffer.len().min(self.current.len());
        buffer[..count].copy_from_slice(&self.current.split_to(count));
        Ok(count)
    }
}

#[cfg(test)]
mod tests {
    use super::super::server::{Answer, Server};
    use super::*;

    fn read(mirror: &Mirror, path: &str, offset: u64) -> Result<(u64, String), Error> {
        let (start, mut body) = mirror.open(path, offset)?;
        let mut text = String::new();
        body.read_to_string(&mut text).unwrap();
        Ok((start, text))
    }

    #[test]
    fn directories_are_mirrors() {
        let directory = tempfile::tempdir().unwrap();
        fs::create_dir(directory.path().join("d")).unwrap();
        fs::write(directory.path().join("d/file"), "content").unwrap();
        let address = format!("file://{}/", directory.path().display());
        let mirror = Mirror::new(&address, |_| None).unwrap();
        assert_eq!(read(&mirror, "d/file", 3).unwrap(), (3, "tent".to_owned()));
        assert!(matches!(read(&mirror, "d/none", 0), Err(Error::Missing(_))));
        assert!(matches!(read(&mirror, "../etc", 0), Err(Error::Malformed { .. })));
        assert!(matches!(mirror.small("d/file", 6), Err(Error::Malformed { .. })));
        assert_eq!(mirror.small("d/file", 7).unwrap(), b"content");
        assert!(mirror.beside("-x").to_string().ends_with("-x"));
        for wrong in ["", "file://relative", "ftp://host/", "/dir"] {
            assert!(matches!(Mirror::new(wrong, |_| None), Err(Error::Address(_))), "{wrong}");
        }
    }

    #[test]
    fn servers_are_mirrors() {
        let server = Server::start(|request| match request.path.as_str() {
            "/debian/file" => request.content(b"content"),
            _ => Answer::Missing,
        });
        let mirror = Mirror::new(&server.address("debian"), |_| None).unwrap();
        assert_eq!(read(&mirror, "file", 0).unwrap(), (0, "content".to_owned()));
        assert_eq!(read(&mirror, "file", 3).unwrap(), (3, "tent".to_owned()));
        assert!(matches!(read(&mirror, "none", 0), Err(Error::Missing(_))));
    }

    #[test]
    fn servers_that_cannot_resume_give_everything() {
        let server = Server::start(|_| Answer::Content(0, b"content".to_vec()));
        let mirror = Mirror::new(&server.address("debian"), |_| None).unwrap();
        assert_eq!(read(&mirror, "file", 3).unwrap(), (0, "content".to_owned()));
    }
}
