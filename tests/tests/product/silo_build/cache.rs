//! The build cache leaves an engine and comes to another one.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

use fs_err as fs;
use silo_tests::{Engine, Outcome, Registry};

use super::{context, engine};

const DOCKERFILE: &str = "FROM busybox AS first\n\
    ENV A=b\n\
    RUN --mount=type=cache,id=kept,target=/cache echo content > /cache/file; chmod 750 /cache\n\
    COPY f /f\n\
    RUN cat /f > /g\n\
    FROM busybox\n\
    COPY --from=first /g /g\n\
    WORKDIR /w/x\n";

/// Runs `silo`, which must succeed; what it wrote.
#[track_caller]
fn silo(engine: &Engine, arguments: &[&str]) -> Outcome {
    let done = engine.silo(arguments);
    assert_eq!(done.code, 0, "{arguments:?}\n{}\n{}", done.stderr, engine.daemon_log());
    done
}

/// Builds, and tells the image's layers and whether every step came from the cache.
#[track_caller]
fn build(engine: &Engine, path: &Path, more: &[&str]) -> (String, bool, String) {
    let id = path.join("id");
    let mut arguments = vec!["build", "--progress=plain", "--iidfile", id.to_str().expect("text")];
    arguments.extend(more);
    arguments.push(path.to_str().expect("text"));
    let built = silo(engine, &arguments);
    let steps = built.stderr.matches("/4] RUN").count()
        + built.stderr.matches("/4] COPY").count()
        + built.stderr.matches("/3] COPY").count()
        + built.stderr.matches("/3] WORKDIR").count();
    assert!(steps > 0, "{}", built.stderr);
    let cached = built.stderr.lines().filter(|line| line.ends_with("CACHED")).count();
    let layers = engine.inspect(&fs::read_to_string(&id).expect("an id"))["RootFS"].to_string();
    (layers, cached >= 5, built.stderr)
}

/// What a cache mount holds, as a step sees it.
fn mounted(engine: &Engine) -> String {
    let at = context(
        engine,
        &[(
            "Dockerfile",
            "FROM busybox\nRUN --mount=type=cache,id=kept,target=/cache \
             echo \"is $(cat /cache/file) $(stat -c %a /cache)\"\n",
        )],
    );
    silo(engine, &["build", "--no-cache", "--progress=plain", at.to_str().expect("text")]).stderr
}

fn sample(engine: &Engine) -> PathBuf {
    context(engine, &[("Dockerfile", DOCKERFILE), ("f", "file\n")])
}

#[test]
fn steps_and_cache_mounts_travel() {
    let Some(one) = engine() else { return };
    let (layers, cached, output) = build(&one, &sample(&one), &[]);
    assert!(!cached, "{output}");
    let archive = one.scratch().join("cache.tar");
    let archive = archive.to_str().expect("text");
    silo(&one, &["builder", "cache", "export", archive]);
    let directory = one.scratch().join("layout");
    let directory = format!("{}/", directory.display());
    silo(&one, &["builder", "cache", "export", &directory]);
    drop(one.silo(&["builder", "prune", "-af"]));

    let two = Engine::start();
    let said = silo(&two, &["builder", "cache", "import", archive]).stdout;
    assert!(said.contains("5 new steps") && said.contains("1 cache mount\n"), "{said}");
    let (same, cached, output) = build(&two, &sample(&two), &[]);
    assert!(cached, "{output}");
    assert_eq!(same, layers);
    assert!(mounted(&two).contains("is content 750"));
    // A directory does the same, also where the cache was pruned, and through a pipe.
    for source in [directory.as_str(), "-"] {
        silo(&two, &["builder", "prune", "-af"]);
        assert!(mounted(&two).contains("is  755"));
        if source == "-" {
            let mut command = two.silo_command();
            let input = fs::File::open(archive).expect("an archive").into_file();
            command.args(["builder", "cache", "import", "-"]).stdin(Stdio::from(input));
            assert!(command.status().expect("silo").success());
        } else {
            silo(&two, &["builder", "cache", "import", source]);
        }
        let (same, cached, output) = build(&two, &sample(&two), &[]);
        assert!(cached && same == layers, "{output}");
        assert!(mounted(&two).contains("is content 750"));
    }
    let again = silo(&two, &["builder", "cache", "import", archive]).stdout;
    assert!(again.contains("0 new steps, 0 new layers"), "{again}");
}

