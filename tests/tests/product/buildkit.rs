//! `docker buildx build`, `docker compose build`, and `docker build` of clients that speak
//! BuildKit's protocol themselves.

mod attest;
mod cache;
mod context;
mod push;
mod result;

use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use silo_tests::{Engine, Outcome, process, write_files};

/// A context of these files.
fn context(engine: &Engine, name: &str, files: &[(&str, &str)]) -> PathBuf {
    let folder = engine.scratch().join(name);
    write_files(&folder, files);
    folder
}

/// Builds with `buildx`.
fn build(engine: &Engine, context: &Path, arguments: &[&str]) -> Outcome {
    let mut command = engine.docker_command();
    command.args(["buildx", "build", "--progress=plain"]).args(arguments).arg(context);
    command.output().expect("run docker").into()
}

/// Builds what must succeed; what the builder said.
#[track_caller]
fn built(engine: &Engine, context: &Path, arguments: &[&str]) -> String {
    let command = format!("docker buildx build {arguments:?}");
    engine.succeeded(&command, build(engine, context, arguments)).stderr
}

/// Are these texts in `output`, in this order?
#[track_caller]
fn in_order(output: &str, texts: &[&str]) {
    let mut rest = output;
    for text in texts {
        let Some(at) = rest.find(text) else { panic!("no {text:?} after\n{output}\nrest: {rest}") };
        rest = &rest[at + text.len()..];
    }
}

