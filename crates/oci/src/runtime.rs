//! The runtime specification's data, version 1.2 with the later additions that keep its major
//! version: what a bundle's `config.json` holds, and the state that hooks and callers read.
//!
//! Reading is lenient: an absent or `null` field is its default, unknown fields are ignored.
//! Values of closed sets (kinds of namespace, seccomp actions, ...) are enums, so that a value
//! outside the set is refused while reading. Writing leaves out what is at its default, except
//! for the fields that the specification requires. The parts for virtual machines and for
//! Windows, Solaris, z/OS and FreeBSD are kept as they came, in JSON.
//!
//! Source: <https://github.com/opencontainers/runtime-spec>.

use std::collections::{BTreeMap, HashMap};
use std::path::PathBuf;

use serde::{Deserialize, Deserializer, Serialize};
use serde_json::Value;

mod linux;
mod process;
mod resources;
mod seccomp;

pub use linux::*;
pub use process::*;
pub use resources::*;
pub use seccomp::*;

/// The version of the specification that Silo writes.
pub const VERSION: &str = "1.2.1";

/// Reads `null` as the default value.
fn null_is_default<'de, D: Deserializer<'de>, T: Deserialize<'de> + Default>(
    deserializer: D,
) -> Result<T, D::Error> {
    Ok(Option::deserialize(deserializer)?.unwrap_or_default())
}

/// Whether a field can be left out.
fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

