//! What cannot be: each says what it is about.

use std::path::Path;

use silo_tests::{WindowsEngine, compile_windows};

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

/// Programs that Windows does not start either, made from one that it does, in a directory.
fn bad_programs(directory: &Path) {
    compile_windows("int main(void) { return 5; }", &directory.join("good.exe"));
    let good = fs_err::read(directory.join("good.exe")).expect("the program");
    let headers = u32::from_le_bytes(*good[0x3c..].first_chunk().expect("a header"));
    let headers = usize::try_from(headers).expect("a place in the file");
    let mut old = good.clone();
    old[headers..headers + 4].copy_from_slice(b"NE\0\0");
    let mut dos = good[..0x80].to_vec();
    dos[0x3c..0x40].fill(0);
    for (name, bytes) in [
        ("cut.exe", &good[..good.len() - 0x400]),
        ("headers.exe", &good[..headers + 40]),
        ("empty.exe", b""),
        ("ne.exe", &old),
        ("dos.exe", &dos),
        ("plain.com", b"\xb4\x4c\xcd\x21"),
    ] {
        fs_err::write(directory.join(name), bytes).expect("a program");
    }
}

#[test]
fn damaged_and_16_bit_programs_are_told() {
    let Some(engine) = WindowsEngine::start_or_skip() else { return };
    let scratch = engine.scratch();
    bad_programs(&scratch);
    let volume = format!("{}:C:\\bad", scratch.display());
    let name = engine.name("long");
    let long = ["ping", "-n", "1000", "127.0.0.1"];
    engine.ok(&[&["run", "-d", "--name", &name, "-v", &volume, CORE], &long[..]].concat());
    let damaged = ["or damaged: It is not a valid Win32 application. (0xc1)"];
    let old = ["16-bit program", "(0xd8)"];
    for (program, words, of_cmd) in [
        ("cut.exe", &damaged[..], "C:\\bad\\cut.exe is not a valid Win32 application."),
        ("headers.exe", &damaged, "headers.exe is not a valid Win32 application."),
        ("empty.exe", &damaged, "empty.exe is not a valid Win32 application."),
        ("ne.exe", &old, "This version of C:\\bad\\ne.exe is not compatible with the version of"),
        ("dos.exe", &old, "dos.exe is not compatible with the version of Windows"),
        ("plain.com", &old, "plain.com is not compatible with the version of Windows"),
    ] {
        let path = format!("C:\\bad\\{program}");
        let outcome = engine.docker(&["run", "--rm", "-v", &volume, CORE, &path]);
        assert_eq!(outcome.code, 126, "{program}: {outcome:?}");
        assert!(words.iter().all(|word| outcome.stderr.contains(word)), "{outcome:?}");
        assert!(!outcome.stderr.contains("wine:"), "{outcome:?}");
        let outcome = engine.docker(&["exec", &name, &path]);
        assert_eq!(outcome.code, 126, "{program}: {outcome:?}");
        let said = outcome.stdout + &outcome.stderr;
        assert!(words.iter().all(|word| said.contains(word)), "{said}");
        let outcome = engine.docker(&["exec", &name, "cmd", "/c", &path]);
        assert_ne!(outcome.code, 0, "{program}: {outcome:?}");
        assert_eq!(outcome.stderr.matches(of_cmd).count(), 1, "{of_cmd}: {outcome:?}");
        assert_eq!(outcome.stderr.lines().count(), 1, "{outcome:?}");
    }
    assert_eq!(engine.docker(&["exec", &name, "cmd", "/c", "C:\\bad\\good.exe"]).code, 5);
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
