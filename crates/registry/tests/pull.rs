//! Pulls from registries that misbehave: everything ends right, or fails with a clear error and
//! nothing half-stored.
#![allow(clippy::unwrap_used, reason = "a test")]

mod ranges;
mod server;

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use server::{Asked, Content, Reply, Server, image, tar, unknown};
use silo_docker::stream::StreamMessage;
use silo_oci::image::{Descriptor, Index, digest, media, to_bytes};
use silo_oci::platform::Platform;
use silo_oci::reference::Reference;
use silo_registry::{Action, Config, Credentials, Progress, Puller, Registries, Retry};
use silo_store::{Image, Store};
use silo_types::error::chain;

struct Place {
    directory: tempfile::TempDir,
    store: Store,
    lines: Arc<Mutex<Vec<StreamMessage>>>,
}

impl Place {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let store = Store::open(directory.path()).unwrap();
        Self { directory, store, lines: Arc::default() }
    }

    /// Pulls `app:latest` of a server.
    fn pull(&self, server: &Server) -> Result<Image, String> {
        self.pull_as(server, &Credentials::default(), None)
    }

    fn pull_as(
        &self,
        server: &Server,
        credentials: &Credentials,
        platform: Option<&str>,
    ) -> Result<Image, String> {
        self.pull_by(&server.address, credentials, platform, config())
    }

    fn pull_by(
        &self,
        address: &str,
        credentials: &Credentials,
        platform: Option<&str>,
        config: Config,
    ) -> Result<Image, String> {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .enable_all()
            .build()
            .unwrap();
        let registries = Arc::new(Registries::new(config));
        let name = format!("{address}/app:latest");
        let reference = Reference::parse_normalized(&name).unwrap();
        let platform: Option<Platform> = platform.map(|text| text.parse().unwrap());
        let lines = Arc::clone(&self.lines);
        let progress = Progress::new(move |line| lines.lock().unwrap().push(line));
        let puller = Puller::new(self.store.clone(), 3, 26100);
        runtime.block_on(async {
            let pulled = async {
                let repository =
                    Arc::new(registries.repository(&reference, Action::Pull, credentials)?);
                puller.begin(repository, &reference, platform.as_ref()).await?.run(&progress).await
            };
            pulled.await.map(|pulled| pulled.image).map_err(|error| chain(&error))
        })
    }

    /// The states of layers that were told.
    fn states(&self) -> Vec<String> {
        let lines = self.lines.lock().unwrap();
        let mut states: Vec<String> = lines.iter().map(|line| line.status.clone()).collect();
        states.dedup();
        states
    }

    fn files(&self, directory: &str) -> Vec<String> {
        let entries = fs_err::read_dir(self.directory.path().join(directory)).unwrap();
        entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
    }

    /// Nothing of an image is there.
    fn is_empty(&self) -> bool {
        self.store.images().unwrap().is_empty()
            && self.files("layers").is_empty()
            && self.files("content/ingest").is_empty()
    }
}

fn config() -> Config {
    Config {
        certificates: Vec::new(),
        retry: Retry {
            attempts: 4,
            first: Duration::from_millis(1),
            longest: Duration::from_millis(50),
        },
        stall: Duration::from_secs(5),
        ..Config::default()
    }
}

fn content(sizes: &[usize]) -> Content {
    let mut content = Content::default();
    let tars: Vec<Vec<u8>> = sizes
        .iter()
        .enumerate()
        .map(|(number, size)| tar(&format!("file{number}"), *size))
        .collect();
    image(&mut content, "linux/amd64", &tars);
    content
}

fn is_layer(asked: &Asked, content: &Content) -> bool {
    let path = asked.path.split('?').next().unwrap_or_default();
    let blob = path.rsplit('/').next().unwrap_or_default();
    content.blobs.get(blob).is_some_and(|bytes| bytes.starts_with(&[0x1f, 0x8b]))
}

#[test]
fn an_image_comes_and_is_there() {
    let content = content(&[10, 300_000]);
    let server = Server::start(move |asked| content.answer(asked));
    let place = Place::new();
    let image = place.pull(&server).unwrap();
    assert_eq!(image.chain.len(), 2);
    let file = place.store.layer_files(&image.chain[1]).join("file1");
    assert_eq!(fs_err::metadata(file).unwrap().len(), 300_000);
    let states = place.states();
    for state in [
        "Pulling fs layer",
        "Downloading",
        "Verifying Checksum",
        "Download complete",
        "Extracting",
        "Pull complete",
    ] {
        assert!(states.iter().any(|told| told == state), "{state}: {states:?}");
    }
    assert!(place.files("content/partial").is_empty());
    // Once more: everything is there.
    let blobs = server.asked_for("/blobs/").len();
    place.lines.lock().unwrap().clear();
    place.pull(&server).unwrap();
    assert_eq!(server.asked_for("/blobs/").len(), blobs);
    assert!(place.states().is_empty(), "{:?}", place.states());
}

