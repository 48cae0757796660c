//! The supervisor with ordinary programs in place of containers.

use std::ffi::CString;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::thread::JoinHandle;

use rustix::event::PollFlags;
use rustix::process::Pid;
use silo_oci::runtime::Process;
use silo_runtime::Stdio;
use silo_sys::spawn::Spawned;
use silo_types::{ContainerId, ExecId};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::mpsc::UnboundedReceiver;

use super::compute::{Compute, Launched};
use super::set_up;
use crate::config::{ConsoleSize, LogConfig, LogDriver, RootConfig, ShimConfig};
use crate::exit::ExitRecord;
use crate::logs::writer::LogWriter;
use crate::logs::{self, ReadOptions};
use crate::protocol::{AtEof, AttachOptions, Event, ExecSpec, Failure, ProcessRef, Status};
use crate::{AttachStream, Shim, ShimError};

/// Runs `script` when started.
struct Fake {
    script: String,
    gate: Option<OwnedFd>,
    pid: Option<Pid>,
    fail_start: bool,
}

impl Fake {
    fn launch(args: &[&str], stdio: Stdio, gate: Option<OwnedFd>) -> Launched {
        let (mut fds, mut console) = (Vec::new(), None);
        match stdio {
            Stdio::Fds { stdin, stdout, stderr } => {
                fds.extend(stdin.map(|fd| (fd, 0)));
                fds.extend(stdout.map(|fd| (fd, 1)));
                fds.extend(stderr.map(|fd| (fd, 2)));
            }
            Stdio::Terminal { size } => {
                let master = silo_sys::pty::open_master(None).unwrap();
                if let Some(size) = size {
                    silo_sys::pty::set_size(&master, size).unwrap();
                }
                let peer = silo_sys::pty::open_peer(&master).unwrap();
                for number in 0..3 {
                    fds.push((peer.try_clone().unwrap(), number));
                }
                console = Some(master);
            }
            Stdio::Inherit => unreachable!(),
        }
        fds.extend(gate.map(|gate| (gate, 3)));
        let exe = fs_err::File::open("/bin/sh").unwrap();
        let argv: Vec<_> = args.iter().map(|&arg| CString::new(arg).unwrap()).collect();
        let fds: Vec<_> = fds.iter().map(|(fd, number)| (fd.as_fd(), *number)).collect();
        let env = [c"PATH=/usr/bin:/bin".to_owned()];
        let Spawned { pid, pidfd } =
            silo_sys::spawn::spawn(exe.as_fd(), &argv, &env, &fds).unwrap();
        Launched { pid, pidfd, console }
    }
}

impl Compute for Fake {
    fn create(&mut self, stdio: Stdio) -> Result<Launched, Failure> {
        let (read, write) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC).unwrap();
        self.gate = Some(write);
        let script = format!("read _ <&3; exec 3<&-; {}", self.script);
        let launched = Self::launch(&["sh", "-c", &script], stdio, Some(read));
        self.pid = Some(launched.pid);
        Ok(launched)
    }

    fn start(&mut self) -> Result<(), Failure> {
        if self.fail_start {
            let message = "exec: \"x\": executable file not found in $PATH".into();
            return Err(Failure { status: 400, message, exit_code: Some(127) });
        }
        rustix::io::write(self.gate.take().unwrap(), b"\n").unwrap();
        Ok(())
    }

    fn exec(
        &mut self,
        _: (Pid, BorrowedFd<'_>),
        process: &Process,
        stdio: Stdio,
    ) -> Result<Launched, Failure> {
        let args: Vec<&str> = process.args.iter().map(String::as_str).collect();
        Ok(Self::launch(&args, stdio, None))
    }

    fn signal_all(&mut self, signal: i32) -> Result<(), Failure> {
        let signal = rustix::process::Signal::from_named_raw(signal).unwrap();
        rustix::process::kill_process_group(self.pid.unwrap(), signal).unwrap();
        Ok(())
    }

    fn kill_all(&mut self) {
        self.kill_rest();
    }

    fn kill_rest(&mut self) {
        // Each script is a session and so a group; those of it that live on go with it.
        let kill = rustix::process::Signal::KILL;
        rustix::process::kill_process_group(self.pid.unwrap(), kill).unwrap_or_default();
    }

    fn oom(&self) -> Option<(BorrowedFd<'_>, PollFlags)> {
        None
    }

    fn take_oom(&mut self) -> bool {
        false
    }

    fn destroy(&mut self) {}
}

