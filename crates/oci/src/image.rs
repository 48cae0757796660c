//! Images as documents: configuration, manifest and index, after the OCI image specification
//! 1.1 and Docker's image specification 1.2 and schema 2 manifests, which differ only in
//! media types and in a few fields of the configuration.
//!
//! Documents come from strangers. Parsing is bounded ([`MAX_DOCUMENT`], [`MAX_LAYERS`]),
//! takes `null` for a missing value, ignores unknown fields, and refuses a document that
//! could be read both as a manifest and as an index (CVE-2021-41190).

#![allow(clippy::zero_sized_map_values, reason = "sets are written as objects with empty values")]

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use silo_types::{Digest, ErrorKind, Kind};

use crate::platform::Platform;

/// The largest manifest, index or configuration that is looked at, in bytes.
pub const MAX_DOCUMENT: usize = 8 << 20;
/// The largest number of layers of an image.
pub const MAX_LAYERS: usize = 1024;
/// The largest number of manifests of an index.
pub const MAX_MANIFESTS: usize = 16_384;

/// Media types of documents and layers.
pub mod media {
    /// OCI image index.
    pub const OCI_INDEX: &str = "application/vnd.oci.image.index.v1+json";
    /// OCI image manifest.
    pub const OCI_MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
    /// OCI image configuration.
    pub const OCI_CONFIG: &str = "application/vnd.oci.image.config.v1+json";
    /// OCI layer, tar.
    pub const OCI_LAYER: &str = "application/vnd.oci.image.layer.v1.tar";
    /// OCI layer, tar in gzip.
    pub const OCI_LAYER_GZIP: &str = "application/vnd.oci.image.layer.v1.tar+gzip";
    /// OCI layer, tar in zstd.
    pub const OCI_LAYER_ZSTD: &str = "application/vnd.oci.image.layer.v1.tar+zstd";
    /// Docker manifest list.
    pub const DOCKER_LIST: &str = "application/vnd.docker.distribution.manifest.list.v2+json";
    /// Docker schema 2 manifest.
    pub const DOCKER_MANIFEST: &str = "application/vnd.docker.distribution.manifest.v2+json";
    /// Docker image configuration.
    pub const DOCKER_CONFIG: &str = "application/vnd.docker.container.image.v1+json";
    /// Docker layer, tar.
    pub const DOCKER_LAYER: &str = "application/vnd.docker.image.rootfs.diff.tar";
    /// Docker layer, tar in gzip.
    pub const DOCKER_LAYER_GZIP: &str = "application/vnd.docker.image.rootfs.diff.tar.gzip";
    /// Docker layer that is fetched from elsewhere (Windows base images).
    pub const DOCKER_FOREIGN: &str = "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip";

    /// Whether documents of this type are indexes.
    pub fn is_index(media_type: &str) -> bool {
        media_type == OCI_INDEX || media_type == DOCKER_LIST
    }

    /// Whether documents of this type are manifests.
    pub fn is_manifest(media_type: &str) -> bool {
        media_type == OCI_MANIFEST || media_type == DOCKER_MANIFEST
    }

    /// Whether blobs of this type are image configurations.
    pub fn is_config(media_type: &str) -> bool {
        media_type == OCI_CONFIG || media_type == DOCKER_CONFIG
    }

    /// Whether blobs of this type are file system layers that can be read as they are.
    pub fn is_layer(media_type: &str) -> bool {
        let is_layer = media_type.starts_with("application/vnd.oci.image.layer.")
            || media_type.starts_with("application/vnd.docker.image.rootfs.");
        is_layer && !media_type.ends_with("+encrypted")
    }
}

