//! Intel's Resource Director Technology: classes of service in the resctrl file system.

use std::path::{Path, PathBuf};

use rustix::process::Pid;
use silo_oci::runtime::LinuxIntelRdt;

use crate::create::number;
use crate::error::{Context as _, Error};

/// The class's directory; refuses names that are not one.
fn directory(root: &Path, id: &str, rdt: &LinuxIntelRdt) -> Result<PathBuf, Error> {
    let name = if rdt.clos_id.is_empty() { id } else { &rdt.clos_id };
    // "/" stands for the default class.
    if name == "/" {
        return Ok(root.to_owned());
    }
    if name.contains('/') || matches!(name, "." | ".." | "info" | "mon_groups" | "mon_data") {
        return Err(Error::invalid(format!("linux.intelRdt: invalid closID {name:?}")));
    }
    Ok(root.join(name))
}

/// Puts a process into its class of service, which is made if the configuration describes it.
pub(crate) fn apply(root: &Path, id: &str, rdt: &LinuxIntelRdt, pid: Pid) -> Result<(), Error> {
    let directory = directory(root, id, rdt)?;
    let step = || format!("intelRdt class {}", directory.display());
    if fs_err::metadata(root.join("schemata")).is_err() {
        return Err(Error::invalid("linux.intelRdt: resctrl is not mounted"));
    }
    let schemata: Vec<&str> = [rdt.l3_cache_schema.as_str(), rdt.mem_bw_schema.as_str()]
        .into_iter()
        .chain(rdt.schemata.iter().map(String::as_str))
        .filter(|line| !line.is_empty())
        .collect();
    let exists = fs_err::metadata(&directory).is_ok_and(|found| found.is_dir());
    if !exists {
        if !rdt.clos_id.is_empty() && schemata.is_empty() {
            return Err(Error::invalid(format!(
                "linux.intelRdt: the class {} does not exist and has no schemata",
                rdt.clos_id
            )));
        }
        fs_err::create_dir(&directory).step(step)?;
    }
    for line in schemata {
        fs_err::write(directory.join("schemata"), format!("{line}\n")).step(step)?;
    }
    fs_err::write(directory.join("tasks"), number(pid).to_string()).step(step)?;
    if rdt.enable_monitoring {
        let group = directory.join("mon_groups").join(id);
        if fs_err::metadata(&group).is_err() {
            fs_err::create_dir(&group).step(step)?;
        }
        fs_err::write(group.join("tasks"), number(pid).to_string()).step(step)?;
    }
    Ok(())
}

/// Removes what [`apply`] made for the container alone.
pub(crate) fn remove(root: &Path, id: &str, rdt: &LinuxIntelRdt) -> Result<(), Error> {
    let directory = directory(root, id, rdt)?;
    let made = if rdt.clos_id.is_empty() {
        directory
    } else if rdt.enable_monitoring {
        directory.join("mon_groups").join(id)
    } else {
        return Ok(());
    };
    match fs_err::remove_dir(made) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(Error::step("remove intelRdt class", error))
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_classes_stay_in_the_file_system() {
        let name = |clos_id: &str| {
            let rdt = LinuxIntelRdt { clos_id: clos_id.into(), ..LinuxIntelRdt::default() };
            directory(Path::new("/r"), "id", &rdt).ok()
        };
        assert_eq!(name(""), Some("/r/id".into()));
        assert_eq!(name("x"), Some("/r/x".into()));
        assert_eq!(name("/"), Some("/r".into()));
        for wrong in ["..", "a/b", "info"] {
            assert_eq!(name(wrong), None);
        }
    }
}
