//! `/volumes`.

use crate::{List, Map, empty};

model! {
    /// A volume.
    pub struct Volume {
        /// RFC 3339.
        #[serde(skip_serializing_if = "empty")]
        pub created_at: String,
        /// `local`.
        pub driver: String,
        /// Labels.
        pub labels: Map<String>,
        /// Host path.
        pub mountpoint: String,
        /// Name.
        pub name: String,
        /// Driver options.
        pub options: Map<String>,
        /// `local`.
        pub scope: String,
        /// Size and users, in `/system/df`.
        #[serde(skip_serializing_if = "empty")]
        pub usage_data: Option<VolumeUsage>,
    }
}

model! {
    /// Size and users of a volume; -1 when not known.
    pub struct VolumeUsage {
        /// Containers that mount it.
        pub ref_count: i64,
        /// Bytes.
        pub size: i64,
    }
}

model! {
    /// `POST /volumes/create`.
    pub struct VolumeCreateRequest {
        /// `local` by default.
        #[serde(skip_serializing_if = "empty")]
        pub driver: String,
        /// Driver options.
        #[serde(skip_serializing_if = "empty")]
        pub driver_opts: Map<String>,
        /// Labels.
        #[serde(skip_serializing_if = "empty")]
        pub labels: Map<String>,
        /// Empty makes an anonymous volume.
        #[serde(skip_serializing_if = "empty")]
        pub name: String,
        /// Only with swarm.
        #[serde(skip_serializing_if = "empty")]
        pub cluster_volume_spec: Option<serde_json::Value>,
    }
}

model! {
    /// `GET /volumes`.
    pub struct VolumeListResponse {
        /// Volumes.
        pub volumes: Vec<Volume>,
        /// Drivers that did not answer.
        pub warnings: List<String>,
    }
}

model! {
    /// Answer of `POST /volumes/prune`.
    pub struct VolumesPruneReport {
        /// Names.
        pub volumes_deleted: List<String>,
        /// Bytes.
        pub space_reclaimed: u64,
    }
}
