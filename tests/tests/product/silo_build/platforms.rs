//! Several platforms in one build, and images of layouts as contexts.

use std::path::Path;
use std::process::Command;

use fs_err as fs;
use serde_json::Value;

use super::{built, context, engine};

const BASE: &str = "FROM scratch\nARG TARGETPLATFORM\nARG TARGETARCH\nLABEL for=$TARGETPLATFORM\n\
    COPY file-$TARGETARCH /file\n";

fn json(path: &Path) -> Value {
    serde_json::from_slice(&fs::read(path).expect("a document")).expect("JSON")
}

/// Unpacks an archive beside itself.
fn unpacked(archive: &Path) -> std::path::PathBuf {
    let directory = archive.with_extension("layout");
    fs::create_dir_all(&directory).expect("a directory");
    let done = Command::new("tar").arg("-C").arg(&directory).arg("-xf").arg(archive).status();
    assert!(done.expect("tar").success());
    directory
}

/// The platforms of a layout's index, and their manifests.
fn platforms(layout: &Path) -> Vec<(String, Value)> {
    let blob = |descriptor: &Value| {
        let digest = descriptor["digest"].as_str().expect("a digest");
        json(&layout.join("blobs").join(digest.replace(':', "/")))
    };
    let index = json(&layout.join("index.json"));
    let list = blob(&index["manifests"][0]);
    let manifests = list["manifests"].as_array().expect("manifests");
    manifests
        .iter()
        .map(|descriptor| {
            let text = |name: &str| descriptor["platform"][name].as_str().unwrap_or_default();
            let config = blob(&blob(descriptor)["config"]);
            (format!("{}/{}", text("os"), text("architecture")), config)
        })
        .collect()
}

#[test]
fn a_list_of_images_is_built_and_built_upon() {
    let Some(engine) = engine() else { return };
    let base = [("Dockerfile", BASE), ("file-amd64", "amd\n"), ("file-arm64", "arm\n")];
    let base = context(&engine, &base);
    let archive = engine.scratch().join("base.tar");
    let output = format!("type=oci,dest={},name=base:1", archive.display());
    let both = "--platform=linux/amd64,linux/arm64";
    let shown = built(&engine, &[both, "-o", &output], &base);
    for platform in ["[linux/amd64 2/2] COPY file-amd64", "[linux/arm64 2/2] COPY file-arm64"] {
        assert!(shown.contains(platform), "{platform}\n{shown}");
    }
    let layout = unpacked(&archive);
    let found = platforms(&layout);
    assert_eq!(found.len(), 2, "{found:?}");
    for (platform, config) in &found {
        assert_eq!(&config["config"]["Labels"]["for"], platform);
        assert_eq!(config["architecture"], platform.split('/').next_back().expect("text"));
    }
    // What docker load takes of it is the image for this host.
    engine.ok(&["load", "-i", archive.to_str().expect("text")]);
    let host = engine.inspect("base:1")["Architecture"].as_str().expect("text").to_owned();
    let expected = ["amd64", "arm64"].contains(&host.as_str());
    assert!(expected, "{host}");

    // The layout is a base of both again: its name in the Dockerfile is an image's.
    let text = "FROM base\nCOPY --from=base /file /copy\n";
    let upon = context(&engine, &[("Dockerfile", text)]);
    let archive = engine.scratch().join("upon.tar");
    let output = format!("type=oci,dest={}", archive.display());
    let place = format!("base=oci-layout://{}:1", layout.display());
    built(&engine, &[both, "-o", &output, "--build-context", &place], &upon);
    let found = platforms(&unpacked(&archive));
    assert_eq!(found.len(), 2);
    for (platform, config) in &found {
        assert_eq!(&config["config"]["Labels"]["for"], platform);
        assert_eq!(config["rootfs"]["diff_ids"].as_array().expect("layers").len(), 2);
    }
    // One of them alone, with a digest in place of the name.
    let digest = json(&layout.join("index.json"))["manifests"][0]["digest"].clone();
    let place =
        format!("base=oci-layout://{}@{}", layout.display(), digest.as_str().expect("text"));
    let out = engine.scratch().join("files");
    let to = out.to_str().expect("text");
    let arm = ["--platform=linux/arm64", "-o", to, "--build-context", &place];
    built(&engine, &arm, &upon);
    assert_eq!(fs::read_to_string(out.join("copy")).expect("a file"), "arm\n");

    // The files of both, each in a directory.
    let list = format!("base=oci-layout://{}:1", layout.display());
    let several = engine.scratch().join("several");
    let to = several.to_str().expect("text");
    built(&engine, &[both, "-o", to, "--build-context", &list], &upon);
    let archive = engine.scratch().join("several.tar");
    let output = format!("type=tar,dest={}", archive.display());
    built(&engine, &[both, "-o", &output, "--build-context", &list], &upon);
    for directory in [several, unpacked(&archive)] {
        for (platform, content) in [("linux_amd64", "amd\n"), ("linux_arm64", "arm\n")] {
            let found = fs::read_to_string(directory.join(platform).join("copy")).expect("a file");
            assert_eq!(found, content);
        }
    }

    let refused = |arguments: &[&str], said: &str| {
        let mut all = vec!["build"];
        all.extend(arguments);
        all.push(upon.to_str().expect("text"));
        let done = engine.silo(&all);
        assert_eq!(done.code, 1, "{arguments:?}");
        assert!(done.stderr.contains(said), "{arguments:?}\n{}", done.stderr);
    };
    let other = ["--platform=linux/s390x", "--build-context", &place];
    refused(&other, "no match for platform in manifest");
    let nothing = format!("base=oci-layout://{}:9", layout.display());
    refused(&["--build-context", &nothing], "nothing has the name 9");
    refused(&["--build-context", "base=oci-layout:///no/such"], "is no OCI layout");
    // What the layout's documents and layers say is checked.
    for blob in fs::read_dir(layout.join("blobs/sha256")).expect("blobs") {
        let path = blob.expect("a blob").path();
        let mut bytes = fs::read(&path).expect("a blob");
        bytes.push(b' ');
        fs::write(&path, bytes).expect("a blob");
    }
    refused(&["--build-context", &place], "has digest");
}

