//! `docker exec`.

use silo_tests::Engine;

#[test]
fn runs_beside_the_first_process() {
    let engine = Engine::start();
    let name = engine.name("exec");
    engine.ok(&[
        "run", "-d", "--name", &name, "-e", "FROM=run", "-w", "/tmp", "busybox", "sleep", "100",
    ]);
    let outcome = engine.docker(&["exec", &name, "sh", "-c", "echo $FROM; pwd; exit 6"]);
    assert_eq!((outcome.code, outcome.stdout.as_str()), (6, "run\n/tmp\n"));
    let text = engine.ok(&[
        "exec",
        "-e",
        "MORE=yes",
        "-w",
        "/etc",
        "-u",
        "user",
        &name,
        "sh",
        "-c",
        "echo $MORE; pwd; id -un",
    ]);
    assert_eq!(text, "yes\n/etc\nuser");
    let outcome =
        engine.docker_with_input(&["exec", "-i", &name, "wc", "-c"], &vec![b'y'; 100_000]);
    assert_eq!(outcome.stdout.trim(), "100000");
    let status = engine.ok(&["exec", &name, "cat", "/proc/self/status"]);
    assert!(status.contains("CapEff:\t00000000a80425fb"), "{status}");
    assert!(status.contains("CapInh:\t0000000000000000"), "{status}");
    assert!(status.contains("Seccomp:\t2"), "{status}");
    if silo_tests::host_has_every_capability()
        || engine.is_silo_or_skip("in part: privileged commands on a host without every capability")
    {
        let status = engine.ok(&["exec", "--privileged", &name, "cat", "/proc/self/status"]);
        assert!(status.contains("CapEff:\t000001ff"), "{status}");
    }
    engine.ok(&["exec", "-d", &name, "touch", "/detached"]);
    while engine.docker(&["exec", &name, "test", "-e", "/detached"]).code != 0 {}
    let fds = engine.ok(&["exec", &name, "ls", "/proc/self/fd"]);
    assert_eq!(fds.split_whitespace().collect::<Vec<_>>(), ["0", "1", "2", "3"]);
    engine.ok(&["rm", "-f", &name]);
}

#[test]
fn failures_have_codes_and_words() {
    let engine = Engine::start();
    let name = engine.name("exec");
    engine.ok(&["run", "-d", "--name", &name, "busybox", "sleep", "100"]);
    let outcome = engine.docker(&["exec", &name, "no-such-program"]);
    // 126 up to Docker 23.
    assert!(matches!(outcome.code, 126 | 127), "{outcome:?}");
    let text = outcome.stdout + &outcome.stderr;
    assert!(text.contains("executable file not found in $PATH"), "{text}");
    let outcome = engine.docker(&["exec", &name, "/etc/passwd"]);
    assert_eq!(outcome.code, 126, "{outcome:?}");
    engine.ok(&["kill", &name]);
    engine.ok(&["wait", &name]);
    let stderr = engine.fails(1, &["exec", &name, "true"]);
    assert!(stderr.contains("is not running"), "{stderr}");
    engine.ok(&["rm", &name]);
    let stderr = engine.fails(1, &["exec", &name, "true"]);
    assert!(stderr.contains(&format!("No such container: {name}")), "{stderr}");
}

#[test]
fn api_objects() {
    let engine = Engine::start();
    let name = engine.name("exec");
    engine.ok(&["run", "-d", "--name", &name, "busybox", "sleep", "100"]);
    let body = r#"{"Cmd":["sh","-c","exit 4"],"AttachStdout":true,"AttachStderr":true}"#;
    let created = engine.http("POST", &format!("/containers/{name}/exec"), body);
    assert_eq!(created.status, 201);
    let id = created.json()["Id"].as_str().expect("an id").to_owned();
    let before = engine.http("GET", &format!("/exec/{id}/json"), "").json();
    assert_eq!(
        (&before["Running"], &before["ExitCode"]),
        (&false.into(), &serde_json::Value::Null)
    );
    assert_eq!(before["ProcessConfig"]["entrypoint"], "sh");
    let started = engine.http("POST", &format!("/exec/{id}/start"), r#"{"Detach":true}"#);
    assert_eq!(started.status, 200, "{}", started.head);
    loop {
        let after = engine.http("GET", &format!("/exec/{id}/json"), "").json();
        if after["Running"] == false && after["ExitCode"] == 4 {
            break;
        }
    }
    let again = engine.http("POST", &format!("/exec/{id}/start"), r#"{"Detach":true}"#);
    assert_eq!(again.status, 409, "{}", again.head);
    let missing = engine.http("GET", "/exec/nothing/json", "");
    assert_eq!(
        (missing.status, missing.message().as_str()),
        (404, "No such exec instance: nothing")
    );
    engine.ok(&["rm", "-f", &name]);
}
