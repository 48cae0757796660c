//! Podman and Buildah with a store of the test's own.

use std::ffi::OsStr;
use std::process::{Command, Stdio};

use tempfile::TempDir;

use crate::dockerd::{remove_cgroup, unmount_below};
use crate::engine::{Outcome, alone};

/// A store of Podman's and Buildah's. Dropping it removes its containers and what they have
/// mounted.
#[derive(Debug)]
pub struct Podman {
    directory: TempDir,
    cgroup: String,
}

impl Podman {
    /// An empty store. `None`, with the running test counted as skipped, where a program is not
    /// installed.
    pub fn new_or_skip() -> Option<Self> {
        for program in ["podman", "buildah", "runc"] {
            let paths = std::env::var_os("PATH").unwrap_or_default();
            if !std::env::split_paths(&paths).any(|folder| folder.join(program).is_file()) {
                let thread = std::thread::current();
                let reason = format!("{program} is not installed");
                crate::skip(thread.name().unwrap_or("a test"), &reason);
                return None;
            }
        }
        let directory = tempfile::Builder::new()
            .prefix("silo-test-podman-")
            .tempdir()
            .expect("a directory for the test");
        fs_err::write(directory.path().join("auth.json"), "{}").expect("a file of credentials");
        // The usual locks are one piece of memory of the host, which two that begin at once both
        // want to make.
        fs_err::write(directory.path().join("containers.conf"), "[engine]\nlock_type = \"file\"\n")
            .expect("a configuration");
        Some(Self { directory, cgroup: format!("silo-test-podman-{}", std::process::id()) })
    }

    fn command(&self, program: &str) -> Command {
        let path = |name: &str| self.directory.path().join(name);
        let mut command = alone(Command::new(program));
        command
            .arg("--root")
            .arg(path("root"))
            .arg("--runroot")
            .arg(path("run"))
            .args(["--storage-driver", "vfs"])
            .env("REGISTRY_AUTH_FILE", path("auth.json"))
            .env("CONTAINERS_CONF", path("containers.conf"))
            .stdin(Stdio::null());
        command
    }

    /// Runs `podman`, and returns whatever comes of it.
    pub fn podman<S: AsRef<OsStr>>(&self, arguments: &[S]) -> Outcome {
        let mut command = self.command("podman");
        let state = self.directory.path().join("tmp");
        command.arg("--tmpdir").arg(state).args(["--cgroup-manager", "cgroupfs"]);
        command.args(["--runtime", "runc"]).args(arguments).output().expect("run podman").into()
    }

    /// Runs `podman`, which must succeed; returns its standard output without outer blanks.
    #[track_caller]
    pub fn ok<S: AsRef<OsStr> + std::fmt::Debug>(&self, arguments: &[S]) -> String {
        let outcome = self.podman(arguments);
        assert_eq!(outcome.code, 0, "podman {arguments:?}\n{}", outcome.stderr);
        outcome.stdout.trim().to_owned()
    }

    /// Runs a command in a container of an image; returns what it said.
    #[track_caller]
    pub fn run(&self, image: &str, command: &[&str]) -> String {
        let group = format!("/{}", self.cgroup);
        let mut words = vec!["run", "--rm", "--network", "none", "--cgroup-parent", &group];
        // Not every test may raise limits.
        words.extend(["--ulimit", "nofile=1024:1024", "--ulimit", "nproc=1024:1024"]);
        words.extend(["--tls-verify=false", image]);
        words.extend(command);
        self.ok(&words)
    }

    /// Runs `buildah`, which must succeed; returns its standard output without outer blanks.
    #[track_caller]
    pub fn buildah<S: AsRef<OsStr> + std::fmt::Debug>(&self, arguments: &[S]) -> String {
        let output = self.command("buildah").args(arguments).output().expect("run buildah");
        let outcome = Outcome::from(output);
        assert_eq!(outcome.code, 0, "buildah {arguments:?}\n{}", outcome.stderr);
        outcome.stdout.trim().to_owned()
    }
}

impl Drop for Podman {
    fn drop(&mut self) {
        self.podman(&["rm", "-af", "-t", "0"]);
        unmount_below(self.directory.path());
        remove_cgroup(&self.cgroup);
    }
}
