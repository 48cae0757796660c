//! The last part of every process's way to its program, the same for a container's first
//! process and for one that is executed in it later.

use std::mem::ManuallyDrop;
use std::os::fd::{OwnedFd, RawFd};
use std::path::Path;

use rustix::fs::{Gid, Mode, OFlags};
use rustix::io::Errno;
use silo_oci::runtime::{LinuxPersonality, PersonalityDomain, Process};
use silo_seccomp::Program;
use silo_sys::path;
use silo_sys::process;
use silo_sys::pty;

use crate::error::{Context as _, Error};
use crate::identity::Identity;
use crate::program;
use crate::request::Stdio;
use crate::sync::{Channel, Message};

/// Everything that the process needs to become its program, prepared by its maker.
pub(crate) struct Finish<'a> {
    pub(crate) process: &'a Process,
    pub(crate) identity: Identity,
    pub(crate) filter: Option<Program>,
    pub(crate) streams: Streams,
    pub(crate) preserved: Vec<RawFd>,
    pub(crate) personality: Option<&'a LinuxPersonality>,
    /// The host's procfs, for labels.
    pub(crate) proc: OwnedFd,
}

/// What becomes descriptors 0, 1 and 2.
#[derive(Debug)]
pub(crate) enum Streams {
    /// What they are already.
    Inherit,
    /// These.
    Fds([OwnedFd; 3]),
    /// A terminal that is yet to be made.
    Terminal(Option<pty::Size>),
}

impl Streams {
    /// Opens what is missing, and moves everything out of the way of the numbers 0 to 2.
    pub(crate) fn new(stdio: Stdio, process: &Process) -> Result<Self, Error> {
        let step = || "prepare standard streams".to_owned();
        match stdio {
            Stdio::Inherit => Ok(Self::Inherit),
            Stdio::Terminal { size } => {
                let size = size.or_else(|| {
                    process
                        .console_size
                        .as_ref()
                        .map(|size| pty::Size { rows: size.height, columns: size.width })
                });
                Ok(Self::Terminal(size))
            }
            Stdio::Fds { stdin, stdout, stderr } => {
                let open = |fd: Option<OwnedFd>| -> Result<OwnedFd, Error> {
                    let fd = match fd {
                        Some(fd) => fd,
                        None => rustix::fs::open(
                            c"/dev/null",
                            OFlags::RDWR | OFlags::CLOEXEC,
                            Mode::empty(),
                        )
                        .step(step)?,
                    };
                    rustix::io::fcntl_dupfd_cloexec(&fd, 3).step(step)
                };
                Ok(Self::Fds([open(stdin)?, open(stdout)?, open(stderr)?]))
            }
        }
    }
}

/// The host's procfs, made certain to be that.
pub(crate) fn open_proc() -> Result<OwnedFd, Error> {
    let step = || "open /proc".to_owned();
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let proc = rustix::fs::open(c"/proc", flags, Mode::empty()).step(step)?;
    if crate::rootfs::filesystem(&proc).step(step)? != 0x9fa0 {
        return Err(Error::invalid("/proc is not procfs"));
    }
    Ok(proc)
}