/// Waits until nothing is left of what was read.
#[track_caller]
fn nothing_is_left(engine: &Engine) {
    let scratch = engine.data_root().join("build/scratch");
    let end = Instant::now() + Duration::from_mins(1);
    while fs::read_dir(&scratch).into_iter().flatten().count() > 0 {
        assert!(Instant::now() < end, "left behind\n{}", engine.daemon_log());
        rustix::thread::sched_yield();
    }
}

#[test]
fn a_cache_that_is_damaged_or_cut_changes_nothing() {
    let Some(mut engine) = engine() else { return };
    build(&engine, &sample(&engine), &[]);
    let whole = engine.scratch().join("cache.tar");
    silo(&engine, &["builder", "cache", "export", whole.to_str().expect("text")]);
    let bytes = fs::read(&whole).expect("an archive");
    let write =
        "FROM busybox\nRUN --mount=type=cache,id=kept,target=/cache echo new > /cache/file\n";
    let at = context(&engine, &[("Dockerfile", write)]);
    silo(&engine, &["build", "-q", at.to_str().expect("text")]);
    let damaged = engine.scratch().join("damaged.tar");
    let path = damaged.to_str().expect("text");
    // The files of the cache mount are among the last blobs, the first ones are layers.
    let content = bytes.windows(8).rposition(|window| window == b"content\n").expect("the file");
    for (name, change) in [
        (
            "another byte",
            Box::new(move |bytes: &mut Vec<u8>| bytes[content] ^= 1) as Box<dyn Fn(&mut Vec<u8>)>,
        ),
        ("cut", Box::new(|bytes| bytes.truncate(bytes.len() / 2))),
        ("no tar", Box::new(|bytes| bytes.fill(b'x'))),
    ] {
        let mut bad = bytes.clone();
        change(&mut bad);
        fs::write(&damaged, bad).expect("a file");
        let refused = engine.silo(&["builder", "cache", "import", path]);
        assert_eq!(refused.code, 1, "{name}: {}", refused.stdout);
        assert!(refused.stderr.contains("invalid archive of a build cache"), "{}", refused.stderr);
        nothing_is_left(&engine);
        assert!(mounted(&engine).contains("is new 750"), "{name}");
    }
    // A daemon that is killed while a cache comes in has the old one.
    let mut command = engine.silo_command();
    command.args(["builder", "cache", "import", "-"]).stdin(Stdio::piped());
    let mut child = command.stderr(Stdio::null()).spawn().expect("silo starts");
    let mut input = child.stdin.take().expect("a pipe");
    input.write_all(&bytes[..bytes.len() - 2048]).expect("written");
    engine.kill_daemon();
    drop(input);
    assert!(!child.wait().expect("silo ends").success());
    engine.start_daemon();
    nothing_is_left(&engine);
    assert!(mounted(&engine).contains("is new 750"));
    silo(&engine, &["builder", "cache", "import", whole.to_str().expect("text")]);
    assert!(mounted(&engine).contains("is content 750"));
    let bad = engine.silo(&["builder", "cache", "move", "x"]);
    assert!(bad.stderr.contains("there are export and import"), "{}", bad.stderr);
}

