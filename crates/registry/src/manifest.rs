//! Manifests, tags and referrers.

use bytes::Bytes;
use serde::Deserialize;
use silo_http::Method;
use silo_oci::image::{Descriptor, Document, Index, digest, media};
use silo_oci::reference::{Reference, is_tag};
use silo_types::Digest;

use crate::answer::Answer;
use crate::repository::{Inquiry, selector};
use crate::{Error, Repository, link};

/// The largest manifest or index, in bytes, which is what registries take at most.
pub const MAX_MANIFEST: usize = 4 << 20;
/// The largest page of a list, in bytes.
pub const MAX_LIST: usize = 4 << 20;
/// The most tags of a repository.
const MAX_TAGS: usize = 100_000;
/// The most pages of a list.
const MAX_PAGES: usize = 1000;

/// Types of what is no longer used.
const SCHEMA1: [&str; 2] = [
    "application/vnd.docker.distribution.manifest.v1+json",
    "application/vnd.docker.distribution.manifest.v1+prettyjws",
];

/// A manifest or an index, as it came.
#[derive(Debug, Clone)]
pub struct Resolved {
    /// Type, digest and size.
    pub descriptor: Descriptor,
    /// The bytes that have this digest.
    pub bytes: Bytes,
    /// What is in them.
    pub document: Document,
}

fn accept() -> (&'static str, String) {
    let types =
        [media::OCI_INDEX, media::DOCKER_LIST, media::OCI_MANIFEST, media::DOCKER_MANIFEST, "*/*"];
    ("accept", types.join(", "))
}

impl Repository {
    /// Fetches the manifest or index that a tag or digest leads to.
    pub async fn manifest(&self, reference: &Reference) -> Result<Resolved, Error> {
        let (selector, wanted) = selector(reference);
        let path = format!("manifests/{selector}");
        let mut inquiry = Inquiry::get(&path);
        inquiry.headers.push(accept());
        inquiry.is_checked = wanted.is_some();
        loop {
            let answer = self.ask(&inquiry).await?;
            let place = self.place();
            match take(answer, wanted).await {
                Ok(Some(resolved)) => return Ok(resolved),
                Ok(None) => return Err(Error::Schema1 { reference: reference.to_string() }),
                // A mirror has something else than a manifest.
                Err(error) if self.distrust(place) => {
                    tracing::debug!(%error, "a mirror is left");
                }
                Err(error) => return Err(error),
            }
        }
    }

    /// What a manifest's descriptor points to, for an entry of an index.
    pub(crate) async fn manifest_of(
        &self,
        reference: &Reference,
        descriptor: &Descriptor,
    ) -> Result<Resolved, Error> {
        let resolved = self.manifest(&reference.with_digest(descriptor.digest)).await?;
        let (said, is) = (&descriptor.media_type, &resolved.descriptor.media_type);
        if !said.is_empty() && said != is {
            return Err(Error::MediaType(format!("{is} where the index says {said}")));
        }
        Ok(resolved)
    }