impl Finish<'_> {
    /// Makes the streams the process's own. With a terminal, `devpts` is the root of the devpts
    /// in which it is made; its master goes to the maker, and the terminal is returned.
    pub(crate) fn take_streams(
        &self,
        channel: &Channel,
        devpts: impl FnOnce() -> Result<OwnedFd, Error>,
    ) -> Result<Option<OwnedFd>, Error> {
        let step = || "set standard streams".to_owned();
        match rustix::process::setsid() {
            // Already the leader of a session: the first process of a new pid namespace is not,
            // but a child of a caller that asked for its own session is.
            Ok(_) | Err(Errno::PERM) => {}
            Err(error) => return Err(Error::step("setsid", error)),
        }
        match &self.streams {
            Streams::Inherit => Ok(None),
            Streams::Fds(fds) => {
                for (number, fd) in (0..).zip(fds) {
                    process::duplicate_to(fd, number).step(step)?;
                }
                Ok(None)
            }
            Streams::Terminal(size) => {
                let step = || "make terminal".to_owned();
                let master =
                    pty::open_master(Some(std::os::fd::AsFd::as_fd(&devpts()?))).step(step)?;
                let terminal = pty::open_peer(&master).step(step)?;
                if crate::rootfs::filesystem(&terminal).step(step)?
                    != crate::rootfs::DEVPTS_SUPER_MAGIC
                {
                    return Err(Error::invalid("the terminal is not on devpts"));
                }
                if let Some(size) = *size {
                    pty::set_size(&terminal, size).step(step)?;
                }
                channel.send(&Message::Console(master)).step(step)?;
                for number in 0..3 {
                    process::duplicate_to(&terminal, number).step(step)?;
                }
                pty::set_controlling(&terminal).step(|| "set controlling terminal".into())?;
                Ok(Some(terminal))
            }
        }
    }

    /// Becomes ready to run the program: waits at `gate` and then does so. From the gate on only
    /// the descriptors `kept` are open, beside those of the program. Returns only with an error.
    pub(crate) fn run(
        self,
        channel: &Channel,
        kept: &[RawFd],
        make_cwd: bool,
        gate: impl FnOnce() -> Result<(), Error>,
    ) -> Error {
        // Its descriptors are closed on the way, without it.
        match ManuallyDrop::new(self).try_run(channel, kept, make_cwd, gate) {
            Ok(never) => match never {},
            Err(error) => error,
        }
    }

    fn try_run(
        &self,
        channel: &Channel,
        kept: &[RawFd],
        make_cwd: bool,
        gate: impl FnOnce() -> Result<(), Error>,
    ) -> Result<std::convert::Infallible, Error> {
        let process = self.process;
        self.own_streams();
        if let Some(personality) = self.personality {
            let domain = match personality.domain {
                PersonalityDomain::Linux => 0,
                PersonalityDomain::Linux32 => 8,
            };
            process::set_personality(domain).step(|| "set personality".into())?;
        }
        self.label()?;
        let environment = program::environment(&process.env, self.identity.uid().as_raw());
        if make_cwd {
            make_directory(&process.cwd)?;
        }
        self.identity.limit()?;
        if self.identity.no_new_privileges {
            rustix::thread::set_no_new_privs(true).step(|| "set no_new_privs".into())?;
        }
        let notifies = self.filter.as_ref().is_some_and(Program::notifies);
        // Without no_new_privs a filter needs CAP_SYS_ADMIN, which is about to go.
        let early = !self.identity.no_new_privileges;
        if early {
            self.load_filter(channel)?;
        }
        self.identity.bound()?;
        let as_root = enter_directory(&process.cwd);
        if let Some(umask) = self.identity.umask {
            rustix::process::umask(Mode::from_raw_mode(umask & 0o777));
        }
        self.identity.assume()?;
        if let Err(error) = as_root {
            // A directory that only the user may enter, as on a network file system.
            enter_directory(&process.cwd).map_err(|_| error)?;
        }
        let name = process.args.first().map_or("", String::as_str);
        let path = program::look_up(name, &environment)?;
        let arguments = program::c_strings(&process.args, "args")?;
        let environment = program::c_strings(&environment, "env")?;
        let path = path
            .to_str()
            .and_then(|path| std::ffi::CString::new(path).ok())
            .ok_or_else(|| Error::invalid("process.args contains a NUL byte"))?;
        let all: Vec<RawFd> = kept.iter().chain(&self.preserved).copied().collect();
        process::close_all_but(&all).step(|| "close descriptors".into())?;
        process::close_on_exec_from(3).step(|| "close descriptors".into())?;
        process::keep_over_exec(&self.preserved).step(|| "preserve descriptors".into())?;
        if !early && notifies {
            self.load_filter(channel)?;
        }
        gate()?;
        process::reset_signals().step(|| "reset signals".into())?;
        if !early && !notifies {
            self.load_filter(channel)?;
        }
        let error = process::execute(&path, &arguments, &environment);
        Err(program::exec_failure(name, &error))
    }

    fn load_filter(&self, channel: &Channel) -> Result<(), Error> {
        let Some(filter) = &self.filter else { return Ok(()) };
        let step = || "load seccomp filter".to_owned();
        let listener = silo_sys::seccomp::load(&filter.instructions, filter.flags).step(step)?;
        if let Some(listener) = listener {
            channel.send(&Message::Listener(listener)).step(step)?;
        }
        Ok(())
    }

    /// Gives the standard streams to the user, so that `/dev/stdout` can be opened again.
    fn own_streams(&self) {
        let uid = self.identity.uid();
        if uid.is_root() {
            return;
        }
        let stdio = [rustix::stdio::stdin(), rustix::stdio::stdout(), rustix::stdio::stderr()];
        for fd in stdio {
            let Ok(stat) = rustix::fs::fstat(fd) else { continue };
            let null = rustix::fs::makedev(1, 3);
            if stat.st_rdev == null || stat.st_uid == uid.as_raw() {
                continue;
            }
            // Where it cannot be given away, as on a read-only file system, it is not.
            let _best_effort = rustix::fs::fchown(fd, Some(uid), None::<Gid>);
        }
    }

    /// Asks the security modules for their labels at the execve(2) to come.
    fn label(&self) -> Result<(), Error> {
        let process = self.process;
        if !process.apparmor_profile.is_empty() {
            let text = format!("exec {}", process.apparmor_profile);
            if !self.write_attribute("self/attr/apparmor/exec", &text)?
                && !self.write_attribute("self/attr/exec", &text)?
            {
                return Err(Error::invalid("apparmor is not there for process.apparmorProfile"));
            }
        }
        if !process.selinux_label.is_empty()
            && !self.write_attribute("self/attr/exec", &process.selinux_label)?
        {
            return Err(Error::invalid("selinux is not there for process.selinuxLabel"));
        }
        Ok(())
    }

    /// Whether the attribute is there; it lies in the procfs that was verified.
    fn write_attribute(&self, name: &str, text: &str) -> Result<bool, Error> {
        let step = || format!("write {name}");
        let flags = OFlags::WRONLY | OFlags::CLOEXEC;
        let file = match rustix::fs::openat(&self.proc, name, flags, Mode::empty()) {
            Err(Errno::NOENT) => return Ok(false),
            result => result.step(step)?,
        };
        if crate::rootfs::filesystem(&file).step(step)? != 0x9fa0 {
            return Err(Error::invalid(format!("{name} is not in procfs")));
        }
        match rustix::io::write(&file, text.as_bytes()) {
            Err(Errno::INVAL) => Ok(false),
            result => {
                result.step(step)?;
                Ok(true)
            }
        }
    }
}

