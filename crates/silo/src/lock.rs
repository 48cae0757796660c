//! What one engine has to itself: its data root, and its bridge and table of the packet filter.
//!
//! Each is an advisory lock (flock) on a file that says who has it, so that the kernel lets go of
//! it however the engine ends. The locks of networks are `/run/silo-networks/<network
//! namespace>-<bridge|table>-<name>`, whatever the roots of the engines are. Their files stay, and
//! tell the next engine whose containers may still use the network: process id and data root, a
//! line each.

use std::io::{Seek, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, bail};

/// Where the locks of networks lie, for every engine of this host.
const NETWORKS: &str = "/run/silo-networks";

/// How long what a dead engine was about to execute may hold its locks.
const LAST_BREATH: Duration = Duration::from_secs(10);

/// Takes the data root for this process; two engines on one would destroy it.
pub(crate) fn data_root(data_root: &Path) -> Result<fs_err::File> {
    let mut file = match take(&data_root.join("daemon.pid"))? {
        Taken::Free(file) => file,
        Taken::By(pid) => bail!(
            "another daemon (pid {}) uses {}; stop it, or choose another --root",
            pid.trim(),
            data_root.display()
        ),
    };
    write_owner(&mut file, &format!("{}\n", std::process::id()))?;
    Ok(file)
}

/// A bridge and a table of this network namespace, until dropped.
#[derive(Debug)]
pub(crate) struct Network {
    files: Vec<fs_err::File>,
}

/// Takes a bridge and a table for the engine on `root`; a second engine would take the first
/// one's containers off the bridge, and replace its rules.
pub(crate) fn network(bridge: &str, table: &str, root: &Path) -> Result<Network> {
    let living = || silo_shim::living().into_iter().map(|shim| shim.container_dir).collect();
    network_in(Path::new(NETWORKS), bridge, table, Some(root), living)
}

/// Takes a bridge and a table that are to be removed, whoever had them last.
pub(crate) fn network_to_remove(bridge: &str, table: &str) -> Result<Network> {
    network_in(Path::new(NETWORKS), bridge, table, None, Vec::new)
}

impl Network {
    /// Removes the files, when there is no such network any more.
    pub(crate) fn forget(self) {
        for file in &self.files {
            // While it is locked: whoever waits for it looks whether it is still there.
            fs_err::remove_file(file.path()).ok();
        }
    }
}

/// `living` gives the directories of containers that run, of any engine.
fn network_in(
    dir: &Path,
    bridge: &str,
    table: &str,
    root: Option<&Path>,
    living: impl Fn() -> Vec<PathBuf>,
) -> Result<Network> {
    match std::fs::DirBuilder::new().mode(0o700).create(dir) {
        Err(error) if error.kind() != std::io::ErrorKind::AlreadyExists => {
            return Err(error).with_context(|| format!("make {}", dir.display()));
        }
        _ => {}
    }
    let namespace = fs_err::metadata("/proc/thread-self/ns/net")?.ino();
    let mut network = Network { files: Vec::new() };
    let names = [("bridge", bridge), ("table", table)];
    for (kind, name) in names {
        if name.is_empty() || name.contains('/') {
            bail!("invalid name of a {kind}: {name:?}");
        }
    }
    for (kind, name) in names {
        let remedy = "or choose another --bridge and another --table";
        let path = dir.join(format!("{namespace}-{kind}-{name}"));
        match take(&path)? {
            Taken::Free(file) => {
                let owner = fs_err::read_to_string(&path)?;
                let former = owner.lines().nth(1).map(Path::new);
                if let (Some(root), Some(former)) = (root, former)
                    && root != former
                    && living().iter().any(|dir| dir.starts_with(former.join("containers")))
                {
                    bail!(
                        "containers of another daemon, which is not running (root {}), use the \
                         {kind} {name:?}; stop them, {remedy}",
                        former.display()
                    );
                }
                network.files.push(file);
            }
            Taken::By(owner) => {
                let mut lines = owner.lines();
                bail!(
                    "another daemon (pid {}, root {}) uses the {kind} {name:?}; stop it, {remedy}",
                    lines.next().unwrap_or("?"),
                    lines.next().unwrap_or("?"),
                );
            }
        }
    }
    let owner = root.map(|root| format!("{}\n{}\n", std::process::id(), root.display()));
    for file in network.files.iter_mut().filter(|_| owner.is_some()) {
        write_owner(file, owner.as_deref().unwrap_or_default())?;
    }
    Ok(network)
}

/// A lock that was asked for.
enum Taken {
    /// It is ours.
    Free(fs_err::File),
    /// What the file of one who lives says.
    By(String),
}

fn take(path: &Path) -> Result<Taken> {
    loop {
        let file = fs_err::OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(path)?;
        if !silo_sys::lock::exclusive(&file, Duration::ZERO)? {
            let owner = fs_err::read_to_string(path).unwrap_or_default();
            let pid = owner.lines().next().unwrap_or_default();
            // What a dead one was about to execute holds the lock until it is executed.
            let dead = !pid.is_empty() && !is_alive(pid);
            if !dead || !silo_sys::lock::exclusive(&file, LAST_BREATH)? {
                return Ok(Taken::By(owner));
            }
        }
        if is_at(&file, path)? {
            return Ok(Taken::Free(file));
        }
    }
}

