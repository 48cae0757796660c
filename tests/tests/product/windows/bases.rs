//! Images with Microsoft's base layers, on Silo's own bases.

use std::sync::{Arc, Mutex, PoisonError};

use serde_json::{Value, json};
use silo_tests::{Asked, Content, Engine, Reply, Scripted, WindowsEngine, gzip, sha256};

use super::image::{directory, file, layer};

const MANIFEST: &str = "application/vnd.docker.distribution.manifest.v2+json";
const CONFIG: &str = "application/vnd.docker.container.image.v1+json";
const LAYER: &str = "application/vnd.docker.image.rootfs.diff.tar.gzip";
const FOREIGN: &str = "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip";
/// Of no image that Silo makes.
const VERSION: &str = "10.0.17763.3887";
const HISTORY: [&str; 3] =
    ["Apply image 1809-RTM-amd64", "Install update 1809-amd64", "cmd /S /C #(nop) COPY app"];

/// `ver` of Wine has no revision.
const SHOW: &str = "@ver\r\n\
    @reg query \"HKLM\\Software\\Microsoft\\Windows NT\\CurrentVersion\" /v UBR\r\n\
    @type C:\\app\\hello.txt\r\n";

/// A registry of the test's.
struct Shop {
    content: Arc<Mutex<Content>>,
    server: Scripted,
}

impl Shop {
    fn open() -> Self {
        let content: Arc<Mutex<Content>> = Arc::default();
        let shared = Arc::clone(&content);
        let answer = move |asked: &Asked| -> Reply {
            shared.lock().unwrap_or_else(PoisonError::into_inner).answer(asked)
        };
        Self { content, server: Scripted::start(answer) }
    }

    /// One that lets in the user `me` with the password `secret` only.
    fn private() -> Self {
        let content: Arc<Mutex<Content>> = Arc::default();
        let shared = Arc::clone(&content);
        let answer = move |asked: &Asked| -> Reply {
            if asked.header("authorization") != "Basic bWU6c2VjcmV0" {
                return Reply::refusal(401, "UNAUTHORIZED")
                    .header("WWW-Authenticate", "Basic realm=\"x\"");
            }
            shared.lock().unwrap_or_else(PoisonError::into_inner).answer(asked)
        };
        Self { content, server: Scripted::start(answer) }
    }

    fn name(&self, name: &str) -> String {
        format!("{}/{name}", self.server.address())
    }

    fn content(&self) -> std::sync::MutexGuard<'_, Content> {
        self.content.lock().expect("the content")
    }

    /// The manifest of a tag.
    fn manifest(&self, tag: &str) -> Vec<u8> {
        self.content().manifests.get(tag).expect("a manifest").1.clone()
    }

    /// Whether anybody asked for a blob, or sent it.
    fn has_seen(&self, digest: &str) -> bool {
        let asked = self.server.asked();
        asked.iter().any(|asked| asked.method != "HEAD" && asked.target.contains(digest))
    }
}

/// The layers of a base, as Microsoft would have them, and of an application.
struct App {
    /// Tars.
    base: [Vec<u8>; 2],
    /// What is on the registry of them.
    base_blobs: [Vec<u8>; 2],
    own: Vec<u8>,
}

impl App {
    fn new(engine: &Engine, more: &[Value]) -> Self {
        let scratch = engine.scratch();
        let make = |name: &str, entries: &[Value]| {
            fs_err::read(layer(&scratch.join(name), entries)).expect("a layer")
        };
        let base = ["first", "second"].map(|name| {
            make(name, &[directory("Files"), file(&format!("Files/{name}.txt"), name)])
        });
        let mut entries = vec![
            directory("Files"),
            directory("Files/app"),
            file("Files/app/hello.txt", "hello from the application\r\n"),
            file("Files/app/show.cmd", SHOW),
        ];
        entries.extend_from_slice(more);
        let base_blobs = [gzip(&base[0]), gzip(&base[1])];
        Self { own: make("own", &entries), base, base_blobs }
    }

