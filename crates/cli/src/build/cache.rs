//! `--cache-from`, `--cache-to`, and image layouts as contexts: directories of this user that the
//! builder reads and writes.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use serde_json::json;
use silo_buildkit::client::{Share, name_in_layout, resolve_layout};

use super::request::name;
use super::share::fields;
use crate::failure::{Failure, Outcome};

/// A kind with its attributes.
type Kind = (String, HashMap<String, String>);

/// A directory, and the name that a cache gets there.
type Named = (PathBuf, String);

/// The kind and the attributes of a cache. A name alone is an image.
fn kind(text: &str) -> Outcome<Kind> {
    let mut attributes: HashMap<String, String> = HashMap::new();
    if !text.contains('=') {
        attributes.insert("ref".to_owned(), text.to_owned());
        return Ok(("registry".to_owned(), attributes));
    }
    let mut kind = None;
    let bad = |why: String| Failure::new(format!("ERROR: invalid cache {text:?}: {why}"));
    for (name, value) in fields(text).map_err(bad)? {
        if name == "type" {
            kind = Some(value);
        } else {
            attributes.insert(name, value);
        }
    }
    let kind =
        kind.ok_or_else(|| Failure::new(format!("ERROR: type is required for cache {text:?}")))?;
    Ok((kind, attributes))
}

fn failed(what: &str, path: &str) -> impl FnOnce(std::io::Error) -> Failure {
    move |error| Failure::new(format!("ERROR: {what} {path}: {error}"))
}

/// What the frontend takes for `--cache-from`. A directory that holds no cache is said and left
/// out.
pub(super) fn imports(texts: &[String], share: &mut Share) -> Outcome<Vec<serde_json::Value>> {
    let mut imports = Vec::new();
    for text in texts {
        let (kind, mut attributes) = kind(text)?;
        if kind == "local" {
            let Some(path) = attributes.get("src").filter(|path| !path.is_empty()).cloned() else {
                return Err(Failure::new("ERROR: local cache importer requires src"));
            };
            if !attributes.contains_key("digest") {
                let tag = attributes.get("tag").map_or("latest", String::as_str);
                let found = resolve_layout(Path::new(&path), tag);
                let why = match found {
                    Ok(Some(digest)) => {
                        attributes.insert("digest".to_owned(), digest.to_string());
                        None
                    }
                    Ok(None) => Some(format!("no digest found for tag {tag}")),
                    Err(error) => Some(error.to_string()),
                };
                if let Some(why) = why {
                    let text = format!("WARNING: local cache import at {path} skipped: {why}");
                    crate::context::warn(&text);
                    continue;
                }
            }
            share.stores.insert(format!("local:{path}"), PathBuf::from(path));
        }
        imports.push(json!({"Type": kind, "Attrs": attributes}));
    }
    Ok(imports)
}

/// What the builder takes for `--cache-to`, and the directories that get a cache with the names
/// that it gets there.
pub(super) fn exports(texts: &[String], share: &mut Share) -> Outcome<(Vec<Kind>, Vec<Named>)> {
    let mut directories: Vec<Named> = Vec::new();
    let mut exports = Vec::new();
    for text in texts {
        let (kind, attributes) = kind(text)?;
        if kind == "local" {
            let Some(path) = attributes.get("dest").filter(|path| !path.is_empty()) else {
                return Err(Failure::new("ERROR: local cache exporter requires dest"));
            };
            if attributes.contains_key("reset") {
                let text = "ERROR: reset of a local cache is not supported by this version of Silo";
                return Err(Failure::new(text));
            }
            if !directories.is_empty() {
                return Err(Failure::new("ERROR: more than one local cache export"));
            }
            fs_err::create_dir_all(path).map_err(failed("make", path))?;
            let tag = attributes.get("tag").map_or("latest", String::as_str).to_owned();
            share.stores.insert(format!("local:{path}"), PathBuf::from(path));
            directories.push((PathBuf::from(path), tag));
        }
        exports.push((kind, attributes));
    }
    Ok((exports, directories))
}

