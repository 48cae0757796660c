//! The first container of an engine that is not set up for Windows.

use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Stdio};

use silo_tests::{Engine, Outcome, alone, silo_binary};

use super::prepared;

const IMAGE: &str = "mcr.microsoft.com/windows/servercore:ltsc2019";
const COMMAND: [&str; 6] = ["run", "--rm", IMAGE, "cmd", "/c", "exit 7"];

/// What a set-up that nobody gives options needs to know.
fn with_mirror(command: &mut Command, engine: &Engine, mirror: &Path) {
    command
        .env("SILO_DEBIAN_MIRROR", format!("file://{}", mirror.display()))
        .env("XDG_CACHE_HOME", engine.scratch().join("cache"));
}

fn run(engine: &Engine, wanted: Option<&str>) -> Outcome {
    let mut command = engine.silo_command();
    command.args(COMMAND);
    if let Some(wanted) = wanted {
        command.env("SILO_WINDOWS_SETUP", wanted);
    }
    command.output().expect("run silo").into()
}

/// Runs `silo` on a terminal on which somebody types.
fn type_in(engine: &Engine, mirror: &Path, typed: &str) -> Outcome {
    let mut command = alone(Command::new("script"));
    let line = format!("{} {} \"exit 7\"", silo_binary().display(), COMMAND[..5].join(" "));
    command
        .args(["-q", "-e", "-c", &line, "/dev/null"])
        .env("DOCKER_HOST", format!("unix://{}", engine.socket().display()))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    with_mirror(&mut command, engine, mirror);
    let mut child = command.spawn().expect("run script");
    let mut input = child.stdin.take().expect("its input");
    input.write_all(typed.as_bytes()).expect("type");
    // It is closed when the program has ended: an end of the input would be one more key.
    let output = child.wait_with_output().expect("wait");
    drop(input);
    output.into()
}

#[test]
fn the_first_container_offers_the_set_up() {
    let Some((engine, mirror)) = prepared("windows_setup::the_first_container") else { return };
    for image in [IMAGE, "silo/nanoserver:sac2016", "microsoft/windowsservercore"] {
        let outcome = engine.docker(&["run", "--rm", image, "cmd"]);
        assert_eq!(outcome.code, 125, "{outcome:?}");
        let words = "Windows containers are not set up: run `silo windows setup` once";
        assert!(outcome.stderr.contains(words), "{}", outcome.stderr);
        assert!(!outcome.stderr.contains("Unable to find image"), "{}", outcome.stderr);
    }
    for wanted in [None, Some("ask"), Some("never")] {
        let outcome = run(&engine, wanted);
        assert_eq!(outcome.code, 125, "{outcome:?}");
        for words in ["run `silo windows setup` once", "SILO_WINDOWS_SETUP=auto"] {
            assert!(outcome.stderr.contains(words), "{words}: {}", outcome.stderr);
        }
    }
    let outcome = run(&engine, Some("perhaps"));
    assert!(outcome.code == 125 && outcome.stderr.contains("auto, ask or never"), "{outcome:?}");

    let outcome = type_in(&engine, &mirror, "n\n");
    assert_eq!(outcome.code, 125, "{outcome:?}");
    assert!(outcome.stdout.contains("Set up now and go on? [y/N]"), "{}", outcome.stdout);
    assert_eq!(engine.silo(&["images", "-q"]).stdout, "", "nothing was made");

    let outcome = type_in(&engine, &mirror, "y\n");
    assert_eq!(outcome.code, 7, "{outcome:?}");
    assert!(outcome.stdout.contains("using silo/servercore:ltsc2019"), "{}", outcome.stdout);
    // From now on nobody asks.
    assert_eq!(run(&engine, None).code, 7);
}

#[test]
fn the_first_container_sets_up_when_it_is_told_to() {
    let Some((engine, mirror)) = prepared("windows_setup::the_first_container_sets_up") else {
        return;
    };
    let mut command = engine.silo_command();
    command.args(COMMAND).env("SILO_WINDOWS_SETUP", "auto");
    with_mirror(&mut command, &engine, &mirror);
    let outcome = Outcome::from(command.output().expect("run silo"));
    assert_eq!(outcome.code, 7, "{outcome:?}\n{}", engine.daemon_log());
    assert_eq!(outcome.stdout, "", "what the set-up says is not the program's output");
    assert!(outcome.stderr.contains("Windows containers are set up"), "{}", outcome.stderr);
}
