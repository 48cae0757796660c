//! The container's view of its cgroup, for a mount of type `cgroup` or `cgroup2`.
//!
//! Where the host has one hierarchy of version 2, that is mounted. Where it has hierarchies of
//! version 1, a small tmpfs holds one directory for each, and links for the names of joint
//! controllers. Without a cgroup namespace, directories of the host are bound.

use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use rustix::fs::Mode;
use rustix::mount::MountAttrFlags;
use silo_sys::mount::{self, MountAttr, Propagation, Setting};

use crate::error::{Context as _, Error};

/// A mounted hierarchy of version 1.
#[derive(Debug, PartialEq)]
struct Hierarchy {
    mountpoint: PathBuf,
    /// The directory of the hierarchy that is mounted there.
    root: PathBuf,
    /// The controllers, or `name=...`.
    options: Vec<String>,
}

/// What is attached for a mount of cgroups, all detached as yet.
#[derive(Debug)]
pub(crate) struct View {
    /// What goes to the destination itself.
    pub(crate) top: OwnedFd,
    /// What goes to directories in it, by their names.
    pub(crate) parts: Vec<(String, OwnedFd)>,
}

/// Makes the view of the calling process's cgroup. `top` of a view with parts is not yet
/// read-only, so that links and directories can be made in it.
pub(crate) fn view(namespaced: bool, attributes: MountAttrFlags) -> Result<View, Error> {
    let read = |path: &str| fs_err::read_to_string(path).step(|| "read cgroups".into());
    let own = read("/proc/self/cgroup")?;
    let hierarchies = hierarchies(&read("/proc/self/mountinfo")?);
    if hierarchies.is_empty() {
        return Ok(View { top: unified(namespaced, &own, attributes)?, parts: Vec::new() });
    }
    let top = mount::new_filesystem(
        "tmpfs",
        Some(Path::new("tmpfs")),
        &[Setting::String("mode", "755")],
        attributes - MountAttrFlags::MOUNT_ATTR_RDONLY,
    )
    .step(|| "mount cgroup tmpfs".into())?;
    let mut parts = Vec::new();
    for hierarchy in hierarchies {
        let Some(path) = own_path(&own, &hierarchy.options) else { continue };
        let name = directory_name(&hierarchy);
        let step = || format!("mount cgroup {name}");
        let tree = if namespaced {
            let mut settings = Vec::new();
            for option in &hierarchy.options {
                match option.split_once('=') {
                    Some((key, value)) => {
                        settings.push(Setting::Flag("none"));
                        settings.push(Setting::String(key, value));
                    }
                    None => settings.push(Setting::Flag(option)),
                }
            }
            mount::new_filesystem("cgroup", Some(Path::new("cgroup")), &settings, attributes)
                .step(step)?
        } else {
            let below = path.strip_prefix(&hierarchy.root).unwrap_or(&path);
            let below = below.strip_prefix("/").unwrap_or(below);
            bind(&hierarchy.mountpoint.join(below), attributes).step(step)?
        };
        rustix::fs::mkdirat(&top, &name, Mode::from_raw_mode(0o755)).step(step)?;
        if hierarchy.options.len() > 1 {
            for option in hierarchy.options.iter().filter(|option| **option != name) {
                rustix::fs::symlinkat(name.as_str(), &top, option.as_str()).step(step)?;
            }
        }
        parts.push((name, tree));
    }
    Ok(View { top, parts })
}

fn bind(path: &Path, attributes: MountAttrFlags) -> std::io::Result<OwnedFd> {
    let tree = mount::bind_clone(path, false)?;
    let attr = MountAttr {
        set: attributes,
        propagation: Some(Propagation::Private),
        ..MountAttr::default()
    };
    mount::set_attr(&tree, attr, false)?;
    Ok(tree)
}