/// Why a document was refused.
#[derive(Debug, thiserror::Error)]
pub enum ImageError {
    /// Larger than [`MAX_DOCUMENT`].
    #[error("{document} of {size} bytes is larger than the limit of {MAX_DOCUMENT}")]
    TooLarge {
        /// Which document.
        document: &'static str,
        /// Its size in bytes.
        size: usize,
    },
    /// Not JSON of the right form.
    #[error("cannot parse {document}")]
    Parse {
        /// Which document.
        document: &'static str,
        /// What the JSON parser said.
        #[source]
        source: serde_json::Error,
    },
    /// JSON, but not of an acceptable document.
    #[error("invalid {document}: {reason}")]
    Invalid {
        /// Which document.
        document: &'static str,
        /// What is wrong with it.
        reason: String,
    },
}

impl Kind for ImageError {
    fn kind(&self) -> ErrorKind {
        ErrorKind::InvalidParameter
    }
}

/// Deserialisers that take `null`, and older spellings, for what they mean.
pub(crate) mod lenient {
    use serde::{Deserialize, Deserializer};

    /// `null` is the default.
    pub(crate) fn default<'de, D, T>(deserializer: D) -> Result<T, D::Error>
    where
        D: Deserializer<'de>,
        T: Default + Deserialize<'de>,
    {
        Ok(Option::deserialize(deserializer)?.unwrap_or_default())
    }

    /// Text; anything else is none.
    pub(crate) fn text<'de, D>(deserializer: D) -> Result<Option<String>, D::Error>
    where
        D: Deserializer<'de>,
    {
        #[derive(Deserialize)]
        #[serde(untagged)]
        enum Text {
            Text(String),
            Other(serde::de::IgnoredAny),
        }
        Ok(match Option::deserialize(deserializer)? {
            Some(Text::Text(text)) => Some(text),
            Some(Text::Other(_)) | None => None,
        })
    }

    /// A list of words, or one word.
    pub(crate) fn words<'de, D>(deserializer: D) -> Result<Option<Vec<String>>, D::Error>
    where
        D: Deserializer<'de>,
    {
        #[derive(Deserialize)]
        #[serde(untagged)]
        enum Words {
            Many(Vec<String>),
            One(String),
        }
        Ok(Option::deserialize(deserializer)?.map(|words| match words {
            Words::Many(list) => list,
            Words::One(word) => vec![word],
        }))
    }

    /// A set: the keys of an object whose values mean nothing.
    pub(crate) fn set<'de, D>(
        deserializer: D,
    ) -> Result<std::collections::BTreeMap<String, super::Empty>, D::Error>
    where
        D: Deserializer<'de>,
    {
        let map: Option<std::collections::BTreeMap<String, serde::de::IgnoredAny>> =
            Option::deserialize(deserializer)?;
        Ok(map.unwrap_or_default().into_keys().map(|key| (key, super::Empty {})).collect())
    }
}

/// `{}`: the value of a member of a set (`ExposedPorts`, `Volumes`).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Empty {}

/// A pointer to content: media type, digest and size.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Descriptor {
    /// Type of the content.
    #[serde(default, deserialize_with = "lenient::default")]
    pub media_type: String,
    /// Digest of the content.
    pub digest: Digest,
    /// Size of the content in bytes.
    #[serde(default)]
    pub size: u64,
    /// Other places the content may be fetched from. Never used with credentials.
    #[serde(default, skip_serializing_if = "Vec::is_empty", deserialize_with = "lenient::default")]
    pub urls: Vec<String>,
    /// Free metadata.
    #[serde(
        default,
        skip_serializing_if = "BTreeMap::is_empty",
        deserialize_with = "lenient::default"
    )]
    pub annotations: BTreeMap<String, String>,
    /// What the content runs on, in an index.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub platform: Option<Platform>,
    /// Type of an artifact that the content describes.
    #[serde(
        default,
        skip_serializing_if = "String::is_empty",
        deserialize_with = "lenient::default"
    )]
    pub artifact_type: String,
}

impl Descriptor {
    /// A descriptor without annotations.
    pub fn new(media_type: &str, digest: Digest, size: u64) -> Self {
        Self {
            media_type: media_type.to_owned(),
            digest,
            size,
            urls: Vec::new(),
            annotations: BTreeMap::new(),
            platform: None,
            artifact_type: String::new(),
        }
    }
}

