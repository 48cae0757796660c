//! What the store hands out.

use std::path::PathBuf;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use silo_oci::image::{Descriptor, ImageConfig};
use silo_types::Digest;

use crate::Lease;

/// An image in the store.
#[derive(Debug, Clone)]
pub struct Image {
    /// Digest of the configuration.
    pub id: Digest,
    /// The manifest's descriptor: the one that arrived with the image, or one made for it.
    pub manifest: Descriptor,
    /// The configuration, parsed.
    pub config: Arc<ImageConfig>,
    /// Chain ids of the layers, lowest first.
    pub chain: Vec<Digest>,
    /// Sizes of the layers' files in bytes, lowest first.
    pub layer_sizes: Vec<u64>,
    /// What stands in for its lowest layers. Each of those then has the stand-in's chain id in
    /// [`chain`](Self::chain), and the size of all that is beneath is the lowest one's.
    pub stand_in: Option<Arc<StandIn>>,
}

impl Image {
    /// Bytes of all files of all layers.
    pub fn size(&self) -> u64 {
        self.layer_sizes.iter().sum()
    }

    /// The chain id of the top layer; `None` for an image without layers.
    pub fn top(&self) -> Option<Digest> {
        self.chain.last().copied()
    }
}

/// Layers of another image, in the place of an image's lowest ones, which are not here.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StandIn {
    /// Name of the image whose layers are beneath instead.
    pub name: String,
    /// Chain id of that image's top layer.
    pub base: Digest,
    /// The layers that are not here, lowest first.
    pub replaced: Vec<Replaced>,
}

/// A layer that is not here.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Replaced {
    /// Digest of its uncompressed tar.
    pub diff_id: Digest,
    /// The blob, as the image's manifest describes it.
    pub blob: Descriptor,
}

/// An index: a document that names images for several platforms, some of which are in the store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ImageIndex {
    /// The document: type, digest and size.
    pub descriptor: Descriptor,
    /// What it names, also by indexes within it, in its order.
    pub entries: Vec<IndexEntry>,
    /// Indexes within it that are here, each behind the one that names it.
    pub inner: Vec<Descriptor>,
    /// What has to be kept for it: itself, indexes within it, manifests of its images.
    pub(crate) documents: Vec<Digest>,
}

/// What an index names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IndexEntry {
    /// As the index describes it.
    pub descriptor: Descriptor,
    /// The id of the image, if its manifest is in the store. The image may be gone.
    pub image: Option<Digest>,
    /// Of an attestation that is in the store, what its manifest names: the configuration, then
    /// statements.
    pub parts: Vec<Descriptor>,
}

/// What is recorded about an unpacked layer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Layer {
    /// The layer's name, with all beneath it.
    pub chain_id: Digest,
    /// The chain id of what is beneath; `None` for the lowest.
    #[serde(default)]
    pub parent: Option<Digest>,
    /// Digest of the uncompressed tar.
    pub diff_id: Digest,
    /// Size of the uncompressed tar in bytes.
    pub tar_size: u64,
    /// Bytes of all its files.
    pub size: u64,
    /// Number of its entries.
    pub entries: u64,
    /// The compressed blob that is kept in the content store, if the layer arrived so.
    #[serde(default)]
    pub blob: Option<Descriptor>,
    /// Subtrees of `fs` that later entries replaced: where they are now.
    #[serde(default)]
    pub kept: Vec<Kept>,
    /// For a layer that only says in whose place those beneath it stand: see [`StandIn`]. Its
    /// chain id is a digest of all of it, so no other image can have it by accident or design.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stand_in: Option<StandIn>,
    /// The boot of the host in which it was unpacked, until the disk has all of it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unsynced: Option<String>,
}

/// A subtree that was moved out of the way by a later entry of the same tar.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Kept {
    /// Its path in `fs`, as hex of its bytes.
    pub path: String,
    /// Number of payloads that had been written when it was moved.
    pub before: u64,
}

/// How far a load is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Progress {
    /// Digest of the layer in work: its compressed or uncompressed tar; `None` until known.
    pub layer: Option<Digest>,
    /// Bytes of it read so far.
    pub current: u64,
    /// All its bytes.
    pub total: u64,
}

/// An image that an archive brought.
#[derive(Debug, Clone)]
pub struct LoadedImage {
    /// Digest of the configuration.
    pub id: Digest,
    /// Names that the archive gives it, as `busybox:latest`, without duplicates.
    pub names: Vec<String>,
    /// The image.
    pub image: Image,
}

/// An index that an archive brought.
#[derive(Debug, Clone)]
pub struct LoadedIndex {
    /// The index.
    pub index: ImageIndex,
    /// Names that the archive gives it, as `busybox:latest`. The best of its images for this host
    /// has them too.
    pub names: Vec<String>,
}

/// The result of a load.
#[derive(Debug)]
pub struct Loaded {
    /// The images, in the order of the archive.
    pub images: Vec<LoadedImage>,
    /// Indexes of which at least one image is there.
    pub indexes: Vec<LoadedIndex>,
    /// Keeps them from being collected until they are tagged.
    pub lease: Lease,
}

/// An image to be saved, and the names to be saved with it.
#[derive(Debug, Clone)]
pub struct SaveImage {
    /// Digest of the configuration.
    pub id: Digest,
    /// Names as `docker.io/library/busybox:latest` or `busybox:latest`.
    pub names: Vec<String>,
    /// An index that leads to the image: it has the names, and all its images that are there are
    /// saved with it.
    pub index: Option<Digest>,
}

/// The directories of a snapshot, ready for an overlay mount.
#[derive(Debug, Clone)]
pub struct Snapshot {
    /// Its name, a container's id.
    pub id: String,
    /// Chain id of the layers beneath.
    pub chain: Option<Digest>,
    /// Lower directories, topmost first. Never empty: without layers, an empty directory.
    pub lowers: Vec<PathBuf>,
    /// The upper directory.
    pub upper: PathBuf,
    /// Overlay's work directory.
    pub work: PathBuf,
}

/// What happened to a path, with the numbers of Docker's API.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ChangeKind {
    /// Changed (0, `C`).
    Modified = 0,
    /// New (1, `A`).
    Added = 1,
    /// Gone (2, `D`).
    Deleted = 2,
}

/// One difference between a snapshot and what is beneath it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    /// What happened.
    pub kind: ChangeKind,
    /// To which path, absolute.
    pub path: PathBuf,
}

/// What a collection removed.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Collected {
    /// Ids of the images that are gone.
    pub images: Vec<Digest>,
    /// Chain ids of the layers that are gone, topmost first.
    pub layers: Vec<Digest>,
    /// Bytes of their files and of the blobs that are gone.
    pub bytes: u64,
}
