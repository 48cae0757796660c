//! `/containers`, but for streams and archives.

use futures_util::stream;
use hyper::StatusCode;
use silo_docker::containers::{
    ContainerCreateRequest, EmptyObject, FilesystemChange, UpdateRequest,
};
use silo_docker::networks::PortBinding;
use silo_docker::query::{ContainerListQuery, ContainerRemoveQuery, StopQuery, WaitCondition};
use silo_docker::{ApiVersion, List};
use silo_engine::images::WhichBase;
use silo_types::{Error, ErrorKind};

use crate::body::Body;
use crate::compat;
use crate::request::Request;
use crate::respond::{self, Answer};

pub(crate) async fn list(request: Request) -> Answer {
    let query = ContainerListQuery {
        all: request.query.flag("all"),
        // Negative and zero limits are none.
        limit: request.query.number("limit")?.and_then(|n| usize::try_from(n).ok()),
        size: request.query.flag("size"),
        filters: request.query.filters()?,
    };
    let list = request.engine.container_list(query).await?;
    respond::json(&compat::container_list(&list, request.version)?)
}

pub(crate) async fn inspect(request: Request, id: &str) -> Answer {
    let container = request.engine.container_inspect(id, request.query.flag("size")).await?;
    respond::json(&compat::container(&container, request.version)?)
}

/// The container-wide hardware address: all there was before 1.44, and gone from dockerd since
/// 1.52, whereas some clients send it at any version.
fn adapt_mac(
    body: &mut ContainerCreateRequest,
    version: ApiVersion,
) -> Result<Option<String>, Error> {
    let wanted = body.config.mac_address.as_str();
    let mode = body.host_config.network_mode.as_str();
    let endpoints = body
        .networking_config
        .as_mut()
        .and_then(|networking| networking.endpoints_config.0.as_mut())
        .into_iter()
        .flatten()
        .filter_map(|(name, endpoint)| Some((name, endpoint.as_mut()?)));
    if version < ApiVersion::v1(44) {
        for (_, endpoint) in endpoints {
            endpoint.mac_address.clear();
        }
        if !wanted.is_empty() && matches!(mode, "host" | "none") {
            return Err(Error::invalid("conflicting options: mac-address and the network mode"));
        }
        return Ok(None);
    }
    if wanted.is_empty() {
        return Ok(None);
    }
    for (name, endpoint) in endpoints {
        let main = name == mode || matches!((mode, name.as_str()), ("" | "default", "bridge"));
        let own = endpoint.mac_address.as_str();
        if main && !own.is_empty() && !own.eq_ignore_ascii_case(wanted) {
            return Err(Error::invalid(
                "the container-wide MAC address must match the endpoint-specific MAC address for \
                 the main network, or be left empty",
            ));
        }
    }
    let warning = "The container-wide MacAddress field is now deprecated. It should be specified \
                   in EndpointsConfig instead.";
    Ok(Some(warning.to_owned()))
}

/// Takes out what a client's version did not have, and refuses what it must not have.
fn adapt(body: &mut ContainerCreateRequest, version: ApiVersion) -> Result<Vec<String>, Error> {
    let older = |minor| version < ApiVersion::v1(minor);
    let host = &mut body.host_config;
    let mut warnings = Vec::new();
    if older(40) && host.ipc_mode.is_empty() {
        host.ipc_mode = "shareable".into();
    }
    if older(42) {
        host.console_size = [0, 0];
    }
    if older(43) {
        host.annotations = silo_docker::Map::null();
    }
    if older(44) {
        if let Some(check) = &mut body.config.healthcheck {
            check.start_interval = 0;
        }
        let endpoints = body.networking_config.as_ref().map(|config| &config.endpoints_config);
        if let Some(endpoints) = endpoints.filter(|endpoints| endpoints.len() > 1) {
            let names: Vec<&str> = endpoints.keys().map(String::as_str).collect();
            return Err(Error::invalid(format!(
                "Container cannot be created with multiple network endpoints: {}",
                names.join(", ")
            )));
        }
    }
    if let Some(mounts) = &mut host.mounts.0 {
        for mount in mounts {
            adapt_mount(mount, version)?;
        }
    }
    if !older(48) && !host.volume_driver.is_empty() {
        let ambiguous = host.mounts.iter().any(|mount| {
            let driver = mount.volume_options.as_ref().and_then(|o| o.driver_config.as_ref());
            mount.kind == "volume" && driver.is_none_or(|driver| driver.name.is_empty())
        });
        if ambiguous {
            warnings.push(
                "WARNING: the container-wide volume-driver configuration is ignored for volumes \
                 specified via 'mount'. Use '--mount type=volume,volume-driver=...' instead"
                    .to_owned(),
            );
        }
    }
    warnings.extend(adapt_mac(body, version)?);
    let host = &mut body.host_config;
    let mut empty = Vec::new();
    if let Some(bindings) = &mut host.port_bindings.0 {
        for (port, list) in bindings.iter_mut().filter(|(_, list)| list.is_empty()) {
            empty.push(port.clone());
            *list = vec![PortBinding::default()].into();
            // A published port is exposed.
            body.config.exposed_ports.make().entry(port.clone()).or_insert(EmptyObject {});
        }
    }
    if !empty.is_empty() && !older(52) {
        warnings.push(format!(
            "Following container port(s) have an empty list of port-bindings: {}. Such bindings \
             will be discarded in a future version.",
            empty.join(", ")
        ));
    }
    if host.resources.pids_limit.is_some_and(|limit| limit <= 0) {
        host.resources.pids_limit = None;
    }
    Ok(warnings)
}

