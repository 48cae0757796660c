//! Layouts: directories, and archives of such (OCI image specification, image layout).

use std::io::{Read, Seek as _, SeekFrom};
use std::path::{Path, PathBuf};

use fs_err::File;
use serde_json::Value;
use silo_oci::image::{Descriptor, Document, Index, MAX_DOCUMENT, digest, media};
use silo_oci::reference::Reference;
use silo_types::Digest;

use super::archive::Archive;
use super::location::Selector;
use super::naming::{EntryName, IMAGE_NAME, REF_NAME, new_index};
use super::{Content, CopyError, docker};

/// The file that tells a layout.
pub(super) const LAYOUT: &str = "oci-layout";
/// What is in it.
pub(super) const LAYOUT_TEXT: &str = r#"{"imageLayoutVersion":"1.0.0"}"#;
/// The file that tells what is in it.
pub(super) const INDEX: &str = "index.json";
/// Names that a message lists.
const MAX_NAMES: usize = 20;

/// The files of a layout.
#[derive(Debug)]
pub(super) enum Files {
    Directory(PathBuf),
    Archive(Archive),
}

/// A file's bytes from some place on, and its whole size.
pub(super) type Opened = (Box<dyn Read + Send>, u64);

/// The name of a blob's file.
pub(super) fn blob_name(digest: &Digest) -> String {
    format!("blobs/sha256/{}", digest.hex())
}

/// All of a small file, if there is one.
pub(super) fn small(
    path: &Path,
    name: &str,
    opened: Option<Opened>,
    limit: usize,
) -> Result<Option<Vec<u8>>, CopyError> {
    let Some((reader, size)) = opened else { return Ok(None) };
    let mut bytes = Vec::new();
    if size <= limit as u64 {
        reader.take(limit as u64).read_to_end(&mut bytes).map_err(CopyError::io("read", path))?;
        return Ok(Some(bytes));
    }
    let reason = format!("{name} is larger than {limit} bytes");
    Err(CopyError::Layout { path: path.to_owned(), reason })
}

/// Those of this name: the one that they have in the layout or, where there is none, a whole one.
fn named<'a>(entries: &'a [Descriptor], name: &str) -> Vec<&'a Descriptor> {
    let by = |key: &str, value: &str| -> Vec<&'a Descriptor> {
        let is_it =
            |entry: &&Descriptor| entry.annotations.get(key).is_some_and(|found| found == value);
        entries.iter().filter(is_it).collect()
    };
    let found = by(REF_NAME, name);
    if !found.is_empty() {
        return found;
    }
    let whole = Reference::parse_normalized(name).ok().and_then(|found| EntryName::of(&found));
    whole.and_then(EntryName::into_whole).map_or(Vec::new(), |whole| by(IMAGE_NAME, &whole))
}

/// The only image among entries, which may have several names.
fn only<'a>(entries: &[&'a Descriptor]) -> Option<&'a Descriptor> {
    let (first, rest) = entries.split_first()?;
    rest.iter().all(|entry| entry.digest == first.digest).then_some(*first)
}

impl Files {
    /// Opens a layout; one of another version is refused.
    pub(super) fn open(path: &Path) -> Result<Self, CopyError> {
        Self::Directory(path.to_owned()).check()
    }

    /// Opens an archive of one.
    pub(super) fn open_archive(path: &Path) -> Result<Self, CopyError> {
        let file = File::open(path).map_err(CopyError::io("open", path))?;
        Self::Archive(Archive::open(file)?).check()
    }

    /// Opens an archive of Docker's, which may have a layout or not.
    pub(super) fn open_docker(file: File) -> Result<Self, CopyError> {
        let mut archive = Archive::open(file)?;
        if archive.place(LAYOUT).is_none() || archive.place(INDEX).is_none() {
            docker::adopt(&mut archive)?;
        }
        Self::Archive(archive).check()
    }

