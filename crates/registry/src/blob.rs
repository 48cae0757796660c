//! Blobs as they come: a broken download goes on where it was.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use silo_http::Method;
use silo_oci::image::Descriptor;
use silo_types::Digest;

use crate::answer::Answer;
use crate::ranges::{Ahead, Pace};
use crate::repository::Inquiry;
use crate::retry::Attempts;
use crate::session::Ask;
use crate::{Error, Repository};

/// Bytes after which a connection counts as one that worked.
pub(crate) const WORKED: u64 = 256 << 10;
/// URLs of one layer that are tried.
const MAX_URLS: usize = 8;

/// The bytes of a blob from some position on. They are no more than its descriptor says; their
/// digest is the reader's to check.
#[derive(Debug)]
pub struct BlobStream<'a> {
    direct: Direct<'a>,
    ahead: Option<Ahead>,
    pace: Pace,
}

/// One connection that has what comes next.
#[derive(Debug)]
struct Direct<'a> {
    repository: &'a Repository,
    wanted: &'a Descriptor,
    position: u64,
    answer: Option<Answer>,
    /// Where the answer ends, as far as that is said.
    end: u64,
    /// Bytes of the answer that are known already.
    skip: u64,
    attempts: Attempts<'a>,
    /// Where the last connection began.
    began: u64,
    /// What has come of the answer from the position on.
    rest: Bytes,
    /// How long the last connection took to answer.
    latency: Duration,
    /// The server does not know ranges, and refuses those that it is asked for.
    no_ranges: bool,
}

/// Whether a layer may be elsewhere than on the registry.
pub(crate) fn is_foreign(descriptor: &Descriptor) -> bool {
    let kind = &descriptor.media_type;
    kind.contains(".foreign.") || kind.contains(".nondistributable.")
}

impl Repository {
    /// A blob from `position` on, by one connection.
    pub fn blob<'a>(&'a self, wanted: &'a Descriptor, position: u64) -> BlobStream<'a> {
        let direct = Direct {
            repository: self,
            wanted,
            position,
            answer: None,
            end: wanted.size,
            skip: 0,
            attempts: self.registries().config().retry.begin(),
            began: position,
            rest: Bytes::new(),
            latency: Duration::ZERO,
            no_ranges: false,
        };
        BlobStream { direct, ahead: None, pace: Pace::new() }
    }

    /// A blob from `position` on, by several connections if it is big and one is slow
    /// ([`Ranges`](crate::Ranges)).
    pub fn blob_in_parts<'a>(
        self: &'a Arc<Self>,
        wanted: &'a Descriptor,
        position: u64,
    ) -> BlobStream<'a> {
        let ranges = &self.registries().config().ranges;
        let is_big = wanted.size.saturating_sub(position) > ranges.length.saturating_mul(2);
        let ahead = is_big.then(|| Ahead::new(Arc::clone(self), wanted));
        BlobStream { ahead, ..self.blob(wanted, position) }
    }

    /// A whole blob, which is small; its digest is checked.
    pub async fn blob_bytes(&self, wanted: &Descriptor, limit: usize) -> Result<Vec<u8>, Error> {
        if wanted.size > limit as u64 {
            let (url, what) = (wanted.digest.to_string(), "the configuration");
            return Err(Error::TooLarge { url, what, limit });
        }
        let mut stream = self.blob(wanted, 0);
        let mut bytes = Vec::new();
        while let Some(piece) = stream.next().await? {
            bytes.extend_from_slice(&piece);
        }
        let actual = silo_oci::image::digest(&bytes);
        if actual != wanted.digest {
            // docker wording
            return Err(Error::Digest { what: "image config", expected: wanted.digest, actual });
        }
        Ok(bytes)
    }

    /// Whether the repository has a blob.
    pub async fn has_blob(&self, digest: &Digest) -> Result<bool, Error> {
        let path = format!("blobs/{digest}");
        let inquiry = Inquiry { method: Method::HEAD, is_checked: true, ..Inquiry::get(&path) };
        match self.ask(&inquiry).await {
            Ok(_) => Ok(true),
            Err(error) if error.is_absent() => Ok(false),
            Err(error) => Err(error),
        }
    }
}

fn too_long(size: u64) -> String {
    format!("the blob is longer than the {size} bytes of its descriptor")
}

