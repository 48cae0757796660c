//! An engine for one test, and the commands that drive it.

use std::ffi::OsStr;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use tempfile::TempDir;

use crate::http::{self, Response};

/// Which engine a test drives.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A private Silo daemon.
    Silo,
    /// A Docker Engine that already runs.
    Docker,
}

/// A running engine. Dropping it removes every container of the test and stops the daemon.
#[derive(Debug)]
pub struct Engine {
    kind: Kind,
    socket: PathBuf,
    directory: TempDir,
    data_root: PathBuf,
    daemon: Option<Child>,
    prefix: String,
    log_level: &'static str,
    options: Vec<String>,
    variables: Vec<(String, String)>,
}

/// What a command left: exit code, standard output, standard error.
#[derive(Debug)]
pub struct Outcome {
    /// The exit code.
    pub code: i32,
    /// Standard output.
    pub stdout: String,
    /// Standard error.
    pub stderr: String,
}

impl From<Output> for Outcome {
    fn from(output: Output) -> Self {
        Self {
            code: output.status.code().unwrap_or(-1),
            stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }
}

static COUNTER: AtomicU32 = AtomicU32::new(0);

impl Engine {
    /// An engine with a `busybox` image.
    pub fn start() -> Self {
        let engine = Self::start_empty();
        engine.load_busybox();
        engine
    }

    /// An engine without images of its own.
    pub fn start_empty() -> Self {
        let mut engine = Self::prepare();
        if engine.kind == Kind::Silo {
            engine.start_daemon();
        }
        engine
    }

    /// An engine whose daemon does not run yet.
    pub fn prepare() -> Self {
        let number = COUNTER.fetch_add(1, Ordering::Relaxed);
        let unique = format!("{}x{number}", std::process::id());
        let directory = tempfile::Builder::new()
            .prefix("silo-test-")
            .tempdir()
            .expect("a directory for the test");
        let prefix = format!("t{unique}");
        if std::env::var("SILO_TEST_ENGINE").is_ok_and(|engine| engine == "docker") {
            let host = std::env::var("SILO_TEST_DOCKER_HOST")
                .unwrap_or_else(|_| "unix:///var/run/docker.sock".into());
            let socket = host.strip_prefix("unix://").expect("a unix:// host").into();
            let data_root = PathBuf::new();
            return Self {
                kind: Kind::Docker,
                socket,
                directory,
                data_root,
                daemon: None,
                prefix,
                log_level: "info",
                options: Vec::new(),
                variables: Vec::new(),
            };
        }
        let socket = directory.path().join("silo.sock");
        let data_root = directory.path().join("data");
        Self {
            kind: Kind::Silo,
            socket,
            directory,
            data_root,
            daemon: None,
            prefix,
            log_level: "info",
            options: Vec::new(),
            variables: Vec::new(),
        }
    }

    /// Starts the daemon on the test's directories and waits until it serves.
    pub fn start_daemon(&mut self) {
        assert!(self.daemon.is_none(), "the daemon runs already");
        let bridge = self.bridge();
        let (mut ready, writer) = std::io::pipe().expect("a pipe");
        let log = fs_err::OpenOptions::new()
            .create(true)
            .append(true)
            .open(self.directory.path().join("daemon.log"))
            .expect("the daemon's log");
        let log: std::fs::File = log.into_parts().0;
        let child = alone(Command::new(silo_binary()))
            .arg("daemon")
            .arg("--root")
            .arg(self.data_root())
            .arg("--run-root")
            .arg(self.run_root())
            .arg("--host")
            .arg(format!("unix://{}", self.socket.display()))
            .args(["--log-level", self.log_level])
            .args(&self.options)
            .envs(self.variables.iter().map(|(name, value)| (name, value)))
            .args(["--bridge", &bridge, "--table", &bridge, "--cgroup-parent"])
            .arg(format!("/{}", self.cgroup_parent()))
            // The daemon writes a byte to its standard output once its sockets listen.
            .arg("--ready-on-stdout")
            .stdin(Stdio::null())
            .stdout(writer)
            .stderr(log)
            .spawn()
            .expect("start silo daemon");
        self.daemon = Some(child);
        let mut byte = [0];
        let length = ready.read(&mut byte).expect("read readiness");
        assert_eq!(length, 1, "the daemon did not start:\n{}", self.daemon_log());
    }

    /// The cgroup below which this engine puts its containers, relative to each hierarchy.
    pub fn cgroup_parent(&self) -> String {
        format!("silo-test-{}", self.prefix)
    }

