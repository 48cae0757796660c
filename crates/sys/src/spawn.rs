//! Programs started from a process with threads, and our own binary in a form that no guest
//! can write to.

use std::ffi::{CStr, CString};
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::ptr;

use rustix::process::{Pid, PidfdFlags};

/// A program that was started: our child until it has been waited for.
#[derive(Debug)]
pub struct Spawned {
    /// Its process id.
    pub pid: Pid,
    /// Readable when it has ended; close-on-exec.
    pub pidfd: OwnedFd,
}

/// Starts the program behind `exe` in a new session with working directory `/`, default signal
/// dispositions and an empty signal mask. It has exactly the descriptors of `fds` (each as its
/// target number) and 0, 1, 2 on `/dev/null` unless mapped, given that all others of this
/// process are close-on-exec.
///
/// Returns when the program has been executed, so an error of `execve(2)` is an error here.
/// The work after the fork is that of the C library's `posix_spawn`: the child borrows our
/// memory until it executes, so it costs no copy of page tables and allocates nothing.
#[expect(unsafe_code, reason = "posix_spawn is an interface of raw pointers")]
pub fn spawn(
    exe: BorrowedFd<'_>,
    argv: &[CString],
    env: &[CString],
    fds: &[(BorrowedFd<'_>, RawFd)],
) -> io::Result<Spawned> {
    // A source that is itself some target could be overwritten before its turn.
    let top = fds.iter().map(|&(_, target)| target).max().unwrap_or(2).max(2) + 1;
    let mut moved = Vec::new();
    let mut sources = Vec::with_capacity(fds.len());
    for (source, _) in fds {
        if source.as_raw_fd() < top {
            let copy = rustix::io::fcntl_dupfd_cloexec(source, top)?;
            sources.push(copy.as_raw_fd());
            moved.push(copy);
        } else {
            sources.push(source.as_raw_fd());
        }
    }
    let exe_copy;
    let exe_number = if exe.as_raw_fd() < top {
        exe_copy = rustix::io::fcntl_dupfd_cloexec(exe, top)?;
        exe_copy.as_raw_fd()
    } else {
        exe.as_raw_fd()
    };
    let path = CString::new(format!("/proc/self/fd/{exe_number}"))?;
    let argv = pointers(argv);
    let env = pointers(env);

    let mut actions = Actions::new()?;
    for number in 0..=2 {
        if !fds.iter().any(|&(_, target)| target == number) {
            actions.open(number, c"/dev/null")?;
        }
    }
    for (&source, &(_, target)) in sources.iter().zip(fds) {
        actions.dup2(source, target)?;
    }
    actions.chdir(c"/")?;
    let attributes = Attributes::new_session()?;

    let mut pid = 0;
    // SAFETY: path, argv and env are NUL-terminated and end with a null pointer; actions and
    // attributes are initialised and outlive the call.
    check(unsafe {
        libc::posix_spawn(
            &raw mut pid,
            path.as_ptr(),
            &raw const actions.0,
            &raw const attributes.0,
            argv.as_ptr(),
            env.as_ptr(),
        )
    })?;
    drop(moved);
    let pid = Pid::from_raw(pid).ok_or(io::ErrorKind::InvalidData)?;
    // Nobody else waits for this child, so the number cannot have been used again.
    let pidfd = rustix::process::pidfd_open(pid, PidfdFlags::empty())?;
    Ok(Spawned { pid, pidfd })
}

/// Takes over descriptor `number`, which the program was started with, and makes it
/// close-on-exec. Fails with `NotFound` when there is none, and with `InvalidInput` for the
/// standard streams, which are the standard library's.
///
/// Whatever this program opened itself is close-on-exec and so is never taken for inherited.
#[expect(unsafe_code, reason = "a number becomes a descriptor")]
pub fn inherited(number: RawFd) -> io::Result<OwnedFd> {
    use rustix::io::FdFlags;
    if number <= 2 {
        return Err(io::Error::from(io::ErrorKind::InvalidInput));
    }
    let missing = || io::Error::from(io::ErrorKind::NotFound);
    // SAFETY: fcntl takes a number; whether it is open is what the call tells.
    let flags = unsafe { libc::fcntl(number, libc::F_GETFD) };
    if flags < 0 || flags & libc::FD_CLOEXEC != 0 {
        return Err(missing());
    }
    // SAFETY: it is open, and nothing in this process owns it: all that Rust code opens is
    // close-on-exec, and so is every descriptor that was taken before.
    let fd = unsafe { OwnedFd::from_raw_fd(number) };
    rustix::io::fcntl_setfd(&fd, FdFlags::CLOEXEC)?;
    Ok(fd)
}

fn pointers(strings: &[CString]) -> Vec<*mut libc::c_char> {
    strings.iter().map(|s| s.as_ptr().cast_mut()).chain([ptr::null_mut()]).collect()
}

/// `posix_spawn` functions return the error number instead of setting `errno`.
fn check(code: libc::c_int) -> io::Result<()> {
    if code == 0 { Ok(()) } else { Err(io::Error::from_raw_os_error(code)) }
}

struct Actions(libc::posix_spawn_file_actions_t);

#[expect(unsafe_code, reason = "posix_spawn is an interface of raw pointers")]
impl Actions {
    fn new() -> io::Result<Self> {
        let mut raw = std::mem::MaybeUninit::uninit();
        // SAFETY: init writes the whole object before it is assumed to be initialised.
        unsafe {
            check(libc::posix_spawn_file_actions_init(raw.as_mut_ptr()))?;
            Ok(Self(raw.assume_init()))
        }
    }

    fn open(&mut self, number: RawFd, path: &CStr) -> io::Result<()> {
        // SAFETY: self.0 is initialised; the function copies the path.
        check(unsafe {
            libc::posix_spawn_file_actions_addopen(
                &raw mut self.0,
                number,
                path.as_ptr(),
                libc::O_RDWR,
                0,
            )
        })
    }

    fn dup2(&mut self, source: RawFd, target: RawFd) -> io::Result<()> {
        // SAFETY: self.0 is initialised.
        check(unsafe { libc::posix_spawn_file_actions_adddup2(&raw mut self.0, source, target) })
    }

    fn chdir(&mut self, path: &CStr) -> io::Result<()> {
        // SAFETY: self.0 is initialised; the function copies the path.
        check(unsafe { libc::posix_spawn_file_actions_addchdir_np(&raw mut self.0, path.as_ptr()) })
    }
}

impl Drop for Actions {
    #[expect(unsafe_code, reason = "posix_spawn is an interface of raw pointers")]
    fn drop(&mut self) {
        // SAFETY: initialised in `new`, destroyed once.
        unsafe { libc::posix_spawn_file_actions_destroy(&raw mut self.0) };
    }
}

struct Attributes(libc::posix_spawnattr_t);

impl Attributes {
    #[expect(unsafe_code, reason = "posix_spawn is an interface of raw pointers")]
    fn new_session() -> io::Result<Self> {
        let flags = libc::POSIX_SPAWN_SETSIGDEF
            | libc::POSIX_SPAWN_SETSIGMASK
            | libc::c_int::from(libc::POSIX_SPAWN_SETSID);
        let flags = libc::c_short::try_from(flags).map_err(io::Error::other)?;
        let mut raw = std::mem::MaybeUninit::uninit();
        // SAFETY: init writes the whole object; the signal sets are filled before they are read.
        unsafe {
            check(libc::posix_spawnattr_init(raw.as_mut_ptr()))?;
            let mut this = Self(raw.assume_init());
            let (mut all, mut none) = (std::mem::zeroed(), std::mem::zeroed());
            libc::sigfillset(&raw mut all);
            libc::sigemptyset(&raw mut none);
            check(libc::posix_spawnattr_setsigdefault(&raw mut this.0, &raw const all))?;
            check(libc::posix_spawnattr_setsigmask(&raw mut this.0, &raw const none))?;
            check(libc::posix_spawnattr_setflags(&raw mut this.0, flags))?;
            Ok(this)
        }
    }
}

impl Drop for Attributes {
    #[expect(unsafe_code, reason = "posix_spawn is an interface of raw pointers")]
    fn drop(&mut self) {
        // SAFETY: initialised in `new_session`, destroyed once.
        unsafe { libc::posix_spawnattr_destroy(&raw mut self.0) };
    }
}

/// Our own binary, such that `/proc/<pid>/exe` of a process made from it can never be opened
/// for writing, not even by a root user of a container (CVE-2019-5736).
///
/// With the right to mount: a detached read-only bind mount of the binary, which costs no
/// memory. Otherwise a sealed copy in memory.
pub fn sealed_self() -> io::Result<OwnedFd> {
    match read_only_self() {
        Ok(fd) => Ok(fd),
        Err(_) => sealed_copy(),
    }
}

#[expect(unsafe_code, reason = "the new mount calls are raw system calls")]
fn read_only_self() -> io::Result<OwnedFd> {
    use rustix::mount::OpenTreeFlags;
    let tree = rustix::mount::open_tree(
        rustix::fs::CWD,
        "/proc/self/exe",
        OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC,
    )?;
    let attributes = libc::mount_attr {
        attr_set: libc::MOUNT_ATTR_RDONLY | libc::MOUNT_ATTR_NODEV,
        attr_clr: 0,
        propagation: 0,
        userns_fd: 0,
    };
    // SAFETY: the path is an empty C string, the structure is initialised and its size is given.
    let code = unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            tree.as_raw_fd(),
            c"".as_ptr(),
            libc::AT_EMPTY_PATH,
            &raw const attributes,
            size_of::<libc::mount_attr>(),
        )
    };
    if code < 0 { Err(io::Error::last_os_error()) } else { Ok(tree) }
}

