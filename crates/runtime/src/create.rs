//! Making a container, seen from its maker.

use std::os::fd::{OwnedFd, RawFd};
use std::path::Path;

use rustix::fs::{CWD, Mode, OFlags};
use rustix::process::{Pid, PidfdFlags};
use silo_cgroup::{Cgroup, Entrance};
use silo_oci::runtime::{LinuxDeviceCgroup, LinuxResources, NamespaceKind, Spec, State, Status};
use silo_seccomp::Program;
use silo_sys::{namespace, process};

use crate::error::{Context as _, Error};
use crate::finish::{Finish, Streams, open_proc};
use crate::gate::Gate;
use crate::hooks;
use crate::identity::Identity;
use crate::init::{Init, memory_policy};
use crate::namespaces::{Join, Namespaces};
use crate::notify;
use crate::request::{CreateRequest, Created, GateKind, Root};
use crate::resctrl;
use crate::sources::{Given, Sources, default_devices, ranges};
use crate::sync::{Channel, Message};
use crate::sysctl;

/// A process that is ended unless it has become what it was meant to.
pub(crate) struct Guard {
    child: Option<(Pid, OwnedFd)>,
}

impl Guard {
    pub(crate) fn new(pid: Pid, pidfd: OwnedFd) -> Self {
        Self { child: Some((pid, pidfd)) }
    }

    fn pidfd(&self) -> Option<&OwnedFd> {
        self.child.as_ref().map(|child| &child.1)
    }

    /// How the process ended, for one that ended without a word.
    pub(crate) fn ended(&self) -> Error {
        match self.pidfd().map(process::try_wait) {
            Some(Ok(Some(process::Ended::Killed(signal)))) => {
                Error::Ended(format!("killed by signal {signal}"))
            }
            Some(Ok(Some(process::Ended::Exited(code)))) => {
                Error::Ended(format!("exit status {code}"))
            }
            _ => Error::Ended("it closed its connection".into()),
        }
    }

    pub(crate) fn release(mut self) -> Option<(Pid, OwnedFd)> {
        self.child.take()
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        if let Some((_, pidfd)) = self.child.take()
            && process::send_signal(&pidfd, libc::SIGKILL).is_ok()
        {
            // Nothing more can be done about a process that cannot be waited for.
            let _gone = process::wait(&pidfd);
        }
    }
}

/// Checks what can be checked without making anything.
fn check(spec: &Spec) -> Result<(), Error> {
    let major = spec.oci_version.split('.').next().unwrap_or("");
    if major != "1" {
        return Err(Error::invalid(format!("unsupported ociVersion {:?}", spec.oci_version)));
    }
    let has = |kind| spec.namespace(kind).is_some();
    let named = !spec.hostname.is_empty() || !spec.domainname.is_empty();
    if named && !has(NamespaceKind::Uts) {
        return Err(Error::invalid("unable to set hostname without a private UTS namespace"));
    }
    for mount in &spec.mounts {
        if mount.destination.as_os_str().is_empty() {
            return Err(Error::invalid("a mount has no destination"));
        }
    }
    let Some(linux) = &spec.linux else { return Ok(()) };
    if has(NamespaceKind::User) {
        let joined = spec.namespace(NamespaceKind::User).is_some_and(|user| user.path.is_some());
        if !joined && (linux.uid_mappings.is_empty() || linux.gid_mappings.is_empty()) {
            return Err(Error::invalid("a user namespace needs uidMappings and gidMappings"));
        }
    } else if !(linux.uid_mappings.is_empty() && linux.gid_mappings.is_empty()) {
        return Err(Error::invalid("uidMappings and gidMappings need a user namespace"));
    }
    for mapping in linux.uid_mappings.iter().chain(&linux.gid_mappings) {
        let ends = |first: u32| first.checked_add(mapping.size).is_some();
        if mapping.size == 0 || !ends(mapping.container_id) || !ends(mapping.host_id) {
            return Err(Error::invalid("an id mapping is empty or passes the last id"));
        }
    }
    if !linux.time_offsets.is_empty() && !has(NamespaceKind::Time) {
        return Err(Error::invalid("timeOffsets need a time namespace"));
    }
    for clock in linux.time_offsets.keys() {
        if !matches!(clock.as_str(), "monotonic" | "boottime") {
            return Err(Error::invalid(format!("timeOffsets: no clock {clock:?}")));
        }
    }
    if let Some(policy) = &linux.memory_policy {
        memory_policy(policy)?;
    }
    sysctl::check(spec)
}

