//! `silo copy`: images between registries, layouts and archives.

use std::path::Path;
use std::process::{Command, Output};
use std::sync::{Arc, Mutex};

use serde_json::{Value, json};
use silo_tests::{Content, Reply, Scripted};

use super::{OCI_MANIFEST, Registry, has_or_skip, noise, run, sha256};

const OCI_INDEX: &str = "application/vnd.oci.image.index.v1+json";

pub(super) fn try_copy(directory: &Path, arguments: &[&str]) -> Output {
    silo_tests::alone(Command::new(silo_tests::silo_binary()))
        .env("DOCKER_CONFIG", directory.join("docker-config"))
        .arg("copy")
        .args(arguments)
        .output()
        .expect("run silo copy")
}

/// Copies; gives what is said at the end.
pub(super) fn copy(directory: &Path, arguments: &[&str]) -> String {
    let output = try_copy(directory, arguments);
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{arguments:?}: {errors}");
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// Fails to copy; gives what is said of it.
pub(super) fn fails(directory: &Path, arguments: &[&str]) -> String {
    let output = try_copy(directory, arguments);
    assert_eq!(output.status.code(), Some(1), "{arguments:?}");
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// An index `app/one:1` of two images, one of them with a layer that is elsewhere, and a
/// signature of it; gives its bytes.
fn fill(registry: &Registry) -> Vec<u8> {
    let foreign = json!({
        "mediaType": "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip",
        "digest": sha256(b"elsewhere"),
        "size": 9,
        "urls": ["https://nowhere.invalid/layer"],
    });
    let linux = registry.image("app/one", "linux", &noise(1, 300_000), &json!({}));
    let config = registry.blob("app/one", br#"{"os":"windows","architecture":"amd64"}"#);
    let layer = registry.blob("app/one", b"app");
    let windows = json!({
        "schemaVersion": 2,
        "mediaType": OCI_MANIFEST,
        "config": {"mediaType": "application/vnd.oci.image.config.v1+json", "digest": config, "size": 39},
        "layers": [foreign, {"mediaType": "x/y", "digest": layer, "size": 3}],
    })
    .to_string();
    let answer = registry.manifest("app/one", "windows", windows.as_bytes());
    assert_eq!(answer.status, 201, "{}", answer.text());
    let entry = |digest: &str, size: usize, os: &str| {
        json!({
            "mediaType": OCI_MANIFEST,
            "digest": digest,
            "size": size,
            "platform": {"os": os, "architecture": "amd64"},
        })
    };
    let size = registry.get(&format!("/v2/app/one/manifests/{linux}")).body.len();
    let entries = [
        entry(&linux, size, "linux"),
        entry(&sha256(windows.as_bytes()), windows.len(), "windows"),
    ];
    // Space that nobody would write again.
    let index = format!(
        "{{ \"schemaVersion\": 2,\n\n\"mediaType\":\"{OCI_INDEX}\", \"manifests\": {} }}",
        json!(entries)
    );
    let answer = registry.send(
        "PUT",
        "/v2/app/one/manifests/1",
        &[("Content-Type", OCI_INDEX)],
        index.as_bytes(),
    );
    assert_eq!(answer.status, 201, "{}", answer.text());
    let subject =
        json!({"mediaType": OCI_INDEX, "digest": sha256(index.as_bytes()), "size": index.len()});
    let more = json!({"subject": subject, "artifactType": "application/x.signature"});
    registry.image("app/one", "s", b"a signature", &more);
    let answer = registry.send("DELETE", "/v2/app/one/manifests/s", &[], b"");
    assert!([202, 404, 405].contains(&answer.status), "{}", answer.text());
    index.into_bytes()
}

#[test]
fn everywhere_and_back() {
    let registry = Registry::start();
    let directory = registry.directory.path();
    let index = fill(&registry);
    let digest = sha256(&index);
    let there = |name: &str| format!("{}/{name}", registry.address);
    let path = |name: &str| directory.join(name).display().to_string();
    // Within a registry nothing is sent.
    let said = copy(directory, &[&there("app/one:1"), &there("app/two:2")]);
    assert!(said.contains(&format!("digest: {digest} (0 blobs sent, 4 were there)")), "{said}");
    assert_eq!(registry.get("/v2/app/two/manifests/2").body, index);
    // To a layout, with what is about the image.
    let layout = format!("oci:{}:1", path("layout"));
    let said = copy(directory, &["--referrers", &there("app/one:1"), &layout]);
    assert!(said.contains("(5 blobs sent, 0 were there, 1 manifest about the image)"), "{said}");
    let blob = directory.join("layout/blobs").join(digest.replace(':', "/"));
    assert_eq!(fs_err::read(blob).expect("the index"), index);
    let again = copy(directory, &["--referrers", &there("app/one:1"), &layout]);
    assert!(again.contains("(0 blobs sent, 5 were there"), "{again}");
    assert!(!directory.join("layout/.partial").exists());
    // Into an archive and to another registry, which knows of no referrers.
    let archive = format!("oci-archive:{}:x", path("layout.tar"));
    copy(directory, &["--referrers", &layout, &archive]);
    if let Some(debian) = silo_tests::Registry::start_or_skip() {
        let elsewhere = debian.name("team/app:1");
        copy(directory, &["--referrers", "-q", &archive, &elsewhere]);
        let again = copy(directory, &["--referrers", &archive, &elsewhere]);
        assert!(again.contains("(0 blobs sent, 2 were there"), "{again}");
        // And back to one that does.
        let home = there("home/app:1");
        assert_eq!(copy(directory, &["-q", "--referrers", &elsewhere, &home]).trim(), digest);
        assert_eq!(registry.get("/v2/home/app/manifests/1").body, index);
        let about = registry.get(&format!("/v2/home/app/referrers/{digest}")).json();
        assert_eq!(about["manifests"][0]["artifactType"], "application/x.signature", "{about}");
    }
    // One platform of it.
    let said =
        copy(directory, &["-q", "--platform", "windows/amd64", &archive, &there("app/windows:1")]);
    let windows = registry.get("/v2/app/windows/manifests/1");
    assert_eq!(sha256(&windows.body), said.trim());
    assert_eq!(windows.json()["layers"][0]["urls"][0], "https://nowhere.invalid/layer");
    let both = ["-q", "--platform", "windows/amd64,linux/amd64", &archive, &there("app/both:1")];
    assert_eq!(copy(directory, &both).trim(), digest);
    let error = fails(directory, &["--platform", "linux/s390x", &archive, &there("app/x:1")]);
    assert!(error.contains("no matching manifest for linux/s390x"), "{error}");
    assert!(error.contains("linux/amd64, windows/amd64"), "{error}");
}

#[test]
fn others_read_the_layouts() {
    if !has_or_skip("registryd::copies::others_read_the_layouts", &["skopeo"]) {
        return;
    }
    let registry = Registry::start();
    let directory = registry.directory.path();
    let index = fill(&registry);
    let path = |name: &str| directory.join(name).display().to_string();
    let from = format!("docker://{}/app/one:1", registry.address);
    let (layout, archive) =
        (format!("oci:{}:1", path("l")), format!("oci-archive:{}:1", path("l.tar")));
    copy(directory, &[&from, &layout]);
    copy(directory, &[&from, &archive]);
    for name in [&layout, &archive] {
        assert_eq!(run("skopeo", &["inspect", "--raw", name]).as_bytes(), index, "{name}");
    }
    // And theirs are read.
    let theirs = format!("oci-archive:{}:1", path("theirs.tar"));
    run("skopeo", &["copy", "-q", "--all", &layout, &theirs]);
    copy(directory, &[&theirs, &format!("{}/back:1", registry.address)]);
    assert_eq!(registry.get("/v2/back/manifests/1").body, index);
}

#[test]
fn what_is_wrong_is_said() {
    let registry = Registry::start();
    let directory = registry.directory.path();
    fill(&registry);
    let there = |name: &str| format!("{}/{name}", registry.address);
    let layout = directory.join("layout");
    let name = format!("oci:{}:1", layout.display());
    copy(directory, &[&there("app/one:1"), &name]);
    let target = there("new/app:1");
    let absent = sha256(b"absent");
    for (arguments, said) in [
        (&[there("app/one:no").as_str(), &target][..], "manifest unknown"),
        (&[&format!("oci:{}:no", layout.display()), &target], "it has no :no; it has :1"),
        (&[&format!("oci:{}", directory.display()), &target], "it is no OCI layout"),
        (&["oci-archive:/nonexistent.tar", &target], "`/nonexistent.tar`: No such file"),
        (&[&name, &format!("{}@{absent}", there("new/app"))], "but the image is sha256:"),
        (&["dir:x", &target], "can be copied"),
        (&["docker-archive:/nonexistent.tar", &target], "`/nonexistent.tar`: No such file"),
        (&["docker-daemon:UPPER", &target], "must be lowercase"),
        (&["-a", &name, &target], "all tags are copied, it cannot have one"),
        (&["-t", "a b", &name, &target], "\"a b\" is no tag"),
        (&[&name, &name], "are the same"),
        (&[&name, "UPPER"], "must be lowercase"),
        (&[&name, "127.0.0.1:1/x"], "connection refused"),
    ] {
        let error = fails(directory, arguments);
        assert!(error.contains(said), "{arguments:?}: {error}");
    }
    // Blobs that are not what they are called, too short, or not there, for one who has them not.
    let other = Registry::start();
    let target = format!("{}/new/app:1", other.address);
    let whole = sha256(&noise(1, 300_000));
    let blob = layout.join("blobs").join(whole.replace(':', "/"));
    let bytes = fs_err::read(&blob).expect("a layer");
    let mut wrong = bytes.clone();
    wrong[150_000] ^= 1;
    for (content, said) in [
        (Some(&wrong[..]), "its digest is sha256:"),
        (Some(&bytes[..1000]), "it has 1000 bytes where its descriptor says 300000"),
        (None, "it has no blob sha256:"),
    ] {
        match content {
            Some(content) => fs_err::write(&blob, content).expect("a wrong layer"),
            None => fs_err::remove_file(&blob).expect("no layer"),
        }
        let error = fails(directory, &[&name, &target]);
        assert!(error.contains(said), "{said}: {error}");
        assert_eq!(other.get("/v2/new/app/manifests/1").status, 404, "{said}");
        let archive = directory.join("never.tar");
        fails(directory, &[&name, &format!("oci-archive:{}", archive.display())]);
        assert!(!archive.exists(), "{said}");
    }
    // Nobody waits for a pipe, either.
    run("mkfifo", &[&blob.display().to_string()]);
    let error = fails(directory, &[&name, &target]);
    assert!(error.contains("is no regular file"), "{error}");
    fs_err::remove_file(&blob).expect("no pipe");
    // What has come in part goes on; if it is wrong, the next try begins anew.
    let partial = layout.join(".partial");
    fs_err::create_dir_all(&partial).expect("a directory");
    let hex = whole.trim_start_matches("sha256:");
    fs_err::write(partial.join(hex), &bytes[..200_000]).expect("a part");
    copy(directory, &[&there("app/one:1"), &name]);
    assert_eq!(fs_err::read(&blob).expect("a layer"), bytes);
    fs_err::remove_file(&blob).expect("a layer");
    fs_err::create_dir_all(&partial).expect("a directory");
    fs_err::write(partial.join(hex), &wrong[..200_000]).expect("a wrong part");
    let error = fails(directory, &[&there("app/one:1"), &name]);
    assert!(error.contains("its digest is sha256:"), "{error}");
    copy(directory, &[&there("app/one:1"), &name]);
    assert_eq!(fs_err::read(&blob).expect("a layer"), bytes);
}

#[test]
fn only_the_rest_is_fetched() {
    let directory = tempfile::tempdir().expect("a directory");
    let content = Content::of(&[silo_tests::tar_of("file", 100_000)]);
    let manifest: Value =
        serde_json::from_slice(&content.manifests["latest"].1).expect("a manifest");
    let layer = manifest["layers"][0]["digest"].as_str().expect("a digest").to_owned();
    let bytes = content.blobs[&layer].clone();
    let content = Arc::new(Mutex::new(content));
    let server = Scripted::start(move |asked| content.lock().expect("content").answer(asked));
    let partial = directory.path().join("layout/.partial");
    fs_err::create_dir_all(&partial).expect("a directory");
    let half = bytes.len() / 2;
    fs_err::write(partial.join(layer.trim_start_matches("sha256:")), &bytes[..half])
        .expect("a part");
    let target = format!("oci:{}", directory.path().join("layout").display());
    copy(directory.path(), &[&format!("{}/app", server.address()), &target]);
    let path = format!("/v2/app/blobs/{layer}");
    let asked: Vec<String> = server
        .asked()
        .iter()
        .filter(|asked| asked.path() == path)
        .map(|asked| asked.header("range").to_owned())
        .collect();
    assert_eq!(asked, [format!("bytes={half}-")]);
    // A registry that serves something else in its place is found out.
    let liar = Scripted::start(|asked| {
        let mut content = Content::of(&[silo_tests::tar_of("file", 1000)]);
        let mut reply = content.answer(asked);
        if asked.path().contains("/blobs/") && !reply.body.is_empty() {
            reply.body.reverse();
        }
        Reply { ..reply }
    });
    let archive = format!("oci-archive:{}", directory.path().join("x.tar").display());
    let error = fails(directory.path(), &[&format!("{}/app", liar.address()), &archive]);
    assert!(error.contains("its digest is sha256:"), "{error}");
    assert_eq!(fs_err::read_dir(directory.path()).expect("files").count(), 1);
}
