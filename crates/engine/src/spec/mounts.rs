//! The mounts of a container: the pseudo file systems of every container, and what is asked for.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use silo_oci::runtime::Mount;
use silo_types::Error;

/// A mount that is asked for, its source found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Extra {
    /// The clean absolute path in the container.
    pub destination: String,
    /// What is mounted.
    pub source: Source,
    /// Writable.
    pub rw: bool,
    /// Propagation; empty for the default.
    pub propagation: String,
    /// Without the mounts below the source.
    pub non_recursive: bool,
    /// Read-only only for the mount itself.
    pub read_only_non_recursive: bool,
}

/// What is mounted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Source {
    /// A path of the host.
    Path(PathBuf),
    /// Memory, with mount options.
    Tmpfs(String),
}

impl Extra {
    /// A file or directory of the engine's own, mounted with Docker's defaults.
    pub fn file(source: PathBuf, destination: &str, rw: bool) -> Self {
        Self {
            destination: destination.to_owned(),
            source: Source::Path(source),
            rw,
            propagation: crate::mountpoints::DEFAULT_PROPAGATION.into(),
            non_recursive: false,
            read_only_non_recursive: false,
        }
    }
}

/// What decides about the mounts of a container.
#[derive(Debug)]
pub struct Wanted<'a> {
    /// Mounts that are asked for.
    pub extra: &'a [Extra],
    /// `--tmpfs`: destination to options.
    pub tmpfs: &'a BTreeMap<String, String>,
    /// Bytes of /dev/shm.
    pub shm_size: i64,
    /// A directory for /dev/shm in place of a file system of its own.
    pub shm: Option<&'a Path>,
    /// No /dev/shm at all.
    pub no_shm: bool,
    /// Nothing is read-only.
    pub privileged: bool,
    /// The cgroup files can be written.
    pub writable_cgroups: bool,
}

/// The mounts in order, and what the root's propagation must be for them.
#[derive(Debug, Default)]
pub struct Mounts {
    /// In the order in which they are mounted.
    pub list: Vec<Mount>,
    /// Propagation of the root, or empty.
    pub root_propagation: &'static str,
}

fn mount(destination: &str, kind: &str, source: &str, options: &[&str]) -> Mount {
    Mount {
        destination: destination.into(),
        kind: Some(kind.into()),
        source: Some(source.into()),
        options: options.iter().map(|&option| option.to_owned()).collect(),
        ..Mount::default()
    }
}

fn basic() -> Vec<Mount> {
    vec![
        mount("/proc", "proc", "proc", &["nosuid", "noexec", "nodev"]),
        mount("/dev", "tmpfs", "tmpfs", &["nosuid", "strictatime", "mode=755", "size=65536k"]),
        mount(
            "/dev/pts",
            "devpts",
            "devpts",
            &["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"],
        ),
        mount("/sys", "sysfs", "sysfs", &["nosuid", "noexec", "nodev", "ro"]),
        mount("/sys/fs/cgroup", "cgroup", "cgroup", &["ro", "nosuid", "noexec", "nodev"]),
        mount("/dev/mqueue", "mqueue", "mqueue", &["nosuid", "noexec", "nodev"]),
        mount("/dev/shm", "tmpfs", "shm", &["nosuid", "noexec", "nodev", "mode=1777"]),
    ]
}

