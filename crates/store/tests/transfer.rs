//! Single layers out of one store and into another.
#![allow(clippy::unwrap_used, reason = "tests")]

use silo_archive::{Entry, EntryKind, Writer};
use silo_oci::image::{ImageConfig, chain_id, media};
use silo_store::{Error, Store};

fn tar(name: &str, data: &[u8]) -> Vec<u8> {
    let mut writer = Writer::new(Vec::new());
    let mut entry = Entry::new(EntryKind::Regular, name, 0o644);
    (entry.size, entry.stored) = (data.len() as u64, data.len() as u64);
    writer.append(&entry, &mut &data[..]).unwrap();
    writer.finish().unwrap()
}

fn digest(bytes: &[u8]) -> silo_types::Digest {
    silo_oci::image::digest(bytes)
}

#[test]
fn a_layer_travels() {
    let temporary = tempfile::tempdir().unwrap();
    let one = Store::open(temporary.path().join("one")).unwrap();
    let two = Store::open(temporary.path().join("two")).unwrap();
    let (below, above) = (tar("a", b"one"), tar("b", b"two"));
    let (image, _held) = one.import(&below[..], ImageConfig::default()).unwrap();
    let base = image.top().unwrap();
    let (layer, _lease) = one.add_layer_tar(&above[..], Some(&base), &digest(&above)).unwrap();
    assert_eq!(layer.chain_id, chain_id(Some(&base), &digest(&above)));

    let mut chain = None;
    let mut held = Vec::new();
    for wanted in [base, layer.chain_id] {
        let blob = one.layer_blob(&wanted).unwrap();
        let mut bytes = Vec::new();
        one.write_layer_blob(&wanted, &mut bytes).unwrap();
        assert_eq!((blob.size, blob.digest), (bytes.len() as u64, digest(&bytes)));
        assert_eq!(blob.media_type, media::OCI_LAYER);
        let diff_id = one.layer(&wanted).unwrap().diff_id;
        let (added, lease) = two.add_layer_tar(&bytes[..], chain.as_ref(), &diff_id).unwrap();
        chain = Some(added.chain_id);
        held.push(lease);
    }
    assert_eq!(chain, Some(layer.chain_id));
    assert_eq!(fs_err::read(two.layer_files(&layer.chain_id).join("b")).unwrap(), b"two");
    // One that is there is not read again.
    two.add_layer_tar(&b"nonsense"[..], Some(&base), &digest(&above)).unwrap();
}

#[test]
fn what_is_something_else_is_refused() {
    let temporary = tempfile::tempdir().unwrap();
    let store = Store::open(temporary.path()).unwrap();
    let bytes = tar("a", b"one");
    let other = digest(b"other");
    let refused = store.add_layer_tar(&bytes[..], None, &other).unwrap_err();
    assert!(matches!(refused, Error::DigestMismatch { .. }), "{refused}");
    let refused = store.add_layer_tar(&bytes[..], Some(&other), &digest(&bytes)).unwrap_err();
    assert!(matches!(refused, Error::NoLayer(_)), "{refused}");
    assert!(store.add_layer_tar(&b"no tar"[..], None, &digest(b"no tar")).is_err());
    assert!(store.layers().is_empty());
    let left = fs_err::read_dir(temporary.path().join("layers")).unwrap().count();
    assert_eq!(left, 0, "nothing is left of them");
}
