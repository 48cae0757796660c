//! What is built goes to registries.

use fs_err as fs;
use serde_json::Value;
use silo_tests::Registry;

use super::{built, context, engine};

/// The manifest of a tag.
#[track_caller]
fn manifest(registry: &Registry, repository: &str, tag: &str) -> Value {
    let digest = registry.digest(repository, tag);
    registry.document(&digest.unwrap_or_else(|| panic!("no {repository}:{tag}")))
}

fn layer_types(manifest: &Value) -> Vec<&str> {
    let layers = manifest["layers"].as_array().expect("layers");
    layers.iter().map(|layer| layer["mediaType"].as_str().expect("a type")).collect()
}

#[test]
fn a_push_has_names_types_and_compressions() {
    let Some(engine) = engine() else { return };
    let Some(registry) = Registry::start_or_skip() else { return };
    let at = context(&engine, &[("Dockerfile", "FROM busybox\nCOPY f /f\n"), ("f", "content\n")]);
    let (one, two) = (registry.name("team/one:1"), registry.name("team/two"));
    let metadata = at.join("metadata.json");
    let metadata_file = metadata.to_str().expect("text");
    let arguments = ["-t", &one, "-t", &two, "--push", "--metadata-file", metadata_file];
    let output = built(&engine, &arguments, &at);
    for text in [format!("pushing {one}"), format!("pushing manifest for {two}:latest@sha256:")] {
        assert!(output.contains(&text), "{text}\n{output}");
    }
    let digest = registry.digest("team/one", "1").expect("the first name");
    assert_eq!(registry.digest("team/two", "latest"), Some(digest.clone()));
    let metadata: Value = serde_json::from_slice(&fs::read(&metadata).expect("it")).expect("JSON");
    assert_eq!(metadata["containerimage.digest"], digest.as_str());
    assert_eq!(metadata["image.name"], format!("{one},{two}:latest"));
    let image = engine.inspect(&one);
    assert_eq!(metadata["containerimage.config.digest"], image["Id"]);
    let by_digest = Value::from(format!("{}@{digest}", registry.name("team/one")));
    assert!(image["RepoDigests"].as_array().expect("names").contains(&by_digest), "{image}");
    let usual = manifest(&registry, "team/one", "1");
    assert_eq!(layer_types(&usual), ["application/vnd.oci.image.layer.v1.tar+gzip"; 2]);
    engine.ok(&["rmi", &one, &two]);
    assert_eq!(engine.ok(&["run", "--rm", &one, "cat", "/f"]), "content");

    // Nothing stays here of what is only pushed, and it is packed as asked for.
    let output = |tag: &str, more: &str| {
        format!("type=registry,store=false,name={},{more}", registry.name(&format!("team/x:{tag}")))
    };
    for (tag, more, manifest_type, layer) in [
        (
            "zstd",
            "compression=zstd,force-compression=true,compression-level=3",
            "application/vnd.oci.image.manifest.v1+json",
            "application/vnd.oci.image.layer.v1.tar+zstd",
        ),
        (
            "plain",
            "compression=uncompressed,force-compression=true",
            "application/vnd.oci.image.manifest.v1+json",
            "application/vnd.oci.image.layer.v1.tar",
        ),
        (
            "docker",
            "oci-mediatypes=false",
            "application/vnd.docker.distribution.manifest.v2+json",
            "application/vnd.docker.image.rootfs.diff.tar.gzip",
        ),
    ] {
        built(&engine, &["-o", &output(tag, more)], &at);
        let pushed = manifest(&registry, "team/x", tag);
        assert_eq!(pushed["mediaType"], manifest_type);
        assert_eq!(layer_types(&pushed), [layer; 2]);
        let name = registry.name(&format!("team/x:{tag}"));
        assert_ne!(engine.docker(&["image", "inspect", &name]).code, 0, "{name} is stored");
        assert_eq!(engine.ok(&["run", "--rm", &name, "cat", "/f"]), "content");
    }

    // By its digest only.
    let silent = format!("type=image,push=true,push-by-digest=true,name={}", registry.name("only"));
    let arguments = ["-o", silent.as_str(), "--metadata-file", metadata_file];
    built(&engine, &arguments, &at);
    assert_eq!(registry.digest("only", "latest"), None);
    let metadata: Value =
        serde_json::from_slice(&fs::read(at.join("metadata.json")).expect("it")).expect("JSON");
    let digest = metadata["containerimage.digest"].as_str().expect("a digest");
    let name = format!("{}@{digest}", registry.name("only"));
    assert_eq!(engine.ok(&["run", "--rm", &name, "cat", "/f"]), "content");
}

