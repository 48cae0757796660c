//! What a registry needs to know of a manifest: what it names, and what it belongs to.
//!
//! Read leniently, since fields that nobody here knows are other people's: only what would make
//! clients disagree about what the document is, is refused.

use std::collections::BTreeMap;

use serde::Deserialize;
use silo_oci::image::media;

use crate::error::Refusal;
use crate::name::Digest;

/// The media type of Docker's manifests before 2016, which are signed and name no configuration.
const SCHEMA_1: &str = "application/vnd.docker.distribution.manifest.v1+";

/// A manifest that was taken.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Manifest {
    pub(crate) media_type: String,
    /// What kind of artifact it is, for lists of referrers; empty if nothing says so.
    pub(crate) artifact_type: String,
    pub(crate) annotations: BTreeMap<String, String>,
    /// The manifest that this one is about.
    pub(crate) subject: Option<Digest>,
    /// Configuration and layers; of an index, what has the type of no manifest: the caches of
    /// BuildKit are indexes of layers.
    pub(crate) blobs: Vec<Used>,
    /// Manifests of an index.
    pub(crate) manifests: Vec<Used>,
}

/// What a manifest names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Used {
    pub(crate) digest: Digest,
    /// It may be absent: it is to be fetched from elsewhere.
    pub(crate) foreign: bool,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Body {
    schema_version: u32,
    #[serde(default)]
    media_type: Option<String>,
    #[serde(default)]
    artifact_type: Option<String>,
    #[serde(default)]
    config: Option<Descriptor>,
    #[serde(default)]
    layers: Option<Vec<Descriptor>>,
    #[serde(default)]
    manifests: Option<Vec<Descriptor>>,
    #[serde(default)]
    subject: Option<Descriptor>,
    #[serde(default)]
    annotations: Option<BTreeMap<String, String>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Descriptor {
    #[serde(default)]
    media_type: String,
    digest: String,
    size: i64,
    #[serde(default)]
    urls: Option<Vec<String>>,
}

impl Descriptor {
    fn used(&self) -> Result<Used, Refusal> {
        if self.size < 0 {
            return Err(Refusal::manifest(format!("{} has a negative size", self.digest)));
        }
        let digest = self.digest()?;
        let foreign = self.urls.as_ref().is_some_and(|urls| !urls.is_empty())
            || self.media_type == media::DOCKER_FOREIGN
            || self.media_type.contains(".nondistributable.");
        Ok(Used { digest, foreign })
    }

    fn digest(&self) -> Result<Digest, Refusal> {
        // The specification's code for a digest is for those of requests.
        self.digest.parse().map_err(|error| Refusal::manifest(format!("{error}: {}", self.digest)))
    }
}

impl Manifest {
    /// Reads a manifest that came as `content_type`, if the client said so.
    pub(crate) fn parse(bytes: &[u8], content_type: Option<&str>) -> Result<Self, Refusal> {
        let given = content_type
            .and_then(|value| value.split(';').next())
            .map(|value| value.trim().to_ascii_lowercase())
            .filter(|value| !value.is_empty() && value != "application/octet-stream");
        if given.as_ref().is_some_and(|given| given.starts_with(SCHEMA_1)) {
            return Err(Refusal::manifest(
                "manifests of schema 1 are not supported; push with a newer client",
            ));
        }
        let body: Body = serde_json::from_slice(bytes)
            .map_err(|error| Refusal::manifest(format!("manifest invalid: {error}")))?;
        if body.schema_version != 2 {
            return Err(Refusal::manifest("schemaVersion is not 2"));
        }
        let says = body.media_type.filter(|says| !says.is_empty());
        let media_type = match (given, says) {
            (Some(given), Some(says)) if given != says => {
                return Err(Refusal::manifest(format!(
                    "the manifest was sent as {given}, but says that it is {says}"
                )));
            }
            (Some(given), _) => given,
            (None, Some(says)) => says,
            (None, None) if body.manifests.is_some() => media::OCI_INDEX.to_owned(),
            (None, None) => media::OCI_MANIFEST.to_owned(),
        };
        let is_index = media::is_index(&media_type);
        if !is_index && !media::is_manifest(&media_type) {
            let text = format!("{media_type} is not a manifest that this registry keeps");
            return Err(Refusal::manifest(text));
        }
        // A document that is an image to one client and an index to another.
        let (image, index) = (body.config.is_some() || body.layers.is_some(), body.manifests);
        if image && index.is_some() {
            return Err(Refusal::manifest("it is an image and an index at once"));
        }
        let subject = body.subject.map(|subject| subject.digest()).transpose()?;
        let mut manifest = Self {
            media_type,
            artifact_type: body.artifact_type.unwrap_or_default(),
            annotations: body.annotations.unwrap_or_default(),
            subject,
            blobs: Vec::new(),
            manifests: Vec::new(),
        };
        if is_index {
            let index = index.ok_or_else(|| Refusal::manifest("the index has no manifests"))?;
            for descriptor in &index {
                let kind = &descriptor.media_type;
                let is_manifest =
                    kind.is_empty() || media::is_manifest(kind) || media::is_index(kind);
                let uses = if is_manifest { &mut manifest.manifests } else { &mut manifest.blobs };
                uses.push(descriptor.used()?);
            }
        } else {
            let config = body.config.ok_or_else(|| Refusal::manifest("it has no config"))?;
            if manifest.artifact_type.is_empty() {
                manifest.artifact_type.clone_from(&config.media_type);
            }
            manifest.blobs.push(config.used()?);
            for layer in body.layers.unwrap_or_default() {
                manifest.blobs.push(layer.used()?);
            }
        }
        Ok(manifest)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: &str = "sha256:aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa";

    fn image(rest: &str) -> String {
        format!(
            r#"{{"schemaVersion":2,"config":{{"mediaType":"c/t","digest":"{A}","size":2}}{rest}}}"#
        )
    }

    #[test]
    fn images() {
        let text = image(&format!(
            r#","layers":[{{"digest":"{A}","size":1}},
                {{"digest":"{A}","size":1,"urls":["https://x"]}}],
                "subject":{{"digest":"{A}","size":1}},"annotations":{{"a":"b"}},"more":[]"#
        ));
        let manifest = Manifest::parse(text.as_bytes(), None).unwrap();
        assert_eq!(manifest.media_type, media::OCI_MANIFEST);
        assert_eq!(manifest.artifact_type, "c/t");
        let foreign: Vec<bool> = manifest.blobs.iter().map(|used| used.foreign).collect();
        assert_eq!(foreign, [false, false, true]);
        assert_eq!(manifest.subject.unwrap().to_string(), A);
        assert_eq!(manifest.annotations["a"], "b");
        let typed = Manifest::parse(
            image(r#","artifactType":"x/y""#).as_bytes(),
            Some("application/vnd.oci.image.manifest.v1+json; charset=utf-8"),
        );
        assert_eq!(typed.unwrap().artifact_type, "x/y");
    }

    #[test]
    fn indexes() {
        let text = format!(r#"{{"schemaVersion":2,"manifests":[{{"digest":"{A}","size":1}}]}}"#);
        let index = Manifest::parse(text.as_bytes(), None).unwrap();
        assert_eq!(index.media_type, media::OCI_INDEX);
        assert_eq!((index.manifests.len(), index.blobs.len()), (1, 0));
        let cache = text.replace("\"size\"", "\"mediaType\":\"c/t\",\"size\"");
        let cache = Manifest::parse(cache.as_bytes(), None).unwrap();
        assert_eq!((cache.manifests.len(), cache.blobs.len()), (0, 1));
        assert_eq!(index.artifact_type, "");
    }

    #[test]
    fn refused() {
        let both = image(r#","manifests":[]"#);
        let said = image(&format!(r#","mediaType":"{}""#, media::OCI_INDEX));
        let deep = "[".repeat(100_000);
        let negative = image(&format!(r#","layers":[{{"digest":"{A}","size":-1}}]"#));
        let path = image(r#","layers":[{"digest":"sha256:../../etc/passwd","size":1}]"#);
        for (text, content_type) in [
            ("", None),
            ("{}", None),
            ("[]", None),
            (&deep, None),
            (r#"{"schemaVersion":1}"#, None),
            (r#"{"schemaVersion":2}"#, None),
            (&both, None),
            (&said, None),
            (&said, Some(media::OCI_MANIFEST)),
            (&negative, None),
            (&path, None),
            (&image(""), Some("text/plain")),
            (&image(""), Some("application/vnd.docker.distribution.manifest.v1+prettyjws")),
        ] {
            let refused = Manifest::parse(text.as_bytes(), content_type).unwrap_err();
            assert_eq!(refused.code, "MANIFEST_INVALID", "{text:.100}");
        }
    }
}
