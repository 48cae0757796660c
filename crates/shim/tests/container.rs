//! Real containers under a real shim process. This program is its own shim: started under the
//! name `silo-shim` it is one.
//!
//! Needs root and a static busybox at /bin/busybox; without them it says so and passes nothing.

#![expect(clippy::unwrap_used, clippy::print_stdout, reason = "a test with its own harness")]

use std::ffi::OsString;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Instant;

use silo_oci::runtime::{Process, Spec};
use silo_shim::config::{ConsoleSize, LogConfig, LogDriver, RootConfig, ShimConfig};
use silo_shim::exit::ExitRecord;
use silo_shim::protocol::{AtEof, AttachOptions, Event, ExecSpec, ProcessRef, Status};
use silo_shim::{AttachStream, Given, Shim};
use silo_types::{ContainerId, ExecId, Kind};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::mpsc::UnboundedReceiver;

type Test = (&'static str, fn(&Ground) -> Result<(), String>);

const TESTS: &[Test] = &[
    ("runs_and_leaves_nothing", |ground| ground.block_on(runs_and_leaves_nothing(ground))),
    ("exec_and_signals", |ground| ground.block_on(exec_and_signals(ground))),
    ("terminal", |ground| ground.block_on(terminal(ground))),
    ("missing_program", |ground| ground.block_on(missing_program(ground))),
    ("bad_configuration", |ground| ground.block_on(bad_configuration(ground))),
    ("survives_its_daemon", |ground| ground.block_on(survives_its_daemon(ground))),
    ("unstarted_goes_with_its_daemon", |ground| {
        ground.block_on(unstarted_goes_with_its_daemon(ground))
    }),
    ("signals_pass_the_shim_by", |ground| ground.block_on(signals_pass_the_shim_by(ground))),
    ("dies_with_its_shim", |ground| ground.block_on(dies_with_its_shim(ground))),
    ("given_network", |ground| ground.block_on(given_network(ground))),
    ("daemon_is_killed", |ground| ground.block_on(daemon_is_killed(ground))),
    ("own_binary_is_out_of_reach", |ground| ground.block_on(own_binary_is_out_of_reach(ground))),
    ("no_descriptor_leaks", |ground| ground.block_on(no_descriptor_leaks(ground))),
    ("out_of_memory", |ground| ground.block_on(out_of_memory(ground))),
    ("shared_pids_are_killed", |ground| ground.block_on(shared_pids_are_killed(ground))),
    ("much_output", |ground| ground.block_on(much_output(ground))),
    ("costs", |ground| ground.block_on(costs(ground))),
];

fn main() -> ExitCode {
    let args: Vec<OsString> = std::env::args_os().collect();
    if args.first().is_some_and(|name| name == "silo-shim") {
        return silo_shim::main(args);
    }
    if args.first().is_some_and(|name| name == "test-daemon") {
        return daemon(&args[1]);
    }
    if args.get(1).is_some_and(|option| option == "--try-write") {
        // Opening would tell whether it runs as well; this tells what the mount allows.
        let result = rustix::fs::access("/proc/self/exe", rustix::fs::Access::WRITE_OK);
        println!("{result:?}");
        return ExitCode::SUCCESS;
    }
    let options: Vec<_> = args[1..].iter().filter_map(|arg| arg.to_str()).collect();
    if options.contains(&"--list") {
        // As test runners ask for names; there are no ignored ones.
        for (name, _) in TESTS.iter().filter(|_| !options.contains(&"--ignored")) {
            println!("{name}: test");
        }
        return ExitCode::SUCCESS;
    }
    if !rustix::process::geteuid().is_root() || !Path::new("/bin/busybox").exists() {
        println!("skipped: needs root and /bin/busybox");
        return ExitCode::SUCCESS;
    }
    let wanted: Vec<_> = options.iter().filter(|option| !option.starts_with('-')).collect();
    let exact = options.contains(&"--exact");
    let mut failed = false;
    for (name, test) in TESTS {
        let chosen = |filter: &&str| if exact { *filter == *name } else { name.contains(*filter) };
        if wanted.is_empty() || wanted.iter().any(|filter| chosen(filter)) {
            let ground = Ground::new();
            let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| test(&ground)));
            let outcome = match result {
                Ok(Ok(())) => "ok".to_owned(),
                Ok(Err(error)) => format!("FAILED: {error}"),
                Err(_) => "FAILED".to_owned(),
            };
            failed |= outcome != "ok";
            println!("test {name} ... {outcome}");
        }
    }
    if failed { ExitCode::FAILURE } else { ExitCode::SUCCESS }
}

