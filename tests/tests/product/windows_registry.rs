//! The registry's way through `commit`: what programs of three layers set, change and delete is
//! what the next container has, and what anybody reads in the layers' hives.

mod regf;

use std::collections::BTreeMap;
use std::fmt::Write;

use fs_err as fs;
use silo_tests::{WindowsEngine, compile_windows};

use crate::windows_commit::{Entry, check_hive, top_layer};

const CORE: &str = "silo/servercore:ltsc2019";
const PROGRAM: &str = include_str!("windows_registry/trip.c");
/// The keys below which everything happens.
const ROOTS: [&str; 3] = ["HKLM\\Software\\Trip", "HKLM\\System\\Trip", "HKCU\\Software\\Trip"];

type Values = BTreeMap<String, (u32, Vec<u8>)>;

/// What the registry has to be, and the script that makes it so.
#[derive(Default)]
struct Model {
    keys: BTreeMap<String, Values>,
    script: String,
}

impl Model {
    fn make(&mut self, key: &str) {
        let mut path = String::new();
        for name in key.split('\\') {
            path.push_str(if path.is_empty() { "" } else { "\\" });
            path.push_str(name);
            if ROOTS.iter().any(|root| path.starts_with(root)) {
                self.keys.entry(path.clone()).or_default();
            }
        }
    }

    fn set(&mut self, key: &str, name: &str, kind: u32, data: &[u8]) {
        self.known(key, name, kind, data);
        let _infallible = writeln!(self.script, "set\t{key}\t{name}\t{kind}\t{}", hex(data));
    }

    /// A value that something else sets.
    fn known(&mut self, key: &str, name: &str, kind: u32, data: &[u8]) {
        self.make(key);
        let values = self.keys.get_mut(key).expect("a key");
        values.insert(name.to_owned(), (kind, data.to_vec()));
    }

    fn delete_value(&mut self, key: &str, name: &str) {
        let values = self.keys.get_mut(key).expect("a key");
        values.remove(name).expect("a value");
        let _infallible = writeln!(self.script, "value\t{key}\t{name}");
    }

    fn delete_key(&mut self, key: &str) {
        let below = format!("{key}\\");
        let before = self.keys.len();
        self.keys.retain(|path, _| path != key && !path.starts_with(&below));
        assert_ne!(before, self.keys.len(), "{key}");
        let _infallible = writeln!(self.script, "key\t{key}");
    }

    fn empty_key(&mut self, key: &str) {
        self.make(key);
        let _infallible = writeln!(self.script, "make\t{key}");
    }

    /// As the program shows it.
    fn lines(&self) -> Vec<String> {
        let mut lines = Vec::new();
        for (key, values) in &self.keys {
            lines.push(format!("make\t{key}"));
            for (name, (kind, data)) in values {
                lines.push(format!("set\t{key}\t{name}\t{kind}\t{}", hex(data)));
            }
        }
        lines.sort();
        lines
    }

    /// As layers have it that were put together.
    fn take(&mut self, path: &str, key: &regf::Key) {
        self.make(path);
        for (name, value) in &key.values {
            let (kind, data) = value.as_ref().expect("a value that is there");
            self.known(path, name, *kind, data);
        }
        for (name, below) in &key.keys {
            self.take(&format!("{path}\\{name}"), below);
        }
    }
}

fn hex(data: &[u8]) -> String {
    data.iter().fold(String::new(), |mut text, byte| {
        let _infallible = write!(text, "{byte:02x}");
        text
    })
}

fn utf16(text: &str) -> Vec<u8> {
    text.encode_utf16().flat_map(u16::to_le_bytes).collect()
}

/// Bytes that do not repeat soon.
fn noise(size: u32) -> Vec<u8> {
    (0..size).map(|n| n.wrapping_mul(2_654_435_761).to_le_bytes()[3]).collect()
}

/// Values of every type, of every size that hives treat in its own way, with odd names.
fn first(model: &mut Model) {
    let types = (0..=12).chain([0xFFFF_0012]);
    for root in ROOTS {
        let all = format!("{root}\\All types");
        for kind in types.clone() {
            model.set(&all, &format!("empty {kind}"), kind, b"");
            model.set(&all, &format!("odd {kind}"), kind, &[7, 0, 255]);
            model.set(&all, &format!("four {kind}"), kind, &[1, 2, 3, 4]);
            model.set(&all, &format!("text {kind}"), kind, &utf16("t\u{e4}xt \u{20ac}\n\"\\\0"));
        }
        model.set(&all, "list", 7, &utf16("one\0two\0\0"));
        model.set(&all, "list with nothing between", 7, &utf16("one\0\0two\0\0"));
        model.set(&all, "string without an end", 1, &utf16("end"));
        model.set(&all, "eight", 11, &u64::MAX.to_le_bytes());
        let names = format!("{root}\\Names");
        for name in [
            "",
            "\u{fc}n\u{ef}",
            "\u{65e5}\u{672c}",
            "\u{1f600}",
            "a\\b",
            "=x",
            "\"q\"",
            " x ",
            "@",
        ] {
            model.set(&names, name, 1, &utf16(&format!("{name}\0")));
        }
        for key in ["a b", "[x]", "Schl\u{fc}ssel", "\u{65e5}\u{672c}", "\u{1f600}", "x.y", "\"q\""]
        {
            model.set(&format!("{root}\\Keys\\{key}"), "", 4, &7_u32.to_le_bytes());
        }
        let sizes = format!("{root}\\Sizes");
        for size in [4, 5, 16_344, 16_345, 32_688, 40_000] {
            model.set(&sizes, &size.to_string(), 3, &noise(size));
        }
        model.set(&format!("{root}\\Goes\\deep\\down"), "x", 1, &utf16("x\0"));
        model.empty_key(&format!("{root}\\Nothing"));
    }
    model.set("HKLM\\Software\\Trip\\Sizes", "large", 3, &noise(1_200_000));
}

