//! Pushes.

use std::collections::BTreeMap;
use std::sync::Mutex;

use silo_tests::{Asked, Content, Engine, Outcome, Reply, Scripted, feed, sha256, tar_of};

use super::{faulty, impatient, unfinished};

/// What a server answers in place of the right thing; `None` for the right thing. The number is
/// how often this was asked before.
type Fault = fn(&Asked, &Content, usize) -> Option<Reply>;

fn is_upload(asked: &Asked) -> bool {
    asked.target.contains("/blobs/uploads/")
}

/// Whether bytes of a blob come.
fn has_bytes(asked: &Asked) -> bool {
    is_upload(asked) && matches!(asked.method.as_str(), "PUT" | "PATCH") && !asked.body.is_empty()
}

fn begins(asked: &Asked) -> bool {
    is_upload(asked) && asked.method == "POST"
}

fn at(location: &str) -> Reply {
    Reply::new(202, "").header("Location", location)
}

/// A server that does a wrong thing in each of its repositories, and an engine with an image.
fn prepared(
    cases: &'static [(&'static str, Fault, &'static str)],
) -> Option<(Engine, Scripted, std::sync::Arc<Mutex<Content>>)> {
    let counts: Mutex<BTreeMap<String, usize>> = Mutex::default();
    let (server, content) = faulty(Content::default(), move |asked, content| {
        if asked.path() == "/token" {
            return Some(Reply::new(200, r#"{"token":"good","expires_in":300}"#));
        }
        let name = asked.target.split('/').nth(2).unwrap_or_default();
        let (_, fault, _) = cases.iter().find(|(case, ..)| *case == name)?;
        let mut counts = counts.lock().expect("counts");
        // Each upload has a name of its own.
        let path = asked.path().split("/uploads/").next().unwrap_or_default();
        let count = counts.entry(format!("{} {path}", asked.method)).or_default();
        let number = *count;
        *count += usize::from(!matches!(asked.method.as_str(), "GET" | "DELETE"));
        fault(asked, content, number)
    });
    let mut engine = impatient();
    if !engine.is_silo_or_skip("dockerd waits for seconds before it asks again") {
        return None;
    }
    engine.start_daemon();
    let mut import = engine.docker_command();
    let imported = feed(import.args(["import", "-", "app"]), &tar_of("file", 300_000));
    assert_eq!(imported.code, 0, "{}", imported.stderr);
    Some((engine, server, content))
}

fn push(engine: &Engine, server: &Scripted, name: &str) -> Outcome {
    let image = format!("{}/{name}:{name}", server.address());
    engine.ok(&["tag", "app", &image]);
    engine.docker(&["push", &image])
}

/// Faults that pass: after them the image is there.
const PASSING: &[(&str, Fault, &str)] = &[
    ("busy", |_, _, count| (count < 2).then(|| Reply::new(503, "")), ""),
    (
        "lost",
        |asked, _, count| {
            (has_bytes(asked) && count == 0).then(|| Reply::refusal(404, "BLOB_UPLOAD_UNKNOWN"))
        },
        "",
    ),
    ("cut", |asked, _, count| (has_bytes(asked) && count < 2).then(Reply::none), ""),
    (
        "token",
        |asked, _, _| {
            let has_token = asked.header("authorization") == "Bearer good";
            let realm = format!("Bearer realm=\"http://{}/token\"", asked.header("host"));
            (!has_token)
                .then(|| Reply::refusal(401, "UNAUTHORIZED").header("WWW-Authenticate", realm))
        },
        "",
    ),
    (
        "token-in-the-middle",
        |asked, _, count| {
            let realm = format!("Bearer realm=\"http://{}/token\"", asked.header("host"));
            (has_bytes(asked) && count == 0)
                .then(|| Reply::refusal(401, "UNAUTHORIZED").header("WWW-Authenticate", realm))
        },
        "",
    ),
    (
        "late-manifest",
        |asked, _, count| {
            (asked.target.contains("/manifests/") && count < 2).then(|| Reply::new(500, ""))
        },
        "",
    ),
];

#[test]
fn what_passes_is_borne() {
    let Some((engine, server, content)) = prepared(PASSING) else { return };
    for (name, ..) in PASSING {
        content.lock().expect("content").blobs.clear();
        let outcome = push(&engine, &server, name);
        assert_eq!(outcome.code, 0, "{name}: {}", outcome.stderr);
        assert!(outcome.stdout.contains(&format!("{name}: digest: sha256:")), "{}", outcome.stdout);
        assert_eq!(content.lock().expect("content").blobs.len(), 2, "{name}");
        assert!(unfinished(&engine).is_empty(), "{name}");
    }
    let again = push(&engine, &server, "late-manifest");
    assert!(again.stdout.contains("Layer already exists"), "{}", again.stdout);
}

/// Faults that do not pass, and what is told about them.
const LASTING: &[(&str, Fault, &str)] = &[
    ("denied", |_, _, _| Some(Reply::refusal(403, "DENIED")), "denied: denied"),
    (
        "no-location",
        |asked, _, _| begins(asked).then(|| Reply::new(202, "")),
        "the location of the upload is \"\"",
    ),
    (
        "location-file",
        |asked, _, _| begins(asked).then(|| at("file:///etc/passwd")),
        "the location of the upload is \"file:///etc/passwd\"",
    ),
    (
        "location-metadata",
        |asked, _, _| begins(asked).then(|| at("http://169.254.169.254/x")),
        "link-local addresses are for this host alone",
    ),
    (
        "redirect",
        |asked, _, _| begins(asked).then(|| Reply::new(307, "").header("Location", "/x")),
        "received unexpected HTTP status: 307 Temporary Redirect",
    ),
    (
        "lost-always",
        |asked, _, _| has_bytes(asked).then(|| Reply::refusal(404, "BLOB_UPLOAD_UNKNOWN")),
        "blob upload unknown",
    ),
    // It has some of the upload, so it says, and knows nothing of it.
    (
        "liar",
        |asked, _, _| match asked.method.as_str() {
            "GET" if is_upload(asked) => Some(Reply::new(204, "").header("Range", "0-99")),
            _ => has_bytes(asked).then(|| Reply::refusal(404, "BLOB_UPLOAD_UNKNOWN")),
        },
        "blob upload unknown",
    ),
    (
        "full",
        |asked, _, _| has_bytes(asked).then(|| Reply::new(507, "")),
        "received unexpected HTTP status: 507 Insufficient Storage",
    ),
    (
        "digest",
        |asked, _, _| has_bytes(asked).then(|| Reply::refusal(400, "DIGEST_INVALID")),
        "digest invalid",
    ),
    (
        "no-login",
        |_, _, _| Some(Reply::new(401, "").header("WWW-Authenticate", "Basic realm=\"x\"")),
        "no basic auth credentials",
    ),
    (
        "wrong-digest",
        |asked, _, _| {
            let is_manifest = asked.method == "PUT" && asked.target.contains("/manifests/");
            is_manifest.then(|| Reply::new(201, "").header("Docker-Content-Digest", sha256(b"x")))
        },
        "manifest verification failed for digest sha256:",
    ),
    (
        "manifest-refused",
        |asked, _, _| {
            asked.target.contains("/manifests/").then(|| Reply::refusal(400, "MANIFEST_INVALID"))
        },
        "manifest invalid",
    ),
];

#[test]
fn what_lasts_is_told() {
    let Some((engine, server, content)) = prepared(LASTING) else { return };
    for (name, _, words) in LASTING {
        content.lock().expect("content").blobs.clear();
        let outcome = push(&engine, &server, name);
        assert_eq!(outcome.code, 1, "{name}: {}", outcome.stdout);
        assert!(outcome.stderr.contains(words), "{name}: {}", outcome.stderr);
        assert!(content.lock().expect("content").manifests.is_empty(), "{name}");
        assert!(unfinished(&engine).is_empty(), "{name}");
    }
    let asked = server.asked().len();
    assert!(asked < 400, "{asked} requests");
    // The image is as it was.
    let outcome = push(&engine, &server, "honest");
    assert_eq!(outcome.code, 0, "{}", outcome.stderr);
}

#[test]
fn uploads_elsewhere_come_without_credentials_and_mounts_may_be_refused() {
    let elsewhere = std::sync::Arc::new(Mutex::new(Content::default()));
    let shared = std::sync::Arc::clone(&elsewhere);
    let storage = Scripted::start(move |asked| shared.lock().expect("content").answer(asked));
    let there = storage.address().to_owned();
    let mine = std::sync::Arc::clone(&elsewhere);
    let registry = Scripted::start(move |asked| {
        if asked.header("authorization") != "Basic bWU6c2VjcmV0" {
            return Reply::new(401, "").header("WWW-Authenticate", "Basic realm=\"x\"");
        }
        let mut reply = mine.lock().expect("content").answer(asked);
        if begins(asked) && reply.status == 202 {
            let location = reply.headers.iter().find(|(name, _)| name == "Location");
            let location = location.map(|(_, path)| format!("http://{there}{path}"));
            reply = reply.header("Location", location.expect("a location"));
        }
        reply
    });
    let mut engine = impatient();
    if !engine.is_silo_or_skip("dockerd sends other requests") {
        return;
    }
    engine.start_daemon();
    engine.ok(&["login", "-u", "me", "-p", "secret", registry.address()]);
    let mut import = engine.docker_command();
    feed(import.args(["import", "-", "app"]), &tar_of("file", 10_000));
    let outcome = push(&engine, &registry, "one");
    assert_eq!(outcome.code, 0, "{}", outcome.stderr);
    // The second repository is offered a mount, which the registry answers with an upload.
    elsewhere.lock().expect("content").blobs.clear();
    let outcome = push(&engine, &registry, "two");
    assert_eq!(outcome.code, 0, "{}", outcome.stderr);
    assert!(outcome.stdout.contains("Pushed"), "{}", outcome.stdout);
    assert!(registry.asked().iter().any(|asked| asked.field("mount").is_some()));
    assert!(!storage.asked().is_empty());
    for asked in storage.asked() {
        assert_eq!(asked.header("authorization"), "", "{} {}", asked.method, asked.target);
    }
}