/// An image manifest: one configuration and its layers, lowest first.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Manifest {
    /// Always 2.
    pub schema_version: u32,
    /// [`media::OCI_MANIFEST`] or [`media::DOCKER_MANIFEST`]; may be empty in OCI.
    #[serde(
        default,
        skip_serializing_if = "String::is_empty",
        deserialize_with = "lenient::default"
    )]
    pub media_type: String,
    /// Type of an artifact, if the manifest is not of an image.
    #[serde(
        default,
        skip_serializing_if = "String::is_empty",
        deserialize_with = "lenient::default"
    )]
    pub artifact_type: String,
    /// The configuration.
    pub config: Descriptor,
    /// The layers, lowest first.
    #[serde(default, deserialize_with = "lenient::default")]
    pub layers: Vec<Descriptor>,
    /// What the manifest is about, for attached artifacts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub subject: Option<Descriptor>,
    /// Free metadata.
    #[serde(
        default,
        skip_serializing_if = "BTreeMap::is_empty",
        deserialize_with = "lenient::default"
    )]
    pub annotations: BTreeMap<String, String>,
}

impl Manifest {
    /// Parses and checks a manifest.
    pub fn parse(bytes: &[u8]) -> Result<Self, ImageError> {
        let document = "image manifest";
        let invalid = |reason: String| Err(ImageError::Invalid { document, reason });
        let shape: Shape = parse(document, bytes)?;
        if shape.manifests.is_some() || shape.fs_layers.is_some() {
            return invalid("it is also of another form (\"manifests\" or \"fsLayers\")".into());
        }
        let manifest: Self = parse(document, bytes)?;
        if manifest.schema_version != 2 {
            return invalid(format!("schema version {}, expected 2", manifest.schema_version));
        }
        if !manifest.media_type.is_empty() && !media::is_manifest(&manifest.media_type) {
            return invalid(format!("media type {:?}", manifest.media_type));
        }
        if manifest.layers.len() > MAX_LAYERS {
            return invalid(format!("{} layers, at most {MAX_LAYERS}", manifest.layers.len()));
        }
        Ok(manifest)
    }

    /// Whether this is of an image, not of a signature, attestation or other artifact.
    pub fn is_image(&self) -> bool {
        media::is_config(&self.config.media_type)
            && self.layers.iter().all(|layer| media::is_layer(&layer.media_type))
    }
}

/// An image index: manifests of one image for several platforms, or of several images.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Index {
    /// Always 2.
    pub schema_version: u32,
    /// [`media::OCI_INDEX`] or [`media::DOCKER_LIST`]; may be empty in OCI.
    #[serde(
        default,
        skip_serializing_if = "String::is_empty",
        deserialize_with = "lenient::default"
    )]
    pub media_type: String,
    /// The manifests or further indexes.
    #[serde(default, deserialize_with = "lenient::default")]
    pub manifests: Vec<Descriptor>,
    /// Free metadata.
    #[serde(
        default,
        skip_serializing_if = "BTreeMap::is_empty",
        deserialize_with = "lenient::default"
    )]
    pub annotations: BTreeMap<String, String>,
}

impl Index {
    /// Parses and checks an index.
    pub fn parse(bytes: &[u8]) -> Result<Self, ImageError> {
        let document = "image index";
        let invalid = |reason: String| Err(ImageError::Invalid { document, reason });
        let shape: Shape = parse(document, bytes)?;
        if shape.config.is_some() || shape.layers.is_some() || shape.fs_layers.is_some() {
            return invalid(
                "it is also a manifest (\"config\", \"layers\" or \"fsLayers\")".into(),
            );
        }
        let index: Self = parse(document, bytes)?;
        if index.schema_version != 2 {
            return invalid(format!("schema version {}, expected 2", index.schema_version));
        }
        if !index.media_type.is_empty() && !media::is_index(&index.media_type) {
            return invalid(format!("media type {:?}", index.media_type));
        }
        if index.manifests.len() > MAX_MANIFESTS {
            return invalid(format!(
                "{} manifests, at most {MAX_MANIFESTS}",
                index.manifests.len()
            ));
        }
        Ok(index)
    }
}

