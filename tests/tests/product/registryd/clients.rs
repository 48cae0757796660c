//! Other people's clients.

use std::path::Path;

use super::{Registry, has_or_skip, run};

/// An archive `image.tar` and an OCI layout of one small image; gives the layout's name for skopeo.
fn layout(directory: &Path) -> String {
    let tree = directory.join("tree");
    silo_tests::busybox_tree(&tree);
    let path = directory.join("image.tar");
    let silo = silo_tests::Engine::start_empty();
    let tar = std::process::Command::new("tar")
        .arg("-C")
        .arg(&tree)
        .args(["-c", "."])
        .output()
        .expect("run tar");
    let name = silo.name("image");
    let outcome = silo.docker_with_input(&["import", "-", &name], &tar.stdout);
    assert_eq!(outcome.code, 0, "{}", outcome.stderr);
    silo.ok(&["save", "-o", path.to_str().unwrap(), &name]);
    let layout = directory.join("layout");
    let to = format!("oci:{}:image", layout.display());
    run("skopeo", &["copy", "-q", &format!("docker-archive:{}", path.display()), &to]);
    to
}

#[test]
fn skopeo() {
    if !has_or_skip("registryd::clients::skopeo", &["skopeo"]) {
        return;
    }
    let registry = Registry::start();
    let source = layout(registry.directory.path());
    let there = |name: &str| format!("docker://{}/{name}", registry.address);
    let copy = |from: &str, to: &str| {
        let plain = ["copy", "-q", "--src-tls-verify=false", "--dest-tls-verify=false"];
        run("skopeo", &[&plain[..], &["--all", from, to]].concat())
    };
    copy(&source, &there("team/app:v1"));
    copy(&there("team/app:v1"), &there("team/mirror:v1"));
    let back = registry.directory.path().join("back");
    copy(&there("team/mirror:v1"), &format!("oci:{}:image", back.display()));
    let raw = |image: &str| run("skopeo", &["inspect", "--raw", "--tls-verify=false", image]);
    let manifest = raw(&source);
    assert_eq!(raw(&format!("oci:{}:image", back.display())), manifest);
    assert_eq!(raw(&there("team/mirror:v1")), manifest);
    let mirror = format!("docker://{}/team/mirror", registry.address);
    let tags = run("skopeo", &["list-tags", "--tls-verify=false", &mirror]);
    assert!(tags.contains("\"v1\""), "{tags}");
    run("skopeo", &["delete", "--tls-verify=false", &there("team/mirror:v1")]);
    assert_eq!(registry.get("/v2/team/mirror/manifests/v1").status, 404);
    assert_eq!(registry.get("/v2/team/app/manifests/v1").status, 200);
}

#[test]
fn podman_and_buildah() {
    if !has_or_skip("registryd::clients::podman_and_buildah", &["skopeo"]) {
        return;
    }
    let Some(store) = silo_tests::Podman::new_or_skip() else { return };
    let registry = Registry::start();
    layout(registry.directory.path());
    let podman = |arguments: &[&str]| store.ok(arguments);
    let image = format!("{}/p/app", registry.address);
    let archive = registry.directory.path().join("image.tar").display().to_string();
    podman(&["load", "-q", "-i", &archive]);
    let id = podman(&["images", "-q", "--no-trunc"]);
    let id = id.trim().trim_start_matches("sha256:");
    let push = ["push", "-q", "--tls-verify=false"];
    podman(&[&push[..], &[id, &format!("docker://{image}:gzip")]].concat());
    let zstd = ["--compression-format", "zstd", id];
    podman(&[&push[..], &zstd[..], &[&format!("docker://{image}:zstd")]].concat());
    store.buildah(&[&push[..], &[id, &format!("docker://{image}:buildah")]].concat());
    podman(&["rmi", "-f", id]);
    for tag in ["gzip", "zstd", "buildah"] {
        let name = format!("{image}:{tag}");
        podman(&["pull", "-q", "--tls-verify=false", &name]);
        let config = podman(&["image", "inspect", "-f", "{{.Id}}", &name]);
        assert_eq!(config.trim(), id, "{tag}");
    }
    let tags = registry.get("/v2/p/app/tags/list").json()["tags"].clone();
    assert_eq!(tags, serde_json::json!(["buildah", "gzip", "zstd"]));
    podman(&["rmi", "-af"]);
}

#[test]
fn tls_and_passwords() {
    if !has_or_skip("registryd::clients::tls_and_passwords", &["openssl", "curl"]) {
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let path = |name: &str| directory.path().join(name).display().to_string();
    let (cert, key, users) = (path("cert.pem"), path("key.pem"), path("users"));
    let request = ["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1"];
    let subject = ["-nodes", "-days", "2", "-subj", "/CN=test"];
    let names = ["-addext", "subjectAltName=IP:127.0.0.1", "-keyout", &key, "-out", &cert];
    run("openssl", &[&request[..], &subject, &names].concat());
    // The password is "secret", hashed at cost 4 by the C library.
    fs_err::write(&users, format!("ann:{HASH}\n")).unwrap();
    let options = ["--tls-cert", &cert, "--tls-key", &key, "--htpasswd", &users];
    let registry = Registry::start_with(&options);
    let url = format!("https://{}/v2/", registry.address);
    let status = |more: &[&str]| {
        let plain = ["-s", "-o", "/dev/null", "-w", "%{http_code}", "--cacert", &cert];
        run("curl", &[&plain[..], more, &[&url]].concat())
    };
    assert_eq!(status(&[]), "401");
    assert_eq!(status(&["-u", "ann:wrong"]), "401");
    assert_eq!(status(&["-u", "bob:secret"]), "401");
    assert_eq!(status(&["-u", "ann:secret"]), "200");
    let challenge = run("curl", &["-s", "-i", "--cacert", &cert, &url]);
    assert!(challenge.to_lowercase().contains("www-authenticate: basic realm="), "{challenge}");
    assert!(challenge.contains("UNAUTHORIZED"), "{challenge}");
    // Users that are added are known at once.
    fs_err::write(&users, format!("ann:{HASH}\nbob:{HASH}\n")).unwrap();
    assert_eq!(status(&["-u", "bob:secret"]), "200");
    if !has_or_skip("registryd::clients::tls_and_passwords (skopeo)", &["skopeo"]) {
        return;
    }
    let source = layout(directory.path());
    let there = format!("docker://{}/a:v1", registry.address);
    let trusted = path("trusted");
    fs_err::create_dir(&trusted).unwrap();
    fs_err::copy(&cert, format!("{trusted}/ca.crt")).unwrap();
    let copy = ["copy", "-q", "--dest-cert-dir", &trusted, "--dest-creds", "ann:secret"];
    run("skopeo", &[&copy[..], &[&source, &there]].concat());
    let inspect = ["inspect", "--cert-dir", &trusted, "--creds", "ann:secret", &there];
    assert!(run("skopeo", &inspect).contains("\"Digest\""));
}

pub(crate) const HASH: &str = "$2y$04$abcdefghijklmnopqrstuu2r9OfJnfCsdneAXAGHnS4UpFFP8WIrW";
