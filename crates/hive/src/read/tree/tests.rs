use std::sync::LazyLock;

use proptest::prelude::*;

use super::*;
use crate::read::checksum;
use crate::{WriteOptions, read, write};

fn written(root: Key) -> Vec<u8> {
    write(&Hive::new(root), &WriteOptions::default()).unwrap()
}

/// A hive with every kind of cell.
static SAMPLE: LazyLock<Vec<u8>> = LazyLock::new(|| {
    let mut root = Key::new("ROOT");
    for number in 0..600 {
        root.create(&format!("many\\key{number}"), FileTime(number)).unwrap();
    }
    let key = root.create("é\\名\\deep", FileTime(9)).unwrap();
    key.class = "class".into();
    key.set_value(Value::string("text", "Käse"));
    key.set_value(Value::binary("big", vec![1; 40_000]));
    key.set_value(Value::dword("", 7));
    written(root)
});

fn sample() -> Vec<u8> {
    SAMPLE.clone()
}

fn put(bytes: &mut [u8], at: usize, number: u32) {
    bytes[at..at + 4].copy_from_slice(&number.to_le_bytes());
}

/// The checksum as it must be for what is in the base block.
fn seal(bytes: &mut [u8]) {
    let sum = checksum(bytes);
    put(bytes, 508, sum);
}

/// Where the contents of the first cell with this start are, in the file.
fn find(bytes: &[u8], start: &[u8]) -> usize {
    let at = bytes[BASE..].windows(start.len()).position(|found| found == start);
    BASE + at.unwrap_or_else(|| panic!("{start:?} is not there"))
}

/// The key of a path: index of its contents.
fn key_at(bytes: &[u8], name: &str) -> usize {
    find(bytes, name.as_bytes()) - KEY_NAME
}

fn offset(index: usize) -> u32 {
    u32::try_from(index - BASE - 4).unwrap()
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(1_000) })]

    #[test]
    fn damage_is_an_error_or_nothing(
        places in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6),
    ) {
        let mut bytes = sample();
        let used = bytes.len();
        for (place, byte) in places {
            bytes[place.index(used)] = byte;
        }
        seal(&mut bytes);
        if let Ok(hive) = read(&bytes) {
            prop_assert!(hive.root.count() <= used / 76);
        }
    }

    #[test]
    fn any_words_in_cells(
        at in any::<prop::sample::Index>(),
        word in prop_oneof![any::<u32>(), 0..0x20000_u32, Just(u32::MAX)],
        cut in any::<prop::sample::Index>(),
    ) {
        let mut bytes = sample();
        let at = at.index(bytes.len() / 4 - 1) * 4;
        put(&mut bytes, at, word);
        seal(&mut bytes);
        drop(read(&bytes));
        drop(read(&bytes[..cut.index(bytes.len())]));
    }
}

#[test]
fn what_is_no_hive() {
    let good = sample();
    let with = |at: usize, number: u32| {
        let mut bytes = good.clone();
        put(&mut bytes, at, number);
        seal(&mut bytes);
        bytes
    };
    let cases = [
        (Vec::new(), "not a registry hive: it does not start"),
        (b"regf".to_vec(), "it ends within the base block"),
        (good[..good.len() - 1].to_vec(), "it ends before its last bin"),
        (with(20, 2), "version 2.5"),
        (with(24, 2), "version 1.2"),
        (with(24, 7), "version 1.7"),
        (with(28, 6), "it is the log of a hive"),
        (with(36, 0x7FFF_FFF8), "a cell beyond the end at offset 0x7ffffff8"),
        (with(36, 0x24), "at no multiple of 8"),
        (with(BASE, 0), "no bin at offset 0x1000"),
        (with(BASE + 8, 0), "no bin at offset 0x1000"),
        (with(BASE + 8, 100), "no bin at offset 0x1000"),
        (with(BASE + 32, 88), "a cell that is not in use at offset 0x20"),
        (with(BASE + 32, 0x8000_0000), "a cell of impossible size at offset 0x20"),
    ];
    for (bytes, message) in cases {
        let error = read(&bytes).unwrap_err().to_string();
        assert!(error.contains(message), "{error}, not {message}");
    }
}

