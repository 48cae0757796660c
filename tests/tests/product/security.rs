//! Known attacks. Each test fails on an implementation that does the obvious.

mod host;
mod http2;
mod labels;
mod root;
mod table;

use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;

use silo_tests::{Engine, Kind};

/// An image whose root tree `change` has altered.
fn hostile_image(engine: &Engine, name: &str, change: impl FnOnce(&Path)) -> String {
    let tree = engine.scratch().join(name);
    silo_tests::busybox_tree(&tree);
    change(&tree);
    let tar = Command::new("tar")
        .args(["-S", "-C"])
        .arg(&tree)
        .args(["-c", "."])
        .output()
        .expect("run tar");
    let tag = format!("{}:{name}", engine.name("hostile"));
    let outcome = engine.docker_with_input(&["import", "-", &tag], &tar.stdout);
    assert_eq!(outcome.code, 0, "{}", outcome.stderr);
    tag
}

/// A folder of the host with one file that nothing may change.
fn outside(engine: &Engine) -> PathBuf {
    let folder = engine.scratch().join("outside");
    fs_err::create_dir_all(&folder).expect("a folder");
    fs_err::write(folder.join("secret"), "secret\n").expect("a file");
    fs_err::set_permissions(folder.join("secret"), PermissionsExt::from_mode(0o600))
        .expect("a mode");
    folder
}

/// Asserts that [`outside`] is as it was made.
#[track_caller]
fn assert_untouched(folder: &Path) {
    let names: Vec<_> = fs_err::read_dir(folder)
        .expect("the folder")
        .map(|entry| entry.expect("an entry").file_name())
        .collect();
    assert_eq!(names, ["secret"]);
    assert_eq!(fs_err::read_to_string(folder.join("secret")).expect("the file"), "secret\n");
    let mode = fs_err::metadata(folder.join("secret")).expect("the file").permissions().mode();
    assert_eq!(mode & 0o7777, 0o600);
}

/// CVE-2019-5736: the engine's own binary, run inside a container, opened for writing.
#[test]
fn the_engine_binary_cannot_be_written() {
    let engine = Engine::start();
    if !engine.is_silo_or_skip("looks at Silo's own process and files") {
        return;
    }
    let name = engine.name("exe");
    engine.ok(&[
        "run",
        "-d",
        "--name",
        &name,
        "--entrypoint",
        "/proc/self/exe",
        "busybox",
        "init",
        "sleep",
        "100",
    ]);
    let outcome = engine.docker(&["exec", &name, "sh", "-c", "echo x > /proc/1/exe"]);
    assert!(outcome.stderr.contains("Read-only file system"), "{outcome:?}");
    engine.ok(&["rm", "-f", &name]);
}

/// CVE-2019-16884, CVE-2023-27561, CVE-2026-41579: images in which /proc, /sys or /dev is not
/// what it should be, and volumes over them.
#[test]
fn special_directories_cannot_be_replaced() {
    let engine = Engine::start();
    let outside = outside(&engine);
    for target in ["proc", "sys", "dev"] {
        let image = hostile_image(&engine, target, |tree| {
            symlink(&outside, tree.join(target)).expect("a link");
        });
        // What the link names exists on the host only; the container must not start on it, or
        // must resolve it inside its own root.
        let outcome =
            engine.docker(&["run", "--rm", &image, "/bin/ls", &format!("/{target}/secret")]);
        assert_ne!(outcome.code, 0, "{target}: {outcome:?}");
        assert_untouched(&outside);
        engine.ok(&["rmi", &image]);
    }
    let stderr = engine.fails(125, &["run", "--rm", "-v", "/data:/proc", "busybox", "true"]);
    assert!(stderr.contains("/proc"), "{stderr}");
    let name = engine.name("volume");
    let image = format!("{}:proc", engine.name("volume"));
    engine.ok(&["create", "--name", &name, "busybox"]);
    engine.ok(&["commit", "-c", "VOLUME /proc", &name, &image]);
    let outcome = engine.docker(&["run", "--rm", &image, "true"]);
    assert_ne!(outcome.code, 0, "{outcome:?}");
    engine.ok(&["rm", &name]);
    engine.ok(&["rmi", &image]);
}

