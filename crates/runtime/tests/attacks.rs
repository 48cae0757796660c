//! Known attacks on container runtimes, each with the numbers under which it is known.

mod bundle;

use std::os::fd::AsRawFd as _;
use std::os::unix::fs::symlink;
use std::sync::atomic::{AtomicBool, Ordering};

use bundle::{Bundle, needs_root};
use serde_json::json;

/// CVE-2019-19921, CVE-2023-27561, CVE-2023-28642, CVE-2026-41579.
#[test]
fn kernel_directories_that_are_links_are_refused() {
    needs_root!();
    for name in ["proc", "sys", "dev"] {
        let bundle = Bundle::new(&format!("link-{name}"));
        let outside = bundle.directory.join("outside");
        fs_err::create_dir(&outside).unwrap();
        fs_err::remove_dir(bundle.root().join(name)).unwrap();
        symlink(&outside, bundle.root().join(name)).unwrap();
        bundle.configure(|_| {});
        let output = bundle.run();
        assert_eq!(output.code, 1, "{name}");
        assert!(output.stderr.contains("ordinary directory"), "{name}: {}", output.stderr);
        assert_eq!(fs_err::read_dir(&outside).unwrap().count(), 0, "{name}");
    }
}

/// CVE-2026-41579 without a mount at `/dev`.
#[test]
fn devices_are_not_made_outside() {
    needs_root!();
    let bundle = Bundle::new("dev");
    let outside = bundle.directory.join("outside");
    fs_err::create_dir(&outside).unwrap();
    bundle.write("../outside/ptmx", "kept");
    fs_err::remove_dir(bundle.root().join("dev")).unwrap();
    symlink(&outside, bundle.root().join("dev")).unwrap();
    bundle.configure(|config| {
        config["mounts"].as_array_mut().unwrap().retain(|mount| mount["type"] == "proc");
    });
    assert_eq!(bundle.run().code, 1);
    assert_eq!(fs_err::read_dir(&outside).unwrap().count(), 1);
    assert_eq!(fs_err::read_to_string(outside.join("ptmx")).unwrap(), "kept");
}

/// CVE-2024-21626.
#[test]
fn working_directory_is_never_a_descriptor() {
    needs_root!();
    let bundle = Bundle::new("cwd");
    for number in 0..40 {
        for name in [format!("/proc/self/fd/{number}"), format!("/proc/1/fd/{number}/../..")] {
            bundle.configure(|config| {
                config["process"]["cwd"] = json!(name);
                config["process"]["args"] = json!(["ls"]);
            });
            assert_eq!(bundle.run().code, 1, "{name}");
        }
    }
}

/// CVE-2024-21626: what the caller leaves open.
#[test]
fn descriptors_are_not_inherited() {
    needs_root!();
    let bundle = Bundle::new("fds");
    let leaked = fs_err::File::open("/").unwrap();
    // A descriptor without the close-on-exec flag, as a careless caller has.
    let kept = rustix::io::dup(&leaked).unwrap();
    assert!(kept.as_raw_fd() > 2);
    bundle.configure(|config| config["process"]["args"] = json!(["ls", "/proc/self/fd"]));
    // 3 is the directory that ls reads.
    assert_eq!(bundle.run().stdout, "0\n1\n2\n3\n");
}

/// CVE-2019-16884, and the places that LXCFS uses.
#[test]
fn nothing_covers_procfs() {
    needs_root!();
    let bundle = Bundle::new("proc");
    let cases = [
        ("/proc", 1),
        ("/proc/self/attr", 1),
        ("/foo/../proc/sys", 1),
        ("/", 1),
        ("/proc/uptime", 0),
    ];
    for (destination, code) in cases {
        bundle.configure(|config| {
            let source = if code == 0 { "/etc/hostname" } else { "/tmp" };
            config["mounts"].as_array_mut().unwrap().push(json!({
                "destination": destination, "type": "bind", "source": source, "options": ["bind"],
            }));
        });
        let output = bundle.run();
        assert_eq!(output.code, code, "{destination}: {}", output.stderr);
    }
}

/// CVE-2021-30465, CVE-2024-45310: links in the root as mount targets.
#[test]
fn mount_targets_stay_in_the_root() {
    needs_root!();
    let bundle = Bundle::new("targets");
    let outside = bundle.directory.join("outside");
    fs_err::create_dir(&outside).unwrap();
    let up = "../".repeat(12);
    symlink(format!("{up}{}", outside.display()), bundle.root().join("relative")).unwrap();
    symlink(&outside, bundle.root().join("absolute")).unwrap();
    for name in ["relative/x", "absolute/y", "absolute/file"] {
        bundle.configure(|config| {
            let source = if name.ends_with("file") { "/etc/hostname" } else { "/etc" };
            config["mounts"].as_array_mut().unwrap().push(json!({
                "destination": format!("/{name}"), "source": source, "options": ["bind", "ro"],
            }));
        });
        let output = bundle.run();
        assert_eq!(output.code, 0, "{name}: {}", output.stderr);
        assert_eq!(fs_err::read_dir(&outside).unwrap().count(), 0, "{name}");
    }
}

