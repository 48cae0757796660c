//! Images to and from Debian's `docker-registry`.

mod full;
mod kills;
mod memory;
mod resume;

use std::process::Command;

use silo_tests::{Engine, Registry};

/// An engine with `busybox`, and a registry that has it as `lib/busybox:1`.
fn pushed() -> Option<(Engine, Registry, String)> {
    let registry = Registry::start_or_skip()?;
    let engine = Engine::start();
    if !engine.is_silo_or_skip("the registry is for one engine alone") {
        return None;
    }
    let name = registry.name("lib/busybox:1");
    engine.ok(&["tag", "busybox", &name]);
    engine.ok(&["push", &name]);
    Some((engine, registry, name))
}

/// Forgets every image.
fn forget(engine: &Engine) {
    // An image that others were committed from goes after them.
    for _ in 0..8 {
        let ids = engine.ok(&["images", "-aq", "--no-trunc"]);
        for id in ids.lines().collect::<std::collections::BTreeSet<_>>() {
            engine.docker(&["rmi", "-f", id]);
        }
    }
    assert_eq!(engine.ok(&["images", "-aq"]), "");
}

#[test]
fn an_image_goes_and_comes_back() {
    let Some((engine, registry, name)) = pushed() else { return };
    let again = engine.ok(&["push", &name]);
    assert!(again.contains(": Layer already exists"), "{again}");
    let digest = again.split("1: digest: ").nth(1).and_then(|rest| rest.split(' ').next());
    let digest = digest.expect("a digest").to_owned();
    let repository = name.trim_end_matches(":1");
    let by_digest = format!("{repository}@{digest}");
    let listed = engine.ok(&["images", "--digests", "--format", "{{.Repository}}@{{.Digest}}"]);
    assert!(listed.contains(&by_digest), "{listed}");
    // In the same registry a layer needs to be sent once.
    let other = registry.name("other/app:2");
    engine.ok(&["tag", "busybox", &other]);
    let mounted = engine.ok(&["push", &other]);
    assert!(mounted.contains(": Mounted from lib/busybox"), "{mounted}");

    forget(&engine);
    let pulled = engine.ok(&["pull", &name]);
    for words in ["1: Pulling from lib/busybox", ": Pull complete", &format!("Digest: {digest}")] {
        assert!(pulled.contains(words), "{words}: {pulled}");
    }
    assert!(pulled.contains(&format!("Status: Downloaded newer image for {name}")), "{pulled}");
    let pulled = engine.ok(&["pull", &name]);
    assert!(pulled.contains(&format!("Status: Image is up to date for {name}")), "{pulled}");
    assert_eq!(engine.ok(&["run", "--rm", &name, "echo", "hello"]), "hello");
    // What came goes out as the same.
    let back = engine.ok(&["push", &name]);
    assert!(back.contains(&digest), "{back}");

    forget(&engine);
    assert_eq!(engine.ok(&["run", "--rm", &by_digest, "echo", "by digest"]), "by digest");
    forget(&engine);
    let all = engine.ok(&["pull", "-a", repository]);
    assert!(all.contains("1: Pulling from lib/busybox"), "{all}");
}

#[test]
fn both_command_lines_pull_what_is_missing() {
    let Some((engine, _registry, name)) = pushed() else { return };
    let image = engine.ok(&["inspect", "-f", "{{.Id}}", "busybox"]);
    forget(&engine);
    let never = engine.silo(&["run", "--rm", "--pull", "never", &name, "true"]);
    assert_eq!(never.code, 125, "{}", never.stderr);
    let outcome = engine.silo(&["run", "--rm", &name, "echo", "hello"]);
    assert_eq!((outcome.code, outcome.stdout.as_str()), (0, "hello\n"), "{}", outcome.stderr);
    assert!(outcome.stderr.contains(&format!("Unable to find image '{name}' locally")));
    assert!(outcome.stderr.contains("Pull complete"), "{}", outcome.stderr);
    forget(&engine);
    let outcome = engine.silo(&["pull", "-q", &name]);
    assert_eq!((outcome.code, outcome.stdout.trim()), (0, name.as_str()), "{}", outcome.stderr);
    let outcome = engine.silo(&["push", &name]);
    assert!(outcome.stdout.contains("1: digest: sha256:"), "{}", outcome.stdout);
    assert_eq!(engine.ok(&["inspect", "-f", "{{.Id}}", &name]), image);
    let pull = engine.docker(&["run", "--rm", "--pull", "always", &name, "echo", "hello"]);
    assert_eq!(pull.stdout, "hello\n", "{}", pull.stderr);
    assert!(pull.stderr.contains("Image is up to date"), "{}", pull.stderr);
}

