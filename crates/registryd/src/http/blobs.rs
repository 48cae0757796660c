//! Blobs: given out, whole or in part, and deleted.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;
use std::sync::Arc;

use bytes::Bytes;
use futures_util::stream;
use hyper::header::{
    ACCEPT_RANGES, CACHE_CONTROL, CONTENT_LENGTH, CONTENT_RANGE, CONTENT_TYPE, ETAG, IF_NONE_MATCH,
    IF_RANGE, RANGE,
};
use hyper::{HeaderMap, Method, Response, StatusCode};
use silo_store::{Layer, View};
use tokio::sync::{OwnedSemaphorePermit, mpsc};

use crate::Error;
use crate::engine::Content;
use crate::error::Refusal;
use crate::http::answer::{self, Answer, Body, set};
use crate::http::server::{Server, blocking};
use crate::http::{proxy, range};
use crate::name::{Digest, Name};
use crate::proxy::Fetch;
use crate::store::db::seconds;

/// Bytes that are read at once.
const CHUNK: u64 = 256 << 10;
/// Pieces of a layer that is made which wait for the client.
const PIECES: usize = 4;

/// GET and HEAD.
pub(crate) async fn get(
    server: &Arc<Server>,
    method: &Method,
    name: Name,
    digest: Digest,
    headers: &HeaderMap,
) -> Answer {
    let tag = format!("\"{digest}\"");
    let head = |code, size: u64| {
        let mut response = answer::status(code);
        set(&mut response, ETAG, &tag);
        set(&mut response, answer::DIGEST, &digest.to_string());
        set(&mut response, CACHE_CONTROL, "max-age=31536000, immutable");
        set(&mut response, CONTENT_TYPE, "application/octet-stream");
        set(&mut response, ACCEPT_RANGES, "bytes");
        set(&mut response, CONTENT_LENGTH, &size.to_string());
        response
    };
    let engines = server.engine(&name).is_some();
    if method == Method::HEAD && !engines {
        let writable = !server.config.read_only && server.upstream.is_none();
        let stale = seconds(server.config.collect.grace) / 4;
        let (of, wanted) = (name.clone(), digest.clone());
        let found = blocking(server, move |registry| {
            // Who asks may be about to leave a push of it out.
            if writable {
                registry.claim_blob(&of, &wanted, stale)
            } else {
                registry.blob(&of, &wanted)
            }
        })
        .await;
        let size = match found {
            Err(Error::Refused(_)) if server.upstream.is_some() => {
                proxy::size(server, &name, &digest).await?
            }
            found => found?,
        };
        return Ok(head(StatusCode::OK, size));
    }
    let open = || {
        let (of, wanted) = (name.clone(), digest.clone());
        blocking(server, move |registry| registry.open_blob(&of, &wanted))
    };
    let source = if engines {
        of_engine(server, &name, &digest).await?
    } else {
        match (open().await, &server.upstream) {
            (Err(Error::Refused(_)), Some(upstream)) => {
                match proxy::fetch(server, upstream, &name, &digest).await? {
                    Some(fetch) => Source::Fetch(fetch),
                    None => open().await.map(|(file, size)| Source::File(file, size))?,
                }
            }
            (opened, _) => opened.map(|(file, size)| Source::File(file, size))?,
        }
    };
    let size = source.size();
    if method == Method::HEAD {
        return Ok(head(StatusCode::OK, size));
    }
    let text = |name| headers.get(name).and_then(|value| value.to_str().ok());
    let same = |value: &str| value.split(',').any(|part| part.trim() == tag);
    if text(IF_NONE_MATCH).is_some_and(same) {
        let mut response = head(StatusCode::NOT_MODIFIED, 0);
        response.headers_mut().remove(CONTENT_LENGTH);
        return Ok(response);
    }
    let range = match text(RANGE) {
        Some(range) if text(IF_RANGE).is_none_or(same) => range::wanted(range, size)?,
        _ => None,
    };
    // Who takes a made layer holds a thread, however slowly: some have to be left for others.
    let making = match &source {
        Source::Made(..) => Some(server.making().await?),
        _ => None,
    };
    let Some((first, count)) = range else {
        return Ok(head(StatusCode::OK, size).map(|_| source.body(0, size, making)));
    };
    let mut response = head(StatusCode::PARTIAL_CONTENT, count);
    let last = first + count - 1;
    set(&mut response, CONTENT_RANGE, &format!("bytes {first}-{last}/{size}"));
    Ok(response.map(|_| source.body(first, count, making)))
}

/// Where a blob comes from.
enum Source {
    File(File, u64),
    /// From the registry behind this one, right now.
    Fetch(Arc<Fetch>),
    /// Made anew by what the engine has.
    Made(View, Box<Layer>),
}