fn adapt_mount(mount: &mut silo_docker::mounts::Mount, version: ApiVersion) -> Result<(), Error> {
    let older = |minor| version < ApiVersion::v1(minor);
    let kind = mount.kind.clone();
    if older(42) {
        if kind != "volume" {
            mount.volume_options = None;
        }
        if kind != "tmpfs" {
            mount.tmpfs_options = None;
        }
        if let Some(options) = &mut mount.bind_options {
            options.create_mountpoint = false;
        }
    } else {
        for (given, of, field) in [
            (mount.volume_options.is_some(), "volume", "VolumeOptions"),
            (mount.bind_options.is_some(), "bind", "BindOptions"),
            (mount.tmpfs_options.is_some(), "tmpfs", "TmpfsOptions"),
        ] {
            if given && kind != of {
                return Err(Error::invalid(format!(
                    "{field} must not be specified on mount type {kind:?}"
                )));
            }
        }
    }
    if kind == "bind" && older(44) {
        let options = mount.bind_options.get_or_insert_default();
        if older(40) {
            options.non_recursive = false;
        }
        if options.read_only_force_recursive {
            return Err(Error::invalid(
                "BindOptions.ReadOnlyForceRecursive needs API v1.44 or newer",
            ));
        }
        // Read-only was not recursive then.
        options.read_only_non_recursive = mount.read_only;
    }
    let subpath = mount.volume_options.as_ref().is_some_and(|o| !o.subpath.is_empty());
    if subpath && older(45) {
        return Err(Error::invalid("VolumeOptions.Subpath needs API v1.45 or newer"));
    }
    if kind == "image" && older(48) {
        return Err(Error::invalid("Mount type \"Image\" needs API v1.48 or newer"));
    }
    Ok(())
}

pub(crate) async fn create(mut request: Request) -> Answer {
    let body: Option<ContainerCreateRequest> = request.json_if_any().await?;
    let Some(mut body) = body else {
        return Err(Error::invalid("invalid JSON: got EOF while reading request body"));
    };
    let warnings = adapt(&mut body, request.version)?;
    let platform = if request.at_least(41) { request.query.get("platform") } else { "" };
    let name = request.query.get("name");
    if request.query.get("base").parse::<WhichBase>()? == WhichBase::Exact {
        request.engine.windows_is_exact(&body.config.image)?;
    }
    let mut response = request.engine.container_create(name, platform, body).await?;
    response.warnings.extend(warnings);
    respond::created(&response)
}

pub(crate) async fn start(request: Request, id: &str) -> Answer {
    use hyper::body::Body as _;
    // A body of `{}` or `null` is what some clients send for none.
    let size = request.body.size_hint().exact();
    if size.is_none_or(|size| size > 7) {
        return Err(Error::invalid(
            "starting container with non-empty request body was deprecated since API v1.22 and \
             removed in v1.24",
        ));
    }
    request.engine.container_start(id).await?;
    respond::no_content()
}

fn stop_query(request: &Request) -> Result<StopQuery, Error> {
    let signal = if request.at_least(42) { request.query.get("signal") } else { "" };
    Ok(StopQuery { signal: signal.to_owned(), timeout: request.query.number("t")? })
}

