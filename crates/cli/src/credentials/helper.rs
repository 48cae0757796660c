//! Programs that keep credentials: `docker-credential-<name> get|store|erase`, which read their
//! request from stdin and answer on stdout.

use std::io::{Read as _, Write as _};
use std::os::unix::process::ExitStatusExt as _;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc;
use std::time::Duration;

use rustix::process::{Pid, Signal};

/// How long a helper may take. People may have to unlock what it keeps.
pub(super) const PATIENCE: Duration = Duration::from_mins(5);
/// The longest answer, in bytes.
const MAX_ANSWER: u64 = 1 << 20;
/// Characters of an answer that an error has.
const MAX_SAID: usize = 500;
/// What helpers say who know nothing of a registry.
const NOT_FOUND: &str = "credentials not found in native keychain";

/// Why a helper did not help. The words are Docker's.
#[derive(Debug, thiserror::Error)]
pub(super) enum HelperError {
    #[error("err: exec: {program:?}: {}, out: ``", reason(.source))]
    Start {
        program: String,
        #[source]
        source: std::io::Error,
    },
    #[error("err: {}, out: `{}`", ended(*.status), said(.output))]
    Failed { status: ExitStatus, output: String },
    #[error("err: {program:?} answers with more than {MAX_ANSWER} bytes, out: ``")]
    TooLong { program: String },
    #[error("err: {program:?} does not answer for {} seconds, out: ``", .patience.as_secs())]
    Silent { program: String, patience: Duration },
}

impl HelperError {
    /// Whether the helper knows nothing of the registry.
    pub(super) fn is_unknown(&self) -> bool {
        matches!(self, Self::Failed { output, .. } if output.trim() == NOT_FOUND)
    }
}

fn reason(error: &std::io::Error) -> String {
    match error.kind() {
        std::io::ErrorKind::NotFound => "executable file not found in $PATH".to_owned(),
        _ => error.to_string(),
    }
}

fn ended(status: ExitStatus) -> String {
    match (status.code(), status.signal()) {
        (Some(code), _) => format!("exit status {code}"),
        (None, Some(signal)) => format!("signal: {signal}"),
        (None, None) => status.to_string(),
    }
}

/// What fits into an error.
fn said(output: &str) -> String {
    output.trim().chars().filter(|c| *c == '\n' || !c.is_control()).take(MAX_SAID).collect()
}

/// Ends a helper that is not waited for any longer, with all that it has started. What does not
/// belong to it any more, as an agent in the background, goes on.
fn end(child: &mut Child) {
    end_all(Pid::from_child(child));
    child.wait().ok();
}

/// Ends a process and its children. Not by a group of its own: a helper may ask its question on
/// the terminal, which only the group in the foreground can read.
fn end_all(pid: Pid) {
    // From here on it neither starts others nor waits for those it has: they are what they were.
    rustix::process::kill_process(pid, Signal::STOP).ok();
    for child in children(pid) {
        end_all(child);
    }
    rustix::process::kill_process(pid, Signal::KILL).ok();
}

/// The children of all threads of a process; none where the kernel does not tell.
fn children(pid: Pid) -> Vec<Pid> {
    let tasks = fs_err::read_dir(format!("/proc/{}/task", pid.as_raw_nonzero()));
    let lists = tasks.into_iter().flatten().flatten().map(|task| task.path().join("children"));
    let lists: Vec<_> = lists.filter_map(|path| fs_err::read_to_string(path).ok()).collect();
    let ids = lists.iter().flat_map(|list| list.split_ascii_whitespace());
    ids.filter_map(|id| Pid::from_raw(id.parse().ok()?)).collect()
}

/// Asks a helper; gives its answer.
pub(super) fn ask(
    helper: &str,
    verb: &str,
    input: &str,
    patience: Duration,
) -> Result<Vec<u8>, HelperError> {
    let program = format!("docker-credential-{helper}");
    let mut command = Command::new(&program);
    command.arg(verb);
    exchange(command, program, input, patience)
}

fn exchange(
    mut command: Command,
    program: String,
    input: &str,
    patience: Duration,
) -> Result<Vec<u8>, HelperError> {
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .map_err(|source| HelperError::Start { program: program.clone(), source })?;
    if let Some(mut stdin) = child.stdin.take() {
        let input = input.to_owned();
        // One who does not want to hear it says why; one who does not listen is waited for no
        // longer than one who does not answer.
        std::thread::spawn(move || stdin.write_all(input.as_bytes()).ok());
    }
    let (sender, answer) = mpsc::channel();
    if let Some(stdout) = child.stdout.take() {
        std::thread::spawn(move || {
            let mut bytes = Vec::new();
            let read = stdout.take(MAX_ANSWER + 1).read_to_end(&mut bytes);
            sender.send(read.map(|_| bytes)).ok();
        });
    }
    let output = match answer.recv_timeout(patience) {
        Ok(Ok(output)) => output,
        Ok(Err(source)) => {
            end(&mut child);
            return Err(HelperError::Start { program, source });
        }
        Err(_) => {
            end(&mut child);
            return Err(HelperError::Silent { program, patience });
        }
    };
    if output.len() as u64 > MAX_ANSWER {
        end(&mut child);
        return Err(HelperError::TooLong { program });
    }
    // It has closed its output: there is nothing that it could still be about.
    let status = child.wait().map_err(|source| HelperError::Start { program, source })?;
    if status.success() {
        Ok(output)
    } else {
        let output = String::from_utf8_lossy(&output).into_owned();
        Err(HelperError::Failed { status, output })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_said_of_failures() {
        let failed = |code: i32, output: &str| HelperError::Failed {
            status: ExitStatus::from_raw(code << 8),
            output: output.to_owned(),
        };
        assert!(failed(1, "credentials not found in native keychain\n").is_unknown());
        assert!(!failed(1, "locked").is_unknown());
        assert_eq!(failed(3, "lo\x1bcked\n").to_string(), "err: exit status 3, out: `locked`");
        assert!(failed(1, &"x".repeat(10_000)).to_string().len() < 1000);
        let absent = ask("silo-none-such", "get", "r", PATIENCE).unwrap_err();
        assert_eq!(
            absent.to_string(),
            "err: exec: \"docker-credential-silo-none-such\": executable file not found in \
             $PATH, out: ``"
        );
    }

    #[test]
    fn who_is_not_waited_for() {
        let shell = |script: &str, input: &str, patience| {
            let (mut said, stderr) = std::io::pipe().unwrap();
            let mut command = Command::new("sh");
            command.args(["-c", script]).stderr(stderr);
            let outcome = exchange(command, "x".to_owned(), input, patience);
            // It ends when nobody is left who could say something.
            said.read_to_end(&mut Vec::new()).unwrap();
            outcome
        };
        let short = Duration::from_millis(200);
        let silent = shell("exec sleep 1000", "r", short).unwrap_err();
        assert!(matches!(silent, HelperError::Silent { .. }), "{silent}");
        // One that reads nothing.
        let long = "x".repeat(1 << 20);
        assert_eq!(shell("echo yes", &long, PATIENCE).unwrap(), b"yes\n");
        // Those that would leave children behind, and children of these.
        for script in ["sleep 1000 & wait", "(sleep 1000 & sleep 1001; true) & sleep 1002; wait"] {
            let silent = shell(script, "r", short).unwrap_err();
            assert!(matches!(silent, HelperError::Silent { .. }), "{silent}");
        }
        for script in ["exec yes", "yes & wait"] {
            let endless = shell(script, "r", PATIENCE).unwrap_err();
            assert!(matches!(endless, HelperError::TooLong { .. }), "{endless}");
        }
    }
}
