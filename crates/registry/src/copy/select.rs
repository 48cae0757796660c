//! Some platforms of an image.

use std::collections::HashSet;

use serde_json::Value;
use silo_oci::image::{Descriptor, Document, ImageConfig, MAX_DOCUMENT, digest};
use silo_oci::platform::Platform;
use silo_types::Digest;

use super::{Content, CopyError, Source, read};
use crate::{Error, platform};

/// The annotation by which BuildKit says which image an attestation in the same index is about.
const ABOUT: &str = "vnd.docker.reference.digest";

/// The image for some platforms; all that there are if none is asked for.
pub(super) async fn platforms(
    source: &Source,
    root: Content,
    wanted: &[Platform],
) -> Result<Content, CopyError> {
    let Some((first, more)) = wanted.split_first() else { return Ok(root) };
    match read(&root)? {
        Document::Index(index) => {
            if more.is_empty() {
                let entry = platform::choose(&index, Some(first), u32::MAX)?;
                return source.document(entry).await;
            }
            let mut kept = HashSet::new();
            for wanted in wanted {
                kept.insert(platform::choose(&index, Some(wanted), u32::MAX)?.digest);
            }
            part(&root, &kept)
        }
        Document::Manifest(manifest) => {
            let config = source.small(&manifest.config, MAX_DOCUMENT).await?;
            let Ok(found) = ImageConfig::parse(&config).map(|config| config.platform()) else {
                return Ok(root);
            };
            match wanted.iter().find(|wanted| !wanted.matches(&found)) {
                Some(other) => Err(Error::OtherPlatform {
                    reference: source.to_string(),
                    wanted: other.to_string(),
                    found: found.to_string(),
                }
                .into()),
                None => Ok(root),
            }
        }
    }
}

/// An index with some of the entries, and what is about these; nothing else of it changes.
fn part(root: &Content, kept: &HashSet<Digest>) -> Result<Content, CopyError> {
    let is_kept = |digest: &Value| {
        let digest = digest.as_str().and_then(|digest| digest.parse::<Digest>().ok());
        digest.is_some_and(|digest| kept.contains(&digest))
    };
    let mut value: Value = serde_json::from_slice(&root.bytes).unwrap_or_default();
    let Some(entries) = value["manifests"].as_array_mut() else {
        return Err(Error::Broken("an index without manifests").into());
    };
    let before = entries.len();
    entries.retain(|entry| is_kept(&entry["digest"]) || is_kept(&entry["annotations"][ABOUT]));
    if entries.len() == before {
        return Ok(root.clone());
    }
    let bytes = value.to_string().into_bytes();
    let descriptor =
        Descriptor::new(&root.descriptor.media_type, digest(&bytes), bytes.len() as u64);
    Ok(Content { descriptor, bytes: bytes.into() })
}

#[cfg(test)]
mod tests {
    use serde_json::json;
    use silo_oci::image::media;

    use super::*;

    #[test]
    fn a_part_of_an_index() {
        let of = |name: &str| digest(name.as_bytes());
        let entry = |name: &str, about: Option<&str>| {
            let about = about.map(|about| json!({ABOUT: of(about)})).unwrap_or(json!({}));
            json!({"mediaType": media::OCI_MANIFEST, "digest": of(name), "size": 1, "annotations": about})
        };
        let index = json!({
            "schemaVersion": 2,
            "other": true,
            "manifests": [
                entry("a", None), entry("b", None), entry("c", None), entry("x", Some("a")),
                entry("y", Some("b")),
            ],
        });
        let bytes = index.to_string().into_bytes();
        let descriptor = Descriptor::new(media::OCI_INDEX, digest(&bytes), bytes.len() as u64);
        let root = Content { descriptor, bytes: bytes.into() };
        for (kept, found) in [(&["a", "c"][..], &["a", "c", "x"][..]), (&["b"], &["b", "y"])] {
            let kept = kept.iter().map(|name| of(name)).collect();
            let part = part(&root, &kept).unwrap();
            let value: Value = serde_json::from_slice(&part.bytes).unwrap();
            let digests: Vec<&str> = value["manifests"]
                .as_array()
                .unwrap()
                .iter()
                .filter_map(|entry| entry["digest"].as_str())
                .collect();
            let wanted: Vec<String> = found.iter().map(|name| of(name).to_string()).collect();
            assert_eq!(digests, wanted);
            assert_eq!(value["other"], true);
            assert_eq!(part.descriptor.digest, digest(&part.bytes));
        }
        let all = ["a", "b", "c"].iter().map(|name| of(name)).collect();
        assert_eq!(part(&root, &all).unwrap().descriptor.digest, root.descriptor.digest);
    }
}
