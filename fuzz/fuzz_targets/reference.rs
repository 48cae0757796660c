//! References to images: the full form of what is read means the same.
#![no_main]

use libfuzzer_sys::fuzz_target;
use silo_oci::reference::Reference;

fuzz_target!(|text: &str| {
    drop(Reference::parse(text));
    let Ok(reference) = Reference::parse_normalized(text) else { return };
    let full = reference.to_string();
    match Reference::parse_normalized(&full) {
        Ok(again) => assert_eq!(again, reference, "{full}"),
        Err(error) => panic!("{full} is not read again: {error}"),
    }
    match Reference::parse_normalized(&reference.familiar()) {
        Ok(again) => assert_eq!(again, reference, "{}", reference.familiar()),
        Err(error) => panic!("{} is not read again: {error}", reference.familiar()),
    }
});
