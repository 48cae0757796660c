//! The registry that the containers of a chain of layers start with.
//!
//! It is made once from the hives of the chain's base and the differences of the layers above,
//! and kept under `windows/registry/<chain id>.<format>/` of the data root as the files that Wine reads.

use std::collections::HashMap;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use rustix::fs::{Mode, OFlags};
use silo_hive::{Hive, Recovery};
use silo_types::{Digest, Error};
use silo_windows::registry::{HiveName, Registry, WineFiles, files};

use crate::engine::Engine;

/// Most bytes of a hive in an image.
const HIVE_LIMIT: u64 = 512 << 20;
/// Most bytes of a file of Wine's registry, which usually has two million.
const TEXT_LIMIT: u64 = 128 << 20;
/// The hive of the account that programs run as.
pub(super) const ACCOUNT_HIVE: &str = "Users/ContainerAdministrator/NTUSER.DAT";
/// Keys of the environment that processes get: of `HKLM\System`, and of the account's hive.
pub(super) const ENVIRONMENT: &str = "ControlSet001\\Control\\Session Manager\\Environment";
const USER_ENVIRONMENT: &str = "Environment";

/// What the engine needs of a registry for every process: the environment's keys.
#[derive(Debug, Default)]
pub(crate) struct Variables {
    /// `HKLM\System`, with nothing but its environment.
    pub(crate) system: Hive,
    /// The account's hive, with nothing but its environment.
    pub(crate) user: Hive,
}

impl Variables {
    /// Those of a prefix's own files.
    pub(crate) fn read(prefix: &Path) -> io::Result<Self> {
        let root = silo_sys::path::open_root(prefix)?;
        let read = |name: &str, key: &str| -> io::Result<Hive> {
            // The container's programs can put anything in its place.
            let text = silo_sys::path::read_regular_file_in_root(&root, name, TEXT_LIMIT)?
                .ok_or_else(|| io::Error::other(format!("{name} is too large")))?;
            Ok(silo_hive::wine::parse_keys(&text, &[key]).map_err(io::Error::other)?.hive)
        };
        let machine = read(files::SYSTEM, &format!("System\\{ENVIRONMENT}"))?;
        let mut system = Hive::default();
        if let Some(root) = machine.get("System") {
            system.root = root.clone();
        }
        Ok(Self { system, user: read(files::USER, USER_ENVIRONMENT)? })
    }
}

/// The registry of a chain, ready to be copied.
#[derive(Debug)]
pub(crate) struct Prepared {
    /// The directory with Wine's files.
    pub(crate) directory: PathBuf,
    /// What processes need of it.
    pub(crate) variables: Variables,
}

/// What is made of hives; another number when it is to be made anew.
const FORMAT: u32 = 2;

/// The name of the directory of a chain's registry.
fn folder_of(chain: &str) -> String {
    format!("{chain}.{FORMAT}")
}

/// The registries that are ready.
#[derive(Debug, Default)]
pub(crate) struct Cache(Mutex<HashMap<Digest, Arc<Prepared>>>);

impl Engine {
    /// The registry of the layers up to `chain`; takes a while for the first container.
    pub(crate) fn windows_registry(&self, chain: Digest) -> Result<Arc<Prepared>, Error> {
        // One at a time makes it, the others wait.
        let mut ready = self.windows.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(prepared) = ready.get(&chain) {
            return Ok(Arc::clone(prepared));
        }
        let directory =
            self.config.data_root.join("windows/registry").join(folder_of(&chain.hex()));
        if !directory.join(files::SYSTEM).exists() {
            let made = self.effective_registry(chain)?.into_wine();
            store(&directory, &made).map_err(|error| {
                Error::internal(format!("write registry {}: {error}", directory.display()))
            })?;
        }
        let variables = Variables::read(&directory).map_err(|error| {
            Error::internal(format!("read registry {}: {error}", directory.display()))
        })?;
        let prepared = Arc::new(Prepared { directory, variables });
        ready.insert(chain, Arc::clone(&prepared));
        Ok(prepared)
    }

    /// Whether the registry of a chain was made before.
    pub(super) fn windows_registry_is_ready(&self, chain: &Digest) -> bool {
        // While another one is being made, nobody waits for the answer.
        self.windows.0.try_lock().is_ok_and(|ready| ready.contains_key(chain))
    }

    /// Removes the registries of layers that are gone, and what was not finished.
    pub(crate) fn collect_registries(&self) {
        let folder = self.config.data_root.join("windows/registry");
        let mut ready = self.windows.0.lock().unwrap_or_else(PoisonError::into_inner);
        let layers = self.store.layers();
        let is_there =
            |name: &str| layers.iter().any(|layer| folder_of(&layer.chain_id.hex()) == name);
        ready.retain(|chain, _| is_there(&folder_of(&chain.hex())));
        let Ok(entries) = fs_err::read_dir(&folder) else { return };
        for entry in entries.flatten() {
            if !is_there(&entry.file_name().to_string_lossy()) {
                crate::containers::remove::remove_directory(&entry.path());
            }
        }
    }

