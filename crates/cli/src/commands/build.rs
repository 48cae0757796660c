//! `build` and `builder prune`.

use std::cell::RefCell;
use std::convert::Infallible;
use std::time::Duration;

use silo_buildkit::client::{self, Failed, Keys, METHODS};
use silo_client::{Client, Hijacked, Method};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, join};

use super::container::{confirmed, prune_report};
use crate::build::display::{Display, Style};
use crate::build::{cache, check, request};
use crate::command::Invocation;
use crate::credentials;
use crate::failure::{Failure, Outcome};
use crate::flags::{Filters, flags};
use crate::options::values::{Bytes, ExtraHosts, Labels, SwapBytes, Ulimits};

/// How often a terminal is drawn while nothing happens.
const TICK: Duration = Duration::from_millis(150);

flags! {
    /// Flags of `build`.
    BuildFlags {
        attest: Vec<String>, "attest", "Attestation parameters (format: \"type=provenance,mode=max\")";
        add_host: ExtraHosts, "add-host", "Add a custom host-to-IP mapping (format: \"host:ip\")";
        base: Option<String>, "base", "What to put beneath images with Microsoft's base layers (\"silo\", \"exact\") (default \"silo\")";
        build_arg: Vec<String>, "build-arg", "Set build-time variables";
        build_context: Vec<String>, "build-context", "Additional build contexts (e.g., name=path)";
        cache_from: Vec<String>, "cache-from", "Caches whose steps may be used (e.g., \"image:tag\", \"type=local,src=path/to/dir\")";
        cache_to: Vec<String>, "cache-to", "Cache export destinations (e.g., \"type=inline\", \"type=local,dest=path/to/dir\", \"type=registry,ref=name:tag\")";
        call: String, "call", "Set method for evaluating build (\"check\", \"outline\", \"targets\")";
        cgroup_parent: String, "cgroup-parent", "Set the parent cgroup for the \"RUN\" instructions during build";
        check: bool, "check", "Shorthand for \"--call=check\"";
        cpu_period: i64, "cpu-period", "Limit the CPU CFS (Completely Fair Scheduler) period";
        cpu_quota: i64, "cpu-quota", "Limit the CPU CFS (Completely Fair Scheduler) quota";
        cpu_shares: i64, ['c'] "cpu-shares", "CPU shares (relative weight)";
        cpuset_cpus: String, "cpuset-cpus", "CPUs in which to allow execution (0-3, 0,1)";
        cpuset_mems: String, "cpuset-mems", "MEMs in which to allow execution (0-3, 0,1)";
        file: String, ['f'] "file", "Name of the Dockerfile (default: \"PATH/Dockerfile\")";
        force_rm: bool, "force-rm", "";
        iidfile: String, "iidfile", "Write the image ID to a file";
        isolation: String, "isolation", "Container isolation technology";
        label: Labels, "label", "Set metadata for an image";
        load: bool, "load", "Shorthand for \"--output=type=docker\"";
        memory: Bytes, ['m'] "memory", "Memory limit of the \"RUN\" instructions";
        memory_swap: SwapBytes, "memory-swap", "Swap limit equal to memory plus swap: '-1' to enable unlimited swap";
        metadata_file: String, "metadata-file", "Write build result metadata to a file";
        network: String, "network", "Set the networking mode for the \"RUN\" instructions during build (default \"default\")";
        no_cache: bool, "no-cache", "Do not use cache when building the image";
        no_cache_filter: Vec<String>, "no-cache-filter", "Do not cache specified stages";
        output: Vec<String>, ['o'] "output", "Output destination (format: \"type=local,dest=path\")";
        platform: Option<String>, "platform", "Set target platform for build";
        progress: String, "progress", "Set type of progress output (\"auto\", \"none\", \"plain\", \"quiet\", \"rawjson\", \"tty\"). Use plain to show container output";
        provenance: String, "provenance", "Shorthand for \"--attest=type=provenance\"";
        pull: bool, "pull", "Always attempt to pull all referenced images";
        push: bool, "push", "Shorthand for \"--output=type=registry\"";
        quiet: bool, ['q'] "quiet", "Suppress the build output and print image ID on success";
        rm: Option<bool>, "rm", "";
        sbom: String, "sbom", "Shorthand for \"--attest=type=sbom\"";
        secret: Vec<String>, "secret", "Secret to expose to the build (format: \"id=mysecret[,src=/local/secret]\")";
        shm_size: Bytes, "shm-size", "Shared memory size for build containers";
        ssh: Vec<String>, "ssh", "SSH agent socket or keys to expose to the build (format: \"default|<id>[=<socket>|<key>[,<key>]]\")";
        tag: Vec<String>, ['t'] "tag", "Name and optionally a tag (format: \"name:tag\")";
        target: String, "target", "Set the target build stage to build";
        ulimit: Ulimits, "ulimit", "Ulimit options";
    }
}

