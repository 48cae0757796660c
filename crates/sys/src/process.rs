//! Making processes and giving them what they keep over execve(2).
#![expect(unsafe_code, reason = "clone3(2) and process attributes are not in rustix or libc")]

use std::ffi::{CStr, CString};
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::ptr;
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::process::{Pid, WaitId, WaitIdOptions};

/// A new mount namespace; see [`fork`].
pub const NEW_MOUNT: u64 = 0x0002_0000;
/// A new cgroup namespace.
pub const NEW_CGROUP: u64 = 0x0200_0000;
/// A new UTS namespace.
pub const NEW_UTS: u64 = 0x0400_0000;
/// A new IPC namespace.
pub const NEW_IPC: u64 = 0x0800_0000;
/// A new user namespace.
pub const NEW_USER: u64 = 0x1000_0000;
/// A new pid namespace.
pub const NEW_PID: u64 = 0x2000_0000;
/// A new network namespace.
pub const NEW_NETWORK: u64 = 0x4000_0000;
/// A new time namespace.
pub const NEW_TIME: u64 = 0x0000_0080;
/// The child is a child of the caller's parent.
pub const AS_SIBLING: u64 = 0x0000_8000;

const CLONE_PIDFD: u64 = 0x0000_1000;
const CLONE_INTO_CGROUP: u64 = 0x2_0000_0000;

/// `struct clone_args` of clone3(2), as of Linux 5.7.
#[repr(C)]
#[derive(Default)]
struct CloneArgs {
    flags: u64,
    pidfd: u64,
    child_tid: u64,
    parent_tid: u64,
    exit_signal: u64,
    stack: u64,
    stack_size: u64,
    tls: u64,
    set_tid: u64,
    set_tid_size: u64,
    cgroup: u64,
}

/// A child that was made.
#[derive(Debug)]
pub struct Forked {
    /// Its process id as the caller sees it.
    pub pid: Pid,
    /// Readable when it has ended; close-on-exec.
    pub pidfd: OwnedFd,
}

/// Set in a process that [`fork`] made, which began with one thread; no child of ours makes more.
static ALONE: AtomicBool = AtomicBool::new(false);

/// Whether the calling process has no other thread.
pub fn is_single_threaded() -> io::Result<bool> {
    if ALONE.load(Ordering::Relaxed) {
        return Ok(true);
    }
    // The directory has one link for each thread, its own two aside.
    Ok(rustix::fs::stat(c"/proc/self/task")?.st_nlink == 3)
}

/// Runs `child` in a new process, which then exits with the status that it returns.
///
/// `flags` are the `NEW_*` constants and [`AS_SIBLING`]; with `cgroup`, a directory of a cgroup
/// of version 2, the child begins its life there. No signal tells the parent of the child's
/// end: wait by [`wait`].
///
/// The child is a copy with everything that the caller had, so it may use all of it; for that
/// the caller must be alone in its process, and gets [`io::ErrorKind::Unsupported`] if not. A
/// panic of `child` ends the copy with status 101.
pub fn fork(
    flags: u64,
    cgroup: Option<BorrowedFd<'_>>,
    child: impl FnOnce() -> u8,
) -> io::Result<Forked> {
    if !is_single_threaded()? {
        return Err(io::Error::new(
            io::ErrorKind::Unsupported,
            "a process with several threads cannot be copied",
        ));
    }
    let mut pidfd: RawFd = -1;
    let mut arguments = CloneArgs {
        flags: flags | CLONE_PIDFD,
        pidfd: ptr::from_mut(&mut pidfd) as u64,
        ..CloneArgs::default()
    };
    let mut size = std::mem::offset_of!(CloneArgs, set_tid);
    if let Some(cgroup) = cgroup {
        arguments.flags |= CLONE_INTO_CGROUP;
        arguments.cgroup = u64::try_from(cgroup.as_raw_fd())
            .map_err(|_| io::Error::from(io::ErrorKind::InvalidInput))?;
        size = size_of::<CloneArgs>();
    }
    // SAFETY: `arguments` and `pidfd` live through the call and have the size passed. Without
    // CLONE_VM the child has its own copy of the memory and returns here on a copy of this
    // stack; the process has one thread, so no lock in the copy is held by a missing thread.
    let result = unsafe { libc::syscall(libc::SYS_clone3, ptr::from_mut(&mut arguments), size) };
    if result == 0 {
        ALONE.store(true, Ordering::Relaxed);
        let unwinding = EndOnUnwind;
        let status = child();
        std::mem::forget(unwinding);
        // SAFETY: ends the process without running what the parent registered for its own end.
        unsafe { libc::_exit(i32::from(status)) }
    }
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    let pid = i32::try_from(result).ok().and_then(Pid::from_raw);
    let pid = pid.ok_or_else(|| io::Error::from(io::ErrorKind::InvalidData))?;
    // SAFETY: the kernel stored a new descriptor, which nothing else owns.
    let pidfd = unsafe { OwnedFd::from_raw_fd(pidfd) };
    Ok(Forked { pid, pidfd })
}

