//! Clients that mean harm. What they are told is an error of the specification, and nothing is
//! written that was not asked for properly.

use std::io::{Read, Write};

use serde_json::json;

use super::{OCI_MANIFEST, Registry, files_below, noise, sha256};

#[test]
fn names_and_digests_that_are_none() {
    let registry = Registry::start();
    registry.image("a", "v1", b"layer", &json!({}));
    let before = files_below(registry.directory.path()).len();
    let digest = sha256(b"layer");
    let long = "a".repeat(256);
    for (method, target, status, code) in [
        ("GET", "/v2/../../etc/tags/list", 400, "NAME_INVALID"),
        ("GET", "/v2/a/../b/tags/list", 400, "NAME_INVALID"),
        ("GET", "/v2/%2e%2e/%2e%2e/tags/list", 400, "NAME_INVALID"),
        ("GET", "/v2/a%2f..%2fb/tags/list", 400, "NAME_INVALID"),
        ("GET", "/v2/A/tags/list", 400, "NAME_INVALID"),
        ("GET", "/v2/a%00b/tags/list", 400, "NAME_INVALID"),
        ("GET", "/v2/a%ff/tags/list", 400, "NAME_INVALID"),
        ("GET", &format!("/v2/{long}/tags/list"), 400, "NAME_INVALID"),
        ("POST", "/v2/../blobs/uploads/", 400, "NAME_INVALID"),
        ("POST", "/v2/.hidden/blobs/uploads/", 400, "NAME_INVALID"),
        ("GET", "/v2/a/blobs/sha256:../../../../etc/passwd", 404, "UNSUPPORTED"),
        ("GET", "/v2/a/blobs/sha256:..%2f..%2fpasswd", 400, "DIGEST_INVALID"),
        ("GET", "/v2/a/blobs/md5:d41d8cd98f00b204e9800998ecf8427e", 400, "DIGEST_INVALID"),
        ("GET", &format!("/v2/a/blobs/{}", digest.to_uppercase()), 400, "DIGEST_INVALID"),
        ("GET", "/v2/a/manifests/..", 400, "MANIFEST_INVALID"),
        ("GET", "/v2/a/manifests/sha256:baddigeststring", 400, "DIGEST_INVALID"),
        ("PUT", "/v2/a/manifests/-x", 400, "MANIFEST_INVALID"),
        ("GET", "/v2/a/blobs/uploads/..", 404, "BLOB_UPLOAD_UNKNOWN"),
        ("PATCH", "/v2/a/blobs/uploads/..%2f..%2fregistry.db", 404, "BLOB_UPLOAD_UNKNOWN"),
        ("DELETE", "/v2/a/blobs/uploads/%2e%2e", 404, "BLOB_UPLOAD_UNKNOWN"),
        ("GET", "/v2/a/referrers/x", 400, "DIGEST_INVALID"),
        ("GET", "/v2/a/tags/list?n=%", 400, "NAME_INVALID"),
        ("POST", "/v2/a/blobs/uploads/?digest=x", 400, "DIGEST_INVALID"),
        ("POST", "/v2/a/blobs/uploads/?digest-algorithm=md5", 400, "DIGEST_INVALID"),
        ("POST", &format!("/v2/a/blobs/uploads/?mount={digest}&from=.."), 400, "NAME_INVALID"),
        ("BREW", "/v2/a/tags/list", 405, "UNSUPPORTED"),
        ("DELETE", "/v2/a/tags/list", 405, "UNSUPPORTED"),
        ("GET", "/v1/search", 404, "UNSUPPORTED"),
    ] {
        let answer = registry.send(method, target, &[], b"");
        assert_eq!(answer.status, status, "{method} {target}");
        assert_eq!(answer.code(), code, "{method} {target}");
    }
    assert_eq!(files_below(registry.directory.path()).len(), before);
    assert_eq!(registry.get("/v2/a/manifests/v1").status, 200);
}

