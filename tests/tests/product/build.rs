//! `docker build` by way of the classic endpoint. What only Silo's builder has is in
//! [`silo`](mod@silo), safety in [`safety`].

use std::path::{Path, PathBuf};
use std::process::Command;

use fs_err as fs;
use silo_tests::{Engine, Outcome, feed, write_files};

mod cache_from;
pub(crate) mod disk;
mod endings;
mod limits;
mod safety;
mod servers;
mod silo;
mod tutorials;
mod windows;

/// Files of a context: what a name ends with `/` is a directory.
fn context(engine: &Engine, files: &[(&str, &str)]) -> PathBuf {
    let directory = tempfile::Builder::new().prefix("context").tempdir_in(engine.scratch());
    let directory = directory.expect("a directory").keep();
    write_files(&directory, files);
    directory
}

/// Builds with the classic builder.
fn build(engine: &Engine, context: &Path, arguments: &[&str]) -> Outcome {
    let mut command = classic(engine);
    command.arg("build").args(arguments).arg(context).output().expect("run docker").into()
}

/// The `docker` command without BuildKit.
fn classic(engine: &Engine) -> Command {
    let mut command = engine.docker_command();
    command.env("DOCKER_BUILDKIT", "0");
    command
}

/// Builds what must succeed; what the builder said.
#[track_caller]
fn built(engine: &Engine, context: &Path, arguments: &[&str]) -> String {
    let command = format!("docker build {arguments:?}");
    engine.succeeded(&command, build(engine, context, arguments)).stdout
}

/// Runs a shell in an image.
#[track_caller]
fn shell(engine: &Engine, image: &str, script: &str) -> String {
    engine.ok(&["run", "--rm", "--entrypoint", "sh", image, "-c", script])
}

#[test]
fn steps_are_shown_and_the_image_works() {
    let engine = Engine::start();
    let tag = engine.name("image");
    let dockerfile = "FROM busybox\n\
        ENV GREETING=hello NAME=\"my world\"\n\
        COPY file.txt /app/\n\
        RUN echo $GREETING from the build; echo oops >&2\n\
        WORKDIR /app\n\
        CMD [\"sh\", \"-c\", \"echo $GREETING $NAME; cat file.txt; pwd\"]\n";
    let context = context(&engine, &[("Dockerfile", dockerfile), ("file.txt", "content\n")]);
    let names = ["--no-cache", "-t", &tag, "-t", &format!("{tag}:v2")];
    let output = built(&engine, &context, &names);
    for line in [
        "Step 1/6 : FROM busybox\n",
        "Step 4/6 : RUN echo $GREETING from the build; echo oops >&2\n ---> Running in ",
        "hello from the build\n",
        "oops",
        "Step 6/6 : CMD [\"sh\", \"-c\", \"echo $GREETING $NAME; cat file.txt; pwd\"]\n",
        "Successfully built ",
        &format!("Successfully tagged {tag}:latest\nSuccessfully tagged {tag}:v2\n"),
    ] {
        assert!(output.contains(line), "{line:?} in {output}");
    }
    let run = engine.ok(&["run", "--rm", &tag]);
    assert_eq!(run, "hello my world\ncontent\n/app");
    let id = engine.inspect(&tag)["Id"].clone();
    let again = built(&engine, &context, &["-t", &tag]);
    assert_eq!(again.matches("Using cache").count(), 5, "{again}");
    assert_eq!(engine.inspect(&tag)["Id"], id);
    let fresh = built(&engine, &context, &["--no-cache", "-t", &tag]);
    assert!(!fresh.contains("Using cache"), "{fresh}");
    let quiet = built(&engine, &context, &["-q", "-t", &tag]);
    assert_eq!(quiet.trim(), engine.inspect(&tag)["Id"]);
    engine.ok(&["rmi", "-f", &tag, &format!("{tag}:v2")]);
}

