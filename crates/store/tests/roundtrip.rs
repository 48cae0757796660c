//! Load, save, commit and collect with real archives, in a private directory, as root.
#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a test")]

use std::collections::{BTreeMap, HashSet};
use std::io::{Cursor, Read, Write};
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _, PermissionsExt as _};
use std::path::Path;

use sha2::{Digest as _, Sha256};
use silo_archive::{Entry, EntryKind, Reader, Writer};
use silo_oci::image::{Descriptor, History, ImageConfig, Index, Manifest, media, to_bytes};
use silo_store::{ChangeKind, Error, SaveImage, Store};
use silo_types::Digest;

fn sha(bytes: &[u8]) -> Digest {
    Digest::from_sha256(Sha256::digest(bytes).into())
}

fn store() -> (tempfile::TempDir, Store) {
    let directory = tempfile::tempdir().unwrap();
    let store = Store::open(directory.path()).unwrap();
    (directory, store)
}

/// Builds tars member by member.
struct Tar(Writer<Vec<u8>>);

impl Tar {
    fn new() -> Self {
        Self(Writer::new(Vec::new()))
    }
    fn file(mut self, path: &str, data: &[u8]) -> Self {
        let mut entry = Entry::new(EntryKind::Regular, path, 0o644);
        entry.size = data.len() as u64;
        self.0.append(&entry, &mut &data[..]).unwrap();
        self
    }
    fn empty(mut self, kind: EntryKind, path: &str, link: &str) -> Self {
        let mut entry = Entry::new(kind, path, 0o755);
        entry.link = link.into();
        self.0.append_empty(&entry).unwrap();
        self
    }
    fn dir(self, path: &str) -> Self {
        self.empty(EntryKind::Directory, path, "")
    }
    fn entry(mut self, entry: &Entry) -> Self {
        self.0.append_empty(entry).unwrap();
        self
    }
    fn done(self) -> Vec<u8> {
        self.0.finish().unwrap()
    }
}

fn config(layers: &[&[u8]]) -> Vec<u8> {
    let mut config = ImageConfig { os: "linux".into(), ..ImageConfig::default() };
    config.architecture = "amd64".into();
    config.rootfs.diff_ids = layers.iter().map(|layer| sha(layer)).collect();
    config.to_bytes()
}