    fn base_digests(&self) -> [String; 2] {
        [sha256(&self.base_blobs[0]), sha256(&self.base_blobs[1])]
    }

    fn diff_ids(&self) -> Vec<String> {
        vec![sha256(&self.base[0]), sha256(&self.base[1]), sha256(&self.own)]
    }

    /// Puts the image on a registry, its base layers only by name. The size of what is there is
    /// not said of foreign ones.
    fn put(&self, shop: &Shop, tag: &str, foreign: bool, change: impl FnOnce(&mut Value)) {
        let mut config = json!({
            "architecture": "amd64",
            "os": "windows",
            "os.version": VERSION,
            "config": {"Cmd": ["cmd", "/c", "C:\\app\\show.cmd"]},
            "rootfs": {"type": "layers", "diff_ids": self.diff_ids()},
            "history": HISTORY.map(|step| json!({"created_by": step})),
        });
        if foreign {
            config["history"] = json!([]);
        }
        change(&mut config);
        let mut content = shop.content();
        let config = content.add_blob(CONFIG, config.to_string().into_bytes());
        let mut layers: Vec<Value> = Vec::new();
        for (blob, size) in self.base_blobs.iter().zip([1_534_685_324_u64, 681_618_026]) {
            let digest = sha256(blob);
            layers.push(if foreign {
                let url = format!("https://mcr.microsoft.com/v2/windows/servercore/blobs/{digest}");
                json!({"mediaType": FOREIGN, "digest": digest, "size": size, "urls": [url]})
            } else {
                json!({"mediaType": LAYER, "digest": digest, "size": blob.len()})
            });
        }
        layers.push(content.add_blob(LAYER, gzip(&self.own)));
        let manifest = json!({
            "schemaVersion": 2, "mediaType": MANIFEST, "config": config, "layers": layers,
        });
        content.add_manifest(tag, MANIFEST, manifest.to_string().into_bytes());
    }
}

fn inspect(engine: &Engine, image: &str) -> Value {
    let text = engine.ok(&["image", "inspect", image]);
    let value: Value = serde_json::from_str(&text).expect("JSON");
    value[0].clone()
}

fn says_version(output: &str) -> bool {
    let (build, revision) = VERSION.rsplit_once('.').expect("a version");
    let revision: u32 = revision.parse().expect("a number");
    output.contains(&format!("Microsoft Windows {build}"))
        && output.contains(&format!("0x{revision:x}"))
}

