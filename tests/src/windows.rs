//! Engines with the images of Windows containers.
//!
//! A set-up takes most of a minute, so one is kept in `target/windows-engine`: the data root of
//! an engine that has been set up and has run a container of each base that tests use. A test's
//! engine works on a copy, in which layers and blobs, which engines never change, are hard links.

use std::io::Write;
use std::ops::{Deref, DerefMut};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::UNIX_EPOCH;

use fs_err as fs;
use tempfile::TempDir;

use crate::{Engine, debian_mirror, silo_binary};

/// The images that are run once, so that their layers and registries are prepared.
const WARM: [&str; 3] =
    ["silo/servercore:ltsc2019", "silo/nanoserver:ltsc2022", "silo/servercore:ltsc2025"];
/// What engines never change in place.
const SHARED: [&str; 3] = ["layers", "content/blobs", "windows"];

/// A private engine that is set up for Windows containers.
#[derive(Debug)]
pub struct WindowsEngine {
    // Stops before its data goes.
    engine: Engine,
    _data: TempDir,
}

impl WindowsEngine {
    /// An engine; `None` where there can be none, for which the running test counts as skipped.
    pub fn start_or_skip() -> Option<Self> {
        let mut engine = Engine::prepare();
        if !engine.is_silo_or_skip("Windows containers on Linux are Silo's") {
            return None;
        }
        let thread = std::thread::current();
        let test = thread.name().unwrap_or("a test");
        let template = match windows_data() {
            Ok(template) => template,
            Err(reason) => {
                crate::skip(test, &format!("no images for Windows containers: {reason}"));
                return None;
            }
        };
        let folder = template.parent().expect("a parent");
        let data = tempfile::Builder::new().prefix("silo-test-").tempdir_in(folder);
        let data = data.expect("a directory for the data");
        let root = data.path().join("data");
        copy(&template, &root).expect("a copy of the data");
        engine.set_data_root(&root);
        engine.start_daemon();
        Some(Self { engine, _data: data })
    }
}

impl Deref for WindowsEngine {
    type Target = Engine;

    fn deref(&self) -> &Engine {
        &self.engine
    }
}

impl DerefMut for WindowsEngine {
    fn deref_mut(&mut self) -> &mut Engine {
        &mut self.engine
    }
}

/// Compiles a program for Windows with the compiler that Silo's own are built by.
pub fn compile_windows(source: &str, program: &Path) {
    let mut compiler = Command::new("x86_64-w64-mingw32-gcc")
        .args(["-O1", "-s", "-xc", "-", "-xnone", "-lntdll"])
        .arg("-o")
        .arg(program)
        .stdin(Stdio::piped())
        .spawn()
        .expect("the compiler");
    let mut input = compiler.stdin.take().expect("its input");
    input.write_all(source.as_bytes()).expect("the source");
    drop(input);
    assert!(compiler.wait().expect("its end").success(), "{}", program.display());
}

/// The data root to copy, made when first asked for and when the engine has changed; else why
/// there can be none.
pub fn windows_data() -> Result<PathBuf, String> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().ok_or("no parent")?;
    let root = root.join("target/windows-engine");
    fs::create_dir_all(&root).map_err(text)?;
    let lock = fs::File::create(root.join("lock")).map_err(text)?;
    rustix::fs::flock(&lock, rustix::fs::FlockOperation::LockExclusive).map_err(text)?;
    let data = root.join("data");
    let stamp = stamp()?;
    let kept = root.join("stamp");
    if data.is_dir() && fs::read_to_string(&kept).is_ok_and(|kept| kept == stamp) {
        return Ok(data);
    }
    let mirror = debian_mirror()?;
    if kept.exists() {
        fs::remove_file(&kept).map_err(text)?;
    }
    // What another engine made serves when its recipe is the same; `setup` sees to that.
    if !data.is_dir() || set_up(&data, &mirror).is_err() {
        if data.is_dir() {
            fs::remove_dir_all(&data).map_err(text)?;
        }
        set_up(&data, &mirror)?;
    }
    fs::write(&kept, stamp).map_err(text)?;
    Ok(data)
}

/// What tells builds of the engine apart.
fn stamp() -> Result<String, String> {
    let path = silo_binary();
    let meta = fs::metadata(&path).map_err(text)?;
    let time = meta.modified().map_err(text)?.duration_since(UNIX_EPOCH).map_err(text)?;
    Ok(format!("{} {} {}", path.display(), meta.len(), time.as_nanos()))
}

fn set_up(data: &Path, mirror: &Path) -> Result<(), String> {
    let mut engine = Engine::prepare();
    engine.set_data_root(data);
    engine.start_daemon();
    let cache = engine.scratch().join("cache");
    let mirror = format!("file://{}", mirror.display());
    let cache = cache.display().to_string();
    let outcome =
        engine.silo(&["windows", "setup", "--quiet", "--mirror", &mirror, "--cache", &cache]);
    if outcome.code != 0 {
        return Err(format!("silo windows setup: {}", outcome.stderr));
    }
    for image in WARM {
        let outcome = engine.docker(&["run", "--rm", image, "cmd", "/c", "exit 0"]);
        if outcome.code != 0 {
            return Err(format!("{image}: {}\n{}", outcome.stderr, engine.daemon_log()));
        }
    }
    Ok(())
}

/// Copies a data root that no engine uses.
fn copy(template: &Path, root: &Path) -> Result<(), String> {
    let run = |arguments: &[&str], from: &Path, to: &Path| {
        let output = Command::new("cp").args(arguments).arg(from).arg(to).output();
        let output = output.map_err(text)?;
        if output.status.success() {
            Ok(())
        } else {
            Err(String::from_utf8_lossy(&output.stderr).into_owned())
        }
    };
    run(&["-al"], template, root)?;
    // What is changed in place must not be shared.
    for entry in fs::read_dir(template).map_err(text)? {
        let name = entry.map_err(text)?.file_name().to_string_lossy().into_owned();
        if SHARED.contains(&name.as_str()) {
            continue;
        }
        let (from, to) = (template.join(&name), root.join(&name));
        if name == "content" {
            for entry in fs::read_dir(&from).map_err(text)? {
                let entry = entry.map_err(text)?;
                if entry.file_type().map_err(text)?.is_file() {
                    run(&["-a", "--remove-destination"], &entry.path(), &to)?;
                }
            }
        } else if from.is_dir() {
            fs::remove_dir_all(&to).map_err(text)?;
            run(&["-a"], &from, &to)?;
        } else {
            run(&["-a", "--remove-destination"], &from, &to)?;
        }
    }
    Ok(())
}

fn text(error: impl std::fmt::Display) -> String {
    error.to_string()
}
