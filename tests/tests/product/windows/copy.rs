//! `docker cp` with paths as people of Windows write them.

use silo_tests::WindowsEngine;

use super::CORE;

#[test]
fn paths_have_backslashes_and_no_case() {
    let Some(engine) = WindowsEngine::start_or_skip() else { return };
    let name = engine.name("copy");
    engine.ok(&["run", "-d", "--name", &name, CORE, "ping", "-n", "1000", "127.0.0.1"]);
    engine.ok(&["exec", &name, "cmd", "/c", "mkdir C:\\Data\\Sub& echo old> C:\\Data\\old.txt"]);
    let scratch = engine.scratch();
    let at = |path: &str| scratch.join(path).display().to_string();
    fs_err::create_dir_all(at("tree/Below")).expect("a folder");
    fs_err::write(at("tree/Below/file"), "deep").expect("a file");
    fs_err::write(at("one.txt"), "one").expect("a file");
    let inside = |path: &str| format!("{name}:{path}");
    for (running, fresh) in [(true, "Moved"), (false, "Later")] {
        let (to_fresh, in_fresh) =
            (format!("C:\\data\\{fresh}"), format!("Data/{fresh}/Below/file"));
        for (source, target, made, text) in [
            // A folder that is there takes the name of what is copied.
            ("one.txt", "C:\\data", "Data/one.txt", "one"),
            ("one.txt", "c:\\DATA\\sub\\", "Data/Sub/one.txt", "one"),
            // Another name is the name.
            ("one.txt", "C:\\data\\SUB\\New.txt", "Data/Sub/New.txt", "one"),
            ("one.txt", "C:\\data\\old.TXT", "Data/old.txt", "one"),
            ("one.txt", "\\Top.txt", "Top.txt", "one"),
            ("tree", &*to_fresh, &*in_fresh, "deep"),
            ("tree/.", "C:\\data\\sub", "Data/Sub/Below/file", "deep"),
            ("tree", "C:\\data\\", "Data/tree/Below/file", "deep"),
            ("tree/.", "/data/SUB\\again", "Data/Sub/again/Below/file", "deep"),
        ] {
            engine.ok(&["cp", &at(source), &inside(target)]);
            let out = at("out");
            engine.ok(&["cp", &inside(&format!("/{made}")), &out]);
            assert_eq!(fs_err::read_to_string(&out).expect(target), text, "{target}");
            fs_err::remove_file(&out).expect("remove");
        }
        // Into names that differ in nothing but case.
        fs_err::create_dir_all(at("again/BELOW")).expect("a folder");
        fs_err::write(at("again/BELOW/FILE"), "other").expect("a file");
        engine.ok(&["cp", &at("again/."), &inside(&to_fresh.to_lowercase())]);
        let list = engine.ok(&["cp", &inside(&to_fresh), "-"]);
        let names: Vec<&str> = list.split('\0').filter(|part| part.starts_with(fresh)).collect();
        assert_eq!(names, ["/", "/Below/", "/Below/file"].map(|end| format!("{fresh}{end}")));
        // Out, into a folder and under the same name.
        fs_err::create_dir_all(at("into")).expect("a folder");
        engine.ok(&["cp", &inside("C:\\DATA\\sub\\new.txt"), &at("into")]);
        engine.ok(&["cp", &inside("c:\\Data\\Sub\\"), &at("into")]);
        engine.ok(&["cp", &inside("C:\\data\\OLD.txt"), &at("into/OLD.txt")]);
        for (path, text) in [("new.txt", "one"), ("Sub/New.txt", "one"), ("OLD.txt", "one")] {
            let path = at(&format!("into/{path}"));
            assert_eq!(fs_err::read_to_string(&path).expect(&path), text);
        }
        // Silo's own command line knows such paths, and gives any name.
        silo_ok(&engine, &["cp", &inside("C:\\data\\sub\\new.txt"), &at("renamed.txt")]);
        assert_eq!(fs_err::read_to_string(at("renamed.txt")).expect("a file"), "one");
        silo_ok(&engine, &["cp", &at("one.txt"), &inside("C:\\Data\\Sub\\ours.txt")]);
        engine.ok(&["cp", &inside("/data/sub/ours.txt"), &at("renamed.txt")]);
        for (target, why) in [
            ("C:\\none\\x.txt", "no folder C:\\none"),
            ("C:\\data\\none\\", "no such directory"),
            ("D:\\x.txt", "only drive C:"),
            ("C:\\data\\nul", "device"),
            ("C:\\data\\a:b", "colon"),
        ] {
            let said = engine.fails(1, &["cp", &at("one.txt"), &inside(target)]);
            assert!(said.contains(why), "{target}: {said}");
        }
        let said = engine.fails(1, &["cp", &inside("C:\\data\\none"), "-"]);
        let words = ["Could not find the file C:\\data\\none", "No such container:path: "];
        // The second is what command lines before 23 say.
        assert!(words.iter().any(|words| said.contains(words)), "{said}");
        fs_err::remove_dir_all(at("into")).expect("remove");
        if running {
            engine.ok(&["stop", "-t", "0", &name]);
        }
    }
    // Nothing has got a name with a path in it.
    engine.ok(&["start", &name]);
    let all = engine.ok(&["exec", &name, "cmd", "/c", "dir /b C:\\"]);
    assert!(all.lines().any(|line| line == "Top.txt"), "{all}");
    assert!(!all.contains('~'), "{all}");
    assert_eq!(engine.ok(&["exec", &name, "cmd", "/c", "type C:\\Data\\Sub\\ours.txt"]), "one");
}

#[track_caller]
fn silo_ok(engine: &WindowsEngine, arguments: &[&str]) {
    let outcome = engine.silo(arguments);
    assert_eq!(outcome.code, 0, "{arguments:?}: {}", outcome.stderr);
}
