//! Headers of registries' answers, `WWW-Authenticate` and `Link`: what is read was there.
#![no_main]

use libfuzzer_sys::fuzz_target;

#[path = "../../crates/registry/src/challenge.rs"]
mod challenge;
#[path = "../../crates/registry/src/link.rs"]
mod link;

fuzz_target!(|header: &str| {
    let mut length = 0;
    for found in challenge::parse(header) {
        assert!(!found.scheme.is_empty());
        assert!(found.get("realm").len() <= header.len());
        for (name, value) in &found.parameters {
            length += name.len() + value.len();
        }
    }
    assert!(length <= header.len());
    if let Some(next) = link::next(header) {
        assert!(header.contains(next));
    }
});