/// A root file system and a directory of everything else, gone with all processes at the end.
struct Ground {
    dir: tempfile::TempDir,
    runtime: tokio::runtime::Runtime,
    exe: OwnedFd,
    cgroups: String,
}

impl Ground {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        for name in ["bin", "proc", "dev", "sys", "tmp", "etc"] {
            fs_err::create_dir_all(dir.path().join("layer").join(name)).unwrap();
        }
        let bin = dir.path().join("layer/bin");
        fs_err::copy("/bin/busybox", bin.join("busybox")).unwrap();
        for name in ["sh", "cat", "sleep", "echo", "true", "head", "stty", "ps", "dd", "id"] {
            fs_err::os::unix::fs::symlink("busybox", bin.join(name)).unwrap();
        }
        let runtime = tokio::runtime::Runtime::new().unwrap();
        let exe = silo_sys::spawn::sealed_self().unwrap();
        let cgroups = format!("silo-test-{}", std::process::id());
        Self { dir, runtime, exe, cgroups }
    }

    fn block_on(&self, test: impl Future<Output = ()>) -> Result<(), String> {
        self.runtime.block_on(async {
            let limit = std::time::Duration::from_mins(1);
            tokio::time::timeout(limit, test).await.map_err(|_| "timed out".to_owned())
        })
    }

    fn prepare(&self, script: &str, change: impl FnOnce(&mut Spec, &mut ShimConfig)) -> ShimConfig {
        let id = ContainerId::random();
        let path = |name: &str| self.dir.path().join(name).join(id.as_str());
        let (container_dir, run_dir) = (path("containers"), path("shims"));
        for dir in ["upper", "work"] {
            fs_err::create_dir_all(container_dir.join(dir)).unwrap();
        }
        let mut config = ShimConfig {
            root: RootConfig::Overlay {
                lowers: vec![self.dir.path().join("layer")],
                upper: container_dir.join("upper"),
                work: container_dir.join("work"),
                volatile: false,
            },
            log: LogConfig::new(
                LogDriver::JsonFile,
                std::collections::BTreeMap::new(),
                std::collections::BTreeMap::new(),
                &container_dir,
                &id,
            ),
            cgroup: format!("/{}/{id}", self.cgroups).into(),
            id,
            container_dir,
            run_dir,
            tty: false,
            console_size: None,
            open_stdin: false,
            stdin_once: false,
            init_binary: None,
            trees: Vec::new(),
            note: String::new(),
        };
        let mut spec: Spec = serde_json::from_value(serde_json::json!({
            "ociVersion": "1.2.0",
            "process": {
                "args": ["sh", "-c", script],
                "env": ["PATH=/bin", "TERM=xterm"],
                "cwd": "/",
                "user": { "uid": 0, "gid": 0 },
                "capabilities": { "bounding": ["CAP_KILL"], "effective": ["CAP_KILL"], "permitted": ["CAP_KILL"] },
            },
            "root": { "path": "rootfs" },
            "hostname": "test",
            "mounts": [
                { "destination": "/proc", "type": "proc", "source": "proc" },
                { "destination": "/dev", "type": "tmpfs", "source": "tmpfs", "options": ["nosuid", "mode=755"] },
                { "destination": "/dev/pts", "type": "devpts", "source": "devpts",
                  "options": ["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620"] },
            ],
            "linux": {
                "namespaces": [
                    { "type": "pid" }, { "type": "network" }, { "type": "ipc" },
                    { "type": "uts" }, { "type": "mount" },
                ],
            },
        }))
        .unwrap();
        change(&mut spec, &mut config);
        fs_err::write(config.spec_path(), serde_json::to_vec(&spec).unwrap()).unwrap();
        config
    }

    async fn spawn(&self, config: &ShimConfig) -> Shim {
        Shim::spawn(self.exe.as_fd(), config, Given::default()).await.unwrap()
    }

    fn cgroup_dirs(&self, id: &str) -> Vec<PathBuf> {
        let mut all = vec![PathBuf::from("/sys/fs/cgroup")];
        all.extend(fs_err::read_dir("/sys/fs/cgroup").unwrap().map(|entry| entry.unwrap().path()));
        all.iter().map(|at| at.join(&self.cgroups).join(id)).filter(|at| at.exists()).collect()
    }

    /// Nothing but the records may be left of a container.
    fn assert_gone(&self, config: &ShimConfig) {
        let left = self.cgroup_dirs(config.id.as_str());
        assert!(left.is_empty(), "{left:?}");
        let mounts = fs_err::read_to_string("/proc/self/mountinfo").unwrap();
        assert!(!mounts.contains(config.id.as_str()));
        assert_eq!(fs_err::read_dir(&config.run_dir).unwrap().count(), 0);
    }
}

