//! The container's root: mounts, devices, what is hidden, and the change of root.
//!
//! Runs in the container's own mount namespace. A name in the root is only ever resolved by
//! openat2(2) beneath a descriptor of the root, and what is found is mounted on by that
//! descriptor; so whoever can rename things in the root can at most misplace things in it.

use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Component, Path, PathBuf};

use rustix::fs::{FileType, Mode, OFlags};
use rustix::io::Errno;
use rustix::mount::MountAttrFlags as Attr;
use silo_oci::runtime::{NamespaceKind, Spec};
use silo_sys::mount::{self, MountAttr, Propagation, Setting};
use silo_sys::path::{self, clean};

use crate::cgroupfs;
use crate::copyup;
use crate::devices;
use crate::error::{Context as _, Error};
use crate::options::{self, MountOptions};
use crate::sources::{Planned, Sources, file_type};

/// The type numbers of statfs(2) that are checked.
const PROC_SUPER_MAGIC: u64 = 0x9fa0;
const SYSFS_MAGIC: u64 = 0x6265_6572;
pub(crate) const DEVPTS_SUPER_MAGIC: u64 = 0x1cd1;

const DIRECTORY_MODE: Mode = Mode::from_raw_mode(0o755);

/// How many dangling links may be on the way to one place.
const LINKS_MAX: usize = 40;

/// Files of procfs that may be replaced by a bind mount, as LXCFS does.
const REPLACEABLE: &[&str] = &[
    "proc/cpuinfo",
    "proc/diskstats",
    "proc/meminfo",
    "proc/stat",
    "proc/swaps",
    "proc/uptime",
    "proc/loadavg",
    "proc/slabinfo",
    "proc/net/dev",
    "proc/sys/kernel/ns_last_pid",
    "proc/sys/crypto/fips_enabled",
];

/// The root while it is being furnished.
pub(crate) struct Furnished {
    /// The root's mount.
    pub(crate) root: OwnedFd,
    /// The root of the container's devpts.
    pub(crate) devpts: Option<OwnedFd>,
    /// Mounts that are to be read-only when everything is in place.
    late_read_only: Vec<OwnedFd>,
    /// Whether cgroups may be written, as far as the configuration wants it.
    writable_cgroups: bool,
}

/// The type of file system that `fd` is on.
pub(crate) fn filesystem(fd: impl AsFd) -> Result<u64, Errno> {
    let kind = rustix::fs::fstatfs(fd)?.f_type;
    // The kernel's numbers fit 32 bits, the field's type differs between machines.
    Ok(u64::try_from(kind).unwrap_or_default())
}

/// Attaches the root, so that mounts can be made in it. The rest of the tree gets no mounts
/// from the host's peers and gives none back.
pub(crate) fn attach_root(spec: &Spec, sources: &Sources<'_>) -> Result<Furnished, Error> {
    let wanted = root_propagation(spec)?;
    let step = || "prepare mount namespace".to_owned();
    if spec.namespace(NamespaceKind::Mount).is_some() {
        mount::set_propagation_of_all(match wanted {
            Some(Propagation::Private | Propagation::Unbindable) => Propagation::Private,
            _ => Propagation::Slave,
        })
        .step(step)?;
    }
    let root = rustix::io::fcntl_dupfd_cloexec(&sources.root, 3).step(step)?;
    let attr = MountAttr {
        propagation: Some(match wanted {
            Some(Propagation::Shared | Propagation::Slave) => Propagation::Slave,
            _ => Propagation::Private,
        }),
        ..MountAttr::default()
    };
    mount::set_attr(&root, attr, true).step(step)?;
    mount::attach_at(&root, &sources.attach_at)
        .step(|| format!("attach root at {}", sources.attach_at.display()))?;
    let writable_cgroups = sources.writable_cgroups;
    Ok(Furnished { root, devpts: None, late_read_only: Vec::new(), writable_cgroups })
}

/// The propagation that the configuration wants for the root.
fn root_propagation(spec: &Spec) -> Result<Option<Propagation>, Error> {
    match spec.linux.as_ref().map_or("", |linux| linux.rootfs_propagation.as_str()) {
        "" => Ok(None),
        name => options::propagation(name)
            .map(|(propagation, _)| Some(propagation))
            .ok_or_else(|| Error::invalid(format!("unknown rootfsPropagation {name:?}"))),
    }
}

