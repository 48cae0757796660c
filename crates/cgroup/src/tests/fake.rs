//! A layout of plain files: what is written where, without a kernel behind.

use std::path::{Path, PathBuf};

use silo_oci::runtime::{
    LinuxBlockIo, LinuxCpu, LinuxHugepageLimit, LinuxMemory, LinuxPids, LinuxResources,
};

use crate::controller::{Controller, Controllers};
use crate::hierarchy::{Found, Version};
use crate::{Cgroup, CgroupPath, Cgroups, Error, Mode};

struct Fake {
    root: tempfile::TempDir,
    cgroups: Cgroups,
}

impl Fake {
    fn v1(sets: &[&[Controller]]) -> Self {
        let root = tempfile::tempdir().unwrap();
        let found = sets
            .iter()
            .enumerate()
            .map(|(at, set)| {
                let mount = root.path().join(format!("h{at}"));
                fs_err::create_dir(&mount).unwrap();
                let controllers = Controllers::of(set);
                Found { version: Version::V1, controllers, mount, own: "own".to_owned() }
            })
            .collect();
        Self { cgroups: Cgroups::open_all(found).unwrap(), root }
    }

    fn v2(controllers: &str) -> Self {
        let root = tempfile::tempdir().unwrap();
        let mount = root.path().to_owned();
        fs_err::write(mount.join("cgroup.controllers"), controllers).unwrap();
        fs_err::write(mount.join("cgroup.subtree_control"), "").unwrap();
        let found = Found {
            version: Version::V2,
            controllers: Controllers::default(),
            mount,
            own: String::new(),
        };
        Self { cgroups: Cgroups::open_all(vec![found]).unwrap(), root }
    }

    fn group(&self) -> Cgroup {
        self.cgroups.create(&CgroupPath::new("/p", "c").unwrap()).unwrap()
    }

    fn path(&self, below: &str) -> PathBuf {
        self.root.path().join(below)
    }

    /// Makes the files of a group that the kernel would have made.
    fn files(&self, group: &str, files: &[(&str, &str)]) {
        for (name, text) in files {
            fs_err::write(self.path(group).join(name), text).unwrap();
        }
    }

    fn read(&self, below: &str) -> String {
        fs_err::read_to_string(self.path(below)).unwrap()
    }
}

#[test]
fn groups_are_made_where_they_are_needed() {
    use Controller as C;
    let fake = Fake::v1(&[&[C::Cpu, C::Cpuacct], &[C::Cpuset], &[C::Memory], &[C::Hugetlb]]);
    assert_eq!(fake.cgroups.mode(), Mode::Legacy);
    let group = fake.group();
    let made: Vec<bool> = (0..4).map(|at| fake.path(&format!("h{at}/p/c")).is_dir()).collect();
    assert_eq!(made, [true, false, true, false]);
    assert!(group.fd_for_clone_into().is_none());
    fake.files("h2/p/c", &[("tasks", "")]);
    fake.files("h0/p/c", &[("tasks", "")]);
    group.entrance().unwrap().enter().unwrap();
    assert_eq!(fake.read("h0/p/c/tasks"), "0");
    assert_eq!(fake.read("h2/p/c/tasks"), "0");

    let again = fake.cgroups.open(&CgroupPath::new("/p", "c").unwrap()).unwrap();
    assert_eq!(again.present().count(), 2);
    let other = CgroupPath::new("/p", "other").unwrap();
    assert!(matches!(fake.cgroups.open(&other), Err(Error::NotFound(_))));
}

#[test]
fn relative_groups_are_below_the_own_one() {
    let fake = Fake::v1(&[&[Controller::Memory]]);
    fake.cgroups.create(&CgroupPath::new("p", "c").unwrap()).unwrap();
    assert!(fake.path("h0/own/p/c").is_dir());
}

#[test]
fn processor_sets_are_inherited() {
    let fake = Fake::v1(&[&[Controller::Memory], &[Controller::Cpuset]]);
    fake.files("h0", &[]);
    fs_err::create_dir_all(fake.path("h1/p/c")).unwrap();
    fake.files("h1", &[("cpuset.cpus", "0-3\n"), ("cpuset.mems", "0\n")]);
    fake.files("h1/p", &[("cpuset.cpus", "\n"), ("cpuset.mems", "\n")]);
    fake.files("h1/p/c", &[("cpuset.cpus", "\n"), ("cpuset.mems", "\n")]);
    let group = fake.group();
    fake.files("h0/p/c", &[("cgroup.procs", "")]);
    let limits = LinuxCpu { cpus: "1-2".to_owned(), ..LinuxCpu::default() };
    group.apply(&LinuxResources { cpu: Some(limits), ..LinuxResources::default() }).unwrap();
    assert_eq!(fake.read("h1/p/cpuset.cpus"), "0-3");
    assert_eq!(fake.read("h1/p/c/cpuset.cpus"), "1-2");
    assert_eq!(fake.read("h1/p/c/cpuset.mems"), "0");
}