/// Gives the cache that was written its name in the directories.
pub(crate) fn finish(caches: &[(PathBuf, String)], response: &HashMap<String, String>) -> Outcome {
    let Some(text) = response.get("cache.manifest") else { return Ok(()) };
    let manifest: silo_oci::image::Descriptor = serde_json::from_str(text)
        .map_err(|error| Failure::new(format!("ERROR: the engine's answer: {error}")))?;
    for (path, tag) in caches {
        name_in_layout(path, tag, manifest.clone())
            .map_err(failed("write", &path.display().to_string()))?;
    }
    Ok(())
}

/// An image layout, `PATH[:TAG][@DIGEST]`, as a context.
pub(super) fn layout(text: &str, share: &mut Share) -> Outcome<String> {
    let (place, digest) = match text.split_once('@') {
        Some((place, digest)) => (place, Some(digest.to_owned())),
        None => (text, None),
    };
    let (path, tag) = match place.rsplit_once(':') {
        Some((path, tag)) if !tag.contains('/') => (path, tag),
        _ => (place, "latest"),
    };
    let bad = |why: String| {
        Failure::new(format!(
            "ERROR: oci-layout reference \"oci-layout://{text}\" could not be resolved: {why}"
        ))
    };
    let directory = Path::new(path);
    if !directory.join("oci-layout").is_file() {
        return Err(bad(format!("{path} is no OCI layout")));
    }
    let digest = match digest {
        Some(digest) => digest,
        None => {
            let found = resolve_layout(directory, tag).map_err(|error| bad(error.to_string()))?;
            let found = found.ok_or_else(|| bad(format!("nothing has the name {tag}")))?;
            found.to_string()
        }
    };
    let store = name();
    let value = format!("oci-layout://{store}:{tag}@{digest}");
    share.stores.insert(format!("oci:{store}"), directory.to_owned());
    Ok(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn caches_have_kinds() {
        let mut share = Share::default();
        let texts = ["user/image:tag", "type=registry,ref=x", "type=gha,scope=a"];
        let imports = imports(&texts.map(str::to_owned), &mut share).unwrap();
        assert_eq!(imports[0], json!({"Type": "registry", "Attrs": {"ref": "user/image:tag"}}));
        assert_eq!(imports[2], json!({"Type": "gha", "Attrs": {"scope": "a"}}));
        assert!(share.stores.is_empty());
        assert!(kind("mode=max").is_err());
    }

    #[test]
    fn directories_are_shared() {
        let temporary = tempfile::tempdir().unwrap();
        let path = temporary.path().join("cache");
        let text = format!("type=local,dest={},tag=a,mode=max", path.display());
        let mut share = Share::default();
        let (kinds, directories) = exports(&[text], &mut share).unwrap();
        assert_eq!((kinds[0].0.as_str(), &directories[0].1[..]), ("local", "a"));
        assert_eq!(share.stores[&format!("local:{}", path.display())], path);
        // It holds nothing yet, which is no error.
        let from = format!("type=local,src={}", path.display());
        assert!(imports(std::slice::from_ref(&from), &mut share).unwrap().is_empty());
        let descriptor = silo_oci::image::Descriptor::new("x", silo_oci::image::digest(b""), 1);
        let answer = serde_json::to_string(&descriptor).unwrap();
        let response = HashMap::from([("cache.manifest".to_owned(), answer)]);
        finish(&directories, &response).unwrap();
        let found = imports(&[format!("{from},tag=a")], &mut share).unwrap();
        assert_eq!(found[0]["Attrs"]["digest"], descriptor.digest.to_string());
        for bad in ["type=local", "type=local,dest=", "type=local,dest=/tmp,reset=true"] {
            assert!(exports(&[bad.to_owned()], &mut share).is_err(), "{bad}");
        }
        let place = path.display().to_string();
        let context = layout(&format!("{place}:a"), &mut share).unwrap();
        assert!(context.ends_with(&format!(":a@{}", descriptor.digest)), "{context}");
        let by_digest = layout(&format!("{place}@{}", descriptor.digest), &mut share).unwrap();
        assert!(by_digest.ends_with(&format!(":latest@{}", descriptor.digest)), "{by_digest}");
        assert!(layout(&format!("{place}:b"), &mut share).is_err());
        assert!(layout("/no/such/place", &mut share).is_err());
    }
}
