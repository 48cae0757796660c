//! Contexts and Dockerfiles that want out.

use std::os::unix::fs::symlink;

use fs_err as fs;
use silo_tests::Engine;

use super::{build, built, context, shell, with_input};

#[test]
fn links_of_a_context_lead_nowhere_else() {
    let engine = Engine::start();
    let tag = engine.name("links");
    let secret = engine.scratch().join("secret");
    fs::write(&secret, "secret").expect("a file");
    let dockerfile = "FROM busybox\nCOPY tree /tree\nCOPY dir/ /dir/\n";
    let context = context(&engine, &[("Dockerfile", dockerfile), ("tree/", ""), ("dir/", "")]);
    symlink(&secret, context.join("tree/absolute")).expect("a link");
    symlink("../../../../../../../../../../etc/shadow", context.join("dir/up")).expect("a link");
    built(&engine, &context, &["-t", &tag]);
    let found = shell(
        &engine,
        &tag,
        "readlink /dir/up; cat /tree/absolute /dir/up 2>/dev/null || echo none",
    );
    assert_eq!(found, "../../../../../../../../../../etc/shadow\nnone");
    for source in ["tree/absolute", "dir/up", "../secret", "/../../etc/shadow"] {
        fs::write(context.join("Dockerfile"), format!("FROM busybox\nCOPY {source} /out\n"))
            .expect("a file");
        let outcome = build(&engine, &context, &["-t", &tag]);
        assert_ne!(outcome.code, 0, "{source}: {}", outcome.stdout);
    }
    engine.ok(&["rmi", "-f", &tag]);
}

#[test]
fn destinations_stay_in_the_image() {
    let engine = Engine::start();
    let tag = engine.name("destinations");
    let outside = engine.scratch().join("outside");
    fs::create_dir(&outside).expect("a directory");
    let path = outside.display();
    let dockerfile = format!(
        "FROM busybox\nRUN ln -s {path} /a && ln -s ../../../../../../../../{path} /b\n\
         COPY f /a/\nCOPY f /b/x/\nADD t.tar /a/\nWORKDIR /b/y\n"
    );
    let context = context(&engine, &[("Dockerfile", &dockerfile), ("f", "f"), ("t", "t")]);
    let status = std::process::Command::new("tar")
        .arg("-C")
        .arg(&context)
        .args(["-cf", "t.tar", "t"])
        .current_dir(&context)
        .status();
    assert!(status.expect("run tar").success());
    built(&engine, &context, &["-t", &tag]);
    assert_eq!(fs::read_dir(&outside).expect("a directory").count(), 0);
    assert_eq!(shell(&engine, &tag, &format!("ls {path}")), "f\nt\nx\ny");
    engine.ok(&["rmi", "-f", &tag]);
}

#[test]
fn a_context_s_archive_writes_into_the_context_only() {
    let engine = Engine::start();
    let outside = engine.scratch().join("escaped");
    let mut tar = Vec::new();
    let file = |name: &str, kind: u8, link: &str, data: &[u8]| {
        let mut head = [0_u8; 512];
        head[..name.len()].copy_from_slice(name.as_bytes());
        head[100..107].copy_from_slice(b"0000644");
        let size = format!("{:011o}", data.len());
        head[124..135].copy_from_slice(size.as_bytes());
        head[156] = kind;
        head[157..157 + link.len()].copy_from_slice(link.as_bytes());
        head[257..263].copy_from_slice(b"ustar\0");
        head[148..156].copy_from_slice(b"        ");
        let sum: u32 = head.iter().map(|byte| u32::from(*byte)).sum();
        head[148..155].copy_from_slice(format!("{sum:06o}\0").as_bytes());
        let mut bytes = head.to_vec();
        bytes.extend_from_slice(data);
        bytes.resize(bytes.len().next_multiple_of(512), 0);
        bytes
    };
    let parent = outside.parent().expect("a parent").display().to_string();
    tar.extend(file("Dockerfile", b'0', "", b"FROM busybox\nRUN true\n"));
    tar.extend(file("out", b'2', &parent, b""));
    tar.extend(file("out/escaped", b'0', "", b"x"));
    tar.extend([0; 1024]);
    // Either refused or kept inside.
    with_input(&engine, &["build", "-"], &tar);
    assert!(!outside.exists());
    let mut tar = file("../../../../../../../../tmp/silo-escaped", b'0', "", b"x");
    tar.extend([0; 1024]);
    assert_ne!(with_input(&engine, &["build", "-"], &tar).code, 0);
}

