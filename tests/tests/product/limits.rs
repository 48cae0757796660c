//! Limits that the kernel enforces.

use silo_tests::Engine;

#[test]
fn memory_is_limited_and_oom_is_told() {
    let engine = Engine::start();
    let name = engine.name("oom");
    let outcome = engine.docker(&[
        "run",
        "--name",
        &name,
        "-m",
        "16m",
        "--memory-swap",
        "16m",
        "busybox",
        "sh",
        "-c",
        "head -c 64m /dev/zero | tail >/dev/null; exit $?",
    ]);
    assert_ne!(outcome.code, 0);
    assert_eq!(engine.inspect(&name)["State"]["OOMKilled"], true);
    engine.ok(&["rm", &name]);
}

#[test]
fn processes_are_limited() {
    let engine = Engine::start();
    let outcome = engine.docker(&[
        "run",
        "--rm",
        "--pids-limit",
        "5",
        "busybox",
        "sh",
        "-c",
        // The shell ends with the first that it cannot make, and the container with it.
        "for i in 1 2 3 4 5 6 7 8; do sleep 60 & done; wait",
    ]);
    assert!(outcome.stderr.contains("can't fork"), "{outcome:?}");
}

#[test]
fn limits_are_written_where_the_kernel_reads_them() {
    let engine = Engine::start();
    let name = engine.name("limits");
    engine.ok(&[
        "run",
        "-d",
        "--name",
        &name,
        "-m",
        "64m",
        "--cpus",
        "0.5",
        "--cpu-shares",
        "512",
        "--pids-limit",
        "50",
        "--cpuset-cpus",
        "0",
        "busybox",
        "sleep",
        "100",
    ]);
    let cgroup = |controller: &str, file: &str| {
        engine
            .docker(&["exec", &name, "cat", &format!("/sys/fs/cgroup/{controller}/{file}")])
            .stdout
            .trim()
            .to_owned()
    };
    if fs_err::metadata("/sys/fs/cgroup/cgroup.controllers").is_ok() {
        assert_eq!(cgroup("", "memory.max"), (64 << 20).to_string());
        assert_eq!(cgroup("", "cpu.max"), "50000 100000");
        assert_eq!(cgroup("", "pids.max"), "50");
    } else {
        assert_eq!(cgroup("memory", "memory.limit_in_bytes"), (64 << 20).to_string());
        assert_eq!(cgroup("cpu", "cpu.cfs_quota_us"), "50000");
        assert_eq!(cgroup("cpu", "cpu.shares"), "512");
        assert_eq!(cgroup("pids", "pids.max"), "50");
        assert_eq!(cgroup("cpuset", "cpuset.cpus"), "0");
    }
    engine.ok(&["rm", "-f", &name]);
}
