use std::collections::HashSet;
use std::io::Read as _;
use std::sync::atomic::{AtomicBool, Ordering};

use rusqlite::params;
use silo_archive::{Entry, EntryKind, Writer};
use silo_oci::image::{ImageConfig, Index, Manifest, digest};
use silo_store::{Image, Store};

use super::*;

#[test]
fn names_of_repositories() {
    let images = EngineImages::new(Path::new("/none"), &"engine".parse().unwrap());
    for (name, repository) in [
        ("busybox", Some("engine/busybox")),
        ("me/app:2", Some("engine/me/app")),
        ("docker.io/library/busybox", Some("engine/busybox")),
        ("quay.io/a/b", Some("engine/quay.io/a/b")),
        ("localhost:5000/app", Some("engine/localhost_5000/app")),
        ("127.0.0.1:5000/a/b", Some("engine/127.0.0.1_5000/a/b")),
        ("Reg.Example/a", Some("engine/reg.example/a")),
        ("[::1]:5000/a", None),
    ] {
        let name = Named::parse(name).unwrap();
        assert_eq!(images.repository_name(&name).as_deref(), repository, "{name}");
    }
    let owns = |name: &str| images.owns(&name.parse().unwrap());
    assert!(owns("engine/a") && owns("engine") && !owns("engines/a") && !owns("a/engine"));
    // Without an engine there is nothing.
    assert!(images.repositories().unwrap().is_empty());
    assert!(images.tags(&"engine/a".parse().unwrap()).is_err());
}

/// An engine: its store and its database, as another process has them open.
struct Engine {
    store: Store,
    db: Connection,
    root: tempfile::TempDir,
}

fn database(root: &Path) -> Connection {
    let db = Connection::open(root.join("silo.db")).unwrap();
    db.execute_batch(
        "PRAGMA journal_mode = WAL; PRAGMA synchronous = OFF; \
         CREATE TABLE tags (name TEXT PRIMARY KEY, image TEXT NOT NULL, list TEXT); \
         CREATE TABLE kv (key TEXT PRIMARY KEY, value TEXT NOT NULL);",
    )
    .unwrap();
    db
}

impl Engine {
    fn new() -> Self {
        let root = tempfile::tempdir().unwrap();
        let store = Store::open(root.path()).unwrap();
        Self { store, db: database(root.path()), root }
    }

    fn served(&self) -> EngineImages {
        EngineImages::new(self.root.path(), &"engine".parse().unwrap())
    }

    /// An image with one layer that has one file.
    fn image(&self, content: &str, architecture: &str) -> Image {
        let mut writer = Writer::new(Vec::new());
        let mut entry = Entry::new(EntryKind::Regular, "file", 0o644);
        entry.size = content.len() as u64;
        writer.append(&entry, &mut content.as_bytes()).unwrap();
        let config = ImageConfig {
            os: "linux".to_owned(),
            architecture: architecture.to_owned(),
            ..ImageConfig::default()
        };
        self.store.import(&writer.finish().unwrap()[..], config).unwrap().0
    }

    fn tag(&self, name: &str, image: &Image, index: Option<&Sha256>) {
        let name = Named::parse_normalized(name).unwrap().to_string();
        let index = index.map(ToString::to_string);
        let sql = "INSERT OR REPLACE INTO tags VALUES (?, ?, ?)";
        self.db.execute(sql, params![name, image.id.to_string(), index]).unwrap();
    }

    fn untag(&self, name: &str) {
        let name = Named::parse_normalized(name).unwrap().to_string();
        assert_eq!(self.db.execute("DELETE FROM tags WHERE name = ?", [name]).unwrap(), 1);
    }
}

fn get(images: &EngineImages, name: &str, reference: &str) -> Result<(Stored, Vec<u8>), Error> {
    let reference = reference.parse().unwrap_or_else(|_| panic!("{reference}"));
    images.manifest(&name.parse().unwrap(), &reference, true)
}

fn is_absent<T: std::fmt::Debug>(result: Result<T, Error>) -> bool {
    matches!(&result, Err(Error::Refused(refusal)) if refusal.status == 404)
}

/// The bytes of a blob.
fn bytes_of(images: &EngineImages, name: &str, digest: &Sha256) -> Result<Vec<u8>, Error> {
    let digest: Digest = digest.to_string().parse().unwrap();
    let mut bytes = Vec::new();
    match images.blob(&name.parse().unwrap(), &digest)? {
        Content::File(mut file, size) => {
            file.read_to_end(&mut bytes).unwrap();
            assert_eq!(bytes.len() as u64, size);
        }
        Content::Layer(layer) => images.view.write_layer_tar(&layer, &mut bytes)?,
    }
    Ok(bytes)
}