#[test]
fn files_of_platforms_lie_together_or_apart() {
    let Some(engine) = engine() else { return };
    let both = "--platform=linux/amd64,linux/arm64";
    let together = engine.scratch().join("together");
    let one = format!("type=local,platform-split=false,dest={}", together.display());
    let text = "FROM scratch\nARG TARGETARCH\nCOPY file-$TARGETARCH /d/\n";
    let files = [("Dockerfile", text), ("file-amd64", "amd\n"), ("file-arm64", "arm\n")];
    let at = context(&engine, &files);
    built(&engine, &[both, "-o", &one], &at);
    for (name, content) in [("d/file-amd64", "amd\n"), ("d/file-arm64", "arm\n")] {
        assert_eq!(fs::read_to_string(together.join(name)).expect("a file"), content);
    }
    let split = format!("type=local,platform-split=true,dest={}", together.display());
    built(&engine, &["-o", &split, "--platform=linux/arm64"], &at);
    assert!(together.join("linux_arm64/d/file-arm64").exists());
    // With a file in common they cannot.
    fs::write(at.join("Dockerfile"), BASE).expect("a file");
    for (output, said) in [
        (
            one.as_str(),
            "cannot overwrite file from linux/amd64 with linux/arm64 when split option is disabled",
        ),
        ("type=local,dest=x,platform-split=perhaps", "non-bool value specified for platform-split"),
    ] {
        let done = engine.silo(&["build", both, "-o", output, at.to_str().expect("text")]);
        assert_eq!(done.code, 1, "{output}");
        assert!(done.stderr.contains(said), "{output}\n{}", done.stderr);
    }
}