struct Harness {
    dir: tempfile::TempDir,
    config: ShimConfig,
    thread: Option<JoinHandle<()>>,
}

impl Harness {
    fn start(script: &str, change: impl FnOnce(&mut ShimConfig)) -> Self {
        Self::start_fake(script, false, change)
    }

    fn start_fake(script: &str, fail_start: bool, change: impl FnOnce(&mut ShimConfig)) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let id = ContainerId::random();
        // As long as a user's run directory may make it.
        let run_dir = dir.path().join("r".repeat(120)).join(id.as_str());
        fs_err::create_dir_all(&run_dir).unwrap();
        let log = LogConfig::new(
            LogDriver::JsonFile,
            std::collections::BTreeMap::new(),
            std::collections::BTreeMap::new(),
            dir.path(),
            &id,
        );
        let mut config = ShimConfig {
            id,
            container_dir: dir.path().to_owned(),
            run_dir,
            cgroup: "none".into(),
            root: RootConfig::Path("/".into()),
            tty: false,
            console_size: None,
            open_stdin: false,
            stdin_once: false,
            log,
            init_binary: None,
            trees: Vec::new(),
            note: String::new(),
        };
        change(&mut config);
        let fake = Fake { script: script.into(), gate: None, pid: None, fail_start };
        let log = LogWriter::open(&config.log).unwrap();
        let supervisor = set_up(config.clone(), fake, log).unwrap();
        let thread = std::thread::spawn(|| supervisor.run());
        Self { dir, config, thread: Some(thread) }
    }

    async fn connect(&self) -> Shim {
        Shim::connect(&self.config.run_dir, self.config.id.as_str()).await.unwrap().0
    }

    fn path(&self) -> &Path {
        self.dir.path()
    }

    fn log(&self) -> String {
        fs_err::read_to_string(self.config.log.path.as_ref().unwrap()).unwrap()
    }

    /// The shim leaves by itself.
    async fn left(mut self) -> tempfile::TempDir {
        let thread = self.thread.take().unwrap();
        tokio::task::spawn_blocking(|| thread.join().unwrap()).await.unwrap();
        assert!(!self.config.socket_path().exists());
        self.dir
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

async fn frame(stream: &mut AttachStream) -> Option<(u8, Vec<u8>)> {
    let mut header = [0; 8];
    stream.read_exact(&mut header).await.ok()?;
    assert_eq!(header[1..4], [0; 3]);
    let length = u32::from_be_bytes(*header.last_chunk().unwrap());
    let mut bytes = vec![0; usize::try_from(length).unwrap()];
    stream.read_exact(&mut bytes).await.unwrap();
    Some((header[0], bytes))
}

/// Everything until the end, by stream number.
async fn frames(stream: &mut AttachStream) -> [Vec<u8>; 3] {
    let mut all = [vec![], vec![], vec![]];
    while let Some((number, bytes)) = frame(stream).await {
        all[usize::from(number)].extend(bytes);
    }
    all
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

#[tokio::test]
async fn output_is_framed_logged_and_followed_by_the_exit() {
    let harness = Harness::start("echo out; echo err >&2; printf end; exit 3", |_| ());
    let shim = harness.connect().await;
    let mut events = shim.events();
    let mut client = shim.attach(ProcessRef::Init, OUTPUT).await.unwrap();
    assert_eq!(shim.state().await.unwrap().status, Status::Created);
    shim.start().await.unwrap();
    let exit = exit_of(&mut events, &ProcessRef::Init).await;
    assert_eq!((exit.code, exit.signal, exit.error.clone()), (3, None, None));
    assert_eq!(crate::exit::read(harness.path()), Some(exit));
    let log = harness.log();
    for line in [
        r#"{"log":"out\n","stream":"stdout","#,
        r#"{"log":"err\n","stream":"stderr","#,
        r#"{"log":"end","stream":"stdout","#,
    ] {
        assert!(log.contains(line), "{log}");
    }
    let [_, out, err] = frames(&mut client.stream).await;
    assert_eq!((&out[..], &err[..]), (&b"out\nend"[..], &b"err\n"[..]));
    assert_eq!(events.recv().await, Some(Event::Released));
    assert_eq!(events.recv().await, Some(Event::Lost));
    harness.left().await;
}

#[tokio::test]
async fn input_from_before_the_start_is_kept() {
    let harness = Harness::start("cat", |config| {
        config.open_stdin = true;
        config.log = LogConfig::default();
    });
    let shim = harness.connect().await;
    let mut events = shim.events();
    let client = shim.attach(ProcessRef::Init, BOTH).await.unwrap().stream;
    let (mut read, mut write) = client.into_split();
    // More than a pipe and two sockets hold.
    let sent: Vec<u8> = (0..3_000_000_u32).flat_map(u32::to_le_bytes).collect();
    let expected = sent.clone();
    let writer = tokio::spawn(async move {
        write.write_all(&sent).await.unwrap();
        write.shutdown().await.unwrap();
    });
    shim.start().await.unwrap();
    let mut received = Vec::new();
    let mut header = [0; 8];
    while read.read_exact(&mut header).await.is_ok() {
        let length = usize::try_from(u32::from_be_bytes(*header.last_chunk().unwrap())).unwrap();
        let start = received.len();
        received.resize(start + length, 0);
        read.read_exact(&mut received[start..]).await.unwrap();
    }
    writer.await.unwrap();
    assert!(received == expected);
    assert_eq!(exit_of(&mut events, &ProcessRef::Init).await.code, 0);
    harness.left().await;
}

#[tokio::test]
async fn stdin_once_ends_with_its_client() {
    let harness = Harness::start("cat", |config| {
        config.open_stdin = true;
        config.stdin_once = true;
    });
    let shim = harness.connect().await;
    let mut events = shim.events();
    let options = AttachOptions { at_eof: AtEof::Ignore, ..BOTH };
    let mut client = shim.attach(ProcessRef::Init, options).await.unwrap().stream;
    client.write_all(b"x\n").await.unwrap();
    shim.start().await.unwrap();
    assert_eq!(frame(&mut client).await, Some((1, b"x\n".to_vec())));
    // Not a half-close: the client is gone altogether.
    drop(client);
    assert_eq!(exit_of(&mut events, &ProcessRef::Init).await.code, 0);
    harness.left().await;
}

#[tokio::test]
async fn detaching_leaves_the_process_alone() {
    let harness = Harness::start("cat; exit 5", |config| config.open_stdin = true);
    let shim = harness.connect().await;
    let mut events = shim.events();
    shim.start().await.unwrap();
    let options = AttachOptions { at_eof: AtEof::Detach, ..BOTH };
    for text in ["one\n", "two\n"] {
        let mut client = shim.attach(ProcessRef::Init, options).await.unwrap().stream;
        client.write_all(text.as_bytes()).await.unwrap();
        assert_eq!(frame(&mut client).await, Some((1, text.into())));
        client.shutdown().await.unwrap();
        assert_eq!(frame(&mut client).await, None);
    }
    shim.close_stdin(ProcessRef::Init).await.unwrap();
    assert_eq!(exit_of(&mut events, &ProcessRef::Init).await.code, 5);
    harness.left().await;
}

#[tokio::test]
async fn a_client_that_went_away_does_not_hold_the_process() {
    let harness = Harness::start("head -c 5000000 /dev/zero | tr '\\0' a", |_| ());
    let shim = harness.connect().await;
    let mut events = shim.events();
    let mut client = shim.attach(ProcessRef::Init, OUTPUT).await.unwrap().stream;
    shim.start().await.unwrap();
    // It holds the process as long as it does not read; here it takes a little and goes.
    frame(&mut client).await.unwrap();
    drop(client);
    assert_eq!(exit_of(&mut events, &ProcessRef::Init).await.code, 0);
    let log = harness.log();
    let bytes: usize = log.lines().map(|line| line.matches('a').count()).sum();
    // Each record has one further, in "stream".
    assert_eq!(bytes - log.lines().count(), 5_000_000);
    assert!(log.lines().all(|line| line.len() <= 16384 + 80));
    harness.left().await;
}

#[tokio::test]
async fn a_slow_client_gets_everything_after_the_end() {
    let harness = Harness::start("head -c 3000000 /dev/zero; touch done", |config| {
        config.log = LogConfig::default();
    });
    let shim = harness.connect().await;
    let mut events = shim.events();
    let mut client = shim.attach(ProcessRef::Init, OUTPUT).await.unwrap().stream;
    shim.start().await.unwrap();
    let [_, out, _] = frames(&mut client).await;
    assert_eq!(out.len(), 3_000_000);
    exit_of(&mut events, &ProcessRef::Init).await;
    harness.left().await;

    // Little enough to fit in pipe and socket: the end comes first, the reading after it.
    let harness = Harness::start("head -c 200000 /dev/zero", |_| ());
    let shim = harness.connect().await;
    let mut events = shim.events();
    let mut client = shim.attach(ProcessRef::Init, OUTPUT).await.unwrap().stream;
    shim.start().await.unwrap();
    exit_of(&mut events, &ProcessRef::Init).await;
    assert_eq!(events.recv().await, Some(Event::Released));
    let [_, out, _] = frames(&mut client).await;
    assert_eq!(out.len(), 200_000);
    harness.left().await;
}

#[tokio::test]
async fn another_daemon_finds_everything() {
    let harness = Harness::start("read x; echo got $x; exit 7", |c| c.open_stdin = true);
    let first = harness.connect().await;
    let second = harness.connect().await;
    first.start().await.unwrap();
    drop(first);
    let (third, state) =
        Shim::connect(&harness.config.run_dir, harness.config.id.as_str()).await.unwrap();
    assert_eq!(state.status, Status::Running);
    assert_eq!(state.pid, second.pid());
    assert!(state.started_at > 0);
    let (mut one, mut two) = (second.events(), third.events());
    let mut client = third.attach(ProcessRef::Init, BOTH).await.unwrap().stream;
    drop(third);
    client.write_all(b"it\n").await.unwrap();
    let [_, out, _] = frames(&mut client).await;
    assert_eq!(out, b"got it\n");
    let exit = exit_of(&mut one, &ProcessRef::Init).await;
    assert_eq!(exit.code, 7);
    // Its subscription went with its connection.
    assert!(matches!(two.recv().await, Some(Event::Released | Event::Exited { .. })));
    let config = harness.config.clone();
    let dir = harness.left().await;
    assert_eq!(crate::exit::read(dir.path()), Some(exit));
    let gone = Shim::connect(&config.run_dir, config.id.as_str()).await;
    assert!(matches!(gone, Err(ShimError::Connect { .. })));
}

fn exec(script: &str, terminal: bool) -> ExecSpec {
    ExecSpec {
        id: ExecId::random(),
        process: Process {
            args: ["sh", "-c", script].map(String::from).to_vec(),
            cwd: "/".into(),
            terminal,
            ..Process::default()
        },
        console_size: None,
        attach: OUTPUT,
    }
}

#[tokio::test]
async fn processes_beside_the_first() {
    let harness = Harness::start("read _", |config| config.open_stdin = true);
    let shim = harness.connect().await;
    let mut events = shim.events();
    let early = shim.exec(exec("true", false)).await.unwrap_err();
    assert_eq!(silo_types::Kind::kind(&early), silo_types::ErrorKind::Conflict);
    shim.start().await.unwrap();

    let spec = exec("echo o; echo e >&2; exit 4", false);
    let id = ProcessRef::Exec(spec.id.clone());
    let (pid, mut client) = shim.exec_attached(spec).await.unwrap();
    assert!(pid > 1);
    let [_, out, err] = frames(&mut client).await;
    assert_eq!((&out[..], &err[..]), (&b"o\n"[..], &b"e\n"[..]));
    assert_eq!(exit_of(&mut events, &id).await.code, 4);

    // Input, and its end.
    let spec = ExecSpec { attach: BOTH, ..exec("cat; echo end", false) };
    let (_, mut client) = shim.exec_attached(spec).await.unwrap();
    client.write_all(b"in ").await.unwrap();
    client.shutdown().await.unwrap();
    assert_eq!(frames(&mut client).await[1], b"in end\n");

    // Without a client.
    let spec = exec("echo nobody; exit 1", false);
    let id = ProcessRef::Exec(spec.id.clone());
    shim.exec(spec).await.unwrap();
    assert_eq!(exit_of(&mut events, &id).await.code, 1);

    // A signal, and one too late.
    let spec = exec("exec sleep 100", false);
    let id = ProcessRef::Exec(spec.id.clone());
    shim.exec(spec).await.unwrap();
    let listed = shim.state().await.unwrap().execs;
    assert!(listed.iter().any(|exec| ProcessRef::Exec(exec.id.clone()) == id));
    shim.signal(id.clone(), 15).await.unwrap();
    let exit = exit_of(&mut events, &id).await;
    assert_eq!((exit.code, exit.signal), (143, Some(15)));
    let late = shim.signal(id, 15).await.unwrap_err();
    assert_eq!(silo_types::Kind::kind(&late), silo_types::ErrorKind::NotFound);

    // Others that hold the output keep its end back only for a while.
    let spec = exec("sleep 60 & echo parent", false);
    let id = ProcessRef::Exec(spec.id.clone());
    let begin = std::time::Instant::now();
    let (pid, mut client) = shim.exec_attached(spec).await.unwrap();
    assert_eq!(frames(&mut client).await[1], b"parent\n");
    assert_eq!(exit_of(&mut events, &id).await.code, 0);
    assert!(begin.elapsed() < std::time::Duration::from_secs(20));
    rustix::process::kill_process_group(Pid::from_raw(pid).unwrap(), rustix::process::Signal::KILL)
        .unwrap();

    // One that is left over ends with the container.
    let spec = exec("exec sleep 60", false);
    let id = ProcessRef::Exec(spec.id.clone());
    let pid = shim.exec(spec).await.unwrap();
    shim.close_stdin(ProcessRef::Init).await.unwrap();
    assert_eq!(exit_of(&mut events, &id).await.signal, Some(9));
    rustix::process::kill_process(Pid::from_raw(pid).unwrap(), rustix::process::Signal::KILL)
        .unwrap();
    harness.left().await;
}

#[tokio::test]
async fn terminals() {
    let script = "stty size; read x; stty size; echo \"<$x>\"";
    let harness = Harness::start(script, |config| {
        config.tty = true;
        config.open_stdin = true;
        config.console_size = Some(ConsoleSize { rows: 11, columns: 22 });
    });
    let shim = harness.connect().await;
    let mut events = shim.events();
    let mut client = shim.attach(ProcessRef::Init, BOTH).await.unwrap().stream;
    shim.start().await.unwrap();
    let mut text = Vec::new();
    while !text.ends_with(b"11 22\r\n") {
        let (number, bytes) = frame(&mut client).await.unwrap();
        assert_eq!(number, 1);
        text.extend(bytes);
    }
    shim.resize(ProcessRef::Init, ConsoleSize { rows: 5, columns: 6 }).await.unwrap();
    client.write_all(b"hey\n").await.unwrap();
    // The end of a client's input is no end of the terminal's.
    client.shutdown().await.unwrap();
    let [_, rest, _] = frames(&mut client).await;
    assert_eq!(String::from_utf8(rest).unwrap(), "hey\r\n5 6\r\n<hey>\r\n");
    assert_eq!(exit_of(&mut events, &ProcessRef::Init).await.code, 0);
    harness.left().await;
}

#[tokio::test]
async fn log_and_stream_meet_without_gap() {
    let script = "echo one; printf tw; read _; echo o; read _";
    let harness = Harness::start(script, |config| config.open_stdin = true);
    let shim = harness.connect().await;
    let mut first = shim.attach(ProcessRef::Init, BOTH).await.unwrap().stream;
    shim.start().await.unwrap();
    let mut seen = Vec::new();
    while seen != b"one\ntw" {
        seen.extend(frame(&mut first).await.unwrap().1);
    }
    let options = AttachOptions { unlogged: true, ..OUTPUT };
    let mut second = shim.attach(ProcessRef::Init, options).await.unwrap();
    first.write_all(b"\n").await.unwrap();
    assert_eq!(frame(&mut first).await.unwrap().1, b"o\n");
    // By now the log is ahead of the mark.
    let options = ReadOptions { before: second.mark, ..ReadOptions::default() };
    let mut lines = logs::read(&harness.config.log, options, std::future::pending());
    assert_eq!(lines.recv().await.unwrap().unwrap().bytes, b"one\n");
    assert!(lines.recv().await.is_none());
    assert_eq!(frame(&mut second.stream).await.unwrap().1, b"tw");
    assert_eq!(frame(&mut second.stream).await.unwrap().1, b"o\n");
    assert_eq!(harness.log().lines().count(), 2);
    first.shutdown().await.unwrap();
    harness.left().await;
}

#[tokio::test]
async fn a_program_that_cannot_run_gives_its_code() {
    let harness = Harness::start_fake("true", true, |_| ());
    let shim = harness.connect().await;
    let mut events = shim.events();
    let error = shim.start().await.unwrap_err();
    assert_eq!(error.exit_code(), Some(127));
    assert_eq!(error.to_string(), "exec: \"x\": executable file not found in $PATH");
    let exit = exit_of(&mut events, &ProcessRef::Init).await;
    assert_eq!((exit.code, exit.signal, exit.started_at), (127, None, 0));
    assert!(exit.error.unwrap().contains("not found"));
    harness.left().await;
}

#[tokio::test]
async fn nonsense_ends_only_its_connection() {
    let harness = Harness::start("read _", |config| config.open_stdin = true);
    let shim = harness.connect().await;
    let dir = fs_err::File::open(&harness.config.run_dir).unwrap();
    let path = format!("/proc/self/fd/{}/shim.sock", std::os::fd::AsRawFd::as_raw_fd(&dir));
    for nonsense in ["x\n", "{}\n", "{\"id\":1,\"call\":\"fly\"}\n", "\u{0}\n"] {
        let mut stream = tokio::net::UnixStream::connect(&path).await.unwrap();
        stream.write_all(nonsense.as_bytes()).await.unwrap();
        assert_eq!(stream.read(&mut [0; 16]).await.unwrap(), 0, "{nonsense:?}");
    }
    // An attachment without its socket is refused, and no later one is misled.
    let mut stream = tokio::net::UnixStream::connect(&path).await.unwrap();
    stream
        .write_all(b"{\"id\":9,\"call\":\"attach\",\"process\":\"init\",\"options\":{}}\n")
        .await
        .unwrap();
    let mut answer = [0; 512];
    let length = stream.read(&mut answer).await.unwrap();
    assert!(String::from_utf8_lossy(&answer[..length]).contains("no socket came along"));
    shim.start().await.unwrap();
    shim.shutdown().await.unwrap();
    let mut events = shim.events();
    assert_eq!(exit_of(&mut events, &ProcessRef::Init).await.signal, Some(9));
    harness.left().await;
}
