//! The engine's own images, served to others without a push.

use std::process::Command;

use silo_tests::{Engine, Podman};

use super::shapes::{Parts, attested, silo_engine};
use super::{Layer, OCI_INDEX, Remote, Shape, tar_of, userland};
use crate::registryd::{self, Registry, has_or_skip, run, sha256};

/// A registry on an engine's data root that serves its images.
fn registry_of(engine: &Engine, options: &[&str]) -> Registry {
    let directory = tempfile::tempdir().expect("a directory");
    let options = [&["--engine-images"], options].concat();
    Registry::start_at(directory, engine.data_root(), &options)
}

/// An engine with an image that it has only unpacked, one that came compressed, and one whose
/// layers the engine had in another form before it came.
fn engine() -> Option<Engine> {
    let engine = silo_engine()?;
    let elsewhere = Registry::start();
    let remote = Remote::new(&elsewhere.address);
    let base = userland();
    let outcome = engine.docker_with_input(&["import", "-", "base"], &base);
    assert_eq!(outcome.code, 0, "{}", outcome.stderr);
    let container = engine.ok(&["create", "base", "sh", "-c", "echo made > /said"]);
    engine.ok(&["start", "-a", &container]);
    engine.ok(&["commit", &container, "team/made:v1"]);
    engine.ok(&["rm", &container]);
    // The same userland compressed, which the engine does not fetch, and a layer which it does.
    let said = Layer::gzip(&tar_of(&[("said", "came\n")]));
    Shape::oci(&[&Layer::gzip(&base), &said]).push(&remote, "came", "v1");
    let came = remote.name("came:v1");
    engine.ok(&["pull", "-q", &came]);
    engine.ok(&["tag", &came, "quay.io/team/came:v1"]);
    engine.ok(&["rmi", &came]);
    Some(engine)
}

#[test]
fn pulled_by_everybody() {
    let test = "interop::engine_images::pulled_by_everybody";
    let Some(podman) = Podman::new_or_skip() else { return };
    if !has_or_skip(test, &["skopeo"]) {
        return;
    }
    let Some(engine) = engine() else { return };
    let registry = registry_of(&engine, &[]);
    let address = &registry.address;
    let other = Engine::start_empty();
    for (name, said) in [("engine/team/made:v1", "made"), ("engine/quay.io/team/came:v1", "came")] {
        let image = format!("{address}/{name}");
        assert_eq!(podman.run(&image, &["cat", "/said"]), said, "{image}");
        let run = ["run", "--rm", "--network", "none", &image, "cat", "/said"];
        assert_eq!(other.ok(&run), said, "{image}");
        let own = name.trim_start_matches("engine/");
        let id = ["inspect", "-f", "{{.Id}}"];
        assert_eq!(
            other.ok(&[&id[..], &[&image]].concat()),
            engine.ok(&[&id[..], &[own]].concat())
        );
    }
    // A name that the engine gets is there at once, and one that it loses is not, also when the
    // engine does not run.
    let tags = |name: &str| registry.get(&format!("/v2/engine/{name}/tags/list"));
    engine.ok(&["tag", "base", "new/name:1"]);
    assert_eq!(tags("new/name").json()["tags"], serde_json::json!(["1"]));
    engine.ok(&["rmi", "new/name:1"]);
    assert_eq!(tags("new/name").status, 404);
    let repositories = registry.get("/v2/_catalog").json()["repositories"].clone();
    let all = ["engine/base", "engine/quay.io/team/came", "engine/team/made"];
    assert_eq!(repositories, serde_json::json!(all));
    let page = registry.get("/v2/_catalog?n=1&last=engine/base").json()["repositories"].clone();
    assert_eq!(page, serde_json::json!(all[1..2]));
    let layout = registry.directory.path().join("layout");
    let from = format!("docker://{address}/engine/quay.io/team/came:v1");
    let to = format!("oci:{}:x", layout.display());
    run("skopeo", &["copy", "-q", "--src-tls-verify=false", &from, &to]);
}

