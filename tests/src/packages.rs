//! Packages of public registries that hold what tests need: pinned, fetched once by the
//! registries' own clients into the build directory, and never committed.

use std::path::{Path, PathBuf};
use std::process::Command;

use fs_err as fs;

/// Where a package comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Registry {
    Npm,
    /// A wheel for Windows.
    PyPi,
    /// A source archive.
    PyPiSource,
    CratesIo,
}

/// A package.
#[derive(Debug)]
pub(crate) struct Package {
    /// What tests call it.
    pub(crate) name: &'static str,
    registry: Registry,
    /// What the registry calls it.
    id: &'static str,
    version: &'static str,
    /// Of the archive, in hexadecimal.
    sha256: &'static str,
    /// The directory in the archive that tests use.
    directory: &'static str,
}

pub(crate) const fn npm(
    name: &'static str,
    id: &'static str,
    version: &'static str,
    sha256: &'static str,
    directory: &'static str,
) -> Package {
    Package { name, registry: Registry::Npm, id, version, sha256, directory }
}

pub(crate) const fn pypi(
    name: &'static str,
    id: &'static str,
    version: &'static str,
    sha256: &'static str,
    directory: &'static str,
) -> Package {
    Package { name, registry: Registry::PyPi, id, version, sha256, directory }
}

pub(crate) const fn pypi_source(
    id: &'static str,
    version: &'static str,
    sha256: &'static str,
    directory: &'static str,
) -> Package {
    Package { name: id, registry: Registry::PyPiSource, id, version, sha256, directory }
}

pub(crate) const fn crates_io(
    id: &'static str,
    version: &'static str,
    sha256: &'static str,
    directory: &'static str,
) -> Package {
    Package { name: id, registry: Registry::CratesIo, id, version, sha256, directory }
}

impl Package {
    /// The directory that tests use, fetched below `folder` of the repository when it is first
    /// asked for; else why it cannot be had.
    pub(crate) fn directory(&self, folder: &str) -> Result<PathBuf, String> {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().ok_or("no parent")?;
        let root = root.join(folder);
        fs::create_dir_all(&root).map_err(text)?;
        let unpacked = root.join(format!("{}-{}", self.name, self.version));
        let directory = unpacked.join(self.directory);
        if directory.is_dir() {
            return Ok(directory);
        }
        let lock = fs::File::create(root.join(format!("{}.lock", self.name))).map_err(text)?;
        rustix::fs::flock(&lock, rustix::fs::FlockOperation::LockExclusive).map_err(text)?;
        if directory.is_dir() {
            return Ok(directory);
        }
        let work = tempfile::Builder::new().prefix("fetch-").tempdir_in(&root).map_err(text)?;
        let archive = self.fetch(work.path())?;
        let sum = run(Command::new("sha256sum").arg(&archive))?;
        if sum.split_whitespace().next() != Some(self.sha256) {
            return Err(format!("{} is not what it was: {sum}", archive.display()));
        }
        let tree = work.path().join("tree");
        fs::create_dir(&tree).map_err(text)?;
        if self.registry == Registry::PyPi {
            run(Command::new("python3").args(["-m", "zipfile", "-e"]).arg(&archive).arg(&tree))?;
        } else {
            run(Command::new("tar").arg("-xzf").arg(&archive).arg("-C").arg(&tree))?;
        }
        fs::rename(&tree, &unpacked).map_err(text)?;
        Ok(directory)
    }

    /// Fetches the archive.
    fn fetch(&self, work: &Path) -> Result<PathBuf, String> {
        let folder = work.join("archive");
        fs::create_dir(&folder).map_err(text)?;
        let pip = |more: &[&str]| {
            let mut command = Command::new("pip");
            command.args(["download", "-q", "--no-deps"]).args(more);
            command.arg(format!("{}=={}", self.id, self.version));
            command
        };
        let mut command = match self.registry {
            Registry::Npm => {
                let mut command = Command::new("npm");
                command.args(["pack", "--silent"]);
                command.arg(format!("{}@{}", self.id, self.version));
                command
            }
            Registry::PyPi => {
                let platform = ["--platform", "win_amd64", "--python-version", "3.12"];
                pip(&[&["--only-binary", ":all:"], &platform[..]].concat())
            }
            Registry::PyPiSource => pip(&["--no-binary", ":all:"]),
            Registry::CratesIo => {
                let mut command = Command::new("cargo");
                command.args(["info", "--quiet"]).arg(format!("{}@{}", self.id, self.version));
                command
            }
        };
        run(command.current_dir(&folder))?;
        if self.registry == Registry::CratesIo {
            return self.in_cargos_cache();
        }
        let entry = fs::read_dir(&folder).map_err(text)?.next().ok_or("nothing was fetched")?;
        Ok(entry.map_err(text)?.path())
    }

    /// Where cargo keeps the archive of a crate that it has looked into.
    fn in_cargos_cache(&self) -> Result<PathBuf, String> {
        let home = std::env::var_os("CARGO_HOME").map(PathBuf::from);
        let home = home.or_else(|| Some(PathBuf::from(std::env::var_os("HOME")?).join(".cargo")));
        let cache = home.ok_or("no home of cargo's")?.join("registry/cache");
        let name = format!("{}-{}.crate", self.id, self.version);
        let registries = fs::read_dir(cache).map_err(text)?.flatten();
        let mut files = registries.map(|registry| registry.path().join(&name));
        files.find(|file| file.is_file()).ok_or_else(|| format!("cargo keeps no {name}"))
    }
}

fn run(command: &mut Command) -> Result<String, String> {
    let program = command.get_program().display().to_string();
    let output = command.output().map_err(|error| format!("{program}: {error}"))?;
    if !output.status.success() {
        return Err(format!("{program}: {}", String::from_utf8_lossy(&output.stderr)));
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

fn text(error: impl std::fmt::Display) -> String {
    error.to_string()
}