/// Which of the telling fields a document has.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Shape {
    config: Option<serde::de::IgnoredAny>,
    layers: Option<serde::de::IgnoredAny>,
    fs_layers: Option<serde::de::IgnoredAny>,
    manifests: Option<serde::de::IgnoredAny>,
}

/// A manifest or an index.
#[derive(Debug, Clone, PartialEq, Eq)]
#[expect(clippy::large_enum_variant, reason = "it is matched on at once, never stored")]
pub enum Document {
    /// An image manifest.
    Manifest(Manifest),
    /// An image index.
    Index(Index),
}

impl Document {
    /// Parses whichever it is, refusing what could be both. `media_type` is what the pointer
    /// to the document says, or empty; a contradiction is an error.
    pub fn parse(bytes: &[u8], media_type: &str) -> Result<Self, ImageError> {
        let document = "image manifest or index";
        let shape: Shape = parse(document, bytes)?;
        let is_index = shape.manifests.is_some();
        let contradicted =
            if is_index { media::is_manifest(media_type) } else { media::is_index(media_type) };
        if contradicted {
            let reason = format!("it is not the {media_type:?} that its descriptor says");
            return Err(ImageError::Invalid { document, reason });
        }
        if is_index {
            Index::parse(bytes).map(Self::Index)
        } else {
            Manifest::parse(bytes).map(Self::Manifest)
        }
    }
}

/// How to find out whether the program in a container is well. Durations are nanoseconds,
/// 0 means the default.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct Healthcheck {
    /// `["NONE"]`, `["CMD", ...]` or `["CMD-SHELL", line]`; empty inherits.
    #[serde(skip_serializing_if = "Option::is_none", deserialize_with = "lenient::words")]
    pub test: Option<Vec<String>>,
    /// Time between two checks.
    #[serde(skip_serializing_if = "is_zero", deserialize_with = "lenient::default")]
    pub interval: i64,
    /// Time after which a check has failed.
    #[serde(skip_serializing_if = "is_zero", deserialize_with = "lenient::default")]
    pub timeout: i64,
    /// Time after start in which failures do not count.
    #[serde(skip_serializing_if = "is_zero", deserialize_with = "lenient::default")]
    pub start_period: i64,
    /// Time between two checks within the start period.
    #[serde(skip_serializing_if = "is_zero", deserialize_with = "lenient::default")]
    pub start_interval: i64,
    /// Failures in a row that make a container unhealthy.
    #[serde(skip_serializing_if = "is_zero", deserialize_with = "lenient::default")]
    pub retries: i64,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes a reference")]
