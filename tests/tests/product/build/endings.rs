//! Builds that fail, are cancelled, or lose their client or the daemon: nothing is left of them but
//! the steps that they had finished.

use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader, Read, Write as _};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use fs_err as fs;
use rustix::process::{Pid, Signal, kill_process};
use silo_tests::{Engine, FileServer, Page, WindowsEngine};

use super::{build, built, context, shell};
use crate::crash::{Random, entries, processes};

/// How long what was cancelled may take to go.
const LIMIT: Duration = Duration::from_mins(1);

/// What there is of builds and containers.
fn left(engine: &Engine) -> Vec<String> {
    let (data, run) = (engine.data_root(), engine.run_root());
    let mut found = Vec::new();
    let folders = ["containers", "snapshots", "trash", "content/ingest", "build/scratch"];
    let folders = folders.map(|name| data.join(name)).into_iter().chain([run.join("shims")]);
    for folder in folders {
        let names = entries(&folder).into_iter().filter(|name| !name.starts_with('.'));
        found.extend(names.map(|name| format!("{}/{name}", folder.display())));
    }
    let own = engine.daemon_pid();
    let processes = processes(&data.display().to_string()).into_iter().filter(|pid| *pid != own);
    found.extend(processes.map(|pid| format!("process {pid}")));
    let mounts = fs::read_to_string("/proc/self/mountinfo").expect("mounts");
    let inside = format!("{}/", data.display());
    found.extend(mounts.lines().filter(|line| line.contains(&inside)).map(str::to_owned));
    for group in engine.cgroups() {
        let groups = entries(&group).into_iter().filter(|name| group.join(name).is_dir());
        found.extend(groups.map(|name| format!("{}/{name}", group.display())));
    }
    found
}

/// Waits until nothing is left.
#[track_caller]
fn quiet(engine: &Engine) {
    let end = Instant::now() + LIMIT;
    loop {
        let left = left(engine);
        if left.is_empty() {
            break;
        }
        assert!(Instant::now() < end, "{left:#?}\n{}", engine.daemon_log());
        std::thread::yield_now();
    }
    assert_eq!(engine.ok(&["ps", "-aq"]), "");
}

/// The layers in the store.
fn layers(engine: &Engine) -> Vec<String> {
    let mut names = entries(&engine.data_root().join("layers"));
    names.sort();
    names
}

/// Removes what builds have left for later ones.
#[track_caller]
fn forget(engine: &Engine) {
    engine.ok(&["image", "prune", "-f"]);
    engine.ok(&["builder", "prune", "-af"]);
}

/// The ways to build with a command line that can be interrupted.
const WAYS: [&str; 2] = ["docker", "silo"];