impl Furnished {
    /// Makes all mounts of the configuration, then devices, links and the console's place.
    pub(crate) fn furnish(&mut self, spec: &Spec, sources: Sources<'_>) -> Result<OwnedFd, Error> {
        let Sources { mounts, null, devices: bound, init_binary, .. } = sources;
        let mut dev = None;
        for planned in mounts {
            let place = clean(&planned.mount.destination);
            let step = || mount_step(&planned);
            check_place(&planned, &place)?;
            let made = self.mount(spec, &planned, &place);
            let made = made.map_err(|error| match error {
                Error::Step { cause, errno, step: inner } if inner.is_empty() => {
                    Error::Step { step: step(), cause, errno }
                }
                other => other,
            })?;
            if place == Path::new("dev") && planned.options.bind.is_none() {
                dev = Some(made);
            } else if planned.mount.kind.as_deref() == Some("devpts")
                && planned.options.bind.is_none()
                && place == Path::new("dev/pts")
            {
                self.devpts = Some(made);
            }
        }
        if !crate::sources::binds_dev(spec) {
            let dev = match dev {
                Some(dev) => dev,
                None => path::mkdir_all_in_root(&self.root, "dev", DIRECTORY_MODE)
                    .and_then(|_| self.open_without_links(Path::new("dev")))
                    .step(|| "open /dev".into())?,
            };
            devices::make(self, spec, &dev, bound, Path::new("/dev"))?;
        }
        if let Some(binary) = init_binary {
            let step = || "bind /sbin/docker-init".to_owned();
            let attr = MountAttr {
                set: Attr::MOUNT_ATTR_RDONLY | Attr::MOUNT_ATTR_NODEV,
                propagation: Some(Propagation::Private),
                ..MountAttr::default()
            };
            mount::set_attr(&binary, attr, false).step(step)?;
            let target = self.file(Path::new("sbin/docker-init")).step(step)?;
            mount::attach(&binary, &target).step(step)?;
        }
        Ok(null)
    }

    /// Makes one mount and returns its descriptor. An error's step is empty where the mount as
    /// such failed.
    fn mount(
        &mut self,
        spec: &Spec,
        planned: &Planned<'_>,
        place: &Path,
    ) -> Result<OwnedFd, Error> {
        let here = String::new;
        if let Some(tree) = &planned.tree {
            let target = if file_type(tree).step(here)? == FileType::Directory {
                self.directory(place).step(here)?
            } else {
                self.file(place).step(here)?
            };
            mount::attach(tree, &target).step(here)?;
            return rustix::io::fcntl_dupfd_cloexec(tree, 3).step(here);
        }
        let kind = planned.mount.kind.as_deref().unwrap_or_default();
        let options = &planned.options;
        if matches!(kind, "cgroup" | "cgroup2") {
            return self.mount_cgroups(spec, options, place);
        }
        // A tmpfs takes over the mode of what it covers.
        let covers =
            kind == "tmpfs" && options.value("mode").is_none() && self.has_something(place);
        let target = self.directory(place).step(here)?;
        let made = new_filesystem(planned, kind, covers.then_some(&target))?;
        if kind == "tmpfs" && options.copy_up {
            copyup::copy(&target, &made).step(here)?;
        }
        if let Some((propagation, recursive)) = options.propagation {
            let attr = MountAttr { propagation: Some(propagation), ..MountAttr::default() };
            mount::set_attr(&made, attr, recursive).step(here)?;
        }
        mount::attach(&made, &target).step(here)?;
        if kind == "tmpfs" && options.read_only() {
            self.late_read_only.push(rustix::io::fcntl_dupfd_cloexec(&made, 3).step(here)?);
        }
        Ok(made)
    }

    fn mount_cgroups(
        &mut self,
        spec: &Spec,
        options: &MountOptions,
        place: &Path,
    ) -> Result<OwnedFd, Error> {
        let here = String::new;
        let target = self.directory(place).step(here)?;
        let namespaced = spec.namespace(NamespaceKind::Cgroup).is_some();
        let mut attributes = options.attr.set;
        if !self.writable_cgroups {
            attributes |= Attr::MOUNT_ATTR_RDONLY;
        }
        let view = cgroupfs::view(namespaced, attributes)?;
        mount::attach(&view.top, &target).step(here)?;
        for (name, tree) in &view.parts {
            let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            let below = rustix::fs::openat(&view.top, name, flags, Mode::empty()).step(here)?;
            mount::attach(tree, &below).step(here)?;
        }
        if attributes.contains(Attr::MOUNT_ATTR_RDONLY) && !view.parts.is_empty() {
            mount::set_attr(&view.top, read_only(), false).step(here)?;
        }
        Ok(view.top)
    }

    /// Opens something in the root in whose name no link may be.
    pub(crate) fn open_without_links(&self, place: &Path) -> std::io::Result<OwnedFd> {
        path::open_in_root_no_links(&self.root, place, OFlags::PATH, Mode::empty())
    }

