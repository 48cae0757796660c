//! Programs that do one thing and end.

use silo_tests::{Outcome, WindowsEngine};

use super::{CORE, program};

/// Runs a program in a new container, with a folder of the host as D:.
fn run(engine: &WindowsEngine, options: &[&str], files: &str, command: &[&str]) -> Outcome {
    let work = format!("{}:D:", engine.scratch().display());
    let head = ["run", "--rm", "-v", files, "-v", &work, "-w", "D:\\"];
    engine.docker(&[&head[..], options, &[CORE], command].concat())
}

/// The same, which must succeed; what it says on both of its outputs.
#[track_caller]
fn said(engine: &WindowsEngine, options: &[&str], files: &str, command: &[&str]) -> String {
    let outcome = run(engine, options, files, command);
    assert_eq!(outcome.code, 0, "{command:?}: {}{}", outcome.stdout, outcome.stderr);
    outcome.stdout + &outcome.stderr
}

#[test]
fn programs_of_many_makers_run() {
    let Some(engine) = WindowsEngine::start_or_skip() else { return };
    for (name, command, expected) in [
        ("node20", &["node.exe", "-p", "process.version + process.arch"][..], "v20.20.2x64"),
        ("node-x86", &["node.exe", "-p", "process.version + process.arch"], "v22.23.2ia32"),
        ("bun", &["bun.exe", "-p", "Bun.version + process.platform"], "1.4.5win32"),
        ("biome", &["biome.exe", "--version"], "Version: 2.5.15"),
        ("dbmate", &["dbmate.exe", "--version"], "dbmate version 2.24.0"),
        ("dotnet", &["dotnet.exe", "--info"], "Version  : 2.0.0"),
        ("esbuild-x86", &["esbuild.exe", "--version"], "0.28.2"),
        ("lefthook", &["lefthook.exe", "version"], "2.2.2"),
        ("sentry-cli-x86", &["sentry-cli.exe", "--version"], "sentry-cli 3.8.0"),
        ("uv", &["uv.exe", "--version"], "uv 0.13.9"),
    ] {
        let Some(files) = program(name, "C:\\app") else { continue };
        let path = format!("C:\\app\\{}", command[0]);
        for options in [&[][..], &["-u", "ContainerUser"], &["-t"]] {
            let text = said(&engine, options, &files, &[&[path.as_str()], &command[1..]].concat());
            assert!(text.contains(expected), "{name} {options:?}: {text}");
        }
    }
}

#[test]
fn esbuild_builds() {
    let Some(engine) = WindowsEngine::start_or_skip() else { return };
    let scratch = engine.scratch();
    fs_err::write(scratch.join("part.ts"), "export const answer: number = 6 * 7;\n")
        .expect("a file");
    fs_err::write(scratch.join("main.ts"), "import { answer } from './part';\nprint(answer);\n")
        .expect("a file");
    for name in ["esbuild", "esbuild-x86"] {
        let Some(files) = program(name, "C:\\app") else { continue };
        let command =
            ["C:\\app\\esbuild.exe", "main.ts", "--bundle", "--minify", "--outfile=out.js"];
        let text = said(&engine, &[], &files, &command);
        assert!(text.contains("out.js"), "{text}");
        let built = fs_err::read_to_string(scratch.join("out.js")).expect("what was built");
        assert!(built.contains("print("), "{built}");
        fs_err::remove_file(scratch.join("out.js")).expect("remove");
        let input = engine.docker_with_input(
            &["run", "-i", "--rm", "-v", &files, CORE, command[0], "--loader=ts"],
            b"let x: number = 1;\n",
        );
        assert_eq!((input.code, input.stdout.trim_end()), (0, "let x = 1;"), "{}", input.stderr);
    }
}

#[test]
fn seven_zip_packs_and_unpacks() {
    let Some(engine) = WindowsEngine::start_or_skip() else { return };
    let Some(files) = program("7za-x86", "C:\\app") else { return };
    let scratch = engine.scratch();
    let text = "many words ".repeat(100_000);
    fs_err::write(scratch.join("text"), &text).expect("a file");
    let zip = "C:\\app\\7za.exe";
    said(&engine, &[], &files, &[zip, "a", "packed.7z", "text"]);
    let size = fs_err::metadata(scratch.join("packed.7z")).expect("an archive").len();
    assert!(size < 10_000, "{size}");
    said(&engine, &["-u", "ContainerUser"], &files, &[zip, "x", "-oout", "packed.7z"]);
    assert_eq!(fs_err::read_to_string(scratch.join("out/text")).expect("a file"), text);
    assert_eq!(run(&engine, &[], &files, &[zip, "t", "none.7z"]).code, 2);
}