flags! {
    /// Flags of `builder prune`.
    PruneFlags {
        all: bool, ['a'] "all", "Remove all unused build cache, not just dangling ones";
        filter: Filters, "filter", "Provide filter values (e.g. \"until=24h\")";
        force: bool, ['f'] "force", "Do not prompt for confirmation";
        keep_storage: Bytes, "keep-storage", "Amount of disk space to keep for cache";
        max_used_space: Bytes, "max-used-space", "Maximum amount of disk space allowed to keep for cache";
        min_free_space: Bytes, "min-free-space", "Target amount of free disk space after pruning";
        reserved_space: Bytes, "reserved-space", "Amount of disk space always allowed to keep for cache";
    }
}

/// A connection to one of the engine's services, with what came early on it.
async fn connection(
    client: &Client,
    path: &str,
    headers: &[(&'static str, &str)],
) -> Outcome<impl AsyncRead + AsyncWrite + Send + Unpin + 'static> {
    let mut request = client.request(Method::POST, path);
    for (name, value) in headers {
        request = request.header_also(name, value);
    }
    let Hijacked { stream, early, .. } = request.upgrade("h2c").await?;
    let (reader, writer) = tokio::io::split(stream);
    Ok(join(std::io::Cursor::new(early).chain(reader), writer))
}

/// `build`
pub(crate) async fn build(invocation: Invocation) -> Outcome {
    let (flags, words) = invocation.parse::<BuildFlags>()?;
    let style = Style::choose(&flags.progress, flags.quiet)?;
    if !flags.iidfile.is_empty() {
        // Nobody is to take what an earlier build left for the result of one that fails.
        match fs_err::remove_file(&flags.iidfile) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                return Err(Failure::new(format!("ERROR: removing image ID file: {error}")));
            }
            _ => {}
        }
    }
    for name in &flags.tag {
        silo_oci::reference::Reference::parse_normalized(name).map_err(|error| {
            Failure::new(format!("ERROR: failed to build: invalid tag {name:?}: {error}"))
        })?;
    }
    let request::Request { build, share, shared_key, caches, .. } =
        &mut request::prepare(&flags, &words[0])?;
    let directory = invocation.cli.config().directory().to_owned();
    share.keys = Keys::new(move |registry| {
        // What cannot be read is not there: the registry may let the build in without.
        let store = credentials::Store::open(&directory).ok()?;
        let found = store.get(credentials::key(registry)).ok()??;
        Some(if found.identity_token.is_empty() {
            (found.username, found.password)
        } else {
            (String::new(), found.identity_token)
        })
    });
    let client = invocation.cli.client().await?;
    let mut headers = vec![
        ("x-docker-expose-session-uuid", build.session.as_str()),
        ("x-docker-expose-session-name", "silo"),
        ("x-docker-expose-session-sharedkey", shared_key.as_str()),
    ];
    headers.extend(METHODS.map(|method| ("x-docker-expose-session-grpc-method", method)));
    let session = connection(&client, "/session", &headers).await?;
    let session = tokio::spawn(client::share(session, std::mem::take(share)));
    let control = connection(&client, "/grpc", &[]).await?;

    let display = RefCell::new(Display::new(style));
    let is_live = display.borrow().is_live();
    let solved =
        client::solve(control, build.clone(), |update| display.borrow_mut().update(update));
    let ticks = async {
        if !is_live {
            return std::future::pending::<Infallible>().await;
        }
        let mut ticks = tokio::time::interval(TICK);
        loop {
            ticks.tick().await;
            display.borrow_mut().tick();
        }
    };
    let solved = tokio::select! {
        solved = solved => solved,
        never = ticks => match never {},
        _ = tokio::signal::ctrl_c() => {
            let message = "Canceled: context canceled".to_owned();
            Err(Failed { message, ..Failed::default() })
        }
    };
    session.abort();
    let mut display = display.into_inner();
    match solved {
        Ok(response) => {
            display.end(None);
            cache::finish(caches, &response)?;
            finish(&invocation, &flags, &response)
        }
        Err(failed) => {
            display.end(Some(&failed.excerpt));
            let message = format!("ERROR: failed to build: failed to solve: {failed}");
            Err(Failure::new(message))
        }
    }
}

