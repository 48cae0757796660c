//! Layers as others make them: kept bit for bit, and what their links lead to.

use std::path::{Path, PathBuf};
use std::process::Command;

use silo_tests::WindowsEngine;

use super::CORE;
use super::image::{directory, file, hard_link, junction, layer, link, load, sum, unpack};

const LONG: [&str; 4] = ["ping", "-n", "1000", "127.0.0.1"];

/// The checksums of an image's layers as `docker save` writes them, which must be those of the
/// configuration.
fn saved(engine: &WindowsEngine, image: &str) -> Vec<String> {
    let work = tempfile::tempdir_in(engine.scratch()).expect("a folder");
    let archive = work.path().join("saved.tar");
    engine.ok(&["save", "-o", &archive.display().to_string(), image]);
    let tree = work.path().join("tree");
    let (manifest, config) = unpack(&archive, &tree);
    let layers = manifest[0]["Layers"].as_array().expect("layers");
    let sums: Vec<String> = layers
        .iter()
        .map(|layer| {
            let path = tree.join(layer.as_str().expect("a name"));
            format!("sha256:{}", sum(&path))
        })
        .collect();
    assert_eq!(config["rootfs"]["diff_ids"], serde_json::json!(sums), "{image}");
    sums
}

/// A layer that was written by the library that Microsoft's exporter and BuildKit use.
fn fixture(scratch: &Path, name: &str) -> PathBuf {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the repository");
    let packed = root.join(format!("crates/winlayer/tests/fixtures/{name}.tar.zst"));
    let tar = scratch.join(format!("{name}.tar"));
    let mut command = Command::new("zstd");
    let status = command.args(["-dqf"]).arg(packed).arg("-o").arg(&tar).status();
    assert!(status.expect("run zstd").success());
    tar
}

#[test]
fn layers_are_kept_bit_for_bit() {
    let Some(engine) = WindowsEngine::start_or_skip() else { return };
    let scratch = engine.scratch();
    let (exported, built) = (fixture(&scratch, "exported"), fixture(&scratch, "built"));
    for (image, base, layers) in [
        ("built:one", Some(CORE), vec![built.clone()]),
        ("exported:one", Some(CORE), vec![exported.clone()]),
        ("several:one", Some(CORE), vec![built.clone(), exported, built.clone()]),
        ("based:one", None, vec![fixture(&scratch, "base"), built]),
    ] {
        load(&engine, base, image, &layers);
        let expected: Vec<String> =
            layers.iter().map(|layer| format!("sha256:{}", sum(layer))).collect();
        assert!(saved(&engine, image).ends_with(&expected), "{image}");
    }
    // What BuildKit made of a Linux tree is there, and the layer is the same after a run.
    let show = "type C:\\app\\main.js& type C:\\app\\other.js& type C:\\windows\\xattr";
    assert_eq!(engine.ok(&["run", "--rm", "built:one", "cmd", "/c", show]), "xxy");
    let before = saved(&engine, "built:one");
    engine.ok(&["tag", "built:one", "built:two"]);
    assert_eq!(saved(&engine, "built:two"), before);

    // Without the image and its layers in the store it comes back from the archive.
    let archive = scratch.join("again.tar");
    engine.ok(&["save", "-o", &archive.display().to_string(), "built:one"]);
    engine.ok(&["rmi", "-f", "built:one", "built:two"]);
    engine.ok(&["load", "-i", &archive.display().to_string()]);
    assert_eq!(saved(&engine, "built:one"), before);
    assert_eq!(engine.ok(&["run", "--rm", "built:one", "cmd", "/c", show]), "xxy");
}

