//! Named pipes of a container that lead to Unix sockets of the host.
//!
//! The engine mounts each socket at [`FOLDER`] under the pipe's name, in which every byte but
//! letters, digits, `-` and `_` is written as `%` and two hexadecimal digits. Process 1 starts
//! Windows programs that wait for clients (`PROGRAM`, which has the protocol at its head), and
//! connects each client with the socket. Two always wait, so that clients that come at once are
//! not turned away. Every program of the container may open the pipe, as both accounts: Wine
//! asks no pipe whom it lets in.

use std::ffi::CString;
use std::io::{self, PipeReader, PipeWriter, Read, Write};
use std::net::Shutdown;
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::{self, Receiver};

use silo_sys::signal::{self, Mask};

use crate::init::LOADER;

/// Where the sockets are in a container's Linux root.
pub const FOLDER: &str = "/run/silo-pipes";
/// The program that waits for a client.
const PROGRAM: &str = "C:\\windows\\system32\\silo-pipe.exe";
/// What Windows puts before a pipe's name.
const PREFIX: &str = "\\\\.\\pipe\\";
/// The longest name of a pipe, with what is before it.
const LONGEST: usize = 256;
/// What stands for a length when the client is gone.
const GONE: [u8; 4] = [0xff; 4];
/// The largest piece that a client's writes come in.
const PIECE: usize = 64 << 10;

/// The name of the pipe that a path means, with either slash: `\\.\pipe\name`.
pub fn name(path: &str) -> Option<&str> {
    let (start, name) = path.split_at_checked(PREFIX.len())?;
    let is_pipe = start.replace('/', "\\").eq_ignore_ascii_case(PREFIX);
    let plain = |c: char| !c.is_control() && !c.is_whitespace() && !"/:*?\"<>|".contains(c);
    let fits = !name.is_empty() && path.encode_utf16().count() <= LONGEST;
    (is_pipe && fits && name.chars().all(plain)).then_some(name)
}

/// The path of a pipe in Windows.
pub fn path(name: &str) -> String {
    format!("{PREFIX}{name}")
}

/// The file's name that stands for a pipe's.
pub fn encode(name: &str) -> String {
    use std::fmt::Write as _;
    let mut file = String::new();
    for byte in name.bytes() {
        if byte.is_ascii_alphanumeric() || b"-_".contains(&byte) {
            file.push(char::from(byte));
        } else {
            // Writing to a string does not fail.
            write!(file, "%{byte:02x}").ok();
        }
    }
    file
}

/// The pipe's name for which a file's stands.
pub fn decode(file: &str) -> Option<String> {
    let mut bytes = Vec::new();
    let mut rest = file.bytes();
    while let Some(byte) = rest.next() {
        if byte == b'%' {
            let digits = [rest.next()?, rest.next()?];
            bytes.push(u8::from_str_radix(std::str::from_utf8(&digits).ok()?, 16).ok()?);
        } else {
            bytes.push(byte);
        }
    }
    String::from_utf8(bytes).ok()
}

/// A pipe and the socket to which it leads.
#[derive(Debug)]
struct Pipe {
    name: String,
    socket: PathBuf,
    /// The signals of its programs; those of process 1 are blocked.
    mask: Mask,
}

/// A program that waits for a client. Process 1 reaps it with all others.
#[derive(Debug)]
struct Instance {
    input: PipeWriter,
    output: PipeReader,
}

/// The pipes of a container, each waiting for its first client.
#[derive(Debug, Default)]
pub(crate) struct Pipes(Vec<(Arc<Pipe>, Instance)>);

