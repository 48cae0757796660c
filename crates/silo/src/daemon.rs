//! `silo daemon`: the engine and its API, in the foreground.
//!
//! One daemon serves a data root: it holds a lock on `<data>/daemon.pid`, which has its process
//! id. SIGTERM and SIGINT end it; containers run on, since their supervisors are processes of
//! their own, and the next daemon finds them.

use std::ffi::OsString;
use std::io::{Seek, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, bail};
use fs_err::File;
use rustix::fs::{FlockOperation, flock};
use silo_api::Listener;
use silo_engine::{Engine, EngineConfig};
use tokio::signal::unix::{SignalKind, signal};

const USAGE: &str = "Usage:  silo daemon [OPTIONS]

Run the engine in the foreground

Options:
      --bridge NAME          Name of the default bridge
      --cgroup-parent PATH   Parent of the containers' cgroups
      --dns ADDRESS          Name server of containers that name none
  -H, --host ADDRESS         Listen here as well (unix://PATH or tcp://ADDRESS:PORT)
      --label TEXT           Label of the daemon
      --log-driver NAME      Log driver of containers that name none
  -l, --log-level LEVEL      error, warn, info, debug or trace (default info)
      --log-opt NAME=VALUE   Option of that log driver
      --root DIRECTORY       Persistent state (default /var/lib/silo)
      --run-root DIRECTORY   State that a reboot may lose (default /run/silo)
      --sandbox-pool NUMBER  How many network sandboxes to keep ready
      --subnet CIDR          Subnet of the default bridge
      --table NAME           Name of Silo's own nftables table
";

/// What the command line says.
#[derive(Debug, Default)]
struct Options {
    root: String,
    run_root: String,
    hosts: Vec<String>,
    log_level: String,
    ready_on_stdout: bool,
    bridge: Option<String>,
    table: Option<String>,
    subnet: Option<String>,
    cgroup_parent: Option<String>,
    log_driver: Option<String>,
    log_options: Vec<(String, String)>,
    dns: Vec<String>,
    labels: Vec<String>,
    sandbox_pool: Option<usize>,
}

/// Runs the daemon until it is told to end.
pub(crate) fn main(args: Vec<OsString>) -> ExitCode {
    let options = match parse(args) {
        Ok(Some(options)) => options,
        Ok(None) => {
            write!(std::io::stdout().lock(), "{USAGE}").ok();
            return ExitCode::SUCCESS;
        }
        Err(reason) => {
            crate::complain(&format!("{reason}\n\n{USAGE}"));
            return ExitCode::from(125);
        }
    };
    match run(options) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            crate::complain(&format!("silo daemon: {error:#}"));
            ExitCode::FAILURE
        }
    }
}

fn parse(args: Vec<OsString>) -> Result<Option<Options>, String> {
    let mut options = Options { log_level: "info".into(), ..Options::default() };
    let mut args = args.into_iter().map(|arg| arg.to_string_lossy().into_owned());
    while let Some(arg) = args.next() {
        let (name, inline) = match arg.split_once('=') {
            Some((name, value)) if name.starts_with("--") => (name.to_owned(), Some(value.into())),
            _ => (arg, None),
        };
        let mut value = || {
            inline
                .clone()
                .or_else(|| args.next())
                .ok_or_else(|| format!("flag needs an argument: {name}"))
        };
        match name.as_str() {
            "-h" | "--help" => return Ok(None),
            "--root" => options.root = value()?,
            "--run-root" => options.run_root = value()?,
            "-H" | "--host" => options.hosts.push(value()?),
            "-l" | "--log-level" => options.log_level = value()?,
            "--ready-on-stdout" => options.ready_on_stdout = true,
            "--bridge" => options.bridge = Some(value()?),
            "--table" => options.table = Some(value()?),
            "--subnet" => options.subnet = Some(value()?),
            "--cgroup-parent" => options.cgroup_parent = Some(value()?),
            "--log-driver" => options.log_driver = Some(value()?),
            "--log-opt" => {
                let text: String = value()?;
                let (key, value) = text
                    .split_once('=')
                    .ok_or_else(|| format!("--log-opt wants NAME=VALUE, not {text:?}"))?;
                options.log_options.push((key.to_owned(), value.to_owned()));
            }
            "--dns" => options.dns.push(value()?),
            "--label" => options.labels.push(value()?),
            "--sandbox-pool" => {
                let text: String = value()?;
                let number = text.parse().map_err(|_| format!("not a number: {text:?}"))?;
                options.sandbox_pool = Some(number);
            }
            _ => return Err(format!("unknown flag: {name}")),
        }
    }
    Ok(Some(options))
}

fn run(options: Options) -> anyhow::Result<()> {
    if options.ready_on_stdout {
        // A command started us: its terminal's signals are not for us. This only fails when the
        // session is our own already.
        rustix::process::setsid().ok();
    }
    let filter = tracing_subscriber::EnvFilter::try_new(&options.log_level)
        .with_context(|| format!("log level {:?}", options.log_level))?;
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).init();
    let (data, run_root, socket) = silo_cli::default_socket(&options.root, &options.run_root);
    // What the engine makes has the modes it asks for, whoever started it.
    rustix::process::umask(rustix::fs::Mode::from_raw_mode(0o022));
    fs_err::create_dir_all(&data)?;
    fs_err::create_dir_all(&run_root)?;
    let lock = lock(&data)?;
    let exe = silo_sys::spawn::sealed_self().context("open the own program")?;
    let config = engine_config(&options, data, run_root, exe);
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .thread_name("silo")
        .build()
        .context("start the runtime")?;
    runtime.block_on(serve(options, config, &socket))?;
    // Work that is still open (a log that is followed, an upload) must not hold the end up.
    runtime.shutdown_background();
    drop(lock);
    Ok(())
}

