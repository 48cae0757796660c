//! How much memory the daemon takes for what it pulls.

use std::sync::Mutex;

use serde_json::json;
use silo_tests::{Content, Engine, OCI_MANIFEST, Scripted, gzip, sha256, tar_of};

/// The end of a tar archive.
const END: usize = 1024;
const LAYERS: usize = 10;

/// An image of large layers, none of which is another: each begins with a file of its own.
fn large() -> Content {
    let mut same = Vec::new();
    for number in 0..60 {
        let tar = tar_of(&format!("f{number}"), 100_000 + number);
        same.extend_from_slice(&tar[..tar.len() - END]);
    }
    same.extend_from_slice(&tar_of("large", 10_000_000));
    let packed = gzip(&same);
    let mut content = Content::default();
    let (mut layers, mut diff_ids) = (Vec::new(), Vec::new());
    for number in 0..LAYERS {
        let mut own = tar_of(&format!("own{number}"), 100);
        own.truncate(own.len() - END);
        diff_ids.push(sha256(&[&own[..], &same].concat()));
        // Gzip has members that follow each other.
        let blob = [gzip(&own), packed.clone()].concat();
        layers.push(content.add_blob("application/vnd.oci.image.layer.v1.tar+gzip", blob));
    }
    let mut manifest = content.image(&[]);
    let config = json!({
        "os": "linux",
        "architecture": if cfg!(target_arch = "aarch64") { "arm64" } else { "amd64" },
        "config": {},
        "rootfs": {"type": "layers", "diff_ids": diff_ids},
    });
    let kind = "application/vnd.oci.image.config.v1+json";
    manifest["config"] = content.add_blob(kind, config.to_string().into_bytes());
    manifest["layers"] = json!(layers);
    content.add_manifest("latest", OCI_MANIFEST, manifest.to_string().into_bytes());
    content
}

#[test]
fn many_large_layers_take_little_memory() {
    let mut engine = Engine::prepare();
    if !engine.is_silo_or_skip("the memory of its daemon") {
        return;
    }
    // As on a host with many processors, and more.
    engine.add_option("--max-concurrent-downloads=64");
    engine.start_daemon();
    let content = Mutex::new(large());
    let server = Scripted::start(move |asked| content.lock().expect("content").answer(asked));
    engine.ok(&["pull", "-q", &format!("{}/large", server.address())]);
    let peak = engine.peak_kb();
    assert!(peak < 100_000, "{peak} kB");
}
