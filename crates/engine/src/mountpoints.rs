//! What is mounted in a container: `--volume`, `--mount`, `--volumes-from`, read and checked.
//!
//! Wording is dockerd's.

use serde::{Deserialize, Serialize};
use silo_docker::mounts::{Mount, MountPoint, TmpfsOptions};
use silo_types::Error;

/// The propagation of a mount that asks for none.
pub const DEFAULT_PROPAGATION: &str = "rprivate";
const PROPAGATIONS: &[&str] = &["private", "rprivate", "slave", "rslave", "shared", "rshared"];

/// The only driver of volumes.
pub const LOCAL_DRIVER: &str = "local";

/// Where a mount's content comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum MountKind {
    /// A path of the host.
    #[default]
    Bind,
    /// A volume.
    Volume,
    /// Memory.
    Tmpfs,
    /// The root file system of an image, read-only.
    Image,
}

impl MountKind {
    /// The API's name.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Bind => "bind",
            Self::Volume => "volume",
            Self::Tmpfs => "tmpfs",
            Self::Image => "image",
        }
    }
}

/// One mount of a container, as its record keeps it.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct MountRecord {
    /// Where its content comes from.
    pub kind: MountKind,
    /// The volume's name; empty until an anonymous one is made.
    pub name: String,
    /// The path on the host; for an image its id.
    pub source: String,
    /// The clean absolute path in the container.
    pub destination: String,
    /// The volume's driver.
    pub driver: String,
    /// The options as they were given.
    pub mode: String,
    /// Writable.
    pub rw: bool,
    /// Propagation; empty for other kinds than binds.
    pub propagation: String,
    /// An empty volume is filled with what the image has there.
    pub copy: bool,
    /// Without the mounts below the source.
    pub non_recursive: bool,
    /// Read-only only for the mount itself.
    pub read_only_non_recursive: bool,
    /// It is an error if the mounts below cannot be made read-only.
    pub read_only_force_recursive: bool,
    /// A missing source is made as a directory.
    pub create_source: bool,
    /// A path inside the volume or image.
    pub subpath: String,
    /// Mount options of a tmpfs.
    pub tmpfs: String,
    /// The volume was made for this container and goes with it.
    pub anonymous: bool,
    /// Options of a volume that is yet to be made.
    pub driver_options: std::collections::BTreeMap<String, String>,
    /// Labels of a volume that is yet to be made.
    pub labels: std::collections::BTreeMap<String, String>,
}

impl MountRecord {
    /// As inspect and lists show it.
    pub fn to_api(&self) -> MountPoint {
        MountPoint {
            kind: self.kind.as_str().into(),
            name: self.name.clone(),
            source: self.source.clone(),
            destination: self.destination.clone(),
            driver: self.driver.clone(),
            mode: self.mode.clone(),
            rw: self.rw,
            propagation: self.propagation.clone(),
        }
    }
}

/// The path without empty, `.` and `..` components; absolute paths stay absolute.
pub fn clean(path: &str) -> String {
    let absolute = path.starts_with('/');
    let mut parts: Vec<&str> = Vec::new();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." if parts.last().is_some_and(|&last| last != "..") => {
                parts.pop();
            }
            ".." if absolute => {}
            part => parts.push(part),
        }
    }
    let joined = parts.join("/");
    match (absolute, joined.is_empty()) {
        (true, _) => format!("/{joined}"),
        (false, true) => ".".into(),
        (false, false) => joined,
    }
}

/// Whether the path stays inside what it is relative to.
fn is_local(path: &str) -> bool {
    let clean = clean(path);
    !path.is_empty() && !clean.starts_with('/') && clean != ".." && !clean.starts_with("../")
}

/// Refuses the root as a destination.
pub(crate) fn not_root(path: &str) -> Result<(), Error> {
    if clean(&path.replace('\\', "/")) == "/" {
        return Err(Error::invalid("invalid specification: destination can't be '/'"));
    }
    Ok(())
}

/// Refuses a relative path.
pub(crate) fn absolute(path: &str) -> Result<(), Error> {
    if path.contains('\0') {
        return Err(Error::invalid("invalid mount path: it contains a zero byte"));
    }
    if path.starts_with('/') {
        return Ok(());
    }
    Err(Error::invalid(format!("invalid mount path: '{path}' mount path must be absolute")))
}

/// Whether `mode` is one of the option lists that `-v` takes.
fn is_mode(mode: &str) -> bool {
    let mut counts = [0u8; 5];
    mode.is_empty()
        || mode.split(',').all(|option| {
            let class = match option {
                "rw" | "ro" => 0,
                "z" | "Z" => 1,
                option if PROPAGATIONS.contains(&option) => 2,
                "nocopy" => 3,
                "consistent" | "cached" | "delegated" => 4,
                _ => return false,
            };
            counts[class] += 1;
            counts[class] == 1
        })
}

