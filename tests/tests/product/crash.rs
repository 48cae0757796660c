//! `kill -9` at any moment loses nothing and leaks nothing.

mod filling;
mod power_cut;

use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use silo_tests::Engine;

/// Set when it goes, so that threads end with a test that fails.
struct Stop<'a>(&'a AtomicBool);

impl Drop for Stop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// A generator of numbers (xorshift), for moments that nobody chose.
pub(crate) struct Random(u64);

impl Random {
    pub(crate) fn new() -> Self {
        let seed = u64::from(std::process::id()) << 32 | 1;
        eprintln!("seed {seed}");
        Self(seed)
    }

    pub(crate) fn below(&mut self, limit: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % limit
    }
}

#[test]
fn containers_outlive_the_daemon() {
    let mut engine = Engine::start();
    if !engine.is_silo_or_skip("kills Silo's own processes") {
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
    let state = "until [ -s /state ]; do sleep 0.01; done; cat /state";
    assert_eq!(engine.ok(&["exec", &name, "sh", "-c", state]), "alive");
    let address = engine.ok(&["port", &name, "80/tcp"]);
    while std::net::TcpStream::connect(&address).is_err() {}
    engine.ok(&["stop", "-t", "0", &name]);
    assert_eq!(engine.inspect(&name)["State"]["ExitCode"], 137);
    engine.ok(&["rm", &name]);
}

#[test]
fn exits_while_the_daemon_is_away_are_seen() {
    let mut engine = Engine::start();
    if !engine.is_silo_or_skip("kills Silo's own processes") {
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
    // The supervisor has recorded the end when it ends itself.
    while !processes(&engine.data_root().display().to_string()).is_empty() {
        std::thread::yield_now();
    }
    engine.start_daemon();
    let state = engine.inspect(&name)["State"].clone();
    assert_eq!((&state["Status"], &state["ExitCode"]), (&"exited".into(), &42.into()));
    assert_eq!(engine.ok(&["logs", &name]), "last words");
    engine.ok(&["rm", &name]);
}

#[test]
fn a_killed_supervisor_takes_its_container_along() {
    let engine = Engine::start();
    if !engine.is_silo_or_skip("kills Silo's own processes") {
        return;
    }
    let name = engine.name("shim");
    let id = engine.ok(&["run", "-d", "--name", &name, "busybox", "sleep", "1000"]);
    let pid = engine.inspect(&name)["State"]["Pid"].as_u64().expect("a pid");
    let supervisors = processes(&id);
    assert!(!supervisors.is_empty(), "no supervisor");
    supervisors.into_iter().for_each(kill);
    assert_eq!(engine.ok(&["wait", &name]), "137");
    assert!(!is_alive(pid), "the container's process outlived the announcement of its end");
    assert_eq!(engine.inspect(&name)["State"]["Status"], "exited");
    engine.ok(&["start", &name]);
    engine.ok(&["rm", "-f", &name]);
}

/// Whether a process runs. A zombie does not: the host's first process has yet to collect it.
fn is_alive(pid: u64) -> bool {
    let Ok(stat) = fs_err::read_to_string(format!("/proc/{pid}/stat")) else { return false };
    let state = stat.rsplit(") ").next().and_then(|fields| fields.chars().next());
    !matches!(state, Some('Z' | 'X') | None)
}

/// Processes whose command line names `text`.
pub(crate) fn processes(text: &str) -> Vec<u32> {
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

pub(crate) fn entries(folder: &Path) -> Vec<String> {
    let Ok(entries) = fs_err::read_dir(folder) else { return Vec::new() };
    entries
        .map(|entry| entry.expect("an entry").file_name().to_string_lossy().into_owned())
        .collect()
}

fn kill(pid: u32) {
    let pid = i32::try_from(pid).ok().and_then(rustix::process::Pid::from_raw).expect("a pid");
    // It may have ended by itself.
    let _gone = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
}

/// Two hundred times SIGKILL for the daemon, and some for supervisors, while clients create,
/// start, stop, remove and load.
#[test]
fn random_kills_under_load_lose_and_leak_nothing() {
    let mut engine = Engine::start();
    if !engine.is_silo_or_skip("kills Silo's own processes") {
        return;
    }
    let archive = engine.scratch().join("image.tar");
    let archive = archive.to_str().expect("UTF-8").to_owned();
    engine.ok(&["tag", "busybox", "other:1"]);
    engine.ok(&["save", "-o", &archive, "other:1"]);
    // One that must never be lost, one that must never stop, and volumes that must stay.
    let (kept, running) = (engine.name("kept"), engine.name("running"));
    engine.ok(&["create", "--name", &kept, "--label", "keep=me", "-v", "/d", "busybox", "true"]);
    let id = engine.ok(&["run", "-d", "--name", &running, "busybox", "sleep", "1000"]);
    let running_pid = engine.inspect(&running)["State"]["Pid"].clone();
    engine.ok(&["run", "--rm", "-v", "named:/d", "busybox", "sh", "-c", "echo here > /d/file"]);
    engine.ok(&["volume", "create", &"f".repeat(64)]);
    let stop = AtomicBool::new(false);
    let kills = 200;
    std::thread::scope(|scope| {
        let _stop = Stop(&stop);
        for worker in 0..3 {
            let commands = load(&engine, worker, &archive);
            let (stop, docker) = (&stop, engine.docker_maker());
            scope.spawn(move || {
                while !stop.load(Ordering::Relaxed) {
                    for arguments in &commands {
                        // Most fail, since the daemon is away half of the time.
                        let _output = docker().args(arguments).output();
                    }
                }
            });
        }
        let mut random = Random::new();
        for round in 0..kills {
            // The random moment is the point: nothing is waited for but time.
            let until = Instant::now() + Duration::from_micros(random.below(60_000));
            while Instant::now() < until {
                std::thread::yield_now();
            }
            if round % 4 == 0 {
                let spared = processes(&id);
                let shims = processes(&format!("{}/containers/", engine.data_root().display()));
                shims.into_iter().filter(|pid| !spared.contains(pid)).for_each(kill);
            }
            if round % 4 != 1 {
                engine.kill_daemon();
                engine.start_daemon();
            }
        }
    });
    engine.kill_daemon();
    engine.start_daemon();
    assert_eq!(engine.inspect(&kept)["Config"]["Labels"]["keep"], "me");
    assert_eq!(engine.inspect(&running)["State"]["Pid"], running_pid);
    let gateway =
        engine.ok(&["network", "inspect", "bridge", "-f", "{{(index .IPAM.Config 0).Gateway}}"]);
    engine.ok(&["exec", &running, "ping", "-c", "1", "-W", "5", &gateway]);
    engine.ok(&["start", "-a", &kept]);
    let named = ["run", "--rm", "-v", "named:/d", "busybox", "cat", "/d/file"];
    assert_eq!(engine.ok(&named), "here");
    let all = engine.ok(&["ps", "-aq", "--no-trunc"]);
    for id in all.lines() {
        engine.ok(&["inspect", id]);
        let shims = processes(&format!("{}/containers/{id}", engine.data_root().display()));
        assert!(shims.len() <= 1, "supervisors of {id}: {shims:?}");
    }
    let mut remove = vec!["rm", "-fv"];
    remove.extend(all.lines());
    engine.ok(&remove);
    // Only what has a name is left, without any pruning.
    let volumes = format!("{}\nnamed", "f".repeat(64));
    assert_eq!(engine.ok(&["volume", "ls", "-q"]), volumes);
    engine.ok(&["volume", "rm", "named", &"f".repeat(64)]);
    engine.ok(&["run", "--rm", "busybox", "true"]);
    // Once more, so that whatever is cleaned at a start has been.
    engine.kill_daemon();
    engine.start_daemon();
    nothing_is_left(&engine);
    engine.kill_daemon();
    let removed = engine.remove_network();
    assert_eq!(removed.code, 0, "{}", removed.stderr);
    assert_eq!(links(&engine.bridge()), Vec::<String>::new());
    assert!(!Path::new(&format!("/sys/class/net/{}", engine.bridge())).exists());
    engine.start_daemon();
}

/// What one client does again and again.
fn load(engine: &Engine, worker: u32, archive: &str) -> Vec<Vec<String>> {
    let name = engine.name(&format!("w{worker}"));
    let commands: [&[&str]; 9] = [
        &["create", "--name", &name, "-v", "/data", "busybox", "sleep", "1000"],
        &["start", &name],
        &["exec", &name, "true"],
        &["stop", "-t", "0", &name],
        &["rm", "-fv", &name],
        &["run", "--rm", "-v", "/data", "-p", "127.0.0.1::80", "busybox", "true"],
        &["run", "-d", "--rm", "--net", "host", "busybox", "sleep", "0.02"],
        &["load", "-q", "-i", archive],
        &["rmi", "other:1"],
    ];
    commands.map(|words| words.iter().map(|&word| word.to_owned()).collect()).to_vec()
}

/// Interfaces that are ports of a bridge.
fn links(bridge: &str) -> Vec<String> {
    entries(Path::new(&format!("/sys/class/net/{bridge}/brif")))
}

/// An engine without containers and volumes holds nothing.
#[track_caller]
pub(crate) fn nothing_is_left(engine: &Engine) {
    let (data, run) = (engine.data_root(), engine.run_root());
    let folders = ["containers", "snapshots", "volumes"].map(|name| data.join(name));
    for folder in folders.iter().chain([&run.join("shims")]) {
        let left: Vec<String> =
            entries(folder).into_iter().filter(|name| !name.starts_with('.')).collect();
        assert_eq!(left, Vec::<String>::new(), "{}", folder.display());
    }
    let processes = processes(&format!("{}", data.display()));
    assert_eq!(processes, [engine.daemon_pid()], "processes that name the data root");
    let mounts = fs_err::read_to_string("/proc/self/mountinfo").expect("mounts");
    assert!(!mounts.contains(&format!("{}/", data.display())), "{mounts}");
    for hierarchy in entries(Path::new("/sys/fs/cgroup")) {
        let group = Path::new("/sys/fs/cgroup").join(hierarchy).join(engine.cgroup_parent());
        let left: Vec<String> =
            entries(&group).into_iter().filter(|name| name.len() == 64).collect();
        assert_eq!(left, Vec::<String>::new(), "{}", group.display());
    }
    // Those that are kept ready, and no more.
    let links = links(&engine.bridge());
    assert!(links.len() <= 5, "{links:?}");
    let rules = std::process::Command::new("nft")
        .args(["-j", "list", "table", "ip", &engine.bridge()])
        .output()
        .expect("run nft");
    let rules: serde_json::Value = serde_json::from_slice(&rules.stdout).expect("JSON from nft");
    for map in rules["nftables"].as_array().expect("a list") {
        assert!(map["map"]["elem"].is_null(), "{map}");
    }
}
