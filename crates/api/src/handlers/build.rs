//! `/build`: the classic builder's endpoint, with the output that its clients print as it comes;
//! and `/silo/builder/cache`: the cache out and in.

use std::collections::BTreeMap;
use std::sync::Arc;

use futures_util::stream;
use serde::de::DeserializeOwned;
use serde_json::json;
use silo_build::progress::Progress;
use silo_build::secret::GivenKeys;
use silo_build::{BuildRequest, CacheRecord, ContextRef, DockerfileSource, Limits, PruneOptions};
use silo_docker::system::Usage;
use silo_oci::reference::Reference;
use silo_types::{Error, ErrorKind};
use tokio::sync::mpsc;

use super::build_output::Classic;
use super::registry::all_credentials;
use super::stream::{BodyReader, ChannelWriter};
use crate::body::Body;
use crate::request::Request;
use crate::respond::{self, Answer};

/// A parameter that is JSON.
pub(super) fn parameter<T: DeserializeOwned + Default>(
    request: &Request,
    name: &str,
) -> Result<T, Error> {
    let text = request.query.get(name);
    if text.is_empty() {
        return Ok(T::default());
    }
    serde_json::from_str(text).map_err(|error| {
        Error::invalid(format!("error reading {name}: {error}")) // docker wording
    })
}

fn number(request: &Request, name: &str) -> Result<i64, Error> {
    Ok(request.query.number(name)?.unwrap_or(0))
}

/// The names that the image gets.
fn tags(request: &Request) -> Result<Vec<Reference>, Error> {
    let mut tags: Vec<Reference> = Vec::new();
    for name in request.query.all("t").filter(|name| !name.is_empty()) {
        let reference = Reference::parse(name).map_err(|error| {
            Error::invalid(format!("invalid tag {name:?}: {error}")) // docker wording
        })?;
        if reference.digest().is_some() {
            // docker wording
            return Err(Error::invalid("build tag cannot contain a digest"));
        }
        let reference = Reference::parse_normalized(name).map_err(Error::from_kind)?;
        if !tags.contains(&reference) {
            tags.push(reference);
        }
    }
    Ok(tags)
}

/// Everything of a request but its context.
fn options(request: &Request) -> Result<BuildRequest, Error> {
    let query = &request.query;
    let mut build = BuildRequest::new(ContextRef::Empty);
    query.get("buildid").clone_into(&mut build.id);
    build.tags = tags(request)?;
    build.args = parameter::<Option<BTreeMap<String, Option<String>>>>(request, "buildargs")?
        .unwrap_or_default();
    build.labels =
        parameter::<Option<BTreeMap<String, String>>>(request, "labels")?.unwrap_or_default();
    build.cache_from = parameter::<Option<Vec<String>>>(request, "cachefrom")?.unwrap_or_default();
    build.cache_from_only = !build.cache_from.is_empty();
    query.get("target").clone_into(&mut build.target);
    build.no_cache = query.flag("nocache");
    build.pull = query.flag("pull");
    build.base = query.get("base").parse()?;
    build.registry_keys = Arc::new(registry_keys(request));
    query.get("networkmode").clone_into(&mut build.network);
    build.extra_hosts = query.all("extrahosts").map(str::to_owned).collect();
    let platform = query.get("platform");
    if !platform.is_empty() {
        build.platform =
            Some(platform.parse().map_err(|error| Error::invalid(format!("{error}")))?);
    }
    build.limits = Limits {
        shm_size: number(request, "shmsize")?,
        ulimits: parameter::<Option<_>>(request, "ulimits")?.unwrap_or_default(),
        memory: number(request, "memory")?,
        memory_swap: number(request, "memswap")?,
        cpu_shares: number(request, "cpushares")?,
        cpu_period: number(request, "cpuperiod")?,
        cpu_quota: number(request, "cpuquota")?,
        cpuset_cpus: query.get("cpusetcpus").to_owned(),
        cpuset_mems: query.get("cpusetmems").to_owned(),
        cgroup_parent: query.get("cgroupparent").to_owned(),
        security_opt: parameter::<Option<_>>(request, "securityopt")?.unwrap_or_default(),
    };
    if let Some(Some(epoch)) = build.args.get("SOURCE_DATE_EPOCH") {
        build.source_date_epoch = epoch.parse().ok();
    }
    if query.flag("squash") {
        // docker wording
        return Err(Error::invalid("squash is only supported with experimental mode"));
    }
    Ok(build)
}

