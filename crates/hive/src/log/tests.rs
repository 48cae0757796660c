use super::*;
use crate::{Hive, Key, Recovery, Value, WriteOptions, read, read_with_logs, write};

#[test]
fn marvin_of_known_bytes() {
    let cases: [(&[u8], &str); 4] = [
        (b"", "086e9603a4fc9eb3"),
        (b"a", "f492f226c713a021"),
        (b"abcd", "86d06c1ab14f0920"),
        (&std::array::from_fn::<u8, 32, _>(|at| u8::try_from(at).unwrap()), "4ce2c225e4ee4fc6"),
    ];
    for (bytes, expected) in cases {
        let hash = format!("{:016x}", marvin32(bytes).swap_bytes());
        assert_eq!(hash, expected, "{bytes:?}");
    }
}

/// A hive file with a number in a value, and more data if that is large.
fn file(number: u32, size: usize) -> Vec<u8> {
    let mut root = Key::new("ROOT");
    root.set_value(Value::dword("number", number));
    root.set_value(Value::binary("data", vec![7; size]));
    write(&Hive::new(root), &WriteOptions::default()).unwrap()
}

fn number(hive: &Hive) -> u64 {
    hive.root.value("number").unwrap().number().unwrap()
}

fn put(bytes: &mut [u8], at: usize, number: u32) {
    bytes[at..at + 4].copy_from_slice(&number.to_le_bytes());
}

fn sum(bytes: &mut [u8]) {
    let sum = checksum(bytes);
    put(bytes, 508, sum);
}

/// The file as it is while a write has begun and not ended.
fn dirty(mut file: Vec<u8>, primary: u32, secondary: u32) -> Vec<u8> {
    put(&mut file, 4, primary);
    put(&mut file, 8, secondary);
    sum(&mut file);
    file
}

/// The first sector of a log.
fn head(file: &[u8], kind: u32, sequence: u32) -> Vec<u8> {
    let mut head = file[..SECTOR].to_vec();
    put(&mut head, 28, kind);
    put(&mut head, 4, sequence);
    put(&mut head, 8, sequence);
    sum(&mut head);
    head
}

/// An entry of the new format that holds every page of a file.
fn entry(file: &[u8], sequence: u32) -> Vec<u8> {
    let pages = file.len() / 4096 - 1;
    let mut entry = vec![0; (REFERENCES + 8 * pages + 4096 * pages).next_multiple_of(SECTOR)];
    entry[..4].copy_from_slice(b"HvLE");
    let length = entry.len();
    for (at, number) in [(4, length), (12, sequence as usize), (16, 4096 * pages), (20, pages)] {
        put(&mut entry, at, u32::try_from(number).unwrap());
    }
    for page in 0..pages {
        put(&mut entry, REFERENCES + 8 * page, u32::try_from(4096 * page).unwrap());
        put(&mut entry, REFERENCES + 8 * page + 4, 4096);
    }
    entry[REFERENCES + 8 * pages..][..4096 * pages].copy_from_slice(&file[BASE..]);
    hash(&mut entry);
    entry
}

fn hash(entry: &mut [u8]) {
    let first = marvin32(&entry[REFERENCES..]).to_le_bytes();
    entry[24..32].copy_from_slice(&first);
    let second = marvin32(&entry[..32]).to_le_bytes();
    entry[32..40].copy_from_slice(&second);
}

fn new_log(file: &[u8], entries: &[Vec<u8>], sequence: u32) -> Vec<u8> {
    [head(file, 6, sequence), entries.concat()].concat()
}

#[test]
fn entries_are_applied_in_order() {
    let (old, one, two, three) = (file(0, 9), file(1, 9), file(2, 9), file(3, 20_000));
    let hive = dirty(old.clone(), 5, 4);
    let first = new_log(&old, &[entry(&one, 4), entry(&two, 5)], 4);
    let second = new_log(&old, &[entry(&three, 6)], 6);

    let read_dirty = read(&hive).unwrap();
    assert_eq!((number(&read_dirty), read_dirty.recovery), (0, Recovery::Dirty));
    for logs in [[&first[..], &second], [&second, &first]] {
        let recovered = read_with_logs(&hive, &logs).unwrap();
        assert_eq!((number(&recovered), recovered.recovery), (3, Recovery::Replayed));
        assert_eq!(recovered.root.value("data").unwrap().data, vec![7; 20_000]);
    }
    let recovered = read_with_logs(&hive, &[&first]).unwrap();
    assert_eq!(number(&recovered), 2);
    // The last one does not follow the hive's own state by the missing first.
    let base = Base::parse(&hive).unwrap();
    let bytes = recover(&hive, &base, &[Log::parse(&first).unwrap().bytes]).unwrap();
    assert_eq!((u32_at(&bytes, 4), u32_at(&bytes, 8)), (6, 6));
}

