//! What a Windows container changed of its registry, for a commit.
//!
//! Wine keeps the registry in its server's memory and writes it every half minute and at its
//! end. A running container is therefore asked for it: a small program of the engine's own is
//! put into the container's prefix and run there. Of a paused container, what Wine wrote last
//! counts.

use std::io::{self, Write as _};
use std::os::fd::OwnedFd;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use rustix::fs::{Mode, OFlags};
use silo_docker::exec::ExecCreateRequest;
use silo_store::WindowsChanges;
use silo_sys::path;
use silo_types::{Error, ExecId};
use silo_windows::control;
use silo_windows::registry::{Registry, WineFiles, files};

use super::{process, registry};
use crate::container::Container;
use crate::engine::Engine;

/// The program that writes the registry, and what it writes.
const PROGRAM: &str = "silo-save.exe";
const MACHINE: &str = "machine.reg";
const DEFAULT_USER: &str = "default.reg";
const USER: &str = "user.reg";
/// How long it may take. It takes a tenth of a second.
const TIMEOUT: Duration = Duration::from_mins(1);
/// Most bytes of one of Wine's files.
const LIMIT: u64 = 256 << 20;

impl Engine {
    /// What a container changed besides the files of its drive.
    pub(crate) async fn windows_changes(
        self: &Arc<Self>,
        container: &Arc<Container>,
    ) -> Result<WindowsChanges, Error> {
        let prefix = Self::windows_prefix(container);
        if !prefix.join(files::SYSTEM).exists() {
            // It has never run.
            return Ok(WindowsChanges::default());
        }
        let is_active = || {
            let state = container.state();
            state.running && !state.paused
        };
        let mut asked = None;
        if is_active() {
            asked = match self.ask_for_registry(container).await {
                Ok(found) => Some(found),
                // It ended or was paused meanwhile, and Wine has written its files.
                Err(_) if !is_active() => None,
                Err(error) => return Err(error),
            };
        }
        let engine = Arc::clone(self);
        let chain = self.snapshot(container)?.chain;
        let work = move || {
            let own = match asked {
                Some(found) => found,
                None => read(&prefix, [files::SYSTEM, files::USER, files::DEFAULT_USER])?,
            };
            let chain = chain.ok_or_else(|| Error::internal("a drive C: without layers"))?;
            engine.registry_changes(chain, &own)
        };
        crate::containers::archive::blocking(work).await
    }

    fn registry_changes(
        &self,
        chain: silo_types::Digest,
        own: &WineFiles,
    ) -> Result<WindowsChanges, Error> {
        let ready = self.windows_registry(chain)?;
        let began = read(&ready.directory, [files::SYSTEM, files::USER, files::DEFAULT_USER])?;
        let parse = |what: &str, files: &WineFiles| {
            Registry::from_wine(files)
                .map_err(|error| Error::internal(format!("read {what} registry: {error}")))
        };
        let (own, began) = (parse("the container's", own)?, parse("the image's", &began)?);
        let changes = own
            .changes(&began, &self.effective_registry(chain)?)
            .map_err(|error| Error::internal(format!("write the container's registry: {error}")))?;
        let hives = changes.deltas.into_iter().map(|(name, bytes)| (name.to_owned(), bytes));
        let user = changes.user.map(|bytes| (registry::ACCOUNT_HIVE.to_owned(), bytes));
        Ok(WindowsChanges { hives: hives.collect(), files: user.into_iter().collect() })
    }

    /// Has a running container's registry written, and reads it.
    async fn ask_for_registry(
        self: &Arc<Self>,
        container: &Arc<Container>,
    ) -> Result<WineFiles, Error> {
        let name = process::exec_name(ExecId::random().as_str());
        let prefix = Self::windows_prefix(container);
        let failed = |error: io::Error| {
            Error::internal(format!("put a program into {}: {error}", prefix.display()))
        };
        let result = match place(&prefix, &name).map_err(failed) {
            Ok(()) => self.run_save(container, &prefix, &name).await,
            Err(error) => Err(error),
        };
        if let Err(error) = remove(&prefix, &name) {
            tracing::warn!(container = %container.id, %error, "files of a commit stay");
        }
        result
    }