fn propagation_of(mode: &str) -> Option<&str> {
    mode.split(',').find(|option| PROPAGATIONS.contains(option))
}

/// Reads one `source:destination[:options]` of `HostConfig.Binds`.
pub fn parse_bind(raw: &str, volume_driver: &str) -> Result<MountRecord, Error> {
    let invalid = || Error::invalid(format!("invalid volume specification: '{raw}'"));
    let parts: Vec<&str> = raw.splitn(4, ':').collect();
    if parts[0].is_empty() {
        return Err(invalid());
    }
    let (source, destination, mode) = match parts[..] {
        [destination] => ("", destination, ""),
        [_, second] if is_mode(second) => return Err(invalid()),
        [source, destination] => (source, destination, ""),
        [source, destination, mode] => (source, destination, mode),
        _ => return Err(invalid()),
    };
    if !is_mode(mode) {
        return Err(Error::invalid(format!("invalid mode: {mode}")));
    }
    let mut mount = Mount {
        kind: if source.starts_with('/') { "bind" } else { "volume" }.into(),
        source: source.into(),
        target: destination.into(),
        read_only: mode.split(',').any(|option| option == "ro"),
        ..Mount::default()
    };
    let propagation = propagation_of(mode);
    if propagation.is_some() && mount.kind == "volume" {
        return Err(Error::invalid(format!(
            "invalid volume specification: '{raw}': invalid mount config for type \"volume\": field BindOptions must not be specified"
        )));
    }
    let nocopy = mode.split(',').any(|option| option == "nocopy");
    if nocopy && mount.kind == "bind" {
        return Err(Error::invalid(format!(
            "invalid volume specification: '{raw}': invalid mount config for type \"bind\": field VolumeOptions must not be specified"
        )));
    }
    check(&mount, false).map_err(|error| {
        Error::invalid(format!("invalid volume specification: '{raw}': {error}"))
    })?;
    if mount.kind == "volume" && !mount.source.is_empty() {
        volume_name(&mount.source)?;
    }
    let bind = mount.kind == "bind";
    mount.target = clean(destination);
    Ok(MountRecord {
        kind: if bind { MountKind::Bind } else { MountKind::Volume },
        name: if bind { String::new() } else { source.into() },
        source: if bind { clean(source) } else { String::new() },
        destination: mount.target,
        driver: if bind { String::new() } else { volume_driver.into() },
        mode: mode.into(),
        rw: !mount.read_only,
        propagation: if bind {
            propagation.unwrap_or(DEFAULT_PROPAGATION).into()
        } else {
            String::new()
        },
        copy: !bind && !nocopy,
        create_source: bind,
        anonymous: !bind && source.is_empty(),
        ..MountRecord::default()
    })
}

fn volume_name(name: &str) -> Result<(), Error> {
    if silo_types::id::is_restricted_name(name) && name.len() <= 255 {
        return Ok(());
    }
    if name.len() == 1 {
        return Err(Error::invalid(
            "volume name is too short, names should be at least two alphanumeric characters",
        ));
    }
    Err(Error::invalid(format!(
        "create {name}: {name:?} includes invalid characters for a local volume name, only \"[a-zA-Z0-9][a-zA-Z0-9_.-]\" are allowed. If you intended to pass a host directory, use absolute path"
    )))
}

/// Checks one of `HostConfig.Mounts`, the source of a bind included.
pub(crate) fn validate(mount: &Mount) -> Result<(), Error> {
    check(mount, true)
}

