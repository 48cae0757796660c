//! What can be wrong with a profile.

use silo_oci::runtime::SeccompAction;
use silo_types::{ErrorKind, Kind};

/// Why a profile cannot be read or compiled.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The bytes are not the JSON of a Docker profile.
    #[error("decoding seccomp profile failed")]
    Decode(#[source] serde_json::Error),
    /// The profile gives its architectures twice.
    #[error(
        "both 'architectures' and 'archMap' are specified in the seccomp profile, \
         use either 'architectures' or 'archMap'"
    )] // docker wording
    ArchitecturesTwice,
    /// A rule gives its calls twice.
    #[error(
        "both 'name' and 'names' are specified in the seccomp profile, \
         use either 'name' or 'names'"
    )] // docker wording
    NamesTwice,
    /// The profile has rules and no `defaultAction`.
    #[error("the seccomp profile has no default action")]
    NoDefaultAction,
    /// `minKernel` is not of the form `4.8`.
    #[error("invalid kernel version: {0:?}, expected \"<kernel>.<major>\"")] // docker wording
    KernelVersion(String),
    /// This machine's own architecture has no table of system calls.
    #[error("seccomp filters are not supported on this architecture")]
    NoNativeArchitecture,
    /// Arguments are numbered from 0 to 5.
    #[error("seccomp rule of system call {call:?} compares argument {index}, the last is 5")]
    ArgumentIndex {
        /// The first call of the rule.
        call: String,
        /// The index that the profile gives.
        index: u32,
    },
    /// An errno above 4095, or a tracer's value above 65535.
    #[error("seccomp value {errno} does not fit the action {action:?}")]
    Errno {
        /// The action.
        action: SeccompAction,
        /// The value that the profile gives.
        errno: u32,
    },
    /// `SCMP_ACT_NOTIFY` as the default would block whoever is to serve the listener.
    #[error("SCMP_ACT_NOTIFY cannot be used as the default action")]
    NotifyByDefault,
    /// write(2) must stay free: the runtime needs it after the filter is in force.
    #[error("SCMP_ACT_NOTIFY cannot be used for the write system call")]
    NotifyWrite,
    /// The filter has more instructions than the kernel takes.
    #[error("seccomp filter has {0} instructions, the kernel takes 4096")]
    TooLong(usize),
}

impl Kind for Error {
    fn kind(&self) -> ErrorKind {
        match self {
            Self::NoNativeArchitecture => ErrorKind::NotImplemented,
            _ => ErrorKind::InvalidParameter,
        }
    }
}