/// All that NTFS has and Linux has not; `outside` is a folder of the host with a secret.
fn linked(outside: &Path) -> Vec<serde_json::Value> {
    let posix = outside.display().to_string();
    let path = posix.replace('/', "\\");
    let up = "..\\".repeat(20);
    vec![
        directory("Hives"),
        directory("Files"),
        directory("Files/Users"),
        file("Files/Users/.wh..wh..opq", ""),
        directory("Files/Windows"),
        file("Files/Windows/.wh.win.ini", ""),
        directory("Files/real"),
        file("Files/real/file.txt", "inside\r\n"),
        file("Files/real/file.txt:Zone.Identifier", "[ZoneTransfer]\r\n"),
        hard_link("Files/real/hard.txt", "Files/real/file.txt"),
        junction("Files/junction", "C:\\real"),
        junction("Files/verbatim", "\\\\?\\C:\\real"),
        link("Files/rooted", "\\real", true),
        link("Files/relative", "real\\file.txt", false),
        link("Files/real/up", "..\\real", true),
        junction("Files/out-unix", &format!("\\\\?\\unix{path}")),
        junction("Files/out-nt", &format!("\\??\\unix{path}")),
        junction("Files/out-z", &format!("Z:{path}")),
        link("Files/out-zlink", &format!("Z:{path}"), true),
        junction("Files/out-d", "D:\\"),
        junction("Files/out-volume", "\\\\?\\Volume{01234567-89ab-cdef-0123-456789abcdef}\\"),
        junction("Files/out-root", "\\\\?\\GLOBALROOT\\??\\unix\\"),
        link("Files/out-share", "\\\\localhost\\c$", true),
        link("Files/out-device", "\\\\.\\PhysicalDrive0", false),
        link("Files/out-up", &format!("{up}{}", path.trim_start_matches('\\')), true),
        link("Files/out-posix", &posix, true),
        link("Files/out-verbatim", &format!("\\\\?\\C:\\..\\..{path}"), true),
    ]
}

#[test]
fn links_are_followed_within_the_drive() {
    let Some(engine) = WindowsEngine::start_or_skip() else { return };
    let scratch = engine.scratch();
    let outside = scratch.join("outside");
    fs_err::create_dir_all(&outside).expect("a folder");
    fs_err::write(outside.join("secret"), "the host's secret\n").expect("a file");
    let entries = linked(&outside);
    let tar = layer(&scratch.join("linked.tar"), &entries);
    load(&engine, Some(CORE), "linked:one", std::slice::from_ref(&tar));
    let before = saved(&engine, "linked:one");
    assert_eq!(before.last(), Some(&format!("sha256:{}", sum(&tar))));

    let name = engine.name("linked");
    engine.ok(&[&["run", "-d", "--name", &name, "linked:one"], &LONG[..]].concat());
    let within = |command: &str| engine.docker(&["exec", &name, "cmd", "/c", command]);
    for path in [
        "real\\file.txt",
        "real\\hard.txt",
        "REAL\\FILE.TXT",
        "junction\\file.txt",
        "verbatim\\file.txt",
        "rooted\\file.txt",
        "relative",
        "junction\\up\\up\\file.txt",
        "real\\..\\junction\\hard.txt",
    ] {
        let said = within(&format!("type C:\\{path}"));
        assert_eq!(said.stdout, "inside\r\n", "{path}: {}", said.stderr);
    }
    // An opaque marker is nothing to Windows; a whiteout is.
    assert_eq!(within("dir /b C:\\Users\\ContainerUser").code, 0);
    assert_ne!(within("type C:\\Windows\\win.ini").code, 0);
    // What is written by way of a junction is where it leads.
    assert_eq!(within("echo made> C:\\junction\\made.txt").code, 0);
    assert_eq!(within("type C:\\real\\made.txt").stdout, "made\r\n");
    let copy = engine.docker(&["cp", &format!("{name}:/junction/made.txt"), "-"]);
    assert!(copy.code == 0 && copy.stdout.contains("made\r\n"), "{}", copy.stderr);

    let out = entries.iter().filter_map(|entry| entry["name"].as_str());
    let out = out.filter_map(|name| name.strip_prefix("Files/out-"));
    for link in out {
        let said = within(&format!(
            "type C:\\out-{link}\\secret& type C:\\out-{link}& echo x> C:\\out-{link}\\new"
        ));
        let said = said.stdout + &said.stderr;
        assert!(!said.contains("host's"), "{link}: {said}");
        let read = engine.docker(&["cp", &format!("{name}:/out-{link}/secret"), "-"]);
        assert_ne!(read.code, 0, "{link}: {}", read.stdout);
        engine.docker(&["cp", "/etc/hostname", &format!("{name}:/out-{link}/")]);
    }
    let left: Vec<_> = fs_err::read_dir(&outside).expect("the folder").flatten().collect();
    assert_eq!(left.len(), 1, "{left:?}");

    // The layer stays what it was, also below another.
    engine.ok(&["commit", &name, "linked:two"]);
    assert_eq!(saved(&engine, "linked:one"), before);
    let above = saved(&engine, "linked:two");
    assert!(above.starts_with(&before) && above.len() == before.len() + 1);
    let show = "type C:\\junction\\made.txt& type C:\\real\\up\\file.txt";
    assert_eq!(engine.ok(&["run", "--rm", "linked:two", "cmd", "/c", show]), "made\r\ninside");
}
