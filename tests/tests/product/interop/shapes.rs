//! Images of every shape that registries have, made by hand.

use std::collections::BTreeMap;

use serde_json::{Value, json};
use silo_tests::{Engine, FileServer, Page};

use super::{
    DOCKER_CONFIG, DOCKER_LAYER, DOCKER_LIST, DOCKER_MANIFEST, Layer, OCI_CONFIG, OCI_INDEX,
    OCI_LAYER, OCI_MANIFEST, Remote, Shape, tar_of, userland,
};
use crate::registryd::{self, sha256, sum};

/// Layers that the shapes are made of.
pub(super) struct Parts {
    base: Layer,
    said: Layer,
    tar: Vec<u8>,
}

impl Parts {
    pub(super) fn new() -> Self {
        let tar = tar_of(&[("said", "hello")]);
        Self { base: Layer::gzip(&userland()), said: Layer::gzip(&tar), tar }
    }

    /// The userland, and the layer that has `/said` in another form.
    fn with(&self, media_type: &str, program: &[&str]) -> Shape {
        Shape::oci(&[&self.base, &Layer::packed(media_type, &self.tar, program)])
    }
}

/// A layer that has nothing, as old clients made them: a tar of two empty blocks.
fn nothing() -> Layer {
    Layer::gzip(&[0; 1024])
}

/// Images that run, and say `hello`.
fn shapes(parts: &Parts) -> Vec<(&'static str, Shape)> {
    let Parts { base, said, tar } = parts;
    let mut docker_base = base.clone();
    docker_base.media_type = DOCKER_LAYER.into();
    let mut docker_said = said.clone();
    docker_said.media_type = DOCKER_LAYER.into();
    // Two members of gzip, as eStargz has one for each file; two frames of zstd, and one to be
    // skipped, as zstd:chunked has.
    let (head, rest) = tar.split_at(700);
    let members = |program: &[&str]| [super::filter(program, head), super::filter(program, rest)];
    let mut stargz = said.clone();
    stargz.bytes = members(&["gzip", "-n"]).concat();
    stargz.more = json!({ "annotations": {
        "containerd.io/snapshot/stargz/toc.digest": sha256(b"toc"),
        "io.containers.estargz.uncompressed-size": tar.len().to_string(),
    } });
    let mut chunked = Layer::packed(&format!("{OCI_LAYER}+zstd"), tar, &["zstd", "-q"]);
    let skipped = [&[0x50, 0x2a, 0x4d, 0x18, 4, 0, 0, 0][..], b"toc!"].concat();
    chunked.bytes = [&members(&["zstd", "-q"]).concat()[..], &skipped].concat();
    chunked.more = json!({ "annotations": {
        "io.github.containers.zstd-chunked.manifest-checksum": sha256(b"toc"),
    } });
    let history = json!({ "history": [
        { "created_by": "base" },
        { "created_by": "ENV A=b", "empty_layer": true },
        { "created_by": "said" },
        { "created_by": "CMD", "empty_layer": true },
    ], "created": "2020-01-02T03:04:05Z", "author": "somebody", "variant": "",
       "os.features": [], "x-unknown": { "a": [1] } });
    vec![
        ("oci", Shape::oci(&[base, said])),
        (
            "docker",
            Shape {
                manifest_type: DOCKER_MANIFEST,
                config_type: DOCKER_CONFIG,
                ..Shape::oci(&[&docker_base, &docker_said])
            },
        ),
        (
            "docker-in-oci",
            Shape { config_type: DOCKER_CONFIG, ..Shape::oci(&[&docker_base, said]) },
        ),
        ("oci-in-docker", Shape { manifest_type: DOCKER_MANIFEST, ..Shape::oci(&[base, said]) }),
        ("plain", parts.with(OCI_LAYER, &[])),
        ("plain-docker", parts.with("application/vnd.docker.image.rootfs.diff.tar", &[])),
        ("zstd", parts.with(&format!("{OCI_LAYER}+zstd"), &["zstd", "-q"])),
        (
            "zstd-docker",
            parts.with("application/vnd.docker.image.rootfs.diff.tar.zstd", &["zstd", "-q"]),
        ),
        ("members", Shape::oci(&[base, &stargz])),
        ("chunked", Shape::oci(&[base, &chunked])),
        // What the type says is not what the bytes are, as several builders had it.
        ("gzip-is-plain", parts.with(&format!("{OCI_LAYER}+gzip"), &[])),
        ("gzip-is-zstd", parts.with(&format!("{OCI_LAYER}+gzip"), &["zstd", "-q"])),
        ("plain-is-gzip", parts.with(OCI_LAYER, &["gzip", "-n"])),
        ("twice", Shape::oci(&[base, said, said])),
        ("empty", Shape::oci(&[&nothing(), base, &nothing(), said, &nothing()])),
        ("history", Shape { config: history, ..Shape::oci(&[base, said]) }),
        (
            "annotated",
            Shape {
                manifest: json!({
                    "annotations": { "org.opencontainers.image.title": "\u{fc}" },
                    "artifactType": "application/vnd.example",
                    "x-unknown": [null],
                }),
                ..Shape::oci(&[base, said])
            },
        ),
    ]
}

