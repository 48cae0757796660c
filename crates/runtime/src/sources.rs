//! What the host gives to a container's root, opened before the container's process exists:
//! the root itself, bound trees, device nodes.
//!
//! Everything here is named by paths that the configuration chose, in the host's view, and is
//! carried on as descriptors of detached mounts; a container's own names play no part in it.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, FileType, Mode, OFlags};
use rustix::io::Errno;
use rustix::mount::MountAttrFlags;
use silo_oci::runtime::{LinuxDevice, LinuxIdMapping, Mount, NamespaceKind, Spec};
use silo_sys::mount::{self, MountAttr, Propagation};
use silo_sys::namespace::{self, IdRange};

use crate::error::{Context as _, Error};
use crate::options::MountOptions;
use crate::request::Root;

/// One mount of the configuration with its options, and the tree if it binds one.
#[derive(Debug)]
pub(crate) struct Planned<'a> {
    pub(crate) mount: &'a Mount,
    pub(crate) options: MountOptions,
    pub(crate) tree: Option<OwnedFd>,
}

/// What the caller gives beside the configuration.
#[derive(Debug)]
pub(crate) struct Given {
    pub(crate) root: Root,
    pub(crate) init_binary: Option<OwnedFd>,
    /// Sources of bind mounts that are open already, by destination.
    pub(crate) trees: Vec<(PathBuf, OwnedFd)>,
    /// Whether the container has a cgroup of its own.
    pub(crate) own_cgroup: bool,
}

/// What is opened on the host.
#[derive(Debug)]
pub(crate) struct Sources<'a> {
    pub(crate) root: OwnedFd,
    /// Where the root is attached: the configuration's path, or the host's root for a root
    /// that has no path.
    pub(crate) attach_at: PathBuf,
    pub(crate) mounts: Vec<Planned<'a>>,
    pub(crate) null: OwnedFd,
    /// Bound device nodes, for a user namespace in which none can be made.
    pub(crate) devices: Vec<OwnedFd>,
    pub(crate) init_binary: Option<OwnedFd>,
    /// Whether cgroups may be written in the container, as far as the configuration wants it.
    pub(crate) writable_cgroups: bool,
}

/// The devices that every container has.
pub(crate) fn default_devices() -> Vec<LinuxDevice> {
    [("null", 3), ("zero", 5), ("full", 7), ("random", 8), ("urandom", 9)]
        .into_iter()
        .map(|(name, minor)| (name, 1, minor))
        .chain([("tty", 5, 0)])
        .map(|(name, major, minor)| LinuxDevice {
            kind: "c".into(),
            path: Path::new("/dev").join(name),
            major,
            minor,
            file_mode: Some(0o666),
            uid: Some(0),
            gid: Some(0),
        })
        .collect()
}

/// The devices of a configuration: the default ones first, unless it has its own.
pub(crate) fn all_devices(spec: &Spec) -> Vec<LinuxDevice> {
    let own: &[LinuxDevice] = spec.linux.as_ref().map_or(&[], |linux| &linux.devices);
    let mut devices = default_devices();
    devices.retain(|device| own.iter().all(|other| other.path != device.path));
    devices.extend(own.iter().cloned());
    devices
}

pub(crate) fn ranges(mappings: &[LinuxIdMapping]) -> Vec<IdRange> {
    mappings
        .iter()
        .map(|mapping| IdRange {
            inside: mapping.container_id,
            outside: mapping.host_id,
            count: mapping.size,
        })
        .collect()
}

/// Whether the configuration's `/dev` is the host's, which is left as it is.
pub(crate) fn binds_dev(spec: &Spec) -> bool {
    spec.mounts.iter().any(|mount| {
        silo_sys::path::clean(&mount.destination) == Path::new("dev")
            && MountOptions::parse(&mount.options, mount.kind.as_deref()).bind.is_some()
    })
}

impl<'a> Sources<'a> {
    /// Opens everything. `bundle` is where relative paths start.
    pub(crate) fn open(spec: &'a Spec, bundle: &Path, given: Given) -> Result<Self, Error> {
        let Given { root, init_binary, mut trees, own_cgroup } = given;
        let (root, attach_at) = open_root(root, bundle)?;
        let mut mounts = Vec::with_capacity(spec.mounts.len());
        for mount in &spec.mounts {
            let given = trees.iter().position(|(place, _)| *place == mount.destination);
            let given = given.map(|position| trees.swap_remove(position).1);
            mounts.push(plan(spec, bundle, mount, given)?);
        }
        let null = host_device(Path::new("/dev/null"), FileType::CharacterDevice, 1, 3)?;
        let mut devices = Vec::new();
        if spec.namespace(NamespaceKind::User).is_some() && !binds_dev(spec) {
            for device in all_devices(spec) {
                let kind = device_type(&device)?;
                devices.push(host_device(&device.path, kind, device.major, device.minor)?);
            }
        }
        let init_binary = init_binary.map(|binary| {
            // A detached mount can be attached as it is; anything else is bound.
            mount::bind_clone_fd(&binary, false).unwrap_or(binary)
        });
        // A user's container without a cgroup of its own is in the user's, and whatever it sees
        // without a namespace is the host's.
        let namespaced = spec.namespace(NamespaceKind::Cgroup).is_some();
        let writable_cgroups = !in_user_namespace(spec) || own_cgroup && namespaced;
        Ok(Self { root, attach_at, mounts, null, devices, init_binary, writable_cgroups })
    }
}

/// Whether the container's root is not the host's root.
fn in_user_namespace(spec: &Spec) -> bool {
    spec.namespace(NamespaceKind::User).is_some()
        // All ids are those outside in the host's own.
        || fs_err::read_to_string("/proc/self/uid_map")
            .is_ok_and(|map| !map.split_whitespace().eq(["0", "0", "4294967295"]))
}

