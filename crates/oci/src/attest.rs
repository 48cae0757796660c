//! What is said about an image, kept beside it in an index as BuildKit does: an *attestation
//! manifest* for the platform `unknown/unknown`, whose layers are in-toto statements about the
//! image's manifest.
//!
//! Source: <https://github.com/moby/buildkit/blob/master/docs/attestations/attestation-storage.md>

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use silo_types::Digest;

use crate::image::{
    Descriptor, ImageConfig, ImageError, MAX_DOCUMENT, Manifest, RootFs, digest, media, to_bytes,
};
use crate::platform::Platform;
use crate::reference::{DEFAULT_TAG, Reference};

/// Type of a statement's blob.
pub const STATEMENT: &str = "application/vnd.in-toto+json";
/// Type of the artifact that an attestation manifest is, where it is one.
const ARTIFACT: &str = "application/vnd.docker.attestation.manifest.v1+json";
/// Type of the configuration of what has none.
const EMPTY: &str = "application/vnd.oci.empty.v1+json";
/// Annotation of an index's entry: what it is to another entry.
const REFERENCE_TYPE: &str = "vnd.docker.reference.type";
/// Annotation of an index's entry: that other entry.
const REFERENCE_DIGEST: &str = "vnd.docker.reference.digest";
/// What an entry with an attestation manifest is.
const ATTESTATION: &str = "attestation-manifest";
/// Annotation of a statement's blob: what it says.
const PREDICATE_TYPE: &str = "in-toto.io/predicate-type";
/// The version of statements.
const STATEMENT_TYPE: &str = "https://in-toto.io/Statement/v0.1";
/// The name of what has none.
const UNNAMED: &str = "_";

/// Something that is said, about whatever it will be said.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Attestation {
    /// What kind of thing it is, a URI.
    pub predicate_type: String,
    /// What is said.
    pub predicate: serde_json::Value,
    /// The name of its file, where it is kept as one.
    pub file: String,
    /// What it is about, where that is not what it will be said of.
    pub subjects: Vec<Subject>,
}

/// What a statement is about.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Subject {
    /// Its name.
    pub name: String,
    /// Digests of its content, by algorithm.
    pub digest: BTreeMap<String, String>,
}

impl Subject {
    /// A subject with the SHA-256 of its content.
    pub fn new(name: impl Into<String>, digest: &Digest) -> Self {
        Self { name: name.into(), digest: BTreeMap::from([("sha256".to_owned(), digest.hex())]) }
    }
}

/// A statement of in-toto.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Statement {
    #[serde(rename = "_type")]
    kind: String,
    predicate_type: String,
    #[serde(default)]
    subject: Option<Vec<Subject>>,
    predicate: serde_json::Value,
}

impl Attestation {
    /// What a statement says, without what it says it of unless it names that.
    pub fn of_statement(bytes: &[u8], file: &str) -> Result<Self, serde_json::Error> {
        let statement: Statement = serde_json::from_slice(bytes)?;
        Ok(Self {
            predicate_type: statement.predicate_type,
            predicate: statement.predicate,
            file: file.to_owned(),
            subjects: statement.subject.unwrap_or_default(),
        })
    }

    /// The statement that says this of `subjects`: one line for a blob, lines for a file of its
    /// own.
    pub fn statement(&self, subjects: Vec<Subject>, lines: bool) -> Vec<u8> {
        let statement = Statement {
            kind: STATEMENT_TYPE.to_owned(),
            predicate_type: self.predicate_type.clone(),
            subject: Some(if self.subjects.is_empty() { subjects } else { self.subjects.clone() }),
            predicate: self.predicate.clone(),
        };
        if lines {
            return serde_json::to_vec_pretty(&statement).unwrap_or_default();
        }
        to_bytes(&statement)
    }
}

/// An attestation manifest with all that it names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Attached {
    /// The entry of the index, which goes behind all images.
    pub descriptor: Descriptor,
    /// The manifest.
    pub manifest: Vec<u8>,
    /// The configuration and the statements.
    pub blobs: Vec<(Descriptor, Vec<u8>)>,
}

impl Attached {
    /// Says all of `attestations` about the image of a manifest, which has these names. An
    /// `artifact` points to the manifest by itself too, so that registries list it.
    pub fn new(
        target: &Descriptor,
        names: &[String],
        attestations: &[Attestation],
        artifact: bool,
    ) -> Self {
        let subjects = if names.is_empty() {
            vec![Subject::new(UNNAMED, &target.digest)]
        } else {
            names.iter().map(|name| Subject::new(name.as_str(), &target.digest)).collect()
        };
        let statements = attestations
            .iter()
            .map(|said| (said.predicate_type.clone(), said.statement(subjects.clone(), false)));
        Self::of(target, statements.collect(), artifact)
    }

