//! The daemon, or its client, is killed in the middle of pulls and pushes.

use std::collections::BTreeMap;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::process::{Child, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, channel};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use silo_tests::{Asked, Content, End, Engine, Registry, Scripted, sha256, tar_of};

use crate::crash::{Random, entries};

/// How often: more with this variable.
fn kills() -> usize {
    std::env::var("SILO_TEST_KILLS").ok().and_then(|text| text.parse().ok()).unwrap_or(6)
}

/// An image of four layers that are their own.
fn content(seed: usize) -> Content {
    let layers: Vec<Vec<u8>> = [300_000, 900_000, 1_500_000, 2_100_000]
        .iter()
        .map(|size| tar_of(&format!("file{seed}of{size}"), size + seed))
        .collect();
    Content::of(&layers)
}

fn is_layer(asked: &Asked, content: &Content) -> bool {
    let blob = asked.path().rsplit('/').next().unwrap_or_default();
    asked.method == "GET" && content.blobs.get(blob).is_some_and(|bytes| bytes[0] == 0x1f)
}

/// A registry that, unless it is calm, stops at some byte of most layers, and says when.
fn stopping(content: &Arc<Mutex<Content>>) -> (Scripted, Arc<AtomicBool>, Receiver<()>) {
    let calm = Arc::new(AtomicBool::new(false));
    let (sender, stopped) = channel();
    let (is_calm, content) = (Arc::clone(&calm), Arc::clone(content));
    let random = Mutex::new(Random::new());
    let server = Scripted::start(move |asked| {
        let mut content = content.lock().expect("content");
        let reply = content.answer(asked);
        if is_calm.load(Ordering::Relaxed) || !is_layer(asked, &content) {
            return reply;
        }
        let length = reply.body.len() as u64;
        let limit = random.lock().expect("numbers").below(length + length / 3);
        // Nobody may listen any more.
        let _gone = sender.send(());
        if limit >= length {
            return reply;
        }
        reply.after(usize::try_from(limit).expect("a length"), End::Silence)
    });
    (server, calm, stopped)
}

fn pull(engine: &Engine, name: &str) -> Child {
    let mut command = engine.docker_command();
    command.args(["pull", name]).stdout(Stdio::null()).stderr(Stdio::null());
    command.spawn().expect("spawn docker")
}

/// What has come in part, by digests.
fn partial(engine: &Engine) -> BTreeMap<String, u64> {
    let folder = engine.data_root().join("content/partial");
    let size = |name: &String| fs_err::metadata(folder.join(name)).expect("a file").len();
    entries(&folder).into_iter().map(|name| (format!("sha256:{name}"), size(&name))).collect()
}

/// Whether everything in the store is what its name says, and nothing is left of what was not
/// finished.
#[track_caller]
fn checks_clean(engine: &Engine) {
    let data = engine.data_root();
    for name in entries(&data.join("content/blobs/sha256")) {
        let bytes = fs_err::read(data.join("content/blobs/sha256").join(&name)).expect("a blob");
        assert_eq!(sha256(&bytes), format!("sha256:{name}"));
    }
    assert_eq!(entries(&data.join("content/ingest")), Vec::<String>::new());
    for name in entries(&data.join("layers")) {
        let record = data.join("layers").join(&name).join("layer.json");
        assert!(record.exists(), "{name} is no layer");
    }
    let saved = engine.scratch().join("saved.tar");
    for image in engine.ok(&["images", "-q", "--no-trunc"]).lines() {
        // Reads every layer, and checks its digest.
        engine.ok(&["save", "-o", saved.to_str().expect("UTF-8"), image]);
    }
}