/// Steps, by words of theirs, that were carried out and not taken from a cache.
fn carried_out<'a>(output: &str, steps: &[&'a str]) -> Vec<&'a str> {
    let is_cached = |step: &str| {
        output.lines().any(|line| {
            let number = line.split(' ').next().unwrap_or_default();
            line.contains(step) && output.contains(&format!("{number} CACHED"))
        })
    };
    steps.iter().copied().filter(|step| !is_cached(step)).collect()
}

const STEPS: [&str; 5] =
    ["RUN --mount", "COPY f /f", "RUN cat /f", "COPY --from=first", "WORKDIR /w/x"];

#[test]
fn a_build_takes_steps_from_a_directory() {
    let Some(one) = engine() else { return };
    let directory = one.scratch().join("cache");
    let (max, min) = (directory.join("max"), directory.join("min"));
    let to = format!("type=local,dest={},mode=max,compression=uncompressed", max.display());
    let (layers, ..) = build(&one, &sample(&one), &["--cache-to", &to]);
    let to = format!("type=local,dest={},tag=small", min.display());
    build(&one, &sample(&one), &["--cache-to", &to]);

    // Each engine is new: what it has comes from the directory.
    let from = format!("type=local,src={}", max.display());
    let two = Engine::start();
    let (same, cached, output) = build(&two, &sample(&two), &["--cache-from", &from]);
    assert!(cached && same == layers, "{output}");
    assert_eq!(carried_out(&output, &STEPS), [""; 0], "{output}");
    // What was taken is the engine's own from then on.
    let (_, cached, output) = build(&two, &sample(&two), &[]);
    assert!(cached, "{output}");

    let three = Engine::start();
    let from = format!("type=local,src={},tag=small", min.display());
    let (_, _, output) = build(&three, &sample(&three), &["--cache-from", &from]);
    assert_eq!(carried_out(&output, &STEPS), STEPS[1..3], "{output}");

    // A layer that is not what it was is not taken; the build goes on without it.
    let four = Engine::start();
    let mut blobs: Vec<_> = fs::read_dir(max.join("blobs/sha256"))
        .expect("blobs")
        .map(|entry| entry.expect("a blob").path())
        .collect();
    blobs.retain(|blob| fs::read(blob).expect("a blob").get(257..262) == Some(b"ustar"));
    assert!(!blobs.is_empty());
    for blob in blobs {
        let mut bytes = fs::read(&blob).expect("a blob");
        bytes[0] ^= 1;
        fs::write(&blob, bytes).expect("a blob");
    }
    let from = format!("type=local,src={}", max.display());
    let (_, _, output) = build(&four, &sample(&four), &["--cache-from", &from]);
    assert!(output.contains("the cache has this step, but:"), "{output}");
    assert!(carried_out(&output, &STEPS).contains(&"RUN cat /f"), "{output}");
}

#[test]
fn an_image_is_a_cache() {
    let Some(one) = engine() else { return };
    let name = one.name("cache");
    let (layers, ..) = build(&one, &sample(&one), &["-t", &name, "--cache-to", "type=inline"]);
    let archive = one.scratch().join("image.tar");
    one.ok(&["save", "-o", archive.to_str().expect("text"), &name]);
    let two = Engine::start();
    two.ok(&["load", "-i", archive.to_str().expect("text")]);
    let (same, _, output) = build(&two, &sample(&two), &["--cache-from", &name]);
    assert_eq!(carried_out(&output, &STEPS), STEPS[1..3], "{output}");
    assert_eq!(same, layers, "{output}");
    // An image that is made from it says nothing of its base's steps.
    let at = context(&two, &[("Dockerfile", &format!("FROM {name}\nENV x=y\n"))]);
    let derived = two.name("derived");
    silo(&two, &["build", "-q", "-t", &derived, at.to_str().expect("text")]);
    two.ok(&["save", "-o", archive.to_str().expect("text"), &derived]);
    let saved = fs::read(&archive).expect("an archive");
    assert!(!saved.windows(22).any(|window| window == b"moby.buildkit.cache.v0"));
}