impl Drop for Ground {
    fn drop(&mut self) {
        for entry in fs_err::read_dir(self.dir.path().join("shims")).into_iter().flatten() {
            let path = entry.unwrap().path().join("pid");
            if let Ok(text) = fs_err::read_to_string(path)
                && let Some(pid) = text.trim().parse().ok().and_then(rustix::process::Pid::from_raw)
            {
                let kill = rustix::process::Signal::KILL;
                rustix::process::kill_process(pid, kill).unwrap_or_default();
            }
        }
        let cgroups = silo_cgroup::Cgroups::detect().unwrap();
        if let Ok(path) = silo_cgroup::CgroupPath::from_oci(&format!("/{}", self.cgroups), "")
            && let Ok(cgroup) = cgroups.open(&path)
        {
            cgroup.kill_all().unwrap();
            cgroup.remove().unwrap();
        }
    }
}

const OUTPUT: AttachOptions = AttachOptions {
    stdin: false,
    stdout: true,
    stderr: true,
    at_eof: AtEof::Ignore,
    unlogged: false,
};
const BOTH: AttachOptions = AttachOptions { stdin: true, at_eof: AtEof::CloseStdin, ..OUTPUT };

async fn output(stream: &mut AttachStream) -> String {
    let mut text = Vec::new();
    while let Some(frame) = frame(stream).await {
        text.extend(frame);
    }
    String::from_utf8_lossy(&text).into_owned()
}

async fn frame(stream: &mut AttachStream) -> Option<Vec<u8>> {
    let mut header = [0; 8];
    stream.read_exact(&mut header).await.ok()?;
    let length = u32::from_be_bytes(*header.last_chunk().unwrap());
    let mut frame = vec![0; usize::try_from(length).unwrap()];
    stream.read_exact(&mut frame).await.unwrap();
    Some(frame)
}

async fn exit_of(events: &mut UnboundedReceiver<Event>, wanted: &ProcessRef) -> ExitRecord {
    loop {
        match events.recv().await.unwrap() {
            Event::Exited { process, exit } if process == *wanted => return exit,
            Event::Lost => panic!("lost"),
            _ => {}
        }
    }
}

/// Whether a process ends, within a few seconds.
async fn ends(pidfd: OwnedFd) -> bool {
    let ended = tokio::task::spawn_blocking(move || {
        let mut fds = [rustix::event::PollFd::new(&pidfd, rustix::event::PollFlags::IN)];
        let limit = rustix::event::Timespec { tv_sec: 5, tv_nsec: 0 };
        rustix::event::poll(&mut fds, Some(&limit)).unwrap()
    });
    ended.await.unwrap() == 1
}

async fn released(events: &mut UnboundedReceiver<Event>) {
    while events.recv().await.unwrap() != Event::Released {}
}