#[test]
fn images_come_go_and_are_removed_at_once() {
    const ROUNDS: usize = 6;
    let Some((mut engine, _registry, name)) = pushed() else { return };
    let gone = ["No such image: ", "An image does not exist locally with the tag: "];
    let repeat = |arguments: &[&str], refusals: &[&str]| {
        for _ in 0..ROUNDS {
            let outcome = engine.silo(arguments);
            let known = refusals.iter().any(|words| outcome.stderr.contains(words));
            assert!(outcome.code == 0 || known, "{arguments:?}: {}", outcome.stderr);
        }
    };
    std::thread::scope(|scope| {
        scope.spawn(|| repeat(&["pull", "-q", &name], &[]));
        scope.spawn(|| repeat(&["push", "-q", &name], &gone));
        scope.spawn(|| repeat(&["rmi", "-f", &name], &gone));
        scope.spawn(|| repeat(&["tag", &name, "other:1"], &gone));
        let busy = ["a prune operation is already running"];
        repeat(&["image", "prune", "-af"], &busy);
    });
    // Whatever is left is whole, and what is pulled again is as well.
    let run = |engine: &Engine| {
        for id in engine.ok(&["images", "-q", "--no-trunc"]).lines() {
            assert_eq!(engine.ok(&["run", "--rm", id, "echo", "whole"]), "whole");
        }
    };
    run(&engine);
    engine.ok(&["pull", &name]);
    run(&engine);
    engine.stop_daemon();
    engine.start_daemon();
    run(&engine);
    let log = engine.daemon_log();
    assert!(!log.contains("is dropped"), "{log}");
}

#[test]
fn absent_images_are_named() {
    let Some((engine, registry, name)) = pushed() else { return };
    let fails = |arguments: &[&str], words: &str| {
        let outcome = engine.docker(arguments);
        assert_ne!(outcome.code, 0, "{arguments:?}");
        assert!(outcome.stderr.contains(words), "{arguments:?}: {}", outcome.stderr);
    };
    let tag = format!("{}:no", name.trim_end_matches(":1"));
    fails(&["pull", &tag], &format!("manifest for {tag} not found: manifest unknown"));
    let absent = registry.name("absent");
    fails(&["run", &absent, "true"], &format!("manifest for {absent}:latest not found"));
    fails(&["push", &absent], "An image does not exist locally with the tag: ");
    fails(
        &["pull", "--platform", "linux/s390x", &name],
        "does not match the specified platform (linux/s390x)",
    );
    fails(&["pull", "127.0.0.1:1/x"], "dial tcp 127.0.0.1:1: connect: connection refused");
    fails(&["pull", "scratch"], "'scratch' is a reserved name");
}

