//! The `docker` command lines that the product tests drive the engine with, their plugins, and a
//! daemon with a BuildKit of today.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

/// Debian's newest suite, whose packages are unpacked without being installed.
const NEWEST_SUITE: &str = "sid";

/// Every command line at hand: the one in PATH, Debian 12's, and the newest suite's. A suite that
/// cannot be reached is said and left out.
pub fn docker_clis() -> Vec<PathBuf> {
    let mut found: Vec<PathBuf> = Vec::new();
    for folder in std::env::split_paths(&std::env::var_os("PATH").unwrap_or_default()) {
        let file = folder.join("docker");
        if file.exists() {
            found.push(file);
            break;
        }
    }
    let debian = PathBuf::from("/usr/bin/docker");
    if debian.exists() && !found.contains(&debian) {
        found.push(debian);
    }
    match newest() {
        Ok(file) => found.push(file),
        Err(error) => {
            eprintln!("not tested with the command line of Debian {NEWEST_SUITE}: {error:#}");
        }
    }
    found
}

/// What is unpacked, and a file that shows that it is. The plugins and the daemon are found by the
/// tests.
const PACKAGES: [(&str, &str); 4] = [
    ("docker-cli", "usr/bin/docker"),
    ("docker-buildx", "usr/libexec/docker/cli-plugins/docker-buildx"),
    ("docker-compose", "usr/libexec/docker/cli-plugins/docker-compose"),
    ("docker.io", "usr/sbin/dockerd"),
];

/// Unpacks the newest command line and its plugins below `target/`, once.
fn newest() -> Result<PathBuf> {
    let folder = crate::root().join("target/docker-cli");
    let program = folder.join(PACKAGES[0].1);
    if PACKAGES.iter().all(|(_, file)| folder.join(file).exists()) {
        return Ok(program);
    }
    let lists = folder.join("apt");
    for part in ["lists/partial", "archives/partial"] {
        fs_err::create_dir_all(lists.join(part))?;
    }
    let sources = lists.join("newest.sources");
    fs_err::write(
        &sources,
        format!(
            "Types: deb\nURIs: {}\nSuites: {NEWEST_SUITE}\nComponents: main\n\
             Signed-By: /usr/share/keyrings/debian-archive-keyring.gpg\n",
            archive_uri()?
        ),
    )?;
    let apt = |arguments: &[&str]| {
        let mut command = Command::new("apt-get");
        command
            .arg("-qq")
            .arg("-o")
            .arg(format!("Dir::Etc::sourcelist={}", sources.display()))
            .args(["-o", "Dir::Etc::sourceparts=/dev/null", "-o", "APT::Sandbox::User=root", "-o"])
            .arg(format!("Dir::State::lists={}", lists.join("lists").display()))
            .arg("-o")
            .arg(format!("Dir::Cache={}", lists.display()))
            .args(arguments)
            .current_dir(&lists);
        crate::check(&mut command)
    };
    apt(&["update"])?;
    let mut download = vec!["download"];
    download.extend(PACKAGES.map(|(name, _)| name));
    apt(&download)?;
    for entry in fs_err::read_dir(&lists)? {
        let package = entry?.path();
        if package.extension().is_some_and(|extension| extension == "deb") {
            crate::check(Command::new("dpkg-deb").arg("-x").arg(package).arg(&folder))?;
        }
    }
    fs_err::remove_dir_all(&lists)?;
    let version = Command::new(&program).arg("--version").output()?;
    if !version.status.success() {
        bail!("{} does not run here", program.display());
    }
    Ok(program)
}

/// The archive that this machine's own packages come from.
fn archive_uri() -> Result<String> {
    let mut texts = Vec::new();
    for file in ["/etc/apt/sources.list", "/etc/apt/sources.list.d/debian.sources"] {
        if Path::new(file).exists() {
            texts.push(fs_err::read_to_string(file)?);
        }
    }
    texts
        .iter()
        .flat_map(|text| text.lines())
        .filter(|line| !line.starts_with('#'))
        .flat_map(str::split_whitespace)
        .find(|word| word.starts_with("http") && word.trim_end_matches('/').ends_with("/debian"))
        .map(str::to_owned)
        .context("no Debian archive in /etc/apt")
}
