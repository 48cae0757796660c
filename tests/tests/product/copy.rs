//! `docker cp` both ways.

use std::os::unix::fs::symlink;

use silo_tests::Engine;

#[test]
fn files_and_folders_both_ways() {
    let engine = Engine::start();
    let name = engine.name("cp");
    engine.ok(&["create", "--name", &name, "busybox", "sleep", "100"]);
    let folder = engine.scratch().join("cp");
    fs_err::create_dir_all(folder.join("sub")).expect("a folder");
    fs_err::write(folder.join("a"), "a\n").expect("a file");
    fs_err::write(folder.join("sub/b"), "b\n").expect("a file");
    symlink("a", folder.join("link")).expect("a link");
    let path = folder.to_str().expect("UTF-8");
    for running in [false, true] {
        if running {
            engine.ok(&["start", &name]);
        }
        engine.ok(&["cp", path, &format!("{name}:/dst{running}")]);
        let out = engine.scratch().join(format!("out{running}"));
        engine.ok(&["cp", &format!("{name}:/dst{running}"), out.to_str().expect("UTF-8")]);
        assert_eq!(fs_err::read_to_string(out.join("sub/b")).expect("b"), "b\n");
        assert_eq!(fs_err::read_link(out.join("link")).expect("link").to_str(), Some("a"));
        engine.ok(&["cp", &format!("{path}/a"), &format!("{name}:/tmp/renamed{running}")]);
        let single = engine.scratch().join("single");
        engine.ok(&[
            "cp",
            &format!("{name}:/tmp/renamed{running}"),
            single.to_str().expect("UTF-8"),
        ]);
        assert_eq!(fs_err::read_to_string(&single).expect("single"), "a\n");
    }
    assert_eq!(engine.ok(&["exec", &name, "cat", "/dsttrue/link"]), "a");
    let stderr = engine.fails(1, &["cp", &format!("{name}:/none"), path]);
    // Clients before 23.0 have their own words.
    let old = format!("No such container:path: {name}:/none");
    assert!(
        stderr.contains("Could not find the file /none in container") || stderr.contains(&old),
        "{stderr}"
    );
    engine.ok(&["rm", "-f", &name]);
}

#[test]
fn nothing_outside_the_container_is_touched() {
    let engine = Engine::start();
    let name = engine.name("cp");
    let outside = engine.scratch().join("outside");
    fs_err::create_dir_all(&outside).expect("a folder");
    fs_err::write(outside.join("secret"), "secret\n").expect("a file");
    let path = outside.to_str().expect("UTF-8");
    engine.ok(&[
        "run", "-d", "--name", &name, "busybox", "sh", "-c",
        &format!("ln -s {path} /abs; ln -s ../../../../../../../..{path} /rel; ln -s /proc/1/root /magic; echo ready; sleep 100"),
    ]);
    while !engine.ok(&["logs", &name]).contains("ready") {}
    let file = engine.scratch().join("file");
    fs_err::write(&file, "evil\n").expect("a file");
    for link in ["abs", "rel"] {
        let into = engine.docker(&[
            "cp",
            file.to_str().expect("UTF-8"),
            &format!("{name}:/{link}/secret"),
        ]);
        assert_eq!(
            fs_err::read_to_string(outside.join("secret")).expect("secret"),
            "secret\n",
            "{into:?}"
        );
        let out = engine.docker(&["cp", &format!("{name}:/{link}/secret"), "-"]);
        assert!(!out.stdout.contains("secret\n"), "{out:?}");
    }
    assert_eq!(fs_err::read_dir(&outside).expect("the folder").count(), 1);
    engine.ok(&["rm", "-f", &name]);
}

#[test]
fn archive_heads_and_errors() {
    let engine = Engine::start();
    let name = engine.name("cp");
    engine.ok(&["create", "--name", &name, "busybox"]);
    let head = engine.http("HEAD", &format!("/containers/{name}/archive?path=/etc/passwd"), "");
    assert_eq!(head.status, 200);
    assert!(head.head.to_lowercase().contains("x-docker-container-path-stat"), "{}", head.head);
    let missing = engine.http("GET", &format!("/containers/{name}/archive?path=/none"), "");
    assert_eq!(missing.status, 404);
    assert_eq!(missing.message(), format!("Could not find the file /none in container {name}"));
    let none = engine.http("GET", &format!("/containers/{name}/archive"), "");
    assert_eq!(none.status, 400);
    engine.ok(&["rm", &name]);
}