#[test]
fn a_broken_download_goes_on_where_it_was() {
    let content = content(&[400_000]);
    let tries = AtomicUsize::new(0);
    let served = content.clone();
    let server = Server::start(move |asked| {
        let reply = served.answer(asked);
        if !is_layer(asked, &served) || tries.fetch_add(1, Ordering::Relaxed) >= 3 {
            return reply;
        }
        let half = reply.body.len() / 2;
        reply.cut(half)
    });
    let place = Place::new();
    place.pull(&server).unwrap();
    let layers: Vec<Asked> =
        server.asked().into_iter().filter(|asked| is_layer(asked, &content)).collect();
    assert_eq!(layers.len(), 4);
    assert!(layers[0].header("range").is_empty());
    let starts: Vec<usize> = layers[1..]
        .iter()
        .map(|asked| asked.header("range")["bytes=".len()..].trim_end_matches('-').parse().unwrap())
        .collect();
    assert!(starts[0] > 100_000 && starts.is_sorted(), "{starts:?}");
}

#[test]
fn a_server_without_ranges_sends_all_again() {
    let content = content(&[200_000]);
    let tries = AtomicUsize::new(0);
    let server = Server::start(move |asked| {
        let mut plain = asked.clone();
        plain.headers.remove("range");
        let reply = content.answer(&plain);
        let first = is_layer(asked, &content) && tries.fetch_add(1, Ordering::Relaxed) == 0;
        if first { reply.cut(100_000) } else { reply }
    });
    let place = Place::new();
    place.pull(&server).unwrap();
}

#[test]
fn what_came_is_there_for_the_next_try() {
    let content = content(&[400_000]);
    let served = content.clone();
    let broken = Server::start(move |asked| {
        let reply = served.answer(asked);
        // All of it breaks off at the same byte, so that nothing new comes.
        if is_layer(asked, &served) {
            return if asked.header("range").is_empty() {
                reply.cut(250_000)
            } else {
                reply.cut(0)
            };
        }
        reply
    });
    let served = content.clone();
    let good = Server::start(move |asked| served.answer(asked));
    let mut place = Place::new();
    let error = place.pull(&broken).unwrap_err();
    assert!(error.contains("unexpected EOF"), "{error}");
    assert!(place.is_empty());
    assert_eq!(place.files("content/partial").len(), 1);
    // The process ends and another begins.
    let directory = place.directory;
    drop(place.store);
    place =
        Place { store: Store::open(directory.path()).unwrap(), directory, lines: Arc::default() };
    place.pull(&good).unwrap();
    let layer = good.asked().into_iter().find(|asked| is_layer(asked, &content)).unwrap();
    assert_eq!(layer.header("range"), "bytes=250000-");
    assert!(place.files("content/partial").is_empty());
}

#[test]
fn a_layer_that_came_whole_does_not_come_again() {
    let content = content(&[50_000, 60_000]);
    let served = content.clone();
    let server = Server::start(move |asked| served.answer(asked));
    let mut place = Place::new();
    // The layer is checked and unpacked, and waits for the one beneath, when the process ends.
    let (name, bytes) = content.blobs.iter().find(|(_, bytes)| bytes[0] == 0x1f).unwrap();
    let wanted = Descriptor::new(media::OCI_LAYER_GZIP, name.parse().unwrap(), bytes.len() as u64);
    let mut receiving = place.store.receive_layer(&wanted).unwrap();
    receiving.write(bytes).unwrap();
    drop(receiving.finish().unwrap());
    let directory = place.directory;
    drop(place.store);
    place =
        Place { store: Store::open(directory.path()).unwrap(), directory, lines: Arc::default() };
    place.pull(&server).unwrap();
    let layers: Vec<Asked> =
        server.asked().into_iter().filter(|asked| is_layer(asked, &content)).collect();
    assert_eq!(layers.len(), 1);
    assert!(!layers[0].path.contains(name.as_str()));
    assert!(place.files("content/partial").is_empty());
}

