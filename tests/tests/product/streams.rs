//! Attached streams: terminals, half-close, detaching, raw hijacks.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;

use silo_tests::Engine;

fn hijack(
    engine: &Engine,
    target: &str,
    upgrade: bool,
    body: &str,
) -> (String, UnixStream, Vec<u8>) {
    let mut stream = UnixStream::connect(engine.socket()).expect("connect");
    let extra = if upgrade { "Connection: Upgrade\r\nUpgrade: tcp\r\n" } else { "" };
    write!(
        stream,
        "POST {target} HTTP/1.1\r\nHost: e\r\n{extra}Content-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    )
    .expect("send");
    let mut head = Vec::new();
    let mut byte = [0];
    while !head.ends_with(b"\r\n\r\n") {
        assert_eq!(stream.read(&mut byte).expect("receive"), 1, "the head ended early");
        head.push(byte[0]);
    }
    (String::from_utf8(head).expect("a head"), stream, Vec::new())
}

#[test]
fn attach_with_and_without_upgrade() {
    let engine = Engine::start();
    for upgrade in [true, false] {
        let name = engine.name(&format!("hijack{upgrade}"));
        engine.ok(&["create", "-i", "--name", &name, "busybox", "sh", "-c", "wc -c; echo err >&2"]);
        let (head, mut stream, _) = hijack(
            &engine,
            &format!("/v1.41/containers/{name}/attach?stream=1&stdin=1&stdout=1&stderr=1"),
            upgrade,
            "",
        );
        let status = if upgrade { "HTTP/1.1 101" } else { "HTTP/1.1 200" };
        assert!(head.starts_with(status), "{head}");
        assert!(head.contains("application/vnd.docker.raw-stream"), "{head}");
        engine.ok(&["start", &name]);
        stream.write_all(&vec![b'z'; 70_000]).expect("send");
        stream.shutdown(std::net::Shutdown::Write).expect("half-close");
        let mut frames = Vec::new();
        stream.read_to_end(&mut frames).expect("receive");
        let (out, err) = (b"\x01\0\0\0\0\0\0\x0670000\n", b"\x02\0\0\0\0\0\0\x04err\n");
        // Which of the two streams is read first is open.
        let either = [[&out[..], &err[..]].concat(), [&err[..], &out[..]].concat()];
        assert!(either.contains(&frames), "{upgrade}: {frames:?}");
        engine.ok(&["rm", "-f", &name]);
    }
}

/// A client that has sent the head of a request and not yet its body finds the connection open,
/// whatever the answer is.
#[test]
fn bodies_that_nobody_reads_are_taken() {
    let engine = Engine::start();
    for (target, status) in [("/v1.41/images/absent/tag?repo=x", 404), ("/v1.41/_ping", 200)] {
        let method = if status == 200 { "GET" } else { "POST" };
        let mut stream = UnixStream::connect(engine.socket()).expect("connect");
        for round in 0..2 {
            write!(stream, "{method} {target} HTTP/1.1\r\nHost: e\r\nContent-Length: 3\r\n\r\n")
                .expect("send a head");
            // The engine has had its time when it has answered others.
            for _ in 0..5 {
                assert_eq!(engine.http("GET", "/_ping", "").status, 200);
            }
            stream.write_all(b"{}\n").expect("send a body");
            let mut answer = Vec::new();
            let mut buffer = [0; 4096];
            while !answer.windows(4).any(|end| end == b"\r\n\r\n") {
                let count = stream.read(&mut buffer).expect("receive");
                assert!(count > 0, "round {round}: the connection ended");
                answer.extend_from_slice(&buffer[..count]);
            }
            let answer = String::from_utf8_lossy(&answer);
            assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{round}: {answer}");
            // The rest of the answer's body, if it did not come with its head.
            let (head, body) = answer.split_once("\r\n\r\n").expect("a head");
            let length = head.to_ascii_lowercase();
            let length = length.lines().find_map(|line| line.strip_prefix("content-length: "));
            let length: usize = length.expect("a length").parse().expect("a number");
            stream.read_exact(&mut vec![0; length - body.len()]).expect("the rest");
        }
    }
}

#[test]
fn exec_terminal_is_raw() {
    let engine = Engine::start();
    let name = engine.name("tty");
    engine.ok(&["run", "-d", "--name", &name, "busybox", "sleep", "100"]);
    let body =
        r#"{"Cmd":["sh","-c","tty; stty size"],"Tty":true,"AttachStdout":true,"AttachStdin":true}"#;
    let created = engine.http("POST", &format!("/containers/{name}/exec"), body).json();
    let id = created["Id"].as_str().expect("an id");
    let (head, mut stream, _) =
        hijack(&engine, &format!("/exec/{id}/start"), true, r#"{"Tty":true,"Detach":false}"#);
    assert!(head.starts_with("HTTP/1.1 101"), "{head}");
    let mut text = String::new();
    stream.read_to_string(&mut text).expect("receive");
    assert!(text.starts_with("/dev/pts/"), "{text:?}");
    engine.ok(&["rm", "-f", &name]);
}

#[test]
fn detach_keys_leave_the_container_running() {
    let engine = Engine::start();
    let name = engine.name("detach");
    engine.ok(&["run", "-dit", "--name", &name, "busybox", "cat"]);
    let (_, mut stream, _) = hijack(
        &engine,
        &format!(
            "/v1.41/containers/{name}/attach?stream=1&stdin=1&stdout=1&stderr=1&detachKeys=ctrl-x,x"
        ),
        true,
        "",
    );
    stream.write_all(b"hello\n").expect("send");
    let mut seen = Vec::new();
    let mut byte = [0];
    // The terminal echoes the line, and cat prints it.
    while seen.windows(5).filter(|part| part == b"hello").count() < 2 {
        assert_eq!(stream.read(&mut byte).expect("receive"), 1);
        seen.push(byte[0]);
    }
    stream.write_all(b"\x18x").expect("send");
    let mut rest = Vec::new();
    stream.read_to_end(&mut rest).expect("the stream ends");
    assert_eq!(engine.inspect(&name)["State"]["Running"], true);
    let resized = engine.http("POST", &format!("/containers/{name}/resize?h=33&w=99"), "");
    assert_eq!(resized.status, 200);
    engine.ok(&["rm", "-f", &name]);
}

#[test]
fn many_bytes_pass_unchanged() {
    let engine = Engine::start();
    let input: Vec<u8> = (0..2_000_000u32).flat_map(u32::to_le_bytes).collect();
    let mut child = engine
        .docker_command()
        .args(["run", "--rm", "-i", "busybox", "md5sum"])
        .stdin(std::process::Stdio::piped())
        .stdout(std::process::Stdio::piped())
        .spawn()
        .expect("run docker");
    child.stdin.take().expect("stdin").write_all(&input).expect("send");
    let sum = child.wait_with_output().expect("wait").stdout;
    let mut local = std::process::Command::new("md5sum")
        .stdin(std::process::Stdio::piped())
        .stdout(std::process::Stdio::piped())
        .spawn()
        .expect("run md5sum");
    local.stdin.take().expect("stdin").write_all(&input).expect("send");
    assert_eq!(sum, local.wait_with_output().expect("wait").stdout);
}
