//! Reading a stock prefix: a tar stream, as the engine copies a directory out of a container.

use std::collections::HashSet;
use std::io::{BufRead, Read};
use std::sync::Arc;

use silo_archive::{EntryKind, Reader};

use super::Error;
use super::spelling::spelled;
use crate::spool::Spool;
use crate::tree::{Node, Tree};

/// Files and directories of a prefix; there are about two thousand.
const MAX_ENTRIES: usize = 100_000;
/// Bytes of all files.
const MAX_SIZE: u64 = 2 << 30;
/// Bytes of one registry file; the largest has two million.
const MAX_REGISTRY: u64 = 64 << 20;

/// A prefix as it was made.
#[derive(Debug)]
pub struct Prefix {
    /// The drive C:, directories spelled as on Windows.
    pub drive: Tree,
    /// `system.reg`.
    pub system: Vec<u8>,
    /// `user.reg`.
    pub user: Vec<u8>,
    /// `userdef.reg`.
    pub default: Vec<u8>,
}

impl Prefix {
    /// A service that Wine's set-up file `wine.inf` asks for and the registry does not have. On
    /// a busy machine Wine's first start may leave some out, and tells nobody.
    pub fn missing_service(&self, set_up: &[u8]) -> Option<String> {
        let lower = |bytes: &[u8]| String::from_utf8_lossy(bytes).to_ascii_lowercase();
        let (registry, set_up) = (lower(&self.system), lower(set_up));
        set_up
            .lines()
            .filter_map(|line| line.trim().strip_prefix("addservice="))
            .filter_map(|rest| rest.split(',').next())
            .find(|name| {
                let key = format!("[system\\\\controlset001\\\\services\\\\{name}]");
                !registry.contains(&key)
            })
            .map(str::to_owned)
    }
}

/// Reads the tar of a directory `prefix`. Nothing but the drive and the registry is taken.
pub fn read_prefix(stream: impl BufRead, spool: &Arc<Spool>) -> Result<Prefix, Error> {
    let mut reader = Reader::new(stream);
    let mut prefix = Prefix {
        drive: Tree::new(Arc::clone(spool)),
        system: Vec::new(),
        user: Vec::new(),
        default: Vec::new(),
    };
    let mut folded = HashSet::new();
    let mut size = 0;
    while let Some(entry) = reader.next_entry().map_err(Error::Prefix)? {
        let name = String::from_utf8(entry.path)
            .map_err(|_| Error::Unsound("a name is no UTF-8".to_owned()))?;
        let path = name.strip_prefix("prefix/").unwrap_or(&name).trim_end_matches('/');
        let registry = match path {
            "system.reg" => Some(&mut prefix.system),
            "user.reg" => Some(&mut prefix.user),
            "userdef.reg" => Some(&mut prefix.default),
            _ => None,
        };
        if let Some(file) = registry {
            if entry.kind != EntryKind::Regular || entry.size > MAX_REGISTRY {
                return Err(Error::Unsound(format!("{path} is no registry file")));
            }
            reader.read_to_end(file).map_err(read_error)?;
            continue;
        }
        let Some(inner) = path.strip_prefix("drive_c/") else { continue };
        let node = match entry.kind {
            EntryKind::Directory => Node::Directory(0o755),
            EntryKind::Regular => {
                size += entry.size;
                if size > MAX_SIZE || entry.sparse.is_some() {
                    return Err(Error::Unsound(format!("{inner} is beyond all sizes")));
                }
                let mut bytes = Vec::new();
                reader.read_to_end(&mut bytes).map_err(read_error)?;
                if is_placeholder(&bytes) {
                    continue;
                }
                Node::File(0o644, spool.add(&bytes)?)
            }
            // Links would lead to Linux paths.
            _ => continue,
        };
        let path = spelled(inner);
        let plain = path.split('/').all(|part| {
            !matches!(part, "" | "." | "..") && !part.contains(['\\', ':', '*', '?', '<', '>', '|'])
        });
        if !plain {
            return Err(Error::Unsound(format!("{inner:?} is no path of a drive")));
        }
        if !folded.insert(path.to_lowercase()) || folded.len() > MAX_ENTRIES {
            return Err(Error::Unsound(format!("{inner:?} is there twice")));
        }
        prefix.drive.put(path, node, 0);
    }
    for (file, bytes) in [
        ("system.reg", &prefix.system),
        ("user.reg", &prefix.user),
        ("userdef.reg", &prefix.default),
    ] {
        if bytes.is_empty() {
            return Err(Error::Unsound(format!("it has no {file}")));
        }
    }
    if prefix.drive.get("Windows/System32/ntdll.dll").is_none() {
        return Err(Error::Unsound("its drive has no ntdll.dll".to_owned()));
    }
    Ok(prefix)
}

