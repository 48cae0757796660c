//! `/images` and `/commit`.

use std::collections::BTreeMap;

use crate::containers::Config;
use crate::{List, Map, empty};

model! {
    /// One line of `GET /images/json`.
    pub struct ImageSummary {
        /// Containers that use it; -1 when not counted (before 1.51).
        pub containers: i64,
        /// Unix seconds.
        pub created: i64,
        /// Image id.
        pub id: String,
        /// Labels.
        pub labels: Map<String>,
        /// Parent image id or empty.
        pub parent_id: String,
        /// `name@digest`.
        pub repo_digests: Vec<String>,
        /// `name:tag`.
        pub repo_tags: Vec<String>,
        /// Bytes that other images have too; -1 when not counted.
        pub shared_size: i64,
        /// Bytes.
        pub size: i64,
        /// What its names point to, as a descriptor of OCI.
        #[serde(skip_serializing_if = "empty")]
        pub descriptor: Option<serde_json::Value>,
        /// The images for several platforms that it stands for; only where they are asked for.
        #[serde(skip_serializing_if = "empty")]
        pub manifests: List<ManifestSummary>,
    }
}

model! {
    /// One image of several for different platforms, or what is said about one.
    pub struct ManifestSummary {
        /// Digest of its manifest.
        #[serde(rename = "ID")]
        pub id: String,
        /// As the index describes it.
        pub descriptor: serde_json::Value,
        /// Is it in the store?
        pub available: bool,
        /// Sizes.
        pub size: ManifestSize,
        /// `image`, `attestation` or `unknown`.
        pub kind: String,
        /// Of an image.
        #[serde(skip_serializing_if = "empty")]
        pub image_data: Option<ManifestImage>,
        /// Of an attestation.
        #[serde(skip_serializing_if = "empty")]
        pub attestation_data: Option<ManifestAttestation>,
    }
}

model! {
    /// See [`ManifestSummary`]. Bytes.
    pub struct ManifestSize {
        /// Blobs of the manifest that are here.
        pub content: i64,
        /// These and the unpacked files.
        pub total: i64,
    }
}

model! {
    /// See [`ManifestSummary`].
    pub struct ManifestImage {
        /// A platform of OCI.
        pub platform: serde_json::Value,
        /// Sizes.
        pub size: ManifestImageSize,
        /// Ids of containers that use it.
        pub containers: Vec<String>,
    }
}

model! {
    /// See [`ManifestSummary`]. Bytes.
    pub struct ManifestImageSize {
        /// Unpacked files.
        pub unpacked: i64,
    }
}

model! {
    /// See [`ManifestSummary`].
    pub struct ManifestAttestation {
        /// Digest of the manifest that it is about.
        pub r#for: String,
    }
}

model! {
    /// `GET /images/{name}/json`.
    pub struct ImageInspect {
        /// Image id.
        pub id: String,
        /// `name:tag`.
        pub repo_tags: Vec<String>,
        /// `name@digest`.
        pub repo_digests: Vec<String>,
        /// Parent image id or empty.
        pub parent: String,
        /// Comment.
        pub comment: String,
        /// RFC 3339, empty when the image does not say.
        #[serde(skip_serializing_if = "empty")]
        pub created: String,
        /// Container it was committed from; before 1.45.
        pub container: String,
        /// That container's configuration; before 1.45.
        #[serde(skip_serializing_if = "empty")]
        pub container_config: Option<Config>,
        /// Version of the engine that made it.
        pub docker_version: String,
        /// Author.
        pub author: String,
        /// Configuration.
        pub config: Option<Config>,
        /// `amd64`, ...
        pub architecture: String,
        /// `v8`, ...
        #[serde(skip_serializing_if = "empty")]
        pub variant: String,
        /// `linux` or `windows`.
        pub os: String,
        /// Windows build.
        #[serde(skip_serializing_if = "empty")]
        pub os_version: String,
        /// Bytes.
        pub size: i64,
        /// Where its top layer lies.
        #[serde(skip_serializing_if = "empty")]
        pub graph_driver: Option<GraphDriver>,
        /// Layers.
        #[serde(rename = "RootFS")]
        pub root_fs: RootFs,
        /// What only this engine knows.
        pub metadata: ImageMetadata,
        /// What its name points to, as a descriptor of OCI.
        #[serde(skip_serializing_if = "empty")]
        pub descriptor: Option<serde_json::Value>,
        /// The images for several platforms behind the name; only where they are asked for.
        #[serde(skip_serializing_if = "empty")]
        pub manifests: List<ManifestSummary>,
        /// What stands in for its lowest layers; only Silo has this.
        #[serde(rename = "StandIn", skip_serializing_if = "empty")]
        pub stand_in: Option<StandIn>,
    }
}