/// What an old `docker save` writes: layers first, manifest last.
fn docker_archive(layers: &[&[u8]], name: &str) -> Vec<u8> {
    let config = config(layers);
    let mut tar = Tar::new();
    let mut paths = Vec::new();
    for (index, layer) in layers.iter().enumerate() {
        tar = tar.file(&format!("{index}/VERSION"), b"1.0");
        tar = tar.file(&format!("{index}/layer.tar"), layer);
        paths.push(format!("\"{index}/layer.tar\""));
    }
    let id = sha(&config).hex();
    let manifest = format!(
        r#"[{{"Config":"{id}.json","RepoTags":["{name}"],"Layers":[{}]}}]"#,
        paths.join(",")
    );
    tar.file(&format!("{id}.json"), &config).file("manifest.json", manifest.as_bytes()).done()
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

/// An OCI layout in a tar, layers in gzip.
fn oci_archive(layers: &[&[u8]], name: &str) -> (Vec<u8>, Digest) {
    let config = config(layers);
    let blobs: Vec<Vec<u8>> = layers.iter().map(|layer| gzip(layer)).collect();
    let descriptor = |kind, bytes: &[u8]| Descriptor::new(kind, sha(bytes), bytes.len() as u64);
    let manifest = to_bytes(&Manifest {
        schema_version: 2,
        media_type: media::OCI_MANIFEST.into(),
        artifact_type: String::new(),
        config: descriptor(media::OCI_CONFIG, &config),
        layers: blobs.iter().map(|blob| descriptor(media::OCI_LAYER_GZIP, blob)).collect(),
        subject: None,
        annotations: BTreeMap::default(),
    });
    let mut top = descriptor(media::OCI_MANIFEST, &manifest);
    top.annotations.insert("io.containerd.image.name".into(), name.into());
    let index = to_bytes(&Index {
        schema_version: 2,
        media_type: String::new(),
        manifests: vec![top],
        annotations: BTreeMap::default(),
    });
    let mut tar = Tar::new();
    for blob in blobs.iter().chain([&config, &manifest]) {
        tar = tar.file(&format!("blobs/sha256/{}", sha(blob).hex()), blob);
    }
    tar = tar.file("index.json", &index).file("oci-layout", b"{\"imageLayoutVersion\":\"1.0.0\"}");
    (tar.done(), sha(&manifest))
}

fn load(store: &Store, bytes: &[u8]) -> Result<silo_store::Loaded, Error> {
    store.load(Cursor::new(bytes.to_vec()), &mut |_| {})
}

fn save(store: &Store, id: Digest, name: &str) -> Vec<u8> {
    let mut out = Vec::new();
    store.save(&[SaveImage { id, names: vec![name.into()], index: None }], &mut out).unwrap();
    out
}

fn members(tar: &[u8]) -> Vec<(String, Vec<u8>)> {
    let mut reader = Reader::new(tar);
    let mut members = Vec::new();
    while let Some(entry) = reader.next_entry().unwrap() {
        let mut data = Vec::new();
        reader.read_to_end(&mut data).unwrap();
        members.push((String::from_utf8(entry.path).unwrap(), data));
    }
    members
}

fn two_layers() -> (Vec<u8>, Vec<u8>) {
    let mut setuid = Entry::new(EntryKind::Regular, "bin/su", 0o4755);
    (setuid.uid, setuid.gid) = (7, 8);
    setuid.mtime.seconds = 1_000_000_000;
    setuid.xattrs.push((b"user.note".to_vec(), b"a\0b".to_vec()));
    let mut device = Entry::new(EntryKind::CharDevice, "dev/null", 0o666);
    (device.major, device.minor) = (1, 3);
    let mut etc = Entry::new(EntryKind::Directory, "etc/", 0o750);
    etc.mtime.seconds = 1_234_567_890;
    let lower = Tar::new()
        .entry(&etc)
        .dir("bin/")
        .file("etc/a", b"one")
        .file("etc/b", b"two")
        .entry(&setuid)
        .empty(EntryKind::HardLink, "etc/hard", "etc/a")
        .empty(EntryKind::Symlink, "lib", "usr/lib")
        .dir("dev")
        .entry(&device)
        .dir("gone")
        .file("gone/x", b"x")
        .done();
    let big = vec![7; 3 << 20];
    let upper = Tar::new()
        .file("etc/.wh.a", b"")
        .file("etc/b", b"three")
        .file(".wh.gone", b"")
        .file("etc/big", &big)
        .file("opaque/.wh..wh..opq", b"")
        .done();
    (lower, upper)
}

#[test]
fn docker_archive_round_trip() {
    let (directory, store) = store();
    let (lower, upper) = two_layers();
    let archive = docker_archive(&[&lower, &upper], "a/b:c");
    let loaded = load(&store, &archive).unwrap();
    let image = &loaded.images[0];
    assert_eq!(image.names, ["a/b:c"]);
    let fs = store.layer_files(&image.image.chain[0]);
    let su = fs.join("bin/su").metadata().unwrap();
    assert_eq!((su.mode() & 0o7777, su.uid(), su.gid()), (0o4755, 7, 8));
    assert_eq!(su.mtime(), 1_000_000_000);
    assert_eq!(fs.join("etc").metadata().unwrap().mtime(), 1_234_567_890);
    assert_eq!(fs.join("etc").metadata().unwrap().mode() & 0o7777, 0o750);
    assert_eq!(
        fs.join("etc/a").metadata().unwrap().ino(),
        fs.join("etc/hard").metadata().unwrap().ino()
    );
    assert!(fs.join("dev/null").metadata().unwrap().file_type().is_char_device());
    assert_eq!(fs.join("dev/null").metadata().unwrap().mode() & 0o777, 0o666);
    let fs = store.layer_files(&image.image.chain[1]);
    for gone in ["etc/a", "gone"] {
        let stat = fs.join(gone).symlink_metadata().unwrap();
        assert!(stat.file_type().is_char_device() && stat.rdev() == 0, "{gone}");
    }
    let mode = directory.path().join("layers").metadata().unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o700);

    let saved = save(&store, image.id, "a/b:c");
    let found = members(&saved);
    for layer in [&lower, &upper] {
        let name = format!("blobs/sha256/{}", sha(layer).hex());
        assert!(found.iter().any(|(path, data)| *path == name && data == layer), "{name}");
    }
    assert!(found.iter().any(|(path, _)| path == "manifest.json"));

    let (_other_directory, other) = self::store();
    let again = load(&other, &saved).unwrap();
    assert_eq!(again.images.len(), 1);
    assert_eq!(again.images[0].id, image.id);
    assert_eq!(again.images[0].names, ["a/b:c"]);
    assert_eq!(again.images[0].image.manifest.digest, image.image.manifest.digest);
    assert_eq!(save(&other, image.id, "a/b:c"), saved);
}