#[test]
fn trees_that_are_none() {
    let good = sample();
    let many = key_at(&good, "many");
    let list = u32_at(&good, many + 28);
    let cases: [(&str, usize, u32, &str); 3] = [
        ("a list that is a list of lists", BASE + 4 + list as usize + 4, list, "no list of keys"),
        ("a list that is a key", many + 28, offset(many), "no list of keys"),
        ("more values than the list has", many + 36, 5, "a cell beyond the end"),
    ];
    for (case, at, number, message) in cases {
        let mut bytes = good.clone();
        put(&mut bytes, at, number);
        let error = read(&bytes).unwrap_err().to_string();
        assert!(error.contains(message), "{case}: {error}");
    }
    // A key that is its own subkey.
    let leaf = find(&good, b"lh");
    let mut bytes = good.clone();
    put(&mut bytes, leaf + 4, offset(many));
    let error = read(&bytes).unwrap_err().to_string();
    assert!(error.contains("in the tree twice"), "{error}");
}

#[test]
fn shared_cells_do_not_multiply() {
    // A thousand values that all have the data of the first.
    let mut root = Key::new("ROOT");
    root.set_value(Value::binary("0", vec![1; 16_000]));
    for number in 1..1000 {
        root.set_value(Value::binary(&number.to_string(), vec![0; 5]));
    }
    let mut bytes = written(root);
    let list = BASE + 4 + u32_at(&bytes, BASE + 36 + 40) as usize;
    let first = BASE + 4 + u32_at(&bytes, list) as usize;
    let data = u32_at(&bytes, first + 8);
    for index in 1..1000 {
        let value = BASE + 4 + u32_at(&bytes, list + 4 * index) as usize;
        put(&mut bytes, value + 4, 16_000);
        put(&mut bytes, value + 8, data);
    }
    assert_eq!(read(&bytes).unwrap_err(), Error::Amplified);
}

#[test]
fn depth_is_limited() {
    let mut root = Key::new("ROOT");
    let path = "d\\".repeat(MAX_DEPTH - 1);
    root.create(&path, FileTime(0)).unwrap();
    let mut bytes = written(root);
    assert_eq!(read(&bytes).unwrap().root.count(), MAX_DEPTH);
    // The deepest key takes the key of another branch over: one level more.
    let mut root = Key::new("ROOT");
    root.create(&path, FileTime(0)).unwrap();
    root.create("z\\y", FileTime(0)).unwrap();
    bytes = written(root);
    let key = |bytes: &[u8], name: u8, subkeys: u8| {
        (BASE..bytes.len() - 80)
            .find(|&at| {
                bytes[at..].starts_with(b"nk")
                    && bytes[at + 76] == name
                    && bytes[at + 20] == subkeys
            })
            .unwrap()
    };
    let (deepest, other) = (key(&bytes, b'd', 0), key(&bytes, b'z', 1));
    bytes.copy_within(other + 28..other + 32, deepest + 28);
    put(&mut bytes, deepest + 20, 1);
    put(&mut bytes, other + 20, 0);
    put(&mut bytes, other + 28, u32::MAX);
    assert_eq!(read(&bytes).unwrap_err(), Error::Depth);
}

