//! Attaching over a WebSocket, as browsers do.

use std::io::Write;
use std::os::unix::net::UnixStream;

use silo_tests::Engine;
use tungstenite::client::IntoClientRequest;
use tungstenite::protocol::Message;
use tungstenite::{HandshakeError, WebSocket};

/// Opens `/containers/...` or says with which status the engine refuses.
fn open(engine: &Engine, target: &str) -> Result<WebSocket<UnixStream>, u16> {
    let stream = UnixStream::connect(engine.socket()).expect("connect");
    let request = format!("ws://engine{target}").into_client_request().expect("a URL");
    match tungstenite::client(request, stream) {
        Ok((socket, _)) => Ok(socket),
        Err(HandshakeError::Failure(tungstenite::Error::Http(response))) => {
            Err(response.status().as_u16())
        }
        Err(error) => panic!("{target}: {error}"),
    }
}

/// All that comes until the engine closes, and whether it came as text.
fn read_all(socket: &mut WebSocket<UnixStream>) -> (Vec<u8>, bool) {
    let (mut bytes, mut text) = (Vec::new(), false);
    loop {
        match socket.read() {
            Ok(Message::Binary(piece)) => bytes.extend_from_slice(&piece),
            Ok(Message::Text(piece)) => {
                text = true;
                bytes.extend_from_slice(piece.as_bytes());
            }
            Ok(Message::Close(_)) | Err(_) => return (bytes, text),
            Ok(_) => {}
        }
    }
}

/// The end of what the client sends. tungstenite's own would end the reading as well.
fn half_close(socket: &mut WebSocket<UnixStream>) {
    let frame = [0x88, 0x82, 0, 0, 0, 0, 0x03, 0xe8];
    socket.get_mut().write_all(&frame).expect("send a close frame");
}

#[test]
fn streams_pass_unframed_and_half_close() {
    let engine = Engine::start();
    for (version, as_text) in [("v1.41", false), ("v1.27", true)] {
        let name = engine.name(&format!("ws-{version}"));
        let script = "wc -c; echo err >&2";
        engine.ok(&["create", "-i", "--name", &name, "busybox", "sh", "-c", script]);
        let target =
            format!("/{version}/containers/{name}/attach/ws?stream=1&stdin=1&stdout=1&stderr=1");
        let mut socket = open(&engine, &target).expect("a WebSocket");
        engine.ok(&["start", &name]);
        socket.send(Message::binary(vec![b'z'; 70_000])).expect("send");
        socket.send(Message::text("and text")).expect("send");
        half_close(&mut socket);
        let (bytes, text) = read_all(&mut socket);
        let seen = String::from_utf8(bytes).expect("UTF-8");
        // Which of the two streams is read first is open.
        assert!(["70008\nerr\n", "err\n70008\n"].contains(&seen.as_str()), "{version}: {seen:?}");
        assert_eq!(text, as_text, "{version}");
        engine.ok(&["rm", "-f", &name]);
    }
}

#[test]
fn terminals_and_detach_keys() {
    let engine = Engine::start();
    let name = engine.name("ws");
    engine.ok(&["run", "-dit", "--name", &name, "busybox", "cat"]);
    let target = format!(
        "/v1.41/containers/{name}/attach/ws?stream=1&stdin=1&stdout=1&stderr=1&detachKeys=ctrl-x,x"
    );
    let mut socket = open(&engine, &target).expect("a WebSocket");
    socket.send(Message::binary(&b"hello\n"[..])).expect("send");
    let mut seen = Vec::new();
    // The terminal echoes the line, and cat prints it.
    while seen.windows(5).filter(|part| part == b"hello").count() < 2 {
        if let Message::Binary(piece) = socket.read().expect("receive") {
            seen.extend_from_slice(&piece);
        }
    }
    socket.send(Message::binary(&b"\x18x"[..])).expect("send");
    read_all(&mut socket);
    assert_eq!(engine.inspect(&name)["State"]["Running"], true);
    engine.ok(&["rm", "-f", &name]);
}

#[test]
fn the_log_alone() {
    let engine = Engine::start();
    let name = engine.name("ws");
    engine.ok(&["run", "--name", &name, "busybox", "sh", "-c", "echo out; echo err >&2"]);
    let target = format!("/v1.41/containers/{name}/attach/ws?logs=1");
    let mut socket = open(&engine, &target).expect("a WebSocket");
    let (bytes, _) = read_all(&mut socket);
    let mut lines: Vec<&[u8]> = bytes.split_inclusive(|byte| *byte == b'\n').collect();
    lines.sort_unstable();
    assert_eq!(lines, [&b"err\n"[..], b"out\n"]);
    engine.ok(&["rm", "-f", &name]);
}

#[test]
fn what_is_refused() {
    let engine = Engine::start();
    let name = engine.name("ws");
    let target = format!("/v1.41/containers/{name}/attach/ws?stream=1&stdout=1");
    assert_eq!(open(&engine, &target).err(), Some(404));
    engine.ok(&["run", "-d", "--name", &name, "busybox", "sleep", "100"]);
    // Not a handshake.
    assert_eq!(engine.http("GET", &target, "").status, 400);
    assert_eq!(open(&engine, &format!("{target}&detachKeys=nonsense-x")).err(), Some(400));
    engine.ok(&["pause", &name]);
    assert_eq!(open(&engine, &target).err(), Some(409));
    engine.ok(&["unpause", &name]);
    // A client that answers nothing and goes.
    drop(open(&engine, &target).expect("a WebSocket"));
    engine.ok(&["rm", "-f", &name]);
}

#[test]
fn pings_are_answered_and_nonsense_ends() {
    let engine = Engine::start();
    if !engine.is_silo_or_skip("dockerd takes frames that the protocol forbids") {
        return;
    }
    let name = engine.name("ws");
    engine.ok(&["run", "-di", "--name", &name, "busybox", "cat"]);
    let target = format!("/v1.41/containers/{name}/attach/ws?stream=1&stdin=1&stdout=1");
    let mut socket = open(&engine, &target).expect("a WebSocket");
    socket.send(Message::Ping("still there?".into())).expect("send");
    assert_eq!(socket.read().expect("receive"), Message::Pong("still there?".into()));
    // Reserved bits.
    socket.get_mut().write_all(&[0xf2, 0x80, 0, 0, 0, 0]).expect("send");
    let Message::Close(Some(close)) = socket.read().expect("receive") else {
        panic!("a close frame was expected");
    };
    assert_eq!(u16::from(close.code), 1002);
    engine.ok(&["rm", "-f", &name]);
}
