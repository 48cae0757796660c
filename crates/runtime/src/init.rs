//! The container's first process, from its birth to its program. Everything here runs in that
//! process; an error goes to the maker and ends it.

use std::os::fd::{AsFd as _, AsRawFd as _, RawFd};

use rustix::fs::{Mode, OFlags};
use rustix::process::Signal;
use silo_cgroup::Entrance;
use silo_oci::runtime::{LinuxMemoryPolicy, NamespaceKind, Spec, State, Status};
use silo_sys::{namespace, process};

use crate::devices;
use crate::error::{Context as _, Error};
use crate::finish::{Finish, Streams};
use crate::hooks;
use crate::namespaces::Join;
use crate::request::GateKind;
use crate::rootfs;
use crate::sources::{Given, Sources};
use crate::sync::{Channel, Message};
use crate::sysctl;

/// What the process takes along from its maker.
pub(crate) struct Init<'a> {
    pub(crate) id: &'a str,
    pub(crate) spec: &'a Spec,
    pub(crate) bundle: &'a std::path::Path,
    pub(crate) state: State,
    /// What was opened on the host, or what to open if the maker may not.
    pub(crate) sources: Result<Sources<'a>, Given>,
    pub(crate) joins: Vec<Join>,
    pub(crate) finish: Finish<'a>,
    pub(crate) gate: GateKind,
    /// By what the process enters its cgroup, if it was not born there.
    pub(crate) entrance: Option<Entrance>,
    pub(crate) channel: Channel,
    /// Namespaces that are made when the process has its ids.
    pub(crate) later: u64,
    pub(crate) new_network: bool,
    pub(crate) keep_keyring: bool,
    pub(crate) no_pivot: bool,
    pub(crate) dies_with_caller: bool,
}

impl<'a> Init<'a> {
    /// Runs the program; returns an exit status only if that failed.
    pub(crate) fn run(self) -> u8 {
        let channel = match rustix::io::fcntl_dupfd_cloexec(&self.channel, 3) {
            Ok(socket) => Channel::new(socket),
            Err(_) => return 1,
        };
        let error = self.try_run(channel.as_fd().as_raw_fd());
        // If the maker is gone too, there is nobody to tell.
        u8::from(channel.send(&Message::Failed(error)).is_err()) + 1
    }

    /// `reporter` is the descriptor by which a failure will be told.
    fn try_run(self, reporter: RawFd) -> Error {
        let dies_with_caller = self.dies_with_caller;
        match self.prepare() {
            Ok((finish, channel, gate, spec, state)) => {
                let mut answer = None;
                let finish_env = finish.process.env.clone();
                let mut kept = vec![reporter, channel.as_fd().as_raw_fd()];
                if let GateKind::Listener(listener) = &gate {
                    kept.push(listener.as_raw_fd());
                }
                let error = finish.run(&channel, &kept, true, || {
                    let step = || "wait for start".to_owned();
                    // Set once more where it stays: the change of user has cleared it.
                    let signal = dies_with_caller.then_some(Signal::KILL);
                    rustix::process::set_parent_process_death_signal(signal).step(step)?;
                    channel.send(&Message::Ready).step(step)?;
                    let starter = wait_at(gate, &channel)?;
                    let hooks = spec.hooks.as_ref().map_or(&[][..], |hooks| &hooks.start_container);
                    let state = State { pid: own_pid(), status: Status::Created, ..state };
                    let mut hooks = hooks.to_vec();
                    for hook in hooks.iter_mut().filter(|hook| hook.env.is_empty()) {
                        // It is a program of the container and runs as the container does.
                        hook.env.clone_from(&finish_env);
                    }
                    let result = hooks::run("startContainer", &hooks, &state);
                    answer = starter;
                    result
                });
                if let Some(starter) = answer {
                    // Only the starter can still hear it; if it is gone, nobody can.
                    let _undeliverable = starter.send(&Message::Failed(copy(&error)));
                }
                error
            }
            Err(error) => error,
        }
    }

