//! Devices of the host in the container, and the rules of the device cgroup.

use std::path::{Path, PathBuf};

use rustix::fs::FileType;
use silo_oci::runtime::{LinuxDevice, LinuxDeviceCgroup};
use silo_types::Error;

/// Directories of /dev that belong to the host alone.
const NOT_SHARED: &[&str] =
    &["pts", "shm", "fd", "mqueue", ".lxc", ".lxd-mounts", ".udev", "console"];

/// More nodes below one directory than any host has.
const MAX_NODES: usize = 10_000;
const MAX_DEPTH: usize = 8;

fn rule(
    allow: bool,
    kind: Option<&str>,
    major: Option<i64>,
    minor: Option<i64>,
    access: &str,
) -> LinuxDeviceCgroup {
    LinuxDeviceCgroup {
        allow,
        kind: kind.map(str::to_owned),
        major,
        minor,
        access: Some(access.to_owned()),
    }
}

/// The rules that every unprivileged container begins with: nothing, then the few devices that
/// programs expect.
pub fn default_rules() -> Vec<LinuxDeviceCgroup> {
    let mut rules = vec![rule(false, None, None, None, "rwm")];
    // A node that cannot be opened does no harm.
    rules.push(rule(true, Some("c"), None, None, "m"));
    rules.push(rule(true, Some("b"), None, None, "m"));
    let (null, zero, full, random, urandom) = (3, 5, 7, 8, 9);
    for minor in [null, zero, full, random, urandom] {
        rules.push(rule(true, Some("c"), Some(1), Some(minor), "rwm"));
    }
    let (tty, console, ptmx) = (0, 1, 2);
    for minor in [tty, console, ptmx] {
        rules.push(rule(true, Some("c"), Some(5), Some(minor), "rwm"));
    }
    const PSEUDO_TERMINALS: i64 = 136;
    rules.push(rule(true, Some("c"), Some(PSEUDO_TERMINALS), None, "rwm"));
    rules
}

/// The rule of a privileged container.
pub fn allow_all() -> Vec<LinuxDeviceCgroup> {
    vec![rule(true, None, None, None, "rwm")]
}

/// Reads a rule like `c 13:* rwm`.
pub fn parse_rule(text: &str) -> Result<LinuxDeviceCgroup, Error> {
    // docker wording
    let invalid = || Error::invalid(format!("invalid device cgroup rule format: '{text}'"));
    let mut words = text.split(' ');
    let (Some(kind), Some(numbers), Some(access), None) =
        (words.next(), words.next(), words.next(), words.next())
    else {
        return Err(invalid());
    };
    let number = |text: &str| match text {
        "*" => Ok(-1),
        digits if !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit()) => {
            digits.parse::<u32>().map(i64::from).map_err(|_| invalid())
        }
        _ => Err(invalid()),
    };
    let (major, minor) = numbers.split_once(':').ok_or_else(invalid)?;
    let access_is_valid =
        (1..=3).contains(&access.len()) && access.bytes().all(|b| b"rwm".contains(&b));
    if !matches!(kind, "a" | "b" | "c") || !access_is_valid {
        return Err(invalid());
    }
    Ok(rule(true, Some(kind), Some(number(major)?), Some(number(minor)?), access))
}

/// The node at `path` as it is to be made at `destination`; `None` when it is not a device.
fn node(path: &Path, destination: &Path) -> rustix::io::Result<Option<LinuxDevice>> {
    let stat = rustix::fs::lstat(path)?;
    let kind = match FileType::from_raw_mode(stat.st_mode) {
        FileType::CharacterDevice => "c",
        FileType::BlockDevice => "b",
        _ => return Ok(None),
    };
    Ok(Some(LinuxDevice {
        kind: kind.into(),
        path: destination.to_path_buf(),
        major: i64::from(rustix::fs::major(stat.st_rdev)),
        minor: i64::from(rustix::fs::minor(stat.st_rdev)),
        file_mode: Some(stat.st_mode & 0o7777),
        uid: Some(stat.st_uid),
        gid: Some(stat.st_gid),
    }))
}

