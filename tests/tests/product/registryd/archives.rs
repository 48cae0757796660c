//! `silo copy` with Docker's archives, engines, and several tags.

use std::os::unix::fs::{MetadataExt, symlink};
use std::path::Path;
use std::sync::{Arc, Mutex};

use serde_json::{Value, json};
use silo_tests::{Content, Engine, OCI_INDEX, Scripted, gzip, tar_of};

use super::copies::{copy, fails};
use super::{OCI_MANIFEST, Registry, has_or_skip, run, sha256};

fn archive(tree: &Path, path: &str) {
    run("tar", &["-C", &tree.display().to_string(), "-cf", path, "."]);
}

/// Pushes what a registry of a test has as `latest`; gives the manifest.
fn push(registry: &Registry, name: &str, content: &Content) -> Vec<u8> {
    for bytes in content.blobs.values() {
        registry.blob(name, bytes);
    }
    let manifest = content.manifests["latest"].1.clone();
    assert_eq!(registry.manifest(name, "latest", &manifest).status, 201);
    manifest
}

fn digests(manifest: &Value) -> Vec<&str> {
    let layers = manifest["layers"].as_array().expect("layers");
    layers.iter().filter_map(|layer| layer["digest"].as_str()).collect()
}

#[test]
fn archives_of_older_engines() {
    let registry = Registry::start();
    let directory = registry.directory.path();
    let (one, two) = (tar_of("one", 3000), gzip(&tar_of("two", 5000)));
    let config = |layers: &[Vec<u8>]| {
        let diff_ids: Vec<String> = layers.iter().map(|layer| sha256(layer)).collect();
        json!({"os": "linux", "architecture": "amd64", "rootfs": {"type": "layers", "diff_ids": diff_ids}})
            .to_string()
    };
    let (first, second) =
        (config(std::slice::from_ref(&one)), config(&[one.clone(), tar_of("two", 5000)]));
    let tree = directory.join("tree");
    // Layers that two images have are links in the second.
    for (name, bytes) in [("a/layer.tar", &one), ("c/layer.tar", &two)] {
        let path = tree.join(name);
        fs_err::create_dir_all(path.parent().expect("a directory")).expect("a directory");
        fs_err::write(&path, bytes).expect("a layer");
    }
    fs_err::create_dir(tree.join("b")).expect("a directory");
    symlink("../a/layer.tar", tree.join("b/layer.tar")).expect("a link");
    fs_err::write(tree.join("1.json"), &first).expect("a configuration");
    fs_err::write(tree.join("2.json"), &second).expect("a configuration");
    let manifest = json!([
        {"Config": "1.json", "RepoTags": ["x/app:1", "x/app:one"], "Layers": ["a/layer.tar"]},
        {"Config": "2.json", "RepoTags": ["x/app:2"], "Layers": ["b/layer.tar", "c/layer.tar"]},
    ]);
    fs_err::write(tree.join("manifest.json"), manifest.to_string()).expect("the manifest");
    let saved = directory.join("saved.tar").display().to_string();
    archive(&tree, &saved);
    let there = |name: &str| format!("{}/{name}", registry.address);
    let source = format!("docker-archive:{saved}");

    copy(directory, &[&format!("{source}:x/app:2"), &there("app:2")]);
    let found = registry.get("/v2/app/manifests/2").json();
    assert_eq!(found["config"]["digest"], sha256(second.as_bytes()));
    assert_eq!(digests(&found), [sha256(&one), sha256(&two)]);
    assert_eq!(found["layers"][0]["mediaType"], "application/vnd.oci.image.layer.v1.tar");
    assert_eq!(found["layers"][1]["mediaType"], "application/vnd.oci.image.layer.v1.tar+gzip");
    assert_eq!(registry.get(&format!("/v2/app/blobs/{}", sha256(&two))).body, two);
    let said = copy(directory, &["--all-tags", &source, &there("all")]);
    assert!(said.contains("3 tags (4 blobs sent, 0 were there)"), "{said}");
    assert_eq!(registry.get("/v2/all/tags/list").json()["tags"], json!(["1", "2", "one"]));
    let ones = ["1", "one"].map(|tag| registry.get(&format!("/v2/all/manifests/{tag}")).body);
    assert_eq!(ones[0], ones[1]);

    // Which is meant, what is no layout, and layers that are something else or not there, for one
    // who has them not.
    let other = Registry::start();
    let there = |name: &str| format!("{}/{name}", other.address);
    let error = fails(directory, &[&source, &there("no:1")]);
    assert!(error.contains("say which of :x/app:1, :x/app:one, :x/app:2"), "{error}");
    let error = fails(directory, &[&format!("oci-archive:{saved}"), &there("no:1")]);
    assert!(error.contains("no oci-layout; docker-archive: reads it"), "{error}");
    fs_err::write(tree.join("a/layer.tar"), tar_of("other", 3000)).expect("a layer");
    archive(&tree, &saved);
    let error = fails(directory, &[&format!("{source}:x/app:1"), &there("no:1")]);
    assert!(error.contains("its digest is sha256:"), "{error}");
    fs_err::remove_file(tree.join("a/layer.tar")).expect("no layer");
    archive(&tree, &saved);
    let error = fails(directory, &[&format!("{source}:x/app:1"), &there("no:1")]);
    assert!(error.contains("it has no a/layer.tar, which manifest.json names"), "{error}");
    assert_eq!(other.get("/v2/no/manifests/1").status, 404);
}

