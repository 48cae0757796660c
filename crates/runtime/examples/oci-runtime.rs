//! The compute layer alone as an OCI runtime, for tests and for trying it out.

use std::process::ExitCode;

fn main() -> ExitCode {
    silo_runtime::cli::main(std::env::args_os().skip(1).collect())
}