fn read_error(error: std::io::Error) -> Error {
    Error::Prefix(silo_archive::Error::Read(error))
}

/// Whether a file only stands where Wine would have a program, and cannot run.
fn is_placeholder(file: &[u8]) -> bool {
    file.starts_with(b"MZ")
        && file.get(64..).is_some_and(|f| f.starts_with(b"Wine placeholder DLL"))
}

#[cfg(test)]
mod tests {
    use silo_archive::{Entry, Writer};

    use super::*;

    fn tar(files: &[(&str, &[u8])]) -> Vec<u8> {
        let mut writer = Writer::new(Vec::new());
        writer.append_empty(&Entry::new(EntryKind::Directory, "prefix/", 0o755)).unwrap();
        for (name, bytes) in files {
            let mut entry = Entry::new(EntryKind::Regular, *name, 0o644);
            entry.size = bytes.len() as u64;
            writer.append(&entry, &mut &bytes[..]).unwrap();
        }
        writer.finish().unwrap()
    }

    const SOUND: [(&str, &[u8]); 4] = [
        ("prefix/system.reg", b"s"),
        ("prefix/user.reg", b"u"),
        ("prefix/userdef.reg", b"d"),
        ("prefix/drive_c/windows/system32/ntdll.dll", b"MZ"),
    ];

    fn read(files: &[(&str, &[u8])]) -> Result<Prefix, Error> {
        let directory = tempfile::tempdir().unwrap();
        let spool = Arc::new(Spool::new(directory.path()).unwrap());
        read_prefix(&tar(files)[..], &spool)
    }

    #[test]
    fn the_drive_and_the_registry_are_taken() {
        let mut placeholder = b"MZ".to_vec();
        placeholder.resize(64, 0);
        placeholder.extend(b"Wine placeholder DLL");
        let mut files = SOUND.to_vec();
        files.push(("prefix/drive_c/windows/notepad.exe", &placeholder));
        files.push(("prefix/wineserver", b"secret"));
        let prefix = read(&files).unwrap();
        let paths: Vec<&str> = prefix.drive.iter().map(|(path, _)| path).collect();
        assert_eq!(paths, ["Windows/System32/ntdll.dll"]);
        assert_eq!(prefix.user, b"u");
    }

    #[test]
    fn missing_services_are_noticed() {
        let registry = b"[System\\\\ControlSet001\\\\Services\\\\EventLog] 1\n";
        let mut files = SOUND.to_vec();
        files[0].1 = registry;
        let prefix = read(&files).unwrap();
        let inf = |name: &str| format!("[x.Services]\r\nAddService={name},0x800,Y\r\n");
        assert_eq!(prefix.missing_service(inf("Eventlog").as_bytes()), None);
        assert_eq!(prefix.missing_service(inf("Event").as_bytes()).as_deref(), Some("event"));
    }

    #[test]
    fn unsound_prefixes_are_refused() {
        for missing in 0..SOUND.len() {
            let mut files = SOUND.to_vec();
            files.remove(missing);
            assert!(read(&files).is_err());
        }
        for bad in
            ["drive_c/a/../b", "drive_c/c:x", "drive_c/a\\b", "drive_c/Windows/system32/NTDLL.dll"]
        {
            let name = format!("prefix/{bad}");
            let mut files = SOUND.to_vec();
            files.push((&name, b"x"));
            assert!(read(&files).is_err(), "{bad}");
        }
    }
}
