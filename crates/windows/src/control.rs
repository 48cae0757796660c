//! What the start program of a container (`silo-run.exe`) is told, and what it tells.
//!
//! One directory for each process, `/prefix/.silo/<name>/` inside the container, holds files of
//! records `key=value` in UTF-8, each ended by a zero byte:
//!
//! | file | written by | records |
//! | --- | --- | --- |
//! | `start` | the engine | `version=1`, `command`, `application`, `directory`, `user`, `environment` (repeated), `terminal` |
//! | `started` | the program | `process`: Windows' process id |
//! | `exit` | the program | `code`: 32 bits, decimal |
//! | `error` | the program | `step`, `code` (a Windows error), `message` |
//! | `request` | process 1, the engine | `event` (`ctrl-c`, `ctrl-break`, `shutdown`) |
//! | `size` | the engine | `terminal` |
//! | `services` | the engine | none: services are to stop, and to be waited for |
//!
//! Whoever puts a `request` or `size` there writes a byte to the FIFO [`WAKE`], which process 1 makes
//! and the program reads. (To watch the directory would do as well, but the kernel takes some
//! fifteen milliseconds to let go of what watches, and a container's end would wait for that.)
//!
//! One more, `links/`, is for requests of programs (`links.rs`).
//!
//! What the container writes is a stranger's: numbers are checked and text is bounded.

use std::fs::File;
use std::io;
use std::path::Path;

use rustix::fs::{FileType, Mode, OFlags};

/// The directory of these directories, below the container's prefix.
pub const FOLDER: &str = ".silo";
/// The name of the container's own process.
pub const INIT: &str = "0";
/// The FIFO by which one hears that there is something new.
pub const WAKE: &str = "wake.fifo";
/// Most bytes of a file that the container writes.
pub const LIMIT: u64 = 16 << 10;

/// Whose rights a process has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Rights {
    /// Those of ContainerAdministrator.
    #[default]
    Administrator,
    /// Those of ContainerUser: no member of Administrators.
    User,
}

/// A terminal's size in characters.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Terminal {
    /// Characters in a line.
    pub columns: u16,
    /// Lines.
    pub rows: u16,
}

/// A process that is to be started.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Start {
    /// The whole command line, as `CreateProcess` takes it.
    pub command: String,
    /// The working directory, `C:\app`.
    pub directory: String,
    /// Whose rights it has.
    pub rights: Rights,
    /// The whole environment, `NAME=value`.
    pub environment: Vec<String>,
    /// It gets a console on the terminal that process 1 has.
    pub terminal: Option<Terminal>,
}

/// A value that cannot be told: it holds a zero byte.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0} of the process contains a zero byte")]
pub struct ZeroByte(&'static str);

impl Start {
    /// The file's content.
    pub fn to_bytes(&self) -> Result<Vec<u8>, ZeroByte> {
        let mut text = String::new();
        let mut put = |key: &'static str, value: &str| {
            if value.contains('\0') {
                return Err(ZeroByte(key));
            }
            text.extend([key, "=", value, "\0"]);
            Ok(())
        };
        put("version", "1")?;
        put("command", &self.command)?;
        put("directory", &self.directory)?;
        put(
            "user",
            match self.rights {
                Rights::Administrator => "administrator",
                Rights::User => "user",
            },
        )?;
        for variable in &self.environment {
            put("environment", variable)?;
        }
        if let Some(size) = self.terminal {
            put("terminal", &format!("{}x{}", size.columns, size.rows))?;
        }
        Ok(text.into_bytes())
    }
}

/// What of a start is needed to find the program again.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Told {
    /// The whole command line.
    pub command: String,
    /// The working directory.
    pub directory: String,
    /// The variable `PATH`.
    pub path: String,
}

/// Reads the file `start`.
pub fn parse_start(bytes: &[u8]) -> Option<Told> {
    let path = bytes.split(|&byte| byte == 0).find_map(|record| {
        let variable = record.strip_prefix(b"environment=")?;
        let (name, value) = variable.split_at_checked(5)?;
        name.eq_ignore_ascii_case(b"path=").then(|| String::from_utf8_lossy(value).into_owned())
    });
    Some(Told {
        command: record(bytes, "command")?.into_owned(),
        directory: record(bytes, "directory").unwrap_or_default().into_owned(),
        path: path.unwrap_or_default(),
    })
}

/// Why a process was not started.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    /// What failed: `directory`, `program` and others.
    pub step: String,
    /// Windows' number of the error.
    pub code: u32,
    /// Windows' words for it.
    pub message: String,
}

