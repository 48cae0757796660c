//! Builds on a disk that has no more room.

use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use fs_err as fs;
use silo_tests::{Engine, Outcome};
use tempfile::TempDir;

use super::{build, built, context, shell};
use crate::crash::entries;

/// Memory that is a disk of so many MiB.
pub(crate) struct SmallDisk(TempDir);

impl SmallDisk {
    pub(crate) fn new(size: u32) -> Self {
        let directory = tempfile::Builder::new().prefix("silo-test-").tempdir();
        let disk = Self(directory.expect("a directory"));
        let option = format!("size={size}m,mode=0711");
        let mut mount = Command::new("mount");
        mount.args(["-t", "tmpfs", "-o", &option, "tmpfs"]).arg(disk.path());
        assert!(mount.status().expect("run mount").success());
        disk
    }

    pub(crate) fn path(&self) -> &Path {
        self.0.path()
    }

    /// How many MiB there is room for.
    pub(crate) fn room(&self) -> u64 {
        let found = rustix::fs::statvfs(self.path()).expect("the disk");
        (found.f_bavail * found.f_frsize) >> 20
    }

    /// Gives it another size.
    pub(crate) fn resize(&self, size: u32) {
        let mut mount = Command::new("mount");
        mount.args(["-o", &format!("remount,size={size}m")]).arg(self.path());
        assert!(mount.status().expect("run mount").success());
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let unmounted = Command::new("umount").arg("-l").arg(self.path()).status();
        if !unmounted.is_ok_and(|status| status.success()) {
            eprintln!("{} stays mounted", self.path().display());
        }
    }
}

/// Builds with `docker build` or `silo build`.
fn run(engine: &Engine, way: &str, context: &Path, arguments: &[&str]) -> Outcome {
    if way == "docker" {
        return build(engine, context, arguments);
    }
    let output = engine.silo_command().arg("build").args(arguments).arg(context).output();
    output.expect("run silo").into()
}

fn is_quiet(engine: &Engine) -> bool {
    ["snapshots", "containers", "build/scratch", "content/ingest", "trash"]
        .iter()
        .flat_map(|name| entries(&engine.data_root().join(name)))
        .all(|name| name.starts_with('.'))
}

#[test]
fn a_full_disk_ends_the_build_and_nothing_else() {
    let disk = SmallDisk::new(64);
    let mut engine = Engine::prepare();
    if !engine.is_silo_or_skip("chooses where Silo keeps its data") {
        return;
    }
    engine.set_data_root(&disk.path().join("data"));
    engine.start_daemon();
    engine.load_busybox();
    let room = disk.room();
    let large = |dockerfile: &str, size: usize| {
        let context = context(&engine, &[("Dockerfile", dockerfile)]);
        fs::write(context.join("large"), vec![7; size << 20]).expect("a file");
        context
    };
    let first = "FROM busybox\nRUN echo first > /first\n";
    for way in ["docker", "silo"] {
        for (step, size, words) in [
            ("RUN head -c 100m /dev/zero > /big\n", 0, "code: 1"),
            // The context has room, but not twice.
            ("COPY large /large\n", 38, "No space left on device"),
            // Not even the context has.
            ("COPY large /large\n", 80, "No space left on device"),
        ] {
            let context = large(&format!("{first}{step}"), size);
            let outcome = run(&engine, way, &context, &["--no-cache", "-t", "full"]);
            assert_ne!(outcome.code, 0, "{way} {step}: {outcome:?}");
            let said = format!("{}{}", outcome.stdout, outcome.stderr);
            assert!(said.contains(words), "{way} {step}: {said}\n{}", engine.daemon_log());
            fs::remove_dir_all(&context).expect("remove the context");
            // What the build took is free again, when the last mount of it has gone; but for a
            // context of silo build that came whole, which is kept for the next build.
            let end = Instant::now() + Duration::from_mins(1);
            let kept = if (way, size) == ("silo", 38) { 38 } else { 0 };
            while !is_quiet(&engine) || disk.room() + 8 + kept < room {
                assert!(Instant::now() < end, "{} of {room} MiB", disk.room());
                std::thread::yield_now();
            }
            assert_eq!(engine.docker(&["image", "inspect", "full"]).code, 1);
            if kept > 0 {
                engine.ok(&["builder", "prune", "-f", "--filter", "type=source.local"]);
            }
            // The engine goes on, and has what was finished.
            assert_eq!(shell(&engine, "busybox", "echo runs"), "runs");
        }
        let one = context(&engine, &[("Dockerfile", first)]);
        let said = run(&engine, way, &one, &[]);
        let cached = ["Using cache", "CACHED"];
        let said = format!("{}{}", said.stdout, said.stderr);
        assert!(cached.iter().any(|word| said.contains(word)), "{way}: {said}");
    }
    // With room again, the same builds succeed, also after the next start.
    engine.ok(&["builder", "prune", "-af"]);
    engine.ok(&["image", "prune", "-f"]);
    assert!(disk.room() + 3 >= room, "{} of {room} MiB", disk.room());
    engine.kill_daemon();
    engine.start_daemon();
    let context = context(&engine, &[("Dockerfile", &format!("{first}COPY large /large\n"))]);
    fs::write(context.join("large"), vec![7; 8 << 20]).expect("a file");
    built(&engine, &context, &["-t", "fits"]);
    assert_eq!(shell(&engine, "fits", "cat /first; wc -c < /large"), "first\n8388608");
    let archive = engine.scratch().join("fits.tar");
    engine.ok(&["save", "-o", archive.to_str().expect("UTF-8"), "fits"]);
    engine.ok(&["rmi", "fits"]);
    engine.ok(&["builder", "prune", "-af"]);
    // Every layer is what its digest says: it loads again.
    engine.ok(&["load", "-i", archive.to_str().expect("UTF-8")]);
    assert_eq!(shell(&engine, "fits", "cat /first"), "first");
}
