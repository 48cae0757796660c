//! Images and caches of a BuildKit of today, which is in dockerd, and Silo's.

use std::path::Path;
use std::process::Output;

use serde_json::Value;
use silo_tests::{Dockerd, Engine, Outcome, Registry};

use super::{OCI_INDEX, OCI_MANIFEST, userland};
use crate::registryd;

const STATEMENT: &str = "application/vnd.in-toto+json";

/// A dockerd with an image `base`, and a Silo engine, if both are there.
fn both() -> Option<(Dockerd, Engine)> {
    let docker = Dockerd::start_newest_or_skip()?;
    let engine = Engine::start_empty();
    if !engine.is_silo_or_skip("compares Silo with it") || !engine.has_plugins_or_skip() {
        return None;
    }
    let base = engine.scratch().join("base.tar");
    fs_err::write(&base, userland()).expect("a file");
    docker.ok(&["import", &base.display().to_string(), "base"]);
    // The same image there and here.
    let saved = engine.scratch().join("saved.tar").display().to_string();
    docker.ok(&["save", "-o", &saved, "base"]);
    engine.ok(&["load", "-i", &saved]);
    Some((docker, engine))
}

/// Builds with buildx.
fn build(mut docker: std::process::Command, folder: &Path, arguments: &[&str]) -> String {
    docker.args(["buildx", "build", "--progress=plain", "--network=none"]).args(arguments);
    let output: Output = docker.arg(folder).output().expect("run docker");
    let outcome = Outcome::from(output);
    assert_eq!(outcome.code, 0, "{arguments:?}\n{}", outcome.stderr);
    outcome.stderr
}

/// A document or blob of a repository.
fn get(registry: &str, repository: &str, kind: &str, digest: &str) -> Vec<u8> {
    let remote = super::Remote::new(registry);
    let target = format!("/v2/{repository}/{kind}/{digest}");
    let accept = format!("{OCI_INDEX}, {OCI_MANIFEST}");
    let answer = remote.send("GET", &target, &[("Accept", &accept)], b"");
    assert_eq!(answer.status, 200, "{target}: {}", answer.text());
    answer.body
}

/// What is said about the images of an index: types of statements, each of which is there.
fn said_about(registry: &str, repository: &str, reference: &str) -> Vec<String> {
    let json = |bytes: Vec<u8>| serde_json::from_slice::<Value>(&bytes).expect("JSON");
    let index = json(get(registry, repository, "manifests", reference));
    let mut said = Vec::new();
    for entry in index["manifests"].as_array().expect("an index") {
        let kind = &entry["annotations"]["vnd.docker.reference.type"];
        if kind != "attestation-manifest" {
            continue;
        }
        let digest = entry["digest"].as_str().expect("a digest");
        let manifest = json(get(registry, repository, "manifests", digest));
        for layer in manifest["layers"].as_array().expect("layers") {
            assert_eq!(layer["mediaType"], STATEMENT);
            let digest = layer["digest"].as_str().expect("a digest");
            let statement = json(get(registry, repository, "blobs", digest));
            let about = statement["subject"][0]["digest"]["sha256"].as_str().unwrap_or_default();
            let named = &entry["annotations"]["vnd.docker.reference.digest"];
            assert_eq!(named, format!("sha256:{about}").as_str());
            said.push(statement["predicateType"].as_str().expect("a type").to_owned());
        }
    }
    said
}

