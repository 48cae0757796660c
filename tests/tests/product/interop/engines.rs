//! Images go from other engines to Silo, and from Silo to other engines.

use silo_tests::{Dockerd, Engine, Podman};

use super::{tar, userland};
use crate::registryd::{self, has_or_skip, run};

/// The registries that images go through: Debian's, if it is here, and Silo's own.
struct Registries {
    debian: Option<silo_tests::Registry>,
    silo: registryd::Registry,
}

impl Registries {
    fn start() -> Self {
        Self { debian: silo_tests::Registry::start_or_skip(), silo: registryd::Registry::start() }
    }

    fn addresses(&self) -> Vec<String> {
        let debian = self.debian.as_ref().map(|registry| registry.address().to_owned());
        debian.into_iter().chain([self.silo.address.clone()]).collect()
    }

    /// What goes through one of them: everything through Silo's, one through the other, since
    /// runs take their time.
    fn share<'a>(&self, address: &str, names: &'a [&'static str]) -> &'a [&'static str] {
        if address == self.silo.address { names } else { &names[..1] }
    }
}

/// What `cat /said` says in a container of an image.
fn says(engine: &Engine, image: &str) -> String {
    engine.ok(&["run", "--rm", "--network", "none", image, "cat", "/said"])
}

/// The names of images that Silo made in all its ways, each of which has `/said`.
fn made_by_silo(engine: &Engine) -> Vec<&'static str> {
    let scratch = engine.scratch();
    let base = userland();
    let outcome = engine.docker_with_input(&["import", "-", "base"], &base);
    assert_eq!(outcome.code, 0, "{}", outcome.stderr);
    // Committed.
    let container = engine.ok(&["create", "base", "sh", "-c", "echo committed > /said"]);
    engine.ok(&["start", "-a", &container]);
    engine.ok(&["commit", "-c", "ENV A=b", &container, "committed"]);
    engine.ok(&["rm", &container]);
    // Imported, and then saved and loaded again.
    let tree = scratch.join("imported");
    fs_err::create_dir(&tree).expect("a folder");
    let unpacked = std::process::Command::new("tar")
        .arg("-C")
        .arg(&tree)
        .arg("-xf")
        .arg(write(&scratch.join("base.tar"), &base))
        .status();
    assert!(unpacked.expect("run tar").success());
    fs_err::write(tree.join("said"), "imported\n").expect("a file");
    let outcome = engine.docker_with_input(&["import", "-", "imported"], &tar(&tree));
    assert_eq!(outcome.code, 0, "{}", outcome.stderr);
    let saved = scratch.join("saved.tar").display().to_string();
    engine.ok(&["tag", "imported", "loaded"]);
    engine.ok(&["save", "-o", &saved, "loaded"]);
    engine.ok(&["rmi", "loaded"]);
    engine.ok(&["load", "-i", &saved]);
    // Built.
    let dockerfile = "FROM base\nENV A=b\nRUN echo built > /said\nWORKDIR /\nCMD cat /said\n";
    silo_tests::write_files(&scratch, &[("context/Dockerfile", dockerfile)]);
    let context = scratch.join("context").display().to_string();
    let mut classic = engine.docker_command();
    let classic = classic.env("DOCKER_BUILDKIT", "0").args(["build", "-q", "-t", "classic"]);
    let output = classic.arg(&context).output().expect("run docker");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let mut made = vec!["committed", "classic", "imported", "loaded"];
    if engine.has_plugins_or_skip() {
        engine.ok(&["buildx", "build", "-q", "--load", "-t", "buildx", &context]);
        made.push("buildx");
    }
    made
}

fn write<'a>(path: &'a std::path::Path, bytes: &[u8]) -> &'a std::path::Path {
    fs_err::write(path, bytes).expect("a file");
    path
}

/// What an image of [`made_by_silo`] says.
fn said_by(name: &str) -> &str {
    match name {
        "committed" => "committed",
        "imported" | "loaded" => "imported",
        _ => "built",
    }
}