    /// Whether there is something at `place` already.
    fn has_something(&self, place: &Path) -> bool {
        path::open_in_root(&self.root, place, OFlags::PATH, Mode::empty()).is_ok()
    }

    /// The directory at `place`, made if it is missing.
    pub(crate) fn directory(&self, place: &Path) -> std::io::Result<OwnedFd> {
        if must_be_real(place) {
            // The image's `/proc` as a link would lead what is written there elsewhere.
            match self.open_without_links(place) {
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
                Err(error) if error.raw_os_error() == Some(libc::ELOOP) => {
                    return Err(std::io::Error::new(
                        std::io::ErrorKind::InvalidInput,
                        "what is mounted there must be mounted on ordinary directory",
                    ));
                }
                result => return result,
            }
            path::mkdir_all_in_root(&self.root, place, DIRECTORY_MODE)?;
            return self.open_without_links(place);
        }
        self.through_dangling_links(place, |place| {
            path::mkdir_all_in_root(&self.root, place, DIRECTORY_MODE)
        })
    }

    /// Tries an operation on `place`, and where a link on the way leads to nothing, on where it
    /// leads to, as seen from the root.
    fn through_dangling_links(
        &self,
        place: &Path,
        operation: impl Fn(&Path) -> std::io::Result<OwnedFd>,
    ) -> std::io::Result<OwnedFd> {
        let mut place = place.to_owned();
        for _ in 0..LINKS_MAX {
            match operation(&place) {
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                    place = self.behind_dangling_link(&place).ok_or(error)?;
                }
                result => return result,
            }
        }
        Err(Errno::LOOP.into())
    }

    /// The place with its first dangling link replaced by what it says.
    fn behind_dangling_link(&self, place: &Path) -> Option<PathBuf> {
        let mut parent = PathBuf::new();
        let mut rest = place.components();
        while let Some(component) = rest.next() {
            let name = component.as_os_str();
            let flags = OFlags::PATH | OFlags::DIRECTORY;
            let directory = path::open_in_root(&self.root, &parent, flags, Mode::empty()).ok()?;
            let here = parent.join(name);
            if let Ok(link) = rustix::fs::readlinkat(&directory, name, Vec::new())
                && path::open_in_root(&self.root, &here, OFlags::PATH, Mode::empty()).is_err()
            {
                let target = Path::new(std::ffi::OsStr::from_bytes(link.as_bytes()));
                return Some(clean(parent.join(target)).join(rest.as_path()));
            }
            parent = here;
        }
        None
    }

    /// What is at `place` and not a directory, or a new empty file there.
    pub(crate) fn file(&self, place: &Path) -> std::io::Result<OwnedFd> {
        match path::open_in_root(&self.root, place, OFlags::PATH, Mode::empty()) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
            result => return result,
        }
        if let Some(parent) = place.parent() {
            self.directory(parent)?;
        }
        self.through_dangling_links(place, |place| {
            let flags = OFlags::CREATE | OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY;
            let made = path::open_in_root(&self.root, place, flags, DIRECTORY_MODE)?;
            if file_type(&made)? == FileType::RegularFile {
                Ok(made)
            } else {
                Err(std::io::Error::from(Errno::EXIST))
            }
        })
    }

    /// Hides the masked paths and write-protects the read-only ones. `null` is the host's null
    /// device, so nothing in the container can stand in for it.
    pub(crate) fn protect(&self, spec: &Spec, null: &OwnedFd) -> Result<(), Error> {
        let Some(linux) = &spec.linux else { return Ok(()) };
        for name in &linux.readonly_paths {
            let step = || format!("make {name} read-only");
            let Some(found) = self.find(name, step)? else { continue };
            let tree = mount::bind_clone_fd(&found, true).step(step)?;
            let private =
                MountAttr { propagation: Some(Propagation::Private), ..MountAttr::default() };
            mount::set_attr(&tree, private, true).step(step)?;
            mount::set_attr(&tree, read_only(), false).step(step)?;
            mount::attach(&tree, &found).step(step)?;
        }
        // Each cover is attached once; then it is in this namespace and can be copied.
        let (mut empty, mut null_attached): (Option<OwnedFd>, bool) = (None, false);
        for name in &linux.masked_paths {
            let step = || format!("mask {name}");
            let Some(found) = self.find(name, step)? else { continue };
            if file_type(&found).step(step)? != FileType::Directory {
                if null_attached {
                    let copy = mount::bind_clone_fd(null, false).step(step)?;
                    mount::attach(&copy, &found).step(step)?;
                } else {
                    mount::attach(null, &found).step(step)?;
                    null_attached = true;
                }
            } else if let Some(first) = &empty {
                let copy = mount::bind_clone_fd(first, false).step(step)?;
                mount::attach(&copy, &found).step(step)?;
            } else {
                let first = empty_directory().step(step)?;
                mount::attach(&first, &found).step(step)?;
                empty = Some(first);
            }
        }
        Ok(())
    }

    /// What a path to protect leads to; nothing if it does not exist. What is named in procfs
    /// or sysfs must be there.
    fn find(&self, name: &str, step: impl Fn() -> String) -> Result<Option<OwnedFd>, Error> {
        let found = match path::open_in_root(&self.root, name, OFlags::PATH, Mode::empty()) {
            Ok(found) => found,
            Err(error) if matches!(error.raw_os_error(), Some(libc::ENOENT | libc::ENOTDIR)) => {
                return Ok(None);
            }
            Err(error) => return Err(Error::step(step(), error)),
        };
        Ok(Some(found))
    }

    /// Whether `/proc` and `/sys` are what they seem, where the configuration mounts them.
    pub(crate) fn verify(&self, spec: &Spec) -> Result<(), Error> {
        for (place, kind, magic) in
            [("proc", "proc", PROC_SUPER_MAGIC), ("sys", "sysfs", SYSFS_MAGIC)]
        {
            let mounted = spec.mounts.iter().any(|mount| {
                mount.kind.as_deref() == Some(kind) && clean(&mount.destination) == Path::new(place)
            });
            if !mounted {
                continue;
            }
            let step = || format!("verify /{place}");
            let found = self.open_without_links(Path::new(place)).step(step)?;
            if filesystem(&found).step(step)? != magic {
                return Err(Error::invalid(format!("/{place} is not what was mounted there")));
            }
        }
        Ok(())
    }

    /// Makes the root the root of this process and lets go of the host's tree.
    pub(crate) fn enter(&self, spec: &Spec, no_pivot: bool) -> Result<(), Error> {
        for made in &self.late_read_only {
            mount::set_attr(made, read_only(), false).step(|| "protect mounts".into())?;
        }
        if spec.root.as_ref().is_some_and(|root| root.readonly) {
            mount::set_attr(&self.root, read_only(), false).step(|| "protect root".into())?;
        }
        let step = || "pivot_root".to_owned();
        rustix::process::fchdir(&self.root).step(step)?;
        if no_pivot {
            let flags = rustix::mount::MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH;
            let cwd = rustix::fs::CWD;
            rustix::mount::move_mount(&self.root, c"", cwd, c"/", flags).step(step)?;
            rustix::process::chroot(c".").step(step)?;
        } else if spec.namespace(NamespaceKind::Mount).is_none() {
            // The tree is the host's and stays so.
            rustix::process::chroot(c".").step(step)?;
        } else {
            // With both names the same the old root ends up on top of the new one at `/`, and
            // the next call takes it off again.
            rustix::process::pivot_root(c".", c".").step(step)?;
            mount::detach_cwd().step(|| "detach the host's tree".into())?;
        }
        rustix::process::chdir(c"/").step(step)?;
        if let Some(propagation) = root_propagation(spec)? {
            let attr = MountAttr { propagation: Some(propagation), ..MountAttr::default() };
            mount::set_attr(&self.root, attr, false).step(|| "set rootfsPropagation".into())?;
        }
        Ok(())
    }
}