impl Pipes {
    /// Makes those whose sockets are in `folder`, which may be missing.
    pub(crate) fn open(folder: &Path, mask: Mask) -> io::Result<Self> {
        let entries = match fs_err::read_dir(folder) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Self::default()),
            Err(error) => return Err(error),
        };
        let mut all = Vec::new();
        for entry in entries {
            let entry = entry?;
            let Some(name) = entry.file_name().to_str().and_then(decode) else { continue };
            let pipe = Arc::new(Pipe { name, socket: entry.path(), mask });
            let instance = pipe.instance()?;
            all.push((pipe, instance));
        }
        Ok(Self(all))
    }

    /// Serves them, in threads.
    pub(crate) fn serve(self) -> io::Result<()> {
        for (pipe, instance) in self.0 {
            pipe.more().map(drop)?;
            std::thread::Builder::new().spawn(move || pipe.serve(instance))?;
        }
        Ok(())
    }
}

impl Pipe {
    /// Starts a program that waits for a client, and waits until it does.
    fn instance(&self) -> io::Result<Instance> {
        let failed = |cause: &str| {
            let path = path(&self.name);
            io::Error::other(format!("cannot make the named pipe {path}: {cause}"))
        };
        let words = [LOADER, PROGRAM, &self.name].map(CString::new);
        let command = words.into_iter().collect::<Result<Vec<_>, _>>()?;
        let (for_program, input) = io::pipe()?;
        let (mut output, from_program) = io::pipe()?;
        let (stdin, stdout) = (for_program.as_fd(), from_program.as_fd());
        signal::spawn_with_streams(&command, &self.mask, stdin, stdout)?;
        drop((for_program, from_program));
        let mut ready = [0];
        if output.read_exact(&mut ready).is_err() || ready != *b"r" {
            return Err(failed(
                "the image's base has no working silo-pipe.exe; `silo windows setup` makes newer bases",
            ));
        }
        Ok(Instance { input, output })
    }

    /// Has one more program wait; something is received when it does, or cannot.
    fn more(self: &Arc<Self>) -> io::Result<Receiver<()>> {
        let pipe = Arc::clone(self);
        let (ready, waiting) = mpsc::channel();
        std::thread::Builder::new().spawn(move || {
            // Without it there is one less; at the container's end there is none.
            if let Ok(instance) = pipe.instance() {
                // Nobody needs to know.
                ready.send(()).ok();
                pipe.serve(instance);
            }
        })?;
        Ok(waiting)
    }

    fn serve(self: &Arc<Self>, mut instance: Instance) {
        let mut client = [0];
        if instance.output.read_exact(&mut client).is_err() || client != *b"c" {
            return;
        }
        // Nothing can be done when there can be no more threads.
        let next = self.more().ok();
        // A pipe that has no instance is not there: the next one comes before this one goes.
        let before_the_end = move || {
            if let Some(next) = next {
                next.recv().ok();
            }
        };
        match UnixStream::connect(&self.socket) {
            Ok(socket) => {
                relay(instance.input, instance.output, &socket, before_the_end).ok();
            }
            // A client of a socket that nobody serves is left alone.
            Err(_) => before_the_end(),
        }
    }
}

/// Passes on what client and socket write until both have ended. The end is told to the client
/// after `before_the_end`.
fn relay(
    mut to_client: impl Write + Send,
    from_client: impl Read,
    socket: &UnixStream,
    before_the_end: impl FnOnce() + Send,
) -> io::Result<()> {
    let mut from_socket = socket.try_clone()?;
    std::thread::scope(|scope| {
        scope.spawn(move || {
            // Not by `io::copy`, which would splice: that holds the pipe's lock while it waits
            // for the socket, and Wine's server waits for the lock.
            let mut buffer = vec![0; PIECE];
            while let Ok(size @ 1..) = from_socket.read(&mut buffer) {
                if to_client.write_all(&buffer[..size]).is_err() {
                    break;
                }
            }
            before_the_end();
        });
        let outcome = frames(from_client, socket);
        // The client is gone, or the socket takes nothing more.
        socket.shutdown(Shutdown::Both).ok();
        outcome
    })
}

