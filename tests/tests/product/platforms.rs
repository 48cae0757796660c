//! Images for several platforms under one name: kept, chosen, moved and removed.

use serde_json::{Value, json};
use silo_tests::{Engine, Registry, write_files};

const BOTH: [&str; 2] = ["linux/amd64", "linux/arm64"];

/// Builds an image for both platforms, each with its own file.
fn build(engine: &Engine, name: &str) {
    let context = engine.scratch().join("context");
    fs_err::create_dir_all(&context).expect("a directory");
    let dockerfile = "FROM scratch\nARG TARGETARCH\nCOPY file-$TARGETARCH /file\nCMD [\"/x\"]\n";
    let files = [("Dockerfile", dockerfile), ("file-amd64", "amd64"), ("file-arm64", "arm64")];
    write_files(&context, &files);
    let path = context.to_str().expect("text");
    let done = engine.silo(&["build", "-q", "--platform", &BOTH.join(","), "-t", name, path]);
    assert_eq!(done.code, 0, "{}\n{}", done.stderr, engine.daemon_log());
}

fn silo_only() -> Option<Engine> {
    let engine = Engine::start_empty();
    let reason = "older engines have one platform to a name";
    engine.is_silo_or_skip(reason).then_some(engine)
}

fn host() -> &'static str {
    if cfg!(target_arch = "aarch64") { "arm64" } else { "amd64" }
}

/// What a container of an image has in its file.
fn file_for(engine: &Engine, platform: Option<&str>, name: &str) -> String {
    let mut arguments = vec!["create", "--pull", "never"];
    arguments.extend(platform.map(|_| "--platform"));
    arguments.extend(platform);
    arguments.push(name);
    let made = engine.silo(&arguments);
    assert_eq!(made.code, 0, "{platform:?}: {}", made.stderr);
    let container = made.stdout.trim();
    let to = engine.scratch().join("copied");
    engine.ok(&["cp", &format!("{container}:/file"), to.to_str().expect("text")]);
    engine.ok(&["rm", container]);
    fs_err::read_to_string(to).expect("a file")
}

/// The images that the API tells of behind a name: platform and whether it is there.
fn manifests(engine: &Engine, name: &str) -> Vec<(String, bool)> {
    let target = format!("/v1.50/images/{name}/json?manifests=1");
    let inspected = engine.http("GET", &target, "").json();
    let list = inspected["Manifests"].as_array().expect("manifests").clone();
    let image = |one: &Value| {
        let platform = &one["ImageData"]["Platform"];
        let text = |key: &str| platform[key].as_str().expect("text").to_owned();
        let name = format!("{}/{}", text("os"), text("architecture"));
        (name, one["Available"].as_bool().expect("a truth"))
    };
    list.iter().map(image).collect()
}

fn both(first: bool, second: bool) -> Vec<(String, bool)> {
    vec![(BOTH[0].to_owned(), first), (BOTH[1].to_owned(), second)]
}