#[test]
fn sources_of_mounts_stay_inside() {
    let engine = Engine::start();
    if !engine.is_silo_or_skip("the classic builder of dockerd has no mounts") {
        return;
    }
    let tag = engine.name("mounts");
    for mount in [
        "type=bind,source=link,target=/m",
        "type=bind,source=../../..,target=/m",
        "type=bind,from=base,source=/link,target=/m",
        "type=cache,id=../../../..,target=/m",
        "type=cache,from=base,source=/link,target=/m",
    ] {
        let dockerfile = format!(
            "FROM busybox AS base\nRUN ln -s / /link\nFROM busybox\n\
             RUN --mount={mount} test ! -e /m/proc/1 && test ! -e /m/boot && ls /m > /list\n"
        );
        let context = context(&engine, &[("Dockerfile", &dockerfile)]);
        symlink("/", context.join("link")).expect("a link");
        built(&engine, &context, &["-t", &tag]);
        let list = shell(&engine, &tag, "cat /list");
        assert!(!list.contains("boot"), "{mount}: {list}");
    }
    let context =
        context(&engine, &[("Dockerfile", "FROM busybox\nRUN --security=insecure true\n")]);
    let outcome = build(&engine, &context, &[]);
    assert!(outcome.stderr.contains("security.insecure is not allowed"), "{}", outcome.stderr);
}

/// Two steps share a cache; one changes what lies there while the other mounts below it
/// (CVE-2024-11218).
#[test]
fn mounts_below_a_cache_that_changes_stay_inside() {
    const TRIES: usize = 12;
    let engine = Engine::start();
    if !engine.is_silo_or_skip("the classic builder of dockerd has no mounts") {
        return;
    }
    let outside = engine.scratch().join("outside");
    fs::create_dir(&outside).expect("a directory");
    let cache = "--mount=type=cache,id=race,target=/c";
    let swapping = format!(
        "FROM busybox\nRUN {cache} touch /c/began; until [ -e /c/stop ]; do rm -rf /c/d; \
         ln -s {} /c/d; rm /c/d; mkdir /c/d; done\n",
        outside.display()
    );
    let swapping = context(&engine, &[("Dockerfile", &swapping)]);
    let begun = format!("FROM busybox\nRUN {cache} until [ -e /c/began ]; do sleep 0.01; done\n");
    let begun = context(&engine, &[("Dockerfile", &begun)]);
    let mounting = format!(
        "FROM busybox\nRUN {cache} --mount=type=tmpfs,target=/c/d/x test ! -e /c/d/x/proc\n"
    );
    let mounting = context(&engine, &[("Dockerfile", &mounting)]);
    let stop = format!("FROM busybox\nRUN {cache} touch /c/stop\n");
    let stop = context(&engine, &[("Dockerfile", &stop)]);
    std::thread::scope(|scope| {
        let swapped = scope.spawn(|| build(&engine, &swapping, &[]));
        built(&engine, &begun, &[]);
        for _ in 0..TRIES {
            // It may fail, when what it needs has just gone; never reach what lies outside.
            let outcome = build(&engine, &mounting, &["--no-cache"]);
            let made: Vec<_> = fs::read_dir(&outside).expect("it is there").collect();
            assert!(made.is_empty(), "{made:?} {}", outcome.stderr);
        }
        built(&engine, &stop, &[]);
        assert_eq!(swapped.join().expect("no panic").code, 0);
    });
}

#[test]
fn git_sources_give_no_options() {
    let engine = Engine::start();
    if !engine.is_silo_or_skip("dockerd of this age fetches by other rules") {
        return;
    }
    let marker = engine.scratch().join("marker");
    for source in [
        format!("https://127.0.0.1:1/a.git#--upload-pack=touch${{IFS}}{}", marker.display()),
        "https://127.0.0.1:1/a.git#main:../..".to_owned(),
        "https://127.0.0.1:1/a.git#-x".to_owned(),
    ] {
        let dockerfile = format!("FROM busybox\nADD {source} /x\n");
        let context = context(&engine, &[("Dockerfile", &dockerfile)]);
        let outcome = build(&engine, &context, &[]);
        assert!(outcome.stderr.contains("invalid git source"), "{source}: {}", outcome.stderr);
        let target = format!("/build?remote={}", source.replace('#', "%23").replace(':', "%3A"));
        let response = engine.http("POST", &target, "");
        let body = String::from_utf8_lossy(&response.body);
        assert!(body.contains("invalid git source"), "{source}: {body}");
    }
    assert!(!marker.exists());
}