#[test]
fn what_came_damaged_comes_anew() {
    let content = content(&[50_000]);
    let served = content.clone();
    let server = Server::start(move |asked| served.answer(asked));
    let place = Place::new();
    let (name, bytes) = content.blobs.iter().find(|(_, bytes)| bytes[0] == 0x1f).unwrap();
    let mut damaged = bytes[..20_000].to_vec();
    damaged[15_000] ^= 1;
    let partial = place.directory.path().join("content/partial").join(&name["sha256:".len()..]);
    fs_err::write(partial, damaged).unwrap();
    place.pull(&server).unwrap();
}

#[test]
fn what_is_not_what_its_digest_says_is_refused() {
    type Change = fn(&mut Reply);
    let cases: [(&str, Change, &str); 4] = [
        ("/blobs/", |reply| reply.body[100] ^= 1, "digest"),
        ("/blobs/", |reply| reply.body.truncate(reply.body.len() - 1), "where its descriptor says"),
        ("/blobs/", |reply| reply.body.push(0), "where its descriptor says"),
        ("/manifests/", |reply| reply.body.insert(1, b' '), "manifest verification failed"),
    ];
    for (part, change, words) in cases {
        let content = content(&[20_000]);
        let server = Server::start(move |asked| {
            let mut reply = content.answer(asked);
            if asked.path.contains(part) && (part != "/blobs/" || is_layer(asked, &content)) {
                change(&mut reply);
            }
            reply
        });
        let place = Place::new();
        let error = place.pull(&server).unwrap_err();
        assert!(error.contains(words), "{part}: {error}");
        assert!(place.is_empty(), "{part}");
        assert!(place.files("content/partial").is_empty(), "{part}");
    }
}

