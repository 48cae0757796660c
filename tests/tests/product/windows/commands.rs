//! What reaches commands, and what they see.

use silo_tests::{WindowsEngine, compile_windows};

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

/// As on Windows: who removes a link removes nothing else.
#[test]
fn links_go_without_what_they_lead_to() {
    let Some(engine) = WindowsEngine::start_or_skip() else { return };
    let name = engine.name("links");
    engine.ok(&["run", "-d", "--name", &name, CORE, "ping", "-n", "1000", "127.0.0.1"]);
    let run = |command: &str| engine.ok(&["exec", &name, "cmd", "/c", command]);
    run("mkdir C:\\full\\below& echo kept> C:\\full\\below\\file& echo own> C:\\full\\file");
    for (link, remove) in [
        ("/d", "rmdir C:\\link"),
        ("/j", "rmdir C:\\link"),
        ("/d", "rmdir /s /q C:\\link"),
        ("/j", "rd/s/q C:\\link"),
    ] {
        run(&format!("mklink {link} C:\\link C:\\full"));
        let listed = run("dir /b C:\\");
        assert!(listed.lines().any(|line| line == "link"), "{link}: {listed}");
        run(remove);
        let listed = run("dir /b C:\\");
        assert!(!listed.lines().any(|line| line == "link"), "{link}, {remove}: {listed}");
        assert_eq!(run("type C:\\full\\below\\file& type C:\\full\\file"), "kept\r\nown");
    }
    // In a folder that goes, beside a file that is read-only and a link that leads nowhere.
    run("mkdir C:\\tree\\sub& cd C:\\tree& echo x> sub\\file& attrib +r sub\\file& \
         mklink /d sub\\up ..\\..\\full& mklink /j none C:\\none& mklink file.txt ..\\full\\file");
    run("rmdir /s /q C:\\tree");
    assert!(!run("dir /b C:\\").contains("tree"));
    assert_eq!(run("type C:\\full\\below\\file& type C:\\full\\file"), "kept\r\nown");
    let full = engine.docker(&["exec", &name, "cmd", "/c", "rmdir C:\\full"]);
    assert!(full.stderr.contains("not empty"), "{full:?}");
    run("rmdir /s /q C:\\full");
    assert!(!run("dir /b C:\\").contains("full"));
}

/// Programs are told that no link was made.
#[test]
fn links_that_programs_cannot_make_are_refused() {
    let Some(engine) = WindowsEngine::start_or_skip() else { return };
    let scratch = engine.scratch();
    let source = "#include <windows.h>\n#include <stdio.h>\nint main(void) {\n\
        BOOLEAN made = CreateSymbolicLinkW(L\"C:\\\\made\", L\"C:\\\\Windows\", 1);\n\
        printf(\"%d %lu\\n\", made, GetLastError());\n\
        made = CreateSymbolicLinkA(\"C:\\\\made\", \"C:\\\\Windows\", 1);\n\
        printf(\"%d %lu\\n\", made, GetLastError());\nreturn 0; }\n";
    compile_windows(source, &scratch.join("link.exe"));
    let volume = format!("{}:C:\\work", scratch.display());
    let said = engine.ok(&["run", "--rm", "-v", &volume, CORE, "C:\\work\\link.exe"]);
    assert_eq!(said, "0 1314\r\n0 1314");
}
