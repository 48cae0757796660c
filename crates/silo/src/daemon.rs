//! `silo daemon`: the engine and its API, in the foreground.
//!
//! One daemon serves a data root, a bridge and a table: it holds locks (see `lock`). SIGTERM and
//! SIGINT end it; containers run on, since their supervisors are processes of their own, and the
//! next daemon finds them. Builds end with it, and so do the containers of their steps.

use std::ffi::OsString;
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use clap::Parser;
use silo_api::{Backend, Listener};
use silo_build::Builder;
use silo_buildkit::BuildKit;
use silo_engine::{Engine, EngineConfig};
use tokio::signal::unix::{SignalKind, signal};

use crate::lock;

/// Serves the Docker Engine API; containers outlive it.
#[derive(Debug, Parser)]
#[command(name = "silo daemon", disable_version_flag = true)]
struct Options {
    /// Where images, containers and volumes are kept [default: /var/lib/silo]
    #[arg(long, value_name = "DIR", default_value = "", hide_default_value = true)]
    root: String,
    /// Where sockets of running containers are kept [default: /run/silo]
    #[arg(long, value_name = "DIR", default_value = "", hide_default_value = true)]
    run_root: String,
    /// Where to listen: unix://PATH or tcp://ADDRESS:PORT; may be repeated
    #[arg(short = 'H', long, value_name = "ADDRESS")]
    host: Vec<String>,
    /// Group that may use the unix socket
    #[arg(short = 'G', long, value_name = "GROUP", default_value = "docker")]
    group: String,
    /// Name of the bridge of the default network
    #[arg(short = 'b', long, value_name = "NAME", default_value = "silo0")]
    bridge: String,
    /// Address and subnet of the bridge [default: one that is free]
    #[arg(long, value_name = "CIDR", default_value = "", hide_default_value = true)]
    bip: String,
    /// Name of the nftables table that holds the rules
    #[arg(long, value_name = "NAME", default_value = "silo")]
    table: String,
    /// Parent cgroup of containers
    #[arg(long, value_name = "PATH", default_value = "/silo")]
    cgroup_parent: String,
    /// Name server of containers; may be repeated
    #[arg(long, value_name = "IP")]
    dns: Vec<String>,
    /// Log driver of containers
    #[arg(long, value_name = "DRIVER", default_value = "json-file")]
    log_driver: String,
    /// Option of the log driver; may be repeated
    #[arg(long, value_name = "KEY=VALUE")]
    log_opt: Vec<String>,
    /// Label of the daemon; may be repeated
    #[arg(long, value_name = "KEY=VALUE")]
    label: Vec<String>,
    /// What to log on standard error: error, warn, info, debug or trace
    #[arg(short, long, value_name = "LEVEL", default_value = "info")]
    log_level: String,
    /// File to write the process id to
    #[arg(short, long, value_name = "FILE")]
    pidfile: Option<PathBuf>,
    /// Write "ready" to standard output, and close it, once the sockets listen
    #[arg(long)]
    ready_on_stdout: bool,
    /// How many network sandboxes to keep ready
    #[arg(long, value_name = "NUMBER", default_value_t = 4)]
    sandbox_pool: usize,
    /// URL of a mirror of Docker Hub; may be repeated
    #[arg(long, value_name = "URL")]
    registry_mirror: Vec<String>,
    /// Registry, HOST[:PORT], or network of registries whose certificates are not checked, and
    /// that may have no TLS at all; may be repeated
    #[arg(long, value_name = "REGISTRY")]
    insecure_registry: Vec<String>,
    /// Directory with a directory of certificates for each registry; may be repeated
    #[arg(
        long,
        value_name = "DIR",
        default_values = ["/etc/silo/certs.d", "/etc/docker/certs.d"]
    )]
    registry_certs: Vec<PathBuf>,
    /// How many layers are pulled at once, 5 at most; by default as many as there are processors,
    /// but at least 3
    #[arg(long, value_name = "NUMBER")]
    max_concurrent_downloads: Option<usize>,
    /// How many connections one big layer is fetched by at most
    #[arg(long, value_name = "NUMBER", default_value_t = 4)]
    max_layer_connections: usize,
    /// How often at most a registry is asked that fails
    #[arg(long, value_name = "NUMBER", default_value_t = 6)]
    max_download_attempts: u32,
    /// Milliseconds before a registry that fails is asked again; they double each time
    #[arg(long, value_name = "MILLISECONDS", default_value_t = 500)]
    registry_retry_wait: u64,
    /// Milliseconds for which a registry may be silent
    #[arg(long, value_name = "MILLISECONDS", default_value_t = 120_000)]
    registry_timeout: u64,
    /// Build of Windows as which an image is chosen where there are several
    #[arg(long, value_name = "NUMBER", default_value_t = silo_engine::DEFAULT_WINDOWS_BUILD)]
    windows_build: u32,
    /// Do not use Silo's base images where Microsoft's are named
    #[arg(long)]
    no_windows_substitutes: bool,
    /// Remove the bridge and the rules that an engine of this configuration made, and end
    #[arg(long)]
    remove_network: bool,
}

