//! Registry text of Wine and of the registry editor: what is read is written so that the same is
//! read again.
#![no_main]

use libfuzzer_sys::fuzz_target;
use silo_hive::{FileTime, Key, regfile, wine};

fuzz_target!(|bytes: &[u8]| {
    if let Ok(registry) = wine::parse(bytes) {
        let text = wine::render(&registry);
        let again = wine::parse(&text).expect("what was written");
        assert_eq!(again.hive.root.count(), registry.hive.root.count());
        assert!(wine::render(&again) == text);
    }
    if let Ok(edits) = regfile::parse(bytes) {
        let mut root = Key::new("ROOT");
        if regfile::apply(&mut root, "", &edits, FileTime(1)).is_err() {
            return;
        }
        let text = regfile::render(&root, "X", regfile::Version::Five);
        // Names with line ends have no spelling.
        if let Ok(edits) = regfile::parse(&text) {
            let mut again = Key::new("ROOT");
            regfile::apply(&mut again, "X", &edits, FileTime(1)).expect("what was written");
        }
    }
});