/// Runs every shape from a registry.
fn all_run(engine: &Engine, remote: &Remote) {
    for (name, shape) in shapes(&Parts::new()) {
        shape.push(remote, "shape", name);
        let image = remote.name(&format!("shape:{name}"));
        let outcome = engine.docker(&["run", "--rm", "--network", "none", &image]);
        assert_eq!(outcome.stdout, "hello", "{name}: {}", outcome.stderr);
    }
}

pub(super) fn silo_engine() -> Option<Engine> {
    let engine = Engine::start_empty();
    engine.is_silo_or_skip("the registry is for one engine alone").then_some(engine)
}

#[test]
fn every_form_runs_from_docker_registry() {
    let Some(registry) = silo_tests::Registry::start_or_skip() else { return };
    let Some(engine) = silo_engine() else { return };
    all_run(&engine, &Remote::new(registry.address()));
}

#[test]
fn every_form_runs_from_silo_registry() {
    let Some(engine) = silo_engine() else { return };
    let registry = registryd::Registry::start();
    all_run(&engine, &Remote::new(&registry.address));
}

#[test]
fn images_without_layers() {
    let Some(engine) = silo_engine() else { return };
    let registry = registryd::Registry::start();
    let remote = Remote::new(&registry.address);
    for (tag, manifest) in [("none", json!({})), ("null", json!({ "layers": null }))] {
        Shape { manifest, ..Shape::oci(&[]) }.push(&remote, "bare", tag);
        let image = remote.name(&format!("bare:{tag}"));
        engine.ok(&["pull", "-q", &image]);
        assert_eq!(engine.inspect(&image)["RootFS"]["Layers"], Value::Null, "{tag}");
        let failed = engine.docker(&["run", "--rm", "--network", "none", &image]);
        assert_eq!(failed.code, 127, "{}", failed.stderr);
        assert!(failed.stderr.contains("executable file not found"), "{}", failed.stderr);
        // It goes out again as it came.
        let again = remote.name(&format!("bare:{tag}-again"));
        engine.ok(&["tag", &image, &again]);
        engine.ok(&["push", "-q", &again]);
    }
}

/// An index as BuildKit pushes it: the image, what proves how it was made, and what is for others.
pub(super) fn attested(remote: &Remote, repository: &str, parts: &Parts) -> (Value, Value) {
    let image = Shape::oci(&[&parts.base, &parts.said]).push(remote, repository, "");
    let mut arm = Shape::oci(&[&parts.said]);
    arm.config = json!({ "architecture": "arm64", "variant": "v8" });
    let mut arm = arm.push(remote, repository, "");
    arm["platform"] = json!({ "os": "linux", "architecture": "arm64", "variant": "v8" });
    let statement = Layer {
        media_type: "application/vnd.in-toto+json".into(),
        bytes: br#"{"_type":"https://in-toto.io/Statement/v0.1","subject":[]}"#.to_vec(),
        diff_id: sha256(b"in-toto"),
        more: json!({ "annotations": {
            "in-toto.io/predicate-type": "https://slsa.dev/provenance/v0.2",
        } }),
    };
    let mut proof = Shape::oci(&[&statement]);
    proof.config = json!({ "architecture": "unknown", "os": "unknown", "config": {} });
    let mut proof = proof.push(remote, repository, "");
    proof["platform"] = json!({ "os": "unknown", "architecture": "unknown" });
    proof["annotations"] = json!({
        "vnd.docker.reference.digest": image["digest"],
        "vnd.docker.reference.type": "attestation-manifest",
    });
    let mut named = image;
    named["platform"] = json!({ "os": "linux", "architecture": "amd64" });
    (json!([arm, named, proof]), proof)
}

