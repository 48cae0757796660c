//! Which namespaces a container makes and which it joins.

use std::os::fd::OwnedFd;

use rustix::fs::{CWD, Mode, OFlags};
use rustix::thread::LinkNameSpaceType as Link;
use silo_oci::runtime::{NamespaceKind, Spec};
use silo_sys::{namespace, process};

use crate::error::{Context as _, Error};

/// An existing namespace to join.
#[derive(Debug)]
pub(crate) struct Join {
    kind: NamespaceKind,
    fd: OwnedFd,
}

impl Join {
    pub(crate) fn enter(&self) -> Result<(), Error> {
        let kind = match self.kind {
            NamespaceKind::Pid => Link::ProcessID,
            NamespaceKind::Network => Link::Network,
            NamespaceKind::Mount => Link::Mount,
            NamespaceKind::Ipc => Link::InterProcessCommunication,
            NamespaceKind::Uts => Link::HostNameAndNISDomainName,
            NamespaceKind::User => Link::User,
            NamespaceKind::Cgroup => Link::ControlGroup,
            NamespaceKind::Time => Link::Time,
        };
        namespace::join(&self.fd, kind).step(|| format!("join {:?} namespace", self.kind))
    }
}

/// The namespaces of a container.
#[derive(Debug)]
pub(crate) struct Namespaces {
    /// Flags for those that are new from the process's first moment. A new cgroup namespace
    /// is made when the process is in its cgroup, a new time namespace when its clocks are set.
    pub(crate) new: u64,
    /// Flags for those that are new once the process has its ids.
    pub(crate) later: u64,
    /// Those to join, a user namespace first.
    pub(crate) joins: Vec<Join>,
    /// Whether they have to be joined before the process is made, by a process in between.
    pub(crate) join_first: bool,
}

impl Namespaces {
    /// Reads the configuration; `netns` stands in for its network namespace.
    pub(crate) fn new(spec: &Spec, netns: Option<OwnedFd>) -> Result<Self, Error> {
        let mut new = 0;
        let mut joins = Vec::new();
        let mut seen = Vec::new();
        let namespaces = spec.linux.as_ref().map_or(&[][..], |linux| &linux.namespaces);
        for wanted in namespaces {
            if seen.contains(&wanted.kind) {
                return Err(Error::invalid(format!("linux.namespaces: {:?} twice", wanted.kind)));
            }
            seen.push(wanted.kind);
            if wanted.kind == NamespaceKind::Network && netns.is_some() {
                continue;
            }
            let Some(path) = wanted.path.as_deref().filter(|path| !path.as_os_str().is_empty())
            else {
                new |= match wanted.kind {
                    NamespaceKind::Pid => process::NEW_PID,
                    NamespaceKind::Network => process::NEW_NETWORK,
                    NamespaceKind::Mount => process::NEW_MOUNT,
                    NamespaceKind::Ipc => process::NEW_IPC,
                    NamespaceKind::Uts => process::NEW_UTS,
                    NamespaceKind::User => process::NEW_USER,
                    NamespaceKind::Cgroup | NamespaceKind::Time => 0,
                };
                continue;
            };
            if !path.is_absolute() {
                return Err(Error::invalid(format!(
                    "linux.namespaces: the path {} is not absolute",
                    path.display()
                )));
            }
            let step = || format!("open namespace {}", path.display());
            let fd = rustix::fs::openat(CWD, path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())
                .step(step)?;
            joins.push(Join { kind: wanted.kind, fd });
        }
        joins.extend(netns.map(|fd| Join { kind: NamespaceKind::Network, fd }));
        joins.sort_by_key(|join| join.kind != NamespaceKind::User);
        // Message queues belong to whom the maker of their namespace is then.
        let later = if new & process::NEW_USER == 0 { 0 } else { new & process::NEW_IPC };
        new &= !later;
        let joins_any = |kind| joins.iter().any(|join: &Join| join.kind == kind);
        let join_first = joins_any(NamespaceKind::Pid)
            || joins_any(NamespaceKind::User)
            || (new & process::NEW_USER != 0 && !joins.is_empty());
        Ok(Self { new, later, joins, join_first })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn namespaces(json: &str) -> Result<Namespaces, Error> {
        let json = format!(r#"{{"ociVersion":"1.2.0","linux":{{"namespaces":{json}}}}}"#);
        Namespaces::new(&Spec::from_json(json.as_bytes()).unwrap(), None)
    }

    #[test]
    fn new_and_joined() {
        let found = namespaces(
            r#"[{"type":"mount"},{"type":"pid"},{"type":"network","path":"/proc/self/ns/net"}]"#,
        )
        .unwrap();
        assert_eq!(found.new, process::NEW_MOUNT | process::NEW_PID);
        assert_eq!(found.joins.len(), 1);
        assert!(!found.join_first);
    }

    #[test]
    fn impossible_sets_are_refused() {
        for json in [
            r#"[{"type":"mount"},{"type":"mount"}]"#,
            r#"[{"type":"mount"},{"type":"pid","path":"relative"}]"#,
            r#"[{"type":"mount"},{"type":"pid","path":"/nosuch"}]"#,
        ] {
            assert!(namespaces(json).is_err(), "{json}");
        }
    }
}