    fn of(target: &Descriptor, statements: Vec<(String, Vec<u8>)>, artifact: bool) -> Self {
        let described = |(kind, bytes): (String, Vec<u8>)| {
            let mut descriptor = blob(STATEMENT, &bytes);
            descriptor.annotations.insert(PREDICATE_TYPE.to_owned(), kind);
            (descriptor, bytes)
        };
        let statements: Vec<_> = statements.into_iter().map(described).collect();
        let layers: Vec<Descriptor> =
            statements.iter().map(|(descriptor, _)| descriptor.clone()).collect();
        let config = if artifact {
            (blob(EMPTY, b"{}"), b"{}".to_vec())
        } else {
            // Only so that it looks like an image to registries.
            let config = ImageConfig {
                architecture: "unknown".to_owned(),
                os: "unknown".to_owned(),
                rootfs: RootFs {
                    diff_ids: layers.iter().map(|layer| layer.digest).collect(),
                    ..RootFs::default()
                },
                ..ImageConfig::default()
            };
            let bytes = config.to_bytes();
            (blob(media::OCI_CONFIG, &bytes), bytes)
        };
        let about = Descriptor::new(&target.media_type, target.digest, target.size);
        let manifest = to_bytes(&Manifest {
            schema_version: 2,
            media_type: media::OCI_MANIFEST.to_owned(),
            artifact_type: if artifact { ARTIFACT.to_owned() } else { String::new() },
            config: config.0.clone(),
            layers,
            subject: artifact.then_some(about),
            annotations: BTreeMap::new(),
        });
        let mut descriptor = blob(media::OCI_MANIFEST, &manifest);
        descriptor.platform = Some(Platform::new("unknown", "unknown", ""));
        let marks = [
            (REFERENCE_TYPE, ATTESTATION.to_owned()),
            (REFERENCE_DIGEST, target.digest.to_string()),
        ];
        descriptor.annotations.extend(marks.map(|(name, value)| (name.to_owned(), value)));
        let blobs = std::iter::once(config).chain(statements).collect();
        Self { descriptor, manifest, blobs }
    }

    /// The same, about the same image as it is packed elsewhere. `read` gives the statements.
    /// `None` if something is said that is no statement, or that may be signed.
    pub fn moved(
        manifest: &Manifest,
        from: &Digest,
        target: &Descriptor,
        mut read: impl FnMut(&Descriptor) -> Option<Vec<u8>>,
    ) -> Option<Self> {
        let mut statements = Vec::new();
        for layer in &manifest.layers {
            let bytes = read(layer).filter(|_| layer.media_type == STATEMENT)?;
            let mut statement: Statement = serde_json::from_slice(&bytes).ok()?;
            let (old, new) = (from.hex(), target.digest.hex());
            for subject in statement.subject.iter_mut().flatten() {
                for value in subject.digest.values_mut().filter(|value| **value == old) {
                    value.clone_from(&new);
                }
            }
            statements.push((statement.predicate_type.clone(), to_bytes(&statement)));
        }
        Some(Self::of(target, statements, manifest.subject.is_some()))
    }

    /// All its documents, in the order in which they can be stored.
    pub fn documents(self) -> impl Iterator<Item = Vec<u8>> {
        self.blobs.into_iter().map(|(_, bytes)| bytes).chain([self.manifest])
    }
}

/// Of which image's manifest an index's entry is an attestation, if it is one.
pub fn attests(entry: &Descriptor) -> Option<Digest> {
    let kind = entry.annotations.get(REFERENCE_TYPE);
    kind.filter(|kind| *kind == ATTESTATION)?;
    entry.annotations.get(REFERENCE_DIGEST)?.parse().ok()
}

/// The manifest of an attestation, if that is what the bytes are.
pub fn parse(bytes: &[u8]) -> Result<Manifest, ImageError> {
    let manifest = Manifest::parse(bytes)?;
    let total = manifest.layers.iter().map(|layer| layer.size).fold(0, u64::saturating_add);
    if total > MAX_STATEMENTS {
        return Err(ImageError::Invalid {
            document: "attestation manifest",
            reason: format!("{total} bytes of statements, at most {MAX_STATEMENTS}"),
        });
    }
    Ok(manifest)
}

/// Bytes of all statements about one image.
pub const MAX_STATEMENTS: u64 = 64 << 20;

const _: () = assert!(MAX_STATEMENTS > MAX_DOCUMENT as u64, "one statement may be a document");