/// Images that say that they are what a step makes, and bases that differ in what a build must
/// not take from the cache.
#[test]
fn what_passes_for_a_cached_step_is_not_taken() {
    let engine = Engine::start();
    let (tag, base, poison) = (engine.name("cached"), engine.name("base"), engine.name("poison"));
    let container = engine.name("c");
    let step = "echo ok > /f";
    // By its history it comes from the same image and by the same command.
    let all = ["run", "--name", &container, "busybox", "/bin/sh", "-c"];
    engine.ok(&[&all[..], &["echo ok > /f; touch /evil"]].concat());
    let change = format!("CMD [\"/bin/sh\",\"-c\",\"{step}\"]");
    engine.ok(&["commit", "--change", &change, &container, &poison]);
    engine.ok(&["rm", &container]);
    let build_upon = |base: &str| {
        let text = format!("FROM {base}\nRUN {step}\n");
        built(&engine, &context(&engine, &[("Dockerfile", &text)]), &["-t", &tag])
    };
    build_upon("busybox");
    assert_eq!(shell(&engine, &tag, "ls /f /evil 2>/dev/null || true"), "/f");

    // The same files under another configuration.
    let configured = |health: &str, trigger: &str| {
        let text = format!("FROM busybox\nHEALTHCHECK CMD {health}\nONBUILD RUN {trigger}\n");
        built(&engine, &context(&engine, &[("Dockerfile", &text)]), &["-t", &base]);
        build_upon(&base)
    };
    configured("true", "echo one > /trigger");
    configured("test -e /f", "echo two > /trigger");
    let health = engine.inspect(&tag)["Config"]["Healthcheck"]["Test"].clone();
    assert_eq!(health, serde_json::json!(["CMD-SHELL", "test -e /f"]));
    assert_eq!(shell(&engine, &tag, "cat /trigger"), "two");
    // Other files of the same name: the parent counts, not how it is called.
    let text = "FROM busybox\nRUN echo other > /other\n";
    built(&engine, &context(&engine, &[("Dockerfile", text)]), &["-t", &base]);
    build_upon(&base);
    assert_eq!(shell(&engine, &tag, "cat /other /f"), "other\nok");
    engine.docker(&["rmi", "-f", &tag, &base, &poison]);
}

/// What a Dockerfile may write to get more rights than its steps have.
#[test]
fn steps_get_no_rights_that_nobody_gave() {
    let engine = Engine::start();
    if !engine.is_silo_or_skip("older engines have no flags of RUN") {
        return;
    }
    let refused = "granting entitlement security.insecure is not allowed";
    for (step, words) in [
        ("RUN --security=insecure true", refused),
        ("RUN --security=other true", "security"),
        ("RUN --network=container:x true", "network"),
        ("RUN --device=vendor.com/device=all,required true", "device"),
    ] {
        let at = context(&engine, &[("Dockerfile", &format!("FROM busybox\n{step}\n"))]);
        for outcome in
            [build(&engine, &at, &[]), engine.silo(&["build", at.to_str().expect("text")])]
        {
            assert_ne!(outcome.code, 0, "{step}");
            assert!(outcome.stderr.contains(words), "{step}: {}", outcome.stderr);
        }
    }
    // Filters of system calls stay, and so does everything that a container has not.
    let steps = "FROM busybox\nRUN grep -q '^Seccomp:.*2' /proc/self/status\n\
        RUN grep -q '^NoNewPrivs' /proc/self/status; ! mount -t tmpfs t /mnt\n\
        RUN ! mknod /dev/sda b 8 0 || ! head -c 1 /dev/sda\n\
        RUN ! chroot / unshare -m true\n\
        RUN test ! -w /proc/sysrq-trigger && test ! -e /run/docker.sock\n\
        RUN --security=sandbox --network=none test \"$(ls /sys/class/net | grep -v ifb)\" = lo\n";
    let marker = std::path::Path::new("/tmp/silo-step-was-here");
    let steps = format!("{steps}RUN touch {}\n", marker.display());
    let at = context(&engine, &[("Dockerfile", &steps)]);
    built(&engine, &at, &["--no-cache", "--network", "none"]);
    assert!(!marker.exists(), "a step writes to the host's /tmp");
}
