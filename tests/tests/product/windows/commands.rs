//! What reaches commands, and what they see.

use silo_tests::WindowsEngine;

use super::CORE;

/// Runs a command in a new container; what it wrote, without carriage returns.
fn run(engine: &WindowsEngine, command: &[&str]) -> String {
    let all = [&["run", "--rm", CORE][..], command].concat();
    engine.ok(&all).replace("\r\n", "\n").trim_end().to_owned()
}

#[test]
fn quotes_reach_commands() {
    let Some(engine) = WindowsEngine::start_or_skip() else { return };
    let add = r#"reg add "HKCU\Software\A B" /v "a b" /d "c d" /f"#;
    let query = r#"reg query "HKCU\Software\A B" /v "a b""#;
    for both in [format!("{add}& {query}"), format!(r#""reg" add /?>nul& {add}& {query}"#)] {
        for switches in [
            &["cmd", "/c"][..],
            &["cmd", "/S", "/C"],
            &["C:\\Windows\\System32\\CMD.EXE", "/s", "/c"],
        ] {
            let seen = run(&engine, &[switches, &[&both]].concat());
            assert!(seen.contains("a b    REG_SZ    c d"), "{switches:?} {both}: {seen}");
        }
    }
    let seen = run(&engine, &["cmd", "/c", r#"echo "one" ^& two& echo "C:\x y\""#]);
    assert_eq!(seen, "\"one\" & two\n\"C:\\x y\\\"");
    // Words of their own, as clients without a shell give them.
    let words = ["cmd", "/c", "echo", "a b", "c"];
    assert_eq!(run(&engine, &words), "\"a b\" c");

    let name = engine.name("quotes");
    engine.ok(&["run", "-d", "--name", &name, CORE, "ping", "-n", "3600", "127.0.0.1"]);
    let seen = engine.ok(&["exec", &name, "cmd", "/c", &format!("{add}& {query}")]);
    assert!(seen.contains("a b    REG_SZ    c d"), "{seen}");
}

#[test]
fn variables_of_wine_are_not_seen() {
    let Some(engine) = WindowsEngine::start_or_skip() else { return };
    for command in ["set", "cmd /c set", "cmd /c cmd /c set"] {
        let seen = run(&engine, &["cmd", "/c", command]).to_lowercase();
        assert!(seen.contains("systemroot=") && !seen.contains("wine"), "{command}: {seen}");
        assert!(!seen.contains("winsysdir") && !seen.contains("term="), "{command}: {seen}");
    }
}

#[test]
fn links_are_made_and_removed() {
    let Some(engine) = WindowsEngine::start_or_skip() else { return };
    let make = "mkdir C:\\d C:\\e\\f& echo hi> C:\\a.txt& mklink C:\\b.txt a.txt& \
                mklink /d C:\\l C:\\D& mklink /j C:\\m C:\\e& mklink /h C:\\h.txt C:\\a.txt";
    let seen = run(
        &engine,
        &[
            "cmd",
            "/c",
            &format!("{make}& type C:\\b.txt& type C:\\h.txt& echo x> C:\\l\\x.txt& dir /b C:\\d"),
        ],
    );
    assert_eq!(
        seen,
        "symbolic link created for C:\\b.txt <<===>> a.txt\n\
         symbolic link created for C:\\l <<===>> C:\\D\n\
         Junction created for C:\\m <<===>> C:\\e\n\
         Hardlink created for C:\\h.txt <<===>> C:\\a.txt\nhi\nhi\nx.txt"
    );
    // What they lead to stays.
    let seen = run(
        &engine,
        &[
            "cmd",
            "/c",
            &format!(
                "({make})>nul& cd C:\\& del b.txt& rmdir l& move m n>nul& type a.txt& dir /b n& dir /b"
            ),
        ],
    );
    let names: Vec<&str> = seen.lines().collect();
    assert_eq!(names[..6], ["hi", "f", "a.txt", "d", "e", "h.txt"], "{seen}");
    assert!(names.contains(&"n"), "{seen}");
    for (command, words) in [
        ("mklink C:\\x D:\\y", "drive C: only"),
        ("mklink C:\\x \\\\?\\unix\\etc", "drive C: only"),
        ("mklink C:\\x ..\\..\\y", "drive C: only"),
        ("mklink C:\\Windows C:\\x", "already exists"),
        ("mklink C:\\none\\x C:\\Windows", "cannot find the path"),
        ("mklink /q a b", "Invalid switch"),
        ("mklink a", "syntax of the command"),
        ("mklink /h C:\\x C:\\none", "cannot find the file"),
    ] {
        let outcome = engine.docker(&["run", "--rm", CORE, "cmd", "/c", command]);
        assert_eq!(outcome.code, 1, "{command}: {outcome:?}");
        assert!(outcome.stderr.contains(words), "{command}: {outcome:?}");
    }
}