fn command(engine: &Engine, way: &str, context: &Path) -> Command {
    let mut command = if way == "silo" { engine.silo_command() } else { engine.docker_command() };
    command.env("DOCKER_BUILDKIT", "0").args(["build"]).arg(context);
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

/// Starts a build and reads on until a step writes `begun`.
#[track_caller]
fn begin(engine: &Engine, way: &str, context: &Path) -> Child {
    let mut child = command(engine, way, context).spawn().expect("start a build");
    let (stdout, stderr) = (child.stdout.take(), child.stderr.take());
    let output: Box<dyn Read + Send> = match way {
        "silo" => Box::new(stderr.expect("output")),
        _ => Box::new(stdout.expect("output")),
    };
    let mut lines = BufReader::new(output).lines().map_while(Result::ok);
    let begun = lines.any(|line| line == "begun" || line.ends_with(" begun"));
    assert!(begun, "{way}: the step did not begin\n{}", engine.daemon_log());
    // Whoever waits for it later finds it reading.
    std::thread::spawn(move || lines.for_each(drop));
    child
}

fn signal(child: &Child, signal: Signal) {
    let pid = i32::try_from(child.id()).ok().and_then(Pid::from_raw).expect("a pid");
    kill_process(pid, signal).expect("send a signal");
}

const ENDLESS: &str = "FROM busybox\nRUN echo first > /first\nRUN echo begun; sleep 1000\n";

#[test]
fn nothing_is_left_of_builds_that_end_early() {
    let mut engine = Engine::start();
    if !engine.is_silo_or_skip("looks into Silo's own files") {
        return;
    }
    let before = layers(&engine);
    let fails = context(&engine, &[("Dockerfile", "FROM busybox\nRUN touch /x\nRUN exit 1\n")]);
    assert_eq!(build(&engine, &fails, &[]).code, 1);
    quiet(&engine);
    let endless = context(&engine, &[("Dockerfile", ENDLESS)]);
    for way in WAYS {
        // Ctrl-C, and a client that just goes.
        for number in [Signal::INT, Signal::KILL] {
            let mut child = begin(&engine, way, &endless);
            assert_eq!(engine.ok(&["ps", "-aq"]), "", "steps are not listed");
            signal(&child, number);
            let status = child.wait().expect("wait for the client");
            // docker's own ends with 0 when the connection goes before it sees its signal.
            assert!(way == "docker" || !status.success(), "{way}: {status}");
            quiet(&engine);
        }
        // A daemon that is killed, at the latest when the next one starts.
        let mut child = begin(&engine, way, &endless);
        engine.kill_daemon();
        let status = child.wait().expect("wait for the client");
        assert!(!status.success(), "{way}: {status}");
        engine.start_daemon();
        quiet(&engine);
        // One that is asked to end waits until nothing of its builds is left.
        let mut child = begin(&engine, way, &endless);
        engine.stop_daemon();
        assert!(engine.cgroups().is_empty(), "{:?}", engine.cgroups());
        assert!(!child.wait().expect("wait for the client").success(), "{way}");
        engine.start_daemon();
        crate::crash::nothing_is_left(&engine);
    }
    // What was finished stays.
    let first = context(&engine, &[("Dockerfile", "FROM busybox\nRUN echo first > /first\n")]);
    assert!(built(&engine, &first, &[]).contains(" ---> Using cache\n"));
    forget(&engine);
    assert_eq!(layers(&engine), before);
}

#[test]
fn connections_are_cut() {
    let engine = Engine::start();
    if !engine.is_silo_or_skip("looks into Silo's own files") {
        return;
    }
    let before = layers(&engine);
    let endless = context(&engine, &[("Dockerfile", ENDLESS)]);
    fs::write(endless.join("large"), vec![7; 4 << 20]).expect("a file");
    let archive = Command::new("tar").arg("-C").arg(&endless).args(["-c", "."]).output();
    let archive = archive.expect("run tar").stdout;
    let send = |length: usize| {
        let mut stream = UnixStream::connect(engine.socket()).expect("connect to the engine");
        let head = format!(
            "POST /build?nocache=1 HTTP/1.1\r\nHost: engine\r\nContent-Type: application/x-tar\r\n\
             Content-Length: {}\r\n\r\n",
            archive.len()
        );
        stream.write_all(head.as_bytes()).expect("a head");
        stream.write_all(&archive[..length]).expect("a context");
        stream
    };
    // In the midst of the context, and in the midst of a step.
    for length in [0, 600, archive.len() / 2, archive.len() - 1] {
        drop(send(length));
        quiet(&engine);
    }
    let in_chunks = || {
        let mut stream = UnixStream::connect(engine.socket()).expect("connect to the engine");
        let head = "POST /build?nocache=1 HTTP/1.1\r\nHost: engine\r\n\
                    Content-Type: application/x-tar\r\nTransfer-Encoding: chunked\r\n\r\n";
        let chunk = [format!("{:x}\r\n", archive.len()).as_bytes(), &archive, b"\r\n"].concat();
        stream.write_all(head.as_bytes()).expect("a head");
        stream.write_all(&chunk).expect("a context");
        stream.write_all(b"0\r\n\r\n").expect("its end");
        stream
    };
    // Without a body, of which the end would say nothing.
    let pages = [("/Dockerfile".to_owned(), Page::File(ENDLESS.into()))];
    let server = FileServer::start(BTreeMap::from(pages));
    let from_elsewhere = || {
        let mut stream = UnixStream::connect(engine.socket()).expect("connect to the engine");
        let url = format!("http%3A%2F%2F127.0.0.1%3A{}%2FDockerfile", server.port());
        let head = format!("POST /build?nocache=1&remote={url} HTTP/1.1\r\nHost: engine\r\n\r\n");
        stream.write_all(head.as_bytes()).expect("a head");
        stream
    };
    for mut stream in [send(archive.len()), in_chunks(), from_elsewhere()] {
        let mut said = Vec::new();
        while !String::from_utf8_lossy(&said).contains("begun\\n\"}") {
            let mut part = [0; 4096];
            let length = stream.read(&mut part).expect("read");
            assert_ne!(length, 0, "{}", String::from_utf8_lossy(&said));
            said.extend_from_slice(&part[..length]);
        }
        drop(stream);
    }
    quiet(&engine);
    forget(&engine);
    assert_eq!(layers(&engine), before);
}

/// Clients and daemons are killed while files are sent and copied, at moments that nobody chose.
#[test]
fn copies_are_whole_or_not_there() {
    const FILES: usize = 400;
    let mut engine = Engine::start();
    if !engine.is_silo_or_skip("kills Silo's own processes") {
        return;
    }
    let before = layers(&engine);
    let dockerfile = "FROM busybox AS one\nCOPY files /files\nFROM busybox\n\
        COPY --from=one /files /copied\nRUN ls /copied | wc -l > /count\n";
    let context = context(&engine, &[("Dockerfile", dockerfile), ("files/", "")]);
    for number in 0..FILES {
        fs::write(context.join(format!("files/{number}")), "all of it").expect("a file");
    }
    let begin = Instant::now();
    built(&engine, &context, &["--no-cache"]);
    let duration = u64::try_from(begin.elapsed().as_micros()).expect("a short time");
    let mut random = Random::new();
    for round in 0..8 {
        forget(&engine);
        let way = WAYS[round % 2];
        let mut client = command(&engine, way, &context);
        let mut client = client.stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect(way);
        // The random moment is the point: nothing is waited for but time.
        let until = Instant::now() + Duration::from_micros(random.below(duration));
        while let Some(left) = until.checked_duration_since(Instant::now()) {
            std::thread::park_timeout(left);
        }
        if round % 4 < 2 {
            engine.kill_daemon();
            client.wait().expect("wait for the client");
            engine.start_daemon();
        } else {
            client.kill().expect("kill the client");
            client.wait().expect("wait for the client");
        }
        quiet(&engine);
        // Whatever of it is in the cache now is whole.
        built(&engine, &context, &["-t", "whole"]);
        assert_eq!(shell(&engine, "whole", "cat /count"), FILES.to_string(), "{round}");
        let bytes = shell(&engine, "whole", "find /copied -type f -exec cat {} + | wc -c");
        assert_eq!(bytes, (FILES * "all of it".len()).to_string(), "{round}");
        engine.ok(&["rmi", "whole"]);
    }
    forget(&engine);
    quiet(&engine);
    assert_eq!(layers(&engine), before);
}

#[test]
fn nothing_is_left_of_windows_builds_that_end_early() {
    let Some(mut engine) = WindowsEngine::start_or_skip() else { return };
    let dockerfile = "FROM silo/servercore:ltsc2019\n\
        RUN reg add HKLM\\Software\\First /v A /d b /f\n\
        RUN echo begun& ping -n 1000 127.0.0.1 >nul\n";
    let endless = context(&engine, &[("Dockerfile", dockerfile)]);
    for way in WAYS {
        let mut child = begin(&engine, way, &endless);
        signal(&child, Signal::INT);
        let status = child.wait().expect("wait for the client");
        assert!(way == "docker" || !status.success(), "{way}: {status}");
        quiet(&engine);
        let mut child = begin(&engine, way, &endless);
        engine.kill_daemon();
        assert!(!child.wait().expect("wait for the client").success(), "{way}");
        engine.start_daemon();
        quiet(&engine);
    }
    let text = "FROM silo/servercore:ltsc2019\nRUN reg add HKLM\\Software\\First /v A /d b /f\n\
        RUN reg query HKLM\\Software\\First /v A\n";
    let whole = context(&engine, &[("Dockerfile", text)]);
    let said = built(&engine, &whole, &[]);
    assert!(said.contains("Using cache") && said.contains("REG_SZ    b"), "{said}");
}