/// Runs the daemon with the arguments after `daemon`.
pub(crate) fn main(args: Vec<OsString>) -> ExitCode {
    let named = std::iter::once(OsString::from("silo daemon")).chain(args);
    let options = match Options::try_parse_from(named) {
        Ok(options) => options,
        Err(error) => {
            let code = u8::try_from(error.exit_code()).unwrap_or(2);
            error.print().ok();
            return ExitCode::from(code);
        }
    };
    match run(&options) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            crate::complain(&format!("silo daemon: {error:#}"));
            ExitCode::FAILURE
        }
    }
}

fn run(options: &Options) -> Result<()> {
    if options.remove_network {
        return remove_network(options);
    }
    if options.ready_on_stdout {
        // A command started us: its terminal's signals are not for us. This only fails when the
        // session is our own already.
        rustix::process::setsid().ok();
    }
    let (data_root, run_root, socket) = silo_cli::default_socket(&options.root, &options.run_root);
    // What the engine makes has the modes it asks for, whoever started it.
    rustix::process::umask(rustix::fs::Mode::from_raw_mode(0o022));
    for root in [&data_root, &run_root] {
        if !root.is_dir() {
            fs_err::create_dir_all(root)?;
            fs_err::set_permissions(root, PermissionsExt::from_mode(0o711))?;
        }
    }
    // The same directory has the same name for every daemon: supervisors are found by it.
    let data_root = fs_err::canonicalize(data_root)?;
    let _lock = lock::data_root(&data_root)?;
    let _network = lock::network(&options.bridge, &options.table, &data_root)?;
    if let Some(file) = &options.pidfile {
        fs_err::write(file, std::process::id().to_string())?;
    }
    // The binary that shims run from; nothing in a container can open it for writing.
    let exe = silo_sys::spawn::sealed_self().context("open the engine's own binary")?;
    let mut config = EngineConfig::new(data_root, run_root, exe);
    config.bridge.clone_from(&options.bridge);
    config.table.clone_from(&options.table);
    config.subnet.clone_from(&options.bip);
    config.cgroup_parent.clone_from(&options.cgroup_parent);
    config.dns.clone_from(&options.dns);
    config.log_driver.clone_from(&options.log_driver);
    config.labels.clone_from(&options.label);
    config.proxies = silo_engine::Proxies::from_variables(|name| std::env::var(name).ok());
    config.sandbox_pool = options.sandbox_pool;
    config.registries.mirrors.clone_from(&options.registry_mirror);
    config.registries.insecure.clone_from(&options.insecure_registry);
    config.registries.certificates.clone_from(&options.registry_certs);
    if let Some(number) = options.max_concurrent_downloads {
        config.registries.downloads = number;
    }
    config.registries.ranges.at_once = options.max_layer_connections;
    config.registries.retry.attempts = options.max_download_attempts;
    config.registries.retry.first = Duration::from_millis(options.registry_retry_wait);
    config.registries.stall = Duration::from_millis(options.registry_timeout);
    config.windows_build = options.windows_build;
    config.windows_substitutes = !options.no_windows_substitutes;
    for option in &options.log_opt {
        let (key, value) = option
            .split_once('=')
            .with_context(|| format!("--log-opt {option}: expected KEY=VALUE"))?;
        config.log_options.insert(key.to_owned(), value.to_owned());
    }
    let filter = tracing_subscriber::EnvFilter::try_new(&options.log_level)
        .with_context(|| format!("--log-level {}", options.log_level))?;
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(false)
        .with_target(false)
        .init();
    let hosts = if options.host.is_empty() {
        vec![format!("unix://{}", socket.display())]
    } else {
        options.host.clone()
    };
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(std::thread::available_parallelism().map_or(2, |n| n.get().clamp(2, 8)))
        .enable_all()
        .thread_name("silo")
        .build()
        .context("start the runtime")?;
    let result = runtime.block_on(serve(options, config, &hosts));
    // Work that is still open (a log that is followed, an upload) must not hold the end up.
    runtime.shutdown_background();
    result
}