fn exec(script: &str) -> ExecSpec {
    ExecSpec {
        id: ExecId::random(),
        process: Process {
            args: ["sh", "-c", script].map(String::from).to_vec(),
            env: vec!["PATH=/bin".into()],
            cwd: "/".into(),
            ..Process::default()
        },
        console_size: None,
        attach: OUTPUT,
    }
}

async fn runs_and_leaves_nothing(ground: &Ground) {
    let config = ground.prepare("echo $$; echo file > /tmp/x; exit 3", |_, _| ());
    let shim = ground.spawn(&config).await;
    assert_eq!(shim.state().await.unwrap().status, Status::Created);
    let mut events = shim.events();
    let mut client = shim.attach(ProcessRef::Init, OUTPUT).await.unwrap().stream;
    shim.start().await.unwrap();
    assert_eq!(output(&mut client).await, "1\n");
    let exit = exit_of(&mut events, &ProcessRef::Init).await;
    assert_eq!(exit.code, 3);
    assert_eq!(silo_shim::exit::read(&config.container_dir), Some(exit));
    released(&mut events).await;
    ground.assert_gone(&config);
    assert_eq!(events.recv().await, Some(Event::Lost));
    assert!(config.container_dir.join("upper/tmp/x").exists());
}

async fn exec_and_signals(ground: &Ground) {
    let config = ground.prepare("trap 'exit 9' TERM; while :; do sleep 0.01; done", |_, _| ());
    let shim = ground.spawn(&config).await;
    let mut events = shim.events();
    shim.start().await.unwrap();
    let spec = ExecSpec { attach: BOTH, ..exec("cat; echo in $$ >&2; exit 5") };
    let id = ProcessRef::Exec(spec.id.clone());
    let (_, mut client) = shim.exec_attached(spec).await.unwrap();
    client.write_all(b"given\n").await.unwrap();
    client.shutdown().await.unwrap();
    let text = output(&mut client).await;
    assert!(text.starts_with("given\nin "), "{text}");
    assert_eq!(exit_of(&mut events, &id).await.code, 5);
    let mut missing = exec("x");
    missing.process.args = vec!["nothing-there".into()];
    let error = shim.exec(missing).await.unwrap_err();
    assert_eq!(error.exit_code(), Some(127), "{error}");
    // One that is running when the container ends.
    let spec = exec("sleep 100");
    let id = ProcessRef::Exec(spec.id.clone());
    shim.exec(spec).await.unwrap();
    shim.signal(ProcessRef::Init, 15).await.unwrap();
    assert_eq!(exit_of(&mut events, &id).await.signal, Some(9));
    assert_eq!(exit_of(&mut events, &ProcessRef::Init).await.code, 9);
    released(&mut events).await;
    ground.assert_gone(&config);
}

async fn terminal(ground: &Ground) {
    let config = ground.prepare("stty size; read x; stty size; echo \"<$x>\"", |spec, config| {
        spec.process.as_mut().unwrap().terminal = true;
        config.tty = true;
        config.open_stdin = true;
        config.console_size = Some(ConsoleSize { rows: 20, columns: 30 });
    });
    let shim = ground.spawn(&config).await;
    let mut client = shim.attach(ProcessRef::Init, BOTH).await.unwrap().stream;
    shim.start().await.unwrap();
    let mut first = [0; 8 + 7];
    client.read_exact(&mut first).await.unwrap();
    assert_eq!(&first[8..], b"20 30\r\n");
    shim.resize(ProcessRef::Init, ConsoleSize { rows: 4, columns: 5 }).await.unwrap();
    client.write_all(b"hey\n").await.unwrap();
    assert_eq!(output(&mut client).await, "hey\r\n4 5\r\n<hey>\r\n");
}