fn is_zero(value: &i64) -> bool {
    *value == 0
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes a reference")]
fn is_false(value: &bool) -> bool {
    !*value
}

/// What a container of an image runs by default: the `config` object.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct ContainerConfig {
    /// Host name; only old images have one, and it is not used for containers.
    #[serde(skip_serializing_if = "String::is_empty", deserialize_with = "lenient::default")]
    pub hostname: String,
    /// Domain name, as [`hostname`](Self::hostname).
    #[serde(skip_serializing_if = "String::is_empty", deserialize_with = "lenient::default")]
    pub domainname: String,
    /// `user[:group]`, names or numbers.
    #[serde(skip_serializing_if = "String::is_empty", deserialize_with = "lenient::default")]
    pub user: String,
    /// Ports as `80/tcp`.
    #[serde(skip_serializing_if = "BTreeMap::is_empty", deserialize_with = "lenient::set")]
    pub exposed_ports: BTreeMap<String, Empty>,
    /// `NAME=value`.
    #[serde(skip_serializing_if = "Option::is_none", deserialize_with = "lenient::words")]
    pub env: Option<Vec<String>>,
    /// The program, before [`cmd`](Self::cmd).
    #[serde(skip_serializing_if = "Option::is_none", deserialize_with = "lenient::words")]
    pub entrypoint: Option<Vec<String>>,
    /// Default arguments, or the program where there is no entrypoint.
    #[serde(skip_serializing_if = "Option::is_none", deserialize_with = "lenient::words")]
    pub cmd: Option<Vec<String>>,
    /// Checks the program's health.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub healthcheck: Option<Healthcheck>,
    /// Windows: the command line is already escaped.
    #[serde(skip_serializing_if = "is_false", deserialize_with = "lenient::default")]
    pub args_escaped: bool,
    /// Paths that become anonymous volumes.
    #[serde(skip_serializing_if = "BTreeMap::is_empty", deserialize_with = "lenient::set")]
    pub volumes: BTreeMap<String, Empty>,
    /// Where the program starts.
    #[serde(skip_serializing_if = "String::is_empty", deserialize_with = "lenient::default")]
    pub working_dir: String,
    /// Build instructions for images made from this one.
    #[serde(skip_serializing_if = "Option::is_none", deserialize_with = "lenient::words")]
    pub on_build: Option<Vec<String>>,
    /// Free metadata. Never configuration of the engine (CVE-2026-53488).
    #[serde(skip_serializing_if = "BTreeMap::is_empty", deserialize_with = "lenient::default")]
    pub labels: BTreeMap<String, String>,
    /// Signal that asks the program to end, as `SIGTERM`.
    #[serde(skip_serializing_if = "String::is_empty", deserialize_with = "lenient::default")]
    pub stop_signal: String,
    /// Seconds between the stop signal and the kill.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stop_timeout: Option<i64>,
    /// Shell for shell-form instructions.
    #[serde(skip_serializing_if = "Option::is_none", deserialize_with = "lenient::words")]
    pub shell: Option<Vec<String>>,
}

/// The layers of an image by the digests of their uncompressed tars, lowest first.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RootFs {
    /// Always `layers`.
    #[serde(default, rename = "type", deserialize_with = "lenient::default")]
    pub kind: String,
    /// Digests of the uncompressed tars, lowest first.
    #[serde(default, deserialize_with = "lenient::default")]
    pub diff_ids: Vec<Digest>,
}

impl Default for RootFs {
    fn default() -> Self {
        Self { kind: "layers".to_owned(), diff_ids: Vec::new() }
    }
}

/// How one layer, or a step without one, came to be.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct History {
    /// When, RFC 3339.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub created: Option<String>,
    /// The command.
    #[serde(skip_serializing_if = "String::is_empty", deserialize_with = "lenient::default")]
    pub created_by: String,
    /// Who.
    #[serde(skip_serializing_if = "String::is_empty", deserialize_with = "lenient::default")]
    pub author: String,
    /// Remark.
    #[serde(skip_serializing_if = "String::is_empty", deserialize_with = "lenient::default")]
    pub comment: String,
    /// The step made no layer.
    #[serde(skip_serializing_if = "is_false", deserialize_with = "lenient::default")]
    pub empty_layer: bool,
}

