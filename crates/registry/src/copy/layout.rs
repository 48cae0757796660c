//! Layouts: directories, and archives of such (OCI image specification, image layout).

use std::collections::BTreeMap;
use std::io::{Read, Seek as _, SeekFrom};
use std::path::{Path, PathBuf};

use fs_err::File;
use serde_json::{Value, json};
use silo_oci::image::{Descriptor, Document, Index, MAX_DOCUMENT, digest, media};
use silo_types::Digest;

use super::archive::{self, Places};
use super::location::Selector;
use super::{Content, CopyError};

/// The annotation with an image's name.
const REF_NAME: &str = "org.opencontainers.image.ref.name";
/// The file that tells a layout.
const LAYOUT: &str = "oci-layout";
/// What is in it.
pub(super) const LAYOUT_TEXT: &str = r#"{"imageLayoutVersion":"1.0.0"}"#;
const INDEX: &str = "index.json";
/// Names that a message lists.
const MAX_NAMES: usize = 20;

/// The files of a layout.
#[derive(Debug)]
pub(super) enum Files {
    Directory(PathBuf),
    Archive(PathBuf, Places),
}

/// A file's bytes from some place on, and its whole size.
pub(super) type Opened = (Box<dyn Read + Send>, u64);

/// The name of a blob's file.
pub(super) fn blob_name(digest: &Digest) -> String {
    format!("blobs/sha256/{}", digest.hex())
}

impl Files {
    /// Opens a layout; one of another version is refused.
    pub(super) fn open(path: &Path, is_archive: bool) -> Result<Self, CopyError> {
        let files = if is_archive {
            Self::Archive(path.to_owned(), archive::index(path)?)
        } else {
            Self::Directory(path.to_owned())
        };
        let wrong = |reason: String| CopyError::Layout { path: path.to_owned(), reason };
        let marker = files.read(LAYOUT, MAX_DOCUMENT)?;
        let marker = marker.ok_or_else(|| wrong(format!("it is no OCI layout: no {LAYOUT}")))?;
        let version = serde_json::from_slice::<Value>(&marker)
            .ok()
            .and_then(|value| value["imageLayoutVersion"].as_str().map(str::to_owned))
            .unwrap_or_default();
        if !version.starts_with("1.") {
            return Err(wrong(format!("it is an OCI layout of the unknown version {version:?}")));
        }
        Ok(files)
    }

    pub(super) fn path(&self) -> &Path {
        match self {
            Self::Directory(path) | Self::Archive(path, _) => path,
        }
    }

    /// A file from some byte on, and its size.
    pub(super) fn reader(&self, name: &str, offset: u64) -> Result<Option<Opened>, CopyError> {
        let (path, start, size) = match self {
            Self::Directory(directory) => (directory.join(name), 0, None),
            Self::Archive(path, places) => match places.get(name) {
                Some((start, size)) => (path.clone(), *start, Some(*size)),
                None => return Ok(None),
            },
        };
        let mut file = match File::open(&path) {
            Ok(file) => file,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(CopyError::io("open", &path)(error)),
        };
        let size = match size {
            Some(size) => size,
            None => file.metadata().map_err(CopyError::io("read", &path))?.len(),
        };
        file.seek(SeekFrom::Start(start + offset)).map_err(CopyError::io("read", &path))?;
        Ok(Some((Box::new(file.take(size.saturating_sub(offset))), size)))
    }

    /// A small file.
    pub(super) fn read(&self, name: &str, limit: usize) -> Result<Option<Vec<u8>>, CopyError> {
        let Some((reader, size)) = self.reader(name, 0)? else { return Ok(None) };
        let mut bytes = Vec::new();
        if size <= limit as u64 {
            reader
                .take(limit as u64)
                .read_to_end(&mut bytes)
                .map_err(CopyError::io("read", self.path()))?;
            return Ok(Some(bytes));
        }
        let reason = format!("{name} is larger than {limit} bytes");
        Err(CopyError::Layout { path: self.path().to_owned(), reason })
    }