#[test]
fn dockerd() {
    let Some(docker) = Dockerd::start_or_skip() else { return };
    let engine = Engine::start_empty();
    if !engine.is_silo_or_skip("compares Silo with it") {
        return;
    }
    let registries = Registries::start();
    // What dockerd imported, committed and built.
    let base = engine.scratch().join("docker-base.tar");
    docker.ok(&["import", write(&base, &userland()).to_str().expect("a path"), "base"]);
    let container =
        docker.ok(&["create", "--network", "none", "base", "sh", "-c", "echo there > /said"]);
    docker.ok(&["start", "-a", &container]);
    docker.ok(&["commit", &container, "committed"]);
    docker.ok(&["rm", &container]);
    let dockerfile = "FROM base\nCOPY said /\nRUN echo more >> /said\n";
    silo_tests::write_files(
        &engine.scratch(),
        &[("there/Dockerfile", dockerfile), ("there/said", "there\n")],
    );
    let context = engine.scratch().join("there").display().to_string();
    let mut build = docker.command();
    build.env("DOCKER_BUILDKIT", "0").args(["build", "--network", "none", "-t", "built"]);
    let output = build.arg(&context).output().expect("run docker");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let made = made_by_silo(&engine);
    for address in registries.addresses() {
        for name in registries.share(&address, &["built", "committed"]) {
            let says_there = if *name == "built" { "there\nmore" } else { "there" };
            let image = format!("{address}/there/{name}:v1");
            docker.ok(&["tag", name, &image]);
            docker.ok(&["push", "-q", &image]);
            assert_eq!(says(&engine, &image), says_there, "{image}");
            let digest = |text: String| text.rsplit('@').next().unwrap_or_default().to_owned();
            let format = ["inspect", "-f", "{{index .RepoDigests 0}}", &image];
            assert_eq!(digest(docker.ok(&format)), digest(engine.ok(&format)), "{image}");
            assert_eq!(
                docker.ok(&["inspect", "-f", "{{.Id}}", &image]),
                engine.ok(&["inspect", "-f", "{{.Id}}", &image]),
            );
            // It goes on from there: dockerd pulls what Silo pulled and pushed.
            let onward = format!("{address}/onward/{name}:v1");
            engine.ok(&["tag", &image, &onward]);
            engine.ok(&["push", "-q", &onward]);
            docker.ok(&["pull", "-q", &onward]);
            assert_eq!(digest(docker.ok(&format)), digest(engine.ok(&format)), "{image}");
        }
        for name in registries.share(&address, &made) {
            let image = format!("{address}/here/{name}:v1");
            engine.ok(&["tag", name, &image]);
            engine.ok(&["push", "-q", &image]);
            docker.ok(&["pull", "-q", &image]);
            let run = ["run", "--rm", "--network", "none", &image, "cat", "/said"];
            assert_eq!(docker.ok(&run), said_by(name), "{image}");
            // Not from memory the next time.
            docker.ok(&["rmi", "-f", &image]);
        }
    }
    // Without a push, from the engine's own content.
    let directory = tempfile::tempdir().expect("a directory");
    let options = ["--engine-images"];
    let own = registryd::Registry::start_at(directory, engine.data_root(), &options);
    let image = format!("{}/engine/committed", own.address);
    docker.ok(&["pull", "-q", &image]);
    let run = ["run", "--rm", "--network", "none", &image, "cat", "/said"];
    assert_eq!(docker.ok(&run), said_by("committed"));
    // As archives: its own has no layout, and ours is one as well.
    let mut copy = docker.silo_command();
    let archive = engine.scratch().join("built.tar").display().to_string();
    let theirs = format!("docker-archive:{archive}:theirs:1");
    let output = copy.args(["copy", "docker-daemon:built", &theirs]).output().expect("run silo");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    engine.ok(&["load", "-q", "-i", &archive]);
    assert_eq!(says(&engine, "theirs:1"), "there\nmore");
    let id = ["inspect", "-f", "{{.Id}}"];
    let ids =
        [docker.ok(&[&id[..], &["built"]].concat()), engine.ok(&[&id[..], &["theirs:1"]].concat())];
    assert_eq!(ids[0], ids[1]);
    let ours = format!("{}/here/committed:v1", registries.silo.address);
    let mut copy = docker.silo_command();
    let output = copy.args(["copy", &ours, "docker-daemon:ours"]).output().expect("run silo");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let run = ["run", "--rm", "--network", "none", "ours", "cat", "/said"];
    assert_eq!(docker.ok(&run), said_by("committed"));
}

