//! The server is killed.

use std::io::Write;

use serde_json::json;

use super::{Registry, files_below, noise, sha256};

#[test]
fn kills_in_the_middle_of_pushes_lose_and_leak_nothing() {
    let mut registry = Registry::start();
    let mut pushed = Vec::new();
    for round in 0..50_u8 {
        let bytes = noise(round, 400_000 + usize::from(round));
        let digest = sha256(&bytes);
        let location = registry.upload("a");
        let before = usize::from(round) * 7001;
        assert_eq!(registry.send("PATCH", &location, &[], &bytes[..before]).status, 202);
        // More is on its way, and something whole as well.
        let mut stream = registry.connect();
        let rest = &bytes[before..];
        let head = format!(
            "PATCH {location} HTTP/1.1\r\nHost: r\r\nContent-Length: {}\r\n\r\n",
            rest.len()
        );
        stream.write_all(head.as_bytes()).unwrap();
        stream.write_all(&rest[..rest.len() / 2]).unwrap();
        let image = registry.image("b", &format!("v{round}"), &[round], &json!({}));
        registry.kill();
        registry.restart();
        // What was told to be there is there; the upload goes on where it stopped.
        let answer = registry.get(&format!("/v2/b/manifests/v{round}"));
        assert_eq!(answer.header("docker-content-digest"), Some(&image[..]));
        let status = registry.get(&location);
        assert_eq!(status.status, 204, "{}", status.text());
        let last: usize =
            status.header("range").unwrap().strip_prefix("0-").unwrap().parse().unwrap();
        let next = if last == 0 { 0 } else { last + 1 };
        assert!(next >= before, "round {round}: {next} of {before}");
        let range = format!("{next}-{}", bytes.len() - 1);
        let end = format!("{location}?digest={digest}");
        let answer = registry.send("PUT", &end, &[("Content-Range", &range)], &bytes[next..]);
        assert_eq!(answer.status, 201, "round {round}: {}", answer.text());
        pushed.push((digest, bytes));
    }
    for (digest, bytes) in &pushed {
        assert!(registry.get(&format!("/v2/a/blobs/{digest}")).body == *bytes);
    }
    assert!(files_below(&registry.root.join("registry/uploads")).is_empty());
    let said = registry.collect();
    assert!(said.contains("50 blobs of repositories"), "{said}");
    // 50 manifests and layers, and one configuration.
    assert_eq!(files_below(&registry.root.join("registry/blobs")).len(), 101, "{said}");
    assert!(files_below(&registry.root.join("registry/staging")).is_empty());
}

#[test]
fn one_server_at_a_time() {
    let registry = Registry::start();
    let output = std::process::Command::new(silo_tests::silo_binary())
        .args(["registry", "serve", "--listen", "127.0.0.1:0", "--root"])
        .arg(&registry.root)
        .output()
        .unwrap();
    assert!(!output.status.success());
    let text = String::from_utf8_lossy(&output.stderr);
    assert!(text.contains("another process serves the registry in"), "{text}");
}
