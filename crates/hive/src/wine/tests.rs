use proptest::prelude::*;

use super::*;
use crate::key::{Key, KeyFlags};
use crate::value::{Value, ValueType};
use crate::{FileTime, sample};

/// A file with each form that Wine writes.
const TEXT: &[u8] = br#"WINE REGISTRY Version 2
;; All keys relative to REGISTRY\\Machine

#arch=win64

[Software\\Forms] 1700000000
#time=1da1747c66d0000
#class="a \"class\""
@="default"
"binary"=hex:00,01,fe,ff
"dword"=dword:0000002a
"empty"=hex(1):
"expand"=str(2):"%SystemRoot%\\x"
"link"=hex(6):41,00
"long"=hex:00,01,02,03,04,05,06,07,08,09,0a,0b,0c,0d,0e,0f,10,11,12,13,14,15,\
  16,17,18,19,1a,1b,1c,1d,1e,1f,20,21,22,23,24,25,26,27,28,29,2a,2b,2c,2d,2e,\
  2f,30
"multi"=str(7):"one\0two\0"
"qword"=hex(b):01,02,03,04,05,06,07,08
"text \"quoted\""="tab\tline\nbell\a\x20ac\x00e9a\33"
"type"=hex(ffff0012):01

[Software\\Names\\a\[b\]\\\x540d] 1700000001
#time=1da1747c7059680

[System\\CurrentControlSet] 1700000000
#time=1da1747c66d0000
#link
"SymbolicLinkValue"=hex(6):5c,00,52,00
"#;

#[test]
fn every_form_both_ways() {
    let registry = parse(TEXT).unwrap();
    assert_eq!((registry.base.as_str(), registry.arch), ("REGISTRY\\Machine", Some(Arch::Win64)));
    let forms = registry.hive.get("software\\forms").unwrap();
    assert_eq!(forms.last_write.unix(), 1_700_000_000);
    assert_eq!(forms.last_write, FileTime(0x01da_1747_c66d_0000));
    assert_eq!(forms.class.to_string(), "a \"class\"");
    let value = |name: &str| forms.value(name).unwrap();
    assert_eq!(value("").text().unwrap(), "default");
    assert_eq!(value("binary").data, [0, 1, 0xFE, 0xFF]);
    assert_eq!(value("dword").number(), Some(42));
    assert_eq!((value("empty").kind, value("empty").data.len()), (ValueType::SZ, 0));
    assert_eq!(value("expand").text().unwrap(), "%SystemRoot%\\x");
    assert_eq!(value("long").data, (0..0x31).collect::<Vec<u8>>());
    assert_eq!(value("multi").texts().unwrap(), ["one", "two"]);
    assert_eq!(value("qword").number(), Some(0x0807_0605_0403_0201));
    assert_eq!(value("text \"quoted\"").text().unwrap(), "tab\tline\nbell\u{7}€éa\u{1b}");
    assert_eq!(value("type").kind, ValueType(0xFFFF_0012));
    let named = registry.hive.get("Software\\Names\\a[b]\\名").unwrap();
    assert_eq!(named.last_write.unix(), 1_700_000_001);
    // Keys between have the time of the first that is written below them.
    assert_eq!(registry.hive.get("Software").unwrap().last_write, forms.last_write);
    assert_eq!(registry.hive.get("Software\\Names").unwrap().last_write, named.last_write);
    let link = registry.hive.get("System\\CurrentControlSet").unwrap();
    assert!(link.flags.contains(KeyFlags::SYMLINK));
    let text = render(&registry);
    let expected = String::from_utf8_lossy(TEXT).replace("\\33\"", "\\e\"");
    assert_eq!(String::from_utf8_lossy(&text), expected);
}

