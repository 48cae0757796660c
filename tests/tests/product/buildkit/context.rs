//! Where the files of a build come from.

use silo_tests::Engine;

use super::{build, built, context, in_order};

/// Bytes that a transfer took, as the client prints them.
fn transferred(output: &str) -> f64 {
    let line = output.lines().rfind(|line| line.contains("transferring context:"));
    let line = line.unwrap_or_else(|| panic!("no transfer in\n{output}"));
    let size = line.split("transferring context: ").nth(1).and_then(|rest| rest.split(' ').next());
    let size = size.expect("a size");
    let digits = size.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let unit = match &size[digits.len()..] {
        "B" => 1.0,
        "kB" => 1e3,
        "MB" => 1e6,
        other => panic!("{other}"),
    };
    digits.parse::<f64>().expect("a number") * unit
}

#[test]
fn only_changed_files_travel() {
    let engine = Engine::start();
    if !engine.has_plugins_or_skip() {
        return;
    }
    let tag = engine.name("image");
    let text = "FROM busybox\nCOPY . /all\n";
    let large = "x".repeat(4_000_000);
    let files = [("Dockerfile", text), ("large", large.as_str()), ("small", "1"), ("gone", "1")];
    let folder = context(&engine, "c", &files);
    let first = built(&engine, &folder, &["-t", &tag]);
    assert!(transferred(&first) > 3.9e6, "{first}");
    let again = built(&engine, &folder, &["-t", &tag]);
    assert!(transferred(&again) < 1e5, "{again}");
    assert!(again.contains("CACHED"), "{again}");
    fs_err::write(folder.join("small"), "two").expect("a file");
    fs_err::remove_file(folder.join("gone")).expect("a file");
    let changed = built(&engine, &folder, &["-t", &tag]);
    assert!(transferred(&changed) < 1e5, "{changed}");
    let list = engine.ok(&["run", "--rm", &tag, "sh", "-c", "cat /all/small; echo; ls /all"]);
    assert_eq!(list, "two\nDockerfile\nlarge\nsmall");
}

#[test]
fn ignored_files_stay_with_the_client() {
    let engine = Engine::start();
    if !engine.has_plugins_or_skip() {
        return;
    }
    let tag = engine.name("image");
    let text = "FROM busybox\nCOPY . /all\nRUN cd /all && find . -type f | sort > /list\n";
    let files = [
        ("Dockerfile", text),
        (".dockerignore", "# logs\n*.log\n**/tmp\n!keep.log\n"),
        ("a.log", ""),
        ("keep.log", ""),
        ("sub/tmp/x", ""),
        ("sub/y", ""),
    ];
    let folder = context(&engine, "c", &files);
    built(&engine, &folder, &["-t", &tag]);
    let list = engine.ok(&["run", "--rm", &tag, "cat", "/list"]);
    assert_eq!(list, "./.dockerignore\n./Dockerfile\n./keep.log\n./sub/y");
    // A Dockerfile can have its own.
    fs_err::write(folder.join("Dockerfile.dockerignore"), "sub\n").expect("a file");
    built(&engine, &folder, &["-t", &tag]);
    let list = engine.ok(&["run", "--rm", &tag, "cat", "/list"]);
    assert!(list.contains("./a.log") && !list.contains("sub"), "{list}");
    let copied = "FROM busybox\nCOPY sub /sub\n";
    fs_err::write(folder.join("Dockerfile"), copied).expect("a file");
    let outcome = build(&engine, &folder, &[]);
    assert_ne!(outcome.code, 0);
    // Older engines have no colon.
    let words = ["\"/sub\": not found", "\"/sub\" not found"];
    let is_said = words.iter().any(|words| outcome.stderr.contains(words));
    assert!(is_said, "{}", outcome.stderr);
}

#[test]
fn a_context_comes_from_many_places() {
    let engine = Engine::start();
    if !engine.has_plugins_or_skip() {
        return;
    }
    let tag = engine.name("image");
    let show = |path: &str| engine.ok(&["run", "--rm", &tag, "cat", path]);
    let buildx = ["buildx", "build", "--progress=plain", "-t", tag.as_str()];

    // A Dockerfile alone, on standard input.
    let outcome = engine.docker_with_input(
        &[&buildx[..], &["-"]].concat(),
        b"FROM busybox\nRUN echo from standard input > /f\n",
    );
    assert_eq!(outcome.code, 0, "{}", outcome.stderr);
    assert_eq!(show("/f"), "from standard input");

    // A Dockerfile on standard input, the context in a folder.
    let folder = context(&engine, "c", &[("f", "from the folder\n"), ("Dockerfile", "broken")]);
    let folder = folder.to_str().expect("a path");
    let outcome = engine.docker_with_input(
        &[&buildx[..], &["-f", "-", folder]].concat(),
        b"FROM busybox\nCOPY f /f\n",
    );
    assert_eq!(outcome.code, 0, "{}", outcome.stderr);
    assert_eq!(show("/f"), "from the folder");

    // Everything as an archive on standard input, compressed or not.
    let files = [("Dockerfile", "FROM busybox\nCOPY f /f\n"), ("f", "from the archive\n")];
    let archived = context(&engine, "a", &files);
    for flag in ["-c", "-cz"] {
        let tar = std::process::Command::new("tar")
            .arg(flag)
            .args(["-f", "-", "-C"])
            .arg(&archived)
            .args(["Dockerfile", "f"])
            .output()
            .expect("run tar");
        let outcome =
            engine.docker_with_input(&[&buildx[..], &["--no-cache", "-"]].concat(), &tar.stdout);
        assert_eq!(outcome.code, 0, "{}", outcome.stderr);
        assert_eq!(show("/f"), "from the archive");
    }

    // Folders and images by name.
    if !engine.builds_as_today_or_skip("older engines know no named contexts") {
        return;
    }
    let text = "FROM base\nCOPY --from=more f /f\nRUN --mount=from=more,target=/m cat /m/f\n";
    let main = context(&engine, "m", &[("Dockerfile", text)]);
    let said = built(
        &engine,
        &main,
        &[
            "-t",
            &tag,
            "--build-context",
            &format!("more={folder}"),
            "--build-context",
            "base=docker-image://busybox",
        ],
    );
    in_order(&said, &["from the folder"]);
    assert_eq!(show("/f"), "from the folder");
    let outcome = build(&engine, &main, &["--build-context", "more=/nowhere"]);
    assert_ne!(outcome.code, 0);
}

#[test]
fn builds_of_one_context_at_a_time_do_not_meet() {
    let engine = Engine::start();
    if !engine.has_plugins_or_skip() {
        return;
    }
    let text = "FROM busybox\nARG N\nCOPY . /all\nRUN cat /all/f > /copy; echo $N >> /copy\n";
    let folder = context(&engine, "c", &[("Dockerfile", text), ("f", "f\n")]);
    std::thread::scope(|scope| {
        for number in 0..4 {
            let (engine, folder) = (&engine, &folder);
            scope.spawn(move || {
                let tag = engine.name(&format!("image{number}"));
                built(engine, folder, &["-t", &tag, "--build-arg", &format!("N={number}")]);
                let text = engine.ok(&["run", "--rm", &tag, "cat", "/copy"]);
                assert_eq!(text, format!("f\n{number}"));
            });
        }
    });
}
