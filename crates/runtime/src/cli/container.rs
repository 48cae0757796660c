//! Making and starting containers.

use std::os::fd::{AsFd as _, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType};
use silo_cgroup::{Cgroup, CgroupPath, Cgroups};
use silo_oci::runtime::{NamespaceKind, Spec, Status};
use silo_sys::process;

use super::args::{Create, Run};
use super::state::{
    Container, Record, START, Store, cgroup_error, open_directory, replace, start_time,
};
use super::{life, terminal};
use crate::error::{Context as _, Error};
use crate::{CreateRequest, Created, Gate, GateKind, Stdio, hooks};

/// A container that was made by this process.
struct Made {
    container: Container,
    created: Created,
}

pub(super) fn create(store: &Store, arguments: &Create) -> Result<(), Error> {
    make(store, arguments, true).map(drop)
}

/// Removes what a failed creation leaves, unless told that it did not fail.
struct Undo {
    directory: PathBuf,
    cgroup: Option<Cgroup>,
    /// The root, if it would be mounted in the host's tree.
    mounted: Option<PathBuf>,
    armed: bool,
}

impl Drop for Undo {
    fn drop(&mut self) {
        if self.armed {
            // The failure that led here is the one to report.
            let _removed = fs_err::remove_dir_all(&self.directory);
            if let Some(root) = &self.mounted {
                let flags = rustix::mount::UnmountFlags::DETACH;
                let _unmounted = rustix::mount::unmount(root, flags);
            }
            if let Some(cgroup) = &self.cgroup {
                let _killed = cgroup.kill_all();
                let _removed = cgroup.remove();
            }
        }
    }
}

/// Reads the configuration of a bundle, and finds the bundle's true place.
fn read_bundle(bundle: &Path) -> Result<(PathBuf, Spec), Error> {
    let bundle = fs_err::canonicalize(bundle).step(|| "open bundle".into())?;
    let path = bundle.join("config.json");
    let json = fs_err::read(&path).step(|| "read configuration".into())?;
    let spec = Spec::from_json(&json)
        .map_err(|error| Error::invalid(format!("{}: {error}", path.display())))?;
    Ok((bundle, spec))
}

/// The descriptors that the caller passes, with those of socket activation.
fn preserved(asked: u32, spec: &mut Spec) -> u32 {
    let listening = std::env::var("LISTEN_FDS").ok().and_then(|count| count.parse::<u32>().ok());
    match (listening.filter(|count| *count > 0), &mut spec.process) {
        (Some(count), Some(process)) => {
            process.env.push(format!("LISTEN_FDS={count}"));
            process.env.push("LISTEN_PID=1".into());
            asked.saturating_add(count)
        }
        _ => asked,
    }
}

fn make(store: &Store, arguments: &Create, detached: bool) -> Result<Made, Error> {
    let (bundle, mut spec) = read_bundle(&arguments.bundle)?;
    let preserve_fds = preserved(arguments.preserve_fds, &mut spec);
    let wants_terminal = spec.process.as_ref().is_some_and(|process| process.terminal);
    if wants_terminal && detached && arguments.console_socket.is_none() {
        return Err(Error::invalid(
            "cannot allocate tty if runtime will detach without setting console socket",
        ));
    }
    if !wants_terminal && arguments.console_socket.is_some() {
        return Err(Error::invalid(
            "cannot use console socket if runtime will not detach or allocate tty",
        ));
    }
    let root = crate::root_of(&spec, &bundle)?;
    let crate::Root::Path(rootfs) = &root else {
        return Err(Error::invalid("root has no path"));
    };
    let rootfs = rootfs.clone();
    let directory = store.reserve(&arguments.id)?;
    let mut undo = Undo { directory: directory.clone(), cgroup: None, mounted: None, armed: true };
    if spec.namespace(NamespaceKind::Mount).is_none() {
        undo.mounted = Some(rootfs.clone());
    }
    let cgroup = make_cgroup(&arguments.id, &spec)?;
    let has_cgroup = cgroup.is_some();
    undo.cgroup = cgroup;
    let handle = open_directory(&directory)?;
    let listener =
        Gate::listen(handle.as_fd(), START).step(|| "make the socket of the start".into())?;
    let mut request = CreateRequest::new(&arguments.id, &bundle, &spec, root);
    request.stdio = if wants_terminal { Stdio::Terminal { size: None } } else { Stdio::Inherit };
    request.preserve_fds = preserve_fds;
    request.cgroup = undo.cgroup.as_ref();
    request.gate = GateKind::Listener(listener);
    request.keep_keyring = arguments.no_new_keyring;
    request.no_pivot = arguments.no_pivot;
    let created = crate::create(request)?;
    let ended = Ended(Some(created.pidfd.as_fd()));
    if let (Some(socket), Some(console)) = (&arguments.console_socket, &created.console) {
        send_console(socket, console)?;
    }
    let pid = created.pid.as_raw_nonzero().get();
    let owner = rustix::process::getuid().as_raw();
    let container = Container {
        directory,
        record: Record {
            id: arguments.id.clone(),
            pid,
            start_time: start_time(pid)
                .ok_or_else(|| Error::Ended("before it was recorded".into()))?,
            bundle,
            rootfs,
            created: silo_types::time::rfc3339_nano(silo_types::time::now()),
            owner: if owner == 0 { "root".into() } else { owner.to_string() },
            annotations: spec.annotations.clone().into_iter().collect(),
            cgroup: has_cgroup.then(|| cgroup_path(&spec).to_owned()),
            spec,
        },
    };
    container.save()?;
    if let Some(path) = &arguments.pid_file {
        replace(path, pid.to_string().as_bytes())?;
    }
    undo.armed = false;
    ended.release();
    Ok(Made { container, created })
}

