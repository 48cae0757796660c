//! Which engine a command talks to, and starting Silo's own when it does not run.

use std::io::Read;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use silo_client::{API_VERSION, Client, ClientError, Endpoint};

use crate::context::Cli;
use crate::env;
use crate::failure::{Failure, Outcome};

/// The file descriptor that a started daemon writes to when it serves. It is its standard
/// output, so that nothing needs to be passed beyond the usual three.
const READY: &str = "ready";

/// Where Silo's own engine keeps its state.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Roots {
    pub(crate) data: PathBuf,
    pub(crate) run: PathBuf,
}

impl Roots {
    /// From flags, environment, and the user.
    pub(crate) fn of(root: &str, run_root: &str) -> Self {
        let flag = |text: &str| Some(text.to_owned()).filter(|text| !text.is_empty());
        let given = flag(root).or_else(|| env::get(env::SILO_ROOT)).map(PathBuf::from);
        let is_root = rustix::process::geteuid().is_root();
        let home = || PathBuf::from(env::get(env::HOME).unwrap_or_else(|| "/".into()));
        let run = flag(run_root)
            .or_else(|| env::get(env::SILO_RUN_ROOT))
            .map(PathBuf::from)
            // A root of its own has a run directory of its own, or two engines would meet.
            .or_else(|| given.as_ref().map(|root| root.join("run")))
            .unwrap_or_else(|| {
                if is_root {
                    "/run/silo".into()
                } else {
                    env::get(env::XDG_RUNTIME_DIR).map_or_else(
                        || home().join(".local/share/silo/run"),
                        |directory| PathBuf::from(directory).join("silo"),
                    )
                }
            });
        let data = given.unwrap_or_else(|| {
            if is_root {
                "/var/lib/silo".into()
            } else {
                env::get(env::XDG_DATA_HOME)
                    .map_or_else(|| home().join(".local/share"), PathBuf::from)
                    .join("silo")
            }
        });
        Self { data, run }
    }

    /// The engine's socket.
    pub(crate) fn socket(&self) -> PathBuf {
        self.run.join("silo.sock")
    }
}

/// The socket of Silo's own engine for the given roots, either of which may be empty.
pub fn default_socket(root: &str, run_root: &str) -> (PathBuf, PathBuf, PathBuf) {
    let roots = Roots::of(root, run_root);
    let socket = roots.socket();
    (roots.data, roots.run, socket)
}

/// The address that the user chose; `None` means Silo's own engine.
fn chosen(cli: &Cli) -> Outcome<Option<String>> {
    let flags = cli.flags();
    if flags.tls || flags.tlsverify {
        return Err(Failure::new("connections by TLS are not supported yet"));
    }
    if flags.host.len() > 1 {
        return Err(Failure::new("specify only one -H"));
    }
    if let Some(host) = flags.host.first() {
        if !flags.context.is_empty() {
            return Err(Failure::new(
                "conflicting options: cannot specify both --host and --context",
            ));
        }
        return Ok(Some(host.clone()));
    }
    if !flags.context.is_empty() {
        return cli.config().context_host(&flags.context);
    }
    if !flags.root.is_empty() || !flags.run_root.is_empty() {
        return Ok(None);
    }
    if let Some(host) = env::get(env::SILO_HOST).or_else(|| env::get(env::DOCKER_HOST)) {
        return Ok(Some(host));
    }
    let context = env::get(env::DOCKER_CONTEXT)
        .unwrap_or_else(|| cli.config().text("currentContext").to_owned());
    cli.config().context_host(&context)
}

/// Connects to the engine.
pub(crate) async fn client(cli: &Cli) -> Outcome<Client> {
    let version = env::get(env::DOCKER_API_VERSION);
    let wanted = version.as_deref().unwrap_or(API_VERSION);
    if let Some(host) = chosen(cli)? {
        let endpoint: Endpoint = host.parse().map_err(|error| Failure::new(format!("{error}")))?;
        let mut client = Client::new(endpoint, wanted);
        if version.is_none() {
            client.negotiate().await.map_err(unreachable)?;
        }
        return Ok(client);
    }
    // Command line and engine are one binary: the newest version needs no asking.
    let roots = Roots::of(&cli.flags().root, &cli.flags().run_root);
    let client = Client::new(Endpoint::Unix(roots.socket()), wanted);
    match client.connect().await {
        Ok(()) => Ok(client),
        Err(ClientError::Connect { .. }) => {
            start_daemon_once(&roots)?;
            client.connect().await.map_err(unreachable)?;
            Ok(client)
        }
        Err(other) => Err(other.into()),
    }
}

fn unreachable(error: ClientError) -> Failure {
    match error {
        ClientError::Connect { endpoint, .. } => Failure::new(format!(
            "Cannot connect to the Docker daemon at {endpoint}. Is the docker daemon running?"
        )),
        other => other.into(),
    }
}

/// Of several commands that find no daemon, one starts it; the others wait for that one.
fn start_daemon_once(roots: &Roots) -> Outcome {
    let problem = |error: std::io::Error| Failure::new(error.to_string());
    fs_err::create_dir_all(&roots.data).map_err(problem)?;
    let lock = fs_err::File::create(roots.data.join("daemon.start")).map_err(problem)?;
    rustix::fs::flock(&lock, rustix::fs::FlockOperation::LockExclusive)
        .map_err(|error| problem(error.into()))?;
    if std::os::unix::net::UnixStream::connect(roots.socket()).is_ok() {
        return Ok(());
    }
    start_daemon(roots)
}

/// Starts the daemon, which makes a session of its own, and waits until it serves: it writes a
/// word to its standard output then, or ends, which closes the pipe.
fn start_daemon(roots: &Roots) -> Outcome {
    let log_path = roots.data.join("daemon.log");
    let log = fs_err::OpenOptions::new()
        .create(true)
        .append(true)
        .open(&log_path)
        .map_err(|error| Failure::new(error.to_string()))?;
    let log_start = log.metadata().map_or(0, |data| data.len());
    let mut command = Command::new("/proc/self/exe");
    command
        .arg0("silo")
        .arg("daemon")
        .arg("--ready-on-stdout")
        .arg("--root")
        .arg(&roots.data)
        .arg("--run-root")
        .arg(&roots.run)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::from(log.into_file()))
        .current_dir("/");
    let mut child = command
        .spawn()
        .map_err(|error| Failure::new(format!("cannot start the daemon: {error}")))?;
    let mut word = [0; READY.len()];
    let ready = child.stdout.take().map(|mut pipe| pipe.read_exact(&mut word));
    if matches!(ready, Some(Ok(()))) && word == *READY.as_bytes() {
        return Ok(());
    }
    child.wait().ok();
    Err(Failure::new(format!(
        "Cannot start the Silo daemon; its log is {}{}",
        log_path.display(),
        last_lines(&log_path, log_start)
    )))
}

fn last_lines(path: &Path, from: u64) -> String {
    let Ok(bytes) = fs_err::read(path) else { return String::new() };
    let start = usize::try_from(from).unwrap_or(0).min(bytes.len());
    let text = String::from_utf8_lossy(&bytes[start..]);
    let lines: Vec<&str> = text.lines().rev().take(5).collect();
    lines.iter().rev().fold(String::new(), |text, line| text + "\n  " + line)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn roots_follow_flags() {
        let roots = Roots::of("/x", "");
        assert_eq!(roots.data, Path::new("/x"));
        assert_eq!(roots.socket(), Path::new("/x/run/silo.sock"));
        let roots = Roots::of("/x", "/y");
        assert_eq!(roots.run, Path::new("/y"));
    }
}