/// CVE-2021-30465: the target is swapped while containers start.
#[test]
fn swapped_mount_targets_stay_in_the_root() {
    needs_root!();
    let bundle = Bundle::new("race");
    let outside = bundle.directory.join("outside");
    fs_err::create_dir(&outside).unwrap();
    let root = bundle.root();
    fs_err::create_dir(root.join("volume")).unwrap();
    fs_err::create_dir(root.join("volume/a")).unwrap();
    symlink(format!("{}{}", "../".repeat(12), outside.display()), root.join("volume/b")).unwrap();
    bundle.configure(|config| {
        config["mounts"].as_array_mut().unwrap().push(json!({
            "destination": "/volume/a/deep/target", "source": "/etc", "options": ["bind"],
        }));
    });
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let (a, b) = (root.join("volume/a"), root.join("volume/b"));
            while !done.load(Ordering::Relaxed) {
                let flags = rustix::fs::RenameFlags::EXCHANGE;
                let cwd = rustix::fs::CWD;
                rustix::fs::renameat_with(cwd, &a, cwd, &b, flags).unwrap();
            }
        });
        for _ in 0..100 {
            bundle.run();
        }
        done.store(true, Ordering::Relaxed);
    });
    assert_eq!(fs_err::read_dir(&outside).unwrap().count(), 0);
    let mounts = fs_err::read_to_string("/proc/self/mountinfo").unwrap();
    assert!(!mounts.contains(outside.to_str().unwrap()));
}

/// CVE-2022-0811: parameters smuggled in a name, and those of the host.
#[test]
fn parameters_of_the_host_are_refused() {
    needs_root!();
    let bundle = Bundle::new("sysctl");
    for name in ["kernel.core_pattern", "kernel.shm_rmid_forced=1+kernel.core_pattern", "net.."] {
        bundle.configure(|config| config["linux"]["sysctl"] = json!({name: "0"}));
        let output = bundle.run();
        assert_eq!(output.code, 1, "{name}");
        assert!(output.stderr.contains("sysctl"), "{name}: {}", output.stderr);
    }
    bundle.configure(|config| {
        config["linux"]["sysctl"] = json!({"net.ipv4.ip_forward": "1"});
        config["process"]["args"] = json!(["cat", "/proc/sys/net/ipv4/ip_forward"]);
    });
    assert_eq!(bundle.run().stdout, "1\n");
}

/// CVE-2025-31133: what covers masked files is the host's null device.
#[test]
fn masks_do_not_depend_on_the_root() {
    needs_root!();
    let bundle = Bundle::new("masks");
    bundle.write("secret", "secret");
    bundle.configure(|config| {
        // `/dev` of the image with a trap in place of the null device.
        config["mounts"].as_array_mut().unwrap().retain(|mount| mount["type"] == "proc");
        config["linux"]["maskedPaths"] = json!(["/secret", "/proc/kcore", "/bin"]);
        config["linux"]["readonlyPaths"] = json!(["/proc/sys"]);
        config["process"]["args"] = json!([
            "/busybox",
            "sh",
            "-c",
            "/busybox cat /secret; /busybox ls /bin; echo 1 > /proc/sys/kernel/panic || echo ro"
        ]);
    });
    fs_err::copy("/bin/busybox", bundle.root().join("busybox")).unwrap();
    let output = bundle.run();
    assert_eq!(output.stdout, "ro\n", "{}", output.stderr);
    symlink("/secret", bundle.root().join("dev/trap")).unwrap();
    fs_err::remove_file(bundle.root().join("dev/null")).unwrap();
    symlink("/secret", bundle.root().join("dev/null")).unwrap();
    assert_eq!(bundle.run().code, 1);
    assert_eq!(fs_err::read_to_string(bundle.root().join("secret")).unwrap(), "secret");
}

/// CVE-2022-29162, CVE-2025-27612: capabilities of a program that is executed later.
#[test]
fn later_programs_have_no_more_than_given() {
    needs_root!();
    let bundle = Bundle::new("caps");
    bundle.configure(|config| config["process"]["args"] = json!(["sleep", "100"]));
    let directory = bundle.directory.to_str().unwrap();
    assert_eq!(bundle.command(&["run", "-d", "--bundle", directory, "c"]).code, 0);
    let output = bundle.command(&["exec", "c", "grep", "^Cap", "/proc/self/status"]);
    assert!(output.stdout.lines().all(|line| line.ends_with("\t0000000000000000")), "{output:?}");
    let output = bundle.command(&["exec", "--user", "4294967296", "c", "id"]);
    assert_eq!(output.code, 1);
    assert_eq!(bundle.command(&["delete", "--force", "c"]).code, 0);
}

/// CVE-2021-43784: texts longer than any counter of a message.
#[test]
fn long_texts_are_not_cut_into_other_texts() {
    needs_root!();
    let bundle = Bundle::new("long");
    let long = "x".repeat(70_000);
    bundle.configure(|config| {
        config["mounts"].as_array_mut().unwrap().push(json!({
            "destination": "/m", "source": format!("/{long}"), "options": ["bind"],
        }));
    });
    let output = bundle.run();
    assert_eq!(output.code, 1);
    assert!(output.stderr.contains("file name too long"));
    bundle.configure(|config| config["process"]["args"] = json!(["echo", long]));
    assert_eq!(bundle.run().stdout.trim_end(), long);
    // Cut off, it would map fewer ids, or others, than it says.
    bundle.configure(|config| {
        let ids: Vec<_> = (0..5000)
            .map(|id| json!({"containerID": id, "hostID": 100_000 + id, "size": 1}))
            .collect();
        config["linux"]["namespaces"].as_array_mut().unwrap().push(json!({"type": "user"}));
        config["linux"]["uidMappings"] = json!(ids);
        config["linux"]["gidMappings"] = json!(ids);
    });
    let output = bundle.run();
    assert_eq!(output.code, 1, "{output:?}");
}