/// An image's configuration; its digest is the image's id. Legacy fields that only repeat
/// how the image was made (`container`, `container_config`, `id`, `parent`) are not kept.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct ImageConfig {
    /// When the image was made, RFC 3339.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub created: Option<String>,
    /// Who made it.
    #[serde(skip_serializing_if = "String::is_empty", deserialize_with = "lenient::default")]
    pub author: String,
    /// Processor, as `amd64`.
    #[serde(deserialize_with = "lenient::default")]
    pub architecture: String,
    /// Revision of the processor.
    #[serde(skip_serializing_if = "String::is_empty", deserialize_with = "lenient::default")]
    pub variant: String,
    /// Operating system, as `linux`.
    #[serde(deserialize_with = "lenient::default")]
    pub os: String,
    /// Version of the operating system (Windows).
    #[serde(
        rename = "os.version",
        skip_serializing_if = "String::is_empty",
        deserialize_with = "lenient::default"
    )]
    pub os_version: String,
    /// Features that the image needs of the operating system (Windows).
    #[serde(
        rename = "os.features",
        skip_serializing_if = "Vec::is_empty",
        deserialize_with = "lenient::default"
    )]
    pub os_features: Vec<String>,
    /// Remark of whoever made it (Docker).
    #[serde(skip_serializing_if = "String::is_empty", deserialize_with = "lenient::default")]
    pub comment: String,
    /// Version of the engine that made it (Docker).
    #[serde(skip_serializing_if = "String::is_empty", deserialize_with = "lenient::default")]
    pub docker_version: String,
    /// Defaults of containers.
    #[serde(deserialize_with = "lenient::default")]
    pub config: ContainerConfig,
    /// The layers.
    #[serde(deserialize_with = "lenient::default")]
    pub rootfs: RootFs,
    /// How the layers came to be, lowest first.
    #[serde(deserialize_with = "lenient::default")]
    pub history: Vec<History>,
    /// What BuildKit notes of the steps that made the layers: JSON in base64.
    #[serde(
        rename = "moby.buildkit.cache.v0",
        skip_serializing_if = "Option::is_none",
        deserialize_with = "lenient::text"
    )]
    pub inline_cache: Option<String>,
}

impl ImageConfig {
    /// Parses and checks a configuration.
    pub fn parse(bytes: &[u8]) -> Result<Self, ImageError> {
        let document = "image configuration";
        let config: Self = parse(document, bytes)?;
        let invalid = |reason: String| Err(ImageError::Invalid { document, reason });
        if !matches!(config.rootfs.kind.as_str(), "" | "layers" | "layers+base") {
            return invalid(format!("rootfs type {:?}, expected \"layers\"", config.rootfs.kind));
        }
        if config.rootfs.diff_ids.len() > MAX_LAYERS {
            let count = config.rootfs.diff_ids.len();
            return invalid(format!("{count} layers, at most {MAX_LAYERS}"));
        }
        Ok(config)
    }

    /// The bytes to be stored. The digest of these is the image's id.
    pub fn to_bytes(&self) -> Vec<u8> {
        to_bytes(self)
    }

    /// The platform that the image is for. An empty system means `linux`, as for Docker.
    pub fn platform(&self) -> Platform {
        let os = if self.os.is_empty() { "linux" } else { &self.os };
        let mut platform = Platform::new(os, &self.architecture, &self.variant);
        platform.os_version.clone_from(&self.os_version);
        platform.os_features.clone_from(&self.os_features);
        platform
    }

    /// The chain ids of the layers, lowest first. The last names the whole root.
    pub fn chain_ids(&self) -> Vec<Digest> {
        chain_ids(&self.rootfs.diff_ids)
    }
}

/// A document as JSON. The types of this module always serialise.
pub fn to_bytes<T: Serialize>(document: &T) -> Vec<u8> {
    serde_json::to_vec(document).unwrap_or_default()
}

/// The SHA-256 digest of bytes.
pub fn digest(bytes: &[u8]) -> Digest {
    Digest::from_sha256(Sha256::digest(bytes).into())
}

/// The chain id of a layer upon `parent`: what is beneath it is part of its name.
pub fn chain_id(parent: Option<&Digest>, diff_id: &Digest) -> Digest {
    match parent {
        None => *diff_id,
        Some(parent) => digest(format!("{parent} {diff_id}").as_bytes()),
    }
}

/// The chain ids of a stack of layers, lowest first.
pub fn chain_ids(diff_ids: &[Digest]) -> Vec<Digest> {
    let mut chain = Vec::with_capacity(diff_ids.len());
    for diff_id in diff_ids {
        chain.push(chain_id(chain.last(), diff_id));
    }
    chain
}

