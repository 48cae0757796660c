//! Device nodes and the links of `/dev`.

use std::os::fd::OwnedFd;
use std::path::Path;

use rustix::fs::{AtFlags, Dev, FileType, Gid, Mode, OFlags, Uid};
use rustix::io::Errno;
use silo_oci::runtime::{LinuxDevice, Spec};
use silo_sys::mount;
use silo_sys::path::clean;

use crate::error::{Context as _, Error};
use crate::rootfs::Furnished;
use crate::sources::{all_devices, device_type, file_type};

const LINKS: &[(&str, &str)] = &[
    ("fd", "/proc/self/fd"),
    ("stdin", "/proc/self/fd/0"),
    ("stdout", "/proc/self/fd/1"),
    ("stderr", "/proc/self/fd/2"),
    ("ptmx", "pts/ptmx"),
];

/// Makes the devices and links in `dev`, the directory that the container has at `/dev`.
/// `bound` are mounts of the devices, in their order, where none can be made.
pub(crate) fn make(
    root: &Furnished,
    spec: &Spec,
    dev: &OwnedFd,
    bound: Vec<OwnedFd>,
    dev_path: &Path,
) -> Result<(), Error> {
    // The node's permissions are exactly those asked for.
    let old_mask = rustix::process::umask(Mode::empty());
    let mut bound = bound.into_iter();
    for device in all_devices(spec) {
        let step = || format!("make device {}", device.path.display());
        if let Some(tree) = bound.next() {
            let target = root.file(&clean(&device.path)).step(step)?;
            mount::attach(&tree, &target).step(step)?;
            continue;
        }
        let direct = device
            .path
            .strip_prefix(dev_path)
            .ok()
            .filter(|name| name.components().count() == 1)
            .map(Path::as_os_str);
        if let Some(name) = direct {
            node(dev, name, &device)?;
        } else {
            let place = clean(&device.path);
            let (Some(parent), Some(name)) = (place.parent(), place.file_name()) else {
                let shown = device.path.display();
                return Err(Error::invalid(format!("device {shown} has no name")));
            };
            let parent = root.directory(parent).step(step)?;
            node(&parent, name, &device)?;
        }
    }
    rustix::process::umask(old_mask);
    for (name, target) in LINKS {
        link(dev, name, target)?;
    }
    Ok(())
}

/// Makes one node. If there is one, it must be the same device.
fn node(directory: &OwnedFd, name: &std::ffi::OsStr, device: &LinuxDevice) -> Result<(), Error> {
    let step = || format!("make device {}", device.path.display());
    let kind = device_type(device)?;
    let number = |number: i64| {
        u32::try_from(number).map_err(|_| {
            Error::invalid(format!("device {} has an impossible number", device.path.display()))
        })
    };
    let number: Dev = if kind == FileType::Fifo {
        0
    } else {
        rustix::fs::makedev(number(device.major)?, number(device.minor)?)
    };
    let mode = Mode::from_raw_mode(device.file_mode.unwrap_or(0o666) & 0o7777);
    match rustix::fs::mknodat(directory, name, kind, mode, number) {
        Ok(()) => {}
        Err(Errno::EXIST) => {
            let stat = rustix::fs::statat(directory, name, AtFlags::SYMLINK_NOFOLLOW).step(step)?;
            if FileType::from_raw_mode(stat.st_mode) != kind || stat.st_rdev != number {
                return Err(Error::step(step(), Errno::EXIST));
            }
        }
        Err(error) => return Err(Error::step(step(), error)),
    }
    let (uid, gid) = (device.uid.unwrap_or(0), device.gid.unwrap_or(0));
    if uid != 0 || gid != 0 {
        let owner = (Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid)));
        rustix::fs::chownat(directory, name, owner.0, owner.1, AtFlags::SYMLINK_NOFOLLOW)
            .step(step)?;
    }
    Ok(())
}

/// Makes a link; what the image has there instead is left alone, but for `ptmx`, which must
/// lead to the container's own terminals.
fn link(dev: &OwnedFd, name: &str, target: &str) -> Result<(), Error> {
    let step = || format!("make link /dev/{name}");
    match rustix::fs::symlinkat(target, dev, name) {
        Ok(()) => Ok(()),
        Err(Errno::EXIST) if name == "ptmx" => {
            if rustix::fs::readlinkat(dev, name, Vec::new())
                .is_ok_and(|old| old.as_bytes() == target.as_bytes())
            {
                return Ok(());
            }
            rustix::fs::unlinkat(dev, name, AtFlags::empty()).step(step)?;
            rustix::fs::symlinkat(target, dev, name).step(step)
        }
        Err(Errno::EXIST | Errno::ROFS) => Ok(()),
        Err(error) => Err(Error::step(step(), error)),
    }
}

/// Binds a terminal's device to `/dev/console`.
pub(crate) fn bind_console(root: &Furnished, terminal: &OwnedFd) -> Result<(), Error> {
    let step = || "bind /dev/console".to_owned();
    let dev = root.open_without_links(Path::new("dev")).step(step)?;
    let flags = OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let target = match rustix::fs::openat(&dev, "console", flags | OFlags::PATH, Mode::empty()) {
        Err(Errno::NOENT) => {
            let flags = flags | OFlags::CREATE | OFlags::EXCL | OFlags::RDONLY;
            rustix::fs::openat(&dev, "console", flags, Mode::from_raw_mode(0o666)).step(step)?
        }
        result => result.step(step)?,
    };
    if file_type(&target).step(step)? == FileType::Symlink {
        return Err(Error::invalid("/dev/console is a symbolic link"));
    }
    let tree = mount::bind_clone_fd(terminal, false).step(step)?;
    mount::attach(&tree, &target).step(step)
}