#[test]
fn what_a_lookup_costs_does_not_grow_with_the_images() {
    const IMAGES: u64 = 60;
    let engine = Engine::new();
    let made: Vec<_> = (0..IMAGES).map(|n| engine.image(&format!("{n}"), "amd64")).collect();
    let other = engine.image("other", "amd64");
    for (number, image) in made.iter().enumerate() {
        engine.tag(&format!("many:t{number}"), image, None);
    }
    engine.tag("few:1", &other, None);
    let images = engine.served();
    let opened = |work: &dyn Fn()| {
        let before = images.view.opened();
        work();
        images.view.opened() - before
    };
    // The list; then manifest, configuration and the layer's record, of this repository only.
    assert_eq!(opened(&|| assert!(get(&images, "engine/few", "1").is_ok())), 1 + 3 + 1);
    assert_eq!(opened(&|| assert!(get(&images, "engine/many", "t7").is_ok())), 3 * IMAGES + 1);
    let head = |name: &str, tag: &str| {
        let reference = tag.parse().unwrap();
        images.manifest(&name.parse().unwrap(), &reference, false).unwrap().0
    };
    let all_heads = || {
        for (number, image) in made.iter().enumerate() {
            let stored = head("engine/many", &format!("t{number}"));
            assert_eq!(stored.digest.to_string(), image.manifest.digest.to_string());
        }
    };
    assert_eq!(opened(&all_heads), 0);
    let all_blobs = || {
        for image in &made {
            let diff_id = image.config.rootfs.diff_ids[0];
            let digest: Digest = diff_id.to_string().parse().unwrap();
            let found = images.blob(&"engine/many".parse().unwrap(), &digest);
            assert!(matches!(found, Ok(Content::Layer(layer)) if layer.diff_id == diff_id));
        }
    };
    // As a file, which it is not, and its record.
    assert_eq!(opened(&all_blobs), 2 * IMAGES);
    let absent = || assert!(is_absent(bytes_of(&images, "engine/many", &other.id)));
    assert_eq!(opened(&absent), 0);
    // Changes of something else cost nothing, and those of images what is new.
    engine.db.execute("INSERT INTO kv VALUES ('a', 'b')", []).unwrap();
    assert_eq!(opened(&all_heads), 0);
    engine.tag("few:2", &made[0], None);
    assert_eq!(opened(&all_heads), 0);
    let new = engine.image("new", "amd64");
    engine.tag("many:new", &new, None);
    assert_eq!(opened(&|| drop(head("engine/many", "new"))), 1 + 3);
    assert_eq!(opened(&all_heads), 0);
}

#[test]
fn changes_count_at_once() {
    let engine = Engine::new();
    let images = engine.served();
    let (done, looked) = (AtomicBool::new(false), AtomicBool::new(false));
    std::thread::scope(|scope| {
        // Somebody asks all the time: what is found is right, whatever happens meanwhile.
        scope.spawn(|| {
            while !done.load(Ordering::Relaxed) {
                if let Ok((stored, bytes)) = get(&images, "engine/live", "now") {
                    assert_eq!(stored.digest, Digest::of(stored.digest.algorithm, &bytes));
                    let manifest = Manifest::parse(&bytes).unwrap();
                    for blob in std::iter::once(&manifest.config).chain(&manifest.layers) {
                        if let Ok(bytes) = bytes_of(&images, "engine/live", &blob.digest) {
                            assert_eq!(digest(&bytes), blob.digest);
                        }
                    }
                }
                looked.store(true, Ordering::Relaxed);
            }
        });
        for round in 0..60 {
            let image = engine.image(&format!("round {round}"), "amd64");
            let manifest = image.manifest.digest;
            engine.tag("live:now", &image, None);
            assert_eq!(images.tags(&"engine/live".parse().unwrap()).unwrap(), ["now"]);
            let (stored, bytes) = get(&images, "engine/live", "now").unwrap();
            assert_eq!(stored.digest.to_string(), manifest.to_string(), "round {round}");
            assert_eq!(digest(&bytes), manifest);
            assert!(get(&images, "engine/live", &manifest.to_string()).is_ok());
            let layer = image.config.rootfs.diff_ids[0];
            assert_eq!(digest(&bytes_of(&images, "engine/live", &layer).unwrap()), layer);
            if round % 3 == 0 {
                engine.untag("live:now");
                assert!(is_absent(get(&images, "engine/live", "now")));
                assert!(images.repositories().unwrap().is_empty());
            }
            let keep = || HashSet::from([if round % 3 == 1 { image.id } else { layer }]);
            engine.store.collect(keep).unwrap();
            if round % 3 == 2 {
                // The name is there still, and what it leads to is gone.
                assert!(is_absent(get(&images, "engine/live", "now")));
                assert!(is_absent(bytes_of(&images, "engine/live", &layer)));
            }
        }
        done.store(true, Ordering::Relaxed);
    });
    assert!(looked.load(Ordering::Relaxed));
}

