//! Pushes to registries that misbehave.
#![allow(clippy::unwrap_used, reason = "a test")]

mod server;

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use server::{Asked, Content, Reply, Server, image, tar, unknown};
use silo_docker::stream::StreamMessage;
use silo_oci::image::{ImageConfig, Manifest, digest};
use silo_oci::reference::Reference;
use silo_registry::{
    Action, Config, Credentials, Known, Place, Progress, Puller, PushOptions, Pushed, Registries,
    Retry,
};
use silo_store::{Image, Store};
use silo_types::Digest;
use silo_types::error::chain;

/// Remembers in memory.
#[derive(Debug, Default)]
struct Memory(Mutex<HashMap<Digest, Vec<Place>>>, Mutex<HashMap<String, String>>);

impl Known for Memory {
    fn places(&self, diff_id: &Digest) -> Vec<Place> {
        self.0.lock().unwrap().get(diff_id).cloned().unwrap_or_default()
    }

    fn remember(&self, diff_id: &Digest, place: &Place) {
        self.0.lock().unwrap().entry(*diff_id).or_default().insert(0, place.clone());
    }

    fn upload(&self, what: &str) -> Option<String> {
        self.1.lock().unwrap().get(what).cloned()
    }

    fn uploading(&self, what: &str, location: &str) {
        self.1.lock().unwrap().insert(what.to_owned(), location.to_owned());
    }

    fn uploaded(&self, what: &str) {
        self.1.lock().unwrap().remove(what);
    }
}

struct Here {
    _directory: tempfile::TempDir,
    store: Store,
    registries: Arc<Registries>,
    known: Arc<dyn Known>,
    lines: Arc<Mutex<Vec<StreamMessage>>>,
}

fn run<T>(work: impl Future<Output = T>) -> T {
    let mut builder = tokio::runtime::Builder::new_multi_thread();
    builder.worker_threads(2).enable_all().build().unwrap().block_on(work)
}

impl Here {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let store = Store::open(directory.path()).unwrap();
        let registries = Arc::new(Registries::new(Config {
            certificates: Vec::new(),
            retry: Retry {
                attempts: 4,
                first: Duration::from_millis(1),
                longest: Duration::from_millis(50),
            },
            stall: Duration::from_secs(5),
            ..Config::default()
        }));
        let known: Arc<dyn Known> = Arc::new(Memory::default());
        Self { _directory: directory, store, registries, known, lines: Arc::default() }
    }

    fn pull(&self, server: &Server, name: &str) -> Image {
        let name = format!("{}/{name}", server.address);
        let reference = Reference::parse_normalized(&name).unwrap();
        let none = Credentials::default();
        let repository = self.registries.repository(&reference, Action::Pull, &none).unwrap();
        let puller = Puller::new(self.store.clone(), 3, 26100);
        run(async {
            let pulling = puller.begin(Arc::new(repository), &reference, None).await.unwrap();
            pulling.run(&Progress::new(drop)).await.unwrap().image
        })
    }

    fn push(&self, server: &Server, name: &str, image: &Image) -> Result<Pushed, String> {
        self.lines.lock().unwrap().clear();
        let name = format!("{}/{name}", server.address);
        let reference = Reference::parse_normalized(&name).unwrap();
        let none = Credentials::default();
        let repository = self.registries.repository(&reference, Action::Push, &none).unwrap();
        let lines = Arc::clone(&self.lines);
        let progress = Progress::new(move |line| lines.lock().unwrap().push(line));
        let tag = reference.tag().map(str::to_owned);
        let options = PushOptions { tag, ..PushOptions::default() };
        let repository = Arc::new(repository);
        let pushed =
            silo_registry::push(&self.store, &repository, image, &options, &self.known, &progress);
        run(pushed).map_err(|error| chain(&error))
    }

    /// An image whose layer has no compressed blob.
    fn made(&self, size: usize) -> Image {
        let bytes = tar("made", size);
        let config = ImageConfig {
            os: "linux".into(),
            architecture: "amd64".into(),
            ..ImageConfig::default()
        };
        self.store.import(&bytes[..], config).unwrap().0
    }

    fn said(&self, words: &str) -> bool {
        self.lines.lock().unwrap().iter().any(|line| line.status.contains(words))
    }
}

/// A registry that can be written to.
#[derive(Default)]
struct Writable {
    content: Content,
    uploads: BTreeMap<String, Vec<u8>>,
    mounts: bool,
}