impl BlobStream<'_> {
    /// The next bytes; `None` when all have come.
    pub async fn next(&mut self) -> Result<Option<Bytes>, Error> {
        let size = self.direct.wanted.size;
        let Some(ahead) = &mut self.ahead else { return self.direct.next(size).await };
        loop {
            let position = self.direct.position;
            ahead.extend(position, self.direct.answer.is_some());
            let limit = ahead.start().unwrap_or(size);
            if limit > position || position >= size {
                let asked = Instant::now();
                let piece = self.direct.next(limit).await?;
                let (waited, latency) = (asked.elapsed(), self.direct.latency);
                if self.direct.is_without_ranges() {
                    ahead.give_up();
                }
                let ranges = &self.direct.repository.registries().config().ranges;
                let bytes = piece.as_ref().map_or(0, Bytes::len);
                if self.pace.is_slow(waited, bytes, latency, ranges) {
                    ahead.begin();
                }
                return Ok(piece);
            }
            if let Some(piece) = ahead.next().await {
                self.direct.went_on(&piece);
                return Ok(Some(piece));
            }
        }
    }
}

impl Direct<'_> {
    /// Bytes came by another connection, so that this one has no more to send.
    fn went_on(&mut self, piece: &Bytes) {
        (self.answer, self.rest) = (None, Bytes::new());
        self.position += piece.len() as u64;
        self.attempts.progressed();
    }

    /// Whether it is known that the server has no ranges.
    fn is_without_ranges(&self) -> bool {
        self.no_ranges
            || self.answer.as_ref().is_some_and(|answer| answer.header("accept-ranges") == "none")
    }

    /// The next bytes, up to `limit`; `None` when they have come.
    async fn next(&mut self, limit: u64) -> Result<Option<Bytes>, Error> {
        loop {
            if self.position >= limit {
                return Ok(None);
            }
            if !self.rest.is_empty() {
                let length = usize::try_from(limit - self.position).unwrap_or(usize::MAX);
                let piece = self.rest.split_to(length.min(self.rest.len()));
                self.position += piece.len() as u64;
                if self.position - self.began >= WORKED {
                    self.attempts.progressed();
                }
                return Ok(Some(piece));
            }
            let Some(answer) = &mut self.answer else {
                let asked = Instant::now();
                match self.open().await {
                    Ok(answer) => {
                        self.latency = asked.elapsed();
                        self.answer = Some(answer);
                    }
                    Err(Error::Refused { status: 416, .. })
                        if self.position > 0 && !self.no_ranges =>
                    {
                        self.no_ranges = true;
                    }
                    Err(error) => self.attempts.again(error).await?,
                }
                continue;
            };
            let error = match answer.next().await {
                Ok(Some(mut piece)) => {
                    let skipped = self.skip.min(piece.len() as u64);
                    self.skip -= skipped;
                    drop(piece.split_to(usize::try_from(skipped).unwrap_or(piece.len())));
                    if piece.is_empty() {
                        continue;
                    }
                    if self.position + piece.len() as u64 > self.end {
                        return Err(answer.wrong(too_long(self.wanted.size)));
                    }
                    self.rest = piece;
                    continue;
                }
                // The server sends less at once than was asked for.
                Ok(None) if self.position == self.end && self.position > self.began => {
                    self.answer = None;
                    continue;
                }
                Ok(None) => answer.ended_early(),
                Err(error) => error,
            };
            self.answer = None;
            self.attempts.again(error).await?;
        }
    }

    /// Asks for what has not come yet.
    async fn open(&mut self) -> Result<Answer, Error> {
        let size = self.wanted.size;
        let start = if self.no_ranges { 0 } else { self.position };
        let part = Part { start, end: None };
        let answer = part.ask(self.repository, self.wanted, None).await?;
        let start = match answer.status.as_u16() {
            206 => {
                self.end = part.check(&answer, size)?;
                start
            }
            // It does not know ranges: everything comes again.
            _ => {
                check_length(&answer, 0, size, size)?;
                self.end = size;
                0
            }
        };
        self.skip = self.position - start;
        self.began = self.position;
        Ok(answer)
    }
}

fn check_length(answer: &Answer, start: u64, end: u64, size: u64) -> Result<(), Error> {
    match answer.length() {
        Some(length) if start.checked_add(length) != Some(end) => Err(answer.wrong(format!(
            "the blob has {} bytes where its descriptor says {size}",
            start.saturating_add(length),
        ))),
        _ => Ok(()),
    }
}