/// The filter of a configuration, compiled unless the caller has done so.
pub(crate) fn filter(
    given: Option<Program>,
    seccomp: Option<&silo_oci::runtime::LinuxSeccomp>,
) -> Result<Option<Program>, Error> {
    match (given, seccomp) {
        (Some(program), _) => Ok(Some(program)),
        (None, None) => Ok(None),
        (None, Some(seccomp)) => silo_seccomp::compile(seccomp)
            .map(Some)
            .map_err(|error| Error::invalid(format!("linux.seccomp: {error}"))),
    }
}

/// What a process enters its cgroup by.
pub(crate) fn entrance(cgroup: Option<&Cgroup>) -> Result<Option<Entrance>, Error> {
    cgroup.map(Cgroup::entrance).transpose().map_err(|error| Error::Step {
        step: "enter cgroup".into(),
        cause: silo_types::error::chain(&error),
        errno: None,
    })
}

/// Which of the `count` descriptors from 3 on the program inherits: those that are open and
/// not close-on-exec. Ours always are, so none of ours can be among them.
pub(crate) fn preserved(count: u32) -> Result<Vec<RawFd>, Error> {
    let step = || "list descriptors".to_owned();
    let end = 3_u32.saturating_add(count);
    let mut numbers = Vec::new();
    if count == 0 {
        return Ok(numbers);
    }
    for entry in fs_err::read_dir("/proc/self/fd").step(step)? {
        let name = entry.step(step)?.file_name();
        let number = name.to_str().and_then(|name| name.parse::<u32>().ok());
        if let Some(number) = number.filter(|number| (3..end).contains(number))
            && let Ok(number) = RawFd::try_from(number)
            && process::survives_exec(number)
        {
            numbers.push(number);
        }
    }
    Ok(numbers)
}

/// Makes a container: its namespaces, its root, its first process, up to the point where only
/// the order to run the program is missing.
///
/// Must be called in a process with one thread, which becomes the parent of the container's
/// process. On an error nothing is left of the container, the given cgroup aside.
pub fn create(request: CreateRequest<'_>) -> Result<Created, Error> {
    let spec = request.spec;
    let process = spec.process.as_ref().ok_or_else(|| Error::invalid("process is missing"))?;
    check(spec)?;
    let preserved = preserved(request.preserve_fds)?;
    if process.args.is_empty() {
        return Err(Error::invalid("process.args is empty"));
    }
    let identity = Identity::new(process)?;
    let linux = spec.linux.as_ref();
    let filter = filter(request.filter, linux.and_then(|linux| linux.seccomp.as_ref()))?;
    let namespaces = Namespaces::new(spec, request.netns)?;
    let in_host_tree = spec.namespace(NamespaceKind::Mount).is_none();
    if in_host_tree && !matches!(request.root, Root::Path(_)) {
        return Err(Error::invalid("a root without a path needs a mount namespace"));
    }
    let streams = Streams::new(request.stdio, process)?;
    let terminal = streams.is_terminal();
    let proc = open_proc()?;
    let given = Given {
        root: request.root,
        init_binary: request.init_binary,
        trees: request.trees,
        own_cgroup: request.cgroup.is_some(),
    };
    let sources = if rustix::process::geteuid().is_root() {
        Ok(Sources::open(spec, request.bundle, given)?)
    } else {
        Err(given)
    };
    let state = State {
        oci_version: silo_oci::runtime::VERSION.into(),
        id: request.id.to_owned(),
        status: Status::Creating,
        pid: 0,
        bundle: request.bundle.to_owned(),
        annotations: spec.annotations.clone().into_iter().collect(),
    };
    let held = matches!(request.gate, GateKind::Held);
    let (ours, theirs) = Channel::pair().step(|| "make socket pair".into())?;
    let mut joins = namespaces.joins;
    let first: Vec<Join> = if namespaces.join_first { std::mem::take(&mut joins) } else { vec![] };
    let directory = request.cgroup.and_then(Cgroup::fd_for_clone_into);
    let entrance = entrance(request.cgroup)?;
    let intermediate =
        rustix::io::fcntl_dupfd_cloexec(&theirs, 3).step(|| "duplicate socket".into())?;
    let init = Init {
        id: request.id,
        spec,
        bundle: request.bundle,
        state: state.clone(),
        sources,
        joins,
        finish: Finish {
            process,
            identity,
            filter,
            streams,
            preserved,
            personality: linux.and_then(|linux| linux.personality.as_ref()),
            proc,
        },
        gate: request.gate,
        entrance,
        channel: theirs,
        later: namespaces.later,
        new_network: namespaces.new & process::NEW_NETWORK != 0,
        keep_keyring: request.keep_keyring,
        no_pivot: request.no_pivot,
        dies_with_caller: request.dies_with_caller,
    };
    let guard = spawn(
        namespaces.new,
        (!first.is_empty()).then_some(move || first.iter().try_for_each(Join::enter)),
        directory,
        &ours,
        intermediate,
        || init.run(),
    )?;
    let Some((pid, _)) = guard.child.as_ref() else { return Err(guard.ended()) };
    let pid = *pid;
    place(spec, pid, request.id)?;
    ours.send_if_heard(&Message::Go).step(|| "tell container process".into())?;
    let mut console = None;
    let mut listener = None;
    loop {
        let message = ours.receive().step(|| "wait for container process".into())?;
        match message {
            Some(Message::Console(fd)) if terminal => console = Some(fd),
            Some(Message::Listener(fd)) => listener = Some(fd),
            Some(Message::Hooks) => {
                let state = State { pid: number(pid), ..state.clone() };
                if let Some(hooks) = &spec.hooks {
                    hooks::run("prestart", &hooks.prestart, &state)?;
                    hooks::run("createRuntime", &hooks.create_runtime, &state)?;
                }
                ours.send(&Message::Hooks).step(|| "tell container process".into())?;
            }
            Some(Message::Ready) => break,
            Some(Message::Failed(error)) => return Err(error),
            Some(other) => return Err(Error::invalid(format!("unexpected message {other:?}"))),
            None => return Err(guard.ended()),
        }
    }
    if let Some(listener) = listener {
        let seccomp = linux.and_then(|linux| linux.seccomp.as_ref());
        let state = State { pid: number(pid), ..state };
        notify::hand_over(seccomp, &listener, pid, &state)?;
    }
    let Some((pid, pidfd)) = guard.release() else {
        return Err(Error::Ended("it is gone".into()));
    };
    let gate = if held { Gate::held(ours) } else { Gate::elsewhere() };
    Ok(Created { pid, pidfd, console, gate })
}

