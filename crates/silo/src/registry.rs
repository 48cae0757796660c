//! `silo registry`: a registry over the content of an engine's data root, in the foreground.
//!
//! It shares files with the engine, not the process: either may run without the other.

use std::ffi::OsString;
use std::io::Write;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, Result, anyhow};
use clap::{Args, Parser, Subcommand};
use silo_registryd::{Collect, Config, Limits, Proxy, Registry};
use tokio::signal::unix::{SignalKind, signal};

/// How long work that nobody waits for may hold up the end of the server.
const AFTERWORK: Duration = Duration::from_secs(2);

/// Serves images to clients, and keeps them.
#[derive(Debug, Parser)]
#[command(name = "silo registry", disable_version_flag = true, arg_required_else_help = true)]
struct Options {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Serve a registry (OCI distribution specification)
    Serve(Box<Serve>),
    /// Remove what nothing needs; a server may run meanwhile
    Gc(Gc),
}

#[derive(Debug, Args)]
struct Serve {
    /// Where to listen: ADDRESS:PORT; may be repeated
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:5000")]
    listen: Vec<String>,
    /// The engine's data root [default: /var/lib/silo]
    #[arg(long, value_name = "DIR", default_value = "", hide_default_value = true)]
    root: String,
    /// Certificate and those of its authorities, in PEM
    #[arg(long, value_name = "FILE", requires = "tls_key")]
    tls_cert: Option<PathBuf>,
    /// Private key of the certificate, in PEM
    #[arg(long, value_name = "FILE", requires = "tls_cert")]
    tls_key: Option<PathBuf>,
    /// Users and their bcrypt hashes, as `htpasswd -B` writes them; read again when it changes
    #[arg(long, value_name = "FILE")]
    htpasswd: Option<PathBuf>,
    /// Who may do what with which repositories: lines of USER pull|push|delete REPOSITORY...;
    /// read again when it changes
    #[arg(long, value_name = "FILE")]
    access: Option<PathBuf>,
    /// Serve the engine's images too, to be pulled, as repositories below this name
    #[arg(long, value_name = "NAME", num_args = 0..=1, require_equals = true, default_missing_value = "engine")]
    engine_images: Option<String>,
    /// Nothing can be pushed or deleted
    #[arg(long)]
    read_only: bool,
    /// Nothing can be deleted
    #[arg(long)]
    no_delete: bool,
    /// Manifests may name blobs and manifests that their repository does not have
    #[arg(long)]
    allow_sparse: bool,
    /// Keep what this registry has, for the next who asks; nothing can be pushed then
    #[arg(long, value_name = "URL")]
    proxy: Option<String>,
    /// File with NAME:PASSWORD for that registry
    #[arg(long, value_name = "FILE", requires = "proxy")]
    proxy_credentials: Option<PathBuf>,
    /// How long an image of that registry is kept that nobody asks for
    #[arg(long, value_name = "TIME", default_value = "168h")]
    proxy_keep: String,
    /// Largest blob in bytes, or with k, m, g
    #[arg(long, value_name = "SIZE", default_value = "128g")]
    max_blob_size: String,
    /// Largest manifest in bytes, or with k, m, g
    #[arg(long, value_name = "SIZE", default_value = "4m")]
    max_manifest_size: String,
    /// Connections at once
    #[arg(long, value_name = "NUMBER", default_value_t = Limits::default().connections)]
    max_connections: usize,
    /// Uploads of content at once
    #[arg(long, value_name = "NUMBER", default_value_t = Limits::default().transfers)]
    max_transfers: usize,
    /// Uploads that are begun and not finished
    #[arg(long, value_name = "NUMBER", default_value_t = Limits::default().uploads)]
    max_uploads: usize,
    /// How long a client may take for a request's head
    #[arg(long, value_name = "TIME", default_value = "30s")]
    head_timeout: String,
    /// How long a client may keep a connection between two requests
    #[arg(long, value_name = "TIME", default_value = "1m")]
    idle_timeout: String,
    /// How long a client may neither send nor take anything
    #[arg(long, value_name = "TIME", default_value = "1m")]
    silence_timeout: String,
    /// Bytes a second that a client must send or take of a body, or with k, m; 0: any
    #[arg(long, value_name = "SIZE", default_value = "512")]
    min_rate: String,
    /// How long requests have to end when the server stops
    #[arg(long, value_name = "TIME", default_value = "10s")]
    stop_timeout: String,
    /// How often garbage is collected; 0: only by `silo registry gc`
    #[arg(long, value_name = "TIME", default_value = "1h")]
    gc_interval: String,
    #[command(flatten)]
    collect: What,
    /// What to log on standard error: error, warn, info, debug or trace
    #[arg(short, long, value_name = "LEVEL", default_value = "info")]
    log_level: String,
    /// Write the addresses that are listened on to standard output, a line each
    #[arg(long)]
    ready_on_stdout: bool,
}

