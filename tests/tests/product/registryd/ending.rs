//! The server ends, has no room, or finds what an earlier one left.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::process::{Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};

use serde_json::json;

use super::{Answer, Registry, files_below, noise, sha256};

/// Tells the server to end, without waiting for it.
fn tell(registry: &Registry) {
    let server = registry.server.as_ref().expect("a server");
    let pid = rustix::process::Pid::from_child(server);
    rustix::process::kill_process(pid, rustix::process::Signal::TERM).expect("tell the server");
}

fn ended(registry: &mut Registry) -> ExitStatus {
    registry.server.take().expect("a server").wait().expect("wait for the registry")
}

/// Sends a request's head and a part of its body.
fn begin(registry: &Registry, head: &str, body: &[u8]) -> TcpStream {
    let mut stream = registry.connect();
    stream.write_all(format!("{head}\r\nHost: r\r\n\r\n").as_bytes()).unwrap();
    stream.write_all(body).unwrap();
    stream
}

/// An upload of which the server has `part` of `bytes`, in a request that is not over.
fn half_an_upload(registry: &Registry, location: &str, bytes: &[u8], part: usize) -> TcpStream {
    let head = format!("PATCH {location} HTTP/1.1\r\nContent-Length: {}", bytes.len());
    begin(registry, &head, &bytes[..part])
}

/// A download of which the client has the first bytes.
fn half_a_download(registry: &Registry, digest: &str) -> (TcpStream, Vec<u8>) {
    let mut stream = begin(registry, &format!("GET /v2/a/blobs/{digest} HTTP/1.1"), b"");
    let mut first = vec![0; 1000];
    stream.read_exact(&mut first).unwrap();
    (stream, first)
}

#[test]
fn what_is_under_way_ends_before_the_server_does() {
    let mut registry = Registry::start_with(&["--stop-timeout", "5m"]);
    let layer = noise(1, 24 << 20);
    let digest = registry.blob("a", &layer);
    let bytes = noise(2, 3_000_000);
    let location = registry.upload("a");
    let mut used = begin(&registry, "GET /v2/ HTTP/1.1", b"");
    used.read_exact(&mut [0; 12]).unwrap();
    let mut unused = registry.connect();
    let mut upload = half_an_upload(&registry, &location, &bytes, 1_500_000);
    let (mut download, mut got) = half_a_download(&registry, &digest);
    tell(&registry);
    // Connections without a request end at once, and there are no new ones.
    used.read_to_end(&mut Vec::new()).unwrap();
    unused.read_to_end(&mut Vec::new()).unwrap();
    while TcpStream::connect(&registry.address).is_ok() {}
    upload.write_all(&bytes[1_500_000..]).unwrap();
    let answer = Answer::read(upload);
    assert_eq!((answer.status, answer.header("connection")), (202, Some("close")));
    download.read_to_end(&mut got).unwrap();
    assert!(got.ends_with(&layer));
    assert!(ended(&mut registry).success());
    assert!(!registry.log().contains("cut off"), "{}", registry.log());
    assert!(files_below(&registry.root.join("registry/staging")).is_empty());
    registry.restart();
    let end = format!("{location}?digest={}", sha256(&bytes));
    assert_eq!(registry.send("PUT", &end, &[], b"").status, 201);
}

#[test]
fn clients_that_do_not_end_are_cut_off() {
    let mut registry = Registry::start_with(&["--stop-timeout", "200ms"]);
    let digest = registry.blob("a", &noise(1, 24 << 20));
    let bytes = noise(2, 300_000);
    let location = registry.upload("a");
    let upload = half_an_upload(&registry, &location, &bytes, 100_000);
    let download = half_a_download(&registry, &digest);
    tell(&registry);
    assert!(ended(&mut registry).success());
    assert!(registry.log().contains("requests were cut off"), "{}", registry.log());
    drop((upload, download));
    // What arrived is kept, and goes on.
    registry.restart();
    let range = registry.get(&location).header("range").expect("a range").to_owned();
    let last: usize = range.strip_prefix("0-").unwrap().parse().unwrap();
    let next = if last == 0 { 0 } else { last + 1 };
    assert!(next <= 100_000, "{range}");
    let end = format!("{location}?digest={}", sha256(&bytes));
    assert_eq!(registry.send("PUT", &end, &[], &bytes[next..]).status, 201);
}

