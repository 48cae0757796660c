//! What a Windows container changed of its registry, for a commit.
//!
//! Wine keeps the registry in its server's memory and writes it every half minute and at its
//! end. A running container is therefore asked for it: a small program of the engine's own is
//! put into the container's prefix and run there. Of a paused container, what Wine wrote last
//! counts.

use std::os::fd::OwnedFd;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use silo_store::WindowsChanges;
use silo_sys::path;
use silo_types::Error;
use silo_windows::registry::{Registry, WineFiles, files};

use super::registry;
use super::tool::Tool;
use crate::container::Container;
use crate::engine::Engine;

/// The program that writes the registry, and what it writes.
const SAVE: Tool = Tool { name: "silo-save.exe", bytes: silo_winprograms::save };
const MACHINE: &str = "machine.reg";
const DEFAULT_USER: &str = "default.reg";
const USER: &str = "user.reg";
/// How long it may take. It takes a tenth of a second.
const TIMEOUT: Duration = Duration::from_mins(1);
/// Most bytes of one of Wine's files.
const LIMIT: u64 = 256 << 20;

impl Engine {
    /// What a container changed besides the files of its drive. No time is later than `latest`,
    /// seconds since 1970.
    pub(crate) async fn windows_changes(
        self: &Arc<Self>,
        container: &Arc<Container>,
        latest: Option<i64>,
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
            engine.registry_changes(chain, &own, latest)
        };
        crate::containers::archive::blocking(work).await
    }

    fn registry_changes(
        &self,
        chain: silo_types::Digest,
        own: &WineFiles,
        latest: Option<i64>,
    ) -> Result<WindowsChanges, Error> {
        let ready = self.windows_registry(chain)?;
        let began = read(&ready.directory, [files::SYSTEM, files::USER, files::DEFAULT_USER])?;
        let parse = |what: &str, files: &WineFiles| {
            Registry::from_wine(files)
                .map_err(|error| Error::internal(format!("read {what} registry: {error}")))
        };
        let (own, began) = (parse("the container's", own)?, parse("the image's", &began)?);
        let changes = own
            .changes(&began, &self.effective_registry(chain)?, latest)
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
        let read = |folder: &OwnedFd| read_from(folder, [MACHINE, USER, DEFAULT_USER]);
        self.run_tool(container, &SAVE, TIMEOUT, read).await.map_err(|error| {
            let cause = error.chain();
            let id = &container.id;
            Error::internal(format!("cannot read the registry of container {id}: {cause}"))
        })
    }
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