#[test]
fn archives_for_others() {
    let registry = Registry::start();
    let directory = registry.directory.path();
    let content = Content::of(&[tar_of("one", 3000), tar_of("two", 4000)]);
    let manifest = push(&registry, "app", &content);
    let there = |name: &str| format!("{}/{name}", registry.address);
    let path = |name: &str| directory.join(name).display().to_string();
    let ours = format!("docker-archive:{}", path("ours.tar"));
    copy(directory, &["-t", "2", &there("app"), &format!("{ours}:team/app:1")]);
    // What came through it is the same to the bit.
    copy(directory, &[&format!("{ours}:team/app:2"), &there("back:1")]);
    assert_eq!(registry.get("/v2/back/manifests/1").body, manifest);
    let listed = run("tar", &["-xOf", &path("ours.tar"), "manifest.json"]);
    let listed: Value = serde_json::from_str(&listed).expect("JSON");
    assert_eq!(listed[0]["RepoTags"], json!(["team/app:1", "team/app:2"]));
    // A layer that is nowhere cannot be in it.
    let mut foreign: Value = serde_json::from_slice(&manifest).expect("JSON");
    foreign["layers"][0] = json!({
        "mediaType": "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip",
        "digest": sha256(b"elsewhere"),
        "size": 9,
        "urls": ["https://nowhere.invalid/layer"],
    });
    let answer = registry.manifest("app", "foreign", foreign.to_string().as_bytes());
    assert_eq!(answer.status, 201, "{}", answer.text());
    let never = format!("docker-archive:{}", path("never.tar"));
    let error = fails(directory, &[&there("app:foreign"), &never]);
    assert!(error.contains("is elsewhere, as in images of Windows"), "{error}");
    assert!(!directory.join("never.tar").exists());
    if !has_or_skip("registryd::archives::archives_for_others", &["skopeo"]) {
        return;
    }
    let theirs = format!("docker-archive:{}:x/y:1", path("theirs.tar"));
    run("skopeo", &["copy", "-q", &format!("{ours}:team/app:2"), &theirs]);
    copy(directory, &[&theirs, &there("theirs:1")]);
    let found = registry.get("/v2/theirs/manifests/1").json();
    let manifest: Value = serde_json::from_slice(&manifest).expect("JSON");
    assert_eq!(found["config"]["digest"], manifest["config"]["digest"]);
}

