//! Times of unpacking, for comparison with other programs; run by hand:
//! `SILO_MEASURE_TAR=x.tar.gz cargo test -p silo-store --test measure -- --ignored --nocapture`.
#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a test")]

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
    let file = fs_err::File::open(archive).unwrap();
    let (image, _lease) = store.import(file, ImageConfig::default()).unwrap();
    let wall = start.elapsed();
    let stat = fs_err::read_to_string("/proc/self/stat").unwrap();
    let ticks: Vec<&str> = stat.rsplit(')').next().unwrap().split_whitespace().collect();
    let (user, system) = (ticks[11], ticks[12]);
    println!("import {wall:?}, user {user}0 ms, system {system}0 ms, {} bytes", image.size());
    let start = Instant::now();
    let mut out = std::io::sink();
    store.write_layer_tar(&image.chain[0], &mut out).unwrap();
    println!("tar again {:?}", start.elapsed());
}
