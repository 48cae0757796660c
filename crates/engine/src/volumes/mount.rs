//! Mounts of volumes with options: what `mount -t type -o o device` would do.

use std::collections::BTreeMap;
use std::ffi::CString;
use std::io;
use std::net::ToSocketAddrs;
use std::path::Path;

use rustix::fs::{AtFlags, CWD, StatxAttributes, StatxFlags};
use rustix::mount::{MountFlags, UnmountFlags};

/// What is to be mounted.
#[derive(Debug)]
pub(super) struct Plan {
    kind: String,
    pub(super) device: String,
    pub(super) flags: MountFlags,
    pub(super) data: String,
    bind: bool,
}

impl Plan {
    /// Reads the options `type`, `device` and `o` of a volume.
    pub(super) fn read(options: &BTreeMap<String, String>) -> Result<Self, String> {
        let get = |name: &str| options.get(name).map(String::as_str).unwrap_or_default();
        let (mut flags, mut data, mut bind) = (MountFlags::empty(), Vec::new(), false);
        for option in get("o").split(',').filter(|option| !option.is_empty()) {
            match option {
                "defaults" | "rw" | "suid" | "dev" | "exec" | "async" | "atime" | "diratime" => {}
                "ro" => flags |= MountFlags::RDONLY,
                "nosuid" => flags |= MountFlags::NOSUID,
                "nodev" => flags |= MountFlags::NODEV,
                "noexec" => flags |= MountFlags::NOEXEC,
                "sync" => flags |= MountFlags::SYNCHRONOUS,
                "dirsync" => flags |= MountFlags::DIRSYNC,
                "noatime" => flags |= MountFlags::NOATIME,
                "nodiratime" => flags |= MountFlags::NODIRATIME,
                "relatime" => flags |= MountFlags::RELATIME,
                "strictatime" => flags |= MountFlags::STRICTATIME,
                "bind" | "rbind" => bind = true,
                other => data.push(other),
            }
        }
        let (kind, device) = (get("type").to_owned(), get("device").to_owned());
        if bind && !device.starts_with('/') {
            return Err(format!("device of a bind must be an absolute path: {device:?}"));
        }
        if [&kind, &device, &data.join(",")].iter().any(|text| text.contains('\0')) {
            return Err("option contains a zero byte".into());
        }
        Ok(Self { kind, device, flags, data: data.join(","), bind })
    }

    /// Does it only stand for another path?
    pub(super) fn is_bind(&self) -> bool {
        self.bind
    }

    /// Mounts it over a directory.
    pub(super) fn mount(&self, target: &Path) -> io::Result<()> {
        let data = CString::new(resolve_address(&self.kind, &self.data)?)?;
        rustix::mount::mount(
            self.device.as_str(),
            target,
            self.kind.as_str(),
            self.flags,
            Some(data.as_c_str()),
        )?;
        Ok(())
    }
}

/// Network file systems take addresses only, people write host names.
fn resolve_address(kind: &str, data: &str) -> io::Result<String> {
    if !matches!(kind, "nfs" | "nfs4" | "cifs") {
        return Ok(data.to_owned());
    }
    let mut options = Vec::new();
    for option in data.split(',') {
        match option.strip_prefix("addr=") {
            Some(host) if host.parse::<std::net::IpAddr>().is_err() => {
                let address = (host, 0).to_socket_addrs()?.next().ok_or_else(|| {
                    io::Error::new(io::ErrorKind::NotFound, format!("no address for {host}"))
                })?;
                options.push(format!("addr={}", address.ip()));
            }
            _ => options.push(option.to_owned()),
        }
    }
    Ok(options.join(","))
}

/// Is something mounted over the directory?
pub(super) fn is_mounted(path: &Path) -> io::Result<bool> {
    let flags = AtFlags::SYMLINK_NOFOLLOW | AtFlags::NO_AUTOMOUNT;
    let stat = rustix::fs::statx(CWD, path, flags, StatxFlags::empty())?;
    Ok(stat.stx_attributes.contains(StatxAttributes::MOUNT_ROOT))
}

/// Unmounts whatever is mounted over the directory.
pub(super) fn detach(path: &Path) -> io::Result<()> {
    match is_mounted(path) {
        Ok(true) => {
            Ok(rustix::mount::unmount(path, UnmountFlags::DETACH | UnmountFlags::NOFOLLOW)?)
        }
        Ok(false) => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error),
    }
}
