//! Other people's clients and `silo registry serve`.

use serde_json::{Value, json};
use silo_tests::{Dockerd, Engine, Podman};

use super::shapes::push_attested;
use super::{DOCKER_LIST, OCI_MANIFEST, Remote, userland};
use crate::registryd::{self, has_or_skip, run, sha256};

/// dockerd, and Docker's command line on its own.
#[test]
fn docker() {
    let Some(docker) = Dockerd::start_or_skip() else { return };
    let directory = tempfile::tempdir().expect("a directory");
    let path = |name: &str| directory.path().join(name).display().to_string();
    fs_err::write(path("base.tar"), userland()).expect("a file");
    fs_err::write(path("users"), format!("ann:{}\n", registryd::clients::HASH)).expect("a file");
    fs_err::write(path("access"), "ann delete **\n- pull public/*\n").expect("a file");
    let options = ["--htpasswd", &path("users"), "--access", &path("access")];
    let registry = registryd::Registry::start_with(&options);
    let (address, image) = (&registry.address, format!("{}/team/app", registry.address));
    docker.ok(&["import", "-c", "CMD cat /said", &path("base.tar"), &format!("{image}:v1")]);
    let refused = docker.docker(&["push", &format!("{image}:v1")]);
    assert!(refused.stderr.contains("no basic auth credentials"), "{}", refused.stderr);
    let wrong = docker.docker(&["login", "-u", "ann", "-p", "wrong", address]);
    assert!(wrong.stderr.contains("401 Unauthorized"), "{}", wrong.stderr);
    let said = docker.ok(&["login", "-u", "ann", "-p", "secret", address]);
    assert!(said.contains("Login Succeeded"), "{said}");
    docker.ok(&["push", "-q", &format!("{image}:v1")]);
    docker.ok(&["tag", &format!("{image}:v1"), &format!("{image}:v2")]);
    let pushed = docker.ok(&["push", &format!("{image}:v2")]);
    assert!(pushed.contains("Layer already exists"), "{pushed}");
    docker.ok(&["tag", &format!("{image}:v1"), &format!("{address}/other/app:v1")]);
    let pushed = docker.ok(&["push", &format!("{address}/other/app:v1")]);
    assert!(pushed.contains("Mounted from team/app"), "{pushed}");

    // A list of two, made by the command line alone.
    let list = format!("{image}:all");
    let manifest = |words: &[&str]| docker.ok(&[&["manifest"], words].concat());
    let parts = [format!("{image}:v1"), format!("{image}:v2")];
    manifest(&["create", "--insecure", &list, &parts[0], &parts[1]]);
    manifest(&["annotate", &list, &parts[1], "--os", "linux", "--arch", "arm64"]);
    manifest(&["push", "--insecure", &list]);
    let inspected = manifest(&["inspect", "--insecure", &list]);
    let inspected: Value = serde_json::from_str(&inspected).expect("JSON");
    assert_eq!(inspected["mediaType"], DOCKER_LIST);
    let mut found: Vec<_> = inspected["manifests"].as_array().expect("a list").iter().collect();
    found.sort_by_key(|entry| entry["platform"]["architecture"].to_string());
    assert_eq!(found[0]["platform"]["architecture"], "amd64");

    let ids = docker.ok(&["images", "-aq"]);
    docker.ok(&[&["rmi", "-f"], &ids.lines().take(1).collect::<Vec<_>>()[..]].concat());
    docker.ok(&["pull", "-q", &list]);
    let all = docker.ok(&["pull", "-a", "-q", &image]);
    assert!(all.contains("team/app"), "{all}");
    let tags = docker.ok(&["images", &image, "--format", "{{.Tag}}"]);
    for tag in ["v1", "v2", "all"] {
        assert!(tags.lines().any(|line| line == tag), "{tag}: {tags}");
    }
    let public = format!("{address}/public/app:v1");
    docker.ok(&["tag", &format!("{image}:v1"), &public]);
    docker.ok(&["push", "-q", &public]);
    docker.ok(&["logout", address]);
    // Once a registry has asked for a password, it goes nowhere without one, public or not.
    for name in [&format!("{image}:v1"), &public] {
        let refused = docker.docker(&["pull", name]);
        assert!(refused.stderr.contains("no basic auth credentials"), "{}", refused.stderr);
    }
}

