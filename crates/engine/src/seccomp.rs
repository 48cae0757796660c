//! System call filters of containers, made once for each set of capabilities.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use silo_oci::runtime::LinuxSeccomp;
use silo_types::Error;

use crate::spec::security::{Seccomp, Security};

/// More sets of capabilities than this are not remembered.
const REMEMBERED: usize = 64;

/// The filters that were made.
#[derive(Debug)]
pub(crate) struct Filters {
    host: Option<silo_seccomp::Host>,
    made: Mutex<HashMap<Vec<String>, LinuxSeccomp>>,
}

impl Filters {
    /// Filters for this machine.
    pub(crate) fn detect() -> Self {
        let release = rustix::system::uname().release().to_string_lossy().into_owned();
        let host = silo_seccomp::Host::new(&release)
            .inspect_err(|error| tracing::warn!(%error, "system calls are not filtered"))
            .ok();
        Self { host, made: Mutex::default() }
    }

    /// The filter of a container with these security options and capabilities.
    pub(crate) fn of(
        &self,
        security: &Security,
        privileged: bool,
        capabilities: &[String],
    ) -> Result<Option<LinuxSeccomp>, Error> {
        let Some(host) = &self.host else {
            return match security.seccomp {
                Seccomp::Profile(_) => Err(Error::internal(
                    "seccomp is not enabled in your kernel, cannot run a custom seccomp profile",
                )),
                _ => Ok(None),
            };
        };
        match &security.seccomp {
            Seccomp::Unconfined => Ok(None),
            Seccomp::Unset if privileged => Ok(None),
            Seccomp::Unset | Seccomp::Builtin => {
                let mut made = self.made.lock().unwrap_or_else(PoisonError::into_inner);
                if let Some(filter) = made.get(capabilities) {
                    return Ok(Some(filter.clone()));
                }
                let filter = silo_seccomp::default_profile(capabilities, host);
                if made.len() < REMEMBERED {
                    made.insert(capabilities.to_vec(), filter.clone());
                }
                Ok(Some(filter))
            }
            Seccomp::Profile(json) => {
                silo_seccomp::docker_profile_json(json.as_bytes(), capabilities, host)
                    .map_err(Error::from_kind)
            }
        }
    }
}