#[test]
fn kills_in_the_middle_of_pulls_leave_what_came() {
    let mut engine = Engine::prepare();
    if !engine.is_silo_or_skip("kills Silo's own processes") {
        return;
    }
    engine.start_daemon();
    let content = Arc::new(Mutex::new(content(0)));
    let (server, calm, stopped) = stopping(&content);
    let name = format!("{}/app:latest", server.address());
    let layers_of = |repository: &str| {
        let content = content.lock().expect("content");
        let path = format!("/v2/{repository}/");
        let mut asked = server.asked();
        asked.retain(|asked| asked.path().starts_with(&path) && is_layer(asked, &content));
        asked
    };
    let mut random = Random::new();
    let (mut pulled, mut resumed) = (0, 0);
    // A busy host may be too slow to bring anything before the kills: then there are more.
    for round in 0.. {
        if round >= kills() && pulled > 0 && resumed > 0 {
            break;
        }
        let mut client = pull(&engine, &name);
        // It is done without if everything is here.
        while stopped.try_recv().is_err() && client.try_wait().expect("docker").is_none() {
            std::thread::yield_now();
        }
        // The random moment is the point: nothing is waited for but time.
        let until = Instant::now() + Duration::from_micros(random.below(30_000));
        while Instant::now() < until {
            std::thread::yield_now();
        }
        engine.kill_daemon();
        client.wait().expect("docker");
        let before = partial(&engine);
        engine.start_daemon();
        checks_clean(&engine);
        if engine.docker(&["image", "inspect", &name]).code == 0 {
            pulled += 1;
            engine.ok(&["rmi", &name]);
            continue;
        }
        // The next try asks for what is not on the disk, and for that alone. It has a name of its
        // own, since what a dead engine asked for may be read late.
        let repository = format!("again{round}");
        let again = format!("{}/{repository}:latest", server.address());
        let last = round + 1 >= kills() || random.below(3) == 0;
        calm.store(last, Ordering::Relaxed);
        let mut client = pull(&engine, &again);
        let mut layers = Vec::new();
        while layers.is_empty() && client.try_wait().expect("docker").is_none() {
            std::thread::yield_now();
            layers = layers_of(&repository);
        }
        if last {
            assert!(client.wait().expect("docker").success());
            layers = layers_of(&repository);
            assert!(layers.len() <= 4, "a layer was asked for twice");
        }
        for asked in &layers {
            let digest = asked.path().rsplit('/').next().expect("a digest");
            let have = before.get(digest).copied().unwrap_or(0);
            let range = if have == 0 { String::new() } else { format!("bytes={have}-") };
            assert_eq!(asked.header("range"), range, "{digest} in round {round}");
            resumed += usize::from(have > 0);
        }
        calm.store(false, Ordering::Relaxed);
        if last {
            checks_clean(&engine);
            assert!(partial(&engine).is_empty());
            engine.ok(&["rmi", &again]);
            pulled += 1;
        } else {
            engine.kill_daemon();
            client.wait().expect("docker");
            engine.start_daemon();
            // It may have come after all.
            engine.docker(&["rmi", &again]);
        }
        while stopped.try_recv().is_ok() {}
    }
    eprintln!("{pulled} images came, {resumed} layers went on where they were");
}

#[test]
fn a_client_that_goes_away_leaves_what_came() {
    let engine = Engine::start_empty();
    if !engine.is_silo_or_skip("looks at Silo's own files") {
        return;
    }
    let content = Arc::new(Mutex::new(Content::of(&[tar_of("file", 1_000_000)])));
    let known = Arc::clone(&content);
    let calm = Arc::new(AtomicBool::new(false));
    let is_calm = Arc::clone(&calm);
    let server = Scripted::start(move |asked| {
        let mut content = known.lock().expect("content");
        let reply = content.answer(asked);
        let stops = is_layer(asked, &content) && !is_calm.load(Ordering::Relaxed);
        if stops { reply.after(300_000, End::Silence) } else { reply }
    });
    let name = format!("{}/app:latest", server.address());
    let mut client = pull(&engine, &name);
    while !partial(&engine).values().any(|size| *size == 300_000) {
        assert!(client.try_wait().expect("docker").is_none(), "docker ended");
        std::thread::yield_now();
    }
    client.kill().expect("kill docker");
    client.wait().expect("docker");
    calm.store(true, Ordering::Relaxed);
    engine.ok(&["pull", &name]);
    let content = content.lock().expect("content");
    let ranges: Vec<String> = server
        .asked()
        .iter()
        .filter(|asked| is_layer(asked, &content))
        .map(|asked| asked.header("range").to_owned())
        .collect();
    assert_eq!(ranges, ["", "bytes=300000-"]);
    assert!(partial(&engine).is_empty());
    checks_clean(&engine);
}

