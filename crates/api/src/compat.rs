//! What older API versions show otherwise.
//!
//! Models are written in their newest shape with the union of all fields; the functions here take
//! away what a client's version does not know yet and add what it still expects. Most clients are
//! recent, so a value is only rebuilt when something is to change.

use serde::Serialize;
use serde_json::{Map, Value, json};
use silo_docker::containers::{ContainerInspect, ContainerSummary};
use silo_docker::images::{ImageInspect, ImageSummary};
use silo_docker::networks::Network;
use silo_docker::system::{DiskUsage, Info, Usage};
use silo_docker::{ApiVersion, containers::Config};
use silo_types::{Error, ErrorKind};

type Object = Map<String, Value>;

fn value(model: &impl Serialize) -> Result<Value, Error> {
    serde_json::to_value(model)
        .map_err(|source| Error::with_source(ErrorKind::Internal, "write JSON", source))
}

fn child<'a>(object: &'a mut Value, name: &str) -> Option<&'a mut Object> {
    object.get_mut(name)?.as_object_mut()
}

fn remove(object: &mut Object, names: &[&str]) {
    for name in names {
        object.remove(*name);
    }
}

/// Removes fields that are empty: `null`, `""`, `[]`, `{}`, `false` or 0.
fn omit_empty(object: &mut Object, names: &[&str]) {
    for name in names {
        let empty = match object.get(*name) {
            Some(Value::Null) => true,
            Some(Value::String(text)) => text.is_empty(),
            Some(Value::Array(list)) => list.is_empty(),
            Some(Value::Object(map)) => map.is_empty(),
            Some(Value::Bool(on)) => !on,
            Some(Value::Number(number)) => number.as_f64() == Some(0.0),
            None => false,
        };
        if empty {
            object.remove(*name);
        }
    }
}

/// Fields that endpoints got later.
fn endpoints(networks: Option<&mut Object>, version: ApiVersion) {
    for endpoint in networks.into_iter().flat_map(Object::values_mut) {
        let Some(endpoint) = endpoint.as_object_mut() else { continue };
        if version < ApiVersion::v1(44) {
            endpoint.remove("DNSNames");
        }
        if version < ApiVersion::v1(48) {
            endpoint.remove("GwPriority");
        }
    }
}

/// Fields of `NetworkSettings` that said nothing long before 1.52 dropped them.
const NEVER_FILLED: &[&str] = &[
    "Bridge",
    "HairpinMode",
    "LinkLocalIPv6Address",
    "LinkLocalIPv6PrefixLen",
    "SecondaryIPAddresses",
    "SecondaryIPv6Addresses",
];

/// `GET /containers/{id}/json`.
pub(crate) fn container(model: &ContainerInspect, version: ApiVersion) -> Result<Value, Error> {
    let mut value = value(model)?;
    if let Some(settings) = child(&mut value, "NetworkSettings") {
        endpoints(settings.get_mut("Networks").and_then(Value::as_object_mut), version);
        if version >= ApiVersion::v1(52) {
            // dockerd dropped the default network's end too, but clients that take whatever version
            // is the newest still read it there.
            settings.retain(|name, _| !NEVER_FILLED.contains(&name.as_str()));
        }
    }
    if let Some(host) = child(&mut value, "HostConfig") {
        if version >= ApiVersion::v1(42) {
            host.remove("KernelMemory");
        }
        if version >= ApiVersion::v1(52) {
            host.remove("KernelMemoryTCP");
        }
    }
    if version >= ApiVersion::v1(52)
        && let Some(config) = child(&mut value, "Config")
    {
        config.remove("MacAddress");
        omit_empty(config, &["OnBuild"]);
    }
    Ok(value)
}

