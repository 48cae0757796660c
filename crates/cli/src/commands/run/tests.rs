//! Commands against an engine that only answers what is written here.

use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::sync::{Arc, Mutex};

use super::*;

/// What an answer is, by the end of the request's path.
type Answers = fn(&str) -> String;

fn json(status: &str, body: &str) -> String {
    format!(
        "HTTP/1.1 {status}\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    )
}

fn answer_connection(stream: UnixStream, seen: &Mutex<Vec<String>>, answers: Answers) {
    let mut reader = BufReader::new(stream);
    loop {
        let mut line = String::new();
        if reader.read_line(&mut line).unwrap_or(0) == 0 {
            return;
        }
        let mut length = 0;
        loop {
            let mut header = String::new();
            reader.read_line(&mut header).unwrap();
            if header == "\r\n" {
                break;
            }
            if let Some(value) = header.to_lowercase().strip_prefix("content-length:") {
                length = value.trim().parse().unwrap();
            }
        }
        let mut body = vec![0; length];
        reader.read_exact(&mut body).unwrap();
        let request = line.rsplit_once(' ').unwrap().0.to_owned();
        seen.lock().unwrap().push(request.clone());
        let answer = answers(&request);
        reader.get_mut().write_all(answer.as_bytes()).unwrap();
        if answer.contains("101 UPGRADED") {
            return;
        }
    }
}

/// Runs a command against the answers. Returns its outcome and the requests in their order.
fn run_against(answers: Answers, args: &[&str]) -> (Outcome, Vec<String>) {
    let directory = tempfile::tempdir().unwrap();
    let socket = directory.path().join("s");
    let listener = UnixListener::bind(&socket).unwrap();
    let seen = Arc::new(Mutex::new(Vec::new()));
    let recorded = Arc::clone(&seen);
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let seen = Arc::clone(&recorded);
            std::thread::spawn(move || answer_connection(stream, &seen, answers));
        }
    });
    let config = directory.path().to_str().unwrap().to_owned();
    let host = format!("unix://{}", socket.display());
    let mut all = vec!["--config".to_owned(), config, "-H".to_owned(), host];
    all.extend(args.iter().map(ToString::to_string));
    let outcome = crate::context::run(&all);
    let seen = seen.lock().unwrap().clone();
    (outcome, seen)
}

fn container_that_exits_with_7(request: &str) -> String {
    match request {
        _ if request.contains("_ping") => {
            "HTTP/1.1 200 OK\r\nApi-Version: 1.41\r\nContent-Length: 0\r\n\r\n".into()
        }
        _ if request.contains("/create") => json("201 Created", r#"{"Id":"abc","Warnings":[]}"#),
        _ if request.contains("/attach") => "HTTP/1.1 101 UPGRADED\r\nConnection: Upgrade\r\n\
            Upgrade: tcp\r\n\r\n\u{2}\0\0\0\0\0\0\u{0}"
            .into(),
        _ if request.contains("/wait") => json("200 OK", r#"{"StatusCode":7}"#),
        _ => "HTTP/1.1 204 No Content\r\n\r\n".into(),
    }
}

#[test]
fn attaches_and_waits_before_it_starts() {
    let (outcome, seen) = run_against(
        container_that_exits_with_7,
        &["run", "--rm", "--name", "n", "busybox", "true"],
    );
    assert_eq!(outcome, Err(Failure::code(7)));
    let mut middle = seen[2..4].to_vec();
    middle.sort();
    assert_eq!(seen[0], "HEAD /_ping");
    assert_eq!(seen[1], "POST /v1.41/containers/create?name=n");
    assert_eq!(
        middle,
        [
            "POST /v1.41/containers/abc/attach?stream=1&stdout=1&stderr=1",
            "POST /v1.41/containers/abc/wait?condition=removed",
        ]
    );
    assert_eq!(seen[4], "POST /v1.41/containers/abc/start");
    assert_eq!(seen.len(), 5);
}

#[test]
fn detached_run_only_creates_and_starts() {
    let (outcome, seen) = run_against(container_that_exits_with_7, &["run", "-d", "busybox"]);
    assert_eq!(outcome, Ok(()));
    assert_eq!(
        seen,
        ["HEAD /_ping", "POST /v1.41/containers/create", "POST /v1.41/containers/abc/start"]
    );
}

#[test]
fn missing_programs_are_127() {
    let (outcome, _) = run_against(
        |request| {
            if request.contains("/start") {
                json(
                    "400 Bad Request",
                    r#"{"message":"exec: \"x\": executable file not found in $PATH"}"#,
                )
            } else {
                container_that_exits_with_7(request)
            }
        },
        &["run", "busybox", "x"],
    );
    let failure = outcome.unwrap_err();
    assert_eq!(failure.code, 127);
    assert_eq!(
        failure.message,
        "silo: Error response from daemon: exec: \"x\": executable file not found in $PATH\n\n\
         Run 'silo run --help' for more information"
    );
}

#[test]
fn wrong_use_has_dockers_words_and_codes() {
    for (args, message, code) in [
        (
            &["run", "--foo"][..],
            "unknown flag: --foo\n\nUsage:  silo run [OPTIONS] IMAGE [COMMAND] [ARG...]\n\nRun \
             'silo run --help' for more information",
            125,
        ),
        (
            &["run"],
            "silo: 'silo run' requires at least 1 argument\n\nUsage:  silo run [OPTIONS] IMAGE \
             [COMMAND] [ARG...]\n\nSee 'silo run --help' for more information",
            1,
        ),
        (
            &["ps", "x"],
            "silo: 'silo ps' accepts no arguments\n\nUsage:  silo ps [OPTIONS]\n\nRun 'silo ps \
             --help' for more information",
            1,
        ),
        (
            &["container", "foo"],
            "silo: unknown command: silo container foo\n\nUsage:  silo container\n\nRun 'silo \
             container --help' for more information",
            1,
        ),
        (&["foo"], "silo: unknown command: silo foo\n\nRun 'silo --help' for more information", 1),
        (
            &["run", "Foo"],
            "silo: invalid reference format: repository name (library/Foo) must be lowercase\n\n\
             Run 'silo run --help' for more information",
            125,
        ),
        (
            &["run", "-d", "-a", "stdout", "x"],
            "conflicting options: cannot specify both --attach and --detach",
            1,
        ),
    ] {
        let (outcome, _) = run_against(container_that_exits_with_7, args);
        let failure = outcome.unwrap_err();
        assert_eq!((failure.message.as_str(), failure.code), (message, code), "{args:?}");
    }
}

#[test]
fn codes_of_start_failures() {
    for (message, code) in [
        ("exec: \"x\": executable file not found in $PATH: unknown", 127),
        ("exec: \"/x\": stat /x: no such file or directory: unknown", 127),
        ("exec: \"/etc\": permission denied: unknown", 126),
        ("exec: \"/etc\": is a directory: unknown", 126),
        ("Conflict. The container name \"/x\" is already in use", 125),
    ] {
        assert_eq!(start_code(message), code, "{message}");
    }
}

#[test]
fn id_file_goes_away_unless_written() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("id");
    let text = path.to_str().unwrap();
    drop(IdFile::new(text).unwrap());
    assert!(fs_err::metadata(&path).is_err());
    IdFile::new(text).unwrap().write("abc").unwrap();
    assert_eq!(fs_err::read_to_string(&path).unwrap(), "abc");
    assert!(IdFile::new(text).err().unwrap().message.starts_with("container ID file found"));
}
