use proptest::prelude::*;

use super::*;
use crate::key::{Key, KeyFlags, Semantics};
use crate::{FileTime, Hive, ValueType, delta, sample};

const FIVE: &str = "Windows Registry Editor Version 5.00\r\n\
\r\n\
; a comment\r\n\
[HKEY_LOCAL_MACHINE\\SOFTWARE\\Vendor [x]]\r\n\
@=\"the \\\"default\\\" \\\\ value\"\r\n\
\"number\"=dword:0000002a\r\n\
\"gone\"=-\r\n\
\"bytes\"=hex:00,01,\\\r\n  02,03\r\n\
\"expand\"=hex(2):25,00,41,00,25,00,00,00\r\n\
\"multi\"=hex(7):61,00,00,00,00,00\r\n\
\"quad\"=hex(b):01,00,00,00,00,00,00,00\r\n\
\"two lines\"=\"one\r\ntwo\"\r\n\
\"empty\"=hex(0):\r\n\
\r\n\
[-HKLM\\SOFTWARE\\Old]\r\n";

fn utf16(text: &str) -> Vec<u8> {
    [&[0xFF, 0xFE][..], &crate::value::utf16(text, false)].concat()
}

#[test]
fn every_form_in_every_encoding() {
    let with_mark = [b"\xEF\xBB\xBF", FIVE.as_bytes()].concat();
    for bytes in [utf16(FIVE), FIVE.as_bytes().to_vec(), with_mark, FIVE.replace('\r', "").into()] {
        let edits = parse(&bytes).unwrap();
        assert_eq!(edits.len(), 2);
        let mut root = Key::new("ROOT");
        root.create("old\\below", FileTime(1)).unwrap();
        root.create("Vendor [x]", FileTime(1)).unwrap().set_value(Value::dword("Gone", 1));
        apply(&mut root, "HKEY_LOCAL_MACHINE\\Software", &edits, FileTime(7)).unwrap();
        assert!(root.get("Old").is_none());
        let key = root.get("Vendor [x]").unwrap();
        assert_eq!((key.last_write, root.last_write), (FileTime(7), FileTime(7)));
        assert_eq!(key.values().len(), 8);
        let value = |name: &str| key.value(name).unwrap();
        assert_eq!(value("").text().unwrap(), "the \"default\" \\ value");
        assert_eq!(value("number").number(), Some(42));
        assert_eq!(value("bytes").data, [0, 1, 2, 3]);
        assert_eq!(value("expand").text().unwrap(), "%A%");
        assert_eq!(value("multi").texts().unwrap(), ["a"]);
        assert_eq!(value("quad").number(), Some(1));
        assert_eq!(value("two lines").text().unwrap(), "one\r\ntwo");
        assert_eq!((value("empty").kind, value("empty").data.len()), (ValueType::NONE, 0));
    }
}

#[test]
fn version_four_is_in_a_code_page() {
    let text =
        b"REGEDIT4\n\n[HKEY_CURRENT_USER\\a]\n\"\x80\xe9\"=\"\x99\"\n\"e\"=hex(2):25,80,00\n";
    let edits = parse(text).unwrap();
    let mut root = Key::new("ROOT");
    apply(&mut root, "HKCU", &edits, FileTime(0)).unwrap();
    let key = root.get("a").unwrap();
    assert_eq!(key.value("€é").unwrap().text().unwrap(), "™");
    assert_eq!(key.value("e").unwrap().text().unwrap(), "%€");
    let out = render(&root, "HKEY_CURRENT_USER", Version::Four);
    assert!(out.starts_with(b"REGEDIT4\r\n"));
    assert!(out.windows(4).any(|found| found == b"\"\x80\xe9\""));
    let mut again = Key::new("ROOT");
    apply(&mut again, "HKCU", &parse(&out).unwrap(), FileTime(0)).unwrap();
    assert_eq!(again, root);
}

