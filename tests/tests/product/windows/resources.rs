//! Processes as `docker top` shows them, and limits as programs see them.

use silo_tests::WindowsEngine;

use super::{CORE, program};

const TITLES: &str = "Name PID CPU Private Working Set";

fn words(line: &str) -> Vec<&str> {
    line.split_whitespace().collect()
}

#[test]
fn processes_are_those_of_windows() {
    let Some(engine) = WindowsEngine::start_or_skip() else { return };
    let name = engine.name("top");
    engine.ok(&["run", "-d", "--name", &name, CORE, "ping", "-n", "1000", "127.0.0.1"]);
    engine.ok(&["exec", "-d", &name, "cmd", "/c", "ping -n 1000 127.0.0.1"]);
    let top = engine.ok(&["top", &name]);
    let mut lines = top.lines();
    assert_eq!(words(lines.next().expect("titles")).join(" "), TITLES);
    let rows: Vec<Vec<&str>> = lines.map(words).collect();
    let of = |image: &str| rows.iter().filter(|row| row[0] == image).collect::<Vec<_>>();
    assert!(!of("ping.exe").is_empty(), "{top}");
    assert_eq!(of("services.exe").len(), 1, "{top}");
    for hidden in ["wineserver", "docker-init", "silo-list", "wine64"] {
        assert!(!top.contains(hidden), "{hidden}: {top}");
    }
    // The ids are those that programs see, and by which they end others.
    let listed = engine.ok(&["exec", &name, "tasklist", "/fo", "csv", "/nh"]);
    for row in &rows {
        let known = format!("\"{}\",\"{}\"", row[0], row[1]);
        assert!(listed.contains(&known), "{known}: {listed}");
        let time: Vec<&str> = row[2].split([':', '.']).collect();
        assert!(time.len() == 4 && time.iter().all(|part| part.parse::<u32>().is_ok()), "{row:?}");
        assert!(row[3].ends_with('B'), "{row:?}");
    }
    // With options it is Linux that is asked, as for other containers.
    let linux = engine.ok(&["top", &name, "-eo", "pid,comm"]);
    assert!(linux.contains("wineserver"), "{linux}");
    // One that is paused cannot be asked.
    engine.ok(&["pause", &name]);
    let paused = engine.ok(&["top", &name]);
    assert_eq!(words(paused.lines().next().expect("titles")).join(" "), TITLES);
    let service = paused.lines().find(|line| line.starts_with("services.exe")).expect(&paused);
    assert_eq!(words(service)[1], "-");
    assert!(!paused.contains("wineserver"), "{paused}");
}

#[test]
fn limits_of_memory_are_seen() {
    let Some(engine) = WindowsEngine::start_or_skip() else { return };
    let Some(node) = program("node", "C:\\node") else { return };
    let show = "const os = require('os'); console.log(os.totalmem(), os.freemem(), \
                process.env.LD_PRELOAD)";
    let numbers = |text: &str| -> (u64, u64) {
        let words = words(text);
        assert_eq!(words[2], "undefined", "{text}");
        (words[0].parse().expect("a size"), words[1].parse().expect("a size"))
    };
    let limit = 384 << 20;
    let node_run = |options: &[&str]| {
        let run = ["run", "--rm", "-v", &node];
        engine.ok(&[&run[..], options, &[CORE, "C:\\node\\node.exe", "-e", show]].concat())
    };
    let (total, free) = numbers(&node_run(&["-m", "384m"]));
    assert_eq!(total, limit);
    assert!(free < limit && free > limit / 4, "{free}");
    let (host, _) = numbers(&node_run(&[]));
    assert!(host > limit, "{host}");
    // In a further program, and after a change.
    let name = engine.name("limited");
    let run = ["run", "-d", "-m", "256m", "--name", &name, "-v", &node, CORE];
    engine.ok(&[&run[..], &["ping", "-n", "1000", "127.0.0.1"]].concat());
    let exec = ["exec", &name, "C:\\node\\node.exe", "-e", show];
    assert_eq!(numbers(&engine.ok(&exec)).0, 256 << 20);
    engine.ok(&["update", "-m", "512m", "--memory-swap", "-1", &name]);
    assert_eq!(numbers(&engine.ok(&exec)).0, 512 << 20);
    let info = engine.ok(&["exec", &name, "systeminfo"]);
    let line = info.lines().find(|line| line.starts_with("Total Physical")).expect(&info);
    assert!(line.ends_with(" 512 MB"), "{line}");
}

#[test]
fn an_idle_container_takes_little_room() {
    let Some(engine) = WindowsEngine::start_or_skip() else { return };
    let name = engine.name("idle");
    engine.ok(&["run", "-d", "--name", &name, CORE, "ping", "-n", "1000", "127.0.0.1"]);
    let id = engine.inspect(&name)["Id"].as_str().expect("an id").to_owned();
    let data = engine.data_root();
    let folders = [
        data.join("containers").join(&id),
        data.join("snapshots").join(&id),
        data.join("snapshots").join(format!("{id}.wine")),
    ];
    let du = std::process::Command::new("du").arg("-skc").args(&folders).output().expect("du");
    let text = String::from_utf8_lossy(&du.stdout).into_owned();
    let total = text.lines().last().and_then(|line| line.split('\t').next()).expect(&text);
    let total: u64 = total.parse().expect(&text);
    assert!(total < 2000, "{total} KiB: {text}");
    // Both kinds of programs see one list of interfaces, which is the most of what it keeps.
    let interface = "HKLM\\Software\\Classes\\Interface\\{00000000-0000-0000-c000-000000000046}";
    for program in ["reg", "C:\\Windows\\SysWOW64\\reg.exe"] {
        let text = engine.ok(&["exec", &name, program, "query", interface, "/ve"]);
        assert!(text.contains("IUnknown"), "{program}: {text}");
    }
}
