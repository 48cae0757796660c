//! What travels on a shim's control socket: one JSON object a line.
//!
//! The daemon sends [`Request`]s with numbers of its choice; the shim answers each with one
//! [`Reply`] of the same number, in whatever order they finish, and sends [`Event`]s between
//! them to connections that have asked for them. `Attach` and `Exec` may carry one descriptor,
//! a stream socket, with the first byte of their line.

use serde::{Deserialize, Serialize};
use silo_oci::runtime::Process;
use silo_types::{ErrorKind, ExecId};

use crate::config::{ConsoleSize, LogConfig};
use crate::exit::ExitRecord;

/// A process of the container.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ProcessRef {
    /// The container's first process.
    Init,
    /// A process that was started later.
    Exec(ExecId),
}

/// A line from the daemon.
#[derive(Debug, Serialize, Deserialize)]
pub struct Request {
    /// Comes back in the reply.
    pub id: u64,
    /// What to do.
    #[serde(flatten)]
    pub call: Call,
}

/// What a shim can be asked.
#[derive(Debug, Serialize, Deserialize)]
#[serde(tag = "call", rename_all = "snake_case")]
pub enum Call {
    /// Tell the state, and with `subscribe` send events from now on.
    State {
        /// Whether this connection gets events.
        subscribe: bool,
    },
    /// Run the first process's program.
    Start,
    /// Send a signal.
    Signal {
        /// To whom.
        process: ProcessRef,
        /// The signal's number.
        signal: i32,
        /// To every process of the container instead.
        #[serde(default)]
        all: bool,
    },
    /// Start another process.
    Exec {
        /// What to start.
        spec: Box<ExecSpec>,
        /// Whether a descriptor comes along, which becomes its attached client.
        client: bool,
    },
    /// Set a terminal's size.
    Resize {
        /// Whose terminal.
        process: ProcessRef,
        /// The new size.
        size: ConsoleSize,
    },
    /// Connect the socket that comes along to the streams of a process.
    Attach {
        /// Whose streams.
        process: ProcessRef,
        /// Which, and how.
        options: AttachOptions,
    },
    /// Close a process's input once what has been sent is delivered.
    CloseStdin {
        /// Whose input.
        process: ProcessRef,
    },
    /// Open the log file anew, after somebody moved it away.
    ReopenLog,
    /// Use another log configuration from now on.
    UpdateLog {
        /// The new configuration.
        log: LogConfig,
    },
    /// Kill the container, whatever its state.
    Shutdown,
}

/// A process to be started in a running container.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct ExecSpec {
    /// Its name from now on.
    pub id: ExecId,
    /// What to run; its `terminal` field decides between a terminal and pipes.
    pub process: Process,
    /// First size of the terminal.
    #[serde(default)]
    pub console_size: Option<ConsoleSize>,
    /// How the client that comes along is attached. Without a client, input and output are
    /// `/dev/null`, or a terminal that nobody reads.
    #[serde(default)]
    pub attach: AttachOptions,
}

/// Which streams a client wants.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct AttachOptions {
    /// Its bytes become input of the process.
    #[serde(default)]
    pub stdin: bool,
    /// It gets standard output, or the terminal's output.
    #[serde(default)]
    pub stdout: bool,
    /// It gets standard error.
    #[serde(default)]
    pub stderr: bool,
    /// What the end of its input does.
    #[serde(default)]
    pub at_eof: AtEof,
    /// Send first what the process has written of a line that is not in the log yet.
    #[serde(default)]
    pub unlogged: bool,
}

/// What a client's half-close does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AtEof {
    /// Nothing; output goes on.
    #[default]
    Ignore,
    /// Close the process's input. On a terminal, which cannot be half-closed, nothing.
    CloseStdin,
    /// Detach the client.
    Detach,
}

/// A line from the shim.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Message {
    /// The answer to one request.
    Reply {
        /// The request's number.
        id: u64,
        /// Its outcome.
        result: Result<Reply, Failure>,
    },
    /// Something happened.
    Event(Event),
}

/// A good answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Reply {
    /// It is done.
    Done,
    /// The answer to `State`, and, with the request number 0, the sign that the container has
    /// been created.
    State(State),
    /// A process runs.
    Started {
        /// Its process id as the host sees it.
        pid: i32,
        /// When, in nanoseconds since 1970.
        at: i64,
    },
    /// The client is attached.
    Attached {
        /// Where the log ended at that moment: everything before is in the log, everything
        /// after comes on the socket.
        mark: Option<LogMark>,
    },
}

/// A place in a log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogMark {
    /// Inode number of the file that was current.
    pub inode: u64,
    /// Its length.
    pub offset: u64,
}

/// What a shim is doing.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct State {
    /// The shim's own process id.
    pub shim_pid: i32,
    /// The first process as the host sees it.
    pub pid: i32,
    /// How far the container is.
    pub status: Status,
    /// When it was started, in nanoseconds since 1970; 0 before.
    pub started_at: i64,
    /// Processes that were started later and run.
    pub execs: Vec<ExecState>,
}

/// How far a container is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Status {
    /// Made, and waiting for the start.
    Created,
    /// Its first process runs.
    Running,
    /// Its first process has ended.
    Exited(ExitRecord),
}

/// A process that was started later.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExecState {
    /// Its name.
    pub id: ExecId,
    /// Its process id as the host sees it.
    pub pid: i32,
}

/// A bad answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failure {
    /// The HTTP status of the kind of failure.
    pub status: u16,
    /// The whole chain of causes.
    pub message: String,
    /// The exit code of a program that could not be run: 126 or 127.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exit_code: Option<i32>,
}

impl Failure {
    /// A failure without an exit code.
    pub fn new(kind: ErrorKind, message: impl Into<String>) -> Self {
        Self { status: kind.http_status(), message: message.into(), exit_code: None }
    }

    /// What kind of failure it is.
    pub fn kind(&self) -> ErrorKind {
        ErrorKind::from_http_status(self.status)
    }
}

/// Something that happened.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Event {
    /// A process ended; for the first process, everything it wrote is in the log and the exit
    /// record is on disk.
    Exited {
        /// Which.
        process: ProcessRef,
        /// How.
        exit: ExitRecord,
    },
    /// The kernel killed something of the container for want of memory.
    Oom,
    /// Something went wrong that the container does not notice, such as a log that cannot be
    /// written.
    Warning(String),
    /// After the `Exited` of the first process: the control group is gone and the run
    /// directory is empty, so that the container can be started again or removed. The shim
    /// itself may stay until clients have taken their output. If the shim dies before it says
    /// so, the daemon's side does, and then remains are possible.
    Released,
    /// Never sent: the daemon's side reports it when the connection ends. The shim has left
    /// (after an `Exited` of the first process), or it died and took the container along.
    Lost,
}
