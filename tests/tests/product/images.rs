//! Images: in, out, named, listed, removed.

use std::io::{Read, Write};
use std::net::TcpListener;
use std::process::Command;

use silo_tests::Engine;

#[test]
fn save_and_load_keep_the_id() {
    let engine = Engine::start();
    let tag = format!("{}:v1", engine.name("img"));
    engine.ok(&["tag", "busybox", &tag]);
    let id = engine.inspect(&tag)["Id"].clone();
    let file = engine.scratch().join("image.tar");
    let path = file.to_str().expect("UTF-8");
    engine.ok(&["save", "-o", path, &tag]);
    engine.ok(&["rmi", &tag]);
    engine.fails(1, &["image", "inspect", &tag]);
    assert_eq!(engine.ok(&["load", "-i", path]), format!("Loaded image: {tag}"));
    assert_eq!(engine.inspect(&tag)["Id"], id);
    engine.ok(&["run", "--rm", &tag, "true"]);
    engine.ok(&["rmi", &tag]);
    let listing = Command::new("tar").args(["-tf", path]).output().expect("run tar");
    assert!(String::from_utf8_lossy(&listing.stdout).contains("manifest.json"));
}

#[test]
fn compressed_archives_load() {
    let engine = Engine::start();
    let tag = format!("{}:gz", engine.name("img"));
    engine.ok(&["tag", "busybox", &tag]);
    let file = engine.scratch().join("image.tar");
    engine.ok(&["save", "-o", file.to_str().expect("UTF-8"), &tag]);
    engine.ok(&["rmi", &tag]);
    for (program, extension) in [("gzip", "gz"), ("bzip2", "bz2"), ("xz", "xz")] {
        let status = Command::new(program).arg("-k").arg(&file).status().expect("run a compressor");
        assert!(status.success(), "{program}");
        let path = engine.scratch().join(format!("image.tar.{extension}"));
        assert_eq!(
            engine.ok(&["load", "-i", path.to_str().expect("UTF-8")]),
            format!("Loaded image: {tag}")
        );
        engine.ok(&["rmi", &tag]);
        let bytes = fs_err::read(&path).expect("the archive");
        for part in [bytes.len() - 9, bytes.len() / 2, 1000] {
            let outcome = engine.docker_with_input(&["load"], &bytes[..part]);
            assert_ne!(outcome.code, 0, "{part} bytes of {program}: {}", outcome.stdout);
            engine.fails(1, &["image", "inspect", &tag]);
        }
    }
}