/// Projects of Compose's: what they build goes out, and what they run comes.
#[test]
fn compose() {
    let engine = Engine::start();
    if !engine.is_silo_or_skip("the registry is for one engine alone")
        || !engine.has_plugins_or_skip()
    {
        return;
    }
    let registry = registryd::Registry::start();
    let image = format!("{}/project/web:v1", registry.address);
    let file = format!("services:\n  web:\n    image: {image}\n    build: .\n");
    let scratch = engine.scratch().join("project");
    let dockerfile = "FROM busybox\nRUN echo composed > /said\n";
    silo_tests::write_files(&scratch, &[("compose.yaml", &file), ("Dockerfile", dockerfile)]);
    let file = scratch.join("compose.yaml").display().to_string();
    engine.ok(&["build", "-q", "-t", &image, &scratch.display().to_string()]);
    let compose = |words: &[&str]| engine.ok(&[&["compose", "-f", &file], words].concat());
    compose(&["push", "-q"]);
    engine.ok(&["rmi", "-f", &image]);
    compose(&["pull", "-q"]);
    assert_eq!(
        engine.ok(&["run", "--rm", "--network", "none", &image, "cat", "/said"]),
        "composed"
    );
}

/// Lists that Podman makes of images that are there already.
#[test]
fn podman_manifest() {
    let Some(podman) = Podman::new_or_skip() else { return };
    let Some(engine) = super::shapes::silo_engine() else { return };
    let registry = registryd::Registry::start();
    let remote = Remote::new(&registry.address);
    let (index, _) = push_attested(&remote, "app", "v1");
    let list = remote.name("list:v1");
    let to = format!("docker://{list}");
    podman.ok(&["manifest", "create", "list"]);
    let add = ["manifest", "add", "--all", "--tls-verify=false", "list"];
    podman.ok(&[&add[..], &[&format!("docker://{}@{index}", remote.name("app"))]].concat());
    podman.ok(&["manifest", "push", "--all", "--tls-verify=false", "list", &to]);
    let pushed = registry.get("/v2/list/manifests/v1").json();
    assert_eq!(pushed["manifests"].as_array().map(Vec::len), Some(3), "{pushed}");
    let run = ["run", "--rm", "--network", "none", &list];
    assert_eq!(engine.ok(&run), "hello");
}

/// A registry, and another one in a directory or in Debian's, as Skopeo keeps them alike.
#[test]
fn skopeo_copies_and_syncs_everything() {
    let test = "interop::clients::skopeo_copies_and_syncs_everything";
    if !has_or_skip(test, &["skopeo"]) {
        return;
    }
    let (one, other) = (registryd::Registry::start(), registryd::Registry::start());
    let remote = Remote::new(&one.address);
    let (index, proof) = push_attested(&remote, "app", "v1");
    push_attested(&remote, "app", "v2");
    let directory = tempfile::tempdir().expect("a directory");
    let layout = format!("oci:{}:x", directory.path().join("layout").display());
    let plain = ["--src-tls-verify=false", "--dest-tls-verify=false"];
    let copy = |from: &str, to: &str| {
        run("skopeo", &[&["copy", "-q", "--all"], &plain[..], &[from, to]].concat());
    };
    copy(&format!("docker://{}/app:v1", one.address), &layout);
    copy(&layout, &format!("docker://{}/from-layout:v1", other.address));
    let sync = ["sync", "--all", "--src", "docker", "--dest", "docker"];
    let from = format!("{}/app", one.address);
    run("skopeo", &[&sync[..], &plain, &[&from, &other.address]].concat());
    for name in ["from-layout/manifests/v1", "app/manifests/v1", "app/manifests/v2"] {
        let answer = other.get(&format!("/v2/{name}"));
        assert_eq!(answer.header("docker-content-digest"), Some(&index[..]), "{name}");
    }
    assert_eq!(other.get(&format!("/v2/app/manifests/{proof}")).status, 200);
    let tags = other.get("/v2/app/tags/list").json()["tags"].clone();
    assert_eq!(tags, json!(["v1", "v2"]));
}

