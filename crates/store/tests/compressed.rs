//! Archives in every compression: whole they load, cut or spoilt they leave nothing behind.
#![allow(clippy::unwrap_used, reason = "a test")]

use std::io::{Cursor, Write};
use std::path::Path;
use std::process::{Command, Stdio};

use sha2::{Digest as _, Sha256};
use silo_archive::{Entry, EntryKind, Writer};
use silo_oci::image::ImageConfig;
use silo_store::tree::{UnpackOptions, unpack_into};
use silo_store::{Error, Store};
use silo_types::Digest;

const PROGRAMS: [&str; 3] = ["gzip", "bzip2", "xz"];

fn compress(program: &str, input: &[u8]) -> Vec<u8> {
    let mut child = Command::new(program)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap_or_else(|error| panic!("{program} is needed for this test: {error}"));
    let mut stdin = child.stdin.take().unwrap();
    let input = input.to_vec();
    let writer = std::thread::spawn(move || stdin.write_all(&input).unwrap());
    let output = child.wait_with_output().unwrap();
    writer.join().unwrap();
    assert!(output.status.success(), "{program}");
    output.stdout
}

/// The archive in all compressions, with their names.
fn compressed(archive: &[u8]) -> Vec<(&'static str, Vec<u8>)> {
    let mut all: Vec<_> =
        PROGRAMS.iter().map(|program| (*program, compress(program, archive))).collect();
    all.push(("zstd", zstd::stream::encode_all(archive, 3).unwrap()));
    all
}

fn tar(files: &[(&str, &[u8])]) -> Vec<u8> {
    let mut writer = Writer::new(Vec::new());
    for (path, data) in files {
        let mut entry = Entry::new(EntryKind::Regular, *path, 0o644);
        entry.size = data.len() as u64;
        writer.append(&entry, &mut &data[..]).unwrap();
    }
    writer.finish().unwrap()
}

/// A layer, not too compressible.
fn layer() -> Vec<u8> {
    let noise: Vec<u8> = (0..2000u32).flat_map(|n| Sha256::digest(n.to_le_bytes())).collect();
    tar(&[("bin/tool", &noise[..40_000]), ("etc/file", b"text"), ("noise", &noise)])
}

/// What an old `docker save` writes, with the member `stored` for the layer `plain`.
fn archive(plain: &[u8], stored: &[u8]) -> Vec<u8> {
    let mut config = ImageConfig { os: "linux".into(), ..ImageConfig::default() };
    config.architecture = "amd64".into();
    config.rootfs.diff_ids = vec![Digest::from_sha256(Sha256::digest(plain).into())];
    let manifest = r#"[{"Config":"c.json","RepoTags":["x:1"],"Layers":["l/layer.tar"]}]"#;
    tar(&[
        ("l/layer.tar", stored),
        ("c.json", &config.to_bytes()),
        ("manifest.json", manifest.as_bytes()),
    ])
}

fn load(store: &Store, bytes: &[u8]) -> Result<silo_store::Loaded, Error> {
    store.load(Cursor::new(bytes.to_vec()), &mut |_| {})
}

#[track_caller]
fn assert_empty(directory: &Path, store: &Store, what: &str) {
    assert!(store.layers().is_empty() && store.images().unwrap().is_empty(), "{what}");
    for folder in ["layers", "content/ingest", "content/blobs/sha256"] {
        let left = fs_err::read_dir(directory.join(folder)).unwrap().count();
        assert_eq!(left, 0, "{what} left something in {folder}");
    }
}

#[test]
fn whole_archives_and_layers_load() {
    let plain = layer();
    let outside = compressed(&archive(&plain, &plain));
    let inside =
        compressed(&plain).into_iter().map(|(name, stored)| (name, archive(&plain, &stored)));
    let mut ids = Vec::new();
    for (name, bytes) in outside.into_iter().chain(inside) {
        let directory = tempfile::tempdir().unwrap();
        let store = Store::open(directory.path()).unwrap();
        let loaded = load(&store, &bytes).unwrap_or_else(|error| panic!("{name}: {error}"));
        ids.push(loaded.images[0].id);
        let chain = loaded.images[0].image.top().unwrap();
        let file = directory.path().join("layers").join(chain.hex()).join("fs/etc/file");
        assert_eq!(fs_err::read(file).unwrap(), b"text", "{name}");
    }
    assert_eq!(ids.len(), 8);
    assert!(ids.iter().all(|id| *id == ids[0]));
}

#[test]
fn cut_and_spoilt_archives_leave_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let store = Store::open(directory.path()).unwrap();
    let plain = layer();
    for (name, bytes) in compressed(&archive(&plain, &plain)) {
        let step = bytes.len() / 13;
        let cuts = (1..13).map(|n| n * step).chain([1, 7, 12, bytes.len() - 9, bytes.len() - 1]);
        for cut in cuts {
            let what = format!("{name} cut at {cut}");
            let error = load(&store, &bytes[..cut]).err().unwrap_or_else(|| panic!("{what}"));
            assert!(!error.to_string().is_empty());
            assert_empty(directory.path(), &store, &what);
        }
        for at in (1..13).map(|n| n * step) {
            let what = format!("{name} spoilt at {at}");
            let mut spoilt = bytes.clone();
            spoilt[at] ^= 0x10;
            // Without a checksum of its own zstd cannot tell, but the layer's digest can.
            assert!(load(&store, &spoilt).is_err(), "{what}");
            assert_empty(directory.path(), &store, &what);
        }
        let followed = [&bytes[..], b"garbage behind it"].concat();
        assert!(load(&store, &followed).is_err(), "{name} followed by garbage");
        assert_empty(directory.path(), &store, name);
    }
    for (name, stored) in compressed(&plain) {
        let cut = archive(&plain, &stored[..stored.len() / 2]);
        assert!(load(&store, &cut).is_err(), "a layer in {name}, cut");
        assert_empty(directory.path(), &store, name);
    }
    // The store still works.
    load(&store, &archive(&plain, &plain)).unwrap();
}

#[test]
fn imports_of_cut_archives_leave_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let store = Store::open(directory.path()).unwrap();
    for (name, bytes) in compressed(&layer()) {
        for cut in [9, bytes.len() / 2, bytes.len() - 3] {
            let input = Cursor::new(bytes[..cut].to_vec());
            assert!(store.import(input, ImageConfig::default()).is_err(), "{name} cut at {cut}");
            assert_empty(directory.path(), &store, name);
        }
    }
    for (name, bytes) in compressed(&layer()) {
        let (image, _lease) = store.import(Cursor::new(bytes), ImageConfig::default()).unwrap();
        assert_eq!(image.chain.len(), 1, "{name}");
    }
    assert_eq!(store.layers().len(), 1, "the same layer, however it came");
}

#[test]
fn trees_are_unpacked_from_every_compression() {
    for (name, bytes) in compressed(&layer()) {
        let directory = tempfile::tempdir().unwrap();
        let root = silo_sys::path::open_root(directory.path()).unwrap();
        let options = UnpackOptions::default();
        unpack_into(&root, Path::new("/"), Cursor::new(bytes), options).unwrap();
        assert_eq!(fs_err::read(directory.path().join("etc/file")).unwrap(), b"text", "{name}");
    }
}
