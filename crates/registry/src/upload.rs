//! Blobs as they go.
//!
//! A blob whose digest is known goes in one body; one that is made as it goes, and so has no digest
//! before its end, goes as one chunk. When that breaks off, the server is asked what it has, and
//! gets the rest ([`crate::resume`]); what is made as it goes is made again for that, up to there.

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
use crate::resume::{Course, Kept};
use crate::session::Ask;
use crate::{Error, Repository};

/// Bytes that are read at once.
const PIECE: usize = 256 << 10;
/// Pieces that wait for the network.
const PIECES: usize = 4;

/// What can be read from any position, again and again.
pub(crate) type Open<'a> = &'a (dyn Fn(u64) -> io::Result<Box<dyn Read + Send>> + Sync);

/// How many bytes have gone out.
pub(crate) type Moved = Arc<AtomicU64>;

/// The end of a channel from which a body comes; an error, or an end of the channel without the
/// empty piece, breaks the request off.
#[derive(Debug)]
pub(crate) struct Outlet {
    first: Option<io::Result<Bytes>>,
    pieces: mpsc::Receiver<io::Result<Bytes>>,
    moved: Moved,
}

/// What is sent comes out of the body.
pub(crate) fn channel(moved: &Moved) -> (mpsc::Sender<io::Result<Bytes>>, Outlet) {
    let (sender, pieces) = mpsc::channel(PIECES);
    (sender, Outlet { first: None, pieces, moved: Arc::clone(moved) })
}

impl Outlet {
    /// The next piece, an empty one at the end.
    async fn next(&mut self) -> io::Result<Bytes> {
        let next = match self.first.take() {
            Some(piece) => Some(piece),
            None => self.pieces.recv().await,
        };
        let piece = next.unwrap_or_else(|| Err(io::ErrorKind::BrokenPipe.into()))?;
        self.moved.fetch_add(piece.len() as u64, Ordering::Relaxed);
        Ok(piece)
    }

    /// Whether nothing more comes.
    async fn is_at_end(&mut self) -> bool {
        if self.first.is_none() {
            self.first = self.pieces.recv().await;
        }
        matches!(&self.first, Some(Ok(piece)) if piece.is_empty())
    }

    /// All that is left.
    fn body(self) -> Body {
        let frames = stream::unfold(Some(self), |outlet| async move {
            let mut outlet = outlet?;
            match outlet.next().await {
                Ok(piece) if piece.is_empty() => None,
                Ok(piece) => Some((Ok(Frame::data(piece)), Some(outlet))),
                Err(error) => Some((Err(error), None)),
            }
        });
        StreamBody::new(frames).boxed_unsync()
    }
}

