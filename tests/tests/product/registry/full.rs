//! Pulls on a disk that has no more room.

use std::sync::Mutex;

use silo_tests::{Content, Engine, Scripted, tar_of};

use crate::build::disk::SmallDisk;
use crate::crash::entries;

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
