//! A cache as an OCI layout in a tar.

use std::collections::BTreeMap;
use std::io::{BufReader, BufWriter, Read, Write};
use std::path::{Path, PathBuf};

use sha2::{Digest as _, Sha256};
use silo_archive::{Entry, EntryKind, Reader, Writer, compress};
use silo_oci::image::{Descriptor, Index, media, to_bytes};
use silo_types::{Digest, Error};

use super::{BlobSink, BlobSource, MAX_DOCUMENT, WriteBlob};
use crate::scratch::Scratch;

const LAYOUT: &[u8] = br#"{"imageLayoutVersion":"1.0.0"}"#;
/// The name of a cache in a layout; BuildKit's default.
const TAG: &str = "latest";
/// Members of a tar.
const MAX_MEMBERS: usize = 200_000;

fn refused(reason: impl std::fmt::Display) -> Error {
    Error::invalid(format!("invalid archive of a build cache: {reason}"))
}

fn written(error: silo_archive::Error) -> Error {
    Error::internal(silo_types::error::chain(&error))
}

/// Writes an OCI layout as a tar.
pub(crate) struct ArchiveSink<W: Write> {
    writer: Writer<BufWriter<W>>,
}

impl<W: Write> ArchiveSink<W> {
    pub(crate) fn new(output: W) -> Result<Self, Error> {
        let mut writer = Writer::new(BufWriter::with_capacity(256 << 10, output));
        for directory in ["blobs/", "blobs/sha256/"] {
            let entry = Entry::new(EntryKind::Directory, directory, 0o755);
            writer.append_empty(&entry).map_err(written)?;
        }
        let mut sink = Self { writer };
        sink.file("oci-layout", LAYOUT)?;
        Ok(sink)
    }

    fn file(&mut self, name: &str, bytes: &[u8]) -> Result<(), Error> {
        let mut entry = Entry::new(EntryKind::Regular, name, 0o644);
        entry.size = bytes.len() as u64;
        entry.stored = entry.size;
        self.writer.append(&entry, &mut &bytes[..]).map_err(written)
    }

    /// Writes the index, and the end.
    pub(crate) fn finish(mut self, manifest: &Descriptor) -> Result<(), Error> {
        let mut manifest = manifest.clone();
        manifest.annotations.insert("org.opencontainers.image.ref.name".into(), TAG.into());
        let index = Index {
            schema_version: 2,
            media_type: media::OCI_INDEX.to_owned(),
            manifests: vec![manifest],
            annotations: BTreeMap::new(),
        };
        self.file("index.json", &to_bytes(&index))?;
        let mut output = self.writer.finish().map_err(written)?;
        output.flush().map_err(|error| Error::internal(error.to_string()))
    }
}

impl<W: Write> BlobSink for ArchiveSink<W> {
    fn put(&mut self, blob: &Descriptor, write: WriteBlob<'_>) -> Result<(), Error> {
        let name = format!("blobs/sha256/{}", blob.digest.hex());
        let mut entry = Entry::new(EntryKind::Regular, name, 0o644);
        entry.size = blob.size;
        entry.stored = blob.size;
        self.writer.append_header(&entry).map_err(written)?;
        write(self.writer.output())?;
        self.writer.pad(blob.size).map_err(written)
    }
}

/// The blobs of an archive, which were checked, in a private directory.
#[derive(Debug)]
pub(crate) struct Staged {
    directory: PathBuf,
    /// What the archive's index leads to.
    pub(crate) manifest: Digest,
}

impl Staged {
    /// Where a blob is.
    fn path(&self, digest: &Digest) -> PathBuf {
        self.directory.join(digest.hex())
    }
}

impl BlobSource for Staged {
    fn open(&self, digest: &Digest) -> Result<Box<dyn Read + Send>, Error> {
        match fs_err::File::open(self.path(digest)) {
            Ok(file) => Ok(Box::new(file)),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                Err(refused(format!("blob {digest} is missing")))
            }
            Err(error) => Err(Error::internal(error.to_string())),
        }
    }
}

/// Reads an archive, compressed or not, into a private directory. Every blob is what its name
/// says, and nothing else is in the archive.
pub(crate) fn stage(scratch: &Scratch, input: impl Read + Send) -> Result<Staged, Error> {
    let (compression, input) = compress::detect(input).map_err(refused)?;
    let input = compress::decoder(compression, BufReader::new(input)).map_err(refused)?;
    let mut reader = Reader::new(BufReader::with_capacity(256 << 10, input));
    let directory = scratch.directory("blobs")?;
    let mut index = None;
    let mut members = 0;
    while let Some(entry) =
        reader.next_entry().map_err(|error| refused(silo_types::error::chain(&error)))?
    {
        members += 1;
        if members > MAX_MEMBERS {
            return Err(refused("it has too many members"));
        }
        let name = String::from_utf8_lossy(&entry.path).into_owned();
        let name = name.strip_prefix("./").unwrap_or(&name);
        if entry.kind == EntryKind::Directory {
            continue;
        }
        if entry.kind != EntryKind::Regular || entry.sparse.is_some() {
            return Err(refused(format!("{name:?} is no ordinary file")));
        }
        match name {
            "oci-layout" => {}
            "index.json" => {
                let mut bytes = Vec::new();
                let read = (&mut reader).take(MAX_DOCUMENT + 1).read_to_end(&mut bytes);
                read.map_err(refused)?;
                if bytes.len() as u64 > MAX_DOCUMENT {
                    return Err(refused("index.json is too large"));
                }
                index = Some(bytes);
            }
            _ => {
                let digest = name.strip_prefix("blobs/sha256/").and_then(super::config::digest_of);
                let digest = digest.ok_or_else(|| refused(format!("{name:?} is no blob")))?;
                blob(&directory.join(digest.hex()), &digest, &mut reader)?;
            }
        }
    }
    reader.finish().map_err(|error| refused(silo_types::error::chain(&error)))?;
    let index = index.ok_or_else(|| refused("index.json is missing"))?;
    let index: Index = serde_json::from_slice(&index).map_err(refused)?;
    let named = |manifest: &&Descriptor| {
        let name = manifest.annotations.get("org.opencontainers.image.ref.name");
        name.is_some_and(|name| name == TAG)
    };
    let manifest = index.manifests.iter().find(named).or(index.manifests.first());
    let manifest = manifest.ok_or_else(|| refused("index.json names nothing"))?.digest;
    Ok(Staged { directory, manifest })
}

