//! Real registry hives for tests: those that packages of other readers carry for their own tests.

use std::path::PathBuf;

use crate::packages::{Package, crates_io, pypi_source};

const PACKAGES: [Package; 3] = [
    // Made by Windows' offline library: all types, big data, long lists.
    crates_io(
        "nt-hive",
        "0.3.0",
        "39f2d1dac9c1dd47ef51de60ff6794e2e163272124489bc93ec7b6a63348bbe9",
        "nt-hive-0.3.0/testdata",
    ),
    // Hives in use with their logs, and one as Windows completed it.
    crates_io(
        "nt_hive2",
        "4.2.4",
        "cfde6b873d320b74403b7541271c8a7d12a77081f582da7ae7f0fa90f55a1059",
        "nt_hive2-4.2.4/tests/data",
    ),
    // The SYSTEM hive of a Windows machine, compressed.
    pypi_source(
        "dissect.regf",
        "3.14",
        "0df90d4e68453dae1e75a50bd343d84ffc413f4e65d527c05f657b7ea9f30f33",
        "dissect_regf-3.14/tests/_data",
    ),
];

/// The names of the packages.
pub fn hive_packages() -> impl Iterator<Item = &'static str> {
    PACKAGES.iter().map(|package| package.name)
}

/// The directory of a package's hives, fetched when first asked for; else why it cannot be had.
pub fn real_hives(name: &str) -> Result<PathBuf, String> {
    let package = PACKAGES.iter().find(|package| package.name == name).expect("a known package");
    package.directory("target/hives")
}
