//! From a path to what it names.

use crate::error::Refusal;
use crate::http::query::decode;
use crate::name::{Digest, Name, Reference};

/// What a request is about.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Target {
    /// `/`: whether anything answers.
    Root,
    /// `/v2/`
    Base,
    /// `/v2/_catalog`
    Catalog,
    /// `/v2/<name>/blobs/<digest>`
    Blob(Name, Digest),
    /// `/v2/<name>/blobs/uploads/`
    Uploads(Name),
    /// `/v2/<name>/blobs/uploads/<id>`
    Upload(Name, String),
    /// `/v2/<name>/manifests/<reference>`
    Manifest(Name, Reference),
    /// `/v2/<name>/tags/list`
    Tags(Name),
    /// `/v2/<name>/referrers/<digest>`
    Referrers(Name, Digest),
}

impl Target {
    pub(crate) fn parse(path: &str) -> Result<Self, Refusal> {
        let path = match path {
            "/" => return Ok(Self::Root),
            "/v2" | "/v2/" => return Ok(Self::Base),
            "/v2/_catalog" => return Ok(Self::Catalog),
            path => path.strip_prefix("/v2/").ok_or_else(no_page)?,
        };
        let mut parts = path.split('/').map(decode).collect::<Result<Vec<_>, _>>()?;
        let name = |parts: &[String]| {
            // A slash that came encoded is not one between elements.
            if parts.iter().any(|part| part.contains('/')) {
                return Err(Refusal::name("invalid repository name"));
            }
            parts.join("/").parse::<Name>()
        };
        let texts: Vec<&str> = parts.iter().map(String::as_str).collect();
        match texts[..] {
            [.., "blobs", "uploads"] => Ok(Self::Uploads(name(&parts[..parts.len() - 2])?)),
            [.., "blobs", "uploads", ""] => Ok(Self::Uploads(name(&parts[..parts.len() - 3])?)),
            [.., "blobs", "uploads", _] => {
                let id = parts.pop().unwrap_or_default();
                Ok(Self::Upload(name(&parts[..parts.len() - 2])?, id))
            }
            [.., "tags", "list"] => Ok(Self::Tags(name(&parts[..parts.len() - 2])?)),
            [.., "blobs", digest] => {
                Ok(Self::Blob(name(&parts[..parts.len() - 2])?, digest.parse()?))
            }
            [.., "manifests", reference] => {
                Ok(Self::Manifest(name(&parts[..parts.len() - 2])?, reference.parse()?))
            }
            [.., "referrers", digest] => {
                Ok(Self::Referrers(name(&parts[..parts.len() - 2])?, digest.parse()?))
            }
            _ => Err(no_page()),
        }
    }
}

fn no_page() -> Refusal {
    Refusal::new(hyper::StatusCode::NOT_FOUND, "UNSUPPORTED", "page not found")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths() {
        let name = |text: &str| text.parse::<Name>().unwrap();
        let hex = "a".repeat(64);
        let digest = format!("sha256:{hex}");
        let parsed: Digest = digest.parse().unwrap();
        for (path, target) in [
            ("/v2/".to_owned(), Target::Base),
            ("/v2/_catalog".to_owned(), Target::Catalog),
            (format!("/v2/a/b/blobs/{digest}"), Target::Blob(name("a/b"), parsed.clone())),
            (format!("/v2/a/blobs/sha256%3A{hex}"), Target::Blob(name("a"), parsed.clone())),
            ("/v2/a/blobs/uploads/".into(), Target::Uploads(name("a"))),
            ("/v2/a/blobs/uploads".into(), Target::Uploads(name("a"))),
            ("/v2/a/blobs/uploads/x".into(), Target::Upload(name("a"), "x".into())),
            ("/v2/a/manifests/v1".into(), Target::Manifest(name("a"), "v1".parse().unwrap())),
            (
                "/v2/a/manifests/manifests/v1".into(),
                Target::Manifest(name("a/manifests"), "v1".parse().unwrap()),
            ),
            ("/v2/a/tags/list".into(), Target::Tags(name("a"))),
            (format!("/v2/a/referrers/{digest}"), Target::Referrers(name("a"), parsed.clone())),
        ] {
            assert_eq!(Target::parse(&path).unwrap(), target, "{path}");
        }
    }

    #[test]
    fn refused() {
        for (path, code) in [
            ("", "UNSUPPORTED"),
            ("/v1/", "UNSUPPORTED"),
            ("/v2/a", "UNSUPPORTED"),
            ("/v2/a/tags", "UNSUPPORTED"),
            ("/v2/../tags/list", "NAME_INVALID"),
            ("/v2/a/../b/tags/list", "NAME_INVALID"),
            ("/v2/a%2Fb/tags/list", "NAME_INVALID"),
            ("/v2/..%2F..%2Fetc/tags/list", "NAME_INVALID"),
            ("/v2//tags/list", "NAME_INVALID"),
            ("/v2/tags/list", "NAME_INVALID"),
            ("/v2/A/tags/list", "NAME_INVALID"),
            ("/v2/a%00/tags/list", "NAME_INVALID"),
            ("/v2/a/blobs/sha256:x", "DIGEST_INVALID"),
            ("/v2/a/blobs/..%2f..%2fpasswd", "DIGEST_INVALID"),
            ("/v2/a/manifests/sha256:baddigeststring", "DIGEST_INVALID"),
            ("/v2/a/manifests/..", "MANIFEST_INVALID"),
        ] {
            assert_eq!(Target::parse(path).unwrap_err().code, code, "{path}");
        }
    }
}