#[test]
fn layers_made_here_go_out_and_others_read_them() {
    let Some((engine, registry, name)) = pushed() else { return };
    let app = registry.name("my/app:2");
    let container = engine.ok(&["create", &name, "sh", "-c", "echo made > /made; rm /bin/vi"]);
    engine.ok(&["start", "-a", &container]);
    engine.ok(&["commit", &container, &app]);
    engine.ok(&["rm", &container]);
    engine.ok(&["push", &app]);
    forget(&engine);
    assert_eq!(engine.ok(&["run", "--rm", &app, "cat", "/made"]), "made");
    assert_ne!(engine.docker(&["run", "--rm", &app, "ls", "/bin/vi"]).code, 0);

    if which("skopeo") {
        let copy = registry.name("zstd/app:3");
        let (from, to) = (format!("docker://{app}"), format!("docker://{copy}"));
        let output = Command::new("skopeo")
            .args(["copy", "-q", "--src-tls-verify=false", "--dest-tls-verify=false"])
            .args(["--dest-compress-format", "zstd", &from, &to])
            .output()
            .expect("run skopeo");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        forget(&engine);
        assert_eq!(engine.ok(&["run", "--rm", &copy, "cat", "/made"]), "made");
    } else {
        silo_tests::skip("layers_made_here_go_out_and_others_read_them", "skopeo is not here");
    }
}

fn which(program: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).any(|folder| folder.join(program).exists())
}

#[test]
fn builds_pull_their_base() {
    let Some((engine, _registry, name)) = pushed() else { return };
    forget(&engine);
    let folder = engine.scratch();
    fs_err::write(folder.join("Dockerfile"), format!("FROM {name}\nRUN echo built > /built\n"))
        .expect("a Dockerfile");
    let folder = folder.to_str().expect("a path");
    let mut classic = engine.docker_command();
    let output = classic.env("DOCKER_BUILDKIT", "0").args(["build", "-t", "one", folder]).output();
    let output = output.expect("run docker");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert_eq!(engine.ok(&["run", "--rm", "one", "cat", "/built"]), "built");
    forget(&engine);
    let outcome = engine.silo(&["build", "-t", "two", folder]);
    assert_eq!(outcome.code, 0, "{}", outcome.stderr);
    assert_eq!(engine.ok(&["run", "--rm", "two", "cat", "/built"]), "built");
}

#[test]
fn passwords() {
    let Some(registry) = Registry::start_with_password_or_skip() else { return };
    let engine = Engine::start();
    if !engine.is_silo_or_skip("the registry is for one engine alone") {
        return;
    }
    let (address, name) = (registry.address(), registry.name("private:1"));
    engine.ok(&["tag", "busybox", &name]);
    let refused = engine.docker(&["push", &name]);
    assert!(refused.stderr.contains("no basic auth credentials"), "{}", refused.stderr);
    let wrong = engine.docker(&["login", "-u", "me", "-p", "wrong", address]);
    assert!(wrong.stderr.contains("unauthorized: authentication required"), "{}", wrong.stderr);
    let good = engine.docker(&["login", "-u", "me", "-p", "secret", address]);
    assert_eq!(good.code, 0, "{}", good.stderr);
    engine.ok(&["push", &name]);
    forget(&engine);
    engine.ok(&["pull", "-q", &name]);
    engine.ok(&["logout", address]);
    let refused = engine.silo(&["pull", &name]);
    assert!(refused.stderr.contains("no basic auth credentials"), "{}", refused.stderr);
    // The same by Silo's own command line, whose file both read.
    let wrong = engine.silo(&["login", "-u", "me", "-p", "wrong", address]);
    assert!(wrong.stderr.contains("unauthorized"), "{}", wrong.stderr);
    let good = engine.silo(&["login", "-u", "me", "-p", "secret", address]);
    assert_eq!((good.code, good.stdout.as_str()), (0, "Login Succeeded\n"), "{}", good.stderr);
    engine.ok(&["pull", "-q", &name]);
    let again = engine.silo(&["login", address]);
    assert_eq!(again.code, 0, "{}", again.stderr);
    let out = engine.silo(&["logout", address]);
    assert_eq!(out.stdout, format!("Removing login credentials for {address}\n"));
    let refused = engine.docker(&["pull", &name]);
    assert!(refused.stderr.contains("no basic auth credentials"), "{}", refused.stderr);
}

