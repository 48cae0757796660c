//! Pulls.

use std::collections::BTreeMap;
use std::sync::Mutex;

use serde_json::json;
use silo_tests::{
    Asked, Content, End, Engine, OCI_INDEX, OCI_MANIFEST, Reply, Scripted, sha256, tar_of,
};

use super::{faulty, impatient, unfinished};

/// What a server answers in place of the right thing; `None` for the right thing. The number is
/// how often this was asked before.
type Fault = fn(&Asked, &Content, usize) -> Option<Reply>;

fn is_manifest(asked: &Asked) -> bool {
    asked.target.contains("/manifests/")
}

fn is_layer(asked: &Asked, content: &Content) -> bool {
    let name = asked.target.rsplit('/').next().unwrap_or_default();
    content.blobs.get(name).is_some_and(|blob| blob.starts_with(&[0x1f, 0x8b]))
}

fn honest(asked: &Asked, content: &Content) -> Reply {
    content.clone().answer(asked)
}

/// A server that does a wrong thing in each of its repositories.
fn server_of(cases: &'static [(&'static str, Fault, &'static str)]) -> Scripted {
    let counts: Mutex<BTreeMap<String, usize>> = Mutex::default();
    let content = Content::of(&[tar_of("one", 3000), tar_of("two", 40_000)]);
    let (server, _) = faulty(content, move |asked, content| {
        let name = asked.target.split('/').nth(2).unwrap_or_default();
        let (_, fault, _) = cases.iter().find(|(case, ..)| *case == name)?;
        let mut counts = counts.lock().expect("counts");
        let count = counts.entry(format!("{} {}", asked.method, asked.target)).or_default();
        *count += 1;
        fault(asked, content, *count - 1)
    });
    server
}

fn pull(engine: &Engine, server: &Scripted, name: &str) -> (i32, String) {
    let outcome = engine.docker(&["pull", &format!("{}/{name}", server.address())]);
    (outcome.code, outcome.stderr)
}

/// Faults that pass: after them the image is there.
const PASSING: &[(&str, Fault, &str)] = &[
    (
        "busy",
        |_, _, count| {
            (count < 2).then(|| Reply::refusal(429, "TOOMANYREQUESTS").header("Retry-After", "0"))
        },
        "",
    ),
    (
        "failing",
        |_, _, count| {
            (count < 3)
                .then(|| Reply::new(500 + 2 * u16::try_from(count % 3).unwrap_or(0), "<html>"))
        },
        "",
    ),
    (
        "no-answer",
        |asked, content, count| (is_layer(asked, content) && count < 2).then(Reply::none),
        "",
    ),
    (
        "cut-layer",
        |asked, content, count| {
            (is_layer(asked, content) && count < 2).then(|| {
                let reply = honest(asked, content);
                let count = reply.body.len() / 3;
                reply.after(count, End::Cut)
            })
        },
        "",
    ),
    (
        "silent-layer",
        |asked, content, count| {
            (is_layer(asked, content) && count == 0)
                .then(|| honest(asked, content).after(1000, End::Silence))
        },
        "",
    ),
    (
        "no-ranges",
        |asked, content, count| {
            is_layer(asked, content).then(|| {
                let mut plain = asked.clone();
                plain.headers.remove("range");
                let reply = honest(&plain, content);
                if count == 0 { reply.after(2000, End::Cut) } else { reply }
            })
        },
        "",
    ),
];

#[test]
fn what_passes_is_borne() {
    let mut engine = impatient();
    if !engine.is_silo_or_skip("dockerd waits for seconds before it asks again") {
        return;
    }
    // One of them is silent.
    engine.add_option("--registry-timeout=3000");
    engine.start_daemon();
    let server = server_of(PASSING);
    for (name, ..) in PASSING {
        let (code, stderr) = pull(&engine, &server, name);
        assert_eq!(code, 0, "{name}: {stderr}");
        let image = format!("{}/{name}", server.address());
        engine.ok(&["rmi", &image]);
        assert!(unfinished(&engine).is_empty(), "{name}: {:?}", unfinished(&engine));
    }
}