#[test]
fn a_container_that_goes_by_itself_is_copied_to_and_started_twice() {
    let engine = Engine::start();
    let name = engine.name("cp");
    let file = engine.scratch().join("file");
    fs_err::write(&file, "given\n").expect("a file");
    let script = "cat /file; echo $$ >>/starts; sleep 60";
    engine.ok(&["create", "--rm", "--init", "--name", &name, "busybox", "sh", "-c", script]);
    engine.ok(&["cp", file.to_str().expect("UTF-8"), &format!("{name}:/file")]);
    let started = |times: u32| {
        let script = format!("until [ \"$(cat /starts | wc -l)\" = {times} ]; do sleep 0.01; done");
        engine.ok(&["exec", &name, "sh", "-c", &script]);
    };
    engine.ok(&["start", &name]);
    started(1);
    engine.ok(&["restart", "-t", "1", &name]);
    assert_eq!(engine.ok(&["exec", &name, "cat", "/file"]), "given");
    started(2);
    engine.ok(&["rm", "-f", &name]);
}

#[test]
fn a_stopped_container_is_copied_from_and_to_at_once() {
    const AT_ONCE: usize = 6;
    let engine = Engine::start();
    let name = engine.name("cp");
    engine.ok(&["run", "--name", &name, "busybox", "sh", "-c", "echo kept >/kept"]);
    for number in 0..AT_ONCE {
        let folder = engine.scratch().join(format!("{number}/etc"));
        fs_err::create_dir_all(&folder).expect("a folder");
        fs_err::write(folder.join(format!("f{number}")), "new").expect("a file");
        // Of the image: it is copied up.
        fs_err::write(folder.join("group"), "root:x:0:\n").expect("a file");
    }
    std::thread::scope(|scope| {
        for number in 0..AT_ONCE {
            let (engine, name) = (&engine, &name);
            let at = move |file: &str| {
                engine.scratch().join(format!("{number}/{file}")).display().to_string()
            };
            scope.spawn(move || engine.ok(&["cp", &at("etc"), &format!("{name}:/")]));
            scope.spawn(move || engine.ok(&["cp", &format!("{name}:/kept"), &at("kept")]));
            scope.spawn(move || engine.ok(&["export", "-o", &at("tar"), name]));
        }
    });
    for number in 0..AT_ONCE {
        let kept = fs_err::read(engine.scratch().join(format!("{number}/kept"))).expect("a copy");
        assert_eq!(kept, b"kept\n");
        engine.ok(&["cp", &format!("{name}:/etc/f{number}"), "-"]);
    }
    engine.ok(&["rm", &name]);
}

#[test]
fn volumes_of_a_stopped_container_are_there() {
    let engine = Engine::start();
    let (name, volume) = (engine.name("cp"), engine.name("data"));
    let bind = engine.scratch().join("bind");
    fs_err::create_dir_all(&bind).expect("a folder");
    fs_err::write(bind.join("f"), "bound\n").expect("a file");
    let script = "ln -s /data/v /link; echo volume >/data/v/x; echo root >/data/y";
    engine.ok(&[
        "run",
        "--name",
        &name,
        "-v",
        &format!("{volume}:/data/v"),
        "-v",
        &format!("{}:/data/v/b:ro", bind.display()),
        "busybox",
        "sh",
        "-c",
        script,
    ]);
    let out = engine.scratch().join("out");
    engine.ok(&["cp", &format!("{name}:/data"), out.to_str().expect("UTF-8")]);
    for (path, content) in [("y", "root\n"), ("v/x", "volume\n"), ("v/b/f", "bound\n")] {
        assert_eq!(fs_err::read_to_string(out.join(path)).expect(path), content);
    }
    let file = out.join("y");
    let file = file.to_str().expect("UTF-8");
    engine.ok(&["cp", file, &format!("{name}:/link/new")]);
    let refused = engine.docker(&["cp", file, &format!("{name}:/data/v/b/new")]);
    assert_ne!(refused.code, 0);
    engine.ok(&["rm", &name]);
    let list =
        engine.ok(&["run", "--rm", "-v", &format!("{volume}:/v"), "busybox", "ls", "/v", "/v/b"]);
    assert_eq!(list.split_whitespace().collect::<Vec<_>>(), ["/v:", "b", "new", "x", "/v/b:"]);
    engine.ok(&["volume", "rm", &volume]);
}