#[test]
fn content_that_is_not_what_it_should_be() {
    let registry = Registry::start();
    let bytes = noise(3, 5000);
    let wrong = sha256(b"something else");
    let single = format!("/v2/a/blobs/uploads/?digest={wrong}");
    assert_eq!(registry.send("POST", &single, &[], &bytes).code(), "DIGEST_INVALID");
    let location = registry.upload("a");
    assert_eq!(registry.send("PATCH", &location, &[], &bytes).status, 202);
    let end = format!("{location}?digest={wrong}");
    assert_eq!(registry.send("PUT", &end, &[], b"").code(), "DIGEST_INVALID");
    // It does not become right by trying again.
    assert_eq!(registry.send("PUT", &end, &[], b"").code(), "BLOB_UPLOAD_UNKNOWN");
    let location = registry.upload("a");
    assert_eq!(registry.send("PUT", &location, &[], &bytes).code(), "DIGEST_INVALID");
    for digest in [&wrong, &sha256(&bytes)] {
        assert_eq!(registry.get(&format!("/v2/a/blobs/{digest}")).status, 404);
    }
    assert!(files_below(&registry.root.join("registry/blobs")).is_empty());
}

#[test]
fn manifests_that_mislead() {
    let registry = Registry::start();
    let config = registry.blob("a", b"{}");
    let entry = json!({ "mediaType": "x/y", "digest": config, "size": 2 });
    let index = "application/vnd.oci.image.index.v1+json";
    let path = json!({ "digest": "sha256:../../../../etc/passwd", "size": 1 });
    for (manifest, content_type) in [
        // Both at once (CVE-2021-41190), and under another name.
        (json!({"schemaVersion": 2, "config": entry, "manifests": [entry]}), OCI_MANIFEST),
        (json!({"schemaVersion": 2, "mediaType": index, "manifests": []}), OCI_MANIFEST),
        (json!({"schemaVersion": 2, "config": entry}), index),
        (json!({"schemaVersion": 2, "config": path}), OCI_MANIFEST),
        (json!({"schemaVersion": 1, "fsLayers": []}), OCI_MANIFEST),
        (json!({"schemaVersion": 2, "config": entry}), "text/html"),
        (json!([]), OCI_MANIFEST),
    ] {
        let headers = [("Content-Type", content_type)];
        let body = manifest.to_string();
        let answer = registry.send("PUT", "/v2/a/manifests/v1", &headers, body.as_bytes());
        assert_eq!((answer.status, answer.code()), (400, "MANIFEST_INVALID".into()), "{body}");
    }
    let deep = "[".repeat(3_000_000);
    assert_eq!(registry.manifest("a", "v1", deep.as_bytes()).code(), "MANIFEST_INVALID");
    // As large as the specification asks for, and larger.
    let text = json!({"schemaVersion": 2, "config": entry}).to_string();
    let padded = |size: usize| [text.as_bytes(), &vec![b' '; size - text.len()]].concat();
    assert_eq!(registry.manifest("a", "v1", &padded(4 << 20)).status, 201);
    let answer = registry.manifest("a", "v1", &padded((4 << 20) + 1));
    assert_eq!((answer.status, answer.code()), (413, "SIZE_INVALID".into()));
    // A larger one that does not say so.
    let mut stream = registry.connect();
    let head = "PUT /v2/a/manifests/v2 HTTP/1.1\r\nHost: r\r\nConnection: close\r\n\
                Transfer-Encoding: chunked\r\n\r\n";
    stream.write_all(head.as_bytes()).unwrap();
    let chunk = [&b"100000\r\n"[..], &vec![b' '; 1 << 20], b"\r\n"].concat();
    while stream.write_all(&chunk).is_ok() {}
    assert_eq!(registry.get("/v2/a/manifests/v2").status, 404);
}

#[test]
fn what_clients_may_use_up_is_bounded() {
    let registry = Registry::start_with(&["--max-blob-size", "10k", "--max-uploads", "2"]);
    let bytes = noise(4, 10_241);
    let location = registry.upload("a");
    let answer = registry.send("PATCH", &location, &[], &bytes);
    assert_eq!((answer.status, answer.code()), (413, "SIZE_INVALID".into()));
    // In two pieces, of which the second is too much.
    assert_eq!(registry.send("PATCH", &location, &[], &bytes[..10_000]).status, 202);
    assert_eq!(registry.send("PATCH", &location, &[], &bytes[10_000..]).status, 413);
    let end = format!("{location}?digest={}", sha256(&bytes[..10_240]));
    assert_eq!(registry.send("PUT", &end, &[], &bytes[10_000..10_240]).status, 201);
    let begun = [registry.upload("a"), registry.upload("a")];
    let answer = registry.send("POST", "/v2/a/blobs/uploads/", &[], b"");
    assert_eq!((answer.status, answer.code()), (429, "TOOMANYREQUESTS".into()));
    assert!(answer.header("retry-after").is_some());
    assert_eq!(registry.send("DELETE", &begun[0], &[], b"").status, 204);
    registry.upload("a");
    // A head without end.
    let mut stream = registry.connect();
    stream.write_all(b"GET /v2/ HTTP/1.1\r\n").unwrap();
    while stream.write_all(&[&b"X: "[..], &vec![b'a'; 10_000], b"\r\n"].concat()).is_ok() {}
    assert_eq!(registry.get("/v2/").status, 200);
}

