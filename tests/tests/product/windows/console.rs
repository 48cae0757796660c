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
    let Some((engine, _)) = start() else { return };
    let plain = &["C:\\work\\console.exe", "x"][..];
    let cases = [
        (&[][..], plain, Some(42)),
        (&["-u", "ContainerUser"], plain, Some(42)),
        (&["-t"], plain, Some(42)),
        // Who hears nothing is killed at last.
        (&[], &["C:\\work\\console.exe"], Some(137)),
        // What cmd waits for is told, and cmd goes on until it is over.
        (&[], &["cmd", "/c", "C:\\work\\console.exe x& exit 7"], None),
    ];
    let scratch = engine.scratch();
    let (place, name) = (
        |number: usize| scratch.join(number.to_string()),
        |number: usize| engine.name(&format!("hears{number}")),
    );
    let log = |number| fs_err::read_to_string(place(number).join("log")).unwrap_or_default();
    for (number, (options, command, _)) in cases.iter().enumerate() {
        fs_err::create_dir(place(number)).expect("a folder");
        let program = place(number).join("console.exe");
        fs_err::copy(scratch.join("console.exe"), program).expect("the program");
        let volume = format!("{}:C:\\work", place(number).display());
        let run = ["run", "-d", "--name", &name(number), "-v", &volume];
        engine.ok(&[&run[..], options, &[CORE], command].concat());
        wait("the program", || log(number).starts_with("ready").then_some(()));
    }
    // All at once, since it is mostly waiting: each has seconds for either event.
    std::thread::scope(|scope| {
        for number in 0..cases.len() {
            let (engine, name) = (&engine, name(number));
            scope.spawn(move || engine.ok(&["stop", "-t", "10", &name]));
        }
    });
    for (number, (options, command, code)) in cases.iter().enumerate() {
        assert_eq!(log(number), "ready 0 0\nevent 0 0\nevent 6 0\n", "{options:?} {command:?}");
        if let Some(code) = code {
            let state = engine.inspect(&name(number))["State"].clone();
            assert_eq!(state["ExitCode"], *code, "{options:?} {command:?}");
        }
    }
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