/// CVE-2025-31133, CVE-2025-52565: device nodes and masked paths replaced by links.
#[test]
fn links_in_dev_do_not_lead_out() {
    let engine = Engine::start();
    let outside = outside(&engine);
    let image = hostile_image(&engine, "devlinks", |tree| {
        fs_err::create_dir(tree.join("dev")).expect("a folder");
        for link in ["null", "console", "ptmx", "pts", "shm", "mqueue", "fd", "stdin"] {
            symlink(outside.join("secret"), tree.join("dev").join(link)).expect("a link");
        }
    });
    let outcome =
        engine.docker(&["run", "--rm", "-t", &image, "/bin/stat", "-c", "%t:%T", "/dev/null"]);
    assert_eq!(outcome.stdout.trim(), "1:3", "{outcome:?}");
    assert_untouched(&outside);
    engine.ok(&["rmi", &image]);
}

/// CVE-2024-21626: a working directory that is one of the engine's own descriptors.
#[test]
fn no_descriptor_of_the_engine_is_a_way_out() {
    let engine = Engine::start();
    for number in 3..24 {
        for prefix in ["/proc/self/fd", "/proc/1/fd"] {
            let outcome = engine.docker(&[
                "run",
                "--rm",
                "-w",
                &format!("{prefix}/{number}"),
                "busybox",
                "cat",
                "../../../../../../etc/os-release",
            ]);
            assert!(!outcome.stdout.contains("NAME="), "{prefix}/{number}: {outcome:?}");
        }
    }
    let name = engine.name("fd");
    engine.ok(&["run", "-d", "--name", &name, "busybox", "sleep", "100"]);
    for number in 3..24 {
        let outcome = engine.docker(&[
            "exec",
            "-w",
            &format!("/proc/self/fd/{number}"),
            &name,
            "cat",
            "../../../../../../etc/os-release",
        ]);
        assert!(!outcome.stdout.contains("NAME="), "{number}: {outcome:?}");
    }
    engine.ok(&["rm", "-f", &name]);
}

/// CVE-2022-23648, GHSA-q6r4-3wmg-fwcq: WORKDIR and VOLUME below a link of the image.
#[test]
fn directories_are_made_inside_the_root_only() {
    let engine = Engine::start();
    let outside = outside(&engine);
    let image = hostile_image(&engine, "links", |tree| {
        symlink(&outside, tree.join("abs")).expect("a link");
        symlink(format!("../../../../../../../..{}", outside.display()), tree.join("rel"))
            .expect("a link");
    });
    for link in ["abs", "rel"] {
        engine.docker(&["run", "--rm", "-w", &format!("/{link}/made"), &image, "/bin/touch", "x"]);
        assert_untouched(&outside);
        engine.docker(&[
            "run",
            "--rm",
            "-v",
            &format!("/{link}/volume"),
            &image,
            "/bin/touch",
            &format!("/{link}/volume/x"),
        ]);
        assert_untouched(&outside);
        // Copy-up into a new volume must not read the host's files.
        let volume = engine.name(link);
        let listing = engine.docker(&[
            "run",
            "--rm",
            "-v",
            &format!("{volume}:/{link}"),
            &image,
            "/bin/ls",
            &format!("/{link}"),
        ]);
        assert!(!listing.stdout.contains("secret"), "{listing:?}");
        engine.docker(&["volume", "rm", &volume]);
        engine.docker(&["run", "--rm", "--tmpfs", &format!("/{link}/tmpfs"), &image, "/bin/true"]);
        assert_untouched(&outside);
    }
    engine.ok(&["rmi", &image]);
}

/// CVE-2024-9676, CVE-2026-47262: account files that block, never end, or lead out.
#[test]
fn account_files_are_read_with_care() {
    let engine = Engine::start();
    let outside = outside(&engine);
    fs_err::write(outside.join("secret"), "secret\n").expect("a file");
    let passwd = engine.scratch().join("passwd");
    fs_err::write(&passwd, "victim:x:0:0::/:/bin/sh\n").expect("a file");
    let fifo = hostile_image(&engine, "fifo", |tree| {
        fs_err::remove_file(tree.join("etc/passwd")).expect("remove");
        let made =
            Command::new("mkfifo").arg(tree.join("etc/passwd")).status().expect("run mkfifo");
        assert!(made.success());
    });
    let link = hostile_image(&engine, "link", |tree| {
        fs_err::remove_file(tree.join("etc/passwd")).expect("remove");
        symlink(&passwd, tree.join("etc/passwd")).expect("a link");
    });
    let mut images = vec![link];
    if engine.kind() == Kind::Silo {
        // Docker 20.10 reads all of the one and waits for ever for the other.
        images.push(fifo);
        images.push(hostile_image(&engine, "huge", |tree| {
            let file =
                fs_err::OpenOptions::new().write(true).open(tree.join("etc/passwd")).expect("open");
            file.file().set_len(5 << 30).expect("a sparse file");
        }));
    }
    for image in &images {
        let outcome = Command::new("timeout")
            .arg("20")
            .arg(engine.docker_command().get_program())
            .env("DOCKER_HOST", format!("unix://{}", engine.socket().display()))
            .args(["run", "--rm", "-u", "victim", image, "/bin/id", "-u"])
            .output()
            .expect("run docker");
        assert!(!outcome.status.success(), "{image}");
        assert_ne!(outcome.status.code(), Some(124), "{image}: reading never ends");
        assert_ne!(outcome.stdout, b"0\n", "{image}");
        engine.docker(&["rmi", "-f", image]);
    }
}