impl Source {
    fn size(&self) -> u64 {
        match self {
            Self::File(_, size) => *size,
            Self::Fetch(fetch) => fetch.size,
            Self::Made(_, layer) => layer.tar_size,
        }
    }

    fn body(self, first: u64, count: u64, making: Option<OwnedSemaphorePermit>) -> Body {
        match self {
            Self::File(file, _) => read(file, first, count),
            Self::Fetch(fetch) => proxy::body(&fetch, first, count),
            Self::Made(view, layer) => make(view, *layer, making, first, count),
        }
    }
}

/// Reads a part of a file as the client takes it: who takes nothing holds no thread.
fn read(file: File, first: u64, count: u64) -> Body {
    let file = Arc::new(file);
    Body::stream(stream::unfold((first, count), move |(offset, left)| {
        let file = Arc::clone(&file);
        async move {
            if left == 0 {
                return None;
            }
            let count = left.min(CHUNK);
            let work = move || {
                let mut bytes = vec![0; usize::try_from(count).unwrap_or_default()];
                file.read_exact_at(&mut bytes, offset).map(|()| Bytes::from(bytes))
            };
            let read = tokio::task::spawn_blocking(work).await;
            let bytes = read.unwrap_or_else(|error| Err(io::Error::other(error)));
            if let Err(error) = &bytes {
                tracing::error!(%error, "read a blob");
            }
            Some((bytes, (offset + count, left - count)))
        }
    }))
}

/// A blob of an image of the engine's.
async fn of_engine(server: &Arc<Server>, name: &Name, digest: &Digest) -> Result<Source, Error> {
    let (at, of, wanted) = (Arc::clone(server), name.clone(), digest.clone());
    let find = move |_: &crate::Registry| {
        let engine = at.engine(&of).ok_or_else(Refusal::no_blob)?;
        Ok(match engine.blob(&of, &wanted)? {
            Content::File(file, size) => Source::File(file, size),
            Content::Layer(layer) => Source::Made(engine.view.clone(), layer),
        })
    };
    blocking(server, find).await
}

/// Makes a layer's tar as the client takes it. Its last piece goes out when all of it was right.
fn make(
    view: View,
    layer: Layer,
    making: Option<OwnedSemaphorePermit>,
    first: u64,
    count: u64,
) -> Body {
    let (sender, receiver) = mpsc::channel::<io::Result<Bytes>>(PIECES);
    tokio::task::spawn_blocking(move || {
        let _making = making;
        let piece = Vec::new();
        let mut out = Part { sender: sender.clone(), skip: first, left: count, piece };
        match view.write_layer_tar(&layer, &mut out) {
            Ok(()) => drop(out.send()),
            // The client has what it wanted, or is gone.
            Err(_) if out.sender.is_closed() => {}
            Err(_) if out.left == 0 && out.piece.is_empty() => {}
            Err(error) => {
                tracing::error!(%error, layer = %layer.chain_id, "make a layer");
                drop(sender.blocking_send(Err(io::Error::other("the layer cannot be read"))));
            }
        }
    });
    Body::stream(stream::unfold(receiver, |mut receiver| async move {
        receiver.recv().await.map(|piece| (piece, receiver))
    }))
}

/// Sends a part of what is written.
struct Part {
    sender: mpsc::Sender<io::Result<Bytes>>,
    /// Bytes before it.
    skip: u64,
    /// Bytes of it that have not come.
    left: u64,
    piece: Vec<u8>,
}

impl Part {
    fn send(&mut self) -> io::Result<()> {
        let piece = std::mem::take(&mut self.piece);
        if piece.is_empty() {
            return Ok(());
        }
        self.sender.blocking_send(Ok(piece.into())).map_err(|_| io::ErrorKind::BrokenPipe.into())
    }
}

impl io::Write for Part {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let length = bytes.len() as u64;
        let skipped = self.skip.min(length);
        self.skip -= skipped;
        let taken = self.left.min(length - skipped);
        self.left -= taken;
        let start = usize::try_from(skipped).unwrap_or(bytes.len());
        let end = usize::try_from(skipped + taken).unwrap_or(bytes.len());
        self.piece.extend_from_slice(&bytes[start..end]);
        // What is kept back goes out when the digest was right.
        if self.piece.len() as u64 >= CHUNK && self.left > 0 {
            self.send()?;
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// DELETE.
pub(crate) async fn delete(server: &Arc<Server>, name: Name, digest: Digest) -> Answer {
    blocking(server, move |registry| registry.delete_blob(&name, &digest)).await?;
    let response: Response<Body> = answer::status(StatusCode::ACCEPTED);
    Ok(response)
}