#[test]
fn busy_servers_are_asked_again() {
    for (status, times, good) in
        [(500, 2, true), (503, 3, true), (429, 2, true), (502, 9, false), (400, 1, false)]
    {
        let content = content(&[1000]);
        let (manifests, blobs) = (AtomicUsize::new(0), AtomicUsize::new(0));
        let server = Server::start(move |asked| {
            let count = if asked.path.contains("/manifests/") { &manifests } else { &blobs };
            if count.fetch_add(1, Ordering::Relaxed) < times {
                return Reply::new(
                    status,
                    r#"{"errors":[{"code":"TOOMANYREQUESTS","message":"slow down"}]}"#,
                )
                .header("Retry-After", "0");
            }
            content.answer(asked)
        });
        let place = Place::new();
        let result = place.pull(&server);
        assert_eq!(result.is_ok(), good, "{status}: {result:?}");
        assert_eq!(place.is_empty(), !good);
    }
    // One who asks for more time than anybody has is believed.
    let server = Server::start(|_| {
        Reply::new(429, r#"{"errors":[{"code":"TOOMANYREQUESTS","message":"pull rate limit"}]}"#)
            .header("Retry-After", "86400")
    });
    let error = Place::new().pull(&server).unwrap_err();
    assert_eq!(error, "toomanyrequests: pull rate limit: the registry asks to wait for 86400 s");
    assert_eq!(server.asked().len(), 1);
}

#[test]
fn documents_are_bounded_and_unambiguous() {
    let huge = Server::start(|_| Reply::new(200, vec![b' '; (4 << 20) + 1]));
    let endless =
        Server::start(|_| Reply { length: Some(100 << 20), ..Reply::new(200, vec![b' '; 1000]) });
    let both = Server::start(|_| {
        Reply::new(
            200,
            format!(
                r#"{{"schemaVersion":2,"config":{{"digest":"{}","size":1}},"layers":[],"manifests":[]}}"#,
                digest(b"")
            ),
        )
        .header("Content-Type", media::OCI_MANIFEST)
    });
    let schema1 = Server::start(|_| {
        Reply::new(200, r#"{"schemaVersion":1}"#)
            .header("Content-Type", "application/vnd.docker.distribution.manifest.v1+prettyjws")
    });
    let text = Server::start(|_| Reply::new(200, "hello"));
    for (server, words) in [
        (huge, "the manifest of"),
        (endless, "is larger than 4194304 bytes"),
        (both, "it is not the \"application/vnd.oci.image.manifest.v1+json\""),
        (schema1, "schema 1 support has been removed"),
        (text, "cannot parse image manifest or index"),
    ] {
        let place = Place::new();
        let error = place.pull(&server).unwrap_err();
        assert!(error.contains(words), "{error}");
        assert!(place.is_empty());
    }
}

#[test]
fn absent_images_have_dockers_words() {
    let server = Server::start(|_| unknown("MANIFEST_UNKNOWN"));
    let error = Place::new().pull(&server).unwrap_err();
    let name = format!("{}/app:latest", server.address);
    assert_eq!(error, format!("manifest for {name} not found: manifest unknown: manifest unknown"));
    let mut gone = server;
    gone.address = "127.0.0.1:1".into();
    let error = Place::new().pull(&gone).unwrap_err();
    assert!(error.ends_with("dial tcp 127.0.0.1:1: connect: connection refused"), "{error}");
}

/// A registry that wants tokens, with its token server; blobs are on another host.
fn guarded(content: Content) -> (Server, Server, Server, Arc<AtomicUsize>) {
    let files = content.clone();
    let storage = Server::start(move |asked| files.answer(asked));
    let issued = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&issued);
    let tokens = Server::start(move |asked| {
        // base64 of `me:secret`
        if asked.header("authorization") != "Basic bWU6c2VjcmV0" {
            return Reply::new(401, r#"{"details":"incorrect username or password"}"#);
        }
        let number = count.fetch_add(1, Ordering::Relaxed);
        Reply::new(200, format!(r#"{{"token":"t{number}","expires_in":300}}"#))
    });
    let (realm, other) = (tokens.address.clone(), storage.address.clone());
    let latest = Arc::clone(&issued);
    let asked_before = AtomicUsize::new(0);
    let registry = Server::start(move |asked| {
        let number = latest.load(Ordering::Relaxed);
        let good = number > 0 && asked.header("authorization") == format!("Bearer t{}", number - 1);
        // The first token is soon too old.
        let old = number == 1 && asked_before.fetch_add(1, Ordering::Relaxed) == 1;
        if !good || old {
            let challenge = format!(
                "Bearer realm=\"http://{realm}/token\",service=\"test\",scope=\"repository:app:pull\""
            );
            return Reply::new(
                401,
                r#"{"errors":[{"code":"UNAUTHORIZED","message":"authentication required"}]}"#,
            )
            .header("WWW-Authenticate", challenge);
        }
        if asked.path.contains("/blobs/") {
            return Reply::new(307, "")
                .header("Location", format!("http://{other}{}?signature=x", asked.path));
        }
        content.answer(asked)
    });
    (registry, tokens, storage, issued)
}

#[test]
fn tokens_are_fetched_and_go_nowhere_else() {
    let (registry, tokens, storage, issued) = guarded(content(&[1000, 2000, 3000]));
    let me =
        Credentials { username: "me".into(), password: "secret".into(), ..Credentials::default() };
    Place::new().pull_as(&registry, &me, None).unwrap();
    assert_eq!(issued.load(Ordering::Relaxed), 2, "one, and one when that was too old");
    let query = &tokens.asked()[0].path;
    assert!(query.contains("service=test&scope=repository%3Aapp%3Apull&account=me"), "{query}");
    assert_eq!(storage.asked().len(), 4);
    for asked in storage.asked() {
        assert_eq!(asked.header("authorization"), "", "a secret went to another host");
    }
    // Without and with wrong credentials.
    let error = Place::new().pull(&registry).unwrap_err();
    assert_eq!(error, "unauthorized: incorrect username or password");
}

#[test]
fn passwords_go_to_their_registry_only() {
    let content = content(&[1000]);
    let files = content.clone();
    let storage = Server::start(move |asked| files.answer(asked));
    let other = storage.address.clone();
    let registry = Server::start(move |asked| {
        if asked.header("authorization") != "Basic bWU6c2VjcmV0" {
            return Reply::new(401, "").header("WWW-Authenticate", "Basic realm=\"x\"");
        }
        if asked.path.contains("/blobs/") {
            return Reply::new(302, "").header("Location", format!("//{other}{}", asked.path));
        }
        content.answer(asked)
    });
    let me =
        Credentials { username: "me".into(), password: "secret".into(), ..Credentials::default() };
    Place::new().pull_as(&registry, &me, None).unwrap();
    assert!(storage.asked().iter().all(|asked| asked.header("authorization").is_empty()));
    let error = Place::new().pull(&registry).unwrap_err();
    assert_eq!(error, "no basic auth credentials");
    let wrong = Credentials { password: "wrong".into(), ..me };
    let error = Place::new().pull_as(&registry, &wrong, None).unwrap_err();
    assert_eq!(error, "unauthorized: authentication required");
}

#[test]
fn token_servers_are_bounded() {
    for (body, words) in [
        (format!(r#"{{"token":"{}"}}"#, "x".repeat(300 << 10)), "the token of"),
        ("{}".to_owned(), "authorization server did not include a token in the response"),
        ("<html>".to_owned(), "unable to decode token response"),
    ] {
        let tokens = Server::start(move |_| Reply::new(200, body.clone()));
        let realm = tokens.address.clone();
        let registry = Server::start(move |_| {
            Reply::new(401, "")
                .header("WWW-Authenticate", format!("Bearer realm=\"http://{realm}/\""))
        });
        let error = Place::new().pull(&registry).unwrap_err();
        assert!(error.contains(words), "{error}");
    }
    let looping = Server::start(|asked| Reply::new(302, "").header("Location", asked.path.clone()));
    let error = Place::new().pull(&looping).unwrap_err();
    assert!(error.contains("stopped after 10 redirects"), "{error}");
}

#[test]
fn foreign_layers_come_without_credentials() {
    let mut content = Content::default();
    let foreign_tar = tar("foreign", 5000);
    let mut manifest = image(&mut content, "linux/amd64", std::slice::from_ref(&foreign_tar));
    let files = content.clone();
    let elsewhere = Server::start(move |asked| files.answer(asked));
    let layer = &mut manifest.layers[0];
    layer.media_type = media::DOCKER_FOREIGN.to_owned();
    layer.urls = vec![
        "file:///etc/passwd".into(),
        "ftp://x/y".into(),
        format!("http://{}/v2/x/blobs/{}", elsewhere.address, digest(b"absent")),
        format!("http://{}/v2/x/blobs/{}", elsewhere.address, layer.digest),
    ];
    content.blobs.remove(&layer.digest.to_string());
    content.add_manifest("latest", media::OCI_MANIFEST, to_bytes(&manifest));
    let registry = Server::start(move |asked| {
        if asked.header("authorization").is_empty() {
            return Reply::new(401, "").header("WWW-Authenticate", "Basic realm=\"x\"");
        }
        content.answer(asked)
    });
    let me =
        Credentials { username: "me".into(), password: "secret".into(), ..Credentials::default() };
    Place::new().pull_as(&registry, &me, None).unwrap();
    assert_eq!(elsewhere.asked().len(), 2);
    assert!(elsewhere.asked().iter().all(|asked| asked.header("authorization").is_empty()));
}

#[test]
fn platforms_are_chosen_and_named() {
    let mut content = Content::default();
    let mut entries = Vec::new();
    for platform in ["linux/s390x", "linux/amd64", "windows/amd64"] {
        let manifest = image(&mut content, platform, &[tar(platform, 100)]);
        let bytes = to_bytes(&manifest);
        let mut entry = Descriptor::new(media::OCI_MANIFEST, digest(&bytes), bytes.len() as u64);
        entry.platform = Some(platform.parse().unwrap());
        entries.push(entry);
    }
    let index = Index {
        schema_version: 2,
        media_type: media::OCI_INDEX.to_owned(),
        manifests: entries,
        annotations: std::collections::BTreeMap::new(),
    };
    content.add_manifest("latest", media::OCI_INDEX, to_bytes(&index));
    let server = Server::start(move |asked| content.answer(asked));
    let none = Credentials::default();
    let place = Place::new();
    for platform in ["linux/s390x", "linux/amd64", "windows/amd64"] {
        let image = place.pull_as(&server, &none, Some(platform)).unwrap();
        assert_eq!(image.config.platform().to_string(), platform);
    }
    let error = place.pull_as(&server, &none, Some("linux/arm64")).unwrap_err();
    assert_eq!(
        error,
        "no matching manifest for linux/arm64 in the manifest list entries: there is linux/s390x, linux/amd64, windows/amd64"
    );
}

#[test]
fn what_cannot_be_unpacked_leaves_nothing() {
    let mut content = Content::default();
    let mut bad = tar("x", 100_000);
    bad[148] ^= 1;
    let manifest = image(&mut content, "linux/amd64", &[tar("good", 1000), bad]);
    let server = Server::start(move |asked| content.answer(asked));
    let place = Place::new();
    let error = place.pull(&server).unwrap_err();
    assert!(error.contains("invalid tar header"), "{error}");
    assert!(place.store.images().unwrap().is_empty());
    // The good one may wait for the next try.
    assert!(!place.files("content/partial").contains(&manifest.layers[1].digest.hex()));
    assert!(!place.files("layers").iter().any(|name| name.starts_with(".new-")));
}