fn engine_config(
    options: &Options,
    data: PathBuf,
    run_root: PathBuf,
    exe: std::os::fd::OwnedFd,
) -> EngineConfig {
    let mut config = EngineConfig::new(data, run_root, exe);
    if let Some(bridge) = &options.bridge {
        config.bridge.clone_from(bridge);
    }
    if let Some(table) = &options.table {
        config.table.clone_from(table);
    }
    if let Some(subnet) = &options.subnet {
        config.subnet.clone_from(subnet);
    }
    if let Some(parent) = &options.cgroup_parent {
        config.cgroup_parent.clone_from(parent);
    }
    if let Some(driver) = &options.log_driver {
        config.log_driver.clone_from(driver);
    }
    if let Some(pool) = options.sandbox_pool {
        config.sandbox_pool = pool;
    }
    config.log_options.extend(options.log_options.iter().cloned());
    config.dns.extend(options.dns.iter().cloned());
    config.labels.extend(options.labels.iter().cloned());
    config
}

/// Takes the root for this process; the file has its id.
fn lock(data: &Path) -> anyhow::Result<File> {
    let path = data.join("daemon.pid");
    let mut file = fs_err::OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .open(&path)?;
    if flock(&file, FlockOperation::NonBlockingLockExclusive).is_err() {
        let pid = fs_err::read_to_string(&path).unwrap_or_default();
        bail!("another daemon (pid {}) serves {}", pid.trim(), data.display());
    }
    file.set_len(0)?;
    file.rewind()?;
    writeln!(file, "{}", std::process::id())?;
    Ok(file)
}

async fn serve(options: Options, config: EngineConfig, socket: &Path) -> anyhow::Result<()> {
    let mut terminate = signal(SignalKind::terminate()).context("watch SIGTERM")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("watch SIGINT")?;
    let mut listeners = vec![unix_listener(socket)?];
    for host in &options.hosts {
        match host.split_once("://") {
            Some(("unix", path)) if Path::new(path) == socket => {}
            Some(("unix", path)) => listeners.push(unix_listener(Path::new(path))?),
            Some(("tcp", address)) => {
                let listener = tokio::net::TcpListener::bind(address)
                    .await
                    .with_context(|| format!("listen at {host}"))?;
                tracing::warn!(%address, "whoever can connect to this port is root on this host");
                listeners.push(Listener::Tcp(listener));
            }
            _ => bail!("cannot listen at {host:?}: expected unix://PATH or tcp://ADDRESS:PORT"),
        }
    }
    let engine = Engine::open(config).await.map_err(|error| anyhow::anyhow!(error.chain()))?;
    if options.ready_on_stdout {
        ready()?;
    }
    tracing::info!(socket = %socket.display(), "serving");
    let stop = async {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        tracing::info!("ending; containers run on");
    };
    silo_api::serve(engine, listeners, stop).await;
    fs_err::remove_file(socket).ok();
    Ok(())
}

/// Listens at a path that a dead daemon may have left behind; the lock says that it is dead.
fn unix_listener(path: &Path) -> anyhow::Result<Listener> {
    if let Some(parent) = path.parent() {
        fs_err::create_dir_all(parent)?;
    }
    match fs_err::remove_file(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error.into()),
        _ => {}
    }
    // Between its creation and the change of its mode, nobody else may connect.
    let before = rustix::process::umask(rustix::fs::Mode::from_raw_mode(0o177));
    let listener = Listener::unix(path).with_context(|| format!("listen at {}", path.display()));
    rustix::process::umask(before);
    let listener = listener?;
    fs_err::set_permissions(path, std::fs::Permissions::from_mode(0o660))?;
    Ok(listener)
}

/// Tells whoever started us that connections are taken, and lets go of their pipe.
fn ready() -> anyhow::Result<()> {
    let mut stdout = std::io::stdout().lock();
    stdout.write_all(b"ready").and_then(|()| stdout.flush()).context("say that we are ready")?;
    let null = fs_err::OpenOptions::new().write(true).open("/dev/null")?;
    rustix::stdio::dup2_stdout(&null).context("close the pipe")?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options(args: &[&str]) -> Result<Option<Options>, String> {
        parse(args.iter().map(OsString::from).collect())
    }

    #[test]
    fn flags() {
        let options = options(&[
            "--root",
            "/x",
            "--run-root=/y",
            "-H",
            "tcp://127.0.0.1:1",
            "--log-opt",
            "a=b",
            "--sandbox-pool",
            "2",
            "--ready-on-stdout",
        ])
        .unwrap()
        .unwrap();
        assert_eq!((options.root.as_str(), options.run_root.as_str()), ("/x", "/y"));
        assert_eq!(options.hosts, ["tcp://127.0.0.1:1"]);
        assert_eq!(options.log_options, [("a".to_owned(), "b".to_owned())]);
        assert_eq!(options.sandbox_pool, Some(2));
        assert!(options.ready_on_stdout);
    }

    #[test]
    fn refused_flags() {
        assert_eq!(options(&["--foo"]).unwrap_err(), "unknown flag: --foo");
        assert_eq!(options(&["--root"]).unwrap_err(), "flag needs an argument: --root");
        assert!(options(&["--help"]).unwrap().is_none());
    }
}
