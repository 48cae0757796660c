//! Loading system call filters, seccomp(2).
#![expect(unsafe_code, reason = "seccomp(2) is not in rustix")]

use std::io;
use std::os::fd::{FromRawFd, OwnedFd};
use std::ptr;

/// `SECCOMP_FILTER_FLAG_TSYNC` and `SECCOMP_FILTER_FLAG_TSYNC_ESRCH`.
const FLAG_TSYNC: u32 = 1;
/// `SECCOMP_FILTER_FLAG_NEW_LISTENER`.
const FLAG_NEW_LISTENER: u32 = 1 << 3;

/// Loads `program` for the calling thread, from now on and for what it executes. With
/// `SECCOMP_FILTER_FLAG_NEW_LISTENER` in `flags` returns the listener's descriptor.
///
/// Needs no-new-privileges or the capability `CAP_SYS_ADMIN`.
pub fn load(program: &[libc::sock_filter], flags: u32) -> io::Result<Option<OwnedFd>> {
    let mut flags = flags;
    if flags & FLAG_NEW_LISTENER != 0 {
        // The two return values exclude each other; the caller has one thread anyway.
        flags &= !FLAG_TSYNC;
    }
    let length = u16::try_from(program.len())
        .map_err(|_| io::Error::new(io::ErrorKind::InvalidInput, "filter too long"))?;
    let filter = libc::sock_fprog { len: length, filter: program.as_ptr().cast_mut() };
    // SAFETY: the program's pointer and length belong together and the kernel only reads them.
    let result = unsafe {
        libc::syscall(
            libc::SYS_seccomp,
            libc::SECCOMP_SET_MODE_FILTER,
            flags,
            ptr::from_ref(&filter),
        )
    };
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    if flags & FLAG_NEW_LISTENER == 0 {
        return Ok(None);
    }
    let fd = i32::try_from(result).map_err(|_| io::Error::from(io::ErrorKind::InvalidData))?;
    // SAFETY: with this flag a success is a new descriptor, which nothing else owns.
    Ok(Some(unsafe { OwnedFd::from_raw_fd(fd) }))
}

/// Whether the kernel knows all of these `SECCOMP_FILTER_FLAG_*` bits.
pub fn knows_flags(flags: u32) -> bool {
    // SAFETY: with a null program the call ends in EFAULT if the flags are known, else EINVAL.
    let result = unsafe {
        libc::syscall(
            libc::SYS_seccomp,
            libc::SECCOMP_SET_MODE_FILTER,
            flags,
            ptr::null::<libc::sock_fprog>(),
        )
    };
    result < 0 && io::Error::last_os_error().raw_os_error() == Some(libc::EFAULT)
}

#[cfg(test)]
mod tests {
    #[test]
    fn unknown_flags_are_told() {
        assert!(super::knows_flags(1));
        assert!(!super::knows_flags(1 << 30));
    }
}