#[test]
fn a_new_server_counts_and_clears_what_an_earlier_one_left() {
    let mut registry = Registry::start_with(&["--max-uploads", "2"]);
    let uploads = [registry.upload("a"), registry.upload("a")];
    registry.kill();
    let below = |name: &str| registry.root.join("registry").join(name);
    let nameless = "01234567-89ab-4cde-8f01-23456789abcd";
    fs_err::write(below("staging").join(nameless), "part of a blob").unwrap();
    // Its repository was not written yet.
    fs_err::create_dir(below("uploads").join(nameless)).unwrap();
    fs_err::write(below("uploads").join(nameless).join("data"), "").unwrap();
    registry.restart();
    let below = |name: &str| registry.root.join("registry").join(name);
    assert!(files_below(&below("staging")).is_empty());
    assert!(!below("uploads").join(nameless).exists());
    assert_eq!(registry.send("POST", "/v2/a/blobs/uploads/", &[], b"").status, 429);
    assert_eq!(registry.send("DELETE", &uploads[0], &[], b"").status, 204);
    registry.upload("a");
}

#[test]
fn one_transfer_at_a_time() {
    let options = ["--max-transfers", "1", "--head-timeout", "2s"];
    let registry = Registry::start_with(&options);
    let (one, two) = (registry.upload("a"), registry.upload("a"));
    let bytes = noise(1, 4 << 20);
    let mut first = half_an_upload(&registry, &one, &bytes, 3 << 20);
    // It has its turn when something of it is there.
    while registry.get(&one).header("range") == Some("0-0") {}
    let answer = registry.send("PATCH", &two, &[], b"x");
    assert_eq!((answer.status, answer.code()), (429, "TOOMANYREQUESTS".into()));
    first.write_all(&bytes[3 << 20..]).unwrap();
    let mut start = [0; 12];
    first.read_exact(&mut start).unwrap();
    assert_eq!(&start, b"HTTP/1.1 202");
    assert_eq!(registry.send("PATCH", &two, &[], b"x").status, 202);
}

/// A small file system, mounted until dropped.
struct Small(tempfile::TempDir);

impl Small {
    fn mount() -> Self {
        let directory = tempfile::Builder::new().prefix("silo-registry-").tempdir().unwrap();
        let path = directory.path().to_str().unwrap();
        super::run("mount", &["-t", "tmpfs", "-o", "size=4m", "none", path]);
        Self(directory)
    }
}

impl Drop for Small {
    fn drop(&mut self) {
        // Lazily: for a moment, new mount namespaces of others have it as well.
        let done = Command::new("umount").arg("-l").arg(self.0.path()).status();
        assert!(done.is_ok_and(|status| status.success()), "umount {}", self.0.path().display());
    }
}

#[test]
fn a_full_disk_is_told_and_leaves_nothing() {
    let disk = Small::mount();
    let root = disk.0.path().join("data");
    let directory = tempfile::Builder::new().prefix("silo-registry-").tempdir().unwrap();
    let registry = Registry::start_at(directory, root.clone(), &[]);
    let image = registry.image("a", "1", &noise(1, 100_000), &json!({}));
    let bytes = noise(2, 8 << 20);
    let whole = format!("/v2/a/blobs/uploads/?digest={}", sha256(&bytes));
    for round in 0..3 {
        let location = registry.upload("a");
        for (method, target) in [("PATCH", &location), ("POST", &whole)] {
            let answer = registry.send(method, target, &[], &bytes);
            assert_eq!(answer.status, 507, "round {round}: {}", answer.text());
            let said =
                answer.json()["errors"][0]["message"].as_str().unwrap_or_default().to_owned();
            assert!(said.starts_with("no space left on device: the registry's disk is"), "{said}");
        }
        assert_eq!(registry.get(&location).status, 404);
    }
    assert!(files_below(&root.join("registry/uploads")).is_empty());
    assert!(files_below(&root.join("registry/staging")).is_empty());
    // What is smaller finds its place.
    registry.image("a", "2", &noise(3, 1 << 20), &json!({}));
    let answer = registry.get("/v2/a/manifests/1");
    assert_eq!(answer.header("docker-content-digest"), Some(&image[..]));
}

