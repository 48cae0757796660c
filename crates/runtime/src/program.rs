//! Finding the program that a process runs, and the words for not finding it.

use std::ffi::{CString, OsStr};
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

use rustix::fs::{Access, AtFlags, CWD, FileType, Mode, OFlags};
use rustix::io::Errno;
use silo_sys::path;

use crate::error::{Error, plain};

/// The largest `/etc/passwd` that is looked at.
const PASSWD_MAX: u64 = 4 << 20;

/// `exec: "x": reason`, as clients of Docker expect it.
fn failure(name: &str, reason: &str, status: u8) -> Error {
    Error::Program { text: format!("exec: {name:?}: {reason}"), status }
}

/// What a failed execve(2) means.
pub(crate) fn exec_failure(name: &str, error: &std::io::Error) -> Error {
    let status = if error.kind() == std::io::ErrorKind::NotFound { 127 } else { 126 };
    failure(name, &plain(error), status)
}

/// Looks a program up as a shell does, with the `PATH` of `environment`: names with a slash
/// are taken as they are, from the working directory.
pub(crate) fn look_up(name: &str, environment: &[String]) -> Result<PathBuf, Error> {
    if name.contains('/') {
        return match check(Path::new(name)) {
            Ok(()) => Ok(name.into()),
            Err(error) => Err(exec_failure(name, &error.into())),
        };
    }
    let path = environment
        .iter()
        .rev()
        .find_map(|entry| entry.strip_prefix("PATH="))
        .unwrap_or("/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin");
    let mut denied = None;
    if !name.is_empty() {
        for directory in path.split(':') {
            let directory = if directory.is_empty() { "." } else { directory };
            let candidate = Path::new(directory).join(name);
            match check(&candidate) {
                Ok(()) => return Ok(candidate),
                Err(Errno::ACCESS) => denied = Some(Errno::ACCESS),
                Err(_) => {}
            }
        }
    }
    match denied {
        Some(error) => Err(failure(name, &plain(&error.into()), 126)),
        None => Err(failure(name, "executable file not found in $PATH", 127)),
    }
}

/// Whether a file can be executed by this process.
fn check(path: &Path) -> Result<(), Errno> {
    let stat = rustix::fs::stat(path)?;
    if FileType::from_raw_mode(stat.st_mode) == FileType::Directory {
        return Err(Errno::ISDIR);
    }
    match rustix::fs::accessat(CWD, path, Access::EXEC_OK, AtFlags::EACCESS) {
        // Kernels before 5.8 lack the call; execve(2) itself tells.
        Err(Errno::NOSYS | Errno::INVAL) => Ok(()),
        result => result,
    }
}

/// The strings of an argument list or environment for execve(2).
pub(crate) fn c_strings(strings: &[String], what: &str) -> Result<Vec<CString>, Error> {
    strings
        .iter()
        .map(|string| {
            CString::new(string.as_str())
                .map_err(|_| Error::invalid(format!("process.{what} contains a NUL byte")))
        })
        .collect()
}

/// The environment, with `HOME` from the container's `/etc/passwd` if it is not in it. An
/// entry without a name is refused by nobody and useful to nobody; it stays.
pub(crate) fn environment(given: &[String], uid: u32) -> Vec<String> {
    // The last of several entries with one name counts, as for the shell of runc.
    let mut environment: Vec<String> = Vec::with_capacity(given.len() + 1);
    for entry in given {
        if let Some((name, _)) = entry.split_once('=')
            && let Some(known) = environment
                .iter_mut()
                .find(|known| known.split_once('=').is_some_and(|(other, _)| other == name))
        {
            known.clone_from(entry);
            continue;
        }
        environment.push(entry.clone());
    }
    if !environment.iter().any(|entry| entry.starts_with("HOME=") && entry.len() > 5) {
        environment.retain(|entry| !entry.starts_with("HOME="));
        let home = home(uid).unwrap_or_else(|| "/".into());
        environment.push(format!("HOME={home}"));
    }
    environment
}

/// The home directory of a user by the container's own file, which may be anything.
fn home(uid: u32) -> Option<String> {
    let root =
        rustix::fs::open(c"/", OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
            .ok()?;
    let text = path::read_regular_file_in_root(&root, "etc/passwd", PASSWD_MAX).ok()??;
    home_in(&text, uid)
}

fn home_in(passwd: &[u8], uid: u32) -> Option<String> {
    passwd.split(|&byte| byte == b'\n').find_map(|line| {
        let mut fields = line.split(|&byte| byte == b':');
        let id = std::str::from_utf8(fields.nth(2)?).ok()?.parse::<u32>().ok()?;
        let home = fields.nth(2)?;
        (id == uid && !home.is_empty())
            .then(|| OsStr::from_bytes(home).to_str().map(ToOwned::to_owned))
            .flatten()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_for_missing_programs() {
        let path = ["PATH=/bin:/usr/bin".to_owned()];
        let cases = [
            ("nosuch", "exec: \"nosuch\": executable file not found in $PATH", 127),
            ("", "exec: \"\": executable file not found in $PATH", 127),
            ("/nosuch", "exec: \"/nosuch\": no such file or directory", 127),
            ("/etc", "exec: \"/etc\": is a directory", 126),
            ("/etc/passwd", "exec: \"/etc/passwd\": permission denied", 126),
        ];
        for (name, text, status) in cases {
            let error = look_up(name, &path).unwrap_err();
            assert_eq!(error.to_string(), text);
            assert_eq!(error.exit_status(), Some(status));
        }
        assert!(look_up("sh", &path).unwrap().ends_with("sh"));
    }

    #[test]
    fn home_is_found_by_number() {
        let passwd = b"root:x:0:0:root:/root:/bin/sh\nbroken\n:::::\nu:x:7:7::/home/u:\n";
        assert_eq!(home_in(passwd, 0).as_deref(), Some("/root"));
        assert_eq!(home_in(passwd, 7).as_deref(), Some("/home/u"));
        assert_eq!(home_in(passwd, 8), None);
    }

    #[test]
    fn last_entry_of_a_name_counts() {
        let given = ["A=1", "HOME=/h", "A=2"].map(ToOwned::to_owned);
        assert_eq!(environment(&given, 0), ["A=2", "HOME=/h"]);
    }
}