/// What clients of artifacts do: things of any type, and things about others.
#[test]
fn artifacts() {
    let registry = registryd::Registry::start();
    let remote = Remote::new(&registry.address);
    let (index, _) = push_attested(&remote, "app", "v1");
    let subject = json!({
        "mediaType": super::OCI_INDEX, "digest": index,
        "size": registry.get("/v2/app/manifests/v1").body.len(),
    });
    let empty = b"{}";
    let text = b"a bill of materials";
    let mut manifest = json!({
        "schemaVersion": 2,
        "mediaType": OCI_MANIFEST,
        "artifactType": "application/spdx+json",
        "config": {
            "mediaType": "application/vnd.oci.empty.v1+json",
            "digest": remote.blob("app", empty), "size": empty.len(), "data": "e30=",
        },
        "layers": [{
            "mediaType": "application/spdx+json",
            "digest": remote.blob("app", text), "size": text.len(),
            "annotations": { "org.opencontainers.image.title": "sbom.json" },
        }],
        "annotations": { "org.opencontainers.image.created": "2026-01-01T00:00:00Z" },
    });
    // By itself, under a tag.
    remote.manifest("app", "sbom", OCI_MANIFEST, &manifest);
    // About the image: the registry says that it keeps account of that.
    manifest["subject"] = subject;
    let bytes = manifest.to_string();
    let target = format!("/v2/app/manifests/{}", sha256(bytes.as_bytes()));
    let put = remote.send("PUT", &target, &[("Content-Type", OCI_MANIFEST)], bytes.as_bytes());
    assert_eq!(put.header("oci-subject"), Some(&index[..]), "{}", put.text());
    let about = format!("/v2/app/referrers/{index}");
    let found = registry.get(&about).json();
    assert_eq!(found["manifests"][0]["artifactType"], "application/spdx+json", "{found}");
    assert_eq!(found["manifests"][0]["digest"], sha256(bytes.as_bytes()).as_str());
    let none = registry.get(&format!("{about}?artifactType=application/other")).json();
    assert_eq!(none["manifests"], json!([]));
    // Clients for registries without such lists keep them under a tag of that form.
    let fallback = index.replace(':', "-");
    let list = json!({
        "schemaVersion": 2, "mediaType": super::OCI_INDEX, "manifests": found["manifests"],
    });
    remote.manifest("app", &fallback, super::OCI_INDEX, &list);
    let kept = registry.get(&format!("/v2/app/manifests/{fallback}")).json();
    assert_eq!(kept["manifests"], found["manifests"]);
}

/// Whether a client says that it was refused. On a `HEAD` it has the status only.
fn is_denied(errors: &str) -> bool {
    errors.contains("denied") || errors.contains("403 (Forbidden)")
}