#[derive(Debug, Args)]
struct Gc {
    /// The engine's data root [default: /var/lib/silo]
    #[arg(long, value_name = "DIR", default_value = "", hide_default_value = true)]
    root: String,
    #[command(flatten)]
    collect: What,
}

#[derive(Debug, Args)]
struct What {
    /// How long blobs and manifests are kept that nothing needs
    #[arg(long, value_name = "TIME", default_value = "24h")]
    gc_grace: String,
    /// How long an upload is kept that nothing is added to
    #[arg(long, value_name = "TIME", default_value = "24h")]
    upload_expiry: String,
    /// Collect manifests as well that neither a tag nor another manifest leads to
    #[arg(long)]
    gc_untagged: bool,
}

impl What {
    fn collect(&self, every: Option<Duration>) -> Result<Collect> {
        Ok(Collect {
            every,
            grace: duration("--gc-grace", &self.gc_grace)?,
            uploads: duration("--upload-expiry", &self.upload_expiry)?,
            untagged: self.gc_untagged,
            unused: None,
        })
    }
}

/// Runs the command with the arguments after `registry`.
pub(crate) fn main(args: Vec<OsString>) -> ExitCode {
    let named = std::iter::once(OsString::from("silo registry")).chain(args);
    let options = match Options::try_parse_from(named) {
        Ok(options) => options,
        Err(error) => {
            let code = u8::try_from(error.exit_code()).unwrap_or(2);
            error.print().ok();
            return ExitCode::from(code);
        }
    };
    let done = match &options.verb {
        Verb::Serve(serve) => run(serve),
        Verb::Gc(gc) => collect(gc),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            crate::complain(&format!("silo registry: {error:#}"));
            ExitCode::FAILURE
        }
    }
}

fn data_root(root: &str) -> PathBuf {
    silo_cli::default_socket(root, "").0
}

fn config(options: &Serve) -> Result<Config> {
    let mut listen = Vec::new();
    for address in &options.listen {
        let address: SocketAddr = address
            .parse()
            .with_context(|| format!("--listen {address}: expected IP:PORT, as 0.0.0.0:5000"))?;
        listen.push(address);
    }
    let mut config = Config::new(listen, data_root(&options.root));
    config.tls = options.tls_cert.clone().zip(options.tls_key.clone());
    config.users.clone_from(&options.htpasswd);
    config.access.clone_from(&options.access);
    config.engine_images.clone_from(&options.engine_images);
    config.read_only = options.read_only;
    config.no_delete = options.no_delete;
    config.sparse = options.allow_sparse;
    config.proxy = options.proxy.clone().map(|url| Proxy { url, user: None });
    if let (Some(proxy), Some(path)) = (&mut config.proxy, &options.proxy_credentials) {
        let text = fs_err::read_to_string(path)?;
        let (name, password) = text
            .trim_end_matches(['\r', '\n'])
            .split_once(':')
            .with_context(|| format!("{}: expected NAME:PASSWORD", path.display()))?;
        proxy.user = Some((name.to_owned(), password.to_owned()));
    }
    let manifest = size("--max-manifest-size", &options.max_manifest_size)?;
    config.limits = Limits {
        connections: options.max_connections.max(1),
        transfers: options.max_transfers.max(1),
        uploads: options.max_uploads.max(1),
        blob: size("--max-blob-size", &options.max_blob_size)?,
        manifest: usize::try_from(manifest).unwrap_or(usize::MAX),
        head: duration("--head-timeout", &options.head_timeout)?,
        idle: duration("--idle-timeout", &options.idle_timeout)?,
        silence: duration("--silence-timeout", &options.silence_timeout)?,
        rate: size("--min-rate", &options.min_rate)?,
        goodbye: duration("--stop-timeout", &options.stop_timeout)?,
    };
    let every = duration("--gc-interval", &options.gc_interval)?;
    config.collect = options.collect.collect((!every.is_zero()).then_some(every))?;
    let keep = duration("--proxy-keep", &options.proxy_keep)?;
    config.collect.unused = config.proxy.is_some().then_some(keep);
    Ok(config)
}