/// Where a `remote` parameter leads.
pub(super) fn remote(url: &str) -> Result<ContextRef, Error> {
    let plain = url.split(['#', '?']).next().unwrap_or_default();
    let is_http = plain.starts_with("http://") || plain.starts_with("https://");
    if is_http && plain.strip_suffix(".git").is_none() {
        return Ok(ContextRef::Http(url.to_owned()));
    }
    let is_git = is_http
        || ["git://", "git@", "git+", "ssh://", "github.com/"]
            .iter()
            .any(|start| plain.starts_with(start));
    if is_git {
        return Ok(ContextRef::Git(url.to_owned()));
    }
    // docker wording
    Err(Error::invalid(format!("remoteURL ({url}) could not be recognized as URL")))
}

/// `POST /build`.
/// The credentials for registries that came with a request.
fn registry_keys(request: &Request) -> GivenKeys {
    GivenKeys(all_credentials(request))
}

pub(crate) async fn build(request: Request) -> Answer {
    let mut options = options(&request)?;
    if request.query.get("version") == "2" {
        return super::buildkit::build(request, options).await;
    }
    let path = match request.query.get("dockerfile") {
        "" => "Dockerfile".to_owned(),
        path => path.to_owned(),
    };
    let quiet = request.query.flag("q");
    let builder = Arc::clone(&request.builder);
    let remote_url = request.query.get("remote").to_owned();
    if remote_url.is_empty() || remote_url == "client-session" {
        let body = BodyReader::new(request.body);
        let (builder, path) = (Arc::clone(&builder), path.clone());
        let unpacked = tokio::task::spawn_blocking(move || {
            let context = builder.unpack(body)?;
            let text = context.read(&path);
            context.drop_ignored(&[".dockerignore", &path])?;
            Ok::<_, Error>((context, text, path))
        });
        let (context, text, path) = unpacked
            .await
            .map_err(|error| Error::with_source(ErrorKind::Internal, "read context", error))??;
        if let Some(text) = text {
            options.dockerfile = DockerfileSource::Text { name: path, text };
        } else {
            options.dockerfile = DockerfileSource::InContext { context: None, path };
        }
        options.context = ContextRef::Files(Arc::new(context));
    } else {
        options.context = remote(&remote_url)?;
        options.dockerfile = DockerfileSource::InContext { context: None, path };
    }

    let (sender, mut receiver) = mpsc::unbounded_channel();
    let (conn, names) = (Arc::clone(&request.conn), options.tags.clone());
    let classic = Arc::new(Classic::new(sender.clone(), quiet));
    let queue = classic.queue();
    let progress: Arc<dyn Progress> = Arc::clone(&classic) as Arc<dyn Progress>;
    let task = tokio::spawn(async move {
        let outcome = tokio::select! {
            outcome = builder.build(options, progress) => outcome,
            // Nobody listens any more.
            () = sender.closed() => return,
            // A step may be silent: nothing is written then that would show it.
            () = conn.gone() => return,
        };
        match outcome {
            Ok(outcome) => classic.succeeded(&outcome, &names),
            Err(error) => classic.failed(&error),
        }
    });
    // As dockerd: what fails before there is output is the answer's status.
    let first = receiver.recv().await;
    if let Some(line) = &first
        && let Some(kind) = line.refusal
    {
        return Err(Error::new(kind, line.message.error.clone()));
    }
    drop(task);
    let lines = stream::unfold((first, receiver, queue), |(first, mut receiver, queue)| async {
        let line = match first {
            Some(line) => line,
            None => receiver.recv().await?,
        };
        queue.take(&line);
        let line = respond::line(&line.message).map_err(std::io::Error::other);
        Some((line, (None, receiver, queue)))
    });
    Ok(respond::content("application/json", Body::stream(lines)))
}