#[test]
fn an_engine_and_back() {
    let engine = Engine::start_empty();
    if !engine.is_silo_or_skip("looks at Silo's own files") {
        return;
    }
    let registry = Registry::start_at(tempfile::tempdir().unwrap(), engine.data_root(), &[]);
    let content = Content::of(&[tar_of("one", 3000)]);
    let manifest = content.manifests["latest"].1.clone();
    let layer = digests(&serde_json::from_slice(&manifest).expect("JSON"))[0].to_owned();
    let content = Arc::new(Mutex::new(content));
    let server = Scripted::start(move |asked| content.lock().expect("content").answer(asked));
    let silo = |arguments: &[&str]| {
        let outcome = engine.silo(&[&["copy"], arguments].concat());
        engine.succeeded(&format!("copy {arguments:?}"), outcome).stdout
    };
    let there = |name: &str| format!("{}/{name}", registry.address);

    silo(&[&format!("{}/app", server.address()), "docker-daemon:got:1"]);
    assert!(engine.ok(&["images", "got:1"]).contains("got"));
    // Of what the engine has, the registry on its data root gets another name, not a copy.
    silo(&["docker-daemon:got:1", &there("back:1")]);
    assert_eq!(registry.get("/v2/back/manifests/1").body, manifest);
    let own = engine.data_root().join("content/blobs").join(layer.replace(':', "/"));
    let inode = |path: &Path| fs_err::metadata(path).expect("a file").ino();
    assert_eq!(inode(&own), inode(&registry.file(&layer)));
    // A layout is its owner's alone.
    let layout = registry.directory.path().join("layout");
    silo(&[&there("back:1"), &format!("oci:{}", layout.display())]);
    let copied = layout.join("blobs").join(layer.replace(':', "/"));
    assert_ne!(inode(&own), inode(&copied));
    assert_eq!(fs_err::read(&copied).expect("a layer"), fs_err::read(&own).expect("a layer"));
    // And from there the registry has it at once.
    engine.ok(&["rmi", "got:1"]);
    silo(&[&format!("oci:{}", layout.display()), "docker-daemon:again"]);
    assert_eq!(inode(&own), inode(&registry.file(&layer)));
    let failed = engine.silo(&["copy", "docker-daemon:none", &there("none:1")]);
    assert_eq!(failed.code, 1);
    assert!(failed.stderr.contains("No such image: none"), "{}", failed.stderr);
}

#[test]
fn several_tags_and_platforms() {
    let registry = Registry::start();
    let directory = registry.directory.path();
    let there = |name: &str| format!("{}/{name}", registry.address);
    let mut entries = Vec::new();
    for (number, platform) in ["linux/amd64", "linux/arm64", "windows/amd64"].iter().enumerate() {
        let content = Content::of(&[tar_of(platform, 1000 + number)]);
        let manifest = push(&registry, "app", &content);
        registry.manifest("app", &format!("v{number}"), &manifest);
        let (os, architecture) = platform.split_once('/').expect("two words");
        entries.push(json!({
            "mediaType": OCI_MANIFEST,
            "digest": sha256(&manifest),
            "size": manifest.len(),
            "platform": {"os": os, "architecture": architecture},
        }));
    }
    let index = json!({"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": entries});
    let kind = [("Content-Type", OCI_INDEX)];
    let answer = registry.send("PUT", "/v2/app/manifests/all", &kind, index.to_string().as_bytes());
    assert_eq!(answer.status, 201, "{}", answer.text());
    let tags = json!(["all", "latest", "v0", "v1", "v2"]);

    // Within the registry, into a layout, and back.
    let said = copy(directory, &["-a", &there("app"), &there("other")]);
    assert!(said.contains("/other:v1: digest: sha256:"), "{said}");
    assert!(said.contains("5 tags (0 blobs sent, 6 were there)"), "{said}");
    assert_eq!(registry.get("/v2/other/tags/list").json()["tags"], tags);
    let layout = format!("oci:{}", directory.join("layout").display());
    let said = copy(directory, &["-a", &there("app"), &layout]);
    assert!(said.contains("5 tags (6 blobs sent, 0 were there)"), "{said}");
    let digests = copy(directory, &["-a", "-q", &layout, &there("back")]);
    assert_eq!(digests.lines().count(), 5, "{digests}");
    assert_eq!(registry.get("/v2/back/tags/list").json()["tags"], tags);
    assert_eq!(registry.get("/v2/back/manifests/all").body, index.to_string().as_bytes());
    let error = fails(directory, &["-a", &there("app:v1"), &there("x")]);
    assert!(error.contains("all tags are copied, it cannot have one"), "{error}");
    let error = fails(directory, &["-a", &there("nothing"), &there("x")]);
    assert!(error.contains("nothing"), "{error}");

    // Two platforms of three, and more names for it.
    let more = ["-t", "x", "-t", "y", "--platform", "linux/arm64", "--platform", "windows/amd64"];
    let (from, to) = (there("app:all"), there("two:1"));
    let digest = copy(directory, &[&["-q"], &more[..], &[&from, &to]].concat());
    for tag in ["1", "x", "y"] {
        let found = registry.get(&format!("/v2/two/manifests/{tag}"));
        assert_eq!(sha256(&found.body), digest.trim(), "{tag}");
        assert_eq!(found.json()["manifests"], json!(entries[1..]), "{tag}");
    }
}