#[test]
fn a_list_is_pushed_for_all_platforms() {
    let Some(engine) = engine() else { return };
    let Some(registry) = Registry::start_or_skip() else { return };
    let text = "FROM scratch\nARG TARGETARCH\nCOPY file-$TARGETARCH /file\n";
    let files = [("Dockerfile", text), ("file-amd64", "amd\n"), ("file-arm64", "arm\n")];
    let at = context(&engine, &files);
    let name = registry.name("team/list:1");
    let metadata = at.join("metadata.json");
    let arguments = [
        "--platform=linux/amd64,linux/arm64",
        "--push",
        "-t",
        &name,
        "--metadata-file",
        metadata.to_str().expect("text"),
    ];
    built(&engine, &arguments, &at);
    let digest = registry.digest("team/list", "1").expect("the list");
    let list = registry.document(&digest);
    assert_eq!(list["mediaType"], "application/vnd.oci.image.index.v1+json");
    let manifests = list["manifests"].as_array().expect("manifests");
    let found: Vec<&str> = manifests
        .iter()
        .map(|manifest| manifest["platform"]["architecture"].as_str().expect("text"))
        .collect();
    assert_eq!(found, ["amd64", "arm64"]);
    for manifest in manifests {
        let document = registry.document(manifest["digest"].as_str().expect("a digest"));
        assert_eq!(layer_types(&document).len(), 1);
        let config = registry.document(document["config"]["digest"].as_str().expect("a digest"));
        assert_eq!(config["architecture"], manifest["platform"]["architecture"]);
    }
    let metadata: Value = serde_json::from_slice(&fs::read(&metadata).expect("it")).expect("JSON");
    assert_eq!(metadata["containerimage.digest"], digest.as_str());
    // Here the name is known by that digest, too, until it has another index.
    let by_digest = format!("{}@{digest}", registry.name("team/list"));
    assert_eq!(engine.inspect(&name)["RepoDigests"], Value::from(vec![by_digest.as_str()]));
    assert_eq!(engine.inspect(&by_digest)["Id"], engine.inspect(&name)["Id"]);
    fs::write(at.join("file-amd64"), "other\n").expect("a file");
    let output = format!("type=registry,store=false,name={name}");
    built(&engine, &["--platform=linux/amd64,linux/arm64", "-o", &output], &at);
    assert_ne!(registry.digest("team/list", "1"), Some(digest));
    assert_eq!(engine.inspect(&name)["RepoDigests"], Value::from(vec![by_digest.as_str()]));
}

#[test]
fn a_push_that_fails_fails_the_build() {
    let Some(engine) = engine() else { return };
    let Some(registry) = Registry::start_with_password_or_skip() else { return };
    let at = context(&engine, &[("Dockerfile", "FROM busybox\nLABEL of=this\n")]);
    let path = at.to_str().expect("text");
    let name = registry.name("team/x:1");
    let to = |more: &str| format!("type=image,push=true{more}");
    let tagged = to(&format!(",push-by-digest=true,name={name}"));
    let (unnamed, nowhere) = (to(""), to(",name=127.0.0.1:1/x"));
    for (arguments, words) in [
        (&["--push", "-t", &name][..], format!("failed to push {name}: ")),
        (&["--push", "-t", &name], "no basic auth credentials".to_owned()),
        (&["--push"], "tag is needed when pushing to registry".to_owned()),
        (&["-o", &unnamed], "tag is needed when pushing to registry".to_owned()),
        (&["-o", &tagged], format!("can't push tagged ref {name} by digest")),
        (&["-o", &nowhere], "failed to push 127.0.0.1:1/x:latest: ".to_owned()),
    ] {
        let failed = engine.silo(&[&["build"], arguments, &[path]].concat());
        assert_eq!(failed.code, 1, "{arguments:?}");
        assert!(failed.stderr.contains(&words), "{words}\n{}", failed.stderr);
    }
    assert_eq!(registry.digest("team/x", "1"), None);
    engine.ok(&["login", "-u", "me", "-p", "secret", registry.address()]);
    built(&engine, &["--push", "-t", &name], &at);
    assert!(registry.digest("team/x", "1").is_some());
}
