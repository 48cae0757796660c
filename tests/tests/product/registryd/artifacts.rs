//! What ORAS, Helm and cosign make of a registry, by their requests, and its way through
//! `silo copy`.

use serde_json::{Value, json};

use super::copies::copy;
use super::{OCI_MANIFEST, Registry, sha256};

const EMPTY: &str = "application/vnd.oci.empty.v1+json";

/// Pushes a blob as these clients do: an upload, and all of it in one request; gives its
/// descriptor.
fn blob(registry: &Registry, kind: &str, bytes: &[u8], title: &str) -> Value {
    let digest = sha256(bytes);
    let head = registry.send("HEAD", &format!("/v2/art/blobs/{digest}"), &[], b"");
    if head.status == 404 {
        let location = registry.upload("art");
        let sign = if location.contains('?') { '&' } else { '?' };
        let kind = [("Content-Type", "application/octet-stream")];
        let target = format!("{location}{sign}digest={digest}");
        let answer = registry.send("PUT", &target, &kind, bytes);
        assert_eq!(answer.status, 201, "{}", answer.text());
    }
    let mut descriptor = json!({"mediaType": kind, "digest": digest, "size": bytes.len()});
    if !title.is_empty() {
        descriptor["annotations"] = json!({"org.opencontainers.image.title": title});
    }
    descriptor
}

/// Pushes a manifest; gives its descriptor.
fn manifest(registry: &Registry, reference: &str, value: &Value) -> Value {
    let bytes = value.to_string();
    let digest = sha256(bytes.as_bytes());
    let reference = if reference.is_empty() { &digest } else { reference };
    let answer = registry.manifest("art", reference, bytes.as_bytes());
    assert_eq!(answer.status, 201, "{}", answer.text());
    let said = value.get("subject").map(|subject| subject["digest"].as_str().expect("a digest"));
    assert_eq!(answer.header("oci-subject"), said, "{}", answer.text());
    json!({"mediaType": OCI_MANIFEST, "digest": digest, "size": bytes.len()})
}

#[test]
fn copied_with_what_is_about_them() {
    let registry = Registry::start();
    let directory = registry.directory.path();
    let empty = blob(&registry, EMPTY, b"{}", "");
    // `oras push --artifact-type`
    let file = blob(&registry, "text/plain", b"hello\n", "hello.txt");
    let artifact = json!({
        "schemaVersion": 2,
        "mediaType": OCI_MANIFEST,
        "artifactType": "application/x.greeting",
        "config": empty,
        "layers": [file],
        "annotations": {"org.opencontainers.image.created": "2026-01-01T00:00:00Z"},
    });
    let subject = manifest(&registry, "v1", &artifact);
    // `oras attach`, twice; the second is about the first.
    let about = |subject: &Value, kind: &str| {
        json!({
            "schemaVersion": 2,
            "mediaType": OCI_MANIFEST,
            "artifactType": kind,
            "config": empty,
            "layers": [blob(&registry, "application/json", kind.as_bytes(), "")],
            "subject": subject,
            "annotations": {"kind": kind},
        })
    };
    let sbom = manifest(&registry, "", &about(&subject, "application/x.sbom"));
    manifest(&registry, "", &about(&sbom, "application/x.signature"));
    // `oras attach` of nothing but annotations: the layer is the empty one as well.
    let mut note = about(&subject, "application/x.note");
    note["layers"] = json!([empty]);
    manifest(&registry, "", &note);
    // `helm push`
    let config =
        blob(&registry, "application/vnd.cncf.helm.config.v1+json", b"{\"name\":\"x\"}", "");
    let kind = "application/vnd.cncf.helm.chart.content.v1.tar+gzip";
    let chart = json!({
        "schemaVersion": 2,
        "config": config,
        "layers": [blob(&registry, kind, b"a chart", "")],
    });
    let chart_digest = manifest(&registry, "0.1.0", &chart)["digest"].clone();
    // `cosign sign`
    let hex = subject["digest"].as_str().expect("a digest").replace(':', "-");
    let payload =
        blob(&registry, "application/vnd.dev.cosign.simplesigning.v1+json", b"{\"c\":1}", "");
    let signature = json!({"schemaVersion": 2, "mediaType": OCI_MANIFEST, "config": empty, "layers": [payload]});
    manifest(&registry, &format!("{hex}.sig"), &signature);

    let from = format!("{}/art:v1", registry.address);
    let layout = format!("oci:{}:v1", directory.join("layout").display());
    let said = copy(directory, &["--referrers", &from, &layout]);
    assert!(said.contains("4 manifests about the image"), "{said}");
    let other = Registry::start();
    let said =
        copy(directory, &["--referrers", &layout, &format!("{}/copy/art:v1", other.address)]);
    assert!(said.contains("4 manifests about the image"), "{said}");
    let path = |reference: &str| format!("/v2/copy/art/manifests/{reference}");
    assert_eq!(other.get(&path("v1")).body, artifact.to_string().as_bytes());
    assert_eq!(other.get(&path(&format!("{hex}.sig"))).body, signature.to_string().as_bytes());
    for (subject, wanted) in [
        (&subject, &["application/x.note", "application/x.sbom"][..]),
        (&sbom, &["application/x.signature"]),
    ] {
        let digest = subject["digest"].as_str().expect("a digest");
        let found = other.get(&format!("/v2/copy/art/referrers/{digest}")).json();
        let mut kinds: Vec<&str> = found["manifests"]
            .as_array()
            .expect("a list")
            .iter()
            .filter_map(|entry| entry["annotations"]["kind"].as_str())
            .collect();
        kinds.sort_unstable();
        assert_eq!(kinds, wanted, "{found}");
        let one = wanted[0];
        let asked = format!("/v2/copy/art/referrers/{digest}?artifactType={one}");
        let filtered = other.get(&asked);
        assert_eq!(filtered.header("oci-filters-applied"), Some("artifactType"));
        assert_eq!(filtered.json()["manifests"][0]["artifactType"], one);
    }
    // A chart says nothing of its own type, and goes as well.
    let chart_name = format!("{}/art:0.1.0", registry.address);
    let said = copy(directory, &["-q", &chart_name, &format!("{}/charts/x:0.1.0", other.address)]);
    assert_eq!(json!(said.trim()), chart_digest);
    let back = other.get("/v2/charts/x/manifests/0.1.0");
    assert_eq!(back.body, chart.to_string().as_bytes());
}