    /// The hives of a chain: the base's, and every difference above it.
    pub(crate) fn effective_registry(&self, chain: Digest) -> Result<Registry, Error> {
        let layers = self.windows_layers(&chain)?;
        let mut registry = Registry::default();
        let (mut has_base, mut user) = (false, None);
        for (at, layer) in layers.iter().rev().enumerate() {
            let layer_number = format!("layer {} of {}", at + 1, layers.len());
            let read_hive = |root: &OwnedFd, path: &str| {
                read_hive(root, path).map_err(|cause| {
                    Error::invalid(format!(
                        "registry hive {path} in {layer_number} of the image is damaged; pull or \
                         build the image again, or mend the hive with `silo hive`: {cause}"
                    ))
                })
            };
            let opened = |path: &Path| {
                silo_sys::path::open_root(path).map_err(|error| {
                    Error::internal(format!("open layer {}: {error}", path.display()))
                })
            };
            let (drive, hives) = (opened(&layer.files)?, opened(&layer.hives)?);
            for name in HiveName::ALL {
                if let Some(hive) = read_hive(&drive, name.base_path())? {
                    registry.set_hive(name, hive);
                    has_base = true;
                }
                if let Some(difference) = read_hive(&hives, name.delta_name())? {
                    registry.apply(name, &difference);
                }
            }
            if let Some(own) = read_hive(&drive, ACCOUNT_HIVE)? {
                user = Some(own);
            }
        }
        if !has_base {
            return Err(Error::invalid(
                "the image has no registry hives in Windows\\System32\\config: build it from a Windows base, such as silo/servercore:ltsc2022",
            ));
        }
        registry.user = user.unwrap_or_default();
        Ok(registry)
    }
}

/// Reads a hive of a layer, if the layer has it. An empty file stands for an empty hive; one
/// that was in use when the layer was made is completed from the logs beside it.
fn read_hive(root: &OwnedFd, path: &str) -> Result<Option<Hive>, String> {
    let Some(bytes) = read_file(root, path)?.filter(|bytes| !bytes.is_empty()) else {
        return Ok(None);
    };
    let read = silo_hive::read(&bytes);
    if matches!(&read, Ok(hive) if hive.recovery == Recovery::Clean) {
        return Ok(read.ok());
    }
    let mut logs = Vec::new();
    for end in [".LOG1", ".LOG2", ".LOG"] {
        logs.extend(read_file(root, &format!("{path}{end}"))?);
    }
    let logs: Vec<&[u8]> = logs.iter().map(Vec::as_slice).collect();
    silo_hive::read_with_logs(&bytes, &logs).map(Some).map_err(|error| error.to_string())
}

/// Reads a file of a layer, if the layer has it.
fn read_file(root: &OwnedFd, path: &str) -> Result<Option<Vec<u8>>, String> {
    let opened = silo_sys::path::open_in_root_no_links(
        root.as_fd(),
        Path::new(path),
        OFlags::RDONLY | OFlags::NONBLOCK,
        Mode::empty(),
    );
    let file = match opened {
        Ok(file) => file,
        Err(error)
            if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) =>
        {
            return Ok(None);
        }
        Err(error) => return Err(error.to_string()),
    };
    let stat = rustix::fs::fstat(&file).map_err(|error| error.to_string())?;
    if !rustix::fs::FileType::from_raw_mode(stat.st_mode).is_file() {
        return Err("not a regular file".to_owned());
    }
    let mut bytes = Vec::new();
    let mut limited = io::Read::take(fs_err::File::from_parts(file.into(), path), HIVE_LIMIT + 1);
    io::Read::read_to_end(&mut limited, &mut bytes).map_err(|error| error.to_string())?;
    if u64::try_from(bytes.len()).is_ok_and(|length| length > HIVE_LIMIT) {
        return Err("larger than 512 MiB".to_owned());
    }
    Ok(Some(bytes))
}

fn store(directory: &Path, made: &WineFiles) -> io::Result<()> {
    let parent = directory.parent().ok_or(io::ErrorKind::InvalidInput)?;
    fs_err::create_dir_all(parent)?;
    let new = tempfile::Builder::new().prefix(".new-").tempdir_in(parent)?;
    for (name, bytes) in [
        (files::SYSTEM, &made.system),
        (files::USER, &made.user),
        (files::DEFAULT_USER, &made.default_user),
    ] {
        fs_err::write(new.path().join(name), bytes)?;
    }
    // What a crash left without its files.
    match fs_err::remove_dir_all(directory) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    fs_err::rename(new.keep(), directory)
}
