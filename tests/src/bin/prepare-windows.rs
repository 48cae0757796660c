//! Fetches and makes what tests of Windows containers share, so that no test waits for it.

use std::process::ExitCode;

fn main() -> ExitCode {
    let mut code = ExitCode::SUCCESS;
    let mut tell = |what: &str, result: Result<_, String>| {
        if let Err(reason) = result {
            eprintln!("tests of Windows containers lack {what}: {reason}");
            code = ExitCode::FAILURE;
        }
    };
    tell("the images", silo_tests::windows_data());
    for program in silo_tests::windows_programs() {
        tell(program, silo_tests::windows_program(program));
    }
    for package in silo_tests::hive_packages() {
        tell(package, silo_tests::real_hives(package));
    }
    code
}