#[test]
fn several_platforms_under_one_name() {
    let Some(engine) = silo_only() else { return };
    let name = engine.name("both");
    build(&engine, &name);
    // One line, for this host's.
    assert_eq!(engine.ok(&["images", "-q"]).lines().count(), 1);
    let own = engine.http("GET", &format!("/v1.41/images/{name}/json"), "").json();
    assert_eq!(own["Architecture"], host());
    assert!(own.get("Manifests").is_none() && own.get("Descriptor").is_none(), "{own}");
    assert_eq!(file_for(&engine, None, &name), host());
    for platform in BOTH {
        let architecture = &platform["linux/".len()..];
        assert_eq!(file_for(&engine, Some(platform), &name), architecture);
        let wanted = ["image", "inspect", "-f", "{{.Architecture}}", "--platform", platform, &name];
        assert_eq!(engine.silo(&wanted).stdout.trim(), architecture);
    }
    let refused = engine.silo(&["create", "--pull", "never", "--platform", "linux/s390x", &name]);
    let said = format!(
        "image with reference {name} was found but does not provide the specified platform \
         (linux/s390x): there is linux/amd64, linux/arm64"
    );
    assert!(refused.stderr.contains(&said), "{}", refused.stderr);
    assert_eq!(manifests(&engine, &name), both(true, true));
    // Old clients see a plain image; new ones the list where they ask for it.
    let line = engine.ok(&["images", "--format", "{{.Repository}}:{{.Tag}}"]);
    assert_eq!(line, format!("{name}:latest"));
    let plain = engine.http("GET", "/v1.24/images/json", "").json();
    assert_eq!(plain.as_array().expect("images").len(), 1);
    assert!(plain[0].get("Manifests").is_none() && plain[0].get("Descriptor").is_none());
    let listed = engine.http("GET", "/v1.47/images/json?manifests=1", "").json();
    assert_eq!(listed[0]["Manifests"].as_array().expect("manifests").len(), 2);
    let tree = engine.silo(&["images", "--tree"]).stdout;
    assert!(tree.contains("├─ linux/amd64") && tree.contains("└─ linux/arm64"), "{tree}");

    // Another name has both; a container of the other platform knows its name.
    let other = engine.name("other");
    engine.ok(&["tag", &name, &other]);
    let made = engine.silo(&["create", "--platform", BOTH[1], &other]).stdout;
    let shown = engine.ok(&["ps", "-a", "--format", "{{.Image}}"]);
    assert_eq!(shown, other);
    engine.ok(&["rmi", &name]);
    assert_eq!(manifests(&engine, &other), both(true, true));
    let refused = engine.docker(&["rmi", &other]);
    assert!(refused.stderr.contains("is using its referenced image"), "{}", refused.stderr);
    engine.ok(&["rm", made.trim()]);

    // Archives have both, or the one that is asked for.
    let archive = engine.scratch().join("saved.tar");
    let path = archive.to_str().expect("text");
    engine.ok(&["save", "-o", path, &other]);
    engine.ok(&["rmi", &other]);
    assert_eq!(engine.ok(&["images", "-aq"]), "");
    let loaded = engine.ok(&["load", "-i", path]);
    assert_eq!(loaded, format!("Loaded image: {other}:latest"));
    assert_eq!(manifests(&engine, &other), both(true, true));
    let removed = engine.silo(&["rmi", "--platform", BOTH[0], &other]);
    assert_eq!(removed.code, 0, "{}", removed.stderr);
    assert_eq!(manifests(&engine, &other), both(false, true));
    assert_eq!(engine.inspect(&other)["Architecture"], "arm64");
    let again = engine.silo(&["load", "-i", path, "--platform", BOTH[0]]);
    assert_eq!(again.code, 0, "{}", again.stderr);
    assert_eq!(manifests(&engine, &other), both(true, true));
    let one = engine.silo(&["save", "-o", path, "--platform", BOTH[1], &other]);
    assert_eq!(one.code, 0, "{}", one.stderr);
    engine.ok(&["rmi", "-f", &other]);
    assert_eq!(engine.ok(&["images", "-aq"]), "");
    engine.ok(&["load", "-i", path]);
    assert_eq!(engine.inspect(&other)["Architecture"], "arm64");
    assert_eq!(manifests(&engine, &other), both(false, true)[1..]);
}

#[test]
fn names_of_several_platforms_outlive_the_daemon() {
    let Some(mut engine) = silo_only() else { return };
    let name = engine.name("both");
    build(&engine, &name);
    engine.kill_daemon();
    engine.start_daemon();
    assert_eq!(manifests(&engine, &name), both(true, true));
    // What goes leaves no garbage, what stays is whole.
    let other = if host() == "amd64" { BOTH[1] } else { BOTH[0] };
    engine.silo(&["rmi", "--platform", other, &name]);
    engine.ok(&["image", "prune", "-f"]);
    engine.kill_daemon();
    engine.start_daemon();
    assert_eq!(manifests(&engine, &name).iter().filter(|(_, here)| *here).count(), 1);
    assert_eq!(file_for(&engine, None, &name), host());
    engine.ok(&["image", "prune", "-af"]);
    let blobs = engine.data_root().join("content/blobs/sha256");
    assert_eq!(fs_err::read_dir(blobs).expect("blobs").count(), 0);
}

/// The digest in what a push or a pull says.
fn digest(text: &str) -> String {
    let start = text.find("sha256:").expect("a digest");
    text[start..start + 71].to_owned()
}