    fn check(self) -> Result<Self, CopyError> {
        let wrong = |reason: String| CopyError::Layout { path: self.path().to_owned(), reason };
        let marker = self.read(LAYOUT, MAX_DOCUMENT)?.ok_or_else(|| {
            let is_docker = self.reader(docker::MANIFEST, 0).is_ok_and(|found| found.is_some());
            let more = if is_docker { "; docker-archive: reads it" } else { "" };
            wrong(format!("it is no OCI layout: no {LAYOUT}{more}"))
        })?;
        let version = serde_json::from_slice::<Value>(&marker)
            .ok()
            .and_then(|value| value["imageLayoutVersion"].as_str().map(str::to_owned))
            .unwrap_or_default();
        if !version.starts_with("1.") {
            return Err(wrong(format!("it is an OCI layout of the unknown version {version:?}")));
        }
        Ok(self)
    }

    pub(super) fn path(&self) -> &Path {
        match self {
            Self::Directory(path) => path,
            Self::Archive(archive) => archive.path(),
        }
    }

    /// A file from some byte on, and its size.
    pub(super) fn reader(&self, name: &str, offset: u64) -> Result<Option<Opened>, CopyError> {
        let path = match self {
            Self::Directory(directory) => directory.join(name),
            Self::Archive(archive) => return Ok(archive.reader(name, offset)),
        };
        // Opening a pipe would wait for somebody who writes to it.
        if fs_err::metadata(&path).is_ok_and(|found| !found.is_file()) {
            let reason = format!("{name} is no regular file");
            return Err(CopyError::Layout { path: self.path().to_owned(), reason });
        }
        let mut file = match File::open(&path) {
            Ok(file) => file,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(CopyError::io("open", &path)(error)),
        };
        let size = file.metadata().map_err(CopyError::io("read", &path))?.len();
        file.seek(SeekFrom::Start(offset)).map_err(CopyError::io("read", &path))?;
        Ok(Some((Box::new(file.take(size.saturating_sub(offset))), size)))
    }

    /// A small file.
    pub(super) fn read(&self, name: &str, limit: usize) -> Result<Option<Vec<u8>>, CopyError> {
        small(self.path(), name, self.reader(name, 0)?, limit)
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
        let found: Vec<&Descriptor> = match selector {
            Selector::Only => entries.iter().collect(),
            Selector::Tag(tag) => named(&entries, tag),
            Selector::Digest(digest) => {
                entries.iter().filter(|entry| entry.digest == *digest).collect()
            }
        };
        if let Some(one) = only(&found) {
            return Ok(one.clone());
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
            if let Some(one) = only(&own) {
                return Ok(one.clone());
            }
        }
        let names: Vec<String> = entries.iter().take(MAX_NAMES).map(name_of).collect();
        let names = if names.is_empty() { "nothing".to_owned() } else { names.join(", ") };
        let reason = match selector {
            Selector::Only => format!("it has not one image, say which of {names}"),
            _ if found.is_empty() => format!("it has no {selector}; it has {names}"),
            _ => format!("it has more than one {selector}, say which of {names}"),
        };
        Err(CopyError::Layout { path: self.path().to_owned(), reason })
    }

    /// The names that images have.
    pub(super) fn tags(&self) -> Result<Vec<String>, CopyError> {
        let mut tags: Vec<String> = Vec::new();
        for entry in self.entries()? {
            if let Some(tag) = entry.annotations.get(REF_NAME)
                && !tags.contains(tag)
            {
                tags.push(tag.clone());
            }
        }
        Ok(tags)
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

/// What one says to mean an entry.
fn name_of(entry: &Descriptor) -> String {
    let whole = entry.annotations.get(IMAGE_NAME);
    let whole = whole.and_then(|name| Reference::parse(name).ok()).map(|found| found.familiar());
    match whole.as_ref().or(entry.annotations.get(REF_NAME)) {
        Some(name) => format!(":{name}"),
        None => format!("@{}", entry.digest),
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