/// `GET /containers/json`.
pub(crate) fn container_list(
    models: &[ContainerSummary],
    version: ApiVersion,
) -> Result<Value, Error> {
    let mut list = value(&models)?;
    if version >= ApiVersion::v1(52) {
        return Ok(list);
    }
    for item in list.as_array_mut().into_iter().flatten() {
        if version < ApiVersion::v1(46)
            && let Some(host) = child(item, "HostConfig")
        {
            host.remove("Annotations");
        }
        if let Some(settings) = child(item, "NetworkSettings") {
            endpoints(settings.get_mut("Networks").and_then(Value::as_object_mut), version);
        }
        if let Some(item) = item.as_object_mut() {
            item.remove("Health");
        }
    }
    Ok(list)
}

/// Fields of `Config` that belong to containers and not to images.
const RUN_ONLY: &[&str] = &[
    "Hostname",
    "Domainname",
    "AttachStdin",
    "AttachStdout",
    "AttachStderr",
    "Tty",
    "OpenStdin",
    "StdinOnce",
    "Image",
    "NetworkDisabled",
    "MacAddress",
    "StopTimeout",
];

/// Fields of an image's `Config` that are left out when empty since 1.52.
const OPTIONAL: &[&str] =
    &["User", "Env", "Cmd", "Volumes", "WorkingDir", "Entrypoint", "OnBuild", "Labels"];

/// `GET /images/{name}/json`.
pub(crate) fn image(model: &ImageInspect, version: ApiVersion) -> Result<Value, Error> {
    let mut value = value(model)?;
    let Some(image) = value.as_object_mut() else { return Ok(value) };
    if version < ApiVersion::v1(44) {
        image.insert("VirtualSize".into(), json!(model.size));
        image.entry("Created").or_insert_with(|| json!(silo_types::time::GO_ZERO));
    }
    if version < ApiVersion::v1(45) {
        if !image.contains_key("ContainerConfig") {
            let empty = serde_json::to_value(Config::default()).unwrap_or_default();
            image.insert("ContainerConfig".into(), empty);
        }
    } else {
        remove(image, &["Container", "ContainerConfig"]);
    }
    if version < ApiVersion::v1(48) {
        remove(image, &["Descriptor", "Manifests"]);
    }
    if version >= ApiVersion::v1(52) {
        omit_empty(image, &["Parent", "Comment", "DockerVersion", "Author"]);
    }
    if let Some(config) = image.get_mut("Config").and_then(Value::as_object_mut) {
        if version >= ApiVersion::v1(50) {
            remove(config, RUN_ONLY);
        }
        if version >= ApiVersion::v1(52) {
            omit_empty(config, OPTIONAL);
        }
    }
    Ok(value)
}

/// `GET /images/json`.
pub(crate) fn image_list(models: &[ImageSummary], version: ApiVersion) -> Result<Value, Error> {
    let mut list = value(&models)?;
    if version >= ApiVersion::v1(51) {
        return Ok(list);
    }
    for item in list.as_array_mut().into_iter().flatten().filter_map(Value::as_object_mut) {
        item.insert("Containers".into(), json!(-1));
        if version < ApiVersion::v1(48) {
            remove(item, &["Descriptor"]);
        }
        old_image(item, version);
    }
    Ok(list)
}

fn old_image(item: &mut Object, version: ApiVersion) {
    if version < ApiVersion::v1(44) {
        let size = item.get("Size").cloned().unwrap_or_default();
        item.insert("VirtualSize".into(), size);
    }
    if version < ApiVersion::v1(43) {
        let empty = |name: &str| item.get(name).and_then(Value::as_array).is_none_or(Vec::is_empty);
        match (empty("RepoTags"), empty("RepoDigests")) {
            (true, true) => {
                item.insert("RepoTags".into(), json!(["<none>:<none>"]));
                item.insert("RepoDigests".into(), json!(["<none>@<none>"]));
            }
            // An image that was never pulled has no digests, which used to be `null`.
            (false, true) => {
                item.insert("RepoDigests".into(), Value::Null);
            }
            _ => {}
        }
    }
}

