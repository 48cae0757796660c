//! What clients are told while images come and go, in Docker's order.

use serde_json::Value;
use silo_tests::{Content, Engine, OCI_MANIFEST, Scripted, tar_of};

use super::faulty;

/// The lines of a stream.
fn lines(engine: &Engine, target: &str) -> Vec<Value> {
    let response = engine.http("POST", target, "");
    assert_eq!(response.status, 200, "{}", String::from_utf8_lossy(&response.body));
    let text = String::from_utf8(response.body).expect("text");
    text.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect()
}

/// What was said of something, each once.
fn states(lines: &[Value], id: &str) -> Vec<String> {
    let of = lines.iter().filter(|line| line["id"].as_str().unwrap_or_default() == id);
    let mut states: Vec<String> =
        of.map(|line| line["status"].as_str().unwrap_or_default().to_owned()).collect();
    states.dedup();
    states
}

fn served() -> (Engine, Scripted, Vec<String>) {
    let mut content = Content::of(&[tar_of("one", 2000), tar_of("two", 900_000)]);
    let other = content.image(&[tar_of("one", 2000), tar_of("three", 3000)]).to_string();
    content.add_manifest("other", OCI_MANIFEST, other.into_bytes());
    let manifest: Value =
        serde_json::from_slice(&content.manifests["latest"].1).expect("the manifest");
    let layers = manifest["layers"].as_array().expect("layers").iter();
    let short = |layer: &Value| layer["digest"].as_str().expect("a digest")[7..19].to_owned();
    let ids = layers.map(short).collect();
    let (server, _) = faulty(content, |_, _| None);
    (Engine::start_empty(), server, ids)
}

#[test]
fn pulls_are_told_as_docker_tells_them() {
    let (engine, server, ids) = served();
    if !engine.is_silo_or_skip("dockerd has its own ways for registries on loopback addresses") {
        return;
    }
    let name = format!("{}/team/app", server.address());
    let target = format!("/v1.41/images/create?fromImage={name}&tag=latest");
    let told = lines(&engine, &target);
    assert_eq!(told[0]["status"], "Pulling from team/app");
    assert_eq!(told[0]["id"], "latest");
    for id in &ids {
        let mut states = states(&told, id);
        states.retain(|state| state != "Waiting");
        let expected = [
            "Pulling fs layer",
            "Downloading",
            "Verifying Checksum",
            "Download complete",
            "Extracting",
            "Pull complete",
        ];
        assert_eq!(states, expected, "{id}");
    }
    // The lowest is in its place before the next.
    let place = |id: &str| {
        let is_end = |line: &Value| line["id"] == *id && line["status"] == "Pull complete";
        told.iter().position(is_end).expect("an end")
    };
    assert!(place(&ids[0]) < place(&ids[1]));
    let bars = told.iter().filter(|line| line["status"] == "Downloading");
    for line in bars {
        let text = line["progress"].as_str().expect("a bar");
        assert!(text.starts_with('[') && text.contains('>') && text.contains("B/"), "{text}");
        assert!(line["progressDetail"]["total"].as_u64() > Some(0), "{line}");
    }
    let last: Vec<&str> =
        told[told.len() - 2..].iter().map(|line| line["status"].as_str().expect("text")).collect();
    assert!(last[0].starts_with("Digest: sha256:"), "{last:?}");
    assert_eq!(last[1], format!("Status: Downloaded newer image for {name}:latest"));
    let again = lines(&engine, &target);
    assert_eq!(
        again.last().expect("a line")["status"],
        format!("Status: Image is up to date for {name}:latest")
    );
    assert_eq!(again.len(), 3, "{again:?}");
    // Another image with the same lowest layer.
    let name = format!("{}/team/other", server.address());
    let other = lines(&engine, &format!("/v1.41/images/create?fromImage={name}&tag=other"));
    assert_eq!(states(&other, &ids[0]), ["Already exists"]);
    let line = other.iter().find(|line| line["id"] == ids[0].as_str()).expect("a line");
    assert_eq!(line["progressDetail"], serde_json::json!({}));
    assert!(line.get("progress").is_none());
}

#[test]
fn pushes_are_told_as_docker_tells_them() {
    let (engine, server, _) = served();
    if !engine.is_silo_or_skip("dockerd has its own ways for registries on loopback addresses") {
        return;
    }
    let name = format!("{}/app", server.address());
    engine.ok(&["pull", "-q", &name]);
    let inspect = engine.inspect(&name);
    let layers = inspect["RootFS"]["Layers"].as_array().expect("layers").iter();
    let ids: Vec<String> =
        layers.map(|layer| layer.as_str().expect("a digest")[7..19].to_owned()).collect();
    let told = lines(&engine, &format!("/v1.41/images/{name}/push?tag=latest"));
    assert_eq!(told[0]["status"], format!("The push refers to repository [{name}]"));
    for id in &ids {
        let mut states = states(&told, id);
        states.retain(|state| state != "Waiting");
        assert_eq!(states, ["Preparing", "Layer already exists"], "{id}");
    }
    let (end, aux) = (&told[told.len() - 2], &told[told.len() - 1]);
    let text = end["status"].as_str().expect("text");
    assert!(text.starts_with("latest: digest: sha256:") && text.contains(" size: "), "{text}");
    assert_eq!(aux["aux"]["Tag"], "latest");
    assert_eq!(
        aux["aux"]["Size"].as_u64(),
        text.rsplit(' ').next().and_then(|size| size.parse().ok())
    );
    assert_eq!(aux["progressDetail"], serde_json::json!({}));
}