#[test]
fn caches_that_are_not_there_are_said() {
    let Some(engine) = engine() else { return };
    let at = sample(&engine);
    let path = at.to_str().expect("text");
    for (arguments, said) in [
        (["--cache-to", "type=registry,mode=max"], "registry cache exporter requires ref"),
        (["--cache-to", "127.0.0.1:1/x/y"], "connection refused"),
        (["--cache-to", "type=gha"], "unknown cache exporter: \"gha\""),
        (["--cache-to", "type=local"], "local cache exporter requires dest"),
        (["--cache-to", "mode=max"], "type is required"),
        (["--cache-from", "type=s3,bucket=x"], "unknown cache importer: \"s3\""),
        (["--cache-from", "type=local"], "local cache importer requires src"),
    ] {
        let refused = engine.silo(&["build", arguments[0], arguments[1], path]);
        assert_eq!(refused.code, 1, "{arguments:?}");
        assert!(refused.stderr.contains(said), "{arguments:?}\n{}", refused.stderr);
    }
    // What is to be read and is not there is no reason to stop.
    let (_, _, output) = build(&engine, &at, &["--cache-from", "127.0.0.1:1/has/this"]);
    assert!(output.contains("importing cache manifest from 127.0.0.1:1/has/this"), "{output}");
    assert!(output.contains("connection refused"), "{output}");
    let missing = format!("type=local,src={}", at.join("none").display());
    let (_, _, output) = build(&engine, &at, &["--cache-from", &missing]);
    assert!(output.contains("skipped: no digest found for tag latest"), "{output}");
}

#[test]
fn steps_travel_by_a_registry() {
    let Some(one) = engine() else { return };
    let Some(registry) = Registry::start_with_password_or_skip() else { return };
    let to = format!("type=registry,ref={},mode=max", registry.name("team/cache:main"));
    let from = format!("type=registry,ref={}", registry.name("team/cache:main"));
    let refused = one.silo(&["build", "--cache-to", &to, sample(&one).to_str().expect("text")]);
    assert_eq!(refused.code, 1);
    assert!(refused.stderr.contains("no basic auth credentials"), "{}", refused.stderr);
    silo(&one, &["login", "-u", "me", "-p", "secret", registry.address()]);
    // There is none yet, which is said and ends nothing.
    let (layers, _, output) =
        build(&one, &sample(&one), &["--cache-from", &from, "--cache-to", &to]);
    assert!(output.contains("importing cache manifest from"), "{output}");
    assert!(output.contains("exporting cache to registry"), "{output}");

    let two = Engine::start();
    let cache = ["--cache-from", from.as_str()];
    let (_, cached, output) = build(&two, &sample(&two), &cache);
    assert!(!cached && output.contains("no basic auth credentials"), "{output}");
    silo(&two, &["builder", "prune", "-af"]);
    silo(&two, &["login", "-u", "me", "-p", "secret", registry.address()]);
    let (same, cached, output) = build(&two, &sample(&two), &cache);
    assert!(cached, "{output}");
    assert_eq!(same, layers);
    // An image has what it has of a cache, which may be nothing.
    let image = registry.name("team/image:1");
    two.ok(&["tag", "busybox", &image]);
    silo(&two, &["push", &image]);
    two.ok(&["rmi", &image]);
    let (_, _, output) = build(&two, &sample(&two), &["--cache-from", &image]);
    assert!(output.contains("importing cache manifest from"), "{output}");
    assert!(!output.contains("ERROR"), "{output}");
}

