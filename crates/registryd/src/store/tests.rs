use std::os::unix::fs::MetadataExt as _;
use std::time::Duration;

use silo_oci::image::media;
use tempfile::TempDir;

use super::*;
use crate::Collect;

const NOW: Collect = Collect {
    every: None,
    grace: Duration::ZERO,
    uploads: Duration::ZERO,
    untagged: false,
    unused: None,
};

fn open() -> (TempDir, Registry) {
    let dir = tempfile::tempdir().unwrap();
    let registry = Registry::open(dir.path()).unwrap();
    (dir, registry)
}

fn name(text: &str) -> Name {
    text.parse().unwrap()
}

fn put(registry: &Registry, repository: &str, bytes: &[u8]) -> Digest {
    let digest = Digest::of(Algorithm::Sha256, bytes);
    let staged = registry.files.stage().unwrap();
    write(&staged, bytes).unwrap();
    registry.commit_blob(&name(repository), &digest, &staged.path).unwrap();
    digest
}

fn push(
    registry: &Registry,
    repository: &str,
    reference: &str,
    text: &str,
) -> Result<Digest, Error> {
    let push = Push {
        repository: &name(repository),
        reference: &reference.parse().unwrap(),
        tags: &[],
        content_type: None,
        bytes: text.as_bytes(),
        sparse: false,
    };
    registry.push(&push).map(|pushed| pushed.digest)
}

