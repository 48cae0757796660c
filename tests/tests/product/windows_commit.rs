//! `docker commit` of Windows containers. Docker has none on Linux.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use fs_err as fs;
use silo_tests::{Engine, WindowsEngine};

const CORE: &str = "silo/servercore:ltsc2019";

/// One record of a layer's tar.
pub(crate) struct Entry {
    pub(crate) name: String,
    kind: u8,
    link: String,
    mode: u32,
    pax: BTreeMap<String, String>,
    pub(crate) data: Vec<u8>,
}

/// Reads a tar as far as layers need it.
fn entries(tar: &[u8]) -> Vec<Entry> {
    let octal = |bytes: &[u8]| {
        let text = String::from_utf8_lossy(bytes);
        u64::from_str_radix(text.trim_matches(['\0', ' ']), 8).unwrap_or(0)
    };
    let (mut list, mut pax, mut at) = (Vec::new(), BTreeMap::new(), 0);
    while tar.get(at).is_some_and(|byte| *byte != 0) {
        let head = &tar[at..at + 512];
        let size = usize::try_from(octal(&head[124..136])).expect("a size");
        let data = tar[at + 512..at + 512 + size].to_vec();
        at += 512 + size.next_multiple_of(512);
        if head[156] == b'x' {
            let text = String::from_utf8(data).expect("UTF-8");
            for line in text.lines() {
                let record = line.split_once(' ').expect("a length").1;
                let (key, value) = record.split_once('=').expect("a value");
                pax.insert(key.to_owned(), value.to_owned());
            }
            continue;
        }
        let short = String::from_utf8_lossy(&head[..100]).trim_end_matches('\0').to_owned();
        let pax = std::mem::take(&mut pax);
        let name = pax.get("path").cloned().unwrap_or(short);
        let mode = u32::try_from(octal(&head[100..108])).expect("a mode");
        let short = String::from_utf8_lossy(&head[157..257]).trim_end_matches('\0').to_owned();
        let link = pax.get("linkpath").cloned().unwrap_or(short);
        list.push(Entry { name, kind: head[156], link, mode, pax, data });
    }
    list
}

/// Saves an image, and reads its top layer.
pub(crate) fn top_layer(engine: &Engine, image: &str) -> (PathBuf, Vec<Entry>) {
    let archive = engine.scratch().join("image.tar");
    engine.ok(&["save", "-o", archive.to_str().expect("UTF-8"), image]);
    let files = entries(&fs::read(&archive).expect("the archive"));
    let file = |name: &str| &files.iter().find(|entry| entry.name == name).expect("a file").data;
    let manifest: serde_json::Value =
        serde_json::from_slice(file("manifest.json")).expect("a manifest");
    let layers = manifest[0]["Layers"].as_array().expect("layers");
    let layer = layers.last().and_then(serde_json::Value::as_str).expect("a layer");
    let layer = entries(file(layer));
    for entry in &layer {
        // As Windows' own engines write it.
        let is_whiteout = entry.name.contains("/.wh.");
        let (kind, mode) = match entry.kind {
            b'5' => ("directory", 0o040_000),
            b'0' if is_whiteout => ("whiteout", 0),
            b'0' => ("file", 0o100_000),
            b'2' => ("link", 0o120_000),
            other => panic!("{}: type {other}", entry.name),
        };
        assert_eq!(entry.mode, mode, "{} is a {kind}", entry.name);
        assert!(!entry.name.ends_with('/'), "{}", entry.name);
        for key in ["MSWINDOWS.fileattr", "LIBARCHIVE.creationtime", "atime", "ctime"] {
            assert_eq!(entry.pax.contains_key(key), !is_whiteout, "{key} of {}", entry.name);
        }
        if entry.kind == b'5' {
            let bits: u32 = entry.pax["MSWINDOWS.fileattr"].parse().expect("a number");
            assert_ne!(bits & 0x10, 0, "{}", entry.name);
        }
    }
    (archive, layer)
}

