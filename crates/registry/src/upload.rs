//! Blobs as they go.
//!
//! A blob whose digest is known goes in one body; when that breaks off, the server is asked what
//! it has, and gets the rest. One that is made as it goes, and so has no digest before its end,
//! goes as one chunk, and begins anew when it breaks off.

use std::io::{self, Read};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use futures_util::stream;
use http_body_util::{BodyExt as _, StreamBody};
use silo_http::{Body, Frame, Method, Uri};
use silo_oci::image::Descriptor;
use silo_types::Digest;
use silo_types::query::escape;
use tokio::sync::mpsc;

use crate::answer::Answer;
use crate::repository::Inquiry;
use crate::session::Ask;
use crate::{Error, Repository};

/// Bytes that are read at once.
const PIECE: usize = 256 << 10;
/// Bytes after which a connection counts as one that worked.
const WORKED: u64 = 256 << 10;
/// How often a server may lose an upload.
pub(crate) const LOST: u32 = 3;
/// Pieces that wait for the network.
const PIECES: usize = 4;

/// What can be read from any position, again and again.
pub(crate) type Open<'a> = &'a (dyn Fn(u64) -> io::Result<Box<dyn Read + Send>> + Sync);

/// How many bytes have gone out.
pub(crate) type Moved = Arc<AtomicU64>;

/// A body that is fed by a channel; an error, or an end of the channel without the empty piece,
/// breaks the request off.
pub(crate) fn channel(moved: &Moved) -> (mpsc::Sender<io::Result<Bytes>>, Body) {
    let (sender, receiver) = mpsc::channel::<io::Result<Bytes>>(PIECES);
    let moved = Arc::clone(moved);
    let frames = stream::unfold(Some((receiver, moved)), |state| async move {
        let (mut receiver, moved) = state?;
        match receiver.recv().await {
            Some(Ok(piece)) if piece.is_empty() => None,
            Some(Ok(piece)) => {
                moved.fetch_add(piece.len() as u64, Ordering::Relaxed);
                let frame = Frame::data(piece);
                Some((Ok(frame), Some((receiver, moved))))
            }
            Some(Err(error)) => Some((Err(error), None)),
            None => Some((Err(io::ErrorKind::BrokenPipe.into()), None)),
        }
    });
    (sender, StreamBody::new(frames).boxed_unsync())
}

