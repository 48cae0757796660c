//! What programs hear of their console: the end that comes, and the terminal's size.

use silo_tests::{WindowsEngine, compile_windows};

use super::{CORE, wait};

const SOURCE: &str = include_str!("console.c");

/// An engine, and the option that mounts a directory with the program `console.exe`, in which it
/// writes its log.
fn start() -> Option<(WindowsEngine, String)> {
    let engine = WindowsEngine::start_or_skip()?;
    let work = engine.scratch();
    compile_windows(SOURCE, &work.join("console.exe"));
    let volume = format!("{}:C:\\work", work.display());
    Some((engine, volume))
}

/// What the program has noted.
fn log(engine: &WindowsEngine) -> String {
    fs_err::read_to_string(engine.scratch().join("log")).unwrap_or_default()
}

fn wait_for(engine: &WindowsEngine, line: &str) {
    wait(&format!("{line:?}"), || {
        log(engine).lines().any(|noted| noted.starts_with(line)).then_some(())
    });
}

#[test]
fn the_shutdown_follows_ctrl_c() {
    let Some((engine, volume)) = start() else { return };
    let plain = &["C:\\work\\console.exe", "x"][..];
    let (ctrl_c, shutdown) = ("event 0 0\n", "event 6 0\n");
    let both = format!("ready 0 0\n{ctrl_c}{shutdown}");
    for (options, command, code, noted) in [
        (&[][..], plain, 42, &*both),
        (&["-u", "ContainerUser"], plain, 42, &both),
        (&["-t"], plain, 42, &both),
        // Who hears nothing is killed at last.
        (&[], &["C:\\work\\console.exe"], 137, &both),
    ] {
        let name = engine.name("hears");
        fs_err::write(engine.scratch().join("log"), "").expect("an empty log");
        let run = ["run", "-d", "--name", &name, "-v", &volume];
        engine.ok(&[&run[..], options, &[CORE], command].concat());
        wait_for(&engine, "ready");
        engine.ok(&["stop", "-t", "2", &name]);
        assert_eq!(engine.inspect(&name)["State"]["ExitCode"], code, "{options:?} {command:?}");
        assert_eq!(log(&engine), noted, "{options:?} {command:?}");
        engine.ok(&["rm", &name]);
    }
    // What cmd waits for is told, and cmd goes on until it is over.
    let name = engine.name("script");
    fs_err::write(engine.scratch().join("log"), "").expect("an empty log");
    let line = "C:\\work\\console.exe x& exit 7";
    engine.ok(&["run", "-d", "--name", &name, "-v", &volume, CORE, "cmd", "/c", line]);
    wait_for(&engine, "ready");
    engine.ok(&["stop", "-t", "2", &name]);
    assert_eq!(log(&engine), both);
}

#[test]
fn programs_hear_of_new_sizes() {
    let Some((engine, volume)) = start() else { return };
    let name = engine.name("sized");
    let run = ["run", "-d", "-t", "--name", &name, "-v", &volume, CORE];
    engine.ok(&[&run[..], &["C:\\work\\console.exe", "x"]].concat());
    wait_for(&engine, "ready");
    for (columns, rows) in [(120, 40), (60, 20), (200, 50)] {
        let target = format!("/containers/{name}/resize?h={rows}&w={columns}");
        assert_eq!(engine.http("POST", &target, "").status, 200);
        wait_for(&engine, &format!("size {columns} {rows}"));
    }
    engine.ok(&["rm", "-f", &name]);
}