fn size(option: &str, text: &str) -> Result<u64> {
    let parsed = silo_types::size::parse_binary(text);
    parsed.with_context(|| format!("{option} {text}: expected a size as 100m or 10g"))
}

fn duration(option: &str, text: &str) -> Result<Duration> {
    let parsed = silo_types::duration::parse_go(text);
    parsed.with_context(|| format!("{option} {text}: expected a time as 90s, 10m or 24h"))
}

fn run(options: &Serve) -> Result<()> {
    let config = config(options)?;
    rustix::process::umask(rustix::fs::Mode::from_raw_mode(0o022));
    let filter = tracing_subscriber::EnvFilter::try_new(&options.log_level)
        .with_context(|| format!("--log-level {}", options.log_level))?;
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(false)
        .with_target(false)
        .init();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(std::thread::available_parallelism().map_or(2, |n| n.get().clamp(2, 8)))
        .enable_all()
        .thread_name("registry")
        .build()
        .context("start the runtime")?;
    let served = runtime.block_on(serve(config, options.ready_on_stdout));
    // A collection may be at work, and hashing: either is done again.
    runtime.shutdown_timeout(AFTERWORK);
    served
}

async fn serve(config: Config, tell: bool) -> Result<()> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let scheme = if config.tls.is_some() { "https" } else { "http" };
    let open = config.users.is_none() && !config.read_only;
    let ready = |addresses: &[SocketAddr]| {
        for address in addresses {
            tracing::info!("registry listens on {scheme}://{address}");
            if open && !address.ip().is_loopback() {
                tracing::warn!("everyone who can connect to {address} can push and delete");
            }
            if tell {
                // Whoever started us may have left already.
                writeln!(std::io::stdout(), "{scheme}://{address}").ok();
            }
        }
        std::io::stdout().flush().ok();
    };
    let stop = async {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
    };
    silo_registryd::serve(config, ready, stop).await.map_err(|error| anyhow!(error.chain()))
}

fn collect(options: &Gc) -> Result<()> {
    let what = options.collect.collect(None)?;
    let failed = |error: silo_registryd::Error| anyhow!(error.chain());
    let root = data_root(&options.root);
    if !root.join("registry").is_dir() {
        return Err(anyhow!("there is no registry in {}", root.display()));
    }
    let registry = Registry::open(&root).map_err(failed)?;
    let done = registry.collect(&what).map_err(failed)?;
    writeln!(
        std::io::stdout(),
        "removed {} manifests, {} blobs of repositories, {} repositories, {} uploads and {} \
         files; {} bytes are free now",
        done.manifests,
        done.links,
        done.repositories,
        done.uploads,
        done.files,
        done.bytes
    )?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(args: &str) -> Result<Options, clap::Error> {
        Options::try_parse_from(std::iter::once("silo registry").chain(args.split_whitespace()))
    }

    #[test]
    fn flags() {
        let args = "serve --listen 127.0.0.1:0 --listen [::1]:1 --root /x --tls-cert c --tls-key k \
                    --max-blob-size 10m --gc-interval 0 --gc-grace 168h --silence-timeout 500ms \
                    --idle-timeout 5m --min-rate 2k";
        let Verb::Serve(serve) = parse(args).unwrap().verb else { panic!("not serve") };
        let config = config(&serve).unwrap();
        assert_eq!(config.listen.len(), 2);
        assert_eq!(config.tls, Some(("c".into(), "k".into())));
        assert_eq!(config.limits.blob, 10 << 20);
        assert_eq!(config.limits.manifest, 4 << 20);
        assert_eq!(config.limits.silence, Duration::from_millis(500));
        assert_eq!((config.limits.idle, config.limits.rate), (Duration::from_mins(5), 2048));
        assert_eq!(config.collect.every, None);
        assert_eq!(config.collect.grace, Duration::from_hours(168));
    }

    #[test]
    fn refused() {
        for bad in ["", "serve --tls-cert c", "serve --tls-key k", "serve --foo", "push"] {
            assert!(parse(bad).is_err(), "{bad}");
        }
        for bad in [
            "--listen localhost",
            "--listen 5000",
            "--max-blob-size 1x",
            "--max-blob-size 99999999999999t",
            "--gc-grace soon",
            "--gc-interval=-1s",
            "--idle-timeout later",
            "--min-rate slow",
        ] {
            let Verb::Serve(serve) = parse(&format!("serve {bad}")).unwrap().verb else {
                panic!("not serve")
            };
            assert!(config(&serve).is_err(), "{bad}");
        }
    }
}