fn image(config: &Digest, subject: Option<&Digest>) -> String {
    let subject = subject.map(|digest| format!(r#","subject":{{"digest":"{digest}","size":1}}"#));
    format!(
        r#"{{"schemaVersion":2,"config":{{"mediaType":"t/c","digest":"{config}","size":1}}{}}}"#,
        subject.unwrap_or_default()
    )
}

fn index(manifests: &[&Digest]) -> String {
    let entry = |digest| format!(r#"{{"digest":"{digest}","size":1}}"#);
    let entries: Vec<String> = manifests.iter().map(entry).collect();
    let media_type = media::OCI_INDEX;
    format!(
        r#"{{"schemaVersion":2,"mediaType":"{media_type}","manifests":[{}]}}"#,
        entries.join(",")
    )
}

fn code(error: Error) -> &'static str {
    error.refusal().code
}

#[test]
fn content_belongs_to_repositories() {
    let (_dir, registry) = open();
    let digest = put(&registry, "a", b"config");
    assert_eq!(registry.blob(&name("a"), &digest).unwrap(), 6);
    assert_eq!(code(registry.blob(&name("b"), &digest).unwrap_err()), "BLOB_UNKNOWN");
    // Not from where it is not.
    assert!(!registry.mount(&name("b"), &digest, Some(&name("c"))).unwrap());
    assert!(registry.mount(&name("b"), &digest, Some(&name("a"))).unwrap());
    assert_eq!(registry.claim_blob(&name("b"), &digest, -1).unwrap(), 6);
    registry.delete_blob(&name("a"), &digest).unwrap();
    assert_eq!(code(registry.delete_blob(&name("a"), &digest).unwrap_err()), "BLOB_UNKNOWN");
    assert!(registry.mount(&name("c"), &digest, None).unwrap());
    let (_, size) = registry.open_blob(&name("c"), &digest).unwrap();
    assert_eq!(size, 6);
}

#[test]
fn manifests_and_tags() {
    let (_dir, registry) = open();
    let config = Digest::of(Algorithm::Sha256, b"config");
    let refused = push(&registry, "a", "v1", &image(&config, None)).unwrap_err();
    assert_eq!(code(refused), "MANIFEST_BLOB_UNKNOWN");
    // What was refused left nothing.
    assert!(registry.repositories("", 10).unwrap().is_empty());
    put(&registry, "a", b"config");
    let first = push(&registry, "a", "v1", &image(&config, None)).unwrap();
    push(&registry, "a", "v2", &image(&config, None)).unwrap();
    let refused = push(&registry, "a", &config.to_string(), &image(&config, None)).unwrap_err();
    assert_eq!(code(refused), "DIGEST_INVALID");
    let refused = push(&registry, "a", "i", &index(&[&first, &config])).unwrap_err();
    assert_eq!(code(refused), "MANIFEST_BLOB_UNKNOWN");
    push(&registry, "a", "i", &index(&[&first])).unwrap();
    assert_eq!(registry.tags(&name("a"), "", 10).unwrap(), ["i", "v1", "v2"]);
    assert_eq!(registry.tags(&name("a"), "i", 1).unwrap(), ["v1"]);
    assert_eq!(code(registry.tags(&name("b"), "", 1).unwrap_err()), "NAME_UNKNOWN");
    let stored = registry.manifest(&name("a"), &Reference::Tag("v2".into())).unwrap();
    assert_eq!(stored.digest, first);
    assert_eq!(registry.read_manifest(&stored).unwrap(), image(&config, None).as_bytes());
    registry.delete_manifest(&name("a"), &Reference::Tag("v1".into())).unwrap();
    registry.delete_manifest(&name("a"), &Reference::Digest(first.clone())).unwrap();
    assert_eq!(registry.tags(&name("a"), "", 10).unwrap(), ["i"]);
    let gone = registry.delete_manifest(&name("a"), &Reference::Digest(first)).unwrap_err();
    assert_eq!(code(gone), "MANIFEST_UNKNOWN");
}

#[test]
fn referrers_of_what_is_not_there_yet() {
    let (_dir, registry) = open();
    let config = put(&registry, "a", b"config");
    let subject = Digest::of(Algorithm::Sha256, image(&config, None).as_bytes());
    let list = |filter: Option<&str>| {
        registry.referrers(&name("a"), &subject, filter, "", 10).unwrap().len()
    };
    assert_eq!(list(None), 0);
    push(&registry, "a", "sig", &image(&config, Some(&subject))).unwrap();
    assert_eq!((list(None), list(Some("t/c")), list(Some("t/x"))), (1, 1, 0));
    assert_eq!(registry.referrers(&name("b"), &subject, None, "", 10).unwrap().len(), 0);
}

#[test]
fn garbage() {
    let (_dir, registry) = open();
    let config = put(&registry, "a", b"config");
    let loose = put(&registry, "a", b"loose");
    put(&registry, "b", b"loose");
    let lower = push(&registry, "a", "lower", &image(&config, None)).unwrap();
    push(&registry, "a", "top", &index(&[&lower])).unwrap();
    push(&registry, "a", "sig", &image(&config, Some(&lower))).unwrap();
    for tag in ["lower", "sig"] {
        registry.delete_manifest(&name("a"), &Reference::Tag(tag.into())).unwrap();
    }
    // Nothing is old.
    let grace = Collect { grace: Duration::from_mins(1), untagged: true, ..NOW };
    assert_eq!(registry.collect(&grace).unwrap(), Collected::default());
    // What the index and the subject lead to stays.
    let collected = registry.collect(&Collect { untagged: true, ..NOW }).unwrap();
    let expected =
        Collected { links: 2, repositories: 1, files: 1, bytes: 5, ..Collected::default() };
    assert_eq!(collected, expected);
    assert!(!registry.files.blob(&loose).exists());
    assert_eq!(registry.referrers(&name("a"), &lower, None, "", 9).unwrap().len(), 1);
    // Without the tag, nothing does; untagged manifests go only if that is asked for.
    registry.delete_manifest(&name("a"), &Reference::Tag("top".into())).unwrap();
    assert_eq!(registry.collect(&NOW).unwrap(), Collected::default());
    let collected = registry.collect(&Collect { untagged: true, ..NOW }).unwrap();
    assert_eq!((collected.manifests, collected.links, collected.files), (3, 1, 4));
    assert!(registry.repositories("", 10).unwrap().is_empty());
}

#[test]
fn what_nobody_asks_for() {
    let (_dir, registry) = open();
    let config = put(&registry, "a", b"config");
    let image = push(&registry, "a", "v1", &image(&config, None)).unwrap();
    let found = registry.descriptor(&name("a"), &config).unwrap().unwrap();
    assert_eq!((found.digest.to_string(), found.size), (config.to_string(), 1));
    assert!(registry.descriptor(&name("a"), &image).unwrap().is_none());
    assert!(registry.descriptor(&name("b"), &config).unwrap().is_none());
    let unused = |seconds| Collect { unused: Some(Duration::from_secs(seconds)), ..NOW };
    registry.touch(&name("a"), &image, -1).unwrap();
    assert_eq!(registry.collect(&unused(60)).unwrap().manifests, 0);
    let collected = registry.collect(&unused(0)).unwrap();
    assert_eq!((collected.manifests, collected.links, collected.repositories), (1, 1, 1));
}

#[test]
fn files_that_nobody_knows() {
    let (_dir, registry) = open();
    // As a process that was killed between renaming and recording leaves it.
    let digest = Digest::of(Algorithm::Sha512, b"x");
    fs_err::write(registry.files.blob(&digest), "x").unwrap();
    fs_err::write(registry.files.blobs(Algorithm::Sha256).join("README"), "").unwrap();
    let upload = registry.files.uploads().join(files::random_name().unwrap());
    fs_err::create_dir(&upload).unwrap();
    fs_err::write(upload.join("data"), "abc").unwrap();
    let kept = Collect { uploads: Duration::from_mins(1), ..NOW };
    let expected = Collected { files: 1, bytes: 1, ..Collected::default() };
    assert_eq!(registry.collect(&kept).unwrap(), expected);
    let expected = Collected { uploads: 1, bytes: 3, ..Collected::default() };
    assert_eq!(registry.collect(&NOW).unwrap(), expected);
    assert!(registry.files.blobs(Algorithm::Sha256).join("README").exists());
}

#[test]
fn one_file_with_the_engine() {
    let (dir, registry) = open();
    let store = silo_store::Store::open(dir.path()).unwrap();
    let engine = |digest: &Digest| dir.path().join(silo_store::CONTENT_BLOBS).join(digest.hex());
    let inode = |path: &Path| fs_err::metadata(path).unwrap().ino();
    // Pushed after the engine had it.
    let first = Digest::of(Algorithm::Sha256, b"first");
    fs_err::write(engine(&first), b"first").unwrap();
    put(&registry, "a", b"first");
    assert_eq!(inode(&engine(&first)), inode(&registry.files.blob(&first)));
    // Taken over without a push; a damaged one is not.
    let second = Digest::of(Algorithm::Sha256, b"second");
    assert!(!registry.adopt(&name("a"), &second).unwrap());
    fs_err::write(engine(&second), b"secret").unwrap();
    assert!(!registry.adopt(&name("a"), &second).unwrap());
    fs_err::write(engine(&second), b"second").unwrap();
    assert!(registry.adopt(&name("a"), &second).unwrap());
    assert_eq!(inode(&engine(&second)), inode(&registry.files.blob(&second)));
    assert_eq!(registry.blob(&name("a"), &second).unwrap(), 6);
    assert_eq!(fs_err::read_dir(registry.files.staging()).unwrap().count(), 0);
    // Either side removes its own name only.
    store.collect(std::collections::HashSet::new).unwrap();
    assert!(!engine(&first).exists() && registry.files.blob(&first).exists());
    let collected = registry.collect(&NOW).unwrap();
    assert_eq!((collected.files, collected.bytes), (2, 11));
}

#[test]
fn content_that_was_lost_is_healed_by_a_push() {
    let (_dir, registry) = open();
    let digest = put(&registry, "a", b"x");
    fs_err::remove_file(registry.files.blob(&digest)).unwrap();
    assert_eq!(code(registry.open_blob(&name("a"), &digest).unwrap_err()), "BLOB_UNKNOWN");
    put(&registry, "a", b"x");
    assert!(registry.open_blob(&name("a"), &digest).is_ok());
}
