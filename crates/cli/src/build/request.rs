//! The flags of `build` as what BuildKit's frontend takes.

use std::collections::HashMap;

use silo_buildkit::client::{Build, Share, is_remote};
use silo_types::ExecId;
use tempfile::TempDir;

use super::input;
use super::{agent, attest, cache, output, share};
use crate::commands::BuildFlags;
use crate::failure::{Failure, Outcome};

/// How the place of an image layout begins.
const LAYOUT: &str = "oci-layout://";

/// All that a build needs.
#[derive(Debug)]
pub(crate) struct Request {
    pub(crate) build: Build,
    pub(crate) share: Share,
    /// What identifies this user's builds from here among others.
    pub(crate) shared_key: String,
    /// Directories that get a cache, and the names that it gets there.
    pub(crate) caches: Vec<(std::path::PathBuf, String)>,
    /// Directories that are there for the build.
    _aside: Vec<TempDir>,
}

/// Reads the flags.
pub(crate) fn prepare(flags: &BuildFlags, context: &str) -> Outcome<Request> {
    // As with buildx, --rm and --force-rm mean nothing: no step leaves a container behind.
    if !matches!(flags.isolation.as_str(), "" | "default" | "process") {
        return Err(Failure::new(format!(
            "ERROR: invalid isolation {:?}: the steps of a build have \"process\" isolation",
            flags.isolation
        )));
    }
    let mut shared = Share::default();
    let mut attributes = HashMap::new();
    for argument in &flags.build_arg {
        let value = match argument.split_once('=') {
            Some((name, value)) => Some((name, value.to_owned())),
            None => std::env::var(argument).ok().map(|value| (argument.as_str(), value)),
        };
        if let Some((name, value)) = value {
            attributes.insert(format!("build-arg:{name}"), value);
        }
    }
    let mut put = |name: &str, value: &str| {
        if !value.is_empty() {
            attributes.insert(name.to_owned(), value.to_owned());
        }
    };
    put("target", &flags.target);
    put("base", flags.base.as_deref().unwrap_or_default());
    put("platform", flags.platform.as_deref().unwrap_or_default());
    put("cgroup-parent", &flags.cgroup_parent);
    match flags.network.as_str() {
        "" | "default" => {}
        mode => put("force-network-mode", mode),
    }
    if flags.pull {
        put("image-resolve-mode", "pull");
    }
    let hosts: Vec<String> =
        flags.add_host.0.iter().map(|host| quoted(&host.replacen(':', "=", 1))).collect();
    put("add-hosts", &hosts.join(","));
    put("cpusetcpus", &flags.cpuset_cpus);
    put("cpusetmems", &flags.cpuset_mems);
    for (name, number) in [
        ("shm-size", flags.shm_size.0),
        ("memory", flags.memory.0),
        ("memswap", flags.memory_swap.0),
        ("cpushares", flags.cpu_shares),
        ("cpuperiod", flags.cpu_period),
        ("cpuquota", flags.cpu_quota),
    ] {
        if number != 0 {
            put(name, &number.to_string());
        }
    }
    put("ulimit", &flags.ulimit.fields().join(","));
    let imports = cache::imports(&flags.cache_from, &mut shared)?;
    if !imports.is_empty() {
        put("cache-imports", &serde_json::Value::Array(imports).to_string());
    }
    let (cache_to, caches) = cache::exports(&flags.cache_to, &mut shared)?;
    for label in &flags.label.0 {
        let (name, value) = label.split_once('=').unwrap_or((label, ""));
        attributes.insert(format!("label:{name}"), value.to_owned());
    }
    if flags.no_cache {
        attributes.insert("no-cache".to_owned(), String::new());
    } else if !flags.no_cache_filter.is_empty() {
        attributes.insert("no-cache".to_owned(), flags.no_cache_filter.join(","));
    }
    let call = if flags.check { "check" } else { flags.call.as_str() };
    let subrequest = match call {
        "" | "build" => None,
        "check" | "lint" => Some("frontend.lint"),
        "outline" => Some("frontend.outline"),
        "targets" => Some("frontend.targets"),
        other => return Err(Failure::new(format!("ERROR: unsupported call {other:?}"))),
    };
    if let Some(name) = subrequest {
        attributes.insert("requestid".to_owned(), name.to_owned());
        attributes
            .insert("frontend.caps".to_owned(), "moby.buildkit.frontend.subrequests".to_owned());
    }
    for named in &flags.build_context {
        let Some((name, place)) = named.split_once('=').filter(|(name, _)| !name.is_empty()) else {
            let message = format!("ERROR: invalid context value: {named}, expected key=value");
            return Err(Failure::new(message));
        };
        let is_elsewhere = is_remote(place) || place.contains("://");
        let value = if let Some(layout) = place.strip_prefix(LAYOUT) {
            cache::layout(layout, &mut shared)?
        } else if is_elsewhere {
            place.to_owned()
        } else {
            let path = std::path::PathBuf::from(place);
            if !path.is_dir() {
                return Err(Failure::new(format!(
                    "ERROR: failed to get build context {name}: {place} is not a directory"
                )));
            }
            shared.directories.insert(name.to_owned(), path);
            format!("local:{name}")
        };
        attributes.insert(format!("context:{name}"), value);
    }
    attributes.extend(attest::attributes(&flags.attest, &flags.provenance, &flags.sbom)?);
    for text in &flags.secret {
        let (id, secret) = share::secret(text)?;
        shared.secrets.insert(id, secret);
    }
    let mut agents = Vec::new();
    for text in &flags.ssh {
        let (id, agent) = share::agent(text)?;
        let socket = match agent {
            share::Agent::Socket(path) => path,
            share::Agent::Keys(keys) => {
                let place = input::aside()?;
                let socket = agent::listen(place.path(), keys)
                    .map_err(|error| Failure::new(format!("ERROR: ssh agent: {error}")))?;
                agents.push(place);
                socket
            }
        };
        shared.agents.insert(id, socket);
    }
    let exports = output::exports(&flags.output, &flags.tag, flags.load, flags.push)?;
    shared.outputs = exports.iter().map(|export| export.output.clone()).collect();
    let exporters = if subrequest.is_some() {
        Vec::new()
    } else {
        exports.into_iter().map(|export| (export.kind, export.attributes)).collect()
    };
    let mut aside = input::prepare(context, &flags.file, &mut shared, &mut attributes)?;
    aside.append(&mut agents);
    let shared_key = attributes.get("sharedkey:localdir:context").cloned().unwrap_or_default();
    let build = Build { reference: name(), session: name(), attributes, exporters, cache_to };
    Ok(Request { build, share: shared, shared_key, caches, _aside: aside })
}

/// A name that nothing else has.
pub(super) fn name() -> String {
    ExecId::random().as_str()[..25].to_owned()
}

/// A field of one line of comma-separated values.
pub(super) fn quoted(text: &str) -> String {
    if text.contains([',', '"']) {
        format!("\"{}\"", text.replace('"', "\"\""))
    } else {
        text.to_owned()
    }
}
