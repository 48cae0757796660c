//! Mirrors that are dead, empty, closed or lie.

use std::io::{BufRead as _, BufReader};
use std::process::{Child, Command, Stdio};

use silo_tests::{
    Asked, Content, Engine, Registry, Reply, Scripted, alone, feed, silo_binary, tar_of,
};

use super::{faulty, impatient, unfinished};

/// Something that ends with the test.
struct Ending(Child);

impl Drop for Ending {
    fn drop(&mut self) {
        self.0.kill().ok();
        self.0.wait().ok();
    }
}

/// `docker-registry` with `lib/app:1`.
fn origin() -> Option<Registry> {
    let registry = Registry::start_or_skip()?;
    let engine = Engine::start_empty();
    if !engine.is_silo_or_skip("the mirrors are for one engine alone") {
        return None;
    }
    let name = registry.name("lib/app:1");
    let mut import = engine.docker_command();
    feed(import.args(["import", "-", &name]), &tar_of("file", 100_000));
    engine.ok(&["push", &name]);
    Some(registry)
}

/// Silo's registry in front of another.
fn keeping(url: &str, root: &std::path::Path) -> (Ending, String) {
    let mut child = alone(Command::new(silo_binary()))
        .args(["registry", "serve", "--listen", "127.0.0.1:0", "--ready-on-stdout", "--root"])
        .arg(root)
        .args(["--proxy", url])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .expect("start silo registry");
    let output = child.stdout.take().expect("its output");
    let child = Ending(child);
    let mut line = String::new();
    BufReader::new(output).read_line(&mut line).expect("its address");
    let address = line.trim().split_once("://").expect("an address").1.to_owned();
    (child, address)
}

/// A mirror that leads to another server, and changes what comes from there.
fn lying(of: &Registry, change: fn(&Asked, &mut Reply)) -> Scripted {
    let mut content = Content::default();
    let engine = Engine::start_empty();
    let _image = engine.ok(&["pull", "-q", &of.name("lib/app:1")]);
    let look = |path: &str| {
        let output = Command::new("curl")
            .args(["-s", "-H", "Accept: application/vnd.oci.image.manifest.v1+json"])
            .args(["-H", "Accept: application/vnd.docker.distribution.manifest.v2+json"])
            .arg(format!("http://{}/v2/lib/app/{path}", of.address()))
            .output();
        output.expect("run curl").stdout
    };
    let bytes = look("manifests/1");
    let manifest: serde_json::Value = serde_json::from_slice(&bytes).expect("a manifest");
    let kind = manifest["mediaType"].as_str().expect("a type").to_owned();
    content.add_manifest("1", &kind, bytes);
    let layers = manifest["layers"].as_array().expect("layers").iter();
    for blob in layers.chain([&manifest["config"]]) {
        let blob = look(&format!("blobs/{}", blob["digest"].as_str().expect("a digest")));
        content.add_blob("", blob);
    }
    let (server, _) = faulty(content, move |asked, content| {
        let mut reply = content.clone().answer(asked);
        change(asked, &mut reply);
        Some(reply)
    });
    server
}

/// Pulls `lib/app:1` of Docker Hub by these mirrors, by options and by `hosts.toml`.
fn pull_by(mirrors: &[String]) {
    for by_file in [false, true] {
        let mut engine = impatient();
        let folder = engine.scratch().join("certs.d");
        engine.add_option("--registry-certs");
        engine.add_option(folder.to_str().expect("a path"));
        if by_file {
            let (last, before) = mirrors.split_last().expect("a mirror");
            let mut text = vec![format!("server = \"{last}\"\n")];
            for mirror in before {
                let can = "capabilities = [\"pull\", \"resolve\"]";
                text.push(format!("[host.\"{mirror}\"]\n{can}\n"));
            }
            let text = text.concat();
            fs_err::create_dir_all(folder.join("docker.io")).expect("a directory");
            fs_err::write(folder.join("docker.io/hosts.toml"), text).expect("a file");
        } else {
            for mirror in mirrors {
                engine.add_option(format!("--registry-mirror={mirror}"));
            }
        }
        engine.start_daemon();
        let outcome = engine.docker(&["pull", "lib/app:1"]);
        assert_eq!(outcome.code, 0, "by file: {by_file}: {}", outcome.stderr);
        assert!(
            outcome.stdout.contains("Downloaded newer image for lib/app:1"),
            "{}",
            outcome.stdout
        );
        assert!(unfinished(&engine).is_empty(), "{:?}", unfinished(&engine));
    }
}

#[test]
fn the_next_server_is_asked() {
    let Some(registry) = origin() else { return };
    let good = format!("http://{}", registry.address());
    let empty = Scripted::start(|_| Reply::refusal(404, "MANIFEST_UNKNOWN"));
    let closed = Scripted::start(|_| {
        Reply::new(401, "").header("WWW-Authenticate", "Basic realm=\"mirror\"")
    });
    let failing = Scripted::start(|_| Reply::new(500, ""));
    let elsewhere =
        Scripted::start(|_| Reply::new(200, "<html>").header("Content-Type", "text/html"));
    let dead = "http://127.0.0.1:1".to_owned();
    let url = |server: &Scripted| format!("http://{}", server.address());
    pull_by(&[dead, url(&empty), url(&closed), url(&failing), url(&elsewhere), good]);
    for server in [&empty, &closed, &failing, &elsewhere] {
        assert_eq!(server.asked().len(), 2, "{:?}", server.asked());
        assert!(server.asked().iter().all(|asked| asked.header("authorization").is_empty()));
    }
}

#[test]
fn mirrors_that_lie_are_left() {
    let Some(registry) = origin() else { return };
    let good = format!("http://{}", registry.address());
    let manifests = lying(&registry, |asked, reply| {
        if asked.target.contains("/manifests/") {
            reply.body.push(b' ');
        }
    });
    let layers = lying(&registry, |asked, reply| {
        if asked.target.contains("/blobs/") && reply.body.starts_with(&[0x1f, 0x8b]) {
            let middle = reply.body.len() / 2;
            reply.body[middle] ^= 1;
        }
    });
    let url = |server: &Scripted| format!("http://{}", server.address());
    pull_by(&[url(&manifests), url(&layers), good]);
    assert!(layers.asked().iter().any(|asked| asked.target.contains("/blobs/")));
}

#[test]
fn a_mirror_that_keeps_what_another_has() {
    let Some(registry) = origin() else { return };
    let directory = tempfile::tempdir().expect("a directory");
    let good = format!("http://{}", registry.address());
    let (mirror, address) = keeping(&good, directory.path());
    pull_by(&[format!("http://{address}"), good.clone()]);
    // The other one is gone, and what is kept is still there.
    drop(registry);
    pull_by(&[format!("http://{address}"), good]);
    drop(mirror);
}
