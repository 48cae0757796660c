//! From the specification of a Linux container to that of a Windows one.

use std::path::Path;

use silo_oci::runtime::{Mount, Spec};
use silo_store::Snapshot;
use silo_windows::control;

/// Our process 1, which the runtime binds there.
pub(super) const INIT: &str = "/sbin/docker-init";
/// What makes it the one of Windows containers.
pub(super) const ROLE: &str = "--windows";
/// What tells it that nobody will read the registry when the container has ended.
pub(super) const VOLATILE: &str = "--volatile";
/// Capabilities of Wine's processes: those that its files need, and raw sockets for `ping`.
const CAPABILITIES: &[&str] = &[
    "CAP_CHOWN",
    "CAP_DAC_OVERRIDE",
    "CAP_FOWNER",
    "CAP_FSETID",
    "CAP_KILL",
    "CAP_NET_BIND_SERVICE",
    "CAP_NET_RAW",
];

/// The capabilities, as their names in requests.
pub(super) fn capabilities() -> Vec<String> {
    CAPABILITIES.iter().map(|&name| name.to_owned()).collect()
}

/// The arguments and environment of a Linux process that starts a Windows one.
pub(super) fn process(process: &mut silo_oci::runtime::Process, name: &str, account: &str) {
    process.args = [INIT, ROLE, name].map(str::to_owned).to_vec();
    process.cwd = "/c".into();
    process.env = [
        "WINEPREFIX=/prefix",
        "WINEDEBUG=-all",
        "WINESERVER=/usr/lib/wine/wineserver64",
        // Else the loader starts itself again, to have memory kept free by a program that the
        // runtime does not have.
        "WINELOADERNOEXEC=1",
        "HOME=/prefix",
        "PATH=/usr/bin",
        "LC_ALL=C.UTF-8",
    ]
    .map(str::to_owned)
    .to_vec();
    process.env.push(format!("USER={account}"));
    process.user = silo_oci::runtime::User::default();
    process.capabilities = Some(crate::spec::capability_sets(capabilities()));
    process.no_new_privileges = true;
}

/// Where the library is that tells Wine of a memory limit.
pub(super) const MEMORY: &str = "/usr/lib/silo-memory.so";

/// Has the process load that library.
pub(super) fn limit_memory(process: &mut silo_oci::runtime::Process) {
    process.env.push(format!("LD_PRELOAD={MEMORY}"));
}

/// Whether the process loads it, where it was made by [`process`].
pub(super) fn limits_memory(process: &silo_oci::runtime::Process) -> bool {
    process.env.iter().any(|variable| variable.starts_with("LD_PRELOAD="))
}

fn mount(destination: &str, kind: &str, source: &str, options: Vec<String>) -> Mount {
    Mount {
        destination: destination.into(),
        kind: Some(kind.into()),
        source: Some(source.into()),
        options,
        ..Mount::default()
    }
}

fn escaped(path: &Path) -> String {
    path.to_string_lossy().replace('\\', "\\\\").replace(':', "\\:")
}

/// The drive C: as a mount.
fn drive(snapshot: &Snapshot, volatile: bool) -> Mount {
    let lowers: Vec<String> = snapshot.lowers.iter().map(|lower| escaped(lower)).collect();
    let mut options = vec![
        format!("lowerdir={}", lowers.join(":")),
        format!("upperdir={}", snapshot.upper.display()),
        format!("workdir={}", snapshot.work.display()),
        // Else folders of the image could not be renamed.
        "redirect_dir=on".to_owned(),
        "index=off".to_owned(),
        // A changed file is whole, so that it can be committed.
        "metacopy=off".to_owned(),
        "nosuid".to_owned(),
        "nodev".to_owned(),
    ];
    if volatile {
        options.push("volatile".to_owned());
    }
    mount("/c", "overlay", "overlay", options)
}

/// What of a container is still wanted when it has ended and the host goes down.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Lasting {
    /// Its files need not be durable.
    pub(super) volatile: bool,
    /// Nobody will read its registry.
    pub(super) forgets: bool,
}

/// Makes the specification one of a Windows container.
pub(super) fn adapt(
    spec: &mut Spec,
    snapshot: &Snapshot,
    lasting: Lasting,
    prefix: &Path,
    account: &str,
) {
    if let Some(own) = &mut spec.process {
        process(own, control::INIT, account);
        if lasting.forgets {
            own.args.push(VOLATILE.to_owned());
        }
    }
    if let Some(root) = &mut spec.root {
        root.readonly = true;
    }
    let small = |size: &str| ["nosuid", "nodev", "mode=1777", size].map(str::to_owned).to_vec();
    let bind = ["bind", "rprivate", "nosuid", "nodev"].map(str::to_owned).to_vec();
    let ours = [
        mount("/tmp", "tmpfs", "tmpfs", small("size=64m")),
        mount("/run", "tmpfs", "tmpfs", small("size=16m")),
        mount("/drives", "tmpfs", "tmpfs", small("size=1m")),
        mount("/prefix", "bind", &prefix.to_string_lossy(), bind),
        drive(snapshot, lasting.volatile),
    ];
    // Before what is mounted on the drives.
    let place = spec
        .mounts
        .iter()
        .position(|mount| {
            ["/c", "/drives", "/run"].iter().any(|place| mount.destination.starts_with(place))
        })
        .unwrap_or(spec.mounts.len());
    spec.mounts.splice(place..place, ours);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_drive_lies_below_what_is_mounted_on_it() {
        let snapshot = Snapshot {
            id: "x".into(),
            chain: None,
            lowers: vec!["/l/a:b/Files".into(), "/l/c/Files".into()],
            upper: "/s/upper".into(),
            work: "/s/work".into(),
        };
        let mut spec = Spec {
            process: Some(silo_oci::runtime::Process::default()),
            mounts: vec![
                mount("/proc", "proc", "proc", Vec::new()),
                mount("/c/data", "bind", "/srv", Vec::new()),
            ],
            ..Spec::default()
        };
        adapt(
            &mut spec,
            &snapshot,
            Lasting::default(),
            Path::new("/containers/x/prefix"),
            "ContainerUser",
        );
        let order: Vec<_> = spec.mounts.iter().map(|m| m.destination.to_str().unwrap()).collect();
        assert_eq!(order, ["/proc", "/tmp", "/run", "/drives", "/prefix", "/c", "/c/data"]);
        assert_eq!(spec.mounts[5].options[0], "lowerdir=/l/a\\:b/Files:/l/c/Files");
        let process = spec.process.unwrap();
        assert_eq!(process.args, [INIT, ROLE, "0"]);
        let mut volatile = Spec { process: Some(process.clone()), ..Spec::default() };
        let lasting = Lasting { volatile: true, forgets: true };
        adapt(&mut volatile, &snapshot, lasting, Path::new("/containers/x/prefix"), "");
        assert_eq!(volatile.process.unwrap().args, [INIT, ROLE, "0", VOLATILE]);
        assert!(process.env.contains(&"USER=ContainerUser".to_owned()));
        assert!(process.no_new_privileges);
    }
}