#[test]
fn podman() {
    let Some(podman) = Podman::new_or_skip() else { return };
    let engine = Engine::start_empty();
    if !engine.is_silo_or_skip("compares Silo with it") {
        return;
    }
    let registries = Registries::start();
    let made = made_by_silo(&engine);
    for address in registries.addresses() {
        for name in registries.share(&address, &made) {
            let image = format!("{address}/here/{name}:v1");
            engine.ok(&["tag", name, &image]);
            engine.ok(&["push", "-q", &image]);
            assert_eq!(podman.run(&image, &["cat", "/said"]), said_by(name), "{image}");
            podman.ok(&["rmi", "-f", &image]);
        }
    }
    // As archives.
    let path = |name: &str| engine.scratch().join(name).display().to_string();
    let copy = |from: &str, to: &str| {
        engine.succeeded(&format!("copy {from} {to}"), engine.silo(&["copy", "-q", from, to]))
    };
    let ours = path("ours.tar");
    copy("docker-daemon:committed", &format!("docker-archive:{ours}:ours:1"));
    podman.ok(&["load", "-q", "-i", &ours]);
    assert_eq!(podman.run("ours:1", &["cat", "/said"]), said_by("committed"));
    for kind in ["docker-archive", "oci-archive"] {
        let theirs = path(kind);
        podman.ok(&["save", "-q", "--format", kind, "-o", &theirs, "ours:1"]);
        copy(&format!("{kind}:{theirs}"), &format!("docker-daemon:{kind}"));
        assert_eq!(says(&engine, kind), said_by("committed"), "{kind}");
    }
}

/// Images of Buildah's in every format and compression that it has.
#[test]
fn buildah() {
    let Some(podman) = Podman::new_or_skip() else { return };
    if !has_or_skip("interop::engines::buildah", &["skopeo"]) {
        return;
    }
    let Some(engine) = super::shapes::silo_engine() else { return };
    let registries = Registries::start();
    let tree = engine.scratch().join("tree");
    let path = |name: &str| engine.scratch().join(name).display().to_string();
    fs_err::create_dir(&tree).expect("a folder");
    fs_err::write(tree.join("base.tar"), userland()).expect("a file");
    fs_err::write(tree.join("said"), "buildah").expect("a file");
    let container = podman.buildah(&["from", "scratch"]);
    podman.buildah(&["add", &container, &path("tree/base.tar"), "/"]);
    podman.buildah(&["config", "--cmd", "cat /said", "--env", "PATH=/bin", &container]);
    podman.buildah(&["commit", "-q", &container, "base"]);
    podman.buildah(&["copy", &container, &path("tree/said"), "/said"]);
    for format in ["oci", "docker"] {
        podman.buildah(&["commit", "-q", "--format", format, &container, format]);
    }
    podman.buildah(&["rm", &container]);
    // What a registry has in one compression, Buildah does not send in another.
    let other = registryd::Registry::start();
    let zstd = registries.debian.as_ref().map_or(&other.address[..], |debian| debian.address());
    let third = registryd::Registry::start();
    let mut seen = std::collections::BTreeSet::new();
    for (address, compression) in
        [(&registries.silo.address[..], "gzip"), (zstd, "zstd"), (&third.address, "zstd:chunked")]
    {
        for (local, format) in [("oci", "oci"), ("docker", "v2s2"), ("oci", "v2s2")] {
            // Docker's format knows gzip alone.
            if format == "v2s2" && compression != "gzip" {
                continue;
            }
            let tag = format!("{local}-{format}-{}", compression.replace(':', "-"));
            let image = format!("{address}/buildah:{tag}");
            let to = format!("docker://{image}");
            let push = ["push", "-q", "--tls-verify=false", "--format", format];
            podman
                .buildah(&[&push[..], &["--compression-format", compression, local, &to]].concat());
            let raw = run("skopeo", &["inspect", "--raw", "--tls-verify=false", &to]);
            let manifest: serde_json::Value = serde_json::from_str(&raw).expect("JSON");
            assert!(manifest["mediaType"].as_str().is_none_or(|kind| match format {
                "oci" => kind == super::OCI_MANIFEST,
                _ => kind == super::DOCKER_MANIFEST,
            }));
            let layer = manifest["layers"][0].to_string();
            let marks = [layer.contains("zstd\""), layer.contains("zstd-chunked")];
            assert_eq!(marks[0], compression != "gzip", "{layer}");
            assert_eq!(marks[1], compression == "zstd:chunked", "{layer}");
            assert_eq!(says(&engine, &image), "buildah", "{image}");
            seen.insert(engine.ok(&["inspect", "-f", "{{.Id}}", &image]));
            engine.ok(&["rmi", "-f", &image]);
        }
    }
    // Each format has its own configuration.
    assert!(seen.len() > 1, "{seen:?}");
}