fn blob(path: &Path, digest: &Digest, input: &mut impl Read) -> Result<(), Error> {
    let failed = |error: std::io::Error| Error::internal(format!("write a blob: {error}"));
    let mut file = match fs_err::File::create_new(path) {
        Ok(file) => file,
        Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {
            return Err(refused(format!("blob {digest} is there twice")));
        }
        Err(error) => return Err(failed(error)),
    };
    let mut hash = Sha256::new();
    let mut buffer = vec![0; 256 << 10];
    loop {
        let count = input.read(&mut buffer).map_err(refused)?;
        if count == 0 {
            break;
        }
        hash.update(&buffer[..count]);
        file.write_all(&buffer[..count]).map_err(failed)?;
    }
    let actual = Digest::from_sha256(hash.finalize().into());
    if actual != *digest {
        return Err(refused(format!("blob {digest} has digest {actual}")));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn archive(blob: &[u8]) -> Vec<u8> {
        let mut bytes = Vec::new();
        let mut sink = ArchiveSink::new(&mut bytes).unwrap();
        let digest = silo_oci::image::digest(blob);
        let descriptor = Descriptor::new("x", digest, blob.len() as u64);
        sink.put(&descriptor, &mut |output| {
            output.write_all(blob).map_err(|error| Error::internal(error.to_string()))
        })
        .unwrap();
        sink.finish(&descriptor).unwrap();
        bytes
    }

    #[test]
    fn what_is_written_is_read() {
        let temporary = tempfile::tempdir().unwrap();
        let scratch = Scratch::new(temporary.path()).unwrap();
        let staged = stage(&scratch, &archive(b"some bytes")[..]).unwrap();
        let mut read = Vec::new();
        staged.open(&staged.manifest).unwrap().read_to_end(&mut read).unwrap();
        assert_eq!(read, b"some bytes");
        assert!(staged.open(&Digest::from_sha256([1; 32])).is_err());
    }

    #[test]
    fn hostile_archives_are_refused() {
        let digest = silo_oci::image::digest(b"x").hex();
        let member = |kind, name: &str, link: &str, data: &[u8]| {
            let mut writer = Writer::new(Vec::new());
            let mut entry = Entry::new(kind, name, 0o644);
            entry.link = link.as_bytes().to_vec();
            entry.size = data.len() as u64;
            entry.stored = entry.size;
            if data.is_empty() {
                writer.append_empty(&entry).unwrap();
            } else {
                writer.append(&entry, &mut &data[..]).unwrap();
            }
            writer.finish().unwrap()
        };
        let regular = EntryKind::Regular;
        let good = format!("blobs/sha256/{digest}");
        for (case, bytes) in [
            ("leaves", member(regular, "../../etc/cron.d/x", "", b"x")),
            ("absolute", member(regular, "/etc/passwd", "", b"x")),
            ("no digest", member(regular, "blobs/sha256/../x", "", b"x")),
            ("upper case", member(regular, &good.to_uppercase(), "", b"x")),
            ("other bytes", member(regular, &good, "", b"y")),
            ("symbolic link", member(EntryKind::Symlink, &good, "/etc/shadow", b"")),
            ("hard link", member(EntryKind::HardLink, &good, "/etc/shadow", b"")),
            ("device", member(EntryKind::CharDevice, &good, "", b"")),
            ("no index", member(regular, &good, "", b"x")),
            (
                "index without a manifest",
                member(regular, "index.json", "", b"{\"schemaVersion\":2}"),
            ),
            ("no archive", b"not a tar at all".to_vec()),
            ("cut", {
                let mut bytes = archive(b"some bytes");
                bytes.truncate(bytes.len() / 2);
                bytes
            }),
        ] {
            let temporary = tempfile::tempdir().unwrap();
            let scratch = Scratch::new(&temporary.path().join("scratch")).unwrap();
            let error = stage(&scratch, &bytes[..]).unwrap_err();
            assert!(error.message().contains("invalid archive"), "{case}: {error}");
            let left = fs_err::read_dir(temporary.path()).unwrap().count();
            assert_eq!(left, 1, "{case}: something was written elsewhere");
        }
    }
}
