//! Folders of the host and volumes, as folders on C: and as drives.

use silo_tests::WindowsEngine;

use super::CORE;

#[test]
fn folders_and_drives() {
    let Some(engine) = WindowsEngine::start_or_skip() else { return };
    let host = engine.scratch().join("host");
    fs_err::create_dir_all(&host).expect("a folder");
    fs_err::write(host.join("given.txt"), "given\n").expect("a file");
    let host_path = host.display().to_string();
    let volume = engine.name("volume");
    for (user, place) in [
        ("ContainerAdministrator", "C:\\deep\\data"),
        ("ContainerUser", "c:/Data"),
        ("ContainerAdministrator", "D:"),
        ("ContainerUser", "x:\\"),
    ] {
        let bind = format!("{host_path}:{place}");
        let root = place.replace('/', "\\");
        let root = root.trim_end_matches('\\');
        let batch = format!("type {root}\\given.txt& echo made> {root}\\made.txt& dir /b {root}\\");
        let run = ["run", "--rm", "-u", user, "-v", &bind, CORE, "cmd", "/c", &batch];
        let text = engine.ok(&run);
        let words: Vec<&str> = text.split_whitespace().collect();
        assert_eq!(words, ["given", "given.txt", "made.txt"], "{place}");
        let made = fs_err::read_to_string(host.join("made.txt")).expect("what was made");
        assert_eq!(made.trim_end(), "made");
        fs_err::remove_file(host.join("made.txt")).expect("remove");
    }
    let named = format!("{volume}:C:\\data");
    engine.ok(&["run", "--rm", "-v", &named, CORE, "cmd", "/c", "echo kept> C:\\data\\file"]);
    let mount = format!("type=volume,source={volume},target=E:");
    assert_eq!(
        engine.ok(&["run", "--rm", "--mount", &mount, CORE, "cmd", "/c", "type E:\\file"]),
        "kept"
    );
    let single = format!("{host_path}/given.txt:C:\\Users\\one.txt");
    let text =
        engine.ok(&["run", "--rm", "-v", &single, CORE, "cmd", "/c", "type C:\\Users\\one.txt"]);
    assert_eq!(text, "given");
}

#[test]
fn read_only_ones_refuse_writes() {
    let Some(engine) = WindowsEngine::start_or_skip() else { return };
    let host = engine.scratch().join("host");
    fs_err::create_dir_all(&host).expect("a folder");
    fs_err::write(host.join("given.txt"), "given\n").expect("a file");
    for place in ["C:\\data", "D:"] {
        let bind = format!("{}:{place}:ro", host.display());
        for user in ["ContainerAdministrator", "ContainerUser"] {
            for attempt in
                ["echo x> new.txt", "mkdir new", "ren given.txt other.txt", "echo x>> given.txt"]
            {
                let batch = format!("cd /d {place}\\ && {attempt}");
                let run = ["run", "--rm", "-u", user, "-v", &bind, CORE, "cmd", "/c", &batch];
                let outcome = engine.docker(&run);
                // Wine's cmd does not always fail then.
                let said = outcome.stdout + &outcome.stderr;
                assert!(said.contains("Access denied"), "{place} {attempt}: {said}");
            }
        }
        // What `del` says it does not do.
        let batch = format!("del /q {place}\\given.txt& type {place}\\given.txt");
        let text = engine.docker(&["run", "--rm", "-v", &bind, CORE, "cmd", "/c", &batch]).stdout;
        assert!(text.contains("given"), "{text}");
    }
    let names: Vec<_> = fs_err::read_dir(&host).expect("the folder").flatten().collect();
    assert_eq!(names.len(), 1);
    assert_eq!(fs_err::read_to_string(host.join("given.txt")).expect("the file"), "given\n");
}
