//! Environment and resource limits of a process.

use silo_docker::host_config::Ulimit;
use silo_oci::runtime::PosixRlimit;
use silo_types::Error;

/// `PATH` of a container that has none.
const DEFAULT_PATH: &str = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

fn name_of(variable: &str) -> &str {
    variable.split_once('=').map_or(variable, |(name, _)| name)
}

/// `base` with `changes`: `NAME=value` replaces or is appended, `NAME` alone removes.
pub fn merge_env(mut base: Vec<String>, changes: &[String]) -> Vec<String> {
    for change in changes {
        let place = base.iter().position(|variable| name_of(variable) == name_of(change));
        match (place, change.contains('=')) {
            (Some(index), true) => base[index].clone_from(change),
            (Some(index), false) => {
                base.remove(index);
            }
            (None, true) => base.push(change.clone()),
            (None, false) => {}
        }
    }
    base
}

/// The environment of a container's processes: Docker's own variables, those of links, then the
/// container's.
pub fn environment(hostname: &str, tty: bool, linked: &[String], env: &[String]) -> Vec<String> {
    let mut base = vec![DEFAULT_PATH.to_owned(), format!("HOSTNAME={hostname}")];
    if tty {
        base.push("TERM=xterm".into());
    }
    base.extend_from_slice(linked);
    merge_env(base, env)
}

/// Adds `HOME` where nothing sets it.
pub fn add_home(env: &mut Vec<String>, home: &str) {
    if !env.iter().any(|variable| name_of(variable) == "HOME") {
        env.push(format!("HOME={home}"));
    }
}

const LIMITS: &[(&str, &str)] = &[
    ("core", "RLIMIT_CORE"),
    ("cpu", "RLIMIT_CPU"),
    ("data", "RLIMIT_DATA"),
    ("fsize", "RLIMIT_FSIZE"),
    ("locks", "RLIMIT_LOCKS"),
    ("memlock", "RLIMIT_MEMLOCK"),
    ("msgqueue", "RLIMIT_MSGQUEUE"),
    ("nice", "RLIMIT_NICE"),
    ("nofile", "RLIMIT_NOFILE"),
    ("nproc", "RLIMIT_NPROC"),
    ("rss", "RLIMIT_RSS"),
    ("rtprio", "RLIMIT_RTPRIO"),
    ("rttime", "RLIMIT_RTTIME"),
    ("sigpending", "RLIMIT_SIGPENDING"),
    ("stack", "RLIMIT_STACK"),
];

/// One limit; -1 stands for none.
pub fn rlimit(limit: &Ulimit) -> Result<PosixRlimit, Error> {
    // docker wording
    let (_, kind) = LIMITS
        .iter()
        .find(|(name, _)| *name == limit.name)
        .ok_or_else(|| Error::invalid(format!("invalid ulimit type: {}", limit.name)))?;
    if limit.hard != -1 && (limit.soft == -1 || limit.soft > limit.hard) {
        return Err(Error::invalid(format!(
            "ulimit soft limit must be less than or equal to hard limit: {} > {}",
            limit.soft, limit.hard
        )));
    }
    let value = |number: i64| match number {
        -1 => Ok(u64::MAX),
        number => u64::try_from(number).map_err(|_| {
            Error::invalid(format!("invalid ulimit value {number} for {}", limit.name))
        }),
    };
    Ok(PosixRlimit { kind: (*kind).to_owned(), hard: value(limit.hard)?, soft: value(limit.soft)? })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn list(items: &[&str]) -> Vec<String> {
        items.iter().map(|&item| item.to_owned()).collect()
    }

    #[test]
    fn variables_replace_append_and_remove() {
        let env = environment("box", true, &[], &list(&["A=1", "PATH=/x", "A=2", "TERM", "NONE"]));
        assert_eq!(env, ["PATH=/x", "HOSTNAME=box", "A=2"]);
        let mut env = list(&["A=1"]);
        add_home(&mut env, "/root");
        add_home(&mut env, "/else");
        assert_eq!(env, ["A=1", "HOME=/root"]);
    }

    #[test]
    fn limits() {
        let limit = |name: &str, soft, hard| rlimit(&Ulimit { name: name.into(), soft, hard });
        let nofile = limit("nofile", 10, -1).unwrap();
        assert_eq!(
            (nofile.kind.as_str(), nofile.soft, nofile.hard),
            ("RLIMIT_NOFILE", 10, u64::MAX)
        );
        for (name, soft, hard) in
            [("x", 1, 1), ("nofile", 5, 4), ("nofile", -2, 4), ("nofile", -1, 4)]
        {
            assert!(limit(name, soft, hard).is_err(), "{name} {soft} {hard}");
        }
    }
}