/// All device nodes below `directory`, symbolic links not followed.
fn walk(directory: &Path, destination: &Path, depth: usize, found: &mut Vec<LinuxDevice>) {
    let Ok(entries) = fs_err::read_dir(directory) else { return };
    for entry in entries.flatten() {
        if found.len() >= MAX_NODES {
            return;
        }
        let target = destination.join(entry.file_name());
        match entry.file_type() {
            Ok(kind) if kind.is_dir() && depth < MAX_DEPTH => {
                walk(&entry.path(), &target, depth + 1, found);
            }
            Ok(kind) if !kind.is_dir() => {
                if let Ok(Some(device)) = node(&entry.path(), &target) {
                    found.push(device);
                }
            }
            _ => {}
        }
    }
}

/// Every device of the host, for a privileged container.
pub fn of_host() -> Vec<LinuxDevice> {
    let mut found = Vec::new();
    let Ok(entries) = fs_err::read_dir("/dev") else { return found };
    for entry in entries.flatten() {
        let name = entry.file_name();
        if NOT_SHARED.iter().any(|&skipped| name == skipped) {
            continue;
        }
        let path = entry.path();
        match entry.file_type() {
            Ok(kind) if kind.is_dir() => walk(&path, &path, 1, &mut found),
            _ => found.extend(node(&path, &path).ok().flatten()),
        }
    }
    found
}

/// The devices that one `--device host[:container[:permissions]]` stands for, with their rules.
///
/// A directory stands for all device nodes below it.
pub fn mapping(
    on_host: &str,
    in_container: &str,
    permissions: &str,
) -> Result<(Vec<LinuxDevice>, Vec<LinuxDeviceCgroup>), Error> {
    let in_container = if in_container.is_empty() { on_host } else { in_container };
    let permissions = if permissions.is_empty() { "rwm" } else { permissions };
    // docker wording
    let failed = |cause: &str| {
        Error::internal(format!(
            "error gathering device information while adding custom device {on_host:?}: {cause}"
        ))
    };
    let real: PathBuf =
        fs_err::canonicalize(on_host).map_err(|_| failed("no such file or directory"))?;
    let mut devices = Vec::new();
    match node(&real, Path::new(in_container)) {
        Ok(Some(device)) => devices.push(device),
        Ok(None) => walk(&real, Path::new(in_container), 0, &mut devices),
        Err(errno) => return Err(failed(&errno.to_string())),
    }
    if devices.is_empty() {
        return Err(failed("not a device node"));
    }
    let rules = devices
        .iter()
        .map(|device| {
            rule(true, Some(&device.kind), Some(device.major), Some(device.minor), permissions)
        })
        .collect();
    Ok((devices, rules))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rules_are_read() {
        let read = parse_rule("c 13:* rw").unwrap();
        assert_eq!(read, rule(true, Some("c"), Some(13), Some(-1), "rw"));
        assert!(parse_rule("a *:* rwm").is_ok());
        for bad in [
            "",
            "c",
            "c 1:1",
            "d 1:1 r",
            "c 1 r",
            "c x:1 r",
            "c 1:1 rwmr",
            "c 1:1 x",
            "c 1:1 r x",
            "c -1:1 r",
            "c 99999999999:1 r",
        ] {
            assert!(parse_rule(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn nodes_of_this_host() {
        let (devices, rules) = mapping("/dev/null", "/dev/zilch", "r").unwrap();
        assert_eq!((devices[0].major, devices[0].minor), (1, 3));
        assert_eq!(devices[0].path, Path::new("/dev/zilch"));
        assert_eq!(rules[0].access.as_deref(), Some("r"));
        let message = mapping("/dev/no-such", "", "").unwrap_err();
        assert_eq!(
            message.message(),
            "error gathering device information while adding custom device \"/dev/no-such\": no such file or directory"
        );
        assert!(
            mapping("/etc/passwd", "", "").unwrap_err().message().ends_with("not a device node")
        );
        assert!(of_host().iter().any(|device| device.path == Path::new("/dev/null")));
    }
}