/// Pushes such an index under a tag; gives its digest, and that of its proof.
pub(super) fn push_attested(remote: &Remote, repository: &str, tag: &str) -> (String, String) {
    let (entries, proof) = attested(remote, repository, &Parts::new());
    let index = json!({ "schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": entries });
    let pushed = remote.manifest(repository, tag, OCI_INDEX, &index);
    let digest = |descriptor: &Value| descriptor["digest"].as_str().expect("a digest").to_owned();
    (digest(&pushed), digest(&proof))
}

#[test]
fn indexes() {
    let Some(engine) = silo_engine() else { return };
    let registry = registryd::Registry::start();
    let (remote, parts) = (Remote::new(&registry.address), Parts::new());
    let (entries, proof) = attested(&remote, "index", &parts);
    let push = |tag: &str, kind: &str, entries: &Value| {
        let index = json!({ "schemaVersion": 2, "mediaType": kind, "manifests": entries });
        remote.manifest("index", tag, kind, &index)
    };
    let image = |tag: &str| remote.name(&format!("index:{tag}"));
    let inner = push("oci", OCI_INDEX, &entries);
    push("docker", DOCKER_LIST, &entries);
    push("nested", OCI_INDEX, &json!([inner]));
    let mut nameless = entries[1].clone();
    nameless.as_object_mut().expect("an object").remove("platform");
    push("nameless", OCI_INDEX, &json!([nameless]));
    push("first-of-two", OCI_INDEX, &json!([entries[1], nameless]));
    for tag in ["oci", "docker", "nested", "nameless", "first-of-two"] {
        let outcome = engine.docker(&["run", "--rm", "--network", "none", &image(tag)]);
        assert_eq!(outcome.stdout, "hello", "{tag}: {}", outcome.stderr);
    }
    // The digest that people see is the index's.
    let digests = engine.inspect(&image("oci"))["RepoDigests"].to_string();
    assert!(digests.contains(inner["digest"].as_str().expect("a digest")), "{digests}");
    push("proof", OCI_INDEX, &json!([proof]));
    push("nothing", OCI_INDEX, &json!([]));
    for tag in ["proof", "nothing"] {
        let failed = engine.docker(&["pull", &image(tag)]);
        let said = "no matching manifest for linux/amd64";
        assert!(failed.code != 0 && failed.stderr.contains(said), "{tag}: {}", failed.stderr);
    }
    // By its digest, the proof is what it is.
    let digest = proof["digest"].as_str().expect("a digest");
    let failed = engine.docker(&["pull", &remote.name(&format!("index@{digest}"))]);
    assert!(failed.stderr.contains("application/vnd.in-toto+json"), "{}", failed.stderr);
    assert!(failed.stderr.contains("not a container image"), "{}", failed.stderr);
    let arm = ["pull", "-q", "--platform", "linux/arm64", &image("oci")];
    engine.ok(&arm);
}

#[test]
fn what_is_no_image_is_named() {
    let Some(engine) = silo_engine() else { return };
    let registry = registryd::Registry::start();
    let (remote, parts) = (Remote::new(&registry.address), Parts::new());
    let said = |media_type: &str| Layer { media_type: media_type.into(), ..parts.said.clone() };
    let helm = "application/vnd.cncf.helm.config.v1+json";
    let empty = "application/vnd.oci.empty.v1+json";
    let cosign = "application/vnd.dev.cosign.simplesigning.v1+json";
    let wasm = "application/vnd.wasm.config.v0+json";
    let plugin = "application/vnd.docker.plugin.v1+json";
    let secret = "application/vnd.oci.image.layer.v1.tar+gzip+encrypted";
    for (tag, config_type, layer, named) in [
        ("helm", helm, "application/vnd.cncf.helm.chart.content.v1.tar+gzip", helm),
        ("oras", empty, "text/plain", empty),
        ("cosign", OCI_CONFIG, cosign, cosign),
        ("wasm", wasm, "application/wasm", wasm),
        ("plugin", plugin, DOCKER_LAYER, plugin),
        ("encrypted", OCI_CONFIG, secret, secret),
    ] {
        Shape { config_type, ..Shape::oci(&[&said(layer)]) }.push(&remote, "thing", tag);
        let failed = engine.docker(&["pull", &remote.name(&format!("thing:{tag}"))]);
        assert_eq!(failed.code, 1, "{tag}");
        assert!(failed.stderr.contains(named), "{tag}: {}", failed.stderr);
        let reason = if tag == "encrypted" { "encrypted" } else { "not a container image" };
        assert!(failed.stderr.contains(reason), "{tag}: {}", failed.stderr);
    }
    assert_eq!(engine.ok(&["images", "-q"]), "");
}

