//! What the engine reads, writes, mounts or runs by names in a root that a stranger made.

use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;
use std::process::Command;

use silo_tests::Engine;

use super::{assert_untouched, hostile_image, outside};

/// The files that the engine provides in every container.
const PROVIDED: [&str; 6] =
    ["etc/hosts", "etc/hostname", "etc/resolv.conf", "etc/mtab", ".dockerenv", "sbin/docker-init"];

/// CVE-2025-24965: the files that the engine itself puts into a root are links in the image, or
/// below links, or the container makes them so before it starts again.
#[test]
fn provided_files_stay_inside_the_root() {
    let engine = Engine::start();
    let outside = outside(&engine);
    let up = |path: &Path| format!("../../../../../../../../..{}", path.display());
    let (there, missing) = (outside.join("secret"), outside.join("made"));
    let targets = [
        there.display().to_string(),
        up(&there),
        missing.display().to_string(),
        up(&missing),
        format!("/proc/self/root{}", missing.display()),
    ];
    let use_all = "cat /etc/hosts /etc/hostname /etc/resolv.conf; echo x >> /etc/hosts; \
                   echo x > /etc/mtab; echo x > /.dockerenv";
    let run = |image: &str| {
        let arguments = ["run", "--rm", "--init", "--add-host", "h:1.2.3.4", "--hostname", "h"];
        let output = engine.docker(&[&arguments[..], &[image, "/bin/sh", "-c", use_all]].concat());
        assert!(!output.stdout.contains("secret"), "{output:?}");
        assert_untouched(&outside);
    };
    for (number, target) in targets.iter().enumerate() {
        let image = hostile_image(&engine, &format!("files{number}"), |tree| {
            fs_err::create_dir_all(tree.join("sbin")).expect("a folder");
            for file in PROVIDED {
                symlink(target, tree.join(file)).expect("a link");
            }
        });
        run(&image);
        engine.ok(&["rmi", &image]);
    }
    for (number, target) in [outside.display().to_string(), up(&outside)].iter().enumerate() {
        let image = hostile_image(&engine, &format!("folders{number}"), |tree| {
            fs_err::remove_dir_all(tree.join("etc")).expect("remove");
            for folder in ["etc", "sbin"] {
                symlink(target, tree.join(folder)).expect("a link");
            }
        });
        run(&image);
        engine.ok(&["rmi", &image]);
    }
    // The same by a container that then starts once more.
    let name = engine.name("again");
    let script = format!(
        "[ -L /sbin ] && exit; rm -rf /sbin; ln -s {outside} /sbin; umount /etc/hosts; \
         mv /etc /old; ln -s {outside} /etc",
        outside = outside.display()
    );
    let create = ["create", "--init", "--name", &name, "--privileged", "busybox", "sh", "-c"];
    engine.ok(&[&create[..], &[&script]].concat());
    for _ in 0..3 {
        engine.docker(&["start", "-a", &name]);
        assert_untouched(&outside);
    }
    engine.ok(&["rm", "-f", &name]);
}

/// CVE-2019-14271, CVE-2026-41567: programs and libraries with the names of those that an engine
/// might use for its work on a container.
#[test]
fn nothing_of_a_root_is_run_or_loaded() {
    let engine = Engine::start();
    let image = hostile_image(&engine, "programs", |tree| {
        let programs = ["tar", "gzip", "gunzip", "unpigz", "xz", "zstd", "git", "ps", "mount"];
        let libraries = ["libnss_files.so.2", "libc.so.6", "libseccomp.so.2", "ld-linux.so.2"];
        for folder in ["usr/bin", "usr/sbin", "sbin", "usr/local/bin", "lib", "lib64", "usr/lib"] {
            fs_err::create_dir_all(tree.join(folder)).expect("a folder");
            for name in programs.iter().chain(&libraries) {
                let path = tree.join(folder).join(name);
                fs_err::write(&path, "#!/bin/sh\necho > /was-run\n").expect("a file");
                fs_err::set_permissions(&path, PermissionsExt::from_mode(0o755)).expect("a mode");
            }
        }
    });
    let name = engine.name("programs");
    engine.ok(&["run", "-d", "--init", "--name", &name, &image, "/bin/sleep", "1000"]);
    let file = engine.scratch().join("file");
    fs_err::write(&file, "content\n").expect("a file");
    engine.ok(&["cp", file.to_str().expect("UTF-8"), &format!("{name}:/tmp/")]);
    engine.ok(&["cp", &format!("{name}:/tmp/file"), "-"]);
    for compression in ["gzip", "xz", "bzip2", "zstd"] {
        let archive = Command::new("sh")
            .args(["-c", &format!("tar -C {} -c file | {compression}", engine.scratch().display())])
            .output()
            .expect("run tar");
        // An engine may refuse the form, but only by itself.
        engine.docker_with_input(&["cp", "-", &format!("{name}:/tmp")], &archive.stdout);
    }
    let copy = engine.name("copy");
    engine.ok(&["top", &name]);
    engine.ok(&["diff", &name]);
    engine.ok(&["stats", "--no-stream", &name]);
    engine.ok(&["commit", &name, &copy]);
    let exported = engine.scratch().join("exported");
    engine.ok(&["export", "-o", exported.to_str().expect("UTF-8"), &name]);
    assert_ne!(engine.docker(&["exec", &name, "/bin/test", "-e", "/was-run"]).code, 0);
    assert!(!Path::new("/was-run").exists(), "run on the host");
    if engine.is_silo_or_skip("looks at Silo's own process and files") {
        // One static program: there is nothing that it could load.
        let maps = fs_err::read_to_string(format!("/proc/{}/maps", engine.daemon_pid()));
        let maps = maps.expect("the daemon's maps");
        let mut files = maps.lines().filter_map(|line| line.split_whitespace().nth(5));
        let strange = |file: &&str| {
            file.contains(".so") || file.contains(&engine.scratch().display().to_string())
        };
        assert_eq!(files.find(strange), None);
    }
    engine.ok(&["rm", "-f", &name]);
    engine.ok(&["rmi", "-f", &copy, &image]);
}

/// CVE-2019-10152, CVE-2019-18466: links in the root of a container that does not run.
#[test]
fn cp_follows_links_inside_the_root_only() {
    let engine = Engine::start();
    let outside = outside(&engine);
    let image = hostile_image(&engine, "copied", |tree| {
        symlink(&outside, tree.join("folder")).expect("a link");
        symlink(outside.join("secret"), tree.join("file")).expect("a link");
        symlink(format!("../../../../../../..{}", outside.display()), tree.join("tmp/up"))
            .expect("a link");
    });
    let name = engine.name("copied");
    engine.ok(&["create", "--name", &name, &image, "/bin/true"]);
    let file = engine.scratch().join("made");
    fs_err::write(&file, "evil\n").expect("a file");
    let file = file.to_str().expect("UTF-8");
    for place in ["folder", "folder/", "folder/secret", "folder/made", "file", "tmp/up/secret"] {
        engine.docker(&["cp", file, &format!("{name}:/{place}")]);
        assert_untouched(&outside);
        let to = engine.scratch().join("out");
        engine.docker(&["cp", "-L", &format!("{name}:/{place}"), to.to_str().expect("UTF-8")]);
        assert_ne!(fs_err::read_to_string(&to).unwrap_or_default(), "secret\n", "{place}");
        assert!(!to.join("secret").exists(), "{place}");
        drop(fs_err::remove_file(&to));
        drop(fs_err::remove_dir_all(&to));
    }
    engine.ok(&["rm", &name]);
    engine.ok(&["rmi", &image]);
}