pub(crate) async fn stop(request: Request, id: &str) -> Answer {
    request.engine.container_stop(id, &stop_query(&request)?).await?;
    respond::no_content()
}

pub(crate) async fn restart(request: Request, id: &str) -> Answer {
    request.engine.container_restart(id, &stop_query(&request)?).await?;
    respond::no_content()
}

pub(crate) async fn kill(request: Request, id: &str) -> Answer {
    request.engine.container_kill(id, request.query.get("signal")).await?;
    respond::no_content()
}

pub(crate) async fn pause(request: Request, id: &str) -> Answer {
    request.engine.container_pause(id).await?;
    respond::no_content()
}

pub(crate) async fn unpause(request: Request, id: &str) -> Answer {
    request.engine.container_unpause(id).await?;
    respond::no_content()
}

pub(crate) async fn rename(request: Request, id: &str) -> Answer {
    request.engine.container_rename(id, request.query.get("name")).await?;
    respond::no_content()
}

pub(crate) async fn update(mut request: Request, id: &str) -> Answer {
    let mut body: UpdateRequest = request.json().await?;
    let resources = &mut body.resources;
    if !request.at_least(40) {
        resources.pids_limit = None;
    }
    if !request.at_least(55) {
        // They were in the schema before, without effect.
        resources.blkio_weight_device = List::null();
        resources.blkio_device_read_bps = List::null();
        resources.blkio_device_write_bps = List::null();
        resources.blkio_device_read_iops = List::null();
        resources.blkio_device_write_iops = List::null();
    }
    if resources.pids_limit.is_some_and(|limit| limit <= 0) {
        resources.pids_limit = Some(0);
    }
    respond::json(&request.engine.container_update(id, body).await?)
}

pub(crate) async fn remove(request: Request, id: &str) -> Answer {
    let query = ContainerRemoveQuery {
        volumes: request.query.flag("v"),
        force: request.query.flag("force"),
        link: request.query.flag("link"),
    };
    request.engine.container_remove(id, query).await?;
    respond::no_content()
}

pub(crate) async fn prune(request: Request) -> Answer {
    respond::json(&request.engine.container_prune(&request.query.filters()?).await?)
}

pub(crate) async fn wait(request: Request, id: &str) -> Answer {
    // Before 1.30 there was no condition, and headers came with the result.
    let modern = request.at_least(30);
    let text = if modern { request.query.get("condition") } else { "" };
    let condition = WaitCondition::parse(text)
        .ok_or_else(|| Error::invalid(format!("invalid condition: {text:?}")))?;
    let waiting = request.engine.container_wait(id, condition)?;
    if !modern {
        return respond::json(&waiting.await);
    }
    let conn = request.conn;
    let line = stream::once(async move {
        tokio::select! {
            response = waiting => {
                respond::line(&response).map_err(|error| std::io::Error::other(error.chain()))
            }
            () = conn.gone() => Err(std::io::ErrorKind::ConnectionAborted.into()),
        }
    });
    Ok(respond::content("application/json", Body::stream(line)))
}

pub(crate) async fn top(request: Request, id: &str) -> Answer {
    respond::json(&request.engine.container_top(id, request.query.get("ps_args")).await?)
}

pub(crate) async fn changes(request: Request, id: &str) -> Answer {
    let changes = request.engine.container_changes(id).await?;
    // No change is `null`, as Go writes a list that was never made.
    let list: List<FilesystemChange> =
        if changes.is_empty() { List::null() } else { changes.into() };
    respond::json(&list)
}

pub(crate) async fn stats(request: Request, id: &str) -> Answer {
    let stream = request.query.flag_or("stream", true);
    let one_shot = request.at_least(41) && request.query.flag("one-shot");
    let samples = request.engine.container_stats(id, stream, one_shot).await?;
    let os_type = request.at_least(52);
    let lines = stream::unfold((samples, request.conn), move |(mut samples, conn)| async move {
        let mut stats = tokio::select! {
            stats = samples.next() => stats?,
            () = conn.gone() => return None,
        };
        stats.os_type = if os_type { "linux".to_owned() } else { String::new() };
        let line = respond::line(&stats).map_err(|error| std::io::Error::other(error.chain()));
        Some((line, (samples, conn)))
    });
    Ok(respond::content("application/json", Body::stream(lines)))
}

