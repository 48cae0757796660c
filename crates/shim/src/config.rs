//! What a shim must be told: `shim.json` in the container's directory.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use silo_types::ContainerId;

/// Everything about one container that its OCI configuration does not say.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ShimConfig {
    /// The container.
    pub id: ContainerId,
    /// `<data>/containers/<id>`, absolute: holds `config.json` and gets `exit.json`.
    pub container_dir: PathBuf,
    /// `<run>/shims/<id>`, absolute: gets the socket and the pid file.
    pub run_dir: PathBuf,
    /// The container's control group, relative to the roots of the hierarchies: `silo/<id>`.
    pub cgroup: PathBuf,
    /// Where the root file system comes from.
    pub root: RootConfig,
    /// Give the first process a terminal in place of pipes.
    #[serde(default)]
    pub tty: bool,
    /// First size of the terminal.
    #[serde(default)]
    pub console_size: Option<ConsoleSize>,
    /// Give the first process an input; otherwise it reads `/dev/null`.
    #[serde(default)]
    pub open_stdin: bool,
    /// Close the input when the first client that was attached to it closes its side.
    #[serde(default)]
    pub stdin_once: bool,
    /// Where output goes.
    #[serde(default)]
    pub log: LogConfig,
    /// A static init program to be bound read-only at `/sbin/docker-init`.
    #[serde(default)]
    pub init_binary: Option<PathBuf>,
    /// Destinations of the bind mounts whose sources the shim was given as descriptors, in their
    /// order. [`crate::Shim::spawn`] sets this.
    #[serde(default)]
    pub trees: Vec<String>,
    /// What a daemon wants to know that finds this run without having begun it. The shim does
    /// not look at it.
    #[serde(default)]
    pub note: String,
}

impl ShimConfig {
    /// Path of the shim's configuration within a container's directory.
    pub const FILE: &'static str = "shim.json";

    /// What the last shim of a container was told; `None` if there was none, or if it cannot be
    /// read as that.
    pub fn read(container_dir: &Path) -> Option<Self> {
        let bytes = fs_err::read(container_dir.join(Self::FILE)).ok()?;
        serde_json::from_slice(&bytes).ok()
    }

    /// Path of the OCI configuration.
    pub fn spec_path(&self) -> PathBuf {
        self.container_dir.join("config.json")
    }

    /// Path of the control socket.
    pub fn socket_path(&self) -> PathBuf {
        self.run_dir.join("shim.sock")
    }
}

/// A container's root file system.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RootConfig {
    /// A directory that is ready.
    Path(PathBuf),
    /// An overlay that the runtime mounts inside the container's mount namespace only.
    Overlay {
        /// Read-only layers, the topmost first.
        lowers: Vec<PathBuf>,
        /// Where changes go.
        upper: PathBuf,
        /// Scratch directory of the overlay, on the file system of `upper`.
        work: PathBuf,
        /// Whether nothing of it has to outlive a power cut.
        #[serde(default)]
        volatile: bool,
    },
}

/// The size of a terminal in characters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct ConsoleSize {
    /// Lines.
    pub rows: u16,
    /// Characters in a line.
    pub columns: u16,
}

impl From<ConsoleSize> for silo_sys::pty::Size {
    fn from(size: ConsoleSize) -> Self {
        Self { rows: size.rows, columns: size.columns }
    }
}

/// A log driver and its options, checked by [`crate::logs::validate`].
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct LogConfig {
    /// Which driver.
    pub driver: LogDriver,
    /// The options as the user wrote them: `max-size`, `max-file`, `compress`, ...
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub options: BTreeMap<String, String>,
    /// What each record carries besides the line, from [`crate::logs::attributes`].
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub attrs: BTreeMap<String, String>,
    /// The current log file; `None` with the driver `none`.
    #[serde(default)]
    pub path: Option<PathBuf>,
}

impl LogConfig {
    /// The log of container `id` with its file where Docker has it within `container_dir`.
    pub fn new(
        driver: LogDriver,
        options: BTreeMap<String, String>,
        attrs: BTreeMap<String, String>,
        container_dir: &Path,
        id: &ContainerId,
    ) -> Self {
        let path = match driver {
            LogDriver::None => None,
            LogDriver::JsonFile => Some(container_dir.join(format!("{id}-json.log"))),
            LogDriver::Local => Some(container_dir.join("local-logs/container.log")),
        };
        Self { driver, options, attrs, path }
    }
}

/// The log drivers of Silo.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum LogDriver {
    /// Output is kept nowhere.
    #[default]
    None,
    /// One JSON object a line, as Docker writes it.
    JsonFile,
    /// Binary records, rotated and compressed by default.
    Local,
}

impl LogDriver {
    /// The driver of a name as users write it.
    pub fn from_name(name: &str) -> Option<Self> {
        match name {
            "none" => Some(Self::None),
            "json-file" => Some(Self::JsonFile),
            "local" => Some(Self::Local),
            _ => None,
        }
    }

    /// The name as users write it.
    pub fn name(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::JsonFile => "json-file",
            Self::Local => "local",
        }
    }
}
