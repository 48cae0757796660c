//! The Wine runtime: from packages to a small Linux root.
//!
//! # The tree
//!
//! Debian's layout, so that Wine finds itself: `/usr/lib/wine/{wine64,wineserver64}`,
//! `/usr/lib/x86_64-linux-gnu/wine/x86_64-{unix,windows}` and `i386-windows`,
//! `/usr/share/wine`. Wine's own Windows files are stripped of debug information ([`pe`]), and
//! variables that Wine adds to every process are hidden (`adjust`).
//! Of the Linux libraries exactly those are there that something in the tree needs ([`elf`]);
//! one that is missing fails the set-up. `libfreetype.so.6` is a stub unless fonts are wanted.
//! `etc/ssl/certs/ca-certificates.crt` has the certificate authorities, and
//! `usr/share/doc/*/copyright` and `usr/share/common-licenses` the licences of all that is
//! shipped. Nothing has setuid or setgid bits.
//!
//! A second tree, of which only the set-up makes use, has what a stock prefix is made with: all
//! 32-bit Windows files, Wine's own start program, and all files that are changed as they were.

mod adjust;
pub mod elf;
pub mod list;
mod make;
pub mod pe;
mod place;

/// The name of [`Parts::shell`] in `C:\Windows\System32`.
pub const SHELL_LIBRARY: &str = adjust::SHELL_LIBRARY;

use std::io;

pub use make::make;

use sha2::{Digest as _, Sha256};
use silo_types::Digest;

use crate::debian::index::Package;
use crate::tree::Tree;

/// Name of the runtime image in the store, without a tag.
pub const REPOSITORY: &str = "silo/wine";
/// The tag under which the engine finds the runtime that it uses.
pub const CURRENT: &str = "silo/wine:latest";
/// Label of the runtime image: the version of Wine.
pub const LABEL: &str = "silo.windows.runtime";
/// Label of the runtime and of base images: the digest of all that they are made of. Those that
/// belong together have the same.
pub const RECIPE: &str = "silo.windows.recipe";
/// Label of the runtime: the digest of what of its recipe is Silo's and not Debian's.
pub const MAKER: &str = "silo.windows.maker";
/// What the engine says when there is no runtime; clients know the case by it.
pub const HOW_TO_SET_UP: &str = "run `silo windows setup` once";
/// Where Wine's program loader is in the tree.
pub const LOADER: &str = "/usr/lib/wine/wine64";
/// Where Wine's server is in the tree.
pub const SERVER: &str = "/usr/lib/wine/wineserver64";
/// Where Wine's 64-bit Windows files are.
pub const WINDOWS_64: &str = "usr/lib/x86_64-linux-gnu/wine/x86_64-windows";
/// Where Wine's 32-bit Windows files are.
pub const WINDOWS_32: &str = "usr/lib/x86_64-linux-gnu/wine/i386-windows";
/// Where the Linux halves of Wine's libraries are.
pub const UNIX: &str = "usr/lib/x86_64-linux-gnu/wine/x86_64-unix";
/// Where libraries are.
pub const LIBRARIES: &str = "usr/lib/x86_64-linux-gnu";

/// What the runtime is made with beside the packages.
#[derive(Debug, Clone, Copy)]
pub struct Parts<'a> {
    /// A program for Windows that takes the place of Wine's `wineboot.exe`.
    pub boot: Option<&'a [u8]>,
    /// A library for Windows that cmd gets in place of `shell32.dll`.
    pub shell: &'a [u8],
    /// A library for Linux that Wine's server loads first.
    pub server: &'a [u8],
    /// Wine's 64-bit Windows programs that are left out since base images have better ones, in
    /// lower case with their ending.
    pub replaced: &'a [&'a str],
    /// Whether text is really drawn: FreeType and fonts.
    pub fonts: bool,
}

/// A runtime made.
#[derive(Debug)]
pub struct Runtime {
    /// The version of Wine, as in `10.0~repack-6`.
    pub version: String,
    /// The version as an image's tag, as in `10.0-6`.
    pub tag: String,
    /// The runtime itself.
    pub tree: Tree,
    /// What is laid over it to make a stock prefix.
    pub setup: Tree,
    /// Every package with its version.
    pub packages: Vec<String>,
}

impl Runtime {
    /// The part of its image's configuration that is not about layers.
    pub fn config(&self, recipe: &str, maker: &str) -> serde_json::Value {
        serde_json::json!({
            "architecture": "amd64",
            "os": "linux",
            "config": {
                "Env": ["PATH=/usr/lib/wine:/usr/bin"],
                "Labels": {
                    LABEL: self.version,
                    RECIPE: recipe,
                    MAKER: maker,
                    "org.opencontainers.image.title": "The Wine runtime of Silo",
                    "org.opencontainers.image.version": self.version,
                    "org.opencontainers.image.description":
                        "Wine from Debian's packages; licences are in /usr/share/doc",
                    "silo.windows.packages": self.packages.join(", "),
                },
            },
        })
    }
}

/// Changes with everything in the making of images that their other ingredients do not show.
const REVISION: &str = "7";

/// The digest of what Silo itself puts into the images: programs, and the way they are made.
pub fn maker(parts: &Parts<'_>, programs: &[&[u8]]) -> String {
    let mut sum = Sha256::new();
    let mut add = |bytes: &[u8]| {
        sum.update((bytes.len() as u64).to_le_bytes());
        sum.update(bytes);
    };
    add(REVISION.as_bytes());
    add(&[u8::from(parts.fonts)]);
    add(parts.boot.unwrap_or_default());
    add(parts.shell);
    add(parts.server);
    for name in parts.replaced {
        add(name.as_bytes());
    }
    for program in programs {
        add(program);
    }
    Digest::from_sha256(sum.finalize().into()).to_string()
}

/// The digest of everything: the maker's part and the packages.
pub fn recipe(maker: &str, packages: &[Package]) -> String {
    let mut sums: Vec<[u8; 32]> = packages.iter().map(|one| *one.digest.as_bytes()).collect();
    sums.sort_unstable();
    let mut sum = Sha256::new();
    sum.update(maker);
    for package in &sums {
        sum.update(package);
    }
    Digest::from_sha256(sum.finalize().into()).to_string()
}

/// Why no runtime could be made.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A package that cannot be read.
    #[error(transparent)]
    Package(#[from] crate::debian::Error),
    /// The temporary file of the contents.
    #[error("cannot keep the runtime's files")]
    Spool(#[from] io::Error),
    /// A Windows file that cannot be changed as it has to be.
    #[error("{path} in the package {package}")]
    Windows {
        /// Which package.
        package: String,
        /// Its path there.
        path: String,
        /// Why.
        #[source]
        source: pe::Error,
    },
    /// A Linux file whose needs cannot be read.
    #[error("{path} of the runtime")]
    Linux {
        /// Its path.
        path: String,
        /// Why.
        #[source]
        source: elf::Error,
    },
    /// A library that something needs and no package has.
    #[error("{needed}, which {by} needs, is in none of the packages")]
    Library {
        /// The library.
        needed: String,
        /// What needs it.
        by: String,
    },
    /// A file that packages of another release have elsewhere, or not at all.
    #[error("the packages have no {0}; this release of Debian is not known to Silo")]
    Absent(String),
    /// A thread that gave up.
    #[error("a package could not be read to its end")]
    Thread,
}