/// A part of a blob that is asked for.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Part {
    pub(crate) start: u64,
    /// `None` for the blob's own end.
    pub(crate) end: Option<u64>,
}

impl Part {
    /// Asks for it: the server at `place` alone, or whichever has it.
    pub(crate) async fn ask(
        self,
        repository: &Repository,
        wanted: &Descriptor,
        place: Option<usize>,
    ) -> Result<Answer, Error> {
        let path = format!("blobs/{}", wanted.digest);
        let mut headers = Vec::new();
        if self.start > 0 || self.end.is_some() {
            let last = self.end.map(|end| end.saturating_sub(1).to_string()).unwrap_or_default();
            headers.push(("range", format!("bytes={}-{last}", self.start)));
        }
        let inquiry = Inquiry {
            headers: headers.clone(),
            is_checked: true,
            good: &[200, 206],
            ..Inquiry::get(&path)
        };
        let answer = match place {
            Some(place) => repository.once_at(place, &inquiry).await,
            None => repository.once(&inquiry).await,
        };
        match answer {
            Err(error) if error.is_absent() && is_foreign(wanted) => {
                foreign(repository, wanted, headers, error).await
            }
            answer => answer,
        }
    }

    /// Checks that the answer, of status 206, begins with the part of a blob of `size` bytes;
    /// gives where it ends, which may be before the part does.
    pub(crate) fn check(self, answer: &Answer, size: u64) -> Result<u64, Error> {
        let header = answer.header("content-range");
        let Some((first, last, whole)) = content_range(header) else {
            let start = self.start;
            return Err(
                answer.wrong(format!("asked for the bytes from {start} on, it sends {header:?}"))
            );
        };
        if first != self.start {
            return Err(answer.wrong(format!(
                "asked for the bytes from {} on, it sends {header:?}",
                self.start
            )));
        }
        let end = last.saturating_add(1);
        if whole.is_some_and(|whole| whole != size) || end > size {
            let whole = whole.unwrap_or(end);
            return Err(answer
                .wrong(format!("the blob has {whole} bytes where its descriptor says {size}")));
        }
        check_length(answer, first, end, size)?;
        Ok(end)
    }
}

/// Reads `Content-Range`: the first byte, the last, and how many the whole has, if that is said.
fn content_range(header: &str) -> Option<(u64, u64, Option<u64>)> {
    let (range, whole) = header.strip_prefix("bytes ")?.split_once('/')?;
    let (first, last) = range.split_once('-')?;
    let (first, last) = (first.trim().parse().ok()?, last.trim().parse().ok()?);
    let whole = match whole.trim() {
        "*" => None,
        whole => Some(whole.parse().ok()?),
    };
    (first <= last).then_some((first, last, whole))
}

/// Asks other places that the descriptor names, of which nobody gets credentials.
async fn foreign(
    repository: &Repository,
    wanted: &Descriptor,
    headers: Vec<(&'static str, String)>,
    mut last: Error,
) -> Result<Answer, Error> {
    let session = repository.session()?;
    for url in wanted.urls.iter().take(MAX_URLS) {
        let parsed = match silo_http::parse_url(url) {
            Ok(parsed) if url.contains("://") => parsed,
            _ => continue,
        };
        let ask = Ask {
            method: Method::GET,
            url: parsed,
            headers: headers.clone(),
            scopes: &[],
            is_checked: true,
        };
        match session.ask_stranger(&ask).await {
            Ok(answer) => match answer.expect(&[200, 206]).await {
                Ok(answer) => return Ok(answer),
                Err(error) => last = error,
            },
            Err(error) => last = error,
        }
    }
    Err(last)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_that_are_sent() {
        for (header, expected) in [
            ("bytes 0-9/10", Some((0, 9, Some(10)))),
            ("bytes 5-5/*", Some((5, 5, None))),
            ("bytes 18446744073709551615-18446744073709551615/*", Some((u64::MAX, u64::MAX, None))),
            ("bytes 9-5/10", None),
            ("bytes */10", None),
            ("bytes 0-9", None),
            ("items 0-9/10", None),
            ("bytes 0-99999999999999999999/*", None),
            ("bytes -1-9/10", None),
            ("", None),
        ] {
            assert_eq!(content_range(header), expected, "{header}");
        }
    }
}
