//! Lists of manifests on this host, in the form and place of Docker's command line:
//! `~/.docker/manifests/<list>/<manifest>`, names with `_` for `/` and `-` for `:`.

use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use silo_oci::image::{Descriptor, MAX_DOCUMENT, Manifest, media};
use silo_oci::reference::Reference;

use crate::failure::{Failure, Outcome};

/// An image's manifest, as a list has it.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Entry {
    /// Where it is from, whole.
    #[serde(rename = "Ref")]
    pub(super) reference: String,
    #[serde(rename = "Descriptor")]
    pub(super) descriptor: Descriptor,
    /// The bytes that have the digest, in base64.
    #[serde(rename = "Raw", default, skip_serializing_if = "String::is_empty")]
    raw: String,
    #[serde(rename = "SchemaV2Manifest", default, skip_serializing_if = "Option::is_none")]
    docker: Option<Box<RawValue>>,
    #[serde(rename = "OCIManifest", default, skip_serializing_if = "Option::is_none")]
    oci: Option<Box<RawValue>>,
}

impl Entry {
    /// An entry of what a registry has.
    pub(super) fn new(reference: String, descriptor: Descriptor, bytes: &[u8]) -> Outcome<Self> {
        let text = std::str::from_utf8(bytes).map_err(|error| Failure::new(error.to_string()))?;
        let compact = RawValue::from_string(compact(text))
            .map_err(|error| Failure::new(error.to_string()))?;
        let is_docker = descriptor.media_type == media::DOCKER_MANIFEST;
        let (docker, oci) = if is_docker { (Some(compact), None) } else { (None, Some(compact)) };
        let raw = STANDARD.encode(bytes);
        Ok(Self { reference, descriptor, raw, docker, oci })
    }

    /// The manifest's bytes; `None` where an old client did not keep them.
    pub(super) fn bytes(&self) -> Option<Vec<u8>> {
        STANDARD.decode(&self.raw).ok().filter(|bytes| !bytes.is_empty())
    }

    /// The manifest as JSON.
    pub(super) fn json(&self) -> &str {
        self.docker.as_ref().or(self.oci.as_ref()).map_or("{}", |value| value.get())
    }

    pub(super) fn manifest(&self) -> Outcome<Manifest> {
        let bytes = self.bytes().unwrap_or_else(|| self.json().as_bytes().to_vec());
        Manifest::parse(&bytes)
            .map_err(|error| Failure::new(format!("manifest {}: {error}", self.reference)))
    }
}

/// JSON without space between its parts, and with what HTML minds written otherwise: what Go
/// makes of JSON within JSON.
pub(super) fn compact(json: &str) -> String {
    let mut out = String::with_capacity(json.len());
    let (mut in_text, mut escaped) = (false, false);
    for c in json.chars() {
        match c {
            '<' | '>' | '&' | '\u{2028}' | '\u{2029}' => {
                out.push_str(&format!("\\u{:04x}", u32::from(c)));
                escaped = false;
                continue;
            }
            _ if in_text && escaped => escaped = false,
            '\\' if in_text => escaped = true,
            '"' => in_text = !in_text,
            _ if !in_text && c.is_ascii_whitespace() => continue,
            _ => {}
        }
        out.push(c);
    }
    out
}

/// The name of a reference's file.
fn file_name(reference: &Reference) -> String {
    reference.to_string().replace(':', "-").replace('/', "_")
}

fn absent(reference: &Reference) -> Failure {
    // docker wording
    Failure::new(format!("No such manifest: {reference}"))
}

/// All lists.
#[derive(Debug)]
pub(super) struct Lists(PathBuf);

impl Lists {
    /// Those in a directory of configuration.
    pub(super) fn new(config: &Path) -> Self {
        Self(config.join("manifests"))
    }

    fn directory(&self, list: &Reference) -> PathBuf {
        self.0.join(file_name(list))
    }

    /// One manifest of a list, if it is in it.
    pub(super) fn get(&self, list: &Reference, image: &Reference) -> Outcome<Option<Entry>> {
        read(&self.directory(list).join(file_name(image)))
    }

    /// The same, where it has to be there.
    pub(super) fn find(&self, list: &Reference, image: &Reference) -> Outcome<Entry> {
        self.get(list, image)?.ok_or_else(|| absent(image))
    }

