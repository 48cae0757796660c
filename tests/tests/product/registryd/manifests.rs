//! `manifest`, by Docker's command line and by Silo's: one makes what the other reads.

use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::json;

use super::{Registry, files_below, has_or_skip, noise, run};

/// One of the command lines, with a configuration of its own.
struct Client {
    program: PathBuf,
    config: PathBuf,
}

impl Client {
    fn new(program: impl Into<PathBuf>, config: PathBuf) -> Self {
        Self { program: program.into(), config }
    }

    fn try_run(&self, arguments: &[&str]) -> (i32, String, String) {
        let output = Command::new(&self.program)
            .env("DOCKER_CONFIG", &self.config)
            .env("DOCKER_CLI_EXPERIMENTAL", "enabled")
            .env("DOCKER_HOST", "unix:///nonexistent/docker.sock")
            .arg("manifest")
            .args(arguments)
            .output()
            .expect("run a command line");
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        (output.status.code().unwrap_or(-1), text(&output.stdout), text(&output.stderr))
    }

    fn run(&self, arguments: &[&str]) -> String {
        let (code, output, errors) = self.try_run(arguments);
        assert_eq!(code, 0, "{} {arguments:?}: {errors}", self.program.display());
        output
    }

    /// Files below the configuration, with what is in them.
    fn lists(&self) -> Vec<(PathBuf, String)> {
        let mut found: Vec<(PathBuf, String)> = files_below(&self.config.join("manifests"))
            .into_iter()
            .map(|path| {
                let text = fs_err::read_to_string(&path).expect("a file of a list");
                (path.strip_prefix(&self.config).expect("a path").to_owned(), text)
            })
            .collect();
        found.sort();
        found
    }
}

/// Two images, one of them of another repository.
fn images(registry: &Registry, mark: &str) -> [String; 2] {
    ["arm64", "amd64"].map(|architecture| {
        let config = json!({"os": "linux", "architecture": architecture, "variant": "v8"});
        let config = config.to_string();
        let repository = if architecture == "arm64" { "team/arm" } else { "team/app" };
        let config_digest = registry.blob(repository, config.as_bytes());
        let layer = registry.blob(repository, &noise(7, 1000));
        let kind = "application/vnd.docker.distribution.manifest.v2+json";
        let manifest = json!({
            "schemaVersion": 2,
            "mediaType": kind,
            "config": {
                "mediaType": "application/vnd.docker.container.image.v1+json",
                "digest": config_digest,
                "size": config.len(),
            },
            "layers": [{
                "mediaType": "application/vnd.docker.image.rootfs.diff.tar.gzip",
                "digest": layer,
                "size": 1000,
                "annotations": {"x": mark},
            }],
        });
        // Old clients make the bytes again, with the space that Docker once put between.
        let bytes = serde_json::to_string_pretty(&manifest).expect("a manifest");
        let bytes: Vec<String> = bytes
            .lines()
            .map(|line| {
                let words = line.trim_start_matches(' ');
                format!("{}{words}", "   ".repeat((line.len() - words.len()) / 2))
            })
            .collect();
        let bytes = bytes.join("\n").into_bytes();
        let target = format!("/v2/{repository}/manifests/{architecture}");
        let answer = registry.send("PUT", &target, &[("Content-Type", kind)], &bytes);
        assert_eq!(answer.status, 201, "{}", answer.text());
        format!("{}/{repository}:{architecture}", registry.address)
    })
}

/// Without what only newer clients keep.
fn without_raw(text: &str) -> String {
    let mut out = String::new();
    for (index, part) in text.split("\"Raw\":").enumerate() {
        // It has no comma within.
        out.push_str(if index == 0 { part } else { part.split_once(',').expect("more").1.trim() });
    }
    out
}

/// Makes, changes and pushes a list; gives all that was said.
fn session(client: &Client, registry: &Registry, images: &[String; 2]) -> Vec<String> {
    let list = format!("{}/team/app:all", registry.address);
    let plain = |verb: &str| [verb.to_owned(), "--insecure".to_owned()];
    let run = |head: &[String], rest: &[&str]| {
        let all: Vec<&str> = head.iter().map(String::as_str).chain(rest.iter().copied()).collect();
        client.run(&all)
    };
    let [arm, amd] = images;
    let annotate = ["annotate".to_owned()];
    vec![
        run(&plain("create"), &[&list, arm, amd]),
        run(
            &annotate,
            &["--os-features", "a,b", "--variant", "v9", "--os-version", "1.2", &list, arm],
        ),
        run(&plain("inspect"), &[&list, arm]),
        run(&plain("inspect"), &["-v", &list, arm]),
        run(&plain("inspect"), &[&list]),
        run(&plain("inspect"), &["--verbose", &list]),
        run(&plain("inspect"), &[arm]),
        run(&plain("inspect"), &["-v", amd]),
        run(&plain("push"), &[&list]),
    ]
}

