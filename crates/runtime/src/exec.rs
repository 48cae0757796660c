//! Starting a further process in a running container.

use std::os::fd::{AsFd as _, AsRawFd as _, OwnedFd};

use rustix::fs::{AtFlags, CWD, Mode, OFlags};
use rustix::process::Pid;
use silo_cgroup::{Cgroup, Entrance};
use silo_sys::{namespace, path, process};

use crate::create::{entrance, filter, number, preserved, set_oom_score, spawn};
use crate::error::{Context as _, Error};
use crate::finish::{Finish, Streams, open_proc};
use crate::identity::Identity;
use crate::init::{expect_go, join_keyring, parse_list};
use crate::notify;
use crate::request::{ExecRequest, Started};
use crate::sync::{Channel, Message};

/// The namespaces by their names in procfs. The user namespace comes first, since it gives the
/// right to enter the others.
const NAMESPACES: &[(&str, u64)] = &[
    ("user", process::NEW_USER),
    ("mnt", process::NEW_MOUNT),
    ("pid", process::NEW_PID),
    ("net", process::NEW_NETWORK),
    ("ipc", process::NEW_IPC),
    ("uts", process::NEW_UTS),
    ("cgroup", process::NEW_CGROUP),
    ("time", process::NEW_TIME),
];

/// Starts a process in the namespaces, root and cgroup of a running container. Returns when its
/// program has been executed.
///
/// Must be called in a process with one thread, which becomes the parent of the new process.
/// Fails with [`Error::Program`] if the program cannot be executed, [`Error::State`] if the
/// container does not run.
pub fn exec(request: ExecRequest<'_>) -> Result<Started, Error> {
    let process = request.process;
    let preserved = preserved(request.preserve_fds)?;
    if process.args.is_empty() {
        return Err(Error::invalid("process.args is empty"));
    }
    let identity = Identity::new(process)?;
    let filter = filter(request.filter, request.seccomp)?;
    let streams = Streams::new(request.stdio, process)?;
    let terminal = streams.is_terminal();
    let affinity = process.exec_cpu_affinity.as_ref();
    let first_cpus = affinity.map(|list| cpus(&list.initial)).transpose()?.flatten();
    let last_cpus = affinity.map(|list| cpus(&list.last)).transpose()?.flatten();
    let differing = differing(request.pid)?;
    // The number may have been given to another process; then the descriptor's is dead.
    process::send_signal(request.pidfd, 0)
        .map_err(|_| Error::State("the container is not running".into()))?;
    let (ours, theirs) = Channel::pair().step(|| "make socket pair".into())?;
    let directory = request.cgroup.and_then(Cgroup::fd_for_clone_into);
    let entrance = entrance(request.cgroup)?;
    let intermediate =
        rustix::io::fcntl_dupfd_cloexec(&theirs, 3).step(|| "duplicate socket".into())?;
    let finish = Finish {
        process,
        identity,
        filter,
        streams,
        preserved,
        personality: request.personality,
        proc: open_proc()?,
    };
    let pidfd = request.pidfd;
    let keep_keyring = request.keep_keyring;
    let guard = spawn(
        0,
        Some(move || {
            rustix::process::set_dumpable_behavior(rustix::process::DumpableBehavior::NotDumpable)
                .step(|| "set dumpable".into())?;
            if let Some(cpus) = first_cpus {
                rustix::thread::sched_setaffinity(None, &cpus)
                    .step(|| "set initial CPU affinity".into())?;
            }
            namespace::join_process(pidfd, differing).step(|| "join namespaces".into())
        }),
        directory,
        &ours,
        intermediate,
        || run(finish, theirs, entrance, last_cpus, keep_keyring),
    )?;
    let Some((pid, pidfd)) = guard.release() else {
        return Err(Error::Ended("it is gone".into()));
    };
    let guard = crate::create::Guard::new(pid, pidfd);
    if let Some(score) = process.oom_score_adj {
        set_oom_score(pid, score)?;
    }
    ours.send_if_heard(&Message::Go).step(|| "tell new process".into())?;
    let (mut console, mut ready) = (None, false);
    loop {
        match ours.receive().step(|| "wait for new process".into())? {
            Some(Message::Console(fd)) if terminal => console = Some(fd),
            Some(Message::Listener(listener)) => {
                if let Some(state) = request.state {
                    notify::hand_over(request.seccomp, &listener, pid, state)?;
                }
            }
            Some(Message::Ready) => ready = true,
            Some(Message::Failed(error)) => return Err(error),
            Some(other) => return Err(Error::invalid(format!("unexpected message {other:?}"))),
            // Its end is closed by execve(2).
            None if ready => break,
            None => return Err(guard.ended()),
        }
    }
    let Some((pid, pidfd)) = guard.release() else {
        return Err(Error::Ended("it is gone".into()));
    };
    Ok(Started { pid, pidfd, console })
}