    /// The directories of that cgroup that are there.
    pub fn cgroups(&self) -> Vec<PathBuf> {
        let Ok(hierarchies) = fs_err::read_dir("/sys/fs/cgroup") else { return Vec::new() };
        let roots = hierarchies.filter_map(|entry| entry.ok().map(|entry| entry.path()));
        let groups = roots.chain([PathBuf::from("/sys/fs/cgroup")]);
        groups.map(|root| root.join(self.cgroup_parent())).filter(|group| group.is_dir()).collect()
    }

    /// Which engine this is.
    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// Whether this is Silo. Otherwise the running test counts as skipped for `reason`.
    pub fn is_silo_or_skip(&self, reason: &str) -> bool {
        if self.kind == Kind::Docker {
            let thread = std::thread::current();
            crate::skip(thread.name().unwrap_or("a test"), reason);
        }
        self.kind == Kind::Silo
    }

    /// Whether the builder is Silo's, or a BuildKit of today, which exports images and caches:
    /// dockerd has it where it keeps images in containerd's store. Otherwise the running test
    /// counts as skipped for `reason`.
    pub fn builds_as_today_or_skip(&self, reason: &str) -> bool {
        self.has_containerd_store() || self.is_silo_or_skip(reason)
    }

    /// Whether this is a Docker Engine that keeps images in containerd's store.
    pub fn has_containerd_store(&self) -> bool {
        self.kind == Kind::Docker
            && self
                .docker(&["info", "-f", "{{json .DriverStatus}}"])
                .stdout
                .contains("io.containerd.snapshotter")
    }

    /// Whether this engine serves nobody but the running test. `SILO_TEST_DOCKER_ALONE` says so
    /// of a Docker Engine, for runs of one test at a time. Otherwise the test counts as skipped.
    pub fn is_alone_or_skip(&self) -> bool {
        let alone = self.kind == Kind::Silo || std::env::var_os("SILO_TEST_DOCKER_ALONE").is_some();
        alone || self.is_silo_or_skip("pruning a shared engine removes what other tests work with")
    }

    /// The unix socket of the API.
    pub fn socket(&self) -> &Path {
        &self.socket
    }

    /// The data root of a Silo engine.
    pub fn data_root(&self) -> PathBuf {
        self.data_root.clone()
    }

    /// Chooses the data root, for the next daemon.
    pub fn set_data_root(&mut self, path: &Path) {
        path.clone_into(&mut self.data_root);
    }

    /// Gives the next daemon another option.
    pub fn add_option(&mut self, option: impl Into<String>) {
        self.options.push(option.into());
    }

    /// Sets a variable in the environment of the next daemon.
    pub fn set_variable(&mut self, name: &str, value: &str) {
        self.variables.push((name.to_owned(), value.to_owned()));
    }

    /// Chooses how much the next daemon writes to its log.
    pub fn set_log_level(&mut self, level: &'static str) {
        self.log_level = level;
    }

    /// The run root of a Silo engine.
    pub fn run_root(&self) -> PathBuf {
        self.directory.path().join("run")
    }

    /// The name of a Silo engine's bridge, and of its table of packet filter rules.
    pub fn bridge(&self) -> String {
        format!("s{}", self.prefix)
    }

    /// Removes the bridge and the rules of a Silo engine whose daemon does not run.
    pub fn remove_network(&self) -> Outcome {
        let bridge = self.bridge();
        let output = Command::new(silo_binary())
            .args(["daemon", "--remove-network", "--bridge", &bridge, "--table", &bridge])
            .output();
        output.expect("run silo").into()
    }

    /// A directory for the test's own files.
    pub fn scratch(&self) -> PathBuf {
        let scratch = self.directory.path().join("scratch");
        fs_err::create_dir_all(&scratch).expect("a scratch directory");
        scratch
    }

    /// A name that no other test uses.
    pub fn name(&self, name: &str) -> String {
        format!("{}-{name}", self.prefix)
    }

    /// What the daemon wrote to its log.
    pub fn daemon_log(&self) -> String {
        fs_err::read_to_string(self.directory.path().join("daemon.log")).unwrap_or_default()
    }

    /// The process id of a Silo daemon.
    pub fn daemon_pid(&self) -> u32 {
        self.daemon.as_ref().expect("a daemon of our own").id()
    }

    /// Memory that the daemon has resident, in kB. Silo only.
    pub fn resident_kb(&self) -> u64 {
        self.memory_kb("VmRSS:")
    }

    /// The most memory that the daemon has had resident at once, in kB. Silo only.
    pub fn peak_kb(&self) -> u64 {
        self.memory_kb("VmHWM:")
    }

