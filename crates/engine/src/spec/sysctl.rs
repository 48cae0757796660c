//! `--sysctl`: only parameters that belong to a namespace of the container's own.

use silo_types::Error;

/// Which namespaces the container has for itself.
#[derive(Debug, Clone, Copy)]
pub struct Own {
    /// Its own IPC namespace.
    pub ipc: bool,
    /// Its own network namespace.
    pub network: bool,
    /// Its own UTS namespace.
    pub uts: bool,
}

const IPC: &[&str] = &[
    "kernel.msgmax",
    "kernel.msgmnb",
    "kernel.msgmni",
    "kernel.sem",
    "kernel.shmall",
    "kernel.shmmax",
    "kernel.shmmni",
    "kernel.shm_rmid_forced",
];

/// Checks one parameter and its value.
///
/// A name or value with a character that a tool could take for a separator is refused, so that
/// no second parameter can be smuggled in (CVE-2022-0811).
pub fn check(name: &str, value: &str, own: Own) -> Result<(), Error> {
    let name_is_plain = !name.is_empty()
        && !name.contains("..")
        && name.bytes().all(|b| b.is_ascii_alphanumeric() || b"._-/".contains(&b));
    if !name_is_plain {
        return Err(Error::invalid(format!("invalid sysctl name {name:?}")));
    }
    if value.bytes().any(|b| b.is_ascii_control() && b != b'\t' || b"+=".contains(&b)) {
        return Err(Error::invalid(format!("invalid value {value:?} for sysctl {name:?}")));
    }
    // Linux takes `/` for `.` in names; what is compared must be one spelling.
    let dotted = name.replace('/', ".");
    // docker wording, that of runc
    if IPC.contains(&dotted.as_str()) || dotted.starts_with("fs.mqueue.") {
        return if own.ipc {
            Ok(())
        } else {
            Err(Error::invalid(format!(
                "sysctl {name:?} is not allowed in the hosts ipc namespace"
            )))
        };
    }
    if dotted.starts_with("net.") {
        return if own.network {
            Ok(())
        } else {
            Err(Error::invalid(format!("sysctl {name:?} not allowed in host network namespace")))
        };
    }
    if dotted == "kernel.domainname" && own.uts {
        return Ok(());
    }
    if dotted == "kernel.hostname" {
        return Err(Error::invalid(format!(
            "sysctl {name:?} is not allowed as it conflicts with the OCI \"hostname\" field"
        )));
    }
    Err(Error::invalid(format!("sysctl {name:?} is not in a separate kernel namespace")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_containers_own() {
        let all = Own { ipc: true, network: true, uts: true };
        let none = Own { ipc: false, network: false, uts: false };
        for (name, value) in [
            ("net.ipv4.ip_forward", "1"),
            ("net/ipv4/ip_forward", "1"),
            ("kernel.shmmax", "68719476736"),
            ("fs.mqueue.msg_max", "10"),
            ("net.ipv4.ping_group_range", "0 1000"),
            ("net.ipv4.tcp_rmem", "1\t2\t3"),
            ("kernel.domainname", "x"),
        ] {
            assert!(check(name, value, all).is_ok(), "{name}");
            assert!(check(name, value, none).is_err(), "{name}");
        }
        for (name, value) in [
            ("kernel.core_pattern", "|/x"),
            ("kernel.shm_rmid_forced", "1+kernel.core_pattern=|/x"),
            ("kernel.shmmax=1+kernel.core_pattern", "|/x"),
            ("net.ipv4.ip_forward", "1\nkernel.core_pattern=x"),
            ("net/../kernel/core_pattern", "x"),
            ("kernel.hostname", "x"),
            ("vm.swappiness", "1"),
            ("", "1"),
        ] {
            assert!(check(name, value, all).is_err(), "{name}");
        }
    }
}