#[test]
fn some_keys_only() {
    let whole = parse(TEXT).unwrap();
    let some = parse_keys(TEXT, &["SYSTEM\\currentcontrolset", "Software\\None"]).unwrap();
    assert_eq!((&some.base, some.arch), (&whole.base, whole.arch));
    assert_eq!(some.hive.get("System"), whole.hive.get("System"));
    assert_eq!(some.hive.root.subkeys().len(), 1);
    let some = parse_keys(TEXT, &["Software\\Forms"]).unwrap();
    assert_eq!(some.hive.get("Software\\Forms"), whole.hive.get("Software\\Forms"));
    assert_eq!(some.hive.get("Software").unwrap().subkeys().len(), 1);
    // What is skipped is not looked at, and brackets in it begin nothing.
    let text = b"WINE REGISTRY Version 2\n[A] 1\nnonsense\n\"[b]\"=[\n[B] 2\n\"x\"=\"y\"\n[";
    assert!(parse(text).is_err());
    assert!(parse_keys(&text[..text.len() - 1], &["b"]).unwrap().hive.get("B").is_some());
    assert!(parse_keys(text, &["b"]).is_err());
    assert!(
        parse_keys(b"WINE REGISTRY Version 2\n[A] 1\nx[", &[])
            .unwrap()
            .hive
            .root
            .subkeys()
            .is_empty()
    );
    assert_eq!(parse_keys(b"", &["b"]), Err(Error::NotWine));
}

#[test]
fn what_other_versions_wrote() {
    let text = b"WINE REGISTRY Version 2\r\n; comment\n#new=option\n\n\
        [A\\\\B]\n#future=1\n\"str\"=str:\"x\"\n \"space\" = dword:FF\n\"a\"=\"1\"\n\"A\"=\"2\"\n\
        \"odd\"=hex(3):1,02 , 3,\\\n   04\n\"caf\xe9\"=\"\\101\\xZ\"\n[a] 5\n[a\\\\b]\n\"n\"=dword:1\n";
    let registry = parse(text).unwrap();
    assert_eq!((registry.arch, registry.hive.root.count()), (None, 3));
    let key = registry.hive.get("a\\b").unwrap();
    let value = |name: &str| key.value(name).unwrap();
    assert_eq!(key.name().to_string(), "B");
    assert_eq!(value("str").text().unwrap(), "x");
    assert_eq!(value("space").number(), Some(255));
    assert_eq!(value("a").text().unwrap(), "2");
    assert_eq!(value("odd").data, [1, 2, 3, 4]);
    assert_eq!(value("café").text().unwrap(), "AxZ");
    assert_eq!(value("n").number(), Some(1));
}

#[test]
fn what_cannot_be_read_names_the_line() {
    let long = format!("[{}] 1", "x".repeat(256));
    let deep = format!("[{}] 1", vec!["x"; 512].join("\\\\"));
    let cases: &[(&str, &str)] = &[
        ("[A", "a text without an end"),
        ("\"v\"=\"x\"", "a value without a key"),
        ("#arch=arm", "an unknown architecture"),
        ("[A]\n\"v\"", "no \"=\""),
        ("[A]\n\"v\"=\"x", "a text without an end"),
        ("[A]\n\"v\"=float:1", "a value of unknown form"),
        ("[A]\n\"v\"=hex:0g", "bytes that are no hexadecimal digits"),
        ("[A]\n\"v\"=hex:00,\\", "bytes without an end"),
        ("[A]\n\"v\"=hex(x):00", "a value type that is no number"),
        ("[A]\n\"v\"=hex(1234567890):00", "a value type that is no number"),
        ("[A]\nnonsense", "neither a key nor a value"),
        (&long, "a key name of more than 255"),
        (&deep, "keys nest too deep"),
    ];
    for (lines, message) in cases {
        let text = format!("WINE REGISTRY Version 2\n{lines}");
        let error = parse(text.as_bytes()).unwrap_err().to_string();
        let line = format!("line {}", 1 + lines.split('\n').count().min(2));
        assert!(error.contains(message) && error.starts_with(&line), "{lines:?}: {error}");
    }
    for text in [&b""[..], b"REGEDIT4\n", b"WINE REGISTRY Version 1\n"] {
        assert_eq!(parse(text), Err(Error::NotWine));
    }
}

