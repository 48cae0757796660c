//! Debian's dockerd for one test: the one that is installed, or that of the newest suite, whose
//! images are in containerd's store and whose builder is a BuildKit of today.

use std::ffi::OsStr;
use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use rustix::event::{PollFd, PollFlags};
use tempfile::TempDir;

use crate::engine::{Outcome, alone, end_group, silo_binary};

/// A dockerd of the test's own, without networks. Dropping it ends it, with its containers and
/// what they have mounted.
#[derive(Debug)]
pub struct Dockerd {
    child: Child,
    directory: TempDir,
    cgroup: String,
}

impl Dockerd {
    /// Starts one. `None`, with the running test counted as skipped, where it is not installed.
    pub fn start_or_skip() -> Option<Self> {
        let program = Path::new("/usr/sbin/dockerd");
        if !program.exists() {
            let thread = std::thread::current();
            crate::skip(thread.name().unwrap_or("a test"), "dockerd is not installed");
            return None;
        }
        Some(Self::start(program, "{}"))
    }

    /// Starts the one of Debian's newest suite that `cargo xtask test` unpacks, or that
    /// `SILO_TEST_NEWEST_DOCKERD` names, with containerd's store and with buildx. Steps of its
    /// builds have no network but `none` and `host`. `None`, with the running test counted as
    /// skipped, where there is none.
    pub fn start_newest_or_skip() -> Option<Self> {
        let unpacked = crate::engine::newest_docker();
        let program = std::env::var_os("SILO_TEST_NEWEST_DOCKERD")
            .map_or_else(|| unpacked.join("usr/sbin/dockerd"), PathBuf::from);
        let buildx = unpacked.join("usr/libexec/docker/cli-plugins/docker-buildx");
        let needed = [&program, &buildx, Path::new("/usr/bin/containerd")];
        if let Some(missing) = needed.iter().find(|file| !file.exists()) {
            let thread = std::thread::current();
            let reason = format!("{} is not here", missing.display());
            crate::skip(thread.name().unwrap_or("a test"), &reason);
            return None;
        }
        let dockerd = Self::start(&program, r#"{"features":{"containerd-snapshotter":true}}"#);
        let plugins = dockerd.directory.path().join("config/cli-plugins");
        fs_err::create_dir_all(&plugins).expect("a folder for plugins");
        std::os::unix::fs::symlink(buildx, plugins.join("docker-buildx")).expect("a link");
        Some(dockerd)
    }

    fn start(program: &Path, configuration: &str) -> Self {
        let directory = tempfile::Builder::new()
            .prefix("silo-test-dockerd-")
            .tempdir()
            .expect("a directory for the test");
        let path = |name: &str| directory.path().join(name);
        fs_err::write(path("daemon.json"), configuration).expect("a configuration");
        let cgroup = format!("silo-test-dockerd-{}", std::process::id());
        // It ends with the test, however that ends.
        let mut child = alone(Command::new("setpriv"))
            .args(["--pdeathsig", "TERM"])
            .arg(program)
            .arg("--data-root")
            .arg(path("data"))
            .arg("--exec-root")
            .arg(path("exec"))
            .arg("--pidfile")
            .arg(path("pid"))
            .arg("--config-file")
            .arg(path("daemon.json"))
            .arg("--host")
            .arg(format!("unix://{}", path("docker.sock").display()))
            .args(["--bridge=none", "--iptables=false", "--ip6tables=false"])
            .args(["--exec-opt", "native.cgroupdriver=cgroupfs"])
            .arg(format!("--cgroup-parent=/{cgroup}"))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .expect("start dockerd");
        let mut log = BufReader::new(child.stderr.take().expect("its log"));
        let mut seen = String::new();
        while !seen.contains("API listen on") {
            let count = log.read_line(&mut seen).expect("read dockerd's log");
            assert!(count > 0, "dockerd did not start:\n{seen}");
        }
        // Nobody reads on, and a full pipe would stop it.
        let mut rest = fs_err::File::create(path("log")).expect("a log").into_parts().0;
        std::thread::spawn(move || std::io::copy(&mut log, &mut rest));
        Self { child, directory, cgroup }
    }

    /// A `docker` command that speaks to it.
    pub fn command(&self) -> Command {
        let program = std::env::var_os("SILO_TEST_DOCKER_CLI").unwrap_or_else(|| "docker".into());
        self.command_of(Path::new(&program))
    }

    /// A `silo` command that speaks to it.
    pub fn silo_command(&self) -> Command {
        self.command_of(&silo_binary())
    }

    fn command_of(&self, program: &Path) -> Command {
        let mut command = alone(Command::new(program));
        let socket = self.directory.path().join("docker.sock");
        command
            .env("DOCKER_HOST", format!("unix://{}", socket.display()))
            .env("DOCKER_CONFIG", self.directory.path().join("config"))
            .stdin(Stdio::null());
        command
    }

    /// Runs `docker` and returns whatever comes of it.
    pub fn docker<S: AsRef<OsStr>>(&self, arguments: &[S]) -> Outcome {
        self.command().args(arguments).output().expect("run docker").into()
    }

    /// Runs `docker`, which must succeed; returns its standard output without outer blanks.
    #[track_caller]
    pub fn ok<S: AsRef<OsStr> + std::fmt::Debug>(&self, arguments: &[S]) -> String {
        let outcome = self.docker(arguments);
        assert_eq!(outcome.code, 0, "docker {arguments:?}\n{}\n{}", outcome.stderr, self.log());
        outcome.stdout.trim().to_owned()
    }

    /// What it wrote to its log since it listens.
    pub fn log(&self) -> String {
        fs_err::read_to_string(self.directory.path().join("log")).unwrap_or_default()
    }
}

impl Drop for Dockerd {
    fn drop(&mut self) {
        let list = self.docker(&["ps", "-aq"]);
        let ids: Vec<&str> = list.stdout.split_whitespace().collect();
        if !ids.is_empty() {
            self.docker(&[&["rm", "-fv"], &ids[..]].concat());
        }
        // A goodbye takes it seconds, and there is nothing left to be kept. Its containerd dies
        // with it, and is waited for.
        let pid =
            fs_err::read_to_string(self.directory.path().join("exec/containerd/containerd.pid"));
        let pid = pid.ok().and_then(|pid| pid.trim().parse().ok());
        let containerd = pid.and_then(rustix::process::Pid::from_raw).and_then(|pid| {
            rustix::process::pidfd_open(pid, rustix::process::PidfdFlags::empty()).ok()
        });
        self.child.kill().ok();
        self.child.wait().ok();
        if let Some(containerd) = containerd {
            let mut ends = [PollFd::new(&containerd, PollFlags::IN)];
            let limit = rustix::time::Timespec { tv_sec: 10, tv_nsec: 0 };
            rustix::event::poll(&mut ends, Some(&limit)).ok();
        }
        unmount_below(self.directory.path());
        remove_cgroup(&self.cgroup);
    }
}

/// Removes a control group from every hierarchy.
pub(crate) fn remove_cgroup(name: &str) {
    let hierarchies = fs_err::read_dir("/sys/fs/cgroup").into_iter().flatten().flatten();
    let roots = hierarchies.map(|entry| entry.path()).chain([PathBuf::from("/sys/fs/cgroup")]);
    for group in roots.map(|root| root.join(name)).filter(|group| group.is_dir()) {
        end_group(&group);
    }
}

/// Takes away whatever is mounted below a directory.
pub(crate) fn unmount_below(directory: &Path) {
    let table = fs_err::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    let points = table.lines().filter_map(|line| line.split(' ').nth(4)).map(PathBuf::from);
    let mut below: Vec<PathBuf> = points.filter(|point| point.starts_with(directory)).collect();
    below.reverse();
    for point in below {
        if let Err(error) = rustix::mount::unmount(&point, rustix::mount::UnmountFlags::DETACH) {
            eprintln!("left behind: {}: {error}", point.display());
        }
    }
}