/// Ends a process that was made for nothing.
struct Ended<'a>(Option<std::os::fd::BorrowedFd<'a>>);

impl Ended<'_> {
    fn release(mut self) {
        self.0 = None;
    }
}

impl Drop for Ended<'_> {
    fn drop(&mut self) {
        if let Some(pidfd) = self.0
            && process::send_signal(pidfd, libc::SIGKILL).is_ok()
        {
            let _gone = process::wait(pidfd);
        }
    }
}

fn cgroup_path(spec: &Spec) -> &str {
    spec.linux.as_ref().and_then(|linux| linux.cgroups_path.as_deref()).unwrap_or("")
}

/// Makes the cgroup with its limits. A caller without rights over cgroups goes without, if
/// the configuration asks for no limit.
fn make_cgroup(id: &str, spec: &Spec) -> Result<Option<Cgroup>, Error> {
    let limited = spec.linux.as_ref().is_some_and(|linux| linux.resources.is_some());
    let resources = crate::resources(spec);
    let make = || -> Result<Cgroup, silo_cgroup::Error> {
        let path = CgroupPath::from_oci(cgroup_path(spec), id)?;
        Cgroups::detect()?.create(&path)
    };
    match make() {
        Ok(cgroup) => {
            if let Err(error) = cgroup.apply(&resources) {
                let _removed = cgroup.remove();
                return Err(cgroup_error(error));
            }
            Ok(Some(cgroup))
        }
        Err(_) if !rustix::process::geteuid().is_root() && !limited => Ok(None),
        Err(error) => Err(cgroup_error(error)),
    }
}

/// Sends the master of a terminal to the caller's socket.
pub(super) fn send_console(path: &Path, console: &OwnedFd) -> Result<(), Error> {
    let step = || format!("send console to {}", path.display());
    let socket = rustix::net::socket_with(
        AddressFamily::UNIX,
        SocketType::STREAM,
        SocketFlags::CLOEXEC,
        None,
    )
    .step(step)?;
    // A long path does not fit an address, but its directory's descriptor does.
    let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty());
    let directory = open_directory(parent.unwrap_or(Path::new(".")))?;
    let name = path.file_name().unwrap_or_default();
    let number = std::os::fd::AsRawFd::as_raw_fd(&directory);
    let address =
        SocketAddrUnix::new(Path::new(&format!("/proc/self/fd/{number}")).join(name)).step(step)?;
    rustix::net::connect(&socket, &address).step(step)?;
    silo_sys::fdpass::send(&socket, b"/dev/ptmx", &[console.as_fd()]).step(step)?;
    Ok(())
}

/// Runs the program of a container that was made.
pub(super) fn start(store: &Store, id: &str) -> Result<(), Error> {
    let container = store.open(id)?;
    start_container(&container)
}

fn start_container(container: &Container) -> Result<(), Error> {
    match container.status() {
        Status::Created => {}
        Status::Stopped => {
            return Err(Error::State("cannot start a container that has stopped".into()));
        }
        other => {
            return Err(Error::State(format!("cannot start a container in the {other} state")));
        }
    }
    let directory = container.open_directory()?;
    let gate = Gate::connect(directory.as_fd(), START).step(|| "connect to container".into())?;
    match fs_err::remove_file(container.directory.join(START)) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            return Err(Error::State("the container is being started already".into()));
        }
        result => result.step(|| "begin start".into())?,
    }
    let started = gate.start();
    let Some(hooks) = &container.record.spec.hooks else { return started };
    if let Err(error @ Error::Hook { .. }) = started {
        // Who looks after something from poststart to poststop is told of both, as by other
        // runtimes, though a startContainer hook has stopped the container.
        let _already_failed =
            hooks::run("poststart", &hooks.poststart, &container.state(Status::Stopped));
        return Err(error);
    }
    started?;
    let state = container.state(Status::Running);
    hooks::run("poststart", &hooks.poststart, &state).inspect_err(|_| {
        if let Some((_, pidfd)) = container.process() {
            let _ended = process::send_signal(&pidfd, libc::SIGKILL);
        }
    })
}

/// Makes and starts a container and, unless detached, stays until its program has ended.
pub(super) fn run(store: &Store, arguments: &Run) -> Result<u8, Error> {
    let socket = arguments.create.console_socket.is_some();
    let detached = arguments.detach || socket;
    let made = make(store, &arguments.create, detached)?;
    let pidfd = &made.created.pidfd;
    let started = start_container(&made.container);
    if let Err(error) = started {
        let _ended = process::send_signal(pidfd, libc::SIGKILL);
        let _gone = process::wait(pidfd);
        let _best_effort = life::remove(&made.container);
        return Err(error);
    }
    if arguments.detach {
        return Ok(0);
    }
    let code = terminal::accompany(pidfd, made.created.console.as_ref())?;
    if !arguments.keep {
        life::remove(&made.container)?;
    }
    Ok(code)
}
