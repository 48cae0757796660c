//! Runs suites of other projects that already lie in a folder; nothing is fetched.

use std::path::Path;
use std::process::Command;

use anyhow::{Result, bail};

use crate::{build_silo, check, root};

/// `docker-py DIR` (the unpacked source distribution), `contest DIR` (a built youki tree),
/// `distribution DIR` (OCI's suite of the distribution specification, built),
/// `dockerfile DIR` (a source of BuildKit) or `windows-dockerfiles DIR` (a folder of them).
pub fn run(arguments: &[String]) -> Result<()> {
    let [suite, folder, rest @ ..] = arguments else {
        bail!(
            "usage: cargo xtask conformance \
             docker-py|contest|distribution|dockerfile|windows-dockerfiles DIR"
        );
    };
    if !Path::new(folder).is_dir() {
        bail!("{folder} is not a folder; unpack the suite there first");
    }
    // Not scripts: the crate's own tests read the data.
    let data = match suite.as_str() {
        "dockerfile" => Some(("buildkit", "SILO_BUILDKIT")),
        "windows-dockerfiles" => Some(("corpus", "SILO_DOCKERFILES")),
        _ => None,
    };
    if let Some((test, variable)) = data {
        return check(
            Command::new("cargo")
                .args(["nextest", "run", "-p", "silo-dockerfile", "--test", test])
                .arg("--no-capture")
                .args(rest)
                .env(variable, fs_err::canonicalize(folder)?)
                .current_dir(root()),
        );
    }
    let silo = build_silo(true)?;
    let script = match suite.as_str() {
        "docker-py" => "tests/conformance/docker-py.sh",
        "contest" => "tests/conformance/contest.sh",
        "distribution" => "tests/conformance/distribution.sh",
        _ => bail!(
            "unknown suite {suite:?}: docker-py, contest, distribution and dockerfile are known"
        ),
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