fn against(program: &str, has_raw: bool) {
    let plain = |text: &str| {
        if has_raw { text.to_owned() } else { without_raw(text).split_whitespace().collect() }
    };
    let registry = Registry::start();
    let directory = registry.directory.path();
    // Old clients change these.
    let images = images(&registry, if has_raw { "<&>" } else { "x" });
    let client = |program: &Path, name: &str| Client::new(program, directory.join(name));
    let docker = client(Path::new(program), "docker");
    let silo = client(&silo_tests::silo_binary(), "silo");
    let said = session(&docker, &registry, &images);
    let answered = registry.get("/v2/team/app/manifests/all");
    assert_eq!(answered.status, 200, "{}", answered.text());
    assert_eq!(registry.send("DELETE", "/v2/team/app/manifests/all", &[], b"").status, 202);
    for (ours, theirs) in session(&silo, &registry, &images).iter().zip(&said) {
        assert_eq!(plain(ours), plain(theirs));
    }
    assert_eq!(registry.get("/v2/team/app/manifests/all").body, answered.body);
    for (ours, theirs) in silo.lists().iter().zip(&docker.lists()) {
        assert_eq!((&ours.0, plain(&ours.1)), (&theirs.0, plain(&theirs.1)));
    }
    assert_eq!(silo.lists().len(), 2);
    // A list in the registry, and one that the other made.
    let list = format!("{}/team/app:all", registry.address);
    for client in [&docker, &silo] {
        client.run(&["rm", &list]);
        assert_eq!(client.try_run(&["rm", &list]).0, 1);
    }
    for verbose in
        [&["inspect", "--insecure", list.as_str()][..], &["inspect", "--insecure", "-v", &list]]
    {
        assert_eq!(plain(&silo.run(verbose)), plain(&docker.run(verbose)));
    }
    let both = Client::new(program, directory.join("silo"));
    silo.run(&["create", "--insecure", &list, &images[0]]);
    both.run(&["create", "--insecure", "--amend", &list, &images[1]]);
    assert_eq!(silo.run(&["push", "--purge", &list]), both_digest(&registry));
    assert!(silo.try_run(&["inspect", &list, &images[0]]).2.contains("No such manifest"));
}

/// What is said of the list that was pushed last.
fn both_digest(registry: &Registry) -> String {
    let list = registry.get("/v2/team/app/manifests/all");
    let arm = list.json()["manifests"][1]["digest"].as_str().expect("a digest").to_owned();
    let digest = super::sha256(&list.body);
    format!("Pushed ref {}/team/app@{arm} with digest: {arm}\n{digest}\n", registry.address)
}

/// The first number of a client's version; `None`, with the test counted as skipped, without one.
fn version_or_skip(test: &str, program: &str) -> Option<u32> {
    if !has_or_skip(test, &[program]) {
        return None;
    }
    let said = run(program, &["--version"]);
    let number = said.strip_prefix("Docker version ").and_then(|rest| rest.split('.').next());
    Some(number.and_then(|number| number.parse().ok()).expect("a version"))
}

/// Since when clients keep the bytes of manifests.
const RAW: u32 = 25;

#[test]
fn like_docker() {
    let program = std::env::var("SILO_TEST_DOCKER_CLI").unwrap_or_else(|_| "docker".to_owned());
    if let Some(version) = version_or_skip("registryd::manifests::like_docker", &program) {
        against(&program, version >= RAW);
    }
}

#[test]
fn what_is_wrong_is_said() {
    let registry = Registry::start();
    let images = images(&registry, "x");
    let silo = Client::new(silo_tests::silo_binary(), registry.directory.path().join("silo"));
    let list = format!("{}/team/app:all", registry.address);
    let absent = format!("{}/team/app:no", registry.address);
    silo.run(&["create", &list, &images[0]]);
    for (arguments, said) in [
        (
            &["create", list.as_str(), &images[1]][..],
            "refusing to amend an existing manifest list with no --amend flag",
        ),
        (&["create", "x", &absent], &format!("no such manifest: {absent}")),
        (&["inspect", &absent], &format!("no such manifest: {absent}")),
        (&["inspect", &list, &images[1]], &format!("No such manifest: {}", images[1])),
        (&["annotate", &list, &images[1], "--os", "linux"], "does not exist in"),
        (
            &["annotate", &list, &images[0], "--arch", "z80"],
            "unsupported os/arch combination: linux/z80",
        ),
        (&["push", &absent], &format!("No such manifest: {absent}")),
        (&["rm", &absent, "UPPER"], "must be lowercase"),
        (&["create", "UPPER", "x"], "error parsing name for manifest list UPPER"),
    ] {
        let (code, _, errors) = silo.try_run(arguments);
        assert_eq!(code, 1, "{arguments:?}");
        assert!(errors.contains(said), "{arguments:?}: {errors}");
    }
    let other = Registry::start();
    let foreign = format!("{}/team/app:all", other.address);
    silo.run(&["create", &foreign, &images[0]]);
    let errors = silo.try_run(&["push", &foreign]).2;
    assert!(errors.contains("cannot use source images from a different registry"), "{errors}");
    // A file that is damaged.
    let folder = list.replace(':', "-").replace('/', "_");
    let file = files_below(&registry.directory.path().join("silo/manifests").join(folder));
    fs_err::write(&file[0], "{\"Ref\": \"x\"").expect("a damaged file");
    let (code, _, errors) = silo.try_run(&["inspect", &list]);
    assert!(code == 1 && errors.contains("EOF while parsing"), "{errors}");
}