    /// Type, digest and size of a manifest without its bytes; `None` if there is none, or the
    /// server does not say.
    pub async fn manifest_head(&self, reference: &Reference) -> Result<Option<Descriptor>, Error> {
        let (selector, _) = selector(reference);
        let path = format!("manifests/{selector}");
        let mut inquiry = Inquiry { method: Method::HEAD, ..Inquiry::get(&path) };
        inquiry.headers.push(accept());
        match self.ask(&inquiry).await {
            Ok(answer) => {
                let digest = answer.header("docker-content-digest").parse().ok();
                let kind = essence(answer.header("content-type"));
                let size = answer.header("content-length").parse().unwrap_or(0);
                Ok(digest.map(|digest| Descriptor::new(kind, digest, size)))
            }
            Err(error) if error.is_absent() => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Stores a manifest or index under a tag, or under its digest.
    pub async fn put_manifest(
        &self,
        tag: Option<&str>,
        media_type: &str,
        bytes: &[u8],
    ) -> Result<Digest, Error> {
        let own = digest(bytes);
        let selector = match tag {
            Some(tag) if is_tag(tag) => tag.to_owned(),
            Some(tag) => return Err(Error::MediaType(format!("the tag {tag:?}"))),
            None => own.to_string(),
        };
        let mut attempts = self.registries().config().retry.begin();
        let mut refused = false;
        loop {
            let session = self.session()?;
            let ask = crate::session::Ask {
                method: Method::PUT,
                url: self.url(session, &format!("manifests/{selector}"))?,
                headers: vec![("content-type", media_type.to_owned())],
                scopes: self.scopes(),
                is_checked: false,
            };
            let body = silo_http::full(bytes.to_vec());
            let answer = session.tell(&ask, body, Some(bytes.len() as u64), &|| 0).await;
            let result = match answer {
                Ok(answer) => answer.expect(&[200, 201, 202]).await,
                Err(error) => Err(error),
            };
            match result {
                Ok(answer) => {
                    let said = answer.header("docker-content-digest").parse::<Digest>();
                    if let Ok(actual) = said
                        && actual != own
                    {
                        return Err(Error::Digest { what: "manifest", expected: own, actual });
                    }
                    return Ok(own);
                }
                // The token was too old.
                Err(Error::Refused { status: 401, .. }) if !refused => refused = true,
                Err(error) => attempts.again(error).await?,
            }
        }
    }

    /// All tags.
    pub async fn tags(&self) -> Result<Vec<String>, Error> {
        #[derive(Deserialize)]
        struct Body {
            #[serde(default)]
            tags: Option<Vec<String>>,
        }
        let mut path = "tags/list".to_owned();
        let mut found = Vec::new();
        for _ in 0..MAX_PAGES {
            let answer = self.ask(&Inquiry::get(&path)).await?;
            let next = link::next(answer.header("link"));
            // Only the query of the next page's address is of interest: the rest must be the same.
            let next =
                next.and_then(|next| next.split_once('?')).map(|(_, query)| query.to_owned());
            let url = answer.url.to_string();
            let bytes = answer.bytes("the list of tags", MAX_LIST).await?;
            let body: Body = serde_json::from_slice(&bytes)
                .map_err(|error| Error::Protocol { url, reason: error.to_string() })?;
            found.extend(body.tags.unwrap_or_default().into_iter().filter(|tag| is_tag(tag)));
            match next {
                Some(query) if found.len() < MAX_TAGS => path = format!("tags/list?{query}"),
                _ => break,
            }
        }
        found.truncate(MAX_TAGS);
        Ok(found)
    }

    /// The manifests that are about another, such as signatures. None where the registry does not
    /// know of such.
    pub async fn referrers(&self, subject: &Digest) -> Result<Vec<Descriptor>, Error> {
        let path = format!("referrers/{subject}");
        let answer = match self.ask(&Inquiry::get(&path)).await {
            Err(error) if error.is_absent() => return Ok(Vec::new()),
            answer => answer?,
        };
        let bytes = answer.bytes("the list of referrers", MAX_LIST).await?;
        let index = Index::parse(&bytes).map_err(|source| Error::Document {
            what: format!("referrers of {subject}"),
            source,
        })?;
        Ok(index.manifests)
    }
}

/// Reads an answer, which has to have the wanted digest, and the one that it says it has.
async fn take(answer: Answer, wanted: Option<Digest>) -> Result<Option<Resolved>, Error> {
    let said = answer.header("docker-content-digest").parse::<Digest>().ok();
    let kind = essence(answer.header("content-type")).to_owned();
    let bytes = answer.bytes("the manifest", MAX_MANIFEST).await?;
    let actual = digest(&bytes);
    if let Some(expected) = wanted.or(said).filter(|expected| *expected != actual) {
        return Err(Error::Digest { what: "manifest", expected, actual });
    }
    read(&kind, bytes, actual)
}

/// The media type without its parameters.
fn essence(text: &str) -> &str {
    text.split(';').next().unwrap_or_default().trim()
}

/// Whether a document that came without its type is a schema 1 manifest.
fn is_schema1(bytes: &[u8]) -> bool {
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Form {
        schema_version: u32,
        #[serde(rename = "fsLayers")]
        _fs_layers: serde::de::IgnoredAny,
    }
    serde_json::from_slice(bytes).is_ok_and(|form: Form| form.schema_version == 1)
}

/// Reads what came as `kind`; `None` for a schema 1 manifest.
pub(crate) fn read(kind: &str, bytes: Bytes, actual: Digest) -> Result<Option<Resolved>, Error> {
    let is_typed = media::is_index(kind) || media::is_manifest(kind);
    if SCHEMA1.contains(&kind) || (!is_typed && is_schema1(&bytes)) {
        return Ok(None);
    }
    let said = if is_typed { kind } else { "" };
    let what = || format!("manifest {actual}");
    let document =
        Document::parse(&bytes, said).map_err(|source| Error::Document { what: what(), source })?;
    let own = match &document {
        Document::Manifest(manifest) => manifest.media_type.as_str(),
        Document::Index(index) => index.media_type.as_str(),
    };
    let media_type = match (own, said, &document) {
        ("", "", Document::Manifest(_)) => media::OCI_MANIFEST,
        ("", "", Document::Index(_)) => media::OCI_INDEX,
        ("", said, _) => said,
        (own, "", _) => own,
        (own, said, _) if own == said => own,
        // One of them lies, and the next reader may believe the other (CVE-2021-41190).
        (own, said, _) => {
            return Err(Error::MediaType(format!("{own} in a document that came as {said}")));
        }
    };
    let descriptor = Descriptor::new(media_type, actual, bytes.len() as u64);
    Ok(Some(Resolved { descriptor, bytes, document }))
}

#[cfg(test)]
mod tests {
    use super::*;

    const CONFIG: &str = r#"{"mediaType":"application/vnd.oci.image.config.v1+json","digest":"sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855","size":1}"#;

    fn kind_of(kind: &str, text: &str) -> Result<String, String> {
        let bytes = Bytes::copy_from_slice(text.as_bytes());
        match read(kind, bytes.clone(), digest(&bytes)) {
            Ok(Some(resolved)) => Ok(resolved.descriptor.media_type),
            Ok(None) => Ok("schema 1".to_owned()),
            Err(error) => Err(silo_types::error::chain(&error)),
        }
    }

    #[test]
    fn types_of_documents() {
        let manifest = format!(r#"{{"schemaVersion":2,"config":{CONFIG},"layers":[]}}"#);
        let index = r#"{"schemaVersion":2,"manifests":[]}"#;
        let docker = format!(
            r#"{{"schemaVersion":2,"mediaType":"{}","config":{CONFIG},"layers":[]}}"#,
            media::DOCKER_MANIFEST
        );
        for (kind, text, expected) in [
            (media::OCI_MANIFEST, manifest.as_str(), Some(media::OCI_MANIFEST)),
            ("application/json", &manifest, Some(media::OCI_MANIFEST)),
            ("", index, Some(media::OCI_INDEX)),
            (media::DOCKER_LIST, index, Some(media::DOCKER_LIST)),
            ("text/plain", &docker, Some(media::DOCKER_MANIFEST)),
            (media::DOCKER_MANIFEST, &docker, Some(media::DOCKER_MANIFEST)),
            (SCHEMA1[1], "{}", Some("schema 1")),
            ("application/json", r#"{"schemaVersion":1,"fsLayers":[]}"#, Some("schema 1")),
            (media::OCI_MANIFEST, r#"{"schemaVersion":1,"fsLayers":[]}"#, None),
            // What could be taken for something else.
            (media::OCI_MANIFEST, &docker, None),
            (media::OCI_INDEX, &manifest, None),
            (media::OCI_MANIFEST, index, None),
            ("", &manifest.replace("\"layers\":[]", "\"layers\":[],\"manifests\":[]"), None),
            ("", "{}", None),
            ("", "", None),
        ] {
            assert_eq!(kind_of(kind, text).ok().as_deref(), expected, "{kind} {text}");
        }
        assert_eq!(essence("application/json; charset=utf-8"), "application/json");
    }
}