fn check(mount: &Mount, source_must_exist: bool) -> Result<(), Error> {
    let wrong = |cause: &str| {
        Error::invalid(format!("invalid mount config for type {:?}: {cause}", mount.kind))
    };
    let kind = mount.kind.as_str();
    for (given, of, field) in [
        (mount.bind_options.is_some(), "bind", "BindOptions"),
        (mount.volume_options.is_some(), "volume", "VolumeOptions"),
        (mount.image_options.is_some(), "image", "ImageOptions"),
        (mount.tmpfs_options.is_some(), "tmpfs", "TmpfsOptions"),
    ] {
        if given && kind != of {
            return Err(wrong(&format!("field {field} must not be specified")));
        }
    }
    if mount.target.is_empty() {
        return Err(wrong("field Target must not be empty"));
    }
    not_root(&mount.target).map_err(|error| wrong(error.message()))?;
    absolute(&mount.target).map_err(|error| wrong(error.message()))?;
    match kind {
        "bind" => {
            if mount.source.is_empty() {
                return Err(wrong("field Source must not be empty"));
            }
            let options = mount.bind_options.as_ref();
            if let Some(options) = options {
                if !options.propagation.is_empty()
                    && !PROPAGATIONS.contains(&options.propagation.as_str())
                {
                    return Err(wrong(&format!(
                        "invalid propagation mode: {}",
                        options.propagation
                    )));
                }
                if options.read_only_non_recursive && options.read_only_force_recursive {
                    return Err(wrong(
                        "mount options conflict: ReadOnlyNonRecursive && ReadOnlyForceRecursive",
                    ));
                }
            }
            absolute(&mount.source).map_err(|error| wrong(error.message()))?;
            if source_must_exist
                && !options.is_some_and(|options| options.create_mountpoint)
                && rustix::fs::stat(mount.source.as_str()).is_err()
            {
                return Err(wrong(&format!("bind source path does not exist: {}", mount.source)));
            }
        }
        "volume" => {
            if let Some(options) = &mount.volume_options
                && !options.subpath.is_empty()
            {
                if mount.source.is_empty() {
                    return Err(wrong("must not set Subpath when using anonymous volumes"));
                }
                if !is_local(&options.subpath) {
                    return Err(wrong("subpath must be a relative path within the volume"));
                }
            }
        }
        "tmpfs" => {
            if !mount.source.is_empty() {
                return Err(wrong("field Source must not be specified"));
            }
            tmpfs_options(mount.tmpfs_options.as_ref(), mount.read_only)
                .map_err(|error| wrong(error.message()))?;
        }
        "image" => {
            if mount.source.is_empty() {
                return Err(wrong("field Source must not be empty"));
            }
            if let Some(options) = &mount.image_options
                && !options.subpath.is_empty()
                && !is_local(&options.subpath)
            {
                return Err(wrong("subpath must be a relative path within the volume"));
            }
        }
        _ => return Err(wrong("mount type unknown")),
    }
    Ok(())
}

/// Reads one of `HostConfig.Mounts`.
pub fn parse_mount(mount: &Mount) -> Result<MountRecord, Error> {
    check(mount, true)?;
    let mut record = MountRecord {
        destination: clean(&mount.target),
        rw: !mount.read_only,
        ..MountRecord::default()
    };
    match mount.kind.as_str() {
        "bind" => {
            let options = mount.bind_options.clone().unwrap_or_default();
            record.kind = MountKind::Bind;
            record.source = clean(&mount.source);
            record.propagation = if options.propagation.is_empty() {
                DEFAULT_PROPAGATION.into()
            } else {
                options.propagation
            };
            record.non_recursive = options.non_recursive;
            record.read_only_non_recursive = options.read_only_non_recursive;
            record.read_only_force_recursive = options.read_only_force_recursive;
            record.create_source = options.create_mountpoint;
        }
        "volume" => {
            let options = mount.volume_options.clone().unwrap_or_default();
            if !mount.source.is_empty() {
                volume_name(&mount.source)?;
            }
            record.kind = MountKind::Volume;
            record.name.clone_from(&mount.source);
            record.anonymous = mount.source.is_empty();
            record.copy = !options.no_copy;
            record.subpath = options.subpath;
            record.labels = options.labels.into_map();
            if let Some(driver) = options.driver_config {
                record.driver = driver.name;
                record.driver_options = driver.options.into_map();
            }
        }
        "tmpfs" => {
            record.kind = MountKind::Tmpfs;
            record.tmpfs = tmpfs_options(mount.tmpfs_options.as_ref(), mount.read_only)?;
        }
        _ => {
            record.kind = MountKind::Image;
            record.name.clone_from(&mount.source);
            record.rw = false;
            record.propagation = DEFAULT_PROPAGATION.into();
            record.subpath = mount.image_options.clone().unwrap_or_default().subpath;
        }
    }
    Ok(record)
}

/// The mount options of a tmpfs in the long form.
fn tmpfs_options(options: Option<&TmpfsOptions>, read_only: bool) -> Result<String, Error> {
    let mut words = Vec::new();
    if read_only {
        words.push("ro".to_owned());
    }
    if let Some(options) = options {
        if options.mode != 0 {
            words.push(format!("mode={:o}", options.mode & 0o7777));
        }
        if options.size_bytes != 0 {
            words.push(format!("size={}", options.size_bytes));
        }
        for option in &options.options {
            match option.as_slice() {
                [name] if matches!(name.as_str(), "exec" | "noexec") => words.push(name.clone()),
                [] => return Err(Error::invalid("invalid option array length")),
                [name] | [name, _] => {
                    return Err(Error::invalid(format!("invalid option: {name}")));
                }
                _ => return Err(Error::invalid("invalid option array length")),
            }
        }
    }
    Ok(words.join(","))
}

