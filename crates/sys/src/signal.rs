//! Signals taken one at a time instead of by handlers, and the start of a child that gets its
//! own signals: what an init process and nothing else needs.
#![expect(unsafe_code, reason = "signal masks, sigwaitinfo and fork have no safe wrapper")]

use std::ffi::{CString, c_char, c_int, c_short};
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd, BorrowedFd};
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

/// Starts `command` (a path and its arguments) in a process group of its own with those standard
/// streams, with /dev/null for its errors, the caller's environment and the signal mask `mask`.
/// Returns its pid. The caller may have any number of threads.
pub fn spawn_with_streams(
    command: &[CString],
    mask: &Mask,
    input: BorrowedFd<'_>,
    output: BorrowedFd<'_>,
) -> io::Result<i32> {
    let Some(program) = command.first() else {
        return Err(io::Error::from_raw_os_error(libc::EINVAL));
    };
    let variables = std::env::vars_os()
        .map(|(mut variable, value)| {
            variable.push("=");
            variable.push(value);
            CString::new(variable.into_encoded_bytes())
        })
        .collect::<Result<Vec<_>, _>>()?;
    let pointers = |words: &[CString]| -> Vec<*mut c_char> {
        words.iter().map(|word| word.as_ptr().cast_mut()).chain([ptr::null_mut()]).collect()
    };
    let (argv, envp) = (pointers(command), pointers(&variables));
    let check = |error: c_int| match error {
        0 => Ok(()),
        error => Err(io::Error::from_raw_os_error(error)),
    };
    let mut pid = 0;
    let mut actions = MaybeUninit::<libc::posix_spawn_file_actions_t>::uninit();
    let mut attributes = MaybeUninit::<libc::posix_spawnattr_t>::uninit();
    let mut pipe = MaybeUninit::<libc::sigset_t>::uninit();
    // SAFETY: both objects are initialised before they are used and destroyed once; the arrays
    // end with null, and their strings live in `command` and `variables`, which posix_spawn does
    // not change; the descriptors are open during the call; `mask` is an initialised set.
    unsafe {
        check(libc::posix_spawn_file_actions_init(actions.as_mut_ptr()))?;
        if let Err(error) = check(libc::posix_spawnattr_init(attributes.as_mut_ptr())) {
            libc::posix_spawn_file_actions_destroy(actions.as_mut_ptr());
            return Err(error);
        }
        let (to, with) = (actions.as_mut_ptr(), attributes.as_mut_ptr());
        libc::sigemptyset(pipe.as_mut_ptr());
        libc::sigaddset(pipe.as_mut_ptr(), libc::SIGPIPE);
        let flags = libc::POSIX_SPAWN_SETSIGMASK
            | libc::POSIX_SPAWN_SETSIGDEF
            | libc::POSIX_SPAWN_SETPGROUP;
        let prepared = [
            libc::posix_spawn_file_actions_adddup2(to, input.as_raw_fd(), 0),
            libc::posix_spawn_file_actions_adddup2(to, output.as_raw_fd(), 1),
            libc::posix_spawn_file_actions_addopen(to, 2, c"/dev/null".as_ptr(), libc::O_WRONLY, 0),
            libc::posix_spawnattr_setsigmask(with, &raw const mask.0),
            libc::posix_spawnattr_setsigdefault(with, pipe.as_ptr()),
            libc::posix_spawnattr_setpgroup(with, 0),
            // The flags are small.
            libc::posix_spawnattr_setflags(with, c_short::try_from(flags).unwrap_or(0)),
        ];
        let error = prepared.into_iter().find(|&error| error != 0).unwrap_or_else(|| {
            libc::posix_spawn(
                &raw mut pid,
                program.as_ptr(),
                to,
                with,
                argv.as_ptr(),
                envp.as_ptr(),
            )
        });
        libc::posix_spawn_file_actions_destroy(to);
        libc::posix_spawnattr_destroy(with);
        check(error)?;
    }
    Ok(pid)
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

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::os::fd::AsFd;

    use super::*;

    #[test]
    fn a_child_gets_its_streams_and_mask() {
        std::thread::spawn(|| {
            let mask = block_all().unwrap();
            let (input, mut to_child) = io::pipe().unwrap();
            let (mut from_child, output) = io::pipe().unwrap();
            let script = "grep -E 'SigBlk|SigIgn' /proc/self/status; cat; echo lost >&2";
            let command = ["/bin/sh", "-c", script].map(|word| CString::new(word).unwrap());
            let pid = spawn_with_streams(&command, &mask, input.as_fd(), output.as_fd()).unwrap();
            drop((input, output));
            to_child.write_all(b"told").unwrap();
            drop(to_child);
            let mut text = String::new();
            from_child.read_to_string(&mut text).unwrap();
            let lines: Vec<&str> = text.lines().collect();
            assert_eq!((lines[0], lines[2]), ("SigBlk:\t0000000000000000", "told"), "{text}");
            let ignored = u64::from_str_radix(lines[1].split('\t').nth(1).unwrap(), 16).unwrap();
            assert_eq!(ignored & 1 << (libc::SIGPIPE - 1), 0, "{text}");
            assert!(pid > 0);
            let none = [CString::new("/no/such/program").unwrap()];
            let devices = std::fs::File::open("/dev/null").unwrap();
            let started = spawn_with_streams(&none, &mask, devices.as_fd(), devices.as_fd());
            assert_eq!(started.unwrap_err().kind(), io::ErrorKind::NotFound);
        })
        .join()
        .unwrap();
    }
}