/// The tree as the text can hold it: no descriptors and only one flag, and the times of keys
/// that are not written come from below.
fn as_text(key: &Key) -> Key {
    let mut copy = Key::new(key.name().clone());
    copy.class = key.class.clone();
    copy.flags = key.flags & KeyFlags::SYMLINK;
    copy.last_write = key.last_write;
    copy.set_values(key.values().to_vec());
    copy.set_subkeys(key.subkeys().iter().map(as_text).collect());
    copy
}

fn same_but_times(one: &Key, other: &Key) -> bool {
    let is_written = !one.values().is_empty() || one.subkeys().is_empty() || !one.class.is_empty();
    one.name() == other.name()
        && one.class == other.class
        && one.flags == other.flags
        && one.values() == other.values()
        && (!is_written || one.last_write == other.last_write)
        && one.subkeys().len() == other.subkeys().len()
        && one.subkeys().iter().zip(other.subkeys()).all(|(a, b)| same_but_times(a, b))
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(2_000) })]

    #[test]
    fn what_is_written_is_read(root in sample::tree(), win64: bool) {
        let root = as_text(&root).renamed("ROOT");
        let arch = Some(if win64 { Arch::Win64 } else { Arch::Win32 });
        let registry = Registry { base: "User\\S-1-5".into(), arch, hive: Hive::new(root) };
        let text = render(&registry);
        let back = parse(&text).unwrap();
        prop_assert!(
            same_but_times(&registry.hive.root, &back.hive.root),
            "{:#?}\n{}", registry.hive.root, String::from_utf8_lossy(&text)
        );
        prop_assert_eq!(render(&back), text);
        prop_assert_eq!((back.base, back.arch), (registry.base, registry.arch));
    }

    #[test]
    fn damage_is_an_error_or_nothing(
        places in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6),
    ) {
        let mut text = TEXT.to_vec();
        for (place, byte) in places {
            let length = text.len();
            text[place.index(length)] = byte;
        }
        if let Ok(registry) = parse(&text) {
            let again = parse(&render(&registry)).unwrap();
            prop_assert!(same_but_times(&registry.hive.root, &again.hive.root));
        }
    }
}

#[test]
fn volatile_keys_are_not_written() {
    let mut registry = parse(b"WINE REGISTRY Version 2\n[A\\\\B] 1\n[C] 1\n").unwrap();
    registry.hive.root.get_mut("A").unwrap().flags = KeyFlags::VOLATILE;
    let text = String::from_utf8(render(&registry)).unwrap();
    assert!(text.contains("[C]") && !text.contains("[A"), "{text}");
}

#[test]
fn system_loses_and_gains_its_link() {
    let mut registry = parse(TEXT).unwrap();
    let mut system = detach(&mut registry, "System").unwrap();
    assert!(registry.hive.get("System").is_none());
    assert_eq!(system.root.count(), 1);
    system.root.create("ControlSet002", FileTime(1)).unwrap();
    let select = system.root.create("Select", FileTime(1)).unwrap();
    select.set_value(Value::dword("Current", 2));
    attach(&mut registry, "System", system);
    let link = registry.hive.get("System\\CurrentControlSet").unwrap();
    assert!(link.flags.contains(KeyFlags::SYMLINK));
    let target = link.value("SymbolicLinkValue").unwrap();
    assert_eq!(target.text().unwrap(), "\\Registry\\Machine\\System\\ControlSet002");
    assert_eq!(target.kind, ValueType::LINK);
    assert!(detach(&mut registry, "Nothing").is_none());
    let software = detach(&mut registry, "Software").unwrap();
    attach(&mut registry, "SOFTWARE", software.clone());
    assert_eq!(registry.hive.get("Software").unwrap().subkeys(), software.root.subkeys());
}