#[test]
fn what_a_registry_has_can_be_looked_at() {
    let Some((engine, _registry, name)) = pushed() else { return };
    let response = engine.http("GET", &format!("/distribution/{name}/json"), "");
    assert_eq!(response.status, 200);
    let body: serde_json::Value = serde_json::from_slice(&response.body).expect("JSON");
    assert_eq!(body["Platforms"][0]["os"], "linux");
    for id in [format!("sha256:{}", "0".repeat(64)), "0".repeat(64)] {
        let refused = engine.http("GET", &format!("/distribution/{id}/json"), "");
        assert_eq!(
            (refused.status, refused.message().as_str()),
            (400, "no manifest found for full image ID")
        );
    }
    let digest = body["Descriptor"]["digest"].as_str().expect("a digest");
    let listed = engine.ok(&["images", "--digests", "--format", "{{.Digest}}"]);
    assert!(listed.contains(digest), "{listed}");
}

#[test]
fn damaged_blobs_are_refused() {
    let Some((engine, registry, name)) = pushed() else { return };
    let manifest = engine.http("GET", &format!("/distribution/{name}/json"), "");
    let body: serde_json::Value = serde_json::from_slice(&manifest.body).expect("JSON");
    let path = registry.blob(body["Descriptor"]["digest"].as_str().expect("a digest"));
    let manifest: serde_json::Value =
        serde_json::from_slice(&fs_err::read(path).expect("the manifest")).expect("JSON");
    let layer = manifest["layers"][0]["digest"].as_str().expect("a digest").to_owned();
    let blob = registry.blob(&layer);
    let mut bytes = fs_err::read(&blob).expect("the layer");
    let middle = bytes.len() / 2;
    bytes[middle] ^= 0xff;
    fs_err::write(&blob, bytes).expect("damage the layer");
    forget(&engine);
    let outcome = engine.docker(&["pull", &name]);
    assert_ne!(outcome.code, 0, "{}", outcome.stdout);
    assert_eq!(engine.ok(&["images", "-q"]), "");
    let layers = fs_err::read_dir(engine.data_root().join("layers")).expect("layers").count();
    assert_eq!(layers, 0);
}

#[test]
fn kills_in_the_middle_leave_a_store_that_goes_on() {
    use std::io::{BufRead as _, BufReader};
    let Some((mut engine, registry, name)) = pushed() else { return };
    let app = registry.name("big/app:1");
    // Layers that take a while, one on the other.
    let mut below = name;
    for number in 0..3 {
        let command = format!("dd if=/dev/urandom of=/big{number} bs=1M count=12");
        let container = engine.ok(&["create", &below, "sh", "-c", &command]);
        engine.ok(&["start", "-a", &container]);
        engine.ok(&["commit", &container, &app]);
        engine.ok(&["rm", &container]);
        below.clone_from(&app);
    }
    engine.ok(&["push", &app]);
    let mut forgotten = 0;
    for round in 0..24 {
        if round % 4 == 0 {
            forget(&engine);
            forgotten += 1;
        }
        let mut pull = engine
            .docker_command()
            .args(["pull", &app])
            .stdout(std::process::Stdio::piped())
            .stderr(std::process::Stdio::null())
            .spawn()
            .expect("start docker");
        // Each round gets a line further.
        let output = BufReader::new(pull.stdout.take().expect("its output"));
        let seen = output.lines().map_while(Result::ok).take(1 + round).count();
        engine.kill_daemon();
        pull.wait().expect("wait for docker");
        assert!(seen > 0, "round {round}");
        engine.start_daemon();
        let layers = fs_err::read_dir(engine.data_root().join("layers")).expect("layers");
        for layer in layers {
            let layer = layer.expect("a layer").file_name().into_string().expect("a name");
            assert!(!layer.starts_with('.'), "round {round}: {layer}");
        }
    }
    assert_eq!(forgotten, 6);
    engine.ok(&["pull", &app]);
    assert_eq!(engine.ok(&["run", "--rm", &app, "sh", "-c", "cat /big* | wc -c"]), "37748736");
    let partial = engine.data_root().join("content/partial");
    assert_eq!(fs_err::read_dir(partial).expect("what came in part").count(), 0);
}