/// Faults that do not pass, and what is told about them.
const LASTING: &[(&str, Fault, &str)] = &[
    (
        "gone",
        |asked, _, _| is_manifest(asked).then(|| Reply::refusal(404, "MANIFEST_UNKNOWN")),
        ":latest not found: manifest unknown: manifest unknown",
    ),
    (
        "no-repository",
        |asked, _, _| is_manifest(asked).then(|| Reply::refusal(404, "NAME_UNKNOWN")),
        "/no-repository not found: name unknown",
    ),
    (
        "denied",
        |_, _, _| Some(Reply::refusal(403, "DENIED")),
        "/denied, repository does not exist or may require 'docker login': denied",
    ),
    (
        "rate",
        |_, _, _| Some(Reply::refusal(429, "TOOMANYREQUESTS").header("Retry-After", "86400")),
        "toomanyrequests: toomanyrequests",
    ),
    (
        "broken",
        |_, _, _| Some(Reply::new(503, "<html>")),
        "received unexpected HTTP status: 503 Service Unavailable",
    ),
    (
        "page",
        |asked, _, _| {
            is_manifest(asked)
                .then(|| Reply::new(200, "<html>").header("Content-Type", "text/html"))
        },
        "cannot parse image manifest or index",
    ),
    (
        "not-found-page",
        |_, _, _| Some(Reply::new(404, "<html>")),
        "error parsing HTTP 404 response body: \"<html>\"",
    ),
    (
        "huge",
        |asked, _, _| is_manifest(asked).then(|| Reply::new(200, vec![b' '; 5 << 20])),
        "is larger than 4194304 bytes",
    ),
    (
        "endless",
        |asked, _, _| is_manifest(asked).then(|| Reply::new(200, vec![b' '; 1 << 16]).endless()),
        "is larger than 4194304 bytes",
    ),
    (
        "endless-refusal",
        |_, _, _| Some(Reply::new(404, vec![b' '; 1 << 16]).endless()),
        "received unexpected HTTP status: 404 Not Found",
    ),
    (
        "huge-head",
        |_, _, _| Some(Reply::new(200, "{}").header("X-Long", "x".repeat(1 << 20))),
        "message head is too large",
    ),
    (
        "many-headers",
        |_, _, _| {
            Some((0..2000).fold(Reply::new(200, "{}"), |reply, number| {
                reply.header(&format!("x{number}"), "x")
            }))
        },
        "message head is too large",
    ),
    (
        "wrong-digest",
        |asked, content, _| {
            is_manifest(asked)
                .then(|| honest(asked, content).header("Docker-Content-Digest", sha256(b"x")))
        },
        "manifest verification failed for digest sha256:2d711642",
    ),
    (
        "other-bytes",
        |asked, content, _| {
            is_layer(asked, content).then(|| {
                let mut reply = honest(asked, content);
                let middle = reply.body.len() / 2;
                reply.body[middle] ^= 1;
                reply
            })
        },
        "digest",
    ),
    (
        "short-layer",
        |asked, content, _| {
            is_layer(asked, content).then(|| {
                let mut reply = honest(asked, content);
                reply.body.pop();
                reply
            })
        },
        "where its descriptor says",
    ),
    (
        "long-layer",
        |asked, content, _| {
            is_layer(asked, content).then(|| {
                let mut reply = honest(asked, content);
                reply.body.push(0);
                reply
            })
        },
        "where its descriptor says",
    ),
    (
        "endless-layer",
        |asked, content, _| is_layer(asked, content).then(|| Reply::new(200, [7; 1000]).endless()),
        "longer than the",
    ),
    (
        "lying-length",
        |asked, content, _| {
            is_layer(asked, content).then(|| Reply {
                length: Some("9223372036854775807".into()),
                ..honest(asked, content)
            })
        },
        "where its descriptor says",
    ),
    (
        "layer-gone",
        |asked, content, _| is_layer(asked, content).then(|| Reply::refusal(404, "BLOB_UNKNOWN")),
        "blob unknown",
    ),
    (
        "cut-always",
        |asked, content, _| {
            is_layer(asked, content).then(|| honest(asked, content).after(0, End::Cut))
        },
        "unexpected EOF",
    ),
    (
        "loop",
        |asked, _, _| Some(Reply::new(307, "").header("Location", asked.target.clone())),
        "stopped after 10 redirects",
    ),
    (
        "files",
        |asked, content, _| {
            is_layer(asked, content)
                .then(|| Reply::new(307, "").header("Location", "file:///etc/passwd"))
        },
        "failed to parse Location header \"file:///etc/passwd\"",
    ),
    ("nowhere", |_, _, _| Some(Reply::new(302, "")), "302 response missing Location header"),
    (
        "metadata",
        |asked, content, _| {
            is_layer(asked, content).then(|| {
                Reply::new(307, "").header("Location", "http://169.254.169.254/latest/meta-data/")
            })
        },
        "169.254.169.254",
    ),
    (
        "metadata-of-docker",
        |_, _, _| Some(Reply::new(307, "").header("Location", "http://[fe80::1]/")),
        "fe80::1",
    ),
    (
        "token-metadata",
        |_, _, _| {
            Some(
                Reply::new(401, "")
                    .header("WWW-Authenticate", "Bearer realm=\"http://169.254.169.254/token\""),
            )
        },
        "169.254.169.254",
    ),
    (
        "token-file",
        |_, _, _| {
            Some(
                Reply::new(401, "")
                    .header("WWW-Authenticate", "Bearer realm=\"file:///etc/passwd\""),
            )
        },
        "which is no URL",
    ),
    (
        "token-user",
        |_, _, _| {
            Some(
                Reply::new(401, "")
                    .header("WWW-Authenticate", "Bearer realm=\"http://me:you@127.0.0.1/\""),
            )
        },
        "which has a user in it",
    ),
    (
        "no-login",
        |_, _, _| Some(Reply::new(401, "").header("WWW-Authenticate", "Basic realm=\"x\"")),
        "no basic auth credentials",
    ),
    ("no-challenge", |_, _, _| Some(Reply::new(401, "")), "unauthorized: authentication required"),
    (
        "odd-challenge",
        |_, _, _| Some(Reply::new(401, "").header("WWW-Authenticate", "Negotiate")),
        "unauthorized: authentication required",
    ),
];