/// Declares a structure of the specification: first the fields that are always written, then,
/// after `; optional:`, those that are left out at their default.
macro_rules! record {
    (
        $(#[$meta:meta])*
        $name:ident {
            $($(#[$required_meta:meta])* $required:ident: $required_type:ty,)*
            $(; optional: $($(#[$optional_meta:meta])* $optional:ident: $optional_type:ty,)*)?
        }
    ) => {
        $(#[$meta])*
        #[derive(Debug, Clone, Default, PartialEq, serde::Serialize, serde::Deserialize)]
        #[serde(rename_all = "camelCase")]
        pub struct $name {
            $(
                $(#[$required_meta])*
                #[serde(default, deserialize_with = "crate::runtime::null_is_default")]
                pub $required: $required_type,
            )*
            $($(
                $(#[$optional_meta])*
                #[serde(
                    default,
                    deserialize_with = "crate::runtime::null_is_default",
                    skip_serializing_if = "crate::runtime::is_default"
                )]
                pub $optional: $optional_type,
            )*)?
        }
    };
}
use record;

record! {
    /// A bundle's configuration: everything that defines a container.
    Spec {
        /// The version of the specification that the configuration is written to.
        oci_version: String,
        ; optional:
        /// The program of the container.
        process: Option<Process>,
        /// The root file system.
        root: Option<Root>,
        /// The host name in the container's UTS namespace.
        hostname: String,
        /// The NIS domain name in the container's UTS namespace.
        domainname: String,
        /// What is mounted in the root, in this order.
        mounts: Vec<Mount>,
        /// Programs that are run at points of the container's life.
        hooks: Option<Hooks>,
        /// Free text for tools.
        annotations: HashMap<String, String>,
        /// What only Linux has.
        linux: Option<Linux>,
        /// The Windows part, as it came.
        windows: Option<Value>,
        /// The virtual machine's part, as it came.
        vm: Option<Value>,
        /// The Solaris part, as it came.
        solaris: Option<Value>,
        /// The z/OS part, as it came.
        zos: Option<Value>,
        /// The FreeBSD part, as it came.
        freebsd: Option<Value>,
    }
}

impl Spec {
    /// Reads a `config.json`.
    pub fn from_json(json: &[u8]) -> Result<Self, serde_json::Error> {
        serde_json::from_slice(json)
    }

    /// The namespace of the given kind that the container gets, if it gets one.
    pub fn namespace(&self, kind: NamespaceKind) -> Option<&LinuxNamespace> {
        self.linux.as_ref()?.namespaces.iter().find(|namespace| namespace.kind == kind)
    }
}

record! {
    /// The container's root file system.
    Root {
        /// Its path, absolute or relative to the bundle.
        path: PathBuf,
        ; optional:
        /// Whether it is mounted read-only.
        readonly: bool,
    }
}

record! {
    /// One mount in the container's root.
    Mount {
        /// Where, as an absolute path inside the root.
        destination: PathBuf,
        ; optional:
        /// The type of file system; meaningless for a bind mount.
        #[serde(rename = "type")]
        kind: Option<String>,
        /// The device, the file system's name, or the path to bind.
        source: Option<PathBuf>,
        /// Options as in fstab, with the recursive and idmap options of the specification.
        options: Vec<String>,
        /// How user ids of the source appear in the mount.
        uid_mappings: Vec<LinuxIdMapping>,
        /// How group ids of the source appear in the mount.
        gid_mappings: Vec<LinuxIdMapping>,
    }
}

record! {
    /// The container's hooks, each list run in order.
    Hooks {
        ; optional:
        /// After the namespaces exist, in those of the runtime. Deprecated.
        prestart: Vec<Hook>,
        /// As prestart, after it.
        create_runtime: Vec<Hook>,
        /// Before the root is changed, in the container's namespaces.
        create_container: Vec<Hook>,
        /// Before the program is executed, in the container's namespaces and root.
        start_container: Vec<Hook>,
        /// After the program was started, in the runtime's namespaces.
        poststart: Vec<Hook>,
        /// After the container was deleted, in the runtime's namespaces.
        poststop: Vec<Hook>,
    }
}

record! {
    /// One program that is run with the container's state on its standard input.
    Hook {
        /// The program's absolute path.
        path: PathBuf,
        ; optional:
        /// Its arguments, the name included.
        args: Vec<String>,
        /// Its whole environment.
        env: Vec<String>,
        /// Seconds after which it is killed and has failed.
        timeout: Option<i64>,
    }
}

/// A container's place in its life.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Status {
    /// Being made.
    Creating,
    /// Made, the program not yet executed.
    Created,
    /// The program runs.
    Running,
    /// The program has ended.
    #[default]
    Stopped,
    /// The program is frozen.
    Paused,
}

impl std::fmt::Display for Status {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Creating => "creating",
            Self::Created => "created",
            Self::Running => "running",
            Self::Stopped => "stopped",
            Self::Paused => "paused",
        })
    }
}

record! {
    /// A container's state, as hooks read it.
    State {
        /// The version of the specification that this is written to.
        oci_version: String,
        /// The container's id.
        id: String,
        /// Its place in its life.
        status: Status,
        ; optional:
        /// The process id of its program on the host, while there is one.
        pid: i32,
        /// The absolute path of its bundle; always present when a runtime writes it.
        bundle: PathBuf,
        /// The annotations of its configuration.
        annotations: BTreeMap<String, String>,
    }
}

record! {
    /// What is sent to the listener of seccomp notifications, beside descriptors.
    ContainerProcessState {
        /// The version of the specification that this is written to.
        oci_version: String,
        /// The names of the descriptors that come with this, in order.
        fds: Vec<String>,
        /// The process id of the process with the filter.
        pid: i32,
        /// The container's state.
        state: State,
        ; optional:
        /// The metadata of the configuration.
        metadata: String,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn null_and_absent_are_default() {
        let spec = Spec::from_json(
            br#"{"ociVersion":"1.0.2","mounts":null,"hooks":null,"annotations":null,
            "linux":{"namespaces":null,"seccomp":null,"maskedPaths":null},"unknown":3,
            "process":{"args":["a"],"cwd":"/","user":{"uid":1}}}"#,
        )
        .unwrap();
        assert_eq!(spec.oci_version, "1.0.2");
        assert!(spec.mounts.is_empty());
        assert_eq!(spec.process.unwrap().user.uid, 1);
    }

    #[test]
    fn writes_required_fields_only() {
        let spec = Spec { oci_version: VERSION.into(), ..Spec::default() };
        assert_eq!(serde_json::to_string(&spec).unwrap(), r#"{"ociVersion":"1.2.1"}"#);
        let process = Process { cwd: "/".into(), ..Process::default() };
        assert_eq!(
            serde_json::to_string(&process).unwrap(),
            r#"{"user":{"uid":0,"gid":0},"cwd":"/"}"#
        );
    }

    #[test]
    fn closed_sets_are_closed() {
        for json in [
            r#"{"ociVersion":"1","linux":{"namespaces":[{"type":"pidd"}]}}"#,
            r#"{"ociVersion":"1","linux":{"seccomp":{"defaultAction":"SCMP_ACT_X"}}}"#,
            r#"{"ociVersion":"1","process":{"cwd":"/","user":{"uid":4294967296}}}"#,
            r#"{"ociVersion":"1","process":{"cwd":"/","user":{"uid":-1}}}"#,
        ] {
            assert!(Spec::from_json(json.as_bytes()).is_err(), "{json}");
        }
    }

    #[test]
    fn round_trip_keeps_raw_parts() {
        let json = r#"{"ociVersion":"1.2.0","mounts":[{"destination":"/m","type":"bind","source":"/s","options":["rbind","ro"],"uidMappings":[{"containerID":0,"hostID":1,"size":2}]}],"linux":{"resources":{"devices":[{"allow":false,"access":"rwm"}],"memory":{"limit":5},"pids":{"limit":-1}},"namespaces":[{"type":"pid"},{"type":"network","path":"/x"}],"timeOffsets":{"boottime":{"secs":5}}},"windows":{"layerFolders":["x"]}}"#;
        let spec = Spec::from_json(json.as_bytes()).unwrap();
        assert_eq!(serde_json::to_string(&spec).unwrap(), json);
        assert_eq!(spec.namespace(NamespaceKind::Network).unwrap().path, Some("/x".into()));
    }
}