/// The status of a child that panicked, as of a program of Rust.
const PANICKED: i32 = 101;

/// Ends a copy of a process in which something unwinds, before it gets to what is the caller's.
struct EndOnUnwind;

impl Drop for EndOnUnwind {
    fn drop(&mut self) {
        // SAFETY: ends the process without running anything else.
        unsafe { libc::_exit(PANICKED) }
    }
}

/// How a process ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ended {
    /// By itself, with this status.
    Exited(i32),
    /// By this signal.
    Killed(i32),
}

impl Ended {
    /// The status that a shell shows: 128 plus the signal for a killed process.
    pub fn code(self) -> i32 {
        match self {
            Self::Exited(code) => code,
            Self::Killed(signal) => 128 + signal,
        }
    }
}

/// Waits until the child behind `pidfd` has ended, and removes it from the process table.
pub fn wait(pidfd: impl AsFd) -> io::Result<Ended> {
    match wait_with(pidfd, WaitIdOptions::EXITED)? {
        Some(ended) => Ok(ended),
        None => Err(io::Error::from(io::ErrorKind::WouldBlock)),
    }
}

/// As [`wait`], but `None` at once if it has not ended.
pub fn try_wait(pidfd: impl AsFd) -> io::Result<Option<Ended>> {
    wait_with(pidfd, WaitIdOptions::EXITED | WaitIdOptions::NOHANG)
}

