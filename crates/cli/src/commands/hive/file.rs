//! Hive files: what they are, and how they are replaced.

use std::io::{IsTerminal, Read, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use silo_hive::{FileTime, Hive, Key, Recovery, WriteOptions, read_with_logs, wine};

use super::warn;
use crate::failure::{Failure, Outcome};

/// No hive is larger.
const MAX_SIZE: u64 = 1 << 31;

/// What a file is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Form {
    /// A hive file of Windows.
    Regf,
    /// A registry file of Wine's: where its root is, and the prefix's kind.
    Wine(String, Option<wine::Arch>),
}

/// A hive and the file that it came from.
#[derive(Debug)]
pub(super) struct Document {
    pub(super) name: String,
    pub(super) hive: Hive,
    pub(super) form: Form,
    /// Where its root is in the registry, as far as the name tells.
    pub(super) root: String,
}

impl Document {
    /// Reads a hive of Windows, with the logs beside it, or a registry file of Wine's.
    pub(super) fn read(name: &str, with_logs: bool) -> Outcome<Self> {
        let bytes = read_bytes(name)?;
        if bytes.starts_with(b"WINE REGISTRY") {
            let registry =
                wine::parse(&bytes).map_err(|error| Failure::new(format!("{name}: {error}")))?;
            let root = wine_root(&registry.base);
            let form = Form::Wine(registry.base, registry.arch);
            return Ok(Self { name: name.to_owned(), hive: registry.hive, form, root });
        }
        let logs = if with_logs { logs_of(name)? } else { Vec::new() };
        let logs: Vec<&[u8]> = logs.iter().map(Vec::as_slice).collect();
        let hive = read_with_logs(&bytes, &logs)
            .map_err(|error| Failure::new(format!("{name}: {error}")))?;
        if hive.recovery == Recovery::Dirty && with_logs {
            warn(&format!(
                "WARNING: {name} was in use and no log beside it completes it: its last changes \
                 may be missing"
            ));
        }
        let root = root_of(Path::new(name));
        Ok(Self { name: name.to_owned(), hive, form: Form::Regf, root })
    }

    /// Reads a hive to change it, or makes an empty one if the file does not exist and may be
    /// made.
    pub(super) fn read_to_change(name: &str, create: bool) -> Outcome<Self> {
        if create && !Path::new(name).exists() {
            let root = root_of(Path::new(name));
            return Ok(Self {
                name: name.to_owned(),
                hive: Hive::default(),
                form: Form::Regf,
                root,
            });
        }
        let document = Self::read(name, true)?;
        if document.hive.layered {
            // Its keys lie over others that are not known here, with their descriptors.
            return Err(Failure::new(format!(
                "{name} is a differencing hive: merge it with its base, change that, and take the \
                 difference"
            )));
        }
        Ok(document)
    }

    /// The key of a path.
    pub(super) fn key(&self, path: &str) -> Outcome<&Key> {
        self.hive.get(path).ok_or_else(|| Failure::new(format!("no key {path:?} in {}", self.name)))
    }

    /// The file's contents, in the form that it had.
    pub(super) fn bytes(self) -> Outcome<Vec<u8>> {
        match self.form {
            Form::Regf => regf(&self.hive),
            Form::Wine(base, arch) => {
                Ok(wine::render(&wine::Registry { base, arch, hive: self.hive }))
            }
        }
    }

    /// Writes a file in the form that the hive had.
    pub(super) fn write(mut self, target: &str) -> Outcome {
        self.hive.last_written = now();
        write_atomically(target, &self.bytes()?)
    }
}

/// A hive file of Windows.
pub(super) fn regf(hive: &Hive) -> Outcome<Vec<u8>> {
    silo_hive::write(hive, &WriteOptions::default())
        .map_err(|error| Failure::new(error.to_string()))
}

/// The current time.
pub(super) fn now() -> FileTime {
    let now = jiff::Timestamp::now();
    let ticks = u64::try_from(now.subsec_nanosecond() / 100).unwrap_or_default();
    FileTime(FileTime::from_unix(now.as_second()).0 + ticks)
}

/// A file's contents; `-` is stdin.
pub(super) fn read_bytes(name: &str) -> Outcome<Vec<u8>> {
    let mut bytes = Vec::new();
    let error = |error: &std::io::Error| Failure::new(error.to_string());
    if name == "-" {
        let stdin = std::io::stdin().lock();
        stdin.take(MAX_SIZE + 1).read_to_end(&mut bytes).map_err(|e| Failure::io("stdin", &e))?;
    } else {
        let file = fs_err::File::open(name).map_err(|e| error(&e))?;
        if file.metadata().map_err(|e| error(&e))?.is_dir() {
            return Err(Failure::new(format!("{name} is a directory")));
        }
        file.take(MAX_SIZE + 1).read_to_end(&mut bytes).map_err(|e| error(&e))?;
    }
    if bytes.len() as u64 > MAX_SIZE {
        return Err(Failure::new(format!("{name} is larger than any registry hive")));
    }
    Ok(bytes)
}