/// Reads `container[:mode]` of `--volumes-from`: the container, and whether it may write.
pub fn parse_volumes_from(spec: &str) -> Result<(&str, bool), Error> {
    if spec.is_empty() {
        return Err(Error::invalid("volumes-from specification cannot be an empty string"));
    }
    let (container, mode) = spec.split_once(':').unwrap_or((spec, ""));
    let refused = !is_mode(mode)
        || propagation_of(mode).is_some()
        || mode.split(',').any(|option| option == "nocopy");
    if refused {
        return Err(Error::invalid(format!("invalid mode: {mode}")));
    }
    Ok((container, !mode.split(',').any(|option| option == "ro")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_cleaned() {
        for (path, cleaned) in [
            ("/", "/"),
            ("/a/./b//c/..", "/a/b"),
            ("/../..", "/"),
            ("a/../..", ".."),
            ("", "."),
            ("a/b/", "a/b"),
        ] {
            assert_eq!(clean(path), cleaned, "{path}");
        }
        assert!(is_local("a/b") && is_local("a/../b"));
        for path in ["", "/a", "..", "a/../../b"] {
            assert!(!is_local(path), "{path}");
        }
    }

    #[test]
    fn binds() {
        let bind = parse_bind("/src:/dst", "").unwrap();
        assert_eq!(bind.kind, MountKind::Bind);
        assert!(bind.rw && bind.create_source);
        assert_eq!(bind.propagation, "rprivate");
        let bind = parse_bind("/src:/dst/:ro,rslave,z", "").unwrap();
        assert_eq!((bind.rw, bind.propagation.as_str()), (false, "rslave"));
        assert_eq!((bind.destination.as_str(), bind.mode.as_str()), ("/dst", "ro,rslave,z"));
        let volume = parse_bind("data:/dst:nocopy", "").unwrap();
        assert_eq!((volume.kind, volume.copy), (MountKind::Volume, false));
        let anonymous = parse_bind("/dst", "").unwrap();
        assert!(anonymous.anonymous && anonymous.kind == MountKind::Volume);
        for (bad, message) in [
            ("", "invalid volume specification: ''"),
            ("/a:ro", "invalid volume specification: '/a:ro'"),
            ("/a:/b:ro:x", "invalid volume specification: '/a:/b:ro:x'"),
            ("/a:/b:nope", "invalid mode: nope"),
            ("/a:/b:ro,rw", "invalid mode: ro,rw"),
        ] {
            assert_eq!(parse_bind(bad, "").unwrap_err().message(), message);
        }
        for bad in ["/a:/", "/a:b", "vol:/b:rshared", "/a:/b:nocopy", "a/b:/c", ":/x"] {
            assert!(parse_bind(bad, "").is_err(), "{bad}");
        }
    }

    #[test]
    fn long_form() {
        let mount = |kind: &str, source: &str, target: &str| Mount {
            kind: kind.into(),
            source: source.into(),
            target: target.into(),
            ..Mount::default()
        };
        assert_eq!(parse_mount(&mount("bind", "/tmp", "/x")).unwrap().source, "/tmp");
        assert!(parse_mount(&mount("volume", "", "/x")).unwrap().anonymous);
        for (bad, message) in [
            (
                mount("bind", "/no-such-dir", "/x"),
                "invalid mount config for type \"bind\": bind source path does not exist: /no-such-dir",
            ),
            (
                mount("bind", "", "/x"),
                "invalid mount config for type \"bind\": field Source must not be empty",
            ),
            (
                mount("tmpfs", "a", "/x"),
                "invalid mount config for type \"tmpfs\": field Source must not be specified",
            ),
            (
                mount("volume", "a", ""),
                "invalid mount config for type \"volume\": field Target must not be empty",
            ),
            (
                mount("nope", "a", "/x"),
                "invalid mount config for type \"nope\": mount type unknown",
            ),
            (
                mount("volume", "ab", "x"),
                "invalid mount config for type \"volume\": invalid mount path: 'x' mount path must be absolute",
            ),
        ] {
            assert_eq!(parse_mount(&bad).unwrap_err().message(), message);
        }
        let mut tmpfs = mount("tmpfs", "", "/x");
        tmpfs.tmpfs_options =
            Some(TmpfsOptions { size_bytes: 1 << 20, mode: 0o1777, ..Default::default() });
        assert_eq!(parse_mount(&tmpfs).unwrap().tmpfs, "mode=1777,size=1048576");
    }

    #[test]
    fn volumes_from() {
        assert_eq!(parse_volumes_from("c").unwrap(), ("c", true));
        assert_eq!(parse_volumes_from("c:ro").unwrap(), ("c", false));
        for bad in ["", "c:x", "c:rshared", "c:nocopy"] {
            assert!(parse_volumes_from(bad).is_err(), "{bad}");
        }
    }
}