/// A terminal's height and width.
pub(super) fn window(request: &Request) -> Result<(u16, u16), Error> {
    let side = |name: &str, what: &str| {
        let text = request.query.get(name);
        let digits = text.strip_prefix('-').unwrap_or(text);
        let reason = match digits.parse::<u64>() {
            _ if digits.starts_with('+') => "invalid syntax",
            Ok(value) => match u16::try_from(value) {
                Ok(value) if !text.starts_with('-') => return Ok(value),
                _ => "value out of range",
            },
            Err(_) => "invalid syntax",
        };
        Err(Error::invalid(format!("invalid resize {what} {text:?}: {reason}")))
    };
    Ok((side("h", "height")?, side("w", "width")?))
}

pub(crate) async fn resize(request: Request, id: &str) -> Answer {
    let (height, width) = window(&request)?;
    request.engine.container_resize(id, height, width).await?;
    respond::status(StatusCode::OK)
}

/// An error that has no better status.
pub(super) fn broken(error: impl std::fmt::Display) -> Error {
    Error::new(ErrorKind::Internal, error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn adapted(json: &str, minor: u32) -> Result<(ContainerCreateRequest, Vec<String>), Error> {
        let mut body = serde_json::from_str(json).unwrap();
        let warnings = adapt(&mut body, ApiVersion::v1(minor))?;
        Ok((body, warnings))
    }

    #[test]
    fn old_versions_ignore_what_they_did_not_have() {
        let json = r#"{"HostConfig":{"ConsoleSize":[1,2],"PidsLimit":-1,"Annotations":{"a":"b"},
            "Mounts":[{"Type":"bind","ReadOnly":true,"VolumeOptions":{}}]}}"#;
        let (body, _) = adapted(json, 39).unwrap();
        let host = body.host_config;
        assert_eq!((host.console_size, host.ipc_mode.as_str()), ([0, 0], "shareable"));
        assert!(host.annotations.is_null() && host.resources.pids_limit.is_none());
        let mount = &host.mounts[0];
        assert!(mount.volume_options.is_none());
        assert!(mount.bind_options.as_ref().unwrap().read_only_non_recursive);
        assert!(adapted(json, 45).is_err());
    }

    #[test]
    fn new_fields_need_new_versions() {
        for (json, minor, expected) in [
            (
                r#"{"HostConfig":{"Mounts":[{"Type":"volume","VolumeOptions":{"Subpath":"x"}}]}}"#,
                44,
                "VolumeOptions.Subpath needs API v1.45 or newer",
            ),
            (
                r#"{"HostConfig":{"Mounts":[{"Type":"image"}]}}"#,
                47,
                "Mount type \"Image\" needs API v1.48 or newer",
            ),
            (
                r#"{"NetworkingConfig":{"EndpointsConfig":{"a":null,"b":null}}}"#,
                43,
                "Container cannot be created with multiple network endpoints: a, b",
            ),
            (
                r#"{"MacAddress":"00:00:00:00:00:01","HostConfig":{"NetworkMode":"host"}}"#,
                43,
                "conflicting options: mac-address and the network mode",
            ),
            (
                r#"{"MacAddress":"00:00:00:00:00:01",
                    "NetworkingConfig":{"EndpointsConfig":{"bridge":{"MacAddress":"2"}}}}"#,
                44,
                "the container-wide MAC address must match the endpoint-specific MAC address for \
                 the main network, or be left empty",
            ),
        ] {
            assert_eq!(adapted(json, minor).unwrap_err().message(), expected);
        }
    }

    #[test]
    fn container_wide_hardware_addresses() {
        let json = r#"{"MacAddress":"00:00:00:00:00:01"}"#;
        for (minor, warnings) in [(43, 0), (44, 1), (55, 1)] {
            let (body, found) = adapted(json, minor).unwrap();
            assert_eq!(body.config.mac_address, "00:00:00:00:00:01");
            assert_eq!(found.len(), warnings, "{minor}");
        }
    }

    #[test]
    fn empty_bindings_become_a_free_port() {
        let json = r#"{"HostConfig":{"PortBindings":{"80/tcp":[]}}}"#;
        let (body, warnings) = adapted(json, 52).unwrap();
        assert_eq!(body.host_config.port_bindings["80/tcp"].len(), 1);
        assert_eq!(warnings.len(), 1);
        assert!(adapted(json, 51).unwrap().1.is_empty());
    }
}