    /// A small blob.
    pub(super) fn blob(&self, wanted: &Descriptor, limit: usize) -> Result<Vec<u8>, CopyError> {
        let bytes = self.read(&blob_name(&wanted.digest), limit)?;
        let bytes = bytes.ok_or_else(|| CopyError::Missing {
            path: self.path().to_owned(),
            digest: wanted.digest,
        })?;
        let actual = digest(&bytes);
        if actual != wanted.digest {
            let (expected, reason) = (wanted.digest, format!("its digest is {actual}"));
            return Err(CopyError::Content { expected, reason });
        }
        Ok(bytes)
    }

    /// What the layout has.
    pub(super) fn entries(&self) -> Result<Vec<Descriptor>, CopyError> {
        let wrong = |reason: String| CopyError::Layout { path: self.path().to_owned(), reason };
        let bytes = self.read(INDEX, MAX_DOCUMENT)?;
        let bytes = bytes.ok_or_else(|| wrong(format!("it has no {INDEX}")))?;
        let index = Index::parse(&bytes).map_err(|error| wrong(format!("{INDEX}: {error}")))?;
        Ok(index.manifests)
    }

    /// The image that is meant.
    pub(super) fn find(&self, selector: &Selector) -> Result<Descriptor, CopyError> {
        let entries = self.entries()?;
        let found: Vec<&Descriptor> = entries
            .iter()
            .filter(|entry| match selector {
                Selector::Only => true,
                Selector::Tag(tag) => entry.annotations.get(REF_NAME) == Some(tag),
                Selector::Digest(digest) => entry.digest == *digest,
            })
            .collect();
        if let ([one], _) | ([one, ..], Selector::Digest(_)) = (found.as_slice(), selector) {
            return Ok((*one).clone());
        }
        if let Selector::Digest(digest) = selector {
            // What an index in it names is there as well.
            let size = self.reader(&blob_name(digest), 0)?.map(|(_, size)| size);
            if let Some(size) = size {
                return Ok(Descriptor::new("", *digest, size));
            }
        }
        // What is about another image is not what is meant by no name.
        if *selector == Selector::Only {
            let own: Vec<&Descriptor> = entries
                .iter()
                .filter(|entry| self.subject(entry).ok().flatten().is_none())
                .filter(|entry| !is_cosign_tag(entry))
                .collect();
            if let [one] = own.as_slice() {
                return Ok((*one).clone());
            }
        }
        let names: Vec<String> = entries
            .iter()
            .take(MAX_NAMES)
            .map(|entry| match entry.annotations.get(REF_NAME) {
                Some(name) => format!(":{name}"),
                None => format!("@{}", entry.digest),
            })
            .collect();
        let names = if names.is_empty() { "nothing".to_owned() } else { names.join(", ") };
        let reason = match selector {
            Selector::Only => format!("it has not one image, say which of {names}"),
            _ => format!("it has no {selector}; it has {names}"),
        };
        Err(CopyError::Layout { path: self.path().to_owned(), reason })
    }

    /// What a manifest is about.
    fn subject(&self, entry: &Descriptor) -> Result<Option<(Digest, Content)>, CopyError> {
        if !media::is_manifest(&entry.media_type) {
            return Ok(None);
        }
        let bytes = self.blob(entry, MAX_DOCUMENT)?;
        let document = Document::parse(&bytes, &entry.media_type);
        let Ok(Document::Manifest(manifest)) = document else { return Ok(None) };
        let content = Content { descriptor: entry.clone(), bytes: bytes.into() };
        Ok(manifest.subject.map(|subject| (subject.digest, content)))
    }

    /// The manifests that are about another.
    pub(super) fn referrers(&self, subject: &Digest) -> Result<Vec<Descriptor>, CopyError> {
        let mut found = Vec::new();
        for entry in self.entries()? {
            if self.subject(&entry)?.is_some_and(|(about, _)| about == *subject) {
                found.push(entry);
            }
        }
        Ok(found)
    }
}

fn is_cosign_tag(entry: &Descriptor) -> bool {
    entry.annotations.get(REF_NAME).is_some_and(|name| {
        name.starts_with("sha256-")
            && [".sig", ".att", ".sbom"].iter().any(|end| name.ends_with(end))
    })
}