#[test]
fn every_byte_is_what_its_digest_says() {
    let Some(mut engine) = engine() else { return };
    let registry = registry_of(&engine, &[]);
    // The engine need not run.
    engine.stop_daemon();
    let mut made = 0;
    for name in
        ["base/manifests/latest", "team/made/manifests/v1", "quay.io/team/came/manifests/v1"]
    {
        let (repository, _) = name.split_once("/manifests/").expect("a manifest");
        let answer = registry.get(&format!("/v2/engine/{name}"));
        let digest = answer.header("docker-content-digest").expect("a digest").to_owned();
        assert_eq!(sha256(&answer.body), digest);
        let again = registry.get(&format!("/v2/engine/{repository}/manifests/{digest}"));
        assert_eq!(again.body, answer.body);
        let manifest = answer.json();
        let mut blobs = manifest["layers"].as_array().expect("layers").clone();
        blobs.push(manifest["config"].clone());
        for blob in &blobs {
            let digest = blob["digest"].as_str().expect("a digest");
            let path = format!("/v2/engine/{repository}/blobs/{digest}");
            let whole = registry.get(&path);
            assert_eq!(sha256(&whole.body), digest, "{blob}");
            assert_eq!(Some(whole.body.len() as u64), blob["size"].as_u64(), "{blob}");
            let head = registry.send("HEAD", &path, &[], b"");
            assert_eq!(head.header("content-length"), whole.header("content-length"), "{blob}");
            let part = registry.send("GET", &path, &[("Range", "bytes=10-600")], b"");
            let end = whole.body.len().min(601);
            assert_eq!((part.status, &part.body[..]), (206, &whole.body[10..end]), "{blob}");
            made += usize::from(blob["mediaType"] == super::OCI_LAYER);
        }
        // What no image of the repository has is not there, though the engine has it.
        let other = if repository == "base" { "team/made" } else { "base" };
        let top = blobs[blobs.len() - 2]["digest"].as_str().expect("a digest");
        let status = registry.get(&format!("/v2/engine/{other}/blobs/{top}")).status;
        assert_eq!(status, if repository == "base" { 200 } else { 404 }, "{name}");
    }
    assert!(made >= 4, "{made}");
}

#[test]
fn all_platforms_that_are_there() {
    let Some(engine) = silo_engine() else { return };
    let elsewhere = Registry::start();
    let remote = Remote::new(&elsewhere.address);
    let (entries, _) = attested(&remote, "multi", &Parts::new());
    let push = |tag: &str, entries: &[serde_json::Value]| {
        let index = serde_json::json!({
            "schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": entries, "annotations": {},
        });
        let pushed = remote.manifest("multi", tag, OCI_INDEX, &index);
        (pushed["digest"].as_str().expect("a digest").to_owned(), index.to_string())
    };
    let entries = entries.as_array().expect("entries");
    let (whole, bytes) = push("whole", &entries[..2]);
    let (proven, with_proof) = push("proven", entries);
    for tag in ["whole", "proven"] {
        let image = remote.name(&format!("multi:{tag}"));
        for platform in ["linux/amd64", "linux/arm64"] {
            engine.ok(&["pull", "-q", "--platform", platform, &image]);
        }
        engine.ok(&["tag", &image, &format!("team/multi:{tag}")]);
    }
    let registry = registry_of(&engine, &[]);
    let manifest =
        |reference: &str| registry.get(&format!("/v2/engine/team/multi/manifests/{reference}"));
    // What is here with all that it names goes out bit for bit.
    for reference in ["whole", &whole] {
        let answer = manifest(reference);
        assert_eq!(answer.header("docker-content-digest"), Some(&whole[..]), "{reference}");
        assert_eq!(answer.header("content-type"), Some(OCI_INDEX), "{reference}");
        assert_eq!(answer.text().split('\n').next_back(), Some(&bytes[..]), "{reference}");
    }
    // The proof is not here: the index is another, unless somebody has the digest of this one.
    assert_eq!(manifest(&proven).body, with_proof.as_bytes());
    let answer = manifest("proven");
    assert_ne!(answer.header("docker-content-digest"), Some(&proven[..]));
    let names = |index: &serde_json::Value| -> Vec<String> {
        let entries = index["manifests"].as_array().expect("entries").iter();
        entries.map(|entry| entry["digest"].to_string()).collect()
    };
    assert_eq!(names(&answer.json()), names(&manifest("whole").json()));
    let other = Engine::start_empty();
    for platform in ["linux/amd64", "linux/arm64"] {
        for tag in ["whole", "proven"] {
            let image = format!("{}/engine/team/multi:{tag}", registry.address);
            other.ok(&["pull", "-q", "--platform", platform, &image]);
            let create = ["create", "--pull", "never", "--platform", platform, &image, "x"];
            let container = other.ok(&create);
            other.ok(&["rm", &container]);
        }
    }
    if has_or_skip("interop::engine_images::all_platforms_that_are_there", &["skopeo"]) {
        let layout = registry.directory.path().join("layout");
        let from = format!("docker://{}/engine/team/multi:whole", registry.address);
        let to = format!("oci:{}:x", layout.display());
        run("skopeo", &["copy", "-q", "--all", "--src-tls-verify=false", &from, &to]);
        assert!(layout.join("blobs/sha256").join(whole.trim_start_matches("sha256:")).is_file());
    }
}