/// Writes what comes in frames to the socket, until the client is gone.
fn frames(mut from: impl Read, mut socket: &UnixStream) -> io::Result<()> {
    let mut buffer = vec![0; PIECE];
    loop {
        let mut length = [0; 4];
        match from.read_exact(&mut length) {
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(()),
            result => result?,
        }
        if length == GONE {
            return Ok(());
        }
        match usize::try_from(u32::from_le_bytes(length)) {
            // It may have been shut by the other side.
            Ok(0) => drop(socket.shutdown(Shutdown::Write)),
            Ok(size) if size <= PIECE => {
                from.read_exact(&mut buffer[..size])?;
                socket.write_all(&buffer[..size])?;
            }
            _ => return Err(io::ErrorKind::InvalidData.into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_pipes() {
        for (path, want) in [
            ("\\\\.\\pipe\\docker_engine", Some("docker_engine")),
            ("//./PIPE/a\\b.c", Some("a\\b.c")),
            ("\\\\.\\pipe\\", None),
            ("\\\\.\\pipe\\a b", None),
            ("\\\\.\\pipe\\a:b", None),
            ("\\\\.\\pip", None),
            ("\\\\.\\pipes\\x", None),
            ("C:\\pipe", None),
            ("\u{e9}\u{e9}\u{e9}\u{e9}\u{e9}\u{e9}", None),
        ] {
            assert_eq!(name(path), want, "{path}");
        }
        assert_eq!(name(&path(&"x".repeat(300))), None);
        for name in ["docker_engine", "a\\b.c", "gr\u{f6}\u{df}e", "..", "%41"] {
            let file = encode(name);
            assert!(file.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_%".contains(&b)));
            assert_eq!(decode(&file).as_deref(), Some(name));
        }
        for bad in ["%", "%4", "%zz", "%ff"] {
            assert_eq!(decode(bad), None, "{bad}");
        }
    }

    #[test]
    fn both_directions_end_by_themselves() {
        let (ours, mut theirs) = UnixStream::pair().unwrap();
        let (mut client, from_client) = io::pipe().map(|(r, w)| (w, r)).unwrap();
        let (mut at_client, to_client) = io::pipe().unwrap();
        let relaying = std::thread::spawn(move || relay(to_client, from_client, &ours, || ()));
        client.write_all(b"\x05\0\0\0hello\0\0\0\0").unwrap();
        let mut text = String::new();
        theirs.read_to_string(&mut text).unwrap();
        assert_eq!(text, "hello");
        theirs.write_all(b"answer").unwrap();
        drop(theirs);
        text.clear();
        at_client.read_to_string(&mut text).unwrap();
        assert_eq!(text, "answer");
        drop(client);
        relaying.join().unwrap().unwrap();
    }

    #[test]
    fn a_client_that_goes_takes_the_connection_along() {
        let (ours, mut theirs) = UnixStream::pair().unwrap();
        let (mut client, from_client) = io::pipe().map(|(r, w)| (w, r)).unwrap();
        let (_at_client, to_client) = io::pipe().unwrap();
        let relaying = std::thread::spawn(move || relay(to_client, from_client, &ours, || ()));
        client.write_all(&GONE).unwrap();
        relaying.join().unwrap().unwrap();
        drop(client);
        assert_eq!(theirs.read(&mut [0]).unwrap(), 0);
    }

    #[test]
    fn frames_that_are_wrong_end_it() {
        for bytes in [&b"\x01\0\x01\0x"[..], b"\x05\0\0\0abc", b"\x01\0"] {
            let (ours, _theirs) = UnixStream::pair().unwrap();
            let outcome = frames(bytes, &ours);
            assert_eq!(outcome.is_err(), bytes.len() > 2, "{bytes:?}");
        }
    }

    #[test]
    fn without_a_folder_there_are_none() {
        let mask = std::thread::spawn(|| signal::block_all().unwrap()).join().unwrap();
        assert!(Pipes::open(Path::new("/nonexistent/pipes"), mask).unwrap().0.is_empty());
    }
}