#[test]
fn foreign_base_layers_are_not_fetched() {
    let Some(engine) = WindowsEngine::start_or_skip() else { return };
    let (source, target) = (Shop::open(), Shop::open());
    let app = App::new(&engine, &[]);
    app.put(&source, "1", true, |_| ());
    let (image, pushed) = (source.name("team/app:1"), target.name("other/app:1"));

    let outcome = engine.docker(&["run", "--rm", &image]);
    assert_eq!(outcome.code, 0, "{}{}", outcome.stdout, outcome.stderr);
    assert!(says_version(&outcome.stdout), "{}", outcome.stdout);
    assert!(outcome.stdout.contains("hello from the application"), "{}", outcome.stdout);
    let said = "stands on silo/servercore:ltsc2019, Silo's compatible base, which is made of Wine, \
                in place of Microsoft's base layers (2, 2217 MB)";
    assert!(outcome.stderr.contains(said), "{}", outcome.stderr);
    for digest in app.base_digests() {
        assert!(!source.has_seen(&digest), "{:?}", source.server.asked());
    }

    let shown = inspect(&engine, &image);
    assert_eq!(shown["RootFS"]["Layers"], json!(app.diff_ids()));
    assert_eq!(shown["OsVersion"], VERSION);
    assert_eq!(shown["StandIn"]["Base"], "silo/servercore:ltsc2019");
    let replaced = shown["StandIn"]["InPlaceOf"].as_array().expect("layers");
    assert_eq!(replaced.len(), 2);
    assert_eq!(replaced[0]["Digest"], app.base_digests()[0]);
    assert_eq!(replaced[0]["DiffID"], app.diff_ids()[0]);

    engine.ok(&["tag", &image, &pushed]);
    let told = engine.ok(&["push", &pushed]);
    assert_eq!(told.matches("Skipped foreign layer").count(), 2, "{told}");
    assert_eq!(target.manifest("1"), source.manifest("1"));
    assert!(!target.has_seen(&app.base_digests()[0]), "a foreign layer was sent");

    // An image that is made on top has Microsoft's base as well.
    engine.ok(&["create", "--name", "made", &image]);
    let built = target.name("other/app:2");
    engine.ok(&["commit", "-m", "more", "made", &built]);
    engine.ok(&["push", &built]);
    let manifest: Value = serde_json::from_slice(&target.manifest("2")).expect("JSON");
    let original: Value = serde_json::from_slice(&source.manifest("1")).expect("JSON");
    assert_eq!(manifest["layers"].as_array().expect("layers").len(), 4);
    for at in 0..3 {
        let (layer, known) = (&manifest["layers"][at], &original["layers"][at]);
        assert_eq!(layer["digest"], known["digest"]);
        assert_eq!(layer["urls"], known["urls"]);
        assert_eq!(layer["size"], known["size"]);
    }
    let shown = inspect(&engine, &built);
    assert_eq!(shown["RootFS"]["Layers"][0], app.diff_ids()[0]);
    assert_eq!(shown["StandIn"]["Base"], "silo/servercore:ltsc2019");

    // It is the same after a restart of the engine, and after everything needless was removed.
    let mut engine = engine;
    engine.ok(&["rm", "made"]);
    engine.ok(&["rmi", &built]);
    engine.stop_daemon();
    engine.start_daemon();
    engine.ok(&["image", "prune", "-f"]);
    let output = engine.ok(&["run", "--rm", &image, "cmd", "/c", "type C:\\app\\hello.txt"]);
    assert!(output.contains("hello from the application"), "{output}");
    let archive = engine.scratch().join("saved.tar").display().to_string();
    let saved = engine.docker(&["save", "-o", &archive, &image]);
    assert!(saved.stderr.contains("--base=exact"), "{}", saved.stderr);
}

