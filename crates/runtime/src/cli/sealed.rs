//! A program in a container can reach the binary that joined the container through procfs
//! (CVE-2019-5736). So the binary that does is one that nobody can write to.

use std::ffi::CString;
use std::io;
use std::os::fd::AsRawFd as _;
use std::os::unix::ffi::OsStringExt as _;

use rustix::fs::{Mode, OFlags, SealFlags, StatVfsMountFlags};

/// Executes this program again from a read-only mount or a sealed copy, with the same arguments
/// and environment, unless it is that already. Returns only in that case or with an error.
pub(super) fn reexecute() -> io::Result<()> {
    if is_sealed()? {
        return Ok(());
    }
    let sealed = silo_sys::spawn::sealed_self()?;
    let path = CString::new(format!("/proc/self/fd/{}", sealed.as_raw_fd()))?;
    let arguments = std::env::args_os()
        .map(|argument| CString::new(argument.into_vec()))
        .collect::<Result<Vec<_>, _>>()?;
    let environment = std::env::vars_os()
        .map(|(name, value)| {
            let mut entry = name.into_vec();
            entry.push(b'=');
            entry.extend(value.into_vec());
            CString::new(entry)
        })
        .collect::<Result<Vec<_>, _>>()?;
    Err(silo_sys::process::execute(&path, &arguments, &environment))
}

fn is_sealed() -> io::Result<bool> {
    let own = rustix::fs::open(c"/proc/self/exe", OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())?;
    let read_only = rustix::fs::fstatvfs(&own)?.f_flag.contains(StatVfsMountFlags::RDONLY);
    let sealed =
        rustix::fs::fcntl_get_seals(&own).is_ok_and(|seals| seals.contains(SealFlags::WRITE));
    Ok(read_only || sealed)
}
