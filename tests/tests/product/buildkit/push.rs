//! What buildx and compose build goes to registries.

use silo_tests::{Engine, Registry};

use super::{build, built, context};

#[test]
fn buildx_pushes_with_the_clients_password() {
    let engine = Engine::start();
    if !engine.has_plugins_or_skip() {
        return;
    }
    let Some(registry) = Registry::start_with_password_or_skip() else { return };
    let text = format!("FROM busybox\nENV OF={}\nRUN echo more > /more\n", engine.name("push"));
    let folder = context(&engine, "c", &[("Dockerfile", &text)]);
    let (one, two) = (registry.name("team/one:1"), registry.name("team/two:2"));
    let outcome = build(&engine, &folder, &["--push", "-t", &one]);
    assert_ne!(outcome.code, 0);
    if engine.kind() == silo_tests::Kind::Silo {
        let words = format!("failed to solve: failed to push {one}: ");
        assert!(outcome.stderr.contains(&words), "{}", outcome.stderr);
    }
    let words = if engine.has_containerd_store() {
        "401 Unauthorized"
    } else {
        "no basic auth credentials"
    };
    assert!(outcome.stderr.contains(words), "{}", outcome.stderr);
    engine.ok(&["login", "-u", "me", "-p", "secret", registry.address()]);
    let metadata = folder.join("metadata.json");
    let file = metadata.to_str().expect("text");
    built(&engine, &folder, &["--push", "-t", &one, "-t", &two, "--metadata-file", file]);
    let digest = registry.digest("team/one", "1").expect("the first name");
    assert_eq!(registry.digest("team/two", "2"), Some(digest.clone()));
    let metadata = fs_err::read(&metadata).expect("the metadata");
    let metadata: serde_json::Value = serde_json::from_slice(&metadata).expect("JSON");
    assert_eq!(metadata["containerimage.digest"], digest.as_str());
    // A base that only the password gives, from there.
    engine.ok(&["rmi", &one, &two]);
    let folder = context(&engine, "d", &[("Dockerfile", &format!("FROM {one}\nRUN cat /more\n"))]);
    let three = registry.name("team/three:1");
    let output = format!("type=registry,name={three}");
    let output = built(&engine, &folder, &["--no-cache", "-o", &output, "-t", &three]);
    assert!(output.contains(" more\n"), "{output}");
    assert!(registry.digest("team/three", "1").is_some());
}
