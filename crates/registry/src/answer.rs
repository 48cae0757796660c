//! An answer whose body is still to be read.

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use silo_http::{Download, HeaderMap, Incoming, Response, StatusCode, Uri};

use crate::challenge;
use crate::problem::Problem;
use crate::{Error, retry};

/// How much of a refusal is read, in bytes.
const MAX_REFUSAL: usize = 64 << 10;
/// How long a refusal may take to come, and a document.
const REFUSAL: Duration = Duration::from_secs(10);
const DOCUMENT: Duration = Duration::from_mins(5);

#[derive(Debug)]
pub(crate) struct Answer {
    /// Where it came from, after all redirects.
    pub(crate) url: Uri,
    pub(crate) status: StatusCode,
    headers: HeaderMap,
    body: Download,
}

impl Answer {
    pub(crate) fn new(url: Uri, response: Response<Incoming>, stall: Duration) -> Self {
        let (status, headers) = (response.status(), response.headers().clone());
        Self { body: Download::new(url.clone(), response, stall), url, status, headers }
    }

    /// A header; empty if it is absent or no text.
    pub(crate) fn header(&self, name: &str) -> &str {
        self.headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default()
    }

    /// All challenges.
    pub(crate) fn challenges(&self) -> Vec<challenge::Challenge> {
        let values = self.headers.get_all("www-authenticate").iter().take(8);
        values.filter_map(|value| value.to_str().ok()).flat_map(challenge::parse).collect()
    }

    /// The answer for one of these statuses; any other is a refusal.
    pub(crate) async fn expect(self, statuses: &[u16]) -> Result<Self, Error> {
        if statuses.contains(&self.status.as_u16()) { Ok(self) } else { Err(self.refuse().await) }
    }

    /// The refusal that it is.
    pub(crate) async fn refuse(mut self) -> Error {
        let status = self.status;
        let after = retry::after(self.header("retry-after"));
        // docker wording: what the challenge says comes before what the body says
        let challenged = self.challenges().into_iter().find_map(|challenge| {
            let (code, text) = match challenge.get("error") {
                "insufficient_scope" => {
                    ("DENIED", "denied: requested access to the resource is denied")
                }
                "invalid_token" => ("UNAUTHORIZED", "unauthorized: authentication required"),
                _ => return None,
            };
            Some(Problem { code: code.to_owned(), text: text.to_owned() })
        });
        let problem = match challenged {
            Some(problem) if status == StatusCode::UNAUTHORIZED => problem,
            _ => {
                let mut body = BytesMut::new();
                let end = tokio::time::Instant::now() + REFUSAL;
                while body.len() < MAX_REFUSAL {
                    match tokio::time::timeout_at(end, self.body.next()).await {
                        Ok(Ok(Some(piece))) => body.extend_from_slice(&piece),
                        // What has come tells as much as there is to know.
                        Ok(Ok(None) | Err(_)) | Err(_) => break,
                    }
                }
                let reason = status.canonical_reason().unwrap_or_default();
                Problem::read(status.as_u16(), reason, &body)
            }
        };
        Error::refused(status.as_u16(), problem, after)
    }

    /// The whole body.
    pub(crate) async fn bytes(mut self, what: &'static str, limit: usize) -> Result<Bytes, Error> {
        let too_large = || Error::TooLarge { url: self.url.to_string(), what, limit };
        if self.body.length().is_some_and(|length| length > limit as u64) {
            return Err(too_large());
        }
        let url = self.url.to_string();
        let read = async {
            let mut bytes = BytesMut::new();
            while let Some(piece) = self.body.next().await? {
                if bytes.len() + piece.len() > limit {
                    return Err(Error::TooLarge { url: self.url.to_string(), what, limit });
                }
                bytes.extend_from_slice(&piece);
            }
            Ok(bytes.freeze())
        };
        // Who sends a byte now and then would keep us for ever.
        let whole = tokio::time::timeout(DOCUMENT, read).await;
        whole.unwrap_or_else(|_| {
            let cause = silo_http::Cause::Timeout("the whole response body");
            Err(silo_http::Error::Body { url, cause }.into())
        })
    }

    /// The length of the body, if it is said.
    pub(crate) fn length(&self) -> Option<u64> {
        self.body.length()
    }

    /// The next piece of the body.
    pub(crate) async fn next(&mut self) -> Result<Option<Bytes>, Error> {
        Ok(self.body.next().await?)
    }

    /// That the body was not all that was to come.
    pub(crate) fn ended_early(&self) -> Error {
        let cause = silo_http::Cause::UnexpectedEof;
        silo_http::Error::Body { url: self.url.to_string(), cause }.into()
    }

    /// An error about what the answer says.
    pub(crate) fn wrong(&self, reason: impl Into<String>) -> Error {
        Error::Protocol { url: self.url.to_string(), reason: reason.into() }
    }
}