    fn prepare(self) -> Result<(Finish<'a>, Channel, GateKind, &'a Spec, State), Error> {
        let Self { id, spec, bundle, state, sources, joins, finish, gate, channel, .. } = self;
        rustix::process::set_parent_process_death_signal(Some(Signal::KILL))
            .step(|| "set parent death signal".into())?;
        let new_user = spec.namespace(NamespaceKind::User).is_some();
        if new_user {
            expect_go(&channel)?;
        }
        // While the process still is whom its files in procfs belong to.
        offset_clocks(spec)?;
        if new_user {
            become_root()?;
        }
        if self.later != 0 {
            namespace::unshare(self.later).step(|| "make namespaces".into())?;
        }
        if let Some(entrance) = &self.entrance {
            entrance.enter().step(|| "enter cgroup".into())?;
        }
        if spec.namespace(NamespaceKind::Cgroup).is_some_and(|cgroup| cgroup.path.is_none()) {
            namespace::unshare(process::NEW_CGROUP).step(|| "make cgroup namespace".into())?;
        }
        // Whoever shares a namespace with us has no business with this process's descriptors.
        rustix::process::set_dumpable_behavior(rustix::process::DumpableBehavior::NotDumpable)
            .step(|| "set dumpable".into())?;
        for join in &joins {
            join.enter()?;
        }
        if self.new_network {
            namespace::loopback_up().step(|| "bring loopback interface up".into())?;
        }
        if !self.keep_keyring {
            join_keyring(Some(id))?;
        }
        set_names(spec)?;
        let sources = match sources {
            Ok(sources) => sources,
            Err(given) => Sources::open(spec, bundle, given)?,
        };
        let mut root = rootfs::attach_root(spec, &sources)?;
        let null = root.furnish(spec, sources)?;
        let devpts = root.devpts.take();
        let find_devpts = || match devpts {
            Some(devpts) => Ok(devpts),
            None => root.open_without_links("dev/pts".as_ref()).step(|| "open /dev/pts".into()),
        };
        if let Some(terminal) = finish.take_streams(&channel, find_devpts)? {
            devices::bind_console(&root, &terminal)?;
        }
        if !new_user {
            expect_go(&channel)?;
        }
        if let Some(hooks) = &spec.hooks {
            if !(hooks.prestart.is_empty() && hooks.create_runtime.is_empty()) {
                channel.send(&Message::Hooks).step(|| "ask for hooks".into())?;
                match channel.receive().step(|| "wait for hooks".into())? {
                    Some(Message::Hooks) => {}
                    _ => return Err(Error::invalid("hooks did not succeed")),
                }
            }
            let state = State { pid: own_pid(), status: Status::Creating, ..state.clone() };
            hooks::run("createContainer", &hooks.create_container, &state)?;
        }
        root.verify(spec)?;
        root.protect(spec, &null)?;
        sysctl::apply(spec, &finish.proc)?;
        root.enter(spec, self.no_pivot)?;
        drop(root);
        rustix::process::umask(Mode::from_raw_mode(0o022));
        if let Some(policy) = spec.linux.as_ref().and_then(|linux| linux.memory_policy.as_ref()) {
            set_memory_policy(policy)?;
        }
        Ok((finish, channel, gate, spec, state))
    }
}

/// An error once more, for a second listener.
fn copy(error: &Error) -> Error {
    crate::error::Report::from(error).into()
}

fn own_pid() -> i32 {
    rustix::process::getpid().as_raw_nonzero().get()
}

pub(crate) fn expect_go(channel: &Channel) -> Result<(), Error> {
    match channel.receive().step(|| "wait for the runtime".into())? {
        Some(Message::Go) => Ok(()),
        _ => Err(Error::invalid("the runtime went away")),
    }
}

/// Waits for the order, and returns whom to tell about a failure afterwards.
fn wait_at(gate: GateKind, channel: &Channel) -> Result<Option<Channel>, Error> {
    let step = || "wait for start".to_owned();
    match gate {
        GateKind::Held => match channel.receive().step(step)? {
            Some(Message::Start) => Ok(None),
            _ => Err(Error::invalid("the container was not started")),
        },
        GateKind::Listener(listener) => loop {
            let flags = rustix::net::SocketFlags::CLOEXEC;
            let starter = match rustix::net::accept_with(&listener, flags) {
                Err(rustix::io::Errno::INTR) => continue,
                result => Channel::new(result.step(step)?),
            };
            // Who connects and goes away without the order has not started anything.
            if let Ok(Some(Message::Start)) = starter.receive() {
                return Ok(Some(starter));
            }
        },
    }
}

/// The user namespace's root is the user for whatever can be mapped to it.
pub(crate) fn become_root() -> Result<(), Error> {
    use rustix::process::{Gid, Uid};
    let step = || "become root of the user namespace".to_owned();
    match rustix::thread::set_thread_groups(&[]) {
        Ok(()) | Err(rustix::io::Errno::PERM) => {}
        Err(error) => return Err(Error::step(step(), error)),
    }
    // Where the namespace has no root, privileges do without one.
    match rustix::thread::set_thread_res_gid(Gid::ROOT, Gid::ROOT, Gid::ROOT) {
        Ok(()) | Err(rustix::io::Errno::INVAL) => {}
        Err(error) => return Err(Error::step(step(), error)),
    }
    match rustix::thread::set_thread_res_uid(Uid::ROOT, Uid::ROOT, Uid::ROOT) {
        Ok(()) | Err(rustix::io::Errno::INVAL) => {}
        Err(error) => return Err(Error::step(step(), error)),
    }
    // The change of user has cleared it.
    rustix::process::set_parent_process_death_signal(Some(Signal::KILL)).step(step)
}

/// Leaves the maker's session keyring, for the container's by its id or a new one.
pub(crate) fn join_keyring(id: Option<&str>) -> Result<(), Error> {
    let name = id
        .map(|id| std::ffi::CString::new(format!("_ses.{id}")))
        .transpose()
        .map_err(|_| Error::invalid("the container's id contains a NUL byte"))?;
    match process::join_session_keyring(name.as_deref()) {
        Err(error) if matches!(error.raw_os_error(), Some(libc::ENOSYS | libc::EPERM)) => Ok(()),
        result => result.step(|| "join session keyring".into()),
    }
}

