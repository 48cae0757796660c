//! `--cache-from` of the classic builder: an image's history and layers are its cache.

use fs_err as fs;
use silo_tests::Engine;

use super::{built, context, shell};

const DOCKERFILE: &str = "FROM busybox\nCOPY f /copied/f\nADD a.tar /added/\nWORKDIR /w\n\
    RUN cat /copied/f > /ran\n";

/// The instructions that were taken from the cache.
fn cached(output: &str) -> Vec<String> {
    let mut step = String::new();
    let mut cached = Vec::new();
    for line in output.lines() {
        if line.starts_with("Step ") {
            line.clone_into(&mut step);
        } else if line == " ---> Using cache" {
            cached.extend(
                step.split(" : ").nth(1).and_then(|text| text.split(' ').next()).map(str::to_owned),
            );
        }
    }
    cached
}

#[test]
fn copies_and_runs_come_from_an_image() {
    let one = Engine::start();
    let files = [("Dockerfile", DOCKERFILE), ("f", "file\n"), ("in/x", "x\n")];
    let prepare = |engine: &Engine| {
        let at = context(engine, &files);
        let tar = std::process::Command::new("tar")
            .args(["-C"])
            .arg(at.join("in"))
            .args(["--mtime=@1700000000", "--owner=0", "--group=0", "-cf"])
            .arg(at.join("a.tar"))
            .arg("x")
            .status();
        assert!(tar.expect("tar").success());
        at
    };
    let tag = one.name("cache");
    built(&one, &prepare(&one), &["-t", &tag]);
    let archive = one.scratch().join("image.tar");
    one.ok(&["save", "-o", archive.to_str().expect("text"), &tag]);

    let two = Engine::start();
    two.ok(&["load", "-i", archive.to_str().expect("text")]);
    let at = prepare(&two);
    let again = two.name("again");
    let output = built(&two, &at, &["-t", &again, "--cache-from", &tag]);
    assert_eq!(cached(&output), ["COPY", "ADD", "WORKDIR", "RUN"], "{output}");
    let layers = |engine: &Engine, name: &str| engine.inspect(name)["RootFS"]["Layers"].clone();
    assert_eq!(layers(&two, &again), layers(&one, &tag));
    assert_eq!(shell(&two, &again, "cat /ran /added/x"), "file\nx");

    // What is something else is not taken, nor what comes after it.
    fs::write(at.join("f"), "other\n").expect("a file");
    let output = built(&two, &at, &["-t", &again, "--cache-from", &tag]);
    assert_eq!(cached(&output), [""; 0], "{output}");
    assert_eq!(shell(&two, &again, "cat /ran"), "other");
}