/// Whether a file was not removed since it was opened.
fn is_at(file: &fs_err::File, path: &Path) -> Result<bool> {
    let ours = file.metadata()?;
    match fs_err::metadata(path) {
        Ok(there) => Ok((there.dev(), there.ino()) == (ours.dev(), ours.ino())),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error.into()),
    }
}

fn write_owner(file: &mut fs_err::File, owner: &str) -> Result<()> {
    file.file().set_len(0)?;
    file.rewind()?;
    file.write_all(owner.as_bytes())?;
    Ok(())
}

/// Whether a process has not ended. One whose parent has not noticed that has.
pub(crate) fn is_alive(pid: &str) -> bool {
    use rustix::event::{PollFd, PollFlags, Timespec, poll};
    let pid = pid.parse().ok().and_then(rustix::process::Pid::from_raw);
    let opened =
        pid.map(|pid| rustix::process::pidfd_open(pid, rustix::process::PidfdFlags::empty()));
    let Some(Ok(pidfd)) = opened else { return false };
    let at_once = Timespec { tv_sec: 0, tv_nsec: 0 };
    poll(&mut [PollFd::new(&pidfd, PollFlags::IN)], Some(&at_once)) == Ok(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_dead_hold_no_lock() {
        let own = std::process::id();
        let mut child = std::process::Command::new("true").spawn().unwrap();
        // A zombie until it is waited for.
        let pid = rustix::process::Pid::from_child(&child);
        let pidfd = rustix::process::pidfd_open(pid, rustix::process::PidfdFlags::empty()).unwrap();
        let mut fds = [rustix::event::PollFd::new(&pidfd, rustix::event::PollFlags::IN)];
        rustix::event::poll(&mut fds, None).unwrap();
        let dead = child.id().to_string();
        for (pid, alive) in [(own.to_string().as_str(), true), (&dead, false), ("x", false)] {
            assert_eq!(is_alive(pid), alive, "{pid}");
        }
        child.wait().unwrap();

        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("daemon.pid");
        let held = data_root(dir.path()).unwrap();
        // The same process holds it; by another open file it is as good as another process.
        let error = data_root(dir.path()).unwrap_err().to_string();
        assert!(error.starts_with(&format!("another daemon (pid {own})")), "{error}");
        fs_err::write(&path, format!("{dead}\n")).unwrap();
        let waiting = std::thread::spawn({
            let dir = dir.path().to_owned();
            move || data_root(&dir).map(drop)
        });
        drop(held);
        waiting.join().unwrap().unwrap();
        assert_eq!(fs_err::read_to_string(path).unwrap(), format!("{own}\n"));
    }

    #[test]
    fn bridge_and_table_have_one_engine() {
        let dir = tempfile::tempdir().unwrap();
        let dir = dir.path().join("locks");
        let take = |bridge, table| {
            network_in(&dir, bridge, table, Some(Path::new("/a")), || {
                vec!["/a/containers/1".into()]
            })
        };
        let own = std::process::id();
        let held = take("b0", "t0").unwrap();
        for (bridge, table, kind) in [("b0", "t1", "bridge \"b0\""), ("b1", "t0", "table \"t0\"")] {
            let error = take(bridge, table).unwrap_err().to_string();
            for part in [&format!("pid {own}, root /a"), kind, "--bridge", "--table"] {
                assert!(error.contains(part), "{part}: {error}");
            }
        }
        assert!(network_in(&dir, "b0", "t0", None, Vec::new).is_err(), "removed under an engine");
        drop(take("b1", "t1").unwrap());
        drop(held);
        assert!(take("../x", "t").is_err() && take("b", "").is_err());
        // Another engine comes when its containers are gone, and not before.
        let other = |living: &str| {
            let living = PathBuf::from(living);
            network_in(&dir, "b0", "t0", Some(Path::new("/b")), || vec![living.clone()])
        };
        let error = other("/a/containers/1").unwrap_err().to_string();
        assert!(error.contains("root /a") && error.contains("--bridge"), "{error}");
        drop(take("b0", "t0").unwrap());
        drop(other("/aa/containers/1").unwrap());
        for (bridge, table) in [("b0", "t0"), ("b1", "t1")] {
            network_in(&dir, bridge, table, None, Vec::new).unwrap().forget();
        }
        assert_eq!(fs_err::read_dir(&dir).unwrap().count(), 0);
    }

    #[test]
    fn many_at_once_are_one_after_another() {
        let dir = tempfile::tempdir().unwrap();
        let inside = std::sync::atomic::AtomicBool::new(false);
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for _ in 0..200 {
                        let Ok(network) = network_in(dir.path(), "b", "t", None, Vec::new) else {
                            continue;
                        };
                        assert!(!inside.swap(true, std::sync::atomic::Ordering::SeqCst));
                        inside.store(false, std::sync::atomic::Ordering::SeqCst);
                        network.forget();
                    }
                });
            }
        });
    }
}