/// Files of a registry's blobs: name, and what changes when one is written anew.
fn blobs(registry: &Registry, content: &Content) -> BTreeMap<String, (u64, i64, i64)> {
    let mut found = BTreeMap::new();
    for digest in content.blobs.keys() {
        let path = registry.blob(digest);
        let Ok(metadata) = fs_err::metadata(&path) else { continue };
        // Nothing is there in part.
        assert_eq!(&sha256(&fs_err::read(&path).expect("a blob")), digest);
        let what = (metadata.ino(), metadata.mtime(), metadata.mtime_nsec());
        found.insert(digest.clone(), what);
    }
    found
}

/// Whether a tag is there.
fn has_tag(registry: &Registry, content: &Content, repository: &str) -> bool {
    let any = content.blobs.keys().next().expect("a blob");
    let mut root = registry.blob(any);
    // <root>/blobs/sha256/<2>/<64>/data
    for _ in 0..5 {
        root.pop();
    }
    let tag = root.join("repositories").join(repository).join("_manifests/tags/1/current/link");
    Path::new(&tag).exists()
}

#[test]
fn kills_in_the_middle_of_pushes_leave_nothing_half() {
    let Some(registry) = Registry::start_or_skip() else { return };
    let mut engine = Engine::prepare();
    if !engine.is_silo_or_skip("kills Silo's own processes") {
        return;
    }
    engine.start_daemon();
    let mut random = Random::new();
    let (mut round, mut image, mut kept, mut duration) = (0, 0, 0, 0);
    while round < kills() {
        image += 1;
        let content = content(image * 512);
        let source = Arc::new(Mutex::new(content.clone()));
        let server = Scripted::start(move |asked| source.lock().expect("content").answer(asked));
        let from = format!("{}/app:latest", server.address());
        let repository = format!("app{image}");
        let name = registry.name(&format!("{repository}:1"));
        engine.ok(&["pull", "-q", &from]);
        engine.ok(&["tag", &from, &name]);
        // The first shows how long one takes.
        while duration > 0 && round < kills() {
            round += 1;
            let before = blobs(&registry, &content);
            let mut client = engine
                .docker_command()
                .args(["push", &name])
                .stdout(Stdio::null())
                .stderr(Stdio::null())
                .spawn()
                .expect("spawn docker");
            // The random moment is the point: nothing is waited for but time.
            let until = Instant::now() + Duration::from_micros(random.below(duration));
            while let Some(left) = until.checked_duration_since(Instant::now()) {
                std::thread::park_timeout(left);
            }
            engine.kill_daemon();
            client.wait().expect("docker");
            let after = blobs(&registry, &content);
            for (digest, what) in &before {
                // What was there did not go there again.
                assert_eq!(after.get(digest), Some(what), "round {round}");
            }
            if has_tag(&registry, &content, &repository) {
                assert_eq!(after.len(), content.blobs.len());
            }
            engine.start_daemon();
            checks_clean(&engine);
            kept += after.len() - before.len();
            if after.len() == content.blobs.len() {
                break;
            }
        }
        let before = blobs(&registry, &content);
        let start = Instant::now();
        engine.ok(&["push", &name]);
        duration = duration.max(u64::try_from(start.elapsed().as_micros()).expect("a short time"));
        let after = blobs(&registry, &content);
        assert_eq!(after.len(), content.blobs.len());
        assert!(before.iter().all(|(digest, what)| after[digest] == *what));
        // It is whole: it comes back.
        engine.ok(&["rmi", &from, &name]);
        engine.ok(&["pull", "-q", &name]);
        checks_clean(&engine);
        engine.ok(&["rmi", &name]);
    }
    eprintln!("{image} images, {kept} blobs went out in pushes that were killed");
}
