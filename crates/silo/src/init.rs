//! The first process of a container that was started with `--init`.
//!
//! It does what the kernel expects of process 1 and most programs do not do: it reaps the
//! children that it inherits, and it hands signals on to its one own child, whose exit code
//! becomes its own. It has one thread, and takes signals by waiting instead of by handlers.

use std::ffi::{CString, OsString};
use std::os::unix::ffi::OsStringExt;
use std::process::ExitCode;

use silo_sys::signal;

/// Codes of `docker-init` for its own failures, which never come from the program.
const USAGE: u8 = 1;

/// Runs the program in `args` (after an optional `--`), and returns its exit code.
pub(crate) fn main(args: Vec<OsString>) -> ExitCode {
    let skip = usize::from(args.first().is_some_and(|first| first == "--"));
    let command: Result<Vec<CString>, _> =
        args.into_iter().skip(skip).map(|word| CString::new(word.into_vec())).collect();
    match command {
        Ok(command) if !command.is_empty() => match supervise(&command) {
            Ok(code) => ExitCode::from(code),
            Err(error) => fail(&error.to_string()),
        },
        _ => fail("usage: docker-init -- PROGRAM [ARG...]"),
    }
}

fn fail(message: &str) -> ExitCode {
    crate::complain(&format!("docker-init: {message}"));
    ExitCode::from(USAGE)
}

fn supervise(command: &[CString]) -> std::io::Result<u8> {
    // Blocked before the child exists, so that no signal of its life is missed.
    let mask = signal::block_all()?;
    let child = signal::spawn_foreground(command, &mask)?;
    loop {
        let number = match signal::wait() {
            Ok(number) => number,
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(error),
        };
        if number == rustix::process::Signal::CHILD.as_raw() {
            while let Some((pid, code)) = signal::reap()? {
                if pid == child {
                    return Ok(u8::try_from(code).unwrap_or(u8::MAX));
                }
            }
        } else {
            // The child may have ended just now; its SIGCHLD comes next.
            signal::kill(child, number).ok();
        }
    }
}