#[test]
fn only_to_be_pulled() {
    let Some(engine) = engine() else { return };
    let directory = tempfile::tempdir().expect("a directory");
    let path = |name: &str| directory.path().join(name).display().to_string();
    let hash = registryd::clients::HASH;
    fs_err::write(path("users"), format!("ann:{hash}\nbob:{hash}\n")).expect("a file");
    fs_err::write(path("access"), "ann delete **\nbob pull engine/team/*\n").expect("a file");
    let options = ["--htpasswd", &path("users"), "--access", &path("access")];
    let registry = registry_of(&engine, &options);
    let ask = |user: &str, method: &str, target: &str| {
        let basic = match user {
            "ann" => "Basic YW5uOnNlY3JldA==",
            _ => "Basic Ym9iOnNlY3JldA==",
        };
        registry.send(method, target, &[("Authorization", basic)], b"")
    };
    assert_eq!(ask("bob", "GET", "/v2/engine/team/made/manifests/v1").status, 200);
    assert_eq!(ask("bob", "GET", "/v2/engine/base/manifests/latest").status, 403);
    let seen = ask("bob", "GET", "/v2/_catalog").json()["repositories"].clone();
    assert_eq!(seen, serde_json::json!(["engine/team/made"]));
    for (method, target) in [
        ("POST", "/v2/engine/team/made/blobs/uploads/"),
        ("PUT", "/v2/engine/team/made/manifests/v2"),
        ("DELETE", "/v2/engine/team/made/manifests/v1"),
        ("POST", "/v2/engine/blobs/uploads/"),
    ] {
        assert_eq!(ask("ann", method, target).status, 405, "{method} {target}");
    }
    // A compressed layer is taken into a repository without being sent.
    let manifest = ask("ann", "GET", "/v2/engine/quay.io/team/came/manifests/v1").json();
    let layer = manifest["layers"][1]["digest"].as_str().expect("a digest");
    let mount = |user: &str| {
        let from = "engine/quay.io/team/came";
        ask(user, "POST", &format!("/v2/own/app/blobs/uploads/?mount={layer}&from={from}")).status
    };
    assert_eq!((mount("ann"), mount("bob")), (201, 403));
    // Without the option, nothing of it is there.
    drop(registry);
    let silent = Registry::start_at(directory, engine.data_root(), &[]);
    assert_eq!(silent.get("/v2/engine/team/made/manifests/v1").status, 404);
    let odd = Command::new(silo_tests::silo_binary())
        .args(["registry", "serve", "--listen", "127.0.0.1:0", "--engine-images=A/../b", "--root"])
        .arg(engine.scratch())
        .output()
        .expect("run silo");
    assert!(!odd.status.success());
    assert!(String::from_utf8_lossy(&odd.stderr).contains("invalid repository name"), "{odd:?}");
}
