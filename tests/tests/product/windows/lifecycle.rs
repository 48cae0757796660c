//! The life of a container: stop, kill, restart, and what is left of it.

use std::mem::MaybeUninit;

use rustix::fs::inotify;
use silo_tests::{WindowsEngine, compile_windows};

use super::{CORE, program, wait, wait_log};

/// A program that runs until it is ended, and that needs no console.
const LONG: [&str; 4] = ["ping", "-n", "1000", "127.0.0.1"];

#[test]
fn stop_is_ctrl_c() {
    let Some(engine) = WindowsEngine::start_or_skip() else { return };
    let Some(node) = program("node", "C:\\node") else { return };
    let work = engine.scratch();
    let volume = format!("{}:C:\\work", work.display());
    let handler = "process.on('SIGINT', () => {\n\
        require('fs').writeFileSync('C:\\\\work\\\\got', 'SIGINT'); process.exit(7) });\n\
        console.log('ready'); setInterval(() => {}, 1000)";
    for options in [&[][..], &["-u", "ContainerUser"], &["-t"], &["-i"]] {
        let name = engine.name("stops");
        let run = ["run", "-d", "--name", &name, "-v", &node, "-v", &volume];
        let command = [CORE, "C:\\node\\node.exe", "-e", handler];
        engine.ok(&[&run[..], options, &command].concat());
        wait_log(&engine, &name, "ready");
        engine.ok(&["stop", &name]);
        assert_eq!(engine.inspect(&name)["State"]["ExitCode"], 7, "{options:?}");
        assert_eq!(fs_err::read_to_string(work.join("got")).expect("its file"), "SIGINT");
        fs_err::remove_file(work.join("got")).expect("remove");
        engine.ok(&["rm", &name]);
    }
    // One that does not listen is ended by the event of the shutdown, a 32-bit one as well.
    let deaf = "process.on('SIGINT', () => console.log('heard')); \
                console.log('ready'); setInterval(() => {}, 1000)";
    let Some(narrow) = program("node-x86", "C:\\node") else { return };
    for node in [&node, &narrow] {
        let name = engine.name("deaf");
        let run =
            ["run", "-d", "--name", &name, "-v", node, CORE, "C:\\node\\node.exe", "-e", deaf];
        engine.ok(&run);
        wait_log(&engine, &name, "ready");
        engine.ok(&["stop", "-t", "20", &name]);
        assert_eq!(engine.inspect(&name)["State"]["ExitCode"], 0, "{node}");
        assert!(engine.ok(&["logs", &name]).contains("heard"), "{node}");
        engine.ok(&["rm", &name]);
    }
}

/// A service is told of a stop, and the container does not end before it has.
#[test]
fn services_hear_of_a_stop() {
    let Some(engine) = WindowsEngine::start_or_skip() else { return };
    let work = engine.scratch();
    compile_windows(include_str!("service.c"), &work.join("service.exe"));
    let name = engine.name("serves");
    let volume = format!("{}:C:\\work", work.display());
    let command = "sc create work binPath= C:\\work\\service.exe& sc start work& \
                   ping -n 1000 127.0.0.1";
    engine.ok(&["run", "-d", "--name", &name, "-v", &volume, CORE, "cmd", "/c", command]);
    wait("the service", || work.join("running").exists().then_some(()));
    engine.ok(&["stop", "-t", "60", &name]);
    assert!(work.join("told").exists(), "it was not told");
    assert!(work.join("saved").exists(), "it could not end by itself");
    // A kill tells nobody.
    fs_err::remove_file(work.join("told")).expect("remove");
    fs_err::remove_file(work.join("running")).expect("remove");
    engine.ok(&["start", &name]);
    wait("the service", || work.join("running").exists().then_some(()));
    engine.ok(&["kill", &name]);
    assert!(!work.join("told").exists());
}

#[test]
fn a_killed_container_keeps_its_registry() {
    let Some(engine) = WindowsEngine::start_or_skip() else { return };
    let name = engine.name("dies");
    engine.ok(&[&["run", "-d", "--name", &name, CORE], &LONG[..]].concat());
    let id = engine.inspect(&name)["Id"].as_str().expect("an id").to_owned();
    let prefix = engine.data_root().join("containers").join(id).join("prefix");
    // Wine's own writing, each half minute, does not come from there.
    let watch = inotify::init(inotify::CreateFlags::CLOEXEC).expect("inotify");
    inotify::add_watch(&watch, prefix.join(".silo/0"), inotify::WatchFlags::MOVED_FROM)
        .expect("a watch");
    let mut buffer = [MaybeUninit::uninit(); 4096];
    let mut events = inotify::Reader::new(&watch, &mut buffer);
    for (key, file) in
        [("HKLM\\Software\\Kept", "system.reg"), ("HKCU\\Software\\Kept", "user.reg")]
    {
        for value in ["first", "second"] {
            engine.ok(&["exec", &name, "reg", "add", key, "/v", "x", "/d", value, "/f"]);
            let text = format!("\"x\"=\"{value}\"");
            loop {
                let event = events.next().expect("an event");
                let written = event.file_name().is_some_and(|name| name == c"registry");
                let registry = fs_err::read_to_string(prefix.join(file)).expect("a file");
                if written && registry.contains(&text) {
                    break;
                }
            }
        }
        engine.ok(&["kill", &name]);
        engine.ok(&["start", &name]);
        let seen = engine.ok(&["exec", &name, "reg", "query", key, "/v", "x"]);
        assert!(seen.contains("second"), "{seen}");
    }
}

