//! Further programs in a running container.

use rustix::process::Pid;
use silo_cgroup::{Cgroup, CgroupPath, Cgroups};
use silo_oci::runtime::{LinuxCapabilities, Process, Status};

use super::args::Exec;
use super::container::send_console;
use super::log::Log;
use super::state::{Container, Store, cgroup_error, replace};
use super::terminal;
use crate::error::{Context as _, Error};
use crate::init::parse_list;
use crate::{ExecRequest, Stdio};

/// A number in its range, without sign or other dress.
fn id(text: &str) -> Result<u32, Error> {
    let wrong = || Error::invalid(format!("no user or group id: {text:?}"));
    if !text.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(wrong());
    }
    text.parse::<u32>().ok().filter(|id| *id < i32::MAX.unsigned_abs() + 1).ok_or_else(wrong)
}

fn add_capability(capabilities: &mut LinuxCapabilities, name: &str) {
    for set in
        [&mut capabilities.bounding, &mut capabilities.effective, &mut capabilities.permitted]
    {
        if !set.iter().any(|known| known == name) {
            set.push(name.to_owned());
        }
    }
}

/// The process that the command line describes, on the base of the container's own.
fn describe(container: &Container, arguments: &Exec) -> Result<Process, Error> {
    let mut process = match &arguments.process {
        Some(path) => {
            let json = fs_err::read(path).step(|| "read process".into())?;
            serde_json::from_slice(&json)
                .map_err(|error| Error::invalid(format!("{}: {error}", path.display())))?
        }
        None => {
            let mut process = container.record.spec.process.clone().unwrap_or_default();
            process.args.clone_from(&arguments.command);
            process.terminal = false;
            process.console_size = None;
            process
        }
    };
    if arguments.process.is_some() && !arguments.command.is_empty() {
        process.args.clone_from(&arguments.command);
    }
    if process.args.is_empty() {
        return Err(Error::invalid("exec needs a program"));
    }
    process.terminal |= arguments.tty;
    if let Some(cwd) = &arguments.cwd {
        process.cwd.clone_from(cwd);
    }
    process.env.extend(arguments.env.iter().cloned());
    if let Some(user) = &arguments.user {
        let (uid, gid) = user.split_once(':').map_or((user.as_str(), None), |(u, g)| (u, Some(g)));
        process.user.uid = id(uid)?;
        if let Some(gid) = gid {
            process.user.gid = id(gid)?;
        }
    }
    process.user.additional_gids.extend(&arguments.additional_gids);
    process.no_new_privileges |= arguments.no_new_privs;
    if let Some(profile) = &arguments.apparmor {
        process.apparmor_profile.clone_from(profile);
    }
    if let Some(label) = &arguments.process_label {
        process.selinux_label.clone_from(label);
    }
    for name in &arguments.cap {
        add_capability(process.capabilities.get_or_insert_default(), name);
    }
    Ok(process)
}

/// The container's cgroup, or one below it, given as `path` or `controller,...:path`.
fn cgroup_below(container: &Container, place: &str) -> Result<Cgroup, Error> {
    let (controllers, path) =
        place.split_once(':').map_or(("", place), |(controllers, path)| (controllers, path));
    for name in controllers.split(',').filter(|name| !name.is_empty()) {
        let known = fs_err::read_to_string("/proc/cgroups").step(|| "read controllers".into())?;
        if !known.lines().any(|line| line.split('\t').next() == Some(name)) {
            return Err(Error::invalid(format!("--cgroup: no controller {name:?}")));
        }
    }
    let own =
        container.cgroup()?.ok_or_else(|| Error::State("the container has no cgroup".into()))?;
    let below = path.trim_matches('/');
    if below.is_empty() {
        return Ok(own);
    }
    let path =
        CgroupPath::from_oci(&format!("{}/{below}", own.path()), "").map_err(cgroup_error)?;
    Cgroups::detect().and_then(|cgroups| cgroups.open(&path)).map_err(cgroup_error)
}

pub(super) fn exec(store: &Store, arguments: &Exec, log: &Log) -> Result<u8, Error> {
    let container = store.open(&arguments.id)?;
    match container.status() {
        Status::Running | Status::Created => {}
        Status::Paused if arguments.ignore_paused => {}
        Status::Paused => {
            return Err(Error::State("cannot exec in a paused container".into()));
        }
        _ => return Err(Error::State("cannot exec in a stopped container".into())),
    }
    let Some((pid, pidfd)) = container.process() else {
        return Err(Error::State("cannot exec in a stopped container".into()));
    };
    let process = describe(&container, arguments)?;
    if process.terminal && arguments.detach && arguments.console_socket.is_none() {
        return Err(Error::invalid(
            "cannot allocate tty if runtime will detach without setting console socket",
        ));
    }
    if let Some(affinity) = &process.exec_cpu_affinity {
        for (when, list) in [("initial", &affinity.initial), ("final", &affinity.last)] {
            if let Some(cpus) = parse_list(list, 64).filter(|cpus| !cpus.is_empty()) {
                let mask = cpus.iter().fold(0_u64, |mask, cpu| mask | 1 << cpu);
                log.debug(&format!("{when} CPU affinity: 0x{mask:x}"));
            }
        }
    }
    let cgroup = match &arguments.cgroup[..] {
        [] => container.cgroup()?,
        [place] => Some(cgroup_below(&container, place)?),
        _ => return Err(Error::invalid("--cgroup can be given once")),
    };
    let linux = container.record.spec.linux.as_ref();
    let state = container.state(Status::Running);
    let mut request = ExecRequest::new(pid, std::os::fd::AsFd::as_fd(&pidfd), &process);
    request.personality = linux.and_then(|linux| linux.personality.as_ref());
    request.seccomp = linux.and_then(|linux| linux.seccomp.as_ref());
    request.stdio = if process.terminal { Stdio::Terminal { size: None } } else { Stdio::Inherit };
    request.preserve_fds = arguments.preserve_fds;
    request.cgroup = cgroup.as_ref();
    request.state = Some(&state);
    let started = crate::exec(request)?;
    if let (Some(socket), Some(console)) = (&arguments.console_socket, &started.console) {
        send_console(socket, console)?;
    }
    if let Some(path) = &arguments.pid_file {
        replace(path, number(started.pid).to_string().as_bytes())?;
    }
    if arguments.detach {
        return Ok(0);
    }
    let own = started.console.as_ref().filter(|_| arguments.console_socket.is_none());
    terminal::accompany(&started.pidfd, own)
}

fn number(pid: Pid) -> i32 {
    pid.as_raw_nonzero().get()
}

#[cfg(test)]
mod tests {
    use super::id;

    #[test]
    fn ids_are_plain_numbers() {
        assert_eq!(id("0").unwrap(), 0);
        assert_eq!(id("2147483647").unwrap(), 2_147_483_647);
        for wrong in ["", "-1", "+1", "0x0", "2147483648", "4294967296", "99999999999999999999"] {
            // An empty text is no number either, though it has no wrong character.
            assert!(id(wrong).is_err(), "{wrong}");
        }
    }
}
