//! What the specification asks for.

use serde_json::json;

use super::{OCI_MANIFEST, Registry, noise, sha256, sum};

#[test]
fn blobs_come_in_all_ways_and_go_out_whole_and_in_parts() {
    let registry = Registry::start();
    let bytes = noise(1, 300_000);
    let digest = sha256(&bytes);
    let blob = format!("/v2/a/b/blobs/{digest}");
    assert_eq!(registry.get(&blob).code(), "BLOB_UNKNOWN");
    let base = registry.get("/v2/");
    assert_eq!(base.status, 200);
    assert_eq!(base.header("docker-distribution-api-version"), Some("registry/2.0"));

    // In one go after the beginning, and with another algorithm.
    let location = registry.upload("a/b");
    let answer = registry.send("PUT", &format!("{location}?digest={digest}"), &[], &bytes);
    assert_eq!((answer.status, answer.header("location")), (201, Some(&blob[..])));
    assert_eq!(answer.header("docker-content-digest"), Some(&digest[..]));
    let long = sum("sha512sum", &bytes);
    let location = registry.upload("a/b");
    let answer = registry.send("PUT", &format!("{location}?digest={long}"), &[], &bytes);
    assert_eq!(answer.status, 201, "{}", answer.text());

    let head = registry.send("HEAD", &blob, &[], b"");
    assert_eq!((head.status, head.header("content-length")), (200, Some("300000")));
    assert_eq!(registry.get(&blob).body, bytes);
    assert_eq!(registry.get(&format!("/v2/a/b/blobs/{long}")).body, bytes);
    for (range, first, last) in
        [("0-9", 0, 9), ("299990-", 299_990, 299_999), ("-5", 299_995, 299_999)]
    {
        let answer = registry.send("GET", &blob, &[("Range", &format!("bytes={range}"))], b"");
        assert_eq!(answer.status, 206, "{range}");
        assert_eq!(answer.body, bytes[first..=last], "{range}");
        let expected = format!("bytes {first}-{last}/300000");
        assert_eq!(answer.header("content-range"), Some(&expected[..]), "{range}");
    }
    let beyond = registry.send("GET", &blob, &[("Range", "bytes=300000-")], b"");
    assert_eq!(beyond.status, 416);
    let tag = format!("\"{digest}\"");
    assert_eq!(registry.send("GET", &blob, &[("If-None-Match", &tag)], b"").status, 304);
    assert_eq!(registry.send("DELETE", &blob, &[], b"").status, 202);
    assert_eq!(registry.get(&blob).status, 404);
    assert_eq!(registry.send("DELETE", &blob, &[], b"").status, 404);
}

#[test]
fn uploads_go_on_where_they_stopped() {
    let registry = Registry::start();
    let bytes = noise(2, 10_000);
    let location = registry.upload("a");
    let chunk = |range: &str, part: &[u8]| {
        registry.send("PATCH", &location, &[("Content-Range", range)], part)
    };
    let answer = chunk("0-3999", &bytes[..4000]);
    assert_eq!((answer.status, answer.header("range")), (202, Some("0-3999")));
    // Again, beyond the end, and of another length than it says.
    for range in ["0-3999", "4001-4100"] {
        let answer = chunk(range, &bytes[..100]);
        assert_eq!(answer.status, 416, "{range}");
        assert_eq!(answer.header("range"), Some("0-3999"), "{range}");
    }
    assert_eq!(chunk("4000-4009", &bytes[..11]).code(), "BLOB_UPLOAD_INVALID");
    assert_eq!(chunk("bytes 4000-4009/*", &bytes[..10]).code(), "BLOB_UPLOAD_INVALID");
    let status = registry.get(&location);
    assert_eq!((status.status, status.header("range")), (204, Some("0-3999")));
    // Without saying where, it is the rest.
    assert_eq!(registry.send("PATCH", &location, &[], &bytes[4000..9000]).status, 202);
    let end = format!("{location}?digest={}", sha256(&bytes));
    let last = [("Content-Range", "9000-9999")];
    assert_eq!(registry.send("PUT", &end, &last, &bytes[9000..]).status, 201);
    assert_eq!(registry.get(&location).code(), "BLOB_UPLOAD_UNKNOWN");
    assert_eq!(registry.get(&format!("/v2/a/blobs/{}", sha256(&bytes))).body, bytes);

    // Given up; of another repository.
    let location = registry.upload("a");
    let elsewhere = location.replace("/v2/a/", "/v2/b/");
    assert_eq!(registry.get(&elsewhere).code(), "BLOB_UPLOAD_UNKNOWN");
    assert_eq!(registry.send("DELETE", &location, &[], b"").status, 204);
    assert_eq!(registry.get(&location).status, 404);
    assert_eq!(fs_err::read_dir(registry.root.join("registry/uploads")).unwrap().count(), 0);
}

