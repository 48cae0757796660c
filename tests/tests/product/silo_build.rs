//! `silo build`: the engine's own command as a client of its builder.

mod cache;
mod platforms;
mod prune;
mod push;
mod ssh;

use std::path::{Path, PathBuf};

use fs_err as fs;
use silo_tests::{Engine, Outcome, feed, write_files};

fn engine() -> Option<Engine> {
    let engine = Engine::start();
    engine.is_silo_or_skip("the silo command is Silo's").then_some(engine)
}

fn context(engine: &Engine, files: &[(&str, &str)]) -> PathBuf {
    let directory = engine.scratch().join(engine.name("context"));
    write_files(&directory, files);
    directory
}

/// Builds, which must go well; what it wrote.
#[track_caller]
fn built(engine: &Engine, arguments: &[&str], path: &Path) -> String {
    let mut all = vec!["build", "--progress=plain"];
    all.extend(arguments);
    all.push(path.to_str().expect("text"));
    let done = engine.silo(&all);
    assert_eq!(done.code, 0, "{arguments:?}\n{}\n{}", done.stderr, engine.daemon_log());
    done.stderr
}

fn piped(engine: &Engine, arguments: &[&str], input: &[u8]) -> Outcome {
    feed(engine.silo_command().args(arguments), input)
}

#[test]
fn a_directory_becomes_an_image() {
    let Some(engine) = engine() else { return };
    let files = [
        (
            "Dockerfile",
            "FROM busybox AS first\nARG WHO=nobody\nCOPY src /src\n\
             RUN echo hello $WHO && ls -R /src\n\
             RUN --mount=type=secret,id=word cp /run/secrets/word /word\n\
             FROM busybox\nCOPY --from=first /src/a /word /\nLABEL from=file\n",
        ),
        (".dockerignore", "**/*.tmp\n"),
        ("src/a", "content"),
        ("src/b.tmp", "ignored"),
        ("secret", "pass"),
    ];
    let at = context(&engine, &files);
    let path = at.to_str().expect("a path");
    let (tag, id_file) = (engine.name("built"), at.join("id"));
    let secret = format!("id=word,src={path}/secret");
    let arguments = [
        "build",
        "-t",
        &tag,
        "--build-arg",
        "WHO=world",
        "--label",
        "also=flag",
        "--secret",
        &secret,
        "--iidfile",
        id_file.to_str().expect("a path"),
        path,
    ];
    let built = engine.silo(&arguments);
    assert_eq!(built.code, 0, "{}", built.stderr);
    assert!(built.stderr.contains("hello world") && !built.stderr.contains("b.tmp"));
    assert!(built.stderr.contains("[first 2/4] COPY src /src"), "{}", built.stderr);
    let image = engine.inspect(&tag);
    assert_eq!(image["Id"].as_str(), Some(fs::read_to_string(&id_file).expect("an id").as_str()));
    assert_eq!(image["Config"]["Labels"]["from"], "file");
    assert_eq!(image["Config"]["Labels"]["also"], "flag");
    assert_eq!(engine.ok(&["run", "--rm", &tag, "cat", "/a", "/word"]), "contentpass");
    let again = engine.silo(&arguments);
    let ran = |stderr: &str| stderr.lines().any(|line| line.ends_with(" hello world"));
    assert!(ran(&built.stderr) && !ran(&again.stderr), "{}", again.stderr);
    assert!(again.stderr.contains("CACHED"), "{}", again.stderr);
    fs::remove_file(&id_file).expect("removed");
    let quiet = engine.silo(&["build", "-q", "--secret", &secret, path]);
    assert!(quiet.stdout.starts_with("sha256:") && quiet.stderr.is_empty(), "{}", quiet.stderr);
}

