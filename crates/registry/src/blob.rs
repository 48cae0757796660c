//! Blobs as they come: a broken download goes on where it was.

use bytes::Bytes;
use silo_http::Method;
use silo_oci::image::Descriptor;
use silo_types::Digest;

use crate::answer::Answer;
use crate::repository::Inquiry;
use crate::retry::Attempts;
use crate::session::Ask;
use crate::{Error, Repository};

/// Bytes after which a connection counts as one that worked.
const WORKED: u64 = 256 << 10;
/// URLs of one layer that are tried.
const MAX_URLS: usize = 8;

/// The bytes of a blob from some position on. They are no more than its descriptor says; their
/// digest is the reader's to check.
#[derive(Debug)]
pub struct BlobStream<'a> {
    repository: &'a Repository,
    wanted: &'a Descriptor,
    position: u64,
    answer: Option<Answer>,
    /// Bytes of the answer that are known already.
    skip: u64,
    attempts: Attempts<'a>,
    /// Where the last connection began.
    began: u64,
}

/// Whether a layer may be elsewhere than on the registry.
pub(crate) fn is_foreign(descriptor: &Descriptor) -> bool {
    let kind = &descriptor.media_type;
    kind.contains(".foreign.") || kind.contains(".nondistributable.")
}

impl Repository {
    /// A blob from `position` on.
    pub fn blob<'a>(&'a self, wanted: &'a Descriptor, position: u64) -> BlobStream<'a> {
        BlobStream {
            repository: self,
            wanted,
            position,
            answer: None,
            skip: 0,
            attempts: self.registries().config().retry.begin(),
            began: position,
        }
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
        loop {
            if self.position >= self.wanted.size {
                return Ok(None);
            }
            let Some(answer) = &mut self.answer else {
                match self.open().await {
                    Ok(answer) => self.answer = Some(answer),
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
                    self.position += piece.len() as u64;
                    if self.position > self.wanted.size {
                        let size = self.wanted.size;
                        return Err(answer.wrong(too_long(size)));
                    }
                    if self.position - self.began >= WORKED {
                        self.attempts.progressed();
                    }
                    return Ok(Some(piece));
                }
                Ok(None) => silo_http::Error::Body {
                    url: answer.url.to_string(),
                    cause: silo_http::Cause::UnexpectedEof,
                }
                .into(),
                Err(error) => error,
            };
            self.answer = None;
            self.attempts.again(error).await?;
        }
    }

    /// Asks for what has not come yet.
    async fn open(&mut self) -> Result<Answer, Error> {
        let path = format!("blobs/{}", self.wanted.digest);
        let range = format!("bytes={}-", self.position);
        let mut headers = Vec::new();
        if self.position > 0 {
            headers.push(("range", range));
        }
        let inquiry = Inquiry {
            headers: headers.clone(),
            is_checked: true,
            good: &[200, 206],
            ..Inquiry::get(&path)
        };
        let answer = match self.repository.once(&inquiry).await {
            Err(error) if error.is_absent() && is_foreign(self.wanted) => {
                self.foreign(headers, error).await?
            }
            answer => answer?,
        };
        let start = match answer.status.as_u16() {
            206 => {
                let range = answer.header("content-range");
                let start = range
                    .strip_prefix("bytes ")
                    .and_then(|range| range.split('-').next())
                    .and_then(|start| start.trim().parse::<u64>().ok());
                if start != Some(self.position) {
                    return Err(answer.wrong(format!(
                        "asked for the bytes from {} on, it sends {range:?}",
                        self.position
                    )));
                }
                self.position
            }
            // It does not know ranges: everything comes again.
            _ => 0,
        };
        if let Some(length) = answer.length()
            && start.checked_add(length) != Some(self.wanted.size)
        {
            return Err(answer.wrong(format!(
                "the blob has {} bytes where its descriptor says {}",
                start.saturating_add(length),
                self.wanted.size
            )));
        }
        self.skip = self.position - start;
        self.began = self.position;
        Ok(answer)
    }

    /// Asks other places that the descriptor names, of which nobody gets credentials.
    async fn foreign(
        &self,
        headers: Vec<(&'static str, String)>,
        mut last: Error,
    ) -> Result<Answer, Error> {
        let session = self.repository.session()?;
        for url in self.wanted.urls.iter().take(MAX_URLS) {
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
}