fn names(layer: &[Entry]) -> Vec<&str> {
    layer.iter().map(|entry| entry.name.as_str()).collect()
}

/// A container that waits for commands.
fn idle(engine: &Engine, name: &str, image: &str) {
    engine.ok(&["run", "-d", "--name", name, image, "ping", "-n", "3600", "127.0.0.1"]);
}

fn exec(engine: &Engine, name: &str, command: &[&str]) {
    engine.ok(&[&["exec", name][..], command].concat());
}

fn set(engine: &Engine, name: &str, key: &str, value: &str, data: &str) {
    exec(engine, name, &["reg", "add", key, "/v", value, "/t", "REG_SZ", "/d", data, "/f"]);
}

/// Another reader of hives, if the host has it, has to find a key.
pub(crate) fn check_hive(folder: &Path, layer: &[Entry], name: &str, commands: &str, want: &str) {
    use std::io::Write;
    let data = &layer.iter().find(|entry| entry.name == name).expect("a hive").data;
    let path = folder.join("hive");
    fs::write(&path, data).expect("write");
    let child =
        Command::new("hivexsh").arg(&path).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn();
    let Ok(mut child) = child else { return };
    let mut input = child.stdin.take().expect("its input");
    input.write_all(commands.as_bytes()).expect("commands");
    drop(input);
    let output = child.wait_with_output().expect("an end");
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && text.contains(want), "{name}: {text}");
}

#[test]
fn idle_containers_have_changed_nothing() {
    let Some(engine) = WindowsEngine::start_or_skip() else { return };
    let name = engine.name("idle");
    idle(&engine, &name, CORE);
    for command in ["ipconfig", "net start", "reg query HKCU\\Environment", "tasklist"] {
        engine.docker(&["exec", &name, "cmd", "/c", command]);
    }
    let image = engine.name("idle-image");
    engine.ok(&["commit", &name, &image]);
    assert_eq!(names(&top_layer(&engine, &image).1), ["Files", "Hives"]);
    // What Wine wrote last.
    engine.ok(&["pause", &name]);
    engine.ok(&["commit", &name, &image]);
    assert_eq!(names(&top_layer(&engine, &image).1), ["Files", "Hives"]);
    engine.ok(&["unpause", &name]);
    engine.ok(&["stop", "-t", "1", &name]);
    engine.ok(&["commit", &name, &image]);
    assert_eq!(names(&top_layer(&engine, &image).1), ["Files", "Hives"]);

    let never = engine.name("never-ran");
    engine.ok(&["create", "--name", &never, CORE]);
    engine.ok(&["commit", &never, &image]);
    assert_eq!(names(&top_layer(&engine, &image).1), ["Files", "Hives"]);
    let (base, own) = (engine.inspect(CORE), engine.inspect(&image));
    for key in ["Os", "OsVersion", "Architecture"] {
        assert_eq!(own[key], base[key], "{key}");
    }
}

#[test]
fn links_are_kept() {
    let Some(engine) = WindowsEngine::start_or_skip() else { return };
    let (name, image) = (engine.name("links"), engine.name("links-image"));
    idle(&engine, &name, CORE);
    let batch = "mkdir C:\\app\\v1\\deep& echo one> C:\\app\\v1\\x.txt& \
                 mklink /j C:\\app\\current C:\\app\\V1& mklink /d C:\\app\\current\\deep\\up ..& \
                 mklink C:\\x.txt app\\current\\x.txt& mklink /d C:\\later C:\\not\\yet";
    exec(&engine, &name, &["cmd", "/c", batch]);
    engine.ok(&["commit", &name, &image]);
    let (_, layer) = top_layer(&engine, &image);
    let links: Vec<(&str, &str, &str)> = layer
        .iter()
        .filter(|entry| entry.kind == b'2')
        .map(|entry| (&*entry.name, &*entry.link, &*entry.pax["MSWINDOWS.fileattr"]))
        .collect();
    assert_eq!(
        links,
        [
            ("Files/app/current", "v1", "1040"),
            ("Files/app/v1/deep/up", "..", "1040"),
            ("Files/later", "not\\yet", "1024"),
            ("Files/x.txt", "app\\current\\x.txt", "1024"),
        ]
    );
    let look = "type C:\\x.txt& type C:\\app\\current\\deep\\up\\x.txt& rmdir C:\\app\\current& \
                mkdir C:\\not\\yet& dir /b C:\\app C:\\later";
    let seen = engine.docker(&["run", "--rm", &image, "cmd", "/c", look]).stdout;
    let words: Vec<&str> = seen.split_whitespace().collect();
    assert_eq!(words, ["one", "one", "v1"], "{seen}");
}