#[test]
fn oci_archive_keeps_its_manifest_and_blobs() {
    let (_directory, store) = store();
    let (lower, upper) = two_layers();
    let (archive, manifest) = oci_archive(&[&lower, &upper], "docker.io/library/x:1");
    for bytes in [&archive, &gzip(&archive)] {
        let loaded = load(&store, bytes).unwrap();
        assert_eq!(loaded.images[0].names, ["docker.io/library/x:1"]);
        assert_eq!(loaded.images[0].image.manifest.digest, manifest);
        let saved = members(&save(&store, loaded.images[0].id, "x:1"));
        let blob = format!("blobs/sha256/{}", sha(&gzip(&lower)).hex());
        assert!(saved.iter().any(|(path, _)| *path == blob));
        let mut tar = Vec::new();
        store.write_layer_tar(&loaded.images[0].image.chain[1], &mut tar).unwrap();
        assert!(tar == upper);
    }
}

#[test]
fn layers_are_shared_and_collected() {
    let (directory, store) = store();
    let (lower, upper) = two_layers();
    let one = load(&store, &docker_archive(&[&lower], "one")).unwrap();
    let two = load(&store, &docker_archive(&[&lower, &upper, &upper], "two")).unwrap();
    let (one, two_id) = (one.images[0].id, two.images[0].id);
    assert_eq!(store.layers().len(), 3);
    // A lease keeps what is not tagged yet.
    store.collect(|| HashSet::from([one])).unwrap();
    assert_eq!(store.layers().len(), 3);
    let top = two.images[0].image.top();
    drop(two);
    store.snapshot_create("c", top).unwrap();
    let collected = store.collect(|| HashSet::from([one])).unwrap();
    assert_eq!(collected.images, [two_id]);
    assert!(collected.layers.is_empty());
    store.snapshot_remove("c").unwrap();
    let collected = store.collect(|| HashSet::from([one])).unwrap();
    assert_eq!(collected.layers.len(), 2);
    assert!(store.image(&one).is_ok() && store.image(&two_id).is_err());
    drop(store);
    let store = Store::open(directory.path()).unwrap();
    assert_eq!(store.images().unwrap().len(), 1);
    assert_eq!(store.layers().len(), 1);
    assert!(matches!(Store::open(directory.path()), Err(Error::Busy(_))));
    store.collect(HashSet::new).unwrap();
    assert!(
        fs_err::read_dir(directory.path().join("content/blobs/sha256")).unwrap().next().is_none()
    );
}

#[test]
fn replaced_entries_come_out_again() {
    let (_directory, store) = store();
    let layer = Tar::new()
        .file("a", b"first")
        .file("d/x", b"inside")
        .file("a", b"second")
        .empty(EntryKind::Symlink, "d", "/elsewhere")
        .dir("d")
        .file("d/x", b"outside")
        .file("a", b"")
        .done();
    let loaded = load(&store, &docker_archive(&[&layer], "x:1")).unwrap();
    let chain = loaded.images[0].image.chain[0];
    let fs = store.layer_files(&chain);
    assert_eq!(fs_err::read(fs.join("d/x")).unwrap(), b"outside");
    assert_eq!(fs_err::read(fs.join("a")).unwrap(), b"");
    let mut tar = Vec::new();
    store.write_layer_tar(&chain, &mut tar).unwrap();
    assert!(tar == layer);
}