/// Writes down what came of a build.
fn finish(
    invocation: &Invocation,
    flags: &BuildFlags,
    response: &std::collections::HashMap<String, String>,
) -> Outcome {
    if let Some(text) = response.get("result.json") {
        let result: serde_json::Value = serde_json::from_str(text)
            .map_err(|error| Failure::new(format!("ERROR: the engine's answer: {error}")))?;
        if result.get("warnings").is_none() {
            return invocation.cli.line(text);
        }
        let (report, found) = check::report(&result);
        invocation.cli.print(&report)?;
        return if found { Err(Failure::code(1)) } else { Ok(()) };
    }
    let id = response.get("containerimage.config.digest").map_or("", String::as_str);
    let write = |path: &str, text: &str| {
        fs_err::write(path, text).map_err(|error| Failure::new(format!("ERROR: {error}")))
    };
    if !flags.iidfile.is_empty() {
        write(&flags.iidfile, id)?;
    }
    if !flags.metadata_file.is_empty() {
        let sorted: std::collections::BTreeMap<_, _> = response.iter().collect();
        let text = serde_json::to_string_pretty(&sorted)
            .map_err(|error| Failure::new(error.to_string()))?;
        write(&flags.metadata_file, &text)?;
    }
    if flags.quiet && !id.is_empty() {
        invocation.cli.line(id)?;
    }
    Ok(())
}

/// `builder prune`
pub(crate) async fn prune(invocation: Invocation) -> Outcome {
    let (flags, _) = invocation.parse::<PruneFlags>()?;
    let what = if flags.all {
        "WARNING! This will remove all build cache."
    } else {
        "WARNING! This will remove all dangling build cache."
    };
    if !flags.force && !confirmed(what)? {
        return Err(Failure::new("builder prune has been cancelled"));
    }
    let client = invocation.cli.client().await?;
    let mut request = client.post("/build/prune");
    request = request.query_if("all", flags.all);
    for (name, bytes) in [
        ("keep-storage", flags.keep_storage.0),
        ("max-used-space", flags.max_used_space.0),
        ("min-free-space", flags.min_free_space.0),
        ("reserved-space", flags.reserved_space.0),
    ] {
        if bytes != 0 {
            request = request.query(name, bytes.to_string());
        }
    }
    let answer: crate::value::Value =
        request.query_some("filters", flags.filter.query()).receive().await?;
    let gone: Vec<String> =
        answer.get("CachesDeleted").list().iter().map(|id| id.str().to_owned()).collect();
    let space = answer.get("SpaceReclaimed").float();
    invocation.cli.print(&prune_report("Deleted build cache objects:", &gone, space))
}