#[test]
fn nothing_is_left_of_what_is_killed() {
    let Some(engine) = WindowsEngine::start_or_skip() else { return };
    let name = engine.name("killed");
    engine.ok(&[&["run", "-d", "--name", &name, CORE], &LONG[..]].concat());
    let namespace = |pid: &str| fs_err::read_link(format!("/proc/{pid}/ns/pid")).ok();
    let pid = engine.inspect(&name)["State"]["Pid"].to_string();
    let own = namespace(&pid).expect("a namespace");
    let inside = || {
        let all = fs_err::read_dir("/proc").expect("/proc");
        all.flatten()
            .filter(|entry| namespace(&entry.file_name().to_string_lossy()).as_ref() == Some(&own))
            .count()
    };
    assert!(inside() > 3, "Wine's services run beside the program");
    // Init itself, as by the kernel when memory is short.
    let killed = std::process::Command::new("kill").args(["-9", &pid]).status().expect("kill");
    assert!(killed.success());
    assert_eq!(engine.ok(&["wait", &name]), "137");
    wait("the end of its processes", || (inside() == 0).then_some(()));
    engine.ok(&["rm", &name]);
    let mounts = fs_err::read_to_string("/proc/self/mountinfo").expect("mounts");
    assert!(!mounts.contains(&*engine.data_root().to_string_lossy()), "{mounts}");
}

#[test]
fn restarts_keep_files_and_registry() {
    let Some(engine) = WindowsEngine::start_or_skip() else { return };
    let name = engine.name("again");
    engine.ok(&[&["run", "-d", "--name", &name, CORE], &LONG[..]].concat());
    let batch = "echo one> C:\\kept.txt& reg add HKLM\\Software\\Kept /v Value /d one /f\
        & reg add HKCU\\Software\\Kept /v Number /t REG_DWORD /d 7 /f";
    engine.ok(&["exec", &name, "cmd", "/c", batch]);
    let check = |name: &str| {
        let show =
            "type C:\\kept.txt& reg query HKLM\\Software\\Kept& reg query HKCU\\Software\\Kept";
        let text = engine.ok(&["exec", name, "cmd", "/c", show]);
        let words: Vec<&str> = text.split_whitespace().collect();
        for expected in [&["one"][..], &["Value", "REG_SZ", "one"], &["Number", "REG_DWORD", "0x7"]]
        {
            assert!(words.windows(expected.len()).any(|part| part == expected), "{text}");
        }
    };
    check(&name);
    engine.ok(&["restart", &name]);
    check(&name);
    engine.ok(&["stop", &name]);
    engine.ok(&["start", &name]);
    check(&name);
    // Another container of the image has none of it.
    let none = engine.docker(&["run", "--rm", CORE, "reg", "query", "HKLM\\Software\\Kept"]);
    assert_ne!(none.code, 0, "{}", none.stdout);
}

#[test]
fn files_are_copied_both_ways_and_changes_are_listed() {
    let Some(engine) = WindowsEngine::start_or_skip() else { return };
    let name = engine.name("files");
    engine.ok(&[&["run", "-d", "--name", &name, CORE], &LONG[..]].concat());
    let make = "mkdir C:\\made& echo inside> C:\\made\\file.txt& del C:\\Windows\\win.ini";
    engine.ok(&["exec", &name, "cmd", "/c", make]);
    let scratch = engine.scratch();
    let at = |path: &str| scratch.join(path).display().to_string();
    engine.ok(&["cp", &format!("{name}:/MADE/file.txt"), &at("out")]);
    assert_eq!(fs_err::read_to_string(at("out")).expect("a file").trim_end(), "inside");
    fs_err::create_dir_all(at("tree/below")).expect("a folder");
    fs_err::write(at("tree/below/file"), "from the host").expect("a file");
    engine.ok(&["cp", &at("tree"), &format!("{name}:/users/public")]);
    let show = ["exec", &name, "cmd", "/c", "type C:\\Users\\Public\\tree\\below\\file"];
    assert_eq!(engine.ok(&show), "from the host");
    engine.ok(&["cp", &at("tree/below/file"), &format!("{name}:/Users/Public/own.txt")]);
    assert_eq!(
        engine.ok(&["exec", &name, "cmd", "/c", "type C:\\Users\\Public\\own.txt"]),
        "from the host"
    );
    let changes = engine.ok(&["diff", &name]);
    for line in ["A C:\\made\\file.txt", "A C:\\Users\\Public\\own.txt", "D C:\\Windows\\win.ini"] {
        assert!(changes.lines().any(|change| change == line), "{line}: {changes}");
    }
    assert!(!changes.contains(".reg"), "{changes}");
    let missing = engine.fails(1, &["cp", &format!("{name}:/made/none"), "-"]);
    assert!(missing.contains("none"), "{missing}");
    engine.ok(&["stop", "-t", "0", &name]);
    engine.ok(&["cp", &format!("{name}:/made"), &at("stopped")]);
    assert!(scratch.join("stopped/file.txt").exists());
}
