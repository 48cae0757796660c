//! Images with layers that no build would make.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde_json::{Value, json};
use silo_tests::WindowsEngine;

/// Security descriptors that BuildKit gives files, and those that Windows gives the root of C:.
const FILE_DESCRIPTOR: &str = "AQAEgBQAAAAkAAAAAAAAADAAAAABAgAAAAAABSAAAAAgAgAAAQEAAAAAAAUSAAAAAgBMAAMAAAAAABgA/wEfAAECAAAAAAAFIAAAACACAAAAABQA/wEfAAEBAAAAAAAFEgAAAAAAGACpABIAAQIAAAAAAAUgAAAAIQIAAA==";

pub(super) fn directory(name: &str) -> Value {
    json!({ "name": name, "kind": "d", "pax": pax(16) })
}

pub(super) fn file(name: &str, data: &str) -> Value {
    json!({ "name": name, "kind": "f", "data": data, "pax": pax(32) })
}

pub(super) fn hard_link(name: &str, target: &str) -> Value {
    json!({ "name": name, "kind": "h", "link": target, "pax": { "MSWINDOWS.fileattr": "32" } })
}

/// A junction, which always is of a directory.
pub(super) fn junction(name: &str, target: &str) -> Value {
    let mut pax = pax(0x410);
    pax["MSWINDOWS.mountpoint"] = "1".into();
    json!({ "name": name, "kind": "l", "link": target, "pax": pax })
}

/// A symbolic link, of a directory or of a file.
pub(super) fn link(name: &str, target: &str, directory: bool) -> Value {
    let attributes = if directory { 0x410 } else { 0x420 };
    json!({ "name": name, "kind": "l", "link": target, "pax": pax(attributes) })
}

fn pax(attributes: u32) -> Value {
    json!({
        "MSWINDOWS.fileattr": attributes.to_string(),
        "MSWINDOWS.rawsd": FILE_DESCRIPTOR,
        "LIBARCHIVE.creationtime": "1700000000.7654321",
    })
}

/// Writes the tar of a layer.
pub(super) fn layer(path: &Path, entries: &[Value]) -> PathBuf {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/product/windows/layer.py");
    let mut command = Command::new("python3");
    let mut child =
        command.arg(script).arg(path).stdin(Stdio::piped()).spawn().expect("run python3");
    let mut input = child.stdin.take().expect("standard input");
    input.write_all(Value::from(entries).to_string().as_bytes()).expect("write");
    drop(input);
    assert!(child.wait().expect("wait for python3").success());
    path.to_owned()
}

/// The checksum of a file, in hexadecimal.
pub(super) fn sum(path: &Path) -> String {
    let sum = Command::new("sha256sum").arg(path).output().expect("run sha256sum");
    String::from_utf8_lossy(&sum.stdout).split(' ').next().expect("a sum").to_owned()
}

fn tar(folder: &Path, arguments: &[&str]) {
    let status = Command::new("tar").arg("-C").arg(folder).args(arguments).status();
    assert!(status.expect("run tar").success());
}

/// Unpacks an archive of `docker save`: where it is, its manifest and its configuration.
pub(super) fn unpack(archive: &Path, tree: &Path) -> (Value, Value) {
    fs_err::create_dir_all(tree).expect("a folder");
    tar(tree, &["-xf", &archive.display().to_string()]);
    let read = |name: &str| -> Value {
        serde_json::from_slice(&fs_err::read(tree.join(name)).expect("a file")).expect("JSON")
    };
    let manifest = read("manifest.json");
    let config = read(manifest[0]["Config"].as_str().expect("a configuration"));
    (manifest, config)
}

/// An archive of an image: all layers of `base` and these above, or these alone.
pub(super) fn archive(
    engine: &WindowsEngine,
    base: Option<&str>,
    name: &str,
    layers: &[PathBuf],
) -> PathBuf {
    let work = tempfile::tempdir_in(engine.scratch()).expect("a folder");
    let saved = work.path().join("base.tar");
    engine.ok(&["save", "-o", &saved.display().to_string(), base.unwrap_or(super::CORE)]);
    let tree = work.path().join("image");
    let (mut manifest, mut config) = unpack(&saved, &tree);
    for name in ["index.json", "oci-layout", "repositories"] {
        if tree.join(name).exists() {
            fs_err::remove_file(tree.join(name)).expect("remove");
        }
    }
    if base.is_none() {
        config["rootfs"]["diff_ids"] = json!([]);
        config["history"] = json!([]);
        manifest[0]["Layers"] = json!([]);
    }
    for (number, layer) in layers.iter().enumerate() {
        let file = format!("layer{number}.tar");
        fs_err::copy(layer, tree.join(&file)).expect("copy");
        let push = |list: &mut Value, item: Value| list.as_array_mut().expect("a list").push(item);
        push(&mut config["rootfs"]["diff_ids"], format!("sha256:{}", sum(layer)).into());
        push(&mut config["history"], json!({ "created_by": "a test" }));
        push(&mut manifest[0]["Layers"], file.into());
    }
    fs_err::write(tree.join("config.json"), config.to_string()).expect("a file");
    manifest[0]["Config"] = "config.json".into();
    manifest[0]["RepoTags"] = json!([name]);
    fs_err::write(tree.join("manifest.json"), manifest.to_string()).expect("a file");
    let archive = engine.scratch().join(format!("{}.tar", name.replace([':', '/'], "-")));
    tar(&tree, &["-cf", &archive.display().to_string(), "."]);
    archive
}

/// The same, loaded.
#[track_caller]
pub(super) fn load(engine: &WindowsEngine, base: Option<&str>, name: &str, layers: &[PathBuf]) {
    let archive = archive(engine, base, name, layers);
    engine.ok(&["load", "-i", &archive.display().to_string()]);
}