fn set_names(spec: &Spec) -> Result<(), Error> {
    if !spec.hostname.is_empty() {
        rustix::system::sethostname(spec.hostname.as_bytes()).step(|| "sethostname".into())?;
    }
    if !spec.domainname.is_empty() {
        rustix::system::setdomainname(spec.domainname.as_bytes())
            .step(|| "setdomainname".into())?;
    }
    Ok(())
}

/// Makes the time namespace, sets its clocks, and enters it.
fn offset_clocks(spec: &Spec) -> Result<(), Error> {
    let new = spec.namespace(NamespaceKind::Time).is_some_and(|time| time.path.is_none());
    if !new {
        return Ok(());
    }
    let step = || "make time namespace".to_owned();
    namespace::unshare(process::NEW_TIME).step(step)?;
    let offsets = spec.linux.as_ref().map(|linux| &linux.time_offsets);
    let mut text = String::new();
    for (clock, offset) in offsets.into_iter().flatten() {
        text.push_str(&format!("{clock} {} {}\n", offset.secs, offset.nanosecs));
    }
    if !text.is_empty() {
        let flags = OFlags::WRONLY | OFlags::CLOEXEC;
        let file = rustix::fs::open(c"/proc/self/timens_offsets", flags, Mode::empty())
            .step(|| "set time offsets".into())?;
        rustix::io::write(&file, text.as_bytes()).step(|| "set time offsets".into())?;
    }
    let flags = OFlags::RDONLY | OFlags::CLOEXEC;
    let own =
        rustix::fs::open(c"/proc/self/ns/time_for_children", flags, Mode::empty()).step(step)?;
    namespace::join(&own, rustix::thread::LinkNameSpaceType::Time).step(step)
}

/// The numbers in a list like `0-3,7`, below `limit`.
pub(crate) fn parse_list(list: &str, limit: usize) -> Option<Vec<usize>> {
    let mut numbers = Vec::new();
    for part in list.split(',').map(str::trim).filter(|part| !part.is_empty()) {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let (first, last): (usize, usize) = (first.parse().ok()?, last.parse().ok()?);
        if first > last || last >= limit {
            return None;
        }
        numbers.extend(first..=last);
    }
    Some(numbers)
}

fn set_memory_policy(policy: &LinuxMemoryPolicy) -> Result<(), Error> {
    let (mode, nodes) = memory_policy(policy)?;
    process::set_memory_policy(mode, &nodes).step(|| "set memory policy".into())
}

/// The arguments of set_mempolicy(2).
pub(crate) fn memory_policy(policy: &LinuxMemoryPolicy) -> Result<(i32, Vec<u64>), Error> {
    let wrong = |what: &str| Error::invalid(format!("linux.memoryPolicy: {what}"));
    let mut mode = match policy.mode.as_str() {
        "MPOL_DEFAULT" => 0,
        "MPOL_PREFERRED" => 1,
        "MPOL_BIND" => 2,
        "MPOL_INTERLEAVE" => 3,
        "MPOL_LOCAL" => 4,
        "MPOL_PREFERRED_MANY" => 5,
        "MPOL_WEIGHTED_INTERLEAVE" => 6,
        other => return Err(wrong(&format!("invalid mode {other:?}"))),
    };
    for flag in &policy.flags {
        mode |= match flag.as_str() {
            "MPOL_F_NUMA_BALANCING" => 1 << 13,
            "MPOL_F_RELATIVE_NODES" => 1 << 14,
            "MPOL_F_STATIC_NODES" => 1 << 15,
            other => return Err(wrong(&format!("invalid flag {other:?}"))),
        };
    }
    let nodes = parse_list(&policy.nodes, 1024).ok_or_else(|| wrong("invalid nodes"))?;
    let mut bits = vec![0_u64; nodes.iter().max().map_or(0, |last| last / 64 + 1)];
    for node in nodes {
        bits[node / 64] |= 1 << (node % 64);
    }
    Ok((mode, bits))
}

impl Streams {
    /// Whether the process gets a terminal.
    pub(crate) fn is_terminal(&self) -> bool {
        matches!(self, Self::Terminal(_))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_are_ranges() {
        assert_eq!(parse_list("0-2,5", 8), Some(vec![0, 1, 2, 5]));
        assert_eq!(parse_list("", 8), Some(vec![]));
        for wrong in ["8", "2-1", "a", "1-", "-1", "0-99999999999999999999"] {
            assert_eq!(parse_list(wrong, 8), None, "{wrong}");
        }
    }

    #[test]
    fn memory_policies() {
        let policy = LinuxMemoryPolicy {
            mode: "MPOL_BIND".into(),
            nodes: "0,65".into(),
            flags: vec!["MPOL_F_STATIC_NODES".into()],
        };
        assert_eq!(memory_policy(&policy).unwrap(), (2 | 1 << 15, vec![1, 2]));
    }
}