impl Writable {
    fn answer(&mut self, asked: &Asked) -> Reply {
        let (path, query) = asked.path.split_once('?').unwrap_or((&asked.path, ""));
        let field = |name: &str| {
            let found = query.split('&').find_map(|pair| pair.strip_prefix(&format!("{name}=")));
            found.map(|value| value.replace("%3A", ":").replace("%2F", "/"))
        };
        let repository = path.split("/blobs/").next().unwrap_or_default().to_owned();
        if asked.method == "PUT"
            && let Some((_, tag)) = path.split_once("/manifests/")
        {
            let manifest = Manifest::parse(&asked.body).unwrap();
            for blob in manifest.layers.iter().chain([&manifest.config]) {
                assert!(self.content.blobs.contains_key(&blob.digest.to_string()), "{blob:?}");
            }
            let kind = asked.header("content-type").to_owned();
            let digest = self.content.add_manifest(tag, &kind, asked.body.clone());
            return Reply::new(201, "").header("Docker-Content-Digest", digest.to_string());
        }
        let Some((_, upload)) = path.split_once("/blobs/uploads/") else {
            return self.content.answer(asked);
        };
        let at = |id: &str| format!("{repository}/blobs/uploads/{id}?_state=abc");
        match asked.method.as_str() {
            "POST" => {
                if let Some(mount) = field("mount")
                    && self.mounts
                    && self.content.blobs.contains_key(&mount)
                {
                    return Reply::new(201, "");
                }
                let id = format!("u{}", self.uploads.len());
                self.uploads.insert(id.clone(), Vec::new());
                Reply::new(202, "").header("Location", at(&id)).header("Range", "0-0")
            }
            "DELETE" => Reply::new(204, ""),
            method => {
                let Some(bytes) = self.uploads.get_mut(upload) else {
                    return unknown("BLOB_UPLOAD_UNKNOWN");
                };
                if method == "PATCH" && !asked.header("content-range").is_empty() {
                    let start = asked.header("content-range").split('-').next().unwrap();
                    if start.parse() != Ok(bytes.len()) {
                        return Reply::new(416, "");
                    }
                }
                bytes.extend_from_slice(&asked.body);
                let range = format!("0-{}", bytes.len().saturating_sub(1));
                if method == "PUT"
                    && let Some(wanted) = field("digest")
                {
                    if digest(bytes).to_string() != wanted {
                        return Reply::new(
                            400,
                            r#"{"errors":[{"code":"DIGEST_INVALID","message":"it is another"}]}"#,
                        );
                    }
                    self.content.blobs.insert(wanted, bytes.clone());
                    return Reply::new(201, "");
                }
                let status = if method == "GET" { 204 } else { 202 };
                Reply::new(status, "").header("Location", at(upload)).header("Range", range)
            }
        }
    }
}

fn writable(
    mounts: bool,
    stop: impl Fn(&Asked) -> Option<u64> + Send + Sync + 'static,
) -> (Server, Arc<Mutex<Writable>>) {
    let state = Arc::new(Mutex::new(Writable { mounts, ..Writable::default() }));
    let shared = Arc::clone(&state);
    let server = Server::start_with(stop, move |asked| shared.lock().unwrap().answer(asked));
    (server, state)
}

#[test]
fn made_layers_are_compressed_and_sent_once() {
    let (server, _state) = writable(true, |_| None);
    let here = Here::new();
    let image = here.made(500_000);
    let first = here.push(&server, "app:1", &image).unwrap();
    assert!(here.said("Pushing") && here.said("Pushed"));
    let sent = |server: &Server| {
        let asked = server.asked();
        asked.iter().filter(|asked| asked.method == "PATCH" || asked.method == "PUT").count()
    };
    let before = sent(&server);
    let second = here.push(&server, "app:2", &image).unwrap();
    assert_eq!(first, second);
    assert!(here.said("Layer already exists"));
    assert_eq!(sent(&server), before + 1, "the manifest alone");
    here.push(&server, "other:1", &image).unwrap();
    assert!(here.said("Mounted from app"));
    let there = Here::new();
    let back = there.pull(&server, "app:1");
    assert_eq!((back.id, back.chain), (image.id, image.chain));
    // What came goes on as it came.
    let (other, _state) = writable(true, |_| None);
    let onward = there.push(&other, "app:1", &there.store.image(&image.id).unwrap()).unwrap();
    assert_eq!(onward, first);
}

#[test]
fn refused_mounts_are_sent() {
    let (server, _state) = writable(false, |_| None);
    let here = Here::new();
    let image = here.made(1000);
    here.push(&server, "app:1", &image).unwrap();
    here.push(&server, "other:1", &image).unwrap();
    assert!(here.said("Pushed"));
}

