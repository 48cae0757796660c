//! A bundle in a directory of its own, and the runtime's program to use it with.
#![allow(dead_code, unreachable_pub, unused_macros, unused_imports)]
#![allow(clippy::unwrap_used, reason = "only tests use it")]

use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::{Value, json};

/// Leaves a test that makes containers, and says so, where that cannot be done.
macro_rules! needs_root {
    () => {
        if !rustix::process::geteuid().is_root() || !std::path::Path::new("/bin/busybox").is_file()
        {
            eprintln!("skipped: needs root and a static busybox");
            return;
        }
    };
}
pub(crate) use needs_root;

pub struct Bundle {
    pub directory: PathBuf,
    id: String,
}

#[derive(Debug)]
pub struct Output {
    pub stdout: String,
    pub stderr: String,
    pub code: i32,
}

/// The example that is the runtime's command line; built with the tests.
pub fn program() -> PathBuf {
    let own = std::env::current_exe().unwrap();
    own.parent().unwrap().parent().unwrap().join("examples/oci-runtime")
}

impl Bundle {
    pub fn new(name: &str) -> Self {
        let id = format!("silo-test-{name}-{}", std::process::id());
        let directory = std::env::temp_dir().join(&id);
        let root = directory.join("root");
        for part in ["bin", "proc", "sys", "dev", "etc", "tmp"] {
            fs_err::create_dir_all(root.join(part)).unwrap();
        }
        fs_err::copy("/bin/busybox", root.join("bin/busybox")).unwrap();
        let applets = "sh ls cat id pwd hostname grep sleep true false echo stat";
        for applet in applets.split(' ') {
            symlink("busybox", root.join("bin").join(applet)).unwrap();
        }
        Self { directory, id }
    }

    pub fn root(&self) -> PathBuf {
        self.directory.join("root")
    }

    pub fn write(&self, name: &str, text: &str) {
        fs_err::write(self.root().join(name), text).unwrap();
    }

    pub fn allow(&self, name: &str) {
        let mode = std::fs::Permissions::from_mode(0o755);
        fs_err::set_permissions(self.root().join(name), mode).unwrap();
    }

    pub fn configure(&self, change: impl FnOnce(&mut Value)) {
        let mut config = json!({
            "ociVersion": "1.2.0",
            "process": {
                "user": {"uid": 0, "gid": 0}, "cwd": "/", "args": ["true"],
                "env": ["PATH=/bin"], "noNewPrivileges": true,
                "capabilities": {"bounding": [], "effective": [], "permitted": []},
            },
            "root": {"path": "root"},
            "mounts": [
                {"destination": "/proc", "type": "proc", "source": "proc"},
                {"destination": "/dev", "type": "tmpfs", "source": "tmpfs",
                    "options": ["nosuid", "mode=755"]},
                {"destination": "/dev/pts", "type": "devpts", "source": "devpts",
                    "options": ["newinstance", "ptmxmode=0666"]},
                {"destination": "/sys", "type": "sysfs", "source": "sysfs", "options": ["ro"]},
            ],
            "linux": {"namespaces": [
                {"type": "pid"}, {"type": "mount"}, {"type": "ipc"}, {"type": "uts"},
                {"type": "network"},
            ], "cgroupsPath": format!("/silo-tests/{}", self.id)},
        });
        change(&mut config);
        fs_err::write(self.directory.join("config.json"), config.to_string()).unwrap();
    }

    pub fn command(&self, arguments: &[&str]) -> Output {
        let mut output = Command::new(program());
        output
            .arg("--root")
            .arg(self.directory.join("state"))
            .args(arguments)
            .stdin(std::process::Stdio::null());
        let output = if arguments.contains(&"create") || arguments.contains(&"-d") {
            // A container that stays would keep pipes of ours open.
            let status = output
                .stdout(std::process::Stdio::null())
                .stderr(std::process::Stdio::null())
                .status()
                .unwrap();
            std::process::Output { status, stdout: Vec::new(), stderr: Vec::new() }
        } else {
            output.output().unwrap()
        };
        Output {
            stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
            code: output.status.code().unwrap_or(-1),
        }
    }

    pub fn run(&self) -> Output {
        self.command(&["run", "--bundle", self.directory.to_str().unwrap(), "c"])
    }

    pub fn status(&self, id: &str) -> String {
        let state: Value = serde_json::from_str(&self.command(&["state", id]).stdout).unwrap();
        state["status"].as_str().unwrap().to_owned()
    }
}

impl Drop for Bundle {
    fn drop(&mut self) {
        self.command(&["delete", "--force", "c"]);
        // The parent of all tests' cgroups goes with the last; until then it is in use.
        for hierarchy in fs_err::read_dir("/sys/fs/cgroup").into_iter().flatten().flatten() {
            drop(fs_err::remove_dir(hierarchy.path().join("silo-tests")));
        }
        drop(fs_err::remove_dir("/sys/fs/cgroup/silo-tests"));
        let removed = fs_err::remove_dir_all(&self.directory);
        if !std::thread::panicking() {
            removed.unwrap();
        }
    }
}
