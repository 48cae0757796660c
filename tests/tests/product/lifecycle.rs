//! Containers from creation to removal.

use silo_tests::Engine;

#[test]
fn create_start_stop_restart_remove() {
    let engine = Engine::start();
    let name = engine.name("life");
    let id = engine.ok(&["create", "--name", &name, "busybox", "sleep", "100"]);
    assert_eq!(id.len(), 64);
    assert_eq!(engine.inspect(&name)["State"]["Status"], "created");
    assert_eq!(engine.ok(&["start", &name]), name);
    let state = engine.inspect(&name)["State"].clone();
    assert_eq!((&state["Status"], &state["Running"]), (&"running".into(), &true.into()));
    assert!(state["Pid"].as_u64().is_some_and(|pid| pid > 1));
    engine.ok(&["stop", "-t", "0", &name]);
    let state = engine.inspect(&name)["State"].clone();
    assert_eq!((&state["Status"], &state["ExitCode"]), (&"exited".into(), &137.into()));
    assert_eq!(state["Pid"], 0);
    engine.ok(&["restart", "-t", "0", &name]);
    assert_eq!(engine.inspect(&name)["State"]["Running"], true);
    let stderr = engine.fails(1, &["rm", &name]);
    assert!(
        stderr.contains("container is running") || stderr.contains("remove a running container"),
        "{stderr}"
    );
    engine.ok(&["rm", "-f", &name]);
    let stderr = engine.fails(1, &["container", "inspect", &name]);
    assert!(stderr.contains(&format!("No such container: {name}")), "{stderr}");
}

#[test]
fn stop_sends_the_signal_and_waits() {
    let engine = Engine::start();
    let name = engine.name("signal");
    engine.ok(&[
        "run",
        "-d",
        "--name",
        &name,
        "--stop-signal",
        "USR1",
        "busybox",
        "sh",
        "-c",
        "trap 'echo caught; exit 5' USR1; echo ready; while :; do sleep 0.05; done",
    ]);
    while !engine.ok(&["logs", &name]).contains("ready") {}
    engine.ok(&["stop", &name]);
    assert_eq!(engine.inspect(&name)["State"]["ExitCode"], 5);
    assert!(engine.ok(&["logs", &name]).contains("caught"));
    // A second stop changes nothing and is no error.
    engine.ok(&["stop", &name]);
    engine.ok(&["rm", &name]);
}

#[test]
fn kill_sends_any_signal() {
    let engine = Engine::start();
    let name = engine.name("kill");
    engine.ok(&["run", "-d", "--name", &name, "busybox", "sleep", "100"]);
    engine.ok(&["kill", "-s", "KILL", &name]);
    engine.ok(&["wait", &name]);
    assert_eq!(engine.inspect(&name)["State"]["ExitCode"], 137);
    let stderr = engine.fails(1, &["kill", &name]);
    assert!(stderr.contains("is not running"), "{stderr}");
    engine.ok(&["start", &name]);
    let stderr = engine.fails(1, &["kill", "-s", "NOSIGNAL", &name]);
    assert!(stderr.to_lowercase().contains("invalid signal: nosignal"), "{stderr}");
    engine.ok(&["rm", "-f", &name]);
}

#[test]
fn wait_gives_the_exit_code() {
    let engine = Engine::start();
    let name = engine.name("wait");
    engine.ok(&["run", "-d", "--name", &name, "busybox", "sh", "-c", "exit 3"]);
    assert_eq!(engine.ok(&["wait", &name]), "3");
    assert_eq!(engine.ok(&["wait", &name]), "3");
    engine.ok(&["rm", &name]);
}

#[test]
fn pause_and_unpause() {
    let engine = Engine::start();
    let name = engine.name("pause");
    engine.ok(&["run", "-d", "--name", &name, "busybox", "sleep", "100"]);
    engine.ok(&["pause", &name]);
    let state = engine.inspect(&name)["State"].clone();
    assert_eq!((&state["Status"], &state["Paused"]), (&"paused".into(), &true.into()));
    let stderr = engine.fails(1, &["exec", &name, "true"]);
    assert!(stderr.contains("is paused"), "{stderr}");
    let stderr = engine.fails(1, &["pause", &name]);
    assert!(stderr.contains("is already paused"), "{stderr}");
    engine.ok(&["unpause", &name]);
    engine.ok(&["exec", &name, "true"]);
    let stderr = engine.fails(1, &["unpause", &name]);
    assert!(stderr.contains("is not paused"), "{stderr}");
    engine.ok(&["rm", "-f", &name]);
}

