//! Repository tasks: `cargo xtask <task>`. A developer, CI and a new user run the same ones.

mod clients;
mod conformance;
mod demo;
#[cfg(feature = "protos")]
mod protos;
mod rules;
mod setup;
mod sshd;
mod test;

use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use anyhow::{Context, Result, bail};

const USAGE: &str = "\
usage: cargo xtask <task>

tasks:
  setup                     install the Debian packages that tests and benchmarks need
  demo                      build, make the base images for Windows containers, run node.exe in
                            one of them, fetch its page
  demo linux                the same with busybox in a Linux container
  test                      formatting, lints, repository rules, and every test
  protos                    generate the code of crates/buildkit/src/pb from its .proto files
  rules                     the repository rules alone
  bench [name ...]          benchmarks side by side with other engines
  conformance <suite> DIR   run a suite that lies in DIR: docker-py, contest,
                            dockerfile, windows-dockerfiles
  vm                        run the engine on Debian's kernel, with control groups of version 2
                            alone, in an emulated machine (tests/vm)
";

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let task = arguments.first().map(String::as_str);
    let rest = arguments.get(1..).unwrap_or_default();
    let result = match task {
        Some("setup") => setup::run(setup::Packages::All),
        Some("demo") => demo::run(rest),
        Some("test") => test::run(rest),
        #[cfg(feature = "protos")]
        Some("protos") => protos::run(),
        #[cfg(not(feature = "protos"))]
        Some("protos") => {
            sh("cargo", &["run", "--quiet", "--package=xtask", "--features=protos", "--", "protos"])
        }
        Some("rules") => rules::run(),
        Some("bench") => bench(rest),
        Some("conformance") => conformance::run(rest),
        Some("vm") => vm(),
        _ => {
            eprint!("{USAGE}");
            return ExitCode::from(2);
        }
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("xtask: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Boots a machine and runs the checks in it; settings are variables that the script names.
fn vm() -> Result<()> {
    let silo = build_silo(false)?;
    check(Command::new("bash").arg("tests/vm/run.sh").env("SILO", silo).current_dir(root()))
}

/// The root of the repository.
fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap_or(Path::new(".")).to_path_buf()
}

/// Runs a command in the repository's root and fails when it does.
fn sh(program: &str, arguments: &[&str]) -> Result<()> {
    eprintln!("+ {program} {}", arguments.join(" "));
    check(Command::new(program).args(arguments).current_dir(root()))
}

/// Runs a prepared command and fails when it does.
fn check(command: &mut Command) -> Result<()> {
    let status =
        command.status().with_context(|| format!("start {}", command.get_program().display()))?;
    if !status.success() {
        bail!("{} failed: {status}", command.get_program().display());
    }
    Ok(())
}

/// Builds the `silo` binary and says where it is.
fn build_silo(release: bool) -> Result<PathBuf> {
    let mut arguments = vec!["build", "--locked", "--package", "silo"];
    if release {
        arguments.push("--release");
    }
    sh("cargo", &arguments)?;
    let output = Command::new("cargo")
        .args(["metadata", "--format-version=1", "--no-deps"])
        .current_dir(root())
        .output()?;
    let metadata: serde_json::Value = serde_json::from_slice(&output.stdout)?;
    let target = metadata["target_directory"].as_str().context("no target directory")?;
    let profile = if release { "release" } else { "debug" };
    let version = Command::new("rustc").arg("-vV").output()?;
    let version = String::from_utf8(version.stdout)?;
    let host = version
        .lines()
        .find_map(|line| line.strip_prefix("host: "))
        .context("rustc names no host")?;
    Ok(Path::new(target).join(host).join(profile).join("silo"))
}

/// Runs the benchmarks of `benches/` with a release build.
fn bench(names: &[String]) -> Result<()> {
    setup::run(setup::Packages::All)?;
    let silo = build_silo(true)?;
    check(
        Command::new("python3")
            .arg("benches/bench.py")
            .args(names)
            .env("SILO", silo)
            .current_dir(root()),
    )
}
