//! The runtime as an ordinary user of the host starts it.

#![allow(clippy::unwrap_used, reason = "this is a test")]

mod bundle;

use std::os::unix::fs::chown;
use std::path::{Path, PathBuf};
use std::process::Command;

use bundle::{Bundle, Output, needs_root, program};
use serde_json::json;

/// A user that no account belongs to.
const USER: u32 = 54_321;

/// Cgroups that belong to [`USER`], as a session's slice does.
struct Slice {
    groups: Vec<PathBuf>,
}

impl Slice {
    fn new(name: &str) -> Self {
        // Version 2 alone, or one hierarchy of each version; entering more takes its time.
        let top = Path::new("/sys/fs/cgroup");
        let mut tops = vec![top.to_owned(), top.join("unified"), top.join("pids")];
        tops.retain(|path| path.join("cgroup.procs").exists());
        let own = format!("{name}-{}", std::process::id());
        let slice = Self { groups: tops.iter().map(|top| top.join(&own)).collect() };
        for group in &slice.groups {
            fs_err::create_dir(group).unwrap();
            chown(group, Some(USER), Some(USER)).unwrap();
            for file in fs_err::read_dir(group).unwrap() {
                chown(file.unwrap().path(), Some(USER), Some(USER)).unwrap();
            }
        }
        slice
    }

    /// Runs a program as the user, in the slice.
    fn run(&self, program: &Path, arguments: &[&str]) -> Output {
        let mut script = String::new();
        for group in &self.groups {
            script.push_str(&format!("echo $$ > {}/cgroup.procs && ", group.display()));
        }
        script.push_str("exec \"$@\"");
        let output = Command::new("sh")
            .args(["-c", &script, "sh", "setpriv", "--reuid", &USER.to_string(), "--regid"])
            .args([&USER.to_string(), "--clear-groups", "--inh-caps=-all"])
            .arg(program)
            .args(arguments)
            .stdin(std::process::Stdio::null())
            .output()
            .unwrap();
        Output {
            stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
            code: output.status.code().unwrap_or(-1),
        }
    }

    /// What was made in it.
    fn made(&self) -> Vec<PathBuf> {
        let groups = self.groups.iter().flat_map(|group| fs_err::read_dir(group).unwrap());
        let paths = groups.map(|entry| entry.unwrap().path());
        paths.filter(|path| path.is_dir()).collect()
    }
}

impl Drop for Slice {
    fn drop(&mut self) {
        for made in self.made() {
            drop(fs_err::remove_dir(made));
        }
        for group in &self.groups {
            let removed = fs_err::remove_dir(group);
            if !std::thread::panicking() {
                removed.unwrap();
            }
        }
    }
}

/// A bundle that belongs to the user.
fn bundle(name: &str) -> Bundle {
    let bundle = Bundle::new(name);
    let given = Command::new("chown")
        .args(["-R", &format!("{USER}:{USER}")])
        .arg(&bundle.directory)
        .status()
        .unwrap();
    assert!(given.success());
    bundle
}

/// CVE-2023-25809: a container that has no cgroup of its own is in its user's, which the user may
/// write to, and so might root in the container.
#[test]
fn the_users_cgroup_cannot_be_written() {
    needs_root!();
    let slice = Slice::new("silo-test-slice");
    // Without a container the user may.
    let group = slice.groups[0].join("own");
    assert_eq!(slice.run(Path::new("/bin/mkdir"), &[group.to_str().unwrap()]).code, 0);
    assert_eq!(slice.made(), std::slice::from_ref(&group));
    fs_err::remove_dir(group).unwrap();

    let cgroups = |options: &[&str]| {
        json!({"destination": "/sys/fs/cgroup", "type": "cgroup", "source": "cgroup",
            "options": options})
    };
    let sys = |options: &[&str]| json!({"destination": "/sys", "type": "none", "source": "/sys", "options": options});
    let bundle = bundle("slice");
    for (namespaced, mount) in [
        (false, cgroups(&[])),
        (false, cgroups(&["rw"])),
        (false, cgroups(&["ro"])),
        (true, cgroups(&["rw"])),
        (false, sys(&["rbind", "nosuid", "noexec", "nodev", "ro"])),
        (true, sys(&["rbind", "nosuid", "noexec", "nodev", "ro"])),
    ] {
        bundle.configure(|config| {
            let linux = &mut config["linux"];
            linux.as_object_mut().unwrap().remove("cgroupsPath");
            let namespaces = linux["namespaces"].as_array_mut().unwrap();
            namespaces.push(json!({"type": "user"}));
            if namespaced {
                namespaces.push(json!({"type": "cgroup"}));
            }
            let ids = json!([{"containerID": 0, "hostID": USER, "size": 1}]);
            linux["uidMappings"] = ids.clone();
            linux["gidMappings"] = ids;
            let mounts = config["mounts"].as_array_mut().unwrap();
            if mount["destination"] == "/sys" {
                mounts.retain(|mount| mount["destination"] != "/sys");
            }
            mounts.push(mount.clone());
            config["process"]["args"] = json!([
                "sh",
                "-c",
                "cd /sys/fs/cgroup
                 for dir in . $(busybox ls) $(busybox find . -name 'silo-test-slice*'); do
                     busybox mkdir $dir/evil
                     echo 3 > $dir/cgroup.max.depth && echo wrote $dir
                 done 2>/dev/null
                 echo ran"
            ]);
        });
        let state = bundle.directory.join("user-state");
        let output = slice.run(
            &program(),
            &[
                "--root",
                state.to_str().unwrap(),
                "run",
                "--bundle",
                bundle.directory.to_str().unwrap(),
                "slice",
            ],
        );
        assert_eq!((output.stdout.as_str(), output.code), ("ran\n", 0), "{mount} {output:?}");
        assert_eq!(slice.made(), Vec::<PathBuf>::new(), "{namespaced} {mount}");
    }
}
