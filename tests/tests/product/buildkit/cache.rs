//! Caches that `buildx` takes and gives, layouts as contexts, and lists of images.

use fs_err as fs;
use silo_tests::{Engine, Kind};

use super::{build, built, context};

const TEXT: &str = "FROM busybox\nCOPY f /f\nRUN cat /f > /g\nWORKDIR /w\n";

/// Whether all three steps came from a cache. Silo says so of the base as well.
fn all_cached(engine: &Engine, output: &str) -> bool {
    let count = output.lines().filter(|line| line.ends_with("CACHED")).count();
    count >= if engine.kind() == Kind::Silo { 4 } else { 3 }
}

#[test]
fn a_cache_goes_to_a_directory_and_comes_from_it() {
    let one = Engine::start();
    if !one.has_plugins_or_skip() || !one.builds_as_today_or_skip("older engines cannot") {
        return;
    }
    let files = [("Dockerfile", TEXT), ("f", "file\n")];
    let directory = one.scratch().join("cache");
    let to = format!("type=local,dest={},mode=max", directory.display());
    let output = built(&one, &context(&one, "c", &files), &["--cache-to", &to]);
    assert!(output.contains("exporting cache to client directory"), "{output}");
    assert!(directory.join("index.json").exists());
    let two = Engine::start();
    assert!(two.has_plugins_or_skip());
    let from = format!("type=local,src={}", directory.display());
    let arguments = ["--cache-from", from.as_str(), "-t", "here"];
    let output = built(&two, &context(&two, "c", &files), &arguments);
    assert!(all_cached(&two, &output), "{output}");
    assert_eq!(two.ok(&["run", "--rm", "here", "cat", "/g"]), "file");
    if !two.is_silo_or_skip("what other builders refuse differs") {
        return;
    }
    let context = context(&two, "c", &files);
    let refused = build(&two, &context, &["--cache-to", "type=azblob"]);
    assert_ne!(refused.code, 0);
    assert!(refused.stderr.contains("there are inline, local and registry"), "{}", refused.stderr);
    let to = format!("type=local,dest={},compression=lz4", directory.display());
    let refused = build(&two, &context, &["--cache-to", &to]);
    assert!(refused.stderr.contains("unsupported compression type lz4"), "{}", refused.stderr);
    let to = format!("type=local,dest={},compression=zstd", directory.display());
    built(&two, &context, &["--cache-to", &to]);
}

#[test]
fn an_image_is_a_cache() {
    let one = Engine::start();
    if !one.has_plugins_or_skip() || !one.builds_as_today_or_skip("older engines cannot") {
        return;
    }
    let files = [("Dockerfile", TEXT), ("f", "file\n")];
    let arguments = ["--cache-to", "type=inline", "-t", "cached"];
    built(&one, &context(&one, "c", &files), &arguments);
    let archive = one.scratch().join("image.tar");
    one.ok(&["save", "-o", archive.to_str().expect("text"), "cached"]);
    let two = Engine::start();
    assert!(two.has_plugins_or_skip());
    two.ok(&["load", "-i", archive.to_str().expect("text")]);
    let output = built(&two, &context(&two, "c", &files), &["--cache-from", "cached"]);
    assert!(all_cached(&two, &output), "{output}");
}

#[test]
fn layouts_and_lists() {
    let engine = Engine::start();
    if !engine.has_plugins_or_skip() || !engine.builds_as_today_or_skip("older engines cannot") {
        return;
    }
    let base = [("Dockerfile", "FROM scratch\nARG TARGETARCH\nCOPY f /$TARGETARCH\n"), ("f", "x")];
    let base = context(&engine, "base", &base);
    let layout = engine.scratch().join("layout");
    fs::create_dir_all(&layout).expect("a directory");
    let archive = engine.scratch().join("base.tar");
    let output = format!("type=oci,dest={},name=base:latest", archive.display());
    built(&engine, &base, &["--platform", "linux/amd64,linux/arm64", "-o", &output]);
    let unpacked =
        std::process::Command::new("tar").arg("-C").arg(&layout).arg("-xf").arg(&archive).status();
    assert!(unpacked.expect("tar").success());
    let upon = context(&engine, "upon", &[("Dockerfile", "FROM base\nCOPY --from=base / /all/\n")]);
    let files = engine.scratch().join("files");
    for architecture in ["amd64", "arm64"] {
        let place = format!("base=oci-layout://{}:latest", layout.display());
        let to = files.join(architecture);
        let arguments = [
            "--platform",
            &format!("linux/{architecture}"),
            "--build-context",
            &place,
            "-o",
            to.to_str().expect("text"),
        ];
        built(&engine, &upon, &arguments);
        assert_eq!(fs::read_to_string(to.join("all").join(architecture)).expect("a file"), "x");
    }
    // Under one name of the store, and a base of both from there.
    let both = engine.name("both");
    built(&engine, &base, &["--platform", "linux/amd64,linux/arm64", "-t", &both]);
    let text = format!("FROM {both}\nCOPY --from={both} / /all/\n");
    let upon = context(&engine, "again", &[("Dockerfile", &text)]);
    let again = engine.name("again");
    built(&engine, &upon, &["--platform", "linux/arm64,linux/amd64", "-t", &again]);
    for architecture in ["amd64", "arm64"] {
        let platform = format!("linux/{architecture}");
        let container = engine.ok(&["create", "--platform", &platform, &again, "x"]);
        let listed = engine.docker(&["export", &container]).stdout;
        assert!(listed.contains(&format!("all/{architecture}")), "{architecture}");
        engine.ok(&["rm", &container]);
    }
}