#[test]
fn the_configuration_is_what_the_dockerfile_says() {
    let engine = Engine::start();
    let tag = engine.name("config");
    let dockerfile = "ARG BASE=busybox\n\
        FROM $BASE\n\
        ARG VERSION=1\n\
        LABEL version=$VERSION \"a b\"='c d'\n\
        ENV A=x\n\
        ENV B=${A}y C=${NOT:-z} D=${A:+w}\n\
        EXPOSE 80 53/udp 8000-8001\n\
        VOLUME [\"/data\", \"/more\"]\n\
        USER user\n\
        WORKDIR /a\n\
        WORKDIR b\n\
        STOPSIGNAL SIGINT\n\
        HEALTHCHECK --interval=5s --retries=2 CMD test -f /ok\n\
        SHELL [\"/bin/sh\", \"-ec\"]\n\
        ENTRYPOINT echo entry\n\
        CMD [\"one\", \"two\"]\n\
        ONBUILD RUN touch /triggered\n";
    let context = context(&engine, &[("sub/Other", dockerfile)]);
    let file = context.join("sub/Other");
    let file = file.to_str().expect("UTF-8");
    let arguments = ["-f", file, "--build-arg", "VERSION=7", "--label", "extra=1", "-t", &tag];
    built(&engine, &context, &arguments);
    let config = &engine.inspect(&tag)["Config"];
    let expected = serde_json::json!({
        "Labels": {"version": "7", "a b": "c d", "extra": "1"},
        "ExposedPorts": {"80/tcp": {}, "53/udp": {}, "8000/tcp": {}, "8001/tcp": {}},
        "Volumes": {"/data": {}, "/more": {}},
        "User": "user",
        "WorkingDir": "/a/b",
        "StopSignal": "SIGINT",
        "Shell": ["/bin/sh", "-ec"],
        "Entrypoint": ["/bin/sh", "-ec", "echo entry"],
        "Cmd": ["one", "two"],
        "OnBuild": ["RUN touch /triggered"],
    });
    for (key, value) in expected.as_object().expect("an object") {
        assert_eq!(&config[key], value, "{key}");
    }
    assert_eq!(config["Healthcheck"]["Test"], serde_json::json!(["CMD-SHELL", "test -f /ok"]));
    assert_eq!(config["Healthcheck"]["Interval"], 5_000_000_000_i64);
    let env = config["Env"].as_array().expect("a list");
    for variable in ["A=x", "B=xy", "C=z", "D=w"] {
        assert!(env.iter().any(|found| found == variable), "{variable} in {env:?}");
    }
    engine.ok(&["rmi", "-f", &tag]);
}

#[test]
fn stages_hand_files_on() {
    let engine = Engine::start();
    let tag = engine.name("stages");
    let dockerfile = "FROM busybox AS build\n\
        RUN mkdir -p /out/deep && echo made > /out/deep/file && ln -s deep/file /out/link\n\
        FROM busybox AS middle\n\
        COPY --from=build /out /in\n\
        COPY --from=0 /out/link /followed\n\
        FROM middle\n\
        COPY --from=busybox /etc/passwd /passwd\n\
        COPY --from=middle /in/deep/ /again/\n";
    let context = context(&engine, &[("Dockerfile", dockerfile)]);
    built(&engine, &context, &["-t", &tag]);
    let found = shell(
        &engine,
        &tag,
        "cat /in/deep/file /followed /again/file; readlink /in/link; grep -c root /passwd",
    );
    assert_eq!(found, "made\nmade\nmade\ndeep/file\n1");
    let middle = engine.name("middle");
    built(&engine, &context, &["--target", "middle", "-t", &middle]);
    shell(&engine, &middle, "test -e /followed && test ! -e /passwd");
    let error = build(&engine, &context, &["--target", "nothing"]).stderr;
    assert!(error.contains("nothing"), "{error}");
    engine.ok(&["rmi", "-f", &tag, &middle]);
}

#[test]
fn copies_follow_the_rules() {
    let engine = Engine::start();
    let tag = engine.name("copy");
    let dockerfile = "FROM busybox\n\
        RUN mkdir -p /there/sub /real && ln -s /real /link && echo old > /there/sub/keep\n\
        COPY one.txt /file\n\
        COPY one.txt /dir/\n\
        COPY one.txt two.txt /both/\n\
        COPY *.txt /stars/\n\
        COPY tree /tree\n\
        COPY tree /there\n\
        COPY one.txt /link/\n\
        COPY --chown=user:extra one.txt /owned\n\
        COPY --chown=5 one.txt /numbered\n\
        WORKDIR /work\n\
        COPY one.txt ./\n\
        COPY one.txt renamed\n\
        COPY [\"with space\", \"/space dir/\"]\n";
    let files = [
        ("Dockerfile", dockerfile),
        ("one.txt", "1\n"),
        ("two.txt", "2\n"),
        ("with space", "s\n"),
        ("tree/sub/new", "n\n"),
        ("tree/top", "t\n"),
        ("tree/empty/", ""),
    ];
    let context = context(&engine, &files);
    fs::set_permissions(
        context.join("tree/top"),
        std::os::unix::fs::PermissionsExt::from_mode(0o711),
    )
    .expect("a mode");
    built(&engine, &context, &["-t", &tag]);
    for (script, expected) in [
        ("cat /file /dir/one.txt", "1\n1"),
        ("ls /both /stars", "/both:\none.txt\ntwo.txt\n\n/stars:\none.txt\ntwo.txt"),
        ("ls /tree /tree/empty; cat /tree/sub/new", "/tree:\nempty\nsub\ntop\n\n/tree/empty:\nn"),
        ("cat /there/sub/keep /there/sub/new", "old\nn"),
        ("ls /real", "one.txt"),
        (
            "stat -c '%u:%g %a' /owned /numbered /file /tree/top",
            "1000:2000 644\n5:5 644\n0:0 644\n0:0 711",
        ),
        ("ls /work; cat /work/renamed", "one.txt\nrenamed\n1"),
        ("cat '/space dir/with space'", "s"),
    ] {
        assert_eq!(shell(&engine, &tag, script), expected, "{script}");
    }
    engine.ok(&["rmi", "-f", &tag]);
}