/// The set of processors in a list; nothing for an empty one.
fn cpus(list: &str) -> Result<Option<rustix::thread::CpuSet>, Error> {
    if list.is_empty() {
        return Ok(None);
    }
    let mut set = rustix::thread::CpuSet::new();
    let numbers = parse_list(list, rustix::thread::CpuSet::MAX_CPU)
        .ok_or_else(|| Error::invalid(format!("execCPUAffinity: no list of CPUs: {list:?}")))?;
    for number in numbers {
        set.set(number);
    }
    Ok(Some(set))
}

/// The kinds of namespaces in which the process is in others than we are.
fn differing(pid: Pid) -> Result<u64, Error> {
    let open = |name: String| -> Result<OwnedFd, Error> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        rustix::fs::openat(CWD, name, flags, Mode::empty()).map_err(|error| match error {
            rustix::io::Errno::NOENT => Error::State("the container is not running".into()),
            error => Error::step("open namespaces", error),
        })
    };
    let (theirs, ours) =
        (open(format!("/proc/{}/ns", number(pid)))?, open("/proc/self/ns".into())?);
    let mut flags = 0;
    for (name, flag) in NAMESPACES {
        let stat = |directory: &OwnedFd| rustix::fs::statat(directory, *name, AtFlags::empty());
        match (stat(&theirs), stat(&ours)) {
            (Ok(theirs), Ok(ours)) => {
                if (theirs.st_ino, theirs.st_dev) != (ours.st_ino, ours.st_dev) {
                    flags |= flag;
                }
            }
            // A kind that this kernel does not have.
            (_, Err(rustix::io::Errno::NOENT)) => {}
            (Err(error), _) | (_, Err(error)) => {
                return Err(match error {
                    rustix::io::Errno::NOENT | rustix::io::Errno::SRCH => {
                        Error::State("the container is not running".into())
                    }
                    error => Error::step("look at namespaces", error),
                });
            }
        }
    }
    Ok(flags)
}

/// The new process; its exit status if it could not become the program.
fn run(
    finish: Finish<'_>,
    channel: Channel,
    entrance: Option<Entrance>,
    cpus: Option<rustix::thread::CpuSet>,
    keep_keyring: bool,
) -> u8 {
    let error = match prepare(&finish, &channel, entrance, cpus, keep_keyring) {
        Ok(()) => finish.run(&channel, &[channel.as_fd().as_raw_fd()], false, || {
            rustix::process::set_parent_process_death_signal(None)
                .step(|| "clear parent death signal".into())?;
            channel.send(&Message::Ready).step(|| "tell the runtime".into())
        }),
        Err(error) => error,
    };
    u8::from(channel.send(&Message::Failed(error)).is_err()) + 1
}

fn prepare(
    finish: &Finish<'_>,
    channel: &Channel,
    entrance: Option<Entrance>,
    cpus: Option<rustix::thread::CpuSet>,
    keep_keyring: bool,
) -> Result<(), Error> {
    if !keep_keyring {
        join_keyring(None)?;
    }
    if let Some(entrance) = entrance {
        entrance.enter().step(|| "enter cgroup".into())?;
    }
    expect_go(channel)?;
    if let Some(cpus) = cpus {
        rustix::thread::sched_setaffinity(None, &cpus).step(|| "set final CPU affinity".into())?;
    }
    finish.take_streams(channel, || {
        let step = || "open /dev/pts".to_owned();
        let root = path::open_root("/").step(step)?;
        let flags = OFlags::PATH | OFlags::DIRECTORY;
        let devpts = path::open_in_root_no_links(root.as_fd(), "dev/pts", flags, Mode::empty())
            .step(step)?;
        if crate::rootfs::filesystem(&devpts).step(step)? != crate::rootfs::DEVPTS_SUPER_MAGIC {
            return Err(Error::invalid("/dev/pts is not devpts"));
        }
        Ok(devpts)
    })?;
    Ok(())
}
