//! Layers that are made of a snapshot's own files.
#![allow(clippy::unwrap_used, reason = "a test")]

use std::collections::HashSet;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use sha2::{Digest as _, Sha256};
use silo_oci::image::ImageConfig;
use silo_store::Store;
use silo_types::Digest;

/// As overlay leaves an upper directory: whiteouts, and a file with two names.
fn fill(upper: &Path) {
    let kind = rustix::fs::FileType::CharacterDevice;
    fs_err::create_dir(upper.join("etc")).unwrap();
    let gone = upper.join("etc/gone");
    rustix::fs::mknodat(rustix::fs::CWD, &gone, kind, rustix::fs::Mode::empty(), 0).unwrap();
    fs_err::write(upper.join("etc/a"), vec![b'a'; 5000]).unwrap();
    fs_err::hard_link(upper.join("etc/a"), upper.join("etc/b")).unwrap();
    std::os::unix::fs::symlink("a", upper.join("etc/l")).unwrap();
    for path in [upper.join("etc/a"), upper.join("etc/l"), upper.join("etc")] {
        let time = rustix::fs::Timespec { tv_sec: 1_600_000_000, tv_nsec: 0 };
        let times = rustix::fs::Timestamps { last_access: time, last_modification: time };
        let flags = rustix::fs::AtFlags::SYMLINK_NOFOLLOW;
        rustix::fs::utimensat(rustix::fs::CWD, &path, &times, flags).unwrap();
    }
}

#[test]
fn the_same_layer_as_by_copying() {
    let directory = tempfile::tempdir().unwrap();
    let store = Store::open(directory.path()).unwrap();
    fill(&store.snapshot_create("copied", None).unwrap().upper);
    let (image, lease) = store.commit("copied", ImageConfig::default()).unwrap();
    store.remove_image(&image.id).unwrap();
    drop((image.clone(), lease));
    store.snapshot_remove("copied").unwrap();
    store.collect(HashSet::new).unwrap();

    fill(&store.snapshot_create("moved", None).unwrap().upper);
    let (layer, lease) = store.commit_layer("moved", None).unwrap().unwrap();
    assert_eq!(Some(layer.chain_id), image.top());
    let mut tar = Vec::new();
    store.write_layer_tar(&layer.chain_id, &mut tar).unwrap();
    assert_eq!(Digest::from_sha256(Sha256::digest(&tar).into()), layer.diff_id);
    assert_eq!((layer.size, layer.tar_size), (5001, tar.len() as u64));
    store.snapshot_remove("moved").unwrap();
    store.collect(HashSet::new).unwrap();
    assert!(store.hold_layer(&layer.chain_id).is_some(), "the lease keeps it");
    drop(lease);
    store.collect(HashSet::new).unwrap();
    assert!(store.hold_layer(&layer.chain_id).is_none());
}

#[test]
fn nothing_is_no_layer_and_times_are_bounded() {
    let directory = tempfile::tempdir().unwrap();
    let store = Store::open(directory.path()).unwrap();
    store.snapshot_create("empty", None).unwrap();
    assert!(store.commit_layer("empty", None).unwrap().is_none());
    let snapshot = store.snapshot_create("new", None).unwrap();
    fill(&snapshot.upper);
    fs_err::write(snapshot.upper.join("now"), "").unwrap();
    let (layer, _lease) = store.commit_layer("new", Some(1_700_000_000)).unwrap().unwrap();
    let files = store.layer_files(&layer.chain_id);
    let time = |name: &str| files.join(name).symlink_metadata().unwrap().mtime();
    assert_eq!(
        (time("now"), time("etc/a"), time("etc/l")),
        (1_700_000_000, 1_600_000_000, 1_600_000_000)
    );
}
