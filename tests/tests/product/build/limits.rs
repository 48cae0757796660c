//! What a build may use, and what its steps are given beside its files.

use silo_tests::{Engine, Kind, Outcome, Registry};

use super::{build, built, context};

/// Options of `docker build` and `silo build`.
const OPTIONS: [&str; 23] = [
    "--no-cache",
    "--add-host",
    "example.test:10.1.2.3",
    "--add-host",
    "host.test:host-gateway",
    "--shm-size",
    "32m",
    "--ulimit",
    "nofile=123:456",
    "--network",
    "none",
    "--memory",
    "64m",
    "--memory-swap",
    "96m",
    "--cpu-shares",
    "512",
    "--cpu-period",
    "50000",
    "--cpu-quota",
    "25000",
    "--cpuset-cpus=0",
    "--cpuset-mems=0",
];

/// What a step finds of them. Addresses of `host-gateway` are those of the engine's bridge.
const STEPS: &str = "FROM busybox\n\
    RUN grep -q '^10.1.2.3.*example.test' /etc/hosts\n\
    RUN grep -qE '^[0-9]+[.][0-9.]+.host.test' /etc/hosts\n\
    RUN df -k /dev/shm | grep -q ' 32768 '\n\
    RUN test $(ulimit -Sn) = 123 && test $(ulimit -Hn) = 456\n\
    RUN test \"$(ls /sys/class/net | grep -v ifb)\" = lo\n";

/// The same of control groups.
const GROUPS_1: &str = "RUN cd /sys/fs/cgroup && test $(cat memory/memory.limit_in_bytes) = 67108864\n\
    RUN cd /sys/fs/cgroup && { test ! -e memory/memory.memsw.limit_in_bytes || \
    test $(cat memory/memory.memsw.limit_in_bytes) = 100663296; }\n\
    RUN cd /sys/fs/cgroup && test $(cat cpu/cpu.shares) = 512\n\
    RUN cd /sys/fs/cgroup && test $(cat cpu/cpu.cfs_quota_us) = 25000\n\
    RUN cd /sys/fs/cgroup && test $(cat cpu/cpu.cfs_period_us) = 50000\n\
    RUN cd /sys/fs/cgroup && test $(cat cpuset/cpuset.cpus) = 0\n\
    RUN cd /sys/fs/cgroup && test $(cat cpuset/cpuset.mems) = 0\n";
const GROUPS_2: &str = "RUN cd /sys/fs/cgroup && test $(cat memory.max) = 67108864\n\
    RUN cd /sys/fs/cgroup && test \"$(cat cpu.max)\" = '25000 50000'\n\
    RUN cd /sys/fs/cgroup && test $(cat cpuset.cpus) = 0\n\
    RUN cd /sys/fs/cgroup && test $(cat cpuset.mems) = 0\n";

fn is_version_2() -> bool {
    fs_err::metadata("/sys/fs/cgroup/cgroup.controllers").is_ok()
}

/// Builds with `silo build`.
fn silo_build(engine: &Engine, context: &std::path::Path, arguments: &[&str]) -> Outcome {
    engine.silo_command().arg("build").args(arguments).arg(context).output().expect("silo").into()
}

#[test]
fn options_reach_the_steps() {
    let engine = Engine::start();
    let groups = if is_version_2() { GROUPS_2 } else { GROUPS_1 };
    let dockerfile = format!("{STEPS}{groups}");
    let context = context(&engine, &[("Dockerfile", &dockerfile)]);
    built(&engine, &context, &OPTIONS);
    if engine.kind() == Kind::Silo {
        let outcome = silo_build(&engine, &context, &OPTIONS);
        assert_eq!(outcome.code, 0, "{}\n{}", outcome.stderr, engine.daemon_log());
    }
}

#[test]
fn the_parent_of_control_groups_is_chosen() {
    let engine = Engine::start();
    if is_version_2() {
        let thread = std::thread::current();
        let reason = "steps do not see their group's path with control groups of version 2";
        silo_tests::skip(thread.name().unwrap_or("a test"), reason);
        return;
    }
    let parent = format!("/{}/of-builds", engine.cgroup_parent());
    let dockerfile = format!("FROM busybox\nRUN grep -q ':memory:{parent}/' /proc/self/cgroup\n");
    let context = context(&engine, &[("Dockerfile", &dockerfile)]);
    let arguments = ["--no-cache", "--cgroup-parent", &parent];
    built(&engine, &context, &arguments);
    if engine.kind() == Kind::Silo {
        let outcome = silo_build(&engine, &context, &arguments);
        assert_eq!(outcome.code, 0, "{}\n{}", outcome.stderr, engine.daemon_log());
    }
}

#[test]
fn steps_that_want_too_much_memory_are_stopped() {
    let engine = Engine::start();
    let dockerfile = "FROM busybox\nRUN head -c 200m /dev/zero | tail > /dev/null\n";
    let context = context(&engine, &[("Dockerfile", dockerfile)]);
    let arguments = ["--no-cache", "-m", "16m", "--memory-swap", "16m"];
    let outcome = build(&engine, &context, &arguments);
    assert_eq!(outcome.code, 137, "{outcome:?}");
    assert!(outcome.stderr.contains("returned a non-zero code: 137"), "{}", outcome.stderr);
    if engine.kind() == Kind::Silo {
        let outcome = silo_build(&engine, &context, &arguments);
        assert_eq!(outcome.code, 1, "{}", outcome.stderr);
        assert!(outcome.stderr.contains("exit code: 137"), "{}", outcome.stderr);
    }
}

#[test]
fn squashing_is_an_experiment() {
    let engine = Engine::start();
    let response = engine.http("POST", "/build?squash=1", "");
    let words = "squash is only supported with experimental mode";
    assert_eq!((response.status, response.message().as_str()), (400, words));
}

/// The base of an image is pulled with the password that the client has.
#[test]
fn a_private_base_is_pulled() {
    let engine = Engine::start();
    let Some(registry) = Registry::start_with_password_or_skip() else { return };
    let (base, tag) = (registry.name("private/base:1"), engine.name("upon"));
    engine.ok(&["tag", "busybox", &base]);
    engine.ok(&["login", "-u", "me", "-p", "secret", registry.address()]);
    engine.ok(&["push", &base]);
    engine.ok(&["rmi", &base]);
    engine.ok(&["logout", registry.address()]);
    let context = context(&engine, &[("Dockerfile", &format!("FROM {base}\nRUN echo in > /f\n"))]);
    let refused = build(&engine, &context, &["-t", &tag]);
    assert_eq!(refused.code, 1);
    assert!(refused.stderr.contains("no basic auth credentials"), "{}", refused.stderr);
    engine.ok(&["login", "-u", "me", "-p", "secret", registry.address()]);
    built(&engine, &context, &["-t", &tag]);
    assert_eq!(engine.ok(&["run", "--rm", &tag, "cat", "/f"]), "in");
    if engine.kind() == Kind::Silo {
        engine.ok(&["rmi", "-f", &tag, &base]);
        let outcome = silo_build(&engine, &context, &["--no-cache", "-t", &tag]);
        assert_eq!(outcome.code, 0, "{}", outcome.stderr);
    }
    engine.docker(&["rmi", "-f", &tag, &base]);
}
