//! Windows executables and tables of API sets: no panic, no endless loop, counts within their
//! limits, and the same answers each time.
#![no_main]

use libfuzzer_sys::fuzz_target;
use silo_pe::{ApiSets, MAX_FUNCTIONS, MAX_LIBRARIES, Pe, Symbol, identify};

fuzz_target!(|bytes: &[u8]| {
    identify(bytes);
    if let Ok(sets) = ApiSets::parse(bytes) {
        sets.library("api-ms-win-crt-heap-l1-1-0.dll");
    }
    let Ok(mut pe) = Pe::open(&bytes) else { return };
    let imports = pe.imports().unwrap_or_default();
    assert!(imports.len() <= MAX_LIBRARIES);
    let functions: usize = imports.iter().map(|import| import.functions.len()).sum();
    assert!(functions <= MAX_FUNCTIONS);
    // Names are shown on terminals.
    for import in &imports {
        assert!(import.library.bytes().all(|byte| matches!(byte, b' '..=b'~')));
    }
    drop((pe.clr(), pe.api_sets(), pe.contains(&[b"hostfxr"], 4096)));
    let Ok(Some(exports)) = pe.exports() else { return };
    assert!(exports.len() <= MAX_FUNCTIONS);
    let symbols = ["Real", "Away", "Half"].map(|name| Symbol::Name(name.to_owned()));
    for symbol in symbols.into_iter().chain((0..4).map(Symbol::Ordinal)) {
        let first = exports.find(&mut pe, &symbol).ok();
        let again = exports.find(&mut pe, &symbol).ok();
        // A file that is read too often answers no more.
        assert!(again.is_none() || first == again);
    }
});