#[test]
fn input_and_output_take_other_ways() {
    let Some(engine) = engine() else { return };
    let at =
        context(&engine, &[("Dockerfile", "FROM scratch\nCOPY file /dir/file\n"), ("file", "x")]);
    let path = at.to_str().expect("a path");
    let out = at.join("out");
    fs::create_dir(&out).expect("a directory");
    fs::write(out.join("before"), "stays").expect("a file");
    let built = engine.silo(&["build", "-o", out.to_str().expect("a path"), path]);
    assert_eq!(built.code, 0, "{}", built.stderr);
    assert_eq!(fs::read_to_string(out.join("dir/file")).expect("a file"), "x");
    assert_eq!(fs::read_to_string(out.join("before")).expect("a file"), "stays");
    let tar = at.join("files.tar");
    let output = format!("type=tar,dest={}", tar.display());
    assert_eq!(engine.silo(&["build", "-o", &output, path]).code, 0);
    let listed = std::process::Command::new("tar").arg("tf").arg(&tar).output().expect("tar");
    assert!(String::from_utf8_lossy(&listed.stdout).lines().any(|line| line == "dir/file"));

    let built = piped(&engine, &["build", "-q", "-"], b"FROM busybox\nRUN true\n");
    assert!(built.code == 0 && built.stdout.starts_with("sha256:"), "{}", built.stderr);
    let archive = std::process::Command::new("tar")
        .args(["-C", path, "-cf", "-", "Dockerfile", "file"])
        .output()
        .expect("tar");
    let built = piped(&engine, &["build", "-q", "-"], &archive.stdout);
    assert!(built.code == 0 && built.stdout.starts_with("sha256:"), "{}", built.stderr);
    let built = piped(&engine, &["build", "-q", "-f", "-", path], b"FROM scratch\nCOPY file /\n");
    assert!(built.code == 0 && built.stdout.starts_with("sha256:"), "{}", built.stderr);
    let checked = engine.silo(&["build", "--check", path]);
    assert_eq!((checked.code, checked.stdout.trim()), (0, "Check complete, no warnings found."));
    let warned = piped(&engine, &["build", "--check", "-"], b"from busybox\nRUN true\n");
    assert_eq!(warned.code, 1);
    assert!(warned.stdout.contains("WARNING: ConsistentInstructionCasing"), "{}", warned.stdout);
    // What takes knowledge of the base image and of the arguments: PATH comes from busybox.
    let text = b"FROM busybox\nARG given\nLABEL a=$PATH b=$given c=$nobody\n";
    let warned = piped(&engine, &["build", "--check", "--build-arg", "given=1", "-"], text);
    assert_eq!(warned.code, 1);
    let undefined = "WARNING: UndefinedVar";
    assert_eq!(warned.stdout.matches(undefined).count(), 1, "{}", warned.stdout);
    assert!(warned.stdout.contains("'$nobody'"), "{}", warned.stdout);
    let built = piped(&engine, &["build", "-"], text);
    assert_eq!((built.code, built.stderr.contains("UndefinedVar")), (0, true), "{}", built.stderr);
    let strict = [b"# check=error=true\n", text.as_slice()].concat();
    let refused = piped(&engine, &["build", "-"], &strict);
    assert_eq!(refused.code, 1);
    assert!(refused.stderr.contains("lint violation found"), "{}", refused.stderr);
    let skipping = ["build", "--build-arg", "BUILDKIT_DOCKERFILE_CHECK=skip=all", "-"];
    assert_eq!(piped(&engine, &skipping, &strict).code, 0);
}

#[test]
fn triggers_have_the_whole_context() {
    let Some(engine) = engine() else { return };
    let base = b"FROM busybox\nONBUILD COPY b /b\n";
    let tag = engine.name("base");
    assert_eq!(piped(&engine, &["build", "-t", &tag, "-"], base).code, 0);
    let own = format!("FROM {tag}\nCOPY a /a\n");
    let at = context(&engine, &[("Dockerfile", &own), ("a", "1"), ("b", "2")]);
    let built = engine.silo(&["build", "-t", &tag, at.to_str().expect("a path")]);
    assert_eq!(built.code, 0, "{}", built.stderr);
    assert_eq!(engine.ok(&["run", "--rm", &tag, "cat", "/a", "/b"]), "12");
}

#[test]
fn failures_show_where() {
    let Some(engine) = engine() else { return };
    let at = context(&engine, &[("Dockerfile", "FROM busybox\nRUN echo first; exit 3\n")]);
    let path = at.to_str().expect("a path");
    let failed = engine.silo(&["build", path]);
    assert_eq!(failed.code, 1);
    let end = "------\n > [2/2] RUN echo first; exit 3:\nfirst\n------\nDockerfile:2\n\
               --------------------\n   1 |     FROM busybox\n   2 | >>> RUN echo first; exit 3\n   \
               3 |     \n--------------------\nERROR: failed to build: failed to solve: process \
               \"/bin/sh -c echo first; exit 3\" did not complete successfully: exit code: 3\n";
    assert!(failed.stderr.ends_with(end), "{}", failed.stderr);
    let none = engine.silo(&["build", "/no/such/place"]);
    assert_eq!(
        none.stderr,
        "ERROR: unable to prepare context: path \"/no/such/place\" not found\n"
    );
    let bad = engine.silo(&["build", "--secret", "src=x", path]);
    assert!(bad.stderr.contains("id is missing"), "{}", bad.stderr);
}