#[test]
fn another_database_is_noticed() {
    let mut engine = Engine::new();
    let images = engine.served();
    let image = engine.image("1", "amd64");
    engine.tag("old", &image, None);
    assert!(get(&images, "engine/old", "latest").is_ok());
    // As when somebody begins anew.
    engine.db = Connection::open_in_memory().unwrap();
    for name in ["silo.db", "silo.db-wal", "silo.db-shm"] {
        fs_err::remove_file(engine.root.path().join(name)).ok();
    }
    assert!(images.repositories().unwrap().is_empty());
    engine.db = database(engine.root.path());
    engine.tag("new", &image, None);
    assert_eq!(images.repositories().unwrap(), BTreeSet::from(["engine/new".to_owned()]));
    assert!(get(&images, "engine/new", "latest").is_ok());
    assert!(is_absent(get(&images, "engine/old", "latest")));
}

#[test]
fn indexes_go_out_with_what_is_here() {
    let engine = Engine::new();
    let images = engine.served();
    let all: Vec<_> =
        ["amd64", "arm64", "s390x"].iter().map(|name| engine.image(name, name)).collect();
    let ids: Vec<_> = all.iter().map(|image| image.id).collect();
    let lease = engine.store.lease();
    let index = engine.store.make_index(&ids, &|_, _| None, &lease).unwrap().descriptor.digest;
    engine.tag("multi:1", &all[0], Some(&index));
    let whole = engine.store.read_blob(&index, 1 << 20).unwrap();
    let named = |bytes: &[u8]| -> Vec<Sha256> {
        Index::parse(bytes).unwrap().manifests.iter().map(|entry| entry.digest).collect()
    };
    let manifests: Vec<_> = all.iter().map(|image| image.manifest.digest).collect();
    // Whole, bit for bit, with all that it leads to.
    let (stored, bytes) = get(&images, "engine/multi", "1").unwrap();
    assert_eq!((stored.digest.to_string(), &bytes), (index.to_string(), &whole));
    assert_eq!(named(&bytes), manifests);
    for image in &all {
        assert!(get(&images, "engine/multi", &image.manifest.digest.to_string()).is_ok());
        for blob in [image.id, image.config.rootfs.diff_ids[0], image.manifest.digest, index] {
            assert_eq!(digest(&bytes_of(&images, "engine/multi", &blob).unwrap()), blob);
        }
    }
    drop(lease);
    let collect = |keep: &[Sha256]| {
        let keep: HashSet<_> = keep.iter().copied().collect();
        engine.store.collect(|| keep).unwrap();
    };
    // Without one of them, another names the rest; by its digest, it is what it was.
    collect(&ids[..2]);
    let (stored, bytes) = get(&images, "engine/multi", "1").unwrap();
    assert_ne!(stored.digest.to_string(), index.to_string());
    assert_eq!(stored.digest, Digest::of(stored.digest.algorithm, &bytes));
    assert_eq!(named(&bytes), manifests[..2]);
    let platform = Index::parse(&bytes).unwrap().manifests[1].platform.clone().unwrap();
    assert_eq!(platform.architecture, "arm64");
    let (again, _) = get(&images, "engine/multi", &stored.digest.to_string()).unwrap();
    assert_eq!(again.media_type, stored.media_type);
    assert_eq!(get(&images, "engine/multi", &index.to_string()).unwrap().1, whole);
    assert!(is_absent(get(&images, "engine/multi", &manifests[2].to_string())));
    assert!(is_absent(bytes_of(&images, "engine/multi", &ids[2])));
    // Of the last one no index is needed.
    collect(&ids[..1]);
    let (stored, _) = get(&images, "engine/multi", "1").unwrap();
    assert_eq!(stored.digest.to_string(), manifests[0].to_string());
    assert_eq!(get(&images, "engine/multi", &index.to_string()).unwrap().1, whole);
    collect(&[]);
    assert!(is_absent(get(&images, "engine/multi", "1")));
    assert!(is_absent(get(&images, "engine/multi", &index.to_string())));
}
