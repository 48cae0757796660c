//! Kernel parameters below `/proc/sys/net` of the calling thread's network namespace.
//!
//! Every access goes through a descriptor of `/proc` that was checked to be procfs, beneath
//! which no symbolic link and no other mount is followed, so that a parameter can not be
//! redirected to another file.

use std::io::{self, Read as _, Write as _};

use rustix::fs::{Mode, OFlags, ResolveFlags};

use crate::NetError;

fn open(name: &str, flags: OFlags) -> io::Result<std::fs::File> {
    let directory = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let proc = rustix::fs::open("/proc", directory, Mode::empty())?;
    if rustix::fs::fstatfs(&proc)?.f_type != rustix::fs::PROC_SUPER_MAGIC {
        return Err(io::Error::other("/proc is not procfs"));
    }
    let file = rustix::fs::openat2(
        &proc,
        format!("sys/net/{name}"),
        flags | OFlags::CLOEXEC,
        Mode::empty(),
        ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_XDEV,
    )?;
    Ok(file.into())
}

/// Sets the parameter `name`, for instance `ipv4/ip_forward`, unless it has the value already.
pub(crate) fn set(name: &str, value: &str) -> Result<(), NetError> {
    write(name, value).map_err(|source| NetError::Sysctl { name: name.to_owned(), source })
}

fn write(name: &str, value: &str) -> io::Result<()> {
    // Host parameters may be read-only for us and right all the same.
    if read(name).is_ok_and(|now| now == value) {
        return Ok(());
    }
    open(name, OFlags::WRONLY)?.write_all(value.as_bytes())
}

/// Sets a parameter that a kernel without IPv6 does not have.
pub(crate) fn set_if_present(name: &str, value: &str) -> Result<(), NetError> {
    match write(name, value) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        result => result.map_err(|source| NetError::Sysctl { name: name.to_owned(), source }),
    }
}

/// The value of a parameter without white space around it.
pub(crate) fn read(name: &str) -> io::Result<String> {
    let mut text = String::new();
    open(name, OFlags::RDONLY)?.read_to_string(&mut text)?;
    text.truncate(text.trim_end().len());
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_those_of_the_threads_namespace() {
        std::thread::spawn(|| {
            silo_sys::netns::unshare().unwrap();
            set("ipv4/ip_forward", "1").unwrap();
            assert_eq!(read("ipv4/ip_forward").unwrap(), "1");
            set("ipv4/ip_forward", "0").unwrap();
            assert_eq!(read("ipv4/ip_forward").unwrap(), "0");
            set_if_present("ipv6/conf/nothing/disable_ipv6", "1").unwrap();
            assert!(set("ipv4/conf/nothing/route_localnet", "1").is_err());
        })
        .join()
        .unwrap();
    }

    #[test]
    fn links_are_not_followed() {
        // /proc/self is a symbolic link.
        assert!(open("../../self/comm", OFlags::RDONLY).is_err());
        assert!(open("../../../etc/passwd", OFlags::RDONLY).is_err());
    }
}