#[test]
fn archives_are_unpacked_by_add_alone() {
    let engine = Engine::start();
    let tag = engine.name("add");
    let dockerfile = "FROM busybox\n\
        ADD files.tar.gz /added/\n\
        COPY files.tar.gz /copied/\n\
        ADD plain.txt /plain/\n\
        ADD files.tar /tarred\n";
    let context =
        context(&engine, &[("Dockerfile", dockerfile), ("plain.txt", "p\n"), ("x/y", "z\n")]);
    for arguments in [["-cf", "files.tar"], ["-czf", "files.tar.gz"]] {
        let status = std::process::Command::new("tar")
            .args(["--owner=12", "--group=34", "-C"])
            .arg(&context)
            .args(arguments)
            .arg("x")
            .current_dir(&context)
            .status()
            .expect("run tar");
        assert!(status.success());
    }
    built(&engine, &context, &["-t", &tag]);
    let found = shell(
        &engine,
        &tag,
        "cat /added/x/y /tarred/x/y /plain/plain.txt; ls /copied; stat -c %u:%g /added/x/y",
    );
    assert_eq!(found, "z\nz\np\nfiles.tar.gz\n12:34");
    engine.ok(&["rmi", "-f", &tag]);
}

#[test]
fn only_what_changed_is_done_again() {
    let engine = Engine::start();
    let tag = engine.name("cache");
    let dockerfile = "FROM busybox\nRUN echo first > /first\nCOPY file /file\nRUN cp /file /copy\n";
    let context = context(&engine, &[("Dockerfile", dockerfile), ("file", "1\n")]);
    built(&engine, &context, &["-t", &tag]);
    // Times do not count, contents do.
    fs::write(context.join("file"), "1\n").expect("a file");
    let same = built(&engine, &context, &["-t", &tag]);
    assert_eq!(same.matches("Using cache").count(), 3, "{same}");
    fs::write(context.join("file"), "2\n").expect("a file");
    let changed = built(&engine, &context, &["-t", &tag]);
    assert_eq!(changed.matches("Using cache").count(), 1, "{changed}");
    assert_eq!(shell(&engine, &tag, "cat /copy"), "2");
    let args = "FROM busybox\nARG A\nRUN echo $A > /a\n";
    fs::write(context.join("Dockerfile"), args).expect("a file");
    for (value, cached) in [("1", false), ("2", false), ("1", true)] {
        let output = built(&engine, &context, &["--build-arg", &format!("A={value}"), "-t", &tag]);
        let run = output.split("RUN echo").nth(1).expect("the step");
        assert_eq!(run.contains("Using cache"), cached, "{value}: {output}");
        assert_eq!(shell(&engine, &tag, "cat /a"), value);
    }
    engine.ok(&["rmi", "-f", &tag]);
}

#[test]
fn failures_say_what_failed() {
    let engine = Engine::start();
    let file = |text: &str| {
        context(&engine, &[("Dockerfile", text), (".dockerignore", "hidden\n"), ("hidden", "")])
    };
    for (dockerfile, code, message) in [
        (
            "FROM busybox\nRUN exit 3\n",
            3,
            "The command '/bin/sh -c exit 3' returned a non-zero code: 3",
        ),
        (
            "FROM busybox\nCOPY nothing /\n",
            1,
            "COPY failed: file not found in build context or excluded by .dockerignore: stat nothing: file does not exist",
        ),
        ("FROM busybox\nCOPY hidden /\n", 1, "stat hidden: file does not exist"),
        ("FROM busybox\nFROB x\n", 1, "unknown instruction: FROB"),
        ("RUN x\n", 1, "no build stage in current context"),
        // The engine looks for a registry, which may be out of reach.
        ("FROM silo-test/not-there\n", 1, ""),
        ("FROM busybox\nUSER nobody-at-all\nRUN true\n", 1, "nobody-at-all"),
        ("FROM busybox\nSTOPSIGNAL NONE\n", 1, "NONE"),
    ] {
        let outcome = build(&engine, &file(dockerfile), &[]);
        assert_eq!(outcome.code, code, "{dockerfile}: {}", outcome.stderr);
        assert!(outcome.stderr.contains(message), "{dockerfile}: {}", outcome.stderr);
    }
    let empty = build(&engine, &file(""), &[]);
    assert_ne!(empty.code, 0);
    assert!(empty.stderr.contains("cannot be empty"), "{}", empty.stderr);
}