/// Rights to repositories, as several clients meet them.
#[test]
fn rights() {
    let Some(podman) = Podman::new_or_skip() else { return };
    if !has_or_skip("interop::clients::rights", &["skopeo"]) {
        return;
    }
    let directory = tempfile::tempdir().expect("a directory");
    let path = |name: &str| directory.path().join(name).display().to_string();
    let hash = registryd::clients::HASH;
    fs_err::write(path("users"), format!("ann:{hash}\nbob:{hash}\n")).expect("a file");
    let rules = "ann delete team/**\nbob pull team/app\nbob push bob/**\n- pull public/*\n";
    fs_err::write(path("access"), rules).expect("a file");
    let options = ["--htpasswd", &path("users"), "--access", &path("access")];
    let registry = registryd::Registry::start_with(&options);
    let name = |name: &str| format!("docker://{}/{name}", registry.address);
    let skopeo = |words: &[&str]| {
        let output = std::process::Command::new("skopeo").args(words).output();
        silo_tests::Outcome::from(output.expect("run skopeo"))
    };
    let copy = |user: &str, from: &str, to: &str| {
        let user = format!("{user}:secret");
        let plain = ["copy", "-q", "--src-tls-verify=false", "--dest-tls-verify=false"];
        let source = if from.starts_with("docker:") { &["--src-creds", &user][..] } else { &[] };
        let target = if to.starts_with("docker:") { &["--dest-creds", &user][..] } else { &[] };
        skopeo(&[&plain[..], source, target, &[from, to]].concat())
    };
    fs_err::write(path("base.tar"), userland()).expect("a file");
    podman.ok(&["import", "-q", &path("base.tar"), "base"]);
    let layout = format!("oci:{}:x", path("layout"));
    podman.ok(&["push", "-q", "base", &layout]);

    let done = copy("ann", &layout, &name("team/app:v1"));
    assert_eq!(done.code, 0, "{}", done.stderr);
    let refused = copy("ann", &layout, &name("bob/app:v1"));
    assert!(is_denied(&refused.stderr), "{}", refused.stderr);
    let refused = copy("bob", &layout, &name("team/app:v2"));
    assert!(is_denied(&refused.stderr), "{}", refused.stderr);
    let done = copy("bob", &name("team/app:v1"), &name("bob/app:v1"));
    assert_eq!(done.code, 0, "{}", done.stderr);
    let delete = |user: &str| {
        let user = format!("{user}:secret");
        skopeo(&["delete", "--tls-verify=false", "--creds", &user, &name("team/app:v1")])
    };
    assert_ne!(delete("bob").code, 0);
    // Nobody without a name, but where it says so.
    let bare = |name: &str| registry.get(&format!("/v2/{name}/tags/list")).status;
    assert_eq!((bare("team/app"), bare("public/app")), (401, 404));
    assert_eq!(registry.get("/v2/").status, 401);
    fs_err::write(path("access"), format!("{rules}ann push public/*\n")).expect("a file");
    let done = copy("ann", &layout, &name("public/app:v1"));
    assert_eq!(done.code, 0, "{}", done.stderr);
    let inspect = ["inspect", "--raw", "--tls-verify=false", "--no-creds", &name("public/app:v1")];
    assert_eq!(skopeo(&inspect).code, 0, "{}", skopeo(&inspect).stderr);
    let puller = Engine::start_empty();
    if puller.is_silo_or_skip("another engine asks for a name first") {
        let public = format!("{}/public/app:v1", registry.address);
        puller.ok(&["pull", "-q", &public]);
        puller.ok(&["login", "-u", "bob", "-p", "secret", &registry.address]);
        let tag = |name: &str| {
            let name = format!("{}/{name}", registry.address);
            puller.ok(&["tag", &public, &name]);
            name
        };
        let refused = puller.docker(&["push", &tag("team/silo:v1")]);
        let said = "denied: requested access to the resource is denied";
        assert!(refused.stderr.contains(said), "{}", refused.stderr);
        puller.ok(&["push", "-q", &tag("bob/silo:v1")]);
    }

    // Podman's and Docker's way: a login, and then everything by it.
    let login = ["login", "--tls-verify=false", "-u", "bob", "-p", "secret", &registry.address];
    podman.ok(&login);
    podman.ok(&["pull", "-q", "--tls-verify=false", &format!("{}/team/app:v1", registry.address)]);
    let push = ["push", "-q", "--tls-verify=false", "base"];
    let refused = podman.podman(&[&push[..], &[&name("team/base:v1")]].concat());
    assert!(is_denied(&refused.stderr), "{}", refused.stderr);
    podman.ok(&[&push[..], &[&name("bob/base:v1")]].concat());

    // What exists is seen by those who may pull it, and content taken from there only.
    let ask = |user: &str, method: &str, target: &str| {
        let basic = match user {
            "ann" => "Basic YW5uOnNlY3JldA==",
            _ => "Basic Ym9iOnNlY3JldA==",
        };
        registry.send(method, target, &[("Authorization", basic)], b"")
    };
    let seen = |user: &str| ask(user, "GET", "/v2/_catalog?n=2").json()["repositories"].clone();
    assert_eq!(seen("ann"), json!(["public/app", "team/app"]));
    assert_eq!(seen("bob"), json!(["bob/app", "bob/base"]));
    let more = ask("bob", "GET", "/v2/_catalog?n=2&last=bob/base").json()["repositories"].clone();
    assert_eq!(more, json!(["bob/silo", "team/app"]));
    let nameless = registry.get("/v2/_catalog").json()["repositories"].clone();
    assert_eq!(nameless, json!(["public/app"]));
    let secret = super::filter(&["head", "-c", "100", "/dev/urandom"], b"");
    let digest = sha256(&secret);
    let to = format!("/v2/team/secret/blobs/uploads/?digest={digest}");
    let basic = [("Authorization", "Basic YW5uOnNlY3JldA==")];
    assert_eq!(registry.send("POST", &to, &basic, &secret).status, 201);
    for from in ["", "&from=team/secret"] {
        let mount = format!("/v2/bob/taken/blobs/uploads/?mount={digest}{from}");
        assert_eq!(ask("bob", "POST", &mount).status, 202, "{from}");
    }
    let mount = format!("/v2/team/taken/blobs/uploads/?mount={digest}&from=team/secret");
    assert_eq!(ask("ann", "POST", &mount).status, 201);
    assert_eq!(delete("ann").code, 0);
}
