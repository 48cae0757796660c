//! Images as the archives that engines load: layers, configurations, `manifest.json`.
//!
//! Layers are written twice, once for their digests and once into the archive, and must be the
//! same bytes both times; so no archive is ever on the disk.

use std::io::{self, Write};

use serde_json::{Value as Json, json};
use sha2::{Digest as _, Sha256};
use silo_archive::{Entry, EntryKind, Time, Writer};
use silo_types::Digest;
use silo_types::digest::hex;

/// Writes a layer's tar; called twice.
pub type WriteLayer<'a> = dyn Fn(&mut dyn Write) -> io::Result<()> + Sync + 'a;

/// A layer whose digest is known.
pub struct Layer<'a> {
    write: Box<WriteLayer<'a>>,
    /// The digest of its tar.
    pub diff_id: Digest,
    /// The size of its tar in bytes.
    pub size: u64,
    /// What made it, for the image's history.
    pub created_by: String,
}

impl std::fmt::Debug for Layer<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Layer").field("diff_id", &self.diff_id).finish_non_exhaustive()
    }
}

impl<'a> Layer<'a> {
    /// Writes a layer once to learn its digest.
    pub fn new(
        created_by: &str,
        write: impl Fn(&mut dyn Write) -> io::Result<()> + Sync + 'a,
    ) -> io::Result<Self> {
        let mut sum = Sum { hasher: Sha256::new(), size: 0 };
        write(&mut sum)?;
        Ok(Self {
            write: Box::new(write),
            diff_id: Digest::from_sha256(sum.hasher.finalize().into()),
            size: sum.size,
            created_by: created_by.to_owned(),
        })
    }

    /// Its path in an archive.
    fn path(&self) -> String {
        format!("blobs/sha256/{}", self.diff_id.hex())
    }
}

/// Counts and hashes what is written to it.
struct Sum {
    hasher: Sha256,
    size: u64,
}

impl Write for Sum {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.hasher.update(bytes);
        self.size += bytes.len() as u64;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// An image: its configuration and layers.
#[derive(Debug)]
pub struct Image<'a> {
    /// The configuration, a JSON document.
    pub config: Vec<u8>,
    /// Its layers, the lowest first.
    pub layers: Vec<&'a Layer<'a>>,
    /// Its names with tags.
    pub tags: Vec<String>,
}

impl<'a> Image<'a> {
    /// An image with `config` completed by what follows from its layers; `created` is in
    /// seconds since 1970.
    pub fn new(
        mut config: Json,
        layers: Vec<&'a Layer<'a>>,
        tags: Vec<String>,
        created: i64,
    ) -> Self {
        let created = rfc3339(created);
        let diff_ids: Vec<String> = layers.iter().map(|layer| layer.diff_id.to_string()).collect();
        let history: Vec<Json> = layers
            .iter()
            .map(|layer| json!({"created": created, "created_by": layer.created_by}))
            .collect();
        config["created"] = json!(created);
        config["rootfs"] = json!({"type": "layers", "diff_ids": diff_ids});
        config["history"] = json!(history);
        Self { config: config.to_string().into_bytes(), layers, tags }
    }

    /// The image's id: the digest of its configuration.
    pub fn id(&self) -> String {
        format!("sha256:{}", self.config_hex())
    }

    fn config_hex(&self) -> String {
        hex(&Sha256::digest(&self.config))
    }
}

/// Writes the archive of images; layers that several of them have are there once.
pub fn write_archive(images: &[Image<'_>], out: &mut dyn Write) -> io::Result<()> {
    let mut writer = Writer::new(out);
    let entry = |writer: &mut Writer<_>, path: String, size| {
        let mut entry = Entry::new(EntryKind::Regular, path, 0o644);
        entry.size = size;
        entry.stored = size;
        entry.mtime = Time::default();
        writer.append_header(&entry).map_err(io::Error::other)
    };
    let mut written = std::collections::HashSet::new();
    for layer in images.iter().flat_map(|image| &image.layers) {
        if !written.insert(layer.diff_id) {
            continue;
        }
        entry(&mut writer, layer.path(), layer.size)?;
        let mut sum = Counted { out: &mut **writer.output(), left: layer.size };
        (layer.write)(&mut sum)?;
        if sum.left != 0 {
            return Err(io::Error::other("a layer changed while it was written"));
        }
        writer.pad(layer.size).map_err(io::Error::other)?;
    }
    let mut manifest = Vec::new();
    for image in images {
        let config = format!("blobs/sha256/{}", image.config_hex());
        let layers: Vec<String> = image.layers.iter().map(|layer| layer.path()).collect();
        manifest.push(json!({"Config": config, "RepoTags": image.tags, "Layers": layers}));
        let size = image.config.len() as u64;
        entry(&mut writer, config, size)?;
        writer.output().write_all(&image.config)?;
        writer.pad(size).map_err(io::Error::other)?;
    }
    let manifest = json!(manifest).to_string();
    let size = manifest.len() as u64;
    entry(&mut writer, "manifest.json".to_owned(), size)?;
    writer.output().write_all(manifest.as_bytes())?;
    writer.pad(size).map_err(io::Error::other)?;
    writer.finish().map(drop).map_err(io::Error::other)
}

/// Lets no more through than was announced.
struct Counted<'a> {
    out: &'a mut dyn Write,
    left: u64,
}

impl Write for Counted<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let Some(left) = self.left.checked_sub(bytes.len() as u64) else {
            return Err(io::Error::other("a layer changed while it was written"));
        };
        self.out.write_all(bytes)?;
        self.left = left;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}

fn rfc3339(seconds: i64) -> String {
    jiff::Timestamp::from_second(seconds)
        .map_or_else(|_| silo_types::time::GO_ZERO.to_owned(), silo_types::time::rfc3339_nano)
}

#[cfg(test)]
mod tests {
    use std::io::Read as _;

    use super::*;

    #[test]
    fn archives_have_every_layer_once() {
        let layer = Layer::new("made", |out| out.write_all(&[7; 1536])).unwrap();
        let config = json!({"os": "windows"});
        let image = |tag: &str| {
            Image::new(config.clone(), vec![&layer], vec![tag.to_owned()], 1_700_000_000)
        };
        let images = [image("a:1"), image("b:1")];
        assert_eq!(images[0].id(), images[1].id());
        let mut tar = Vec::new();
        write_archive(&images, &mut tar).unwrap();
        let mut reader = silo_archive::Reader::new(&tar[..]);
        let mut names = Vec::new();
        let mut manifest = String::new();
        while let Some(entry) = reader.next_entry().unwrap() {
            names.push(String::from_utf8(entry.path).unwrap());
            manifest.clear();
            reader.read_to_string(&mut manifest).unwrap();
        }
        assert_eq!(names.len(), 4);
        assert_eq!(names.iter().filter(|name| **name == layer.path()).count(), 1);
        assert!(manifest.contains("\"RepoTags\":[\"b:1\"]"));
        let config: Json = serde_json::from_slice(&images[0].config).unwrap();
        assert_eq!(config["created"], "2023-11-14T22:13:20Z");
        assert_eq!(config["rootfs"]["diff_ids"][0], layer.diff_id.to_string());
    }

    #[test]
    fn layers_that_change_are_noticed() {
        let calls = std::sync::atomic::AtomicUsize::new(0);
        let layer = Layer::new("made", |out| {
            let call = calls.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
            out.write_all(&vec![0; 512 * (call + 1)])
        })
        .unwrap();
        let image = Image::new(json!({}), vec![&layer], Vec::new(), 0);
        assert!(write_archive(&[image], &mut Vec::new()).is_err());
    }
}