/// A file system that has nothing and takes nothing.
fn empty_directory() -> std::io::Result<OwnedFd> {
    let attributes = Attr::MOUNT_ATTR_RDONLY
        | Attr::MOUNT_ATTR_NOSUID
        | Attr::MOUNT_ATTR_NODEV
        | Attr::MOUNT_ATTR_NOEXEC;
    let settings = [Setting::String("mode", "755"), Setting::String("nr_inodes", "2")];
    mount::new_filesystem("tmpfs", Some(Path::new("tmpfs")), &settings, attributes)
}

pub(crate) fn read_only() -> MountAttr {
    MountAttr { set: Attr::MOUNT_ATTR_RDONLY, ..MountAttr::default() }
}

/// Whether nothing in the name of this place may be a link.
fn must_be_real(place: &Path) -> bool {
    let mut components = place.components();
    matches!(
        components.next(),
        Some(Component::Normal(first)) if first == "proc" || first == "sys" || first == "dev"
    )
}

fn mount_step(planned: &Planned<'_>) -> String {
    let source = planned.mount.source.as_deref().unwrap_or(Path::new(""));
    let destination = planned.mount.destination.display();
    format!("mount \"{}\" to \"{destination}\" in root", source.display())
}

/// Refuses what would hide the kernel's own file systems from us: only procfs goes to `/proc`,
/// and only known files of it are replaced.
fn check_place(planned: &Planned<'_>, place: &Path) -> Result<(), Error> {
    let shown = planned.mount.destination.display();
    if place == Path::new("") {
        return Err(Error::invalid(format!("mount at {shown:?} would replace the root")));
    }
    let kind = planned.mount.kind.as_deref().unwrap_or_default();
    if !place.starts_with("proc") {
        return Ok(());
    }
    let bound = match &planned.tree {
        Some(tree) => filesystem(tree).step(|| mount_step(planned))?,
        None => 0,
    };
    if place == Path::new("proc") {
        if kind == "proc" && planned.tree.is_none() || bound == PROC_SUPER_MAGIC {
            return Ok(());
        }
    } else if REPLACEABLE.iter().any(|replaceable| place == Path::new(replaceable)) {
        return Ok(());
    }
    Err(Error::invalid(format!("\"{shown}\" cannot be mounted because it is inside /proc")))
}