fn sealed_copy() -> io::Result<OwnedFd> {
    use rustix::fs::{MemfdFlags, SealFlags};
    let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
    // Kernels from 6.3 warn without MFD_EXEC; older ones do not know it.
    let copy = rustix::fs::memfd_create("silo", flags | MemfdFlags::EXEC)
        .or_else(|_| rustix::fs::memfd_create("silo", flags))?;
    let mut source = std::fs::OpenOptions::new().read(true).open("/proc/self/exe")?;
    let mut target = std::fs::File::from(copy);
    io::copy(&mut source, &mut target)?;
    let copy = OwnedFd::from(target);
    rustix::fs::fcntl_add_seals(
        &copy,
        SealFlags::SEAL | SealFlags::SHRINK | SealFlags::GROW | SealFlags::WRITE,
    )?;
    Ok(copy)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Read;
    use std::os::fd::AsFd;

    fn strings(list: &[&str]) -> Vec<CString> {
        list.iter().map(|&s| CString::new(s).unwrap()).collect()
    }

    fn wait(child: &Spawned) -> i32 {
        let status =
            rustix::process::waitpid(Some(child.pid), rustix::process::WaitOptions::empty());
        status.unwrap().unwrap().1.exit_status().unwrap_or(-1)
    }

    fn shell() -> OwnedFd {
        OwnedFd::from(std::fs::OpenOptions::new().read(true).open("/bin/sh").unwrap())
    }

    #[test]
    fn child_has_its_descriptors_session_and_directory() {
        let (read, write) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC).unwrap();
        let script =
            "pwd >&3; readlink /proc/self/fd/0 >&3; ps -o sid= -p $$ >&3; echo $$ >&3; echo $A >&3";
        let child = spawn(
            shell().as_fd(),
            &strings(&["sh", "-c", script]),
            &strings(&["A=b", "PATH=/bin:/usr/bin"]),
            &[(write.as_fd(), 3)],
        )
        .unwrap();
        drop(write);
        let mut text = String::new();
        std::fs::File::from(read).read_to_string(&mut text).unwrap();
        assert_eq!(wait(&child), 0);
        let lines: Vec<_> = text.lines().map(str::trim).collect();
        assert_eq!(lines[..2], ["/", "/dev/null"]);
        assert_eq!(lines[2], lines[3]);
        assert_eq!(lines[4], "b");
    }

    #[test]
    fn sources_and_targets_may_cross() {
        let pipe = || rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC).unwrap();
        let ((read_a, write_a), (read_b, write_b)) = (pipe(), pipe());
        let (a, b) = (write_a.as_raw_fd(), write_b.as_raw_fd());
        let script = format!("echo a >&{b}; echo b >&{a}");
        let child = spawn(
            shell().as_fd(),
            &strings(&["sh", "-c", &script]),
            &[],
            &[(write_a.as_fd(), b), (write_b.as_fd(), a)],
        )
        .unwrap();
        // Pipe numbers above 9 are no redirection targets in every shell; skip judging those.
        let code = wait(&child);
        drop((write_a, write_b));
        if a < 10 && b < 10 {
            assert_eq!(code, 0);
            for (read, wanted) in [(read_a, "a\n"), (read_b, "b\n")] {
                let mut text = String::new();
                std::fs::File::from(read).read_to_string(&mut text).unwrap();
                assert_eq!(text, wanted);
            }
        }
    }

    #[test]
    fn standard_streams_are_not_taken_over() {
        for number in -1..=2 {
            assert_eq!(inherited(number).unwrap_err().kind(), io::ErrorKind::InvalidInput);
        }
    }

    #[test]
    fn a_failed_exec_is_an_error() {
        let null = OwnedFd::from(std::fs::OpenOptions::new().read(true).open("/dev/null").unwrap());
        let error = spawn(null.as_fd(), &strings(&["x"]), &[], &[]).unwrap_err();
        assert_eq!(error.raw_os_error(), Some(libc::EACCES));
    }

    #[test]
    fn sealed_binaries_run_and_cannot_be_written() {
        for exe in [read_only_self().ok(), Some(sealed_copy().unwrap())].into_iter().flatten() {
            let path = format!("/proc/self/fd/{}", exe.as_raw_fd());
            // A sealed file may be opened, but never takes a byte.
            let written = std::fs::OpenOptions::new()
                .write(true)
                .open(&path)
                .and_then(|mut file| io::Write::write(&mut file, b"x"));
            assert!(written.is_err());
            let child = spawn(exe.as_fd(), &strings(&["test", "--list"]), &[], &[]).unwrap();
            let running = format!("/proc/{}/exe", child.pid.as_raw_nonzero());
            assert!(std::fs::OpenOptions::new().write(true).open(running).is_err());
            assert_eq!(wait(&child), 0);
        }
    }
}
