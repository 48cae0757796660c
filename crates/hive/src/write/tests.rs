use proptest::prelude::*;

use super::*;
use crate::read::u32_at;
use crate::{FileTime, ValueType, read, sample};

fn written(hive: &Hive) -> Vec<u8> {
    write(hive, &WriteOptions::default()).unwrap()
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(2_000) })]

    #[test]
    fn what_is_written_is_read(root in sample::tree(), layers in sample::layered_tree()) {
        for hive in [Hive::new(root), Hive::layered(layers)] {
            let bytes = written(&hive);
            check_cells(&bytes);
            let back = read(&bytes).unwrap();
            prop_assert_eq!(&back, &hive);
            prop_assert_eq!(written(&back), bytes);
        }
    }
}

/// Cells tile the bins, and bins the file.
fn check_cells(bytes: &[u8]) {
    assert_eq!(bytes.len() % BIN, 0);
    assert_eq!(u32_at(bytes, 40) as usize, bytes.len() - BASE);
    let mut bin = BASE;
    while bin < bytes.len() {
        assert_eq!(&bytes[bin..bin + 4], b"hbin");
        assert_eq!(u32_at(bytes, bin + 4) as usize, bin - BASE);
        let end = bin + u32_at(bytes, bin + 8) as usize;
        let mut cell = bin + 32;
        let mut was_free = false;
        while cell < end {
            let size = i32::from_le_bytes(bytes[cell..cell + 4].try_into().unwrap());
            assert!(size != 0 && size % 8 == 0, "cell of size {size} at {cell:#x}");
            assert!(!(was_free && size > 0), "two free cells at {cell:#x}");
            was_free = size > 0;
            cell += size.unsigned_abs() as usize;
        }
        assert_eq!(cell, end);
        bin = end;
    }
}

#[test]
fn the_smallest_hive() {
    let bytes = written(&Hive::default());
    assert_eq!(bytes.len(), 8192);
    check_cells(&bytes);
    // Root key: hive entry, no delete, narrow name; parent, lists and class are none.
    let root = BASE + 36;
    assert_eq!(u32_at(&bytes, 36), 32);
    assert_eq!(&bytes[root..root + 4], b"nk\x2c\0");
    assert_eq!(u32_at(&bytes, root + 28), NONE);
    assert_eq!(&bytes[root + 72..root + 80], b"\x04\0\0\0ROOT");
    // One descriptor, which is its own neighbour.
    let security = u32_at(&bytes, root + 44);
    let at = BASE + 4 + security as usize;
    assert_eq!(&bytes[at..at + 2], b"sk");
    assert_eq!([4, 8, 12].map(|field| u32_at(&bytes, at + field)), [security, security, 1]);
}

#[test]
fn the_default_descriptor_is_well_formed() {
    let descriptor = default_security();
    let field = |at: usize| u32_at(&descriptor, at) as usize;
    assert_eq!(&descriptor[..4], b"\x01\0\x04\x80");
    // Owner and group are the last two, the list of rights fills the space before them.
    assert_eq!((field(4), field(8), field(12), field(16)), (96, 112, 0, 20));
    assert_eq!(descriptor.len(), 124);
    assert_eq!(u32_at(&descriptor, 22) & 0xFFFF, 76);
}

#[test]
fn sizes_of_data_at_the_edges() {
    let mut root = Key::new("ROOT");
    let sizes = [0, 1, 4, 5, 100, 16_343, 16_344, 16_345, 32_688, 32_689, 1_000_000];
    for size in sizes {
        let data = (0..size).map(|at| u8::try_from(at % 251).unwrap()).collect();
        root.set_value(Value::binary(&size.to_string(), data));
    }
    let hive = Hive::new(root);
    let bytes = written(&hive);
    check_cells(&bytes);
    let back = read(&bytes).unwrap();
    for size in sizes {
        let name = size.to_string();
        assert!(back.root.value(&name) == hive.root.value(&name), "{size} bytes");
    }
    assert_eq!(u32_at(&bytes, BASE + 36 + 64), 1_000_000);
}

#[test]
fn many_subkeys_and_values() {
    for count in [499, 500, 501, 1000, 3000] {
        let mut root = Key::new("ROOT");
        root.security = Some(default_security());
        for number in 0..count {
            let key = root.create(&format!("key{number}"), FileTime(number)).unwrap();
            key.security = Some(default_security());
            root.set_value(Value::qword(&format!("value{number}"), number));
        }
        let hive = Hive::new(root);
        let bytes = written(&hive);
        check_cells(&bytes);
        assert!(read(&bytes).unwrap() == hive, "{count}");
        let list = BASE + 4 + u32_at(&bytes, BASE + 36 + 28) as usize;
        assert_eq!(&bytes[list..list + 2], if count <= 500 { b"lh" } else { b"ri" });
    }
}

