//! The `silo` command line: Docker's verbs, flags, output and exit codes over the Engine API.
//!
//! A command is one entry of the table in `commands`: its names, its flags as data, and an
//! async function. The table is static and nothing is built from it before the chosen command is
//! known, since a command's start is part of every container's start. Help, completions and man
//! pages are made from the same table.
//!
//! Results go to stdout; progress, warnings and errors go to stderr. Exit codes: 0; 1 for a
//! failure; 125 for a flag that is wrong or an engine that refuses a run; 126 and 127 for a
//! program that cannot be run or found; else the container's own.
//!
//! The engine is the one that `--host`, `DOCKER_HOST`, `SILO_HOST`, `--context`, `DOCKER_CONTEXT`
//! or the configuration names. With none of these it is Silo's own, which is started when it
//! does not run.

mod build;
mod cli_input;
mod command;
mod commands;
mod config;
mod connect;
mod context;
mod cp;
mod create;
mod credentials;
mod direct;
mod doctor;
mod env;
mod failure;
mod flags;
mod format;
mod help;
mod options;
mod progress;
mod shell;
mod stream;
mod table;
mod template;
mod terminal;
mod value;
mod windows;

use std::ffi::OsString;
use std::process::ExitCode;

pub use connect::default_socket;

/// Runs the command line with the arguments after the program's name.
pub fn main(args: Vec<OsString>) -> ExitCode {
    let args: Vec<String> =
        args.into_iter().map(|arg| arg.to_string_lossy().into_owned()).collect();
    terminal::restore_on_panic();
    let result = context::run(&args);
    terminal::restore();
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            if !failure.message.is_empty() {
                context::warn(&failure.message);
            }
            ExitCode::from(failure.code)
        }
    }
}