#[test]
fn an_image_is_built_shown_and_cached() {
    let engine = Engine::start();
    if !engine.has_plugins_or_skip() {
        return;
    }
    let tag = engine.name("image");
    let context = context(
        &engine,
        "c",
        &[
            (
                "Dockerfile",
                // Nobody else has built this.
                &format!(
                    "FROM busybox AS one\n\
                     ENV OF={tag}\n\
                     RUN echo from the step; echo more > /more\n\
                     FROM busybox\n\
                     ARG WHO=world\n\
                     COPY --from=one /more /more\n\
                     COPY hello /hello\n\
                     ENV WHO=$WHO\n\
                     CMD [\"sh\", \"-c\", \"cat /hello /more; echo $WHO\"]\n"
                ),
            ),
            ("hello", "hello\n"),
        ],
    );
    let arguments = ["-t", tag.as_str(), "--build-arg", "WHO=you", "--label", "a=b"];
    let first = built(&engine, &context, &arguments);
    in_order(
        &first,
        &[
            "[internal] load build definition from Dockerfile",
            "transferring dockerfile:",
            "exporting to image",
            // Where images are in containerd's store, the last of several documents.
            if engine.has_containerd_store() { "exporting manifest list" } else { "writing image" },
            " sha256:",
            "naming to docker.io/",
        ],
    );
    assert!(first.contains("RUN echo from the step"), "{first}");
    assert!(first.contains(" from the step\n"), "{first}");
    assert!(first.contains("[internal] load .dockerignore"), "{first}");
    assert!(first.contains("[internal] load build context"), "{first}");
    assert_eq!(engine.ok(&["run", "--rm", &tag]), "hello\nmore\nyou");
    let labels = engine.ok(&["image", "inspect", "-f", "{{json .Config.Labels}}", &tag]);
    assert_eq!(labels, r#"{"a":"b"}"#);

    let again = built(&engine, &context, &arguments);
    assert!(again.matches("CACHED").count() >= 3, "{again}");
    assert!(!again.contains(" from the step\n"), "{again}");
    let fresh = built(&engine, &context, &["--no-cache", "-t", &tag]);
    assert!(fresh.contains(" from the step\n"), "{fresh}");
    assert_eq!(engine.ok(&["run", "--rm", &tag]), "hello\nmore\nworld");
}

#[test]
fn errors_show_their_lines() {
    let engine = Engine::start();
    if !engine.has_plugins_or_skip() || !engine.builds_as_today_or_skip("older engines do not") {
        return;
    }
    for (text, expected) in [
        (
            "FROM busybox\nRUN true\nRUN echo before; exit 3\nRUN never\n",
            &[
                "before\n",
                "Dockerfile:3\n",
                "   2 |     RUN true\n   3 | >>> RUN echo before; exit 3\n   4 |     RUN never\n",
                "process \"/bin/sh -c echo before; exit 3\" did not complete successfully: \
                 exit code: 3",
            ][..],
        ),
        (
            "FROM busybox\nFOO bar\n",
            &["Dockerfile:2\n", "   2 | >>> FOO bar\n", "unknown instruction: FOO"][..],
        ),
        (
            "FROM busybox\nCOPY nothing /x\n",
            &["   2 | >>> COPY nothing /x\n", "\"/nothing\": not found"][..],
        ),
    ] {
        let context = context(&engine, "c", &[("Dockerfile", text)]);
        let outcome = build(&engine, &context, &[]);
        assert_ne!(outcome.code, 0, "{text}");
        in_order(&outcome.stderr, expected);
    }
    let context = context(&engine, "c", &[("Dockerfile", "FROM busybox\n")]);
    let outcome = build(&engine, &context, &["--target", "nowhere"]);
    assert!(outcome.stderr.contains("target stage \"nowhere\" could not be found"));
    let outcome = build(&engine, &context, &["-f", "other"]);
    assert!(outcome.stderr.contains("no such file or directory"), "{}", outcome.stderr);
}

#[test]
fn a_dockerfile_is_checked_and_described() {
    let engine = Engine::start();
    if !engine.has_plugins_or_skip() || !engine.builds_as_today_or_skip("older engines cannot") {
        return;
    }
    let text = "# first is where all begins\nFROM busybox AS first\nARG WHO=world\nFROM first\n\
                RUN --mount=type=secret,id=token,required=true true\nMAINTAINER me\n";
    let context = context(&engine, "c", &[("Dockerfile", text)]);
    let checked = build(&engine, &context, &["--check"]);
    assert_ne!(checked.code, 0);
    in_order(
        &checked.stdout,
        &[
            "1 warning has been found",
            "WARNING: MaintainerDeprecated - https://docs.docker.com/",
            "   6 | >>> MAINTAINER me",
        ],
    );
    let outline = build(&engine, &context, &["--call", "outline"]);
    in_order(&outline.stdout, &["BUILD ARG", "WHO", "world", "SECRET", "token", "true"]);
    let targets = build(&engine, &context, &["--call", "targets"]);
    in_order(&targets.stdout, &["TARGET", "first", "is where all begins", "(default)"]);
    let fine = self::context(&engine, "fine", &[("Dockerfile", "FROM busybox\n")]);
    let checked = build(&engine, &fine, &["--check"]);
    assert_eq!(checked.code, 0, "{}", checked.stderr);
    assert!(checked.stdout.contains("no warnings found"), "{}", checked.stdout);
    // A build that goes on says it as well.
    let built = built(&engine, &context, &["--target", "first"]);
    assert!(built.contains("MaintainerDeprecated"), "{built}");
}

#[test]
fn secrets_reach_a_step_and_stay_out_of_the_image() {
    let engine = Engine::start();
    if !engine.has_plugins_or_skip() {
        return;
    }
    let (tag, text) = (
        engine.name("image"),
        "FROM busybox\n\
         RUN --mount=type=secret,id=token cat /run/secrets/token > /copy; ls -l /run/secrets\n\
         RUN test ! -e /run/secrets/token\n",
    );
    let context = context(&engine, "c", &[("Dockerfile", text)]);
    let secret = engine.scratch().join("token");
    fs_err::write(&secret, "s3cret").expect("a secret");
    let given = format!("id=token,src={}", secret.display());
    built(&engine, &context, &["-t", &tag, "--secret", &given]);
    assert_eq!(engine.ok(&["run", "--rm", &tag, "cat", "/copy"]), "s3cret");
    let fails = "FROM busybox\nRUN --mount=type=secret,id=other,required=true true\n";
    let context = self::context(&engine, "c", &[("Dockerfile", fails)]);
    let outcome = build(&engine, &context, &["--secret", &given]);
    assert_ne!(outcome.code, 0);
    // Older engines have no colon.
    let words = ["other: not found", "other not found"];
    let is_said = words.iter().any(|words| outcome.stderr.contains(words));
    assert!(is_said, "{}", outcome.stderr);
}

#[test]
fn an_ssh_agent_reaches_a_step() {
    let engine = Engine::start();
    if !engine.has_plugins_or_skip() {
        return;
    }
    // The agent is never asked: a socket that listens is enough for the client.
    let socket = engine.scratch().join("agent");
    let _agent = std::os::unix::net::UnixListener::bind(&socket).expect("a socket");
    let text = "FROM busybox\nRUN --mount=type=ssh test -S \"$SSH_AUTH_SOCK\"\n";
    let context = context(&engine, "c", &[("Dockerfile", text)]);
    built(&engine, &context, &["--ssh", &format!("default={}", socket.display())]);
    let text = "FROM busybox\nRUN --mount=type=ssh,required=true true\n";
    let context = self::context(&engine, "c", &[("Dockerfile", text)]);
    assert_ne!(build(&engine, &context, &[]).code, 0);
}

#[test]
fn a_client_that_goes_takes_its_build_with_it() {
    let engine = Engine::start();
    if !engine.has_plugins_or_skip() {
        return;
    }
    let seconds = format!("4{}", std::process::id());
    let text = format!("FROM busybox\nRUN echo started; exec sleep {seconds}\n");
    let context = context(&engine, "c", &[("Dockerfile", &text)]);
    let mut client = engine
        .docker_command()
        .args(["buildx", "build", "--progress=plain"])
        .arg(&context)
        .stderr(Stdio::piped())
        .process_group(0)
        .spawn()
        .expect("run docker");
    let stderr = std::io::BufReader::new(client.stderr.take().expect("standard error"));
    let mut lines = std::io::BufRead::lines(stderr);
    let started = lines.any(|line| line.expect("a line").ends_with(" started"));
    assert!(started, "{}", engine.daemon_log());
    // It becomes that program after it has said so.
    let step = loop {
        if let Some(step) = process(&["sleep", &seconds]) {
            break step;
        }
        std::thread::yield_now();
    };
    // Older command lines leave their plugin behind when they are killed alone.
    let group = rustix::process::Pid::from_child(&client);
    let killed = rustix::process::kill_process_group(group, rustix::process::Signal::KILL);
    killed.expect("kill the client");
    client.wait().expect("reap the client");
    // The step's process ends; the descriptor says when.
    let timeout = rustix::event::Timespec { tv_sec: 60, tv_nsec: 0 };
    let mut ended = [rustix::event::PollFd::new(&step, rustix::event::PollFlags::IN)];
    let count = rustix::event::poll(&mut ended, Some(&timeout)).expect("poll");
    assert_eq!(count, 1, "the step goes on without its client");
    // And the engine goes on.
    let context = self::context(&engine, "d", &[("Dockerfile", "FROM busybox\nRUN true\n")]);
    built(&engine, &context, &[]);
}

#[test]
fn compose_builds_its_services() {
    let engine = Engine::start();
    if !engine.has_plugins_or_skip() {
        return;
    }
    let project = engine.name("project");
    let folder = context(
        &engine,
        "project",
        &[
            ("web/Dockerfile", "FROM busybox\nARG V=0\nCOPY page /page\nRUN echo $V > /v\n"),
            ("web/page", "a page\n"),
            ("db/Dockerfile", "FROM busybox\nRUN echo db > /v\n"),
            (
                "compose.yaml",
                "services:\n  web:\n    build:\n      context: web\n      args:\n        V: \"7\"\n  \
                 db:\n    build: db\n",
            ),
        ],
    );
    for bake in ["true", "false"] {
        let mut command = engine.docker_command();
        let outcome: Outcome = command
            .args(["compose", "-p", &project, "--project-directory"])
            .arg(&folder)
            .args(["build"])
            .env("COMPOSE_BAKE", bake)
            .output()
            .expect("run docker")
            .into();
        assert_eq!(outcome.code, 0, "{}", outcome.stderr);
        for (service, text) in [("web", "7"), ("db", "db")] {
            let image = format!("{project}-{service}");
            assert_eq!(engine.ok(&["run", "--rm", &image, "cat", "/v"]), text);
            engine.ok(&["rmi", "-f", &image]);
        }
    }
}

#[test]
fn clients_without_buildx_speak_to_the_builder_too() {
    let engine = Engine::start();
    let version = engine.docker(&["--version"]).stdout;
    if !version.contains("version 20.") {
        silo_tests::skip(
            "clients_without_buildx_speak_to_the_builder_too",
            "newer command lines leave it to buildx",
        );
        return;
    }
    let tag = engine.name("image");
    let text = "FROM busybox\nRUN echo from the step\nCOPY hello /hello\n";
    let context = context(&engine, "c", &[("Dockerfile", text), ("hello", "hello\n")]);
    let run = |arguments: &[&str]| -> Outcome {
        let mut command = engine.docker_command();
        command.env("DOCKER_BUILDKIT", "1").args(["build", "--progress=plain"]);
        command.args(arguments).arg(&context).output().expect("run docker").into()
    };
    let first = run(&["-t", &tag]);
    assert_eq!(first.code, 0, "{}", first.stderr);
    in_order(
        &first.stderr,
        &["[internal] load build definition from Dockerfile", "exporting to image", "naming to"],
    );
    assert!(first.stderr.contains(" from the step\n"), "{}", first.stderr);
    assert_eq!(engine.ok(&["run", "--rm", &tag, "cat", "/hello"]), "hello");
    let quiet = run(&["-q"]);
    assert_eq!(quiet.stdout.trim(), engine.ok(&["image", "inspect", "-f", "{{.Id}}", &tag]));
    let out = engine.scratch().join("out");
    let local = run(&["-o", out.to_str().expect("a path")]);
    assert_eq!(local.code, 0, "{}", local.stderr);
    assert_eq!(fs_err::read_to_string(out.join("hello")).expect("the file"), "hello\n");
    fs_err::write(context.join("Dockerfile"), "FROM busybox\nRUN exit 7\n").expect("a file");
    let failed = run(&[]);
    assert_ne!(failed.code, 0);
    assert!(failed.stderr.contains("exit code: 7"), "{}", failed.stderr);

    let tar = std::process::Command::new("tar")
        .args(["-c", "--transform=s,^./,,", "-C"])
        .arg(self::context(&engine, "t", &[("Dockerfile", text), ("hello", "tar\n")]))
        .arg(".")
        .output()
        .expect("run tar");
    let outcome =
        engine.docker_with_input(&["build", "--progress=plain", "-t", &tag, "-"], &tar.stdout);
    assert_eq!(outcome.code, 0, "{}", outcome.stderr);
    assert_eq!(engine.ok(&["run", "--rm", &tag, "cat", "/hello"]), "tar");
}
