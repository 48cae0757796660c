//! Named pipes that lead to Unix sockets of the host.

use std::io::{Read, Write};
use std::os::unix::net::UnixListener;

use silo_tests::WindowsEngine;

use super::{CORE, program};

#[test]
fn the_engine_is_reached_by_its_pipe() {
    let Some(engine) = WindowsEngine::start_or_skip() else { return };
    let Some(node) = program("node", "C:\\node") else { return };
    let socket = engine.socket().display().to_string();
    let ask = "require('http').get({ socketPath: '\\\\\\\\.\\\\pipe\\\\docker_engine', \
        path: '/containers/json' }, (answer) => { let text = ''; \
        answer.on('data', (part) => text += part); \
        answer.on('end', () => console.log(JSON.parse(text)[0].Names[0])) })\
        .on('error', (error) => { console.log(error.code); process.exit(3) })";
    for (number, option) in [
        ["-v".to_owned(), format!("{socket}:\\\\.\\pipe\\docker_engine")],
        ["--mount".to_owned(), format!("type=npipe,source={socket},target=//./pipe/docker_engine")],
    ]
    .iter()
    .enumerate()
    {
        let name = engine.name(&format!("asks{number}"));
        let run = ["run", "--name", &name, "-v", &node, &option[0], &option[1], CORE];
        let text = engine.ok(&[&run[..], &["C:\\node\\node.exe", "-e", ask]].concat());
        assert_eq!(text, format!("/{name}"));
        let mounts = engine.inspect(&name)["Mounts"].clone();
        let pipe = mounts.as_array().expect("mounts").iter().find(|m| m["Type"] == "npipe");
        let pipe = pipe.expect("a named pipe");
        assert_eq!(pipe["Destination"], "\\\\.\\pipe\\docker_engine");
        assert_eq!(pipe["Source"], socket.as_str());
    }
}

/// Answers each client with what it says, when it has said everything, and ends with that.
fn echo(listener: &UnixListener) {
    for client in listener.incoming() {
        let Ok(mut client) = client else { return };
        std::thread::spawn(move || {
            let mut length = [0; 4];
            client.read_exact(&mut length)?;
            let mut text = vec![0; usize::try_from(u32::from_le_bytes(length)).expect("a size")];
            client.read_exact(&mut text)?;
            client.write_all(&text)
        });
    }
}

#[test]
fn many_clients_and_all_that_they_say() {
    let Some(engine) = WindowsEngine::start_or_skip() else { return };
    let Some(node) = program("node", "C:\\node") else { return };
    let path = engine.scratch().join("echo.sock");
    let listener = UnixListener::bind(&path).expect("a socket");
    std::thread::spawn(move || echo(&listener));
    let bind = format!("{}:\\\\.\\pipe\\app\\echo.1", path.display());
    let talk = "let done = 0; const say = (n) => { \
        const text = Buffer.alloc(n * 100000 + 1, 'x' + n), head = Buffer.alloc(4); \
        head.writeUInt32LE(text.length); \
        const pipe = require('net').connect('\\\\\\\\.\\\\pipe\\\\app\\\\echo.1'); \
        const parts = []; pipe.write(head); pipe.write(text); \
        pipe.on('data', (part) => parts.push(part)); \
        pipe.on('error', (error) => { console.log(error.message); process.exit(5) }); \
        pipe.on('close', () => { \
            if (!Buffer.concat(parts).equals(text)) { console.log('differs', n); process.exit(4) } \
            if (++done == 6) console.log('all'); if (done == 3) for (n of [3, 4, 5]) say(n) }) }; \
        for (const n of [0, 1, 2]) say(n)";
    let run = |user: &str, script: &str| {
        let run = ["run", "--rm", "-u", user, "-v", &node, "-v", &bind, CORE];
        engine.docker(&[&run[..], &["C:\\node\\node.exe", "-e", script]].concat())
    };
    for user in ["ContainerAdministrator", "ContainerUser"] {
        let outcome = run(user, talk);
        assert_eq!(outcome.stdout.trim_end(), "all", "{user}: {outcome:?}");
    }
}

#[test]
fn what_cannot_be_a_pipe_is_told() {
    let Some(engine) = WindowsEngine::start_or_skip() else { return };
    let socket = engine.socket().display().to_string();
    for (bind, why) in [
        ("\\\\.\\pipe\\a:\\\\.\\pipe\\a".to_owned(), "a Linux host has no named pipes"),
        ("/tmp:\\\\.\\pipe\\a".to_owned(), "leads to a Unix socket"),
        (format!("{socket}:\\\\.\\pipe\\a:ro"), "invalid volume specification"),
    ] {
        let said = engine.fails(125, &["run", "--rm", "-v", &bind, CORE, "cmd"]);
        assert!(said.contains(why), "{bind}: {said}");
    }
    let mount = format!("type=npipe,source={socket},target=C:\\x");
    let said = engine.fails(125, &["run", "--rm", "--mount", &mount, CORE, "cmd"]);
    assert!(said.contains("not a valid pipe path"), "{said}");
    // A socket that is gone at the start, and one that nobody serves.
    let path = engine.scratch().join("gone.sock");
    drop(UnixListener::bind(&path).expect("a socket"));
    let name = engine.name("gone");
    let bind = format!("{}:\\\\.\\pipe\\gone", path.display());
    let reach = "echo x> \\\\.\\pipe\\gone& echo alive";
    engine.ok(&["create", "--name", &name, "-v", &bind, CORE, "cmd", "/c", reach]);
    assert!(engine.ok(&["start", "-a", &name]).contains("alive"));
    fs_err::remove_file(&path).expect("remove");
    let said = engine.fails(1, &["start", &name]);
    assert!(said.contains("Unix socket"), "{said}");
    assert!(!path.exists());
}