#[test]
fn plain_base_layers_are_found_by_history_and_digests() {
    let Some(mut engine) = WindowsEngine::start_or_skip() else { return };
    let (source, target, microsoft) = (Shop::open(), Shop::open(), Shop::open());
    let hosts = engine.scratch().join("hosts/mcr.microsoft.com");
    fs_err::create_dir_all(&hosts).expect("a folder");
    let text = format!("server = \"http://{}\"\n", microsoft.server.address());
    fs_err::write(hosts.join("hosts.toml"), text).expect("a file");
    engine.stop_daemon();
    engine.add_option("--registry-certs");
    let certificates = engine.scratch().join("hosts").display().to_string();
    engine.add_option(certificates);
    engine.start_daemon();

    let mut app = App::new(&engine, &[]);
    app.put(&source, "1", false, |_| ());
    let image = source.name("team/app:1");
    let told = engine.ok(&["pull", &image]);
    assert!(told.contains("stands on silo/servercore:ltsc2019"), "{told}");
    let output = engine.ok(&["run", "--rm", &image]);
    assert!(says_version(&output), "{output}");

    // Nobody has the base's blobs: a push says so. The source has them: they are copied.
    let pushed = target.name("other/app:1");
    engine.ok(&["tag", &image, &pushed]);
    let outcome = engine.docker(&["push", &pushed]);
    assert!(
        outcome.stderr.contains("cannot be copied from where the image came from"),
        "{}",
        outcome.stderr
    );
    assert!(!target.content().manifests.contains_key("1"));
    for blob in &app.base_blobs {
        source.content().add_blob(LAYER, blob.clone());
    }
    engine.ok(&["push", &pushed]);
    assert_eq!(target.manifest("1"), source.manifest("1"));
    assert_eq!(target.content().blobs.get(&app.base_digests()[0]), Some(&app.base_blobs[0]));

    // The real layers, on demand: to be looked at and carried on, not to be run.
    let exact = engine.silo(&["pull", "--base=exact", &image]);
    assert_eq!(exact.code, 0, "{}", exact.stderr);
    assert!(inspect(&engine, &image).get("StandIn").is_none());
    let refused = engine.docker(&["run", "--rm", &image]);
    assert!(refused.stderr.contains("has Microsoft's own base layers"), "{}", refused.stderr);
    engine.ok(&["save", "-o", &engine.scratch().join("saved.tar").display().to_string(), &image]);
    engine.ok(&["pull", &image]);
    assert_eq!(inspect(&engine, &image)["StandIn"]["Base"], "silo/servercore:ltsc2019");
    let refused = engine.silo(&["run", "--base=exact", "--rm", &image]);
    assert!(refused.stderr.contains("Microsoft's own base needs Windows"), "{}", refused.stderr);

    // The base itself is a manifest and a configuration, and its layers are known from then on:
    // also packed anew, without history.
    {
        let mut content = microsoft.content();
        let config = json!({
            "architecture": "amd64", "os": "windows", "os.version": VERSION, "config": {},
            "rootfs": {"type": "layers", "diff_ids": app.diff_ids()[..2]},
        });
        let config = content.add_blob(CONFIG, config.to_string().into_bytes());
        let layers = app
            .base_digests()
            .map(|digest| json!({"mediaType": LAYER, "digest": digest, "size": 5}));
        let manifest =
            json!({"schemaVersion": 2, "mediaType": MANIFEST, "config": config, "layers": layers});
        content.add_manifest("ltsc2019", MANIFEST, manifest.to_string().into_bytes());
    }
    let base = "mcr.microsoft.com/windows/servercore:ltsc2019";
    engine.ok(&["pull", base]);
    assert_eq!(inspect(&engine, base)["RootFS"]["Layers"], json!(app.diff_ids()[..2]));
    app.base_blobs = [b"packed anew".to_vec(), b"and so is this".to_vec()];
    app.put(&source, "repacked", false, |config| {
        config["history"] = json!([]);
        config["os.version"] = "".into();
    });
    let repacked = source.name("team/app:repacked");
    let output = engine.ok(&["run", "--rm", &repacked]);
    assert!(says_version(&output), "{output}");
    assert!(!source.has_seen(&app.base_digests()[0]));

    // What is built on the base has its layers.
    let context = engine.scratch().join("context");
    fs_err::create_dir_all(&context).expect("a folder");
    let dockerfile = format!("FROM {base}\nCOPY Dockerfile C:/made/\n");
    fs_err::write(context.join("Dockerfile"), dockerfile).expect("a file");
    let built = target.name("other/built:3");
    // Which stream it is depends on the client's builder.
    let told = engine.docker(&["build", "-t", &built, &context.display().to_string()]);
    assert_eq!(told.code, 0, "{}", told.stderr);
    let told = told.stdout + &told.stderr;
    assert!(told.contains("stands on silo/servercore:ltsc2019"), "{told}");
    let shown = inspect(&engine, &built);
    engine.ok(&["push", &built]);
    let manifest: Value = serde_json::from_slice(&target.manifest("3")).expect("JSON");
    let digests: Vec<&Value> = manifest["layers"]
        .as_array()
        .expect("layers")
        .iter()
        .map(|layer| &layer["digest"])
        .collect();
    assert_eq!(digests.len(), 3);
    assert_ne!(digests[2], digests[1]);
    assert_eq!(shown["RootFS"]["Layers"][0], app.diff_ids()[0]);
}

