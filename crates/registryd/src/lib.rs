//! A registry for images: the OCI distribution specification 1.1, and what Docker's clients
//! expect beyond it, over content that lies beside the engine's own.
//!
//! # Contract
//!
//! * [`serve`] answers until it is told to stop. One process serves a data root at a time; the
//!   engine on the same root may run or not, and neither waits for the other.
//! * Content is given out under a digest only after all of it was checked against that digest,
//!   and a manifest only names what its repository has (but for foreign layers, what the manifest
//!   is about, and where [`Config::sparse`] allows it).
//! * What a client was told to be stored survives the end of the process and of the host. What is
//!   stored in part is never given out.
//! * What clients send is bounded: in size, number, time and rate ([`Limits`]). Nothing of a
//!   request becomes part of a path but the digits of a digest and the id of an upload, both
//!   checked.
//! * With [`Config::access`], a client learns and changes nothing of a repository that it has no
//!   right to: neither by the catalog, nor by taking content from there into one of its own.
//! * With [`Config::proxy`], what is not here is asked for at another registry, and kept for the
//!   next who asks ([`Collect::unused`]). One download serves all who wait for it. A tag is what
//!   it is there now, or, if that registry does not answer, what it was here. Nobody can push then.
//! * With [`Config::engine_images`], the engine's images are repositories that can only be read.
//! * [`Registry::collect`] removes what nothing needs, at any moment, in any process.
//!
//! # On disk
//!
//! Below the engine's data root, and on its file system:
//!
//! ```text
//! registry/               mode 0700
//!   blobs/<algorithm>/<hex>   content, manifests among it
//!   uploads/<uuid>/       an upload that is not finished
//!     repository          the name of its repository
//!     data                what has arrived
//!   staging/              what is being written in one go
//!   registry.db           SQLite: repositories, tags, what a manifest names, what is where
//!   lock                  held by the process that serves
//! ```
//!
//! **Content that the engine has as well is one file with two names** (hard links): a blob that
//! is pushed here becomes another name of the engine's in `content/blobs/sha256`, and what the
//! engine loads or pulls becomes another name of the file here ([`silo_store::share`]). So either
//! side removes what it does not need without asking the other. Files are never changed.
//!
//! A blob is flushed before it is renamed into place, and renamed before the database names it,
//! in one transaction. A file that the database does not name is garbage.
#![warn(missing_docs)]

mod access;
mod auth;
mod config;
mod engine;
mod error;
mod http;
mod manifest;
mod name;
mod proxy;
mod store;
mod uploads;

pub use config::{Collect, Config, Limits, Proxy};
pub use error::{Error, Refusal};
pub use http::serve;
pub use store::{Collected, Registry};
