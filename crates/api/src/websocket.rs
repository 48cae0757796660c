//! The server's side of a WebSocket (RFC 6455) as `attach/ws` uses it: two streams of bytes whose
//! cut into frames means nothing.
//!
//! Headers are read and written by tungstenite; its connection type is not used, since that cannot
//! go on sending after the client's close frame. Here that frame is the end of the input only,
//! as it is with dockerd: a half-close.
//!
//! Payloads are passed on as they arrive, so that a client cannot make the engine hold a frame of
//! the length that it announces.

use std::io;

use hyper::HeaderMap;
use hyper::header::{
    CONNECTION, HeaderName, HeaderValue, SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_KEY,
    SEC_WEBSOCKET_PROTOCOL, SEC_WEBSOCKET_VERSION, UPGRADE,
};
use silo_types::Error;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::sync::mpsc;
use tungstenite::protocol::frame::coding::{CloseCode, Control, Data, OpCode};
use tungstenite::protocol::frame::{CloseFrame, Frame, FrameHeader};

/// Bytes that are passed on at once.
const PIECE: usize = 32 << 10;
/// The longest payload of a ping or close frame (RFC 6455, section 5.5).
const MAX_CONTROL: u64 = 125;
/// Answers to pings that wait for a slow client; further pings go unanswered.
const PONGS: usize = 8;

/// What kind of frames the output goes in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Text,
    Binary,
}

/// Checks a client's handshake; the headers of the answer.
pub(crate) fn accept(headers: &HeaderMap) -> Result<Vec<(HeaderName, HeaderValue)>, Error> {
    let names = |header: HeaderName, wanted: &str| {
        headers
            .get_all(header)
            .iter()
            .filter_map(|value| value.to_str().ok())
            .flat_map(|value| value.split(','))
            .any(|word| word.trim().eq_ignore_ascii_case(wanted))
    };
    // docker wording
    if !names(UPGRADE, "websocket") || !names(CONNECTION, "upgrade") {
        return Err(Error::invalid("not websocket protocol"));
    }
    if headers.get(SEC_WEBSOCKET_VERSION).is_none_or(|version| version != "13") {
        return Err(Error::invalid("missing or bad WebSocket Version"));
    }
    let key = headers.get(SEC_WEBSOCKET_KEY).filter(|key| !key.is_empty());
    let key = key.ok_or_else(|| Error::invalid("mismatch challenge/response"))?;
    let answer = tungstenite::handshake::derive_accept_key(key.as_bytes());
    let answer =
        HeaderValue::from_str(&answer).map_err(|_| Error::internal("a key that is no header"))?;
    let mut answers = vec![
        (UPGRADE, HeaderValue::from_static("websocket")),
        (CONNECTION, HeaderValue::from_static("Upgrade")),
        (SEC_WEBSOCKET_ACCEPT, answer),
    ];
    // A client that names one protocol expects to get it; of several none is ours.
    let protocol = headers.get(SEC_WEBSOCKET_PROTOCOL);
    if let Some(one) = protocol.filter(|value| !value.as_bytes().contains(&b',')) {
        answers.push((SEC_WEBSOCKET_PROTOCOL, one.clone()));
    }
    Ok(answers)
}

/// What comes out of a client's bytes.
#[derive(Debug, PartialEq, Eq)]
enum Event {
    /// Input, already in place.
    Data,
    Ping(Vec<u8>),
    /// The client sends nothing more.
    Close,
    /// It does not speak the protocol.
    Wrong,
}

/// The frame that is being read.
#[derive(Debug)]
struct Open {
    mask: [u8; 4],
    /// Bytes of the payload that were seen.
    seen: usize,
    left: u64,
    /// The collected payload of a control frame.
    control: Option<(Control, Vec<u8>)>,
}

/// Takes a client's frames apart.
#[derive(Debug, Default)]
struct Decoder {
    /// What was not looked at yet.
    rest: Vec<u8>,
    open: Option<Open>,
}