/// The value of a record of a file.
pub(crate) fn record<'a>(bytes: &'a [u8], key: &str) -> Option<std::borrow::Cow<'a, str>> {
    bytes.split(|&byte| byte == 0).find_map(|record| {
        record.strip_prefix(key.as_bytes())?.strip_prefix(b"=").map(String::from_utf8_lossy)
    })
}

/// Reads the file `exit`: the exit code.
pub fn parse_exit(bytes: &[u8]) -> Option<u32> {
    record(bytes, "code")?.parse().ok()
}

/// Reads the file `error`.
pub fn parse_failure(bytes: &[u8]) -> Option<Failure> {
    let printable = |text: &str| -> String {
        text.trim().chars().filter(|c| !c.is_control()).take(400).collect()
    };
    Some(Failure {
        step: printable(&record(bytes, "step")?),
        code: record(bytes, "code")?.parse().ok()?,
        message: printable(&record(bytes, "message").unwrap_or_default()),
    })
}

/// Something that a running process is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Request {
    /// The console event of Ctrl-C.
    CtrlC,
    /// The console event of Ctrl-Break.
    CtrlBreak,
    /// What Windows raises in everybody when it shuts down.
    Shutdown,
    /// That services stop, for which the program's end waits.
    Services,
    /// The terminal's new size.
    Resize(Terminal),
}

impl Request {
    /// The name of its file. One of another kind must not take the place of an event.
    pub fn file(self) -> &'static str {
        match self {
            Self::Resize(_) => "size",
            Self::Services => "services",
            _ => "request",
        }
    }

    /// The content of its file.
    pub fn to_bytes(self) -> Vec<u8> {
        match self {
            Self::CtrlC => b"event=ctrl-c\0".to_vec(),
            Self::CtrlBreak => b"event=ctrl-break\0".to_vec(),
            Self::Shutdown => b"event=shutdown\0".to_vec(),
            Self::Services => b"event=services\0".to_vec(),
            Self::Resize(size) => format!("terminal={}x{}\0", size.columns, size.rows).into_bytes(),
        }
    }
}

/// Makes the FIFO of a directory anew and opens it, so that it has a reader and a writer as long as
/// it is held. `nonblocking` is for who only writes.
pub(crate) fn make_wake(folder: &Path, nonblocking: bool) -> io::Result<File> {
    let path = folder.join(WAKE);
    match fs_err::remove_file(&path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mode = Mode::from_raw_mode(0o600);
    rustix::fs::mknodat(rustix::fs::CWD, &path, FileType::Fifo, mode, 0)?;
    let mut flags = OFlags::RDWR | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    flags.set(OFlags::NONBLOCK, nonblocking);
    Ok(rustix::fs::open(path, flags, Mode::empty())?.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_start_is_told() {
        let start = Start {
            command: "cmd /c \"echo x\"".into(),
            directory: "C:\\".into(),
            rights: Rights::User,
            environment: vec!["A=1".into(), "Path=C:\\Windows".into()],
            terminal: Some(Terminal { columns: 80, rows: 24 }),
        };
        assert_eq!(
            String::from_utf8(start.to_bytes().unwrap()).unwrap(),
            "version=1\0command=cmd /c \"echo x\"\0directory=C:\\\0user=user\0environment=A=1\0environment=Path=C:\\Windows\0terminal=80x24\0"
        );
        let told = parse_start(&start.to_bytes().unwrap()).unwrap();
        assert_eq!((told.command.as_str(), told.path.as_str()), (&*start.command, "C:\\Windows"));
        assert_eq!(told.directory, "C:\\");
        assert_eq!(parse_start(b"directory=x\0"), None);
        let bad = Start { command: "a\0b".into(), ..Start::default() };
        assert_eq!(bad.to_bytes(), Err(ZeroByte("command")));
    }

    #[test]
    fn what_is_told_is_read() {
        assert_eq!(parse_exit(b"code=3221225786\0"), Some(0xC000_013A));
        for bad in [&b""[..], b"code=\0", b"code=4294967296\0", b"code=-1\0", b"xcode=1\0"] {
            assert_eq!(parse_exit(bad), None, "{bad:?}");
        }
        let failure =
            parse_failure(b"step=program\0code=2\0message=File not found.\r\n\0").unwrap();
        assert_eq!((failure.step.as_str(), failure.code), ("program", 2));
        assert_eq!(failure.message, "File not found.");
        assert_eq!(parse_failure(b"step=x\0"), None);
        assert_eq!(Request::CtrlC.to_bytes(), b"event=ctrl-c\0");
        assert_eq!(Request::Shutdown.to_bytes(), b"event=shutdown\0");
    }
}
