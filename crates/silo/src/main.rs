//! One program, several roles: command line, daemon, container supervisor, container init, OCI
//! runtime, and registry. The role is chosen by the name the program was started under, or by its
//! first argument. The supervisor and the init are chosen before anything is set up, because their
//! start is part of every container's start.

mod daemon;
mod init;
mod lock;
mod registry;

use std::ffi::OsString;
use std::io::Write;
use std::path::Path;
use std::process::ExitCode;

fn main() -> ExitCode {
    let mut args = std::env::args_os();
    let program = args.next().unwrap_or_default();
    let name = Path::new(&program).file_name().unwrap_or(&program);
    if name == "silo-shim" {
        return silo_shim::main(std::iter::once(program).chain(args));
    }
    let args: Vec<OsString> = args.collect();
    if name == "docker-init" {
        if let [role, process, options @ ..] = &args[..]
            && role == "--windows"
        {
            let volatile = options.iter().any(|option| option == "--volatile");
            return silo_windows::init::main(&process.to_string_lossy(), volatile);
        }
        return init::main(args);
    }
    let rest = || args.iter().skip(1).cloned().collect::<Vec<_>>();
    match args.first().and_then(|verb| verb.to_str()) {
        Some("silo-shim") => silo_shim::main(args),
        Some("init") => init::main(rest()),
        Some("runtime") => silo_runtime::cli::main(rest()),
        Some("daemon") => daemon::main(rest()),
        Some("registry") => registry::main(rest()),
        _ => silo_cli::main(args),
    }
}

/// Writes one line to stderr. Nothing can be done when that fails.
pub(crate) fn complain(message: &str) {
    writeln!(std::io::stderr().lock(), "{message}").ok();
}