/// `GET /info`.
pub(crate) fn info(model: &Info, version: ApiVersion) -> Result<Value, Error> {
    let mut value = value(model)?;
    if version < ApiVersion::v1(44) {
        for runtime in child(&mut value, "Runtimes").into_iter().flat_map(Object::values_mut) {
            if let Some(runtime) = runtime.as_object_mut() {
                runtime.remove("status");
            }
        }
    }
    if version < ApiVersion::v1(49) {
        if let Some(registry) = child(&mut value, "RegistryConfig") {
            registry.insert("AllowNondistributableArtifactsCIDRs".into(), json!([]));
            registry.insert("AllowNondistributableArtifactsHostnames".into(), json!([]));
        }
        for name in ["ContainerdCommit", "RuncCommit", "InitCommit"] {
            if let Some(commit) = child(&mut value, name) {
                let id = commit.get("ID").cloned().unwrap_or_default();
                commit.insert("Expected".into(), id);
            }
        }
    }
    let Some(info) = value.as_object_mut() else { return Ok(value) };
    if version < ApiVersion::v1(25) {
        info.insert("ExecutionDriver".into(), json!("<not supported>"));
    }
    if version < ApiVersion::v1(42) {
        info.insert("KernelMemory".into(), json!(false));
    }
    if version < ApiVersion::v1(52) {
        info.insert("KernelMemoryTCP".into(), json!(false));
    }
    if version < ApiVersion::v1(46) {
        info.remove("CDISpecDirs");
    }
    if version < ApiVersion::v1(49) {
        info.remove("FirewallBackend");
    }
    if version < ApiVersion::v1(50) {
        info.insert("BridgeNfIptables".into(), json!(false));
        info.insert("BridgeNfIp6tables".into(), json!(false));
    }
    Ok(value)
}

fn old_items<T: Serialize>(usage: Option<&Usage<T>>) -> Result<Value, Error> {
    usage.map_or(Ok(Value::Null), |usage| value(&usage.items))
}

/// `GET /system/df`. `verbose` is for 1.52 and later, which leave the objects out otherwise.
pub(crate) fn disk_usage(
    mut model: DiskUsage,
    verbose: bool,
    version: ApiVersion,
) -> Result<Value, Error> {
    let mut old = Object::new();
    if version < ApiVersion::v1(52) || !verbose {
        old.insert(
            "LayersSize".into(),
            json!(model.image_usage.as_ref().map_or(0, |usage| usage.total_size)),
        );
        let mut images = old_items(model.image_usage.as_ref())?;
        for item in images.as_array_mut().into_iter().flatten().filter_map(Value::as_object_mut) {
            old_image(item, version);
        }
        old.insert("Images".into(), images);
        let containers = model.container_usage.as_ref().map(|usage| &usage.items);
        old.insert(
            "Containers".into(),
            containers.map_or(Ok(Value::Null), |items| container_list(items, version))?,
        );
        old.insert("Volumes".into(), old_items(model.volume_usage.as_ref())?);
        old.insert("BuildCache".into(), old_items(model.build_cache_usage.as_ref())?);
        if version < ApiVersion::v1(42) {
            old.insert("BuilderSize".into(), json!(0));
        } else {
            omit_empty(&mut old, &["LayersSize"]);
            old.retain(|_, value| !value.is_null());
        }
    }
    if version < ApiVersion::v1(52) {
        return Ok(Value::Object(old));
    }
    if !verbose {
        model.image_usage.iter_mut().for_each(|usage| usage.items.clear());
        model.container_usage.iter_mut().for_each(|usage| usage.items.clear());
        model.volume_usage.iter_mut().for_each(|usage| usage.items.clear());
        model.build_cache_usage.iter_mut().for_each(|usage| usage.items.clear());
    }
    let mut value = value(&model)?;
    if let Some(object) = value.as_object_mut() {
        object.append(&mut old);
    }
    Ok(value)
}

/// `GET /networks/{id}`, or one entry of `GET /networks`.
pub(crate) fn network(model: &Network, listed: bool, version: ApiVersion) -> Result<Value, Error> {
    let mut value = value(model)?;
    if let Some(network) = value.as_object_mut() {
        if version < ApiVersion::v1(48) {
            network.remove("EnableIPv4");
        }
        if listed && version >= ApiVersion::v1(52) {
            network.remove("Containers");
        }
    }
    Ok(value)
}