#[test]
fn base_layers_come_from_private_registries() {
    let Some(mut engine) = WindowsEngine::start_or_skip() else { return };
    let hosts = engine.scratch().join("hosts");
    engine.stop_daemon();
    engine.add_option(format!("--registry-certs={}", hosts.display()));
    engine.start_daemon();
    let (source, target) = (Shop::private(), Shop::open());
    let app = App::new(&engine, &[]);
    app.put(&source, "1", false, |_| ());
    for blob in &app.base_blobs {
        source.content().add_blob(LAYER, blob.clone());
    }
    let image = source.name("team/app:1");
    let login = ["login", "-u", "me", "-p", "secret", source.server.address()];
    engine.ok(&login);
    engine.ok(&["pull", &image]);
    let found = inspect(&engine, &image)["StandIn"]["FoundIn"].clone();
    assert_eq!(found, json!([source.name("team/app")]));
    // docker sends credentials for the target only.
    let pushed = target.name("other/app:1");
    engine.ok(&["tag", &image, &pushed]);
    let outcome = engine.docker(&["push", &pushed]);
    let words = format!("`silo login {}`, and push with `silo push`", source.server.address());
    assert!(outcome.stderr.contains(&words), "{}", outcome.stderr);
    assert!(!target.content().manifests.contains_key("1"));
    let push = |arguments: &[&str]| {
        let outcome = engine.silo(arguments);
        assert_eq!(outcome.code, 0, "{}", outcome.stderr);
        assert_eq!(target.manifest("1"), source.manifest("1"));
        *target.content() = Content::default();
    };
    push(&["push", &pushed]);
    push(&["push", "--all-tags", &target.name("other/app")]);
    // The engine's own: what `hosts.toml` has all requests to a registry say.
    engine.ok(&["logout", source.server.address()]);
    let refused = engine.silo(&["push", &pushed]);
    assert!(refused.stderr.contains(&words), "{}", refused.stderr);
    let own = hosts.join(source.server.address());
    fs_err::create_dir_all(&own).expect("a folder");
    let text = format!(
        "[host.\"http://{}\".header]\nauthorization = \"Basic bWU6c2VjcmV0\"\n",
        source.server.address()
    );
    fs_err::write(own.join("hosts.toml"), text).expect("a file");
    push(&["push", &pushed]);
}

#[test]
fn builds_on_exact_bases() {
    let Some(engine) = WindowsEngine::start_or_skip() else { return };
    let (source, target) = (Shop::open(), Shop::open());
    let app = App::new(&engine, &[]);
    app.put(&source, "1", false, |_| ());
    for blob in &app.base_blobs {
        source.content().add_blob(LAYER, blob.clone());
    }
    let image = source.name("team/app:1");
    let built = target.name("other/app:2");
    let context = engine.scratch().join("context");
    fs_err::create_dir_all(&context).expect("a folder");
    let path = context.display().to_string();
    let upon = |steps: &str, more: &[&str]| {
        let dockerfile = format!("FROM {image}\nCOPY Dockerfile C:/made/\n{steps}\n");
        fs_err::write(context.join("Dockerfile"), dockerfile).expect("a file");
        engine.silo(&[&["build", "-t", &built, &path], more].concat())
    };
    // On Silo's base first: the layers come when they are asked for.
    engine.ok(&["pull", &image]);
    assert!(!source.has_seen(&app.base_digests()[0]));
    let outcome = upon("", &["--base=exact"]);
    assert_eq!(outcome.code, 0, "{}", outcome.stderr);
    assert!(!outcome.stderr.contains("stands on"), "{}", outcome.stderr);
    let shown = inspect(&engine, &built);
    assert!(shown.get("StandIn").is_none());
    assert_eq!(shown["RootFS"]["Layers"][1], app.diff_ids()[1]);
    engine.ok(&["push", &built]);
    let manifest: Value = serde_json::from_slice(&target.manifest("2")).expect("JSON");
    assert_eq!(manifest["layers"].as_array().map(Vec::len), Some(4));
    for (at, digest) in app.base_digests().iter().enumerate() {
        assert_eq!(manifest["layers"][at]["digest"], **digest);
        assert_eq!(target.content().blobs.get(digest), Some(&app.base_blobs[at]));
    }
    let outcome = upon("RUN echo no", &["--base=exact"]);
    assert_eq!(outcome.code, 1);
    assert!(outcome.stderr.contains("has Microsoft's own base layers"), "{}", outcome.stderr);
    // It is there now, and is said also without the option, until the image comes anew.
    let outcome = upon("RUN echo no", &[]);
    assert!(outcome.stderr.contains("has Microsoft's own base layers"), "{}", outcome.stderr);
    let outcome = upon("RUN echo yes> made.txt", &["--pull"]);
    assert_eq!(outcome.code, 0, "{}", outcome.stderr);
    let outcome = upon("", &["--base=banana"]);
    assert!(outcome.stderr.contains("invalid value for base"), "{}", outcome.stderr);
}

