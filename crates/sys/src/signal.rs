//! Signals taken one at a time instead of by handlers, and the start of a child that gets its
//! own signals: what an init process and nothing else needs.
#![expect(unsafe_code, reason = "signal masks, sigwaitinfo and fork have no safe wrapper")]

use std::ffi::{CString, c_char, c_int};
use std::io;
use std::mem::MaybeUninit;
use std::ptr;

/// The signal mask from before [`block_all`].
#[derive(Clone, Copy)]
pub struct Mask(libc::sigset_t);

impl std::fmt::Debug for Mask {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Mask")
    }
}

/// Blocks every signal for the calling thread except those that report its own faults.
pub fn block_all() -> io::Result<Mask> {
    let mut all = MaybeUninit::<libc::sigset_t>::uninit();
    let mut old = MaybeUninit::<libc::sigset_t>::uninit();
    // SAFETY: sigfillset initialises `all`, which the later calls read; `old` is only read
    // after pthread_sigmask has filled it.
    unsafe {
        libc::sigfillset(all.as_mut_ptr());
        for fault in [libc::SIGFPE, libc::SIGILL, libc::SIGSEGV, libc::SIGBUS, libc::SIGABRT] {
            libc::sigdelset(all.as_mut_ptr(), fault);
        }
        let error = libc::pthread_sigmask(libc::SIG_SETMASK, all.as_ptr(), old.as_mut_ptr());
        if error != 0 {
            return Err(io::Error::from_raw_os_error(error));
        }
        Ok(Mask(old.assume_init()))
    }
}

/// Waits for the next blocked signal and returns its number.
pub fn wait() -> io::Result<i32> {
    let mut all = MaybeUninit::<libc::sigset_t>::uninit();
    // SAFETY: sigfillset initialises the set; a null info pointer is allowed.
    let number = unsafe {
        libc::sigfillset(all.as_mut_ptr());
        libc::sigwaitinfo(all.as_ptr(), ptr::null_mut())
    };
    if number < 0 { Err(io::Error::last_os_error()) } else { Ok(number) }
}

/// Sends signal `number` to process `pid`, or to the process group `-pid`.
pub fn kill(pid: i32, number: i32) -> io::Result<()> {
    // SAFETY: kill takes plain numbers.
    if unsafe { libc::kill(pid, number) } < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// Starts `command` (searched in `PATH`) as the leader of a new process group, in the
/// foreground of the controlling terminal if there is one, with the signal mask `mask`.
/// Returns its pid. A program that cannot be run exits 127 when it is missing, else 126.
///
/// Only for a process with one thread.
pub fn spawn_foreground(command: &[CString], mask: &Mask) -> io::Result<i32> {
    let mut argv: Vec<*const c_char> = command.iter().map(|word| word.as_ptr()).collect();
    argv.push(ptr::null());
    if command.is_empty() {
        return Err(io::Error::from_raw_os_error(libc::EINVAL));
    }
    // SAFETY: the caller has one thread, so the child may use every library function.
    let pid = unsafe { libc::fork() };
    if pid < 0 {
        return Err(io::Error::last_os_error());
    }
    if pid > 0 {
        return Ok(pid);
    }
    // SAFETY: this is the child. `argv` is null-terminated and its strings live in `command`;
    // `mask` is an initialised set. A failed tcsetpgrp only means that there is no terminal.
    // SIGTTOU is blocked at this point, so the call does not stop the child.
    unsafe {
        libc::setpgid(0, 0);
        libc::tcsetpgrp(0, libc::getpid());
        libc::signal(libc::SIGPIPE, libc::SIG_DFL);
        libc::pthread_sigmask(libc::SIG_SETMASK, &raw const mask.0, ptr::null_mut());
        libc::execvp(argv[0], argv.as_ptr());
        let missing = io::Error::last_os_error().raw_os_error() == Some(libc::ENOENT);
        libc::_exit(if missing { 127 } else { 126 })
    }
}

/// Collects one child that has ended: its pid and the exit code that a shell would report for
/// it, 128 and the signal's number where a signal ended it. `None` when none has ended.
pub fn reap() -> io::Result<Option<(i32, i32)>> {
    let mut status: c_int = 0;
    // SAFETY: `status` is a valid place for the result.
    let pid = unsafe { libc::waitpid(-1, &raw mut status, libc::WNOHANG) };
    match pid {
        0 => Ok(None),
        1.. if libc::WIFEXITED(status) => Ok(Some((pid, libc::WEXITSTATUS(status)))),
        1.. => Ok(Some((pid, 128 + libc::WTERMSIG(status)))),
        _ => {
            let error = io::Error::last_os_error();
            if error.raw_os_error() == Some(libc::ECHILD) { Ok(None) } else { Err(error) }
        }
    }
}