impl Decoder {
    /// The next event; input is appended to `out`. `None` when more bytes are needed.
    fn next(&mut self, out: &mut Vec<u8>) -> Option<Event> {
        loop {
            if let Some(open) = &mut self.open {
                let left = usize::try_from(open.left).unwrap_or(usize::MAX);
                let count = left.min(self.rest.len());
                if count == 0 && left > 0 {
                    return None;
                }
                let plain = self.rest.drain(..count).enumerate();
                let mask = |(at, byte): (usize, u8)| byte ^ open.mask[(open.seen + at) % 4];
                let target = match &mut open.control {
                    Some((_, payload)) => payload,
                    None => &mut *out,
                };
                target.extend(plain.map(mask));
                open.seen = (open.seen + count) % 4;
                open.left -= count as u64;
                if open.left > 0 {
                    return (open.control.is_none() && count > 0).then_some(Event::Data);
                }
                match self.open.take().and_then(|open| open.control) {
                    Some((Control::Ping, payload)) => return Some(Event::Ping(payload)),
                    Some((Control::Close, _)) => return Some(Event::Close),
                    Some(_) => continue,
                    None if count > 0 => return Some(Event::Data),
                    None => continue,
                }
            }
            let mut cursor = io::Cursor::new(&self.rest);
            let (header, length) = match FrameHeader::parse(&mut cursor) {
                Ok(Some(found)) => found,
                Ok(None) => return None,
                Err(_) => return Some(Event::Wrong),
            };
            let end = usize::try_from(cursor.position()).unwrap_or(usize::MAX);
            self.rest.drain(..end.min(self.rest.len()));
            // Clients mask what they send, and no extension was agreed upon.
            let (Some(mask), false) = (header.mask, header.rsv1 || header.rsv2 || header.rsv3)
            else {
                return Some(Event::Wrong);
            };
            let control = match header.opcode {
                OpCode::Data(Data::Continue | Data::Text | Data::Binary) => None,
                OpCode::Control(kind @ (Control::Close | Control::Ping | Control::Pong))
                    if header.is_final && length <= MAX_CONTROL =>
                {
                    Some((kind, Vec::new()))
                }
                _ => return Some(Event::Wrong),
            };
            self.open = Some(Open { mask, seen: 0, left: length, control });
        }
    }
}

fn encode(frame: Frame) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(frame.len());
    // Writing to memory does not fail.
    drop(frame.format(&mut bytes));
    bytes
}

/// How the input of a session ended.
enum End {
    /// The client is done sending.
    Half,
    /// The connection is of no more use; say why, if there is somebody to hear it.
    Whole(Option<CloseCode>),
}

/// Carries a plain session over a WebSocket: what arrives in frames goes to `input`, what comes
/// from `output` leaves in frames, until `output` ends.
pub(crate) async fn carry<R, W, I, O>(
    mut reader: R,
    mut writer: W,
    mut input: I,
    mut output: O,
    kind: Kind,
) where
    R: AsyncRead + Unpin,
    W: AsyncWrite + Unpin,
    I: AsyncWrite + Unpin,
    O: AsyncRead + Unpin,
{
    let (pongs, mut waiting) = mpsc::channel::<Vec<u8>>(PONGS);
    let receiving = async {
        match receive(&mut reader, &mut input, &pongs).await {
            End::Half => {
                // A session that has ended needs no end of input.
                drop(input.shutdown().await);
                std::future::pending().await
            }
            End::Whole(code) => code,
        }
    };
    let sending = async {
        let opcode = match kind {
            Kind::Text => OpCode::Data(Data::Text),
            Kind::Binary => OpCode::Data(Data::Binary),
        };
        let mut buffer = vec![0; PIECE];
        loop {
            let frame = tokio::select! {
                Some(payload) = waiting.recv() => Frame::pong(payload),
                count = output.read(&mut buffer) => match count {
                    Ok(0) | Err(_) => return Some(CloseCode::Normal),
                    Ok(count) => Frame::message(buffer[..count].to_vec(), opcode, true),
                },
            };
            if writer.write_all(&encode(frame)).await.is_err() || writer.flush().await.is_err() {
                return None;
            }
        }
    };
    let code = tokio::select! {
        code = receiving => code,
        code = sending => code,
    };
    if let Some(code) = code {
        let close = Frame::close(Some(CloseFrame { code, reason: "".into() }));
        // A client that has gone does not read it.
        drop(writer.write_all(&encode(close)).await);
    }
    drop(writer.shutdown().await);
}

