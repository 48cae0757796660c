//! A registry on the data root of an engine: content that both have is one file.

use std::os::unix::fs::MetadataExt;

use super::{Registry, has_or_skip, run};
use silo_tests::Engine;

#[test]
fn content_of_the_engine_is_not_there_twice() {
    if !has_or_skip("registryd::shared::content_of_the_engine_is_not_there_twice", &["skopeo"]) {
        return;
    }
    let engine = Engine::start();
    if !engine.is_silo_or_skip("looks at Silo's own files") {
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let path = |name: &str| directory.path().join(name).display().to_string();
    let registry = Registry::start_at(tempfile::tempdir().unwrap(), engine.data_root(), &[]);

    // A layout with a compressed layer, as images come from elsewhere.
    let saved = path("saved.tar");
    engine.ok(&["save", "-o", &saved, "busybox"]);
    let layout = path("layout");
    run("skopeo", &["copy", "-q", &format!("docker-archive:{saved}"), &format!("oci:{layout}:x")]);
    let index = fs_err::read_to_string(format!("{layout}/index.json")).unwrap();
    let index: serde_json::Value = serde_json::from_str(&index).unwrap();
    let digest = index["manifests"][0]["digest"].as_str().unwrap().to_owned();
    let blob = |digest: &str| format!("{layout}/blobs/{}", digest.replace(':', "/"));
    let manifest = fs_err::read(blob(&digest)).unwrap();
    let parsed: serde_json::Value = serde_json::from_slice(&manifest).unwrap();
    let layer = parsed["layers"][0]["digest"].as_str().unwrap().to_owned();
    let config = parsed["config"]["digest"].as_str().unwrap().to_owned();
    let content =
        |digest: &str| engine.data_root().join("content/blobs").join(digest.replace(':', "/"));
    let inode = |path: &std::path::Path| fs_err::metadata(path).unwrap().ino();

    // First in the engine; a client on this host need not upload it.
    let archive = path("archive.tar");
    run("tar", &["-C", &layout, "-cf", &archive, "."]);
    engine.ok(&["rmi", "-f", "busybox"]);
    engine.ok(&["load", "-i", &archive]);
    let mount = format!("/v2/a/blobs/uploads/?mount={layer}");
    assert_eq!(registry.send("POST", &mount, &[], b"").status, 201);
    assert_eq!(inode(&content(&layer)), inode(&registry.file(&layer)));
    // What is pushed is the engine's file as well.
    let bytes = fs_err::read(blob(&config)).unwrap();
    assert_eq!(registry.blob("a", &bytes), config);
    assert_eq!(registry.manifest("a", "v1", &manifest).status, 201);

    // Gone from the engine, it is there for the registry's clients, and comes back as one file.
    for id in engine.ok(&["images", "-q", "--no-trunc"]).lines() {
        engine.ok(&["rmi", "-f", id]);
    }
    assert!(!content(&layer).exists());
    let length = fs_err::metadata(blob(&layer)).unwrap().len();
    let answer = registry.get(&format!("/v2/a/blobs/{layer}"));
    assert_eq!(answer.body.len() as u64, length);
    engine.ok(&["load", "-i", &archive]);
    assert_eq!(inode(&content(&layer)), inode(&registry.file(&layer)));

    // Gone from the registry, the engine has it still.
    assert_eq!(registry.send("DELETE", &format!("/v2/a/manifests/{digest}"), &[], b"").status, 202);
    registry.collect();
    assert!(!registry.file(&layer).exists());
    assert!(content(&layer).exists());
    let image = engine.ok(&["images", "-q"]);
    let image = image.lines().next().expect("an image");
    let said = engine.ok(&["run", "--rm", "--network", "none", image, "echo", "runs"]);
    assert_eq!(said.trim(), "runs");
}
