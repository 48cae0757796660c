//! Differencing hives: merging in any grouping is the same, and a difference brings its target.
#![no_main]

use libfuzzer_sys::fuzz_target;
use silo_hive::delta::{DiffOptions, diff, flatten, merge};
use silo_hive::{FileTime, Hive, Key, Layer, Semantics, Value, WriteOptions, read, write};

fuzz_target!(|bytes: &[u8]| {
    let mut bytes = bytes.iter().copied();
    let base = Hive::new(tree(&mut bytes, false));
    let target = Hive::new(tree(&mut bytes, false).renamed(base.root.name().clone()));
    let low = Hive::layered(tree(&mut bytes, true));
    let middle = Hive::layered(tree(&mut bytes, true));
    let high = Hive::layered(tree(&mut bytes, true));

    let delta = diff(&base, &target, &DiffOptions::default());
    assert_eq!(merge(base.clone(), &delta).root, target.root);
    assert_eq!(read(&write(&delta, &WriteOptions::default()).unwrap()).unwrap().root, delta.root);

    let one_by_one = flatten(base.clone(), [&low, &middle, &high]);
    assert!(one_by_one.root.is_plain());
    let left = merge(merge(low.clone(), &middle), &high);
    let right = merge(low, &merge(middle, &high));
    assert_eq!(flatten(base.clone(), [&left]).root, one_by_one.root);
    assert_eq!(flatten(base, [&right]).root, one_by_one.root);
});

/// A tree by instructions of one byte, and a byte more for some.
fn tree(bytes: &mut dyn Iterator<Item = u8>, layered: bool) -> Key {
    const NAMES: [&str; 8] = ["a", "A", "b", "é", "É", "long name", "_", "名"];
    let name = |byte: u8| NAMES[usize::from(byte) % NAMES.len()];
    let empty = |name: &str| {
        let mut key = Key::new(name);
        key.security = Some([1][..].into());
        key
    };
    let mut open = vec![empty("ROOT")];
    while let Some(byte) = bytes.next() {
        let rest = byte >> 3;
        let depth = open.len();
        let key = open.last_mut().unwrap();
        match byte & 7 {
            0 | 1 if depth < 100 => open.push(empty(name(rest))),
            2 => {
                key.set_value(Value::dword(name(rest), u32::from(rest >> 3)));
            }
            3 if layered => {
                key.set_value(Value::tombstone(name(rest)));
            }
            4 => key.last_write = FileTime(u64::from(rest)),
            5 => key.class = name(rest).into(),
            6 if layered && depth > 1 => {
                let semantics = [
                    Semantics::Merge,
                    Semantics::Tombstone,
                    Semantics::SupersedeLocal,
                    Semantics::SupersedeTree,
                ][usize::from(rest & 3)];
                let inherit_class = rest & 4 != 0;
                key.layer = Layer { semantics, inherit_class };
            }
            7 if depth == 1 => break,
            7 => {
                let done = open.pop().unwrap();
                open.last_mut().unwrap().insert_subkey(done);
            }
            _ => {}
        }
    }
    while open.len() > 1 {
        let done = open.pop().unwrap();
        open.last_mut().unwrap().insert_subkey(done);
    }
    open.pop().unwrap()
}
