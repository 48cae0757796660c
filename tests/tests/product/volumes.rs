//! Volumes, binds and tmpfs.

use silo_tests::Engine;

#[test]
fn named_volumes_outlive_containers() {
    let engine = Engine::start();
    let volume = engine.name("vol");
    assert_eq!(engine.ok(&["volume", "create", "--label", "a=b", &volume]), volume);
    let bind = format!("{volume}:/data");
    engine.ok(&["run", "--rm", "-v", &bind, "busybox", "sh", "-c", "echo kept > /data/f"]);
    assert_eq!(engine.ok(&["run", "--rm", "-v", &bind, "busybox", "cat", "/data/f"]), "kept");
    let read_only = format!("{volume}:/data:ro");
    let outcome = engine.docker(&["run", "--rm", "-v", &read_only, "busybox", "touch", "/data/x"]);
    assert!(outcome.stderr.contains("Read-only"), "{}", outcome.stderr);
    let inspect = engine.inspect(&volume);
    assert_eq!(inspect["Driver"], "local");
    assert_eq!(inspect["Labels"]["a"], "b");
    let holder = engine.name("holder");
    engine.ok(&["create", "--name", &holder, "-v", &bind, "busybox"]);
    let stderr = engine.fails(1, &["volume", "rm", &volume]);
    assert!(stderr.contains("volume is in use"), "{stderr}");
    engine.ok(&["rm", &holder]);
    engine.ok(&["volume", "rm", &volume]);
    let stderr = engine.fails(1, &["volume", "inspect", &volume]);
    assert!(stderr.to_lowercase().contains("no such volume"), "{stderr}");
}

#[test]
fn a_new_volume_takes_what_the_image_has() {
    let engine = Engine::start();
    let volume = engine.name("vol");
    let listing =
        engine.ok(&["run", "--rm", "-v", &format!("{volume}:/etc"), "busybox", "ls", "/etc"]);
    assert!(listing.contains("passwd"), "{listing}");
    let kept =
        engine.ok(&["run", "--rm", "-v", &format!("{volume}:/v"), "busybox", "cat", "/v/group"]);
    assert!(kept.contains("root:x:0"), "{kept}");
    engine.ok(&["volume", "rm", &volume]);
    let listing = engine.ok(&[
        "run",
        "--rm",
        "--mount",
        &format!("type=volume,src={volume},dst=/etc,volume-nocopy"),
        "busybox",
        "sh",
        "-c",
        "echo /etc/*",
    ]);
    assert_eq!(listing, "/etc/hostname /etc/hosts /etc/resolv.conf");
    engine.ok(&["volume", "rm", &volume]);
}

#[test]
fn anonymous_volumes_go_with_their_container() {
    let engine = Engine::start();
    let name = engine.name("anon");
    engine.ok(&["run", "--name", &name, "-v", "/data", "busybox", "touch", "/data/x"]);
    let volume = engine.inspect(&name)["Mounts"][0]["Name"].as_str().expect("a name").to_owned();
    assert_eq!(volume.len(), 64);
    let other = engine.name("other");
    let listing =
        engine.ok(&["run", "--name", &other, "--volumes-from", &name, "busybox", "ls", "/data"]);
    assert_eq!(listing, "x");
    engine.ok(&["rm", "-v", &other]);
    engine.ok(&["rm", "-v", &name]);
    engine.fails(1, &["volume", "inspect", &volume]);
}

#[test]
fn binds_of_folders_and_files() {
    let engine = Engine::start();
    let folder = engine.scratch().join("bind");
    fs_err::create_dir_all(&folder).expect("a folder");
    fs_err::write(folder.join("f"), "host\n").expect("a file");
    let path = folder.to_str().expect("UTF-8");
    assert_eq!(
        engine.ok(&["run", "--rm", "-v", &format!("{path}:/b"), "busybox", "cat", "/b/f"]),
        "host"
    );
    engine.ok(&[
        "run",
        "--rm",
        "-v",
        &format!("{path}/f:/one"),
        "busybox",
        "sh",
        "-c",
        "echo changed > /one",
    ]);
    assert_eq!(fs_err::read_to_string(folder.join("f")).expect("the file"), "changed\n");
    let missing = format!("{path}/made");
    engine.ok(&["run", "--rm", "-v", &format!("{missing}:/m"), "busybox", "touch", "/m/x"]);
    assert!(fs_err::metadata(format!("{missing}/x")).is_ok());
    let stderr = engine.fails(
        125,
        &[
            "run",
            "--rm",
            "--mount",
            &format!("type=bind,src={path}/none,dst=/n"),
            "busybox",
            "true",
        ],
    );
    assert!(stderr.contains("bind source path does not exist"), "{stderr}");
    let outcome = engine.docker(&[
        "run",
        "--rm",
        "--mount",
        &format!("type=bind,src={path},dst=/b,readonly"),
        "busybox",
        "touch",
        "/b/x",
    ]);
    assert!(outcome.stderr.contains("Read-only"), "{}", outcome.stderr);
    engine.ok(&[
        "run",
        "--rm",
        "--mount",
        "type=tmpfs,dst=/t,tmpfs-size=1048576",
        "busybox",
        "touch",
        "/t/x",
    ]);
    let stderr = engine.fails(125, &["run", "--rm", "-v", "relative/path:/x", "busybox", "true"]);
    assert!(stderr.contains("includes invalid characters"), "{stderr}");
}

#[test]
fn list_and_filters() {
    let engine = Engine::start();
    let (one, two) = (engine.name("v1"), engine.name("v2"));
    engine.ok(&["volume", "create", "--label", "k=1", &one]);
    engine.ok(&["volume", "create", &two]);
    let prefix = format!("name={}", engine.name(""));
    let list = engine.ok(&["volume", "ls", "-q", "--filter", &prefix]);
    assert_eq!(list.lines().count(), 2, "{list}");
    let list = engine.ok(&["volume", "ls", "-q", "--filter", &prefix, "--filter", "label=k=1"]);
    assert_eq!(list, one);
    let bad = engine.http("POST", "/volumes/create", r#"{"Name":"../x"}"#);
    assert_eq!(bad.status, 400, "{}", bad.head);
    engine.ok(&["volume", "rm", &one, &two]);
}