/// Answers every `GET` with what is under its path in `files`, until the test's process ends.
fn serve(files: Vec<(&'static str, Vec<u8>)>) -> std::net::SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("an address");
    std::thread::spawn(move || {
        for connection in listener.incoming() {
            let mut stream = connection.expect("a connection");
            let (mut head, mut byte) = (Vec::new(), [0]);
            while !head.ends_with(b"\r\n\r\n") && stream.read(&mut byte).unwrap_or(0) == 1 {
                head.push(byte[0]);
            }
            let head = String::from_utf8_lossy(&head);
            let path = head.split(' ').nth(1).unwrap_or_default();
            let file = files.iter().find(|(name, _)| *name == path).map(|(_, bytes)| bytes);
            let (status, body) = match (path, file) {
                ("/moved", _) => ("302 Found\r\nLocation: tree.tar", &b""[..]),
                (_, Some(bytes)) => ("200 OK", &bytes[..]),
                _ => ("404 Not Found", &b"nothing here\n"[..]),
            };
            // A body that is cut says more than it has.
            let length = body.len() + if path == "/cut.tar" { 1000 } else { 0 };
            let head = format!(
                "HTTP/1.1 {status}\r\nConnection: close\r\nContent-Length: {length}\r\n\r\n"
            );
            // The engine may hang up.
            drop(stream.write_all(head.as_bytes()).and_then(|()| stream.write_all(body)));
        }
    });
    address
}

#[test]
fn import_fetches_urls() {
    let engine = Engine::start();
    let tree = engine.scratch().join("tree");
    fs_err::create_dir_all(&tree).expect("a folder");
    fs_err::write(tree.join("file"), vec![b'x'; 300_000]).expect("a file");
    let packed = |compression: &str| {
        let mut command = Command::new("tar");
        command.arg("-C").arg(&tree).args(["-c", compression, "."]);
        command.output().expect("run tar").stdout
    };
    let (plain, xz) = (packed("--sort=name"), packed("--xz"));
    let cut = plain[..plain.len() / 2].to_vec();
    let address = serve(vec![("/tree.tar", plain), ("/tree.tar.xz", xz), ("/cut.tar", cut)]);
    let tag = format!("{}:url", engine.name("img"));
    for path in ["tree.tar", "tree.tar.xz", "moved"] {
        let url = format!("http://{address}/{path}");
        let text = engine.ok(&["import", "-c", "CMD [\"true\"]", &url, &tag]);
        assert!(text.contains(&format!("Downloading from {url}")), "{text}");
        let id = text.lines().last().expect("an id").to_owned();
        let inspect = engine.inspect(&tag);
        assert_eq!(inspect["Id"], id.as_str(), "{text}");
        assert_eq!(inspect["Comment"], format!("Imported from {url}"));
        assert!(inspect["Size"].as_u64().is_some_and(|size| size >= 300_000));
        engine.ok(&["rmi", &tag]);
    }
    let url = format!("http://{address}/none");
    let stderr = engine.fails(1, &["import", &url, &tag]);
    let wanted = format!("failed to GET {url} with status 404 Not Found: nothing here");
    assert!(stderr.contains(&wanted), "{stderr}");
    engine.fails(1, &["import", &format!("http://{address}/cut.tar"), &tag]);
    // A port that nobody is given by chance.
    let stderr = engine.fails(1, &["import", "http://127.0.0.1:1/x", &tag]);
    assert!(stderr.contains("connect: connection refused"), "{stderr}");
    let bad = engine.http("POST", "/images/create?fromSrc=ftp%3A%2F%2Fh%2Fx", "");
    assert_eq!(bad.status, 500);
    let message = bad.json()["message"].as_str().expect("a message").to_lowercase();
    assert!(message.contains("unsupported protocol scheme \"ftp\""), "{message}");
    let bad = engine.http("POST", &format!("/images/create?fromSrc={address}&repo=UPPER"), "");
    assert_eq!(bad.status, 400);
    engine.fails(1, &["image", "inspect", &tag]);
}

#[test]
fn truncated_and_foreign_archives_leave_nothing() {
    let engine = Engine::start();
    let tag = format!("{}:cut", engine.name("img"));
    engine.ok(&["tag", "busybox", &tag]);
    let file = engine.scratch().join("image.tar");
    engine.ok(&["save", "-o", file.to_str().expect("UTF-8"), &tag]);
    engine.ok(&["rmi", &tag]);
    let bytes = fs_err::read(&file).expect("the archive");
    for part in [bytes.len() / 2, 100_000, 512, 7] {
        let outcome = engine.docker_with_input(&["load"], &bytes[..part]);
        assert_ne!(outcome.code, 0, "{part} bytes: {}", outcome.stdout);
        engine.fails(1, &["image", "inspect", &tag]);
    }
    let outcome = engine.docker_with_input(&["load"], b"this is no archive at all");
    assert_ne!(outcome.code, 0);
}

#[test]
fn commit_makes_an_image_with_changes() {
    let engine = Engine::start();
    let (name, tag) = (engine.name("c"), format!("{}:1", engine.name("img")));
    engine.ok(&["run", "--name", &name, "busybox", "sh", "-c", "echo kept > /file; rm /etc/group"]);
    let id = engine.ok(&[
        "commit",
        "-a",
        "An Author",
        "-m",
        "a message",
        "-c",
        "CMD [\"cat\",\"/file\"]",
        "-c",
        "ENV ADDED=1",
        "-c",
        "LABEL l=v",
        "-c",
        "WORKDIR /tmp",
        "-c",
        "EXPOSE 80/tcp",
        &name,
        &tag,
    ]);
    assert!(id.starts_with("sha256:"), "{id}");
    assert_eq!(engine.ok(&["run", "--rm", &tag]), "kept");
    assert_eq!(
        engine.ok(&["run", "--rm", &tag, "sh", "-c", "echo $ADDED; pwd; ls /etc"]),
        "1\n/tmp\nhostname\nhosts\nmtab\npasswd\nresolv.conf"
    );
    let inspect = engine.inspect(&tag);
    assert_eq!(inspect["Author"], "An Author");
    assert_eq!(inspect["Comment"], "a message");
    assert_eq!(inspect["Config"]["Labels"]["l"], "v");
    assert!(inspect["Config"]["ExposedPorts"].get("80/tcp").is_some());
    assert_eq!(inspect["RootFS"]["Layers"].as_array().expect("layers").len(), 2);
    let history = engine.ok(&["history", "--format", "{{.Comment}}", &tag]);
    assert_eq!(history.lines().next(), Some("a message"));
    let stderr = engine.fails(1, &["commit", "-c", "FROM x", &name]);
    assert!(stderr.to_lowercase().contains("from"), "{stderr}");
    engine.ok(&["rm", &name]);
    engine.ok(&["rmi", &tag]);
}

#[test]
fn export_and_import_carry_the_tree() {
    let engine = Engine::start();
    let (name, tag) = (engine.name("c"), format!("{}:flat", engine.name("img")));
    engine.ok(&[
        "run",
        "--name",
        &name,
        "busybox",
        "sh",
        "-c",
        "echo inside > /file; ln /file /hard; ln -s file /soft",
    ]);
    let file = engine.scratch().join("root.tar");
    let path = file.to_str().expect("UTF-8");
    engine.ok(&["export", "-o", path, &name]);
    engine.ok(&["import", "-m", "flat", "--change", "CMD cat /soft", path, &tag]);
    assert_eq!(engine.ok(&["run", "--rm", &tag]), "inside");
    assert_eq!(engine.ok(&["run", "--rm", &tag, "stat", "-c", "%h", "/hard"]), "2");
    engine.ok(&["rm", &name]);
    engine.ok(&["rmi", &tag]);
}

#[test]
fn references_and_removal() {
    let engine = Engine::start();
    let name = engine.name("img");
    for bad in ["UPPER", "a//b", ":tag", "x:-tag", "-x"] {
        let outcome = engine.docker(&["tag", "busybox", bad]);
        assert_ne!(outcome.code, 0, "{bad}");
    }
    let (one, two) = (format!("{name}:one"), format!("registry.example:5000/{name}:two"));
    // Another id than busybox's, so that other tests cannot be in the way.
    let container = engine.name("c");
    engine.ok(&["run", "--name", &container, "busybox", "sh", "-c", "echo $HOSTNAME > /unique"]);
    engine.ok(&["commit", &container, &one]);
    engine.ok(&["rm", &container]);
    engine.ok(&["tag", &one, &two]);
    let id = engine.inspect(&one)["Id"].as_str().expect("an id").to_owned();
    let listed =
        engine.ok(&["images", "--no-trunc", "-q", "--filter", &format!("reference={name}")]);
    assert_eq!(listed, id);
    let stderr = engine.fails(1, &["rmi", &id]);
    assert!(
        stderr.contains("must be forced") && stderr.contains("multiple repositories"),
        "{stderr}"
    );
    assert_eq!(engine.ok(&["rmi", &one]), format!("Untagged: {one}"));
    engine.ok(&["create", "--name", &container, &two]);
    let stderr = engine.fails(1, &["rmi", &two]);
    assert!(stderr.contains("conflict: unable to remove repository reference"), "{stderr}");
    assert!(stderr.contains("is using its referenced image"), "{stderr}");
    engine.ok(&["rm", &container]);
    let removed = engine.ok(&["rmi", &two]);
    assert!(removed.contains(&format!("Deleted: {id}")), "{removed}");
    let stderr = engine.fails(1, &["rmi", &two]);
    assert!(stderr.contains("No such image"), "{stderr}");
    let stderr = engine.fails(125, &["run", "--pull", "never", "no-such-image-here", "true"]);
    assert!(stderr.contains("No such image: no-such-image-here:latest"), "{stderr}");
}

#[test]
fn dangling_images_and_prune() {
    let engine = Engine::start();
    if !engine.is_alone_or_skip() {
        return;
    }
    let (name, tag) = (engine.name("c"), format!("{}:1", engine.name("img")));
    engine.ok(&["run", "--name", &name, "busybox", "touch", "/a"]);
    let first = engine.ok(&["commit", &name, &tag]);
    engine.ok(&["commit", "-m", "newer", &name, &tag]);
    let dangling = engine.ok(&["images", "--no-trunc", "-q", "--filter", "dangling=true"]);
    assert_eq!(dangling, first);
    engine.ok(&["rm", &name]);
    let pruned = engine.ok(&["image", "prune", "-f"]);
    assert!(pruned.contains(&format!("deleted: {first}")), "{pruned}");
    assert_eq!(engine.ok(&["images", "-q", "--filter", "dangling=true"]), "");
    let pruned = engine.ok(&["system", "prune", "-af"]);
    assert!(pruned.contains("Total reclaimed space"), "{pruned}");
    assert_eq!(engine.ok(&["images", "-q"]), "");
    if engine.is_silo_or_skip("in part: the files of removed layers") {
        let left = walk_files(&engine.data_root().join("layers"));
        assert_eq!(left, 0, "files of removed layers");
    }
}

fn walk_files(folder: &std::path::Path) -> usize {
    let Ok(entries) = fs_err::read_dir(folder) else { return 0 };
    entries
        .map(|entry| entry.expect("an entry").path())
        .map(|path| if path.is_dir() { walk_files(&path) } else { 1 })
        .sum()
}

#[test]
fn listing_and_disk_usage() {
    let engine = Engine::start();
    let table = engine.ok(&["images", "busybox"]);
    assert!(table.contains("busybox") && table.contains("latest"), "{table}");
    let df = engine.ok(&["system", "df", "--format", "{{.Type}} {{.TotalCount}}"]);
    assert!(df.contains("Images") && df.contains("Local Volumes"), "{df}");
    let inspect = engine.inspect("busybox");
    assert_eq!(inspect["Os"], "linux");
    assert!(inspect["Size"].as_u64().is_some_and(|size| size > 500_000));
    assert_eq!(inspect["RootFS"]["Type"], "layers");
}