/// Changes, deletions, and what is deleted and made again.
fn second(model: &mut Model) {
    for root in ROOTS {
        let all = format!("{root}\\All types");
        model.set(&all, "text 1", 4, &9_u32.to_le_bytes());
        model.set(&all, "four 3", 3, &noise(20_000));
        model.delete_value(&all, "odd 8");
        model.delete_value(&all, "empty 0");
        model.delete_value(&format!("{root}\\Names"), "");
        model.delete_value(&format!("{root}\\Names"), "\u{1f600}");
        model.set(&format!("{root}\\Sizes"), "40000", 3, &noise(3));
        model.delete_value(&format!("{root}\\Sizes"), "16345");
        model.delete_key(&format!("{root}\\Goes"));
        model.set(&format!("{root}\\Goes\\deep"), "again", 1, &utf16("y\0"));
        model.delete_key(&format!("{root}\\Keys\\\u{65e5}\u{672c}"));
        model.delete_key(&format!("{root}\\Nothing"));
    }
    model.delete_value("HKLM\\Software\\Trip\\Sizes", "large");
}

/// What was deleted comes back, other things go, and one root goes as a whole.
fn third(model: &mut Model) {
    for root in ROOTS {
        model.set(&format!("{root}\\All types"), "empty 0", 0, b"");
        model.set(&format!("{root}\\Names"), "", 2, &utf16("%PATH%\0"));
        model.delete_key(&format!("{root}\\Sizes"));
        model.empty_key(&format!("{root}\\Sizes"));
        model.set(&format!("{root}\\Keys\\\u{65e5}\u{672c}"), "back", 1, &utf16("z\0"));
    }
    model.delete_key("HKLM\\System\\Trip");
}

/// Runs the program in a container with what is left of the script; the sorted lines of its dump.
fn trip(engine: &WindowsEngine, run: &[&str], script: &mut String) -> Vec<String> {
    let work = engine.scratch();
    fs::write(work.join("script"), std::mem::take(script)).expect("the script");
    engine.ok(&[run, &["C:\\work\\trip.exe"], &ROOTS].concat());
    let dump = fs::read_to_string(work.join("dump")).expect("the dump");
    let mut lines: Vec<String> = dump.lines().map(str::to_owned).collect();
    lines.sort();
    lines
}

/// Fails with the first line that differs: they can be a megabyte.
#[track_caller]
fn same(what: &str, seen: &[String], want: &[String]) {
    let cut = |line: &String| line.chars().take(200).collect::<String>();
    let extra: Vec<String> = seen.iter().filter(|line| !want.contains(line)).map(cut).collect();
    let missing: Vec<String> = want.iter().filter(|line| !seen.contains(line)).map(cut).collect();
    assert!(
        extra.is_empty() && missing.is_empty(),
        "{what}: extra {extra:#?} missing {missing:#?}"
    );
    assert_eq!(seen.len(), want.len(), "{what}");
}

fn of<'a>(layer: &'a [Entry], name: &str) -> Option<&'a [u8]> {
    layer.iter().find(|entry| entry.name == name).map(|entry| &*entry.data)
}

