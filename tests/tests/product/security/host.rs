//! What users of the host, and other containers, can see and reach.

use std::io::{Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::Command;

use silo_tests::Engine;

/// CVE-2020-15257, CVE-2024-25621: no abstract sockets, and state that only root can enter.
#[test]
fn sockets_and_state_are_private() {
    let engine = Engine::start();
    if !engine.is_silo_or_skip("looks at Silo's own process and files") {
        return;
    }
    let sockets = fs_err::read_to_string("/proc/net/unix").expect("sockets");
    assert!(
        !sockets.lines().any(|line| line.contains("@silo") || line.contains("@/silo")),
        "{sockets}"
    );
    for folder in ["containers", "snapshots", "layers", "content"] {
        let path = engine.data_root().join(folder);
        let mode = fs_err::metadata(&path).expect("a folder").permissions().mode() & 0o777;
        let root =
            fs_err::metadata(engine.data_root()).expect("the root").permissions().mode() & 0o777;
        assert!(mode & 0o066 == 0 && root & 0o066 == 0, "{folder}: {mode:o} in {root:o}");
    }
    let mode = fs_err::metadata(engine.socket()).expect("the socket").permissions().mode() & 0o777;
    assert_eq!(mode & 0o007, 0, "{mode:o}");
}

/// Runs a program as a user of the host that nothing is meant for.
fn as_nobody(program: &Path) -> std::process::Output {
    Command::new("setpriv")
        .args(["--reuid", "65534", "--regid", "65534", "--clear-groups"])
        // What it executes itself it finds with the rights that it had before.
        .args(["sh", "-c", "exec \"$1\"", "sh"])
        .arg(program)
        .output()
        .expect("run setpriv")
}

/// CVE-2021-41091, CVE-2021-41103: set-user-id programs in volumes and roots are out of the reach
/// of the host's users, and so is everything else there.
#[test]
fn programs_of_containers_are_not_for_users_of_the_host() {
    let engine = Engine::start();
    if !engine.is_silo_or_skip("looks at Silo's own process and files") {
        return;
    }
    // The directory above is the tests' own and private; an engine's is not.
    let above = engine.data_root().parent().expect("a parent").to_owned();
    fs_err::set_permissions(&above, PermissionsExt::from_mode(0o755)).expect("a mode");
    let root = engine.data_root();
    fs_err::set_permissions(&root, PermissionsExt::from_mode(0o711)).expect("a mode");
    let (name, volume) = (engine.name("setuid"), engine.name("setuid"));
    let script = "for place in / /data; do cp /bin/busybox $place/id; chmod 4755 $place/id; done; \
                  chmod 777 / /data; sleep 1000";
    let mount = format!("{volume}:/data");
    let id =
        engine.ok(&["run", "-d", "--name", &name, "-v", &mount, "busybox", "sh", "-c", script]);
    while engine.docker(&["exec", &name, "test", "-u", "/data/id"]).code != 0 {}
    let layers = fs_err::read_dir(root.join("layers")).expect("layers");
    let mut places: Vec<_> = layers
        .map(|layer| layer.expect("a layer").path().join("fs/bin/busybox"))
        .filter(|path| path.exists())
        .collect();
    assert_eq!(places.len(), 1, "{places:?}");
    let snapshot = root.join("snapshots").join(&id);
    let found = Command::new("find").arg(snapshot).args(["-name", "id"]).output();
    let found = found.expect("run find");
    let found = String::from_utf8_lossy(&found.stdout).into_owned();
    places.extend(found.lines().map(Into::into));
    places.push(root.join("volumes").join(&volume).join("_data/id"));
    assert_eq!(places.len(), 3, "{places:?}");
    // Such a user may run what others may.
    assert!(as_nobody(Path::new("/bin/true")).status.success());
    for place in &places {
        assert!(place.exists(), "{}", place.display());
        let output = as_nobody(place);
        let refused = String::from_utf8_lossy(&output.stderr).contains("Permission denied");
        assert!(!output.status.success() && refused, "{}: {output:?}", place.display());
    }
    engine.ok(&["rm", "-f", &name]);
    engine.ok(&["volume", "rm", &volume]);
}

/// CVE-2019-13509, CVE-2021-21334, CVE-2020-14370, CVE-2021-3602: what a client passes in the
/// environment stays there, even in the most talkative log, and the engine's own stays out.
#[test]
fn secrets_stay_out_of_logs_and_other_containers() {
    let mut engine = Engine::prepare();
    engine.set_log_level("trace");
    if engine.kind() == silo_tests::Kind::Silo {
        engine.start_daemon();
    }
    engine.load_busybox();
    let secret = "SECRET=hunter2hunter2";
    let name = engine.name("secret");
    engine.ok(&["run", "-d", "--name", &name, "-e", secret, "busybox", "sleep", "1000"]);
    engine.ok(&["exec", "-e", "OTHER=hunter2hunter2", &name, "true"]);
    engine.ok(&["restart", "-t", "0", &name]);
    let create = r#"{"Image":"busybox","Env":["A=hunter2"],"Cmd":7}"#;
    // Older dockerds say 500.
    assert!([400, 500].contains(&engine.http("POST", "/containers/create", create).status));
    assert!(!engine.daemon_log().contains("hunter2"), "{}", engine.daemon_log());
    let env = engine.ok(&["run", "--rm", "busybox", "env"]);
    let mut names: Vec<&str> = env.lines().filter_map(|line| line.split('=').next()).collect();
    names.sort_unstable();
    assert_eq!(names, ["HOME", "HOSTNAME", "PATH"], "{env}");
    engine.ok(&["rm", "-f", &name]);
}

/// CVE-2025-64329: clients that attach and go away leave nothing in the daemon.
#[test]
fn attaching_leaves_nothing_behind() {
    let engine = Engine::start();
    if !engine.is_silo_or_skip("looks at Silo's own process and files") {
        return;
    }
    let name = engine.name("attached");
    engine.ok(&["run", "-dit", "--name", &name, "busybox", "cat"]);
    let attach = || {
        let mut stream = UnixStream::connect(engine.socket()).expect("connect");
        let target = format!("/containers/{name}/attach?stream=1&stdin=1&stdout=1&stderr=1");
        write!(
            stream,
            "POST {target} HTTP/1.1\r\nHost: e\r\nConnection: Upgrade\r\nUpgrade: tcp\r\n\
             Content-Length: 0\r\n\r\n"
        )
        .expect("send");
        let mut status = [0; 12];
        stream.read_exact(&mut status).expect("receive");
        assert_eq!(&status, b"HTTP/1.1 101");
    };
    let count = |part: &str| {
        fs_err::read_dir(format!("/proc/{}/{part}", engine.daemon_pid())).expect(part).count()
    };
    attach();
    let before = (count("fd"), count("task"));
    for _ in 0..500 {
        attach();
    }
    // The last ones may be on their way.
    engine.ok(&["exec", &name, "true"]);
    let after = (count("fd"), count("task"));
    assert!(
        after.0 < before.0 + 20 && after.1 < before.1 + 20,
        "{before:?} before, {after:?} after"
    );
    engine.ok(&["rm", "-f", &name]);
}

/// CVE-2022-0492: no file of the host's cgroups by which programs are run on the host.
#[test]
fn release_agents_cannot_be_set() {
    let engine = Engine::start();
    let script = "cd /sys/fs/cgroup
        for file in release_agent */release_agent notify_on_release */notify_on_release; do
            [ -e $file ] && echo /x > $file && echo wrote $file
        done
        mkdir /tmp/c; mount -t cgroup -o memory cgroup /tmp/c && echo mounted
        unshare -UrmC true && echo unshared
        echo end";
    for extra in [&[][..], &["--user", "1000"], &["--cgroupns", "private"]] {
        let arguments = [&["run", "--rm"], extra, &["busybox", "sh", "-c", script]].concat();
        assert_eq!(engine.docker(&arguments).stdout.trim(), "end", "{extra:?}");
    }
}
