//! `kill -9` at any moment loses nothing and leaks nothing.

use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use silo_tests::{Engine, Kind};

fn silo_only(engine: &Engine) -> bool {
    engine.kind() == Kind::Silo
}

#[test]
fn containers_outlive_the_daemon() {
    let mut engine = Engine::start();
    if !silo_only(&engine) {
        return;
    }
    let name = engine.name("long");
    engine.ok(&[
        "run", "-d", "--name", &name, "-p", "127.0.0.1::80", "busybox", "sh", "-c",
        "i=0; while [ $i -lt 2000 ]; do echo line $i; i=$((i+1)); done; echo alive > /state; httpd -f -p 80",
    ]);
    let before = engine.inspect(&name);
    engine.kill_daemon();
    engine.start_daemon();
    let after = engine.inspect(&name);
    for field in ["Id", "Name", "State", "Config", "HostConfig", "Mounts", "NetworkSettings"] {
        assert_eq!(before[field], after[field], "{field}");
    }
    let logs = loop {
        let logs = engine.ok(&["logs", &name]);
        if logs.ends_with("line 1999") {
            break logs;
        }
    };
    assert_eq!(logs.lines().count(), 2000);
    assert_eq!(engine.ok(&["exec", &name, "cat", "/state"]), "alive");
    let address = engine.ok(&["port", &name, "80/tcp"]);
    while std::net::TcpStream::connect(&address).is_err() {}
    engine.ok(&["stop", "-t", "0", &name]);
    assert_eq!(engine.inspect(&name)["State"]["ExitCode"], 137);
    engine.ok(&["rm", &name]);
}

#[test]
fn exits_while_the_daemon_is_away_are_seen() {
    let mut engine = Engine::start();
    if !silo_only(&engine) {
        return;
    }
    let folder = engine.scratch();
    let name = engine.name("away");
    engine.ok(&[
        "run",
        "-d",
        "--name",
        &name,
        "-v",
        &format!("{}:/host", folder.display()),
        "busybox",
        "sh",
        "-c",
        "while [ ! -e /host/go ]; do sleep 0.01; done; echo last words; touch /host/went; exit 42",
    ]);
    let pid = engine.inspect(&name)["State"]["Pid"].as_u64().expect("a pid");
    engine.kill_daemon();
    fs_err::write(folder.join("go"), "").expect("a file");
    while Path::new(&format!("/proc/{pid}")).exists() {}
    engine.start_daemon();
    let state = engine.inspect(&name)["State"].clone();
    assert_eq!((&state["Status"], &state["ExitCode"]), (&"exited".into(), &42.into()));
    assert_eq!(engine.ok(&["logs", &name]), "last words");
    engine.ok(&["rm", &name]);
}

#[test]
fn a_killed_supervisor_takes_its_container_along() {
    let engine = Engine::start();
    if !silo_only(&engine) {
        return;
    }
    let name = engine.name("shim");
    let id = engine.ok(&["run", "-d", "--name", &name, "busybox", "sleep", "1000"]);
    let pid = engine.inspect(&name)["State"]["Pid"].as_u64().expect("a pid");
    for shim in processes(&id) {
        let killed = std::process::Command::new("kill").args(["-9", &shim.to_string()]).status();
        assert!(killed.expect("run kill").success());
    }
    assert_eq!(engine.ok(&["wait", &name]), "137");
    assert!(!Path::new(&format!("/proc/{pid}")).exists());
    assert_eq!(engine.inspect(&name)["State"]["Status"], "exited");
    engine.ok(&["start", &name]);
    engine.ok(&["rm", "-f", &name]);
}

/// Processes whose command line names `text`.
fn processes(text: &str) -> Vec<u32> {
    let mut found = Vec::new();
    for entry in fs_err::read_dir("/proc").expect("proc") {
        let path = entry.expect("an entry").path();
        let Some(pid) = path.file_name().and_then(|name| name.to_str()?.parse().ok()) else {
            continue;
        };
        if let Ok(command) = fs_err::read(path.join("cmdline"))
            && String::from_utf8_lossy(&command).contains(text)
            && pid != std::process::id()
        {
            found.push(pid);
        }
    }
    found
}

fn entries(folder: &Path) -> Vec<String> {
    let Ok(entries) = fs_err::read_dir(folder) else { return Vec::new() };
    entries
        .map(|entry| entry.expect("an entry").file_name().to_string_lossy().into_owned())
        .collect()
}

