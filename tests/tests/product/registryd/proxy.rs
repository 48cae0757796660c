//! A registry that keeps what another one has.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};

use serde_json::json;

use super::{OCI_MANIFEST, Registry, files_below, noise, sha256};

/// A registry in front of the one at `address`.
fn in_front_of(address: &str, more: &[&str]) -> Registry {
    let url = format!("http://{address}");
    Registry::start_with(&[&["--proxy", &url], more].concat())
}

#[test]
fn what_another_has_is_fetched_once_and_kept() {
    let mut origin = Registry::start();
    let layer = noise(7, 3 << 20);
    let digest = sha256(&layer);
    let image = origin.image("team/app", "v1", &layer, &json!({}));
    let loose = origin.blob("team/app", b"loose");
    let proxy = in_front_of(&origin.address, &[]);
    let blob = format!("/v2/team/app/blobs/{digest}");
    // Nothing is asked for that no manifest names.
    assert_eq!(proxy.get(&blob).code(), "BLOB_UNKNOWN");
    assert_eq!(proxy.get("/v2/team/app/manifests/none").code(), "MANIFEST_UNKNOWN");
    let manifest = proxy.get("/v2/team/app/manifests/v1");
    assert_eq!(manifest.header("docker-content-digest"), Some(&image[..]));
    assert_eq!(manifest.body, origin.get("/v2/team/app/manifests/v1").body);
    assert_eq!(proxy.get(&format!("/v2/team/app/blobs/{loose}")).code(), "BLOB_UNKNOWN");
    let head = proxy.send("HEAD", &blob, &[], b"");
    assert_eq!(head.header("content-length"), Some("3145728"));
    assert!(!proxy.file(&digest).exists());
    // Many at once, one of them for a part.
    std::thread::scope(|scope| {
        let whole: Vec<_> = (0..6).map(|_| scope.spawn(|| proxy.get(&blob).body)).collect();
        let part = proxy.send("GET", &blob, &[("Range", "bytes=2000000-2000009")], b"");
        assert_eq!((part.status, &part.body[..]), (206, &layer[2_000_000..2_000_010]));
        for whole in whole {
            assert!(whole.join().unwrap() == layer);
        }
    });
    let asked = format!("method=GET path=\"{blob}\"");
    assert_eq!(origin.log().matches(&asked).count(), 1, "{}", origin.log());
    assert!(proxy.get(&blob).body == layer);
    assert_eq!(origin.log().matches(&asked).count(), 1);

    // A tag that moves, and lists.
    let moved = origin.image("team/app", "v1", b"newer", &json!({}));
    origin.image("team/app", "v0", b"older", &json!({}));
    let manifest = proxy.get("/v2/team/app/manifests/v1");
    assert_eq!(manifest.header("docker-content-digest"), Some(&moved[..]));
    let tags = proxy.get("/v2/team/app/tags/list?n=1");
    assert_eq!((tags.json()["tags"].clone(), tags.header("link").is_some()), (json!(["v0"]), true));
    for (method, target) in [("POST", "/v2/a/blobs/uploads/"), ("DELETE", &blob[..])] {
        assert_eq!(proxy.send(method, target, &[], b"").code(), "UNSUPPORTED", "{method}");
    }

    // The other one is gone.
    origin.kill();
    assert!(proxy.get(&blob).body == layer);
    let manifest = proxy.get("/v2/team/app/manifests/v1");
    assert_eq!(manifest.header("docker-content-digest"), Some(&moved[..]));
    assert_eq!(proxy.get("/v2/team/app/tags/list").json()["tags"], json!(["v1"]));
}

#[test]
fn names_and_passwords_are_for_the_other_registry() {
    let directory = tempfile::tempdir().unwrap();
    let path = |name: &str| directory.path().join(name).display().to_string();
    let (users, own) = (path("users"), path("own"));
    fs_err::write(&users, format!("ann:{}\n", super::clients::HASH)).unwrap();
    fs_err::write(&own, "ann:secret\n").unwrap();
    let mut origin = Registry::start();
    let image = origin.image("a", "v1", b"layer", &json!({}));
    origin.kill();
    origin.options = vec!["--htpasswd".into(), users];
    origin.restart();
    let proxy = in_front_of(&origin.address, &["--proxy-credentials", &own]);
    let manifest = proxy.get("/v2/a/manifests/v1");
    assert_eq!(manifest.header("docker-content-digest"), Some(&image[..]));
    let without = in_front_of(&origin.address, &[]);
    let refused = without.get("/v2/a/manifests/v1");
    assert_eq!((refused.status, refused.code()), (404, "MANIFEST_UNKNOWN".into()));
}

/// Answers one request of a connection.
fn answer(mut stream: TcpStream, manifest: &str, layer: &[u8]) {
    let mut bytes = [0; 4096];
    let Ok(count) = stream.read(&mut bytes) else { return };
    let head = String::from_utf8_lossy(&bytes[..count]).into_owned();
    if !head.starts_with("GET ") && !head.starts_with("HEAD ") {
        // A client that tries TLS.
        return;
    }
    let path = head.split(' ').nth(1).unwrap_or_default();
    let (kind, body) = if path.contains("/manifests/") {
        (OCI_MANIFEST, manifest.as_bytes())
    } else if path.contains("/blobs/") {
        ("application/octet-stream", layer)
    } else {
        ("application/json", &b"{}"[..])
    };
    let length = body.len();
    let mut answer = format!(
        "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Type: {kind}\r\n\
         Content-Length: {length}\r\n\r\n"
    )
    .into_bytes();
    if head.starts_with("GET ") {
        answer.extend_from_slice(body);
    }
    stream.write_all(&answer).ok();
}

#[test]
fn nobody_gets_all_of_what_is_not_what_it_should_be() {
    let (right, wrong) = (noise(8, 100_000), noise(9, 100_000));
    let digest = sha256(&right);
    let manifest = json!({
        "schemaVersion": 2,
        "mediaType": OCI_MANIFEST,
        "config": { "mediaType": "x/y", "digest": sha256(b"{}"), "size": 2 },
        "layers": [{ "mediaType": "x/y", "digest": digest, "size": right.len() }],
    })
    .to_string();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            answer(stream, &manifest, &wrong);
        }
    });
    let proxy = in_front_of(&address, &[]);
    assert_eq!(proxy.get("/v2/a/manifests/v1").status, 200);
    for _ in 0..2 {
        let answer = proxy.get(&format!("/v2/a/blobs/{digest}"));
        assert!(answer.body.len() < right.len(), "{} bytes", answer.body.len());
    }
    assert!(!proxy.file(&digest).exists());
    assert!(files_below(&proxy.root.join("registry/staging")).is_empty());
}