/// CVE-2024-40635, CVE-2026-46680: users that are beyond every number, and would be cut to root.
#[test]
fn users_beyond_the_range_are_refused() {
    let engine = Engine::start();
    let name = engine.name("user");
    engine.ok(&["create", "--name", &name, "busybox"]);
    let nines = "9".repeat(100);
    let users = ["2147483648", "4294967296", "-1", "0x0", "18446744073709551616", &nines];
    for (number, user) in users.into_iter().enumerate() {
        let image = format!("{name}:{number}");
        engine.ok(&["commit", "-c", &format!("USER {user}"), &name, &image]);
        for arguments in [
            &["run", "--rm", &image, "id", "-u"][..],
            &["run", "--rm", "--user", user, "busybox", "id", "-u"],
            &["run", "--rm", "--user", &format!("0:{user}"), "busybox", "id", "-u"],
        ] {
            let outcome = engine.docker(arguments);
            assert_ne!(outcome.code, 0, "{arguments:?}: {outcome:?}");
            assert_eq!(outcome.stdout, "", "{arguments:?}");
        }
        engine.ok(&["rmi", &image]);
    }
    engine.ok(&["rm", &name]);
}

/// CVE-2018-15664: a path that turns into a link while `cp` works on it.
#[test]
fn cp_races_with_links() {
    let engine = Engine::start();
    let outside = outside(&engine);
    let name = engine.name("race");
    engine.ok(&[
        "run", "-d", "--name", &name, "busybox", "sh", "-c",
        &format!(
            "mkdir /a; ln -s {} /b; echo ready; while :; do mv -T /a /c; mv -T /b /a; mv -T /a /b; mv -T /c /a; done",
            outside.display()
        ),
    ]);
    while !engine.ok(&["logs", &name]).contains("ready") {}
    let file = engine.scratch().join("secret");
    fs_err::write(&file, "evil\n").expect("a file");
    for _ in 0..40 {
        engine.docker(&["cp", file.to_str().expect("UTF-8"), &format!("{name}:/a/secret")]);
        assert_untouched(&outside);
        let out = engine.docker(&["cp", &format!("{name}:/a/secret"), "-"]);
        assert!(!out.stdout.contains("secret\n"), "{out:?}");
    }
    engine.ok(&["rm", "-f", &name]);
}

/// CVE-2021-30465, CVE-2024-45310: a shared volume in which mount targets are swapped.
#[test]
fn mount_targets_in_a_shared_volume_are_swapped() {
    let engine = Engine::start();
    if !engine.is_silo_or_skip("runc 1.1.5 of Debian 12 makes the directory on the host") {
        return;
    }
    let outside = outside(&engine);
    let (swapper, shared, inner) =
        (engine.name("swap"), engine.name("shared"), engine.name("inner"));
    engine.ok(&[
        "run", "-d", "--name", &swapper, "-v", &format!("{shared}:/s"), "busybox", "sh", "-c",
        &format!(
            "ln -s {} /s/l; mkdir /s/d; echo ready; while :; do mv -T /s/d /s/x; mv -T /s/l /s/d; mv -T /s/d /s/l; mv -T /s/x /s/d; done",
            outside.display()
        ),
    ]);
    while !engine.ok(&["logs", &swapper]).contains("ready") {}
    for _ in 0..30 {
        // It starts or it fails; either way nothing is made on the host.
        engine.docker(&[
            "run",
            "--rm",
            "-v",
            &format!("{shared}:/s"),
            "-v",
            &format!("{inner}:/s/d/made"),
            "busybox",
            "touch",
            "/s/d/made/x",
        ]);
        assert_untouched(&outside);
    }
    engine.ok(&["rm", "-f", &swapper]);
    engine.ok(&["volume", "rm", "-f", &shared, &inner]);
}