fn wait_with(pidfd: impl AsFd, options: WaitIdOptions) -> io::Result<Option<Ended>> {
    // The exit signal of our children is 0, so they are only found with __WALL.
    let options = options | WaitIdOptions::from_bits_retain(0x4000_0000);
    loop {
        match rustix::process::waitid(WaitId::PidFd(pidfd.as_fd()), options) {
            Ok(None) => return Ok(None),
            Ok(Some(status)) => {
                return Ok(Some(match status.exit_status() {
                    Some(code) => Ended::Exited(code),
                    None => Ended::Killed(status.terminating_signal().unwrap_or(0)),
                }));
            }
            Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
}

/// Replaces the program of this process; returns only with an error.
pub fn execute(program: &CStr, arguments: &[CString], environment: &[CString]) -> io::Error {
    let pointers = |strings: &[CString]| -> Vec<*const libc::c_char> {
        strings.iter().map(|string| string.as_ptr()).chain([ptr::null()]).collect()
    };
    let (arguments, environment) = (pointers(arguments), pointers(environment));
    // SAFETY: the three are NUL-terminated strings and null-terminated arrays of such, alive
    // through the call.
    unsafe { libc::execve(program.as_ptr(), arguments.as_ptr(), environment.as_ptr()) };
    io::Error::last_os_error()
}

/// Makes every descriptor from `first` on close-on-exec.
pub fn close_on_exec_from(first: u32) -> io::Result<()> {
    const CLOSE_RANGE_CLOEXEC: u32 = 4;
    // SAFETY: sets flags of descriptors; no memory is involved.
    let result =
        unsafe { libc::syscall(libc::SYS_close_range, first, u32::MAX, CLOSE_RANGE_CLOEXEC) };
    if result == 0 {
        return Ok(());
    }
    let error = io::Error::last_os_error();
    // Linux 5.9 and 5.10 know the call without the flag.
    if !matches!(error.raw_os_error(), Some(libc::EINVAL | libc::ENOSYS)) {
        return Err(error);
    }
    let flags = rustix::fs::OFlags::DIRECTORY | rustix::fs::OFlags::CLOEXEC;
    let list = rustix::fs::open(c"/proc/self/fd", flags, rustix::fs::Mode::empty())?;
    let mut entries = rustix::fs::Dir::read_from(&list)?;
    while let Some(entry) = entries.read() {
        let number = entry?.file_name().to_str().ok().and_then(|name| name.parse::<i32>().ok());
        if let Some(number) =
            number.filter(|&number| u32::try_from(number).is_ok_and(|n| n >= first))
        {
            // SAFETY: sets a flag of a descriptor number that the list just showed.
            unsafe { libc::fcntl(number, libc::F_SETFD, libc::FD_CLOEXEC) };
        }
    }
    Ok(())
}

/// Closes every descriptor from 3 on but those in `kept`, at once and whoever owns them.
///
/// For a process that is about to execute a program: values that own a closed descriptor must
/// not be used or dropped any more.
pub fn close_all_but(kept: &[RawFd]) -> io::Result<()> {
    let mut kept: Vec<u32> =
        kept.iter().filter_map(|&number| u32::try_from(number).ok()).filter(|n| *n > 2).collect();
    kept.sort_unstable();
    let mut first = 3;
    for end in kept.into_iter().chain([u32::MAX]) {
        if first < end {
            // SAFETY: the callers give up what owned these descriptors.
            let result = unsafe { libc::syscall(libc::SYS_close_range, first, end - 1, 0) };
            if result != 0 {
                return Err(io::Error::last_os_error());
            }
        }
        first = end.saturating_add(1);
    }
    Ok(())
}

/// Makes descriptors survive execve(2). Fails for one that is not open.
pub fn keep_over_exec(numbers: &[RawFd]) -> io::Result<()> {
    for &number in numbers {
        // SAFETY: clears a flag of a descriptor number; a wrong one is an error.
        if unsafe { libc::fcntl(number, libc::F_SETFD, 0) } < 0 {
            return Err(io::Error::last_os_error());
        }
    }
    Ok(())
}

/// Whether a descriptor is open and not close-on-exec.
pub fn survives_exec(number: RawFd) -> bool {
    // SAFETY: reads the flags of a descriptor number; a wrong one is an error.
    let flags = unsafe { libc::fcntl(number, libc::F_GETFD) };
    flags >= 0 && flags & libc::FD_CLOEXEC == 0
}

/// Makes `fd` the standard stream `target` (0, 1 or 2; others are `InvalidInput`), to survive
/// execve(2).
pub fn duplicate_to(fd: impl AsFd, target: RawFd) -> io::Result<()> {
    if !(0..=2).contains(&target) {
        return Err(io::Error::from(io::ErrorKind::InvalidInput));
    }
    // SAFETY: dup2 replaces a standard stream, which no owner closes.
    if unsafe { libc::dup2(fd.as_fd().as_raw_fd(), target) } < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}

/// The arguments of `sched_setattr`.
#[derive(Debug, Clone, Copy, Default)]
pub struct Scheduling {
    /// `SCHED_*`.
    pub policy: u32,
    /// `SCHED_FLAG_*`.
    pub flags: u64,
    /// The nice value.
    pub nice: i32,
    /// The static priority.
    pub priority: u32,
    /// Nanoseconds of run time.
    pub runtime: u64,
    /// Nanoseconds until the deadline.
    pub deadline: u64,
    /// Nanoseconds of the period.
    pub period: u64,
}

/// Sets the scheduling policy of the calling thread.
pub fn set_scheduling(scheduling: Scheduling) -> io::Result<()> {
    let attributes = libc::sched_attr {
        size: 48,
        sched_policy: scheduling.policy,
        sched_flags: scheduling.flags,
        sched_nice: scheduling.nice,
        sched_priority: scheduling.priority,
        sched_runtime: scheduling.runtime,
        sched_deadline: scheduling.deadline,
        sched_period: scheduling.period,
    };
    // SAFETY: the structure is live, of the size that it says, and only read.
    check(unsafe { libc::syscall(libc::SYS_sched_setattr, 0, ptr::from_ref(&attributes), 0) })
}

/// Sets the input and output priority of the calling process: a class (1 to 3) and a level.
pub fn set_io_priority(class: u8, level: u8) -> io::Result<()> {
    const IOPRIO_WHO_PROCESS: i32 = 1;
    let value = i32::from(class) << 13 | i32::from(level);
    // SAFETY: numbers only.
    check(unsafe { libc::syscall(libc::SYS_ioprio_set, IOPRIO_WHO_PROCESS, 0, value) })
}

/// Sets the execution domain of the calling process.
pub fn set_personality(domain: u32) -> io::Result<()> {
    // SAFETY: numbers only.
    if unsafe { libc::personality(libc::c_ulong::from(domain)) } < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}

/// Sets the memory policy of the calling thread: `MPOL_*` with flags, and the nodes as bits.
pub fn set_memory_policy(mode: i32, nodes: &[u64]) -> io::Result<()> {
    // The kernel takes one bit less than it is told.
    let bits = if nodes.is_empty() { 0 } else { nodes.len() * 64 + 1 };
    let mask = if nodes.is_empty() { ptr::null() } else { nodes.as_ptr() };
    // SAFETY: the mask has the number of bits that is passed and is only read.
    check(unsafe { libc::syscall(libc::SYS_set_mempolicy, mode, mask, bits) })
}

/// Joins the session keyring with this name, which is made if it is missing, or a new one
/// without a name.
pub fn join_session_keyring(name: Option<&CStr>) -> io::Result<()> {
    const KEYCTL_JOIN_SESSION_KEYRING: libc::c_long = 1;
    let name = name.map_or(ptr::null(), CStr::as_ptr);
    // SAFETY: the name ends with NUL and is only read; null stands for none.
    let result = unsafe { libc::syscall(libc::SYS_keyctl, KEYCTL_JOIN_SESSION_KEYRING, name) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// Sets a resource limit of the calling process by its number.
pub fn set_resource_limit(resource: u32, soft: u64, hard: u64) -> io::Result<()> {
    let limit = libc::rlimit64 { rlim_cur: soft, rlim_max: hard };
    // SAFETY: the limit is live and only read; no old limit is asked for.
    check(unsafe {
        libc::syscall(
            libc::SYS_prlimit64,
            0,
            resource,
            ptr::from_ref(&limit),
            ptr::null_mut::<libc::rlimit64>(),
        )
    })
}

/// Whether `pidfd`'s process accepts `signal` from us, sent as kill(2) would; 0 only asks.
pub fn send_signal(pidfd: impl AsFd, signal: i32) -> io::Result<()> {
    // SAFETY: numbers and a null pointer for the default signal information.
    check(unsafe {
        libc::syscall(
            libc::SYS_pidfd_send_signal,
            pidfd.as_fd().as_raw_fd(),
            signal,
            ptr::null::<libc::siginfo_t>(),
            0,
        )
    })
}

/// Keeps every signal from the calling thread that does not tell of a fault of its own; SIGKILL
/// and SIGSTOP come all the same. Processes that it makes inherit this: see [`reset_signals`].
pub fn block_signals() -> io::Result<()> {
    const FAULTS: [i32; 7] = [
        libc::SIGABRT,
        libc::SIGBUS,
        libc::SIGFPE,
        libc::SIGILL,
        libc::SIGSEGV,
        libc::SIGSYS,
        libc::SIGTRAP,
    ];
    // SAFETY: the set is initialised by the library before it is used; the old one is not asked
    // for.
    unsafe {
        let mut blocked: libc::sigset_t = std::mem::zeroed();
        libc::sigfillset(&raw mut blocked);
        for signal in FAULTS {
            libc::sigdelset(&raw mut blocked, signal);
        }
        check(libc::c_long::from(libc::sigprocmask(
            libc::SIG_SETMASK,
            &raw const blocked,
            ptr::null_mut(),
        )))
    }
}

/// Gives every signal its default disposition and lets all through.
pub fn reset_signals() -> io::Result<()> {
    // `struct sigaction` of the kernel, or more: SIG_DFL, no flags, an empty mask.
    let default = [0_u64; 4];
    for signal in 1..=64 {
        // By the call itself: the library keeps some numbers to itself, which a spawned program
        // finds ignored. Those that cannot be changed report an error.
        // SAFETY: the action is live and only read; the old one is not asked for; 8 is the size
        // of a mask.
        unsafe {
            let nothing = ptr::null_mut::<u64>();
            libc::syscall(libc::SYS_rt_sigaction, signal, default.as_ptr(), nothing, 8_usize);
        }
    }
    // SAFETY: the set is initialised by the library before it is used; the old one is not asked
    // for.
    unsafe {
        let mut none: libc::sigset_t = std::mem::zeroed();
        libc::sigemptyset(&raw mut none);
        check(libc::c_long::from(libc::sigprocmask(
            libc::SIG_SETMASK,
            &raw const none,
            ptr::null_mut(),
        )))
    }
}

fn check(result: libc::c_long) -> io::Result<()> {
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_standard_streams_are_replaced() {
        let input = rustix::stdio::stdin();
        for target in [-1, 3, 100] {
            let error = duplicate_to(input, target).unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::InvalidInput, "{target}");
        }
    }
}