#[test]
fn bad_entries_end_the_replay() {
    let (old, one, two) = (file(0, 9), file(1, 9), file(2, 9));
    let hive = dirty(old.clone(), 5, 4);
    let mut damaged = entry(&two, 5);
    damaged[4000] ^= 1;
    let mut huge = entry(&two, 5);
    put(&mut huge, 16, 0x7FFF_F000);
    hash(&mut huge);
    let mut outside = entry(&two, 5);
    put(&mut outside, REFERENCES, 0xFFFF_F000);
    hash(&mut outside);
    let cases = [
        ("a hash that does not fit", damaged),
        ("a size out of all proportion", huge),
        ("a page outside", outside),
        ("a number left out", entry(&two, 6)),
        ("an end in the middle", entry(&two, 5)[..2048].to_vec()),
    ];
    for (case, second) in cases {
        let log = new_log(&old, &[entry(&one, 4), second], 4);
        assert_eq!(number(&read_with_logs(&hive, &[&log]).unwrap()), 1, "{case}");
    }
}

#[test]
fn logs_of_the_past_are_left_aside() {
    let (old, one) = (file(0, 9), file(1, 9));
    let hive = dirty(old.clone(), 9, 8);
    let past = new_log(&old, &[entry(&one, 7)], 7);
    let elsewhere = new_log(&old, &[entry(&one, 9)], 8);
    for log in [&past[..], &elsewhere, &[], b"regf", &old] {
        let read = read_with_logs(&hive, &[log]).unwrap();
        assert_eq!((number(&read), read.recovery), (0, Recovery::Dirty));
    }
    // A complete hive needs none.
    let later = new_log(&old, &[entry(&one, 1)], 1);
    let read = read_with_logs(&old, &[&later]).unwrap();
    assert_eq!((number(&read), read.recovery), (0, Recovery::Clean));
}

#[test]
fn a_bad_base_block_comes_from_the_latest_log() {
    let (old, one, two) = (file(0, 9), file(1, 9), file(2, 20_000));
    let mut hive = old.clone();
    hive[36] = 1;
    assert_eq!(read(&hive), Err(crate::Error::BaseBlock));
    let first = new_log(&old, &[entry(&one, 4)], 4);
    let second = new_log(&two, &[entry(&two, 9)], 9);
    let recovered = read_with_logs(&hive, &[&second, &first]).unwrap();
    assert_eq!((number(&recovered), recovered.recovery), (2, Recovery::Replayed));
}

/// A log of the old format with the sectors in which two files differ.
fn old_log(before: &[u8], after: &[u8], kind: u32) -> Vec<u8> {
    let mut bitmap = vec![0_u8; (after.len() - BASE) / SECTOR / 8];
    let mut pages = Vec::new();
    for (sector, page) in after[BASE..].chunks(SECTOR).enumerate() {
        if before.get(BASE + SECTOR * sector..).is_none_or(|old| !old.starts_with(page)) {
            bitmap[sector / 8] |= 1 << (sector % 8);
            pages.extend_from_slice(page);
        }
    }
    let mut log = head(after, kind, 7);
    log.extend_from_slice(b"DIRT");
    log.extend_from_slice(&bitmap);
    log.resize(log.len().next_multiple_of(SECTOR), 0);
    log.extend_from_slice(&pages);
    log
}

#[test]
fn the_old_format() {
    let (old, new) = (file(0, 9), file(1, 20_000));
    for kind in [1, 2] {
        let log = old_log(&old, &new, kind);
        let hive = dirty(old.clone(), 7, 6);
        let recovered = read_with_logs(&hive, &[&log]).unwrap();
        assert_eq!((number(&recovered), recovered.recovery), (1, Recovery::Replayed));
        assert_eq!(recovered.root, read(&new).unwrap().root);

        // A damaged base block is taken from the log.
        let mut bad = hive.clone();
        bad[40] ^= 0x10;
        assert_eq!(number(&read_with_logs(&bad, &[&log]).unwrap()), 1);
        // It may still tell its time when the first bin, which is older, does not.
        bad[BASE + 20] ^= 1;
        assert_eq!(number(&read_with_logs(&bad, &[&log]).unwrap()), 1);

        // A log of another time, one that was being written, one that is cut.
        let mut other = hive.clone();
        other[12] ^= 1;
        sum(&mut other);
        assert_eq!(read_with_logs(&other, &[&log]).unwrap().recovery, Recovery::Dirty);
        let mut unfinished = log.clone();
        put(&mut unfinished, 8, 6);
        sum(&mut unfinished);
        assert_eq!(read_with_logs(&hive, &[&unfinished]).unwrap().recovery, Recovery::Dirty);
        let cut = &log[..log.len() - 1];
        assert_eq!(read_with_logs(&hive, &[cut]).unwrap().recovery, Recovery::Dirty);
    }
}