#[test]
fn contexts_come_as_archives() {
    let engine = Engine::start();
    let tag = engine.name("stdin");
    let files = [("Dockerfile", "FROM busybox\nCOPY a /a\n"), ("a", "from a tar\n")];
    let context = context(&engine, &files);
    for compress in ["-c", "-cz", "-cj"] {
        let tar = std::process::Command::new("tar")
            .arg("-C")
            .arg(&context)
            .args([compress, "."])
            .output()
            .expect("run tar");
        let mut command = vec!["build", "-t", &tag, "-"];
        command.insert(1, "-q");
        let outcome = with_input(&engine, &command, &tar.stdout);
        assert_eq!(outcome.code, 0, "{compress}: {}", outcome.stderr);
        assert_eq!(shell(&engine, &tag, "cat /a"), "from a tar");
    }
    let outcome =
        with_input(&engine, &["build", "-t", &tag, "-"], b"FROM busybox\nRUN echo only > /a\n");
    assert_eq!(outcome.code, 0, "{}", outcome.stderr);
    assert_eq!(shell(&engine, &tag, "cat /a"), "only");
    engine.ok(&["rmi", "-f", &tag]);
}

/// Runs `docker` without BuildKit and with bytes on its standard input.
fn with_input(engine: &Engine, arguments: &[&str], input: &[u8]) -> Outcome {
    feed(classic(engine).args(arguments), input)
}

#[test]
fn long_output_comes_whole_and_waits_for_its_reader() {
    use std::io::{BufRead as _, BufReader};
    let engine = Engine::start();
    let text = "FROM busybox\nRUN yes 'line of very many' | head -n 200000\n";
    let context = context(&engine, &[("Dockerfile", text)]);
    let mut child = classic(&engine)
        .args(["build", "--no-cache"])
        .arg(&context)
        .stdout(std::process::Stdio::piped())
        .stderr(std::process::Stdio::null())
        .spawn()
        .expect("run docker");
    let output = BufReader::new(child.stdout.take().expect("output"));
    let lines = output.lines().map_while(Result::ok).filter(|line| line.starts_with("line "));
    assert_eq!(lines.count(), 200_000);
    assert!(child.wait().expect("wait for docker").success());
}

#[test]
fn a_dockerfile_may_be_elsewhere() {
    let engine = Engine::start();
    let tag = engine.name("elsewhere");
    let files = [("file", "x\n"), (".dockerignore", ".dockerignore\n")];
    let context = context(&engine, &files);
    let dockerfile = engine.scratch().join("Elsewhere");
    fs::write(&dockerfile, "FROM busybox\nCOPY . /src\n").expect("a file");
    let dockerfile = dockerfile.to_str().expect("UTF-8");
    built(&engine, &context, &["-f", dockerfile, "-t", &tag]);
    assert_eq!(shell(&engine, &tag, "ls -A /src"), "file");
    engine.ok(&["rmi", "-f", &tag]);
}

#[test]
fn triggers_run_in_images_made_from_it() {
    let engine = Engine::start();
    let (parent, child) = (engine.name("parent"), engine.name("child"));
    let files =
        [("Dockerfile", "FROM busybox\nONBUILD COPY f /f\nONBUILD RUN cp /f /g\n"), ("f", "x\n")];
    let first = context(&engine, &files);
    built(&engine, &first, &["-t", &parent]);
    let second =
        context(&engine, &[("Dockerfile", &format!("FROM {parent}\nRUN cat /g\n")), ("f", "x\n")]);
    built(&engine, &second, &["-t", &child]);
    assert_eq!(shell(&engine, &child, "cat /g"), "x");
    assert_eq!(engine.inspect(&child)["Config"]["OnBuild"], serde_json::Value::Null);
    engine.ok(&["rmi", "-f", &child, &parent]);
}