async fn missing_program(ground: &Ground) {
    let config = ground.prepare("", |spec, _| {
        spec.process.as_mut().unwrap().args = vec!["nothing-there".into()];
    });
    // The failure may come with the creation or with the start.
    let error = match Shim::spawn(ground.exe.as_fd(), &config, Given::default()).await {
        Err(error) => error,
        Ok(shim) => {
            let mut events = shim.events();
            let error = shim.start().await.unwrap_err();
            let exit = exit_of(&mut events, &ProcessRef::Init).await;
            assert_eq!(exit.code, 127);
            released(&mut events).await;
            error
        }
    };
    assert_eq!(error.exit_code(), Some(127));
    assert!(
        error.to_string().contains("exec: \"nothing-there\": executable file not found in $PATH"),
        "{error}"
    );
    ground.assert_gone(&config);
}

async fn bad_configuration(ground: &Ground) {
    let config = ground.prepare("true", |spec, _| {
        let mount = serde_json::json!({ "destination": "/x", "type": "bind", "source": "/no/such/path", "options": ["bind"] });
        spec.mounts.push(serde_json::from_value(mount).unwrap());
    });
    let error = Shim::spawn(ground.exe.as_fd(), &config, Given::default()).await.unwrap_err();
    assert!(error.to_string().contains("/no/such/path"), "{error}");
    assert_eq!(error.exit_code(), None);
    ground.assert_gone(&config);
}

async fn survives_its_daemon(ground: &Ground) {
    let config = ground.prepare("read x; echo $x; exit 6", |_, config| config.open_stdin = true);
    let shim = ground.spawn(&config).await;
    let pid = shim.pid();
    shim.start().await.unwrap();
    drop(shim);
    let (shim, state) = Shim::connect(&config.run_dir, config.id.as_str()).await.unwrap();
    assert_eq!((state.pid, state.status), (pid, Status::Running));
    let mut events = shim.events();
    let mut client = shim.attach(ProcessRef::Init, BOTH).await.unwrap().stream;
    client.write_all(b"again\n").await.unwrap();
    assert_eq!(output(&mut client).await, "again\n");
    assert_eq!(exit_of(&mut events, &ProcessRef::Init).await.code, 6);
}

/// A daemon that starts a container, attaches, says so, and waits to be killed.
fn daemon(config: &OsString) -> ExitCode {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(async {
        let config: ShimConfig = serde_json::from_slice(&fs_err::read(config).unwrap()).unwrap();
        let exe = silo_sys::spawn::sealed_self().unwrap();
        let shim = Shim::spawn(exe.as_fd(), &config, Given::default()).await.unwrap();
        let _client = shim.attach(ProcessRef::Init, OUTPUT).await.unwrap();
        shim.start().await.unwrap();
        println!("started");
        std::future::pending::<()>().await;
    });
    ExitCode::SUCCESS
}