/// Two hundred times SIGKILL for the daemon while clients create, start, stop, remove and load.
#[test]
fn random_kills_under_load_lose_and_leak_nothing() {
    let mut engine = Engine::start();
    if !silo_only(&engine) {
        return;
    }
    let archive = engine.scratch().join("image.tar");
    let archive = archive.to_str().expect("UTF-8").to_owned();
    engine.ok(&["tag", "busybox", "other:1"]);
    engine.ok(&["save", "-o", &archive, "other:1"]);
    // One that must never be lost, and one that must never stop.
    let (kept, running) = (engine.name("kept"), engine.name("running"));
    engine.ok(&["create", "--name", &kept, "--label", "keep=me", "busybox", "true"]);
    engine.ok(&["run", "-d", "--name", &running, "busybox", "sleep", "1000"]);
    let running_pid = engine.inspect(&running)["State"]["Pid"].clone();
    let stop = AtomicBool::new(false);
    let kills = 200;
    std::thread::scope(|scope| {
        for worker in 0..3 {
            let (stop, archive) = (&stop, &archive);
            let mut commands: Vec<Vec<String>> = Vec::new();
            let name = engine.name(&format!("w{worker}"));
            for arguments in [
                &["create", "--name", &name, "busybox", "sleep", "1000"][..],
                &["start", &name],
                &["exec", &name, "true"],
                &["stop", "-t", "0", &name],
                &["rm", "-f", &name],
                &["run", "--rm", "-v", "/data", "busybox", "true"],
                &["load", "-q", "-i", archive],
                &["rmi", "other:1"],
            ] {
                commands.push(arguments.iter().map(|&argument| argument.to_owned()).collect());
            }
            let socket = engine.socket().to_owned();
            scope.spawn(move || {
                while !stop.load(Ordering::Relaxed) {
                    for arguments in &commands {
                        // Most fail, since the daemon is away half of the time.
                        let _output = std::process::Command::new("docker")
                            .env("DOCKER_HOST", format!("unix://{}", socket.display()))
                            .args(arguments)
                            .stdin(std::process::Stdio::null())
                            .output();
                    }
                }
            });
        }
        let mut seed = u64::from(std::process::id()) | 1;
        for _ in 0..kills {
            seed ^= seed << 13;
            seed ^= seed >> 7;
            seed ^= seed << 17;
            // The random moment is the point: nothing is waited for but time.
            let until = Instant::now() + Duration::from_micros(seed % 60_000);
            while Instant::now() < until {
                std::thread::yield_now();
            }
            engine.kill_daemon();
            engine.start_daemon();
        }
        stop.store(true, Ordering::Relaxed);
    });
    engine.kill_daemon();
    engine.start_daemon();
    assert_eq!(engine.inspect(&kept)["Config"]["Labels"]["keep"], "me");
    assert_eq!(engine.inspect(&running)["State"]["Pid"], running_pid);
    engine.ok(&["start", "-a", &kept]);
    let all = engine.ok(&["ps", "-aq"]);
    for id in all.lines() {
        engine.ok(&["inspect", id]);
    }
    let mut remove = vec!["rm", "-fv"];
    remove.extend(all.lines());
    engine.ok(&remove);
    engine.ok(&["volume", "prune", "-af"]);
    engine.ok(&["run", "--rm", "busybox", "true"]);
    // Once more, so that whatever is cleaned at a start has been.
    engine.kill_daemon();
    engine.start_daemon();
    let data = engine.data_root();
    for folder in ["containers", "snapshots", "volumes"] {
        let left: Vec<String> =
            entries(&data.join(folder)).into_iter().filter(|name| name.len() == 64).collect();
        assert_eq!(left, Vec::<String>::new(), "{folder}");
    }
    let shims = processes(&format!("{}", data.display()));
    assert_eq!(shims, [engine.daemon_pid()], "processes that name the data root");
    let mounts = fs_err::read_to_string("/proc/self/mountinfo").expect("mounts");
    assert!(!mounts.contains(&format!("{}", data.display())), "{mounts}");
    for hierarchy in entries(Path::new("/sys/fs/cgroup")) {
        let group = Path::new("/sys/fs/cgroup").join(hierarchy).join(engine.cgroup_parent());
        let left: Vec<String> =
            entries(&group).into_iter().filter(|name| name.len() == 64).collect();
        assert_eq!(left, Vec::<String>::new(), "{}", group.display());
    }
}