#[test]
fn changes_are_kept_through_three_layers() {
    let Some(engine) = WindowsEngine::start_or_skip() else { return };
    let container = |number: u32| engine.name(&format!("c{number}"));
    let image = |number: u32| engine.name(&format!("image{number}"));
    let (vendor, mine) = ("HKLM\\Software\\Vendor", "HKCU\\Software\\Mine");

    idle(&engine, &container(1), CORE);
    let batch = "mkdir C:\\app\\deep& echo one> C:\\app\\one.txt& echo two> C:\\app\\deep\\two.txt& \
                 attrib +r C:\\app\\one.txt";
    exec(&engine, &container(1), &["cmd", "/c", batch]);
    set(&engine, &container(1), vendor, "Version", "1");
    set(&engine, &container(1), &format!("{vendor}\\Old"), "x", "y");
    set(&engine, &container(1), mine, "who", "me");
    let environment = "HKLM\\System\\CurrentControlSet\\Control\\Session Manager\\Environment";
    set(&engine, &container(1), environment, "FROM_LAYER", "set");
    engine.ok(&["commit", &container(1), &image(1)]);
    let (_, layer) = top_layer(&engine, &image(1));
    assert_eq!(
        names(&layer),
        [
            "Files",
            "Files/app",
            "Files/app/deep",
            "Files/app/deep/two.txt",
            "Files/app/one.txt",
            "Files/Users",
            "Files/Users/ContainerAdministrator",
            "Files/Users/ContainerAdministrator/NTUSER.DAT",
            "Hives",
            "Hives/Software_Delta",
            "Hives/System_Delta",
        ]
    );
    let read_only = &layer[4].pax["MSWINDOWS.fileattr"];
    assert_eq!(read_only, "33");
    let scratch = engine.scratch();
    check_hive(&scratch, &layer, "Hives/Software_Delta", "cd Vendor\nls\nlsval\n", "Version");
    let user = "Files/Users/ContainerAdministrator/NTUSER.DAT";
    check_hive(&scratch, &layer, user, "cd Software\\Mine\nlsval\n", "who");

    idle(&engine, &container(2), &image(1));
    let batch = "del /f C:\\app\\one.txt& move C:\\app C:\\program& echo %FROM_LAYER%> C:\\env.txt";
    exec(&engine, &container(2), &["cmd", "/c", batch]);
    exec(&engine, &container(2), &["reg", "delete", &format!("{vendor}\\Old"), "/f"]);
    set(&engine, &container(2), vendor, "Version", "2");
    set(&engine, &container(2), mine, "second", "too");
    engine.ok(&["stop", "-t", "1", &container(2)]);
    engine.ok(&["commit", &container(2), &image(2)]);
    let (_, layer) = top_layer(&engine, &image(2));
    assert_eq!(
        names(&layer)[..6],
        [
            "Files",
            "Files/.wh.app",
            "Files/env.txt",
            "Files/program",
            "Files/program/deep",
            "Files/program/deep/two.txt",
        ]
    );
    assert_eq!(layer[2].data, b"set\r\n");

    let batch = "rmdir /s /q C:\\program\\deep& mkdir C:\\app& \
                 reg delete HKCU\\Software\\Mine /v who /f";
    engine.ok(&["run", "--name", &container(3), &image(2), "cmd", "/c", batch]);
    engine.ok(&["commit", &container(3), &image(3)]);
    let (archive, layer) = top_layer(&engine, &image(3));
    assert!(names(&layer).contains(&"Files/program/.wh.deep"));

    let look = "dir /s /b C:\\program C:\\app& type C:\\env.txt& \
                reg query HKLM\\Software\\Vendor /s& reg query HKCU\\Software\\Mine";
    let check = |engine: &Engine| {
        let seen = engine.docker(&["run", "--rm", &image(3), "cmd", "/c", look]).stdout;
        let words: Vec<&str> = seen.split_whitespace().collect();
        assert_eq!(
            words,
            [
                "set",
                "HKEY_LOCAL_MACHINE\\Software\\Vendor",
                "Version",
                "REG_SZ",
                "2",
                "HKEY_CURRENT_USER\\Software\\Mine",
                "second",
                "REG_SZ",
                "too"
            ],
            "{seen}"
        );
    };
    check(&engine);

    let Some(other) = WindowsEngine::start_or_skip() else { return };
    other.ok(&["load", "-i", archive.to_str().expect("UTF-8")]);
    assert_eq!(other.inspect(&image(3))["Id"], engine.inspect(&image(3))["Id"]);
    check(&other);
}