/// Whole indexes and single images that Skopeo copies.
#[test]
fn skopeo() {
    if !has_or_skip("interop::engines::skopeo", &["skopeo"]) {
        return;
    }
    let Some(engine) = super::shapes::silo_engine() else { return };
    let registries = Registries::start();
    let from = super::Remote::new(&registries.silo.address);
    let (index, _) = super::shapes::push_attested(&from, "from", "v1");
    let plain = ["copy", "-q", "--src-tls-verify=false", "--dest-tls-verify=false"];
    let source = format!("docker://{}", from.name("from:v1"));
    for address in registries.addresses() {
        for (tag, options) in [
            ("all", &["--all"][..]),
            ("one", &[]),
            ("docker", &["--format", "v2s2"]),
            ("oci", &["--format", "oci", "--dest-compress-format", "zstd"]),
        ] {
            let image = format!("{address}/to:{tag}");
            let target = format!("docker://{image}");
            run("skopeo", &[&plain[..], options, &[&source, &target]].concat());
            assert_eq!(says(&engine, &image), "hello", "{image}");
            let digests = engine.inspect(&image)["RepoDigests"].to_string();
            assert_eq!(digests.contains(&index), tag == "all", "{tag}: {digests}");
            engine.ok(&["rmi", "-f", &image]);
        }
    }
}

/// Images for Windows that Silo built, and that it passes on: what another client gets is what
/// went in.
#[test]
fn windows_images() {
    if !has_or_skip("interop::engines::windows_images", &["skopeo"]) {
        return;
    }
    let Some(engine) = super::shapes::silo_engine() else { return };
    let registries = Registries::start();
    let from = super::Remote::new(&registries.silo.address);
    let layer = super::Layer::gzip(&super::tar_of(&[("Files/said.txt", "win"), ("Hives/", "")]));
    let mut shape = super::Shape::oci(&[&layer]);
    shape.config = serde_json::json!({
        "os": "windows", "os.version": "10.0.20348.2113",
        "config": { "Cmd": ["cmd", "/c", "type said.txt"], "ArgsEscaped": true },
    });
    let pushed = shape.push(&from, "windows", "v1");
    let came = from.name("windows:v1");
    engine.ok(&["pull", "-q", "--platform", "windows/amd64", &came]);
    let dockerfile = "FROM --platform=windows/amd64 scratch\nCOPY said.txt /said.txt\n";
    let context = engine.scratch().join("context");
    silo_tests::write_files(&context, &[("Dockerfile", dockerfile), ("said.txt", "win")]);
    let context = context.display().to_string();
    let outcome = engine.silo(&["build", "-q", "-t", "built", &context]);
    assert_eq!(outcome.code, 0, "{}", outcome.stderr);
    for address in registries.addresses() {
        for (local, name) in [(&came[..], "came"), ("built", "built")] {
            let image = format!("{address}/to/{name}:v1");
            engine.ok(&["tag", local, &image]);
            let said = engine.ok(&["push", &image]);
            let digest = pushed["digest"].as_str().expect("a digest");
            assert_eq!(said.contains(digest), name == "came", "{said}");
            let layout = tempfile::tempdir().expect("a directory");
            let path = layout.path().display().to_string();
            let copy = ["--override-os", "windows", "copy", "-q", "--src-tls-verify=false"];
            run(
                "skopeo",
                &[&copy[..], &[&format!("docker://{image}"), &format!("oci:{path}:x")]].concat(),
            );
            let raw = run("skopeo", &["inspect", "--raw", &format!("oci:{path}:x")]);
            let manifest: serde_json::Value = serde_json::from_str(&raw).expect("JSON");
            let id = engine.ok(&["inspect", "-f", "{{.Id}}", local]);
            assert_eq!(manifest["config"]["digest"], id.as_str());
            let blob = |digest: &serde_json::Value| {
                let digest = digest.as_str().expect("a digest").replace(':', "/");
                layout.path().join("blobs").join(digest)
            };
            let config = fs_err::read(blob(&manifest["config"]["digest"])).expect("a file");
            let config: serde_json::Value = serde_json::from_slice(&config).expect("JSON");
            assert_eq!(config["os"], "windows");
            assert_eq!(config["os.version"] == "10.0.20348.2113", name == "came", "{config}");
            let layer = blob(&manifest["layers"][0]["digest"]).display().to_string();
            let listed = run("tar", &["-tzf", &layer]);
            assert!(listed.contains("Files/said.txt"), "{listed}");
            assert!(listed.contains("Hives"), "{listed}");
        }
    }
}