#[test]
fn nothing_is_written_outside_of_a_layer() {
    let (directory, store) = store();
    let outside = directory.path().join("outside");
    fs_err::create_dir(&outside).unwrap();
    fs_err::write(outside.join("host"), b"host").unwrap();
    fs_err::set_permissions(outside.join("host"), std::fs::Permissions::from_mode(0o600)).unwrap();
    let up = format!("{}{}", "../".repeat(20), outside.to_str().unwrap());
    let absolute = outside.to_str().unwrap();
    let host = format!("{absolute}/host");
    let mut chmod = Entry::new(EntryKind::Regular, "link", 0o4777);
    chmod.mtime.seconds = 1;
    let accepted = [
        Tar::new().empty(EntryKind::Symlink, "link", absolute).file("link/x", b"bad").done(),
        Tar::new().empty(EntryKind::Symlink, "link", &up).file("link/x", b"bad").done(),
        Tar::new().empty(EntryKind::Symlink, "link", &host).entry(&chmod).done(),
        Tar::new()
            .empty(EntryKind::Symlink, "link", absolute)
            .dir("link/")
            .file("link/host", b"bad")
            .done(),
        Tar::new().empty(EntryKind::Symlink, "d", absolute).file("d/.wh.host", b"").done(),
        Tar::new().empty(EntryKind::Symlink, "d", absolute).file("d/.wh..wh..opq", b"").done(),
        Tar::new()
            .empty(EntryKind::Symlink, "a", "b")
            .empty(EntryKind::Symlink, "b", "/proc/self/cwd/../..")
            .done(),
        Tar::new().file(&format!("/{absolute}/y"), b"inside").done(),
    ];
    for (index, layer) in accepted.iter().enumerate() {
        // Either is fine, as long as nothing outside is touched.
        drop(load(&store, &docker_archive(&[layer], "x:1")).map_err(|error| (index, error)));
    }
    let refused = [
        Tar::new().file(&format!("{up}/x"), b"bad").done(),
        Tar::new().file("a/../../x", b"bad").done(),
        Tar::new().file(".wh...", b"").done(),
        Tar::new().file(".wh.", b"").done(),
        Tar::new().file("a/.wh..", b"").done(),
        Tar::new().empty(EntryKind::HardLink, "h", &host).done(),
        Tar::new().empty(EntryKind::HardLink, "h", &format!("{up}/host")).done(),
        Tar::new().empty(EntryKind::HardLink, "h", "missing").done(),
        Tar::new().empty(EntryKind::HardLink, "h", "h").done(),
        Tar::new()
            .empty(EntryKind::Symlink, "d", absolute)
            .empty(EntryKind::HardLink, "h", "d/host")
            .done(),
        Tar::new().empty(EntryKind::CharDevice, "c", "").done(),
        Tar::new().file(".", b"root").done(),
        Tar::new().file(".wh.a", b"").empty(EntryKind::HardLink, "h", "a").done(),
        Tar::new().file(&"a/".repeat(3000), b"").done(),
    ];
    for (index, layer) in refused.iter().enumerate() {
        assert!(load(&store, &docker_archive(&[layer], "x:1")).is_err(), "{index}");
    }
    let left: Vec<_> =
        fs_err::read_dir(&outside).unwrap().map(|e| e.unwrap().file_name()).collect();
    assert_eq!(left, ["host"]);
    let stat = outside.join("host").metadata().unwrap();
    assert_eq!((stat.mode() & 0o7777, stat.nlink()), (0o600, 1));
    assert_eq!(fs_err::read(outside.join("host")).unwrap(), b"host");
    let leftovers = fs_err::read_dir(directory.path().join("layers"))
        .unwrap()
        .filter(|entry| entry.as_ref().unwrap().file_name().to_str().unwrap().starts_with('.'));
    assert_eq!(leftovers.count(), 0);
}

#[test]
fn the_entry_of_a_hard_link_speaks_for_the_file() {
    let (_directory, store) = store();
    let mut link = Entry::new(EntryKind::HardLink, "b", 0o4711);
    link.link = b"a".to_vec();
    (link.uid, link.gid, link.mtime.seconds) = (7, 8, 99);
    let mut other = Entry::new(EntryKind::HardLink, "s2", 0o600);
    other.link = b"s".to_vec();
    other.uid = 9;
    let tar = Tar::new().file("a", b"a").entry(&link);
    let tar = tar.empty(EntryKind::Symlink, "s", "/etc/passwd").entry(&other).done();
    let loaded = load(&store, &docker_archive(&[&tar], "a")).unwrap();
    let image = &loaded.images[0].image;
    let files = store.layer_files(&image.chain[0]);
    let a = fs_err::metadata(files.join("a")).unwrap();
    assert_eq!((a.mode() & 0o7777, a.uid(), a.gid(), a.mtime()), (0o4711, 7, 8, 99));
    assert_eq!(a.ino(), fs_err::metadata(files.join("b")).unwrap().ino());
    assert_eq!(fs_err::symlink_metadata(files.join("s")).unwrap().uid(), 9);
    store.write_layer_tar(&image.chain[0], std::io::sink()).unwrap();
}

#[test]
fn overlay_attributes_of_a_layer_are_dropped() {
    let (_directory, store) = store();
    let mut entry = Entry::new(EntryKind::Directory, "d", 0o755);
    entry.xattrs.push((b"trusted.overlay.redirect".to_vec(), b"/etc".to_vec()));
    entry.xattrs.push((b"user.ok".to_vec(), b"1".to_vec()));
    let layer = Tar::new().entry(&entry).done();
    let loaded = load(&store, &docker_archive(&[&layer], "x:1")).unwrap();
    let path = store.layer_files(&loaded.images[0].image.chain[0]).join("d");
    let mut value = [0_u8; 16];
    assert!(rustix::fs::getxattr(&path, "trusted.overlay.redirect", &mut value[..]).is_err());
    assert_eq!(rustix::fs::getxattr(&path, "user.ok", &mut value[..]).unwrap(), 1);
}