/// A body of what a reader has.
fn body_of(mut reader: Box<dyn Read + Send>, moved: &Moved) -> Body {
    let (sender, body) = channel(moved);
    tokio::task::spawn_blocking(move || {
        loop {
            let mut piece = vec![0; PIECE];
            let (piece, last) = match reader.read(&mut piece) {
                Ok(count) => {
                    piece.truncate(count);
                    (Ok(Bytes::from(piece)), count == 0)
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => (Err(error), true),
            };
            if sender.blocking_send(piece).is_err() || last {
                return;
            }
        }
    });
    body
}

/// An upload that the server has begun.
enum Begun {
    /// It is done: the blob came from another repository.
    Mounted,
    At(Uri),
}

/// `location` with the digest that ends an upload.
fn with_digest(location: &Uri, digest: &Digest) -> Result<Uri, Error> {
    let text = location.to_string();
    let separator = if location.query().is_some() { '&' } else { '?' };
    let digest = escape(&digest.to_string());
    Ok(silo_http::parse_url(&format!("{text}{separator}digest={digest}"))?)
}

/// Where an upload goes on.
fn location(answer: &Answer) -> Result<Uri, Error> {
    let text = answer.header("location");
    let joined = (!text.is_empty()).then(|| silo_http::join(&answer.url, text)).flatten();
    joined.ok_or_else(|| answer.wrong(format!("the location of the upload is {text:?}")))
}

/// The number of bytes that a server has, by its `Range: 0-<last>`.
fn received(range: &str) -> Option<u64> {
    let range = range.strip_prefix("bytes=").unwrap_or(range);
    let (start, last) = range.split_once('-')?;
    let (start, last): (u64, u64) = (start.trim().parse().ok()?, last.trim().parse().ok()?);
    // `0-0` is what servers say who have nothing.
    (start == 0 && last > 0).then(|| last + 1)
}

impl Repository {
    /// Asks the registry to take a blob from another of its repositories; `false` if it does not.
    pub async fn mount(&self, digest: &Digest, from: &str) -> Result<bool, Error> {
        let path =
            format!("blobs/uploads/?mount={}&from={}", escape(&digest.to_string()), escape(from));
        let mut scopes = self.scopes().to_vec();
        scopes.push(format!("repository:{from}:pull"));
        match self.begin(&path, Some(&scopes)).await? {
            Begun::Mounted => Ok(true),
            Begun::At(upload) => {
                self.cancel(upload).await;
                Ok(false)
            }
        }
    }

    async fn begin(&self, path: &str, scopes: Option<&[String]>) -> Result<Begun, Error> {
        let inquiry =
            Inquiry { method: Method::POST, scopes, good: &[201, 202], ..Inquiry::get(path) };
        let answer = self.ask(&inquiry).await?;
        if answer.status.as_u16() == 201 {
            Ok(Begun::Mounted)
        } else {
            location(&answer).map(Begun::At)
        }
    }

    /// Begins an upload of a blob that the server may find by itself: in another repository, or,
    /// if it is Silo's, in the store of an engine on the same host.
    async fn begin_known(&self, digest: &Digest) -> Result<Begun, Error> {
        let path = format!("blobs/uploads/?mount={}", escape(&digest.to_string()));
        match self.begin(&path, None).await {
            // It does not know that there may be no `from`.
            Err(Error::Refused { status: 400 | 404 | 405 | 422, .. }) => {
                self.begin("blobs/uploads/", None).await
            }
            result => result,
        }
    }

    /// Tells the server that an upload will not go on. It finds out by itself if that fails.
    async fn cancel(&self, upload: Uri) {
        if let Ok(session) = self.session() {
            let ask = self.ask_at(Method::DELETE, upload, Vec::new());
            if let Err(error) = session.ask(&ask).await {
                tracing::debug!(%error, "cancel an upload");
            }
        }
    }

    fn ask_at(&self, method: Method, url: Uri, headers: Vec<(&'static str, String)>) -> Ask<'_> {
        Ask { method, url, headers, scopes: self.scopes(), is_checked: false }
    }

    /// Uploads a blob whose digest is known. `open` gives its bytes from a position on, which an
    /// upload that broke may ask for again. Whether the blob is there already is the caller's to
    /// ask ([`Self::has_blob`]).
    pub async fn put_blob(
        &self,
        blob: &Descriptor,
        open: &(dyn Fn(u64) -> io::Result<Box<dyn Read + Send>> + Sync),
    ) -> Result<(), Error> {
        self.upload(blob, open, &Moved::default()).await
    }

    /// The same, with a count of what has gone out.
    pub(crate) async fn upload(
        &self,
        blob: &Descriptor,
        open: Open<'_>,
        moved: &Moved,
    ) -> Result<(), Error> {
        let mut attempts = self.registries().config().retry.begin();
        let mut refused = false;
        let mut upload: Option<Uri> = None;
        let mut lost = 0;
        let mut offset = 0;
        loop {
            let result = self.upload_from(blob, open, moved, &mut upload, offset).await;
            let error = match result {
                Ok(()) => return Ok(()),
                Err(error) => error,
            };
            match error {
                // The token was too old.
                Error::Refused { status: 401, .. } if !refused => refused = true,
                error if error.is_unanswered() && !self.has_answered() => return Err(error),
                // The server knows nothing of the upload any more, or has another part of it. One
                // that goes on to say so is not asked for ever.
                Error::Refused { status: 404 | 416, .. } if upload.is_some() && lost < LOST => {
                    lost += 1;
                }
                error => attempts.again(error).await?,
            }
            let before = offset;
            offset = match &upload {
                Some(url) => match self.progress_of(url).await {
                    Some((next, at)) if at < blob.size => {
                        upload = Some(next);
                        at
                    }
                    _ => 0,
                },
                None => 0,
            };
            if offset >= before.saturating_add(WORKED) {
                attempts.progressed();
            }
            if offset == 0 {
                upload = None;
                if self.has_blob(&blob.digest).await? {
                    return Ok(());
                }
            }
            moved.store(offset, Ordering::Relaxed);
        }
    }

    /// Where an upload goes on, and what the server has of it.
    async fn progress_of(&self, upload: &Uri) -> Option<(Uri, u64)> {
        let session = self.session().ok()?;
        let ask = self.ask_at(Method::GET, upload.clone(), Vec::new());
        let answer = session.ask(&ask).await.ok()?.expect(&[204]).await.ok()?;
        let at = received(answer.header("range"))?;
        let next = location(&answer).unwrap_or_else(|_| upload.clone());
        Some((next, at))
    }

    /// One attempt, from `offset` on.
    async fn upload_from(
        &self,
        blob: &Descriptor,
        open: Open<'_>,
        moved: &Moved,
        upload: &mut Option<Uri>,
        offset: u64,
    ) -> Result<(), Error> {
        let at = match upload.clone() {
            Some(at) => at,
            None => match self.begin_known(&blob.digest).await? {
                Begun::Mounted => return Ok(()),
                Begun::At(at) => upload.insert(at).clone(),
            },
        };
        let session = self.session()?;
        let reader = open(offset).map_err(Error::Read)?;
        let body = body_of(reader, moved);
        let count = || moved.load(Ordering::Relaxed);
        let rest = blob.size - offset;
        let octets = ("content-type", "application/octet-stream".to_owned());
        let last = if offset == 0 {
            let ask = self.ask_at(Method::PUT, with_digest(&at, &blob.digest)?, vec![octets]);
            session.tell(&ask, body, Some(rest), &count).await?
        } else {
            let range = ("content-range", format!("{offset}-{}", blob.size - 1));
            let ask = self.ask_at(Method::PATCH, at, vec![octets, range]);
            let answer = session.tell(&ask, body, Some(rest), &count).await?;
            let next = location(&answer.expect(&[202]).await?)?;
            *upload = Some(next.clone());
            self.end(next, &blob.digest).await?
        };
        last.expect(&[201]).await.map(drop)
    }

    async fn end(&self, at: Uri, digest: &Digest) -> Result<Answer, Error> {
        let session = self.session()?;
        let ask = self.ask_at(Method::PUT, with_digest(&at, digest)?, Vec::new());
        session.tell(&ask, silo_http::empty(), Some(0), &|| 0).await
    }

    /// Uploads a blob that is made as it goes, once. `made` gives its digest when all is sent.
    pub(crate) async fn upload_made(
        &self,
        body: Body,
        moved: &Moved,
        made: impl Future<Output = Result<Descriptor, Error>>,
    ) -> Result<Descriptor, Error> {
        let at = match self.begin("blobs/uploads/", None).await? {
            Begun::At(at) => at,
            Begun::Mounted => return Err(Error::Broken("the server took a blob of no digest")),
        };
        let session = self.session()?;
        let octets = ("content-type", "application/octet-stream".to_owned());
        let ask = self.ask_at(Method::PATCH, at, vec![octets]);
        let count = || moved.load(Ordering::Relaxed);
        let answer = session.tell(&ask, body, None, &count).await;
        let answer = match answer {
            Ok(answer) => answer.expect(&[202]).await?,
            Err(error) => {
                return match made.await {
                    // That the body could not be made is the reason why it broke off.
                    Err(reason) if !matches!(reason, Error::Cancelled) => Err(reason),
                    _ => Err(error),
                };
            }
        };
        let blob = made.await?;
        let next = location(&answer)?;
        self.end(next, &blob.digest).await?.expect(&[201]).await?;
        Ok(blob)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_servers_have() {
        for (range, expected) in [
            ("0-99", Some(100)),
            ("bytes=0-99", Some(100)),
            ("0-0", None),
            ("5-9", None),
            ("", None),
            ("0-x", None),
            ("-1", None),
        ] {
            assert_eq!(received(range), expected, "{range}");
        }
    }

    #[test]
    fn ends_of_uploads() {
        let digest = silo_oci::image::digest(b"");
        for (location, start) in [
            (
                "https://r/v2/a/blobs/uploads/u?_state=x%3D",
                "https://r/v2/a/blobs/uploads/u?_state=x%3D&digest=sha256%3Ae3b0",
            ),
            ("https://r/u", "https://r/u?digest=sha256%3Ae3b0"),
        ] {
            let ended = with_digest(&location.parse().unwrap(), &digest).unwrap().to_string();
            assert!(ended.starts_with(start), "{ended}");
        }
    }
}