    fn memory_kb(&self, name: &str) -> u64 {
        let status = fs_err::read_to_string(format!("/proc/{}/status", self.daemon_pid()));
        let status = status.expect("status");
        let line = status.lines().find_map(|line| line.strip_prefix(name)).expect("memory");
        line.split_whitespace().next().and_then(|kb| kb.parse().ok()).expect("a number")
    }

    /// Kills the daemon with SIGKILL; its containers go on.
    pub fn kill_daemon(&mut self) {
        if let Some(mut daemon) = self.daemon.take() {
            daemon.kill().expect("kill the daemon");
            daemon.wait().expect("reap the daemon");
        }
    }

    /// Asks the daemon to end and waits until it has; its containers go on.
    pub fn stop_daemon(&mut self) {
        let Some(mut daemon) = self.daemon.take() else { return };
        let pid = rustix::process::Pid::from_child(&daemon);
        // It may be gone already.
        let _gone = rustix::process::kill_process(pid, rustix::process::Signal::TERM);
        daemon.wait().expect("reap the daemon");
    }

    /// A `docker` command that speaks to this engine.
    pub fn docker_command(&self) -> Command {
        self.docker_maker()()
    }

    /// Makes such commands, also for threads that go on while the daemon is killed.
    pub fn docker_maker(&self) -> impl Fn() -> Command + Send + use<> {
        let host = format!("unix://{}", self.socket.display());
        let config = self.directory.path().join("docker-config");
        move || {
            let program = std::env::var_os("SILO_TEST_DOCKER_CLI");
            let mut command = alone(Command::new(program.unwrap_or_else(|| "docker".into())));
            command.env("DOCKER_HOST", &host).env("DOCKER_CONFIG", &config).stdin(Stdio::null());
            command
        }
    }

    /// Gives `docker` the plugins `buildx` and `compose` of Debian's newest suite, which
    /// `cargo xtask test` unpacks, or those in the folder `SILO_TEST_DOCKER_PLUGINS`. Without
    /// them the running test counts as skipped.
    pub fn has_plugins_or_skip(&self) -> bool {
        let folder = std::env::var_os("SILO_TEST_DOCKER_PLUGINS")
            .map_or_else(|| newest_docker().join("usr/libexec/docker/cli-plugins"), PathBuf::from);
        let plugins = ["docker-buildx", "docker-compose"].map(|name| folder.join(name));
        if !plugins.iter().all(|plugin| plugin.exists()) {
            let thread = std::thread::current();
            crate::skip(thread.name().unwrap_or("a test"), "buildx and compose are not here");
            return false;
        }
        let target = self.directory.path().join("docker-config/cli-plugins");
        fs_err::create_dir_all(&target).expect("a folder for plugins");
        for plugin in plugins {
            let name = plugin.file_name().expect("a name");
            std::os::unix::fs::symlink(&plugin, target.join(name)).expect("a link to a plugin");
        }
        true
    }

    /// A `silo` command that speaks to this engine.
    pub fn silo_command(&self) -> Command {
        let mut command = alone(Command::new(silo_binary()));
        command
            .env("DOCKER_HOST", format!("unix://{}", self.socket.display()))
            .env("DOCKER_CONFIG", self.directory.path().join("docker-config"))
            .env_remove("SILO_HOST")
            .stdin(Stdio::null());
        command
    }

    /// Runs `docker` and returns whatever comes of it.
    pub fn docker<S: AsRef<OsStr>>(&self, arguments: &[S]) -> Outcome {
        self.docker_command().args(arguments).output().expect("run docker").into()
    }

    /// Runs `silo` and returns whatever comes of it.
    pub fn silo<S: AsRef<OsStr>>(&self, arguments: &[S]) -> Outcome {
        self.silo_command().args(arguments).output().expect("run silo").into()
    }

    /// Runs `docker`, which must succeed; returns its standard output without outer blanks.
    #[track_caller]
    pub fn ok<S: AsRef<OsStr> + std::fmt::Debug>(&self, arguments: &[S]) -> String {
        let outcome = self.succeeded(&format!("docker {arguments:?}"), self.docker(arguments));
        outcome.stdout.trim().to_owned()
    }

    /// Runs `docker`, which must fail with `code`; returns its standard error.
    #[track_caller]
    pub fn fails<S: AsRef<OsStr> + std::fmt::Debug>(&self, code: i32, arguments: &[S]) -> String {
        let outcome = self.docker(arguments);
        assert_eq!(
            outcome.code, code,
            "docker {arguments:?}\nstdout: {}\nstderr: {}",
            outcome.stdout, outcome.stderr
        );
        outcome.stderr.trim().to_owned()
    }