#[test]
fn what_lasts_is_told_and_leaves_nothing() {
    let mut engine = impatient();
    if !engine.is_silo_or_skip("the store is looked into") {
        return;
    }
    engine.start_daemon();
    let server = server_of(LASTING);
    for (name, _, words) in LASTING {
        let (code, stderr) = pull(&engine, &server, name);
        assert_eq!(code, 1, "{name}");
        assert!(stderr.contains(words), "{name}: {stderr}");
        let left = unfinished(&engine);
        assert!(left.iter().all(|name| name.starts_with("content/partial/")), "{name}: {left:?}");
        assert_eq!(engine.ok(&["images", "-aq"]), "", "{name}");
    }
    // Whatever is there is good: the next pull needs no more.
    let (code, stderr) = pull(&engine, &server, "honest");
    assert_eq!(code, 0, "{stderr}");
    engine.ok(&["rmi", &format!("{}/honest", server.address())]);
    assert!(unfinished(&engine).is_empty(), "{:?}", unfinished(&engine));
    let layers = fs_err::read_dir(engine.data_root().join("layers")).expect("layers").count();
    assert_eq!(layers, 0);
}

#[test]
fn silence_is_told() {
    let mut engine = impatient();
    if !engine.is_silo_or_skip("the daemon is one of ours") {
        return;
    }
    engine.add_option("--registry-timeout=1500");
    engine.start_daemon();
    let server = Scripted::start(|_| Reply::new(200, "{").after(0, End::Silence));
    let (code, stderr) = pull(&engine, &server, "silent");
    assert_eq!(code, 1);
    assert!(stderr.contains("timeout awaiting response body"), "{stderr}");
    assert!(unfinished(&engine).is_empty(), "{:?}", unfinished(&engine));
}