#[test]
fn dbmate_and_uv_make_files() {
    let Some(engine) = WindowsEngine::start_or_skip() else { return };
    let scratch = engine.scratch();
    if let Some(files) = program("dbmate", "C:\\app") {
        let text = said(&engine, &[], &files, &["C:\\app\\dbmate.exe", "new", "first"]);
        assert!(text.contains("Creating migration"), "{text}");
        let made = fs_err::read_dir(scratch.join("db/migrations")).expect("a folder").count();
        assert_eq!(made, 1);
    }
    if let Some(files) = program("uv", "C:\\app") {
        let init =
            ["C:\\app\\uv.exe", "init", "--offline", "--bare", "--no-python-downloads", "one"];
        let outcome = run(&engine, &["-u", "ContainerUser"], &files, &init);
        // There is no Python in the container, which uv says.
        assert!(outcome.stderr.contains("Python"), "{}{}", outcome.stdout, outcome.stderr);
    }
}

#[test]
fn programs_get_input_and_give_bytes() {
    let Some(engine) = WindowsEngine::start_or_skip() else { return };
    let Some(node) = program("node", "C:\\node") else { return };
    let echo = "process.stdin.pipe(process.stdout); process.stderr.write('to the side')";
    let bytes: Vec<u8> = (0..300_000_u32).flat_map(u32::to_le_bytes).collect();
    for user in ["ContainerAdministrator", "ContainerUser"] {
        let mut command = engine.docker_command();
        command
            .args([
                "run",
                "-i",
                "--rm",
                "-u",
                user,
                "-v",
                &node,
                CORE,
                "C:\\node\\node.exe",
                "-e",
                echo,
            ])
            .stdin(std::process::Stdio::piped())
            .stdout(std::process::Stdio::piped())
            .stderr(std::process::Stdio::piped());
        let mut child = command.spawn().expect("run docker");
        let mut stdin = child.stdin.take().expect("standard input");
        let input = bytes.clone();
        let writer = std::thread::spawn(move || {
            std::io::Write::write_all(&mut stdin, &input).expect("write");
        });
        let output = child.wait_with_output().expect("wait for docker");
        writer.join().expect("writer");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        assert!(output.stdout == bytes, "{} bytes came back", output.stdout.len());
        assert_eq!(output.stderr, b"to the side");
    }
}

#[test]
fn exit_codes_have_32_bits() {
    let Some(engine) = WindowsEngine::start_or_skip() else { return };
    for (code, shown) in [("0", 0_u32), ("3", 3), ("300", 300), ("-1", u32::MAX)] {
        let name = engine.name(&format!("code{code}").replace('-', "m"));
        let exit = ["run", "--name", &name, CORE, "cmd", "/c", &format!("exit {code}")];
        // A process of this host has eight of them.
        let low = i32::from(shown.to_le_bytes()[0]);
        assert_eq!(engine.docker(&exit).code, low, "{code}");
        assert_eq!(engine.inspect(&name)["State"]["ExitCode"], shown);
        assert_eq!(engine.ok(&["wait", &name]), shown.to_string());
    }
    let name = engine.name("exec");
    engine.ok(&["run", "-d", "--name", &name, CORE, "ping", "-n", "1000", "127.0.0.1"]);
    assert_eq!(engine.docker(&["exec", &name, "cmd", "/c", "exit 300"]).code, 44);
    assert_eq!(engine.docker(&["exec", &name, "cmd", "/c", "exit 7"]).code, 7);
}

#[test]
fn environments_are_those_of_windows() {
    let Some(engine) = WindowsEngine::start_or_skip() else { return };
    for user in ["ContainerAdministrator", "ContainerUser"] {
        let run = ["run", "--rm", "-u", user, "-h", "box", "-e", "OWN=a b=c", "-e", "tmp=C:\\"];
        let text = engine.ok(&[&run[..], &[CORE, "cmd", "/c", "set"]].concat());
        let profile = format!("C:\\Users\\{user}");
        for expected in [
            "OWN=a b=c".to_owned(),
            "TMP=C:\\".to_owned(),
            format!("TEMP={profile}\\AppData\\Local\\Temp"),
            format!("USERPROFILE={profile}"),
            format!("USERNAME={user}"),
            "COMPUTERNAME=BOX".to_owned(),
            "windir=C:\\Windows".to_owned(),
        ] {
            assert!(text.lines().any(|line| line.trim_end() == expected), "{expected}: {text}");
        }
        for foreign in ["HOME=", "LC_ALL=", "TERM=", "container="] {
            assert!(!text.lines().any(|line| line.starts_with(foreign)), "{foreign}: {text}");
        }
    }
}