#[test]
fn memory_and_swap_in_the_order_that_the_kernel_allows() {
    let fake = Fake::v1(&[&[Controller::Memory]]);
    let group = fake.group();
    let limit = "memory.limit_in_bytes";
    let total = "memory.memsw.limit_in_bytes";
    let apply =
        |memory| group.apply(&LinuxResources { memory: Some(memory), ..LinuxResources::default() });
    let both = |limit, swap| LinuxMemory {
        limit: Some(limit),
        swap: Some(swap),
        ..LinuxMemory::default()
    };
    // The one that is a directory cannot be written: the other shows whether it was first.
    for (present, swap, first) in [("100", 200, total), ("900", 200, limit), ("100", -1, total)] {
        fake.files("h0/p/c", &[(limit, "100"), (total, present)]);
        apply(both(150, swap)).unwrap();
        assert_eq!(fake.read(&format!("h0/p/c/{limit}")), "150");
        assert_eq!(fake.read(&format!("h0/p/c/{total}")), swap.to_string());
        let second = if first == limit { total } else { limit };
        fake.files("h0/p/c", &[(limit, "100"), (total, present)]);
        let second_path = fake.path(&format!("h0/p/c/{second}"));
        if second == limit {
            fs_err::remove_file(&second_path).unwrap();
            assert!(apply(both(150, swap)).is_err());
            assert_ne!(fake.read(&format!("h0/p/c/{first}")), present);
        }
    }
    assert!(matches!(apply(both(100, 50)), Err(Error::Invalid { .. })));
    let error = {
        fs_err::remove_file(fake.path("h0/p/c").join(total)).unwrap();
        apply(both(100, 150)).unwrap_err().to_string()
    };
    assert!(error.contains("/h0/p/c/memory.memsw.limit_in_bytes"), "{error}");
}

#[test]
fn a_missing_controller_is_named() {
    let fake = Fake::v1(&[&[Controller::Memory]]);
    let group = fake.group();
    let pids = LinuxPids { limit: Some(5) };
    let error =
        group.apply(&LinuxResources { pids: Some(pids), ..LinuxResources::default() }).unwrap_err();
    assert_eq!(
        error.to_string(),
        "cannot set pids limit: the pids cgroup controller is not available"
    );
}

#[test]
fn version_2_gets_its_controllers_and_limits() {
    let fake = Fake::v2("cpuset cpu io memory pids hugetlb misc\n");
    assert_eq!(fake.cgroups.mode(), Mode::Unified);
    assert!(fake.cgroups.controllers().contains(Controller::Freezer));
    let group = fake.group();
    assert!(group.fd_for_clone_into().is_some());
    assert!(group.entrance().unwrap().is_empty());
    assert_eq!(fake.read("cgroup.subtree_control"), "+cpu +cpuset +memory +io +pids +hugetlb");
    fake.files(
        "p/c",
        &[
            ("cpu.weight", ""),
            ("cpu.max", ""),
            ("memory.max", "max"),
            ("memory.low", ""),
            ("memory.swap.max", ""),
            ("pids.max", ""),
            ("io.weight", ""),
            ("hugetlb.2MB.max", ""),
            ("memory.high", ""),
            ("cgroup.procs", ""),
        ],
    );
    let resources = LinuxResources {
        cpu: Some(LinuxCpu { shares: Some(512), quota: Some(1000), ..LinuxCpu::default() }),
        memory: Some(LinuxMemory {
            limit: Some(1000),
            swap: Some(1500),
            reservation: Some(500),
            ..LinuxMemory::default()
        }),
        pids: Some(LinuxPids { limit: Some(-1) }),
        block_io: Some(LinuxBlockIo { weight: Some(500), ..LinuxBlockIo::default() }),
        hugepage_limits: vec![LinuxHugepageLimit { page_size: "2MB".into(), limit: 7 }],
        unified: [("memory.high".to_owned(), "800".to_owned())].into(),
        ..LinuxResources::default()
    };
    group.apply(&resources).unwrap();
    for (file, value) in [
        ("cpu.weight", "59"),
        ("cpu.max", "1000 100000"),
        ("memory.max", "1000"),
        ("memory.swap.max", "500"),
        ("memory.low", "500"),
        ("pids.max", "max"),
        ("io.weight", "default 4950"),
        ("hugetlb.2MB.max", "7"),
        ("memory.high", "800"),
    ] {
        assert_eq!(fake.read(&format!("p/c/{file}")), value, "{file}");
    }
}