/// What comes of a request on a connection of its own; on a busy host, limits this short may end it
/// before it is sent, and then it is sent again.
fn eventually(registry: &Registry, request: &str) -> String {
    loop {
        let mut stream = registry.connect();
        let mut answer = String::new();
        if stream.write_all(request.as_bytes()).is_ok() {
            stream.read_to_string(&mut answer).ok();
        }
        if !answer.is_empty() {
            return answer;
        }
    }
}

#[test]
fn slow_clients_are_left() {
    let mut registry = Registry::start();
    let location = registry.upload("a");
    let digest = registry.blob("a", &noise(5, 32 << 20));
    registry.kill();
    let limits =
        ["--head-timeout", "300ms", "--idle-timeout", "300ms", "--silence-timeout", "300ms"];
    registry.options =
        limits.iter().chain(&["--max-connections", "2"]).map(ToString::to_string).collect();
    registry.restart();
    // Nothing at all, half a head: each connection ends, and makes room for others.
    for start in ["", "GET /v2/ HTTP/1.1\r\nHost", ""] {
        let mut stream = registry.connect();
        stream.write_all(start.as_bytes()).ok();
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).ok();
        assert!(answer.is_empty(), "{}", String::from_utf8_lossy(&answer));
    }
    // Half a body: what has arrived is kept.
    let head = format!("PATCH {location} HTTP/1.1\r\nHost: r\r\nContent-Length: 100\r\n\r\nhalf");
    let answer = eventually(&registry, &head);
    assert!(answer.starts_with("HTTP/1.1 408"), "{answer}");
    let status = format!("GET {location} HTTP/1.1\r\nHost: r\r\n\r\n");
    assert!(eventually(&registry, &status).contains("range: 0-3\r\n"));
    // A connection that is not used any more ends as well: all of these wait for that.
    let answer = eventually(&registry, "GET /v2/ HTTP/1.1\r\nHost: r\r\n\r\n");
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    // Who takes nothing of a large blob does not keep its connection either.
    let request = format!("GET /v2/a/blobs/{digest} HTTP/1.1\r\nHost: r\r\n\r\n");
    let mut greedy = Vec::new();
    while greedy.len() < 2 {
        let mut stream = registry.connect();
        let sent = stream.write_all(request.as_bytes());
        if sent.and_then(|()| stream.read_exact(&mut [0; 12])).is_ok() {
            greedy.push(stream);
        }
    }
    let answer = eventually(&registry, "GET /v2/ HTTP/1.1\r\nHost: r\r\n\r\n");
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
}

#[test]
fn the_last_of_two_requests_has_the_upload() {
    let registry = Registry::start();
    let location = registry.upload("a");
    let mut first = registry.connect();
    let head = format!("PATCH {location} HTTP/1.1\r\nHost: r\r\nContent-Length: 100\r\n\r\n1234");
    first.write_all(head.as_bytes()).unwrap();
    // Its connection hangs. The client comes back, and finds out where to go on.
    let size = loop {
        let status = registry.get(&location);
        let range = status.header("range").unwrap().to_owned();
        let size: usize = range.strip_prefix("0-").unwrap().parse().unwrap();
        let next = if size == 0 { 0 } else { size + 1 };
        let rest = &b"1234567890"[next..];
        let range = format!("{next}-9");
        let answer = registry.send("PATCH", &location, &[("Content-Range", &range)], rest);
        if answer.status == 202 {
            break answer.header("range").unwrap().to_owned();
        }
        assert_eq!(answer.status, 416, "{}", answer.text());
    };
    assert_eq!(size, "0-9");
    let mut answer = String::new();
    first.read_to_string(&mut answer).unwrap();
    assert!(answer.contains("BLOB_UPLOAD_INVALID"), "{answer}");
    let end = format!("{location}?digest={}", sha256(b"1234567890"));
    assert_eq!(registry.send("PUT", &end, &[], b"").status, 201);
}