async fn receive<R, I>(reader: &mut R, input: &mut I, pongs: &mpsc::Sender<Vec<u8>>) -> End
where
    R: AsyncRead + Unpin,
    I: AsyncWrite + Unpin,
{
    let mut decoder = Decoder::default();
    let (mut buffer, mut plain) = (vec![0; PIECE], Vec::new());
    // The process takes no more input, but may still write.
    let mut deaf = false;
    loop {
        match decoder.next(&mut plain) {
            Some(Event::Data) => {
                deaf = deaf || input.write_all(&plain).await.is_err();
                plain.clear();
            }
            // Who floods gets fewer answers, not more memory.
            Some(Event::Ping(payload)) => drop(pongs.try_send(payload)),
            Some(Event::Close) => return End::Half,
            Some(Event::Wrong) => return End::Whole(Some(CloseCode::Protocol)),
            None => match reader.read(&mut buffer).await {
                Ok(0) => return End::Half,
                Ok(count) => decoder.rest.extend_from_slice(&buffer[..count]),
                Err(_) => return End::Whole(None),
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn masked(opcode: u8, fin: bool, payload: &[u8]) -> Vec<u8> {
        let mask = [1, 2, 3, 4];
        let mut bytes = vec![opcode | if fin { 0x80 } else { 0 }];
        match payload.len() {
            short @ 0..126 => bytes.push(0x80 | u8::try_from(short).unwrap()),
            long => {
                bytes.push(0xfe);
                bytes.extend_from_slice(&u16::try_from(long).unwrap().to_be_bytes());
            }
        }
        bytes.extend_from_slice(&mask);
        bytes.extend(payload.iter().enumerate().map(|(at, byte)| byte ^ mask[at % 4]));
        bytes
    }

    fn decode(stream: &[u8], size: usize) -> (Vec<u8>, Vec<Event>) {
        let (mut decoder, mut out, mut events) = (Decoder::default(), Vec::new(), Vec::new());
        for piece in stream.chunks(size) {
            decoder.rest.extend_from_slice(piece);
            while let Some(event) = decoder.next(&mut out) {
                let last = matches!(event, Event::Close | Event::Wrong);
                if event != Event::Data {
                    events.push(event);
                }
                if last {
                    return (out, events);
                }
            }
        }
        (out, events)
    }

    #[test]
    fn frames_come_apart_however_they_are_cut() {
        let long = vec![b'x'; 300];
        let stream = [
            masked(1, false, b"he"),
            masked(9, true, b"ping"),
            masked(0, true, b"llo "),
            masked(2, true, &long),
            masked(2, true, b""),
            masked(10, true, b"unasked"),
            masked(8, true, &[3, 0xe8]),
            masked(2, true, b"too late"),
        ]
        .concat();
        let expected = [b"hello ", &long[..]].concat();
        for size in [1, 2, 3, 7, 64, 4096] {
            let (out, events) = decode(&stream, size);
            assert_eq!(out, expected, "pieces of {size}");
            assert_eq!(events, [Event::Ping(b"ping".to_vec()), Event::Close], "pieces of {size}");
        }
    }

    #[test]
    fn what_is_against_the_protocol_is_refused() {
        for (name, stream) in [
            ("unmasked", vec![0x82, 1, b'x']),
            ("reserved bit", vec![0xc2, 0x81, 1, 2, 3, 4, 0]),
            ("reserved data", masked(3, true, b"")),
            ("reserved control", masked(11, true, b"")),
            ("long ping", masked(9, true, &[0; 126])),
            ("ping in parts", masked(9, false, b"x")),
        ] {
            assert_eq!(decode(&stream, 4096).1, [Event::Wrong], "{name}");
        }
    }

    #[test]
    fn announced_lengths_cost_nothing() {
        let mut stream = vec![0x82, 0xff];
        stream.extend_from_slice(&u64::MAX.to_be_bytes());
        stream.extend_from_slice(&[0, 0, 0, 0]);
        stream.extend_from_slice(b"a beginning");
        let (out, events) = decode(&stream, 5);
        assert_eq!((out.as_slice(), events.len()), (&b"a beginning"[..], 0));
    }

    #[test]
    fn handshakes() {
        let whole = [
            ("upgrade", "WebSocket"),
            ("connection", "keep-alive, Upgrade"),
            ("sec-websocket-version", "13"),
            // The example of RFC 6455, section 1.3.
            ("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ=="),
        ];
        let headers = |without: &str| -> HeaderMap {
            let kept = whole.iter().filter(|(name, _)| *name != without);
            kept.map(|(name, value)| {
                (HeaderName::from_static(name), HeaderValue::from_static(value))
            })
            .collect()
        };
        let answer = accept(&headers("")).unwrap();
        assert!(answer.contains(&(
            SEC_WEBSOCKET_ACCEPT,
            HeaderValue::from_static("s3pPLMBiTxaQ9kYGzzhZRbK+xOo=")
        )));
        for (name, _) in whole {
            assert!(accept(&headers(name)).is_err(), "without {name}");
        }
    }
}
