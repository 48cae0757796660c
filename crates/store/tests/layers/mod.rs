//! Windows layers and images of them, for tests.
#![allow(dead_code, clippy::unwrap_used, reason = "tests, of which none needs all")]

use std::io::Cursor;
use std::path::Path;

use sha2::{Digest as _, Sha256};
use silo_archive::{Entry, EntryKind, Writer};
use silo_oci::image::ImageConfig;
use silo_store::{Error, Store};
use silo_types::Digest;
use silo_winlayer::header::{DIRECTORY, HARD_LINK, Header, REGULAR, SYMLINK};

/// The digest of bytes.
pub(crate) fn sha(bytes: &[u8]) -> Digest {
    Digest::from_sha256(Sha256::digest(bytes).into())
}

/// A layer as Microsoft's exporter writes it.
#[derive(Default)]
pub(crate) struct Layer(pub(crate) Vec<u8>);

impl Layer {
    pub(crate) fn put(mut self, mut header: Header, attributes: u32, data: &[u8]) -> Self {
        header.size = data.len() as u64;
        header.mtime.seconds = 1_700_000_000;
        header.mtime.nanos = 123_456_700;
        header.set("MSWINDOWS.fileattr", attributes.to_string());
        header.encode(&mut self.0).unwrap();
        self.0.extend_from_slice(data);
        self.0.resize(self.0.len().next_multiple_of(512), 0);
        self
    }
    pub(crate) fn dir(self, name: &str) -> Self {
        self.put(Header::new(DIRECTORY, name), 0x10, b"")
    }
    pub(crate) fn file(self, name: &str, data: &[u8]) -> Self {
        self.put(Header::new(REGULAR, name), 0x20, data)
    }
    pub(crate) fn link(self, name: &str, target: &str) -> Self {
        let mut header = Header::new(SYMLINK, name);
        header.link = target.into();
        self.put(header, 0x410, b"")
    }
    pub(crate) fn hard_link(self, name: &str, target: &str) -> Self {
        let mut header = Header::new(HARD_LINK, name);
        header.link = target.into();
        self.put(header, 0x20, b"")
    }
    pub(crate) fn whiteout(mut self, name: &str) -> Self {
        Header::new(REGULAR, name).encode(&mut self.0).unwrap();
        self
    }
    pub(crate) fn done(mut self) -> Vec<u8> {
        self.0.resize(self.0.len() + 1024, 0);
        self.0
    }
}

/// A `docker save` archive of an image of these layers.
pub(crate) fn archive(layers: &[Vec<u8>]) -> Vec<u8> {
    let mut config = ImageConfig { os: "windows".into(), ..ImageConfig::default() };
    config.architecture = "amd64".into();
    config.rootfs.diff_ids = layers.iter().map(|layer| sha(layer)).collect();
    let config = config.to_bytes();
    let mut tar = Writer::new(Vec::new());
    let mut file = |path: &str, data: &[u8]| {
        let mut entry = Entry::new(EntryKind::Regular, path, 0o644);
        entry.size = data.len() as u64;
        tar.append(&entry, &mut &data[..]).unwrap();
    };
    let mut paths = Vec::new();
    for (index, layer) in layers.iter().enumerate() {
        file(&format!("{index}/layer.tar"), layer);
        paths.push(format!("\"{index}/layer.tar\""));
    }
    let id = sha(&config).hex();
    file(&format!("{id}.json"), &config);
    let manifest = format!(
        r#"[{{"Config":"{id}.json","RepoTags":["win:1"],"Layers":[{}]}}]"#,
        paths.join(",")
    );
    file("manifest.json", manifest.as_bytes());
    tar.finish().unwrap()
}

/// Loads an image of these layers: and its top layer.
pub(crate) fn load(
    store: &Store,
    layers: &[Vec<u8>],
) -> Result<(silo_store::Loaded, Digest), Error> {
    let loaded = store.load(Cursor::new(archive(layers)), &mut |_| {})?;
    let top = loaded.images[0].image.top().unwrap();
    Ok((loaded, top))
}

/// A text file.
pub(crate) fn read(path: impl AsRef<Path>) -> String {
    fs_err::read_to_string(path.as_ref()).unwrap()
}

/// The names in a directory, sorted.
pub(crate) fn names(path: impl AsRef<Path>) -> Vec<String> {
    let entries = fs_err::read_dir(path.as_ref()).unwrap();
    let mut names: Vec<_> =
        entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}