async fn daemon_is_killed(ground: &Ground) {
    use std::io::BufRead;
    use std::os::unix::process::CommandExt;
    for round in 0..5 {
        // Enough output to have filled the daemon's socket when nobody reads it.
        let script = "i=0; while [ $i -lt 3000 ]; do echo 0123456789012345678901234567890123456789012345678901234567890123456789012345678901234567890123456789 $i; i=$((i+1)); done; exit 7";
        let config = ground.prepare(script, |_, _| ());
        let path = ground.dir.path().join("daemon.json");
        fs_err::write(&path, serde_json::to_vec(&config).unwrap()).unwrap();
        let mut daemon = std::process::Command::new("/proc/self/exe")
            .arg0("test-daemon")
            .arg(&path)
            .stdout(std::process::Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        let mut output = std::io::BufReader::new(daemon.stdout.take().unwrap());
        output.read_line(&mut line).unwrap();
        assert_eq!(line, "started\n");
        daemon.kill().unwrap();
        daemon.wait().unwrap();
        let exit = match Shim::connect(&config.run_dir, config.id.as_str()).await {
            Ok((shim, state)) => match state.status {
                Status::Exited(exit) => exit,
                _ => exit_of(&mut shim.events(), &ProcessRef::Init).await,
            },
            Err(_) => silo_shim::exit::read(&config.container_dir).unwrap(),
        };
        assert_eq!(exit.code, 7, "round {round}");
        let log = fs_err::read_to_string(config.log.path.unwrap()).unwrap();
        assert_eq!(log.lines().count(), 3000);
        assert!(log.lines().last().unwrap().contains(" 2999\\n"));
    }
}

async fn own_binary_is_out_of_reach(ground: &Ground) {
    // CVE-2019-5736: a program that is the engine's own binary, and tries to change it.
    let config = ground.prepare("", |spec, _| {
        let args = ["/proc/self/exe", "--try-write"].map(String::from);
        spec.process.as_mut().unwrap().args = args.to_vec();
    });
    let shim = ground.spawn(&config).await;
    let mut client = shim.attach(ProcessRef::Init, OUTPUT).await.unwrap().stream;
    match shim.start().await {
        Ok(_) => assert!(output(&mut client).await.contains("Read-only"), "writable"),
        // Not to run it at all is as good.
        Err(error) => assert!(error.exit_code().is_some(), "{error}"),
    }
}

async fn no_descriptor_leaks(ground: &Ground) {
    // CVE-2024-21626. The shell has the directory open that it lists.
    let script = "echo /proc/self/fd/*; read x";
    let wanted = "/proc/self/fd/0 /proc/self/fd/1 /proc/self/fd/2 /proc/self/fd/3\n";
    let config = ground.prepare(script, |_, config| config.open_stdin = true);
    let shim = ground.spawn(&config).await;
    let mut client = shim.attach(ProcessRef::Init, BOTH).await.unwrap().stream;
    shim.start().await.unwrap();
    let (_, mut other) = shim.exec_attached(exec("echo /proc/self/fd/*")).await.unwrap();
    assert_eq!(output(&mut other).await, wanted);
    client.shutdown().await.unwrap();
    assert_eq!(output(&mut client).await, wanted);
}

/// The daemon is lost before it has started the container.
async fn unstarted_goes_with_its_daemon(ground: &Ground) {
    let config = ground.prepare("echo never; exit 3", |_, _| ());
    let shim = ground.spawn(&config).await;
    let processes = [shim.pid(), shim.shim_pid()].map(|pid| {
        let pid = rustix::process::Pid::from_raw(pid).unwrap();
        rustix::process::pidfd_open(pid, rustix::process::PidfdFlags::empty()).unwrap()
    });
    drop(shim);
    silo_shim::gone(&config.container_dir).await.unwrap();
    assert!(Shim::connect(&config.run_dir, config.id.as_str()).await.is_err());
    for process in processes {
        assert!(ends(process).await);
    }
    assert_eq!(silo_shim::exit::read(&config.container_dir), None);
    assert_eq!(fs_err::read_dir(&config.run_dir).unwrap().count(), 0);
    // Before the daemon even reads that it was made.
    let spawning = Shim::spawn(ground.exe.as_fd(), &config, Given::default());
    let cut_off = tokio::time::timeout(std::time::Duration::from_millis(1), spawning).await;
    drop(cut_off);
    silo_shim::gone(&config.container_dir).await.unwrap();
    assert_eq!(fs_err::read_dir(&config.run_dir).unwrap().count(), 0);
    // Somebody else who is connected keeps it no more than that.
    let shim = ground.spawn(&config).await;
    let (other, state) = Shim::connect(&config.run_dir, config.id.as_str()).await.unwrap();
    assert_eq!(state.status, Status::Created);
    let mut events = other.events();
    drop(shim);
    while events.recv().await.unwrap() != Event::Lost {}
    // And the next start waits until it is gone.
    let shim = ground.spawn(&config).await;
    let mut events = shim.events();
    shim.start().await.unwrap();
    assert_eq!(exit_of(&mut events, &ProcessRef::Init).await.code, 3);
}

async fn signals_pass_the_shim_by(ground: &Ground) {
    use rustix::process::Signal;
    let script = "trap 'exit 5' TERM; grep Sig[BI] /proc/self/status; echo; while :; do busybox usleep 10000; done";
    let config = ground.prepare(script, |_, _| ());
    let shim = ground.spawn(&config).await;
    let mut events = shim.events();
    let mut client = shim.attach(ProcessRef::Init, OUTPUT).await.unwrap().stream;
    shim.start().await.unwrap();
    let shim_pid = rustix::process::Pid::from_raw(shim.shim_pid()).unwrap();
    let mut text = String::new();
    while !text.ends_with("\n\n") {
        text.push_str(&String::from_utf8(frame(&mut client).await.unwrap()).unwrap());
    }
    for line in text.lines().filter(|line| !line.is_empty()) {
        assert!(line.ends_with("\t0000000000000000"), "the program begins with {line}");
    }
    for signal in [Signal::TERM, Signal::INT, Signal::HUP, Signal::USR1, Signal::PIPE] {
        rustix::process::kill_process(shim_pid, signal).unwrap();
    }
    assert_eq!(shim.state().await.unwrap().status, Status::Running);
    shim.signal(ProcessRef::Init, Signal::TERM.as_raw()).await.unwrap();
    assert_eq!(exit_of(&mut events, &ProcessRef::Init).await.code, 5);
}

async fn dies_with_its_shim(ground: &Ground) {
    for user in [0, 1000] {
        let config = ground.prepare("sleep 1000", |spec, _| {
            let process = spec.process.as_mut().unwrap();
            (process.user.uid, process.user.gid) = (user, user);
        });
        let shim = ground.spawn(&config).await;
        let mut events = shim.events();
        shim.start().await.unwrap();
        let pid = rustix::process::Pid::from_raw(shim.pid()).unwrap();
        let flags = rustix::process::PidfdFlags::empty();
        let pidfd = rustix::process::pidfd_open(pid, flags).unwrap();
        let shim_pid = rustix::process::Pid::from_raw(shim.shim_pid()).unwrap();
        rustix::process::kill_process(shim_pid, rustix::process::Signal::KILL).unwrap();
        while events.recv().await.unwrap() != Event::Lost {}
        assert!(ends(pidfd).await, "the container of {user} runs without its shim");
        assert_eq!(silo_shim::exit::read(&config.container_dir), None);
    }
}

async fn given_network(ground: &Ground) {
    let config = ground.prepare("busybox readlink /proc/self/ns/net; sleep 1000", |_, _| ());
    let netns: OwnedFd = fs_err::File::open("/proc/self/ns/net").unwrap().into_file().into();
    let shim =
        Shim::spawn(ground.exe.as_fd(), &config, Given { netns: Some(netns), ..Given::default() })
            .await
            .unwrap();
    let mut events = shim.events();
    let mut client = shim.attach(ProcessRef::Init, OUTPUT).await.unwrap().stream;
    shim.start().await.unwrap();
    let wanted = fs_err::read_link("/proc/self/ns/net").unwrap();
    let mut line = vec![0; 8 + wanted.as_os_str().len() + 1];
    client.read_exact(&mut line).await.unwrap();
    assert_eq!(String::from_utf8_lossy(&line[8..]).trim(), wanted.to_str().unwrap());
    // It is a child of the shim all the same, and ends as one.
    shim.signal(ProcessRef::Init, 9).await.unwrap();
    assert_eq!(exit_of(&mut events, &ProcessRef::Init).await.signal, Some(9));
    released(&mut events).await;
    ground.assert_gone(&config);
}

async fn out_of_memory(ground: &Ground) {
    let config = ground.prepare("exec dd if=/dev/zero of=/dev/null bs=100M count=1", |spec, _| {
        let resources = serde_json::json!({ "memory": { "limit": 8_000_000, "swap": 8_000_000 } });
        spec.linux.as_mut().unwrap().resources = Some(serde_json::from_value(resources).unwrap());
    });
    let shim = ground.spawn(&config).await;
    let mut events = shim.events();
    shim.start().await.unwrap();
    let exit = exit_of(&mut events, &ProcessRef::Init).await;
    assert_eq!((exit.code, exit.oom_killed), (137, true));
}

async fn shared_pids_are_killed(ground: &Ground) {
    let config = ground.prepare("sleep 1000 & echo $!; exit 0", |spec, _| {
        let linux = spec.linux.as_mut().unwrap();
        linux.namespaces.retain(|n| n.kind != silo_oci::runtime::NamespaceKind::Pid);
        spec.mounts.retain(|mount| mount.destination != Path::new("/proc"));
    });
    let shim = ground.spawn(&config).await;
    let mut events = shim.events();
    let mut client = shim.attach(ProcessRef::Init, OUTPUT).await.unwrap().stream;
    shim.start().await.unwrap();
    let pid = output(&mut client).await;
    assert_eq!(exit_of(&mut events, &ProcessRef::Init).await.code, 0);
    released(&mut events).await;
    ground.assert_gone(&config);
    assert!(!Path::new("/proc").join(pid.trim()).join("exe").exists());
}

async fn much_output(ground: &Ground) {
    const BYTES: usize = 1 << 30;
    let config = ground.prepare("read x", |_, config| {
        config.open_stdin = true;
        config.log = LogConfig::default();
    });
    let shim = ground.spawn(&config).await;
    shim.start().await.unwrap();
    let begin = Instant::now();
    let spec = exec(&format!("head -c {BYTES} /dev/zero"));
    let (_, mut client) = shim.exec_attached(spec).await.unwrap();
    let mut buffer = vec![0; 1 << 20];
    let (mut total, mut frames) = (0, 0);
    let mut header = [0; 8];
    while client.read_exact(&mut header).await.is_ok() {
        let length = u32::from_be_bytes(*header.last_chunk().unwrap());
        let length = usize::try_from(length).unwrap();
        client.read_exact(&mut buffer[..length]).await.unwrap();
        total += length;
        frames += 1;
    }
    assert_eq!(total, BYTES);
    println!("1 GiB in {} frames took {:?}", frames, begin.elapsed());
    println!("shim: {}", memory(shim.shim_pid()));
}

fn memory(pid: i32) -> String {
    let text = fs_err::read_to_string(format!("/proc/{pid}/smaps_rollup")).unwrap();
    let wanted = |line: &&str| {
        ["Rss", "Pss:", "Private_Dirty", "Private_Clean"].iter().any(|name| line.starts_with(name))
    };
    let lines: Vec<_> = text.lines().filter(wanted).collect();
    lines.join(", ").split_whitespace().collect::<Vec<_>>().join(" ")
}

async fn costs(ground: &Ground) {
    let mut times = [vec![], vec![], vec![], vec![]];
    for _ in 0..20 {
        let config = ground.prepare("true", |spec, _| {
            spec.process.as_mut().unwrap().args = vec!["true".into()];
        });
        let begin = Instant::now();
        let shim = ground.spawn(&config).await;
        times[0].push(begin.elapsed());
        let mut events = shim.events();
        let _client = shim.attach(ProcessRef::Init, OUTPUT).await.unwrap().stream;
        shim.start().await.unwrap();
        times[1].push(begin.elapsed());
        exit_of(&mut events, &ProcessRef::Init).await;
        times[2].push(begin.elapsed());
        released(&mut events).await;
        times[3].push(begin.elapsed());
    }
    for (name, times) in ["created", "started", "exited", "released"].iter().zip(&mut times) {
        times.sort();
        println!("{name}: median {:?}", times[times.len() / 2]);
    }
    // With Docker's filter, which makes the configuration large.
    let release = rustix::system::uname().release().to_string_lossy().into_owned();
    let profile =
        silo_seccomp::default_profile(&["CAP_KILL"], &silo_seccomp::Host::new(&release).unwrap());
    let config = ground.prepare("read x", |spec, config| {
        config.open_stdin = true;
        spec.linux.as_mut().unwrap().seccomp = Some(profile);
        spec.process.as_mut().unwrap().no_new_privileges = true;
    });
    let begin = Instant::now();
    let shim = ground.spawn(&config).await;
    println!("created with a filter: {:?}", begin.elapsed());
    shim.start().await.unwrap();
    println!("idle shim: {}", memory(shim.shim_pid()));
    let error = shim.start().await.unwrap_err();
    assert_eq!(error.kind(), silo_types::ErrorKind::Conflict);
}