#[cfg(test)]
mod tests {
    use silo_docker::system::Usage;

    use super::*;

    const NEWEST: ApiVersion = silo_docker::API_VERSION;

    #[test]
    fn containers_lose_and_keep_fields() {
        let mut model = ContainerInspect::default();
        let endpoint = silo_docker::networks::EndpointSettings::default();
        model.network_settings.networks.make().insert("bridge".into(), endpoint);
        let old = container(&model, ApiVersion::v1(41)).unwrap();
        assert!(old["NetworkSettings"].get("IPAddress").is_some());
        assert!(old["NetworkSettings"]["Networks"]["bridge"].get("DNSNames").is_none());
        assert!(old["HostConfig"].get("KernelMemory").is_some());
        assert!(old["Config"].get("OnBuild").is_some());
        let new = container(&model, NEWEST).unwrap();
        assert!(new["NetworkSettings"].get("HairpinMode").is_none());
        assert!(new["NetworkSettings"].get("IPAddress").is_some());
        assert!(new["Config"].get("OnBuild").is_none());
        assert!(new["HostConfig"].get("KernelMemoryTCP").is_none());
    }

    #[test]
    fn images_by_version() {
        let model = ImageInspect { config: Some(Config::default()), size: 7, ..Default::default() };
        let old = image(&model, ApiVersion::v1(41)).unwrap();
        assert_eq!(old["VirtualSize"], 7);
        assert_eq!(old["Created"], silo_types::time::GO_ZERO);
        assert!(old.get("ContainerConfig").is_some() && old["Config"].get("Hostname").is_some());
        let middle = image(&model, ApiVersion::v1(51)).unwrap();
        assert_eq!(
            middle["Config"],
            json!({"User":"","Env":null,"Cmd":null,"Volumes":null,
            "WorkingDir":"","Entrypoint":null,"OnBuild":null,"Labels":null})
        );
        assert_eq!(middle["Parent"], "");
        let new = image(&model, NEWEST).unwrap();
        assert_eq!(new["Config"], json!({}));
        assert!(new.get("Parent").is_none() && new.get("Container").is_none());
    }

    #[test]
    fn image_lists_by_version() {
        let model = ImageSummary { containers: 3, size: 9, ..Default::default() };
        let old = image_list(std::slice::from_ref(&model), ApiVersion::v1(41)).unwrap();
        assert_eq!(old[0]["RepoTags"], json!(["<none>:<none>"]));
        assert_eq!((&old[0]["Containers"], &old[0]["VirtualSize"]), (&json!(-1), &json!(9)));
        let new = image_list(&[model], NEWEST).unwrap();
        assert_eq!((&new[0]["Containers"], &new[0]["RepoTags"]), (&json!(3), &json!([])));
    }

    #[test]
    fn disk_usage_by_version() {
        let usage = || DiskUsage {
            image_usage: Some(Usage {
                items: vec![ImageSummary::default()],
                total_count: 1,
                total_size: 5,
                ..Usage::default()
            }),
            volume_usage: Some(Usage::default()),
            ..DiskUsage::default()
        };
        let old = disk_usage(usage(), false, ApiVersion::v1(41)).unwrap();
        assert_eq!((&old["LayersSize"], &old["Volumes"]), (&json!(5), &json!([])));
        assert!(old["Containers"].is_null() && old.get("ImageUsage").is_none());
        let new = disk_usage(usage(), true, NEWEST).unwrap();
        assert!(new.get("Images").is_none());
        assert_eq!(new["ImageUsage"]["Items"].as_array().unwrap().len(), 1);
        let brief = disk_usage(usage(), false, NEWEST).unwrap();
        assert!(brief["ImageUsage"].get("Items").is_none() && brief.get("Images").is_some());
    }
}