/// A manifest that is changed, under a tag.
fn changed(content: &mut Content, tag: &str, change: impl FnOnce(&mut serde_json::Value)) {
    let mut manifest = content.image(&[tar_of("one", 3000), tar_of("two", 4000)]);
    change(&mut manifest);
    let kind = manifest["mediaType"].as_str().unwrap_or(OCI_MANIFEST).to_owned();
    content.add_manifest(tag, &kind, manifest.to_string().into_bytes());
}

#[test]
fn documents_that_mislead_are_refused() {
    let mut content = Content::of(&[tar_of("one", 3000)]);
    let none = sha256(b"");
    let of = |number: i64| json!(number);
    changed(&mut content, "both", |manifest| manifest["manifests"] = json!([]));
    changed(&mut content, "negative", |manifest| manifest["layers"][0]["size"] = of(-1));
    changed(&mut content, "endless", |manifest| manifest["layers"][0]["size"] = of(i64::MAX));
    changed(&mut content, "overflow", |manifest| manifest["layers"][0]["size"] = json!(1e300));
    changed(&mut content, "none", |manifest| manifest["layers"][0]["size"] = of(0));
    changed(&mut content, "config", |manifest| manifest["config"]["size"] = of(i64::MAX));
    changed(&mut content, "path", |manifest| {
        manifest["layers"][0]["digest"] = json!("sha256:../x");
    });
    changed(&mut content, "fewer", |manifest| {
        manifest["layers"].as_array_mut().expect("layers").pop();
    });
    changed(&mut content, "thousands", |manifest| {
        let layer = manifest["layers"][0].clone();
        manifest["layers"] = json!(vec![layer; 5000]);
    });
    changed(&mut content, "chart", |manifest| {
        manifest["config"]["mediaType"] = json!("application/vnd.cncf.helm.config.v1+json");
    });
    // What it says it is, and what it came as.
    let manifest = content.image(&[tar_of("one", 3000)]).to_string().into_bytes();
    content.add_manifest("confused", OCI_INDEX, manifest);
    let entry = |digest: &str, size: usize, kind: &str| {
        json!({
            "mediaType": kind, "digest": digest, "size": size,
            "platform": {"os": "linux", "architecture": "amd64"},
        })
    };
    let index = |entries: serde_json::Value| {
        json!({"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": entries}).to_string()
    };
    // An index that leads to indexes, on and on.
    let mut below = index(json!([entry(&none, 0, OCI_INDEX)])).into_bytes();
    for depth in 0..8 {
        let digest = content.add_manifest(&format!("below{depth}"), OCI_INDEX, below.clone());
        below = index(json!([entry(&digest, below.len(), OCI_INDEX)])).into_bytes();
    }
    content.add_manifest("deep", OCI_INDEX, below.clone());
    // One that leads to itself, as far as a server can make it seem so.
    let digest = sha256(b"cycle");
    let cycle = index(json!([entry(&digest, 10, OCI_INDEX)])).into_bytes();
    content.manifests.insert("cycle".to_owned(), (OCI_INDEX.to_owned(), cycle.clone()));
    content.manifests.insert(digest, (OCI_INDEX.to_owned(), cycle));
    // An entry that is not what the index says.
    let as_manifest = index(json!([entry(&sha256(&below), below.len(), OCI_MANIFEST)]));
    content.add_manifest("wrong-entry", OCI_INDEX, as_manifest.into_bytes());
    // Much from little, with another digest than the configuration says.
    let mut bomb = content.image(&[tar_of("one", 3000)]);
    let zeros = silo_tests::gzip(&vec![0; 32 << 20]);
    let layer = content.add_blob("application/vnd.oci.image.layer.v1.tar+gzip", zeros);
    bomb["layers"] = json!([layer]);
    content.add_manifest("bomb", OCI_MANIFEST, bomb.to_string().into_bytes());
    let cases = [
        ("both", "it is not the \"application/vnd.oci.image.manifest.v1+json\""),
        ("negative", "cannot parse"),
        ("endless", "where its descriptor says 9223372036854775807"),
        ("overflow", "cannot parse"),
        ("none", "verification failed"),
        ("config", "is larger than"),
        ("path", "cannot parse"),
        ("fewer", "it has 2 layers where the manifest has 1"),
        ("thousands", "5000 layers, at most"),
        (
            "chart",
            "Encountered remote \"application/vnd.cncf.helm.config.v1+json\"(unknown) when fetching",
        ),
        ("confused", "it is not the \"application/vnd.oci.image.index.v1+json\""),
        ("deep", "the image's indexes are too deep"),
        ("cycle", "manifest verification failed for digest"),
        ("wrong-entry", "where the index says"),
        ("bomb", "digest"),
    ];
    let (server, _) = faulty(content, |_, _| None);
    let mut engine = impatient();
    if !engine.is_silo_or_skip("the store is looked into") {
        return;
    }
    engine.start_daemon();
    for (tag, words) in cases {
        let image = format!("{}/app:{tag}", server.address());
        let outcome = engine.docker(&["pull", "--platform", "linux/amd64", &image]);
        assert_eq!(outcome.code, 1, "{tag}");
        assert!(outcome.stderr.contains(words), "{tag}: {}", outcome.stderr);
        assert_eq!(engine.ok(&["images", "-aq"]), "", "{tag}");
        // What came of another layer stays for the next try.
        let left = unfinished(&engine);
        assert!(left.iter().all(|name| name.starts_with("content/partial/")), "{tag}: {left:?}");
    }
}

