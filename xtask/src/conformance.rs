//! Runs suites of other projects that already lie in a folder; nothing is fetched.

use std::path::Path;
use std::process::Command;

use anyhow::{Result, bail};

use crate::{build_silo, check, root};

/// `docker-py DIR` (the unpacked source distribution), `contest DIR` (a built youki tree) or
/// `dockerfile DIR` (a source of BuildKit).
pub fn run(arguments: &[String]) -> Result<()> {
    let [suite, folder, rest @ ..] = arguments else {
        bail!("usage: cargo xtask conformance docker-py|contest|dockerfile DIR [argument ...]");
    };
    if !Path::new(folder).is_dir() {
        bail!("{folder} is not a folder; unpack the suite there first");
    }
    if suite == "dockerfile" {
        // Not a script: the crate's own tests read the data.
        return check(
            Command::new("cargo")
                .args(["nextest", "run", "-p", "silo-dockerfile", "--test", "buildkit"])
                .arg("--no-capture")
                .args(rest)
                .env("SILO_BUILDKIT", fs_err::canonicalize(folder)?)
                .current_dir(root()),
        );
    }
    let silo = build_silo(true)?;
    let script = match suite.as_str() {
        "docker-py" => "tests/conformance/docker-py.sh",
        "contest" => "tests/conformance/contest.sh",
        _ => bail!("unknown suite {suite:?}: docker-py, contest and dockerfile are known"),
    };
    check(
        Command::new("bash")
            .arg(script)
            .arg(folder)
            .args(rest)
            .env("SILO", silo)
            .current_dir(root()),
    )
}
