//! Standard streams joined to a container's: attach, exec, signals and sizes.

use std::io::{Read, Write};

use bytes::Bytes;
use silo_client::{Channel, Client, Frames, Hijacked};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;

use crate::failure::{Failure, Outcome};
use crate::terminal;

/// Signals that are handed on to a container, with the names that the API knows. What the
/// kernel sends on its own account (SIGCHLD, SIGPIPE, SIGURG) and a change of the window's size
/// are not.
const FORWARDED: [(i32, &str); 11] = [
    (1, "HUP"),
    (2, "INT"),
    (3, "QUIT"),
    (10, "USR1"),
    (12, "USR2"),
    (14, "ALRM"),
    (15, "TERM"),
    (18, "CONT"),
    (20, "TSTP"),
    (21, "TTIN"),
    (22, "TTOU"),
];

/// Bytes of input that are read at once.
const INPUT_CHUNK: usize = 32 * 1024;

/// How a session ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum End {
    /// The container closed its output.
    Closed,
    /// The user typed the detach keys.
    Detached,
}

/// What to join.
#[derive(Debug, Clone)]
pub(crate) struct Session {
    /// Whether the container has a terminal, so that output is in no frames.
    pub(crate) tty: bool,
    /// Whether to send our input.
    pub(crate) stdin: bool,
    /// The detach keys as they were given; empty for the default.
    pub(crate) detach_keys: String,
}

/// Fails if input is wanted from a terminal that is none.
pub(crate) fn check_tty(attach_stdin: bool, tty: bool) -> Outcome {
    if attach_stdin && tty && !terminal::stdin_is_terminal() {
        return Err(Failure::new("the input device is not a TTY"));
    }
    Ok(())
}

impl Session {
    /// Copies until the container's output ends.
    pub(crate) async fn run(&self, hijacked: Hijacked) -> Outcome<End> {
        let keys = detach_sequence(&self.detach_keys)?;
        let raw = self.tty && self.stdin;
        if raw {
            terminal::make_raw();
        }
        let (mut reader, mut writer) = tokio::io::split(hijacked.stream);
        let mut output = Output::new(self.tty);
        output.write(&hijacked.early)?;
        let keys = if self.tty { keys } else { Vec::new() };
        let mut typed = Typed { keys, matched: 0, done: false };
        // Both directions go on at the same time: a program that answers all that it reads
        // would else wait for us while we wait for it.
        let input = async {
            if self.stdin {
                let mut chunks = read_stdin();
                while let Some(bytes) = chunks.recv().await {
                    typed.push(&bytes);
                    if writer.write_all(&bytes).await.is_err() {
                        break;
                    }
                }
                writer.shutdown().await.ok();
            }
            std::future::pending::<Outcome>().await
        };
        let copied = async {
            let mut buffer = vec![0; 64 * 1024];
            loop {
                match reader.read(&mut buffer).await {
                    // An error: the engine went away, or the container with everything in it.
                    Ok(0) | Err(_) => return Ok(()),
                    Ok(length) => output.write(&buffer[..length])?,
                }
            }
        };
        let result = tokio::select! {
            result = copied => result,
            result = input => result,
        };
        if raw {
            terminal::restore();
        }
        result.map(|()| if typed.done { End::Detached } else { End::Closed })
    }
}

/// Reads stdin on a thread, since a terminal or pipe may be shared and must stay blocking.
fn read_stdin() -> mpsc::Receiver<Bytes> {
    let (sender, receiver) = mpsc::channel(4);
    tokio::task::spawn_blocking(move || {
        let mut stdin = std::io::stdin().lock();
        let mut buffer = vec![0; INPUT_CHUNK];
        loop {
            match stdin.read(&mut buffer) {
                Ok(0) => return,
                Ok(length) => {
                    if sender.blocking_send(Bytes::copy_from_slice(&buffer[..length])).is_err() {
                        return;
                    }
                }
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
                Err(_) => return,
            }
        }
    });
    receiver
}

/// Watches for the detach keys. They are sent on as well, since the engine detaches.
struct Typed {
    keys: Vec<u8>,
    matched: usize,
    done: bool,
}

impl Typed {
    fn push(&mut self, bytes: &[u8]) {
        for byte in bytes {
            if self.keys.get(self.matched) == Some(byte) {
                self.matched += 1;
                self.done |= self.matched == self.keys.len();
            } else {
                self.matched = usize::from(self.keys.first() == Some(byte));
            }
        }
    }
}

