//! Kernel parameters of the container's namespaces.

use std::os::fd::OwnedFd;

use rustix::fs::{Mode, OFlags};
use silo_oci::runtime::{NamespaceKind, Spec};

use crate::error::{Context as _, Error};

/// The path beneath `/proc/sys` of a parameter that belongs to one of the container's own
/// namespaces; refuses every other.
fn path(spec: &Spec, name: &str) -> Result<String, Error> {
    let refuse = |why: &str| Err(Error::invalid(format!("sysctl {name:?} {why}")));
    // `/` separates too, and then a dot is part of a name (as that of a VLAN's interface).
    let slash_first =
        name.find('/').is_some_and(|slash| name.find('.').is_none_or(|dot| slash < dot));
    let path: String = name
        .chars()
        .map(|character| match (character, slash_first) {
            ('.', false) => '/',
            ('/', false) => '.',
            (other, _) => other,
        })
        .collect();
    let plain = |part: &str| {
        !part.is_empty()
            && part != "."
            && part != ".."
            && part.chars().all(|c| c.is_ascii_alphanumeric() || "._-@:".contains(c))
    };
    if !path.split('/').all(plain) {
        return refuse("is not a name");
    }
    let has = |kind| spec.namespace(kind).is_some();
    let ipc = matches!(
        path.as_str(),
        "kernel/msgmax"
            | "kernel/msgmnb"
            | "kernel/msgmni"
            | "kernel/sem"
            | "kernel/shmall"
            | "kernel/shmmax"
            | "kernel/shmmni"
            | "kernel/shm_rmid_forced"
    ) || path.starts_with("fs/mqueue/");
    if ipc {
        return if has(NamespaceKind::Ipc) { Ok(path) } else { refuse("needs an ipc namespace") };
    }
    if path.starts_with("net/") {
        return if has(NamespaceKind::Network) {
            Ok(path)
        } else {
            refuse("needs a network namespace")
        };
    }
    match path.as_str() {
        "kernel/domainname" if has(NamespaceKind::Uts) => Ok(path),
        "kernel/hostname" => refuse("is set by hostname"),
        _ if path.starts_with("user/") && has(NamespaceKind::User) => Ok(path),
        _ => refuse("is not in a separate kernel namespace"),
    }
}

/// Whether every parameter may be set.
pub(crate) fn check(spec: &Spec) -> Result<(), Error> {
    for name in spec.linux.iter().flat_map(|linux| linux.sysctl.keys()) {
        path(spec, name)?;
    }
    Ok(())
}

/// Sets them, through `proc`, a verified procfs; in the namespaces of the calling process.
pub(crate) fn apply(spec: &Spec, proc: &OwnedFd) -> Result<(), Error> {
    for (name, value) in spec.linux.iter().flat_map(|linux| &linux.sysctl) {
        let step = || format!("set sysctl {name}");
        let path = format!("sys/{}", path(spec, name)?);
        let file = silo_sys::path::open_in_root_no_links(proc, path, OFlags::WRONLY, Mode::empty())
            .step(step)?;
        if crate::rootfs::filesystem(&file).step(step)? != 0x9fa0 {
            return Err(Error::invalid(format!("sysctl {name} is not in procfs")));
        }
        if rustix::io::write(&file, value.as_bytes()).step(step)? != value.len() {
            return Err(Error::invalid(format!("sysctl {name} takes no such value")));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_own_namespaces() {
        let spec = Spec::from_json(
            br#"{"ociVersion":"1.2.0","linux":{"namespaces":[{"type":"ipc"},{"type":"network"},
            {"type":"uts"}]}}"#,
        )
        .unwrap();
        let allowed = [
            ("net.ipv4.ip_forward", "net/ipv4/ip_forward"),
            ("net/ipv4/conf/eth0.100/forwarding", "net/ipv4/conf/eth0.100/forwarding"),
            ("net.ipv4.conf.eth0/100.forwarding", "net/ipv4/conf/eth0.100/forwarding"),
            ("kernel.shmmax", "kernel/shmmax"),
            ("fs.mqueue.msg_max", "fs/mqueue/msg_max"),
        ];
        for (name, expected) in allowed {
            assert_eq!(path(&spec, name).unwrap(), expected);
        }
        for name in [
            "kernel.core_pattern",
            "kernel.shmmax+x",
            "net.ipv4.ip_forward=1+kernel.core_pattern",
            "net.../../kernel/core_pattern",
            "net/../kernel/core_pattern",
            "net.ipv4..x",
            "kernel.hostname",
            "vm.swappiness",
            "",
        ] {
            assert!(path(&spec, name).is_err(), "{name}");
        }
        let none = Spec::default();
        assert!(path(&none, "net.ipv4.ip_forward").is_err());
        assert!(path(&none, "kernel.shmmax").is_err());
    }
}