    /// Runs `docker` with bytes on its standard input.
    #[track_caller]
    pub fn docker_with_input<S: AsRef<OsStr>>(&self, arguments: &[S], input: &[u8]) -> Outcome {
        feed(self.docker_command().args(arguments), input)
    }

    /// Fails unless a command succeeded.
    #[track_caller]
    pub fn succeeded(&self, command: &str, outcome: Outcome) -> Outcome {
        assert_eq!(
            outcome.code,
            0,
            "{command}\nstdout: {}\nstderr: {}\ndaemon: {}",
            outcome.stdout,
            outcome.stderr,
            self.daemon_log()
        );
        outcome
    }

    /// `docker inspect` of one object.
    #[track_caller]
    pub fn inspect(&self, name: &str) -> serde_json::Value {
        let text = self.ok(&["inspect", name]);
        let value: serde_json::Value = serde_json::from_str(&text).expect("JSON from inspect");
        value[0].clone()
    }

    /// A raw HTTP request; `body` is JSON or empty.
    pub fn http(&self, method: &str, target: &str, body: &str) -> Response {
        http::request(&self.socket, method, target, body)
    }

    /// Makes `busybox:latest` from the packaged static busybox.
    pub fn load_busybox(&self) {
        if self.kind == Kind::Docker && self.docker(&["image", "inspect", "busybox"]).code == 0 {
            return;
        }
        let tree = self.scratch().join("busybox");
        busybox_tree(&tree);
        let tar = Command::new("tar")
            .args(["--sort=name", "--mtime=@1700000000", "--owner=0", "--group=0", "-C"])
            .arg(&tree)
            .args(["-c", "."])
            .output()
            .expect("run tar");
        let path = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
        let outcome = self.docker_with_input(
            &["import", "-c", "CMD [\"sh\"]", "-c", &format!("ENV {path}"), "-", "busybox:latest"],
            &tar.stdout,
        );
        assert_eq!(outcome.code, 0, "import: {}\n{}", outcome.stderr, self.daemon_log());
    }
}

/// A command that knows nothing of what whoever runs the tests has told engines, their clients,
/// builders and agents by variables.
pub fn alone(mut command: Command) -> Command {
    const PREFIXES: [&str; 14] = [
        "DOCKER_",
        "BUILDX_",
        "BUILDKIT_",
        "COMPOSE_",
        "SILO_",
        "OTEL_",
        "ACTIONS_",
        "GITHUB_",
        "AWS_",
        "XDG_",
        "CLICOLOR",
        "REGISTRY_",
        "CONTAINER",
        "EXPERIMENTAL_BUILDKIT_",
    ];
    const NAMES: [&str; 11] = [
        "HTTP_PROXY",
        "HTTPS_PROXY",
        "FTP_PROXY",
        "ALL_PROXY",
        "NO_PROXY",
        "SOURCE_DATE_EPOCH",
        "SSH_AUTH_SOCK",
        "SSL_CERT_FILE",
        "SSL_CERT_DIR",
        "NO_COLOR",
        "RUST_LOG",
    ];
    for (name, _) in std::env::vars_os() {
        let upper = name.to_string_lossy().to_ascii_uppercase();
        let is_ours = PREFIXES.iter().any(|prefix| upper.starts_with(prefix));
        if is_ours || NAMES.contains(&upper.as_str()) {
            command.env_remove(name);
        }
    }
    command
}

/// Where `cargo xtask test` unpacks what Debian's newest suite has of Docker.
pub(crate) fn newest_docker() -> PathBuf {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("a workspace");
    root.join("target/docker-cli")
}

/// Runs a command with bytes on its standard input.
#[track_caller]
pub fn feed(command: &mut Command, input: &[u8]) -> Outcome {
    let command = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().expect("run the command");
    let mut stdin = child.stdin.take().expect("standard input");
    let input = input.to_vec();
    // A process that ends early closes its input; that is its right.
    let writer = std::thread::spawn(move || drop(stdin.write_all(&input)));
    let output = child.wait_with_output().expect("wait for the command");
    writer.join().expect("writer");
    output.into()
}

/// Writes files below a directory; what a name ends with `/` is a directory.
pub fn write_files(directory: &Path, files: &[(&str, &str)]) {
    for (name, text) in files {
        let path = directory.join(name);
        let is_directory = name.ends_with('/');
        let above = if is_directory { &path } else { path.parent().expect("a parent") };
        fs_err::create_dir_all(above).expect("a directory");
        allow(above, 0o755);
        if !is_directory {
            fs_err::write(&path, text).expect("a file");
            allow(&path, 0o644);
        }
    }
}

/// The process with this command line.
pub fn process(command: &[&str]) -> Option<rustix::fd::OwnedFd> {
    let wanted: Vec<u8> =
        command.iter().flat_map(|word| [word.as_bytes(), b"\0"].concat()).collect();
    for entry in fs_err::read_dir("/proc").expect("/proc").flatten() {
        let id = entry.file_name().to_string_lossy().parse().ok();
        let Some(id) = id.and_then(rustix::process::Pid::from_raw) else { continue };
        let line = fs_err::read(entry.path().join("cmdline")).unwrap_or_default();
        if line == wanted {
            return rustix::process::pidfd_open(id, rustix::process::PidfdFlags::empty()).ok();
        }
    }
    None
}

/// Gives a file a mode, whatever the mask of whoever runs the tests is.
fn allow(path: &Path, mode: u32) {
    let mode = std::os::unix::fs::PermissionsExt::from_mode(mode);
    fs_err::set_permissions(path, mode).expect("a mode");
}

/// A root file system with every applet of busybox.
pub fn busybox_tree(tree: &Path) {
    for folder in ["bin", "etc", "tmp", "root", "var", "home"] {
        fs_err::create_dir_all(tree.join(folder)).expect("a folder");
        allow(&tree.join(folder), 0o755);
    }
    allow(tree, 0o755);
    fs_err::copy("/bin/busybox", tree.join("bin/busybox")).expect("busybox-static is installed");
    let list = Command::new("/bin/busybox").arg("--list").output().expect("run busybox");
    for applet in String::from_utf8_lossy(&list.stdout).lines().filter(|name| *name != "busybox") {
        let link = tree.join("bin").join(applet);
        if fs_err::symlink_metadata(&link).is_err() {
            std::os::unix::fs::symlink("busybox", link).expect("a link");
        }
    }
    let write = |file: &str, text: &str| {
        fs_err::write(tree.join(file), text).expect("a file");
        allow(&tree.join(file), 0o644);
    };
    write(
        "etc/passwd",
        "root:x:0:0:root:/root:/bin/sh\ndaemon:x:1:1:daemon:/:/bin/false\nuser:x:1000:1000::/home:/bin/sh\n",
    );
    write("etc/group", "root:x:0:\ndaemon:x:1:\nuser:x:1000:\nextra:x:2000:user\n");
}

/// The program under test: `SILO`, or the one beside the test.
pub fn silo_binary() -> PathBuf {
    if let Some(path) = std::env::var_os("SILO") {
        return path.into();
    }
    // Next to the test binary: target/<host>/debug/deps/product-<hash>.
    let test = std::env::current_exe().expect("the path of the test");
    test.ancestors().nth(2).expect("a target directory").join("silo")
}

/// Kills what is in a cgroup and removes it; supervisors notice and leave. The kernel holds on to
/// a group for a moment after its last process has been reaped, and version 1 has nothing that
/// tells when that is over.
pub(crate) fn end_group(group: &Path) {
    let end = Instant::now() + Duration::from_secs(30);
    loop {
        let pids = fs_err::read_to_string(group.join("cgroup.procs")).unwrap_or_default();
        for pid in pids.lines().filter_map(|line| line.parse().ok()) {
            if let Some(pid) = rustix::process::Pid::from_raw(pid) {
                // It may be gone already.
                let _gone = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
            }
        }
        for entry in fs_err::read_dir(group).into_iter().flatten().flatten() {
            if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                end_group(&entry.path());
            }
        }
        match fs_err::remove_dir(group) {
            Err(error)
                if error.kind() == std::io::ErrorKind::ResourceBusy && Instant::now() < end =>
            {
                rustix::thread::sched_yield();
            }
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                eprintln!("left behind: {error}");
                return;
            }
            _ => return,
        }
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        let name = format!("name={}", self.prefix);
        let list = match self.kind {
            Kind::Silo => self.docker(&["ps", "-aq"]),
            Kind::Docker => self.docker(&["ps", "-aq", "--filter", &name]),
        };
        let ids: Vec<&str> = list.stdout.split_whitespace().collect();
        if !ids.is_empty() {
            self.docker(&[&["rm", "-fv"], &ids[..]].concat());
        }
        if self.kind == Kind::Silo {
            self.stop_daemon();
            self.remove_network();
        }
        // A daemon that was killed leaves what no client sees, and so does one that fails.
        self.cgroups().iter().for_each(|group| end_group(group));
        if std::thread::panicking() {
            eprintln!("daemon log:\n{}", self.daemon_log());
        }
    }
}