#[test]
fn maxima_are_those_of_the_contents() {
    let mut root = Key::new("ROOT");
    root.create("four", FileTime(0)).unwrap();
    root.create("élève", FileTime(0)).unwrap().class = "class".into();
    root.set_value(Value::binary("1234567", vec![0; 9]));
    root.set_value(Value::binary("", vec![0; 77]));
    let bytes = written(&Hive::new(root));
    let field = |at| u32_at(&bytes, BASE + 36 + at);
    assert_eq!([52, 56, 60, 64, 20, 36].map(field), [10, 10, 14, 77, 2, 2]);
}

#[test]
fn descriptors_are_shared_and_inherited() {
    let mut root = Key::new("ROOT");
    for path in ["a\\b", "c", "d"] {
        root.create(path, FileTime(0)).unwrap();
    }
    root.security = Some([1; 20][..].into());
    root.get_mut("a").unwrap().security = Some([2; 20][..].into());
    root.get_mut("d").unwrap().security = Some([1; 20][..].into());
    let bytes = written(&Hive::new(root));
    assert_eq!(bytes.windows(2).filter(|pair| pair == b"sk").count(), 2);
    let back = read(&bytes).unwrap();
    let first = |path: &str| back.get(path).unwrap().security.as_ref().unwrap()[0];
    assert_eq!(["", "a", "a\\b", "c", "d"].map(first), [1, 2, 2, 1, 1]);
}

#[test]
fn what_is_volatile_is_left_out() {
    let mut root = Key::new("ROOT");
    root.create("stays", FileTime(0)).unwrap();
    root.create("goes\\too", FileTime(0)).unwrap();
    root.get_mut("goes").unwrap().flags = KeyFlags::VOLATILE;
    let back = read(&written(&Hive::new(root))).unwrap();
    assert_eq!(back.root.count(), 2);
}

#[test]
fn what_no_hive_can_hold() {
    fn key(change: impl FnOnce(&mut Key)) -> Key {
        let mut root = Key::new("ROOT");
        root.create("above", FileTime(0)).unwrap();
        change(root.get_mut("above").unwrap());
        root
    }
    let mut deep = Key::new("x");
    for _ in 0..MAX_DEPTH {
        let mut above = Key::new("x");
        above.insert_subkey(deep);
        deep = above;
    }
    let long = "n".repeat(256);
    let cases = [
        (key(|k| drop(k.insert_subkey(Key::new(&long)))), "its name is longer than 255"),
        (key(|k| drop(k.insert_subkey(Key::new("a\\b")))), "its name is empty or has a backslash"),
        (key(|k| drop(k.insert_subkey(Key::new("")))), "its name is empty"),
        (key(|k| k.class = (&"c".repeat(40_000)).into()), "\"above\" cannot be written: its class"),
        (key(|k| drop(k.set_value(Value::dword(&"v".repeat(16_384), 1)))), "the name of a value"),
        (key(|k| drop(k.set_value(Value::tombstone("v")))), "can have deleted values"),
        (key(|k| k.layer.semantics = Semantics::Tombstone), "can have deleted keys"),
        (deep, "deeper than 512"),
    ];
    for (root, message) in cases {
        let error = write(&Hive::new(root), &WriteOptions::default()).unwrap_err().to_string();
        assert!(error.contains(message), "{error}");
    }
}

#[test]
fn the_base_block_of_a_delta() {
    let mut hive = Hive::layered(Key::new("ROOT"));
    hive.name = "a\\path\\of\\more\\than\\thirty-one\\characters".into();
    let options = WriteOptions { written: Some(FileTime(0x0123_4567_89AB_CDEF)) };
    let bytes = write(&hive, &options).unwrap();
    assert_eq!([20, 24, 28, 32, 144].map(|at| u32_at(&bytes, at)), [1, 6, 0, 1, 2]);
    assert_eq!(bytes[12..20], 0x0123_4567_89AB_CDEF_u64.to_le_bytes());
    let back = read(&bytes).unwrap();
    assert_eq!(back.name, "\\more\\than\\thirty-one\\characters"[1..]);
    assert_eq!((back.layered, back.minor), (true, 6));
}

#[test]
fn types_without_a_name_stay() {
    let mut root = Key::new("ROOT");
    root.set_value(Value::new("v", ValueType(0xFFFF_0012), vec![1, 2, 3]));
    let hive = Hive::new(root);
    assert_eq!(read(&written(&hive)).unwrap().root.values(), hive.root.values());
}
