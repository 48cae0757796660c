//! The command line of OCI runtimes, as dockerd, containerd and Podman use it.
//!
//! The state of a container `id` is `<root>/<id>/`:
//!
//! - `state.json`: `state::Record`, replaced as a whole;
//! - `start`: a listening socket on which the container's process waits for its start; it is
//!   removed when the start begins.

mod args;
mod container;
mod events;
mod features;
mod life;
mod log;
mod process;
mod sealed;
mod show;
mod signals;
mod state;
mod terminal;
mod update;

use std::ffi::OsString;
use std::io::Write as _;
use std::process::ExitCode;

use clap::Parser as _;

use crate::error::Error;
use args::{Arguments, Command};
use log::Log;

/// Runs one command; `arguments` are those after the program's name (`create`, ...).
///
/// The exit code is that of the container's program where the command waits for it.
pub fn main(arguments: Vec<OsString>) -> ExitCode {
    let name = std::iter::once(OsString::from("silo runtime"));
    let arguments = match Arguments::try_parse_from(name.chain(arguments)) {
        Ok(arguments) => arguments,
        Err(error) => {
            let code = u8::try_from(error.exit_code()).unwrap_or(1);
            // There is nowhere to report that the report failed.
            let _printed = error.print();
            return ExitCode::from(code.min(1));
        }
    };
    if matches!(arguments.command, Command::Create(_) | Command::Run(_) | Command::Exec(_)) {
        // Without a sealed copy the binary is as safe as its file's permissions make it.
        let _unsealed = sealed::reexecute();
    }
    let log = Log::new(arguments.log.as_deref(), arguments.log_format, arguments.debug);
    match run(&arguments, &log) {
        Ok(code) => ExitCode::from(code),
        Err(error) => {
            let text = match arguments.command {
                Command::Create(_) | Command::Run(_) | Command::Start(_) => {
                    format!("unable to start container process: {error}")
                }
                Command::Exec(_) => {
                    format!("exec failed: unable to start container process: {error}")
                }
                _ => error.to_string(),
            };
            log.error(&text);
            ExitCode::from(error.exit_status().filter(|_| waits(&arguments.command)).unwrap_or(1))
        }
    }
}

/// Whether the command stands for the container's program, so that its exit code does too.
fn waits(command: &Command) -> bool {
    matches!(command, Command::Run(_) | Command::Exec(_))
}

fn run(arguments: &Arguments, log: &Log) -> Result<u8, Error> {
    match &arguments.command {
        Command::Spec(spec) => return show::spec(spec).map(|()| 0),
        Command::Features => return features::features().map(|()| 0),
        _ => {}
    }
    let store = state::Store::new(arguments.root.as_deref())?;
    crate::hooks::ensure_standard_streams()?;
    match &arguments.command {
        Command::Create(create) => container::create(&store, create).map(|()| 0),
        Command::Run(run) => container::run(&store, run),
        Command::Start(start) => container::start(&store, &start.id).map(|()| 0),
        Command::State(state) => show::state(&store, &state.id).map(|()| 0),
        Command::Kill(kill) => life::kill(&store, kill).map(|()| 0),
        Command::Delete(delete) => life::delete(&store, delete).map(|()| 0),
        Command::Exec(exec) => process::exec(&store, exec, log),
        Command::List(list) => show::list(&store, list).map(|()| 0),
        Command::Ps(ps) => show::ps(&store, ps).map(|()| 0),
        Command::Pause(pause) => life::pause(&store, &pause.id).map(|()| 0),
        Command::Resume(resume) => life::resume(&store, &resume.id).map(|()| 0),
        Command::Update(update) => update::update(&store, update).map(|()| 0),
        Command::Events(events) => events::events(&store, events).map(|()| 0),
        Command::Spec(_) | Command::Features => Ok(0),
    }
}

/// Writes to standard output.
fn print(text: &str) -> Result<(), Error> {
    std::io::stdout()
        .lock()
        .write_all(text.as_bytes())
        .map_err(|error| Error::step("write to standard output", error))
}

/// Writes a value as JSON to standard output.
fn print_json(value: &impl serde::Serialize) -> Result<(), Error> {
    let text =
        serde_json::to_string_pretty(value).map_err(|error| Error::invalid(error.to_string()))?;
    print(&format!("{text}\n"))
}
