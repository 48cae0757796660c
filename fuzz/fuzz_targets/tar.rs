//! Tar streams: entries and their contents, to the end or the first error.
#![no_main]

use std::io::Read;

use libfuzzer_sys::fuzz_target;
use silo_archive::Reader;

fuzz_target!(|bytes: &[u8]| {
    let mut reader = Reader::new(bytes);
    while let Ok(Some(entry)) = reader.next_entry() {
        std::hint::black_box(&entry);
        // No input can have more content than it has bytes; holes are not read.
        let mut content = Vec::new();
        if reader.by_ref().take(1 << 20).read_to_end(&mut content).is_err() {
            return;
        }
        assert!(content.len() <= bytes.len());
    }
});