/// A new file system with its options, and the mode of `covered`.
fn new_filesystem(
    planned: &Planned<'_>,
    kind: &str,
    covered: Option<&OwnedFd>,
) -> Result<OwnedFd, Error> {
    let here = String::new;
    let options = &planned.options;
    if kind.is_empty() {
        return Err(Error::invalid(format!("{} has no type", mount_step(planned))));
    }
    if kind == "overlay" {
        return overlay(options).map_err(|error| Error::step(here(), error));
    }
    let mut data = options.data.clone();
    if let Some(covered) = covered {
        let mode = rustix::fs::fstat(covered).step(here)?.st_mode & 0o7777;
        data.push(("mode".into(), Some(format!("{mode:o}"))));
    }
    let mut attributes = options.attr.set;
    match kind {
        "tmpfs" => attributes -= Attr::MOUNT_ATTR_RDONLY,
        "proc" | "sysfs" | "mqueue" | "devpts" | "cgroup" | "cgroup2" => {}
        _ if options.read_only() => data.push(("ro".into(), None)),
        _ => {}
    }
    let settings: Vec<Setting<'_>> = data
        .iter()
        .map(|(key, value)| match value {
            Some(value) => Setting::String(key, value),
            None => Setting::Flag(key),
        })
        .collect();
    let source = planned.mount.source.as_deref();
    let made = mount::new_filesystem(kind, source, &settings, attributes).step(here)?;
    mount::set_attr(&made, options.recursive, true).step(here)?;
    Ok(made)
}

/// An overlay given as a mount of the configuration.
fn overlay(options: &MountOptions) -> std::io::Result<OwnedFd> {
    let mut rest = Vec::new();
    let mut lowers: Vec<PathBuf> = Vec::new();
    for (key, value) in &options.data {
        match (key.as_str(), value) {
            ("lowerdir", Some(value)) => lowers = split_layers(value),
            ("upperdir" | "workdir", _) => {}
            (key, value) => rest.push((key, value.as_deref())),
        }
    }
    let lowers: Vec<&Path> = lowers.iter().map(PathBuf::as_path).collect();
    let upper = options.value("upperdir").map(Path::new);
    let work = options.value("workdir").map(Path::new);
    if let Some(work) = work.filter(|_| rest.iter().any(|(key, _)| *key == "volatile")) {
        // Left by the mount before, and refused by this one.
        mount::forget_volatile(work)?;
    }
    let made = mount::overlay(&lowers, upper.zip(work), &rest)?;
    mount::set_attr(&made, options.attr, false)?;
    Ok(made)
}

/// Splits at colons that no backslash protects.
fn split_layers(list: &str) -> Vec<PathBuf> {
    let mut layers = vec![String::new()];
    let mut characters = list.chars();
    while let Some(character) = characters.next() {
        let last = layers.len() - 1;
        match character {
            '\\' => layers[last].extend(characters.next()),
            ':' => layers.push(String::new()),
            other => layers[last].push(other),
        }
    }
    layers.into_iter().filter(|layer| !layer.is_empty()).map(PathBuf::from).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn layers_are_split_at_free_colons() {
        assert_eq!(split_layers("/a:/b\\:c:/d"), ["/a", "/b:c", "/d"].map(PathBuf::from));
    }

    #[test]
    fn kernel_places_are_real() {
        assert!(must_be_real(Path::new("proc/x")));
        assert!(must_be_real(Path::new("dev")));
        assert!(!must_be_real(Path::new("processes")));
        assert!(!must_be_real(Path::new("var/dev")));
    }
}