/// Where a container's output goes.
#[derive(Debug)]
pub(crate) struct Output {
    frames: Option<Frames>,
}

impl Output {
    /// Raw output goes to stdout; framed output to both.
    pub(crate) fn new(raw: bool) -> Self {
        Self { frames: (!raw).then(Frames::default) }
    }

    /// Writes what has come.
    pub(crate) fn write(&mut self, bytes: &[u8]) -> Outcome {
        let Some(frames) = &mut self.frames else { return write_to(Channel::Stdout, bytes) };
        frames.push(bytes);
        loop {
            match frames.next_piece() {
                Ok(Some((channel, piece))) => write_to(channel, &piece)?,
                Ok(None) => return Ok(()),
                Err(byte) => {
                    return Err(Failure::new(format!("Unrecognized input header: {byte}")));
                }
            }
        }
    }
}

fn write_to(channel: Channel, bytes: &[u8]) -> Outcome {
    let result = match channel {
        Channel::Stdin | Channel::Stdout => {
            let mut stdout = std::io::stdout().lock();
            stdout.write_all(bytes).and_then(|()| stdout.flush())
        }
        Channel::Stderr | Channel::System => std::io::stderr().lock().write_all(bytes),
    };
    result.map_err(|error| Failure::io("output", &error))
}

/// Hands signals on to a container until it is dropped or the runtime ends.
pub(crate) fn forward_signals(client: &Client, container: &str) {
    for (number, name) in FORWARDED {
        let Ok(mut signals) = signal(SignalKind::from_raw(number)) else { continue };
        let (client, container) = (client.clone(), container.to_owned());
        tokio::task::spawn(async move {
            while signals.recv().await.is_some() {
                // The container may just have ended; then there is nobody to tell.
                client
                    .post(format!("/containers/{container}/kill"))
                    .query("signal", name)
                    .done()
                    .await
                    .ok();
            }
        });
    }
}

/// Tells the engine the size of our terminal, now and whenever it changes. `path` is of the
/// container or of the exec.
pub(crate) fn follow_size(client: &Client, path: String) {
    if !terminal::stdout_is_terminal() {
        return;
    }
    let client = client.clone();
    tokio::task::spawn(async move {
        let Ok(mut changes) = signal(SignalKind::window_change()) else { return };
        loop {
            let (rows, columns) = terminal::size();
            if (rows, columns) != (0, 0) {
                client
                    .post(format!("{path}/resize"))
                    .query("h", rows.to_string())
                    .query("w", columns.to_string())
                    .done()
                    .await
                    .ok();
            }
            if changes.recv().await.is_none() {
                return;
            }
        }
    });
}

/// `ctrl-p,ctrl-q` as bytes.
pub(crate) fn detach_sequence(text: &str) -> Outcome<Vec<u8>> {
    let text = if text.is_empty() { "ctrl-p,ctrl-q" } else { text };
    text.split(',')
        .map(|key| {
            let control = key.strip_prefix("ctrl-").filter(|rest| rest.len() == 1);
            let byte = match (control, key.as_bytes()) {
                (_, [byte]) => Some(*byte),
                (Some(rest), _) => match rest.as_bytes()[0] {
                    byte @ b'a'..=b'z' => Some(byte - b'a' + 1),
                    b'@' => Some(0),
                    b'[' => Some(27),
                    b'\\' => Some(28),
                    b']' => Some(29),
                    b'^' => Some(30),
                    b'_' => Some(31),
                    _ => None,
                },
                _ => None,
            };
            byte.ok_or_else(|| {
                Failure::new(format!("invalid detach keys ({text}): Unknown character: '{key}'"))
            })
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn detach_keys() {
        assert_eq!(detach_sequence("").unwrap(), [16, 17]);
        assert_eq!(detach_sequence("a,ctrl-@,ctrl-_").unwrap(), [b'a', 0, 31]);
        assert_eq!(
            detach_sequence("foo").unwrap_err().message,
            "invalid detach keys (foo): Unknown character: 'foo'"
        );
    }

    #[test]
    fn keys_in_pieces() {
        let mut typed = Typed { keys: vec![16, 17], matched: 0, done: false };
        for (bytes, done) in [(&b"ab\x10"[..], false), (b"\x10", false), (b"x\x11", false)] {
            typed.push(bytes);
            assert_eq!(typed.done, done, "{bytes:?}");
        }
        typed.push(b"\x10");
        typed.push(b"\x11");
        assert!(typed.done);
    }
}