/// Puts the mounts together.
pub fn generate(wanted: &Wanted<'_>) -> Result<Mounts, Error> {
    let mut extra = wanted.extra.to_vec();
    for (destination, options) in wanted.tmpfs {
        extra.push(Extra {
            destination: crate::mountpoints::clean(destination),
            source: Source::Tmpfs(options.clone()),
            rw: true,
            propagation: String::new(),
            non_recursive: false,
            read_only_non_recursive: false,
        });
    }
    // A mount must come after those at the directories above it.
    extra.sort_by_key(|e| e.destination.matches('/').count());
    let user_has = |path: &Path| extra.iter().any(|e| Path::new(&e.destination) == path);
    let dev_is_users = user_has(Path::new("/dev"));
    let mut mounts = Mounts::default();
    for mut mount in basic() {
        let in_dev =
            mount.destination.starts_with("/dev") && mount.destination != Path::new("/dev");
        if user_has(&mount.destination) || (dev_is_users && in_dev) {
            continue;
        }
        if mount.destination == Path::new("/dev/shm") {
            if wanted.no_shm {
                continue;
            }
            match wanted.shm {
                Some(directory) => {
                    mount.kind = Some("bind".into());
                    mount.source = Some(directory.to_path_buf());
                    mount.options = ["rbind", "rprivate", "nosuid", "noexec", "nodev"]
                        .map(str::to_owned)
                        .into();
                }
                None => mount.options.push(format!("size={}", wanted.shm_size)),
            }
        }
        let is_cgroup = mount.kind.as_deref() == Some("cgroup");
        let is_sys = mount.destination == Path::new("/sys");
        if (is_sys && wanted.privileged) || (is_cgroup && wanted.writable_cgroups) {
            mount.options.retain(|option| option != "ro");
        }
        mounts.list.push(mount);
    }
    for e in &extra {
        let made = match &e.source {
            Source::Tmpfs(options) => tmpfs(&e.destination, options)?,
            Source::Path(source) => bind(e, source, &mut mounts.root_propagation)?,
        };
        mounts.list.push(made);
    }
    Ok(mounts)
}

fn tmpfs(destination: &str, options: &str) -> Result<Mount, Error> {
    /// Words of which the last one counts.
    const OPPOSITES: &[(&str, &str)] = &[
        ("ro", "rw"),
        ("suid", "nosuid"),
        ("dev", "nodev"),
        ("exec", "noexec"),
        ("sync", "async"),
        ("dirsync", "dirsync"),
        ("mand", "nomand"),
        ("atime", "noatime"),
        ("diratime", "nodiratime"),
        ("relatime", "norelatime"),
        ("strictatime", "nostrictatime"),
        ("bind", "rbind"),
        ("private", "rprivate"),
    ];
    const VALUES: &[&str] = &["mode", "uid", "gid", "size", "nr_inodes", "nr_blocks", "mpol"];
    let mut merged: Vec<String> =
        ["noexec", "nosuid", "nodev", "rprivate"].map(str::to_owned).to_vec();
    for option in options.split(',').filter(|option| !option.is_empty()) {
        let name = option.split_once('=').map(|(name, _)| name);
        match name {
            Some(name) if VALUES.contains(&name) => {
                merged.retain(|m| m.split_once('=').is_none_or(|(n, _)| n != name));
            }
            None if OPPOSITES.iter().any(|(a, b)| [*a, *b].contains(&option)) => {
                let opposite = OPPOSITES.iter().find(|(a, b)| [*a, *b].contains(&option));
                if let Some((a, b)) = opposite {
                    merged.retain(|m| m != a && m != b);
                }
            }
            // docker wording
            _ => return Err(Error::invalid(format!("Invalid tmpfs option {option:?}"))),
        }
        merged.push(option.to_owned());
    }
    let mut made = mount(destination, "tmpfs", "tmpfs", &[]);
    made.options = merged;
    Ok(made)
}

/// What is bound, and what its propagation demands of the root's.
fn bind(extra: &Extra, source: &Path, root: &mut &'static str) -> Result<Mount, Error> {
    let mut made = mount(
        &extra.destination,
        "bind",
        "",
        &[if extra.non_recursive { "bind" } else { "rbind" }],
    );
    made.source = Some(source.to_path_buf());
    if !extra.rw {
        made.options.push(if extra.read_only_non_recursive { "ro" } else { "rro" }.into());
    }
    match extra.propagation.as_str() {
        "shared" | "rshared" => {
            ensure_peers(source, &["shared:"], "shared mount")?;
            *root = "shared";
        }
        "slave" | "rslave" => {
            ensure_peers(source, &["shared:", "master:"], "shared or slave mount")?;
            if root.is_empty() {
                *root = "rslave";
            }
        }
        _ => {}
    }
    if !extra.propagation.is_empty() {
        made.options.push(extra.propagation.clone());
    }
    Ok(made)
}

/// Fails unless the mount that `source` lies on has one of the optional fields.
fn ensure_peers(source: &Path, fields: &[&str], what: &str) -> Result<(), Error> {
    let failed = |cause: &dyn std::fmt::Display| Error::internal(format!("{cause}"));
    let real = fs_err::canonicalize(source).map_err(|e| failed(&e))?;
    let mountinfo = fs_err::read_to_string("/proc/self/mountinfo").map_err(|e| failed(&e))?;
    let (mount_point, optional) = covering_mount(&mountinfo, &real)
        .ok_or_else(|| failed(&format!("Can't find mount point of {}", source.display())))?;
    if fields.iter().any(|field| optional.split(' ').any(|word| word.starts_with(field))) {
        return Ok(());
    }
    // docker wording
    Err(failed(&format!(
        "path {} is mounted on {mount_point} but it is not a {what}",
        source.display()
    )))
}