fn open_own_root() -> Result<OwnedFd, Error> {
    path::open_root("/").step(|| "open root".into())
}

/// Makes the working directory if it is missing.
fn make_directory(cwd: &Path) -> Result<(), Error> {
    let root = open_own_root()?;
    match path::mkdir_all_in_root(&root, cwd, Mode::from_raw_mode(0o755)) {
        Ok(_) => Ok(()),
        // What is wrong with it is said when it is entered.
        Err(error)
            if matches!(error.raw_os_error(), Some(libc::ENOTDIR | libc::ELOOP | libc::EROFS)) =>
        {
            Ok(())
        }
        Err(error) => Err(Error::step(format!("mkdir {}", cwd.display()), error)),
    }
}

/// Changes to the working directory. No magic link can be part of its name, so that no
/// descriptor that leads out of the root can be reached through procfs.
fn enter_directory(cwd: &Path) -> Result<(), Error> {
    if !cwd.is_absolute() {
        return Err(Error::invalid(format!("process.cwd {} is not absolute", cwd.display())));
    }
    let step =
        || format!("chdir to cwd ({:?}) set in config.json failed", cwd.display().to_string());
    let root = open_own_root()?;
    let flags = OFlags::PATH | OFlags::DIRECTORY;
    let directory = path::open_in_root(&root, cwd, flags, Mode::empty()).step(step)?;
    rustix::process::fchdir(&directory).step(step)?;
    let now = rustix::process::getcwd(Vec::new()).step(step)?;
    if now.to_bytes().first() != Some(&b'/') {
        return Err(Error::invalid("the working directory is outside of the container's root"));
    }
    Ok(())
}
