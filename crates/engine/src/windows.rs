//! Windows containers: what differs from Linux ones.
//!
//! A Windows container is a Linux container whose root is the Wine runtime (an image, mounted
//! read-only) and whose drive C: is mounted at `/c`: the `Files` trees of the image's layers
//! with the container's own changes above them. Wine's prefix, a directory of the container's
//! own at `/prefix`, has its registry and the files by which its programs are started
//! (see [`silo_windows::control`]). Records keep the paths of mounts as they are in the
//! container, `/c/data` for `C:\data`; [`paths`] translates at the edges.

pub(crate) mod bases;
mod check;
mod commit;
pub(crate) mod drive;
pub(crate) mod paths;
mod process;
mod recognise;
mod registry;
mod spec;
mod start;
mod tool;
mod top;

use std::path::PathBuf;
use std::sync::Arc;

use silo_store::{Snapshot, WindowsLayer};
use silo_types::{Digest, Error, ErrorKind};
use silo_windows::runtime;

use crate::container::{Container, Record};
use crate::engine::Engine;
use crate::images::Entry;

pub(crate) use check::Known as KnownCommands;
pub(crate) use process::{exec_exit_code, exit_code};
pub(crate) use registry::Cache as RegistryCache;

/// The image that is the Linux root of every Windows container.
const RUNTIME_IMAGE: &str = "silo/wine:latest";
/// The operating system of images and containers.
pub(crate) const OS: &str = "windows";
/// The directory of a container that becomes Wine's prefix.
const PREFIX: &str = "prefix";
/// Most processes of a container that sets no limit: a broken Wine starts them without end.
const PIDS_LIMIT: i64 = 4096;

/// What tells the snapshot of a container's Wine runtime from its own.
const RUNTIME_SUFFIX: &str = ".wine";

/// How the layers of a drive C: lie over each other.
pub(crate) const OVERLAY_OPTIONS: &[(&str, Option<&str>)] =
    &[("index", Some("off")), ("redirect_dir", Some("on")), ("metacopy", Some("off"))];

/// Where the drive C: is in a container's Linux root.
pub(crate) const DRIVE: &str = "/c";

/// That there is no runtime. No client takes it for an image to be pulled.
pub(crate) fn not_set_up() -> Error {
    Error::new(
        ErrorKind::Unavailable,
        format!("Windows containers are not set up: {}", runtime::HOW_TO_SET_UP),
    )
}

/// Whether a container is a Windows one.
pub(crate) fn is(record: &Record) -> bool {
    record.os == OS
}

/// Name of the snapshot that keeps the Wine runtime of a container.
pub(crate) fn runtime_snapshot(id: &str) -> String {
    format!("{id}{RUNTIME_SUFFIX}")
}

/// The container that a snapshot belongs to.
pub(crate) fn snapshot_owner(name: &str) -> &str {
    name.strip_suffix(RUNTIME_SUFFIX).unwrap_or(name)
}

/// Whose account a user's name means.
pub(crate) fn account(user: &str) -> Result<silo_windows::control::Rights, Error> {
    use silo_windows::control::Rights;
    let name = user.rsplit_once('\\').map_or(user, |(_, name)| name);
    match name.to_ascii_lowercase().as_str() {
        "" | "containeradministrator" | "administrator" | "system" => Ok(Rights::Administrator),
        "containeruser" => Ok(Rights::User),
        _ => Err(Error::invalid(format!(
            "unable to find user {user}: a Windows container has ContainerAdministrator and ContainerUser"
        ))),
    }
}

/// Silo's own base in place of one of Microsoft's.
#[derive(Debug)]
pub(crate) struct Substitute {
    /// The base.
    pub(crate) entry: Arc<Entry>,
    /// Its name.
    pub(crate) name: String,
    /// What the client is told.
    pub(crate) notice: String,
}

impl Engine {
    /// The name of the base that stands for one of Microsoft's, unless the engine is told that
    /// none does.
    fn windows_stand_in(&self, name: &str) -> Option<String> {
        if self.config.windows_substitutes { paths::substitute(name) } else { None }
    }

    /// What is said of an image that is not there, if it is one which `silo windows setup` makes.
    pub(crate) fn windows_base_is_missing(&self, name: &str) -> Option<Error> {
        let own = silo_windows::base::is_base(name);
        (own || self.windows_stand_in(name).is_some()).then(not_set_up)
    }

    /// What stands for one of Microsoft's images that is not in the store.
    pub(crate) fn windows_substitute(&self, name: &str) -> Option<Substitute> {
        let stand_in = self.windows_stand_in(name)?;
        let entry = self.image(&stand_in).ok()?;
        let notice = format!(
            "{name} is not in the store; using {stand_in}, Silo's compatible base, which is made of Wine and is not Microsoft's"
        );
        Some(Substitute { entry, name: stand_in, notice })
    }

    /// The top layer of the Wine runtime.
    pub(crate) fn windows_runtime(&self) -> Result<Digest, Error> {
        let image = self.image(RUNTIME_IMAGE).map_err(|_| not_set_up())?;
        image.image.top().ok_or_else(not_set_up)
    }

    /// The directories that make the drive C: of a container.
    pub(crate) fn windows_drive(&self, container: &Container) -> Result<Snapshot, Error> {
        let mut snapshot = self.snapshot(container)?;
        snapshot.lowers = match &snapshot.chain {
            Some(chain) => self.windows_layers(chain)?.into_iter().map(|l| l.files).collect(),
            None => Vec::new(),
        };
        if snapshot.lowers.is_empty() {
            return Err(Error::invalid(format!(
                "image {} has no layers, so there is no drive C:",
                container.record().config.image
            )));
        }
        Ok(snapshot)
    }

    /// The layers of a Windows image, topmost first; the first call for an image takes a while.
    pub(crate) fn windows_layers(&self, chain: &Digest) -> Result<Vec<WindowsLayer>, Error> {
        let mut layers = self.store.windows_layers(chain).map_err(Error::from_kind)?;
        layers.reverse();
        Ok(layers)
    }

    /// Where the container's prefix is on the host.
    fn windows_prefix(container: &Container) -> PathBuf {
        container.path(PREFIX)
    }
}

#[cfg(test)]
mod tests {
    use silo_windows::control::Rights;

    use super::*;

    #[test]
    fn snapshots_belong_to_containers() {
        assert_eq!(snapshot_owner(&runtime_snapshot("abc")), "abc");
        assert_eq!(snapshot_owner("abc"), "abc");
    }

    #[test]
    fn accounts() {
        for (name, rights) in [
            ("", Some(Rights::Administrator)),
            ("ContainerAdministrator", Some(Rights::Administrator)),
            ("CONTAINERUSER", Some(Rights::User)),
            ("User Manager\\ContainerUser", Some(Rights::User)),
            ("root", None),
            ("0", None),
        ] {
            assert_eq!(account(name).ok(), rights, "{name}");
        }
    }
}