#[test]
fn credentials_go_to_their_registry_only() {
    let content = Content::of(&[tar_of("one", 3000)]);
    let (storage, _) = faulty(content.clone(), |_, _| None);
    let other = storage.address().to_owned();
    let tokens = Scripted::start(|asked| {
        if asked.header("authorization") != "Basic bWU6c2VjcmV0" {
            return Reply::new(401, r#"{"details":"incorrect username or password"}"#);
        }
        Reply::new(200, r#"{"token":"t","expires_in":300}"#)
    });
    let realm = tokens.address().to_owned();
    let (registry, _) = faulty(content, move |asked, _| {
        if asked.header("authorization") != "Bearer t" {
            let challenge = format!("Bearer realm=\"http://{realm}/token\",service=\"s\"");
            return Some(Reply::refusal(401, "UNAUTHORIZED").header("WWW-Authenticate", challenge));
        }
        asked.target.contains("/blobs/").then(|| {
            let location = format!("http://{other}{}?signature=1", asked.target);
            Reply::new(307, "").header("Location", location)
        })
    });
    let mut engine = impatient();
    if !engine.is_silo_or_skip("the registry is for one engine alone") {
        return;
    }
    engine.start_daemon();
    let image = format!("{}/app", registry.address());
    let wrong = engine.docker(&["login", "-u", "me", "-p", "wrong", registry.address()]);
    assert!(
        wrong.stderr.contains("unauthorized: incorrect username or password"),
        "{}",
        wrong.stderr
    );
    engine.ok(&["login", "-u", "me", "-p", "secret", registry.address()]);
    engine.ok(&["pull", "-q", &image]);
    assert_eq!(storage.asked().len(), 2);
    for asked in storage.asked() {
        assert_eq!(asked.header("authorization"), "", "{}", asked.target);
    }
    let log = engine.daemon_log();
    assert!(!log.contains("secret") && !log.contains("bWU6c2VjcmV0"), "{log}");
}
