//! Mounts in the long form, and as lists and inspect show them.

use crate::{List, Map, empty};

model! {
    /// One of `HostConfig.Mounts`.
    pub struct Mount {
        /// `bind`, `volume`, `tmpfs`, `image`, `npipe` or `cluster`.
        #[serde(rename = "Type", skip_serializing_if = "empty")]
        pub kind: String,
        /// Host path, volume name or image.
        #[serde(skip_serializing_if = "empty")]
        pub source: String,
        /// Path in the container.
        #[serde(skip_serializing_if = "empty")]
        pub target: String,
        /// Read-only, recursively where the kernel can.
        #[serde(skip_serializing_if = "empty")]
        pub read_only: bool,
        /// Ignored on Linux.
        #[serde(skip_serializing_if = "empty")]
        pub consistency: String,
        /// For `bind`.
        #[serde(skip_serializing_if = "empty")]
        pub bind_options: Option<BindOptions>,
        /// For `volume`.
        #[serde(skip_serializing_if = "empty")]
        pub volume_options: Option<VolumeOptions>,
        /// For `image`.
        #[serde(skip_serializing_if = "empty")]
        pub image_options: Option<ImageOptions>,
        /// For `tmpfs`.
        #[serde(skip_serializing_if = "empty")]
        pub tmpfs_options: Option<TmpfsOptions>,
    }
}

model! {
    /// Options of a bind mount.
    pub struct BindOptions {
        /// `rprivate`, `private`, `rshared`, `shared`, `rslave` or `slave`.
        #[serde(skip_serializing_if = "empty")]
        pub propagation: String,
        /// Without the mounts below the source.
        #[serde(skip_serializing_if = "empty")]
        pub non_recursive: bool,
        /// Make the source if it is missing.
        #[serde(skip_serializing_if = "empty")]
        pub create_mountpoint: bool,
        /// Read-only without the mounts below.
        #[serde(skip_serializing_if = "empty")]
        pub read_only_non_recursive: bool,
        /// Fail where recursive read-only is not possible.
        #[serde(skip_serializing_if = "empty")]
        pub read_only_force_recursive: bool,
    }
}

model! {
    /// Options of a volume mount.
    pub struct VolumeOptions {
        /// Do not fill an empty volume from the image.
        #[serde(skip_serializing_if = "empty")]
        pub no_copy: bool,
        /// Labels of a new volume.
        #[serde(skip_serializing_if = "empty")]
        pub labels: Map<String>,
        /// A path inside the volume.
        #[serde(skip_serializing_if = "empty")]
        pub subpath: String,
        /// Driver of a new volume.
        #[serde(skip_serializing_if = "empty")]
        pub driver_config: Option<DriverConfig>,
    }
}

model! {
    /// A driver's name and options.
    pub struct DriverConfig {
        /// Name.
        #[serde(skip_serializing_if = "empty")]
        pub name: String,
        /// Options.
        #[serde(skip_serializing_if = "empty")]
        pub options: Map<String>,
    }
}

model! {
    /// Options of an image mount.
    pub struct ImageOptions {
        /// A path inside the image.
        #[serde(skip_serializing_if = "empty")]
        pub subpath: String,
    }
}

model! {
    /// Options of a tmpfs mount.
    pub struct TmpfsOptions {
        /// Bytes, zero is unlimited.
        #[serde(skip_serializing_if = "empty")]
        pub size_bytes: i64,
        /// Permission bits.
        #[serde(skip_serializing_if = "empty")]
        pub mode: u32,
        /// Mount options as `[name]` or `[name, value]`.
        #[serde(skip_serializing_if = "empty")]
        pub options: List<Vec<String>>,
    }
}

model! {
    /// A mount as it is in a container.
    pub struct MountPoint {
        /// `bind`, `volume`, `tmpfs` or `image`.
        #[serde(rename = "Type", skip_serializing_if = "empty")]
        pub kind: String,
        /// Volume name.
        #[serde(skip_serializing_if = "empty")]
        pub name: String,
        /// Host path.
        pub source: String,
        /// Path in the container.
        pub destination: String,
        /// Volume driver.
        #[serde(skip_serializing_if = "empty")]
        pub driver: String,
        /// The options as they were given.
        pub mode: String,
        /// Writable.
        #[serde(rename = "RW")]
        pub rw: bool,
        /// Propagation.
        pub propagation: String,
    }
}