pub(crate) fn number(pid: Pid) -> i32 {
    pid.as_raw_nonzero().get()
}

/// Makes the process, with one in between if namespaces have to be joined by `join` first.
pub(crate) fn spawn(
    new: u64,
    join: Option<impl FnOnce() -> Result<(), Error>>,
    directory: Option<std::os::fd::BorrowedFd<'_>>,
    ours: &Channel,
    intermediate: OwnedFd,
    child: impl FnOnce() -> u8,
) -> Result<Guard, Error> {
    let step = || "make container process".to_owned();
    let Some(join) = join else {
        drop(intermediate);
        let forked = process::fork(new, directory, child).step(step)?;
        return Ok(Guard::new(forked.pid, forked.pidfd));
    };
    let channel = Channel::new(intermediate);
    let between = process::fork(0, None, || {
        let made = join()
            .and_then(|()| process::fork(new | process::AS_SIBLING, directory, child).step(step));
        let message = match made {
            Ok(forked) => Message::Pid(number(forked.pid)),
            Err(error) => Message::Failed(error),
        };
        u8::from(channel.send(&message).is_err())
    })
    .step(step)?;
    drop(channel);
    let guard = Guard::new(between.pid, between.pidfd);
    let message = ours.receive().step(step)?;
    let result = match message {
        Some(Message::Pid(pid)) => {
            let pid = Pid::from_raw(pid).ok_or_else(|| Error::invalid("no process id"))?;
            // It is our child and has not been waited for, so the number is still its own.
            let pidfd = rustix::process::pidfd_open(pid, PidfdFlags::empty()).step(step)?;
            Ok(Guard::new(pid, pidfd))
        }
        Some(Message::Failed(error)) => Err(error),
        _ => Err(guard.ended()),
    };
    if let Some((_, pidfd)) = guard.release() {
        process::wait(&pidfd).step(step)?;
    }
    result
}

/// Does for the new process what it cannot do itself.
fn place(spec: &Spec, pid: Pid, id: &str) -> Result<(), Error> {
    let linux = spec.linux.as_ref();
    let new_user = spec.namespace(NamespaceKind::User).is_some_and(|user| user.path.is_none());
    if let (true, Some(linux)) = (new_user, linux) {
        let (users, groups) = (ranges(&linux.uid_mappings), ranges(&linux.gid_mappings));
        namespace::write_id_maps(pid, &users, &groups).step(|| "write id maps".into())?;
    }
    if let Some(rdt) = linux.and_then(|linux| linux.intel_rdt.as_ref()) {
        resctrl::apply(Path::new("/sys/fs/resctrl"), id, rdt, pid)?;
    }
    if let Some(devices) = linux.map(|linux| &linux.net_devices).filter(|list| !list.is_empty()) {
        crate::netdev::move_all(devices, pid)?;
    }
    if let Some(score) = spec.process.as_ref().and_then(|process| process.oom_score_adj) {
        set_oom_score(pid, score)?;
    }
    Ok(())
}