#[test]
fn broken_archives_are_refused_and_leave_nothing() {
    let (directory, store) = store();
    let (lower, upper) = two_layers();
    let good = docker_archive(&[&lower, &upper], "x:1");
    let swapped = {
        let config = config(&[&upper]);
        let id = sha(&config).hex();
        let manifest = format!(r#"[{{"Config":"{id}.json","RepoTags":null,"Layers":["l"]}}]"#);
        Tar::new()
            .file("l", &lower)
            .file(&format!("{id}.json"), &config)
            .file("manifest.json", manifest.as_bytes())
            .done()
    };
    let (oci, _) = oci_archive(&[&lower], "x");
    let wrong_name = {
        let mut bytes = oci.clone();
        let at = bytes.windows(13).position(|w| w == b"blobs/sha256/").unwrap() + 13;
        bytes[at] = if bytes[at] == b'0' { b'1' } else { b'0' };
        let mut sum: u64 = 0;
        for (index, byte) in bytes[..512].iter().enumerate() {
            sum += u64::from(if (148..156).contains(&index) { b' ' } else { *byte });
        }
        bytes[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
        bytes
    };
    let deep = b"[".repeat(100_000);
    for (name, bytes) in [
        ("empty", Vec::new()),
        ("garbage", vec![0xa5; 4096]),
        ("no manifest", Tar::new().file("a", b"b").done()),
        ("truncated", good[..good.len() / 2].to_vec()),
        ("truncated layer", good[..lower.len() / 2 + 1024].to_vec()),
        ("wrong layer", swapped),
        ("wrong blob name", wrong_name),
        ("deep json", Tar::new().file("manifest.json", &deep).done()),
        ("null manifest", Tar::new().file("manifest.json", b"[{}]").done()),
        ("no images", Tar::new().file("manifest.json", b"[]").done()),
        ("truncated gzip", gzip(&good)[..2000].to_vec()),
        ("bzip2", b"BZh91AY".to_vec()),
    ] {
        assert!(load(&store, &bytes).is_err(), "{name}");
    }
    assert!(store.layers().is_empty() && store.images().unwrap().is_empty());
    for directory in
        ["layers", "content/ingest", "content/blobs/sha256"].map(|d| directory.path().join(d))
    {
        assert_eq!(fs_err::read_dir(&directory).unwrap().count(), 0, "{directory:?}");
    }
}

#[test]
fn snapshots_changes_and_commit() {
    let (_directory, store) = store();
    let (lower, upper) = two_layers();
    let loaded = load(&store, &docker_archive(&[&lower, &upper], "x:1")).unwrap();
    let base = &loaded.images[0].image;
    let snapshot = store.snapshot_create("c1", base.top()).unwrap();
    assert!(matches!(store.snapshot_create("c1", None), Err(Error::SnapshotExists(_))));
    assert!(matches!(store.snapshot_create("../x", None), Err(Error::InvalidName(_))));
    assert!(store.changes(&store.snapshot("c1").unwrap()).unwrap().is_empty());
    assert_eq!(snapshot.lowers.len(), 3);
    assert!(snapshot.lowers[0].ends_with(format!("{}/fs", base.chain[1].hex())));

    // As overlay would have it after: rm bin/su; echo > etc/b; mkdir new; touch new/f
    let whiteout = |path: &Path| {
        let kind = rustix::fs::FileType::CharacterDevice;
        rustix::fs::mknodat(rustix::fs::CWD, path, kind, rustix::fs::Mode::empty(), 0).unwrap();
    };
    let fs = &snapshot.upper;
    fs_err::create_dir_all(fs.join("bin")).unwrap();
    whiteout(&fs.join("bin/su"));
    fs_err::create_dir(fs.join("etc")).unwrap();
    fs_err::write(fs.join("etc/b"), b"changed").unwrap();
    whiteout(&fs.join("etc/never-there"));
    fs_err::create_dir(fs.join("new")).unwrap();
    fs_err::write(fs.join("new/f"), b"f").unwrap();
    fs_err::hard_link(fs.join("new/f"), fs.join("new/g")).unwrap();
    let changes: Vec<(ChangeKind, String)> = store
        .changes(&store.snapshot("c1").unwrap())
        .unwrap()
        .into_iter()
        .map(|change| (change.kind, change.path.to_str().unwrap().to_owned()))
        .collect();
    use ChangeKind::{Added, Deleted, Modified};
    let want = [
        (Modified, "/bin"),
        (Deleted, "/bin/su"),
        (Modified, "/etc"),
        (Modified, "/etc/b"),
        (Added, "/new"),
        (Added, "/new/f"),
        (Added, "/new/g"),
    ];
    assert_eq!(changes, want.map(|(kind, path)| (kind, path.to_owned())));
    assert_eq!(store.snapshot_usage("c1").unwrap(), 8);

    let mut config = (*base.config).clone();
    config.history.push(History { created_by: "test".into(), ..History::default() });
    let (image, lease) = store.commit("c1", config).unwrap();
    assert_eq!(image.chain.len(), 3);
    assert_eq!(image.config.rootfs.diff_ids[..2], base.config.rootfs.diff_ids[..]);
    let top = store.layer_files(&image.chain[2]);
    assert_eq!(fs_err::read(top.join("etc/b")).unwrap(), b"changed");
    assert!(top.join("bin/su").symlink_metadata().unwrap().file_type().is_char_device());
    assert_eq!(top.join("new/f").metadata().unwrap().nlink(), 2);
    drop(lease);
    save(&store, image.id, "committed:latest");
}

#[test]
fn import_takes_any_compression() {
    let (_directory, store) = store();
    let tar = Tar::new().file("a", b"1").done();
    let plain = store.import(&tar[..], ImageConfig::default()).unwrap().0;
    let zipped = gzip(&tar);
    let again = store.import(&zipped[..], ImageConfig::default()).unwrap().0;
    assert_eq!(plain.id, again.id);
    let derived = ImageConfig { author: "x".into(), ..ImageConfig::default() };
    let other = store.derive(plain.top(), derived).unwrap().0;
    assert_eq!(other.chain, plain.chain);
    assert_ne!(other.id, plain.id);
}

#[test]
fn a_real_overlay_over_a_snapshot() {
    let (_directory, store) = store();
    let lower = Tar::new()
        .dir("etc")
        .file("etc/a", b"a")
        .file("etc/b", b"b")
        .dir("gone")
        .file("gone/x", b"x")
        .dir("again")
        .file("again/old", b"old")
        .dir("moved")
        .file("moved/in", b"in")
        .done();
    let upper = Tar::new()
        .file("etc/.wh.a", b"")
        .file(".wh.gone", b"")
        .dir("again")
        .file("again/.wh..wh..opq", b"")
        .file("again/new", b"new")
        .done();
    let loaded = load(&store, &docker_archive(&[&lower, &upper], "x:1")).unwrap();
    let image = &loaded.images[0].image;
    let run = |name: &str, top, script: &str| {
        let snapshot = store.snapshot_create(name, top).unwrap();
        let lowers: Vec<&str> = snapshot.lowers.iter().map(|path| path.to_str().unwrap()).collect();
        let script = format!(
            "mkdir -p {0}/m && mount -t overlay -o lowerdir={1},upperdir={2},workdir={3} none {0}/m && cd {0}/m && {script}",
            snapshot.upper.parent().unwrap().display(),
            lowers.join(":"),
            snapshot.upper.display(),
            snapshot.work.display(),
        );
        let output = std::process::Command::new("unshare")
            .args(["-m", "sh", "-ec", &script])
            .output()
            .unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    };
    let listed = run("one", image.top(), "find . -type f -path './[aegm]*' | sort");
    let want = "./again/new\n./etc/b\n./etc/hostname\n./etc/hosts\n./etc/resolv.conf\n./moved/in\n";
    assert_eq!(listed, want);
    assert!(store.changes(&store.snapshot("one").unwrap()).unwrap().is_empty());

    run(
        "two",
        image.top(),
        "rm etc/b; rm -r moved; mkdir moved; echo n > moved/n; rm -r again; chmod 700 etc; \
         mkfifo p; touch etc/hosts",
    );
    use ChangeKind::{Added, Deleted, Modified};
    let changes: Vec<(ChangeKind, String)> = store
        .changes(&store.snapshot("two").unwrap())
        .unwrap()
        .into_iter()
        .map(|change| (change.kind, change.path.to_str().unwrap().to_owned()))
        .collect();
    let want = [
        (Deleted, "/again"),
        (Modified, "/etc"),
        (Deleted, "/etc/b"),
        (Modified, "/etc/hosts"),
        (Modified, "/moved"),
        (Deleted, "/moved/in"),
        (Added, "/moved/n"),
        (Added, "/p"),
    ];
    assert_eq!(changes, want.map(|(kind, path)| (kind, path.to_owned())));

    let (committed, _lease) = store.commit("two", (*image.config).clone()).unwrap();
    let listed = run("three", committed.top(), "find . -path './[aegmp]*' | sort; stat -c %a etc");
    let want = "./etc\n./etc/hostname\n./etc/hosts\n./etc/mtab\n./etc/resolv.conf\n./moved\n./moved/n\n./p\n./proc\n700\n";
    assert_eq!(listed, want);
}

#[test]
fn what_was_not_finished_is_gone_after_the_next_open() {
    let (directory, store) = store();
    let (lower, _) = two_layers();
    load(&store, &docker_archive(&[&lower], "x:1")).unwrap();
    store.snapshot_create("whole", None).unwrap();
    drop(store);
    let path = directory.path();
    fs_err::create_dir_all(path.join("layers/.new-1-1/fs/a/b")).unwrap();
    fs_err::create_dir_all(path.join("snapshots/half")).unwrap();
    fs_err::create_dir_all(path.join("trash/1/deep")).unwrap();
    fs_err::write(path.join("content/ingest/1"), b"half").unwrap();
    fs_err::write(path.join("content/index.new"), b"{").unwrap();
    let store = Store::open(path).unwrap();
    assert_eq!(store.snapshots().unwrap(), ["whole"]);
    assert_eq!(store.images().unwrap().len(), 1);
    assert!(!path.join("layers/.new-1-1").exists() && !path.join("content/ingest/1").exists());
}

/// Edits the record of a layer, as one that an earlier process left.
fn mark(root: &Path, chain: &Digest, marker: Option<&str>) {
    let path = root.join("layers").join(chain.hex()).join("layer.json");
    let mut record: silo_store::Layer =
        serde_json::from_slice(&fs_err::read(&path).unwrap()).unwrap();
    record.unsynced = marker.map(str::to_owned);
    fs_err::write(&path, serde_json::to_vec(&record).unwrap()).unwrap();
}

#[test]
fn layers_of_another_boot_that_were_not_flushed_are_dropped_with_their_images() {
    let (directory, store) = store();
    let (base, top) = two_layers();
    let other = Tar::new().file("other", b"of another image").done();
    let whole = load(&store, &oci_archive(&[&base, &top], "a").0).unwrap();
    let part = load(&store, &oci_archive(&[&base, &other], "b").0).unwrap();
    let (a, b) = (whole.images[0].image.clone(), part.images[0].image.clone());
    assert_eq!(a.chain[0], b.chain[0]);
    store.snapshot_create("c", b.top()).unwrap();
    store.sync().unwrap();
    for chain in a.chain.iter().chain(&b.chain) {
        assert_eq!(store.layer(chain).unwrap().unsynced, None);
    }
    let blob = store.layer(&b.chain[1]).unwrap().blob.clone().unwrap().digest;
    drop((whole, part, store));

    let boot = fs_err::read_to_string("/proc/sys/kernel/random/boot_id").unwrap();
    mark(directory.path(), &b.chain[1], Some(boot.trim()));
    let store = Store::open(directory.path()).unwrap();
    assert_eq!(store.images().unwrap().len(), 2);
    store.sync().unwrap();
    assert_eq!(store.layer(&b.chain[1]).unwrap().unsynced, None);
    drop(store);

    mark(directory.path(), &b.chain[1], Some("another boot"));
    let store = Store::open(directory.path()).unwrap();
    assert!(matches!(store.image(&b.id), Err(Error::NoImage(_))));
    assert!(store.layer(&b.chain[1]).is_err() && !store.has_blob(&blob) && !store.has_blob(&b.id));
    assert!(matches!(store.snapshot("c"), Err(Error::NoLayer(_))));
    assert!(store.snapshot_usage("c").is_ok());
    assert_eq!(store.image(&a.id).unwrap().layer_sizes, a.layer_sizes);
    save(&store, a.id, "a");
    // What comes again revives what stood on it.
    drop(load(&store, &oci_archive(&[&base, &other], "b").0).unwrap());
    assert!(store.snapshot("c").is_ok());
    store.snapshot_remove("c").unwrap();
    store.collect(|| HashSet::from([a.id])).unwrap();
    assert_eq!(store.layers().len(), 2);
}

#[test]
fn what_the_disk_has_in_part_costs_only_itself() {
    let (directory, store) = store();
    let (base, top) = two_layers();
    let first = load(&store, &docker_archive(&[&base], "a")).unwrap();
    let second = load(&store, &docker_archive(&[&base, &top], "b")).unwrap();
    let (a, b) = (first.images[0].image.clone(), second.images[0].image.clone());
    let content = directory.path().join("content");
    drop((first, second, store));
    let open = || Store::open(directory.path()).unwrap();

    // A document, an index before it was flushed, a record, a blob of nobody.
    let manifest = content.join("blobs/sha256").join(b.manifest.digest.hex());
    let whole = fs_err::read(&manifest).unwrap();
    fs_err::write(&manifest, &whole[..9]).unwrap();
    fs_err::write(content.join("blobs/sha256").join("0".repeat(64)), b"").unwrap();
    let store = open();
    assert!(store.image(&a.id).is_ok() && store.image(&b.id).is_err());
    assert_eq!(fs_err::read_dir(content.join("blobs/sha256")).unwrap().count(), 2);
    drop(store);

    fs_err::copy(content.join("index.json"), content.join("index.synced.json")).unwrap();
    fs_err::write(content.join("index.json"), b"").unwrap();
    let store = open();
    assert!(store.image(&a.id).is_ok());
    let again = load(&store, &docker_archive(&[&base, &top], "b")).unwrap();
    assert_eq!(again.images[0].image.manifest, b.manifest);
    drop((again, store));
    assert!(!content.join("index.synced.json").exists());

    let record = directory.path().join("layers").join(b.chain[1].hex()).join("layer.json");
    fs_err::write(record, b"").unwrap();
    let store = open();
    assert!(store.image(&a.id).is_ok() && store.image(&b.id).is_err());
    assert_eq!(store.layers().len(), 1);
}

#[test]
fn loads_and_collections_at_once() {
    let (_directory, store) = store();
    let (lower, upper) = two_layers();
    let archive = docker_archive(&[&lower, &upper], "x:1");
    std::thread::scope(|scope| {
        for _ in 0..3 {
            scope.spawn(|| {
                for _ in 0..5 {
                    let loaded = load(&store, &archive).unwrap();
                    let image = &loaded.images[0].image;
                    // Held by the lease, whatever is collected meanwhile.
                    let mut out = Vec::new();
                    store.write_layer_tar(&image.chain[1], &mut out).unwrap();
                    assert!(store.image(&image.id).is_ok());
                }
            });
        }
        scope.spawn(|| {
            for _ in 0..50 {
                store.collect(HashSet::new).unwrap();
            }
        });
    });
    store.collect(HashSet::new).unwrap();
    assert!(store.layers().is_empty() && store.images().unwrap().is_empty());
}

/// Runs this test binary's test `name` again, on a small file system of its own.
fn in_small_space(name: &str) {
    let directory = tempfile::tempdir().unwrap();
    let script = "mount -t tmpfs -o size=8m,mode=700 none \"$0\" && exec \"$@\"";
    let output = std::process::Command::new("unshare")
        .args(["-m", "sh", "-c", script])
        .arg(directory.path())
        .arg(std::env::current_exe().unwrap())
        .args(["--exact", name, "--ignored", "--nocapture"])
        .env("SILO_TEST_SPACE", directory.path())
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{text}");
    assert!(String::from_utf8_lossy(&output.stdout).contains("1 passed"));
}

#[test]
fn a_full_disk_leaves_nothing() {
    in_small_space("bombs_on_a_full_disk");
}

#[test]
#[ignore = "run by a_full_disk_leaves_nothing"]
fn bombs_on_a_full_disk() {
    let space = std::env::var_os("SILO_TEST_SPACE").unwrap();
    let store = Store::open(&space).unwrap();
    let zeros = vec![0; 64 << 20];
    let tar = Tar::new().file("zeros", &zeros).done();
    let one = gzip(&tar);
    let bomb = gzip(&one);
    assert!(store.import(&one[..], ImageConfig::default()).is_err());
    // A gzip within a gzip is no tar.
    assert!(store.import(&bomb[..], ImageConfig::default()).is_err());
    assert!(load(&store, &gzip(&docker_archive(&[&tar], "x:1"))).is_err());
    let (lower, upper) = two_layers();
    let mut sparse = Entry::new(EntryKind::Regular, "sparse", 0o644);
    sparse.pax.push((b"GNU.sparse.size".to_vec(), b"9000000000000".to_vec()));
    sparse.pax.push((b"GNU.sparse.map".to_vec(), b"0,0".to_vec()));
    let holes = Tar::new().entry(&sparse).done();
    // Holes take no room; whether the file system has them that large is its business.
    drop(store.import(&holes[..], ImageConfig::default()));
    load(&store, &docker_archive(&[&lower, &upper], "x:1")).unwrap();
    let leftovers = fs_err::read_dir(Path::new(&space).join("layers"))
        .unwrap()
        .filter(|entry| entry.as_ref().unwrap().file_name().to_str().unwrap().starts_with('.'));
    assert_eq!(leftovers.count(), 0);
}
