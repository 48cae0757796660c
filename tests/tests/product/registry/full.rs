//! Pulls and loads on a disk that has no more room, and pushes to one.

use std::sync::Mutex;

use serde_json::json;
use silo_tests::{Content, Engine, Scripted, gzip, sha256, tar_of};

use crate::build::disk::SmallDisk;
use crate::crash::entries;
use crate::registryd::{Registry, run};

#[test]
fn a_pull_without_room_leaves_nothing_and_works_later() {
    let disk = SmallDisk::new(24);
    let mut engine = Engine::prepare();
    if !engine.is_silo_or_skip("fills a disk") {
        return;
    }
    engine.set_data_root(disk.path());
    engine.start_daemon();
    let before = disk.room();
    let large = Content::of(&[tar_of("a", 2_000_000), tar_of("b", 30_000_000)]);
    let small = Content::of(&[tar_of("c", 500_000)]);
    let (large, small) = (Mutex::new(large), Mutex::new(small));
    let server = Scripted::start(move |asked| {
        let content = if asked.path().starts_with("/v2/large/") { &large } else { &small };
        content.lock().expect("content").answer(asked)
    });
    let name = |repository: &str| format!("{}/{repository}:latest", server.address());
    let outcome = engine.docker(&["pull", &name("large")]);
    assert_eq!(outcome.code, 1);
    // docker wording
    let words = outcome.stderr.trim();
    assert!(words.contains("failed to register layer: write /"), "{words}");
    assert!(words.contains(": no space left on device: the engine's data root"), "{words}");
    for folder in ["content/ingest", "trash"] {
        // What is removed in the background may be on its way.
        while !entries(&engine.data_root().join(folder)).is_empty() {
            std::thread::yield_now();
        }
    }
    assert!(!entries(&engine.data_root().join("layers")).iter().any(|name| name.starts_with('.')));
    assert_eq!(engine.ok(&["images", "-q"]), "");
    engine.ok(&["pull", "-q", &name("small")]);
    engine.ok(&["rmi", &name("small")]);
    engine.ok(&["image", "prune", "-f"]);
    // What is removed in the background may be on its way; the database has grown.
    while disk.room() + 4 < before {
        std::thread::yield_now();
    }
    // Now there is room.
    disk.resize(100);
    engine.ok(&["pull", "-q", &name("large")]);
    let saved = engine.scratch().join("saved.tar");
    engine.ok(&["save", "-o", saved.to_str().expect("UTF-8"), &name("large")]);
    engine.stop_daemon();
}

/// An archive as `docker save` writes it, with layers that may be compressed.
fn archive(engine: &Engine, layers: &[(Vec<u8>, bool)]) -> String {
    let tree = tempfile::tempdir_in(engine.scratch()).expect("a directory");
    let (mut names, mut diff_ids) = (Vec::new(), Vec::new());
    for (number, (tar, compressed)) in layers.iter().enumerate() {
        let name = format!("{number}.tar");
        let bytes = if *compressed { gzip(tar) } else { tar.clone() };
        fs_err::write(tree.path().join(&name), bytes).expect("a layer");
        names.push(name);
        diff_ids.push(sha256(tar));
    }
    let config = json!({ "os": "linux", "architecture": "amd64",
        "rootfs": { "type": "layers", "diff_ids": diff_ids } });
    let manifest = json!([{ "Config": "c.json", "RepoTags": ["full:1"], "Layers": names }]);
    fs_err::write(tree.path().join("c.json"), config.to_string()).expect("a configuration");
    fs_err::write(tree.path().join("manifest.json"), manifest.to_string()).expect("a manifest");
    let path = engine.scratch().join("archive.tar").display().to_string();
    run("tar", &["-C", tree.path().to_str().expect("UTF-8"), "-cf", &path, "."]);
    path
}

#[test]
fn a_load_without_room_leaves_nothing_and_works_later() {
    let disk = SmallDisk::new(24);
    let mut engine = Engine::prepare();
    if !engine.is_silo_or_skip("fills a disk") {
        return;
    }
    engine.set_data_root(disk.path());
    engine.start_daemon();
    let before = disk.room();
    let (small, large) = (tar_of("a", 2_000_000), tar_of("b", 30_000_000));
    for compressed in [false, true] {
        let layers = [(small.clone(), false), (large.clone(), compressed)];
        let path = archive(&engine, &layers);
        let outcome = engine.docker(&["load", "-q", "-i", &path]);
        assert_eq!(outcome.code, 1, "{compressed}");
        let words = outcome.stderr.trim();
        let first = words.split(": the engine's data root is full").next().unwrap_or_default();
        assert!(first.ends_with(": no space left on device"), "{compressed}: {words}");
        assert!(words.contains("docker system prune"), "{compressed}: {words}");
        assert_eq!(engine.ok(&["images", "-q"]), "");
        // What is removed in the background may be on its way; the database has grown.
        while disk.room() + 4 < before {
            std::thread::yield_now();
        }
        let layers = entries(&engine.data_root().join("layers"));
        assert!(!layers.iter().any(|name| name.starts_with('.')), "{layers:?}");
        assert!(entries(&engine.data_root().join("content/ingest")).is_empty());
    }
    let failed = engine.docker_with_input(&["import", "-", "full:2"], &large);
    assert!(failed.stderr.contains("no space left on device"), "{}", failed.stderr);
    disk.resize(100);
    let path = archive(&engine, &[(small, true), (large, true)]);
    engine.ok(&["load", "-q", "-i", &path]);
    engine.ok(&[
        "save",
        "-o",
        engine.scratch().join("saved.tar").to_str().expect("UTF-8"),
        "full:1",
    ]);
    engine.stop_daemon();
}

#[test]
fn a_push_to_a_registry_without_room_says_so() {
    let disk = SmallDisk::new(8);
    let engine = Engine::start_empty();
    let imported = engine.docker_with_input(&["import", "-", "pushed"], &tar_of("a", 12_000_000));
    assert_eq!(imported.code, 0, "{}", imported.stderr);
    let directory = tempfile::tempdir().expect("a directory");
    let root = disk.path().join("data");
    let registry = Registry::start_at(directory, root.clone(), &[]);
    let name = format!("{}/pushed:1", registry.address);
    engine.ok(&["tag", "pushed", &name]);
    let failed = engine.docker(&["push", &name]);
    assert_eq!(failed.code, 1, "{}", failed.stdout);
    assert!(failed.stderr.contains("no space left on device: the registry"), "{}", failed.stderr);
    for folder in ["uploads", "staging", "blobs/sha256"] {
        assert!(entries(&root.join("registry").join(folder)).is_empty(), "{folder}");
    }
    disk.resize(40);
    engine.ok(&["push", "-q", &name]);
}
