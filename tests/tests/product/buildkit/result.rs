//! Where the result of a build goes.

use std::os::unix::fs::PermissionsExt as _;

use silo_tests::{Engine, Kind};

use super::{build, built, context};

#[test]
fn results_come_to_the_client() {
    let engine = Engine::start();
    if !engine.has_plugins_or_skip()
        || !engine.builds_as_today_or_skip("older engines have no exporters of images for clients")
    {
        return;
    }
    let text = "FROM busybox AS files\nRUN mkdir /out && echo text > /out/f && chmod 600 /out/f \
                && ln -s f /out/l\nFROM scratch\nCOPY --from=files /out /\n";
    let folder = context(&engine, "c", &[("Dockerfile", text)]);
    let scratch = engine.scratch();
    let output = |kind: &str, to: &str| format!("type={kind},dest={}", scratch.join(to).display());

    built(&engine, &folder, &["-o", &output("local", "local")]);
    let local = scratch.join("local");
    assert_eq!(fs_err::read_to_string(local.join("f")).expect("a file"), "text\n");
    assert_eq!(fs_err::read_link(local.join("l")).expect("a link").to_str(), Some("f"));
    let mode = fs_err::metadata(local.join("f")).expect("a file").permissions().mode();
    assert_eq!(mode & 0o777, 0o600);

    let list = |file: &str| {
        let tar = std::process::Command::new("tar").arg("-tf").arg(scratch.join(file)).output();
        String::from_utf8(tar.expect("run tar").stdout).expect("text")
    };
    built(&engine, &folder, &["-o", &output("tar", "out.tar")]);
    let names = list("out.tar");
    assert!(names.lines().any(|name| name.trim_start_matches("./") == "f"), "{names}");

    let tag = format!("{}:latest", engine.name("exported"));
    built(&engine, &folder, &["-t", &tag, "-o", &output("docker", "docker.tar")]);
    assert_ne!(engine.docker(&["image", "inspect", &tag]).code, 0, "only the client has it");
    let archive = scratch.join("docker.tar");
    engine.ok(&["load", "-i", archive.to_str().expect("a path")]);
    engine.ok(&["image", "inspect", &tag]);

    built(&engine, &folder, &["-t", &tag, "-o", &output("oci", "oci.tar")]);
    let names = list("oci.tar");
    assert!(names.contains("oci-layout") && names.contains("index.json"), "{names}");
}

#[test]
fn the_image_is_named_everywhere() {
    let engine = Engine::start();
    if !engine.has_plugins_or_skip() {
        return;
    }
    let folder = context(&engine, "c", &[("Dockerfile", "FROM busybox\nLABEL a=b\n")]);
    let scratch = engine.scratch();
    let (one, two) = (engine.name("one"), engine.name("two"));
    let (id, metadata) = (scratch.join("id"), scratch.join("metadata"));
    let (id_file, metadata_file) =
        (id.to_str().expect("a path"), metadata.to_str().expect("a path"));
    let arguments = ["-t", one.as_str(), "-t", two.as_str(), "--load"];
    let files = ["--iidfile", id_file, "--metadata-file", metadata_file];
    built(&engine, &folder, &[&arguments[..], &files[..]].concat());
    let image = engine.ok(&["image", "inspect", "-f", "{{.Id}}", &one]);
    assert_eq!(image, engine.ok(&["image", "inspect", "-f", "{{.Id}}", &two]));
    assert_eq!(fs_err::read_to_string(id).expect("the id"), image);
    let metadata = fs_err::read_to_string(metadata).expect("the metadata");
    let metadata: serde_json::Value = serde_json::from_str(&metadata).expect("JSON");
    if engine.kind() == Kind::Silo {
        assert_eq!(metadata["containerimage.config.digest"], image.as_str());
    }
    let folder = folder.to_str().expect("a path");
    let again = engine.ok(&["buildx", "build", "-q", folder]);
    // There the id is that of an index, whose provenance says when it was made.
    assert!(again == image || engine.has_containerd_store(), "{again}");
}

#[test]
fn what_cannot_be_is_refused() {
    let engine = Engine::start();
    if !engine.has_plugins_or_skip() || !engine.is_silo_or_skip("what it cannot do differs") {
        return;
    }
    let folder = context(&engine, "c", &[("Dockerfile", "FROM busybox\n")]);
    for (arguments, words) in [
        (&["-o", "type=nonsense"][..], "exporter \"nonsense\" could not be found"),
        (&["--ulimit", "nofile=10", "--network", "elsewhere"][..], "network mode"),
    ] {
        let outcome = build(&engine, &folder, arguments);
        assert_ne!(outcome.code, 0, "{arguments:?}");
        assert!(outcome.stderr.contains(words), "{arguments:?}: {}", outcome.stderr);
    }
}

#[test]
fn the_cache_is_listed_and_pruned() {
    let engine = Engine::start();
    if !engine.has_plugins_or_skip() || !engine.is_alone_or_skip() {
        return;
    }
    let text = "FROM busybox\nRUN head -c 100000 /dev/zero > /f\n";
    let folder = context(&engine, "c", &[("Dockerfile", text)]);
    built(&engine, &folder, &["-o", "type=cacheonly"]);
    let usage = engine.ok(&["buildx", "du"]);
    assert!(usage.contains("Reclaimable:"), "{usage}");
    let history = engine.ok(&["buildx", "history", "ls"]);
    assert!(history.contains("Completed"), "{history}");
    let pruned = engine.ok(&["buildx", "prune", "-f"]);
    assert!(pruned.contains("Total:"), "{pruned}");
    let again = built(&engine, &folder, &["-o", "type=cacheonly"]);
    assert!(!again.contains("CACHED\n#4"), "{again}");
}