/// Sets how readily the kernel ends the process when memory is out.
pub(crate) fn set_oom_score(pid: Pid, score: i32) -> Result<(), Error> {
    if !(-1000..=1000).contains(&score) {
        return Err(Error::invalid("process.oomScoreAdj is not within -1000 and 1000"));
    }
    let step = || "set oom_score_adj".to_owned();
    let name = format!("/proc/{}/oom_score_adj", number(pid));
    let file = rustix::fs::openat(CWD, name, OFlags::WRONLY | OFlags::CLOEXEC, Mode::empty())
        .step(step)?;
    rustix::io::write(&file, score.to_string().as_bytes()).step(step)?;
    Ok(())
}

/// The limits of a configuration with the rules for devices that every container needs: all
/// nodes may be made, the harmless ones of `/dev` used. A configuration without rules gives
/// access to these alone.
pub fn resources(spec: &Spec) -> LinuxResources {
    let given = spec.linux.as_ref().and_then(|linux| linux.resources.clone());
    let mut resources = given.unwrap_or_default();
    let rule =
        |kind: &str, major: Option<i64>, minor: Option<i64>, access: &str| LinuxDeviceCgroup {
            allow: true,
            kind: Some(kind.into()),
            major,
            minor,
            access: Some(access.into()),
        };
    if resources.devices.is_empty() {
        let access = Some("rwm".into());
        let none = LinuxDeviceCgroup { allow: false, access, ..LinuxDeviceCgroup::default() };
        resources.devices.push(none);
    }
    resources.devices.push(rule("c", None, None, "m"));
    resources.devices.push(rule("b", None, None, "m"));
    for device in default_devices() {
        resources.devices.push(rule("c", Some(device.major), Some(device.minor), "rwm"));
    }
    // Terminals, and what makes them.
    resources.devices.push(rule("c", Some(136), None, "rwm"));
    resources.devices.push(rule("c", Some(5), Some(2), "rwm"));
    resources
}

/// The root that a configuration names.
pub fn root_of(spec: &Spec, bundle: &Path) -> Result<Root, Error> {
    let root = spec.root.as_ref().ok_or_else(|| Error::invalid("root is missing"))?;
    if root.path.as_os_str().is_empty() {
        return Err(Error::invalid("root.path is empty"));
    }
    Ok(Root::Path(bundle.join(&root.path)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn senseless_configurations_make_nothing() {
        let cases = [
            (r#"{"ociVersion":"2.0.0"}"#, "ociVersion"),
            (r#"{"ociVersion":"1.0.0","hostname":"x"}"#, "UTS"),
            (r#"{"ociVersion":"1.0.0","linux":{"namespaces":[{"type":"user"}]}}"#, "uidMappings"),
            (
                r#"{"ociVersion":"1.0.0","linux":{"uidMappings":[{"containerID":0,"hostID":0,"size":1}]}}"#,
                "user namespace",
            ),
            (
                r#"{"ociVersion":"1.0.0","linux":{"namespaces":[{"type":"user"}],
                "uidMappings":[{"containerID":0,"hostID":4294967295,"size":2}],
                "gidMappings":[{"containerID":0,"hostID":0,"size":1}]}}"#,
                "last id",
            ),
            (
                r#"{"ociVersion":"1.0.0","linux":{"timeOffsets":{"boottime":{"secs":1}}}}"#,
                "time namespace",
            ),
            (r#"{"ociVersion":"1.0.0","linux":{"sysctl":{"vm.x":"1"}}}"#, "vm.x"),
        ];
        for (json, expected) in cases {
            let spec = Spec::from_json(json.as_bytes()).unwrap();
            let error = check(&spec).unwrap_err().to_string();
            assert!(error.contains(expected), "{json}: {error}");
        }
    }

    #[test]
    fn own_descriptors_are_not_preserved() {
        let _ours = fs_err::File::open("/dev/null").unwrap();
        assert!(preserved(0).unwrap().is_empty());
        let kept = preserved(u32::MAX).unwrap();
        assert!(kept.iter().all(|number| process::survives_exec(*number)));
    }
}
