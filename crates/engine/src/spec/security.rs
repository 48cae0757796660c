//! `--security-opt`.

use silo_types::Error;

/// What the security options of a container say.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Security {
    /// The program can gain no privileges by executing another.
    pub no_new_privileges: bool,
    /// The system call filter.
    pub seccomp: Seccomp,
    /// An AppArmor profile's name.
    pub apparmor: Option<String>,
    /// SELinux label options, kept for a host that has it.
    pub labels: Vec<String>,
    /// Whether the container may write to its cgroup; by default a privileged one may.
    pub writable_cgroups: Option<bool>,
    /// Nothing of /proc and /sys is hidden or made read-only.
    pub system_paths_unconfined: bool,
}

/// The choice of a system call filter.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Seccomp {
    /// Docker's default profile; none when privileged.
    #[default]
    Unset,
    /// Docker's default profile, also when privileged.
    Builtin,
    /// No filter.
    Unconfined,
    /// A profile in Docker's JSON form.
    Profile(String),
}

/// Reads the options.
pub fn parse(options: &[String]) -> Result<Security, Error> {
    let mut security = Security::default();
    for option in options {
        // docker wording, throughout
        let invalid =
            |kind: u8| Error::invalid(format!("invalid --security-opt {kind}: {option:?}"));
        match option.as_str() {
            "no-new-privileges" => {
                security.no_new_privileges = true;
                continue;
            }
            "writable-cgroups" => {
                security.writable_cgroups = Some(true);
                continue;
            }
            "disable" => {
                security.labels.push("disable".into());
                continue;
            }
            _ => {}
        }
        let (key, value) =
            option.split_once('=').or_else(|| option.split_once(':')).ok_or_else(|| invalid(1))?;
        match key {
            "label" => security.labels.push(value.to_owned()),
            "apparmor" => security.apparmor = Some(value.to_owned()),
            "seccomp" => {
                security.seccomp = match value {
                    "unconfined" => Seccomp::Unconfined,
                    "builtin" => Seccomp::Builtin,
                    profile => Seccomp::Profile(profile.to_owned()),
                }
            }
            "no-new-privileges" => {
                security.no_new_privileges = go_bool(value).ok_or_else(|| invalid(2))?;
            }
            "writable-cgroups" => {
                security.writable_cgroups = Some(go_bool(value).ok_or_else(|| invalid(2))?);
            }
            "systempaths" if value == "unconfined" => security.system_paths_unconfined = true,
            _ => return Err(invalid(2)),
        }
    }
    Ok(security)
}

/// The texts that Go's `strconv.ParseBool` takes.
pub fn go_bool(text: &str) -> Option<bool> {
    match text {
        "1" | "t" | "T" | "true" | "TRUE" | "True" => Some(true),
        "0" | "f" | "F" | "false" | "FALSE" | "False" => Some(false),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_are_read() {
        let read =
            |options: &[&str]| parse(&options.iter().map(|&o| o.to_owned()).collect::<Vec<_>>());
        assert_eq!(read(&[]).unwrap(), Security::default());
        let security = read(&[
            "no-new-privileges:true",
            "seccomp=unconfined",
            "apparmor:unconfined",
            "label=type:x",
            "systempaths=unconfined",
        ])
        .unwrap();
        assert!(security.no_new_privileges && security.system_paths_unconfined);
        assert_eq!(security.seccomp, Seccomp::Unconfined);
        assert_eq!(security.apparmor.as_deref(), Some("unconfined"));
        assert_eq!(security.labels, ["type:x"]);
        assert!(!read(&["no-new-privileges=false"]).unwrap().no_new_privileges);
        for (bad, message) in [
            ("bogus", "invalid --security-opt 1: \"bogus\""),
            ("x=y", "invalid --security-opt 2: \"x=y\""),
            ("no-new-privileges=maybe", "invalid --security-opt 2: \"no-new-privileges=maybe\""),
        ] {
            assert_eq!(read(&[bad]).unwrap_err().message(), message);
        }
    }
}
