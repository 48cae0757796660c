//! Windows containers on Linux, below the engine: the Wine runtime, the base images, and what a
//! container needs of both. No HTTP API and no database here.
//!
//! # The two kinds of images
//!
//! * **The runtime** ([`runtime`]) is a small Linux image, `silo/wine`, of one layer: Wine and
//!   the few libraries it needs, taken from Debian's packages ([`debian`]). It is the Linux root
//!   of every Windows container, mounted read-only, with empty mount points `/c` (the drive C:),
//!   `/prefix` (Wine's prefix: registry and drive letters), `/drives`, `/proc`, `/sys`, `/dev`,
//!   `/run`, `/tmp`, `/root`, and empty files `/sbin/silo-init`, `/etc/hosts`, `/etc/hostname`
//!   and `/etc/resolv.conf`.
//! * **Base images** ([`base`]) are genuine Windows images: `silo/nanoserver`,
//!   `silo/servercore` and `silo/server` for each build. They share one content layer with
//!   Wine's Windows tree and the registry hives; a small layer for each name and build says
//!   which Windows it is.
//!
//! Both are made once by `silo windows setup` from a Debian mirror, the same bytes every time
//! for the same packages, and are ordinary images from then on.
#![warn(missing_docs)]

pub mod base;
pub mod check;
pub mod command;
pub mod control;
pub mod debian;
pub mod environment;
pub mod image;
pub mod init;
mod links;
pub mod path;
pub mod pipes;
pub mod registry;
pub mod runtime;
pub mod spool;
pub mod tree;