model! {
    /// Layers of another image that are beneath an image in place of its own lowest ones.
    pub struct StandIn {
        /// The other image.
        pub base: String,
        /// Digests of its uncompressed layers, and of the one that says what is different.
        pub layers: Vec<String>,
        /// The layers that are not here.
        pub in_place_of: Vec<ReplacedLayer>,
        /// The repositories that have them, as far as that is known.
        #[serde(skip_serializing_if = "empty")]
        pub found_in: Vec<String>,
    }
}

model! {
    /// See [`StandIn`].
    pub struct ReplacedLayer {
        /// Digest of the uncompressed layer.
        #[serde(rename = "DiffID")]
        pub diff_id: String,
        /// Its media type.
        pub media_type: String,
        /// Digest of the blob.
        pub digest: String,
        /// Bytes of the blob.
        pub size: i64,
        /// Where else than on the registry it is.
        #[serde(rename = "URLs", skip_serializing_if = "empty")]
        pub urls: Vec<String>,
    }
}

model! {
    /// Where a file system lies.
    pub struct GraphDriver {
        /// `LowerDir`, `MergedDir`, `UpperDir`, `WorkDir`.
        pub data: BTreeMap<String, String>,
        /// Storage driver.
        pub name: String,
    }
}

model! {
    /// Layers of an image.
    pub struct RootFs {
        /// `layers`.
        #[serde(rename = "Type", skip_serializing_if = "empty")]
        pub kind: String,
        /// Digests of the uncompressed layers, base first.
        #[serde(skip_serializing_if = "empty")]
        pub layers: List<String>,
    }
}

model! {
    /// See [`ImageInspect`].
    pub struct ImageMetadata {
        /// RFC 3339 or Go's zero time.
        pub last_tag_time: String,
    }
}

model! {
    /// One line of `GET /images/{name}/history`.
    pub struct HistoryItem {
        /// Comment.
        pub comment: String,
        /// Unix seconds.
        pub created: i64,
        /// Command.
        pub created_by: String,
        /// Image id or `<missing>`.
        pub id: String,
        /// Bytes.
        pub size: i64,
        /// `name:tag`.
        pub tags: List<String>,
    }
}

model! {
    /// One entry of the answers to removing and pruning images: one of the two is set.
    pub struct DeleteItem {
        /// A deleted image or layer.
        #[serde(skip_serializing_if = "empty")]
        pub deleted: String,
        /// A removed reference.
        #[serde(skip_serializing_if = "empty")]
        pub untagged: String,
    }
}

model! {
    /// Answer of `POST /images/prune`.
    pub struct ImagesPruneReport {
        /// What was removed.
        pub images_deleted: List<DeleteItem>,
        /// Bytes.
        pub space_reclaimed: u64,
    }
}

model! {
    /// One line of `GET /images/search`.
    pub struct SearchResult {
        /// Stars.
        #[serde(rename = "star_count")]
        pub star_count: i64,
        /// Official image.
        #[serde(rename = "is_official")]
        pub is_official: bool,
        /// Repository.
        #[serde(rename = "name")]
        pub name: String,
        /// Always false.
        #[serde(rename = "is_automated")]
        pub is_automated: bool,
        /// Description.
        #[serde(rename = "description")]
        pub description: String,
    }
}