/// The logs beside a hive, in either case of their names.
fn logs_of(name: &str) -> Outcome<Vec<Vec<u8>>> {
    let mut logs = Vec::new();
    for end in [".LOG1", ".LOG2", ".LOG", ".log1", ".log2", ".log"] {
        let log = format!("{name}{end}");
        if name != "-" && Path::new(&log).is_file() {
            logs.push(read_bytes(&log)?);
        }
    }
    Ok(logs)
}

/// Where hives of Windows' names belong.
fn root_of(path: &Path) -> String {
    let name = path.file_name().map(|name| name.to_string_lossy().to_uppercase());
    let name = name.unwrap_or_default();
    let stem = name.trim_end_matches("_DELTA").trim_end_matches("_BASE");
    match stem {
        "SYSTEM" | "SOFTWARE" | "SAM" | "SECURITY" => format!("HKEY_LOCAL_MACHINE\\{stem}"),
        "DEFAULT" | "DEFAULTUSER" => "HKEY_USERS\\.DEFAULT".to_owned(),
        "NTUSER.DAT" => "HKEY_CURRENT_USER".to_owned(),
        "USRCLASS.DAT" => "HKEY_CURRENT_USER\\Software\\Classes".to_owned(),
        _ => "HKEY_LOCAL_MACHINE".to_owned(),
    }
}

/// Where a registry file of Wine's belongs.
fn wine_root(base: &str) -> String {
    let path = base.trim_start_matches('\\');
    let path = path.strip_prefix("REGISTRY\\").unwrap_or(path);
    let upper = path.to_uppercase();
    if upper == "USER\\.DEFAULT" {
        "HKEY_USERS\\.DEFAULT".to_owned()
    } else if upper.starts_with("USER\\") {
        "HKEY_CURRENT_USER".to_owned()
    } else {
        "HKEY_LOCAL_MACHINE".to_owned()
    }
}

/// The reverse: what Wine calls a place.
pub(super) fn wine_base(root: &str) -> String {
    let (first, rest) = root.split_once('\\').unwrap_or((root, ""));
    let first = match first.to_uppercase().as_str() {
        "HKEY_CURRENT_USER" | "HKCU" => "REGISTRY\\User\\S-1-5-21-0-0-0-1000",
        "HKEY_USERS" | "HKU" => "REGISTRY\\User",
        _ => "REGISTRY\\Machine",
    };
    if rest.is_empty() { first.to_owned() } else { format!("{first}\\{rest}") }
}

/// Writes to stdout, which should not be a terminal that bytes would confuse.
pub(super) fn write_stdout(bytes: &[u8]) -> Outcome {
    let mut stdout = std::io::stdout().lock();
    if stdout.is_terminal() && bytes.contains(&0) {
        return Err(Failure::new(
            "refusing to write binary data to a terminal: use the -o flag or redirect",
        ));
    }
    stdout
        .write_all(bytes)
        .and_then(|()| stdout.flush())
        .map_err(|error| Failure::io("stdout", &error))
}

/// Writes a file aside and puts it in place of the old one, whose mode and owner it gets.
pub(super) fn write_atomically(name: &str, bytes: &[u8]) -> Outcome {
    // A link stays, and what it leads to is replaced.
    let path = fs_err::canonicalize(name).unwrap_or_else(|_| PathBuf::from(name));
    let (Some(file_name), parent) = (path.file_name(), path.parent()) else {
        return Err(Failure::new(format!("{name} is not a file")));
    };
    let mut aside_name = std::ffi::OsString::from(".");
    aside_name.push(file_name);
    aside_name.push(format!(".{}.tmp", std::process::id()));
    let aside = parent.unwrap_or(Path::new("")).join(aside_name);
    let result = write_aside(&aside, &path, bytes);
    if result.is_err() {
        fs_err::remove_file(&aside).ok();
    }
    result.map_err(|error| Failure::new(error.to_string()))
}

fn write_aside(aside: &Path, path: &Path, bytes: &[u8]) -> std::io::Result<()> {
    let old = fs_err::metadata(path).ok();
    if old.as_ref().is_some_and(|old| !old.is_file()) {
        let message = format!("{} is not a regular file", path.display());
        return Err(std::io::Error::other(message));
    }
    let mut file = fs_err::OpenOptions::new().write(true).create_new(true).open(aside)?;
    file.write_all(bytes)?;
    if let Some(old) = old {
        file.set_permissions(old.permissions())?;
        // Only root can; the others own what they replace, or may not.
        std::os::unix::fs::fchown(file.file(), Some(old.uid()), Some(old.gid())).ok();
    }
    file.sync_all()?;
    drop(file);
    fs_err::rename(aside, path)
}
