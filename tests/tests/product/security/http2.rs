//! CVE-2026-97032, CVE-2026-78659, CVE-2026-78663, CVE-2026-78669: clients that speak HTTP/2 only
//! to have the other side work and keep things.

use std::io::{Read as _, Write as _};
use std::os::unix::net::UnixStream;

use silo_tests::Engine;

const DATA_END: u8 = 0x1;
const END_HEADERS: u8 = 0x4;
const HEADERS: u8 = 1;
const RESET: u8 = 3;
const SETTINGS: u8 = 4;
const GOAWAY: u8 = 7;
const CONTINUATION: u8 = 9;
/// `:method: POST`, `:scheme: http`, `:path: /`, `:authority: x`.
const REQUEST: &[u8] = &[0x83, 0x86, 0x84, 0x41, 1, b'x'];

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).expect("a short frame").to_be_bytes();
    [&length[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
}

fn setting(id: u16, value: u32) -> Vec<u8> {
    frame(SETTINGS, 0, 0, &[&id.to_be_bytes()[..], &value.to_be_bytes()].concat())
}

/// A header that is kept in no table: `name: value` with `size` bytes of value, below 127.
fn literal(size: u8) -> Vec<u8> {
    let value = vec![b'v'; size.into()];
    [&[0x00, 1, b'n', size][..], &value].concat()
}

/// Sends frames over a connection of its own until the engine has enough of them; gives how many
/// it took, and whether it said so.
fn flood(engine: &Engine, begin: &[u8], frames: impl Iterator<Item = Vec<u8>>) -> (usize, bool) {
    let mut stream = UnixStream::connect(engine.socket()).expect("connect");
    let head = "POST /grpc HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n\r\n";
    stream.write_all(head.as_bytes()).expect("ask for HTTP/2");
    let (mut answer, mut byte) = (Vec::new(), [0]);
    while !answer.ends_with(b"\r\n\r\n") {
        stream.read_exact(&mut byte).expect("an answer");
        answer.push(byte[0]);
    }
    assert!(answer.starts_with(b"HTTP/1.1 101 "), "{}", String::from_utf8_lossy(&answer));
    let mut read = stream.try_clone().expect("a descriptor");
    // The head of each frame says how long it is.
    let reader = std::thread::spawn(move || {
        let (mut head, mut told) = ([0; 9], false);
        while read.read_exact(&mut head).is_ok() {
            told |= head[3] == GOAWAY;
            let length = u32::from_be_bytes([0, head[0], head[1], head[2]]);
            let taken = std::io::copy(&mut (&mut read).take(length.into()), &mut std::io::sink());
            if taken.is_err() {
                break;
            }
        }
        told
    });
    let preface = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
    let mut taken = 0;
    if stream.write_all(&[&preface[..], &frame(SETTINGS, 0, 0, &[]), begin].concat()).is_ok() {
        for frame in frames {
            if stream.write_all(&frame).is_err() {
                break;
            }
            taken += 1;
        }
    }
    stream.shutdown(std::net::Shutdown::Write).ok();
    (taken, reader.join().expect("the reader"))
}

#[test]
fn floods_of_frames_are_borne_or_refused() {
    let engine = Engine::start_empty();
    if !engine.is_silo_or_skip("looks at Silo's own process") {
        return;
    }
    let streams = || (0..).map(|number: u32| 2 * number + 1);
    let before = engine.resident_kb();
    // Requests that are taken back at once.
    flood(
        &engine,
        &[],
        streams().take(20_000).map(|stream| {
            let request = frame(HEADERS, END_HEADERS, stream, REQUEST);
            [request, frame(RESET, 0, stream, &8_u32.to_be_bytes())].concat()
        }),
    );
    // The table of headers, and windows, of other sizes again and again, with streams open.
    let open: Vec<u8> = streams()
        .take(100)
        .flat_map(|stream| frame(HEADERS, END_HEADERS, stream, REQUEST))
        .collect();
    for id in [1, 4] {
        let sizes = (0..20_000_u32).map(|number| setting(id, (number % 2) * 0x7fff_ffff));
        flood(&engine, &open, sizes);
    }
    // Headers that go on and on: of a request, and behind one.
    let many: Vec<u8> = (0..100).flat_map(|_| literal(100)).collect();
    let more = |stream| {
        let many = many.clone();
        (0..40_000).map(move |_| frame(CONTINUATION, 0, stream, &many))
    };
    let (taken, told) = flood(&engine, &frame(HEADERS, 0, 1, REQUEST), more(1));
    assert!(taken < 40_000 || told, "400 MB of headers");
    let begun = [frame(HEADERS, END_HEADERS, 1, REQUEST), frame(HEADERS, DATA_END, 1, &many)];
    let (taken, told) = flood(&engine, &begun.concat(), more(1));
    assert!(taken < 40_000 || told, "400 MB of trailers");
    let grown = engine.resident_kb().saturating_sub(before);
    assert!(grown < 100 << 10, "{grown} KiB more");
    // It is all the same to others.
    assert!(!engine.ok(&["version", "-f", "{{.Server.Version}}"]).is_empty());
}