#[test]
fn blobs_are_mounted_from_where_they_are() {
    let registry = Registry::start();
    let digest = registry.blob("a", b"shared");
    let mount = |target: &str, from: &str| {
        let target = format!("/v2/{target}/blobs/uploads/?mount={digest}{from}");
        registry.send("POST", &target, &[], b"").status
    };
    assert_eq!(mount("b", "&from=c"), 202);
    assert_eq!(registry.get(&format!("/v2/b/blobs/{digest}")).status, 404);
    assert_eq!(mount("b", "&from=a"), 201);
    assert_eq!(mount("c", ""), 201);
    assert_eq!(registry.get(&format!("/v2/c/blobs/{digest}")).body, b"shared");
    assert_eq!(super::files_below(&registry.root.join("registry/blobs")).len(), 1);
}

#[test]
fn manifests_have_tags_and_digests() {
    let registry = Registry::start();
    let digest = registry.image("a", "v1", b"layer", &json!({}));
    let by_tag = registry.get("/v2/a/manifests/v1");
    assert_eq!(by_tag.header("content-type"), Some(OCI_MANIFEST));
    assert_eq!(by_tag.header("docker-content-digest"), Some(&digest[..]));
    assert_eq!(sha256(&by_tag.body), digest);
    let head = registry.send("HEAD", "/v2/a/manifests/v1", &[], b"");
    let length = by_tag.body.len().to_string();
    assert_eq!((head.status, head.header("content-length")), (200, Some(&length[..])));
    assert_eq!(registry.get(&format!("/v2/a/manifests/{digest}")).body, by_tag.body);
    // By digest with tags, as newer clients do.
    let tagged = registry.manifest("a", &format!("{digest}?tag=v2&tag=v3"), &by_tag.body);
    assert_eq!(tagged.status, 201);
    assert_eq!(registry.get("/v2/a/tags/list").json()["tags"], json!(["v1", "v2", "v3"]));

    // Not what it says, and what nobody has.
    let wrong = format!("sha256:{}", "0".repeat(64));
    assert_eq!(registry.manifest("a", &wrong, &by_tag.body).code(), "DIGEST_INVALID");
    assert_eq!(registry.manifest("b", "v1", &by_tag.body).code(), "MANIFEST_BLOB_UNKNOWN");
    assert_eq!(registry.get("/v2/b/tags/list").code(), "NAME_UNKNOWN");
    assert_eq!(registry.get("/v2/a/manifests/none").code(), "MANIFEST_UNKNOWN");

    let delete = |reference: &str| {
        registry.send("DELETE", &format!("/v2/a/manifests/{reference}"), &[], b"").status
    };
    assert_eq!((delete("v1"), delete("v1")), (202, 404));
    assert_eq!(registry.get("/v2/a/manifests/v2").status, 200);
    assert_eq!((delete(&digest), registry.get("/v2/a/manifests/v2").status), (202, 404));
    assert_eq!(registry.get("/v2/a/tags/list").json()["tags"], json!([]));
}

#[test]
fn lists_have_pages() {
    let registry = Registry::start();
    for tag in ["v10", "v9", "B", "a"] {
        registry.image("a", tag, b"layer", &json!({}));
    }
    for repository in ["c", "b/x"] {
        registry.blob(repository, b"x");
    }
    let all = ["B", "a", "v10", "v9"];
    assert_eq!(registry.get("/v2/a/tags/list").json()["tags"], json!(all));
    let mut target = "/v2/a/tags/list?n=3".to_owned();
    let mut seen = Vec::new();
    loop {
        let answer = registry.get(&target);
        let tags = answer.json()["tags"].clone();
        seen.extend(tags.as_array().unwrap().iter().map(|tag| tag.as_str().unwrap().to_owned()));
        let Some(link) = answer.header("link") else { break };
        target = link.strip_prefix('<').unwrap().split_once(">; rel=\"next\"").unwrap().0.into();
    }
    assert_eq!(seen, all);
    let none = registry.get("/v2/a/tags/list?n=0");
    assert_eq!((none.json()["tags"].clone(), none.header("link")), (json!([]), None));
    assert_eq!(registry.get("/v2/a/tags/list?last=v1").json()["tags"], json!(["v10", "v9"]));
    assert_eq!(registry.get("/v2/a/tags/list?n=x").status, 400);
    let first = registry.get("/v2/_catalog?n=2");
    assert_eq!(first.json()["repositories"], json!(["a", "b/x"]));
    assert!(first.header("link").unwrap().contains("/v2/_catalog?n=2&last=b%2Fx"));
}