#[test]
fn rename_and_filters_of_ps() {
    let engine = Engine::start();
    let (one, two) = (engine.name("one"), engine.name("two"));
    engine.ok(&["create", "--name", &one, "--label", "tier=front", "busybox"]);
    engine.ok(&["run", "--name", &two, "busybox", "true"]);
    let list = |filter: &str| {
        let mut names: Vec<String> = engine
            .ok(&["ps", "-a", "--filter", filter, "--format", "{{.Names}}"])
            .lines()
            .filter(|name| name.starts_with(&engine.name("")))
            .map(str::to_owned)
            .collect();
        names.sort();
        names
    };
    assert_eq!(list("label=tier=front"), [one.as_str()]);
    assert_eq!(list("label=tier"), [one.as_str()]);
    assert_eq!(list("status=exited"), [two.as_str()]);
    assert_eq!(list("exited=0"), [two.as_str()]);
    assert_eq!(list("status=created"), [one.as_str()]);
    assert_eq!(list("ancestor=busybox"), [one.as_str(), two.as_str()]);
    assert_eq!(list(&format!("before={two}")), [one.as_str()]);
    assert_eq!(list(&format!("since={one}")), [two.as_str()]);
    let three = engine.name("three");
    engine.ok(&["rename", &one, &three]);
    assert_eq!(list("label=tier=front"), [three.as_str()]);
    let stderr = engine.fails(1, &["rename", &three, &two]);
    assert!(stderr.contains("is already in use"), "{stderr}");
    let stderr = engine.fails(1, &["ps", "--filter", "status=strange"]);
    assert!(stderr.contains("status"), "{stderr}");
    engine.ok(&["rm", &two, &three]);
}

#[test]
fn restart_policies() {
    let engine = Engine::start();
    let name = engine.name("again");
    engine.ok(&["run", "-d", "--name", &name, "--restart", "on-failure:2", "busybox", "false"]);
    engine.ok(&["wait", &name]);
    loop {
        let inspect = engine.inspect(&name);
        if inspect["State"]["Status"] == "exited" && inspect["RestartCount"] == 2 {
            break;
        }
    }
    engine.ok(&["rm", &name]);
    engine.ok(&["run", "-d", "--name", &name, "--restart", "always", "busybox", "sleep", "100"]);
    let pid = |engine: &Engine| engine.inspect(&name)["State"]["Pid"].as_u64().unwrap_or(0);
    let first = pid(&engine);
    engine.ok(&["kill", &name]);
    engine.ok(&["start", &name]);
    assert_ne!(pid(&engine), first);
    engine.ok(&["rm", "-f", &name]);
}

#[test]
fn auto_remove_leaves_nothing() {
    let engine = Engine::start();
    let name = engine.name("gone");
    engine.ok(&["run", "--rm", "--name", &name, "-v", "/data", "busybox", "true"]);
    engine.fails(1, &["container", "inspect", &name]);
    engine.ok(&["run", "-d", "--rm", "--name", &name, "busybox", "sleep", "100"]);
    engine.ok(&["stop", "-t", "0", &name]);
    let response = engine.http("POST", &format!("/containers/{name}/wait?condition=removed"), "");
    assert!(matches!(response.status, 200 | 404), "{}", response.head);
    engine.fails(1, &["container", "inspect", &name]);
}

#[test]
fn update_changes_limits_and_policy() {
    let engine = Engine::start();
    let name = engine.name("update");
    engine.ok(&["run", "-d", "--name", &name, "-m", "64m", "busybox", "sleep", "100"]);
    engine.ok(&[
        "update",
        "-m",
        "96m",
        "--memory-swap",
        "96m",
        "--restart",
        "unless-stopped",
        &name,
    ]);
    let host = engine.inspect(&name)["HostConfig"].clone();
    assert_eq!(host["Memory"], 96 << 20);
    assert_eq!(host["RestartPolicy"]["Name"], "unless-stopped");
    engine.ok(&["rm", "-f", &name]);
}

#[test]
fn health_checks_report() {
    let engine = Engine::start();
    let name = engine.name("health");
    engine.ok(&[
        "run",
        "-d",
        "--name",
        &name,
        "--health-cmd",
        "test -e /healthy",
        "--health-interval",
        "100ms",
        "--health-retries",
        "2",
        "busybox",
        "sleep",
        "100",
    ]);
    let status = |engine: &Engine| {
        engine.inspect(&name)["State"]["Health"]["Status"].as_str().unwrap_or("").to_owned()
    };
    while status(&engine) != "unhealthy" {}
    engine.ok(&["exec", &name, "touch", "/healthy"]);
    while status(&engine) != "healthy" {}
    let log = engine.inspect(&name)["State"]["Health"]["Log"].clone();
    assert!(log.as_array().is_some_and(|log| !log.is_empty() && log.len() <= 5), "{log}");
    engine.ok(&["rm", "-f", &name]);
}

#[test]
fn top_stats_and_diff() {
    let engine = Engine::start();
    let name = engine.name("look");
    engine.ok(&[
        "run",
        "-d",
        "--name",
        &name,
        "busybox",
        "sh",
        "-c",
        "echo x > /new; rm /etc/group; sleep 100",
    ]);
    loop {
        let diff = engine.ok(&["diff", &name]);
        let mut lines: Vec<&str> = diff.lines().collect();
        lines.sort_unstable();
        if lines == ["A /new", "C /etc", "D /etc/group"] {
            break;
        }
    }
    let top = engine.ok(&["top", &name]);
    assert!(top.contains("PID") && top.contains("sleep 100"), "{top}");
    let top = engine.ok(&["top", &name, "-o", "pid,args"]);
    assert!(top.contains("sleep 100"), "{top}");
    let stats = engine.ok(&["stats", "--no-stream", "--format", "{{.Name}} {{.PIDs}}", &name]);
    assert_eq!(stats, format!("{name} 1"));
    engine.ok(&["rm", "-f", &name]);
}