/// The mount point that covers `path` and its optional fields.
fn covering_mount(mountinfo: &str, path: &Path) -> Option<(String, String)> {
    let mut best: Option<(String, String)> = None;
    for line in mountinfo.lines() {
        let Some((before, _)) = line.split_once(" - ") else { continue };
        let words: Vec<&str> = before.split(' ').collect();
        let Some(point) = words.get(4) else { continue };
        let point = point.replace("\\040", " ").replace("\\011", "\t").replace("\\134", "\\");
        let longer = best.as_ref().is_none_or(|(held, _)| point.len() >= held.len());
        if path.starts_with(&point) && longer {
            best = Some((point, words[6..].join(" ")));
        }
    }
    best
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wanted<'a>(extra: &'a [Extra], tmpfs: &'a BTreeMap<String, String>) -> Wanted<'a> {
        Wanted {
            extra,
            tmpfs,
            shm_size: 1024,
            shm: None,
            no_shm: false,
            privileged: false,
            writable_cgroups: false,
        }
    }

    fn destinations(mounts: &Mounts) -> Vec<&str> {
        mounts.list.iter().filter_map(|m| m.destination.to_str()).collect()
    }

    #[test]
    fn users_mounts_replace_and_follow() {
        let none = BTreeMap::new();
        let extra = [
            Extra::file("/a".into(), "/data/in/deep", true),
            Extra::file("/b".into(), "/data", false),
            Extra::file("/c".into(), "/sys", true),
        ];
        let mounts = generate(&wanted(&extra, &none)).unwrap();
        let list = destinations(&mounts);
        assert_eq!(&list[list.len() - 3..], ["/data", "/sys", "/data/in/deep"]);
        assert_eq!(list.iter().filter(|d| **d == "/sys").count(), 1);
        let data = &mounts.list[list.len() - 3];
        assert_eq!(data.options, ["rbind", "rro", "rprivate"]);
        let dev = [Extra::file("/d".into(), "/dev", true)];
        let mounts = generate(&wanted(&dev, &none)).unwrap();
        assert_eq!(destinations(&mounts), ["/proc", "/sys", "/sys/fs/cgroup", "/dev"]);
    }

    #[test]
    fn shared_memory() {
        let none = BTreeMap::new();
        let mut want = wanted(&[], &none);
        let last = generate(&want).unwrap().list.pop().unwrap();
        assert!(last.options.contains(&"size=1024".to_owned()));
        want.shm = Some(Path::new("/run/x"));
        let last = generate(&want).unwrap().list.pop().unwrap();
        assert_eq!(last.source.as_deref(), Some(Path::new("/run/x")));
        want.no_shm = true;
        assert!(!destinations(&generate(&want).unwrap()).contains(&"/dev/shm"));
    }

    #[test]
    fn tmpfs_options_override_the_defaults() {
        assert_eq!(tmpfs("/t", "").unwrap().options, ["noexec", "nosuid", "nodev", "rprivate"]);
        assert_eq!(
            tmpfs("/t", "exec,size=1m,size=2m,ro").unwrap().options,
            ["nosuid", "nodev", "rprivate", "exec", "size=2m", "ro"]
        );
        for bad in ["bogus", "lowerdir=/", "size"] {
            assert!(tmpfs("/t", bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn covering_mounts() {
        let mountinfo = "1 0 8:1 / / rw - ext4 /dev/sda rw\n\
            2 1 8:2 / /mnt\\040x rw shared:3 master:1 - ext4 /dev/sdb rw\n\
            3 1 8:3 / /mnt rw shared:9 - ext4 /dev/sdc rw\n";
        let find = |path: &str| covering_mount(mountinfo, Path::new(path)).unwrap();
        assert_eq!(find("/mnt x/y"), ("/mnt x".into(), "shared:3 master:1".into()));
        assert_eq!(find("/mnt/a").1, "shared:9");
        assert_eq!(find("/mntx"), ("/".into(), String::new()));
    }
}