fn parse<'a, T: Deserialize<'a>>(document: &'static str, bytes: &'a [u8]) -> Result<T, ImageError> {
    if bytes.len() > MAX_DOCUMENT {
        return Err(ImageError::TooLarge { document, size: bytes.len() });
    }
    serde_json::from_slice(bytes).map_err(|source| ImageError::Parse { document, source })
}

#[cfg(test)]
mod tests {
    use super::*;

    const D: &str = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

    #[test]
    fn a_document_of_two_kinds_is_refused() {
        let config = format!(r#"{{"mediaType":"x","digest":"{D}","size":1}}"#);
        let both = format!(
            r#"{{"schemaVersion":2,"config":{config},"layers":[],"manifests":[{config}]}}"#
        );
        assert!(Manifest::parse(both.as_bytes()).is_err());
        assert!(Index::parse(both.as_bytes()).is_err());
        assert!(Document::parse(both.as_bytes(), "").is_err());
        let manifest = format!(r#"{{"schemaVersion":2,"config":{config},"layers":null}}"#);
        assert!(Manifest::parse(manifest.as_bytes()).is_ok());
        assert!(Document::parse(manifest.as_bytes(), media::OCI_INDEX).is_err());
        let lying = format!(
            r#"{{"schemaVersion":2,"mediaType":"{}","config":{config}}}"#,
            media::OCI_INDEX
        );
        assert!(Manifest::parse(lying.as_bytes()).is_err());
        let schema1 = br#"{"schemaVersion":1,"fsLayers":[]}"#;
        assert!(Document::parse(schema1, "").is_err());
    }

    #[test]
    fn nulls_and_old_forms_are_taken() {
        let text = format!(
            r#"{{"os":null,"architecture":"amd64","container":"x","container_config":{{"Cmd":["no"]}},
            "config":{{"Cmd":"one","Env":null,"ExposedPorts":{{"80/tcp":null}},"Volumes":null,
            "Healthcheck":{{"Test":["NONE"],"Interval":null}}}},
            "history":null,"rootfs":{{"type":"layers","diff_ids":["{D}"]}}}}"#
        );
        let config = ImageConfig::parse(text.as_bytes()).unwrap();
        assert_eq!(config.config.cmd, Some(vec!["one".to_owned()]));
        assert!(config.config.exposed_ports.contains_key("80/tcp"));
        assert_eq!(config.platform().to_string(), "linux/amd64");
        assert_eq!(config.chain_ids(), vec![D.parse().unwrap()]);
        let written = String::from_utf8(config.to_bytes()).unwrap();
        assert!(!written.contains("container_config"));
        assert_eq!(ImageConfig::parse(written.as_bytes()).unwrap(), config);
        assert!(ImageConfig::parse(br#"{"config":null}"#).is_ok());
    }

    #[test]
    fn documents_are_bounded() {
        let mut big = vec![b' '; MAX_DOCUMENT];
        big.extend_from_slice(b"{}");
        assert!(matches!(ImageConfig::parse(&big), Err(ImageError::TooLarge { .. })));
        let ids = vec![format!("\"{D}\""); MAX_LAYERS + 1].join(",");
        let text = format!(r#"{{"rootfs":{{"diff_ids":[{ids}]}}}}"#);
        assert!(ImageConfig::parse(text.as_bytes()).is_err());
        let deep = format!("{}{}", "[".repeat(100_000), "]".repeat(100_000));
        assert!(ImageConfig::parse(format!(r#"{{"config":{deep}}}"#).as_bytes()).is_err());
        assert!(ImageConfig::parse(br#"{"rootfs":{"diff_ids":["sha256:../../x"]}}"#).is_err());
    }

    #[test]
    fn chain_id_of_two_layers() {
        let a: Digest = D.parse().unwrap();
        let chain = chain_ids(&[a, a]);
        assert_eq!(chain[0], a);
        assert_eq!(chain[1], digest(format!("{D} {D}").as_bytes()));
    }
}
