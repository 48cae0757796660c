//! Real groups. Each test has a parent of its own, which goes away with it. Without the right
//! to make groups they only say so.

use std::os::fd::AsFd;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec};
use silo_oci::runtime::{LinuxCpu, LinuxDeviceCgroup, LinuxMemory, LinuxPids, LinuxResources};

use crate::controller::Controller;
use crate::hierarchy::Version;
use crate::{Cgroup, CgroupPath, Cgroups, Mode};

/// A group that is killed and removed in the end, with its parent.
struct Real {
    cgroups: Cgroups,
    group: Cgroup,
    parent: CgroupPath,
}

impl Real {
    fn new(name: &str) -> Option<Self> {
        Self::in_hierarchies(name, Cgroups::detect())
    }

    /// As if the hierarchy of version 2 were alone.
    fn unified_alone(name: &str) -> Option<Self> {
        let mountinfo = fs_err::read("/proc/self/mountinfo").unwrap();
        let own = fs_err::read_to_string("/proc/self/cgroup").unwrap();
        let mut found = crate::hierarchy::parse(&mountinfo, &own);
        found.retain(|found| found.version == Version::V2);
        Self::in_hierarchies(name, Cgroups::open_all(found))
    }

    fn in_hierarchies(name: &str, cgroups: Result<Cgroups, crate::Error>) -> Option<Self> {
        let parent = format!("silo-test-{}-{name}", std::process::id());
        let path = CgroupPath::new(&format!("/{parent}"), "c").unwrap();
        let made = cgroups.and_then(|cgroups| Ok((cgroups.create(&path)?, cgroups)));
        match made {
            Ok((group, cgroups)) => {
                let parent = CgroupPath::new("/", &parent).unwrap();
                Some(Self { cgroups, group, parent })
            }
            Err(error) => {
                eprintln!("skipped: {error}");
                None
            }
        }
    }

    /// Waits until the group has this many processes.
    fn until_processes(&self, count: usize) {
        let enough = || self.group.pids().map(|pids| pids.len() >= count);
        assert!(crate::wait::until(Duration::from_mins(1), enough).unwrap());
    }

    /// A shell in the group, which waits for its standard input to end and then runs a script.
    fn shell(&self, script: &str) -> Shell {
        let child = Command::new("/bin/sh")
            .args(["-c", &format!("read line; {script}")])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        self.group.add(i32::try_from(child.id()).unwrap()).unwrap();
        Shell(child)
    }
}

impl Drop for Real {
    fn drop(&mut self) {
        drop(self.group.kill_all());
        drop(self.group.remove());
        if let Ok(parent) = self.cgroups.open(&self.parent) {
            drop(parent.remove());
        }
    }
}

struct Shell(Child);

impl Shell {
    fn pid(&self) -> i32 {
        i32::try_from(self.0.id()).unwrap()
    }

    fn go(&mut self) {
        drop(self.0.stdin.take());
    }

    fn output(mut self) -> String {
        self.go();
        let mut text = String::new();
        std::io::Read::read_to_string(self.0.stdout.as_mut().unwrap(), &mut text).unwrap();
        self.0.wait().unwrap();
        text
    }
}

