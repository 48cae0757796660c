//! Tests that cannot run on this host.

use std::io::Write;

/// Records that a test did not run, and why. `cargo xtask test` counts and prints these; the
/// caller returns at once.
pub fn skip(test: &str, reason: &str) {
    eprintln!("skipped {test}: {reason}");
    if let Some(file) = std::env::var_os("SILO_TEST_SKIPS") {
        let mut file = fs_err::OpenOptions::new()
            .create(true)
            .append(true)
            .open(std::path::PathBuf::from(file))
            .expect("the file for skipped tests");
        writeln!(file, "{test}: {reason}").expect("write the file for skipped tests");
    }
}