fn unified(namespaced: bool, own: &str, attributes: MountAttrFlags) -> Result<OwnedFd, Error> {
    let step = || "mount cgroup2".into();
    if namespaced {
        let settings = [Setting::Flag("nsdelegate")];
        return mount::new_filesystem("cgroup2", Some(Path::new("cgroup")), &settings, attributes)
            .or_else(|_| {
                mount::new_filesystem("cgroup2", Some(Path::new("cgroup")), &[], attributes)
            })
            .step(step);
    }
    let path = own_path(own, &[]).unwrap_or_default();
    let below = path.strip_prefix("/").unwrap_or(&path);
    bind(&Path::new("/sys/fs/cgroup").join(below), attributes).step(step)
}

fn directory_name(hierarchy: &Hierarchy) -> String {
    hierarchy
        .mountpoint
        .file_name()
        .map_or_else(|| hierarchy.options.join(","), |name| name.to_string_lossy().into_owned())
}

/// The mounted hierarchies of version 1, each once, in the order of mounting.
fn hierarchies(mountinfo: &str) -> Vec<Hierarchy> {
    let mut found: Vec<Hierarchy> = Vec::new();
    for line in mountinfo.lines() {
        let Some((left, right)) = line.split_once(" - ") else { continue };
        let mut right = right.split(' ');
        if right.next() != Some("cgroup") {
            continue;
        }
        let options = right.nth(1).unwrap_or("");
        let mut options: Vec<String> = options
            .split(',')
            .filter(|option| !matches!(*option, "rw" | "ro" | "xattr" | "none" | "noprefix"))
            .filter(|option| !option.starts_with("release_agent="))
            .filter(|option| !matches!(*option, "clone_children" | "cpuset_v2_mode"))
            .map(ToOwned::to_owned)
            .collect();
        if options.len() > 1 && options.iter().any(|option| option.starts_with("name=")) {
            options.retain(|option| option.starts_with("name="));
        }
        let mut left = left.split(' ').skip(3);
        let (Some(root), Some(mountpoint)) = (left.next(), left.next()) else { continue };
        if options.is_empty() || found.iter().any(|other| other.options == options) {
            continue;
        }
        found.push(Hierarchy { mountpoint: mountpoint.into(), root: root.into(), options });
    }
    found
}

/// The path in `/proc/self/cgroup` of the hierarchy with these controllers; of version 2 for
/// none.
fn own_path(own: &str, options: &[String]) -> Option<PathBuf> {
    own.lines().find_map(|line| {
        let mut fields = line.splitn(3, ':').skip(1);
        let names = fields.next()?;
        let mut names: Vec<&str> = names.split(',').filter(|name| !name.is_empty()).collect();
        let mut wanted: Vec<&str> = options.iter().map(String::as_str).collect();
        names.sort_unstable();
        wanted.sort_unstable();
        (names == wanted).then(|| PathBuf::from(fields.next().unwrap_or("/")))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const MOUNTS: &str = "\
30 24 0:26 / /sys/fs/cgroup rw - tmpfs tmpfs rw
31 30 0:27 / /sys/fs/cgroup/cpu,cpuacct rw,relatime shared:9 - cgroup cgroup rw,cpu,cpuacct
32 30 0:28 / /sys/fs/cgroup/systemd rw - cgroup cgroup rw,xattr,release_agent=/x,name=systemd
33 30 0:29 /docker/x /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory
34 30 0:30 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw
";

    #[test]
    fn hierarchies_are_found() {
        let found = hierarchies(MOUNTS);
        let options: Vec<_> = found.iter().map(|hierarchy| hierarchy.options.join("+")).collect();
        assert_eq!(options, ["cpu+cpuacct", "name=systemd", "memory"]);
        assert_eq!(found[2].root, Path::new("/docker/x"));
    }

    #[test]
    fn own_paths_are_found() {
        let own = "3:cpuacct,cpu:/a\n2:name=systemd:/b:c\n0::/u\n";
        let path = |options: &[&str]| {
            own_path(own, &options.iter().map(ToString::to_string).collect::<Vec<_>>())
        };
        assert_eq!(path(&["cpu", "cpuacct"]), Some("/a".into()));
        assert_eq!(path(&["name=systemd"]), Some("/b:c".into()));
        assert_eq!(path(&[]), Some("/u".into()));
        assert_eq!(path(&["memory"]), None);
    }
}