/// `POST /build/cancel`.
pub(crate) fn cancel(request: &Request) -> Answer {
    let id = request.query.get("id");
    if id.is_empty() {
        return Err(Error::invalid("build ID not provided")); // docker wording
    }
    request.builder.cancel(id);
    respond::status(hyper::StatusCode::OK)
}

/// What the cache holds, for `GET /system/df`.
pub(crate) async fn usage(request: &Request) -> Result<Usage<serde_json::Value>, Error> {
    let records = request.builder.disk_usage().await?;
    let bytes = |size: u64| i64::try_from(size).unwrap_or(i64::MAX);
    let count = |count: usize| i64::try_from(count).unwrap_or(i64::MAX);
    let idle = records.iter().filter(|record| !record.in_use && !record.shared);
    Ok(Usage {
        active_count: count(records.iter().filter(|record| record.in_use).count()),
        total_count: count(records.len()),
        // What images have too is counted with them.
        total_size: records.iter().filter(|r| !r.shared).map(|record| bytes(record.size)).sum(),
        reclaimable: idle.map(|record| bytes(record.size)).sum(),
        items: records.iter().map(item).collect(),
    })
}

fn item(record: &CacheRecord) -> serde_json::Value {
    json!({
        "ID": record.id,
        "Parents": record.parents,
        "Type": record.kind,
        "Description": record.description,
        "InUse": record.in_use,
        "Shared": record.shared,
        "Size": record.size,
        "CreatedAt": record.created.to_string(),
        "LastUsedAt": record.last_used.map(|time| time.to_string()),
        "UsageCount": record.usage_count,
    })
}

/// `GET /silo/builder/cache`: all steps and cache mounts, as an OCI layout in a tar.
pub(crate) async fn export_cache(request: Request) -> Answer {
    let builder = request.builder;
    // What cannot be exported now is the answer's status.
    let cache = tokio::task::spawn_blocking(move || builder.whole_cache()).await;
    let cache = cache.map_err(|error| {
        Error::with_source(ErrorKind::Internal, "export the build cache", error)
    })??;
    let (sender, receiver) = mpsc::channel(4);
    tokio::task::spawn_blocking(move || {
        let mut writer = ChannelWriter::new(sender);
        if let Err(error) = cache.write(&mut writer) {
            tracing::warn!(error = error.chain(), "export the build cache");
            writer.fail(&error);
        } else {
            writer.finish();
        }
    });
    Ok(respond::content("application/x-tar", Body::channel(receiver)))
}

/// `POST /silo/builder/cache`: takes in what [`export_cache`] gave out.
pub(crate) async fn import_cache(request: Request) -> Answer {
    let body = BodyReader::new(request.body);
    let builder = request.builder;
    let taken = tokio::task::spawn_blocking(move || builder.import_whole_cache(body)).await;
    let taken = taken.map_err(|error| {
        Error::with_source(ErrorKind::Internal, "import the build cache", error)
    })??;
    respond::json(&json!({
        "Steps": taken.steps,
        "Layers": taken.layers,
        "Mounts": taken.mounts,
    }))
}

/// `POST /build/prune`.
pub(crate) async fn prune(request: Request) -> Answer {
    let filters = request.query.filters()?;
    let bytes = |name: &str| -> Result<u64, Error> {
        Ok(u64::try_from(request.query.number(name)?.unwrap_or(0)).unwrap_or(0))
    };
    let mut options = PruneOptions {
        all: request.query.flag("all"),
        // The older name of the same.
        keep_storage: bytes("keep-storage")?.max(bytes("reserved-space")?),
        max_used_space: bytes("max-used-space")?,
        min_free_space: bytes("min-free-space")?,
        ..PruneOptions::default()
    };
    for key in
        ["until", "unused-for", "id", "parent", "type", "description", "inuse", "shared", "private"]
    {
        for value in filters.get(key) {
            options.filters.push((key.to_owned(), value.to_owned()));
        }
    }
    let pruned = request.buildkit.prune(options).await?;
    let deleted: Vec<String> = pruned.records.into_iter().map(|record| record.id).collect();
    let deleted = if deleted.is_empty() { json!(null) } else { json!(deleted) };
    respond::json(&json!({"CachesDeleted": deleted, "SpaceReclaimed": pruned.bytes}))
}