#[test]
fn bases_that_are_lies() {
    let Some(engine) = WindowsEngine::start_or_skip() else { return };
    let source = Shop::open();
    // Takes away what the base has: its registry, and its system.
    let app = App::new(
        &engine,
        &[
            directory("Files/Windows"),
            directory("Files/Windows/System32"),
            directory("Files/Windows/System32/config"),
            file("Files/Windows/System32/config/.wh.SOFTWARE", ""),
            file("Files/Windows/System32/config/.wh.SYSTEM", ""),
            file("Files/Windows/System32/.wh.kernel32.dll", ""),
        ],
    );
    let fails = |tag: &str, words: &str| {
        let outcome = engine.docker(&["pull", &source.name(&format!("team/lie:{tag}"))]);
        assert_ne!(outcome.code, 0, "{tag}");
        assert!(outcome.stderr.contains(words), "{tag}: {}", outcome.stderr);
    };
    app.put(&source, "holes", true, |_| ());
    let holes = source.name("team/lie:holes");
    let outcome = engine.docker(&["run", "--rm", &holes, "cmd", "/c", "echo still here"]);
    assert!(outcome.code != 0 || outcome.stdout.contains("still here"), "{}", outcome.stderr);
    // The base beneath is whole for everybody else.
    let output = engine.ok(&["run", "--rm", "silo/servercore:ltsc2019", "cmd", "/c", "echo fine"]);
    assert!(output.contains("fine"), "{output}");

    for (tag, version) in
        [("banana", "banana"), ("huge", "10.0.99999999999.1"), ("old", "6.1.7601")]
    {
        app.put(&source, tag, true, |config| config["os.version"] = version.into());
        fails(tag, "is no build of Windows that Silo has a base for");
    }
    app.put(&source, "many", true, |config| {
        config["rootfs"]["diff_ids"] = json!(vec![sha256(b"x"); 10_000]);
    });
    fails("many", "10000 layers, at most 1024");

    // Layers that are elsewhere, but not Microsoft's, are asked for without credentials.
    let inside = Scripted::start(|_| Reply::new(404, "no"));
    let manifest = {
        let mut content = source.content();
        let config = content.manifests.get("holes").expect("a manifest").1.clone();
        let mut manifest: Value = serde_json::from_slice(&config).expect("JSON");
        let url = format!("http://{}/secret", inside.address());
        manifest["layers"][0]["urls"] = json!([url]);
        manifest["layers"][1]["urls"] = json!([url]);
        content.add_manifest("inside", MANIFEST, manifest.to_string().into_bytes());
        manifest
    };
    fails("inside", "404");
    let asked = inside.asked();
    assert!(!asked.is_empty(), "{manifest}");
    assert!(asked.iter().all(|asked| asked.header("authorization").is_empty()));
}
