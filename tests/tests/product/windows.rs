//! Windows containers: real programs in them, and what holds between them and the host. Docker
//! has none on Linux, so all of these are of Silo alone.

mod bases;
mod check;
mod commands;
mod console;
mod copy;
mod damaged;
mod errors;
mod image;
mod isolation;
mod layers;
mod lifecycle;
mod pipes;
mod programs;
mod resources;
mod servers;
mod tls;
mod volumes;

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use silo_tests::{WindowsEngine, skip, windows_program};

/// The base image that most tests run.
const CORE: &str = "silo/servercore:ltsc2019";

/// How long something may take that takes a second on an idle machine.
const LIMIT: Duration = Duration::from_mins(1);

/// The option that mounts a program's directory, read-only, as `place`; `None` where the program
/// cannot be had, for which the running test counts as skipped.
fn program(name: &str, place: &str) -> Option<String> {
    match windows_program(name) {
        Ok(directory) => Some(format!("{}:{place}:ro", directory.display())),
        Err(reason) => {
            let thread = std::thread::current();
            skip(thread.name().unwrap_or("a test"), &format!("no {name}: {reason}"));
            None
        }
    }
}

/// Asks until `ready` has something to say.
#[expect(
    clippy::disallowed_methods,
    reason = "servers in a container do not tell when they listen"
)]
#[track_caller]
fn wait<T>(what: &str, mut ready: impl FnMut() -> Option<T>) -> T {
    let end = Instant::now() + LIMIT;
    loop {
        if let Some(value) = ready() {
            return value;
        }
        assert!(Instant::now() < end, "{what} did not come");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// Fetches a page from a server that may not listen yet; the answer with its head.
#[track_caller]
fn fetch(address: &str) -> String {
    wait(&format!("a page from {address}"), || {
        let mut stream = TcpStream::connect(address).ok()?;
        stream.set_read_timeout(Some(Duration::from_secs(10))).ok()?;
        stream.write_all(b"GET / HTTP/1.0\r\n\r\n").ok()?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).ok()?;
        (!answer.is_empty()).then_some(answer)
    })
}

/// Asserts that the container has what its log should have by now.
#[track_caller]
fn wait_log(engine: &WindowsEngine, name: &str, text: &str) {
    wait(&format!("{text:?} in the log of {name}"), || {
        let outcome = engine.docker(&["logs", name]);
        (outcome.stdout + &outcome.stderr).contains(text).then_some(())
    });
}
