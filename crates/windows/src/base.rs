//! The base images: from a stock prefix of Wine to genuine Windows images.
//!
//! # Layers
//!
//! * **The content layer**, shared by all: `Files/` is the drive C: of a prefix that Wine's own
//!   start program made, spelled as on Windows, with Silo's programs in `Windows/System32`, and
//!   the registry as hives in `Windows/System32/config`. It is a base layer: no `Hives/`.
//! * **A small layer for each name and build**: `Hives/Software_Delta` and `System_Delta` say
//!   which Windows it is.
//!
//! Every entry has attributes, a security descriptor and a creation time. Times are those of
//! Wine's package, so the layers are the same bytes wherever they are made.
//!
//! # Normalised
//!
//! The prefix's random identifiers, its host's name and processor, and its times are taken out
//! ([`registry`]); so are links to outside of the drive, and the placeholders that Wine puts
//! where it has no program. Services that no container needs do not start by themselves.

pub mod build;
pub mod content;
pub mod prefix;
pub mod registry;
mod spelling;

use std::io;

pub use build::{BUILDS, Build, KINDS, Kind};
pub use content::{Content, content};
pub use prefix::{Prefix, read_prefix};

/// Where base images are, before their kind's name.
pub const REPOSITORY: &str = "silo";
/// Label of base images: which build of Windows they stand for.
pub const LABEL: &str = "silo.windows.base";
/// Host name of the container that makes the stock prefix; taken out of its registry.
pub const SETUP_HOST: &str = "silo-setup";
/// User in that container's environment, whose profile it makes.
pub const SETUP_USER: &str = "ContainerAdministrator";

/// Whether a name is that of an image which a set-up makes: `silo/servercore:ltsc2019`.
pub fn is_base(name: &str) -> bool {
    let (repository, tag) = name.split_once(':').unwrap_or((name, ""));
    let repository = repository.strip_prefix("docker.io/").unwrap_or(repository);
    let kind = repository.strip_prefix(REPOSITORY).and_then(|rest| rest.strip_prefix('/'));
    let kind = KINDS.iter().find(|known| Some(known.name) == kind);
    kind.is_some_and(|kind| BUILDS.iter().any(|build| build.tags(kind).contains(&tag)))
}

/// Why no base image could be made.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The stream of the prefix.
    #[error("cannot read Wine's prefix")]
    Prefix(#[source] silo_archive::Error),
    /// A prefix that is not complete, or not as it should be.
    #[error("Wine's prefix is not sound: {0}")]
    Unsound(String),
    /// A registry file of the prefix.
    #[error("{file} of Wine's prefix")]
    Registry {
        /// Which file.
        file: &'static str,
        /// Why.
        #[source]
        source: silo_hive::wine::Error,
    },
    /// A hive that cannot be made.
    #[error("cannot write the hive {hive}")]
    Hive {
        /// Which one.
        hive: &'static str,
        /// Why.
        #[source]
        source: silo_hive::Error,
    },
    /// The temporary file of the contents.
    #[error("cannot keep the base images' files")]
    Spool(#[from] io::Error),
}