#[test]
fn broken_uploads_go_on_where_they_were() {
    let source = {
        let mut content = Content::default();
        image(&mut content, "linux/amd64", &[tar("big", 600_000)]);
        Server::start(move |asked| content.answer(asked))
    };
    let here = Here::new();
    let image = here.pull(&source, "app:latest");
    let is_big = |asked: &Asked| {
        asked.header("content-length").parse().is_ok_and(|length: u64| length > 100_000)
    };
    let broken = Arc::new(Mutex::new(0));
    let count = Arc::clone(&broken);
    let (server, state) = writable(false, move |asked| {
        let mut broken = count.lock().unwrap();
        if !is_big(asked) || *broken >= 2 {
            return None;
        }
        *broken += 1;
        Some(200_000)
    });
    here.push(&server, "app:1", &image).unwrap();
    assert_eq!(*broken.lock().unwrap(), 2);
    let patches: Vec<String> = server
        .asked()
        .iter()
        .filter(|asked| asked.method == "PATCH")
        .map(|asked| asked.header("content-range").split('-').next().unwrap().to_owned())
        .collect();
    assert_eq!(patches, ["200000", "400000"]);
    assert_eq!(state.lock().unwrap().content.manifests.len(), 2);
}

#[test]
fn a_server_that_goes_on_to_contradict_itself_is_left() {
    let source = {
        let mut content = Content::default();
        image(&mut content, "linux/amd64", &[tar("big", 600_000)]);
        Server::start(move |asked| content.answer(asked))
    };
    let here = Here::new();
    let image = here.pull(&source, "app:latest");
    // It has a part of the upload, it says, and then again knows nothing of it.
    let server = Server::start(|asked| match asked.method.as_str() {
        "HEAD" => unknown("BLOB_UNKNOWN"),
        "POST" => Reply::new(202, "").header("Location", "/v2/app/blobs/uploads/u"),
        "GET" => Reply::new(204, "").header("Range", "0-999"),
        "PUT" => Reply::new(500, ""),
        _ => unknown("BLOB_UPLOAD_UNKNOWN"),
    });
    let error = here.push(&server, "app:1", &image).unwrap_err();
    assert!(error.contains("500 Internal Server Error"), "{error}");
    assert_eq!(server.asked().iter().filter(|asked| asked.method == "PATCH").count(), 3);
}

/// Breaks off the first bodies of uploads, after so many bytes.
fn breaking(times: usize, after: u64) -> impl Fn(&Asked) -> Option<u64> + Send + Sync + 'static {
    let broken = Mutex::new(0);
    move |asked| {
        let mut broken = broken.lock().unwrap();
        let is_body = matches!(asked.method.as_str(), "PATCH" | "PUT")
            && asked.path.contains("/uploads/")
            && asked.header("content-length") != "0";
        let breaks = is_body && *broken < times;
        *broken += usize::from(breaks);
        breaks.then_some(after)
    }
}

/// Where the chunks of uploads began that say it.
fn starts(server: &Server) -> Vec<u64> {
    let asked = server.asked();
    let ranges = asked.iter().map(|asked| asked.header("content-range"));
    ranges.filter_map(|range| range.split('-').next()?.parse().ok()).collect()
}

#[test]
fn made_layers_go_on_where_they_were() {
    let (server, _state) = writable(false, breaking(2, 100_000));
    let here = Here::new();
    let image = here.made(2_000_000);
    here.push(&server, "app:1", &image).unwrap();
    // The second break is in the piece that says where it begins.
    assert_eq!(starts(&server), [100_000, 200_000]);
    Here::new().pull(&server, "app:1");
}

/// What a server does with an upload that broke off, if not the right thing.
type Wrong = fn(&Asked, &mut Writable) -> Option<Reply>;

fn is_rest(asked: &Asked) -> bool {
    asked.method == "PATCH" && !asked.header("content-range").is_empty()
}

fn status(asked: &Asked, range: &str) -> Option<Reply> {
    let is_status = asked.method == "GET" && asked.path.contains("/uploads/");
    is_status.then(|| Reply::new(204, "").header("Range", range))
}