#[test]
fn what_cannot_be_read_names_the_line() {
    let cases = [
        ("[A", "line 2", "a key without \"]\""),
        ("[]", "line 2", "a key without a name"),
        ("\"v\"=\"x\"", "line 2", "a value without a key"),
        ("[-A]\n\"v\"=\"x\"", "line 3", "a value without a key"),
        ("[A]\n\"v\"=\"x", "line 3", "a text without an end"),
        ("[A]\n\"v\"=hex:0g", "line 3", "no hexadecimal digits"),
        ("[A]\n\"v\"=hex:001", "line 3", "no hexadecimal digits"),
        ("[A]\n\"v\"=hex:00,\\", "line 3", "bytes without an end"),
        ("[A]\n\"v\"=dword:", "line 3", "not a hexadecimal number"),
        ("[A]\n\"v\"=bool:1", "line 3", "a value of unknown form"),
        ("nonsense", "line 2", "neither a key nor a value"),
    ];
    for (lines, line, message) in cases {
        let text = format!("REGEDIT4\n{lines}");
        let error = parse(text.as_bytes()).unwrap_err().to_string();
        assert!(error.contains(message) && error.starts_with(line), "{lines:?}: {error}");
    }
    for text in [&b""[..], b"WINE REGISTRY Version 2\n", b"\xFF\xFE"] {
        assert_eq!(parse(text), Err(Error::NotRegFile));
    }
}

#[test]
fn keys_elsewhere_are_refused_before_anything_changes() {
    let text = b"REGEDIT4\n[HKLM\\SOFTWARE\\a]\n[HKCU\\b]\n";
    let mut root = Key::new("ROOT");
    let error = apply(&mut root, "HKLM\\SOFTWARE", &parse(text).unwrap(), FileTime(0));
    let message = "registry key \"HKEY_CURRENT_USER\\\\b\" is not below \"HKLM\\\\SOFTWARE\"";
    assert_eq!(error.unwrap_err().to_string(), message);
    assert_eq!(root.count(), 1);
    let long = format!("REGEDIT4\n[HKLM\\{}]\n", "x".repeat(256));
    let error = apply(&mut root, "HKLM", &parse(long.as_bytes()).unwrap(), FileTime(0));
    assert!(error.unwrap_err().to_string().ends_with("more than 255 characters"));
}

/// What a file of the editor can hold of a tree.
fn as_text(key: &Key) -> Key {
    let mut copy = Key::new(key.name().clone());
    copy.set_values(key.values().to_vec());
    let is_link = key
        .values()
        .iter()
        .any(|v| v.kind == ValueType::LINK && v.name.is(&"SymbolicLinkValue".into()));
    if is_link {
        copy.flags = KeyFlags::SYMLINK;
    }
    // Names with line ends or a bracket last have no spelling.
    copy.set_subkeys(
        key.subkeys().iter().filter(|key| is_plain(key.name())).map(as_text).collect(),
    );
    copy.retain_values(|value| is_plain(&value.name));
    copy
}

fn is_plain(name: &Name) -> bool {
    name.units().iter().all(|unit| !matches!(unit, 10 | 13))
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(2_000) })]

    #[test]
    fn what_is_written_is_read(root in sample::tree()) {
        let root = as_text(&root).renamed("ROOT");
        let text = render(&root, "HKEY_LOCAL_MACHINE\\X", Version::Five);
        let edits = parse(&text).unwrap();
        let mut back = Key::new("ROOT");
        apply(&mut back, "HKEY_LOCAL_MACHINE\\X", &edits, FileTime(0)).unwrap();
        prop_assert_eq!(back, root);
    }

    #[test]
    fn a_delta_as_text_does_the_same(base in sample::tree(), edits in sample::edits()) {
        let (base, mut target) = (as_text(&base), as_text(&base));
        for edit in &edits {
            sample::apply(&mut target, edit);
        }
        let target = as_text(&target);
        let delta = delta::diff(
            &Hive::new(base.clone()),
            &Hive::new(target.clone()),
            &delta::DiffOptions { times: false, ..delta::DiffOptions::default() },
        );
        prop_assert!(delta.root.layer.semantics == Semantics::Merge);
        let text = render(&delta.root, "HKLM", Version::Five);
        let mut applied = base;
        apply(&mut applied, "HKLM", &parse(&text).unwrap(), FileTime(0)).unwrap();
        prop_assert_eq!(values(&applied), values(&target));
    }
}