    async fn run_save(
        self: &Arc<Self>,
        container: &Arc<Container>,
        prefix: &Path,
        name: &str,
    ) -> Result<WineFiles, Error> {
        let program = format!("\\\\?\\unix\\prefix\\{}\\{name}\\{PROGRAM}", control::FOLDER);
        let request = ExecCreateRequest {
            cmd: vec![program, name.to_owned()].into(),
            user: "ContainerAdministrator".into(),
            working_dir: "C:\\".into(),
            ..ExecCreateRequest::default()
        };
        let failed = |cause: &dyn std::fmt::Display| {
            Error::internal(format!(
                "cannot read the registry of container {}: {cause}",
                container.id
            ))
        };
        match self.run_internal(container, request, TIMEOUT).await {
            Ok(Some(0)) => {
                let folder = open_folder(prefix, name).map_err(|error| failed(&error))?;
                read_from(&folder, [MACHINE, USER, DEFAULT_USER])
            }
            Ok(Some(status)) => Err(failed(&format_args!("Wine says {status:#x}"))),
            Ok(None) => Err(failed(&"Wine did not answer within a minute")),
            Err(error) => Err(failed(&error.chain())),
        }
    }
}

/// The directory of the control directories. What is in a prefix is a stranger's: no link is
/// followed, and files are made anew.
fn control_folder(prefix: &Path) -> io::Result<OwnedFd> {
    let flags = OFlags::PATH | OFlags::DIRECTORY;
    let prefix = path::open_root(prefix)?;
    path::open_in_root_no_links(prefix, control::FOLDER, flags, Mode::empty())
}

/// A directory within it.
fn open_folder(prefix: &Path, name: &str) -> io::Result<OwnedFd> {
    let flags = OFlags::PATH | OFlags::DIRECTORY;
    path::open_in_root_no_links(control_folder(prefix)?, name, flags, Mode::empty())
}

/// Puts the program into a new directory.
fn place(prefix: &Path, name: &str) -> io::Result<()> {
    rustix::fs::mkdirat(control_folder(prefix)?, name, Mode::from_raw_mode(0o755))?;
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let folder = open_folder(prefix, name)?;
    let file = rustix::fs::openat(folder, PROGRAM, flags, Mode::from_raw_mode(0o755))?;
    std::fs::File::from(file).write_all(silo_winprograms::save())
}

fn remove(prefix: &Path, name: &str) -> io::Result<()> {
    path::remove_all_at(control_folder(prefix)?, name)
}

/// Reads Wine's files of those names from a directory.
fn read(folder: &Path, names: [&str; 3]) -> Result<WineFiles, Error> {
    let failed = |error| Error::internal(format!("open {}: {error}", folder.display()));
    read_from(&path::open_root(folder).map_err(failed)?, names)
}

/// Reads Wine's files of those names: HKLM, HKCU, HKU\.Default. They are a stranger's.
fn read_from(
    folder: &OwnedFd,
    [system, user, default_user]: [&str; 3],
) -> Result<WineFiles, Error> {
    let failed = |name: &str, cause: &dyn std::fmt::Display| {
        Error::internal(format!("read registry file {name}: {cause}"))
    };
    let read = |name: &str| {
        path::read_regular_file_in_root(folder, name, LIMIT)
            .map_err(|error| failed(name, &error))?
            .ok_or_else(|| failed(name, &"larger than 256 MiB"))
    };
    Ok(WineFiles { system: read(system)?, user: read(user)?, default_user: read(default_user)? })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_prefix_leads_nowhere_else() {
        let directory = tempfile::tempdir().unwrap();
        let (prefix, outside) = (directory.path().join("prefix"), directory.path().join("outside"));
        fs_err::create_dir_all(prefix.join(control::FOLDER)).unwrap();
        fs_err::create_dir(&outside).unwrap();
        place(&prefix, "a").unwrap();
        assert!(place(&prefix, "a").is_err(), "it is there");
        fs_err::write(outside.join("user.reg"), "a secret").unwrap();
        let link = |name: &str| {
            let from = prefix.join(control::FOLDER).join("a").join(name);
            std::os::unix::fs::symlink(outside.join("user.reg"), from).unwrap();
        };
        for name in [MACHINE, USER, DEFAULT_USER] {
            link(name);
        }
        let folder = open_folder(&prefix, "a").unwrap();
        assert!(read_from(&folder, [MACHINE, USER, DEFAULT_USER]).is_err());
        remove(&prefix, "a").unwrap();
        assert!(outside.join("user.reg").exists());

        fs_err::remove_dir(prefix.join(control::FOLDER)).unwrap();
        std::os::unix::fs::symlink(&outside, prefix.join(control::FOLDER)).unwrap();
        assert!(place(&prefix, "b").is_err());
        assert!(!outside.join("b").exists());
    }
}
