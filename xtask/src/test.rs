//! Everything that must hold before a change lands.

use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};

use crate::{build_silo, check, clients, root, rules, setup, sh, sshd};

/// Formatting, lints, rules and tests; further arguments go to the test runner.
pub fn run(arguments: &[String]) -> Result<()> {
    setup::run(setup::Packages::All)?;
    sh("cargo", &["fmt", "--all", "--check"])?;
    rules::run()?;
    sh("cargo", &["clippy", "--workspace", "--all-targets", "--locked", "--", "-D", "warnings"])?;
    let silo = build_silo(false)?;
    let skips = root().join("target/skipped-tests");
    if skips.exists() {
        fs_err::remove_file(&skips)?;
    }
    prepare_windows(&silo);
    let clis = clients::docker_clis();
    if let Err(error) = sshd::unpack() {
        eprintln!("not tested with an SSH server: {error:#}");
    }
    // What an earlier, interrupted run left is not this run's doing.
    let before = leftovers()?;
    let mut result = Ok(());
    for (number, cli) in clis.iter().enumerate() {
        // The first round runs everything; the others only what a command line takes part in.
        let scope: &[&str] =
            if number == 0 { &["--workspace"] } else { &["--package", "silo-tests"] };
        eprintln!("+ tests with {}", cli.display());
        let round = check(
            runner()
                .args(scope)
                .args(arguments)
                .env("SILO", &silo)
                .env("SILO_TEST_SKIPS", &skips)
                .env("SILO_TEST_DOCKER_CLI", cli)
                .current_dir(root()),
        );
        result = result.and(round);
    }
    // A test that cannot run on this host says why in the file, and is counted here.
    if skips.exists() {
        let text = fs_err::read_to_string(&skips)?;
        eprintln!("{} tests did not run on this host:", text.lines().count());
        eprint!("{text}");
    }
    result?;
    let left = left_since(&before)?;
    if !left.is_empty() {
        bail!("the tests left behind:\n{}", left.join("\n"));
    }
    Ok(())
}

/// Makes what the tests of Windows containers share. Those that then lack something say so.
fn prepare_windows(silo: &Path) {
    eprintln!("+ what the tests of Windows containers share");
    let arguments = ["run", "--quiet", "--locked", "--package", "silo-tests", "--bin"];
    let mut command = Command::new("cargo");
    command.args(arguments).arg("prepare-windows").env("SILO", silo).current_dir(root());
    if let Err(error) = check(&mut command) {
        eprintln!("{error:#}");
    }
}

/// nextest where it is installed, else cargo's own runner.
fn runner() -> Command {
    let nextest = Command::new("cargo").args(["nextest", "--version"]).output();
    let mut command = Command::new("cargo");
    if nextest.is_ok_and(|output| output.status.success()) {
        let profile = if std::env::var_os("CI").is_some() { "ci" } else { "default" };
        command.args(["nextest", "run", "--locked", "--no-fail-fast", "--profile", profile]);
    } else {
        command.args(["test", "--locked", "--no-fail-fast"]);
    }
    command
}

/// What the tests left. What they ended may take the kernel a moment to take away, and there is
/// nothing that tells when that is over.
#[expect(clippy::disallowed_methods, reason = "nothing tells when cgroups and processes are gone")]
fn left_since(before: &[String]) -> Result<Vec<String>> {
    let end = Instant::now() + Duration::from_secs(30);
    loop {
        let mut left = leftovers()?;
        left.retain(|one| !before.contains(one));
        if left.is_empty() || Instant::now() > end {
            return Ok(left);
        }
        std::thread::sleep(Duration::from_millis(100));
    }
}

/// Mounts, links, cgroups and processes of test engines that are there now.
fn leftovers() -> Result<Vec<String>> {
    let mut left = Vec::new();
    for line in fs_err::read_to_string("/proc/self/mountinfo")?.lines() {
        if line.contains("silo-test") {
            left.push(format!("mount {line}"));
        }
    }
    for entry in fs_err::read_dir("/sys/class/net")? {
        let name = entry?.file_name();
        if name.to_string_lossy().starts_with("st") {
            left.push(format!("link {}", name.display()));
        }
    }
    for hierarchy in fs_err::read_dir("/sys/fs/cgroup")? {
        let hierarchy = hierarchy?.path();
        let Ok(groups) = fs_err::read_dir(&hierarchy) else { continue };
        for group in groups {
            let group = group?.path();
            if group.to_string_lossy().contains("/silo-test-") {
                left.push(format!("cgroup {}", group.display()));
            }
        }
    }
    for entry in fs_err::read_dir("/proc")? {
        let path = entry?.path();
        // A process may end while it is looked at; that is what should happen.
        if let Ok(command) = fs_err::read(path.join("cmdline"))
            && String::from_utf8_lossy(&command).contains("silo-test")
        {
            left.push(format!("process {}", path.display()));
        }
    }
    Ok(left)
}
