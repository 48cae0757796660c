//! A `config.json` of the OCI runtime specification: what is read and written again stays.
#![no_main]

use libfuzzer_sys::fuzz_target;
use silo_oci::runtime::Spec;

fuzz_target!(|json: &[u8]| {
    let Ok(spec) = Spec::from_json(json) else { return };
    let Ok(written) = serde_json::to_vec(&spec) else { panic!("a specification is not written") };
    match Spec::from_json(&written) {
        Ok(again) => assert_eq!(again, spec),
        Err(error) => panic!("what was written is not read: {error}"),
    }
});