/// Paths and values, without the case of names.
fn values(key: &Key) -> Vec<String> {
    fn collect(key: &Key, path: &str, all: &mut Vec<String>) {
        all.push(path.to_owned());
        for value in key.values() {
            all.push(format!("{path} {:?} {:?} {:?}", value.name, value.kind, value.data));
        }
        for subkey in key.subkeys() {
            let name: Vec<u16> = subkey.name().units().iter().map(|&u| crate::upcase(u)).collect();
            collect(subkey, &format!("{path}\\{name:?}"), all);
        }
    }
    let mut all = Vec::new();
    collect(key, "", &mut all);
    all
}

#[test]
fn deletions_of_a_layer() {
    let mut root = Key::new("ROOT");
    root.create("gone", FileTime(0)).unwrap().layer.semantics = Semantics::Tombstone;
    let new = root.create("new\\below", FileTime(0)).unwrap();
    new.layer.semantics = Semantics::SupersedeTree;
    new.set_value(Value::tombstone("v"));
    root.get_mut("new").unwrap().layer.semantics = Semantics::SupersedeTree;
    let text = render(&root, "R", Version::Four);
    let lines = String::from_utf8(text).unwrap();
    let lines: Vec<&str> = lines.lines().filter(|line| !line.is_empty()).collect();
    let expected =
        ["REGEDIT4", "[R]", "[-R\\gone]", "[-R\\new]", "[R\\new]", "[R\\new\\below]", "\"v\"=-"];
    assert_eq!(lines, expected);
}

#[test]
fn edits_follow_each_other() {
    let text = b"REGEDIT4\n[HKLM\\a\\old]\n[HKLM\\a]\n\"v\"=\"1\"\n\"V\"=-\n\"w\"=-\n\"w\"=\"2\"\n\
        [-HKLM\\b]\n[HKLM\\b\\new]\n[HKLM\\c\\x]\n[-HKLM\\c]\n[-HKLM\\nothing\\at\\all]\n\
        [-HKLM\\d]\n[HKLM\\D]\n[-HKLM\\e\\gone]\n";
    let mut root = Key::new("ROOT");
    for path in ["b\\was", "c\\was", "d\\was", "e\\gone", "e\\stays"] {
        root.create(path, FileTime(1)).unwrap();
    }
    apply(&mut root, "HKLM", &parse(text).unwrap(), FileTime(2)).unwrap();
    let expected =
        ["", "\\A", "\\A W=2", "\\A\\OLD", "\\B", "\\B\\NEW", "\\D", "\\E", "\\E\\STAYS"];
    let mut shown = Vec::new();
    fn show(key: &Key, path: &str, shown: &mut Vec<String>) {
        shown.push(path.to_uppercase());
        for value in key.values() {
            shown.push(format!("{path} {}={}", value.name, value.text().unwrap()).to_uppercase());
        }
        for subkey in key.subkeys() {
            show(subkey, &format!("{path}\\{}", subkey.name()), shown);
        }
    }
    show(&root, "", &mut shown);
    assert_eq!(shown, expected);
    let time = |path: &str| root.get(path).unwrap().last_write.0;
    assert_eq!(["", "a", "b", "e", "e\\stays"].map(time), [2, 2, 2, 2, 1]);

    let all = b"REGEDIT4\n[HKLM\\x]\n[-HKLM]\n[HKLM\\y]\n";
    apply(&mut root, "HKLM", &parse(all).unwrap(), FileTime(3)).unwrap();
    assert_eq!((root.count(), root.get("y").is_some()), (2, true));
}

#[test]
fn a_hundred_thousand_keys_backwards_take_no_time() {
    use std::fmt::Write as _;
    let mut text = String::from("REGEDIT4\n");
    for number in (0..100_000).rev() {
        writeln!(text, "[HKLM\\k{number:06}]").unwrap();
    }
    text.push_str("[HKLM\\values]\n");
    for number in (0..100_000).rev() {
        writeln!(text, "\"{number:06}\"=dword:1").unwrap();
    }
    let edits = parse(text.as_bytes()).unwrap();
    let mut root = Key::new("ROOT");
    apply(&mut root, "HKLM", &edits, FileTime(0)).unwrap();
    assert_eq!(root.subkeys().len(), 100_001);
    assert_eq!(root.get("values").unwrap().values().len(), 100_000);
}
