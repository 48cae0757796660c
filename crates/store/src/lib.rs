//! Content, layers, snapshots and garbage collection.
//!
//! # On disk
//!
//! ```text
//! content/                  an OCI image layout
//!   oci-layout, index.json  the images: one descriptor a manifest, config digest as annotation;
//!                           and the indexes that name some of them: see [`ImageIndex`]
//!   index.synced.json       the last durable index, while a newer one may not be
//!   blobs/sha256/<hex>      configurations, manifests, indexes, and layers that arrived compressed
//!   ingest/                 blobs that are being written; emptied at open
//!   partial/<hex>           layers of which a part has come over a network; see [`Receiving`]
//! layers/<chain id>/        one unpacked layer
//!   fs/                     a lower directory of overlay mounts, whiteouts in overlay's form
//!   layer.json              [`Layer`]
//!   recipe.zst              how to make the layer's tar again from fs/, bit for bit; absent
//!                           if the compressed blob is kept
//!   kept/                   files that later entries of the same tar replaced
//!   windows/                of a layer that was used in a Windows container: see [`WindowsLayer`]
//! layers/.new-*             layers being unpacked; removed at open
//! snapshots/<name>/         upper/, work/, and the link `chain`: the chain id of what is beneath
//! snapshots/.base/          lowest directory of every root: mount points
//! trash/                    what is being removed in the background; emptied at open
//! ```
//!
//! A layer's tar is `fs` and `recipe.zst` together, so content is never held twice without
//! need. A chain id names a layer with all that is beneath it, but what is in `fs` depends on
//! the layer's own tar only, so a layer is unpacked while it streams in, before anything is
//! known about its parents, and is named when the image's configuration arrives.
//!
//! A blob that a registry on the same data root has as well ([`REGISTRY_BLOBS`]) is one file with
//! two names, whichever came first ([`share()`]). Either side removes its own name only.
//!
//! # Stand-ins
//!
//! The lowest layers of an image may be elsewhere, and layers of another image in their place
//! ([`StandIn`]): Windows images stand on Silo's base so. An empty layer of the store's own, on
//! top of that base, records the layers that are not here; the image's other layers lie above
//! it, and the annotation `io.silo.image.stand-in` of the image in `index.json` is its chain id.
//! The image's configuration and manifest stay as they came, with the true layers, and images
//! that are made on top of it get those too ([`Store::diff_ids`]).
//!
//! # Safety
//!
//! Layers come from strangers. Extraction works on descriptors and resolves every path inside
//! the layer's own directory; a hard link to anything outside it is refused. Directories
//! above `fs` and `upper` are mode 0700, so a set-user-id file of a layer is out of reach of
//! the host's users (CVE-2021-41091).
//!
//! # Crash safety
//!
//! Everything is written aside and renamed into place, so the end of a process loses nothing
//! that an operation returned. [`Store::open`] removes what was not finished. One process at a
//! time has a store open.
//!
//! When the host itself goes down, what was stored in the last seconds may be lost, but is
//! never there in part: layers are marked in their record until the disk has them, which a
//! flush in the background sees to, and [`Store::open`] drops layers that an earlier boot left
//! marked, with the images that need them. Documents are checked against their digests, and
//! the last durable `index.json` is kept beside a newer one. [`Store::sync`] waits for the flush, as
//! does dropping the last clone of a store.
//!
//! # Garbage
//!
//! [`Store::collect`] removes layers and blobs that no given image, no index, no snapshot and no
//! [`Lease`] of a running operation needs. It may run at any moment. An index keeps itself and the
//! manifests that it names, but no image: what it names and is not there is simply not there.
#![warn(missing_docs)]

mod changes;
mod collect;
mod durable;
mod error;
mod extract;
mod image;
mod index;
mod lane;
mod layer;
mod lease;
mod load;
mod make;
mod receive;
mod recipe;
mod resolve;
mod save;
mod share;
mod snapshot;
mod stand_in;
mod store;
mod transfer;
pub mod tree;
mod types;
mod view;
mod windows;
mod writers;

pub use error::Error;
pub use index::Attach;
pub use lease::Lease;
pub use receive::{Received, Receiving};
pub use save::SaveForms;
pub use share::{CONTENT_BLOBS, REGISTRY_BLOBS, share};
pub use store::Store;
pub use types::{
    Change, ChangeKind, Collected, Image, ImageIndex, IndexEntry, Layer, Loaded, LoadedImage,
    LoadedIndex, Progress, Replaced, SaveImage, Snapshot, StandIn,
};
pub use view::{Listing, View};
pub use windows::{WindowsChanges, WindowsLayer};