#[test]
fn version_2_refuses_what_it_cannot_mean() {
    let fake = Fake::v2("memory pids\n");
    let group = fake.group();
    fake.files("p/c", &[("memory.max", "max"), ("memory.current", "900"), ("cgroup.procs", "")]);
    let memory =
        |memory| group.apply(&LinuxResources { memory: Some(memory), ..LinuxResources::default() });
    for limits in [
        LinuxMemory { swap: Some(100), ..LinuxMemory::default() },
        LinuxMemory { disable_oom_killer: Some(true), ..LinuxMemory::default() },
        LinuxMemory { limit: Some(5), check_before_update: Some(true), ..LinuxMemory::default() },
    ] {
        assert!(matches!(memory(limits), Err(Error::Invalid { .. })));
    }
    for name in ["cgroup.procs", "../x", ""] {
        let unified = [(name.to_owned(), "1".to_owned())].into();
        let resources = LinuxResources { unified, ..LinuxResources::default() };
        assert!(matches!(group.apply(&resources), Err(Error::Invalid { .. })), "{name}");
    }
    for size in ["2MB/../x", "MB", "2 MB", ""] {
        let limit = LinuxHugepageLimit { page_size: size.into(), limit: 1 };
        let resources =
            LinuxResources { hugepage_limits: vec![limit], ..LinuxResources::default() };
        assert!(matches!(group.apply(&resources), Err(Error::Invalid { .. })), "{size}");
    }
}

#[test]
fn statistics_of_version_2() {
    let fake = Fake::v2("cpu io memory pids hugetlb\n");
    let group = fake.group();
    fake.files(
        "p/c",
        &[
            ("cpu.stat", "usage_usec 30\nuser_usec 20\nsystem_usec 10\nnr_throttled 2\n"),
            ("memory.stat", "anon 5\nfile 6\ninactive_file 4\n"),
            ("memory.current", "11\n"),
            ("memory.max", "max\n"),
            ("memory.events", "low 0\noom 1\noom_kill 3\n"),
            ("pids.current", "2\n"),
            ("pids.max", "max\n"),
            ("io.stat", "8:0 rbytes=1 wbytes=2 rios=3 wios=4\n"),
            ("hugetlb.2MB.current", "4\n"),
            ("hugetlb.2MB.rsvd.current", "9\n"),
            ("hugetlb.2MB.events", "max 5\n"),
        ],
    );
    let stats = group.stats().unwrap();
    assert_eq!((stats.cpu.usage, stats.cpu.user, stats.cpu.throttled_periods), (30_000, 20_000, 2));
    assert_eq!((stats.memory.usage, stats.memory.limit, stats.memory.oom_kills), (11, u64::MAX, 3));
    assert_eq!((stats.memory.inactive_file, stats.memory.details.len()), (4, 3));
    assert_eq!((stats.pids.current, stats.pids.limit), (2, 0));
    assert_eq!(stats.blkio.service_bytes.len(), 2);
    assert_eq!(stats.hugetlb.len(), 1);
    assert_eq!(stats.hugetlb["2MB"].failures, 5);
}

#[test]
fn processes_of_groups_below_are_counted() {
    let fake = Fake::v1(&[&[Controller::Pids]]);
    let group = fake.group();
    fs_err::create_dir_all(fake.path("h0/p/c/a/b")).unwrap();
    fake.files("h0/p/c", &[("cgroup.procs", "5\n3\n")]);
    fake.files("h0/p/c/a", &[("cgroup.procs", "0\n7\n")]);
    fake.files("h0/p/c/a/b", &[("cgroup.procs", "3\n")]);
    assert_eq!(group.pids().unwrap(), [3, 5, 7]);
}

#[test]
fn groups_below_are_removed_first() {
    let fake = Fake::v1(&[&[Controller::Pids]]);
    let group = fake.group();
    fs_err::create_dir_all(fake.path("h0/p/c/a/b")).unwrap();
    group.remove().unwrap();
    assert!(!Path::exists(&fake.path("h0/p/c")));
    assert!(fake.path("h0/p").is_dir());
    group.remove().unwrap();
}

#[test]
fn a_group_that_was_left_behind_is_made_anew() {
    let fake = Fake::v1(&[&[Controller::Pids]]);
    fs_err::create_dir_all(fake.path("h0/p/c")).unwrap();
    fake.group();
    fs_err::create_dir(fake.path("h0/p/c/child")).unwrap();
    let path = CgroupPath::new("/p", "c").unwrap();
    assert!(matches!(fake.cgroups.create(&path), Err(Error::InUse(_))));
}