/// A body of what a reader has.
fn body_of(mut reader: Box<dyn Read + Send>, moved: &Moved) -> Body {
    let (sender, outlet) = channel(moved);
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
    outlet.body()
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
    pub(crate) async fn cancel(&self, upload: Uri) {
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
        self.upload(blob, open, None).await
    }

    /// The same, which may go on with what an earlier process has begun.
    pub(crate) async fn upload(
        &self,
        blob: &Descriptor,
        open: Open<'_>,
        kept: Option<Kept>,
    ) -> Result<(), Error> {
        let mut course = Course::begin(self, kept, blob.size).await;
        loop {
            let Err(error) = self.upload_rest(blob, open, &mut course).await else {
                course.ended();
                return Ok(());
            };
            course.failed(error, blob.size).await?;
            // What failed may be the answer alone.
            if course.offset() == 0 && self.has_blob(&blob.digest).await? {
                course.ended();
                return Ok(());
            }
        }
    }

    /// Where an upload goes on, and what the server has of it; `None` if that is nothing.
    pub(crate) async fn progress_of(&self, upload: &Uri) -> Result<Option<(Uri, u64)>, Error> {
        let ask = self.ask_at(Method::GET, upload.clone(), Vec::new());
        let answer = self.session()?.ask(&ask).await?.expect(&[204]).await?;
        let next = location(&answer).unwrap_or_else(|_| upload.clone());
        Ok(received(answer.header("range")).map(|count| (next, count)))
    }

    /// One attempt at what the server has not.
    async fn upload_rest(
        &self,
        blob: &Descriptor,
        open: Open<'_>,
        course: &mut Course<'_>,
    ) -> Result<(), Error> {
        let at = match course.upload() {
            Some(at) => at.clone(),
            None => match self.begin_known(&blob.digest).await? {
                Begun::Mounted => return Ok(()),
                Begun::At(at) => at,
            },
        };
        course.is_at(&at);
        let session = self.session()?;
        let offset = course.offset();
        let rest = blob.size - offset;
        let moved = Moved::default();
        let body = || open(offset).map(|reader| body_of(reader, &moved)).map_err(Error::Read);
        let count = || moved.load(Ordering::Relaxed);
        let octets = ("content-type", "application/octet-stream".to_owned());
        let last = if offset == 0 {
            let ask = self.ask_at(Method::PUT, with_digest(&at, &blob.digest)?, vec![octets]);
            session.tell(&ask, body()?, Some(rest), &count).await?
        } else {
            let mut at = at;
            if rest > 0 {
                let range = ("content-range", format!("{offset}-{}", blob.size - 1));
                let ask = self.ask_at(Method::PATCH, at, vec![octets, range]);
                let answer = session.tell(&ask, body()?, Some(rest), &count).await?;
                at = location(&answer.expect(&[202]).await?)?;
                course.is_at(&at);
            }
            self.end(at, &blob.digest).await?
        };
        last.expect(&[201]).await.map(drop)
    }

    async fn end(&self, at: Uri, digest: &Digest) -> Result<Answer, Error> {
        let session = self.session()?;
        let ask = self.ask_at(Method::PUT, with_digest(&at, digest)?, Vec::new());
        session.tell(&ask, silo_http::empty(), Some(0), &|| 0).await
    }

    /// One attempt at a blob that is made as it goes, of which `outlet` has what the server has
    /// not. `made` gives its digest when all is sent.
    pub(crate) async fn upload_made(
        &self,
        outlet: Outlet,
        course: &mut Course<'_>,
        made: impl Future<Output = Result<Descriptor, Error>>,
    ) -> Result<Descriptor, Error> {
        let at = match course.upload() {
            Some(at) => at.clone(),
            None => match self.begin("blobs/uploads/", None).await? {
                Begun::At(at) => at,
                Begun::Mounted => {
                    return Err(Error::Broken("the server took a blob of no digest"));
                }
            },
        };
        course.is_at(&at);
        let at = match self.send_made(at, outlet, course.offset()).await {
            Ok(at) => at,
            Err(error) => {
                return match made.await {
                    // That the body could not be made is the reason why it broke off.
                    Err(reason) if !matches!(reason, Error::Cancelled) => Err(reason),
                    _ => Err(error),
                };
            }
        };
        let blob = made.await?;
        course.is_at(&at);
        if course.offset() > blob.size {
            let reason = format!("it has more of the upload than the {} bytes of it", blob.size);
            return Err(Error::Protocol { url: at.to_string(), reason });
        }
        self.end(at, &blob.digest).await?.expect(&[201]).await?;
        Ok(blob)
    }

    /// Sends what is made; gives back where the upload is to be ended.
    async fn send_made(&self, at: Uri, mut outlet: Outlet, offset: u64) -> Result<Uri, Error> {
        let session = self.session()?;
        let moved = Arc::clone(&outlet.moved);
        let count = || moved.load(Ordering::Relaxed);
        let octets = ("content-type", "application/octet-stream".to_owned());
        let mut at = at;
        if offset > 0 {
            // How long it will be is not known, but where it begins: a server that is at another
            // place says so of one piece, and takes the others as they come.
            let piece = outlet.next().await.map_err(Error::Read)?;
            if piece.is_empty() {
                return Ok(at);
            }
            let length = piece.len() as u64;
            let range = ("content-range", format!("{offset}-{}", offset + length - 1));
            let ask = self.ask_at(Method::PATCH, at, vec![octets.clone(), range]);
            let answer = session.tell(&ask, silo_http::full(piece), Some(length), &count).await?;
            at = location(&answer.expect(&[202]).await?)?;
            if outlet.is_at_end().await {
                return Ok(at);
            }
        }
        let ask = self.ask_at(Method::PATCH, at, vec![octets]);
        let answer = session.tell(&ask, outlet.body(), None, &count).await?;
        location(&answer.expect(&[202]).await?)
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
