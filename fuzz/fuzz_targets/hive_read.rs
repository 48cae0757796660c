//! Hive files and their logs: no panic, no more keys than the file can have, and what is read
//! is written so that it is read again.
#![no_main]

use libfuzzer_sys::fuzz_target;
use silo_hive::{WriteOptions, read_with_logs, write};

fuzz_target!(|bytes: &[u8]| {
    // The first two bytes say how many sectors belong to the hive and to the first log.
    let Some((&[hive, log], rest)) = bytes.split_first_chunk() else { return };
    let mut rest = rest.to_vec();
    let length = rest.len();
    let (hive, logs) = rest.split_at_mut((512 * usize::from(hive)).min(length));
    let length = logs.len();
    let (first, second) = logs.split_at_mut((512 * usize::from(log)).min(length));
    for file in [&mut *hive, &mut *first, &mut *second] {
        seal(file);
    }
    let Ok(read) = read_with_logs(hive, &[first, second]) else { return };
    assert!(read.root.count() <= bytes.len() / 76);
    // Keys without a name can be read but not written.
    let Ok(written) = write(&read, &WriteOptions::default()) else { return };
    let again = silo_hive::read(&written).expect("what was written");
    assert_eq!(again.root.count(), read.root.count());
    let written_again = write(&again, &WriteOptions::default()).expect("what was read");
    assert!(written == written_again);
});

/// Makes the checksums right, which no mutation would.
fn seal(file: &mut [u8]) {
    if file.len() < 512 {
        return;
    }
    let words = file[..508].as_chunks().0;
    let sum = match words.iter().fold(0, |sum, word| sum ^ u32::from_le_bytes(*word)) {
        u32::MAX => u32::MAX - 1,
        0 => 1,
        sum => sum,
    };
    file[508..512].copy_from_slice(&sum.to_le_bytes());
    let mut at = 512;
    while file.get(at..at + 512).is_some_and(|entry| entry.starts_with(b"HvLE")) {
        let length = u32::from_le_bytes([file[at + 4], file[at + 5], file[at + 6], file[at + 7]]);
        let length = length as usize;
        let Some(entry) = file.get_mut(at..).and_then(|rest| rest.get_mut(..length)) else {
            return;
        };
        if length < 512 {
            return;
        }
        let first = marvin32(&entry[40..]);
        entry[24..32].copy_from_slice(&first);
        let second = marvin32(&entry[..32]);
        entry[32..40].copy_from_slice(&second);
        at += length;
    }
}

fn marvin32(bytes: &[u8]) -> [u8; 8] {
    let (mut low, mut high) = (0x7A4E_55C5_u32, 0x82EF_4D88_u32);
    let mut tail = bytes.to_vec();
    tail.push(0x80);
    tail.resize(tail.len().next_multiple_of(4) + 4, 0);
    for word in tail.as_chunks().0 {
        low = low.wrapping_add(u32::from_le_bytes(*word));
        high ^= low;
        low = low.rotate_left(20).wrapping_add(high);
        high = high.rotate_left(9) ^ low;
        low = low.rotate_left(27).wrapping_add(high);
        high = high.rotate_left(19);
    }
    (u64::from(low) | u64::from(high) << 32).to_le_bytes()
}