fn blob(media_type: &str, bytes: &[u8]) -> Descriptor {
    Descriptor::new(media_type, digest(bytes), bytes.len() as u64)
}

/// A package URL of an image: `pkg:docker/busybox@latest?platform=linux%2Famd64`. `kind` is
/// `docker` for what is in a registry, and `oci` for what is in a layout.
///
/// Source: <https://github.com/package-url/purl-spec>
pub fn package_url(kind: &str, name: &Reference, platform: Option<&Platform>) -> String {
    let mut url = format!("pkg:{kind}");
    for part in name.familiar_name().split('/') {
        url.push('/');
        url.push_str(&escaped(part, b":"));
    }
    let version = match (name.tag(), name.digest()) {
        (None, None) => Some(DEFAULT_TAG),
        (tag, _) => tag,
    };
    if let Some(version) = version {
        url.push('@');
        url.push_str(&escaped(version, b""));
    }
    let digest = name.digest().map(|digest| ("digest", digest.to_string()));
    let platform = platform.map(|platform| {
        let mut platform = platform.clone();
        platform.normalize();
        ("platform", platform.to_string())
    });
    for (number, (name, value)) in digest.into_iter().chain(platform).enumerate() {
        url.push(if number == 0 { '?' } else { '&' });
        url.push_str(&format!("{name}={}", escaped(&value, b":")));
    }
    url
}

fn escaped(text: &str, also: &[u8]) -> String {
    let mut escaped = String::new();
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) || also.contains(&byte) {
            escaped.push(char::from(byte));
        } else {
            escaped.push_str(&format!("%{byte:02X}"));
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use super::*;

    fn target(text: &str) -> Descriptor {
        blob(media::OCI_MANIFEST, text.as_bytes())
    }

    fn said() -> Attestation {
        Attestation {
            predicate_type: "https://slsa.dev/provenance/v0.2".to_owned(),
            predicate: serde_json::json!({"buildType": "x"}),
            file: "provenance.json".to_owned(),
            subjects: Vec::new(),
        }
    }

    #[test]
    fn an_attestation_is_about_one_manifest() {
        let image = target("image");
        for artifact in [false, true] {
            let made = Attached::new(&image, &["a".to_owned()], &[said()], artifact);
            assert_eq!(attests(&made.descriptor), Some(image.digest));
            assert_eq!(made.descriptor.digest, digest(&made.manifest));
            let manifest = parse(&made.manifest).unwrap();
            assert_eq!(manifest.subject.is_some(), artifact);
            assert_eq!(manifest.layers[0], made.blobs[1].0);
            let statement: Statement = serde_json::from_slice(&made.blobs[1].1).unwrap();
            assert_eq!(statement.subject.unwrap(), [Subject::new("a", &image.digest)]);
            assert_eq!(statement.predicate, said().predicate);

            // The same of another packing of it, and nothing else.
            let other = target("packed");
            let read = |wanted: &Descriptor| {
                let mut blobs = made.blobs.iter();
                blobs.find(|(blob, _)| blob.digest == wanted.digest).map(|(_, bytes)| bytes.clone())
            };
            let moved = Attached::moved(&manifest, &image.digest, &other, read).unwrap();
            assert_eq!(moved, Attached::new(&other, &["a".to_owned()], &[said()], artifact));
            assert!(Attached::moved(&manifest, &image.digest, &other, |_| None).is_none());
            let mut signed = manifest.clone();
            signed.layers[0].media_type = "application/vnd.dsse.envelope.v1+json".to_owned();
            assert!(Attached::moved(&signed, &image.digest, &other, read).is_none());
        }
        let unnamed = Attached::new(&image, &[], &[said()], false);
        let statement: Statement = serde_json::from_slice(&unnamed.blobs[1].1).unwrap();
        assert_eq!(statement.subject.unwrap()[0].name, "_");
        assert_eq!(attests(&image), None);
    }

    #[test]
    fn package_urls_of_images() {
        let platform: Platform = "linux/amd64".parse().unwrap();
        let digest = target("x").digest;
        for (name, with, url) in [
            ("busybox", true, "pkg:docker/busybox@latest?platform=linux%2Famd64".to_owned()),
            ("a/b/c:1.0", false, "pkg:docker/a/b/c@1.0".to_owned()),
            ("localhost:5000/x", false, "pkg:docker/localhost:5000/x@latest".to_owned()),
            (&format!("x@{digest}"), false, format!("pkg:docker/x?digest={digest}")),
        ] {
            let name = Reference::parse_normalized(name).unwrap();
            let platform = Some(&platform).filter(|_| with);
            assert_eq!(package_url("docker", &name, platform), url);
        }
    }
}