#[test]
fn disorder_and_wrong_hints_are_tolerated() {
    let mut root = Key::new("ROOT");
    for name in ["a", "b", "c"] {
        root.create(name, FileTime(0)).unwrap();
    }
    let mut bytes = written(root);
    let list = find(&bytes, b"lh");
    let (first, last) = (u32_at(&bytes, list + 4), u32_at(&bytes, list + 20));
    put(&mut bytes, list + 4, last);
    put(&mut bytes, list + 20, first);
    put(&mut bytes, list + 8, 0xDEAD);
    // Counts, maxima, the volatile list, the parent, and flags of the file are not needed.
    for (field, number) in [(16, 0), (24, 7), (32, 0x1234), (52, 0), (60, 0)] {
        put(&mut bytes, BASE + 36 + field, number);
    }
    bytes.extend_from_slice(b"left over");
    let hive = read(&bytes).unwrap();
    let names: Vec<String> = hive.root.subkeys().iter().map(|key| key.name().to_string()).collect();
    assert_eq!(names, ["a", "b", "c"]);
}

#[test]
fn lists_of_older_versions() {
    for (signature, step) in [(b"lf", 8), (b"li", 4)] {
        let mut root = Key::new("ROOT");
        for name in ["a", "b", "c"] {
            root.create(name, FileTime(0)).unwrap();
        }
        let mut bytes = written(root);
        let list = find(&bytes, b"lh");
        let keys: Vec<u32> = (0..3).map(|index| u32_at(&bytes, list + 4 + 8 * index)).collect();
        bytes[list..list + 2].copy_from_slice(signature);
        for (index, key) in keys.into_iter().enumerate() {
            put(&mut bytes, list + 4 + step * index, key);
        }
        put(&mut bytes, 24, 3);
        seal(&mut bytes);
        let hive = read(&bytes).unwrap();
        assert_eq!((hive.root.subkeys().len(), hive.minor), (3, 3));
    }
}

#[test]
fn data_of_older_versions_is_in_one_cell() {
    let mut root = Key::new("ROOT");
    root.set_value(Value::binary("v", vec![9; 16_344]));
    let mut bytes = written(root);
    let value = find(&bytes, b"vk");
    put(&mut bytes, value + 4, 16_350);
    assert!(read(&bytes).unwrap_err().to_string().contains("longer than its cell"));
    // A real cell is accepted for small data, which Windows writes inline.
    put(&mut bytes, value + 4, 3);
    assert_eq!(read(&bytes).unwrap().root.values()[0].data, [9; 3]);
}

#[test]
fn a_layer_byte_counts_only_in_layered_hives() {
    let mut root = Key::new("ROOT");
    root.create("gone", FileTime(0)).unwrap().layer.semantics = Semantics::Tombstone;
    root.set_value(Value::tombstone("v"));
    let mut bytes = write(&Hive::layered(root), &WriteOptions::default()).unwrap();
    let hive = read(&bytes).unwrap();
    assert_eq!(hive.get("gone").unwrap().layer.semantics, Semantics::Tombstone);
    assert!(hive.root.values()[0].tombstone);
    put(&mut bytes, 144, 0);
    seal(&mut bytes);
    let hive = read(&bytes).unwrap();
    assert!(!hive.layered && hive.root.is_plain());
}

#[test]
fn a_tombstone_has_nothing() {
    let mut root = Key::new("ROOT");
    let key = root.create("gone\\below", FileTime(0)).unwrap();
    key.class = "class".into();
    let gone = root.get_mut("gone").unwrap();
    gone.class = "class".into();
    gone.set_value(Value::dword("v", 1));
    let mut bytes = write(&Hive::layered(root), &WriteOptions::default()).unwrap();
    let gone = key_at(&bytes, "gone");
    bytes[gone + 13] = 1;
    let hive = read(&bytes).unwrap();
    let gone = hive.get("gone").unwrap();
    assert_eq!(gone.layer.semantics, Semantics::Tombstone);
    assert!(gone.class.is_empty() && gone.values().is_empty() && gone.subkeys().is_empty());
    let again = write(&hive, &WriteOptions::default()).unwrap();
    assert_eq!(read(&again).unwrap(), hive);
    assert_eq!(u32_at(&again, BASE + 36 + 56), 0);
}