/// What only a server of the test's own hands out.
#[test]
fn forms_of_the_past_and_the_future() {
    let Some(engine) = silo_engine() else { return };
    let bytes = br#"{"schemaVersion":1,"name":"old","tag":"v1","fsLayers":[],"history":[]}"#;
    let mut pages = BTreeMap::from([("/v2/".to_owned(), Page::File(b"{}".to_vec()))]);
    for (tag, kind) in [
        ("v1", "application/vnd.docker.distribution.manifest.v1+prettyjws"),
        ("v1-plain", "application/vnd.docker.distribution.manifest.v1+json"),
        ("v1-untyped", "application/json"),
    ] {
        pages.insert(format!("/v2/old/manifests/{tag}"), Page::Typed(kind, bytes.to_vec()));
    }
    let config = json!({ "os": "linux", "architecture": "amd64",
        "rootfs": { "type": "layers", "diff_ids": [] } })
    .to_string();
    let digest = sum("sha512sum", config.as_bytes());
    let manifest = json!({
        "schemaVersion": 2, "mediaType": OCI_MANIFEST, "layers": [],
        "config": { "mediaType": OCI_CONFIG, "digest": digest, "size": config.len() },
    })
    .to_string();
    let page = |text: &str| Page::Typed(OCI_MANIFEST, text.as_bytes().to_vec());
    pages.insert("/v2/new/manifests/sha512".to_owned(), page(&manifest));
    let server = FileServer::start(pages);
    let pull = |name: &str| {
        let failed = engine.docker(&["pull", &format!("127.0.0.1:{}/{name}", server.port())]);
        assert_eq!(failed.code, 1, "{name}: {}", failed.stdout);
        failed.stderr
    };
    for tag in ["v1", "v1-plain", "v1-untyped"] {
        let failed = pull(&format!("old:{tag}"));
        assert!(failed.contains("schema 1 support has been removed"), "{failed}");
    }
    let failed = pull("new:sha512");
    assert!(failed.contains("sha512") && failed.contains("sha256"), "{failed}");
}

/// Layers that are not in the registry but elsewhere, and stay there.
#[test]
fn layers_of_elsewhere() {
    let Some(engine) = silo_engine() else { return };
    let registry = registryd::Registry::start();
    let (remote, parts) = (Remote::new(&registry.address), Parts::new());
    let mut pages = BTreeMap::new();
    pages.insert("/blob".to_owned(), Page::File(parts.base.bytes.clone()));
    pages.insert("/moved".to_owned(), Page::Moved("/blob".to_owned()));
    let elsewhere = FileServer::start(pages);
    for (tag, kind, path) in [
        ("oci", "application/vnd.oci.image.layer.nondistributable.v1.tar+gzip", "blob"),
        ("docker", "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip", "moved"),
    ] {
        let url = format!("http://127.0.0.1:{}/{path}", elsewhere.port());
        let mut base = parts.base.clone();
        base.media_type = kind.to_owned();
        // The first place may be gone.
        let gone = format!("http://127.0.0.1:{}/gone", elsewhere.port());
        base.more = json!({ "urls": [gone, url] });
        let pushed = Shape::oci(&[&base, &parts.said]).push(&remote, "foreign", tag);
        let image = remote.name(&format!("foreign:{tag}"));
        let outcome = engine.docker(&["run", "--rm", "--network", "none", &image]);
        assert_eq!(outcome.stdout, "hello", "{tag}: {}", outcome.stderr);
        let copy = remote.name(&format!("copy/foreign:{tag}"));
        engine.ok(&["tag", &image, &copy]);
        let out = engine.ok(&["push", &copy]);
        assert!(out.contains("Skipped foreign layer"), "{out}");
        assert!(out.contains(pushed["digest"].as_str().expect("a digest")), "{out}");
        for name in [&image, &copy] {
            engine.ok(&["rmi", "-f", name]);
        }
    }
}