async fn serve(options: &Options, config: EngineConfig, hosts: &[String]) -> Result<()> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    // An engine that a terminal started goes on when that closes.
    let _hangup = signal(SignalKind::hangup())?;
    // Clients that come while the engine looks for its containers wait in the socket's queue.
    let mut listeners = Vec::new();
    for host in hosts {
        listeners.push(listen(host, &options.group).await?);
    }
    let data_root = config.data_root.clone();
    let engine = Engine::open(config).await.map_err(|error| anyhow::anyhow!(error.chain()))?;
    for host in hosts {
        tracing::info!("API listen on {host}");
    }
    if options.ready_on_stdout {
        let mut stdout = std::io::stdout();
        // Whoever started us may have left already.
        stdout.write_all(b"ready").and_then(|()| stdout.flush()).ok();
        let null = fs_err::OpenOptions::new().write(true).open("/dev/null")?;
        rustix::stdio::dup2_stdout(&null).context("close standard output")?;
    }
    let builder = Builder::open(&engine).map_err(|error| anyhow::anyhow!(error.chain()))?;
    let buildkit = BuildKit::open(Arc::clone(&builder), &data_root)
        .map_err(|error| anyhow::anyhow!(error.chain()))?;
    let backend = Backend { engine: Arc::clone(&engine), builder: Arc::clone(&builder), buildkit };
    silo_api::serve(backend, listeners, async {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
    })
    .await;
    builder.close().await;
    engine.close().await;
    if let Err(error) = engine.sync().await {
        tracing::error!(error = %error.chain(), "images are not on the disk");
    }
    for path in hosts.iter().filter_map(|host| host.strip_prefix("unix://")) {
        fs_err::remove_file(path).ok();
    }
    if let Some(file) = &options.pidfile {
        fs_err::remove_file(file).ok();
    }
    Ok(())
}

/// Whether a living process listens on a socket. That of a dead one can answer for a moment: what
/// it was about to execute holds it until it is executed.
fn is_served(path: &Path) -> bool {
    std::os::unix::net::UnixStream::connect(path).is_ok_and(|stream| {
        rustix::net::sockopt::socket_peercred(&stream)
            .is_ok_and(|peer| lock::is_alive(&peer.pid.as_raw_nonzero().to_string()))
    })
}

async fn listen(host: &str, group: &str) -> Result<Listener> {
    if let Some(path) = host.strip_prefix("unix://") {
        let path = Path::new(path);
        if let Some(folder) = path.parent() {
            fs_err::create_dir_all(folder)?;
        }
        // The lock on the root is ours, so a socket that is there is a dead engine's, unless it
        // answers.
        if is_served(path) {
            bail!("something listens on {host} already");
        }
        fs_err::remove_file(path).ok();
        // The mode is set before anybody can connect: a socket is born with what umask leaves.
        let previous = rustix::process::umask(rustix::fs::Mode::from_raw_mode(0o117));
        let listener = Listener::unix(path);
        rustix::process::umask(previous);
        let listener = listener.with_context(|| format!("listen on {host}"))?;
        fs_err::set_permissions(path, PermissionsExt::from_mode(0o660))?;
        give_to_group(path, group);
        return Ok(listener);
    }
    if let Some(address) = host.strip_prefix("tcp://") {
        tracing::warn!(
            "{host} is open to everyone who can connect, and they are root on this host"
        );
        return Listener::tcp(address).await.with_context(|| format!("listen on {host}"));
    }
    bail!("invalid host {host:?}: expected unix://PATH or tcp://ADDRESS:PORT")
}

/// Lets the group use the socket, where there is such a group.
fn give_to_group(path: &Path, group: &str) {
    let Ok(groups) = fs_err::read_to_string("/etc/group") else { return };
    let id = groups.lines().find_map(|line| {
        let mut fields = line.split(':');
        (fields.next() == Some(group)).then(|| fields.nth(1)?.parse().ok()).flatten()
    });
    if let Some(id) = id
        && let Err(error) = rustix::fs::chown(path, None, Some(rustix::fs::Gid::from_raw(id)))
    {
        tracing::warn!(%error, "give {} to group {group}", path.display());
    }
}

fn remove_network(options: &Options) -> Result<()> {
    let config = silo_net::NetworkConfig {
        bridge: options.bridge.clone(),
        table: options.table.clone(),
        ..silo_net::NetworkConfig::default()
    };
    // An engine that runs would lose the network under its containers.
    let lock = lock::network_to_remove(&options.bridge, &options.table)?;
    silo_net::Network::remove(&config).context("remove the network")?;
    lock.forget();
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options(args: &[&str]) -> Result<Options, clap::Error> {
        Options::try_parse_from(std::iter::once("silo daemon").chain(args.iter().copied()))
    }

    #[test]
    fn flags() {
        let args = "--root /x --run-root=/y -H tcp://127.0.0.1:1 -H unix:///z --log-opt a=b";
        let options = options(&args.split(' ').collect::<Vec<_>>()).unwrap();
        assert_eq!((options.root.as_str(), options.run_root.as_str()), ("/x", "/y"));
        assert_eq!(options.host, ["tcp://127.0.0.1:1", "unix:///z"]);
        assert_eq!(options.log_opt, ["a=b"]);
        assert!(!options.ready_on_stdout);
    }

    #[test]
    fn a_socket_of_the_dead_is_not_served() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("socket");
        assert!(!is_served(&path));
        let listener = std::os::unix::net::UnixListener::bind(&path).unwrap();
        assert!(is_served(&path));
        drop(listener);
        assert!(!is_served(&path));
    }

    #[test]
    fn refused_flags() {
        for bad in [&["--foo"][..], &["--root"], &["--sandbox-pool", "many"]] {
            assert!(options(bad).is_err(), "{bad:?}");
        }
    }
}