#[test]
fn archives_have_the_form_that_is_asked_for() {
    let Some(engine) = engine() else { return };
    let text = "FROM busybox\nCOPY f /f\nCOPY f /g\n";
    let at = context(&engine, &[("Dockerfile", text), ("f", "content\n")]);
    let oci = "application/vnd.oci.image";
    for (number, (kind, more, manifest, layer)) in [
        ("oci", "", format!("{oci}.manifest.v1+json"), format!("{oci}.layer.v1.tar")),
        (
            "docker",
            ",compression=gzip,compression-level=9",
            format!("{oci}.manifest.v1+json"),
            format!("{oci}.layer.v1.tar+gzip"),
        ),
        (
            "oci",
            ",compression=zstd,force-compression=true",
            format!("{oci}.manifest.v1+json"),
            format!("{oci}.layer.v1.tar+zstd"),
        ),
        (
            "oci",
            ",compression=gzip,oci-mediatypes=false",
            "application/vnd.docker.distribution.manifest.v2+json".to_owned(),
            "application/vnd.docker.image.rootfs.diff.tar.gzip".to_owned(),
        ),
    ]
    .into_iter()
    .enumerate()
    {
        let archive = engine.scratch().join(format!("{number}.tar"));
        let name = engine.name(&format!("form{number}"));
        let output = format!("type={kind},dest={},name={name}{more}", archive.display());
        built(&engine, &["-o", &output], &at);
        let layout = unpacked(&archive);
        let index = json(&layout.join("index.json"));
        assert_eq!(index["manifests"][0]["mediaType"], manifest.as_str(), "{more}");
        let digest = index["manifests"][0]["digest"].as_str().expect("a digest");
        let document = json(&layout.join("blobs").join(digest.replace(':', "/")));
        let layers = document["layers"].as_array().expect("layers");
        assert_eq!(layers.len(), 3);
        for own in layers {
            assert_eq!(own["mediaType"], layer.as_str(), "{more}");
            let digest = own["digest"].as_str().expect("a digest").replace(':', "/");
            let size = fs::metadata(layout.join("blobs").join(digest)).expect("a blob").len();
            assert_eq!(own["size"], size);
        }
        engine.ok(&["load", "-i", archive.to_str().expect("text")]);
        assert_eq!(engine.ok(&["run", "--rm", &name, "cat", "/g"]), "content");
        engine.ok(&["rmi", "-f", &name]);
    }
    let list = engine.scratch().join("list.tar");
    let output = format!("type=oci,dest={},compression=gzip", list.display());
    let base = [("Dockerfile", BASE), ("file-amd64", "amd\n"), ("file-arm64", "arm\n")];
    let base = context(&engine, &base);
    built(&engine, &["--platform=linux/amd64,linux/arm64", "-o", &output], &base);
    assert_eq!(platforms(&unpacked(&list)).len(), 2);
    for (more, said) in [
        ("compression=estargz", "estargz: not supported by this version"),
        ("compression=lz4", "unsupported compression type lz4"),
        ("compression=zstd,oci-mediatypes=false", "zstd, which Docker has no type of layers for"),
        ("compression-level=x", "invalid compression-level value: x"),
    ] {
        let output = format!("type=oci,dest=/dev/null,{more}");
        let done = engine.silo(&["build", "-o", &output, at.to_str().expect("text")]);
        assert_eq!(done.code, 1, "{more}");
        assert!(done.stderr.contains(said), "{more}: {}", done.stderr);
    }
}

#[test]
fn programs_for_other_processors_are_an_error_before_they_start() {
    let Some(engine) = engine() else { return };
    let host = engine.inspect("busybox")["Architecture"].as_str().expect("text").to_owned();
    let foreign = if host == "s390x" { "ppc64le" } else { "s390x" };
    let platform = format!("--platform=linux/{foreign}");
    let run = context(&engine, &[("Dockerfile", "FROM scratch\nRUN [\"/x\"]\n")]);
    let failed = engine.silo(&["build", &platform, run.to_str().expect("text")]);
    assert_eq!(failed.code, 1);
    assert!(
        failed.stderr.contains("exec /x: exec format error: the stage is for linux/"),
        "{}",
        failed.stderr
    );
    // Steps that run nothing do, and stages of this host's run what they want.
    let text = "FROM --platform=$BUILDPLATFORM busybox AS build\nARG TARGETARCH\n\
                RUN echo made for $TARGETARCH > /made\nFROM scratch\nCOPY --from=build /made /\n\
                WORKDIR /w\n";
    let cross = context(&engine, &[("Dockerfile", text)]);
    let tag = engine.name("cross");
    built(&engine, &[&platform, "-t", &tag], &cross);
    assert_eq!(engine.inspect(&tag)["Architecture"], foreign);

    let wrong = context(&engine, &[("Dockerfile", "FROM busybox\nLABEL a=b\n")]);
    let path = wrong.to_str().expect("text");
    let warning = format!(
        "Base image busybox was pulled with platform \"linux/{host}\", expected \
         \"linux/{foreign}\" for current build"
    );
    let checked = engine.silo(&["build", "--check", &platform, path]);
    assert_eq!(checked.code, 1);
    assert!(checked.stdout.contains("InvalidBaseImagePlatform"), "{}", checked.stdout);
    assert!(checked.stdout.contains(&warning), "{}", checked.stdout);
    let failed = engine.silo(&["build", &platform, path]);
    assert_eq!(failed.code, 1);
    assert!(failed.stderr.contains("does not match the specified platform"), "{}", failed.stderr);
    assert_eq!(engine.silo(&["build", "--check", path]).code, 0);
}
