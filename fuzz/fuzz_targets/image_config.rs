//! Manifests, indexes and configurations of images.
#![no_main]

use libfuzzer_sys::fuzz_target;
use silo_oci::image::{Document, ImageConfig, Index, Manifest};

fuzz_target!(|json: &[u8]| {
    drop(Manifest::parse(json));
    drop(Index::parse(json));
    drop(Document::parse(json, ""));
    if let Ok(config) = ImageConfig::parse(json) {
        config.chain_ids();
        config.platform();
        let written = config.to_bytes();
        assert!(ImageConfig::parse(&written).is_ok());
    }
});
