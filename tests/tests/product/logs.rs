//! `docker logs`.

use silo_tests::Engine;

#[test]
fn both_streams_tail_since_and_timestamps() {
    let engine = Engine::start();
    let name = engine.name("logs");
    engine.ok(&[
        "run",
        "--name",
        &name,
        "busybox",
        "sh",
        "-c",
        "for i in 1 2 3 4 5; do echo out $i; done; echo err >&2; printf unfinished",
    ]);
    let outcome = engine.docker(&["logs", &name]);
    assert_eq!(outcome.stdout, "out 1\nout 2\nout 3\nout 4\nout 5\nunfinished");
    assert_eq!(outcome.stderr, "err\n");
    let tail = engine.docker(&["logs", "--tail", "2", &name]);
    // The two streams race, so one of the last lines may be "out 5" instead of "err".
    assert_eq!(tail.stdout.lines().count() + tail.stderr.lines().count(), 2, "{tail:?}");
    assert!(tail.stdout.ends_with("unfinished"), "{tail:?}");
    let stamped = engine.ok(&["logs", "-t", "--tail", "2", &name]);
    assert!(stamped.contains("Z unfinished"), "{stamped}");
    assert_eq!(engine.ok(&["logs", "--since", "2099-01-01T00:00:00Z", &name]), "");
    assert_eq!(engine.ok(&["logs", "--until", "2001-01-01T00:00:00Z", &name]), "");
    engine.ok(&["rm", &name]);
}

#[test]
fn follow_ends_with_the_container() {
    let engine = Engine::start();
    let name = engine.name("follow");
    engine.ok(&[
        "run",
        "-d",
        "--name",
        &name,
        "busybox",
        "sh",
        "-c",
        "for i in $(seq 200); do echo line $i; sleep 0.002; done",
    ]);
    let text = engine.ok(&["logs", "-f", &name]);
    let expected: Vec<String> = (1..=200).map(|i| format!("line {i}")).collect();
    assert_eq!(text.lines().collect::<Vec<_>>(), expected);
    engine.ok(&["rm", "-f", &name]);
}

#[test]
fn drivers() {
    let engine = Engine::start();
    for driver in ["local", "json-file"] {
        let name = engine.name(driver);
        engine.ok(&[
            "run",
            "--name",
            &name,
            "--log-driver",
            driver,
            "--log-opt",
            "max-size=20k",
            "--log-opt",
            "max-file=2",
            "busybox",
            "sh",
            "-c",
            "for i in $(seq 3000); do echo line $i; done",
        ]);
        let text = engine.ok(&["logs", &name]);
        assert!(text.ends_with("line 3000"), "{driver}");
        assert!(!text.contains("line 1\n"), "{driver} was not rotated");
        engine.ok(&["rm", &name]);
    }
    let name = engine.name("nolog");
    engine.ok(&["run", "--name", &name, "--log-driver", "none", "busybox", "echo", "x"]);
    let stderr = engine.fails(1, &["logs", &name]);
    assert!(stderr.contains("configured logging driver does not support reading"), "{stderr}");
    engine.ok(&["rm", &name]);
    let stderr = engine.fails(125, &["run", "--rm", "--log-driver", "nonsense", "busybox", "true"]);
    assert!(stderr.contains("nonsense"), "{stderr}");
    let stderr = engine.fails(125, &["run", "--rm", "--log-opt", "strange=1", "busybox", "true"]);
    assert!(stderr.contains("unknown log opt 'strange' for json-file log driver"), "{stderr}");
}

#[test]
fn long_lines_come_back_whole() {
    let engine = Engine::start();
    let name = engine.name("long");
    engine.ok(&[
        "run",
        "--name",
        &name,
        "busybox",
        "sh",
        "-c",
        "head -c 100000 /dev/zero | tr '\\0' x; echo; echo end",
    ]);
    let text = engine.ok(&["logs", &name]);
    assert_eq!(text.len(), 100_000 + 4);
    assert!(text.ends_with("x\nend"));
    engine.ok(&["rm", &name]);
}