    /// All manifests of a list, if there is such a list.
    pub(super) fn all(&self, list: &Reference) -> Outcome<Option<Vec<Entry>>> {
        let directory = self.directory(list);
        let entries = match fs_err::read_dir(&directory) {
            Ok(entries) => entries,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(Failure::new(error.to_string())),
        };
        let mut paths: Vec<PathBuf> = entries.flatten().map(|entry| entry.path()).collect();
        paths.sort();
        let mut found = Vec::new();
        for path in paths {
            found.extend(read(&path)?);
        }
        Ok(Some(found))
    }

    /// The same, where it has to be there.
    pub(super) fn find_all(&self, list: &Reference) -> Outcome<Vec<Entry>> {
        self.all(list)?.ok_or_else(|| absent(list))
    }

    /// Adds a manifest to a list, in the place of the one of that name.
    pub(super) fn put(&self, list: &Reference, image: &Reference, entry: &Entry) -> Outcome {
        let directory = self.directory(list);
        let path = directory.join(file_name(image));
        let aside = directory.join(format!(".{}", std::process::id()));
        let bytes =
            serde_json::to_string(entry).map_err(|error| Failure::new(error.to_string()))?;
        let written = fs_err::create_dir_all(&directory)
            // A list is read whole, so this name is not in it but for a moment.
            .and_then(|()| fs_err::write(&aside, bytes))
            .and_then(|()| fs_err::rename(&aside, &path));
        written.map_err(|error| {
            fs_err::remove_file(&aside).ok();
            Failure::new(error.to_string())
        })
    }

    /// Forgets a list.
    pub(super) fn remove(&self, list: &Reference) -> Outcome {
        fs_err::remove_dir_all(self.directory(list))
            .map_err(|error| Failure::new(error.to_string()))
    }
}

fn read(path: &Path) -> Outcome<Option<Entry>> {
    let wrong = |reason: String| Failure::new(format!("{}: {reason}", path.display()));
    if path.file_name().is_some_and(|name| name.as_encoded_bytes().starts_with(b".")) {
        return Ok(None);
    }
    let bytes = match fs_err::read(path) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(Failure::new(error.to_string())),
    };
    if bytes.len() > 4 * MAX_DOCUMENT {
        return Err(wrong("it is too long".to_owned()));
    }
    serde_json::from_slice(&bytes).map(Some).map_err(|error| wrong(error.to_string()))
}

#[cfg(test)]
mod tests {
    use silo_oci::image::digest;

    use super::*;

    #[test]
    fn json_in_json() {
        let text = "{ \"a\" : \"x \\\" <&> \\\\\",\n\t\"b\":[ 1.0 , null ] }";
        assert_eq!(compact(text), r#"{"a":"x \" \u003c\u0026\u003e \\","b":[1.0,null]}"#);
    }

    #[test]
    fn lists_on_disk() {
        let directory = tempfile::tempdir().unwrap();
        let lists = Lists::new(directory.path());
        let name = |text| Reference::parse_normalized(text).unwrap();
        let (list, image) = (name("r:5000/a/b:1"), name("busybox"));
        assert!(lists.all(&list).unwrap().is_none());
        let bytes = b"{\"schemaVersion\": 2}";
        let size = bytes.len() as u64;
        let descriptor = Descriptor::new(media::DOCKER_MANIFEST, digest(bytes), size);
        let entry = Entry::new(image.to_string(), descriptor, bytes).unwrap();
        lists.put(&list, &image, &entry).unwrap();
        let file = directory.path().join("manifests/r-5000_a_b-1/docker.io_library_busybox-latest");
        let text = fs_err::read_to_string(file).unwrap();
        assert!(text.starts_with("{\"Ref\":\"docker.io/library/busybox:latest\",\"Descriptor\":{"));
        assert!(text.ends_with("\"SchemaV2Manifest\":{\"schemaVersion\":2}}"), "{text}");
        let found = lists.find_all(&list).unwrap();
        assert_eq!(found[0].bytes().unwrap(), bytes);
        assert!(lists.find(&list, &name("x")).unwrap_err().message.contains("No such manifest"));
        lists.remove(&list).unwrap();
        assert!(lists.all(&list).unwrap().is_none());
    }
}