/// Reads an index as it is, so that nothing of it is lost when it is written again.
pub(super) fn read_index(path: &Path) -> Result<Value, CopyError> {
    let path = path.join(INDEX);
    let wrong = |reason: String| CopyError::Layout { path: path.clone(), reason };
    let bytes = match fs_err::read(&path) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(new_index()),
        Err(error) => return Err(CopyError::io("read", &path)(error)),
    };
    let value: Value = serde_json::from_slice(&bytes).map_err(|error| wrong(error.to_string()))?;
    if value["manifests"].is_array() { Ok(value) } else { Err(wrong("it has no manifests".into())) }
}

/// An index of nothing.
pub(super) fn new_index() -> Value {
    json!({ "schemaVersion": 2, "mediaType": media::OCI_INDEX, "manifests": [] })
}

/// Adds an image to an index, in the place of the one of that name.
pub(super) fn put_entry(index: &mut Value, descriptor: &Descriptor, name: Option<&str>) {
    let Some(entries) = index["manifests"].as_array_mut() else { return };
    let digest = descriptor.digest.to_string();
    let is_same = |entry: &Value| entry["digest"] == digest.as_str();
    // One without a name needs to be there once, whatever name it has.
    if name.is_none() && entries.iter().any(is_same) {
        return;
    }
    entries.retain(|entry| match entry["annotations"][REF_NAME].as_str() {
        None => !is_same(entry),
        old => old != name,
    });
    let mut descriptor = descriptor.clone();
    let mut annotations: BTreeMap<String, String> = std::mem::take(&mut descriptor.annotations);
    annotations.remove(REF_NAME);
    if let Some(name) = name {
        annotations.insert(REF_NAME.to_owned(), name.to_owned());
    }
    descriptor.annotations = annotations;
    descriptor.urls.clear();
    entries.push(serde_json::to_value(&descriptor).unwrap_or_default());
}

/// Makes the directories of a layout.
pub(super) fn create(path: &Path) -> Result<(), CopyError> {
    let blobs = path.join("blobs/sha256");
    fs_err::create_dir_all(&blobs).map_err(CopyError::io("create", &blobs))?;
    let marker = path.join(LAYOUT);
    if !marker.exists() {
        fs_err::write(&marker, LAYOUT_TEXT).map_err(CopyError::io("write", &marker))?;
    }
    Ok(())
}

/// Writes a file aside and into its place.
pub(super) fn write(path: &Path, name: &str, bytes: &[u8]) -> Result<(), CopyError> {
    let path = path.join(name);
    let failed = || CopyError::io("write", &path);
    let aside = path.with_extension(format!("{}.part", std::process::id()));
    let written = (|| {
        let mut file = File::create(&aside)?;
        std::io::Write::write_all(&mut file, bytes)?;
        file.sync_all()?;
        fs_err::rename(&aside, &path)
    })();
    if written.is_err() {
        fs_err::remove_file(&aside).ok();
    }
    written.map_err(failed())
}

/// Writes an index.
pub(super) fn write_index(path: &Path, index: &Value) -> Result<(), CopyError> {
    write(path, INDEX, index.to_string().as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_of_an_index() {
        let mut index = new_index();
        index["x"] = json!(1);
        let one = Descriptor::new(media::OCI_MANIFEST, digest(b"1"), 1);
        let two = Descriptor::new(media::OCI_MANIFEST, digest(b"2"), 1);
        put_entry(&mut index, &one, None);
        put_entry(&mut index, &one, Some("a"));
        put_entry(&mut index, &one, None);
        let entries = index["manifests"].as_array().unwrap();
        assert_eq!(entries.len(), 1);
        assert_eq!(entries[0]["annotations"][REF_NAME], "a", "it keeps its name");
        put_entry(&mut index, &one, Some("a"));
        put_entry(&mut index, &two, Some("b"));
        put_entry(&mut index, &two, Some("a"));
        let entries = index["manifests"].as_array().unwrap();
        let names: Vec<&str> =
            entries.iter().filter_map(|entry| entry["annotations"][REF_NAME].as_str()).collect();
        assert_eq!(names, ["b", "a"]);
        assert!(entries.iter().all(|entry| entry["digest"] == two.digest.to_string()));
        assert_eq!(index["x"], 1);
    }
}