#[test]
fn referrers_are_listed_by_what_they_are_about() {
    let registry = Registry::start();
    let subject = registry.image("a", "v1", b"layer", &json!({}));
    let list = |more: &str| registry.get(&format!("/v2/a/referrers/{subject}{more}"));
    let empty = list("");
    assert_eq!((empty.status, empty.json()["manifests"].clone()), (200, json!([])));
    assert_eq!(empty.header("content-type"), Some("application/vnd.oci.image.index.v1+json"));
    let about = json!({ "mediaType": OCI_MANIFEST, "digest": subject, "size": 1 });
    let sbom = json!({
        "artifactType": "x/sbom", "subject": about, "annotations": { "by": "a test" },
    });
    let sbom = registry.image("a", "sbom", b"layer", &sbom);
    let plain = json!({ "subject": about });
    registry.image("a", "plain", b"layer", &plain);
    let manifests = list("").json()["manifests"].clone();
    assert_eq!(manifests.as_array().map(Vec::len), Some(2));
    let filtered = list("?artifactType=x%2Fsbom");
    assert_eq!(filtered.header("oci-filters-applied"), Some("artifactType"));
    let entry = &filtered.json()["manifests"];
    assert_eq!(entry.as_array().map(Vec::len), Some(1));
    assert_eq!(entry[0]["digest"], json!(sbom));
    assert_eq!(entry[0]["annotations"]["by"], json!("a test"));
    // Without a type of its own it is its configuration's.
    let types = list("?artifactType=application/vnd.x").json()["manifests"].clone();
    assert_eq!(types.as_array().map(Vec::len), Some(1));
    let first = list("?n=1");
    assert!(first.header("link").is_some(), "{}", first.text());
    // The registry says that the client need not keep the list.
    let bytes = registry.get("/v2/a/manifests/sbom").body;
    let again = registry.manifest("a", "again", &bytes);
    assert_eq!(again.header("oci-subject"), Some(&subject[..]));
}

#[test]
fn read_only_and_without_deletion() {
    let mut registry = Registry::start();
    let digest = registry.image("a", "v1", b"layer", &json!({}));
    registry.kill();
    registry.options = vec!["--read-only".into()];
    registry.restart();
    assert_eq!(registry.get("/v2/a/manifests/v1").status, 200);
    let manifest = format!("/v2/a/manifests/{digest}");
    for (method, target) in
        [("PUT", "/v2/a/manifests/v1"), ("POST", "/v2/a/blobs/uploads/"), ("DELETE", &manifest[..])]
    {
        let answer = registry.send(method, target, &[], b"");
        assert_eq!((answer.status, answer.code()), (405, "UNSUPPORTED".into()), "{method}");
    }
    registry.kill();
    registry.options = vec!["--no-delete".into()];
    registry.restart();
    assert_eq!(registry.send("DELETE", &manifest, &[], b"").status, 405);
    let location = registry.upload("a");
    assert_eq!(registry.send("DELETE", &location, &[], b"").status, 204);
}

#[test]
fn garbage_is_collected_beside_the_server() {
    let registry = Registry::start();
    registry.image("a", "v1", b"layer", &json!({}));
    let loose = registry.blob("a", b"loose");
    let location = registry.upload("a");
    assert_eq!(registry.send("PATCH", &location, &[], b"half").status, 202);
    let said = registry.collect();
    assert!(said.contains("1 blobs of repositories") && said.contains("1 uploads"), "{said}");
    assert!(said.contains("9 bytes"), "{said}");
    assert_eq!(registry.get(&format!("/v2/a/blobs/{loose}")).status, 404);
    assert_eq!(registry.send("PATCH", &location, &[], b"half").code(), "BLOB_UPLOAD_UNKNOWN");
    let image = registry.get("/v2/a/manifests/v1");
    let layer = image.json()["layers"][0]["digest"].as_str().unwrap().to_owned();
    assert_eq!(registry.get(&format!("/v2/a/blobs/{layer}")).body, b"layer");
    assert_eq!(registry.send("DELETE", "/v2/a/manifests/v1", &[], b"").status, 202);
    // Untagged, it can be had by its digest still.
    registry.collect();
    assert_eq!(registry.get(&format!("/v2/a/manifests/{}", sha256(&image.body))).status, 200);
}