/// CVE-2022-1227: `top` shows the host's view and runs nothing of the container.
#[test]
fn top_runs_nothing_of_the_container() {
    let engine = Engine::start();
    let image = hostile_image(&engine, "ps", |tree| {
        for path in ["bin/ps", "sbin/ps", "usr/bin/ps"] {
            let path = tree.join(path);
            fs_err::create_dir_all(path.parent().expect("a parent")).expect("a folder");
            drop(fs_err::remove_file(&path));
            fs_err::write(&path, "#!/bin/sh\ntouch /was-run\n").expect("a file");
            fs_err::set_permissions(&path, PermissionsExt::from_mode(0o755)).expect("a mode");
        }
    });
    let name = engine.name("ps");
    engine.ok(&["run", "-d", "--name", &name, &image, "/bin/sleep", "100"]);
    assert!(engine.ok(&["top", &name]).contains("sleep 100"));
    assert_ne!(engine.docker(&["exec", &name, "/bin/test", "-e", "/was-run"]).code, 0);
    engine.ok(&["rm", "-f", &name]);
    engine.ok(&["rmi", &image]);
}

/// CVE-2022-31030, CVE-2022-23471: much output and many streams leave the daemon as it was.
#[test]
fn output_and_streams_do_not_pile_up() {
    let engine = Engine::start();
    if !engine.is_silo_or_skip("looks at Silo's own process and files") {
        return;
    }
    let descriptors =
        || fs_err::read_dir(format!("/proc/{}/fd", engine.daemon_pid())).expect("fd").count();
    let name = engine.name("flood");
    engine.ok(&["run", "-d", "--name", &name, "busybox", "sleep", "100"]);
    let body = r#"{"Cmd":["true"],"AttachStdout":true}"#;
    let attach_once = || {
        let id = engine.http("POST", &format!("/containers/{name}/exec"), body).json()["Id"]
            .as_str()
            .expect("an id")
            .to_owned();
        engine.http("POST", &format!("/exec/{id}/start"), "{}")
    };
    attach_once();
    let (before_kb, before_fds) = (engine.resident_kb(), descriptors());
    let mut child = engine
        .docker_command()
        .args(["exec", &name, "head", "-c", "1000000000", "/dev/zero"])
        .stdout(std::process::Stdio::null())
        .spawn()
        .expect("run docker");
    assert!(child.wait().expect("wait").success());
    for _ in 0..300 {
        attach_once();
    }
    let (after_kb, after_fds) = (engine.resident_kb(), descriptors());
    assert!(after_kb < before_kb + 16_000, "{before_kb} kB before, {after_kb} kB after");
    assert!(after_fds < before_fds + 20, "{before_fds} descriptors before, {after_fds} after");
    engine.ok(&["rm", "-f", &name]);
}

/// The default seccomp profile refuses what containers have escaped by.
#[test]
fn dangerous_calls_are_refused() {
    let engine = Engine::start();
    let python = |extra: &[&str], code: &str| {
        let mut arguments = vec![
            "run",
            "--rm",
            "-v",
            "/usr:/usr:ro",
            "-v",
            "/usr/lib:/lib:ro",
            "-v",
            "/usr/lib64:/lib64:ro",
        ];
        arguments.extend(extra);
        arguments.extend(["busybox", "/usr/bin/python3", "-c", code]);
        engine.ok(&arguments)
    };
    // keyctl, userfaultfd, io_uring_setup, mount, unshare(NEWUSER), clone3, bpf.
    let code = "import ctypes; c = ctypes.CDLL(None, use_errno=True)\n\
        def n(*a):\n c.syscall(*a); return ctypes.get_errno()\n\
        print(n(250,0,0), n(323,0), n(425,1,0), n(165,0,0,0,0,0), n(272,0x10000000), n(435,0,0), n(321,0,0,0))";
    let refused = python(&[], code);
    // Docker before 25 let io_uring_setup through.
    let with_io_uring = engine.kind() == Kind::Docker && refused == "1 1 14 1 1 38 1";
    assert!(with_io_uring || refused == "1 1 1 1 1 38 1", "{refused}");
    let unconfined = python(&["--security-opt", "seccomp=unconfined"], code);
    assert_ne!(unconfined, "1 1 1 1 1 38 1");
}
