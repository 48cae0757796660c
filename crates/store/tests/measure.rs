//! Times of unpacking, for comparison with other programs; run by hand:
//! `SILO_MEASURE_TAR=x.tar.gz cargo test -p silo-store --test measure -- --ignored --nocapture`.

use std::time::Instant;

use silo_oci::image::ImageConfig;
use silo_store::Store;

#[test]
#[ignore = "a measurement, which needs an archive"]
fn import() {
    let archive = std::env::var_os("SILO_MEASURE_TAR").unwrap();
    let beside = std::env::var_os("SILO_MEASURE_DIR").unwrap_or_else(|| "/tmp".into());
    let directory = tempfile::tempdir_in(beside).unwrap();
    let store = Store::open(directory.path()).unwrap();
    let start = Instant::now();
    let file = std::fs::File::open(archive).unwrap();
    let (image, _lease) = store.import(file, ImageConfig::default()).unwrap();
    println!("import {:?}, {} bytes", start.elapsed(), image.size());
    let start = Instant::now();
    let mut out = std::io::sink();
    store.write_layer_tar(&image.chain[0], &mut out).unwrap();
    println!("tar again {:?}", start.elapsed());
}
