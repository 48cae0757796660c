//! Times of unpacking and of making a tar again, for comparison with other programs:
//! `unpack DIRECTORY ARCHIVE`. The archive is imported as a layer into a new store beneath
//! the directory, which is left there. Prints milliseconds.
#![allow(clippy::print_stdout, reason = "a measuring program")]

use std::path::PathBuf;
use std::time::Instant;

use silo_oci::image::ImageConfig;
use silo_store::Store;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args_os().skip(1).map(PathBuf::from);
    let (Some(directory), Some(archive)) = (arguments.next(), arguments.next()) else {
        return Err("usage: unpack DIRECTORY ARCHIVE".into());
    };
    let store = Store::open(directory)?;
    let start = Instant::now();
    let (image, _lease) = store.import(fs_err::File::open(archive)?, ImageConfig::default())?;
    println!("unpack {}", start.elapsed().as_millis());
    let start = Instant::now();
    for chain in &image.chain {
        store.write_layer_tar(chain, std::io::sink())?;
    }
    println!("tar {}", start.elapsed().as_millis());
    Ok(())
}
