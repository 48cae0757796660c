//! What cannot be: each says what it is about.

use silo_tests::WindowsEngine;

use super::CORE;

#[test]
fn what_cannot_run_is_told() {
    let Some(engine) = WindowsEngine::start_or_skip() else { return };
    let text = engine.scratch().join("text");
    fs_err::write(&text, "no program\n").expect("a file");
    let text = format!("{}:C:\\text.exe", text.display());
    for (code, options, command, words) in [
        (
            127,
            &[][..],
            "nosuch.exe",
            &["\"nosuch.exe\"", "executable file not found", "system cannot find the file"][..],
        ),
        (127, &[], "C:\\no\\such.exe", &["such.exe", "executable file not found"]),
        (126, &[], "C:\\Windows\\win.ini", &["win.ini", "not a program for Windows"]),
        (126, &["-v", &text], "C:\\text.exe", &["text.exe", "not a program for Windows"]),
        (125, &["-w", "C:\\Windows\\win.ini"], "cmd", &["win.ini", "directory name is invalid"]),
        (125, &["-w", "X:\\none"], "cmd", &["X:\\\\none", "directory name is invalid"]),
        (125, &["-w", "nowhere"], "cmd", &["working directory", "nowhere"]),
        (125, &["-u", "bob"], "cmd", &["unable to find user bob", "ContainerUser"]),
        (125, &["-u", "0"], "cmd", &["unable to find user 0"]),
        (125, &["-v", "/tmp:1:\\x"], "cmd", &["\"1", "C:\\folder"]),
        (125, &["-v", "/tmp:\\\\?\\unix\\tmp"], "cmd", &["unix", "C:\\folder"]),
        (125, &["-v", "/tmp:\\\\.\\C:\\x"], "cmd", &["C:\\folder"]),
        (125, &["-v", "/tmp:C:"], "cmd", &["cannot be 'c:'"]),
        (125, &["-v", "/tmp:C:\\a\\..\\.."], "cmd", &["cannot be 'c:'"]),
        (125, &["-v", "/tmp:D:\\x"], "cmd", &["D:\\"]),
        (125, &["--privileged"], "cmd", &["privileged"]),
        (125, &["--read-only"], "cmd", &["read-only"]),
        (125, &["--tmpfs", "C:\\x"], "cmd", &["tmpfs"]),
        (125, &["--cap-add", "SYS_ADMIN"], "cmd", &["capabilities"]),
    ] {
        let name = engine.name("x");
        let outcome = engine
            .docker(&[&["run", "--name", &name], options, &[CORE, command, "/c", "cd"]].concat());
        assert_eq!(outcome.code, code, "{options:?} {command}: {outcome:?}");
        for word in words {
            assert!(outcome.stderr.contains(word), "{word}: {}", outcome.stderr);
        }
        engine.docker(&["rm", "-f", &name]);
    }
}

#[test]
fn what_cannot_run_in_a_running_container_is_told() {
    let Some(engine) = WindowsEngine::start_or_skip() else { return };
    let name = engine.name("long");
    engine.ok(&["run", "-d", "--name", &name, CORE, "ping", "-n", "1000", "127.0.0.1"]);
    for (code, options, command, words) in [
        (127, &[][..], "nosuch.exe", "executable file not found"),
        (126, &[], "C:\\Windows\\win.ini", "not a program for Windows"),
        (128, &["-w", "C:\\none"], "cmd", "The directory name is invalid. (0x10b)"),
        (128, &["-w", "none"], "cmd", "The directory name is invalid. (0x10b)"),
        (128, &["-w", "C:\\Windows\\win.ini"], "cmd", "The directory name is invalid. (0x10b)"),
        (126, &["-w", "C:\\a|b"], "cmd", "does not allow"),
        (1, &["-u", "bob"], "cmd", "unable to find user bob"),
    ] {
        let outcome = engine.docker(&[&["exec"], options, &[&name, command, "/c", "cd"]].concat());
        assert_eq!(outcome.code, code, "{options:?} {command}: {outcome:?}");
        let said = outcome.stdout + &outcome.stderr;
        assert!(said.contains(words), "{words}: {said}");
    }
}

#[test]
fn the_working_directory_is_made() {
    let Some(engine) = WindowsEngine::start_or_skip() else { return };
    // As on Windows, for the container's own program only.
    for (path, shown) in [
        ("C:\\made\\Below", "C:\\made\\Below"),
        ("c:/WINDOWS/Made", "C:\\Windows\\Made"),
        ("\\Users\\PUBLIC", "C:\\Users\\Public"),
    ] {
        let run = ["run", "--rm", "-w", path, CORE, "cmd", "/c", "echo x> file& cd& dir /b"];
        let text = engine.ok(&run);
        let mut lines = text.lines();
        assert!(lines.next().is_some_and(|line| line.eq_ignore_ascii_case(shown)), "{text}");
        assert!(lines.any(|line| line == "file"), "{text}");
    }
    let name = engine.name("twice");
    engine.ok(&["run", "--name", &name, "-w", "C:\\Windows\\NEW", CORE, "cmd", "/c", "cd"]);
    engine.ok(&["start", "-a", &name]);
    let changes = engine.ok(&["diff", &name]);
    assert!(changes.lines().any(|line| line == "A C:\\Windows\\NEW"), "{changes}");
}

#[test]
fn names_of_microsoft_mean_our_bases_unless_told_otherwise() {
    let Some(mut engine) = WindowsEngine::start_or_skip() else { return };
    let theirs = "mcr.microsoft.com/windows/servercore:ltsc2019";
    let create = ["create", "--pull", "never", theirs, "cmd"];
    let outcome = engine.docker(&create);
    assert_eq!(outcome.code, 0, "{outcome:?}");
    assert_eq!(outcome.stderr.matches("Silo's compatible base").count(), 1, "{outcome:?}");
    assert!(outcome.stderr.contains("is not Microsoft's"), "{outcome:?}");
    engine.kill_daemon();
    engine.add_option("--no-windows-substitutes");
    engine.start_daemon();
    let outcome = engine.docker(&create);
    assert_eq!(outcome.code, 1, "{outcome:?}");
    assert!(outcome.stderr.contains(&format!("No such image: {theirs}")), "{outcome:?}");
    assert_eq!(engine.docker(&["create", CORE, "cmd"]).code, 0);
}
