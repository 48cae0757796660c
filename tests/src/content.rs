//! What a registry of a test has, and how an honest one answers.

use std::collections::BTreeMap;
use std::io::Write as _;

use flate2::write::GzEncoder;
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

use crate::{Asked, Reply};

/// Media types.
pub const OCI_MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
/// An index.
pub const OCI_INDEX: &str = "application/vnd.oci.image.index.v1+json";
const OCI_CONFIG: &str = "application/vnd.oci.image.config.v1+json";
const OCI_LAYER: &str = "application/vnd.oci.image.layer.v1.tar+gzip";

/// The digest of bytes.
pub fn sha256(bytes: &[u8]) -> String {
    let hex: Vec<String> = Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect();
    format!("sha256:{}", hex.concat())
}

/// A tar of one file, `name`, with `size` bytes that hardly compress.
pub fn tar_of(name: &str, size: usize) -> Vec<u8> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64 ^ size as u64;
    let mut data = vec![0; size];
    for byte in &mut data {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        *byte = state.to_le_bytes()[3];
    }
    let mut header = [0_u8; 512];
    let mut put =
        |at: usize, text: &str| header[at..at + text.len()].copy_from_slice(text.as_bytes());
    put(0, name);
    put(100, "0000644\x000000000\x000000000\x00");
    put(124, &format!("{size:011o}\x0014524260400\x00        0"));
    put(257, "ustar\x0000");
    let sum: u32 = header.iter().map(|byte| u32::from(*byte)).sum();
    header[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    let padding = size.next_multiple_of(512) - size + 1024;
    [&header[..], &data, &vec![0; padding]].concat()
}

/// Compressed as layers are.
pub fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(bytes).expect("compress");
    encoder.finish().expect("compress")
}

/// What is in a registry: the same for all its repositories.
#[derive(Debug, Clone, Default)]
pub struct Content {
    /// Types and bytes of manifests, by tags and digests.
    pub manifests: BTreeMap<String, (String, Vec<u8>)>,
    /// Blobs by digests.
    pub blobs: BTreeMap<String, Vec<u8>>,
    /// What has come of uploads.
    pub uploads: BTreeMap<String, Vec<u8>>,
    /// Whether blobs are mounted from other repositories.
    pub mounts: bool,
}

impl Content {
    /// Content with an image `latest` of layers that are tar archives.
    pub fn of(layers: &[Vec<u8>]) -> Self {
        let mut content = Self::default();
        let manifest = content.image(layers);
        content.add_manifest("latest", OCI_MANIFEST, manifest.to_string().into_bytes());
        content
    }

    /// Adds a blob; gives its descriptor.
    pub fn add_blob(&mut self, media_type: &str, bytes: Vec<u8>) -> Value {
        let digest = sha256(&bytes);
        let descriptor = json!({"mediaType": media_type, "digest": digest, "size": bytes.len()});
        self.blobs.insert(digest, bytes);
        descriptor
    }

    /// Adds a manifest or index; gives its digest.
    pub fn add_manifest(&mut self, tag: &str, media_type: &str, bytes: Vec<u8>) -> String {
        let digest = sha256(&bytes);
        self.manifests.insert(digest.clone(), (media_type.to_owned(), bytes.clone()));
        self.manifests.insert(tag.to_owned(), (media_type.to_owned(), bytes));
        digest
    }

    /// Adds the blobs of an image for Linux; gives its manifest, which is not added.
    pub fn image(&mut self, layers: &[Vec<u8>]) -> Value {
        let diff_ids: Vec<String> = layers.iter().map(|layer| sha256(layer)).collect();
        let architecture = if cfg!(target_arch = "aarch64") { "arm64" } else { "amd64" };
        let config = json!({
            "os": "linux",
            "architecture": architecture,
            "config": {},
            "rootfs": {"type": "layers", "diff_ids": diff_ids},
        });
        let config = self.add_blob(OCI_CONFIG, config.to_string().into_bytes());
        let layers: Vec<Value> =
            layers.iter().map(|layer| self.add_blob(OCI_LAYER, gzip(layer))).collect();
        json!({
            "schemaVersion": 2,
            "mediaType": OCI_MANIFEST,
            "config": config,
            "layers": layers,
        })
    }

    /// Answers as a registry should.
    pub fn answer(&mut self, asked: &Asked) -> Reply {
        let path = asked.path().to_owned();
        if let Some((_, selector)) = path.split_once("/manifests/") {
            return self.manifest(asked, selector);
        }
        if let Some((repository, upload)) = path.split_once("/blobs/uploads/") {
            return self.upload(asked, repository, upload);
        }
        if let Some((_, digest)) = path.split_once("/blobs/") {
            let Some(bytes) = self.blobs.get(digest) else {
                return Reply::refusal(404, "BLOB_UNKNOWN");
            };
            return part(asked, bytes);
        }
        if path == "/v2/" { Reply::new(200, "{}") } else { Reply::refusal(404, "NAME_UNKNOWN") }
    }

    fn manifest(&mut self, asked: &Asked, selector: &str) -> Reply {
        if asked.method == "PUT" {
            let kind = asked.header("content-type").to_owned();
            let digest = self.add_manifest(selector, &kind, asked.body.clone());
            return Reply::new(201, "").header("Docker-Content-Digest", digest);
        }
        match self.manifests.get(selector) {
            None => Reply::refusal(404, "MANIFEST_UNKNOWN"),
            Some((media_type, bytes)) => Reply::new(200, bytes.clone())
                .header("Content-Type", media_type)
                .header("Docker-Content-Digest", sha256(bytes)),
        }
    }

    fn upload(&mut self, asked: &Asked, repository: &str, upload: &str) -> Reply {
        let at = |id: &str| format!("{repository}/blobs/uploads/{id}?_state=abc");
        if asked.method == "POST" {
            let mount = asked.field("mount");
            if mount.is_some_and(|digest| self.mounts && self.blobs.contains_key(&digest)) {
                return Reply::new(201, "");
            }
            let id = format!("u{}", self.uploads.len());
            self.uploads.insert(id.clone(), Vec::new());
            return Reply::new(202, "").header("Location", at(&id)).header("Range", "0-0");
        }
        let Some(bytes) = self.uploads.get_mut(upload) else {
            return Reply::refusal(404, "BLOB_UPLOAD_UNKNOWN");
        };
        bytes.extend_from_slice(&asked.body);
        let range = format!("0-{}", bytes.len().saturating_sub(1));
        match asked.method.as_str() {
            "PUT" => {
                let wanted = asked.field("digest").unwrap_or_default();
                if sha256(bytes) != wanted {
                    return Reply::refusal(400, "DIGEST_INVALID");
                }
                self.blobs.insert(wanted, bytes.clone());
                Reply::new(201, "")
            }
            "PATCH" => Reply::new(202, "").header("Location", at(upload)).header("Range", range),
            _ => Reply::new(204, "").header("Location", at(upload)).header("Range", range),
        }
    }
}

/// A blob, or the part of it that is asked for.
fn part(asked: &Asked, bytes: &[u8]) -> Reply {
    let range =
        asked.header("range").strip_prefix("bytes=").and_then(|range| range.split_once('-'));
    let Some((start, last)) = range else { return Reply::new(200, bytes) };
    let start: usize = start.parse().unwrap_or(0);
    let end = last.parse().map_or(bytes.len(), |last: usize| (last + 1).min(bytes.len()));
    if start >= end {
        return Reply::new(416, "");
    }
    Reply::new(206, &bytes[start..end])
        .header("Content-Range", format!("bytes {start}-{}/{}", end - 1, bytes.len()))
}
