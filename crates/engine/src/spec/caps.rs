//! Capabilities: Docker's default set, `--cap-add`, `--cap-drop`, `--privileged`.

use silo_types::Error;

pub use silo_oci::capability::ALL;

/// What a container has when nothing is asked.
pub const DEFAULT: &[&str] = &[
    "CAP_CHOWN",
    "CAP_DAC_OVERRIDE",
    "CAP_FSETID",
    "CAP_FOWNER",
    "CAP_MKNOD",
    "CAP_NET_RAW",
    "CAP_SETGID",
    "CAP_SETUID",
    "CAP_SETFCAP",
    "CAP_SETPCAP",
    "CAP_NET_BIND_SERVICE",
    "CAP_SYS_CHROOT",
    "CAP_KILL",
    "CAP_AUDIT_WRITE",
];

const EVERY: &str = "ALL";

/// The names in Linux's spelling: upper case, with `CAP_`; `ALL` stays.
///
/// `supported` is what this kernel has (a prefix of [`ALL`]).
pub fn normalize(names: &[String], supported: &[&str]) -> Result<Vec<String>, Error> {
    names
        .iter()
        .map(|given| {
            let mut name = given.to_ascii_uppercase();
            if name == EVERY || name == "CAP_ALL" {
                return Ok(EVERY.to_owned());
            }
            if !name.starts_with("CAP_") {
                name.insert_str(0, "CAP_");
            }
            // docker wording
            if !ALL.contains(&name.as_str()) {
                return Err(Error::invalid(format!("unknown capability: {name:?}")));
            }
            if !supported.contains(&name.as_str()) {
                return Err(Error::invalid(format!(
                    "capability not supported by your kernel or not available in the current environment: {name:?}"
                )));
            }
            Ok(name)
        })
        .collect()
}

/// The capabilities of a container.
pub fn effective(
    add: &[String],
    drop: &[String],
    privileged: bool,
    supported: &[&str],
) -> Result<Vec<String>, Error> {
    let owned = |names: &[&str]| names.iter().map(|&name| name.to_owned()).collect::<Vec<_>>();
    if privileged {
        return Ok(owned(supported));
    }
    let add = normalize(add, supported)?;
    let drop = normalize(drop, supported)?;
    let has = |list: &[String], name: &str| list.iter().any(|item| item == name);
    if has(&add, EVERY) {
        let mut all = owned(supported);
        all.retain(|name| !has(&drop, name));
        return Ok(all);
    }
    let mut result = if has(&drop, EVERY) {
        Vec::new()
    } else {
        let mut kept = owned(DEFAULT);
        kept.retain(|name| !has(&drop, name) && supported.contains(&name.as_str()));
        kept
    };
    for name in add {
        if !has(&result, &name) {
            result.push(name);
        }
    }
    Ok(result)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn list(names: &[&str]) -> Vec<String> {
        names.iter().map(|&name| name.to_owned()).collect()
    }

    #[test]
    fn adds_and_drops() {
        let set =
            |add: &[&str], drop: &[&str]| effective(&list(add), &list(drop), false, ALL).unwrap();
        assert_eq!(set(&[], &[]), DEFAULT);
        assert_eq!(set(&[], &["all"]), Vec::<String>::new());
        assert_eq!(set(&["net_admin"], &["ALL"]), ["CAP_NET_ADMIN"]);
        assert_eq!(set(&["ALL"], &[]), ALL);
        assert_eq!(set(&["ALL"], &["SYS_ADMIN"]).len(), ALL.len() - 1);
        assert!(!set(&[], &["CAP_MKNOD"]).contains(&"CAP_MKNOD".to_owned()));
        assert_eq!(set(&["CHOWN"], &[]).len(), DEFAULT.len());
        assert_eq!(effective(&[], &list(&["ALL"]), true, ALL).unwrap(), ALL);
    }

    #[test]
    fn unknown_and_unsupported_names_are_refused() {
        let message = |name: &str, supported: &[&str]| {
            normalize(&list(&[name]), supported).unwrap_err().message().to_owned()
        };
        assert_eq!(message("no_such", ALL), "unknown capability: \"CAP_NO_SUCH\"");
        assert!(message("bpf", &ALL[..30]).starts_with("capability not supported"));
    }
}
