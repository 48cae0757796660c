//! A mirror of the Debian packages that Windows containers are set up from, on this host.
//!
//! apt fetches them with a configuration of its own, so that the host's is not touched; what it
//! keeps is laid out again as a mirror, with the signed file that came with it.

use std::path::{Path, PathBuf};
use std::process::Command;

use fs_err as fs;

const RELEASE: &str = "trixie";
const ARCHITECTURES: [&str; 2] = ["amd64", "i386"];
/// The packages of the set-up and what they depend on.
const PACKAGES: [&str; 23] = [
    "base-files",
    "ca-certificates",
    "gcc-14-base",
    "libbrotli1",
    "libc-bin",
    "libc6",
    "libffi8",
    "libgcc-s1",
    "libgmp10",
    "libgnutls30t64",
    "libhogweed6t64",
    "libidn2-0",
    "liblzma5",
    "libnettle8t64",
    "libp11-kit0",
    "libtasn1-6",
    "libunistring5",
    "libunwind8",
    "libwine",
    "libwine:i386",
    "libz-mingw-w64",
    "libzstd1",
    "wine64",
];

/// The directory of a mirror, made when first asked for; else why there can be none. It is kept
/// in the build directory: two hundred megabytes.
pub fn debian_mirror() -> Result<PathBuf, String> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().ok_or("no parent")?;
    let root = root.join("target/debian-mirror");
    fs::create_dir_all(&root).map_err(text)?;
    let lock = fs::File::create(root.join("lock")).map_err(text)?;
    rustix::fs::flock(&lock, rustix::fs::FlockOperation::LockExclusive).map_err(text)?;
    let mirror = root.join("debian");
    if !mirror.is_dir() {
        let work = tempfile::Builder::new().prefix("apt-").tempdir_in(&root).map_err(text)?;
        let made = make(work.path())?;
        fs::rename(made, &mirror).map_err(text)?;
    }
    Ok(mirror)
}

fn text(error: impl std::fmt::Display) -> String {
    error.to_string()
}

fn make(work: &Path) -> Result<PathBuf, String> {
    let path = |name: &str| work.join(name).display().to_string();
    for directory in ["lists/partial", "cache/archives/partial", "debs"] {
        fs::create_dir_all(work.join(directory)).map_err(text)?;
    }
    fs::write(work.join("status"), "").map_err(text)?;
    fs::write(
        work.join("sources.list"),
        format!("deb http://deb.debian.org/debian {RELEASE} main\n"),
    )
    .map_err(text)?;
    let configuration = format!(
        "APT::Architecture \"amd64\";\nAPT::Architectures {{ \"amd64\"; \"i386\"; }};\n\
         APT::Sandbox::User \"\";\n\
         Dir::Etc::sourcelist \"{}\";\nDir::Etc::sourceparts \"-\";\n\
         Dir::State \"{work}\";\nDir::State::lists \"{}\";\nDir::State::status \"{}\";\n\
         Dir::Cache \"{}\";\nAcquire::Languages \"none\";\nAcquire::PDiffs \"false\";\n",
        path("sources.list"),
        path("lists"),
        path("status"),
        path("cache"),
        work = work.display(),
    );
    fs::write(work.join("apt.conf"), configuration).map_err(text)?;
    let apt = |program: &str, arguments: &[&str]| {
        let output = Command::new(program)
            .args(arguments)
            .env("APT_CONFIG", path("apt.conf"))
            .current_dir(work.join("debs"))
            .output()
            .map_err(|error| format!("{program}: {error}"))?;
        if output.status.success() {
            Ok(output.stdout)
        } else {
            Err(format!("{program}: {}", String::from_utf8_lossy(&output.stderr)))
        }
    };
    apt("apt-get", &["-q", "update"])?;
    let mut download = vec!["-q", "download"];
    download.extend(PACKAGES);
    apt("apt-get", &download)?;

    let mirror = work.join("debian");
    let suite = mirror.join("dists").join(RELEASE);
    let mut files = std::collections::HashMap::new();
    for entry in fs::read_dir(work.join("debs")).map_err(text)?.flatten() {
        // apt escapes the colon of an epoch, and gives every package its index's name.
        let name = entry.file_name().to_string_lossy().replace("%3a", ":");
        files.insert(name, entry.path());
    }
    for entry in fs::read_dir(work.join("lists")).map_err(text)?.flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        if name.ends_with("_InRelease") {
            fs::create_dir_all(&suite).map_err(text)?;
            fs::copy(entry.path(), suite.join("InRelease")).map_err(text)?;
        }
        for architecture in ARCHITECTURES {
            if !name.contains(&format!("_main_binary-{architecture}_Packages")) {
                continue;
            }
            let list = entry.path().display().to_string();
            let index = apt("/usr/lib/apt/apt-helper", &["cat-file", &list])?;
            let directory = suite.join(format!("main/binary-{architecture}"));
            fs::create_dir_all(&directory).map_err(text)?;
            fs::write(directory.join("Packages"), &index).map_err(text)?;
            lay_out(&String::from_utf8_lossy(&index), &files, &mirror)?;
        }
    }
    Ok(mirror)
}

/// Moves every package that an index knows to its place.
fn lay_out(
    index: &str,
    files: &std::collections::HashMap<String, PathBuf>,
    mirror: &Path,
) -> Result<(), String> {
    for stanza in index.split("\n\n") {
        let field =
            |name: &str| stanza.lines().find_map(|line| line.strip_prefix(name)).map(str::trim);
        let (Some(name), Some(version), Some(architecture), Some(path)) =
            (field("Package:"), field("Version:"), field("Architecture:"), field("Filename:"))
        else {
            continue;
        };
        let Some(file) = files.get(&format!("{name}_{version}_{architecture}.deb")) else {
            continue;
        };
        let target = mirror.join(path);
        fs::create_dir_all(target.parent().unwrap_or(mirror)).map_err(text)?;
        if !target.exists() {
            fs::copy(file, &target).map_err(text)?;
        }
    }
    Ok(())
}