#[test]
fn what_was_pushed_is_there_though_others_collect_and_are_killed() {
    let registry = Registry::start();
    let done = AtomicBool::new(false);
    let blobs = registry.root.join("registry/blobs/sha256");
    std::thread::scope(|scope| {
        let collectors = scope.spawn(|| {
            let mut killed = 0;
            for round in 0_u32.. {
                if done.load(Ordering::Relaxed) {
                    break;
                }
                let before = files_below(&blobs).len();
                let mut collection = Command::new(silo_tests::silo_binary())
                    .args(["registry", "gc", "--gc-grace", "0s", "--root"])
                    .arg(&registry.root)
                    .stdout(Stdio::null())
                    .spawn()
                    .unwrap();
                // Every other one is killed when something has gone.
                if round % 2 == 1 {
                    while collection.try_wait().unwrap().is_none()
                        && files_below(&blobs).len() >= before
                    {}
                    killed += u32::from(collection.try_wait().unwrap().is_none());
                    collection.kill().unwrap();
                }
                collection.wait().unwrap();
            }
            killed
        });
        let pushers: Vec<_> = (0..2_u8)
            .map(|pusher| {
                let registry = &registry;
                scope.spawn(move || {
                    let name = format!("p{pusher}");
                    for round in 0..6_u8 {
                        // The others push the same, and what this one has just given up.
                        push_until_taken(registry, &name, &[&b"layer"[..], &[round % 4]].concat());
                    }
                })
            })
            .collect();
        for pusher in pushers {
            pusher.join().unwrap();
        }
        done.store(true, Ordering::Relaxed);
        collectors.join().unwrap();
    });
    registry.collect();
    assert!(files_below(&blobs).is_empty());
}

/// Pushes an image; when it was taken, all of it has to be there. Deletes it then.
fn push_until_taken(registry: &Registry, name: &str, layer: &[u8]) {
    let digests = loop {
        let digests = [registry.blob(name, b"{}"), registry.blob(name, layer)];
        let manifest = json!({
            "schemaVersion": 2, "mediaType": super::OCI_MANIFEST,
            "config": { "mediaType": "application/vnd.x", "digest": digests[0], "size": 2 },
            "layers": [{ "mediaType": "x/y", "digest": digests[1], "size": layer.len() }],
        });
        let answer = registry.manifest(name, "v", manifest.to_string().as_bytes());
        // Without time between a blob and its manifest, blobs may be collected before it comes.
        match (answer.status, answer.header("docker-content-digest")) {
            (201, Some(digest)) => {
                break [digest.to_owned(), digests[0].clone(), digests[1].clone()];
            }
            (status, _) => {
                assert_eq!((status, answer.code()), (404, "MANIFEST_BLOB_UNKNOWN".into()));
            }
        }
    };
    for (digest, bytes) in digests[1..].iter().zip([&b"{}"[..], layer]) {
        let answer = registry.get(&format!("/v2/{name}/blobs/{digest}"));
        assert_eq!((answer.status, &answer.body[..]), (200, bytes), "{}", registry.log());
    }
    assert_eq!(registry.get(&format!("/v2/{name}/manifests/v")).status, 200);
    let target = format!("/v2/{name}/manifests/{}", digests[0]);
    assert_eq!(registry.send("DELETE", &target, &[], b"").status, 202);
}

#[test]
fn a_collection_that_is_killed_is_done_by_the_next() {
    let registry = Registry::start();
    let kept = registry.image("kept", "1", b"kept", &json!({}));
    for round in 0..6_u8 {
        for number in 0..12_u8 {
            registry.blob("a", &[round, number]);
        }
        let blobs = registry.root.join("registry/blobs/sha256");
        let mut collection = Command::new(silo_tests::silo_binary())
            .args(["registry", "gc", "--gc-grace", "0s", "--root"])
            .arg(&registry.root)
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        // At another moment each time: with so many files gone.
        let left = 15 - 2 * usize::from(round);
        while collection.try_wait().unwrap().is_none() && files_below(&blobs).len() > left {}
        collection.kill().unwrap();
        collection.wait().unwrap();
        // A push of what is being removed is a push of it.
        let digest = registry.blob("b", &[round, 11]);
        assert_eq!(registry.get(&format!("/v2/b/blobs/{digest}")).body, [round, 11]);
        registry.collect();
        let answer = registry.get("/v2/kept/manifests/1");
        assert_eq!(answer.header("docker-content-digest"), Some(&kept[..]));
        assert_eq!(files_below(&blobs).len(), 3, "manifest, configuration and layer");
    }
}