impl Drop for Shell {
    fn drop(&mut self) {
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

fn readable(fd: &impl AsFd, seconds: i64) -> bool {
    let limit = Timespec { tv_sec: seconds, tv_nsec: 0 };
    rustix::event::poll(&mut [PollFd::new(fd, PollFlags::IN)], Some(&limit)).unwrap() == 1
}

#[test]
fn a_process_enters_lives_and_is_killed() {
    let Some(real) = Real::new("life") else { return };
    let mut shell = real.shell("sleep 1000 & wait");
    assert_eq!(real.group.pids().unwrap(), [shell.pid()]);
    shell.go();
    real.until_processes(2);
    let stats = real.group.stats().unwrap();
    assert_eq!(stats.pids.current, 2);
    assert!(stats.memory.usage > 0);
    assert!(stats.memory.limit > 1 << 40);

    real.group.freeze().unwrap();
    assert!(real.group.is_frozen().unwrap());
    real.group.thaw().unwrap();
    assert!(!real.group.is_frozen().unwrap());

    let opened = real.cgroups.open(real.group.path()).unwrap();
    assert_eq!(opened.pids().unwrap().len(), 2);
    opened.kill_all().unwrap();
    assert!(!shell.0.wait().unwrap().success());
    opened.remove().unwrap();
    assert!(real.cgroups.open(real.group.path()).is_err());
}

#[test]
fn limits_are_in_force() {
    let Some(real) = Real::new("limits") else { return };
    let resources = LinuxResources {
        memory: Some(LinuxMemory { limit: Some(64 << 20), ..LinuxMemory::default() }),
        pids: Some(LinuxPids { limit: Some(7) }),
        cpu: Some(LinuxCpu {
            shares: Some(512),
            quota: Some(20_000),
            period: Some(50_000),
            cpus: "0".to_owned(),
            ..LinuxCpu::default()
        }),
        ..LinuxResources::default()
    };
    let shell = real.shell("grep Cpus_allowed_list /proc/self/status");
    real.group.apply(&resources).unwrap();
    let stats = real.group.stats().unwrap();
    assert_eq!(stats.memory.limit, 64 << 20);
    assert_eq!(stats.pids.limit, 7);
    let (at, directory) = real.group.find(Controller::Cpu).unwrap();
    if real.group.version(at) == Version::V1 {
        let quota = real.group.read_in(at, directory, "cpu.cfs_quota_us").unwrap();
        assert_eq!(quota.trim(), "20000");
    }
    // The processor set got its group late, and the process was moved there.
    assert_eq!(shell.output().split_whitespace().last(), Some("0"));

    // A shorter period than the present quota allows is set after the new quota.
    let cpu = LinuxCpu { quota: Some(1000), period: Some(1000), ..LinuxCpu::default() };
    real.group.apply(&LinuxResources { cpu: Some(cpu), ..LinuxResources::default() }).unwrap();
    let impossible = LinuxCpu { quota: Some(1), ..LinuxCpu::default() };
    let error = real
        .group
        .apply(&LinuxResources { cpu: Some(impossible), ..LinuxResources::default() })
        .unwrap_err()
        .to_string();
    assert!(error.contains("write \"1") && error.contains("/cpu."), "{error}");
}

#[test]
fn running_out_of_memory_is_told() {
    let Some(real) = Real::new("oom") else { return };
    let Some(mut events) = real.group.oom_events().unwrap() else { return };
    let limit = 8 << 20;
    let memory = LinuxMemory { limit: Some(limit), swap: Some(limit), ..LinuxMemory::default() };
    real.group
        .apply(&LinuxResources { memory: Some(memory), ..LinuxResources::default() })
        .unwrap();
    assert!(!readable(&events, 0));
    let shell = real.shell("exec tail /dev/zero");
    assert_eq!(shell.output(), "");
    assert!(readable(&events, 5));
    assert_eq!(events.take().unwrap(), 1);
    assert!(real.group.oom_kills().unwrap() >= 1);
    real.group.remove().unwrap();
    assert_eq!(events.take().unwrap(), 0);
}

fn device(allow: bool, kind: &str, numbers: Option<(i64, i64)>, access: &str) -> LinuxDeviceCgroup {
    LinuxDeviceCgroup {
        allow,
        kind: Some(kind.to_owned()),
        major: numbers.map(|numbers| numbers.0),
        minor: numbers.map(|numbers| numbers.1),
        access: Some(access.to_owned()),
    }
}

const OPEN: &str = "for d in null zero full; do \
    (: < /dev/$d) && printf r; (: > /dev/$d) && printf w; printf ' '; done";

#[test]
fn device_rules() {
    let Some(real) = Real::new("devices") else { return };
    let rules = [
        device(false, "a", None, "rwm"),
        device(true, "c", Some((1, 3)), "rwm"),
        device(true, "c", Some((1, 5)), "r"),
    ];
    real.group
        .apply(&LinuxResources { devices: rules.to_vec(), ..LinuxResources::default() })
        .unwrap();
    assert_eq!(real.shell(OPEN).output(), "rw r  ");
}

/// The same by BPF, in the hierarchy of version 2, which a hybrid machine has as well.
#[test]
fn device_program() {
    let Some(real) = Real::new("program") else { return };
    let Some(at) = real.group.unified() else { return };
    let Some(directory) = real.group.ensure_at(at).unwrap() else { return };
    let allow_some = [
        device(false, "a", None, "rwm"),
        device(true, "c", Some((1, 3)), "rwm"),
        device(true, "c", Some((1, 5)), "r"),
        device(true, "b", None, "m"),
    ];
    let deny_some = [device(false, "c", Some((1, 5)), "w"), device(false, "c", Some((1, 7)), "rw")];
    for (rules, opened) in [
        (&allow_some[..], "rw r  "),
        (&deny_some[..], "rw r  "),
        (&[device(false, "c", Some((1, 3)), "w")][..], "r rw rw "),
        (&[device(true, "a", None, "rwm")][..], "rw rw rw "),
    ] {
        real.group.device_program(at, directory, rules).unwrap();
        assert_eq!(real.shell(OPEN).output(), opened, "{rules:?}");
    }
}

#[test]
fn freezing_and_killing_by_version_2() {
    let Some(real) = Real::new("unified") else { return };
    let Some(at) = real.group.unified() else { return };
    let Some(directory) = real.group.ensure_at(at).unwrap() else { return };
    let mut shell = real.shell("while :; do :; done");
    shell.go();
    real.group.freeze_v2(at, directory).unwrap();
    let stat = |pid: i32| {
        let stat = fs_err::read_to_string(format!("/proc/{pid}/stat")).unwrap();
        stat.split_whitespace().nth(13).map(str::to_owned)
    };
    let before = stat(shell.pid());
    rustix::event::poll(&mut [], Some(&Timespec { tv_sec: 0, tv_nsec: 50_000_000 })).unwrap();
    assert_eq!(stat(shell.pid()), before);
    real.group.thaw_in(at, directory).unwrap();
    assert!(real.group.kill_v2(at, directory).unwrap());
    assert!(!shell.0.wait().unwrap().success());
    real.group.wait_empty(at, directory).unwrap();
}

#[test]
fn version_2_alone() {
    let Some(real) = Real::unified_alone("alone") else { return };
    assert_eq!(real.cgroups.mode(), Mode::Unified);
    assert!(real.group.fd_for_clone_into().is_some());
    assert!(real.group.entrance().unwrap().is_empty());
    let rules = [device(false, "a", None, ""), device(true, "c", Some((1, 3)), "rwm")];
    let devices = LinuxResources { devices: rules.to_vec(), ..LinuxResources::default() };
    real.group.apply(&devices).unwrap();
    // The second program takes the place of the first.
    real.group.apply(&devices).unwrap();
    let mut shell = real.shell("sleep 1000 & (: < /dev/zero) && echo open; wait");
    assert_eq!(real.group.pids().unwrap(), [shell.pid()]);
    real.group.freeze().unwrap();
    shell.go();
    assert!(real.group.is_frozen().unwrap());
    real.group.thaw().unwrap();
    real.until_processes(2);
    assert!(real.group.stats().unwrap().cpu.usage > 0);
    real.group.kill_all().unwrap();
    assert_eq!(shell.output(), "");
    // Waits for the process that nobody but init has waited for.
    real.group.remove().unwrap();
    assert!(real.cgroups.open(real.group.path()).is_err());
}

/// Entering by oneself must not cost what being moved costs.
#[test]
fn entering_is_cheap() {
    let Some(real) = Real::new("enter") else { return };
    if real.cgroups.mode() == Mode::Unified {
        return;
    }
    let mut best = Duration::MAX;
    for _ in 0..5 {
        let entrance = real.group.entrance().unwrap();
        assert!(!entrance.is_empty());
        // A thread may enter alone where the hierarchies are of version 1.
        let took = std::thread::spawn(move || {
            let start = std::time::Instant::now();
            entrance.enter().unwrap();
            start.elapsed()
        });
        best = best.min(took.join().unwrap());
    }
    // As busy as the host is for the one, it is for the other.
    let moved = || {
        let mut child = Command::new("sleep").arg("1000").spawn().unwrap();
        let start = std::time::Instant::now();
        let added = real.group.add(i32::try_from(child.id()).unwrap());
        let took = start.elapsed();
        child.kill().unwrap();
        child.wait().unwrap();
        added.unwrap();
        took
    };
    let moved = (0..5).map(|_| moved()).min().unwrap();
    eprintln!("entered in {best:?}, moved in {moved:?}");
    assert!(best < moved.max(Duration::from_millis(5)), "{best:?}, {moved:?}");
}

#[test]
fn making_and_removing_is_cheap() {
    let Some(real) = Real::new("make") else { return };
    let parent = format!("/{}", real.parent.to_string().trim_start_matches('/'));
    let mut best = Duration::MAX;
    for round in 0..10 {
        let path = CgroupPath::new(&parent, &format!("r{round}")).unwrap();
        let start = std::time::Instant::now();
        let group = real.cgroups.create(&path).unwrap();
        let made = start.elapsed();
        group.remove().unwrap();
        eprintln!("made in {made:?}, both {:?}", start.elapsed());
        best = best.min(start.elapsed());
    }
    // Not that of a wait, however busy the host is.
    assert!(best < Duration::from_millis(500), "{best:?}");
}