const WRONG: &[(&str, Wrong)] = &[
    ("takes no rest", |asked, _| is_rest(asked).then(|| Reply::new(405, ""))),
    ("refuses the range", |asked, _| is_rest(asked).then(|| Reply::new(416, ""))),
    ("says no location", |asked, _| is_rest(asked).then(|| Reply::new(202, ""))),
    ("has something else", |asked, state| {
        if asked.method == "GET" {
            state.uploads.values_mut().filter(|had| !had.is_empty()).for_each(|had| had[0] ^= 1);
        }
        None
    }),
    ("has more than there is", |asked, _| status(asked, "0-99999999")),
    ("has less than it says", |asked, state| {
        let had = state.uploads.values().map(Vec::len).max().unwrap_or_default();
        (had > 0).then(|| status(asked, &format!("0-{}", had + 9))).flatten()
    }),
    ("says no range", |asked, _| status(asked, "x")),
    ("has forgotten it", |asked, _| status(asked, "").map(|_| unknown("BLOB_UPLOAD_UNKNOWN"))),
];

#[test]
fn uploads_that_cannot_go_on_begin_anew() {
    let here = Here::new();
    let made = here.made(1_200_000);
    let (server, _state) = writable(false, |_| None);
    here.push(&server, "app:1", &made).unwrap();
    let there = Here::new();
    let pulled = there.pull(&server, "app:1");
    for (here, image) in [(&here, &made), (&there, &pulled)] {
        for (name, wrong) in WRONG {
            let state = Arc::new(Mutex::new(Writable::default()));
            let shared = Arc::clone(&state);
            let server = Server::start_with(breaking(1, 300_000), move |asked| {
                let mut state = shared.lock().unwrap();
                wrong(asked, &mut state).unwrap_or_else(|| state.answer(asked))
            });
            here.push(&server, "app:1", image).unwrap_or_else(|error| panic!("{name}: {error}"));
            assert_eq!(Here::new().pull(&server, "app:1").id, image.id, "{name}");
            assert!(server.asked().len() < 30, "{name}");
        }
    }
}

#[test]
fn an_upload_of_an_earlier_push_goes_on() {
    let here = Here::new();
    let made = here.made(2_000_000);
    let (server, _state) = writable(false, |_| None);
    here.push(&server, "app:1", &made).unwrap();
    let there = Here::new();
    let pulled = there.pull(&server, "app:1");
    for (here, image) in [(&here, &made), (&there, &pulled)] {
        // The connection breaks, and then nobody answers any more: that push ends.
        let is_gone = Arc::new(Mutex::new(false));
        let (gone, breaks) = (Arc::clone(&is_gone), breaking(1, 700_000));
        let stop = move |asked: &Asked| {
            let limit = breaks(asked);
            *gone.lock().unwrap() |= limit.is_some();
            limit
        };
        let state = Arc::new(Mutex::new(Writable::default()));
        let (shared, gone) = (Arc::clone(&state), Arc::clone(&is_gone));
        let server = Server::start_with(stop, move |asked| {
            let reply = shared.lock().unwrap().answer(asked);
            if *gone.lock().unwrap() { Reply::new(503, "") } else { reply }
        });
        let error = here.push(&server, "app:1", image).unwrap_err();
        assert!(error.contains("503"), "{error}");
        *is_gone.lock().unwrap() = false;
        let before = server.asked().len();
        here.push(&server, "app:1", image).unwrap();
        assert_eq!(starts(&server), [700_000]);
        let begun = server.asked().split_off(before);
        let begun = begun.iter().filter(|asked| asked.method == "POST").count();
        assert_eq!(begun, 1, "that of the configuration");
        Here::new().pull(&server, "app:1");
        // It is not remembered any more.
        state.lock().unwrap().content = Content::default();
        here.push(&server, "app:2", image).unwrap();
        assert_eq!(starts(&server), [700_000]);
    }
}

#[test]
fn refusals_are_told() {
    for (status, body, words) in [
        (
            403,
            r#"{"errors":[{"code":"DENIED","message":"requested access to the resource is denied"}]}"#,
            "denied: requested access to the resource is denied",
        ),
        (507, "", "received unexpected HTTP status: 507 Insufficient Storage"),
        (404, "<html>", "error parsing HTTP 404 response body: \"<html>\""),
    ] {
        let server = Server::start(move |asked| {
            if asked.method == "HEAD" { unknown("BLOB_UNKNOWN") } else { Reply::new(status, body) }
        });
        let here = Here::new();
        let image = here.made(1000);
        let error = here.push(&server, "app:1", &image).unwrap_err();
        assert_eq!(error, words);
    }
    // An answer without a place to send to.
    let server = Server::start(|asked| {
        if asked.method == "HEAD" { unknown("BLOB_UNKNOWN") } else { Reply::new(202, "") }
    });
    let here = Here::new();
    let image = here.made(1000);
    let error = here.push(&server, "app:1", &image).unwrap_err();
    assert!(error.ends_with("the location of the upload is \"\""), "{error}");
}
