//! `docker run`: what the program sees, and what comes back from it.

use silo_tests::Engine;

#[test]
fn output_and_exit_code_come_back() {
    let engine = Engine::start();
    let outcome =
        engine.docker(&["run", "--rm", "busybox", "sh", "-c", "echo out; echo err >&2; exit 7"]);
    assert_eq!((outcome.code, outcome.stdout.as_str()), (7, "out\n"));
    assert_eq!(outcome.stderr, "err\n");
    assert_eq!(engine.ok(&["run", "--rm", "busybox", "echo", "a b", "c"]), "a b c");
}

#[test]
fn programs_that_cannot_start_give_126_and_127() {
    let engine = Engine::start();
    let stderr = engine.fails(127, &["run", "--rm", "busybox", "no-such-program"]);
    assert!(
        stderr.contains(r#"exec: "no-such-program": executable file not found in $PATH"#),
        "{stderr}"
    );
    let stderr = engine.fails(127, &["run", "--rm", "busybox", "/no/such/program"]);
    assert!(stderr.contains("no such file or directory"), "{stderr}");
    let stderr = engine.fails(126, &["run", "--rm", "busybox", "/etc/passwd"]);
    assert!(stderr.contains("permission denied"), "{stderr}");
    let name = engine.name("failed");
    engine.fails(127, &["run", "--name", &name, "busybox", "no-such-program"]);
    let state = &engine.inspect(&name)["State"];
    assert_eq!(state["ExitCode"], 127);
    assert_eq!(state["Status"], "created");
    engine.ok(&["rm", &name]);
}

#[test]
fn environment_user_and_directory() {
    let engine = Engine::start();
    let env = engine.ok(&[
        "run",
        "--rm",
        "-e",
        "A=1",
        "-e",
        "EMPTY=",
        "--hostname",
        "box",
        "busybox",
        "env",
    ]);
    for line in ["A=1", "EMPTY=", "HOSTNAME=box", "HOME=/root"] {
        assert!(env.lines().any(|got| got == line), "{line} in {env}");
    }
    assert!(env.contains("PATH=/usr/local/sbin:"), "{env}");
    let id = engine.ok(&["run", "--rm", "-u", "user", "busybox", "id"]);
    assert_eq!(id, "uid=1000(user) gid=1000(user) groups=1000(user),2000(extra)");
    let id = engine.ok(&["run", "--rm", "-u", "5:6", "--group-add", "7", "busybox", "id"]);
    assert_eq!(id, "uid=5 gid=6 groups=6,7");
    let home = engine.ok(&["run", "--rm", "-u", "user", "busybox", "sh", "-c", "echo $HOME"]);
    assert_eq!(home, "/home");
    let pwd = engine.ok(&["run", "--rm", "-w", "/new/folder", "busybox", "pwd"]);
    assert_eq!(pwd, "/new/folder");
    let stderr = engine.fails(125, &["run", "--rm", "-u", "nobody-here", "busybox", "true"]);
    assert!(
        stderr.contains("unable to find user nobody-here: no matching entries in passwd file"),
        "{stderr}"
    );
}

#[test]
fn standard_input_reaches_the_program_to_its_end() {
    let engine = Engine::start();
    let input = vec![b'x'; 3_000_000];
    let outcome = engine.docker_with_input(&["run", "--rm", "-i", "busybox", "wc", "-c"], &input);
    assert_eq!(outcome.stdout.trim(), "3000000", "{}", outcome.stderr);
    let outcome = engine.docker_with_input(&["run", "--rm", "-i", "busybox", "cat"], &input);
    assert_eq!(outcome.stdout.len(), input.len());
}

#[test]
fn isolation_is_whole() {
    let engine = Engine::start();
    let pids =
        engine.ok(&["run", "--rm", "busybox", "sh", "-c", "echo $$; ls /proc | grep -c '^[0-9]'"]);
    assert!(pids.starts_with("1\n"), "{pids}");
    let mounts = engine.ok(&["run", "--rm", "busybox", "cat", "/proc/self/mountinfo"]);
    for target in [
        " /proc ",
        " /dev ",
        " /dev/pts ",
        " /dev/shm ",
        " /dev/mqueue ",
        " /sys ",
        " /etc/hosts ",
        " /etc/hostname ",
        " /etc/resolv.conf ",
        " /proc/keys ",
        " /proc/sys ",
    ] {
        assert!(mounts.contains(target), "{target} in {mounts}");
    }
    let devices = engine.ok(&["run", "--rm", "busybox", "ls", "/dev"]);
    let mut devices: Vec<&str> = devices.split_whitespace().collect();
    // A link to /proc/kcore, where the kernel has that.
    devices.retain(|name| *name != "core");
    devices.sort_unstable();
    assert_eq!(
        devices,
        [
            "fd", "full", "mqueue", "null", "ptmx", "pts", "random", "shm", "stderr", "stdin",
            "stdout", "tty", "urandom", "zero"
        ]
    );
    let status = engine.ok(&["run", "--rm", "busybox", "cat", "/proc/self/status"]);
    let field = |name: &str| {
        status.lines().find_map(|line| line.strip_prefix(name)).map(str::trim).unwrap_or_default()
    };
    assert_eq!(field("CapEff:"), "00000000a80425fb");
    assert_eq!(field("CapPrm:"), "00000000a80425fb");
    assert_eq!(field("CapBnd:"), "00000000a80425fb");
    assert_eq!(field("CapInh:"), "0000000000000000");
    assert_eq!(field("Seccomp:"), "2");
    let fds = engine.ok(&["run", "--rm", "busybox", "ls", "/proc/self/fd"]);
    // ls itself opens the directory.
    assert_eq!(fds.split_whitespace().collect::<Vec<_>>(), ["0", "1", "2", "3"]);
}

#[test]
fn capabilities_and_privileges_are_as_asked() {
    let engine = Engine::start();
    let caps = |arguments: &[&str]| {
        let mut command = vec!["run", "--rm"];
        command.extend(arguments);
        command.extend(["busybox", "sh", "-c", "grep CapEff /proc/self/status | cut -f2"]);
        u64::from_str_radix(&engine.ok(&command), 16).expect("hex")
    };
    assert_eq!(caps(&["--cap-drop", "ALL"]), 0);
    assert_eq!(caps(&["--cap-drop", "ALL", "--cap-add", "NET_RAW"]), 1 << 13);
    assert_eq!(caps(&["--cap-add", "SYS_TIME"]), 0xa804_25fb | 1 << 25);
    assert_eq!(caps(&["-u", "1000"]), 0);
    let nnp = engine.ok(&[
        "run",
        "--rm",
        "--security-opt",
        "no-new-privileges",
        "busybox",
        "grep",
        "NoNewPrivs",
        "/proc/self/status",
    ]);
    assert_eq!(nnp, "NoNewPrivs:\t1");
    let seccomp = engine.ok(&[
        "run",
        "--rm",
        "--security-opt",
        "seccomp=unconfined",
        "busybox",
        "grep",
        "^Seccomp:",
        "/proc/self/status",
    ]);
    assert_eq!(seccomp, "Seccomp:\t0");
    let mount = engine.docker(&["run", "--rm", "busybox", "mount", "-t", "tmpfs", "x", "/tmp"]);
    assert_ne!(mount.code, 0);
    // Docker refuses to run privileged containers where it lacks a capability itself.
    if silo_tests::host_has_every_capability()
        || engine
            .is_silo_or_skip("in part: privileged containers on a host without every capability")
    {
        assert!(caps(&["--privileged"]).count_ones() >= 38);
        engine.ok(&["run", "--rm", "--privileged", "busybox", "mount", "-t", "tmpfs", "x", "/tmp"]);
    }
}

#[test]
fn read_only_root_tmpfs_and_shm() {
    let engine = Engine::start();
    let outcome = engine.docker(&["run", "--rm", "--read-only", "busybox", "touch", "/x"]);
    assert!(outcome.stderr.contains("Read-only file system"), "{}", outcome.stderr);
    engine.ok(&[
        "run",
        "--rm",
        "--read-only",
        "--tmpfs",
        "/scratch:size=1m,mode=1777",
        "busybox",
        "touch",
        "/scratch/x",
    ]);
    let shm = engine.ok(&["run", "--rm", "--shm-size", "8m", "busybox", "df", "-k", "/dev/shm"]);
    assert!(shm.contains(" 8192 "), "{shm}");
    let modes = ["--tmpfs", "/new", "--tmpfs", "/root"];
    let mut run = vec!["run", "--rm"];
    run.extend(modes);
    run.extend(["busybox", "stat", "-c", "%a", "/new", "/root"]);
    let found = engine.ok(&run);
    let mut found = found.lines();
    assert_eq!(found.next(), Some("1777"));
    // A tmpfs takes over the mode of what it covers.
    let root = engine.ok(&["run", "--rm", "busybox", "stat", "-c", "%a", "/root"]);
    assert_eq!(found.next(), Some(root.as_str()));
}

#[test]
fn shared_memory_of_another_container() {
    let engine = Engine::start();
    let name = engine.name("donor");
    let sleep = ["busybox", "sleep", "100"];
    let mut run = vec!["run", "-d", "--name", &name, "--ipc", "shareable", "--shm-size", "1m"];
    run.extend(sleep);
    engine.ok(&run);
    let join = format!("container:{name}");
    let script = "echo hi >/dev/shm/x; dd if=/dev/zero of=/dev/shm/big bs=1k count=2000; \
                  rm /dev/shm/big; readlink /proc/self/ns/ipc";
    let joined = engine.docker(&["run", "--rm", "--ipc", &join, "busybox", "sh", "-c", script]);
    assert!(joined.stderr.contains("No space left on device"), "{joined:?}");
    let own = engine.ok(&["exec", &name, "readlink", "/proc/self/ns/ipc"]);
    assert_eq!(joined.stdout.trim(), own);
    assert_eq!(engine.ok(&["exec", &name, "ls", "/dev/shm"]), "x");
    engine.ok(&["rm", "-f", &name]);
    let mut private = vec!["run", "-d", "--name", &name];
    private.extend(sleep);
    engine.ok(&private);
    let refused = engine.docker(&["run", "--rm", "--ipc", &join, "busybox", "true"]);
    assert!(refused.stderr.contains("non-shareable IPC"), "{refused:?}");
    engine.ok(&["rm", "-f", &name]);
}

#[test]
fn names_ids_and_files() {
    let engine = Engine::start();
    let name = engine.name("named");
    let cid_file = engine.scratch().join("cid");
    let id = engine.ok(&[
        "run",
        "-d",
        "--name",
        &name,
        "--cidfile",
        cid_file.to_str().expect("UTF-8"),
        "busybox",
        "sleep",
        "60",
    ]);
    assert_eq!(fs_err::read_to_string(&cid_file).expect("the file"), id);
    let hostname = engine.ok(&["exec", &name, "hostname"]);
    assert_eq!(hostname, id[..12]);
    let stderr = engine.fails(125, &["run", "--name", &name, "busybox", "true"]);
    assert!(
        stderr.contains(&format!(
            "Conflict. The container name \"/{name}\" is already in use by container \"{id}\". \
             You have to remove (or rename) that container to be able to reuse that name."
        )),
        "{stderr}"
    );
    engine.ok(&["rm", "-f", &name]);
    let first = engine.ok(&["create", "busybox"]);
    let generated = engine.inspect(&first)["Name"].as_str().expect("a name").to_owned();
    assert!(generated.trim_start_matches('/').split('_').count() == 2, "{generated}");
    engine.ok(&["rm", &first]);
}

#[test]
fn init_reaps_and_forwards() {
    let engine = Engine::start();
    let first = engine.ok(&["run", "--rm", "--init", "busybox", "cat", "/proc/1/cmdline"]);
    assert!(first.starts_with("/sbin/docker-init"), "{first}");
    let name = engine.name("init");
    engine.ok(&[
        "run",
        "-d",
        "--init",
        "--name",
        &name,
        "busybox",
        "sh",
        "-c",
        "trap 'exit 9' TERM; echo ready; while :; do sleep 0.05; done",
    ]);
    while !engine.ok(&["logs", &name]).contains("ready") {}
    engine.ok(&["stop", &name]);
    assert_eq!(engine.inspect(&name)["State"]["ExitCode"], 9);
    engine.ok(&["rm", &name]);
}

#[test]
fn sysctls_ulimits_and_devices() {
    let engine = Engine::start();
    let value = engine.ok(&[
        "run",
        "--rm",
        "--sysctl",
        "net.ipv4.ip_unprivileged_port_start=99",
        "busybox",
        "cat",
        "/proc/sys/net/ipv4/ip_unprivileged_port_start",
    ]);
    assert_eq!(value, "99");
    let limit = engine.ok(&[
        "run",
        "--rm",
        "--ulimit",
        "nofile=77:88",
        "busybox",
        "sh",
        "-c",
        "ulimit -n; ulimit -Hn",
    ]);
    assert_eq!(limit, "77\n88");
    engine.ok(&[
        "run",
        "--rm",
        "--device",
        "/dev/null:/dev/other",
        "busybox",
        "test",
        "-c",
        "/dev/other",
    ]);
    let stderr =
        engine.fails(125, &["run", "--rm", "--sysctl", "kernel.core_pattern=|/x", "busybox"]);
    assert!(stderr.contains("sysctl"), "{stderr}");
}