#[test]
fn every_value_makes_the_round_trip() {
    let Some(engine) = WindowsEngine::start_or_skip() else { return };
    let work = engine.scratch();
    compile_windows(PROGRAM, &work.join("trip.exe"));
    let volume = format!("{}:C:\\work", work.display());
    let mut model = Model::default();
    let mut layers = Vec::new();
    let mut image = CORE.to_owned();
    for (number, changes) in [first, second, third].into_iter().enumerate() {
        let name = engine.name(&format!("trip{number}"));
        let long = ["ping", "-n", "3600", "127.0.0.1"];
        engine.ok(&[&["run", "-d", "--name", &name, "-v", &volume, &image], &long[..]].concat());
        changes(&mut model);
        let mut script = std::mem::take(&mut model.script);
        let seen = trip(&engine, &["exec", &name], &mut script);
        same("the container", &seen, &model.lines());
        let reg = "HKLM\\Software\\Trip\\Reg";
        for (kind, text, data) in [
            (1, "a b\u{e4}", utf16("a b\u{e4}\0")),
            (2, "%OS%", utf16("%OS%\0")),
            (3, "00ff7f", vec![0, 0xff, 0x7f]),
            (4, "4294967295", vec![0xff; 4]),
            (7, "x\\0y", utf16("x\0y\0\0")),
            (0, "", vec![0; 2]),
        ] {
            let kinds = ["NONE", "SZ", "EXPAND_SZ", "BINARY", "DWORD", "", "", "MULTI_SZ"];
            let (kind_name, value) = (format!("REG_{}", kinds[kind]), format!("{number} {kind}"));
            let add = ["exec", &name, "reg", "add", reg, "/f", "/v", &value, "/t", &kind_name];
            engine.ok(&[&add[..], &["/d", text]].concat());
            model.known(reg, &value, u32::try_from(kind).expect("a type"), &data);
        }
        if number > 0 {
            let gone = format!("{} 2", number - 1);
            engine.ok(&["exec", &name, "reg", "delete", reg, "/v", &gone, "/f"]);
            model.keys.get_mut(reg).expect("a key").remove(&gone).expect("a value");
        }
        // While it runs, and after its end.
        if number > 1 {
            engine.ok(&["stop", "-t", "1", &name]);
        }
        image = engine.name(&format!("trip-image{number}"));
        engine.ok(&["commit", &name, &image]);
        engine.ok(&["rm", "-f", &name]);
        let seen = trip(&engine, &["run", "--rm", "-v", &volume, &image], &mut script);
        same(&format!("layer {number}"), &seen, &model.lines());
        layers.push(top_layer(&engine, &image).1);
    }

    // Put together from the image's layers by another's eyes.
    let mut merged = Model::default();
    for (name, hive) in [("Software", "Software_Delta"), ("System", "System_Delta")] {
        let mut whole: Option<regf::Key> = None;
        for layer in &layers {
            let Some(delta) = of(layer, &format!("Hives/{hive}")) else { continue };
            let delta = regf::read(delta);
            match &mut whole {
                Some(whole) => whole.put(&delta),
                None => whole = Some(delta),
            }
        }
        let whole = whole.expect("a difference");
        if let Some(key) = whole.get("Trip") {
            merged.take(&format!("HKLM\\{name}\\Trip"), key);
        }
    }
    let user = "Files/Users/ContainerAdministrator/NTUSER.DAT";
    let user_hive = of(&layers[2], user).expect("the account's hive");
    let key = regf::read(user_hive);
    merged.take("HKCU\\Software\\Trip", key.get("Software\\Trip").expect("the key"));
    same("the layers", &merged.lines(), &model.lines());

    // Hives that others can read, where one is at hand. It stumbles over values without data.
    for (layer, key, value) in [
        (&layers[0], "Goes\\deep\\down", "\"x\"=\"x\""),
        (&layers[1], "Goes\\deep", "\"again\"=\"y\""),
        (&layers[2], "Keys\\\u{65e5}\u{672c}", "\"back\"=\"z\""),
    ] {
        let commands = format!("cd Trip\\{key}\nlsval\n");
        check_hive(&work, layer, "Hives/Software_Delta", &commands, value);
    }
    let commands = "cd Software\\Trip\\Goes\\deep\nlsval\n";
    check_hive(&work, &layers[2], user, commands, "\"again\"=\"y\"");

    // And by Silo's own tool, which also changes one.
    let file = |name: &str| work.join(name).to_str().expect("UTF-8").to_owned();
    for (number, layer) in layers.iter().enumerate() {
        let delta = of(layer, "Hives/Software_Delta").expect("a difference");
        fs::write(work.join(format!("delta{number}")), delta).expect("write");
    }
    let silo = |arguments: &[&str]| {
        let outcome = engine.silo(&[&["hive"], arguments].concat());
        assert_eq!(outcome.code, 0, "{arguments:?}: {outcome:?}");
    };
    let (deltas, whole) = ([file("delta0"), file("delta1"), file("delta2")], file("whole"));
    model.known("HKLM\\Software\\Trip\\Reg", "by silo", 11, &77_u64.to_le_bytes());
    silo(&["merge", "--flatten", "-o", &whole, &deltas[0], &deltas[1], &deltas[2]]);
    silo(&["set", "-t", "QWORD", &whole, "Trip\\Reg", "by silo", "77"]);
    let mut flat = Model::default();
    let key = regf::read(&fs::read(&whole).expect("the hive"));
    flat.take("HKLM\\Software\\Trip", key.get("Trip").expect("the key"));
    model.keys.retain(|path, _| path.starts_with("HKLM\\Software"));
    same("silo hive", &flat.lines(), &model.lines());
}