/// Waits until Wine has written something into its registry's file, which it does by itself.
#[expect(clippy::disallowed_methods, reason = "nobody tells when Wine has written its files")]
fn wait_written(engine: &Engine, name: &str, text: &str) {
    let id = engine.inspect(name)["Id"].as_str().expect("an id").to_owned();
    let file = engine.data_root().join("containers").join(id).join("prefix/system.reg");
    let end = std::time::Instant::now() + std::time::Duration::from_mins(2);
    while !fs::read(&file).is_ok_and(|bytes| String::from_utf8_lossy(&bytes).contains(text)) {
        assert!(std::time::Instant::now() < end, "{text} is not in {}", file.display());
        std::thread::sleep(std::time::Duration::from_millis(50));
    }
}

#[test]
fn killed_and_paused_containers_keep_what_wine_has_written() {
    let Some(engine) = WindowsEngine::start_or_skip() else { return };
    let (killed, paused) = (engine.name("killed"), engine.name("paused"));
    for name in [&killed, &paused] {
        idle(&engine, name, CORE);
        set(&engine, name, "HKLM\\Software\\Written", "first", "one");
        exec(&engine, name, &["cmd", "/c", "echo file> C:\\file.txt"]);
    }
    for name in [&killed, &paused] {
        wait_written(&engine, name, "Software\\\\Written");
        // What comes after may be lost, and nothing else.
        set(&engine, name, "HKLM\\Software\\Written", "second", "two");
    }
    engine.ok(&["kill", &killed]);
    engine.ok(&["wait", &killed]);
    engine.ok(&["pause", &paused]);
    for name in [&killed, &paused] {
        let image = format!("{name}-image");
        engine.ok(&["commit", name, &image]);
        let look = "type C:\\file.txt& reg query HKLM\\Software\\Written /v first";
        let seen = engine.ok(&["run", "--rm", &image, "cmd", "/c", look]);
        let words: Vec<&str> = seen.split_whitespace().collect();
        let key = "HKEY_LOCAL_MACHINE\\Software\\Written";
        assert_eq!(words, ["file", key, "first", "REG_SZ", "one"], "{name}: {seen}");
    }
    // A container that goes on has lost nothing.
    engine.ok(&["unpause", &paused]);
    engine.ok(&["stop", "-t", "1", &paused]);
    let image = engine.name("stopped-image");
    engine.ok(&["commit", &paused, &image]);
    let run = ["run", "--rm", &image, "reg", "query", "HKLM\\Software\\Written", "/v", "second"];
    assert!(engine.ok(&run).contains("two"));
}