#[test]
fn an_image_in_a_registry_is_a_cache() {
    let Some(one) = engine() else { return };
    let Some(registry) = Registry::start_with_password_or_skip() else { return };
    let login = |engine: &Engine| {
        silo(engine, &["login", "-u", "me", "-p", "secret", registry.address()]);
    };
    login(&one);
    let name = registry.name("team/image:1");
    let (layers, ..) =
        build(&one, &sample(&one), &["-t", &name, "--cache-to", "type=inline", "--push"]);
    let both = "--platform=linux/amd64,linux/arm64";
    let list = registry.name("team/list:1");
    let scratch = context(&one, &[("Dockerfile", "FROM scratch\nCOPY f /f\n"), ("f", "file\n")]);
    let path = scratch.to_str().expect("text");
    silo(&one, &["build", both, "-t", &list, "--cache-to", "type=inline", "--push", path]);

    let two = Engine::start();
    login(&two);
    let (same, _, output) = build(&two, &sample(&two), &["--cache-from", &name]);
    assert_eq!(carried_out(&output, &STEPS), STEPS[1..3], "{output}");
    assert_eq!(same, layers, "{output}");
    assert_ne!(two.docker(&["image", "inspect", &name]).code, 0, "it was pulled");
    let from = format!("type=registry,ref={list}");
    let done = silo(&two, &["build", "--progress=plain", "--cache-from", &from, path]);
    assert_eq!(carried_out(&done.stderr, &["COPY f /f"]), [""; 0], "{}", done.stderr);
}

#[test]
fn caches_have_the_form_that_is_asked_for() {
    let Some(one) = engine() else { return };
    let Some(registry) = Registry::start_or_skip() else { return };
    let directory = one.scratch().join("cache");
    let local = format!("dest={}", directory.display());
    let oci_layer = "application/vnd.oci.image.layer.v1.tar";
    for (tag, more, kind, layer) in [
        ("usual", "", "oci.image.manifest", &format!("{oci_layer}+gzip")),
        (
            "zstd",
            ",compression=zstd,compression-level=2",
            "oci.image.manifest",
            &format!("{oci_layer}+zstd"),
        ),
        (
            "plain",
            ",compression=uncompressed,force-compression=true",
            "oci.image.manifest",
            &oci_layer.to_owned(),
        ),
        ("index", ",image-manifest=false", "oci.image.index", &format!("{oci_layer}+gzip")),
        (
            "docker",
            ",oci-mediatypes=false",
            "docker.distribution.manifest.list",
            &"application/vnd.docker.image.rootfs.diff.tar.gzip".to_owned(),
        ),
    ] {
        let to = format!("type=registry,mode=max,ref={}{more}", registry.name(&format!("c:{tag}")));
        let here = format!("type=local,mode=max,{local},tag={tag}{more}");
        let (layers, ..) = build(&one, &sample(&one), &["--cache-to", &to]);
        build(&one, &sample(&one), &["--cache-to", &here]);
        let digest = registry.digest("c", tag).expect("the cache");
        let document = registry.document(&digest);
        let media_type = document["mediaType"].as_str().expect("a type");
        assert!(media_type.contains(kind), "{tag}: {media_type}");
        let named = document["layers"].as_array().or(document["manifests"].as_array());
        let named =
            named.expect("layers").iter().filter(|blob| blob["mediaType"] == layer.as_str());
        assert!(named.count() >= 3, "{tag}: {document}");
        // The same documents are in the directory.
        let path = directory.join("blobs").join(digest.replace(':', "/"));
        let own: serde_json::Value =
            serde_json::from_slice(&fs::read(path).expect("the document")).expect("JSON");
        assert_eq!(own, document, "{tag}");
        for from in [
            format!("type=registry,ref={}", registry.name(&format!("c:{tag}"))),
            format!("type=local,src={},tag={tag}", directory.display()),
        ] {
            silo(&one, &["builder", "prune", "-af"]);
            let (same, cached, output) = build(&one, &sample(&one), &["--cache-from", &from]);
            assert!(cached && same == layers, "{from}: {output}");
        }
    }
    let at = sample(&one);
    let nowhere = ["build", "--cache-to", "type=registry,ref=127.0.0.1:1/x,ignore-error=true"];
    silo(&one, &[&nowhere[..], &[at.to_str().expect("text")]].concat());
}