fn open_root(root: Root, bundle: &Path) -> Result<(OwnedFd, PathBuf), Error> {
    match root {
        Root::Mount(mount) => Ok((mount, "/".into())),
        Root::Path(path) => {
            let path = bundle.join(path);
            let name = || format!("open root {}", path.display());
            let mount = mount::bind_clone(&path, true).step(name)?;
            if file_type(&mount).step(name)? != FileType::Directory {
                return Err(Error::step(name(), Errno::NOTDIR));
            }
            Ok((mount, path))
        }
        Root::Overlay { lowers, upper, work, volatile } => {
            let lowers: Vec<&Path> = lowers.iter().map(PathBuf::as_path).collect();
            let mut options = vec![("index", Some("off"))];
            if volatile {
                // Left by the mount before, and refused by the next one.
                mount::forget_volatile(&work)
                    .step(|| format!("clean overlay work directory {}", work.display()))?;
                options.push(("volatile", None));
            }
            let mount = mount::overlay(&lowers, Some((&upper, &work)), &options)
                .step(|| format!("mount overlay on {}", upper.display()))?;
            Ok((mount, "/".into()))
        }
    }
}

fn plan<'a>(
    spec: &'a Spec,
    bundle: &Path,
    mount: &'a Mount,
    given: Option<OwnedFd>,
) -> Result<Planned<'a>, Error> {
    let options = MountOptions::parse(&mount.options, mount.kind.as_deref());
    let Some(recursive) = options.bind else {
        return Ok(Planned { mount, options, tree: None });
    };
    let source = mount.source.as_deref().ok_or_else(|| {
        Error::invalid(format!("bind mount {} has no source", mount.destination.display()))
    })?;
    let source = bundle.join(source);
    let name = || format!("bind {} at {}", source.display(), mount.destination.display());
    let tree = match given {
        Some(tree) => tree,
        None => mount::bind_clone(&source, recursive).step(name)?,
    };
    let (propagation, deep) = options.propagation.unwrap_or((Propagation::Slave, true));
    let set = |propagation, deep| {
        let attr = MountAttr { propagation: Some(propagation), ..MountAttr::default() };
        mount::set_attr(&tree, attr, deep)
    };
    if !deep && recursive {
        // What is not asked to be shared is not shared with the host.
        set(Propagation::Slave, true).step(name)?;
    }
    set(propagation, deep).step(name)?;
    mount::set_attr(&tree, options.attr, false).step(name)?;
    mount::set_attr(&tree, options.recursive, true).step(name)?;
    if recursive && options.read_only() && source.starts_with("/sys") && in_user_namespace(spec) {
        // The host's cgroups beneath, some of which may be the user's.
        let attr = MountAttr { set: MountAttrFlags::MOUNT_ATTR_RDONLY, ..MountAttr::default() };
        mount::set_attr(&tree, attr, true).step(name)?;
    }
    if let Some(deep) = idmap(&options, mount) {
        let linux = spec.linux.as_ref();
        let (users, groups) = if mount.uid_mappings.is_empty() && mount.gid_mappings.is_empty() {
            linux.map_or((&[][..], &[][..]), |linux| (&linux.uid_mappings, &linux.gid_mappings))
        } else {
            (&mount.uid_mappings[..], &mount.gid_mappings[..])
        };
        if users.is_empty() || groups.is_empty() {
            return Err(Error::invalid(format!(
                "mount {} asks for an id map and gives none",
                mount.destination.display()
            )));
        }
        let userns = namespace::user_namespace(&ranges(users), &ranges(groups)).step(name)?;
        mount::set_idmap(&tree, &userns, deep).step(name)?;
    }
    Ok(Planned { mount, options, tree: Some(tree) })
}

/// Whether the mount's owners are mapped, and how deep.
fn idmap(options: &MountOptions, mount: &Mount) -> Option<bool> {
    let asked = !(mount.uid_mappings.is_empty() && mount.gid_mappings.is_empty());
    options.idmap.or(asked.then_some(false))
}

pub(crate) fn file_type(fd: impl AsFd) -> io::Result<FileType> {
    Ok(FileType::from_raw_mode(rustix::fs::fstat(fd)?.st_mode))
}

pub(crate) fn device_type(device: &LinuxDevice) -> Result<FileType, Error> {
    match device.kind.as_str() {
        "c" | "u" => Ok(FileType::CharacterDevice),
        "b" => Ok(FileType::BlockDevice),
        "p" => Ok(FileType::Fifo),
        other => Err(Error::invalid(format!(
            "device {} has the unknown type {other:?}",
            device.path.display()
        ))),
    }
}

/// A detached mount of a device node of the host, made certain to be that device.
fn host_device(path: &Path, kind: FileType, major: i64, minor: i64) -> Result<OwnedFd, Error> {
    let name = || format!("open device {}", path.display());
    let node =
        rustix::fs::openat(CWD, path, OFlags::PATH | OFlags::CLOEXEC, Mode::empty()).step(name)?;
    let stat = rustix::fs::fstat(&node).step(name)?;
    let same = FileType::from_raw_mode(stat.st_mode) == kind
        && (kind == FileType::Fifo
            || (i64::from(rustix::fs::major(stat.st_rdev)) == major
                && i64::from(rustix::fs::minor(stat.st_rdev)) == minor));
    if !same {
        return Err(Error::invalid(format!(
            "{} is not the device {major}:{minor}",
            path.display()
        )));
    }
    mount::bind_clone_fd(&node, false).step(name)
}
