//! The shape of the JSON that clients read.

use serde_json::Value;
use silo_tests::Engine;

fn keys(value: &Value) -> Vec<&str> {
    value.as_object().map(|object| object.keys().map(String::as_str).collect()).unwrap_or_default()
}

#[test]
fn container_json_has_what_old_clients_need() {
    let engine = Engine::start();
    let name = engine.name("json");
    engine.ok(&[
        "run",
        "-d",
        "--name",
        &name,
        "-p",
        "127.0.0.1::80",
        "-e",
        "A=b",
        "busybox",
        "sleep",
        "100",
    ]);
    for version in ["v1.24", "v1.41"] {
        let json = engine.http("GET", &format!("/{version}/containers/{name}/json"), "").json();
        for key in [
            "Id",
            "Created",
            "Path",
            "Args",
            "State",
            "Image",
            "ResolvConfPath",
            "HostnamePath",
            "HostsPath",
            "LogPath",
            "Name",
            "RestartCount",
            "Driver",
            "Platform",
            "MountLabel",
            "ProcessLabel",
            "AppArmorProfile",
            "ExecIDs",
            "HostConfig",
            "GraphDriver",
            "Mounts",
            "Config",
            "NetworkSettings",
        ] {
            assert!(json.get(key).is_some(), "{version} {key} in {:?}", keys(&json));
        }
        assert_eq!(json["Path"], "sleep");
        assert_eq!(json["Args"], serde_json::json!(["100"]));
        assert_eq!(json["Name"], format!("/{name}"));
        assert_eq!(json["ExecIDs"], Value::Null);
        assert_eq!(json["Mounts"], serde_json::json!([]));
        assert_eq!(json["Config"]["Cmd"], serde_json::json!(["sleep", "100"]));
        assert_eq!(json["Config"]["Entrypoint"], Value::Null);
        assert_eq!(json["Config"]["Labels"], serde_json::json!({}));
        assert_eq!(json["State"]["FinishedAt"], "0001-01-01T00:00:00Z");
        assert_eq!(
            json["HostConfig"]["NetworkMode"]
                .as_str()
                .map(|mode| mode == "default" || mode == "bridge"),
            Some(true)
        );
        assert_eq!(json["HostConfig"]["LogConfig"]["Type"], "json-file");
        let port = &json["NetworkSettings"]["Ports"]["80/tcp"][0];
        assert_eq!(port["HostIp"], "127.0.0.1");
        assert!(port["HostPort"].as_str().is_some_and(|port| port.parse::<u16>().is_ok()));
    }
    engine.ok(&["rm", "-f", &name]);
}

#[test]
fn lists_have_their_fields() {
    let engine = Engine::start();
    let name = engine.name("json");
    engine.ok(&["create", "--name", &name, "busybox", "sleep", "100"]);
    let filters = "%7B%22name%22%3A%5B%22".to_owned() + &name + "%22%5D%7D";
    let list =
        engine.http("GET", &format!("/v1.41/containers/json?all=1&filters={filters}"), "").json();
    let entry = &list[0];
    for key in [
        "Id",
        "Names",
        "Image",
        "ImageID",
        "Command",
        "Created",
        "Ports",
        "Labels",
        "State",
        "Status",
        "HostConfig",
        "NetworkSettings",
        "Mounts",
    ] {
        assert!(entry.get(key).is_some(), "{key} in {:?}", keys(entry));
    }
    assert_eq!(entry["Names"], serde_json::json!([format!("/{name}")]));
    assert_eq!(entry["Command"], "sleep 100");
    assert_eq!((&entry["State"], &entry["Status"]), (&"created".into(), &"Created".into()));
    assert!(entry["Created"].is_i64());
    let images = engine.http("GET", "/v1.41/images/json", "").json();
    for key in [
        "Id",
        "ParentId",
        "RepoTags",
        "RepoDigests",
        "Created",
        "Size",
        "SharedSize",
        "Labels",
        "Containers",
    ] {
        assert!(images[0].get(key).is_some(), "{key} in {:?}", keys(&images[0]));
    }
    engine.ok(&["rm", &name]);
}

#[test]
fn version_info_and_ping() {
    let engine = Engine::start();
    let version = engine.http("GET", "/version", "").json();
    for key in [
        "Version",
        "ApiVersion",
        "MinAPIVersion",
        "Os",
        "Arch",
        "KernelVersion",
        "Components",
        "Platform",
    ] {
        assert!(version.get(key).is_some(), "{key} in {:?}", keys(&version));
    }
    let info = engine.http("GET", "/info", "").json();
    for key in [
        "ID",
        "Containers",
        "ContainersRunning",
        "ContainersPaused",
        "ContainersStopped",
        "Images",
        "Driver",
        "DriverStatus",
        "Plugins",
        "MemoryLimit",
        "SwapLimit",
        "CpuCfsPeriod",
        "CpuCfsQuota",
        "CPUShares",
        "CPUSet",
        "PidsLimit",
        "IPv4Forwarding",
        "NFd",
        "OomKillDisable",
        "NGoroutines",
        "SystemTime",
        "LoggingDriver",
        "CgroupDriver",
        "CgroupVersion",
        "NEventsListener",
        "KernelVersion",
        "OperatingSystem",
        "OSVersion",
        "OSType",
        "Architecture",
        "IndexServerAddress",
        "RegistryConfig",
        "NCPU",
        "MemTotal",
        "DockerRootDir",
        "HttpProxy",
        "Name",
        "Labels",
        "ServerVersion",
        "Runtimes",
        "DefaultRuntime",
        "Swarm",
        "LiveRestoreEnabled",
        "Isolation",
        "InitBinary",
        "SecurityOptions",
    ] {
        assert!(info.get(key).is_some(), "{key} in {:?}", keys(&info));
    }
    let ping = engine.http("GET", "/_ping", "");
    assert_eq!((ping.status, ping.body.as_slice()), (200, b"OK".as_slice()));
    assert!(ping.head.to_lowercase().contains("api-version: "), "{}", ping.head);
}