#[test]
fn an_index_goes_to_a_registry_and_comes_back_in_parts() {
    let Some(registry) = Registry::start_or_skip() else { return };
    let Some(engine) = silo_only() else { return };
    let name = registry.name("lib/both:1");
    build(&engine, &name);
    let pushed = engine.ok(&["push", &name]);
    let pushed = digest(pushed.lines().find(|line| line.contains("digest:")).expect("a digest"));
    engine.ok(&["rmi", "-f", &name]);
    assert_eq!(engine.ok(&["images", "-aq"]), "");

    let foreign = if host() == "amd64" { BOTH[1] } else { BOTH[0] };
    let pulled = engine.ok(&["pull", "--platform", foreign, &name]);
    assert!(pulled.contains(&format!("Digest: {pushed}")), "{pulled}");
    let here = |platform: &str| platform == foreign;
    assert_eq!(manifests(&engine, &name), both(here(BOTH[0]), here(BOTH[1])));
    assert_ne!(engine.inspect(&name)["Architecture"], host());
    // All that the index names is in the repository, so that it goes whole.
    let beside = registry.name("lib/both:2");
    engine.ok(&["tag", &name, &beside]);
    assert!(engine.ok(&["push", &beside]).contains(&pushed));
    // Elsewhere it is not: the one that there is goes alone, and clients are told.
    let elsewhere = registry.name("other/one:1");
    engine.ok(&["tag", &name, &elsewhere]);
    let (repository, tag) = elsewhere.rsplit_once(':').expect("a tag");
    let target = format!("/v1.50/images/{repository}/push?tag={tag}");
    let said = engine.http("POST", &target, "").body;
    let said = String::from_utf8_lossy(&said).into_owned();
    assert!(said.contains("manifestPushedInsteadOfIndex") && said.contains(&pushed), "{said}");
    let said = engine.silo(&["push", &elsewhere]).stderr;
    assert!(said.contains("only the available single-platform image was pushed"), "{said}");
    engine.ok(&["rmi", &elsewhere]);
    engine.ok(&["pull", "--platform", foreign, &elsewhere]);
    assert_eq!(manifests(&engine, &elsewhere).len(), 1);
    engine.ok(&["rmi", &elsewhere, &beside]);

    // The second platform comes beside the first when it is needed, and is what the name stands
    // for from then on.
    let own = format!("linux/{}", host());
    let made = engine.ok(&["create", "--platform", &own, &name]);
    engine.ok(&["rm", &made]);
    assert_eq!(manifests(&engine, &name), both(true, true));
    let inspected = engine.inspect(&name);
    assert_eq!(inspected["Architecture"], host());
    let repository = name.rsplit_once(':').expect("a tag").0;
    assert_eq!(inspected["RepoDigests"], json!([format!("{repository}@{pushed}")]));
    assert_eq!(engine.ok(&["images", "-q"]).lines().count(), 1);
    let again = engine.ok(&["pull", &name]);
    assert!(again.contains("Image is up to date"), "{again}");
    let by_digest = format!("{repository}@{pushed}");
    assert_eq!(file_for(&engine, Some(foreign), &by_digest), foreign["linux/".len()..]);
    // By digest of the index, and of one of its manifests.
    let target = format!("/v1.50/images/{name}/json?manifests=1");
    let list = engine.http("GET", &target, "").json()["Manifests"].clone();
    for one in list.as_array().expect("manifests") {
        let manifest = one["ID"].as_str().expect("a digest");
        let platform = &one["ImageData"]["Platform"]["architecture"];
        assert_eq!(&engine.inspect(manifest)["Architecture"], platform);
    }
    assert_eq!(engine.inspect(&pushed)["Architecture"], host());
    // Both are here now, and go as they came.
    engine.ok(&["tag", &name, &elsewhere]);
    assert!(engine.ok(&["push", &elsewhere]).contains(&pushed));
    // Only one of them, if it is asked for.
    let alone = registry.name("other/alone:1");
    engine.ok(&["tag", &name, &alone]);
    let sent = engine.silo(&["push", "--platform", foreign, &alone]);
    assert_eq!(sent.code, 0, "{}", sent.stderr);
    assert!(!sent.stdout.contains(&pushed), "{}", sent.stdout);
    engine.ok(&["rmi", &alone]);
    engine.ok(&["pull", "--platform", foreign, &alone]);
    assert_eq!(manifests(&engine, &alone).len(), 1);
    // An id that no name stands for is one image; the digest of an index is all of it.
    let id = engine.ok(&["inspect", "-f", "{{.Id}}", &alone]);
    engine.ok(&["rmi", "-f", &alone, &elsewhere]);
    engine.ok(&["rmi", &id]);
    assert_eq!(manifests(&engine, &name).iter().filter(|(_, here)| *here).count(), 1);
    engine.ok(&["rmi", &pushed]);
    assert_eq!(engine.ok(&["images", "-aq"]), "");
}