/// Single images in gzip and zstd, and an index for two platforms, with what is said about them.
#[test]
fn its_images_run_and_go_on() {
    let Some(debian) = Registry::start_or_skip() else { return };
    let Some((docker, engine)) = both() else { return };
    let own = registryd::Registry::start();
    let files = [
        ("one/Dockerfile", "FROM base\nCOPY said gone /\nRUN echo more >> /said; rm /gone\n"),
        ("one/said", "there\n"),
        ("one/gone", ""),
        ("two/Dockerfile", "FROM scratch\nARG TARGETARCH\nENV OF=$TARGETARCH\nCOPY f /f\n"),
        ("two/f", "f\n"),
    ];
    let scratch = engine.scratch();
    silo_tests::write_files(&scratch, &files);
    let forms = [
        ("gzip", "min", "oci-mediatypes=true,compression=gzip"),
        ("zstd", "max", "oci-mediatypes=true,compression=zstd"),
    ];
    for (name, mode, form) in forms {
        let image = debian.name(&format!("there/{name}:v1"));
        let output = format!("type=image,name={image},push=true,force-compression=true,{form}");
        let provenance = format!("--provenance=mode={mode}");
        build(docker.command(), &scratch.join("one"), &[&provenance, "-o", &output]);
        let run = ["run", "--rm", "--network", "none", &image];
        assert_eq!(engine.ok(&[&run[..], &["cat", "/said"]].concat()), "there\nmore", "{image}");
        assert!(!engine.ok(&[&run[..], &["ls", "/"]].concat()).contains("gone"), "{image}");
        // Without the engine, everything goes on.
        let copy = format!("{}/copied/{name}:v1", own.address);
        let done = engine.silo(&["copy", &image, &copy]);
        assert_eq!(done.code, 0, "{}", done.stderr);
        assert_eq!(said_about(&own.address, &format!("copied/{name}"), "v1").len(), 1);
        // By the engine the image: it has not fetched what is said about it, as dockerd has not.
        let onward = format!("{}/onward/{name}:v1", own.address);
        engine.ok(&["tag", &image, &onward]);
        engine.ok(&["push", "-q", &onward]);
        docker.ok(&["pull", "-q", &onward]);
        let archive = scratch.join("onward.tar").display().to_string();
        docker.ok(&["save", "-o", &archive, &onward]);
        engine.ok(&["rmi", &onward]);
        engine.ok(&["load", "-i", &archive]);
        let run = ["run", "--rm", "--network", "none", &onward, "cat", "/said"];
        assert_eq!(engine.ok(&run), "there\nmore", "{onward}");
    }

    let image = debian.name("there/two:v1");
    let output = format!("type=image,name={image},push=true");
    let platforms = "linux/amd64,linux/arm64";
    let arguments = ["--platform", platforms, "--provenance=mode=max", "-o", &output];
    build(docker.command(), &scratch.join("two"), &arguments);
    for architecture in ["amd64", "arm64"] {
        let platform = format!("linux/{architecture}");
        engine.ok(&["pull", "-q", "--platform", &platform, &image]);
        let inspected = engine.silo(&["image", "inspect", "--platform", &platform, &image]);
        assert!(inspected.stdout.contains(&format!("OF={architecture}")), "{}", inspected.stdout);
    }
    let tree = engine.silo(&["images", "--tree"]).stdout;
    assert!(tree.contains("linux/amd64") && tree.contains("linux/arm64"), "{tree}");
    assert!(!tree.contains("unknown"), "{tree}");
    let copy = format!("{}/copied/two:v1", own.address);
    let done = engine.silo(&["copy", "-q", &image, &copy]);
    assert_eq!(done.stdout.trim(), debian.digest("there/two", "v1").expect("a digest"));
    let said = said_about(&own.address, "copied/two", "v1");
    assert_eq!(said.len(), 2, "{said:?}");
    assert!(said.iter().all(|kind| kind.contains("slsa.dev/provenance")), "{said:?}");

    // Archives of both platforms, there and back.
    let archive = scratch.join("two.tar").display().to_string();
    docker.ok(&["save", "-o", &archive, &image]);
    engine.ok(&["rmi", &image]);
    engine.ok(&["load", "-i", &archive]);
    // What is said came with the archive, and goes on with a push.
    let onward = format!("{}/onward/two:v1", own.address);
    engine.ok(&["tag", &image, &onward]);
    engine.ok(&["push", "-q", &onward]);
    assert_eq!(said_about(&own.address, "onward/two", "v1"), said);
    let remote = super::Remote::new(&own.address);
    let head = remote.send("HEAD", "/v2/onward/two/manifests/v1", &[("Accept", OCI_INDEX)], b"");
    assert_eq!(
        head.header("docker-content-digest").map(str::to_owned),
        debian.digest("there/two", "v1")
    );
    let again = engine.name("again");
    engine.ok(&["tag", &image, &again]);
    engine.ok(&["save", "-o", &archive, &again]);
    docker.ok(&["load", "-i", &archive]);
    for architecture in ["amd64", "arm64"] {
        let platform = format!("linux/{architecture}");
        let inspected = engine.silo(&["image", "inspect", "--platform", &platform, &again]);
        assert!(inspected.stdout.contains(&format!("OF={architecture}")), "{}", inspected.stdout);
        let container = docker.ok(&["create", "--platform", &platform, &again, "x"]);
        docker.ok(&["rm", &container]);
    }
}

/// The steps of one are nothing to the other, but either can read what the other wrote.
#[test]
fn caches_do_no_harm() {
    let Some((docker, engine)) = both() else { return };
    let own = registryd::Registry::start();
    // The layers of BuildKit's caches are in the order of their digests.
    let text = "FROM base AS one\nRUN echo 1 > /1\nCOPY f /2\nRUN cat /1 > /3\n\
                FROM base\nCOPY --from=one /3 /4\nRUN cat /4 > /5\n";
    let scratch = engine.scratch();
    silo_tests::write_files(&scratch, &[("c/Dockerfile", text), ("c/f", "2\n")]);
    let folder = scratch.join("c");
    let caches = |whose: &str| {
        let directory = scratch.join(whose).display().to_string();
        let there = format!("type=registry,ref={}/{whose}/cache:list", own.address);
        [
            (
                format!("type=local,dest={directory},image-manifest=true"),
                format!("type=local,src={directory}"),
            ),
            (format!("{there},image-manifest=false,compression=zstd"), there),
        ]
    };
    for (to, _) in caches("there") {
        build(docker.command(), &folder, &["--cache-to", &format!("{to},mode=max")]);
    }
    for (to, _) in caches("here") {
        build(engine.docker_command(), &folder, &["--cache-to", &format!("{to},mode=max")]);
    }
    for (_, from) in caches("there") {
        let said = build(engine.docker_command(), &folder, &["--cache-from", &from]);
        assert!(said.contains("all its steps are of another builder"), "{from}: {said}");
        assert!(!said.contains("ERROR"), "{from}: {said}");
    }
    for (_, from) in caches("here") {
        let said = build(docker.command(), &folder, &["--cache-from", &from]);
        assert!(said.contains("importing cache manifest from"), "{from}: {said}");
        assert!(!said.contains("ERROR"), "{from}: {said}");
    }
}
